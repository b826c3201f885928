//! What is wrong with an expression before it is typed: how deep it is, and the names in it.

use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
};

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::{
    ast::{Expr as SqlExpr, Function, Ident, ObjectNamePart, Query, Visit, Visitor, visit_expressions},
    keywords::Keyword,
    tokenizer::Token,
};
use millstream_graph::{SchemaError, suggest};

use crate::functions::{Lookup, functions};

/// Refuses an expression that opens more than `nesting` parentheses at a time, or whose tree could be deeper than
/// `most`.
///
/// The parser bounds what it recurses into, but builds chains like `a + b + c` in a loop; all that comes after it
/// recurses into them. Each operator or keyword adds at most one level inside its parentheses, list item or `CASE` arm.
pub(crate) fn depth<'a>(
    tokens: impl Iterator<Item = &'a Token>,
    nesting: usize,
    most: usize,
) -> Result<(), String> {
    let mut open = vec![Level::default()];
    for token in tokens {
        if open.len() > nesting {
            return Err("it nests too deep; name a part of it in a step before".to_owned());
        }
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(Level::default()),
            Token::RParen | Token::RBrace => close(&mut open),
            Token::RBracket => {
                close(&mut open);
                // `a[1]` is an operation on `a`.
                top(&mut open).chain += 1;
            }
            Token::Word(word) => match word.keyword {
                Keyword::CASE => open.push(Level::default()),
                Keyword::END => close(&mut open),
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE => top(&mut open).next_item(),
                Keyword::NoKeyword => {}
                _ => top(&mut open).chain += 1,
            },
            Token::Comma => top(&mut open).next_item(),
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_) | Token::EOF => {}
            _ => top(&mut open).chain += 1,
        }
    }
    while open.len() > 1 {
        close(&mut open);
    }
    if top(&mut open).depth() > most {
        return Err(format!(
            "it nests or chains more than {most} operations; name a part of it in a step before"
        ));
    }
    Ok(())
}

/// What is known of the innermost open parenthesis or `CASE`.
#[derive(Default)]
struct Level {
    /// Operations of the list item or arm that is being read.
    chain: usize,
    /// The deepest parenthesis of that item.
    inner: usize,
    /// The deepest item before it.
    before: usize,
}

impl Level {
    /// A chain puts its first operand deepest, so what is inside an operand adds to the whole chain.
    fn depth(&self) -> usize {
        self.before.max(self.chain + self.inner)
    }

    fn next_item(&mut self) {
        *self = Self { before: self.depth(), ..Self::default() };
    }
}

fn top(open: &mut Vec<Level>) -> &mut Level {
    if open.is_empty() {
        open.push(Level::default());
    }
    let last = open.len() - 1;
    &mut open[last]
}

fn close(open: &mut Vec<Level>) {
    if open.len() > 1
        && let Some(closed) = open.pop()
    {
        let level = top(open);
        level.inner = level.inner.max(closed.depth() + 1);
    }
}

/// Everything that is wrong with the names of an expression.
pub(crate) fn names(tree: &SqlExpr, schema: &Schema) -> Vec<String> {
    let mut names = Names { schema, subquery: false, seen: BTreeSet::new(), problems: Vec::new() };
    let _: ControlFlow<()> = tree.visit(&mut names);
    if names.subquery {
        // The columns of a subquery are not columns of the row, so nothing else that was found counts.
        return vec!["a subquery cannot be answered from one row".to_owned()];
    }
    names.problems
}

/// Whether an expression reads one of these columns.
pub(crate) fn mentions(tree: &SqlExpr, names: &HashSet<&str>) -> bool {
    visit_expressions(tree, |expr| {
        let name = match expr {
            SqlExpr::Identifier(name) => Some(name),
            SqlExpr::CompoundIdentifier(parts) => parts.first(),
            _ => None,
        };
        match name {
            Some(name) if names.contains(name.value.as_str()) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .is_break()
}

struct Names<'a> {
    schema: &'a Schema,
    subquery: bool,
    seen: BTreeSet<String>,
    problems: Vec<String>,
}

impl Visitor for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.subquery = true;
        ControlFlow::Break(())
    }

    fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<()> {
        match expr {
            SqlExpr::Identifier(name) => self.column(name),
            SqlExpr::CompoundIdentifier(parts) => self.path(parts),
            SqlExpr::Function(function) => self.function(function),
            SqlExpr::Wildcard(_) | SqlExpr::QualifiedWildcard(..) => {
                self.problem("`*` stands for all columns only as an item of its own".to_owned());
            }
            SqlExpr::Lambda(_) => self.problem("functions as arguments are not supported".to_owned()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    fn problem(&mut self, problem: String) {
        if self.seen.insert(problem.clone()) {
            self.problems.push(problem);
        }
    }

    fn known(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    fn column(&mut self, name: &Ident) {
        if self.known().any(|known| known == name.value) {
            return;
        }
        let hint = if name.quote_style == Some('"') { " (text goes into single quotes)" } else { "" };
        let problem = SchemaError::unknown_column(&name.value, self.known());
        self.problem(format!("{problem}{hint}"));
    }

    fn path(&mut self, parts: &[Ident]) {
        let Some(first) = parts.first() else { return };
        if self.known().any(|known| known == first.value) {
            return;
        }
        let dotted = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        if self.known().any(|known| known == dotted) {
            self.problem(format!("a column name with a dot goes into double quotes: \"{dotted}\""));
        } else {
            self.column(first);
        }
    }

    fn function(&mut self, function: &Function) {
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => name.value.to_lowercase(),
            _ => function.name.to_string().to_lowercase(),
        };
        if function.over.is_some() {
            return self.problem(format!("`{name}` over a window sees many rows, an expression sees one"));
        }
        match functions().lookup(&name) {
            Lookup::Known => {}
            Lookup::Changing => self.problem(format!(
                "`{name}` answers something else each time, so a request could not be repeated; \
                 send the value as a column"
            )),
            Lookup::Aggregate => {
                let hint = match name.as_str() {
                    "max" => "; the largest of several values is `greatest`",
                    "min" => "; the smallest of several values is `least`",
                    _ => "",
                };
                self.problem(format!("`{name}` sees many rows, an expression sees one{hint}"));
            }
            Lookup::Unknown => self.problem(match suggest::closest(&name, functions().names()) {
                Some(closest) => format!("no function `{name}`; did you mean `{closest}`?"),
                None => format!("no function `{name}`"),
            }),
        }
    }
}
