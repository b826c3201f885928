//! Whether anybody still waits for a job: how a job that takes long hears that its run has gone.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

thread_local! {
    /// The job that this thread is in.
    static CURRENT: RefCell<Option<Arc<Waiting>>> = const { RefCell::new(None) };
}

/// Who waits for a job: made by whoever hands it to another thread.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering::SeqCst}};
/// use millstream_graph::{Waiting, when_nobody_waits};
///
/// let waiting = Arc::new(Waiting::default());
/// let stopped = Arc::new(AtomicBool::new(false));
/// waiting.during(|| {
///     let flag = Arc::clone(&stopped);
///     let stop = when_nobody_waits(move || flag.store(true, SeqCst));
///     waiting.gone();
///     drop(stop);
/// });
/// assert!(stopped.load(SeqCst));
/// ```
#[derive(Default)]
pub struct Waiting {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gone: bool,
    stop: Option<Box<dyn FnOnce() + Send>>,
}

impl Waiting {
    /// Runs a job, which then can ask to be told when nobody waits for it any more.
    pub fn during<R>(self: &Arc<Self>, job: impl FnOnce() -> R) -> R {
        /// Puts back what was there, also when the job panics.
        struct Before(Option<Arc<Waiting>>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _before = Before(CURRENT.replace(Some(Arc::clone(self))));
        job()
    }

    /// Nobody waits any more. Returns when whatever stops the job has been called.
    pub fn gone(&self) {
        let mut state = self.state();
        state.gone = true;
        if let Some(stop) = state.stop.take() {
            stop();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has `stop` called when nobody waits for this thread's job any more, until the answer is dropped; at once when that is so
/// already. `None` outside a job that somebody can cease to wait for: then the job is short, or its own thread's.
pub fn when_nobody_waits(stop: impl FnOnce() + Send + 'static) -> Option<Stop> {
    let waiting = CURRENT.with_borrow(Clone::clone)?;
    let mut state = waiting.state();
    if state.gone {
        stop();
    } else {
        state.stop = Some(Box::new(stop));
    }
    drop(state);
    Some(Stop { waiting })
}

/// What is to be called when nobody waits; see [`when_nobody_waits`].
pub struct Stop {
    waiting: Arc<Waiting>,
}

impl Stop {
    /// Whether it was called. After this it will not be.
    pub fn was_called(self) -> bool {
        let mut state = self.waiting.state();
        state.stop = None;
        state.gone
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.waiting.state().stop = None;
    }
}
