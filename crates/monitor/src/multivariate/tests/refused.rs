//! What cannot be fitted, encoded or read again, and says so.

use serde_json::json;

use super::{keeping, names, six};
use crate::multivariate::{
    FitError, FrequencyEncoding, MAX_CATEGORIES, MAX_COLUMNS, Reconstruction, ReconstructionSettings,
};

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
