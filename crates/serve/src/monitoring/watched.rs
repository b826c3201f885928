//! What a project says is watched of its graphs, checked and bound to them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Instant,
};

use arrow::datatypes::SchemaRef;
use millstream_graph::{
    EdgeId, Graph, Phase, Plan, PortRef, RunId, Seen, Source, Tap,
    spec::{Document, GraphSpec, SpecErrors},
};
use millstream_monitor::{
    Answered, Layout, Monitor, Reference, ReferenceOptions, WatchSpec, Watching,
    compare::Criterion,
    layout::Kind,
    predictions::Predictions,
    quality::RuleSpec,
    record::{Finished, RecordSettings, Recorder, Watched},
};
use millstream_runtime::{Portion, RunError};

use super::time::now;
use crate::project::chain;

/// What is watched of one graph of one version of a project.
pub(crate) struct GraphWatch {
    pub(crate) graph: String,
    pub(crate) monitor: Option<Arc<Monitor>>,
    /// The edges that are watched, in the order of the monitor's.
    pub(crate) edges: Vec<EdgeWatch>,
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// The version of the graph, for the request log.
    versions: OnceLock<Arc<[String]>>,
}

/// What is watched of one edge.
pub(crate) struct EdgeWatch {
    pub(crate) edge: String,
    pub(crate) reference: Option<Arc<Reference>>,
    pub(crate) criterion: Criterion,
    pub(crate) rules: BTreeMap<String, RuleSpec>,
    pub(crate) predictions: Option<Arc<Predictions>>,
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

impl GraphWatch {
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
    let mut watch = GraphWatch {
        graph: name.to_owned(),
        monitor: None,
        edges: Vec::new(),
        recorder: None,
        versions: OnceLock::new(),
    };
    let mut layouts = Vec::new();
    for port in spec.monitor.keys() {
        let Some((at, schema)) = ports.get(port) else { continue };
        if let Some((layout, edge)) = binding.edge(port, schema) {
            layouts.push((at.clone(), layout));
            watch.edges.push(edge);
        }
    }
    if !layouts.is_empty() {
        let (at, layouts): (Vec<PortRef>, Vec<Layout>) = layouts.into_iter().unzip();
        let monitor = Monitor::new(layouts);
        for (edge, port) in at.iter().enumerate() {
            graph.tap(port, Arc::clone(&monitor).tap(edge));
            if let Some(predictions) = &watch.edges[edge].predictions {
                graph.tap(port, Arc::clone(predictions).tap());
            }
        }
        watch.monitor = Some(monitor);
    }
    watch.recorder = binding.recorder(graph);
    Some(watch)
}

/// The paths that a graph's `monitor` names.
pub(crate) fn files(spec: &GraphSpec) -> impl Iterator<Item = PathBuf> {
    spec.monitor.values().filter_map(|watch| Some(PathBuf::from(watch.get("reference")?.as_str()?)))
}

struct Binding<'b> {
    name: &'b str,
    spec: &'b GraphSpec,
    document: &'b Document,
    root: &'b Path,
    errors: &'b mut SpecErrors,
}

impl Binding<'_> {
    fn wrong(&mut self, path: &[&str], text: &str) {
        let path = [&["graphs", self.name], path].concat();
        let place = self.document.place(&path);
        self.errors.push(place, format!("graph `{}`: {}: {text}", self.name, path[2..].join(".")));
    }

    /// The ports that `monitor` names, and what travels from them.
    fn watched_ports(&mut self, graph: &Graph) -> BTreeMap<String, (PortRef, SchemaRef)> {
        let mut ports = BTreeMap::new();
        for text in self.spec.monitor.keys() {
            let port = self.spec.port(graph, text);
            match travelling(graph, &port) {
                Ok(Some((schema, _))) => drop(ports.insert(text.clone(), (port, schema))),
                Ok(None) => {
                    self.wrong(&["monitor", text], "nobody reads this port, so nothing travels from it")
                }
                Err(problem) => self.wrong(&["monitor", text], &problem),
            }
        }
        ports
    }

    fn edge(&mut self, port: &str, schema: &SchemaRef) -> Option<(Layout, EdgeWatch)> {
        let path = ["graphs", self.name, "monitor", port];
        let watch: WatchSpec = match self.document.typed(&path) {
            Ok(watch) => watch,
            Err(problems) => {
                self.errors.extend(problems);
                return None;
            }
        };
        let mut mistakes = watch.mistakes();
        for column in watch.rules.keys() {
            if schema.index_of(column).is_err() {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                mistakes
                    .push(format!("rules: {}", millstream_graph::suggest::unknown("column", column, known)));
            }
        }
        let reference = match watch.reference.as_ref().map(|file| self.reference(file, &watch)).transpose() {
            Ok(reference) => reference.map(Arc::new),
            Err(problem) => {
                mistakes.push(problem);
                None
            }
        };
        let watching = Watching {
            columns: &watch.columns,
            categorical: &watch.categorical,
            segments: &watch.segments,
            most_segments: watch.most_segments(),
            reference: reference.as_deref(),
            rules: Some(&watch.rules),
        };
        let layout = Layout::new(port, schema, &watching);
        let layout = layout.map_err(|problems| mistakes.extend(problems)).ok();
        for (column, rule) in &watch.rules {
            let Some(watched) =
                layout.iter().flat_map(|layout| &layout.columns).find(|known| *known.name == **column)
            else {
                if layout.is_some() && schema.index_of(column).is_ok() {
                    mistakes.push(format!("rules: column `{column}` is not among the `columns`"));
                }
                continue;
            };
            let numeric = matches!(watched.kind, Kind::Numeric { .. });
            let categorical = matches!(watched.kind, Kind::Categorical(_));
            let of_numbers =
                rule.min.is_some() || rule.max.is_some() || rule.outside.is_some() || rule.mean.is_some();
            let of_categories = rule.unseen.is_some() || rule.distinct.is_some();
            if of_numbers && !numeric {
                mistakes
                    .push(format!("rules: `{column}` has no numbers for `min`, `max`, `outside` and `mean`"));
            }
            if of_categories && !categorical {
                mistakes.push(format!("rules: `{column}` has no categories for `unseen` and `distinct`"));
            }
        }
        let predictions = self.predictions(&watch, schema).unwrap_or_else(|problems| {
            mistakes.extend(problems.into_iter().map(|problem| format!("performance: {problem}")));
            None
        });
        mistakes.iter().for_each(|mistake| self.wrong(&["monitor", port], mistake));
        let edge = EdgeWatch {
            edge: port.to_owned(),
            reference,
            criterion: watch.criterion(),
            rules: watch.rules,
            predictions,
        };
        layout.map(|layout| (layout, edge))
    }

    /// What of the rows are predictions, and what the reference says of such.
    fn predictions(
        &self,
        watch: &WatchSpec,
        schema: &SchemaRef,
    ) -> Result<Option<Arc<Predictions>>, Vec<String>> {
        let Some(spec) = &watch.performance else { return Ok(None) };
        let rows = match (&spec.label, &watch.reference) {
            (Some(label), Some(file)) => {
                let path = millstream_featurestore::inside(self.root, &file.to_string_lossy());
                let path = path.map_err(|problem| vec![problem.to_string()])?;
                let columns = [Some(label), spec.prediction.as_ref(), spec.probability.as_ref()];
                let columns: Vec<&str> = columns.into_iter().flatten().map(String::as_str).collect();
                Some(Reference::rows_of(&path, &columns).map_err(|error| vec![chain(&error)])?)
            }
            _ => None,
        };
        Predictions::new(spec, schema, rows.as_deref()).map(Some)
    }

    fn reference(&self, file: &Path, watch: &WatchSpec) -> Result<Reference, String> {
        let text = file.to_string_lossy();
        let path =
            millstream_featurestore::inside(self.root, &text).map_err(|problem| problem.to_string())?;
        let options = ReferenceOptions {
            bins: watch.bins(),
            categorical: &watch.categorical,
            segments: &watch.segments,
            most_segments: watch.most_segments(),
        };
        let mut reference = Reference::read(&path, &options).map_err(|error| chain(&error))?;
        reference.source = text.into_owned();
        Ok(reference)
    }

    /// The request log: of the request, of every model, and of the reply.
    fn recorder(&mut self, graph: &mut Graph) -> Option<Arc<Recorder>> {
        self.spec.record.as_ref()?;
        let path = ["graphs", self.name, "record"];
        let mut settings: RecordSettings = match self.document.typed(&path) {
            Ok(settings) => settings,
            Err(problems) => {
                self.errors.extend(problems);
                return None;
            }
        };
        match millstream_featurestore::inside(self.root, &settings.path.to_string_lossy()) {
            Ok(path) => settings.path = path,
            Err(problem) => self.wrong(&["record", "path"], &problem.to_string()),
        }
        let models =
            self.spec.steps.iter().filter(|(_, step)| ["model", "ensemble", "enrich"].contains(&&*step.kind));
        let names = models.map(|(name, _)| name.as_str());
        let mut ports = vec![("input".to_owned(), graph.input())];
        ports.extend(names.map(|name| (name.to_owned(), self.spec.port(graph, name))));
        let reply = self.spec.port(graph, &self.spec.respond);
        ports.push(("reply".to_owned(), reply));
        let mut watched = Vec::new();
        let mut at = Vec::new();
        for (name, port) in ports {
            // A step that nobody reads has nothing to log, and what runs after the reply comes when its request is in the log already.
            if let Ok(Some((schema, Phase::Main))) = travelling(graph, &port) {
                watched.push(Watched { name, schema });
                at.push(port);
            }
        }
        match Recorder::new(self.name, &settings, &watched, |name| std::env::var(name).ok()) {
            Ok(recorder) => {
                let recorder = Arc::new(recorder);
                for (edge, port) in at.iter().enumerate() {
                    graph.tap(
                        port,
                        Arc::new(RecordTap {
                            recorder: Arc::clone(&recorder),
                            edge,
                            first: Default::default(),
                        }),
                    );
                }
                Some(recorder)
            }
            Err(mistakes) => {
                mistakes.0.iter().for_each(|mistake| self.wrong(&["record"], &mistake.to_string()));
                None
            }
        }
    }
}

/// What travels from a port when somebody watches it, and when; none if it has no reader.
fn travelling(graph: &Graph, port: &PortRef) -> Result<Option<(SchemaRef, Phase)>, String> {
    let (mut probed, probe) = (graph.clone(), Arc::new(Probe) as Arc<dyn Tap>);
    probed.tap(port, Arc::clone(&probe));
    let plan: Plan = probed.compile().map_err(|errors| errors.to_string())?;
    let found = plan.edges().iter().position(|edge| edge.taps().iter().any(|tap| Arc::ptr_eq(tap, &probe)));
    Ok(found.map(|at| {
        let phase = match plan.edges()[at].from() {
            Source::Input => Phase::Main,
            Source::Handler => Phase::Handler,
            Source::Port(step, _) | Source::Error(step) => plan.steps()[step.index()].phase(),
        };
        (Arc::clone(plan.edge_schema(EdgeId(at as u32))), phase)
    }))
}

/// A tap that is never asked.
struct Probe;

impl Tap for Probe {
    fn observe(&self, _: &Seen<'_>) {}
}

/// Tells a recorder what travels an edge, request by request.
struct RecordTap {
    recorder: Arc<Recorder>,
    edge: usize,
    /// The edge whose rows are recorded: a port with several readers has several.
    first: OnceLock<EdgeId>,
}

impl Tap for RecordTap {
    fn observe(&self, seen: &Seen<'_>) {
        if *self.first.get_or_init(|| seen.edge()) != seen.edge() {
            return;
        }
        for (share, rows) in seen.requests() {
            self.recorder.observe(share.run, self.edge, rows.batch(), |row| rows.origin().place(row));
        }
    }
}
