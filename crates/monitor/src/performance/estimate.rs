use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    Calibrator, Confusion, ExpectedConfusion, Rates, estimate_live::expected_roc_auc, is_probability, roc_auc,
};

/// Estimates the performance of a binary classifier without labels, from how its scores were calibrated in a
/// reference that has labels (confidence-based performance estimation, CBPE).
///
/// A row of calibrated probability `p` counts as `p` of a positive and `1 - p` of a negative. The estimate holds as
/// long as the share of positives at a given score stays as it was in the reference: it sees drift of the inputs,
/// not of the concept.
///
/// Alerts compare with the mean plus and minus three standard deviations of the metric realised in chunks of the
/// reference.
///
/// ```
/// use millstream_monitor::performance::{BinaryEstimator, LabelledScore, ScoredRow};
///
/// let row = |i: u32| ScoredRow { score: f64::from(i % 10) / 10.0, predicted: i % 10 >= 5 };
/// let reference: Vec<_> =
///     (0..1000).map(|i| LabelledScore { row: row(i), label: i % 10 + i / 100 >= 9 }).collect();
/// let estimator = BinaryEstimator::fit(&reference, 100)?;
///
/// let later: Vec<_> = (0..200).map(row).collect();
/// let chunks = estimator.estimate(&later);
/// assert_eq!(chunks.len(), 2);
/// assert!(chunks[0].metrics.accuracy.unwrap() > 0.5);
/// # Ok::<(), millstream_monitor::performance::EstimateError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BinaryEstimator {
    calibrator: Calibrator,
    chunk_size: usize,
    bounds: PerMetric<Option<Bounds>>,
}

/// What a binary classifier answered for one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredRow {
    /// The raw score, from 0 to 1.
    pub score: f64,
    /// Whether the predicted class is the positive one.
    pub predicted: bool,
}

/// A row of the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledScore {
    /// What the classifier answered.
    pub row: ScoredRow,
    /// Whether the row is positive.
    pub label: bool,
}

/// One value for each metric that is estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerMetric<T> {
    /// Area under the ROC curve.
    pub roc_auc: T,
    /// F1.
    pub f1: T,
    /// Precision.
    pub precision: T,
    /// Recall.
    pub recall: T,
    /// Specificity.
    pub specificity: T,
    /// Accuracy.
    pub accuracy: T,
}

/// The values of a metric that are usual.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The least usual value, 0 or more.
    pub lower: f64,
    /// The greatest usual value, 1 or less.
    pub upper: f64,
}

/// The estimate for one chunk of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkEstimate {
    /// Which rows, by index. The last chunk may be shorter than the others.
    pub rows: Range<usize>,
    /// The estimated metrics; none where the divisor is zero.
    pub metrics: PerMetric<Option<f64>>,
    /// Which metrics are outside of their bounds.
    pub alerts: PerMetric<bool>,
}

/// Why an estimator cannot be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EstimateError {
    /// The reference has no rows.
    #[error("the reference has no rows: give rows whose labels are known")]
    EmptyReference,
    /// Chunks of no rows.
    #[error("`chunk_size` is 0: give the number of rows in a chunk")]
    EmptyChunks,
    /// A score of the reference is no number, or infinite.
    #[error("row {row} of the reference has a score that is not finite: leave it out")]
    NotFinite {
        /// The index of the row.
        row: usize,
    },
    /// A row of a reference of several classes has another number of scores than the first one, or a class beyond
    /// them.
    #[error(
        "row {row} of the reference does not fit its {classes} classes: give one score per class, and classes below {classes}"
    )]
    UnknownClass {
        /// The index of the row.
        row: usize,
        /// How many classes the first row has.
        classes: usize,
    },
}

impl BinaryEstimator {
    /// Fits a calibrator, if the scores need one, and bounds from chunks of `chunk_size` rows in the order given.
    pub fn fit(reference: &[LabelledScore], chunk_size: usize) -> Result<Self, EstimateError> {
        if reference.is_empty() {
            return Err(EstimateError::EmptyReference);
        }
        if chunk_size == 0 {
            return Err(EstimateError::EmptyChunks);
        }
        if let Some(row) = reference.iter().position(|labelled| !labelled.row.score.is_finite()) {
            return Err(EstimateError::NotFinite { row });
        }
        let rows: Vec<_> = reference.iter().map(|labelled| (labelled.row.score, labelled.label)).collect();
        let realised: Vec<_> = reference.chunks(chunk_size).map(realised).collect();
        Ok(Self { calibrator: Calibrator::fit(&rows), chunk_size, bounds: Bounds::of_metrics(&realised) })
    }

    /// What turns scores into probabilities.
    pub fn calibrator(&self) -> &Calibrator {
        &self.calibrator
    }

    /// The usual values of each metric; none if no chunk of the reference has both classes.
    pub fn bounds(&self) -> &PerMetric<Option<Bounds>> {
        &self.bounds
    }

    /// Estimates chunk by chunk, in the order given. Rows whose probability is not between 0 and 1 are left out of
    /// their chunk.
    pub fn estimate(&self, rows: &[ScoredRow]) -> Vec<ChunkEstimate> {
        let chunks = rows.chunks(self.chunk_size.max(1)).enumerate();
        chunks.map(|(index, chunk)| self.estimate_chunk(index * self.chunk_size, chunk)).collect()
    }

    fn estimate_chunk(&self, start: usize, chunk: &[ScoredRow]) -> ChunkEstimate {
        let mut confusion = ExpectedConfusion::default();
        let mut ranked = Vec::with_capacity(chunk.len());
        for row in chunk {
            let calibrated = self.calibrator.calibrate(row.score);
            if is_probability(calibrated) {
                confusion.add(row.predicted, calibrated);
                ranked.push((row.score, calibrated));
            }
        }
        let metrics = PerMetric::new(ranked_roc_auc(ranked), confusion.rates());
        ChunkEstimate { rows: start..start + chunk.len(), metrics, alerts: self.bounds.alerts(metrics) }
    }
}

impl<T: Copy> PerMetric<T> {
    /// Applies a function to each value.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> PerMetric<U> {
        PerMetric {
            roc_auc: f(self.roc_auc),
            f1: f(self.f1),
            precision: f(self.precision),
            recall: f(self.recall),
            specificity: f(self.specificity),
            accuracy: f(self.accuracy),
        }
    }

    /// Values with the names of their metrics.
    pub fn named(self) -> [(&'static str, T); 6] {
        [
            ("roc_auc", self.roc_auc),
            ("f1", self.f1),
            ("precision", self.precision),
            ("recall", self.recall),
            ("specificity", self.specificity),
            ("accuracy", self.accuracy),
        ]
    }
}

impl PerMetric<Option<f64>> {
    pub(super) fn new(roc_auc: Option<f64>, rates: Rates) -> Self {
        let Rates { accuracy, precision, recall, f1, specificity } = rates;
        Self { roc_auc, f1, precision, recall, specificity, accuracy }
    }
}

impl PerMetric<Option<Bounds>> {
    /// Which values are outside of their bounds.
    pub fn alerts(&self, metrics: PerMetric<Option<f64>>) -> PerMetric<bool> {
        let outside = |bounds: Option<Bounds>, value: Option<f64>| {
            bounds.zip(value).is_some_and(|(bounds, value)| !bounds.contain(value))
        };
        PerMetric {
            roc_auc: outside(self.roc_auc, metrics.roc_auc),
            f1: outside(self.f1, metrics.f1),
            precision: outside(self.precision, metrics.precision),
            recall: outside(self.recall, metrics.recall),
            specificity: outside(self.specificity, metrics.specificity),
            accuracy: outside(self.accuracy, metrics.accuracy),
        }
    }
}

impl Bounds {
    /// Mean plus and minus three standard deviations (of the population), kept within 0 and 1; none without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let width = 3.0 * variance.sqrt();
        Some(Self { lower: (mean - width).max(0.0), upper: (mean + width).min(1.0) })
    }

    /// Whether a value is usual.
    pub fn contain(&self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }

    pub(super) fn of_metrics(realised: &[PerMetric<Option<f64>>]) -> PerMetric<Option<Self>> {
        let bounds =
            |value: fn(&PerMetric<Option<f64>>) -> Option<f64>| Self::of(realised.iter().filter_map(value));
        PerMetric {
            roc_auc: bounds(|metrics| metrics.roc_auc),
            f1: bounds(|metrics| metrics.f1),
            precision: bounds(|metrics| metrics.precision),
            recall: bounds(|metrics| metrics.recall),
            specificity: bounds(|metrics| metrics.specificity),
            accuracy: bounds(|metrics| metrics.accuracy),
        }
    }
}

/// The expected area under the ROC curve of (raw score, calibrated probability) rows. Ties of scores are one group.
pub(super) fn ranked_roc_auc(mut rows: Vec<(f64, f64)>) -> Option<f64> {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let groups = rows.chunk_by(|a, b| a.0 == b.0).map(|ties| {
        let positives: f64 = ties.iter().map(|row| row.1).sum();
        (positives, (ties.len() as f64 - positives).max(0.0))
    });
    expected_roc_auc(groups)
}

/// The metrics of a chunk of the reference. Ranking, F1, precision and recall say nothing where all labels, or all
/// predicted classes, are the same.
fn realised(chunk: &[LabelledScore]) -> PerMetric<Option<f64>> {
    let mut confusion = Confusion::default();
    for &LabelledScore { row, label } in chunk {
        confusion.count(row.predicted, label);
    }
    let varied = |value: fn(&LabelledScore) -> bool| chunk.iter().any(value) && !chunk.iter().all(value);
    let telling = varied(|labelled| labelled.label) && varied(|labelled| labelled.row.predicted);
    let rates = confusion.rates();
    let scores: Vec<_> = chunk.iter().map(|labelled| (labelled.row.score, labelled.label)).collect();
    PerMetric {
        roc_auc: roc_auc(&scores),
        f1: rates.f1.filter(|_| telling),
        precision: rates.precision.filter(|_| telling),
        recall: rates.recall.filter(|_| telling),
        specificity: rates.specificity,
        accuracy: rates.accuracy,
    }
}
