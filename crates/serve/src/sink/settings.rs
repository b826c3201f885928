//! `sink` as it stands in project files.

use std::sync::Arc;

use millstream_graph::spec::StepKind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{QUEUE, Sink, WhenFull};
use crate::{
    outside::Outside,
    units::{Size, Time},
};

/// Appends rows to files in the project's folder.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SinkSettings {
    /// A path in the project's folder that ends in `.jsonl`, `.csv` or `.parquet`. Files are named after it and the time at which
    /// they were begun.
    file: String,
    /// A file is closed when it has so many bytes, such as `16MiB`; `64MiB` by default.
    size: Option<Size>,
    /// A file is closed when it is so old, such as `10m`; `1h` by default.
    age: Option<Time>,
    /// Rows that may wait to be written; 65536 by default.
    queue: Option<usize>,
    /// What happens to rows when as many wait: the tail waits, or they are dropped and counted.
    #[serde(default)]
    full: Full,
}

/// What happens to rows when as many wait to be written as may.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Full {
    /// The tail waits.
    #[default]
    Wait,
    /// The rows are dropped and counted.
    Drop,
}

/// `sink`.
pub(crate) fn kinds(outside: &Arc<Outside>) -> Vec<StepKind> {
    let outside = Arc::clone(outside);
    vec![StepKind::new("sink", move |settings: SinkSettings| {
        let full = match settings.full {
            Full::Wait => WhenFull::Wait,
            Full::Drop => WhenFull::Drop,
        };
        let mut sink = Sink::new(&outside, settings.file).queue(settings.queue.unwrap_or(QUEUE), full);
        if let Some(size) = settings.size {
            sink = sink.size(size.0);
        }
        if let Some(age) = settings.age {
            sink = sink.age(age.0);
        }
        Ok(Arc::new(sink) as _)
    })]
}
