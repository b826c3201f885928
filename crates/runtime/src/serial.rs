//! The reference: one step after another, in topological order, in the caller's thread.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::array::RecordBatch;
use futures_util::FutureExt;
use millstream_graph::{
    EdgeId, ErrorKind, Fallback, Input, Output, Phase, Plan, PlanStep, Rows, RunCx, Seen, StepId, StepResult,
    Token, Work, failed_rows,
};

use crate::{Degraded, Reply, RunError, panics, pool::timed};

/// Runs a plan as plainly as it can be said: what the engine must equal in reply, tap observations and error.
///
/// Steps that wait are awaited one by one, so this is for tests and not for serving.
///
/// # Errors
/// As [`crate::Engine::run`].
pub async fn run_serially(plan: &Plan, cx: &RunCx, batch: RecordBatch) -> Result<Reply, RunError> {
    let mut run = Serial { plan, cx, edges: HashMap::new(), reply: None, degraded: Vec::new() };
    let request =
        if batch.num_rows() == 0 { Token::Skip } else { Token::Rows(Rows::whole(plan.carry(batch))) };
    run.put(plan.input_edges(), &request);
    let mut failure = None;
    for pass in [false, true] {
        if pass {
            let told = run.told(&request, failure.as_ref());
            run.put(plan.handler_edges(), &told);
        }
        for id in (0..plan.steps().len() as u32).map(StepId) {
            let step = &plan.steps()[id.index()];
            if step.behind_handler() != pass {
                continue;
            }
            let given: Vec<_> =
                step.in_edges().iter().map(|edge| run.edges.remove(edge).unwrap_or(Token::Skip)).collect();
            let given = if failure.is_some() && !pass { vec![Token::Skip; given.len()] } else { given };
            let Err(error) = run.step(id, given).await else { continue };
            if step.phase() != Phase::Tail {
                if pass || plan.handler_edges().is_empty() {
                    return Err(failure.unwrap_or(error));
                }
                run.edges.clear();
                failure = Some(error);
            }
        }
    }
    match (run.reply, failure) {
        (None, Some(error)) => Err(error),
        (rows, _) => {
            let rows =
                rows.unwrap_or_else(|| Rows::whole(RecordBatch::new_empty(Arc::clone(plan.reply_schema()))));
            let (rows, origin) = rows.into_parts();
            Ok(Reply { run: cx.run(), rows, origin, degraded: run.degraded })
        }
    }
}

struct Serial<'p> {
    plan: &'p Plan,
    cx: &'p RunCx,
    edges: HashMap<EdgeId, Token>,
    reply: Option<Rows>,
    degraded: Vec<Degraded>,
}

/// Whether failed rows leave on the step's error port.
fn leaves(step: &PlanStep, kind: ErrorKind) -> bool {
    matches!(step.fallback(kind), Fallback::Port | Fallback::Step)
}

impl Serial<'_> {
    async fn step(&mut self, id: StepId, given: Vec<Token>) -> Result<(), RunError> {
        let step = &self.plan.steps()[id.index()];
        if given.iter().all(|token| matches!(token, Token::Skip)) {
            return Ok(());
        }
        let first = given.first().cloned();
        let call = AssertUnwindSafe(|| step.step().call(Input::new(given.into()), self.cx));
        let result: StepResult = match catch_unwind(call) {
            Err(panic) => Err(panics::error(&*panic)),
            Ok(Work::Done(result)) => result,
            Ok(Work::Io(future)) => AssertUnwindSafe(future)
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| Err(panics::error(&*panic))),
            Ok(Work::Compute(job)) => timed(job).0,
        };
        let failed = |source| RunError::Failed { run: self.cx.run(), step: Arc::clone(step.name()), source };
        let output = match (result, first) {
            (Ok(output), _) => output,
            (Err(error), Some(Token::Rows(rows))) if leaves(step, error.kind()) => {
                if matches!(step.fallback(error.kind()), Fallback::Step) {
                    self.degrade(step, error.message());
                }
                let messages = vec![error.message(); rows.len()];
                let rows = failed_rows(&rows, step.error().schema(), step.name(), error.kind(), &messages);
                self.put(step.error().edges(), &Token::Rows(rows.map_err(failed)?));
                return Ok(());
            }
            (Err(error), first) => {
                let output = match (step.fallback(error.kind()), first) {
                    (Fallback::Skip, _) => Output::none(),
                    (Fallback::Fill(fill), Some(Token::Rows(rows))) => {
                        Output::one(fill.apply(&rows).map_err(failed)?)
                    }
                    _ => return Err(failed(error)),
                };
                self.degrade(step, error.message());
                output
            }
        };
        self.answer(id, output).map_err(failed)
    }

    fn answer(&mut self, id: StepId, output: Output) -> Result<(), millstream_graph::StepError> {
        let step = &self.plan.steps()[id.index()];
        let (mut ports, bad, degraded) = output.into_parts();
        if let Some(bad) = bad {
            let message = crate::state::first_of(&bad.messages);
            let kind = ErrorKind::Rows;
            let fallback = step.fallback(kind);
            if leaves(step, kind) {
                let rows = failed_rows(&bad.rows, step.error().schema(), step.name(), kind, &bad.messages)?;
                self.put(step.error().edges(), &Token::Rows(rows));
            }
            match fallback {
                Fallback::None => return Err(message),
                Fallback::Port | Fallback::Step | Fallback::Skip => {}
                Fallback::Fill(fill) => {
                    let parts = ports.pop().map(|(_, good)| good).into_iter().chain([fill.apply(&bad.rows)?]);
                    ports.push((0, Rows::merge(parts.collect(), step.outputs()[0].schema())?));
                }
            }
            if !matches!(fallback, Fallback::Port) {
                self.degrade(step, message.message());
            }
        }
        if let Some(reason) = degraded {
            self.degrade(step, &reason);
        }
        for (port, rows) in ports {
            if id == self.plan.respond() {
                self.reply = Some(rows.clone());
            }
            self.put(step.outputs()[port].edges(), &Token::Rows(rows));
        }
        Ok(())
    }

    /// Notes what was degraded; after the reply it is too late to say so.
    fn degrade(&mut self, step: &PlanStep, reason: &str) {
        if step.phase() != Phase::Tail {
            self.degraded.push(Degraded { step: Arc::clone(step.name()), reason: reason.into() });
        }
    }

    fn put(&mut self, edges: &[EdgeId], token: &Token) {
        for edge in edges {
            if let Token::Rows(rows) = token {
                let taps = self.plan.edges()[edge.index()].taps();
                taps.iter().for_each(|tap| tap.observe(&Seen::new(rows, *edge, self.cx)));
            }
            self.edges.insert(*edge, token.clone());
        }
    }

    fn told(&self, request: &Token, failure: Option<&RunError>) -> Token {
        match (request, failure) {
            (Token::Rows(rows), Some(RunError::Failed { step, source, .. })) => {
                let messages = vec![source.message(); rows.len()];
                failed_rows(rows, self.plan.handler_schema(), step, source.kind(), &messages)
                    .map_or(Token::Skip, Token::Rows)
            }
            _ => Token::Skip,
        }
    }
}
