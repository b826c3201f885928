use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many equal bins between 0 and 1 a histogram of scores has.
pub const SCORE_BINS: u16 = 4096;

/// Positive and negative outcomes by score: what a ranking metric needs, in at most [`SCORE_BINS`] bins of two
/// counts.
///
/// Rows of one bin count as ties. Merging adds the counts.
///
/// ```
/// use millstream_monitor::performance::ScoreHistogram;
///
/// let mut scores = ScoreHistogram::default();
/// for (score, positive) in [(0.1, false), (0.4, false), (0.35, true), (0.8, true)] {
///     scores.add(score, positive);
/// }
/// assert_eq!(scores.roc_auc(), Some(0.75));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreHistogram {
    /// Empty bins are absent.
    bins: BTreeMap<u16, Outcomes>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Outcomes {
    positives: u64,
    negatives: u64,
}

impl ScoreHistogram {
    /// Counts one row. A score below 0, or no number, falls into the first bin, one above 1 into the last.
    pub fn add(&mut self, score: f64, positive: bool) {
        self.change(score_bin(score), u64::from(positive), u64::from(!positive));
    }

    /// Takes back one row that was counted.
    pub fn subtract(&mut self, score: f64, positive: bool) {
        let minus_one = u64::MAX; // wraps
        let (positives, negatives) = if positive { (minus_one, 0) } else { (0, minus_one) };
        self.change(score_bin(score), positives, negatives);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (&bin, more) in &other.bins {
            self.change(bin, more.positives, more.negatives);
        }
    }

    /// The area under the ROC curve, `P(score of a positive > score of a negative) + P(equal) / 2`; none without
    /// rows of both classes. It differs from the exact area by at most [`roc_auc_error`](Self::roc_auc_error).
    pub fn roc_auc(&self) -> Option<f64> {
        let (positives, negatives) = self.totals();
        let (mut area, mut above) = (0_u128, 0_u128);
        for bin in self.bins.values().rev() {
            let pairs = u128::from(bin.negatives).saturating_mul(2 * above + u128::from(bin.positives));
            area = area.saturating_add(pairs);
            above += u128::from(bin.positives);
        }
        let pairs = 2.0 * positives as f64 * negatives as f64;
        (pairs > 0.0).then(|| area as f64 / pairs)
    }

    /// How far the area may be from the exact one: half the share of (positive, negative) pairs that share a bin,
    /// `sum_b(p_b n_b) / (2 P N)`. About `1 / (2 * 4096)` for scores that spread evenly.
    pub fn roc_auc_error(&self) -> Option<f64> {
        let (positives, negatives) = self.totals();
        let pairs = 2.0 * positives as f64 * negatives as f64;
        let tied: f64 = self.bins.values().map(|bin| bin.positives as f64 * bin.negatives as f64).sum();
        (pairs > 0.0).then(|| tied / pairs)
    }

    /// Average precision, `sum_n (R_n - R_(n-1)) P_n` over bins from high scores to low; none without positives.
    pub fn average_precision(&self) -> Option<f64> {
        average_precision_of(self.bins.values().rev().map(|bin| (bin.positives, bin.negatives)))
    }

    fn totals(&self) -> (u128, u128) {
        self.bins.values().fold((0, 0), |(positives, negatives), bin| {
            (positives + u128::from(bin.positives), negatives + u128::from(bin.negatives))
        })
    }

    fn change(&mut self, bin: u16, positives: u64, negatives: u64) {
        let held = self.bins.entry(bin).or_default();
        held.positives = held.positives.wrapping_add(positives);
        held.negatives = held.negatives.wrapping_add(negatives);
        if *held == Outcomes::default() {
            self.bins.remove(&bin);
        }
    }
}

/// The exact area under the ROC curve of (score, is positive) rows, ties counted half; none without rows of both
/// classes. Rows whose score is no number are left out.
///
/// ```
/// use millstream_monitor::performance::roc_auc;
///
/// assert_eq!(roc_auc(&[(0.2, false), (0.2, true)]), Some(0.5));
/// assert_eq!(roc_auc(&[(0.2, true)]), None);
/// ```
pub fn roc_auc(rows: &[(f64, bool)]) -> Option<f64> {
    let (mut area, mut positives, mut negatives) = (0_u128, 0_u128, 0_u128);
    for (more_positives, more_negatives) in tied_outcomes(rows) {
        area += u128::from(more_negatives) * (2 * positives + u128::from(more_positives));
        positives += u128::from(more_positives);
        negatives += u128::from(more_negatives);
    }
    let pairs = 2 * positives * negatives;
    (pairs > 0).then(|| area as f64 / pairs as f64)
}

/// The exact average precision of (score, is positive) rows, `sum_n (R_n - R_(n-1)) P_n` over distinct scores from
/// high to low; none without positives. Rows whose score is no number are left out.
///
/// ```
/// use millstream_monitor::performance::average_precision;
///
/// let rows = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
/// assert!((average_precision(&rows).unwrap() - 0.8333333).abs() < 1e-6);
/// ```
pub fn average_precision(rows: &[(f64, bool)]) -> Option<f64> {
    average_precision_of(tied_outcomes(rows))
}

/// The bin of a score, 0 to `SCORE_BINS - 1`.
pub(super) fn score_bin(score: f64) -> u16 {
    // A cast saturates, and gives 0 for what is no number.
    ((score * f64::from(SCORE_BINS)) as u16).min(SCORE_BINS - 1)
}

/// (Positives, negatives) of each distinct score, from high to low.
fn tied_outcomes(rows: &[(f64, bool)]) -> impl Iterator<Item = (u64, u64)> {
    let mut rows: Vec<_> = rows.iter().copied().filter(|row| !row.0.is_nan()).collect();
    rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut ties: Vec<(u64, u64)> = Vec::new();
    let mut last = None;
    for (score, positive) in rows {
        // Compared as numbers: 0 and -0 are one score.
        if last != Some(score) {
            ties.push((0, 0));
            last = Some(score);
        }
        if let Some((positives, negatives)) = ties.last_mut() {
            *(if positive { positives } else { negatives }) += 1;
        }
    }
    ties.into_iter()
}

fn average_precision_of(outcomes: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    let (mut sum, mut positives, mut rows) = (0.0, 0.0, 0.0);
    for (more_positives, more_negatives) in outcomes {
        let more = more_positives as f64;
        positives += more;
        rows += more + more_negatives as f64;
        sum += more * (positives / rows);
    }
    (positives > 0.0).then(|| sum / positives)
}
