//! What decides which rows are taken. There is one per set, and it sees one write after another.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use ahash::RandomState;

use super::{
    key_windows::{Event, KeyWindows},
    reading::Counters,
    record::{Record, put_rows},
    shards::{Put, Shards},
};
use crate::{
    Aggregates, Prepared,
    online::{
        Outcome, WriteError, Written,
        bytes::Cursor,
        expiry::Expiry,
        incoming::Incoming,
        repeats::{MAX_PARTITIONS, Repeats},
        row::Row,
    },
};

/// The state behind the rows, and how many bytes they take.
#[derive(Debug)]
pub(crate) struct Writer {
    shards: Arc<Shards>,
    repeats: Repeats,
    /// The sequence of the next row.
    sequence: u64,
    /// The greatest sequence of a row that was taken.
    newest: u64,
    /// Bytes that the rows take, and those that admitted rows will.
    bytes: usize,
    reserved: usize,
    limit: u64,
    expiry: Expiry,
    /// When the first row's time is over, at the earliest.
    next_end: i64,
    /// The newest event of each key among the rows that are admitted and not in place yet, of sets with windows.
    admitted: HashMap<Box<[u8]>, i64, RandomState>,
    /// Windows of keys that are gone may have had events before it, so events before it are too late for new keys.
    floor: i64,
    counters: Arc<Counters>,
}

/// What will become of a write.
#[derive(Debug)]
pub(crate) struct Fates {
    /// `None` for rows that are put to their keys.
    rows: Vec<Option<Outcome>>,
    reserved: usize,
    /// Whether the mark of its partition rises.
    raises: bool,
}

/// A write that is taken, unless the log fails.
#[derive(Debug)]
pub(crate) struct Admitted {
    incoming: Box<Incoming>,
    fates: Fates,
}

impl Writer {
    pub(crate) fn new(
        shards: Arc<Shards>,
        expiry: Expiry,
        limit: u64,
        max_ids: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            shards,
            repeats: Repeats::new(max_ids),
            sequence: 0,
            newest: 0,
            bytes: 0,
            reserved: 0,
            limit,
            expiry,
            next_end: i64::MIN,
            admitted: HashMap::default(),
            floor: i64::MIN,
            counters,
        }
    }

    /// The sequence of the next row.
    pub(crate) fn next(&self) -> u64 {
        self.sequence + 1
    }

    /// Gives no row a sequence before `next` any more.
    pub(crate) fn skip_to(&mut self, next: u64) {
        self.sequence = self.sequence.max(next.saturating_sub(1));
    }

    pub(crate) fn mark(&self, source: &str, partition: u32) -> Option<u64> {
        self.repeats.mark(source, partition)
    }

    /// Bytes that the rows take.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What will become of a write, if there is room for it.
    pub(crate) fn decide(&self, incoming: &Incoming) -> Result<Fates, WriteError> {
        if let Some(at) = &incoming.positions
            && !self.repeats.has_room_for(&at.source, at.partition)
        {
            let problem = format!("more than {MAX_PARTITIONS} partitions of sources");
            return Err(WriteError::Columns { problems: vec![problem] });
        }
        if incoming.restored.is_some() && !self.takes_back(incoming) {
            return Err(WriteError::NotEmpty);
        }
        let rows = self.fates(incoming);
        let reserved = self.growth(incoming, &rows);
        if (self.bytes + self.reserved).saturating_add(reserved) as u64 > self.limit {
            return Err(WriteError::Full { limit: self.limit });
        }
        Ok(Fates { rows, reserved, raises: false })
    }

    /// Whether rows that come back may be put in place. Events must come in the order in which they came first, so the rows of a set
    /// with windows must all be some that came back before them, from where these do.
    fn takes_back(&self, incoming: &Incoming) -> bool {
        let mark = incoming.positions.as_ref().and_then(|at| self.repeats.mark(&at.source, at.partition));
        let empty = || self.admitted.is_empty() && self.shards.len() == 0;
        self.shards.windows().is_none() || mark.is_some_and(|mark| self.newest <= mark) || empty()
    }

    /// Takes a write, and remembers its positions and ids. Its rows are put in place by [`Writer::apply`], once they are safe.
    pub(crate) fn admit(&mut self, mut incoming: Box<Incoming>, fates: Fates) -> Admitted {
        for row in (0..incoming.len()).filter(|&row| fates.rows[row].is_none()) {
            let sequence = incoming.sequence(row, self.sequence + 1);
            incoming.number(row, sequence);
            (self.sequence, self.newest) = (self.sequence.max(sequence), self.newest.max(sequence));
            if self.shards.windows().is_some() {
                let row = incoming.row(row);
                let event = row.head().event;
                self.admitted.entry(row.key.into()).and_modify(|at| *at = event.max(*at)).or_insert(event);
            }
        }
        self.reserved += fates.reserved;
        let mut admitted = Admitted { incoming, fates };
        if let Some((source, partition, offset)) = admitted.mark() {
            let raises = self.repeats.mark(source, partition).is_none_or(|mark| offset > mark);
            self.repeats.raise(source, partition, offset);
            admitted.fates.raises = raises;
        }
        admitted.ids().for_each(|id| self.repeats.remember(id.as_bytes()));
        admitted
    }

    fn fates(&self, incoming: &Incoming) -> Vec<Option<Outcome>> {
        let positions = incoming.positions.as_ref();
        let mark = positions.and_then(|at| self.repeats.mark(&at.source, at.partition));
        let mut here: HashSet<&str> = HashSet::new();
        let mut newest: HashMap<&[u8], i64, RandomState> = HashMap::default();
        let fate = |row: usize| {
            if let Some(problem) = &incoming.refused[row] {
                return Some(Outcome::Refused(problem.clone()));
            }
            let offset = positions.map(|at| at.offsets[row]);
            let id = incoming.id(row);
            let repeated = offset.zip(mark).is_some_and(|(offset, mark)| offset <= mark)
                || id.is_some_and(|id| self.repeats.knows(id.as_bytes()) || !here.insert(id));
            if repeated {
                return Some(Outcome::Repeated);
            }
            self.is_too_late(&incoming.row(row), &mut newest).then_some(Outcome::TooLate)
        };
        (0..incoming.len()).map(fate).collect()
    }

    /// Whether an event will be too late for the windows of its key, once what is admitted and the rows before it are in place.
    /// What is too late is not in the log: whoever reads that has what was taken.
    fn is_too_late<'a>(&self, row: &Row<'a>, newest: &mut HashMap<&'a [u8], i64, RandomState>) -> bool {
        let Some(of) = self.shards.windows() else { return false };
        let event = row.head().event;
        let known = self.shards.horizon(row.key).unwrap_or(self.floor);
        let before = self.admitted.get(row.key).into_iter().chain(newest.get(row.key));
        if event < before.map(|&event| of.horizon(event)).fold(known, i64::max) {
            return true;
        }
        newest.entry(row.key).and_modify(|at| *at = event.max(*at)).or_insert(event);
        false
    }

    /// How many bytes more the rows may take: as if each were its key's only new one, and taken.
    fn growth(&self, incoming: &Incoming, fates: &[Option<Outcome>]) -> usize {
        if self.limit == u64::MAX {
            return 0;
        }
        let (rows, windows) =
            (fates.iter().enumerate().filter(|(_, fate)| fate.is_none()), self.shards.windows());
        let growth = rows.map(|(row, _)| {
            let row = incoming.row(row);
            let known = self.shards.cost(row.key);
            // Room for events is made for twice as many as there are.
            let event = windows
                .map_or(0, |of| 2 * of.event_bytes() + if known.is_none() { KeyWindows::LEAST } else { 0 });
            event + self.shards.cost_of(&row).saturating_sub(known.unwrap_or(0))
        });
        growth.sum()
    }

    /// Puts the rows of a write to their keys.
    pub(crate) fn apply(&mut self, admitted: Admitted) -> Written {
        let Admitted { incoming, fates } = admitted;
        // All that is admitted is put in place before the next write is decided on.
        self.admitted.clear();
        self.reserved = self.reserved.saturating_sub(fates.reserved);
        let events = incoming.events.as_ref();
        let fates = fates.rows.into_iter().enumerate();
        let put = |(row, fate): (usize, Option<Outcome>)| {
            fate.unwrap_or_else(|| self.put(&incoming.row(row), events.map(|events| (events, row))))
        };
        let rows: Vec<_> = fates.map(put).collect();
        let too_late = rows.iter().filter(|row| **row == Outcome::TooLate).count();
        self.counters.too_late.fetch_add(too_late as u64, Relaxed);
        Written { rows, broken: Vec::new() }
    }

    fn put(&mut self, row: &Row<'_>, event: Option<(&Prepared, usize)>) -> Outcome {
        let head = row.head();
        (self.sequence, self.newest) = (self.sequence.max(head.seen), self.newest.max(head.seen));
        let event = event.map(|(events, row)| Event { events, row, floor: self.floor });
        match self.shards.put(row, event) {
            Put::Older => Outcome::Older,
            Put::TooLate => Outcome::TooLate,
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
            Record::Rows { mark, ids, rows, events, .. } => {
                mark.iter().for_each(|&(source, partition, offset)| {
                    self.repeats.raise(source, partition, offset);
                });
                ids.iter().for_each(|id| self.repeats.remember(id));
                for (number, row) in rows.iter().enumerate() {
                    self.put(row, events.as_ref().map(|events| (events, number)));
                }
            }
            Record::Evict { at, ttl } => {
                self.evict_by(&self.expiry.with_ttl(*ttl), *at);
            }
            Record::Erase { keys, .. } => {
                self.erase(keys.iter().copied());
            }
            Record::Purge { .. } => {
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
        if let Some(of) = self.shards.windows() {
            self.floor = self.floor.max(of.horizon(at));
        }
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
        (self.bytes, self.floor) = (0, i64::MIN);
        self.shards.clear()
    }

    /// Writes what is to be kept beside the rows.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        if self.shards.windows().is_some() {
            out.extend_from_slice(&self.floor.to_le_bytes());
        }
        self.repeats.encode(out);
    }

    /// Takes over what was encoded; `None` if it was not.
    pub(crate) fn decode(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        self.sequence = from.u64()?;
        if self.shards.windows().is_some() {
            self.floor = from.i64()?;
        }
        self.repeats.decode(from)
    }

    /// Takes over rows that were put without it.
    pub(crate) fn count_rows(&mut self) {
        for shard in self.shards.each_shard() {
            for (row, windows) in shard.entries() {
                self.bytes += self.shards.cost_of(&row) + windows.map_or(0, |windows| windows.bytes);
                let seen = row.head().seen;
                (self.sequence, self.newest) = (self.sequence.max(seen), self.newest.max(seen));
            }
        }
    }
}

impl Admitted {
    /// Adds the write to a frame of the log, unless it changes nothing.
    pub(crate) fn encode(&self, as_kept: (Option<&Aggregates>, bool), out: &mut Vec<u8>) {
        let rows: Vec<_> = self.rows().collect();
        let ids: Vec<_> = self.ids().collect();
        if rows.is_empty() && ids.is_empty() && !self.fates.raises {
            return;
        }
        put_rows(out, self.mark(), &ids, (&self.incoming, &rows), as_kept);
    }

    /// The greatest position of the write, refused rows included: they are not sent again.
    fn mark(&self) -> Option<(&str, u32, u64)> {
        let at = self.incoming.positions.as_ref()?;
        Some((&at.source, at.partition, at.top()?))
    }

    /// The rows that are put to their keys.
    fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.incoming.len()).filter(|&row| self.fates.rows[row].is_none())
    }

    /// Their ids, and those of events that are too late: they are not asked about again.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let known = |row: &usize| matches!(self.fates.rows[*row], None | Some(Outcome::TooLate));
        (0..self.incoming.len()).filter(known).filter_map(|row| self.incoming.id(row))
    }
}
