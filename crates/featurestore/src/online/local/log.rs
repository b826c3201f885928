//! The write-ahead log: what was taken, in segments, in the order in which it was taken.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    files::{Appender, Files},
    frames::put_frame,
};
use crate::online::bytes::put_bytes;

/// When what is written is made safe against a crash of the machine. A crash of the process loses nothing that was answered,
/// whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before each answer. Writes that come together share it.
    Always,
    /// This long after the first write that is not safe, at the latest.
    Every(Duration),
    /// When the operating system thinks fit.
    System,
}

/// The first byte of a file's first payload: which kind of file it is; the second is the version of its format.
pub(crate) const SEGMENT: [u8; 2] = [1, 1];
pub(crate) const SNAPSHOT: [u8; 2] = [2, 1];

pub(crate) fn segment_name(number: u64) -> String {
    format!("wal-{number:016x}")
}

pub(crate) fn snapshot_name(number: u64) -> String {
    format!("snapshot-{number:016x}")
}

/// What a file begins with.
pub(crate) fn put_header(out: &mut Vec<u8>, kind: [u8; 2], definition: &str) {
    out.extend_from_slice(&kind);
    put_bytes(out, definition.as_bytes());
}

/// The end of the log.
pub(crate) struct Log {
    files: Arc<dyn Files>,
    definition: Arc<str>,
    /// The raw columns that rows are written with, for an offline log; none without one.
    raw: Option<Arc<str>>,
    sync: Durability,
    file: Box<dyn Appender>,
    /// The number of the segment that is written.
    pub(crate) segment: u64,
    /// The number of the next frame.
    pub(crate) frame: u64,
    /// Bytes of the segment, and how many of them are safe.
    len: u64,
    durable: u64,
    /// Since when bytes are not safe.
    unsafe_since: Option<Instant>,
    /// Bytes of the log since the last snapshot.
    pub(crate) since_snapshot: u64,
    buffer: Vec<u8>,
}

/// Where a log goes on.
pub(crate) struct End {
    /// The segment with which the last snapshot begins.
    pub(crate) first: u64,
    pub(crate) segment: u64,
    pub(crate) frame: u64,
    /// Bytes of the segment that are good; `None` for one that has yet to be begun.
    pub(crate) len: Option<u64>,
    pub(crate) since_snapshot: u64,
}

impl Log {
    /// Goes on at `end`. What lies behind it in its segment is cut off.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        (definition, raw): (Arc<str>, Option<Arc<str>>),
        sync: Durability,
        end: &End,
    ) -> io::Result<Self> {
        let name = segment_name(end.segment);
        let file = match end.len {
            Some(len) => files.extend(&name, len)?,
            None => files.create(&name)?,
        };
        let len = end.len.unwrap_or(0);
        let mut log = Self {
            files,
            definition,
            raw,
            sync,
            file,
            segment: end.segment,
            frame: end.frame,
            len,
            durable: 0,
            unsafe_since: None,
            since_snapshot: end.since_snapshot,
            buffer: Vec::new(),
        };
        if end.len.is_none() {
            log.begin()?;
        }
        // What was read may never have been made safe, and is answered for from now on.
        log.flush()?;
        log.files.sync()?;
        Ok(log)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.files.path(&segment_name(self.segment))
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends records as one frame, and makes them safe as promised. After an error the log must not be used: what became of
    /// the frame is not known.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let before = self.len;
        let written = self.write(|out| out.extend_from_slice(records)).and_then(|()| match self.sync {
            Durability::Always => self.flush(),
            Durability::Every(_) | Durability::System => Ok(()),
        });
        if written.is_err() {
            // Nobody was told that it is there, so it should not come back; if it does, it was sent.
            let _ = self.file.cut(before);
        }
        written
    }

    /// When what is written must be made safe.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.sync {
            Durability::Every(time) => self.unsafe_since?.checked_add(time),
            Durability::Always | Durability::System => None,
        }
    }

    /// Makes safe what is written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.durable < self.len {
            self.file.sync()?;
            self.durable = self.len;
        }
        self.unsafe_since = None;
        Ok(())
    }

    /// Begins the next segment, once all of this one is safe: a segment that is not the last is whole.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        self.segment += 1;
        self.file = self.files.create(&segment_name(self.segment))?;
        (self.len, self.durable) = (0, 0);
        self.begin()?;
        self.flush()?;
        self.files.sync()
    }

    fn begin(&mut self) -> io::Result<()> {
        let (definition, raw) = (Arc::clone(&self.definition), self.raw.clone());
        self.write(|out| {
            put_header(out, SEGMENT, &definition);
            raw.iter().for_each(|raw| put_bytes(out, raw.as_bytes()));
        })
    }

    fn write(&mut self, payload: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.buffer.clear();
        put_frame(&mut self.buffer, self.frame, self.durable, payload)?;
        self.unsafe_since.get_or_insert_with(Instant::now);
        self.file.append(&self.buffer)?;
        self.frame += 1;
        self.len += self.buffer.len() as u64;
        self.since_snapshot += self.buffer.len() as u64;
        Ok(())
    }
}
