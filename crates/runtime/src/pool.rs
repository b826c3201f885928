//! Where compute jobs go that are too expensive for an async worker: a bounded, work-stealing pool of threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use millstream_graph::{Compute, Job, StepError, StepFuture, StepResult, Waiting};
use tokio::sync::{Semaphore, oneshot};

use crate::{EngineError, panics};

/// Threads for compute jobs. Cheap to clone; all clones are one pool.
///
/// Confined to this file, so that another pool is a change in one place; a pool over `crossbeam-deque` was measured and is no
/// faster (`docs/benchmarks.md`).
#[derive(Clone)]
pub struct ComputePool {
    threads: Arc<Threads>,
    /// Jobs running or queued. When full, runs wait: a run holds at most as many jobs as it has steps.
    slots: Arc<Semaphore>,
}

impl ComputePool {
    /// So many threads, and jobs that may wait for one; beyond that, runs wait.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(threads: usize, queue: usize) -> Result<Self, EngineError> {
        let slots = Arc::new(Semaphore::new(threads + queue));
        let threads = Threads::new(threads).map_err(EngineError::Threads)?;
        Ok(Self { threads: Arc::new(threads), slots })
    }

    /// Runs `job` on the pool and answers its result, how long it waited and what it took.
    ///
    /// Dropping the future abandons the job: one that has not started never does, one that has is told that nobody waits, and
    /// whether it stops or finishes is not read.
    pub(crate) async fn run(&self, job: Job) -> (StepResult, Duration, Duration) {
        let closed =
            || (Err(StepError::internal("the compute pool is closed")), Duration::ZERO, Duration::ZERO);
        let came = Instant::now();
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return closed() };
        let (done, result) = oneshot::channel();
        let waiter = Waiter(Arc::default());
        let waiting = Arc::clone(&waiter.0);
        self.threads.spawn(move || {
            // The slot is released by the job, not by this future: a cancelled run must not let
            // a second job onto a thread that is still busy with the first.
            let _slot = slot;
            if !done.is_closed() {
                // Nobody reads the answer of a run that was dropped meanwhile.
                let waited = came.elapsed();
                let (result, took) = waiting.during(|| timed(job));
                let _ = done.send((result, waited, took));
            }
        });
        result.await.unwrap_or_else(|_| closed())
    }
}

/// Tells a job that nobody waits for it when it is dropped, which after its end does nothing.
struct Waiter(Arc<Waiting>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.gone();
    }
}

impl std::fmt::Debug for ComputePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComputePool").finish_non_exhaustive()
    }
}

impl Compute for ComputePool {
    fn run(&self, job: Job) -> StepFuture<'static> {
        let pool = self.clone();
        Box::pin(async move { pool.run(job).await.0 })
    }
}

#[cfg(not(feature = "shuttle"))]
struct Threads(rayon::ThreadPool);

#[cfg(not(feature = "shuttle"))]
impl Threads {
    fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let name = |thread| format!("millstream-compute-{thread}");
        rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build().map(Self)
    }

    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.0.spawn(job);
    }
}

/// In tests of interleavings every job has a thread of the model checker's.
#[cfg(feature = "shuttle")]
struct Threads;

#[cfg(feature = "shuttle")]
impl Threads {
    #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
    fn new(_: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        Ok(Self)
    }

    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        shuttle::thread::spawn(job);
    }
}

/// Runs a job here and now; a panic is its error.
pub(crate) fn timed(job: Job) -> (StepResult, Duration) {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| Err(panics::error(&*panic)));
    (result, start.elapsed())
}
