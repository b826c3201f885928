use serde::{Deserialize, Serialize};

use super::{
    ExpectedMetrics, MulticlassRow, PerMetric, UnitSum, estimate_multiclass::means, is_probability, ratio,
};

/// The performance of a classifier of several classes that its calibrated probabilities promise, row by row and without labels: of each
/// class against all others, as [`ExpectedMetrics`] has it.
///
/// Metrics other than accuracy are means over the classes; a class for which a metric has no value counts as 0, as for a
/// `MulticlassEstimator`.
///
/// ```
/// use millstream_monitor::performance::{ExpectedMulticlass, MulticlassRow};
///
/// let mut expected = ExpectedMulticlass::default();
/// expected.add(&MulticlassRow { scores: vec![0.7, 0.2, 0.1], predicted: 0 }, &[0.8, 0.1, 0.1]);
/// expected.add(&MulticlassRow { scores: vec![0.1, 0.3, 0.6], predicted: 2 }, &[0.1, 0.3, 0.6]);
/// assert!((expected.metrics().accuracy.unwrap() - 0.7).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedMulticlass {
    classes: Vec<ExpectedMetrics>,
    rows: u64,
    /// The probabilities of the classes that were predicted.
    right: UnitSum,
    invalid: u64,
}

impl ExpectedMulticlass {
    /// Counts a row, and the calibrated probability of each class. One that has another number of classes than those before, or whose
    /// values are no probabilities, is left out.
    pub fn add(&mut self, row: &MulticlassRow, calibrated: &[f64]) {
        let classes = if self.rows == 0 { calibrated.len() } else { self.classes.len() };
        let usable = calibrated.len() == classes
            && row.scores.len() == classes
            && calibrated.iter().all(|&probability| is_probability(probability))
            && row.scores.iter().all(|score| !score.is_nan());
        let Some(&right) = calibrated.get(row.predicted as usize).filter(|_| usable) else {
            self.invalid = self.invalid.wrapping_add(1);
            return;
        };
        self.classes.resize_with(classes, ExpectedMetrics::default);
        self.rows = self.rows.wrapping_add(1);
        self.right.add(right);
        for (class, (expected, (&score, &probability))) in
            self.classes.iter_mut().zip(row.scores.iter().zip(calibrated)).enumerate()
        {
            expected.add(score, row.predicted as usize == class, probability);
        }
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows left out.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// All estimated metrics.
    pub fn metrics(&self) -> PerMetric<Option<f64>> {
        if self.rows == 0 {
            return PerMetric::default();
        }
        let classes: Vec<_> = self.classes.iter().map(ExpectedMetrics::metrics).collect();
        PerMetric { accuracy: ratio(self.right.value(), self.rows as f64), ..means(&classes) }
    }
}
