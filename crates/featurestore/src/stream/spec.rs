//! Streams, as a project file names them.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtGap;
use crate::online::LONGEST_NAME;

/// A stream of events into a feature set: each of its messages is a JSON object, which is one row, or an array of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// A stream of NATS JetStream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSpec>,
    /// A topic of Kafka, in builds with the feature `kafka`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSpec>,
    /// The feature set that takes the rows.
    pub into: String,
    /// The name by which the set remembers how far it has read, `nats:STREAM` or `kafka:TOPIC` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What happens when messages that were not read yet are gone: `fail`, or `continue` behind them.
    #[serde(default)]
    pub gap: AtGap,
    /// Messages that are written at once, at most; 4096 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
}

/// A stream of NATS JetStream. `${NAME}` is a variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsSpec {
    /// The server, such as `nats://localhost:4222`, or `tls://`; several with commas between them.
    pub url: String,
    /// The stream. It is kept by `limits`, which is what JetStream does by default.
    pub stream: String,
    /// Only messages of this subject, which may have wildcards; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Who reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password: `${NAME}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// A token in place of user and password: `${NAME}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The content of a credentials file in place of user and password: `${NAME}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creds: Option<String>,
    /// A PEM file of the certificate authorities to trust, inside the project's folder; by default those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// A topic of Kafka. `${NAME}` is a variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSpec {
    /// The brokers to begin with, such as `localhost:9092`; several with commas between them.
    pub servers: String,
    /// The topic, of which all partitions are read.
    pub topic: String,
    /// Who reads, by SASL PLAIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password: `${NAME}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl StreamSpec {
    /// The name by which the set remembers how far it has read; none when nothing says what is read.
    pub fn source(&self) -> Option<String> {
        let nats = || self.nats.as_ref().map(|nats| format!("nats:{}", nats.stream));
        let kafka = || self.kafka.as_ref().map(|kafka| format!("kafka:{}", kafka.topic));
        self.source.clone().or_else(nats).or_else(kafka)
    }

    /// What is wrong with it, every problem at once. `root` is the project's folder.
    ///
    /// # Errors
    /// The problems, one sentence each.
    pub fn check(&self, root: &Path) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if let Some(nats) = &self.nats {
            problems.extend(sound_nats(nats, root).err().into_iter().flatten());
        }
        if let Some(kafka) = &self.kafka {
            problems.extend(sound_kafka(kafka).err().into_iter().flatten());
        }
        if self.nats.is_some() == self.kafka.is_some() {
            problems.push("name what is read: `nats` or `kafka`".to_owned());
        }
        if self.source().is_some_and(|source| source.is_empty() || source.len() > LONGEST_NAME) {
            problems.push(format!("`source` has 1 to {LONGEST_NAME} bytes"));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

#[cfg(feature = "nats")]
fn sound_nats(spec: &NatsSpec, root: &Path) -> Result<(), Vec<String>> {
    super::NatsFeed::new(spec, root, String::new()).map(drop)
}

#[cfg(not(feature = "nats"))]
fn sound_nats(_: &NatsSpec, _: &Path) -> Result<(), Vec<String>> {
    Err(vec!["this build reads no NATS; build it with the feature `nats`".to_owned()])
}

#[cfg(feature = "kafka")]
fn sound_kafka(spec: &KafkaSpec) -> Result<(), Vec<String>> {
    super::KafkaFeed::new(spec, String::new()).map(drop)
}

#[cfg(not(feature = "kafka"))]
fn sound_kafka(_: &KafkaSpec) -> Result<(), Vec<String>> {
    Err(vec!["this build reads no Kafka; build it with the feature `kafka`".to_owned()])
}
