//! `pack`: columns and expressions of numbers as one tensor column.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeListArray, PrimitiveArray,
        RecordBatch,
    },
    compute::{concat, filter},
    datatypes::{
        DataType, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        SchemaRef, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use millstream_graph::{
    Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    CompiledExpr,
    deep::deep,
    encode::one_per_row,
    expr::Compiler,
    fast::{AnyNumber, Unsure},
    prepared::{
        Failure, Isolated, Kernel, Layout, LayoutBuilder, Prepared, column_problem, find, isolate,
        without_failures,
    },
    select::unnamed,
    shared::Shared,
};

/// Up to so many rows, values go into the tensor one by one. More than for expressions that become columns, because here
/// columns would be made only to be read once.
const FEW_ROWS: usize = 64;

/// The type of the numbers of a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TensorType {
    /// 32-bit floats.
    #[default]
    Float32,
    /// 64-bit floats.
    Float64,
}

/// What a null becomes in a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TensorNull {
    /// The row leaves on the error port.
    #[default]
    Error,
    /// It becomes NaN.
    Nan,
}

/// Puts numbers (or true and false, as 1 and 0) into one tensor column, row by row in the listed order, so that several models
/// read one tensor.
///
/// Each item is a column or an expression. What an expression makes goes straight into the tensor and becomes no column, which
/// for a few rows is much the cheapest way to make a model's input. Rows on which an expression fails leave on the error port.
///
/// ```
/// use millstream_transform::Pack;
/// let step = Pack::new("features", ["amount", "amount / usual", "country = 'US'"]).drop_sources();
/// ```
#[derive(Clone, Debug)]
pub struct Pack {
    settings: PackSettings,
    prepared: Prepared<PackKernel>,
}

/// Columns and expressions of numbers as one tensor column.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackSettings {
    /// Columns and expressions, in the order of the tensor: `amount`, `amount / usual`, `country = 'US'`.
    columns: Vec<String>,
    /// The name of the tensor column, which goes to the end.
    #[serde(rename = "as")]
    to: String,
    /// The type of the tensor's numbers.
    #[serde(default, rename = "type")]
    number: TensorType,
    /// What a null becomes.
    #[serde(default)]
    nulls: TensorNull,
    /// Whether the columns that were packed, or that an expression reads, are left out of what goes on.
    #[serde(default)]
    drop: bool,
}

impl Pack {
    /// Packs `columns`, each a column or an expression, into the tensor column `to` of 32-bit floats; the columns stay, and null is an error.
    pub fn new<T: Into<String>>(to: impl Into<String>, columns: impl IntoIterator<Item = T>) -> Self {
        let settings = PackSettings {
            columns: columns.into_iter().map(Into::into).collect(),
            to: to.into(),
            number: TensorType::default(),
            nulls: TensorNull::default(),
            drop: false,
        };
        settings.into()
    }

    /// The type of the tensor's numbers.
    #[must_use]
    pub fn number(mut self, number: TensorType) -> Self {
        self.settings.number = number;
        self
    }

    /// What a null becomes.
    #[must_use]
    pub fn nulls(mut self, nulls: TensorNull) -> Self {
        self.settings.nulls = nulls;
        self
    }

    /// Leaves the columns that were packed, or that an expression reads, out of what goes on.
    #[must_use]
    pub fn drop_sources(mut self) -> Self {
        self.settings.drop = true;
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<PackKernel, SchemaError> {
        let settings = &self.settings;
        let mut sources = Vec::new();
        let mut problems = Vec::new();
        if settings.columns.is_empty() {
            problems.push(SchemaError::new("it packs no column"));
        }
        let compiler = Compiler::new(schema)?;
        for item in &settings.columns {
            match Source::new(item, schema, &compiler) {
                Ok(source) => sources.push(source),
                Err(error) => problems.push(error),
            }
        }
        SchemaError::collect(problems)?;
        let width =
            i32::try_from(sources.len()).map_err(|_| SchemaError::new("it packs too many columns"))?;
        let number = match settings.number {
            TensorType::Float32 => DataType::Float32,
            TensorType::Float64 => DataType::Float64,
        };
        let item: FieldRef = Arc::new(Field::new("item", number, false));
        let mut layout = LayoutBuilder::new(schema);
        if settings.drop {
            sources.iter().flat_map(Source::reads).for_each(|at| layout.drop(at));
        }
        let list = DataType::FixedSizeList(Arc::clone(&item), width);
        layout.append(Arc::new(Field::new(&settings.to, list, false)));
        let strict = settings.nulls == TensorNull::Error;
        let shared = Shared::new(sources.iter().filter_map(Source::expr), schema);
        Ok(PackKernel {
            sources,
            shared,
            number: settings.number,
            item,
            width,
            strict,
            layout: layout.finish()?,
        })
    }
}

impl From<PackSettings> for Pack {
    fn from(settings: PackSettings) -> Self {
        Self { settings, prepared: Prepared::default() }
    }
}

impl Step for Pack {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| deep(|| self.prepare(schema)))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

fn packs(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Boolean)
}

#[derive(Debug)]
struct PackKernel {
    sources: Vec<Source>,
    /// The expressions among the sources, without what they have in common.
    shared: Option<Shared>,
    number: TensorType,
    item: FieldRef,
    width: i32,
    strict: bool,
    layout: Layout,
}

/// One number of a row's tensor.
#[derive(Debug)]
struct Source {
    name: Box<str>,
    read: Read,
}

#[derive(Debug)]
enum Read {
    Column(usize),
    Expr(CompiledExpr),
}

impl Source {
    fn new(item: &str, schema: &SchemaRef, compiler: &Compiler<'_>) -> Result<Self, SchemaError> {
        let column = |at: usize| (Read::Column(at), schema.field(at).data_type().clone());
        let (read, data_type) = match schema.index_of(item) {
            Ok(at) => column(at),
            Err(_) => {
                let expr = unnamed(item)?;
                if let Some(name) = expr.column() {
                    column(find(schema, name)?)
                } else {
                    let expr = compiler.compile(&expr)?;
                    let data_type = expr.data_type().clone();
                    (Read::Expr(expr), data_type)
                }
            }
        };
        if !packs(&data_type) {
            return Err(column_problem(item, format!("a tensor holds numbers, not {data_type}")));
        }
        Ok(Self { name: crate::shorten(item, 60).into(), read })
    }

    /// The columns that it reads.
    fn reads(&self) -> Vec<usize> {
        match &self.read {
            Read::Column(at) => vec![*at],
            Read::Expr(expr) => expr.columns(),
        }
    }

    fn expr(&self) -> Option<&CompiledExpr> {
        if let Read::Expr(expr) = &self.read { Some(expr) } else { None }
    }

    fn array(&self, batch: &RecordBatch) -> Result<ArrayRef, StepError> {
        match &self.read {
            Read::Column(at) => Ok(Arc::clone(batch.column(*at))),
            Read::Expr(expr) => expr.evaluate_columns(batch),
        }
    }
}

impl Kernel for PackKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.sources.iter().flat_map(Source::reads).collect()
    }

    fn run(&self, rows: Rows) -> StepResult {
        if rows.len() <= FEW_ROWS {
            let tensor = match self.number {
                TensorType::Float32 => self.few::<Float32Type>(rows.batch()),
                TensorType::Float64 => self.few::<Float64Type>(rows.batch()),
            };
            if let Ok(values) = tensor {
                return self.packed(&rows, values).map(Output::one);
            }
        }
        self.run_columns(&rows)
    }
}

impl PackKernel {
    /// The numbers of a few rows, row after row, value by value; `Unsure` when a row may be at fault.
    fn few<T>(&self, batch: &RecordBatch) -> Result<ArrayRef, Unsure>
    where
        T: ArrowPrimitiveType,
        T::Native: FromNumber,
    {
        let (rows, width) = (batch.num_rows(), self.sources.len());
        let mut cells = vec![T::Native::default(); width * rows];
        for (at, source) in self.sources.iter().enumerate() {
            let fast = match &source.read {
                Read::Expr(expr) => expr.fast().ok_or(Unsure)?,
                Read::Column(column) => {
                    let array = batch.columns().get(*column).ok_or(Unsure)?;
                    if self.strict && array.null_count() > 0 {
                        return Err(Unsure);
                    }
                    put(array, &mut cells, at, width).map_err(|_| Unsure)?;
                    continue;
                }
            };
            for (row, cell) in cells.iter_mut().skip(at).step_by(width).enumerate() {
                *cell = match fast.number(batch, row)? {
                    Some(AnyNumber::F64(value)) => T::Native::from_f64(value),
                    Some(AnyNumber::F32(value)) => T::Native::from_f32(value),
                    Some(AnyNumber::I64(value)) => T::Native::from_i64(value),
                    None if self.strict => return Err(Unsure),
                    None => T::Native::from_f64(f64::NAN),
                };
            }
        }
        Ok(Arc::new(PrimitiveArray::<T>::new(cells.into(), None)))
    }

    /// Packs whole columns. A row at fault leaves alone.
    fn run_columns(&self, rows: &Rows) -> StepResult {
        let evaluate = |batch: &RecordBatch| {
            let shared = self.shared.as_ref().and_then(|shared| shared.evaluate(batch));
            let mut shared = shared.unwrap_or_default().into_iter();
            let array = |source: &Source| match source.expr().and_then(|_| shared.next()) {
                Some(array) => Ok(array),
                None => source.array(batch),
            };
            self.sources.iter().map(array).collect::<Result<Vec<_>, _>>()
        };
        let Isolated { pieces, mut failures } = isolate(rows.batch(), evaluate)?;
        let mut arrays = match pieces.as_slice() {
            [whole] => whole.clone(),
            pieces => (0..self.sources.len())
                .map(|at| concat(&pieces.iter().map(|piece| piece[at].as_ref()).collect::<Vec<_>>()))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let good: Vec<u32> = {
            let mut bad = failures.iter().map(|failure| failure.row).peekable();
            (0..rows.len() as u32).filter(|row| bad.next_if_eq(row).is_none()).collect()
        };
        let nulls = self.nulls(&arrays, &good);
        if !nulls.is_empty() {
            let mut bad = nulls.iter().map(|failure| failure.row).peekable();
            let keep: BooleanArray = good.iter().map(|row| Some(bad.next_if_eq(row).is_none())).collect();
            arrays = arrays.iter().map(|array| filter(array, &keep)).collect::<Result<_, _>>()?;
            failures.extend(nulls);
            failures.sort_by_key(|failure| failure.row);
        }
        without_failures(rows, failures, |rows| {
            let values: ArrayRef = match self.number {
                TensorType::Float32 => Arc::new(self.cells::<Float32Type>(&arrays, rows.len())?),
                TensorType::Float64 => Arc::new(self.cells::<Float64Type>(&arrays, rows.len())?),
            };
            self.packed(rows, values)
        })
    }

    /// The rows that must not be null and are. Entry `i` of the arrays is row `good[i]`.
    fn nulls(&self, arrays: &[ArrayRef], good: &[u32]) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (source, array) in self.sources.iter().zip(arrays).filter(|_| self.strict) {
            for at in (0..array.len()).filter(|&at| array.null_count() > 0 && array.is_null(at)) {
                let what = if matches!(source.read, Read::Column(_)) { "column " } else { "" };
                let message = format!("{what}`{}`: null", source.name);
                failures.push(Failure { row: good[at], message });
            }
        }
        one_per_row(failures)
    }

    fn packed(&self, rows: &Rows, values: ArrayRef) -> Result<Rows, StepError> {
        let tensor = FixedSizeListArray::try_new(Arc::clone(&self.item), self.width, values, None)?;
        self.layout.rows(rows, &[Arc::new(tensor)])
    }
}

/// A float that any number becomes by Rust's `as`.
trait FromNumber: Copy {
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    fn from_i64(value: i64) -> Self;
    fn from_u64(value: u64) -> Self;
}

macro_rules! from_number {
    ($($float:ty),*) => {$(
        impl FromNumber for $float {
            fn from_f64(value: f64) -> Self { value as Self }
            fn from_f32(value: f32) -> Self { value as Self }
            fn from_i64(value: i64) -> Self { value as Self }
            fn from_u64(value: u64) -> Self { value as Self }
        }
    )*};
}

from_number!(f32, f64);

impl PackKernel {
    /// The numbers of all rows, row after row.
    fn cells<T>(&self, arrays: &[ArrayRef], rows: usize) -> Result<PrimitiveArray<T>, StepError>
    where
        T: ArrowPrimitiveType,
        T::Native: FromNumber,
    {
        let width = arrays.len();
        let mut cells = vec![T::Native::default(); width * rows];
        for (at, array) in arrays.iter().enumerate() {
            put(array, &mut cells, at, width)?;
        }
        Ok(PrimitiveArray::new(cells.into(), None))
    }
}

/// Writes a column to place `at` of every row of `width` numbers, nulls as NaN.
fn put<F: FromNumber>(array: &ArrayRef, cells: &mut [F], at: usize, width: usize) -> Result<(), StepError> {
    write(array, cells.iter_mut().skip(at).step_by(width))?;
    if array.null_count() > 0 {
        let column = cells.iter_mut().skip(at).step_by(width);
        let nulls = column.enumerate().filter(|(row, _)| array.is_null(*row));
        nulls.for_each(|(_, cell)| *cell = F::from_f64(f64::NAN));
    }
    Ok(())
}

fn write<'a, F: FromNumber + 'a>(
    array: &ArrayRef,
    cells: impl Iterator<Item = &'a mut F>,
) -> Result<(), StepError> {
    fn each<'a, T: ArrowPrimitiveType, F: 'a>(
        array: &ArrayRef,
        cells: impl Iterator<Item = &'a mut F>,
        convert: impl Fn(T::Native) -> F,
    ) {
        let values = array.as_primitive::<T>().values();
        cells.zip(values.iter()).for_each(|(cell, &value)| *cell = convert(value));
    }
    fn bools<'a, F: FromNumber + 'a>(array: &BooleanArray, cells: impl Iterator<Item = &'a mut F>) {
        cells.zip(array.values().iter()).for_each(|(cell, value)| *cell = F::from_u64(value.into()));
    }
    match array.data_type() {
        DataType::Float32 => each::<Float32Type, F>(array, cells, F::from_f32),
        DataType::Float64 => each::<Float64Type, F>(array, cells, F::from_f64),
        DataType::Int8 => each::<Int8Type, F>(array, cells, |value| F::from_i64(value.into())),
        DataType::Int16 => each::<Int16Type, F>(array, cells, |value| F::from_i64(value.into())),
        DataType::Int32 => each::<Int32Type, F>(array, cells, |value| F::from_i64(value.into())),
        DataType::Int64 => each::<Int64Type, F>(array, cells, F::from_i64),
        DataType::UInt8 => each::<UInt8Type, F>(array, cells, |value| F::from_u64(value.into())),
        DataType::UInt16 => each::<UInt16Type, F>(array, cells, |value| F::from_u64(value.into())),
        DataType::UInt32 => each::<UInt32Type, F>(array, cells, |value| F::from_u64(value.into())),
        DataType::UInt64 => each::<UInt64Type, F>(array, cells, F::from_u64),
        DataType::Boolean => bools(array.as_boolean(), cells),
        other => {
            return Err(StepError::internal(format!(
                "a column of type {other} came in, which no tensor holds"
            )));
        }
    }
    Ok(())
}
