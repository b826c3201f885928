//! Steps that keep panicking are left alone for a while.
//!
//! A panic is an error of one run. One that comes on every call is a defect that unwinding and logging only make dearer, so after
//! some in a row the step answers at once that it is not there. Until a step has panicked this costs one load per call.

use std::time::{Duration, Instant};

use millstream_graph::{ErrorKind, StepError, StepId, StepResult};

use crate::{
    run::now,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Panics without an answer in between after which a step is left alone: so many that no client who repeats a request that
/// breaks a step takes the step away from others.
const IN_A_ROW: u32 = 1000;
/// For how long; then one call is let through.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Guard {
    start: Instant,
    /// Steps that have panicked since they last answered.
    panicking: AtomicU32,
    steps: Vec<Panics>,
}

#[derive(Default)]
struct Panics {
    in_a_row: AtomicU32,
    /// When the next call is let through, in nanoseconds since the start.
    until: AtomicU64,
}

impl Guard {
    pub(crate) fn new(steps: usize) -> Self {
        let steps = (0..steps).map(|_| Panics::default()).collect();
        Self { start: now(), panicking: AtomicU32::new(0), steps }
    }

    /// Why a step is not to be called now, if it is not.
    #[inline]
    pub(crate) fn refuses(&self, id: StepId) -> Option<StepError> {
        if self.panicking.load(Relaxed) == 0 { None } else { self.refuses_now(id) }
    }

    /// Takes in how a call ended.
    #[inline]
    pub(crate) fn learn(&self, id: StepId, result: &StepResult) {
        match result {
            Ok(_) if self.panicking.load(Relaxed) == 0 => {}
            Ok(_) => self.answered(id),
            // What is refused here is an error too, and says nothing about the step.
            Err(error) if error.kind() != ErrorKind::Panicked => {}
            Err(_) => self.panicked(id),
        }
    }

    #[cold]
    fn refuses_now(&self, id: StepId) -> Option<StepError> {
        let step = &self.steps[id.index()];
        let until = step.until.load(Relaxed);
        let now = self.nanos();
        if step.in_a_row.load(Relaxed) < IN_A_ROW {
            return None;
        }
        // Whoever moves the time on is the one call that is let through.
        let next = now.saturating_add(PAUSE.as_nanos() as u64);
        if now >= until && step.until.compare_exchange(until, next, Relaxed, Relaxed).is_ok() {
            return None;
        }
        let message = format!("it panicked {IN_A_ROW} times in a row and is left alone for a while");
        Some(StepError::new(ErrorKind::Unavailable, message))
    }

    #[cold]
    fn answered(&self, id: StepId) {
        if self.steps[id.index()].in_a_row.swap(0, Relaxed) > 0 {
            self.panicking.fetch_sub(1, Relaxed);
        }
    }

    #[cold]
    fn panicked(&self, id: StepId) {
        let step = &self.steps[id.index()];
        match step.in_a_row.fetch_add(1, Relaxed) {
            0 => drop(self.panicking.fetch_add(1, Relaxed)),
            before if before + 1 >= IN_A_ROW => {
                step.until.store(self.nanos().saturating_add(PAUSE.as_nanos() as u64), Relaxed);
            }
            _ => {}
        }
    }

    fn nanos(&self) -> u64 {
        u64::try_from(now().saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}
