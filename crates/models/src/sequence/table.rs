//! The sequences that are open: a bounded number, each until it ends or nobody has asked for long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What a sequence holds. One run of it at a time has it; the others wait in the order they came, and hold no thread.
pub(super) type Turn<S> = Arc<tokio::sync::Mutex<S>>;

/// Open sequences by their ids, with what each holds.
pub(super) struct Table<S> {
    idle: Duration,
    most: usize,
    clock: fn() -> Instant,
    open: Mutex<Open<S>>,
}

struct Open<S> {
    sequences: HashMap<String, Sequence<S>>,
    /// When the idle ones were last looked for.
    looked: Option<Instant>,
}

struct Sequence<S> {
    held: Turn<S>,
    used: Instant,
}

/// Why a row has no sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It has not begun, or has ended, or nobody has asked for too long.
    NotOpen,
    /// As many are open as may be.
    Full,
}

impl<S> Table<S> {
    pub(super) fn new(idle: Duration, most: usize, clock: fn() -> Instant) -> Self {
        Self { idle, most, clock, open: Mutex::new(Open { sequences: HashMap::new(), looked: None }) }
    }

    /// A sequence: begun anew where `starts`, else the one that is open. One that is not open begins if it `may`.
    pub(super) fn get(
        &self,
        id: &str,
        starts: bool,
        may: bool,
        first: impl FnOnce() -> S,
    ) -> Result<Turn<S>, Closed> {
        let now = (self.clock)();
        let mut open = self.lock();
        let rests = |sequence: &Sequence<S>| now.saturating_duration_since(sequence.used) > self.idle;
        if let Some(sequence) = open.sequences.get_mut(id).filter(|sequence| !starts && !rests(sequence)) {
            sequence.used = now;
            return Ok(Arc::clone(&sequence.held));
        }
        if !(starts || may) {
            return Err(Closed::NotOpen);
        }
        // Only for one that is new, and not again and again while all of them are in use.
        let pause = if open.sequences.len() >= self.most { self.idle / 16 } else { self.idle };
        if open.looked.is_none_or(|looked| now.saturating_duration_since(looked) > pause) {
            open.sequences.retain(|_, sequence| !rests(sequence));
            open.looked = Some(now);
        }
        if open.sequences.len() >= self.most && !open.sequences.contains_key(id) {
            return Err(Closed::Full);
        }
        let held = Arc::new(tokio::sync::Mutex::new(first()));
        open.sequences.insert(id.to_owned(), Sequence { held: Arc::clone(&held), used: now });
        Ok(held)
    }

    /// Closes a sequence, if it is still the one that is meant.
    pub(super) fn end(&self, id: &str, held: &Turn<S>) {
        let mut open = self.lock();
        if open.sequences.get(id).is_some_and(|sequence| Arc::ptr_eq(&sequence.held, held)) {
            open.sequences.remove(id);
        }
    }

    /// Whether there is a sequence of this name.
    pub(super) fn is_open(&self, id: &str) -> bool {
        self.lock().sequences.contains_key(id)
    }

    fn lock(&self) -> MutexGuard<'_, Open<S>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::LazyLock};

    use super::*;

    thread_local! {
        static SECONDS: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> Instant {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_secs(SECONDS.get())
    }

    fn asked(table: &Table<u32>, id: &str, starts: bool, may: bool) -> Result<u32, Closed> {
        let held = table.get(id, starts, may, || 0)?;
        let mut count = held.try_lock().unwrap();
        *count += 1;
        Ok(*count)
    }

    #[test]
    fn sequences_are_open_from_their_start_to_their_end_or_until_they_rest_too_long() {
        let table = Table::new(Duration::from_secs(10), 2, clock);
        assert_eq!(asked(&table, "a", false, false), Err(Closed::NotOpen));
        assert_eq!(asked(&table, "a", true, false), Ok(1));
        assert_eq!(asked(&table, "a", false, false), Ok(2));
        assert_eq!(asked(&table, "a", true, false), Ok(1), "one that starts again has forgotten");
        assert_eq!(asked(&table, "b", false, true), Ok(1));
        assert_eq!(asked(&table, "c", true, true), Err(Closed::Full));
        assert_eq!(asked(&table, "b", true, true), Ok(1), "there is room for one that was there");
        SECONDS.set(10);
        assert_eq!(asked(&table, "a", false, false), Ok(2));
        SECONDS.set(11);
        assert_eq!(asked(&table, "c", true, false), Ok(1), "one that rests makes room");
        assert_eq!(asked(&table, "b", false, false), Err(Closed::NotOpen));
        let held = table.get("c", false, false, || 0).unwrap();
        assert_eq!(asked(&table, "c", true, false), Ok(1));
        table.end("c", &held);
        assert_eq!(asked(&table, "c", false, false), Ok(2), "another of the same name goes on");
        let held = table.get("c", false, false, || 0).unwrap();
        table.end("c", &held);
        assert_eq!(asked(&table, "c", false, false), Err(Closed::NotOpen));
        SECONDS.set(100);
        assert_eq!(asked(&table, "d", true, false), Ok(1));
        assert_eq!(table.lock().sequences.len(), 1, "what rests is let go of");
    }
}
