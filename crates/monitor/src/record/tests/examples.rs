//! Rows that show what values of a column are like.

use serde_json::json;

use super::*;
use crate::record::Values;

const ALL: std::ops::Range<i64> = i64::MIN..i64::MAX;

/// The requests and rows of the examples that a recorder finds.
#[track_caller]
fn check(recorder: &Recorder, column: &str, values: &[Values], most: usize, want: &[(&str, u32)]) {
    check_within(recorder, column, ALL, values, most, want);
}

#[track_caller]
fn check_within(
    recorder: &Recorder,
    column: &str,
    times: std::ops::Range<i64>,
    values: &[Values],
    most: usize,
    want: &[(&str, u32)],
) {
    let found = recorder.examples(("input", column), times, values, most).unwrap();
    let found: Vec<(&str, u32)> =
        found.iter().map(|example| (example.request_id.as_str(), example.row)).collect();
    assert_eq!(found, want, "{column} {values:?}");
}

fn category(name: &str) -> Values {
    Values::Category(name.to_owned())
}

/// Three requests of four rows, whose amounts are 0, 1, 2 and 3.
fn logged(settings: serde_json::Value) -> Log {
    let log = Log::new(settings);
    for (at, id) in (START..).zip(["a", "b", "c"]) {
        log.request(id, at, 4);
    }
    log.writer().flush(START).unwrap();
    log
}

#[test]
fn examples_are_of_different_requests_and_of_the_first_values_first() {
    let log = logged(json!({}));
    let recorder = &log.recorder;
    let last = Values::Between(3.0, f64::INFINITY);
    check(recorder, "amount", std::slice::from_ref(&last), 5, &[("a", 3), ("b", 3), ("c", 3)]);
    check(recorder, "amount", std::slice::from_ref(&last), 2, &[("a", 3), ("b", 3)]);
    check(recorder, "amount", &[Values::Between(f64::NEG_INFINITY, 2.0)], 5, &[("a", 0), ("b", 0), ("c", 0)]);
    // A border is of the bin above it.
    let two = [Values::Between(4.0, 9.0), Values::Between(1.0, 2.0), last];
    check(recorder, "amount", &two, 4, &[("a", 1), ("b", 1), ("c", 1), ("a", 3)]);
    check(recorder, "customer", &[category("b-2"), category("a-0")], 5, &[("b", 2), ("a", 0)]);
    for (column, values) in [
        ("customer", vec![Values::Between(0.0, 9.0)]),
        ("amount", vec![category("1")]),
        ("amount", vec![]),
        ("nothing", vec![category("b-2")]),
    ] {
        check(recorder, column, &values, 5, &[]);
    }
    check_within(recorder, "amount", START + 1..START + 2, &two, 5, &[("b", 1), ("b", 3)]);
    let found = recorder.examples(("input", "amount"), ALL, &two, 1).unwrap();
    assert_eq!(found[0].value, json!(1.0));
}

#[test]
fn a_column_that_is_hashed_or_left_out_has_no_examples_whether_now_or_when_it_was_written() {
    let hashed = json!({"hash": ["customer"], "secret": "env:SECRET"});
    let asked = [category("b-2")];
    let log = logged(json!({}));
    for settings in [hashed.clone(), json!({"drop": ["customer"]})] {
        let recorder = recorder(log.folder.path(), settings).unwrap();
        check(&recorder, "customer", &asked, 5, &[]);
    }
    let log = logged(hashed);
    let digest = texts(&log.rows(), "input__customer").remove(0).unwrap();
    let recorder = recorder(log.folder.path(), json!({})).unwrap();
    check(&recorder, "customer", &[category(&digest)], 5, &[]);
}

#[test]
fn only_the_newest_files_are_looked_into() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    let last = [Values::Between(3.0, 4.0)];
    for (files, (at, id)) in (START..).zip(["a", "b", "c", "d", "e", "f", "g", "h", "i"]).enumerate() {
        let want: &[(&str, u32)] = if (1..=8).contains(&files) { &[("a", 3)] } else { &[] };
        check(&log.recorder, "amount", &last, 5, want);
        log.request(id, at, if id == "a" { 4 } else { 1 });
        writer.flush(START).unwrap();
    }
    check(&log.recorder, "amount", &last, 5, &[]);
}
