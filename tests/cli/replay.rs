//! `millstream replay` and `explain-request`: what a request log has, asked again and shown.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{client::Client, path, project, serving::Serving};

const SECRET: (&str, &str) = ("MILLSTREAM_TEST_SECRET", "sixteen bytes or more");

/// Amounts with a tax that depends on the country; rows whose total is small are left out of the reply.
const PROJECT: &str = r#"
name: replayed
graphs:
  pay:
    input: { id: int64, amount: float64, country: string }
    steps:
      taxed: { with: { total: "CASE WHEN country = 'de' THEN amount * 1.19 ELSE amount * 1.2 END" } }
      large: { filter: total > 10 }
      told: { select: [id, total] }
    respond: told
    record: { path: log, flush: 1ms }
"#;

const REQUESTS: usize = 300;

/// A graph that was served, and its log.
fn logged(text: &str) -> TempDir {
    let folder = project(text);
    serve(&folder);
    folder
}

/// Serves requests of one row and of three, and stops the server, so that all of them are in the log.
fn serve(folder: &TempDir) {
    let mut serving = Serving::start_with_env(folder, &["--drain-delay-s", "0"], &[SECRET]);
    let mut client = Client::connect(serving.address);
    let row = |i: usize| json!({ "id": i, "amount": i % 100, "country": if i.is_multiple_of(2) { "de" } else { "fr" } });
    for i in 0..REQUESTS {
        let body =
            if i.is_multiple_of(2) { row(i) } else { Value::from((i..i + 3).map(row).collect::<Vec<_>>()) };
        let id = format!("call-{i}");
        let answer =
            client.send("POST", "/v1/graphs/pay", &[("x-request-id", &id)], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    serving.terminate();
    assert!(serving.server.wait().unwrap().success());
}

/// What a command about a project says on standard output and standard error, and its exit status.
fn said(arguments: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    let Output { stdout, stderr, status } = command.args(arguments).envs([SECRET]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status.code().unwrap())
}

fn root(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

/// What a replay of a log found, over the project of `with` if there is one. It must succeed.
#[track_caller]
fn replayed(folder: &TempDir, with: Option<&TempDir>) -> Value {
    let mut arguments = vec!["replay", "--project", root(folder), "--json"];
    arguments.extend(with.iter().flat_map(|other| ["--with", root(other)]));
    let (found, complaint, code) = said(&arguments);
    assert_eq!((complaint.as_str(), code), ("", 0), "{found}");
    serde_json::from_str(&found).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let (printed, complaint, code) = said(arguments);
    assert_eq!((printed.as_str(), code), ("", 1), "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

#[test]
fn the_same_graph_answers_to_the_bit_and_another_one_as_far_as_it_differs() {
    let folder = logged(PROJECT);
    let (text, complaint, code) = said(&["replay", "--project", root(&folder)]);
    assert_eq!((complaint.as_str(), code), ("", 0), "{text}");
    assert!(
        text.starts_with("300 requests: 300 equal to the bit, 0 different, 0 with another outcome"),
        "{text}"
    );

    // A tax of 25 % in one branch: rows from `de` are the same.
    let dearer = project(&PROJECT.replace("amount * 1.2 ", "amount * 1.25 "));
    let found = replayed(&folder, Some(&dearer));
    let (different, equal) = (found["different"].as_u64().unwrap(), found["equal"].as_u64().unwrap());
    assert_eq!(different + equal, 300, "{found}");
    // Those of one row are all from `de`, and those of three have at least one row that is not.
    assert!(equal >= 150 && different > 100, "{found}");
    assert_eq!(found["columns"].as_object().unwrap().len(), 1, "{found}");
    let total = &found["columns"]["total"];
    // The largest amount from elsewhere is 99.
    assert!((total["most"].as_f64().unwrap() - 99.0 * 0.05).abs() < 1e-9, "{found}");
    assert!(total["rows"].as_u64().unwrap() >= different, "{found}");
    assert_eq!(found["drift"], "None of 2 columns drifted.");

    // The same change in the project itself is a failure: it does not answer as it did.
    fs::copy(dearer.path().join("millstream.yaml"), folder.path().join("millstream.yaml")).unwrap();
    let (_, complaint, code) = said(&["replay", "--project", root(&folder)]);
    assert_eq!(code, 1);
    assert!(complaint.contains(&format!("{different} requests are answered otherwise")), "{complaint}");
}

#[test]
fn rows_and_columns_that_are_gone_or_new_differ() {
    let folder = logged(PROJECT);
    let answered = rows_larger_than(10.0);
    let of = |from: &str, to: &str| {
        let text = PROJECT.replace(from, to);
        assert_ne!(text, PROJECT);
        replayed(&folder, Some(&project(&text)))
    };
    // Not one row is left: nothing of a reply could differ.
    let none = of("total > 10", "total > 1000");
    assert_eq!((&none["rows_gone"], &none["rows_new"]), (&json!(answered), &json!(0)), "{none}");
    assert_eq!(none["columns"], json!({}));
    assert!(none["different"].as_u64().unwrap() > 200 && none["equal"].as_u64().unwrap() > 0, "{none}");

    let more = of("total > 10", "total > 5");
    assert_eq!(
        (&more["rows_gone"], &more["rows_new"]),
        (&json!(0), &json!(rows_larger_than(5.0) - answered))
    );
    assert_eq!(more["columns"], json!({}));

    let renamed = of("[id, total]", "[id, total AS sum]");
    assert_eq!((&renamed["columns_gone"], &renamed["columns_new"]), (&json!(["total"]), &json!(["sum"])));
    assert_eq!(renamed["different"], none["different"], "those that have rows");
}

/// How many of the rows that were served have a larger total.
fn rows_larger_than(limit: f64) -> usize {
    let total = |i: usize| (i % 100) as f64 * if i.is_multiple_of(2) { 1.19 } else { 1.2 };
    let rows = (0..REQUESTS).flat_map(|i| if i.is_multiple_of(2) { i..i + 1 } else { i..i + 3 });
    rows.filter(|i| total(*i) > limit).count()
}

#[test]
fn what_was_not_logged_is_refused_by_name_where_it_is_read() {
    let keeping = |kept: &str| PROJECT.replace("flush: 1ms", &format!("flush: 1ms, {kept}"));
    let hashed = logged(&keeping("hash: [country], secret: 'env:MILLSTREAM_TEST_SECRET'"));
    refused(
        &["replay", "--project", root(&hashed)],
        &["column `country` was logged as a digest only: it cannot be asked again"],
    );
    // A graph that does not read it can be asked.
    let simpler = project(
        &PROJECT.replace("CASE WHEN country = 'de' THEN amount * 1.19 ELSE amount * 1.2 END", "amount"),
    );
    let found = replayed(&hashed, Some(&simpler));
    assert_eq!(
        (&found["requests"], &found["outcome_changed"], &found["partial"]),
        (&json!(300), &json!(0), &json!(0))
    );

    let dropped = logged(&keeping("drop: [input__amount, reply__total]"));
    refused(
        &["replay", "--project", root(&dropped)],
        &["column `amount` was dropped from the log: it cannot be asked again"],
    );
    let simpler = project(
        &PROJECT
            .replace("amount * 1.19", "1.0")
            .replace("amount * 1.2 ", "2.0 ")
            .replace("total > 10", "total > 0"),
    );
    let found = replayed(&dropped, Some(&simpler));
    assert_eq!(
        (&found["columns_not_compared"], &found["columns_new"]),
        (&json!(["total"]), &json!([])),
        "{found}"
    );
}

#[test]
fn one_request_is_shown_step_by_step() {
    let folder = logged(PROJECT);
    let explain = |id: &str, form: &[&str]| {
        said(&[&["explain-request", id, "--project", root(&folder)], form].concat())
    };
    let (text, complaint, code) = explain("call-50", &[]);
    assert_eq!((complaint.as_str(), code), ("", 0), "{text}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let shown =
        [vec!["input"], vec!["amount", "50.0"], vec!["country", "de"], vec!["reply"], vec!["total", "59.5"]];
    for line in [["request_id", "call-50"], ["outcome", "ok"], ["rows", "1"]] {
        assert!(lines.iter().any(|shown| *shown == line), "{line:?}: {text}");
    }
    let mut rest = lines.iter();
    for line in shown {
        assert!(rest.any(|shown| *shown == line), "{line:?}: {text}");
    }

    let (json, ..) = explain("call-199", &["--json"]);
    let rows: Value = serde_json::from_str(&json).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.iter().map(|row| &row["rows"]).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(
        rows[0]["steps"][0],
        json!({ "step": "input", "columns": { "id": 199, "amount": 99.0, "country": "fr" } })
    );
    assert_eq!(rows[0]["steps"][1]["columns"]["id"], 199);
    // Row 200 has the amount 0, so the filter has kept it back.
    assert_eq!(rows[1]["steps"][1], json!({ "step": "reply", "columns": null }));

    refused(
        &["explain-request", "call-300", "--project", root(&folder)],
        &["graph `pay` has no request `call-300`"],
    );
}

/// A graph that reads a feature, whose key nobody else reads.
const ENRICHED: &str = r#"
name: enriched
feature_sets:
  places: { keys: [country], types: { country: string }, features: { rate: float64, note: string }, source: places.csv }
graphs:
  pay:
    input: { id: int64, amount: float64, country: string }
    steps:
      known: { enrich: { set: places, missing: null } }
      taxed: { with: { total: amount * rate } }
      told: { select: [id, total] }
    respond: told
    record: { path: log, flush: 1ms, hash: [country, note], secret: "env:MILLSTREAM_TEST_SECRET" }
"#;

fn rates(folder: &TempDir, de: f64) {
    fs::write(path(folder, "places.csv"), format!("country,rate,note\nde,{de},a\nfr,1.2,b\n")).unwrap();
}

#[test]
fn features_are_those_that_were_logged_whatever_they_are_now() {
    let folder = project(ENRICHED);
    rates(&folder, 1.19);
    serve(&folder);
    rates(&folder, 1.5);
    let found = replayed(&folder, None);
    assert_eq!((&found["requests"], &found["equal"]), (&json!(300), &json!(300)), "{found}");

    // Those of now differ, which is no failure. The key is there as a digest only, and no longer enough.
    refused(
        &["replay", "--project", root(&folder), "--features-now"],
        &["column `country` was logged as a digest only"],
    );
    let folder = project(&ENRICHED.replace("hash: [country, note]", "hash: [note]"));
    rates(&folder, 1.19);
    serve(&folder);
    rates(&folder, 1.5);
    let (found, complaint, code) = said(&["replay", "--project", root(&folder), "--features-now", "--json"]);
    assert_eq!((complaint.as_str(), code), ("", 0), "{found}");
    let found: Value = serde_json::from_str(&found).unwrap();
    assert!(found["different"].as_u64().unwrap() >= 150, "{found}");
    assert!((found["columns"]["total"]["most"].as_f64().unwrap() - 98.0 * 0.31).abs() < 1e-9, "{found}");
}

#[test]
fn features_that_nobody_knows_are_refused_by_name() {
    let folder = project(ENRICHED);
    rates(&folder, 1.19);
    serve(&folder);
    let with = |text: &str, arguments: &[&str], parts: &[&str]| {
        let other = project(text);
        rates(&other, 1.19);
        let known = ["replay", "--project", root(&folder), "--with", root(&other)];
        refused(&[&known[..], arguments].concat(), parts);
    };
    // What was hashed, and a step that was not there.
    let more = ENRICHED.replace("{ total: amount * rate }", "{ total: amount * rate, also: note }");
    let more = more.replace("[id, total]", "[id, total, also]");
    with(&more, &[], &["step `known`: column `note` was logged as a digest only"]);
    let other = ENRICHED.replace("known: { enrich", "looked: { enrich");
    with(&other, &[], &["step `looked`: column `rate` is not in the log"]);

    // Rows that lie in the memory of another process.
    let live = ENRICHED.replace("source: places.csv", "timestamp: at, online: memory");
    with(&live, &["--features-now"], &["the rows of feature set `places` lie in the memory"]);
}
