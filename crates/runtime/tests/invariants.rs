//! What always holds of a run: each promise of the architecture is a test of its name.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use millstream_graph::{
    ErrorKind, FailedRows, Graph, Input, JoinOn, OnError, Output, PortRef, Request, RunCx, SchemaError,
    Signature, Step, StepError, Substitute, Tap, Work, when_nobody_waits,
};
use millstream_runtime::{
    Engine, Limits, Reply, RunError,
    testkit::{
        Boom, Counted, Panics, Record, assert_freed, engine_of, engine_with, fields, gate, poll_once, rows,
        stall,
    },
};

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

async fn replied(engine: &Engine, given: &[i64]) -> Vec<i64> {
    ids(engine.run(rows! { id: given.to_vec() }).await.unwrap().rows())
}

/// Sends odd ids one way and even ids the other.
fn odd_even(graph: &mut Graph, input: &PortRef) -> [PortRef; 2] {
    graph.choose("parity", input, ["odd", "even"], |batch| {
        Ok(ids(batch).iter().map(|id| usize::from(id % 2 == 0)).collect())
    })
}

fn negated(graph: &mut Graph, name: &str, input: &PortRef) -> PortRef {
    graph.map(name, input, fields! { id: Int64 }, |batch| {
        Ok(rows! { id: ids(batch).iter().map(|id| -id).collect::<Vec<_>>() })
    })
}

#[tokio::test]
async fn every_edge_carries_one_token_so_joins_see_skip_and_no_run_hangs() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        let [odd, even] = odd_even(graph, &input);
        let negated = negated(graph, "negated", &odd);
        graph.merge("merged", [&negated, &even])
    });
    for (given, wanted) in [(vec![2, 4], vec![2, 4]), (vec![1, 3], vec![-1, -3]), (vec![], vec![])] {
        assert_eq!(replied(&engine, &given).await, wanted);
    }
}

#[tokio::test]
async fn a_step_runs_at_most_once_and_only_with_rows() {
    let (odd_calls, even_calls, after) = (Counted::default(), Counted::default(), Counted::default());
    let engine = engine_of(|graph| {
        let input = graph.input();
        let [odd, even] = odd_even(graph, &input);
        let odd = graph.step("odds", &odd, odd_calls.clone());
        let even = graph.step("evens", &even, even_calls.clone());
        let merged = graph.merge("merged", [&odd, &even]);
        graph.step("after", &merged, after.clone())
    });
    replied(&engine, &[1, 3, 5]).await;
    assert_eq!((odd_calls.calls(), even_calls.calls(), after.calls()), (1, 0, 1));
    replied(&engine, &[1, 2]).await;
    assert_eq!((odd_calls.calls(), even_calls.calls(), after.calls()), (2, 1, 2));
}

#[tokio::test]
async fn rows_sent_different_ways_come_back_in_the_order_of_the_request() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        let [odd, even] = odd_even(graph, &input);
        let negated = negated(graph, "negated", &even);
        let kept = graph.filter("small", &odd, |batch| {
            Ok(ids(batch).iter().map(|id| Some(*id < 7)).collect::<BooleanArray>())
        });
        graph.merge("merged", [&negated, &kept])
    });
    assert_eq!(replied(&engine, &[5, 2, 9, 4, 3, 8]).await, [5, -2, -4, 3, -8]);
    let reply = engine.run(rows! { id: [9i64, 1] }).await.unwrap();
    assert_eq!((reply.rows().num_rows(), reply.place(0)), (1, Some(1)));
}

/// A step whose rows above 99 are at fault.
struct Checked;

impl Step for Checked {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::subset(Arc::clone(&inputs[0])))
    }
    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| {
            let good: BooleanArray = ids(rows.batch()).iter().map(|id| Some(*id < 100)).collect();
            let bad = arrow::compute::not(&good)?;
            let failed = rows.filter(&bad)?;
            let messages = ids(failed.batch()).iter().map(|id| format!("{id} is too large")).collect();
            Ok(Output::one(rows.filter(&good)?).with_failed(FailedRows { rows: failed, messages }))
        }))
    }
}

#[tokio::test]
async fn bad_rows_leave_on_the_error_port_beside_the_good_ones() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        let checked = graph.step("checked", &input, Checked);
        let bad = graph.map("answered", checked.error(), fields! { id: Int64 }, |batch| {
            let error = batch.column_by_name("error").unwrap().as_struct();
            let message = error.column_by_name("message").unwrap().as_string::<i32>();
            assert_eq!(error.column_by_name("step").unwrap().as_string::<i32>().value(0), "checked");
            Ok(rows! { id: message.iter().map(|m| -(m.unwrap().len() as i64)).collect::<Vec<_>>() })
        });
        graph.merge("merged", [&checked, &bad])
    });
    assert_eq!(replied(&engine, &[100, 2, 3000]).await, [-16, 2, -17]);
}

/// A graph with one failing step, and what becomes of it.
async fn outcome(
    failing: impl Step,
    care: impl FnOnce(&mut Graph, &PortRef) -> PortRef,
) -> Result<Reply, RunError> {
    let engine = engine_of(|graph| {
        let input = graph.input();
        let failed = graph.step("failing", &input, failing);
        care(graph, &failed)
    });
    engine.run(rows! { id: [1i64, 2] }).await
}

/// Answers the id and a constant.
struct Const(i64);

impl Step for Const {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| {
            let added: Vec<i64> = ids(rows.batch()).iter().map(|id| id + self.0).collect();
            rows.replace(rows! { id: added }).map(Output::one)
        }))
    }
}

/// Hands even ids on and cannot accept odd ones.
struct OddFails;

impl Step for OddFails {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| {
            let odd = |want: bool| {
                ids(rows.batch()).iter().map(|id| Some((id % 2 == 1) == want)).collect::<BooleanArray>()
            };
            let failed = rows.filter(&odd(true))?;
            let messages = vec!["odd".to_owned(); failed.len()];
            Ok(Output::one(rows.filter(&odd(false))?).with_failed(FailedRows { rows: failed, messages }))
        }))
    }
}

fn boom() -> Boom {
    Boom(StepError::new(ErrorKind::Unavailable, "gone"))
}

#[tokio::test]
async fn an_error_nobody_routes_ends_the_run_and_names_its_step() {
    let error = outcome(boom(), |_, failed| failed.clone()).await.unwrap_err();
    assert_eq!((error.step(), error.kind()), (Some("failing"), ErrorKind::Unavailable));
    assert_eq!(error.to_string(), "step `failing`: gone");
}

#[tokio::test]
async fn an_error_goes_to_the_steps_own_error_port_first() {
    let reply = outcome(boom(), |graph, failed| {
        let handled = graph.map("handled", failed.error(), fields! { id: Int64 }, |batch| {
            batch.project(&[0]).map_err(Into::into)
        });
        let never = negated(graph, "never", &graph.on_error());
        graph.merge("merged", [failed, &handled, &never])
    });
    assert_eq!(ids(reply.await.unwrap().rows()), [1, 2]);
}

#[tokio::test]
async fn an_error_without_a_port_goes_to_the_graphs_handler() {
    let reply = outcome(boom(), |graph, failed| {
        let handled = negated(graph, "handled", &graph.on_error());
        graph.merge("merged", [failed, &handled])
    });
    assert_eq!(ids(reply.await.unwrap().rows()), [-1, -2]);
}

#[tokio::test]
async fn a_handler_that_does_not_reply_leaves_the_error_to_the_caller() {
    let logged = Counted::default();
    let engine = engine_of(|graph| {
        let failing = graph.step("failing", graph.input(), boom());
        graph.step("log", graph.on_error(), logged.clone());
        failing
    });
    let error = engine.run(rows! { id: [1i64] }).await.unwrap_err();
    assert_eq!(error.step(), Some("failing"));
    engine.close().await;
    assert_eq!(logged.calls(), 1);
}

#[tokio::test]
async fn a_declared_policy_stands_in_for_a_failed_step_and_the_reply_says_so() {
    let cases = [
        (OnError::Skip, vec![]),
        (OnError::Default([("id".to_owned(), serde_json::json!(7))].into()), vec![7, 7]),
        (OnError::Default([].into()), vec![1, 2]),
    ];
    for (policy, wanted) in cases {
        let reply = outcome(boom(), |graph, failed| {
            graph.when_failed(failed, policy);
            failed.clone()
        });
        let reply = reply.await.unwrap();
        assert_eq!(ids(reply.rows()), wanted);
        assert_eq!((&*reply.degraded()[0].step, &*reply.degraded()[0].reason), ("failing", "gone"));
    }
}

#[tokio::test]
async fn each_kind_of_failure_has_its_own_policy() {
    let answered = |by: i64| Substitute::new(Const(by));
    let cases = [
        (ErrorKind::Unavailable, vec![71, 72]),
        (ErrorKind::Panicked, vec![71, 72]),
        (ErrorKind::DeadlineExceeded, vec![81, 82]),
        (ErrorKind::Overloaded, vec![]),
    ];
    for (kind, wanted) in cases {
        let reply = outcome(Boom(StepError::new(kind, "gone")), |graph, failed| {
            graph.when_failed(failed, OnError::Step(answered(70)));
            graph.when_late(failed, OnError::Step(answered(80)));
            graph.when_overloaded(failed, OnError::Skip);
            failed.clone()
        });
        let reply = reply.await.unwrap();
        assert_eq!(ids(reply.rows()), wanted, "{kind:?}");
        assert_eq!((&*reply.degraded()[0].step, &*reply.degraded()[0].reason), ("failing", "gone"));
    }
    let late = Boom(StepError::new(ErrorKind::DeadlineExceeded, "late"));
    let error = outcome(late, |graph, failed| {
        graph.when_failed(failed, OnError::Skip);
        graph.when_late(failed, OnError::Fail);
        failed.clone()
    });
    assert_eq!(error.await.unwrap_err().to_string(), "step `failing`: late");
}

#[tokio::test]
async fn rows_that_fail_are_answered_by_the_substitute_and_come_back_in_their_order() {
    let reply = outcome(OddFails, |graph, failed| {
        graph.when_failed(failed, OnError::Step(Substitute::new(Const(70))));
        failed.clone()
    });
    let reply = reply.await.unwrap();
    assert_eq!(ids(reply.rows()), vec![71, 2]);
    assert_eq!(&*reply.degraded()[0].reason, "odd");
}

#[tokio::test]
async fn a_panic_is_an_error_wherever_it_happens() {
    for place in [Panics::InCall, Panics::InIo, Panics::InCompute] {
        let error = outcome(place, |_, failed| failed.clone()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::Panicked, "step `failing`: panicked: planted".into())
        );
    }
}

#[tokio::test]
async fn dropping_a_run_cancels_what_it_holds_at_once() {
    let (step, alive) = stall();
    let engine = engine_of(|graph| graph.step("stall", graph.input(), step));
    let mut run = Box::pin(engine.run(rows! { id: [1i64] }));
    assert!(poll_once(&mut run).is_pending());
    assert_eq!(alive.strong_count(), 1);
    drop(run);
    assert_freed(&alive);
}

/// A tap that panics.
struct Broken;

impl Tap for Broken {
    fn observe(&self, _: &millstream_graph::Seen<'_>) {
        panic!("planted");
    }
}

#[tokio::test]
async fn a_tap_sees_the_rows_of_its_edge_and_cannot_fail_a_run() {
    let record = Record::default();
    let engine = engine_of(|graph| {
        let input = graph.input();
        graph.tap(&input, Arc::new(Broken));
        let negated = negated(graph, "negated", &input);
        graph.tap(&negated, Arc::new(record.clone()));
        negated
    });
    assert_eq!(replied(&engine, &[3]).await, [-3]);
    let seen = record.seen();
    assert_eq!(seen.iter().map(|(_, _, batch)| ids(batch)).collect::<Vec<_>>(), [[-3]]);
    assert_eq!(engine.plan().edge_name(seen[0].0), "negated.out -> respond");
}

#[tokio::test]
async fn load_is_refused_at_the_door() {
    let (step, gate) = gate();
    let limits = Limits { runs: 1, ..Limits::default() };
    let engine = engine_with(limits, |graph| graph.step("gated", graph.input(), step));
    let mut first = Box::pin(engine.run(rows! { id: [1i64] }));
    assert!(poll_once(&mut first).is_pending());
    let refused = engine.try_run(Request::default(), rows! { id: [2i64] }).await;
    assert!(matches!(refused, Err(RunError::Overloaded)));
    let mut waiting = Box::pin(engine.run(rows! { id: [3i64] }));
    assert!(poll_once(&mut waiting).is_pending());
    gate.open(2);
    assert_eq!(ids(first.await.unwrap().rows()), [1]);
    assert_eq!(ids(waiting.await.unwrap().rows()), [3]);
}

#[tokio::test(start_paused = true)]
async fn no_step_starts_after_the_deadline() {
    let (step, _alive) = stall();
    let (before, after) = (Counted::default(), Counted::default());
    let limits = Limits { deadline: Some(Duration::from_millis(20)), ..Limits::default() };
    let engine = engine_with(limits, |graph| {
        let input = graph.step("before", graph.input(), before.clone());
        let stalled = graph.step("stall", &input, step);
        graph.step("after", &stalled, after.clone())
    });
    let error = engine.run(rows! { id: [1i64] }).await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::DeadlineExceeded, Some("stall")));
    let passed = Request { deadline: Some(tokio::time::Instant::now().into_std()), ..Request::default() };
    let error = engine.run_request(passed, rows! { id: [1i64] }).await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::DeadlineExceeded, Some("before")));
    assert_eq!((before.calls(), after.calls()), (1, 0));
}

/// Takes some of the time that a run has, and counts the starts that came too late.
#[derive(Clone, Default)]
struct Takes {
    starts: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
}

impl Step for Takes {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let start = self.starts.fetch_add(1, Relaxed);
        self.late.fetch_add(usize::from(cx.expired()), Relaxed);
        if start.is_multiple_of(3) {
            return Work::Done(input.rows(0).map(Output::one));
        }
        Work::Io(Box::pin(async move {
            tokio::time::advance(Duration::from_micros((start % 7) as u64)).await;
            input.rows(0).map(Output::one)
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_million_steps_none_starts_after_the_deadline() {
    let step = Takes::default();
    let engine = engine_of(|graph| {
        let input = graph.input();
        let middle = graph.step("first", &input, step.clone());
        let sides = ["left", "right"].map(|side| {
            (0..3).fold(middle.clone(), |port, at| graph.step(&format!("{side}{at}"), &port, step.clone()))
        });
        graph.merge("merged", sides.to_vec())
    });
    let (mut ended, mut runs) = ([0, 0], 0_u64);
    while step.starts.load(Relaxed) < 1_000_000 {
        let deadline = tokio::time::Instant::now() + Duration::from_micros(runs % 40);
        let request = Request { deadline: Some(deadline.into_std()), ..Request::default() };
        let late = match engine.run_request(request, rows! { id: [1i64] }).await {
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::DeadlineExceeded,
        };
        ended[usize::from(late)] += 1;
        runs += 1;
    }
    assert_eq!(step.late.load(Relaxed), 0);
    assert!(ended.iter().all(|runs| *runs > 1000), "some runs end in time and some do not: {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_keeps_panicking_is_left_alone_and_then_tried_again() {
    let calls = Counted::default();
    let (inner, healed) = (calls.clone(), Arc::new(AtomicBool::new(false)));
    let mended = Arc::clone(&healed);
    let engine = engine_of(|graph| {
        let counted = graph.step("counted", graph.input(), inner);
        let other = graph.map("other", &counted, fields! { id: Int64 }, |batch| Ok(batch.clone()));
        let panics = graph.map("panics", &counted, fields! { id: Int64 }, move |batch| {
            if !mended.load(SeqCst) {
                // Without the hook, which would print each of them.
                std::panic::resume_unwind(Box::new("planted"));
            }
            Ok(batch.clone())
        });
        graph.when_failed(&panics, OnError::Skip);
        graph.merge("answer", [&other, &panics])
    });
    let reasons = async |runs: usize| {
        let mut reasons = Vec::new();
        for _ in 0..runs {
            let reply = engine.run(rows! { id: [1i64] }).await.unwrap();
            reasons.extend(reply.degraded().iter().map(|degraded| degraded.reason.to_string()));
        }
        reasons.dedup();
        reasons
    };
    let left_alone = "it panicked 1000 times in a row and is left alone for a while".to_owned();
    assert_eq!(reasons(1020).await, ["panicked: planted".to_owned(), left_alone.clone()]);
    // One call is let through after the pause, and when it panics the pause begins anew.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(reasons(30).await, ["panicked: planted".to_owned(), left_alone.clone()]);
    healed.store(true, SeqCst);
    assert_eq!(reasons(5).await, [left_alone]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(reasons(30).await.is_empty());
    assert_eq!(calls.calls(), 1085, "no other step notices");
}

/// Computes until nobody waits for it, and says when it starts and when it ends.
struct Endless(std::sync::mpsc::SyncSender<&'static str>);

impl Step for Endless {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let said = self.0.clone();
        Work::Compute(Box::new(move || {
            let (stop, stopped) = std::sync::mpsc::sync_channel(1);
            let _stop = when_nobody_waits(move || stop.send(()).unwrap());
            said.send("started").unwrap();
            stopped.recv().unwrap();
            said.send("stopped").unwrap();
            input.rows(0).map(Output::one)
        }))
    }
}

#[tokio::test]
async fn a_job_that_has_started_hears_that_its_run_has_gone() {
    let (said, heard) = std::sync::mpsc::sync_channel(1);
    let engine = engine_of(|graph| graph.step("endless", graph.input(), Endless(said)));
    let mut run = Box::pin(engine.run(rows! { id: [1i64] }));
    assert!(poll_once(&mut run).is_pending());
    assert_eq!(heard.recv().unwrap(), "started");
    drop(run);
    assert_eq!(heard.recv().unwrap(), "stopped");
}

#[tokio::test]
async fn the_reply_comes_first_and_the_tail_later() {
    let (step, gate) = gate();
    let (side, after) = (Counted::default(), Counted::default());
    let limits = Limits { runs: 1, ..Limits::default() };
    let engine = engine_with(limits, |graph| {
        let input = graph.input();
        let slow = graph.step("slow", &input, step);
        graph.step("side", &slow, side.clone());
        graph.step("after", PortRef::clone(&input), after.clone());
        input
    });
    assert_eq!(replied(&engine, &[1]).await, [1]);
    // The tail holds the permit, so tails are bounded as runs are.
    assert!(matches!(
        engine.try_run(Request::default(), rows! { id: [2i64] }).await,
        Err(RunError::Overloaded)
    ));
    gate.open(1);
    engine.close().await;
    assert_eq!((side.calls(), after.calls()), (1, 1));
    assert!(matches!(engine.run(rows! { id: [1i64] }).await, Err(RunError::Closed)));
}

#[tokio::test]
async fn a_failing_tail_does_not_touch_the_reply() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        graph.step("failing", &input, boom());
        input
    });
    assert_eq!(replied(&engine, &[1]).await, [1]);
    engine.close().await;
}

#[tokio::test]
async fn dropping_the_engine_cancels_its_tails() {
    let (step, alive) = stall();
    let engine = engine_of(|graph| {
        let input = graph.input();
        graph.step("stall", &input, step);
        input
    });
    replied(&engine, &[1]).await;
    tokio::task::yield_now().await;
    drop(engine);
    tokio::task::yield_now().await;
    assert_freed(&alive);
}

#[tokio::test]
async fn a_long_inline_stretch_yields() {
    let engine = engine_of(|graph| {
        let mut port = graph.input();
        for at in 0..5000 {
            port = graph.step(&format!("s{at}"), &port, Counted::default());
        }
        port
    });
    let mut run = Box::pin(engine.run(rows! { id: [1i64] }));
    assert!(poll_once(&mut run).is_pending());
    assert_eq!(ids(run.await.unwrap().rows()), [1]);
}

/// A compute step that says which thread it ran on.
struct Where(Arc<Mutex<Vec<String>>>, Duration);

impl Step for Where {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }
    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        let (seen, cost) = (Arc::clone(&self.0), self.1);
        Work::Compute(Box::new(move || {
            let start = std::time::Instant::now();
            while start.elapsed() < cost {}
            seen.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
            input.rows(0).map(Output::one)
        }))
    }
}

#[tokio::test]
async fn compute_runs_inline_when_measured_cheap_and_on_the_pool_otherwise() {
    for (cost, on_pool) in [(Duration::ZERO, false), (Duration::from_millis(2), true)] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let engine = engine_of(|graph| graph.step("where", graph.input(), Where(Arc::clone(&seen), cost)));
        for _ in 0..8 {
            replied(&engine, &[1]).await;
        }
        let seen = seen.lock().unwrap();
        assert!(seen[0].starts_with("millstream-compute"), "an unknown cost is measured on the pool");
        assert_eq!(seen.last().unwrap().starts_with("millstream-compute"), on_pool, "{cost:?}");
    }
}

#[tokio::test]
async fn rows_that_do_not_fit_the_plan_are_refused_and_columns_may_stand_in_any_order() {
    let mut graph = Graph::new("two", fields! { id: Int64, name: Utf8 });
    let input = graph.input();
    graph.respond(&input);
    let engine = Engine::new(graph.compile().unwrap(), Limits::default()).unwrap();
    let error = engine.run(rows! { id: [1i64], nam: ["a"] }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "rows have columns (id Int64, nam Utf8) where the graph wants (id Int64, name Utf8)"
    );
    assert_eq!(ids(engine.run(rows! { name: ["a"], id: [4i64] }).await.unwrap().rows()), [4]);
}

#[tokio::test]
async fn parallel_branches_join_by_place_and_missing_rows_are_null() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        let [odd, _] = odd_even(graph, &input);
        let half = graph.map("half", &odd, fields! { half: Int64 }, |batch| {
            Ok(rows! { half: ids(batch).iter().map(|id| id / 2).collect::<Vec<_>>() })
        });
        graph.join("joined", [&input, &half], JoinOn::Rows)
    });
    let reply = engine.run(rows! { id: [4i64, 7, 9] }).await.unwrap();
    let wanted = Int64Array::from(vec![None, Some(3), Some(4)]);
    assert_eq!(reply.rows().column(1).as_primitive::<Int64Type>(), &wanted);
    let none = engine.run(rows! { id: [4i64] }).await.unwrap();
    assert!(none.rows().column(1).is_null(0));
}

#[tokio::test]
async fn a_column_changed_in_one_branch_cannot_be_joined_unnoticed() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        let changed = negated(graph, "changed", &input);
        graph.join("joined", [&input, &changed], JoinOn::Rows)
    });
    let error = engine.run(rows! { id: [4i64] }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "step `joined`: column `id` differs between inputs 0 and 1; rename it in one of them"
    );
}
