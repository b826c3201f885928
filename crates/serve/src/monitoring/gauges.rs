//! What is known of graphs, as Prometheus metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use millstream_monitor::{
    alert::Alerts,
    record::Counts,
    report::{ColumnReport, DetectorState, Report, RuleOutcome},
};
use prometheus::{GaugeVec, Opts, Registry};

use super::samples::ALL_COLUMNS;

/// A gauge per column, as of the last pane.
pub(super) struct Gauges {
    families: BTreeMap<&'static str, Family>,
}

/// Gauges of one name, and the labels under which one is shown.
struct Family {
    gauge: GaugeVec,
    shown: Mutex<BTreeSet<Vec<String>>>,
}

const COLUMN: &[&str] = &["graph", "edge", "column"];
const DETECTOR: &[&str] = &["graph", "edge", "detector"];
/// Each gauge, what it tells, and its labels.
const FAMILIES: [(&str, &str, &[&str]); 18] = [
    ("drift", "How far a column lies from its reference", &["graph", "edge", "column", "measure"]),
    ("drift_threshold", "The drift from which a column has drifted", COLUMN),
    ("drifted", "Whether a column has drifted", COLUMN),
    ("null_ratio", "The share of rows without a value, NaN included", COLUMN),
    ("unseen_ratio", "The share of values that the reference does not have", COLUMN),
    ("mean", "The mean of a column", COLUMN),
    ("broken_rules", "Rules that a column breaks", COLUMN),
    ("rows", "Rows in the window that is compared", &["graph", "edge"]),
    ("lost_rows", "Rows and requests in the window that were not counted", &["graph"]),
    (
        "segment_drift",
        "How far a column lies from its reference in a segment",
        &["graph", "edge", "column", "segment"],
    ),
    ("concept_drift", "Whether a detector of changed errors fired in the last pane", DETECTOR),
    ("concept_warning", "Whether a detector of changed errors warns, or fired in the last pane", DETECTOR),
    ("concept_drifts", "How often a detector of changed errors has fired", DETECTOR),
    ("custom", "A metric of the project's own", &["graph", "edge", "metric"]),
    ("reconstruction_error", "How badly the reference rebuilds rows", &["graph", "edge"]),
    ("reconstruction_limit", "The error that is not as expected any more", &["graph", "edge", "limit"]),
    ("multivariate_drift", "Whether columns have drifted together", &["graph", "edge"]),
    (
        "recorded",
        "Rows and requests of the request log since the server started, by what became of them",
        &["graph", "outcome"],
    ),
];

impl Gauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |(name, help, labels): (&'static str, &str, &[&str])| {
            let gauge = GaugeVec::new(Opts::new(format!("millstream_monitor_{name}"), help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok((name, Family { gauge, shown: Mutex::default() }))
        };
        Ok(Self { families: FAMILIES.into_iter().map(family).collect::<Result<_, prometheus::Error>>()? })
    }

    /// Shows these in the place of all that was shown before.
    pub(super) fn show(&self, reports: &BTreeMap<String, Report>, recorded: &BTreeMap<String, Counts>) {
        let mut values = Values::default();
        for (graph, report) in reports {
            values.report(graph, report);
        }
        for (graph, counts) in recorded {
            let outcomes = [
                ("written", counts.rows_written),
                ("dropped", counts.rows_dropped),
                ("lost", counts.rows_lost),
                ("requests_dropped", counts.runs_dropped),
                ("requests_evicted", counts.runs_evicted),
                ("requests_abandoned", counts.runs_abandoned),
                ("write_failures", counts.write_failures),
            ];
            for (outcome, count) in outcomes {
                values.set("recorded", &[graph, outcome], count as f64);
            }
        }
        for (name, family) in &self.families {
            family.show(values.0.remove(name).unwrap_or_default());
        }
    }
}

impl Family {
    /// What stays is set, what is new comes, and only then what is no more goes: nobody who looks meanwhile misses a series.
    fn show(&self, values: BTreeMap<Vec<String>, f64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, value) in &values {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            self.gauge.with_label_values(&labels).set(*value);
        }
        for gone in shown.iter().filter(|labels| !values.contains_key(*labels)) {
            let labels: Vec<&str> = gone.iter().map(String::as_str).collect();
            // It was shown.
            let _ = self.gauge.remove_label_values(&labels);
        }
        *shown = values.into_keys().collect();
    }
}

/// Values by gauge and labels.
#[derive(Default)]
struct Values(BTreeMap<&'static str, BTreeMap<Vec<String>, f64>>);

impl Values {
    fn set(&mut self, name: &'static str, labels: &[&str], value: f64) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.0.entry(name).or_default().insert(labels, value);
    }

    fn report(&mut self, graph: &str, report: &Report) {
        self.set("lost_rows", &[graph], report.lost as f64);
        for metric in &report.metrics {
            if let Some(value) = metric.value {
                self.set("custom", &[graph, &metric.edge, &metric.name], value);
            }
        }
        for of in &report.multivariate {
            let mut set = |name: &'static str, labels: &[&str], value: Option<f64>| {
                value.into_iter().for_each(|value| self.set(name, labels, value));
            };
            set("reconstruction_error", &[graph, &of.edge], of.error);
            set("reconstruction_limit", &[graph, &of.edge, "lower"], of.lower);
            set("reconstruction_limit", &[graph, &of.edge, "upper"], of.upper);
            let drifted = of.drifted.map(|drifted| f64::from(u8::from(drifted)));
            set("multivariate_drift", &[graph, &of.edge], drifted);
        }
        for detector in &report.detectors {
            let labels: [&str; 3] = [graph, &detector.edge, &detector.detector];
            let told = |is: bool| f64::from(u8::from(is));
            self.set("concept_drift", &labels, told(detector.state == DetectorState::Drift));
            if detector.warns {
                self.set("concept_warning", &labels, told(detector.state != DetectorState::Stable));
            }
            self.set("concept_drifts", &labels, detector.drifts as f64);
        }
        for edge in &report.edges {
            self.set("rows", &[graph, &edge.edge], edge.rows as f64);
            self.rules(&[graph, &edge.edge, ALL_COLUMNS], &edge.quality);
            for column in &edge.columns {
                self.column([graph, &edge.edge, &column.column], column);
            }
        }
    }

    fn rules(&mut self, labels: &[&str; 3], rules: &[RuleOutcome]) {
        if !rules.is_empty() {
            let broken = rules.iter().filter(|rule| !rule.ok).count();
            self.set("broken_rules", labels, broken as f64);
        }
    }

    fn column(&mut self, labels: [&str; 3], column: &ColumnReport) {
        let [graph, edge, name] = labels;
        for measure in &column.measures {
            self.set("drift", &[graph, edge, name, &measure.name], measure.value);
        }
        if let Some(threshold) = column.measures.first().and_then(|measure| measure.threshold) {
            self.set("drift_threshold", &labels, threshold);
        }
        if let Some(drifted) = column.drifted {
            self.set("drifted", &labels, f64::from(u8::from(drifted)));
        }
        if column.rows > 0 {
            self.set("null_ratio", &labels, (column.nulls + column.nans) as f64 / column.rows as f64);
        }
        let values = column.rows.saturating_sub(column.nulls);
        if values > 0 {
            self.set("unseen_ratio", &labels, column.unseen as f64 / values as f64);
        }
        if let Some(mean) = column.mean {
            self.set("mean", &labels, mean);
        }
        self.rules(&labels, &column.quality);
        for segment in &column.segments {
            if let Some(value) = segment.value {
                self.set("segment_drift", &[graph, edge, name, &segment.segment], value);
            }
        }
    }
}

/// The alerts as Prometheus shows its own.
pub(super) fn exposed(alerts: &Alerts) -> String {
    let (mut text, mut last) = (String::new(), "");
    for sample in &alerts.exposed() {
        if sample.name != last {
            let _ = writeln!(text, "# TYPE {} gauge", sample.name);
            last = sample.name;
        }
        let labels: Vec<String> =
            sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        // Writing into a string does not fail.
        let _ = writeln!(text, "{}{{{}}} {}", sample.name, labels.join(","), sample.value);
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
