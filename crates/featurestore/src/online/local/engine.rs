//! What happens to requests, one after another: decide, log, apply, answer.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::Instant,
};

use tokio::sync::oneshot::Sender;

use super::{
    files::Files,
    keeping::Keeping,
    log::{Log, segment_name, snapshot_name},
    record::{put_erase, put_evict, put_purge},
    shards::Shards,
    snapshot,
    writer::{Admitted, Writer},
};
use crate::online::{Receipt, WriteError, Written, expiry::Expiry, incoming::Incoming, worker::Queue};

/// Where the answer to a request goes.
pub(crate) type Reply<T> = Sender<Result<T, WriteError>>;

/// What a table asks of its engine.
pub(crate) enum Request {
    Write(Box<Incoming>, Reply<Written>),
    Erase(Vec<Vec<u8>>, Reply<Receipt>),
    Purge(Reply<Receipt>),
    Mark(String, u32, Reply<Option<u64>>),
    Snapshot(Reply<()>),
    Problem(Reply<Option<String>>),
    /// Makes the log safe, and says where it ends: the segment, and the byte in it.
    #[cfg(feature = "offline")]
    End(Reply<(u64, u64)>),
    /// What lies before a segment is kept elsewhere. Files that nothing needs any more go; their names.
    #[cfg(feature = "offline")]
    Kept(u64, Reply<Vec<String>>),
}

/// Bytes of records in one frame, about. More requests that wait are taken with the next.
const GROUP: usize = 8 << 20;

/// The one writer of a set, and its files.
pub(crate) struct Engine {
    pub(crate) shards: Arc<Shards>,
    pub(crate) writer: Writer,
    pub(crate) expiry: Expiry,
    /// Whether rows whose time is over go when there is no room.
    pub(crate) evicts: bool,
    pub(crate) kept: Option<Kept>,
}

/// What an engine with files has beyond one without.
pub(crate) struct Kept {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) definition: Arc<str>,
    pub(crate) log: Log,
    pub(crate) segment_bytes: u64,
    pub(crate) snapshot_after: u64,
    /// Why nothing is written any more.
    pub(crate) failed: Option<String>,
    /// Why the last snapshot was not made.
    pub(crate) unsaved: Option<String>,
    pub(crate) running: Option<Running>,
    /// The segment with which the last snapshot begins.
    #[cfg_attr(
        not(feature = "offline"),
        allow(dead_code, reason = "only an offline log keeps segments before it")
    )]
    pub(crate) first: u64,
    pub(crate) keeping: Option<Keeping>,
    pub(crate) queue: Option<Arc<Queue<Request>>>,
}

/// A snapshot that is being written.
pub(crate) struct Running {
    number: u64,
    done: Receiver<io::Result<u64>>,
    thread: JoinHandle<()>,
    waiting: Vec<Reply<()>>,
}

/// The names of files that a snapshot has made needless, and of those that it has made.
type Replaced = (Vec<String>, Vec<String>);

/// Writes that share a frame, in their order.
#[derive(Default)]
struct Group {
    records: Vec<u8>,
    writes: Vec<(Admitted, Reply<Written>)>,
}

impl Engine {
    /// Carries out requests, and says when it wants to be called again at the latest.
    pub(crate) fn serve(&mut self, requests: Vec<Request>) -> Option<Instant> {
        self.tick();
        let mut group = Group::default();
        for request in requests {
            match request {
                Request::Write(incoming, reply) => self.write(incoming, reply, &mut group),
                other => {
                    self.commit(&mut group);
                    self.rest(other);
                }
            }
            if group.records.len() > GROUP {
                self.commit(&mut group);
            }
        }
        self.commit(&mut group);
        let kept = self.kept.as_mut()?;
        kept.grow(&self.shards, &self.writer);
        if let Some(keeping) = &mut kept.keeping {
            keeping.grown(kept.log.segment, kept.log.len());
        }
        // What has failed is not tried again, so it is never due.
        if kept.failed.is_some() { None } else { kept.log.due() }
    }

    fn write(&mut self, incoming: Box<Incoming>, reply: Reply<Written>, group: &mut Group) {
        let fates = match self.takes_rows().and_then(|()| self.writer.decide(&incoming)) {
            Err(WriteError::Full { .. }) if self.evicts => {
                self.commit(group);
                self.evict().and_then(|()| self.writer.decide(&incoming))
            }
            fates => fates,
        };
        match fates {
            Ok(fates) => {
                let admitted = self.writer.admit(incoming, fates);
                if let Some(kept) = &self.kept {
                    let as_kept = (self.shards.windows(), kept.keeping.is_some());
                    admitted.encode(as_kept, &mut group.records);
                }
                group.writes.push((admitted, reply));
            }
            // Nobody may be waiting any more; here and below.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Makes a group safe, then visible, then known.
    fn commit(&mut self, group: &mut Group) {
        let Group { records, writes } = std::mem::take(group);
        let logged = self.log(&records);
        for (admitted, reply) in writes {
            let answer = match &logged {
                Ok(()) => Ok(self.writer.apply(admitted)),
                Err(reason) => Err(WriteError::ReadOnly { reason: reason.clone() }),
            };
            drop(reply.send(answer));
        }
    }

    fn log(&mut self, records: &[u8]) -> Result<(), String> {
        match &mut self.kept {
            Some(kept) => kept.append(records),
            None => Ok(()),
        }
    }

    fn usable(&self) -> Result<(), WriteError> {
        match self.kept.as_ref().and_then(|kept| kept.failed.clone()) {
            Some(reason) => Err(WriteError::ReadOnly { reason }),
            None => Ok(()),
        }
    }

    /// Whether there is room for rows that are yet to be kept elsewhere.
    fn takes_rows(&self) -> Result<(), WriteError> {
        self.usable()?;
        let Some((kept, keeping)) = self.kept.as_ref().and_then(|kept| Some((kept, kept.keeping.as_ref()?)))
        else {
            return Ok(());
        };
        if keeping.behind(kept.log.len()) <= keeping.limit {
            return Ok(());
        }
        let reason =
            keeping.state.problem().unwrap_or_else(|| "rows come faster than it is written".to_owned());
        Err(WriteError::Behind { limit: keeping.limit, reason })
    }

    fn evict(&mut self) -> Result<(), WriteError> {
        let now = self.expiry.clock.now();
        if !self.writer.may_evict(now) {
            return Ok(());
        }
        self.settle(true);
        let mut record = Vec::new();
        put_evict(&mut record, now, self.expiry.ttl());
        self.usable()?;
        self.log(&record).map_err(|reason| WriteError::ReadOnly { reason })?;
        self.writer.evict(now);
        Ok(())
    }

    fn rest(&mut self, request: Request) {
        match request {
            // Written in a group.
            Request::Write(..) => {}
            Request::Problem(reply) => {
                let kept = self.kept.as_ref();
                let problem = kept.and_then(|kept| {
                    let elsewhere = || kept.keeping.as_ref().and_then(|keeping| keeping.state.problem());
                    kept.failed.clone().or_else(|| kept.unsaved.clone()).or_else(elsewhere)
                });
                drop(reply.send(Ok(problem)));
            }
            Request::Mark(source, partition, reply) => {
                drop(reply.send(Ok(self.writer.mark(&source, partition))));
            }
            Request::Erase(keys, reply) => {
                let mut record = Vec::new();
                put_erase(&mut record, &keys, self.writer.next());
                let receipt = self.remove(&record, |writer| {
                    let removed = writer.erase(keys.iter().map(Vec::as_slice));
                    Receipt { removed, unknown: keys.len() as u64 - removed, ..Receipt::default() }
                });
                drop(reply.send(receipt));
            }
            Request::Purge(reply) => {
                let mut record = Vec::new();
                put_purge(&mut record, self.writer.next());
                let purge = |writer: &mut Writer| Receipt { removed: writer.purge(), ..Receipt::default() };
                let receipt = self.remove(&record, purge);
                drop(reply.send(receipt));
            }
            Request::Snapshot(reply) => match (self.usable(), &mut self.kept) {
                (Err(error), _) => drop(reply.send(Err(error))),
                (Ok(()), None) => drop(reply.send(Ok(()))),
                (Ok(()), Some(kept)) => {
                    kept.settle(true);
                    kept.start_snapshot(&self.shards, &self.writer, vec![reply]);
                }
            },
            #[cfg(feature = "offline")]
            Request::End(reply) => {
                let end = self.usable().and_then(|()| self.kept.as_mut().map_or(Ok((0, 0)), Kept::end));
                drop(reply.send(end));
            }
            #[cfg(feature = "offline")]
            Request::Kept(segment, reply) => {
                let released = self.kept.as_mut().map_or(Ok(Vec::new()), |kept| kept.release(segment));
                drop(reply.send(released.map_err(WriteError::unavailable)));
            }
        }
    }

    /// Removes rows, from memory first, then from all files: a snapshot without them takes the place of what had them. The
    /// record comes first, so that a crash in between is mended when the store is opened.
    fn remove(
        &mut self,
        record: &[u8],
        apply: impl FnOnce(&mut Writer) -> Receipt,
    ) -> Result<Receipt, WriteError> {
        self.usable()?;
        // A row that is gone must not be missing in a snapshot whose log has yet to bring it.
        self.settle(true);
        self.usable()?;
        self.log(record).map_err(|reason| WriteError::ReadOnly { reason })?;
        let mut receipt = apply(&mut self.writer);
        if let Some(kept) = &mut self.kept {
            (receipt.files_deleted, receipt.files_written) = kept.rewrite(&self.shards, &self.writer)?;
        }
        Ok(receipt)
    }

    /// Rewrites all files from memory.
    pub(crate) fn rewrite(&mut self) -> Result<(), WriteError> {
        match &mut self.kept {
            Some(kept) => kept.rewrite(&self.shards, &self.writer).map(|_| ()),
            None => Ok(()),
        }
    }

    fn tick(&mut self) {
        self.settle(false);
        if let Some(kept) = &mut self.kept
            && kept.failed.is_none()
            && kept.log.due().is_some_and(|due| due <= Instant::now())
        {
            let flushed = kept.log.flush();
            kept.noted(flushed);
        }
    }

    fn settle(&mut self, wait: bool) {
        if let Some(kept) = &mut self.kept {
            kept.settle(wait);
        }
    }
}

impl Kept {
    /// Appends records. An error of the disk, of which nobody can tell what it has left behind, ends all writing.
    fn append(&mut self, records: &[u8]) -> Result<(), String> {
        if let Some(reason) = &self.failed {
            return Err(reason.clone());
        }
        if records.is_empty() {
            return Ok(());
        }
        let appended = self.log.append(records);
        self.noted(appended).ok_or_else(|| self.failed.clone().unwrap_or_default())
    }

    /// What was made; an error makes the store read-only.
    fn noted<T>(&mut self, made: io::Result<T>) -> Option<T> {
        made.map_err(|error| {
            let reason = format!("{}: {error}", self.log.path().display());
            self.failed.get_or_insert(reason);
        })
        .ok()
    }

    /// Begins a new segment or a snapshot when it is time.
    fn grow(&mut self, shards: &Arc<Shards>, writer: &Writer) {
        if self.failed.is_some() {
            return;
        }
        if self.running.is_none() && self.log.since_snapshot > self.snapshot_after {
            self.start_snapshot(shards, writer, Vec::new());
        } else if self.log.len() > self.segment_bytes {
            self.rotate();
        }
    }

    /// Begins the next segment.
    pub(crate) fn rotate(&mut self) -> Option<()> {
        let (segment, bytes) = (self.log.segment, self.log.len());
        let rotated = self.log.rotate();
        self.noted(rotated)?;
        if let Some(keeping) = &mut self.keeping {
            keeping.bytes.insert(segment, bytes);
        }
        Some(())
    }

    /// The safe end of the log.
    #[cfg(feature = "offline")]
    fn end(&mut self) -> Result<(u64, u64), WriteError> {
        let flushed = self.log.flush();
        match self.noted(flushed) {
            Some(()) => Ok((self.log.segment, self.log.len())),
            None => Err(WriteError::ReadOnly { reason: self.failed.clone().unwrap_or_default() }),
        }
    }

    /// Deletes segments before `segment` that the last snapshot does not need either.
    #[cfg(feature = "offline")]
    fn release(&mut self, segment: u64) -> io::Result<Vec<String>> {
        if let Some(keeping) = &mut self.keeping {
            keeping.from = segment;
            keeping.bytes.retain(|number, _| *number >= segment);
        }
        let needed = segment_name(segment.min(self.first));
        let old = |file: &String| file.starts_with("wal-") && *file < needed;
        let mut old: Vec<_> = self.files.list()?.into_iter().filter(old).collect();
        // The oldest first: what is left after a crash has no gap.
        old.sort_unstable();
        old.iter().try_for_each(|file| self.files.remove(file))?;
        if !old.is_empty() {
            self.files.sync()?;
        }
        Ok(old)
    }

    fn start_snapshot(&mut self, shards: &Arc<Shards>, writer: &Writer, waiting: Vec<Reply<()>>) {
        let started = self.prepare(writer).and_then(|head| {
            let (files, shards, number) = (Arc::clone(&self.files), Arc::clone(shards), self.log.segment);
            let queue = self.queue.clone();
            let (send, done) = sync_channel(1);
            let thread = Builder::new().name("snapshot".to_owned()).spawn(move || {
                let written = snapshot::write(&files, &unfinished(number), &head, &shards);
                // The engine waits for it, or will.
                let _ = send.send(written);
                queue.iter().for_each(|queue| queue.nudge());
            });
            thread.map(|thread| (number, thread, done)).map_err(WriteError::unavailable)
        });
        match started {
            Ok((number, thread, done)) => {
                self.running = Some(Running { number, done, thread, waiting });
            }
            Err(error) => self.saved(&Err(error), waiting),
        }
    }

    /// Begins a segment, and says what the snapshot before it begins with.
    fn prepare(&mut self, writer: &Writer) -> Result<Vec<u8>, WriteError> {
        if self.rotate().is_none() {
            return Err(WriteError::ReadOnly { reason: self.failed.clone().unwrap_or_default() });
        }
        self.log.since_snapshot = 0;
        // The segment's head is a frame as well.
        Ok(snapshot::head(&self.definition, self.log.frame - 1, writer))
    }

    /// Ends the snapshot that is being written, if it is done or if one waits for it.
    fn settle(&mut self, wait: bool) {
        let Some(running) = self.running.take() else { return };
        let written = match running.done.try_recv() {
            Err(TryRecvError::Empty) if !wait => {
                self.running = Some(running);
                return;
            }
            Ok(written) => written,
            Err(_) => running.done.recv().unwrap_or_else(|_| Err(io::Error::other("it was given up"))),
        };
        let _ = running.thread.join();
        let finished = match written {
            Ok(_) => self.finish(running.number),
            Err(error) => {
                // It takes room that may be wanted; when the store is opened it goes anyway.
                let _ = self.files.remove(&unfinished(running.number));
                Err(WriteError::unavailable(error))
            }
        };
        self.saved(&finished.map(|_| ()), running.waiting);
    }

    /// Remembers how a snapshot ended, and tells those who wait for it.
    fn saved(&mut self, ended: &Result<(), WriteError>, waiting: Vec<Reply<()>>) {
        let reason = |error: &WriteError| match error {
            WriteError::Unavailable(source) => format!("no snapshot: {source}"),
            other => other.to_string(),
        };
        self.unsaved = ended.as_ref().err().map(reason);
        for reply in waiting {
            let answer = self.unsaved.clone().map_or(Ok(()), |reason| Err(WriteError::unavailable(reason)));
            drop(reply.send(answer));
        }
    }

    /// Writes a snapshot while everything waits, and deletes what was there before.
    fn rewrite(&mut self, shards: &Arc<Shards>, writer: &Writer) -> Result<Replaced, WriteError> {
        let head = self.prepare(writer)?;
        let number = self.log.segment;
        snapshot::write(&self.files, &unfinished(number), &head, shards).map_err(WriteError::unavailable)?;
        self.finish(number)
    }

    /// Gives a snapshot its name, and deletes what it replaces.
    fn finish(&mut self, number: u64) -> Result<Replaced, WriteError> {
        // The snapshot has rows that came while it was written. The log must not lose what it has of their writes.
        let flushed = self.log.flush();
        if self.noted(flushed).is_none() {
            return Err(WriteError::ReadOnly { reason: self.failed.clone().unwrap_or_default() });
        }
        let (name, segment) = (snapshot_name(number), segment_name(number));
        let needed = self.keeping.as_ref().map_or(number, |keeping| keeping.from.min(number));
        let needed = segment_name(needed);
        let finished = self.files.rename(&unfinished(number), &name).and_then(|()| {
            self.files.sync()?;
            let old = |file: &String| {
                (file.starts_with("wal-") && *file < needed)
                    || (file.starts_with("snapshot-") && *file < name)
            };
            let mut old: Vec<_> = self.files.list()?.into_iter().filter(old).collect();
            // The oldest first: what is left after a crash has no gap.
            old.sort_unstable();
            old.iter().try_for_each(|file| self.files.remove(file))?;
            self.files.sync()?;
            Ok((old, vec![name, segment]))
        });
        if finished.is_ok() {
            self.first = number;
        }
        finished.map_err(WriteError::unavailable)
    }
}

/// The name of a snapshot until it is whole.
fn unfinished(number: u64) -> String {
    format!("{}.tmp", snapshot_name(number))
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.settle(true);
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.failed.is_none()) {
            // Nobody is left to tell; what is not safe now was not promised to be.
            let _ = kept.log.flush();
        }
    }
}
