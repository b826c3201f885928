//! What one run has in hand: its tokens, which steps wait for how many, and what it will reply.

use std::{ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use millstream_graph::{
    EdgeId, ErrorKind, Fallback, Input, Origin, Output, Rows, RunCx, StepError, StepId, Token, failed_rows,
};
use smallvec::{SmallVec, smallvec};

use crate::{Degraded, RunError, core::Core, ready::StepSet, run::observe, times::Times};

/// The state of a run, kept by the engine between runs so that a run allocates nothing for it.
#[derive(Default)]
pub(crate) struct State {
    /// One token per in-port of the plan.
    tokens: Vec<Token>,
    /// Per step, how many of its tokens have not arrived.
    waiting: Vec<u32>,
    /// Per step, the rows of in-port 0, where its failure would need them.
    kept: Vec<Option<Rows>>,
    /// The rows of the step that is called next, which reads nothing else: they are no token, because nothing comes between.
    in_hand: Option<(StepId, Rows)>,
    /// Steps with rows on at least one in-port.
    pub(crate) live: StepSet,
    /// Steps whose tokens have all arrived and that have not started.
    pub(crate) ready: StepSet,
    /// Steps whose answer was delivered or skipped.
    settled: StepSet,
    handler_told: bool,
    request: Option<Rows>,
    pub(crate) replied: bool,
    pub(crate) reply: Option<Rows>,
    pub(crate) degraded: Vec<Degraded>,
    /// Why the error handler runs.
    pub(crate) failure: Option<RunError>,
    /// What taps are to see of a shared run, once it is known that it stands.
    observed: Vec<(EdgeId, Rows)>,
    /// Rows that steps could not accept.
    failed_rows: SmallVec<[(StepId, usize); 1]>,
    /// When its steps ran, if it is timed.
    pub(crate) times: Times,
}

/// What became of a step's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Its readers have their tokens.
    Delivered,
    /// The run failed and its error handler took over: whatever is in flight is no longer wanted.
    Abandoned,
}

impl State {
    /// Makes ready for a run of `batch`, and delivers it.
    pub(crate) fn begin(&mut self, core: &Core, cx: &RunCx, batch: RecordBatch) {
        let plan = &core.plan;
        self.tokens.clear();
        self.tokens.resize(plan.slots(), Token::Skip);
        self.waiting.clear();
        self.waiting.extend_from_slice(&core.in_ports);
        self.kept.clear();
        self.kept.resize(plan.steps().len(), None);
        for set in [&mut self.live, &mut self.ready, &mut self.settled] {
            set.reset(plan.steps().len());
        }
        self.in_hand = None;
        self.handler_told = plan.handler_edges().is_empty();
        self.replied = false;
        self.reply = None;
        self.failure = None;
        self.degraded.clear();
        self.observed.clear();
        self.failed_rows.clear();
        self.times.begin(core, cx);
        let token =
            if batch.num_rows() == 0 { Token::Skip } else { Token::Rows(Rows::whole(plan.carry(batch))) };
        self.request = match &token {
            Token::Rows(rows) if !self.handler_told => Some(rows.clone()),
            _ => None,
        };
        self.send(core, cx, plan.input_edges(), token);
    }

    /// Forgets everything that a finished or cancelled run still holds.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.kept.clear();
        self.in_hand = None;
        self.request = None;
        self.reply = None;
        self.failure = None;
        self.degraded.clear();
        self.observed.clear();
        self.failed_rows.clear();
    }

    /// Counts what this run says of its steps. One that is repeated per request leaves that to the repeats.
    pub(crate) fn count(&mut self, core: &Core) {
        for (id, rows) in self.failed_rows.drain(..) {
            core.metrics.steps[id.index()].failed_rows.inc_by(rows as u64);
        }
        for degraded in &self.degraded {
            if let Some(id) = core.plan.step_named(&degraded.step) {
                core.metrics.steps[id.index()].degraded.inc();
            }
        }
    }

    /// Lets taps see what travelled in a shared run. Answers whether they could: whose rows they are must be known.
    pub(crate) fn tell_taps(&mut self, core: &Core, cx: &RunCx) -> bool {
        let placed = self.observed.iter().all(|(_, rows)| *rows.origin() != Origin::Lost);
        if placed {
            self.observed.drain(..).for_each(|(edge, rows)| observe(core, edge, &rows, cx));
        }
        placed
    }

    /// Whether rows have reached a step after the reply.
    pub(crate) fn has_tail(&self, core: &Core) -> bool {
        self.live.any_from(core.main_end)
    }

    /// The rest of a shared run, after its reply, for the request whose rows are `range`.
    pub(crate) fn cut(&self, core: &Core, range: &Range<usize>) -> Result<Self, StepError> {
        let mut cut = Self {
            waiting: self.waiting.clone(),
            kept: vec![None; core.plan.steps().len()],
            ready: self.ready.clone(),
            settled: self.settled.clone(),
            handler_told: true,
            replied: true,
            ..Self::default()
        };
        cut.live.reset(core.plan.steps().len());
        for token in &self.tokens {
            cut.tokens.push(match token {
                Token::Rows(rows) => rows.cut(range)?.map_or(Token::Skip, Token::Rows),
                Token::Skip => Token::Skip,
            });
        }
        for edge in core.plan.edges() {
            if matches!(cut.tokens.get(edge.slot()), Some(Token::Rows(_))) {
                cut.live.insert(edge.to());
            }
        }
        Ok(cut)
    }

    /// The first step before `end` that has rows, what it is called with, and how many rows that are. Those without are skipped.
    #[inline]
    pub(crate) fn next_call(
        &mut self,
        core: &Core,
        cx: &RunCx,
        end: usize,
    ) -> Option<(StepId, Input, usize)> {
        if let Some((id, rows)) = self.in_hand.take() {
            if core.keeps_input[id.index()] {
                self.kept[id.index()] = Some(rows.clone());
            }
            let count = rows.len();
            return Some((id, Input::new(smallvec![Token::Rows(rows)]), count));
        }
        while let Some(id) = self.ready.pop_before(end) {
            if self.live.contains(id) {
                let (input, rows) = self.take_input(core, id);
                return Some((id, input, rows));
            }
            self.skip(core, cx, id);
        }
        None
    }

    /// Takes the tokens of a step's in-ports and counts their rows, keeping those that its failure would need.
    fn take_input(&mut self, core: &Core, id: StepId) -> (Input, usize) {
        let step = &core.plan.steps()[id.index()];
        let first = step.first_slot();
        let slots = &mut self.tokens[first..first + step.in_edges().len()];
        let count = |token: &Token| if let Token::Rows(rows) = token { rows.len() } else { 0 };
        let rows = slots.iter().map(count).max().unwrap_or(0);
        if let (true, Some(Token::Rows(rows))) = (core.keeps_input[id.index()], slots.first()) {
            self.kept[id.index()] = Some(rows.clone());
        }
        let tokens: SmallVec<[Token; 1]> = match slots {
            [one] => smallvec![std::mem::replace(one, Token::Skip)],
            many => many.iter_mut().map(|token| std::mem::replace(token, Token::Skip)).collect(),
        };
        (Input::new(tokens), rows)
    }

    /// Every out-port of `id` is skipped.
    pub(crate) fn skip(&mut self, core: &Core, cx: &RunCx, id: StepId) {
        self.settled.insert(id);
        let step = &core.plan.steps()[id.index()];
        for port in step.outputs().iter().chain([step.error()]) {
            self.send(core, cx, port.edges(), Token::Skip);
        }
    }

    /// Hands a step's answer to its readers. An error is one that nobody has taken care of yet.
    pub(crate) fn deliver_output(
        &mut self,
        core: &Core,
        cx: &RunCx,
        id: StepId,
        output: Output,
    ) -> Result<(), StepError> {
        let step = &core.plan.steps()[id.index()];
        let (mut ports, failed, degraded) = output.into_parts();
        if let (None, None, [port], 0 | 1) = (&failed, &degraded, step.outputs(), ports.len())
            && ports.first().is_none_or(|(at, rows)| *at == 0 && Arc::ptr_eq(port.schema(), rows.schema()))
        {
            // What nearly every step answers: rows, or none, on its only out-port.
            let rows = ports.pop().map(|(_, rows)| rows);
            match (core.follower[id.index()], rows) {
                (Some(to), Some(rows)) if self.ready.none_before(to) => {
                    self.settled.insert(id);
                    self.kept[id.index()] = None;
                    self.in_hand = Some((to, rows));
                }
                (_, rows) => {
                    self.leave(core, cx, id, Token::Skip);
                    self.hand_on(core, cx, id, 0, rows);
                }
            }
            return Ok(());
        }
        for (port, rows) in &ports {
            let Some(declared) = step.outputs().get(*port) else {
                return Err(StepError::internal(format!(
                    "answered on out-port {port}, which it did not declare"
                )));
            };
            if !Arc::ptr_eq(declared.schema(), rows.schema()) && declared.schema() != rows.schema() {
                let port = declared.name();
                return Err(StepError::internal(format!(
                    "answered other columns on port `{port}` than it declared"
                )));
            }
        }
        let error_rows = match failed {
            None => Token::Skip,
            Some(failed) => {
                self.failed_rows.push((id, failed.rows.len()));
                let fallback = step.fallback(ErrorKind::Rows);
                let token = match fallback {
                    Fallback::None => return Err(first_of(&failed.messages)),
                    Fallback::Port | Fallback::Step => {
                        let (schema, name) = (step.error().schema(), step.name());
                        Token::Rows(failed_rows(
                            &failed.rows,
                            schema,
                            name,
                            ErrorKind::Rows,
                            &failed.messages,
                        )?)
                    }
                    Fallback::Skip => Token::Skip,
                    Fallback::Fill(fill) => {
                        let filled = fill.apply(&failed.rows)?;
                        let mut parts: SmallVec<[Rows; 2]> = smallvec![filled];
                        parts.extend(ports.pop().map(|(_, good)| good));
                        ports.push((0, Rows::merge(parts, step.outputs()[0].schema())?));
                        Token::Skip
                    }
                };
                if !matches!(fallback, Fallback::Port) {
                    self.degrade(core, id, first_of(&failed.messages).message());
                }
                token
            }
        };
        if let Some(reason) = degraded {
            self.degrade(core, id, &reason);
        }
        self.leave(core, cx, id, error_rows);
        for at in 0..step.outputs().len() {
            let rows = ports.iter().position(|(port, _)| *port == at).map(|found| ports.swap_remove(found).1);
            self.hand_on(core, cx, id, at, rows);
        }
        Ok(())
    }

    /// A step has answered: its error port gets what it gets.
    fn leave(&mut self, core: &Core, cx: &RunCx, id: StepId, error_rows: Token) {
        self.settled.insert(id);
        self.kept[id.index()] = None;
        self.send(core, cx, core.plan.steps()[id.index()].error().edges(), error_rows);
    }

    /// One out-port of a step gets its rows, or skip.
    #[inline]
    fn hand_on(&mut self, core: &Core, cx: &RunCx, id: StepId, port: usize, rows: Option<Rows>) {
        if id == core.plan.respond() && port == 0 {
            self.reply.clone_from(&rows);
        }
        let edges = core.plan.steps()[id.index()].outputs()[port].edges();
        self.send(core, cx, edges, rows.map_or(Token::Skip, Token::Rows));
    }

    /// Takes care of a failed step as the graph declares. Answers the error when it declares nothing.
    pub(crate) fn route(
        &mut self,
        core: &Core,
        cx: &RunCx,
        id: StepId,
        error: StepError,
    ) -> Option<StepError> {
        let step = &core.plan.steps()[id.index()];
        let kept = self.kept[id.index()].take();
        let fallback = step.fallback(error.kind());
        let output = match (fallback, &kept) {
            (Fallback::Port | Fallback::Step, Some(rows)) => {
                let messages = vec![error.message(); rows.len()];
                let schema = step.error().schema();
                let Ok(failed) = failed_rows(rows, schema, step.name(), error.kind(), &messages) else {
                    return Some(error);
                };
                if matches!(fallback, Fallback::Step) {
                    self.degrade(core, id, error.message());
                }
                self.settled.insert(id);
                for port in step.outputs() {
                    self.send(core, cx, port.edges(), Token::Skip);
                }
                self.send(core, cx, step.error().edges(), Token::Rows(failed));
                return None;
            }
            (Fallback::Skip, _) => Output::none(),
            (Fallback::Fill(fill), Some(rows)) => match fill.apply(rows) {
                Ok(rows) => Output::one(rows),
                Err(_) => return Some(error),
            },
            _ => return Some(error),
        };
        self.degrade(core, id, error.message());
        self.deliver_output(core, cx, id, output).err()
    }

    /// The run has failed: nothing that has not run will, unless it stands behind the error handler.
    pub(crate) fn abandon(&mut self, core: &Core, cx: &RunCx) {
        self.tokens.fill(Token::Skip);
        self.in_hand = None;
        self.ready.reset(core.plan.steps().len());
        self.live.reset(core.plan.steps().len());
        for id in (0..core.plan.steps().len()).map(|id| StepId(id as u32)) {
            let behind = core.plan.steps()[id.index()].behind_handler();
            if behind && self.waiting[id.index()] == 0 && !self.settled.contains(id) {
                self.ready.insert(id);
            }
            if !behind && !self.settled.contains(id) {
                self.ready.remove(id);
                self.skip(core, cx, id);
            }
        }
    }

    /// Lets the error handler know how the run went, once: that nothing failed, or which step did and why.
    /// Answers whether there was anybody to tell.
    pub(crate) fn tell_handler(
        &mut self,
        core: &Core,
        cx: &RunCx,
        failure: Option<(&Arc<str>, &StepError)>,
    ) -> bool {
        if std::mem::replace(&mut self.handler_told, true) {
            return false;
        }
        let token = match (failure, self.request.take()) {
            (Some((step, error)), Some(rows)) => {
                let messages = vec![error.message(); rows.len()];
                failed_rows(&rows, core.plan.handler_schema(), step, error.kind(), &messages)
                    .map_or(Token::Skip, Token::Rows)
            }
            _ => Token::Skip,
        };
        self.send(core, cx, core.plan.handler_edges(), token);
        true
    }

    fn degrade(&mut self, core: &Core, id: StepId, reason: &str) {
        let step = &core.plan.steps()[id.index()];
        self.degraded.push(Degraded { step: Arc::clone(step.name()), reason: reason.into() });
    }

    /// Puts a token on every edge of a port; the last edge takes it, the others share its columns.
    #[inline]
    fn send(&mut self, core: &Core, cx: &RunCx, edges: &[EdgeId], token: Token) {
        let Some((last, others)) = edges.split_last() else { return };
        for edge in others {
            self.deliver(core, cx, *edge, token.clone());
        }
        self.deliver(core, cx, *last, token);
    }

    #[inline]
    fn deliver(&mut self, core: &Core, cx: &RunCx, edge: EdgeId, token: Token) {
        let place = &core.plan.edges()[edge.index()];
        let to = place.to();
        if self.settled.contains(to) {
            // The run was abandoned, and this reader with it.
            return;
        }
        if let Token::Rows(rows) = &token {
            if !place.taps().is_empty() {
                if cx.is_shared() {
                    self.observed.push((edge, rows.clone()));
                } else {
                    observe(core, edge, rows, cx);
                }
            }
            self.live.insert(to);
        }
        self.tokens[place.slot()] = token;
        let waiting = &mut self.waiting[to.index()];
        debug_assert!(*waiting > 0, "an edge carries one token per run");
        *waiting -= 1;
        if *waiting == 0 {
            self.ready.insert(to);
        }
    }
}

/// Rows failed and nobody takes them: what the first one's message is, and how many more there are.
pub(crate) fn first_of(messages: &[String]) -> StepError {
    match messages {
        [] => StepError::rows("rows failed"),
        [one] => StepError::rows(one.clone()),
        [first, rest @ ..] => StepError::rows(format!("{first} (and {} more rows)", rest.len())),
    }
}

/// Whether a step's failure can need the rows it was given.
pub(crate) fn keeps_input(step: &millstream_graph::PlanStep) -> bool {
    let needs = |fallback: &&Fallback| !matches!(fallback, Fallback::None | Fallback::Skip);
    step.fallbacks().each().iter().any(needs)
}
