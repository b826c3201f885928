//! What a report is made of: plain data, as it stands in the JSON.

mod alerts;
mod columns;
mod model;

use serde::{Deserialize, Serialize};

pub use self::{
    alerts::{Activation, AlertReport, AlertState, Severity},
    columns::{
        ColumnKind, ColumnReport, EdgeReport, Measure, MultivariateReport, Quantile, RuleOutcome,
        SegmentReport, Shape, ShiftedBin,
    },
    model::{DetectorReport, DetectorState, MetricSeries, OwnMetric},
};
use crate::report::number;

/// Latency and throughput of one bucket of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyPoint {
    /// The start of the bucket.
    pub at: i64,
    /// The median latency in microseconds; `None` when nothing was asked.
    pub p50: Option<f64>,
    /// The latency in microseconds that one request in a hundred exceeds.
    pub p99: Option<f64>,
    /// Requests that ended in the bucket.
    pub requests: u64,
    /// Requests among them that ended in an error.
    pub failed: u64,
}

/// A value at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// The time.
    pub at: i64,
    /// The value; a gap when it is not finite.
    #[serde(with = "number")]
    pub value: f64,
}
