//! A step that brings rows back together, in the order of the request.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, SchemaRef},
};

use smallvec::SmallVec;

use crate::{
    Input, Narrow, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step, StepError, Token,
    Work, graph::schema_of,
};

/// Interleaves the rows of its in-ports by their place in the request.
#[derive(Default)]
pub(crate) struct Merge {
    /// The columns to merge, where others are left out: each in-port has these, and maybe more.
    only: Option<BTreeSet<String>>,
    layout: OnceLock<Layout>,
}

/// The columns of the merged rows, and where each in-port has them; `None` when it has exactly these.
struct Layout {
    schema: SchemaRef,
    columns: Vec<Option<Vec<usize>>>,
}

impl Step for Merge {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let Some(first) = inputs.first() else {
            return Err(SchemaError::new("takes at least one input"));
        };
        let merged = |field: &Field| self.only.as_ref().is_none_or(|only| only.contains(field.name()));
        let mut fields: Vec<_> = first.fields().iter().filter(|field| merged(field)).cloned().collect();
        let wanted = schema_of(fields.iter().cloned());
        let mut found = Vec::with_capacity(inputs.len());
        let mut errors = Vec::new();
        for (at, other) in inputs.iter().enumerate() {
            let (columns, problems) = find_columns(&wanted, other);
            let named = |error: &SchemaError| SchemaError::new(format!("input {at}: {error}"));
            errors.extend(problems.iter().map(named));
            let extra = other.fields().iter().filter(|field| merged(field));
            let extra = extra.filter(|field| wanted.column_with_name(field.name()).is_none());
            errors.extend(extra.map(|field| {
                SchemaError::new(format!(
                    "input {at}: column `{}` is not there on input 0; drop it",
                    field.name()
                ))
            }));
            for field in &mut fields {
                let nullable =
                    other.column_with_name(field.name()).is_some_and(|(_, other)| other.is_nullable());
                if nullable && !field.is_nullable() {
                    *field = Arc::new(Field::clone(field).with_nullable(true));
                }
            }
            found.push(columns);
        }
        SchemaError::collect(errors)?;
        let schema = schema_of(fields);
        let columns =
            found.into_iter().zip(inputs).map(|(at, input)| (**input != *schema).then_some(at)).collect();
        let _ = self.layout.set(Layout { schema: Arc::clone(&schema), columns });
        let columns: Vec<String> = first.fields().iter().map(|field| field.name().clone()).collect();
        let narrow = Narrow::new(inputs.iter().map(|_| Vec::new()), move |carried| {
            let read = columns.iter().filter(|name| carried.is_read(name));
            Self { only: Some(read.cloned().collect()), layout: OnceLock::new() }
        });
        Ok(Signature::ports(vec![OutPort::new("out", schema, RowFlow::Merged)]).narrowing(narrow))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        let layout = self.layout.get().ok_or_else(|| StepError::internal("the step was not compiled"));
        Work::Done(layout.and_then(|layout| layout.merge(input)).map(Output::one))
    }
}

impl Layout {
    fn merge(&self, input: Input) -> Result<Rows, StepError> {
        let mut parts: SmallVec<[Rows; 2]> = SmallVec::new();
        for (token, columns) in input.into_tokens().into_iter().zip(&self.columns) {
            let Token::Rows(rows) = token else { continue };
            parts.push(match columns {
                None => rows,
                Some(columns) => rows.replace(pick(rows.batch(), columns, &self.schema)?)?,
            });
        }
        Rows::merge(parts, &self.schema)
    }
}

/// Where each column of `wanted` stands in `given`, and what is missing or has another type.
pub(super) fn find_columns(wanted: &SchemaRef, given: &SchemaRef) -> (Vec<usize>, Vec<SchemaError>) {
    let mut columns = Vec::with_capacity(wanted.fields().len());
    let mut errors = Vec::new();
    for field in wanted.fields() {
        match given.column_with_name(field.name()) {
            Some((at, got)) if got.data_type() == field.data_type() => columns.push(at),
            Some((_, got)) => errors.push(SchemaError::new(format!(
                "column `{}` is {} where {} is wanted",
                field.name(),
                got.data_type(),
                field.data_type()
            ))),
            None => {
                let known = given.fields().iter().map(|field| field.name().as_str());
                errors.push(SchemaError::unknown_column(field.name(), known));
            }
        }
    }
    (columns, errors)
}

/// The columns at `columns`, under `schema`.
pub(super) fn pick(
    batch: &RecordBatch,
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch, StepError> {
    let picked = columns.iter().map(|&at| Arc::clone(batch.column(at))).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), picked)?)
}
