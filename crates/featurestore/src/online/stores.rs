//! The open stores of a project, which outlive its versions.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

#[cfg(feature = "redb")]
use super::redb::{RedbOptions, RedbTable};
use super::{
    WritableSet, WritableTable,
    local::{LocalOptions, LocalTable},
    set::TimeColumns,
    spec::OnlineSpec,
};
#[cfg(feature = "offline")]
use super::{local::Archive, spec::OfflineSpec};
use crate::{DefinitionError, FeatureSet, LoadError, set::Column};
#[cfg(feature = "offline")]
use crate::{
    offline::{Log, LogSchema},
    wait,
};

/// Where the sets of a project that take rows are opened. A project that is read anew goes on with the stores that are open: a
/// store has one writer.
#[derive(Default)]
pub struct Stores {
    /// The folder for state, where it is not the project's.
    state: Option<PathBuf>,
    /// Whether nothing is opened: every set begins empty, in memory.
    aside: bool,
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    set: Weak<WritableSet>,
    terms: Terms,
}

/// What an open store cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    name: String,
    keys: Vec<Column>,
    features: Vec<Column>,
    times: TimeColumns,
    ttl: Option<Duration>,
    wanted: Wanted,
}

/// Where a set lies while it changes, and where what it takes is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) online: OnlineSpec,
    #[cfg(feature = "offline")]
    pub(crate) offline: Option<OfflineSpec>,
}

impl Stores {
    /// Stores in the project's folder.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Stores in another folder, which is there. Paths of definitions stay inside it.
    pub fn in_folder(state: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { state: Some(state.into()), ..Self::default() })
    }

    /// Opens nothing: sets that take rows are empty and in memory, but for the rows of their files. For checking a project while
    /// another process serves it.
    pub fn aside() -> Arc<Self> {
        Arc::new(Self { aside: true, ..Self::default() })
    }

    /// The store of a set, opened if it is not open.
    pub(crate) fn open(
        &self,
        root: &Path,
        set: FeatureSet,
        (times, ttl): (TimeColumns, Option<Duration>),
        wanted: Wanted,
    ) -> Result<Arc<WritableSet>, LoadError> {
        let path = match wanted.online.path() {
            Some(path) => Some(self.inside(root, ("online", path), set.name())?),
            None => None,
        };
        let place = match &path {
            Some(path) => path.display().to_string(),
            None => format!("memory of {}", set.name()),
        };
        let terms = Terms {
            name: set.name().to_owned(),
            keys: set.keys().to_vec(),
            features: set.features().to_vec(),
            times,
            ttl,
            wanted,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, known| known.set.strong_count() > 0);
        if let Some((known, found)) = open.get(&place).and_then(|known| Some((known, known.set.upgrade()?))) {
            return if known.terms == terms { Ok(found) } else { Err(in_use(&terms, &known.terms)) };
        }
        #[cfg(feature = "offline")]
        if let Some(offline) = &terms.wanted.offline {
            let other = open.values().find(|known| known.terms.wanted.offline.as_ref() == Some(offline));
            if let Some(other) = other {
                let problem = format!(
                    "`offline`: feature set `{}` has the same log; name another path",
                    other.terms.name
                );
                return Err(DefinitionError { set: terms.name, problems: vec![problem] }.into());
            }
        }
        let table = self.table(&terms, (root, path.as_deref()), set)?;
        let set = Arc::new(WritableSet::new(table, terms.times.clone()));
        open.insert(place, Open { set: Arc::downgrade(&set), terms });
        Ok(set)
    }

    fn inside(&self, root: &Path, (what, path): (&str, &str), set: &str) -> Result<PathBuf, LoadError> {
        let root = self.state.as_deref().unwrap_or(root);
        let wrong = |problem: String| -> LoadError {
            DefinitionError { set: set.to_owned(), problems: vec![format!("`{what}`: {problem}")] }.into()
        };
        let path = crate::inside(root, path).map_err(wrong)?;
        if let Some(parent) = path.parent().filter(|_| !self.aside) {
            std::fs::create_dir_all(parent)
                .map_err(|error| wrong(format!("{} cannot be made: {error}", parent.display())))?;
        }
        Ok(path)
    }

    fn table(
        &self,
        terms: &Terms,
        (root, path): (&Path, Option<&Path>),
        set: FeatureSet,
    ) -> Result<Arc<dyn WritableTable>, LoadError> {
        let ttl = terms.ttl;
        #[cfg(feature = "offline")]
        if let Some(offline) = &terms.wanted.offline {
            let OnlineSpec::Local(local) = &terms.wanted.online else { return Err(no_log(terms)) };
            if let (Some(path), false) = (path, self.aside) {
                let archive = self.archive(root, offline, &set)?;
                let options = local.options(ttl);
                return Ok(Arc::new(LocalTable::open_archived(path, set, options, archive)?));
            }
        }
        #[cfg(not(feature = "offline"))]
        let _ = root;
        let (Some(path), false) = (path, self.aside) else {
            return Ok(Arc::new(LocalTable::in_memory(set, LocalOptions { ttl, ..LocalOptions::default() })));
        };
        Ok(match &terms.wanted.online {
            OnlineSpec::Memory => {
                Arc::new(LocalTable::in_memory(set, LocalOptions { ttl, ..LocalOptions::default() }))
            }
            OnlineSpec::Local(local) => Arc::new(LocalTable::open(path, set, local.options(ttl))?),
            #[cfg(feature = "redb")]
            OnlineSpec::Redb(redb) => {
                let mut options = RedbOptions { ttl, ..RedbOptions::default() };
                if let Some(cache) = redb.cache {
                    options.cache_bytes = cache.0;
                }
                Arc::new(RedbTable::open(path, set, options)?)
            }
        })
    }
}

#[cfg(feature = "offline")]
impl Stores {
    /// The offline log of a set.
    fn archive(&self, root: &Path, offline: &OfflineSpec, set: &FeatureSet) -> Result<Archive, LoadError> {
        let folder = self.inside(root, ("offline", &offline.path), set.name())?;
        let log = wait(Log::local(folder, LogSchema::of(set)?));
        let log = log.map_err(|source| LoadError::Log { set: set.name().to_owned(), source })?;
        Ok(Archive::new(Arc::new(log)))
    }
}

/// Why a store has no offline log.
#[cfg(feature = "offline")]
fn no_log(terms: &Terms) -> LoadError {
    let problem = format!(
        "`offline` needs `online: {{local: …}}`, whose log holds each row until it is kept; {} has none to read",
        terms.wanted.online.place()
    );
    DefinitionError { set: terms.name.clone(), problems: vec![problem] }.into()
}

fn in_use(terms: &Terms, open: &Terms) -> LoadError {
    let problem = if terms.name == open.name {
        "its store is open, and goes on as it was opened; end the process and start it anew to change `keys`, `features`, \
         types, times, `ttl`, `online` or `offline`"
            .to_owned()
    } else {
        format!("feature set `{}` has the same store; name another path", open.name)
    };
    DefinitionError { set: terms.name.clone(), problems: vec![problem] }.into()
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("state", &self.state)
            .field("aside", &self.aside)
            .finish_non_exhaustive()
    }
}
