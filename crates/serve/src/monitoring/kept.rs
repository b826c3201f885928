//! What is kept of one graph, over the versions of its project.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_monitor::{
    History, Keep, Pane,
    compare::leading,
    history::HistoryError,
    predictions::{Judge, LabelCounts},
    record::{Recorder, Writer},
    report::{LatencyPoint, MetricSeries, Point, Report},
    sketch::Merge,
};

use super::{files, shown::of_window, watched::GraphWatch};

/// What is kept of one graph.
pub(super) struct Kept {
    history: History,
    /// The leading measure of each column after each pane, the last of them.
    series: BTreeMap<(String, String), VecDeque<Point>>,
    latency: VecDeque<LatencyPoint>,
    /// Versions before, whose last requests may still run, and the one that is served.
    versions: Vec<Arc<GraphWatch>>,
    /// The predictions of edges, and what labels say of them.
    judges: BTreeMap<String, Judge>,
    writer: Option<Writer>,
    recorder: Option<Arc<Recorder>>,
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
            series: BTreeMap::new(),
            latency: VecDeque::new(),
            versions: Vec::new(),
            judges: BTreeMap::new(),
            writer: None,
            recorder: None,
            turned: now,
        }
    }

    /// Keeps panes as long as this from here on.
    pub(super) fn keep(&mut self, keep: Keep) {
        self.history.keep(keep);
    }

    /// The graph is served as this from here on.
    pub(super) fn follow(&mut self, watch: &Arc<GraphWatch>, folder: Option<&Path>) {
        if self.versions.last().is_some_and(|last| Arc::ptr_eq(last, watch)) {
            return;
        }
        if let Some(monitor) = &watch.monitor {
            monitor.begin(self.turned);
        }
        self.versions.push(Arc::clone(watch));
        self.follow_recorder(watch);
        for edge in &watch.edges {
            let Some(predictions) = &edge.predictions else { continue };
            if self.judges.get(&edge.edge).is_some_and(|judge| judge.fits(predictions)) {
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

    fn follow_recorder(&mut self, watch: &GraphWatch) {
        let Some(recorder) = &watch.recorder else { return };
        if self.recorder.as_ref().is_some_and(|known| known.folder() != recorder.folder()) {
            // Another log: what waits for the old one is written, and the new one begins.
            self.flush(self.turned);
            self.writer = None;
        }
        let followed = match &mut self.writer {
            Some(writer) => writer.follow(Arc::clone(recorder)),
            None => Writer::open(Arc::clone(recorder)).map(|writer| self.writer = Some(writer)),
        };
        match followed {
            Ok(()) => self.recorder = Some(Arc::clone(recorder)),
            Err(error) => {
                tracing::error!(error = crate::project::chain(&error), "the request log cannot be written")
            }
        }
    }

    /// Takes what all versions have counted up to `now`. A version that nobody has any more is let go.
    pub(super) fn take_pane(&mut self, now: i64) -> Pane {
        let mut pane = Pane { from: self.turned, to: now, ..Pane::default() };
        let last = self.versions.len().saturating_sub(1);
        let mut at = 0;
        self.take_predictions(now);
        self.versions.retain(|watch| {
            // Looked at first: whoever counts after this has the version still.
            let used = Arc::strong_count(watch) > 1;
            if let Some(monitor) = &watch.monitor {
                pane.merge(&monitor.turn(now));
            }
            at += 1;
            used || at > last
        });
        self.turned = now;
        pane
    }

    /// Whether requests may still be counted.
    pub(super) fn in_use(&self) -> bool {
        self.versions.iter().any(|watch| Arc::strong_count(watch) > 1)
    }

    /// Whether anything of the graph is counted.
    pub(super) fn counts(&self) -> bool {
        self.versions.iter().any(|watch| watch.monitor.is_some())
    }

    /// Keeps a pane, and answers what is known of the last `window` microseconds.
    pub(super) fn add(&mut self, pane: &Pane, window: i64) -> Option<Report> {
        report_error(self.history.push(pane));
        let watch = Arc::clone(self.versions.last()?);
        self.note(pane, &watch);
        let over = self.history.over(pane.to.saturating_sub(window), pane.to).unwrap_or_else(|error| {
            report_error(Err(error));
            pane.clone()
        });
        let mut report = Report { made: pane.to, ..of_window(&watch, &over) };
        report.latency = self.latency.iter().copied().collect();
        report.performance = self.performance(&watch);
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
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.drain(now)
        {
            tracing::error!(error = crate::project::chain(&error), "the request log could not be written");
        }
    }

    /// Writes all requests of the log.
    pub(super) fn flush(&mut self, now: i64) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush(now)
        {
            tracing::error!(error = crate::project::chain(&error), "the request log could not be written");
        }
    }

    /// What the request log has counted, if there is one.
    pub(super) fn recorded(&self) -> Option<millstream_monitor::record::Counts> {
        self.recorder.as_ref().map(|recorder| recorder.counts())
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

    /// Takes labels of the predictions of an edge.
    pub(super) fn label(
        &mut self,
        edge: &str,
        labels: &[(String, Option<i64>, f64)],
        now: i64,
    ) -> Option<LabelCounts> {
        self.take_predictions(now);
        let judge = self.judges.get_mut(edge)?;
        let mut counts = LabelCounts::default();
        for (name, at, value) in labels {
            judge.label(name, *at, *value, now, &mut counts);
        }
        Some(counts)
    }

    fn performance(&self, watch: &GraphWatch) -> Vec<MetricSeries> {
        let judged = watch
            .edges
            .iter()
            .filter_map(|edge| Some((edge.predictions.as_ref()?, self.judges.get(&edge.edge)?)));
        judged.flat_map(|(predictions, judge)| judge.series(predictions)).collect()
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
            let (Some(reference), Some(counted)) = (&edge.reference, pane.edges.get(&edge.edge)) else {
                continue;
            };
            for (column, sketch) in &counted.columns {
                if let Some(value) = leading(column, sketch, reference, &edge.criterion) {
                    let key = (edge.edge.clone(), column.clone());
                    push(self.series.entry(key).or_default(), Point { at: pane.from, value });
                }
            }
        }
    }
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
