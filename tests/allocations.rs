//! How often a run allocates: counted, not timed.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use millstream::{
    Engine, Graph, Input, Limits, Output, RunCx, SchemaError, Signature, Step, Work,
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    fields, rows,
};

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

fn run(engine: &Engine, batch: RecordBatch) -> RecordBatch {
    match pin!(engine.run(batch)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reply) => reply.unwrap().into_rows(),
        Poll::Pending => panic!("the run waits"),
    }
}

/// The allocations of one run of a chain, once the engine has run before.
fn allocations_of_chain(length: usize) -> u64 {
    let mut graph = Graph::new("chain", fields! { id: Int64 });
    let mut port = graph.input();
    for at in 0..length {
        port = graph.step(&format!("s{at}"), &port, NoOp);
    }
    graph.respond(&port);
    let engine =
        Engine::new(graph.compile().unwrap(), Limits { compute_threads: 0, ..Limits::default() }).unwrap();
    let batch = run(&engine, run(&engine, rows! { id: [1i64] }));
    allocation_counter::measure(|| drop(run(&engine, batch))).count_total
}

#[test]
fn a_hop_in_a_chain_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let (short, long) = (allocations_of_chain(1), allocations_of_chain(64));
    assert_eq!(short, long, "64 steps allocate as often as one");
    assert!(short <= 1, "a run of a chain allocates {short} times");
}
