//! The object an application holds: a plan, its pool, and admission.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema},
};
use crossbeam_queue::ArrayQueue;
use millstream_graph::{Origin, Plan, Request, RunCx, RunId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    task::JoinSet,
};

use crate::{
    Metrics, Reply, RunError,
    core::Core,
    pool::Pool,
    run::{drive, now},
    state::State,
};

/// What an engine may use at once.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Runs under way, their tails included. Further callers of [`Engine::run`] wait, of [`Engine::try_run`] are refused.
    pub runs: usize,
    /// The time a run has when its request says nothing; `None` is no limit.
    pub deadline: Option<Duration>,
    /// Threads for compute that is too expensive for an async worker; 0 computes inline always.
    pub compute_threads: usize,
    /// The time that the steps after the reply have.
    pub tail: Duration,
    /// Compute jobs that may wait for a thread; beyond that, runs wait.
    pub compute_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let compute_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            runs: 1024,
            deadline: None,
            tail: Duration::from_secs(30),
            compute_threads,
            compute_queue: 1024,
        }
    }
}

/// Runs one plan. Cheap to clone; all clones are one engine.
///
/// ```
/// use millstream_graph::{fields, rows, Graph};
/// use millstream_runtime::{Engine, Limits};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut graph = Graph::new("echo", fields! { id: Int64 });
/// let input = graph.input();
/// graph.respond(&input);
/// let engine = Engine::new(graph.compile()?, Limits::default())?;
/// let reply = engine.run(rows! { id: [7i64] }).await?;
/// assert_eq!(reply.rows().num_rows(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    limits: Limits,
    permits: Arc<Semaphore>,
    /// States of finished runs, for the next ones.
    states: ArrayQueue<Box<State>>,
    /// The tails under way; dropped, and so cancelled, with the engine.
    tails: Mutex<JoinSet<()>>,
    next_run: AtomicU64,
}

/// Why an engine could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The compute threads could not be started.
    #[error("compute threads could not be started")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The metrics could not be made.
    #[error("metrics could not be made")]
    Metrics(#[from] prometheus::Error),
}

impl Engine {
    /// An engine for a plan, with metrics of its own.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn new(plan: Plan, limits: Limits) -> Result<Self, EngineError> {
        Self::with_metrics(plan, limits, &Metrics::new()?)
    }

    /// An engine that counts among the metrics of others.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn with_metrics(plan: Plan, limits: Limits, metrics: &Metrics) -> Result<Self, EngineError> {
        let pool = match limits.compute_threads {
            0 => None,
            threads => Some(Pool::new(threads, limits.compute_queue).map_err(EngineError::Threads)?),
        };
        let metrics = metrics.graph(plan.name());
        let shared = Shared {
            core: Arc::new(Core::new(Arc::new(plan), pool, metrics)),
            permits: Arc::new(Semaphore::new(permits(&limits) as usize)),
            states: ArrayQueue::new(limits.runs.clamp(1, 256)),
            limits,
            tails: Mutex::new(JoinSet::new()),
            next_run: AtomicU64::new(1),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.shared.core.plan
    }

    /// Runs one request, waiting for a permit when as many runs are under way as the limits allow.
    ///
    /// Dropping the future cancels the run and everything it holds at once.
    ///
    /// # Errors
    /// When the rows do not fit the plan, or a step fails and the graph does not take care of it.
    pub async fn run(&self, rows: RecordBatch) -> Result<Reply, RunError> {
        self.run_request(Request::default(), rows).await
    }

    /// Like [`Engine::run`], for a request with a name, a deadline or a trace.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn run_request(&self, request: Request, rows: RecordBatch) -> Result<Reply, RunError> {
        let permit = match Arc::clone(&self.shared.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(RunError::Closed),
            Err(TryAcquireError::NoPermits) => {
                Arc::clone(&self.shared.permits).acquire_owned().await.map_err(|_| RunError::Closed)?
            }
        };
        self.admitted(permit, request, rows).await
    }

    /// Like [`Engine::run_request`], but refuses at once when as many runs are under way as the limits allow.
    ///
    /// # Errors
    /// [`RunError::Overloaded`], or as [`Engine::run`].
    pub async fn try_run(&self, request: Request, rows: RecordBatch) -> Result<Reply, RunError> {
        match Arc::clone(&self.shared.permits).try_acquire_owned() {
            Ok(permit) => self.admitted(permit, request, rows).await,
            Err(TryAcquireError::Closed) => Err(RunError::Closed),
            Err(TryAcquireError::NoPermits) => {
                self.shared.core.metrics.refused.inc();
                Err(RunError::Overloaded)
            }
        }
    }

    /// Takes no more runs, and waits until those under way and their tails have ended.
    pub async fn close(&self) {
        let all = permits(&self.shared.limits);
        // Every permit back means that every run and every tail has ended.
        let ended = self.shared.permits.acquire_many(all).await;
        self.shared.permits.close();
        drop(ended);
    }

    async fn admitted(
        &self,
        permit: OwnedSemaphorePermit,
        mut request: Request,
        rows: RecordBatch,
    ) -> Result<Reply, RunError> {
        let shared = &self.shared;
        let core = &shared.core;
        let rows = with_schema_of(&core.plan, rows)?;
        let start = now();
        if let (None, Some(limit)) = (request.deadline, shared.limits.deadline) {
            request.deadline = start.checked_add(limit);
        }
        let run = RunId(shared.next_run.fetch_add(1, Relaxed));
        let count = rows.num_rows();
        let cx = RunCx::new(run, request, count, now);
        let mut running = Running::begin(shared, &cx, rows);
        let outcome = drive(core, &cx, running.state(), core.main_end).await;
        let state = running.state();
        state.replied = true;
        let has_tail = outcome.is_ok() && state.live.any_from(core.main_end);
        let reply = match (outcome, state.reply.take(), state.failure.take()) {
            (Err(error), ..) | (Ok(()), None, Some(error)) => Err(error),
            (Ok(()), rows, _) => Ok(reply_of(&core.plan, run, rows, std::mem::take(&mut state.degraded))),
        };
        running.finish(start, count, reply.is_ok());
        if has_tail {
            self.start_tail(running.take_state(), cx, permit);
        }
        reply
    }

    /// The rest of a run, after its reply. It holds the run's permit, so tails are bounded as runs are.
    fn start_tail(&self, mut state: Box<State>, cx: RunCx, permit: OwnedSemaphorePermit) {
        // The task owns the core and not the engine: when the engine goes, so does its `JoinSet` and with it the tail.
        let core = Arc::clone(&self.shared.core);
        let cx = cx.with_deadline(now().checked_add(self.shared.limits.tail));
        let mut tails = self.shared.tails.lock().unwrap_or_else(PoisonError::into_inner);
        while tails.try_join_next().is_some() {}
        tails.spawn(async move {
            let _permit = permit;
            if let Err(error) = drive(&core, &cx, &mut state, usize::MAX).await {
                tracing::warn!(graph = core.plan.name(), run = %cx.run(), %error, "a tail failed");
            }
        });
    }
}

/// Runs at once, as permits of a semaphore.
fn permits(limits: &Limits) -> u32 {
    u32::try_from(limits.runs.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("graph", &self.plan().name()).finish_non_exhaustive()
    }
}

/// A run under way: whatever way it ends, it is counted and its state goes back.
struct Running<'e> {
    shared: &'e Shared,
    state: Option<Box<State>>,
    ended: bool,
}

impl<'e> Running<'e> {
    fn begin(shared: &'e Shared, cx: &RunCx, rows: RecordBatch) -> Self {
        shared.core.metrics.in_flight.inc();
        let mut running = Self { shared, state: shared.states.pop(), ended: false };
        running.state().begin(&shared.core, cx, rows);
        running
    }

    fn state(&mut self) -> &mut State {
        self.state.get_or_insert_default()
    }

    fn finish(&mut self, start: Instant, rows: usize, ok: bool) {
        let metrics = &self.shared.core.metrics;
        self.ended = true;
        metrics.in_flight.dec();
        metrics.rows.inc_by(rows as u64);
        metrics.seconds.observe(now().saturating_duration_since(start).as_secs_f64());
        if ok { &metrics.ok } else { &metrics.failed }.inc();
    }

    fn take_state(&mut self) -> Box<State> {
        self.state.take().unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.core.metrics.in_flight.dec();
            self.shared.core.metrics.cancelled.inc();
        }
        if let Some(mut state) = self.state.take() {
            state.clear();
            // A state too many is freed.
            let _ = self.shared.states.push(state);
        }
    }
}

fn reply_of(
    plan: &Plan,
    run: RunId,
    rows: Option<millstream_graph::Rows>,
    degraded: Vec<crate::Degraded>,
) -> Reply {
    let (rows, origin) = match rows {
        Some(rows) => rows.into_parts(),
        None => (RecordBatch::new_empty(Arc::clone(plan.reply_schema())), Origin::Whole),
    };
    Reply { run, rows, origin, degraded }
}

/// The rows under the plan's own schema, which later steps recognise by its address.
fn with_schema_of(plan: &Plan, rows: RecordBatch) -> Result<RecordBatch, RunError> {
    let wanted = plan.input_schema();
    if Arc::ptr_eq(rows.schema_ref(), wanted) {
        return Ok(rows);
    }
    let text = |schema: &Schema| {
        let null = |f: &Field| if f.is_nullable() { "?" } else { "" };
        let columns = schema.fields().iter().map(|f| format!("{} {}{}", f.name(), f.data_type(), null(f)));
        columns.collect::<Vec<_>>().join(", ")
    };
    let refused = |rows: &RecordBatch| RunError::Input { wanted: text(wanted), got: text(rows.schema_ref()) };
    let mut columns = Vec::with_capacity(wanted.fields().len());
    for field in wanted.fields() {
        match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => columns.push(Arc::clone(column)),
            _ => return Err(refused(&rows)),
        }
    }
    if columns.len() != rows.num_columns() {
        return Err(refused(&rows));
    }
    RecordBatch::try_new(Arc::clone(wanted), columns).map_err(|_| refused(&rows))
}
