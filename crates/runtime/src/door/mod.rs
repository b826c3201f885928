//! Where requests of one plan meet, so that those that come at the same time travel in one run.
//!
//! The first request that finds nobody waiting leads: it yields once to the scheduler, which lets every request that has
//! already arrived put its rows beside its own, then closes the batch and runs it. There is no timer, and where requests have
//! come one by one it does not even yield, so a request that comes alone waits for nobody. When as many shared runs are under way as may be, the leader waits for one to end, and the
//! batch goes on growing: the busier the engine, the more rows share a run.
//!
//! Nobody's run depends on another caller. The leader only polls the shared run first; what is not done by then goes on in
//! a task of the engine's, until it is done or every caller has gone. A shared run that fails or is degraded counts for
//! nothing: each of its requests runs again alone, so a row that breaks a step harms no other request.

mod gather;
mod habits;
mod portion;
mod together;

use std::{sync::Arc, task::Poll, time::Instant};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
    error::ArrowError,
};
use futures_util::future::poll_fn;
use millstream_graph::{Request, Share};
use smallvec::SmallVec;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    Engine, RunError,
    admission::Permit,
    run::now,
    sync::{Mutex, MutexGuard, PoisonError},
};
pub use gather::{Append, Gather};
use habits::{Crowd, Patience};
pub use portion::Portion;
use together::{Alone, Entries, Entry, Outcome, send_alone, together, told};

/// Where requests of one engine's plan meet, so that those that come at the same time travel in one run.
///
/// Each request keeps its name, deadline, cancellation, taps, tail and error, and its reply is what it would have been alone.
/// Plans whose steps are not all row-wise (see [`Plan::row_wise`](millstream_graph::Plan::row_wise)) run per request.
///
/// ```
/// use std::sync::Arc;
/// use millstream_graph::{Graph, Request, fields, rows};
/// use millstream_runtime::{Append, Door, Engine, Limits};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut graph = Graph::new("echo", fields! { id: Int64 });
/// let input = graph.input();
/// graph.respond(&input);
/// let engine = Engine::new(graph.compile()?, Limits::default())?;
///
/// let gather = Append::new(Arc::clone(engine.plan().input_schema()));
/// let door = Door::new(engine, gather);
/// let (one, two) = tokio::join!(
///     door.run(Request::default(), rows! { id: [7_i64] }),
///     door.run(Request::default(), rows! { id: [8_i64, 9] }),
/// );
/// assert_eq!((one?.rows().num_rows(), two?.rows().num_rows()), (1, 2));
/// # Ok(())
/// # }
/// ```
pub struct Door<G: Gather> {
    engine: Engine,
    gather: G,
    /// Rows of one shared run.
    rows: usize,
    /// Whether requests may share a run at all.
    shares: bool,
    crowd: Crowd,
    patience: Arc<Patience>,
    waiting: Mutex<Waiting<G>>,
    runs: Arc<Semaphore>,
}

/// Batches that have not left: the open one, and full ones whose leaders have not come back yet.
struct Waiting<G: Gather> {
    next: u64,
    open: Option<Gathering<G>>,
    full: Vec<Gathering<G>>,
}

/// Requests that will share a run.
struct Gathering<G: Gather> {
    name: u64,
    gathered: G::Gathered,
    rows: usize,
    entries: Entries,
}

impl<G: Gather> Door<G> {
    /// A door to an engine; see [`Limits::shared_rows`](crate::Limits::shared_rows).
    pub fn new(engine: Engine, gather: G) -> Self {
        let limits = engine.limits();
        let rows = limits.shared_rows;
        let shares = engine.plan().row_wise() && rows > 1;
        let runs = Arc::new(Semaphore::new(limits.shared_runs.clamp(1, Semaphore::MAX_PERMITS)));
        let waiting = Mutex::new(Waiting { next: 0, open: None, full: Vec::new() });
        let (crowd, patience) = (Crowd::default(), Arc::default());
        Self { engine, gather, rows, shares, crowd, patience, waiting, runs }
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How rows are put together.
    pub fn gather(&self) -> &G {
        &self.gather
    }

    /// Requests that wait here for their run to start, now.
    pub fn waiting_requests(&self) -> usize {
        let waiting = self.waiting();
        waiting.open.iter().chain(&waiting.full).map(|gathering| gathering.entries.len()).sum()
    }

    /// Runs a request, together with those that come at the same time.
    ///
    /// Refuses at once when as many requests are under way as the engine's limits allow. Dropping the future withdraws the
    /// request.
    ///
    /// # Errors
    /// As [`Engine::try_run`].
    pub async fn run(&self, request: Request, part: G::Part) -> Result<Portion, RunError> {
        let part = self.gather.fit(part)?;
        let rows = self.gather.rows(&part);
        let shared = &*self.engine.shared;
        let permit = shared.permit(request.priority)?;
        let (mut admitted, request) = shared.admit(request, rows);
        // Rows of a shared run all ask for the present.
        let past = request.times.is_some();
        if past || !self.shares || rows == 0 || rows >= self.rows || !self.patience.shares() {
            let batch = self.batch_of(part)?;
            return shared.alone(permit, &mut admitted, request, batch).await.map(Portion::from);
        }
        let share = Share { run: admitted.run, request: request.clone(), rows };
        let (leads, answer) = self.enter(share, admitted.start, permit, part);
        if let Some(name) = leads {
            self.lead(name).await;
        }
        match told(answer, request.deadline, admitted.run).await {
            Outcome::Reply(portion) => {
                admitted.finish(true);
                Ok(portion)
            }
            Outcome::Failed(error) => {
                admitted.finish(false);
                Err(error)
            }
            Outcome::Alone(Alone { batch, permit, slot }) => {
                let reply = shared.alone(permit, &mut admitted, request, batch).await;
                drop(slot);
                reply.map(Portion::from)
            }
        }
    }

    fn batch_of(&self, part: G::Part) -> Result<RecordBatch, RunError> {
        let mut gathered = G::Gathered::default();
        self.gather.add(&mut gathered, part);
        self.gather.batch(gathered).map_err(|error| unfit(&error))
    }

    /// Puts a request beside those that wait. Answers the name of its batch when nobody leads it yet.
    fn enter(
        &self,
        share: Share,
        since: Instant,
        permit: Permit,
        part: G::Part,
    ) -> (Option<u64>, oneshot::Receiver<Outcome>) {
        let (answer, told) = oneshot::channel();
        let rows = share.rows;
        let entry = Entry { share, since, permit, answer };
        let mut waiting = self.waiting();
        if waiting.open.as_ref().is_some_and(|open| open.rows + rows > self.rows) {
            let full = waiting.open.take();
            waiting.full.extend(full);
        }
        if let Some(open) = &mut waiting.open {
            self.gather.add(&mut open.gathered, part);
            open.rows += rows;
            open.entries.push(entry);
            return (None, told);
        }
        let name = waiting.next;
        waiting.next += 1;
        let mut gathered = G::Gathered::default();
        self.gather.add(&mut gathered, part);
        waiting.open = Some(Gathering { name, gathered, rows, entries: SmallVec::from_iter([entry]) });
        (Some(name), told)
    }

    /// Lets others come, then takes the batch away and runs it.
    async fn lead(&self, name: u64) {
        let mut leader = Leader { door: self, name: Some(name) };
        if self.crowd.expected(self.engine.shared.core.metrics.in_flight.get()) {
            tokio::task::yield_now().await;
        }
        // The semaphore is never closed.
        let mut slot = Arc::clone(&self.runs).acquire_owned().await.ok();
        let Some(gathering) = leader.take() else { return };
        let Some((batch, entries)) = self.close(gathering) else { return };
        let shared = Arc::clone(&self.engine.shared);
        let metrics = &shared.core.metrics;
        metrics.shared_rows.observe(batch.num_rows() as f64);
        let start = now();
        for entry in &entries {
            metrics.door_wait.record(start.saturating_duration_since(entry.since));
        }
        self.crowd.learn(entries.len());
        if entries.len() == 1 {
            // Its caller, which is this one unless it has gone, runs it as if it had never waited.
            entries.into_iter().for_each(|entry| entry.alone(batch.clone(), slot.take()));
            return;
        }
        let patience = Arc::clone(&self.patience);
        let mut run = Box::pin(async move {
            patience.learn(together(&shared, batch, entries).await);
            drop(slot);
        });
        // Most runs are done in one poll, right here. The rest of a longer one does not depend on this caller.
        if poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await.is_pending() {
            self.engine.shared.own(run);
        }
    }

    /// The rows of those who still wait for an answer, as one batch.
    fn close(&self, gathering: Gathering<G>) -> Option<(RecordBatch, Entries)> {
        let Gathering { gathered, entries, .. } = gathering;
        let batch = match self.gather.batch(gathered) {
            Ok(batch) => batch,
            Err(error) => {
                entries.into_iter().for_each(|entry| entry.tell(Outcome::Failed(unfit(&error))));
                return None;
            }
        };
        let timed = entries.iter().any(|entry| entry.share.request.deadline.is_some());
        let now = timed.then(now);
        // Asked once: a caller that goes in between would leave its rows to others.
        let waits: SmallVec<[bool; 64]> = entries.iter().map(|entry| entry.waits(now)).collect();
        if waits.iter().all(|waits| *waits) {
            return Some((batch, entries));
        }
        let rows = entries.iter().zip(&waits);
        let keep: BooleanArray =
            rows.flat_map(|(entry, waits)| std::iter::repeat_n(Some(*waits), entry.share.rows)).collect();
        let mut stay = Entries::new();
        for (entry, waits) in entries.into_iter().zip(waits) {
            if waits {
                stay.push(entry);
            } else {
                let run = entry.share.run;
                entry.tell(Outcome::Failed(RunError::DeadlineExceeded { run }));
            }
        }
        match filter_record_batch(&batch, &keep) {
            _ if stay.is_empty() => None,
            Ok(batch) => Some((batch, stay)),
            Err(error) => {
                stay.into_iter().for_each(|entry| entry.tell(Outcome::Failed(unfit(&error))));
                None
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<G>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Gather> std::fmt::Debug for Door<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Whoever leads a batch. When it goes before the batch has left, the others run alone.
struct Leader<'d, G: Gather> {
    door: &'d Door<G>,
    name: Option<u64>,
}

impl<G: Gather> Leader<'_, G> {
    fn take(&mut self) -> Option<Gathering<G>> {
        let name = self.name.take()?;
        let mut waiting = self.door.waiting();
        if waiting.open.as_ref().is_some_and(|open| open.name == name) {
            return waiting.open.take();
        }
        let at = waiting.full.iter().position(|full| full.name == name)?;
        Some(waiting.full.swap_remove(at))
    }
}

impl<G: Gather> Drop for Leader<'_, G> {
    fn drop(&mut self) {
        if let Some(gathering) = self.take()
            && let Some((batch, entries)) = self.door.close(gathering)
        {
            send_alone(&batch, entries);
        }
    }
}

/// Rows that could not be put together are nobody's fault but ours.
fn unfit(error: &ArrowError) -> RunError {
    RunError::Gather { reason: error.to_string() }
}
