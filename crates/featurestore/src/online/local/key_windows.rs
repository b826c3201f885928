//! The windows of one key, beside its row.

use crate::{Added, Aggregates, Ledger, Prepared, Version};

/// A ledger, and the bytes it takes.
#[derive(Debug)]
pub(crate) struct KeyWindows {
    pub(crate) ledger: Ledger,
    /// As they were when they were last counted.
    pub(crate) bytes: usize,
    /// Events that were added since.
    added: usize,
}

/// An event that is put to its key.
#[derive(Clone, Copy)]
pub(crate) struct Event<'a> {
    pub(crate) events: &'a Prepared,
    pub(crate) row: usize,
    /// Events before it are too late for a key that is not known: what was known of it may have been given up.
    pub(crate) floor: i64,
}

impl KeyWindows {
    /// Bytes of a key without events.
    pub(crate) const LEAST: usize = size_of::<Self>();

    pub(crate) fn new(ledger: Ledger) -> Self {
        let mut new = Self { ledger, bytes: 0, added: 0 };
        new.count();
        new
    }

    /// The windows of a key whose first event this is; `None` if it is too late.
    pub(crate) fn of(of: &Aggregates, event: Event<'_>, version: Version) -> Option<Self> {
        let mut ledger = Ledger::default();
        ledger.forget_before(of, event.floor);
        let added = ledger.add(of, event.events, event.row, version);
        (added == Added::Taken).then(|| Self::new(ledger))
    }

    /// Adds an event; the bytes by which the windows have grown, `None` if it is too late.
    pub(crate) fn add(&mut self, of: &Aggregates, event: Event<'_>, version: Version) -> Option<isize> {
        if self.ledger.add(of, event.events, event.row, version) == Added::TooLate {
            return None;
        }
        self.added += 1;
        // Counting walks through the ledger, so it is done once for many events.
        let grown = if self.added * 8 < self.ledger.events().max(128) { 0 } else { self.count() };
        Some(grown)
    }

    /// Gives up what only reads and events before `at` would need; the bytes by which the windows have grown.
    pub(crate) fn forget_before(&mut self, of: &Aggregates, at: i64) -> isize {
        self.ledger.forget_before(of, at);
        self.count()
    }

    fn count(&mut self) -> isize {
        let around = Self::LEAST - size_of::<Ledger>();
        let before = std::mem::replace(&mut self.bytes, around + self.ledger.bytes());
        self.added = 0;
        self.bytes as isize - before as isize
    }
}
