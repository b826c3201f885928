use serde::{Deserialize, Serialize};

use super::{
    Bounds, Calibrator, ChunkEstimate, Confusion, EstimateError, ExpectedConfusion, PerMetric,
    estimate::ranked_roc_auc, is_probability, ratio, roc_auc,
};

/// Estimates the performance of a classifier of several classes without labels, as `BinaryEstimator` does of two.
///
/// The scores of each class are calibrated against all other classes, and the probabilities of a row are then
/// divided by their sum. Metrics other than accuracy are means over the classes, each against all others; a class
/// for which a metric has no value counts as 0.
///
/// ```
/// use millstream_monitor::performance::{MulticlassEstimator, MulticlassReference, MulticlassRow};
///
/// let row = |class: u32| {
///     let mut scores = vec![0.1; 3];
///     scores[class as usize] = 0.8;
///     MulticlassRow { scores, predicted: class }
/// };
/// let reference: Vec<_> = (0..300)
///     .map(|i| MulticlassReference { row: row(i % 3), label: if i % 10 == 0 { (i + 1) % 3 } else { i % 3 } })
///     .collect();
/// let estimator = MulticlassEstimator::fit(&reference, 100)?;
/// let chunks = estimator.estimate(&[row(0), row(1), row(2)]);
/// assert!((chunks[0].metrics.accuracy.unwrap() - 0.9).abs() < 0.11);
/// # Ok::<(), millstream_monitor::performance::EstimateError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MulticlassEstimator {
    /// One per class; never empty.
    calibrators: Vec<Calibrator>,
    chunk_size: usize,
    bounds: PerMetric<Option<Bounds>>,
}

/// What a classifier of several classes answered for one row.
#[derive(Debug, Clone, PartialEq)]
pub struct MulticlassRow {
    /// The raw score of each class.
    pub scores: Vec<f64>,
    /// The predicted class, numbered from 0.
    pub predicted: u32,
}

/// A row of the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct MulticlassReference {
    /// What the classifier answered.
    pub row: MulticlassRow,
    /// The class that the row is of.
    pub label: u32,
}

impl MulticlassEstimator {
    /// Fits a calibrator per class, where the scores need one, and bounds from chunks of `chunk_size` rows in the
    /// order given. The first row says how many classes there are.
    pub fn fit(reference: &[MulticlassReference], chunk_size: usize) -> Result<Self, EstimateError> {
        let Some(first) = reference.first() else { return Err(EstimateError::EmptyReference) };
        if chunk_size == 0 {
            return Err(EstimateError::EmptyChunks);
        }
        let classes = first.row.scores.len();
        for (index, MulticlassReference { row, label }) in reference.iter().enumerate() {
            let known = |class: u32| (class as usize) < classes;
            if row.scores.len() != classes || !known(row.predicted) || !known(*label) {
                return Err(EstimateError::UnknownClass { row: index, classes });
            }
            if !row.scores.iter().all(|score| score.is_finite()) {
                return Err(EstimateError::NotFinite { row: index });
            }
        }
        let calibrator = |class| Calibrator::fit(&scores_of(reference, class));
        let realised: Vec<_> = reference.chunks(chunk_size).map(|chunk| realised(chunk, classes)).collect();
        Ok(Self {
            calibrators: (0..classes).map(calibrator).collect(),
            chunk_size,
            bounds: Bounds::of_metrics(&realised),
        })
    }

    /// What turns the scores of each class into probabilities, before rows are divided by their sums.
    pub fn calibrators(&self) -> &[Calibrator] {
        &self.calibrators
    }

    /// The usual values of each metric; none if no chunk of the reference has one.
    pub fn bounds(&self) -> &PerMetric<Option<Bounds>> {
        &self.bounds
    }

    /// Estimates chunk by chunk, in the order given. Rows without one probability per class between 0 and 1, or
    /// with a predicted class beyond them, are left out of their chunk.
    pub fn estimate(&self, rows: &[MulticlassRow]) -> Vec<ChunkEstimate> {
        let chunks = rows.chunks(self.chunk_size.max(1)).enumerate();
        chunks.map(|(index, chunk)| self.estimate_chunk(index * self.chunk_size, chunk)).collect()
    }

    fn estimate_chunk(&self, start: usize, chunk: &[MulticlassRow]) -> ChunkEstimate {
        let usable = |row| Some((row, self.probabilities(row)?));
        let rows: Vec<(&MulticlassRow, Vec<f64>)> = chunk.iter().filter_map(usable).collect();

        let of_class = |class: usize| {
            let mut confusion = ExpectedConfusion::default();
            for (row, probabilities) in &rows {
                confusion.add(row.predicted as usize == class, probabilities[class]);
            }
            let ranked = rows.iter().map(|(row, probabilities)| (row.scores[class], probabilities[class]));
            PerMetric::new(ranked_roc_auc(ranked.collect()), confusion.rates())
        };
        let right: f64 = rows.iter().map(|(row, probabilities)| probabilities[row.predicted as usize]).sum();
        let metrics = if rows.is_empty() {
            PerMetric::default()
        } else {
            let classes: Vec<_> = (0..self.calibrators.len()).map(of_class).collect();
            PerMetric { accuracy: ratio(right, rows.len() as f64), ..means(&classes) }
        };
        ChunkEstimate { rows: start..start + chunk.len(), metrics, alerts: self.bounds.alerts(metrics) }
    }

    /// Calibrated probabilities that add up to 1, all equal if none is above 0. None for a row that cannot be used.
    pub fn probabilities(&self, row: &MulticlassRow) -> Option<Vec<f64>> {
        let classes = self.calibrators.len();
        if row.scores.len() != classes || row.predicted as usize >= classes {
            return None;
        }
        let pairs = self.calibrators.iter().zip(&row.scores);
        let calibrated: Vec<f64> = pairs.map(|(calibrator, &score)| calibrator.calibrate(score)).collect();
        if !calibrated.iter().all(|&probability| is_probability(probability)) {
            return None;
        }
        let sum: f64 = calibrated.iter().sum();
        let share = |probability: f64| if sum > 0.0 { probability / sum } else { 1.0 / classes as f64 };
        Some(calibrated.into_iter().map(share).collect())
    }
}

/// Scores of one class, and whether rows are of it.
fn scores_of(reference: &[MulticlassReference], class: usize) -> Vec<(f64, bool)> {
    reference.iter().map(|labelled| (labelled.row.scores[class], labelled.label as usize == class)).collect()
}

/// The metrics of a chunk of the reference. A chunk of one label, or one predicted class, says nothing of any; one
/// that lacks a class says nothing of the ROC AUC.
fn realised(chunk: &[MulticlassReference], classes: usize) -> PerMetric<Option<f64>> {
    let varied = |value: fn(&MulticlassReference) -> u32| {
        chunk.windows(2).any(|pair| value(&pair[0]) != value(&pair[1]))
    };
    if !varied(|labelled| labelled.label) || !varied(|labelled| labelled.row.predicted) {
        return PerMetric::default();
    }
    let of_class = |class: usize| {
        let mut confusion = Confusion::default();
        for MulticlassReference { row, label } in chunk {
            confusion.count(row.predicted as usize == class, *label as usize == class);
        }
        PerMetric::new(roc_auc(&scores_of(chunk, class)), confusion.rates())
    };
    let per_class: Vec<_> = (0..classes).map(of_class).collect();
    let right = chunk.iter().filter(|labelled| labelled.row.predicted == labelled.label).count();
    let complete = per_class.iter().all(|metrics| metrics.roc_auc.is_some());
    let means = means(&per_class);
    PerMetric {
        roc_auc: means.roc_auc.filter(|_| complete),
        accuracy: ratio(right as f64, chunk.len() as f64),
        ..means
    }
}

/// The mean of each metric over classes, where a class without a value counts as 0.
pub(super) fn means(classes: &[PerMetric<Option<f64>>]) -> PerMetric<Option<f64>> {
    let mean = |value: fn(&PerMetric<Option<f64>>) -> Option<f64>| {
        let sum: f64 = classes.iter().map(|metrics| value(metrics).unwrap_or(0.0)).sum();
        ratio(sum, classes.len() as f64)
    };
    PerMetric {
        roc_auc: mean(|metrics| metrics.roc_auc),
        f1: mean(|metrics| metrics.f1),
        precision: mean(|metrics| metrics.precision),
        recall: mean(|metrics| metrics.recall),
        specificity: mean(|metrics| metrics.specificity),
        accuracy: mean(|metrics| metrics.accuracy),
    }
}
