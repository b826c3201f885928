//! The models of a project's repository, which come and go while requests do.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use millstream_models::{self as models, Given, Load, Outcomes, RepositoryError, Served};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{OwnedMutexGuard, Semaphore};

use super::models::{AloneTerms, Model};
use crate::{project::Project, reload::blocking, snapshot::Terms};

/// Models that are loaded at the same time.
const LOADS: usize = 4;

/// The repository of a project, as long as its settings stay as they are: reloads of the project change nothing in it.
pub(crate) struct Repository {
    models: Arc<models::Repository<Model>>,
    root: PathBuf,
    /// Who waits for a model that is being loaded waits here, and holds no thread.
    waiting: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    loads: Arc<Semaphore>,
    /// One looks at the folder at a time, for all who asked before.
    looking: Arc<tokio::sync::Mutex<()>>,
    looks: AtomicU64,
    /// How long requests wait for a model that say nothing of it themselves.
    patience: Option<Duration>,
    told: Arc<Told>,
}

/// What was told of a repository.
struct Told {
    metrics: RepositoryMetrics,
    /// What is counted already.
    outcomes: Mutex<Outcomes>,
}

impl Told {
    fn measure(&self, models: &models::Repository<Model>) {
        let RepositoryMetrics { loads, evictions, loaded, bytes } = &self.metrics;
        let mut told = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = models.outcomes();
        loads.with_label_values(&["loaded"]).inc_by(now.loaded - told.loaded);
        loads.with_label_values(&["failed"]).inc_by(now.failed - told.failed);
        evictions.inc_by(now.evicted - told.evicted);
        *told = now;
        loaded.set(i64::try_from(models.loaded().len()).unwrap_or(i64::MAX));
        bytes.set(i64::try_from(models.bytes()).unwrap_or(i64::MAX));
    }
}

/// What repositories count, whatever the version of the project.
#[derive(Clone)]
pub(crate) struct RepositoryMetrics {
    loads: IntCounterVec,
    evictions: IntCounter,
    loaded: IntGauge,
    bytes: IntGauge,
}

impl RepositoryMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let loads = IntCounterVec::new(
            Opts::new("millstream_model_loads_total", "Loads of models of the repository by outcome"),
            &["outcome"],
        )?;
        registry.register(Box::new(loads.clone()))?;
        let evictions =
            IntCounter::new("millstream_model_evictions_total", "Models that made room for others")?;
        registry.register(Box::new(evictions.clone()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let loaded = gauge("millstream_models_loaded", "Models of the repository that are loaded")?;
        let bytes = gauge("millstream_models_bytes", "Sizes of their files times their instances")?;
        Ok(Self { loads, evictions, loaded, bytes })
    }
}

impl Deref for Repository {
    type Target = models::Repository<Model>;

    fn deref(&self) -> &Self::Target {
        &self.models
    }
}

impl Repository {
    /// The repository that a project names, if it names one: the one that is `open` already if it is the same.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn of(
        project: &Project,
        taken: BTreeSet<String>,
        terms: &Terms,
        open: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, Vec<RepositoryError>> {
        let Some(spec) = project.repository() else {
            terms.repository.loaded.set(0);
            terms.repository.bytes.set(0);
            return Ok(None);
        };
        let root = project.root().to_path_buf();
        if let Some(open) = open
            && open.root == root
            && open.spec() == spec
        {
            open.take(taken)?;
            return Ok(Some(Arc::clone(open)));
        }
        let alone = AloneTerms::from(terms);
        let make = move |version| Model::of_version(version, &alone);
        let models = models::Repository::open(&root, spec.clone(), taken, make)?;
        // What is loaded before anything is served was asked for by nobody.
        let outcomes = models.outcomes();
        let this = Self {
            models: Arc::new(models),
            root,
            waiting: Mutex::default(),
            loads: Arc::new(Semaphore::new(LOADS)),
            looking: Arc::default(),
            looks: AtomicU64::new(0),
            patience: terms.limits.deadline,
            told: Arc::new(Told { metrics: terms.repository.clone(), outcomes: Mutex::new(outcomes) }),
        };
        this.told.measure(&this.models);
        Ok(Some(Arc::new(this)))
    }

    /// Whether the repository has a model of this name, loaded or not, as far as [`Repository::look`] has seen.
    pub(super) fn has(&self, name: &str) -> bool {
        self.models.is_there(name)
    }

    /// How long requests wait for a model that say nothing of it themselves.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Sees what models there are now. However many ask at the same time, the folder is looked at by one after the other, and each
    /// look is that of all who asked before it began.
    pub(super) async fn look(&self) {
        let before = self.looks.load(SeqCst);
        let turn = Arc::clone(&self.looking).lock_owned().await;
        if self.looks.load(SeqCst) > before {
            return;
        }
        self.looks.fetch_add(1, SeqCst);
        let models = Arc::clone(&self.models);
        let looked = blocking(move || {
            let _turn = turn;
            models.look();
        });
        if let Err(panic) = looked.await {
            tracing::error!(%panic, "looking at the repository panicked");
        }
    }

    /// A model that comes because it is asked for. All who ask at the same time wait for one load.
    pub(super) async fn want(&self, name: &str) -> Result<Arc<Served<Model>>, RepositoryError> {
        let turn = self.turn(name).lock_owned().await;
        if let Some(served) = self.models.get(name) {
            return Ok(served);
        }
        let wanted = name.to_owned();
        self.work(name, turn, move |models| models.want(&wanted)).await
    }

    pub(super) async fn load(&self, name: &str, given: Given) -> Result<(), RepositoryError> {
        let turn = self.turn(name).lock_owned().await;
        let wanted = name.to_owned();
        self.work(name, turn, move |models| models.load(&wanted, &given)).await
    }

    pub(super) async fn unload(&self, name: &str) -> Result<(), RepositoryError> {
        let turn = self.turn(name).lock_owned().await;
        let wanted = name.to_owned();
        self.work(name, turn, move |models| {
            models.unload(&wanted);
            Ok(())
        })
        .await
    }

    /// The names of models that are loaded, or are when they are asked for, as far as [`Repository::look`] has seen.
    pub(super) fn names(&self) -> Vec<String> {
        if self.spec().load == Load::Lazy {
            let lines = self.index().unwrap_or_default();
            return lines.into_iter().map(|line| line.name).collect::<BTreeSet<_>>().into_iter().collect();
        }
        self.loaded().keys().cloned().collect()
    }

    /// Does what takes its time. A caller that goes away leaves it to end by itself, in its turn.
    async fn work<T: Send + 'static>(
        &self,
        name: &str,
        turn: OwnedMutexGuard<()>,
        work: impl FnOnce(&models::Repository<Model>) -> Result<T, RepositoryError> + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let failed =
            |reason: &str| RepositoryError::Failed { name: name.to_owned(), reason: reason.to_owned() };
        let place = Arc::clone(&self.loads).acquire_owned().await;
        let place = place.map_err(|_| failed("the server is stopping"))?;
        let (models, told) = (Arc::clone(&self.models), Arc::clone(&self.told));
        let done = blocking(move || {
            let _held = (turn, place);
            let done = work(&models);
            told.measure(&models);
            done
        });
        done.await.unwrap_or_else(|panic| {
            tracing::error!(%panic, "loading a model panicked");
            Err(failed("loading it panicked; the log says where"))
        })
    }

    /// The lock of those who wait for a model.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = waiting.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        waiting.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        waiting.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// What a client says of a model that is to be loaded: `config` as JSON, and `file:VERSION/model.onnx` with the bytes of a model.
pub(super) fn given<'p>(parameters: impl Iterator<Item = (&'p str, Parameter)>) -> Result<Given, String> {
    let mut given = Given { config: None, files: BTreeMap::new() };
    for (key, value) in parameters {
        match (key, key.strip_prefix("file:"), value) {
            ("config", _, Parameter::Text(text)) => given.config = Some(text),
            (_, Some(file), Parameter::Bytes(bytes)) => drop(given.files.insert(PathBuf::from(file), bytes)),
            (key, ..) => {
                return Err(format!("parameter `{key}` is none of `config` and `file:VERSION/model.onnx`"));
            }
        }
    }
    Ok(given)
}

/// The value of a parameter.
pub(super) enum Parameter {
    Text(String),
    Bytes(Vec<u8>),
    Other,
}
