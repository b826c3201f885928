//! The core trait, what a step takes and answers, and how it is typed.

use std::{any::Any, future::Future, pin::Pin};

use arrow::datatypes::SchemaRef;
use smallvec::SmallVec;

use crate::{EdgeId, Narrow, Rows, RunCx, SchemaError, Share, StepError};

/// What a step answers for one run: rows on some of its out-ports, or one error.
pub type StepResult = Result<Output, StepError>;
/// The rest of a step that waits; polled inside the run and dropped with it.
pub type StepFuture<'a> = Pin<Box<dyn Future<Output = StepResult> + Send + 'a>>;
/// The rest of a step that computes; runs inline when measured cheap, else on the compute pool.
pub type Job = Box<dyn FnOnce() -> StepResult + Send>;

/// A unit of work in a graph, shared by all concurrent runs.
///
/// Retries, timeouts, batching and limits are steps around a step, never methods here.
///
/// ```
/// use millstream_graph::{Input, Output, RunCx, SchemaError, Signature, Step, Work};
/// use arrow::datatypes::SchemaRef;
///
/// /// Hands its rows on unchanged.
/// struct Pass;
///
/// impl Step for Pass {
///     fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
///         Ok(Signature::row_wise(inputs[0].clone()))
///     }
///     fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
///         Work::Done(input.rows(0).map(Output::one))
///     }
/// }
/// ```
pub trait Step: Any + Send + Sync {
    /// Types the step: its output ports and their schemas. Called once, by `Graph::compile`,
    /// with one schema per in-port; the step checks their number.
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError>;

    /// Takes one run's input and says what is left to do. Returns promptly.
    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a>;
}

/// A step that others share is a step, so that layers can stand around one of any type.
impl<S: Step + ?Sized> Step for std::sync::Arc<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        (**self).signature(inputs)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        (**self).call(input, cx)
    }
}

/// What is left to do after [`Step::call`].
pub enum Work<'a> {
    /// Nothing: the step ran inline. No box, no poll, no wake.
    Done(StepResult),
    /// Waiting: polled inside the run, dropped with it.
    Io(StepFuture<'a>),
    /// Computing: inline when measured cheap, else on the pool.
    Compute(Job),
}

/// What an edge carries exactly once per run.
#[derive(Clone, Debug)]
pub enum Token {
    /// At least one row.
    Rows(Rows),
    /// Nothing comes this way in this run.
    Skip,
}

/// One token per in-port of a step, in port order; at least one of them has rows.
#[derive(Clone, Debug)]
pub struct Input {
    tokens: SmallVec<[Token; 1]>,
}

impl Input {
    /// Wraps the tokens that arrived on a step's in-ports, in port order.
    #[inline]
    pub fn new(tokens: SmallVec<[Token; 1]>) -> Self {
        Self { tokens }
    }

    /// Takes the rows of in-port `port`.
    ///
    /// # Errors
    /// When nothing came that way in this run. A step with one in-port never sees that.
    #[inline]
    pub fn rows(&mut self, port: usize) -> Result<Rows, StepError> {
        self.take(port)
            .ok_or_else(|| StepError::internal(format!("in-port {port} carries no rows in this run")))
    }

    /// Takes the rows of in-port `port`, or `None` when it was skipped.
    #[inline]
    pub fn take(&mut self, port: usize) -> Option<Rows> {
        match self.tokens.get_mut(port).map(|token| std::mem::replace(token, Token::Skip)) {
            Some(Token::Rows(rows)) => Some(rows),
            _ => None,
        }
    }

    /// The number of in-ports.
    pub fn ports(&self) -> usize {
        self.tokens.len()
    }

    /// Takes every token, in port order.
    #[inline]
    pub fn into_tokens(self) -> SmallVec<[Token; 1]> {
        self.tokens
    }
}

/// Rows, each with the out-port they leave.
type RowsByPort = SmallVec<[(usize, Rows); 1]>;

/// What a step answers: rows per out-port, rows that failed, and notes on what was degraded.
///
/// An out-port that is not mentioned is skipped: routing, splitting and filtering are this one mechanism.
#[derive(Debug, Default)]
pub struct Output {
    ports: RowsByPort,
    failed: Option<Box<FailedRows>>,
    degraded: Option<Box<str>>,
}

impl Output {
    /// No rows on any port.
    #[inline]
    pub fn none() -> Self {
        Self::default()
    }

    /// Rows on out-port 0. Without rows the port is skipped.
    #[inline]
    pub fn one(rows: Rows) -> Self {
        Self::none().with(0, rows)
    }

    /// Adds rows on out-port `port`. Without rows the port is skipped.
    #[inline]
    #[must_use]
    pub fn with(mut self, port: usize, rows: Rows) -> Self {
        if rows.len() > 0 {
            self.ports.push((port, rows));
        }
        self
    }

    /// Adds rows that failed; they leave on the step's error port beside the good ones.
    #[must_use]
    pub fn with_failed(mut self, failed: FailedRows) -> Self {
        if failed.rows.len() > 0 {
            self.failed = Some(Box::new(failed));
        }
        self
    }

    /// Says that the answer is not what it should be, and why: the reply names the step and this reason.
    #[must_use]
    pub fn degraded(mut self, reason: impl Into<Box<str>>) -> Self {
        self.degraded = Some(reason.into());
        self
    }

    /// The rows that leave on out-port `port`.
    pub fn rows(&self, port: usize) -> Option<&Rows> {
        self.ports.iter().find_map(|(at, rows)| (*at == port).then_some(rows))
    }

    /// The rows that failed.
    pub fn failed(&self) -> Option<&FailedRows> {
        self.failed.as_deref()
    }

    /// Takes the answer apart: rows by out-port, failed rows, the reason for degradation.
    #[inline]
    pub fn into_parts(self) -> (RowsByPort, Option<Box<FailedRows>>, Option<Box<str>>) {
        (self.ports, self.failed, self.degraded)
    }
}

/// Rows of a good batch that a step could not accept, with one message per row.
///
/// The rows have the schema of the step's in-port 0.
#[derive(Debug)]
pub struct FailedRows {
    /// The rows as they came in.
    pub rows: Rows,
    /// Why, row by row; as long as `rows`.
    pub messages: Vec<String>,
}

/// How a step is typed: its out-ports, and what compile and the engine may rely on.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The out-ports, in order.
    pub outputs: Vec<OutPort>,
    /// What the step does beyond answering.
    pub effect: Effect,
    /// Whether the step lines up the rows of its in-ports by their place in the request; compile then refuses an in-port
    /// whose rows have lost it.
    pub lines_up: bool,
    /// How the step is made anew when columns are left out that nothing reads; `None` when it reads all that comes in.
    pub narrow: Option<Narrow>,
}

impl Signature {
    /// One out-port `out`; each row that comes in and does not fail goes out, in order, computed from that row alone.
    pub fn row_wise(schema: SchemaRef) -> Self {
        Self::ports(vec![OutPort::new("out", schema, RowFlow::Same)])
    }

    /// One out-port `out`; some of the rows that come in go out, each computed from that row alone.
    pub fn subset(schema: SchemaRef) -> Self {
        Self::ports(vec![OutPort::new("out", schema, RowFlow::Subset)])
    }

    /// One out-port `out`; rows that come out have no fixed relation to rows that went in.
    pub fn free(schema: SchemaRef) -> Self {
        Self::ports(vec![OutPort::new("out", schema, RowFlow::Free)])
    }

    /// Several out-ports.
    pub fn ports(outputs: Vec<OutPort>) -> Self {
        Self { outputs, effect: Effect::None, lines_up: false, narrow: None }
    }

    /// Declares that the step lines up the rows of its in-ports by their place in the request.
    #[must_use]
    pub fn lining_up(mut self) -> Self {
        self.lines_up = true;
        self
    }

    /// Declares what the step does beyond answering.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

/// One out-port of a step.
#[derive(Clone, Debug)]
pub struct OutPort {
    /// The port's name, unique in its step; `error` is taken by the error port that every step has.
    pub name: String,
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// How its rows relate to the rows of in-port 0.
    pub flow: RowFlow,
}

impl OutPort {
    /// Names and types an out-port.
    pub fn new(name: impl Into<String>, schema: SchemaRef, flow: RowFlow) -> Self {
        Self { name: name.into(), schema, flow }
    }
}

/// How the rows of an out-port relate to the rows that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFlow {
    /// Every row that does not fail, in order, each computed from its own row alone.
    Same,
    /// Some of the rows, each computed from its own row alone; they remember where they came from.
    Subset,
    /// The step brings the rows of several in-ports back into the order of the request.
    Merged,
    /// No fixed relation: rows may be added, mixed or aggregated. They cannot be merged back or cut per request.
    Free,
}

/// What a step does beyond answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may run again, or for several requests at once.
    None,
    /// It writes or calls out, and repeating it is harmless.
    Repeatable,
    /// It writes or calls out, and must happen once per request.
    Once,
}

/// Observes an edge; cannot change, delay or fail a run.
pub trait Tap: Send + Sync + 'static {
    /// Sees rows that travelled an edge. Returns promptly; what it cannot take it drops and counts.
    fn observe(&self, seen: &Seen<'_>);
}

/// Rows that travelled an edge in one run, which may have served several requests together.
///
/// Made by the engine. Requests that shared a run are told apart only by a tap that asks for it, so that one that counts values
/// pays once for all of them.
#[derive(Clone, Copy)]
pub struct Seen<'s> {
    rows: &'s Rows,
    edge: EdgeId,
    cx: &'s RunCx,
}

impl<'s> Seen<'s> {
    /// Rows on an edge of a run.
    pub fn new(rows: &'s Rows, edge: EdgeId, cx: &'s RunCx) -> Self {
        Self { rows, edge, cx }
    }

    /// The rows, those of all requests of the run.
    #[inline]
    pub fn rows(&self) -> &'s Rows {
        self.rows
    }

    /// The edge.
    pub fn edge(&self) -> EdgeId {
        self.edge
    }

    /// The run, and the requests that it serves.
    pub fn cx(&self) -> &'s RunCx {
        self.cx
    }

    /// The rows of each request that has any, under the name of its own run.
    ///
    /// Rows that no longer know their place are those of a run that serves one request: others are not shared.
    pub fn requests(&self) -> impl Iterator<Item = (&'s Share, Rows)> {
        let alone = self.cx.shares().len() == 1;
        self.cx.shares().filter_map(move |(share, range)| {
            let rows = if alone { Some(self.rows.clone()) } else { self.rows.cut(&range).ok().flatten() };
            Some((share, rows?))
        })
    }
}

impl Output {
    /// Sends row `i` out of port `ways[i]`, for any number of ports.
    ///
    /// # Errors
    /// When `ways` is not as long as `rows`.
    pub fn routed(rows: Rows, ports: usize, ways: &[usize]) -> StepResult {
        if let Some(&first) = ways.first().filter(|first| ways.iter().all(|way| way == *first)) {
            return Ok(Self::none().with(first, rows));
        }
        let mut output = Self::none();
        for port in 0..ports {
            let picked: Vec<u32> = (0..ways.len() as u32).filter(|&row| ways[row as usize] == port).collect();
            if !picked.is_empty() {
                output = output.with(port, rows.take(&picked)?);
            }
        }
        Ok(output)
    }
}
