//! The few things that are done to the disk, in one place, so that tests can plant a failure before each.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// One of those things.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "only tests look at what is asked, and not at all of it")]
pub(super) enum Op<'a> {
    CreateFolder(&'a Path),
    List(&'a Path),
    Lock(&'a Path),
    Open(&'a Path),
    Write(&'a Path, &'a [u8]),
    Sync(&'a Path),
    Rename(&'a Path, &'a Path),
    SyncFolder(&'a Path),
    Remove(&'a Path),
    RemoveFolder(&'a Path),
}

/// Asked before each thing; its error is the answer instead.
pub(super) type Before = Arc<dyn Fn(Op<'_>) -> io::Result<()> + Send + Sync>;

/// The disk.
#[derive(Clone, Default)]
pub(super) struct Files {
    before: Option<Before>,
}

/// A file or folder in a folder.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// A lock on a file.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that starts at this moment has it open too, until it runs its program.
        self.0.unlock().ok();
    }
}

impl Files {
    #[cfg(test)]
    pub(super) fn planted(before: Before) -> Self {
        Self { before: Some(before) }
    }

    pub(super) fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.ask(Op::CreateFolder(folder))?;
        fs::create_dir_all(folder)
    }

    /// What is in a folder: nothing, when there is none.
    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        self.ask(Op::List(folder))?;
        list(folder)
    }

    /// A lock that ends when it is dropped, and with the process.
    pub(super) fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.ask(Op::Lock(path))?;
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        })?;
        Ok(Lock(file))
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.ask(Op::Open(path))?;
        File::open(path)
    }

    /// Writes a file that nobody reads yet, up to the disk.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.ask(Op::Write(path, bytes))?;
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        self.ask(Op::Sync(path))?;
        file.sync_all()
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Op::Rename(from, to))?;
        fs::rename(from, to)
    }

    /// Makes last what was renamed into a folder, and the folders that were made in it.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.ask(Op::SyncFolder(folder))?;
        File::open(folder)?.sync_all()
    }

    /// Removes a file, unless it is gone already.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Op::Remove(path))?;
        unless_gone(fs::remove_file(path))
    }

    /// Removes a folder that is empty.
    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.ask(Op::RemoveFolder(path))?;
        unless_gone(fs::remove_dir(path))
    }

    fn ask(&self, op: Op<'_>) -> io::Result<()> {
        self.before.as_ref().map_or(Ok(()), |before| before(op))
    }
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is in a folder, in the order of names: nothing, when there is none. What goes while it is listed is left out.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let bytes = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?.len(),
        };
        // A name that is no text is not one of ours.
        if let Ok(name) = entry.file_name().into_string() {
            listed.push(Listed { name, bytes });
        }
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// The name of a replica's file.
pub(super) fn file_name(replica: &str, sequence: u64) -> String {
    format!("{replica}-{sequence:010}.parquet")
}

/// The replica and the number in a file's name; none for files that are not of a log, and for those that are being written.
pub(super) fn parse_name(name: &str) -> Option<(&str, u64)> {
    let (replica, sequence) = name.strip_suffix(".parquet")?.rsplit_once('-')?;
    let digits = sequence.len() >= 10 && sequence.bytes().all(|byte| byte.is_ascii_digit());
    let own = !replica.is_empty() && !replica.starts_with('.');
    Some((replica, sequence.parse().ok()?)).filter(|_| digits && own)
}

/// Where a file stands while it is written.
pub(super) fn temporary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.tmp"))
}

/// The replica of a file that was being written.
pub(super) fn parse_temporary(name: &str) -> Option<(&str, u64)> {
    parse_name(name.strip_prefix('.')?.strip_suffix(".tmp")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not_taken_for_them() {
        for (replica, sequence) in [("0", 0), ("pod-7.west", 12), ("a", u64::MAX)] {
            let name = file_name(replica, sequence);
            assert_eq!(parse_name(&name), Some((replica, sequence)));
            assert_eq!(parse_name(&format!(".{name}.tmp")), None);
            assert_eq!(parse_temporary(&format!(".{name}.tmp")), Some((replica, sequence)));
            assert_eq!(parse_temporary(&name), None);
        }
        for name in [
            "a.parquet",
            "a-1.parquet",
            "-0000000001.parquet",
            ".a-0000000001.parquet",
            "a-+000000001.parquet",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
