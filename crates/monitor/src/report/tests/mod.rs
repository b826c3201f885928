//! The page as a document: it is well-formed, says what the report says, and stays small.

mod bounds;
mod colours;
mod contents;
mod generated;
mod json;
mod safety;
mod shapes;

use roxmltree::{Document, Node, ParsingOptions};

use super::*;

const HOUR: i64 = 3_600_000_000;

fn small() -> Report {
    let income = ColumnReport {
        column: "income".into(),
        rows: 1_200,
        nulls: 12,
        nans: 1,
        distinct: Some(640),
        mean: Some(31_250.5),
        std: Some(f64::NAN),
        quantiles: vec![Quantile { at: 0.5, value: 30_000.0 }],
        reference: Some(Shape::Numeric {
            edges: vec![0.0, 20_000.0, 40_000.0],
            counts: vec![700, 300],
            below: 0,
            above: 0,
        }),
        live: Shape::Numeric {
            edges: vec![0.0, 20_000.0, 40_000.0],
            counts: vec![400, 787],
            below: 0,
            above: 0,
        },
        measures: vec![Measure {
            name: "psi".into(),
            value: 0.284,
            threshold: Some(0.1),
            p_value: None,
            drifted: true,
        }],
        drifted: Some(true),
        series: vec![Point { at: 0, value: 0.05 }, Point { at: HOUR, value: 0.284 }],
        quality: vec![RuleOutcome { rule: "at most 5 % null".into(), broken: 12, checked: 1_200, ok: true }],
        segments: vec![SegmentReport {
            segment: "north".into(),
            rows: 600,
            value: Some(0.3),
            drifted: Some(true),
        }],
        shifted: vec![ShiftedBin { bin: "20,000 to 40,000".into(), reference: 0.3, live: 0.663 }],
        ..ColumnReport::default()
    };
    let region = ColumnReport {
        column: "region".into(),
        kind: ColumnKind::Categorical,
        rows: 1_200,
        live: Shape::Categorical { counts: vec![("north".into(), 600), ("south".into(), 590)], other: 10 },
        note: Some("no reference".into()),
        ..ColumnReport::default()
    };
    Report {
        project: "bank".into(),
        graph: "score".into(),
        version: "v1".into(),
        reference: Some("training set".into()),
        to: HOUR,
        made: HOUR,
        requests: 1_200,
        failed: 3,
        latency: vec![LatencyPoint {
            at: 0,
            p50: Some(900.0),
            p99: Some(4_100.0),
            requests: 1_200,
            failed: 3,
        }],
        edges: vec![EdgeReport {
            edge: "enrich -> model".into(),
            columns: vec![region, income],
            ..EdgeReport::default()
        }],
        performance: vec![MetricSeries {
            name: "roc_auc".into(),
            realised: vec![Point { at: 0, value: 0.8 }],
            lower: Some(0.75),
            ..MetricSeries::default()
        }],
        alerts: vec![AlertReport {
            name: "drift".into(),
            severity: Severity::High,
            state: AlertState::Firing,
            summary: "psi of income is 0.284".into(),
            since: Some(HOUR / 2),
            activations: vec![Activation { at: HOUR / 2, cleared: None, value: Some(0.284) }],
        }],
        ..Report::default()
    }
    .counted()
}

/// Parses the page as XML.
fn parsed<T>(html: &str, read: impl FnOnce(&Document<'_>) -> T) -> T {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(html, options).unwrap_or_else(|error| panic!("{error}\n{html}"));
    read(&document)
}

fn named<'a>(document: &'a Document<'_>, tag: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    document.descendants().filter(move |node| node.has_tag_name(("http://www.w3.org/1999/xhtml", tag)))
}

/// All text of a node, without what is within its `<title>`s.
fn text(node: Node<'_, '_>) -> String {
    let parts = node.descendants().filter(|node| node.is_text());
    parts.filter_map(|node| node.text()).collect::<Vec<_>>().concat()
}
