//! What has been seen of both steps, and whether that is the end of the new one.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use millstream_graph::StepResult;

use super::{Rollback, compare, tally::Tally};

/// What is known of both steps so far.
#[derive(Default)]
pub(super) struct Seen {
    tally: Mutex<Tally>,
    /// Rows of the old step, and those that it failed, since they were last taken into the tally.
    old_rows: AtomicU64,
    old_failed: AtomicU64,
    /// Calls of the new step.
    calls: AtomicU64,
    /// Why the new step gets no more rows.
    over: OnceLock<String>,
}

impl Seen {
    /// Why the new step gets no more rows, if that is so.
    pub(super) fn over(&self) -> Option<&str> {
        self.over.get().map(String::as_str)
    }

    /// Whether this call of the new step is given to the old one too, and then whether the old one is first.
    pub(super) fn is_compared(&self, rule: &Rollback) -> Option<bool> {
        let call = self.calls.fetch_add(1, Relaxed);
        let share = if rule.latency.is_some() || rule.disagreement.is_some() { rule.compare } else { 0.0 };
        let before = (call as f64 * share).floor();
        // In turns, so that neither always finds the threads as the other has left them.
        (before < ((call + 1) as f64 * share).floor()).then_some(before as u64 % 2 == 1)
    }

    /// Counts a call of the new step, beside that of the old one if there was one, and sees whether that was enough of it.
    pub(super) fn judge(
        &self,
        new: &StepResult,
        given: usize,
        old: Option<(&StepResult, Duration, Duration)>,
        rule: &Rollback,
    ) {
        let failed = failed_rows(new, given);
        let compared = old.and_then(|(old, new_time, old_time)| {
            let (Ok(new), Ok(old)) = (new, old) else { return None };
            let differing = match (new.rows(0), old.rows(0)) {
                (None, None) => Ok(0),
                (Some(rows), None) | (None, Some(rows)) => Ok(rows.len()),
                (Some(new), Some(old)) => compare::differing(new, old, rule.tolerance),
            };
            Some((differing.ok(), new_time, old_time))
        });
        self.count_new(given, failed, compared, rule);
    }

    /// Counts rows of the new step, those of them that it failed, and how it compares with the old one, where both had them: rows
    /// that differ, and the times of both. Sees whether that was enough of it.
    pub(super) fn count_new(
        &self,
        given: usize,
        failed: usize,
        compared: Option<(Option<usize>, Duration, Duration)>,
        rule: &Rollback,
    ) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.failed.count(failed, given);
        let old_rows = self.old_rows.swap(0, Relaxed) as usize;
        tally.failed_before.count(self.old_failed.swap(0, Relaxed) as usize, old_rows);
        if let Some((differing, new_time, old_time)) = compared {
            tally.timed(new_time, old_time, rule);
            if let Some(differing) = differing {
                tally.differing.count(differing, given);
            }
        }
        if let Some(why) = tally.judge(rule)
            && self.over.set(why.clone()).is_ok()
        {
            tracing::warn!(why, "a canary gets no more rows");
        }
    }

    /// Counts rows of the old step, and those of them that it failed.
    pub(super) fn count_old(&self, given: usize, failed: usize) {
        self.old_rows.fetch_add(given as u64, Relaxed);
        if failed > 0 {
            self.old_failed.fetch_add(failed as u64, Relaxed);
        }
    }
}

/// How many of the rows that a step was given it failed.
pub(super) fn failed_rows(answer: &StepResult, given: usize) -> usize {
    match answer {
        Ok(output) => output.failed().map_or(0, |failed| failed.rows.len()),
        Err(_) => given,
    }
}
