//! What is known of a repository's folder without reading it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use super::read;

/// A folder that has changed within so long of being read may have changed again without showing it: its time is coarse.
const COARSE: Duration = Duration::from_secs(2);
/// Whatever a folder's time says, it is read again after so long.
const LONGEST: Duration = Duration::from_secs(10);

/// The names of the folders that may be models', as they were when they were last read.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub(super) names: BTreeSet<String>,
    /// Why they could not be read; the names are those of the time before then.
    pub(super) unreadable: Option<String>,
    /// When the folder had last changed, and when it was read: by its own clock and by ours.
    changed: Option<SystemTime>,
    read: Option<(SystemTime, Instant)>,
}

impl Listing {
    /// Reads a folder.
    pub(super) fn of(root: &Path, before: &Self) -> Self {
        // Looked at before it is read: a change in between is seen as one.
        let (changed, now) = (changed(root), (SystemTime::now(), Instant::now()));
        match read::names(root) {
            Ok(names) => {
                Self { names: names.into_iter().collect(), unreadable: None, changed, read: Some(now) }
            }
            Err(problem) => Self { unreadable: Some(problem), changed: None, ..before.clone() },
        }
    }

    /// Whether the folder is as it was, as far as its time tells.
    pub(super) fn is_good(&self, root: &Path) -> bool {
        let (Some(then), Some((by_folder, by_us))) = (self.changed, self.read) else { return false };
        let rests = by_folder.duration_since(then).is_ok_and(|rested| rested > COARSE);
        rests && by_us.elapsed() < LONGEST && changed(root) == Some(then)
    }
}

fn changed(root: &Path) -> Option<SystemTime> {
    fs::metadata(root).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_again_once_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("a")).unwrap();
        let before = Listing::of(root, &Listing::default());
        assert_eq!(Vec::from_iter(&before.names), ["a"]);
        assert!(!before.is_good(root), "what has changed a moment ago may change again unseen");
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(root).unwrap().set_modified(long_ago).unwrap();
        let rested = Listing::of(root, &before);
        assert!(rested.is_good(root));
        fs::create_dir(root.join("b")).unwrap();
        assert!(!rested.is_good(root));
        let now = Listing::of(root, &rested);
        assert_eq!(Vec::from_iter(&now.names), ["a", "b"]);
        fs::remove_dir_all(root).unwrap();
        let gone = Listing::of(root, &now);
        assert!(gone.unreadable.is_some() && !gone.is_good(root));
        assert_eq!(gone.names, now.names, "those of before are kept");
    }
}
