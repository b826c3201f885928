//! `canary`: a new step takes a part of the rows of another, and none any more once it is worse.

mod compare;
mod settings;
mod tally;
mod waits;

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use futures_util::future::join;
use millstream_graph::{
    Effect, ErrorKind, FailedRows, Input, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature,
    Step, StepError, StepResult, Token, Work,
};
use smallvec::{SmallVec, smallvec};

use crate::{
    deal::Dealer,
    nested::{self, Typed},
    prepared::{Layout, LayoutBuilder},
};
pub use settings::canary_layer;
use tally::Tally;
use waits::{Waits, Who};

/// A step, and a new one that takes a part of its rows: always those of the same keys.
///
/// Nobody is harmed by the new one: rows that it fails are answered by the old one, as long as there is time. A step that has not
/// answered when the run's deadline passes has failed its rows; a layer `timeout` around the new one leaves time for the old. Both see the same
/// rows now and then, and the two answers are compared; the caller gets the new one's. Once it is sure that the new
/// one is worse than [`Rollback`] allows, it gets no more rows, and a line in the log says why. It stays so until the step is made
/// anew: a server makes all steps anew when the project is reloaded.
///
/// Both steps take one input, answer on one port, with the same columns, and may be called twice for a row.
///
/// ```
/// use millstream_transform::{Canary, Rollback, With};
/// let old = With::new().column("score", "amount * 0.1");
/// let new = With::new().column("score", "amount * 0.11");
/// let rollback = Rollback { errors: Some(0.01), latency: Some(2.0), disagreement: Some(0.2), ..Rollback::default() };
/// let step = Canary::new(old, new, 5.0).by(["card_id"]).named("arm").rollback(rollback);
/// ```
pub struct Canary {
    old: Arc<dyn Step>,
    new: Arc<dyn Step>,
    percent: f64,
    by: Vec<String>,
    salt: String,
    name: Option<String>,
    rollback: Rollback,
    plan: Typed<Plan>,
    seen: Arc<Seen>,
}

/// When a new step gets no more rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rollback {
    /// How much more of its rows it may fail than the old one does of its own: 0.01 is one in a hundred.
    pub errors: Option<f64>,
    /// How many times as long as the old one it may take, in more than half of the calls that both are given.
    pub latency: Option<f64>,
    /// Of the rows that both are given, how many it may answer in another way: 0.2 is one in five.
    pub disagreement: Option<f64>,
    /// How far two numbers may be from each other that are the same, relative to the old one if that is above 1.
    pub tolerance: f64,
    /// How many of the new one's calls the old one is given too, from 0 to 1, where latency or disagreement count.
    pub compare: f64,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { errors: None, latency: None, disagreement: None, tolerance: 1e-6, compare: 0.1 }
    }
}

/// What is known of both steps so far.
#[derive(Default)]
struct Seen {
    tally: Mutex<Tally>,
    /// Rows of the old step, and those that it failed, since they were last taken into the tally.
    old_rows: AtomicU64,
    old_failed: AtomicU64,
    /// Calls of the new step.
    calls: AtomicU64,
    /// Why the new step gets no more rows.
    over: OnceLock<String>,
}

/// What the two steps answer, typed.
struct Plan {
    dealer: Dealer,
    /// The columns of the answer of either.
    answer: SchemaRef,
    /// The same with the column that names the step.
    layout: Layout,
    named: bool,
    part: f64,
}

impl Canary {
    /// Lets `new` take `percent` of the rows of `old`.
    pub fn new(old: impl Step, new: impl Step, percent: f64) -> Self {
        Self::of(Arc::new(old), Arc::new(new), percent)
    }

    fn of(old: Arc<dyn Step>, new: Arc<dyn Step>, percent: f64) -> Self {
        let (by, salt) = (Vec::new(), String::new());
        Self {
            old,
            new,
            percent,
            by,
            salt,
            name: None,
            rollback: Rollback::default(),
            plan: Typed::default(),
            seen: Arc::default(),
        }
    }

    /// The columns whose values decide: rows with the same go the same way. At least one is needed.
    #[must_use]
    pub fn by<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Deals keys in another way than other canaries do.
    #[must_use]
    pub fn salt(mut self, salt: impl Into<String>) -> Self {
        self.salt = salt.into();
        self
    }

    /// Adds a column of this name, which says who answered a row: `champion` or `canary`.
    #[must_use]
    pub fn named(mut self, column: impl Into<String>) -> Self {
        self.name = Some(column.into());
        self
    }

    /// When the new step gets no more rows; without a rule it keeps its part.
    #[must_use]
    pub fn rollback(mut self, rule: Rollback) -> Self {
        self.rollback = rule;
        self
    }

    /// Why the new step gets no more rows, if that is so.
    pub fn rolled_back(&self) -> Option<&str> {
        self.seen.over.get().map(String::as_str)
    }

    fn prepare(&self, inputs: &[SchemaRef]) -> Result<(Plan, Signature), SchemaError> {
        let [input] = inputs else {
            return Err(SchemaError::new(format!("a canary takes one input, not {}", inputs.len())));
        };
        let mut problems = Vec::new();
        if !(0.0..=100.0).contains(&self.percent) {
            problems.push(SchemaError::new(format!("{} is no percentage from 0 to 100", self.percent)));
        }
        let dealer = Dealer::new(&self.by, &self.salt, input, &mut problems);
        let mut typed = |step: &Arc<dyn Step>, who: &str| match step.signature(inputs) {
            Ok(signature) => Some(signature),
            Err(error) => {
                problems.extend(
                    error.problems().iter().map(|problem| SchemaError::new(format!("{who}{problem}"))),
                );
                None
            }
        };
        let (old, new) = (typed(&self.old, ""), typed(&self.new, "the canary: "));
        let (Some(old), Some(new)) = (old, new) else {
            return Err(SchemaError::collect(problems)
                .err()
                .unwrap_or_else(|| SchemaError::new("it cannot be typed")));
        };
        let (answer, flow) = match same(&old, &new) {
            Ok(same) => same,
            Err(error) => {
                problems.push(error);
                (Arc::clone(input), RowFlow::Same)
            }
        };
        let mut layout = LayoutBuilder::new(&answer);
        if let Some(name) = &self.name {
            layout.append(Arc::new(Field::new(name, DataType::Utf8, false)));
        }
        let layout = layout.finish().map_err(|error| problems.push(error)).ok();
        SchemaError::collect(problems)?;
        let layout = layout.ok_or_else(|| SchemaError::new("no column goes out"))?;
        let out = OutPort::new("out", Arc::clone(layout.schema()), flow);
        let effect = if old.effect == Effect::None { new.effect } else { old.effect };
        let signature = Signature::ports(vec![out]).with_effect(effect).lining_up();
        let (named, part) = (self.name.is_some(), self.percent / 100.0);
        Ok((Plan { dealer, answer, layout, named, part }, signature))
    }

    /// Whether this call of the new step is given to the old one too, and then whether the old one is first.
    fn is_compared(&self) -> Option<bool> {
        let call = self.seen.calls.fetch_add(1, Relaxed);
        let rule = &self.rollback;
        let share = if rule.latency.is_some() || rule.disagreement.is_some() { rule.compare } else { 0.0 };
        let before = (call as f64 * share).floor();
        // In turns, so that neither always finds the threads as the other has left them.
        (before < ((call + 1) as f64 * share).floor()).then_some(before as u64 % 2 == 1)
    }

    /// The answer to rows some of which are the new step's.
    async fn both(&self, plan: &Plan, rows: Rows, ways: &[bool], cx: &RunCx) -> StepResult {
        let pick = |new: bool| {
            let picked = (0..ways.len()).filter(|row| ways[*row] == new);
            picked.map(|row| row as u32).collect::<Vec<u32>>()
        };
        let (of_old, of_new) = (pick(false), pick(true));
        if of_old.is_empty() {
            return self.by_new(plan, rows, cx).await;
        }
        let (old_rows, new_rows) = (rows.take(&of_old)?, rows.take(&of_new)?);
        let (old, new) = join(self.by_old(plan, old_rows, cx), self.by_new(plan, new_rows, cx)).await;
        merged(plan.layout.schema(), [old?, new?])
    }

    async fn by_old(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let waits = self.waits(Who::Old, rows.len(), cx);
        let (answer, _) = timed(&self.old, rows, cx).await;
        waits.answered(&answer);
        plan.told(answer?, "champion")
    }

    /// The old one's answer to rows that the new one has failed, in the time that it has left.
    async fn instead(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let given = rows.len();
        let (answer, _) = timed(&self.old, rows, cx).await;
        self.seen.count_old(given, failed_rows(&answer, given));
        plan.told(answer?, "champion")
    }

    /// A call that begins now, of the step that has all the time there is.
    fn waits(&self, who: Who, given: usize, cx: &RunCx) -> Waits {
        Waits::new(who, given, cx.deadline(), &self.seen, &self.rollback)
    }

    async fn by_new(&self, plan: &Plan, rows: Rows, cx: &RunCx) -> StepResult {
        let given = rows.len();
        let again = rows.clone();
        // One after the other: at the same time, each would be measured with the other's work.
        let compared = self.is_compared();
        let before = match compared {
            Some(true) => Some(timed(&self.old, rows.clone(), cx).await),
            _ => None,
        };
        // What the old one has used up of the time is not held against the new one.
        let waits = before.is_none().then(|| self.waits(Who::New, given, cx));
        let (answer, took) = timed(&self.new, rows.clone(), cx).await;
        let in_time = waits.is_none_or(Waits::was_in_time);
        let late = answer.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::DeadlineExceeded);
        if late && cx.expired() {
            // There is no time left for another answer.
            return plan.told(answer?, "canary");
        }
        let old = match compared {
            Some(false) => Some(timed(&self.old, rows, cx).await),
            _ => before,
        };
        // Whose row it was is not known of requests that share a run: each is run again by itself.
        if cx.is_shared() && answer.is_err() {
            return answer;
        }
        if in_time {
            self.judge(&answer, given, old.as_ref().map(|(old, time)| (old, took, *time)));
        }
        match answer {
            Ok(output) => {
                let (ports, failed, degraded) = output.into_parts();
                let mut good = Output::none();
                for (port, rows) in ports {
                    good = good.with(port, rows);
                }
                if let Some(reason) = degraded {
                    good = good.degraded(reason);
                }
                let good = plan.told(good, "canary")?;
                match failed {
                    None => Ok(good),
                    Some(failed) => {
                        let instead = self.instead(plan, failed.rows, cx).await?;
                        merged(plan.layout.schema(), [good, instead])
                    }
                }
            }
            Err(_) => match old {
                Some((old, _)) => plan.told(old?, "champion"),
                None => self.instead(plan, again, cx).await,
            },
        }
    }

    /// Counts a call of the new step, beside that of the old one if there was one, and sees whether that was enough of it.
    fn judge(&self, new: &StepResult, given: usize, old: Option<(&StepResult, Duration, Duration)>) {
        let failed = failed_rows(new, given);
        let compared = old.and_then(|(old, new_time, old_time)| {
            let (Ok(new), Ok(old)) = (new, old) else { return None };
            let differing = match (new.rows(0), old.rows(0)) {
                (None, None) => Ok(0),
                (Some(rows), None) | (None, Some(rows)) => Ok(rows.len()),
                (Some(new), Some(old)) => compare::differing(new, old, self.rollback.tolerance),
            };
            Some((differing.ok(), new_time, old_time))
        });
        self.seen.count_new(given, failed, compared, &self.rollback);
    }
}

impl Seen {
    /// Counts rows of the new step, those of them that it failed, and how it compares with the old one, where both had them: rows
    /// that differ, and the times of both. Sees whether that was enough of it.
    fn count_new(
        &self,
        given: usize,
        failed: usize,
        compared: Option<(Option<usize>, Duration, Duration)>,
        rule: &Rollback,
    ) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.failed.count(failed, given);
        let old_rows = self.old_rows.swap(0, Relaxed) as usize;
        tally.failed_before.count(self.old_failed.swap(0, Relaxed) as usize, old_rows);
        if let Some((differing, new_time, old_time)) = compared {
            tally.timed(new_time, old_time, rule);
            if let Some(differing) = differing {
                tally.differing.count(differing, given);
            }
        }
        if let Some(why) = tally.judge(rule)
            && self.over.set(why.clone()).is_ok()
        {
            tracing::warn!(why, "a canary gets no more rows");
        }
    }

    fn count_old(&self, given: usize, failed: usize) {
        self.old_rows.fetch_add(given as u64, Relaxed);
        if failed > 0 {
            self.old_failed.fetch_add(failed as u64, Relaxed);
        }
    }
}

impl Plan {
    /// The answer of one of the two steps, as that of both.
    fn told(&self, output: Output, who: &str) -> StepResult {
        let (ports, failed, degraded) = output.into_parts();
        let mut told = Output::none();
        for (_, rows) in ports {
            let (batch, origin) = rows.into_parts();
            // Whatever the two say of their columns beside names and types.
            let batch = RecordBatch::try_new(Arc::clone(&self.answer), batch.columns().to_vec())?;
            let rows = Rows::with_origin(batch, origin);
            let name = self.named.then(|| {
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(who, rows.len()))) as ArrayRef
            });
            told = told.with(0, self.layout.rows(&rows, name.as_slice())?);
        }
        if let Some(failed) = failed {
            told = told.with_failed(*failed);
        }
        Ok(match degraded {
            Some(reason) => told.degraded(reason),
            None => told,
        })
    }
}

/// What both steps answer; they must be alike.
fn same(old: &Signature, new: &Signature) -> Result<(SchemaRef, RowFlow), SchemaError> {
    let ([old_out], [new_out]) = (&old.outputs[..], &new.outputs[..]) else {
        return Err(SchemaError::new("a canary stands beside a step with one port, and has one itself"));
    };
    let mut problems = Vec::new();
    for (signature, who) in [(old, "the step"), (new, "its canary")] {
        if signature.effect == Effect::Once {
            let problem = format!("{who} must happen once per request, and a row may be given to both");
            problems.push(SchemaError::new(problem));
        }
    }
    let row_wise = |flow| matches!(flow, RowFlow::Same | RowFlow::Subset);
    if !(row_wise(old_out.flow) && row_wise(new_out.flow)) {
        problems.push(SchemaError::new("a canary and its step answer row by row"));
    }
    let (old_fields, new_fields) = (old_out.schema.fields(), new_out.schema.fields());
    let told = |schema: &Schema| {
        let fields = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        fields.collect::<Vec<_>>().join(", ")
    };
    let alike = old_fields.len() == new_fields.len()
        && old_fields
            .iter()
            .zip(new_fields)
            .all(|(old, new)| old.name() == new.name() && old.data_type() == new.data_type());
    if !alike {
        let (old, new) = (told(&old_out.schema), told(&new_out.schema));
        problems.push(SchemaError::new(format!("the step answers {old}, but its canary {new}")));
    }
    SchemaError::collect(problems)?;
    let fields = old_fields.iter().zip(new_fields).map(|(old, new)| {
        let nullable = old.is_nullable() || new.is_nullable();
        Arc::new(old.as_ref().clone().with_nullable(nullable))
    });
    let fields: Vec<_> = fields.collect();
    let schema = Schema::new_with_metadata(fields, old_out.schema.metadata().clone());
    let flow = if old_out.flow == new_out.flow { old_out.flow } else { RowFlow::Subset };
    Ok((Arc::new(schema), flow))
}

/// The rows of two answers, in the order of the request.
fn merged(schema: &SchemaRef, outputs: [Output; 2]) -> StepResult {
    let (mut good, mut failed): (SmallVec<[Rows; 2]>, Vec<FailedRows>) = (SmallVec::new(), Vec::new());
    let mut degraded = None;
    for output in outputs {
        let (ports, bad, reason) = output.into_parts();
        good.extend(ports.into_iter().map(|(_, rows)| rows));
        failed.extend(bad.map(|bad| *bad));
        degraded = degraded.or(reason);
    }
    let mut output = if good.is_empty() { Output::none() } else { Output::one(Rows::merge(good, schema)?) };
    let mut failed = failed.into_iter();
    if let Some(mut first) = failed.next() {
        for other in failed {
            let schema = Arc::clone(first.rows.schema());
            let (places, mut messages) = by_place(&first, &other)?;
            first.rows = Rows::merge(smallvec![first.rows, other.rows], &schema)?;
            first.messages = places.into_iter().map(|at| std::mem::take(&mut messages[at])).collect();
        }
        output = output.with_failed(first);
    }
    Ok(match degraded {
        Some(reason) => output.degraded(reason),
        None => output,
    })
}

/// The messages of two, and in which order their rows stand once they are merged.
fn by_place(first: &FailedRows, other: &FailedRows) -> Result<(Vec<usize>, Vec<String>), StepError> {
    let rows = [&first.rows, &other.rows]
        .into_iter()
        .flat_map(|rows| (0..rows.len()).map(|row| rows.origin().place(row)));
    let mut places: Vec<(u32, usize)> = rows
        .enumerate()
        .map(|(at, place)| {
            place.map(|place| (place, at)).ok_or_else(|| StepError::internal("rows lost their place"))
        })
        .collect::<Result<_, _>>()?;
    places.sort_unstable();
    let messages = first.messages.iter().chain(&other.messages).cloned().collect();
    Ok((places.into_iter().map(|(_, at)| at).collect(), messages))
}

fn failed_rows(answer: &StepResult, given: usize) -> usize {
    match answer {
        Ok(output) => output.failed().map_or(0, |failed| failed.rows.len()),
        Err(_) => given,
    }
}

/// What a step answers, and how long that took.
async fn timed(step: &Arc<dyn Step>, rows: Rows, cx: &RunCx) -> (StepResult, Duration) {
    let since = Instant::now();
    let answer = match nested::call(&**step, rows, cx) {
        Work::Done(answer) => answer,
        Work::Io(answer) => answer.await,
        Work::Compute(job) => cx.compute(job).await,
    };
    (answer, since.elapsed())
}

impl Step for Canary {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let (plan, signature) = self.prepare(inputs)?;
        self.plan.keep(&inputs[0], plan)?;
        Ok(signature)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        let (rows, plan) = match self.plan.rows(input) {
            Ok(typed) => typed,
            Err(error) => return Work::Done(Err(error)),
        };
        let ways = if plan.part > 0.0 && self.seen.over.get().is_none() {
            match plan.dealer.places(rows.batch()) {
                Ok(places) => places.into_iter().map(|place| place < plan.part).collect(),
                Err(error) => return Work::Done(Err(error)),
            }
        } else {
            Vec::new()
        };
        if ways.contains(&true) {
            return Work::Io(Box::pin(async move { self.both(plan, rows, &ways, cx).await }));
        }
        // As if there were no canary: what is cheap stays inline.
        let waits = self.waits(Who::Old, rows.len(), cx);
        let told = {
            let plan = Arc::clone(plan);
            move |answer: StepResult| {
                waits.answered(&answer);
                plan.told(answer?, "champion")
            }
        };
        match self.old.call(Input::new(smallvec![Token::Rows(rows)]), cx) {
            Work::Done(answer) => Work::Done(told(answer)),
            Work::Io(answer) => Work::Io(Box::pin(async move { told(answer.await) })),
            Work::Compute(job) => Work::Compute(Box::new(move || told(job()))),
        }
    }
}
