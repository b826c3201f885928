//! SQL expressions: read once, typed once per schema, evaluated on batches.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, cast::AsArray},
    compute::cast,
    datatypes::{DataType, Field, Fields, Schema},
    error::ArrowError,
};
use datafusion_common::{
    DFSchema, DataFusionError,
    tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{
    Expr as LogicalExpr, Operator, execution_props::ExecutionProps,
    physical_planning_context::PhysicalPlanningContext, simplify::SimplifyContext,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{
    PhysicalExpr, ScalarFunctionExpr, create_physical_expr,
    expressions::{BinaryExpr, Column},
};
use datafusion_sql::{
    planner::{ParserOptions, PlannerContext, SqlToRel},
    sqlparser::{
        ast::Expr as SqlExpr,
        dialect::GenericDialect,
        keywords::Keyword,
        parser::Parser,
        tokenizer::{Token, Tokenizer},
    },
};
use millstream_graph::{SchemaError, StepError};

use crate::{
    check,
    deep::deep,
    fast::{FEW_ROWS, Fast},
    functions::{functions, refuse_count},
    message::{complaint, said, shown},
};

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;

/// How deep an expression may nest in parentheses and function calls.
const MAX_NESTING: usize = 50;

/// A bound on how deep the tree of an expression may get by long chains of operators: `a + b + c + ...`.
const MAX_CHAIN: usize = 256;

const DIALECT: GenericDialect = GenericDialect {};

/// A SQL expression over the columns of one row, as it was written.
///
/// Column names are matched exactly, letter case included; a name with other characters than letters, digits and `_`
/// goes into double quotes. Text goes into single quotes. `AS name` at the end names the result.
///
/// ```
/// use millstream_transform::Expr;
/// let expr = Expr::parse("amount / avg_amount AS ratio")?;
/// assert_eq!(expr.alias(), Some("ratio"));
/// # Ok::<(), millstream_graph::SchemaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Expr {
    text: Arc<str>,
    alias: Option<String>,
    tree: SqlExpr,
}

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// When the text is not an expression, is longer than [`MAX_LENGTH`], or nests too deep.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        deep(|| Self::read(text))
    }

    fn read(text: &str) -> Result<Self, SchemaError> {
        let problem = |problem: String| SchemaError::new(format!("in `{}`: {problem}", shown(text)));
        if text.trim().is_empty() {
            return Err(SchemaError::new("an expression is empty"));
        }
        if text.len() > MAX_LENGTH {
            return Err(problem(format!(
                "{} bytes are more than the {MAX_LENGTH} an expression may have",
                text.len()
            )));
        }
        let tokens = Tokenizer::new(&DIALECT, text)
            .tokenize_with_location()
            .map_err(|error| problem(said(&error.to_string())))?;
        check::depth(tokens.iter().map(|token| &token.token), MAX_NESTING, MAX_CHAIN).map_err(problem)?;

        let mut parser =
            Parser::new(&DIALECT).with_recursion_limit(MAX_NESTING).with_tokens_with_locations(tokens);
        let parsed = (|| {
            let tree = parser.parse_expr()?;
            let alias =
                if parser.parse_keyword(Keyword::AS) { Some(parser.parse_identifier()?.value) } else { None };
            parser.expect_token(&Token::EOF)?;
            Ok((tree, alias))
        })();
        let (tree, alias) = parsed.map_err(|error: datafusion_sql::sqlparser::parser::ParserError| {
            problem(said(&error.to_string()))
        })?;
        Ok(Self { text: text.into(), alias, tree })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name behind `AS`.
    pub fn alias(&self) -> Option<&str> {
        self.alias.as_deref()
    }

    /// The column that the expression is, if it is nothing but a column.
    pub fn column(&self) -> Option<&str> {
        match &self.tree {
            SqlExpr::Identifier(name) => Some(&name.value),
            _ => None,
        }
    }

    /// Whether the expression reads one of these names.
    pub(crate) fn mentions(&self, names: &HashSet<&str>) -> bool {
        !names.is_empty() && check::mentions(&self.tree, names)
    }

    /// Types the expression for batches of `schema`.
    ///
    /// # Errors
    /// With everything that is wrong at once: unknown columns and functions with the closest names, types that do not
    /// fit, and what an expression over one row cannot be: a subquery, an aggregate, a window, a changing function.
    pub fn compile(&self, schema: &Schema) -> Result<CompiledExpr, SchemaError> {
        deep(|| Compiler::new(schema)?.compile(self))
    }
}

#[cfg(test)]
impl Expr {
    /// What `compile` would answer if it left the expression as it was written.
    pub(crate) fn compile_without_simplifying(&self, schema: &Schema) -> Result<CompiledExpr, String> {
        let compiler = Compiler::new(schema).map_err(|error| error.to_string())?;
        let logical = compiler.logical(&self.tree)?;
        let logical = compiler.simplifier.coerce(logical, &compiler.columns).map_err(complaint)?;
        compiler.finish(self, compiler.physical(&logical)?)
    }
}

/// Types expressions for one schema.
pub(crate) struct Compiler<'a> {
    schema: &'a Schema,
    columns: Arc<DFSchema>,
    simplifier: ExprSimplifier,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(schema: &'a Schema) -> Result<Self, SchemaError> {
        let columns = DFSchema::try_from(schema.clone()).map_err(|error| {
            SchemaError::new(format!("the columns that come in: {}", said(&error.strip_backtrace())))
        })?;
        let columns = Arc::new(columns);
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&columns))
            .with_config_options(Arc::clone(functions().config()))
            .build();
        Ok(Self { schema, columns, simplifier: ExprSimplifier::new(context) })
    }

    pub(crate) fn compile(&self, expr: &Expr) -> Result<CompiledExpr, SchemaError> {
        let place = |problem: String| SchemaError::new(format!("in `{}`: {problem}", shown(&expr.text)));
        SchemaError::collect(check::names(&expr.tree, self.schema).into_iter().map(place))?;
        // The planner asserts on some trees that it did not foresee. A text must never end the process.
        let physical = catch_unwind(AssertUnwindSafe(|| self.plan(&expr.tree)))
            .unwrap_or_else(|_| Err("this expression is not supported".to_owned()))
            .map_err(place)?;
        self.finish(expr, physical).map_err(place)
    }

    fn plan(&self, tree: &SqlExpr) -> Result<Arc<dyn PhysicalExpr>, String> {
        let logical = self.logical(tree)?;
        let logical = self.simplifier.coerce(logical, &self.columns).map_err(complaint)?;
        let logical = self.simplifier.simplify(logical).map_err(complaint)?;
        self.physical(&logical)
    }

    fn logical(&self, tree: &SqlExpr) -> Result<LogicalExpr, String> {
        let options = ParserOptions::new()
            .with_enable_ident_normalization(false)
            .with_support_varchar_with_length(true)
            .with_map_string_types_to_utf8view(false);
        let planner = SqlToRel::new_with_options(functions(), options);
        let logical = planner
            .sql_to_expr(tree.clone(), &self.columns, &mut PlannerContext::new())
            .map_err(complaint)?;
        refuse(&logical)?;
        Ok(logical)
    }

    fn physical(&self, logical: &LogicalExpr) -> Result<Arc<dyn PhysicalExpr>, String> {
        let mut props = ExecutionProps::new();
        props.config_options = Some(Arc::clone(functions().config()));
        let physical =
            create_physical_expr(logical, &self.columns, &props, &PhysicalPlanningContext::default())
                .map_err(complaint)?;
        strict(physical, self.schema).map_err(complaint)
    }

    fn finish(&self, expr: &Expr, physical: Arc<dyn PhysicalExpr>) -> Result<CompiledExpr, String> {
        let made = physical.data_type(self.schema).map_err(complaint)?;
        let nullable = physical.nullable(self.schema).map_err(complaint)?;
        let data_type = plain(&made);
        if contains_null_type(&data_type) {
            return Err("a bare NULL has no type; write CAST(NULL AS DOUBLE) or another type".to_owned());
        }
        let converts = (data_type != made).then(|| data_type.clone());
        let column = physical.downcast_ref::<Column>().map(Column::index);
        let fast = if converts.is_none() { Fast::new(&physical, self.schema).map(Arc::new) } else { None };
        let text = Arc::clone(&expr.text);
        Ok(CompiledExpr { text, physical, data_type, nullable, converts, column, fast })
    }
}

/// An expression that has been typed for batches of one schema.
#[derive(Clone, Debug)]
pub struct CompiledExpr {
    text: Arc<str>,
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    nullable: bool,
    /// The result is made in another representation of the same values, and brought into `data_type`.
    converts: Option<DataType>,
    /// The expression is nothing but this column.
    column: Option<usize>,
    /// How a few rows are computed, if that is possible value by value.
    fast: Option<Arc<Fast>>,
}

impl CompiledExpr {
    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The type of the result.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether the result may be null.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// The column that the expression is, if it is nothing but a column.
    pub(crate) fn is_column(&self) -> Option<usize> {
        self.column
    }

    /// The columns that the expression reads, by index, in ascending order.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        let walked = self.physical.apply(|node| {
            columns.extend(node.downcast_ref::<Column>().map(Column::index));
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(walked.is_ok(), "nothing in the walk fails");
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    pub(crate) fn physical(&self) -> &Arc<dyn PhysicalExpr> {
        &self.physical
    }

    /// The same expression in other words, over columns only.
    pub(crate) fn over_columns(&self, physical: Arc<dyn PhysicalExpr>) -> Self {
        Self { physical, column: None, fast: None, ..self.clone() }
    }

    /// How a few rows are computed, if that is possible value by value.
    pub(crate) fn fast(&self) -> Option<&Arc<Fast>> {
        self.fast.as_ref()
    }

    /// Evaluates the expression for every row of a batch.
    ///
    /// # Errors
    /// Of kind `Rows` when a value is at fault: a whole number divided by zero or out of range, a text that is not a
    /// number, the square root of a negative number.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, StepError> {
        if let Some(array) = self.column.and_then(|index| batch.columns().get(index)) {
            return Ok(Arc::clone(array));
        }
        if batch.num_rows() <= FEW_ROWS
            && let Some(fast) = &self.fast
            && let Ok(array) = fast.evaluate(batch)
        {
            return Ok(array);
        }
        self.evaluate_columns(batch)
    }

    /// Evaluates the expression with DataFusion's kernels over columns.
    pub(crate) fn evaluate_columns(&self, batch: &RecordBatch) -> Result<ArrayRef, StepError> {
        let array = self
            .physical
            .evaluate(batch)
            .and_then(|value| value.into_array(batch.num_rows()))
            .map_err(|error| self.failed(&error))?;
        match &self.converts {
            None => Ok(array),
            Some(data_type) => cast(&array, data_type).map_err(|error| self.failed(&error.into())),
        }
    }

    /// Evaluates a condition for every row of a batch; null counts as false.
    ///
    /// # Errors
    /// Like [`CompiledExpr::evaluate`].
    pub fn holds(&self, batch: &RecordBatch) -> Result<BooleanArray, StepError> {
        let array = self.evaluate(batch)?;
        match array.as_boolean_opt() {
            Some(mask) => Ok(mask.clone()),
            None => Err(StepError::internal(format!("`{}` is not a condition", shown(&self.text)))),
        }
    }

    /// The same expression for batches of `schema`, in which column `i` stands at `places[i]`.
    pub(crate) fn moved(&self, places: &[usize], schema: &Schema) -> Result<Self, SchemaError> {
        let moved = Arc::clone(&self.physical)
            .transform_up(|node| match node.downcast_ref::<Column>() {
                Some(column) => match places.get(column.index()) {
                    Some(&place) => Ok(Transformed::yes(
                        Arc::new(Column::new(column.name(), place)) as Arc<dyn PhysicalExpr>
                    )),
                    None => datafusion_common::internal_err!("column {} of {}", column.index(), places.len()),
                },
                None => Ok(Transformed::no(node)),
            })
            .data()
            .map_err(|error| SchemaError::new(format!("in `{}`: {}", shown(&self.text), complaint(error))))?;
        let column = moved.downcast_ref::<Column>().map(Column::index);
        let fast = if self.fast.is_some() { Fast::new(&moved, schema).map(Arc::new) } else { None };
        Ok(Self { physical: moved, column, fast, ..self.clone() })
    }

    /// Refuses an expression that is not a condition.
    pub(crate) fn check_condition(&self) -> Result<(), SchemaError> {
        if self.data_type == DataType::Boolean {
            return Ok(());
        }
        Err(SchemaError::new(format!(
            "in `{}`: a condition must be true or false, but this is {}",
            shown(&self.text),
            self.data_type
        )))
    }

    fn failed(&self, error: &DataFusionError) -> StepError {
        let text = shown(&self.text);
        match error.find_root() {
            DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
                ArrowError::DivideByZero => {
                    StepError::rows(format!("`{text}`: a whole number is divided by zero"))
                }
                ArrowError::ArithmeticOverflow(what) => {
                    StepError::rows(format!("`{text}`: {} is out of range", said(what)))
                }
                ArrowError::CastError(what)
                | ArrowError::ComputeError(what)
                | ArrowError::ParseError(what) => StepError::rows(format!("`{text}`: {}", said(what))),
                other => StepError::internal(format!("`{text}`: {}", said(&other.to_string()))),
            },
            DataFusionError::Execution(what) => StepError::rows(format!("`{text}`: {}", said(what))),
            other => StepError::internal(format!("`{text}`: {}", said(&other.strip_backtrace()))),
        }
    }
}

/// Refuses what the planner accepts but one row cannot answer, and calls that could ask for unbounded memory.
fn refuse(expr: &LogicalExpr) -> Result<(), String> {
    let mut problem = None;
    let walked = expr.apply(|node| {
        problem = match node {
            LogicalExpr::Placeholder(_) => Some("a placeholder has no value here".to_owned()),
            LogicalExpr::ScalarVariable(..) => Some("a variable has no value here".to_owned()),
            LogicalExpr::ScalarFunction(call) => refuse_count(call),
            LogicalExpr::AggregateFunction(_)
            | LogicalExpr::WindowFunction(_)
            | LogicalExpr::GroupingSet(_)
            | LogicalExpr::Unnest(_)
            | LogicalExpr::Exists(_)
            | LogicalExpr::InSubquery(_)
            | LogicalExpr::ScalarSubquery(_)
            | LogicalExpr::OuterReferenceColumn(..) => {
                Some("an expression sees the columns of its own row only".to_owned())
            }
            _ => None,
        };
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(complaint)?;
    problem.map_or(Ok(()), Err)
}

/// Functions whose answer is null only when an argument is; most functions claim that theirs may always be.
const NULL_ONLY_FROM_NULL: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "character_length",
    "cos",
    "cosh",
    "date_part",
    "degrees",
    "exp",
    "expm1",
    "floor",
    "greatest",
    "isnan",
    "iszero",
    "least",
    "ln",
    "log10",
    "log1p",
    "log2",
    "lower",
    "make_array",
    "named_struct",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "starts_with",
    "struct",
    "tan",
    "tanh",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_seconds",
    "trunc",
    "upper",
];

/// Makes errors of whole numbers that leave their range, and says what is never null.
fn strict(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    expr.transform_up(|node| {
        if let Some(binary) = node.downcast_ref::<BinaryExpr>()
            && matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
        {
            let (left, right) = (Arc::clone(binary.left()), Arc::clone(binary.right()));
            let checked = BinaryExpr::new(left, *binary.op(), right).with_fail_on_overflow(true);
            return Ok(Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>));
        }
        if let Some(call) = node.downcast_ref::<ScalarFunctionExpr>()
            && call.nullable()
            && NULL_ONLY_FROM_NULL.contains(&call.name())
        {
            for arg in call.args() {
                if arg.nullable(schema)? {
                    return Ok(Transformed::no(node));
                }
            }
            return Ok(Transformed::yes(Arc::new(never_null(call)) as Arc<dyn PhysicalExpr>));
        }
        Ok(Transformed::no(node))
    })
    .data()
}

fn never_null(call: &ScalarFunctionExpr) -> ScalarFunctionExpr {
    let field = call.return_type().clone();
    ScalarFunctionExpr::new(
        call.name(),
        Arc::new(call.fun().clone()),
        call.args().iter().map(Arc::clone).collect(),
        Arc::new(Field::new(call.name(), field, false)),
        Arc::clone(functions().config()),
    )
}

/// The type without string views, which some functions answer and few readers of Arrow know.
fn plain(data_type: &DataType) -> DataType {
    let field = |field: &Field| Arc::new(field.clone().with_data_type(plain(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, width) => DataType::FixedSizeList(field(item), *width),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|inner| field(inner)).collect::<Fields>())
        }
        other => other.clone(),
    }
}

fn contains_null_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            contains_null_type(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| contains_null_type(field.data_type())),
        _ => false,
    }
}

#[cfg(test)]
#[path = "expr_tests.rs"]
mod tests;
