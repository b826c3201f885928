//! Streams, as a project file names them.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtGap;

/// A stream of events into a feature set: each of its messages is a JSON object, which is one row, or an array of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// A stream of NATS JetStream.
    #[cfg(feature = "nats")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSpec>,
    /// The feature set that takes the rows.
    pub into: String,
    /// The name by which the set remembers how far it has read, `nats:STREAM` by default.
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
#[cfg(feature = "nats")]
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

impl StreamSpec {
    /// The name by which the set remembers how far it has read; none when nothing says what is read.
    pub fn source(&self) -> Option<String> {
        let own = || {
            #[cfg(feature = "nats")]
            if let Some(nats) = &self.nats {
                return Some(format!("nats:{}", nats.stream));
            }
            None
        };
        self.source.clone().or_else(own)
    }

    /// What is wrong with it, every problem at once. `root` is the project's folder.
    ///
    /// # Errors
    /// The problems, one sentence each.
    pub fn check(&self, root: &Path) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut kinds = 0;
        #[cfg(feature = "nats")]
        if let Some(nats) = &self.nats {
            kinds += 1;
            problems.extend(super::NatsFeed::new(nats, root, String::new()).err().into_iter().flatten());
        }
        if kinds != 1 {
            problems.push("name what is read, such as `nats`, and only one".to_owned());
        }
        if self.source().is_some_and(|source| source.is_empty() || source.len() > crate::online::LONGEST_NAME)
        {
            problems.push(format!("`source` has 1 to {} bytes", crate::online::LONGEST_NAME));
        }
        let _ = root;
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
