//! The files that a project is made of, and the version that their content is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use millstream_featurestore::load::{DELTA_LOG, is_many, is_url};
use millstream_graph::spec::Document;
use sha2::{Digest, Sha256};

use super::ProjectKeys;
use crate::fetch::AllFetched;

/// Hexadecimal digits of a version: 64 bits of the digest.
const VERSION_BYTES: usize = 8;

/// The files of one project.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
    /// Relative to the root.
    names: BTreeSet<PathBuf>,
    /// Files of models that came from elsewhere, by model. They stay in their cache for as long as this is there.
    fetched: AllFetched,
}

impl Files {
    /// The project file `file` and what its text names. Of a text with mistakes that is as much as can be told.
    pub(crate) fn named(root: &Path, file: &Path, text: &str) -> Self {
        let mut names = BTreeSet::from([file.strip_prefix(root).unwrap_or(file).to_path_buf()]);
        let keys = Document::read(text).and_then(|document| document.typed::<ProjectKeys>(&[]));
        if let Ok(keys) = keys {
            let sets = keys.feature_sets.values().filter_map(|set| set.get("source")?.as_str());
            let models = keys.models.values().filter_map(|model| model.get("path")?.as_str());
            // Others write into folders of files, such as a request log, all the time.
            let single = |file: &&str| !is_url(file) && !is_many(&root.join(file));
            let here = sets.filter(single).chain(models);
            names.extend(here.map(PathBuf::from).filter(|name| stays_inside(name)));
        }
        Self { root: root.to_path_buf(), names, fetched: AllFetched::new() }
    }

    /// The same, with the files of models that were fetched.
    pub(crate) fn with_fetched(mut self, fetched: AllFetched) -> Self {
        self.fetched = fetched;
        self
    }

    /// The files of models that were fetched, by model.
    pub(crate) fn fetched(&self) -> &AllFetched {
        &self.fetched
    }

    /// Whether every file that was fetched is one that the project pins, so that no other can have come in its place.
    pub(crate) fn is_pinned(&self) -> bool {
        self.fetched.values().all(|fetched| fetched.pinned)
    }

    /// Whether these are the same files from elsewhere, byte by byte.
    pub(crate) fn fetched_the_same(&self, other: &AllFetched) -> bool {
        let digests = |all: &AllFetched| -> Vec<(String, String)> {
            all.iter().map(|(name, fetched)| (name.clone(), fetched.sha256().to_owned())).collect()
        };
        digests(&self.fetched) == digests(other)
    }

    /// The same and others in the same folder.
    pub(crate) fn with<'f>(mut self, names: impl Iterator<Item = &'f Path>) -> Self {
        self.names.extend(names.map(Path::to_path_buf));
        self
    }

    /// Relative to the project's folder.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Path> {
        self.names.iter().map(PathBuf::as_path)
    }

    /// What tells, without reading a file, that any was written to, replaced, added or removed.
    pub(crate) fn stamps(&self) -> Stamps {
        self.names.iter().map(|name| (name.clone(), Stamp::of(&self.place(name)))).collect()
    }

    /// The version: a digest of every name and every byte. Of a Delta table it is the log that counts, which says which of its
    /// files are its rows; those never change.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn version(&self) -> io::Result<String> {
        let mut digest = Sha256::new();
        for name in &self.names {
            let path = self.place(name);
            if !path.is_dir() {
                add(&mut digest, name, &path)?;
                continue;
            }
            let within = path.strip_prefix(&self.root).unwrap_or(&path);
            let mut entries: Vec<_> = path.read_dir()?.collect::<Result<_, _>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                // What is in folders of a log is named in its files.
                if entry.metadata()?.is_file() {
                    add(&mut digest, &within.join(entry.file_name()), &entry.path())?;
                }
            }
        }
        for (name, fetched) in &self.fetched {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name);
            digest.update(fetched.sha256());
        }
        Ok(digest.finalize()[..VERSION_BYTES].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The folders in which a change may be one of these files: those on the way from the root to each, as named and as
    /// links lead there.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        for name in &self.names {
            let path = self.place(name);
            let way = path.ancestors().take_while(|folder| folder.starts_with(&self.root));
            folders.extend(way.filter(|folder| folder.is_dir()).map(Path::to_path_buf));
            if let Ok(real) = path.canonicalize() {
                folders.extend(real.parent().map(Path::to_path_buf));
            }
        }
        folders
    }

    /// Where what is named lies: a file, or the log of a Delta table.
    fn place(&self, name: &Path) -> PathBuf {
        let path = self.root.join(name);
        let log = path.join(DELTA_LOG);
        if log.is_dir() { log } else { path }
    }
}

fn add(digest: &mut Sha256, name: &Path, path: &Path) -> io::Result<()> {
    // Opening a pipe would wait for whoever writes to it.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 64 << 10]);
    let name = name.as_os_str().as_encoded_bytes();
    digest.update((name.len() as u64).to_le_bytes());
    digest.update(name);
    let mut length = 0_u64;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                digest.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
    digest.update(length.to_le_bytes());
    Ok(())
}

/// Files as their folders have them; none where there is no file.
pub(crate) type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

fn stays_inside(name: &Path) -> bool {
    name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// One file as its folder has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    identity: (u64, i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = path.metadata().ok()?;
        Some(Self { bytes: found.len(), modified: found.modified().ok(), identity: identity(&found) })
    }
}

/// Which file it is, and when it or its name last changed: a file that is moved here keeps its own time of change.
#[cfg(unix)]
fn identity(found: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (found.ino(), found.ctime(), found.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: p\nfeature_sets: { a: { source: data/a.csv }, out: { source: ../b.csv } }\nmodels: { m: { path: m.onnx } }\ngraphs: {}\n";

    #[test]
    fn the_version_is_the_content_of_every_file_that_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("data")).unwrap();
        for (name, text) in [("p.yaml", TEXT), ("data/a.csv", "k\n1\n"), ("m.onnx", "m"), ("else", "1")] {
            fs::write(at(name), text).unwrap();
        }
        let version = || Files::named(root.path(), &at("p.yaml"), TEXT).version().unwrap();
        let first = version();
        assert_eq!(first.len(), 2 * VERSION_BYTES);
        fs::write(at("else"), "2").unwrap();
        assert_eq!(version(), first, "a file that the project does not name");
        for name in ["p.yaml", "data/a.csv", "m.onnx"] {
            let text = fs::read(at(name)).unwrap();
            fs::write(at(name), "other").unwrap();
            assert_ne!(version(), first, "{name}");
            fs::write(at(name), text).unwrap();
            assert_eq!(version(), first, "{name} as it was");
        }
    }

    #[test]
    fn a_delta_table_is_its_log() {
        let root = tempfile::tempdir().unwrap();
        let text = "name: p\nfeature_sets: { a: { source: t } }\ngraphs: {}\n";
        let log = root.path().join("t").join(DELTA_LOG);
        fs::create_dir_all(&log).unwrap();
        fs::write(root.path().join("p.yaml"), text).unwrap();
        let files = Files::named(root.path(), &root.path().join("p.yaml"), text);
        fs::write(log.join("0.json"), "a").unwrap();
        let (version, stamps) = (files.version().unwrap(), files.stamps());
        assert!(files.folders().contains(&log));
        fs::write(root.path().join("t/a.parquet"), "not yet a row").unwrap();
        assert_eq!((files.version().unwrap(), files.stamps()), (version.clone(), stamps.clone()));
        fs::write(log.join("1.json"), "b").unwrap();
        assert_ne!(files.version().unwrap(), version);
        assert_ne!(files.stamps(), stamps);
    }

    #[test]
    fn a_file_that_is_replaced_by_one_of_its_length_and_age_has_another_stamp() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("p.yaml"), "name: a").unwrap();
        let files = Files::named(root.path(), &at("p.yaml"), "name: a");
        let before = files.stamps();
        assert_eq!(files.stamps(), before);
        fs::write(at("new"), "name: b").unwrap();
        let age = at("p.yaml").metadata().unwrap().modified().unwrap();
        File::options().write(true).open(at("new")).unwrap().set_modified(age).unwrap();
        fs::rename(at("new"), at("p.yaml")).unwrap();
        assert_ne!(files.stamps(), before);
    }

    #[test]
    fn folders_are_watched_from_the_root_to_each_file() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("data")).unwrap();
        let files = Files::named(root.path(), &at("p.yaml"), TEXT);
        assert_eq!(files.folders(), BTreeSet::from([root.path().to_path_buf(), at("data")]));
    }
}
