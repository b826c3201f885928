//! Tests of predictions, from the rows that a tap sees to the series that a judge shows.

use std::{cell::Cell, time::Instant};

use arrow::{
    array::{ArrayRef, StringArray},
    compute::cast,
    datatypes::DataType,
};
use millstream_graph::{Request, RunCx, RunId, rows};
use serde_json::json;

use super::{
    series::{OTHERS, POINTS, SERIES, Series},
    *,
};
use crate::report::Point;

const MINUTE: i64 = 60_000_000;

thread_local! {
    static CLOCK: Cell<i64> = const { Cell::new(0) };
}

/// Predictions of `rows`, of windows of a minute and ten minutes of lateness, that come when the thread's clock says.
#[expect(clippy::needless_pass_by_value, reason = "every caller writes it in place")]
fn predictions(rows: &RecordBatch, more: serde_json::Value) -> Arc<Predictions> {
    let mut spec = json!({"probability": "p", "window": "1m", "lateness": "10m"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec: PerformanceSpec = serde_json::from_value(spec).unwrap();
    Predictions::with_clock(&spec, &rows.schema(), None, || CLOCK.get()).unwrap()
}

fn share(id: Option<&str>, rows: usize) -> Share {
    let request = Request { id: id.map(Arc::from), ..Request::default() };
    Share { run: RunId(7), request, rows }
}

fn observe(predictions: &Arc<Predictions>, at: i64, shares: Vec<Share>, rows: &Rows) {
    CLOCK.set(at);
    let cx = RunCx::shared(RunId(7), shares.into(), Instant::now);
    Arc::clone(predictions).tap().observe(&Seen::new(rows, EdgeId(0), &cx));
}

/// One request of these rows that comes at `at`.
fn asked(predictions: &Arc<Predictions>, at: i64, id: &str, batch: RecordBatch) {
    let rows = batch.num_rows();
    observe(predictions, at, vec![share(Some(id), rows)], &Rows::whole(batch));
}

fn label(judge: &mut Judge, name: &str, at: Option<i64>, now: i64) -> LabelCounts {
    let mut counts = LabelCounts::default();
    judge.label(name, at, 1.0, now, &mut counts);
    counts
}

fn joined() -> LabelCounts {
    LabelCounts { joined: 1, ..LabelCounts::default() }
}

fn out_of_time() -> LabelCounts {
    LabelCounts { out_of_time: 1, ..LabelCounts::default() }
}

/// The times of the points of a series.
fn times(judge: &Judge, predictions: &Predictions, name: &str, segment: Option<&str>) -> Vec<i64> {
    let series = judge.series(predictions);
    let mut found =
        series.iter().filter(|series| series.name == name && series.segment.as_deref() == segment);
    let times = found.next().map(|series| series.realised.iter().map(|point| point.at).collect());
    assert!(found.next().is_none(), "{name} is there once");
    times.unwrap_or_default()
}

/// One row called `id` that is dated `at`.
fn dated(id: &str, at: i64) -> RecordBatch {
    rows! { p: [0.9], id: [id], at: [at] }
}

#[test]
fn labels_and_rows_of_the_future_or_the_far_past_do_not_move_the_clock_beyond_now() {
    let now = 100 * MINUTE;
    let of_row = |at| (Some(at), None);
    let of_label = |at| (None, Some(at));
    for (timed, (row, dated_label)) in [
        (true, of_row(i64::MAX)),
        (true, of_row(i64::MIN)),
        (true, of_row(now + 10 * MINUTE)),
        (true, of_row(now + 10 * MINUTE + 1)),
        (true, of_label(i64::MAX)),
        (true, of_label(now + 365 * 24 * 60 * MINUTE)),
        (false, of_label(i64::MAX)),
        (false, of_label(i64::MIN)),
    ] {
        let case = format!("{timed} {row:?} {dated_label:?}");
        let columns = if timed { json!({"id": "id", "time": "at"}) } else { json!({"id": "id"}) };
        let predictions = predictions(&dated("a", 0), columns);
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        asked(&predictions, now, "r", dated("a", now));
        judge.take(&predictions, now);
        if let Some(at) = row {
            asked(&predictions, now, "r", dated("bad", at));
            judge.take(&predictions, now);
        }
        if let Some(at) = dated_label {
            assert_eq!(label(&mut judge, "a", Some(at), now), out_of_time(), "{case}");
        }
        assert_eq!(judge.now(), now, "{case}");
        let later = now + MINUTE;
        asked(&predictions, later, "r", dated("b", later));
        judge.take(&predictions, later);
        assert_eq!(label(&mut judge, "a", Some(later), later), joined(), "{case}");
        assert_eq!(label(&mut judge, "b", None, later), joined(), "{case}");
        assert_eq!(times(&judge, &predictions, "accuracy", None), [now, later], "{case}");
    }
}

#[test]
fn a_replay_goes_by_the_time_of_its_rows() {
    let (now, old) = (i64::MAX / 2 / MINUTE * MINUTE, 7 * MINUTE);
    let predictions = predictions(&dated("a", 0), json!({"id": "id", "time": "at"}));
    let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
    judge.take(&predictions, now);
    assert_eq!(judge.now(), i64::MIN, "nothing says what time it is");
    for (name, at) in [("future", i64::MAX), ("a", old + 3), ("b", old + MINUTE), ("c", old + 1)] {
        asked(&predictions, now, "r", dated(name, at));
    }
    judge.take(&predictions, now);
    assert_eq!((judge.now(), judge.counts().predictions), (old + MINUTE, 3));
    assert_eq!(label(&mut judge, "a", Some(now), now), out_of_time());
    assert_eq!(label(&mut judge, "a", None, now), joined(), "it is dated at the last row");
    // One that has no date of its own is dated now where rows have none.
    let predictions = self::predictions(&dated("a", 0), json!({"id": "id"}));
    let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
    asked(&predictions, 5, "r", dated("a", 0));
    judge.take(&predictions, 5);
    assert_eq!(label(&mut judge, "a", None, 5 + 10 * MINUTE), joined());
    let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
    asked(&predictions, 5, "r", dated("a", 0));
    judge.take(&predictions, 5);
    assert_eq!(label(&mut judge, "a", None, 5 + 10 * MINUTE + 1), out_of_time());
}

#[test]
fn a_row_is_of_the_time_when_it_came_and_not_of_the_turn() {
    // When it came, when it was taken, and the window it is counted in.
    for (came, taken, window) in [(MINUTE + 5, 3 * MINUTE, MINUTE), (9 * MINUTE, 2 * MINUTE + 1, 2 * MINUTE)]
    {
        let predictions = predictions(&rows! { p: [0.9] }, json!({}));
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        asked(&predictions, came, "a", rows! { p: [0.9] });
        judge.take(&predictions, taken);
        assert_eq!(label(&mut judge, "a", None, taken), joined());
        assert_eq!(times(&judge, &predictions, "accuracy", None), [window]);
    }
}

#[test]
fn the_oldest_predictions_make_room_and_are_counted() {
    let row = || rows! { p: [0.9] };
    let predictions = predictions(&row(), json!({"most": 20}));
    let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
    (0..25).for_each(|at| asked(&predictions, at, &format!("r{at}"), row()));
    judge.take(&predictions, 30);
    assert_eq!((judge.counts().predictions, judge.counts().evicted), (25, 5));
    assert_eq!(label(&mut judge, "r4", None, 30).waiting, 1);
    assert_eq!(label(&mut judge, "r5", None, 30), joined());
    for at in 0..3 {
        label(&mut judge, &format!("x{at}"), None, 30);
    }
    assert_eq!(judge.counts().waiting_evicted, 2, "a tenth as many labels wait");
    let said = serde_json::to_value(judge.counts()).unwrap();
    assert_eq!((&said["evicted"], &said["waiting_evicted"]), (&json!(5), &json!(2)));
    // Another version of the project may hold fewer.
    let fewer = self::predictions(&row(), json!({"most": 3}));
    assert!(judge.fits(&fewer));
    judge.follow(&fewer);
    judge.take(&fewer, 30);
    assert_eq!((judge.counts().evicted, judge.counts().evicted_labelled), (21, 1));

    let spec = |most: serde_json::Value| -> PerformanceSpec {
        serde_json::from_value(json!({"probability": "p", "most": most})).unwrap()
    };
    let of = |most| Predictions::new(&spec(json!(most)), &row().schema(), None).map(drop);
    assert_eq!(of(0).unwrap_err(), ["`most` is 0: no prediction would be held until its label comes"]);
    assert_eq!(serde_json::from_value::<PerformanceSpec>(json!({})).unwrap().most, 1_000_000);
}

#[test]
fn what_has_no_room_or_no_free_place_is_dropped_and_counted_exactly() {
    let many = |rows: usize| rows! { p: vec![0.5; rows] };
    let predictions = predictions(&many(1), json!({}));
    let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
    for (rows, dropped) in [(600_000, 0), (600_000, 600_000), (400_000, 600_000), (1, 600_001)] {
        asked(&predictions, 1, "a", many(rows));
        assert_eq!(predictions.dropped(), dropped, "{rows}");
    }
    assert_eq!(predictions.inbox.drain().len(), 2);
    {
        let _all: Vec<_> = predictions.inbox.places.iter().map(|place| place.0.lock().unwrap()).collect();
        asked(&predictions, 1, "a", many(3));
    }
    assert_eq!(predictions.dropped(), 600_004);
    for _ in 0..=Inbox::BATCHES {
        asked(&predictions, 1, "a", many(1));
    }
    assert_eq!(predictions.dropped(), 600_005);
    judge.take(&predictions, 2);
    assert_eq!((predictions.inbox.rows.load(Relaxed), predictions.inbox.batches.load(Relaxed)), (0, 0));
    assert_eq!((judge.counts().predictions, judge.counts().predictions_repeated), (1, 65_535));
}

#[test]
fn threads_lose_nothing_that_is_not_counted() {
    let predictions = predictions(&rows! { p: [0.5] }, json!({}));
    let mut taken = 0;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let predictions = &predictions;
            scope.spawn(move || {
                (0..500)
                    .for_each(|i| asked(predictions, i, &format!("{thread}-{i}"), rows! { p: [0.5, 0.6] }))
            });
        }
        (0..20).for_each(|_| {
            taken += predictions.inbox.drain().iter().map(|arrived| arrived.rows as u64).sum::<u64>()
        });
    });
    taken += predictions.inbox.drain().iter().map(|arrived| arrived.rows as u64).sum::<u64>();
    assert_eq!(taken + predictions.dropped(), 4000);
    assert!(taken > 0);
}

#[test]
fn only_needed_columns_are_held_and_no_more_than_their_rows() {
    let texts: Vec<String> =
        (0..5000).map(|row| format!("a name that is long enough for a buffer {row}")).collect();
    let text: ArrayRef = Arc::new(StringArray::from(texts));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let numbers: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.5; 5000]));
    for data_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
        let id = cast(&text, &data_type).unwrap();
        let batch = RecordBatch::try_from_iter([
            ("wide", Arc::clone(&text)),
            ("id", id),
            ("p", Arc::clone(&numbers)),
        ]);
        let batch = batch.unwrap();
        let predictions = predictions(&batch, json!({"id": "id"}));
        let shares = (0..2500).map(|_| share(None, 2)).collect();
        observe(&predictions, 1, shares, &Rows::whole(batch));
        let arrived = predictions.inbox.drain();
        assert_eq!((arrived.len(), arrived[7].columns.len()), (2500, 2));
        let held = |arrived: &Arrived| {
            arrived.columns.iter().map(|array| array.get_buffer_memory_size()).sum::<usize>()
        };
        assert!(arrived.iter().all(|arrived| held(arrived) < 1000), "{data_type} {}", held(&arrived[7]));
        let names = predictions.columns.names(&arrived[7]);
        assert_eq!(names[1].as_deref(), Some("a name that is long enough for a buffer 15"), "{data_type}");
    }
    let whole: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.5; 5000]));
    assert!(Arc::ptr_eq(&own(&whole), &whole), "one that is all of its buffer is not copied");
}

#[test]
fn rows_are_named_by_their_place_in_the_request() {
    let batch = |rows: usize| rows! { p: vec![0.5; rows] };
    let picked = |places: &[u32]| Rows::with_origin(batch(places.len()), Origin::Picked(places.into()));
    let two = || vec![share(Some("a"), 3), share(None, 1)];
    // Requests of a run, the rows of it that come over the edge, their names, and how many are dropped.
    for (shares, rows, names, dropped) in [
        (vec![share(Some("a"), 1)], Rows::whole(batch(1)), vec!["a"], 0),
        (vec![share(Some("a"), 2)], Rows::whole(batch(2)), vec!["a/0", "a/1"], 0),
        (vec![share(Some("a"), 3)], picked(&[2]), vec!["a/2"], 0),
        (vec![share(Some("a"), 3)], picked(&[2, 0]), vec!["a/2", "a/0"], 0),
        (two(), picked(&[3, 1]), vec!["0000000000000007", "a/1"], 0),
        (two(), Rows::whole(batch(4)), vec!["0000000000000007", "a/0", "a/1", "a/2"], 0),
        (vec![share(Some("a"), 3)], Rows::free(batch(2)), vec![], 2),
        (two(), Rows::free(batch(4)), vec![], 4),
    ] {
        let predictions = predictions(&batch(1), json!({}));
        observe(&predictions, 1, shares, &rows);
        let arrived = predictions.inbox.drain();
        let mut found: Vec<String> =
            arrived.iter().flat_map(|arrived| predictions.columns.names(arrived)).flatten().collect();
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        found.sort_unstable();
        names.sort_unstable();
        assert_eq!((found, predictions.dropped()), (names, dropped));
    }
    // An id needs no place.
    let rows = rows! { p: [0.5], id: ["x"] };
    let predictions = predictions(&rows, json!({"id": "id"}));
    observe(&predictions, 1, vec![share(None, 3)], &Rows::free(rows));
    assert_eq!((predictions.inbox.drain().len(), predictions.dropped()), (1, 0));
}

#[test]
fn series_that_ended_long_ago_go_and_there_is_a_bound() {
    let point = |key: &str, at: i64| (key.to_owned(), Point { at, value: 1.0 });
    let mut series = Series::default();
    series.add(vec![point("old", 0), point("all", 0)], 0, MINUTE);
    series.add(vec![point("all", 999 * MINUTE)], 2000 * MINUTE, MINUTE);
    assert!(series.0.contains_key("old"));
    // A window that is yet to come does not make the others old.
    series.add(vec![point("next", i64::MAX)], 999 * MINUTE, MINUTE);
    assert!(series.0.contains_key("old"));
    series.0.swap_remove("next");
    series.add(vec![point("all", 1000 * MINUTE)], i64::MAX, MINUTE);
    assert_eq!(series.0.keys().collect::<Vec<_>>(), ["all"]);
    (0..3000).for_each(|at| series.add(vec![point("all", at)], i64::MAX, i64::MAX));
    assert_eq!((series.0["all"].len(), series.0["all"][0].at), (POINTS, 2000));
    for at in 0..3000 {
        series.add(vec![point(&format!("s{at}"), at), point("all", at)], i64::MAX, i64::MAX);
    }
    assert_eq!(series.0.len(), SERIES);
    assert!(
        series.0.contains_key("all") && series.0.contains_key("s2999") && !series.0.contains_key("s1000")
    );
}

#[test]
fn segments_beyond_the_bound_are_shown_together() {
    for (first, beyond) in [("s", vec![0, 0]), ("others", vec![0])] {
        let row = |segment: &str| rows! { p: [0.9], s: [segment] };
        let predictions = predictions(&row("a"), json!({"segment": "s"}));
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        asked(&predictions, 1, "first", row(first));
        (0..40).for_each(|at| asked(&predictions, 1, &format!("r{at}"), row(&format!("k{at:02}"))));
        asked(&predictions, 1, "none", row(""));
        judge.take(&predictions, 1);
        assert_eq!(times(&judge, &predictions, "accuracy", Some(OTHERS)), [] as [i64; 0], "no label yet");
        assert_eq!(label(&mut judge, "r39", None, 2), joined());
        assert_eq!(label(&mut judge, "first", None, 2), joined());
        assert_eq!(label(&mut judge, "r0", None, 2), joined());
        assert_eq!(times(&judge, &predictions, "accuracy", Some("k00")), [0]);
        assert_eq!(times(&judge, &predictions, "accuracy", Some("k39")), [] as [i64; 0]);
        assert_eq!(times(&judge, &predictions, "accuracy", Some(OTHERS)), beyond[..1], "{first}");
    }
}

#[test]
fn a_judge_is_taken_up_by_one_of_the_same_task_window_and_lateness() {
    let row = |at: i64| rows! { p: [0.9], y: [2.0], at: [at] };
    let spec = |more: serde_json::Value| predictions(&row(0), more);
    let binary = || spec(json!({"time": "at"}));
    let regression = || spec(json!({"task": "regression", "prediction": "y", "time": "at"}));
    let mut saved = Vec::new();
    for predictions in [binary(), regression()] {
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        for minute in [3, 20] {
            asked(&predictions, 9, &format!("r{minute}"), row(minute * MINUTE));
            judge.take(&predictions, 100 * MINUTE);
            assert_eq!(label(&mut judge, &format!("r{minute}"), None, 100 * MINUTE), joined());
        }
        let metric = judge.series(&predictions)[0].name.clone();
        assert_eq!(times(&judge, &predictions, &metric, None), [3 * MINUTE, 20 * MINUTE], "closed, and open");
        let bytes = judge.save().unwrap();
        let mut again = Judge::new(&predictions, i64::MIN).unwrap();
        again.restore(&bytes).unwrap();
        assert_eq!(
            (again.save().unwrap(), again.series(&predictions)),
            (bytes.clone(), judge.series(&predictions))
        );
        assert_eq!((again.now(), again.counts()), (20 * MINUTE, judge.counts()));
        saved.push(bytes);
    }
    for (other, fits) in [
        (binary(), true),
        (spec(json!({"time": "at", "most": 7, "threshold": 0.9})), true),
        (regression(), false),
        (spec(json!({"time": "at", "window": "2m"})), false),
        (spec(json!({"time": "at", "lateness": "9m"})), false),
    ] {
        let mut judge = Judge::new(&binary(), i64::MIN).unwrap();
        assert_eq!(judge.fits(&other), fits);
        judge = Judge::new(&other, i64::MIN).unwrap();
        let restored = judge.restore(&saved[0]);
        assert!(
            if fits { restored.is_ok() } else { matches!(restored, Err(RestoreError::Changed)) },
            "{restored:?}"
        );
        assert_eq!((judge.fits(&other), judge.config().capacity), (true, other.config.capacity));
    }
    let mut judge = Judge::new(&binary(), 5).unwrap();
    assert!(matches!(judge.restore(&saved[0][..9]), Err(RestoreError::Bytes(_))));
    let mut other = saved[0].clone();
    other[0] = 9;
    assert!(matches!(judge.restore(&other), Err(RestoreError::Foreign)));
    assert_eq!(judge.now(), 5);
}

#[test]
fn what_is_expected_is_of_the_window_of_its_rows() {
    let p: Vec<f64> = (0..200).map(|row| f64::from(row % 10) / 10.0 + 0.05).collect();
    let y: Vec<f64> = (0..200).map(|row| f64::from(u8::from(row % 7 + row % 10 > 8))).collect();
    let known = rows! { p: p, y: y };
    let spec = json!({"probability": "p", "label": "y", "time": "at", "id": "id", "window": "1m", "lateness": "10m"});
    let spec: PerformanceSpec = serde_json::from_value(spec).unwrap();
    let schema = dated("a", 0).schema();
    let predictions = Predictions::with_clock(&spec, &schema, Some(&[known]), || CLOCK.get()).unwrap();
    let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
    let now = 5000 * MINUTE;
    for (name, at) in
        [("far past", 0), ("a", now - 50), ("b", now + 3), ("b", now + 4), ("far", i64::MAX), ("past", 7)]
    {
        asked(&predictions, 9, "r", dated(name, at));
    }
    judge.take(&predictions, now);
    let series = judge.series(&predictions);
    let accuracy = series.iter().find(|series| series.name == "accuracy").unwrap();
    let times: Vec<i64> = accuracy.estimated.iter().map(|point| point.at).collect();
    assert_eq!((times, accuracy.realised.len()), (vec![now - MINUTE, now], 0));
    assert!(accuracy.estimated.iter().all(|point| (0.5..=1.0).contains(&point.value)), "{accuracy:?}");
}
