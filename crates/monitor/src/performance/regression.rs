use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{
    Accumulator, Change, ExactSum, Number,
    exact_sum::{two_product, two_sum},
    ratio,
};

/// Metrics of a regression model over (prediction, label) pairs, in the unit of the label.
///
/// Pairs with a value, or a difference, that is infinite or no number are left out, and [`invalid`](Self::invalid)
/// counts them. A mean of squares that no `f64` holds is none.
///
/// ```
/// use millstream_monitor::performance::{Accumulator, Number, RegressionMetrics};
///
/// let mut metrics = RegressionMetrics::default();
/// for (prediction, label) in [(2.5, 3.0), (0.0, -0.5), (2.0, 2.0), (8.0, 7.0)] {
///     metrics.observe(&Number(prediction), Number(label));
/// }
/// assert_eq!(metrics.mae(), Some(0.5));
/// assert_eq!(metrics.mse(), Some(0.375));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegressionMetrics {
    pairs: u64,
    invalid: u64,
    absolute: ExactSum,
    squared: ExactSum,
    /// `|error / label|` of labels other than 0.
    relative: ExactSum,
    zero_labels: u64,
    /// `(ln(1 + prediction) - ln(1 + label))^2` of pairs above -1.
    squared_log: ExactSum,
    without_log: u64,
    labels: ExactSum,
    /// Without rounding, because the variance is a small difference of this and the squared mean.
    squared_labels: ExactSum,
}

impl RegressionMetrics {
    /// Pairs counted.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Pairs with a value, or a difference, that is infinite or no number.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Pairs whose label is 0, which [`mape`](Self::mape) leaves out.
    pub fn zero_labels(&self) -> u64 {
        self.zero_labels
    }

    /// Mean absolute error.
    pub fn mae(&self) -> Option<f64> {
        ratio(self.absolute.value(), self.pairs as f64)
    }

    /// Mean squared error.
    pub fn mse(&self) -> Option<f64> {
        ratio(self.squared.value(), self.pairs as f64)
    }

    /// Root of the mean squared error.
    pub fn rmse(&self) -> Option<f64> {
        self.mse().map(f64::sqrt)
    }

    /// Mean of `|error / label|`, as a fraction, over labels other than 0.
    pub fn mape(&self) -> Option<f64> {
        ratio(self.relative.value(), self.pairs.wrapping_sub(self.zero_labels) as f64)
    }

    /// Root of the mean of `(ln(1 + prediction) - ln(1 + label))^2`; none if a value was -1 or less.
    pub fn rmsle(&self) -> Option<f64> {
        if self.without_log != 0 {
            return None;
        }
        ratio(self.squared_log.value(), self.pairs as f64).map(f64::sqrt)
    }

    /// The coefficient of determination, `1 - sum(error^2) / sum((label - mean label)^2)`; none below two pairs. Of
    /// labels that are all equal it is 1 if every prediction is right, else 0.
    pub fn r2(&self) -> Option<f64> {
        if self.pairs < 2 {
            return None;
        }
        let pairs = self.pairs as f64;
        // n^2 variance = n sum(y^2) - sum(y)^2, in pairs of doubles: y^2 is exact, and so is all that cancels.
        let of_squares = multiply(self.squared_labels.pair(), (pairs, 0.0));
        let of_mean = multiply(self.labels.pair(), self.labels.pair());
        let (high, error) = two_sum(of_squares.0, -of_mean.0);
        let spread = high + (error + (of_squares.1 - of_mean.1));
        let squared = self.squared.value();
        if !spread.is_finite() || !squared.is_finite() {
            return None;
        }
        // What the pairs of doubles cannot tell from 0.
        if spread <= of_squares.0 * 2.0_f64.powi(-98) {
            return Some(if squared == 0.0 { 1.0 } else { 0.0 });
        }
        Some(1.0 - squared / (spread / pairs))
    }

    fn change(&mut self, prediction: f64, label: f64, change: Change) {
        let error = prediction - label;
        if !prediction.is_finite() || !label.is_finite() || !error.is_finite() {
            return change.count(&mut self.invalid);
        }
        change.count(&mut self.pairs);
        change.sum(&mut self.absolute, error.abs());
        change.sum(&mut self.squared, error * error);
        if label == 0.0 {
            change.count(&mut self.zero_labels);
        } else {
            change.sum(&mut self.relative, (error / label).abs());
        }
        if prediction > -1.0 && label > -1.0 {
            change.sum(&mut self.squared_log, (prediction.ln_1p() - label.ln_1p()).powi(2));
        } else {
            change.count(&mut self.without_log);
        }
        change.sum(&mut self.labels, label);
        let (square, rest) = two_product(label, label);
        change.sum(&mut self.squared_labels, square);
        change.sum(&mut self.squared_labels, rest);
    }
}

impl Accumulator for RegressionMetrics {
    type Prediction = Number;
    type Label = Number;

    fn observe(&mut self, prediction: &Number, label: Number) {
        self.change(prediction.0, label.0, Change::Add);
    }

    fn forget(&mut self, prediction: &Number, label: Number) {
        self.change(prediction.0, label.0, Change::Remove);
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in [
            (&mut self.pairs, other.pairs),
            (&mut self.invalid, other.invalid),
            (&mut self.zero_labels, other.zero_labels),
            (&mut self.without_log, other.without_log),
        ] {
            *count = count.wrapping_add(more);
        }
        self.absolute.merge(&other.absolute);
        self.squared.merge(&other.squared);
        self.relative.merge(&other.relative);
        self.squared_log.merge(&other.squared_log);
        self.labels.merge(&other.labels);
        self.squared_labels.merge(&other.squared_labels);
    }

    fn compare(a: Number, b: Number) -> Ordering {
        a.0.total_cmp(&b.0)
    }
}

/// A product of two pairs of doubles.
fn multiply(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let (product, error) = two_product(a.0, b.0);
    (product, error + (a.0 * b.1 + a.1 * b.0))
}
