//! What was seen of runs that have not ended: a bounded table in shards.

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use ahash::RandomState;
use arrow::array::RecordBatch;

/// So many that threads seldom meet in one.
const SHARDS: usize = 64;
/// Runs of a shard whose batches are held: 16 384 in all, which is far more than a server runs at once.
const OPEN: usize = 256;
/// Runs of a shard that are remembered, those that were given up included.
const KNOWN: usize = 4 * OPEN;

/// The table. A run is held whole or not at all: one of which an observation had no room is given up and remembered, so that
/// what comes later of it is not taken for all there was.
pub(super) struct OpenRuns {
    shards: Box<[Mutex<Shard>]>,
    /// Rows that are held, of all shards.
    rows: AtomicUsize,
    max_rows: usize,
}

#[derive(Default)]
struct Shard {
    runs: HashMap<u64, Entry, RandomState>,
    /// How many of them hold batches.
    open: usize,
    blind: Blind,
}

/// Whether a run that is not known may be one that could not be remembered: then no new one is held. It ends when every run that
/// was refused meanwhile is too old to be held anyway.
#[derive(Default)]
enum Blind {
    #[default]
    No,
    Yes,
    Since(i64),
}

struct Entry {
    state: State,
    /// The caller's name for the request, which goes with it: a run whose caller has gone never ends.
    asker: Option<Weak<str>>,
    /// When a sweep met it first: observations have no clock.
    since: Option<i64>,
}

impl Entry {
    /// Whether its caller has gone.
    fn is_left(&self) -> bool {
        self.asker.as_ref().is_some_and(|asker| asker.strong_count() == 0)
    }
}

/// Runs that held batches and hold none any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Those that were too old.
    pub(super) evicted: usize,
    /// Those whose caller has gone.
    pub(super) abandoned: usize,
}

/// What is held of a run.
pub(super) enum State {
    Open(Vec<Seen>),
    /// Something of it had no room.
    GivenUp,
    /// It was too old, and is counted as such. It is remembered as long once more.
    Evicted,
}

/// One batch on one edge.
pub(super) struct Seen {
    pub(super) edge: usize,
    pub(super) batch: RecordBatch,
    pub(super) places: Places,
}

/// Which rows of the request those of a batch are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Row `i` is row `i`.
    Whole,
    /// Row `i` is row `.0[i]`, or lost where that is [`LOST`].
    Picked(Box<[u32]>),
}

/// No row of a request has this number.
const LOST: u32 = u32::MAX;

impl Places {
    /// Reads the places of `rows` rows, and counts those without one. None when no row has one.
    pub(super) fn read(rows: usize, place: impl Fn(usize) -> Option<u32>) -> (Option<Self>, usize) {
        let known = |row: usize| place(row).filter(|place| *place != LOST);
        if (0..rows).all(|row| known(row).is_some_and(|place| place as usize == row)) {
            return (Some(Self::Whole), 0);
        }
        let picked: Box<[u32]> = (0..rows).map(|row| known(row).unwrap_or(LOST)).collect();
        let lost = picked.iter().filter(|place| **place == LOST).count();
        ((lost < rows).then_some(Self::Picked(picked)), lost)
    }

    pub(super) fn get(&self, row: usize) -> Option<u32> {
        match self {
            Self::Whole => u32::try_from(row).ok(),
            Self::Picked(places) => places.get(row).copied().filter(|place| *place != LOST),
        }
    }
}

impl OpenRuns {
    /// A table that holds at most so many rows.
    pub(super) fn new(max_rows: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, rows: AtomicUsize::new(0), max_rows }
    }

    /// Holds a batch until its run is taken, or `asker` has gone. Answers how many observations were dropped by it: none, or this
    /// one and those that were held of its run.
    pub(super) fn hold(&self, run: u64, asker: Option<&Arc<str>>, seen: Seen, edges: usize) -> usize {
        let rows = seen.batch.num_rows();
        let mut shard = self.shard(run);
        let Shard { runs, open, blind } = &mut *shard;
        let room = runs.len() < KNOWN;
        let entry = match runs.entry(run) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(_) if !matches!(blind, Blind::No) => return 1,
            hash_map::Entry::Vacant(_) if !room => {
                *blind = Blind::Yes;
                return 1;
            }
            hash_map::Entry::Vacant(entry) => {
                let full = *open >= OPEN;
                let state = if full { State::GivenUp } else { State::Open(Vec::with_capacity(edges)) };
                *open += usize::from(!full);
                entry.insert(Entry { state, asker: asker.map(Arc::downgrade), since: None })
            }
        };
        let State::Open(held) = &mut entry.state else { return 1 };
        if self.take(rows) {
            held.push(seen);
            return 0;
        }
        let given_up = std::mem::replace(&mut entry.state, State::GivenUp);
        *open -= 1;
        // What is dropped may be the last of its buffers: nobody shall wait for the allocator.
        drop(shard);
        1 + self.release(&given_up)
    }

    /// Takes what is held of a run out of the table.
    pub(super) fn take_run(&self, run: u64) -> Option<State> {
        let mut shard = self.shard(run);
        let entry = shard.runs.remove(&run)?;
        shard.open -= usize::from(matches!(entry.state, State::Open(_)));
        drop(shard);
        self.release(&entry.state);
        Some(entry.state)
    }

    /// Gives up runs that sweeps have met for longer than `longest` microseconds, and those whose caller has gone.
    pub(super) fn sweep(&self, now: i64, longest: i64) -> Swept {
        let old = |since: i64| now.saturating_sub(since) > longest;
        let mut swept = Swept::default();
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Shard { runs, open, blind } = &mut *shard;
            let is_over = |entry: &mut Entry| old(*entry.since.get_or_insert(now)) || entry.is_left();
            let gone: Vec<(u64, Entry)> = runs.extract_if(|_, entry| is_over(entry)).collect();
            let held = gone.iter().filter(|(_, entry)| matches!(entry.state, State::Open(_)));
            let abandoned = held.clone().filter(|(_, entry)| entry.is_left()).count();
            let held = held.count();
            *open -= held;
            // What comes later of a run that was too old is not all there was.
            let evicted =
                gone.iter().filter(|(_, entry)| matches!(entry.state, State::Open(_)) && !entry.is_left());
            runs.extend(evicted.map(|(run, entry)| {
                let asker = entry.asker.clone();
                (*run, Entry { state: State::Evicted, asker, since: Some(now) })
            }));
            *blind = match blind {
                Blind::No => Blind::No,
                Blind::Yes => Blind::Since(now),
                Blind::Since(since) if old(*since) => Blind::No,
                Blind::Since(since) => Blind::Since(*since),
            };
            drop(shard);
            swept.abandoned += abandoned;
            swept.evicted += held - abandoned;
            for (_, entry) in &gone {
                self.release(&entry.state);
            }
        }
        swept
    }

    /// Rows that are held.
    pub(super) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    fn take(&self, rows: usize) -> bool {
        let held = self.rows.fetch_add(rows, Ordering::Relaxed);
        let fits = held.saturating_add(rows) <= self.max_rows;
        if !fits {
            self.rows.fetch_sub(rows, Ordering::Relaxed);
        }
        fits
    }

    /// Gives the room of what a run held back, and counts its batches.
    fn release(&self, state: &State) -> usize {
        let State::Open(seen) = state else { return 0 };
        let rows = seen.iter().map(|seen| seen.batch.num_rows()).sum();
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        seen.len()
    }

    fn shard(&self, run: u64) -> MutexGuard<'_, Shard> {
        // Runs are numbered one after another or at random; the upper bits of this product are spread either way.
        let spread = run.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        lock(&self.shards[spread as usize % SHARDS])
    }
}

/// Nothing is left half done where a lock is held, so a panic elsewhere does not spoil it.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::Int32Array,
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn seen(rows: usize) -> Seen {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        let column = Arc::new(Int32Array::from(vec![1; rows]));
        Seen { edge: 0, batch: RecordBatch::try_new(schema, vec![column]).unwrap(), places: Places::Whole }
    }

    fn evicted(evicted: usize) -> Swept {
        Swept { evicted, abandoned: 0 }
    }

    fn held(state: Option<State>) -> Option<usize> {
        match state? {
            State::Open(seen) => Some(seen.len()),
            State::GivenUp | State::Evicted => Some(0),
        }
    }

    #[test]
    fn places_are_read_as_they_are() {
        let read = |places: &[Option<u32>]| Places::read(places.len(), |row| places[row]);
        assert_eq!(read(&[Some(0), Some(1)]), (Some(Places::Whole), 0));
        assert_eq!(read(&[Some(1), Some(0)]), (Some(Places::Picked([1, 0].into())), 0));
        assert_eq!(read(&[None, Some(4)]), (Some(Places::Picked([LOST, 4].into())), 1));
        assert_eq!(read(&[None, Some(LOST)]), (None, 2));
    }

    #[test]
    fn a_run_without_room_for_all_its_batches_is_given_up_whole() {
        let table = OpenRuns::new(10);
        assert_eq!(table.hold(1, None, seen(6), 2), 0);
        assert_eq!(table.hold(2, None, seen(4), 2), 0);
        assert_eq!(table.hold(2, None, seen(1), 2), 2, "this one and the one that was held");
        assert_eq!(table.rows(), 6);
        assert_eq!(table.hold(2, None, seen(1), 2), 1, "there is room again, but not for the rest of a run");
        assert_eq!((held(table.take_run(1)), held(table.take_run(2))), (Some(1), Some(0)));
        assert_eq!((held(table.take_run(2)), table.rows()), (None, 0));
        assert_eq!(table.hold(2, None, seen(1), 2), 0, "a run that ended is forgotten");
    }

    #[test]
    fn the_newest_runs_are_dropped_when_there_are_too_many() {
        let table = OpenRuns::new(usize::MAX);
        let runs = (SHARDS * KNOWN * 2) as u64;
        let dropped: usize = (0..runs).map(|run| table.hold(run, None, seen(1), 1)).sum();
        assert!(table.rows() <= SHARDS * OPEN, "{} rows", table.rows());
        assert_eq!(table.rows() + dropped, runs as usize);
        assert_eq!(held(table.take_run(0)), Some(1), "the oldest is there");
        let known: usize = table.shards.iter().map(|shard| lock(shard).runs.len()).sum();
        assert!(known <= SHARDS * KNOWN);
        // A run may be one that was refused, so none is taken until all of those are over.
        assert_eq!(table.hold(0, None, seen(1), 1), 1);
        assert_eq!((table.sweep(0, 100), table.sweep(100, 100)), (evicted(0), evicted(0)));
        assert_eq!(table.hold(0, None, seen(1), 1), 1);
        assert_eq!(table.sweep(101, 100), evicted(runs as usize - 1 - dropped));
        assert_eq!((table.rows(), table.hold(0, None, seen(1), 1)), (0, 0));
    }

    #[test]
    fn runs_that_never_end_are_evicted_when_they_are_old() {
        let table = OpenRuns::new(100);
        table.hold(1, None, seen(2), 1);
        assert_eq!(table.sweep(i64::MAX - 1, 50), evicted(0), "it is met for the first time");
        table.hold(2, None, seen(3), 1);
        assert_eq!(table.sweep(i64::MIN, 50), evicted(0), "a clock that goes back makes nothing old");
        assert_eq!((table.sweep(i64::MAX, 0), table.rows()), (evicted(2), 0));
    }

    #[test]
    fn runs_that_were_evicted_are_remembered_until_they_are_old_again() {
        let table = OpenRuns::new(100);
        table.hold(1, None, seen(2), 1);
        table.hold(2, None, seen(2), 1);
        assert_eq!((table.sweep(0, 50), table.sweep(51, 50)), (evicted(0), evicted(2)));
        assert_eq!((table.hold(1, None, seen(3), 1), table.rows()), (1, 0));
        assert_eq!((held(table.take_run(1)), held(table.take_run(1))), (Some(0), None));
        assert_eq!((table.sweep(101, 50), table.hold(2, None, seen(3), 1)), (evicted(0), 1));
        assert_eq!((table.sweep(102, 50), table.hold(2, None, seen(3), 1)), (evicted(0), 0));
    }

    #[test]
    fn runs_whose_caller_has_gone_are_given_up_at_once() {
        let table = OpenRuns::new(100);
        let [here, gone]: [Arc<str>; 2] = ["here", "gone"].map(Arc::from);
        table.hold(1, Some(&here), seen(2), 1);
        table.hold(2, Some(&gone), seen(3), 1);
        table.hold(3, None, seen(4), 1);
        assert_eq!(table.sweep(0, 100), evicted(0));
        drop(gone);
        assert_eq!((table.sweep(0, 100), table.rows()), (Swept { evicted: 0, abandoned: 1 }, 6));
        assert_eq!(held(table.take_run(2)), None);
        drop(here);
        // One that has no room any more held nothing.
        table.hold(1, None, seen(200), 1);
        assert_eq!((table.sweep(0, 100), table.rows()), (evicted(0), 4));
    }
}
