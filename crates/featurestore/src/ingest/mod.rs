//! The `ingest` step: rows of a request into a feature set.

mod settings;

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{BooleanArray, RecordBatch, new_empty_array},
    datatypes::{Field, Schema, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    Effect, ErrorKind, FailedRows, Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError,
    StepResult, Work, suggest,
};

use crate::{
    Answer, OnlineStore, WritableSet, WriteError, Written,
    fit::fit_rows,
    set::{Column, is_time},
};
pub(crate) use settings::kind;

/// Writes each row into a feature set that takes rows, and passes it on as it came.
///
/// Rows go on when they are as safe as the set's store promises: steps behind read what was written. A row that the set
/// refuses leaves on the error port. A row of an older event than the one that is there changes nothing, and goes on.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::DataType;
/// use millstream_featurestore::{
///     FeatureSet, FeatureSets, Ingest, LocalOptions, LocalTable, StoredSet, TimeColumns, WritableSet,
/// };
/// use millstream_graph::{Step, fields};
///
/// let visits = FeatureSet::builder("visits")
///     .key("card_id", DataType::Int64)
///     .feature("count", DataType::Int64)
///     .timestamp("at", DataType::Int64)
///     .build()?;
/// let event = visits.timestamp().cloned().ok_or("no time")?;
/// let table = LocalTable::in_memory(visits, LocalOptions::default());
/// let set = WritableSet::new(Arc::new(table), TimeColumns { event, created: None, valid_to: None });
/// let mut sets = FeatureSets::new();
/// sets.insert(StoredSet::Writable(Arc::new(set)));
///
/// let step = Ingest::new(Arc::new(sets), "visits").column("count", "visits");
/// step.signature(&[fields! { card_id: Int64, visits: Int64, at: Int64 }])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ingest {
    store: Arc<dyn OnlineStore>,
    set: String,
    columns: IndexMap<String, String>,
    event: Option<String>,
    bound: OnceLock<(SchemaRef, Bound)>,
}

/// The step once it is typed.
struct Bound {
    set: Arc<WritableSet>,
    /// The columns that are written, as the set names them.
    schema: SchemaRef,
    /// Where they stand in the rows that come in.
    places: Vec<usize>,
}

impl Ingest {
    /// Writes into set `set` the columns that are named as it names them.
    pub fn new(store: Arc<dyn OnlineStore>, set: impl Into<String>) -> Self {
        Self { store, set: set.into(), columns: IndexMap::new(), event: None, bound: OnceLock::new() }
    }

    /// Takes the set's column `of_set` from the rows' column `from`.
    #[must_use]
    pub fn column(mut self, of_set: impl Into<String>, from: impl Into<String>) -> Self {
        self.columns.insert(of_set.into(), from.into());
        self
    }

    /// Takes the event time from this column.
    #[must_use]
    pub fn event(mut self, from: impl Into<String>) -> Self {
        self.event = Some(from.into());
        self
    }

    fn bind(&self, schema: &SchemaRef) -> Result<Bound, SchemaError> {
        let Some(set) = self.store.writable(&self.set) else {
            let mut names = self.store.names();
            if names.contains(&self.set) {
                let problem = format!("feature set `{}` takes no rows; give it `online`", self.set);
                return Err(SchemaError::new(problem));
            }
            names.retain(|name| self.store.writable(name).is_some());
            let known = names.iter().map(String::as_str);
            return Err(SchemaError::new(suggest::unknown("feature set", &self.set, known)));
        };
        let mut problems = Vec::new();
        let of_set = || set.schema().fields().iter().map(|field| field.name().as_str());
        for unknown in self.columns.keys().filter(|name| of_set().all(|known| known != *name)) {
            problems.push(SchemaError::new(suggest::unknown("column", unknown, of_set())));
        }
        let (mut fields, mut places) = (Vec::new(), Vec::new());
        for field in set.schema().fields() {
            match self.place(&set, field, schema) {
                Ok(None) => {}
                Ok(Some(place)) => {
                    let found = schema.field(place);
                    fields.push(Field::new(field.name(), found.data_type().clone(), true));
                    places.push(place);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if let (Some(_), Some(graph)) = (&self.event, set.passes()) {
            problems.push(SchemaError::new(format!(
                "rows of feature set `{}` pass graph `{graph}`, which tells their time; leave `event` out",
                self.set
            )));
        }
        SchemaError::collect(problems)?;
        Ok(Bound { set, schema: Arc::new(Schema::new(fields)), places })
    }

    /// Where a column of the set stands in the rows; nowhere, if it may be left out and is.
    fn place(
        &self,
        set: &WritableSet,
        field: &Field,
        schema: &SchemaRef,
    ) -> Result<Option<usize>, SchemaError> {
        if set.passes().is_some() {
            return self.place_before_graph(field, schema).map(Some);
        }
        let (name, times) = (field.name(), set.times());
        let is_event = times.event.name == *name;
        let given = self.event.as_ref().filter(|_| is_event).or_else(|| self.columns.get(name));
        let stored = set.set().event_columns().find(|column| column.name == *name);
        let Ok(place) = schema.index_of(given.unwrap_or(name)) else {
            if given.is_none() && !is_event && stored.is_none() {
                return Ok(None);
            }
            let known = schema.fields().iter().map(|field| field.name().as_str());
            return Err(SchemaError::unknown_column(given.unwrap_or(name), known));
        };
        let data_type = schema.field(place).data_type();
        let fits = |column: &Column| fit_rows(column, &new_empty_array(data_type)).map(drop);
        match stored {
            Some(column) => fits(column).map_err(SchemaError::new)?,
            None if is_time(data_type) => {}
            None => {
                let problem =
                    format!("column `{}` is {data_type}, which is no time", schema.field(place).name());
                return Err(SchemaError::new(problem));
            }
        }
        Ok(Some(place))
    }

    /// Where a column stands that the graph takes which rows of the set pass.
    fn place_before_graph(&self, field: &Field, schema: &SchemaRef) -> Result<usize, SchemaError> {
        let from = self.columns.get(field.name()).unwrap_or(field.name());
        let Ok(place) = schema.index_of(from) else {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            return Err(SchemaError::unknown_column(from, known));
        };
        let (found, wanted) = (schema.field(place).data_type(), field.data_type());
        if found == wanted {
            Ok(place)
        } else {
            Err(SchemaError::new(format!("column `{from}` is {found}, not {wanted}")))
        }
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("set", &self.set).finish_non_exhaustive()
    }
}

impl Step for Ingest {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let [schema] = inputs else {
            return Err(SchemaError::new(format!("it takes one input, not {}", inputs.len())));
        };
        let bound = self.bind(schema)?;
        let (known, _) = self.bound.get_or_init(|| (Arc::clone(schema), bound));
        if known != schema {
            return Err(SchemaError::new(
                "this step is in use with another schema; make one step for each place",
            ));
        }
        Ok(Signature::row_wise(Arc::clone(schema)).with_effect(Effect::Once))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        let (Some((_, bound)), Ok(rows)) = (self.bound.get(), input.rows(0)) else {
            return Work::Done(Err(StepError::internal("called without rows or before it was typed")));
        };
        let columns = bound.places.iter().map(|&place| Arc::clone(rows.batch().column(place))).collect();
        let changes = RecordBatch::try_new(Arc::clone(&bound.schema), columns)
            .map_err(StepError::from)
            .and_then(|batch| bound.set.changes(batch).map_err(|error| bound.failed(error)));
        match changes.map(|changes| bound.set.write(changes)) {
            Err(error) => Work::Done(Err(error)),
            Ok(Answer::Ready(written)) => Work::Done(bound.answer(rows, written)),
            Ok(Answer::Waits(written)) => {
                Work::Io(Box::pin(async move { bound.answer(rows, written.await) }))
            }
        }
    }
}

impl Bound {
    fn answer(&self, rows: Rows, written: Result<Written, WriteError>) -> StepResult {
        let written = written.map_err(|error| self.failed(error))?;
        let mut good = vec![true; rows.len()];
        let mut messages = Vec::new();
        for (row, problem) in written.refused() {
            good[row] = false;
            messages.push(format!("feature set `{}` refuses the row: {problem}", self.set.set().name()));
        }
        if messages.is_empty() {
            return Ok(Output::one(rows));
        }
        let bad = BooleanArray::from(good.iter().map(|good| !good).collect::<Vec<_>>());
        let failed = FailedRows { rows: rows.filter(&bad)?, messages };
        Ok(Output::one(rows.filter(&BooleanArray::from(good))?).with_failed(failed))
    }

    fn failed(&self, error: WriteError) -> StepError {
        let kind = match error {
            WriteError::Columns { .. } | WriteError::Lookup(_) => ErrorKind::Internal,
            WriteError::TooLarge { .. } => ErrorKind::Rows,
            _ => ErrorKind::Unavailable,
        };
        StepError::new(kind, format!("feature set `{}`: {error}", self.set.set().name())).with_source(error)
    }
}
