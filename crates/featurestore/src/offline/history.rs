//! Training sets: a spine with the features of a vector, as they were known at each row's time.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    compute::SortOptions,
    datatypes::{DataType, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    common::{DataFusionError, Result as DataFusionResult, ScalarValue},
    execution::SendableRecordBatchStream,
    logical_expr::Expr,
    physical_expr::{
        LexOrdering, PhysicalExpr, PhysicalSortExpr,
        expressions::{Column as PlanColumn, try_cast},
    },
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning,
        coalesce_partitions::CoalescePartitionsExec,
        empty::EmptyExec,
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
        stream::RecordBatchStreamAdapter,
        streaming::StreamingTableExec,
    },
    prelude::SessionContext,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use millstream_graph::suggest;

use super::{
    AsOf, LogError, OfflineSet, OfflineStore, Spine, Times, TrainingSet, Vector,
    as_of::{Bounds, micros},
    numbered::NumberedExec,
    operator::{Fault, Fill, Lookup, LookupFeature, LookupKey, Origin, PointInTimeExec},
    profiled::Profiled,
    set::SetEvents,
    spine::Once,
};
use crate::{
    VectorProblem,
    vector::resolve::{self as names, Given, resolve},
};

/// Spine rows that are looked at before logs are read: if there are no more, logs are read for their times only.
const LOOKED_AT: usize = 1 << 20;

impl OfflineStore {
    /// The rows of a spine with the features of `vector`, each as it was at the row's time: one row per row of the spine, in its
    /// order, with its columns first. Rows come in batches; those of the spine are not held.
    ///
    /// # Errors
    /// When the spine cannot be read, or the vector does not fit it: every mistake at once.
    pub async fn history(&self, vector: &Vector, spine: &Spine) -> Result<TrainingSet, HistoryError> {
        let session = self.session(1)?;
        let rows = spine.plan(&session).await?;
        let schema = rows.schema();
        let time = schema.index_of(&spine.time).map_err(|_| {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let problem = suggest::unknown("column", &spine.time, names);
            HistoryError::Vector { problems: vec![format!("the times of the spine: {problem}")] }
        })?;
        let sets = Profiled::new(&self.sets);
        let mut resolved = resolve(vector, &sets, Given::Columns(&schema), true);
        if sets.read(self).await? {
            resolved = resolve(vector, &sets, Given::Columns(&schema), true);
        }
        drop(sets);
        let resolved = resolved?;

        let numbered = Arc::new(NumberedExec::new(rows, time));
        let (plan, range) = self.staged(numbered, &session, schema.fields().len() + 1).await?;
        let session = self.session(self.partitions)?;
        let into = self.partitions;
        let mut part =
            Parts { plan, spine: schema.fields().len(), split: None, into, ordered: !self.is_spread() };
        for lookup in &resolved.lookups {
            if let Some(planned) = Planned::new(self, vector, lookup) {
                part.look_up(&session, &planned, range).await?;
            }
        }
        let joined = self.run(part.together(), &session).await?;
        TrainingSet::new(joined, &resolved)
    }

    /// A spine as it is read once, and the earliest and latest time in it if that is known; `at` is the column of times.
    async fn staged(
        &self,
        spine: Arc<dyn ExecutionPlan>,
        session: &SessionContext,
        at: usize,
    ) -> Result<(Arc<dyn ExecutionPlan>, Option<(i64, i64)>), HistoryError> {
        // A cluster reads it where this process does not see it.
        if self.is_spread() {
            return Ok((spine, None));
        }
        let schema = spine.schema();
        let (rows, range) = look_ahead(spine.execute(0, session.task_ctx())?, at).await?;
        let once = Arc::new(Once::new(rows));
        let plan = StreamingTableExec::try_new(schema, vec![once], None, [], false, None)?;
        Ok((Arc::new(plan), range))
    }
}

/// A lookup, and what it is made in.
struct Planned<'a> {
    lookup: &'a names::Lookup,
    set: &'a OfflineSet,
    as_of: AsOf,
}

impl<'a> Planned<'a> {
    fn new(store: &'a OfflineStore, vector: &Vector, lookup: &'a names::Lookup) -> Option<Self> {
        let set = store.sets.get(&lookup.set)?;
        let mut as_of = set.as_of;
        match vector.max_staleness {
            // Rows without a time have no age.
            _ if set.event.is_none() => as_of.ttl = None,
            // A label is not stale because it came soon after what it is of.
            Some(age) if !lookup.label => as_of.ttl = Some(as_of.ttl.map_or(age, |ttl| ttl.min(age))),
            _ => {}
        }
        Some(Self { lookup, set, as_of })
    }

    /// What makes the set's rows events, if a feature is a window.
    fn events(&self) -> Option<&'a SetEvents> {
        let window = self.lookup.features.iter().any(|wanted| wanted.feature >= self.set.own);
        self.set.events.as_ref().filter(|_| window)
    }
}

/// The stream as it was, and the earliest and latest time in it if it is short.
async fn look_ahead(
    mut rows: SendableRecordBatchStream,
    at: usize,
) -> Result<(SendableRecordBatchStream, Option<(i64, i64)>), HistoryError> {
    let (mut first, mut count, mut range, mut ended) = (Vec::new(), 0, None, false);
    while count < LOOKED_AT && !ended {
        match rows.try_next().await? {
            None => ended = true,
            Some(batch) => {
                let times = Times::of(batch.column(at)).map_err(super::operator::external)?;
                range = match (range, times.range()) {
                    (Some((from, to)), Some((first, last))) => Some((first.min(from), last.max(to))),
                    (known, new) => known.or(new),
                };
                count += batch.num_rows();
                first.push(batch);
            }
        }
    }
    let schema = rows.schema();
    let all = stream::iter(first.into_iter().map(Ok)).chain(rows);
    Ok((Box::pin(RecordBatchStreamAdapter::new(schema, all)), range.filter(|_| ended)))
}

/// A plan that grows by one lookup at a time, and how its rows are split by key.
struct Parts {
    plan: Arc<dyn ExecutionPlan>,
    /// How many columns the spine has; its rows' numbers and times stand behind them.
    spine: usize,
    /// The columns by which rows are split, and the types in which they are compared.
    split: Option<Vec<(usize, DataType)>>,
    into: usize,
    /// Whether rows of a part stay in the order of the spine when they are split; between machines they do not.
    ordered: bool,
}

impl Parts {
    async fn look_up(
        &mut self,
        session: &SessionContext,
        planned: &Planned<'_>,
        range: Option<(i64, i64)>,
    ) -> Result<(), HistoryError> {
        let (mut log, columns) = scan(session, planned, range).await?;
        let lookup = self.lookup(planned, &columns)?;
        if self.into > 1 {
            let split: Vec<_> = lookup.keys.iter().map(|key| (key.spine, key.data_type.clone())).collect();
            if self.split.as_ref() != Some(&split) {
                let whole = if self.ordered { self.together() } else { Arc::clone(&self.plan) };
                self.plan = self.split_by(whole, &split)?;
                self.split = Some(split);
            }
            let keys: Vec<_> = lookup.keys.iter().map(|key| (key.log, key.data_type.clone())).collect();
            log = self.split_by(log, &keys)?;
        }
        self.plan = Arc::new(PointInTimeExec::new(Arc::clone(&self.plan), log, Arc::new(lookup)));
        Ok(())
    }

    /// Names into places.
    fn lookup(&self, planned: &Planned<'_>, log: &Schema) -> Result<Lookup, HistoryError> {
        let spine = self.plan.schema();
        let place = |schema: &Schema, name: &str| {
            schema.index_of(name).map_err(|error| HistoryError::from(DataFusionError::from(error)))
        };
        let set = planned.set;
        let optional = |name: &Option<String>| name.as_ref().map(|name| place(log, name)).transpose();
        let keys = set.keys.iter().zip(&planned.lookup.by).map(|(key, by)| {
            Ok(LookupKey {
                name: key.name.clone(),
                data_type: key.data_type.clone(),
                spine: place(&spine, by)?,
                log: place(log, &key.name)?,
            })
        });
        let features = planned.lookup.features.iter().map(|wanted| {
            Ok(LookupFeature {
                origin: match wanted.feature.checked_sub(set.own) {
                    Some(window) => Origin::Window(window),
                    None => Origin::Log(place(log, &set.features[wanted.feature].name)?),
                },
                data_type: wanted.data_type.clone(),
                column: wanted.column.clone(),
                missing: Fill::of(&wanted.missing, &wanted.data_type),
                null: Fill::of(&wanted.null, &wanted.data_type),
            })
        });
        let events = planned.events().map(|events| events.lookup(|name| place(log, name)));
        Ok(Lookup {
            set: set.name.clone(),
            as_of: planned.as_of,
            ahead: micros(planned.lookup.ahead),
            keys: keys.collect::<Result<_, HistoryError>>()?,
            row: self.spine,
            at: self.spine + 1,
            event: optional(&set.event)?,
            created: optional(&set.created)?,
            sequence: optional(&set.sequence)?,
            valid_to: optional(&set.valid_to)?,
            events: events.transpose()?,
            features: features.collect::<Result<_, HistoryError>>()?,
        })
    }

    /// Rows of equal keys into the same part, in their order.
    fn split_by(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        keys: &[(usize, DataType)],
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = plan.schema();
        let key = |(at, data_type): &(usize, DataType)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(PlanColumn::new(schema.field(*at).name(), *at));
            try_cast(column, &schema, data_type.clone())
        };
        let keys = keys.iter().map(key).collect::<DataFusionResult<_>>()?;
        Ok(Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, self.into))?))
    }

    /// All parts as one, in the order of the spine.
    fn together(&self) -> Arc<dyn ExecutionPlan> {
        let plan = Arc::clone(&self.plan);
        if plan.output_partitioning().partition_count() == 1 {
            return plan;
        }
        let row: Arc<dyn PhysicalExpr> =
            Arc::new(PlanColumn::new(plan.schema().field(self.spine).name(), self.spine));
        let order = LexOrdering::new([PhysicalSortExpr::new(row, SortOptions::default())]);
        let Some(order) = order else { return plan };
        let sorted = |plan| Arc::new(SortExec::new(order.clone(), plan).with_preserve_partitioning(true));
        let plan: Arc<dyn ExecutionPlan> = if self.ordered { plan } else { sorted(plan) };
        Arc::new(SortPreservingMergeExec::new(order, plan))
    }
}

/// The columns of a set that a lookup needs, as one partition; if the spine's times are known, only what can matter to them.
async fn scan(
    session: &SessionContext,
    planned: &Planned<'_>,
    range: Option<(i64, i64)>,
) -> Result<(Arc<dyn ExecutionPlan>, SchemaRef), HistoryError> {
    let set = planned.set;
    let schema = set.rows.schema();
    let own = planned.lookup.features.iter().filter(|wanted| wanted.feature < set.own);
    let features = own.map(|wanted| &set.features[wanted.feature].name);
    let events =
        planned.events().into_iter().flat_map(|events| events.schema.fields()).map(|field| field.name());
    let bookkeeping = [&set.event, &set.created, &set.sequence, &set.valid_to].into_iter().flatten();
    let names = set.keys.iter().map(|key| &key.name).chain(features).chain(events).chain(bookkeeping);
    let mut columns = names
        .map(|name| schema.index_of(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(DataFusionError::from)?;
    columns.sort_unstable();
    columns.dedup();
    let filters: Vec<_> = range.and_then(|range| matters(set, planned, range)).into_iter().collect();
    let mut plan = set.rows.scan(&session.state(), Some(&columns), &filters, None).await?;
    plan = match plan.output_partitioning().partition_count() {
        0 => Arc::new(EmptyExec::new(plan.schema())),
        1 => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)),
    };
    let schema = plan.schema();
    Ok((plan, schema))
}

/// Which events can matter to spine rows of these times.
fn matters(set: &OfflineSet, planned: &Planned<'_>, (from, to): (i64, i64)) -> Option<Expr> {
    let event = set.event.as_ref()?;
    let schema = set.rows.schema();
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = schema.field_with_name(event).ok()?.data_type()
    else {
        return None;
    };
    let column = || Expr::Column(datafusion::common::Column::from_name(event));
    let at = |micros: i64| Expr::Literal(ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()), None);
    let ahead = micros(planned.lookup.ahead);
    let until = column().lt_eq(at(to.saturating_add(ahead)));
    // A key that had an event once has windows for ever, though they may be empty.
    let ttl = Bounds::from(planned.as_of).ttl;
    let oldest = from.saturating_add(ahead).checked_sub(ttl).filter(|_| planned.events().is_none());
    Some(match oldest {
        Some(oldest) => until.and(column().gt_eq(at(oldest))),
        None => until,
    })
}

/// Why there is no training set, or no answer to a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The vector does not fit the sets or the spine; every mistake at once.
    #[error("{}", problems.join("; "))]
    Vector {
        /// The mistakes, one sentence each.
        problems: Vec<String>,
    },
    /// A query names what is not there; every such name at once.
    #[error("{}", problems.join("; "))]
    Query {
        /// The mistakes, one sentence each.
        problems: Vec<String>,
    },
    /// A row lacks a value that it must have.
    #[error("{problem}")]
    Row {
        /// Which, and what.
        problem: String,
    },
    /// A file's name does not say what is in it.
    #[error("`{path}` has none of the endings {known}")]
    Format {
        /// The path as given.
        path: String,
        /// The endings there are.
        known: &'static str,
    },
    /// A file cannot be read or written.
    #[error("`{path}` cannot be read or written")]
    File {
        /// The path as given.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be encoded.
    #[error("`{path}` cannot be written: {problem}")]
    Encode {
        /// The path as given.
        path: String,
        /// Why.
        problem: String,
    },
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A plan needs what only this process has, or is too large to be sent to a cluster; every reason at once.
    #[cfg(feature = "ballista")]
    #[error("{}", problems.join("; "))]
    Spread {
        /// The reasons, one sentence each.
        problems: Vec<String>,
    },
    /// The scheduler of a cluster cannot be reached.
    #[cfg(feature = "ballista")]
    #[error("no scheduler of a cluster answers at {address}")]
    Unreachable {
        /// Its host and port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A cluster gave up.
    #[cfg(feature = "ballista")]
    #[error("the cluster gave up")]
    Cluster(#[source] DataFusionError),
    /// The query engine gave up.
    #[error(transparent)]
    Engine(DataFusionError),
}

impl From<Vec<VectorProblem>> for HistoryError {
    fn from(problems: Vec<VectorProblem>) -> Self {
        Self::Vector { problems: problems.into_iter().map(|problem| problem.text).collect() }
    }
}

impl From<DataFusionError> for HistoryError {
    fn from(error: DataFusionError) -> Self {
        // What a row lacks was said by the join, inside the engine.
        let fault = match error.find_root() {
            DataFusionError::External(inner) => inner.downcast_ref::<Fault>().map(|fault| fault.0.clone()),
            _ => None,
        };
        fault.map_or(Self::Engine(error), |problem| Self::Row { problem })
    }
}

/// Those columns of a batch.
pub(super) fn project(
    batch: &RecordBatch,
    schema: &SchemaRef,
    columns: &[usize],
) -> DataFusionResult<RecordBatch> {
    let columns = columns.iter().map(|&at| Arc::clone(batch.column(at))).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
