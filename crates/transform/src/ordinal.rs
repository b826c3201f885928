//! `ordinal`: values as their places in a list.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, PrimitiveArray},
    buffer::{BooleanBuffer, NullBuffer},
    datatypes::{DataType, Field, Int64Type, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{Input, Rows, RunCx, SchemaError, Signature, Step, StepResult, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Literal,
    codes::{Codes, Place},
    encode::unlisted,
    prepared::{Kernel, Layout, LayoutBuilder, Prepared, column_problem, each_column, without_failures},
};

/// Replaces each listed column by the place of its value in a list, counted from 0.
///
/// Null stays null.
///
/// ```
/// use millstream_transform::Ordinal;
/// let step = Ordinal::new().column("risk", ["low", "medium", "high"]);
/// ```
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
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
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
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

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.at).collect()
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
