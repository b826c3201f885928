//! What a run answers.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_graph::{Origin, RunId};

/// The rows that reached the respond step, and what was degraded on the way.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(crate) run: RunId,
    pub(crate) rows: RecordBatch,
    pub(crate) origin: Origin,
    pub(crate) degraded: Vec<Degraded>,
}

/// A step whose answer is not what it should have been, in a run that replied all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// The step.
    pub step: Arc<str>,
    /// What stands in for its answer, and why.
    pub reason: Box<str>,
}

impl Reply {
    /// The run that made it.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The rows, under the plan's reply schema; without rows when none reached the respond step.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Takes the rows.
    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// Which row of the request reply row `row` answers; `None` when the graph mixes rows.
    pub fn place(&self, row: usize) -> Option<u32> {
        self.origin.place(row)
    }

    /// What was degraded; empty for a reply that is all it should be.
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }
}
