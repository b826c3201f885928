use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    FitError, FrequencyEncoding, Keep, MAX_CATEGORIES, MAX_COLUMNS, Reconstruction, ReconstructionSettings,
    ReconstructionWindow, RowError, eigen,
};

/// What scikit-learn 1.9.1 and NannyML 0.13.1 find, written by `tests/oracles/multivariate.py`.
#[derive(Deserialize)]
struct Oracle {
    matrices: BTreeMap<String, Matrix>,
    cases: Vec<Case>,
    eigen: Eigen,
    loan: BTreeMap<String, Loan>,
}

#[derive(Clone, Copy, Deserialize)]
struct Matrix {
    seed: u64,
    rows: usize,
    columns: usize,
    factors: usize,
    missing: f64,
}

#[derive(Deserialize)]
struct Case {
    matrix: String,
    keep: f64,
    components: usize,
    explained: f64,
    means: Vec<f64>,
    scales: Vec<f64>,
    errors: Vec<f64>,
    mean: f64,
    sampling_error: f64,
    limits: (f64, f64),
}

#[derive(Deserialize)]
struct Eigen {
    matrix: Vec<f64>,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Loan {
    values: Vec<f64>,
    sampling_errors: Vec<f64>,
    alerts: Vec<bool>,
    lower: f64,
    upper: f64,
}

fn oracle() -> Oracle {
    serde_json::from_str(include_str!("../../tests/oracles/multivariate.json")).unwrap()
}

fn lcg(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Columns that share hidden factors, each with a scale and an offset of its own.
fn entries(matrix: Matrix) -> Vec<f64> {
    let Matrix { seed, rows, columns, factors, missing } = matrix;
    let mut u = lcg(seed);
    let weights: Vec<f64> = (0..columns * factors).map(|_| u() - 0.5).collect();
    let mut out = Vec::new();
    for _ in 0..rows {
        let hidden: Vec<f64> = (0..factors).map(|_| u() - 0.5).collect();
        for j in 0..columns {
            let noise = 0.2 * (u() - 0.5);
            let weights = &weights[j * factors..];
            let value = hidden.iter().zip(weights).fold(noise, |value, (h, w)| value + w * h);
            let value = value * (1.0 + (j * j) as f64) + 10.0 * j as f64;
            out.push(if u() < missing { f64::NAN } else { value });
        }
    }
    out
}

fn names(columns: usize) -> Vec<String> {
    (0..columns).map(|i| format!("c{i}")).collect()
}

fn keeping(keep: f64) -> ReconstructionSettings {
    let keep = if keep < 1.0 { Keep::Variance(keep) } else { Keep::Components(keep as usize) };
    ReconstructionSettings { keep, ..Default::default() }
}

/// Six columns of two factors, fitted as by default.
fn six() -> (Vec<f64>, Reconstruction) {
    let rows = entries(Matrix { seed: 1, rows: 400, columns: 6, factors: 2, missing: 0.0 });
    let fitted = Reconstruction::fit(&names(6), &rows, &keeping(0.65)).unwrap();
    (rows, fitted)
}

fn window(fitted: &Reconstruction, rows: &[f64]) -> (ReconstructionWindow, Vec<f64>) {
    let mut window = ReconstructionWindow::new();
    let rows = rows.chunks_exact(fitted.columns().len());
    let errors = rows.map(|row| window.add(fitted, row).unwrap()).collect();
    (window, errors)
}

#[track_caller]
fn near(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!(
            (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0),
            "{what}: {ours}, oracle {theirs}"
        );
    }
}

#[test]
fn errors_are_those_of_scikit_learn() {
    let oracle = oracle();
    let mut lossless = 0;
    for case in &oracle.cases {
        let matrix = oracle.matrices[&case.matrix];
        let rows = entries(matrix);
        let name = format!("{} keeping {}", case.matrix, case.keep);
        let fitted = match Reconstruction::fit(&names(matrix.columns), &rows, &keeping(case.keep)) {
            Ok(fitted) => fitted,
            Err(error) => {
                let columns = matrix.columns;
                assert_eq!(error, FitError::NothingLost { components: case.components, columns }, "{name}");
                assert!(case.mean < 1e-14, "{name}");
                lossless += 1;
                continue;
            }
        };
        assert_eq!(fitted.components(), case.components, "{name}");
        near(&name, &[fitted.explained_variance()], &[case.explained], 1e-12);
        if case.keep == 0.65 {
            near(&name, &fitted.means, &case.means, 1e-12);
            near(&name, &fitted.scales, &case.scales, 1e-12);
        }
        let (window, errors) = window(&fitted, &rows);
        near(&name, &errors[..case.errors.len()], &case.errors, 1e-9);
        let summary = [window.mean().unwrap(), window.sampling_error().unwrap()];
        near(&name, &summary, &[case.mean, case.sampling_error], 1e-9);
        let limits = [fitted.limits().lower.unwrap(), fitted.limits().upper];
        near(&name, &limits, &[case.limits.0, case.limits.1], 1e-9);
    }
    assert_eq!((oracle.cases.len(), lossless), (35, 11));
}

#[test]
fn values_and_alerts_are_those_of_nannyml_on_loan_applications() {
    const NUMBERS: [&str; 4] = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"];
    const CATEGORIES: [&str; 3] = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"];
    let mut lines = include_str!("../../../../examples/loan/data/reference_sample.csv")
        .lines()
        .map(|line| line.split(','));
    let header: Vec<&str> = lines.next().unwrap().collect();
    let reference: Vec<BTreeMap<&str, Value>> = lines
        .map(|fields| {
            let fields = header.iter().copied().zip(fields).filter(|(_, text)| !text.is_empty());
            let value = |name, text: &str| match NUMBERS.contains(&name) {
                true => json!(text.parse::<f64>().unwrap()),
                false => json!(text),
            };
            fields.map(|(name, text)| (name, value(name, text))).collect()
        })
        .collect();
    let requests: Vec<BTreeMap<&str, Value>> = include_str!("../../../../examples/loan/data/requests.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((reference.len(), requests.len()), (5000, 400));

    let text = |row: &BTreeMap<&str, Value>, name: &str| match row.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let encodings = CATEGORIES.map(|name| {
        let values: Vec<Option<String>> = reference.iter().map(|row| text(row, name)).collect();
        FrequencyEncoding::fit(name, values.iter().map(Option::as_deref)).unwrap()
    });
    let encode = |rows: &[BTreeMap<&str, Value>]| -> Vec<f64> {
        let numbers = |row| {
            let number = |name: &&str| BTreeMap::get(row, *name).and_then(Value::as_f64).unwrap_or(f64::NAN);
            NUMBERS.each_ref().map(number)
        };
        let categories = |row| {
            let pairs = CATEGORIES.iter().zip(&encodings);
            pairs.map(move |(name, encoding)| encoding.encode(text(row, name).as_deref()))
        };
        rows.iter().flat_map(|row| numbers(row).into_iter().chain(categories(row))).collect()
    };
    let (reference, requests) = (encode(&reference), encode(&requests));

    let columns: Vec<String> = NUMBERS.iter().chain(&CATEGORIES).map(|name| (*name).to_owned()).collect();
    let loan = oracle().loan;
    assert_eq!(loan.len(), 2);
    for (keep, expected) in loan {
        let settings = ReconstructionSettings { window_rows: Some(500), ..keeping(keep.parse().unwrap()) };
        let fitted = Reconstruction::fit(&columns, &reference, &settings).unwrap();
        let windows = reference.chunks(500 * 7).chain([requests.as_slice()]);
        let windows: Vec<_> = windows.map(|rows| window(&fitted, rows).0).collect();
        let values: Vec<f64> = windows.iter().filter_map(ReconstructionWindow::mean).collect();
        let errors: Vec<f64> = windows.iter().filter_map(ReconstructionWindow::sampling_error).collect();
        near("value", &values, &expected.values, 1e-9);
        near("sampling error", &errors, &expected.sampling_errors, 1e-9);
        let limits = fitted.limits();
        near("limits", &[limits.lower.unwrap(), limits.upper], &[expected.lower, expected.upper], 1e-9);
        let alerts: Vec<bool> = values.iter().map(|&value| limits.breached_by(value)).collect();
        assert_eq!(alerts, expected.alerts);
        assert_eq!(alerts.iter().filter(|alert| **alert).count(), 1);
    }
}

#[test]
fn eigenvalues_are_those_of_numpy_and_vectors_are_orthonormal() {
    let Eigen { matrix, values } = oracle().eigen;
    let n = values.len();
    let (ours, vectors) = eigen::symmetric(matrix.clone(), n);
    near("eigenvalues", &ours, &values, 1e-12);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let largest = values[0].abs().max(values[n - 1].abs());
    for i in 0..n {
        let vector = &vectors[i * n..(i + 1) * n];
        let product: Vec<f64> = matrix.chunks_exact(n).map(|row| dot(row, vector)).collect();
        let scaled: Vec<f64> = vector.iter().map(|v| v * ours[i]).collect();
        near("A v = l v", &product, &scaled, 1e-13 * largest);
        for j in 0..n {
            let unit = if i == j { 1.0 } else { 0.0 };
            near("orthonormal", &[dot(vector, &vectors[j * n..(j + 1) * n])], &[unit], 1e-13);
        }
    }
}

#[test]
fn eigenvalues_of_simple_matrices() {
    let cases: [(&[f64], &[f64]); 5] = [
        (&[3.0], &[3.0]),
        (&[0.0; 9], &[0.0; 3]),
        (&[1.0, 0.0, 0.0, 2.0], &[2.0, 1.0]),
        (&[2.0, 1.0, 1.0, 2.0], &[3.0, 1.0]),
        (&[1.0; 9], &[3.0, 0.0, 0.0]),
    ];
    for (matrix, values) in cases {
        near("eigenvalues", &eigen::symmetric(matrix.to_vec(), values.len()).0, values, 1e-14);
    }
}

#[test]
fn columns_that_come_apart_are_found_though_each_stays_as_it_was() {
    let (rows, fitted) = six();
    let (same, _) = window(&fitted, &rows[..600]);
    assert!(!fitted.limits().breached_by(same.mean().unwrap()));
    // The second half of each row comes from another row: every column keeps its values.
    let mut mixed = rows.clone();
    for i in 0..400 {
        for j in 3..6 {
            mixed[i * 6 + j] = rows[(i + 37) % 400 * 6 + j];
        }
    }
    let (mixed, _) = window(&fitted, &mixed);
    assert!(fitted.limits().breached_by(mixed.mean().unwrap()), "{:?} {:?}", mixed.mean(), fitted.limits());
}

#[test]
fn a_missing_or_unusable_value_counts_as_the_mean() {
    let (rows, fitted) = six();
    let mut filled = rows[..6].to_vec();
    filled[2] = fitted.means[2];
    let expected = window(&fitted, &filled).1;
    for unusable in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1e101] {
        let mut row = rows[..6].to_vec();
        row[2] = unusable;
        assert_eq!(window(&fitted, &row).1, expected);
    }
}

#[test]
fn an_unusable_value_of_the_reference_counts_as_missing() {
    let (rows, _) = six();
    let fit = |hole| {
        let mut rows = rows.clone();
        rows.iter_mut().step_by(35).for_each(|value| *value = hole);
        Reconstruction::fit(&names(6), &rows, &keeping(0.65)).unwrap()
    };
    assert_eq!(fit(f64::INFINITY), fit(f64::NAN));
    assert_eq!(fit(1e300), fit(f64::NAN));
}

#[test]
fn a_row_whose_error_overflows_is_skipped() {
    let rows: Vec<f64> = (0..300).map(|i| f64::from(i % 7 * (i % 3)) * 1e-120).collect();
    let fitted = Reconstruction::fit(&names(3), &rows, &keeping(0.3)).unwrap();
    let mut window = ReconstructionWindow::new();
    window.add(&fitted, &[1e100, -1e100, 1e100]).unwrap();
    assert_eq!((window.rows(), window.skipped(), window.mean()), (0, 1, None));
    window.add(&fitted, &rows[..3]).unwrap();
    assert_eq!((window.rows(), window.skipped()), (1, 1));
    assert!(window.mean().unwrap().is_finite());
}

#[test]
fn windows_merge_in_any_order_and_survive_a_restart() {
    let (rows, fitted) = six();
    let (whole, _) = window(&fitted, &rows);
    let part = |from: usize, to: usize| window(&fitted, &rows[from * 6..to * 6]).0;
    let orders =
        [[part(0, 100), part(100, 399), part(399, 400)], [part(399, 400), part(0, 100), part(100, 399)]];
    for parts in orders {
        let mut merged = ReconstructionWindow::new();
        for part in parts {
            let saved = serde_json::to_string(&part).unwrap();
            merged.merge(&serde_json::from_str(&saved).unwrap());
            merged.merge(&ReconstructionWindow::new());
        }
        assert_eq!(merged.rows(), 400);
        let ours = [merged.mean().unwrap(), merged.sampling_error().unwrap()];
        near("merged", &ours, &[whole.mean().unwrap(), whole.sampling_error().unwrap()], 1e-13);
    }
}

#[test]
fn a_window_without_rows_has_no_value() {
    let (rows, fitted) = six();
    let mut window = ReconstructionWindow::new();
    assert_eq!((window.mean(), window.sampling_error()), (None, None));
    window.add(&fitted, &rows[..6]).unwrap();
    assert!(window.mean().is_some_and(|mean| mean > 0.0));
    assert_eq!(window.sampling_error(), None);
    assert_eq!(window.add(&fitted, &rows[..5]), Err(RowError { wanted: 6, got: 5 }));
    assert_eq!(window.rows(), 1);
    window.clear();
    assert_eq!((window.rows(), window.mean()), (0, None));
}

#[test]
fn a_column_that_is_the_sum_of_others_has_limits_above_rounding() {
    let mut u = lcg(5);
    let row = |(a, b): (f64, f64)| [a, b, a + b];
    let rows: Vec<f64> = (0..500).flat_map(|_| row((u(), u()))).collect();
    let fitted = Reconstruction::fit(&names(3), &rows, &keeping(2.0)).unwrap();
    assert_eq!((fitted.limits().lower, fitted.limits().upper), (None, 1e-9));
    let fresh: Vec<f64> = (0..50).flat_map(|_| row((u(), u()))).collect();
    assert!(!fitted.limits().breached_by(window(&fitted, &fresh).0.mean().unwrap()));
    assert!(fitted.limits().breached_by(window(&fitted, &[0.5, 0.5, 1.01]).0.mean().unwrap()));
}

#[test]
fn a_constant_column_shows_when_it_moves() {
    let (rows, _) = six();
    let widened: Vec<f64> = rows.chunks_exact(6).flat_map(|row| [row, &[0.7]].concat()).collect();
    let fitted = Reconstruction::fit(&names(7), &widened, &keeping(0.65)).unwrap();
    let moved: Vec<f64> = rows.chunks_exact(6).flat_map(|row| [row, &[2.7]].concat()).collect();
    let (before, after) = (window(&fitted, &widened).0, window(&fitted, &moved).0);
    assert!(!fitted.limits().breached_by(before.mean().unwrap()));
    assert!(fitted.limits().breached_by(after.mean().unwrap()));
}

#[test]
fn references_that_cannot_be_fitted_say_why() {
    let (rows, _) = six();
    let nan = vec![f64::NAN; 400];
    let holed: Vec<f64> = rows.chunks_exact(6).zip(&nan).flat_map(|(row, &nan)| [row[0], nan]).collect();
    let plain = keeping(0.65);
    let wide = ReconstructionSettings { window_rows: Some(400), ..plain.clone() };
    let near_nothing = ReconstructionSettings { deviations: f64::NAN, ..plain.clone() };
    let cases: [(usize, &[f64], &ReconstructionSettings, &str); 12] = [
        (0, &[], &plain, "0 values are no whole rows of 0 columns"),
        (6, &rows[..7], &plain, "7 values are no whole rows of 6 columns"),
        (
            MAX_COLUMNS + 1,
            &[],
            &plain,
            "513 columns are too many: leave out all but the 512 that matter most",
        ),
        (
            6,
            &[],
            &plain,
            "0 reference rows in windows of 1 are fewer than two windows: give more rows or smaller windows",
        ),
        (
            6,
            &rows[..6],
            &plain,
            "1 reference rows in windows of 1 are fewer than two windows: give more rows or smaller windows",
        ),
        (
            6,
            &rows,
            &wide,
            "400 reference rows in windows of 400 are fewer than two windows: give more rows or smaller windows",
        ),
        (2, &holed, &plain, "column `c1` has no value in the reference: leave it out"),
        (
            2,
            &[0.7; 60],
            &plain,
            "each column of the reference has one value only: there is nothing to reconstruct",
        ),
        (
            6,
            &rows,
            &keeping(6.0),
            "6 components of 6 columns lose nothing, so that no error shows: keep fewer, or give more columns",
        ),
        (
            6,
            &rows,
            &keeping(7.0),
            "`keep.components` is 7, but must be at least 1 and at most the number of columns and of rows",
        ),
        (6, &rows, &keeping(0.0), "`keep.variance` is 0, but must be between 0 and 1"),
        (6, &rows, &near_nothing, "`deviations` is NaN, but must be zero or more"),
    ];
    for (columns, rows, settings, expected) in cases {
        let error = Reconstruction::fit(&names(columns), rows, settings).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_saved_reconstruction_is_read_again_and_a_damaged_one_is_refused() {
    let (_, fitted) = six();
    let saved = serde_json::to_value(&fitted).unwrap();
    assert_eq!(serde_json::from_value::<Reconstruction>(saved.clone()).unwrap(), fitted);
    let cases = [
        ("/means", json!([1.0])),
        ("/scales/0", json!(0.0)),
        ("/scales/3", json!(-1.0)),
        ("/columns", json!([])),
        ("/components", json!([])),
        ("/components", json!(vec![0.1; 7])),
        ("/components", json!(vec![0.1; 42])),
    ];
    for (place, value) in cases {
        let mut damaged = saved.clone();
        *damaged.pointer_mut(place).unwrap() = value;
        let error = serde_json::from_value::<Reconstruction>(damaged).unwrap_err().to_string();
        assert_eq!(error, "the saved reconstruction is damaged: fit its reference again", "{place}");
    }
}

#[test]
fn settings_read_with_defaults_and_refuse_unknown_fields() {
    let read = |text: &str| serde_json::from_str::<ReconstructionSettings>(text);
    assert_eq!(read("{}").unwrap(), ReconstructionSettings::default());
    assert_eq!(read(r#"{"keep": {"components": 2}}"#).unwrap(), keeping(2.0));
    assert!(read(r#"{"n_components": 2}"#).unwrap_err().to_string().contains("unknown field `n_components`"));
}

#[test]
fn categories_are_their_share_of_the_reference() {
    let fit = |values: &[Option<&str>]| FrequencyEncoding::fit("plan", values.iter().copied());
    // The first of two equally frequent ones takes the missing values.
    let encoding = fit(&[Some("b"), Some("a"), None, Some("b"), Some("a"), None, Some("c"), None]).unwrap();
    let shares =
        [Some("a"), Some("b"), Some("c"), None, Some("d"), Some("")].map(|value| encoding.encode(value));
    assert_eq!(shares, [5.0 / 8.0, 2.0 / 8.0, 1.0 / 8.0, 5.0 / 8.0, 0.0, 0.0]);
    let saved = serde_json::to_string(&encoding).unwrap();
    assert_eq!(serde_json::from_str::<FrequencyEncoding>(&saved).unwrap(), encoding);

    for nothing in [&[][..], &[None, None]] {
        assert_eq!(fit(nothing), Err(FitError::NothingPresent { column: "plan".into() }));
    }
    let ids: Vec<String> = (0..=MAX_CATEGORIES).map(|i| i.to_string()).collect();
    let ids: Vec<Option<&str>> = ids.iter().map(|id| Some(id.as_str())).collect();
    assert_eq!(fit(&ids), Err(FitError::TooManyCategories { column: "plan".into(), most: MAX_CATEGORIES }));
    assert!(fit(&ids[1..]).is_ok());
}
