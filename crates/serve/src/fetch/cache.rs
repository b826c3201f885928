//! The folder in which files that were fetched are kept, for all processes that use it.
//!
//! A file lies under its SHA-256, alone in a folder, so that nothing in it can point to another. What is fetched is written under a
//! name of its own and renamed when it is whole. Whoever uses a file holds a shared lock on it, and only files that nobody holds
//! make room for others; the folder's own lock is held for as long as names are changed, and never while anything is fetched.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ::http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::order::is_digest;
use crate::units::Size;

/// Names another folder than the project does: where models are kept is up to the machine.
const FOLDER: &str = "MILLSTREAM_MODEL_CACHE";
/// The name of a file in its folder.
const FILE: &str = "model.onnx";
/// What the names of files begin with that are being written.
const PART: &str = ".part-";
const LOCK: &str = ".lock";
/// The most bytes of what is known of a URL, and of one mark.
const KNOWN_BYTES: u64 = 16 << 10;
const MARK_BYTES: usize = 1 << 10;
/// The most URLs that are known: one that is signed is another each time.
const KNOWN: usize = 256;

/// Where models that have a URL are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CacheSpec {
    /// The folder, relative to the project's and inside it. The variable `MILLSTREAM_MODEL_CACHE` of the environment names another one,
    /// which projects may share.
    path: String,
    /// The most bytes of files in it. Those that were used the longest time ago go; those in use stay.
    max_bytes: Size,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self { path: ".millstream/models".to_owned(), max_bytes: Size(10 << 30) }
    }
}

/// The folder.
pub(super) struct Cache {
    folder: PathBuf,
    most: u64,
}

/// A file of the cache, which stays there for as long as this is held.
pub(super) struct Held {
    path: PathBuf,
    sha256: String,
    /// Locked, for sharing.
    _file: File,
}

/// What is known of a URL.
#[derive(Serialize, Deserialize)]
pub(super) struct Known {
    /// The file that came from there.
    pub(super) sha256: String,
    pub(super) marks: Marks,
}

/// By what a server knows a version of a file.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Marks {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// The digest of the place that told them: another may tell the same of another file.
    #[serde(default)]
    pub(super) at: String,
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// A mark as a header has it, if it is one that can be kept.
pub(super) fn mark(value: &HeaderValue) -> Option<String> {
    value.to_str().ok().filter(|text| text.len() <= MARK_BYTES).map(str::to_owned)
}

impl Held {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Cache {
    /// The cache of a project in the folder `root`.
    pub(super) fn open(root: &Path, spec: &CacheSpec) -> io::Result<Self> {
        let folder = match std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => millstream_featurestore::inside(root, &spec.path).map_err(io::Error::other)?,
        };
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            // Nobody wants it in the project's repository.
            fs::write(folder.join(".gitignore"), "*\n")?;
        }
        Ok(Self { folder: folder.canonicalize()?, most: spec.max_bytes.0 as u64 })
    }

    /// The file with this digest, if it is there and whole.
    pub(super) fn take(&self, sha256: &str) -> io::Result<Option<Held>> {
        let lock = self.lock()?;
        let Some(file) = self.opened(sha256)? else { return Ok(None) };
        drop(lock);
        self.whole(sha256, file)
    }

    /// The file that has the name of this digest, for sharing. The folder is locked.
    fn opened(&self, sha256: &str) -> io::Result<Option<File>> {
        let path = self.folder.join(sha256).join(FILE);
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        let file = File::open(&path)?;
        // Nobody holds it for themselves for longer than the folder's lock.
        file.lock_shared()?;
        Ok(Some(file))
    }

    /// The file, if it has this digest: disks forget, and others may write here. What takes its place is renamed over it.
    fn whole(&self, sha256: &str, mut file: File) -> io::Result<Option<Held>> {
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
        if hex(&digest.finalize()) != sha256 {
            return Ok(None);
        }
        // Only for who goes first.
        let _ = file.set_modified(SystemTime::now());
        let path = self.folder.join(sha256).join(FILE);
        Ok(Some(Held { path, sha256: sha256.to_owned(), _file: file }))
    }

    /// What is known of a URL; nothing if that cannot be read.
    pub(super) fn known(&self, key: &str) -> Option<Known> {
        let mut text = String::new();
        File::open(self.known_at(key)).ok()?.take(KNOWN_BYTES).read_to_string(&mut text).ok()?;
        let known: Known = serde_json::from_str(&text).ok()?;
        is_digest(&known.sha256).then_some(known)
    }

    pub(super) fn remember(&self, key: &str, known: &Known) -> io::Result<()> {
        let mut part = self.part()?;
        part.write(&serde_json::to_vec(known)?)?;
        part.file.sync_all()?;
        let _lock = self.lock()?;
        part.rename(&self.known_at(key))?;
        self.make_room()
    }

    /// A file that is to be written.
    pub(super) fn part(&self) -> io::Result<Part> {
        let _lock = self.lock()?;
        let path = self.folder.join(format!("{PART}{:016x}", fastrand::u64(..)));
        let file = File::options().write(true).create_new(true).open(&path)?;
        file.lock()?;
        Ok(Part { file, path, digest: Sha256::new(), bytes: 0, renamed: false })
    }

    /// Keeps a file that is whole under its digest.
    pub(super) fn keep(&self, part: Part, sha256: &str) -> io::Result<Held> {
        // Those who hold the same file already go on holding the one that is there.
        match self.take(sha256)? {
            Some(held) => Ok(held),
            None => self.put(part, sha256),
        }
    }

    fn put(&self, mut part: Part, sha256: &str) -> io::Result<Held> {
        part.file.sync_all()?;
        let folder = self.folder.join(sha256);
        let path = folder.join(FILE);
        let _lock = self.lock()?;
        // Somebody else may have been faster, and hold what would be replaced.
        if let Some(file) = self.opened(sha256)?
            && let Some(held) = self.whole(sha256, file)?
        {
            return Ok(held);
        }
        fs::create_dir_all(&folder)?;
        part.rename(&path)?;
        sync(&folder);
        sync(&self.folder);
        let file = File::open(&path)?;
        // One's own lock would be waited for like that of any other.
        part.file.unlock()?;
        file.lock_shared()?;
        if let Err(error) = self.make_room() {
            tracing::warn!(folder = %self.folder.display(), %error, "files of the cache of models cannot be removed");
        }
        Ok(Held { path, sha256: sha256.to_owned(), _file: file })
    }

    fn known_at(&self, key: &str) -> PathBuf {
        self.folder.join(key).with_extension("json")
    }

    /// Names in the folder stay as they are while this is there, but for one's own doing.
    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join(LOCK);
        let file = match File::options().create(true).append(true).open(&path) {
            // Where nothing can be written, what is there can be used.
            Err(error)
                if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
            {
                File::open(&path).map_err(|_| error)
            }
            opened => opened,
        }?;
        file.lock()?;
        Ok(file)
    }

    /// Removes what is too much, and what others have left behind. The folder is locked.
    fn make_room(&self) -> io::Result<()> {
        let (mut files, mut known) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(PART) {
                remove(&path);
            } else if is_digest(name)
                && let Ok(found) = path.join(FILE).symlink_metadata()
            {
                files.push((found.modified().ok(), found.len(), path));
            } else if name.strip_suffix(".json").is_some_and(is_digest) {
                let modified = entry.metadata().and_then(|found| found.modified()).ok();
                known.push((modified, name.trim_end_matches(".json").to_owned(), path));
            }
        }
        let mut all = files.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        files.sort();
        for (_, bytes, folder) in files {
            if all > self.most && remove(&folder.join(FILE)) {
                let _ = fs::remove_dir(&folder);
                all -= bytes;
            }
        }
        known.sort();
        for (newer, (_, key, path)) in known.into_iter().rev().enumerate() {
            // One that cannot be read is of no use either.
            let is_there =
                self.known(&key).is_some_and(|known| self.folder.join(known.sha256).join(FILE).is_file());
            if !is_there || newer >= KNOWN {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

/// A file that is being written, which is gone when it is dropped before it has another name.
pub(super) struct Part {
    /// Locked, so that others see that it is still written.
    file: File,
    path: PathBuf,
    digest: Sha256,
    bytes: u64,
    renamed: bool,
}

impl Part {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of what was written.
    pub(super) fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    fn rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a file unless somebody holds it; whether it has gone.
fn remove(path: &Path) -> bool {
    // Opening a pipe would wait for whoever writes to it.
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
    let free = is_file && File::open(path).is_ok_and(|file| file.try_lock().is_ok());
    free && fs::remove_file(path).is_ok()
}

/// Has the names in a folder written down; where that cannot be asked for, they are in time.
fn sync(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path, most: usize) -> Cache {
        Cache::open(folder, &CacheSpec { max_bytes: Size(most), ..CacheSpec::default() }).unwrap()
    }

    fn put(cache: &Cache, bytes: &[u8]) -> Held {
        let mut part = cache.part().unwrap();
        part.write(bytes).unwrap();
        let sha256 = part.sha256();
        cache.keep(part, &sha256).unwrap()
    }

    /// What is in the folder, but for the files that are always there.
    fn names(cache: &Cache) -> Vec<String> {
        let names = fs::read_dir(&cache.folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| ![LOCK, ".gitignore"].contains(&name.as_str()));
        names.sort();
        names
    }

    #[test]
    fn what_was_used_the_longest_time_ago_makes_room_and_what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 8);
        let old = |held: &Held, seconds: u64| {
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            File::open(&held.path).unwrap().set_modified(at).unwrap();
        };
        let (a, b) = (put(&cache, b"aaaa"), put(&cache, b"bbbb"));
        old(&a, 1);
        old(&b, 2);
        let (first, second) = (a.sha256.clone(), b.sha256.clone());
        // Two processes that share the folder are two of these.
        let other = self::cache(folder.path(), 8);
        let held = other.take(&first).unwrap().unwrap();
        drop((a, b));
        let c = put(&cache, b"cccc");
        assert!(cache.take(&first).unwrap().is_some(), "it is held elsewhere");
        assert!(cache.take(&second).unwrap().is_none());
        drop(held);
        old(&c, 3);
        drop(c);
        let d = put(&cache, b"dddd");
        assert_eq!(names(&cache).len(), 2);
        assert!(cache.take(&first).unwrap().is_some() && cache.take(&d.sha256).unwrap().is_some());
    }

    #[test]
    fn what_is_not_whole_is_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 1 << 10);
        let mut part = cache.part().unwrap();
        part.write(b"half").unwrap();
        assert_eq!(names(&cache).len(), 1);
        drop(part);
        assert_eq!(names(&cache), [""; 0]);
        // A process that was killed leaves what it wrote, which goes with the next file.
        fs::write(cache.folder.join(".part-0"), "left").unwrap();
        let held = put(&cache, b"whole");
        assert_eq!(names(&cache), [held.sha256.as_str()]);
        // A disk that forgets.
        fs::write(&held.path, "whale").unwrap();
        assert!(cache.take(&held.sha256).unwrap().is_none());
        let again = put(&cache, b"whole");
        assert_eq!((fs::read(&again.path).unwrap(), &again.sha256), (b"whole".to_vec(), &held.sha256));
    }

    #[test]
    fn who_is_second_with_a_file_takes_that_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (cache(folder.path(), 4), cache(folder.path(), 4));
        // Both have found that it is not there.
        let mut parts = [one.part().unwrap(), other.part().unwrap()];
        parts.iter_mut().for_each(|part| part.write(b"aaaa").unwrap());
        let sha256 = parts[0].sha256();
        let [first, second] = parts;
        let held = one.put(first, &sha256).unwrap();
        drop(other.put(second, &sha256).unwrap());
        drop(put(&other, b"bbbb"));
        assert_eq!(fs::read(&held.path).unwrap(), b"aaaa", "the first still holds it");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_there_is_used_where_nothing_can_be_written() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 4);
        let sha256 = put(&cache, b"aaaa").sha256.clone();
        let lock = cache.folder.join(LOCK);
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(cache.take(&sha256).unwrap().is_some());
    }

    #[test]
    fn what_is_known_of_a_url_goes_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 4);
        let held = put(&cache, b"aaaa");
        let marks = Marks { etag: Some("\"1\"".into()), ..Marks::default() };
        let key = hex(&Sha256::digest("https://h/m"));
        cache.remember(&key, &Known { sha256: held.sha256.clone(), marks }).unwrap();
        assert_eq!(cache.known(&key).unwrap().marks.etag.as_deref(), Some("\"1\""));
        let text = fs::read(cache.known_at(&key)).unwrap();
        for signature in 0..KNOWN {
            let signed = hex(&Sha256::digest(signature.to_le_bytes()));
            fs::write(cache.known_at(&signed), &text).unwrap();
        }
        let marks = cache.known(&key).unwrap().marks;
        cache.remember(&key, &Known { sha256: held.sha256.clone(), marks }).unwrap();
        assert_eq!(names(&cache).len(), 1 + KNOWN);
        assert!(cache.known(&key).is_some(), "the newest stay");
        drop(held);
        drop(put(&cache, b"bbbb"));
        assert!(cache.known(&key).is_none());
        fs::write(cache.known_at(&key), r#"{"sha256":"../../etc","marks":{}}"#).unwrap();
        assert!(cache.known(&key).is_none(), "it is no digest");
    }

    #[test]
    fn the_folder_stays_inside_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let spec: CacheSpec = serde_json::from_str(r#"{"path": "../models"}"#).unwrap();
        assert!(
            Cache::open(folder.path(), &spec)
                .err()
                .unwrap()
                .to_string()
                .contains("leaves the project's folder")
        );
    }
}
