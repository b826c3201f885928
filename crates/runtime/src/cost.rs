//! What a step's compute costs, learned from its own runs, and whether that is worth a hop to another thread.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Row counts are kept apart by powers of two, up to 2^15 rows and more: a fixed cost per call weighs on few rows only.
const SIZES: usize = 16;

/// A moving estimate of one step's cost, by size of batch.
#[derive(Default)]
pub(crate) struct Cost {
    /// Nanoseconds per call; zero when no batch of the size was seen.
    by_size: [AtomicU64; SIZES],
    /// Calls that looked somewhat too dear to run inline.
    doubtful: AtomicU64,
}

impl Cost {
    /// The expected nanoseconds for a batch of `rows`; `None` before anything was measured.
    pub(crate) fn estimate(&self, rows: usize) -> Option<u64> {
        let size = size(rows);
        let known = |size: usize| Some(self.by_size[size].load(Relaxed)).filter(|nanos| *nanos > 0);
        // A smaller batch seen costs at most proportionally less; a larger one costs at least as much as this.
        let below = || (0..size).rev().find_map(|other| known(other).map(|nanos| nanos << (size - other)));
        let above = || (size + 1..SIZES).find_map(known);
        known(size).or_else(below).or_else(above)
    }

    /// Whether a call over `rows` is worth a hop to another thread: one that is expected to take more than `budget`
    /// nanoseconds, or of which nothing is known.
    ///
    /// On the pool a call looks dearer than it is, by the wake of a thread with cold caches. So of the calls that look
    /// up to four times too dear, one in sixteen runs inline, where it shows what it costs undisturbed.
    pub(crate) fn worth_a_hop(&self, rows: usize, budget: u64) -> bool {
        match self.estimate(rows) {
            None => true,
            Some(nanos) if nanos <= budget => false,
            Some(nanos) if nanos > 4 * budget => true,
            Some(_) => !(self.doubtful.fetch_add(1, Relaxed) + 1).is_multiple_of(16),
        }
    }

    /// Takes in what one call cost.
    ///
    /// The estimate falls at once and rises slowly, so it follows what the call costs when nothing comes between: a thread
    /// that is interrupted, or that was just woken, shows more than the call itself. An estimate that believed it would
    /// send cheap calls to the pool, where they look dearer still, and never learn better.
    pub(crate) fn learn(&self, rows: usize, took: Duration) {
        let cell = &self.by_size[size(rows)];
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 8).max(1);
        let known = cell.load(Relaxed);
        let next = match known {
            0 => nanos,
            known if nanos < known => known.midpoint(nanos),
            known => known + ((nanos - known) / 16).min(known / 8),
        };
        // Two threads may learn at once; losing one of their samples is harmless.
        cell.store(next.max(1), Relaxed);
    }
}

fn size(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(SIZES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_come_from_the_nearest_size_seen() {
        let cost = Cost::default();
        assert_eq!(cost.estimate(1), None);
        cost.learn(1, Duration::from_nanos(1000));
        assert_eq!(cost.estimate(1), Some(1000));
        assert_eq!(cost.estimate(8), Some(8000));
        cost.learn(64, Duration::from_nanos(4000));
        assert_eq!(cost.estimate(64), Some(4000));
        assert_eq!(cost.estimate(8), Some(8000));
    }

    #[test]
    fn one_interrupted_call_changes_little() {
        let cost = Cost::default();
        (0..100).for_each(|_| cost.learn(1, Duration::from_micros(10)));
        cost.learn(1, Duration::from_millis(50));
        assert!(cost.estimate(1) < Some(15_000));
    }

    #[test]
    fn a_first_call_that_was_cold_is_soon_forgotten() {
        let cost = Cost::default();
        cost.learn(1, Duration::from_millis(5));
        (0..12).for_each(|_| cost.learn(1, Duration::from_micros(10)));
        assert!(cost.estimate(1) < Some(15_000));
    }

    #[test]
    fn calls_that_look_dear_every_other_time_count_as_cheap() {
        let cost = Cost::default();
        (0..200).for_each(|at| cost.learn(1, Duration::from_micros(if at % 2 == 0 { 200 } else { 10 })));
        assert!(cost.estimate(1) < Some(30_000));
    }

    #[test]
    fn calls_that_look_somewhat_too_dear_run_inline_now_and_then() {
        let hops = |micros: u64| {
            let cost = Cost::default();
            cost.learn(1, Duration::from_micros(micros));
            (0..160).filter(|_| cost.worth_a_hop(1, 50_000)).count()
        };
        assert_eq!([10, 50, 60, 200, 201, 5000].map(hops), [0, 0, 150, 150, 160, 160]);
        assert!(Cost::default().worth_a_hop(1, 50_000));
    }

    #[test]
    fn calls_that_have_become_dear_are_noticed() {
        let cost = Cost::default();
        (0..100).for_each(|_| cost.learn(1, Duration::from_micros(10)));
        (0..40).for_each(|_| cost.learn(1, Duration::from_millis(2)));
        assert!(cost.estimate(1) > Some(200_000));
    }
}
