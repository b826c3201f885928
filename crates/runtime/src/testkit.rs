//! Steps and taps that make the moment explicit: gates, planted failures, recorders. For tests of graphs and steps.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use millstream_graph::{
    EdgeId, Effect, Input, Output, RunCx, RunId, SchemaError, Seen, Signature, Step, StepError, Tap, Work,
};
use tokio::sync::Semaphore;

use crate::{Engine, Limits};
pub use millstream_graph::{fields, rows};

/// An engine of the graph that `build` writes on a request of one column `id: Int64`; what it answers is the reply.
///
/// # Panics
/// When the graph does not compile.
pub fn engine_of(build: impl FnOnce(&mut millstream_graph::Graph) -> millstream_graph::PortRef) -> Engine {
    engine_with(Limits::default(), build)
}

/// Like [`engine_of`], under limits.
///
/// # Panics
/// When the graph does not compile.
pub fn engine_with(
    limits: Limits,
    build: impl FnOnce(&mut millstream_graph::Graph) -> millstream_graph::PortRef,
) -> Engine {
    let mut graph = millstream_graph::Graph::new("test", fields! { id: Int64 });
    let reply = build(&mut graph);
    graph.respond(&reply);
    let plan = graph.compile().unwrap_or_else(|errors| panic!("{errors}"));
    Engine::new(plan, limits).unwrap_or_else(|error| panic!("{error}"))
}

/// Polls a future once, with a waker that wakes nobody.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Asserts that everything a `Weak` watches was freed.
///
/// # Panics
/// When something still holds it.
pub fn assert_freed<T>(watched: &Weak<T>) {
    assert_eq!(watched.strong_count(), 0, "something still holds it");
}

/// A step that never answers, and a watch on what its waiting holds.
pub fn stall() -> (Stall, Weak<()>) {
    let held = Arc::new(());
    let alive = Arc::downgrade(&held);
    (Stall { held: Mutex::new(Some(held)) }, alive)
}

/// A step that never answers; see [`stall`].
pub struct Stall {
    held: Mutex<Option<Arc<()>>>,
}

impl Step for Stall {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        pass_through(inputs)
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        let held = locked(&self.held).take();
        Work::Io(Box::pin(async move {
            let _held = (input, held);
            std::future::pending().await
        }))
    }
}

/// A step that hands its rows on once its gate was opened that often; see [`gate`].
pub struct Gated {
    gate: Arc<Semaphore>,
}

/// What opens a [`Gated`] step.
pub struct Gate {
    gate: Arc<Semaphore>,
}

/// A step behind a gate, and the gate.
pub fn gate() -> (Gated, Gate) {
    let gate = Arc::new(Semaphore::new(0));
    (Gated { gate: Arc::clone(&gate) }, Gate { gate })
}

impl Gate {
    /// Lets `runs` runs through.
    pub fn open(&self, runs: usize) {
        self.gate.add_permits(runs);
    }
}

impl Step for Gated {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        pass_through(inputs)
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Io(Box::pin(async move {
            if let Ok(permit) = self.gate.acquire().await {
                permit.forget();
            }
            input.rows(0).map(Output::one)
        }))
    }
}

/// A step that fails with this error.
pub struct Boom(pub StepError);

impl Step for Boom {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        pass_through(inputs)
    }

    fn call<'a>(&'a self, _input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(Err(self.0.clone()))
    }
}

/// Where a [`Panics`] step panics.
#[derive(Clone, Copy, Debug)]
pub enum Panics {
    /// In `call`.
    InCall,
    /// While it waits.
    InIo,
    /// In its compute job.
    InCompute,
}

impl Step for Panics {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        pass_through(inputs)
    }

    fn call<'a>(&'a self, _input: Input, _cx: &'a RunCx) -> Work<'a> {
        match self {
            Self::InCall => panic!("planted"),
            Self::InIo => Work::Io(Box::pin(async { panic!("planted") })),
            Self::InCompute => Work::Compute(Box::new(|| panic!("planted"))),
        }
    }
}

/// A step that hands its rows on and counts its calls.
#[derive(Clone, Default)]
pub struct Counted {
    calls: Arc<AtomicUsize>,
}

impl Counted {
    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

impl Step for Counted {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(pass_through(inputs)?.with_effect(Effect::Once))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.calls.fetch_add(1, SeqCst);
        Work::Done(input.rows(0).map(Output::one))
    }
}

/// A tap that keeps what it sees, request by request.
#[derive(Clone, Default)]
pub struct Record {
    seen: Arc<Mutex<Vec<(EdgeId, RunId, RecordBatch)>>>,
}

impl Record {
    /// What it saw so far, in order.
    pub fn seen(&self) -> Vec<(EdgeId, RunId, RecordBatch)> {
        locked(&self.seen).clone()
    }
}

impl Tap for Record {
    fn observe(&self, seen: &Seen<'_>) {
        let rows = seen.requests().map(|(share, rows)| (seen.edge(), share.run, rows.into_batch()));
        locked(&self.seen).extend(rows);
    }
}

fn pass_through(inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
    match inputs {
        [one] => Ok(Signature::row_wise(Arc::clone(one))),
        _ => Err(SchemaError::new("takes one input")),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
