//! The HTTP server: routes, connections, and how it stops.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
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
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use millstream_graph::suggest;
use millstream_runtime::{Limits, Metrics};
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};
use tower::ServiceExt;

use crate::{
    describe,
    project::{Project, ProjectError},
    service::{GraphService, json_answer},
    wire::DecodeLimits,
};

/// Connections at once; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 16_384;
/// A client that has not sent its request's head by then is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// tokio wakes a sleeping worker for a timer that is due before all others, and every request sets one. A timer that is always
/// due sooner spares that wake.
const TICK: Duration = Duration::from_millis(50);
/// Where graphs are.
const GRAPHS: &str = "/v1/graphs/";
/// After a failed accept, such as for want of file descriptors, the next is tried only then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The graphs of a project, served.
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    project: String,
    graphs: Vec<(String, GraphService)>,
    metrics: Metrics,
    stopping: AtomicBool,
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
    /// A graph has columns that JSON cannot carry.
    #[error("graph `{graph}`: {source}")]
    Columns {
        /// The graph.
        graph: String,
        /// Which columns.
        source: millstream_graph::SchemaError,
    },
}

impl Server {
    /// A server for every graph of a project.
    ///
    /// # Errors
    /// When an engine cannot start its threads, or a graph's columns cannot be carried as JSON.
    pub fn new(project: &Project, limits: &Limits, decode: DecodeLimits) -> Result<Self, ServeError> {
        let metrics = Metrics::new()?;
        project.outside().register(metrics.registry())?;
        let mut graphs = Vec::new();
        for name in project.graph_names() {
            let engine = project.engine_with(name, limits.clone(), &metrics)?;
            let service = GraphService::new(engine, decode)
                .map_err(|source| ServeError::Columns { graph: name.to_owned(), source })?;
            graphs.push((name.to_owned(), service));
        }
        let shared =
            Shared { project: project.name().to_owned(), graphs, metrics, stopping: AtomicBool::new(false) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The routes, to mount in an application's own router.
    pub fn router(&self) -> Router {
        let mut router = Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/openapi.json", get(openapi))
            .route("/v1/graphs", get(list))
            .route("/v1/graphs/{graph}", axum::routing::any(unknown_graph))
            .fallback(unknown_route)
            .method_not_allowed_fallback(wrong_method)
            .with_state(Arc::clone(&self.shared));
        for (name, service) in &self.shared.graphs {
            router = router.route_service(&format!("{GRAPHS}{name}"), service.clone());
        }
        router
    }

    /// Serves connections until `stop` is ready: then `readyz` says so, requests under way are answered within `grace`,
    /// and tails are finished.
    ///
    /// # Errors
    /// When the listener has no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> io::Result<()> {
        let routes = Arc::new(Routes { router: self.router(), shared: Arc::clone(&self.shared) });
        let mut connections = auto::Builder::new(TokioExecutor::new());
        connections
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .pipeline_flush(true)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(256);
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
            }
        });
        tokio::pin!(stop);
        loop {
            while tasks.try_join_next().is_some() {}
            let accept = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accept => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Replies are written whole; waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            let routes = Arc::clone(&routes);
            let service = service_fn(move |request| {
                let routes = Arc::clone(&routes);
                async move { routes.answer(request).await }
            });
            let connection = connections.serve_connection(TokioIo::new(stream), service).into_owned();
            let connection = graceful.watch(connection);
            tasks.spawn(async move {
                let _slot = slot;
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended badly");
                }
            });
        }
        self.shared.stopping.store(true, SeqCst);
        drop(listener);
        tracing::info!("stopping: requests under way are answered");
        let drained = async {
            graceful.shutdown().await;
            for (_, service) in &self.shared.graphs {
                service.engine().close().await;
            }
        };
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!("requests still under way after {grace:?} are cut off");
        }
        Ok(())
    }
}

/// Every route. Graphs, which is what a server is asked for all day, are found by their path alone; the router serves the rest.
struct Routes {
    router: Router,
    shared: Arc<Shared>,
}

impl Routes {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<http::Response<Either<Full<Bytes>, Body>>, Infallible> {
        let graph = request.uri().path().strip_prefix(GRAPHS);
        if let Some((_, service)) =
            graph.and_then(|graph| self.shared.graphs.iter().find(|(name, _)| name == graph))
        {
            return Ok(service.answer(request).await.map(Either::Left));
        }
        Ok(self.router.clone().oneshot(request).await?.map(Either::Right))
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.stopping.load(SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response();
    }
    "ready".into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.metrics.registry().gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn openapi(State(shared): State<Arc<Shared>>) -> Response {
    json_answer(StatusCode::OK, &describe::openapi(&shared.project, &shared.graphs)).into_response()
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let graph =
        |(name, _): &(String, GraphService)| json!({ "name": name, "url": format!("/v1/graphs/{name}") });
    let graphs: Vec<_> = shared.graphs.iter().map(graph).collect();
    json_answer(StatusCode::OK, &json!({ "project": shared.project, "graphs": graphs })).into_response()
}

async fn unknown_graph(State(shared): State<Arc<Shared>>, Path(graph): Path<String>) -> Response {
    let known = shared.graphs.iter().map(|(name, _)| name.as_str());
    let message = json!({ "error": suggest::unknown("graph", &graph, known), "code": "unknown_graph" });
    json_answer(StatusCode::NOT_FOUND, &message).into_response()
}

async fn unknown_route() -> Response {
    let message = json!({ "error": "no such route; /openapi.json lists them", "code": "unknown_route" });
    json_answer(StatusCode::NOT_FOUND, &message).into_response()
}

async fn wrong_method() -> Response {
    let message = json!({ "error": "this route takes GET", "code": "method_not_allowed" });
    json_answer(StatusCode::METHOD_NOT_ALLOWED, &message).into_response()
}
