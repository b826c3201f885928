//! What a project says is watched of its graphs, checked and bound to them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Instant,
};

use millstream_graph::{
    Graph, PortRef, RunId,
    spec::{Document, GraphSpec, SpecErrors},
};
use millstream_monitor::{
    Answered, BinRule, Keep, Layout, Monitor, Past, Reference,
    compare::Criterion,
    custom::Custom,
    multivariate::Reconstruction,
    predictions::Predictions,
    quality::{RuleSpec, SchemaCheck},
    record::{Finished, Recorder},
};
use millstream_runtime::{Portion, RunError};

use super::{binding::Binding, statistics, time::now};

/// What is watched of one graph of one version of a project.
pub(crate) struct GraphWatch {
    pub(crate) graph: String,
    pub(crate) monitor: Option<Arc<Monitor>>,
    /// The edges that are watched, in the order of the monitor's.
    pub(crate) edges: Vec<EdgeWatch>,
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// The version of the graph, for the request log.
    versions: OnceLock<Arc<[String]>>,
    /// The port whose rows are the reply.
    respond: String,
}

/// What is watched of one edge.
pub(crate) struct EdgeWatch {
    pub(crate) edge: String,
    pub(crate) reference: Option<Arc<Reference>>,
    /// The stretch of time that is the reference in its place.
    pub(crate) past: Option<Past>,
    /// The bins of such a reference.
    pub(crate) bins: BinRule,
    pub(crate) criterion: Criterion,
    pub(crate) rules: BTreeMap<String, RuleSpec>,
    /// Whether the columns are those of the reference.
    pub(crate) schema: Option<SchemaCheck>,
    pub(crate) predictions: Option<Arc<Predictions>>,
    /// What its numeric columns are compared with together.
    pub(crate) reconstruction: Option<Arc<Reconstruction>>,
    /// Metrics of the project's own.
    pub(crate) metrics: Vec<Custom>,
    /// Columns that come unchanged from other edges, and are counted there.
    pub(crate) elsewhere: BTreeMap<String, String>,
}

/// How a request went, for those who watch.
pub(crate) struct Went<'w> {
    run: Option<RunId>,
    request_id: Option<&'w str>,
    start: Instant,
    /// `ok`, or the kind of error.
    outcome: &'static str,
    degraded: Vec<String>,
}

impl<'w> Went<'w> {
    /// A request whose body could not be read.
    pub(crate) fn undecoded(start: Instant) -> Self {
        Self { run: None, request_id: None, start, outcome: "undecoded", degraded: Vec::new() }
    }

    /// A request that came to its run, or was refused one.
    pub(crate) fn of(start: Instant, request_id: Option<&'w str>, ran: Result<&Portion, &RunError>) -> Self {
        match ran {
            Ok(reply) => {
                let degraded =
                    reply.reply().degraded().iter().map(|degraded| degraded.step.to_string()).collect();
                Self { run: Some(reply.run()), request_id, start, outcome: "ok", degraded }
            }
            Err(error) => {
                let run = match error {
                    RunError::Failed { run, .. } | RunError::DeadlineExceeded { run } => Some(*run),
                    _ => None,
                };
                Self { run, request_id, start, outcome: error.kind().name(), degraded: Vec::new() }
            }
        }
    }
}

impl EdgeWatch {
    /// One with nothing to compare with.
    pub(crate) fn new(edge: &str, criterion: Criterion) -> Self {
        Self {
            edge: edge.to_owned(),
            reference: None,
            past: None,
            bins: BinRule::default(),
            criterion,
            rules: BTreeMap::new(),
            schema: None,
            predictions: None,
            reconstruction: None,
            metrics: Vec::new(),
            elsewhere: BTreeMap::new(),
        }
    }
}

impl GraphWatch {
    /// Watches these edges, of which none is tapped.
    pub(crate) fn new(graph: &str, edges: Vec<EdgeWatch>) -> Self {
        let versions = OnceLock::new();
        let respond = String::new();
        Self { graph: graph.to_owned(), monitor: None, edges, recorder: None, versions, respond }
    }

    /// Counts how a request went, and closes its record.
    pub(crate) fn went(&self, went: &Went<'_>) {
        let took = went.start.elapsed();
        if let Some(monitor) = &self.monitor {
            monitor.answered(Answered {
                outcome: went.outcome,
                seconds: took.as_secs_f64(),
                degraded: !went.degraded.is_empty(),
            });
        }
        let (Some(recorder), Some(run)) = (&self.recorder, went.run) else { return };
        let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        recorder.finish(Finished {
            run,
            request_id: went.request_id,
            at: now().saturating_sub(took),
            took,
            outcome: went.outcome,
            degraded: &went.degraded,
            versions: self.versions.get().map(Arc::clone).unwrap_or_default(),
        });
    }

    /// How long panes are kept at least: what edges are compared with may be of the past.
    pub(crate) fn keep(&self, keep: Keep) -> Keep {
        self.edges.iter().filter_map(|edge| edge.past).fold(keep, |keep, past| past.keep(keep))
    }

    /// What the request log calls an edge, if it has it.
    pub(crate) fn logged_as<'e>(&self, edge: &'e str) -> &'e str {
        if edge == self.respond { "reply" } else { edge }
    }

    /// Says of which version of its project it is, which is known when all of it was read.
    pub(crate) fn is_of(&self, version: &str) {
        // A project is read once.
        let _ = self.versions.set(Arc::from([version.to_owned()]));
    }

    /// The version of its project.
    pub(crate) fn version(&self) -> &str {
        self.versions.get().and_then(|versions| versions.first()).map_or("", String::as_str)
    }
}

/// Binds what the file says of a graph to it: its taps are part of the graph afterwards. None if it says nothing.
pub(crate) fn watch(
    (name, spec): (&str, &GraphSpec),
    graph: &mut Graph,
    document: &Document,
    root: &Path,
    errors: &mut SpecErrors,
) -> Option<GraphWatch> {
    if spec.monitor.is_empty() && spec.record.is_none() {
        return None;
    }
    let mut binding = Binding { name, spec, document, root, errors };
    let ports = binding.watched_ports(graph);
    let mut elsewhere = binding.counted_before(graph, &ports);
    let mut watch = GraphWatch::new(name, Vec::new());
    watch.respond.clone_from(&spec.respond);
    let mut layouts = Vec::new();
    for port in spec.monitor.keys() {
        let Some((at, schema)) = ports.get(port) else { continue };
        let elsewhere = elsewhere.remove(port).unwrap_or_default();
        if let Some((layout, edge)) = binding.edge(port, schema, elsewhere) {
            layouts.push((at.clone(), layout));
            watch.edges.push(edge);
        }
    }
    if !layouts.is_empty() {
        let (at, layouts): (Vec<PortRef>, Vec<Layout>) = layouts.into_iter().unzip();
        let monitor = Monitor::new(layouts);
        for (edge, port) in at.iter().enumerate() {
            let columns = monitor.layouts()[edge].reads().map(str::to_owned).collect::<Vec<_>>();
            graph.tap_columns(port, columns, Arc::clone(&monitor).tap(edge));
            if let Some(predictions) = &watch.edges[edge].predictions {
                graph.tap(port, Arc::clone(predictions).tap());
            }
        }
        watch.monitor = Some(monitor);
    }
    watch.recorder = binding.recorder(graph);
    Some(watch)
}

/// The paths that a graph's `monitor` names, those of the statistics of models among them.
pub(crate) fn files(spec: &GraphSpec, document: &Document, root: &Path) -> impl Iterator<Item = PathBuf> {
    spec.monitor.values().filter_map(move |watch| {
        let reference = watch.get("reference")?;
        match reference.as_str() {
            Some(file) => Some(PathBuf::from(file)),
            None => statistics::file(document, root, reference.get("model")?.as_str()?).ok(),
        }
    })
}
