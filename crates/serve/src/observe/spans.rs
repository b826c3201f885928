//! One request as spans: one for the request, one for each step that ran for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{StatusCode, request::Parts};
use millstream_graph::{Ran, StepCall, Watch};
use opentelemetry_proto::tonic::{
    common::v1::{ArrayValue, KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode as SpanStatus},
};

use super::{
    Outcome,
    context::{self, Context},
    export::{Outbox, attribute, number, text},
};

/// Decides which requests are traced.
#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) outbox: Outbox,
    /// The part of the requests without a trace of their own that get one, 0 to 1; the bits of a number.
    part: AtomicU64,
    /// One of so many requests, where they are traced.
    rate: AtomicU64,
    pub(super) first: Sampling,
}

/// Of which requests without a trace of their own there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    pub(crate) on: bool,
    /// One of so many.
    pub(crate) rate: u64,
}

/// One of so many requests, where nothing else was said: what clients of Triton expect.
const RATE: u64 = 1000;

impl Tracer {
    /// A tracer of a part of the requests, 0 to 1.
    pub(super) fn new(outbox: Outbox, part: f64) -> Self {
        let rate = if part > 0.0 { (1.0 / part).round().max(1.0) as u64 } else { RATE };
        let first = Sampling { on: part > 0.0, rate };
        Self { outbox, part: AtomicU64::new(part.to_bits()), rate: AtomicU64::new(rate), first }
    }

    pub(super) fn sampling(&self) -> Sampling {
        Sampling { on: self.part() > 0.0, rate: self.rate.load(Relaxed) }
    }

    pub(super) fn sample(&self, Sampling { on, rate }: Sampling) {
        let part = if on { 1.0 / rate.max(1) as f64 } else { 0.0 };
        self.part.store(part.to_bits(), Relaxed);
        self.rate.store(rate, Relaxed);
    }

    fn part(&self) -> f64 {
        f64::from_bits(self.part.load(Relaxed))
    }
}

/// A request that is traced: the steps are told to it, and become spans at once.
#[derive(Debug)]
pub(super) struct Traced {
    outbox: Outbox,
    graph: Arc<str>,
    /// Where the request was sent: a route, since names of graphs and models are all that is in it.
    path: String,
    /// The request's span.
    context: Context,
    /// The caller's span.
    parent: Option<Context>,
    state: String,
    /// One moment by both clocks.
    began: (Instant, SystemTime),
}

impl Tracer {
    /// Follows the caller's decision; without one, decides by chance.
    pub(super) fn begin(&self, graph: &str, head: &Parts) -> Option<Arc<Traced>> {
        let headers = &head.headers;
        let (parent, part) = (Context::of(headers), self.part());
        let context = match &parent {
            Some(parent) if parent.sampled => parent.child(),
            None if part > 0.0 && fastrand::f64() < part => Context::root(),
            _ => return None,
        };
        // What belongs to a trace that was not taken up belongs to nothing.
        let state = if parent.is_some() { context::state(headers) } else { String::new() };
        Some(Arc::new(Traced {
            outbox: self.outbox.clone(),
            graph: Arc::from(graph),
            path: head.uri.path().to_owned(),
            context,
            parent,
            state,
            began: (tokio::time::Instant::now().into_std(), SystemTime::now()),
        }))
    }
}

impl Traced {
    /// The trace context for whatever the request's steps call.
    pub(super) fn header(&self) -> Arc<str> {
        Arc::from(self.context.header())
    }

    /// The request has been answered.
    pub(super) fn end(&self, status: StatusCode, request_id: Option<&str>, outcome: Option<&Outcome>) {
        let route = &self.path;
        let mut attributes = vec![
            text("http.request.method", "POST"),
            text("http.route", route),
            text("url.path", route),
            number("http.response.status_code", usize::from(status.as_u16())),
            text("millstream.graph", &self.graph),
        ];
        attributes.extend(request_id.map(|id| text("millstream.request_id", id)));
        if let Some(outcome) = outcome {
            attributes.push(number("millstream.rows", outcome.rows));
            attributes.extend(outcome.run.map(|run| text("millstream.run", &run.to_string())));
            attributes.extend(outcome.code.map(|code| text("error.type", code)));
            if !outcome.degraded.is_empty() {
                let steps = outcome.degraded.iter().map(|step| text("", step).value.unwrap_or_default());
                let steps = Value::ArrayValue(ArrayValue { values: steps.collect() });
                attributes.push(attribute("millstream.degraded", steps));
            }
        }
        self.outbox.put(Span {
            span_id: self.context.span.to_vec(),
            parent_span_id: self.parent.map(|parent| parent.span.to_vec()).unwrap_or_default(),
            name: format!("POST {route}"),
            kind: SpanKind::Server.into(),
            status: status.is_server_error().then(|| failed(status.as_str())),
            ..self.span(self.began.0, tokio::time::Instant::now().into_std() - self.began.0, attributes)
        });
    }

    fn span(&self, start: Instant, took: std::time::Duration, attributes: Vec<KeyValue>) -> Span {
        let start = self.began.1 + start.saturating_duration_since(self.began.0);
        Span {
            trace_id: self.context.trace.to_vec(),
            trace_state: self.state.clone(),
            flags: u32::from(self.context.sampled),
            start_time_unix_nano: nanos(start),
            end_time_unix_nano: nanos(start + took),
            attributes,
            ..Span::default()
        }
    }

    fn step(&self, ran: &Ran<'_>, call: &StepCall) -> Span {
        let step = &ran.plan.steps()[call.step.index()];
        let mut attributes = vec![
            text("millstream.graph", &self.graph),
            text("millstream.run", &ran.run.to_string()),
            text("millstream.step", step.name()),
            text("millstream.step.kind", step.kind()),
            number("millstream.step.rows", call.rows),
            number("millstream.shared.requests", ran.requests),
            number("millstream.shared.rows", ran.rows),
        ];
        if call.degraded {
            attributes.push(attribute("millstream.degraded", Value::BoolValue(true)));
        }
        let error = call.error.map(|kind| kind.name()).or(call.took.is_none().then_some("unanswered"));
        attributes.extend(error.map(|error| text("error.type", error)));
        let now = || tokio::time::Instant::now().into_std().saturating_duration_since(call.start);
        Span {
            span_id: context::new_span().to_vec(),
            parent_span_id: self.context.span.to_vec(),
            name: step.name().to_string(),
            kind: SpanKind::Internal.into(),
            status: error.map(failed),
            ..self.span(call.start, call.took.unwrap_or_else(now), attributes)
        }
    }

    pub(super) fn trace_id(&self) -> String {
        self.context.trace_id()
    }
}

impl Watch for Traced {
    fn ran(&self, ran: &Ran<'_>) {
        ran.calls.iter().for_each(|call| self.outbox.put(self.step(ran, call)));
    }
}

fn failed(reason: &str) -> Status {
    Status { message: reason.to_owned(), code: SpanStatus::Error.into() }
}

/// Nanoseconds since 1970.
fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
