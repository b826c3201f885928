//! `select`, `with` and `filter`: columns and rows by expression.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch},
    compute::{concat, concat_batches},
    datatypes::{Field, FieldRef, Schema, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use crate::{
    CompiledExpr, Expr,
    deep::deep,
    expr::Compiler,
    fast::FEW_ROWS,
    message::shown,
    prepared::{Kernel, Layout, Prepared, Slot, isolate, split},
    shared::Shared,
};

/// Answers the listed columns, in this order, and no others.
///
/// Each item is a column, an expression with a name (`amount / avg AS ratio`), or `*` for all columns that came in.
/// Rows on which an expression fails (a whole number divided by zero) leave on the error port.
///
/// ```
/// use millstream_transform::Select;
/// let step = Select::new(["card", "amount / avg AS ratio"]);
/// ```
#[derive(Clone, Debug)]
pub struct Select {
    items: Vec<String>,
    prepared: Prepared<Program>,
}

/// The columns to answer, in order: `amount`, `amount / avg AS ratio`, or `*` for all that came in.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SelectSettings(Vec<String>);

impl Select {
    /// The columns to answer.
    pub fn new<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Self {
        Self { items: items.into_iter().map(Into::into).collect(), prepared: Prepared::default() }
    }
}

impl From<SelectSettings> for Select {
    fn from(settings: SelectSettings) -> Self {
        Self::new(settings.0)
    }
}

impl Step for Select {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| deep(|| Program::select(&self.items, schema)))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

/// Adds columns, or replaces those of the same name, by expression.
///
/// The columns are made in order, like one assignment after the other: an expression sees what those before it made.
/// A replaced column keeps its place; a new one goes to the end.
///
/// ```
/// use millstream_transform::With;
/// let step = With::new().column("ratio", "amount / avg").column("high", "ratio > 3");
/// ```
#[derive(Clone, Debug, Default)]
pub struct With {
    columns: Vec<(String, String)>,
    prepared: Prepared<Program>,
}

/// Columns to add or replace: name and expression. A later expression sees the columns before it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct WithSettings(IndexMap<String, String>);

impl With {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the column `name`.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, expression: impl Into<String>) -> Self {
        self.columns.push((name.into(), expression.into()));
        self
    }
}

impl From<WithSettings> for With {
    fn from(settings: WithSettings) -> Self {
        Self { columns: settings.0.into_iter().collect(), prepared: Prepared::default() }
    }
}

impl Step for With {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| deep(|| Program::with(&self.columns, schema)))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

/// Lets only the rows through for which a condition holds; null counts as false.
///
/// ```
/// use millstream_transform::Filter;
/// let step = Filter::new("amount > 0 AND country IS NOT NULL");
/// ```
#[derive(Clone, Debug)]
pub struct Filter {
    condition: String,
    prepared: Prepared<FilterKernel>,
}

/// The condition that a row must meet to go on; null counts as false.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct FilterSettings(String);

impl Filter {
    /// The condition to meet.
    pub fn new(condition: impl Into<String>) -> Self {
        Self { condition: condition.into(), prepared: Prepared::default() }
    }
}

impl From<FilterSettings> for Filter {
    fn from(settings: FilterSettings) -> Self {
        Self::new(settings.0)
    }
}

impl Step for Filter {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| {
            Ok(FilterKernel { condition: condition(&self.condition, schema)?, schema: Arc::clone(schema) })
        })
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

/// A condition on batches of `schema`, to be evaluated by [`CompiledExpr::holds`].
///
/// # Errors
/// As [`Expr::compile`], and when the expression is not true or false, or names its result.
pub fn condition(text: &str, schema: &Schema) -> Result<CompiledExpr, SchemaError> {
    let condition = deep(|| unnamed(text)?.compile(schema))?;
    condition.check_condition()?;
    Ok(condition)
}

/// Reads an expression that gets its name elsewhere, or needs none.
pub(crate) fn unnamed(text: &str) -> Result<Expr, SchemaError> {
    let expr = Expr::parse(text)?;
    match expr.alias() {
        None => Ok(expr),
        Some(alias) => {
            Err(SchemaError::new(format!("in `{}`: a name (`AS {alias}`) has no meaning here", shown(text))))
        }
    }
}

#[derive(Debug)]
struct FilterKernel {
    condition: CompiledExpr,
    schema: SchemaRef,
}

impl Kernel for FilterKernel {
    fn signature(&self) -> Signature {
        Signature::subset(Arc::clone(&self.schema))
    }

    fn reads(&self) -> Vec<usize> {
        self.condition.columns()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let isolated = isolate(rows.batch(), |batch| self.condition.holds(batch))?;
        if isolated.failures.is_empty()
            && let [mask] = isolated.pieces.as_slice()
        {
            return Ok(Output::one(kept(rows, mask)?));
        }
        let masks: Vec<&dyn Array> = isolated.pieces.iter().map(|mask| mask as &dyn Array).collect();
        let mask = BooleanArray::from(concat(&masks)?.to_data());
        let (good, failed) = split(&rows, isolated.failures)?;
        Ok(Output::one(kept(good, &mask)?).with_failed(failed))
    }
}

/// The rows where `mask` is true, untouched when that is all of them.
fn kept(rows: Rows, mask: &BooleanArray) -> Result<Rows, StepError> {
    if mask.null_count() == 0 && mask.true_count() == rows.len() { Ok(rows) } else { rows.filter(mask) }
}

/// The expressions of one step, in an order in which each finds what it reads, and the columns that go out.
#[derive(Debug)]
pub(crate) struct Program {
    waves: Vec<Wave>,
    layout: Layout,
    /// The columns that came in and that an expression reads, replaces or is.
    reads: Vec<usize>,
}

/// Expressions that are evaluated on the same batch.
#[derive(Debug, Default)]
struct Wave {
    /// The columns that came in and those of the waves before; `None` when the input itself is enough.
    schema: Option<SchemaRef>,
    exprs: Vec<CompiledExpr>,
    /// The same expressions without what they have in common.
    shared: Option<Shared>,
}

impl Wave {
    /// Makes the columns of the wave, for a batch of the columns that it sees.
    fn evaluate(&self, batch: &RecordBatch, made: &mut SmallVec<[ArrayRef; 8]>) -> Result<(), StepError> {
        let shared = self.shared.as_ref().filter(|_| batch.num_rows() > FEW_ROWS);
        if let Some(arrays) = shared.and_then(|shared| shared.evaluate(batch)) {
            made.extend(arrays);
            return Ok(());
        }
        for expr in &self.exprs {
            made.push(expr.evaluate(batch)?);
        }
        Ok(())
    }
}

impl Program {
    fn select(items: &[String], schema: &SchemaRef) -> Result<Self, SchemaError> {
        let compiler = Compiler::new(schema)?;
        let mut columns: Vec<(FieldRef, Slot)> = Vec::new();
        let mut wave = Wave::default();
        let mut reads = Vec::new();
        let mut problems = Vec::new();
        for item in items {
            if item.trim() == "*" {
                columns.extend(inputs(schema));
                continue;
            }
            match selected(item, &compiler) {
                Ok((name, expr)) => {
                    reads.extend(expr.columns());
                    match expr.is_column() {
                        Some(at) => columns.push((renamed(schema, at, &name), Slot::Input(at))),
                        None => {
                            columns.push((field_of(&name, &expr), Slot::New(wave.exprs.len())));
                            wave.exprs.push(expr);
                        }
                    }
                }
                Err(error) => problems.push(error),
            }
        }
        SchemaError::collect(problems)?;
        let layout = Layout::new(columns, schema)?;
        wave.shared = Shared::new(wave.exprs.iter(), schema);
        Ok(Self { waves: if wave.exprs.is_empty() { Vec::new() } else { vec![wave] }, layout, reads })
    }

    fn with(named: &[(String, String)], schema: &SchemaRef) -> Result<Self, SchemaError> {
        if named.is_empty() {
            return Err(SchemaError::new("it names no column"));
        }
        let mut columns = inputs(schema);
        let mut made: Vec<MadeColumn> = Vec::new();
        let mut failed: HashSet<&str> = HashSet::new();
        let mut problems = Vec::new();
        for (name, text) in named {
            match MadeColumn::new(name, text, schema, &columns, &made, &failed) {
                Ok(Some(column)) => {
                    let entry = (Arc::clone(&column.field), Slot::New(made.len()));
                    match columns.iter_mut().find(|(field, _)| field.name() == name) {
                        Some(replaced) => *replaced = entry,
                        None => columns.push(entry),
                    }
                    made.push(column);
                    failed.remove(name.as_str());
                }
                Ok(None) => {
                    failed.insert(name);
                }
                Err(error) => {
                    failed.insert(name);
                    problems.push(error);
                }
            }
        }
        SchemaError::collect(problems)?;
        Self::in_waves(&made, columns, schema)
    }

    /// Sorts what is made into waves, and points every expression at the columns of its wave.
    fn in_waves(
        made: &[MadeColumn],
        columns: Vec<(FieldRef, Slot)>,
        schema: &SchemaRef,
    ) -> Result<Self, SchemaError> {
        let mut order: Vec<usize> = (0..made.len()).collect();
        order.sort_by_key(|&at| made[at].wave);
        let mut place = vec![0; made.len()];
        for (position, &at) in order.iter().enumerate() {
            place[at] = position;
        }
        let width = schema.fields().len();
        let mut waves: Vec<Wave> = Vec::new();
        let named = |field: &FieldRef| made.iter().any(|column| column.field.name() == field.name());
        let mut reads: Vec<usize> = (0..width).filter(|&at| named(&schema.fields()[at])).collect();
        let mut wide: Vec<FieldRef> = schema.fields().iter().map(Arc::clone).collect();
        for &at in &order {
            let column = &made[at];
            if waves.len() == column.wave {
                let schema = (column.wave > 0).then(|| Arc::new(Schema::new(wide.clone())));
                waves.push(Wave { schema, ..Wave::default() });
            }
            let places: Vec<usize> = column
                .seen
                .iter()
                .map(|slot| match *slot {
                    Slot::Input(at) => at,
                    Slot::New(at) => width + place[at],
                })
                .collect();
            reads.extend(column.expr.columns().into_iter().filter_map(|at| match column.seen.get(at)? {
                Slot::Input(at) => Some(*at),
                Slot::New(_) => None,
            }));
            if let Some(wave) = waves.last_mut() {
                let input = wave.schema.as_ref().unwrap_or(schema);
                wave.exprs.push(column.expr.moved(&places, input)?);
            }
            wide.push(Arc::clone(&column.field));
        }
        for wave in &mut waves {
            wave.shared = Shared::new(wave.exprs.iter(), wave.schema.as_ref().unwrap_or(schema));
        }
        let columns = columns.into_iter().map(|(field, slot)| match slot {
            Slot::New(at) => (field, Slot::New(place[at])),
            Slot::Input(_) => (field, slot),
        });
        Ok(Self { waves, layout: Layout::new(columns, schema)?, reads })
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<RecordBatch, StepError> {
        let mut made: SmallVec<[ArrayRef; 8]> = SmallVec::new();
        for wave in &self.waves {
            match &wave.schema {
                None => wave.evaluate(batch, &mut made)?,
                Some(schema) => {
                    let columns = batch.columns().iter().chain(&made).map(Arc::clone).collect();
                    let wide = RecordBatch::try_new(Arc::clone(schema), columns)?;
                    wave.evaluate(&wide, &mut made)?;
                }
            }
        }
        self.layout.batch(batch, &made)
    }
}

impl Kernel for Program {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.reads.clone()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let mut isolated = isolate(rows.batch(), |batch| self.evaluate(batch))?;
        if isolated.failures.is_empty()
            && isolated.pieces.len() == 1
            && let Some(batch) = isolated.pieces.pop()
        {
            return Ok(Output::one(rows.replace(batch)?));
        }
        let batch = concat_batches(self.layout.schema(), &isolated.pieces)?;
        if isolated.failures.is_empty() {
            return Ok(Output::one(rows.replace(batch)?));
        }
        let (good, failed) = split(&rows, isolated.failures)?;
        Ok(Output::one(good.replace(batch)?).with_failed(failed))
    }
}

/// A column that `with` makes.
struct MadeColumn {
    field: FieldRef,
    expr: CompiledExpr,
    /// What stood at each index of the schema that the expression was typed with.
    seen: Vec<Slot>,
    /// 0 when it reads only what came in, else one more than the last wave that it reads from.
    wave: usize,
}

impl MadeColumn {
    /// `None` when the expression reads a column whose own expression is wrong: that one problem is enough.
    fn new(
        name: &str,
        text: &str,
        schema: &SchemaRef,
        columns: &[(FieldRef, Slot)],
        made: &[MadeColumn],
        failed: &HashSet<&str>,
    ) -> Result<Option<Self>, SchemaError> {
        let expr = unnamed(text)?;
        if expr.mentions(failed) {
            return Ok(None);
        }
        let now = Schema::new(columns.iter().map(|(field, _)| Arc::clone(field)).collect::<Vec<_>>());
        let expr = expr.compile(&now)?;
        let wave = expr
            .columns()
            .into_iter()
            .filter_map(|at| match columns.get(at)?.1 {
                Slot::New(at) => Some(made.get(at)?.wave + 1),
                Slot::Input(_) => None,
            })
            .max()
            .unwrap_or(0);
        let field = match expr.is_column().and_then(|at| columns.get(at)) {
            Some((field, Slot::Input(at))) => {
                debug_assert_eq!(field.name(), schema.field(*at).name(), "an input keeps its name here");
                renamed(schema, *at, name)
            }
            _ => field_of(name, &expr),
        };
        Ok(Some(Self { field, expr, seen: columns.iter().map(|(_, slot)| *slot).collect(), wave }))
    }
}

fn inputs(schema: &Schema) -> Vec<(FieldRef, Slot)> {
    schema.fields().iter().enumerate().map(|(at, field)| (Arc::clone(field), Slot::Input(at))).collect()
}

/// The field of column `at` under another name; its metadata stays.
fn renamed(schema: &Schema, at: usize, name: &str) -> FieldRef {
    Arc::new(schema.field(at).clone().with_name(name))
}

fn field_of(name: &str, expr: &CompiledExpr) -> FieldRef {
    Arc::new(Field::new(name, expr.data_type().clone(), expr.nullable()))
}

fn selected(item: &str, compiler: &Compiler<'_>) -> Result<(String, CompiledExpr), SchemaError> {
    let expr = Expr::parse(item)?;
    let name = expr.alias().or_else(|| expr.column()).map(str::to_owned);
    let compiled = compiler.compile(&expr)?;
    match name {
        Some(name) => Ok((name, compiled)),
        None => Err(SchemaError::new(format!("`{0}` needs a name: `{0} AS name`", shown(item)))),
    }
}
