//! The folder of a set, as far as its store needs one. A seam: tests put a folder that fails in its place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// Files by name.
pub(crate) trait Files: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file from its start, and its length in bytes.
    fn read(&self, name: &str) -> io::Result<(Box<dyn Read>, u64)>;

    /// The same from byte `at` on; the length is that of the whole file.
    #[cfg(feature = "offline")]
    fn read_from(&self, name: &str, at: u64) -> io::Result<(Box<dyn Read>, u64)> {
        let (mut file, len) = self.read(name)?;
        io::copy(&mut (&mut file).take(at), &mut io::sink())?;
        Ok((file, len))
    }

    /// A new, empty file; one of that name is replaced.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>>;

    /// A file that is there, cut to its first `len` bytes, to go on behind them.
    fn extend(&self, name: &str, len: u64) -> io::Result<Box<dyn Appender>>;

    /// Gives a file another name, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes safe which files there are.
    fn sync(&self) -> io::Result<()>;

    /// The place of a file, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file that grows.
pub(crate) trait Appender: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes safe what has been appended.
    fn sync(&mut self) -> io::Result<()>;

    fn cut(&mut self, len: u64) -> io::Result<()>;
}

/// A folder that is locked for as long as it is open: its files have one writer.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    lock: File,
}

const LOCK: &str = "lock";

impl Folder {
    /// Opens a folder, and makes it if it is not there. `None` when another process has it.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), lock })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// By itself, closing a file leaves it locked while a process that is just being started has inherited it.
impl Drop for Folder {
    fn drop(&mut self) {
        // If it cannot be unlocked, closing it will.
        let _ = self.lock.unlock();
    }
}

impl Files for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn read(&self, name: &str) -> io::Result<(Box<dyn Read>, u64)> {
        let file = File::open(self.path(name))?;
        let len = file.metadata()?.len();
        Ok((Box::new(BufReader::with_capacity(1 << 18, file)), len))
    }

    #[cfg(feature = "offline")]
    fn read_from(&self, name: &str, at: u64) -> io::Result<(Box<dyn Read>, u64)> {
        let mut file = File::open(self.path(name))?;
        let len = file.metadata()?.len();
        io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
        Ok((Box::new(BufReader::with_capacity(1 << 18, file)), len))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        Ok(Box::new(File::create(self.path(name))?))
    }

    fn extend(&self, name: &str, len: u64) -> io::Result<Box<dyn Appender>> {
        let file = OpenOptions::new().append(true).open(self.path(name))?;
        file.set_len(len)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Appender for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}
