//! The feature store's operators as bytes, for machines that run a part of a plan.

use std::{io::Cursor, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch, new_null_array},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::{
    common::{DataFusionError, Result},
    execution::TaskContext,
    physical_plan::ExecutionPlan,
};
use datafusion_proto::{
    physical_plan::{AsExecutionPlan, PhysicalExtensionCodec, PhysicalProtoConverterExtension},
    protobuf::PhysicalPlanNode,
};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::super::{
    AsOf, Knowledge,
    numbered::NumberedExec,
    operator::{Fill, Lookup, LookupEvents, LookupFeature, LookupKey, Origin, PointInTimeExec, external},
};
use crate::{AggregateSpec, Aggregates, Conditions};

/// What a message of ours begins with. Ballista's own are protocol buffers, which cannot begin so.
const MARK: &[u8] = b"\x00millstream\x01";

/// Our operators, and Ballista's for the rest.
#[derive(Debug, Default)]
pub(super) struct Codec {
    ballista: BallistaPhysicalExtensionCodec,
    /// What stands under `where` in the aggregates of plans that are read.
    conditions: Conditions,
}

impl Codec {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self { ballista: BallistaPhysicalExtensionCodec::default(), conditions }
    }
}

/// An operator, but for types and values, which stand in a batch behind it.
#[derive(Serialize, Deserialize)]
enum Operator {
    /// The spine is a plan of its own.
    Numbered {
        time: usize,
        spine: Vec<u8>,
    },
    PointInTime(LookupWire),
}

#[derive(Serialize, Deserialize)]
struct LookupWire {
    set: String,
    exclusive: bool,
    ttl: Option<Duration>,
    /// `None`: hindsight.
    lag: Option<Duration>,
    ahead: i64,
    keys: Vec<KeyWire>,
    at: usize,
    row: usize,
    event: Option<usize>,
    created: Option<usize>,
    sequence: Option<usize>,
    valid_to: Option<usize>,
    events: Option<EventsWire>,
    features: Vec<FeatureWire>,
}

#[derive(Serialize, Deserialize)]
struct EventsWire {
    aggregates: Vec<AggregateSpec>,
    lateness: Duration,
    /// Where the log has the columns of an event; they stand behind the others in the batch.
    columns: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct KeyWire {
    name: String,
    spine: usize,
    log: usize,
}

#[derive(Serialize, Deserialize)]
struct FeatureWire {
    origin: OriginWire,
    column: String,
    missing: FillWire,
    null: FillWire,
}

#[derive(Serialize, Deserialize)]
enum OriginWire {
    Log(usize),
    Window(usize),
}

#[derive(Serialize, Deserialize)]
enum FillWire {
    Fail,
    Null,
    Value,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(bytes) = bytes.strip_prefix(MARK) else {
            return self.ballista.try_decode(bytes, inputs, context, converter);
        };
        let (operator, values) = unpack(bytes)?;
        match (operator, inputs) {
            (Operator::Numbered { time, spine }, []) => {
                let spine = PhysicalPlanNode::decode(&spine[..]).map_err(external)?;
                let spine = spine.try_into_physical_plan(context, self)?;
                if time >= spine.schema().fields().len() {
                    return Err(malformed("the spine has no such column"));
                }
                Ok(Arc::new(NumberedExec::new(spine, time)))
            }
            (Operator::PointInTime(lookup), [spine, log]) => {
                let lookup = Arc::new(lookup.read(&values, &self.conditions)?);
                Ok(Arc::new(PointInTimeExec::new(Arc::clone(spine), Arc::clone(log), lookup)))
            }
            _ => Err(malformed("its inputs are not those of the operator")),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let (operator, values) = if let Some(numbered) = node.downcast_ref::<NumberedExec>() {
            let spine = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&numbered.spine), self)?;
            let operator = Operator::Numbered { time: numbered.time, spine: spine.encode_to_vec() };
            (operator, RecordBatch::new_empty(Arc::new(Schema::empty())))
        } else if let Some(join) = node.downcast_ref::<PointInTimeExec>() {
            let (lookup, values) = LookupWire::write(join.lookup())?;
            (Operator::PointInTime(lookup), values)
        } else {
            return self.ballista.try_encode(node, bytes, converter);
        };
        bytes.extend_from_slice(MARK);
        pack(&operator, &values, bytes)
    }
}

/// The length of the operator as JSON, the operator, and the batch as an Arrow IPC stream.
fn pack(operator: &Operator, values: &RecordBatch, bytes: &mut Vec<u8>) -> Result<()> {
    let operator = serde_json::to_vec(operator).map_err(external)?;
    bytes.extend_from_slice(&(operator.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&operator);
    let mut writer = StreamWriter::try_new(bytes, &values.schema())?;
    writer.write(values)?;
    writer.finish()?;
    Ok(())
}

fn unpack(bytes: &[u8]) -> Result<(Operator, RecordBatch)> {
    let short = || malformed("it ends early");
    let (length, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(external)?;
    let (operator, values) = rest.split_at_checked(length).ok_or_else(short)?;
    let operator = serde_json::from_slice(operator).map_err(external)?;
    let values = StreamReader::try_new(Cursor::new(values), None)?.next().ok_or_else(short)??;
    Ok((operator, values))
}

fn malformed(problem: &str) -> DataFusionError {
    DataFusionError::Execution(format!("an operator of a plan cannot be read: {problem}"))
}

impl LookupWire {
    /// The lookup, and one row: of each key its type, of each feature what stands for a row that is not there and for null, then
    /// the columns of an event by their names.
    fn write(lookup: &Lookup) -> Result<(Self, RecordBatch)> {
        let mut values: Vec<ArrayRef> =
            lookup.keys.iter().map(|key| new_null_array(&key.data_type, 1)).collect();
        let mut fill = |fill: &Fill, data_type: &DataType| {
            let (wire, value) = match fill {
                Fill::Fail => (FillWire::Fail, new_null_array(data_type, 1)),
                Fill::Null => (FillWire::Null, new_null_array(data_type, 1)),
                Fill::Value(value) => (FillWire::Value, Arc::clone(value)),
            };
            values.push(value);
            wire
        };
        let features = lookup.features.iter().map(|feature| FeatureWire {
            origin: match feature.origin {
                Origin::Log(at) => OriginWire::Log(at),
                Origin::Window(at) => OriginWire::Window(at),
            },
            column: feature.column.clone(),
            missing: fill(&feature.missing, &feature.data_type),
            null: fill(&feature.null, &feature.data_type),
        });
        let features = features.collect();
        let keys = lookup.keys.iter();
        let keys = keys.map(|key| KeyWire { name: key.name.clone(), spine: key.spine, log: key.log });
        let wire = Self {
            set: lookup.set.clone(),
            exclusive: lookup.as_of.exclusive,
            ttl: lookup.as_of.ttl,
            lag: match lookup.as_of.knowledge {
                Knowledge::AsKnown { lag } => Some(lag),
                Knowledge::Hindsight => None,
            },
            ahead: lookup.ahead,
            keys: keys.collect(),
            at: lookup.at,
            row: lookup.row,
            event: lookup.event,
            created: lookup.created,
            sequence: lookup.sequence,
            valid_to: lookup.valid_to,
            events: lookup.events.as_ref().map(|events| EventsWire {
                aggregates: events.made_of.0.clone(),
                lateness: events.made_of.1,
                columns: events.columns.clone(),
            }),
            features,
        };
        let fields = values.iter().enumerate();
        let fields = fields.map(|(at, value)| Field::new(at.to_string(), value.data_type().clone(), true));
        let mut fields: Vec<FieldRef> = fields.map(Arc::new).collect();
        for field in lookup.events.iter().flat_map(|events| events.schema.fields()) {
            values.push(new_null_array(field.data_type(), 1));
            fields.push(Arc::clone(field));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok((wire, RecordBatch::try_new(schema, values)?))
    }

    fn read(self, values: &RecordBatch, conditions: &Conditions) -> Result<Lookup> {
        let columns = self.events.as_ref().map_or(0, |events| events.columns.len());
        let before = self.keys.len() + 2 * self.features.len();
        if values.num_rows() != 1 || values.num_columns() != before + columns {
            return Err(malformed("it has not as many values as keys and features need"));
        }
        let schema: SchemaRef = Arc::new(Schema::new(values.schema().fields()[before..].to_vec()));
        let events = self.events.map(|events| events.read(schema, conditions)).transpose()?;
        let (keys, fills) = values.columns()[..before].split_at(self.keys.len());
        let keys = self.keys.into_iter().zip(keys).map(|(key, value)| LookupKey {
            name: key.name,
            data_type: value.data_type().clone(),
            spine: key.spine,
            log: key.log,
        });
        let fill = |wire, value: &ArrayRef| match wire {
            FillWire::Fail => Fill::Fail,
            FillWire::Null => Fill::Null,
            FillWire::Value => Fill::Value(Arc::clone(value)),
        };
        let features =
            self.features.into_iter().zip(fills.chunks(2)).map(|(feature, values)| LookupFeature {
                origin: match feature.origin {
                    OriginWire::Log(at) => Origin::Log(at),
                    OriginWire::Window(at) => Origin::Window(at),
                },
                data_type: values[0].data_type().clone(),
                column: feature.column,
                missing: fill(feature.missing, &values[0]),
                null: fill(feature.null, &values[1]),
            });
        Ok(Lookup {
            set: self.set,
            as_of: AsOf {
                exclusive: self.exclusive,
                ttl: self.ttl,
                knowledge: self.lag.map_or(Knowledge::Hindsight, |lag| Knowledge::AsKnown { lag }),
            },
            ahead: self.ahead,
            keys: keys.collect(),
            at: self.at,
            row: self.row,
            event: self.event,
            created: self.created,
            sequence: self.sequence,
            valid_to: self.valid_to,
            events,
            features: features.collect(),
        })
    }
}

impl EventsWire {
    fn read(self, schema: SchemaRef, conditions: &Conditions) -> Result<LookupEvents> {
        let compile = |text: &str| Ok(conditions.make(text, &schema)?.predicate);
        let windows =
            Aggregates::new(&self.aggregates, &schema, self.lateness, &compile).map_err(external)?;
        Ok(LookupEvents {
            windows: Arc::new(windows),
            made_of: (self.aggregates, self.lateness),
            schema,
            columns: self.columns,
        })
    }
}
