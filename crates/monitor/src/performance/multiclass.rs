use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{Accumulator, Change, ExactSum, ScoreHistogram, binary::log_loss_term, is_probability, ratio};

/// Metrics of a classifier of several classes, numbered from 0, over (prediction, label) pairs.
///
/// ```
/// use millstream_monitor::performance::{Accumulator, Average, MulticlassMetrics, MulticlassPrediction};
///
/// let mut metrics = MulticlassMetrics::new(3);
/// for (class, label) in [(0, 0), (2, 1), (1, 2), (0, 0), (0, 1), (1, 2)] {
///     metrics.observe(&MulticlassPrediction { class, probabilities: Vec::new() }, label);
/// }
/// assert_eq!(metrics.accuracy(), Some(1.0 / 3.0));
/// assert!((metrics.f1(Average::Macro).unwrap() - 0.2666667).abs() < 1e-6);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticlassMetrics {
    classes: u32,
    /// Pairs by (label, predicted class); absent where there are none.
    #[serde(with = "cells")]
    confusion: BTreeMap<(u32, u32), u64>,
    /// One class against all others, of rows with probabilities; absent for a class without any row.
    scores: BTreeMap<u32, ScoreHistogram>,
    scored: u64,
    log_loss: ExactSum,
    unscored: u64,
    invalid: u64,
}

/// What a classifier of several classes answered for one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MulticlassPrediction {
    /// The predicted class.
    pub class: u32,
    /// The probability of each class, or nothing if the model gives none.
    #[serde(with = "super::wire::maybe_numbers")]
    pub probabilities: Vec<f64>,
}

/// How values of single classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Each class that occurs as a label or a prediction counts the same.
    Macro,
    /// Each class counts by its labels.
    Weighted,
}

/// Pairs of one class against all others.
#[derive(Clone, Copy, Default)]
struct ClassCounts {
    hits: f64,
    predicted: f64,
    labels: f64,
}

impl MulticlassMetrics {
    /// No pairs yet, of classes 0 to `classes - 1`.
    pub fn new(classes: u32) -> Self {
        Self {
            classes,
            confusion: BTreeMap::new(),
            scores: BTreeMap::new(),
            scored: 0,
            log_loss: ExactSum::default(),
            unscored: 0,
            invalid: 0,
        }
    }

    /// How many pairs have this label and this predicted class.
    pub fn pairs(&self, label: u32, predicted: u32) -> u64 {
        self.confusion.get(&(label, predicted)).copied().unwrap_or(0)
    }

    /// Pairs without one usable probability for each class; metrics of probabilities leave them out.
    pub fn unscored(&self) -> u64 {
        self.unscored
    }

    /// Pairs whose label or predicted class is none of the classes; all metrics leave them out.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// The share of pairs that agree.
    pub fn accuracy(&self) -> Option<f64> {
        let sum = |agree: fn(u32, u32) -> bool| -> f64 {
            let cells = self.confusion.iter().filter(|((label, predicted), _)| agree(*label, *predicted));
            cells.map(|(_, &pairs)| pairs as f64).sum()
        };
        ratio(sum(|label, predicted| label == predicted), sum(|_, _| true))
    }

    /// Precision, averaged over classes; a class that is never predicted counts as 0.
    pub fn precision(&self, average: Average) -> Option<f64> {
        self.average(average, |class| ratio(class.hits, class.predicted))
    }

    /// Recall, averaged over classes; a class that is never a label counts as 0.
    pub fn recall(&self, average: Average) -> Option<f64> {
        self.average(average, |class| ratio(class.hits, class.labels))
    }

    /// F1, averaged over classes.
    pub fn f1(&self, average: Average) -> Option<f64> {
        self.average(average, |class| ratio(2.0 * class.hits, class.labels + class.predicted))
    }

    /// Specificity, `TN / (TN + FP)` of each class against all others, averaged over classes.
    pub fn specificity(&self, average: Average) -> Option<f64> {
        let all: f64 = self.confusion.values().map(|&pairs| pairs as f64).sum();
        self.average(average, |class| {
            let negatives = all - class.labels;
            ratio(negatives - (class.predicted - class.hits), negatives)
        })
    }

    /// The mean over all classes of the binned area under the ROC curve of one class against all others; none if a
    /// class never occurs as a label, or is the only label.
    pub fn roc_auc(&self) -> Option<f64> {
        let areas = self.scores.values().map(ScoreHistogram::roc_auc);
        let sum: f64 = areas.sum::<Option<f64>>()?;
        (self.scores.len() == self.classes as usize).then(|| ratio(sum, f64::from(self.classes)))?
    }

    /// Mean of `-ln(p of the true class)`, in nats. Probabilities are kept `f64::EPSILON` away from 0 and 1.
    pub fn log_loss(&self) -> Option<f64> {
        ratio(self.log_loss.value(), self.scored as f64)
    }

    fn average(&self, average: Average, value: impl Fn(ClassCounts) -> Option<f64>) -> Option<f64> {
        let mut classes: BTreeMap<u32, ClassCounts> = BTreeMap::new();
        for (&(label, predicted), &pairs) in &self.confusion {
            let pairs = pairs as f64;
            classes.entry(label).or_default().labels += pairs;
            classes.entry(predicted).or_default().predicted += pairs;
            if label == predicted {
                classes.entry(label).or_default().hits += pairs;
            }
        }
        let (mut sum, mut weights) = (0.0, 0.0);
        for class in classes.into_values() {
            let weight = match average {
                Average::Macro => 1.0,
                Average::Weighted => class.labels,
            };
            sum += weight * value(class).unwrap_or(0.0);
            weights += weight;
        }
        ratio(sum, weights)
    }

    fn change(&mut self, prediction: &MulticlassPrediction, label: u32, change: Change) {
        if label >= self.classes || prediction.class >= self.classes {
            return change.count(&mut self.invalid);
        }
        let cell = self.confusion.entry((label, prediction.class)).or_default();
        change.count(cell);
        if *cell == 0 {
            self.confusion.remove(&(label, prediction.class));
        }
        let probabilities = &prediction.probabilities;
        let complete = probabilities.len() == self.classes as usize;
        if !complete || !probabilities.iter().all(|&p| is_probability(p)) {
            return change.count(&mut self.unscored);
        }
        change.count(&mut self.scored);
        change.sum(&mut self.log_loss, log_loss_term(probabilities[label as usize]));
        for (class, &probability) in (0..).zip(probabilities) {
            let scores = self.scores.entry(class).or_default();
            change.score(scores, probability, class == label);
            if *scores == ScoreHistogram::default() {
                self.scores.remove(&class);
            }
        }
    }
}

impl Accumulator for MulticlassMetrics {
    type Prediction = MulticlassPrediction;
    type Label = u32;

    fn observe(&mut self, prediction: &MulticlassPrediction, label: u32) {
        self.change(prediction, label, Change::Add);
    }

    fn forget(&mut self, prediction: &MulticlassPrediction, label: u32) {
        self.change(prediction, label, Change::Remove);
    }

    fn merge(&mut self, other: &Self) {
        self.classes = self.classes.max(other.classes);
        for (&cell, &pairs) in &other.confusion {
            let held = self.confusion.entry(cell).or_default();
            *held = held.wrapping_add(pairs);
        }
        for (&class, scores) in &other.scores {
            self.scores.entry(class).or_default().merge(scores);
        }
        self.scored = self.scored.wrapping_add(other.scored);
        self.log_loss.merge(&other.log_loss);
        self.unscored = self.unscored.wrapping_add(other.unscored);
        self.invalid = self.invalid.wrapping_add(other.invalid);
    }

    fn compare(a: u32, b: u32) -> Ordering {
        a.cmp(&b)
    }
}

/// Cells as (label, predicted class, pairs): a key of two numbers is no key of a JSON object.
mod cells {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Cells = BTreeMap<(u32, u32), u64>;

    pub(super) fn serialize<S: Serializer>(cells: &Cells, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<_> =
            cells.iter().map(|(&(label, predicted), &pairs)| (label, predicted, pairs)).collect();
        rows.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cells, D::Error> {
        let rows = Vec::<(u32, u32, u64)>::deserialize(deserializer)?;
        Ok(rows.into_iter().map(|(label, predicted, pairs)| ((label, predicted), pairs)).collect())
    }
}
