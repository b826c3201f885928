//! What is told of single requests: traces and access logs.

mod context;
mod export;
pub(crate) mod log;
mod spans;

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use http::{HeaderMap, Method, Response, StatusCode, Uri, request::Parts};
use millstream_graph::{Request as RunRequest, RunId, Watch};
use millstream_runtime::{Portion, RunError};
use prometheus::Registry;

use crate::{ask, wire::DecodeError};
use context::Context;
use export::Exporter;
pub(crate) use log::LogSettings;
pub(crate) use spans::Sampling;
use spans::{Traced, Tracer};

/// The target of access log lines, for filters.
pub(crate) const ACCESS: &str = "millstream_access";

/// What a server tells of single requests.
#[derive(Clone, Debug, Default)]
pub struct Observe {
    /// Where traces go; `None` traces nothing.
    pub traces: Option<Traces>,
    /// Whether every request to a graph leaves a line in the log at level info; otherwise it does at debug.
    pub access_log: bool,
}

/// Where traces go, and of which requests.
#[derive(Clone, Debug)]
pub struct Traces {
    /// An OTLP receiver over HTTP, such as `http://127.0.0.1:4318/v1/traces`. One beyond TLS is reached through a collector.
    pub endpoint: Uri,
    /// The part of requests without a trace context that are traced, 0 to 1. Those with one are traced when it says so.
    pub sample: f64,
    /// What the server is called in traces.
    pub service: String,
}

/// Why a server cannot tell of its requests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// Spans cannot be sent there.
    #[error(
        "traces cannot go to `{endpoint}`: name an OTLP receiver over HTTP without TLS, such as http://127.0.0.1:4318"
    )]
    Endpoint {
        /// Where they were to go.
        endpoint: Uri,
    },
    /// The metrics could not be made.
    #[error("metrics could not be made")]
    Metrics(#[from] prometheus::Error),
}

/// Tells of single requests.
#[derive(Default)]
pub(crate) struct Observer {
    tracer: Option<Tracer>,
    access_log: bool,
}

impl Observer {
    /// One that tells of nothing.
    pub(crate) const fn nobody() -> Self {
        Self { tracer: None, access_log: false }
    }

    /// An observer, and what has to run for its traces to arrive.
    pub(crate) fn new(
        observe: Observe,
        registry: &Registry,
    ) -> Result<(Self, Option<impl Future<Output = ()> + Send + 'static + use<>>), ObserveError> {
        let Observe { traces, access_log } = observe;
        let Some(Traces { endpoint, sample, service }) = traces else {
            return Ok((Self { tracer: None, access_log }, None));
        };
        if ask::place(&endpoint).is_none() {
            return Err(ObserveError::Endpoint { endpoint });
        }
        let (outbox, exporter) = export::channel(endpoint, service, registry)?;
        let tracer = Tracer::new(outbox, sample);
        Ok((Self { tracer: Some(tracer), access_log }, Some(Exporter::run(exporter))))
    }

    /// Tells of a request to a graph, and of what `answer` makes of it.
    pub(crate) async fn tell<T>(
        &self,
        graph: &str,
        head: &mut Parts,
        answer: impl AsyncFnOnce(&Parts) -> Response<T>,
    ) -> Response<T> {
        let posted = head.method == Method::POST;
        let tracer = self.tracer.as_ref().filter(|_| posted);
        let traced = tracer.and_then(|tracer| tracer.begin(graph, head));
        let logged = self.access_log || tracing::enabled!(target: ACCESS, tracing::Level::DEBUG);
        let observed = traced.is_some() || logged;
        let observed = observed.then(|| Arc::new(Observed { traced, outcome: OnceLock::new() }));
        let start = observed.as_ref().map(|_| Instant::now());
        if let Some(observed) = &observed {
            head.extensions.insert(Arc::clone(observed));
        }
        let answer = answer(head).await;
        if let Some((observed, start)) = observed.zip(start) {
            observed.tell(graph, head, answer.status(), start, logged.then_some(self.access_log));
        }
        answer
    }

    /// Which requests are traced, where traces go anywhere.
    pub(crate) fn sampling(&self) -> Option<Sampling> {
        self.tracer.as_ref().map(Tracer::sampling)
    }

    /// What that was at the start.
    pub(crate) fn first_sampling(&self) -> Option<Sampling> {
        self.tracer.as_ref().map(|tracer| tracer.first)
    }

    /// Traces others from here on.
    pub(crate) fn sample(&self, sampling: Sampling) {
        if let Some(tracer) = &self.tracer {
            tracer.sample(sampling);
        }
    }

    /// Waits until what was told so far has arrived.
    pub(crate) async fn flush(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.outbox.flush().await;
        }
    }
}

/// Travels with a request that is told of.
pub(crate) struct Observed {
    traced: Option<Arc<Traced>>,
    outcome: OnceLock<Outcome>,
}

/// What became of a request that had a body.
#[derive(Debug, Default)]
struct Outcome {
    run: Option<RunId>,
    /// Rows of the request.
    rows: usize,
    /// What went wrong, as the answer names it.
    code: Option<&'static str>,
    /// The step that failed.
    step: Option<String>,
    /// Steps whose answer was not what it should have been.
    degraded: Vec<String>,
}

impl Observed {
    /// The request has been answered. `logged` says whether a line in the log was asked for, if one is to be written at all.
    fn tell(&self, graph: &str, head: &Parts, status: StatusCode, start: Instant, logged: Option<bool>) {
        let (ids, outcome) = (Ids::of(&head.headers), self.outcome.get());
        if let Some(traced) = &self.traced {
            traced.end(status, ids.request.as_deref(), outcome);
        }
        let Some(asked_for) = logged else { return };
        let trace = self.traced.as_ref().map(|traced| traced.trace_id()).or(ids.trace);
        let line = Line {
            graph,
            method: head.method.as_str(),
            status,
            request: ids.request.as_deref(),
            trace: trace.as_deref(),
            millis: start.elapsed().as_secs_f64() * 1e3,
            outcome,
        };
        line.write(asked_for);
    }

    /// The run tells its steps, and what its steps call belongs to the trace.
    pub(crate) fn watch(&self, request: &mut RunRequest) {
        if let Some(traced) = &self.traced {
            request.trace = Some(traced.header());
            request.watch = Some(Arc::clone(traced) as Arc<dyn Watch>);
        }
    }

    /// The body was refused.
    pub(crate) fn refused(&self, error: &DecodeError) {
        self.note(Outcome { code: Some(error.code.name()), ..Outcome::default() });
    }

    /// The run has ended.
    pub(crate) fn ran(&self, rows: usize, ran: Result<&Portion, &RunError>) {
        self.note(match ran {
            Ok(reply) => Outcome {
                run: Some(reply.run()),
                rows,
                degraded: reply.reply().degraded().iter().map(|degraded| degraded.step.to_string()).collect(),
                ..Outcome::default()
            },
            Err(error) => Outcome {
                run: match error {
                    RunError::Failed { run, .. } | RunError::DeadlineExceeded { run } => Some(*run),
                    _ => None,
                },
                rows,
                code: Some(error.kind().name()),
                step: error.step().map(str::to_owned),
                ..Outcome::default()
            },
        });
    }

    fn note(&self, outcome: Outcome) {
        // A request ends once.
        let _ = self.outcome.set(outcome);
    }
}

/// The names that a caller gave, of which a log may have nothing but printable ASCII.
struct Ids {
    request: Option<String>,
    trace: Option<String>,
}

impl Ids {
    fn of(headers: &HeaderMap) -> Self {
        let request = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let request = request.filter(|id| id.len() <= 256).map(str::to_owned);
        Self { request, trace: Context::of(headers).map(|context| context.trace_id()) }
    }
}

/// One line of the access log: no body, and of the headers only what names the request.
struct Line<'a> {
    graph: &'a str,
    method: &'a str,
    status: StatusCode,
    request: Option<&'a str>,
    trace: Option<&'a str>,
    millis: f64,
    outcome: Option<&'a Outcome>,
}

impl Line<'_> {
    fn write(&self, asked_for: bool) {
        let outcome = self.outcome;
        let run = outcome.and_then(|outcome| outcome.run).map(|run| run.to_string());
        let degraded = outcome.map(|outcome| outcome.degraded.join(",")).filter(|steps| !steps.is_empty());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS,
                    graph = self.graph,
                    method = self.method,
                    status = self.status.as_u16(),
                    ms = (self.millis * 1e3).round() / 1e3,
                    rows = outcome.map(|outcome| outcome.rows),
                    run = run.as_deref(),
                    request_id = self.request,
                    trace_id = self.trace,
                    code = outcome.and_then(|outcome| outcome.code),
                    step = outcome.and_then(|outcome| outcome.step.as_deref()),
                    degraded = degraded.as_deref(),
                    "request"
                )
            };
        }
        if asked_for { line!(info) } else { line!(debug) }
    }
}
