//! The words of a repository in files.

use std::{collections::BTreeMap, path::PathBuf};

use millstream_graph::spec::Size;
use schemars::JsonSchema;
use serde::Deserialize;

/// A folder of models, as Triton lays them out: `NAME/1/model.onnx`, with `NAME/config.pbtxt` where a model needs one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositorySpec {
    /// The folder, relative to the project's and inside it.
    pub path: PathBuf,
    /// Which models are loaded, and when.
    #[serde(default)]
    pub load: Load,
    /// The most bytes of models at once, such as `512MiB`: the sizes of their files times their instances. When more are asked for
    /// under `load: lazy`, those that were used the longest time ago go. Default: any number.
    #[serde(default)]
    pub memory: Option<Size>,
    /// Whether each instance of a model runs in a process of its own, as `isolated` of the project's own models says.
    #[serde(default)]
    pub isolated: bool,
    /// Other names for versions, by model: `{fraud: {champion: 3, canary: 4}}`.
    #[serde(default)]
    pub labels: BTreeMap<String, BTreeMap<String, u64>>,
}

/// When the models of a repository are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// All of them before anything is served.
    #[default]
    All,
    /// Each when it is first asked for.
    Lazy,
    /// Each when a client says so.
    Asked,
}
