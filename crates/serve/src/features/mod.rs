//! Feature sets over HTTP: rows in, rows out, and erasing.

mod routes;
mod service;

use std::sync::Arc;

use millstream_featurestore::FeatureSets;
use millstream_graph::SchemaError;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::wire::DecodeLimits;
pub(crate) use routes::{admin_routes, body, routes, wrong_method};
pub(crate) use service::{Bodies, FeatureService, receipt_text, unread};

/// Rows that were written into feature sets, by what became of them.
#[derive(Clone)]
pub(crate) struct FeatureRows {
    counts: IntCounterVec,
}

impl FeatureRows {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "millstream_feature_rows_total",
            "Rows that were written into feature sets, by what became of them",
        );
        let counts = IntCounterVec::new(opts, &["set", "outcome"])?;
        registry.register(Box::new(counts.clone()))?;
        Ok(Self { counts })
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
            let (counts, name) = (rows.counts.clone(), name.clone());
            writable.count_into(move |outcome, rows| {
                counts.with_label_values(&[name.as_str(), outcome]).inc_by(rows);
            });
        }
        FeatureService::new(set, limits).map(Arc::new).map_err(|error| (name, error))
    };
    sets.iter().map(service).collect()
}
