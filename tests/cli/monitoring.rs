//! What is watched of a graph that is served: counts, drift, alerts, the request log, and what is made of them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::mpsc::{Receiver, sync_channel},
};

use millstream::arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{client::Client, complaint, path, printed, project, serving::Serving};

const PROJECT: &str = r#"
name: watched
monitoring:
  path: kept
  pane: 1s
  alerts:
    amount_drifts:
      when: { metric: drifted, graph: pay, column: amount, above: 0.5 }
      severity: high
      reset: manual
      summary: "{{column}} of {{graph}} drifts"
      notify: [{ webhook: { url: HOOK } }]
graphs:
  pay:
    input: { id: int64, amount: float64?, country: string }
    steps:
      taxed: { with: { total: amount * 1.5 } }
    respond: taxed
    monitor:
      input:
        columns: [amount, country]
        reference: train.csv
        segments: [country]
        rules: { amount: { nulls: 0.1, max: 1000 } }
      taxed: { columns: [total] }
    record: { path: log, flush: 1ms, hash: [country], secret: "env:MILLSTREAM_TEST_SECRET" }
"#;

/// A training set of amounts from 0 to 99, in two countries.
fn watched(hook: &str) -> TempDir {
    let folder = project(&PROJECT.replace("HOOK", hook));
    let rows: String = (0..1000_usize)
        .map(|i| format!("{},{}\n", i % 100, if i.is_multiple_of(2) { "de" } else { "fr" }))
        .collect();
    fs::write(folder.path().join("train.csv"), format!("amount,country\n{rows}")).unwrap();
    folder
}

fn served(folder: &TempDir) -> Serving {
    Serving::start_with_env(
        folder,
        &["--drain-delay-s", "0"],
        &[("MILLSTREAM_TEST_SECRET", "sixteen bytes or more")],
    )
}

/// Sends rows whose amounts lie higher by `shift`.
fn send(client: &mut Client, rows: usize, shift: usize) {
    let row = |i: usize| json!({ "id": i, "amount": i % 100 + shift, "country": if i.is_multiple_of(2) { "de" } else { "fr" } });
    for start in (0..rows).step_by(100) {
        let body = Value::from((start..start + 100).map(row).collect::<Vec<_>>()).to_string();
        let id = format!("call-{start}");
        let answer = client.send("POST", "/v1/graphs/pay", &[("x-request-id", &id)], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// What is known of the graph, once `known` says that it is enough.
fn report(client: &mut Client, known: impl Fn(&Value) -> bool) -> Value {
    loop {
        let answer = client.get("/v1/graphs/pay/monitor");
        if answer.status == 200 && known(&answer.json()) {
            return answer.json();
        }
    }
}

fn column<'r>(report: &'r Value, edge: &str, name: &str) -> &'r Value {
    let edges = report["edges"].as_array().unwrap();
    let edge = edges.iter().find(|found| found["edge"] == edge).unwrap();
    edge["columns"].as_array().unwrap().iter().find(|found| found["column"] == name).unwrap()
}

/// A receiver of messages: what it was sent, one body after the other.
fn hook() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, receiver) = sync_channel(16);
    std::thread::Builder::new()
        .spawn(move || {
            for stream in listener.incoming() {
                let Some(body) = received(stream.unwrap()) else { continue };
                if sender.send(body).is_err() {
                    return;
                }
            }
        })
        .unwrap();
    (url, receiver)
}

fn received(stream: TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn rows_that_drift_are_seen_and_raise_one_alert() {
    let (url, messages) = hook();
    let folder = watched(&url);
    let mut serving = served(&folder);
    let mut client = Client::connect(serving.address);
    send(&mut client, 1000, 0);
    let steady = report(&mut client, |report| report["requests"] == 10);
    let amount = column(&steady, "input", "amount");
    assert_eq!((&amount["rows"], &amount["drifted"]), (&json!(1000), &json!(false)));
    assert_eq!(amount["measures"][0]["name"], "psi");
    assert_eq!(column(&steady, "taxed", "total")["drifted"], Value::Null);
    assert_eq!(amount["segments"].as_array().unwrap().len(), 2);
    assert!(amount["quality"].as_array().unwrap().iter().all(|rule| rule["ok"] == true));

    send(&mut client, 4000, 40);
    let drifted = report(&mut client, |report| report["requests"] == 50);
    let amount = column(&drifted, "input", "amount");
    assert_eq!((&amount["drifted"], &drifted["drifted_columns"]), (&json!(true), &json!(1)));
    assert_eq!(column(&drifted, "input", "country")["drifted"], false);

    let message = messages.recv().unwrap();
    assert_eq!(
        (&message["status"], &message["alerts"][0]["labels"]["column"]),
        (&json!("firing"), &json!("amount"))
    );
    // Requests that show it, by the log: their amounts are where there were few before.
    let examples = message["alerts"][0]["evidence"]["examples"].as_array().unwrap();
    assert!((1..=5).contains(&examples.len()), "{message}");
    for example in examples {
        let [id, value] = ["request_id", "value"].map(|key| &example[key]);
        assert!(id.as_str().unwrap().starts_with("call-") && value.as_f64().unwrap() >= 85.0, "{message}");
        assert_eq!(example.as_object().unwrap().keys().collect::<Vec<_>>(), ["request_id", "row", "value"]);
    }
    let metrics = client.get("/metrics").text();
    for line in [
        "millstream_monitor_drifted{column=\"amount\",edge=\"input\",graph=\"pay\"} 1",
        "ALERTS{alertname=\"amount_drifts\",alertstate=\"firing\"",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let page = client.get("/v1/graphs/pay/monitor/report");
    assert!(page.text().contains("<bdi>amount</bdi>"), "{}", page.text());

    // What was counted and raised is there again after the next start, and the alert is not told of twice.
    serving.terminate();
    assert!(serving.server.wait().unwrap().success());
    let serving = served(&folder);
    let mut client = Client::connect(serving.address);
    let again = report(&mut client, |_| true);
    assert_eq!(again["requests"], 50);
    assert_eq!(again["alerts"][0]["state"], "firing");
    let reset = client.send("POST", "/v1/alerts/amount_drifts/reset", &[], b"");
    assert_eq!(reset.json(), json!({ "reset": 1 }));
}

#[test]
fn what_replicas_have_kept_adds_up_to_a_report() {
    let folders = [(0, 1000), (40, 3000)].map(|(shift, rows)| {
        let folder = watched("http://127.0.0.1:9/");
        let mut serving = served(&folder);
        send(&mut Client::connect(serving.address), rows, shift);
        serving.terminate();
        assert!(serving.server.wait().unwrap().success());
        folder
    });
    let panes: Vec<String> = folders.iter().map(|folder| path(folder, "kept/pay.panes")).collect();
    let (html, json) = (path(&folders[0], "out.html"), path(&folders[0], "out.json"));
    let project = folders[0].path().to_str().unwrap();
    let arguments = [
        "monitor",
        "report",
        "pay",
        "--project",
        project,
        "--panes",
        &panes[0],
        "--panes",
        &panes[1],
        "--html",
        &html,
        "--json",
        &json,
    ];
    let printed = super::printed_with(&arguments, &[("MILLSTREAM_TEST_SECRET", "sixteen bytes or more")]);
    assert_eq!(printed, "1 of 3 columns drifted: amount.\n");
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(
        (&report["requests"], &column(&report, "input", "amount")["rows"]),
        (&json!(40), &json!(4000))
    );
    assert!(fs::read_to_string(html).unwrap().starts_with("<!DOCTYPE html>"));
}

#[test]
fn files_of_rows_are_compared_and_statistics_stand_for_a_training_set() {
    let folder = watched("http://127.0.0.1:9/");
    let rows: String =
        (0..500).map(|i| format!("{},{}\n", i % 100 + 50, if i % 9 == 0 { "it" } else { "de" })).collect();
    fs::write(folder.path().join("live.csv"), format!("amount,country\n{rows}")).unwrap();
    let [train, live, statistics] =
        ["train.csv", "live.csv", "statistics.json"].map(|file| path(&folder, file));
    assert_eq!(printed(&["monitor", "profile", &train, "--out", &statistics]), "1000 rows\n");
    for reference in [&train, &statistics] {
        assert_eq!(
            printed(&["monitor", "compare", reference, &live]),
            "2 of 2 columns drifted: country, amount.\n"
        );
    }
}

#[test]
fn statistics_of_a_model_are_written_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("models/tree/1");
    fs::create_dir_all(&version).unwrap();
    let text = "models: { tree: { path: models/tree/1/model.onnx }, odd: { path: odd.onnx, statistics: train.csv } }";
    fs::write(folder.path().join("millstream.yaml"), text).unwrap();
    fs::write(folder.path().join("train.csv"), "amount\n1.5\n2.5\n").unwrap();
    let (train, project) = (path(&folder, "train.csv"), folder.path().to_str().unwrap());
    let asked = |model| ["monitor", "profile", &train, "--model", model, "--project", project];
    let told = printed(&asked("tree"));
    assert!(told.ends_with("statistics.json: 2 rows\n"), "{told}");
    assert!(fs::read_to_string(version.join("statistics.json")).unwrap().contains("millstream_statistics"));
    for (model, expected) in [("trees", "did you mean `tree`?"), ("odd", "it is no .json file")] {
        let complaint = complaint(&asked(model));
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[test]
fn mistakes_in_what_is_to_be_watched_are_all_named() {
    let folder = project(
        &PROJECT
            .replace("HOOK", "http://127.0.0.1:9/")
            .replace("columns: [amount, country]", "columns: [amout]")
            .replace("train.csv", "gone.csv")
            .replace("{ nulls: 0.1, max: 1000 }", "{ nulls: 7 }")
            .replace("taxed: { columns: [total] }", "taxd: {}")
            .replace("pane: 1s", "pane: 7s")
            .replace("column: amount, above", "colum: amount, over"),
    );
    let complaint = complaint(&["validate", folder.path().to_str().unwrap()]);
    for part in [
        "no column `amout`; did you mean `amount`?",
        "gone.csv: cannot be read",
        "`nulls` is a share between 0 and 1",
        "`taxd`",
        "a pane is from 1s to 1m long",
    ] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

#[test]
fn requests_are_logged_with_what_each_step_answered_and_personal_columns_only_as_digests() {
    let folder = watched("http://127.0.0.1:9/");
    let mut serving = served(&folder);
    send(&mut Client::connect(serving.address), 200, 0);
    serving.terminate();
    assert!(serving.server.wait().unwrap().success());
    let mut rows = 0;
    for file in files(&folder.path().join("log/pay")) {
        let file = fs::File::open(&file).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            for name in ["request_id", "input__amount", "reply__total"] {
                assert!(batch.column_by_name(name).is_some_and(|column| column.null_count() == 0), "{name}");
            }
            let countries = batch.column_by_name("input__country").unwrap().as_string::<i32>();
            assert!(countries.iter().flatten().all(|country| country.len() == 64));
            rows += batch.num_rows();
        }
    }
    assert_eq!(rows, 200);
}

/// Every Parquet file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}
