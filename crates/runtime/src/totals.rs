//! What an engine has counted, at one moment; the difference of two moments is what happened in between.

use std::{sync::Arc, time::Duration};

use crate::{Distribution, Engine};

/// What was counted of a graph, since its metrics were made or between two moments.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Totals {
    /// Requests that were answered.
    pub ok: u64,
    /// Requests whose run failed.
    pub failed: u64,
    /// Requests that were refused because as many runs as allowed were under way.
    pub refused: u64,
    /// Requests whose caller went away.
    pub cancelled: u64,
    /// Rows of requests that were run.
    pub rows: u64,
    /// Replies that were not all they should be.
    pub degraded: u64,
    /// Requests under way, now.
    pub in_flight: u64,
    /// Runs that began at the [`Door`](crate::Door), with one request or several.
    pub door_runs: u64,
    /// Rows of those runs.
    pub door_rows: u64,
    /// From a request's admission to its reply, or to its failure.
    pub seconds: Distribution,
    /// The part of that time in which requests came to fail.
    pub failed_time: Duration,
    /// From a request's admission to the start of the run that it shares.
    pub door_wait: Distribution,
    /// From handing a job to the compute pool to its start.
    pub pool_wait: Distribution,
    /// The steps, in the plan's order.
    pub steps: Vec<StepTotals>,
}

/// What was counted of a step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepTotals {
    /// The step.
    pub name: Arc<str>,
    /// The word for what kind of step it is.
    pub kind: &'static str,
    /// From its call to its answer, in the runs that were timed: all of them, or a sample when there are many.
    pub seconds: Distribution,
    /// Calls that failed.
    pub errors: u64,
    /// Rows that it could not accept.
    pub failed_rows: u64,
    /// Answers that were replaced, left out or incomplete.
    pub degraded: u64,
}

impl Engine {
    /// What has been counted so far, together with all engines of the same graph that share its metrics.
    pub fn totals(&self) -> Totals {
        let core = &self.shared.core;
        let metrics = &core.metrics;
        let steps = core.plan.steps().iter().zip(&metrics.steps).map(|(step, counted)| StepTotals {
            name: Arc::clone(step.name()),
            kind: step.kind(),
            seconds: counted.seconds.read(),
            errors: counted.errors.get(),
            failed_rows: counted.failed_rows.get(),
            degraded: counted.degraded.get(),
        });
        Totals {
            ok: metrics.ok.get(),
            failed: metrics.failed.get(),
            refused: metrics.refused.get(),
            cancelled: metrics.cancelled.get(),
            rows: metrics.rows.get(),
            degraded: metrics.degraded.get(),
            in_flight: u64::try_from(metrics.in_flight.get()).unwrap_or(0),
            door_runs: metrics.shared_rows.get_sample_count(),
            door_rows: metrics.shared_rows.get_sample_sum() as u64,
            seconds: metrics.seconds.read(),
            failed_time: Duration::from_nanos(metrics.failed_nanos.get()),
            door_wait: metrics.door_wait.read(),
            pool_wait: metrics.pool_wait.read(),
            steps: steps.collect(),
        }
    }
}

impl Totals {
    /// Runs, of one request or of several.
    pub fn executions(&self) -> u64 {
        // Requests that came through the door share its runs; each of the others has one of its own.
        let alone = self.seconds.count().saturating_sub(self.door_wait.count());
        self.door_runs.saturating_add(alone)
    }

    /// What was counted since `earlier`. Steps that were not there then count from their beginning.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let steps =
            self.steps.iter().map(|step| match earlier.steps.iter().find(|other| other.name == step.name) {
                Some(earlier) => step.since(earlier),
                None => step.clone(),
            });
        Self {
            ok: self.ok.saturating_sub(earlier.ok),
            failed: self.failed.saturating_sub(earlier.failed),
            refused: self.refused.saturating_sub(earlier.refused),
            cancelled: self.cancelled.saturating_sub(earlier.cancelled),
            rows: self.rows.saturating_sub(earlier.rows),
            degraded: self.degraded.saturating_sub(earlier.degraded),
            in_flight: self.in_flight,
            door_runs: self.door_runs.saturating_sub(earlier.door_runs),
            door_rows: self.door_rows.saturating_sub(earlier.door_rows),
            seconds: self.seconds.since(&earlier.seconds),
            failed_time: self.failed_time.saturating_sub(earlier.failed_time),
            door_wait: self.door_wait.since(&earlier.door_wait),
            pool_wait: self.pool_wait.since(&earlier.pool_wait),
            steps: steps.collect(),
        }
    }
}

impl StepTotals {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            kind: self.kind,
            seconds: self.seconds.since(&earlier.seconds),
            errors: self.errors.saturating_sub(earlier.errors),
            failed_rows: self.failed_rows.saturating_sub(earlier.failed_rows),
            degraded: self.degraded.saturating_sub(earlier.degraded),
        }
    }
}
