//! What a log holds, and how rows are brought into its form.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt64Array, new_null_array},
    compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use millstream_graph::suggest;

use super::LogError;
use crate::{
    Column, DefinitionError, FeatureSet,
    fit::{Unfit, fit},
    key::KeyKind,
    offline::Times,
    online::LOGGED,
};

/// The column of event times: `timestamp[us, UTC]`, never null.
pub const EVENT: &str = "_event";
/// The column of times at which rows became known; null where nobody said.
pub const CREATED: &str = "_created";
/// The column of times until which rows may be used, inclusive; null for ever.
pub const VALID_TO: &str = "_valid_to";
/// The column of sequence numbers: the order in which the store took the rows.
pub const SEQUENCE: &str = "_sequence";

const BOOKKEEPING: [&str; 4] = [EVENT, CREATED, VALID_TO, SEQUENCE];

/// The columns of a log: keys, what was written under them, and the bookkeeping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSchema {
    keys: Vec<Column>,
    columns: Vec<Column>,
    arrow: SchemaRef,
}

impl LogSchema {
    /// A log of `columns` under `keys`; `name` is the set's.
    ///
    /// # Errors
    /// With every problem at once: no key, a name given twice or taken by the bookkeeping, a type that no key has.
    pub fn new(name: &str, keys: Vec<Column>, columns: Vec<Column>) -> Result<Self, DefinitionError> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        if keys.is_empty() {
            problems.push("no key; a log has at least one".to_owned());
        }
        for Column { name, .. } in keys.iter().chain(&columns) {
            if BOOKKEEPING.contains(&name.as_str()) {
                problems.push(format!("the log keeps its own column `{name}`; name yours otherwise"));
            } else if !seen.insert(name) {
                problems.push(format!("column `{name}` is named twice"));
            }
        }
        for Column { name, data_type } in keys.iter().filter(|key| KeyKind::of(&key.data_type).is_none()) {
            problems.push(format!("key `{name}` is {data_type}, which no key is"));
        }
        if !problems.is_empty() {
            return Err(DefinitionError { set: name.to_owned(), problems });
        }
        let mut fields: Vec<Field> =
            keys.iter().map(|key| Field::new(&key.name, key.data_type.clone(), false)).collect();
        fields.extend(columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true)));
        fields.extend([
            Field::new(EVENT, time(), false),
            Field::new(CREATED, time(), true),
            Field::new(VALID_TO, time(), true),
            Field::new(SEQUENCE, DataType::UInt64, false),
        ]);
        Ok(Self { keys, columns, arrow: Arc::new(Schema::new(fields)) })
    }

    /// A log of what is written into `set`: its features, and what its windows are put together from.
    ///
    /// # Errors
    /// As [`LogSchema::new`].
    pub fn of(set: &FeatureSet) -> Result<Self, DefinitionError> {
        let written = set.event_columns().skip(set.keys().len());
        Self::new(set.name(), set.keys().to_vec(), written.cloned().collect())
    }

    /// The keys, in the order in which they are given.
    pub fn keys(&self) -> &[Column] {
        &self.keys
    }

    /// What is written under the keys.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// All columns, the bookkeeping last.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// Rows as the log holds them, numbered from `first` on, in their order.
    pub(super) fn rows(&self, batch: &RecordBatch, first: u64) -> Result<RecordBatch, LogError> {
        let names = || batch.schema_ref().fields().iter().map(|field| field.name().as_str());
        let named = self.keys.iter().chain(&self.columns);
        let wanted = named.clone().map(|column| column.name.as_str()).chain([EVENT]);
        let missing = wanted.filter(|name| batch.column_by_name(name).is_none());
        let problems: Vec<_> = missing.map(|name| suggest::unknown("column", name, names())).collect();
        if !problems.is_empty() {
            return Err(LogError::Columns { problems });
        }
        let mut columns = Vec::with_capacity(self.arrow.fields().len());
        for column in named {
            columns
                .extend(batch.column_by_name(&column.name).map(|found| fitted(column, found)).transpose()?);
        }
        for (key, column) in self.keys.iter().zip(&columns) {
            if let Some(row) = (0..column.len()).find(|&row| column.is_null(row)) {
                return Err(LogError::Row { row, problem: format!("key `{}` is null", key.name) });
            }
        }
        columns.push(self.events(batch)?);
        for name in [CREATED, VALID_TO] {
            columns.push(match batch.column_by_name(name) {
                Some(column) => times(&read_times(name, column)?),
                None => new_null_array(&time(), batch.num_rows()),
            });
        }
        columns.push(Arc::new(UInt64Array::from_iter_values((first..).take(batch.num_rows()))));
        Ok(RecordBatch::try_new(Arc::clone(&self.arrow), columns)?)
    }

    fn events(&self, batch: &RecordBatch) -> Result<ArrayRef, LogError> {
        let Some(column) = batch.column_by_name(EVENT) else {
            return Err(LogError::Columns { problems: vec![format!("no column `{EVENT}`")] });
        };
        let events = read_times(EVENT, column)?;
        let problem = (0..events.len()).find_map(|row| match events.get(row) {
            None => Some((row, format!("`{EVENT}` is null"))),
            Some(event) if !LOGGED.contains(&event) => {
                Some((row, format!("`{EVENT}` lies outside the years 1 to 9999")))
            }
            Some(_) => None,
        });
        match problem {
            Some((row, problem)) => Err(LogError::Row { row, problem }),
            None => Ok(times(&events)),
        }
    }

    /// A batch of a file, maybe written when the log had fewer columns, in the form of today.
    pub(super) fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, LogError> {
        let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(arrow::compute::cast(column, field.data_type())?),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        };
        let columns = self.arrow.fields().iter().map(column).collect::<Result<_, LogError>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.arrow), columns)?)
    }
}

/// Rows of a log in the order of their versions.
pub(super) fn by_version(batch: &RecordBatch) -> Result<RecordBatch, LogError> {
    let options = Some(SortOptions { descending: false, nulls_first: true });
    let columns = [EVENT, CREATED, SEQUENCE].into_iter().filter_map(|name| batch.column_by_name(name));
    let columns: Vec<_> = columns.map(|values| SortColumn { values: Arc::clone(values), options }).collect();
    Ok(take_record_batch(batch, &lexsort_to_indices(&columns, None)?)?)
}

/// The type of every time of a log.
pub(crate) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn times(times: &Times) -> ArrayRef {
    let values = (0..times.len()).map(|row| times.get(row));
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn read_times(name: &str, column: &ArrayRef) -> Result<Times, LogError> {
    Times::of(column).map_err(|error| LogError::Columns { problems: vec![format!("`{name}`: {error}")] })
}

fn fitted(column: &Column, found: &ArrayRef) -> Result<ArrayRef, LogError> {
    fit(column, found).map_err(|unfit| match unfit {
        Unfit::Column(problem) => LogError::Columns { problems: vec![problem] },
        Unfit::Value { row, problem } => LogError::Row { row, problem: problem.to_string() },
    })
}
