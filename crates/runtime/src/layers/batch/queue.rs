//! Items that wait for a call, and which of their rows go into the next one.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use arrow::{array::RecordBatch, compute::concat_batches};
use millstream_graph::{FailedRows, Output, Rows, Share, StepError, StepResult};
use tokio::sync::oneshot;

use crate::sync::{Mutex, PoisonError, point};

/// What one call of the layer brought, and who waits for its answer.
pub(super) struct Item {
    pub(super) rows: Rows,
    pub(super) share: Share,
    pub(super) bytes: usize,
    pub(super) arrived: Instant,
    deadline: Option<Instant>,
    answer: Mutex<Answer>,
}

/// The answers of an item's parts so far.
struct Answer {
    to: Option<oneshot::Sender<StepResult>>,
    /// Rows without an answer.
    left: usize,
    parts: Vec<(usize, Result<Part, StepError>)>,
}

/// What a call answered for some of an item's rows, which are counted from the item's first.
pub(super) struct Part {
    pub(super) good: Option<(RecordBatch, Vec<u32>)>,
    pub(super) failed: Vec<(u32, String)>,
    pub(super) degraded: Option<Box<str>>,
}

/// Some of an item's rows on their way through one call.
pub(super) struct Piece {
    pub(super) item: Arc<Item>,
    pub(super) rows: Range<usize>,
}

impl Item {
    pub(super) fn new(
        rows: Rows,
        share: Share,
        bytes: usize,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> (Arc<Self>, oneshot::Receiver<StepResult>) {
        let (to, answer) = oneshot::channel();
        let answers = Answer { to: Some(to), left: rows.len(), parts: Vec::new() };
        (Arc::new(Self { rows, share, bytes, arrived, deadline, answer: Mutex::new(answers) }), answer)
    }

    /// Whether somebody still waits for the answer and has time to.
    fn waits(&self, now: Instant) -> bool {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        point();
        let open = answer.to.as_ref().is_some_and(|to| !to.is_closed());
        open && self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// Takes the answer to some rows; with the last of them the caller hears.
    fn answered(&self, rows: &Range<usize>, part: Result<Part, StepError>) {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.left -= rows.len();
        answer.parts.push((rows.start, part));
        if answer.left > 0 {
            return;
        }
        answer.parts.sort_by_key(|(start, _)| *start);
        let parts = std::mem::take(&mut answer.parts).into_iter().map(|(_, part)| part);
        if let Some(to) = answer.to.take() {
            let result = parts.collect::<Result<Vec<_>, _>>().and_then(|parts| self.whole(parts));
            // A caller that has gone needs no answer.
            let _ = to.send(result);
        }
    }

    /// The answers to all rows, as the wrapped step would have given them at once.
    fn whole(&self, parts: Vec<Part>) -> StepResult {
        let (mut batches, mut places, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut degraded = None;
        for part in parts {
            degraded = degraded.or(part.degraded);
            if let Some((batch, at)) = part.good {
                batches.push(batch);
                places.extend(at);
            }
            failed.extend(part.failed);
        }
        let mut output = match batches.first() {
            None => Output::none(),
            Some(first) => {
                let batch = match &batches[..] {
                    [one] => one.clone(),
                    many => concat_batches(first.schema_ref(), many)?,
                };
                let kept = if places.len() == self.rows.len() {
                    self.rows.clone()
                } else {
                    self.rows.take(&places)?
                };
                Output::one(kept.replace(batch)?)
            }
        };
        if !failed.is_empty() {
            let (at, messages): (Vec<u32>, Vec<String>) = failed.into_iter().unzip();
            output = output.with_failed(FailedRows { rows: self.rows.take(&at)?, messages });
        }
        Ok(match degraded {
            Some(reason) => output.degraded(reason),
            None => output,
        })
    }
}

impl Piece {
    pub(super) fn answered(self, part: Result<Part, StepError>) {
        self.item.answered(&self.rows, part);
    }
}

/// Items in the order of their arrival, bounded in rows and bytes.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<(Arc<Item>, usize)>,
    rows: usize,
    bytes: usize,
}

impl Queue {
    /// Rows that wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// When the first of those that wait arrived.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.items.front().map(|(item, _)| item.arrived)
    }

    /// Adds an item, unless there are more rows or bytes than may wait. One that finds nobody waiting is never refused.
    pub(super) fn push(
        &mut self,
        item: Arc<Item>,
        most_rows: usize,
        most_bytes: usize,
        now: Instant,
    ) -> bool {
        let full = |queue: &Self| {
            let too_many = queue.rows + item.rows.len() > most_rows || queue.bytes + item.bytes > most_bytes;
            !queue.items.is_empty() && too_many
        };
        if full(self) {
            // Those that have gone hold no place.
            self.forget(now);
        }
        if full(self) {
            return false;
        }
        self.rows += item.rows.len();
        self.bytes += item.bytes;
        self.items.push_back((item, 0));
        true
    }

    /// Takes up to `most` rows away. Every item has an equal share of them, and what the small ones leave goes to the large
    /// ones in the order of arrival: one that brings many rows holds nobody up for longer than one call.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<Piece> {
        self.forget(now);
        let mut room = most.min(self.rows);
        let fair = most.div_ceil(self.items.len().max(1)).max(1);
        let mut takes = vec![0; self.items.len()];
        for limit in [fair, usize::MAX] {
            for ((item, taken), takes) in self.items.iter().zip(&mut takes) {
                let more = limit.min(item.rows.len() - taken).saturating_sub(*takes).min(room);
                *takes += more;
                room -= more;
            }
        }
        let mut pieces = Vec::new();
        for ((item, taken), takes) in self.items.iter_mut().zip(takes).filter(|(_, takes)| *takes > 0) {
            pieces.push(Piece { item: Arc::clone(item), rows: *taken..*taken + takes });
            *taken += takes;
            self.rows -= takes;
        }
        self.drop_items(|item, taken| taken < item.rows.len());
        pieces
    }

    /// Drops the items whose callers have gone or have no time left.
    fn forget(&mut self, now: Instant) {
        self.drop_items(|item, _| item.waits(now));
    }

    fn drop_items(&mut self, stays: impl Fn(&Item, usize) -> bool) {
        let (rows, bytes) = (&mut self.rows, &mut self.bytes);
        self.items.retain(|(item, taken)| {
            let stays = stays(item, *taken);
            if !stays {
                *rows -= item.rows.len() - taken;
                *bytes -= item.bytes;
            }
            stays
        });
    }
}
