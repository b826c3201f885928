//! `quorum`: several steps see the same rows, and the answer comes as soon as enough of them have answered.

mod vote;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array, new_null_array},
    compute::take,
    datatypes::{FieldRef, Schema, SchemaRef},
};
use futures_util::{StreamExt, future::Either, stream::FuturesUnordered};
use indexmap::IndexMap;
use millstream_graph::{
    Effect, FailedRows, Input, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step,
    StepError, StepResult, Work,
    spec::{Kinds, StepKind},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::nested::{self, Typed};
use vote::{Vote, Votes};

/// Several steps, of which so many must answer. Each sees the same rows and adds columns; those of steps that have not answered when
/// enough others have are null. What they still do is given up.
///
/// A step that fails leaves its columns null too, and the reply says so; without enough answers to any row, this step fails as the
/// last of them did. A row that fewer have answered than are needed fails alone. What a step makes of columns that came in is
/// dropped: each adds columns of its own.
///
/// An [ensemble](https://docs.rs/millstream-models) behind it makes one answer of them, without those that are missing. When that is a
/// majority vote, the steps may [vote](Self::voting): no more of them are waited for than it takes to know who wins.
///
/// ```
/// use millstream_transform::{Quorum, With};
/// let step = Quorum::of(2)
///     .step("low", With::new().column("low", "amount * 0.1"))
///     .step("high", With::new().column("high", "amount * 0.2"))
///     .step("flat", With::new().column("flat", "0.5"));
/// let vote = Quorum::voting([("low", 1.0), ("high", 1.0)])
///     .step("low", With::new().column("low", "amount > 10"))
///     .step("high", With::new().column("high", "amount > 20"));
/// # let _ = (step, vote);
/// ```
#[derive(Default)]
pub struct Quorum {
    need: Option<usize>,
    vote: Option<Vec<(String, f64)>>,
    steps: Vec<(String, Arc<dyn Step>)>,
    plan: Typed<Plan>,
}

/// Asks several steps at once, and answers as soon as enough of them have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QuorumSettings {
    /// How many must answer. It may be left out beside `vote`: then the vote alone ends the waiting, and a row that one has answered is good.
    need: Option<usize>,
    /// The columns of the steps that a majority vote behind it is made of, with the same weights as there. The rest is given up, even before
    /// so many have answered, once it cannot change the vote of any row.
    vote: Option<VoteMembers>,
    /// The steps, by names of your choice: each a map of its kind to its settings, with layers beside it.
    steps: IndexMap<String, BTreeMap<String, Value>>,
}

/// Columns with their weights, or a list of columns that weigh the same.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "columns with weights, or a list of columns")]
enum VoteMembers {
    Alike(Vec<String>),
    Weighted(IndexMap<String, f64>),
}

impl From<VoteMembers> for Vec<(String, f64)> {
    fn from(members: VoteMembers) -> Self {
        match members {
            VoteMembers::Alike(members) => members.into_iter().map(|member| (member, 1.0)).collect(),
            VoteMembers::Weighted(members) => members.into_iter().collect(),
        }
    }
}

/// The kind `quorum`, whose steps are of these kinds.
pub fn quorum_kind(kinds: Kinds) -> StepKind {
    StepKind::new("quorum", move |settings: QuorumSettings| {
        let vote = settings.vote.map(Vec::from);
        let mut quorum = Quorum { need: settings.need, vote, ..Quorum::default() };
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
    output: SchemaRef,
    /// By step, where the columns that it adds stand in its own answer, and what they are.
    added: Vec<Added>,
    vote: Option<Vote>,
}

/// The columns that one step adds, and where each stands in its answer.
type Added = Vec<(usize, FieldRef)>;

impl Quorum {
    /// A quorum of so many, of no steps yet.
    pub fn of(need: usize) -> Self {
        Self { need: Some(need), ..Self::default() }
    }

    /// A quorum of no steps yet that answers once the vote is decided, or all have answered. See [`Self::vote`].
    pub fn voting<N: Into<String>>(members: impl IntoIterator<Item = (N, f64)>) -> Self {
        Self::default().vote(members)
    }

    /// Answers before so many have, once the rest cannot change the majority vote that an ensemble makes of these columns with these
    /// weights. Every step adds at least one of them. A step that fails might vote too, since the ensemble may replace what it lacks.
    #[must_use]
    pub fn vote<N: Into<String>>(mut self, members: impl IntoIterator<Item = (N, f64)>) -> Self {
        self.vote = Some(members.into_iter().map(|(member, weight)| (member.into(), weight)).collect());
        self
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
        let mut problems: Vec<SchemaError> = self.miscounted().map(SchemaError::new).into_iter().collect();
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
            let (own, unfit) = added_by(&out.schema, input, &fields);
            problems.extend(unfit.iter().map(|problem| told(problem)));
            fields.extend(own.iter().map(|(_, field)| Arc::clone(field)));
            added.push(own);
        }
        SchemaError::collect(problems)?;
        let names: Vec<&str> = self.steps.iter().map(|(name, _)| name.as_str()).collect();
        let vote = self.vote.as_ref().map(|members| Vote::new(members, &names, &added)).transpose()?;
        let output: SchemaRef = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let signature = Signature::ports(vec![OutPort::new("out", Arc::clone(&output), RowFlow::Same)]);
        let plan = Plan { output, added, vote };
        Ok((plan, signature.with_effect(effect).lining_up()))
    }

    /// What is wrong with how many must answer.
    fn miscounted(&self) -> Option<String> {
        let steps = self.steps.len();
        match self.need {
            None if self.vote.is_none() => {
                Some("it has neither `need`, how many must answer, nor a `vote` of their columns".to_owned())
            }
            None if steps == 0 => Some("it has no steps".to_owned()),
            Some(need) if need == 0 || need > steps => Some(format!("`need` is {need}, of {steps} steps")),
            _ => None,
        }
    }

    async fn settle(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let mut gathered = Gathered::new(&rows, self.need, self.steps.len(), plan.vote.as_ref());
        let mut waits = FuturesUnordered::new();
        for (at, (_, step)) in self.steps.iter().enumerate() {
            match nested::call(&**step, rows.clone(), cx) {
                Work::Done(answer) => gathered.put(at, answer)?,
                Work::Io(answer) => waits.push(Either::Left(async move { (at, answer.await) })),
                Work::Compute(job) => waits.push(Either::Right(async move { (at, cx.compute(job).await) })),
            }
            // Those behind need not begin.
            if gathered.is_enough() {
                break;
            }
        }
        while !gathered.is_enough()
            && let Some((at, answer)) = waits.next().await
        {
            gathered.put(at, answer)?;
        }
        // What is not over is given up here.
        drop(waits);
        plan.answer(gathered, &self.steps)
    }
}

/// The columns of a step's answer that are neither those that came in nor known already, and what is wrong with others.
fn added_by(out: &Schema, input: &Schema, known: &[FieldRef]) -> (Added, Vec<String>) {
    let (mut added, mut problems) = (Added::new(), Vec::new());
    for (at, field) in out.fields().iter().enumerate() {
        let mut there = known.iter().chain(added.iter().map(|(_, field)| field));
        let twice = there.any(|known| known.name() == field.name());
        match input.field_with_name(field.name()) {
            // What it hands on is there already.
            Ok(known) if known.data_type() == field.data_type() => {}
            Ok(_) => problems.push(format!("it changes the type of column `{}`", field.name())),
            Err(_) if twice => problems.push(format!("another adds a column `{}` too", field.name())),
            Err(_) => added.push((at, Arc::new(field.as_ref().clone().with_nullable(true)))),
        }
    }
    (added, problems)
}

/// What has been answered so far.
struct Gathered<'r> {
    rows: &'r Rows,
    /// After so many answers to a row, or once its vote is decided, no more are waited for.
    enough: usize,
    /// With fewer answers a row fails, unless its vote is decided.
    need: usize,
    votes: Option<Votes<'r>>,
    /// So many rows, from the first on, are known to have been answered enough.
    settled: usize,
    /// By step, its answer, and which of the rows those of the answer are.
    answers: Vec<Option<(Rows, Vec<usize>)>>,
    /// By row, how many steps have answered it, and why one has not.
    counts: Vec<usize>,
    messages: Vec<Option<String>>,
    errors: Vec<(usize, StepError)>,
    notes: Vec<(usize, Box<str>)>,
}

impl<'r> Gathered<'r> {
    fn new(rows: &'r Rows, need: Option<usize>, steps: usize, vote: Option<&'r Vote>) -> Self {
        Self {
            rows,
            enough: need.unwrap_or(steps),
            need: need.unwrap_or(1),
            votes: vote.map(Votes::new),
            settled: 0,
            answers: vec![None; steps],
            counts: vec![0; rows.len()],
            messages: vec![None; rows.len()],
            errors: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn put(&mut self, at: usize, answer: StepResult) -> Result<(), StepError> {
        let output = match answer {
            Ok(output) => output,
            Err(error) => {
                self.errors.push((at, error));
                return Ok(());
            }
        };
        let (ports, failed, degraded) = output.into_parts();
        self.notes.extend(degraded.map(|reason| (at, reason)));
        if let Some((_, answered)) = ports.into_iter().next() {
            let which = which(self.rows, &answered)?;
            which.iter().for_each(|row| self.counts[*row] += 1);
            if let Some(votes) = &mut self.votes {
                votes.put(at, &answered, &which, self.rows.len())?;
            }
            self.answers[at] = Some((answered, which));
        }
        if let Some(failed) = failed {
            for (row, message) in which(self.rows, &failed.rows)?.into_iter().zip(failed.messages) {
                self.messages[row] = Some(message);
            }
        }
        Ok(())
    }

    /// Whether each row has been answered as often as is needed, or as its vote needs. What is settled once stays so: no row is
    /// looked at again.
    fn is_enough(&mut self) -> bool {
        while self.settled < self.rows.len()
            && (self.counts[self.settled] >= self.enough || self.is_decided(self.settled))
        {
            self.settled += 1;
        }
        self.settled == self.rows.len()
    }

    fn is_decided(&self, row: usize) -> bool {
        self.votes.as_ref().is_some_and(|votes| votes.is_decided(row))
    }

    /// Whether a row is good, when no more answers come.
    fn is_good(&self, row: usize) -> bool {
        row < self.settled || self.counts[row] >= self.need || self.is_decided(row)
    }
}

/// Which of the rows those of a part are, which are in the same order.
fn which(rows: &Rows, part: &Rows) -> Result<Vec<usize>, StepError> {
    if part.len() == rows.len() {
        return Ok((0..rows.len()).collect());
    }
    let mut next = 0;
    let mut which = Vec::with_capacity(part.len());
    for row in 0..part.len() {
        while next < rows.len() && rows.origin().place(next) != part.origin().place(row) {
            next += 1;
        }
        if next == rows.len() || part.origin().place(row).is_none() {
            return Err(StepError::internal("rows lost their place"));
        }
        which.push(next);
        next += 1;
    }
    Ok(which)
}

impl Plan {
    fn answer(&self, gathered: Gathered<'_>, steps: &[(String, Arc<dyn Step>)]) -> StepResult {
        let (good, bad): (Vec<u32>, Vec<u32>) =
            (0..gathered.rows.len() as u32).partition(|row| gathered.is_good(*row as usize));
        let Gathered { rows, need, answers, mut messages, mut errors, notes, .. } = gathered;
        if good.is_empty()
            && let Some((_, error)) = errors.pop()
        {
            return Err(error);
        }
        let mut output = Output::none();
        if !good.is_empty() {
            let mut columns = rows.batch().columns().to_vec();
            for (added, answer) in self.added.iter().zip(&answers) {
                for (at, field) in added {
                    columns.push(match answer {
                        Some((answer, which)) => in_place(answer.batch().column(*at), which, rows.len())?,
                        None => new_null_array(field.data_type(), rows.len()),
                    });
                }
            }
            let all = rows.replace(RecordBatch::try_new(Arc::clone(&self.output), columns)?)?;
            output = Output::one(if bad.is_empty() { all } else { all.take(&good)? });
        }
        if !bad.is_empty() {
            let told = |row: &u32| {
                let message = messages[*row as usize].take();
                message.unwrap_or_else(|| format!("fewer than {need} of the steps have answered it"))
            };
            let messages = bad.iter().map(told).collect();
            output = output.with_failed(FailedRows { rows: rows.take(&bad)?, messages });
        }
        let name = |at: &usize| steps[*at].0.as_str();
        let failed = errors.iter().map(|(at, _)| format!("{} failed", name(at)));
        let reasons: Vec<String> =
            failed.chain(notes.iter().map(|(at, note)| format!("{}: {note}", name(at)))).collect();
        Ok(if reasons.is_empty() { output } else { output.degraded(reasons.join(", ")) })
    }
}

/// A column of an answer, with a null where a row was not answered.
fn in_place(column: &ArrayRef, which: &[usize], rows: usize) -> Result<ArrayRef, StepError> {
    if which.len() == rows {
        return Ok(Arc::clone(column));
    }
    let mut indices = vec![None; rows];
    which.iter().enumerate().for_each(|(at, row)| indices[*row] = Some(at as u32));
    Ok(take(column, &UInt32Array::from(indices), None)?)
}

impl Step for Quorum {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let (plan, signature) = self.prepare(inputs)?;
        self.plan.keep(&inputs[0], plan)?;
        Ok(signature)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        match self.plan.rows(input) {
            Ok((rows, plan)) => Work::Io(Box::pin(self.settle(plan, rows, cx))),
            Err(error) => Work::Done(Err(error)),
        }
    }
}
