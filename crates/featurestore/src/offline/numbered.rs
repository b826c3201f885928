//! A spine whose rows are numbered, as an operator of DataFusion.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::{Result, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Times,
    log::time,
    operator::{Fault, external},
};

/// Puts two columns behind those of a spine: the numbers of its rows, and their times in microseconds.
///
/// The parts of the spine are read one after the other, as they are numbered: together their rows would come in the order in
/// which they are done. Optimizers do not see that there is a spine: they would take away the order of a query, since no operator
/// asks for it.
#[derive(Debug)]
pub(super) struct NumberedExec {
    pub(super) spine: Arc<dyn ExecutionPlan>,
    /// The spine's column of times.
    pub(super) time: usize,
    properties: Arc<PlanProperties>,
}

impl NumberedExec {
    pub(super) fn new(spine: Arc<dyn ExecutionPlan>, time: usize) -> Self {
        let schema = numbered_schema(&spine.schema());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { spine, time, properties: Arc::new(properties) }
    }
}

/// The columns of a spine, and the two behind them.
fn numbered_schema(spine: &Schema) -> SchemaRef {
    let mut fields = spine.fields().to_vec();
    fields.push(Arc::new(Field::new("\u{1}row", DataType::UInt64, false)));
    fields.push(Arc::new(Field::new("\u{1}at", time(), true)));
    Arc::new(Schema::new_with_metadata(fields, spine.metadata().clone()))
}

impl DisplayAs for NumberedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NumberedExec: time={}", self.spine.schema().field(self.time).name())
    }
}

impl ExecutionPlan for NumberedExec {
    fn name(&self) -> &'static str {
        "NumberedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = self.spine.output_partitioning().partition_count();
        let parts = (0..parts).map(|part| self.spine.execute(part, Arc::clone(&context)));
        let rows = stream::iter(parts.collect::<Result<Vec<_>>>()?).flatten();
        let (schema, time) = (self.schema(), self.time);
        let numbered = rows.scan(0_u64, move |next, batch| {
            let numbered = batch.and_then(|batch| {
                let first = *next;
                *next += batch.num_rows() as u64;
                number(&batch, first, time, &schema)
            });
            std::future::ready(Some(numbered))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), numbered.into_stream())))
    }
}

fn number(batch: &RecordBatch, first: u64, time: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let name = schema.field(time).name();
    let unreadable = |error| external(Fault(format!("column `{name}` of the spine: {error}")));
    let times = Times::of(batch.column(time)).map_err(unreadable)?;
    let at: TimestampMicrosecondArray = (0..times.len()).map(|row| times.get(row)).collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter_values(first..first + batch.num_rows() as u64)));
    columns.push(Arc::new(at.with_timezone("UTC")));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
