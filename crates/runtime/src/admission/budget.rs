//! A bound on the bytes of requests under way.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The bytes that requests may hold at once. Every engine has one; see [`Limits::bytes`](crate::Limits::bytes).
pub struct Budget {
    most: usize,
    used: AtomicUsize,
}

/// Bytes of a request, reserved while it is read and run; they go back when this is dropped.
///
/// Made by [`Engine::reserve`](crate::Engine::reserve).
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// At most so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0) })
    }

    /// Reserves bytes; `None` when there are not so many.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let mut reserved = Reserved { budget: Arc::clone(self), bytes: 0 };
        reserved.grow(bytes).then_some(reserved)
    }
}

impl Reserved {
    /// Reserves so many bytes more; `false` when there are not so many.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.budget.most);
        let grown = self.budget.used.fetch_update(Relaxed, Relaxed, more).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("most", &self.most).field("used", &self.used).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).unwrap_or_else(|| panic!("there is room"));
        assert!(budget.reserve(50).is_none());
        assert!(!first.grow(41) && first.grow(40) && !first.grow(1) && !first.grow(usize::MAX));
        drop(first);
        assert!(budget.reserve(100).is_some());
    }
}
