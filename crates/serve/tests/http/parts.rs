//! Replies in parts, as server-sent events: of graphs, and under the Open Inference Protocol.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    thread,
    time::Instant,
};

use millstream_serve::ConnectionLimits;
use serde_json::{Value, json};

use super::{PATIENCE, Serving, replace, served_project, short};

const EVENTS: &str = "text/event-stream";

const PROJECT: &str = "\
name: parts
graphs:
  count:
    input: { id: int64, left: int64 }
    steps: { out: { select: [id, \"left - 1 AS next\", \"left <= 1 AS done\"] } }
    respond: out
    stream: { feed: { left: next }, until: done, most: 50 }
  picky:
    input: { left: int64 }
    steps:
      known: { enrich: { set: facts, by: left, missing: fail } }
      out: { select: [\"left - 1 AS next\", \"left <= 1 AS done\"] }
    respond: out
    stream: { feed: { left: next }, until: done }
  plain:
    input: { a: int64, text: \"json?\" }
    steps: { out: { select: [\"a * 2 AS twice\", text] } }
    respond: out
feature_sets: { facts: { keys: [left], source: facts.csv } }
";

fn serves(body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), PROJECT);
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, body);
}

fn write(folder: &Path, project: &str) {
    fs::write(folder.join("facts.csv"), "left,fact\n3,1\n1,1\n").unwrap();
    replace(&folder.join("millstream.yaml"), project);
}

/// An answer that may be events, of which each has its name and its data.
struct Told {
    head: String,
    body: String,
}

impl Told {
    #[track_caller]
    fn events(&self) -> Vec<(String, Value)> {
        assert!(
            self.head.contains(" 200 ") && self.head.contains("content-type: text/event-stream"),
            "{self:?}"
        );
        for header in ["cache-control: no-cache", "x-accel-buffering: no"] {
            assert!(self.head.contains(header), "{self:?}");
        }
        let event = |text: &str| {
            let mut event = ("message".to_owned(), Value::Null);
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("event", name)) => name.clone_into(&mut event.0),
                    Some(("data", data)) => event.1 = serde_json::from_str(data).unwrap(),
                    _ => panic!("{line:?} is no field of an event"),
                }
            }
            event
        };
        self.body.split_terminator("\n\n").map(event).collect()
    }

    fn data(&self) -> Vec<Value> {
        self.events()
            .into_iter()
            .map(|(name, data)| if name == "message" { data } else { json!([name, data]) })
            .collect()
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.head, self.body)
    }
}

/// A request that asks for one answer and no more, which ends with its connection.
fn ask(serving: &Serving, path: &str, headers: &str, body: &str) -> Told {
    let mut stream = begin(serving, "1.0", path, headers, body);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Told { head: head.to_lowercase(), body: body.to_owned() }
}

fn begin(serving: &Serving, version: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(serving.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/{version}\r\nhost: test\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    stream
}

fn accept(media: &str) -> String {
    format!("accept: {media}\r\n")
}

fn graph(serving: &Serving, name: &str, body: &str) -> Told {
    ask(serving, &format!("/v1/graphs/{name}"), &accept(EVENTS), body)
}

#[test]
fn a_graph_replies_part_by_part_to_those_who_ask_for_events() {
    serves(|serving| {
        let told = graph(serving, "count", r#"{"id": 7, "left": 3}"#);
        assert_eq!(
            told.data(),
            [
                json!({ "id": 7, "next": 2, "done": false }),
                json!({ "id": 7, "next": 1, "done": false }),
                json!({ "id": 7, "next": 0, "done": true }),
                json!(["end", { "parts": 3 }]),
            ]
        );
        let named = ask(
            serving,
            "/v1/graphs/count",
            &format!("{}x-request-id: mine\r\n", accept(EVENTS)),
            r#"{"id": 1, "left": 1}"#,
        );
        assert!(
            named.head.contains("x-request-id: mine") && named.head.contains("x-millstream-version: "),
            "{named:?}"
        );
        assert_eq!(graph(serving, "count", r#"{"id": 7, "left": 1000}"#).data().len(), 51);
        assert_eq!(
            serving.metric("millstream_runs_total{graph=\"count\",outcome=\"ok\"}"),
            3 + 1 + 50,
            "each part is a run"
        );
    });
}

#[test]
fn parts_say_which_rows_they_are_once_rows_have_left() {
    serves(|serving| {
        let body = r#"[{"id": 1, "left": 1}, {"id": 2, "left": 3}, {"id": 3, "left": 2}]"#;
        let of = |id: i64, next: i64| json!({ "id": id, "next": next, "done": next == 0 });
        assert_eq!(
            graph(serving, "count", body).data(),
            [
                json!([of(1, 0), of(2, 2), of(3, 1)]),
                json!(["rows", [1, 2]]),
                json!([of(2, 1), of(3, 0)]),
                json!(["rows", [1]]),
                json!([of(2, 0)]),
                json!(["end", { "parts": 3 }]),
            ]
        );
    });
}

#[test]
fn whoever_does_not_ask_for_events_is_answered_as_ever() {
    serves(|serving| {
        let json_of = |accept: &str| {
            let told = ask(serving, "/v1/graphs/count", accept, r#"{"id": 7, "left": 3}"#);
            assert!(told.head.contains("content-type: application/json"), "{told:?}");
            serde_json::from_str::<Value>(&told.body).unwrap()
        };
        for media in
            ["application/json", "*/*", "application/json, text/event-stream", "text/event-stream;q=0"]
        {
            assert_eq!(json_of(&accept(media)), json!({ "id": 7, "next": 2, "done": false }), "{media}");
        }
        assert_eq!(json_of(""), json!({ "id": 7, "next": 2, "done": false }));
        let event = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\n";
        let told = ask(
            serving,
            "/v1/graphs/count",
            &format!("{}{event}", accept(EVENTS)),
            r#"{"id": 7, "left": 3}"#,
        );
        assert!(told.head.contains(" 406 ") && told.body.contains("not_acceptable"), "{told:?}");
    });
}

#[test]
fn a_graph_without_a_stream_has_one_part() {
    serves(|serving| {
        // Free-form values go out as they came, and no line of an event ends within them.
        let told = graph(serving, "plain", "{\"a\": 4, \"text\": {\"x\":\n\r\n [1,\n2]}}");
        assert_eq!(
            told.data(),
            [json!({ "twice": 8, "text": { "x": [1, 2] } }), json!(["end", { "parts": 1 }])]
        );
    });
}

#[test]
fn what_fails_is_an_answer_before_the_first_part_and_an_event_behind_it() {
    serves(|serving| {
        for (body, status, code) in [
            (r#"{"left": 2}"#, " 400 ", "rows"),
            (r#"{"left": "x"}"#, " 400 ", "wrong_type"),
            ("", " 400 ", "truncated"),
        ] {
            let told = graph(serving, "picky", body);
            assert!(
                told.head.contains(status) && told.head.contains("content-type: application/json"),
                "{told:?}"
            );
            let message: Value = serde_json::from_str(&told.body).unwrap();
            assert_eq!(message["code"], code, "{told:?}");
        }
        let told = graph(serving, "picky", r#"{"left": 3}"#).events();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0].1, json!({ "next": 2, "done": false }));
        assert_eq!(
            (told[1].0.as_str(), &told[1].1["code"], &told[1].1["step"]),
            ("error", &json!("rows"), &json!("known"))
        );
        assert!(told[1].1["error"].as_str().unwrap().contains("left=2"), "{told:?}");
        let unknown = graph(serving, "coun", "{}");
        assert!(
            unknown.head.contains(" 404 ") && unknown.body.contains("did you mean `count`?"),
            "{unknown:?}"
        );
    });
}

#[test]
fn the_time_of_a_request_is_that_of_all_its_parts() {
    serves(|serving| {
        let headers = format!("{}x-request-timeout-ms: 0\r\n", accept(EVENTS));
        let told = ask(serving, "/v1/graphs/count", &headers, r#"{"id": 7, "left": 3}"#);
        assert!(told.head.contains(" 504 "), "{told:?}");
    });
}

/// The head of a request, which has no body.
fn read_head(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the request has a head");
    }
}

#[test]
fn a_client_that_leaves_cancels_the_run_under_way() {
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = outside.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let project = format!(
        "name: parts
graphs:
  calls:
    input: {{ id: int64 }}
    steps:
      asked:
        remote: {{ url: \"http://127.0.0.1:{port}/{{id}}\", method: GET, output: {{ more: int64 }} }}
      out: {{ select: [more, \"more < 0 AS done\"] }}
    respond: out
    stream: {{ feed: {{ id: more }}, until: done }}
"
    );
    write(folder.path(), &project);
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, |serving| {
        let (asked, second) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            let left = scope.spawn(move || {
                let (first, _) = outside.accept().unwrap();
                let mut first = BufReader::new(first);
                read_head(&mut first);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\nconnection: close\r\n";
                write!(first.get_mut(), "{head}\r\n{{\"more\":1}}").unwrap();
                drop(first);
                let (again, _) = outside.accept().unwrap();
                again.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut again = BufReader::new(again);
                read_head(&mut again);
                asked.send(()).unwrap();
                // Nobody answers; whoever asked goes.
                matches!(again.read(&mut [0]), Ok(0))
            });
            let stream = begin(serving, "1.1", "/v1/graphs/calls", &accept(EVENTS), r#"{"id": 7}"#);
            let mut lines = BufReader::new(stream).lines();
            assert!(lines.any(|line| line.unwrap().starts_with("data: ")));
            second.recv_timeout(PATIENCE).unwrap();
            drop(lines);
            assert!(left.join().unwrap(), "the call is given up");
        });
        let start = Instant::now();
        while serving.metric("millstream_runs_total{graph=\"calls\",outcome=\"cancelled\"}") != 1 {
            assert!(start.elapsed() < PATIENCE, "the run is cancelled");
        }
    });
}

#[test]
fn a_client_that_takes_no_part_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let project = "\
name: parts
graphs:
  long:
    input: { left: int64, text: string }
    steps: { out: { select: [text, \"left - 1 AS next\", \"left <= 1 AS done\"] } }
    respond: out
    stream: { feed: { left: next }, until: done, most: 65536 }
";
    write(folder.path(), project);
    served_project(folder.path(), short(), PATIENCE, |serving| {
        // More in each part than sockets hold of a few.
        let body = json!({ "left": 65_000, "text": "x".repeat(1 << 20) }).to_string();
        let client = begin(serving, "1.1", "/v1/graphs/long", &accept(EVENTS), &body);
        serving.await_refused("slow_client", 1);
        drop(client);
    });
}

/// The tensors that a part has, by name.
fn outputs(part: &Value) -> Value {
    let outputs = part["outputs"].as_array().unwrap().iter();
    outputs.map(|output| (output["name"].as_str().unwrap().to_owned(), output["data"].clone())).collect()
}

#[test]
fn tensors_come_part_by_part() {
    serves(|serving| {
        let tensor = |name: &str, data: Value| json!({ "name": name, "datatype": "INT64", "shape": [2], "data": data });
        let body =
            json!({ "id": "9", "inputs": [tensor("id", json!([5, 6])), tensor("left", json!([1, 2]))] });
        for path in ["/v2/models/count/infer_stream", "/v2/models/count/versions/1/infer_stream"] {
            let parts = ask(serving, path, "", &body.to_string()).data();
            assert_eq!(parts.len(), 2, "{parts:?}");
            assert_eq!((&parts[0]["model_name"], &parts[0]["id"]), (&json!("count"), &json!("9")));
            assert_eq!(outputs(&parts[0]), json!({ "id": [5, 6], "next": [0, 1], "done": [true, false] }));
            assert_eq!(outputs(&parts[1]), json!({ "id": [6], "next": [0], "done": [true] }));
            assert_eq!(
                (&parts[0]["parameters"], &parts[1]["parameters"]),
                (&Value::Null, &json!({ "rows": "1" }))
            );
        }
        let left = |left: i64| {
            json!({ "inputs": [{ "name": "left", "datatype": "INT64", "shape": [1], "data": [left] }] })
                .to_string()
        };
        let failed = ask(serving, "/v2/models/picky/infer_stream", "", &left(3)).data();
        assert_eq!(failed.len(), 2);
        assert!(failed[1]["error"].as_str().unwrap().contains("left=2"), "{failed:?}");
        for (path, body, status) in [
            ("/v2/models/picky/infer_stream", left(2), " 400 "),
            ("/v2/models/count/infer_stream", r#"{"inputs": [[1, 2]]}"#.to_owned(), " 400 "),
            ("/v2/models/cont/infer_stream", left(2), " 404 "),
            ("/v2/models/count/versions/2/infer_stream", left(2), " 404 "),
        ] {
            let told = ask(serving, path, "", &body);
            assert!(told.head.contains(status) && told.body.starts_with("{\"error\":"), "{path}: {told:?}");
        }
        let config = serving.client().get("/v2/models/count/config").json();
        assert_eq!(config["model_transaction_policy"], json!({ "decoupled": true }));
        assert_eq!(
            serving.client().get("/v2/models/plain/config").json()["model_transaction_policy"],
            Value::Null
        );
        assert_eq!(
            serving.client().get("/v1/graphs/count").json()["stream"],
            json!({ "feed": { "left": "next" }, "until": "done", "most": 50 })
        );
    });
}

#[test]
fn values_come_part_by_part_as_members_of_an_object() {
    serves(|serving| {
        let part = |next: i64| json!({ "model_name": "count", "model_version": "1", "id": 3, "next": next, "done": next == 0 });
        let body = r#"{"id": 3, "parameters": {"left": 2, "temperature": 0.5}}"#;
        let told = ask(serving, "/v2/models/count/generate_stream", "", body);
        assert_eq!(told.data(), [part(1), part(0)]);
        let once = ask(serving, "/v2/models/count/generate", "", body);
        assert!(once.head.contains("content-type: application/json"), "{once:?}");
        assert_eq!(serde_json::from_str::<Value>(&once.body).unwrap(), part(1), "the graph is run once");
        let told = ask(serving, "/v2/models/picky/generate_stream", "", r#"{"left": 3}"#).data();
        assert!(told.len() == 2 && told[1]["error"].as_str().unwrap().contains("left=2"), "{told:?}");
        for (path, body, wanted) in [
            ("count/generate_stream", r#"{"left": 2}"#, "input `id` is missing"),
            ("count/generate", r#"{"id": [1, 2], "left": 2}"#, "more than 1 values"),
            ("count/generate", r#"{"id": "x", "left": 2}"#, "input `id`"),
            ("count/generate", "[1]", "must be an object"),
            ("count/generate", r#"{"parameters": 7}"#, "must be an object"),
            ("count/generate", r#"{"id": 1"#, "is no JSON"),
        ] {
            let told = ask(serving, &format!("/v2/models/{path}"), "", body);
            assert!(told.head.contains(" 400 ") && told.body.contains(wanted), "{path} {body}: {told:?}");
        }
        // What no tensor holds comes and goes as itself.
        let told = ask(serving, "/v2/models/plain/generate", "", r#"{"a": 1, "text": {"x":[1]}}"#);
        let told: Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!((&told["twice"], &told["text"]), (&json!(2), &json!("{\"x\":[1]}")), "{told}");
    });
}
