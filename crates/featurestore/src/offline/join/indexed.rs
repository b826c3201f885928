//! The join by an index: the rows of each key beside each other in the order of their versions, and a binary search.

use arrow::array::ArrayRef;
use smallvec::SmallVec;

use super::{
    JoinError, NONE,
    keys::{Keys, Numbered},
    rows::LogRows,
};
use crate::offline::{Times, as_of::Bounds};

/// A log by key, asked by any number of spines.
#[derive(Debug)]
pub(super) struct Indexed {
    keys: Keys,
    /// Where the rows of each key start; one more than there are keys.
    starts: Vec<u32>,
    /// Row numbers, by key and version.
    rows: Vec<u32>,
    /// The events of `rows`.
    events: Vec<i64>,
    /// The creations of `rows`, when they matter.
    known: Option<Lows>,
}

impl Indexed {
    pub(super) fn new(log: &LogRows, bounds: Bounds) -> Result<Self, JoinError> {
        let Numbered { keys, ids, count } = log.number_keys()?;
        let (starts, mut rows) = by_key(&ids, count);
        let mut events: Vec<i64> = rows.iter().map(|&row| log.event[row as usize]).collect();
        // Rows keep their order when they are laid out by key, so that a log in the order of versions needs no sorting.
        if !(1..log.len() as u32).all(|row| log.version(row - 1) <= log.version(row)) {
            for key in starts.windows(2) {
                let key = key[0] as usize..key[1] as usize;
                sort(log, &mut rows[key.clone()], &mut events[key]);
            }
        }
        let matters = bounds.lag.is_some() && !log.created.is_empty();
        let known = matters.then(|| Lows::new(rows.iter().map(|&row| log.created[row as usize]).collect()));
        Ok(Self { keys, starts, rows, events, known })
    }

    pub(super) fn find(
        &self,
        log: &LogRows,
        keys: &[&ArrayRef],
        times: &Times,
        bounds: Bounds,
    ) -> Result<Vec<u32>, JoinError> {
        let mut found = Vec::with_capacity(times.len());
        // All keys first, then all times: the misses of many look-ups overlap.
        self.keys.find(keys, |id| found.push(id))?;
        for (row, found) in found.iter_mut().enumerate() {
            *found = match times.get(row) {
                Some(at) if *found != NONE => self.winner(log, *found as usize, at, bounds),
                _ => NONE,
            };
        }
        Ok(found)
    }

    #[inline]
    fn winner(&self, log: &LogRows, id: usize, at: i64, bounds: Bounds) -> u32 {
        let (start, end) = (self.starts[id] as usize, self.starts[id + 1] as usize);
        let Some(newest) = bounds.newest(at) else { return NONE };
        let happened = start + self.events[start..end].partition_point(|&event| event <= newest);
        let known = match &self.known {
            None => happened,
            Some(known) => known.last(start, happened, bounds.known(at)),
        };
        if known == start {
            return NONE;
        }
        let row = self.rows[known - 1];
        if bounds.holds(at, || self.events[known - 1], log.end(row)) { row } else { NONE }
    }

    /// The row of greatest version for each key.
    #[cfg(feature = "offline")]
    pub(super) fn newest(&self) -> impl Iterator<Item = u32> + '_ {
        let ends = self.starts.windows(2).filter(|key| key[0] < key[1]);
        ends.map(|key| self.rows[key[1] as usize - 1])
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        let known = self.known.as_ref().map_or(0, Lows::bytes);
        self.keys.bytes()
            + (self.starts.capacity() + self.rows.capacity()) * 4
            + self.events.capacity() * 8
            + known
    }
}

/// Puts the rows of a key and their events in the order of versions. Between most rows the events decide, which are at hand; the log
/// is far larger than any cache.
fn sort(log: &LogRows, rows: &mut [u32], events: &mut [i64]) {
    let mut pairs: SmallVec<[(i64, u32); 64]> = events.iter().copied().zip(rows.iter().copied()).collect();
    pairs.sort_unstable_by(|one, other| {
        one.0.cmp(&other.0).then_with(|| log.version(one.1).cmp(&log.version(other.1)))
    });
    for ((event, row), pair) in events.iter_mut().zip(rows).zip(pairs) {
        (*event, *row) = pair;
    }
}

/// Row numbers laid out by key, in the order they came, and where each key starts.
pub(super) fn by_key(ids: &[u32], count: u32) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; count as usize + 1];
    let known = || ids.iter().enumerate().filter(|(_, id)| **id != NONE);
    known().for_each(|(_, &id)| starts[id as usize + 1] += 1);
    for id in 1..starts.len() {
        starts[id] += starts[id - 1];
    }
    let mut next = starts.clone();
    let mut rows = vec![0_u32; starts.last().map_or(0, |&end| end as usize)];
    for (row, &id) in known() {
        let at = &mut next[id as usize];
        rows[*at as usize] = row as u32;
        *at += 1;
    }
    (starts, rows)
}

/// Numbers, and the lowest of every 16, of every 256 and so on: so that a backfill which is not known yet is passed over in a few
/// steps, not row by row.
#[derive(Debug)]
struct Lows(Vec<Vec<i64>>);

impl Lows {
    const FANOUT_BITS: u32 = 4;

    fn new(values: Vec<i64>) -> Self {
        let mut levels = vec![values];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let lows = last
                .chunks(1 << Self::FANOUT_BITS)
                .map(|chunk| chunk.iter().copied().fold(i64::MAX, i64::min));
            let lows = lows.collect();
            levels.push(lows);
        }
        Self(levels)
    }

    /// One more than the last place in `start..end` whose number is at most `most`; `start` when there is none.
    #[inline]
    fn last(&self, start: usize, end: usize, most: i64) -> usize {
        let mut at = end;
        while at > start && self.0[0][at - 1] > most {
            // The widest block that ends here, begins no earlier than `start`, and has no such number.
            let mut width = 1;
            for (level, lows) in self.0.iter().enumerate().skip(1) {
                let wider = 1_usize << (Self::FANOUT_BITS * level as u32);
                if !at.is_multiple_of(wider) || at - start < wider || lows[at / wider - 1] <= most {
                    break;
                }
                width = wider;
            }
            at -= width;
        }
        at
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|level| level.capacity() * 8).sum()
    }
}
