//! `quorum`: several steps see the same rows, and the answer comes as soon as enough of them have answered.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array, new_null_array},
    compute::take,
    datatypes::{FieldRef, Schema, SchemaRef},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use indexmap::IndexMap;
use millstream_graph::{
    Effect, Input, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step, StepError,
    StepResult, Token, Work,
    spec::{Kinds, StepKind},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smallvec::smallvec;

use crate::nested;

/// Several steps, of which so many must answer. Each sees the same rows and adds columns; those of steps that have not answered when
/// enough others have are null. What they still do is given up.
///
/// A step that fails leaves its columns null too, and the reply says so; with fewer answers than are needed, the step fails as the
/// last of them did. So does a row: where a step could not accept it, that step's columns are null in it.
///
/// An [ensemble](https://docs.rs/millstream-models) behind it makes one answer of them, without those that are missing.
///
/// ```
/// use millstream_transform::{Quorum, With};
/// let step = Quorum::of(2)
///     .step("low", With::new().column("low", "amount * 0.1"))
///     .step("high", With::new().column("high", "amount * 0.2"))
///     .step("flat", With::new().column("flat", "0.5"));
/// ```
#[derive(Default)]
pub struct Quorum {
    need: usize,
    steps: Vec<(String, Arc<dyn Step>)>,
    plan: OnceLock<Arc<Plan>>,
}

/// Asks several steps at once, and answers as soon as enough of them have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QuorumSettings {
    /// How many must answer.
    need: usize,
    /// The steps, by names of your choice: each a map of its kind to its settings, with layers beside it.
    steps: IndexMap<String, BTreeMap<String, Value>>,
}

/// The kind `quorum`, whose steps are of these kinds.
pub fn quorum_kind(kinds: Kinds) -> StepKind {
    StepKind::new("quorum", move |settings: QuorumSettings| {
        let mut quorum = Quorum::of(settings.need);
        let mut problems = Vec::new();
        for (name, written) in &settings.steps {
            match nested::step(&kinds, written, &format!("steps.{name}")) {
                Ok(step) => quorum.steps.push((name.clone(), step)),
                Err(error) => problems.push(error),
            }
        }
        SchemaError::collect(problems)?;
        Ok(Arc::new(quorum) as Arc<dyn Step>)
    })
}

/// What goes in and comes out, typed.
struct Plan {
    input: SchemaRef,
    output: SchemaRef,
    /// By step, where the columns that it adds stand in its own answer, and what they are.
    added: Vec<Vec<(usize, FieldRef)>>,
}

impl Quorum {
    /// A quorum of so many, of no steps yet.
    pub fn of(need: usize) -> Self {
        Self { need, ..Self::default() }
    }

    /// Adds a step.
    #[must_use]
    pub fn step(mut self, name: impl Into<String>, step: impl Step) -> Self {
        self.steps.push((name.into(), Arc::new(step)));
        self
    }

    fn prepare(&self, inputs: &[SchemaRef]) -> Result<(Plan, Signature), SchemaError> {
        let [input] = inputs else {
            return Err(SchemaError::new(format!("a quorum takes one input, not {}", inputs.len())));
        };
        let mut problems = Vec::new();
        if self.need == 0 || self.need > self.steps.len() {
            let problem = format!("`need` is {}, of {} steps", self.need, self.steps.len());
            problems.push(SchemaError::new(problem));
        }
        let mut fields: Vec<FieldRef> = input.fields().iter().map(Arc::clone).collect();
        let (mut added, mut effect) = (Vec::new(), Effect::None);
        for (name, step) in &self.steps {
            let told = |problem: &str| SchemaError::new(format!("`{name}`: {problem}"));
            let signature = match step.signature(inputs) {
                Ok(signature) => signature,
                Err(error) => {
                    problems.extend(error.problems().iter().map(|problem| told(problem)));
                    continue;
                }
            };
            if signature.effect == Effect::Once {
                problems.push(told("it must happen once per request, and may be given up here"));
            } else if signature.effect == Effect::Repeatable {
                effect = Effect::Repeatable;
            }
            let [out] = &signature.outputs[..] else {
                problems.push(told("it has more than one port"));
                continue;
            };
            if out.flow != RowFlow::Same {
                problems.push(told("it must answer every row"));
            }
            let mut own = Vec::new();
            for (at, field) in out.schema.fields().iter().enumerate() {
                match input.field_with_name(field.name()) {
                    // What it hands on is there already.
                    Ok(known) if known.data_type() == field.data_type() => {}
                    Ok(_) => {
                        problems.push(told(&format!("it changes the type of column `{}`", field.name())))
                    }
                    Err(_) if fields.iter().any(|known| known.name() == field.name()) => {
                        problems.push(told(&format!("another adds a column `{}` too", field.name())));
                    }
                    Err(_) => {
                        let field = Arc::new(field.as_ref().clone().with_nullable(true));
                        fields.push(Arc::clone(&field));
                        own.push((at, field));
                    }
                }
            }
            added.push(own);
        }
        SchemaError::collect(problems)?;
        let output: SchemaRef = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let signature = Signature::ports(vec![OutPort::new("out", Arc::clone(&output), RowFlow::Same)]);
        let plan = Plan { input: Arc::clone(input), output, added };
        Ok((plan, signature.with_effect(effect)))
    }

    async fn settle(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let mut gathered =
            Gathered { need: self.need, answers: vec![None; self.steps.len()], errors: Vec::new() };
        let mut waits = FuturesUnordered::new();
        for (at, (_, step)) in self.steps.iter().enumerate() {
            match step.call(Input::new(smallvec![Token::Rows(rows.clone())]), cx) {
                Work::Done(answer) => gathered.put(at, answer),
                Work::Io(answer) => {
                    waits.push(futures_util::future::Either::Left(async move { (at, answer.await) }))
                }
                Work::Compute(job) => {
                    waits.push(futures_util::future::Either::Right(
                        async move { (at, cx.compute(job).await) },
                    ));
                }
            }
            // Those behind need not begin.
            if gathered.is_enough() {
                break;
            }
        }
        while !gathered.is_enough()
            && let Some((at, answer)) = waits.next().await
        {
            gathered.put(at, answer);
        }
        // What is not over is given up here.
        drop(waits);
        plan.answer(&rows, gathered, &self.steps)
    }
}

/// What has been answered so far.
struct Gathered {
    need: usize,
    answers: Vec<Option<Rows>>,
    errors: Vec<(usize, StepError)>,
}

impl Gathered {
    fn put(&mut self, at: usize, answer: StepResult) {
        match answer {
            Ok(output) => {
                self.answers[at] = output.rows(0).cloned();
                // Where no row could be accepted, nothing was answered.
                if self.answers[at].is_none() {
                    self.errors.push((at, StepError::internal("it accepted no row")));
                }
            }
            Err(error) => self.errors.push((at, error)),
        }
    }

    fn is_enough(&self) -> bool {
        self.answers.iter().flatten().count() >= self.need
    }
}

impl Plan {
    fn answer(&self, rows: &Rows, gathered: Gathered, steps: &[(String, Arc<dyn Step>)]) -> StepResult {
        let Gathered { need, answers, mut errors } = gathered;
        if answers.iter().flatten().count() < need {
            let none = || StepError::internal("too few steps have answered");
            return Err(errors.pop().map_or_else(none, |(_, error)| error));
        }
        let mut columns = rows.batch().columns().to_vec();
        for (added, answer) in self.added.iter().zip(&answers) {
            for (at, field) in added {
                columns.push(match answer {
                    Some(answer) => in_place(rows, answer, *at)?,
                    None => new_null_array(field.data_type(), rows.len()),
                });
            }
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.output), columns)?;
        let output = Output::one(rows.replace(batch)?);
        let failed: Vec<&str> = errors.iter().map(|(at, _)| steps[*at].0.as_str()).collect();
        Ok(if failed.is_empty() { output } else { output.degraded(format!("{} failed", failed.join(", "))) })
    }
}

/// A column of an answer, with a null where a row was not accepted.
fn in_place(rows: &Rows, answer: &Rows, at: usize) -> Result<ArrayRef, StepError> {
    let column = answer.batch().column(at);
    if answer.len() == rows.len() {
        return Ok(Arc::clone(column));
    }
    let mut next = 0;
    let lost = || StepError::internal("rows lost their place");
    let mut indices = Vec::with_capacity(rows.len());
    for row in 0..rows.len() {
        let place = rows.origin().place(row).ok_or_else(lost)?;
        let there = next < answer.len() && answer.origin().place(next).ok_or_else(lost)? == place;
        indices.push(there.then_some(next as u32));
        next += usize::from(there);
    }
    if next < answer.len() {
        return Err(StepError::internal("rows came back in another order"));
    }
    Ok(take(column, &UInt32Array::from(indices), None)?)
}

impl Step for Quorum {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let (plan, signature) = self.prepare(inputs)?;
        let input = Arc::clone(&plan.input);
        if self.plan.get_or_init(|| Arc::new(plan)).input != input {
            return Err(SchemaError::new(
                "this step is in use with another schema; make one step for each place",
            ));
        }
        Ok(signature)
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let Some(plan) = self.plan.get() else {
            return Work::Done(Err(StepError::internal("the step runs before it was typed")));
        };
        match input.rows(0) {
            Ok(rows) => Work::Io(Box::pin(self.settle(plan, rows, cx))),
            Err(error) => Work::Done(Err(error)),
        }
    }
}
