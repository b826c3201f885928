//! From files to a state: the last snapshot, then the log behind it.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    files::Files,
    frames::{Frame, Frames, Next},
    log::{End, SEGMENT, SNAPSHOT, segment_name, snapshot_name},
    record::Record,
    shards::Shards,
    snapshot::read_rows,
    writer::Writer,
};
use crate::online::{bytes::Cursor, row::difference};

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Rows of the snapshot.
    pub snapshot_rows: u64,
    /// Rows that the log had beyond it.
    pub log_rows: u64,
    /// Bytes at the end of the log that were no whole record, as a crash leaves them; they were cut off.
    pub cut_bytes: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file or folder could not be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Another process, or another store of this one, has the folder.
    #[error("{} is in use, by a server that runs or another process; a store has one writer", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The files hold another set, or another version of it.
    #[error(
        "{} was written for another definition of the set: {difference}; delete it, or open it with the definition \
         that it was written for",
        path.display()
    )]
    Definition {
        /// The file.
        path: PathBuf,
        /// How the definitions differ.
        difference: String,
    },
    /// The set has windows, and this store keeps none.
    #[error("feature set `{set}` has windows, which this store does not keep; use the in-process store")]
    Windows {
        /// The set.
        set: String,
    },
    /// The offline log has other columns than the set's rows.
    #[error("the offline log of feature set `{set}` has other columns than the set")]
    OtherLog {
        /// The set.
        set: String,
    },
    /// A file is damaged where a crash cannot have damaged it, or is missing.
    #[error("{} is damaged at byte {byte}: {problem}; restore the folder from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What is there.
        problem: String,
    },
}

/// Reads the files of a set into an empty state, and says where the log goes on. Nothing is written but the removal of files
/// that a crash has left over.
pub(crate) struct Recoverer<'a> {
    pub(crate) files: &'a Arc<dyn Files>,
    pub(crate) definition: &'a str,
    pub(crate) shards: &'a Shards,
    pub(crate) writer: &'a mut Writer,
    pub(crate) found: Recovery,
    /// Whether the log holds a removal: then files may hold what was to be gone.
    pub(crate) removed: bool,
    /// Whether segments before the snapshot stay, because an offline log may lack what they say.
    pub(crate) keeps: bool,
}

impl Recoverer<'_> {
    pub(crate) fn run(&mut self) -> Result<End, OpenError> {
        let names = self.files.list().map_err(|source| self.io("", source))?;
        let numbers = |prefix: &str| {
            let of = names.iter().filter_map(|name| u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok());
            let mut numbers: Vec<u64> = of.collect();
            numbers.sort_unstable();
            numbers
        };
        let (segments, snapshots) = (numbers("wal-"), numbers("snapshot-"));
        let (mut segment, mut frame) = (1, 1);
        if let Some(&last) = snapshots.last() {
            (segment, frame) = (last, self.snapshot(last)?);
        }
        let end = self.segments(segment, frame, &segments)?;
        // What the snapshot replaces, and what was never finished, is left over from a crash.
        let old = segments
            .iter()
            .filter(|&&number| number < segment && !self.keeps)
            .map(|&number| segment_name(number));
        let old = old.chain(snapshots.iter().rev().skip(1).map(|&number| snapshot_name(number)));
        let unfinished = names.iter().filter(|name| name.ends_with(".tmp")).cloned();
        for name in old.chain(unfinished) {
            self.files.remove(&name).map_err(|source| self.io(&name, source))?;
        }
        Ok(end)
    }

    /// Reads a snapshot; the number of the frame with which the log goes on.
    fn snapshot(&mut self, number: u64) -> Result<u64, OpenError> {
        let name = snapshot_name(number);
        let (file, len) = self.files.read(&name).map_err(|source| self.io(&name, source))?;
        let mut frames = Frames::new(file, len);
        let Next::Frame(head) = frames.next().map_err(|source| self.io(&name, source))? else {
            return Err(self.damaged(&name, 0, "its head is not whole"));
        };
        let mut from = self.head(&name, SNAPSHOT, &head)?;
        let frame = from.u64().filter(|_| self.writer.decode(&mut from).is_some());
        let frame = frame.ok_or_else(|| self.damaged(&name, 0, "its head says what it cannot"))?;
        let rows = read_rows(&mut frames, self.shards).map_err(|source| self.io(&name, source))?;
        self.found.snapshot_rows = rows.map_err(|(problem, at)| self.damaged(&name, at, &problem))?;
        self.writer.count_rows();
        Ok(frame)
    }

    /// Reads the log from segment `first` on, which begins with frame `frame`.
    fn segments(&mut self, first: u64, mut frame: u64, there: &[u64]) -> Result<End, OpenError> {
        let wanted: Vec<u64> = there.iter().copied().filter(|&number| number >= first).collect();
        let missing = (first..).zip(&wanted).find(|&(number, &there)| number != there);
        if let Some((number, _)) = missing {
            return Err(self.damaged(&segment_name(number), 0, "it is missing"));
        }
        let Some(&last) = wanted.last() else {
            if first > 1 {
                return Err(self.damaged(&segment_name(first), 0, "it is missing"));
            }
            return Ok(End { first, segment: 1, frame: 1, len: None, since_snapshot: 0 });
        };
        let mut since_snapshot = 0;
        let mut good = None;
        for number in wanted {
            let (next, len) = self.segment(number, frame, number == last)?;
            (frame, good) = (next, len);
            since_snapshot += len.unwrap_or(0);
        }
        Ok(End { first, segment: last, frame, len: good, since_snapshot })
    }

    /// Reads one segment: the number of the frame behind it, and how many of its bytes are good; `None` when not even its head
    /// is.
    fn segment(&mut self, number: u64, mut frame: u64, last: bool) -> Result<(u64, Option<u64>), OpenError> {
        let name = segment_name(number);
        let (file, len) = self.files.read(&name).map_err(|source| self.io(&name, source))?;
        let mut frames = Frames::new(file, len);
        loop {
            let at = frames.at;
            match frames.next().map_err(|source| self.io(&name, source))? {
                Next::End if at > 0 => return Ok((frame, Some(at))),
                Next::Frame(read) if read.number == frame => {
                    frame += 1;
                    if at == 0 {
                        self.head(&name, SEGMENT, &read)?;
                    } else {
                        self.records(&name, at, &read)?;
                    }
                }
                Next::Frame(read) => {
                    let problem = format!("frame {} where {frame} must be", read.number);
                    return Err(self.damaged(&name, at, &problem));
                }
                Next::End | Next::Bad if !last => {
                    return Err(self.damaged(&name, at, "no whole frame, and more of the log behind it"));
                }
                Next::End | Next::Bad => {
                    if frames.search().map_err(|source| self.io(&name, source))? {
                        return Err(self.damaged(
                            &name,
                            at,
                            "no whole frame, and later ones say that it was safe",
                        ));
                    }
                    self.found.cut_bytes = len - at;
                    return Ok((frame, (at > 0).then_some(at)));
                }
            }
        }
    }

    fn records(&mut self, name: &str, at: u64, frame: &Frame) -> Result<(), OpenError> {
        let mut from = Cursor(&frame.payload);
        while !from.0.is_empty() {
            let Some(record) = Record::decode(&mut from, self.shards.fixed(), self.shards.windows()) else {
                return Err(self.damaged(name, at, "a record that is none"));
            };
            match &record {
                Record::Rows { rows, .. } => self.found.log_rows += rows.len() as u64,
                Record::Erase { .. } | Record::Purge { .. } => self.removed = true,
                Record::Evict { .. } => {}
            }
            self.writer.replay(&record);
        }
        Ok(())
    }

    /// Checks the head of a file; what it says beyond that.
    fn head<'a>(&self, name: &str, kind: [u8; 2], head: &'a Frame) -> Result<Cursor<'a>, OpenError> {
        let mut from = Cursor(&head.payload);
        match from.take(2) {
            Some(found) if found == kind => {}
            Some([found, version]) if *found == kind[0] => {
                let problem = format!("format {version}, which is not known");
                return Err(self.damaged(name, 0, &problem));
            }
            _ => return Err(self.damaged(name, 0, "another kind of file")),
        }
        let Some(wrote) = from.text() else {
            return Err(self.damaged(name, 0, "its head says what it cannot"));
        };
        match difference(wrote, self.definition) {
            None => Ok(from),
            Some(difference) => Err(OpenError::Definition { path: self.files.path(name), difference }),
        }
    }

    fn io(&self, name: &str, source: io::Error) -> OpenError {
        OpenError::Io { path: self.files.path(name), source }
    }

    fn damaged(&self, name: &str, byte: u64, problem: &str) -> OpenError {
        OpenError::Damaged { path: self.files.path(name), byte, problem: problem.to_owned() }
    }
}
