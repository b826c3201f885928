use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ExactSum, Rates, UnitSum, estimate::PerMetric, is_probability, ratio, scores::score_bin};

/// The performance of a binary classifier that its calibrated probabilities promise (CBPE), row by row and without
/// labels.
///
/// A row costs two additions and at most one new bin of 4096, and replicas merge by addition. The ROC AUC treats
/// scores of one bin as ties; everything else is exact, up to 2^-64 per row.
///
/// ```
/// use millstream_monitor::performance::ExpectedMetrics;
///
/// let mut expected = ExpectedMetrics::default();
/// expected.add(0.9, true, 0.8);
/// expected.add(0.2, false, 0.3);
/// assert!((expected.metrics().accuracy.unwrap() - 0.75).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedMetrics {
    predicted_positive: Expected,
    predicted_negative: Expected,
    /// By raw score; empty bins are absent.
    bins: BTreeMap<u16, Expected>,
    invalid: u64,
}

/// Expected counts of a confusion matrix: sums of probabilities, so seldom whole numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpectedConfusion {
    /// `sum(p)` of rows predicted positive.
    pub true_positives: f64,
    /// `sum(1 - p)` of rows predicted positive.
    pub false_positives: f64,
    /// `sum(1 - p)` of rows predicted negative.
    pub true_negatives: f64,
    /// `sum(p)` of rows predicted negative.
    pub false_negatives: f64,
}

/// The loss of a regression model that an error model expects: a column of estimated absolute errors, one per row.
///
/// ```
/// use millstream_monitor::performance::ExpectedLoss;
///
/// let mut loss = ExpectedLoss::default();
/// loss.add(3.0);
/// loss.add(4.0);
/// assert_eq!(loss.mae(), Some(3.5));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedLoss {
    rows: u64,
    invalid: u64,
    absolute: ExactSum,
    squared: ExactSum,
}

/// Rows and the sum of their calibrated probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Expected {
    rows: u64,
    positives: UnitSum,
}

impl ExpectedMetrics {
    /// Counts a row: the raw score by which rows are ranked, the predicted class, and the calibrated probability of
    /// the positive class. A row whose probability is not between 0 and 1, or whose score is no number, is left
    /// out.
    pub fn add(&mut self, score: f64, predicted: bool, calibrated: f64) {
        if !is_probability(calibrated) || score.is_nan() {
            self.invalid = self.invalid.wrapping_add(1);
            return;
        }
        let class = if predicted { &mut self.predicted_positive } else { &mut self.predicted_negative };
        class.add(calibrated);
        self.bins.entry(score_bin(score)).or_default().add(calibrated);
    }

    /// Adds the rows of another replica.
    pub fn merge(&mut self, other: &Self) {
        self.predicted_positive.merge(&other.predicted_positive);
        self.predicted_negative.merge(&other.predicted_negative);
        for (&bin, more) in &other.bins {
            self.bins.entry(bin).or_default().merge(more);
        }
        self.invalid = self.invalid.wrapping_add(other.invalid);
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.predicted_positive.rows.wrapping_add(self.predicted_negative.rows)
    }

    /// Rows left out.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// The expected confusion matrix.
    pub fn confusion(&self) -> ExpectedConfusion {
        let (positive, negative) = (self.predicted_positive, self.predicted_negative);
        ExpectedConfusion {
            true_positives: positive.positives.value(),
            false_positives: positive.negatives(),
            true_negatives: negative.negatives(),
            false_negatives: negative.positives.value(),
        }
    }

    /// All estimated metrics.
    pub fn metrics(&self) -> PerMetric<Option<f64>> {
        let bins = self.bins.values().rev().map(|bin| (bin.positives.value(), bin.negatives()));
        PerMetric::new(expected_roc_auc(bins), self.confusion().rates())
    }
}

impl ExpectedConfusion {
    /// Accuracy, precision, recall, F1 and specificity.
    pub fn rates(&self) -> Rates {
        Rates::new([self.true_positives, self.false_positives, self.true_negatives, self.false_negatives])
    }

    pub(super) fn add(&mut self, predicted: bool, calibrated: f64) {
        if predicted {
            self.true_positives += calibrated;
            self.false_positives += 1.0 - calibrated;
        } else {
            self.true_negatives += 1.0 - calibrated;
            self.false_negatives += calibrated;
        }
    }
}

impl ExpectedLoss {
    /// Counts the estimated absolute error of one row. What is negative, infinite or no number is left out.
    pub fn add(&mut self, error: f64) {
        let valid = error >= 0.0 && error.is_finite();
        let count = if valid { &mut self.rows } else { &mut self.invalid };
        *count = count.wrapping_add(1);
        if valid {
            self.absolute.add(error);
            self.squared.add(error * error);
        }
    }

    /// Adds the rows of another replica.
    pub fn merge(&mut self, other: &Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.invalid = self.invalid.wrapping_add(other.invalid);
        self.absolute.merge(&other.absolute);
        self.squared.merge(&other.squared);
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows left out.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// The estimated mean absolute error.
    pub fn mae(&self) -> Option<f64> {
        ratio(self.absolute.value(), self.rows as f64)
    }

    /// The estimated root mean squared error, `sqrt(mean(e^2))`. Too low where an error varies around its estimate,
    /// because the square of a mean is at most the mean of squares.
    pub fn rmse(&self) -> Option<f64> {
        ratio(self.squared.value(), self.rows as f64).map(f64::sqrt)
    }
}

impl Expected {
    fn add(&mut self, probability: f64) {
        self.rows = self.rows.wrapping_add(1);
        self.positives.add(probability);
    }

    fn merge(&mut self, other: &Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.positives.merge(other.positives);
    }

    fn negatives(&self) -> f64 {
        (self.rows as f64 - self.positives.value()).max(0.0)
    }
}

/// The area under the ROC curve of groups of (expected positives, expected negatives), from high scores to low. The
/// curve is straight within a group. None if one of the classes is expected to have no rows.
pub(super) fn expected_roc_auc(groups: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut area, mut positives, mut negatives) = (0.0, 0.0, 0.0);
    for (more_positives, more_negatives) in groups {
        area += more_negatives * (positives + more_positives / 2.0);
        positives += more_positives;
        negatives += more_negatives;
    }
    ratio(area, positives * negatives)
}
