//! Spans on their way to a collector: queued, sent in batches in the background, dropped and counted when there are too many.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{ask::Ask, project::chain};

/// Spans that wait to be sent. Beyond that they are dropped: requests never wait for their traces.
const QUEUE: usize = 8192;
/// Spans of one message.
const BATCH: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// The time that the collector has for one message.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time that the last spans have when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes of a collector's answer that are read.
const ANSWER: usize = 64 << 10;

enum Item {
    Span(Box<Span>),
    /// Send what is there, and say so.
    Flush(oneshot::Sender<()>),
}

/// Where spans are put.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Item>,
    dropped: IntCounter,
}

/// Takes spans from the outbox to the collector.
pub(super) struct Exporter {
    queue: mpsc::Receiver<Item>,
    endpoint: Uri,
    service: String,
    exported: IntCounter,
    failed: IntCounter,
    /// Whether the last message was lost; that is logged once, not per message.
    down: bool,
}

/// What is sent together.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    asked: Vec<oneshot::Sender<()>>,
}

pub(super) fn channel(
    endpoint: Uri,
    service: String,
    registry: &Registry,
) -> Result<(Outbox, Exporter), prometheus::Error> {
    let help = Opts::new("millstream_trace_spans_total", "Spans by what became of them");
    let spans = IntCounterVec::new(help, &["outcome"])?;
    registry.register(Box::new(spans.clone()))?;
    let spans = |outcome: &str| spans.with_label_values(&[outcome]);
    let (sender, queue) = mpsc::channel(QUEUE);
    let outbox = Outbox { queue: sender, dropped: spans("dropped") };
    let (exported, failed) = (spans("exported"), spans("failed"));
    Ok((outbox, Exporter { queue, endpoint, service, exported, failed, down: false }))
}

impl Outbox {
    pub(super) fn put(&self, span: Span) {
        if self.queue.try_send(Item::Span(Box::new(span))).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits, not too long, until everything that was put so far has been sent.
    pub(super) async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                let _ = sent.await;
            }
        };
        if timeout(FAREWELL, flushed).await.is_err() {
            tracing::warn!("the last spans could not be sent in time");
        }
    }
}

impl Exporter {
    /// Sends spans until every outbox is gone.
    pub(super) async fn run(mut self) {
        let mut items = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut items, BATCH).await > 0 {
            let mut batch = Batch::default();
            batch.take(&mut items);
            let more = async {
                while batch.spans.len() < BATCH && batch.asked.is_empty() {
                    let room = BATCH - batch.spans.len();
                    if self.queue.recv_many(&mut items, room).await == 0 {
                        break;
                    }
                    batch.take(&mut items);
                }
            };
            let _ = timeout(LINGER, more).await;
            self.send(batch.spans).await;
            for asked in batch.asked {
                // Whoever asked may have gone.
                let _ = asked.send(());
            }
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let count = spans.len() as u64;
        let ask = Ask {
            method: Method::POST,
            url: self.endpoint.clone(),
            media: "application/x-protobuf",
            body: Bytes::from(self.message(spans).encode_to_vec()),
            key: None,
            within: PATIENCE,
            most: ANSWER,
        };
        let problem = match ask.send().await {
            Ok((status, _)) if status.is_success() => None,
            Ok((status, _)) => Some(format!("it answers {status}")),
            Err(error) => Some(chain(&error)),
        };
        let Some(problem) = problem else {
            self.exported.inc_by(count);
            if std::mem::take(&mut self.down) {
                tracing::info!(endpoint = %self.endpoint, "spans are taken again");
            }
            return;
        };
        self.failed.inc_by(count);
        if !std::mem::replace(&mut self.down, true) {
            tracing::warn!(endpoint = %self.endpoint, problem, "spans are lost until they are taken again");
        }
    }

    fn message(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let version = env!("CARGO_PKG_VERSION");
        let attributes = vec![
            text("service.name", &self.service),
            text("telemetry.sdk.language", "rust"),
            text("telemetry.sdk.name", "millstream"),
            text("telemetry.sdk.version", version),
        ];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let scope = InstrumentationScope {
            name: "millstream".to_owned(),
            version: version.to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let spans = ResourceSpans { resource, scope_spans: vec![spans], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![spans] }
    }
}

impl Batch {
    fn take(&mut self, items: &mut Vec<Item>) {
        for item in items.drain(..) {
            match item {
                Item::Span(span) => self.spans.push(*span),
                Item::Flush(asked) => self.asked.push(asked),
            }
        }
    }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(super) fn number(key: &str, value: usize) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spans_beyond_the_queue_are_dropped_and_counted() {
        let endpoint = Uri::from_static("http://127.0.0.1:1/v1/traces");
        let (outbox, exporter) = channel(endpoint, "s".to_owned(), &Registry::new()).unwrap();
        (0..QUEUE + 3).for_each(|_| outbox.put(Span::default()));
        assert_eq!(outbox.dropped.get(), 3);
        let failed = exporter.failed.clone();
        drop(outbox);
        exporter.run().await;
        assert_eq!(failed.get(), QUEUE as u64, "nobody listens on port 1");
    }
}
