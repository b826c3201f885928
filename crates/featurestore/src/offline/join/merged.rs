//! The join in one pass over time: log and spine advance together, and the newest row of each key is at hand.

use std::{cmp::Reverse, collections::BinaryHeap};

use arrow::array::ArrayRef;

use super::{
    JoinError, NONE,
    keys::{AT_A_TIME, Keys, Numbered},
    rows::LogRows,
};
use crate::offline::{Times, as_of::Bounds};

/// The row for each row of a whole spine, from a log whose events come in the order of time.
///
/// Only keys that the spine has are remembered, so the state is as big as the spine, not as the log.
pub(super) fn merge(
    log: &LogRows,
    spine: &[(&[&ArrayRef], &Times)],
    bounds: Bounds,
) -> Result<Vec<u32>, JoinError> {
    let batches: Vec<_> = spine.iter().map(|(keys, _)| keys.to_vec()).collect();
    let Numbered { keys, ids, count } = Keys::number(&log.kinds, &batches)?;
    let order = in_time_order(spine, &ids);
    let coming = Coming { keys: &keys, log, batch: 0, offset: 0, ids: Vec::new(), start: 0 };
    let count = count as usize;
    if log.later_wins() {
        return pass(coming, order, &ids, bounds, Last(vec![NONE; count]));
    }
    let latest = Latest { rows: vec![(i64::MIN, NONE); count], log, waiting: BinaryHeap::new() };
    pass(coming, order, &ids, bounds, latest)
}

fn pass(
    mut coming: Coming<'_>,
    order: Vec<(i64, u32)>,
    ids: &[u32],
    bounds: Bounds,
    mut newest: impl Newest,
) -> Result<Vec<u32>, JoinError> {
    let log = coming.log;
    let mut found = vec![NONE; ids.len()];
    let mut next = 0;
    for (at, place) in order {
        let Some(until) = bounds.newest(at) else { continue };
        let known = bounds.known(at);
        while next < log.len() && log.event[next] <= until {
            let id = coming.id(next)?;
            if id != NONE {
                newest.happen(id, next as u32, known);
            }
            next += 1;
        }
        newest.become_known(known);
        let row = newest.row(ids[place as usize]);
        if row != NONE && bounds.holds(at, || log.event[row as usize], log.end(row)) {
            found[place as usize] = row;
        }
    }
    Ok(found)
}

/// The numbers of the log's keys, some thousand rows ahead of where the pass is.
struct Coming<'a> {
    keys: &'a Keys,
    log: &'a LogRows,
    batch: usize,
    offset: usize,
    ids: Vec<u32>,
    /// The row of the first of `ids`.
    start: usize,
}

impl Coming<'_> {
    /// The number of the key of `row`, [`NONE`] when the spine has no such key. Rows are asked for one after the other.
    #[inline]
    fn id(&mut self, row: usize) -> Result<u32, JoinError> {
        while row - self.start >= self.ids.len() {
            self.advance()?;
        }
        Ok(self.ids[row - self.start])
    }

    fn advance(&mut self) -> Result<(), JoinError> {
        self.start += self.ids.len();
        self.ids.clear();
        let batch = &self.log.keys[self.batch];
        let rows = batch.first().map_or(0, |column| column.len()) - self.offset;
        let part: Vec<_> =
            batch.iter().map(|column| column.slice(self.offset, rows.min(AT_A_TIME))).collect();
        self.keys.find(&part.iter().collect::<Vec<_>>(), |id| self.ids.push(id))?;
        (self.batch, self.offset) =
            if rows > AT_A_TIME { (self.batch, self.offset + AT_A_TIME) } else { (self.batch + 1, 0) };
        Ok(())
    }
}

/// The newest known row of each key, as the log goes by.
trait Newest {
    /// A row of the key of number `id` has happened.
    fn happen(&mut self, id: u32, row: u32, known: i64);
    /// All that was created until `known` is known.
    fn become_known(&mut self, known: i64);
    fn row(&self, id: u32) -> u32;
}

/// Of a log in which the later row wins: it is written over the one before, which is not looked at.
struct Last(Vec<u32>);

impl Newest for Last {
    #[inline]
    fn happen(&mut self, id: u32, row: u32, _: i64) {
        self.0[id as usize] = row;
    }

    #[inline]
    fn become_known(&mut self, _: i64) {}

    #[inline]
    fn row(&self, id: u32) -> u32 {
        self.0[id as usize]
    }
}

/// Of any log, with the rows that have happened but are not known yet.
struct Latest<'a> {
    /// With their events, which decide between most rows without another look into the log.
    rows: Vec<(i64, u32)>,
    log: &'a LogRows,
    /// By creation, the earliest on top.
    waiting: BinaryHeap<Reverse<(i64, u32, u32)>>,
}

impl Newest for Latest<'_> {
    #[inline]
    fn happen(&mut self, id: u32, row: u32, known: i64) {
        let created = self.log.created.get(row as usize).copied().unwrap_or(i64::MIN);
        if created <= known {
            self.replace(id, row);
        } else {
            self.waiting.push(Reverse((created, row, id)));
        }
    }

    #[inline]
    fn become_known(&mut self, known: i64) {
        while let Some(&Reverse((created, row, id))) = self.waiting.peek()
            && created <= known
        {
            self.waiting.pop();
            self.replace(id, row);
        }
    }

    #[inline]
    fn row(&self, id: u32) -> u32 {
        self.rows[id as usize].1
    }
}

impl Latest<'_> {
    #[inline]
    fn replace(&mut self, id: u32, row: u32) {
        let event = self.log.event[row as usize];
        let (newest, known) = &mut self.rows[id as usize];
        if event < *newest && *known != NONE {
            return;
        }
        if event > *newest || *known == NONE || self.log.version(*known) < self.log.version(row) {
            (*newest, *known) = (event, row);
        }
    }
}

/// The spine rows that have a key and a time, earliest first, and their places.
fn in_time_order(spine: &[(&[&ArrayRef], &Times)], ids: &[u32]) -> Vec<(i64, u32)> {
    let times = spine.iter().flat_map(|(_, times)| (0..times.len()).map(|row| times.get(row)));
    let known = times.zip(ids).enumerate().filter(|(_, (_, id))| **id != NONE);
    let mut order: Vec<_> = known.filter_map(|(place, (at, _))| Some((at?, place as u32))).collect();
    if order.is_sorted() {
        return order;
    }
    // Time and place in one word are sorted in half the time. They fit unless the times lie centuries apart.
    let first = order.iter().map(|(at, _)| *at).min().unwrap_or_default();
    let last = order.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let bits = usize::BITS - ids.len().leading_zeros();
    if last.checked_sub(first).is_some_and(|span| span >> (62 - bits) == 0) {
        let place = (1_u64 << bits) - 1;
        let mut words: Vec<_> =
            order.iter().map(|&(at, at_place)| ((at - first) as u64) << bits | u64::from(at_place)).collect();
        words.sort_unstable();
        let unpack = words.into_iter().map(|word| ((word >> bits) as i64 + first, (word & place) as u32));
        return unpack.collect();
    }
    order.sort_unstable();
    order
}
