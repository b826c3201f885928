//! Rows that a set does not take as they are, kept with the reason: JSON Lines in two files, the older of which goes when there is
//! no more room.
//!
//! A thread writes them. Nobody waits for it but who erases: what cannot be written is counted.

mod files;
mod line;

use std::{
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

use serde_json::Value;
use tokio::sync::oneshot;

use self::files::Files;
pub(crate) use self::files::{Removed, rows};
pub(crate) use self::line::{json, message, row};
use super::{Counted, worker::Worker};

/// What a set tells of what it counts, once somebody listens.
pub(crate) type Told = Arc<OnceLock<Box<dyn Fn(Counted<'_>, u64) + Send + Sync>>>;

/// The files of one path. Dropped, it writes what waits.
pub(crate) struct Aside {
    worker: Worker<Request>,
}

enum Request {
    Lines(Vec<String>, Told),
    Remove(Remove, oneshot::Sender<io::Result<Removed>>),
}

/// Which lines go.
pub(crate) struct Remove {
    pub(crate) set: String,
    /// Rows with these values under these names; without, all of the set.
    pub(crate) keys: Option<(Vec<String>, Vec<Vec<Value>>)>,
}

impl Aside {
    /// The files at `path`, which are made when there is something to write, and have `max_bytes` together.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut files = Files::new(path, max_bytes);
        let worker = Worker::start("feature-aside", |_| {
            move |requests: Vec<Request>| {
                for request in requests {
                    match request {
                        Request::Lines(lines, told) => {
                            let kept = files.append(&lines);
                            tell(&told, "kept", kept);
                            tell(&told, "lost", lines.len() - kept);
                        }
                        // Whoever asked may have gone.
                        Request::Remove(remove, reply) => drop(reply.send(files.remove(&remove))),
                    }
                }
                None
            }
        })?;
        Ok(Self { worker })
    }

    /// Hands over lines, if there is room for them.
    pub(crate) fn put(&self, lines: Vec<String>, told: &Told) {
        let (bytes, rows) = (lines.iter().map(String::len).sum(), lines.len());
        if !self.worker.try_send(bytes, Request::Lines(lines, Arc::clone(told))) {
            tell(told, "lost", rows);
        }
    }

    /// Removes lines from the files, when those that were handed over before are written.
    pub(crate) async fn remove(&self, remove: Remove) -> io::Result<Removed> {
        let (reply, removed) = oneshot::channel();
        self.worker.send(0, Request::Remove(remove, reply)).await;
        removed.await.unwrap_or_else(|_| Err(io::Error::other("nobody writes what is set aside any more")))
    }
}

fn tell(told: &Told, what: &'static str, rows: usize) {
    if let (Some(told), true) = (told.get(), rows > 0) {
        told(Counted::Aside(what), rows as u64);
    }
}
