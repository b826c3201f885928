//! What every step of this crate shares: typed once, then run without names.

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    datatypes::{FieldRef, Fields, Schema, SchemaRef},
};
use millstream_graph::{
    ErrorKind, FailedRows, Input, Narrow, Output, Rows, SchemaError, Signature, Step, StepError, StepResult,
    Work,
};
use smallvec::SmallVec;

/// Batches up to this many rows are answered at once; bigger ones are handed to the engine as a job.
const INLINE_ROWS: usize = 1024;

/// What is left of a step once it is typed: indices and values, no names.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// The ports and their schemas.
    fn signature(&self) -> Signature;
    /// The columns that come in and are read, replaced, or named in the settings; the others only pass through.
    fn reads(&self) -> Vec<usize>;
    /// Where the columns that go out come from, if they are not those that came in.
    fn layout(&self) -> Option<&Layout> {
        None
    }
    /// Answers for the rows of in-port 0.
    fn run(&self, rows: Rows) -> StepResult;
}

/// A kernel that `Step::signature` makes and `Step::call` uses.
#[derive(Debug)]
pub(crate) struct Prepared<K> {
    made: OnceLock<Made<K>>,
}

#[derive(Debug)]
struct Made<K> {
    schema: SchemaRef,
    kernel: Arc<K>,
}

impl<K> Default for Prepared<K> {
    fn default() -> Self {
        Self { made: OnceLock::new() }
    }
}

/// The copy of a step is not typed yet.
impl<K> Clone for Prepared<K> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<K: Kernel> Prepared<K> {
    /// Makes the kernel of `step` for the one schema that comes in.
    pub(crate) fn sign<S: Step + Clone>(
        &self,
        step: &S,
        inputs: &[SchemaRef],
        make: impl FnOnce(&SchemaRef) -> Result<K, SchemaError>,
    ) -> Result<Signature, SchemaError> {
        let [schema] = inputs else {
            return Err(SchemaError::new(format!("it takes one input, not {}", inputs.len())));
        };
        let kernel = make(schema)?;
        let (signature, reads) = (kernel.signature(), kernel.reads());
        let handed_on = kernel.layout().map(|layout| layout.handed_on(schema)).unwrap_or_default();
        let made = self.made.get_or_init(|| Made { schema: Arc::clone(schema), kernel: Arc::new(kernel) });
        if made.schema != *schema {
            return Err(in_use());
        }
        let step = step.clone();
        let narrow = Narrow::new([reads], move |_| step.clone()).handing_on(handed_on);
        Ok(signature.narrowing(narrow))
    }

    /// Runs the kernel on the rows of in-port 0.
    pub(crate) fn call<'a>(&self, input: Input) -> Work<'a> {
        self.call_with(input, K::run)
    }

    /// Runs `run` with the kernel on the rows of in-port 0: at once for few rows, as a job for many.
    pub(crate) fn call_with<'a>(
        &self,
        mut input: Input,
        run: impl FnOnce(&K, Rows) -> StepResult + Send + 'static,
    ) -> Work<'a> {
        let rows = match input.rows(0) {
            Ok(rows) => rows,
            Err(error) => return Work::Done(Err(error)),
        };
        let Some(made) = self.made.get() else {
            return Work::Done(Err(StepError::internal("the step runs before it was typed")));
        };
        if rows.batch().num_columns() != made.schema.fields().len() {
            return Work::Done(Err(StepError::internal(format!(
                "{} columns came in, but the step was typed for {}",
                rows.batch().num_columns(),
                made.schema.fields().len()
            ))));
        }
        if rows.len() <= INLINE_ROWS {
            return Work::Done(run(&made.kernel, rows));
        }
        let kernel = Arc::clone(&made.kernel);
        Work::Compute(Box::new(move || run(&kernel, rows)))
    }
}

/// Why a step that is typed already is not typed for another schema.
pub(crate) fn in_use() -> SchemaError {
    SchemaError::new("this step is in use with another schema; make one step for each place")
}

/// Where the columns that go out come from.
#[derive(Debug)]
pub(crate) struct Layout {
    schema: SchemaRef,
    slots: Box<[Slot]>,
}

/// The source of a column that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The column that came in at this place.
    Input(usize),
    /// The array that the step made at this place.
    New(usize),
}

impl Layout {
    /// The columns in order; `like` lends the metadata of its schema.
    pub(crate) fn new(
        columns: impl IntoIterator<Item = (FieldRef, Slot)>,
        like: &Schema,
    ) -> Result<Self, SchemaError> {
        let (fields, slots): (Vec<FieldRef>, Vec<Slot>) = columns.into_iter().unzip();
        if fields.is_empty() {
            return Err(SchemaError::new("no column is left"));
        }
        let mut seen = std::collections::BTreeSet::new();
        let twice: Vec<_> = fields
            .iter()
            .filter(|field| !seen.insert(field.name().as_str()))
            .map(|field| SchemaError::new(format!("two columns would be named `{}`", field.name())))
            .collect();
        SchemaError::collect(twice)?;
        let schema = Schema::new_with_metadata(Fields::from(fields), like.metadata().clone());
        Ok(Self { schema: Arc::new(schema), slots: slots.into() })
    }

    /// The columns that come in and go out under the same name as they are.
    fn handed_on(&self, input: &Schema) -> Vec<usize> {
        let out = self.slots.iter().zip(self.schema.fields());
        let kept = out.filter_map(|(slot, field)| match *slot {
            Slot::Input(at) if input.fields().get(at)?.name() == field.name() => Some(at),
            Slot::Input(_) | Slot::New(_) => None,
        });
        kept.collect()
    }

    /// The schema of what goes out.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Puts the columns that go out together.
    pub(crate) fn batch(&self, input: &RecordBatch, new: &[ArrayRef]) -> Result<RecordBatch, StepError> {
        let column = |slot: &Slot| match *slot {
            Slot::Input(at) => input.columns().get(at).map(Arc::clone),
            Slot::New(at) => new.get(at).map(Arc::clone),
        };
        let mut columns = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            columns.push(
                column(slot).ok_or_else(|| StepError::internal("a column that goes out was not made"))?,
            );
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The same rows with the columns that go out.
    pub(crate) fn rows(&self, rows: &Rows, new: &[ArrayRef]) -> Result<Rows, StepError> {
        rows.replace(self.batch(rows.batch(), new)?)
    }
}

/// Collects the columns that go out of a step which changes some of those that came in.
pub(crate) struct LayoutBuilder<'a> {
    input: &'a SchemaRef,
    places: Vec<Vec<(FieldRef, Slot)>>,
    tail: Vec<(FieldRef, Slot)>,
    made: usize,
}

impl<'a> LayoutBuilder<'a> {
    pub(crate) fn new(input: &'a SchemaRef) -> Self {
        let kept = |(at, field): (usize, &FieldRef)| vec![(Arc::clone(field), Slot::Input(at))];
        let places = input.fields().iter().enumerate().map(kept).collect();
        Self { input, places, tail: Vec::new(), made: 0 }
    }

    /// Puts the next new columns where input column `at` stood.
    pub(crate) fn replace(&mut self, at: usize, fields: impl IntoIterator<Item = FieldRef>) {
        self.drop(at);
        self.insert_after(at, fields);
    }

    /// Puts the next new columns behind input column `at`.
    pub(crate) fn insert_after(&mut self, at: usize, fields: impl IntoIterator<Item = FieldRef>) {
        let mut made = self.made;
        let columns: Vec<_> = fields
            .into_iter()
            .map(|field| {
                made += 1;
                (field, Slot::New(made - 1))
            })
            .collect();
        self.made = made;
        if let Some(place) = self.places.get_mut(at) {
            place.extend(columns);
        }
    }

    /// Puts the next new column behind all others.
    pub(crate) fn append(&mut self, field: FieldRef) {
        self.tail.push((field, Slot::New(self.made)));
        self.made += 1;
    }

    /// Leaves input column `at` out.
    pub(crate) fn drop(&mut self, at: usize) {
        if let Some(place) = self.places.get_mut(at) {
            place.clear();
        }
    }

    pub(crate) fn finish(self) -> Result<Layout, SchemaError> {
        Layout::new(self.places.into_iter().flatten().chain(self.tail), self.input)
    }
}

/// The place of a column.
pub(crate) fn find(schema: &Schema, name: &str) -> Result<usize, SchemaError> {
    schema.fields().iter().position(|field| field.name() == name).ok_or_else(|| {
        SchemaError::unknown_column(name, schema.fields().iter().map(|field| field.name().as_str()))
    })
}

/// Prepares every column that the settings name; all problems at once.
pub(crate) fn each_column<'s, S: 's, T>(
    schema: &Schema,
    settings: impl IntoIterator<Item = (&'s String, &'s S)>,
    mut prepare: impl FnMut(usize, &'s str, &'s S) -> Result<T, SchemaError>,
) -> Result<Vec<T>, SchemaError> {
    let mut prepared = Vec::new();
    let mut problems = Vec::new();
    let mut any = false;
    for (name, setting) in settings {
        any = true;
        match find(schema, name).and_then(|at| prepare(at, name, setting)) {
            Ok(column) => prepared.push(column),
            Err(error) => problems.push(error),
        }
    }
    if !any {
        problems.push(SchemaError::new("it names no column"));
    }
    SchemaError::collect(problems)?;
    Ok(prepared)
}

/// A problem with one column.
pub(crate) fn column_problem(name: &str, problem: impl std::fmt::Display) -> SchemaError {
    SchemaError::new(format!("column `{name}`: {problem}"))
}

/// What was made of the rows that could be answered, piece by piece in order, and the rows that could not.
pub(crate) struct Isolated<T> {
    pub(crate) pieces: SmallVec<[T; 1]>,
    pub(crate) failures: Vec<Failure>,
}

/// A row that could not be answered.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) row: u32,
    pub(crate) message: String,
}

/// So many rows of a batch may fail one by one; beyond that the batch is at fault.
const MAX_FAILURES: usize = 1024;

/// Answers for a whole batch, or, where values of some rows are at fault, for all the others.
///
/// A kernel over columns fails as a whole. Halving the batch finds the rows at fault in about `k * log2(n)` attempts,
/// and makes the answer for a row independent of the rows beside it.
pub(crate) fn isolate<T>(
    batch: &RecordBatch,
    answer: impl Fn(&RecordBatch) -> Result<T, StepError>,
) -> Result<Isolated<T>, StepError> {
    let error = match answer(batch) {
        Ok(whole) => return Ok(Isolated { pieces: SmallVec::from_buf([whole]), failures: Vec::new() }),
        Err(error) if error.kind() == ErrorKind::Rows && batch.num_rows() > 1 => error,
        Err(error) => return Err(error),
    };
    let mut isolated = Isolated { pieces: SmallVec::new(), failures: Vec::new() };
    // The batch itself has failed already: it starts halved. The top of the stack is the next piece from the left.
    let half = batch.num_rows() / 2;
    let mut left = vec![(half, batch.num_rows() - half), (0, half)];
    while let Some((offset, length)) = left.pop() {
        match answer(&batch.slice(offset, length)) {
            Ok(piece) => isolated.pieces.push(piece),
            Err(error) if error.kind() != ErrorKind::Rows => return Err(error),
            Err(error) if length == 1 => {
                isolated.failures.push(Failure { row: offset as u32, message: error.message().to_owned() });
                if isolated.failures.len() > MAX_FAILURES {
                    return Err(StepError::rows(format!(
                        "more than {MAX_FAILURES} of {} rows fail; the first: {}",
                        batch.num_rows(),
                        isolated.failures.first().map_or("", |first| &first.message)
                    )));
                }
            }
            Err(_) => {
                let half = length / 2;
                left.push((offset + half, length - half));
                left.push((offset, half));
            }
        }
    }
    if isolated.pieces.is_empty() { Err(error) } else { Ok(isolated) }
}

/// Splits rows into those that go on and those that failed. `failures` are in the order of rows.
pub(crate) fn split(rows: &Rows, failures: Vec<Failure>) -> Result<(Rows, FailedRows), StepError> {
    let mut keep = vec![true; rows.len()];
    let mut indices = Vec::with_capacity(failures.len());
    let mut messages = Vec::with_capacity(failures.len());
    for Failure { row, message } in failures {
        if let Some(keep) = keep.get_mut(row as usize) {
            *keep = false;
        }
        indices.push(row);
        messages.push(message);
    }
    let failed = FailedRows { rows: rows.take(&indices)?, messages };
    Ok((rows.filter(&BooleanArray::from(keep))?, failed))
}

/// Answers for the rows that did not fail; when none is left, only the failed ones leave.
pub(crate) fn without_failures(
    rows: &Rows,
    failures: Vec<Failure>,
    answer: impl FnOnce(&Rows) -> Result<Rows, StepError>,
) -> StepResult {
    if failures.is_empty() {
        return Ok(Output::one(answer(rows)?));
    }
    let (good, failed) = split(rows, failures)?;
    let output = if good.len() > 0 { Output::one(answer(&good)?) } else { Output::none() };
    Ok(output.with_failed(failed))
}
