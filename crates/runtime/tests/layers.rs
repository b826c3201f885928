//! What each layer around a step promises, with a clock that stands still unless it is moved.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use millstream_graph::{
    Effect, ErrorKind, Input, Output, Request, RunCx, SchemaError, Signature, Step, StepError, Work,
};
use millstream_runtime::{
    Engine,
    layers::{Layers, kinds},
    testkit::{Counted, assert_freed, engine_of, gate, poll_once, rows, stall},
};
use serde_json::json;
use tokio::time::{Instant, advance};

const MS: Duration = Duration::from_millis(1);

/// What one call does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer,
    Fail(ErrorKind),
    /// Fails after some waiting.
    FailLater(ErrorKind),
    Hang,
    Panic,
}
use Act::{Answer, Fail, FailLater, Hang, Panic};

/// Acts as it is told, call after call; then it answers.
#[derive(Clone, Default)]
struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    calls: Arc<Mutex<Vec<Instant>>>,
}

impl Script {
    fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        Self { acts: Arc::new(Mutex::new(acts.into_iter().collect())), calls: Arc::default() }
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// The time between calls.
    fn pauses(&self) -> Vec<Duration> {
        self.calls.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl Step for Script {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])).with_effect(Effect::Repeatable))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        self.calls.lock().unwrap().push(Instant::now());
        let failed = |kind| Err(StepError::new(kind, "planted"));
        match self.acts.lock().unwrap().pop_front().unwrap_or(Answer) {
            Answer => Work::Done(input.rows(0).map(Output::one)),
            Fail(kind) => Work::Done(failed(kind)),
            FailLater(kind) => Work::Io(Box::pin(async move {
                tokio::time::sleep(MS).await;
                failed(kind)
            })),
            Hang => Work::Io(Box::pin(std::future::pending())),
            Panic => Work::Io(Box::pin(async { panic!("planted") })),
        }
    }
}

fn engine(step: impl Step) -> Engine {
    engine_of(|graph| {
        let input = graph.input();
        graph.step("outside", input, step)
    })
}

/// What each of `runs` runs, one after the other, is answered.
async fn outcomes(engine: &Engine, runs: usize) -> Vec<Result<(), ErrorKind>> {
    let mut outcomes = Vec::new();
    for _ in 0..runs {
        outcomes.push(engine.run(rows! { id: [1i64] }).await.map(drop).map_err(|error| error.kind()));
    }
    outcomes
}

use ErrorKind::{DeadlineExceeded, Internal, Overloaded, Panicked, Rows, Unavailable};

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_too_long_is_dropped_and_fails() {
    let (stall, alive) = stall();
    let engine = engine(stall.timeout(20 * MS));
    let start = Instant::now();
    assert_eq!(outcomes(&engine, 1).await, [Err(DeadlineExceeded)]);
    assert_eq!(start.elapsed(), 20 * MS);
    assert_freed(&alive);
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let cases: [(&[Act], Result<(), ErrorKind>, usize); 7] = [
        (&[], Ok(()), 1),
        (&[Fail(Unavailable)], Ok(()), 2),
        (&[FailLater(Unavailable), Fail(DeadlineExceeded)], Ok(()), 3),
        (&[Fail(Unavailable), Fail(Unavailable), Fail(Unavailable)], Err(Unavailable), 3),
        (&[Fail(Rows)], Err(Rows), 1),
        (&[FailLater(Internal)], Err(Internal), 1),
        (&[Fail(Unavailable), FailLater(Overloaded)], Err(Overloaded), 2),
    ];
    for (acts, wanted, calls) in cases {
        let script = Script::of(acts.iter().copied());
        let engine = engine(script.clone().retry(2));
        assert_eq!((outcomes(&engine, 1).await[0], script.calls()), (wanted, calls), "{acts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_a_timeout_of_its_own() {
    let script = Script::of([Hang, Hang]);
    let engine = engine(script.clone().timeout(20 * MS).retry(2));
    assert_eq!(outcomes(&engine, 1).await, [Ok(())]);
    assert_eq!(script.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_apart_by_a_random_time_that_grows_up_to_a_bound() {
    let mut longest = [Duration::ZERO; 4];
    for _ in 0..300 {
        let script = Script::of([Fail(Unavailable); 3]);
        let engine = engine(script.clone().retry(3).backoff(10 * MS, 25 * MS));
        outcomes(&engine, 1).await;
        for (longest, pause) in longest.iter_mut().zip(script.pauses()) {
            *longest = pause.max(*longest);
        }
    }
    // A paused clock moves in whole milliseconds.
    for (longest, bound) in longest.iter().zip([10, 20, 25]) {
        assert!(*longest <= (bound + 1) * MS && *longest > bound * MS / 2, "{longest:?} of {bound} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_down_is_asked_little_more_often_than_callers_ask() {
    let script = Script::of(std::iter::repeat_n(Fail(Unavailable), 10_000));
    let engine = engine(script.clone().retry(5));
    outcomes(&engine, 1000).await;
    assert!((1150..=1210).contains(&script.calls()), "{} calls for 1000", script.calls());
}

#[tokio::test(start_paused = true)]
async fn there_is_no_attempt_that_the_deadline_would_cut_off() {
    let script = Script::of([Fail(Unavailable), Fail(Unavailable)]);
    let engine = engine(script.clone().retry(2).backoff(Duration::from_secs(600), Duration::from_secs(600)));
    let request = Request { deadline: Some((Instant::now() + MS).into_std()), ..Request::default() };
    let error = engine.run_request(request, rows! { id: [1i64] }).await.unwrap_err();
    assert_eq!((error.kind(), script.calls()), (Unavailable, 1));
}

#[tokio::test]
async fn a_step_that_must_happen_once_cannot_be_retried() {
    let mut graph = millstream_graph::Graph::new("test", millstream_graph::fields! { id: Int64 });
    let input = graph.input();
    let pay = graph.step("pay", &input, Counted::default().retry(1));
    graph.respond(&pay);
    let errors = graph.compile().unwrap_err().to_string();
    assert_eq!(errors, "step `pay`: it must happen once per request, so it cannot be retried");
}

#[tokio::test]
async fn calls_beyond_a_limit_wait_in_its_queue_and_beyond_that_are_refused() {
    let (gated, gate) = gate();
    let engine = engine(gated.limit(1).queue(1));
    let mut runs: Vec<_> = (0..3).map(|_| Box::pin(outcomes(&engine, 1))).collect();
    assert!(poll_once(&mut runs[0]).is_pending(), "inside");
    assert!(poll_once(&mut runs[1]).is_pending(), "waiting");
    assert_eq!(runs.remove(2).await, [Err(Overloaded)]);
    gate.open(2);
    for run in runs {
        assert_eq!(run.await, [Ok(())]);
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_its_place_inside_a_limit() {
    let (gated, gate) = gate();
    let engine = engine(gated.limit(1));
    let mut gone = Box::pin(outcomes(&engine, 1));
    assert!(poll_once(&mut gone).is_pending());
    assert_eq!(outcomes(&engine, 1).await, [Err(Overloaded)]);
    drop(gone);
    gate.open(1);
    assert_eq!(outcomes(&engine, 1).await, [Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_after_failures_in_a_row_and_closes_after_probes() {
    let script = Script::of([Fail(Unavailable); 5]);
    let engine = engine(script.clone().breaker());
    assert_eq!(outcomes(&engine, 7).await, [Err(Unavailable); 7]);
    assert_eq!(script.calls(), 5, "open: no further call is made");
    advance(Duration::from_secs(5)).await;
    assert_eq!(outcomes(&engine, 10).await, [Ok(()); 10]);
    assert_eq!(script.calls(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_the_breaker_again() {
    let script = Script::of([Fail(Internal), Fail(Internal), FailLater(Internal)]);
    let engine = engine(script.clone().breaker().after(2).open_for(Duration::from_secs(1)));
    outcomes(&engine, 2).await;
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcomes(&engine, 2).await, [Err(Internal), Err(Unavailable)]);
    assert_eq!(script.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_when_half_of_many_recent_calls_fail() {
    let script = Script::of([Fail(Unavailable), Answer].into_iter().cycle().take(40));
    let engine = engine(script.clone().breaker());
    let all = outcomes(&engine, 40).await;
    assert_eq!(script.calls(), 21, "half of 20 failed, and then one more");
    assert!(all[21..].iter().all(|outcome| *outcome == Err(Unavailable)));
    // The same failures over a longer time than the window are none to worry about.
    let script = Script::of([Fail(Unavailable), Answer].into_iter().cycle().take(40));
    let engine = self::engine(script.clone().breaker());
    for _ in 0..40 {
        outcomes(&engine, 1).await;
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(script.calls(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_keeps_panicking_is_not_called_again() {
    let script = Script::of([Panic; 9]);
    let engine = engine(script.clone().breaker().after(3));
    let wanted = [Err(Panicked), Err(Panicked), Err(Panicked), Err(Unavailable), Err(Unavailable)];
    assert_eq!(outcomes(&engine, 5).await, wanted);
}

#[tokio::test(start_paused = true)]
async fn rows_at_fault_and_callers_that_go_do_not_open_a_breaker() {
    let script = Script::of([Fail(Rows), Hang].into_iter().cycle().take(20));
    let engine = engine(script.clone().breaker().after(2));
    for _ in 0..10 {
        assert_eq!(outcomes(&engine, 1).await, [Err(Rows)]);
        assert!(poll_once(&mut Box::pin(outcomes(&engine, 1))).is_pending());
    }
    assert_eq!(outcomes(&engine, 1).await, [Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_long_is_made_a_second_time_and_the_first_good_answer_counts() {
    type Case = (&'static [Act], Result<(), ErrorKind>, usize, u128);
    let cases: [Case; 5] = [
        (&[], Ok(()), 1, 0),
        (&[Hang], Ok(()), 2, 20),
        (&[Hang, FailLater(Unavailable)], Err(DeadlineExceeded), 2, 100),
        (&[FailLater(Unavailable)], Err(Unavailable), 1, 1),
        (&[Hang, Hang], Err(DeadlineExceeded), 2, 100),
    ];
    for (acts, wanted, calls, took) in cases {
        let script = Script::of(acts.iter().copied());
        let engine = engine(script.clone().hedge(20 * MS).timeout(100 * MS));
        let start = Instant::now();
        assert_eq!((outcomes(&engine, 1).await[0], script.calls()), (wanted, calls), "{acts:?}");
        assert_eq!(start.elapsed().as_millis(), took, "{acts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn second_calls_are_few_however_slow_everything_is() {
    let script = Script::of(std::iter::repeat_n(Hang, 10_000));
    let engine = engine(script.clone().hedge(MS).timeout(5 * MS));
    outcomes(&engine, 1000).await;
    assert!((1050..=1060).contains(&script.calls()), "{} calls for 1000", script.calls());
}

#[test]
fn a_file_names_layers_and_their_settings() {
    let said = |name: &str, settings: serde_json::Value| {
        let kinds = kinds();
        let kind = kinds.iter().find(|kind| kind.name() == name).unwrap();
        match kind.build(&settings, Arc::new(Script::default())) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{}: {}", error.path.join("."), error.problems.join("; ")),
        }
    };
    for (name, settings, wanted) in [
        ("timeout", json!("20ms"), "ok"),
        ("timeout", json!("1m 30s"), "ok"),
        ("timeout", json!("soon"), ": `soon` is no time; write it like 20ms or 2s"),
        ("timeout", json!(20), ": invalid type: integer `20`, expected a string"),
        ("limit", json!(8), "ok"),
        ("limit", json!({ "calls": 8, "queue": 2 }), "ok"),
        ("limit", json!(0), ": `calls` is at least 1"),
        ("limit", json!({ "calls": 8, "queu": 2 }), ": a number of calls, or a map of `calls` and `queue`"),
        ("retry", json!(2), "ok"),
        ("retry", json!({ "times": 2, "base": "1ms" }), "ok"),
        ("retry", json!("twice"), ": a number of attempts, or a map of `times`, `base` and `longest`"),
        ("hedge", json!("5ms"), "ok"),
        ("breaker", json!(null), "ok"),
        ("breaker", json!({ "failures": 3, "open": "1s" }), "ok"),
        ("breaker", json!({ "failures": 0 }), ": `failures` is at least 1"),
        ("batch", json!({ "rows": 64, "delay": "2ms", "calls": 1, "queue_rows": 9, "queue_bytes": 9 }), "ok"),
        ("batch", json!({ "rows": 0 }), ": `rows` is at least 1"),
        (
            "batch",
            json!({ "rows": 8, "dely": "2ms" }),
            "dely: unknown field `dely`, expected one of `rows`, `delay`, `calls`, `queue_rows`, `queue_bytes`",
        ),
    ] {
        assert_eq!(said(name, settings.clone()), wanted, "{name} {settings}");
    }
}
