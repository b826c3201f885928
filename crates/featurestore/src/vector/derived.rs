//! The columns of a vector that are expressions, computed outside of a graph.

use std::{sync::Arc, time::Instant};

use arrow::{
    array::RecordBatch,
    datatypes::{FieldRef, SchemaRef},
};
use millstream_graph::{Input, Output, Request, Rows, RunCx, RunId, Step, StepResult, Token, Work};
use smallvec::smallvec;

/// A step that adds columns to what comes in and the features.
#[derive(Clone)]
pub(crate) struct Derived {
    pub(crate) step: Arc<dyn Step>,
    /// What it reads.
    pub(crate) input: SchemaRef,
    /// What it adds.
    pub(crate) added: Vec<FieldRef>,
}

impl Derived {
    /// The rows with the columns that are added, and the rows on which an expression fails, with messages.
    pub(crate) fn run(&self, batch: RecordBatch) -> StepResult {
        let cx = RunCx::new(RunId(0), Request::default(), batch.num_rows(), Instant::now);
        if batch.num_rows() == 0 {
            return Ok(Output::none());
        }
        let input = Input::new(smallvec![Token::Rows(Rows::whole(batch))]);
        match self.step.call(input, &cx) {
            Work::Done(answer) => answer,
            Work::Compute(job) => job(),
            Work::Io(answer) => crate::wait(answer),
        }
    }
}
