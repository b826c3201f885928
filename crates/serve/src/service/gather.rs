//! How what requests bring becomes one batch: bodies that were read, and rows that are run again.

use arrow::{array::RecordBatch, error::ArrowError};
use millstream_runtime::Gather;
use smallvec::SmallVec;

use super::Brought;
use crate::wire::json::{Body, Decoder};

/// Gathers bodies value by value, and puts rows that are there already between them.
pub(super) struct Mixed {
    pub(super) decoder: Decoder,
}

/// What came together, in order; bodies that follow each other are one.
#[derive(Default)]
pub(super) struct Together(SmallVec<[Stretch; 1]>);

enum Stretch {
    Values(Option<Body>),
    Rows(RecordBatch),
}

impl From<RecordBatch> for Brought {
    fn from(rows: RecordBatch) -> Self {
        Self::Rows(rows)
    }
}

impl Gather for Mixed {
    type Part = Brought;
    type Gathered = Together;

    fn rows(&self, part: &Brought) -> usize {
        match part {
            Brought::Values(body) => self.decoder.rows(body),
            Brought::Rows(rows) => rows.num_rows(),
        }
    }

    fn add(&self, gathered: &mut Together, part: Brought) {
        let stretches = &mut gathered.0;
        match (part, stretches.last_mut()) {
            (Brought::Values(body), Some(Stretch::Values(before))) => self.decoder.add(before, body),
            (Brought::Values(body), _) => stretches.push(Stretch::Values(Some(body))),
            (Brought::Rows(rows), _) => stretches.push(Stretch::Rows(rows)),
        }
    }

    fn batch(&self, gathered: Together) -> Result<RecordBatch, ArrowError> {
        let one = |stretch: Stretch| match stretch {
            Stretch::Values(body) => self.decoder.batch(body),
            Stretch::Rows(rows) => Ok(rows),
        };
        let mut stretches = gathered.0;
        match (stretches.len(), stretches.pop()) {
            (0, _) | (_, None) => self.decoder.batch(None),
            (1, Some(only)) => one(only),
            (_, Some(last)) => {
                stretches.push(last);
                let batches = stretches.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
                arrow::compute::concat_batches(self.decoder.schema(), &batches)
            }
        }
    }
}
