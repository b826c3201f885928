//! ADWIN: a window that grows while its parts have the same mean, and is cut where they do not.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, DetectorError, Signal};

/// Parameters of ADWIN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdwinSettings {
    /// The significance of a cut, between 0 and 1; 0.002 by default. A smaller one fires less often.
    pub delta: f64,
    /// Tests happen each time that this many values were read; 32 by default.
    pub clock: u64,
    /// Buckets of one size, before the two oldest are merged, at least 2; 5 by default. More cut more exactly and take more
    /// memory.
    pub max_buckets: usize,
    /// The smallest part that is compared, in values; 5 by default.
    pub min_window_length: u64,
    /// Tests begin with a window of more values than this; 10 by default.
    pub grace_period: u64,
}

impl Default for AdwinSettings {
    fn default() -> Self {
        Self { delta: 0.002, clock: 32, max_buckets: 5, min_window_length: 5, grace_period: 10 }
    }
}

/// The window, as an exponential histogram: row `i` holds buckets of `2^i` values, and the last row the oldest values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Adwin {
    pub(super) settings: AdwinSettings,
    /// In each row the oldest bucket is in front. No row is empty, and none has more than `max_buckets`.
    rows: Vec<VecDeque<Bucket>>,
    pub(super) width: u64,
    pub(super) total: f64,
    /// The sum of squared deviations from the mean of the window.
    pub(super) squares: f64,
    ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    total: f64,
    /// The sum of squared deviations from the mean of the bucket.
    squares: f64,
}

/// More rows than any stream can fill; a saved state with more is not one of ours.
const MAX_ROWS: usize = 56;
/// A row of this many buckets is close to keeping the values themselves.
const MAX_BUCKETS: usize = 1000;

impl Adwin {
    pub(super) fn new(settings: AdwinSettings) -> Self {
        Self { settings, rows: Vec::new(), width: 0, total: 0.0, squares: 0.0, ticks: 0 }
    }

    pub(super) fn update(&mut self, value: f64) -> Signal {
        self.insert(value);
        self.ticks = self.ticks.wrapping_add(1);
        if !self.ticks.is_multiple_of(self.settings.clock) || self.width <= self.settings.grace_period {
            return Signal::None;
        }
        let mut signal = Signal::None;
        while self.has_cut() && self.remove_oldest() {
            signal = Signal::Drift;
        }
        signal
    }

    fn insert(&mut self, value: f64) {
        if self.width > 0 {
            let before = self.width as f64;
            let distance = value - self.total / before;
            self.squares += before * distance * distance / (before + 1.0);
        }
        self.width = self.width.saturating_add(1);
        self.total += value;
        self.push(0, Bucket { total: value, squares: 0.0 });
        self.merge();
    }

    fn push(&mut self, row: usize, bucket: Bucket) {
        match self.rows.get_mut(row) {
            Some(buckets) => buckets.push_back(bucket),
            None => self.rows.push(VecDeque::from([bucket])),
        }
    }

    /// Where a row is too long, its two oldest buckets become one of the next row.
    fn merge(&mut self) {
        let mut row = 0;
        while let Some(buckets) = self.rows.get_mut(row) {
            if buckets.len() <= self.settings.max_buckets {
                return;
            }
            let (Some(first), Some(second)) = (buckets.pop_front(), buckets.pop_front()) else { return };
            let n = size(row);
            let distance = first.total / n - second.total / n;
            let squares = first.squares + second.squares + n * n * distance * distance / (n + n);
            self.push(row + 1, Bucket { total: first.total + second.total, squares });
            row += 1;
        }
    }

    /// Whether the window has a place such that the means before and after it differ by more than
    /// `sqrt(2 m v d) + 2/3 m d`, with the window's variance `v`, `d = ln(2 ln(W) / delta)`, and `m` the sum of the
    /// reciprocals of both lengths.
    fn has_cut(&self) -> bool {
        let shortest = self.settings.min_window_length as f64;
        let width = self.width as f64;
        let variance = self.squares / width;
        let d = (2.0 * width.ln() / self.settings.delta).ln();
        let (mut n0, mut total0, mut n1, mut total1) = (0.0, 0.0, width, self.total);
        for (row, bucket) in self.oldest_first() {
            let n = size(row);
            (n0, total0) = (n0 + n, total0 + bucket.total);
            (n1, total1) = (n1 - n, total1 - bucket.total);
            if n1 < shortest {
                return false;
            }
            if n0 < shortest {
                continue;
            }
            // The lengths are counted from the shortest one on: short parts need a larger difference.
            let m = 1.0 / (n0 - shortest + 1.0) + 1.0 / (n1 - shortest + 1.0);
            let bound = (2.0 * m * variance * d).sqrt() + 2.0 / 3.0 * d * m;
            if (total0 / n0 - total1 / n1).abs() > bound {
                return true;
            }
        }
        false
    }

    fn oldest_first(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        let rows = self.rows.iter().enumerate().rev();
        rows.flat_map(|(row, buckets)| buckets.iter().map(move |bucket| (row, bucket)))
    }

    /// False if there is nothing to remove.
    fn remove_oldest(&mut self) -> bool {
        let Some(row) = self.rows.len().checked_sub(1) else { return false };
        let Some(bucket) = self.rows[row].pop_front() else { return false };
        if self.rows[row].is_empty() {
            self.rows.pop();
        }
        let n = size(row);
        self.width = self.width.saturating_sub(1 << row);
        self.total -= bucket.total;
        let rest = self.width as f64;
        if rest > 0.0 {
            let distance = bucket.total / n - self.total / rest;
            self.squares -= bucket.squares + n * rest * distance * distance / (n + rest);
        }
        true
    }

    pub(super) fn check(&self) -> Result<(), DetectorError> {
        let AdwinSettings { delta, clock, max_buckets, min_window_length, .. } = self.settings;
        let check = Check("adwin");
        check.range("delta", delta, delta > 0.0 && delta < 1.0, "between 0 and 1")?;
        check.range("clock", clock as f64, clock > 0, "at least 1")?;
        let fits = (2..=MAX_BUCKETS).contains(&max_buckets);
        check.range("max_buckets", max_buckets as f64, fits, "from 2 to 1000")?;
        check.range("min_window_length", min_window_length as f64, min_window_length > 0, "at least 1")?;

        let short = self.rows.len() <= MAX_ROWS;
        let full = self.rows.iter().all(|row| (1..=max_buckets).contains(&row.len()));
        let fits = short && full && {
            let values = self.rows.iter().enumerate().map(|(row, buckets)| (buckets.len() as u128) << row);
            values.sum::<u128>() == u128::from(self.width)
        };
        let buckets = self.rows.iter().flatten().flat_map(|bucket| [bucket.total, bucket.squares]);
        check.state(fits, buckets.chain([self.total, self.squares]))
    }
}

/// The number of values in a bucket of this row.
fn size(row: usize) -> f64 {
    (1_u64 << row) as f64
}
