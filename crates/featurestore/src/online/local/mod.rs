//! The in-process store: rows in memory, read in place, and kept in a folder by a write-ahead log and snapshots.
//!
//! One thread per set writes. What waits for it is decided on, appended to the log as one frame, made safe, put in place and
//! answered, in that order; so what can be read can be recovered. Readers share nothing with it but one lock per shard of rows.

#[cfg(feature = "offline")]
mod archive;
mod engine;
mod files;
mod frames;
#[cfg_attr(not(feature = "offline"), allow(dead_code, reason = "only an offline log keeps segments"))]
mod keeping;
mod key_windows;
mod log;
pub(crate) mod reading;
mod record;
mod recover;
mod shards;
mod snapshot;
#[cfg(feature = "offline")]
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use arrow::array::{ArrayRef, RecordBatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tokio::sync::oneshot;

#[cfg(feature = "offline")]
pub use self::archive::{Archive, Archived};
#[cfg(feature = "offline")]
use self::archive::{Archiver, Wish};
use self::{
    engine::{Engine, Kept, Reply, Request},
    files::{Files, Folder},
    keeping::Keeping,
    log::Log,
    reading::{Counters, Reading},
    recover::Recoverer,
    shards::Shards,
    writer::Writer,
};
pub use self::{
    log::Durability,
    recover::{OpenError, Recovery},
};
use super::{
    Answer, Changes, Clock, Receipt, WritableTable, WriteError, Written,
    expiry::Expiry,
    incoming::Packer,
    row::{Copied, Head, definition, raw_definition},
    worker::{Queue, Worker},
};
use crate::{
    Counts, FeatureSet, Found, LookupError, OnlineTable, Prepared, Profile, ProfileError, Read, Selection,
    key::{Given, encode},
    profile::Tally,
};

/// One feature set in this process, which takes writes while it is read, and may be kept in a folder.
///
/// ```
/// use arrow::datatypes::DataType;
/// use millstream_featurestore::{Changes, FeatureSet, LocalOptions, LocalTable, WritableTable};
/// use millstream_graph::rows;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// # let dir = tempfile::tempdir()?;
/// let cards = || {
///     FeatureSet::builder("cards").key("card_id", DataType::Int64).feature("n", DataType::Int64).build()
/// };
/// let table = LocalTable::open(dir.path(), cards()?, LocalOptions::default())?;
/// table.write(Changes::new(rows! { card_id: [7_i64], n: [1_i64] }, vec![1_000_000])).get().await?;
/// drop(table);
///
/// let table = LocalTable::open(dir.path(), cards()?, LocalOptions::default())?;
/// assert_eq!(table.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalTable {
    packer: Packer,
    shards: Arc<Shards>,
    expiry: Expiry,
    recovery: Recovery,
    counters: Arc<Counters>,
    /// What keeps the offline log; it ends before the engine that it reads from.
    #[cfg(feature = "offline")]
    archiver: Option<Archiver>,
    mode: Mode,
}

/// How a [`LocalTable`] keeps its rows.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// For how long after its event a row may be used, inclusive; for ever by default.
    pub ttl: Option<Duration>,
    /// What now is, for lookups that give no time and for evictions. The system's clock by default.
    pub clock: Clock,
    /// Bytes of memory that rows and their index may take, as the store counts them; without bound by default.
    pub max_bytes: Option<u64>,
    /// What happens when there is no room.
    pub when_full: WhenFull,
    /// When writes are safe; before each answer by default.
    pub durability: Durability,
    /// Bytes of a segment of the log, about; 64 MiB by default.
    pub segment_bytes: u64,
    /// Bytes of log after which a snapshot is made; 256 MiB by default.
    pub snapshot_after: u64,
    /// Event ids that are remembered, the last ones; 100 000 by default, at most 500 000.
    pub max_ids: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            ttl: None,
            clock: Clock::default(),
            max_bytes: None,
            when_full: WhenFull::Refuse,
            durability: Durability::Always,
            segment_bytes: 64 << 20,
            snapshot_after: 256 << 20,
            max_ids: 100_000,
        }
    }
}

/// What happens to a write for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// Rows whose time is over go first.
    EvictExpired,
}

/// More would not fit a snapshot's head.
const MOST_IDS: usize = 500_000;

enum Mode {
    /// Nothing to wait for: writers take turns.
    Memory(Box<Mutex<Engine>>),
    Kept(Worker<Request>),
}

/// What an engine is asked through.
type Asked = Arc<Queue<Request>>;

impl LocalTable {
    /// A table that is gone with its process.
    pub fn in_memory(set: FeatureSet, options: LocalOptions) -> Self {
        let (mut table, engine) = Self::empty(set, options);
        table.mode = Mode::Memory(Box::new(Mutex::new(engine)));
        table
    }

    /// The table that is kept in a folder, which is made if it is not there. The folder is locked for as long as the table is.
    ///
    /// # Errors
    /// When the folder cannot be read or written or is in use, when its files were written for another definition of the set,
    /// or when they are damaged where a crash cannot have damaged them.
    pub fn open(dir: &Path, set: FeatureSet, options: LocalOptions) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        let folder = Folder::open(dir).map_err(io)?;
        let folder = folder.ok_or_else(|| OpenError::InUse { path: dir.to_owned() })?;
        let files: Arc<dyn Files> = Arc::new(folder);
        Self::open_in(&files, set, options)
    }

    fn open_in(files: &Arc<dyn Files>, set: FeatureSet, options: LocalOptions) -> Result<Self, OpenError> {
        Ok(Self::open_keeping(files, set, options, None)?.0)
    }

    /// Opens a table, whose engine goes on with `keeping`; beside it what its engine is asked through.
    fn open_keeping(
        files: &Arc<dyn Files>,
        set: FeatureSet,
        options: LocalOptions,
        keeping: Option<(Keeping, u64)>,
    ) -> Result<(Self, Option<Asked>), OpenError> {
        let LocalOptions { durability, segment_bytes, snapshot_after, .. } = options;
        let (mut table, mut engine) = Self::empty(set, options);
        if keeping.is_some() {
            table.packer = table.packer.with_history();
        }
        let definition: Arc<str> = definition(&table.packer.set).into();
        let mut recoverer = Recoverer {
            files,
            definition: &definition,
            shards: &table.shards,
            writer: &mut engine.writer,
            found: Recovery::default(),
            removed: false,
            keeps: keeping.is_some(),
        };
        let end = recoverer.run()?;
        let removed = recoverer.removed;
        table.recovery = recoverer.found;
        let path = files.path("");
        let io = |source: io::Error| OpenError::Io { path: path.clone(), source };
        let raw = keeping.as_ref().map(|_| raw_definition(&table.packer.set).into());
        let head = (Arc::clone(&definition), raw);
        let log = Log::open(Arc::clone(files), head, durability, &end).map_err(io)?;
        let keeping = keeping.map(|(keeping, next)| {
            engine.writer.skip_to(next);
            keeping
        });
        let mut kept = Kept {
            files: Arc::clone(files),
            definition,
            log,
            segment_bytes,
            snapshot_after,
            failed: None,
            unsaved: None,
            running: None,
            first: end.first,
            keeping,
            queue: None,
        };
        if kept.keeping.is_some() && end.len.is_some() {
            // The segment may have been begun without a log elsewhere.
            kept.rotate().ok_or_else(|| io(io::Error::other(kept.failed.clone().unwrap_or_default())))?;
        }
        engine.kept = Some(kept);
        if removed {
            // A crash came between a removal and the rewriting of the files.
            engine.rewrite().map_err(|error| io(io::Error::other(error)))?;
        }
        let mut asked = None;
        let worker = Worker::start("feature-set", |queue| {
            asked = Some(Arc::clone(queue));
            if let Some(kept) = &mut engine.kept {
                kept.queue = Some(Arc::clone(queue));
            }
            move |requests| engine.serve(requests)
        });
        table.mode = Mode::Kept(worker.map_err(io)?);
        Ok((table, asked))
    }

    fn empty(set: FeatureSet, options: LocalOptions) -> (Self, Engine) {
        let packer = Packer::new(set);
        let shards = Arc::new(Shards::new(packer.fixed(), packer.set.windows().cloned()));
        let counters = Arc::<Counters>::default();
        let expiry = Expiry::new(options.ttl, options.clock);
        let engine = || Engine {
            shards: Arc::clone(&shards),
            writer: Writer::new(
                Arc::clone(&shards),
                expiry.clone(),
                options.max_bytes.unwrap_or(u64::MAX),
                options.max_ids.min(MOST_IDS),
                Arc::clone(&counters),
            ),
            expiry: expiry.clone(),
            evicts: options.when_full == WhenFull::EvictExpired,
            kept: None,
        };
        let (mode, engine) = (Mode::Memory(Box::new(Mutex::new(engine()))), engine());
        let (recovery, shards) = (Recovery::default(), Arc::clone(&shards));
        let counters = Arc::clone(&counters);
        let table = Self {
            packer,
            shards,
            expiry,
            recovery,
            counters,
            #[cfg(feature = "offline")]
            archiver: None,
            mode,
        };
        (table, engine)
    }

    /// What was found when the table was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the rows and their index take.
    pub fn bytes(&self) -> usize {
        self.shards.bytes()
    }

    /// What was set aside, skipped or lost in windows since the table was opened.
    pub fn counts(&self) -> Counts {
        Counts {
            #[cfg(feature = "offline")]
            archive_failures: self.archiver.as_ref().map_or(0, Archiver::failures),
            ..self.counters.counts()
        }
    }

    /// Writes all rows into one file, and deletes the log before it. Reads and writes go on. A table does so by itself, after
    /// [`LocalOptions::snapshot_after`] bytes of log.
    pub fn snapshot(&self) -> Answer<'_, ()> {
        self.ask(0, Request::Snapshot)
    }

    /// What keeps the table from writing, or kept it from making its last snapshot; `None` when all is well.
    pub fn problem(&self) -> Answer<'_, Option<String>> {
        self.ask(0, Request::Problem)
    }

    /// Hands a request to the engine. `bytes` is about as many as it takes while it waits.
    fn ask<'a, T: Send + 'a>(
        &'a self,
        bytes: usize,
        request: impl FnOnce(Reply<T>) -> Request + Send + 'a,
    ) -> Answer<'a, T> {
        let (reply, mut answer) = oneshot::channel();
        match &self.mode {
            Mode::Memory(engine) => {
                engine.lock().unwrap_or_else(PoisonError::into_inner).serve(vec![request(reply)]);
                Answer::Ready(answer.try_recv().unwrap_or(Err(WriteError::Closed)))
            }
            Mode::Kept(worker) => Answer::Waits(Box::pin(async move {
                worker.send(bytes, request(reply)).await;
                answer.await.unwrap_or(Err(WriteError::Closed))
            })),
        }
    }

    fn find(
        &self,
        batch: &RecordBatch,
        selection: &Selection,
        at: Option<i64>,
    ) -> Result<Found, LookupError> {
        let columns: SmallVec<[&ArrayRef; 2]> = selection.key_columns(batch)?;
        let mut copied = Copied::new(self.shards.fixed(), batch.num_rows());
        let (Some(halves), Some(of)) = (selection.halves(), self.shards.windows()) else {
            encode(&columns, &self.packer.kinds, |_, given| match given {
                Given::Key(key) => self.shards.copy(key, &mut copied),
                Given::Null | Given::Never => copied.missing(),
            })?;
            return Ok(copied.found(selection, &self.expiry, at));
        };
        let ends = at.unwrap_or_else(|| self.expiry.clock.now());
        let mut reading = Reading::new(of, ends, batch.num_rows());
        encode(&columns, &self.packer.kinds, |_, given| match given {
            Given::Key(key) if halves.windows.len() > 0 => {
                self.shards.copy_with(key, &mut copied, |ledger| reading.push(ledger));
            }
            Given::Key(key) => self.shards.copy(key, &mut copied),
            Given::Null | Given::Never => {
                copied.missing();
                reading.push(None);
            }
        })?;
        let own = copied.found(&halves.own, &self.expiry, at);
        if halves.windows.len() == 0 {
            return Ok(own);
        }
        Ok(halves.join(own, reading.found(&halves.windows, &self.counters)))
    }
}

impl fmt::Debug for LocalTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTable").field("set", &self.packer.set.name()).finish_non_exhaustive()
    }
}

impl OnlineTable for LocalTable {
    fn set(&self) -> &Arc<FeatureSet> {
        &self.packer.set
    }

    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        let mut tally = Tally::new(&self.packer.set, feature)?;
        tally.reserve(self.len());
        for shard in self.shards.each_shard() {
            shard.rows().for_each(|row| tally.add(&row.fixed[Head::BYTES..], row.text));
        }
        tally.finish()
    }

    fn is_local(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        Read::Ready(self.find(batch, selection, None))
    }

    fn read_at<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, at: i64) -> Read<'a> {
        Read::Ready(self.find(batch, selection, Some(at)))
    }
}

impl WritableTable for LocalTable {
    fn write(&self, changes: Changes) -> Answer<'_, Written> {
        match self.packer.pack(changes) {
            Ok(incoming) => {
                let skipped = incoming.events.as_ref().map_or(0, Prepared::not_a_number);
                self.counters.not_a_number.fetch_add(skipped as u64, Relaxed);
                self.ask(incoming.bytes(), |reply| Request::Write(incoming, reply))
            }
            Err(error) => Answer::Ready(Err(error)),
        }
    }

    fn erase(&self, keys: RecordBatch) -> Answer<'_, Receipt> {
        match self.packer.keys(&keys) {
            #[cfg(feature = "offline")]
            Ok(keys) if self.archiver.is_some() => {
                self.ask_archiver(keys.len() * 64, |reply| Wish::Erase(keys, reply))
            }
            Ok(keys) => self.ask(keys.len() * 64, |reply| Request::Erase(keys, reply)),
            Err(error) => Answer::Ready(Err(error)),
        }
    }

    fn purge(&self) -> Answer<'_, Receipt> {
        #[cfg(feature = "offline")]
        if self.archiver.is_some() {
            return self.ask_archiver(0, Wish::Purge);
        }
        self.ask(0, Request::Purge)
    }

    fn mark(&self, source: &str, partition: u32) -> Answer<'_, Option<u64>> {
        let source = source.to_owned();
        self.ask(source.len(), move |reply| Request::Mark(source, partition, reply))
    }

    #[cfg(feature = "offline")]
    fn log(&self) -> Option<&Arc<crate::offline::Log>> {
        self.archiver.as_ref().map(Archiver::log)
    }

    #[cfg(feature = "offline")]
    fn archive(&self) -> Answer<'_, Option<Archived>> {
        if self.archiver.is_none() {
            return Answer::Ready(Ok(None));
        }
        let archived = self.ask_archiver(0, Wish::Archive);
        Answer::Waits(Box::pin(async move { archived.get().await.map(Some) }))
    }
}
