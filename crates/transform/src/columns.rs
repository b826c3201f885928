//! `cast`, `drop` and `rename`: columns of another type, fewer columns, other names.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{CastOptions, can_cast_types, cast_with_options},
    datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, SchemaRef, TimeUnit},
};
use indexmap::IndexMap;
use millstream_graph::{
    Input, Narrow, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    codes::shown_value,
    encode::one_per_row,
    prepared::{
        Failure, Kernel, Layout, LayoutBuilder, Prepared, Slot, column_problem, each_column, find,
        without_failures,
    },
};

/// The type of a column, by the name that settings use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ColumnType {
    /// True or false.
    Bool,
    /// 8-bit whole numbers.
    Int8,
    /// 16-bit whole numbers.
    Int16,
    /// 32-bit whole numbers.
    Int32,
    /// 64-bit whole numbers.
    Int64,
    /// 8-bit whole numbers from 0 on.
    Uint8,
    /// 16-bit whole numbers from 0 on.
    Uint16,
    /// 32-bit whole numbers from 0 on.
    Uint32,
    /// 64-bit whole numbers from 0 on.
    Uint64,
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
    /// Text.
    String,
    /// Days.
    Date,
    /// Points in time, to the microsecond, in UTC.
    Timestamp,
}

impl ColumnType {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Uint8 => DataType::UInt8,
            Self::Uint16 => DataType::UInt16,
            Self::Uint32 => DataType::UInt32,
            Self::Uint64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::String => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// What becomes of a value that the new type cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Invalid {
    /// The row leaves on the error port.
    #[default]
    Error,
    /// It becomes null.
    Null,
}

/// Brings columns into other types.
///
/// A float becomes a whole number by cutting off its fraction. A value that the new type cannot hold (300 as `int8`,
/// 'abc' as `float64`, NaN as `int64`) sends its row out on the error port, or becomes null, as declared.
///
/// ```
/// use millstream_transform::{Cast, ColumnType};
/// let step = Cast::new().column("amount", ColumnType::Float32);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cast {
    settings: CastSettings,
    prepared: Prepared<CastKernel>,
}

/// Columns of another type.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CastSettings {
    /// The new type of each column.
    columns: IndexMap<String, ColumnType>,
    /// What becomes of a value that the new type cannot hold.
    #[serde(default)]
    invalid: Invalid,
}

impl Cast {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Brings `column` into another type.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>, to: ColumnType) -> Self {
        self.settings.columns.insert(column.into(), to);
        self
    }

    /// Says what becomes of a value that the new type cannot hold; an error unless said otherwise.
    #[must_use]
    pub fn invalid(mut self, invalid: Invalid) -> Self {
        self.settings.invalid = invalid;
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<CastKernel, SchemaError> {
        let columns = each_column(schema, &self.settings.columns, |at, name, to| {
            let (from, to) = (schema.field(at).data_type(), to.data_type());
            if can_cast_types(from, &to) {
                Ok(CastColumn { at, name: name.into(), to })
            } else {
                Err(column_problem(name, format!("{from} cannot become {to}")))
            }
        })?;
        let null = self.settings.invalid == Invalid::Null;
        let mut layout = LayoutBuilder::new(schema);
        for column in &columns {
            let field = schema.field(column.at);
            let nullable = field.is_nullable() || (null && field.data_type() != &column.to);
            layout.replace(column.at, [Arc::new(Field::new(field.name(), column.to.clone(), nullable))]);
        }
        Ok(CastKernel { columns, null, layout: layout.finish()? })
    }
}

impl From<CastSettings> for Cast {
    fn from(settings: CastSettings) -> Self {
        Self { settings, prepared: Prepared::default() }
    }
}

impl Step for Cast {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct CastKernel {
    columns: Vec<CastColumn>,
    null: bool,
    layout: Layout,
}

#[derive(Debug)]
struct CastColumn {
    at: usize,
    name: Box<str>,
    to: DataType,
}

impl Kernel for CastKernel {
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
        let mut new = Vec::with_capacity(self.columns.len());
        let mut failures = Vec::new();
        for column in &self.columns {
            let array = rows.batch().column(column.at);
            let made = cast_or_null(array, &column.to)?;
            if !self.null && made.null_count() > array.null_count() {
                for row in (0..array.len()).filter(|&row| made.is_null(row) && array.is_valid(row)) {
                    let message = format!(
                        "column `{}`: {} does not fit {}",
                        column.name,
                        shown_value(array, row),
                        column.to
                    );
                    failures.push(Failure { row: row as u32, message });
                }
            }
            new.push(made);
        }
        if failures.is_empty() {
            return Ok(Output::one(self.layout.rows(&rows, &new)?));
        }
        without_failures(&rows, one_per_row(failures), |rows| {
            let made: Result<Vec<_>, StepError> = self
                .columns
                .iter()
                .map(|column| cast_or_null(rows.batch().column(column.at), &column.to))
                .collect();
            self.layout.rows(rows, &made?)
        })
    }
}

/// The column in another type; null where that cannot hold the value.
pub(crate) fn cast_or_null(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, StepError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })?)
}

/// Whether a float in the column has a fraction or is not finite.
pub(crate) fn fraction_at(array: &ArrayRef, row: usize) -> bool {
    let fraction = |value: f64| value.fract() != 0.0 || !value.is_finite();
    if let Some(floats) = array.as_primitive_opt::<Float64Type>() {
        fraction(floats.value(row))
    } else if let Some(floats) = array.as_primitive_opt::<Float32Type>() {
        fraction(floats.value(row).into())
    } else {
        false
    }
}

/// Leaves columns out.
///
/// ```
/// use millstream_transform::Drop;
/// let step = Drop::new(["txn_id", "device"]);
/// ```
#[derive(Clone, Debug)]
pub struct Drop {
    columns: Vec<String>,
    prepared: Prepared<Rearranged>,
}

/// The columns to leave out.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct DropSettings(Vec<String>);

impl Drop {
    /// The columns to leave out.
    pub fn new<T: Into<String>>(columns: impl IntoIterator<Item = T>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), prepared: Prepared::default() }
    }
}

impl From<DropSettings> for Drop {
    fn from(settings: DropSettings) -> Self {
        Self::new(settings.0)
    }
}

impl Step for Drop {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let signature = self.prepared.sign(self, inputs, |schema| {
            let mut layout = LayoutBuilder::new(schema);
            let mut problems = Vec::new();
            for name in &self.columns {
                match find(schema, name) {
                    Ok(at) => layout.drop(at),
                    Err(error) => problems.push(error),
                }
            }
            SchemaError::collect(problems)?;
            Ok(Rearranged { layout: layout.finish()?, reads: Vec::new() })
        })?;
        // What is dropped here need not come here: of the names, those count that still come in.
        let columns = self.columns.clone();
        let input = inputs.iter().flat_map(|schema| schema.fields()).enumerate();
        let kept =
            input.filter(|(_, field)| !columns.contains(field.name())).map(|(at, _)| at).collect::<Vec<_>>();
        let narrow = Narrow::new([Vec::new()], move |carried| {
            Self::new(columns.iter().filter(|name| carried.comes_in(name)))
        });
        Ok(signature.narrowing(narrow.handing_on(kept)))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

/// Gives columns other names; they keep their places.
///
/// ```
/// use millstream_transform::Rename;
/// let step = Rename::new([("amt", "amount")]);
/// ```
#[derive(Clone, Debug)]
pub struct Rename {
    names: IndexMap<String, String>,
    prepared: Prepared<Rearranged>,
}

/// Columns and their new names.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct RenameSettings(IndexMap<String, String>);

impl Rename {
    /// Columns and their new names.
    pub fn new<F: Into<String>, T: Into<String>>(names: impl IntoIterator<Item = (F, T)>) -> Self {
        let names = names.into_iter().map(|(from, to)| (from.into(), to.into())).collect();
        Self { names, prepared: Prepared::default() }
    }
}

impl From<RenameSettings> for Rename {
    fn from(settings: RenameSettings) -> Self {
        Self { names: settings.0, prepared: Prepared::default() }
    }
}

impl Step for Rename {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| {
            let reads = each_column(schema, &self.names, |at, _, _| Ok(at))?;
            let columns = schema.fields().iter().enumerate().map(|(at, field)| {
                let field: FieldRef = match self.names.get(field.name()) {
                    Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
                    None => Arc::clone(field),
                };
                (field, Slot::Input(at))
            });
            Ok(Rearranged { layout: Layout::new(columns, schema)?, reads })
        })
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

/// Columns that came in, in another order or under other names.
#[derive(Debug)]
struct Rearranged {
    layout: Layout,
    /// The columns that got another name.
    reads: Vec<usize>,
}

impl Kernel for Rearranged {
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
        Ok(Output::one(self.layout.rows(&rows, &[])?))
    }
}
