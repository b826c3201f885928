//! A folder of models that are loaded and unloaded while requests come.

mod config;
mod index;
mod listing;
mod load;
mod proto;
mod read;
mod spec;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use millstream_graph::suggest;

use crate::LoadOptions;
pub use config::{CONFIG_FILE, ConfigError, ModelConfig, VersionPolicy};
pub use index::Indexed;
use listing::Listing;
pub use read::{Given, LoadedVersion};
pub use spec::{Load, RepositorySpec};

/// A lazy model that could not be loaded is not tried again before.
const RETRY: Duration = Duration::from_secs(5);

/// The models of a folder, each version as a `T` that is made of it.
///
/// Whoever asks for a model gets one that stays as it is for as long as it is held, whatever is loaded in its place.
pub struct Repository<T> {
    root: PathBuf,
    spec: RepositorySpec,
    options: LoadOptions,
    /// Names that are others' already.
    taken: ArcSwap<BTreeSet<String>>,
    make: Box<Make<T>>,
    ready: ArcSwap<BTreeMap<String, Arc<Served<T>>>>,
    /// What the folder had when it was last looked at.
    listing: ArcSwap<Listing>,
    book: Mutex<Book>,
    /// Told when a load that has taken room ends.
    ended: Condvar,
    start: Instant,
    loaded: AtomicU64,
    failed: AtomicU64,
    evicted: AtomicU64,
}

/// What has become of models since a repository was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Loads that went well, those of the opening among them.
    pub loaded: u64,
    /// Loads that failed.
    pub failed: u64,
    /// Models that have made room for others.
    pub evicted: u64,
}

/// Why a model of a repository cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The folder cannot be read.
    #[error("{0}")]
    Folder(String),
    /// There is no such model in it.
    #[error("{0}")]
    Unknown(String),
    /// The model is wrong, or the runtime does not take it.
    #[error("model `{name}` cannot be loaded: {reason}")]
    Failed {
        /// The model.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// What makes a model that can be served of one that was loaded.
type Make<T> = dyn Fn(LoadedVersion) -> Result<T, String> + Send + Sync;

/// What is known of models beside those that are served.
#[derive(Default)]
struct Book {
    /// Why a model is not there.
    states: BTreeMap<String, State>,
    /// Bytes of models, by name: of those that are ready, and of those that are being loaded.
    bytes: BTreeMap<String, u64>,
    /// Models whose loads have taken their room, and are under way.
    under_way: BTreeSet<String>,
    /// Loads of one model take turns.
    turns: BTreeMap<String, Arc<Mutex<()>>>,
}

#[derive(Clone, Debug)]
enum State {
    Loading,
    Unloaded,
    Failed { reason: String, at: Instant },
}

/// The versions of a model that are served.
pub struct Served<T> {
    versions: BTreeMap<u64, Arc<T>>,
    labels: BTreeMap<String, u64>,
    /// When it was last asked for, in milliseconds since the repository was opened.
    used: AtomicU64,
}

impl<T> Served<T> {
    /// A version by its number or label; without one, that of the highest number.
    pub fn version(&self, version: Option<&str>) -> Option<&Arc<T>> {
        let Some(text) = version else { return self.versions.last_key_value().map(|(_, model)| model) };
        let number = read::number(text).or_else(|| self.labels.get(text).copied());
        self.versions.get(&number?)
    }

    /// The numbers of versions, the lowest first.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.versions.keys().copied()
    }

    /// Every version by its number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Arc<T>)> {
        self.versions.iter().map(|(version, model)| (*version, model))
    }
}

impl<T: Send + Sync> Repository<T> {
    /// Opens the folder that `spec` names below `root`, and loads what is to be loaded before anything is served. Models may not
    /// have the names that are `taken`.
    ///
    /// # Errors
    /// All that is wrong with the folder and its models.
    pub fn open(
        root: &Path,
        spec: RepositorySpec,
        taken: BTreeSet<String>,
        make: impl Fn(LoadedVersion) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, Vec<RepositoryError>> {
        let folder = crate::precheck::inside(root, &spec.path)
            .map_err(|error| vec![RepositoryError::Folder(error.to_string())])?;
        let this = Self {
            root: folder,
            options: LoadOptions {
                instances: available_parallelism().ok(),
                isolated: spec.isolated,
                ..LoadOptions::default()
            },
            taken: ArcSwap::from_pointee(taken),
            make: Box::new(make),
            ready: ArcSwap::default(),
            listing: ArcSwap::default(),
            book: Mutex::default(),
            ended: Condvar::new(),
            start: Instant::now(),
            loaded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            spec,
        };
        this.look();
        let names = this.listed().map_err(|error| vec![error])?;
        let mut errors: Vec<_> = this
            .spec
            .labels
            .keys()
            .filter(|name| !names.contains(*name))
            .map(|name| this.unknown(name))
            .collect();
        for name in &names {
            let checked = match this.spec.load {
                Load::All => this.load(name, &Given::default()),
                Load::Lazy | Load::Asked => this.may_have(name),
            };
            errors.extend(checked.err());
        }
        if errors.is_empty() { Ok(this) } else { Err(errors) }
    }

    /// A model that is loaded.
    pub fn get(&self, name: &str) -> Option<Arc<Served<T>>> {
        let served = Arc::clone(self.ready.load().get(name)?);
        served.used.store(self.now(), Relaxed);
        Some(served)
    }

    /// A model that is loaded, or is now because it is asked for. Blocks while it is.
    ///
    /// # Errors
    /// When there is no such model, it is not to be loaded in this way, or cannot be.
    pub fn want(&self, name: &str) -> Result<Arc<Served<T>>, RepositoryError> {
        if let Some(served) = self.get(name) {
            return Ok(served);
        }
        let turn = self.turn(name)?;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = self.get(name) {
            return Ok(served);
        }
        let failed =
            |reason: &str| RepositoryError::Failed { name: name.to_owned(), reason: reason.to_owned() };
        let state = self.book().states.get(name).cloned();
        match state {
            Some(State::Failed { reason, at }) if at.elapsed() < RETRY => return Err(failed(&reason)),
            Some(State::Unloaded) => return Err(failed("it was unloaded")),
            _ if self.spec.load != Load::Lazy => return Err(failed("it is not loaded")),
            _ => {}
        }
        self.load_in_turn(name, &Given::default())
    }

    /// Looks what models there are, and reads the folder again if it has changed. Blocks.
    pub fn look(&self) {
        let before = self.listing.load_full();
        if !before.is_good(&self.root) {
            self.listing.store(Arc::new(Listing::of(&self.root, &before)));
        }
    }

    /// The models that are loaded, by name.
    pub fn loaded(&self) -> Arc<BTreeMap<String, Arc<Served<T>>>> {
        self.ready.load_full()
    }

    /// Bytes of models that are loaded or are being loaded: the sizes of their files times their instances.
    pub fn bytes(&self) -> u64 {
        self.book().bytes.values().sum()
    }

    /// What has become of models so far.
    pub fn outcomes(&self) -> Outcomes {
        let [loaded, failed, evicted] =
            [&self.loaded, &self.failed, &self.evicted].map(|count| count.load(Relaxed));
        Outcomes { loaded, failed, evicted }
    }

    /// What it was opened by.
    pub fn spec(&self) -> &RepositorySpec {
        &self.spec
    }

    /// Gives other names to others, which models may not have from now on.
    ///
    /// # Errors
    /// When a model has one of them: each of those that are served, and of those in the folder that need not be asked for.
    pub fn take(&self, taken: BTreeSet<String>) -> Result<(), Vec<RepositoryError>> {
        let ready = self.ready.load();
        let mut names: BTreeSet<String> = ready.keys().cloned().collect();
        if self.spec.load != Load::Asked {
            names.extend(self.names().map_err(|error| vec![error])?);
        }
        let both: Vec<_> = names.intersection(&taken).map(|name| has_that_name(name)).collect();
        if !both.is_empty() {
            return Err(both);
        }
        self.taken.store(Arc::new(taken));
        Ok(())
    }

    /// The names of the folders that may be models', now.
    fn names(&self) -> Result<Vec<String>, RepositoryError> {
        read::names(&self.root).map_err(RepositoryError::Folder)
    }

    /// The same, as the folder was when it was last looked at.
    fn listed(&self) -> Result<BTreeSet<String>, RepositoryError> {
        let listing = self.listing.load();
        match &listing.unreadable {
            None => Ok(listing.names.clone()),
            Some(problem) => Err(RepositoryError::Folder(problem.clone())),
        }
    }

    /// Whether a model of this name can be had at all.
    fn may_have(&self, name: &str) -> Result<(), RepositoryError> {
        if self.taken.load().contains(name) { Err(has_that_name(name)) } else { Ok(()) }
    }

    /// The turn of a model that is there.
    fn turn(&self, name: &str) -> Result<Arc<Mutex<()>>, RepositoryError> {
        // One that is served has a turn, whatever has become of its folder.
        if !(self.ready.load().contains_key(name) || self.is_on_disk(name)) {
            return Err(self.unknown(name));
        }
        Ok(Arc::clone(self.book().turns.entry(name.to_owned()).or_default()))
    }

    /// Whether the folder has a model of this name now.
    fn is_on_disk(&self, name: &str) -> bool {
        read::is_name(name) && self.root.join(name).is_dir()
    }

    fn unknown(&self, name: &str) -> RepositoryError {
        let names = read::names(&self.root).unwrap_or_default();
        RepositoryError::Unknown(suggest::unknown("model", name, names.iter().map(String::as_str)))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn has_that_name(name: &str) -> RepositoryError {
    let reason = "a graph or a model of the project has that name".to_owned();
    RepositoryError::Failed { name: name.to_owned(), reason }
}
