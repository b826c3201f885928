//! What a project's file says is watched of a graph, checked against what travels there.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arrow::datatypes::SchemaRef;
use millstream_graph::{
    Edge, EdgeId, Graph, Phase, Plan, PortRef, Seen, Source, Tap,
    spec::{Document, GraphSpec, SpecErrors},
};
use millstream_monitor::{
    Layout, MonitoringSpec, Reference, ReferenceOptions, ReferenceSpec, WatchSpec, Watching,
    layout::Kind,
    predictions::Predictions,
    quality::{RuleSpec, SchemaCheck},
    record::{RecordSettings, Recorder, Watched},
};

use super::{own, statistics, together, watched::EdgeWatch};
use crate::project::chain;

/// The ports that are watched, and what travels from them.
pub(super) type Ports = BTreeMap<String, (PortRef, SchemaRef)>;

/// Columns, and the ports at which they are counted in the place of this one.
pub(super) type Elsewhere = BTreeMap<String, String>;

/// What binds the file's words on one graph to it, and collects what is wrong with them.
pub(super) struct Binding<'b> {
    pub(super) name: &'b str,
    pub(super) spec: &'b GraphSpec,
    pub(super) document: &'b Document,
    pub(super) root: &'b Path,
    pub(super) errors: &'b mut SpecErrors,
}

impl Binding<'_> {
    fn wrong(&mut self, path: &[&str], text: &str) {
        let path = [&["graphs", self.name], path].concat();
        let place = self.document.place(&path);
        self.errors.push(place, format!("graph `{}`: {}: {text}", self.name, path[2..].join(".")));
    }

    /// The ports that `monitor` names, and what travels from them.
    pub(super) fn watched_ports(&mut self, graph: &Graph) -> Ports {
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

    /// Of a port that is watched, the columns that come to it unchanged, with the same rows, from another that is watched, and which
    /// that is.
    pub(super) fn counted_before(&self, graph: &Graph, ports: &Ports) -> BTreeMap<String, Elsewhere> {
        let mut probed = graph.clone();
        let probes: Vec<(&String, Arc<dyn Tap>)> = ports
            .iter()
            .map(|(name, (port, _))| {
                let probe = Arc::new(Probe) as Arc<dyn Tap>;
                probed.tap(port, Arc::clone(&probe));
                (name, probe)
            })
            .collect();
        // What is wrong with the graph is told by those who look at one port.
        let Ok(plan) = probed.compile() else { return BTreeMap::new() };
        let source = |probe| plan.edges().iter().find(|edge| tapped_by(edge, probe)).map(Edge::from);
        let sources: Vec<(&String, Source)> =
            probes.iter().filter_map(|(name, probe)| Some((*name, source(probe)?))).collect();
        let specs: BTreeMap<&String, WatchSpec> = ports
            .keys()
            .filter_map(|port| {
                Some((port, self.document.typed(&["graphs", self.name, "monitor", port]).ok()?))
            })
            .collect();
        // What is wrong with those is told by who makes alerts of them.
        let monitoring: MonitoringSpec = self.document.typed(&["monitoring"]).unwrap_or_default();
        let looked_at = |port: &str, column: &str| monitoring.looks_at(self.name, port, column);
        let before = |from: Source, column: &str| {
            let (mut at, mut counted) = (from, None);
            while let Some(source) = plan.came_from(at, column) {
                at = source;
                let watched = sources.iter().find(|(_, source)| *source == at);
                let Some((name, spec)) = watched.and_then(|(name, _)| Some((*name, specs.get(name)?))) else {
                    continue;
                };
                let all = spec.columns.is_empty();
                if spec.asks_for(column) || (all && looked_at(name, column)) {
                    return Some((column.to_owned(), name.clone()));
                }
                // It may leave the column to one before it.
                if all {
                    counted = Some((column.to_owned(), name.clone()));
                }
            }
            counted
        };
        let port = |(name, source): &(&String, Source)| {
            let columns = ports.get(*name)?.1.fields().iter().map(|field| field.name().as_str());
            let left = columns.filter(|column| !looked_at(name, column));
            Some(((*name).clone(), left.filter_map(|column| before(*source, column)).collect()))
        };
        sources.iter().filter_map(port).collect()
    }

    /// How one edge is watched, if what the file says of it can be read. Columns that are counted elsewhere are counted here where it
    /// asks for them.
    pub(super) fn edge(
        &mut self,
        port: &str,
        schema: &SchemaRef,
        mut elsewhere: Elsewhere,
    ) -> Option<(Layout, EdgeWatch)> {
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
        let file = self.reference_file(&watch).unwrap_or_else(|problem| {
            mistakes.push(problem);
            None
        });
        let reference = match file.map(|file| self.reference(&file, &watch)).transpose() {
            Ok(reference) => reference.map(Arc::new),
            Err(problem) => {
                mistakes.push(problem);
                None
            }
        };
        let past = match watch.reference {
            Some(ReferenceSpec::Past(past)) => Some(past),
            _ => None,
        };
        elsewhere.retain(|column, _| watch.columns.is_empty() && !watch.asks_for(column));
        let watching = Watching {
            columns: &watch.columns,
            elsewhere: &elsewhere.keys().map(String::as_str).collect::<Vec<_>>(),
            categorical: &watch.categorical,
            segments: &watch.segments,
            most_segments: watch.most_segments(),
            reference: reference.as_deref(),
            rules: Some(&watch.rules),
        };
        let layout = Layout::new(port, schema, &watching);
        let layout = layout.map_err(|problems| mistakes.extend(problems)).ok();
        let checked = watch.schema.as_ref().map(|rule| SchemaCheck::new(rule, schema, &watching));
        if checked.is_some() && watch.reference.is_none() {
            mistakes.push("`schema` is that of the `reference`, which is not named".to_owned());
        }
        if let Some(layout) = &layout {
            mistakes.extend(unfit(&watch.rules, layout, schema));
        }
        let predictions = self.predictions(&watch, schema).unwrap_or_else(|problems| {
            mistakes.extend(problems.into_iter().map(|problem| format!("performance: {problem}")));
            None
        });
        // Where predictions are not known, neither are their metrics, and expressions over those would seem to be wrong, too.
        let metrics = match &layout {
            Some(layout) if predictions.is_some() == watch.performance.is_some() => {
                let performance = predictions.as_ref().map(|predictions| predictions.metrics());
                own::compile(&watch.metrics, layout, &performance.unwrap_or_default(), &mut mistakes)
            }
            _ => Vec::new(),
        };
        let file = self.reference_file(&watch).ok().flatten().filter(|_| reference.is_some());
        let learned =
            layout.as_ref().map(|layout| together::learned(self.root, &watch, file.as_deref(), layout));
        let reconstruction = learned.transpose().unwrap_or_else(|problem| {
            mistakes.push(format!("multivariate: {problem}"));
            None
        });
        let reconstruction = reconstruction.flatten();
        mistakes.iter().for_each(|mistake| self.wrong(&["monitor", port], mistake));
        let (criterion, bins) = (watch.criterion(), watch.bins());
        let edge = EdgeWatch {
            reference,
            past,
            bins,
            predictions,
            metrics,
            rules: watch.rules,
            reconstruction: reconstruction.clone(),
            schema: checked,
            elsewhere,
            ..EdgeWatch::new(port, criterion)
        };
        layout.map(|layout| (Layout { reconstruction, ..layout }, edge))
    }

    /// What of the rows are predictions, and what the reference says of such.
    fn predictions(
        &self,
        watch: &WatchSpec,
        schema: &SchemaRef,
    ) -> Result<Option<Arc<Predictions>>, Vec<String>> {
        let Some(spec) = &watch.performance else { return Ok(None) };
        let rows = match (&spec.label, &watch.reference) {
            (Some(_), Some(ReferenceSpec::Past(_))) => {
                return Err(vec![
                    "`label` is a column of a training set, and the `reference` is of the past".to_owned(),
                ]);
            }
            (Some(label), Some(_)) => {
                // That there is no such file is said of the reference already.
                let Ok(Some(file)) = self.reference_file(watch) else { return Ok(None) };
                let path = millstream_featurestore::inside(self.root, &file.to_string_lossy());
                let path = path.map_err(|problem| vec![problem.to_string()])?;
                let columns = [Some(label), spec.prediction.as_ref(), spec.probability.as_ref()];
                let columns = columns.into_iter().flatten().chain(spec.probabilities.values());
                let columns: Vec<&str> = columns.map(String::as_str).collect();
                Some(Reference::rows_of(&path, &columns).map_err(|error| vec![chain(&error)])?)
            }
            _ => None,
        };
        Predictions::new(spec, schema, rows.as_deref()).map(Some)
    }

    /// The file that live values are compared with, if it is one.
    fn reference_file(&self, watch: &WatchSpec) -> Result<Option<PathBuf>, String> {
        match &watch.reference {
            None | Some(ReferenceSpec::Past(_)) => Ok(None),
            Some(ReferenceSpec::File(file)) => Ok(Some(file.clone())),
            Some(ReferenceSpec::Model(model)) => statistics::file(self.document, self.root, model).map(Some),
        }
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
            // A project is also loaded beside requests, which need the other cores.
            threads: Some(NonZeroUsize::MIN),
        };
        let mut reference = Reference::read(&path, &options).map_err(|error| chain(&error))?;
        reference.source = text.into_owned();
        Ok(reference)
    }

    /// The request log: of the request, of every model, and of the reply.
    pub(super) fn recorder(&mut self, graph: &mut Graph) -> Option<Arc<Recorder>> {
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

/// What is wrong with rules of columns that are there: they are not watched, or have no such values.
fn unfit(rules: &BTreeMap<String, RuleSpec>, layout: &Layout, schema: &SchemaRef) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (column, rule) in rules {
        let Some(watched) = layout.columns.iter().find(|known| *known.name == **column) else {
            if schema.index_of(column).is_ok() {
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
            mistakes.push(format!("rules: `{column}` has no numbers for `min`, `max`, `outside` and `mean`"));
        }
        if of_categories && !categorical {
            mistakes.push(format!("rules: `{column}` has no categories for `unseen` and `distinct`"));
        }
        if rule.freshness.is_some() && !numeric && !matches!(watched.kind, Kind::Time) {
            mistakes.push(format!("rules: `{column}` has no times for `freshness`"));
        }
    }
    mistakes
}

/// What travels from a port when somebody watches it, and when; none if it has no reader.
fn travelling(graph: &Graph, port: &PortRef) -> Result<Option<(SchemaRef, Phase)>, String> {
    let (mut probed, probe) = (graph.clone(), Arc::new(Probe) as Arc<dyn Tap>);
    probed.tap(port, Arc::clone(&probe));
    let plan: Plan = probed.compile().map_err(|errors| errors.to_string())?;
    let found = plan.edges().iter().position(|edge| tapped_by(edge, &probe));
    Ok(found.map(|at| {
        let phase = match plan.edges()[at].from() {
            Source::Input => Phase::Main,
            Source::Handler => Phase::Handler,
            Source::Port(step, _) | Source::Error(step) => plan.steps()[step.index()].phase(),
        };
        (Arc::clone(plan.edge_schema(EdgeId(at as u32))), phase)
    }))
}

fn tapped_by(edge: &Edge, probe: &Arc<dyn Tap>) -> bool {
    edge.taps().iter().any(|tap| Arc::ptr_eq(tap, probe))
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
            let (id, place) = (share.request.id.as_ref(), |row| rows.origin().place(row));
            self.recorder.observe_for(id, share.run, self.edge, rows.batch(), place);
        }
    }
}
