//! Segments of the log that stay until what they say is kept elsewhere too.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Which segments stay, and how many bytes of them may there be.
pub(crate) struct Keeping {
    /// The first segment of which something is yet to be kept.
    pub(crate) from: u64,
    /// The bytes of those from there on that are not written any more.
    pub(crate) bytes: BTreeMap<u64, u64>,
    /// Beyond so many bytes rows are refused.
    pub(crate) limit: u64,
    /// After so many bytes whoever keeps them is called.
    pub(crate) after: u64,
    /// Bytes of the segment that is written, as they were when it was called last, and which segment that was.
    pub(crate) called: (u64, u64),
    pub(crate) state: Arc<KeepingState>,
}

/// What whoever keeps the log elsewhere shares with its writer.
#[derive(Default)]
pub(crate) struct KeepingState {
    call: OnceLock<Box<dyn Fn() + Send + Sync>>,
    problem: Mutex<Option<String>>,
    failures: AtomicU64,
}

impl Keeping {
    /// Bytes that are yet to be kept, at most, with `len` of the segment that is written.
    pub(crate) fn behind(&self, len: u64) -> u64 {
        self.bytes.range(self.from..).map(|(_, bytes)| bytes).sum::<u64>() + len
    }

    /// Has whoever keeps the log called, if `len` bytes of segment `segment` make it worth while.
    pub(crate) fn grown(&mut self, segment: u64, len: u64) {
        let before = if self.called.0 == segment { self.called.1 } else { 0 };
        if len - before.min(len) >= self.after {
            self.called = (segment, len);
            self.state.call();
        }
    }
}

impl KeepingState {
    /// Says how whoever keeps the log is called.
    pub(crate) fn called_by(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.call.set(Box::new(call));
    }

    fn call(&self) {
        if let Some(call) = self.call.get() {
            call();
        }
    }

    /// Remembers how keeping has ended.
    pub(crate) fn ended(&self, problem: Option<String>) {
        if problem.is_some() {
            self.failures.fetch_add(1, Relaxed);
        }
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Why the last attempt has come to nothing.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many attempts have.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }
}

impl fmt::Debug for KeepingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepingState").field("problem", &self.problem()).finish_non_exhaustive()
    }
}
