//! How rows are given to both steps, and how their answers become one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::SchemaRef;
use futures_util::future::join;
use millstream_graph::{ErrorKind, FailedRows, Output, Rows, RunCx, Step, StepError, StepResult, Work};
use smallvec::{SmallVec, smallvec};

use super::{
    Canary,
    plan::Plan,
    seen::failed_rows,
    waits::{Waits, Who},
};
use crate::nested;

impl Canary {
    /// The answer to rows some of which are the new step's.
    pub(super) async fn both(&self, plan: &Plan, rows: Rows, ways: &[bool], cx: &RunCx) -> StepResult {
        let pick = |new: bool| {
            let picked = (0..ways.len()).filter(|row| ways[*row] == new);
            picked.map(|row| row as u32).collect::<Vec<u32>>()
        };
        let (of_old, of_new) = (pick(false), pick(true));
        if of_old.is_empty() {
            return self.by_new(plan, rows, cx).await;
        }
        let (old_rows, new_rows) = (rows.take(&of_old)?, rows.take(&of_new)?);
        let (old, new) = join(self.by_old(plan, old_rows, cx), self.by_new(plan, new_rows, cx)).await;
        merged(plan.layout.schema(), [old?, new?])
    }

    /// The old one's answer to rows that are its own.
    async fn by_old(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let waits = self.waits(Who::Old, rows.len(), cx);
        let (answer, _) = timed(&self.old, rows, cx).await;
        waits.answered(&answer);
        plan.told(answer?, "champion")
    }

    /// The answer to the new step's rows: its own, and the old one's for those that it fails.
    async fn by_new(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let given = rows.len();
        let again = rows.clone();
        // One after the other: at the same time, each would be measured with the other's work.
        let compared = self.seen.is_compared(&self.rollback);
        let before = match compared {
            Some(true) => Some(timed(&self.old, rows.clone(), cx).await),
            _ => None,
        };
        // What the old one has used up of the time is not held against the new one.
        let waits = before.is_none().then(|| self.waits(Who::New, given, cx));
        let (answer, took) = timed(&self.new, rows.clone(), cx).await;
        let in_time = waits.is_none_or(Waits::was_in_time);
        let late = answer.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::DeadlineExceeded);
        if late && cx.expired() {
            // There is no time left for another answer.
            return plan.told(answer?, "canary");
        }
        let old = match compared {
            Some(false) => Some(timed(&self.old, rows, cx).await),
            _ => before,
        };
        // Whose row it was is not known of requests that share a run: each is run again by itself.
        if cx.is_shared() && answer.is_err() {
            return answer;
        }
        if in_time {
            let old = old.as_ref().map(|(old, time)| (old, took, *time));
            self.seen.judge(&answer, given, old, &self.rollback);
        }
        match answer {
            Ok(output) => {
                let (ports, failed, degraded) = output.into_parts();
                let mut good = Output::none();
                for (port, rows) in ports {
                    good = good.with(port, rows);
                }
                if let Some(reason) = degraded {
                    good = good.degraded(reason);
                }
                let good = plan.told(good, "canary")?;
                match failed {
                    None => Ok(good),
                    Some(failed) => {
                        let instead = self.instead(plan, failed.rows, cx).await?;
                        merged(plan.layout.schema(), [good, instead])
                    }
                }
            }
            Err(_) => match old {
                Some((old, _)) => plan.told(old?, "champion"),
                None => self.instead(plan, again, cx).await,
            },
        }
    }

    /// The old one's answer to rows that the new one has failed, in the time that it has left.
    async fn instead(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let given = rows.len();
        let (answer, _) = timed(&self.old, rows, cx).await;
        self.seen.count_old(given, failed_rows(&answer, given));
        plan.told(answer?, "champion")
    }

    /// A call that begins now, of the step that has all the time there is.
    pub(super) fn waits(&self, who: Who, given: usize, cx: &RunCx) -> Waits {
        Waits::new(who, given, cx, &self.seen, &self.rollback)
    }
}

/// What a step answers, and how long that took.
async fn timed(step: &Arc<dyn Step>, rows: Rows, cx: &RunCx) -> (StepResult, Duration) {
    let since = Instant::now();
    let answer = match nested::call(&**step, rows, cx) {
        Work::Done(answer) => answer,
        Work::Io(answer) => answer.await,
        Work::Compute(job) => cx.compute(job).await,
    };
    (answer, since.elapsed())
}

/// The rows of two answers, in the order of the request.
fn merged(schema: &SchemaRef, outputs: [Output; 2]) -> StepResult {
    let (mut good, mut failed): (SmallVec<[Rows; 2]>, Vec<FailedRows>) = (SmallVec::new(), Vec::new());
    let mut degraded = None;
    for output in outputs {
        let (ports, bad, reason) = output.into_parts();
        good.extend(ports.into_iter().map(|(_, rows)| rows));
        failed.extend(bad.map(|bad| *bad));
        degraded = degraded.or(reason);
    }
    let mut output = if good.is_empty() { Output::none() } else { Output::one(Rows::merge(good, schema)?) };
    let mut failed = failed.into_iter();
    if let Some(mut first) = failed.next() {
        for other in failed {
            let schema = Arc::clone(first.rows.schema());
            let (places, mut messages) = by_place(&first, &other)?;
            first.rows = Rows::merge(smallvec![first.rows, other.rows], &schema)?;
            first.messages = places.into_iter().map(|at| std::mem::take(&mut messages[at])).collect();
        }
        output = output.with_failed(first);
    }
    Ok(match degraded {
        Some(reason) => output.degraded(reason),
        None => output,
    })
}

/// The messages of two, and in which order their rows stand once they are merged.
fn by_place(first: &FailedRows, other: &FailedRows) -> Result<(Vec<usize>, Vec<String>), StepError> {
    let rows = [&first.rows, &other.rows]
        .into_iter()
        .flat_map(|rows| (0..rows.len()).map(|row| rows.origin().place(row)));
    let mut places: Vec<(u32, usize)> = rows
        .enumerate()
        .map(|(at, place)| {
            place.map(|place| (place, at)).ok_or_else(|| StepError::internal("rows lost their place"))
        })
        .collect::<Result<_, _>>()?;
    places.sort_unstable();
    let messages = first.messages.iter().chain(&other.messages).cloned().collect();
    Ok((places.into_iter().map(|(_, at)| at).collect(), messages))
}
