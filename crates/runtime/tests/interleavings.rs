//! What threads do at the same time, in many orders: the door, the batcher, admission and the hand-over to the pool.
//!
//! `cargo test --workspace --features millstream-runtime/shuttle --test interleavings`. A failure prints a schedule, which
//! `shuttle::replay` runs again.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use futures_util::future::{Either, select};
use millstream_graph::{
    ErrorKind, Input, Output, Request, RunCx, SchemaError, Signature, Step, StepError, Work,
};
use millstream_runtime::{
    Append, Door, Engine, Limits, RunError,
    layers::Layers,
    testkit::{engine_with, rows},
};
use shuttle::{future, thread};

const ORDERS: usize = 2000;

/// Tries many orders of what `threads` do.
fn in_any_order(threads: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(threads.clone(), ORDERS);
    shuttle::check_pct(threads, ORDERS, 3);
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// Ten times the id; a batch with an id below zero breaks.
#[derive(Clone, Copy)]
enum Tenfold {
    Inline,
    Waiting,
    Computing,
}

impl Step for Tenfold {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let mut rest = move || {
            let rows = input.rows(0)?;
            let given = ids(rows.batch());
            if given.iter().any(|id| *id < 0) {
                return Err(StepError::new(ErrorKind::Internal, "broken"));
            }
            rows.replace(rows! { id: given.iter().map(|id| id * 10).collect::<Vec<_>>() }).map(Output::one)
        };
        match self {
            Self::Inline => Work::Done(rest()),
            Self::Waiting => Work::Io(Box::pin(async move {
                future::yield_now().await;
                rest()
            })),
            Self::Computing => Work::Compute(Box::new(rest)),
        }
    }
}

fn limits() -> Limits {
    Limits { shared_rows: 8, shared_runs: 1, compute_threads: 1, compute_queue: 1, ..Limits::default() }
}

fn engine(limits: Limits, step: impl Step) -> Engine {
    engine_with(limits, |graph| {
        let input = graph.input();
        graph.step("tenfold", &input, step)
    })
}

/// What a caller that asks for `id` is answered; one with patience for so many turns only may go without an answer.
fn ask<F>(run: F, id: i64, patience: Option<usize>)
where
    F: Future<Output = Result<Vec<i64>, RunError>> + Send + 'static,
{
    let check = move |answer: Result<Vec<i64>, RunError>| match answer {
        Ok(given) => assert_eq!(given, [id * 10]),
        Err(error) => assert!(id < 0 && error.to_string() == "step `tenfold`: broken", "{id}: {error}"),
    };
    let turns = async move {
        for _ in 0..patience.unwrap_or(usize::MAX) {
            future::yield_now().await;
        }
    };
    future::block_on(async move {
        match patience {
            None => check(run.await),
            Some(_) => {
                if let Either::Left((answer, _)) = select(Box::pin(run), Box::pin(turns)).await {
                    check(answer);
                }
            }
        }
    });
}

/// Callers, each on a thread of its own: some that stay, some that go, one that breaks what it is in.
fn callers<F>(run: impl Fn(i64) -> F + Send + Sync + 'static)
where
    F: Future<Output = Result<Vec<i64>, RunError>> + Send + 'static,
{
    let run = Arc::new(run);
    let callers = [(1, None), (2, Some(1)), (3, Some(2)), (-4, Some(2)), (5, None)];
    let threads = callers.map(|(id, patience)| {
        let run = Arc::clone(&run);
        thread::spawn(move || ask(run(id), id, patience))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn whoever_meets_at_a_door_gets_its_own_rows() {
    for step in [Tenfold::Inline, Tenfold::Waiting] {
        in_any_order(move || {
            let engine = engine(limits(), step);
            let schema = Arc::clone(engine.plan().input_schema());
            let door = Arc::new(Door::new(engine, Append::new(schema)));
            callers(move |id| {
                let door = Arc::clone(&door);
                async move {
                    let portion = door.run(Request::default(), rows! { id: [id] }).await?;
                    Ok(ids(&portion.rows()))
                }
            });
        });
    }
}

#[test]
fn whoever_meets_in_a_batch_gets_its_own_rows() {
    for step in [Tenfold::Waiting, Tenfold::Computing] {
        in_any_order(move || {
            let step = Arc::new(step);
            let held = Arc::downgrade(&step);
            let engine = engine(limits(), step.batch(2).calls(2));
            callers(move |id| {
                let engine = engine.clone();
                async move { Ok(ids(engine.run(rows! { id: [id] }).await?.rows())) }
            });
            // Whoever still works ends with the engine, which has gone with the last caller.
            while held.strong_count() > 0 {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn a_job_is_answered_or_never_starts() {
    in_any_order(|| {
        let engine = engine(limits(), Tenfold::Computing);
        callers(move |id| {
            let engine = engine.clone();
            async move { Ok(ids(engine.run(rows! { id: [id] }).await?.rows())) }
        });
    });
}

#[test]
fn no_more_runs_are_under_way_than_may_be_and_none_after_closing() {
    in_any_order(|| {
        let under_way = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&under_way);
        let engine = engine(Limits { runs: 2, compute_threads: 0, ..Limits::default() }, Watched(seen));
        let runs: Vec<_> = (0..4_i64)
            .map(|at| {
                let engine = engine.clone();
                thread::spawn(move || {
                    let rows = rows! { id: [at] };
                    let answer = match at % 2 {
                        0 => future::block_on(engine.run(rows)),
                        _ => future::block_on(engine.try_run(Request::default(), rows)),
                    };
                    assert!(matches!(answer, Ok(_) | Err(RunError::Overloaded | RunError::Closed)));
                })
            })
            .collect();
        future::block_on(engine.close());
        assert_eq!(under_way.load(SeqCst), 0);
        let late = future::block_on(engine.run(rows! { id: [1_i64] }));
        assert!(matches!(late, Err(RunError::Closed)));
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

/// Counts the runs inside it.
struct Watched(Arc<AtomicUsize>);

impl Step for Watched {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Io(Box::pin(async move {
            assert!(self.0.fetch_add(1, SeqCst) < 2);
            future::yield_now().await;
            self.0.fetch_sub(1, SeqCst);
            input.rows(0).map(Output::one)
        }))
    }
}
