//! What alerts are told of a report: each number under the name of its metric.

use millstream_monitor::{
    alert::{Alerts, Labels, Sample},
    report::{
        ColumnReport, DetectorReport, DetectorState, MetricSeries, MultivariateReport, Point, Report,
        RuleOutcome,
    },
};
use serde_json::{Value, json};

/// The column under which rules of all columns of an edge are told.
pub(super) const ALL_COLUMNS: &str = "*";

/// Tells alerts what was measured up to `at`.
pub(super) fn observe(alerts: &mut Alerts, report: &Report, at: i64) {
    let mut told = Told { alerts, graph: &report.graph, at };
    if let Some(last) = report.latency.last() {
        let seconds = |micros: Option<f64>| micros.map(|micros| micros / 1e6);
        told.tell("requests", &[], Some(last.requests as f64), None);
        told.tell("error_rate", &[], share(last.failed, last.requests), None);
        told.tell("latency_p50", &[], seconds(last.p50), None);
        told.tell("latency_p99", &[], seconds(last.p99), None);
    }
    told.tell("drifted_columns", &[], Some(report.drifted_columns as f64), None);
    told.tell("lost", &[], Some(report.lost as f64), None);
    report.performance.iter().for_each(|series| told.performance(series));
    report.detectors.iter().for_each(|detector| told.detector(detector));
    report.multivariate.iter().for_each(|of| told.together(of));
    for metric in &report.metrics {
        told.tell(&metric.name, &[("edge", metric.edge.as_str())], metric.value, None);
    }
    for edge in &report.edges {
        edge.columns.iter().for_each(|column| told.column(&edge.edge, column));
        // Those of all columns together.
        told.rules(&[("edge", edge.edge.as_str()), ("column", ALL_COLUMNS)], &edge.quality);
    }
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

struct Told<'t> {
    alerts: &'t mut Alerts,
    graph: &'t str,
    at: i64,
}

impl Told<'_> {
    fn tell(&mut self, metric: &str, labels: &[(&str, &str)], value: Option<f64>, evidence: Option<Value>) {
        let Some(value) = value else { return };
        let mut labels: Labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        labels.insert("graph".to_owned(), self.graph.to_owned());
        self.alerts.observe(&Sample { metric: metric.to_owned(), labels, value, at: self.at, evidence });
    }

    fn performance(&mut self, series: &MetricSeries) {
        let last = |points: &[Point]| points.last().map(|point| point.value);
        let segment = series.segment.as_ref().map(|segment| ("segment", segment.as_str()));
        let labels: Vec<(&str, &str)> = segment.into_iter().collect();
        self.tell(&series.name, &labels, last(&series.realised), None);
        self.tell(&format!("estimated_{}", series.name), &labels, last(&series.estimated), None);
    }

    fn detector(&mut self, detector: &DetectorReport) {
        let labels = [("edge", detector.edge.as_str()), ("detector", detector.detector.as_str())];
        let told = |is: bool| Some(f64::from(u8::from(is)));
        let fired = told(detector.state == DetectorState::Drift);
        self.tell("concept_drift", &labels, fired, Some(json!(detector)));
        if detector.warns {
            self.tell("concept_warning", &labels, told(detector.state != DetectorState::Stable), None);
        }
    }

    fn rules(&mut self, labels: &[(&str, &str)], rules: &[RuleOutcome]) {
        if !rules.is_empty() {
            let broken = rules.iter().filter(|rule| !rule.ok).count();
            self.tell("broken_rules", labels, Some(broken as f64), Some(json!(rules)));
        }
    }

    fn together(&mut self, of: &MultivariateReport) {
        let labels = [("edge", of.edge.as_str())];
        let evidence = || {
            json!({
                "error": of.error,
                "lower": of.lower,
                "upper": of.upper,
                "rows": of.rows,
                "columns": of.columns,
            })
        };
        self.tell("reconstruction_error", &labels, of.error, Some(evidence()));
        let drifted = of.drifted.map(|drifted| f64::from(u8::from(drifted)));
        self.tell("multivariate_drift", &labels, drifted, Some(evidence()));
    }

    fn column(&mut self, edge: &str, column: &ColumnReport) {
        let labels = [("edge", edge), ("column", column.column.as_str())];
        let evidence = || {
            json!({
                "reference": column.reference,
                "live": column.live,
                "shifted": column.shifted,
                "measures": column.measures,
            })
        };
        if let Some(leading) = column.measures.first() {
            self.tell("drift", &labels, Some(leading.value), Some(evidence()));
        }
        if let Some(drifted) = column.drifted {
            self.tell("drifted", &labels, Some(f64::from(u8::from(drifted))), Some(evidence()));
        }
        self.tell("nulls", &labels, share(column.nulls + column.nans, column.rows), None);
        self.tell("unseen", &labels, share(column.unseen, column.rows.saturating_sub(column.nulls)), None);
        self.tell("mean", &labels, column.mean, None);
        self.rules(&labels, &column.quality);
        for segment in &column.segments {
            let labels = [labels[0], labels[1], ("segment", segment.segment.as_str())];
            self.tell("segment_drift", &labels, segment.value, None);
        }
    }
}
