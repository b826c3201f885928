//! What a run tells of its steps to a request that asks: when each was called, for how long, and how it ended.

use std::time::{Duration, Instant};

use crate::{ErrorKind, Plan, RunId, StepId};

/// Hears how the steps of one request went, such as for a trace. A request brings it along: [`Request::watch`](crate::Request::watch).
///
/// It cannot change, delay or fail a run: it is told once the steps up to the reply have ended, and once more after the tail,
/// both times on the run's thread, so it returns promptly. A shared run that is repeated per request tells of the repeats only.
pub trait Watch: std::fmt::Debug + Send + Sync + 'static {
    /// Takes in what ran.
    fn ran(&self, ran: &Ran<'_>);
}

/// The steps that ran for one request, and who shared them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Ran<'r> {
    /// What ran.
    pub plan: &'r Plan,
    /// What the request's run is called.
    pub run: RunId,
    /// Requests that ran together, this one included.
    pub requests: usize,
    /// Rows of all requests that ran together.
    pub rows: usize,
    /// The steps that were called, in the order of their calls.
    pub calls: &'r [StepCall],
}

impl<'r> Ran<'r> {
    /// Made by the engine.
    pub fn new(plan: &'r Plan, run: RunId, requests: usize, rows: usize, calls: &'r [StepCall]) -> Self {
        Self { plan, run, requests, rows, calls }
    }
}

/// One call of a step.
#[derive(Clone, Debug)]
pub struct StepCall {
    /// The step.
    pub step: StepId,
    /// When it was called, by the engine's clock.
    pub start: Instant,
    /// From its call to its answer, `None` when the run ended before.
    pub took: Option<Duration>,
    /// Rows that it was given, those of all requests that ran together.
    pub rows: usize,
    /// How it failed, if it did.
    pub error: Option<ErrorKind>,
    /// Whether something stood in for its answer, or part of it.
    pub degraded: bool,
}
