//! Rows that pass a graph before a set takes them.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array},
    compute::take_record_batch,
    datatypes::{Field, SchemaRef},
};
use millstream_graph::suggest;

use super::{
    Changes, Outcome, Positions, TimeColumns, Written,
    set::{TIME, WritableSet},
};
use crate::{
    FeatureSet, RowProblem, WriteError,
    fit::fit_rows,
    set::{Column, is_time},
};

/// What rows pass before a feature set takes them: a graph that whoever puts an application together runs.
pub trait Passage: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// The columns of rows that come in.
    fn takes(&self) -> &SchemaRef;

    /// The columns of rows that come out.
    fn gives(&self) -> &SchemaRef;

    /// Passes rows that have the columns it takes.
    fn pass(&self, rows: RecordBatch) -> Passing<'_>;
}

/// What [`Passage::pass`] comes to. An error is of the passage, not of a row: the same rows may pass later.
pub type Passing<'a> =
    Pin<Box<dyn Future<Output = Result<Passed, Box<dyn std::error::Error + Send + Sync>>> + Send + 'a>>;

/// What came of the rows that passed.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The rows that came out. A row that went in may have come to several, or to none.
    pub rows: RecordBatch,
    /// For each of them, which row it is of, counted from zero.
    pub of: Vec<usize>,
    /// The rows that cannot pass, and why.
    pub refused: Vec<(usize, String)>,
}

/// The passage of a set. Not owned: its graph may read the very set.
pub(super) struct Bound {
    passage: Weak<dyn Passage>,
    pub(super) takes: SchemaRef,
}

impl Bound {
    /// Binds a passage to a set that is written with the columns of `schema`.
    ///
    /// # Errors
    /// With every column that it does not give as the set has it.
    pub(super) fn new(
        passage: &Arc<dyn Passage>,
        (set, times): (&FeatureSet, &TimeColumns),
        schema: &SchemaRef,
    ) -> Result<Self, Vec<String>> {
        let gives = passage.gives();
        let mut problems = Vec::new();
        for field in schema.fields() {
            let name = field.name();
            let own = set.event_columns().any(|column| column.name == *name);
            match gives.field_with_name(name) {
                Ok(found) => problems.extend(unfit(field, found, own)),
                // When it became known and until when it may be used need not be said.
                Err(_) if !own && times.event.name != *name => {}
                Err(_) => {
                    let known = gives.fields().iter().map(|field| field.name().as_str());
                    problems.push(suggest::unknown("column", name, known));
                }
            }
        }
        let named = |problem: String| format!("what graph `{}` answers: {problem}", passage.name());
        if !problems.is_empty() {
            return Err(problems.into_iter().map(named).collect());
        }
        Ok(Self { passage: Arc::downgrade(passage), takes: Arc::clone(passage.takes()) })
    }
}

/// Why a column that comes out is none of the set's.
fn unfit(field: &Field, found: &Field, own: bool) -> Option<String> {
    let (name, data_type) = (field.name(), found.data_type());
    if !own {
        return (!is_time(data_type)).then(|| format!("column `{name}` is {data_type}; {TIME}"));
    }
    let column = Column { name: name.clone(), data_type: field.data_type().clone() };
    fit_rows(&column, &new_empty_array(data_type)).err()
}

/// Writes rows as the graph of `set` gives them. What became of each row that came is told.
pub(super) async fn write(set: &WritableSet, bound: &Bound, changes: Changes) -> Result<Written, WriteError> {
    let Some(passage) = bound.passage.upgrade() else { return Err(WriteError::Closed) };
    let Changes { rows, positions, ids, .. } = changes;
    let came = taken(&rows, &bound.takes)?;
    let passed = match came.num_rows() {
        0 => Passed {
            rows: RecordBatch::new_empty(Arc::clone(passage.gives())),
            of: Vec::new(),
            refused: Vec::new(),
        },
        _ => passage.pass(came.clone()).await.map_err(WriteError::Unavailable)?,
    };
    let Passed { rows, of, refused } = in_order(passed, came.num_rows())?;
    let mut inner = set.timed(rows)?;
    inner.positions = positions.map(|positions| positions_of(positions, &of));
    inner.ids = ids.map(|ids| ids_of(&ids, &of));
    let mut held = set.guard().hold(&mut inner, set.stored_schema(), set.times());
    let mut written = set.table().write(inner).get().await?;
    written.rows = outcomes((came.num_rows(), &of), written.rows, refused, passage.name());
    if let Some(held) = &mut held {
        held.came_as(came, &of);
    }
    Ok(set.guard().settle(set.set(), written, held))
}

/// The columns that the graph takes.
fn taken(rows: &RecordBatch, takes: &SchemaRef) -> Result<RecordBatch, WriteError> {
    let (found, mut problems, mut columns) = (rows.schema(), Vec::new(), Vec::new());
    for field in takes.fields() {
        match found.column_with_name(field.name()) {
            Some((at, found)) if found.data_type() == field.data_type() => {
                columns.push(Arc::clone(rows.column(at)));
            }
            Some((_, found)) => {
                let (name, from, to) = (field.name(), found.data_type(), field.data_type());
                problems.push(format!("column `{name}` is {from}, not {to}"));
            }
            None => {
                let known = found.fields().iter().map(|field| field.name().as_str());
                problems.push(suggest::unknown("column", field.name(), known));
            }
        }
    }
    if !problems.is_empty() {
        return Err(WriteError::Columns { problems });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(takes), columns, &options)
        .map_err(|error| WriteError::Columns { problems: vec![error.to_string()] })
}

/// The rows in the order in which they came: a partition is written in the order of its offsets.
fn in_order(passed: Passed, came: usize) -> Result<Passed, WriteError> {
    let Passed { rows, of, mut refused } = passed;
    if of.len() != rows.num_rows() || of.iter().any(|&row| row >= came) {
        return Err(WriteError::unavailable("a graph did not tell which rows its rows are of"));
    }
    refused.retain(|&(row, _)| row < came);
    if of.is_sorted() {
        return Ok(Passed { rows, of, refused });
    }
    let mut order: Vec<u32> = (0..of.len() as u32).collect();
    order.sort_by_key(|&row| of[row as usize]);
    let of = order.iter().map(|&row| of[row as usize]).collect();
    let rows = take_record_batch(&rows, &UInt32Array::from(order)).map_err(WriteError::unavailable)?;
    Ok(Passed { rows, of, refused })
}

/// Where the rows stand that came out. What was left out has been read all the same.
fn positions_of(positions: Positions, of: &[usize]) -> Positions {
    let reached = positions.top();
    let offsets = of.iter().filter_map(|&row| positions.offsets.get(row).copied()).collect();
    Positions { offsets, reached, ..positions }
}

/// The ids of the rows that came out. An id names one row, so further rows of the same event have a number behind it.
fn ids_of(ids: &[Option<String>], of: &[usize]) -> Vec<Option<String>> {
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let mut id = |&row: &usize| {
        let before = seen.entry(row).or_default();
        *before += 1;
        let id = ids.get(row)?.as_ref()?;
        Some(if *before == 1 { id.clone() } else { format!("{id}\u{1f}{before}") })
    };
    of.iter().map(&mut id).collect()
}

/// What became of the rows that came. Of several rows of one the outcome counts that asks for most attention.
fn outcomes(
    (came, of): (usize, &[usize]),
    written: Vec<Outcome>,
    refused: Vec<(usize, String)>,
    graph: &str,
) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Filtered; came];
    let refused = refused.into_iter().map(|(row, problem)| {
        (row, Outcome::Refused(RowProblem::Graph { graph: graph.to_owned(), problem }))
    });
    for (row, outcome) in of.iter().copied().zip(written).chain(refused) {
        if let Some(known) = outcomes.get_mut(row).filter(|known| rank(&outcome) > rank(known)) {
            *known = outcome;
        }
    }
    outcomes
}

fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Filtered => 0,
        Outcome::Repeated => 1,
        Outcome::Older => 2,
        Outcome::Taken => 3,
        Outcome::TooLate => 4,
        Outcome::Refused(_) => 5,
    }
}
