//! Takes what taps have counted, pane by pane: keeps it, compares it, and raises alerts.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_graph::suggest;
use millstream_monitor::{
    History, Monitor, Pane, Reference,
    alert::{Alert, Alerts, Labels, Notification, Sample, Severity as Bad, State},
    compare::{Criterion, compare, leading},
    history::{HistoryError, Keep},
    pane::EdgePane,
    predictions::{Judge, LabelCounts},
    record::{Recorder, Writer},
    report::{Activation, AlertReport, AlertState, EdgeReport, LatencyPoint, MetricSeries, Point, Report, Severity},
    sketch::Sketch,
};
use serde_json::json;

use super::{Plan, watched::GraphWatch};

/// What is kept of one graph.
struct Kept {
    history: History,
    /// The leading measure of each column after each pane, the last of them.
    series: BTreeMap<(String, String), VecDeque<Point>>,
    latency: VecDeque<LatencyPoint>,
    /// Monitors of versions before, whose last requests may still run.
    before: Vec<Arc<Monitor>>,
    current: Option<Arc<Monitor>>,
    /// The predictions of edges, and what labels say of them.
    judges: BTreeMap<String, Judge>,
    writer: Option<Writer>,
    recorder: Option<Arc<Recorder>>,
}

/// What is watched of all graphs, over the versions of a project.
pub(crate) struct Keeper {
    project: String,
    folder: Option<PathBuf>,
    keep: Keep,
    window: i64,
    alerts: Alerts,
    turns: u64,
    graphs: BTreeMap<String, Kept>,
}

/// Points of a series that are kept for reports.
const POINTS: usize = 1440;
/// Predictions that wait for labels are written down every so many panes: they are many, and a crash loses those since.
const SAVED_EVERY: u64 = 10;
/// The file of the alerts' state.
const ALERTS: &str = "alerts.state";

impl Keeper {
    /// Opens what was kept before.
    pub(crate) fn new(project: &str, plan: Plan) -> Self {
        let mut alerts = Alerts::new(project, plan.alerts);
        if let Some(folder) = &plan.folder
            && let Ok(saved) = std::fs::read(folder.join(ALERTS))
            && let Err(error) = alerts.restore(&saved)
        {
            tracing::error!(%error, "the state of alerts is not taken up");
        }
        let Plan { folder, keep, window, .. } = plan;
        Self { project: project.to_owned(), folder, keep, window, alerts, turns: 0, graphs: BTreeMap::new() }
    }

    /// Other settings, of a new version. Alerts whose definition stays go on where they were.
    pub(crate) fn change(&mut self, plan: Plan) {
        let saved = self.alerts.save();
        self.alerts = Alerts::new(&self.project, plan.alerts);
        if let Err(error) = self.alerts.restore(&saved) {
            tracing::error!(%error, "alerts begin anew");
        }
        (self.keep, self.window) = (plan.keep, plan.window);
    }

    /// Takes what was counted up to `now`. Answers what is known of each graph then, and whom to tell what.
    pub(crate) fn turn(&mut self, watches: &[Arc<GraphWatch>], now: i64) -> (BTreeMap<String, Report>, Vec<Notification>) {
        let mut reports = BTreeMap::new();
        // The clock first: after a pause, what is observed would be of its future.
        let mut notifications = self.alerts.tick(now);
        for watch in watches {
            let report = self.turn_graph(watch, now);
            self.observe(&report, now);
            reports.insert(watch.graph.clone(), report);
        }
        notifications.extend(self.alerts.tick(now));
        for report in reports.values_mut() {
            report.alerts = self.alert_reports();
        }
        self.save();
        self.turns += 1;
        if self.turns.is_multiple_of(SAVED_EVERY) {
            self.save_judges(watches);
        }
        (reports, notifications)
    }

    /// Writes what waits to be written, when nothing is counted any more.
    pub(crate) fn end(&mut self, watches: &[Arc<GraphWatch>], now: i64) {
        self.turn(watches, now);
        self.save_judges(watches);
        for kept in self.graphs.values_mut() {
            if let Some(writer) = &mut kept.writer
                && let Err(error) = writer.flush(now)
            {
                tracing::error!(%error, "the request log could not be written");
            }
        }
    }

    /// The state of the alerts.
    pub(crate) fn alerts(&mut self) -> &mut Alerts {
        &mut self.alerts
    }

    fn turn_graph(&mut self, watch: &GraphWatch, now: i64) -> Report {
        let (window, folder) = (self.window, self.folder.clone());
        let kept = self.kept(&watch.graph);
        let mut pane = kept.follow(watch, now);
        for before in &kept.before {
            millstream_monitor::sketch::Merge::merge(&mut pane, &before.turn(now));
        }
        kept.before.retain(|before| Arc::strong_count(before) > 1);
        kept.drain(now);
        if watch.monitor.is_some() && (!pane.is_empty() || pane.to > pane.from) {
            report_error(kept.history.push(&pane));
        }
        kept.note(&pane, watch);
        let over = kept.history.over(now.saturating_sub(window), now).unwrap_or_else(|error| {
            tracing::error!(%error, "counts that were kept cannot be read");
            pane.clone()
        });
        let mut report = Report { made: now, ..of_window(watch, &over) };
        report.latency = kept.latency.iter().copied().collect();
        report.performance = kept.judge(watch, folder.as_deref(), now);
        for edge in &mut report.edges {
            for column in &mut edge.columns {
                let key = (edge.edge.clone(), column.column.clone());
                column.series = kept.series.get(&key).into_iter().flatten().copied().collect();
            }
        }
        report.project.clone_from(&self.project);
        report
    }

    fn kept(&mut self, graph: &str) -> &mut Kept {
        let (folder, keep) = (self.folder.clone(), self.keep);
        self.graphs.entry(graph.to_owned()).or_insert_with(|| {
            let file = folder.map(|folder| folder.join(format!("{graph}.panes")));
            let history = file.map(|file| History::open(&file, keep));
            let history = history.transpose().unwrap_or_else(|error| {
                report_error(Err(error));
                None
            });
            Kept {
                history: history.unwrap_or_else(|| History::in_memory(keep)),
                series: BTreeMap::new(),
                latency: VecDeque::new(),
                before: Vec::new(),
                current: None,
                judges: BTreeMap::new(),
                writer: None,
                recorder: None,
            }
        })
    }

    /// Takes labels of a graph's predictions: the name of each, when it became true, and what it is. Without `edge`, of the only one
    /// that has predictions.
    pub(crate) fn label(
        &mut self,
        watch: &GraphWatch,
        edge: Option<&str>,
        labels: &[(String, Option<i64>, f64)],
        now: i64,
    ) -> Result<LabelCounts, String> {
        let predicted = watch.edges.iter().filter(|edge| edge.predictions.is_some()).map(|edge| edge.edge.as_str());
        let names: Vec<&str> = predicted.collect();
        let edge = match (edge, &names[..]) {
            (Some(edge), names) if names.contains(&edge) => edge,
            (None, [only]) => only,
            (Some(edge), names) => return Err(suggest::unknown("edge with predictions", edge, names.iter().copied())),
            (None, []) => return Err("no edge of the graph has predictions; `performance` of its `monitor` says which do".to_owned()),
            (None, names) => return Err(format!("name the `edge`: {}", names.join(", "))),
        };
        let folder = self.folder.clone();
        let kept = self.kept(&watch.graph);
        kept.judge(watch, folder.as_deref(), now);
        let judge = kept.judges.get_mut(edge).ok_or("predictions are not judged; the log says why")?;
        let mut counts = LabelCounts::default();
        for (name, at, value) in labels {
            judge.label(name, *at, *value, now, &mut counts);
        }
        Ok(counts)
    }

    /// Tells the alerts what was measured.
    fn observe(&mut self, report: &Report, at: i64) {
        let mut tell = |metric: &str, labels: &[(&str, &str)], value: Option<f64>, evidence: Option<serde_json::Value>| {
            let Some(value) = value else { return };
            let mut labels: Labels =
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            labels.insert("graph".to_owned(), report.graph.clone());
            self.alerts.observe(&Sample { metric: metric.to_owned(), labels, value, at, evidence });
        };
        let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        if let Some(last) = report.latency.last() {
            let seconds = |micros: Option<f64>| micros.map(|micros| micros / 1e6);
            tell("requests", &[], Some(last.requests as f64), None);
            tell("error_rate", &[], share(last.failed, last.requests), None);
            tell("latency_p50", &[], seconds(last.p50), None);
            tell("latency_p99", &[], seconds(last.p99), None);
        }
        tell("drifted_columns", &[], Some(report.drifted_columns as f64), None);
        tell("lost", &[], Some(report.lost as f64), None);
        for series in &report.performance {
            let last = |points: &[Point]| points.last().map(|point| point.value);
            let segment = series.segment.as_ref().map(|segment| ("segment", segment.as_str()));
            let labels: Vec<(&str, &str)> = segment.into_iter().collect();
            tell(&series.name, &labels, last(&series.realised), None);
            tell(&format!("estimated_{}", series.name), &labels, last(&series.estimated), None);
        }
        for edge in &report.edges {
            for column in &edge.columns {
                let labels = [("edge", edge.edge.as_str()), ("column", column.column.as_str())];
                let evidence = || {
                    let (reference, live) = (&column.reference, &column.live);
                    json!({ "reference": reference, "live": live, "shifted": column.shifted, "measures": column.measures })
                };
                if let Some(leading) = column.measures.first() {
                    tell("drift", &labels, Some(leading.value), Some(evidence()));
                }
                tell("drifted", &labels, column.drifted.map(|drifted| f64::from(u8::from(drifted))), Some(evidence()));
                tell("nulls", &labels, share(column.nulls + column.nans, column.rows), None);
                tell("unseen", &labels, share(column.unseen, column.rows), None);
                tell("mean", &labels, column.mean, None);
                let broken = column.quality.iter().filter(|rule| !rule.ok).count();
                if !column.quality.is_empty() {
                    tell("broken_rules", &labels, Some(broken as f64), Some(json!(column.quality)));
                }
                for segment in &column.segments {
                    let labels = [labels[0], labels[1], ("segment", segment.segment.as_str())];
                    tell("segment_drift", &labels, segment.value, None);
                }
            }
        }
    }

    fn alert_reports(&self) -> Vec<AlertReport> {
        let report = |alert: &Alert| {
            let own: Vec<_> = self.alerts.series().filter(|series| series.alert.name() == alert.name()).collect();
            let worst = own.iter().max_by_key(|series| match series.state {
                State::Inactive => 0,
                State::Pending => 1,
                State::Waiting => 2,
                State::Active => 3,
            });
            AlertReport {
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
                activations: self
                    .alerts
                    .history(alert.name())
                    .map(|(_, activation)| Activation {
                        at: activation.started,
                        cleared: activation.ended.map(|(at, _)| at),
                        value: Some(activation.value),
                    })
                    .collect(),
                ..AlertReport::default()
            }
        };
        self.alerts.alerts().map(report).collect()
    }

    fn save_judges(&self, watches: &[Arc<GraphWatch>]) {
        let Some(folder) = &self.folder else { return };
        for watch in watches {
            if let Some(kept) = self.graphs.get(&watch.graph) {
                kept.save_judges(folder, watch);
            }
        }
    }

    fn save(&self) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = replace(&folder.join(ALERTS), &self.alerts.save()) {
            tracing::error!(%error, "the state of alerts could not be written");
        }
    }
}

impl Kept {
    /// Takes what the graph's monitor has counted. One of an earlier version is asked on until nobody has it any more.
    fn follow(&mut self, watch: &GraphWatch, now: i64) -> Pane {
        if let Some(monitor) = &watch.monitor
            && self.current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, monitor))
        {
            self.before.extend(self.current.replace(Arc::clone(monitor)));
        }
        if let Some(recorder) = &watch.recorder
            && self.recorder.as_ref().is_none_or(|known| !Arc::ptr_eq(known, recorder))
        {
            let followed = match &mut self.writer {
                Some(writer) => writer.follow(Arc::clone(recorder)),
                None => Writer::open(Arc::clone(recorder)).map(|writer| self.writer = Some(writer)),
            };
            match followed {
                Ok(()) => self.recorder = Some(Arc::clone(recorder)),
                Err(error) => tracing::error!(%error, "the request log cannot be written"),
            }
        }
        match &watch.monitor {
            Some(monitor) => monitor.turn(now),
            None => Pane::default(),
        }
    }

    /// Looks at the predictions that have come, and answers how well they do.
    fn judge(&mut self, watch: &GraphWatch, folder: Option<&Path>, now: i64) -> Vec<MetricSeries> {
        let mut series = Vec::new();
        for edge in &watch.edges {
            let Some(predictions) = &edge.predictions else { continue };
            if !self.judges.contains_key(&edge.edge) {
                let mut judge = match Judge::new(predictions, i64::MIN) {
                    Ok(judge) => judge,
                    Err(error) => {
                        tracing::error!(%error, "predictions are not judged");
                        continue;
                    }
                };
                if let Some(saved) = folder.and_then(|folder| std::fs::read(labels_file(folder, watch, &edge.edge)).ok())
                    && let Err(error) = judge.restore(&saved)
                {
                    tracing::error!(%error, "predictions that were kept are not taken up");
                }
                self.judges.insert(edge.edge.clone(), judge);
            }
            if let Some(judge) = self.judges.get_mut(&edge.edge) {
                judge.take(predictions, now);
                series.extend(judge.series(predictions));
            }
        }
        series
    }

    /// Writes down the predictions that wait for their labels.
    fn save_judges(&self, folder: &Path, watch: &GraphWatch) {
        for (edge, judge) in &self.judges {
            let saved = judge.save().map_err(std::io::Error::other);
            let written = saved.and_then(|bytes| replace(&labels_file(folder, watch, edge), &bytes));
            if let Err(error) = written {
                tracing::error!(%error, "predictions could not be kept");
            }
        }
    }

    fn drain(&mut self, now: i64) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.drain(now)
        {
            tracing::error!(%error, "the request log could not be written");
        }
    }

    /// Notes how the pane compares by itself.
    fn note(&mut self, pane: &Pane, watch: &GraphWatch) {
        let seconds = pane.requests.seconds.spectrum();
        let micros = |q: f64| seconds.quantile(q).map(|seconds| seconds * 1e6);
        let point = LatencyPoint {
            at: pane.from,
            p50: micros(0.5),
            p99: micros(0.99),
            requests: pane.answered(),
            failed: pane.failed(),
        };
        push(&mut self.latency, point);
        for edge in &watch.edges {
            let (Some(reference), Some(counted)) = (&edge.reference, pane.edges.get(&edge.edge)) else { continue };
            for (column, sketch) in &counted.columns {
                if let Some(value) = leading(column, sketch, reference, &edge.criterion) {
                    let key = (edge.edge.clone(), column.clone());
                    push(self.series.entry(key).or_default(), Point { at: pane.from, value });
                }
            }
        }
    }
}

/// The file of the predictions of an edge.
fn labels_file(folder: &Path, watch: &GraphWatch, edge: &str) -> PathBuf {
    folder.join(format!("{}.{edge}.labels", watch.graph))
}

fn push<T>(points: &mut VecDeque<T>, point: T) {
    if points.len() == POINTS {
        points.pop_front();
    }
    points.push_back(point);
}

/// What is known of a graph from the counts of a stretch of time.
pub(crate) fn of_window(watch: &GraphWatch, over: &Pane) -> Report {
    static NOTHING: EdgePane = EdgePane::new();
    let edges: Vec<(&str, &EdgePane, Option<&Reference>, Criterion)> = watch
        .edges
        .iter()
        .map(|edge| {
            let pane = over.edges.get(&edge.edge).unwrap_or(&NOTHING);
            (edge.edge.as_str(), pane, edge.reference.as_deref(), edge.criterion)
        })
        .collect();
    let mut compared: Vec<EdgeReport> = compare(&edges);
    for (report, edge) in compared.iter_mut().zip(&watch.edges) {
        let Some(pane) = over.edges.get(&edge.edge) else { continue };
        for column in &mut report.columns {
            let rule = edge.rules.get(&column.column);
            let sketch: Option<&Sketch> = pane.columns.get(&column.column);
            column.quality = rule.zip(sketch).map(|(rule, sketch)| rule.outcomes(sketch)).unwrap_or_default();
        }
    }
    let mut sources: Vec<&str> =
        watch.edges.iter().filter_map(|edge| Some(edge.reference.as_ref()?.source.as_str())).collect();
    sources.dedup();
    Report {
        graph: watch.graph.clone(),
        version: watch.version().to_owned(),
        reference: (!sources.is_empty()).then(|| sources.join(", ")),
        from: over.from,
        to: over.to,
        requests: over.answered(),
        failed: over.failed(),
        lost: over.edges.values().map(|edge| edge.lost).sum(),
        degraded: over.requests.degraded,
        edges: compared,
        ..Report::default()
    }
    .counted()
}

fn report_error(result: Result<(), HistoryError>) {
    if let Err(error) = result {
        tracing::error!(error = crate::project::chain(&error), "what was counted could not be kept");
    }
}

/// Puts a file in the place of another, whole.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = file.with_extension("tmp");
    let mut new = std::fs::File::create(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    std::fs::rename(beside, file)
}
