//! The part of a configuration's message that is followed, by the numbers of `proto/model_config.proto`.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub platform: String,
    #[prost(message, optional, tag = "3")]
    pub version_policy: Option<VersionPolicy>,
    #[prost(int32, tag = "4")]
    pub max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    pub input: Vec<Input>,
    #[prost(message, repeated, tag = "6")]
    pub output: Vec<Output>,
    #[prost(message, repeated, tag = "7")]
    pub instance_group: Vec<InstanceGroup>,
    #[prost(string, tag = "8")]
    pub default_model_filename: String,
    #[prost(message, optional, tag = "13")]
    pub sequence_batching: Option<Present>,
    #[prost(message, optional, tag = "15")]
    pub ensemble_scheduling: Option<Present>,
    #[prost(string, tag = "17")]
    pub backend: String,
    #[prost(message, optional, tag = "18")]
    pub model_operations: Option<Operations>,
    #[prost(message, optional, tag = "19")]
    pub model_transaction_policy: Option<TransactionPolicy>,
    #[prost(message, optional, tag = "23")]
    pub model_repository_agents: Option<Agents>,
}

/// Only its presence matters.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Present {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Input {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(int64, repeated, tag = "4")]
    pub dims: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    pub reshape: Option<Present>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Output {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(int64, repeated, tag = "3")]
    pub dims: Vec<i64>,
    #[prost(string, tag = "4")]
    pub label_filename: String,
    #[prost(message, optional, tag = "5")]
    pub reshape: Option<Present>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InstanceGroup {
    #[prost(int32, tag = "2")]
    pub count: i32,
    #[prost(int32, repeated, tag = "3")]
    pub gpus: Vec<i32>,
    #[prost(int32, tag = "4")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionPolicy {
    #[prost(oneof = "PolicyChoice", tags = "1, 2, 3")]
    pub choice: Option<PolicyChoice>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum PolicyChoice {
    #[prost(message, tag = "1")]
    Latest(Latest),
    #[prost(message, tag = "2")]
    All(Present),
    #[prost(message, tag = "3")]
    Specific(Specific),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Latest {
    #[prost(uint32, tag = "1")]
    pub num_versions: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Specific {
    #[prost(int64, repeated, tag = "1")]
    pub versions: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operations {
    #[prost(string, repeated, tag = "1")]
    pub op_library_filename: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TransactionPolicy {
    #[prost(bool, tag = "1")]
    pub decoupled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Agents {
    #[prost(message, repeated, tag = "1")]
    pub agents: Vec<Agent>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Agent {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub parameters: BTreeMap<String, String>,
}
