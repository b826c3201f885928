//! The object an application holds: a plan, its pool, and admission.

use std::{
    future::Future,
    ops::{Deref, DerefMut, Range},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_graph::{Plan, Priority, Request, RunCx, RunId, Share};

use crate::{
    Metrics, Reply, RunError,
    admission::{Admission, Budget, Permit, Refusal, Reserved},
    core::Core,
    metrics::GraphMetrics,
    pool::ComputePool,
    run::{drive, now, reply},
    state::State,
    sync::{
        Mutex, PoisonError, Tasks,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What an engine may use at once.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Runs under way, their tails included. Further callers of [`Engine::run`] wait, of [`Engine::try_run`] are refused.
    pub runs: usize,
    /// Whether fewer runs are let in while they take so long that they must be waiting for each other.
    pub adaptive: bool,
    /// Bytes of request bodies under way; see [`Engine::reserve`].
    pub bytes: usize,
    /// The time a run has when its request says nothing; `None` is no limit.
    pub deadline: Option<Duration>,
    /// Threads for compute that is too expensive for an async worker; 0 computes inline always.
    pub compute_threads: usize,
    /// A pool that engines share, in the place of so many threads of their own.
    pub compute_pool: Option<ComputePool>,
    /// The time that the steps after the reply have.
    pub tail: Duration,
    /// Compute jobs that may wait for a thread; beyond that, runs wait.
    pub compute_queue: usize,
    /// Rows of requests that come together and share a run; 1 gives every request a run of its own. A request with as many
    /// rows has a run of its own in any case.
    pub shared_rows: usize,
    /// Shared runs under way; while there are as many, requests gather.
    pub shared_runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let compute_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            runs: 1024,
            adaptive: true,
            bytes: 256 << 20,
            deadline: None,
            tail: Duration::from_secs(30),
            compute_threads,
            compute_pool: None,
            compute_queue: 1024,
            shared_rows: 64,
            shared_runs: 4 * compute_threads,
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
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    limits: Limits,
    admission: Arc<Admission>,
    budget: Arc<Budget>,
    /// States of finished runs, for the next ones: the last first, because its memory is still near.
    states: Stock,
    /// Tails and shared runs under way; dropped, and so cancelled, with the engine.
    owned: Mutex<Tasks>,
    next_run: AtomicU64,
}

/// Boxed, so that a state moves between the stock and its run as one pointer.
type Stock = Mutex<Vec<Box<State>>>;

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
        let pool = match (limits.compute_threads, &limits.compute_pool) {
            (0, _) => None,
            (_, Some(shared)) => Some(shared.clone()),
            (threads, None) => Some(ComputePool::new(threads, limits.compute_queue)?),
        };
        let metrics = metrics.graph(&plan);
        let shared = Shared {
            admission: Admission::new(&limits, metrics.concurrency_limit.clone()),
            core: Arc::new(Core::new(Arc::new(plan), pool, metrics)),
            budget: Budget::new(limits.bytes),
            states: Mutex::default(),
            limits,
            owned: Mutex::default(),
            next_run: AtomicU64::new(1),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
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
        let permit = self.shared.admission.enter().await.map_err(|_| RunError::Closed)?;
        self.fitting(permit, request, rows).await
    }

    /// Like [`Engine::run_request`], but refuses at once when as many runs are under way as the limits allow.
    ///
    /// # Errors
    /// [`RunError::Overloaded`], or as [`Engine::run`].
    pub async fn try_run(&self, request: Request, rows: RecordBatch) -> Result<Reply, RunError> {
        let permit = self.shared.permit(request.priority)?;
        self.fitting(permit, request, rows).await
    }

    /// Whether a request would be let in right now: asked before anything is spent on one that would not. Counts a refusal.
    ///
    /// # Errors
    /// [`RunError::Overloaded`] or [`RunError::Closed`].
    pub fn check_room(&self, priority: Priority) -> Result<(), RunError> {
        // The permit goes back at once; whoever comes to run takes one of its own.
        self.shared.permit(priority).map(drop)
    }

    /// Reserves bytes for the body of a request, to be held until it is answered. Counts a refusal.
    ///
    /// # Errors
    /// [`RunError::Overloaded`] when the bodies under way have as many as [`Limits::bytes`] allows.
    pub fn reserve(&self, bytes: usize) -> Result<Reserved, RunError> {
        self.shared.budget.reserve(bytes).ok_or_else(|| self.no_room())
    }

    /// Counts the refusal of a request whose body found no more room while it was read.
    pub fn no_room(&self) -> RunError {
        self.shared.core.metrics.refused.inc();
        RunError::Overloaded
    }

    /// Takes no more runs, and waits until those under way and their tails have ended.
    pub async fn close(&self) {
        self.shared.admission.close().await;
    }

    async fn fitting(&self, permit: Permit, request: Request, rows: RecordBatch) -> Result<Reply, RunError> {
        let plan = self.plan();
        // Whoever made rows of the plan's own carried schema has left the other columns out.
        let carried = Arc::ptr_eq(plan.carried_schema(), rows.schema_ref());
        let rows = if carried { rows } else { with_schema_of(plan.input_schema(), rows)? };
        let (mut admitted, request) = self.shared.admit(request, rows.num_rows());
        self.shared.alone(permit, &mut admitted, request, rows).await
    }
}

impl Shared {
    pub(crate) fn permit(&self, priority: Priority) -> Result<Permit, RunError> {
        self.admission.try_enter(priority).map_err(|refusal| match refusal {
            Refusal::Closed => RunError::Closed,
            Refusal::Full => {
                self.core.metrics.refused.inc();
                RunError::Overloaded
            }
        })
    }

    /// Names the run of a request, counts it, and gives it the deadline that it does not bring.
    pub(crate) fn admit(&self, mut request: Request, rows: usize) -> (Admitted<'_>, Request) {
        let start = now();
        if let (None, Some(limit)) = (request.deadline, self.limits.deadline) {
            request.deadline = start.checked_add(limit);
        }
        self.core.metrics.in_flight.inc();
        let run = RunId(self.next_run.fetch_add(1, Relaxed));
        (
            Admitted {
                metrics: &self.core.metrics,
                admission: &self.admission,
                run,
                start,
                rows,
                ended: false,
            },
            request,
        )
    }

    /// A run for one request.
    pub(crate) async fn alone(
        &self,
        permit: Permit,
        admitted: &mut Admitted<'_>,
        request: Request,
        rows: RecordBatch,
    ) -> Result<Reply, RunError> {
        let cx = RunCx::new(admitted.run, request, rows.num_rows(), now).with_compute(self.core.jobs.clone());
        let mut state = self.state();
        let reply = reply(&self.core, &cx, &mut state, rows).await;
        admitted.finish(reply.is_ok());
        if state.has_tail(&self.core) {
            self.start_tail(state.take(), cx, permit);
        }
        reply
    }

    /// A state from the stock, which goes back when it is dropped.
    pub(crate) fn state(&self) -> Stocked<'_> {
        let kept = self.states.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Stocked { stock: &self.states, state: Some(kept.unwrap_or_default()) }
    }

    /// The rest of a run, after its reply. It holds the run's permit, so tails are bounded as runs are.
    pub(crate) fn start_tail(&self, mut state: Box<State>, cx: RunCx, permit: Permit) {
        // The task owns the core and not the engine: when the engine goes, so does its `JoinSet` and with it the tail.
        let core = Arc::clone(&self.core);
        let cx = cx.with_deadline(now().checked_add(self.limits.tail));
        state.times.begin(&core, &cx);
        self.own(async move {
            let _permit = permit;
            if let Err(error) = drive(&core, &cx, &mut state, usize::MAX).await {
                tracing::warn!(graph = core.plan.name(), run = %cx.run(), %error, "a tail failed");
            }
            state.times.count(&core);
            state.times.tell(&core, &cx, &state.degraded);
            state.count(&core);
        });
    }

    /// The tail of one of the requests that shared a run.
    pub(crate) fn start_tail_of(&self, state: &State, share: &Share, rows: &Range<usize>, permit: Permit) {
        match state.cut(&self.core, rows) {
            Ok(state) if state.has_tail(&self.core) => {
                let cx = RunCx::new(share.run, share.request.clone(), share.rows, now)
                    .with_compute(self.core.jobs.clone());
                self.start_tail(Box::new(state), cx, permit);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(graph = self.core.plan.name(), run = %share.run, %error, "a tail failed");
            }
        }
    }

    /// Runs what no caller waits for alone. It ends with the engine.
    pub(crate) fn own(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.spawn(task);
    }
}

/// A run that failed by then failed at once.
const SOON: Duration = Duration::from_millis(1);
/// So many states are kept; a state too many is freed.
const STOCK: usize = 64;

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("graph", &self.plan().name()).finish_non_exhaustive()
    }
}

/// A request under way: whatever way it ends, it is counted.
pub(crate) struct Admitted<'e> {
    metrics: &'e GraphMetrics,
    admission: &'e Admission,
    pub(crate) run: RunId,
    pub(crate) start: Instant,
    rows: usize,
    ended: bool,
}

impl Admitted<'_> {
    pub(crate) fn finish(&mut self, ok: bool) {
        let metrics = self.metrics;
        self.ended = true;
        metrics.in_flight.dec();
        metrics.rows.inc_by(self.rows as u64);
        let end = now();
        let took = end.saturating_duration_since(self.start);
        metrics.seconds.record(took);
        // One that failed at once says nothing about how long runs take.
        if ok || took > SOON {
            self.admission.ended(self.start, end);
        }
        if ok {
            metrics.ok.inc();
        } else {
            metrics.failed.inc();
            metrics.failed_nanos.inc_by(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.in_flight.dec();
            self.metrics.cancelled.inc();
        }
    }
}

/// A state in use, which goes back to the engine's stock however the run ends.
pub(crate) struct Stocked<'e> {
    stock: &'e Stock,
    state: Option<Box<State>>,
}

impl Stocked<'_> {
    /// Keeps the state beyond the run.
    pub(crate) fn take(mut self) -> Box<State> {
        self.state.take().unwrap_or_default()
    }
}

impl Deref for Stocked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        match &self.state {
            Some(state) => state,
            None => unreachable!("the state leaves only with its owner"),
        }
    }
}

impl DerefMut for Stocked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        match &mut self.state {
            Some(state) => state,
            None => unreachable!("the state leaves only with its owner"),
        }
    }
}

impl Drop for Stocked<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.state.take() {
            state.clear();
            let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
            if stock.len() < STOCK {
                stock.push(state);
            }
        }
    }
}

/// The rows under the plan's own schema, which later steps recognise by its address.
pub(crate) fn with_schema_of(wanted: &SchemaRef, rows: RecordBatch) -> Result<RecordBatch, RunError> {
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
