//! Windows against other engines: `tests/oracles/windows.py` and what it wrote.

use std::{collections::HashMap, process::Command};

use serde_json::Value;

use super::*;

/// How close a float must be: relative, and absolute.
type Tolerance = (f64, f64);

fn tolerance(by: &str, column: &str) -> Tolerance {
    let spread = column.contains("_std");
    match by {
        "fractions" => (0.0, 0.0),
        // Its quantiles are not rounded to eight binary digits.
        _ if column.contains("_p50_") || column.contains("_p95_") => (1.0 / 256.0, 0.0),
        duckdb if duckdb.starts_with("DuckDB") && spread => (1e-9, 1e-9),
        duckdb if duckdb.starts_with("DuckDB") => (1e-12, 1e-12),
        // It takes away what leaves a window, and so drifts.
        _ => (1e-9, 1e-6),
    }
}

fn event(row: &Value) -> Event {
    let version = Version {
        event: row[1].as_i64().expect("a time"),
        created: None,
        sequence: row[5].as_u64().expect("a sequence"),
    };
    Event {
        version,
        amount: row[2].as_f64(),
        units: row[3].as_i64(),
        tier: row[4].as_str().map(str::to_owned),
    }
}

/// Reads every key at the time of each of its events: after all events, which came in another order, and as they come.
fn check(case: &Value) {
    let by = case["by"].as_str().expect("a name");
    let rows = case["events"].as_array().expect("a list");
    let events: Vec<(&str, Event)> =
        rows.iter().map(|row| (row[0].as_str().expect("a key"), event(row))).collect();
    for (lateness, in_order) in [(400 * 24 * HOUR, false), (0, true)] {
        let of = aggregates(&case["specs"], lateness).unwrap();
        let mut ledgers: HashMap<&str, Ledger> = HashMap::new();
        if !in_order {
            for (key, event) in events.iter().rev() {
                let ledger = ledgers.entry(key).or_default();
                assert_eq!(add(&of, ledger, std::slice::from_ref(event), 1), [Added::Taken]);
            }
        }
        for (row, (key, event)) in events.iter().enumerate() {
            if in_order {
                // Events of the same time see each other, so they come before the read.
                let twins: Vec<Event> = events[row..]
                    .iter()
                    .filter(|(other, twin)| other == key && twin.at() == event.at())
                    .map(|(_, twin)| twin.clone())
                    .collect();
                let first =
                    !events[..row].iter().any(|(other, twin)| other == key && twin.at() == event.at());
                if first {
                    add(&of, ledgers.entry(key).or_default(), &twins, 10);
                }
            }
            let found = read(&of, &ledgers[key], event.at());
            for (column, found) in of.columns().iter().zip(found) {
                let expected = &case["expected"][&column.name][row];
                let place = || format!("{by}, seed {}: {} at event {row}", case["seed"], column.name);
                compare(&found, expected, tolerance(by, &column.name), place);
            }
        }
    }
}

fn compare(found: &Feature, expected: &Value, (relative, absolute): Tolerance, place: impl Fn() -> String) {
    match (found, expected.as_f64()) {
        (Feature::Null, None) => assert!(expected.is_null(), "{}", place()),
        (Feature::Text(found), None) => assert_eq!(Some(found.as_str()), expected.as_str(), "{}", place()),
        (Feature::Whole(found), Some(expected)) => assert_eq!(*found as f64, expected, "{}", place()),
        (Feature::Float(found), Some(expected)) => {
            let near = (found - expected).abs() <= expected.abs() * relative + absolute;
            assert!(near, "{}: {found} and not {expected}", place());
        }
        _ => panic!("{}: {found:?} and not {expected}", place()),
    }
}

fn check_all(text: &str, cases: usize) {
    let found: Vec<Value> = serde_json::from_str(text).expect("what the script writes");
    assert_eq!(found.len(), cases);
    found.iter().for_each(check);
}

#[test]
fn windows_equal_those_of_exact_fractions_duckdb_and_storey() {
    check_all(include_str!("../../oracles/windows.json"), 6);
}

/// Seeds that are not in the file. Fractions need no more than Python; DuckDB is asked where it is installed, in the Python that
/// `MILLSTREAM_PYTHON` names, or else the one on the path.
#[test]
fn windows_equal_those_of_other_engines_on_more_events() {
    let python = std::env::var("MILLSTREAM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let run = |arguments: &[&str]| {
        Command::new(&python).args(arguments).output().ok().filter(|ran| ran.status.success())
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles/windows.py");
    for (engine, needs) in [("fractions", "fractions"), ("duckdb", "duckdb")] {
        if run(&["-c", &format!("import {needs}")]).is_none() {
            println!("skipped: {python} has no {needs}");
            continue;
        }
        let seeds = ["11", "12", "13", "14", "15"];
        let ran = run(&[&[script, "--only", engine][..], &seeds].concat()).expect("the script runs");
        check_all(std::str::from_utf8(&ran.stdout).expect("JSON"), seeds.len());
    }
}
