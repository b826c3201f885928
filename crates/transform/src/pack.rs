//! `pack`: numeric columns as one tensor column.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeListArray, PrimitiveArray},
    datatypes::{
        DataType, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        SchemaRef, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use millstream_graph::{Input, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    encode::one_per_row,
    prepared::{Failure, Kernel, Layout, LayoutBuilder, Prepared, column_problem, find, without_failures},
};

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

/// Puts columns of numbers (or of true and false, as 1 and 0) into one tensor column, row by row in the listed order,
/// so that several models read one tensor.
///
/// ```
/// use millstream_transform::Pack;
/// let step = Pack::new("features", ["amount", "ratio", "hour"]).drop_sources();
/// ```
#[derive(Debug)]
pub struct Pack {
    settings: PackSettings,
    prepared: Prepared<PackKernel>,
}

/// Columns of numbers as one tensor column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackSettings {
    /// The columns, in the order of the tensor.
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
    /// Whether the packed columns are left out of what goes on.
    #[serde(default)]
    drop: bool,
}

impl Pack {
    /// Packs `columns` into the tensor column `to` of 32-bit floats; the columns stay, and null is an error.
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

    /// Leaves the packed columns out of what goes on.
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
        for name in &settings.columns {
            match find(schema, name) {
                Ok(at) if packs(schema.field(at).data_type()) => {
                    sources.push(Source { at, name: name.as_str().into() })
                }
                Ok(at) => problems.push(column_problem(
                    name,
                    format!("a tensor holds numbers, not {}", schema.field(at).data_type()),
                )),
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
            sources.iter().for_each(|source| layout.drop(source.at));
        }
        let list = DataType::FixedSizeList(Arc::clone(&item), width);
        layout.append(Arc::new(Field::new(&settings.to, list, false)));
        let strict = settings.nulls == TensorNull::Error;
        Ok(PackKernel { sources, number: settings.number, item, width, strict, layout: layout.finish()? })
    }
}

impl From<PackSettings> for Pack {
    fn from(settings: PackSettings) -> Self {
        Self { settings, prepared: Prepared::default() }
    }
}

impl Step for Pack {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(inputs, |schema| self.prepare(schema))
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
    number: TensorType,
    item: FieldRef,
    width: i32,
    strict: bool,
    layout: Layout,
}

#[derive(Debug)]
struct Source {
    at: usize,
    name: Box<str>,
}

impl Kernel for PackKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn run(&self, rows: Rows) -> StepResult {
        let mut failures = Vec::new();
        for source in self.sources.iter().filter(|_| self.strict) {
            let array = rows.batch().column(source.at);
            for row in (0..array.len()).filter(|&row| array.null_count() > 0 && array.is_null(row)) {
                failures
                    .push(Failure { row: row as u32, message: format!("column `{}`: null", source.name) });
            }
        }
        without_failures(&rows, one_per_row(failures), |rows| {
            let values: ArrayRef = match self.number {
                TensorType::Float32 => Arc::new(self.cells::<Float32Type>(rows, f32::NAN)?),
                TensorType::Float64 => Arc::new(self.cells::<Float64Type>(rows, f64::NAN)?),
            };
            let tensor = FixedSizeListArray::try_new(Arc::clone(&self.item), self.width, values, None)?;
            self.layout.rows(rows, &[Arc::new(tensor)])
        })
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
    fn cells<T>(&self, rows: &Rows, nan: T::Native) -> Result<PrimitiveArray<T>, StepError>
    where
        T: ArrowPrimitiveType,
        T::Native: FromNumber,
    {
        let width = self.sources.len();
        let mut cells = vec![T::Native::default(); width * rows.len()];
        for (at, source) in self.sources.iter().enumerate() {
            let array = rows.batch().column(source.at);
            let column = cells.iter_mut().skip(at).step_by(width);
            write(array, column)?;
            if array.null_count() > 0 {
                let column = cells.iter_mut().skip(at).step_by(width);
                column.enumerate().filter(|(row, _)| array.is_null(*row)).for_each(|(_, cell)| *cell = nan);
            }
        }
        Ok(PrimitiveArray::new(cells.into(), None))
    }
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
