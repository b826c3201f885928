//! The HTTP server: routes, connections, and how it stops.

use std::{
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Version,
    header::{ACCEPT, CONNECTION, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use millstream_featurestore::stream::Streams;
use millstream_graph::suggest;
use millstream_models::RepositoryError;
use millstream_monitor::custom::Custom;
use millstream_runtime::{Budget, ComputePool, EngineError, Limits, Metrics};
use prometheus::TextEncoder;
use serde_json::json;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::{
    connections::{Busy, ConnectionLimits, Connections},
    describe,
    features::{self, FeatureRows},
    monitoring::{self, MetricError, Turning},
    observe::{Observe, ObserveError, Observer},
    oip::{self, CompatMetrics, Grpc, RepositoryMetrics},
    project::{Project, ProjectError},
    refusals::{Refusals, Refused},
    security::{
        Access, AccessError, Asked, Guard,
        tls::{Tls, TlsError, TlsFiles},
    },
    service::{Answer, json_answer, wants_events},
    sink::SinkRows,
    snapshot::{Shared, Snapshot, Terms},
    stats::{self, Watched},
    streams::{self, StreamMetrics},
    vectors,
    wire::DecodeLimits,
};

/// tokio wakes a sleeping worker for a timer that is due before all others, and every request sets one. A timer that is always
/// due sooner spares that wake.
const TICK: Duration = Duration::from_millis(50);
/// Where graphs are.
const GRAPHS: &str = "/v1/graphs/";
/// Connections at once to the admin listener.
const ADMIN_CONNECTIONS: usize = 64;
/// The graphs of a project, served.
///
/// What is served may be replaced while it is, by a [`Reloader`](crate::Reloader).
pub struct Server {
    shared: Arc<Shared>,
    connections: ConnectionLimits,
    admin: Option<(TcpListener, Router)>,
    observer: Arc<Observer>,
    guard: Option<Arc<Guard>>,
    tls: Option<Arc<Tls>>,
    /// What takes the observer's traces away.
    exporter: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// How a server ends when it was asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The time that connections are still accepted: whoever sends requests here has to hear of the end first.
    pub drain_delay: Duration,
    /// The time in which everything ends, the drain delay included.
    pub grace: Duration,
}

/// Why a project cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An engine could not be made.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The metrics could not be made.
    #[error("metrics could not be made")]
    Metrics(#[from] prometheus::Error),
    /// The threads of models could not be started.
    #[error(transparent)]
    Threads(#[from] EngineError),
    /// The model repository, or models of it, cannot be loaded.
    #[error("{}", listed(.0))]
    Repository(Vec<RepositoryError>),
    /// A graph has columns that JSON cannot carry.
    #[error("graph `{graph}`: {source}")]
    Columns {
        /// The graph.
        graph: String,
        /// Which columns.
        source: millstream_graph::SchemaError,
    },
    /// A feature set has columns that JSON cannot carry.
    #[error("feature set `{set}`: {source}")]
    Features {
        /// The set.
        set: String,
        /// Which columns.
        source: millstream_graph::SchemaError,
    },
    /// A feature vector has columns that JSON cannot carry.
    #[error("feature vector `{vector}`: {source}")]
    Vector {
        /// The vector.
        vector: String,
        /// Which columns.
        source: millstream_graph::SchemaError,
    },
}

fn listed(errors: &[RepositoryError]) -> String {
    errors.iter().map(|error| format!("repository: {error}")).collect::<Vec<_>>().join("\n")
}

impl Server {
    /// A server for every graph of a project.
    ///
    /// # Errors
    /// When an engine cannot start its threads, or a graph's columns cannot be carried as JSON.
    pub fn new(project: &Project, limits: &Limits, decode: DecodeLimits) -> Result<Self, ServeError> {
        Self::with_connections(project, limits, decode, ConnectionLimits::default())
    }

    /// A server with other limits on connections.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_connections(
        project: &Project,
        limits: &Limits,
        decode: DecodeLimits,
        connections: ConnectionLimits,
    ) -> Result<Self, ServeError> {
        let metrics = Metrics::new()?;
        let refusals = Refusals::new(metrics.registry())?;
        let sink_rows = SinkRows::new(metrics.registry())?;
        let feature_rows = FeatureRows::new(metrics.registry())?;
        let repository = RepositoryMetrics::new(metrics.registry())?;
        let models_pool = ComputePool::new(limits.compute_threads, limits.compute_queue)?;
        let terms = Terms {
            models_pool,
            repository,
            limits: limits.clone(),
            decode,
            body: connections.body,
            metrics,
            sink_rows,
            feature_rows,
            feature_bytes: Budget::new(limits.bytes),
        };
        let streams = Streams::new().meter(Arc::new(StreamMetrics::new(terms.metrics.registry())?));
        let first = Snapshot::new(project, &terms, None)?;
        let shared = Arc::new(Shared::new(first, Arc::clone(project.stores()), streams, terms, refusals)?);
        Ok(Self {
            shared,
            connections,
            admin: None,
            observer: Arc::default(),
            guard: None,
            tls: None,
            exporter: None,
        })
    }

    /// Tells of single requests, in traces and logs, while the server serves.
    ///
    /// # Errors
    /// When traces are to go where they cannot.
    pub fn observe(mut self, observe: Observe) -> Result<Self, ObserveError> {
        let (observer, exporter) = Observer::new(observe, self.shared.terms.metrics.registry())?;
        self.observer = Arc::new(observer);
        self.exporter = exporter.map(|exporter| Box::pin(exporter) as _);
        Ok(self)
    }

    /// Asks callers for keys or tokens, on every listener connection and every call. Whoever mounts [`Server::router`] in a router of
    /// their own asks for themselves. With it, operators may do what [`Server::model_control`] allows to all.
    ///
    /// # Errors
    /// When the file of keys cannot be read or is wrong, or the audit log cannot be written.
    pub fn access(mut self, access: &Access) -> Result<Self, AccessError> {
        self.guard = Some(Arc::new(Guard::new(access, &self.shared)?));
        Ok(self)
    }

    /// Speaks TLS on the listener of graphs and models.
    ///
    /// # Errors
    /// When a file cannot be read, or does not go with the others.
    pub fn tls(mut self, files: TlsFiles) -> Result<Self, TlsError> {
        self.tls = Some(Arc::new(Tls::new(files)?));
        Ok(self)
    }

    /// Whether clients may load and unload models of the repository, and change what is traced and logged. By default they may not:
    /// a model is code.
    #[must_use]
    pub fn model_control(self, allowed: bool) -> Self {
        self.shared.allow_model_control(allowed);
        self
    }

    /// Asks for a metric of one's own after every pane: what `metric` makes of what was counted of an `edge` that the `graph`'s `monitor`
    /// names. It is shown, and told to alerts, as those of the project's file, and stays when the project is reloaded.
    ///
    /// # Errors
    /// When there is no such edge, or the metric's name is taken.
    pub fn monitor_metric(self, graph: &str, edge: &str, metric: Custom) -> Result<Self, MetricError> {
        self.shared.monitoring.register((graph, edge), metric, &self.shared.watches())?;
        Ok(self)
    }

    /// Writes metrics under the names of another server too, which dashboards may chart already. Said once.
    #[must_use]
    pub fn compat_metrics(self, names: CompatMetrics) -> Self {
        // Who says it twice meant the first.
        let _ = self.shared.compat_metrics.set(names);
        self
    }

    /// Serves other routes, such as [`admin_router`](crate::admin_router), on a listener of their own.
    #[must_use]
    pub fn admin(mut self, listener: TcpListener, router: Router) -> Self {
        self.admin = Some((listener, router));
        self
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The routes, to mount in an application's own router.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/openapi.json", get(openapi))
            .route("/v1/graphs", get(list))
            .route("/v1/streams", get(streams::list))
            .route("/v1/graphs/{graph}", axum::routing::any(graph))
            .merge(stats::routes())
            .merge(features::routes())
            .merge(vectors::routes())
            .merge(monitoring::routes())
            .merge(oip::routes())
            .fallback(unknown_route)
            .method_not_allowed_fallback(wrong_method)
            .with_state(Arc::clone(&self.shared))
    }

    /// Serves connections until `stop` is ready, and ends within `grace`, as [`Server::serve_until`] does without a drain delay.
    ///
    /// # Errors
    /// As [`Server::serve_until`].
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> io::Result<()> {
        let stop = async {
            stop.await;
            Ending { drain_delay: Duration::ZERO, grace }
        };
        self.serve_until(listener, stop).await
    }

    /// Serves connections until `stop` is ready. Then `readyz` says so and every answer asks its client to connect elsewhere,
    /// while connections are accepted for the drain delay. What is under way then, and what still comes on open connections, is
    /// answered, and tails are finished. Ends when that is done, or when the grace is over.
    ///
    /// # Errors
    /// None at present: a connection that cannot be accepted is no reason to stop serving.
    pub async fn serve_until(
        self,
        listener: TcpListener,
        stop: impl Future<Output = Ending>,
    ) -> io::Result<()> {
        let (shared, router) = (Arc::clone(&self.shared), self.router());
        let observer = Arc::clone(&self.observer);
        let mut connections =
            Connections::new(self.connections.clone(), self.tls.clone(), shared.refusals.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
            }
        });
        tasks.spawn(Watched::keep(Arc::clone(&shared)));
        let turning = Turning::start(&shared)?;
        if let Some(exporter) = self.exporter {
            tasks.spawn(exporter);
        }
        if let Some(guard) = &self.guard {
            tasks.spawn(Arc::clone(guard).keep());
        }
        if let Some(tls) = self.tls {
            tasks.spawn(tls.keep());
        }
        if let Some((listener, router)) = self.admin {
            tasks.spawn(serve_admin(listener, router, self.connections.clone(), shared.refusals.clone()));
        }
        shared.observed_by(&observer);
        shared.serving.store(true, SeqCst);
        shared.keep_streams();
        let uri_bytes = self.connections.uri_bytes;
        let grpc = Arc::new(Grpc::new(&shared, &observer).await);
        let routes = Arc::new(Routes {
            router,
            grpc: Arc::clone(&grpc),
            shared: Arc::clone(&shared),
            observer: Arc::clone(&observer),
            guard: self.guard,
            uri_bytes,
        });
        let service = Arc::new(move |request, from| Arc::clone(&routes).answer(request, from));
        let mut ending = None;
        connections.accept(&listener, &service, async { ending = Some(stop.await) }).await;
        let Ending { drain_delay, grace } = ending.unwrap_or_default();
        let end = tokio::time::Instant::now() + grace;
        shared.stopping.store(true, SeqCst);
        grpc.stop().await;
        shared.watched.stop();
        connections.drain();
        let delay = drain_delay.min(grace);
        tracing::info!("stopping: requests are answered, connections are accepted for another {delay:?}");
        if !delay.is_zero() {
            connections.accept(&listener, &service, tokio::time::sleep(delay)).await;
        }
        connections.accept_waiting(&listener, &service);
        drop(listener);
        let drained = async {
            shared.streams.stop().await;
            grpc.end().await;
            connections.close().await;
            shared.close().await;
            observer.flush().await;
        };
        if tokio::time::timeout_at(end, drained).await.is_err() {
            tracing::warn!("requests still under way after {grace:?} are cut off");
        }
        turning.end().await;
        // They hold what is served, whose files are closed when it goes.
        tasks.shutdown().await;
        Ok(())
    }
}

/// Serves the admin routes until it is dropped.
async fn serve_admin(listener: TcpListener, router: Router, limits: ConnectionLimits, refusals: Refusals) {
    // A handful of callers; and the graphs' connections are no reason to refuse them.
    let limits = ConnectionLimits { connections: ADMIN_CONNECTIONS, ..limits };
    let service = Arc::new(move |request: Request<Incoming>, _: IpAddr| {
        let router = router.clone();
        async move {
            match router.oneshot(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            }
        }
    });
    Connections::new(limits, None, refusals).accept(&listener, &service, std::future::pending()).await;
}

/// Every route. Runs, which is what a server is asked for all day, are found by their path alone; the router serves the rest.
struct Routes {
    router: Router,
    grpc: Arc<Grpc>,
    shared: Arc<Shared>,
    observer: Arc<Observer>,
    guard: Option<Arc<Guard>>,
    uri_bytes: usize,
}

impl Routes {
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        from: IpAddr,
    ) -> http::Response<Either<Full<Bytes>, Body>> {
        if let Some(guard) = &self.guard {
            let (method, headers) = (request.method(), request.headers());
            let asked = Asked { method, path: request.uri().path(), headers, from: Some(from) };
            match guard.let_in(&asked) {
                Ok(Some(session)) => drop(request.extensions_mut().insert(session)),
                Ok(None) => {}
                Err(denied) => {
                    self.shared.refusals.count(denied.code());
                    if request.version() == Version::HTTP_2 && oip::is_call(headers) {
                        return oip::denied(&denied).map(|body| Either::Right(Body::new(body)));
                    }
                    return denied.answer().map(Either::Left);
                }
            }
        }
        if request.version() == Version::HTTP_2 && oip::is_call(request.headers()) {
            // Boxed, because a call is large and other requests need not carry room for one.
            return Box::pin(self.grpc.answer(request)).await.map(|body| Either::Right(Body::new(body)));
        }
        // The parts stay here and what is called gets references: each future copies what it is given.
        let (mut head, body) = request.into_parts();
        let close = head.version < Version::HTTP_2;
        let too_long = head.uri.path_and_query().is_some_and(|path| path.as_str().len() > self.uri_bytes);
        let served = self.shared.live.load_full();
        // What may be answered in parts goes through the router, which looks closer.
        let may_stream = head.extensions.get::<Busy>().is_some();
        let name = head.uri.path().strip_prefix(GRAPHS).filter(|_| !may_stream);
        let graph = name.and_then(|name| served.graph(name));
        let asks_model = graph.is_none() && head.method == Method::POST && !may_stream;
        let model = if asks_model { oip::inferred(&served, head.uri.path()) } else { None };
        let mut answer = match (graph, model) {
            _ if too_long => uri_too_long(self.uri_bytes).map(Either::Left),
            (Some(graph), _) => {
                let answer = async |head: &Parts| graph.answer_parts(head, body).await;
                let answer = pin!(self.observer.tell(graph.name(), &mut head, answer));
                served.answer(answer).await.map(Either::Left)
            }
            (None, Some((model, asks))) => {
                let answer = pin!(oip::infer(&model, asks, &self.observer, &mut head, body));
                served.answer(answer).await.map(Either::Left)
            }
            (None, None) => match self.router.clone().oneshot(Request::from_parts(head, body)).await {
                Ok(answer) => answer.map(Either::Right),
                Err(never) => match never {},
            },
        };
        if answer.status().is_client_error()
            && let Some(Refused(reason)) = answer.extensions().get()
        {
            self.shared.refusals.count(reason);
        }
        if close && self.shared.is_stopping() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response();
    }
    "ready".into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    match TextEncoder::new().encode_utf8(&shared.terms.metrics.registry().gather(), &mut text) {
        Ok(()) => {
            if let Some(names) = shared.compat_metrics.get() {
                names.write(&shared.live.load(), &mut text);
            }
            shared.monitoring.expose(&mut text);
            ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn openapi(State(shared): State<Arc<Shared>>) -> Response {
    let served = shared.live.load_full();
    oip::look(&served).await;
    json_answer(StatusCode::OK, &describe::openapi(&served)).into_response()
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let served = shared.live.load_full();
    let names = served.graphs.iter().map(|(name, _)| name);
    let graphs: Vec<_> =
        names.map(|name| json!({ "name": name, "url": format!("/v1/graphs/{name}") })).collect();
    let body = json!({ "project": served.project, "version": served.version, "graphs": graphs });
    json_answer(StatusCode::OK, &body).into_response()
}

async fn graph(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let served = shared.live.load_full();
    if let Some(service) = served.graph(&name) {
        if request.method() == Method::POST && wants_events(request.headers().get(ACCEPT)) {
            let answer = service.answer_events(&served, shared.observer(), request);
            return served.answer(Box::pin(answer).as_mut()).await;
        }
        return served.answer(pin!(service.answer(request))).await.into_response();
    }
    let known = served.graphs.iter().map(|(name, _)| name.as_str());
    refused(StatusCode::NOT_FOUND, "unknown_graph", &suggest::unknown("graph", &name, known)).into_response()
}

async fn unknown_route() -> Response {
    let message = "no such route; /openapi.json lists them";
    refused(StatusCode::NOT_FOUND, "unknown_route", message).into_response()
}

async fn wrong_method() -> Response {
    refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route takes GET").into_response()
}

fn uri_too_long(most: usize) -> Answer {
    let message = format!("path and query have more than {most} bytes");
    refused(StatusCode::URI_TOO_LONG, "uri_too_long", &message)
}

/// An answer to what does not become a run.
pub(crate) fn refused(status: StatusCode, code: &'static str, message: &str) -> Answer {
    let mut answer = json_answer(status, &json!({ "error": message, "code": code }));
    answer.extensions_mut().insert(Refused(code));
    answer
}
