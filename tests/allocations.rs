//! How often a run allocates: counted, not timed.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use millstream::{
    DecodeLimits, Engine, Graph, Input, Limits, Output, Project, RunCx, SchemaError, Signature, Step, Work,
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    fields, rows,
    wire::{
        Form,
        json::{Decoder, Encoder},
    },
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
    let mut run = pin!(engine.run(batch));
    loop {
        // A first, cold run may yield in between.
        if let Poll::Ready(reply) = run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return reply.unwrap().into_rows();
        }
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

/// Decode, run and encode of one request to the fraud graph. ONNX Runtime's own allocations are not seen from here.
#[test]
fn one_request_to_the_fraud_graph_allocates_about_a_hundred_times() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fraud");
    let text = std::fs::read_to_string(folder.join("data/requests.jsonl")).unwrap();
    let body = text.lines().next().unwrap().as_bytes();
    let project = Project::load(&folder).unwrap();
    let engine = project.engine("fraud", Limits { compute_threads: 0, ..Limits::default() }).unwrap();
    let decoder = Decoder::new(Arc::clone(engine.plan().input_schema()), DecodeLimits::default()).unwrap();
    let encoder = Encoder::new(Arc::clone(engine.plan().reply_schema())).unwrap();
    let mut answer = Vec::with_capacity(256);
    let mut counts = [0; 3];
    // The first rounds fill what is kept between runs.
    for _ in 0..5 {
        let (mut batch, mut rows) = (None, None);
        counts = [
            allocation_counter::measure(|| batch = Some(decoder.decode(body).unwrap().batch)).count_total,
            allocation_counter::measure(|| rows = Some(run(&engine, batch.take().unwrap()))).count_total,
            allocation_counter::measure(|| {
                answer.clear();
                encoder.encode(rows.as_ref().unwrap(), Form::Object, &mut answer).unwrap();
            })
            .count_total,
        ];
    }
    let [decode, run, encode] = counts;
    println!("allocations per request: {decode} to decode, {run} to run, {encode} to encode");
    assert!(decode + run + encode <= 130, "{counts:?}");
}
