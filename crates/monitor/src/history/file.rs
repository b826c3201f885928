//! The file of a history: records of packed panes, one after another.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{HistoryError, sealed::unpack};
use crate::pane::Pane;

/// The panes of a file, of this replica or of another, in the order in which they were written; those of a server that runs can be read,
/// too. What cannot be read at its end is left out.
///
/// # Errors
/// When the file is not there, cannot be read or is of something else.
pub fn read_panes(path: &Path) -> Result<Vec<Pane>, HistoryError> {
    Ok(read(path)?.panes)
}

/// The file of a history.
pub(super) struct PaneFile {
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

pub(super) const MAGIC: &[u8; 8] = b"MSPANE01";
/// Length and checksum of a record.
pub(super) const HEAD: usize = 8;
/// A record of more bytes is none.
pub(super) const MOST_BYTES: usize = 256 << 20;
/// The file is not written anew before so many bytes were appended.
const LEAST_APPENDED: u64 = 1 << 20;

impl PaneFile {
    /// Opens a file for whoever alone may write to it, with the panes that it has.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Pane>), HistoryError> {
        std::fs::create_dir_all(folder(path)).map_err(failed(path, "its folder cannot be made"))?;
        let lock = locked(path)?;
        let Contents { panes, length, bad } = match read(path) {
            Err(HistoryError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Contents::default()
            }
            contents => contents?,
        };
        let aside = (!bad.is_empty()).then(|| with(path, ".bad"));
        if let Some(aside) = &aside {
            let moved = File::create(aside)
                .and_then(|mut aside| aside.write_all(&bad).and_then(|()| aside.sync_all()));
            moved.map_err(failed(path, "what cannot be read of it cannot be moved aside"))?;
        }
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let appending = opened.map_err(failed(path, "cannot be opened"))?;
        let cut = || -> io::Result<()> {
            if length == 0 {
                appending.set_len(0)?;
                (&appending).write_all(MAGIC)?;
            } else {
                appending.set_len(length)?;
            }
            appending.sync_all()
        };
        cut().map_err(failed(path, "cannot be written"))?;
        let whole = length.max(MAGIC.len() as u64);
        let path = path.to_path_buf();
        Ok((Self { path, appending, _lock: lock, aside, whole, appended: 0 }, panes))
    }

    /// Where bytes went that could not be read.
    pub(super) fn aside(&self) -> Option<&Path> {
        self.aside.as_deref()
    }

    /// Writes a packed pane behind the others.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), HistoryError> {
        let written = record(bytes);
        let appended = self.appending.write_all(&written).and_then(|()| self.appending.sync_data());
        if let Err(source) = appended {
            // Half a record would hide those that come behind it.
            let _ = self.appending.set_len(self.whole + self.appended);
            return Err(failed(&self.path, "cannot be written")(source));
        }
        self.appended += written.len() as u64;
        Ok(())
    }

    /// Whether so much was appended that the file is worth writing anew.
    pub(super) fn is_long(&self) -> bool {
        self.appended > self.whole.max(LEAST_APPENDED)
    }

    /// Writes the file anew with these packed panes, beside the old one, which it then replaces.
    pub(super) fn rewrite<'s>(&mut self, panes: impl Iterator<Item = &'s [u8]>) -> Result<(), HistoryError> {
        let beside = with(&self.path, ".tmp");
        let write = || -> io::Result<(File, u64)> {
            let opened = OpenOptions::new().create(true).append(true).open(&beside)?;
            opened.set_len(0)?;
            let mut new = io::BufWriter::new(opened);
            let mut length = MAGIC.len();
            new.write_all(MAGIC)?;
            for bytes in panes {
                let written = record(bytes);
                length += written.len();
                new.write_all(&written)?;
            }
            let new = new.into_inner().map_err(io::IntoInnerError::into_error)?;
            new.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            Ok((new, length as u64))
        };
        let (appending, whole) = write().map_err(failed(&self.path, "cannot be written anew"))?;
        // From here on the old file has no name: whatever else fails, panes go to the new one.
        (self.appending, self.whole, self.appended) = (appending, whole, 0);
        let synced = File::open(folder(&self.path)).and_then(|folder| folder.sync_all());
        synced.map_err(failed(&self.path, "its folder cannot be written"))
    }
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
    let bytes = std::fs::read(path).map_err(failed(path, "cannot be read"))?;
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

/// The lock on a file, which is of a file beside it: the file itself is replaced now and then, and some systems let nobody read what
/// is locked.
fn locked(path: &Path) -> Result<File, HistoryError> {
    let failed = failed(path, "cannot be locked");
    let lock = OpenOptions::new().create(true).append(true).open(with(path, ".lock")).map_err(&failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(HistoryError::Taken { file: path.to_path_buf() }),
        // There are file systems without locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(lock),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// An error of a file, which says what could not be done.
fn failed(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> HistoryError {
    move |source| HistoryError::File { file: path.to_path_buf(), doing, source }
}

pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with this behind its name.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(end);
    path.into()
}
