//! One run for several requests: what it takes from each, and what each hears of it.

use std::{ops::Range, sync::Arc, task::Poll, time::Instant};

use arrow::array::RecordBatch;
use futures_util::future::{Either, poll_fn, select};
use millstream_graph::{RunCx, RunId, Share};
use smallvec::SmallVec;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout_at,
};

use super::Portion;
use crate::{
    Reply, RunError,
    admission::Permit,
    engine::Shared,
    run::{now, reply},
    sync::point,
};

pub(super) type Entries = SmallVec<[Entry; 1]>;

/// One request of a shared run.
pub(super) struct Entry {
    pub(super) share: Share,
    /// When it was admitted.
    pub(super) since: Instant,
    pub(super) permit: Permit,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// What a caller hears of the shared run.
pub(super) enum Outcome {
    Reply(Portion),
    Failed(RunError),
    Alone(Alone),
}

/// The rows of a request that runs alone after all, and what it holds.
pub(super) struct Alone {
    pub(super) batch: RecordBatch,
    pub(super) permit: Permit,
    /// The door's, when nobody else came.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Entry {
    pub(super) fn alone(self, batch: RecordBatch, slot: Option<OwnedSemaphorePermit>) {
        let alone = Alone { batch, permit: self.permit, slot };
        let _ = self.answer.send(Outcome::Alone(alone));
    }

    pub(super) fn tell(self, outcome: Outcome) {
        // A caller that has gone needs no answer.
        let _ = self.answer.send(outcome);
    }

    /// Whether the caller is there and has time.
    pub(super) fn waits(&self, now: Option<Instant>) -> bool {
        let late = self.share.request.deadline.zip(now).is_some_and(|(deadline, now)| now >= deadline);
        point();
        !late && !self.answer.is_closed()
    }
}

/// What becomes of a request that waits for its shared run.
pub(super) async fn told(
    answer: oneshot::Receiver<Outcome>,
    deadline: Option<Instant>,
    run: RunId,
) -> Outcome {
    let mut answer = answer;
    if let Ok(outcome) = answer.try_recv() {
        return outcome;
    }
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => match timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => return Outcome::Failed(RunError::DeadlineExceeded { run }),
        },
    };
    // The sender goes without a word only when the engine goes, and takes its tasks with it.
    answer.unwrap_or(Outcome::Failed(RunError::Closed))
}

/// Each request runs alone.
pub(super) fn send_alone(batch: &RecordBatch, entries: Entries) {
    let mut start = 0;
    for entry in entries {
        let rows = entry.share.rows;
        entry.alone(batch.slice(start, rows), None);
        start += rows;
    }
}

/// Runs the rows of several requests as one, and tells each its part. Answers whether that did them any good.
pub(super) async fn together(shared: &Shared, batch: RecordBatch, mut entries: Entries) -> bool {
    let shares: SmallVec<[Share; 1]> = entries.iter().map(|entry| entry.share.clone()).collect();
    let cx = RunCx::shared(shares[0].run, shares, now).with_compute(shared.core.jobs.clone());
    let mut state = shared.state();
    let outcome = {
        let run = std::pin::pin!(reply(&shared.core, &cx, &mut state, batch.clone()));
        let gone = poll_fn(|cx| {
            let gone = entries.iter_mut().all(|entry| entry.answer.poll_closed(cx).is_ready());
            if gone { Poll::Ready(()) } else { Poll::Pending }
        });
        match select(run, gone).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => return true,
        }
    };
    let stands = outcome.ok().filter(|reply| reply.degraded().is_empty());
    let parted = stands.and_then(|reply| Some((parts(&reply, &cx)?, reply)));
    let Some((parts, reply)) = parted.filter(|_| state.tell_taps(&shared.core, &cx)) else {
        send_alone(&batch, entries);
        return false;
    };
    state.count(&shared.core);
    state.times.tell(&shared.core, &cx, &[]);
    let has_tail = state.has_tail(&shared.core);
    let reply = Arc::new(reply);
    for ((entry, range), (share, rows)) in entries.into_iter().zip(parts).zip(cx.shares()) {
        let portion = Portion { run: share.run, reply: Arc::clone(&reply), range, start: rows.start };
        let Entry { permit, answer, .. } = entry;
        // A caller that has gone needs no answer.
        let _ = answer.send(Outcome::Reply(portion));
        if has_tail {
            shared.start_tail_of(&state, share, &rows, permit);
        }
    }
    true
}

/// Which rows of a reply are whose; `None` when they do not stand in the order of the requests.
fn parts(reply: &Reply, cx: &RunCx) -> Option<SmallVec<[Range<usize>; 16]>> {
    let rows = reply.rows().num_rows();
    let place = |row: &usize| reply.place(*row);
    let mut end = 0;
    let parts = cx.shares().map(|(_, range)| {
        let start = end;
        while end < rows && (place(&end)? as usize) < range.end {
            end += 1;
        }
        Some(start..end)
    });
    let parts = parts.collect::<Option<SmallVec<_>>>()?;
    let ordered = (1..rows).all(|row| place(&(row - 1)) <= place(&row));
    (ordered && end == rows).then_some(parts)
}
