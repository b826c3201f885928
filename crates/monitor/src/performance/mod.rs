//! How well a model does: realised metrics once labels are known, and estimates before.
//!
//! Metrics live in accumulators whose state is integers: merging replicas is addition, and equals one replica that
//! saw all rows to the bit, in any order. What an accumulator [observed](Accumulator::observe) it can
//! [forget](Accumulator::forget), so that a corrected label corrects the windows it counts in.
//!
//! - [`BinaryMetrics`], [`MulticlassMetrics`] and [`RegressionMetrics`] are fed (prediction, label) pairs; [`MeasureMetrics`] sums up
//!   what predictions led to.
//! - [`LabelJoin`] pairs predictions with labels that come late, early, twice or never.
//! - [`BinaryEstimator`] and [`MulticlassEstimator`] estimate performance from calibrated probabilities (CBPE), chunk by
//!   chunk; [`ExpectedMetrics`] and [`ExpectedMulticlass`] do so row by row. [`ExpectedLoss`] takes the errors that an error model predicts.

use std::{cmp::Ordering, fmt::Debug};

use serde::{Deserialize, Serialize};

mod ages;
mod binary;
mod calibration;
mod estimate;
mod estimate_live;
mod estimate_multiclass;
mod exact_sum;
mod expected_multiclass;
mod join_state;
mod labels;
mod measure;
mod multiclass;
mod regression;
mod scores;
mod windows;
mod wire;

pub use binary::{BinaryMetrics, BinaryPrediction, CalibrationPoint, Confusion};
pub use calibration::{Calibrator, Isotonic, needs_calibration};
pub use estimate::{
    BinaryEstimator, Bounds, ChunkEstimate, EstimateError, LabelledScore, PerMetric, ScoredRow,
};
pub use estimate_live::{ExpectedConfusion, ExpectedLoss, ExpectedMetrics};
pub use estimate_multiclass::{MulticlassEstimator, MulticlassReference, MulticlassRow};
pub use exact_sum::{ExactSum, UnitSum};
pub use expected_multiclass::ExpectedMulticlass;
pub use join_state::{JoinConfig, JoinCounts, JoinError, JoinState};
pub use labels::{LabelJoin, LabelReply, PredictReply};
pub use measure::MeasureMetrics;
pub use multiclass::{Average, MulticlassMetrics, MulticlassPrediction};
pub use regression::RegressionMetrics;
pub use scores::{SCORE_BINS, ScoreHistogram, average_precision, roc_auc};
pub use windows::{DELAY_EDGES, DelayHistogram, Segment, Window};
pub use wire::Number;

/// Metrics that are sums over (prediction, label) pairs, and so can forget a pair and be merged.
pub trait Accumulator: Clone + Debug {
    /// What the model answered for one row.
    type Prediction: Clone + Debug;
    /// What turned out to be true.
    type Label: Copy + Debug;

    /// Counts one pair.
    fn observe(&mut self, prediction: &Self::Prediction, label: Self::Label);

    /// Takes back one pair that was counted: the state is then as if it had never been.
    fn forget(&mut self, prediction: &Self::Prediction, label: Self::Label);

    /// Adds all pairs of another accumulator.
    fn merge(&mut self, other: &Self);

    /// A total order of labels: of two for one prediction and one time, the greater one counts.
    fn compare(a: Self::Label, b: Self::Label) -> Ordering;
}

/// Rates of a binary confusion matrix; none where the divisor is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// `(TP + TN) / all`.
    pub accuracy: Option<f64>,
    /// `TP / (TP + FP)`.
    pub precision: Option<f64>,
    /// `TP / (TP + FN)`; also called sensitivity.
    pub recall: Option<f64>,
    /// `2 TP / (2 TP + FP + FN)`.
    pub f1: Option<f64>,
    /// `TN / (TN + FP)`.
    pub specificity: Option<f64>,
}

impl Rates {
    fn new([tp, fp, tn, fn_]: [f64; 4]) -> Self {
        Self {
            accuracy: ratio(tp + tn, tp + fp + tn + fn_),
            precision: ratio(tp, tp + fp),
            recall: ratio(tp, tp + fn_),
            f1: ratio(2.0 * tp, 2.0 * tp + fp + fn_),
            specificity: ratio(tn, tn + fp),
        }
    }
}

/// Whether a pair is counted or taken back: the one place where [`Accumulator::observe`] and `forget` differ.
#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

impl Change {
    fn count(self, count: &mut u64) {
        *count = match self {
            Self::Add => count.wrapping_add(1),
            Self::Remove => count.wrapping_sub(1),
        };
    }

    fn sum(self, sum: &mut ExactSum, term: f64) {
        match self {
            Self::Add => sum.add(term),
            Self::Remove => sum.subtract(term),
        }
    }

    fn unit_sum(self, sum: &mut UnitSum, term: f64) {
        match self {
            Self::Add => sum.add(term),
            Self::Remove => sum.subtract(term),
        }
    }

    fn score(self, scores: &mut ScoreHistogram, score: f64, positive: bool) {
        match self {
            Self::Add => scores.add(score, positive),
            Self::Remove => scores.subtract(score, positive),
        }
    }
}

/// A share or a mean; none of nothing, and none that an `f64` cannot hold.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole).filter(|value| value.is_finite())
}

/// Whether a value is a probability, and not infinite, negative or no number.
fn is_probability(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}
