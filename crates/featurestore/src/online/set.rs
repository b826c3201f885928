//! A feature set that takes rows: its store, and which columns of a row are times.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use millstream_graph::suggest;

use super::{
    Answer, Changes, Outcome, Passage, Receipt, WritableTable, WriteError, Written,
    aside::Aside,
    backfill::Backfill,
    guard::Guard,
    rules::Rules,
    through::{self, Bound},
};
use crate::{
    FeatureSet, LoadError, Positions,
    load::{At, Place, Source, Step},
    set::Column,
    wait,
};

/// The columns of a row that are times: timestamps, dates, or whole numbers of microseconds since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeColumns {
    /// When it happened.
    pub event: Column,
    /// When it became known.
    pub created: Option<Column>,
    /// Until when it may be used, inclusive.
    pub valid_to: Option<Column>,
}

/// A feature set that takes rows while it is read, from wherever they come: bodies, files, steps of a graph.
pub struct WritableSet {
    table: Arc<dyn WritableTable>,
    times: TimeColumns,
    schema: SchemaRef,
    guard: Guard,
    /// What is done to rows, line by line.
    described: String,
    /// The graph that rows pass first.
    through: Option<Through>,
}

struct Through {
    graph: String,
    /// What the graph is, as its file has it.
    defined: OnceLock<String>,
    bound: OnceLock<Bound>,
}

/// What a set counts while rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counted<'a> {
    /// Rows, by the [name](Outcome::name) of what became of them.
    Rows(&'static str),
    /// Rows that broke the rule of this name.
    Rule(&'a str),
    /// Rows and messages that were set aside: `kept`, or `lost` for want of room or because the file could not be written.
    Aside(&'static str),
}

impl WritableSet {
    /// A set whose rows lie in `table` and have these times.
    pub fn new(table: Arc<dyn WritableTable>, times: TimeColumns) -> Self {
        let schema = written(table.set(), &times);
        Self { table, times, schema, guard: Guard::default(), described: String::new(), through: None }
    }

    /// The same, of which every row passes the graph of this name before it is taken. It takes none until it is told the graph
    /// by [`WritableSet::bind`].
    #[must_use]
    pub fn through(self, graph: impl Into<String>) -> Self {
        Self {
            through: Some(Through { graph: graph.into(), defined: OnceLock::new(), bound: OnceLock::new() }),
            ..self
        }
    }

    /// The graph that rows pass before they are taken.
    pub fn passes(&self) -> Option<&str> {
        Some(&self.through.as_ref()?.graph)
    }

    /// What the graph is that rows pass, as its file has it: part of the version of the set. The first that is told stays.
    pub fn graph_is(&self, defined: String) {
        if let Some(through) = &self.through {
            let _ = through.defined.set(defined);
        }
    }

    /// Tells the set who runs the graph that rows pass. Whoever tells it keeps it: when it is gone the set takes no more rows.
    ///
    /// # Errors
    /// With every column that the graph does not answer as the set has it, or if rows of the set pass no graph, or have one already.
    pub fn bind(&self, passage: &Arc<dyn Passage>) -> Result<(), Vec<String>> {
        let Some(through) = &self.through else {
            return Err(vec![format!("rows of feature set `{}` pass no graph", self.set().name())]);
        };
        let bound = Bound::new(passage, (self.set(), &self.times), &self.schema)?;
        let known = || vec![format!("rows of feature set `{}` pass a graph already", self.set().name())];
        through.bound.set(bound).map_err(|_| known())
    }

    /// Whether it takes rows: whether the graph is told that they pass, if they pass one.
    pub fn is_bound(&self) -> bool {
        self.through.is_none() || self.bound().is_some()
    }

    fn bound(&self) -> Option<&Bound> {
        self.through.as_ref()?.bound.get()
    }

    /// The same, with rules and a place for rows that are not taken as they are.
    pub(crate) fn keeping(self, rules: Rules, aside: Option<Arc<Aside>>, described: String) -> Self {
        Self { guard: Guard::new(rules, aside), described, ..self }
    }

    pub(crate) fn described(&self) -> String {
        let graph = self.through.as_ref().and_then(|through| through.defined.get());
        format!("{}{}", self.described, graph.map_or("", String::as_str))
    }

    /// What the rows are.
    pub fn set(&self) -> &Arc<FeatureSet> {
        self.table.set()
    }

    /// The store.
    pub fn table(&self) -> &Arc<dyn WritableTable> {
        &self.table
    }

    /// The columns that are times.
    pub fn times(&self) -> &TimeColumns {
        &self.times
    }

    /// The columns of a row that is written: keys, own features, what only windows read, and times; or those that the graph takes
    /// which rows pass.
    pub fn schema(&self) -> &SchemaRef {
        self.bound().map_or(&self.schema, |bound| &bound.takes)
    }

    /// The columns of a row that is stored, times included.
    pub(super) fn stored_schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Tells `count` from now on what becomes of rows, and of how many. The first that is given stays.
    pub fn count_into(&self, count: impl Fn(Counted<'_>, u64) + Send + Sync + 'static) {
        let _ = self.guard.told.set(Box::new(count));
    }

    /// A write of rows that have the set's columns by name. `created` and `valid_to` may be left out. If rows pass a graph they have
    /// the columns that it takes, and their times are what it gives.
    ///
    /// # Errors
    /// When the event time is missing, or a time is of a type that is none.
    pub fn changes(&self, rows: RecordBatch) -> Result<Changes, WriteError> {
        match self.through {
            Some(_) => {
                let unknown = Int64Array::new_null(rows.num_rows());
                Ok(Changes::new(rows, unknown))
            }
            None => self.timed(rows),
        }
    }

    /// A write of rows as they are stored.
    pub(super) fn timed(&self, rows: RecordBatch) -> Result<Changes, WriteError> {
        let mut problems = Vec::new();
        let schema = rows.schema();
        let mut time = |column: &Column, needed: bool| {
            let Some(found) = rows.column_by_name(&column.name) else {
                if needed {
                    let names = schema.fields().iter().map(|field| field.name().as_str());
                    problems.push(suggest::unknown("column", &column.name, names));
                }
                return None;
            };
            let micros = micros(found);
            if micros.is_none() {
                problems.push(format!("column `{}` is {}; {TIME}", column.name, found.data_type()));
            }
            micros
        };
        let event = time(&self.times.event, true);
        let created = self.times.created.as_ref().and_then(|column| time(column, false));
        let valid_to = self.times.valid_to.as_ref().and_then(|column| time(column, false));
        let Some(event) = event.filter(|_| problems.is_empty()) else {
            return Err(WriteError::Columns { problems });
        };
        let mut changes = Changes::new(rows, event);
        (changes.created, changes.valid_to) = (created, valid_to);
        Ok(changes)
    }

    /// Takes rows, as [`WritableTable::write`]. Those that break a rule which refuses them are not taken; those and others that
    /// were refused, came too late, or broke a rule are set aside, if the set has a place for them.
    pub fn write(&self, mut changes: Changes) -> Answer<'_, Written> {
        if let Some(Through { graph, bound, .. }) = &self.through {
            return match bound.get() {
                Some(bound) => Answer::Waits(Box::pin(through::write(self, bound, changes))),
                None => {
                    let problem = format!("graph `{graph}`, which its rows pass, does not run here");
                    Answer::Ready(Err(WriteError::unavailable(problem)))
                }
            };
        }
        let held = self.guard.hold(&mut changes, &self.schema, &self.times);
        match self.table.write(changes) {
            Answer::Ready(written) => {
                Answer::Ready(written.map(|written| self.guard.settle(self.set(), written, held)))
            }
            Answer::Waits(written) => {
                Answer::Waits(Box::pin(
                    async move { Ok(self.guard.settle(self.set(), written.await?, held)) },
                ))
            }
        }
    }

    /// Sets a message aside of which no row could be made, with the reason, if the set has a place for it. Waits for nothing: what
    /// cannot be written is counted.
    pub fn set_aside(&self, message: &[u8], reason: &str) {
        self.guard.set_aside(self.set(), message, reason);
    }

    /// Removes all that is known of some keys, as [`WritableTable::erase`], and the rows of theirs that were set aside.
    ///
    /// # Errors
    /// As [`WritableTable::erase`].
    pub async fn erase(&self, keys: RecordBatch) -> Result<Receipt, WriteError> {
        let mut receipt = self.table.erase(keys.clone()).get().await?;
        self.guard.remove(self.set(), Some(&keys), &mut receipt).await?;
        Ok(receipt)
    }

    /// Empties the set, as [`WritableTable::purge`], and removes the rows that were set aside.
    ///
    /// # Errors
    /// As [`WritableTable::purge`].
    pub async fn purge(&self) -> Result<Receipt, WriteError> {
        let mut receipt = self.table.purge().get().await?;
        self.guard.remove(self.set(), None, &mut receipt).await?;
        Ok(receipt)
    }

    /// The offline log that everything goes into that the set takes; `None` for a set without one.
    #[cfg(feature = "offline")]
    pub fn log(&self) -> Option<&Arc<crate::offline::Log>> {
        self.table.log()
    }

    /// Brings the offline log up to date, as [`WritableTable::archive`].
    #[cfg(feature = "offline")]
    pub fn archive(&self) -> Answer<'_, Option<super::Archived>> {
        self.table.archive()
    }

    /// The set as training sets and queries see it, with all that its offline log holds; `None` for a set without one.
    ///
    /// # Errors
    /// As [`OfflineSet::of`](crate::offline::OfflineSet::of).
    #[cfg(feature = "offline")]
    pub fn history(&self) -> Option<Result<crate::offline::OfflineSet, crate::offline::HistoryError>> {
        self.log().map(|log| crate::offline::OfflineSet::of(self.set(), log.table()))
    }

    /// Takes the rows of a file in the folder `root` that have not been taken before, and tells `told` what became of each part of
    /// it, and where its rows stand. A file is known by its content, a row by its number; where the file has columns
    /// `_source` and `_offset`, and `_partition` if that is not 0, a row is known as the event of that stream. With the feature
    /// `delta` the file may be the folder of a Delta table, whose data files are known by their names in it.
    ///
    /// # Errors
    /// When the file cannot be read or lacks columns, or the store does not take it.
    pub fn ingest(&self, root: &Path, file: &str, told: &mut Heard<'_>) -> Result<(), LoadError> {
        self.take(&Source::open(root, file)?, &mut |written, place| {
            told(written, place);
            Ok(())
        })
    }

    /// The same, for a file of which no row may be refused.
    ///
    /// # Errors
    /// As [`WritableSet::ingest`], and with the first row that is refused.
    pub fn fill(&self, root: &Path, file: &str) -> Result<(), LoadError> {
        self.fill_from(&Source::open(root, file)?)
    }

    pub(crate) fn fill_from(&self, source: &Source) -> Result<(), LoadError> {
        self.take(source, &mut |written, place| match written.refused().next() {
            None => Ok(()),
            Some((row, problem)) => Err(LoadError::Row { place: place(row), problem: problem.clone() }),
        })
    }

    fn take(&self, source: &Source, told: &mut Told<'_>) -> Result<(), LoadError> {
        if source.is_files() {
            // Each by itself: what rows are known by may differ from file to file.
            return source.each(|part| self.take(part, told));
        }
        let schema = self.schema();
        let mut wanted: Vec<Column> = schema.fields().iter().map(|field| column(field)).collect();
        let failed = |error| LoadError::Write { file: source.name().to_owned(), source: error };
        if let Some(columns) = Backfill::columns(source, schema)? {
            wanted.extend(columns);
            let mut backfill = Backfill::new(source);
            let put = &mut |rows: RecordBatch, at: Positions, places: &[At]| {
                let changes = self.changes(rows).map_err(failed)?.at(at);
                let written = wait::wait(self.write(changes).get()).map_err(failed)?;
                told(&written, &|row| source.place(places[row]))
            };
            source.read(&wanted, &mut |batch, place| backfill.add(batch, place, &mut *put))?;
            return backfill.finish(put);
        }
        let mut mark = |name: &str| wait::wait(self.table.mark(name, 0).get()).map_err(failed);
        for step in source.steps(&mut mark)? {
            match step {
                Step::Rewritten(part) if self.set().windows().is_some() => {
                    return Err(LoadError::Rewritten { file: part.name().to_owned() });
                }
                Step::Read(part) | Step::Rewritten(part) => self.take_part(&wanted, part, told)?,
                Step::Before(part) => self.take_part(&wanted, &part, told)?,
                Step::Taken(name) => {
                    let none =
                        self.changes(RecordBatch::new_empty(Arc::clone(&self.schema))).map_err(failed)?;
                    let at = Positions::new(name, 0, Vec::new()).reaching(MOST_ROWS);
                    wait::wait(self.write(none.at(at)).get()).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the rows of a file by their numbers.
    fn take_part(&self, wanted: &[Column], part: &Source, told: &mut Told<'_>) -> Result<(), LoadError> {
        let failed = |error| LoadError::Write { file: part.name().to_owned(), source: error };
        let (name, mut first) = (part.identity()?, 0);
        part.read(wanted, &mut |batch, place| {
            let numbers = (0..batch.num_rows()).map(|row| part.number(first + row as u64, || place(row)));
            let at = Positions::new(&name, 0, numbers.collect());
            first += batch.num_rows() as u64;
            let changes = self.changes(batch.clone()).map_err(failed)?.at(at);
            let written = wait::wait(self.write(changes).get()).map_err(failed)?;
            told(&written, &|row| part.place(place(row)))
        })
    }
}

/// The number of a row that no data file of a table has.
const MOST_ROWS: u64 = u32::MAX as u64;

/// The columns of a row of a set that is written. What must not be null is refused row by row.
pub(crate) fn written(set: &FeatureSet, times: &TimeColumns) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    let extra = times.created.iter().chain(&times.valid_to);
    for column in set.event_columns().chain([&times.event]).chain(extra) {
        if fields.iter().all(|field| *field.name() != column.name) {
            fields.push(Field::new(&column.name, column.data_type.clone(), true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// Hears what became of rows, and where each of them stands.
pub type Heard<'a> = dyn FnMut(&Written, &dyn Fn(usize) -> Place) + 'a;

/// The same, and may end it.
type Told<'a> = dyn FnMut(&Written, &dyn Fn(usize) -> Place) -> Result<(), LoadError> + 'a;

impl fmt::Debug for WritableSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritableSet").field("set", &self.set().name()).finish_non_exhaustive()
    }
}

pub(crate) const TIME: &str = "a time is a timestamp, a date or a whole number of microseconds";

fn column(field: &Field) -> Column {
    Column { name: field.name().clone(), data_type: field.data_type().clone() }
}

/// Microseconds since 1970. A time that is too far away for them is the farthest there is, which every store refuses.
pub(crate) fn micros(column: &ArrayRef) -> Option<Int64Array> {
    let micros = match column.data_type() {
        data_type if data_type.is_integer() => {
            cast(column, &DataType::Int64).ok()?.as_primitive::<Int64Type>().clone()
        }
        DataType::Timestamp(..) | DataType::Date32 => {
            let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?;
            micros.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>()
        }
        _ => return None,
    };
    if micros.null_count() == column.null_count() {
        return Some(micros);
    }
    let rows = 0..column.len();
    let value =
        |row| column.is_valid(row).then(|| if micros.is_valid(row) { micros.value(row) } else { i64::MAX });
    Some(rows.map(value).collect())
}

impl Outcome {
    /// One word, as metrics and answers have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Older => "older",
            Self::Repeated => "repeated",
            Self::TooLate => "too_late",
            Self::Refused(_) => "refused",
            Self::Filtered => "filtered",
        }
    }
}

impl Written {
    /// How many rows came to each outcome, by its [name](Outcome::name).
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        let names = ["taken", "older", "repeated", "too_late", "refused", "filtered"];
        let mut counts = names.map(|name| (name, 0));
        for outcome in &self.rows {
            let name = outcome.name();
            counts.iter_mut().filter(|(known, _)| *known == name).for_each(|(_, count)| *count += 1);
        }
        counts
    }

    /// The rows that were refused, and why.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &crate::RowProblem)> {
        self.rows.iter().enumerate().filter_map(|(row, outcome)| match outcome {
            Outcome::Refused(problem) => Some((row, problem)),
            _ => None,
        })
    }
}
