//! `one_hot` and `ordinal`: categories as numbers.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, PrimitiveArray},
    buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer},
    datatypes::{
        DataType, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, SchemaRef,
    },
};
use indexmap::IndexMap;
use millstream_graph::{Input, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Literal,
    codes::{Codes, Place, shown_value},
    prepared::{
        Failure, Kernel, Layout, LayoutBuilder, Prepared, column_problem, each_column, without_failures,
    },
};

/// What becomes of a value that is not among the listed categories.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownCategory {
    /// All of its columns are zero.
    #[default]
    Zeros,
    /// The row leaves on the error port.
    Error,
}

/// The type of the numbers that encoders make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NumberType {
    /// 8-bit whole numbers.
    Int8,
    /// 32-bit whole numbers.
    Int32,
    /// 64-bit whole numbers.
    #[default]
    Int64,
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
}

impl NumberType {
    fn data_type(self) -> DataType {
        match self {
            Self::Int8 => DataType::Int8,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
        }
    }
}

/// Replaces each listed column by one column of 0 and 1 per category.
///
/// The columns are named `<column>_<category>`, with `_` for each space and `-` of the category, and stand where the
/// column stood. Null is no category: all of its columns are zero.
///
/// ```
/// use millstream_transform::OneHot;
/// let step = OneHot::new().column("channel", ["web", "pos"]);
/// ```
#[derive(Debug, Default)]
pub struct OneHot {
    settings: OneHotSettings,
    prepared: Prepared<OneHotKernel>,
}

/// One column of 0 and 1 per category, in place of the listed columns.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneHotSettings {
    /// The categories of each column, in the order of the columns that they become: text, whole numbers, true or
    /// false.
    columns: IndexMap<String, Vec<Literal>>,
    /// What becomes of a value that is not listed.
    #[serde(default)]
    unknown: UnknownCategory,
    /// The type of the new columns.
    #[serde(default, rename = "type")]
    number: NumberType,
    /// Whether the encoded columns stay, in front of the new ones.
    #[serde(default)]
    keep: bool,
}

impl OneHot {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes `column`, which has these categories.
    #[must_use]
    pub fn column<L: Into<Literal>>(
        mut self,
        column: impl Into<String>,
        categories: impl IntoIterator<Item = L>,
    ) -> Self {
        let categories = categories.into_iter().map(Into::into).collect();
        self.settings.columns.insert(column.into(), categories);
        self
    }

    /// Says what becomes of a value that is not listed; all zeros unless said otherwise.
    #[must_use]
    pub fn unknown(mut self, unknown: UnknownCategory) -> Self {
        self.settings.unknown = unknown;
        self
    }

    /// The type of the new columns; 64-bit whole numbers unless said otherwise.
    #[must_use]
    pub fn number(mut self, number: NumberType) -> Self {
        self.settings.number = number;
        self
    }

    /// Keeps the encoded columns, in front of the new ones.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.settings.keep = true;
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<OneHotKernel, SchemaError> {
        let settings = &self.settings;
        let columns = each_column(schema, &settings.columns, |at, name, categories| {
            if categories.is_empty() {
                return Err(column_problem(name, "it has no categories"));
            }
            let codes = Codes::new(categories, schema.field(at).data_type())
                .map_err(|problem| column_problem(name, problem))?;
            Ok(OneHotColumn { at, name: name.into(), codes, width: categories.len() })
        })?;
        let number = settings.number.data_type();
        let mut layout = LayoutBuilder::new(schema);
        for (column, categories) in columns.iter().zip(settings.columns.values()) {
            let field = |category: &Literal| -> FieldRef {
                let category = match category {
                    Literal::Text(text) => text.replace([' ', '-'], "_"),
                    other => other.to_string(),
                };
                Arc::new(Field::new(format!("{}_{category}", column.name), number.clone(), false))
            };
            if settings.keep {
                layout.insert_after(column.at, categories.iter().map(field));
            } else {
                layout.replace(column.at, categories.iter().map(field));
            }
        }
        let strict = settings.unknown == UnknownCategory::Error;
        Ok(OneHotKernel { columns, number: settings.number, strict, layout: layout.finish()? })
    }
}

impl From<OneHotSettings> for OneHot {
    fn from(settings: OneHotSettings) -> Self {
        Self { settings, prepared: Prepared::default() }
    }
}

impl Step for OneHot {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct OneHotKernel {
    columns: Vec<OneHotColumn>,
    number: NumberType,
    strict: bool,
    layout: Layout,
}

#[derive(Debug)]
struct OneHotColumn {
    at: usize,
    name: Box<str>,
    codes: Codes,
    width: usize,
}

impl Kernel for OneHotKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn run(&self, rows: Rows) -> StepResult {
        let failures = if self.strict {
            unlisted(&rows, self.columns.iter().map(|column| (column.at, &*column.name, &column.codes)))?
        } else {
            Vec::new()
        };
        without_failures(&rows, failures, |rows| {
            let width = self.columns.iter().map(|column| column.width).sum();
            let mut new = Vec::with_capacity(width);
            match self.number {
                NumberType::Int8 => self.encode::<Int8Type>(rows, 1, &mut new)?,
                NumberType::Int32 => self.encode::<Int32Type>(rows, 1, &mut new)?,
                NumberType::Int64 => self.encode::<Int64Type>(rows, 1, &mut new)?,
                NumberType::Float32 => self.encode::<Float32Type>(rows, 1.0, &mut new)?,
                NumberType::Float64 => self.encode::<Float64Type>(rows, 1.0, &mut new)?,
            }
            self.layout.rows(rows, &new)
        })
    }
}

impl OneHotKernel {
    /// Makes the columns of one encoded column as slices of one buffer.
    fn encode<T: ArrowPrimitiveType>(
        &self,
        rows: &Rows,
        one: T::Native,
        new: &mut Vec<ArrayRef>,
    ) -> Result<(), StepError> {
        let length = rows.len();
        for column in &self.columns {
            let mut cells = vec![T::Native::default(); length * column.width];
            column.codes.each(rows.batch().column(column.at), |row, place| {
                if let Place::At(code) = place
                    && let Some(cell) = cells.get_mut(code as usize * length + row)
                {
                    *cell = one;
                }
            })?;
            let buffer = Buffer::from_vec(cells);
            for category in 0..column.width {
                let values = ScalarBuffer::new(buffer.clone(), category * length, length);
                new.push(Arc::new(PrimitiveArray::<T>::new(values, None)));
            }
        }
        Ok(())
    }
}

/// The rows with a value that is not listed.
pub(crate) fn unlisted<'a>(
    rows: &Rows,
    columns: impl Iterator<Item = (usize, &'a str, &'a Codes)>,
) -> Result<Vec<Failure>, StepError> {
    let mut failures: Vec<Failure> = Vec::new();
    for (at, name, codes) in columns {
        let array = rows.batch().column(at);
        codes.each(array, |row, place| {
            if place == Place::Unlisted {
                let message = format!("column `{name}`: {} is not a listed value", shown_value(array, row));
                failures.push(Failure { row: row as u32, message });
            }
        })?;
    }
    Ok(one_per_row(failures))
}

/// Brings failures into the order of rows, all messages of a row in one.
pub(crate) fn one_per_row(mut failures: Vec<Failure>) -> Vec<Failure> {
    failures.sort_by_key(|failure| failure.row);
    failures.dedup_by(|later, first| {
        let same = later.row == first.row;
        if same {
            first.message += "; ";
            first.message += &later.message;
        }
        same
    });
    failures
}

/// Replaces each listed column by the place of its value in a list, counted from 0.
///
/// Null stays null.
///
/// ```
/// use millstream_transform::Ordinal;
/// let step = Ordinal::new().column("risk", ["low", "medium", "high"]);
/// ```
#[derive(Debug, Default)]
pub struct Ordinal {
    settings: OrdinalSettings,
    prepared: Prepared<OrdinalKernel>,
}

/// What becomes of a value that has no place in the list.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownPlace {
    /// The row leaves on the error port.
    #[default]
    Error,
    /// It becomes null.
    Null,
    /// It becomes this number.
    Value(i64),
}

/// The place of each value in a list, in place of the value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrdinalSettings {
    /// The values of each column in order; the first becomes 0.
    columns: IndexMap<String, Vec<Literal>>,
    /// What becomes of a value that is not listed: `error`, `null`, or `{value: -1}`.
    #[serde(default)]
    unknown: UnknownPlace,
}

impl Ordinal {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes `column`, whose values are these, in order.
    #[must_use]
    pub fn column<L: Into<Literal>>(
        mut self,
        column: impl Into<String>,
        values: impl IntoIterator<Item = L>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.settings.columns.insert(column.into(), values);
        self
    }

    /// Says what becomes of a value that is not listed; an error unless said otherwise.
    #[must_use]
    pub fn unknown(mut self, unknown: UnknownPlace) -> Self {
        self.settings.unknown = unknown;
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<OrdinalKernel, SchemaError> {
        let columns = each_column(schema, &self.settings.columns, |at, name, values| {
            if values.is_empty() {
                return Err(column_problem(name, "it has no values"));
            }
            let codes = Codes::new(values, schema.field(at).data_type())
                .map_err(|problem| column_problem(name, problem))?;
            Ok(OrdinalColumn { at, name: name.into(), codes })
        })?;
        let mut layout = LayoutBuilder::new(schema);
        for column in &columns {
            let field = schema.field(column.at);
            let nullable = field.is_nullable() || self.settings.unknown == UnknownPlace::Null;
            layout.replace(column.at, [Arc::new(Field::new(field.name(), DataType::Int64, nullable))]);
        }
        Ok(OrdinalKernel { columns, unknown: self.settings.unknown.clone(), layout: layout.finish()? })
    }
}

impl From<OrdinalSettings> for Ordinal {
    fn from(settings: OrdinalSettings) -> Self {
        Self { settings, prepared: Prepared::default() }
    }
}

impl Step for Ordinal {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct OrdinalKernel {
    columns: Vec<OrdinalColumn>,
    unknown: UnknownPlace,
    layout: Layout,
}

#[derive(Debug)]
struct OrdinalColumn {
    at: usize,
    name: Box<str>,
    codes: Codes,
}

impl Kernel for OrdinalKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn run(&self, rows: Rows) -> StepResult {
        let failures = match self.unknown {
            UnknownPlace::Error => {
                unlisted(&rows, self.columns.iter().map(|column| (column.at, &*column.name, &column.codes)))?
            }
            _ => Vec::new(),
        };
        let unlisted = match self.unknown {
            UnknownPlace::Value(value) => Some(value),
            UnknownPlace::Null | UnknownPlace::Error => None,
        };
        without_failures(&rows, failures, |rows| {
            let mut new: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
            for column in &self.columns {
                let mut values = vec![0i64; rows.len()];
                let mut missing: Vec<usize> = Vec::new();
                column.codes.each(rows.batch().column(column.at), |row, place| match (place, unlisted) {
                    (Place::At(code), _) => values[row] = code.into(),
                    (Place::Unlisted, Some(value)) => values[row] = value,
                    _ => missing.push(row),
                })?;
                let nulls = (!missing.is_empty()).then(|| {
                    let mut valid = vec![true; values.len()];
                    missing.into_iter().for_each(|row| valid[row] = false);
                    NullBuffer::new(BooleanBuffer::from(valid))
                });
                new.push(Arc::new(PrimitiveArray::<Int64Type>::new(values.into(), nulls)));
            }
            self.layout.rows(rows, &new)
        })
    }
}
