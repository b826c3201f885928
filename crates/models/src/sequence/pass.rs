//! The rows of one request on their way through their sequences.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::concat_batches;
use millstream_graph::{FailedRows, Output, Rows, RunCx, StepError, StepResult};
use tokio::sync::OwnedMutexGuard;

use super::{
    Ids, Plan, Shared,
    held::{Held, States},
    table::{Closed, Turn},
};

/// The most bytes of a sequence's name, which is kept as long as the sequence is open.
const ID_BYTES: usize = 256;

/// Rows that are run one after the other, each in its sequence.
///
/// Whoever waits for a sequence holds neither a thread nor another sequence; a pass that is dropped while it waits leaves the
/// sequences of the rows before as they are now.
pub(super) struct Pass<F> {
    shared: Arc<Shared>,
    pub(super) rows: Rows,
    ids: Ids,
    plan: Plan,
    /// Runs one row.
    one: F,
    /// The row that is next.
    at: usize,
    good: Vec<u32>,
    answers: Vec<Rows>,
    bad: Vec<u32>,
    messages: Vec<String>,
}

impl<F: Fn(&Rows) -> StepResult + Send + 'static> Pass<F> {
    pub(super) fn new(shared: &Arc<Shared>, rows: Rows, plan: Plan, one: F) -> Result<Self, StepError> {
        let ids = Ids::of(&rows, plan)?;
        let (shared, good, bad) = (Arc::clone(shared), Vec::new(), Vec::new());
        Ok(Self { shared, rows, ids, plan, one, at: 0, good, answers: Vec::new(), bad, messages: Vec::new() })
    }

    /// The sequence of the next row that has one, which may begin with it; none when there are no more rows.
    pub(super) fn next_turn(&mut self) -> Option<Turn<States>> {
        while self.at < self.rows.len() {
            match self.sequence() {
                Ok(sequence) => return Some(sequence),
                Err(message) => self.refuse(message),
            }
        }
        None
    }

    fn sequence(&self) -> Result<Turn<States>, String> {
        let Some(id) = self.ids.id(self.at) else {
            return Err("it belongs to no sequence: its id is null".to_owned());
        };
        if id.len() > ID_BYTES {
            return Err(format!("its sequence has a name of more than {ID_BYTES} bytes"));
        }
        let Shared { table, model } = &*self.shared;
        let (starts, may) = (self.ids.starts(self.at), self.plan.start.is_none());
        table.get(id, starts, may, || model.first()).map_err(|closed| match closed {
            Closed::NotOpen => format!("sequence `{id}` has not begun, or is over"),
            Closed::Full => format!("sequence `{id}` cannot begin: as many are open as may be"),
        })
    }

    /// Whether the sequence that the next row has waited for was ended by a row before it. One that the row has begun is its own.
    fn is_over(&self) -> bool {
        let id = self.ids.id(self.at).filter(|_| !self.ids.starts(self.at));
        id.is_some_and(|id| !self.shared.table.is_open(id))
    }

    fn refuse(&mut self, message: String) {
        self.bad.push(self.at as u32);
        self.messages.push(message);
        self.at += 1;
    }

    /// Runs the next row, whose turn it is, and those after it whose turn it is then. Rows of one sequence that follow one another
    /// are run in one turn. Answers the sequence that is to be waited for, or none when there are no more rows.
    pub(super) fn advance(
        &mut self,
        mut turn: OwnedMutexGuard<States>,
    ) -> Result<Option<Turn<States>>, StepError> {
        loop {
            self.row(&mut turn)?;
            let Some(sequence) = self.next_turn() else { return Ok(None) };
            if Arc::ptr_eq(OwnedMutexGuard::mutex(&turn), &sequence) {
                continue;
            }
            drop(turn);
            match Arc::clone(&sequence).try_lock_owned() {
                Ok(free) => turn = free,
                Err(_) => return Ok(Some(sequence)),
            }
        }
    }

    /// Runs the next row on what its sequence holds.
    fn row(&mut self, turn: &mut OwnedMutexGuard<States>) -> Result<(), StepError> {
        let row = self.at;
        let alone = self.rows.take(&[row as u32])?;
        let (answer, after) = Held::during(States::clone(turn), || (self.one)(&alone));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if self.answers.is_empty() => return Err(error),
            // The rows before it have been run, and their sequences are further: they are answered.
            Err(_) => {
                self.refuse("the model failed".to_owned());
                return Ok(());
            }
        };
        let (ports, failed, _) = answer.into_parts();
        match (ports.into_iter().next(), failed) {
            (Some((_, answer)), _) => {
                **turn = after;
                self.good.push(row as u32);
                self.answers.push(answer);
                self.at += 1;
            }
            // The state stays as it was.
            (None, failed) => {
                self.refuse(failed.and_then(|failed| failed.messages.into_iter().next()).unwrap_or_default());
            }
        }
        if self.ids.ends(row)
            && let Some(id) = self.ids.id(row)
        {
            self.shared.table.end(id, OwnedMutexGuard::mutex(turn));
        }
        Ok(())
    }

    /// Runs all rows, the first in this sequence. Waits for the turn of each that somebody else runs.
    pub(super) async fn run(self: Box<Self>, first: Turn<States>, cx: &RunCx) -> StepResult {
        let (mut pass, mut sequence) = (self, first);
        loop {
            let turn = sequence.lock_owned().await;
            if pass.is_over() {
                drop(turn);
                let Some(next) = pass.next_turn() else { return pass.output() };
                sequence = next;
                continue;
            }
            // What is left to do comes back here; the last rows bring the answer.
            let rest = Arc::new(Mutex::new(None));
            let left = Arc::clone(&rest);
            let job = move || match pass.advance(turn)? {
                None => pass.output(),
                Some(next) => {
                    *left.lock().unwrap_or_else(PoisonError::into_inner) = Some((pass, next));
                    Ok(Output::none())
                }
            };
            let answer = cx.compute(Box::new(job)).await?;
            let next = rest.lock().unwrap_or_else(PoisonError::into_inner).take();
            match next {
                None => return Ok(answer),
                Some(next) => (pass, sequence) = next,
            }
        }
    }

    /// What has become of the rows.
    pub(super) fn output(&mut self) -> StepResult {
        let Self { rows, good, answers, bad, messages, .. } = self;
        let mut output = Output::none();
        if let Some(first) = answers.first() {
            let batch = concat_batches(first.schema(), answers.iter().map(Rows::batch))?;
            let kept = if good.len() == rows.len() { rows.clone() } else { rows.take(good)? };
            output = Output::one(kept.replace(batch)?);
        }
        if !bad.is_empty() {
            let messages = std::mem::take(messages);
            output = output.with_failed(FailedRows { rows: rows.take(bad)?, messages });
        }
        Ok(output)
    }
}
