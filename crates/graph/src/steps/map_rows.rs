//! A step from a closure over typed rows.

use std::{marker::PhantomData, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array},
    compute::cast,
    datatypes::{DataType, FieldRef, SchemaRef},
    error::ArrowError,
};
use serde::{Serialize, de::DeserializeOwned};

use super::single;
use crate::{FailedRows, Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, Work};

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
        let typed: Vec<I> = serde_arrow::from_record_batch(rows.batch()).map_err(|error| {
            // The types fit, as compile has seen, so it is a value that does not.
            StepError::rows(format!("rows do not fit the closure's type: {}", error.message()))
                .with_source(error)
        })?;
        let mut good = Vec::with_capacity(typed.len());
        let mut kept = Vec::with_capacity(typed.len());
        let mut messages = Vec::new();
        for row in typed {
            let answer = (self.f)(row);
            kept.push(answer.is_ok());
            match answer {
                Ok(row) => good.push(row),
                Err(message) => messages.push(message),
            }
        }
        let fields: Vec<FieldRef> = self.output.fields().iter().cloned().collect();
        let batch = serde_arrow::to_record_batch(&fields, &good).map_err(|error| {
            StepError::internal("the closure's rows do not fit the columns it declares").with_source(error)
        })?;
        let (_, columns, _) = batch.into_parts();
        let batch = RecordBatch::try_new(Arc::clone(&self.output), columns)?;
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

/// Tells whether rows of `input` can be read as `I`, by reading one made-up row: zeros and empty texts, and null where a
/// column may be null.
///
/// What the type says about a value rather than its type (an unknown variant, a check of its own) is not held against
/// it: the made-up row is no row of anybody's.
fn fits<I: DeserializeOwned>(input: &SchemaRef) -> Result<(), SchemaError> {
    let sample = |field: &FieldRef| match field.is_nullable() {
        true => Ok(new_null_array(field.data_type(), 1)),
        false => sample_of(field.data_type()),
    };
    let Ok(columns) = input.fields().iter().map(sample).collect::<Result<Vec<_>, _>>() else { return Ok(()) };
    let Ok(row) = RecordBatch::try_new(Arc::clone(input), columns) else { return Ok(()) };
    let Err(error) = serde_arrow::from_record_batch::<Vec<I>>(&row) else { return Ok(()) };
    let said = error.message();
    if ["unknown variant", "invalid value", "invalid length"].iter().any(|about| said.contains(about)) {
        return Ok(());
    }
    Err(misfit(input, said, &error.to_string()))
}

/// What the reader said about the made-up row, in words about columns.
fn misfit(input: &SchemaRef, said: &str, context: &str) -> SchemaError {
    let columns = input.fields().iter().map(|field| field.name().as_str());
    if let Some(name) = said.split("missing field `").nth(1).and_then(|rest| rest.split('`').next()) {
        return SchemaError::unknown_column(name, columns);
    }
    let path = context.split("field: \"$.").nth(1).and_then(|rest| rest.split('"').next());
    let Some((_, field)) = path.and_then(|path| input.column_with_name(path)) else {
        return SchemaError::new(format!("rows do not fit the closure's type: {said}"));
    };
    let (name, data_type) = (field.name(), field.data_type());
    SchemaError::new(match field.is_nullable() {
        true => {
            format!("column `{name}` is {data_type} and may be null, which the closure's type cannot hold")
        }
        false => format!("column `{name}` is {data_type}, which the closure's type cannot hold"),
    })
}

/// One value of a type, never null.
fn sample_of(data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if data_type.is_nested() {
        // An array of no rows has no value to take; what nests is left to the first row that comes.
        return Err(ArrowError::NotYetImplemented("a made-up nested value".into()));
    }
    let text: ArrayRef = Arc::new(StringArray::from(vec![match data_type {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary => "",
        _ => "0",
    }]));
    match data_type {
        DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..)
        | DataType::Time32(_)
        | DataType::Time64(_) => {
            let zero: ArrayRef = match data_type {
                DataType::Date32 | DataType::Time32(_) => Arc::new(Int32Array::from(vec![0])),
                _ => Arc::new(Int64Array::from(vec![0])),
            };
            cast(&zero, data_type)
        }
        _ => cast(&text, data_type),
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
        fits::<I>(input)?;
        Ok(Signature::subset(Arc::clone(&self.output)))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| self.run(&rows)))
    }
}
