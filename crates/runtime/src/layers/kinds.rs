//! The layers as keys of a project file.

use std::{sync::Arc, time::Duration};

use millstream_graph::{
    SchemaError, Step,
    spec::{LayerKind, Time},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Batcher, Breaker, Hedge, Limit, Retry, Timeout};

/// The layers that a file may put around a step, innermost first: `batch`, `limit`, `timeout`, `hedge`, `retry`, `breaker`.
///
/// So a timeout counts from when a call is let in to its answer, each attempt of a retry has its own, and a breaker counts
/// what is left when every attempt has failed.
pub fn kinds() -> Vec<LayerKind> {
    fn made(step: impl Step) -> Result<Arc<dyn Step>, SchemaError> {
        Ok(Arc::new(step))
    }
    vec![
        LayerKind::new("batch", |settings: BatchSettings, step| made(settings.around(step)?)),
        LayerKind::new("limit", |settings: LimitSettings, step| {
            let (calls, queue) = match settings {
                LimitSettings::Calls(calls) => (calls, 0),
                LimitSettings::Queued { calls, queue } => (calls, queue),
            };
            at_least_one("calls", calls)?;
            made(Limit::new(step, calls).queue(queue))
        }),
        LayerKind::new("timeout", |time: Time, step| made(Timeout::new(step, time.0))),
        LayerKind::new("hedge", |after: Time, step| made(Hedge::new(step, after.0))),
        LayerKind::new("retry", |settings: RetrySettings, step| match settings {
            RetrySettings::Times(times) => made(Retry::new(step, times)),
            RetrySettings::Spaced { times, base, longest } => {
                made(Retry::new(step, times).backoff(base.0, longest.0))
            }
        }),
        LayerKind::new("breaker", |settings: Option<BreakerSettings>, step| {
            let BreakerSettings { failures, open } = settings.unwrap_or_default();
            at_least_one("failures", failures as usize)?;
            made(Breaker::new(step).after(failures).open_for(open.0))
        }),
    ]
}

fn at_least_one(key: &str, value: usize) -> Result<(), SchemaError> {
    if value == 0 { Err(SchemaError::new(format!("`{key}` is at least 1"))) } else { Ok(()) }
}

/// At most so many calls inside the step at once.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields, expecting = "a number of calls, or a map of `calls` and `queue`")]
enum LimitSettings {
    /// So many calls; one too many is refused.
    Calls(usize),
    /// So many calls, and so many that wait.
    Queued {
        /// Calls inside at once.
        calls: usize,
        /// Calls that wait, first come, first served; one too many is refused.
        queue: usize,
    },
}

/// Further attempts when something that the step depends on did not answer.
#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a number of attempts, or a map of `times`, `base` and `longest`"
)]
enum RetrySettings {
    /// So many further attempts.
    Times(u32),
    /// So many, and how far apart.
    Spaced {
        /// Further attempts.
        times: u32,
        /// The longest time before the first; it doubles.
        #[serde(default = "base")]
        base: Time,
        /// The longest time before any.
        #[serde(default = "longest")]
        longest: Time,
    },
}

fn base() -> Time {
    Time(Duration::from_millis(10))
}

fn longest() -> Time {
    Time(Duration::from_millis(250))
}

/// No calls for a while when calls keep failing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BreakerSettings {
    /// Failures in a row after which no call is made.
    failures: u32,
    /// For how long.
    open: Time,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, open: Time(Duration::from_secs(5)) }
    }
}

/// Calls of several runs put together into one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BatchSettings {
    /// Rows of one call at most.
    rows: usize,
    /// How long the first row of a call waits for others at most. Without it a call waits only for one before it to end.
    #[serde(default)]
    delay: Option<Time>,
    /// Calls of the step at once; by default one per core.
    #[serde(default)]
    calls: Option<usize>,
    /// Rows that may wait; a call that brings more is refused. By default 64 calls' worth.
    #[serde(default)]
    queue_rows: Option<usize>,
    /// Bytes that may wait.
    #[serde(default)]
    queue_bytes: Option<usize>,
}

impl BatchSettings {
    fn around(self, step: Arc<dyn Step>) -> Result<Batcher<Arc<dyn Step>>, SchemaError> {
        at_least_one("rows", self.rows)?;
        let mut batcher = Batcher::new(step, self.rows);
        if let Some(delay) = self.delay {
            batcher = batcher.delay(delay.0);
        }
        if let Some(calls) = self.calls {
            at_least_one("calls", calls)?;
            batcher = batcher.calls(calls);
        }
        if let Some(rows) = self.queue_rows {
            batcher = batcher.queue_rows(rows);
        }
        if let Some(bytes) = self.queue_bytes {
            batcher = batcher.queue_bytes(bytes);
        }
        Ok(batcher)
    }
}
