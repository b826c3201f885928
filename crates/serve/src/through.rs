//! Graphs that rows pass before a feature set takes them.

use std::sync::{Mutex, PoisonError};

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};
use millstream_featurestore::{Passage, Passed, Passing};
use millstream_graph::{ErrorKind, Graph, Phase, Plan, RowFlow};
use millstream_runtime::{Engine, Limits};
use tokio::runtime::Handle;

use crate::project::chain;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A graph that rows pass, and the engine that runs it.
pub(crate) struct Through {
    graph: Graph,
    /// The graph compiled, for what it takes and gives.
    plan: Plan,
    /// That of the server, which runs the graph for requests too; one of its own elsewhere.
    engine: Mutex<Option<Engine>>,
}

impl Through {
    /// A graph, compiled to `plan`, of which each row that comes out is of one that went in.
    ///
    /// # Errors
    /// Naming the step that mixes rows.
    pub(crate) fn new(graph: Graph, plan: Plan) -> Result<Self, String> {
        let mixes = plan.steps().iter().find(|step| {
            step.phase() != Phase::Tail && step.outputs().iter().any(|port| port.flow() == RowFlow::Free)
        });
        if let Some(step) = mixes {
            return Err(format!(
                "step `{}` of graph `{}` mixes rows, so that nobody could tell which events were taken",
                step.name(),
                plan.name()
            ));
        }
        Ok(Self { graph, plan, engine: Mutex::default() })
    }

    /// Runs on this engine from now on.
    pub(crate) fn run_on(&self, engine: Engine) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
    }

    /// Gives back what it runs on.
    pub(crate) fn rest(&self) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn graph(&self) -> &str {
        self.plan.name()
    }

    fn engine(&self) -> Result<Engine, Failure> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(engine.clone());
        }
        // Whoever writes waits for its answer, and nobody else.
        let limits = Limits { adaptive: false, ..Limits::default() };
        Ok(engine.insert(Engine::new(self.graph.compile()?, limits)?).clone())
    }

    async fn run(&self, rows: RecordBatch) -> Result<Passed, Failure> {
        if Handle::try_current().is_err() {
            return Err(
                format!("graph `{}` runs on a runtime of tokio, and there is none", self.graph()).into()
            );
        }
        let engine = self.engine()?;
        let (mut batches, mut of, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        // Parts that have not passed yet, the next one last. One row's mistake must not be that of the others.
        let mut parts = vec![(0, rows)];
        while let Some((first, part)) = parts.pop() {
            let count = part.num_rows();
            match engine.run(part.clone()).await {
                Ok(reply) => {
                    let places = (0..reply.rows().num_rows()).map(|row| reply.place(row));
                    let places: Option<Vec<usize>> = places.map(|at| Some(first + at? as usize)).collect();
                    of.extend(places.ok_or("the graph mixes rows")?);
                    batches.push(reply.into_rows());
                }
                Err(error) if count <= 1 => match error.kind() {
                    ErrorKind::Rows | ErrorKind::Panicked => refused.push((first, chain(&error))),
                    _ => return Err(error.into()),
                },
                Err(error) => {
                    let of_rows = [ErrorKind::Rows, ErrorKind::Panicked, ErrorKind::DeadlineExceeded];
                    if !of_rows.contains(&error.kind()) {
                        return Err(error.into());
                    }
                    let half = count / 2;
                    parts.push((first + half, part.slice(half, count - half)));
                    parts.push((first, part.slice(0, half)));
                }
            }
        }
        let batches: Vec<_> = batches.iter().filter(|batch| batch.num_rows() > 0).collect();
        let rows = concat_batches(self.gives(), batches)?;
        Ok(Passed { rows, of, refused })
    }
}

impl Passage for Through {
    fn name(&self) -> &str {
        self.graph()
    }

    fn takes(&self) -> &SchemaRef {
        self.plan.input_schema()
    }

    fn gives(&self) -> &SchemaRef {
        self.plan.reply_schema()
    }

    fn pass(&self, rows: RecordBatch) -> Passing<'_> {
        Box::pin(self.run(rows))
    }
}

impl std::fmt::Debug for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Through").field("graph", &self.graph()).finish_non_exhaustive()
    }
}
