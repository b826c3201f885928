//! The cases, each beside the one it is compared with.

use std::{
    future::Future,
    hint::black_box,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use millstream::{
    DecodeLimits, Engine, Graph, Input, Limits, Output, PortRef, Project, RunCx, SchemaError, Seen,
    Signature, Step, Tap,
    arrow::{
        array::{ArrayRef, Float64Array, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    features::{
        Enrich, FeatureSet, MemoryStore, MemoryTable, OnlineStore, OnlineTable, Profile, ProfileError, Read,
        Selection,
    },
    fields, rows,
    transform::{Filter, Select, With},
    wire::{
        Form,
        json::{Decoder, Encoder},
    },
};

use crate::Work;

type Case = (&'static str, fn() -> Work);

pub(crate) fn all() -> Vec<Case> {
    vec![
        ("fraud", fraud),
        ("wide", || served(wide(WIDE, false), wide_body())),
        ("wide_whole", || served(wide(WIDE, true), wide_body())),
        ("wide_run_1", || run_of(wide(WIDE, false), WIDE, 1)),
        ("wide_whole_run_1", || run_of(wide(WIDE, true), WIDE, 1)),
        ("wide_run_64", || run_of(wide(WIDE, false), WIDE, 64)),
        ("wide_whole_run_64", || run_of(wide(WIDE, true), WIDE, 64)),
        ("enrich_50_read_5", || enrich(false)),
        ("enrich_50_whole", || enrich(true)),
        ("three_steps_1", || chain(THREE, 1)),
        ("one_step_1", || chain(ONE, 1)),
        ("three_steps_64", || chain(THREE, 64)),
        ("one_step_64", || chain(ONE, 64)),
        ("no_hop", || hops(0)),
        ("64_hops", || hops(64)),
        ("in_common_1", || expressions(IN_COMMON, 1)),
        ("apart_1", || expressions(APART, 1)),
        ("once_1", || expressions(ONCE, 1)),
        ("in_common_1024", || expressions(IN_COMMON, 1024)),
        ("apart_1024", || expressions(APART, 1024)),
        ("once_1024", || expressions(ONCE, 1024)),
        ("lookups_64_of_8", || lookups(64, 8, false)),
        ("lookups_64_of_8_distinct", || lookups(64, 8, true)),
        ("lookups_1024_of_32", || lookups(1024, 32, false)),
        ("lookups_1024_of_32_distinct", || lookups(1024, 32, true)),
    ]
}

/// The three models of the fraud graph are constants here: their instructions are not ours.
fn fraud() -> Work {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fraud");
    let requests = std::fs::read_to_string(folder.join("data/requests.jsonl")).unwrap();
    let text = std::fs::read_to_string(folder.join("millstream.yaml")).unwrap();
    let constant = |line: &str| {
        let model = ["lgbm", "lr", "mlp"].into_iter().find(|name| line.contains(&format!("use: {name},")));
        model.map_or(line.to_owned(), |name| format!("        select: [\"CAST(0.125 AS FLOAT) AS {name}\"]"))
    };
    let lines = text.lines().filter(|line| !line.contains("{ path: models/") && *line != "models:");
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("data")).unwrap();
    std::fs::copy(folder.join("data/cards.parquet"), copy.path().join("data/cards.parquet")).unwrap();
    let text = lines.map(constant).collect::<Vec<_>>().join("\n");
    std::fs::write(copy.path().join("millstream.yaml"), text).unwrap();
    let graph = Project::load(copy.path()).unwrap().graph("fraud").unwrap();
    served(engine(&graph), requests.lines().next().unwrap().to_owned())
}

/// Bytes to bytes.
fn served(engine: Engine, body: String) -> Work {
    let (decoder, encoder) = (decoder(&engine), encoder(&engine));
    Box::new(move || {
        let decoded = decoder.decode(body.as_bytes()).unwrap();
        let reply = now(engine.run(decoded.batch)).unwrap();
        let mut answer = Vec::with_capacity(256);
        encoder.encode(reply.rows(), Form::Object, &mut answer).unwrap();
        black_box(answer);
    })
}

fn decoder(engine: &Engine) -> Decoder {
    let plan = engine.plan();
    let decoder = Decoder::new(Arc::clone(plan.input_schema()), DecodeLimits::default()).unwrap();
    decoder.carrying(plan.carried_schema())
}

fn encoder(engine: &Engine) -> Encoder {
    Encoder::new(Arc::clone(engine.plan().reply_schema())).unwrap()
}

/// Every column is read that comes to a tap, so that nothing is left out.
struct Watch;

impl Tap for Watch {
    fn observe(&self, _: &Seen<'_>) {}
}

fn watch(graph: &mut Graph, ports: &[&PortRef]) {
    ports.iter().for_each(|port| graph.tap(port, Arc::new(Watch)));
}

fn engine(graph: &Graph) -> Engine {
    Engine::new(graph.compile().unwrap(), Limits { compute_threads: 0, ..Limits::default() }).unwrap()
}

/// 200 columns come in, five are read.
const WIDE: usize = 200;

fn schema(columns: usize) -> SchemaRef {
    let field = |at| Field::new(format!("c{at}"), DataType::Float64, false);
    Arc::new(Schema::new((0..columns).map(field).collect::<Vec<_>>()))
}

fn batch(columns: usize, rows: usize) -> RecordBatch {
    let value = |at: usize, row: usize| (at + row) as f64 + 0.5;
    let column =
        |at| Arc::new(Float64Array::from_iter_values((0..rows).map(|row| value(at, row)))) as ArrayRef;
    RecordBatch::try_new(schema(columns), (0..columns).map(column).collect()).unwrap()
}

/// Three steps that hand on what comes in, and a reply of two columns.
fn wide(columns: usize, whole: bool) -> Engine {
    let mut graph = Graph::new("wide", schema(columns));
    let input = graph.input();
    let ratio = graph.step("ratio", &input, With::new().column("ratio", "c0 / (c1 + 1.0)"));
    let sum = graph.step("sum", &ratio, With::new().column("sum", "c2 + c3 * ratio"));
    let kept = graph.step("kept", &sum, Filter::new("c4 > 4.4"));
    let reply = graph.step("reply", &kept, Select::new(["ratio", "sum"]));
    graph.respond(&reply);
    if whole {
        watch(&mut graph, &[&input, &ratio, &sum, &kept]);
    }
    engine(&graph)
}

fn wide_body() -> String {
    let fields: Vec<_> = (0..WIDE).map(|at| format!("\"c{at}\":{}", at as f64 + 0.75)).collect();
    format!("{{{}}}", fields.join(","))
}

fn run_of(engine: Engine, columns: usize, rows: usize) -> Work {
    run_on(engine, &batch(columns, rows))
}

fn run_on(engine: Engine, batch: &RecordBatch) -> Work {
    let batch = batch.clone().with_schema(Arc::clone(engine.plan().input_schema())).unwrap();
    Box::new(move || drop(black_box(now(engine.run(batch.clone())).unwrap())))
}

/// One `with` step per list of names and expressions.
const THREE: &[&[&str]] = &[&["a", "c0 + 1"], &["b", "a * 2"], &["c", "b - a"]];
const ONE: &[&[&str]] = &[&["a", "c0 + 1", "b", "a * 2", "c", "b - a"]];

fn chain(steps: &[&[&str]], rows: usize) -> Work {
    let mut graph = Graph::new("chain", schema(1));
    let mut port: PortRef = graph.input();
    for (at, columns) in steps.iter().enumerate() {
        let with = columns.chunks(2).fold(With::new(), |with, pair| with.column(pair[0], pair[1]));
        port = graph.step(&format!("s{at}"), &port, with);
    }
    graph.respond(&port);
    run_of(engine(&graph), 1, rows)
}

/// A step that hands its rows on.
struct NoOp;

impl Step for NoOp {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }
    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> millstream::Work<'a> {
        millstream::Work::Done(input.rows(0).map(Output::one))
    }
}

fn hops(hops: usize) -> Work {
    let mut graph = Graph::new("hops", schema(5));
    let mut port = graph.input();
    for at in 0..hops {
        port = graph.step(&format!("s{at}"), &port, NoOp);
    }
    graph.respond(&port);
    run_of(engine(&graph), 5, 1)
}

/// One expression in three columns; three of the same cost without anything in common; and what is left when the first is
/// computed once.
const IN_COMMON: &[&str] = &["log1p(c0 / c1)", "log1p(c0 / c1) * c2", "log1p(c0 / c1) - c3"];
const APART: &[&str] = &["log1p(c0 / c1)", "log1p(c0 / c2) * c2", "log1p(c0 / c3) - c3"];
const ONCE: &[&str] = &["log1p(c0 / c1)", "c0 * c2", "c0 - c3"];

fn expressions(expressions: &[&str], rows: usize) -> Work {
    let mut graph = Graph::new("expressions", schema(5));
    let columns = ["x", "y", "z"].iter().zip(expressions);
    let with = columns.fold(With::new(), |with, (name, text)| with.column(*name, *text));
    let input = graph.input();
    let step = graph.step("s", &input, with);
    graph.respond(&step);
    run_of(engine(&graph), 5, rows)
}

/// 1000 cards of 50 features.
fn cards() -> MemoryTable {
    let builder = FeatureSet::builder("cards").key("card", DataType::Int64);
    let set =
        (0..50).fold(builder, |set, at| set.feature(format!("f{at}"), DataType::Float64)).build().unwrap();
    let ids = Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef;
    let values = batch(50, 1000);
    let columns = std::iter::once(ids).chain(values.columns().iter().map(Arc::clone));
    let fields = std::iter::once("card".to_owned()).chain((0..50).map(|at| format!("f{at}"))).zip(columns);
    MemoryTable::from_batches(set, &[RecordBatch::try_from_iter(fields).unwrap()]).unwrap()
}

/// Every feature of a set, of which five are read.
fn enrich(whole: bool) -> Work {
    let mut store = MemoryStore::new();
    store.insert(cards());
    let mut graph = Graph::new("enrich", fields! { card: Int64 });
    let input = graph.input();
    let rich = graph.step("rich", &input, Enrich::new(Arc::new(store), "cards"));
    let reply = graph.step("reply", &rich, Select::new(["card", "f1", "f2", "f3", "f4", "f5"]));
    graph.respond(&reply);
    if whole {
        watch(&mut graph, &[&input, &rich]);
    }
    run_on(engine(&graph), &rows! { card: [7i64] })
}

/// A local table that says it is not, so that it is asked for each key once.
struct Distinct(MemoryTable);

impl OnlineTable for Distinct {
    fn set(&self) -> &Arc<FeatureSet> {
        self.0.set()
    }
    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        self.0.profile(feature)
    }
    fn is_local(&self) -> bool {
        false
    }
    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        self.0.read(batch, selection)
    }
}

struct OneTable(Arc<dyn OnlineTable>);

impl OnlineStore for OneTable {
    fn names(&self) -> Vec<String> {
        vec![self.0.set().name().to_owned()]
    }
    fn table(&self, _: &str) -> Option<Arc<dyn OnlineTable>> {
        Some(Arc::clone(&self.0))
    }
}

/// Twelve features for rows that carry few keys.
fn lookups(rows: usize, keys: usize, distinct: bool) -> Work {
    let table: Arc<dyn OnlineTable> = if distinct { Arc::new(Distinct(cards())) } else { Arc::new(cards()) };
    let features = (0..12).map(|at| format!("f{at}"));
    let mut graph = Graph::new("lookups", fields! { card: Int64 });
    let input = graph.input();
    let rich = graph.step("rich", &input, Enrich::new(Arc::new(OneTable(table)), "cards").features(features));
    graph.respond(&rich);
    let cards: Vec<i64> = (0..rows).map(|row| (row * 7 % keys) as i64).collect();
    run_on(engine(&graph), &rows! { card: cards })
}

/// The answer of a run that has nothing to wait for. A first, cold run may yield in between.
fn now<F: Future>(run: F) -> F::Output {
    let mut run = pin!(run);
    loop {
        if let Poll::Ready(answer) = run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
    }
}
