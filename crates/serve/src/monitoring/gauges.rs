//! What is known of graphs, as Prometheus metrics.

use std::{collections::BTreeMap, fmt::Write};

use millstream_monitor::{alert::Exposed, report::Report};
use prometheus::{GaugeVec, Opts, Registry};

/// A gauge per column, as of the last pane.
pub(super) struct Gauges {
    drift: GaugeVec,
    threshold: GaugeVec,
    drifted: GaugeVec,
    nulls: GaugeVec,
    unseen: GaugeVec,
    mean: GaugeVec,
    broken: GaugeVec,
    rows: GaugeVec,
    lost: GaugeVec,
    segments: GaugeVec,
}

const COLUMN: [&str; 3] = ["graph", "edge", "column"];

impl Gauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = GaugeVec::new(Opts::new(format!("millstream_monitor_{name}"), help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            drift: gauge("drift", "How far a column lies from its reference", &["graph", "edge", "column", "measure"])?,
            threshold: gauge("drift_threshold", "The drift from which a column has drifted", &COLUMN)?,
            drifted: gauge("drifted", "Whether a column has drifted", &COLUMN)?,
            nulls: gauge("null_ratio", "The share of rows without a value, NaN included", &COLUMN)?,
            unseen: gauge("unseen_ratio", "The share of values that the reference does not have", &COLUMN)?,
            mean: gauge("mean", "The mean of a column", &COLUMN)?,
            broken: gauge("broken_rules", "Rules that a column breaks", &COLUMN)?,
            rows: gauge("rows", "Rows in the window that is compared", &["graph", "edge"])?,
            lost: gauge("lost_rows", "Rows in the window that were not counted", &["graph"])?,
            segments: gauge("segment_drift", "How far a column lies from its reference in a segment", &["graph", "edge", "column", "segment"])?,
        })
    }

    /// Shows these in the place of all that was shown before.
    pub(super) fn show(&self, reports: &BTreeMap<String, Report>) {
        let all = [
            &self.drift, &self.threshold, &self.drifted, &self.nulls, &self.unseen, &self.mean, &self.broken, &self.rows,
            &self.lost, &self.segments,
        ];
        all.into_iter().for_each(GaugeVec::reset);
        for (graph, report) in reports {
            self.lost.with_label_values(&[graph]).set(report.lost as f64);
            for edge in &report.edges {
                let rows = edge.columns.iter().map(|column| column.rows).max().unwrap_or(0);
                self.rows.with_label_values(&[graph, &edge.edge]).set(rows as f64);
                for column in &edge.columns {
                    let labels = [graph.as_str(), &edge.edge, &column.column];
                    let set = |gauge: &GaugeVec, value: f64| gauge.with_label_values(&labels).set(value);
                    for measure in &column.measures {
                        let labels = [labels[0], labels[1], labels[2], &measure.name];
                        self.drift.with_label_values(&labels).set(measure.value);
                    }
                    if let Some(threshold) = column.measures.first().and_then(|measure| measure.threshold) {
                        set(&self.threshold, threshold);
                    }
                    if let Some(drifted) = column.drifted {
                        set(&self.drifted, f64::from(u8::from(drifted)));
                    }
                    if column.rows > 0 {
                        set(&self.nulls, (column.nulls + column.nans) as f64 / column.rows as f64);
                        set(&self.unseen, column.unseen as f64 / column.rows as f64);
                    }
                    if let Some(mean) = column.mean {
                        set(&self.mean, mean);
                    }
                    if !column.quality.is_empty() {
                        set(&self.broken, column.quality.iter().filter(|rule| !rule.ok).count() as f64);
                    }
                    for segment in &column.segments {
                        if let Some(value) = segment.value {
                            let labels = [labels[0], labels[1], labels[2], &segment.segment];
                            self.segments.with_label_values(&labels).set(value);
                        }
                    }
                }
            }
        }
    }
}

/// Writes the alerts as Prometheus shows its own.
pub(super) fn expose(alerts: &[Exposed], text: &mut String) {
    let mut last = "";
    for sample in alerts {
        if sample.name != last {
            let _ = writeln!(text, "# TYPE {} gauge", sample.name);
            last = sample.name;
        }
        let labels: Vec<String> =
            sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        // Writing into a string does not fail.
        let _ = writeln!(text, "{}{{{}}} {}", sample.name, labels.join(","), sample.value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
