//! A project file: feature sets, models and graphs together, loaded and compiled.

mod about;
pub(crate) mod conditions;
mod files;
mod graphs;
mod load;
mod read;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;
use millstream_featurestore::{
    FeatureSetSpec, FeatureSets, OnlineStore, Stores, Vector, VectorSpec,
    stream::{Stream, StreamSpec},
};
use millstream_graph::{
    CompileErrors, Graph, Plan,
    spec::{self, GraphSpec, Kinds, SpecErrors},
};
use millstream_models::{ModelSet, ModelSpec, RepositorySpec};
use millstream_monitor::{MonitoringSpec, WatchSpec, record::RecordSettings};
use millstream_runtime::{Engine, EngineError, Limits, Metrics};
use schemars::{Schema, SchemaGenerator};

use self::{
    graphs::Graphs,
    read::{ProjectKeys, Reading, place, read_bounded},
};
use crate::{
    monitoring::{self, GraphWatch},
    outside::Outside,
    streams,
    through::Through,
};
#[cfg(feature = "offline")]
pub(crate) use read::Defined;
pub(crate) use {
    files::{Files, Stamps},
    read::{Definitions, one_of},
};

/// The name of a project's file in its folder.
pub const PROJECT_FILE: &str = "millstream.yaml";

/// A project: its graphs compiled, its models and feature sets loaded.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use millstream_runtime::Limits;
/// use millstream_serve::Project;
///
/// let project = Project::load("examples/fraud")?;
/// let engine = project.engine("fraud", Limits::default())?;
/// # Ok(())
/// # }
/// ```
pub struct Project {
    name: String,
    description: Option<String>,
    graphs: IndexMap<String, ProjectGraph>,
    models: Arc<ModelSet>,
    repository: Option<RepositorySpec>,
    root: PathBuf,
    store: Arc<FeatureSets>,
    /// The graphs that rows of its sets pass. The sets do not own them.
    passages: Vec<Arc<Through>>,
    stores: Arc<Stores>,
    streams: Vec<Stream>,
    monitoring: monitoring::Plan,
    watches: Vec<Arc<GraphWatch>>,
    files: Files,
    stamps: Stamps,
    version: String,
    outside: Arc<Outside>,
}

/// A graph of a project.
pub struct ProjectGraph {
    spec: GraphSpec,
    graph: Graph,
}

/// Why a project could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// The file could not be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file, or what it names, is wrong.
    #[error("{}", located(file, errors))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Every mistake, with its place.
        errors: SpecErrors,
    },
    /// Its files changed while they were read, so that what was read may be of two versions.
    #[error("{}: its files changed while they were read", file.display())]
    Changing {
        /// The project's file.
        file: PathBuf,
    },
    /// The project has no such graph.
    #[error("{message}")]
    UnknownGraph {
        /// The names there are.
        message: String,
    },
    /// A graph does not compile, which [`Project::load`] has ruled out for the graphs of the file.
    #[error(transparent)]
    Compile(#[from] CompileErrors),
    /// An engine could not be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ProjectError {
    /// Every mistake by itself, with its place.
    pub fn mistakes(&self) -> Vec<String> {
        match self {
            Self::Invalid { file, errors } => {
                errors.errors().iter().map(|error| format!("{}:{error}", file.display())).collect()
            }
            other => vec![chain(other)],
        }
    }
}

fn located(file: &Path, errors: &SpecErrors) -> String {
    errors.errors().iter().map(|error| format!("{}:{error}", file.display())).collect::<Vec<_>>().join("\n")
}

impl Project {
    /// Loads a project from its folder or its file. Every path in the file stays inside the folder.
    ///
    /// # Errors
    /// Every mistake at once, each with its line and column.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ProjectError> {
        Self::load_among(path, &Stores::new())
    }

    /// The same, with the sets that take rows among `stores`: those that are open stay as they are.
    ///
    /// # Errors
    /// As [`Project::load`].
    pub fn load_among(path: impl AsRef<Path>, stores: &Arc<Stores>) -> Result<Self, ProjectError> {
        let (file, root) = place(path.as_ref());
        let unreadable = |source| ProjectError::Unreadable { file: file.clone(), source };
        let named = |text: &str| Files::named(&root, &file, text);
        // All stamps are of before their files are read: of the project's own file first, which tells what the others are.
        let own = named("").stamps();
        let text = read_bounded(&file).map_err(unreadable)?;
        let files = named(&text);
        let stamps = files.stamps();
        let mut project = Self::read(&text, &root, files.clone(), stores)
            .map_err(|errors| ProjectError::Invalid { file: file.clone(), errors })?;
        project.version = project.files.version().map_err(unreadable)?;
        project.watches.iter().for_each(|watch| watch.is_of(&project.version));
        // Files that only the models tell of have been read already: their stamps are of afterwards.
        project.stamps = project.files.stamps();
        project.stamps.extend(stamps.clone());
        if files.stamps() != stamps || named("").stamps() != own {
            return Err(ProjectError::Changing { file });
        }
        Ok(project)
    }

    /// Loads a project from the text of its file, for a folder, with the sets that take rows among `stores`.
    ///
    /// # Errors
    /// Every mistake at once, each with its line and column.
    pub fn from_text(text: &str, folder: impl AsRef<Path>, stores: &Arc<Stores>) -> Result<Self, SpecErrors> {
        let root = folder.as_ref();
        Self::read(text, root, Files::named(root, &root.join(PROJECT_FILE), text), stores)
    }

    /// The file of the project at `path`, of which nothing is checked yet, and the project's folder.
    pub(crate) fn document_at(path: &Path) -> Result<(spec::Document, PathBuf), ProjectError> {
        let (file, root) = place(path);
        let text =
            read_bounded(&file).map_err(|source| ProjectError::Unreadable { file: file.clone(), source })?;
        let document =
            spec::Document::read(&text).map_err(|errors| ProjectError::Invalid { file, errors })?;
        Ok((document, root))
    }

    /// The files that the project at `path` is made of, as far as its file tells.
    pub(crate) fn files_at(path: &Path) -> Files {
        let (file, root) = place(path);
        let text = read_bounded(&file).unwrap_or_default();
        Files::named(&root, &file, &text)
    }

    fn read(text: &str, root: &Path, files: Files, stores: &Arc<Stores>) -> Result<Self, SpecErrors> {
        let reading = Reading::of(text, root)?;
        let Reading { document, keys, .. } = &reading;
        let mut errors = SpecErrors::default();
        let mut store = load::sets(document, keys.feature_sets.keys(), root, stores, &mut errors);
        load::vectors(document, keys.feature_vectors.keys(), &mut store, &mut errors);
        let store = Arc::new(store);
        let (models, fetched) = load::models(&reading, &mut errors);
        let models = Arc::new(models);
        let outside = Outside::new(root);
        let kinds = kinds(&models, &store, &outside);
        let specs = reading.graph_specs(&kinds, &mut errors);
        // Graphs are typed by their models and feature sets; without those every step would complain of the same mistake.
        errors.check()?;
        let graphs = Graphs { specs: &specs, kinds: &kinds, document };
        // What a set takes whose rows pass a graph is told by the graph: streams and other graphs come after those.
        let passages = graphs.passages(&store)?;
        let mut errors = SpecErrors::default();
        let streams = streams::load(document, keys.streams.keys(), root, &store, &mut errors);
        let graphs = graphs.make_all().unwrap_or_else(|problems| {
            errors.extend(problems);
            Vec::new()
        });
        about::check(document, &models, &specs, &graphs, &mut errors);
        for through in &passages {
            if specs.get(through.graph()).is_some_and(|spec| spec.record.is_some()) {
                let (graph, place) =
                    (through.graph(), document.place(&["graphs", through.graph(), "record"]));
                errors.push(
                    place,
                    format!(
                        "graph `{graph}`: `record` is for requests, and rows of a feature set pass this graph"
                    ),
                );
            }
        }
        let monitoring = monitoring::Plan::read(document, keys.monitoring.is_some(), root, &mut errors);
        let mut graphs = graphs;
        let watched = specs.iter().zip(&mut graphs).filter_map(|((name, spec), graph)| {
            monitoring::watch((name, spec), graph, document, root, &mut errors).map(Arc::new)
        });
        let watches = watched.collect();
        errors.check()?;
        load::rows_through(&reading, &store, &passages)?;
        let references: Vec<PathBuf> =
            specs.values().flat_map(|spec| monitoring::watched_files(spec, document, root)).collect();
        let references = references.iter().map(PathBuf::as_path);
        let files = files.with_fetched(fetched).with(models.files()).with(references);
        let graphs =
            specs.into_iter().zip(graphs).map(|((name, spec), graph)| (name, ProjectGraph { spec, graph }));
        Ok(Self {
            graphs: graphs.collect(),
            name: reading.keys.name,
            description: reading.keys.description,
            models,
            repository: reading.keys.repository,
            root: root.to_path_buf(),
            store,
            passages,
            streams,
            monitoring,
            watches,
            stores: Arc::clone(stores),
            outside,
            files,
            stamps: Stamps::new(),
            version: String::new(),
        })
    }

    /// The version: a digest of the content of every file that was read, 16 hexadecimal digits.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The files that were read.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// The project's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the project is for.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The names of its graphs, in the order of the file.
    pub fn graph_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.graphs.keys().map(String::as_str)
    }

    /// Its models.
    pub fn models(&self) -> &Arc<ModelSet> {
        &self.models
    }

    /// The folder of further models that it names. A [`Server`](crate::Server) opens it.
    pub fn repository(&self) -> Option<&RepositorySpec> {
        self.repository.as_ref()
    }

    /// The folder that all its paths stay inside.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Its feature sets, loaded or open. Those whose rows pass a graph take rows while the project is there.
    pub fn features(&self) -> &Arc<FeatureSets> {
        &self.store
    }

    /// The graphs that rows of its sets pass.
    pub(crate) fn passages(&self) -> &[Arc<Through>] {
        &self.passages
    }

    /// Its streams, for [`Streams`](millstream_featurestore::stream::Streams) to run. A [`Server`](crate::Server) runs those of
    /// its project while it serves.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// How its graphs are watched, whichever they are.
    pub(crate) fn monitoring(&self) -> &monitoring::Plan {
        &self.monitoring
    }

    /// What is watched of its graphs.
    pub(crate) fn watches(&self) -> &[Arc<GraphWatch>] {
        &self.watches
    }

    /// Its feature vectors, in the order of the file.
    pub fn vectors(&self) -> impl Iterator<Item = &Arc<Vector>> {
        self.store.vectors()
    }

    /// Where its sets that take rows are open.
    pub fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }

    /// The folder of the project at `path`.
    pub(crate) fn folder(path: &Path) -> PathBuf {
        place(path).1
    }

    /// What its steps that reach beyond the process share.
    pub fn outside(&self) -> &Arc<Outside> {
        &self.outside
    }

    /// A graph as the file has it.
    ///
    /// # Errors
    /// When there is no graph of this name, naming the closest one.
    pub fn graph_spec(&self, name: &str) -> Result<&GraphSpec, ProjectError> {
        Ok(&self.graph_entry(name)?.spec)
    }

    /// A graph, to add steps and taps to in Rust.
    ///
    /// # Errors
    /// When there is no graph of this name, naming the closest one.
    pub fn graph(&self, name: &str) -> Result<Graph, ProjectError> {
        Ok(self.graph_entry(name)?.graph.clone())
    }

    /// A graph, compiled.
    ///
    /// # Errors
    /// When there is no graph of this name, naming the closest one.
    pub fn plan(&self, name: &str) -> Result<Plan, ProjectError> {
        let graph = &self.graph_entry(name)?.graph;
        Ok(graph.compile()?)
    }

    /// An engine that runs a graph.
    ///
    /// # Errors
    /// When there is no graph of this name, or the engine cannot start its threads.
    pub fn engine(&self, name: &str, limits: Limits) -> Result<Engine, ProjectError> {
        Ok(Engine::new(self.plan(name)?, limits)?)
    }

    /// An engine that counts among the metrics of others.
    ///
    /// # Errors
    /// As [`Project::engine`].
    pub fn engine_with(&self, name: &str, limits: Limits, metrics: &Metrics) -> Result<Engine, ProjectError> {
        Ok(Engine::with_metrics(self.plan(name)?, limits, metrics)?)
    }

    /// Those files as their folders had them before they were read.
    pub(crate) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    fn graph_entry(&self, name: &str) -> Result<&ProjectGraph, ProjectError> {
        let unknown = || ProjectError::UnknownGraph {
            message: millstream_graph::suggest::unknown("graph", name, self.graph_names()),
        };
        self.graphs.get(name).ok_or_else(unknown)
    }
}

/// Every kind of step that a project file may name.
pub fn kinds(models: &Arc<ModelSet>, store: &Arc<FeatureSets>, outside: &Arc<Outside>) -> Kinds {
    kinds_over(models, &(Arc::clone(store) as _), outside)
}

/// The same, over feature sets of any kind.
fn kinds_over(models: &Arc<ModelSet>, store: &Arc<dyn OnlineStore>, outside: &Arc<Outside>) -> Kinds {
    let kinds = Kinds::default()
        .with(spec::kinds())
        .with(millstream_transform::kinds())
        .with(millstream_models::kinds(Arc::clone(models)))
        .with(millstream_featurestore::kinds(Arc::clone(store)))
        .with(crate::remote::kinds(outside))
        .with(crate::sink::kinds(outside))
        .with_layers(millstream_runtime::layers::kinds());
    let kinds = kinds.clone().with([millstream_transform::quorum_kind(kinds)]);
    // Around all others: a step and its canary each have their own.
    let canary = millstream_transform::canary_layer(kinds.clone());
    kinds.with_layers([canary])
}

/// The JSON Schema of a project file.
pub fn project_schema() -> Schema {
    let mut generator = SchemaGenerator::default();
    let kinds = kinds(&Arc::default(), &Arc::default(), &Arc::default());
    let graph = spec::graph_schema(&kinds, &mut generator).to_value();
    let set = generator.subschema_for::<FeatureSetSpec>().to_value();
    let stream = generator.subschema_for::<StreamSpec>().to_value();
    let vector = generator.subschema_for::<VectorSpec>().to_value();
    let model = generator.subschema_for::<ModelSpec>().to_value();
    let monitoring = generator.subschema_for::<MonitoringSpec>().to_value();
    let watch = generator.subschema_for::<WatchSpec>().to_value();
    let record = generator.subschema_for::<RecordSettings>().to_value();
    let mut schema = generator.into_root_schema_for::<ProjectKeys>();
    let entries = [
        ("feature_sets", set),
        ("feature_vectors", vector),
        ("streams", stream),
        ("models", model),
        ("graphs", graph),
    ];
    for (key, entry) in entries {
        if let Some(place) = schema.pointer_mut(&format!("/properties/{key}/additionalProperties")) {
            *place = entry;
        }
    }
    let graph = "/properties/graphs/additionalProperties/properties";
    let entries = [
        ("/properties/monitoring".to_owned(), monitoring),
        (format!("{graph}/monitor/additionalProperties"), watch),
        (format!("{graph}/record"), record),
    ];
    for (pointer, entry) in entries {
        if let Some(place) = schema.pointer_mut(&pointer) {
            *place = entry;
        }
    }
    schema
}

/// An error and its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}
