//! Further attempts at a step whose dependency did not answer.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use millstream_graph::{
    Effect, ErrorKind, Input, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};

use super::tokens::Tokens;

/// Retries are at most one in so many calls.
const ONE_IN: u32 = 5;

/// A step that is called again when it fails with [`Unavailable`](ErrorKind::Unavailable) or
/// [`DeadlineExceeded`](ErrorKind::DeadlineExceeded).
///
/// Only steps that may be repeated can be wrapped: compile refuses one with [`Effect::Once`]. Attempts are a random time apart
/// that doubles at most (full jitter), so that callers do not come back all at once; there is none when the run's deadline would
/// pass before it. Retries are at most a fifth of the calls, so that a dependency that is down is not asked many times as much.
/// The last failure is the answer.
#[derive(Debug)]
pub struct Retry<S> {
    inner: S,
    times: u32,
    base: Duration,
    longest: Duration,
    tokens: Tokens,
}

impl<S: Step> Retry<S> {
    /// Up to `times` further attempts, 10 ms apart at first and 250 ms at most.
    pub fn new(inner: S, times: u32) -> Self {
        Self {
            inner,
            times,
            base: Duration::from_millis(10),
            longest: Duration::from_millis(250),
            tokens: Tokens::one_in(ONE_IN),
        }
    }

    /// The time before the first further attempt is random up to `base`; it doubles up to `longest`.
    #[must_use]
    pub fn backoff(mut self, base: Duration, longest: Duration) -> Self {
        (self.base, self.longest) = (base, longest);
        self
    }

    /// The time before attempt `attempt`, counted from the first retry.
    fn pause(&self, attempt: u32) -> Duration {
        let longest = self.base.saturating_mul(1 << attempt.min(20)).min(self.longest);
        longest.mul_f64(fastrand::f64())
    }

    async fn settle<'a>(&'a self, mut work: Work<'a>, input: Input, cx: &'a RunCx) -> StepResult {
        let mut attempt = 0;
        loop {
            let result = match work {
                Work::Done(result) => result,
                Work::Io(answer) => answer.await,
                // Only a later attempt comes here; a first one that computes was handed on.
                Work::Compute(job) => cx.compute(job).await,
            };
            let pause = self.pause(attempt);
            let worth_it = |error: &StepError| {
                attempt < self.times
                    && passes(error.kind())
                    && cx.remaining().is_none_or(|left| pause < left)
                    && self.tokens.spend()
            };
            if !result.as_ref().is_err_and(worth_it) {
                return result;
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
            work = self.inner.call(input.clone(), cx);
        }
    }
}

/// Whether trying again may help.
fn passes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded)
}

impl<S: Step> Step for Retry<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let signature = self.inner.signature(inputs)?;
        if signature.effect == Effect::Once {
            return Err(SchemaError::new("it must happen once per request, so it cannot be retried"));
        }
        Ok(signature)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        self.tokens.earn();
        let again = input.clone();
        match self.inner.call(input, cx) {
            Work::Done(Err(error)) if passes(error.kind()) => {
                Work::Io(Box::pin(self.settle(Work::Done(Err(error)), again, cx)))
            }
            Work::Io(answer) => Work::Io(Box::pin(self.settle(Work::Io(answer), again, cx))),
            other => other,
        }
    }
}
