//! What the engine costs, beside what the same work costs without it, in the same process.
//!
//! `cargo bench` runs everything; `cargo bench -- one_row` one group. Every group names its floor.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench is no interface, and fails loudly")]

/// The allocator of the `millstream` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod alerts;
mod expressions;
mod fan_out;
mod hand;
mod json;
mod labels;
mod one_row;
mod point_in_time;
mod request_log;
mod skew;
mod step_overhead;
mod taps;
mod windows;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use criterion::{Criterion, criterion_group, criterion_main};
use millstream::{
    Graph, Input, Limits, Output, RunCx, SchemaError, Signature, Step, Work, arrow::datatypes::SchemaRef,
};

fn all(c: &mut Criterion) {
    // The engine asks the runtime for the time; nothing here waits for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    step_overhead::bench(c);
    fan_out::bench(c);
    expressions::bench(c);
    json::bench(c);
    one_row::bench(c);
    point_in_time::bench(c);
    skew::bench(c);
    taps::bench(c);
    alerts::bench(c);
    labels::bench(c);
    request_log::bench(c);
    windows::bench(c);
}

criterion_group!(benches, all);
criterion_main!(benches);

/// The answer of a run that has nothing to wait for. A first, cold run may yield in between.
fn now<F: Future>(run: F) -> F::Output {
    let mut run = pin!(run);
    loop {
        if let Poll::Ready(answer) = run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
    }
}

/// An engine that computes inline, so that a run is one poll.
fn inline_engine(graph: &Graph) -> millstream::Engine {
    let limits = Limits { compute_threads: 0, ..Limits::default() };
    millstream::Engine::new(graph.compile().unwrap(), limits).unwrap()
}

/// A step that hands its rows on.
struct NoOp;

impl Step for NoOp {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }
    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).map(Output::one))
    }
}
