//! A project file: feature sets, models and graphs together, loaded and compiled.

pub(crate) mod conditions;
mod files;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;
use millstream_featurestore::{
    Expressions, FeatureSetSpec, FeatureSets, LoadOptions, OnlineStore, Stores, Vector, VectorSpec,
    stream::{Stream, StreamSpec},
};
use millstream_graph::{
    CompileErrors, Graph, Plan,
    spec::{self, Document, GraphSpec, Kinds, SpecErrors},
};
use millstream_models::{ModelSet, ModelSpec};
use millstream_runtime::{Engine, EngineError, Limits, Metrics};
use millstream_transform::With;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;

use crate::{outside::Outside, streams};
pub(crate) use files::{Files, Stamps};

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
    store: Arc<FeatureSets>,
    stores: Arc<Stores>,
    streams: Vec<Stream>,
    files: Files,
    stamps: Stamps,
    version: String,
    outside: Arc<Outside>,
}

/// Feature sets as a project file defines them.
pub(crate) type Definitions = IndexMap<String, FeatureSetSpec>;

/// What a project file defines, of which nothing has been loaded.
#[cfg(feature = "offline")]
pub(crate) struct Defined {
    /// The project's folder.
    pub(crate) root: PathBuf,
    pub(crate) sets: Definitions,
    pub(crate) vectors: IndexMap<String, Vector>,
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

/// The keys of a project file; what stands under them is read entry by entry.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `name`, `graphs` and more")]
#[schemars(title = "Millstream project")]
struct ProjectKeys {
    /// The project's name.
    name: String,
    /// What the project is for.
    description: Option<String>,
    /// Features that are stored together, by the name of their set.
    #[serde(default)]
    feature_sets: IndexMap<String, Value>,
    /// Streams of events into feature sets, by name.
    #[serde(default)]
    streams: IndexMap<String, Value>,
    /// Features of several sets that are read together, by the name of their vector.
    #[serde(default)]
    feature_vectors: IndexMap<String, Value>,
    /// ONNX models, by name.
    #[serde(default)]
    models: IndexMap<String, Value>,
    /// Serving graphs, by name.
    graphs: IndexMap<String, Value>,
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

    /// The files that the project at `path` is made of, as far as its file tells.
    pub(crate) fn files_at(path: &Path) -> Files {
        let (file, root) = place(path);
        let text = read_bounded(&file).unwrap_or_default();
        Files::named(&root, &file, &text)
    }

    fn read(text: &str, root: &Path, files: Files, stores: &Arc<Stores>) -> Result<Self, SpecErrors> {
        let document = Document::read(text)?;
        let keys: ProjectKeys = document.typed(&[])?;
        let mut errors = SpecErrors::default();
        let mut store = load_sets(&document, keys.feature_sets.keys(), root, stores, &mut errors);
        load_vectors(&document, keys.feature_vectors.keys(), &mut store, &mut errors);
        let store = Arc::new(store);
        let models = Arc::new(load_models(&document, keys.models.keys(), root, &mut errors));
        let outside = Outside::new(root);
        let kinds = kinds(&models, &store, &outside);
        let specs = graph_specs(&document, &keys, &kinds, &mut errors);
        // Graphs are typed by their models and feature sets; without those every step would complain of the same mistake.
        errors.check()?;
        let mut errors = SpecErrors::default();
        let streams = streams::load(&document, keys.streams.keys(), root, &store, &mut errors);
        let graphs = Graphs { specs: &specs, kinds: &kinds, document: &document }.make_all();
        let graphs = graphs.unwrap_or_else(|problems| {
            errors.extend(problems);
            Vec::new()
        });
        errors.check()?;
        let graphs =
            specs.into_iter().zip(graphs).map(|((name, spec), graph)| (name, ProjectGraph { spec, graph }));
        let files = files.with(models.files());
        Ok(Self {
            name: keys.name,
            description: keys.description,
            graphs: graphs.collect(),
            models,
            store,
            streams,
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
    pub fn graph_names(&self) -> impl Iterator<Item = &str> {
        self.graphs.keys().map(String::as_str)
    }

    /// Its models.
    pub fn models(&self) -> &Arc<ModelSet> {
        &self.models
    }

    /// Its feature sets, loaded or open.
    pub fn features(&self) -> &Arc<FeatureSets> {
        &self.store
    }

    /// Its streams, for [`Streams`](millstream_featurestore::stream::Streams) to run. A [`Server`](crate::Server) runs those of
    /// its project while it serves.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Its feature vectors, in the order of the file.
    pub fn vectors(&self) -> impl Iterator<Item = &Arc<Vector>> {
        self.store.vectors()
    }

    /// Where its sets that take rows are open.
    pub fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }

    /// What the project at `path` defines, without loading any of it.
    ///
    /// # Errors
    /// As [`Project::load`], as far as the file goes.
    #[cfg(feature = "offline")]
    pub(crate) fn defined(path: &Path) -> Result<Defined, ProjectError> {
        let (file, root) = place(path);
        let text =
            read_bounded(&file).map_err(|source| ProjectError::Unreadable { file: file.clone(), source })?;
        let read = || {
            let document = Document::read(&text)?;
            let keys: ProjectKeys = document.typed(&[])?;
            let expressions = expressions();
            let vector = |name: &String| {
                let spec: VectorSpec = document.typed(&["feature_vectors", name])?;
                Ok((name.clone(), spec.vector(name).expressions(expressions.clone())))
            };
            let vectors = keys.feature_vectors.keys().map(vector).collect::<Result<_, SpecErrors>>()?;
            Ok((definitions(&document, &keys)?, vectors))
        };
        let (sets, vectors) = read().map_err(|errors| ProjectError::Invalid { file, errors })?;
        Ok(Defined { root, sets, vectors })
    }

    /// One graph of the project at `path`, the only one if none is named, over the feature sets of `store`. Answers its name too.
    ///
    /// # Errors
    /// As [`Project::load`], as far as this graph goes.
    #[cfg(feature = "offline")]
    pub(crate) fn plan_over(
        path: &Path,
        graph: Option<&str>,
        store: &Arc<dyn OnlineStore>,
        acts: crate::offline::Acts,
    ) -> Result<(String, Plan), ProjectError> {
        let (file, root) = place(path);
        let text =
            read_bounded(&file).map_err(|source| ProjectError::Unreadable { file: file.clone(), source })?;
        let invalid = |errors| ProjectError::Invalid { file: file.clone(), errors };
        let document = Document::read(&text).map_err(invalid)?;
        let keys: ProjectKeys = document.typed(&[]).map_err(invalid)?;
        let mut names = keys.graphs.keys().map(String::as_str);
        let name = match (graph, names.next(), names.next()) {
            (Some(name), ..) if keys.graphs.contains_key(name) => name,
            (None, Some(only), None) => only,
            (Some(name), ..) => {
                let known = keys.graphs.keys().map(String::as_str);
                let message = millstream_graph::suggest::unknown("graph", name, known);
                return Err(ProjectError::UnknownGraph { message });
            }
            _ => {
                let known = keys.graphs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(ProjectError::UnknownGraph {
                    message: format!("name one of the graphs: {known}"),
                });
            }
        };
        let make = || {
            let mut errors = SpecErrors::default();
            let models = Arc::new(load_models(&document, keys.models.keys(), &root, &mut errors));
            let mut kinds = kinds_over(&models, store, &Outside::new(&root)).with(crate::replay::passing());
            if acts == crate::offline::Acts::Not {
                kinds = kinds.with(crate::replay::silent());
            }
            let specs = graph_specs(&document, &keys, &kinds, &mut errors);
            errors.check()?;
            let graphs = Graphs { specs: &specs, kinds: &kinds, document: &document };
            let graph = graphs.make(name, &mut Vec::new())?;
            graph
                .compile()
                .map_err(|problems| GraphSpec::place_errors(&problems, &document, &["graphs", name]))
        };
        Ok((name.to_owned(), make().map_err(invalid)?))
    }

    /// The feature sets of the project at `path` alone, as its file defines them, for those that `wanted` names.
    ///
    /// # Errors
    /// As [`Project::load`], as far as feature sets go.
    pub(crate) fn feature_sets(
        path: &Path,
        stores: &Stores,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(FeatureSets, Definitions), ProjectError> {
        let (file, root) = place(path);
        let unreadable = |source| ProjectError::Unreadable { file: file.clone(), source };
        let text = read_bounded(&file).map_err(unreadable)?;
        let read = || {
            let document = Document::read(&text)?;
            let keys: ProjectKeys = document.typed(&[])?;
            let mut errors = SpecErrors::default();
            let names = keys.feature_sets.keys().filter(|name| wanted(name));
            let sets = load_sets(&document, names, &root, stores, &mut errors);
            errors.check()?;
            Ok((sets, definitions(&document, &keys)?))
        };
        read().map_err(|errors| ProjectError::Invalid { file: file.clone(), errors })
    }

    /// The feature sets and vectors of the project at `path`, without its models and graphs.
    ///
    /// # Errors
    /// As [`Project::load`], as far as sets and vectors go.
    pub(crate) fn feature_vectors(path: &Path, stores: &Stores) -> Result<FeatureSets, ProjectError> {
        let (file, root) = place(path);
        let unreadable = |source| ProjectError::Unreadable { file: file.clone(), source };
        let text = read_bounded(&file).map_err(unreadable)?;
        let read = || {
            let document = Document::read(&text)?;
            let keys: ProjectKeys = document.typed(&[])?;
            let mut errors = SpecErrors::default();
            let mut sets = load_sets(&document, keys.feature_sets.keys(), &root, stores, &mut errors);
            load_vectors(&document, keys.feature_vectors.keys(), &mut sets, &mut errors);
            errors.check()?;
            Ok(sets)
        };
        read().map_err(|errors| ProjectError::Invalid { file: file.clone(), errors })
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
    Kinds::default()
        .with(spec::kinds())
        .with(millstream_transform::kinds())
        .with(millstream_models::kinds(Arc::clone(models)))
        .with(millstream_featurestore::kinds(Arc::clone(store)))
        .with(crate::remote::kinds(outside))
        .with(crate::sink::kinds(outside))
        .with_layers(millstream_runtime::layers::kinds())
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
    schema
}

fn graph_specs(
    document: &Document,
    keys: &ProjectKeys,
    kinds: &Kinds,
    errors: &mut SpecErrors,
) -> IndexMap<String, GraphSpec> {
    let mut specs = IndexMap::new();
    for name in keys.graphs.keys() {
        if !is_plain(name) {
            let place = document.place(&["graphs", name]);
            errors.push(place, format!("graph `{name}`: a graph's name is letters, digits, `_` and `-`"));
        }
        match GraphSpec::read(document, &["graphs", name], kinds) {
            Ok(spec) => drop(specs.insert(name.clone(), spec)),
            Err(problems) => errors.extend(problems),
        }
    }
    if keys.graphs.is_empty() {
        errors.push(document.place(&["graphs"]), "a project has at least one graph");
    }
    specs
}

fn definitions(document: &Document, keys: &ProjectKeys) -> Result<Definitions, SpecErrors> {
    let names = keys.feature_sets.keys();
    names.map(|name| Ok((name.clone(), document.typed(&["feature_sets", name])?))).collect()
}

/// The project's file, and the folder that all its paths stay inside.
fn place(path: &Path) -> (PathBuf, PathBuf) {
    let file = if path.is_dir() { path.join(PROJECT_FILE) } else { path.to_path_buf() };
    let root = file.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = root.to_path_buf();
    (file, root)
}

fn read_bounded(file: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(file)?.len();
    if length > spec::MAX_BYTES as u64 {
        return Err(std::io::Error::other(format!("a project file has at most {} bytes", spec::MAX_BYTES)));
    }
    std::fs::read_to_string(file)
}

fn load_sets<'n>(
    document: &Document,
    names: impl Iterator<Item = &'n String>,
    root: &Path,
    stores: &Stores,
    errors: &mut SpecErrors,
) -> FeatureSets {
    let mut store = FeatureSets::new();
    let options = LoadOptions { conditions: conditions::conditions(), ..LoadOptions::default() };
    for name in names {
        let path = ["feature_sets", name];
        match document.typed::<FeatureSetSpec>(&path) {
            Ok(set) => match set.open(name, root, stores, &options) {
                Ok(set) => store.insert(set),
                Err(error) => {
                    // A definition's own mistakes name the set already.
                    let (text, named) = (chain(&error), format!("feature set `{name}`: "));
                    let text = text.strip_prefix(&named).unwrap_or(&text);
                    errors.push(document.place(&path), format!("{named}{text}"));
                }
            },
            Err(problems) => errors.extend(problems),
        }
    }
    store
}

/// Adds vectors to the sets that they are of.
fn load_vectors<'n>(
    document: &Document,
    names: impl Iterator<Item = &'n String>,
    sets: &mut FeatureSets,
    errors: &mut SpecErrors,
) {
    // Sets that could not be loaded are no mistake of the vectors that name them.
    let complete = errors.errors().is_empty();
    let expressions = expressions();
    for name in names {
        let path = ["feature_vectors", name];
        let mut wrong = |place: &[String], text: &str| {
            let place: Vec<&str> = path.into_iter().chain(place.iter().map(String::as_str)).collect();
            errors.push(document.place(&place), format!("feature vector `{name}`: {text}"));
        };
        if !is_plain(name) {
            wrong(&[], "a vector's name is letters, digits, `_` and `-`");
        }
        match document.typed::<VectorSpec>(&path) {
            Ok(vector) if complete => {
                let vector = vector.vector(name).expressions(expressions.clone());
                for problem in sets.insert_vector(vector).err().into_iter().flatten() {
                    wrong(&problem.place, &problem.text);
                }
            }
            Ok(_) => {}
            Err(problems) => errors.extend(problems),
        }
    }
}

/// How vectors read the expressions of their columns.
fn expressions() -> Expressions {
    Expressions::new(|named| {
        let columns = named.iter().fold(With::new(), |with, (name, text)| with.column(name, text));
        Arc::new(columns)
    })
}

/// Whether a name can stand in a URL as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

fn load_models<'n>(
    document: &Document,
    names: impl Iterator<Item = &'n String>,
    root: &Path,
    errors: &mut SpecErrors,
) -> ModelSet {
    let mut specs = IndexMap::new();
    for name in names {
        match document.typed::<ModelSpec>(&["models", name]) {
            Ok(model) => drop(specs.insert(name.clone(), model)),
            Err(problems) => errors.extend(problems),
        }
    }
    ModelSet::load(root, &specs).unwrap_or_else(|problems| {
        for problem in problems {
            let message = format!("model `{}`: {}", problem.name, chain(&problem.reason));
            errors.push(document.place(&["models", &problem.name]), message);
        }
        ModelSet::default()
    })
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

/// Graphs of one file, some of which may stand as steps in others.
struct Graphs<'a> {
    specs: &'a IndexMap<String, GraphSpec>,
    kinds: &'a Kinds,
    document: &'a Document,
}

impl Graphs<'_> {
    fn make_all(&self) -> Result<Vec<Graph>, SpecErrors> {
        let mut errors = SpecErrors::default();
        let mut graphs = Vec::new();
        for name in self.specs.keys() {
            match self.make(name, &mut Vec::new()) {
                Ok(graph) => {
                    if let Err(problems) = graph.compile() {
                        errors.extend(GraphSpec::place_errors(&problems, self.document, &["graphs", name]));
                    }
                    graphs.push(graph);
                }
                Err(problems) => errors.extend(problems),
            }
        }
        errors.check()?;
        Ok(graphs)
    }

    /// Makes a graph; `inside` are the graphs that it is being put into, none of which it may hold itself.
    fn make(&self, name: &str, inside: &mut Vec<String>) -> Result<Graph, SpecErrors> {
        let mut errors = SpecErrors::default();
        inside.push(name.to_owned());
        let mut others: BTreeMap<String, Graph> = BTreeMap::new();
        for (step, used) in self.specs.get(name).into_iter().flat_map(used_graphs) {
            let place = self.document.place(&["graphs", name, "steps", step]);
            if inside.contains(&used) {
                errors.push(place, format!("step `{step}`: graph `{used}` would hold itself"));
            } else if self.specs.contains_key(&used) {
                others.insert(used.clone(), self.make(&used, inside)?);
            } else {
                let known = self.specs.keys().map(String::as_str);
                let message = millstream_graph::suggest::unknown("graph", &used, known);
                errors.push(place, format!("step `{step}`: {message}"));
            }
        }
        inside.pop();
        errors.check()?;
        let path = ["graphs", name];
        let find = |other: &str| others.get(other).cloned();
        self.specs[name].graph(name, self.kinds, &find, self.document, &path)
    }
}

/// The steps of a graph for which other graphs stand, and which.
fn used_graphs(spec: &GraphSpec) -> Vec<(&str, String)> {
    let graph_of = |step: &spec::StepSpec| match step.settings.get("use") {
        Some(Value::String(graph)) if step.kind == "graph" => Some(graph.clone()),
        _ => None,
    };
    spec.steps.iter().filter_map(|(name, step)| Some((name.as_str(), graph_of(step)?))).collect()
}
