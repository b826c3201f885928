//! A step from a closure over typed rows.

use std::{marker::PhantomData, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch},
    datatypes::{FieldRef, SchemaRef},
};
use serde::{Serialize, de::DeserializeOwned};

use super::single;
use crate::{FailedRows, Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, Work, graph::schema_of};

/// A closure from one typed row to another; rows for which it answers an error leave on the error port.
pub(crate) struct MapRows<I, O, F> {
    output: SchemaRef,
    f: F,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O, F> MapRows<I, O, F> {
    pub(crate) fn new(output: SchemaRef, f: F) -> Self {
        Self { output, f, types: PhantomData }
    }
}

impl<I, O, F> MapRows<I, O, F>
where
    I: DeserializeOwned,
    O: Serialize,
    F: Fn(I) -> Result<O, String>,
{
    fn run(&self, rows: &Rows) -> Result<Output, StepError> {
        let typed: Vec<I> = serde_arrow::from_record_batch(rows.batch())
            .map_err(|error| StepError::internal("rows do not fit the closure's type").with_source(error))?;
        let mut good = Vec::with_capacity(typed.len());
        let mut kept = Vec::with_capacity(typed.len());
        let mut messages = Vec::new();
        for row in typed {
            match (self.f)(row) {
                Ok(row) => good.push(row),
                Err(message) => messages.push(message),
            }
            kept.push(good.len() > kept.iter().filter(|kept| **kept).count());
        }
        let fields: Vec<FieldRef> = self.output.fields().iter().cloned().collect();
        let batch = serde_arrow::to_record_batch(&fields, &good)
            .map_err(|error| StepError::internal("the closure's rows do not fit the columns it declares").with_source(error))?;
        let (_, columns, _) = batch.into_parts();
        let batch = RecordBatch::try_new(self.output.clone(), columns)?;
        if messages.is_empty() {
            return Ok(Output::one(rows.replace(batch)?));
        }
        let failed = BooleanArray::from(kept.iter().map(|kept| !kept).collect::<Vec<_>>());
        let failed = FailedRows { rows: rows.filter(&failed)?, messages };
        if good.is_empty() {
            return Ok(Output::none().with_failed(failed));
        }
        let good = rows.filter(&BooleanArray::from(kept))?.replace(batch)?;
        Ok(Output::one(good).with_failed(failed))
    }
}

impl<I, O, F> Step for MapRows<I, O, F>
where
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
    F: Fn(I) -> Result<O, String> + Send + Sync + 'static,
{
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let input = single(inputs)?;
        // An empty batch of the input's columns tells whether the type fits, without a row.
        let empty = RecordBatch::new_empty(schema_of(input.fields().iter().cloned()));
        serde_arrow::from_record_batch::<Vec<I>>(&empty).map_err(|error| SchemaError::new(error.to_string()))?;
        Ok(Signature::subset(Arc::clone(&self.output)))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| self.run(&rows)))
    }
}
