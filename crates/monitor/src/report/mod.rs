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
mod data;
mod format;
mod histogram;
mod markup;
mod number;
mod own;
mod page;
mod parts;
mod performance;
mod together;
mod traffic;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::data::{
    Activation, AlertReport, AlertState, ColumnKind, ColumnReport, DetectorReport, DetectorState, EdgeReport,
    LatencyPoint, Measure, MetricSeries, MultivariateReport, OwnMetric, Point, Quantile, RuleOutcome,
    SegmentReport, Severity, Shape, ShiftedBin,
};

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
