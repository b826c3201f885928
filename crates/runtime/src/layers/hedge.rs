//! A second call when the first takes long.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures_util::future::{Either, select};
use millstream_graph::{Effect, Input, RunCx, SchemaError, Signature, Step, StepFuture, StepResult, Work};

use super::tokens::Tokens;

/// Second calls are at most one in so many calls.
const ONE_IN: u32 = 20;

/// A step that is called a second time when it has not answered after a while; the first good answer counts, and what the
/// other waits for is dropped.
///
/// For reads from replicated stores, whose slowest answers are slow by chance: set the time near the 95th percentile. Only
/// steps that may be repeated can be wrapped. Second calls are at most a twentieth of the calls, so that a dependency that
/// is slow for everybody is not asked twice as much. Steps that compute are called once.
#[derive(Debug)]
pub struct Hedge<S> {
    inner: S,
    after: Duration,
    tokens: Tokens,
}

impl<S: Step> Hedge<S> {
    /// A second call of `inner` after `after`.
    pub fn new(inner: S, after: Duration) -> Self {
        Self { inner, after, tokens: Tokens::one_in(ONE_IN) }
    }

    async fn settle<'a>(&'a self, first: StepFuture<'a>, input: Input, cx: &'a RunCx) -> StepResult {
        let pause = Box::pin(tokio::time::sleep(self.after));
        let first = match select(first, pause).await {
            Either::Left((answer, _)) => return answer,
            Either::Right(((), first)) => first,
        };
        if !self.tokens.spend() {
            return first.await;
        }
        let second: StepFuture<'a> = match self.inner.call(input, cx) {
            Work::Done(result) => Box::pin(async { result }),
            Work::Io(answer) => answer,
            Work::Compute(job) => Box::pin(cx.compute(job)),
        };
        let (answer, other) = match select(first, second).await {
            Either::Left(parts) | Either::Right(parts) => parts,
        };
        // A call that fails at once must not win over one that would have answered.
        if answer.is_ok() { answer } else { other.await.or(answer) }
    }
}

impl<S: Step> Step for Hedge<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let signature = self.inner.signature(inputs)?;
        if signature.effect == Effect::Once {
            return Err(SchemaError::new("it must happen once per request, so it cannot be called twice"));
        }
        Ok(signature)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        self.tokens.earn();
        let again = input.clone();
        match self.inner.call(input, cx) {
            Work::Io(answer) => Work::Io(Box::pin(self.settle(answer, again, cx))),
            other => other,
        }
    }
}
