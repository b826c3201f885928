//! One feature set in memory: an index from keys to packed rows.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use millstream_graph::suggest;
use smallvec::SmallVec;

use crate::{
    FeatureSet, Statistics,
    cell::{each_bits, number, texts},
    fit::{Unfit, fit},
    gather::{Found, PackedRow, Selection, gather},
    index::{ABSENT, Index, Inserted},
    key::{self, KeyKind},
    layout::{Layout, TextAt},
    set::Column,
    statistics::Sums,
    store::{LookupError, OnlineTable, Read},
};

/// One feature set in memory. Reading takes no lock; the rows do not change once the table is made.
///
/// Made by [`TableBuilder::finish`] or by loading a file.
#[derive(Debug)]
pub struct MemoryTable {
    set: Arc<FeatureSet>,
    statistics: Box<[Statistics]>,
    rows: PackedRows,
    index: Index,
}

/// Rows of one stride, and the texts they point to.
#[derive(Debug, Default)]
struct PackedRows {
    stride: usize,
    bytes: Vec<u8>,
    arena: String,
}

impl PackedRows {
    #[inline]
    fn row(&self, row: u32) -> &[u8] {
        let start = row as usize * self.stride;
        &self.bytes[start..start + self.stride]
    }

    fn row_mut(&mut self, row: u32) -> &mut [u8] {
        let start = row as usize * self.stride;
        &mut self.bytes[start..start + self.stride]
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.stride
    }
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
        self.rows.bytes.capacity() + self.rows.arena.capacity() + self.index.bytes()
    }

    fn find(&self, batch: &RecordBatch, selection: &Selection) -> Result<Found, LookupError> {
        let columns = selection.key_columns(batch)?;
        let mut at: SmallVec<[u32; 64]> = SmallVec::with_capacity(batch.num_rows());
        self.index.find(&columns, |row| at.push(row))?;
        let rows = at
            .iter()
            .map(|&row| (row != ABSENT).then(|| PackedRow::new(self.rows.row(row), &self.rows.arena)));
        Ok(gather(selection, rows))
    }
}

impl OnlineTable for MemoryTable {
    fn set(&self) -> &Arc<FeatureSet> {
        &self.set
    }

    fn statistics(&self, feature: usize) -> Option<Statistics> {
        self.statistics.get(feature).copied()
    }

    fn is_local(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        Read::Ready(self.find(batch, selection))
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
        }
    }
}

impl TableBuilder {
    /// A table without rows.
    pub fn new(set: FeatureSet) -> Self {
        let layout = Layout::of(set.features());
        // A definition has only key types with a kind.
        let kinds = set.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect();
        let rows = PackedRows { stride: layout.stride(), ..PackedRows::default() };
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
        let bytes = self.rows.bytes.len() + self.rows.arena.len() + self.index.bytes() + self.times.len() * 8;
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
        self.rows.bytes.resize(self.rows.bytes.len() + *added * self.rows.stride, 0);
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
        if let Some(texts) = texts(column) {
            for (at, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != ABSENT) {
                let text = if texts.is_null(at) { "" } else { texts.value(at) };
                let cell = TextAt { offset: self.rows.arena.len(), len: text.len() };
                let Some(bits) = cell.pack() else {
                    return Err(self.row_error(
                        at,
                        RowProblem::Value {
                            column: self.set.features()[feature].name.clone(),
                            value: format!("a text of {} bytes", text.len()),
                            data_type: DataType::Utf8,
                        },
                    ));
                };
                self.rows.arena.push_str(text);
                place.set(self.rows.row_mut(slot), bits);
            }
        } else {
            let rows = &mut self.rows;
            each_bits(column, |at, bits| {
                if slots[at] != ABSENT {
                    // A null's cell is zero, whatever stood under it in the source: equal rows have equal bytes.
                    place.set(rows.row_mut(slots[at]), if column.is_valid(at) { bits } else { 0 });
                }
            });
        }
        for (at, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != ABSENT) {
            place.set_null(self.rows.row_mut(slot), column.is_null(at));
        }
        Ok(())
    }

    /// The table, with the statistics of its numeric features.
    pub fn finish(mut self) -> MemoryTable {
        self.rows.bytes.shrink_to_fit();
        self.rows.arena.shrink_to_fit();
        self.index.shrink();
        let statistics = self.statistics();
        MemoryTable { set: self.set, statistics, rows: self.rows, index: self.index }
    }

    fn statistics(&self) -> Box<[Statistics]> {
        let features = || self.set.features().iter().zip(self.layout.places()).enumerate();
        let mut sums = vec![Sums::new(); self.set.features().len()];
        let rows = || self.rows.bytes.chunks_exact(self.rows.stride);
        for row in rows() {
            for (i, (feature, place)) in features() {
                if place.is_null(row) {
                    sums[i].null();
                } else if let Some(value) = number(place.get(row), &feature.data_type) {
                    sums[i].add(value);
                }
            }
        }
        let mut deviations: Vec<_> = sums.into_iter().map(Sums::deviations).collect();
        for row in rows() {
            for (i, (feature, place)) in features().filter(|(_, (_, place))| !place.is_null(row)) {
                if let Some(value) = number(place.get(row), &feature.data_type) {
                    deviations[i].add(value);
                }
            }
        }
        deviations.into_iter().map(|deviations| deviations.finish()).collect()
    }
}

fn first_null<'a>(keys: &'a [Column], columns: &[ArrayRef]) -> Option<(&'a str, usize)> {
    let nulls = keys.iter().zip(columns).filter(|(_, column)| column.null_count() > 0);
    let first = nulls.filter_map(|(key, column)| {
        Some((key.name.as_str(), (0..column.len()).find(|&row| column.is_null(row))?))
    });
    first.min_by_key(|&(_, row)| row)
}
