//! Panes of the past, coarser the older they are, in memory and in a file.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    multivariate::RebuiltBy,
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

/// A pane that nothing is added to any more, packed.
struct Sealed {
    from: i64,
    to: i64,
    bytes: Vec<u8>,
}

/// The file of a history.
struct PaneFile {
    path: PathBuf,
    appending: File,
    /// Locked for as long as it is open.
    _lock: File,
    /// Where bytes went that could not be read.
    aside: Option<PathBuf>,
    /// Bytes that the last whole writing left, and bytes appended since.
    whole: u64,
    appended: u64,
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
const MAGIC: &[u8; 8] = b"MSPANE01";
/// Length and checksum of a record.
const HEAD: usize = 8;
/// A record of more bytes is none.
const MOST_BYTES: usize = 256 << 20;
/// The file is not written anew before so many bytes were appended.
const LEAST_APPENDED: u64 = 1 << 20;

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
        let failed = |doing, source| HistoryError::File { file: path.to_path_buf(), doing, source };
        std::fs::create_dir_all(folder(path))
            .map_err(|source| failed("its folder cannot be made", source))?;
        let lock = locked(path)?;
        let Contents { panes, length, bad } = match read(path) {
            Err(HistoryError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Contents::default()
            }
            contents => contents?,
        };
        for pane in panes {
            history.add(&pane)?;
        }
        let aside = (!bad.is_empty()).then(|| with(path, ".bad"));
        if let Some(aside) = &aside {
            let moved = File::create(aside)
                .and_then(|mut aside| aside.write_all(&bad).and_then(|()| aside.sync_all()));
            moved.map_err(|source| failed("what cannot be read of it cannot be moved aside", source))?;
        }
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let appending = opened.map_err(|source| failed("cannot be opened", source))?;
        let cut = || -> io::Result<()> {
            if length == 0 {
                appending.set_len(0)?;
                (&appending).write_all(MAGIC)?;
            } else {
                appending.set_len(length)?;
            }
            appending.sync_all()
        };
        cut().map_err(|source| failed("cannot be written", source))?;
        let whole = length.max(MAGIC.len() as u64);
        let path = path.to_path_buf();
        history.file = Some(PaneFile { path, appending, _lock: lock, aside, whole, appended: 0 });
        Ok(history)
    }

    /// Where bytes went that could not be read when the file was opened, if there were any: to a file beside it with `.bad` behind its
    /// name, in the place of those of an earlier time.
    pub fn set_aside(&self) -> Option<&Path> {
        self.file.as_ref()?.aside.as_deref()
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
        let path = file.path.clone();
        let failed = |source| HistoryError::File { file: path, doing: "cannot be written", source };
        let written = record(&bytes);
        if let Err(source) = file.appending.write_all(&written).and_then(|()| file.appending.sync_data()) {
            // Half a record would hide those that come behind it.
            let _ = file.appending.set_len(file.whole + file.appended);
            return Err(failed(source));
        }
        file.appended += written.len() as u64;
        if file.appended > file.whole.max(LEAST_APPENDED) {
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

    /// Writes the file anew, beside the old one, which it then replaces.
    fn rewrite(&mut self) -> Result<(), HistoryError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed =
            |source| HistoryError::File { file: file.path.clone(), doing: "cannot be written anew", source };
        let beside = with(&file.path, ".tmp");
        let levels = &self.levels;
        let write = || -> io::Result<(File, u64)> {
            let opened = OpenOptions::new().create(true).append(true).open(&beside)?;
            opened.set_len(0)?;
            let mut new = io::BufWriter::new(opened);
            let mut length = MAGIC.len();
            new.write_all(MAGIC)?;
            for sealed in levels.iter().rev().flatten() {
                let written = record(&sealed.bytes);
                length += written.len();
                new.write_all(&written)?;
            }
            let new = new.into_inner().map_err(io::IntoInnerError::into_error)?;
            new.sync_all()?;
            std::fs::rename(&beside, &file.path)?;
            Ok((new, length as u64))
        };
        let (appending, whole) = write().map_err(failed)?;
        // From here on the old file has no name: whatever else fails, panes go to the new one.
        (file.appending, file.whole, file.appended) = (appending, whole, 0);
        File::open(folder(&file.path)).and_then(|folder| folder.sync_all()).map_err(|source| {
            HistoryError::File { file: file.path.clone(), doing: "its folder cannot be written", source }
        })
    }
}

impl Sealed {
    fn of(pane: &Pane) -> Result<Self, HistoryError> {
        let packed = packed(pane)?;
        let bytes = zstd::bulk::compress(&packed, 1).map_err(|_| postcard::Error::SerializeBufferFull)?;
        Ok(Self { from: pane.from, to: pane.to, bytes })
    }

    fn open(&self) -> Result<Pane, HistoryError> {
        unpack(&self.bytes)
    }
}

/// A pane, and behind it what of its edges was rebuilt, if anything was: a pane without is as it always was.
fn packed(pane: &Pane) -> Result<Vec<u8>, HistoryError> {
    let packed = postcard::to_stdvec(pane)?;
    let edges = pane.edges.iter().filter(|(_, edge)| !edge.rebuilt.is_empty());
    let rebuilt: BTreeMap<&String, &RebuiltBy> = edges.map(|(name, edge)| (name, &edge.rebuilt)).collect();
    match rebuilt.is_empty() {
        true => Ok(packed),
        false => Ok(postcard::to_extend(&rebuilt, packed)?),
    }
}

fn unpack(bytes: &[u8]) -> Result<Pane, HistoryError> {
    let broken = |_| postcard::Error::DeserializeUnexpectedEnd;
    let mut packed = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(broken)?;
    decoder.take(MOST_BYTES as u64).read_to_end(&mut packed).map_err(broken)?;
    let (mut pane, behind) = postcard::take_from_bytes::<Pane>(&packed)?;
    if !behind.is_empty() {
        let rebuilt: BTreeMap<String, RebuiltBy> = postcard::from_bytes(behind)?;
        for (edge, rebuilt) in rebuilt {
            pane.edges.entry(edge).or_default().rebuilt = rebuilt;
        }
    }
    Ok(pane)
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + bytes.len());
    record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    record.extend_from_slice(bytes);
    record
}

/// What a file has.
#[derive(Default)]
struct Contents {
    panes: Vec<Pane>,
    /// How many of its bytes are good.
    length: u64,
    /// Those behind, unless they are what a crash leaves.
    bad: Vec<u8>,
}

/// Reads a file as far as its records are good.
///
/// # Errors
/// When it cannot be read or is of something else.
fn read(path: &Path) -> Result<Contents, HistoryError> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|source| HistoryError::File {
        file: path.to_path_buf(),
        doing: "cannot be read",
        source,
    })?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        // A crash may have cut even that short.
        return match MAGIC.starts_with(&bytes) {
            true => Ok(Contents::default()),
            false => Err(HistoryError::Foreign { file: path.to_path_buf() }),
        };
    };
    let mut contents = Contents::default();
    while let Some((record, checksum, behind)) = next_record(rest) {
        let good = (crc32c::crc32c(record) == checksum).then(|| unpack(record).ok()).flatten();
        let Some(pane) = good else {
            contents.bad = rest.to_vec();
            break;
        };
        contents.panes.push(pane);
        rest = behind;
    }
    contents.length = (bytes.len() - rest.len()) as u64;
    Ok(contents)
}

/// A record of its full length, what its checksum should be, and what stands behind it.
fn next_record(bytes: &[u8]) -> Option<(&[u8], u32, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MOST_BYTES)?;
    let (record, behind) = rest.split_at_checked(length)?;
    Some((record, u32::from_le_bytes(*checksum), behind))
}

/// The panes of a file, of this replica or of another, in the order in which they were written; those of a server that runs can be read,
/// too. What cannot be read at its end is left out.
///
/// # Errors
/// When the file is not there, cannot be read or is of something else.
pub fn read_panes(path: &Path) -> Result<Vec<Pane>, HistoryError> {
    Ok(read(path)?.panes)
}

/// The lock on a file, which is of a file beside it: the file itself is replaced now and then, and some systems let nobody read what
/// is locked.
fn locked(path: &Path) -> Result<File, HistoryError> {
    let failed = |source| HistoryError::File { file: path.to_path_buf(), doing: "cannot be locked", source };
    let lock = OpenOptions::new().create(true).append(true).open(with(path, ".lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(HistoryError::Taken { file: path.to_path_buf() }),
        // There are file systems without locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(lock),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with this behind its name.
fn with(path: &Path, end: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(end);
    path.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        pane::EdgePane,
        sketch::{Labels, Numbers, Sketch},
    };

    const MINUTE: i64 = 60 * MICROS;

    fn pane(minute: i64, values: &[f64]) -> Pane {
        let mut numbers = Numbers::new(&[0.5]);
        values.iter().for_each(|value| numbers.add(&[0.5], *value));
        let columns = [("amount".to_owned(), Sketch::Numbers(numbers))].into_iter().collect();
        let edge = EdgePane { rows: values.len() as u64, columns, ..EdgePane::default() };
        let mut pane = Pane { from: minute * MINUTE, to: (minute + 1) * MINUTE, ..Pane::default() };
        pane.edges.insert("score".to_owned(), edge);
        pane.requests.outcomes.insert("ok".to_owned(), values.len() as u64);
        pane
    }

    fn values(minute: i64) -> Vec<f64> {
        (0..5).map(|i| ((minute * 7 + i) % 11) as f64 * 0.1).collect()
    }

    fn filled(history: &mut History, minutes: std::ops::Range<i64>) -> Pane {
        let mut whole = Pane::default();
        for minute in minutes {
            let pane = pane(minute, &values(minute));
            history.push(&pane).unwrap();
            whole.merge(&pane);
        }
        whole
    }

    #[test]
    fn old_panes_become_coarser_and_count_the_same() {
        let mut history = History::in_memory(Keep::default());
        let mut whole = filled(&mut history, 0..60 * 24 * 9);
        let levels: Vec<usize> = history.levels.iter().map(VecDeque::len).collect();
        assert_eq!(levels, [60, 24 * 7 - 1, 2]);
        let kept = history.over(i64::MIN, i64::MAX).unwrap();
        (whole.from, whole.to) = (kept.from, kept.to);
        assert_eq!(kept, whole);
        let last = history.over((60 * 24 * 9 - 10) * MINUTE, i64::MAX).unwrap();
        assert_eq!(last.answered(), 50);
    }

    #[test]
    fn what_was_pushed_is_there_again_and_the_file_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/fraud.panes");
        let mut history = History::open(&path, Keep::default()).unwrap();
        let whole = filled(&mut history, 0..300);
        history.rewrite().unwrap();
        let short = std::fs::metadata(&path).unwrap().len();
        filled(&mut history, 300..301);
        drop(history);
        let again = History::open(&path, Keep::default()).unwrap();
        assert_eq!(again.over(0, i64::MAX).unwrap().answered(), whole.answered() + 5);
        assert!(short < 64 * 800, "{short}");
    }

    #[test]
    fn a_torn_end_is_cut_off_and_a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fraud.panes");
        filled(&mut History::open(&path, Keep::default()).unwrap(), 0..3);
        let good = std::fs::read(&path).unwrap();
        let mut ends = Vec::new();
        for cut in 0..=good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            let mut history = History::open(&path, Keep::default()).unwrap();
            let there = history.over(0, i64::MAX).unwrap().answered() / 5;
            ends.push(there);
            history.push(&pane(9, &[1.0])).unwrap();
            drop(history);
            let again = History::open(&path, Keep::default()).unwrap();
            assert_eq!(again.over(0, i64::MAX).unwrap().answered(), there * 5 + 1, "cut at {cut}");
        }
        assert!(ends.is_sorted() && ends.first() == Some(&0) && ends.last() == Some(&3));
        std::fs::write(&path, "something else").unwrap();
        assert!(matches!(History::open(&path, Keep::default()), Err(HistoryError::Foreign { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        assert!(!folder.path().join("fraud.panes.bad").exists());
    }

    #[test]
    fn what_stands_behind_a_record_that_has_changed_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fraud.panes");
        let ends: Vec<usize> = (0..3)
            .map(|minute| {
                filled(&mut History::open(&path, Keep::default()).unwrap(), minute..minute + 1);
                std::fs::metadata(&path).unwrap().len() as usize
            })
            .collect();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[ends[0] + HEAD + 3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut history = History::open(&path, Keep::default()).unwrap();
        let aside = history.set_aside().unwrap().to_path_buf();
        assert_eq!(
            (aside.file_name().unwrap().to_str(), history.over(0, i64::MAX).unwrap().answered()),
            (Some("fraud.panes.bad"), 5)
        );
        assert_eq!(std::fs::read(aside).unwrap(), bytes[ends[0]..]);
        history.push(&pane(5, &[1.0])).unwrap();
        drop(history);
        let again = History::open(&path, Keep::default()).unwrap();
        assert_eq!((again.over(0, i64::MAX).unwrap().answered(), again.set_aside()), (6, None));
    }

    #[test]
    fn a_history_that_is_open_is_opened_by_nobody_else_and_read_by_anybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fraud.panes");
        let mut history = History::open(&path, Keep::default()).unwrap();
        filled(&mut history, 0..2);
        for _ in 0..2 {
            let error = History::open(&path, Keep::default()).err().unwrap();
            assert!(matches!(error, HistoryError::Taken { .. }), "{error}");
            assert!(error.to_string().ends_with("give each server its own folder"), "{error}");
            assert_eq!(read_panes(&path).unwrap().len(), 2);
            history.rewrite().unwrap();
        }
        filled(&mut history, 2..3);
        drop(history);
        assert_eq!(History::open(&path, Keep::default()).unwrap().over(0, i64::MAX).unwrap().answered(), 15);
    }

    #[test]
    fn panes_of_a_file_that_is_not_there_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let Err(HistoryError::File { source, .. }) = read_panes(&folder.path().join("gone.panes")) else {
            panic!("a file")
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_path_without_a_folder_lies_in_the_working_folder() {
        assert_eq!(folder(Path::new("fraud.panes")), Path::new("."));
        assert_eq!(folder(Path::new("counts/fraud.panes")), Path::new("counts"));
        assert_eq!(with(Path::new("counts/fraud.v2.panes"), ".bad"), Path::new("counts/fraud.v2.panes.bad"));
    }

    #[test]
    fn panes_of_turns_that_come_early_or_late_are_in_the_window_that_has_most_of_them() {
        let mut history = History::in_memory(Keep::default());
        let mut from = 0;
        for minute in 1..=20 {
            // Up to 3 seconds late.
            let to = minute * MINUTE + minute % 4 * MICROS;
            history.push(&Pane { from, to, ..pane(0, &[1.0]) }).unwrap();
            from = to;
        }
        for now in 10..=20 {
            let now = now * MINUTE + now % 4 * MICROS;
            assert_eq!(history.over(now - 5 * MINUTE, now).unwrap().answered(), 5, "{now}");
        }
    }

    #[test]
    fn a_column_that_changes_its_kind_is_of_the_later_kind_when_panes_have_aged() {
        let named = |minute: i64| {
            let mut pane = pane(minute, &[1.0]);
            let column = Sketch::Labels(Labels::new([]));
            pane.edges.get_mut("score").unwrap().columns.insert("amount".to_owned(), column);
            pane
        };
        for numbers_first in [true, false] {
            let mut history = History::in_memory(Keep { fine: Duration::ZERO, ..Keep::default() });
            for minute in 0..40 {
                let pane = if (minute < 20) == numbers_first { pane(minute, &[1.0]) } else { named(minute) };
                history.push(&pane).unwrap();
            }
            assert_eq!(history.levels[1].len(), 1);
            let kept = history.over(i64::MIN, i64::MAX).unwrap();
            let numbers = matches!(kept.edges["score"].columns["amount"], Sketch::Numbers(_));
            assert_eq!((numbers, kept.answered()), (!numbers_first, 40));
        }
    }

    #[test]
    fn panes_are_kept_as_long_as_was_said_last() {
        let mut history = History::in_memory(Keep::default());
        filled(&mut history, 0..30);
        let minute = Duration::from_secs(60);
        history.keep(Keep { fine: minute, hours: minute, days: minute });
        assert_eq!(history.levels[0].len(), 30);
        filled(&mut history, 30..31);
        assert_eq!(history.levels[0].len(), 1);
    }

    proptest! {
        #[test]
        fn any_changed_byte_costs_no_more_than_what_stands_behind_it(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fraud.panes");
            filled(&mut History::open(&path, Keep::default()).unwrap(), 0..3);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
            bytes[at] = to;
            std::fs::write(&path, &bytes).unwrap();
            let there = History::open(&path, Keep::default()).unwrap().over(0, i64::MAX).unwrap();
            prop_assert!(there.answered() <= 15 && there.answered().is_multiple_of(5));
        }
    }
}
