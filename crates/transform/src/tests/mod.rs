//! What the steps do, by the settings of a spec file, and properties that hold for all of them.

mod canary;
mod columns;
mod cost;
mod encode;
mod expressions;
mod impute;
mod map;
mod planted;
mod properties;
mod quorum;
mod routing;
mod validate;

use std::sync::Arc;

use arrow::array::RecordBatch;
use expect_test::Expect;
use millstream_graph::Step;
use serde_json::Value;

use crate::testing::report;

/// The step of a kind, or what is wrong with its settings.
fn step(kind: &str, settings: &Value) -> Result<Arc<dyn Step>, String> {
    let kinds = crate::kinds();
    let kind = kinds.iter().find(|known| known.name() == kind).expect("a kind of this crate");
    kind.build(settings)
        .map_err(|error| format!("settings {:?}: {}\n", error.path, error.problems.join("\n")))
}

/// What a step of these settings does with a batch.
fn told(kind: &str, settings: &Value, batch: &RecordBatch) -> String {
    match step(kind, settings) {
        Ok(step) => report(step.as_ref(), batch),
        Err(problem) => problem,
    }
}

#[test]
fn every_setting_is_documented_for_editors() {
    for kind in crate::kinds() {
        let mut generator = schemars::SchemaGenerator::default();
        let own = kind.schema(&mut generator);
        let mut all: Vec<(String, Value)> =
            vec![(kind.name().to_owned(), serde_json::to_value(&own).unwrap())];
        all.extend(generator.take_definitions(true));
        for (name, schema) in all {
            let described = schema.get("description").is_some() || schema.get("$ref").is_some();
            assert!(described, "{}: `{name}` has no description", kind.name());
            for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                assert!(
                    property.get("description").is_some(),
                    "{}: `{name}.{key}` has no description",
                    kind.name()
                );
            }
        }
    }
}

fn check(kind: &str, settings: &Value, batch: &RecordBatch, expect: &Expect) {
    expect.assert_eq(&told(kind, settings, batch));
}

/// Several settings on one batch, told one after the other.
fn check_all(kind: &str, settings: &[Value], batch: &RecordBatch, expect: &Expect) {
    let told: Vec<_> =
        settings.iter().map(|settings| format!("{settings}\n{}\n", told(kind, settings, batch))).collect();
    expect.assert_eq(&told.concat());
}
