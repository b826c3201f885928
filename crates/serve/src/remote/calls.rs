//! As many calls as some rows need, side by side.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures_util::{StreamExt, stream};
use millstream_graph::{
    Effect, ErrorKind, FailedRows, Input, Origin, Rows, RunCx, Step, StepError, Token, Work,
};
use smallvec::smallvec;

/// Calls that are typed: rows in, answers out.
pub(super) struct Calls {
    pub(super) input: SchemaRef,
    pub(super) answer: SchemaRef,
    pub(super) effect: Effect,
    /// Rows per call.
    pub(super) rows: usize,
    /// Calls of one run under way.
    pub(super) in_flight: usize,
    /// Makes one call, with its layers around it.
    pub(super) call: Arc<dyn Step>,
}

/// What came of the calls for some rows, call by call in the order of the rows.
pub(super) struct Answers {
    /// The rows that were answered, and the columns of their answers.
    pub(super) good: Vec<(Rows, Rows)>,
    pub(super) failed: Option<FailedRows>,
}

impl Calls {
    /// Makes as many calls as the rows need, side by side, and puts their answers in the order of the rows.
    ///
    /// Rows that are refused are told apart; whatever else goes wrong with one call ends all of them.
    pub(super) async fn make(&self, rows: &Rows, cx: &RunCx) -> Result<Answers, StepError> {
        let starts = (0..rows.len()).step_by(self.rows);
        let calls = starts.map(|start| {
            let part = part(rows, start, self.rows.min(rows.len() - start));
            async move { (start, self.answer(part, cx).await) }
        });
        let mut calls = stream::iter(calls).buffer_unordered(self.in_flight);
        let mut answers = Vec::new();
        while let Some((start, answer)) = calls.next().await {
            match answer {
                Err(error) if error.kind() != ErrorKind::Rows => return Err(error),
                answer => answers.push((start, answer)),
            }
        }
        drop(calls);
        answers.sort_unstable_by_key(|(start, _)| *start);
        self.sorted(rows, answers)
    }

    async fn answer(&self, rows: Rows, cx: &RunCx) -> Result<Rows, StepError> {
        let output = match self.call.call(Input::new(smallvec![Token::Rows(rows)]), cx) {
            Work::Done(result) => result,
            Work::Io(answer) => answer.await,
            Work::Compute(job) => job(),
        };
        let (ports, ..) = output?.into_parts();
        ports
            .into_iter()
            .next()
            .map(|(_, rows)| rows)
            .ok_or_else(|| StepError::internal("a call had no answer"))
    }

    fn sorted(
        &self,
        rows: &Rows,
        answers: Vec<(usize, Result<Rows, StepError>)>,
    ) -> Result<Answers, StepError> {
        let (mut good, mut indices, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        for (start, answer) in answers {
            let count = self.rows.min(rows.len() - start);
            match answer {
                Ok(answer) => good.push((part(rows, start, count), answer)),
                Err(error) => {
                    indices.extend((start..start + count).map(|row| row as u32));
                    messages.extend(std::iter::repeat_n(error.message().to_owned(), count));
                }
            }
        }
        let failed = match messages.is_empty() {
            true => None,
            false => Some(FailedRows { rows: rows.take(&indices)?, messages }),
        };
        Ok(Answers { good, failed })
    }
}

/// `count` rows from `start` on.
fn part(rows: &Rows, start: usize, count: usize) -> Rows {
    if count == rows.len() {
        return rows.clone();
    }
    let origin = match rows.origin() {
        Origin::Whole => Origin::Picked((start..start + count).map(|row| row as u32).collect()),
        Origin::Picked(places) => Origin::Picked(places[start..start + count].into()),
        Origin::Lost => Origin::Lost,
    };
    Rows::with_origin(rows.batch().slice(start, count), origin)
}
