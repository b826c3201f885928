//! `millstream sql`, `batch` over the past, and `verify`.

use std::fs;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{client::Client, complaint, millstream, path, printed, project, serving::Serving};

/// Cards whose file says how they were at several times, and a graph that keeps what it served.
const PAST: &str = "\
name: past
feature_sets:
  cards:
    keys: [card_id]
    source: cards.csv
    timestamp: at
    types: { card_id: int64, avg: float64, tier: string, at: timestamp }
feature_vectors:
  known: { features: [cards.avg AS usual, cards.tier], missing: null, with: { double: usual * 2 } }
graphs:
  score:
    input: { card_id: int64, amount: float64 }
    steps:
      known: { enrich: { set: cards, missing: null } }
      scored: { with: { over: amount / avg } }
    respond: scored
  kept:
    input: { card_id: int64, amount: float64, _at: timestamp? }
    steps:
      known: { enrich: { set: cards, at: _at, missing: null } }
      scored: { with: { over: amount / avg } }
      log: { sink: { file: log/served.jsonl }, from: scored }
    respond: scored
";

const CARDS: &str = "\
card_id,avg,tier,at
7,10,basic,2026-01-01T00:00:00Z
7,20,gold,2026-01-03T00:00:00Z
8,,basic,2026-01-02T00:00:00Z
";

/// What is asked, and what the cards say at that time.
const ASKED: [(&str, &str); 6] = [
    (r#"{"card_id":7,"amount":5,"_at":"2026-01-02T00:00:00Z"}"#, r#"{"avg":10,"tier":"basic","over":0.5}"#),
    (r#"{"card_id":7,"amount":5,"_at":"2026-01-03T00:00:00Z"}"#, r#"{"avg":20,"tier":"gold","over":0.25}"#),
    (r#"{"card_id":7,"amount":5,"_at":"2025-01-01T00:00:00Z"}"#, r#"{"avg":null,"tier":null,"over":null}"#),
    (
        r#"{"card_id":8,"amount":5,"_at":"2026-01-02T00:00:00Z"}"#,
        r#"{"avg":null,"tier":"basic","over":null}"#,
    ),
    (r#"{"card_id":9,"amount":5,"_at":"2026-01-02T00:00:00Z"}"#, r#"{"avg":null,"tier":null,"over":null}"#),
    (r#"{"card_id":7,"amount":5,"_at":null}"#, r#"{"avg":null,"tier":null,"over":null}"#),
];

fn folder() -> TempDir {
    let folder = project(PAST);
    fs::write(path(&folder, "cards.csv"), CARDS).unwrap();
    let asked: Vec<_> = ASKED.iter().map(|(asked, _)| *asked).collect();
    fs::write(path(&folder, "asked.jsonl"), asked.join("\n") + "\n").unwrap();
    folder
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

/// Rows that were served: what was asked, and what was answered.
fn served() -> Vec<Map<String, Value>> {
    let row = |(asked, known): &(&str, &str)| object(asked).into_iter().chain(object(known)).collect();
    ASKED.iter().map(row).collect()
}

fn write_lines(folder: &TempDir, file: &str, rows: &[Map<String, Value>]) -> String {
    let lines: Vec<_> = rows.iter().map(|row| Value::from(row.clone()).to_string()).collect();
    fs::write(path(folder, file), lines.join("\n") + "\n").unwrap();
    path(folder, file)
}

#[test]
fn sets_are_asked_by_sql() {
    let folder = folder();
    let root = folder.path().to_str().unwrap();
    let query =
        "SELECT card_id, count(*) AS n, max(avg) AS most FROM cards GROUP BY card_id ORDER BY card_id";
    let lines = "{\"card_id\":7,\"n\":2,\"most\":20.0}\n{\"card_id\":8,\"n\":1,\"most\":null}\n";
    assert_eq!(printed(&["sql", "--project", root, query]), lines);
    for file in ["n.jsonl", "n.parquet", "n.arrow"] {
        assert_eq!(printed(&["sql", "--project", root, query, "--output", &path(&folder, file)]), "");
        assert!(fs::metadata(path(&folder, file)).unwrap().len() > 0);
    }
    assert_eq!(fs::read_to_string(path(&folder, "n.jsonl")).unwrap(), lines);
    for (query, sentence) in [
        ("SELECT * FROM card", "no feature set or vector `card`; did you mean `cards`?"),
        ("SELECT agv FROM cards", "no column `agv`; did you mean `avg`?"),
        ("SELECT * FROM cards, card WHERE x", "no feature set or vector `card`"),
        ("DROP TABLE cards", "DDL not supported"),
        ("SELEC", "SELEC"),
    ] {
        let complaint = complaint(&["sql", "--project", root, query]);
        assert!(complaint.contains(sentence), "{complaint}");
    }
}

#[test]
fn a_training_set_has_the_features_of_each_time() {
    let folder = folder();
    let root = folder.path().to_str().unwrap();
    let spine = path(&folder, "spine.csv");
    fs::write(
        &spine,
        "card_id,when\n7,2026-01-02T00:00:00Z\n7,2026-01-04T00:00:00Z\n9,2026-01-04T00:00:00Z\n",
    )
    .unwrap();
    let told = |arguments: &[&str]| {
        printed(&[&["features", "--project", root, "history", "known", "--output"], arguments].concat())
    };
    let train = path(&folder, "train.jsonl");
    let counts = told(&[&train, "--spine", &spine, "--time", "when"]);
    assert_eq!(counts, "3 rows\n  usual: 1 null\n  tier: 1 null\n  double: 1 null\n");
    let rows: Vec<_> = fs::read_to_string(&train).unwrap().lines().map(object).collect();
    let usual: Vec<_> = rows.iter().map(|row| (row["usual"].as_f64(), row["double"].as_f64())).collect();
    assert_eq!(usual, [(Some(10.0), Some(20.0)), (Some(20.0), Some(40.0)), (None, None)]);
    let query = "SELECT card_id, at FROM cards";
    let counts = told(&[&path(&folder, "train.parquet"), "--spine-sql", query, "--time", "at", "--json"]);
    assert_eq!(counts, "{\"rows\":3,\"nulls\":{\"usual\":1,\"tier\":0,\"double\":1}}\n");
    let newest = printed(&["sql", "--project", root, "SELECT usual FROM known WHERE card_id = 7"]);
    assert_eq!(newest, "{\"usual\":20.0}\n");
    for (vector, time, sentence) in [
        ("knwon", "when", "no feature vector `knwon`; did you mean `known`?"),
        ("known", "wen", "the times of the spine: no column `wen`; did you mean `when`?"),
    ] {
        let arguments = ["features", "--project", root, "history", vector, "--output", &train];
        let complaint = complaint(&[&arguments[..], &["--spine", &spine, "--time", time]].concat());
        assert!(complaint.contains(sentence), "{complaint}");
    }
}

#[test]
fn a_batch_over_the_past_reads_features_as_they_were() {
    let folder = folder();
    let root = folder.path().to_str().unwrap();
    let input = path(&folder, "asked.jsonl");
    let told = |rows: &str| {
        let arguments = ["batch", "score", "--project", root, "--input", &input, "--output", "-"];
        printed(&[&arguments[..], &["--time", "_at", "--features", "offline", "--batch", rows]].concat())
    };
    let replies: Vec<_> = told("4096").lines().map(object).collect();
    for (reply, served) in replies.iter().zip(served()) {
        for (column, value) in reply {
            assert_eq!(
                value.as_f64().map_or(value.clone(), Value::from),
                served[column].as_f64().map_or(served[column].clone(), Value::from)
            );
        }
        assert_eq!(reply.keys().collect::<Vec<_>>(), ["card_id", "amount", "avg", "tier", "over"]);
    }
    assert_eq!(replies.len(), ASKED.len());
    assert_eq!(told("1"), told("4096"));
    // Online, the set is its newest rows.
    let online =
        printed(&["batch", "score", "--project", root, "--input", &input, "--output", "-", "--time", "_at"]);
    assert_eq!(object(online.lines().next().unwrap())["tier"], "gold");
    for (arguments, sentence) in [
        (&["score", "--features", "offline"][..], "no field `_at`"),
        (&["scor", "--features", "offline", "--time", "_at"], "no graph `scor`; did you mean `score`?"),
        (&["--features", "offline", "--time", "_at"], "name one of the graphs: score, kept"),
    ] {
        let rest = ["--project", root, "--input", &input, "--output", "-"];
        let complaint = complaint(&[&["batch"], arguments, &rest].concat());
        assert!(complaint.contains(sentence), "{complaint}");
    }
    write_lines(&folder, "timeless.jsonl", &[object(r#"{"card_id":7,"amount":5}"#)]);
    let timeless = path(&folder, "timeless.jsonl");
    let rest =
        ["batch", "score", "--project", root, "--input", &timeless, "--output", "-", "--features", "offline"];
    assert!(
        complaint(&rest).contains("features of the past are read for a time; name the column that has it")
    );
}

#[test]
fn many_rows_come_out_in_their_order() {
    let folder = folder();
    let root = folder.path().to_str().unwrap();
    let rows: Vec<_> =
        (0..5000).map(|at| object(&format!(r#"{{"card_id":{},"amount":{at}}}"#, at % 10))).collect();
    let input = write_lines(&folder, "many.jsonl", &rows);
    let output =
        printed(&["batch", "score", "--project", root, "--input", &input, "--output", "-", "--batch", "7"]);
    let amounts = output.lines().map(|line| object(line)["amount"].as_f64().unwrap());
    assert!(amounts.eq((0..5000).map(f64::from)));
}

/// What `verify` prints, complains of, and ends with.
fn verified(root: &str, log: &str, more: &[&str]) -> (String, String, i32) {
    let output = millstream(&[&["verify"], more, &["--project", root, "--log", log]].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn what_was_served_is_compared_value_by_value() {
    let folder = folder();
    let root = folder.path().to_str().unwrap();
    let log = write_lines(&folder, "served.jsonl", &served());
    let (table, complaint, code) = verified(root, &log, &["score"]);
    assert_eq!((complaint.as_str(), code), ("", 0), "{table}");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["column", "rows", "equal", "different", "missing"]);
    assert_eq!(lines[3], ["avg", "6", "6", "0", "0"]);
    assert_eq!(lines.len(), 6);

    let mut tampered = served();
    tampered[1].insert("avg".into(), 20.000000000000004.into());
    tampered[4].insert("tier".into(), "gold".into());
    tampered.iter_mut().for_each(|row| drop(row.remove("over")));
    let log = write_lines(&folder, "tampered.jsonl", &tampered);
    let (table, complaint, code) = verified(root, &log, &["score"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("`over` is not in the log, so it is not compared"), "{complaint}");
    assert!(complaint.contains("2 of 24 values are not what was served"), "{complaint}");
    assert!(table.contains(&format!("avg, {log} row 1: served 20.000000000000004, now 20.0")), "{table}");
    assert!(table.contains(&format!("tier, {log} row 4: served gold, now null")), "{table}");
    let (report, ..) = verified(root, &log, &["score", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report[2]["column"], "avg");
    assert_eq!(report[2]["different"], 1);

    let (_, complaint, code) = verified(root, &path(&folder, "asked.jsonl"), &["score", "--time", "at"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("field `at`"), "{complaint}");
}

#[test]
fn the_files_of_a_sink_are_a_log_to_verify() {
    let folder = folder();
    let root = folder.path().to_str().unwrap();
    let input = path(&folder, "asked.jsonl");
    let arguments = ["batch", "kept", "--project", root, "--input", &input, "--output", "-"];
    printed(&[&arguments[..], &["--features", "offline"]].concat());
    let files = || {
        fs::read_dir(folder.path().join("log")).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>()
    };
    let [log] = &files()[..] else { panic!("{:?}", files()) };
    let text = fs::read_to_string(log).unwrap();
    assert_eq!(text.lines().count(), ASKED.len());
    let (table, complaint, code) = verified(root, log.to_str().unwrap(), &["kept"]);
    assert_eq!((complaint.as_str(), code), ("", 0), "{table}");
    assert_eq!(files().len(), 1, "what is verified is not served again");
    assert_eq!(fs::read_to_string(log).unwrap(), text);
}

/// Sets that take rows and keep their logs, one with windows, and a graph that keeps what it served.
const SKEW: &str = "\
name: skew
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64, at: int64, known: int64 }
    features: { tier: string, limit: float64 }
    timestamp: at
    created: known
    ttl: 30s
    online: { local: { path: state/cards, durability: os } }
    offline: { path: features/cards }
  payments:
    keys: [card_id]
    types: { card_id: int64, amount: float64, at: int64, known: int64 }
    features: {}
    timestamp: at
    created: known
    aggregates:
      - { column: amount, functions: [count, sum, avg, stddev, last], windows: [5s, 1h] }
    lateness: 10s
    online: { local: { path: state/payments, durability: os } }
    offline: { path: features/payments }
graphs:
  score:
    input: { card_id: int64, amount: float64, _at: int64 }
    steps:
      known: { enrich: { set: cards, at: _at, missing: null } }
      spent: { enrich: { set: payments, at: _at, missing: null } }
      scored: { with: { over: amount / amount_sum_1h } }
      log: { sink: { file: log/served.parquet }, from: scored }
    respond: scored
";

/// Pushes rows of one card, late ones and equal ones among them, and asks for it in between, as time goes on.
fn live(address: std::net::SocketAddr, card: i64, moments: i64) {
    const SECOND: i64 = 1_000_000;
    let mut client = Client::connect(address);
    let mut random = fastrand::Rng::with_seed(card as u64);
    let mut post = |path: &str, body: Value| {
        let answer = client.send("POST", path, &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    for moment in 0..moments {
        let now = 1_700_000_000 * SECOND + moment * SECOND;
        for _ in 0..random.usize(0..3) {
            let at = now - random.i64(0..15) * SECOND;
            let amount = random.f64() * 100.0;
            let row = json!({ "card_id": card, "amount": amount, "at": at, "known": now });
            post("/v1/features/payments", row);
            if random.bool() {
                let tier = ["gold", "base"][random.usize(0..2)];
                let row = json!({ "card_id": card, "tier": tier, "limit": amount, "at": at, "known": now });
                post("/v1/features/cards", row);
            }
        }
        post("/v1/graphs/score", json!({ "card_id": card, "amount": random.f64(), "_at": now }));
    }
}

/// The proof of zero skew: what was served while events came, late and in any order, is what the logs say afterwards, to the bit.
#[test]
#[cfg(unix)]
fn what_was_served_while_events_came_is_what_the_past_says() {
    let folder = project(SKEW);
    let root = folder.path().to_str().unwrap();
    let mut serving = Serving::start(&folder);
    let address = serving.address;
    std::thread::scope(|scope| {
        for card in 0..4 {
            scope.spawn(move || live(address, card, 40));
        }
    });
    serving.terminate();
    assert!(serving.server.wait().unwrap().success());
    let files = fs::read_dir(folder.path().join("log")).unwrap().map(|file| file.unwrap().path());
    let logs: Vec<_> = files.map(|file| file.to_str().unwrap().to_owned()).collect();
    let [log] = &logs[..] else { panic!("{logs:?}") };
    let (table, complaint, code) = verified(root, log, &["--json"]);
    assert_eq!((complaint.as_str(), code), ("", 0), "{table}");
    let report: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(report.as_array().unwrap().len(), 3 + 2 + 10 + 1);
    assert!(report.as_array().unwrap().iter().all(|column| column["rows"] == 160 && column["equal"] == 160));
    // There was something to compare, and it was not always the same.
    let query = "SELECT count(*) AS n, count(DISTINCT _event) AS events FROM payments";
    let kept = object(&printed(&["sql", "--project", root, query]));
    assert!(kept["n"].as_u64() > Some(100) && kept["events"].as_u64() > Some(20), "{kept:?}");

    // A batch over the past answers the same in any order, and in parts of any size.
    let told = |rows: &str| {
        let arguments =
            ["batch", "--project", root, "--input", log, "--output", "-", "--features", "offline"];
        printed(&[&arguments[..], &["--batch", rows]].concat())
    };
    assert_eq!(told("1"), told("1000"));
}
