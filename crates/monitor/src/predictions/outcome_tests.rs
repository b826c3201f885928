//! Tests of predictions of several classes, and of what predictions led to.

use std::time::Instant;

use millstream_graph::{Request, RunCx, RunId, rows};
use serde_json::{Value, json};

use super::*;
use crate::performance::{MulticlassEstimator, MulticlassReference, MulticlassRow};

const MINUTE: i64 = 60_000_000;
const NOW: i64 = 100 * MINUTE + 7;

#[expect(clippy::needless_pass_by_value, reason = "every caller writes it in place")]
fn predictions(
    batch: &RecordBatch,
    more: Value,
    reference: Option<&[RecordBatch]>,
) -> Result<Arc<Predictions>, Vec<String>> {
    let mut spec = json!({"id": "id", "window": "1m", "lateness": "10m"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec: PerformanceSpec = serde_json::from_value(spec).unwrap();
    Predictions::with_clock(&spec, &batch.schema(), reference, || NOW)
}

/// A judge of these rows, and no label.
fn judge(predictions: &Arc<Predictions>, batch: RecordBatch) -> Judge {
    let share = Share { run: RunId(7), request: Request::default(), rows: batch.num_rows() };
    let cx = RunCx::shared(RunId(7), vec![share].into(), Instant::now);
    let rows = Rows::whole(batch);
    Arc::clone(predictions).tap().observe(&Seen::new(&rows, EdgeId(0), &cx));
    let mut judge = Judge::new(predictions, i64::MIN).unwrap();
    judge.take(predictions, NOW);
    judge
}

fn again(predictions: &Predictions, saved: &[u8]) -> Judge {
    let mut judge = Judge::new(predictions, i64::MIN).unwrap();
    judge.restore(saved).unwrap();
    judge
}

/// The last point of a metric, as labels have it.
fn value(judge: &Judge, predictions: &Predictions, metric: &str, segment: Option<&str>) -> Option<f64> {
    let series = judge.series(predictions);
    let found = series.iter().find(|one| one.name == metric && one.segment.as_deref() == segment)?;
    Some(found.realised.last()?.value)
}

#[test]
fn labels_of_classes_lead_to_the_metrics_of_scikit_learn_in_any_order_and_over_a_restart() {
    let oracle: Value =
        serde_json::from_str(include_str!("../../tests/oracles/performance_metrics.json")).unwrap();
    let case = &oracle["multiclass"][0];
    let names = ["a", "b", "c"];
    let classes = |key: &str| -> Vec<&'static str> {
        case[key].as_array().unwrap().iter().map(|class| names[class.as_u64().unwrap() as usize]).collect()
    };
    let probability = |class: usize| -> Vec<f64> {
        let rows = case["probabilities"].as_array().unwrap();
        rows.iter().map(|row| row[class].as_f64().unwrap()).collect()
    };
    let labels = classes("label");
    let ids: Vec<i64> = (0..labels.len() as i64).collect();
    let batch = rows! {
        id: ids,
        said: classes("predicted"),
        pa: probability(0),
        pb: probability(1),
        pc: probability(2),
    };
    let spec = json!({
        "task": "multiclass", "prediction": "said", "probabilities": {"a": "pa", "b": "pb", "c": "pc"},
    });
    let predictions = predictions(&batch, spec, None).unwrap();
    let orders: [Vec<usize>; 2] = [(0..labels.len()).collect(), (0..labels.len()).rev().collect()];
    for order in orders {
        let mut judge = judge(&predictions, batch.clone());
        let (mut counts, mut doubted) = (LabelCounts::default(), 0);
        for (turn, row) in order.into_iter().enumerate() {
            if turn == labels.len() / 2 {
                judge = again(&predictions, &judge.save().unwrap());
            }
            let id = row.to_string();
            if row % 3 == 0 {
                doubted += 1;
                judge.label(&id, Some(NOW - 9), "a", NOW, &mut counts);
            }
            judge.label(&id, Some(NOW - 1), labels[row], NOW, &mut counts);
        }
        assert_eq!((counts.joined, counts.corrected + counts.repeated), (labels.len() as u64, doubted));
        assert!(counts.corrected > 50 && counts.unknown == 0, "{counts:?}");
        for (metric, key, tolerance) in [
            ("accuracy", "accuracy", 1e-12),
            ("precision", "precision_macro", 1e-12),
            ("recall", "recall_macro", 1e-12),
            ("f1", "f1_macro", 1e-12),
            ("log_loss", "log_loss", 1e-9),
            ("roc_auc", "roc_auc", 1e-3),
        ] {
            let found = value(&judge, &predictions, metric, None).unwrap();
            let expected = case["expected"][key].as_f64().unwrap();
            assert!((found - expected).abs() <= tolerance, "{metric}: {found}, not {expected}");
        }
    }
}

#[test]
fn the_likeliest_class_is_predicted_where_no_column_says_it() {
    // The first of equal ones, and what is no number is not likely.
    let batch = rows! {
        id: ["0", "1", "2", "3", "4"],
        pa: [0.5, 0.2, 0.3, f64::NAN, f64::NAN],
        pb: [0.5, 0.7, 0.3, 0.4, f64::NAN],
        pc: [0.0, 0.1, 0.4, f64::NAN, f64::NAN],
        s: ["x", "x", "y", "y", "y"],
    };
    let spec = json!({
        "task": "multiclass", "probabilities": {"a": "pa", "b": "pb", "c": "pc"}, "segment": "s",
    });
    let predictions = predictions(&batch, spec, None).unwrap();
    let mut judge = judge(&predictions, batch);
    assert_eq!(judge.counts().predictions, 4, "one without any probability is none");
    let mut counts = LabelCounts::default();
    for (id, label) in [("0", "a"), ("1", "a"), ("2", "c"), ("3", "b"), ("3", "z"), ("4", "a")] {
        judge.label(id, None, label, NOW, &mut counts);
    }
    assert_eq!((counts.joined, counts.unknown, counts.waiting), (4, 1, 1));
    // F1 is 2/3 of `a`, predicted once of twice; 2/3 of `b`, right once of twice; and 1 of `c`.
    for (metric, segment, expected) in [
        ("accuracy", None, 3.0 / 4.0),
        ("f1", None, 7.0 / 9.0),
        ("accuracy", Some("x"), 1.0 / 2.0),
        ("accuracy", Some("y"), 1.0),
    ] {
        let found = value(&judge, &predictions, metric, segment).unwrap();
        assert!((found - expected).abs() < 1e-12, "{metric} {segment:?}: {found}");
    }
}

#[test]
fn classes_are_named_by_numbers_and_flags_too() {
    for (batch, classes, labels) in [
        (rows! { id: ["0", "1"], said: [3_i64, 7] }, json!(["3", "7"]), [Truth::from(3.0), "7".into()]),
        (
            rows! { id: ["0", "1"], said: [true, false] },
            json!(["true", "false"]),
            [true.into(), "false".into()],
        ),
    ] {
        let spec = json!({"task": "multiclass", "prediction": "said", "classes": classes});
        let predictions = predictions(&batch, spec, None).unwrap();
        let mut judge = judge(&predictions, batch);
        for (id, label) in labels.into_iter().enumerate() {
            judge.label(&id.to_string(), None, label, NOW, &mut LabelCounts::default());
        }
        assert_eq!(value(&judge, &predictions, "accuracy", None), Some(1.0));
        assert_eq!(value(&judge, &predictions, "roc_auc", None), None, "there are no probabilities");
    }
}

#[test]
fn what_is_said_of_classes_and_outcomes_is_checked() {
    let batch = rows! { id: ["0"], said: ["a"], p: [0.5], q: [0.5] };
    let of = |more: Value| predictions(&batch, more, None).map(drop).err().unwrap_or_default();
    let many: Vec<String> = (0..65).map(|at| format!("c{at}")).collect();
    for (more, mistakes) in [
        (json!({"task": "multiclass", "prediction": "said", "classes": ["a", "b"]}), vec![]),
        (json!({"task": "multiclass", "probabilities": {"a": "p", "b": "q"}}), vec![]),
        (
            json!({"task": "multiclass", "prediction": "said"}),
            vec![
                "name the column of each class under `probabilities`, or the `classes` that the `prediction` has",
            ],
        ),
        (json!({"task": "multiclass", "classes": ["a", "b"]}), vec!["name the column of the `prediction`"]),
        (
            json!({"task": "multiclass", "prediction": "said", "classes": ["a"]}),
            vec!["there are from 2 to 64 classes, not 1"],
        ),
        (
            json!({"task": "multiclass", "prediction": "said", "classes": many}),
            vec!["there are from 2 to 64 classes, not 65"],
        ),
        (
            json!({"task": "multiclass", "prediction": "p", "classes": ["a", "a"], "threshold": 0.5}),
            vec![
                "`threshold` is of `task: binary`; `probabilities` has a column for each class",
                "a class is named twice",
                "column `p` of type Float64 has no classes",
            ],
        ),
        (
            json!({"task": "multiclass", "probabilities": {"a": "p", "b": "said", "c": "r"}, "classes": ["a", "b"]}),
            vec![
                "leave out `classes`: they are those of `probabilities`",
                "column `said` of type Utf8 has no probabilities",
                "no column `r`; did you mean `p`?",
            ],
        ),
        (
            json!({"probability": "p", "classes": ["a", "b"]}),
            vec!["`classes` and `probabilities` are of `task: multiclass`"],
        ),
        (
            json!({"probability": "p", "outcomes": ["revenue", "a b", "revenue"]}),
            vec![
                "outcomes: `a b` is no name of a metric: letters, digits and `_`, at most 64, and no digit first",
                "outcomes: `revenue` is there twice",
            ],
        ),
        (
            json!({"probability": "p", "outcomes": ["a", "b", "c", "d", "e", "f", "g", "h", "i"]}),
            vec!["there are at most 8 `outcomes`, not 9"],
        ),
    ] {
        let found = of(more.clone());
        let same = found.iter().zip(&mistakes).all(|(found, said)| {
            // Which column is the closest is not said here.
            found == said || said.starts_with("no column `r`") && found.starts_with("no column `r`")
        });
        assert!(same && found.len() == mistakes.len(), "{more}: {found:#?}");
    }
}

#[test]
fn what_cannot_be_true_is_refused_by_name() {
    let batch = rows! { id: ["0"], said: ["a"], p: [0.5] };
    let multiclass = json!({"task": "multiclass", "prediction": "said", "classes": ["apple", "pear"]});
    let binary = json!({"probability": "p", "outcomes": ["revenue"]});
    let told = |label: Option<Truth>, measures: &[(&str, f64)]| Outcome {
        id: "0".to_owned(),
        at: None,
        label,
        measures: measures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    };
    for (spec, outcome, answer) in [
        (&multiclass, told(Some("pear".into()), &[]), Ok(())),
        (&multiclass, told(Some("paer".into()), &[]), Err("no class `paer`; did you mean `pear`?")),
        (&multiclass, told(None, &[("revenue", 1.0)]), Err("measures: no outcome `revenue`; there is none")),
        (&binary, told(Some(true.into()), &[("revenue", 1.0)]), Ok(())),
        (&binary, told(None, &[("revenue", 1.0)]), Ok(())),
        (&binary, told(None, &[]), Err("there is neither a `label` nor `measures`")),
        (&binary, told(Some("yes".into()), &[]), Err("`label` is a number, or true or false")),
        (
            &binary,
            told(None, &[("revenues", 1.0)]),
            Err("measures: no outcome `revenues`; did you mean `revenue`?"),
        ),
        (&binary, told(None, &[("revenue", f64::NAN)]), Err("measures: `revenue` is no finite number")),
    ] {
        let predictions = predictions(&batch, spec.clone(), None).unwrap();
        assert_eq!(predictions.check(&outcome), answer.map_err(str::to_owned), "{outcome:?}");
    }
}

/// Rows whose class is said with 0.8, and is wrong for one in ten.
fn said_with_confidence(rows: i64) -> RecordBatch {
    let scores =
        |class: i64| -> Vec<f64> { (0..rows).map(|row| if row % 3 == class { 0.8 } else { 0.1 }).collect() };
    let name = |class: i64| ["a", "b", "c"][(class % 3) as usize];
    let label = |row: i64| if row % 10 == 0 { name(row + 1) } else { name(row) };
    let (ids, labels): (Vec<i64>, Vec<&str>) = (0..rows).map(|row| (row, label(row))).unzip();
    rows! { id: ids, pa: scores(0), pb: scores(1), pc: scores(2), label: labels }
}

#[test]
fn several_classes_are_estimated_before_labels_come_as_all_at_once() {
    let reference = said_with_confidence(300);
    let batch = said_with_confidence(30);
    let spec = json!({
        "task": "multiclass", "probabilities": {"a": "pa", "b": "pb", "c": "pc"}, "label": "label",
    });
    let predictions = predictions(&batch, spec, Some(&[reference])).unwrap();
    let mut judge = judge(&predictions, batch);
    let row = |row: u32| {
        let scores = (0..3).map(|class| if row % 3 == class { 0.8 } else { 0.1 }).collect();
        MulticlassRow { scores, predicted: row % 3 }
    };
    let labelled = |at: u32| {
        let label = if at.is_multiple_of(10) { (at + 1) % 3 } else { at % 3 };
        MulticlassReference { row: row(at), label }
    };
    let estimator = MulticlassEstimator::fit(&(0..300).map(labelled).collect::<Vec<_>>(), 30).unwrap();
    let expected = estimator.estimate(&(0..30).map(row).collect::<Vec<_>>()).remove(0);
    let series = judge.series(&predictions);
    for ((metric, expected), (_, bounds)) in
        expected.metrics.named().into_iter().zip(estimator.bounds().named())
    {
        let found = series.iter().find(|one| one.name == metric).unwrap();
        let (point, bounds) = (found.estimated[0], bounds.unwrap());
        assert!((point.value - expected.unwrap()).abs() < 1e-6, "{metric}: {found:?}, not {expected:?}");
        assert_eq!((found.lower, found.upper), (Some(bounds.lower), Some(bounds.upper)), "{metric}");
        assert_eq!((point.at, found.realised.len()), (NOW - 7, 0));
    }
    // No more is kept of a window that has ended than its metrics, and those are the same.
    judge.take(&predictions, NOW + 12 * MINUTE);
    assert!(matches!(judge.estimates[&(NOW - 7)], estimator::Estimate::Closed(_)));
    assert_eq!(judge.series(&predictions), series);
    assert_eq!(again(&predictions, &judge.save().unwrap()).series(&predictions), series);
}

fn sold() -> RecordBatch {
    rows! { id: ["0", "1", "2", "3"], p: [0.9, 0.1, 0.9, 0.9], s: ["x", "x", "y", "y"] }
}

fn measuring(outcomes: &[&str]) -> Arc<Predictions> {
    predictions(&sold(), json!({"probability": "p", "segment": "s", "outcomes": outcomes}), None).unwrap()
}

#[test]
fn measures_add_up_in_any_order_and_the_last_one_of_a_prediction_counts() {
    let predictions = measuring(&["revenue", "chargeback"]);
    let told = [
        ("0", NOW - 5, "revenue", 1e16),
        ("1", NOW - 4, "revenue", 0.125),
        ("2", NOW - 4, "revenue", -1e16),
        ("3", NOW - 3, "revenue", 7.0),
        ("3", NOW - 2, "revenue", 4.0),
        ("1", NOW - 1, "chargeback", 4.0),
    ];
    for turned in [false, true] {
        let mut judge = judge(&predictions, sold());
        let (mut told, mut counts) = (told.to_vec(), LabelCounts::default());
        if turned {
            told.reverse();
        }
        for (turn, (id, at, name, value)) in told.into_iter().enumerate() {
            if turn == 3 {
                judge = again(&predictions, &judge.save().unwrap());
            }
            judge.measure(id, Some(at), (name, value), NOW, &mut counts);
        }
        assert_eq!((counts.joined, counts.corrected + counts.repeated), (5, 1));
        for (metric, segment, expected) in [
            ("revenue_sum", None, Some(4.125)),
            ("revenue_mean", None, Some(4.125 / 4.0)),
            ("revenue_count", None, Some(4.0)),
            ("revenue_sum", Some("y"), Some(-1e16 + 4.0)),
            ("revenue_count", Some("x"), Some(2.0)),
            ("chargeback_sum", None, Some(4.0)),
            ("chargeback_count", Some("x"), Some(1.0)),
            ("chargeback_sum", Some("y"), None),
            ("accuracy", None, None),
        ] {
            assert_eq!(
                value(&judge, &predictions, metric, segment),
                expected,
                "{metric} {segment:?} {turned}"
            );
        }
    }
}

#[test]
fn measures_come_before_their_prediction_and_too_late_as_labels_do() {
    let predictions = measuring(&["revenue"]);
    let mut judge = judge(&predictions, sold());
    let mut counts = LabelCounts::default();
    judge.measure("9", None, ("revenue", 1.0), NOW, &mut counts);
    judge.measure("0", None, ("refunds", 1.0), NOW, &mut counts);
    judge.measure("0", None, ("revenue", f64::INFINITY), NOW, &mut counts);
    judge.measure("0", Some(NOW + 11 * MINUTE), ("revenue", 1.0), NOW, &mut counts);
    let expected = LabelCounts { waiting: 1, unknown: 2, out_of_time: 1, ..LabelCounts::default() };
    assert_eq!(counts, expected);
    judge.measure("0", None, ("revenue", 8.0), NOW, &mut counts);
    judge.take(&predictions, NOW + 15 * MINUTE);
    judge.measure("1", None, ("revenue", 8.0), NOW + 15 * MINUTE, &mut counts);
    assert_eq!((counts.joined, counts.out_of_time), (1, 2));
    assert_eq!(value(&judge, &predictions, "revenue_sum", None), Some(8.0), "of a window that has ended");
}

#[test]
fn other_outcomes_begin_and_those_that_stay_go_on() {
    let before = measuring(&["revenue", "chargeback"]);
    let mut judge = judge(&before, sold());
    for name in ["revenue", "chargeback"] {
        judge.measure("0", None, (name, 3.0), NOW, &mut LabelCounts::default());
    }
    let saved = judge.save().unwrap();
    let after = measuring(&["refunds", "revenue"]);
    assert!(judge.fits(&after));
    judge.follow(&after);
    for mut judge in [judge, again(&after, &saved)] {
        let mut counts = LabelCounts::default();
        for name in ["revenue", "refunds", "chargeback"] {
            judge.measure("1", None, (name, 4.0), NOW, &mut counts);
        }
        // The prediction was not held for refunds when it was made.
        assert_eq!((counts.joined, counts.waiting, counts.unknown), (1, 1, 1));
        assert_eq!(value(&judge, &after, "revenue_sum", None), Some(7.0));
    }
    let names = after.metrics();
    let own: Vec<&str> = names.iter().rev().take(3).map(String::as_str).collect();
    assert_eq!((names.len(), own), (9 + 6, vec!["revenue_count", "revenue_mean", "revenue_sum"]));
}

#[test]
fn predictions_of_other_classes_begin_anew_and_files_of_the_first_form_are_read() {
    let spec = |classes: &[&str]| json!({"task": "multiclass", "prediction": "said", "classes": classes});
    let batch = || rows! { id: ["0"], said: ["a"] };
    let of = |classes: &[&str]| predictions(&batch(), spec(classes), None).unwrap();
    let saved = judge(&of(&["a", "b"]), batch()).save().unwrap();
    for (classes, fits) in [(["a", "b"], true), (["b", "a"], false), (["a", "c"], false)] {
        let predictions = of(&classes);
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        assert_eq!(judge.restore(&saved).is_ok(), fits, "{classes:?}");
        assert_eq!(judge.fits(&of(&["a", "b"])), fits);
    }

    let predictions = measuring(&["revenue"]);
    let mut judge = judge(&predictions, sold());
    judge.label("0", None, 1.0, NOW, &mut LabelCounts::default());
    let mut first = again(&predictions, &judge.save_in_first_form());
    assert_eq!((first.series(&predictions), first.counts()), (judge.series(&predictions), judge.counts()));
    let mut counts = LabelCounts::default();
    first.label("1", None, 0.0, NOW, &mut counts);
    assert_eq!(counts.joined, 1);
}
