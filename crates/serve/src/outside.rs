//! What the steps of a project that reach beyond the process share.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use millstream_graph::SchemaError;

use crate::{
    remote::{Client, Trust},
    sink::{SinkRows, Writers},
};

/// What the steps of a project that reach beyond the process share: its folder, its connections, and the files it writes.
///
/// Made once per project, so that steps reuse each other's connections and no file has two writers.
#[derive(Default)]
pub struct Outside {
    root: PathBuf,
    clients: Mutex<HashMap<Trust, Client>>,
    writers: Writers,
}

impl Outside {
    /// For a project in the folder `root`; files are read and written nowhere else.
    pub fn new(root: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { root: root.into(), ..Self::default() })
    }

    /// Counts the rows of its sinks among those of others.
    pub fn count_into(&self, rows: &SinkRows) {
        self.writers.count_into(rows);
    }

    pub(crate) fn writers(&self) -> &Writers {
        &self.writers
    }

    /// The client that trusts so; one per kind of trust, whatever the number of steps.
    pub(crate) fn client(&self, trust: Trust) -> Result<Client, SchemaError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = Client::new(&trust)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }

    /// Where a path of the project lies. What counts is where it lies after all symbolic links are followed; the part of
    /// it that is not there yet cannot be one.
    pub(crate) fn inside(&self, path: &str) -> Result<PathBuf, SchemaError> {
        let relative = Path::new(path);
        let outside = || SchemaError::new(format!("`{path}` leaves the project's folder"));
        if path.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(outside());
        }
        let unreadable = |error| SchemaError::new(format!("`{path}`: {error}"));
        let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        let root = root.canonicalize().map_err(unreadable)?;
        let full = root.join(relative);
        let there = full.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(&root);
        if !there.canonicalize().map_err(unreadable)?.starts_with(&root) {
            return Err(outside());
        }
        Ok(full)
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("root", &self.root).finish_non_exhaustive()
    }
}
