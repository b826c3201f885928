//! A project's feature sets as they were at all times.

use std::path::Path;

use millstream_featurestore::{
    LoadOptions,
    offline::{OfflineLimits, OfflineStore},
};

use crate::{Project, project::Defined};

type Failure = Box<dyn std::error::Error>;

/// What is known offline of the sets of the project at `path`: of those with a file, its rows.
///
/// No store is opened, so a server may go on serving the project meanwhile.
pub(crate) fn store(path: &Path) -> Result<OfflineStore, Failure> {
    let Defined { root, sets, .. } = Project::defined(path)?;
    let mut store = OfflineStore::new(&OfflineLimits::default())?;
    let mut problems = Vec::new();
    for (name, spec) in &sets {
        match spec.offline(name, &root, &LoadOptions::default()) {
            Ok(Some(set)) => drop(store.insert(set)),
            Ok(None) => {}
            Err(error) => problems.push(crate::project::chain(&error)),
        }
    }
    if problems.is_empty() { Ok(store) } else { Err(problems.join("\n").into()) }
}
