use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Accumulator, Change, ExactSum, Number, ratio};

/// What outcomes of predictions add up to in one measure, such as money: whatever was predicted, and in whichever order they come.
///
/// Values that are infinite or no number are left out.
///
/// ```
/// use millstream_monitor::performance::{Accumulator, MeasureMetrics, Number};
///
/// let mut revenue = MeasureMetrics::default();
/// for value in [12.5, 0.1, -2.5] {
///     revenue.observe(&(), Number(value));
/// }
/// revenue.forget(&(), Number(0.1));
/// assert_eq!((revenue.sum(), revenue.mean(), revenue.count()), (Some(10.0), Some(5.0), 2));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasureMetrics {
    count: u64,
    sum: ExactSum,
}

impl MeasureMetrics {
    /// Outcomes counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, rounded once; none without any, and none that an `f64` cannot hold.
    pub fn sum(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum.value()).filter(|sum| sum.is_finite())
    }

    /// Their mean.
    pub fn mean(&self) -> Option<f64> {
        ratio(self.sum.value(), self.count as f64)
    }

    fn change(&mut self, value: f64, change: Change) {
        if value.is_finite() {
            change.count(&mut self.count);
            change.sum(&mut self.sum, value);
        }
    }
}

impl Accumulator for MeasureMetrics {
    /// Outcomes are summed whatever was predicted.
    type Prediction = ();
    type Label = Number;

    fn observe(&mut self, (): &(), value: Number) {
        self.change(value.0, Change::Add);
    }

    fn forget(&mut self, (): &(), value: Number) {
        self.change(value.0, Change::Remove);
    }

    fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum.merge(&other.sum);
    }

    fn compare(a: Number, b: Number) -> Ordering {
        a.0.total_cmp(&b.0)
    }
}
