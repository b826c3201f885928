//! The monitoring report of a graph: one value, as JSON for programs and as one HTML page for people.
//!
//! A [`Report`] is plain data that somebody has computed already: nothing here counts, compares or decides. It can be
//! written to a file, read back and rendered later, by another process. All times are microseconds since 1970 in UTC,
//! all durations are microseconds, and all shares lie between 0 and 1.
//!
//! In JSON, enums are in snake case, and a number that is not finite is `null`; read back, it is NaN, or nothing where
//! the field is optional. Any field may be missing, and unknown fields are ignored, so that reports of other versions
//! can be read.
//!
//! The page needs no network, no font and no other file. Its content security policy lets nothing run or load except
//! the page's own style and script, and whatever comes from outside (names, categories, texts) is escaped. Everything
//! can be seen without the script, which only sorts, filters, opens cards and changes the theme.

mod alerts;
mod axis;
mod categories;
mod chart;
mod column;
mod columns;
mod format;
mod histogram;
mod markup;
mod number;
mod own;
mod page;
mod performance;
mod together;
mod traffic;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// What was observed of one graph in one stretch of time.
///
/// ```
/// use millstream_monitor::report::{ColumnReport, EdgeReport, Report};
///
/// let age = ColumnReport { column: "age".into(), rows: 1_000, drifted: Some(true), ..ColumnReport::default() };
/// let report = Report {
///     project: "bank".into(),
///     graph: "score".into(),
///     edges: vec![EdgeReport { edge: "enrich -> model".into(), columns: vec![age], ..EdgeReport::default() }],
///     ..Report::default()
/// }
/// .counted();
/// assert_eq!(report.summary(), "1 of 1 column drifted: age.");
/// assert!(report.to_html().contains("<title>bank / score: monitoring report</title>"));
/// let again: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
/// assert_eq!(again, report);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The project that the graph belongs to.
    pub project: String,
    /// The name of the graph.
    pub graph: String,
    /// The version of the graph that was served.
    pub version: String,
    /// What the live data are compared with, in words: a training set, a model's statistics. `None`: nothing.
    pub reference: Option<String>,
    /// The start of the window, included.
    pub from: i64,
    /// The end of the window, excluded.
    pub to: i64,
    /// When the report was made.
    pub made: i64,
    /// Requests that ended in the window.
    pub requests: u64,
    /// Requests among them that ended in an error.
    pub failed: u64,
    /// Observations that taps dropped because their queue was full: the report does not know these.
    pub lost: u64,
    /// Requests that were answered with less than the graph describes, such as by a fallback.
    pub degraded: u64,
    /// Latency and throughput, by bucket of time, ascending.
    pub latency: Vec<LatencyPoint>,
    /// The edges that were tapped.
    pub edges: Vec<EdgeReport>,
    /// The model's performance over time.
    pub performance: Vec<MetricSeries>,
    /// Metrics of the project's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<OwnMetric>,
    /// What watches the model's errors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detectors: Vec<DetectorReport>,
    /// The edges whose columns are watched together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub multivariate: Vec<MultivariateReport>,
    /// The alerts that are defined on the graph.
    pub alerts: Vec<AlertReport>,
    /// How many columns drifted. See [`Report::counted`].
    pub drifted_columns: u64,
    /// How many columns were observed. See [`Report::counted`].
    pub columns_total: u64,
}

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

/// The columns of one edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeReport {
    /// The name of the edge.
    pub edge: String,
    /// Its columns.
    pub columns: Vec<ColumnReport>,
    /// Rules on its columns together.
    pub quality: Vec<RuleOutcome>,
}

/// Whether the values of a column have an order and a distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Numbers.
    #[default]
    Numeric,
    /// Names of a finite set.
    Categorical,
    /// Times, whose least and greatest are in microseconds since 1970 UTC.
    Time,
}

/// What was observed of one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnReport {
    /// The name of the column.
    pub column: String,
    /// What its values are.
    pub kind: ColumnKind,
    /// Values that were observed, nulls included.
    pub rows: u64,
    /// Values that were null.
    pub nulls: u64,
    /// Values that were NaN.
    pub nans: u64,
    /// Values that were an infinity.
    pub infinities: u64,
    /// Values that the reference does not have: unknown categories.
    pub unseen: u64,
    /// About how many different values there were.
    pub distinct: Option<u64>,
    /// The mean of the finite values.
    pub mean: Option<f64>,
    /// Their standard deviation.
    pub std: Option<f64>,
    /// The smallest finite value.
    pub min: Option<f64>,
    /// The largest finite value.
    pub max: Option<f64>,
    /// Quantiles, ascending.
    pub quantiles: Vec<Quantile>,
    /// How the values of the reference are distributed.
    pub reference: Option<Shape>,
    /// How the values of the window are distributed.
    pub live: Shape,
    /// How far the two are apart. The first measure leads: lists are sorted by it, and `series` is its history.
    pub measures: Vec<Measure>,
    /// The verdict; `None` when there is no reference, or too few rows to say. `note` says which.
    pub drifted: Option<bool>,
    /// A remark on the verdict, in words.
    pub note: Option<String>,
    /// The leading measure over time, ascending; it may begin before the window.
    pub series: Vec<Point>,
    /// Rules on the quality of the data.
    pub quality: Vec<RuleOutcome>,
    /// The leading measure by segment.
    pub segments: Vec<SegmentReport>,
    /// The bins or categories whose shares changed most, the largest change first.
    pub shifted: Vec<ShiftedBin>,
}

/// How the values of a column are distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A histogram: `edges` ascend and are one more than `counts`.
    Numeric {
        /// The borders of the bins. A bin has its lower border, not its upper one.
        #[serde(with = "number::list")]
        edges: Vec<f64>,
        /// Values in each bin.
        counts: Vec<u64>,
        /// Values below the first border.
        below: u64,
        /// Values at or above the last border.
        above: u64,
    },
    /// Frequencies.
    Categorical {
        /// Categories with the rows that have them.
        counts: Vec<(String, u64)>,
        /// Rows of all other categories together.
        other: u64,
    },
}

impl Default for Shape {
    /// A histogram of nothing.
    fn default() -> Self {
        Self::Numeric { edges: Vec::new(), counts: Vec::new(), below: 0, above: 0 }
    }
}

/// The value that a share of all values lies below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantile {
    /// The share, from 0 to 1.
    #[serde(with = "number")]
    pub at: f64,
    /// The value.
    #[serde(with = "number")]
    pub value: f64,
}

/// One distance between the reference and the live data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measure {
    /// The name, such as `psi`.
    pub name: String,
    /// The distance.
    #[serde(with = "number")]
    pub value: f64,
    /// The distance beyond which the column counts as drifted.
    pub threshold: Option<f64>,
    /// How likely a distance at least as large is without drift.
    pub p_value: Option<f64>,
    /// Whether this measure says that the column drifted.
    pub drifted: bool,
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

/// How one rule on the quality of a column came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleOutcome {
    /// The rule, in words.
    pub rule: String,
    /// Values that break it.
    pub broken: u64,
    /// Values that it was asked of.
    pub checked: u64,
    /// Whether that is tolerated.
    pub ok: bool,
}

/// The leading measure among the rows of one segment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentReport {
    /// The segment, such as `region = north`.
    pub segment: String,
    /// Its rows.
    pub rows: u64,
    /// The leading measure; `None` when there are too few rows.
    pub value: Option<f64>,
    /// The verdict; `None` when there are too few rows.
    pub drifted: Option<bool>,
}

/// A bin or a category whose share of all rows changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShiftedBin {
    /// The bin as an interval, or the category.
    pub bin: String,
    /// Its share of the reference.
    #[serde(with = "number")]
    pub reference: f64,
    /// Its share of the live rows.
    #[serde(with = "number")]
    pub live: f64,
}

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

/// How badly the principal components of the reference rebuild the rows of an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MultivariateReport {
    /// The name of the edge.
    pub edge: String,
    /// The columns that are watched together.
    pub columns: Vec<String>,
    /// How many components are kept of them.
    pub components: u64,
    /// The share of the reference's variance that these hold.
    pub explained: Option<f64>,
    /// Rows of the window.
    pub rows: u64,
    /// Rows among those that came whose error overflows.
    pub skipped: u64,
    /// The mean error of the rows, in standard deviations of the reference.
    pub error: Option<f64>,
    /// A mean below this is not as expected of so many rows.
    pub lower: Option<f64>,
    /// A mean above this is not as expected of so many rows.
    pub upper: Option<f64>,
    /// The verdict; `None` when there are too few rows to say.
    pub drifted: Option<bool>,
    /// The mean error pane by pane, ascending; it may begin before the window.
    pub series: Vec<Point>,
}

/// How much an alert matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To know of.
    #[default]
    Low,
    /// To look at soon.
    Medium,
    /// To look at now.
    High,
}

/// Where an alert stands when the report is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Its condition does not hold.
    #[default]
    Inactive,
    /// Its condition holds, but not yet for as long as is asked.
    Pending,
    /// It has been raised and not cleared.
    Firing,
}

/// One alert and its history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertReport {
    /// The name of the alert.
    pub name: String,
    /// How much it matters.
    pub severity: Severity,
    /// Where it stands.
    pub state: AlertState,
    /// What it says, in words.
    pub summary: String,
    /// Since when it is in its state.
    pub since: Option<i64>,
    /// When it fired, ascending.
    pub activations: Vec<Activation>,
}

/// One time that an alert fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activation {
    /// When it began to fire.
    pub at: i64,
    /// When it stopped; `None`: it has not.
    pub cleared: Option<i64>,
    /// The value that made it fire.
    pub value: Option<f64>,
}

impl Report {
    /// The report as one HTML page, which is well-formed XML too.
    ///
    /// Its size is bounded: long lists are cut, and the page says so in words.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// The report as indented JSON.
    ///
    /// # Errors
    /// None that a `Report` can cause: the signature is that of the JSON writer.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// Sets `columns_total` and `drifted_columns` to what the edges have.
    ///
    /// Who lists only some of the columns sets the two by hand instead.
    pub fn counted(mut self) -> Self {
        let columns = || self.edges.iter().flat_map(|edge| &edge.columns);
        let (total, drifted) = (columns().count(), columns().filter(|c| c.drifted == Some(true)).count());
        self.columns_total = total as u64;
        self.drifted_columns = drifted as u64;
        self
    }

    /// The outcome in one sentence: `3 of 12 columns drifted: income, age, region.`
    ///
    /// At most five names, the largest drift first.
    pub fn summary(&self) -> String {
        let verdict = columns::Verdict::of(self);
        let names = verdict.names.iter().map(|name| format::clipped(name, format::NAME));
        let mut names: Vec<_> = names.map(|name| name.to_string()).collect();
        names.extend(verdict.more());
        match names.is_empty() {
            true => format!("{}.", verdict.says),
            false => format!("{}: {}.", verdict.says, names.join(", ")),
        }
    }
}
