//! Rows of a write, checked and packed as stores keep them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int64Array, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use millstream_graph::suggest;
use smallvec::SmallVec;

use super::{
    Changes, Positions, WriteError,
    packed::{Packed, start},
    repeats::LONGEST_NAME,
    row::{Head, Row},
};
use crate::{
    Aggregates, FeatureSet, Prepared, RowProblem,
    fit::fit_rows,
    key::{Given, KeyKind, encode},
    layout::Layout,
    set::Column,
};

/// Bytes of the longest key: all key columns of a row together.
const LONGEST_KEY: usize = 4096;

/// Rows and bytes of the largest write.
const MOST_ROWS: u64 = 1 << 20;
const MOST_BYTES: u64 = 64 << 20;

/// Keys that are erased at once.
const MOST_KEYS: u64 = 1 << 14;

/// Times are less than this many microseconds from 1970, some 146 000 years, so that their arithmetic has room.
const FARTHEST_TIME: i64 = 1 << 62;

/// Events that an offline log holds: those of the years 1 to 9999.
pub(crate) const LOGGED: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Packs rows of one set.
#[derive(Debug)]
pub(crate) struct Packer {
    pub(crate) set: Arc<FeatureSet>,
    pub(crate) kinds: Box<[KeyKind]>,
    layout: Layout,
    /// Of sets with windows: what makes rows events, and the columns that this reads.
    windows: Option<(Arc<Aggregates>, SchemaRef)>,
    /// How columns are packed that are of windows alone, for a set whose rows go into an offline log.
    history: Option<Layout>,
}

/// Rows of a write. Those that cannot be taken are told from those that can.
#[derive(Debug)]
pub(crate) struct Incoming {
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    cells: Packed,
    /// The columns that are of windows alone, if they are wanted.
    raw: Option<Packed>,
    /// Of sets with windows: the rows as events.
    pub(crate) events: Option<Prepared>,
    pub(crate) refused: Vec<Option<RowProblem>>,
    pub(crate) positions: Option<Positions>,
    pub(crate) ids: Option<Vec<Option<String>>>,
    /// The sequences of rows that were taken before, and come back.
    pub(crate) restored: Option<Vec<u64>>,
}

impl Incoming {
    pub(crate) fn len(&self) -> usize {
        self.refused.len()
    }

    /// Row `row`. One that was refused has no meaning.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let (fixed, text) = self.cells.row(row);
        Row { key: &self.keys[start(&self.key_ends, row)..self.key_ends[row]], text, fixed }
    }

    /// What row `row` has in the columns that are of windows alone, as cells and their texts; nothing if they are not wanted.
    pub(crate) fn raw(&self, row: usize) -> (&[u8], &str) {
        self.raw.as_ref().map_or((&[], ""), |raw| raw.row(row))
    }

    pub(crate) fn id(&self, row: usize) -> Option<&str> {
        self.ids.as_ref().and_then(|ids| ids[row].as_deref())
    }

    /// The sequence of row `row`: the one that it had, if it comes back, else `next`.
    pub(crate) fn sequence(&self, row: usize, next: u64) -> u64 {
        self.restored.as_ref().map_or(next, |restored| restored[row])
    }

    /// Gives row `row` its place in the order of the store's rows.
    pub(crate) fn number(&mut self, row: usize, sequence: u64) {
        let fixed = self.cells.row_mut(row);
        Head { sequence, seen: sequence, ..Head::read(fixed) }.write(fixed);
    }

    /// About as many bytes as the write takes while it waits.
    pub(crate) fn bytes(&self) -> usize {
        let events = self.events.as_ref().map_or(0, Prepared::bytes);
        let raw = self.raw.as_ref().map_or(0, Packed::len);
        self.cells.len() + raw + self.keys.len() + events + self.len() * 64
    }
}

impl Packer {
    pub(crate) fn new(set: FeatureSet) -> Self {
        let layout = Layout::of(set.own_features());
        // A definition has only key types with a kind.
        let kinds = set.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect();
        let windows = set.windows().map(|windows| (Arc::clone(windows), set.event_schema()));
        Self { set: Arc::new(set), kinds, layout, windows, history: None }
    }

    /// Packs what an offline log needs too, and refuses what that cannot hold.
    pub(crate) fn with_history(self) -> Self {
        Self { history: Some(Layout::of(self.set.raw_columns())), ..self }
    }

    /// Bytes of a row's fixed part.
    pub(crate) fn fixed(&self) -> usize {
        Head::BYTES + self.layout.stride()
    }

    /// Checks and packs the rows of a write.
    pub(crate) fn pack(&self, mut changes: Changes) -> Result<Box<Incoming>, WriteError> {
        self.check_shape(&changes)?;
        let mut refused = vec![None; changes.rows.num_rows()];
        std::mem::take(&mut changes.refused)
            .into_iter()
            .for_each(|(row, problem)| refuse(&mut refused, row, || problem));
        let columns = self.columns(&changes.rows, self.set.event_columns(), &mut refused)?;
        let events = self.events(&columns, &mut refused)?;
        let (keys, rest) = columns.split_at(self.set.keys().len());
        let (features, raw) = rest.split_at(self.set.own_features().len());
        refuse_nulls(self.set.keys(), keys, &mut refused);
        let event_name = self.set.timestamp().map_or("event time", |column| &column.name);
        refuse_times(event_name, &changes, &mut refused);
        if self.history.is_some() {
            refuse_far_events(event_name, &changes.event, &mut refused);
        }
        let rows = changes.rows.num_rows();
        let mut incoming = Incoming {
            keys: Vec::new(),
            key_ends: Vec::with_capacity(refused.len()),
            cells: Packed::new(rows, self.fixed()),
            raw: self.history.as_ref().map(|layout| Packed::new(rows, layout.stride())),
            events,
            refused,
            positions: changes.positions,
            ids: changes.ids,
            restored: changes.restored,
        };
        self.pack_keys(keys, &mut incoming)?;
        refuse_ids(&mut incoming);
        pack_heads(&changes.event, changes.created.as_ref(), changes.valid_to.as_ref(), &mut incoming);
        let Incoming { cells, raw: raw_cells, refused, .. } = &mut incoming;
        let own = (self.set.own_features(), features);
        cells.fill((&self.layout, Head::BYTES), own, refused);
        if let (Some(cells), Some(layout)) = (raw_cells, &self.history) {
            cells.fill((layout, 0), (self.set.raw_columns(), raw), refused);
        }
        match incoming.bytes() as u64 {
            have if have > MOST_BYTES => Err(WriteError::TooLarge { have, limit: MOST_BYTES, unit: "bytes" }),
            _ => Ok(Box::new(incoming)),
        }
    }

    /// The keys of a batch that has the set's key columns, each once; a key that no row can have is left out.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<Vec<Vec<u8>>, WriteError> {
        if batch.num_rows() as u64 > MOST_KEYS {
            return Err(WriteError::TooLarge {
                have: batch.num_rows() as u64,
                limit: MOST_KEYS,
                unit: "rows",
            });
        }
        let mut refused = vec![None; batch.num_rows()];
        let columns = self.columns(batch, self.set.keys().iter(), &mut refused)?;
        let mut keys = Vec::with_capacity(batch.num_rows());
        encode(&columns.iter().collect::<SmallVec<[&ArrayRef; 2]>>(), &self.kinds, |row, given| {
            if let (Given::Key(key), None) = (given, &refused[row])
                && key.len() <= LONGEST_KEY
            {
                keys.push(key.to_vec());
            }
        })?;
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    fn check_shape(&self, changes: &Changes) -> Result<(), WriteError> {
        let rows = changes.rows.num_rows();
        let lengths = [
            ("event times", Some(changes.event.len())),
            ("created times", changes.created.as_ref().map(Array::len)),
            ("ends", changes.valid_to.as_ref().map(Array::len)),
            ("offsets", changes.positions.as_ref().map(|positions| positions.offsets.len())),
            ("event ids", changes.ids.as_ref().map(Vec::len)),
            ("sequences", changes.restored.as_ref().map(Vec::len)),
        ];
        let mut problems: Vec<_> = lengths
            .iter()
            .filter_map(|(what, len)| len.filter(|&len| len != rows).map(|len| (what, len)))
            .map(|(what, len)| format!("{len} {what} for {rows} rows"))
            .collect();
        if let Some(source) = changes.positions.as_ref().map(|positions| &positions.source)
            && source.len() > LONGEST_NAME
        {
            problems.push(format!(
                "the name of the source has {} bytes; {LONGEST_NAME} are allowed",
                source.len()
            ));
        }
        if !problems.is_empty() {
            return Err(WriteError::Columns { problems });
        }
        // Before anything is allocated for the rows.
        let bytes = (rows as u64).saturating_mul(self.fixed() as u64);
        match rows as u64 {
            have if have > MOST_ROWS => Err(WriteError::TooLarge { have, limit: MOST_ROWS, unit: "rows" }),
            _ if bytes > MOST_BYTES => {
                Err(WriteError::TooLarge { have: bytes, limit: MOST_BYTES, unit: "bytes" })
            }
            _ => Ok(()),
        }
    }

    /// The wanted columns in the set's types, found by name. Rows with values that do not fit are refused.
    fn columns<'a>(
        &'a self,
        batch: &RecordBatch,
        wanted: impl Iterator<Item = &'a Column>,
        refused: &mut [Option<RowProblem>],
    ) -> Result<Vec<ArrayRef>, WriteError> {
        let schema = batch.schema_ref();
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let (mut columns, mut problems) = (Vec::new(), Vec::new());
        for column in wanted {
            let Some(found) = batch.column_by_name(&column.name) else {
                problems.push(suggest::unknown("column", &column.name, names()));
                continue;
            };
            match fit_rows(column, found) {
                Ok((fitted, unfit)) => {
                    columns.push(fitted);
                    unfit.into_iter().for_each(|(row, problem)| refuse(refused, row, || problem));
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(columns) } else { Err(WriteError::Columns { problems }) }
    }

    /// The rows as the windows take them, for sets with windows. `columns` are those of the set's events.
    fn events(
        &self,
        columns: &[ArrayRef],
        refused: &mut [Option<RowProblem>],
    ) -> Result<Option<Prepared>, WriteError> {
        let Some((windows, schema)) = &self.windows else { return Ok(None) };
        let problem = |problem: String| WriteError::Columns { problems: vec![problem] };
        let batch = RecordBatch::try_new(Arc::clone(schema), columns.to_vec())
            .map_err(|error| problem(error.to_string()))?;
        let prepared = windows.prepare_each(&batch, |row, problem| {
            refuse(refused, row, || RowProblem::Filter { problem });
        });
        prepared.map(Some).map_err(|error| problem(error.to_string()))
    }

    fn pack_keys(&self, columns: &[ArrayRef], incoming: &mut Incoming) -> Result<(), WriteError> {
        let columns: SmallVec<[&ArrayRef; 2]> = columns.iter().collect();
        encode(&columns, &self.kinds, |row, given| {
            if let Given::Key(key) = given {
                if key.len() > LONGEST_KEY {
                    refuse(&mut incoming.refused, row, || too_long("key", key.len(), LONGEST_KEY));
                } else {
                    incoming.keys.extend_from_slice(key);
                }
            }
            incoming.key_ends.push(incoming.keys.len());
        })?;
        Ok(())
    }
}

/// A row has one problem, the first that was found.
pub(super) fn refuse(refused: &mut [Option<RowProblem>], row: usize, problem: impl FnOnce() -> RowProblem) {
    refused[row].get_or_insert_with(problem);
}

pub(super) fn too_long(what: &str, bytes: usize, limit: usize) -> RowProblem {
    RowProblem::TooLong { what: what.to_owned(), bytes, limit }
}

fn refuse_nulls(keys: &[Column], columns: &[ArrayRef], refused: &mut [Option<RowProblem>]) {
    for (key, column) in keys.iter().zip(columns).filter(|(_, column)| column.null_count() > 0) {
        for row in (0..column.len()).filter(|&row| column.is_null(row)) {
            refuse(refused, row, || RowProblem::NullKey { key: key.name.clone() });
        }
    }
}

fn refuse_times(event: &str, changes: &Changes, refused: &mut [Option<RowProblem>]) {
    for row in (0..changes.event.len()).filter(|&row| changes.event.is_null(row)) {
        refuse(refused, row, || RowProblem::NullTime { column: event.to_owned() });
    }
    let times = [
        (event, Some(&changes.event)),
        ("created", changes.created.as_ref()),
        ("valid_to", changes.valid_to.as_ref()),
    ];
    for (name, times) in times.iter().filter_map(|(name, times)| Some((*name, (*times)?))) {
        for (row, time) in times.iter().enumerate() {
            if let Some(value) = time.filter(|time| time.unsigned_abs() >= FARTHEST_TIME.unsigned_abs()) {
                refuse(refused, row, || RowProblem::Value {
                    column: name.to_owned(),
                    value: value.to_string(),
                    data_type: DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
                });
            }
        }
    }
}

/// An offline log holds events of the years that every reader can name.
fn refuse_far_events(name: &str, events: &Int64Array, refused: &mut [Option<RowProblem>]) {
    for (row, event) in events.iter().enumerate() {
        if let Some(event) = event.filter(|event| !LOGGED.contains(event)) {
            refuse(refused, row, || RowProblem::Value {
                column: name.to_owned(),
                value: event.to_string(),
                data_type: DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
            });
        }
    }
}

fn refuse_ids(incoming: &mut Incoming) {
    for (row, id) in incoming.ids.iter().flatten().enumerate() {
        if let Some(id) = id.as_ref().filter(|id| id.len() > LONGEST_NAME) {
            refuse(&mut incoming.refused, row, || too_long("event id", id.len(), LONGEST_NAME));
        }
    }
}

fn pack_heads(
    event: &Int64Array,
    created: Option<&Int64Array>,
    ends: Option<&Int64Array>,
    incoming: &mut Incoming,
) {
    let value = |times: Option<&Int64Array>, row: usize| {
        times.filter(|times| times.is_valid(row)).map(|times| times.value(row))
    };
    for (row, fixed) in incoming.cells.rows_mut().enumerate() {
        let head = Head {
            event: event.value(row),
            created: value(created, row).unwrap_or(Head::NEVER_CREATED),
            ends: value(ends, row).unwrap_or(i64::MAX),
            ..Head::default()
        };
        head.write(fixed);
    }
}
