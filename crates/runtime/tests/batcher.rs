//! What the batcher promises: rows of several runs in one call, and each run answered as if it had been alone.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use futures_util::{FutureExt, future::join_all};
use millstream_graph::{
    Effect, ErrorKind, FailedRows, Graph, Input, Output, Request, Rows, RunCx, SchemaError, Signature, Step,
    StepError, StepResult, Work,
};
use millstream_runtime::{
    Engine, Reply, RunError,
    layers::{Batcher, Layers},
    testkit::{engine_of, fields, rows},
};
use proptest::prelude::*;
use tokio::{
    sync::Semaphore,
    time::{Instant, advance},
};

const MS: Duration = Duration::from_millis(1);

/// Adds one to each id. Rows with ids from 100 on cannot be accepted, one from 200 on breaks the whole call, and one from 300
/// on makes it panic.
#[derive(Clone)]
struct Model {
    calls: Arc<Mutex<Vec<Vec<i64>>>>,
    /// One permit per call that may end.
    gate: Arc<Semaphore>,
    effect: Effect,
    computes: bool,
}

impl Default for Model {
    fn default() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2));
        Self { calls: Arc::default(), gate, effect: Effect::None, computes: false }
    }
}

impl Model {
    fn gated() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::default() }
    }

    /// The ids of each call so far.
    fn calls(&self) -> Vec<Vec<i64>> {
        self.calls.lock().unwrap().clone()
    }
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn answer(rows: &Rows) -> StepResult {
    let given = ids(rows.batch());
    assert!(given.iter().all(|id| *id < 300), "planted");
    if given.iter().any(|id| *id >= 200) {
        return Err(StepError::new(ErrorKind::Unavailable, "broken"));
    }
    let good = |want: bool| given.iter().map(|id| Some((*id < 100) == want)).collect::<BooleanArray>();
    let failed = rows.filter(&good(false))?;
    let messages = ids(failed.batch()).iter().map(|id| format!("{id} is too much")).collect();
    let kept = rows.filter(&good(true))?;
    let added: Vec<i64> = ids(kept.batch()).iter().map(|id| id + 1).collect();
    Ok(Output::one(kept.replace(rows! { id: added })?).with_failed(FailedRows { rows: failed, messages }))
}

impl Step for Model {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])).with_effect(self.effect))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let rows = match input.rows(0) {
            Ok(rows) => rows,
            Err(error) => return Work::Done(Err(error)),
        };
        self.calls.lock().unwrap().push(ids(rows.batch()));
        if self.computes {
            return Work::Compute(Box::new(move || answer(&rows)));
        }
        Work::Io(Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            answer(&rows)
        }))
    }
}

fn engine(model: &Model, layer: impl FnOnce(Batcher<Model>) -> Batcher<Model>) -> Engine {
    let batched = layer(model.clone().batch(4));
    engine_of(|graph| {
        let input = graph.input();
        let answered = graph.step("model", &input, batched);
        let refused = graph.map("refused", answered.error(), fields! { id: Int64 }, |batch| {
            Ok(rows! { id: ids(batch).iter().map(|id| -id).collect::<Vec<_>>() })
        });
        graph.merge("answer", [&answered, &refused])
    })
}

/// Starts a run, so that its rows wait or are in a call.
fn start(engine: &Engine, given: &[i64]) -> tokio::task::JoinHandle<Result<Reply, RunError>> {
    within(engine, given, None)
}

#[expect(clippy::disallowed_methods, reason = "the test awaits or aborts every run")]
fn within(
    engine: &Engine,
    given: &[i64],
    time: Option<Duration>,
) -> tokio::task::JoinHandle<Result<Reply, RunError>> {
    let (engine, rows) = (engine.clone(), rows! { id: given.to_vec() });
    let deadline = time.map(|time| (Instant::now() + time).into_std());
    tokio::spawn(async move { engine.run_request(Request { deadline, ..Request::default() }, rows).await })
}

/// Lets every task that can do something do it.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

async fn replied(run: tokio::task::JoinHandle<Result<Reply, RunError>>) -> Vec<i64> {
    ids(run.await.unwrap().unwrap().rows())
}

/// Answers the time for which each row asks.
struct Clock;

impl Step for Clock {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let told = |rows: Rows| {
            let times = cx.times(&rows)?.unwrap();
            Ok(Output::one(rows.replace(rows! { id: times.values().to_vec() })?))
        };
        Work::Done(input.rows(0).and_then(told))
    }
}

#[tokio::test]
async fn rows_keep_the_times_for_which_their_runs_ask() {
    let engine = engine_of(|graph| {
        let input = graph.input();
        // Behind a filter a row no longer stands where it stood in the request.
        let some = graph.filter("some", &input, |batch| {
            Ok(ids(batch).iter().map(|id| Some(*id > 0)).collect::<BooleanArray>())
        });
        graph.step("clock", &some, Clock.batch(4))
    });
    let asked = |given: Vec<i64>| {
        let times = given.iter().map(|id| Some(id * 10)).collect();
        let request = Request { times: Some(times), ..Request::default() };
        let engine = engine.clone();
        async move { ids(engine.run_request(request, rows! { id: given }).await.unwrap().rows()) }
    };
    let (long, short) = tokio::join!(asked(vec![0, 1, 2, 3, 0, 4, 5, 6]), asked(vec![0, 7]));
    assert_eq!((long, short), (vec![10, 20, 30, 40, 50, 60], vec![70]));
}

#[tokio::test]
async fn rows_gather_while_a_call_is_under_way_and_leave_together() {
    let model = Model::gated();
    let engine = engine(&model, |layer| layer.calls(1));
    let first = start(&engine, &[1]);
    settle().await;
    let (second, third) = (start(&engine, &[2, 3]), start(&engine, &[4]));
    settle().await;
    assert_eq!(model.calls(), [[1]]);
    model.gate.add_permits(2);
    let replies = [replied(first).await, replied(second).await, replied(third).await];
    assert_eq!(replies, [vec![2], vec![3, 4], vec![5]]);
    assert_eq!(model.calls(), [vec![1], vec![2, 3, 4]]);
}

#[tokio::test]
async fn without_a_delay_a_lone_run_waits_for_nobody_and_calls_run_side_by_side() {
    let model = Model::gated();
    let engine = engine(&model, |layer| layer.calls(2));
    let first = start(&engine, &[1]);
    settle().await;
    let second = start(&engine, &[2]);
    settle().await;
    assert_eq!(model.calls(), [[1], [2]]);
    model.gate.add_permits(2);
    assert_eq!([replied(first).await, replied(second).await], [[2], [3]]);
}

#[tokio::test(start_paused = true)]
async fn the_first_row_waits_no_longer_than_the_delay_and_a_full_call_leaves_at_once() {
    let model = Model::default();
    let engine = engine(&model, |layer| layer.delay(5 * MS));
    let start_time = Instant::now();
    let lone = start(&engine, &[1]);
    settle().await;
    advance(2 * MS).await;
    let late = start(&engine, &[2]);
    assert_eq!([replied(lone).await, replied(late).await], [[2], [3]]);
    assert_eq!(start_time.elapsed().as_millis(), 5);
    let full = [start(&engine, &[1, 2]), start(&engine, &[3]), start(&engine, &[4])];
    join_all(full).await;
    assert_eq!(start_time.elapsed().as_millis(), 5);
    assert_eq!(model.calls(), [vec![1, 2], vec![1, 2, 3, 4]]);
}

#[tokio::test]
async fn a_run_with_many_rows_is_answered_by_several_calls_and_holds_nobody_up() {
    let model = Model::gated();
    let engine = engine(&model, |layer| layer.calls(1));
    let first = start(&engine, &[0]);
    settle().await;
    let many = start(&engine, &(10..20).collect::<Vec<_>>());
    let few = start(&engine, &[1]);
    settle().await;
    model.gate.add_permits(2);
    // The small run leaves with the first call although the large one came before it.
    assert_eq!([replied(first).await, replied(few).await], [[1], [2]]);
    assert_eq!(model.calls()[1], [10, 11, 12, 1]);
    model.gate.add_permits(9);
    assert_eq!(replied(many).await, (11..21).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn whoever_has_gone_or_has_no_time_left_costs_nothing() {
    let model = Model::gated();
    let engine = engine(&model, |layer| layer.calls(1));
    let first = start(&engine, &[1]);
    settle().await;
    let (gone, late, stays) = (start(&engine, &[2]), within(&engine, &[3], Some(MS)), start(&engine, &[4]));
    settle().await;
    gone.abort();
    advance(2 * MS).await;
    assert_eq!(late.await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    model.gate.add_permits(2);
    assert_eq!([replied(first).await, replied(stays).await], [[2], [5]]);
    assert_eq!(model.calls(), [[1], [4]]);
}

#[tokio::test]
async fn what_waits_is_bounded_in_rows_and_bytes() {
    type Bound = fn(Batcher<Model>) -> Batcher<Model>;
    let bounds: [Bound; 2] =
        [|layer| layer.calls(1).queue_rows(3), |layer| layer.calls(1).queue_bytes(3 * 8)];
    for bound in bounds {
        let model = Model::gated();
        let engine = engine(&model, bound);
        let mut runs = vec![start(&engine, &[1])];
        settle().await;
        runs.push(start(&engine, &[2, 3]));
        settle().await;
        let refused = start(&engine, &[4, 5]).await.unwrap();
        // The error port takes what was refused.
        assert_eq!(ids(refused.unwrap().rows()), [-4, -5]);
        // Those that have gone make room.
        runs.pop().unwrap().abort();
        settle().await;
        let again = start(&engine, &[4, 5]);
        settle().await;
        model.gate.add_permits(2);
        assert_eq!(replied(again).await, [5, 6]);
    }
}

#[tokio::test]
async fn a_call_that_fails_is_made_again_for_each_run() {
    for poison in [200, 300] {
        let model = Model::gated();
        let engine = engine(&model, |layer| layer.calls(1));
        let first = start(&engine, &[1]);
        settle().await;
        let (good, bad) = (start(&engine, &[2, 101]), start(&engine, &[poison]));
        settle().await;
        model.gate.add_permits(9);
        assert_eq!(replied(first).await, [2]);
        assert_eq!(replied(good).await, [3, -101]);
        assert_eq!(replied(bad).await, [-poison]);
        assert_eq!(model.calls()[1..], [vec![2, 101, poison], vec![2, 101], vec![poison]]);
    }
}

#[tokio::test]
async fn jobs_of_a_batched_step_run_where_the_engine_computes() {
    let model = Model { computes: true, ..Model::default() };
    let engine = engine(&model, |layer| layer);
    assert_eq!(replied(start(&engine, &[1, 100])).await, [2, -100]);
}

#[test]
fn only_what_may_be_repeated_row_by_row_can_be_batched() {
    let cases = [
        (Effect::Once, "step `model`: it must happen once per request, so it cannot be batched"),
        (
            Effect::None,
            "step `free`: only a step with one in-port and one out-port that computes each row from that row alone can be \
             batched",
        ),
    ];
    for (effect, problem) in cases {
        let mut graph = Graph::new("g", fields! { id: Int64 });
        let model = Model { effect, ..Model::default() };
        let mut answered = graph.step("model", graph.input(), model.batch(4));
        if effect == Effect::None {
            answered = graph.step("free", &answered, Free.batch(4));
        }
        graph.respond(&answered);
        assert_eq!(graph.compile().unwrap_err().to_string(), problem);
    }
}

struct Free;

impl Step for Free {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::free(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).map(Output::one))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_batched_step_answers_each_run_as_if_it_were_alone(
        runs in prop::collection::vec(prop::collection::vec(prop_oneof![8 => 0..150_i64, 1 => 190..310_i64], 1..12), 1..12),
        most in 1..9_usize,
        calls in 1..4_usize,
        computes: bool,
    ) {
        let model = Model { computes, ..Model::default() };
        // Room for all of them: how many wait at once is a matter of timing, and a full queue refuses.
        let rows = runs.iter().map(Vec::len).sum();
        let batched = engine_of(|graph| {
            let input = graph.input();
            graph.step("model", &input, model.clone().batch(most).calls(calls).queue_rows(rows))
        });
        let alone = engine_of(|graph| {
            let input = graph.input();
            graph.step("model", &input, model.clone())
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let handles: Vec<_> = runs.iter().map(|run| start(&batched, run)).collect();
            for (handle, run) in handles.into_iter().zip(&runs) {
                let said = |result: Result<Reply, RunError>| match result {
                    Ok(reply) => Ok(ids(reply.rows())),
                    Err(error) => Err(error.to_string()),
                };
                let wanted = said(alone.run(rows! { id: run.clone() }).await);
                let got = said(handle.await.unwrap());
                // A run in several parts hears of the first that failed; alone, it hears of the worst.
                match (&wanted, &got) {
                    (Err(_), Err(_)) => {}
                    _ => assert_eq!(wanted, got),
                }
            }
        });
    }
}

#[tokio::test]
async fn calls_under_way_end_with_the_layer() {
    let model = Model::gated();
    let engine = engine(&model, |layer| layer);
    let mut run = Box::pin(engine.run(rows! { id: [1_i64] }));
    assert!((&mut run).now_or_never().is_none());
    settle().await;
    drop(run);
    drop(engine);
    settle().await;
    // The model's own handle is the last one.
    assert_eq!(Arc::strong_count(&model.gate), 1);
}
