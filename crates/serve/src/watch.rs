//! Watching a project's files, to reload when they change.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::Notify, time::Instant};

use crate::{Outcome, Reloader, reload::blocking};

/// After a change, the files are read when nothing more has changed for so long: several are written one after the other.
const QUIET: Duration = Duration::from_millis(200);
/// Files that keep changing are read after so long all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Reloads whenever a file of the project changes, until it is dropped. Files may be written in place, or be replaced by others
/// under their name, as editors and Kubernetes do.
///
/// # Errors
/// When the system cannot watch files.
pub async fn watch(reloader: Reloader) -> Result<(), notify::Error> {
    let mut folders = Folders::new()?;
    let served = || reloader.shared().live.load().stamps.clone();
    let mut seen = served();
    loop {
        // Followed first, looked at then: what changes in between is seen, what changes afterwards is notified.
        let this = reloader.clone();
        let Ok((follows, now)) = blocking(move || {
            let files = this.files();
            folders.follow(&files.folders());
            (folders, files.stamps())
        })
        .await
        else {
            return Ok(());
        };
        folders = follows;
        if now == seen {
            folders.quiet().await;
            continue;
        }
        let reload = reloader.reload().await;
        seen = if reload.outcome == Outcome::Swapped { served() } else { now };
    }
}

/// The folders that are watched.
struct Folders {
    watcher: RecommendedWatcher,
    followed: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
}

impl Folders {
    fn new() -> Result<Self, notify::Error> {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // After an error, such as events that were lost, whatever may have changed is looked at.
            if event.map_or(true, |event| is_change(event.kind)) {
                tell.notify_one();
            }
        })?;
        Ok(Self { watcher, followed: BTreeSet::new(), changed })
    }

    /// Watches these folders and no others.
    fn follow(&mut self, wanted: &BTreeSet<PathBuf>) {
        for gone in self.followed.difference(wanted) {
            // One that is not there any more is not watched either.
            let _ = self.watcher.unwatch(gone);
        }
        let mut followed = BTreeSet::new();
        for folder in wanted {
            // Again for those that are watched: another folder may have taken the name.
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(followed.insert(folder.clone())),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "a folder cannot be watched")
                }
            }
        }
        self.followed = followed;
    }

    /// Ready when something has changed, and nothing more for a while.
    async fn quiet(&self) {
        self.changed.notified().await;
        let latest = Instant::now() + LONGEST_WAIT;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if tokio::time::timeout_at(quiet, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// Whether an event may be a change of content. That files are read, which loading does, is none.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
