use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Float64Type, Int64Type},
};
use futures_util::FutureExt;
use millstream_graph::{
    Effect, Input, Request, Rows, RunCx, RunId, Step, Token, Work,
    spec::{Kinds, LayerKind},
};
use proptest::prelude::*;
use serde_json::json;
use smallvec::smallvec;

use super::planted::{Does, Planted, Way, call, keys, planted};
use crate::{Canary, Rollback, canary_layer, testing::sign};

/// Key, score and who answered, row by row; then the messages of rows that failed.
fn told(step: &Canary, rows: RecordBatch) -> (Vec<(i64, f64, String)>, Vec<String>) {
    let output = call(step, rows).unwrap();
    let failed = output.failed().map_or_else(Vec::new, |failed| failed.messages.clone());
    let answered = output.rows(0).map_or_else(Vec::new, |rows| {
        let batch = rows.batch();
        assert!(
            rows.origin().place(0).is_some()
                && (1..rows.len()).all(|row| rows.origin().place(row) > rows.origin().place(row - 1)),
            "rows are in the order of the request"
        );
        let (keys, scores) =
            (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Float64Type>());
        let arms = batch.column(2).as_string::<i32>();
        (0..rows.len()).map(|row| (keys.value(row), scores.value(row), arms.value(row).to_owned())).collect()
    });
    (answered, failed)
}

fn canary(old: Planted, new: Planted, percent: f64, rule: Rollback) -> Canary {
    let step = Canary::new(old, new, percent).by(["key"]).salt("s").named("arm").rollback(rule);
    sign(&step, keys([0]).schema()).unwrap_or_else(|error| panic!("{error}"));
    step
}

#[test]
fn a_key_goes_to_the_canary_always_or_never_and_as_many_as_its_part_says() {
    let who = |percent: f64| {
        let step = canary(
            planted(|_| Does::Answers(0.0)),
            planted(|_| Does::Answers(1.0)),
            percent,
            Rollback::default(),
        );
        let batches = [keys(0..2000), keys((0..2000).rev()), keys([7])];
        let [forth, back, one] = batches.map(|batch| told(&step, batch).0);
        let of_canary = |rows: &[(i64, f64, String)]| -> Vec<i64> {
            let rows = rows.iter().inspect(|(_, score, arm)| assert_eq!(*score == 1.0, arm == "canary"));
            rows.filter(|(.., arm)| arm == "canary").map(|(key, ..)| *key).collect()
        };
        let forth = of_canary(&forth);
        let mut back = of_canary(&back);
        back.reverse();
        assert_eq!(forth, back);
        assert_eq!(of_canary(&one) == [7], forth.contains(&7));
        forth
    };
    assert_eq!((who(0.0).len(), who(100.0).len()), (0, 2000));
    let (few, more) = (who(5.0), who(20.0));
    assert!((60..140).contains(&few.len()) && (340..460).contains(&more.len()), "{few:?} {more:?}");
    assert!(few.iter().all(|key| more.contains(key)), "who is there stays when the part grows");
}

#[test]
fn rows_that_the_canary_fails_are_answered_by_the_old_step() {
    for way in [Way::Done, Way::Waits, Way::Computes] {
        let old =
            Planted { way, ..planted(|key| if key == 13 { Does::FailsRow } else { Does::Answers(0.0) }) };
        let new = Planted {
            way,
            ..planted(|key| match key % 10 {
                3 => Does::FailsRow,
                _ => Does::Answers(1.0),
            })
        };
        let step = canary(old, new, 100.0, Rollback::default());
        let (answered, failed) = told(&step, keys([1, 3, 4, 13, 5]));
        let expected = [(1, 1.0, "canary"), (3, 0.0, "champion"), (4, 1.0, "canary"), (5, 1.0, "canary")];
        assert_eq!(answered, expected.map(|(key, score, arm)| (key, score, arm.to_owned())), "{way:?}");
        assert_eq!(failed, ["key 13"], "what neither can answer fails as ever");

        let old = Planted { way, ..planted(|_| Does::Answers(0.0)) };
        let new = Planted { way, ..planted(|_| Does::FailsCall) };
        let step = canary(old, new, 100.0, Rollback::default());
        assert_eq!(
            told(&step, keys([1, 2])).0,
            [(1, 0.0, "champion".to_owned()), (2, 0.0, "champion".to_owned())]
        );
        let panics = Planted { way, ..planted(|_| panic!("planted")) };
        let step = canary(planted(|_| Does::Answers(0.0)), panics, 100.0, Rollback::default());
        assert_eq!(told(&step, keys([1])).0, [(1, 0.0, "champion".to_owned())], "a panic is a failure");
    }
}

#[test]
fn failed_rows_of_both_keep_their_messages() {
    let fails = || planted(|key| if key % 2 == 0 { Does::FailsRow } else { Does::Answers(0.0) });
    let (answered, failed) = told(&canary(fails(), fails(), 50.0, Rollback::default()), keys(0..100));
    assert_eq!(answered.len(), 50);
    assert_eq!(failed, (0..100).step_by(2).map(|key| format!("key {key}")).collect::<Vec<_>>());
}

#[test]
fn a_canary_that_is_worse_gets_no_more_rows() {
    let answers = |score: f64| planted(move |_| Does::Answers(score));
    let (errors, disagreement) = (
        Rollback { errors: Some(0.05), ..Rollback::default() },
        Rollback { disagreement: Some(0.1), compare: 1.0, ..Rollback::default() },
    );
    for (old, new, rule, why) in [
        (
            answers(0.0),
            planted(|_| Does::FailsCall),
            errors,
            Some("it failed 20 of 20 rows, the other 0.00 %; at most 5.00 % more are allowed"),
        ),
        (
            answers(0.0),
            planted(|_| Does::FailsRow),
            errors,
            Some("it failed 20 of 20 rows, the other 0.00 %; at most 5.00 % more are allowed"),
        ),
        (
            answers(0.0),
            answers(1.0),
            disagreement,
            Some("it answered 20 of 20 rows in another way; at most 10.00 % are allowed"),
        ),
        (answers(1.0), answers(1.0), disagreement, None),
        (answers(0.0), answers(1.0), errors, None),
        (answers(0.0), answers(1.0), Rollback::default(), None),
    ] {
        let calls = Arc::clone(&new.calls);
        let step = canary(old, new, 100.0, rule);
        for key in 0..200 {
            assert_eq!(told(&step, keys([key])).0.len(), 1, "every row is answered");
        }
        assert_eq!(step.rolled_back(), why);
        assert_eq!(calls.load(Relaxed), if why.is_some() { 20 } else { 200 }, "{why:?}");
        assert_eq!(&told(&step, keys([1])).0[0].2, if why.is_some() { "champion" } else { "canary" });
    }
}

#[test]
fn a_canary_that_has_not_answered_at_the_deadline_has_failed() {
    let never = || Planted { way: Way::Never, ..planted(|_| Does::Answers(0.0)) };
    let rule = Rollback { errors: Some(0.05), ..Rollback::default() };
    let passed = Some(Instant::now());
    let ahead: fn() -> Instant = || Instant::now() + std::time::Duration::from_secs(7200);
    let far = passed.map(|now| now + std::time::Duration::from_secs(3600));
    let given_up = |step: &Canary, deadline, clock: fn() -> Instant| {
        for key in 0..200 {
            let request = Request { deadline, ..Request::default() };
            let cx = RunCx::new(RunId(0), request, 4, clock);
            let input = Input::new(smallvec![Token::Rows(Rows::whole(keys(key * 4..key * 4 + 4)))]);
            if let Work::Io(answer) = step.call(input, &cx) {
                assert!(answer.now_or_never().is_none(), "it waits until it is dropped");
            }
        }
        step.rolled_back().map(str::to_owned)
    };
    let good = || planted(|_| Does::Answers(0.0));
    for (deadline, clock) in [(passed, Instant::now as fn() -> Instant), (far, ahead)] {
        let told = given_up(&canary(good(), never(), 100.0, rule), deadline, clock);
        assert_eq!(
            told.as_deref(),
            Some("it failed 20 of 20 rows, the other 0.00 %; at most 5.00 % more are allowed")
        );
    }
    for deadline in [None, far] {
        let told = given_up(&canary(good(), never(), 100.0, rule), deadline, Instant::now);
        assert_eq!(told, None, "a caller that goes says nothing of the step");
    }
    let told = given_up(&canary(never(), never(), 50.0, rule), passed, Instant::now);
    assert_eq!(told, None, "neither is worse than the other");
}

#[test]
fn the_old_step_s_own_failures_are_not_held_against_the_canary() {
    let fails = || planted(|key| if key % 4 == 0 { Does::FailsRow } else { Does::Answers(0.0) });
    let step = canary(fails(), fails(), 50.0, Rollback { errors: Some(0.05), ..Rollback::default() });
    for start in 0..200 {
        told(&step, keys(start * 10..(start + 1) * 10));
    }
    assert_eq!(step.rolled_back(), None);
}

#[test]
fn as_many_calls_are_compared_as_asked() {
    for (compare, expected) in [(0.0, 0), (0.1, 10), (0.25, 25), (1.0, 100)] {
        let (old, new) = (planted(|_| Does::Answers(0.0)), planted(|_| Does::Answers(0.0)));
        let calls = Arc::clone(&old.calls);
        let rule = Rollback { disagreement: Some(0.5), compare, ..Rollback::default() };
        let step = canary(old, new, 100.0, rule);
        (0..100).for_each(|key| drop(told(&step, keys([key]))));
        assert_eq!(calls.load(Relaxed), expected, "{compare}");
    }
}

#[test]
fn steps_that_do_not_go_together_are_refused() {
    let refused = |step: Canary| {
        let error = sign(&step, keys([0]).schema()).err().unwrap();
        error.problems().to_vec()
    };
    let (old, new) = (|| planted(|_| Does::Answers(0.0)), || planted(|_| Does::Answers(0.0)));
    let step = |new: Planted| Canary::new(old(), new, 5.0).by(["key"]);
    let other = Planted { column: "points", ..new() };
    assert_eq!(
        refused(step(other)),
        ["the step answers key Int64, score Float64, but its canary key Int64, points Float64"]
    );
    let once = Planted { effect: Effect::Once, ..new() };
    assert_eq!(
        refused(step(once)),
        ["its canary must happen once per request, and a row may be given to both"]
    );
    assert_eq!(
        refused(Canary::new(old(), new(), 101.0).by(["kye"]).named("score")),
        [
            "101 is no percentage from 0 to 100",
            "no column `kye`; did you mean `key`?",
            "two columns would be named `score`"
        ]
    );
}

fn layer() -> LayerKind {
    canary_layer(Kinds::default().with(crate::kinds()))
}

#[test]
fn what_is_wrong_in_a_file_is_told_all_at_once() {
    for (settings, problems) in [
        (
            json!({"step": {"wiht": {}}, "percent": 5, "by": "key", "rollback": {"errors": 2, "compare": -1}}),
            &[
                "`step`: no kind of step `wiht`; did you mean `with`?",
                "`rollback.errors` is 2; it must be from 0 to 1",
                "`rollback.compare` is -1; it must be from 0 to 1",
            ][..],
        ),
        (
            json!({"step": {"with": {"a": 1}, "select": ["b"]}, "percent": 5, "by": "key", "rollback": {}}),
            &[
                "`step` is a map of a step's kind to its settings",
                "`rollback` has none of `errors`, `latency` and `disagreement`",
            ],
        ),
        (json!({"step": {"filter": ""}, "percent": 5}), &["missing field `by`"]),
    ] {
        let old: Arc<dyn Step> = Arc::new(planted(|_| Does::Answers(0.0)));
        assert_eq!(layer().build(&settings, old).err().unwrap().problems, problems, "{settings}");
    }
}

#[test]
fn a_canary_in_a_file_is_the_one_in_rust() {
    let settings = json!({
        "step": {"with": {"score": "CAST(key AS DOUBLE) * 2.0"}}, "percent": 30, "by": ["key"], "salt": "s", "as": "arm",
        "rollback": {"disagreement": 0.5, "tolerance": 1e-3, "compare": 1},
    });
    let score = |factor: f64| planted(move |key| Does::Answers(key as f64 * factor));
    let made = layer().build(&settings, Arc::new(score(3.0))).unwrap_or_else(|error| panic!("{error:?}"));
    sign(&*made, keys([0]).schema()).unwrap();
    let rule = Rollback { disagreement: Some(0.5), tolerance: 1e-3, compare: 1.0, ..Rollback::default() };
    let step = canary(score(3.0), score(2.0), 30.0, rule);
    let of_file = call(&*made, keys(0..50)).unwrap();
    let of_rust = call(&step, keys(0..50)).unwrap();
    assert_eq!(of_file.rows(0).unwrap().batch(), of_rust.rows(0).unwrap().batch());
}

proptest! {
    #[test]
    fn rows_are_answered_as_if_each_were_alone(
        rows in prop::collection::vec((0..40_i64, 0..6_u8), 1..60), percent in 0.0..100.0_f64, bad in 0..40_i64,
    ) {
        let does = move |offset: f64| {
            move |key: i64| if key == bad { Does::FailsRow } else { Does::Answers(key as f64 + offset) }
        };
        let step = || canary(planted(does(0.0)), planted(does(0.5)), percent, Rollback::default());
        let together = step();
        let batch = || keys(rows.iter().map(|(key, _)| *key));
        let (answered, failed) = told(&together, batch());
        let alone = step();
        let (mut one_by_one, mut failed_alone) = (Vec::new(), Vec::new());
        for (key, _) in &rows {
            let (answered, failed) = told(&alone, keys([*key]));
            one_by_one.extend(answered);
            failed_alone.extend(failed);
        }
        prop_assert_eq!(answered, one_by_one);
        prop_assert_eq!(failed, failed_alone);
    }
}
