//! A vector read from the online stores of its sets: keys in, columns out.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions},
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use futures_util::future::try_join_all;
use millstream_graph::{FailedRows, StepError};
use smallvec::SmallVec;

use super::{
    Tables, Vector, VectorProblem,
    derived::Derived,
    resolve::{Given, Lookup, Resolved, resolve},
};
use crate::{
    Fault, Found, LookupError, OnlineStore, OnlineTable, Pick, Selection, Status,
    distinct::{When, fetch},
    enrich::fault_text,
    key::KeyKind,
};

/// A [`Vector`] that is read from the stores of its sets, without its label. Whatever it has of names was looked up when it was made.
///
/// Sets that need nothing of each other are read at the same time, each of them once however many rows there are; all of them are
/// read as of one time.
pub struct OnlineVector {
    vector: Arc<Vector>,
    input: SchemaRef,
    schema: SchemaRef,
    reads: Vec<SetRead>,
    /// Where each feature stands: the number of its read, and of the pick in it.
    features: Vec<(usize, usize)>,
    derived: Option<Derived>,
}

/// One set, read once what its keys are taken from is there.
struct SetRead {
    table: Arc<dyn OnlineTable>,
    wave: usize,
    keys: SmallVec<[KeySource; 2]>,
    key_schema: SchemaRef,
    kinds: SmallVec<[KeyKind; 2]>,
    selection: Selection,
    /// The feature of each pick.
    picks: Vec<String>,
}

/// What carries a key: a column that came in, or a pick of a read before.
#[derive(Clone, Copy)]
enum KeySource {
    Input(usize),
    Feature(usize, usize),
}

/// What was read of a vector: a row for each row that came in.
#[derive(Debug)]
pub struct VectorRows {
    rows: RecordBatch,
    found: Vec<Found>,
    features: Vec<(usize, usize)>,
    input: usize,
}

/// Why a vector was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// A set could not be read.
    #[error("feature set `{set}`")]
    Lookup {
        /// The set.
        set: String,
        /// Why.
        #[source]
        source: LookupError,
    },
    /// Rows lack a value that they must have, or an expression fails on them.
    #[error("{}", problems.iter().map(|(row, problem)| format!("row {row}: {problem}")).collect::<Vec<_>>().join("; "))]
    Rows {
        /// Each such row once, in order, and what is wrong with it.
        problems: Vec<(usize, String)>,
    },
    /// An expression could not be computed.
    #[error(transparent)]
    Expression(#[from] StepError),
}

impl OnlineVector {
    /// The vector over the sets of `store`; what comes in is what it needs.
    ///
    /// # Errors
    /// With every mistake in the vector.
    pub fn new(vector: Arc<Vector>, store: &dyn OnlineStore) -> Result<Self, Vec<VectorProblem>> {
        Self::over(vector, store, Given::Needed)
    }

    /// The vector for rows of these columns, to which it adds its own.
    ///
    /// # Errors
    /// With every mistake in the vector, and what it lacks of those columns.
    pub fn beside(
        vector: Arc<Vector>,
        store: &dyn OnlineStore,
        columns: &SchemaRef,
    ) -> Result<Self, Vec<VectorProblem>> {
        Self::over(vector, store, Given::Columns(columns))
    }

    fn over(
        vector: Arc<Vector>,
        store: &dyn OnlineStore,
        given: Given<'_>,
    ) -> Result<Self, Vec<VectorProblem>> {
        let tables = Tables::of(store);
        let resolved = resolve(&vector, &tables, given, false)?;
        let broken = |text: String| vec![VectorProblem { place: Vec::new(), text }];
        let reads = resolved.lookups.iter().map(|lookup| SetRead::new(&vector, lookup, &resolved, &tables));
        let reads = reads.collect::<Option<Result<Vec<_>, _>>>();
        let reads = reads
            .ok_or_else(|| broken("a feature set is gone".into()))?
            .map_err(|error| broken(error.to_string()))?;
        let place = |column: &String| place(&resolved.lookups, column);
        let features: Vec<(usize, usize)> = resolved.columns.iter().filter_map(place).collect();
        let mut fields = resolved.input.fields().to_vec();
        fields.extend(features.iter().map(|&(read, pick)| resolved.lookups[read].features[pick].field()));
        let Resolved { input, derived, .. } = resolved;
        fields.extend(derived.iter().flat_map(|derived| &derived.added).cloned());
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        Ok(Self { vector, input, schema, reads, features, derived })
    }

    /// The vector.
    pub fn vector(&self) -> &Arc<Vector> {
        &self.vector
    }

    /// The columns that come in.
    pub fn input(&self) -> &SchemaRef {
        &self.input
    }

    /// The columns that are answered: those that came in, the features in the order asked, then those that are expressions.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The set of each feature, in the order of the columns.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(|&(read, _)| self.reads[read].table.set().name())
    }

    /// Whether no set lies outside the process.
    pub fn is_local(&self) -> bool {
        self.reads.iter().all(|read| read.table.is_local())
    }

    /// Reads the features of rows with the columns of [`OnlineVector::input`], as of time `at`, in microseconds since 1970 UTC.
    ///
    /// # Errors
    /// When a set cannot be read, or rows are at fault: all of them, with what is wrong.
    pub async fn read(&self, rows: &RecordBatch, at: i64) -> Result<VectorRows, VectorError> {
        let (rows, failed) = self.try_read(rows, at).await?;
        if failed.is_empty() { Ok(rows) } else { Err(VectorError::Rows { problems: failed }) }
    }

    /// The rows that can be answered, and which cannot.
    pub(crate) async fn try_read(
        &self,
        input: &RecordBatch,
        at: i64,
    ) -> Result<(VectorRows, Vec<(usize, String)>), VectorError> {
        let found = self.look_up(input, at).await?;
        let mut failed = self.faults(input, &found);
        let width = self.input.fields().len() + self.features.len();
        let mut columns = input.columns().to_vec();
        columns.extend(self.features.iter().map(|&(read, pick)| Arc::clone(&found[read].columns[pick])));
        let fields = self.schema.fields()[..width].to_vec();
        let schema = match &self.derived {
            Some(derived) => Arc::clone(&derived.input),
            None => Arc::new(Schema::new_with_metadata(fields, self.schema.metadata().clone())),
        };
        let mut rows = batch(schema, columns, input.num_rows()).map_err(StepError::from)?;
        let mut kept: Vec<usize> = (0..rows.num_rows()).collect();
        if !failed.is_empty() {
            kept.retain(|row| failed.binary_search_by_key(row, |(row, _)| *row).is_err());
            let good: BooleanArray =
                (0..rows.num_rows()).map(|row| Some(kept.binary_search(&row).is_ok())).collect();
            rows = arrow::compute::filter_record_batch(&rows, &good).map_err(StepError::from)?;
        }
        if let Some(derived) = self.derived.as_ref().filter(|_| rows.num_rows() > 0) {
            let (mut good, bad, _) = derived.run(rows)?.into_parts();
            failed.extend(bad.iter().flat_map(|bad| failures(bad, &kept)));
            failed.sort_by_key(|(row, _)| *row);
            let none = || RecordBatch::new_empty(Arc::clone(&self.schema));
            rows = good.pop().map_or_else(none, |(_, rows)| rows.into_batch());
        }
        let rows = batch(Arc::clone(&self.schema), self.completed(&rows), rows.num_rows());
        let rows = rows.map_err(StepError::from)?;
        let (features, input) = (self.features.clone(), self.input.fields().len());
        Ok((VectorRows { rows, found, features, input }, failed))
    }

    /// The columns of an answer; of one without rows, all that there would be.
    fn completed(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        let missing = self.schema.fields().iter().skip(rows.num_columns());
        let missing = missing.map(|field| arrow::array::new_empty_array(field.data_type()));
        rows.columns().iter().cloned().chain(missing).collect()
    }

    async fn look_up(&self, input: &RecordBatch, at: i64) -> Result<Vec<Found>, VectorError> {
        let mut found: Vec<Found> = Vec::with_capacity(self.reads.len());
        while found.len() < self.reads.len() {
            let wave = self.reads[found.len()].wave;
            let next = self.reads[found.len()..].iter().take_while(|read| read.wave == wave);
            let next = next.map(|read| read.read(input, &found, at)).collect::<Vec<_>>();
            let answers = try_join_all(next).await?;
            found.extend(answers);
        }
        Ok(found)
    }

    /// The rows that lack a value that they must have, in order, each once.
    fn faults(&self, input: &RecordBatch, found: &[Found]) -> Vec<(usize, String)> {
        let mut faults: Vec<(usize, String)> = Vec::new();
        for (read, answer) in self.reads.iter().zip(found) {
            let columns = read.key_columns(input, found);
            let columns: SmallVec<[&ArrayRef; 2]> = columns.iter().collect();
            let text = |fault: Fault| fault_text(read.table.set(), &columns, fault, &read.picks);
            faults.extend(answer.faults.iter().map(|&fault| (fault.row as usize, text(fault))));
        }
        // Stable: of a row's faults that of the first set stays.
        faults.sort_by_key(|(row, _)| *row);
        faults.dedup_by_key(|(row, _)| *row);
        faults
    }
}

impl SetRead {
    /// `None` when its set or its keys are not there, which resolving has ruled out.
    fn new(
        vector: &Vector,
        lookup: &Lookup,
        resolved: &Resolved,
        tables: &Tables,
    ) -> Option<Result<Self, LookupError>> {
        let table = Arc::clone(tables.0.get(&lookup.set)?);
        let source = |column: &String| match resolved.input.index_of(column) {
            Ok(at) => Some(KeySource::Input(at)),
            Err(_) => place(&resolved.lookups, column).map(|(read, pick)| KeySource::Feature(read, pick)),
        };
        let keys: SmallVec<[KeySource; 2]> = lookup.by.iter().map(source).collect::<Option<_>>()?;
        let field = |key: &KeySource| match *key {
            KeySource::Input(at) => Arc::clone(&resolved.input.fields()[at]),
            KeySource::Feature(read, pick) => resolved.lookups[read].features[pick].field(),
        };
        let key_schema = Arc::new(Schema::new(keys.iter().map(field).collect::<Vec<_>>()));
        let set = Arc::clone(table.set());
        let pick = |feature: &super::resolve::Feature| Pick {
            feature: feature.feature,
            missing: feature.missing.clone(),
            null: feature.null.clone(),
        };
        let places: Vec<usize> = (0..keys.len()).collect();
        let selection = Selection::new(&set, &places, lookup.features.iter().map(pick).collect());
        Some(selection.map(|selection| {
            let selection = selection.with_events();
            Self {
                selection: match vector.max_staleness {
                    Some(age) => selection.max_age(age),
                    None => selection,
                },
                wave: lookup.wave,
                kinds: set.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect(),
                picks: lookup
                    .features
                    .iter()
                    .map(|feature| set.features()[feature.feature].name.clone())
                    .collect(),
                keys,
                key_schema,
                table,
            }
        }))
    }

    fn key_columns(&self, input: &RecordBatch, found: &[Found]) -> Vec<ArrayRef> {
        let column = |key: &KeySource| match *key {
            KeySource::Input(at) => Arc::clone(input.column(at)),
            KeySource::Feature(read, pick) => Arc::clone(&found[read].columns[pick]),
        };
        self.keys.iter().map(column).collect()
    }

    /// Asks the set; `found` is what the reads before have found.
    fn read<'a>(
        &'a self,
        input: &RecordBatch,
        found: &[Found],
        at: i64,
    ) -> impl Future<Output = Result<Found, VectorError>> + Send + use<'a> {
        let keys = batch(Arc::clone(&self.key_schema), self.key_columns(input, found), input.num_rows());
        let failed = |source| VectorError::Lookup { set: self.table.set().name().to_owned(), source };
        async move {
            let keys = keys.map_err(|error| failed(LookupError::Unavailable(Box::new(error))))?;
            if self.table.is_local() {
                // Telling keys apart costs more than looking them up.
                return match self.table.read_at(&keys, &self.selection, at) {
                    crate::Read::Ready(found) => found.map_err(failed),
                    crate::Read::Waits(found) => found.await.map_err(failed),
                };
            }
            fetch(self.table.as_ref(), keys, &self.kinds, &self.selection, When::At(at)).await.map_err(failed)
        }
    }
}

impl VectorRows {
    /// The rows, with the columns of [`OnlineVector::schema`].
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// What is known of column `column` of the answer for a row. Of columns that came in or are expressions, whether they are null;
    /// a null that a policy has filled is present.
    pub fn status(&self, row: usize, column: usize) -> Status {
        match self.feature(column) {
            Some((read, pick)) => self.found[read].status(row, pick),
            None if self.rows.column(column).is_null(row) => Status::Null,
            None => Status::Present,
        }
    }

    /// When the rows that column `column` was read of happened, in microseconds since 1970 UTC; `None` for columns that are no
    /// features, and features of sets without an event timestamp.
    pub fn events(&self, column: usize) -> Option<&Int64Array> {
        let (read, _) = self.feature(column)?;
        self.found[read].events.as_ref()
    }

    fn feature(&self, column: usize) -> Option<(usize, usize)> {
        self.features.get(column.checked_sub(self.input)?).copied()
    }
}

impl std::fmt::Debug for OnlineVector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnlineVector").field("vector", &self.vector.name()).finish_non_exhaustive()
    }
}

/// The lookup that adds a column, and the column's number in it.
fn place(lookups: &[Lookup], column: &str) -> Option<(usize, usize)> {
    let pick = |lookup: &Lookup| lookup.features.iter().position(|feature| feature.column == column);
    lookups.iter().enumerate().find_map(|(read, lookup)| Some((read, pick(lookup)?)))
}

/// Which rows failed, by their numbers in what came in; `kept` are the numbers of the rows that were given.
fn failures(bad: &FailedRows, kept: &[usize]) -> Vec<(usize, String)> {
    let row = |at: usize| bad.rows.origin().place(at).and_then(|row| kept.get(row as usize).copied());
    let failure = |(at, message): (usize, &String)| Some((row(at)?, message.clone()));
    bad.messages.iter().enumerate().filter_map(failure).collect()
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}
