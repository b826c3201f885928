//! What a model's `config.pbtxt` says, as far as it is followed; and what it may not say here.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::{proto, text};
use crate::{
    DType, ModelInfo, OutputKind,
    model::{Keys, Shape},
};

/// The file that a model has beside its versions.
pub const CONFIG_FILE: &str = "config.pbtxt";
/// The most bytes of it.
const CONFIG_BYTES: usize = 1 << 20;
/// How deep its messages may lie in each other; the format's reader goes down with them.
const CONFIG_DEPTH: usize = 64;
const MODEL_FILE: &str = "model.onnx";

/// How a model of a repository is to be served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The most rows of a request; `None` is any number, and declared shapes then have the rows in them.
    pub max_rows: Option<NonZeroUsize>,
    /// Which of the versions in its folder are served.
    pub versions: VersionPolicy,
    /// How many runs may be inside each version at once.
    pub instances: Option<NonZeroUsize>,
    /// The model's file, in the folder of a version.
    pub file: String,
    inputs: Vec<Declared>,
    outputs: Vec<Declared>,
    /// By output, the file in the model's folder with a class's name on each line.
    labels: BTreeMap<String, String>,
    /// By file below the model's folder, its SHA-256.
    digests: BTreeMap<PathBuf, String>,
}

/// An input or output as a configuration has it.
#[derive(Clone, Debug, PartialEq)]
struct Declared {
    name: String,
    data_type: i32,
    dims: Vec<i64>,
}

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The so many of the highest numbers.
    Latest(usize),
    /// All of them.
    All,
    /// These.
    Specific(Vec<u64>),
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            max_rows: None,
            versions: VersionPolicy::Latest(1),
            instances: None,
            file: MODEL_FILE.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            labels: BTreeMap::new(),
            digests: BTreeMap::new(),
        }
    }
}

/// What is wrong with a configuration: everything at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CONFIG_FILE}: {}", problems.join("; "))]
pub struct ConfigError {
    /// Each mistake by itself.
    pub problems: Vec<String>,
}

impl ConfigError {
    fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

impl ModelConfig {
    /// Reads the text of the file of model `name`.
    ///
    /// ```
    /// use millstream_models::{ModelConfig, VersionPolicy};
    ///
    /// let config = ModelConfig::from_text("iris", "max_batch_size: 8 version_policy { all {} }")?;
    /// assert_eq!(config.versions, VersionPolicy::All);
    /// # Ok::<(), millstream_models::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// All that is wrong with it, and what it asks for that is not done here.
    pub fn from_text(name: &str, text: &str) -> Result<Self, ConfigError> {
        bounded(text)?;
        let message = DynamicMessage::parse_text_format(descriptor()?, &text::with_colons(text))
            .map_err(|error| ConfigError::one(error.to_string()))?;
        Self::of(name, &message)
    }

    /// Reads the same as JSON, as clients send it who load a model with another configuration than its file has.
    ///
    /// # Errors
    /// As [`ModelConfig::from_text`].
    pub fn from_json(name: &str, json: &str) -> Result<Self, ConfigError> {
        bounded(json)?;
        let mut reader = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize(descriptor()?, &mut reader)
            .and_then(|message| reader.end().map(|()| message))
            .map_err(|error| ConfigError::one(error.to_string()))?;
        Self::of(name, &message)
    }

    fn of(name: &str, message: &DynamicMessage) -> Result<Self, ConfigError> {
        let config = proto::ModelConfig::decode(message.encode_to_vec().as_slice())
            .map_err(|error| ConfigError::one(error.to_string()))?;
        let mut problems = refused(name, &config);
        let wrong = &mut problems;
        let max_rows = usize::try_from(config.max_batch_size)
            .map_err(|_| format!("max_batch_size is {}; it counts rows, or is 0", config.max_batch_size));
        let max_rows = keep(max_rows, wrong);
        let instances = keep(instances(&config.instance_group), wrong).flatten();
        let versions = keep(policy(config.version_policy), wrong);
        let file = match config.default_model_filename {
            unnamed if unnamed.is_empty() => Some(MODEL_FILE.to_owned()),
            named => keep(plain("default_model_filename", named), wrong),
        };
        let mut labels = BTreeMap::new();
        for output in config.output.iter().filter(|output| !output.label_filename.is_empty()) {
            if let Some(file) = keep(plain("label_filename", output.label_filename.clone()), wrong) {
                labels.insert(output.name.clone(), file);
            }
        }
        let mut pinned = BTreeMap::new();
        for agent in config.model_repository_agents.into_iter().flat_map(|agents| agents.agents) {
            pinned.extend(keep(digests(agent), wrong).unwrap_or_default());
        }
        match (max_rows, versions, file) {
            (Some(max_rows), Some(versions), Some(file)) if problems.is_empty() => Ok(Self {
                max_rows: NonZeroUsize::new(max_rows),
                versions,
                instances,
                file,
                inputs: config.input.into_iter().map(Declared::from).collect(),
                outputs: config.output.into_iter().map(Declared::from).collect(),
                labels,
                digests: pinned,
            }),
            _ => Err(ConfigError { problems }),
        }
    }

    /// The files with the names of classes, by the output whose classes they name.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(output, file)| (output.as_str(), file.as_str()))
    }

    /// The SHA-256 that a file below the model's folder must have.
    pub(super) fn digest(&self, file: &Path) -> Option<&str> {
        self.digests.get(file).map(String::as_str)
    }

    /// The files below the model's folder whose SHA-256 is said.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &Path> {
        self.digests.keys().map(PathBuf::as_path)
    }

    /// Whether the model is what the configuration says it is.
    pub(super) fn check(&self, info: &ModelInfo) -> Result<(), ConfigError> {
        let inputs: Vec<_> =
            info.inputs.iter().map(|input| (&*input.name, input.dtype, input.shape.clone())).collect();
        let outputs = info.outputs.iter().map(|output| match &output.kind {
            OutputKind::Tensor { dtype, shape } => (&*output.name, *dtype, shape.clone()),
            OutputKind::Maps { keys: Keys::Ints(keys) } => {
                (&*output.name, DType::F32, vec![None, Some(keys.len())])
            }
            OutputKind::Maps { keys: Keys::Strings(keys) } => {
                (&*output.name, DType::F32, vec![None, Some(keys.len())])
            }
        });
        let outputs: Vec<_> = outputs.collect();
        let mut problems = Vec::new();
        let mut declared = |kind: &str, declared: &[Declared], has: &[(&str, DType, Vec<Option<usize>>)]| {
            for one in declared {
                match has.iter().find(|(name, ..)| *name == one.name) {
                    Some((_, dtype, shape)) => problems.extend(self.differs(kind, one, *dtype, shape)),
                    None => problems.push(millstream_graph::suggest::unknown(
                        kind,
                        &one.name,
                        has.iter().map(|(name, ..)| *name),
                    )),
                }
            }
        };
        declared("input", &self.inputs, &inputs);
        declared("output", &self.outputs, &outputs);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    fn differs(&self, kind: &str, declared: &Declared, dtype: DType, shape: &[Option<usize>]) -> Vec<String> {
        let Declared { name, data_type, dims } = declared;
        let mut problems = Vec::new();
        if *data_type != type_number(dtype) {
            let got = TYPES.get(usize::try_from(*data_type).unwrap_or(0)).unwrap_or(&TYPES[0]);
            problems.push(format!("{kind} `{name}` is declared {got}, and the model's is {dtype}"));
        }
        // Where rows are counted by `max_batch_size`, shapes do not have them.
        let has = if self.max_rows.is_some() { shape.get(1..).unwrap_or_default() } else { shape };
        let alike = |(declared, has): (&i64, &Option<usize>)| {
            *declared == -1 || has.is_none_or(|has| usize::try_from(*declared) == Ok(has))
        };
        if dims.len() != has.len() || !dims.iter().zip(has).all(alike) {
            let dims: Vec<_> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
            let rows = if self.max_rows.is_some() { " after its rows" } else { "" };
            problems.push(format!(
                "{kind} `{name}` is declared {}, and the model's is {}{rows}",
                Dims(&dims),
                Dims(has)
            ));
        }
        if self.max_rows.is_some() && shape.first().is_some_and(Option::is_some) {
            let shape = Shape(shape);
            problems.push(format!(
                "max_batch_size must be 0: {kind} `{name}` is {shape}, which has no room for more rows"
            ));
        }
        problems
    }
}

/// What was made, or one more problem.
fn keep<T>(made: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    made.map_err(|problem| problems.push(problem)).ok()
}

/// Sizes for people, -1 for any.
struct Dims<'a>(&'a [Option<usize>]);

impl std::fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims = self.0.iter().map(|dim| dim.map_or_else(|| "-1".to_owned(), |size| size.to_string()));
        write!(f, "[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

impl From<proto::Input> for Declared {
    fn from(proto::Input { name, data_type, dims, .. }: proto::Input) -> Self {
        Self { name, data_type, dims }
    }
}

impl From<proto::Output> for Declared {
    fn from(proto::Output { name, data_type, dims, .. }: proto::Output) -> Self {
        Self { name, data_type, dims }
    }
}

const TYPES: [&str; 15] = [
    "of no type",
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
];

fn type_number(dtype: DType) -> i32 {
    match dtype {
        DType::Bool => 1,
        DType::U8 => 2,
        DType::U16 => 3,
        DType::U32 => 4,
        DType::U64 => 5,
        DType::I8 => 6,
        DType::I16 => 7,
        DType::I32 => 8,
        DType::I64 => 9,
        DType::F16 => 10,
        DType::F32 => 11,
        DType::F64 => 12,
        DType::Str => 13,
    }
}

fn descriptor() -> Result<MessageDescriptor, ConfigError> {
    static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| {
        DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/model_config.bin")).as_slice()).ok()
    });
    let found = POOL.as_ref().and_then(|pool| pool.get_message_by_name("millstream.repository.ModelConfig"));
    found.ok_or_else(|| ConfigError::one("its format is not known to this build"))
}

/// Refuses what its reader should not be given.
fn bounded(text: &str) -> Result<(), ConfigError> {
    if text.len() > CONFIG_BYTES {
        return Err(ConfigError::one(format!("it has more than {CONFIG_BYTES} bytes")));
    }
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'{' | b'<' | b'[' => depth += 1,
            b'}' | b'>' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > CONFIG_DEPTH {
            return Err(ConfigError::one(format!("it goes deeper than {CONFIG_DEPTH} levels")));
        }
    }
    Ok(())
}

/// What a configuration asks for that is not done, each with what does it instead.
fn refused(name: &str, config: &proto::ModelConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let mut unless = |fine: bool, problem: String| {
        if !fine {
            problems.push(problem);
        }
    };
    unless(
        config.name.is_empty() || config.name == name,
        format!("name is `{}`, and the folder's is `{name}`", config.name),
    );
    let (platform, backend) = (config.platform.as_str(), config.backend.as_str());
    unless(
        matches!(platform, "" | "onnxruntime_onnx" | "onnx_onnxv1"),
        format!("platform `{platform}` is not served; `onnxruntime_onnx` is"),
    );
    unless(
        matches!(backend, "" | "onnxruntime"),
        format!("backend `{backend}` is not served; `onnxruntime` is"),
    );
    unless(
        config.ensemble_scheduling.is_none(),
        "ensemble_scheduling: put the models into a graph of the project".into(),
    );
    unless(
        config.sequence_batching.is_none(),
        "sequence_batching: models that keep a state between requests are not served from a repository"
            .into(),
    );
    unless(
        !config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled),
        "model_transaction_policy: an ONNX model answers each request once; decoupled must be false".into(),
    );
    unless(
        config.model_operations.as_ref().is_none_or(|operations| operations.op_library_filename.is_empty()),
        "model_operations: libraries of operators are not loaded".into(),
    );
    let inputs = config.input.iter().map(|input| (&input.name, &input.reshape));
    let outputs = config.output.iter().map(|output| (&output.name, &output.reshape));
    for (name, reshape) in inputs.chain(outputs) {
        let problem = format!("`{name}`: reshape is not done; declare the shape that the model has");
        unless(reshape.is_none(), problem);
    }
    problems
}

fn instances(groups: &[proto::InstanceGroup]) -> Result<Option<NonZeroUsize>, String> {
    const GPU: i32 = 1;
    if groups.iter().any(|group| group.kind == GPU || !group.gpus.is_empty()) {
        return Err("instance_group: models run on the processor; kind must be KIND_CPU or KIND_AUTO".into());
    }
    // A group without a count is one instance.
    let counts = groups.iter().map(|group| usize::try_from(group.count).map(|count| count.max(1)));
    let count: usize =
        counts.sum::<Result<_, _>>().map_err(|_| "instance_group: a count is below 0".to_owned())?;
    const MOST: usize = 1024;
    if count > MOST {
        return Err(format!("instance_group: {count} instances, and {MOST} are the most"));
    }
    Ok(NonZeroUsize::new(count))
}

fn policy(policy: Option<proto::VersionPolicy>) -> Result<VersionPolicy, String> {
    use proto::PolicyChoice;
    match policy.and_then(|policy| policy.choice) {
        None => Ok(VersionPolicy::Latest(1)),
        // As Triton has it, a number that is left out is 1.
        Some(PolicyChoice::Latest(latest)) => Ok(VersionPolicy::Latest(latest.num_versions.max(1) as usize)),
        Some(PolicyChoice::All(_)) => Ok(VersionPolicy::All),
        Some(PolicyChoice::Specific(specific)) => {
            let versions: Result<Vec<u64>, _> = specific.versions.iter().map(|&v| v.try_into()).collect();
            match versions {
                Ok(versions) if !versions.is_empty() => Ok(VersionPolicy::Specific(versions)),
                _ => Err("version_policy: specific names versions by numbers from 1 on".into()),
            }
        }
    }
}

/// The name of a file, which may not lead elsewhere.
fn plain(field: &str, name: String) -> Result<String, String> {
    let mut parts = Path::new(&name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(only)), None) if only == name.as_str() => Ok(name),
        _ => Err(format!("{field}: `{name}` is not the name of a file")),
    }
}

/// The files that Triton's agent `checksum` pins: `SHA256:1/model.onnx` and the digest.
fn digests(agent: proto::Agent) -> Result<BTreeMap<PathBuf, String>, String> {
    if agent.name != "checksum" {
        return Err(format!(
            "model_repository_agents: there is no agent `{}`; `checksum` is there",
            agent.name
        ));
    }
    let pinned = agent.parameters.into_iter().map(|(key, digest)| match key.split_once(':') {
        Some((kind, file)) if kind.eq_ignore_ascii_case("sha256") => {
            let parts = Path::new(file).components();
            // Written in one way only, so that a file has one name.
            let below = parts.clone().all(|part| matches!(part, Component::Normal(_)));
            if !below || parts.collect::<PathBuf>().as_os_str() != file || file.is_empty() {
                return Err(format!("model_repository_agents: `{file}` is no file below the model's folder"));
            }
            Ok((PathBuf::from(file), digest))
        }
        _ => {
            Err(format!("model_repository_agents: `{key}` must be `SHA256:` and a file; MD5 proves nothing"))
        }
    });
    pinned.collect()
}
