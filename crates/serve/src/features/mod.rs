//! Feature sets over HTTP: rows in, rows out, and erasing.

mod routes;
mod service;
pub(crate) mod statistics;

use std::sync::Arc;

use millstream_featurestore::{Counted, FeatureSets};
use millstream_graph::SchemaError;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::wire::DecodeLimits;
pub(crate) use routes::{admin_routes, body, routes, wrong_method};
pub(crate) use service::{Bodies, FeatureService, receipt_text, unread};

/// Rows that were written into feature sets: what became of them, which rules they broke, what was set aside.
#[derive(Clone)]
pub(crate) struct FeatureRows {
    rows: IntCounterVec,
    rules: IntCounterVec,
    aside: IntCounterVec,
}

impl FeatureRows {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, label: &str| {
            let counts = IntCounterVec::new(Opts::new(name, help), &["set", label])?;
            registry.register(Box::new(counts.clone()))?;
            Ok::<_, prometheus::Error>(counts)
        };
        Ok(Self {
            rows: family(
                "millstream_feature_rows_total",
                "Rows that were written into feature sets, by what became of them",
                "outcome",
            )?,
            rules: family(
                "millstream_feature_rule_failures_total",
                "Rows that broke a rule of their feature set",
                "rule",
            )?,
            aside: family(
                "millstream_feature_aside_rows_total",
                "Rows and messages that feature sets put aside, and that were lost on the way",
                "outcome",
            )?,
        })
    }

    fn count(&self, set: &str, what: Counted<'_>, rows: u64) {
        let (family, label) = match what {
            Counted::Rows(outcome) => (&self.rows, outcome),
            Counted::Rule(rule) => (&self.rules, rule),
            Counted::Aside(outcome) => (&self.aside, outcome),
            _ => return,
        };
        family.with_label_values(&[set, label]).inc_by(rows);
    }
}

/// One service per set.
///
/// # Errors
/// When a set has columns that JSON cannot carry, with its name.
pub(crate) fn services(
    sets: &FeatureSets,
    limits: DecodeLimits,
    rows: &FeatureRows,
) -> Result<Vec<Arc<FeatureService>>, (String, SchemaError)> {
    let service = |set: &millstream_featurestore::StoredSet| {
        let name = set.set().name().to_owned();
        if let Some(writable) = set.writable() {
            let (counts, name) = (rows.clone(), name.clone());
            writable.count_into(move |what, rows| counts.count(&name, what, rows));
        }
        FeatureService::new(set, limits).map(Arc::new).map_err(|error| (name, error))
    };
    sets.iter().map(service).collect()
}
