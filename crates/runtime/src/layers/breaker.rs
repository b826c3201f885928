//! A breaker: stops calling a step whose calls keep failing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::SchemaRef;
use millstream_graph::{ErrorKind, Input, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work};

use crate::{
    run::now,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Calls are counted over so many seconds.
const WINDOW: usize = 10;

/// A step that is not called for a while when its calls keep failing, so that callers hear at once what they would wait for, and
/// what fails gets time to recover.
///
/// It opens after five failures in a row, or when half of at least 20 calls of the last ten seconds failed. While it is open,
/// calls fail with [`Unavailable`](ErrorKind::Unavailable). After five seconds it lets three calls through: when all succeed it
/// closes, when one fails it opens again. Panics count as failures; rows that a step does not accept, refusals of a
/// [`Limit`](super::Limit) and calls that were dropped count as nothing.
#[derive(Debug)]
pub struct Breaker<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    in_a_row: u32,
    least_calls: u32,
    open: Duration,
    probes: u32,
}

#[derive(Debug)]
enum State {
    Closed {
        in_a_row: u32,
        seconds: [Second; WINDOW],
        start: Instant,
    },
    Open {
        until: Instant,
    },
    /// Calls that may still be let through, and successes that are still wanted.
    Probing {
        left: u32,
        wanted: u32,
    },
}

/// The calls of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Which second, counted from the start.
    number: u64,
    calls: u32,
    failed: u32,
}

impl<S: Step> Breaker<S> {
    /// A breaker around `inner`.
    pub fn new(inner: S) -> Self {
        let rules = Rules { in_a_row: 5, least_calls: 20, open: Duration::from_secs(5), probes: 3 };
        Self { inner, shared: Arc::new(Shared { rules, state: Mutex::new(State::closed()) }) }
    }

    /// Opens after so many failures in a row.
    #[must_use]
    pub fn after(self, failures: u32) -> Self {
        self.with(|rules| rules.in_a_row = failures.max(1))
    }

    /// How long it stays open.
    #[must_use]
    pub fn open_for(self, time: Duration) -> Self {
        self.with(|rules| rules.open = time)
    }

    fn with(self, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = self.shared.rules;
        change(&mut rules);
        Self { inner: self.inner, shared: Arc::new(Shared { rules, state: Mutex::new(State::closed()) }) }
    }
}

impl State {
    fn closed() -> Self {
        Self::Closed { in_a_row: 0, seconds: [Second::default(); WINDOW], start: now() }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call through, or says for how long none is.
    fn enter(self: &Arc<Self>) -> Result<Call, Duration> {
        let mut state = self.state();
        if let State::Open { until } = *state {
            match until.checked_duration_since(now()) {
                Some(left) if !left.is_zero() => return Err(left),
                _ => *state = State::Probing { left: self.rules.probes, wanted: self.rules.probes },
            }
        }
        let probe = match &mut *state {
            State::Probing { left: 0, .. } => return Err(self.rules.open),
            State::Probing { left, .. } => {
                *left -= 1;
                true
            }
            _ => false,
        };
        Ok(Call { shared: Some(Arc::clone(self)), probe })
    }

    fn ended(&self, probe: bool, outcome: Outcome) {
        let mut state = self.state();
        let opens = match (&mut *state, outcome) {
            (State::Probing { left, .. }, Outcome::Nothing) if probe => {
                *left += 1;
                false
            }
            (State::Probing { wanted, .. }, Outcome::Good) if probe => {
                *wanted -= 1;
                if *wanted == 0 {
                    *state = State::closed();
                }
                false
            }
            (State::Probing { .. }, Outcome::Failed) if probe => true,
            (State::Closed { in_a_row, seconds, start }, Outcome::Good | Outcome::Failed) if !probe => {
                let failed = outcome == Outcome::Failed;
                *in_a_row = if failed { *in_a_row + 1 } else { 0 };
                let number = now().saturating_duration_since(*start).as_secs();
                let second = &mut seconds[(number % WINDOW as u64) as usize];
                if second.number != number {
                    *second = Second { number, ..Second::default() };
                }
                second.calls += 1;
                second.failed += u32::from(failed);
                let recent = seconds.iter().filter(|second| second.number + WINDOW as u64 > number);
                let (calls, all_failed) =
                    recent.fold((0, 0), |(calls, failed), s| (calls + s.calls, failed + s.failed));
                let half = calls >= self.rules.least_calls && 2 * all_failed >= calls;
                failed && (*in_a_row >= self.rules.in_a_row || half)
            }
            // A call from before it opened, or before it closed, says nothing about now.
            _ => false,
        };
        if opens {
            *state = State::Open { until: now() + self.rules.open };
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
    Nothing,
}

/// A call under way. When it is dropped without an answer, a panic has failed and a cancelled run has said nothing.
struct Call {
    shared: Option<Arc<Shared>>,
    probe: bool,
}

impl Call {
    fn answered(mut self, result: StepResult) -> StepResult {
        let outcome = match &result {
            Ok(_) => Outcome::Good,
            Err(error) => match error.kind() {
                ErrorKind::Rows | ErrorKind::Overloaded => Outcome::Nothing,
                _ => Outcome::Failed,
            },
        };
        if let Some(shared) = self.shared.take() {
            shared.ended(self.probe, outcome);
        }
        result
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared
                .ended(self.probe, if std::thread::panicking() { Outcome::Failed } else { Outcome::Nothing });
        }
    }
}

impl<S: Step> Step for Breaker<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.inner.signature(inputs)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        let call = match self.shared.enter() {
            Ok(call) => call,
            Err(left) => {
                let message = format!("calls keep failing; the next is let through in {left:.1?}");
                return Work::Done(Err(StepError::new(ErrorKind::Unavailable, message)));
            }
        };
        match self.inner.call(input, cx) {
            Work::Done(result) => Work::Done(call.answered(result)),
            Work::Io(answer) => Work::Io(Box::pin(async move {
                // Held across the wait, so that a dropped run or a panic is seen.
                let call = call;
                let result = answer.await;
                call.answered(result)
            })),
            Work::Compute(job) => Work::Compute(Box::new(move || {
                let call = call;
                let result = job();
                call.answered(result)
            })),
        }
    }
}
