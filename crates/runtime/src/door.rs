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

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Instant,
};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::SchemaRef,
    error::ArrowError,
};
use futures_util::future::{Either, poll_fn, select};
use millstream_graph::{Origin, Request, RunCx, RunId, Share};
use smallvec::SmallVec;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout_at,
};

use crate::{
    Engine, Reply, RunError,
    engine::Shared,
    run::{now, reply},
};

/// How the rows of several requests become one batch.
pub trait Gather: Send + Sync + 'static {
    /// What one request brings.
    type Part: Send;
    /// What has been brought so far.
    type Gathered: Default + Send;

    /// Adds what a request brings. This happens while other requests wait to do the same: it only copies.
    fn add(&self, gathered: &mut Self::Gathered, part: Self::Part);

    /// The rows of all parts, in the order in which they were added, under the plan's input schema.
    ///
    /// # Errors
    /// When they cannot be put together, such as for want of room in offsets of 32 bits.
    fn batch(&self, gathered: Self::Gathered) -> Result<RecordBatch, ArrowError>;
}

/// Gathers batches by appending them.
#[derive(Debug)]
pub struct Append {
    schema: SchemaRef,
}

impl Append {
    /// Appends batches of this schema.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

impl Gather for Append {
    type Part = RecordBatch;
    type Gathered = SmallVec<[RecordBatch; 1]>;

    fn add(&self, gathered: &mut Self::Gathered, part: RecordBatch) {
        gathered.push(part);
    }

    fn batch(&self, mut gathered: Self::Gathered) -> Result<RecordBatch, ArrowError> {
        match (gathered.len(), gathered.pop()) {
            (1, Some(one)) => Ok(one),
            (_, last) => {
                gathered.extend(last);
                concat_batches(&self.schema, &gathered)
            }
        }
    }
}

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
///     door.run(Request::default(), 1, rows! { id: [7_i64] }),
///     door.run(Request::default(), 2, rows! { id: [8_i64, 9] }),
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

type Entries = SmallVec<[Entry; 1]>;

/// One request of a shared run.
struct Entry {
    share: Share,
    permit: OwnedSemaphorePermit,
    answer: oneshot::Sender<Outcome>,
}

/// What a caller hears of the shared run.
enum Outcome {
    Reply(Portion),
    Failed(RunError),
    Alone(Alone),
}

/// The rows of a request that runs alone after all, and what it holds.
struct Alone {
    batch: RecordBatch,
    permit: OwnedSemaphorePermit,
    /// The door's, when nobody else came.
    slot: Option<OwnedSemaphorePermit>,
}

/// One request's rows of a reply, which other requests may share.
#[derive(Clone, Debug)]
pub struct Portion {
    run: RunId,
    reply: Arc<Reply>,
    range: Range<usize>,
    /// Where the request's rows began in the run's input.
    start: usize,
}

/// All rows of a reply, to a request that had a run to itself.
impl From<Reply> for Portion {
    fn from(reply: Reply) -> Self {
        let range = 0..reply.rows().num_rows();
        Self { run: reply.run(), reply: Arc::new(reply), range, start: 0 }
    }
}

impl Portion {
    /// The reply as if the request had run alone.
    pub fn into_reply(self) -> Reply {
        let Self { run, reply, range, start } = self;
        let reply = match Arc::try_unwrap(reply) {
            Ok(alone) if alone.run == run && range == (0..alone.rows.num_rows()) => return alone,
            Ok(shared) => shared,
            Err(shared) => (*shared).clone(),
        };
        let rows = reply.rows.slice(range.start, range.len());
        let place = |row| reply.origin.place(row).map(|place| place - start as u32);
        let origin = range.map(place).collect::<Option<Arc<[u32]>>>().map_or(Origin::Lost, Origin::Picked);
        Reply { run, rows, origin, degraded: reply.degraded }
    }

    /// The request's run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The reply whose rows in [`range`](Self::range) are this request's. The other rows are other requests'.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Which rows of the reply are this request's.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// This request's rows.
    pub fn rows(&self) -> RecordBatch {
        self.reply.rows().slice(self.range.start, self.range.len())
    }
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

    /// Runs a request of `rows` rows, together with those that come at the same time.
    ///
    /// Refuses at once when as many requests are under way as the engine's limits allow. Dropping the future withdraws the
    /// request.
    ///
    /// # Errors
    /// As [`Engine::try_run`].
    pub async fn run(&self, request: Request, rows: usize, part: G::Part) -> Result<Portion, RunError> {
        let shared = &*self.engine.shared;
        let permit = shared.permit()?;
        let (mut admitted, request) = shared.admit(request, rows);
        if !self.shares || rows == 0 || rows >= self.rows || !self.patience.shares() {
            let batch = self.batch_of(part)?;
            return shared.alone(permit, &mut admitted, request, batch).await.map(Portion::from);
        }
        let share = Share { run: admitted.run, request: request.clone(), rows };
        let (leads, answer) = self.enter(share, permit, part);
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
        permit: OwnedSemaphorePermit,
        part: G::Part,
    ) -> (Option<u64>, oneshot::Receiver<Outcome>) {
        let (answer, told) = oneshot::channel();
        let rows = share.rows;
        let entry = Entry { share, permit, answer };
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
        shared.core.metrics.shared_rows.observe(batch.num_rows() as f64);
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
        let Gathering { gathered, mut entries, .. } = gathering;
        let batch = match self.gather.batch(gathered) {
            Ok(batch) => batch,
            Err(error) => {
                entries.into_iter().for_each(|entry| entry.tell(Outcome::Failed(unfit(&error))));
                return None;
            }
        };
        let timed = entries.iter().any(|entry| entry.share.request.deadline.is_some());
        let now = timed.then(now);
        if entries.iter().all(|entry| entry.waits(now)) {
            return Some((batch, entries));
        }
        let keep: BooleanArray = entries
            .iter()
            .flat_map(|entry| std::iter::repeat_n(Some(entry.waits(now)), entry.share.rows))
            .collect();
        let (stay, gone): (Entries, Entries) = entries.drain(..).partition(|entry| entry.waits(now));
        for entry in gone {
            let run = entry.share.run;
            entry.tell(Outcome::Failed(RunError::DeadlineExceeded { run }));
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

impl Entry {
    fn alone(self, batch: RecordBatch, slot: Option<OwnedSemaphorePermit>) {
        let alone = Alone { batch, permit: self.permit, slot };
        let _ = self.answer.send(Outcome::Alone(alone));
    }

    fn tell(self, outcome: Outcome) {
        // A caller that has gone needs no answer.
        let _ = self.answer.send(outcome);
    }

    /// Whether the caller is there and has time.
    fn waits(&self, now: Option<Instant>) -> bool {
        let late = self.share.request.deadline.zip(now).is_some_and(|(deadline, now)| now >= deadline);
        !late && !self.answer.is_closed()
    }
}

/// Rows that could not be put together are nobody's fault but ours.
fn unfit(error: &ArrowError) -> RunError {
    RunError::Gather { reason: error.to_string() }
}

/// What becomes of a request that waits for its shared run.
async fn told(answer: oneshot::Receiver<Outcome>, deadline: Option<Instant>, run: RunId) -> Outcome {
    let mut answer = answer;
    if let Ok(outcome) = answer.try_recv() {
        return outcome;
    }
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => match timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => return Outcome::Failed(RunError::DeadlineExceeded { run }),
        },
    };
    // The sender goes without a word only when the engine goes, and takes its tasks with it.
    answer.unwrap_or(Outcome::Failed(RunError::Closed))
}

/// Each request runs alone.
fn send_alone(batch: &RecordBatch, entries: Entries) {
    let mut start = 0;
    for entry in entries {
        let rows = entry.share.rows;
        entry.alone(batch.slice(start, rows), None);
        start += rows;
    }
}

/// Runs the rows of several requests as one, and tells each its part. Answers whether that did them any good.
async fn together(shared: &Shared, batch: RecordBatch, mut entries: Entries) -> bool {
    let shares: SmallVec<[Share; 1]> = entries.iter().map(|entry| entry.share.clone()).collect();
    let cx = RunCx::shared(shares[0].run, shares, now);
    let mut state = shared.state();
    let outcome = {
        let run = std::pin::pin!(reply(&shared.core, &cx, &mut state, batch.clone()));
        let gone = poll_fn(|cx| {
            let gone = entries.iter_mut().all(|entry| entry.answer.poll_closed(cx).is_ready());
            if gone { Poll::Ready(()) } else { Poll::Pending }
        });
        match select(run, gone).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => return true,
        }
    };
    let stands = outcome.ok().filter(|reply| reply.degraded().is_empty());
    let parted = stands.and_then(|reply| Some((parts(&reply, &cx)?, reply)));
    let Some((parts, reply)) = parted.filter(|_| state.tell_taps(&shared.core, &cx).is_ok()) else {
        send_alone(&batch, entries);
        return false;
    };
    state.count(&shared.core);
    let has_tail = state.has_tail(&shared.core);
    let reply = Arc::new(reply);
    for ((entry, range), (share, rows)) in entries.into_iter().zip(parts).zip(cx.shares()) {
        let portion = Portion { run: share.run, reply: Arc::clone(&reply), range, start: rows.start };
        let Entry { permit, answer, .. } = entry;
        // A caller that has gone needs no answer.
        let _ = answer.send(Outcome::Reply(portion));
        if has_tail {
            shared.start_tail_of(&state, share, &rows, permit);
        }
    }
    true
}

/// Which rows of a reply are whose; `None` when they do not stand in the order of the requests.
fn parts(reply: &Reply, cx: &RunCx) -> Option<SmallVec<[Range<usize>; 16]>> {
    let rows = reply.rows().num_rows();
    let place = |row: &usize| reply.place(*row);
    let mut end = 0;
    let parts = cx.shares().map(|(_, range)| {
        let start = end;
        while end < rows && (place(&end)? as usize) < range.end {
            end += 1;
        }
        Some(start..end)
    });
    let parts = parts.collect::<Option<SmallVec<_>>>()?;
    let ordered = (1..rows).all(|row| place(&(row - 1)) <= place(&row));
    (ordered && end == rows).then_some(parts)
}

/// Whether others are to be expected. To let others come costs a turn of the scheduler, which wakes a second thread to look for
/// work; where requests come one by one, that would be the dearest part of many.
#[derive(Debug, Default)]
struct Crowd {
    /// Leaders that still let others come since somebody last did.
    hope: AtomicU32,
    leaders: AtomicU32,
}

impl Crowd {
    /// Whether a leader should let others come, when so many requests are under way: yes while there is company, and now and
    /// then to see whether there is.
    fn expected(&self, under_way: i64) -> bool {
        let turn = self.leaders.fetch_add(1, Relaxed);
        under_way > 1 || self.hope.load(Relaxed) > 0 || turn.is_multiple_of(32)
    }

    fn learn(&self, came: usize) {
        if came > 1 {
            self.hope.store(64, Relaxed);
        } else {
            let less = self.hope.load(Relaxed).saturating_sub(1);
            self.hope.store(less, Relaxed);
        }
    }
}

/// How many requests run alone after a shared run that did no good: such runs cost twice, and what failed once fails again.
#[derive(Debug, Default)]
struct Patience {
    alone: AtomicU32,
    last: AtomicU32,
}

impl Patience {
    /// Whether requests should share runs now.
    fn shares(&self) -> bool {
        let fewer = |alone: u32| alone.checked_sub(1);
        self.alone.load(Relaxed) == 0 || self.alone.fetch_update(Relaxed, Relaxed, fewer).is_err()
    }

    fn learn(&self, good: bool) {
        if good {
            self.last.store(0, Relaxed);
            return;
        }
        let next = (self.last.load(Relaxed) * 2).clamp(16, 4096);
        self.last.store(next, Relaxed);
        self.alone.store(next, Relaxed);
    }
}
