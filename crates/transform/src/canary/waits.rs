//! Calls that their steps may never answer.

use std::{sync::Arc, time::Instant};

use millstream_graph::{RunCx, StepResult};

use super::{
    Rollback,
    seen::{Seen, failed_rows},
};

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Old,
    New,
}

/// A call that is under way. When the deadline passes before it is answered, the step has failed its rows: the run is dropped then,
/// and this with it. When the run is dropped earlier, its caller has gone, which says nothing of the step.
pub(super) struct Waits {
    who: Who,
    given: usize,
    deadline: Option<Instant>,
    /// The run's, which need not be the machine's.
    clock: fn() -> Instant,
    seen: Arc<Seen>,
    rule: Rollback,
    /// Whether it is counted already, or by others.
    over: bool,
}

impl Waits {
    pub(super) fn new(who: Who, given: usize, cx: &RunCx, seen: &Arc<Seen>, rule: &Rollback) -> Self {
        let (deadline, clock) = (cx.deadline(), cx.clock());
        Self { who, given, deadline, clock, seen: Arc::clone(seen), rule: *rule, over: false }
    }

    /// Whether the answer that is there now came in time. One that did not is counted as none.
    pub(super) fn was_in_time(mut self) -> bool {
        self.over = !self.is_late();
        self.over
    }

    /// Counts the answer of the old step.
    pub(super) fn answered(self, answer: &StepResult) {
        let (seen, given) = (Arc::clone(&self.seen), self.given);
        if self.was_in_time() {
            seen.count_old(given, failed_rows(answer, given));
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| (self.clock)() >= deadline)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if self.over || !self.is_late() {
            return;
        }
        match self.who {
            Who::Old => self.seen.count_old(self.given, self.given),
            Who::New => self.seen.count_new(self.given, self.given, None, &self.rule),
        }
    }
}
