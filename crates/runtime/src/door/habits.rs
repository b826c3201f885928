//! What a door learns from what came before.

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Whether others are to be expected. To let others come costs a turn of the scheduler, which wakes a second thread to look for
/// work; where requests come one by one, that would be the dearest part of many.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Leaders that still let others come since somebody last did.
    hope: AtomicU32,
    leaders: AtomicU32,
}

impl Crowd {
    /// Whether a leader should let others come, when so many requests are under way: yes while there is company, and now and
    /// then to see whether there is.
    pub(super) fn expected(&self, under_way: i64) -> bool {
        let turn = self.leaders.fetch_add(1, Relaxed);
        under_way > 1 || self.hope.load(Relaxed) > 0 || turn.is_multiple_of(32)
    }

    pub(super) fn learn(&self, came: usize) {
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
pub(super) struct Patience {
    alone: AtomicU32,
    last: AtomicU32,
}

impl Patience {
    /// Whether requests should share runs now.
    pub(super) fn shares(&self) -> bool {
        let fewer = |alone: u32| alone.checked_sub(1);
        self.alone.load(Relaxed) == 0 || self.alone.fetch_update(Relaxed, Relaxed, fewer).is_err()
    }

    pub(super) fn learn(&self, good: bool) {
        if good {
            self.last.store(0, Relaxed);
            return;
        }
        let next = (self.last.load(Relaxed) * 2).clamp(16, 4096);
        self.last.store(next, Relaxed);
        self.alone.store(next, Relaxed);
    }
}
