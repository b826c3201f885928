//! The step that runs a model over its rows.

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Schema, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    ErrorKind, FailedRows, Input, Narrow, Output, Rows, RunCx, SchemaError, Signature, Step, StepError,
    StepResult, Work,
};
use smallvec::SmallVec;

use crate::{
    Columns, Keep, Model, ModelError, Nulls, Pick, Tensor,
    columns::only,
    inputs::{self, Faults, InputPlan},
    outputs::{self, OutputPlan},
};

/// Runs a model over its rows and adds the model's outputs as columns.
///
/// Which columns make up an input is declared with [`input`](Self::input), or found by name. Numbers are turned into
/// the type that the model takes: whole numbers must fit, floats are rounded to the nearest, and a row with a value
/// that fits neither way fails alone, as does a row with a null (see [`nulls`](Self::nulls)).
///
/// A model takes any number of rows per call, or a fixed number, which its inputs' first dimension says; rows are cut
/// into calls of that size, and the last row is repeated to fill up the last call. Rows of lists of different lengths
/// go in one call per length.
pub struct ModelStep {
    model: Arc<dyn Model>,
    inputs: IndexMap<String, Columns>,
    outputs: IndexMap<String, Pick>,
    keep: Keep,
    nulls: Nulls,
    problems: Vec<SchemaError>,
    plan: OnceLock<Arc<Plan>>,
}

impl ModelStep {
    /// A step that takes each input from the column of the same name, and adds every output under its own name.
    pub fn new(model: Arc<dyn Model>) -> Self {
        Self {
            model,
            inputs: IndexMap::new(),
            outputs: IndexMap::new(),
            keep: Keep::All,
            nulls: Nulls::Error,
            problems: Vec::new(),
            plan: OnceLock::new(),
        }
    }

    /// Makes input `input` of the model out of `columns`: one column, or several side by side.
    #[must_use]
    pub fn input(mut self, input: impl Into<String>, columns: impl Into<Columns>) -> Self {
        self.inputs.insert(input.into(), columns.into());
        self
    }

    /// Adds a column `column` that is the output, or the part of an output, that `pick` says: `probabilities[1]`.
    /// With it, only the declared outputs become columns.
    #[must_use]
    pub fn output(mut self, column: impl Into<String>, pick: &str) -> Self {
        match pick.parse() {
            Ok(pick) => {
                self.outputs.insert(column.into(), pick);
            }
            Err(error) => self.problems.push(SchemaError::new(error.to_string())),
        }
        self
    }

    /// Which of the columns that come in are passed on; all, unless this says otherwise.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// What happens to a row with a null in a column that the model takes.
    #[must_use]
    pub fn nulls(mut self, nulls: Nulls) -> Self {
        self.nulls = nulls;
        self
    }

    /// What runs rows on a thread for jobs, once the step is typed: for a step around this one.
    pub(crate) fn job(&self) -> Result<impl Fn(&Rows) -> StepResult + Send + 'static, StepError> {
        let plan = self.plan.get().map(Arc::clone);
        let plan = plan.ok_or_else(|| StepError::internal("the step has not been typed"))?;
        Ok(move |rows: &Rows| plan.run(rows))
    }

    /// The same step, not typed yet.
    fn untyped(&self) -> Self {
        Self {
            model: Arc::clone(&self.model),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            keep: self.keep.clone(),
            nulls: self.nulls,
            problems: self.problems.clone(),
            plan: OnceLock::new(),
        }
    }

    pub(crate) fn with_settings(
        mut self,
        inputs: IndexMap<String, Columns>,
        outputs: IndexMap<String, Pick>,
    ) -> Self {
        (self.inputs, self.outputs) = (inputs, outputs);
        self
    }
}

impl Step for ModelStep {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let schema = only(inputs)?;
        let info = self.model.info();
        let mut errors = self.problems.clone();
        let inputs =
            inputs::compile(info, &self.inputs, self.nulls, schema).map_err(|error| errors.push(error)).ok();
        let outputs = outputs::compile(info, &self.outputs).map_err(|error| errors.push(error)).ok();
        let kept = self.keep.indices(schema).map_err(|error| errors.push(error)).ok();
        let (Some(inputs), Some(outputs), Some(kept)) = (inputs, outputs, kept) else {
            return SchemaError::collect(errors).and(Err(SchemaError::new("the step cannot be typed")));
        };
        let mut fields: Vec<_> = kept.iter().map(|&column| Arc::clone(&schema.fields()[column])).collect();
        for field in outputs.fields() {
            if fields.iter().any(|known| known.name() == field.name()) {
                errors.push(SchemaError::new(format!(
                    "output column `{0}` is there already; name it otherwise in `outputs`, or leave `{0}` out with `keep`",
                    field.name()
                )));
            }
            fields.push(Arc::new(field));
        }
        SchemaError::collect(errors)?;
        let output = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let mut reads = self.keep.named(&kept);
        reads.extend(inputs.reads());
        let handed_on = kept.clone();
        let plan =
            Plan { model: Arc::clone(&self.model), inputs, outputs, kept, schema: Arc::clone(&output) };
        // Compile types a step once; the first plan stays.
        let _ = self.plan.set(Arc::new(plan));
        let step = self.untyped();
        let narrow = Narrow::new([reads], move |_| step.untyped()).handing_on(handed_on);
        Ok(Signature::row_wise(output).narrowing(narrow))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let (rows, plan) = match (input.rows(0), self.plan.get()) {
            (Ok(rows), Some(plan)) => (rows, Arc::clone(plan)),
            (Err(error), _) => return Work::Done(Err(error)),
            (_, None) => return Work::Done(Err(StepError::internal("the step has not been typed"))),
        };
        Work::Compute(Box::new(move || plan.run(&rows)))
    }
}

/// Everything that is known once the schema is.
struct Plan {
    model: Arc<dyn Model>,
    inputs: InputPlan,
    outputs: OutputPlan,
    kept: Vec<usize>,
    schema: SchemaRef,
}

/// Why a batch could not be run as it is.
enum Failure {
    /// Some of its rows cannot be turned into tensors.
    Rows(Faults),
    Whole(StepError),
}

impl Plan {
    fn run(&self, rows: &Rows) -> StepResult {
        match self.try_run(rows.batch()) {
            Ok(batch) => rows.replace(batch).map(Output::one),
            Err(Failure::Whole(error)) => Err(error),
            Err(Failure::Rows(faults)) => self.run_without(rows, faults),
        }
    }

    /// Runs the good rows, and sends the others to the error port.
    fn run_without(&self, rows: &Rows, mut faults: Faults) -> StepResult {
        let mut good: Vec<u32> = (0..rows.len() as u32).collect();
        let mut bad: Vec<(u32, String)> = Vec::new();
        // Lists that make no tensor hide the nulls inside them, so a second round may find more.
        let answered = loop {
            let found = faults.into_rows();
            bad.extend(found.iter().map(|(row, reason)| (good[*row], reason.clone())));
            let mut found = found.iter().map(|(row, _)| *row).peekable();
            let mut at = 0..good.len();
            good.retain(|_| at.next().is_some_and(|at| found.next_if_eq(&at).is_none()));
            if good.is_empty() {
                break None;
            }
            let left = rows.take(&good)?;
            match self.try_run(left.batch()) {
                Ok(batch) => break Some(left.replace(batch)?),
                Err(Failure::Whole(error)) => return Err(error),
                Err(Failure::Rows(more)) => faults = more,
            }
        };
        bad.sort_by_key(|(row, _)| *row);
        let (bad, messages): (Vec<u32>, Vec<String>) = bad.into_iter().unzip();
        let failed = FailedRows { rows: rows.take(&bad)?, messages };
        Ok(answered.map_or_else(Output::none, Output::one).with_failed(failed))
    }

    fn try_run(&self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let rows = batch.num_rows();
        let whole = |error: ModelError| Failure::Whole(self.failed(error));
        let columns = self.inputs.columns(batch.columns()).map_err(|error| whole(error.into()))?;
        let mut faults = Faults::default();
        let calls = self.inputs.calls(&columns, rows, &mut faults);
        let mut made = SmallVec::<[_; 1]>::new();
        if faults.is_empty() {
            made.extend(calls.iter().map(|rows| self.inputs.make(&columns, rows, &mut faults)));
        }
        if !faults.is_empty() {
            return Err(Failure::Rows(faults));
        }
        let mut answer = self.outputs.start(rows);
        for (rows, made) in calls.iter().zip(&made) {
            let tensors: SmallVec<[Tensor<'_>; 2]> =
                made.iter().map(|made| Tensor { shape: &made.shape, data: made.values.data() }).collect();
            let called = made.first().and_then(|made| made.shape.first()).copied().unwrap_or(rows.len());
            let mut read = |values: &[crate::Value<'_>]| answer.append(values, rows.len(), called);
            self.model.run(&tensors, self.outputs.wanted(), &mut read).map_err(whole)?;
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        columns.extend(self.kept.iter().map(|&column| Arc::clone(batch.column(column))));
        for column in answer.finish() {
            columns.push(column.map_err(|error| whole(error.into()))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| whole(error.into()))
    }

    fn failed(&self, error: ModelError) -> StepError {
        StepError::new(ErrorKind::Internal, format!("model `{}` failed", self.model.info().name))
            .with_source(error)
    }
}
