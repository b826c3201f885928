//! Online stores: where a serving graph reads features by key.

use std::{future::Future, pin::Pin, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::DataType,
};
use indexmap::IndexMap;

use crate::{
    FeatureSet, Found, MemoryTable, Profile, ProfileError, Selection, WritableSet, each::read_each, wait,
};

/// Feature sets by name, wherever their rows lie.
pub trait OnlineStore: Send + Sync + 'static {
    /// The names of its sets.
    fn names(&self) -> Vec<String>;

    /// The set named `set`.
    fn table(&self, set: &str) -> Option<Arc<dyn OnlineTable>>;

    /// The set named `set`, if it takes rows; none does by default.
    fn writable(&self, _set: &str) -> Option<Arc<WritableSet>> {
        None
    }
}

/// The rows of one feature set, read by key.
pub trait OnlineTable: Send + Sync + 'static {
    /// What the rows are.
    fn set(&self) -> &Arc<FeatureSet>;

    /// What the values of feature number `feature` look like in the rows that are there now, whether they may be used or not. One
    /// pass over all rows, which holds up neither readers nor writers for long; rows that change meanwhile are in it as they were,
    /// or as they are.
    ///
    /// # Errors
    /// When the feature is a window, or the table does not read its rows for this.
    fn profile(&self, feature: usize) -> Result<Profile, ProfileError>;

    /// Whether [`OnlineTable::read`] answers at once, without waiting for anything outside the process.
    ///
    /// A table that is not local is asked for each key of a batch once, however many rows carry it: see
    /// [`OnlineTable::read`]. For a local one, telling keys apart costs more than looking them up.
    fn is_local(&self) -> bool;

    /// Reads the rows whose keys stand in `batch`, one answer per row of it. The future owns what it needs of `batch`.
    ///
    /// The `enrich` step gives a table that is not local the key columns alone, with no key in two rows, and gives every row of
    /// a run the answer of its key. It asks for the features that something reads, and no others.
    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a>;

    /// Reads as [`OnlineTable::read`], for time `at`, in microseconds since 1970 UTC: rows that may not be used then are
    /// stale. A table whose rows can be used at any time does not ask for one.
    fn read_at<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, _at: i64) -> Read<'a> {
        self.read(batch, selection)
    }

    /// Reads as [`OnlineTable::read_at`], each row for the time beside it; a row without one finds nothing.
    ///
    /// By default the table is asked once for each time there is. One that knows the rows of all times, and is asked for as many
    /// times as rows, finds them in one pass instead.
    fn read_each<'a>(
        &'a self,
        batch: &RecordBatch,
        selection: &'a Selection,
        times: &Int64Array,
    ) -> Read<'a> {
        let (batch, times) = (batch.clone(), times.clone());
        let found = async move { read_each(self, batch, selection, &times).await };
        if self.is_local() { Read::Ready(wait(found)) } else { Read::Waits(Box::pin(found)) }
    }
}

/// What [`OnlineTable::read`] answers.
pub enum Read<'a> {
    /// The answer.
    Ready(Result<Found, LookupError>),
    /// The answer, once something outside the process has given it.
    Waits(Pin<Box<dyn Future<Output = Result<Found, LookupError>> + Send + 'a>>),
}

/// Why a lookup as a whole has no answer. A key without a row is an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// A key column has a type that the set's keys cannot have.
    #[error("a key column is {have}")]
    Key {
        /// The column's type.
        have: DataType,
    },
    /// There are too few or too many key columns.
    #[error("{got} key columns for {wanted} keys")]
    KeyCount {
        /// The number of the set's keys.
        wanted: usize,
        /// The number of columns.
        got: usize,
    },
    /// A feature's number is none of the set's.
    #[error("feature number {number} of {features}")]
    Feature {
        /// The number.
        number: usize,
        /// How many features the set has.
        features: usize,
    },
    /// The store did not answer.
    #[error("the store did not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Feature sets in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: IndexMap<String, Arc<MemoryTable>>,
}

impl MemoryStore {
    /// A store without sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a set under its own name; one of the same name is replaced and answered.
    pub fn insert(&mut self, table: MemoryTable) -> Option<Arc<MemoryTable>> {
        let name = crate::OnlineTable::set(&table).name().to_owned();
        self.tables.insert(name, Arc::new(table))
    }

    /// The sets, in the order in which they were added.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<MemoryTable>> {
        self.tables.values()
    }
}

impl OnlineStore for MemoryStore {
    fn names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    fn table(&self, set: &str) -> Option<Arc<dyn OnlineTable>> {
        self.tables.get(set).map(|table| Arc::clone(table) as _)
    }
}
