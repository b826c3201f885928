//! Windows: against a plain loop over all events, against other engines, and where other engines go wrong.

pub(crate) mod brute;
mod defects;
mod definitions;
mod oracles;
mod states;

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::kernels::cmp::gt,
    datatypes::{DataType, Float64Type, Int64Type, Schema},
};
use millstream_featurestore::{Added, AggregateError, Aggregates, Ledger, Predicate, Version};
use serde_json::Value;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;

/// One event of one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    pub(crate) version: Version,
    pub(crate) amount: Option<f64>,
    pub(crate) units: Option<i64>,
    pub(crate) tier: Option<String>,
}

impl Event {
    pub(crate) fn at(&self) -> i64 {
        self.version.event
    }
}

/// A value of a feature, floats by their bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Feature {
    Null,
    Whole(i64),
    Float(f64),
    Text(String),
}

pub(crate) fn batch(events: &[Event]) -> RecordBatch {
    let amount: ArrayRef = Arc::new(events.iter().map(|event| event.amount).collect::<Float64Array>());
    let units: ArrayRef = Arc::new(events.iter().map(|event| event.units).collect::<Int64Array>());
    let tier: ArrayRef = Arc::new(events.iter().map(|event| event.tier.as_deref()).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([
        ("amount", amount, true),
        ("units", units, true),
        ("tier", tier, true),
    ])
    .expect("columns of one length")
}

fn schema() -> Schema {
    batch(&[]).schema().as_ref().clone()
}

/// Knows the expressions `units > N`, as a compiler of expressions would.
pub(crate) fn compile(text: &str) -> Result<Arc<dyn Predicate>, String> {
    let bound: i64 =
        text.strip_prefix("units > ").and_then(|bound| bound.parse().ok()).ok_or("no such expression")?;
    let keep = move |events: &RecordBatch| -> Result<BooleanArray, Box<dyn std::error::Error + Send + Sync>> {
        let units = events.column_by_name("units").ok_or("no `units`")?;
        Ok(gt(&units.as_primitive::<Int64Type>(), &Int64Array::new_scalar(bound))?)
    };
    Ok(Arc::new(keep))
}

pub(crate) fn aggregates(specs: &Value, lateness: i64) -> Result<Aggregates, AggregateError> {
    let specs: Vec<_> = serde_json::from_value(specs.clone()).expect("specs");
    Aggregates::new(&specs, &schema(), Duration::from_micros(lateness as u64), &compile)
}

/// Adds events in the given order, in batches of at most `size`; answers which were too late.
pub(crate) fn add(of: &Aggregates, ledger: &mut Ledger, events: &[Event], size: usize) -> Vec<Added> {
    let mut added = Vec::new();
    for chunk in events.chunks(size.max(1)) {
        let prepared = of.prepare(&batch(chunk)).expect("the declared columns");
        added.extend(
            chunk.iter().enumerate().map(|(row, event)| ledger.add(of, &prepared, row, event.version)),
        );
    }
    added
}

/// All features of a ledger at a time.
pub(crate) fn read(of: &Aggregates, ledger: &Ledger, at: i64) -> Vec<Feature> {
    let readings = of.read([(ledger, at)]).expect("not too early");
    readings.arrays.iter().map(|array| feature(array.as_ref())).collect()
}

pub(crate) fn feature(array: &dyn Array) -> Feature {
    match array.data_type() {
        _ if array.is_null(0) => Feature::Null,
        DataType::Float64 => Feature::Float(array.as_primitive::<Float64Type>().value(0)),
        DataType::Int64 => Feature::Whole(array.as_primitive::<Int64Type>().value(0)),
        _ => Feature::Text(array.as_string::<i32>().value(0).to_owned()),
    }
}

/// Features whose floats are compared by their bits.
pub(crate) fn bits(features: &[Feature]) -> Vec<Feature> {
    let of = |feature: &Feature| match feature {
        Feature::Float(value) => Feature::Text(format!("{:x}", value.to_bits())),
        other => other.clone(),
    };
    features.iter().map(of).collect()
}
