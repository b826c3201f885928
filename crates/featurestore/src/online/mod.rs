//! Online stores that take writes: what a write is, what it answers, and the backends that take it.
//!
//! All backends keep one packed row per key, the one of the greatest [`Version`](crate::Version), and answer the same for the
//! same writes; `tests/it/online/conformance.rs` runs one table of behaviours over all of them.

mod aside;
mod backfill;
pub(crate) mod bytes;
mod changes;
mod expiry;
mod guard;
mod incoming;
pub(crate) mod local;
mod packed;
#[cfg(feature = "redb")]
pub(crate) mod redb;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod repeats;
mod row;
pub(crate) mod rules;
pub(crate) mod set;
pub(crate) mod spec;
mod stores;
mod through;
mod worker;

use std::{future::Future, pin::Pin, sync::Arc};

use arrow::array::RecordBatch;

#[cfg(feature = "offline")]
pub(crate) use self::incoming::LOGGED;
#[cfg(feature = "offline")]
pub use self::local::Archived;
#[cfg(feature = "offline")]
pub use self::spec::OfflineSpec;
#[cfg(feature = "redb")]
pub use self::spec::RedbSpec;
#[cfg(feature = "redis")]
pub use self::spec::RedisSpec;
pub(crate) use self::{backfill::PLACE, repeats::LONGEST_NAME, stores::Wanted};
pub use self::{
    changes::{Changes, Positions},
    expiry::Clock,
    set::{Counted, Heard, TimeColumns, WritableSet},
    spec::{AsideSpec, DurabilitySpec, LocalSpec, OnlineSpec, Otherwise, RuleSpec},
    stores::Stores,
    through::{Passage, Passed, Passing},
};
use crate::{LookupError, OnlineTable, RowProblem};

/// A feature set that takes rows while it is read.
///
/// Of several rows with the same keys the one of the greatest [`Version`](crate::Version) counts, whatever the order in which
/// they come. A write is atomic as far as crashes go: after one, all its rows and its position are there, or none. Readers see
/// each row whole, old or new.
///
/// A write that was handed over is carried out, even if nobody waits for its answer any more.
pub trait WritableTable: OnlineTable {
    /// Takes rows. The answer comes when they are as safe as the store promises, and can be read.
    fn write(&self, changes: Changes) -> Answer<'_, Written>;

    /// Removes all that is known of some keys, from every place where the store keeps it. `keys` has the set's key columns, by
    /// name.
    ///
    /// The answer comes when no file of the store holds a row of these keys any more. Rows that come later are taken as if the
    /// key were new.
    fn erase(&self, keys: RecordBatch) -> Answer<'_, Receipt>;

    /// Empties the set: rows, positions and event ids.
    fn purge(&self) -> Answer<'_, Receipt>;

    /// Up to which offset events of this partition have been taken; `None` before the first.
    fn mark(&self, source: &str, partition: u32) -> Answer<'_, Option<u64>>;

    /// The offline log that everything goes into that the table takes; `None` for a table without one.
    #[cfg(feature = "offline")]
    fn log(&self) -> Option<&Arc<crate::offline::Log>> {
        None
    }

    /// Brings the offline log up to date: what was answered before this was called is in it when this answers. `None` for a table
    /// without one.
    #[cfg(feature = "offline")]
    fn archive(&self) -> Answer<'_, Option<Archived>> {
        Answer::Ready(Ok(None))
    }
}

/// What an operation of a [`WritableTable`] answers.
pub enum Answer<'a, T> {
    /// The answer.
    Ready(Result<T, WriteError>),
    /// The answer, once a disk or another process has given it.
    Waits(Pin<Box<dyn Future<Output = Result<T, WriteError>> + Send + 'a>>),
}

impl<T> Answer<'_, T> {
    /// The answer, whenever it comes.
    ///
    /// # Errors
    /// As the operation.
    pub async fn get(self) -> Result<T, WriteError> {
        match self {
            Self::Ready(answer) => answer,
            Self::Waits(answer) => answer.await,
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What became of each row, in the order of the rows.
    pub rows: Vec<Outcome>,
    /// The rules that rows broke, and how many rows broke each. Rows that were taken before do not count.
    pub broken: Vec<(Arc<str>, u64)>,
}

/// What became of one row of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is its key's row now; in a set with windows, its event is part of them.
    Taken,
    /// A row of a greater version is there; this one changed nothing.
    Older,
    /// It is older than the newest event of its key by more than the set's lateness, and is not part of the windows. Nothing has
    /// changed; whoever wrote it sets it aside.
    TooLate,
    /// The same event was taken before, says its position or its id; it changed nothing.
    Repeated,
    /// It cannot be taken.
    Refused(RowProblem),
    /// The graph that rows pass before they are taken left it out.
    Filtered,
}

/// What a store has come upon since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Events that were [too late](Outcome::TooLate).
    pub too_late: u64,
    /// Values that were NaN in events that were given. Windows treat them as nulls.
    pub not_a_number: u64,
    /// Values that were null in answers because a sum of whole numbers is beyond 64 bits.
    pub overflows: u64,
    /// How often the offline log could not be written. What it lacks stays in the store's log.
    pub archive_failures: u64,
}

/// What [`WritableTable::erase`] and [`WritableTable::purge`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Keys that had a row, which is gone.
    pub removed: u64,
    /// Keys that had none.
    pub unknown: u64,
    /// Files of the store that were deleted because they held rows of these keys, or might have.
    pub files_deleted: Vec<String>,
    /// Files that were written in their place.
    pub files_written: Vec<String>,
    /// Rows of these keys that had been set aside, which are gone.
    pub set_aside: u64,
    /// Rows that are gone from the offline log, with all that it had of these keys; `None` for a store without one, or if it was not
    /// reached. Its files that went are named as below `offline/`.
    pub log_rows: Option<u64>,
    /// Places that the store does not rewrite itself, one sentence each: what is left to do there.
    pub beyond: Vec<String>,
}

/// Why a write as a whole was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Columns are missing or have the wrong type or length; every problem at once.
    #[error("{}", problems.join("; "))]
    Columns {
        /// The problems, one sentence each.
        problems: Vec<String>,
    },
    /// The keys could not be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// One write has more bytes or rows than a store takes at once.
    #[error("the write has {have} {unit}, more than the {limit} that are taken at once; write it in parts")]
    TooLarge {
        /// What it has.
        have: u64,
        /// What is allowed.
        limit: u64,
        /// What is counted: `bytes` or `rows`.
        unit: &'static str,
    },
    /// The set would take more memory than allowed.
    #[error("the rows would take more than {limit} bytes of memory; nothing of the write was taken")]
    Full {
        /// What is allowed.
        limit: u64,
    },
    /// The set's offline log is too far behind, so the rows would not be kept for it.
    #[error(
        "the offline log is behind by more than {limit} bytes of the store's log; nothing of the write was taken: {reason}"
    )]
    Behind {
        /// What is allowed.
        limit: u64,
        /// Why it is.
        reason: String,
    },
    /// The set has windows, and rows of a log were to be put in place beside rows that are not from there.
    #[error(
        "the set has rows that are not from this log, and windows are put together from events in their order; give it an empty \
         store, then fill it"
    )]
    NotEmpty,
    /// The store could not make an earlier write safe, and takes no more until it is opened anew. Reads go on.
    #[error("the store is read-only until it is opened anew: {reason}")]
    ReadOnly {
        /// What went wrong.
        reason: String,
    },
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// The store did not answer, or answered what it should not.
    #[error("the store did not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl WriteError {
    pub(crate) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}
