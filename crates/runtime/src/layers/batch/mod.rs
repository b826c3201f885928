//! Calls of several runs put together into one.

mod call;
mod queue;

use std::{sync::Arc, time::Duration};

use arrow::{array::Array, datatypes::SchemaRef};
use millstream_graph::{
    Compute, Effect, ErrorKind, Input, Request, RowFlow, RunCx, SchemaError, Share, Signature, Step,
    StepError, StepResult, Work,
};
use tokio::{sync::Notify, time::timeout_at};

use crate::{
    run::now,
    sync::{Mutex, MutexGuard, PoisonError, Tasks},
};
use call::call;
use queue::{Item, Queue};

/// A step that is called with the rows of several runs at once, because one call of many rows is cheaper than many calls.
///
/// A call leaves when it is full, or when its first row has waited for the [`delay`](Self::delay), and when fewer calls than
/// [`calls`](Self::calls) are under way. Without a delay it leaves at once, so rows gather only while calls are under way.
/// What waits is bounded in rows and bytes: a run that brings more is refused with
/// [`Overloaded`](millstream_graph::ErrorKind::Overloaded). Rows whose run has gone or has no time left are left out before
/// they cost anything. A run that brings more rows than a call may have gets its answer from several, and every run that
/// waits has a share of each call. When a call fails or is degraded, the rows of each run are tried again alone, so that a
/// row that breaks a step harms no other run. So only steps that may be repeated can be wrapped, and only those that compute
/// each row from that row alone.
///
/// Requests that come together share runs already ([`Door`](crate::Door)); this is for one slow step of a graph in which not
/// everything can be shared.
pub struct Batcher<S> {
    inner: Arc<S>,
    rules: Rules,
    shared: Arc<Shared>,
    /// Calls under way; dropped, and so cancelled, with the layer.
    tasks: Mutex<Tasks>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    rows: usize,
    delay: Duration,
    calls: usize,
    queue_rows: usize,
    queue_bytes: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    full: Notify,
}

/// Who waits, and who works for them. A worker is a task that makes calls until nobody waits.
#[derive(Default)]
struct State {
    queue: Queue,
    workers: usize,
    /// Workers that are in a call; the others wait for rows to gather.
    busy: usize,
}

impl<S: Step> Batcher<S> {
    /// Calls of at most `rows` rows.
    pub fn new(inner: S, rows: usize) -> Self {
        let rows = rows.max(1);
        let calls = std::thread::available_parallelism().map_or(1, usize::from);
        let rules =
            Rules { rows, delay: Duration::ZERO, calls, queue_rows: 64 * rows, queue_bytes: 64 << 20 };
        Self { inner: Arc::new(inner), rules, shared: Arc::default(), tasks: Mutex::default() }
    }

    /// How long the first row of a call waits for others at most; not at all by default.
    #[must_use]
    pub fn delay(mut self, time: Duration) -> Self {
        self.rules.delay = time;
        self
    }

    /// Calls of the step at once; one per core by default.
    #[must_use]
    pub fn calls(mut self, calls: usize) -> Self {
        self.rules.calls = calls.max(1);
        self
    }

    /// Rows that may wait; as many as 64 calls have by default.
    #[must_use]
    pub fn queue_rows(mut self, rows: usize) -> Self {
        self.rules.queue_rows = rows;
        self
    }

    /// Bytes that may wait; 64 MiB by default.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.rules.queue_bytes = bytes;
        self
    }

    /// Puts a run's rows into the queue and sees to it that somebody works on it.
    fn enter(&self, item: Arc<Item>, jobs: Option<&Arc<dyn Compute>>) -> bool {
        let rules = self.rules;
        let mut state = self.shared.state();
        if !state.queue.push(item, rules.queue_rows, rules.queue_bytes, now()) {
            return false;
        }
        let wanted = state.queue.rows().div_ceil(rules.rows);
        if state.queue.rows() >= rules.rows {
            self.shared.full.notify_waiters();
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while state.workers < rules.calls && state.workers - state.busy < wanted {
            state.workers += 1;
            tasks.spawn(work(Arc::clone(&self.inner), Arc::clone(&self.shared), rules, jobs.cloned()));
        }
        true
    }
}

/// Makes calls until nobody waits.
async fn work<S: Step>(step: Arc<S>, shared: Arc<Shared>, rules: Rules, jobs: Option<Arc<dyn Compute>>) {
    let mut worker = Worker { shared: &shared, busy: false };
    loop {
        shared.gather(rules).await;
        let pieces = {
            let mut state = shared.state();
            let pieces = state.queue.take(rules.rows, now());
            if pieces.is_empty() {
                // Under the lock: whoever comes next finds one worker less.
                worker.leave(&mut state);
                return;
            }
            state.busy += 1;
            worker.busy = true;
            pieces
        };
        call(&*step, pieces, jobs.as_ref()).await;
        shared.state().busy -= 1;
        worker.busy = false;
    }
}

/// A worker's place among the others, which it leaves however it ends.
struct Worker<'s> {
    shared: &'s Arc<Shared>,
    busy: bool,
}

impl Worker<'_> {
    fn leave(self, state: &mut State) {
        state.workers -= 1;
        std::mem::forget(self);
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.workers -= 1;
        state.busy -= usize::from(self.busy);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are rows for a whole call, or the first has waited long enough.
    async fn gather(&self, rules: Rules) {
        if rules.delay.is_zero() {
            return;
        }
        loop {
            let full = self.full.notified();
            tokio::pin!(full);
            full.as_mut().enable();
            let due = {
                let state = self.state();
                match state.queue.oldest() {
                    Some(oldest) if state.queue.rows() < rules.rows => oldest + rules.delay,
                    _ => return,
                }
            };
            if timeout_at(due.into(), full).await.is_err() {
                return;
            }
        }
    }
}

impl<S: Step> Step for Batcher<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let signature = self.inner.signature(inputs)?;
        let row_wise = matches!(&signature.outputs[..], [output] if output.flow == RowFlow::Same);
        if inputs.len() != 1 || !row_wise {
            return Err(SchemaError::new(
                "only a step with one in-port and one out-port that computes each row from that row alone can be batched",
            ));
        }
        if signature.effect == Effect::Once {
            return Err(SchemaError::new("it must happen once per request, so it cannot be batched"));
        }
        Ok(signature)
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let rows = match input.rows(0) {
            Ok(rows) => rows,
            Err(error) => return Work::Done(Err(error)),
        };
        let bytes =
            rows.batch().columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
        let bytes = bytes.sum();
        let times = match cx.times(&rows) {
            Ok(times) => times,
            Err(error) => return Work::Done(Err(error)),
        };
        let mut requests = cx.requests();
        let mut request = match (requests.next(), requests.next()) {
            (Some((request, _)), None) => request.clone(),
            _ => Request { deadline: cx.deadline(), ..Request::default() },
        };
        // A call counts rows from the first that it gets.
        request.times = times;
        let share = Share { run: cx.run(), request, rows: rows.len() };
        let (item, answer) = Item::new(rows, share, bytes, now(), cx.deadline());
        if !self.enter(item, cx.place_for_jobs()) {
            return Work::Done(Err(StepError::new(ErrorKind::Overloaded, "too many rows wait for a batch")));
        }
        Work::Io(Box::pin(async { answer.await.unwrap_or_else(|_| gone()) }))
    }
}

/// Dropped without an answer: its time had passed, or the layer has gone.
fn gone() -> StepResult {
    Err(StepError::new(ErrorKind::DeadlineExceeded, "the deadline passed before a batch left"))
}

impl<S> std::fmt::Debug for Batcher<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("rules", &self.rules).finish_non_exhaustive()
    }
}
