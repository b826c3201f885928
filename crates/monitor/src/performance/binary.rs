use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Accumulator, Change, ExactSum, Rates, ScoreHistogram, UnitSum, is_probability, ratio};

/// How many equal bins between 0 and 1 the calibration curve has.
const CALIBRATION_BINS: usize = 10;

/// Metrics of a binary classifier over (prediction, label) pairs.
///
/// Confusion counts need the predicted class only. Metrics of probabilities leave out rows whose probability is not
/// between 0 and 1, and [`unscored`](Self::unscored) counts them.
///
/// ```
/// use millstream_monitor::performance::{Accumulator, BinaryMetrics, BinaryPrediction};
///
/// let mut metrics = BinaryMetrics::default();
/// for (probability, label) in [(0.9, true), (0.6, false), (0.2, false), (0.4, true)] {
///     metrics.observe(&BinaryPrediction { positive: probability >= 0.5, probability }, label);
/// }
/// assert_eq!(metrics.confusion().rates().accuracy, Some(0.5));
/// assert_eq!(metrics.roc_auc(), Some(0.75));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryMetrics {
    confusion: Confusion,
    scores: ScoreHistogram,
    scored: u64,
    unscored: u64,
    log_loss: ExactSum,
    brier: UnitSum,
    calibration: [CalibrationBin; CALIBRATION_BINS],
}

/// What a binary classifier answered for one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BinaryPrediction {
    /// Whether the predicted class is the positive one.
    pub positive: bool,
    /// The probability of the positive class; any value outside of 0 to 1 if the model gives none.
    #[serde(with = "super::wire::maybe_number")]
    pub probability: f64,
}

/// Pairs by predicted and true class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Predicted positive, and is.
    pub true_positives: u64,
    /// Predicted positive, and is not.
    pub false_positives: u64,
    /// Predicted negative, and is.
    pub true_negatives: u64,
    /// Predicted negative, and is not.
    pub false_negatives: u64,
}

/// One bin of the calibration curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPoint {
    /// Rows in the bin.
    pub rows: u64,
    /// The mean predicted probability.
    pub predicted: f64,
    /// The share of positive labels.
    pub observed: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct CalibrationBin {
    rows: u64,
    positives: u64,
    probability: UnitSum,
}

impl Confusion {
    /// Accuracy, precision, recall, F1 and specificity.
    pub fn rates(&self) -> Rates {
        Rates::new(
            [self.true_positives, self.false_positives, self.true_negatives, self.false_negatives]
                .map(|count| count as f64),
        )
    }

    /// All pairs.
    pub fn pairs(&self) -> u64 {
        [self.false_positives, self.true_negatives, self.false_negatives]
            .iter()
            .fold(self.true_positives, |sum, &count| sum.wrapping_add(count))
    }

    /// Counts a pair.
    pub fn count(&mut self, predicted: bool, label: bool) {
        Change::Add.count(self.cell(predicted, label));
    }

    fn cell(&mut self, predicted: bool, label: bool) -> &mut u64 {
        match (predicted, label) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_positives,
            (false, false) => &mut self.true_negatives,
            (false, true) => &mut self.false_negatives,
        }
    }

    fn merge(&mut self, other: &Self) {
        for (predicted, label) in [(true, true), (true, false), (false, false), (false, true)] {
            let more = *other.clone().cell(predicted, label);
            let count = self.cell(predicted, label);
            *count = count.wrapping_add(more);
        }
    }
}

impl BinaryMetrics {
    /// Pairs by predicted and true class.
    pub fn confusion(&self) -> &Confusion {
        &self.confusion
    }

    /// Outcomes by score.
    pub fn scores(&self) -> &ScoreHistogram {
        &self.scores
    }

    /// Pairs whose probability was not between 0 and 1.
    pub fn unscored(&self) -> u64 {
        self.unscored
    }

    /// The area under the ROC curve from [`ScoreHistogram::roc_auc`].
    pub fn roc_auc(&self) -> Option<f64> {
        self.scores.roc_auc()
    }

    /// Average precision from [`ScoreHistogram::average_precision`].
    pub fn average_precision(&self) -> Option<f64> {
        self.scores.average_precision()
    }

    /// Mean of `-ln(p of the true class)`, in nats. Probabilities are first kept `f64::EPSILON` away from 0 and 1.
    pub fn log_loss(&self) -> Option<f64> {
        ratio(self.log_loss.value(), self.scored as f64)
    }

    /// The Brier score, mean of `(p - label)^2`.
    pub fn brier(&self) -> Option<f64> {
        ratio(self.brier.value(), self.scored as f64)
    }

    /// Mean probability against share of positives, in ten equal bins; empty bins are left out. A probability on an
    /// edge belongs to the lower bin.
    pub fn calibration_curve(&self) -> Vec<CalibrationPoint> {
        let filled = self.calibration.iter().filter(|bin| bin.rows > 0);
        filled
            .map(|bin| CalibrationPoint {
                rows: bin.rows,
                predicted: bin.probability.value() / bin.rows as f64,
                observed: bin.positives as f64 / bin.rows as f64,
            })
            .collect()
    }

    /// Expected calibration error, `sum_b rows_b / rows * |predicted_b - observed_b|` over the calibration curve.
    pub fn expected_calibration_error(&self) -> Option<f64> {
        let curve = self.calibration_curve();
        let distance = curve.iter().map(|bin| bin.rows as f64 * (bin.predicted - bin.observed).abs()).sum();
        ratio(distance, self.scored as f64)
    }

    fn change(&mut self, prediction: &BinaryPrediction, label: bool, change: Change) {
        change.count(self.confusion.cell(prediction.positive, label));
        let p = prediction.probability;
        if !is_probability(p) {
            return change.count(&mut self.unscored);
        }
        change.count(&mut self.scored);
        change.score(&mut self.scores, p, label);
        change.sum(&mut self.log_loss, log_loss_term(if label { p } else { 1.0 - p }));
        change.unit_sum(&mut self.brier, (p - f64::from(u8::from(label))).powi(2));
        let bin = &mut self.calibration[calibration_bin(p)];
        change.count(&mut bin.rows);
        change.unit_sum(&mut bin.probability, p);
        if label {
            change.count(&mut bin.positives);
        }
    }
}

impl Accumulator for BinaryMetrics {
    type Prediction = BinaryPrediction;
    type Label = bool;

    fn observe(&mut self, prediction: &BinaryPrediction, label: bool) {
        self.change(prediction, label, Change::Add);
    }

    fn forget(&mut self, prediction: &BinaryPrediction, label: bool) {
        self.change(prediction, label, Change::Remove);
    }

    fn merge(&mut self, other: &Self) {
        self.confusion.merge(&other.confusion);
        self.scores.merge(&other.scores);
        self.scored = self.scored.wrapping_add(other.scored);
        self.unscored = self.unscored.wrapping_add(other.unscored);
        self.log_loss.merge(&other.log_loss);
        self.brier.merge(other.brier);
        for (bin, more) in self.calibration.iter_mut().zip(&other.calibration) {
            bin.rows = bin.rows.wrapping_add(more.rows);
            bin.positives = bin.positives.wrapping_add(more.positives);
            bin.probability.merge(more.probability);
        }
    }

    fn compare(a: bool, b: bool) -> Ordering {
        a.cmp(&b)
    }
}

/// `-ln(p)`, with `p` kept away from 0 and 1 by one `f64::EPSILON`.
pub(super) fn log_loss_term(p: f64) -> f64 {
    -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

fn calibration_bin(p: f64) -> usize {
    let width = 1.0 / CALIBRATION_BINS as f64;
    (1..CALIBRATION_BINS).take_while(|&edge| p > edge as f64 * width).count()
}
