//! A project's feature sets as they were at all times, and graphs over them.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use indexmap::IndexMap;
use millstream_featurestore::{
    LoadOptions, OnlineStore, OnlineTable, Vector,
    offline::{OfflineLimits, OfflineStore},
};
use millstream_graph::Plan;
use tokio::runtime::Handle;

use crate::{
    Project,
    project::{Defined, chain, conditions::conditions},
};

type Failure = Box<dyn std::error::Error>;

/// What is known offline of a project.
pub(crate) struct Offline {
    /// Its sets, as their logs and files have them, and its vectors over those.
    pub(crate) store: OfflineStore,
    /// All its vectors.
    pub(crate) vectors: IndexMap<String, Vector>,
}

impl Offline {
    /// Of the project at `path`, whose logs lie in the folder `state`, if not in the project's. No store is opened, so a server may go
    /// on serving the project meanwhile.
    pub(crate) fn of(path: &Path, state: Option<&Path>, limits: &OfflineLimits) -> Result<Self, Failure> {
        let Defined { root, sets, vectors } = Project::defined(path)?;
        let mut store = OfflineStore::new(limits)?;
        let options = LoadOptions { conditions: conditions(), ..LoadOptions::default() };
        let mut problems = Vec::new();
        for (name, spec) in &sets {
            match spec.offline(name, (&root, state), &options) {
                Ok(Some(set)) => drop(store.insert(set)),
                Ok(None) => {}
                Err(error) => problems.push(chain(&error)),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("\n").into());
        }
        for vector in vectors.values() {
            // One over sets that are not here is no table; whoever asks for its history hears what is missing.
            let _ = store.insert_vector(vector.clone());
        }
        Ok(Self { store, vectors })
    }
}

/// What a graph over the past does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acts {
    /// It sends and records as it does when it serves. It writes no features: those of the past are read.
    Sends,
    /// Nothing.
    Not,
}

/// A graph of the project at `path`, whose steps read features as they were at the times of the rows. Answers its name too.
///
/// Waits for `runtime`, on which the rows of the sets are read.
pub(crate) fn plan(
    (path, state): (&Path, Option<&Path>),
    graph: Option<&str>,
    acts: Acts,
    runtime: &Handle,
) -> Result<(String, Plan), Failure> {
    let past = Arc::new(Past {
        store: Offline::of(path, state, &OfflineLimits::default())?.store,
        runtime: runtime.clone(),
        tables: Mutex::default(),
        problems: Mutex::default(),
    });
    let plan = Project::plan_over(path, graph, &(Arc::clone(&past) as _), acts);
    // A set that could not be read was no set for the graph: what is said of it comes first.
    let problems = std::mem::take(&mut *past.problems.lock().unwrap_or_else(PoisonError::into_inner));
    match problems.is_empty() {
        true => Ok(plan?),
        false => Err(problems.join("\n").into()),
    }
}

/// Offline sets as tables that are read by key and time; those that a graph asks for are held in memory.
struct Past {
    store: OfflineStore,
    runtime: Handle,
    tables: Mutex<HashMap<String, Arc<dyn OnlineTable>>>,
    problems: Mutex<Vec<String>>,
}

impl OnlineStore for Past {
    fn names(&self) -> Vec<String> {
        self.store.names()
    }

    fn table(&self, set: &str) -> Option<Arc<dyn OnlineTable>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(set) {
            return Some(Arc::clone(table));
        }
        match self.runtime.block_on(self.store.past(set)) {
            Ok(table) => {
                let table: Arc<dyn OnlineTable> = Arc::new(table?);
                tables.insert(set.to_owned(), Arc::clone(&table));
                Some(table)
            }
            Err(error) => {
                let problem = format!("feature set `{set}`: {}", chain(&error));
                self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
                None
            }
        }
    }
}
