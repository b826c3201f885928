//! What is kept of one graph, over the versions of its project.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{Ordering::Acquire, fence},
    },
};

use millstream_monitor::{
    History, Keep, Pane,
    compare::leading,
    history::HistoryError,
    predictions::{Judge, Outcome, OutcomeCounts},
    record::{Counts, Recorder},
    report::{DetectorReport, LatencyPoint, MetricSeries, OwnMetric, Point, Report},
    sketch::Merge,
};

use super::{
    files,
    own::{self, Registered},
    past::PastReferences,
    request_log::RequestLog,
    shown::of_window,
    watched::GraphWatch,
};

/// What is kept of one graph.
pub(super) struct Kept {
    history: History,
    past: PastReferences,
    /// The leading measure of each column after each pane, the last of them.
    series: BTreeMap<(String, String), VecDeque<Point>>,
    /// How badly the rows of each edge were rebuilt, where that is asked, and from which reference.
    rebuilt: BTreeMap<String, (u64, VecDeque<Point>)>,
    /// The project's own metrics after each pane, by edge and name.
    own: BTreeMap<(String, String), VecDeque<Point>>,
    latency: VecDeque<LatencyPoint>,
    /// Versions before, whose last requests may still run, and the one that is served.
    versions: Vec<Arc<GraphWatch>>,
    /// The predictions of edges, and what labels say of them.
    judges: BTreeMap<String, Judge>,
    log: RequestLog,
    /// When the last pane ended.
    turned: i64,
}

/// Points of a series that are kept for reports.
const POINTS: usize = 1440;

impl Kept {
    /// Opens what was kept in a folder, if there is one. Panes begin at `now`.
    pub(super) fn open(folder: Option<&Path>, graph: &str, keep: Keep, now: i64) -> Self {
        let file = folder.map(|folder| panes_file(folder, graph));
        let history = file.map(|file| History::open(&file, keep)).transpose().unwrap_or_else(|error| {
            report_error(Err(error));
            None
        });
        if let Some(aside) = history.as_ref().and_then(History::set_aside) {
            tracing::error!(aside = %aside.display(), "counts that are broken are put aside; those before them are kept");
        }
        Self {
            history: history.unwrap_or_else(|| History::in_memory(keep)),
            past: PastReferences::default(),
            series: BTreeMap::new(),
            rebuilt: BTreeMap::new(),
            own: BTreeMap::new(),
            latency: VecDeque::new(),
            versions: Vec::new(),
            judges: BTreeMap::new(),
            log: RequestLog::default(),
            turned: now,
        }
    }

    /// Keeps panes as long as this from here on.
    pub(super) fn keep(&mut self, keep: Keep) {
        self.history.keep(keep);
    }

    /// The graph is served as this from here on.
    pub(super) fn follow(&mut self, watch: &Arc<GraphWatch>, folder: Option<&Path>) {
        // Whoever posts labels may have come with a version that is not the last any more.
        if self.versions.iter().any(|known| Arc::ptr_eq(known, watch)) {
            return;
        }
        if let Some(monitor) = &watch.monitor {
            monitor.begin(self.turned);
        }
        self.versions.push(Arc::clone(watch));
        if let Some(recorder) = &watch.recorder {
            self.log.follow(recorder);
        }
        for edge in &watch.edges {
            let Some(predictions) = &edge.predictions else { continue };
            if let Some(judge) = self.judges.get_mut(&edge.edge).filter(|judge| judge.fits(predictions)) {
                judge.follow(predictions);
                continue;
            }
            let mut judge = match Judge::new(predictions, i64::MIN) {
                Ok(judge) => judge,
                Err(error) => {
                    tracing::error!(%error, "predictions are not judged");
                    continue;
                }
            };
            if let Some(folder) = folder {
                files::take_up(&labels_file(folder, watch, &edge.edge), |saved| judge.restore(saved));
            }
            self.judges.insert(edge.edge.clone(), judge);
        }
    }

    /// The same graph, whose counts are kept elsewhere from here on: none of those before are there. Its requests are logged and counted
    /// as they were, whichever version they are of.
    pub(super) fn moved(self, folder: Option<&Path>, graph: &str, keep: Keep) -> Self {
        let mut kept = Self { log: self.log, ..Self::open(folder, graph, keep, self.turned) };
        self.versions.iter().for_each(|watch| kept.follow(watch, folder));
        kept
    }

    /// Takes what all versions have counted up to `now`. A version that nobody has any more is let go.
    pub(super) fn take_pane(&mut self, now: i64) -> Pane {
        let mut pane = Pane { from: self.turned, to: now, ..Pane::default() };
        let last = self.versions.len().saturating_sub(1);
        let mut at = 0;
        // Looked at first: whoever counts or predicts after this has the version still.
        let used: Vec<bool> = self.versions.iter().map(is_used).collect();
        self.take_predictions(now);
        self.versions.retain(|watch| {
            if let Some(monitor) = &watch.monitor {
                pane.merge(&monitor.turn(now));
            }
            at += 1;
            used[at - 1] || at > last
        });
        self.turned = now;
        pane
    }

    /// Whether requests may still be counted, or logged.
    pub(super) fn in_use(&self) -> bool {
        self.versions.iter().any(is_used)
    }

    /// Whether requests that have ended wait to be logged.
    pub(super) fn has_waiting(&self) -> bool {
        self.log.has_waiting()
    }

    /// Whether anything of the graph is counted.
    pub(super) fn counts(&self) -> bool {
        self.versions.iter().any(|watch| watch.monitor.is_some())
    }

    /// Keeps a pane, and answers what is known of the last `window` microseconds.
    pub(super) fn add(&mut self, pane: &Pane, window: i64, registered: &[Registered]) -> Option<Report> {
        report_error(self.history.push(pane));
        let watch = Arc::clone(self.versions.last()?);
        let history = &self.history;
        self.past.look(&watch, (pane.to, window), |from, to| history.over(from, to));
        self.note(pane, &watch);
        let mut over = self.history.over(pane.to.saturating_sub(window), pane.to).unwrap_or_else(|error| {
            report_error(Err(error));
            pane.clone()
        });
        // The pane of an hour ends with its hour, which may not be over.
        over.to = over.to.min(pane.to);
        let mut report = Report { made: pane.to, ..of_window(&watch, &over, &self.past) };
        report.latency = self.latency.iter().copied().collect();
        // Here and not where panes are taken: one that the end of the server cuts short is told in the next one.
        self.judges.values_mut().for_each(|judge| judge.turn(pane.to));
        let performance = self.performance(&watch);
        report.metrics = own::measured(&watch, &over, &performance, registered);
        self.note_own(&mut report.metrics, pane.to);
        report.performance = performance.into_iter().flat_map(|(_, series)| series).collect();
        report.detectors = self.detectors(&watch);
        for of in &mut report.multivariate {
            of.series =
                self.rebuilt.get(&of.edge).into_iter().flat_map(|(_, points)| points).copied().collect();
        }
        for edge in &mut report.edges {
            for column in &mut edge.columns {
                let key = (edge.edge.clone(), column.column.clone());
                column.series = self.series.get(&key).into_iter().flatten().copied().collect();
            }
        }
        Some(report)
    }

    /// Keeps a pane, and nothing more.
    pub(super) fn store(&mut self, pane: &Pane) {
        report_error(self.history.push(pane));
    }

    /// Writes requests of the log that have waited long enough.
    pub(super) fn drain(&mut self, now: i64) {
        self.log.drain(now);
    }

    /// Writes all requests of the log.
    pub(super) fn flush(&mut self, now: i64) {
        self.log.flush(now);
    }

    /// The request log, with all that waits for it on disk, and what it calls an edge.
    pub(super) fn logged(&mut self, edge: &str, now: i64) -> Option<(Arc<Recorder>, String)> {
        let watch = Arc::clone(self.versions.last()?);
        let recorder = Arc::clone(watch.recorder.as_ref()?);
        self.flush(now);
        Some((recorder, watch.logged_as(edge).to_owned()))
    }

    /// What became of requests of the log since the server started, if there was one.
    pub(super) fn recorded(&self) -> Option<Counts> {
        self.log.counts()
    }

    /// Looks at the predictions that have come.
    pub(super) fn take_predictions(&mut self, now: i64) {
        for watch in &self.versions {
            for edge in &watch.edges {
                if let (Some(predictions), Some(judge)) = (&edge.predictions, self.judges.get_mut(&edge.edge))
                    && judge.fits(predictions)
                {
                    judge.take(predictions, now);
                }
            }
        }
    }

    /// Takes what is told of the predictions of an edge.
    pub(super) fn label(&mut self, edge: &str, told: &[Outcome], now: i64) -> Option<OutcomeCounts> {
        self.take_predictions(now);
        let judge = self.judges.get_mut(edge)?;
        let mut counts = OutcomeCounts::default();
        for Outcome { id, at, label, measures } in told {
            if let Some(label) = label {
                judge.label(id, *at, label.clone(), now, &mut counts.labels);
            }
            for (name, value) in measures {
                let counts = counts.measures.get_or_insert_default();
                judge.measure(id, *at, (name.as_str(), *value), now, counts);
            }
        }
        Some(counts)
    }

    /// How the predictions of each edge did.
    fn performance(&self, watch: &GraphWatch) -> Vec<(String, Vec<MetricSeries>)> {
        let judged = watch.edges.iter().filter_map(|edge| {
            let series = self.judges.get(&edge.edge)?.series(edge.predictions.as_ref()?);
            Some((edge.edge.clone(), series))
        });
        judged.collect()
    }

    /// Notes what the project's own metrics are now, and gives each its series. Those that are no more are forgotten.
    fn note_own(&mut self, metrics: &mut [OwnMetric], at: i64) {
        let mut before = std::mem::take(&mut self.own);
        for metric in metrics {
            let key = (metric.edge.clone(), metric.name.clone());
            let mut series = before.remove(&key).unwrap_or_default();
            if let Some(value) = metric.value {
                push(&mut series, Point { at, value });
            }
            metric.series = series.iter().copied().collect();
            self.own.insert(key, series);
        }
    }

    fn detectors(&self, watch: &GraphWatch) -> Vec<DetectorReport> {
        let judged = watch.edges.iter().filter(|edge| edge.predictions.is_some());
        let judged = judged.filter_map(|edge| Some((&edge.edge, self.judges.get(&edge.edge)?)));
        let named = |(edge, judge): (&String, &Judge)| {
            let of_edge = |report: DetectorReport| DetectorReport { edge: edge.clone(), ..report };
            judge.detectors().into_iter().map(of_edge).collect::<Vec<_>>()
        };
        judged.flat_map(named).collect()
    }

    /// Writes down the predictions that wait for their labels.
    pub(super) fn save_judges(&self, folder: &Path) {
        let Some(watch) = self.versions.last() else { return };
        for (edge, judge) in &self.judges {
            let saved = judge.save().map_err(std::io::Error::other);
            let written = saved.and_then(|bytes| files::replace(&labels_file(folder, watch, edge), &bytes));
            if let Err(error) = written {
                tracing::error!(%error, "predictions could not be kept");
            }
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
            let (Some(reference), Some(counted)) = (self.past.of(edge), pane.edges.get(&edge.edge)) else {
                continue;
            };
            let rebuilt = edge.reconstruction.as_ref().and_then(|of| of.rebuilt(counted)?.mean());
            if let Some(value) = rebuilt {
                let digest = edge.reconstruction.as_ref().map_or(0, |of| of.digest());
                let (of, points) = self.rebuilt.entry(edge.edge.clone()).or_default();
                if *of != digest {
                    // Errors under another reference have another measure.
                    (*of, *points) = (digest, VecDeque::new());
                }
                push(points, Point { at: pane.from, value });
            }
            for (column, sketch) in &counted.columns {
                if let Some(value) = leading(column, sketch, reference, &edge.criterion) {
                    let key = (edge.edge.clone(), column.clone());
                    push(self.series.entry(key).or_default(), Point { at: pane.from, value });
                }
            }
        }
    }
}

/// Whether anybody else has a version. What the last who had it did is seen from here on.
fn is_used(watch: &Arc<GraphWatch>) -> bool {
    let used = Arc::strong_count(watch) > 1;
    fence(Acquire);
    used
}

/// The file of a graph's counts.
pub(super) fn panes_file(folder: &Path, graph: &str) -> PathBuf {
    folder.join(format!("{graph}.panes"))
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

fn report_error(result: Result<(), HistoryError>) {
    if let Err(error) = result {
        tracing::error!(error = crate::project::chain(&error), "what was counted could not be kept");
    }
}
