//! The models of a project, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;
use millstream_graph::{
    SchemaError, Step,
    spec::{Size, StepKind, Time},
    suggest,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    CheckedModel, Columns, Ensemble, EnsembleSettings, HeaderText, Keep, Limits, LoadError, LoadOptions,
    Model, ModelStep, ModelUrl, Nulls, Pick, SequenceSettings, session,
};

/// Where a model is, and how it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The ONNX file, relative to the project's folder and inside it. A model has this or `url`.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Where the ONNX file is fetched from when the project is loaded.
    #[serde(default)]
    pub url: Option<ModelUrl>,
    /// Headers of the call to an `https://` or `http://` URL, by name. Those that say who asks are references: `env:NAME` or `file:PATH`.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderText>,
    /// The certificate authorities that the URL's server is trusted by, in place of the machine's: a PEM file in the project's folder.
    #[serde(default)]
    pub ca: Option<String>,
    /// The time that all of the file has to come from its URL. Default: 10 minutes.
    #[serde(default)]
    pub timeout: Option<Time>,
    /// The most bytes of the file. Default, and the most there can be: 2 GiB.
    #[serde(default)]
    pub max_bytes: Option<Size>,
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
            path: Some(path.into()),
            url: None,
            headers: BTreeMap::new(),
            ca: None,
            timeout: None,
            max_bytes: None,
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

    /// Where the file is.
    ///
    /// # Errors
    /// When it is nowhere or in two places, or is fetched by settings although it is here.
    pub fn source(&self) -> Result<ModelSource<'_>, LoadError> {
        let wrong = |problem| Err(LoadError::Source { problem });
        let fetched = !self.headers.is_empty() || self.ca.is_some() || self.timeout.is_some();
        match (&self.path, &self.url) {
            (Some(_), Some(_)) => wrong("it has a `path` and a `url`; one of them says where its file is"),
            (None, None) => wrong("`path` or `url` says where its file is"),
            (Some(_), None) if fetched => wrong("`headers`, `ca` and `timeout` are for a `url`"),
            (Some(path), None) => Ok(ModelSource::Path(path)),
            (None, Some(url)) => Ok(ModelSource::Url(url)),
        }
    }

    /// What the file may be.
    pub fn limits(&self) -> Limits {
        let limits = Limits::default();
        let bytes = self.max_bytes.map_or(limits.bytes, |most| limits.bytes.min(most.0 as u64));
        Limits { bytes, ..limits }
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            instances: self.instances,
            warm_up: self.warm_up,
            sha256: self.sha256.clone(),
            isolated: self.isolated,
            limits: self.limits(),
        }
    }

    /// Where the file is, as it may be shown.
    fn shown(&self) -> String {
        match (&self.path, &self.url) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(url)) => url.to_string(),
            (None, None) => "no file".to_owned(),
        }
    }
}

/// Where a model's file is.
#[derive(Clone, Copy, Debug)]
pub enum ModelSource<'s> {
    /// In the project's folder.
    Path(&'s Path),
    /// Elsewhere.
    Url(&'s ModelUrl),
}

/// A model's file that was fetched from its URL.
#[derive(Clone, Debug)]
pub struct FetchedModel {
    /// The file, alone in its folder.
    pub file: PathBuf,
    /// Its SHA-256 in hexadecimal: another one is refused.
    pub sha256: String,
}

/// A model of a set that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("model `{name}` ({place}): {reason}")]
pub struct ModelSetError {
    /// The model's name.
    pub name: String,
    /// Its file as the project names it, without what may be secret.
    pub place: String,
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
    /// Everything that is wrong with any of them, and that one has a URL: nothing is fetched here.
    pub fn load(root: &Path, specs: &IndexMap<String, ModelSpec>) -> Result<Self, Vec<ModelSetError>> {
        Self::load_fetched(root, specs, &BTreeMap::new())
    }

    /// The same, with the files of those that have a URL.
    ///
    /// # Errors
    /// As [`ModelSet::load`].
    pub fn load_fetched(
        root: &Path,
        specs: &IndexMap<String, ModelSpec>,
        fetched: &BTreeMap<String, FetchedModel>,
    ) -> Result<Self, Vec<ModelSetError>> {
        let mut set = Self::default();
        let mut errors = Vec::new();
        for (name, spec) in specs {
            match set.load_one(name, spec, root, fetched.get(name)) {
                Ok(model) => {
                    set = set.with(name, model);
                    set.specs.insert(name.clone(), spec.clone());
                }
                Err(reason) => errors.push(ModelSetError { name: name.clone(), place: spec.shown(), reason }),
            }
        }
        if errors.is_empty() { Ok(set) } else { Err(errors) }
    }

    /// Loads a model, and writes down the files of the project that it is made of.
    fn load_one(
        &mut self,
        name: &str,
        spec: &ModelSpec,
        root: &Path,
        fetched: Option<&FetchedModel>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let options = spec.options();
        let path = match (spec.source()?, fetched) {
            (ModelSource::Path(path), _) => path,
            (ModelSource::Url(_), Some(FetchedModel { file, sha256 })) => {
                let folder = file.parent().unwrap_or(Path::new(""));
                let file = Path::new(file.file_name().unwrap_or_default());
                let checked = CheckedModel::read(folder, file, &options.limits)?;
                // Whoever else may write into that folder: what is loaded is what was fetched.
                let options = LoadOptions { sha256: Some(sha256.clone()), ..options };
                return session::load(name, &checked, &options);
            }
            (ModelSource::Url(_), None) => {
                return Err(LoadError::Source { problem: "it has a `url`, from which nothing was fetched" });
            }
        };
        let checked = CheckedModel::read(root, path, &options.limits)?;
        let model = session::load(name, &checked, &options)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        self.files.insert(path.to_owned());
        self.files.extend(checked.data_files().map(|file| folder.join(file)));
        Ok(model)
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
