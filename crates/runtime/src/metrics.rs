//! What engines count, as Prometheus metrics.

use millstream_graph::{Plan, StepError, StepId};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::distribution::{Recorder, Recorders, recorders};

/// Seconds; a run of a few small models takes 10 to 100 us.
pub(crate) const RUN_EDGES: [f64; 16] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0,
];

/// Seconds; steps and waits begin at a tenth of a microsecond.
pub(crate) const STEP_EDGES: [f64; 20] = [
    1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3,
    0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Rows that share a run.
const ROWS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The metrics of all engines of a process. Labels are graphs, steps and kinds of error: their number is bounded.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    runs: IntCounterVec,
    rows: IntCounterVec,
    degraded: IntCounterVec,
    seconds: Recorders,
    door_wait: Recorders,
    pool_wait: Recorders,
    step_seconds: Recorders,
    shared_rows: HistogramVec,
    in_flight: IntGaugeVec,
    concurrency_limit: IntGaugeVec,
    step_errors: IntCounterVec,
    /// The same without their kinds, which is not exposed.
    step_failures: IntCounterVec,
    /// Nanoseconds of runs that failed, which is not exposed.
    failed_nanos: IntCounterVec,
    step_failed_rows: IntCounterVec,
    step_degraded: IntCounterVec,
    tap_panics: IntCounterVec,
}

impl Metrics {
    /// Metrics in a registry of their own.
    ///
    /// # Errors
    /// Never in practice: the names are valid and distinct.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let times = |name: &str, help: &str, labels: &[&str], edges: &'static [f64]| {
            let times = recorders(name, help, labels, edges)?;
            registry.register(Box::new(times.clone()))?;
            Ok::<_, prometheus::Error>(times)
        };
        let shared_rows = HistogramVec::new(
            HistogramOpts::new("millstream_shared_run_rows", "Rows of requests that came together, per run")
                .buckets(ROWS.to_vec()),
            &["graph"],
        )?;
        registry.register(Box::new(shared_rows.clone()))?;
        let in_flight =
            IntGaugeVec::new(Opts::new("millstream_runs_in_flight", "Runs under way"), &["graph"])?;
        registry.register(Box::new(in_flight.clone()))?;
        let concurrency_limit = IntGaugeVec::new(
            Opts::new("millstream_runs_limit", "Runs that may be under way now"),
            &["graph"],
        )?;
        registry.register(Box::new(concurrency_limit.clone()))?;
        Ok(Self {
            runs: counter("millstream_runs_total", "Runs by outcome", &["graph", "outcome"])?,
            rows: counter("millstream_rows_total", "Rows of requests that were run", &["graph"])?,
            step_errors: counter(
                "millstream_step_errors_total",
                "Failures of steps",
                &["graph", "step", "kind"],
            )?,
            step_failed_rows: counter(
                "millstream_step_failed_rows_total",
                "Rows that a step could not accept",
                &["graph", "step"],
            )?,
            step_degraded: counter(
                "millstream_step_degraded_total",
                "Answers of steps that were replaced, left out or incomplete",
                &["graph", "step"],
            )?,
            step_failures: IntCounterVec::new(
                Opts::new("step_failures", "Failures of steps"),
                &["graph", "step"],
            )?,
            failed_nanos: IntCounterVec::new(
                Opts::new("failed_nanos", "Time of runs that failed"),
                &["graph"],
            )?,
            tap_panics: counter("millstream_tap_panics_total", "Panics of taps", &["graph"])?,
            degraded: counter(
                "millstream_degraded_replies_total",
                "Replies that were not all they should be",
                &["graph"],
            )?,
            seconds: times(
                "millstream_run_seconds",
                "Time from a run's admission to its reply",
                &["graph"],
                &RUN_EDGES,
            )?,
            door_wait: times(
                "millstream_door_wait_seconds",
                "Time from a request's admission to the start of the run that it may share",
                &["graph"],
                &STEP_EDGES,
            )?,
            pool_wait: times(
                "millstream_pool_wait_seconds",
                "Time that jobs waited for a compute thread",
                &["graph"],
                &STEP_EDGES,
            )?,
            step_seconds: times(
                "millstream_step_seconds",
                "Time from a step's call to its answer, in the runs that are timed",
                &["graph", "step"],
                &STEP_EDGES,
            )?,
            shared_rows,
            in_flight,
            concurrency_limit,
            registry,
        })
    }

    /// The registry that holds them, to gather from and to register more in.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn graph(&self, plan: &Plan) -> GraphMetrics {
        let graph = plan.name();
        let runs = |outcome: &str| self.runs.with_label_values(&[graph, outcome]);
        let steps = plan.steps().iter().map(|step| {
            let labels = [graph, &**step.name()];
            StepMetrics {
                seconds: self.step_seconds.with_label_values(&labels),
                errors: self.step_failures.with_label_values(&labels),
                failed_rows: self.step_failed_rows.with_label_values(&labels),
                degraded: self.step_degraded.with_label_values(&labels),
            }
        });
        GraphMetrics {
            ok: runs("ok"),
            failed: runs("failed"),
            failed_nanos: self.failed_nanos.with_label_values(&[graph]),
            refused: runs("refused"),
            cancelled: runs("cancelled"),
            rows: self.rows.with_label_values(&[graph]),
            degraded: self.degraded.with_label_values(&[graph]),
            seconds: self.seconds.with_label_values(&[graph]),
            door_wait: self.door_wait.with_label_values(&[graph]),
            pool_wait: self.pool_wait.with_label_values(&[graph]),
            shared_rows: self.shared_rows.with_label_values(&[graph]),
            in_flight: self.in_flight.with_label_values(&[graph]),
            concurrency_limit: self.concurrency_limit.with_label_values(&[graph]),
            tap_panics: self.tap_panics.with_label_values(&[graph]),
            steps: steps.collect(),
            step_errors: self.step_errors.clone(),
        }
    }
}

/// One graph's share: what every run touches is resolved, what only failures touch is looked up then.
pub(crate) struct GraphMetrics {
    pub(crate) ok: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) failed_nanos: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) cancelled: IntCounter,
    pub(crate) rows: IntCounter,
    pub(crate) degraded: IntCounter,
    pub(crate) seconds: Recorder,
    pub(crate) door_wait: Recorder,
    pub(crate) pool_wait: Recorder,
    pub(crate) shared_rows: Histogram,
    pub(crate) in_flight: IntGauge,
    pub(crate) concurrency_limit: IntGauge,
    pub(crate) tap_panics: IntCounter,
    /// In the plan's order.
    pub(crate) steps: Vec<StepMetrics>,
    step_errors: IntCounterVec,
}

/// One step's share.
pub(crate) struct StepMetrics {
    pub(crate) seconds: Recorder,
    pub(crate) errors: IntCounter,
    pub(crate) failed_rows: IntCounter,
    pub(crate) degraded: IntCounter,
}

impl GraphMetrics {
    pub(crate) fn step_failed(&self, plan: &Plan, id: StepId, error: &StepError) {
        self.steps[id.index()].errors.inc();
        let step = plan.steps()[id.index()].name();
        self.step_errors.with_label_values(&[plan.name(), &**step, error.kind().name()]).inc();
    }
}
