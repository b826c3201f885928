//! What is read of a project file, as far as it is asked for.

use std::path::{Path, PathBuf};
#[cfg(feature = "offline")]
use std::sync::Arc;

use indexmap::IndexMap;
use millstream_featurestore::{FeatureSetSpec, FeatureSets, Stores};
#[cfg(feature = "offline")]
use millstream_featurestore::{OnlineStore, Vector, VectorSpec};
#[cfg(feature = "offline")]
use millstream_graph::{Graph, Plan};
use millstream_graph::{
    spec::{Document, GraphSpec, Kinds, MAX_BYTES, SpecErrors},
    suggest,
};
use millstream_models::RepositorySpec;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Files, PROJECT_FILE, Project, ProjectError, load};
#[cfg(feature = "offline")]
use super::{graphs::Graphs, kinds_over};
use crate::fetch::CacheSpec;
#[cfg(feature = "offline")]
use crate::outside::Outside;

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

/// The keys of a project file; what stands under them is read entry by entry.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `name`, `graphs` and more")]
#[schemars(title = "Millstream project")]
pub(super) struct ProjectKeys {
    /// The project's name.
    pub(super) name: String,
    /// What the project is for.
    pub(super) description: Option<String>,
    /// Features that are stored together, by the name of their set.
    #[serde(default)]
    pub(super) feature_sets: IndexMap<String, Value>,
    /// Streams of events into feature sets, by name.
    #[serde(default)]
    pub(super) streams: IndexMap<String, Value>,
    /// Features of several sets that are read together, by the name of their vector.
    #[serde(default)]
    pub(super) feature_vectors: IndexMap<String, Value>,
    /// ONNX models, by name.
    #[serde(default)]
    pub(super) models: IndexMap<String, Value>,
    /// Where the files of models that have a `url` are kept.
    pub(super) model_cache: Option<CacheSpec>,
    /// A folder of further models, which are served by themselves and come and go while the server runs.
    pub(super) repository: Option<RepositorySpec>,
    /// How what the graphs carry is watched, whichever graph it is.
    pub(super) monitoring: Option<Value>,
    /// Serving graphs, by name.
    #[serde(default)]
    pub(super) graphs: IndexMap<String, Value>,
}

/// A project file that is read as far as its keys.
pub(super) struct Reading {
    /// The folder that all its paths stay inside.
    pub(super) root: PathBuf,
    pub(super) document: Document,
    pub(super) keys: ProjectKeys,
}

impl Reading {
    pub(super) fn of(text: &str, root: &Path) -> Result<Self, SpecErrors> {
        let document = Document::read(text)?;
        let keys = document.typed(&[])?;
        Ok(Self { root: root.to_path_buf(), document, keys })
    }

    pub(super) fn sets(&self) -> Result<Definitions, SpecErrors> {
        let names = self.keys.feature_sets.keys();
        names.map(|name| Ok((name.clone(), self.document.typed(&["feature_sets", name])?))).collect()
    }

    pub(super) fn graph_specs(&self, kinds: &Kinds, errors: &mut SpecErrors) -> IndexMap<String, GraphSpec> {
        let Self { document, keys, .. } = self;
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
        if keys.graphs.is_empty() && keys.models.is_empty() && keys.repository.is_none() {
            errors.push(document.place(&["graphs"]), "a project has at least one graph, model or repository");
        }
        specs
    }
}

impl Project {
    /// What the project at `path` defines, without loading any of it.
    ///
    /// # Errors
    /// As [`Project::load`], as far as the file goes.
    #[cfg(feature = "offline")]
    pub(crate) fn defined(path: &Path) -> Result<Defined, ProjectError> {
        read(path, |reading| {
            let expressions = load::expressions();
            let vector = |name: &String| {
                let spec: VectorSpec = reading.document.typed(&["feature_vectors", name])?;
                Ok((name.clone(), spec.vector(name).expressions(expressions.clone())))
            };
            let vectors =
                reading.keys.feature_vectors.keys().map(vector).collect::<Result<_, SpecErrors>>()?;
            Ok(Defined { root: reading.root.clone(), sets: reading.sets()?, vectors })
        })
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
        Self::plan_changed(path, graph, store, acts, |_| {})
    }

    /// The same of a graph that `change` has changed.
    ///
    /// # Errors
    /// As [`Project::load`], as far as this graph goes.
    #[cfg(feature = "offline")]
    pub(crate) fn plan_changed(
        path: &Path,
        graph: Option<&str>,
        store: &Arc<dyn OnlineStore>,
        acts: crate::offline::Acts,
        change: impl FnOnce(&mut Graph),
    ) -> Result<(String, Plan), ProjectError> {
        read(path, |reading| {
            let Reading { root, document, keys } = &reading;
            let name = match one_of(graph, keys.graphs.keys().map(String::as_str)) {
                Ok(name) => name,
                Err(error) => return Ok(Err(error)),
            };
            let mut errors = SpecErrors::default();
            let (models, _fetched) = load::models(&reading, &mut errors);
            let models = Arc::new(models);
            let mut kinds = kinds_over(&models, store, &Outside::new(root)).with(crate::replay::passing());
            if acts == crate::offline::Acts::Not {
                kinds = kinds.with(crate::replay::silent());
            }
            let specs = reading.graph_specs(&kinds, &mut errors);
            errors.check()?;
            let (mut graph, _) = Graphs { specs: &specs, kinds: &kinds, document }.compiled(name)?;
            change(&mut graph);
            let place = |problems| GraphSpec::place_errors(&problems, document, &["graphs", name]);
            Ok(Ok((name.to_owned(), graph.compile().map_err(place)?)))
        })?
    }

    /// One graph of the project at `path`, the only one if none is named, and the folder of its request log, if it has one.
    ///
    /// # Errors
    /// As [`Project::load`], as far as that goes.
    #[cfg(feature = "offline")]
    pub(crate) fn record_of(
        path: &Path,
        graph: Option<&str>,
    ) -> Result<(String, Option<PathBuf>), ProjectError> {
        read(path, |Reading { root, document, keys }| {
            let name = match one_of(graph, keys.graphs.keys().map(String::as_str)) {
                Ok(name) => name,
                Err(error) => return Ok(Err(error)),
            };
            let record = document.get(&["graphs", name, "record"]);
            let folder = record.and_then(|record| record.get("path")).and_then(Value::as_str);
            let folder = folder.and_then(|folder| millstream_featurestore::inside(&root, folder).ok());
            Ok(Ok((name.to_owned(), folder.map(|folder| folder.join(name)))))
        })?
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
        read(path, |reading| {
            let mut errors = SpecErrors::default();
            let names = reading.keys.feature_sets.keys().filter(|name| wanted(name));
            let sets = load::sets(&reading.document, names, &reading.root, stores, &mut errors);
            errors.check()?;
            Ok((sets, reading.sets()?))
        })
    }

    /// Whether the URLs of the models of the project at `path`, which was read as these files, still answer what they did. Asks only
    /// for those that may have changed.
    pub(crate) fn is_fetched_as(path: &Path, files: &Files) -> bool {
        files.is_pinned()
            || read(path, |reading| Ok(load::fetched_now(&reading)))
                .is_ok_and(|now| now.is_some_and(|now| files.fetched_the_same(&now)))
    }

    /// The feature sets and vectors of the project at `path`, without its models and graphs.
    ///
    /// # Errors
    /// As [`Project::load`], as far as sets and vectors go.
    pub(crate) fn feature_vectors(path: &Path, stores: &Stores) -> Result<FeatureSets, ProjectError> {
        read(path, |Reading { root, document, keys }| {
            let mut errors = SpecErrors::default();
            let mut sets = load::sets(&document, keys.feature_sets.keys(), &root, stores, &mut errors);
            load::vectors(&document, keys.feature_vectors.keys(), &mut sets, &mut errors);
            errors.check()?;
            Ok(sets)
        })
    }
}

/// The graph that is asked for: the only one if none is named.
///
/// # Errors
/// When there is no such graph, or several and none is named.
pub(crate) fn one_of<'n>(
    asked: Option<&'n str>,
    mut names: impl Iterator<Item = &'n str> + Clone,
) -> Result<&'n str, ProjectError> {
    let known = names.clone();
    let message = match (asked, names.next(), names.next()) {
        (Some(name), ..) if known.clone().any(|known| known == name) => return Ok(name),
        (None, Some(only), None) => return Ok(only),
        (Some(name), ..) => suggest::unknown("graph", name, known),
        (None, ..) => format!("name one of the graphs: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Err(ProjectError::UnknownGraph { message })
}

/// Reads the project at `path`, and what `wanted` makes of it.
fn read<T>(path: &Path, wanted: impl FnOnce(Reading) -> Result<T, SpecErrors>) -> Result<T, ProjectError> {
    let (file, root) = place(path);
    match read_bounded(&file) {
        Ok(text) => Reading::of(&text, &root)
            .and_then(wanted)
            .map_err(|errors| ProjectError::Invalid { file, errors }),
        Err(source) => Err(ProjectError::Unreadable { file, source }),
    }
}

/// The project's file, and the folder that all its paths stay inside.
pub(super) fn place(path: &Path) -> (PathBuf, PathBuf) {
    let file = if path.is_dir() { path.join(PROJECT_FILE) } else { path.to_path_buf() };
    let root = file.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = root.to_path_buf();
    (file, root)
}

pub(super) fn read_bounded(file: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(file)?.len();
    if length > MAX_BYTES as u64 {
        return Err(std::io::Error::other(format!("a project file has at most {} bytes", MAX_BYTES)));
    }
    std::fs::read_to_string(file)
}

/// Whether a name can stand in a URL as it is.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}
