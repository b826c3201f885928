//! `one_hot`: categories as columns of 0 and 1.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, PrimitiveArray},
    buffer::{Buffer, ScalarBuffer},
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
#[derive(Clone, Debug, Default)]
pub struct OneHot {
    settings: OneHotSettings,
    prepared: Prepared<OneHotKernel>,
}

/// One column of 0 and 1 per category, in place of the listed columns.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
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
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
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

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.at).collect()
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
