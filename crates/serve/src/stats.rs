//! How a graph did in the last ten seconds: as JSON, and as server-sent events once a second.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
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
use futures_util::stream::unfold;
use http::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use millstream_graph::suggest;
use millstream_runtime::{Distribution, Totals};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, interval_at},
};

use crate::{
    http::refused,
    service::{GraphService, json_answer},
};

/// How far back the figures go.
const WINDOW: Duration = Duration::from_secs(10);
/// How often totals are kept, and events sent.
const EVERY: Duration = Duration::from_secs(1);
/// Listeners to live figures at once, of all graphs together; each costs a look at the totals per second.
const LISTENERS: usize = 32;
/// A listener that takes an event so late has not been reading; it is cut off, not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever serves graphs.
pub(crate) trait Served: Send + Sync + 'static {
    /// The graphs that are served, now.
    fn services(&self) -> Vec<(String, GraphService)>;

    fn watched(&self) -> &Watched;
}

/// `GET` of a graph's figures, once and as they go.
pub(crate) fn routes<S: Served>() -> Router<Arc<S>> {
    Router::new()
        .route("/v1/graphs/{graph}/stats", get(answer::<S>))
        .route("/v1/graphs/{graph}/live", get(live::<S>))
}

/// A graph's last seconds, as they are written and read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GraphStats {
    pub(crate) graph: String,
    /// Seconds that the figures cover.
    pub(crate) window: f64,
    /// Those that were refused among them.
    pub(crate) requests_per_second: f64,
    pub(crate) rows_per_second: f64,
    pub(crate) latency_seconds: Percentiles,
    /// Under way, now.
    pub(crate) in_flight: u64,
    /// Waiting for their run to start, now.
    pub(crate) waiting: u64,
    /// Rows of those runs that requests may share.
    pub(crate) rows_per_run: f64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) cancelled: u64,
    pub(crate) degraded: u64,
    pub(crate) door_wait_seconds: Percentiles,
    pub(crate) pool_wait_seconds: Percentiles,
    pub(crate) steps: Vec<StepStats>,
}

/// A step's last seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StepStats {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Its part of the time of all steps, 0 to 1.
    pub(crate) share: f64,
    pub(crate) seconds: Percentiles,
    pub(crate) errors: u64,
    pub(crate) failed_rows: u64,
    pub(crate) degraded: u64,
}

/// Times in seconds; null when there was none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl From<&Distribution> for Percentiles {
    fn from(times: &Distribution) -> Self {
        let at = |q| times.quantile(q).map(|time| time.as_secs_f64());
        Self {
            count: times.count(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max().map(|time| time.as_secs_f64()),
        }
    }
}

/// What servers keep to tell how their graphs do.
pub(crate) struct Watched {
    /// Totals of the last seconds, by graph, the oldest first.
    kept: Mutex<BTreeMap<String, VecDeque<(Instant, Totals)>>>,
    listeners: Arc<Semaphore>,
    stop: watch::Sender<bool>,
}

impl Default for Watched {
    fn default() -> Self {
        let (stop, _) = watch::channel(false);
        Self { kept: Mutex::default(), listeners: Arc::new(Semaphore::new(LISTENERS)), stop }
    }
}

impl Watched {
    /// Ends what would go on as long as its listener likes.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Turns true when what goes on for as long as its listener likes is to end.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// How a graph did, and keeps what a later look is compared with.
    pub(crate) fn look(&self, graph: &str, service: &GraphService) -> GraphStats {
        let totals = service.engine().totals();
        let (window, since) = self.since(graph, Instant::now(), totals);
        stats(graph, window, &since, service.waiting_requests())
    }

    fn since(&self, graph: &str, now: Instant, totals: Totals) -> (Duration, Totals) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.entry(graph.to_owned()).or_default();
        // The first of them is as old as the window, if any is.
        while kept.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            kept.pop_front();
        }
        let (window, since) = match kept.front() {
            Some((at, earlier)) => (now.duration_since(*at), totals.since(earlier)),
            None => (Duration::ZERO, totals.since(&totals)),
        };
        if kept.back().is_none_or(|(at, _)| now.duration_since(*at) >= EVERY) {
            kept.push_back((now, totals));
        }
        (window, since)
    }

    /// Forgets graphs that are served no more.
    fn forget_others(&self, services: &[(String, GraphService)]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|graph, _| services.iter().any(|(name, _)| name == graph));
    }

    /// Looks at every graph once a second, so that figures are there when somebody asks.
    pub(crate) fn keep<S: Served>(served: Arc<S>) -> impl Future<Output = ()> + Send + 'static {
        // The first look before the first request: only what comes after it is counted.
        look_at_all(&*served);
        async move {
            let mut tick = interval_at(Instant::now() + EVERY, EVERY);
            loop {
                tick.tick().await;
                look_at_all(&*served);
            }
        }
    }
}

fn look_at_all<S: Served>(served: &S) {
    let services = served.services();
    for (graph, service) in &services {
        served.watched().look(graph, service);
    }
    served.watched().forget_others(&services);
}

fn stats(graph: &str, window: Duration, since: &Totals, waiting: usize) -> GraphStats {
    let per = |count: u64, of: f64| if of > 0.0 { count as f64 / of } else { 0.0 };
    let seconds = window.as_secs_f64();
    let all: f64 = since.steps.iter().map(|step| step.seconds.sum().as_secs_f64()).sum();
    let steps = since.steps.iter().map(|step| StepStats {
        name: step.name.to_string(),
        kind: step.kind.to_owned(),
        share: if all > 0.0 { step.seconds.sum().as_secs_f64() / all } else { 0.0 },
        seconds: (&step.seconds).into(),
        errors: step.errors,
        failed_rows: step.failed_rows,
        degraded: step.degraded,
    });
    GraphStats {
        graph: graph.to_owned(),
        window: seconds,
        requests_per_second: per(since.ok + since.failed + since.refused + since.cancelled, seconds),
        rows_per_second: per(since.rows, seconds),
        latency_seconds: (&since.seconds).into(),
        in_flight: since.in_flight,
        waiting: waiting as u64,
        rows_per_run: per(since.door_rows, since.door_runs as f64),
        ok: since.ok,
        failed: since.failed,
        refused: since.refused,
        cancelled: since.cancelled,
        degraded: since.degraded,
        door_wait_seconds: (&since.door_wait).into(),
        pool_wait_seconds: (&since.pool_wait).into(),
        steps: steps.collect(),
    }
}

fn service<S: Served>(served: &S, graph: &str) -> Option<GraphService> {
    served.services().into_iter().find(|(name, _)| name == graph).map(|(_, service)| service)
}

fn unknown<S: Served>(served: &S, graph: &str) -> Response {
    let services = served.services();
    let error = suggest::unknown("graph", graph, services.iter().map(|(name, _)| name.as_str()));
    refused(StatusCode::NOT_FOUND, "unknown_graph", &error).into_response()
}

/// `GET /v1/graphs/{graph}/stats`.
async fn answer<S: Served>(State(served): State<Arc<S>>, Path(graph): Path<String>) -> Response {
    match service(&*served, &graph) {
        Some(service) => {
            json_answer(StatusCode::OK, &json!(served.watched().look(&graph, &service))).into_response()
        }
        None => unknown(&*served, &graph),
    }
}

/// `GET /v1/graphs/{graph}/live`: the same, once a second until the listener goes or the server stops.
async fn live<S: Served>(State(served): State<Arc<S>>, Path(graph): Path<String>) -> Response {
    if service(&*served, &graph).is_none() {
        return unknown(&*served, &graph);
    }
    let Ok(place) = Arc::clone(&served.watched().listeners).try_acquire_owned() else {
        let error = format!("{LISTENERS} listeners are there already");
        let answer = refused(StatusCode::TOO_MANY_REQUESTS, "too_many_listeners", &error);
        return ([(RETRY_AFTER, "10")], answer).into_response();
    };
    let stop = served.watched().stopping();
    let listener = Listener { served, graph, stop, due: Instant::now(), _place: place };
    let events = unfold(listener, |mut listener| async move {
        let event = listener.event().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

struct Listener<S> {
    served: Arc<S>,
    graph: String,
    stop: watch::Receiver<bool>,
    /// When the next event is.
    due: Instant,
    _place: OwnedSemaphorePermit,
}

impl<S: Served> Listener<S> {
    /// The next event, made when the connection has room for it and not before; `None` ends the stream.
    async fn event(&mut self) -> Option<Bytes> {
        let asked = Instant::now();
        if asked.saturating_duration_since(self.due) > PATIENCE {
            return None;
        }
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => return None,
            () = tokio::time::sleep_until(self.due) => {}
        }
        self.due = self.due.max(asked) + EVERY;
        // A graph that is served no more has nothing to tell.
        let service = service(&*self.served, &self.graph)?;
        let stats = serde_json::to_string(&self.served.watched().look(&self.graph, &service)).ok()?;
        Some(Bytes::from(format!("data: {stats}\n\n")))
    }
}

#[cfg(test)]
mod tests {
    use millstream_graph::rows;
    use millstream_runtime::testkit::engine_of;

    use super::*;

    #[tokio::test]
    async fn figures_are_of_the_last_ten_seconds() {
        let engine = engine_of(|graph| graph.input());
        let watched = Watched::default();
        let start = Instant::now();
        let mut seen = Vec::new();
        for second in 0..=25_u64 {
            let now = start + Duration::from_secs(second);
            let (window, since) = watched.since("g", now, engine.totals());
            seen.push((window.as_secs(), since.ok));
            // Three requests in each of the first five seconds.
            for _ in 0..if second < 5 { 3 } else { 0 } {
                engine.run(rows! { id: [1_i64] }).await.unwrap();
            }
        }
        assert_eq!(seen[..7], [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12), (5, 15), (6, 15)]);
        assert_eq!(seen[10..16], [(10, 15), (10, 12), (10, 9), (10, 6), (10, 3), (10, 0)]);
        assert_eq!(watched.kept.lock().unwrap()["g"].len(), 11, "what is older is forgotten");
    }
}
