//! Who is let in: a bound on the runs under way that follows how long they take, by priority, and a bound on their bytes.

mod budget;
mod gradient;
mod latency;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use millstream_graph::Priority;
use prometheus::IntGauge;
use tokio::sync::{Semaphore, TryAcquireError};

use crate::{
    Limits,
    run::now,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
pub use budget::{Budget, Reserved};
use gradient::Gradient;
use latency::Latency;

/// How often the bound is set anew.
const WINDOW: Duration = Duration::from_millis(100);

/// The bound on the runs under way of one engine.
///
/// A semaphore holds as many permits as runs may be under way. The bound falls by taking permits away: free ones at once, and
/// when there are none, those that come back next.
pub(crate) struct Admission {
    permits: Semaphore,
    /// Permits there are, less those that are owed.
    limit: AtomicUsize,
    /// Permits that go away when they come back.
    owed: AtomicUsize,
    most: usize,
    adaptive: bool,
    latency: Latency,
    start: Instant,
    /// When the bound is set anew, in nanoseconds since the start.
    due: AtomicU64,
    gradient: Mutex<Gradient>,
    gauge: IntGauge,
}

/// The right of one run to be under way. It goes back when it is dropped.
pub(crate) struct Permit {
    admission: Arc<Admission>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, gauge: IntGauge) -> Arc<Self> {
        let most = limits.runs.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        gauge.set(most as i64);
        Arc::new(Self {
            permits: Semaphore::new(most),
            limit: AtomicUsize::new(most),
            owed: AtomicUsize::new(0),
            most,
            adaptive: limits.adaptive,
            latency: Latency::default(),
            start: now(),
            due: AtomicU64::new(WINDOW.as_nanos() as u64),
            gradient: Mutex::new(Gradient::new(most, limits.deadline)),
            gauge,
        })
    }

    /// Lets a run in at once, or not at all. The last permits are kept for those that matter more.
    pub(crate) fn try_enter(self: &Arc<Self>, priority: Priority) -> Result<Permit, Refusal> {
        let kept = self.limit.load(Relaxed) * kept_percent(priority) / 100;
        if kept > 0 && self.permits.available_permits() <= kept && !self.permits.is_closed() {
            return Err(Refusal::Full);
        }
        match self.permits.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(Permit { admission: Arc::clone(self) })
            }
            Err(TryAcquireError::Closed) => Err(Refusal::Closed),
            Err(TryAcquireError::NoPermits) => Err(Refusal::Full),
        }
    }

    /// Lets a run in when its turn comes.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Permit, Refusal> {
        self.permits.acquire().await.map_err(|_| Refusal::Closed)?.forget();
        Ok(Permit { admission: Arc::clone(self) })
    }

    /// Lets nobody in any more, and waits until those under way have ended.
    pub(crate) async fn close(&self) {
        let all = {
            // From here on the number of permits stays as it is.
            let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
            gradient.stop();
            self.limit.load(Relaxed) + self.owed.swap(0, Relaxed)
        };
        let ended = self.permits.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await;
        self.permits.close();
        drop(ended);
    }

    /// Takes in how long a run took that began at `start`, and sets the bound anew when it is time.
    pub(crate) fn ended(&self, start: Instant, end: Instant) {
        if !self.adaptive {
            return;
        }
        self.latency.record(end.saturating_duration_since(start));
        let nanos = end.saturating_duration_since(self.start).as_nanos() as u64;
        let due = self.due.load(Relaxed);
        if nanos < due {
            return;
        }
        let next = nanos.saturating_add(WINDOW.as_nanos() as u64);
        // Whoever moves the time on does the work.
        if self.due.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            self.adapt();
        }
    }

    #[cold]
    fn adapt(&self) {
        let Some(median) = self.latency.take_median() else { return };
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.limit.load(Relaxed);
        let after = gradient.next(before, median).min(self.most);
        self.limit.store(after, Relaxed);
        if after > before {
            let pay = |owed: usize| Some(owed - owed.min(after - before));
            let owed = self.owed.fetch_update(Relaxed, Relaxed, pay).unwrap_or(0);
            self.permits.add_permits((after - before) - owed.min(after - before));
        } else if before > after {
            let gone = self.permits.forget_permits(before - after);
            self.owed.fetch_add(before - after - gone, Relaxed);
        }
        self.gauge.set(after as i64);
    }
}

/// The share of the permits, in percent, that runs of this priority leave to others.
fn kept_percent(priority: Priority) -> usize {
    match priority {
        Priority::Critical => 0,
        Priority::Normal => 5,
        Priority::Low => 20,
        Priority::Batch => 40,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &*self.admission;
        let owes = admission.owed.load(Relaxed) > 0
            && admission.owed.fetch_update(Relaxed, Relaxed, |owed| owed.checked_sub(1)).is_ok();
        if !owes {
            admission.permits.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(runs: usize) -> Arc<Admission> {
        let limits = Limits { runs, ..Limits::default() };
        Admission::new(&limits, IntGauge::new("limit", "limit").unwrap_or_else(|error| panic!("{error}")))
    }

    fn enter(admission: &Arc<Admission>, priority: Priority, most: usize) -> Vec<Permit> {
        (0..most).map_while(|_| admission.try_enter(priority).ok()).collect()
    }

    #[test]
    fn what_matters_least_is_refused_first() {
        use Priority::{Batch, Critical, Low, Normal};
        let admission = admission(100);
        let mut held = Vec::new();
        for (priority, under_way) in [(Batch, 60), (Low, 80), (Normal, 95), (Critical, 100)] {
            held.extend(enter(&admission, priority, 1000));
            assert_eq!(held.len(), under_way, "{priority:?}");
        }
        held.clear();
        assert_eq!(enter(&admission, Critical, 1000).len(), 100);
        // Of very few permits none is kept.
        let one = self::admission(1);
        assert_eq!(enter(&one, Batch, 9).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_falls_when_runs_take_long_and_rises_again() {
        let admission = admission(1000);
        let mut held = enter(&admission, Priority::Critical, 1000);
        let windows = |took: Duration, windows: usize| {
            for _ in 0..windows {
                let end = admission.start + Duration::from_nanos(admission.due.load(Relaxed));
                (0..20).for_each(|_| admission.ended(end - took, end));
            }
            admission.limit.load(Relaxed)
        };
        assert_eq!(windows(Duration::from_millis(50), 3), 1000, "nobody minds 50 ms");
        let low = windows(Duration::from_secs(1), 5);
        assert!((20..100).contains(&low), "{low}");
        // All permits are out: nobody comes in until so many have come back.
        held.drain(..1000 - low).for_each(drop);
        assert!(admission.try_enter(Priority::Critical).is_err());
        held.pop();
        assert!(admission.try_enter(Priority::Critical).is_ok());
        held.clear();
        assert_eq!(admission.permits.available_permits(), low);
        assert_eq!(windows(Duration::from_millis(10), 50), 1000);
        assert_eq!(enter(&admission, Priority::Critical, 2000).len(), 1000);
    }

    #[tokio::test]
    async fn closing_waits_for_those_under_way_whatever_the_bound() {
        let admission = admission(100);
        let held = enter(&admission, Priority::Critical, 100);
        for _ in 0..3 {
            let end = admission.start + Duration::from_nanos(admission.due.load(Relaxed));
            (0..20).for_each(|_| admission.ended(end - Duration::from_secs(2), end));
        }
        let mut closing = Box::pin(admission.close());
        assert!(crate::testkit::poll_once(&mut closing).is_pending());
        drop(held);
        closing.await;
        assert_eq!(admission.try_enter(Priority::Critical).err(), Some(Refusal::Closed));
    }
}
