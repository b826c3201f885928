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

    /// Takes in what one call cost.
    pub(crate) fn learn(&self, rows: usize, took: Duration) {
        let cell = &self.by_size[size(rows)];
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 8).max(1);
        let known = cell.load(Relaxed);
        // One call that was interrupted must not send the next hundred to the pool, so a sample counts at most fourfold.
        // Two threads may learn at once; losing one of their samples is harmless.
        let next = if known == 0 { nanos } else { (known * 7 + nanos.min(known * 4)) / 8 };
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
}
