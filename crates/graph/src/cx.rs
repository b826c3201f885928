//! What every step of a run may read about it.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{Array, Int64Array};
use smallvec::SmallVec;

use crate::{Job, Origin, Rows, StepError, StepFuture, StepResult, Watch};

/// Names one run of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What one caller asked, without its rows.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The caller's name for it, if it gave one.
    pub id: Option<Arc<str>>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The caller's trace context (a W3C `traceparent`), if it gave one.
    pub trace: Option<Arc<str>>,
    /// How much it matters, when not everybody can be served.
    pub priority: Priority,
    /// Who wants to know how the steps went.
    pub watch: Option<Arc<dyn Watch>>,
    /// The time for which each of its rows asks, in microseconds since 1970 UTC, where that is not the present: what is looked up
    /// for a row is what was known then. A null asks for a time at which nothing was known.
    pub times: Option<Int64Array>,
}

/// How much a request matters, when not everybody can be served: those that matter least are refused first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody is harmed without an answer.
    Critical,
    /// As most requests.
    #[default]
    Normal,
    /// Others come first.
    Low,
    /// Nobody waits for it.
    Batch,
}

impl Priority {
    /// Every priority, the one that matters most first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Normal, Self::Low, Self::Batch];

    /// The priority's name on the wire and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Batch => "batch",
        }
    }

    /// The priority of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }
}

/// One request's share of a run: who asked, under which name, and how many of the run's rows are its own.
#[derive(Clone, Debug)]
pub struct Share {
    /// What this request's run is called, wherever its rows travel.
    pub run: RunId,
    /// The request.
    pub request: Request,
    /// How many rows it brought.
    pub rows: usize,
}

/// Where jobs run, for steps that wait for one themselves; what an engine's own jobs run on.
pub trait Compute: Send + Sync {
    /// Runs a job; a panic is its error. One that has not started when the future is dropped never does.
    fn run(&self, job: Job) -> StepFuture<'static>;
}

/// The requests a run serves, which rows are whose, and the time that remains.
///
/// Made by the engine, one per run; every step of the run reads the same one.
pub struct RunCx {
    run: RunId,
    shares: SmallVec<[Share; 1]>,
    deadline: Option<Instant>,
    clock: fn() -> Instant,
    compute: Option<Arc<dyn Compute>>,
}

impl RunCx {
    /// A run for one request of `rows` rows, timed by `clock`.
    pub fn new(run: RunId, request: Request, rows: usize, clock: fn() -> Instant) -> Self {
        let deadline = request.deadline;
        Self {
            run,
            shares: SmallVec::from_buf([Share { run, request, rows }]),
            deadline,
            clock,
            compute: None,
        }
    }

    /// A run for several requests, whose rows follow one another. It is called `run`, and goes on until the last of their
    /// deadlines.
    pub fn shared(run: RunId, shares: SmallVec<[Share; 1]>, clock: fn() -> Instant) -> Self {
        let deadlines = shares.iter().map(|share| share.request.deadline);
        let deadline = deadlines.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten();
        Self { run, shares, deadline, clock, compute: None }
    }

    /// This run's name.
    #[inline]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The requests this run serves, each with the rows of the run's input that are its own.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = (&Request, Range<usize>)> {
        self.shares().map(|(share, rows)| (&share.request, rows))
    }

    /// The shares of the requests in this run, each with the rows of the run's input that are its own.
    pub fn shares(&self) -> impl ExactSizeIterator<Item = (&Share, Range<usize>)> {
        let mut start = 0;
        self.shares.iter().map(move |share| {
            let range = start..start + share.rows;
            start += share.rows;
            (share, range)
        })
    }

    /// The time for which each of these rows asks, as [`Request::times`] of its request has it; `None` when all ask for the
    /// present. A row keeps its time whatever columns are dropped, as long as its place in the request is known.
    ///
    /// # Errors
    /// When rows have lost their place, or a request has times for another number of rows than it has.
    pub fn times(&self, rows: &Rows) -> Result<Option<Int64Array>, StepError> {
        if self.shares.iter().all(|share| share.request.times.is_none()) {
            return Ok(None);
        }
        if let ([Share { request: Request { times: Some(times), .. }, .. }], Origin::Whole) =
            (&self.shares[..], rows.origin())
            && times.len() == rows.len()
        {
            return Ok(Some(times.clone()));
        }
        let lost = || {
            StepError::internal(
                "the rows have lost their place in the request, and with it the time for which they ask",
            )
        };
        let time = |row: usize| {
            let place = rows.origin().place(row).ok_or_else(lost)? as usize;
            let share = self.shares().find(|(_, range)| range.contains(&place));
            let (share, range) = share.ok_or_else(lost)?;
            let of_present = || StepError::internal("rows that ask for the present came beside others");
            let times = share.request.times.as_ref().ok_or_else(of_present)?;
            let at = place - range.start;
            if times.len() != share.rows {
                let problem = format!("{} times for {} rows", times.len(), share.rows);
                return Err(StepError::internal(problem));
            }
            Ok(times.is_valid(at).then(|| times.value(at)))
        };
        (0..rows.len()).map(time).collect::<Result<Int64Array, StepError>>().map(Some)
    }

    /// Whether this run serves several requests.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.shares.len() > 1
    }

    /// When the run must be done.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The same run under another deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same run with a place for jobs.
    #[must_use]
    pub fn with_compute(mut self, compute: Option<Arc<dyn Compute>>) -> Self {
        self.compute = compute;
        self
    }

    /// The place for jobs of this run, if it has one.
    pub fn place_for_jobs(&self) -> Option<&Arc<dyn Compute>> {
        self.compute.as_ref()
    }

    /// Runs a job for a step that waits for it, such as a layer that has already waited for something else. A step that has
    /// nothing to wait for answers [`Work::Compute`](crate::Work::Compute), which may run inline.
    pub async fn compute(&self, job: Job) -> StepResult {
        match &self.compute {
            Some(compute) => compute.run(job).await,
            None => job(),
        }
    }

    /// The clock of the run, for what outlasts a borrow of this.
    pub fn clock(&self) -> fn() -> Instant {
        self.clock
    }

    /// The time that remains, `None` without a deadline; zero once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since((self.clock)()))
    }

    /// Whether the deadline has passed. Reads the clock only when there is a deadline.
    #[inline]
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| (self.clock)() >= deadline)
    }
}

impl std::fmt::Debug for RunCx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares = &self.shares;
        f.debug_struct("RunCx").field("run", &self.run).field("shares", shares).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, RecordBatch};
    use smallvec::smallvec;

    use super::*;

    fn share(times: Option<Vec<Option<i64>>>, rows: usize) -> Share {
        let request = Request { times: times.map(Int64Array::from), ..Request::default() };
        Share { run: RunId(1), request, rows }
    }

    /// What rows from these places of a run ask for.
    fn asked(
        shares: SmallVec<[Share; 1]>,
        origin: Origin,
        rows: usize,
    ) -> Result<Option<Vec<Option<i64>>>, String> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let cx = RunCx::shared(RunId(1), shares, Instant::now);
        let times = cx.times(&Rows::with_origin(batch, origin)).map_err(|error| error.to_string())?;
        Ok(times.map(|times| times.iter().collect()))
    }

    #[test]
    fn a_row_keeps_the_time_for_which_its_request_asks() {
        let two = || smallvec![share(Some(vec![Some(10), None]), 2), share(Some(vec![Some(30)]), 1)];
        let picked = |places: &[u32]| Origin::Picked(places.into());
        assert_eq!(asked(two(), Origin::Whole, 3), Ok(Some(vec![Some(10), None, Some(30)])));
        assert_eq!(asked(two(), picked(&[2, 0, 1]), 3), Ok(Some(vec![Some(30), Some(10), None])));
        let one = || smallvec![share(Some(vec![Some(10), Some(20)]), 2)];
        assert_eq!(asked(one(), Origin::Whole, 2), Ok(Some(vec![Some(10), Some(20)])));
        assert_eq!(asked(one(), picked(&[1]), 1), Ok(Some(vec![Some(20)])));
        assert_eq!(asked(smallvec![share(None, 2)], Origin::Lost, 5), Ok(None));
    }

    #[test]
    fn times_that_cannot_be_told_are_an_error() {
        let asks = |shares, origin, rows| asked(shares, origin, rows).unwrap_err();
        let lost = asks(smallvec![share(Some(vec![Some(1)]), 1)], Origin::Lost, 1);
        assert!(lost.contains("have lost their place"), "{lost}");
        let short = asks(smallvec![share(Some(vec![Some(1)]), 2)], Origin::Whole, 2);
        assert!(short.contains("1 times for 2 rows"), "{short}");
        let mixed = asks(smallvec![share(Some(vec![Some(1)]), 1), share(None, 1)], Origin::Whole, 2);
        assert!(mixed.contains("ask for the present"), "{mixed}");
    }
}
