//! One feature set in memory: an index from keys to packed rows.

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Int64Type, TimeUnit},
};
use millstream_graph::suggest;
use smallvec::SmallVec;

use crate::{
    Clock, FeatureSet, Profile, ProfileError,
    fit::{Unfit, fit},
    gather::{Found, Selection, gather},
    index::{ABSENT, Index, Inserted},
    key::{self, KeyKind},
    layout::Layout,
    packed::{PackedRows, TextTooLong},
    profile::Tally,
    set::Column,
    store::{LookupError, OnlineTable, Read},
};

/// One feature set in memory. Reading takes no lock; the rows do not change once the table is made.
///
/// Made by [`TableBuilder::finish`] or by loading a file.
#[derive(Debug)]
pub struct MemoryTable {
    set: Arc<FeatureSet>,
    /// What each feature looks like, once somebody has asked.
    profiles: Box<[OnceLock<Profile>]>,
    rows: PackedRows,
    index: Index,
    /// When each row happened, in microseconds since 1970 UTC, for sets with an event timestamp.
    events: Box<[i64]>,
}

impl MemoryTable {
    /// The rows of some batches; see [`TableBuilder::append`].
    ///
    /// # Errors
    /// As [`TableBuilder::append`]; the row is counted over all batches.
    pub fn from_batches(set: FeatureSet, batches: &[RecordBatch]) -> Result<Self, AppendError> {
        let mut builder = TableBuilder::new(set);
        batches.iter().try_for_each(|batch| builder.append(batch))?;
        Ok(builder.finish())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the rows and their index take.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.index.bytes() + self.events.len() * 8
    }

    fn find(
        &self,
        batch: &RecordBatch,
        selection: &Selection,
        time: Option<i64>,
    ) -> Result<Found, LookupError> {
        let columns = selection.key_columns(batch)?;
        let mut at: SmallVec<[u32; 64]> = SmallVec::with_capacity(batch.num_rows());
        self.index.find(&columns, |row| at.push(row))?;
        if selection.tells_events() || selection.bounds_age() {
            return Ok(self.aged(&at, selection, time.unwrap_or_else(|| Clock::default().now())));
        }
        let rows = at.iter().map(|&row| (row != ABSENT).then(|| self.rows.row(row)));
        Ok(gather(selection, rows))
    }

    /// The rows of these numbers, as far as they are young enough at `time`, and when they happened.
    fn aged(&self, numbers: &[u32], selection: &Selection, time: i64) -> Found {
        let event = |row: u32| self.events.get(row as usize).copied();
        let mut stale = SmallVec::new();
        let rows = numbers.iter().enumerate().map(|(number, &row)| {
            if row == ABSENT {
                return None;
            }
            if event(row).is_some_and(|event| selection.is_too_old(event, time)) {
                stale.push(number as u32);
                if !selection.takes_stale() {
                    return None;
                }
            }
            Some(self.rows.row(row))
        });
        let mut found = gather(selection, rows);
        found.stale = stale;
        if selection.tells_events() && self.set.timestamp().is_some() {
            found.events = Some(numbers.iter().map(|&row| event(row)).collect());
        }
        found
    }
}

impl OnlineTable for MemoryTable {
    fn set(&self) -> &Arc<FeatureSet> {
        &self.set
    }

    /// Computed once; the rows do not change.
    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        let mut tally = Tally::new(&self.set, feature)?;
        if let Some(known) = self.profiles[feature].get() {
            return Ok(known.clone());
        }
        self.rows.tally(0..self.rows.len() as u32, &mut tally);
        let found = tally.finish()?;
        Ok(self.profiles[feature].get_or_init(|| found).clone())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        Read::Ready(self.find(batch, selection, None))
    }

    /// A row may be used at any time, unless the selection bounds its age.
    fn read_at<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, at: i64) -> Read<'a> {
        Read::Ready(self.find(batch, selection, Some(at)))
    }
}

/// Fills a [`MemoryTable`].
#[derive(Debug)]
pub struct TableBuilder {
    set: Arc<FeatureSet>,
    layout: Layout,
    rows: PackedRows,
    index: Index,
    /// When each row was, for sets with an event timestamp.
    times: Vec<i64>,
    max_bytes: usize,
    appended: u64,
}

/// Why rows do not go into a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Columns are missing or have the wrong type; every problem at once.
    #[error("{}", problems.join("; "))]
    Columns {
        /// The problems, one sentence each.
        problems: Vec<String>,
    },
    /// A row is at fault.
    #[error("row {row}: {problem}")]
    Row {
        /// The row, counted from 0 over all that was appended.
        row: u64,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// The rows take more memory than allowed, or there are more than a table holds.
    #[error("the rows take more than {limit}")]
    TooLarge {
        /// What was allowed.
        limit: String,
    },
    /// The keys could not be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// A key is null.
    #[error("key `{key}` is null")]
    NullKey {
        /// The key's name.
        key: String,
    },
    /// The event timestamp is null.
    #[error("timestamp `{column}` is null")]
    NullTime {
        /// The column.
        column: String,
    },
    /// A row with the same keys was there already, and no event timestamp says which one counts.
    #[error("a second row for {key}; name a `timestamp` column for the latest row to count")]
    Duplicate {
        /// The keys and their values.
        key: String,
    },
    /// A value does not fit the type the set declares.
    #[error("column `{column}`: `{value}` is no {data_type}")]
    Value {
        /// The column.
        column: String,
        /// The value, as it stands in the source.
        value: String,
        /// The declared type.
        data_type: DataType,
    },
    /// It cannot be said whether the event counts in the windows.
    #[error("{problem}")]
    Filter {
        /// What went wrong, and under which `where`.
        problem: String,
    },
    /// It breaks a rule of the set.
    #[error("rule `{rule}`: {problem}")]
    Rule {
        /// The rule's name.
        rule: String,
        /// What is not true.
        problem: String,
    },
    /// A key, a text or an event id has more bytes than a store takes.
    #[error("`{what}` has {bytes} bytes; {limit} are allowed")]
    TooLong {
        /// The column, or what else it is.
        what: String,
        /// What it has.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It does not pass the graph that rows of the set pass.
    #[error("graph `{graph}`: {problem}")]
    Graph {
        /// The graph's name.
        graph: String,
        /// What went wrong there.
        problem: String,
    },
}

impl RowProblem {
    /// The column at fault, or what else it is.
    pub fn column(&self) -> &str {
        match self {
            Self::NullKey { key } | Self::Duplicate { key } => key,
            Self::NullTime { column } | Self::Value { column, .. } => column,
            Self::Filter { .. } => "where",
            Self::Rule { rule, .. } => rule,
            Self::TooLong { what, .. } => what,
            Self::Graph { graph, .. } => graph,
        }
    }
}

impl TableBuilder {
    /// A table without rows.
    pub fn new(set: FeatureSet) -> Self {
        let layout = Layout::of(set.features());
        // A definition has only key types with a kind.
        let kinds = set.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect();
        let rows = PackedRows::new(&layout);
        let index = Index::new(kinds);
        Self {
            set: Arc::new(set),
            layout,
            rows,
            index,
            times: Vec::new(),
            max_bytes: usize::MAX,
            appended: 0,
        }
    }

    /// Refuses rows once the table takes more than `bytes` of memory.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Adds rows. Columns are found by name; other columns than the set's are ignored. A column of another type than
    /// the set's is converted when every value fits. Of rows with the same keys the latest counts, of equally late ones
    /// the last appended.
    ///
    /// # Errors
    /// When a column is missing, a value does not fit, a key or timestamp is null, or keys appear twice in a set without
    /// timestamp. The builder is of no use afterwards.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<(), AppendError> {
        let columns = self.columns(batch)?;
        let (keys, rest) = columns.split_at(self.set.keys().len());
        let (features, time) = rest.split_at(self.set.features().len());
        let slots = self.slots(keys, time.first())?;
        for (feature, column) in features.iter().enumerate() {
            self.write(feature, column, &slots)?;
        }
        self.appended += batch.num_rows() as u64;
        let bytes = self.rows.used() + self.index.bytes() + self.times.len() * 8;
        if bytes > self.max_bytes {
            return Err(AppendError::TooLarge { limit: format!("{} bytes", self.max_bytes) });
        }
        Ok(())
    }

    /// Keys, then features, then the timestamp, each in the set's type.
    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, AppendError> {
        let wanted = || self.set.keys().iter().chain(self.set.features()).chain(self.set.timestamp());
        let schema = batch.schema_ref();
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let problems: Vec<_> = wanted()
            .filter(|column| schema.index_of(&column.name).is_err())
            .map(|column| suggest::unknown("column", &column.name, names()))
            .collect();
        if !problems.is_empty() {
            return Err(AppendError::Columns { problems });
        }
        let fitted =
            wanted().filter_map(|column| Some(self.fit(column, batch.column_by_name(&column.name)?)));
        fitted.collect()
    }

    /// The column in the type the set declares. A value that does not fit is an error that names its row.
    fn fit(&self, column: &Column, found: &ArrayRef) -> Result<ArrayRef, AppendError> {
        fit(column, found).map_err(|unfit| match unfit {
            Unfit::Column(problem) => AppendError::Columns { problems: vec![problem] },
            Unfit::Value { row, problem } => self.row_error(row, problem),
        })
    }

    fn row_error(&self, row: usize, problem: RowProblem) -> AppendError {
        AppendError::Row { row: self.appended + row as u64, problem }
    }

    /// The row number that each appended row goes to, [`ABSENT`] for rows that a later one has overtaken already.
    fn slots(&mut self, keys: &[ArrayRef], time: Option<&ArrayRef>) -> Result<Vec<u32>, AppendError> {
        let names = self.set.keys().iter().map(|key| key.name.as_str());
        let columns: SmallVec<[&ArrayRef; 2]> = keys.iter().collect();
        let rows = columns.first().map_or(0, |column| column.len());
        let too_many = || AppendError::TooLarge { limit: format!("{ABSENT} rows") };
        let next = u32::try_from(self.rows.len()).map_err(|_| too_many())?;
        next.checked_add(u32::try_from(rows).map_err(|_| too_many())?)
            .filter(|&last| last < ABSENT)
            .ok_or_else(too_many)?;

        if let Some((key, row)) = first_null(self.set.keys(), keys) {
            return Err(self.row_error(row, RowProblem::NullKey { key: key.to_owned() }));
        }
        let times = match (time, self.set.timestamp()) {
            (Some(time), Some(column)) => Some(self.times_of(column, time)?),
            _ => None,
        };
        let mut slots = vec![ABSENT; rows];
        let mut second = None;
        let (known, added) = (&mut self.times, &mut 0);
        self.index.insert(&columns, next, |at, inserted| match (inserted, &times) {
            (Inserted::New(row), times) => {
                slots[at] = row;
                *added += 1;
                known.extend(times.as_ref().and_then(|times| times.get(at)));
            }
            (Inserted::Known(row), Some(times)) => {
                let known = &mut known[row as usize];
                if times[at] >= *known {
                    *known = times[at];
                    slots[at] = row;
                }
            }
            (Inserted::Known(_) | Inserted::Null, _) => second = second.or(Some(at)),
        })?;
        if let Some(at) = second {
            let key = key::display(names, &columns, at);
            return Err(self.row_error(at, RowProblem::Duplicate { key }));
        }
        self.rows.grow(*added);
        Ok(slots)
    }

    fn times_of(&self, column: &Column, time: &ArrayRef) -> Result<Vec<i64>, AppendError> {
        let whole = Column { name: column.name.clone(), data_type: DataType::Int64 };
        let ticks = self.fit(&whole, time)?;
        let ticks = ticks.as_primitive_opt::<Int64Type>().ok_or_else(|| AppendError::Columns {
            problems: vec![format!("timestamp `{}` is {}", column.name, time.data_type())],
        })?;
        match (0..ticks.len()).find(|&row| ticks.is_null(row)) {
            Some(row) => Err(self.row_error(row, RowProblem::NullTime { column: column.name.clone() })),
            None => Ok(ticks.values().to_vec()),
        }
    }

    /// Writes one feature of the appended rows into their slots.
    fn write(&mut self, feature: usize, column: &ArrayRef, slots: &[u32]) -> Result<(), AppendError> {
        let place = self.layout.place(feature);
        self.rows.write(place, column, slots).map_err(|TextTooLong { row, bytes }| {
            let problem = RowProblem::Value {
                column: self.set.features()[feature].name.clone(),
                value: format!("a text of {bytes} bytes"),
                data_type: DataType::Utf8,
            };
            self.row_error(row, problem)
        })
    }

    /// The table.
    pub fn finish(mut self) -> MemoryTable {
        self.rows.shrink();
        self.index.shrink();
        let profiles = self.set.features().iter().map(|_| OnceLock::new()).collect();
        let time = self.set.timestamp().map(|column| &column.data_type);
        let events = self.times.iter().map(|&ticks| micros(ticks, time)).collect();
        MemoryTable { set: self.set, profiles, rows: self.rows, index: self.index, events }
    }
}

/// Microseconds of what a time of this type counts.
fn micros(ticks: i64, data_type: Option<&DataType>) -> i64 {
    match data_type {
        Some(DataType::Timestamp(TimeUnit::Second, _)) => ticks.saturating_mul(1_000_000),
        Some(DataType::Timestamp(TimeUnit::Millisecond, _)) => ticks.saturating_mul(1_000),
        Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) => ticks.div_euclid(1_000),
        Some(DataType::Date32) => ticks.saturating_mul(86_400_000_000),
        _ => ticks,
    }
}

fn first_null<'a>(keys: &'a [Column], columns: &[ArrayRef]) -> Option<(&'a str, usize)> {
    let nulls = keys.iter().zip(columns).filter(|(_, column)| column.null_count() > 0);
    let first = nulls.filter_map(|(key, column)| {
        Some((key.name.as_str(), (0..column.len()).find(|&row| column.is_null(row))?))
    });
    first.min_by_key(|&(_, row)| row)
}
