//! What every run of an engine shares.

use std::sync::Arc;

use millstream_graph::{Compute, Phase, Plan, PlanStep, RunCx, StepError, StepId};

use crate::{
    RunError, cost::Cost, guard::Guard, metrics::GraphMetrics, pool::ComputePool, state::keeps_input,
    times::Sampler,
};

/// A compute job expected to take longer goes to the pool: a hop to another thread and back costs 15 to 26 us, twice that on a slow
/// machine, and an async worker that computes for longer delays every other request on its thread. In nanoseconds.
const INLINE_BUDGET: u64 = 100_000;
/// Requests that share a run would each have held the thread for as long, and a hop costs the more the busier the cores are: the
/// budget of such a run is that of its requests, up to so many.
const BUDGETS: u64 = 8;

/// A plan and what its runs need besides their own state.
pub(crate) struct Core {
    pub(crate) plan: Arc<Plan>,
    /// The first step of the tail.
    pub(crate) main_end: usize,
    /// Per step, the number of its in-ports.
    pub(crate) in_ports: Vec<u32>,
    /// Per step, the one that its rows are handed to and nothing else is, if there is one: its only reader, which reads nothing else.
    pub(crate) follower: Vec<Option<StepId>>,
    /// Per step, whether its failure can need the rows it was given.
    pub(crate) keeps_input: Vec<bool>,
    pub(crate) costs: Vec<Cost>,
    pub(crate) guard: Guard,
    /// Without a pool every compute job runs inline.
    pub(crate) pool: Option<ComputePool>,
    /// The same pool, as steps see it.
    pub(crate) jobs: Option<Arc<dyn Compute>>,
    pub(crate) metrics: GraphMetrics,
    /// Which runs are timed.
    pub(crate) sampler: Sampler,
}

impl Core {
    pub(crate) fn new(plan: Arc<Plan>, pool: Option<ComputePool>, metrics: GraphMetrics) -> Self {
        let in_ports = plan.steps().iter().map(|step| step.in_edges().len() as u32).collect();
        let ids = (0..plan.steps().len()).map(|at| StepId(at as u32));
        let follower = ids.map(|id| follower(&plan, id)).collect();
        let keeps_input = plan.steps().iter().map(keeps_input).collect();
        let costs = plan.steps().iter().map(|_| Cost::default()).collect();
        let guard = Guard::new(plan.steps().len());
        let tail = |step: &PlanStep| step.phase() == Phase::Tail;
        let main_end = plan.steps().iter().position(tail).unwrap_or(plan.steps().len());
        let jobs = pool.clone().map(|pool| Arc::new(pool) as _);
        Self {
            plan,
            main_end,
            in_ports,
            follower,
            keeps_input,
            costs,
            guard,
            pool,
            jobs,
            metrics,
            sampler: Sampler::new(),
        }
    }

    /// The pool, when a job over `rows` of so many requests is worth a hop to it. A step whose cost is unknown is measured there first.
    pub(crate) fn pool_for(&self, cost: &Cost, rows: usize, requests: usize) -> Option<&ComputePool> {
        self.pool.as_ref().filter(|_| cost.worth_a_hop(rows, inline_budget(requests)))
    }

    pub(crate) fn failed(&self, cx: &RunCx, id: StepId, source: StepError) -> RunError {
        RunError::Failed { run: cx.run(), step: Arc::clone(self.plan.steps()[id.index()].name()), source }
    }
}

/// The reader of a step's rows, if a token for it need not be put down and picked up again: no other edge leaves the step, nobody
/// observes this one, and no other enters the reader, which runs in the same phase.
fn follower(plan: &Plan, id: StepId) -> Option<StepId> {
    let step = &plan.steps()[id.index()];
    let [port] = step.outputs() else { return None };
    let [edge] = port.edges() else { return None };
    let edge = &plan.edges()[edge.index()];
    let reader = &plan.steps()[edge.to().index()];
    let alone = step.error().edges().is_empty() && edge.taps().is_empty() && reader.in_edges().len() == 1;
    (alone && id != plan.respond() && reader.phase() == step.phase()).then(|| edge.to())
}

/// The nanoseconds that a job of a run for so many requests may be expected to take inline.
fn inline_budget(requests: usize) -> u64 {
    INLINE_BUDGET * (requests as u64).clamp(1, BUDGETS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_job_runs_inline_when_each_request_alone_would_have_held_the_thread_as_long() {
        let dear = Cost::default();
        dear.learn(4, Duration::from_micros(360));
        let hops = |requests| dear.worth_a_hop(4, inline_budget(requests));
        assert_eq!([1, 3, 4, 8].map(hops), [true, true, false, false]);
        assert_eq!(inline_budget(0), inline_budget(1));
        assert_eq!(inline_budget(64), inline_budget(8), "no run holds a thread for longer than that");
    }
}
