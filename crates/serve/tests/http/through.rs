//! Sets whose rows pass a graph before they are taken: pushed, from files, by graphs; and what a project says that is wrong.

use std::{fs, path::Path};

use millstream_featurestore::Stores;
use millstream_serve::{Outcome, Project};
use serde_json::{Value, json};

use super::{ConnectionLimits, PATIENCE, Serving, replace, served_project};

/// Raw transactions, in cents and with countries in any case; those of no amount are no events.
const PROJECT: &str = "\
name: cards
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64, amount: float64, country: string }
    features: { country: string, before: float64 }
    timestamp: at
    through: raw
    aggregates: [{ column: amount, functions: [sum, count], windows: [3650d] }]
    lateness: 3650d
    rules: { positive: amount > 0 }
    source: past.csv
    online: { local: { path: state/cards } }
    aside: { path: state/aside.jsonl }
graphs:
  raw:
    input: { card: int64, cents: int64, country: string?, at: timestamp, divisor: int64? }
    steps:
      priced: { with: { amount: \"cents / 100.0\", country: upper(country), checked: \"cents / coalesce(divisor, 1)\" } }
      events: { filter: cents <> 0 }
      known: { enrich: { set: cards, by: card, features: [amount_sum_3650d AS before], missing: { default: 0 } } }
      answer: { select: [card AS card_id, amount, country, before, at] }
    respond: answer
  seen:
    input: { number: int64, cents: int64, country: string, at: timestamp, divisor: int64? }
    steps:
      kept: { ingest: { set: cards, columns: { card: number } } }
      found: { enrich: { set: cards, by: number, features: [before, amount_sum_3650d], missing: fail } }
    respond: found
  score:
    input: { card_id: int64 }
    steps:
      known: { enrich: { set: cards, missing: { default: 0 }, features: [amount_sum_3650d AS sum, amount_count_3650d AS count] } }
    respond: known
";

const PAST: &str =
    "card,cents,country,at,divisor\n1,250,fr,2026-01-01T00:00:00Z,\n1,0,fr,2026-01-01T00:00:01Z,\n";

fn write(folder: &Path, text: &str) {
    fs::write(folder.join("past.csv"), PAST).unwrap();
    replace(&folder.join("millstream.yaml"), text);
}

fn serves(folder: &Path, body: impl FnOnce(&mut Serving)) {
    served_project(folder, ConnectionLimits::default(), PATIENCE, body);
}

fn post(serving: &Serving, path: &str, body: &str) -> Value {
    let answer = serving.client().send("POST", path, &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn check_card(serving: &Serving, card: i64, sum: f64, count: i64) {
    let found = post(serving, "/v1/graphs/score", &format!("{{\"card_id\":{card}}}"));
    assert_eq!((&found["sum"], &found["count"]), (&json!(sum), &json!(count)));
}

#[test]
fn rows_pass_the_graph_wherever_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), PROJECT);
    serves(folder.path(), |serving| {
        // The rows of the file are there, once.
        check_card(serving, 1, 2.5, 1);
        let raw = r#"[{"card":1,"cents":150,"country":"us","at":"2026-01-02T00:00:00Z"},
            {"card":1,"cents":0,"at":"2026-01-02T00:00:00Z"},
            {"card":2,"cents":-5,"at":"2026-01-02T00:00:00Z"},
            {"card":1,"cents":9,"at":"2026-01-02T00:00:00Z","divisor":0}]"#;
        let told = post(serving, "/v1/features/cards?source=tx&offset=5", raw);
        assert_eq!((&told["taken"], &told["filtered"], &told["refused"]), (&json!(1), &json!(1), &json!(2)));
        let problems = told["problems"].as_array().unwrap();
        assert_eq!((&problems[0]["row"], &problems[0]["field"]), (&json!(2), &json!("positive")));
        assert_eq!((&problems[1]["row"], &problems[1]["field"]), (&json!(3), &json!("raw")));
        let problem = problems[1]["error"].as_str().unwrap();
        assert!(problem.starts_with("graph `raw`: step `priced`: ") && problem.contains("zero"), "{problem}");
        check_card(serving, 1, 4.0, 2);
        // What was taken is not taken again.
        assert_eq!(post(serving, "/v1/features/cards?source=tx&offset=5", raw)["repeated"], 1);
        check_card(serving, 1, 4.0, 2);
        // The step reads what it wrote.
        let seen = post(
            serving,
            "/v1/graphs/seen",
            r#"{"number":1,"cents":100,"country":"de","at":"2026-01-03T00:00:00Z"}"#,
        );
        assert_eq!((&seen["before"], &seen["amount_sum_3650d"]), (&json!(4.0), &json!(5.0)));
        let erased = serving.admin_with("DELETE", "/v1/features/cards", br#"{"card_id":2}"#).json();
        assert_eq!(erased["set_aside"], 2, "{erased}");
        let aside = fs::read_to_string(folder.path().join("state/aside.jsonl")).unwrap();
        let rows: Vec<Value> =
            aside.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["row"].clone()).collect();
        assert_eq!(rows[0]["divisor"], 0);
        assert_eq!(serving.metric("millstream_feature_rows_total{outcome=\"filtered\",set=\"cards\"}"), 2);
    });
    serves(folder.path(), |serving| check_card(serving, 1, 5.0, 3));
}

#[test]
fn a_reload_takes_another_graph_and_another_version() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), PROJECT);
    serves(folder.path(), |serving| {
        let version = || serving.client().get("/v1/features/cards").json()["version"].clone();
        let before = version();
        replace(&folder.path().join("millstream.yaml"), &PROJECT.replace("cents / 100.0", "cents / 10.0"));
        assert_eq!(serving.reload().outcome, Outcome::Swapped);
        assert_ne!(version(), before);
        post(serving, "/v1/features/cards", r#"{"card":9,"cents":100,"at":"2026-01-02T00:00:00Z"}"#);
        check_card(serving, 9, 10.0, 1);
    });
}

/// What is wrong with a project in which one text stands for another.
#[track_caller]
fn check_wrong(from: &str, to: &str, expected: &[&str]) {
    assert!(PROJECT.contains(from));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &PROJECT.replace(from, to));
    let error = Project::load_among(folder.path(), &Stores::aside()).map(drop).unwrap_err();
    let told: Vec<_> =
        error.mistakes().iter().map(|text| text.rsplit("yaml:").next().unwrap().to_owned()).collect();
    assert_eq!(told, expected);
}

#[test]
fn what_is_wrong_with_a_graph_that_rows_pass_is_said_when_the_project_is_loaded() {
    check_wrong(
        "through: raw",
        "through: rwa",
        &["8:5: feature set `cards`: `through`: no graph `rwa`; did you mean `raw`?"],
    );
    check_wrong(
        "select: [card AS card_id, amount, country, before, at]",
        "select: [card AS card_id, country, at AS att]",
        &[
            "8:5: feature set `cards`: `through`: what graph `raw` answers: no column `amount`; there is `card_id`, `country`, `att`",
            "8:5: feature set `cards`: `through`: what graph `raw` answers: no column `at`; did you mean `att`?",
            "8:5: feature set `cards`: `through`: what graph `raw` answers: no column `before`; there is `card_id`, `country`, `att`",
        ],
    );
    check_wrong(
        "through: raw",
        "through: seen",
        &[
            "8:5: feature set `cards`: `through`: step `kept` of graph `seen` writes into feature set `cards`, whose rows would pass the graph again",
        ],
    );
    check_wrong(
        "columns: { card: number }",
        "columns: { card: country }, event: at",
        &[
            "27:7: step `kept`: column `country` is Utf8, not Int64",
            "27:7: step `kept`: rows of feature set `cards` pass graph `raw`, which tells their time; leave `event` out",
        ],
    );
}
