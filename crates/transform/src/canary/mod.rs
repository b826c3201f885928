//! `canary`: a new step takes a part of the rows of another, and none any more once it is worse.

mod answer;
mod compare;
mod plan;
mod seen;
mod settings;
mod tally;
mod waits;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_graph::{Input, RunCx, SchemaError, Signature, Step, StepResult, Token, Work};
use smallvec::smallvec;

use crate::nested::Typed;
use plan::Plan;
use seen::Seen;
pub use settings::canary_layer;
use waits::Who;

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
        self.seen.over()
    }
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
        let ways = if plan.part > 0.0 && self.seen.over().is_none() {
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
