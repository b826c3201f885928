//! A bound on how many calls are inside a step at once.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_graph::{ErrorKind, Input, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A step that at most so many calls are inside of at once, so that one slow dependency cannot take everything.
///
/// A call too many is refused with [`Overloaded`](ErrorKind::Overloaded), or waits for its turn when there is a place in the
/// [`queue`](Self::queue). A call is inside until it has answered, its job has finished, or its run was dropped.
#[derive(Debug)]
pub struct Limit<S> {
    inner: S,
    calls: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl<S: Step> Limit<S> {
    /// At most `calls` calls of `inner` at once, and none that waits.
    pub fn new(inner: S, calls: usize) -> Self {
        let calls = calls.clamp(1, Semaphore::MAX_PERMITS);
        Self { inner, calls: Arc::new(Semaphore::new(calls)), places: Arc::new(Semaphore::new(0)) }
    }

    /// Lets up to `places` calls wait, first come, first served.
    #[must_use]
    pub fn queue(mut self, places: usize) -> Self {
        self.places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        self
    }

    async fn wait<'a>(&'a self, place: OwnedSemaphorePermit, input: Input, cx: &'a RunCx) -> StepResult {
        let turn = Arc::clone(&self.calls).acquire_owned().await;
        drop(place);
        // The semaphore is never closed.
        let Ok(turn) = turn else { return Err(StepError::internal("the limit is closed")) };
        match self.inside(turn, input, cx) {
            Work::Done(result) => result,
            Work::Io(answer) => answer.await,
            Work::Compute(job) => cx.compute(job).await,
        }
    }

    fn inside<'a>(&'a self, turn: OwnedSemaphorePermit, input: Input, cx: &'a RunCx) -> Work<'a> {
        match self.inner.call(input, cx) {
            Work::Done(result) => Work::Done(result),
            Work::Io(answer) => Work::Io(Box::pin(async move {
                let _turn = turn;
                answer.await
            })),
            Work::Compute(job) => Work::Compute(Box::new(move || {
                let _turn = turn;
                job()
            })),
        }
    }
}

impl<S: Step> Step for Limit<S> {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.inner.signature(inputs)
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        if let Ok(turn) = Arc::clone(&self.calls).try_acquire_owned() {
            return self.inside(turn, input, cx);
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Work::Io(Box::pin(self.wait(place, input, cx))),
            Err(_) => Work::Done(Err(StepError::new(ErrorKind::Overloaded, "too many calls at once"))),
        }
    }
}
