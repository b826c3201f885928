//! What the join asks of a log: keys and times, row by row.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, UInt64Type},
};

use super::{
    JoinError,
    keys::{Keys, Numbered},
};
use crate::{key::KeyKind, offline::Times};

/// The rows of a log, without their features: batch after batch, in the order in which the store took them.
///
/// The number of a row counts from 0 over all batches. Where versions are equal to the last, the later row wins.
#[derive(Debug)]
pub struct LogRows {
    pub(super) kinds: Box<[KeyKind]>,
    /// The key columns of each batch.
    pub(super) keys: Vec<Box<[ArrayRef]>>,
    pub(super) event: Vec<i64>,
    /// Empty unless a batch had them; rows without are the smallest.
    pub(super) created: Vec<i64>,
    pub(super) sequence: Vec<u64>,
    /// Empty unless a batch had them; rows without never end.
    pub(super) end: Vec<i64>,
    key_bytes: usize,
    /// Whether no event is earlier than the one before.
    in_time_order: bool,
}

/// One batch of a log: columns as long as each other.
#[derive(Clone, Debug)]
pub struct LogBatch<'a> {
    /// The keys, in the order of the set's.
    pub keys: &'a [ArrayRef],
    /// When it happened.
    pub event: &'a ArrayRef,
    /// When it became known.
    pub created: Option<&'a ArrayRef>,
    /// The order in which the store took the rows: `UInt64`, null counting as 0.
    pub sequence: Option<&'a ArrayRef>,
    /// Until when a row may be used, inclusive.
    pub valid_to: Option<&'a ArrayRef>,
}

/// A row number that stands for none.
pub(super) const NONE: u32 = u32::MAX;

impl LogRows {
    /// A log without rows, of keys of these types.
    ///
    /// # Errors
    /// When a type is none that a key can have.
    pub fn new(keys: &[DataType]) -> Result<Self, JoinError> {
        let kinds = keys.iter().map(|key| {
            KeyKind::of(key).ok_or_else(|| JoinError::Key { problem: format!("{key} is no key's type") })
        });
        Ok(Self {
            kinds: kinds.collect::<Result<_, _>>()?,
            keys: Vec::new(),
            event: Vec::new(),
            created: Vec::new(),
            sequence: Vec::new(),
            end: Vec::new(),
            key_bytes: 0,
            in_time_order: true,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When an event time is null, a column is no time or no sequence, lengths differ, or there are too many rows.
    pub fn push(&mut self, batch: &LogBatch<'_>) -> Result<(), JoinError> {
        let before = self.event.len();
        let event = Times::of(batch.event)?;
        let rows = event.len();
        if before + rows >= NONE as usize {
            return Err(JoinError::TooLarge);
        }
        let optional = [batch.created, batch.sequence, batch.valid_to];
        if batch.keys.iter().chain(optional.into_iter().flatten()).any(|column| column.len() != rows) {
            return Err(JoinError::Key { problem: "the columns of a batch differ in length".into() });
        }
        if batch.keys.len() != self.kinds.len() {
            let problem = format!("{} key columns for {} keys", batch.keys.len(), self.kinds.len());
            return Err(JoinError::Key { problem });
        }
        if let Some(row) = event.first_null() {
            return Err(JoinError::NullEvent { row: (before + row) as u64 });
        }
        self.event.extend_from_slice(event.micros());
        self.in_time_order = self.in_time_order && self.event[before.saturating_sub(1)..].is_sorted();
        extend(&mut self.created, batch.created, before, rows, i64::MIN)?;
        extend(&mut self.end, batch.valid_to, before, rows, i64::MAX)?;
        if let Some(column) = batch.sequence {
            let problem =
                || JoinError::Time { problem: format!("a sequence is UInt64, not {}", column.data_type()) };
            let numbers = column.as_primitive_opt::<UInt64Type>().ok_or_else(problem)?;
            self.sequence.resize(before, 0);
            self.sequence.extend(numbers.iter().map(Option::unwrap_or_default));
        } else if !self.sequence.is_empty() {
            self.sequence.resize(before + rows, 0);
        }
        self.key_bytes += batch.keys.iter().map(|column| column.get_array_memory_size()).sum::<usize>();
        self.keys.push(batch.keys.into());
        Ok(())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.event.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.event.is_empty()
    }

    /// Bytes of memory the rows take.
    pub fn bytes(&self) -> usize {
        let words =
            self.event.capacity() + self.created.capacity() + self.sequence.capacity() + self.end.capacity();
        words * 8 + self.key_bytes
    }

    /// Whether events come in the order of time.
    pub(super) fn is_in_time_order(&self) -> bool {
        self.in_time_order
    }

    /// Numbers for the keys.
    pub(super) fn number_keys(&self) -> Result<Numbered, JoinError> {
        let batches: Vec<_> = self.keys.iter().map(|batch| batch.iter().collect()).collect();
        Keys::number(&self.kinds, &batches)
    }

    /// Whether of two rows of the same keys the one that comes later always has the greater version.
    pub(super) fn later_wins(&self) -> bool {
        let in_order = |row: usize| {
            self.event[row - 1] < self.event[row] || self.sequence[row - 1] <= self.sequence[row]
        };
        self.in_time_order
            && self.created.is_empty()
            && (self.sequence.is_empty() || (1..self.len()).all(in_order))
    }

    /// What decides between two rows of the same keys.
    #[inline]
    pub(super) fn version(&self, row: u32) -> (i64, i64, u64, u32) {
        let at = row as usize;
        let created = self.created.get(at).copied().unwrap_or(i64::MIN);
        (self.event[at], created, self.sequence.get(at).copied().unwrap_or_default(), row)
    }

    /// Until when a row may be used.
    #[inline]
    pub(super) fn end(&self, row: u32) -> i64 {
        self.end.get(row as usize).copied().unwrap_or(i64::MAX)
    }
}

/// Adds the times of `column` to `held`, which stays empty as long as no batch has the column.
fn extend(
    held: &mut Vec<i64>,
    column: Option<&ArrayRef>,
    before: usize,
    rows: usize,
    none: i64,
) -> Result<(), JoinError> {
    if let Some(column) = column {
        let times = Times::of(column)?;
        held.resize(before, none);
        held.extend(times.filled(none));
    } else if !held.is_empty() {
        held.resize(before + rows, none);
    }
    Ok(())
}
