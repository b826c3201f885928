//! A budget of extra calls: a part of the calls, and what a quiet time saves up.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Every call earns one token, and an extra call costs `price` of them.
#[derive(Debug)]
pub(super) struct Tokens {
    price: u32,
    saved: AtomicU32,
}

impl Tokens {
    /// Extra calls are at most one in `price` of the calls; up to ten are saved up, and three are there at first.
    pub(super) fn one_in(price: u32) -> Self {
        Self { price, saved: AtomicU32::new(3 * price) }
    }

    pub(super) fn earn(&self) {
        let more = |saved: u32| Some((saved + 1).min(10 * self.price));
        let _ = self.saved.fetch_update(Relaxed, Relaxed, more);
    }

    pub(super) fn spend(&self) -> bool {
        self.saved.fetch_update(Relaxed, Relaxed, |saved| saved.checked_sub(self.price)).is_ok()
    }
}
