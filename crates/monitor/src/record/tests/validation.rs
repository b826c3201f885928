//! Settings that are wrong.

use arrow::datatypes::{IntervalUnit, UnionFields, UnionMode};
use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

/// What is said of settings, for edges that have a bit of everything.
fn refused(settings: serde_json::Value, want: &Expect) {
    let mut settings = settings;
    settings["path"] = "log".into();
    let settings: RecordSettings = serde_json::from_value(settings).unwrap();
    let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
    let reply = schema(&[
        ("decision", DataType::Utf8),
        ("span", DataType::Interval(IntervalUnit::MonthDayNano)),
        ("either", union),
    ]);
    let mut edges = edges();
    edges.push(Watched { name: "reply".to_owned(), schema: reply });
    let env = |name: &str| (name == "SHORT").then(|| "abc".to_owned());
    let said = Recorder::new("fraud", &settings, &edges, env)
        .map(|_| String::new())
        .unwrap_or_else(|wrong| wrong.to_string());
    want.assert_eq(&said);
}

#[test]
fn every_mistake_is_said_at_once() {
    let settings = json!({
        "sample": 0.0, "replica": "../x", "buffer_rows": 0, "key": "amount", "drop": ["custumer", "either", "span"],
        "hash": ["probability", "either"], "secret": "env:NOT_SET",
    });
    refused(
        settings,
        &expect![[r#"
            `sample`: 0 is no share; write a number above 0 and at most 1
            `replica`: `../x` cannot name files; write at most 100 letters, digits, `_`, `.` or `-`, the first no `.`
            `buffer_rows`: 0 rows leave no room for any request; write a number above 0
            `secret`: the environment has no text in `NOT_SET`
            `drop`: no column of a watched edge `custumer`; did you mean `customer`?
            column `reply__either` is under `drop` and under `hash`; keep it under one of them
            `hash`: column `score__probability` is Float64; only text, binary, whole numbers and booleans are hashed
            `key`: column `input__amount` is Float64; only text, binary, whole numbers and booleans are hashed"#]],
    );
}

#[test]
fn each_mistake_names_the_fix() {
    let rest = |mut settings: serde_json::Value| {
        let drop = settings["drop"].as_array().cloned().unwrap_or_default();
        settings["drop"] = drop.into_iter().chain(["span".into(), "either".into()]).collect();
        settings
    };
    refused(rest(json!({})), &expect![""]);
    refused(
        json!({}),
        &expect![[r#"
        column `reply__span` is Interval(MonthDayNano), which Parquet cannot hold; name it under `drop`
        column `reply__either` is Union(Sparse), which Parquet cannot hold; name it under `drop`"#]],
    );
    refused(
        rest(json!({"sample": 1.5})),
        &expect!["`sample`: 1.5 is no share; write a number above 0 and at most 1"],
    );
    refused(
        rest(json!({"hash": ["customer"]})),
        &expect![
            "`hash` needs `secret`: hashes without one can be undone by trying values; write `secret: env:NAME`"
        ],
    );
    refused(
        rest(json!({"secret": "my secret"})),
        &expect!["`secret` is no reference; write `env:NAME`, and put the secret into that variable"],
    );
    refused(
        rest(json!({"secret": "env:SHORT"})),
        &expect!["`secret`: the text in `SHORT` has 3 bytes; use at least 16 random ones"],
    );
    refused(
        rest(json!({"versions": ["outcome"]})),
        &expect![
            "two columns of the log are called `outcome`; rename the step or the column, or name it under `drop`"
        ],
    );
}

#[test]
fn columns_of_one_name_are_refused() {
    let settings: RecordSettings = serde_json::from_value(json!({"path": "log"})).unwrap();
    let edge =
        |name: &str, columns: &[(&str, DataType)]| Watched { name: name.to_owned(), schema: schema(columns) };
    let edges = [
        edge("a", &[("b__c", DataType::Int8), ("seen", DataType::Int8)]),
        edge("a__b", &[("c", DataType::Int8)]),
    ];
    let wrong = Recorder::new("fraud", &settings, &edges, |_| None).map(drop).unwrap_err().to_string();
    expect![[r#"
        two columns of the log are called `a__seen`; rename the step or the column, or name it under `drop`
        two columns of the log are called `a__b__c`; rename the step or the column, or name it under `drop`"#]].assert_eq(&wrong);
}

#[test]
fn unknown_settings_and_nonsense_are_refused() {
    for text in [
        r#"{"path": "log", "smaple": 1}"#,
        r#"{"sample": 1}"#,
        r#"{"path": "log", "max_bytes": "10"}"#,
        r#"{"path": "log", "max_age": "0s"}"#,
        r#"{"path": "log", "buffer_rows": -1}"#,
    ] {
        assert!(serde_json::from_str::<RecordSettings>(text).is_err(), "{text}");
    }
    let schema = serde_json::to_value(schemars::schema_for!(RecordSettings)).unwrap();
    assert_eq!(schema["required"], json!(["path"]));
    assert_eq!(schema["additionalProperties"], json!(false));
}
