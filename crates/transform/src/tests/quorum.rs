use std::sync::{Arc, atomic::Ordering::Relaxed};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, Int64Type},
};
use millstream_graph::{Effect, Output, StepResult, spec::Kinds};
use serde_json::json;

use super::planted::{Does, Planted, Way, call, keys, planted};
use crate::{Quorum, quorum_kind, testing::sign};

fn answers(column: &'static str, score: f64) -> Planted {
    Planted { column, ..planted(move |_| Does::Answers(score)) }
}

fn fails(column: &'static str) -> Planted {
    Planted { column, ..planted(|_| Does::FailsCall) }
}

fn quorum(need: usize, steps: impl IntoIterator<Item = Planted>) -> Quorum {
    let quorum = steps.into_iter().fold(Quorum::of(need), |quorum, step| quorum.step(step.column, step));
    sign(&quorum, keys([0]).schema()).unwrap_or_else(|error| panic!("{error}"));
    quorum
}

/// The columns behind the key, row by row, and what is said of them.
fn told(answer: StepResult) -> (Vec<Vec<Option<f64>>>, Option<String>) {
    let (ports, failed, degraded) = answer.unwrap().into_parts();
    assert!(failed.is_none());
    let rows = &ports[0].1;
    let columns = rows.batch().columns()[1..].iter().map(|column| {
        let column = column.as_primitive::<Float64Type>();
        (0..rows.len()).map(|row| column.is_valid(row).then(|| column.value(row))).collect()
    });
    (columns.collect(), degraded.map(Into::into))
}

fn told_of(output: Output) -> Option<String> {
    output.into_parts().2.map(Into::into)
}

#[test]
fn enough_answers_are_an_answer_and_the_rest_is_given_up() {
    for way in [Way::Done, Way::Waits, Way::Computes] {
        let steps = ["a", "b", "c", "d"].map(|column| Planted { way, ..answers(column, 0.5) });
        let calls = steps.each_ref().map(|step| Arc::clone(&step.calls));
        let (columns, degraded) = told(call(&quorum(2, steps), keys([1, 2])));
        let some = columns.iter().filter(|column| **column == [Some(0.5), Some(0.5)]).count();
        let none = columns.iter().filter(|column| **column == [None, None]).count();
        assert_eq!((some, none, degraded), (2, 2, None), "{way:?}");
        if matches!(way, Way::Done) {
            assert_eq!(calls.map(|calls| calls.load(Relaxed)), [1, 1, 0, 0], "what need not begin does not");
        }
    }
    // One that never answers holds nobody up.
    let waits = Planted { way: Way::Never, ..answers("slow", 0.0) };
    let (columns, _) = told(call(&quorum(1, [waits, answers("quick", 1.0)]), keys([7])));
    assert_eq!(columns, [[None], [Some(1.0)]]);
}

#[test]
fn failures_leave_nulls_until_there_are_too_few_answers() {
    let steps = || [fails("a"), answers("b", 1.0), answers("c", 2.0)];
    let (columns, degraded) = told(call(&quorum(2, steps()), keys([1])));
    assert_eq!(
        (columns, degraded.as_deref()),
        (vec![vec![None], vec![Some(1.0)], vec![Some(2.0)]], Some("a failed"))
    );
    let error = call(&quorum(3, steps()), keys([1])).unwrap_err();
    assert_eq!(error.to_string(), "planted");
    let odd = |column| Planted {
        column,
        ..planted(|key| if key % 2 == 0 { Does::FailsRow } else { Does::Answers(9.0) })
    };
    // A row that one has refused takes another's answer, and where there is none it fails alone.
    let answer = call(&quorum(1, [odd("a"), answers("b", 1.0), answers("c", 2.0)]), keys([1, 2, 3])).unwrap();
    let (columns, _) = told(Ok(answer));
    assert_eq!(columns, [[Some(9.0), None, Some(9.0)], [Some(1.0); 3], [None; 3]]);
    let answer = call(&quorum(1, [odd("a"), odd("b")]), keys([1, 2, 3, 4])).unwrap();
    assert_eq!(answer.failed().unwrap().messages, ["key 2", "key 4"]);
    assert_eq!(answer.rows(0).unwrap().len(), 2);
    let degraded = call(&quorum(2, [odd("a"), answers("b", 1.0), fails("c")]), keys([1, 2])).unwrap();
    assert_eq!((degraded.rows(0).unwrap().len(), degraded.failed().unwrap().messages.len()), (1, 1));
    assert_eq!(told_of(degraded).as_deref(), Some("c failed"));
}

#[test]
fn a_panic_is_one_step_s_failure() {
    let panics = Planted { column: "a", ..planted(|_| panic!("planted")) };
    let (columns, degraded) = told(call(&quorum(1, [panics, answers("b", 1.0)]), keys([1])));
    assert_eq!((columns, degraded.as_deref()), (vec![vec![None], vec![Some(1.0)]], Some("a failed")));
}

#[test]
fn steps_that_do_not_go_together_are_refused() {
    let quorum = Quorum::of(4)
        .step("one", answers("score", 0.0))
        .step("same", answers("score", 0.0))
        .step("once", Planted { effect: Effect::Once, ..answers("b", 0.0) });
    assert_eq!(
        sign(&quorum, keys([0]).schema()).err().unwrap().problems(),
        [
            "`need` is 4, of 3 steps",
            "`same`: another adds a column `score` too",
            "`once`: it must happen once per request, and may be given up here",
        ]
    );
}

/// What a member of a vote says of each row; `None` is a row that it fails.
type Classes = &'static [Option<i64>];

/// A member of a vote that answers each row at once with the next of these classes, or fails it.
fn votes(column: &'static str, classes: Classes) -> Planted {
    let says =
        move |key: i64| classes[key as usize].map_or(Does::FailsRow, |class| Does::Answers(class as f64));
    Planted { column, kind: DataType::Int64, ..planted(says) }
}

/// How many of the members were called, and by row what came of it: the class of each member, or why it failed.
fn voted(quorum: Quorum, members: &[(&'static str, Classes)]) -> (usize, Vec<String>) {
    let steps: Vec<Planted> = members.iter().map(|(column, classes)| votes(column, classes)).collect();
    let calls: Vec<_> = steps.iter().map(|step| Arc::clone(&step.calls)).collect();
    let quorum = steps.into_iter().fold(quorum, |quorum, step| quorum.step(step.column, step));
    let rows = keys(0..members[0].1.len() as i64);
    sign(&quorum, rows.schema()).unwrap_or_else(|error| panic!("{error}"));
    let mut told = vec![String::new(); rows.num_rows()];
    let (ports, failed, _) = call(&quorum, rows).unwrap().into_parts();
    for (_, rows) in &ports {
        let ids = rows.batch().column(0).as_primitive::<Int64Type>();
        for row in 0..rows.len() {
            let classes = rows.batch().columns()[1..].iter().map(|column| {
                let column = column.as_primitive::<Int64Type>();
                if column.is_valid(row) { column.value(row).to_string() } else { "-".to_owned() }
            });
            told[ids.value(row) as usize] = classes.collect::<Vec<_>>().join(" ");
        }
    }
    for (row, message) in failed.iter().flat_map(|failed| failed.messages.iter().enumerate()) {
        let keys = failed.as_ref().unwrap().rows.batch().column(0).as_primitive::<Int64Type>();
        told[keys.value(row) as usize] = message.clone();
    }
    (calls.iter().map(|calls| calls.load(Relaxed)).sum(), told)
}

#[test]
fn a_vote_that_is_decided_waits_for_nobody_else() {
    const SEVEN: Classes = &[Some(7)];
    const EIGHT: Classes = &[Some(8)];
    const NONE: Classes = &[None];
    let names = ["a", "b", "c", "d", "e"];
    let same = |weights: &[f64]| -> Vec<(&'static str, f64)> {
        names.into_iter().zip(weights.iter().copied()).collect()
    };
    let cases: &[(&[f64], &[Classes], usize, &str)] = &[
        // Three of five are a majority, in whatever order.
        (&[1.0; 5], &[SEVEN, SEVEN, SEVEN, EIGHT, EIGHT], 3, "7 7 7 - -"),
        (&[1.0; 5], &[EIGHT, SEVEN, EIGHT, SEVEN, EIGHT], 5, "8 7 8 7 8"),
        // The lowest of those that draw level wins, so 7 needs half, and 8 more than half.
        (&[1.0; 4], &[SEVEN, EIGHT, SEVEN, EIGHT], 3, "7 8 7 -"),
        (&[1.0; 4], &[EIGHT, SEVEN, EIGHT, EIGHT], 4, "8 7 8 8"),
        // A class that nobody has named yet may be lower still.
        (&[1.0; 4], &[SEVEN, SEVEN, SEVEN, EIGHT], 3, "7 7 7 -"),
        // Weights count, not heads; 0.1 and 0.2 draw level with 0.3.
        (&[0.6, 0.2, 0.2], &[EIGHT, SEVEN, SEVEN], 1, "8 - -"),
        (&[0.3, 0.1, 0.2], &[EIGHT, SEVEN, SEVEN], 3, "8 7 7"),
        (&[0.3, 0.0, 0.1, 0.2], &[SEVEN, EIGHT, SEVEN, EIGHT], 3, "7 8 7 -"),
        // Who has failed may be replaced by any class.
        (&[1.0; 5], &[NONE, SEVEN, SEVEN, SEVEN, EIGHT], 4, "- 7 7 7 -"),
        (&[1.0; 3], &[NONE, SEVEN, EIGHT], 3, "- 7 8"),
        (&[1.0; 2], &[NONE, NONE], 2, "key 0"),
    ];
    for (weights, classes, called, told) in cases {
        let members: Vec<_> = names.into_iter().zip(classes.iter().copied()).collect();
        let got = voted(Quorum::voting(same(weights)), &members);
        assert_eq!(got, (*called, vec![(*told).to_owned()]), "{weights:?} {classes:?}");
    }
}

#[test]
fn rows_wait_for_one_another_and_so_many_answers_are_still_enough() {
    let members: &[(&'static str, Classes)] = &[
        ("a", &[Some(1), Some(1), Some(1)]),
        ("b", &[Some(1), Some(2), None]),
        ("c", &[Some(1), Some(1), Some(2)]),
        ("d", &[Some(2), Some(2), None]),
    ];
    let equal = || members.iter().map(|(name, _)| (*name, 1.0));
    // The last row is never decided; without `need` what there is of it is enough.
    let all = ["1 1 1 2", "1 2 1 2", "1 - 2 -"];
    assert_eq!(voted(Quorum::voting(equal()), members), (4, all.map(str::to_owned).to_vec()));
    let (called, told) = voted(Quorum::of(4).vote(equal()), members);
    assert_eq!((called, &told[..]), (4, &["1 1 1 2", "1 2 1 2", "key 2"].map(str::to_owned)[..]));
    // Two answers are enough to each row, decided or not.
    let three = ["1 1 1 -", "1 2 1 -", "1 - 2 -"];
    assert_eq!(voted(Quorum::of(2).vote(equal()), members), (3, three.map(str::to_owned).to_vec()));
}

#[test]
fn a_decided_vote_gives_up_who_waits_or_computes() {
    for way in [Way::Never, Way::Waits, Way::Computes] {
        let slow = Planted { way, ..votes("slow", &[Some(2)]) };
        let quick = |column| Planted { way: Way::Done, ..votes(column, &[Some(1)]) };
        let quorum = Quorum::of(3)
            .vote([("slow", 1.0), ("a", 1.0), ("b", 1.0)])
            .step("slow", slow)
            .step("a", quick("a"))
            .step("b", quick("b"));
        sign(&quorum, keys([0]).schema()).unwrap();
        let output = call(&quorum, keys([0])).unwrap();
        assert!(output.rows(0).unwrap().batch().column(1).is_null(0), "{way:?}");
        assert_eq!(told_of(output), None);
    }
}

#[test]
fn a_vote_that_no_ensemble_takes_is_refused() {
    let refused = |quorum: Quorum| {
        let quorum = quorum.step("a", votes("yes", &[])).step("b", answers("no", 0.0));
        sign(&quorum, keys([0]).schema()).err().unwrap().problems().to_vec()
    };
    assert_eq!(
        refused(Quorum::voting([("yess", 1.0), ("no", -1.0)])),
        [
            "`vote`: the weight of `no` is -1; it must be finite and not negative",
            "`vote`: the steps add no column `yess`; did you mean `yes`?",
            "`a`: it adds no column of the `vote`",
            "`vote`: column `no` is Float64, but a vote takes whole numbers up to 63 bits, or texts",
        ]
    );
    assert_eq!(
        refused(Quorum::voting([("yes", 0.0), ("yes", 0.0)])),
        ["`vote`: `yes` is named twice", "`b`: it adds no column of the `vote`"]
    );
    assert_eq!(
        refused(Quorum::default()),
        ["it has neither `need`, how many must answer, nor a `vote` of their columns"]
    );
}

#[test]
fn a_quorum_in_a_file_is_the_one_in_rust() {
    let kind = quorum_kind(Kinds::default().with(crate::kinds()));
    let settings = json!({"need": 2, "steps": {
        "a": {"with": {"a": "CAST(key AS DOUBLE)"}}, "b": {"with": {"b": "CAST(key AS DOUBLE) * 2.0"}},
    }});
    let step = kind.build(&settings).unwrap_or_else(|error| panic!("{error:?}"));
    sign(&*step, keys([0]).schema()).unwrap();
    assert_eq!(told(call(&*step, keys([3]))).0, [[Some(3.0)], [Some(6.0)]]);
    let (yes, no) = (json!({"with": {"a": "'yes'"}}), json!({"with": {"b": "'no'", "c": "'yes'"}}));
    for vote in [json!({"a": 3, "b": 1, "c": 1.5}), json!(["a", "b", "c"])] {
        let settings = json!({"vote": vote, "steps": {"one": yes, "two": no}});
        let step = kind.build(&settings).unwrap_or_else(|error| panic!("{error:?}"));
        sign(&*step, keys([0]).schema()).unwrap();
        let rows = call(&*step, keys([3])).unwrap();
        let nulls = rows.rows(0).unwrap().batch().columns().iter().map(|column| column.null_count());
        assert_eq!(nulls.sum::<usize>(), if vote.is_array() { 0 } else { 2 }, "{vote}");
    }
    let wrong = json!({"need": 1, "steps": {"a": {"wiht": {}}, "b": {"with": {"b": 1}, "filter": "true"}}});
    assert_eq!(
        kind.build(&wrong).err().unwrap().problems,
        [
            "`steps.a`: no kind of step `wiht`; did you mean `with`?",
            "`steps.b` is a map of a step's kind to its settings"
        ]
    );
}
