//! What is known, as reports have it.

use millstream_monitor::{
    Pane, Reference,
    alert::{Alert, Alerts, Severity as Bad, State},
    compare::{Criterion, compare},
    pane::EdgePane,
    report::{Activation, AlertReport, AlertState, ColumnKind, EdgeReport, Report, Severity},
};

use super::{own, past::PastReferences, together, watched::GraphWatch};

/// What is known of a graph from the counts of a stretch of time.
pub(crate) fn of_window(watch: &GraphWatch, over: &Pane, past: &PastReferences) -> Report {
    static NOTHING: EdgePane = EdgePane::new();
    let edges: Vec<(&str, &EdgePane, Option<&Reference>, Criterion)> = watch
        .edges
        .iter()
        .map(|edge| {
            let pane = over.edges.get(&edge.edge).unwrap_or(&NOTHING);
            (edge.edge.as_str(), pane, past.of(edge), edge.criterion)
        })
        .collect();
    let mut compared: Vec<EdgeReport> = compare(&edges);
    for (report, edge) in compared.iter_mut().zip(&watch.edges) {
        report.elsewhere.clone_from(&edge.elsewhere);
        if let Some((check, reference)) = edge.schema.as_ref().zip(past.of(edge)) {
            report.quality = check.outcomes(reference);
        }
        let Some(pane) = over.edges.get(&edge.edge) else { continue };
        let (reference, missing) = (past.of(edge), past.missing(edge));
        for column in &mut report.columns {
            if column.kind != ColumnKind::Time {
                column.note = missing.map(str::to_owned).or(column.note.take());
            }
            let rule = edge.rules.get(&column.column);
            let sketch = pane.columns.get(&column.column);
            let Some((rule, sketch)) = rule.zip(sketch) else { continue };
            let unseen = reference.and_then(|reference| reference.unseen(&column.column, sketch));
            column.quality = rule.outcomes(sketch, unseen, over.to);
        }
    }
    let mut sources: Vec<&str> =
        watch.edges.iter().filter_map(|edge| Some(past.of(edge)?.source.as_str())).collect();
    sources.dedup();
    Report {
        graph: watch.graph.clone(),
        version: watch.version().to_owned(),
        reference: (!sources.is_empty()).then(|| sources.join(", ")),
        from: over.from,
        to: over.to,
        requests: over.answered(),
        failed: over.failed(),
        lost: over.edges.values().map(|edge| edge.lost).sum::<u64>() + over.requests.lost,
        degraded: over.requests.degraded,
        edges: compared,
        metrics: own::measured(watch, over, &[], &[]),
        multivariate: together::rebuilt(watch, over),
        ..Report::default()
    }
    .counted()
}

/// The alerts that look at a graph, or that have looked at nothing yet.
pub(super) fn alerts_of(alerts: &Alerts, graph: &str) -> Vec<AlertReport> {
    let report = |alert: &Alert| {
        let all: Vec<_> = alerts.series().filter(|series| series.alert.name() == alert.name()).collect();
        let own = || all.iter().filter(|series| series.labels.get("graph").is_none_or(|of| of == graph));
        if own().next().is_none() && !all.is_empty() {
            return None;
        }
        let worst = own().max_by_key(|series| match series.state {
            State::Inactive => 0,
            State::Pending => 1,
            State::Waiting => 2,
            State::Active => 3,
        });
        let history = alerts.history(alert.name());
        let fired = history.filter(|(labels, _)| labels.get("graph").is_none_or(|of| of == graph));
        Some(AlertReport {
            name: alert.name().to_owned(),
            severity: match alert.severity() {
                Bad::Low => Severity::Low,
                Bad::Medium => Severity::Medium,
                Bad::High => Severity::High,
            },
            state: match worst.map(|series| series.state) {
                None | Some(State::Inactive) => AlertState::Inactive,
                Some(State::Pending) => AlertState::Pending,
                Some(State::Active | State::Waiting) => AlertState::Firing,
            },
            since: worst.filter(|series| series.state != State::Inactive).map(|series| series.since),
            activations: fired
                .map(|(_, activation)| Activation {
                    at: activation.started,
                    cleared: activation.ended.map(|(at, _)| at),
                    value: Some(activation.value),
                })
                .collect(),
            ..AlertReport::default()
        })
    };
    alerts.alerts().filter_map(report).collect()
}
