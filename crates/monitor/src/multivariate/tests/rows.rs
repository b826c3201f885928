//! Rows and windows of them: what is found, what is missing, and what adds up.

use super::{keeping, lcg, names, near, six, window};
use crate::multivariate::{Reconstruction, ReconstructionWindow, RowError};

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
