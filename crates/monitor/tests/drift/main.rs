//! Drift kernels against scipy, numpy, Evidently, NannyML and MLRun's formulas.
//!
//! Distances agree to 1e-9 and p-values to 1e-7, both relative to the value where it is above 1 and absolute below it for
//! distances, always relative for p-values down to 1e-300.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod alarms;
mod generated;
mod kernels;
mod profiles;
mod scipy;

use std::collections::BTreeMap;

use millstream_monitor::drift::{Bins, Frozen, Measure};
use serde_json::Value;

const DISTANCE: f64 = 1e-9;

const P_VALUE: f64 = 1e-7;

fn oracle(name: &str) -> Value {
    let path = format!("{}/tests/oracles/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Compares one value with that of an entry, and says whether the entry has it.
#[track_caller]
fn same(got: f64, entry: &Value, key: &str) -> bool {
    let Some(wanted) = entry[key].as_f64() else { return false };
    near(got, wanted, DISTANCE * wanted.abs().max(1.0), key);
    true
}

#[track_caller]
fn same_p(got: f64, entry: &Value, key: &str) -> bool {
    let Some(wanted) = entry[key].as_f64() else { return false };
    near(got, wanted, (P_VALUE * wanted).max(1e-300), key);
    true
}

#[track_caller]
fn near(got: f64, wanted: f64, tolerance: f64, what: &str) {
    assert!(
        (got - wanted).abs() <= tolerance,
        "{what}: {got:e} is not {wanted:e}, by {:e}",
        (got - wanted).abs()
    );
}

/// The generator of the fixtures' script.
struct Uniforms(u64);

impl Uniforms {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn value(&mut self, kind: &str) -> f64 {
        match kind {
            "uniform" => self.next(),
            "eighths" => (self.next() * 100.0).floor() / 8.0,
            "bell" => self.next() + self.next() + self.next() + self.next() - 2.0,
            "few" => (self.next() * 8.0).floor(),
            "skewed" => {
                let x = self.next();
                x * x * x * 1000.0
            }
            "coin" => (self.next() * 2.0).floor(),
            "tiny" => self.next() * 1e-6,
            "constant" => self.next() * 0.0 + 3.0,
            other => panic!("the fixtures' script makes no sample `{other}`"),
        }
    }

    fn sample(seed: u64, kind: &str, size: usize, scale: f64, shift: f64) -> Vec<f64> {
        let mut uniforms = Self(seed);
        (0..4).for_each(|_| _ = uniforms.next());
        (0..size).map(|_| uniforms.value(kind) * scale + shift).collect()
    }
}

/// The two samples of an entry.
fn pair(entry: &Value) -> (Vec<f64>, Vec<f64>) {
    let (kind, seed) = (entry["kind"].as_str().unwrap(), entry["seed"].as_u64().unwrap());
    let size = |key: &str| entry[key].as_u64().unwrap() as usize;
    let number = |key: &str| entry[key].as_f64().unwrap();
    (
        Uniforms::sample(seed, kind, size("n"), 1.0, 0.0),
        Uniforms::sample(seed + 1, kind, size("m"), number("scale"), number("shift")),
    )
}

fn q10(reference: &[f64]) -> Frozen {
    Frozen::new(Bins::quantiles(reference, 10).unwrap(), reference).unwrap()
}

fn by_category(values: &[f64]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(value.to_bits()).or_default() += 1);
    counts
}

const MEASURES: [Measure; 7] = [
    Measure::Psi,
    Measure::Kl,
    Measure::JsDivergence,
    Measure::JsDistance,
    Measure::JsDistanceBase2,
    Measure::Hellinger,
    Measure::Tvd,
];
