//! The request log is a source of features like any other.

use std::fs;

use serde_json::{Value, json};

use super::{client::Client, path, printed, project, serving::Serving};

/// Amounts that cards pay, doubled.
const SERVED: &str = "
name: logged
graphs:
  pay:
    input: { card: int64, amount: float64 }
    steps:
      doubled: { with: { total: amount * 2.0 } }
    respond: doubled
    record: { path: log, flush: 1ms }
";

/// What was asked and answered, by card.
const LEARNED: &str = "
feature_sets:
  asked:
    keys: [input__card]
    source: log/pay
    timestamp: at
    features: { input__amount: float64, reply__total: float64 }
  newest:
    keys: [input__card]
    types: { input__card: int64 }
    features: { reply__total: float64 }
    timestamp: at
    online: { local: { path: state/newest } }
feature_vectors:
  before: { features: [asked.input__amount AS amount, asked.reply__total AS total], missing: null }
";

const REQUESTS: u32 = 100;
const CARDS: u32 = 3;

#[test]
#[cfg(unix)]
fn training_sets_and_online_sets_are_filled_from_the_request_log() {
    let folder = project(SERVED);
    let mut serving = Serving::start_with(&folder, &["--drain-delay-s", "0"]);
    let mut client = Client::connect(serving.address);
    for i in 0..REQUESTS {
        let body = json!({ "card": i % CARDS, "amount": i }).to_string();
        let answer = client.send("POST", "/v1/graphs/pay", &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    serving.terminate();
    assert!(serving.server.wait().unwrap().success());
    fs::write(path(&folder, "millstream.yaml"), SERVED.to_owned() + LEARNED).unwrap();
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());

    // What was known of a card just before each of its requests is its request before.
    let train = path(&folder, "train.jsonl");
    let query = "SELECT input__card, input__amount AS own, at - INTERVAL '1 microsecond' AS at FROM asked";
    let history = ["history", "before", "--output", &train, "--spine-sql", query, "--time", "at", "--json"];
    assert_eq!(
        told(&history),
        format!("{{\"rows\":{REQUESTS},\"nulls\":{{\"amount\":{CARDS},\"total\":{CARDS}}}}}\n")
    );
    for line in fs::read_to_string(&train).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let before = row["own"].as_f64().map(|own| own - f64::from(CARDS)).filter(|before| *before >= 0.0);
        assert_eq!(
            (row["amount"].as_f64(), row["total"].as_f64()),
            (before, before.map(|before| before * 2.0)),
            "{row}"
        );
    }

    // An online set takes each row of the log once, and has the newest of each card.
    let log = path(&folder, "log/pay");
    let counts = || serde_json::from_str::<Value>(&told(&["--json", "ingest", "newest", &log])).unwrap();
    assert_eq!(counts()["taken"], REQUESTS);
    assert_eq!(counts()["repeated"], REQUESTS);
    for card in 0..CARDS {
        let newest = (0..REQUESTS).rfind(|i| i % CARDS == card).unwrap();
        let found = told(&["--json", "get", "newest", &format!("input__card={card}")]);
        assert_eq!(
            serde_json::from_str::<Value>(&found).unwrap(),
            json!({ "input__card": card, "reply__total": f64::from(newest) * 2.0 })
        );
    }
}
