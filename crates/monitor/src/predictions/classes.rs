//! Predictions of one of several classes: which classes there are, and what rows say.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Schema},
};

use super::{
    PerformanceSpec, Task,
    columns::{PredictionColumns, is_text},
    outcome::Truth,
};
use crate::{performance::MulticlassPrediction, values};

/// Classes of a task: each has counts of its own in every window and segment, and a probability in every prediction that waits.
const MOST_CLASSES: usize = 64;

/// What was predicted of a row.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Yes or no, or a number, and the probability of a yes.
    Number { said: f64, probability: f64 },
    /// A class.
    Class(MulticlassPrediction),
}

/// The classes of the task, none where it has no such.
pub(super) fn classes(spec: &PerformanceSpec, schema: &Schema, mistakes: &mut Vec<String>) -> Arc<[String]> {
    let PerformanceSpec { prediction, probabilities, classes, .. } = spec;
    if spec.task != Task::Multiclass {
        if !probabilities.is_empty() || !classes.is_empty() {
            mistakes.push("`classes` and `probabilities` are of `task: multiclass`".to_owned());
        }
        return Arc::default();
    }
    for (key, given) in [
        ("positive", spec.positive.is_some()),
        ("probability", spec.probability.is_some()),
        ("threshold", spec.threshold.is_some()),
    ] {
        if given {
            mistakes
                .push(format!("`{key}` is of `task: binary`; `probabilities` has a column for each class"));
        }
    }
    let named: Vec<String> = match probabilities.is_empty() {
        true => classes.clone(),
        false => probabilities.keys().cloned().collect(),
    };
    if !probabilities.is_empty() && !classes.is_empty() {
        mistakes.push("leave out `classes`: they are those of `probabilities`".to_owned());
    }
    if named.is_empty() {
        mistakes.push(
            "name the column of each class under `probabilities`, or the `classes` that the `prediction` has"
                .to_owned(),
        );
    } else if !(2..=MOST_CLASSES).contains(&named.len()) {
        mistakes.push(format!("there are from 2 to {MOST_CLASSES} classes, not {}", named.len()));
    }
    if named.iter().collect::<BTreeSet<_>>().len() < named.len() {
        mistakes.push("a class is named twice".to_owned());
    }
    if !named.is_empty() && probabilities.is_empty() && prediction.is_none() {
        mistakes.push("name the column of the `prediction`".to_owned());
    }
    let found = |name: &String| Some((name.clone(), schema.field_with_name(name).ok()?.data_type().clone()));
    if let Some((name, data_type)) = prediction.as_ref().and_then(found)
        && !is_text(&data_type)
        && !data_type.is_integer()
    {
        mistakes.push(format!("column `{name}` of type {data_type} has no classes"));
    }
    for (name, data_type) in probabilities.values().filter_map(found) {
        if !data_type.is_numeric() {
            mistakes.push(format!("column `{name}` of type {data_type} has no probabilities"));
        }
    }
    named.into()
}

/// The place of the class that a label is.
pub(super) fn class_of(classes: &[String], truth: &Truth) -> Option<u32> {
    place_of(classes, &truth.class())
}

/// The place of the class of this name.
pub(super) fn place_of(classes: &[String], name: &str) -> Option<u32> {
    (0..).zip(classes).find(|(_, class)| *class == name).map(|(place, _)| place)
}

impl PredictionColumns {
    /// What was predicted in each row.
    pub(super) fn said(&self, columns: &[ArrayRef], rows: usize) -> Vec<Option<Said>> {
        if self.task == Task::Multiclass {
            return self.read_classes(columns, rows).into_iter().map(|said| said.map(Said::Class)).collect();
        }
        let number = |(said, probability)| Said::Number { said, probability };
        self.read(columns, rows).into_iter().map(|said| said.map(number)).collect()
    }

    /// The class that was predicted in each row, which is the likeliest where no column has it, and the probability of each class. A
    /// class that is none of the task's has a place beyond them.
    pub(super) fn read_classes(
        &self,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Vec<Option<MulticlassPrediction>> {
        let number =
            |place: &usize| -> Option<ArrayRef> { cast(columns.get(*place)?, &DataType::Float64).ok() };
        let probabilities: Vec<Option<ArrayRef>> = self.probabilities.iter().map(number).collect();
        let value = |array: &Option<ArrayRef>, row: usize| {
            let array = array.as_ref()?.as_primitive::<Float64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let predicted = self.prediction.and_then(|place| columns.get(place)).map(|array| {
            let mut predicted = vec![None; rows];
            values::labels(array, &mut |row, label| {
                predicted[row] = label.map(|label| place_of(&self.classes, label).unwrap_or(u32::MAX));
            });
            predicted
        });
        let said = |row: usize| {
            let probabilities: Vec<f64> =
                probabilities.iter().map(|array| value(array, row).unwrap_or(f64::NAN)).collect();
            let class = match &predicted {
                Some(predicted) => predicted[row],
                None => likeliest(&probabilities),
            };
            Some(MulticlassPrediction { class: class?, probabilities })
        };
        (0..rows).map(said).collect()
    }
}

/// The place of the greatest probability, the first of several; none if none is a number.
fn likeliest(probabilities: &[f64]) -> Option<u32> {
    let mut best: Option<(u32, f64)> = None;
    for (class, &probability) in (0..).zip(probabilities) {
        if !probability.is_nan() && best.is_none_or(|(_, held)| probability > held) {
            best = Some((class, probability));
        }
    }
    best.map(|(class, _)| class)
}
