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
    WritableTable,
    aside::Aside,
    local::{LocalOptions, LocalTable},
    set::TimeColumns,
    spec::{AsideSpec, OnlineSpec},
};
#[cfg(feature = "offline")]
use super::{local::Archive, spec::OfflineSpec};
#[cfg(feature = "redis")]
use super::{
    redis::{
        RedisOptions, RedisServer, RedisTable,
        within::{Background, Within},
    },
    spec::RedisSpec,
};
#[cfg(feature = "offline")]
use crate::offline::{Log, LogSchema};
#[cfg(any(feature = "offline", feature = "redis"))]
use crate::wait;
use crate::{AggregateSpec, DefinitionError, FeatureSet, LoadError, set::Column};

/// Where the sets of a project that take rows are opened. A project that is read anew goes on with the stores that are open: a
/// store has one writer.
#[derive(Default)]
pub struct Stores {
    /// The folder for state, where it is not the project's.
    state: Option<PathBuf>,
    /// Whether nothing is opened: every set begins empty, in memory.
    aside: bool,
    open: Mutex<HashMap<String, Open>>,
    /// Where rows are set aside, and how many bytes they may have there.
    asides: Mutex<HashMap<PathBuf, (Weak<Aside>, usize)>>,
    /// Where connections to Redis live, while a set has one.
    #[cfg(feature = "redis")]
    background: Mutex<Weak<Background>>,
}

struct Open {
    table: Weak<dyn WritableTable>,
    terms: Terms,
}

/// What an open store cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    name: String,
    keys: Vec<Column>,
    features: Vec<Column>,
    events: Vec<Column>,
    aggregates: Vec<AggregateSpec>,
    lateness: Duration,
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
    ) -> Result<Arc<dyn WritableTable>, LoadError> {
        let path = match wanted.online.path() {
            Some(path) => Some(self.inside(root, ("online", path), set.name())?),
            None => None,
        };
        let place = match (&path, &wanted.online) {
            (Some(path), _) => path.display().to_string(),
            #[cfg(feature = "redis")]
            (None, OnlineSpec::Redis(redis)) => {
                format!("{} {:?} of {}", redis.written(), redis.prefix, set.name())
            }
            (None, _) => format!("memory of {}", set.name()),
        };
        let terms = Terms {
            name: set.name().to_owned(),
            keys: set.keys().to_vec(),
            features: set.features().to_vec(),
            events: set.event_columns().cloned().collect(),
            aggregates: set.aggregates().to_vec(),
            lateness: set.lateness(),
            times,
            ttl,
            wanted,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, known| known.table.strong_count() > 0);
        if let Some((known, found)) = open.get(&place).and_then(|known| Some((known, known.table.upgrade()?)))
        {
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
        open.insert(place, Open { table: Arc::downgrade(&table), terms });
        Ok(table)
    }

    /// Where the rows of a set are put that are not taken as they are; nowhere when nothing is opened.
    pub(crate) fn open_aside(
        &self,
        root: &Path,
        set: &FeatureSet,
        spec: &AsideSpec,
    ) -> Result<Option<Arc<Aside>>, LoadError> {
        let wrong = |problem| DefinitionError {
            set: set.name().to_owned(),
            problems: vec![format!("`aside`: {problem}")],
        };
        let root = self.state.as_deref().unwrap_or(root);
        let path = crate::inside(root, &spec.path).map_err(wrong)?;
        if self.aside {
            return Ok(None);
        }
        let mut asides = self.asides.lock().unwrap_or_else(PoisonError::into_inner);
        asides.retain(|_, (known, _)| known.strong_count() > 0);
        let max_bytes = spec.max_bytes.0;
        if let Some((known, most)) = asides.get(&path)
            && let Some(found) = known.upgrade()
        {
            if *most != max_bytes {
                let problem = "the file is in use with another `max_bytes`; name one for all sets, or end the process and start it anew";
                return Err(wrong(problem.to_owned()).into());
            }
            return Ok(Some(found));
        }
        let made = Aside::open(&path, max_bytes as u64).map_err(|error| wrong(error.to_string()))?;
        let made = Arc::new(made);
        asides.insert(path, (Arc::downgrade(&made), max_bytes));
        Ok(Some(made))
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
        if terms.wanted.offline.is_some() && !matches!(terms.wanted.online, OnlineSpec::Local(_)) {
            return Err(no_log(terms));
        }
        if self.aside {
            return Ok(Arc::new(LocalTable::in_memory(set, LocalOptions { ttl, ..LocalOptions::default() })));
        }
        #[cfg(feature = "offline")]
        if let (Some(offline), OnlineSpec::Local(local), Some(path)) =
            (&terms.wanted.offline, &terms.wanted.online, path)
        {
            let archive = self.archive(root, offline, &set)?;
            return Ok(Arc::new(LocalTable::open_archived(path, set, local.options(ttl), archive)?));
        }
        #[cfg(not(feature = "offline"))]
        let _ = root;
        Ok(match (&terms.wanted.online, path) {
            (OnlineSpec::Local(local), Some(path)) => {
                Arc::new(LocalTable::open(path, set, local.options(ttl))?)
            }
            #[cfg(feature = "redis")]
            (OnlineSpec::Redis(redis), _) => Arc::new(self.redis(redis, ttl, set)?),
            #[cfg(feature = "redb")]
            (OnlineSpec::Redb(redb), Some(path)) => {
                let mut options = RedbOptions { ttl, ..RedbOptions::default() };
                if let Some(cache) = redb.cache {
                    options.cache_bytes = cache.0;
                }
                Arc::new(RedbTable::open(path, set, options)?)
            }
            _ => Arc::new(LocalTable::in_memory(set, LocalOptions { ttl, ..LocalOptions::default() })),
        })
    }

    /// A set in Redis. Its connections live on a runtime of these stores: who opens a project need not have one, and another
    /// may end before the next version of the project.
    #[cfg(feature = "redis")]
    fn redis(
        &self,
        spec: &RedisSpec,
        ttl: Option<Duration>,
        set: FeatureSet,
    ) -> Result<RedisTable, DefinitionError> {
        let name = set.name().to_owned();
        let wrong = |problems: Vec<String>| {
            let problems = problems.into_iter().map(|problem| format!("`online`: redis: {problem}"));
            DefinitionError { set: name.clone(), problems: problems.collect() }
        };
        let addresses = spec.addresses(|name| std::env::var(name).ok()).map_err(wrong)?;
        let background = {
            let mut known = self.background.lock().unwrap_or_else(PoisonError::into_inner);
            match known.upgrade() {
                Some(background) => background,
                None => {
                    let started = Background::start().map_err(|error| wrong(vec![error.to_string()]))?;
                    *known = Arc::downgrade(&started);
                    started
                }
            }
        };
        let handle = background.handle().ok_or_else(|| wrong(vec!["its runtime has ended".to_owned()]))?;
        let mut options = RedisOptions { ttl, ..RedisOptions::default() };
        if let Some(prefix) = &spec.prefix {
            options.prefix.clone_from(prefix);
        }
        if let Some(wait) = &spec.wait {
            options.wait = Duration::from_micros(wait.micros().unsigned_abs());
        }
        let opened = Within::new(handle, async {
            let server = match (&spec.url, addresses.first()) {
                (Some(_), Some(address)) => RedisServer::single(address, options.wait).await?,
                _ => RedisServer::cluster(addresses.iter().cloned(), options.wait).await?,
            };
            RedisTable::open(&server, set, options.clone()).await
        });
        let table = wait(opened).map_err(|error| {
            // No error of the client's holds an address today; none shall.
            let told = addresses.iter().fold(error.to_string(), |told, address| told.replace(address, "…"));
            wrong(vec![format!("{}: {told}", spec.written())])
        })?;
        Ok(table.on(Arc::clone(&background)))
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
         types, `aggregates`, times, `ttl`, `online` or `offline`"
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
