//! The example projects as a client sees them: served on a socket, compared with the answers of the tools that their
//! models come from.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod nats;

use std::{
    collections::BTreeMap,
    fs,
    io::Cursor,
    net::{SocketAddr, TcpStream},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use client::{Answer, Client};
use millstream::{
    ARROW_STREAM, DecodeLimits, Limits, Project, Server,
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::TimestampMicrosecondType,
        ipc::{reader::StreamReader, writer::StreamWriter},
    },
    features::Stores,
    wire::{Form, json},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// How far a number may be from the expected one.
const TOLERANCE: f64 = 1e-5;

fn folder(example: &str) -> String {
    format!("{}/examples/{example}", env!("CARGO_MANIFEST_DIR"))
}

fn project(example: &str) -> &'static Project {
    static FRAUD: OnceLock<Project> = OnceLock::new();
    static LOAN: OnceLock<Project> = OnceLock::new();
    let cell = if example == "fraud" { &FRAUD } else { &LOAN };
    cell.get_or_init(|| Project::load(folder(example)).unwrap_or_else(|error| panic!("{error}")))
}

/// The lines of a data file.
fn lines(example: &str, file: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{}/data/{file}", folder(example))).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn values(example: &str, file: &str) -> Vec<Value> {
    lines(example, file).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Serves an example on a free port while `body` runs; then stops the server and waits for its end.
fn served(example: &str, body: impl FnOnce(SocketAddr)) {
    served_with(example, &Limits::default(), DecodeLimits::default(), |address, _| body(address));
}

/// `body` gets what stops the server when it is dropped.
fn served_with(
    example: &str,
    limits: &Limits,
    decode: DecodeLimits,
    body: impl FnOnce(SocketAddr, oneshot::Sender<()>),
) {
    serving(project(example), limits, decode, body);
}

fn serving(
    project: &Project,
    limits: &Limits,
    decode: DecodeLimits,
    body: impl FnOnce(SocketAddr, oneshot::Sender<()>),
) {
    let server = Server::new(project, limits, decode).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let stop = async { drop(stopped.await) };
            runtime.block_on(server.serve(listener, stop, Duration::from_secs(60))).unwrap();
        });
        body(address, stop);
        serving.join().unwrap();
    });
}

fn post(client: &mut Client, graph: &str, body: &[u8]) -> Answer {
    client.send("POST", &format!("/v1/graphs/{graph}"), &[], body)
}

fn posted(client: &mut Client, graph: &str, body: &[u8]) -> Value {
    let answer = post(client, graph, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn array(requests: &[String]) -> Vec<u8> {
    format!("[{}]", requests.join(",")).into_bytes()
}

/// Everything expected is there: numbers to within the tolerance, the rest exactly.
fn assert_close(got: &Value, expected: &Value, place: &str) {
    match (got, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= TOLERANCE, "{place}: {a} instead of {b}");
        }
        (Value::Object(got), Value::Object(expected)) => {
            for (key, expected) in expected {
                assert_close(&got[key], expected, &format!("{place}.{key}"));
            }
        }
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{place}: rows");
            for (row, (got, expected)) in got.iter().zip(expected).enumerate() {
                assert_close(got, expected, &format!("{place}[{row}]"));
            }
        }
        _ => assert_eq!(got, expected, "{place}"),
    }
}

/// Requests as an Arrow stream in batches of 300 rows.
fn arrow_stream(example: &str, requests: &[String]) -> Vec<u8> {
    let plan = project(example).plan(example).unwrap();
    let decoder = json::Decoder::new(Arc::clone(plan.input_schema()), DecodeLimits::default()).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), plan.input_schema()).unwrap();
    for part in requests.chunks(300) {
        stream.write(&decoder.decode(&array(part)).unwrap().batch).unwrap();
    }
    stream.into_inner().unwrap()
}

/// The rows of an Arrow stream as JSON.
fn rows_of(stream: &[u8]) -> Value {
    let batches: Vec<RecordBatch> =
        StreamReader::try_new(Cursor::new(stream), None).unwrap().map(Result::unwrap).collect();
    let mut rows = Vec::new();
    for batch in batches {
        let mut text = Vec::new();
        let encoder = json::Encoder::new(batch.schema()).unwrap();
        encoder.encode(&batch, Form::Array, &mut text).unwrap();
        let Value::Array(part) = serde_json::from_slice(&text).unwrap() else { panic!("no array") };
        rows.extend(part);
    }
    Value::Array(rows)
}

/// The value of a metric, summed over the lines that begin with `name`.
fn metric(client: &mut Client, name: &str) -> f64 {
    let text = client.get("/metrics").text();
    let found = text.lines().filter(|line| line.starts_with(name));
    found.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn fraud_answers_as_the_original_models_do() {
    let (requests, expected) = (lines("fraud", "requests.jsonl"), values("fraud", "expected.jsonl"));
    assert_eq!((requests.len(), expected.len()), (1000, 1000));
    served("fraud", |address| {
        let mut client = Client::connect(address);
        for (row, (request, expected)) in requests.iter().zip(&expected).enumerate() {
            assert_close(
                &posted(&mut client, "fraud", request.as_bytes()),
                expected,
                &format!("request {row}"),
            );
        }
        let expected = Value::Array(expected);
        assert_close(&posted(&mut client, "fraud", &array(&requests)), &expected, "array");

        let answer = post(&mut client, "fraud", &arrow_stream("fraud", &requests));
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, ARROW_STREAM));
        assert_close(&rows_of(&answer.body), &expected, "stream");

        assert_eq!(metric(&mut client, "millstream_rows_total{"), 3000.0);
        assert_eq!(metric(&mut client, r#"millstream_runs_total{graph="fraud",outcome="ok"}"#), 1002.0);
    });
}

/// The history of transactions as messages, each with its second.
fn transactions() -> Vec<(i64, String)> {
    let file = fs::File::open(format!("{}/data/transactions.parquet", folder("fraud"))).unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut messages = Vec::new();
    for batch in rows.map(Result::unwrap) {
        let encoder = json::Encoder::new(batch.schema()).unwrap();
        let at = batch.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let mut text = Vec::new();
            encoder.encode(&batch.slice(row, 1), Form::Object, &mut text).unwrap();
            messages.push((at.value(row) / 1_000_000, String::from_utf8(text).unwrap()));
        }
    }
    messages
}

#[test]
fn fraud_gets_its_features_from_a_stream_of_transactions() {
    let state = tempfile::tempdir().unwrap();
    let Some(nats) = nats::Server::start(state.path(), &[]) else { return };
    let text = fs::read_to_string(format!("{}/stream.yaml", folder("fraud"))).unwrap();
    let text = text.replace("nats://127.0.0.1:4222", &nats.url());
    let stores = Stores::in_folder(state.path());
    let project =
        Project::from_text(&text, folder("fraud"), &stores).unwrap_or_else(|errors| panic!("{errors}"));
    let (requests, expected) = (lines("fraud", "requests.jsonl"), values("fraud", "stream_expected.jsonl"));
    let second = |request: &String| serde_json::from_str::<Value>(request).unwrap()["ts"].as_i64().unwrap();
    let mut asked: Vec<_> = requests.iter().zip(&expected).map(|(r, e)| (second(r), r, e)).collect();
    asked.sort_by_key(|(second, ..)| *second);
    let messages = transactions();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(nats.stream(async_nats::jetstream::stream::Config::default()));
    serving(&project, &Limits::default(), DecodeLimits::default(), |address, _stop| {
        let mut client = Client::connect(address);
        let mut sent = 0;
        for (second, request, expected) in asked {
            let until = messages.partition_point(|(at, _)| *at < second);
            let new = messages[sent..until].iter().map(|(_, message)| message.clone());
            runtime.block_on(nats::publish(&stream, "tx.booked", new));
            sent = until;
            while client.get("/v1/streams").json()["streams"][0]["written"] != json!(sent) {
                thread::yield_now();
            }
            let got = posted(&mut client, "fraud", request.as_bytes());
            let wanted = json!({ "score": expected["score"], "decision": expected["decision"] });
            assert_close(&got, &wanted, request);
        }
        assert!(sent > 30_000);
    });
}

/// What the reply to a loan application must say beside the members: `failed` names the rules that it broke.
fn assert_reason(got: &Value, expected: &Value, place: &str) {
    let failed = expected["failed"].as_array().unwrap();
    let reason = got["reason"].as_str();
    assert_eq!(reason.is_some(), !failed.is_empty(), "{place}: {got}");
    for rule in failed {
        let column = format!("`{}`", rule.as_str().unwrap());
        assert!(
            reason.is_some_and(|reason| reason.contains(&column)),
            "{place}: {got} does not name {column}"
        );
    }
}

#[test]
fn loan_answers_as_the_original_models_do() {
    let (requests, wanted) = (lines("loan", "requests.jsonl"), values("loan", "expected.jsonl"));
    assert_eq!((requests.len(), wanted.len()), (400, 400));
    let mut expected = wanted.clone();
    for row in &mut expected {
        row.as_object_mut().unwrap().remove("failed");
    }
    served("loan", |address| {
        let mut client = Client::connect(address);
        for (row, request) in requests.iter().enumerate() {
            let (got, place) = (posted(&mut client, "loan", request.as_bytes()), format!("request {row}"));
            assert_close(&got, &expected[row], &place);
            assert_reason(&got, &wanted[row], &place);
        }
        assert_eq!(metric(&mut client, "millstream_step_failed_rows_total{"), 30.0);

        // One request of all rows goes through both routes and the error route at once, and keeps its order.
        let expected = Value::Array(expected);
        let got = posted(&mut client, "loan", &array(&requests));
        assert_close(&got, &expected, "array");
        let answer = post(&mut client, "loan", &arrow_stream("loan", &requests));
        assert_close(&rows_of(&answer.body), &expected, "stream");

        let mut routes = BTreeMap::new();
        for row in got.as_array().unwrap() {
            *routes.entry(row["route"].as_str().unwrap_or("none")).or_insert(0) += 1;
        }
        let mut wanted_routes = BTreeMap::new();
        for row in &wanted {
            *wanted_routes.entry(row["route"].as_str().unwrap_or("none")).or_insert(0) += 1;
        }
        assert_eq!(routes, wanted_routes);
        assert_eq!(routes["none"], 30);
        assert!(routes["large"] > 50 && routes["standard"] > 50, "{routes:?}");
    });
}

#[test]
fn a_null_and_an_absent_field_are_the_same() {
    let requests = values("loan", "requests.jsonl");
    let request =
        requests.iter().find(|request| request["driver_tenure"].is_null()).unwrap().as_object().unwrap();
    let (mut null, mut absent) = (request.clone(), request.clone());
    null.insert("driver_tenure".into(), Value::Null);
    absent.shift_remove("driver_tenure");
    served("loan", |address| {
        let mut client = Client::connect(address);
        let mut answer = |request| posted(&mut client, "loan", Value::Object(request).to_string().as_bytes());
        let answers = [answer(null), answer(absent)];
        assert_eq!(answers[0], answers[1]);
        assert_ne!(answers[0]["decision"], "manual");
    });
}

#[test]
fn rows_of_one_route_alone_and_no_rows_at_all_are_answered() {
    let (requests, expected) = (lines("loan", "requests.jsonl"), values("loan", "expected.jsonl"));
    served("loan", |address| {
        let mut client = Client::connect(address);
        for route in [Value::from("large"), Value::from("standard"), Value::Null] {
            let rows: Vec<usize> = (0..400).filter(|&row| expected[row]["route"] == route).collect();
            let body: Vec<String> = rows.iter().map(|&row| requests[row].clone()).collect();
            let got = posted(&mut client, "loan", &array(&body));
            let ids = |rows: Vec<&Value>| rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
            assert_eq!(
                ids(got.as_array().unwrap().iter().collect()),
                ids(rows.iter().map(|&row| &expected[row]).collect()),
                "{route}"
            );
        }
        assert_eq!(posted(&mut client, "loan", b"[]"), Value::Array(Vec::new()));
    });
}

/// A body, and what it is refused with: code, field, row, and a part of the sentence.
type Refusal<'a> = (&'a str, Vec<u8>, &'a str, Option<&'a str>, Option<u64>, &'a str);

#[test]
fn bad_bodies_are_refused_before_anything_runs() {
    let good = &lines("fraud", "requests.jsonl")[0];
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{good} has no {from}");
        good.replacen(from, to, 1).into_bytes()
    };
    let amount = r#""amount":197.64,"#;
    let bytes = |from: &str, to: &[u8]| {
        let at = good.find(from).unwrap();
        [&good.as_bytes()[..at], to, &good.as_bytes()[at + from.len()..]].concat()
    };
    let deep = "[".repeat(100_000);
    let second = |row: &[u8]| [b"[", good.as_bytes(), b",", row, b"]"].concat();
    #[rustfmt::skip]
    let refusals: Vec<Refusal<'_>> = vec![
        ("a text for a number", with("197.64", r#""197.64""#), "wrong_type", Some("amount"), None, "must be a number, but is a string"),
        ("null where none may be", with("197.64", "null"), "wrong_type", Some("amount"), None, "but is null"),
        ("a fraction for a whole number", with("2225", "2225.5"), "wrong_type", Some("card_id"), None, "whole number"),
        ("no field", with(amount, ""), "missing_field", Some("amount"), None, "is missing"),
        ("a misspelt field", with(r#""amount""#, r#""amuont""#), "unknown_field", Some("amuont"), None, "did you mean `amount`?"),
        ("a field twice", with(amount, r#""amount":1,"amount":2,"#), "duplicate_field", Some("amount"), None, "twice"),
        ("too large a whole number", with("2225", "99999999999999999999"), "out_of_range", Some("card_id"), None, "Int64"),
        ("too large a number", with("197.64", "1e999"), "out_of_range", Some("amount"), None, "out of range"),
        ("NaN", with("197.64", "NaN"), "malformed", Some("amount"), None, ""),
        ("bytes that are no text", bytes("fuel", b"f\xffel"), "bad_utf8", None, None, "not UTF-8 at byte 71"),
        ("half a character", with("fuel", "\\ud800"), "bad_utf8", Some("category"), None, ""),
        ("a line break in a text", with("fuel", "fu\nel"), "malformed", Some("category"), None, "control character"),
        ("half a body", good.as_bytes()[..40].to_vec(), "truncated", None, None, "ends in the middle"),
        ("no last brace", good.as_bytes()[..good.len() - 1].to_vec(), "truncated", None, None, "ends in the middle"),
        ("nothing", Vec::new(), "truncated", None, None, "body is empty"),
        ("a second object", [good.as_bytes(), good.as_bytes()].concat(), "trailing", None, None, "trailing characters"),
        ("no JSON", b"hello".to_vec(), "malformed", None, None, ""),
        ("no object", b"1".to_vec(), "wrong_type", None, None, "must be an object or an array of objects"),
        ("an endless body", deep.clone().into_bytes(), "wrong_type", None, Some(0), "must be an object, but is an array"),
        ("an endless value", with("197.64", &deep), "wrong_type", Some("amount"), None, "must be a number"),
        ("a bad second row", second(&with("197.64", "true")), "wrong_type", Some("amount"), Some(1), "row 1: field `amount`"),
        ("an empty second row", second(b"{}"), "missing_field", Some("txn_id"), Some(1), ""),
        ("a second row that is none", second(b"7"), "wrong_type", None, Some(1), ""),
        ("half a stream", arrow_stream("fraud", std::slice::from_ref(good))[..100].to_vec(), "truncated", None, None, "ends in the middle"),
        ("noise that begins as a stream", [&[0xff; 4], &[0; 64][..]].concat(), "trailing", None, None, ""),
    ];
    served("fraud", |address| {
        let mut client = Client::connect(address);
        for (what, body, code, field, row, sentence) in refusals {
            let answer = post(&mut client, "fraud", &body);
            let error = answer.json();
            assert_eq!(answer.status, 400, "{what}: {error}");
            assert_eq!(error["code"], code, "{what}: {error}");
            assert_eq!(error["field"].as_str(), field, "{what}: {error}");
            assert_eq!(error["row"].as_u64(), row, "{what}: {error}");
            assert!(error["error"].as_str().unwrap().contains(sentence), "{what}: {error}");
        }
        assert_eq!(metric(&mut client, "millstream_runs_total{"), 0.0);
        assert_eq!(metric(&mut client, "millstream_rows_total{"), 0.0);
        assert_eq!(posted(&mut client, "fraud", good.as_bytes())["decision"], "approve");
    });
}

#[test]
fn requests_that_come_together_are_answered_as_if_each_were_alone() {
    let (requests, expected) = (lines("fraud", "requests.jsonl"), values("fraud", "expected.jsonl"));
    served("fraud", |address| {
        thread::scope(|scope| {
            for caller in 0..16 {
                let (requests, expected) = (&requests, &expected);
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for at in (caller..requests.len()).step_by(16) {
                        // Every now and then one that a step refuses, whoever travels with it.
                        if at % 37 == 0 {
                            let answer =
                                post(&mut client, "fraud", requests[0].replace("fuel", "food").as_bytes());
                            assert_eq!((answer.status, answer.json()["step"].as_str()), (400, Some("known")));
                        }
                        let answer = posted(&mut client, "fraud", requests[at].as_bytes());
                        assert_close(&answer, &expected[at], &format!("request {at}"));
                    }
                });
            }
        });
        let mut client = Client::connect(address);
        let refused = requests.len().div_ceil(37) as f64;
        assert_eq!(metric(&mut client, "millstream_rows_total{"), requests.len() as f64 + refused);
        assert_eq!(metric(&mut client, "millstream_step_errors_total{"), refused, "counted once each");
        assert_eq!(metric(&mut client, "millstream_runs_in_flight{"), 0.0);
    });
}

#[test]
fn an_engine_that_is_full_refuses_before_it_reads_a_body() {
    let limits = Limits { runs: 0, ..Limits::default() };
    let good = &lines("fraud", "requests.jsonl")[0];
    served_with("fraud", &limits, DecodeLimits::default(), |address, _stop| {
        let mut client = Client::connect(address);
        for body in [good.as_bytes(), b"no JSON at all"] {
            let answer = post(&mut client, "fraud", body);
            assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("overloaded")));
            assert_eq!(answer.headers["retry-after"], "1");
        }
        assert_eq!(metric(&mut client, "millstream_runs_total{graph=\"fraud\",outcome=\"refused\"}"), 2.0);
    });
}

#[test]
fn a_body_for_which_there_is_no_room_is_refused_and_counted() {
    let limits = Limits { bytes: 100, ..Limits::default() };
    let good = &lines("fraud", "requests.jsonl")[0];
    served_with("fraud", &limits, DecodeLimits::default(), |address, _stop| {
        let mut client = Client::connect(address);
        let answer = post(&mut client, "fraud", good.as_bytes());
        assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("overloaded")));
        assert_eq!(metric(&mut client, "millstream_runs_total{graph=\"fraud\",outcome=\"refused\"}"), 1.0);
    });
}

#[test]
fn bodies_beyond_the_limits_are_refused() {
    let requests = lines("fraud", "requests.jsonl");
    let decode = DecodeLimits { body_bytes: 1000, rows: 3, ..DecodeLimits::default() };
    served_with("fraud", &Limits::default(), decode, |address, _stop| {
        for (body, code) in [(array(&requests[..6]), "too_large"), (array(&requests[..4]), "too_many_rows")] {
            // The rest of a body that is too large is not read, so its connection cannot be used again.
            let answer = post(&mut Client::connect(address), "fraud", &body);
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (413, Some(code)),
                "{}",
                answer.text()
            );
        }
        let answer = posted(&mut Client::connect(address), "fraud", &array(&requests[..3]));
        assert_eq!(answer.as_array().unwrap().len(), 3);
    });
}

#[test]
fn rows_that_the_graph_cannot_take_name_the_step() {
    let good = &lines("fraud", "requests.jsonl")[0];
    served("fraud", |address| {
        let mut client = Client::connect(address);
        for (body, step, sentence) in [
            (good.replace("2225,", "999999,"), "enriched", "card_id=999999"),
            (good.replace("fuel", "food"), "known", "'food'"),
        ] {
            let answer = post(&mut client, "fraud", body.as_bytes());
            let error = answer.json();
            assert_eq!(
                (answer.status, error["code"].as_str(), error["step"].as_str()),
                (400, Some("rows"), Some(step))
            );
            assert!(error["error"].as_str().unwrap().contains(sentence), "{error}");
        }
    });
}

#[test]
fn a_server_describes_itself() {
    served("fraud", |address| {
        let mut client = Client::connect(address);
        for (path, text) in [("/livez", "ok"), ("/readyz", "ready")] {
            let answer = client.get(path);
            assert_eq!((answer.status, answer.text().as_str()), (200, text), "{path}");
        }
        let graphs = client.get("/v1/graphs").json();
        assert_eq!(graphs["project"], "fraud");
        assert_eq!(graphs["graphs"][0]["url"], "/v1/graphs/fraud");

        let graph = client.get("/v1/graphs/fraud").json();
        assert_eq!(graph["input"][2], serde_json::json!({ "name": "amount", "type": "float64" }));
        let reply: Vec<_> =
            graph["reply"].as_array().unwrap().iter().map(|column| column["name"].as_str()).collect();
        assert_eq!(reply, [Some("score"), Some("decision"), Some("models")]);
        assert!(graph["mermaid"].as_str().unwrap().starts_with("flowchart"), "{graph}");
        let kinds = graph["steps"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap());
        assert_eq!(kinds.filter(|kind| *kind == "model").count(), 3);

        let openapi = client.get("/openapi.json").json();
        assert_eq!(openapi["openapi"], "3.1.0");
        assert!(openapi["paths"]["/v1/graphs/fraud"]["post"].is_object());
        let request = &openapi["components"]["schemas"]["fraud.Request"];
        assert_eq!(request["required"].as_array().unwrap().len(), 10, "{request}");
        assert_eq!(request["additionalProperties"], false, "{request}");

        let metrics = client.get("/metrics");
        assert!(metrics.headers["content-type"].starts_with("text/plain"), "{:?}", metrics.headers);
        assert!(metrics.text().contains("# TYPE millstream_run_seconds histogram"), "{}", metrics.text());
    });
}

#[test]
fn wrong_routes_and_methods_are_refused_in_json() {
    served("fraud", |address| {
        for (method, path, status, code, sentence) in [
            ("GET", "/v1/graphs/fruad", 404, "unknown_graph", "did you mean `fraud`?"),
            ("POST", "/v1/graphs/fruad", 404, "unknown_graph", "did you mean `fraud`?"),
            ("GET", "/v3", 404, "unknown_route", "/openapi.json"),
            ("DELETE", "/v1/graphs/fraud", 405, "method_not_allowed", "GET and POST"),
            ("POST", "/v1/graphs", 405, "method_not_allowed", "GET"),
        ] {
            let answer = Client::connect(address).send(method, path, &[], b"");
            let error = answer.json();
            assert_eq!(
                (answer.status, error["code"].as_str()),
                (status, Some(code)),
                "{method} {path}: {error}"
            );
            assert!(error["error"].as_str().unwrap().contains(sentence), "{method} {path}: {error}");
            assert_eq!(
                answer.headers.contains_key("allow"),
                status == 405,
                "{method} {path}: {:?}",
                answer.headers
            );
        }
    });
}

#[test]
fn headers_set_the_deadline_the_form_and_the_name() {
    let request = &lines("fraud", "requests.jsonl")[0];
    served("fraud", |address| {
        let mut client = Client::connect(address);
        let mut send =
            |headers: &[(&str, &str)]| client.send("POST", "/v1/graphs/fraud", headers, request.as_bytes());
        let late = send(&[("x-request-timeout-ms", "0")]);
        assert_eq!(
            (late.status, late.json()["code"].as_str()),
            (504, Some("deadline_exceeded")),
            "{}",
            late.text()
        );
        let never = send(&[("x-request-timeout-ms", "18446744073709551615")]);
        assert_eq!(never.status, 200, "{}", never.text());
        let unclear = send(&[("x-request-timeout-ms", "soon")]);
        assert_eq!(
            (unclear.status, unclear.json()["code"].as_str()),
            (400, Some("malformed")),
            "{}",
            unclear.text()
        );

        let arrow = send(&[("accept", ARROW_STREAM), ("x-request-id", "mine")]);
        assert_eq!((arrow.status, arrow.headers["content-type"].as_str()), (200, ARROW_STREAM));
        assert_eq!(arrow.headers["x-request-id"], "mine");
        assert_close(&rows_of(&arrow.body)[0], &values("fraud", "expected.jsonl")[0], "stream");

        let stream = arrow_stream("fraud", std::slice::from_ref(request));
        let json = client.send("POST", "/v1/graphs/fraud", &[("accept", "application/json")], &stream);
        assert_eq!(json.headers["content-type"], "application/json");
        assert_close(&json.json()[0], &values("fraud", "expected.jsonl")[0], "json");
    });
}

#[test]
fn a_server_that_stops_answers_what_is_under_way() {
    let request = &lines("fraud", "requests.jsonl")[0];
    served_with("fraud", &Limits::default(), DecodeLimits::default(), |address, stop| {
        let mut idle = Client::connect(address);
        assert_eq!(idle.get("/readyz").status, 200);
        let mut busy = Client::connect(address);
        let head = "POST /v1/graphs/fraud HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n";
        busy.write(format!("{head}content-length: {}\r\n\r\n", request.len()).as_bytes());
        // From here on the server is waiting for the body: the request is under way.
        assert_eq!(busy.read().status, 100);
        drop(stop);
        // The server lets go of its port before it waits for anything.
        while TcpStream::connect(address).is_ok() {
            thread::yield_now();
        }
        // What still comes on an open connection is answered, and told to go elsewhere next.
        let last = idle.get("/readyz");
        assert_eq!((last.status, last.headers["connection"].as_str()), (503, "close"));
        assert!(idle.is_closed());
        busy.write(request.as_bytes());
        let answer = busy.read();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_close(&answer.json(), &values("fraud", "expected.jsonl")[0], "last answer");
        assert!(busy.is_closed());
    });
}
