//! What decides which rows are taken. There is one per set, and it sees one write after another.

use std::{collections::HashSet, sync::Arc};

use super::{
    record::{Record, put_rows},
    shards::{Put, Shards},
};
use crate::online::{
    Outcome, WriteError, Written,
    bytes::Cursor,
    expiry::Expiry,
    incoming::Incoming,
    repeats::{MAX_PARTITIONS, Repeats},
};

/// The state behind the rows, and how many bytes they take.
#[derive(Debug)]
pub(crate) struct Writer {
    shards: Arc<Shards>,
    repeats: Repeats,
    /// The sequence of the next row.
    sequence: u64,
    /// Bytes that the rows take, and those that admitted rows will.
    bytes: usize,
    reserved: usize,
    limit: u64,
    expiry: Expiry,
    /// When the first row's time is over, at the earliest.
    next_end: i64,
}

/// A write of which each row's fate is known, unless the log fails.
#[derive(Debug)]
pub(crate) struct Admitted {
    incoming: Incoming,
    /// `None` for rows that are put to their keys.
    fates: Vec<Option<Outcome>>,
    reserved: usize,
    /// Whether the mark of its partition rises.
    raises: bool,
}

impl Writer {
    pub(crate) fn new(shards: Arc<Shards>, expiry: Expiry, limit: u64, max_ids: usize) -> Self {
        Self {
            shards,
            repeats: Repeats::new(max_ids),
            sequence: 0,
            bytes: 0,
            reserved: 0,
            limit,
            expiry,
            next_end: i64::MIN,
        }
    }

    pub(crate) fn mark(&self, source: &str, partition: u32) -> Option<u64> {
        self.repeats.mark(source, partition)
    }

    /// Bytes that the rows take.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Decides on a write, and remembers its positions and ids. Its rows are put in place by [`Writer::apply`], once they are
    /// safe.
    pub(crate) fn admit(&mut self, incoming: Incoming) -> Result<Admitted, (WriteError, Incoming)> {
        if let Some(at) = &incoming.positions
            && !self.repeats.has_room_for(&at.source, at.partition)
        {
            let problem = format!("more than {MAX_PARTITIONS} partitions of sources");
            return Err((WriteError::Columns { problems: vec![problem] }, incoming));
        }
        let fates = self.fates(&incoming);
        let reserved = self.growth(&incoming, &fates);
        if (self.bytes + self.reserved).saturating_add(reserved) as u64 > self.limit {
            return Err((WriteError::Full { limit: self.limit }, incoming));
        }
        let mut admitted = Admitted { incoming, fates, reserved, raises: false };
        self.reserved += reserved;
        for row in 0..admitted.fates.len() {
            if admitted.fates[row].is_none() {
                self.sequence += 1;
                admitted.incoming.number(row, self.sequence);
            }
        }
        if let Some((source, partition, offset)) = admitted.mark() {
            let raised = self.repeats.mark(source, partition).is_none_or(|mark| offset > mark);
            self.repeats.raise(source, partition, offset);
            admitted.raises = raised;
        }
        admitted.ids().for_each(|id| self.repeats.remember(id.as_bytes()));
        Ok(admitted)
    }

    fn fates(&self, incoming: &Incoming) -> Vec<Option<Outcome>> {
        let positions = incoming.positions.as_ref();
        let mark = positions.and_then(|at| self.repeats.mark(&at.source, at.partition));
        let mut here: HashSet<&str> = HashSet::new();
        let fate = |row: usize| {
            if let Some(problem) = &incoming.refused[row] {
                return Some(Outcome::Refused(problem.clone()));
            }
            let offset = positions.map(|at| at.offsets[row]);
            let id = incoming.id(row);
            let repeated = offset.zip(mark).is_some_and(|(offset, mark)| offset <= mark)
                || id.is_some_and(|id| self.repeats.knows(id.as_bytes()) || !here.insert(id));
            repeated.then_some(Outcome::Repeated)
        };
        (0..incoming.len()).map(fate).collect()
    }

    /// How many bytes more the rows may take: as if each were its key's only new one, and taken.
    fn growth(&self, incoming: &Incoming, fates: &[Option<Outcome>]) -> usize {
        if self.limit == u64::MAX {
            return 0;
        }
        let rows = fates.iter().enumerate().filter(|(_, fate)| fate.is_none());
        let growth = rows.map(|(row, _)| {
            let row = incoming.row(row);
            self.shards.cost_of(&row).saturating_sub(self.shards.cost(row.key).unwrap_or(0))
        });
        growth.sum()
    }

    /// Puts the rows of a write to their keys.
    pub(crate) fn apply(&mut self, admitted: Admitted) -> Written {
        let Admitted { incoming, fates, reserved, .. } = admitted;
        self.reserved = self.reserved.saturating_sub(reserved);
        let fates = fates.into_iter().enumerate();
        Written {
            rows: fates.map(|(row, fate)| fate.unwrap_or_else(|| self.put(&incoming.row(row)))).collect(),
        }
    }

    fn put(&mut self, row: &crate::online::row::Row<'_>) -> Outcome {
        let head = row.head();
        self.sequence = self.sequence.max(head.seen);
        match self.shards.put(row) {
            Put::Older => Outcome::Older,
            Put::Taken(grown) => {
                self.bytes = self.bytes.saturating_add_signed(grown);
                self.next_end = self.next_end.min(self.expiry.end(&head));
                Outcome::Taken
            }
        }
    }

    /// Does what a record of the log says, again: a function of the state and the record.
    pub(crate) fn replay(&mut self, record: &Record<'_>) {
        match record {
            Record::Rows { mark, ids, rows } => {
                mark.iter().for_each(|&(source, partition, offset)| {
                    self.repeats.raise(source, partition, offset);
                });
                ids.iter().for_each(|id| self.repeats.remember(id));
                rows.iter().for_each(|row| {
                    self.put(row);
                });
            }
            Record::Evict { at, ttl } => {
                self.evict_by(&self.expiry.with_ttl(*ttl), *at);
            }
            Record::Erase { keys } => {
                self.erase(keys.iter().copied());
            }
            Record::Purge => {
                self.purge();
            }
        }
    }

    /// Whether any row's time may be over at `at`.
    pub(crate) fn may_evict(&self, at: i64) -> bool {
        self.next_end < at
    }

    /// Removes rows whose time is over at `at`.
    pub(crate) fn evict(&mut self, at: i64) {
        self.evict_by(&self.expiry.with_ttl(self.expiry.ttl()), at);
    }

    fn evict_by(&mut self, expiry: &Expiry, at: i64) {
        let (bytes, next) = self.shards.evict(expiry, at);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.next_end = next;
    }

    /// Removes keys; how many had a row.
    pub(crate) fn erase<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> u64 {
        let mut removed = 0;
        for bytes in keys.filter_map(|key| self.shards.remove(key)) {
            self.bytes = self.bytes.saturating_sub(bytes);
            removed += 1;
        }
        removed
    }

    /// Removes everything but the count of rows; how many there were.
    pub(crate) fn purge(&mut self) -> u64 {
        self.repeats.clear();
        self.bytes = 0;
        self.shards.clear()
    }

    /// Writes what is to be kept beside the rows.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        self.repeats.encode(out);
    }

    /// Takes over what was encoded; `None` if it was not.
    pub(crate) fn decode(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        self.sequence = from.u64()?;
        self.repeats.decode(from)
    }

    /// Takes over rows that were put without it.
    pub(crate) fn count_rows(&mut self) {
        for shard in self.shards.each_shard() {
            for row in shard.rows() {
                self.bytes += self.shards.cost_of(&row);
                self.sequence = self.sequence.max(row.head().seen);
            }
        }
    }
}

impl Admitted {
    /// Adds the write to a frame of the log, unless it changes nothing.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let rows: Vec<_> = (0..self.fates.len()).filter(|&row| self.fates[row].is_none()).collect();
        if rows.is_empty() && !self.raises {
            return;
        }
        let ids: Vec<_> = self.ids().collect();
        put_rows(out, self.mark(), &ids, rows.into_iter().map(|row| self.incoming.row(row)));
    }

    /// The greatest position of the write, refused rows included: they are not sent again.
    fn mark(&self) -> Option<(&str, u32, u64)> {
        let at = self.incoming.positions.as_ref()?;
        Some((&at.source, at.partition, at.offsets.iter().copied().max()?))
    }

    /// The ids of the rows that are put to their keys.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let rows = (0..self.fates.len()).filter(|&row| self.fates[row].is_none());
        rows.filter_map(|row| self.incoming.id(row))
    }
}
