//! Stores that take writes, as a project file names them.

use std::time::Duration;

use millstream_graph::spec::Size;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::local::{Durability, LocalOptions, WhenFull};

/// `online:` of a feature set: where its rows lie while they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnlineSpec {
    /// In memory: gone with the process.
    Memory,
    /// In memory, and kept in a folder.
    Local(LocalSpec),
    /// In one file, of which memory holds what was used last.
    #[cfg(feature = "redb")]
    Redb(RedbSpec),
}

/// A set in memory that is kept in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalSpec {
    /// The folder, inside the project's or the state folder; made if it is not there.
    pub path: String,
    /// When a write is safe against a crash of the machine.
    #[serde(default)]
    pub durability: DurabilitySpec,
    /// Memory that rows and their index may take, such as `1GiB`; without bound by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,
    /// What happens when there is no room.
    #[serde(default)]
    pub when_full: WhenFull,
}

/// A set in one file.
#[cfg(feature = "redb")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedbSpec {
    /// The file, inside the project's or the state folder; made if it is not there.
    pub path: String,
    /// Memory for what was used last; `256MiB` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Size>,
}

/// `offline:` of a feature set: where everything that it takes is kept, to train models on.
#[cfg(feature = "offline")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfflineSpec {
    /// The folder of the log, inside the project's or the state folder; made if it is not there. No other set has it.
    pub path: String,
}

/// When a write is safe against a crash of the machine. A crash of the process loses nothing that was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DurabilitySpec {
    /// Before its answer.
    #[default]
    Always,
    /// 5 ms after it was taken, at the latest.
    Interval,
    /// When the operating system thinks fit.
    Os,
}

impl OnlineSpec {
    /// The path that it names.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Memory => None,
            Self::Local(local) => Some(&local.path),
            #[cfg(feature = "redb")]
            Self::Redb(redb) => Some(&redb.path),
        }
    }

    /// What it is, and where: `local state/cards`.
    pub fn place(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Local(local) => format!("local {}", local.path),
            #[cfg(feature = "redb")]
            Self::Redb(redb) => format!("redb {}", redb.path),
        }
    }
}

impl LocalSpec {
    pub(super) fn options(&self, ttl: Option<Duration>) -> LocalOptions {
        LocalOptions {
            ttl,
            max_bytes: self.max_bytes.map(|size| size.0 as u64),
            when_full: self.when_full,
            durability: match self.durability {
                DurabilitySpec::Always => Durability::Always,
                DurabilitySpec::Interval => Durability::Every(Duration::from_millis(5)),
                DurabilitySpec::Os => Durability::System,
            },
            ..LocalOptions::default()
        }
    }
}
