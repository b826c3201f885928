//! Which columns say what was predicted, and what is read from them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, Schema, TimeUnit},
};
use millstream_graph::suggest;

use super::{PerformanceSpec, Task, classes::classes, inbox::Arrived};
use crate::values;

/// The places of what a prediction is made of.
#[derive(Clone, Debug)]
pub(super) struct PredictionColumns {
    pub(super) task: Task,
    pub(super) prediction: Option<usize>,
    positive: Option<String>,
    probability: Option<usize>,
    threshold: f64,
    /// The classes of the task, and the columns that have their probabilities.
    pub(super) classes: Arc<[String]>,
    pub(super) probabilities: Vec<usize>,
    pub(super) id: Option<usize>,
    pub(super) time: Option<usize>,
    segment: Option<usize>,
}

impl PredictionColumns {
    pub(super) fn new(spec: &PerformanceSpec, schema: &Schema, mistakes: &mut Vec<String>) -> Option<Self> {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let before = mistakes.len();
        let classes = classes(spec, schema, mistakes);
        let mut place = |name: &Option<String>| {
            let name = name.as_ref()?;
            let found = names().position(|known| known == name);
            if found.is_none() {
                mistakes.push(suggest::unknown("column", name, names()));
            }
            found
        };
        let columns = Self {
            task: spec.task,
            prediction: place(&spec.prediction),
            positive: spec.positive.clone(),
            probability: place(&spec.probability),
            threshold: spec.threshold.unwrap_or(0.5),
            classes,
            probabilities: spec
                .probabilities
                .values()
                .filter_map(|name| place(&Some(name.clone())))
                .collect(),
            id: place(&spec.id),
            time: place(&spec.time),
            segment: place(&spec.segment),
        };
        match spec.task {
            Task::Binary if spec.prediction.is_none() && spec.probability.is_none() => {
                mistakes
                    .push("name the column of the `prediction`, of the `probability`, or of both".to_owned());
            }
            Task::Regression if spec.prediction.is_none() => {
                mistakes.push("name the column of the `prediction`".to_owned());
            }
            _ => {}
        }
        if spec.task == Task::Binary
            && let Some(field) = spec.prediction.as_ref().and_then(|name| schema.field_with_name(name).ok())
        {
            let (name, data_type) = (field.name(), field.data_type());
            if spec.positive.is_none() && is_text(data_type) && *data_type != DataType::Boolean {
                mistakes.push(format!("`positive` must say which value of `{name}` is a yes"));
            }
            if spec.positive.is_some() && data_type.is_floating() {
                mistakes.push(format!(
                    "`positive` is of categories and whole numbers; `{name}` is {data_type}, for which `threshold` of `probability` is"
                ));
            }
        }
        (mistakes.len() == before).then_some(columns)
    }

    /// The columns that are needed, and these places among those alone.
    pub(super) fn alone(self) -> (Vec<usize>, Self) {
        let mut kept = Vec::new();
        let mut place = |place: Option<usize>| {
            let place = place?;
            let known = kept.iter().position(|kept| *kept == place);
            Some(known.unwrap_or_else(|| {
                kept.push(place);
                kept.len() - 1
            }))
        };
        let alone = Self {
            prediction: place(self.prediction),
            probability: place(self.probability),
            probabilities: self.probabilities.iter().filter_map(|column| place(Some(*column))).collect(),
            id: place(self.id),
            time: place(self.time),
            segment: place(self.segment),
            ..self
        };
        (kept, alone)
    }

    /// What was predicted in each row: yes or no, or a number, and the probability of a yes.
    pub(super) fn read(&self, columns: &[ArrayRef], rows: usize) -> Vec<Option<(f64, f64)>> {
        let number = |place: Option<usize>| -> Option<ArrayRef> {
            cast(columns.get(place?)?, &DataType::Float64).ok()
        };
        let probability = number(self.probability);
        let value = |array: &Option<ArrayRef>, row: usize| {
            let array = array.as_ref()?.as_primitive::<Float64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let prediction = self.prediction.and_then(|place| columns.get(place));
        let mut said: Vec<Option<f64>> = match prediction {
            Some(array) if self.positive.is_some() || is_text(array.data_type()) => {
                let mut said = vec![None; rows];
                // Of texts it is named, which is seen when the columns are looked up.
                let positive = self.positive.as_deref().unwrap_or("true");
                values::labels(array, &mut |row, label| {
                    said[row] = label.map(|label| f64::from(u8::from(label == positive)));
                });
                said
            }
            Some(_) => {
                let numbers = number(self.prediction);
                (0..rows).map(|row| value(&numbers, row)).collect()
            }
            None => vec![None; rows],
        };
        if self.prediction.is_none() {
            for (row, said) in said.iter_mut().enumerate() {
                *said = value(&probability, row)
                    .map(|probability| f64::from(u8::from(probability >= self.threshold)));
            }
        }
        let probability = |row| value(&probability, row).unwrap_or(f64::NAN);
        said.into_iter().enumerate().map(|(row, said)| Some((said?, probability(row)))).collect()
    }

    /// When each row was predicted: as it says itself, or when it came, which is not after the present.
    pub(super) fn times(&self, arrived: &Arrived, now: i64) -> Vec<Option<i64>> {
        let Some(place) = self.time else { return vec![Some(arrived.at.min(now)); arrived.rows] };
        let Some(times) = arrived.columns.get(place).and_then(micros) else {
            return vec![None; arrived.rows];
        };
        times.as_primitive::<Int64Type>().iter().collect()
    }

    /// What labels call each row.
    pub(super) fn names(&self, arrived: &Arrived) -> Vec<Option<String>> {
        if let Some(column) = self.id.and_then(|place| arrived.columns.get(place)) {
            let mut names = vec![None; arrived.rows];
            values::labels(column, &mut |row, label| names[row] = label.map(str::to_owned));
            return names;
        }
        let request = arrived.request.as_ref().map_or_else(|| arrived.run.to_string(), |id| id.to_string());
        let name = |row| match arrived.brought {
            1 => Some(request.clone()),
            _ => Some(format!("{request}/{}", arrived.origin.place(row)?)),
        };
        (0..arrived.rows).map(name).collect()
    }

    /// The segment of each row, empty where it has none.
    pub(super) fn segments(&self, arrived: &Arrived) -> Vec<String> {
        let mut segments = vec![String::new(); arrived.rows];
        if let Some(column) = self.segment.and_then(|place| arrived.columns.get(place)) {
            values::labels(column, &mut |row, label| segments[row] = label.unwrap_or_default().to_owned());
        }
        segments
    }
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Boolean
            | DataType::Dictionary(..)
    )
}

/// Times as microseconds since 1970 UTC. Text is read as a timestamp.
fn micros(array: &ArrayRef) -> Option<ArrayRef> {
    let stamps = match array.data_type() {
        DataType::Int64 => return Some(Arc::clone(array)),
        _ => cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?,
    };
    cast(&stamps, &DataType::Int64).ok()
}
