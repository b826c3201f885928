//! What a server tells of its requests: traces as a collector receives them, and figures as those who look on get them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use client::Client;
use millstream::{DecodeLimits, Limits, Observe, Project, Server, Traces};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{ResourceSpans, Span},
};
use prost::Message;
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot};

const GRACE: Duration = Duration::from_secs(60);

const PROJECT: &str = "\
name: shop
graphs:
  pay:
    input: { id: int64, amount: float64 }
    steps:
      checked:
        validate: { columns: { amount: [{ range: { min: 0 } }] } }
      doubled:
        with: { twice: amount * 2 }
    respond: doubled
";

/// Serves the project on a free port while `body` runs, then stops the server and waits for its end.
fn served(observe: Observe, body: impl FnOnce(SocketAddr)) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("millstream.yaml"), PROJECT).unwrap();
    let project = Project::load(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let server = Server::new(&project, &Limits::default(), DecodeLimits::default()).unwrap();
    let server = server.observe(observe).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let stop = async { drop(stopped.await) };
            runtime.block_on(server.serve(listener, stop, GRACE)).unwrap();
        });
        body(address);
        drop(stop);
        serving.join().unwrap();
    });
}

type Received = Arc<Mutex<Vec<ResourceSpans>>>;

async fn receive(State(received): State<Received>, body: Bytes) {
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    received.lock().unwrap().extend(message.resource_spans);
}

/// The spans that a collector has received when a server has ended to which `body` sent requests.
fn collected(sample: f64, body: impl FnOnce(SocketAddr)) -> Vec<Span> {
    let received = Received::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&received));
    let (stop, stopped) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let collecting = scope.spawn(move || {
            let stop = async { drop(stopped.await) };
            runtime
                .block_on(axum::serve(listener, router).with_graceful_shutdown(stop).into_future())
                .unwrap();
        });
        let traces = Traces { endpoint, sample, service: "shop".to_owned() };
        served(Observe { traces: Some(traces), access_log: false }, body);
        drop(stop);
        collecting.join().unwrap();
    });
    let received = std::mem::take(&mut *received.lock().unwrap());
    for part in &received {
        let attributes = &part.resource.as_ref().unwrap().attributes;
        let service = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
        assert_eq!(service.value.as_ref().unwrap().value, Some(Value::StringValue("shop".to_owned())));
    }
    received.into_iter().flat_map(|part| part.scope_spans).flat_map(|part| part.spans).collect()
}

/// An attribute as text; empty when the span does not have it.
fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// Sends a request and answers its status.
fn pay(client: &mut Client, headers: &[(&str, &str)], body: &str) -> u16 {
    client.send("POST", "/v1/graphs/pay", headers, body.as_bytes()).status
}

#[test]
fn a_sampled_request_is_a_span_of_its_callers_trace_and_each_step_a_span_of_the_requests() {
    let spans = collected(0.0, |address| {
        let (parent, mut client) = (parent("01"), Client::connect(address));
        let headers = [("traceparent", &*parent), ("tracestate", "vendor=7"), ("x-request-id", "r-1")];
        assert_eq!(pay(&mut client, &headers, r#"[{"id":1,"amount":2},{"id":2,"amount":3}]"#), 200);
    });
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE && span.trace_state == "vendor=7"));
    let (requests, steps): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.name.starts_with("POST"));
    let [request] = requests[..] else { panic!("{requests:?}") };
    assert_eq!(
        (request.name.as_str(), hex(&request.parent_span_id).as_str()),
        ("POST /v1/graphs/pay", CALLER)
    );
    let of_request = ["http.response.status_code", "millstream.rows", "millstream.request_id", "error.type"];
    assert_eq!(of_request.map(|key| attribute(request, key)), ["200", "2", "r-1", ""]);
    assert_eq!(
        steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(),
        ["checked", "doubled", "respond"]
    );
    for step in steps {
        assert_eq!(step.parent_span_id, request.span_id, "{step:?}");
        let of_step =
            ["millstream.graph", "millstream.step", "millstream.step.rows", "millstream.shared.requests"];
        assert_eq!(of_step.map(|key| attribute(step, key)), ["pay", &step.name, "2", "1"]);
        assert!(request.start_time_unix_nano <= step.start_time_unix_nano, "{step:?}");
        assert!(step.start_time_unix_nano <= step.end_time_unix_nano, "{step:?}");
        assert!(step.end_time_unix_nano <= request.end_time_unix_nano, "{step:?}");
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), spans.len(), "no two spans have one id");
}

#[test]
fn a_request_of_the_open_inference_protocol_is_traced_as_any() {
    let spans = collected(1.0, |address| {
        let mut client = Client::connect(address);
        let tensor = |name: &str, datatype: &str| json!({ "name": name, "datatype": datatype, "shape": [1], "data": [2] });
        let body = json!({ "inputs": [tensor("id", "INT64"), tensor("amount", "FP64")] });
        for (path, status) in [("/v2/models/pay/infer", 200), ("/v2/models/pya/infer", 404)] {
            let headers = [("x-request-id", "r-2")];
            assert_eq!(client.send("POST", path, &headers, body.to_string().as_bytes()).status, status);
        }
    });
    let requests: Vec<_> = spans.iter().filter(|span| span.name.starts_with("POST")).collect();
    let [request] = requests[..] else { panic!("{requests:?}") };
    let keys = ["http.route", "millstream.graph", "millstream.rows", "millstream.request_id"];
    assert_eq!(keys.map(|key| attribute(request, key)), ["/v2/models/pay/infer", "pay", "1", "r-2"]);
    assert_eq!((request.name.as_str(), spans.len()), ("POST /v2/models/pay/infer", 4));
}

#[test]
fn a_request_that_is_not_sampled_exports_nothing() {
    let none = collected(0.0, |address| {
        let mut client = Client::connect(address);
        for headers in [&[][..], &[("traceparent", &*parent("00"))], &[("traceparent", "nonsense")]] {
            assert_eq!(pay(&mut client, headers, r#"{"id":1,"amount":2}"#), 200);
        }
    });
    assert_eq!(none, []);
    let decided_by_the_caller = collected(1.0, |address| {
        assert_eq!(
            pay(&mut Client::connect(address), &[("traceparent", &parent("00"))], r#"{"id":1,"amount":2}"#),
            200
        );
    });
    assert_eq!(decided_by_the_caller, []);
}

#[test]
fn what_fails_says_so_in_its_spans() {
    let spans = collected(1.0, |address| {
        let mut client = Client::connect(address);
        assert_eq!(pay(&mut client, &[], r#"{"id":1,"amount":-2}"#), 400);
        assert_eq!(pay(&mut client, &[], r#"{"id":1}"#), 400);
        assert_eq!(client.get("/v1/graphs/pay").status, 200, "what runs nothing is not traced");
    });
    let told: Vec<_> = spans
        .iter()
        .map(|span| {
            let error = span.status.as_ref().map_or("", |status| status.message.as_str());
            (span.name.as_str(), attribute(span, "error.type"), error.to_owned())
        })
        .collect();
    let told: Vec<_> =
        told.iter().map(|(name, kind, error)| (*name, kind.as_str(), error.as_str())).collect();
    assert_eq!(
        told,
        [
            ("checked", "rows", "rows"),
            ("POST /v1/graphs/pay", "rows", ""),
            ("POST /v1/graphs/pay", "missing_field", ""),
        ]
    );
    assert_eq!(
        spans.iter().map(|span| &span.trace_id).collect::<BTreeSet<_>>().len(),
        2,
        "a trace per request"
    );
    assert!(spans[1].parent_span_id.is_empty() && spans[1].trace_id.iter().any(|byte| *byte != 0));
}

#[test]
fn requests_that_share_a_run_keep_their_traces() {
    const CALLERS: usize = 16;
    const EACH: usize = 20;
    let spans = collected(1.0, |address| {
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for _ in 0..EACH {
                        assert_eq!(pay(&mut client, &[], r#"{"id":1,"amount":2}"#), 200);
                    }
                });
            }
        });
    });
    let mut traces: BTreeMap<_, Vec<&Span>> = BTreeMap::new();
    spans.iter().for_each(|span| traces.entry(&span.trace_id).or_default().push(span));
    assert_eq!(traces.len(), CALLERS * EACH);
    for spans in traces.values() {
        let names: BTreeSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["POST /v1/graphs/pay", "checked", "doubled", "respond"].into());
        assert_eq!(spans.len(), 4, "each once");
        for step in spans.iter().filter(|span| !span.name.starts_with("POST")) {
            let rows = ["millstream.step.rows", "millstream.shared.requests", "millstream.shared.rows"];
            let [given, requests, together] = rows.map(|key| attribute(step, key).parse::<usize>().unwrap());
            assert!(
                (1..=CALLERS).contains(&requests) && requests == together && given == together,
                "{step:?}"
            );
        }
    }
}

#[test]
fn a_collector_that_is_down_harms_no_request() {
    let traces = Traces {
        endpoint: "http://127.0.0.1:1/v1/traces".parse().unwrap(),
        sample: 1.0,
        service: "s".into(),
    };
    served(Observe { traces: Some(traces), access_log: false }, |address| {
        let mut client = Client::connect(address);
        for _ in 0..100 {
            assert_eq!(pay(&mut client, &[], r#"{"id":1,"amount":2}"#), 200);
        }
        assert!(
            client.get("/metrics").text().contains("millstream_trace_spans_total{outcome=\"dropped\"} 0")
        );
    });
}

#[test]
fn traces_cannot_go_where_tls_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("millstream.yaml"), PROJECT).unwrap();
    let project = Project::load(folder.path()).unwrap();
    for endpoint in ["https://collector/v1/traces", "/v1/traces"] {
        let server = Server::new(&project, &Limits::default(), DecodeLimits::default()).unwrap();
        let traces = Traces { endpoint: endpoint.parse().unwrap(), sample: 1.0, service: "s".into() };
        let refused = server.observe(Observe { traces: Some(traces), access_log: false }).err().unwrap();
        assert!(refused.to_string().contains("such as http://127.0.0.1:4318"), "{refused}");
    }
}

#[test]
fn the_last_seconds_of_a_graph_are_figures() {
    served(Observe::default(), |address| {
        let mut client = Client::connect(address);
        for amount in [1, 2, -3] {
            let amount = format!(r#"{{"id":1,"amount":{amount}}}"#);
            pay(&mut client, &[], &amount);
        }
        let answer = client.get("/v1/graphs/pay/stats");
        assert_eq!(answer.headers["content-type"], "application/json");
        let stats = answer.json();
        assert_eq!((&stats["graph"], &stats["ok"], &stats["failed"]), (&json!("pay"), &json!(2), &json!(1)));
        assert_eq!(
            (&stats["in_flight"], &stats["waiting"], &stats["rows_per_run"]),
            (&json!(0), &json!(0), &json!(1.0))
        );
        assert_eq!(stats["latency_seconds"]["count"], 3);
        assert!(stats["requests_per_second"].as_f64().unwrap() > 0.0, "{stats}");
        let checked = &stats["steps"][0];
        assert_eq!(
            (&checked["name"], &checked["kind"], &checked["seconds"]["count"]),
            (&json!("checked"), &json!("validate"), &json!(3))
        );
        assert_eq!(checked["errors"], 1, "{checked}");
        let shares = stats["steps"].as_array().unwrap().iter().map(|step| step["share"].as_f64().unwrap());
        assert!((shares.sum::<f64>() - 1.0).abs() < 1e-9, "{stats}");
        let unknown = client.get("/v1/graphs/pya/stats");
        assert_eq!(
            (unknown.status, unknown.json()["error"].as_str()),
            (404, Some("no graph `pya`; did you mean `pay`?"))
        );
        assert_eq!(client.get("/v1/graphs/pya/live").status, 404);
    });
}

/// Someone who listens to a graph's figures.
struct Listener {
    stream: BufReader<TcpStream>,
}

impl Listener {
    fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(GRACE)).unwrap();
        stream.write_all(b"GET /v1/graphs/pay/live HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn status(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    fn event(&mut self) -> serde_json::Value {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the stream has ended");
        }
        serde_json::from_str(line.trim_start_matches("data: ")).unwrap()
    }
}

#[test]
fn figures_come_live_to_so_many_and_end_with_the_server() {
    let mut last = None;
    served(Observe::default(), |address| {
        let mut listeners: Vec<_> = (0..32).map(|_| Listener::connect(address)).collect();
        for listener in &mut listeners {
            assert!(listener.status().contains(" 200 "));
            assert_eq!(listener.event()["graph"], "pay");
        }
        assert!(Listener::connect(address).status().contains(" 429 "), "one too many");
        let mut client = Client::connect(address);
        assert_eq!(pay(&mut client, &[], r#"{"id":1,"amount":2}"#), 200);
        let first = &mut listeners[0];
        while first.event()["ok"] != 1 {}
        last = Some((listeners, client, Instant::now()));
    });
    let (listeners, mut client, stopped) = last.unwrap();
    assert!(stopped.elapsed() < GRACE / 2, "listeners hold nobody up");
    assert!(client.is_closed());
    for mut listener in listeners {
        let mut rest = String::new();
        listener.stream.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "the stream ends as it should: {rest:?}");
    }
}

/// All strings of a JSON value under `key`.
fn under<'v>(value: &'v serde_json::Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        serde_json::Value::Object(members) => {
            found.extend(members.get(key).and_then(serde_json::Value::as_str));
            members.values().for_each(|member| under(member, key, found));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| under(value, key, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_charts_metrics_that_are_told_and_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/grafana.json")).unwrap();
    let mut charted = Vec::new();
    under(&dashboard, "expr", &mut charted);
    let names: BTreeSet<&str> = charted
        .iter()
        .flat_map(|expression| expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("millstream_"))
        .map(|name| {
            ["_bucket", "_sum", "_count"]
                .iter()
                .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name))
        })
        .collect();
    let sources = [
        "crates/runtime/src/metrics.rs",
        "crates/serve/src/refusals.rs",
        "crates/serve/src/reload.rs",
        "crates/serve/src/oip/repository.rs",
    ];
    let code: String = sources.map(read).concat();
    let docs: String = ["docs/observability.md", "docs/repository.md"].map(read).concat();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(code.contains(&format!("\"{name}\"")), "{name} is charted, and no metric");
        assert!(docs.contains(&format!("`{name}")), "{name} is charted, and not documented");
    }
}
