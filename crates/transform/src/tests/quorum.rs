use std::sync::{Arc, atomic::Ordering::Relaxed};

use arrow::{
    array::{Array, AsArray},
    datatypes::Float64Type,
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

#[test]
fn a_quorum_in_a_file_is_the_one_in_rust() {
    let kind = quorum_kind(Kinds::default().with(crate::kinds()));
    let settings = json!({"need": 2, "steps": {
        "a": {"with": {"a": "CAST(key AS DOUBLE)"}}, "b": {"with": {"b": "CAST(key AS DOUBLE) * 2.0"}},
    }});
    let step = kind.build(&settings).unwrap_or_else(|error| panic!("{error:?}"));
    sign(&*step, keys([0]).schema()).unwrap();
    assert_eq!(told(call(&*step, keys([3]))).0, [[Some(3.0)], [Some(6.0)]]);
    let wrong = json!({"need": 1, "steps": {"a": {"wiht": {}}, "b": {"with": {"b": 1}, "filter": "true"}}});
    assert_eq!(
        kind.build(&wrong).err().unwrap().problems,
        [
            "`steps.a`: no kind of step `wiht`; did you mean `with`?",
            "`steps.b` is a map of a step's kind to its settings"
        ]
    );
}
