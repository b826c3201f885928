//! Models that keep a state, in steps that keep it for them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, RecordBatch};
use millstream_graph::{
    Compute, Input, Job, Output, Request, Rows, RunCx, RunId, Step, StepFuture, StepResult, Token, Work,
};
use millstream_models::{ModelSet, kinds};
use serde_json::{Value, json};
use smallvec::smallvec;

use crate::harness::model;

fn step(more: &Value) -> Result<Arc<dyn Step>, Vec<String>> {
    let models = Arc::new(ModelSet::default().with("sums", Arc::new(model("sums"))));
    let mut settings = json!({
        "use": "sums", "id": "id", "states": { "total": "next" }, "constants": { "by": 10 }, "inputs": { "x": ["a", "b"] },
        "outputs": { "sum": "y[0]" }, "keep": ["id"],
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kind = kinds(models).into_iter().find(|kind| kind.name() == "sequence").unwrap();
    let step = kind.build(&settings).map_err(|error| error.problems)?;
    step.signature(&[rows(&[]).schema()]).map_err(|error| error.problems().to_vec())?;
    Ok(step)
}

/// One row: its sequence, what it adds, and whether it starts and ends it.
type Row = (Option<i64>, f32, bool, bool);

fn rows(rows: &[Row]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let a: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.1)).collect::<Float32Array>());
    let flag = |of: fn(&Row) -> bool| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<BooleanArray>())
    };
    let columns = [
        ("id", ids),
        ("a", Arc::clone(&a)),
        ("b", a),
        ("start", flag(|row| row.2)),
        ("end", flag(|row| row.3)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// The sums of the rows that were run, and why the others were not.
fn told(step: &dyn Step, batch: RecordBatch) -> (Vec<(i64, f32)>, Vec<String>) {
    let cx = RunCx::new(RunId(0), Request::default(), batch.num_rows(), Instant::now);
    let answer = match step.call(Input::new(smallvec![Token::Rows(Rows::whole(batch))]), &cx) {
        Work::Compute(job) => job(),
        Work::Io(mut answer) => polled(&mut answer).expect("nobody else has these sequences"),
        Work::Done(answer) => answer,
    };
    sums(&answer.unwrap())
}

fn polled(answer: &mut StepFuture<'_>) -> Option<StepResult> {
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn sums(output: &Output) -> (Vec<(i64, f32)>, Vec<String>) {
    let sums = output.rows(0).map_or_else(Vec::new, |rows| {
        let ids = rows.batch().column(0).as_primitive::<arrow::datatypes::Int64Type>().clone();
        let sums = rows.batch().column(1).as_primitive::<arrow::datatypes::Float32Type>().clone();
        (0..ids.len()).map(|row| (ids.value(row), sums.value(row))).collect()
    });
    (sums, output.failed().map_or_else(Vec::new, |failed| failed.messages.clone()))
}

fn plain(id: i64, adds: f32) -> Row {
    (Some(id), adds, false, false)
}

#[test]
fn each_row_goes_on_from_what_its_sequence_has_left() {
    let step = step(&json!({})).unwrap();
    let (sums, failed) = told(&*step, rows(&[plain(1, 1.0), plain(2, 5.0), plain(1, 2.0), plain(2, 0.5)]));
    assert_eq!((sums, failed.len()), (vec![(1, 10.0), (2, 50.0), (1, 30.0), (2, 55.0)], 0));
    // The next request finds them as they are.
    assert_eq!(told(&*step, rows(&[plain(2, 1.0), plain(3, 1.0)])).0, [(2, 65.0), (3, 10.0)]);
}

#[test]
fn a_sequence_is_open_from_its_start_to_its_end() {
    let step = step(&json!({ "start": "start", "end": "end", "most": 2 })).unwrap();
    let (sums, failed) = told(
        &*step,
        rows(&[
            plain(1, 1.0),
            (Some(1), 1.0, true, false),
            plain(1, 2.0),
            (Some(1), 3.0, false, true),
            plain(1, 4.0),
            (Some(2), 1.0, true, false),
            (Some(2), 2.0, true, false),
            (Some(3), 1.0, true, false),
            (Some(4), 1.0, true, false),
            (None, 1.0, true, false),
        ]),
    );
    assert_eq!(sums, [(1, 10.0), (1, 30.0), (1, 60.0), (2, 10.0), (2, 20.0), (3, 10.0)]);
    let over = "sequence `1` has not begun, or is over";
    let full = "sequence `4` cannot begin: as many are open as may be";
    assert_eq!(failed, [over, over, full, "it belongs to no sequence: its id is null"]);
}

/// Threads that take a job each, and begin it when they may.
#[derive(Default)]
struct Threads {
    taken: AtomicUsize,
    waits: Mutex<Vec<Arc<AtomicUsize>>>,
}

impl Compute for Threads {
    fn run(&self, job: Job) -> StepFuture<'static> {
        self.taken.fetch_add(1, SeqCst);
        let (may, mut job) = (Arc::new(AtomicUsize::new(0)), Some(job));
        self.waits.lock().unwrap().push(Arc::clone(&may));
        Box::pin(std::future::poll_fn(move |_| match (may.load(SeqCst), job.take()) {
            (0, job_again) => {
                job = job_again;
                Poll::Pending
            }
            (_, Some(job)) => Poll::Ready(job()),
            (_, None) => Poll::Pending,
        }))
    }
}

#[test]
fn who_waits_for_a_sequence_holds_no_thread() {
    let step = step(&json!({})).unwrap();
    let threads = Arc::new(Threads::default());
    let place = Arc::clone(&threads) as Arc<dyn Compute>;
    let cx = RunCx::new(RunId(0), Request::default(), 2, Instant::now).with_compute(Some(place));
    let asked = |of: &[Row]| match step.call(Input::new(smallvec![Token::Rows(Rows::whole(rows(of)))]), &cx) {
        Work::Io(answer) => answer,
        _ => panic!("two rows may have to wait"),
    };
    let begin = |thread: usize| threads.waits.lock().unwrap()[thread].store(1, SeqCst);
    let mut first = asked(&[plain(1, 1.0), plain(1, 2.0)]);
    let mut behind = asked(&[plain(1, 4.0), plain(2, 1.0)]);
    let mut beside = asked(&[plain(3, 1.0), plain(1, 8.0)]);
    assert!(polled(&mut first).is_none() && polled(&mut behind).is_none());
    assert_eq!(threads.taken.load(SeqCst), 1, "the second has nothing to do yet");
    assert!(polled(&mut beside).is_none());
    assert_eq!(threads.taken.load(SeqCst), 2, "another sequence is another's");
    begin(1);
    assert!(polled(&mut beside).is_none() && polled(&mut beside).is_none(), "its second row waits");
    begin(0);
    let done = |answer: &mut StepFuture<'_>| sums(&polled(answer).unwrap().unwrap()).0;
    assert_eq!(done(&mut first), [(1, 10.0), (1, 30.0)]);
    assert!(polled(&mut beside).is_none(), "those who came first are first");
    assert!(polled(&mut behind).is_none());
    begin(2);
    assert_eq!(done(&mut behind), [(1, 70.0), (2, 10.0)]);
    assert!(polled(&mut beside).is_none());
    begin(3);
    assert_eq!(done(&mut beside), [(3, 10.0), (1, 150.0)]);
    // One that is dropped while it waits keeps nobody.
    let (mut first, mut gone) =
        (asked(&[plain(1, 1.0), plain(1, 1.0)]), asked(&[plain(1, 1.0), plain(1, 1.0)]));
    assert!(polled(&mut first).is_none() && polled(&mut gone).is_none());
    drop((first, gone));
    assert_eq!(told(&*step, rows(&[plain(1, 1.0)])).0, [(1, 160.0)]);
}

#[test]
fn who_has_waited_for_a_sequence_that_ends_does_not_go_on_with_it() {
    let over = "sequence `1` has not begun, or is over".to_owned();
    for (more, wanted) in [
        (json!({ "start": "start", "end": "end" }), (vec![], vec![over])),
        (json!({ "end": "end" }), (vec![(1, 20.0)], vec![])),
    ] {
        let step = step(&more).unwrap();
        let cx = RunCx::new(RunId(0), Request::default(), 1, Instant::now);
        let asked = |row: Row| step.call(Input::new(smallvec![Token::Rows(Rows::whole(rows(&[row])))]), &cx);
        told(&*step, rows(&[(Some(1), 1.0, true, false)]));
        let Work::Compute(last) = asked((Some(1), 1.0, false, true)) else { panic!("nobody else has it") };
        let Work::Io(mut behind) = asked(plain(1, 2.0)) else { panic!("somebody else has it") };
        assert!(polled(&mut behind).is_none());
        assert_eq!(sums(&last().unwrap()).0, [(1, 20.0)]);
        assert_eq!(sums(&polled(&mut behind).unwrap().unwrap()), wanted, "{more}");
    }
}

#[test]
fn a_row_that_fails_leaves_the_state_as_it_was() {
    let step = step(&json!({})).unwrap();
    let mut batch = rows(&[plain(1, 1.0), plain(1, 2.0), plain(1, 4.0)]);
    let mut columns = batch.columns().to_vec();
    columns[1] = Arc::new(Float32Array::from(vec![Some(1.0), None, Some(4.0)]));
    batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let (sums, failed) = told(&*step, batch);
    assert_eq!((sums, failed.len()), (vec![(1, 10.0), (1, 50.0)], 1));
}

#[test]
fn what_does_not_fit_the_model_is_told_all_at_once() {
    let wrong = |more: Value| step(&more).err().unwrap();
    assert_eq!(
        wrong(
            json!({ "states": { "totl": "next", "total": "nxt" }, "constants": { "by": [1, 2], "to": 0.5 } })
        ),
        [
            "no input `totl`; did you mean `total`?",
            "no input `to`; there is `x`, `total`, `by`",
            "no output `nxt`; did you mean `next`?",
            "input `by` takes 1 values of type Int64, not [1.0, 2.0]",
        ]
    );
    assert_eq!(wrong(json!({ "states": {} })).len(), 1);
    assert_eq!(
        wrong(json!({ "id": "a", "start": "b", "end": "edn" })),
        [
            "column `a` is Float32; it must be a text or a whole number",
            "column `b` is Float32; it must be a truth value",
            "no column `edn`; did you mean `end`?",
        ]
    );
}
