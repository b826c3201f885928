//! Panes of the past, coarser the older they are, in memory and in a file.

mod file;
mod sealed;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::file::read_panes;
use self::{file::PaneFile, sealed::Sealed};
use crate::{
    pane::{Pane, belongs},
    sketch::Merge,
};

/// How long panes are kept, and how fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// As they came.
    pub fine: Duration,
    /// One an hour.
    pub hours: Duration,
    /// One a day.
    pub days: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            fine: Duration::from_secs(HOUR),
            hours: Duration::from_secs(7 * DAY),
            days: Duration::from_secs(90 * DAY),
        }
    }
}

/// The panes of one graph. Each row was counted in exactly one of them.
///
/// In the file, a pane is a record of its length, its checksum and its bytes; panes are appended as they come, and the file is
/// written anew, whole, when what was appended since has become as long as the rest. Half a record at its end, which a crash leaves, is
/// cut off; a whole record whose bytes have changed is moved aside with all that stands behind it ([`Self::set_aside`]).
///
/// Nobody else opens the history while it is open: a lock on a file beside it, with `.lock` behind its name, says so. That file stays.
/// Others may [read](read_panes) the panes.
pub struct History {
    keep: Keep,
    levels: [VecDeque<Sealed>; 3],
    file: Option<PaneFile>,
}

/// Why a history cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The file cannot be read or written.
    #[error("{}: {doing}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What could not be done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is of something else, or of another version.
    #[error("{}: is no file of panes that this version reads; move it away", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// Somebody else has it open.
    #[error("{}: another server keeps its counts there; give each server its own folder", file.display())]
    Taken {
        /// The file.
        file: PathBuf,
    },
    /// A pane cannot be packed or unpacked.
    #[error("a pane cannot be packed")]
    Pane(#[from] postcard::Error),
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const MICROS: i64 = 1_000_000;

impl History {
    /// In memory only.
    pub fn in_memory(keep: Keep) -> Self {
        Self { keep, levels: Default::default(), file: None }
    }

    /// In a file, with the panes that it has. Its folder is made if it is not there.
    ///
    /// # Errors
    /// When the file cannot be read or written, is of something else, or somebody else has it open.
    pub fn open(path: &Path, keep: Keep) -> Result<Self, HistoryError> {
        let mut history = Self::in_memory(keep);
        let (file, panes) = PaneFile::open(path)?;
        for pane in panes {
            history.add(&pane)?;
        }
        history.file = Some(file);
        Ok(history)
    }

    /// Where bytes went that could not be read when the file was opened, if there were any: to a file beside it with `.bad` behind its
    /// name, in the place of those of an earlier time.
    pub fn set_aside(&self) -> Option<&Path> {
        self.file.as_ref()?.aside()
    }

    /// Keeps panes so long from the next one on. What is gone already does not come back.
    pub fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// Adds a pane, which begins where the last one ended or later. What has become old becomes coarser, and in the end goes.
    ///
    /// # Errors
    /// When it cannot be written. It is in memory all the same.
    pub fn push(&mut self, pane: &Pane) -> Result<(), HistoryError> {
        let bytes = self.add(pane)?;
        let Some(file) = &mut self.file else { return Ok(()) };
        file.append(&bytes)?;
        if file.is_long() {
            self.rewrite()?;
        }
        Ok(())
    }

    /// What was counted from `from` on and before `to`, in microseconds since 1970 UTC, as far as whole panes tell: one that lies there
    /// for more than half of its own time belongs to it ([`Pane::is_within`]).
    ///
    /// # Errors
    /// When a pane cannot be unpacked.
    pub fn over(&self, from: i64, to: i64) -> Result<Pane, HistoryError> {
        let mut whole = Pane::default();
        for pane in self.panes(from, to) {
            whole.merge(&pane?);
        }
        Ok(whole)
    }

    /// The panes of that time, the oldest first: those of which more than half lies there.
    pub fn panes(&self, from: i64, to: i64) -> impl Iterator<Item = Result<Pane, HistoryError>> {
        let sealed = self.levels.iter().rev().flatten();
        sealed.filter(move |sealed| belongs((sealed.from, sealed.to), (from, to))).map(Sealed::open)
    }

    /// How many bytes the panes take, packed.
    pub fn bytes(&self) -> usize {
        self.levels.iter().flatten().map(|sealed| sealed.bytes.len()).sum()
    }

    fn add(&mut self, pane: &Pane) -> Result<Vec<u8>, HistoryError> {
        let sealed = Sealed::of(pane)?;
        let bytes = sealed.bytes.clone();
        let level =
            [HOUR, DAY].into_iter().take_while(|span| pane.to - pane.from >= *span as i64 * MICROS).count();
        self.put(level, sealed)?;
        self.age(pane.to)?;
        Ok(bytes)
    }

    /// Panes are in the order of their time; those of several replicas need not come in it.
    fn put(&mut self, level: usize, sealed: Sealed) -> Result<(), HistoryError> {
        let panes = &mut self.levels[level];
        let at = panes.partition_point(|pane| pane.from < sealed.from);
        match panes.get_mut(at) {
            Some(same) if same.from == sealed.from && same.to == sealed.to => {
                let mut pane = same.open()?;
                pane.merge(&sealed.open()?);
                *same = Sealed::of(&pane)?;
            }
            _ => panes.insert(at, sealed),
        }
        Ok(())
    }

    fn age(&mut self, now: i64) -> Result<(), HistoryError> {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let limits = [self.keep.fine, self.keep.hours, self.keep.days].map(micros);
        for (level, span) in [(0, HOUR), (1, DAY)] {
            let span = span as i64 * MICROS;
            while self.levels[level].front().is_some_and(|pane| pane.to <= now.saturating_sub(limits[level]))
            {
                let Some(old) = self.levels[level].pop_front() else { break };
                let (from, mut pane) = (old.from.div_euclid(span) * span, old.open()?);
                let coarser = &mut self.levels[level + 1];
                let at = coarser.partition_point(|pane| pane.from < from);
                if coarser.get(at).is_some_and(|pane| pane.from == from)
                    && let Some(into) = coarser.remove(at)
                {
                    // It has counted what was before this pane, whatever time it is rounded to.
                    let mut into = into.open()?;
                    into.to = into.to.min(pane.from);
                    into.merge(&pane);
                    pane = into;
                }
                (pane.from, pane.to) = (from, from + span);
                coarser.insert(at, Sealed::of(&pane)?);
            }
        }
        self.levels[2].retain(|pane| pane.to > now.saturating_sub(limits[2]));
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), HistoryError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.rewrite(self.levels.iter().rev().flatten().map(|sealed| &*sealed.bytes))
    }
}
