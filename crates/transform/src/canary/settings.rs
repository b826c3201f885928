//! The words of a canary in files.

use std::{collections::BTreeMap, sync::Arc};

use millstream_graph::{
    SchemaError, Step,
    spec::{Kinds, LayerKind},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Canary, Rollback};
use crate::{deal::Keys, nested};

/// A new step that takes a part of this one's rows, and none any more once it is worse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CanarySettings {
    /// The new step: its settings, by its kind.
    step: BTreeMap<String, Value>,
    /// The part of keys that it takes, from 0 to 100.
    percent: f64,
    /// The column whose value decides, or a list of columns: whole numbers, texts or truth values.
    by: Keys,
    /// Another text deals the keys anew.
    #[serde(default)]
    salt: String,
    /// A column that is added, with `champion` or `canary` for who answered.
    #[serde(default)]
    r#as: Option<String>,
    /// When it gets no more rows.
    #[serde(default)]
    rollback: Option<RollbackSettings>,
}

/// When a canary gets no more rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollbackSettings {
    /// How much more of its rows it may fail than the step does of its own: 0.01 is one in a hundred.
    #[serde(default)]
    errors: Option<f64>,
    /// How many times as long as the step it may take, in more than half of the calls that both are given.
    #[serde(default)]
    latency: Option<f64>,
    /// Of the rows that both are given, how many it may answer in another way: 0.2 is one in five.
    #[serde(default)]
    disagreement: Option<f64>,
    /// How far two numbers may be from each other that are the same.
    #[serde(default)]
    tolerance: Option<f64>,
    /// How many of its calls the step is given too, from 0 to 1, where latency or disagreement count. 0.1 by default.
    #[serde(default)]
    compare: Option<f64>,
}

impl RollbackSettings {
    fn rule(&self) -> Result<Rollback, SchemaError> {
        let mut problems = Vec::new();
        let mut check = |name: &str, value: Option<f64>, fits: fn(f64) -> bool, range: &str| {
            if let Some(value) = value.filter(|value| !fits(*value)) {
                problems.push(SchemaError::new(format!("`rollback.{name}` is {value}; it must be {range}")));
            }
        };
        let share = |value: f64| (0.0..=1.0).contains(&value);
        check("errors", self.errors, share, "from 0 to 1");
        check("disagreement", self.disagreement, share, "from 0 to 1");
        check("compare", self.compare, share, "from 0 to 1");
        check("latency", self.latency, |value| value.is_finite() && value > 0.0, "above 0");
        check("tolerance", self.tolerance, |value| value.is_finite() && value >= 0.0, "0 or more");
        if self.errors.or(self.latency).or(self.disagreement).is_none() {
            problems.push(SchemaError::new("`rollback` has none of `errors`, `latency` and `disagreement`"));
        }
        SchemaError::collect(problems)?;
        let usual = Rollback::default();
        Ok(Rollback {
            errors: self.errors,
            latency: self.latency,
            disagreement: self.disagreement,
            tolerance: self.tolerance.unwrap_or(usual.tolerance),
            compare: self.compare.unwrap_or(usual.compare),
        })
    }
}

/// The layer `canary`, whose new steps are of these kinds.
pub fn canary_layer(kinds: Kinds) -> LayerKind {
    LayerKind::new("canary", move |settings: CanarySettings, old: Arc<dyn Step>| {
        let mut problems = Vec::new();
        let mut keep = |error: SchemaError| problems.push(error);
        let new = nested::step(&kinds, &settings.step, "step").map_err(&mut keep).ok();
        let rule = settings.rollback.as_ref().map(RollbackSettings::rule).transpose().map_err(&mut keep).ok();
        SchemaError::collect(problems)?;
        let (Some(new), Some(rule)) = (new, rule) else { return Err(SchemaError::new("it cannot be made")) };
        let mut canary =
            Canary::of(old, new, settings.percent).by(Vec::from(settings.by)).salt(settings.salt);
        canary.name = settings.r#as;
        Ok(Arc::new(canary.rollback(rule.unwrap_or_default())) as Arc<dyn Step>)
    })
}
