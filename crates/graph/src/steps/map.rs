//! A step from a closure over batches.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};

use super::single;
use crate::{Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, Work};

type Closure = dyn Fn(&RecordBatch) -> Result<RecordBatch, StepError> + Send + Sync;

/// A closure from one batch to another.
pub(crate) struct Map {
    output: SchemaRef,
    keeps_rows: bool,
    f: Box<Closure>,
}

impl Map {
    pub(crate) fn new<F>(output: SchemaRef, f: F) -> Self
    where
        F: Fn(&RecordBatch) -> Result<RecordBatch, StepError> + Send + Sync + 'static,
    {
        Self { output, keeps_rows: true, f: Box::new(f) }
    }

    pub(crate) fn free<F>(output: SchemaRef, f: F) -> Self
    where
        F: Fn(&RecordBatch) -> Result<RecordBatch, StepError> + Send + Sync + 'static,
    {
        Self { output, keeps_rows: false, f: Box::new(f) }
    }

    fn run(&self, rows: &Rows) -> Result<Rows, StepError> {
        let batch = (self.f)(rows.batch())?;
        let batch = declared(batch, &self.output)?;
        if self.keeps_rows { rows.replace(batch) } else { Ok(Rows::free(batch)) }
    }
}

impl Step for Map {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        single(inputs)?;
        let output = Arc::clone(&self.output);
        Ok(if self.keeps_rows { Signature::row_wise(output) } else { Signature::free(output) })
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| self.run(&rows)).map(Output::one))
    }
}

/// The batch under the schema that the step declared, which later steps rely on.
pub(super) fn declared(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, StepError> {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return Ok(batch);
    }
    let types = |schema: &Schema| {
        let fields = schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type()));
        fields.collect::<Vec<_>>().join(", ")
    };
    let same = |a: &Schema, b: &Schema| {
        let field = |f: &arrow::datatypes::FieldRef| (f.name().clone(), f.data_type().clone());
        a.fields().len() == b.fields().len() && a.fields().iter().map(field).eq(b.fields().iter().map(field))
    };
    if !same(batch.schema_ref(), schema) {
        return Err(StepError::internal(format!(
            "declares columns ({}) but its closure answered ({})",
            types(schema),
            types(batch.schema_ref())
        )));
    }
    let (_, columns, _) = batch.into_parts();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
