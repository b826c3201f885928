//! The folder of a log: files are published whole, replaced and removed, so that a crash at any moment leaves each row in the log
//! once.
//!
//! A file is written under a temporary name, brought to the disk, renamed, and then its folder is brought to the disk. Before the
//! rename there is nothing to be read; a temporary file that a crash leaves is removed when the folder is next opened. After the
//! rename the whole file is there.
//!
//! A file that replaces others carries their names (`millstream.replaces`), and readers skip what a file in the same folder
//! names. So its rename is one step from the old files to the new one: before it only the old ones count, after it only the new
//! one. The old ones are removed once the new one's folder is on the disk, so a loss of power cannot keep the removals and lose
//! the rename. Those that a crash leaves are named still, and are removed when the folder is next opened. The names cannot hit a
//! later file: within a folder a replacing file has a higher number than those it names, and numbers go on from the highest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::{
    encode,
    error::RecordError,
    files::{Files, Lock, file_name, parse_name, parse_temporary, temporary},
    hour,
};

/// The files of a graph's log, written by one replica.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) files: Files,
    replica: String,
    /// The number of the next file.
    next: u64,
    /// Folders with changes that may not be on the disk.
    unsynced: BTreeSet<PathBuf>,
    /// Files that others have replaced, by folder: they are removed once it is on the disk.
    replaced: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Ends with this object, and with the process.
    _lock: Lock,
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sequence: u64,
    /// Whether this replica wrote it.
    pub(super) own: bool,
}

/// The files by hour, oldest first in each.
pub(super) type Hours = BTreeMap<i64, Vec<Held>>;

pub(super) fn disk(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> RecordError + use<> {
    let path = path.to_owned();
    move |source| RecordError::Disk { path, doing, source }
}

impl Folder {
    /// Opens the folder, and makes it if need be. Removes what a crash left of this replica's.
    pub(super) fn open(root: &Path, replica: &str, files: Files) -> Result<Self, RecordError> {
        // Whoever says that rows are on the disk says so of the folders above them too.
        let parent = |folder: &Path| match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let missing =
            root.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let unsynced = std::iter::once(root).chain(missing).map(parent).collect();
        files.create_folder(root).map_err(disk(root, "cannot be made"))?;
        let path = root.join(format!(".{replica}.lock"));
        let lock = files.lock(&path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => {
                RecordError::InUse { path: path.clone(), replica: replica.to_owned() }
            }
            _ => disk(&path, "cannot be locked")(source),
        })?;
        let mut folder = Self {
            root: root.to_owned(),
            files,
            replica: replica.to_owned(),
            next: 0,
            unsynced,
            replaced: BTreeMap::new(),
            _lock: lock,
        };
        folder.clean()?;
        folder.settle()?;
        Ok(folder)
    }

    /// Removes temporary files, finds the replaced ones, and goes on with the numbers.
    fn clean(&mut self) -> Result<(), RecordError> {
        for hour in self.hours()? {
            let path = self.path(hour);
            for listed in self.list(&path)? {
                let left = parse_temporary(&listed.name).filter(|(replica, _)| *replica == self.replica);
                if let Some((_, sequence)) = left {
                    self.next = self.next.max(sequence.saturating_add(1));
                    let path = path.join(&listed.name);
                    self.files.remove(&path).map_err(disk(&path, "cannot be removed"))?;
                    continue;
                }
                let own = parse_name(&listed.name).filter(|(replica, _)| *replica == self.replica);
                let Some((_, sequence)) = own else { continue };
                self.next = self.next.max(sequence.saturating_add(1));
                // What a broken file replaces is not known. It is met again, and reported, when the hour is compacted.
                if let Ok(names) = self.open_file(&path.join(&listed.name)).map(|opened| opened.replaces) {
                    self.replaced.entry(path.clone()).or_default().extend(names);
                }
            }
        }
        // A rename that a crash of the machine could still undo is made to last before what it replaces goes.
        self.unsynced.extend(self.replaced.keys().cloned());
        Ok(())
    }

    /// The hours that have a folder.
    fn hours(&self) -> Result<Vec<i64>, RecordError> {
        Ok(self.list(&self.root)?.iter().filter_map(|listed| hour::parse(&listed.name)).collect())
    }

    /// The files of all replicas.
    pub(super) fn scan(&self) -> Result<Hours, RecordError> {
        let mut hours = Hours::new();
        for hour in self.hours()? {
            hours.insert(hour, self.scan_hour(hour)?);
        }
        Ok(hours)
    }

    fn scan_hour(&self, hour: i64) -> Result<Vec<Held>, RecordError> {
        let held = |listed: &super::files::Listed| {
            let (replica, sequence) = parse_name(&listed.name)?;
            let own = replica == self.replica;
            Some(Held { name: listed.name.clone(), bytes: listed.bytes, sequence, own })
        };
        let mut held: Vec<Held> = self.list(&self.path(hour))?.iter().filter_map(held).collect();
        // What a file replaces has lower numbers, so it goes first when an hour is removed.
        held.sort_by_key(|held| held.sequence);
        Ok(held)
    }

    fn list(&self, path: &Path) -> Result<Vec<super::files::Listed>, RecordError> {
        self.files.list(path).map_err(disk(path, "cannot be listed"))
    }

    pub(super) fn path(&self, hour: i64) -> PathBuf {
        self.root.join(hour::folder(hour))
    }

    /// Publishes a file. Once this has answered the rows are in the log, though a loss of power may still take them until
    /// [`Folder::settle`] has succeeded.
    pub(super) fn publish(&mut self, hour: i64, bytes: &[u8]) -> Result<String, RecordError> {
        let folder = self.path(hour);
        // Made anew each time: another replica may have removed it.
        self.files.create_folder(&folder).map_err(disk(&folder, "cannot be made"))?;
        self.unsynced.insert(self.root.clone());
        let name = file_name(&self.replica, self.next);
        self.next = self.next.saturating_add(1);
        let (from, to) = (temporary(&folder, &name), folder.join(&name));
        let published = self
            .files
            .write(&from, bytes)
            .map_err(disk(&from, "cannot be written"))
            .and_then(|()| self.files.rename(&from, &to).map_err(disk(&from, "cannot be renamed")));
        if let Err(error) = published {
            // On a full disk the half of a file is in the way. If this fails too, the next opening removes it.
            self.files.remove(&from).ok();
            return Err(error);
        }
        self.unsynced.insert(folder);
        Ok(name)
    }

    /// Says that a published file has replaced others.
    pub(super) fn replace(&mut self, hour: i64, names: impl IntoIterator<Item = String>) {
        let folder = self.path(hour);
        self.unsynced.insert(folder.clone());
        self.replaced.entry(folder).or_default().extend(names);
    }

    /// Brings what was published to the disk, and then removes what was replaced. What fails is tried again the next time.
    pub(super) fn settle(&mut self) -> Result<(), RecordError> {
        let mut first = Ok(());
        for folder in std::mem::take(&mut self.unsynced) {
            match self.files.sync_folder(&folder) {
                Ok(()) => {}
                // Another replica has removed the hour.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    first = first.and(Err(disk(&folder, "cannot be brought to the disk")(error)));
                    self.unsynced.insert(folder);
                }
            }
        }
        for (folder, names) in std::mem::take(&mut self.replaced) {
            let synced = !self.unsynced.contains(&folder);
            let remove = |name: &String| match self.files.remove(&folder.join(name)) {
                Ok(()) => None,
                Err(error) => Some(disk(&folder.join(name), "cannot be removed")(error)),
            };
            let mut left = BTreeSet::new();
            for name in names {
                let failed = if synced { remove(&name) } else { None };
                if failed.is_some() || !synced {
                    left.insert(name);
                }
                first = first.and(failed.map_or(Ok(()), Err));
            }
            if !left.is_empty() {
                self.replaced.insert(folder, left);
            }
        }
        first
    }

    /// Removes a file of an hour.
    pub(super) fn remove(&self, hour: i64, held: &Held) -> Result<(), RecordError> {
        let folder = self.path(hour);
        let path = folder.join(&held.name);
        self.files.remove(&path).map_err(disk(&path, "cannot be removed"))
    }

    /// Removes the folder of an hour without files. One in which another replica writes again stays.
    pub(super) fn remove_hour(&mut self, hour: i64) -> Result<(), RecordError> {
        let folder = self.path(hour);
        self.unsynced.remove(&folder);
        self.replaced.remove(&folder);
        match self.files.remove_folder(&folder) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(disk(&folder, "cannot be removed")(error))
            }
            _ => Ok(()),
        }
    }

    /// Opens a file with what it says of itself.
    pub(super) fn open_file(&self, path: &Path) -> Result<Opened, RecordError> {
        let file = self.files.open(path).map_err(disk(path, "cannot be opened"))?;
        let malformed = |source| RecordError::Malformed { path: path.to_owned(), source };
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(malformed)?;
        let replaces = encode::replaces(metadata.metadata()).map_err(malformed)?;
        Ok(Opened { path: path.to_owned(), file, metadata, replaces })
    }
}

/// A file that stays readable when it is removed.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) replaces: Vec<String>,
}
