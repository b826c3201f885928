//! Requests that come together share a run, and nobody can tell by the answer.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use futures_util::future::join_all;
use millstream_graph::{
    ErrorKind, Graph, Input, OnError, Output, PortRef, Request, RunCx, SchemaError, Signature, Step,
    StepError, Work,
};
use millstream_runtime::{
    Append, Door, Limits, Portion, RunError,
    testkit::{Counted, Record, assert_freed, engine_of, engine_with, gate, poll_once, rows, stall},
};

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// Hands its rows on, notes what each call was given, and fails as a whole on a batch that holds the poison.
#[derive(Clone, Default)]
struct Seen {
    calls: Arc<Mutex<Vec<Vec<i64>>>>,
    poison: Option<i64>,
    panics: bool,
}

impl Seen {
    fn poisoned_by(id: i64) -> Self {
        Self { poison: Some(id), ..Self::default() }
    }

    fn calls(&self) -> Vec<Vec<i64>> {
        self.calls.lock().unwrap().clone()
    }
}

impl Step for Seen {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        let rows = input.rows(0).unwrap();
        let given = ids(rows.batch());
        self.calls.lock().unwrap().push(given.clone());
        match self.poison {
            Some(poison) if given.contains(&poison) && self.panics => panic!("planted"),
            Some(poison) if given.contains(&poison) => {
                Work::Done(Err(StepError::new(ErrorKind::Unavailable, "gone")))
            }
            _ => Work::Done(Ok(Output::one(rows))),
        }
    }
}

type TestDoor = Door<Append>;

fn door_with(limits: Limits, build: impl FnOnce(&mut Graph, &PortRef) -> PortRef) -> TestDoor {
    let engine = engine_with(limits, |graph| {
        let input = graph.input();
        build(graph, &input)
    });
    let gather = Append::new(Arc::clone(engine.plan().input_schema()));
    Door::new(engine, gather)
}

fn door(build: impl FnOnce(&mut Graph, &PortRef) -> PortRef) -> TestDoor {
    door_with(Limits::default(), build)
}

fn seen_door(seen: &Seen) -> TestDoor {
    door(|graph, input| graph.step("seen", input, seen.clone()))
}

async fn ask(door: &TestDoor, id: &[i64]) -> Result<Portion, RunError> {
    door.run(Request::default(), rows! { id: id.to_vec() }).await
}

/// What a request of one row is answered with.
async fn answered(door: &TestDoor, id: i64) -> Vec<i64> {
    ids(&ask(door, &[id]).await.unwrap().rows())
}

/// Asks for each of these requests, all at once.
async fn ask_all(door: &TestDoor, requests: &[&[i64]]) -> Vec<Result<Vec<i64>, ErrorKind>> {
    let asked = requests.iter().map(|id| async { ask(door, id).await });
    let answers = join_all(asked).await;
    answers
        .into_iter()
        .map(|answer| answer.map(|portion| ids(&portion.rows())).map_err(|error| error.kind()))
        .collect()
}

#[tokio::test]
async fn requests_that_come_together_share_a_run_and_get_their_own_rows() {
    let seen = Seen::default();
    let door = seen_door(&seen);
    assert_eq!(ask_all(&door, &[&[1], &[2, 3], &[4]]).await, [Ok(vec![1]), Ok(vec![2, 3]), Ok(vec![4])]);
    assert_eq!(seen.calls(), [[1, 2, 3, 4]]);
}

#[tokio::test]
async fn a_request_that_comes_alone_waits_for_nobody() {
    let door = seen_door(&Seen::default());
    // The first leader looks whether there is company.
    ask(&door, &[1]).await.unwrap();
    for id in 2..30 {
        let mut run = Box::pin(ask(&door, std::slice::from_ref(&id)));
        assert!(poll_once(&mut run).is_ready(), "request {id} did not wait");
    }
}

#[tokio::test]
async fn a_shared_run_has_as_many_rows_as_the_door_allows() {
    let seen = Seen::default();
    let door = door_with(Limits { shared_rows: 4, ..Limits::default() }, |graph, input| {
        graph.step("seen", input, seen.clone())
    });
    let requests: [&[i64]; 5] = [&[1, 2], &[3, 4, 5], &[6], &[7, 8, 9, 10], &[11]];
    let answers = ask_all(&door, &requests).await;
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), requests);
    let mut calls = seen.calls();
    calls.sort();
    assert_eq!(calls, [vec![1, 2], vec![3, 4, 5, 6], vec![7, 8, 9, 10], vec![11]]);
}

#[tokio::test]
async fn while_all_runs_are_taken_requests_gather() {
    let (gated, gate) = gate();
    let seen = Seen::default();
    let door = door_with(Limits { shared_runs: 1, ..Limits::default() }, |graph, input| {
        let seen = graph.step("seen", input, seen.clone());
        graph.step("gated", &seen, gated)
    });
    let mut first = Box::pin(ask_all(&door, &[&[1], &[2]]));
    // The first look yields, the second runs up to the gate.
    (0..3).for_each(|_| assert!(poll_once(&mut first).is_pending()));
    let mut later: Vec<_> = (3..8).map(|id| Box::pin(answered(&door, id))).collect();
    for _ in 0..3 {
        later.iter_mut().for_each(|run| assert!(poll_once(run).is_pending()));
    }
    gate.open(2);
    first.await;
    assert_eq!(join_all(later).await, [[3], [4], [5], [6], [7]]);
    assert_eq!(seen.calls(), [vec![1, 2], vec![3, 4, 5, 6, 7]]);
}

#[tokio::test]
async fn a_request_that_breaks_a_step_harms_no_other() {
    for panics in [false, true] {
        let seen = Seen { panics, ..Seen::poisoned_by(2) };
        let kind = if panics { ErrorKind::Panicked } else { ErrorKind::Unavailable };
        let door = seen_door(&seen);
        assert_eq!(ask_all(&door, &[&[1], &[2], &[3]]).await, [Ok(vec![1]), Err(kind), Ok(vec![3])]);
        // The shared run, then each alone.
        assert_eq!(seen.calls(), [vec![1, 2, 3], vec![1], vec![2], vec![3]]);
    }
}

#[tokio::test]
async fn only_the_request_at_fault_is_degraded_or_told_by_the_handler() {
    let replies = |build: fn(&mut Graph, &PortRef) -> PortRef| async move {
        let door = door(|graph, input| {
            let failing = graph.step("failing", input, Seen::poisoned_by(2));
            build(graph, &failing)
        });
        assert!(door.engine().plan().row_wise());
        let (one, two) = tokio::join!(ask(&door, &[1]), ask(&door, &[2]));
        let told = |portion: Portion| (ids(&portion.rows()), portion.reply().degraded().len());
        (told(one.unwrap()), told(two.unwrap()))
    };
    let defaulted = replies(|graph, failing| {
        graph.when_failed(failing, OnError::Default([("id".to_owned(), serde_json::json!(-1))].into()));
        failing.clone()
    });
    assert_eq!(defaulted.await, ((vec![1], 0), (vec![-1], 1)));
    let handled = replies(|graph, failing| {
        let sorry = graph.map("sorry", graph.on_error(), millstream_graph::fields! { id: Int64 }, |batch| {
            Ok(rows! { id: vec![-2_i64; batch.num_rows()] })
        });
        graph.merge("merged", [failing, &sorry])
    });
    assert_eq!(handled.await, ((vec![1], 0), (vec![-2], 0)));
}

#[tokio::test]
async fn after_a_shared_run_that_did_no_good_requests_run_alone_for_a_while() {
    let seen = Seen::poisoned_by(0);
    let door = seen_door(&seen);
    ask_all(&door, &[&[0], &[1]]).await;
    let before = seen.calls().len();
    for _ in 0..8 {
        ask_all(&door, &[&[1], &[2]]).await;
    }
    assert!(seen.calls()[before..].iter().all(|call| call.len() == 1), "{:?}", seen.calls());
    ask_all(&door, &[&[1], &[2]]).await;
    assert_eq!(seen.calls().last().unwrap().len(), 2, "then they share again");
}

#[tokio::test]
async fn whoever_leads_may_go_and_the_others_are_answered() {
    let seen = Seen::default();
    let door = seen_door(&seen);
    let mut leader = Box::pin(ask(&door, &[1]));
    assert!(poll_once(&mut leader).is_pending());
    let mut other = Box::pin(ask(&door, &[2]));
    assert!(poll_once(&mut other).is_pending());
    drop(leader);
    assert_eq!(ids(&other.await.unwrap().rows()), [2]);
    assert_eq!(seen.calls(), [[2]]);
}

#[tokio::test]
async fn a_caller_that_has_gone_costs_nothing() {
    let seen = Seen::default();
    let door = seen_door(&seen);
    let mut leader = Box::pin(ask(&door, &[1]));
    assert!(poll_once(&mut leader).is_pending());
    let mut gone = Box::pin(ask(&door, &[2]));
    assert!(poll_once(&mut gone).is_pending());
    let mut stays = Box::pin(ask(&door, &[3]));
    assert!(poll_once(&mut stays).is_pending());
    drop(gone);
    assert_eq!(ids(&leader.await.unwrap().rows()), [1]);
    assert_eq!(ids(&stays.await.unwrap().rows()), [3]);
    assert_eq!(seen.calls(), [[1, 3]]);
}

#[tokio::test]
async fn a_shared_run_outlives_its_leader_and_ends_with_its_last_caller() {
    let (stall, alive) = stall();
    let door = door(|graph, input| graph.step("stall", input, stall));
    let mut both: Vec<_> = [1, 2].map(|id| Box::pin(answered(&door, id))).into();
    for _ in 0..3 {
        both.iter_mut().for_each(|run| assert!(poll_once(run).is_pending()));
    }
    tokio::task::yield_now().await;
    drop(both.remove(0));
    tokio::task::yield_now().await;
    assert_eq!(alive.strong_count(), 1, "the other caller still waits");
    drop(both);
    tokio::task::yield_now().await;
    assert_freed(&alive);
    door.engine().close().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_one_requests_own() {
    let (gated, gate) = gate();
    let door = door(|graph, input| graph.step("gated", input, gated));
    let soon = (tokio::time::Instant::now() + Duration::from_millis(5)).into_std();
    let hurried = Request { deadline: Some(soon), ..Request::default() };
    let (late, patient, ()) = tokio::join!(
        async {
            let answer = door.run(hurried, rows! { id: [1_i64] }).await;
            gate.open(1);
            answer
        },
        ask(&door, &[2]),
        async { ask(&door, &[]).await.map(drop).unwrap() },
    );
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(ids(&patient.unwrap().rows()), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_late_before_its_run_starts_never_reaches_a_step() {
    let seen = Seen::default();
    let door = seen_door(&seen);
    let now = tokio::time::Instant::now().into_std();
    let hurried = Request { deadline: Some(now), ..Request::default() };
    let (late, other) = tokio::join!(door.run(hurried, rows! { id: [1_i64] }), ask(&door, &[2]));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(ids(&other.unwrap().rows()), [2]);
    assert_eq!(seen.calls(), [[2]]);
}

#[tokio::test]
async fn taps_and_tails_are_each_requests_own() {
    let (record, logged) = (Record::default(), Counted::default());
    let door = door(|graph, input| {
        graph.tap(input, Arc::new(record.clone()));
        let seen = graph.step("seen", input, Seen::default());
        graph.step("log", &seen, logged.clone());
        seen
    });
    let (one, two) = tokio::join!(ask(&door, &[1, 2]), ask(&door, &[3]));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.run(), two.run());
    let at_step =
        |(edge, run, batch): (_, _, RecordBatch)| (door.engine().plan().edge_name(edge), run, ids(&batch));
    let seen: Vec<_> = record.seen().into_iter().map(at_step).collect();
    let edge = || "input -> seen".to_owned();
    assert_eq!(seen, [(edge(), one.run(), vec![1, 2]), (edge(), two.run(), vec![3])]);
    door.engine().close().await;
    assert_eq!(logged.calls(), 2, "what follows the reply happens once per request");
}

#[tokio::test]
async fn plans_that_are_not_row_wise_run_per_request() {
    let counted = Counted::default();
    let door = door(|graph, input| graph.step("once", input, counted.clone()));
    assert_eq!(ask_all(&door, &[&[1], &[2]]).await, [Ok(vec![1]), Ok(vec![2])]);
    assert_eq!(counted.calls(), 2);
}

#[tokio::test]
async fn a_door_refuses_what_the_engine_would() {
    let limits = Limits { runs: 2, ..Limits::default() };
    let door = door_with(limits, |graph, input| graph.step("seen", input, Seen::default()));
    let answers = ask_all(&door, &[&[1], &[2], &[3]]).await;
    assert_eq!(answers, [Ok(vec![1]), Ok(vec![2]), Err(ErrorKind::Overloaded)]);
    let engine = engine_of(|graph| graph.input());
    engine.close().await;
    let door = Door::new(engine.clone(), Append::new(Arc::clone(engine.plan().input_schema())));
    assert_eq!(ask_all(&door, &[&[1]]).await, [Err(ErrorKind::Unavailable)]);
}

#[tokio::test]
async fn rows_that_do_not_fit_the_plan_are_refused_before_they_meet_others() {
    let seen = Seen::default();
    let door = seen_door(&seen);
    let (good, bad) = tokio::join!(ask(&door, &[1]), door.run(Request::default(), rows! { name: ["x"] }),);
    assert_eq!(ids(&good.unwrap().rows()), [1]);
    let error = bad.unwrap_err();
    assert_eq!(error.to_string(), "rows have columns (name Utf8) where the graph wants (id Int64)");
    assert_eq!(seen.calls(), [[1]]);
}

/// Panics for ids below zero, in its call or in its job, without the hook that would print each of them.
struct Brittle;

impl Step for Brittle {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let rows = input.rows(0).unwrap();
        let least = ids(rows.batch()).into_iter().min().unwrap_or(0);
        if least < 0 && least % 2 == 0 {
            std::panic::resume_unwind(Box::new("planted"));
        }
        Work::Compute(Box::new(move || {
            if least < 0 {
                std::panic::resume_unwind(Box::new("planted"));
            }
            Ok(Output::one(rows))
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_that_break_a_step_harm_nobody_else() {
    const CALLERS: i64 = 32;
    const EACH: i64 = 1250;
    let door = Arc::new(door(|graph, input| graph.step("brittle", input, Brittle)));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let door = Arc::clone(&door);
        callers.spawn(async move {
            let mut broken = 0;
            for at in 1..=EACH {
                // One request in four breaks what it is in.
                let id =
                    if (at + caller) % 4 == 0 { -(at * CALLERS + caller) } else { at * CALLERS + caller };
                match ask(&door, &[id]).await {
                    Ok(portion) => assert_eq!((ids(&portion.rows()), id > 0), (vec![id], true)),
                    Err(error) => {
                        assert_eq!((error.kind(), id < 0), (ErrorKind::Panicked, true), "{id}: {error}");
                        broken += 1;
                    }
                }
            }
            broken
        });
    }
    let mut broken = 0;
    while let Some(caller) = callers.join_next().await {
        broken += caller.unwrap();
    }
    assert!((9_900..=10_000).contains(&broken), "{broken} requests broke the step");
    assert_eq!(door.engine().run(rows! { id: [7_i64] }).await.unwrap().rows().num_rows(), 1);
}
