//! A graph that has been checked: dense, typed, immutable.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::take,
    datatypes::SchemaRef,
};

use crate::{
    EdgeId, Effect, ErrorKind, PlanStream, RowFlow, Rows, Step, StepError, StepId, Tap, policy::Failure,
};

/// A graph that has been checked: every edge is typed, every step is reachable, nothing can be renamed.
///
/// Made by [`crate::Graph::compile`], shared by `Arc`, run by an engine. Steps stand in topological order: first those
/// that the reply depends on, then the tail. Its `Display` is the explain output.
pub struct Plan {
    pub(crate) name: String,
    pub(crate) input: SchemaRef,
    /// The columns of a request that something reads; the same schema when that is all of them.
    pub(crate) carried: SchemaRef,
    /// Where those columns stand in the request.
    pub(crate) carried_at: Vec<usize>,
    pub(crate) steps: Vec<PlanStep>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) input_edges: Vec<EdgeId>,
    pub(crate) handler_edges: Vec<EdgeId>,
    pub(crate) handler_schema: SchemaRef,
    pub(crate) respond: StepId,
    pub(crate) reply: SchemaRef,
    pub(crate) reply_in_order: bool,
    pub(crate) stream: Option<PlanStream>,
    pub(crate) slots: usize,
}

/// One step of a plan.
pub struct PlanStep {
    pub(crate) name: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) step: Arc<dyn Step>,
    pub(crate) phase: Phase,
    pub(crate) behind_handler: bool,
    pub(crate) effect: Effect,
    pub(crate) first_slot: usize,
    pub(crate) in_edges: Vec<EdgeId>,
    pub(crate) outputs: Vec<PlanPort>,
    pub(crate) error: PlanPort,
    pub(crate) fallbacks: Fallbacks,
}

/// One out-port of a planned step.
#[derive(Clone)]
pub struct PlanPort {
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    /// The columns that the port has by the graph, whether or not anything reads them.
    pub(crate) declared: SchemaRef,
    pub(crate) flow: RowFlow,
    /// Which of the declared columns only pass through the step, with every row.
    pub(crate) passing: Vec<bool>,
    pub(crate) edges: Vec<EdgeId>,
}

/// One out-port to one in-port.
pub struct Edge {
    pub(crate) from: Source,
    pub(crate) to: StepId,
    pub(crate) slot: usize,
    pub(crate) taps: Vec<Arc<dyn Tap>>,
    /// The columns that each of them reads; all where it says nothing.
    pub(crate) read: Vec<Option<Arc<[String]>>>,
}

/// Where an edge begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The rows of the request.
    Input,
    /// The rows of the request, when the run has failed.
    Handler,
    /// Out-port `.1` of a step.
    Port(StepId, usize),
    /// The error port of a step.
    Error(StepId),
}

/// When a step of a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The reply waits for it.
    Main,
    /// It waits to know whether the run failed, and the reply waits for it.
    Handler,
    /// After the reply.
    Tail,
}

/// What stands in for a step's answer, by kind of failure.
#[derive(Debug)]
pub struct Fallbacks {
    pub(crate) error: Fallback,
    pub(crate) timeout: Fallback,
    pub(crate) overload: Fallback,
}

impl Fallbacks {
    /// The same for every kind of failure.
    pub(crate) fn all(fallback: impl Fn() -> Fallback) -> Self {
        Self { error: fallback(), timeout: fallback(), overload: fallback() }
    }

    /// What stands in after a failure of this kind.
    pub fn of(&self, kind: ErrorKind) -> &Fallback {
        match Failure::of(kind) {
            Failure::Error => &self.error,
            Failure::Timeout => &self.timeout,
            Failure::Overload => &self.overload,
        }
    }

    /// What stands in after each kind of failure.
    pub fn each(&self) -> [&Fallback; 3] {
        [&self.error, &self.timeout, &self.overload]
    }
}

/// What stands in for a failed step's answer.
#[derive(Debug)]
pub enum Fallback {
    /// Nothing: the failure goes on to the graph's handler or the caller.
    None,
    /// The rows leave on the error port, which the graph reads.
    Port,
    /// The rows leave on the error port, where another step answers for this one; the reply is degraded.
    Step,
    /// The step's out-ports are skipped.
    Skip,
    /// The step's input with constants in the columns it would have written.
    Fill(Fill),
}

/// How to write a failed step's columns: from its input, or constant.
#[derive(Debug)]
pub struct Fill {
    pub(crate) schema: SchemaRef,
    pub(crate) columns: Vec<FillColumn>,
}

#[derive(Debug)]
pub(crate) enum FillColumn {
    FromInput(usize),
    Constant(ArrayRef),
}

impl Fill {
    /// The answer that stands in for the step's own, for the rows that it was given.
    ///
    /// # Errors
    /// When the rows do not have the schema that the plan was compiled for.
    pub fn apply(&self, rows: &Rows) -> Result<Rows, StepError> {
        let first = UInt32Array::from(vec![0; rows.len()]);
        let columns = self.columns.iter().map(|column| match column {
            FillColumn::FromInput(at) => Ok(Arc::clone(rows.batch().column(*at))),
            FillColumn::Constant(value) => take(value, &first, None),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        rows.replace(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Plan {
    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns of a request.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The columns of a request that travel: those that a step reads, or the reply, an error port, a tap or a handler that is
    /// there. Whoever makes the rows of a request may leave out the others, once they are checked.
    pub fn carried_schema(&self) -> &SchemaRef {
        &self.carried
    }

    /// The columns of a request that travel, of rows that have all columns of the input, or these alone.
    #[inline]
    pub fn carry(&self, rows: RecordBatch) -> RecordBatch {
        if Arc::ptr_eq(&self.carried, &self.input) || Arc::ptr_eq(&self.carried, rows.schema_ref()) {
            return rows;
        }
        let columns =
            self.carried_at.iter().filter_map(|&at| rows.columns().get(at).map(Arc::clone)).collect();
        // It has these columns, or it is no request of this plan, and the first step says so.
        RecordBatch::try_new(Arc::clone(&self.carried), columns).unwrap_or(rows)
    }

    /// The columns of a reply.
    pub fn reply_schema(&self) -> &SchemaRef {
        &self.reply
    }

    /// The columns that the graph's error handler sees: those of the request that travel, and `error`.
    pub fn handler_schema(&self) -> &SchemaRef {
        &self.handler_schema
    }

    /// Whether every reply row is a row of the request, so that a reply can be cut per request.
    pub fn reply_in_order(&self) -> bool {
        self.reply_in_order
    }

    /// How replies come in parts; none where each is one run.
    pub fn stream(&self) -> Option<&PlanStream> {
        self.stream.as_ref()
    }

    /// Whether requests may share a run: every step up to the reply computes each row from that row alone, and none has an
    /// effect that must happen once per request. What runs after the reply runs per request in any case.
    pub fn row_wise(&self) -> bool {
        let row_wise = |port: &PlanPort| port.flow != RowFlow::Free;
        let shares = |step: &PlanStep| {
            step.phase == Phase::Tail || (step.effect != Effect::Once && step.outputs.iter().all(row_wise))
        };
        self.reply_in_order && self.steps.iter().all(shares)
    }

    /// The steps, in topological order; a [`StepId`] is an index into them.
    pub fn steps(&self) -> &[PlanStep] {
        &self.steps
    }

    /// The edges; an [`EdgeId`] is an index into them.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The edges that carry the request's rows into the graph.
    pub fn input_edges(&self) -> &[EdgeId] {
        &self.input_edges
    }

    /// The edges that carry the request's rows into the graph's error handler; empty when it has none.
    pub fn handler_edges(&self) -> &[EdgeId] {
        &self.handler_edges
    }

    /// The step whose rows are the reply.
    pub fn respond(&self) -> StepId {
        self.respond
    }

    /// The number of in-ports of all steps together: one token each per run.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Whether any step runs after the reply.
    pub fn has_tail(&self) -> bool {
        self.steps.last().is_some_and(|step| step.phase == Phase::Tail)
    }

    /// The step named `name`.
    pub fn step_named(&self, name: &str) -> Option<StepId> {
        self.steps.iter().position(|step| &*step.name == name).map(|at| StepId(at as u32))
    }

    /// The port before a step from which a column of one of its out-ports comes as it is, with every row. None where the step makes
    /// the column, may change it, or leaves rows out, and where it does not say so of itself.
    pub fn came_from(&self, port: Source, column: &str) -> Option<Source> {
        let Source::Port(step, port) = port else { return None };
        let step = &self.steps[step.index()];
        let port = step.outputs.get(port)?;
        let (&[edge], Ok(at)) = (&step.in_edges[..], port.declared.index_of(column)) else { return None };
        port.passing.get(at)?.then(|| self.edges[edge.index()].from)
    }

    /// The edge that begins at `edge.from`, in words: `enrich.out -> score`.
    pub fn edge_name(&self, id: EdgeId) -> String {
        let edge = &self.edges[id.index()];
        let to = &self.steps[edge.to.index()].name;
        match edge.from {
            Source::Input => format!("{} -> {to}", crate::graph::INPUT),
            Source::Handler => format!("{} -> {to}", crate::graph::ON_ERROR),
            Source::Error(step) => format!("{}.error -> {to}", self.steps[step.index()].name),
            Source::Port(step, port) => {
                let step = &self.steps[step.index()];
                format!("{}.{} -> {to}", step.name, step.outputs[port].name)
            }
        }
    }

    /// The schema of the rows that travel an edge.
    pub fn edge_schema(&self, id: EdgeId) -> &SchemaRef {
        match self.edges[id.index()].from {
            Source::Input => &self.carried,
            Source::Handler => &self.handler_schema,
            Source::Error(step) => &self.steps[step.index()].error.schema,
            Source::Port(step, port) => &self.steps[step.index()].outputs[port].schema,
        }
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl PlanStep {
    /// The step's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    /// The word for what kind of step it is.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
    /// The step itself.
    pub fn step(&self) -> &dyn Step {
        &*self.step
    }
    /// When it runs.
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// Whether it reads, directly or not, the rows of failed runs.
    pub fn behind_handler(&self) -> bool {
        self.behind_handler
    }
    /// The slot of its in-port 0; the others follow.
    pub fn first_slot(&self) -> usize {
        self.first_slot
    }
    /// The edges that end here, in the order of the in-ports.
    pub fn in_edges(&self) -> &[EdgeId] {
        &self.in_edges
    }
    /// Its out-ports.
    pub fn outputs(&self) -> &[PlanPort] {
        &self.outputs
    }
    /// Its error port.
    pub fn error(&self) -> &PlanPort {
        &self.error
    }
    /// What stands in for its answer when it fails.
    pub fn fallbacks(&self) -> &Fallbacks {
        &self.fallbacks
    }
    /// What stands in for its answer after a failure of this kind.
    pub fn fallback(&self, kind: ErrorKind) -> &Fallback {
        self.fallbacks.of(kind)
    }
}

impl PlanPort {
    /// The port's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The schema of its rows: of the columns that it has by the graph, those that something reads.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    /// How its rows relate to the rows of in-port 0.
    pub fn flow(&self) -> RowFlow {
        self.flow
    }
    /// The edges that leave it.
    pub fn edges(&self) -> &[EdgeId] {
        &self.edges
    }
}

impl Edge {
    /// Where the edge begins.
    pub fn from(&self) -> Source {
        self.from
    }
    /// The step it ends at.
    pub fn to(&self) -> StepId {
        self.to
    }
    /// The slot of the in-port it ends at.
    pub fn slot(&self) -> usize {
        self.slot
    }
    /// Who observes it.
    pub fn taps(&self) -> &[Arc<dyn Tap>] {
        &self.taps
    }
}
