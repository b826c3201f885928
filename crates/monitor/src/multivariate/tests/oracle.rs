//! Values of scikit-learn, NannyML and numpy.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Matrix, entries, keeping, names, near, window};
use crate::multivariate::{
    FitError, FrequencyEncoding, Reconstruction, ReconstructionSettings, ReconstructionWindow, eigen,
};

/// What scikit-learn 1.9.1 and NannyML 0.13.1 find, written by `tests/oracles/multivariate.py`.
#[derive(Deserialize)]
struct Oracle {
    matrices: BTreeMap<String, Matrix>,
    cases: Vec<Case>,
    eigen: Eigen,
    loan: BTreeMap<String, Loan>,
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
    serde_json::from_str(include_str!("../../../tests/oracles/multivariate.json")).unwrap()
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
    let mut lines = include_str!("../../../../../examples/loan/data/reference_sample.csv")
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
    let requests: Vec<BTreeMap<&str, Value>> =
        include_str!("../../../../../examples/loan/data/requests.jsonl")
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
