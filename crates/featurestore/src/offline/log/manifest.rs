//! Which files are a log: one small file per commit, the newest of which counts.

use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use super::{LogError, files::Files};

/// The state of a log after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The number of the commit; 0 for a log that has none.
    pub(crate) version: u64,
    /// The sequence number of the next row.
    pub(crate) next: u64,
    /// The files that hold the rows, by date and name.
    pub(crate) files: Vec<Entry>,
    /// Files that a compaction has replaced. They stay until the next one, for those who still read them.
    pub(crate) replaced: Vec<String>,
}

/// A file of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Below the log's folder: `date=2026-11-24/part-….parquet`.
    pub(crate) path: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The earliest event, in microseconds.
    pub(crate) first: i64,
    /// The latest.
    pub(crate) last: i64,
}

impl Entry {
    /// The day the file is of.
    pub(super) fn date(&self) -> &str {
        self.path.split_once('/').map_or("", |(date, _)| date)
    }
}

const FOLDER: &str = "_log";
/// Commits that are kept. A writer that sleeps through as many may not notice that it was not alone.
const KEPT: u64 = 64;

impl Manifest {
    /// The newest commit.
    pub(super) async fn newest(files: &Files) -> Result<Self, LogError> {
        let Some(version) = versions(files).await?.into_iter().max() else { return Ok(Self::default()) };
        let path = files.path(&name(version));
        let bytes = async { files.store.get(&path).await?.bytes().await };
        let bytes = bytes.await.map_err(|error| files.failed(&path, error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| LogError::Malformed { path: path.to_string(), problem: error.to_string() })
    }

    /// Makes this the newest commit, unless somebody else has written one of the same number.
    pub(super) async fn commit(&self, files: &Files) -> Result<(), LogError> {
        let path = files.path(&name(self.version));
        let text = serde_json::to_vec(self)
            .map_err(|error| LogError::Malformed { path: path.to_string(), problem: error.to_string() })?;
        match files.put(&path, text.into(), PutMode::Create).await {
            Err(object_store::Error::AlreadyExists { .. }) => return Err(LogError::Conflict),
            result => result.map_err(|error| files.failed(&path, error))?,
        }
        if let Some(old) = self.version.checked_sub(KEPT) {
            files.delete(&name(old)).await?;
        }
        Ok(())
    }
}

fn name(version: u64) -> String {
    format!("{FOLDER}/{version:020}.json")
}

async fn versions(files: &Files) -> Result<Vec<u64>, LogError> {
    let folder = files.path(FOLDER);
    let listed: Vec<_> =
        files.store.list(Some(&folder)).try_collect().await.map_err(|error| files.failed(&folder, error))?;
    let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
    Ok(listed.iter().filter_map(|meta| number(&meta.location)).collect())
}
