//! What a server serves: one version of every graph, and how the next takes its place.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use millstream_featurestore::{
    FeatureSets, Stores,
    stream::{Stream, Streams},
};
use millstream_graph::ErrorKind;
use millstream_runtime::{Budget, ComputePool, Engine, Limits, Metrics};
use serde_json::json;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

use crate::{
    body::BodyLimits,
    features::{self, FeatureRows, FeatureService},
    http::ServeError,
    monitoring::{self, GraphWatch, Monitoring},
    observe::Observer,
    oip::{self, CompatMetrics, Repository, RepositoryMetrics},
    project::{Files, Project, Stamps},
    refusals::Refusals,
    reload::blocking,
    service::{GraphService, JSON},
    sink::SinkRows,
    stats::{Served, Watched},
    through::Through,
    vectors::{self, VectorService},
    wire::DecodeLimits,
};

pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-millstream-version");

/// One version of everything: graphs with their models and feature sets, all of one reading of the project.
///
/// A request takes one and keeps it to its end, so that it never sees two versions.
pub(crate) struct Snapshot {
    pub(crate) project: String,
    pub(crate) version: String,
    /// The version as a header.
    pub(crate) mark: HeaderValue,
    pub(crate) since: DateTime<Utc>,
    pub(crate) graphs: Vec<(String, GraphService)>,
    /// Those graphs, and models by themselves, under the Open Inference Protocol.
    pub(crate) models: Vec<Arc<oip::Model>>,
    /// Further models, which come and go by themselves.
    pub(crate) repository: Option<Arc<Repository>>,
    pub(crate) features: Vec<Arc<FeatureService>>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) vectors: Vec<Arc<VectorService>>,
    pub(crate) watches: Vec<Arc<GraphWatch>>,
    monitoring: monitoring::Plan,
    pub(crate) sets: Arc<FeatureSets>,
    /// Sets do not own the graphs that their rows pass.
    _passages: Vec<Arc<Through>>,
    pub(crate) files: Files,
    /// Those files as they were when they were read.
    pub(crate) stamps: Stamps,
    /// Closed to cut off the requests that outstay their version.
    cut: Arc<Semaphore>,
    /// Goes with the last request, which `gone` then tells.
    _alive: oneshot::Sender<Infallible>,
    gone: Mutex<Option<oneshot::Receiver<Infallible>>>,
}

/// Of what the graphs of a server are made, whatever the version.
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    pub(crate) decode: DecodeLimits,
    pub(crate) body: BodyLimits,
    /// One registry for all versions: a graph that stays goes on counting where it was.
    pub(crate) metrics: Metrics,
    /// The threads of models by themselves.
    pub(crate) models_pool: ComputePool,
    pub(crate) repository: RepositoryMetrics,
    pub(crate) sink_rows: SinkRows,
    pub(crate) feature_rows: FeatureRows,
    /// Bytes of bodies with rows and keys of feature sets under way.
    pub(crate) feature_bytes: Arc<Budget>,
}

impl Snapshot {
    /// Engines for every graph of a project. What is open of the `last` one stays open.
    pub(crate) fn new(project: &Project, terms: &Terms, last: Option<&Self>) -> Result<Self, ServeError> {
        project.outside().count_into(&terms.sink_rows);
        let mut graphs = Vec::new();
        for name in project.graph_names() {
            let engine = project.engine_with(name, terms.limits.clone(), &terms.metrics)?;
            let passages = project.passages().iter().filter(|through| through.graph() == name);
            passages.for_each(|through| through.run_on(engine.clone()));
            let service = GraphService::new(engine, terms.decode)
                .map_err(|source| ServeError::Columns { graph: name.to_owned(), source })?
                .body_limits(terms.body);
            let watch = project.watches().iter().find(|watch| watch.graph == name);
            let service = service.watched_by(watch.map(Arc::clone));
            graphs.push((name.to_owned(), service));
        }
        let features = features::services(project.features(), terms.decode, &terms.feature_rows)
            .map_err(|(set, source)| ServeError::Features { set, source })?;
        let vectors = vectors::services(project.features(), terms.decode)
            .map_err(|(vector, source)| ServeError::Vector { vector, source })?;
        let models = oip::models(project, &graphs, terms);
        let taken = project.graph_names().chain(project.models().iter().map(|(name, _)| name));
        let taken: BTreeSet<String> = taken.map(str::to_owned).collect();
        let open = last.and_then(|last| last.repository.as_ref());
        let repository = Repository::of(project, taken, terms, open).map_err(ServeError::Repository)?;
        let (alive, gone) = oneshot::channel();
        let version = project.version().to_owned();
        Ok(Self {
            project: project.name().to_owned(),
            mark: HeaderValue::from_str(&version).unwrap_or(HeaderValue::from_static("unknown")),
            version,
            since: Utc::now(),
            graphs,
            models,
            repository,
            features,
            streams: project.streams().to_vec(),
            vectors,
            watches: project.watches().to_vec(),
            monitoring: project.monitoring().clone(),
            _passages: project.passages().to_vec(),
            sets: Arc::clone(project.features()),
            files: project.files().clone(),
            stamps: project.stamps().clone(),
            cut: Arc::new(Semaphore::new(0)),
            _alive: alive,
            gone: Mutex::new(Some(gone)),
        })
    }

    pub(crate) fn graph(&self, name: &str) -> Option<&GraphService> {
        self.graphs.iter().find(|(known, _)| known == name).map(|(_, service)| service)
    }

    /// An answer under this version, marked with it; cut off when the version has been gone for too long.
    pub(crate) async fn answer<B: From<Bytes>>(
        &self,
        answer: Pin<&mut impl Future<Output = Response<B>>>,
    ) -> Response<B> {
        let mut answer = self.kept(answer).await.unwrap_or_else(cut_off);
        answer.headers_mut().insert(VERSION, self.mark.clone());
        answer
    }

    /// What becomes of a request under this version; none when the version has been gone for too long.
    pub(crate) async fn kept<F: Future>(&self, request: Pin<&mut F>) -> Option<F::Output> {
        tokio::select! {
            biased;
            answer = request => Some(answer),
            _ = self.cut.acquire() => None,
        }
    }

    fn engines(&self) -> Vec<Engine> {
        let graphs = self.graphs.iter().map(|(_, service)| service.engine());
        graphs.chain(self.models.iter().filter_map(|model| model.own_engine())).cloned().collect()
    }

    /// The engines of models that stay when the version goes, unless the whole server does.
    fn repository_engines(&self) -> Vec<Engine> {
        let loaded = self.repository.as_ref().map(|repository| repository.loaded());
        let versions = loaded.iter().flat_map(|loaded| loaded.values()).flat_map(|served| served.iter());
        versions.filter_map(|(_, model)| model.own_engine().cloned()).collect()
    }
}

/// What a request hears that is cut off.
pub(crate) const CUT_OFF: &str = "the project was reloaded, and this request outstayed its version";

fn cut_off<B: From<Bytes>>() -> Response<B> {
    let message = json!({
        "error": CUT_OFF,
        "code": ErrorKind::Unavailable.name(),
    });
    let mut answer = Response::new(B::from(Bytes::from(message.to_string())));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// What the parts of a server share.
pub(crate) struct Shared {
    pub(crate) live: ArcSwap<Snapshot>,
    /// The open stores of feature sets, which all versions share.
    pub(crate) stores: Arc<Stores>,
    /// Those of the version that is served, while connections are.
    pub(crate) streams: Streams,
    pub(crate) terms: Terms,
    pub(crate) refusals: Refusals,
    pub(crate) watched: Watched,
    pub(crate) monitoring: Monitoring,
    pub(crate) serving: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// Whether clients may load and unload models, and change what is traced and logged.
    model_control: AtomicBool,
    observer: OnceLock<Arc<Observer>>,
    /// Whose names metrics have beside their own.
    pub(crate) compat_metrics: OnceLock<CompatMetrics>,
    /// Versions that have been replaced and still answer.
    retiring: Mutex<JoinSet<()>>,
}

impl Shared {
    pub(crate) fn new(
        first: Snapshot,
        stores: Arc<Stores>,
        streams: Streams,
        terms: Terms,
        refusals: Refusals,
    ) -> Result<Self, prometheus::Error> {
        let registry = terms.metrics.registry();
        let monitoring = Monitoring::new(&first.project, &first.monitoring, registry)?;
        Ok(Self {
            monitoring,
            live: ArcSwap::from_pointee(first),
            stores,
            streams,
            terms,
            refusals,
            watched: Watched::default(),
            serving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            model_control: AtomicBool::new(false),
            observer: OnceLock::new(),
            compat_metrics: OnceLock::new(),
            retiring: Mutex::default(),
        })
    }

    /// What is watched of the graphs that are served.
    pub(crate) fn watches(&self) -> Vec<Arc<GraphWatch>> {
        self.live.load().watches.clone()
    }

    pub(crate) fn model_control(&self) -> bool {
        self.model_control.load(SeqCst)
    }

    pub(crate) fn allow_model_control(&self, allowed: bool) {
        self.model_control.store(allowed, SeqCst);
    }

    /// What tells of requests, once connections are served.
    pub(crate) fn observer(&self) -> &Observer {
        static NOBODY: Observer = Observer::nobody();
        self.observer.get().map_or(&NOBODY, |observer| observer)
    }

    pub(crate) fn observed_by(&self, observer: &Arc<Observer>) {
        // A server serves once.
        let _ = self.observer.set(Arc::clone(observer));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Puts `next` into the place of what is served. What was there answers the requests that have it, for `grace`.
    pub(crate) fn swap(&self, next: Snapshot, grace: Duration) {
        self.monitoring.change(&next.monitoring);
        let old = self.live.swap(Arc::new(next));
        self.keep_streams();
        let mut retiring = self.retiring.lock().unwrap_or_else(PoisonError::into_inner);
        while retiring.try_join_next().is_some() {}
        retiring.spawn(retire(old, grace));
    }

    /// Begins and ends streams as the version says that is served, while connections are.
    pub(crate) fn keep_streams(&self) {
        if !self.serving.load(SeqCst) {
            return;
        }
        if let Err(problems) = self.streams.keep(self.live.load().streams.clone()) {
            tracing::error!("streams that do not run:\n{}", problems.join("\n"));
        }
    }

    /// How many versions are still being used up.
    pub(crate) fn retiring(&self) -> usize {
        let mut retiring = self.retiring.lock().unwrap_or_else(PoisonError::into_inner);
        while retiring.try_join_next().is_some() {}
        retiring.len()
    }

    /// Waits until every run and every tail of every version has ended.
    pub(crate) async fn close(&self) {
        let mut retiring = std::mem::take(&mut *self.retiring.lock().unwrap_or_else(PoisonError::into_inner));
        let live = self.live.load_full();
        for engine in live.engines().into_iter().chain(live.repository_engines()) {
            engine.close().await;
        }
        while retiring.join_next().await.is_some() {}
    }
}

impl Served for Shared {
    fn services(&self) -> Vec<(String, GraphService)> {
        self.live.load().graphs.clone()
    }

    fn watched(&self) -> &Watched {
        &self.watched
    }
}

/// Waits until no request has the version any more and its tails have ended, and frees it.
async fn retire(old: Arc<Snapshot>, grace: Duration) {
    let (engines, models) = (old.engines(), old.models.clone());
    let (version, cut) = (old.version.clone(), Arc::clone(&old.cut));
    let gone = old.gone.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(old);
    let ended = async {
        if let Some(gone) = gone {
            // Nothing is ever sent: what is awaited is that the sender goes.
            let _ = gone.await;
        }
        // Only now: a request that is still sending its body has not come to its run yet.
        for engine in &engines {
            engine.close().await;
        }
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!(version, "what is under way in a version {grace:?} after it was replaced is cut off");
        cut.close();
    }
    // Models and tables take a while to be given back.
    let _ = blocking(move || drop((engines, models))).await;
}
