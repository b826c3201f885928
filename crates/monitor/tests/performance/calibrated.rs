//! Scores that are made probabilities.

use millstream_monitor::performance::{Isotonic, needs_calibration};

#[test]
fn only_scores_that_are_off_need_calibration() {
    let rows = |truth: fn(f64) -> f64| -> Vec<(f64, bool)> {
        // Of each hundred rows with one score, the share that is due is positive.
        let of = |i: u32, j: u32| (f64::from(i) / 50.0, f64::from(j) < truth(f64::from(i) / 50.0) * 100.0);
        (1..50).flat_map(|i| (0..100).map(move |j| of(i, j))).collect()
    };
    assert!(!needs_calibration(&[]));
    assert!(!needs_calibration(&[(0.5, true); 30]), "one class");
    assert!(!needs_calibration(&rows(|score| f64::from(u8::from(score > 0.5)))), "perfect ranks");
    assert!(needs_calibration(&rows(|score| score * score)), "too high");
    assert!(needs_calibration(&rows(|score| score.sqrt())), "too low");
}

#[test]
fn isotonic_regression_pools_what_falls() {
    let check = |rows: &[(f64, bool)], points: &[(f64, f64)]| {
        let isotonic = Isotonic::fit(rows).unwrap();
        for &(score, expected) in points {
            let actual = isotonic.calibrate(score);
            assert!((actual - expected).abs() < 1e-12, "{score}: {actual} is not {expected}");
        }
    };
    let (no, yes) = (false, true);
    check(&[(0.5, yes)], &[(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)]);
    check(&[(0.2, yes), (0.8, no)], &[(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]);
    check(&[(0.2, no), (0.8, yes)], &[(0.1, 0.0), (0.35, 0.25), (0.5, 0.5), (0.9, 1.0)]);
    check(
        &[(0.5, yes), (0.5, no), (0.5, no), (0.5, no), (0.9, yes)],
        &[(0.5, 0.25), (0.7, 0.625), (0.9, 1.0)],
    );
    check(
        &[(f64::NEG_INFINITY, yes), (0.5, no), (f64::NAN, yes)],
        &[(f64::NEG_INFINITY, 0.0), (f64::INFINITY, 0.0)],
    );
    assert_eq!(Isotonic::fit(&[]), None);
    assert_eq!(Isotonic::fit(&[(f64::NAN, yes)]), None);
    assert!(Isotonic::fit(&[(0.5, yes)]).unwrap().calibrate(f64::NAN).is_nan());
}
