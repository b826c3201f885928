//! Feature sets in one file, for those that are larger than memory.

mod file;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arrow::array::{ArrayRef, RecordBatch};
use redb::{Builder, Database, ReadableDatabase, ReadableTable};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use self::file::{MARKS, ROWS, Tables, copy, define, holds_removed};
use super::{
    Answer, Changes, Clock, Receipt, WritableTable, WriteError, Written,
    expiry::Expiry,
    incoming::{Incoming, Packer},
    local::OpenError,
    row::{Copied, Head, definition, difference},
    worker::Worker,
};
use crate::{
    FeatureSet, Found, LookupError, OnlineTable, Profile, ProfileError, Read, Selection,
    key::{Given, encode},
    profile::Tally,
};

/// One feature set in a file, of which memory holds what was used last.
///
/// Every answered write is safe; writes that come together share a transaction. Readers see whole transactions, and wait for
/// nobody. Rows whose time is over are stale, and stay until they are overwritten, erased or purged.
pub struct RedbTable {
    packer: Packer,
    expiry: Expiry,
    file: Arc<Shared>,
    worker: Worker<Request>,
}

/// How a [`RedbTable`] keeps its rows.
#[derive(Clone, Debug)]
pub struct RedbOptions {
    /// For how long after its event a row may be used, inclusive; for ever by default.
    pub ttl: Option<Duration>,
    /// What now is, for lookups that give no time. The system's clock by default.
    pub clock: Clock,
    /// Bytes of the file that are held in memory; 256 MiB by default.
    pub cache_bytes: usize,
    /// Event ids that are remembered, the last ones; 100 000 by default.
    pub max_ids: u64,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { ttl: None, clock: Clock::default(), cache_bytes: 256 << 20, max_ids: 100_000 }
    }
}

/// The file that is read. Another takes its place when rows must be gone from it.
struct Shared {
    path: PathBuf,
    definition: String,
    cache_bytes: usize,
    max_ids: u64,
    database: RwLock<Arc<Database>>,
}

type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

enum Request {
    Write(Box<Incoming>, Reply<Written>),
    Erase(Vec<Vec<u8>>, Reply<Receipt>),
    Purge(Reply<Receipt>),
}

impl RedbTable {
    /// The set in the file `path`, which is made if it is not there. The file is locked for as long as the table is.
    ///
    /// # Errors
    /// When the file cannot be read or written or is in use, is damaged, or was written for another definition of the set.
    pub fn open(path: &Path, set: FeatureSet, options: RedbOptions) -> Result<Self, OpenError> {
        let RedbOptions { ttl, clock, cache_bytes, max_ids } = options;
        if set.windows().is_some() {
            return Err(OpenError::Windows { set: set.name().to_owned() });
        }
        let packer = Packer::new(set);
        let definition = definition(&packer.set);
        let io = |source: std::io::Error| OpenError::Io { path: path.to_owned(), source };
        let database = create(path, cache_bytes).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
            other => io(std::io::Error::other(other)),
        })?;
        let other = |error: redb::Error| io(std::io::Error::other(error));
        let wrote = define(&database, &definition).map_err(other)?;
        if let Some(difference) = difference(&wrote, &definition) {
            return Err(OpenError::Definition { path: path.to_owned(), difference });
        }
        let removed = holds_removed(&database).map_err(other)?;
        let database = RwLock::new(Arc::new(database));
        let file = Arc::new(Shared { path: path.to_owned(), definition, cache_bytes, max_ids, database });
        if removed {
            // A crash came between a removal and the rewriting of the file.
            file.rewrite().map_err(other)?;
        }
        let shared = Arc::clone(&file);
        let worker = Worker::start("feature-set", |_| {
            move |requests| {
                shared.serve(requests);
                None
            }
        });
        Ok(Self { packer, expiry: Expiry::new(ttl, clock), file, worker: worker.map_err(io)? })
    }

    fn ask<'a, T: Send + 'a>(
        &'a self,
        bytes: usize,
        request: impl FnOnce(Reply<T>) -> Request + Send + 'a,
    ) -> Answer<'a, T> {
        Answer::Waits(Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.worker.send(bytes, request(reply)).await;
            answer.await.unwrap_or(Err(WriteError::Closed))
        }))
    }

    fn find(
        &self,
        batch: &RecordBatch,
        selection: &Selection,
        at: Option<i64>,
    ) -> Result<Found, LookupError> {
        let columns: SmallVec<[&ArrayRef; 2]> = selection.key_columns(batch)?;
        let rows = self
            .file
            .current()
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|read| read.open_table(ROWS).map_err(redb::Error::from));
        let rows = rows.map_err(unavailable)?;
        let mut copied = Copied::new(self.packer.fixed(), batch.num_rows());
        let mut failed = None;
        encode(&columns, &self.packer.kinds, |_, given| {
            let Given::Key(key) = given else { return copied.missing() };
            match rows.get(key) {
                Ok(None) => copied.missing(),
                Ok(Some(row)) if copied.push_blob(row.value()) => {}
                Ok(Some(row)) => {
                    let what = format!("a row of {} bytes that is none", row.value().len());
                    failed = Some(redb::Error::Corrupted(what));
                }
                Err(error) => failed = Some(error.into()),
            }
        })?;
        match failed {
            None => Ok(copied.found(selection, &self.expiry, at)),
            Some(error) => Err(unavailable(error)),
        }
    }
}

fn create(path: &Path, cache_bytes: usize) -> Result<Database, redb::DatabaseError> {
    Builder::new().set_cache_size(cache_bytes).create(path)
}

fn unavailable(error: redb::Error) -> LookupError {
    LookupError::Unavailable(Box::new(error))
}

/// An error of the disk, after which the file takes no more writes, or any other.
fn refused(error: &redb::Error) -> WriteError {
    match error {
        redb::Error::PreviousIo | redb::Error::Io(_) => WriteError::ReadOnly { reason: error.to_string() },
        other => WriteError::unavailable(other.to_string()),
    }
}

impl Shared {
    fn current(&self) -> Arc<Database> {
        Arc::clone(&self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every row of one moment: its fixed part of `fixed` bytes, and its texts.
    fn each_row(&self, fixed: usize, mut each: impl FnMut(&[u8], &str)) -> Result<(), redb::Error> {
        for row in self.current().begin_read()?.open_table(ROWS)?.iter()? {
            let (_, row) = row?;
            let parts = row.value().split_at_checked(fixed);
            match parts.and_then(|(fixed, text)| Some((fixed, std::str::from_utf8(text).ok()?))) {
                Some((fixed, text)) => each(fixed, text),
                None => {
                    return Err(redb::Error::Corrupted(format!(
                        "a row of {} bytes that is none",
                        row.value().len()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Carries out requests; writes that follow each other in one transaction.
    fn serve(&self, requests: Vec<Request>) {
        let mut writes = Vec::new();
        for request in requests {
            match request {
                Request::Write(incoming, reply) => writes.push((incoming, reply)),
                Request::Erase(keys, reply) => {
                    self.write(std::mem::take(&mut writes));
                    let receipt = self.remove(|tables| tables.erase(&keys)).map(|mut receipt| {
                        receipt.unknown = keys.len() as u64 - receipt.removed;
                        receipt
                    });
                    drop(reply.send(receipt.map_err(|error| refused(&error))));
                }
                Request::Purge(reply) => {
                    self.write(std::mem::take(&mut writes));
                    let receipt = self.remove(|tables| tables.purge());
                    drop(reply.send(receipt.map_err(|error| refused(&error))));
                }
            }
        }
        self.write(writes);
    }

    fn write(&self, writes: Vec<(Box<Incoming>, Reply<Written>)>) {
        if writes.is_empty() {
            return;
        }
        let (incoming, replies): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let written = self.change(|tables| {
            incoming.into_iter().map(|incoming| tables.write(*incoming)).collect::<Result<Vec<_>, _>>()
        });
        match written {
            Ok(written) => {
                replies.into_iter().zip(written).for_each(|(reply, written)| drop(reply.send(Ok(written))));
            }
            Err(error) => {
                replies.into_iter().for_each(|reply| drop(reply.send(Err(refused(&error)))));
            }
        }
    }

    /// Changes the tables in one transaction, which is safe when this returns.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let transaction = self.current().begin_write()?;
        let changed = change(&mut Tables::open(&transaction, self.max_ids)?)?;
        transaction.commit()?;
        Ok(changed)
    }

    /// Removes rows, then rewrites the file: pages that are free again keep their bytes.
    fn remove(
        &self,
        remove: impl FnOnce(&mut Tables<'_>) -> Result<u64, redb::Error>,
    ) -> Result<Receipt, redb::Error> {
        let removed = self.change(remove)?;
        self.rewrite()?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = vec![name];
        Ok(Receipt { removed, files_deleted: files.clone(), files_written: files, ..Receipt::default() })
    }

    /// Copies the file and puts the copy in its place. Who reads the old one goes on reading it.
    fn rewrite(&self) -> Result<(), redb::Error> {
        let unfinished = self.path.with_extension("tmp");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let new = create(&unfinished, self.cache_bytes)?;
        copy(&self.current(), &new, &self.definition)?;
        fs::rename(&unfinished, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }
}

impl std::fmt::Debug for RedbTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbTable").field("set", &self.packer.set.name()).finish_non_exhaustive()
    }
}

impl OnlineTable for RedbTable {
    fn set(&self) -> &Arc<FeatureSet> {
        &self.packer.set
    }

    /// Of the rows of one moment, which are read from the file.
    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        let mut tally = Tally::new(&self.packer.set, feature)?;
        let unreadable = |error: redb::Error| ProfileError::Unavailable(Box::new(error));
        self.file
            .each_row(self.packer.fixed(), |row, text| tally.add(&row[Head::BYTES..], text))
            .map_err(unreadable)?;
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

impl WritableTable for RedbTable {
    fn write(&self, changes: Changes) -> Answer<'_, Written> {
        match self.packer.pack(changes) {
            Ok(incoming) => self.ask(incoming.bytes(), |reply| Request::Write(incoming, reply)),
            Err(error) => Answer::Ready(Err(error)),
        }
    }

    fn erase(&self, keys: RecordBatch) -> Answer<'_, Receipt> {
        match self.packer.keys(&keys) {
            Ok(keys) => self.ask(keys.len() * 64, |reply| Request::Erase(keys, reply)),
            Err(error) => Answer::Ready(Err(error)),
        }
    }

    fn purge(&self) -> Answer<'_, Receipt> {
        self.ask(0, Request::Purge)
    }

    fn mark(&self, source: &str, partition: u32) -> Answer<'_, Option<u64>> {
        let mark =
            self.file.current().begin_read().map_err(redb::Error::from).and_then(|read| {
                Ok(read.open_table(MARKS)?.get((source, partition))?.map(|mark| mark.value()))
            });
        Answer::Ready(mark.map_err(WriteError::unavailable))
    }
}
