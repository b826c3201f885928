//! Text with `{column}` and `${NAME}` in it.

use std::fmt;

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_graph::SchemaError;

/// Text in which `{column}` stands for the value of a row and `${NAME}` for a variable of the environment.
///
/// It shows itself as it was written, never with what the environment put into it.
#[derive(Clone)]
pub(super) struct Template {
    source: String,
    pub(super) parts: Vec<Part>,
    /// Whether the environment put anything into it.
    pub(super) secret: bool,
}

#[derive(Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    /// A column, and where it stands once the template is typed.
    Column(String, usize),
}

impl Template {
    /// Reads a template, taking what the environment has.
    pub(super) fn read(source: &str) -> Result<Self, SchemaError> {
        let (mut parts, mut problems) = (vec![Part::Text(String::new())], Vec::new());
        let mut rest = source;
        let mut secret = false;
        while let Some(at) = rest.find(['{', '}']) {
            let variable = rest[..at].ends_with('$') && rest[at..].starts_with('{');
            push(&mut parts, &rest[..at - usize::from(variable)]);
            let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, behind)) = inner.filter(|(name, _)| !name.is_empty() && !name.contains('{'))
            else {
                let problem =
                    format!("`{source}`: a brace begins or ends no `{{column}}` and no `${{NAME}}`");
                return Err(SchemaError::new(problem));
            };
            match variable.then(|| std::env::var(name)) {
                None => parts.extend([Part::Column(name.to_owned(), usize::MAX), Part::Text(String::new())]),
                Some(Ok(value)) => {
                    secret = true;
                    push(&mut parts, &value);
                }
                Some(Err(_)) => {
                    let problem = format!("`{source}`: the environment has no text in `{name}`");
                    problems.push(SchemaError::new(problem));
                }
            }
            rest = behind;
        }
        push(&mut parts, rest);
        parts.retain(|part| *part != Part::Text(String::new()));
        SchemaError::collect(problems)?;
        Ok(Self { source: source.to_owned(), parts, secret })
    }

    /// Whether it reads any column.
    pub(super) fn reads_rows(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Column(..)))
    }

    /// Finds its columns.
    pub(super) fn typed(mut self, schema: &Schema) -> Result<Self, SchemaError> {
        let mut problems = Vec::new();
        for part in &mut self.parts {
            let Part::Column(name, at) = part else { continue };
            match schema.column_with_name(name) {
                None => {
                    let known = schema.fields().iter().map(|field| field.name().as_str());
                    problems.push(SchemaError::unknown_column(name, known));
                }
                Some((_, field)) if !is_text(field.data_type()) => {
                    let problem = format!(
                        "`{}`: column `{name}` is {}, which is no text",
                        self.source,
                        field.data_type()
                    );
                    problems.push(SchemaError::new(problem));
                }
                Some((found, _)) => *at = found,
            }
        }
        SchemaError::collect(problems)?;
        Ok(self)
    }
}

/// The text of a value.
pub(super) fn text_of(batch: &RecordBatch, row: usize, name: &str, at: usize) -> Result<String, String> {
    let column = batch.columns().get(at).ok_or_else(|| format!("column `{name}` did not come in"))?;
    if column.is_null(row) {
        return Err(format!("column `{name}` is null, which has no text"));
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(|error| error.to_string())?;
    formatter.value(row).try_to_string().map_err(|error| error.to_string())
}

fn push(parts: &mut [Part], text: &str) {
    if let Some(Part::Text(last)) = parts.last_mut() {
        last.push_str(text);
    }
}

fn is_text(data_type: &DataType) -> bool {
    !data_type.is_nested() && !data_type.is_binary() && *data_type != DataType::Null
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}
