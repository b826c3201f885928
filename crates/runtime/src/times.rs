//! When the steps of a run were called and for how long, in the runs that are timed.
//!
//! Reading the clock takes as long as a cheap step, so most runs are not: one in [`ONE_IN`], drawn by chance, and besides
//! up to [`PER_SECOND`] in each second, so that an engine with little to do is timed whole. A run is also timed, but not
//! counted for that, when one of its requests watches it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use millstream_graph::{ErrorKind, Ran, RunCx, StepCall, StepId};

use crate::{Degraded, core::Core, run::now};

/// Of so many runs one is timed.
const ONE_IN: u32 = 64;
/// Runs of each second that are timed in any case.
const PER_SECOND: u32 = 64;

/// Draws the runs that are timed.
pub(crate) struct Sampler {
    start: Instant,
    /// Runs that are still timed in any case.
    left: AtomicU32,
    /// The second in which they were given out, counted from the start.
    second: AtomicU64,
}

impl Sampler {
    pub(crate) fn new() -> Self {
        Self { start: now(), left: AtomicU32::new(PER_SECOND), second: AtomicU64::new(0) }
    }

    #[inline]
    fn draw(&self) -> bool {
        fastrand::u32(..) < u32::MAX / ONE_IN || self.take()
    }

    fn take(&self) -> bool {
        self.left.load(Relaxed) > 0
            && self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Only timed runs know the time, and so tell that a second is over.
    fn learn(&self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        if self.second.swap(second, Relaxed) != second {
            self.left.store(PER_SECOND, Relaxed);
        }
    }
}

/// The calls of one run, kept by its state.
#[derive(Default)]
pub(crate) struct Times {
    /// When the next call begins; `None` in a run that is not timed.
    mark: Option<Instant>,
    counted: bool,
    calls: Vec<StepCall>,
}

impl Times {
    pub(crate) fn begin(&mut self, core: &Core, cx: &RunCx) {
        self.calls.clear();
        self.counted = core.sampler.draw();
        let timed = self.counted || cx.requests().any(|(request, _)| request.watch.is_some());
        self.mark = timed.then(now);
    }

    /// The engine comes to its steps, after a call that goes on elsewhere or a wait.
    #[inline]
    pub(crate) fn resume(&mut self) {
        if let Some(mark) = &mut self.mark {
            *mark = now();
        }
    }

    #[inline]
    pub(crate) fn called(&mut self, step: StepId, rows: usize) {
        if let Some(start) = self.mark {
            self.note_call(step, rows, start);
        }
    }

    /// A step has answered; what it hands on is delivered in the next one's time.
    #[inline]
    pub(crate) fn answered(&mut self, step: StepId) {
        if self.mark.is_some() {
            self.note_answer(step);
        }
    }

    // Apart, so that the steps of all other runs have nothing but the question in their way.
    #[cold]
    fn note_call(&mut self, step: StepId, rows: usize, start: Instant) {
        self.calls.push(StepCall { step, start, took: None, rows, error: None, degraded: false });
    }

    #[cold]
    fn note_answer(&mut self, step: StepId) {
        let end = now();
        self.mark = Some(end);
        // A step is called once, and most answer before the next is.
        if let Some(call) = self.calls.iter_mut().rfind(|call| call.step == step) {
            call.took = Some(end.saturating_duration_since(call.start));
        }
    }

    #[cold]
    pub(crate) fn failed(&mut self, step: StepId, kind: ErrorKind) {
        if let Some(call) = self.calls.iter_mut().rfind(|call| call.step == step) {
            call.error = Some(kind);
        }
    }

    /// Counts the calls of a run that has ended.
    pub(crate) fn count(&self, core: &Core) {
        let (true, Some(mark)) = (self.counted, self.mark) else { return };
        core.sampler.learn(mark);
        for call in &self.calls {
            if let Some(took) = call.took {
                core.metrics.steps[call.step.index()].seconds.record(took);
            }
        }
    }

    /// Tells the requests that watch.
    pub(crate) fn tell(&mut self, core: &Core, cx: &RunCx, degraded: &[Degraded]) {
        if self.mark.is_none() {
            return;
        }
        let name = |call: &StepCall| core.plan.steps()[call.step.index()].name();
        for call in &mut self.calls {
            call.degraded = degraded.iter().any(|degraded| degraded.step == *name(call));
        }
        let (requests, rows) = cx.shares().fold((0, 0), |(n, rows), (share, _)| (n + 1, rows + share.rows));
        for (share, _) in cx.shares() {
            let Some(watch) = &share.request.watch else { continue };
            let ran = Ran::new(&core.plan, share.run, requests, rows, &self.calls);
            if catch_unwind(AssertUnwindSafe(|| watch.ran(&ran))).is_err() {
                tracing::error!(graph = core.plan.name(), run = %share.run, "a watch panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_quiet_engine_is_timed_whole_and_a_busy_one_by_chance() {
        fastrand::seed(7);
        let sampler = Sampler::new();
        let drawn = |runs: u32| (0..runs).filter(|_| sampler.draw()).count() as u32;
        assert_eq!(drawn(PER_SECOND), PER_SECOND);
        let busy = drawn(320_000);
        assert!((4_500..5_500).contains(&busy), "{busy} of 320,000");
        sampler.learn(sampler.start + Duration::from_millis(999));
        assert!(drawn(PER_SECOND) < PER_SECOND);
        sampler.learn(sampler.start + Duration::from_secs(1));
        assert_eq!(drawn(PER_SECOND), PER_SECOND);
    }
}
