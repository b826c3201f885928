//! A thread that does one thing after another for a store, and the bounded queue before it.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of requests that wait, in KiB. More wait with their callers.
const QUEUE_KIB: u32 = 64 << 10;

/// Runs requests of type `R` on a thread of its own, all that wait at a time. Dropping it runs what has been sent, then joins the
/// thread.
pub(crate) struct Worker<R> {
    queue: Arc<Queue<R>>,
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

/// What waits for the thread.
pub(crate) struct Queue<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
}

struct State<R> {
    waiting: Vec<Waiting<R>>,
    nudged: bool,
    closed: bool,
}

/// A request, and the room it takes until it has been run.
type Waiting<R> = (R, Option<OwnedSemaphorePermit>);

impl<R: Send + 'static> Worker<R> {
    /// Starts a thread. `run` is given what waits, which may be nothing, and answers when it wants to be run again even if
    /// nothing comes.
    pub(crate) fn start<F>(name: &str, make: impl FnOnce(&Arc<Queue<R>>) -> F) -> io::Result<Self>
    where
        F: FnMut(Vec<R>) -> Option<Instant> + Send + 'static,
    {
        let state = State { waiting: Vec::new(), nudged: false, closed: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        let mut run = make(&queue);
        let own = Arc::clone(&queue);
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let own = Ending(own);
            let mut again = None;
            while let Some(waiting) = own.0.take(again) {
                // The room of a request is free when it has been run, not when it has been taken.
                let (requests, _permits): (Vec<R>, Vec<_>) = waiting.into_iter().unzip();
                again = run(requests);
            }
        })?;
        Ok(Self { queue, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)), thread: Some(thread) })
    }

    /// Hands over a request of about so many bytes, if there is room for it now.
    pub(crate) fn try_send(&self, bytes: usize, request: R) -> bool {
        let permit = Arc::clone(&self.room).try_acquire_many_owned(kib(bytes));
        permit.is_ok_and(|permit| self.queue.add(request, Some(permit)))
    }

    /// Hands over a request of about so many bytes, once there is room. One that nobody will run is dropped.
    pub(crate) async fn send(&self, bytes: usize, request: R) {
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(kib(bytes)).await {
            self.queue.add(request, Some(permit));
        }
    }

    /// Hands over a request that takes no room. One that nobody will run is dropped.
    #[cfg(feature = "offline")]
    pub(crate) fn put(&self, request: R) {
        self.queue.put(request);
    }
}

/// More than the whole room is all of it.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(QUEUE_KIB).min(QUEUE_KIB)
}

/// Drops what waits for a thread that has ended, so that nobody waits for it any more.
struct Ending<R>(Arc<Queue<R>>);

impl<R> Drop for Ending<R> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.waiting.clear();
    }
}

impl<R> Drop for Worker<R> {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that has panicked has dropped its requests, which told their callers.
            let _ = thread.join();
        }
    }
}

impl<R> Queue<R> {
    /// Has the thread run soon, whether or not anything waits.
    pub(crate) fn nudge(&self) {
        self.lock().nudged = true;
        self.changed.notify_one();
    }

    /// Hands over a request that takes no room: of those a caller has one at a time. One that nobody will run is dropped.
    #[cfg(feature = "offline")]
    pub(crate) fn put(&self, request: R) {
        self.add(request, None);
    }

    /// Whether there is a thread that will run it.
    fn add(&self, request: R, permit: Option<OwnedSemaphorePermit>) -> bool {
        let mut state = self.lock();
        if !state.closed {
            state.waiting.push((request, permit));
            self.changed.notify_one();
        }
        !state.closed
    }

    /// What waits, once something does, the thread is nudged, or `until` has come; `None` when nothing will come any more.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Waiting<R>>> {
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() || state.nudged {
                state.nudged = false;
                return Some(std::mem::take(&mut state.waiting));
            }
            if state.closed {
                return None;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Some(Vec::new()),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_was_sent_is_run_before_the_thread_ends() {
        let (sender, mut answer) = oneshot::channel();
        let worker = Worker::start("test", |_| {
            |requests: Vec<oneshot::Sender<u8>>| {
                requests.into_iter().for_each(|request| request.send(7).unwrap());
                None
            }
        });
        let worker = worker.unwrap();
        block_on(worker.send(usize::MAX, sender));
        drop(worker);
        assert_eq!(answer.try_recv(), Ok(7));
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_panicked() {
        let worker = Worker::start("test", |_| {
            |requests: Vec<oneshot::Sender<u8>>| -> Option<Instant> {
                assert!(requests.is_empty(), "planted");
                None
            }
        });
        let worker = worker.unwrap();
        for _ in 0..3 {
            let (sender, answer) = oneshot::channel();
            block_on(worker.send(1, sender));
            assert!(block_on(answer).is_err());
        }
    }
}
