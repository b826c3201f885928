//! Realised and estimated performance against scikit-learn and NannyML, and the join of delayed labels.
//! `oracles/performance.py` makes the expected values.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod calibrated;
mod estimated;
mod exact;
mod join;
mod join_orders;
mod realised;

use millstream_monitor::performance::Accumulator;
use proptest::prelude::*;
use serde_json::Value;

fn oracle(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn whole(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
}

/// Compares relative to the size of the expected value, where that is above 1.
#[track_caller]
fn close(actual: Option<f64>, expected: &Value, tolerance: f64, what: &str) {
    match (actual, expected.as_f64()) {
        (None, None) => assert!(expected.is_null(), "{what}: no such value"),
        (Some(actual), Some(expected)) => {
            let off = (actual - expected).abs() / expected.abs().max(1.0);
            assert!(off <= tolerance, "{what}: {actual} is not {expected}");
        }
        (actual, expected) => panic!("{what}: {actual:?} is not {expected:?}"),
    }
}

fn observed<A: Accumulator>(empty: &A, pairs: &[(A::Prediction, A::Label)]) -> A {
    let mut metrics = empty.clone();
    for (prediction, label) in pairs {
        metrics.observe(prediction, *label);
    }
    metrics
}

fn any_probability() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.0..=1.0, 1 => Just(0.0), 1 => Just(1.0), 1 => any::<f64>()]
}
