//! What every step of a run may read about it.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

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
}

/// The requests a run serves, which rows are whose, and the time that remains.
///
/// Made by the engine, one per run; every step of the run reads the same one.
#[derive(Debug)]
pub struct RunCx {
    run: RunId,
    requests: SmallVec<[(Request, usize); 1]>,
    deadline: Option<Instant>,
    clock: fn() -> Instant,
}

impl RunCx {
    /// A run for one request of `rows` rows, timed by `clock`.
    pub fn new(run: RunId, request: Request, rows: usize, clock: fn() -> Instant) -> Self {
        let deadline = request.deadline;
        Self { run, requests: SmallVec::from_buf([(request, rows)]), deadline, clock }
    }

    /// This run's name.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The requests this run serves, each with the rows of the run's input that are its own.
    pub fn requests(&self) -> impl Iterator<Item = (&Request, Range<usize>)> {
        let mut start = 0;
        self.requests.iter().map(move |(request, rows)| {
            let range = start..start + rows;
            start += rows;
            (request, range)
        })
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

    /// The time that remains, `None` without a deadline; zero once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since((self.clock)()))
    }

    /// Whether the deadline has passed. Reads the clock only when there is a deadline.
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| (self.clock)() >= deadline)
    }
}
