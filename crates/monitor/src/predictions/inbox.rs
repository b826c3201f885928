//! Where rows wait until they are looked at: whoever brings them does not wait, and what has no room is dropped and counted.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt32Array},
    compute::{cast, take},
    datatypes::DataType,
};
use millstream_graph::{Origin, RunId};

use crate::monitor::this_thread;

/// Rows as they came, which are looked at later.
pub(super) struct Arrived {
    /// When they came, in microseconds since 1970 UTC.
    pub(super) at: i64,
    pub(super) request: Option<Arc<str>>,
    pub(super) run: RunId,
    /// How many rows the request brought.
    pub(super) brought: usize,
    /// How many of them are here, and which.
    pub(super) rows: usize,
    pub(super) origin: Origin,
    pub(super) columns: Vec<ArrayRef>,
}

/// Rows that wait to be looked at. Nobody who adds some waits for a lock: where a place is taken, there is the next one.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) places: [Place; 4],
    pub(super) rows: AtomicUsize,
    pub(super) batches: AtomicUsize,
    pub(super) dropped: AtomicU64,
}

/// On cache lines of its own, because its lock is taken for each batch.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Place(pub(super) Mutex<Vec<Arrived>>);

impl Inbox {
    /// Rows, and batches, that wait at most. Where there are more, the newest are dropped.
    const ROWS: usize = 1_000_000;
    pub(super) const BATCHES: usize = 65_536;
    /// How often all places are tried.
    const ROUNDS: usize = 2;

    /// Adds a batch of so many rows, if there is room. Answers whether there was.
    pub(super) fn push(&self, rows: usize, batch: impl FnOnce() -> Option<Arrived>) -> bool {
        let before = (self.rows.fetch_add(rows, Relaxed), self.batches.fetch_add(1, Relaxed));
        let room = before.0.saturating_add(rows) <= Self::ROWS && before.1 < Self::BATCHES;
        let batch = if room { batch() } else { None };
        let pushed = batch.is_some_and(|batch| self.place().map(|mut place| place.push(batch)).is_some());
        if !pushed {
            self.make_room(rows, 1);
        }
        pushed
    }

    /// A place that is free.
    fn place(&self) -> Option<MutexGuard<'_, Vec<Arrived>>> {
        let (first, places) = (this_thread(), self.places.len());
        (0..places * Self::ROUNDS).find_map(|next| match self.places[(first + next) % places].0.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// Takes all, by the time at which they came.
    pub(super) fn drain(&self) -> Vec<Arrived> {
        let mut all = Vec::new();
        for Place(place) in &self.places {
            // The lock is not held while they are moved: somebody may want to add some.
            let taken = std::mem::take(&mut *place.lock().unwrap_or_else(PoisonError::into_inner));
            all.extend(taken);
        }
        self.make_room(all.iter().map(|arrived| arrived.rows).sum(), all.len());
        all.sort_by_key(|arrived| arrived.at);
        all
    }

    fn make_room(&self, rows: usize, batches: usize) {
        self.rows.fetch_sub(rows, Relaxed);
        self.batches.fetch_sub(batches, Relaxed);
    }
}

/// The column to keep. One that is a small part of what it was cut from is copied, or it would hold all of that.
pub(super) fn own(array: &ArrayRef) -> ArrayRef {
    /// What a column may hold without being looked at, in bytes, and for each row.
    const FREE: (usize, usize) = (256, 64);
    if array.get_buffer_memory_size() <= FREE.0 + FREE.1 * array.len() {
        return Arc::clone(array);
    }
    let copy = match array.data_type() {
        DataType::Utf8View => Ok(Arc::new(array.as_string_view().gc()) as ArrayRef),
        // A dictionary holds values of other rows.
        DataType::Dictionary(_, values) if **values == DataType::Utf8View => cast(array, &DataType::Utf8),
        DataType::Dictionary(_, values) => cast(array, values),
        _ => take(array, &UInt32Array::from_iter_values(0..array.len() as u32), None),
    };
    copy.unwrap_or_else(|_| Arc::clone(array))
}
