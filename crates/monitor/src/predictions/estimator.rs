//! What a reference says of predictions, and what is expected of those whose labels have not come.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use millstream_graph::suggest;
use serde::{Deserialize, Serialize};

use super::{
    PerformanceSpec, Task,
    classes::{Said, place_of},
    columns::PredictionColumns,
};
use crate::{
    performance::{
        BinaryEstimator, Bounds, ExpectedMetrics, ExpectedMulticlass, LabelledScore, MulticlassEstimator,
        MulticlassReference, MulticlassRow, PerMetric, ScoredRow,
    },
    values,
};

/// As many chunks as NannyML makes when nothing else is said.
const CHUNKS: usize = 10;

/// Estimates performance before labels come.
pub(super) enum Estimator {
    Binary(BinaryEstimator),
    Multiclass(MulticlassEstimator),
}

/// What is expected of the predictions of a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Estimate {
    Binary(ExpectedMetrics),
    Multiclass(ExpectedMulticlass),
    /// Of a window that no prediction comes to any more: no more is kept of it.
    Closed(PerMetric<Option<f64>>),
}

impl Estimator {
    /// What a reference says of probabilities and labels.
    ///
    /// # Errors
    /// When it does not have them.
    pub(super) fn fit(
        spec: &PerformanceSpec,
        label: &str,
        reference: &[RecordBatch],
    ) -> Result<Self, String> {
        // A reference has no names, times or segments, and may leave it to the threshold what was predicted.
        let mut spec = PerformanceSpec { id: None, time: None, segment: None, ..spec.clone() };
        let predicted =
            |name: &mut String| reference.iter().all(|batch| batch.column_by_name(name).is_some());
        spec.prediction = spec.prediction.take_if(predicted);
        let multiclass = spec.task == Task::Multiclass;
        if multiclass && spec.probabilities.is_empty() {
            return Err("without `probabilities` nothing can be expected".to_owned());
        }
        let (mut binary, mut classes) = (Vec::new(), Vec::new());
        for batch in reference {
            let mut mistakes = Vec::new();
            let columns = PredictionColumns::new(&spec, &batch.schema(), &mut mistakes);
            let columns = columns.ok_or_else(|| mistakes.join("; "))?;
            let names = batch.schema();
            let known = || names.fields().iter().map(|field| field.name().as_str());
            let labels =
                batch.column_by_name(label).ok_or_else(|| suggest::unknown("column", label, known()))?;
            if multiclass {
                classes.extend(multiclass_rows(&columns, batch, labels)?);
            } else {
                binary.extend(binary_rows(&columns, batch, labels)?);
            }
        }
        let size = |rows: usize| rows.div_ceil(CHUNKS).max(1);
        let fitted = if multiclass {
            MulticlassEstimator::fit(&classes, size(classes.len())).map(Self::Multiclass)
        } else {
            BinaryEstimator::fit(&binary, size(binary.len())).map(Self::Binary)
        };
        fitted.map_err(|error| error.to_string())
    }

    /// The usual values of each metric.
    pub(super) fn bounds(&self) -> &PerMetric<Option<Bounds>> {
        match self {
            Self::Binary(estimator) => estimator.bounds(),
            Self::Multiclass(estimator) => estimator.bounds(),
        }
    }

    /// Of no predictions.
    pub(super) fn nothing(&self) -> Estimate {
        match self {
            Self::Binary(_) => Estimate::Binary(ExpectedMetrics::default()),
            Self::Multiclass(_) => Estimate::Multiclass(ExpectedMulticlass::default()),
        }
    }

    /// Counts a prediction.
    pub(super) fn add(&self, said: &Said, estimate: &mut Estimate) {
        match (self, said, estimate) {
            (Self::Binary(estimator), Said::Number { said, probability }, Estimate::Binary(expected)) => {
                expected.add(*probability, *said > 0.5, estimator.calibrator().calibrate(*probability));
            }
            (Self::Multiclass(estimator), Said::Class(said), Estimate::Multiclass(expected)) => {
                let row = MulticlassRow { scores: said.probabilities.clone(), predicted: said.class };
                let calibrated = estimator.probabilities(&row).unwrap_or_default();
                expected.add(&row, &calibrated);
            }
            // Another task has another judge.
            _ => {}
        }
    }
}

impl Estimate {
    pub(super) fn metrics(&self) -> PerMetric<Option<f64>> {
        match self {
            Self::Binary(expected) => expected.metrics(),
            Self::Multiclass(expected) => expected.metrics(),
            Self::Closed(metrics) => *metrics,
        }
    }

    /// No prediction comes to its window any more.
    pub(super) fn close(&mut self) {
        *self = Self::Closed(self.metrics());
    }
}

fn binary_rows(
    columns: &PredictionColumns,
    batch: &RecordBatch,
    labels: &ArrayRef,
) -> Result<Vec<LabelledScore>, String> {
    let labels = cast(labels, &DataType::Float64).map_err(|error| error.to_string())?;
    let labels = labels.as_primitive::<Float64Type>();
    let said = columns.read(batch.columns(), batch.num_rows()).into_iter().enumerate();
    let rows = said.filter_map(|(row, said)| {
        let (predicted, score) = said.filter(|_| labels.is_valid(row))?;
        let label = labels.value(row) > 0.5;
        Some(LabelledScore { row: ScoredRow { score, predicted: predicted > 0.5 }, label })
    });
    Ok(rows.collect())
}

fn multiclass_rows(
    columns: &PredictionColumns,
    batch: &RecordBatch,
    labels: &ArrayRef,
) -> Result<Vec<MulticlassReference>, String> {
    let mut named: Vec<Option<Result<u32, String>>> = vec![None; batch.num_rows()];
    let classes = &columns.classes;
    let unknown = |name: &str| suggest::unknown("class", name, classes.iter().map(String::as_str));
    let read = values::labels(labels, &mut |row, label| {
        named[row] = label.map(|name| place_of(classes, name).ok_or_else(|| unknown(name)));
    });
    if !read {
        return Err(format!("labels of type {} are no classes", labels.data_type()));
    }
    let mut rows = Vec::new();
    for (said, label) in columns.read_classes(batch.columns(), batch.num_rows()).into_iter().zip(named) {
        let (Some(said), Some(label)) = (said, label) else { continue };
        let row = MulticlassRow { scores: said.probabilities, predicted: said.class };
        rows.push(MulticlassReference { row, label: label? });
    }
    Ok(rows)
}
