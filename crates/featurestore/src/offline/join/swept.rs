//! The join of a log of events whose features are windows: the events of a key and the spine rows that ask for it pass once, in the
//! order of time, through one ledger.

use arrow::array::{ArrayRef, UInt32Array};

use super::{
    JoinError, NONE, check,
    indexed::by_key,
    keys::{Keys, Numbered},
    numbers,
    rows::LogRows,
};
use crate::{
    Aggregates, Cell, Ledger, Prepared, Version,
    offline::{AsOf, Times, as_of::Bounds},
};

/// A log of events by key, each key's in the order in which they begin to count.
#[derive(Debug)]
pub(in crate::offline) struct Swept {
    log: LogRows,
    bounds: Bounds,
    keys: Keys,
    /// Where the events of each key start; one more than there are keys.
    starts: Vec<u32>,
    /// Row numbers, by key and by the time from which they count.
    rows: Vec<u32>,
    /// From when on `rows` count.
    since: Vec<i64>,
}

/// What was found for the rows of a spine.
#[derive(Debug)]
pub(in crate::offline) struct Sweep {
    /// The row of the log whose own features may be used.
    pub(in crate::offline) rows: UInt32Array,
    /// Whether the key had any event, and so has windows.
    pub(in crate::offline) known: Vec<bool>,
    /// The windows, by feature as it was asked for.
    pub(in crate::offline) cells: Vec<Vec<Option<Cell>>>,
}

/// A spine row that can match: the number of its key, its time, its place.
type Asked = (u32, i64, u32);

impl Swept {
    pub(in crate::offline) fn new(log: LogRows, as_of: AsOf) -> Result<Self, JoinError> {
        let bounds = Bounds::from(as_of);
        let Numbered { keys, mut ids, count } = log.number_keys()?;
        let mut counts = vec![0; log.len()];
        for (row, (id, counts)) in ids.iter_mut().zip(&mut counts).enumerate() {
            let created = log.created.get(row).copied().filter(|&created| created != i64::MIN);
            match bounds.since(log.event[row], created) {
                Some(since) => *counts = since,
                None => *id = NONE,
            }
        }
        let (starts, mut rows) = by_key(&ids, count);
        if !counts.is_sorted() {
            for key in starts.windows(2) {
                rows[key[0] as usize..key[1] as usize]
                    .sort_unstable_by_key(|&row| (counts[row as usize], row));
            }
        }
        let since = rows.iter().map(|&row| counts[row as usize]).collect();
        Ok(Self { log, bounds, keys, starts, rows, since })
    }

    /// How many events there are.
    pub(in crate::offline) fn len(&self) -> usize {
        self.log.len()
    }

    /// Bytes of memory held.
    pub(in crate::offline) fn bytes(&self) -> usize {
        let places = (self.starts.capacity() + self.rows.capacity()) * 4 + self.since.capacity() * 8;
        self.log.bytes() + self.keys.bytes() + places
    }

    /// The log's row of greatest version for each key, whatever its time.
    pub(in crate::offline) fn newest(&self) -> impl Iterator<Item = u32> + '_ {
        self.starts.windows(2).filter_map(|key| {
            let rows = &self.rows[key[0] as usize..key[1] as usize];
            rows.iter().copied().max_by_key(|&row| self.log.version(row))
        })
    }

    /// Answers the rows of a spine, which come in batches. `events` are the log's rows, by their numbers; of the features that `of`
    /// makes of them, `wanted` are read.
    pub(in crate::offline) fn sweep(
        &self,
        of: &Aggregates,
        events: &Prepared,
        spine: &[(Vec<ArrayRef>, Times)],
        wanted: &[usize],
    ) -> Result<Sweep, JoinError> {
        let (mut asked, mut place): (Vec<Asked>, u32) = (Vec::new(), 0);
        for (keys, times) in spine {
            let keys: Vec<&ArrayRef> = keys.iter().collect();
            check(&self.log, &keys, times)?;
            let first = place;
            self.keys.find(&keys, |id| {
                if let Some(at) = times.get((place - first) as usize).filter(|_| id != NONE) {
                    asked.push((id, at, place));
                }
                place += 1;
            })?;
        }
        asked.sort_unstable();
        let rows = place as usize;
        let mut found = Found {
            rows: vec![NONE; rows],
            known: vec![false; rows],
            cells: vec![vec![None; rows]; wanted.len()],
        };
        for of_key in asked.chunk_by(|left, right| left.0 == right.0) {
            self.key((of, events, wanted), of_key, &mut found);
        }
        Ok(Sweep { rows: numbers(found.rows), known: found.known, cells: found.cells })
    }

    /// The spine rows of one key, in the order of time.
    fn key(
        &self,
        (of, events, wanted): (&Aggregates, &Prepared, &[usize]),
        asked: &[Asked],
        found: &mut Found,
    ) {
        let id = asked[0].0 as usize;
        let (mut next, end) = (self.starts[id] as usize, self.starts[id + 1] as usize);
        let (mut ledger, mut newest) = (Ledger::default(), NONE);
        for &(_, at, place) in asked {
            let oldest = of.oldest(at);
            while next < end && self.since[next] <= at {
                let row = self.rows[next];
                if newest == NONE || self.log.version(newest) < self.log.version(row) {
                    newest = row;
                }
                // What this time's windows have left behind is not needed at later ones.
                if self.log.event[row as usize] >= oldest {
                    ledger.replay(of, events, row as usize, self.version(row));
                }
                next += 1;
            }
            if newest == NONE {
                continue;
            }
            let place = place as usize;
            found.known[place] = true;
            if self.bounds.holds(at, || self.log.event[newest as usize], self.log.end(newest)) {
                found.rows[place] = newest;
            }
            ledger.forget_before(of, at);
            // The horizon is this very time.
            let Ok(values) = ledger.read(of, at) else { continue };
            for (cells, &feature) in found.cells.iter_mut().zip(wanted) {
                cells[place].clone_from(&values.cells[feature]);
            }
        }
    }

    /// Rows without sequence have come in their order.
    fn version(&self, row: u32) -> Version {
        let (event, created, sequence, _) = self.log.version(row);
        let sequence = if self.log.sequence.is_empty() { u64::from(row) } else { sequence };
        Version { event, created: (created != i64::MIN).then_some(created), sequence }
    }
}

struct Found {
    rows: Vec<u32>,
    known: Vec<bool>,
    cells: Vec<Vec<Option<Cell>>>,
}
