//! What the steps of a project that reach beyond the process share.

use std::{
    collections::HashMap,
    path::PathBuf,
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

    /// Where a path of the project lies: inside its folder.
    pub(crate) fn inside(&self, path: &str) -> Result<PathBuf, SchemaError> {
        millstream_featurestore::inside(&self.root, path).map_err(SchemaError::new)
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("root", &self.root).finish_non_exhaustive()
    }
}
