//! Reloading: the project as it is now takes the place of the one that is served.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use prometheus::{IntCounterVec, Opts};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use crate::{
    http::{ServeError, Server},
    project::{Files, Project, ProjectError, chain},
    snapshot::{Shared, Snapshot},
};

/// A project whose files keep changing while they are read is read so many times.
const TRIES: usize = 3;

/// Reloads the project of a [`Server`]. Cheap to clone; all clones take turns.
///
/// A reload reads the project's files on a thread of its own, loads feature sets and models, runs each model once, and
/// compiles every graph, while the old version serves. Only when all of that went well are all graphs replaced, at once.
/// Requests that have begun keep the version they began with.
#[derive(Clone)]
pub struct Reloader {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    path: PathBuf,
    grace: Duration,
    counts: IntCounterVec,
    /// Reloads take turns: each holds the memory of a whole project.
    turn: tokio::sync::Mutex<()>,
    last: watch::Sender<Option<Arc<Reload>>>,
    /// Reloads under way, so that one goes on when its caller does not wait.
    owned: Mutex<JoinSet<()>>,
}

/// What became of a reload.
#[derive(Clone, Debug)]
pub struct Reload {
    /// How it ended.
    pub outcome: Outcome,
    /// The version that is served since.
    pub version: String,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How long it took, without waiting for its turn.
    pub took: Duration,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new version is served.
    Swapped,
    /// The files are those of the version that is served.
    Unchanged,
    /// The old version is served on; these are the mistakes of the new one, each with its place.
    Failed(Vec<String>),
}

impl Outcome {
    /// One word, as metrics and the admin routes have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Swapped => "swapped",
            Self::Unchanged => "unchanged",
            Self::Failed(_) => "failed",
        }
    }
}

impl Reloader {
    /// Reloads what `server` serves from the project at `path`. A version that was replaced is cut off after `grace`.
    ///
    /// # Errors
    /// When the server has a reloader already: its metric can be registered once.
    pub fn new(server: &Server, path: impl Into<PathBuf>, grace: Duration) -> Result<Self, ServeError> {
        let shared = Arc::clone(server.shared());
        let counts = IntCounterVec::new(
            Opts::new("millstream_reloads_total", "Reloads of the project by outcome"),
            &["outcome"],
        )?;
        shared.terms.metrics.registry().register(Box::new(counts.clone()))?;
        let inner = Inner {
            shared,
            path: path.into(),
            grace,
            counts,
            turn: tokio::sync::Mutex::default(),
            last: watch::Sender::new(None),
            owned: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reloads, after those that were asked for before. Goes on when the caller does not wait for the end.
    pub async fn reload(&self) -> Arc<Reload> {
        let (done, ended) = oneshot::channel();
        let this = self.clone();
        {
            let mut owned = self.inner.owned.lock().unwrap_or_else(PoisonError::into_inner);
            while owned.try_join_next().is_some() {}
            owned.spawn(async move {
                // Nobody reads the outcome when the caller has gone.
                let _ = done.send(this.in_turn().await);
            });
        }
        match ended.await {
            Ok(reload) => reload,
            // The task does not panic, and ends early only with the runtime.
            Err(_) => {
                self.inner.ended(Outcome::Failed(vec!["the server is stopping".into()]), Duration::ZERO)
            }
        }
    }

    /// The last reload, and every further one.
    pub fn last(&self) -> watch::Receiver<Option<Arc<Reload>>> {
        self.inner.last.subscribe()
    }

    /// Reloads so far, by outcome.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let count = |outcome| (outcome, self.inner.counts.with_label_values(&[outcome]).get());
        ["swapped", "unchanged", "failed"].map(count).into()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The files that matter: those of the version that is served, and those that the project's file names now.
    pub(crate) fn files(&self) -> Files {
        let served = self.inner.shared.live.load().files.clone();
        served.with(Project::files_at(&self.inner.path).names())
    }

    async fn in_turn(&self) -> Arc<Reload> {
        let inner = &self.inner;
        let _turn = inner.turn.lock().await;
        let start = Instant::now();
        let outcome = if inner.shared.is_stopping() {
            Outcome::Failed(vec!["the server is stopping".into()])
        } else {
            inner.attempt().await
        };
        inner.ended(outcome, start.elapsed())
    }
}

impl Inner {
    async fn attempt(self: &Arc<Self>) -> Outcome {
        let (shared, path) = (Arc::clone(&self.shared), self.path.clone());
        match blocking(move || build(&path, &shared)).await {
            Ok(Ok(Some(next))) => {
                self.shared.swap(next, self.grace);
                Outcome::Swapped
            }
            Ok(Ok(None)) => Outcome::Unchanged,
            Ok(Err(mistakes)) => Outcome::Failed(mistakes),
            Err(panic) => {
                tracing::error!(%panic, "a reload panicked");
                Outcome::Failed(vec!["loading the project panicked; the log says where".into()])
            }
        }
    }

    fn ended(&self, outcome: Outcome, took: Duration) -> Arc<Reload> {
        let version = self.shared.live.load().version.clone();
        self.counts.with_label_values(&[outcome.name()]).inc();
        match &outcome {
            Outcome::Swapped => tracing::info!(version, ?took, "a new version of the project is served"),
            Outcome::Unchanged => tracing::info!(version, "the project's files are those that are served"),
            Outcome::Failed(mistakes) => {
                tracing::error!(
                    version,
                    "the project was not reloaded, the old version is served on:\n{}",
                    mistakes.join("\n")
                );
            }
        }
        let reload = Arc::new(Reload { outcome, version, at: Utc::now(), took });
        self.last.send_replace(Some(Arc::clone(&reload)));
        reload
    }
}

/// Runs what reads files, computes or frees for long on a thread where no request waits for it.
#[expect(clippy::disallowed_methods, reason = "its few callers take turns, or are one per version that ends")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// The next version, or none when the files are those of the one that is served.
fn build(path: &Path, shared: &Shared) -> Result<Option<Snapshot>, Vec<String>> {
    let served = |version: &str| shared.live.load().version == version;
    // Far cheaper than loading. Files that cannot be read are what loading complains of.
    let files = shared.live.load().files.clone();
    if files.version().is_ok_and(|version| served(&version)) && Project::is_fetched_as(path, &files) {
        return Ok(None);
    }
    let mut tries = 0;
    let project = loop {
        tries += 1;
        match Project::load_among(path, &shared.stores) {
            Err(ProjectError::Changing { .. }) if tries < TRIES => {}
            Err(error) => return Err(error.mistakes()),
            Ok(project) => break project,
        }
    };
    if served(project.version()) {
        return Ok(None);
    }
    let last = shared.live.load_full();
    Snapshot::new(&project, &shared.terms, Some(&last)).map(Some).map_err(|error| vec![chain(&error)])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use millstream_runtime::Limits;

    use super::*;
    use crate::DecodeLimits;

    const PROJECT: &str = "\
name: p
feature_sets: { facts: { keys: [k], source: facts.csv } }
graphs:
  ask:
    input: { k: int64 }
    steps:
      known: { enrich: { set: facts, by: k, missing: fail } }
    respond: known
";

    #[tokio::test]
    async fn an_old_version_is_freed_with_its_engines_and_tables() {
        let folder = tempfile::tempdir().unwrap();
        let facts = folder.path().join("facts.csv");
        fs::write(folder.path().join("millstream.yaml"), PROJECT).unwrap();
        fs::write(&facts, "k,fact\n1,1\n").unwrap();
        let project = Project::load(folder.path()).unwrap();
        let tables = Arc::downgrade(project.features());
        let server = Server::new(&project, &Limits::default(), DecodeLimits::default()).unwrap();
        drop(project);
        let plan = Arc::downgrade(server.shared().live.load().graphs[0].1.engine().plan());
        let reloader = Reloader::new(&server, folder.path(), Duration::from_secs(60)).unwrap();
        assert_eq!(reloader.reload().await.outcome, Outcome::Unchanged);
        fs::write(&facts, "k,fact\n1,2\n").unwrap();
        let request = server.shared().live.load_full();
        assert_eq!(reloader.reload().await.outcome, Outcome::Swapped);
        assert!(plan.upgrade().is_some(), "a request still has it");
        assert_eq!(server.shared().retiring(), 1);
        drop(request);
        let freed = async {
            while server.shared().retiring() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), freed).await.unwrap();
        assert!(plan.upgrade().is_none() && tables.upgrade().is_none());
    }
}
