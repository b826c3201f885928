//! Models in a folder, as Triton lays them out: `NAME/config.pbtxt`, `NAME/VERSION/model.onnx`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    VersionPolicy,
    config::{CONFIG_FILE, ModelConfig},
};
use crate::{
    CheckedModel, LoadOptions, Model, PrecheckError,
    precheck::inside,
    session::{self, hex},
};

/// The most models that are looked for, and versions of one.
const ENTRIES: usize = 100_000;
/// The most bytes of a file with the names of classes, and of a configuration.
const TEXT_BYTES: u64 = 1 << 20;

/// One version of a model, loaded.
pub struct LoadedVersion {
    /// The model's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// The model.
    pub model: Arc<dyn Model>,
    /// How it is to be served.
    pub config: Arc<ModelConfig>,
    /// By output, the names of classes that the model itself does not have.
    pub labels: BTreeMap<String, Vec<String>>,
}

/// What a client gives along to load a model by, in the place of what its folder has.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The configuration, as JSON.
    pub config: Option<String>,
    /// Files below the model's folder. With any, the folder's own models are not looked at.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A model whose files have been checked, and nothing else.
pub(super) struct Checked {
    name: String,
    config: Arc<ModelConfig>,
    labels: BTreeMap<String, Vec<String>>,
    versions: Vec<(u64, CheckedModel)>,
    /// Bytes of the files times instances: what the models will hold, as far as that can be told.
    pub(super) bytes: u64,
}

/// The names of the folders that may be models'.
pub(super) fn names(root: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(|error| unreadable(root, &error))?.take(ENTRIES) {
        let entry = entry.map_err(|error| unreadable(root, &error))?;
        if let Ok(name) = entry.file_name().into_string()
            && is_name(&name)
            && entry.path().is_dir()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether it can be the name of a model's folder: one that leads nowhere else, and is not hidden.
pub(super) fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let only = matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name);
    only && !name.starts_with('.')
}

/// The versions in a model's folder, in the order of their numbers.
pub(super) fn versions(root: &Path, name: &str) -> Result<Vec<u64>, String> {
    let folder = inside(root, Path::new(name)).map_err(|error| error.to_string())?;
    let mut versions = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| unreadable(Path::new(name), &error))?.take(ENTRIES) {
        let entry = entry.map_err(|error| unreadable(Path::new(name), &error))?;
        versions.extend(entry.file_name().to_str().and_then(number).filter(|_| entry.path().is_dir()));
    }
    versions.sort_unstable();
    Ok(versions)
}

/// A version's number as its folder has it: without a sign, without zeros in front, from 1 on.
pub(super) fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

impl VersionPolicy {
    /// Those of the versions that are there which are served, or which one is missing.
    pub(super) fn served(&self, there: &[u64]) -> Result<Vec<u64>, String> {
        let served = match self {
            Self::All => there.to_vec(),
            Self::Latest(count) => there[there.len().saturating_sub(*count)..].to_vec(),
            Self::Specific(wanted) => match wanted.iter().find(|version| !there.contains(version)) {
                Some(missing) => {
                    return Err(format!("there is no version {missing}, which version_policy names"));
                }
                None => wanted.clone(),
            },
        };
        if served.is_empty() {
            Err("its folder has no version, such as `1/model.onnx`".into())
        } else {
            Ok(served)
        }
    }
}

/// The configuration in a model's folder; without one, as by default.
pub(super) fn config(root: &Path, name: &str) -> Result<ModelConfig, String> {
    match text(root, &Path::new(name).join(CONFIG_FILE))? {
        Some(text) => ModelConfig::from_text(name, &text).map_err(|error| error.to_string()),
        None => Ok(ModelConfig::default()),
    }
}

impl Checked {
    /// Reads what a model's folder has, or what was `given` in its place, and checks it.
    pub(super) fn read(
        root: &Path,
        name: &str,
        given: &Given,
        options: &LoadOptions,
    ) -> Result<Self, String> {
        let config = match &given.config {
            Some(json) => ModelConfig::from_json(name, json).map_err(|error| error.to_string())?,
            None => config(root, name)?,
        };
        let given = given_versions(&config, given)?;
        let there = if given.is_empty() { versions(root, name)? } else { given.keys().copied().collect() };
        let instances = config.instances.or(options.instances).map_or(1, |count| count.get() as u64);
        let (mut versions, mut bytes) = (Vec::new(), 0_u64);
        for version in config.versions.served(&there)? {
            let file = model_file(version, &config);
            let checked = match given.get(&version) {
                Some(bytes) => {
                    let folder = inside(root, Path::new(name)).map_err(|error| error.to_string())?;
                    let folder = folder.join(version.to_string());
                    CheckedModel::of_bytes(bytes.clone(), folder, &options.limits)
                }
                None => CheckedModel::read(root, &Path::new(name).join(&file), &options.limits),
            };
            let checked = checked.map_err(|error| format!("version {version}: {error}"))?;
            let got = hex(&Sha256::digest(checked.bytes()));
            pinned(&config, &file, &got).map_err(|problem| format!("version {version}: {problem}"))?;
            bytes = bytes.saturating_add(checked.size().saturating_mul(instances));
            versions.push((version, checked));
        }
        // What the model itself does not hold: weights beside it, names of classes, versions that are not served.
        let read = |file: &Path| versions.iter().any(|(version, _)| file == model_file(*version, &config));
        for file in config.pinned().filter(|file| !read(file)) {
            pinned(&config, file, &digest(root, name, file)?)?;
        }
        let labels = labels(root, name, &config)?;
        Ok(Self { name: name.to_owned(), config: Arc::new(config), labels, versions, bytes })
    }

    /// Loads every version, and runs each once.
    pub(super) fn load(self, options: &LoadOptions) -> Result<Vec<LoadedVersion>, String> {
        let Self { name, config, labels, versions, .. } = self;
        let options = LoadOptions { instances: config.instances.or(options.instances), ..options.clone() };
        let load = |(version, checked): (u64, CheckedModel)| {
            let loaded = session::load(&name, &checked, &options);
            let model = loaded.map_err(|error| format!("version {version}: {error}"))?;
            config.check(model.info()).map_err(|error| format!("version {version}: {error}"))?;
            let (name, config, labels) = (name.clone(), Arc::clone(&config), labels.clone());
            Ok(LoadedVersion { name, version, model, config, labels })
        };
        versions.into_iter().map(load).collect()
    }
}

/// The models among the files that were given, by version.
fn given_versions(config: &ModelConfig, given: &Given) -> Result<BTreeMap<u64, Bytes>, String> {
    let mut versions = BTreeMap::new();
    for (file, bytes) in &given.files {
        let parts: Vec<_> =
            file.components().map(|part| part.as_os_str().to_str().unwrap_or_default()).collect();
        match parts[..] {
            [version, name] if name == config.file && number(version).is_some() => {
                versions.extend(number(version).map(|version| (version, Bytes::from(bytes.clone()))));
            }
            _ => {
                let wanted = format!("VERSION/{}", config.file);
                return Err(format!("file `{}` is not taken along; `{wanted}` is", file.display()));
            }
        }
    }
    Ok(versions)
}

fn model_file(version: u64, config: &ModelConfig) -> PathBuf {
    PathBuf::from(version.to_string()).join(&config.file)
}

/// Refuses a file that is not the one that the configuration pins.
fn pinned(config: &ModelConfig, file: &Path, got: &str) -> Result<(), String> {
    match config.digest(file) {
        Some(wanted) if !got.eq_ignore_ascii_case(wanted.trim()) => {
            Err(format!("the sha256 of `{}` is {got}, not {wanted}", file.display()))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 of a file below a model's folder.
fn digest(root: &Path, name: &str, file: &Path) -> Result<String, String> {
    let path = inside(root, &Path::new(name).join(file)).map_err(|error| error.to_string())?;
    let mut hash = Sha256::new();
    let mut reader = File::open(path).map_err(|error| unreadable(file, &error))?;
    let mut part = vec![0; 1 << 16];
    loop {
        match reader.read(&mut part).map_err(|error| unreadable(file, &error))? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&part[..read]),
        }
    }
}

/// The names of classes that the configuration names files for, one on each line.
fn labels(root: &Path, name: &str, config: &ModelConfig) -> Result<BTreeMap<String, Vec<String>>, String> {
    let named = config.labels().map(|(output, file)| {
        let text = text(root, &Path::new(name).join(file))?.ok_or_else(|| format!("there is no `{file}`"))?;
        Ok((output.to_owned(), text.lines().map(|line| line.trim_end().to_owned()).collect()))
    });
    named.collect()
}

/// The text of a small file inside `root`; none when it is not there.
fn text(root: &Path, path: &Path) -> Result<Option<String>, String> {
    let file = match inside(root, path) {
        Ok(file) => file,
        Err(PrecheckError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut text = String::new();
    File::open(file)
        .and_then(|file| file.take(TEXT_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(path, &error))?;
    if text.len() as u64 > TEXT_BYTES {
        return Err(format!("`{}` has more than {TEXT_BYTES} bytes", path.display()));
    }
    Ok(Some(text))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read `{}`: {}", path.display(), error.kind())
}
