//! How long the runs of a short time took: a histogram that all threads write to without a lock.

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Four buckets per power of two, from 16 us on; the last takes everything longer than a minute.
const BUCKETS: usize = 90;
/// The lowest bucket's upper end, as a power of two of nanoseconds.
const FIRST: u32 = 14;
/// Fewer runs than this say nothing; they are kept for the next time.
const LEAST: u32 = 10;

pub(super) struct Latency {
    buckets: [AtomicU32; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

impl Latency {
    pub(super) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
    }

    /// The median since the last time, or `None` when there were too few runs.
    pub(super) fn take_median(&self) -> Option<Duration> {
        let count = |bucket: &AtomicU32| bucket.load(Relaxed);
        let all: u32 = self.buckets.iter().map(count).sum();
        if all < LEAST {
            return None;
        }
        let (mut before, mut median) = (0, 0);
        for (at, bucket) in self.buckets.iter().enumerate() {
            let here = bucket.swap(0, Relaxed);
            if before < all.div_ceil(2) {
                median = at;
            }
            before += here;
        }
        Some(Duration::from_nanos(middle(median)))
    }
}

/// The bucket of a time: the power of two, and the quarter within it.
fn bucket(nanos: u64) -> usize {
    let power = nanos.ilog2();
    if power < FIRST {
        return 0;
    }
    let quarter = (nanos >> (power - 2)) & 3;
    (1 + 4 * (power - FIRST) as usize + quarter as usize).min(BUCKETS - 1)
}

/// What stands for the times of a bucket.
fn middle(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(1) else { return 1 << (FIRST - 1) };
    let (power, quarter) = (FIRST as usize + above / 4, above as u64 % 4);
    (8 + 2 * quarter + 1) << (power - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_right_to_an_eighth() {
        for nanos in [20_000_u64, 123_456, 1_000_000, 7_777_777, 1_234_567_890, 30_000_000_000] {
            let latency = Latency::default();
            (0..9).for_each(|_| latency.record(Duration::from_nanos(nanos)));
            assert_eq!(latency.take_median(), None, "too few");
            (0..2).for_each(|_| latency.record(Duration::from_nanos(nanos)));
            (0..5).for_each(|_| latency.record(Duration::from_nanos(nanos / 2)));
            (0..5).for_each(|_| latency.record(Duration::from_secs(50)));
            let median = latency.take_median().map_or(0, |median| median.as_nanos() as u64);
            assert!(median.abs_diff(nanos) <= nanos / 8, "{median} for {nanos}");
            assert_eq!(latency.take_median(), None, "taken");
        }
        // No time is outside.
        let latency = Latency::default();
        (0..5).for_each(|_| latency.record(Duration::ZERO));
        (0..6).for_each(|_| latency.record(Duration::MAX));
        assert!(latency.take_median() > Some(Duration::from_secs(60)));
    }
}
