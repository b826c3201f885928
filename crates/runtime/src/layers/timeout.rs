//! A bound on how long a step waits.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use millstream_graph::{ErrorKind, Input, RunCx, SchemaError, Signature, Step, StepError, Work};

/// A step whose calls wait no longer than a limit; then they fail with
/// [`DeadlineExceeded`](millstream_graph::ErrorKind::DeadlineExceeded), and what they wait for is dropped.
///
/// The run's own deadline holds in any case. A job that computes is not interrupted: it has no time but the run's.
#[derive(Debug)]
pub struct Timeout<S> {
    inner: S,
    limit: Duration,
}

impl<S: Step> Timeout<S> {
    /// At most `limit` per call of `inner`.
    pub fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<S: Step> Step for Timeout<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.inner.signature(inputs)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        match self.inner.call(input, cx) {
            Work::Io(answer) => Work::Io(Box::pin(async move {
                tokio::time::timeout(self.limit, answer).await.unwrap_or_else(|_| {
                    let message = format!("no answer within {:?}", self.limit);
                    Err(StepError::new(ErrorKind::DeadlineExceeded, message))
                })
            })),
            other => other,
        }
    }
}
