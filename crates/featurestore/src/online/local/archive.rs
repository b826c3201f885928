//! What a store takes goes into an offline log, exactly once.
//!
//! The store's own log is the truth: a thread reads it behind the writer and appends its rows to the offline log, each under its
//! sequence, by which the offline log knows what it has. Segments stay until it has them. Removals stand in the same log, with the
//! sequence up to which they count, so they too may be carried out again.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use tokio::sync::oneshot;

use super::{
    LocalOptions, LocalTable, OpenError,
    engine::{Reply, Request},
    files::{Files, Folder},
    keeping::{Keeping, KeepingState},
    record::Record,
    tail::{Place, Rows, Tail, TailError},
};
use crate::{
    FeatureSet,
    offline::{Erased, Log, LogError, LogSchema},
    online::{
        Answer, Receipt, WriteError,
        worker::{Queue, Worker},
    },
    wait,
};

/// The offline log of a [`LocalTable`](crate::LocalTable), and when rows go there.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The log, with the columns that [`LogSchema::of`](crate::offline::LogSchema::of) says of the set.
    pub log: Arc<Log>,
    /// How long rows wait at most, unless the log cannot be written; 10 seconds by default.
    pub every: Duration,
    /// After so many bytes of the store's log they wait no longer; 16 MiB by default.
    pub after_bytes: u64,
    /// Bytes of the store's log that may wait while the offline log cannot be written; then writes are refused. 4 GiB by default.
    pub max_behind: u64,
    /// Files of the log that could be put together before they are; 64 by default.
    pub compact_after: usize,
}

impl Archive {
    /// An archive in `log`, which no other table writes.
    pub fn new(log: Arc<Log>) -> Self {
        Self {
            log,
            every: Duration::from_secs(10),
            after_bytes: 16 << 20,
            max_behind: 4 << 30,
            compact_after: 64,
        }
    }
}

/// How far an offline log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Archived {
    /// The sequence number of its next row: every row before it that the store has taken is in the log.
    pub next: u64,
}

impl LocalTable {
    /// The same as [`LocalTable::open`], and everything that the table takes goes into an offline log too, exactly once: soon, at
    /// [`WritableTable::archive`](crate::WritableTable::archive), and when the table is dropped. Rows that the folder has from before it had a log do not.
    ///
    /// # Errors
    /// As [`LocalTable::open`], and when the log has other columns than the set.
    pub fn open_archived(
        dir: &Path,
        set: FeatureSet,
        options: LocalOptions,
        archive: Archive,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        let folder = Folder::open(dir).map_err(io)?;
        let folder = folder.ok_or_else(|| OpenError::InUse { path: dir.to_owned() })?;
        let files: Arc<dyn Files> = Arc::new(folder);
        Self::open_archived_in(&files, set, options, archive)
    }

    fn open_archived_in(
        files: &Arc<dyn Files>,
        set: FeatureSet,
        options: LocalOptions,
        archive: Archive,
    ) -> Result<Self, OpenError> {
        if LogSchema::of(&set).ok().as_ref() != Some(archive.log.schema()) {
            return Err(OpenError::OtherLog { set: set.name().to_owned() });
        }
        let path = files.path("");
        let io = |source: io::Error| OpenError::Io { path: path.clone(), source };
        let segments = segments(files).map_err(io)?;
        // Behind a gap nothing is missing: what lies before it was about to be deleted.
        let first = segments
            .keys()
            .rev()
            .copied()
            .reduce(|next, number| if number + 1 == next { number } else { next });
        let first = first.unwrap_or(1);
        let state = Arc::<KeepingState>::default();
        let keeping = Keeping {
            from: first,
            bytes: segments,
            limit: archive.max_behind,
            after: archive.after_bytes,
            called: (0, 0),
            state: Arc::clone(&state),
        };
        let next = archive.log.next();
        let (mut table, engine) = Self::open_keeping(files, set, options, Some((keeping, next)))?;
        if let Some(engine) = engine {
            let of = (Arc::clone(files), Arc::clone(&table.packer.set));
            table.archiver = Some(Archiver::start(archive, of, first, engine, state).map_err(io)?);
        }
        Ok(table)
    }

    pub(super) fn ask_archiver<'a, T: Send + 'a>(
        &'a self,
        bytes: usize,
        wish: impl FnOnce(Reply<T>) -> Wish + Send + 'a,
    ) -> Answer<'a, T> {
        match &self.archiver {
            Some(archiver) => archiver.ask(bytes, wish),
            None => Answer::Ready(Err(WriteError::Closed)),
        }
    }
}

/// Bytes of rows that become one batch, about.
const BATCH: usize = 32 << 20;

/// Rows of the largest file that is made of smaller ones.
const COMPACTED: u64 = 1 << 20;

/// What a table asks of the thread that keeps its offline log.
pub(crate) enum Wish {
    Archive(Reply<Archived>),
    Erase(Vec<Vec<u8>>, Reply<Receipt>),
    Purge(Reply<Receipt>),
    /// The table is being closed.
    Close,
}

/// The thread that keeps the offline log of a table. Dropping it brings the log up to date first, if that can be done.
pub(crate) struct Archiver {
    worker: Worker<Wish>,
    log: Arc<Log>,
    state: Arc<KeepingState>,
}

impl Archiver {
    /// Starts the thread, which reads the store's log from segment `first` on.
    pub(crate) fn start(
        archive: Archive,
        (files, set): (Arc<dyn Files>, Arc<FeatureSet>),
        first: u64,
        engine: Arc<Queue<Request>>,
        state: Arc<KeepingState>,
    ) -> io::Result<Self> {
        let log = Arc::clone(&archive.log);
        let shared = Arc::clone(&state);
        let worker = Worker::start("archive", move |queue| {
            // What was left over when the store was closed goes first.
            queue.nudge();
            let queue = Arc::clone(queue);
            shared.called_by(move || queue.nudge());
            let (tail, done) = (Tail::new(files, set), Place::at_segment(first));
            let mut thread = Thread { archive, tail, done, rows: Rows::default(), engine, state: shared };
            move |wishes| thread.run(wishes)
        })?;
        Ok(Self { worker, log, state })
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// How often the log could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.state.failures()
    }

    pub(crate) fn ask<'a, T: Send + 'a>(
        &'a self,
        bytes: usize,
        wish: impl FnOnce(Reply<T>) -> Wish + Send + 'a,
    ) -> Answer<'a, T> {
        let (reply, answer) = oneshot::channel();
        Answer::Waits(Box::pin(async move {
            self.worker.send(bytes, wish(reply)).await;
            answer.await.unwrap_or(Err(WriteError::Closed))
        }))
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.worker.put(Wish::Close);
    }
}

/// Why a pass has come to nothing. What it has done until then stays.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Tail(#[from] TailError),
    #[error("the offline log cannot be written")]
    Log(#[from] LogError),
    #[error("the store's log cannot be read")]
    Store(#[from] WriteError),
    #[error("a row of the store's log does not fit the set")]
    Row,
}

/// What a pass has removed from the offline log, and which files went.
#[derive(Default)]
struct Removed {
    rows: u64,
    files: Vec<String>,
}

struct Thread {
    archive: Archive,
    tail: Tail,
    /// Up to here the store's log is in the offline one.
    done: Place,
    rows: Rows,
    engine: Arc<Queue<Request>>,
    state: Arc<KeepingState>,
}

impl Thread {
    /// Carries out wishes, and says when it wants to be called again.
    fn run(&mut self, wishes: Vec<Wish>) -> Option<Instant> {
        if wishes.is_empty() {
            // A background pass that fails is told by the state, and tried again.
            let _ = self.pass();
        }
        for wish in wishes {
            match wish {
                Wish::Close => drop(self.pass()),
                Wish::Archive(reply) => {
                    let archived = self.pass().map(|_| Archived { next: self.archive.log.next() });
                    drop(reply.send(archived.map_err(WriteError::unavailable)));
                }
                Wish::Erase(keys, reply) => {
                    drop(reply.send(self.remove(|reply| Request::Erase(keys, reply))));
                }
                Wish::Purge(reply) => drop(reply.send(self.remove(Request::Purge))),
            }
        }
        Instant::now().checked_add(self.archive.every)
    }

    /// Removes from the store, then from the offline log what it has of that.
    fn remove(&mut self, request: impl FnOnce(Reply<Receipt>) -> Request) -> Result<Receipt, WriteError> {
        let mut receipt = self.ask(request)?;
        match self.pass() {
            Ok(removed) => {
                receipt.log_rows = Some(removed.rows);
                receipt.files_deleted.extend(removed.files);
            }
            Err(error) => receipt.beyond.push(format!(
                "the offline log, and what of the store's log it has yet to take: the rows go once it can be written ({})",
                causes(&error)
            )),
        }
        Ok(receipt)
    }

    /// Brings the offline log up to date.
    fn pass(&mut self) -> Result<Removed, PassError> {
        let mut removed = Removed::default();
        let passed = self.advance(&mut removed);
        self.rows = Rows::default();
        let problem = passed.as_ref().err().map(|error| causes(error));
        if let Some(problem) = &problem {
            tracing::warn!(%problem, "the offline log is behind its store");
            // What has been written in spite of the error is known again.
            if let Err(error) = wait(self.archive.log.refresh()) {
                tracing::debug!(%error, "the offline log cannot be read");
            }
        }
        self.state.ended(problem.map(|problem| format!("the offline log is behind: {problem}")));
        passed.map(|()| removed)
    }

    fn advance(&mut self, removed: &mut Removed) -> Result<(), PassError> {
        let (last, end) = self.ask(Request::End)?;
        let mut place = self.done;
        while place.segment <= last {
            let until = (place.segment == last).then_some(end);
            self.read(&mut place, until, removed)?;
            self.append()?;
            self.done = place;
            if place.segment == last {
                break;
            }
            place = place.next();
            self.done = place;
            removed.files.extend(self.ask(|reply| Request::Kept(place.segment, reply))?);
        }
        let log = &self.archive.log;
        if log.fragments(COMPACTED) >= self.archive.compact_after {
            wait(log.compact(COMPACTED))?;
        }
        Ok(())
    }

    fn read(
        &mut self,
        place: &mut Place,
        until: Option<u64>,
        removed: &mut Removed,
    ) -> Result<(), PassError> {
        let Self { archive, tail, rows, .. } = self;
        let (log, tail) = (&archive.log, &*tail);
        let raw_bytes = tail.raw_bytes();
        tail.read(place, until, |record| {
            let gone = match record {
                // Rows that were written without a log elsewhere lack what it needs.
                Record::Rows { raw: None, .. } | Record::Evict { .. } => return Ok(()),
                Record::Rows { rows: taken, raw: Some(raw), .. } => {
                    for (row, raw) in taken.iter().zip(raw) {
                        if raw.0.len() != raw_bytes {
                            return Err(PassError::Row);
                        }
                        if row.head().sequence >= log.next() {
                            rows.push(row, *raw);
                        }
                    }
                    return if rows.bytes() >= BATCH { append(log, tail, rows) } else { Ok(()) };
                }
                Record::Erase { keys, before } => {
                    append(log, tail, rows)?;
                    let keys = tail.keys(keys).ok_or(PassError::Row)?;
                    wait(log.erase_before(&keys, *before))?
                }
                Record::Purge { before } => {
                    append(log, tail, rows)?;
                    wait(log.purge_before(*before))?
                }
            };
            removed.add(gone);
            Ok(())
        })
    }

    fn append(&mut self) -> Result<(), PassError> {
        append(&self.archive.log, &self.tail, &mut self.rows)
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.engine.put(request(reply));
        wait(answer).unwrap_or(Err(WriteError::Closed))
    }
}

impl Removed {
    fn add(&mut self, erased: Erased) {
        self.rows += erased.rows;
        self.files.extend(erased.deleted.into_iter().map(|file| format!("offline/{file}")));
    }
}

/// Appends what was read.
fn append(log: &Log, tail: &Tail, rows: &mut Rows) -> Result<(), PassError> {
    if rows.is_empty() {
        return Ok(());
    }
    let batch: RecordBatch = tail.batch(rows, log.schema()).ok_or(PassError::Row)?;
    wait(log.append_numbered(&batch))?;
    *rows = Rows::default();
    Ok(())
}

/// Every cause of an error, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The segments of a log, and their bytes.
fn segments(files: &Arc<dyn Files>) -> io::Result<BTreeMap<u64, u64>> {
    let number = |name: &String| u64::from_str_radix(name.strip_prefix("wal-")?, 16).ok();
    let names = files.list()?;
    let segments = names.iter().filter_map(|name| Some((number(name)?, name)));
    segments.map(|(number, name)| Ok((number, files.read(name)?.1))).collect()
}
