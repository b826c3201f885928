//! Tests of live rows that are rebuilt: where they are counted, over panes, and from the file of the reference.

use std::{fmt::Write, fs, ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use millstream_graph::rows;

use super::*;
use crate::{
    counting::Counting,
    history::{self, History},
    layout::{Layout, Watching},
    pane::{EdgePane, Pane},
    sketch::Merge,
};

const MINUTE: i64 = 60_000_000;

/// Two columns that move together, or against each other; each alone looks the same. Some rows have no second one.
fn row(i: u32, together: bool) -> [Option<f64>; 2] {
    let (income, noise) = (f64::from(i % 10), f64::from(i % 7) / 10.0);
    let limit = if together { income } else { 9.0 - income } + noise;
    [Some(income), (i % 50 != 49).then_some(limit)]
}

fn batch(places: Range<u32>, together: bool) -> RecordBatch {
    let column = |at: usize| places.clone().map(|i| row(i, together)[at]).collect::<Vec<Option<f64>>>();
    let names: Vec<&str> = places.clone().map(|_| "x").collect();
    rows! { name: names, limit: column(1), income: column(0) }
}

fn fitted() -> Arc<Reconstruction> {
    let columns = ["income".to_owned(), "limit".to_owned()];
    let rows: Vec<f64> =
        (0..1000).flat_map(|i| row(i, true)).map(|value| value.unwrap_or(f64::NAN)).collect();
    Arc::new(Reconstruction::fit(&columns, &rows, &ReconstructionSettings::default()).unwrap())
}

fn counted(fitted: &Arc<Reconstruction>, batches: &[RecordBatch]) -> EdgePane {
    let layout = Layout::new("input", &batches[0].schema(), &Watching::default()).unwrap();
    let layout = Layout { reconstruction: Some(Arc::clone(fitted)), ..layout };
    let mut counting = Counting::new(&Arc::new(layout));
    batches.iter().for_each(|batch| counting.add(batch));
    counting.take().unwrap().1
}

#[test]
fn rows_in_any_parts_are_rebuilt_as_all_at_once() {
    let fitted = fitted();
    let whole = counted(&fitted, &[batch(0..3000, true)]);
    let rebuilt = fitted.rebuilt(&whole).unwrap();
    let mut window = ReconstructionWindow::new();
    for i in 0..3000 {
        window.add(&fitted, &row(i, true).map(|value| value.unwrap_or(f64::NAN))).unwrap();
    }
    assert_eq!((rebuilt.rows(), rebuilt.skipped()), (3000, 0));
    assert!((rebuilt.mean().unwrap() - window.mean().unwrap()).abs() < 1e-12);
    for size in [1, 7, 127, 128, 1500] {
        let starts = (0..3000).step_by(size);
        let parts = starts.map(|from| batch(from as u32..(from + size).min(3000) as u32, true));
        let parts: Vec<RecordBatch> = parts.collect();
        assert_eq!(counted(&fitted, &parts).rebuilt, whole.rebuilt, "{size}");
        let (first, second) = parts.split_at(parts.len() / 2);
        let mut one = counted(&fitted, second);
        one.merge(&counted(&fitted, first));
        assert_eq!(one.rebuilt, whole.rebuilt, "{size}, the second half first");
    }
}

#[test]
fn panes_are_kept_with_what_was_rebuilt_and_errors_under_another_reference_stay_apart() {
    let fitted = fitted();
    let columns = fitted.columns().to_vec();
    let other: Vec<f64> = (0..1000).flat_map(|i| [f64::from(i % 7), f64::from(i % 7 * 3 + i % 2)]).collect();
    let other = Arc::new(Reconstruction::fit(&columns, &other, &ReconstructionSettings::default()).unwrap());
    assert!(other.digest() != fitted.digest());
    let mut history = History::in_memory(history::Keep::default());
    for (minute, of) in [(0, &fitted), (1, &other), (2, &fitted)] {
        let edges = [("input".to_owned(), counted(of, &[batch(0..70, true)]))].into();
        let pane = Pane { from: minute * MINUTE, to: (minute + 1) * MINUTE, edges, ..Pane::default() };
        history.push(&pane).unwrap();
    }
    let over = history.over(0, 3 * MINUTE).unwrap();
    let rows = |of: &Reconstruction| of.rebuilt(&over.edges["input"]).map(Rebuilt::rows);
    assert_eq!((rows(&fitted), rows(&other)), (Some(140), Some(70)));
    assert_eq!(over.edges["input"].rows, 210);
}

#[test]
fn columns_that_move_apart_have_drifted_and_of_few_rows_nothing_is_said() {
    let fitted = fitted();
    for (together, rows, expected) in
        [(true, 350, Some(false)), (false, 350, Some(true)), (false, 99, None), (true, 99, None)]
    {
        let pane = counted(&fitted, &[batch(0..rows, together)]);
        let report = fitted.report("input", Some(&pane), 100);
        assert_eq!((report.rows, report.drifted), (u64::from(rows), expected), "{report:?}");
        assert!(report.error.is_some() && report.upper.is_some());
    }
    let nothing = fitted.report("input", None, 0);
    assert_eq!((nothing.rows, nothing.error, nothing.drifted), (0, None, None));
}

#[test]
fn limits_are_wider_for_fewer_rows_than_those_of_a_window_of_the_reference() {
    let fitted = fitted();
    let limits = fitted.limits();
    let reach = (limits.upper - limits.lower.unwrap()) / 2.0;
    for (rows, wider) in [(0, 0.0), (25, reach), (100, 0.0), (1_000_000, 0.0)] {
        let found = fitted.limits_of_rows(rows);
        assert!((found.upper - limits.upper - wider).abs() < 1e-12, "{rows}: {found:?} {limits:?}");
        assert!(found.lower.is_none_or(|lower| lower <= limits.lower.unwrap()));
    }
}

#[test]
fn the_rows_of_a_training_set_are_fitted_and_statistics_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "name,income,limit\n".to_owned();
    for i in 0..1000 {
        let [income, limit] =
            row(i, true).map(|value| value.map(|value| value.to_string()).unwrap_or_default());
        writeln!(text, "x,{income},{limit}").unwrap();
    }
    for name in ["train.csv", "statistics.json"] {
        fs::write(folder.path().join(name), &text).unwrap();
    }
    let fit = |name: &str, numeric: &[&str], settings: &str| {
        let spec: MultivariateSpec = serde_json::from_str(settings).unwrap();
        Reconstruction::of_file(&folder.path().join(name), numeric, &spec.settings().unwrap())
    };
    let both: &[&str] = &["income", "limit", "gone"];
    let read = fit("train.csv", both, "true").unwrap();
    assert_eq!((read.columns().join(" ").as_str(), read.digest()), ("income limit", fitted().digest()));
    let cases: [(&str, &[&str], &str, &str); 7] = [
        ("statistics.json", both, "true", "statistics have no rows to learn from"),
        ("train.csv", &["income"], "true", "two numeric columns are needed"),
        ("train.csv", both, r#"{"columns": ["income", "limt"]}"#, "`limt`"),
        ("train.csv", both, r#"{"columns": ["income", "gone"]}"#, "the reference has no column `gone`"),
        ("train.csv", &["income", "name"], "true", "column `name` is no number in the reference"),
        ("train.csv", both, r#"{"keep": {"components": 2}}"#, "lose nothing"),
        ("gone.csv", both, "true", "gone.csv"),
    ];
    for (name, numeric, settings, expected) in cases {
        let error = fit(name, numeric, settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let read = |text: &str| serde_json::from_str::<MultivariateSpec>(text);
    assert!(read("false").unwrap().settings().is_none());
    let error = read(r#"{"colums": []}"#).unwrap_err().to_string();
    assert!(error.contains("any of `{ columns, keep, window_rows, deviations }`"), "{error}");
}
