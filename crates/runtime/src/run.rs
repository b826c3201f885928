//! The execution model: one run of one plan.
//!
//! A run is a dense array of tokens, a countdown per step, and the set of steps whose tokens have all arrived. Steps are
//! taken from that set in topological order. A step that answers at once is settled at once: its tokens go to its
//! readers, and the loop goes on. What waits or computes elsewhere stands in one `FuturesUnordered`, owned by the run and
//! dropped with it. Nothing is spawned, and in steady state a chain of inline steps allocates nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use futures_util::{StreamExt, stream::FuturesUnordered};
use millstream_graph::{
    EdgeId, ErrorKind, Job, Origin, Phase, Rows, RunCx, Seen, StepError, StepFuture, StepId, StepResult, Work,
};
use tokio::time::timeout_at;

use crate::{
    Reply, RunError,
    core::Core,
    panics,
    pool::timed,
    state::{Settled, State},
};

/// Inline work after which a run lets others have the thread.
const STRETCH: Duration = Duration::from_micros(200);
/// What a step that answered at once counts for: reading the clock for each would cost as much as the step.
const STEP: Duration = Duration::from_nanos(100);

/// Runs a plan up to its reply. What stays in the state is the tail.
pub(crate) async fn reply(
    core: &Core,
    cx: &RunCx,
    state: &mut State,
    rows: RecordBatch,
) -> Result<Reply, RunError> {
    state.begin(core, cx, rows);
    let outcome = drive(core, cx, state, core.main_end).await;
    state.replied = true;
    state.times.count(core);
    if !cx.is_shared() {
        state.count(core);
        state.times.tell(core, cx, &state.degraded);
    }
    match (outcome, state.reply.take(), state.failure.take()) {
        (Err(error), ..) => {
            // What broke off has no tail.
            state.live.reset(core.plan.steps().len());
            Err(error)
        }
        (Ok(()), None, Some(error)) => Err(error),
        (Ok(()), rows, _) => {
            let degraded = std::mem::take(&mut state.degraded);
            if !degraded.is_empty() && !cx.is_shared() {
                core.metrics.degraded.inc();
            }
            let (rows, origin) = match rows {
                Some(rows) => rows.into_parts(),
                None => (RecordBatch::new_empty(Arc::clone(core.plan.reply_schema())), Origin::Whole),
            };
            Ok(Reply { run: cx.run(), rows, origin, degraded })
        }
    }
}

/// Runs every step before `end` whose tokens arrive, until nothing is left to do.
pub(crate) async fn drive(core: &Core, cx: &RunCx, state: &mut State, end: usize) -> Result<(), RunError> {
    let mut in_flight = InFlight::default();
    loop {
        let mut called = StepId(0);
        state.times.resume();
        let stretch = || run_ready(core, cx, state, end, &mut in_flight, &mut called);
        // One guard for a whole stretch: steps are the only code in it that is not ours, and at most one is in a call.
        match catch_unwind(AssertUnwindSafe(stretch)) {
            Ok(Stretch::Failed(error)) => return Err(*error),
            Ok(Stretch::TooLong) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(Stretch::NothingReady) => {}
            Err(panic) => {
                let result = Err(panics::error(&*panic));
                if answered(core, cx, state, called, result)? == Settled::Abandoned {
                    in_flight.drop_all();
                }
                continue;
            }
        }
        if in_flight.is_empty() {
            // Only now is it known that no step failed, which is what the error handler waits for.
            if !state.tell_handler(core, cx, None) {
                return Ok(());
            }
            continue;
        }
        let (id, result) = in_flight.next(cx).await.map_err(|id| core.failed(cx, id, deadline()))?;
        if answered(core, cx, state, id, result)? == Settled::Abandoned {
            in_flight.drop_all();
        }
    }
}

/// How a stretch of inline work ended.
enum Stretch {
    NothingReady,
    TooLong,
    Failed(Box<RunError>),
}

/// Starts steps as long as any is ready, and settles those that answer at once. `called` is the step in a call.
fn run_ready<'r>(
    core: &'r Core,
    cx: &'r RunCx,
    state: &mut State,
    end: usize,
    in_flight: &mut InFlight<'r>,
    called: &mut StepId,
) -> Stretch {
    let mut stretch = Duration::ZERO;
    while let Some((id, input, rows)) = state.next_call(core, cx, end) {
        if cx.expired() {
            return Stretch::Failed(Box::new(core.failed(cx, id, deadline())));
        }
        *called = id;
        state.times.called(id, rows);
        let refused = core.guard.refuses(id);
        let settled = if let Some(error) = refused {
            answered(core, cx, state, id, Err(error))
        } else {
            match core.plan.steps()[id.index()].step().call(input, cx) {
                Work::Done(result) => {
                    stretch += STEP;
                    answered(core, cx, state, id, result)
                }
                Work::Io(future) => {
                    in_flight.push(id, future);
                    state.times.resume();
                    continue;
                }
                Work::Compute(job) => match compute(core, cx, id, rows, job) {
                    Computed::Here(result, took) => {
                        stretch += took;
                        answered(core, cx, state, id, result)
                    }
                    Computed::Elsewhere(future) => {
                        in_flight.push(id, future);
                        state.times.resume();
                        continue;
                    }
                },
            }
        };
        match settled {
            Ok(Settled::Delivered) => {}
            Ok(Settled::Abandoned) => in_flight.drop_all(),
            Err(error) => return Stretch::Failed(Box::new(error)),
        }
        if stretch > STRETCH {
            return Stretch::TooLong;
        }
    }
    Stretch::NothingReady
}

/// Where a job has gone.
enum Computed<'r> {
    Here(StepResult, Duration),
    Elsewhere(StepFuture<'r>),
}

/// Runs a job here when it is known to be cheap, else on the pool.
fn compute<'r>(core: &'r Core, cx: &RunCx, id: StepId, rows: usize, job: Job) -> Computed<'r> {
    let cost = &core.costs[id.index()];
    let Some(pool) = core.pool_for(cost, rows, cx.requests().len()) else {
        let (result, took) = timed(job);
        cost.learn(rows, took);
        return Computed::Here(result, took);
    };
    Computed::Elsewhere(Box::pin(async move {
        let (result, waited, took) = pool.run(job).await;
        core.metrics.pool_wait.record(waited);
        cost.learn(rows, took);
        result
    }))
}

/// Notes when a step answered, and settles it.
// Inline, because in `settle` even the question whether the run is timed costs its answer a copy.
#[inline]
fn answered(
    core: &Core,
    cx: &RunCx,
    state: &mut State,
    id: StepId,
    result: StepResult,
) -> Result<Settled, RunError> {
    state.times.answered(id);
    settle(core, cx, state, id, result)
}

/// Hands a step's answer to its readers, or its failure to whoever takes care of it.
fn settle(
    core: &Core,
    cx: &RunCx,
    state: &mut State,
    id: StepId,
    result: StepResult,
) -> Result<Settled, RunError> {
    core.guard.learn(id, &result);
    let error = match result {
        Ok(output) => match state.deliver_output(core, cx, id, output) {
            Ok(()) => return Ok(Settled::Delivered),
            Err(error) => error,
        },
        Err(error) => error,
    };
    state.times.failed(id, error.kind());
    if cx.is_shared() {
        // Whose rows are to blame is not known. Each request runs again alone, and its own failure is routed and counted.
        return Err(core.failed(cx, id, error));
    }
    core.metrics.step_failed(&core.plan, id, &error);
    let Some(error) = state.route(core, cx, id, error) else { return Ok(Settled::Delivered) };
    let step = &core.plan.steps()[id.index()];
    if step.phase() == Phase::Tail && state.replied {
        tracing::warn!(graph = core.plan.name(), step = %step.name(), run = %cx.run(), %error, "a step of the tail failed");
        state.skip(core, cx, id);
        return Ok(Settled::Delivered);
    }
    let failure = core.failed(cx, id, error.clone());
    if step.behind_handler() || core.plan.handler_edges().is_empty() {
        return Err(state.failure.take().unwrap_or(failure));
    }
    state.failure = Some(failure);
    state.abandon(core, cx);
    state.tell_handler(core, cx, Some((step.name(), &error)));
    Ok(Settled::Abandoned)
}

fn deadline() -> StepError {
    StepError::new(ErrorKind::DeadlineExceeded, "the deadline passed")
}

/// What waits or computes elsewhere. Most runs have nothing in flight, so the set is made when it is first needed.
#[derive(Default)]
struct InFlight<'r> {
    set: Option<FuturesUnordered<Pending<'r>>>,
}

struct Pending<'r> {
    id: StepId,
    future: StepFuture<'r>,
}

impl Future for Pending<'_> {
    type Output = (StepId, StepResult);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.id;
        let future = &mut self.future;
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(|result| (id, result)),
            Err(panic) => Poll::Ready((id, Err(panics::error(&*panic)))),
        }
    }
}

impl<'r> InFlight<'r> {
    fn push(&mut self, id: StepId, future: StepFuture<'r>) {
        self.set.get_or_insert_with(FuturesUnordered::new).push(Pending { id, future });
    }

    fn is_empty(&self) -> bool {
        self.set.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    fn drop_all(&mut self) {
        self.set = None;
    }

    /// The next answer, or the first of the steps that were still in flight when the deadline passed.
    async fn next(&mut self, cx: &RunCx) -> Result<(StepId, StepResult), StepId> {
        let Some(set) = &mut self.set else { return std::future::pending().await };
        let answer = match cx.deadline() {
            None => set.next().await,
            Some(deadline) => timeout_at(deadline.into(), set.next()).await.ok().flatten(),
        };
        match answer {
            Some(answer) => Ok(answer),
            None => Err(set.iter().map(|pending| pending.id).min().unwrap_or(StepId(0))),
        }
    }
}

/// The engine's clock; it follows a paused clock in tests.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Lets the taps of an edge see rows of a run. A tap that panics is counted and otherwise ignored.
pub(crate) fn observe(core: &Core, edge: EdgeId, rows: &Rows, cx: &RunCx) {
    let seen = Seen::new(rows, edge, cx);
    for tap in core.plan.edges()[edge.index()].taps() {
        if catch_unwind(AssertUnwindSafe(|| tap.observe(&seen))).is_err() {
            core.metrics.tap_panics.inc();
        }
    }
}
