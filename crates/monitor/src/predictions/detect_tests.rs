//! Tests of detectors, from the labels of predictions to what is said of their errors.

use std::time::Instant;

use millstream_graph::{Request, RunCx, RunId, rows};
use serde_json::{Value, json};

use super::*;
use crate::{
    concept::{Detector, Signal},
    report::{DetectorReport, DetectorState},
};

const ROWS: i64 = 160;
/// From this row on, all are wrong.
const BREAK: i64 = 100;
const NOW: i64 = 1_000;

fn spec(task: &str, detectors: &Value) -> PerformanceSpec {
    let spec = json!({
        "task": task, "prediction": "p", "id": "id", "time": "at", "window": "1m", "lateness": "10m", "detectors": detectors,
    });
    serde_json::from_value(spec).unwrap()
}

fn all() -> RecordBatch {
    let places = || (0..ROWS).collect::<Vec<i64>>();
    rows! { p: vec![1.0; ROWS as usize], id: places(), at: places() }
}

fn predictions(task: &str, detectors: &Value) -> Arc<Predictions> {
    Predictions::with_clock(&spec(task, detectors), &all().schema(), None, || NOW).unwrap()
}

/// A judge that knows all rows, and no label.
fn judge(predictions: &Arc<Predictions>) -> Judge {
    let rows = Rows::whole(all());
    let share = Share { run: RunId(7), request: Request::default(), rows: ROWS as usize };
    let cx = RunCx::shared(RunId(7), vec![share].into(), Instant::now);
    Arc::clone(predictions).tap().observe(&Seen::new(&rows, EdgeId(0), &cx));
    let mut judge = Judge::new(predictions, i64::MIN).unwrap();
    judge.take(predictions, NOW);
    judge
}

fn is_wrong(row: i64) -> bool {
    row % 10 == 3 || row >= BREAK
}

fn label(judge: &mut Judge, rows: impl IntoIterator<Item = i64>) -> LabelCounts {
    let mut counts = LabelCounts::default();
    for row in rows {
        judge.label(&row.to_string(), None, f64::from(u8::from(!is_wrong(row))), NOW, &mut counts);
    }
    counts
}

fn only(judge: &Judge) -> DetectorReport {
    let mut reports = judge.detectors();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// How often a detector of these settings fires over the rows, in their order.
fn fires(settings: &Value) -> u64 {
    let mut detector = Detector::new(serde_json::from_value(settings.clone()).unwrap()).unwrap();
    let errors = (0..ROWS).map(|row| f64::from(u8::from(is_wrong(row))));
    errors.filter(|error| detector.update(*error) == Signal::Drift).count() as u64
}

#[test]
fn a_detector_is_told_the_errors_in_the_order_of_the_predictions_however_labels_come() {
    for settings in [json!({"ddm": {}}), json!({"hddm_a": {}}), json!({"page_hinkley": {"threshold": 5.0}})] {
        let fires = fires(&settings);
        assert!(fires > 0, "{settings}");
        let predictions = predictions("binary", &json!([settings]));
        for step in [1, 37, 159] {
            let mut judge = judge(&predictions);
            // The steps have no divisor in common with the number of rows.
            let counts = label(&mut judge, (0..ROWS).map(|row| row * step % ROWS));
            assert_eq!((counts.joined, only(&judge).errors), (160, 0), "the pane has not ended");
            judge.turn(NOW);
            let report = only(&judge);
            assert_eq!((report.errors, report.drifts, report.state), (160, fires, DetectorState::Drift));
            assert_eq!(report.last_drift, Some(NOW));
            // In the next pane nothing has fired, and a label that is corrected is not told again.
            let mut counts = LabelCounts::default();
            judge.label("7", Some(NOW + 1), 0.0, NOW, &mut counts);
            judge.turn(2 * NOW);
            let next = only(&judge);
            assert_eq!((counts.corrected, next.errors, next.drifts), (1, 160, fires));
            assert!(next.state != DetectorState::Drift && next.last_drift == Some(NOW));
        }
    }
}

#[test]
fn a_restart_goes_on_and_other_parameters_begin_anew() {
    let ddm = predictions("binary", &json!([{"ddm": {}}]));
    let mut whole = judge(&ddm);
    label(&mut whole, 0..ROWS);
    whole.turn(NOW);
    let mut first = judge(&ddm);
    label(&mut first, 0..90);
    first.turn(NOW);
    // The pane is cut short here: these have not been told.
    label(&mut first, 90..105);
    let saved = first.save().unwrap();
    let mut again = Judge::new(&ddm, i64::MIN).unwrap();
    again.restore(&saved).unwrap();
    assert_eq!(again.save().unwrap(), saved);
    label(&mut again, 105..ROWS);
    again.turn(NOW);
    assert_eq!(again.detectors(), whole.detectors());

    let other = predictions("binary", &json!([{"adwin": {}}, {"ddm": {"warm_start": 40}}, {"ddm": {}}]));
    let errors = |judge: &Judge| -> Vec<(String, u64)> {
        judge.detectors().into_iter().map(|report| (report.detector, report.errors)).collect()
    };
    let expected = [("adwin", 0), ("ddm", 0), ("ddm_2", 160)].map(|(name, errors)| (name.to_owned(), errors));
    again.follow(&other);
    assert_eq!(errors(&again), expected);
    let mut changed = Judge::new(&other, i64::MIN).unwrap();
    changed.restore(&whole.save().unwrap()).unwrap();
    assert_eq!(errors(&changed), expected);

    // A file that ends where there were no detectors yet, and one whose detectors cannot be read.
    let plain = predictions("binary", &json!([]));
    let mut without = judge(&plain);
    label(&mut without, 0..9);
    let bytes = without.save().unwrap();
    let end = bytes.len() - 2;
    for bytes in [bytes[..end].to_vec(), [&bytes[..end], &[9; 40]].concat()] {
        let mut judge = Judge::new(&ddm, i64::MIN).unwrap();
        judge.restore(&bytes).unwrap();
        assert_eq!((judge.counts().joined, only(&judge).errors), (9, 0));
    }
}

#[test]
fn of_numbers_the_absolute_error_is_told() {
    let adwin = predictions("regression", &json!([{"adwin": {}}]));
    let mut judge = judge(&adwin);
    // Predictions are 1; labels are 0 and 1, so that half of the errors are 1.
    for row in 0..ROWS {
        judge.label(&row.to_string(), None, (row % 2) as f64, NOW, &mut LabelCounts::default());
    }
    judge.turn(NOW);
    let report = only(&judge);
    assert_eq!((report.errors, report.drifts, report.warns), (160, 0, false));
    assert_eq!((report.recent, report.recent_mean), (Some(160), Some(0.5)));
}

#[test]
fn what_cannot_be_a_detector_is_refused_by_name() {
    let many: Vec<Value> = (1..=17).map(|warm_start| json!({"ddm": {"warm_start": warm_start}})).collect();
    let cases = [
        ("binary", json!(many), vec!["there are at most 16 `detectors`, not 17"]),
        (
            "binary",
            json!([{"adwin": {"delta": 2.0}}, {"eddm": {}}, {"eddm": {}}]),
            vec![
                "detectors: `adwin.delta` is 2, but must be between 0 and 1",
                "detectors: `eddm` is there twice with the same parameters",
            ],
        ),
        (
            "regression",
            json!([{"hddm_w": {}}]),
            vec![
                "detectors: `hddm_w` reads errors of 0 and 1, and those of regression are others; use `adwin` or `page_hinkley`",
            ],
        ),
        ("regression", json!([{"adwin": {}}, {"page_hinkley": {}}]), vec![]),
    ];
    for (task, detectors, expected) in cases {
        let made = Predictions::new(&spec(task, &detectors), &all().schema(), None).map(drop);
        assert_eq!(made.err().unwrap_or_default(), expected, "{detectors}");
    }
}
