//! The column `error` of rows that failed: which step, what kind, and why.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, StructArray},
    datatypes::{DataType, Field, Fields, SchemaRef},
};

use crate::{ErrorKind, Rows, StepError, graph::schema_of};

/// The name of the column that says why rows failed.
pub const ERROR_COLUMN: &str = "error";

static ERROR_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    ["step", "kind", "message"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec().into()
});

/// The columns of rows that failed: their own, and `error: {step, kind, message}`.
pub(crate) fn failed_schema(rows: &SchemaRef) -> SchemaRef {
    let error = Field::new(ERROR_COLUMN, DataType::Struct(ERROR_FIELDS.clone()), false);
    schema_of(rows.fields().iter().cloned().chain([Arc::new(error)]))
}

/// The rows that failed in `step`, each with its own message, under `schema` (their own columns and `error`).
///
/// # Errors
/// When `schema` is not that of these rows.
pub fn failed_rows(
    rows: &Rows,
    schema: &SchemaRef,
    step: &str,
    kind: ErrorKind,
    messages: &[impl AsRef<str>],
) -> Result<Rows, StepError> {
    let same = |text: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows.len())))
    };
    let messages = StringArray::from_iter_values(messages.iter().map(AsRef::as_ref));
    let parts = vec![same(step), same(kind.name()), Arc::new(messages)];
    let error = StructArray::try_new(ERROR_FIELDS.clone(), parts, None)?;
    let columns = rows.batch().columns().iter().cloned().chain([Arc::new(error) as ArrayRef]).collect();
    rows.replace(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
