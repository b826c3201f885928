//! Steps that call out over HTTP: `remote` asks per row or per batch and adds the answer's columns, `post` sends what it gets.
//!
//! `endpoint.rs` says where calls go and how, and types them; `calls.rs` makes as many as some rows need; `call.rs` is a step that
//! makes one, around which the runtime's layers give it its time, its turn, further attempts and a breaker; `client.rs` has the
//! connections.

mod body;
mod call;
mod calls;
mod client;
mod endpoint;
mod settings;
mod template;
mod url;

use std::sync::{Arc, OnceLock};

use arrow::{
    array::RecordBatch,
    compute::concat_batches,
    datatypes::{FieldRef, Fields, Schema, SchemaRef},
};
use millstream_graph::{
    Input, Origin, OutPort, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};

use calls::{Answers, Calls};
pub(crate) use client::{Client, Trust};
pub use endpoint::Endpoint;
pub(crate) use settings::kinds;

use crate::outside::Outside;

/// Asks a service per row, or per batch of rows, and adds the columns of its answer.
///
/// A row that the service refuses (a status 4xx) leaves on the error port; whatever else goes wrong fails the step: 429 as
/// overloaded, 5xx and no connection as unavailable, an answer that cannot be read as internal. Rows keep their order.
///
/// ```
/// use millstream_graph::{Graph, fields};
/// use millstream_serve::{Outside, remote::{Endpoint, Remote}};
///
/// let outside = Outside::new("path/of/the/project");
/// let mut graph = Graph::new("score", fields! { user_id: Int64 });
/// let user = Endpoint::new("GET", "http://127.0.0.1:9000/users/{user_id}");
/// let user = Remote::new(&outside, user).output(&fields! { country: Utf8, age: Int64 });
/// let user = graph.step("user", &graph.input(), user);
/// graph.respond(&user);
/// assert_eq!(graph.compile()?.reply_schema().fields().len(), 3);
/// # Ok::<(), millstream_graph::CompileErrors>(())
/// ```
pub struct Remote {
    outside: Arc<Outside>,
    endpoint: Endpoint,
    output: body::Output,
    typed: OnceLock<Typed>,
}

struct Typed {
    calls: Calls,
    schema: SchemaRef,
}

impl Remote {
    /// Asks an endpoint. Without [`output`](Self::output), only the status of an answer counts.
    pub fn new(outside: &Arc<Outside>, endpoint: Endpoint) -> Self {
        Self { outside: Arc::clone(outside), endpoint, output: nothing(), typed: OnceLock::new() }
    }

    /// The columns that an answer has, which are added behind those that came in. An answer may have more; one that may be null
    /// may be missing.
    #[must_use]
    pub fn output(mut self, schema: &Schema) -> Self {
        self.output.columns = schema.fields().clone();
        self
    }

    /// Declares that an answer is the value of the one column, such as `[0.2, 0.8]`, and not an object that has it.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.output.bare = true;
        self
    }

    fn type_for(&self, input: &SchemaRef) -> Result<Typed, SchemaError> {
        let twice =
            self.output.columns.iter().filter(|field| input.column_with_name(field.name()).is_some()).map(
                |field| {
                    let problem = format!("column `{}` is there already; rename it in front", field.name());
                    SchemaError::new(problem)
                },
            );
        let mut problems: Vec<_> = twice.collect();
        let calls = self.endpoint.typed(&self.outside, input, &self.output);
        let calls = calls.map_err(|error| problems.push(error)).ok();
        SchemaError::collect(problems)?;
        let calls = calls.ok_or_else(|| SchemaError::new("the call cannot be made"))?;
        let fields: Vec<FieldRef> =
            input.fields().iter().chain(self.output.columns.iter()).cloned().collect();
        Ok(Typed { calls, schema: Arc::new(Schema::new_with_metadata(fields, input.metadata().clone())) })
    }
}

impl Step for Remote {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let input = single(inputs)?;
        let typed = keep(&self.typed, input, self.type_for(input)?, |typed| &typed.calls.input)?;
        Ok(Signature::row_wise(Arc::clone(&typed.schema)).with_effect(typed.calls.effect))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let (Ok(rows), Some(typed)) = (input.rows(0), self.typed.get()) else {
            return Work::Done(Err(untyped()));
        };
        Work::Io(Box::pin(async move { typed.answered(typed.calls.make(&rows, cx).await?) }))
    }
}

impl Typed {
    /// The rows that were answered with their answers, beside those that were refused.
    fn answered(&self, answers: Answers) -> StepResult {
        let mut output = Output::none();
        if !answers.good.is_empty() {
            let asked = concat_batches(&self.calls.input, answers.good.iter().map(|(rows, _)| rows.batch()))?;
            let answer =
                concat_batches(&self.calls.answer, answers.good.iter().map(|(_, rows)| rows.batch()))?;
            let columns = asked.columns().iter().chain(answer.columns()).cloned().collect();
            let origin = joined(answers.good.iter().map(|(rows, _)| rows));
            output = Output::one(Rows::with_origin(
                RecordBatch::try_new(Arc::clone(&self.schema), columns)?,
                origin,
            ));
        }
        Ok(match answers.failed {
            Some(failed) => output.with_failed(failed),
            None => output,
        })
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.endpoint).finish()
    }
}

/// Where rows stood, part behind part.
fn joined<'r>(parts: impl Iterator<Item = &'r Rows> + Clone) -> Origin {
    if let (Some(one), None) = (parts.clone().next(), parts.clone().nth(1)) {
        return one.origin().clone();
    }
    let places = parts.flat_map(|rows| (0..rows.len()).map(|row| rows.origin().place(row)));
    places.collect::<Option<Vec<u32>>>().map_or(Origin::Lost, |places| Origin::Picked(places.into()))
}

/// Sends the rows that it gets, and answers nothing: for what happens after the reply.
///
/// ```
/// use millstream_graph::{Graph, fields};
/// use millstream_serve::{Outside, remote::{Endpoint, Post}};
///
/// let outside = Outside::new("path/of/the/project");
/// let mut graph = Graph::new("score", fields! { score: Float64 });
/// graph.respond(&graph.input());
/// let hook = Endpoint::new("POST", "http://127.0.0.1:9000/scores").rows(1000);
/// graph.step("told", &graph.input(), Post::new(&outside, hook));
/// assert!(graph.compile()?.has_tail());
/// # Ok::<(), millstream_graph::CompileErrors>(())
/// ```
pub struct Post {
    outside: Arc<Outside>,
    endpoint: Endpoint,
    typed: OnceLock<Calls>,
}

impl Post {
    /// Sends rows to an endpoint, as many per call as it says; what it answers is not looked at beyond the status.
    pub fn new(outside: &Arc<Outside>, endpoint: Endpoint) -> Self {
        Self { outside: Arc::clone(outside), endpoint, typed: OnceLock::new() }
    }
}

impl Step for Post {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let input = single(inputs)?;
        let calls = self.endpoint.typed(&self.outside, input, &nothing())?;
        let calls = keep(&self.typed, input, calls, |calls| &calls.input)?;
        Ok(Signature::ports(Vec::<OutPort>::new()).with_effect(calls.effect))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let (Ok(rows), Some(calls)) = (input.rows(0), self.typed.get()) else {
            return Work::Done(Err(untyped()));
        };
        Work::Io(Box::pin(async move {
            let failed = calls.make(&rows, cx).await?.failed;
            Ok(failed.map_or_else(Output::none, |failed| Output::none().with_failed(failed)))
        }))
    }
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Post").field(&self.endpoint).finish()
    }
}

/// An answer that is not looked at.
fn nothing() -> body::Output {
    body::Output { columns: Fields::empty(), bare: false }
}

/// The one schema of a step with one in-port.
pub(crate) fn single(inputs: &[SchemaRef]) -> Result<&SchemaRef, SchemaError> {
    match inputs {
        [one] => Ok(one),
        _ => Err(SchemaError::new(format!("it takes one input, not {}", inputs.len()))),
    }
}

/// Keeps what a step was typed as, which must not change.
pub(crate) fn keep<'t, T>(
    place: &'t OnceLock<T>,
    input: &SchemaRef,
    typed: T,
    input_of: impl Fn(&T) -> &SchemaRef,
) -> Result<&'t T, SchemaError> {
    let kept = place.get_or_init(|| typed);
    if input_of(kept) != input {
        return Err(SchemaError::new(
            "this step is in use with another schema; make one step for each place",
        ));
    }
    Ok(kept)
}

pub(crate) fn untyped() -> StepError {
    StepError::internal("the step runs before it was typed")
}
