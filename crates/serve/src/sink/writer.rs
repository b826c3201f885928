//! Who writes the files of one path: a queue of rows, and the thread at its other end.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use millstream_graph::{ErrorKind, SchemaError, StepError};
use prometheus::{IntCounter, IntCounterVec, Opts};
use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout_at,
};

use super::{
    Rules, WhenFull,
    file::{Files, Format},
};
use crate::outside::Outside;

/// After a file could not be written, the next is begun only then; rows that come before are dropped.
const PAUSE: Duration = Duration::from_secs(1);

/// The files that a project writes: each path has one writer.
#[derive(Default)]
pub(crate) struct Writers {
    by_path: Mutex<HashMap<PathBuf, Weak<Writer>>>,
    counts: Counts,
}

/// Rows that sinks wrote to files, and rows that they dropped, by file: one family for every project of a server.
#[derive(Clone)]
pub struct SinkRows(IntCounterVec);

impl SinkRows {
    /// A family in a registry.
    ///
    /// # Errors
    /// When the registry has one already.
    pub fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "millstream_sink_rows_total",
            "Rows that sinks wrote to files, and rows that they dropped",
        );
        let rows = IntCounterVec::new(opts, &["file", "outcome"])?;
        registry.register(Box::new(rows.clone()))?;
        Ok(Self(rows))
    }
}

/// Where the writers of a project count. Told when the project is served, which is after its steps were typed.
type Counts = Arc<OnceLock<SinkRows>>;

impl Writers {
    pub(crate) fn count_into(&self, rows: &SinkRows) {
        // A project is served once; the first family stays.
        let _ = self.counts.set(rows.clone());
    }

    /// The writer of a path, for as long as anybody has it.
    pub(super) fn claim(
        &self,
        outside: &Arc<Outside>,
        file: &str,
        schema: &SchemaRef,
        rules: Rules,
    ) -> Result<Arc<Writer>, SchemaError> {
        let mut problems = Vec::new();
        let path = outside.inside(file).map_err(|error| problems.push(error)).ok();
        let format = Format::of(file, schema).map_err(|error| problems.push(error)).ok();
        if rules.queue == 0 || rules.queue > Semaphore::MAX_PERMITS.min(u32::MAX as usize) {
            problems.push(SchemaError::new("`queue` is at least 1"));
        }
        SchemaError::collect(problems)?;
        let (Some(path), Some(format)) = (path, format) else {
            return Err(SchemaError::new(format!("`{file}` cannot be written")));
        };
        let mut writers = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writers.get(&path).and_then(Weak::upgrade) {
            if writer.schema != *schema || writer.rules != rules {
                let problem = format!(
                    "`{file}` is written by another step with other columns or settings; name another file"
                );
                return Err(SchemaError::new(problem));
            }
            return Ok(writer);
        }
        let writer = Arc::new(Writer {
            outside: Arc::clone(outside),
            file: file.to_owned(),
            format,
            schema: Arc::clone(schema),
            rules,
            room: Arc::new(Semaphore::new(rules.queue)),
            counts: Arc::clone(&self.counts),
            thread: Mutex::default(),
        });
        writers.retain(|_, writer| writer.strong_count() > 0);
        writers.insert(path, Arc::downgrade(&writer));
        Ok(writer)
    }
}

/// Writes the files of one path. Dropped, it writes what is queued, closes the file, and only then is gone.
pub(super) struct Writer {
    outside: Arc<Outside>,
    file: String,
    format: Format,
    schema: SchemaRef,
    rules: Rules,
    /// A permit per row that may wait.
    room: Arc<Semaphore>,
    counts: Counts,
    /// Started by the first rows: a graph that is only checked writes nothing.
    thread: Mutex<Option<Running>>,
}

struct Running {
    queue: mpsc::Sender<Queued>,
    thread: JoinHandle<()>,
}

/// Rows that wait to be written, and the room that they take.
struct Queued {
    batch: RecordBatch,
    _room: OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Puts rows into the queue, or drops them when there is no room and that is the policy. Answers whether that settled it.
    pub(super) fn try_put(&self, batch: &RecordBatch) -> Result<bool, StepError> {
        let full = match Arc::clone(&self.room).try_acquire_many_owned(self.permits(batch)) {
            Ok(room) => return self.queue(batch.clone(), room).map(|()| true),
            Err(_) => self.rules.full,
        };
        if full == WhenFull::Drop {
            count(self.counter("dropped").as_ref(), batch);
        }
        Ok(full == WhenFull::Drop)
    }

    /// Puts rows into the queue once there is room.
    pub(super) async fn put(&self, batch: RecordBatch) -> Result<(), StepError> {
        let room = Arc::clone(&self.room).acquire_many_owned(self.permits(&batch)).await;
        // The semaphore is never closed.
        let room = room.map_err(|_| StepError::internal("the queue is closed"))?;
        self.queue(batch, room)
    }

    /// More rows than there is room for take all of it.
    fn permits(&self, batch: &RecordBatch) -> u32 {
        batch.num_rows().min(self.rules.queue) as u32
    }

    fn queue(&self, batch: RecordBatch, room: OwnedSemaphorePermit) -> Result<(), StepError> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match &mut *thread {
            Some(running) => running,
            none => none.insert(self.start()?),
        };
        // Whoever has room finds a place, since every batch has a row; so it is refused only by a thread that has ended.
        running.queue.try_send(Queued { batch, _room: room }).map_err(|_| {
            StepError::new(ErrorKind::Unavailable, format!("`{}` is no longer written", self.file))
        })
    }

    fn counter(&self, outcome: &str) -> Option<IntCounter> {
        self.counts.get().map(|rows| rows.0.with_label_values(&[self.file.as_str(), outcome]))
    }

    fn start(&self) -> Result<Running, StepError> {
        let failed = |error: std::io::Error| {
            StepError::internal("the thread of the file cannot be started").with_source(error)
        };
        let runtime = runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let files = Files::new(Arc::clone(&self.outside), &self.file, self.format, &self.schema)
            .map_err(|error| StepError::internal(error.to_string()))?;
        let (queue, rows) = mpsc::channel(self.rules.queue);
        let (dropped, written, rules) = (self.counter("dropped"), self.counter("written"), self.rules);
        let write = move || runtime.block_on(write(rows, files, rules, dropped.as_ref(), written.as_ref()));
        // It waits for the disk, which neither an async worker nor a compute thread may. Its owner joins it.
        let thread =
            thread::Builder::new().name("millstream-sink".to_owned()).spawn(write).map_err(failed)?;
        Ok(Running { queue, thread })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let running = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { queue, thread }) = running {
            // Without a sender the thread writes what is queued, closes the file and ends.
            drop(queue);
            // A panic has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("file", &self.file).field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Writes rows as they come, until nobody is left who could send any.
async fn write(
    mut rows: mpsc::Receiver<Queued>,
    mut files: Files,
    rules: Rules,
    dropped: Option<&IntCounter>,
    written: Option<&IntCounter>,
) {
    let mut paused: Option<Instant> = None;
    loop {
        let due = files.begun().and_then(|begun| begun.checked_add(rules.age));
        let next = match due {
            None => rows.recv().await,
            Some(due) => match timeout_at(due.into(), rows.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    report(&files.close());
                    continue;
                }
            },
        };
        let Some(Queued { batch, .. }) = next else { break };
        if paused.is_some_and(|until| Instant::now() < until) {
            count(dropped, &batch);
            continue;
        }
        let more = !rows.is_empty();
        if report(&files.write(&batch, rules.size, more)) {
            paused = None;
            count(written, &batch);
        } else {
            paused = Some(Instant::now() + PAUSE);
            count(dropped, &batch);
        }
    }
    report(&files.close());
}

fn count(counter: Option<&IntCounter>, batch: &RecordBatch) {
    if let Some(counter) = counter {
        counter.inc_by(batch.num_rows() as u64);
    }
}

fn report(done: &Result<(), String>) -> bool {
    if let Err(error) = done {
        tracing::error!(%error, "a sink's rows are lost");
    }
    done.is_ok()
}

#[cfg(test)]
mod tests {
    use millstream_graph::{fields, rows};
    use millstream_runtime::testkit::poll_once;

    use super::*;

    fn full(policy: WhenFull) -> (Arc<Writer>, OwnedSemaphorePermit, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let outside = Outside::new(folder.path());
        let rules = Rules { size: 1 << 20, age: Duration::from_secs(3600), queue: 2, full: policy };
        outside.count_into(&SinkRows::new(&prometheus::Registry::new()).unwrap());
        let writer = outside.writers().claim(&outside, "a.jsonl", &fields! { id: Int64 }, rules).unwrap();
        // As if two rows were waiting.
        let waiting = Arc::clone(&writer.room).try_acquire_many_owned(2).unwrap();
        (writer, waiting, folder)
    }

    fn written(folder: &tempfile::TempDir) -> usize {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).unwrap().lines().count()).sum()
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (writer, waiting, folder) = full(WhenFull::Drop);
        let batch = rows! { id: [1_i64, 2, 3] };
        assert!(writer.try_put(&batch).unwrap(), "dropping settles it");
        assert_eq!(writer.counter("dropped").unwrap().get(), 3);
        drop(waiting);
        assert!(writer.try_put(&batch).unwrap());
        drop(writer);
        assert_eq!(written(&folder), 3);
    }

    #[test]
    fn a_full_queue_makes_the_tail_wait() {
        let (writer, waiting, folder) = full(WhenFull::Wait);
        let batch = rows! { id: [1_i64, 2, 3] };
        assert!(!writer.try_put(&batch).unwrap());
        let mut put = Box::pin(writer.put(batch));
        assert!(poll_once(&mut put).is_pending());
        drop(waiting);
        assert!(poll_once(&mut put).is_ready());
        drop(put);
        assert_eq!(writer.counter("dropped").unwrap().get(), 0);
        drop(writer);
        assert_eq!(written(&folder), 3);
    }
}
