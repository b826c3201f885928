//! The point-in-time join as an operator of DataFusion.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type},
};
use datafusion::{
    common::{DataFusionError, Result, tree_node::TreeNodeRecursion},
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{
    AsOf, Times,
    held::{Answers, Held},
    join::{LogRows, Method, PointInTime, merge},
    sweep::sweep,
};
use crate::{AggregateSpec, Aggregates, Gap, key};

/// What is looked up for each spine row, and where both sides have what that needs.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    /// The set, for messages.
    pub(super) set: String,
    pub(super) as_of: AsOf,
    /// The answer is the row of this much after the spine row's time, in microseconds.
    pub(super) ahead: i64,
    pub(super) keys: Vec<LookupKey>,
    /// The spine's column of times, and of its rows' numbers.
    pub(super) at: usize,
    pub(super) row: usize,
    /// Columns of the log.
    pub(super) event: Option<usize>,
    pub(super) created: Option<usize>,
    pub(super) sequence: Option<usize>,
    pub(super) valid_to: Option<usize>,
    /// There if a feature is a window.
    pub(super) events: Option<LookupEvents>,
    pub(super) features: Vec<LookupFeature>,
}

/// A key: its column on both sides, and the type in which they are compared.
#[derive(Clone, Debug)]
pub(super) struct LookupKey {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) spine: usize,
    pub(super) log: usize,
}

/// What makes the rows of a log events that windows are put together from.
#[derive(Clone, Debug)]
pub(super) struct LookupEvents {
    pub(super) windows: Arc<Aggregates>,
    /// What the windows were made of, for those who cannot be given them as they are.
    #[cfg_attr(
        not(feature = "ballista"),
        expect(dead_code, reason = "what one process runs is not encoded")
    )]
    pub(super) made_of: (Vec<AggregateSpec>, Duration),
    /// The columns of an event, as the windows read them, and where the log has them.
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<usize>,
}

/// Where a feature comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// This column of the log.
    Log(usize),
    /// This one of the windows.
    Window(usize),
}

/// A feature: where it comes from, and what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct LookupFeature {
    pub(super) origin: Origin,
    pub(super) data_type: DataType,
    pub(super) column: String,
    /// Where there is no row.
    pub(super) missing: Fill,
    /// Where the row has null.
    pub(super) null: Fill,
}

/// What stands where there is no value.
#[derive(Clone, Debug)]
pub(super) enum Fill {
    Fail,
    Null,
    /// One value of the feature's type.
    Value(ArrayRef),
}

impl Fill {
    pub(super) fn of(gap: &Gap, data_type: &DataType) -> Self {
        match gap {
            Gap::Fail => Self::Fail,
            Gap::Null => Self::Null,
            Gap::Fill(cell) => Self::Value(cell.column(data_type)),
        }
    }
}

/// Adds features to each row of a spine, as they were at the row's time. Keeps the order of the spine within a partition.
///
/// Both inputs have as many partitions as each other, and rows of the same keys are in the same one. A partition of the log is
/// held in memory, on account of the session's memory pool; the spine passes through.
#[derive(Debug)]
pub(super) struct PointInTimeExec {
    spine: Arc<dyn ExecutionPlan>,
    log: Arc<dyn ExecutionPlan>,
    lookup: Arc<Lookup>,
    properties: Arc<PlanProperties>,
}

impl PointInTimeExec {
    pub(super) fn new(
        spine: Arc<dyn ExecutionPlan>,
        log: Arc<dyn ExecutionPlan>,
        lookup: Arc<Lookup>,
    ) -> Self {
        let mut fields = spine.schema().fields().to_vec();
        for feature in &lookup.features {
            let nullable = matches!(feature.missing, Fill::Null) || matches!(feature.null, Fill::Null);
            fields.push(Arc::new(Field::new(&feature.column, feature.data_type.clone(), nullable)));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, spine.schema().metadata().clone()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            spine.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { spine, log, lookup, properties: Arc::new(properties) }
    }

    /// What is looked up.
    #[cfg(feature = "ballista")]
    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }
}

impl DisplayAs for PointInTimeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features: Vec<_> = self.lookup.features.iter().map(|feature| feature.column.as_str()).collect();
        write!(f, "PointInTimeExec: set={}, features=[{}]", self.lookup.set, features.join(", "))
    }
}

impl ExecutionPlan for PointInTimeExec {
    fn name(&self) -> &'static str {
        "PointInTimeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.spine, &self.log]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [spine, log] = <[_; 2]>::try_from(children)
            .map_err(|children| DataFusionError::Internal(format!("{} inputs, not 2", children.len())))?;
        Ok(Arc::new(Self::new(spine, log, Arc::clone(&self.lookup))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new(format!("log of feature set `{}`", self.lookup.set))
            .register(context.memory_pool());
        let spine = self.spine.execute(partition, Arc::clone(&context))?;
        let log = self.log.execute(partition, context)?;
        let schema = self.schema();
        let joined = join(Arc::clone(&self.lookup), Arc::clone(&schema), spine, log, memory);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(joined).try_flatten())))
    }
}

/// Reads the log, then joins the spine to it by the cheaper method.
async fn join(
    lookup: Arc<Lookup>,
    schema: SchemaRef,
    mut spine: SendableRecordBatchStream,
    mut log: SendableRecordBatchStream,
    memory: MemoryReservation,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let mut held = Held::new(&lookup)?;
    while let Some(batch) = log.try_next().await? {
        memory.try_grow(held.push(&lookup, &batch)?)?;
    }
    if let Some(events) = lookup.events.clone() {
        return sweep(lookup, events, schema, spine, held, memory);
    }
    // The spine is waited for only as long as it is the smaller side of a log in the order of time.
    let (mut first, mut rows, mut ended) = (Vec::new(), 0, false);
    while !ended && Method::choose(&held.rows, rows) == Method::Merged {
        match spine.try_next().await? {
            None => ended = true,
            Some(batch) => {
                memory.try_grow(batch.get_array_memory_size())?;
                rows += batch.num_rows();
                first.push(batch);
            }
        }
    }
    if ended {
        let found = lookup.merge(&held.rows, &first)?;
        let answers = stream::iter(first.into_iter().zip(found));
        // What is reserved is given back when the last answer is out.
        let answer = move |(batch, found)| {
            let _held = &memory;
            held.answer(&lookup, &schema, &batch, &Answers::rows(&found))
        };
        return Ok(answers.map(answer).boxed());
    }
    let rows = std::mem::replace(&mut held.rows, LogRows::new(&[]).map_err(external)?);
    let join = PointInTime::new(rows, lookup.as_of).map_err(external)?;
    memory.try_grow(join.bytes())?;
    let answer = move |batch: Result<RecordBatch>| {
        let _held = &memory;
        let batch = batch?;
        let (keys, times) = lookup.asked(&batch)?;
        let found = join.find(&keys.iter().collect::<Vec<_>>(), &times).map_err(external)?;
        held.answer(&lookup, &schema, &batch, &Answers::rows(&found))
    };
    Ok(stream::iter(first.into_iter().map(Ok)).chain(spine).map(answer).boxed())
}

impl Lookup {
    /// Keys and times of spine rows. A key that does not fit the set's type is one that no row has.
    pub(super) fn asked(&self, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, Times)> {
        let keys = self.keys.iter().map(|key| cast(batch.column(key.spine), &key.data_type, true));
        let times = Times::of(batch.column(self.at)).map_err(external)?.later(self.ahead);
        Ok((keys.collect::<Result<_>>()?, times))
    }

    /// The answers to a whole spine, batch by batch.
    fn merge(&self, log: &LogRows, spine: &[RecordBatch]) -> Result<Vec<UInt32Array>> {
        let asked = spine.iter().map(|batch| self.asked(batch)).collect::<Result<Vec<_>>>()?;
        let keys: Vec<Vec<&ArrayRef>> = asked.iter().map(|(keys, _)| keys.iter().collect()).collect();
        let parts: Vec<_> =
            keys.iter().map(Vec::as_slice).zip(asked.iter().map(|(_, times)| times)).collect();
        let found = merge(log, &parts, self.as_of).map_err(external)?;
        let mut start = 0;
        let part = |batch: &RecordBatch| {
            start += batch.num_rows();
            found.slice(start - batch.num_rows(), batch.num_rows())
        };
        Ok(spine.iter().map(part).collect())
    }

    /// What a row says that lacks a value it must have.
    pub(super) fn fault(&self, batch: &RecordBatch, at: usize, problem: &str) -> DataFusionError {
        let columns: Vec<&ArrayRef> = self.keys.iter().map(|key| batch.column(key.spine)).collect();
        let keys = key::display(self.keys.iter().map(|key| key.name.as_str()), &columns, at);
        let row =
            batch.column(self.row).as_primitive_opt::<UInt64Type>().map_or(at as u64, |rows| rows.value(at));
        external(Fault(format!("spine row {row}: {problem} for {keys} in feature set `{}`", self.set)))
    }
}

/// A row without a value that it must have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Fault(pub(super) String);

/// A column in another type; values without a counterpart are null if `safe`, else an error.
pub(super) fn cast(column: &ArrayRef, to: &DataType, safe: bool) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    Ok(cast_with_options(column, to, &CastOptions { safe, ..CastOptions::default() })?)
}

pub(super) fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
