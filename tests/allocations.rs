//! How often a run allocates, and how many bytes monitoring keeps: counted, not timed.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use millstream::{
    DecodeLimits, EdgeId, Engine, Graph, Input, Limits, Output, Project, Request, Rows, RunCx, RunId,
    SchemaError, Seen, Signature, Step, Work,
    arrow::{
        array::{ArrayRef, Float64Array, RecordBatch, StringArray},
        datatypes::SchemaRef,
    },
    fields,
    monitor::{History, Keep, Layout, Monitor, Reference, ReferenceOptions, Watching},
    rows,
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

/// So many columns of numbers or of labels, and one that divides the rows into segments.
fn watched_rows(columns: usize, segments: usize, labels: bool) -> RecordBatch {
    const ROWS: usize = 4000;
    let number = |row: usize, column: usize| ((row * 7919 + column * 104_729) % 10_007) as f64 * 0.01 - 40.0;
    let label = |row: usize, column: usize| ["de", "fr", "it", "es", "pl"][(row * 31 + column) % 5];
    let column = |column: usize| -> ArrayRef {
        match labels {
            true => Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| label(row, column)))),
            false => Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| number(row, column)))),
        }
    };
    let segment = StringArray::from_iter_values((0..ROWS).map(|row| format!("s{}", row % segments.max(1))));
    let columns = (0..columns).map(|at| (format!("c{at}"), column(at)));
    RecordBatch::try_from_iter(columns.chain([("segment".to_owned(), Arc::new(segment) as ArrayRef)]))
        .unwrap()
}

/// The bytes of a place that has counted rows, which came one by one, and those of what it counted when that is kept.
fn bytes_of_counts(columns: usize, segments: usize, labels: bool) -> [f64; 2] {
    let batch = watched_rows(columns, segments, labels);
    let options = ReferenceOptions::default();
    let reference = Reference::of(std::slice::from_ref(&batch), &options).unwrap();
    let names: Vec<String> = (0..columns).map(|at| format!("c{at}")).collect();
    let dividing = ["segment".to_owned()];
    let watching = Watching {
        columns: &names,
        segments: if segments > 0 { &dividing } else { &[] },
        most_segments: segments,
        reference: Some(&reference),
        ..Watching::default()
    };
    let layout = Layout::new("input", &batch.schema(), &watching).unwrap();
    let mut monitor = None;
    let made = allocation_counter::measure(|| monitor = Some(Monitor::new(vec![layout])));
    let monitor = monitor.unwrap();
    monitor.begin(0);
    let tap = Arc::clone(&monitor).tap(0);
    let cx = RunCx::new(RunId(0), Request::default(), 1, Instant::now);
    let rows: Vec<Rows> = (0..batch.num_rows()).map(|row| Rows::whole(batch.slice(row, 1))).collect();
    let counted = allocation_counter::measure(|| {
        rows.iter().for_each(|rows| tap.observe(&Seen::new(rows, EdgeId(0), &cx)));
    });
    let pane = monitor.turn(60_000_000);
    assert_eq!(pane.edges["input"].rows, batch.num_rows() as u64);
    let mut history = History::in_memory(Keep::default());
    history.push(&pane).unwrap();
    // There is one place more than there are cores, and one thread counts in one of them.
    let places = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    [counted.bytes_current as f64 + made.bytes_current as f64 / places as f64, history.bytes() as f64]
}

#[test]
fn what_is_counted_of_a_column_takes_a_few_kilobytes() {
    let each =
        |many: [f64; 2], few: [f64; 2], more: usize| [0, 1].map(|at| (many[at] - few[at]) / more as f64);
    let columns = |labels| each(bytes_of_counts(40, 0, labels), bytes_of_counts(20, 0, labels), 20);
    let segments = |labels| each(bytes_of_counts(20, 40, labels), bytes_of_counts(20, 20, labels), 20 * 20);
    for (what, [counting, kept]) in [
        ("a column of numbers", columns(false)),
        ("a column of labels", columns(true)),
        ("a column of numbers in a segment", segments(false)),
        ("a column of labels in a segment", segments(true)),
    ] {
        println!(
            "bytes of {what}: {counting:.0} where it is counted, {:.0} in a pane that is kept",
            kept.max(0.0)
        );
        assert!(counting > 0.0 && counting < 16_384.0, "{what}: {counting} bytes where it is counted");
        // Panes that are kept are compressed: what is like the rest of them takes nothing.
        assert!(kept < 8192.0, "{what}: {kept} bytes in a pane that is kept");
    }
}
