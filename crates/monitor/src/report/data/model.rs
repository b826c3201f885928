//! What becomes of predictions: metrics over time, and detectors of changed errors.

use serde::{Deserialize, Serialize};

use super::Point;

/// One metric of a model's performance over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricSeries {
    /// The name, such as `roc_auc`.
    pub name: String,
    /// The segment whose rows it is about; `None`: all rows.
    pub segment: Option<String>,
    /// Computed from labels that arrived, ascending.
    pub realised: Vec<Point>,
    /// Estimated without labels, ascending.
    pub estimated: Vec<Point>,
    /// Values below this are not as expected.
    pub lower: Option<f64>,
    /// Values above this are not as expected.
    pub upper: Option<f64>,
}

/// A metric of the project's own, made of what was counted of an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnMetric {
    /// The edge.
    pub edge: String,
    /// The name that the project gave it.
    pub name: String,
    /// Its value in the window; `None` where it has none.
    pub value: Option<f64>,
    /// Its values in the windows before, ascending.
    pub series: Vec<Point>,
}

/// A detector that watches the errors of predictions, one after another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DetectorReport {
    /// The edge whose predictions they are of.
    pub edge: String,
    /// The detector: `adwin`, and `adwin_2` where there are several.
    pub detector: String,
    /// Where it stands.
    pub state: DetectorState,
    /// Whether it is one that warns before it fires.
    pub warns: bool,
    /// Errors that it was told.
    pub errors: u64,
    /// Errors that mean nothing to it.
    pub ignored: u64,
    /// How often it has fired.
    pub drifts: u64,
    /// How often it has begun to warn.
    pub warnings: u64,
    /// When it fired last.
    pub last_drift: Option<i64>,
    /// How many of the last errors look alike, where it knows.
    pub recent: Option<u64>,
    /// Their mean.
    pub recent_mean: Option<f64>,
}

/// Where a detector stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorState {
    /// Errors look as they did.
    #[default]
    Stable,
    /// They may be changing.
    Warning,
    /// It fired in the last pane.
    Drift,
}
