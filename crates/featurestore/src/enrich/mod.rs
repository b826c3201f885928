//! The `enrich` step: stored features beside the columns that came in.

pub(crate) mod names;
mod prepare;
mod settings;

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch},
    datatypes::SchemaRef,
};
use indexmap::IndexMap;
use millstream_graph::{
    ErrorKind, FailedRows, Input, Narrow, Output, Rows, RunCx, SchemaError, Signature, Step, StepError,
    StepResult, Work,
};
use smallvec::SmallVec;

use crate::{
    Fault, FeatureSet, Found, LookupError, OnlineStore, OnlineTable, Read, Selection,
    distinct::{When, fetch},
    key::{self, KeyKind},
    online::set::micros,
    policy::{Policies, Policy},
};
use names::{Name, parse};
pub use settings::kinds;

/// Batches up to this many rows are answered at once; bigger ones are handed to the engine as a job.
const INLINE_ROWS: usize = 1024;

/// Adds stored features to each row, found by the keys that the row carries.
///
/// A key that has no row in the set (a null key has none) is a gap that [`Enrich::missing`] decides on; a row whose
/// feature is null is one that [`Enrich::nulls`] decides on. A row of zeros is a row.
///
/// Features are read for the present, as the store's clock has it; for the time in a column of the row ([`Enrich::at`]); or for
/// the times that the request asks for ([`Request::times`](millstream_graph::Request::times)). A row whose time is null finds none.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::DataType;
/// use millstream_featurestore::{Enrich, FeatureSet, MemoryStore, MemoryTable, Policy};
/// use millstream_graph::{Step, fields, rows};
///
/// let cards = FeatureSet::builder("cards")
///     .key("card_id", DataType::Int64)
///     .feature("avg_amount", DataType::Float64)
///     .build()?;
/// let mut store = MemoryStore::new();
/// store.insert(MemoryTable::from_batches(cards, &[rows! { card_id: [7_i64], avg_amount: [12.5] }])?);
///
/// let step = Enrich::new(Arc::new(store), "cards")
///     .by(["card"])
///     .features(["avg_amount AS usual"])
///     .missing(Policy::Default(0.into()));
/// let signature = step.signature(&[fields! { card: Int32, amount: Float64 }])?;
/// assert_eq!(signature.outputs[0].schema.field(2).name(), "usual");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Enrich {
    store: Arc<dyn OnlineStore>,
    set: String,
    by: By,
    at: Option<String>,
    features: Vec<Result<Name, String>>,
    prefix: String,
    /// By feature.
    policies: Policies,
    /// Columns that would go out and that nothing reads.
    unread: HashSet<String>,
    bound: OnceLock<(SchemaRef, Arc<Bound>)>,
}

/// Which columns carry the keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum By {
    /// Those named like the keys.
    #[default]
    Keys,
    /// These, in the order of the keys.
    Columns(Vec<String>),
    /// Column by key.
    Named(IndexMap<String, String>),
}

/// The step once it is typed: numbers and values, no names but those that messages need.
struct Bound {
    table: Arc<dyn OnlineTable>,
    selection: Selection,
    schema: SchemaRef,
    /// The columns that come in and go out.
    handed_on: Vec<usize>,
    keys: SmallVec<[usize; 2]>,
    kinds: SmallVec<[KeyKind; 2]>,
    /// The column of times.
    at: Option<usize>,
    /// The feature of each pick.
    picks: Vec<String>,
}

impl Enrich {
    /// Adds every feature of set `set`, by columns named like its keys. Keys without a row fail; nulls stay null.
    pub fn new(store: Arc<dyn OnlineStore>, set: impl Into<String>) -> Self {
        Self {
            store,
            set: set.into(),
            by: By::Keys,
            at: None,
            features: Vec::new(),
            prefix: String::new(),
            policies: Policies::new(Policy::Fail),
            unread: HashSet::new(),
            bound: OnceLock::new(),
        }
    }

    /// The same step, not typed yet.
    fn untyped(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            set: self.set.clone(),
            by: self.by.clone(),
            at: self.at.clone(),
            features: self.features.clone(),
            prefix: self.prefix.clone(),
            policies: self.policies.clone(),
            unread: self.unread.clone(),
            bound: OnceLock::new(),
        }
    }

    /// How the step is made anew without columns that nothing reads.
    fn narrow(&self, bound: &Bound) -> Narrow {
        let step = self.untyped();
        let out: Vec<String> = bound.schema.fields().iter().map(|field| field.name().clone()).collect();
        let reads = bound.keys.iter().copied().chain(bound.at).collect();
        Narrow::new([reads], move |carried| {
            let unread = out.iter().filter(|column| !carried.is_read(column));
            Self { unread: unread.cloned().collect(), ..step.untyped() }
        })
        .handing_on(bound.handed_on.iter().copied())
    }

    /// Takes the keys from these columns, in the order of the set's keys.
    #[must_use]
    pub fn by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.by = By::Columns(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Takes keys from columns, as pairs of key and column.
    #[must_use]
    pub fn by_key<K: Into<String>, C: Into<String>>(
        mut self,
        keys: impl IntoIterator<Item = (K, C)>,
    ) -> Self {
        self.by = By::Named(keys.into_iter().map(|(key, column)| (key.into(), column.into())).collect());
        self
    }

    /// Reads features for the time in this column: a timestamp, a date, or whole microseconds since 1970 UTC.
    #[must_use]
    pub fn at(mut self, column: impl Into<String>) -> Self {
        self.at = Some(column.into());
        self
    }

    /// Adds these features only: `avg_amount`, `avg_amount AS usual`, or `*` for all.
    #[must_use]
    pub fn features<S: AsRef<str>>(mut self, features: impl IntoIterator<Item = S>) -> Self {
        self.features.extend(features.into_iter().map(|feature| parse(feature.as_ref())));
        self
    }

    /// Puts this before the name of every feature that has no name of its own by `AS`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What happens where a key has no row.
    #[must_use]
    pub fn missing(mut self, policy: Policy) -> Self {
        self.policies.missing = policy;
        self
    }

    /// What happens where a row has null.
    #[must_use]
    pub fn nulls(mut self, policy: Policy) -> Self {
        self.policies.nulls = policy;
        self
    }

    /// What happens for feature `feature` where a key has no row, in place of the step's policy.
    #[must_use]
    pub fn missing_of(mut self, feature: impl Into<String>, policy: Policy) -> Self {
        self.policies.own.entry(feature.into()).or_default().missing = Some(policy);
        self
    }

    /// What happens for feature `feature` where a row has null, in place of the step's policy.
    #[must_use]
    pub fn nulls_of(mut self, feature: impl Into<String>, policy: Policy) -> Self {
        self.policies.own.entry(feature.into()).or_default().nulls = Some(policy);
        self
    }
}

impl std::fmt::Debug for Enrich {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrich").field("set", &self.set).field("by", &self.by).finish_non_exhaustive()
    }
}

impl Step for Enrich {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let [schema] = inputs else {
            return Err(SchemaError::new(format!("it takes one input, not {}", inputs.len())));
        };
        let made = Arc::new(prepare::bind(self, schema)?);
        let (known, bound) = self.bound.get_or_init(|| (Arc::clone(schema), made));
        if known != schema {
            return Err(SchemaError::new(
                "this step is in use with another schema; make one step for each place",
            ));
        }
        Ok(Signature::row_wise(Arc::clone(&bound.schema)).narrowing(self.narrow(bound)))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let (Some((_, bound)), Ok(rows)) = (self.bound.get(), input.rows(0)) else {
            return Work::Done(Err(StepError::internal("called without rows or before it was typed")));
        };
        let times = match bound.times(&rows, cx) {
            Ok(times) => times,
            Err(error) => return Work::Done(Err(error)),
        };
        if !bound.table.is_local() {
            return Work::Io(Box::pin(async move {
                let found = bound.fetch(rows.batch(), times).await;
                bound.answer(&rows, found)
            }));
        }
        if rows.len() <= INLINE_ROWS {
            return Work::Done(bound.read(&rows, times.as_ref()));
        }
        let bound = Arc::clone(bound);
        Work::Compute(Box::new(move || bound.read(&rows, times.as_ref())))
    }
}

impl Bound {
    /// The time for which each row asks; `None` for the present.
    fn times(&self, rows: &Rows, cx: &RunCx) -> Result<Option<Int64Array>, StepError> {
        match self.at {
            None => cx.times(rows),
            // Typing has made sure that it is a time.
            Some(at) => Ok(micros(rows.batch().column(at))),
        }
    }

    /// Reads from a local table.
    fn read(&self, rows: &Rows, times: Option<&Int64Array>) -> StepResult {
        match self.ask(rows.batch(), times) {
            Read::Ready(found) => self.answer(rows, found),
            Read::Waits(_) => Err(StepError::internal("a local store kept a lookup waiting")),
        }
    }

    fn ask(&self, batch: &RecordBatch, times: Option<&Int64Array>) -> Read<'_> {
        match times {
            None => self.table.read(batch, &self.selection),
            Some(times) => self.table.read_each(batch, &self.selection, times),
        }
    }

    /// Reads from a table outside the process.
    async fn fetch(&self, batch: &RecordBatch, times: Option<Int64Array>) -> Result<Found, LookupError> {
        let keys = batch.project(&self.keys).map_err(|error| LookupError::Unavailable(Box::new(error)))?;
        let when = times.map_or(When::Now, When::Each);
        fetch(self.table.as_ref(), keys, &self.kinds, &self.selection, when).await
    }

    fn answer(&self, rows: &Rows, found: Result<Found, LookupError>) -> StepResult {
        let found = found.map_err(|error| match error {
            LookupError::Unavailable(_) => {
                StepError::new(ErrorKind::Unavailable, format!("feature set `{}`", self.name()))
                    .with_source(error)
            }
            _ => StepError::internal(format!("feature set `{}`: {error}", self.name())).with_source(error),
        })?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        columns.extend(self.handed_on.iter().map(|&at| Arc::clone(rows.batch().column(at))));
        columns.extend(found.columns);
        let all = rows.replace(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        if found.faults.is_empty() {
            return Ok(Output::one(all));
        }
        let mut good = vec![true; rows.len()];
        found.faults.iter().for_each(|fault| good[fault.row as usize] = false);
        let bad = BooleanArray::from(good.iter().map(|good| !good).collect::<Vec<_>>());
        let messages = found.faults.iter().map(|fault| self.message(rows.batch(), *fault)).collect();
        let failed = FailedRows { rows: rows.filter(&bad)?, messages };
        Ok(Output::one(all.filter(&BooleanArray::from(good))?).with_failed(failed))
    }

    fn message(&self, batch: &RecordBatch, fault: Fault) -> String {
        let columns: SmallVec<[&ArrayRef; 2]> = self.keys.iter().map(|&key| batch.column(key)).collect();
        fault_text(self.table.set(), &columns, fault, &self.picks)
    }

    fn name(&self) -> &str {
        self.table.set().name()
    }
}

/// Why a row is at fault, in words; `picks` are the features that were read.
pub(crate) fn fault_text(set: &FeatureSet, keys: &[&ArrayRef], fault: Fault, picks: &[String]) -> String {
    let keys = key::display(set.keys().iter().map(|key| key.name.as_str()), keys, fault.row as usize);
    match fault.null.and_then(|pick| picks.get(pick)) {
        None => format!("no row for {keys} in feature set `{}`", set.name()),
        Some(feature) => format!("feature `{feature}` is null for {keys} in feature set `{}`", set.name()),
    }
}
