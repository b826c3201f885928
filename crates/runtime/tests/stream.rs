//! Replies in parts: the graph is run again on what it replied, row by row, until there is nothing left to run.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, RecordBatch},
    datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef},
};
use futures_util::future::join;
use millstream_graph::{
    ErrorKind, Graph, Input, Output, PortRef, Request, RunCx, SchemaError, Signature, Step, StepError,
    Stream, Work, fields, rows,
};
use millstream_runtime::{
    Append, Door, Engine, Limits, Part, ReplyStream, RunError,
    testkit::{assert_freed, gate, poll_once, stall},
};
use proptest::prelude::*;

/// The most parts of the streams here.
const MOST: usize = 8;

fn numbers(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

/// Counts each row down to nothing; `first` is what rows pass before.
fn counting(limits: Limits, first: impl FnOnce(&mut Graph, &PortRef) -> PortRef) -> Engine {
    let mut graph = Graph::new("count", fields! { id: Int64, left: Int64 });
    let input = graph.input();
    let first = first(&mut graph, &input);
    let counted = graph.map("counted", &first, fields! { id: Int64, next: Int64, done: Boolean }, |batch| {
        let next: Vec<i64> = numbers(batch, "left").iter().map(|left| left - 1).collect();
        let done: Vec<bool> = next.iter().map(|next| *next <= 0).collect();
        Ok(rows! { id: numbers(batch, "id"), next: next, done: done })
    });
    graph.respond(&counted);
    graph.stream(Stream::until("done").feed("left", "next").most(MOST));
    Engine::new(graph.compile().unwrap(), limits).unwrap()
}

fn plain() -> Engine {
    counting(Limits::default(), |_, input| input.clone())
}

/// What a part says: which rows it answers, what of them is left, and whether it is the last.
type Said = (Vec<u32>, Vec<i64>, bool);

fn said(part: &Part) -> Said {
    let rows = part.portion().rows();
    let places = (0..rows.num_rows()).map(|row| part.place(row).unwrap()).collect();
    (places, numbers(&rows, "next"), part.is_last())
}

async fn all(stream: &mut ReplyStream) -> Vec<Said> {
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await {
        let part = part.unwrap();
        assert_eq!(part.number(), parts.len());
        parts.push(said(&part));
    }
    parts
}

async fn parts_of(engine: &Engine, id: &[i64], left: &[i64]) -> Vec<Said> {
    let rows = rows! { id: id.to_vec(), left: left.to_vec() };
    all(&mut engine.stream(Request::default(), rows).unwrap()).await
}

#[tokio::test]
async fn a_row_that_is_done_leaves_the_stream() {
    assert_eq!(
        parts_of(&plain(), &[1, 2, 3], &[3, 1, 2]).await,
        [(vec![0, 1, 2], vec![2, 0, 1], false), (vec![0, 2], vec![1, 0], false), (vec![0], vec![0], true),]
    );
}

#[tokio::test]
async fn a_row_without_a_reply_is_not_run_again() {
    let engine = counting(Limits::default(), |graph, input| {
        graph.filter("odd", input, |batch| {
            Ok(BooleanArray::from_iter(
                numbers(batch, "left").iter().map(|left| Some(left % 2 == 1 || *left > 2)),
            ))
        })
    });
    // The second is dropped at once, the first when there are two left of it.
    assert_eq!(
        parts_of(&engine, &[1, 2], &[4, 2]).await,
        [(vec![0], vec![3], false), (vec![0], vec![2], false), (vec![], vec![], true)]
    );
}

#[tokio::test]
async fn a_stream_has_as_many_parts_as_its_graph_allows() {
    let parts = parts_of(&plain(), &[1], &[100]).await;
    assert_eq!(parts.len(), MOST);
    assert_eq!(
        parts.iter().map(|part| part.2).collect::<Vec<_>>(),
        [[false; MOST - 1].as_slice(), &[true]].concat()
    );
}

#[tokio::test]
async fn a_request_that_asks_for_no_stream_is_one_run() {
    let reply = plain().run(rows! { id: [1_i64], left: [3_i64] }).await.unwrap();
    assert_eq!(numbers(reply.rows(), "next"), [2]);
}

#[tokio::test]
async fn a_plan_without_a_stream_has_one_part() {
    let mut graph = Graph::new("echo", fields! { next: Int64 });
    let input = graph.input();
    graph.respond(&input);
    let engine = Engine::new(graph.compile().unwrap(), Limits::default()).unwrap();
    let mut stream = engine.stream(Request::default(), rows! { next: [7_i64] }).unwrap();
    assert_eq!(all(&mut stream).await, [(vec![0], vec![7], true)]);
}

#[tokio::test]
async fn what_is_not_fed_stays_as_the_request_has_it() {
    let engine = plain();
    let mut stream = engine.stream(Request::default(), rows! { id: [7_i64, 8], left: [1_i64, 3] }).unwrap();
    let mut ids = Vec::new();
    while let Some(part) = stream.next().await {
        ids.push(numbers(&part.unwrap().portion().rows(), "id"));
    }
    assert_eq!(ids, [vec![7, 8], vec![8], vec![8]]);
}

#[tokio::test]
async fn a_run_that_fails_ends_the_stream() {
    let engine = counting(Limits::default(), |graph, input| {
        graph.map("picky", input, fields! { id: Int64, left: Int64 }, |batch| {
            if numbers(batch, "left").contains(&2) {
                return Err(StepError::new(ErrorKind::Unavailable, "gone"));
            }
            Ok(batch.clone())
        })
    });
    let mut stream = engine.stream(Request::default(), rows! { id: [1_i64], left: [3_i64] }).unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn whoever_stops_waiting_cancels_the_run_under_way() {
    let (stall, alive) = stall();
    let engine = counting(Limits::default(), |graph, input| graph.step("stall", input, stall));
    let mut stream = engine.stream(Request::default(), rows! { id: [1_i64], left: [3_i64] }).unwrap();
    {
        let mut next = Box::pin(stream.next());
        assert!(poll_once(&mut next).is_pending());
    }
    assert_freed(&alive);
    assert_eq!(engine.totals().cancelled, 1);
    assert!(stream.next().await.is_none(), "nothing is run again");
}

#[tokio::test(start_paused = true)]
async fn all_parts_have_one_deadline() {
    let (gated, gate) = gate();
    let limits = Limits { deadline: Some(Duration::from_millis(100)), ..Limits::default() };
    let engine = counting(limits, |graph, input| graph.step("gated", input, gated));
    let mut stream = engine.stream(Request::default(), rows! { id: [1_i64], left: [9_i64] }).unwrap();
    gate.open(2);
    for _ in 0..2 {
        tokio::time::advance(Duration::from_millis(40)).await;
        assert!(stream.next().await.unwrap().is_ok());
    }
    let late = stream.next().await.unwrap().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn rows_that_do_not_fit_begin_no_stream() {
    let refused = plain().stream(Request::default(), rows! { id: [1_i64] });
    assert!(matches!(refused, Err(RunError::Input { .. })));
}

/// Hands its rows on and notes how many each call was given.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<usize>>>);

impl Step for Calls {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let rows = input.rows(0).unwrap();
        self.0.lock().unwrap().push(rows.len());
        Work::Done(Ok(Output::one(rows)))
    }
}

#[tokio::test]
async fn streams_that_run_at_the_same_time_share_runs() {
    let calls = Calls::default();
    let engine = counting(Limits::default(), |graph, input| graph.step("calls", input, calls.clone()));
    let door = Door::new(engine.clone(), Append::new(Arc::clone(engine.plan().input_schema())));
    let ask = async |id: Vec<i64>, left: Vec<i64>| {
        let mut stream = engine.stream(Request::default(), rows! { id: id, left: left }).unwrap();
        let mut parts = Vec::new();
        while let Some(part) = stream.next_at(&door).await {
            parts.push(said(&part.unwrap()));
        }
        parts
    };
    let (one, two) = join(ask(vec![1, 2], vec![1, 3]), ask(vec![3], vec![2])).await;
    assert_eq!(one, [(vec![0, 1], vec![0, 2], false), (vec![1], vec![1], false), (vec![1], vec![0], true)]);
    assert_eq!(two, [(vec![0], vec![1], false), (vec![0], vec![0], true)]);
    assert_eq!(*calls.0.lock().unwrap(), [3, 2, 1], "rows of both, as long as there are rows of both");
}

#[tokio::test]
async fn rows_of_others_in_a_shared_run_take_no_room() {
    let lists = |field: &str| {
        let item = Arc::new(Field::new("item", DataType::Int64, false));
        Field::new(field, DataType::List(item), false)
    };
    let mut graph = Graph::new(
        "lists",
        Arc::new(Schema::new(vec![lists("state"), Field::new("left", DataType::Int64, false)])),
    );
    let input = graph.input();
    let schema = Arc::new(Schema::new(vec![
        lists("state"),
        Field::new("next", DataType::Int64, false),
        Field::new("done", DataType::Boolean, false),
    ]));
    let (calls, made) = (Calls::default(), Arc::clone(&schema));
    let called = graph.step("calls", &input, calls.clone());
    let counted = graph.map("counted", &called, schema, move |batch| {
        let next: Vec<i64> = numbers(batch, "left").iter().map(|left| left - 1).collect();
        let done: BooleanArray = next.iter().map(|next| Some(*next <= 0)).collect();
        let next = Arc::new(arrow::array::Int64Array::from(next));
        Ok(RecordBatch::try_new(
            Arc::clone(&made),
            vec![Arc::clone(batch.column(0)), next as ArrayRef, Arc::new(done)],
        )?)
    });
    graph.respond(&counted);
    graph.stream(Stream::until("done").feed("state", "state").feed("left", "next"));
    // What a stream keeps as it is takes none.
    let engine = Engine::new(graph.compile().unwrap(), Limits { bytes: 0, ..Limits::default() }).unwrap();
    let door = Door::new(engine.clone(), Append::new(Arc::clone(engine.plan().input_schema())));
    let ask = async |items: i64| {
        let values: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(0..items));
        let item = Arc::new(Field::new("item", DataType::Int64, false));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([items as usize]);
        let state = arrow::array::ListArray::try_new(item, offsets, values, None).unwrap();
        let left: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![3_i64]));
        let rows = RecordBatch::try_new(
            Arc::clone(engine.plan().input_schema()),
            vec![Arc::new(state) as ArrayRef, left],
        );
        let mut stream = engine.stream(Request::default(), rows.unwrap()).unwrap();
        let mut parts = Vec::new();
        while let Some(part) = stream.next_at(&door).await {
            let rows = part.unwrap().portion().rows();
            parts.push(rows.column(0).as_list::<i32>().value(0).len() as i64);
        }
        parts
    };
    let (one, two) = join(ask(5), ask(700)).await;
    assert_eq!((one, two), (vec![5; 3], vec![700; 3]));
    assert_eq!(*calls.0.lock().unwrap(), [2, 2, 2], "they share their runs");
}

/// A graph whose state is a tensor, of which the reply says that its items may be null. Below zero, they are.
fn halving() -> Engine {
    let state = |nullable| {
        let item = Arc::new(Field::new("item", DataType::Float32, nullable));
        Field::new("state", DataType::FixedSizeList(item, 2), false)
    };
    let mut graph = Graph::new("halve", Arc::new(Schema::new(vec![state(false)])));
    let input = graph.input();
    let done = Field::new("done", DataType::Boolean, false);
    let schema = Arc::new(Schema::new(vec![state(true), done]));
    let made = Arc::clone(&schema);
    let halved = graph.map("halved", &input, schema, move |batch| {
        let lists = batch.column(0).as_fixed_size_list();
        let rows = (0..lists.len()).map(|row| {
            let row = lists.value(row);
            let items = row.as_primitive::<Float32Type>().values().to_vec();
            Some(items.into_iter().map(|item| (item >= 0.0).then_some(item / 2.0)).collect::<Vec<_>>())
        });
        let halves = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2);
        let done: BooleanArray = (0..halves.len())
            .map(|row| Some(halves.value(row).as_primitive::<Float32Type>().value(0) <= 1.0))
            .collect();
        Ok(RecordBatch::try_new(Arc::clone(&made), vec![Arc::new(halves) as ArrayRef, Arc::new(done)])?)
    });
    graph.respond(&halved);
    graph.stream(Stream::until("done").feed("state", "state"));
    Engine::new(graph.compile().unwrap(), Limits::default()).unwrap()
}

#[tokio::test]
async fn items_that_may_be_null_are_fed_where_none_may_unless_they_are() {
    let engine = halving();
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let ask = |first: f32, second: f32| {
        let values: ArrayRef = Arc::new(arrow::array::Float32Array::from(vec![first, second]));
        let state = FixedSizeListArray::try_new(Arc::clone(&item), 2, values, None).unwrap();
        let rows =
            RecordBatch::try_new(Arc::clone(engine.plan().input_schema()), vec![Arc::new(state) as ArrayRef]);
        engine.stream(Request::default(), rows.unwrap()).unwrap()
    };
    let mut parts = 0;
    let mut stream = ask(8.0, 4.0);
    while let Some(part) = stream.next().await {
        part.unwrap();
        parts += 1;
    }
    assert_eq!(parts, 3);
    let mut stream = ask(8.0, -1.0);
    assert!(!stream.next().await.unwrap().unwrap().is_last(), "what was replied is a part");
    let refused = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(refused, RunError::Fed { .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Internal);
    assert!(stream.next().await.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a caller would get who ran the graph again and again by hand.
    #[test]
    fn a_stream_equals_a_loop_written_by_hand(left in prop::collection::vec(-1..12_i64, 1..9)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let engine = plain();
        let (parts, by_hand) = runtime.block_on(async {
            let id: Vec<i64> = (0..left.len() as i64).collect();
            let parts = parts_of(&engine, &id, &left).await;
            let mut by_hand: Vec<Said> = Vec::new();
            let (mut places, mut left) = ((0..left.len() as u32).collect::<Vec<_>>(), left.clone());
            while !places.is_empty() && by_hand.len() < MOST {
                let id: Vec<i64> = places.iter().map(|place| i64::from(*place)).collect();
                let reply = engine.run(rows! { id: id, left: left.clone() }).await.unwrap();
                let next = numbers(reply.rows(), "next");
                by_hand.push((places.clone(), next.clone(), false));
                let stays = |(_, next): &(u32, i64)| *next > 0;
                (places, left) = places.into_iter().zip(next).filter(stays).unzip();
            }
            by_hand.last_mut().unwrap().2 = true;
            (parts, by_hand)
        });
        prop_assert_eq!(parts, by_hand);
    }
}
