//! The point-in-time join: for every row of a spine, the row of a log that was true and known at its time.
//!
//! ```
//! use std::sync::Arc;
//! use arrow::{array::{ArrayRef, Int64Array}, datatypes::DataType};
//! use millstream_featurestore::offline::{AsOf, LogBatch, LogRows, PointInTime, Times};
//!
//! let column = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
//! let mut log = LogRows::new(&[DataType::Int64])?;
//! let (cards, events) = ([column(&[7, 7])], column(&[10, 20]));
//! log.push(&LogBatch { keys: &cards, event: &events, created: None, sequence: None, valid_to: None })?;
//!
//! let join = PointInTime::new(log, AsOf::default())?;
//! let rows = join.find(&[&column(&[7, 7, 8])], &Times::of(&column(&[15, 20, 20]))?)?;
//! assert_eq!(rows.iter().collect::<Vec<_>>(), [Some(0), Some(1), None]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod indexed;
mod keys;
mod merged;
mod rows;
#[cfg(feature = "offline")]
mod swept;
#[cfg(test)]
mod tests;

use arrow::array::{Array, ArrayRef, UInt32Array};

use super::{AsOf, Times, as_of::Bounds};
use crate::LookupError;
use indexed::Indexed;
use rows::NONE;
pub use rows::{LogBatch, LogRows};
#[cfg(feature = "offline")]
pub(super) use swept::{Sweep, Swept};

/// A log that spines are joined to, batch by batch.
#[derive(Debug)]
pub struct PointInTime {
    log: LogRows,
    index: Indexed,
    bounds: Bounds,
}

/// How a spine is joined to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The log is indexed by key; the spine comes batch by batch, in any order.
    Indexed,
    /// Log and spine are passed over together in the order of time.
    Merged,
}

impl Method {
    /// The cheaper one. To merge pays when the log is in the order of time already and the spine, which is put in order for it,
    /// is the smaller side.
    pub fn choose(log: &LogRows, spine_rows: usize) -> Self {
        if spine_rows <= log.len() && log.is_in_time_order() { Self::Merged } else { Self::Indexed }
    }
}

impl PointInTime {
    /// Indexes a log.
    ///
    /// # Errors
    /// When its keys cannot be read.
    pub fn new(log: LogRows, as_of: AsOf) -> Result<Self, JoinError> {
        let bounds = Bounds::from(as_of);
        Ok(Self { index: Indexed::new(&log, bounds)?, log, bounds })
    }

    /// The number of the log's row for each row of a spine; null where there is none. A null key or time matches nothing.
    ///
    /// # Errors
    /// When there are not as many key columns as keys, or one has another type than the log's, or lengths differ.
    pub fn find(&self, keys: &[&ArrayRef], times: &Times) -> Result<UInt32Array, JoinError> {
        check(&self.log, keys, times)?;
        Ok(numbers(self.index.find(&self.log, keys, times, self.bounds)?))
    }

    /// The log's row of greatest version for each key, whatever its time.
    #[cfg(feature = "offline")]
    pub(crate) fn newest(&self) -> impl Iterator<Item = u32> + '_ {
        self.index.newest()
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.index.bytes()
    }
}

/// The same answer as [`PointInTime::find`] for a whole spine, which comes in batches, in one pass over time.
///
/// # Errors
/// As [`PointInTime::find`], and when the events of the log are not in the order of time.
pub fn merge(log: &LogRows, spine: &[(&[&ArrayRef], &Times)], as_of: AsOf) -> Result<UInt32Array, JoinError> {
    spine.iter().try_for_each(|(keys, times)| check(log, keys, times))?;
    if !log.is_in_time_order() {
        return Err(JoinError::Order);
    }
    let rows: usize = spine.iter().map(|(_, times)| times.len()).sum();
    if rows >= NONE as usize {
        return Err(JoinError::TooLarge);
    }
    Ok(numbers(merged::merge(log, spine, as_of.into())?))
}

fn check(log: &LogRows, keys: &[&ArrayRef], times: &Times) -> Result<(), JoinError> {
    if keys.len() != log.kinds.len() {
        let problem = format!("{} key columns for {} keys", keys.len(), log.kinds.len());
        return Err(JoinError::Key { problem });
    }
    match keys.iter().find(|key| key.len() != times.len()) {
        Some(key) => Err(JoinError::Key { problem: format!("{} keys for {} times", key.len(), times.len()) }),
        None => Ok(()),
    }
}

fn numbers(found: Vec<u32>) -> UInt32Array {
    let nulls = found.iter().map(|&row| row != NONE).collect();
    UInt32Array::new(found.into(), Some(nulls))
}

/// Why rows cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A key column is not what the log's keys ask for.
    #[error("{problem}")]
    Key {
        /// What is wrong.
        problem: String,
    },
    /// A column of times or sequences is none.
    #[error("{problem}")]
    Time {
        /// What is wrong.
        problem: String,
    },
    /// A row of the log has no event time.
    #[error("row {row} of the log has no event time")]
    NullEvent {
        /// The row, counted from 0.
        row: u64,
    },
    /// A log to be merged is not in the order of time.
    #[error("the events of the log are not in the order of time")]
    Order,
    /// More rows than one join can number.
    #[error("more than {} rows in one part; join in more parts", NONE - 1)]
    TooLarge,
    /// Keys could not be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}
