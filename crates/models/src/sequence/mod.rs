//! Models with a state: what a run leaves, the next run of the same sequence begins with.

mod held;
mod pass;
mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringArray},
    compute::cast,
    datatypes::{DataType, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    Effect, Input, Rows, RunCx, SchemaError, Signature, Step, StepError, Work, spec::Time,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    held::{Held, States},
    pass::Pass,
    table::Table,
};
use crate::{Columns, Keep, Model, ModelSet, ModelStep, Nulls, Pick, columns::unknown_column};

const IDLE: Duration = Duration::from_secs(60);
const MOST: usize = 10_000;

/// Runs a model that keeps a state, row by row, each with the state that the row before it of the same sequence has left.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceSettings {
    /// The model, as the project's `models` names it.
    pub r#use: String,
    /// The column that says which sequence a row belongs to: a text or a whole number.
    pub id: String,
    /// The column, of truth values, that says of a row that its sequence begins with it. Without it, a sequence begins when its first
    /// row comes; with it, a row of a sequence that has not begun is refused.
    #[serde(default)]
    pub start: Option<String>,
    /// The column that says of a row that its sequence ends with it.
    #[serde(default)]
    pub end: Option<String>,
    /// The inputs that are states, each with the output that is its next value. A sequence begins with zeros.
    #[schemars(with = "BTreeMap<String, String>")]
    pub states: IndexMap<String, String>,
    /// Inputs that are the same for all rows, with their values.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Constant>")]
    pub constants: IndexMap<String, Constant>,
    /// The columns that make up each other input, as of a `model` step.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Columns>")]
    pub inputs: IndexMap<String, Columns>,
    /// The columns to add, as of a `model` step.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Pick>")]
    pub outputs: IndexMap<String, Pick>,
    /// Which of the columns that come in are passed on.
    #[serde(default)]
    pub keep: Keep,
    /// What happens to a row with a null in a column that the model takes.
    #[serde(default)]
    pub nulls: Nulls,
    /// A sequence that nobody has asked for in so long is over. Default: one minute.
    #[serde(default)]
    pub idle: Option<Time>,
    /// The most sequences that are open at once; rows of others are refused. Default: 10,000.
    #[serde(default)]
    pub most: Option<std::num::NonZeroUsize>,
}

/// One number, or the numbers of a tensor in its order.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, or a list of numbers")]
pub enum Constant {
    /// One.
    One(f64),
    /// Several.
    Several(Vec<f64>),
}

/// The step of [`SequenceSettings`].
pub(crate) struct Sequence {
    step: ModelStep,
    id: String,
    start: Option<String>,
    end: Option<String>,
    shared: Arc<Shared>,
    plan: OnceLock<Plan>,
}

struct Shared {
    model: Arc<Held>,
    table: Table<States>,
}

/// Where the columns stand that say which row is whose.
#[derive(Clone, Copy)]
struct Plan {
    id: usize,
    start: Option<usize>,
    end: Option<usize>,
}

impl SequenceSettings {
    pub(crate) fn step(self, models: &ModelSet) -> Result<Sequence, SchemaError> {
        let model = models.find(&self.r#use)?;
        let constants = self.constants.into_iter().map(|(name, value)| match value {
            Constant::One(value) => (name, vec![value]),
            Constant::Several(values) => (name, values),
        });
        let model = Arc::new(Held::new(model, &self.states, &constants.collect())?);
        let table = Table::new(
            self.idle.map_or(IDLE, |idle| idle.0),
            self.most.map_or(MOST, std::num::NonZeroUsize::get),
            Instant::now,
        );
        let step = ModelStep::new(Arc::clone(&model) as Arc<dyn Model>)
            .with_settings(self.inputs, self.outputs)
            .keep(self.keep)
            .nulls(self.nulls);
        let shared = Arc::new(Shared { model, table });
        Ok(Sequence { step, id: self.id, start: self.start, end: self.end, shared, plan: OnceLock::new() })
    }
}

impl Step for Sequence {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let mut problems = Vec::new();
        let typed = self.step.signature(inputs).map_err(|error| problems.push(error)).ok();
        let schema = crate::columns::only(inputs)?;
        let mut column = |name: &str, fits: fn(&DataType) -> bool, wanted: &str| {
            let Some((at, field)) = schema.column_with_name(name) else {
                problems.push(unknown_column(name, schema));
                return 0;
            };
            if !fits(field.data_type()) {
                let problem = format!("column `{name}` is {}; it must be {wanted}", field.data_type());
                problems.push(SchemaError::new(problem));
            }
            at
        };
        let is_id =
            |kind: &DataType| kind.is_integer() || matches!(kind, DataType::Utf8 | DataType::LargeUtf8);
        let is_flag = |kind: &DataType| *kind == DataType::Boolean;
        let id = column(&self.id, is_id, "a text or a whole number");
        let start = self.start.as_deref().map(|name| column(name, is_flag, "a truth value"));
        let end = self.end.as_deref().map(|name| column(name, is_flag, "a truth value"));
        SchemaError::collect(problems)?;
        let Some(typed) = typed else { return Err(SchemaError::new("the step cannot be typed")) };
        // Compile types a step once; the first plan stays.
        let _ = self.plan.set(Plan { id, start, end });
        let outputs = typed.outputs;
        // A row that is run twice leaves another state.
        Ok(Signature::ports(outputs).with_effect(Effect::Once))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let (rows, plan) = match (input.rows(0), self.plan.get()) {
            (Ok(rows), Some(plan)) => (rows, *plan),
            (Err(error), _) => return Work::Done(Err(error)),
            (_, None) => return Work::Done(Err(StepError::internal("the step has not been typed"))),
        };
        let pass = self.step.job().and_then(|one| Pass::new(&self.shared, rows, plan, one));
        let mut pass = match pass {
            Ok(pass) => Box::new(pass),
            Err(error) => return Work::Done(Err(error)),
        };
        let Some(sequence) = pass.next_turn() else { return Work::Done(pass.output()) };
        // Most requests have one row, whose sequence is nobody else's: what is cheap stays inline.
        match Arc::clone(&sequence).try_lock_owned() {
            Ok(turn) if pass.rows.len() == 1 => {
                Work::Compute(Box::new(move || pass.advance(turn).and_then(|_| pass.output())))
            }
            _ => Work::Io(Box::pin(pass.run(sequence, cx))),
        }
    }
}

/// Whose rows are.
struct Ids {
    ids: ArrayRef,
    start: Option<BooleanArray>,
    end: Option<BooleanArray>,
}

impl Ids {
    fn of(rows: &Rows, plan: Plan) -> Result<Self, StepError> {
        let batch = rows.batch();
        let flag = |at: Option<usize>| at.map(|at| batch.column(at).as_boolean().clone());
        let ids = cast(batch.column(plan.id), &DataType::Utf8)?;
        Ok(Self { ids, start: flag(plan.start), end: flag(plan.end) })
    }

    fn id(&self, row: usize) -> Option<&str> {
        let ids: &StringArray = self.ids.as_string();
        ids.is_valid(row).then(|| ids.value(row))
    }

    fn starts(&self, row: usize) -> bool {
        self.start.as_ref().is_some_and(|start| start.is_valid(row) && start.value(row))
    }

    fn ends(&self, row: usize) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_valid(row) && end.value(row))
    }
}
