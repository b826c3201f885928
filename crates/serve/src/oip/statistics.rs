//! What a model has done so far, as clients of Triton ask for it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use millstream_runtime::Totals;
use serde_json::{Value, json};

use super::models::Model;

/// What the protocol adds to what engines count: the two ends of a request, and when the last one came.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) input: Took,
    pub(super) output: Took,
    /// Milliseconds since 1970; 0 for never.
    last: AtomicU64,
}

/// Nanoseconds at which buckets end.
pub(super) const EDGES: [u64; 12] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

/// How often something was done, and how long it took: each time by its bucket, and in all.
#[derive(Default)]
pub(super) struct Took {
    counts: [AtomicU64; EDGES.len() + 1],
    nanos: AtomicU64,
}

impl Took {
    fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let nanos = nanos(start.elapsed());
        self.counts[EDGES.partition_point(|edge| *edge < nanos)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        done
    }

    pub(super) fn total(&self) -> Total {
        let count = self.counts.iter().map(|count| count.load(Relaxed)).sum();
        Total { count, nanos: self.nanos.load(Relaxed) }
    }

    /// How often it took no longer, for each edge.
    pub(super) fn up_to_edges(&self) -> impl Iterator<Item = u64> {
        let counts = self.counts[..EDGES.len()].iter();
        counts.scan(0, |sum, count| {
            *sum += count.load(Relaxed);
            Some(*sum)
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Counts {
    /// Reads the tensors of a request.
    pub(super) fn reading<T>(&self, work: impl FnOnce() -> T) -> T {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
        self.input.time(work)
    }

    /// Writes those of a reply.
    pub(super) fn writing<T>(&self, work: impl FnOnce() -> T) -> T {
        self.output.time(work)
    }
}

/// How often, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) count: u64,
    pub(super) nanos: u64,
}

impl Total {
    fn json(self) -> Value {
        json!({ "count": self.count, "ns": self.nanos })
    }
}

/// The statistics of one version of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    pub(super) name: String,
    pub(super) version: String,
    /// When the last request came over this protocol, in milliseconds since 1970.
    pub(super) last_inference: u64,
    /// Rows that were run.
    pub(super) inference_count: u64,
    /// Runs, in each of which several requests may have come together.
    pub(super) execution_count: u64,
    pub(super) success: Total,
    pub(super) fail: Total,
    /// Waiting for the run that a request shares, and for a thread.
    pub(super) queue: Total,
    /// Reading the tensors of requests.
    pub(super) compute_input: Total,
    /// Running.
    pub(super) compute_infer: Total,
    /// Writing the tensors of replies.
    pub(super) compute_output: Total,
}

impl Statistics {
    pub(super) fn of(model: &Model) -> Self {
        let counts = &model.counts;
        let own = Self {
            name: model.name().to_owned(),
            version: model.version().to_owned(),
            last_inference: counts.last.load(Relaxed),
            compute_input: counts.input.total(),
            compute_output: counts.output.total(),
            ..Self::default()
        };
        match model.totals() {
            Some(totals) => own.with(&totals),
            None => own,
        }
    }

    fn with(self, totals: &Totals) -> Self {
        let waited = nanos(totals.door_wait.sum()).saturating_add(nanos(totals.pool_wait.sum()));
        let (ran, failed) = (nanos(totals.seconds.sum()), nanos(totals.failed_time));
        let ends = self.compute_input.nanos.saturating_add(self.compute_output.nanos);
        Self {
            inference_count: totals.rows,
            execution_count: totals.executions(),
            success: Total { count: totals.ok, nanos: ran.saturating_sub(failed).saturating_add(ends) },
            fail: Total { count: totals.failed + totals.refused + totals.cancelled, nanos: failed },
            queue: Total { count: totals.seconds.count(), nanos: waited },
            compute_infer: Total { count: totals.seconds.count(), nanos: ran.saturating_sub(waited) },
            ..self
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "version": self.version,
            "last_inference": self.last_inference,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {
                "success": self.success.json(),
                "fail": self.fail.json(),
                "queue": self.queue.json(),
                "compute_input": self.compute_input.json(),
                "compute_infer": self.compute_infer.json(),
                "compute_output": self.compute_output.json(),
                "cache_hit": Total::default().json(),
                "cache_miss": Total::default().json(),
            },
            "batch_stats": [],
            "memory_usage": [],
            "response_stats": {},
        })
    }
}
