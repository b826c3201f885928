//! The join in one pass over time: log and spine advance together, and the newest row of each key is at hand.

use std::{cmp::Reverse, collections::BinaryHeap};

use arrow::array::ArrayRef;

use super::{JoinError, NONE, rows::LogRows};
use crate::{
    index::{Index, Inserted},
    offline::{Times, as_of::Bounds},
};

/// The row for each row of a whole spine, from a log whose events come in the order of time.
///
/// Only keys that the spine has are remembered, so the state is as big as the spine, not as the log.
pub(super) fn merge(
    log: &LogRows,
    spine: &[(&[&ArrayRef], &Times)],
    bounds: Bounds,
) -> Result<Vec<u32>, JoinError> {
    let mut keys = Index::new(log.kinds.clone());
    let (ids, count) = number_keys(&mut keys, spine)?;
    let mut latest = Latest { rows: vec![NONE; count as usize], log, waiting: BinaryHeap::new() };
    let mut log_ids = Vec::with_capacity(log.len());
    for batch in &log.keys {
        let columns: Vec<_> = batch.iter().collect();
        keys.find(&columns, |id| log_ids.push(id))?;
    }

    let mut found = vec![NONE; ids.len()];
    let mut next = 0;
    for (at, place) in in_time_order(spine, &ids) {
        let Some(newest) = bounds.newest(at) else { continue };
        let known = bounds.known(at);
        while next < log.len() && log.event[next] <= newest {
            if log_ids[next] != NONE {
                latest.happen(log_ids[next], next as u32, known);
            }
            next += 1;
        }
        latest.become_known(known);
        let row = latest.rows[ids[place as usize] as usize];
        if row != NONE && bounds.holds(at, log.event[row as usize], log.end(row)) {
            found[place as usize] = row;
        }
    }
    Ok(found)
}

/// The newest known row of each key, and those that have happened but are not known yet.
struct Latest<'a> {
    rows: Vec<u32>,
    log: &'a LogRows,
    /// By creation, the earliest on top.
    waiting: BinaryHeap<Reverse<(i64, u32, u32)>>,
}

impl Latest<'_> {
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
    fn replace(&mut self, id: u32, row: u32) {
        let latest = &mut self.rows[id as usize];
        if *latest == NONE || self.log.version(*latest) < self.log.version(row) {
            *latest = row;
        }
    }
}

/// The number of each spine row's key, over all batches; [`NONE`] where no row can match.
fn number_keys(keys: &mut Index, spine: &[(&[&ArrayRef], &Times)]) -> Result<(Vec<u32>, u32), JoinError> {
    let (mut ids, mut count) = (Vec::new(), 0);
    for (columns, _) in spine {
        keys.insert(columns, count, |_, inserted| {
            ids.push(match inserted {
                Inserted::New(id) => {
                    count = id + 1;
                    id
                }
                Inserted::Known(id) => id,
                Inserted::Null => NONE,
            });
        })?;
    }
    Ok((ids, count))
}

/// The spine rows that have a key and a time, earliest first, and their places.
fn in_time_order(spine: &[(&[&ArrayRef], &Times)], ids: &[u32]) -> Vec<(i64, u32)> {
    let times = spine.iter().flat_map(|(_, times)| (0..times.len()).map(|row| times.get(row)));
    let known = times.zip(ids).enumerate().filter(|(_, (_, id))| **id != NONE);
    let mut order: Vec<_> = known.filter_map(|(place, (at, _))| Some((at?, place as u32))).collect();
    if !order.is_sorted() {
        order.sort_unstable();
    }
    order
}
