//! The models of a project, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;
use millstream_graph::{SchemaError, Step, spec::StepKind, suggest};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    CheckedModel, Columns, Ensemble, EnsembleSettings, Keep, LoadError, LoadOptions, Model, ModelStep, Nulls,
    Pick, SequenceSettings, session,
};

/// Where a model is, and how it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The ONNX file, relative to the project's folder and inside it.
    pub path: PathBuf,
    /// How many runs may be inside the model at once; each costs the model's memory. Default: one per core.
    #[serde(default)]
    pub instances: Option<NonZeroUsize>,
    /// Whether to run the model once, on zeros, before it is ready.
    #[serde(default = "yes")]
    pub warm_up: bool,
    /// The SHA-256 that the file must have, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Whether each instance runs in a process of its own, so that what the model does to its process is an error of one request. For
    /// models of people whom you do not trust; a run takes longer by what its tensors take to be sent.
    #[serde(default)]
    pub isolated: bool,
    /// What the model is for.
    #[serde(default)]
    pub description: Option<String>,
    /// What else there is to know of it, such as whose it is, by name. Clients that ask for its configuration are told.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The graph of the project that explains its answers: it takes what the model takes, and its reply is the explanation.
    #[serde(default)]
    pub explain: Option<String>,
    /// Its statistics, which monitoring compares with under `reference: {model: ...}`, or the training set itself: relative to the
    /// project's folder. Default: `statistics.json` beside the file, where that lies in a folder for its version, as in `fraud/1/`.
    #[serde(default)]
    pub statistics: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

impl ModelSpec {
    /// The file at `path`, loaded as by default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            instances: None,
            warm_up: true,
            sha256: None,
            isolated: false,
            description: None,
            labels: BTreeMap::new(),
            explain: None,
            statistics: None,
        }
    }
}

/// A model of a set that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("model `{name}` ({}): {reason}", path.display())]
pub struct ModelSetError {
    /// The model's name.
    pub name: String,
    /// Its file, as the project names it.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: LoadError,
}

/// Loaded models, by name. Cheap to share by `Arc`; never changes.
#[derive(Clone, Default)]
pub struct ModelSet {
    models: BTreeMap<String, Arc<dyn Model>>,
    specs: BTreeMap<String, ModelSpec>,
    files: BTreeSet<PathBuf>,
}

impl ModelSet {
    /// Loads every model of `specs`; their paths are relative to the folder `root` and may not leave it.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn load(root: &Path, specs: &IndexMap<String, ModelSpec>) -> Result<Self, Vec<ModelSetError>> {
        let mut set = Self::default();
        let mut errors = Vec::new();
        for (name, spec) in specs {
            let options = LoadOptions {
                instances: spec.instances,
                warm_up: spec.warm_up,
                sha256: spec.sha256.clone(),
                isolated: spec.isolated,
                ..LoadOptions::default()
            };
            let loaded = CheckedModel::read(root, &spec.path, &options.limits)
                .map_err(LoadError::from)
                .and_then(|checked| Ok((session::load(name, &checked, &options)?, checked)));
            match loaded {
                Ok((model, checked)) => {
                    let folder = spec.path.parent().unwrap_or(Path::new(""));
                    set.files.insert(spec.path.clone());
                    set.files.extend(checked.data_files().map(|file| folder.join(file)));
                    set = set.with(name, model);
                    set.specs.insert(name.clone(), spec.clone());
                }
                Err(reason) => {
                    errors.push(ModelSetError { name: name.clone(), path: spec.path.clone(), reason })
                }
            }
        }
        if errors.is_empty() { Ok(set) } else { Err(errors) }
    }

    /// Adds a model, in the place of one that has the name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, model: Arc<dyn Model>) -> Self {
        let name = name.into();
        self.specs.remove(&name);
        self.models.insert(name, model);
        self
    }

    /// The model named `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Model>> {
        self.models.get(name)
    }

    /// How the model named `name` was to be loaded; none for one that was added in Rust.
    pub fn spec(&self, name: &str) -> Option<&ModelSpec> {
        self.specs.get(name)
    }

    /// Every model, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<dyn Model>)> {
        self.models.iter().map(|(name, model)| (name.as_str(), model))
    }

    /// The files that loading read, relative to the project's folder: the models' own and those that their data lies in.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The model named `name`, or an error with the closest name.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<dyn Model>, SchemaError> {
        let known = self.models.keys().map(String::as_str);
        self.get(name).map(Arc::clone).ok_or_else(|| SchemaError::new(suggest::unknown("model", name, known)))
    }
}

impl std::fmt::Debug for ModelSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.models.keys()).finish()
    }
}

/// Runs a model over the rows and adds its outputs as columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The model, as the project's `models` names it.
    pub r#use: String,
    /// The columns that make up each input: one column, or a list of columns side by side. An input that is not
    /// mentioned takes the column of its own name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Columns>")]
    pub inputs: IndexMap<String, Columns>,
    /// The columns to add, each with the output, or the part of one, that it is: `probabilities[1]`. Without it,
    /// every output becomes a column under its own name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Pick>")]
    pub outputs: IndexMap<String, Pick>,
    /// Which of the columns that come in are passed on.
    #[serde(default)]
    pub keep: Keep,
    /// What happens to a row with a null in a column that the model takes.
    #[serde(default)]
    pub nulls: Nulls,
}

impl ModelSettings {
    /// The step that these settings describe, with a model of `models`.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn step(self, models: &ModelSet) -> Result<ModelStep, SchemaError> {
        let model = models.find(&self.r#use)?;
        Ok(ModelStep::new(model).with_settings(self.inputs, self.outputs).keep(self.keep).nulls(self.nulls))
    }
}

/// The kinds of step that project files may name: `model` and `sequence`, with a model of `models`, and `ensemble`.
pub fn kinds(models: Arc<ModelSet>) -> Vec<StepKind> {
    let stateful = Arc::clone(&models);
    vec![
        StepKind::new("model", move |settings: ModelSettings| {
            Ok(Arc::new(settings.step(&models)?) as Arc<dyn Step>)
        }),
        StepKind::new("sequence", move |settings: SequenceSettings| {
            Ok(Arc::new(settings.step(&stateful)?) as Arc<dyn Step>)
        }),
        StepKind::new("ensemble", |settings: EnsembleSettings| {
            Ok(Arc::new(Ensemble::try_from(settings)?) as Arc<dyn Step>)
        }),
    ]
}
