//! The step `sink`: appends the rows that it gets to files in the project's folder.
//!
//! Rows go through a bounded queue to a thread that writes them; that thread, and with it the file, belongs to the sinks of
//! one path together. When the last of them goes, what is queued is written and the file is closed.

mod file;
mod settings;
mod writer;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use millstream_graph::{Effect, Input, OutPort, Output, RunCx, SchemaError, Signature, Step, Work};

pub(crate) use settings::kinds;
pub use writer::SinkRows;
use writer::Writer;
pub(crate) use writer::Writers;

use crate::{
    outside::Outside,
    remote::{keep, single, untyped},
};

/// A file is closed, and the next one begun, when it has so many bytes.
const SIZE: usize = 64 << 20;
/// A file is closed when it is so old.
const AGE: Duration = Duration::from_secs(3600);
/// Rows that may wait to be written.
const QUEUE: usize = 1 << 16;

/// What happens to rows when as many wait to be written as may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The step waits, and with it the run's tail.
    #[default]
    Wait,
    /// The rows are dropped, and counted.
    Drop,
}

/// Appends the rows that it gets to files in the project's folder: JSON Lines, CSV or Parquet, as the name ends.
///
/// The files of `log/scores.jsonl` are named `log/scores-20261124T115423Z-0.jsonl`, by the time at which they were begun. A file is
/// closed when it has 64 MiB, when it is an hour old, and when the last sink of its path goes. A Parquet file can be read from then
/// on, and is named `.partial` before. Rows that wait for each other are at most 65536. No file is ever deleted or overwritten.
///
/// ```
/// use millstream_graph::{Graph, fields};
/// use millstream_serve::{Outside, sink::Sink};
/// # let folder = std::env::temp_dir();
///
/// let outside = Outside::new(folder);
/// let mut graph = Graph::new("score", fields! { score: Float64 });
/// graph.respond(&graph.input());
/// graph.step("kept", &graph.input(), Sink::new(&outside, "log/scores.parquet"));
/// assert!(graph.compile()?.has_tail());
/// # Ok::<(), millstream_graph::CompileErrors>(())
/// ```
#[derive(Debug)]
pub struct Sink {
    outside: Arc<Outside>,
    file: String,
    rules: Rules,
    typed: OnceLock<Arc<Writer>>,
}

/// How files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rules {
    size: usize,
    age: Duration,
    queue: usize,
    full: WhenFull,
}

impl Sink {
    /// Appends to files named after `file`, a path in the project's folder that ends in `.jsonl`, `.csv` or `.parquet`.
    pub fn new(outside: &Arc<Outside>, file: impl Into<String>) -> Self {
        let rules = Rules { size: SIZE, age: AGE, queue: QUEUE, full: WhenFull::Wait };
        Self { outside: Arc::clone(outside), file: file.into(), rules, typed: OnceLock::new() }
    }

    /// Closes a file when it has so many bytes.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.rules.size = bytes;
        self
    }

    /// Closes a file when it is so old.
    #[must_use]
    pub fn age(mut self, age: Duration) -> Self {
        self.rules.age = age;
        self
    }

    /// How many rows may wait to be written, and what happens to further ones.
    #[must_use]
    pub fn queue(mut self, rows: usize, full: WhenFull) -> Self {
        (self.rules.queue, self.rules.full) = (rows, full);
        self
    }
}

impl Step for Sink {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let input = single(inputs)?;
        let writer = self.outside.writers().claim(&self.outside, &self.file, input, self.rules)?;
        keep(&self.typed, input, writer, |writer| writer.schema())?;
        Ok(Signature::ports(Vec::<OutPort>::new()).with_effect(Effect::Once))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let (Ok(rows), Some(writer)) = (input.rows(0), self.typed.get()) else {
            return Work::Done(Err(untyped()));
        };
        let batch = rows.into_batch();
        match writer.try_put(&batch) {
            Ok(true) => Work::Done(Ok(Output::none())),
            Ok(false) => Work::Io(Box::pin(async move { writer.put(batch).await.map(|()| Output::none()) })),
            Err(error) => Work::Done(Err(error)),
        }
    }
}
