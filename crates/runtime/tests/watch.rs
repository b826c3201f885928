//! What an engine tells of its steps: to a request that watches, and as totals.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::array::{BooleanArray, RecordBatch};
use futures_util::future::join_all;
use millstream_graph::{ErrorKind, Graph, OnError, PortRef, Ran, Request, StepError, Watch};
use millstream_runtime::{
    Append, Door, Engine, Limits, Metrics, Totals,
    testkit::{Boom, Counted, Panics, engine_of, gate, poll_once, rows, stall},
};
use prometheus::{Encoder, TextEncoder};
use tokio::time::advance;

const MS: Duration = Duration::from_millis(1);

/// Writes down what it hears: how many requests and rows ran together, then each call of a step.
#[derive(Debug, Default)]
struct Told {
    heard: Mutex<Vec<String>>,
    panics: bool,
}

impl Watch for Told {
    fn ran(&self, ran: &Ran<'_>) {
        assert!(!self.panics, "planted");
        let calls = ran.calls.iter().map(|call| {
            let name = ran.plan.steps()[call.step.index()].name();
            let took = call.took.map_or("no answer".to_owned(), |took| format!("{took:?}"));
            let error = call.error.map_or(String::new(), |kind| format!(" {}", kind.name()));
            let degraded = if call.degraded { " degraded" } else { "" };
            format!("; {name} {} {took}{error}{degraded}", call.rows)
        });
        self.heard.lock().unwrap().push(format!(
            "{}/{}{}",
            ran.requests,
            ran.rows,
            calls.collect::<String>()
        ));
    }
}

impl Told {
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn watched(told: &Arc<Told>) -> Request {
    Request { watch: Some(Arc::clone(told) as Arc<dyn Watch>), ..Request::default() }
}

/// What a run of two rows is told to have done.
async fn told_of(build: impl FnOnce(&mut Graph, &PortRef) -> PortRef) -> Vec<String> {
    let told = Arc::new(Told::default());
    let engine = engine_of(|graph| {
        let input = graph.input();
        build(graph, &input)
    });
    let _ = engine.run_request(watched(&told), rows! { id: [1_i64, 2] }).await;
    engine.close().await;
    told.heard()
}

fn all(rows: &RecordBatch) -> Result<BooleanArray, StepError> {
    Ok(BooleanArray::from(vec![true; rows.num_rows()]))
}

fn failing() -> Boom {
    Boom(StepError::new(ErrorKind::Unavailable, "gone"))
}

#[tokio::test(start_paused = true)]
async fn every_step_of_a_watched_run_is_told_once() {
    let chain = told_of(|graph, input| {
        let one = graph.step("one", input, Counted::default());
        graph.step("two", &one, Counted::default())
    });
    assert_eq!(chain.await, ["1/2; one 2 0ns; two 2 0ns; respond 2 0ns"]);

    let failed = told_of(|graph, input| graph.step("one", input, failing()));
    assert_eq!(failed.await, ["1/2; one 2 0ns unavailable"]);

    for panics in [Panics::InCall, Panics::InIo, Panics::InCompute] {
        let told = told_of(|graph, input| graph.step("one", input, panics)).await;
        assert!(told[0].starts_with("1/2; one 2 ") && told[0].ends_with(" panicked"), "{told:?}");
    }

    let degraded = told_of(|graph, input| {
        let one = graph.step("one", input, failing());
        graph.when_failed(&one, OnError::Default([("id".to_owned(), serde_json::json!(7))].into()));
        one
    });
    assert_eq!(degraded.await, ["1/2; one 2 0ns unavailable degraded; respond 2 0ns"]);

    let tail = told_of(|graph, input| {
        graph.step("later", input, Counted::default());
        graph.step("one", input, Counted::default())
    });
    assert_eq!(tail.await, ["1/2; one 2 0ns; respond 2 0ns", "1/2; later 2 0ns"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waits_is_told_with_its_wait_and_one_that_is_cut_off_without_an_end() {
    let (gated, gate) = gate();
    let told = Arc::new(Told::default());
    let engine = engine_of(|graph| {
        let waited = graph.step("waits", graph.input(), gated);
        graph.step("hangs", &waited, stall().0)
    });
    let deadline = Some((tokio::time::Instant::now() + 50 * MS).into_std());
    let request = Request { deadline, ..watched(&told) };
    let mut run = Box::pin(engine.run_request(request, rows! { id: [1_i64] }));
    assert!(poll_once(&mut run).is_pending());
    advance(30 * MS).await;
    gate.open(1);
    assert_eq!(run.await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(told.heard(), ["1/1; waits 1 30ms; hangs 1 no answer"]);
}

/// A door to a graph of one step, and one watch for each of the requests 1, 2 and 3.
async fn together(build: impl FnOnce(&mut Graph, &PortRef) -> PortRef) -> [Vec<String>; 3] {
    let engine = engine_of(|graph| {
        let input = graph.input();
        build(graph, &input)
    });
    let gather = Append::new(Arc::clone(engine.plan().input_schema()));
    let door = Door::new(engine, gather);
    let told: [Arc<Told>; 3] = Default::default();
    let runs = told.iter().zip([1_i64, 2, 3]).map(|(told, id)| door.run(watched(told), rows! { id: [id] }));
    join_all(runs).await;
    told.map(|told| told.heard())
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_shared_run_is_told_how_many_ran_together() {
    let shared = together(|graph, input| graph.filter("all", input, all)).await;
    assert_eq!(shared, [["3/3; all 3 0ns; respond 3 0ns"]; 3]);
}

#[tokio::test(start_paused = true)]
async fn of_a_shared_run_that_is_repeated_only_the_repeats_are_told() {
    let repeated = together(|graph, input| graph.step("one", input, failing())).await;
    assert_eq!(repeated, [["1/1; one 1 0ns unavailable"]; 3]);
}

#[tokio::test]
async fn a_watch_that_panics_harms_nothing() {
    let engine = engine_of(|graph| graph.input());
    let told = Arc::new(Told { panics: true, ..Told::default() });
    assert_eq!(engine.run_request(watched(&told), rows! { id: [1_i64] }).await.unwrap().rows().num_rows(), 1);
}

fn counts(totals: &Totals) -> [u64; 6] {
    [totals.ok, totals.failed, totals.rows, totals.degraded, totals.seconds.count(), totals.in_flight]
}

#[tokio::test]
async fn totals_grow_and_their_difference_is_what_happened_in_between() {
    let engine = engine_of(|graph| {
        let one = graph.step("one", graph.input(), failing());
        graph.when_failed(&one, OnError::Skip);
        one
    });
    for _ in 0..3 {
        engine.run(rows! { id: [1_i64, 2] }).await.unwrap();
    }
    let earlier = engine.totals();
    assert_eq!(counts(&earlier), [3, 0, 6, 3, 3, 0]);
    engine.run(rows! { id: [1_i64] }).await.unwrap();
    let since = engine.totals().since(&earlier);
    assert_eq!(counts(&since), [1, 0, 1, 1, 1, 0]);
    let steps = since.steps.iter().map(|s| (&*s.name, s.seconds.count(), s.errors, s.degraded));
    assert_eq!(steps.collect::<Vec<_>>(), [("one", 1, 1, 1), ("respond", 0, 0, 0)]);
}

#[tokio::test]
async fn engines_of_one_graph_that_share_metrics_count_on() {
    let metrics = Metrics::new().unwrap();
    let mut graph = Graph::new("same", millstream_graph::fields! { id: Int64 });
    let one = graph.step("one", graph.input(), Counted::default());
    graph.respond(&one);
    for runs in 1..=2 {
        let engine = Engine::with_metrics(graph.compile().unwrap(), Limits::default(), &metrics).unwrap();
        engine.run(rows! { id: [1_i64] }).await.unwrap();
        let totals = engine.totals();
        assert_eq!((totals.ok, totals.steps[0].seconds.count()), (runs, runs));
    }
}

#[tokio::test]
async fn waiting_at_the_door_and_for_a_thread_is_counted() {
    let engine = engine_of(|graph| graph.filter("all", graph.input(), all));
    let gather = Append::new(Arc::clone(engine.plan().input_schema()));
    let door = Door::new(engine.clone(), gather);
    join_all((0..4_i64).map(|id| door.run(Request::default(), rows! { id: [id] }))).await;
    let totals = engine.totals();
    assert_eq!((totals.door_runs, totals.door_rows, totals.door_wait.count()), (1, 4, 4));

    let engine = engine_of(|graph| graph.step("computes", graph.input(), Panics::InCompute));
    engine.run(rows! { id: [1_i64] }).await.unwrap_err();
    assert_eq!(engine.totals().pool_wait.count(), 1, "a job of unknown cost goes to the pool");
}

/// What is wrong with a text of metrics, by the rules of the Prometheus text format and its naming conventions.
fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut family = (String::new(), String::new());
    let mut seen = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap_or((help, ""));
            if help.is_empty() || seen.contains(&name.to_owned()) {
                problems.push(format!("no help, or a second time: {name}"));
            }
            seen.push(name.to_owned());
            family = (name.to_owned(), String::new());
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            family.1 = kind.to_owned();
            let fits = match kind {
                "counter" => name.ends_with("_total"),
                "histogram" => name.ends_with("_seconds") || name.ends_with("_rows"),
                "gauge" => !name.ends_with("_total"),
                _ => false,
            };
            if name != family.0 || !fits || !name.starts_with("millstream_") {
                problems.push(format!("bad type: {line}"));
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        let name = series.split('{').next().unwrap_or_default();
        let suffixes: &[&str] = if family.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        let known = suffixes.iter().any(|suffix| name == format!("{}{suffix}", family.0));
        let labels = series.strip_prefix(name).unwrap_or_default();
        let closed = labels.is_empty() || (labels.starts_with('{') && labels.ends_with("\"}"));
        if !known || !closed || value.parse::<f64>().is_err() {
            problems.push(format!("bad sample: {line}"));
        }
    }
    problems
}

#[tokio::test]
async fn metrics_follow_the_rules_of_prometheus() {
    let metrics = Metrics::new().unwrap();
    let mut graph = Graph::new("pay", millstream_graph::fields! { id: Int64 });
    let one = graph.step("one", graph.input(), Counted::default());
    graph.respond(&one);
    let engine = Engine::with_metrics(graph.compile().unwrap(), Limits::default(), &metrics).unwrap();
    engine.run(rows! { id: [1_i64] }).await.unwrap();
    let mut text = Vec::new();
    TextEncoder::new().encode(&metrics.registry().gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(problems(&text), [""; 0], "{text}");
    for line in [
        "# TYPE millstream_step_seconds histogram",
        r#"millstream_step_seconds_bucket{graph="pay",step="one",le="+Inf"} 1"#,
        r#"millstream_step_seconds_count{graph="pay",step="one"} 1"#,
        r#"millstream_run_seconds_bucket{graph="pay",le="5"} 1"#,
        r#"millstream_door_wait_seconds_count{graph="pay"} 0"#,
        r#"millstream_step_degraded_total{graph="pay",step="one"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert_eq!(problems("# HELP a x\n# TYPE a counter\na{b=\"c\"} x").len(), 2, "the check can fail");
}
