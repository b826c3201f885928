//! The streams of a project: what its file says of them, what reads their messages, and what the world is told.

use std::{path::Path, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use indexmap::IndexMap;
use millstream_featurestore::{
    FeatureSets, WritableSet,
    stream::{Decode, Decoded, Meter, Stream, StreamSpec},
};
use millstream_graph::{
    SchemaError,
    spec::{Document, SpecErrors},
    suggest,
};
use millstream_runtime::Gather;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use serde_json::json;

use crate::{
    service::json_answer,
    snapshot::Shared,
    wire::{DecodeLimits, UnknownFields, json::Decoder},
};

/// The streams that a project file names, checked against its feature sets.
pub(crate) fn load<'n>(
    document: &Document,
    names: impl Iterator<Item = &'n String>,
    root: &Path,
    sets: &FeatureSets,
    errors: &mut SpecErrors,
) -> Vec<Stream> {
    let mut streams = Vec::new();
    // Two that read the same into the same set would each take what the other then passes over.
    let mut taken: IndexMap<(String, Option<String>), &str> = IndexMap::new();
    for name in names {
        let path = ["streams", name.as_str()];
        let spec: StreamSpec = match document.typed(&path) {
            Ok(spec) => spec,
            Err(problems) => {
                errors.extend(problems);
                continue;
            }
        };
        let mut problems = spec.check(root).err().unwrap_or_default();
        if let Some(other) = taken.insert((spec.into.clone(), spec.source()), name) {
            problems.push(format!("stream `{other}` reads the same into the same set"));
        }
        let made = set(&spec.into, sets)
            .and_then(|set| Ok((Arc::clone(set), Messages::new(set).map_err(|error| error.to_string())?)));
        match made.map_err(|problem| problems.push(problem)) {
            Ok((set, decode)) if problems.is_empty() => streams.push(Stream {
                name: name.clone(),
                spec,
                root: root.to_path_buf(),
                set,
                decode: Arc::new(decode),
                aside: None,
            }),
            _ => problems.into_iter().for_each(|problem| {
                errors.push(document.place(&path), format!("stream `{name}`: {problem}"))
            }),
        }
    }
    streams
}

fn set<'s>(name: &str, sets: &'s FeatureSets) -> Result<&'s Arc<WritableSet>, String> {
    let Some(set) = sets.get(name) else {
        return Err(suggest::unknown("feature set", name, sets.iter().map(|set| set.set().name())));
    };
    set.writable()
        .ok_or_else(|| format!("feature set `{name}` is its file and takes no rows; give it `online`"))
}

/// Reads messages as [`Decoder`] reads bodies. Fields that the set does not have are read over: a stream is seldom made for one set.
struct Messages(Decoder);

impl Messages {
    fn new(set: &WritableSet) -> Result<Self, SchemaError> {
        let limits = DecodeLimits { unknown_fields: UnknownFields::Ignore, ..DecodeLimits::default() };
        Decoder::new(Arc::clone(set.schema()), limits).map(Self)
    }
}

impl Decode for Messages {
    fn decode(&self, messages: &[Bytes]) -> Decoded {
        let Self(decoder) = self;
        let (mut gathered, mut of, mut unread) = (None, Vec::new(), Vec::new());
        for (at, message) in messages.iter().enumerate() {
            match decoder.read(message) {
                Ok((body, _)) => {
                    of.extend(std::iter::repeat_n(at, decoder.rows(&body)));
                    decoder.add(&mut gathered, body);
                }
                Err(error) => unread.push((at, error.to_string())),
            }
        }
        match decoder.batch(gathered) {
            Ok(rows) => Decoded { rows, messages: of, unread },
            Err(error) => {
                // What does not go into one batch: all of it is told from what was read.
                unread.extend(of.into_iter().map(|at| (at, error.to_string())));
                unread.sort_unstable();
                unread.dedup_by_key(|(at, _)| *at);
                let rows = arrow::array::RecordBatch::new_empty(Arc::clone(decoder.schema()));
                Decoded { rows, messages: Vec::new(), unread }
            }
        }
    }
}

/// How streams do, as metrics.
pub(crate) struct StreamMetrics {
    messages: IntCounterVec,
    lag: IntGaugeVec,
}

impl StreamMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts =
            Opts::new("millstream_stream_messages_total", "Messages of streams, by what became of them");
        let messages = IntCounterVec::new(opts, &["stream", "outcome"])?;
        let opts = Opts::new("millstream_stream_lag", "Messages of streams that are not in their sets yet");
        let lag = IntGaugeVec::new(opts, &["stream"])?;
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self { messages, lag })
    }
}

impl Meter for StreamMetrics {
    fn messages(&self, stream: &str, outcome: &'static str, count: u64) {
        self.messages.with_label_values(&[stream, outcome]).inc_by(count);
    }

    fn ended(&self, stream: &str) {
        // One that never read has none.
        let _ = self.lag.remove_label_values(&[stream]);
    }

    fn lag(&self, stream: &str, messages: u64) {
        self.lag.with_label_values(&[stream]).set(i64::try_from(messages).unwrap_or(i64::MAX));
    }
}

/// `GET /v1/streams`. What goes wrong is for the log.
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let stream = |(progress, set): (Arc<millstream_featurestore::stream::Progress>, String)| {
        let standing = progress.standing();
        let partitions = standing.partitions.iter();
        let partitions = partitions
            .map(|of| json!({ "partition": of.partition, "position": of.position, "lag": of.lag }))
            .collect::<Vec<_>>();
        json!({
            "name": progress.stream(),
            "into": set,
            "phase": standing.phase.name(),
            "written": standing.written,
            "unread": standing.unread,
            "lag": standing.partitions.iter().map(|of| of.lag).sum::<u64>(),
            "partitions": partitions,
        })
    };
    let streams: Vec<_> = shared.streams.progress().into_iter().map(stream).collect();
    json_answer(StatusCode::OK, &json!({ "streams": streams })).into_response()
}
