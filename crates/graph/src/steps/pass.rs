//! Steps that hand rows on: the reply, and the entry of an embedded graph.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Schema, SchemaRef};

use super::single;
use crate::{Input, Narrow, Output, RunCx, SchemaError, Signature, Step, Work};

/// The step whose rows are the reply.
pub(crate) struct Respond;

impl Step for Respond {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let schema = single(inputs)?;
        let all = 0..schema.fields().len();
        let narrow = Narrow::new([all.clone().collect()], |_| Self).handing_on(all);
        Ok(Signature::row_wise(Arc::clone(schema)).narrowing(narrow))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).map(Output::one))
    }
}

/// The entry of an embedded graph: the columns that it declares as its input, by name.
pub(crate) struct Entry {
    wanted: SchemaRef,
    columns: OnceLock<Vec<usize>>,
}

impl Entry {
    pub(crate) fn new(wanted: SchemaRef) -> Self {
        Self { wanted, columns: OnceLock::new() }
    }
}

impl Step for Entry {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let given = single(inputs)?;
        let (columns, errors) = super::merge::find_columns(&self.wanted, given);
        SchemaError::collect(errors)?;
        let handed_on = columns.clone();
        // A graph that is compiled again has the same input.
        let _ = self.columns.set(columns);
        let wanted = Arc::clone(&self.wanted);
        let narrow = Narrow::new([Vec::new()], move |carried| {
            let fields = wanted.fields().iter().filter(|field| carried.is_read(field.name()));
            let fields: Vec<_> = fields.map(Arc::clone).collect();
            Self::new(Arc::new(Schema::new_with_metadata(fields, wanted.metadata().clone())))
        });
        let narrow = narrow.handing_on(handed_on);
        Ok(Signature::row_wise(Arc::clone(&self.wanted)).narrowing(narrow))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        let columns = self.columns.get().map_or(&[][..], Vec::as_slice);
        Work::Done(input.rows(0).and_then(|rows| {
            let batch = super::merge::pick(rows.batch(), columns, &self.wanted)?;
            Ok(Output::one(rows.replace(batch)?))
        }))
    }
}
