//! `remote` against servers that answer well, badly, late and never.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::SchemaRef,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery},
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse,
    routing::{any, get, post},
};
use expect_test::{Expect, expect};
use futures_util::stream;
use millstream_graph::{
    ErrorKind, Graph, Input, Request, Rows, RunCx, RunId, Share, Step, Token, Work, fields, rows,
};
use millstream_runtime::testkit::poll_once;
use millstream_serve::{
    Project,
    remote::{Endpoint, Remote},
};
use serde_json::{Value, json};
use smallvec::smallvec;
use tokio::sync::{Barrier, Notify, mpsc, oneshot, watch};

use crate::server::{ask, engine, engine_of, json, outside, serve};

fn score() -> SchemaRef {
    fields! { score: Int64 }
}

/// Answers what it was asked: how, where, with which headers and which body.
async fn echo(method: axum::http::Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Json(json!({
        "method": method.as_str(),
        "uri": uri.to_string(),
        "body": String::from_utf8_lossy(&body),
        "type": header("content-type"),
        "header": header("x-test"),
        "id": header("x-request-id"),
        "trace": header("traceparent"),
        "millis": header("x-request-timeout-ms").and_then(|text| text.parse::<i64>().ok()),
    }))
}

async fn echoed(endpoint: impl FnOnce(&str) -> Endpoint, wanted: &str, rows: RecordBatch) -> String {
    let server = serve(Router::new().fallback(any(echo))).await;
    let base = server.url("");
    let fields = wanted
        .split(' ')
        .map(|name| arrow::datatypes::Field::new(name, arrow::datatypes::DataType::Utf8, true));
    let output = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    ask(endpoint(&base), &output, rows).await.unwrap_or_else(|error| error.to_string())
}

#[tokio::test]
async fn a_call_is_made_of_the_row_it_is_for() {
    let rows = || rows! { user: [7_i64], country: ["d e"], note: [r#"{"a":[1]}"#] };
    type Made = fn(&str) -> Endpoint;
    let cases: [(Made, &str); 5] = [
        (|base| Endpoint::new("GET", format!("{base}/u/{{user}}?c={{country}}")), "method uri body type"),
        (
            |base| Endpoint::new("post", format!("{base}/s")).columns(["user", "country"]),
            "method uri body type",
        ),
        (|base| Endpoint::new("PUT", base), "method uri body"),
        (
            |base| Endpoint::new("DELETE", format!("{base}/{{user}}")).header("x-test", "{country}!"),
            "body header",
        ),
        (|base| Endpoint::new("POST", base).body("country"), "body"),
    ];
    let mut text = String::new();
    for (endpoint, wanted) in cases {
        text += &echoed(endpoint, wanted, rows()).await;
        text.push('\n');
    }
    expect![[r#"
        [{"user":7,"country":"d e","note":"{\"a\":[1]}","method":"GET","uri":"/u/7?c=d%20e","body":"","type":null}]
        [{"user":7,"country":"d e","note":"{\"a\":[1]}","method":"POST","uri":"/s","body":"{\"user\":7,\"country\":\"d e\"}","type":"application/json"}]
        [{"user":7,"country":"d e","note":"{\"a\":[1]}","method":"PUT","uri":"/","body":"{\"user\":7,\"country\":\"d e\",\"note\":\"{\\\"a\\\":[1]}\"}"}]
        [{"user":7,"country":"d e","note":"{\"a\":[1]}","body":"","header":"d e!"}]
        [{"user":7,"country":"d e","note":"{\"a\":[1]}","body":"\"d e\""}]
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn a_status_decides_what_kind_of_failure_a_call_is() {
    let followed = Arc::new(AtomicUsize::new(0));
    let follow = Arc::clone(&followed);
    let router = Router::new()
        .route(
            "/status/{code}",
            get(|Path(code): Path<u16>| async move {
                let status = StatusCode::from_u16(code).unwrap_or_default();
                (status, [("location", "/elsewhere")], Json(json!({ "score": 1 })))
            }),
        )
        .route(
            "/elsewhere",
            get(move || async move {
                follow.fetch_add(1, SeqCst);
                Json(json!({ "score": 2 }))
            }),
        );
    let server = serve(router).await;
    let cases = [
        (200, None),
        (201, None),
        (301, Some(ErrorKind::Internal)),
        (307, Some(ErrorKind::Internal)),
        (400, Some(ErrorKind::Rows)),
        (404, Some(ErrorKind::Rows)),
        (422, Some(ErrorKind::Rows)),
        (429, Some(ErrorKind::Overloaded)),
        (500, Some(ErrorKind::Unavailable)),
        (503, Some(ErrorKind::Unavailable)),
        (599, Some(ErrorKind::Unavailable)),
    ];
    for (status, wanted) in cases {
        let endpoint = Endpoint::new("GET", server.url("/status/{code}"));
        let got = ask(endpoint, &score(), rows! { code: [status] }).await;
        assert_eq!(got.as_ref().err().map(|error| error.kind()), wanted, "{status}: {got:?}");
    }
    assert_eq!(followed.load(SeqCst), 0, "a redirect was followed");
}

#[tokio::test]
async fn who_does_not_answer_is_unavailable() {
    let gone = { serve(Router::new()).await.url("/") };
    let error = ask(Endpoint::new("POST", gone), &score(), rows! { id: [1] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no connection"), "{error}");
}

#[tokio::test]
async fn rows_keep_their_order_whatever_order_answers_come_in() {
    // Each answer waits until that of the row behind it has been given.
    let (turn, turns) = watch::channel(31_i64);
    let turn = Arc::new(turn);
    let answer = move |Path(id): Path<i64>| {
        let (turn, mut turns) = (Arc::clone(&turn), turns.clone());
        async move {
            let _ = turns.wait_for(|turn| *turn == id).await;
            turn.send_modify(|turn| *turn -= 1);
            Json(json!({ "score": id * 10 }))
        }
    };
    let server = serve(Router::new().route("/{id}", get(answer))).await;
    let ids: Vec<i64> = (0..32).collect();
    let remote = Remote::new(&outside(), Endpoint::new("GET", server.url("/{id}"))).output(&score());
    let engine = engine(fields! { id: Int64 }, remote);
    let reply = engine.run(rows! { id: ids.clone() }).await.unwrap();
    let wanted: Vec<i64> = ids.iter().map(|id| id * 10).collect();
    assert_eq!(json(reply.rows()), json(&rows! { id: ids, score: wanted }));
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_allowed_over_all_runs() {
    const BOUND: usize = 4;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Nobody is answered before as many as may be are inside; so fewer than that would hang.
    let full = Arc::new(Barrier::new(BOUND));
    let seen = Arc::clone(&most);
    let answer = move || {
        let (now, most, full) = (Arc::clone(&now), Arc::clone(&seen), Arc::clone(&full));
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            full.wait().await;
            now.fetch_sub(1, SeqCst);
            Json(json!({ "score": 1 }))
        }
    };
    let server = serve(Router::new().route("/", post(answer))).await;
    let endpoint = Endpoint::new("POST", server.url("/")).in_flight(BOUND);
    let engine = engine(fields! { id: Int64 }, Remote::new(&outside(), endpoint).output(&score()));
    let run = |rows: usize| engine.run(rows! { id: vec![0_i64; rows] });
    let (a, b, c) = tokio::join!(run(9), run(1), run(6));
    for reply in [a, b, c] {
        reply.unwrap();
    }
    assert_eq!(most.load(SeqCst), BOUND);
}

#[tokio::test]
async fn a_call_has_its_time_and_no_more() {
    let server = serve(Router::new().fallback(any(std::future::pending::<()>))).await;
    let endpoint = || Endpoint::new("POST", server.url("/"));
    let error =
        ask(endpoint().timeout(Duration::from_millis(20)), &score(), rows! { id: [1] }).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().contains("no answer within 20ms")),
        (ErrorKind::DeadlineExceeded, true)
    );
    let engine = engine(fields! { id: Int64 }, Remote::new(&outside(), endpoint()).output(&score()));
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let error = engine
        .run_request(Request { deadline, ..Request::default() }, rows! { id: [1_i64] })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn the_run_s_name_trace_and_remaining_time_are_passed_on() {
    let server = serve(Router::new().fallback(any(echo))).await;
    let output = fields! { id: Utf8, trace: Utf8, millis: Int64 };
    let endpoint = || Endpoint::new("POST", server.url("/")).timeout(Duration::from_secs(60));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let deadline = Some(Instant::now() + Duration::from_secs(30));
    let request =
        Request { id: Some("req-7".into()), deadline, trace: Some(trace.into()), ..Request::default() };
    let engine = engine(fields! { x: Int64 }, Remote::new(&outside(), endpoint()).output(&output));
    let reply = engine.run_request(request, rows! { x: [1_i64] }).await.unwrap();
    let reply: Value = serde_json::from_str(&json(reply.rows())).unwrap();
    assert_eq!((&reply[0]["id"], &reply[0]["trace"]), (&json!("req-7"), &json!(trace)));
    let millis = reply[0]["millis"].as_i64().unwrap();
    assert!((1..=30_000).contains(&millis), "{millis}");
    let own = endpoint().header("x-request-id", "row-{x}");
    let answered = ask(own, &fields! { id: Utf8, millis: Int64 }, rows! { x: [1_i64] }).await.unwrap();
    assert_eq!(answered, r#"[{"x":1,"id":"row-1","millis":60000}]"#);
}

#[tokio::test]
async fn requests_that_share_a_run_are_told_apart() {
    let server = serve(Router::new().fallback(any(echo))).await;
    let remote =
        Remote::new(&outside(), Endpoint::new("GET", server.url("/{x}"))).output(&fields! { id: Utf8 });
    remote.signature(&[fields! { x: Int64 }]).unwrap();
    let share = |id: &str, rows| Share {
        run: RunId(1),
        request: Request { id: Some(id.into()), ..Request::default() },
        rows,
    };
    let cx = RunCx::shared(RunId(1), smallvec![share("a", 1), share("b", 2)], Instant::now);
    let input = Input::new(smallvec![Token::Rows(Rows::whole(rows! { x: [1_i64, 2, 3] }))]);
    let Work::Io(answer) = remote.call(input, &cx) else { panic!("a call waits") };
    let (ports, ..) = answer.await.unwrap().into_parts();
    assert_eq!(json(ports[0].1.batch()), r#"[{"x":1,"id":"a"},{"x":2,"id":"b"},{"x":3,"id":"b"}]"#);
}

/// Answers 503 to the first two calls; how many calls came.
fn flaky() -> (Router, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer = move || {
        let calls = Arc::clone(&counted);
        async move {
            match calls.fetch_add(1, SeqCst) {
                0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                _ => Json(json!({ "score": 1 })).into_response(),
            }
        }
    };
    (Router::new().fallback(any(answer)), calls)
}

#[tokio::test]
async fn only_a_call_that_may_be_repeated_is_made_again() {
    type With = fn(Endpoint) -> Endpoint;
    let cases: [(&str, With, usize, bool); 6] = [
        ("GET", |endpoint| endpoint.retries(2), 3, true),
        ("PUT", |endpoint| endpoint.retries(2), 3, true),
        ("DELETE", |endpoint| endpoint.retries(1), 2, false),
        ("POST", |endpoint| endpoint.retries(2).idempotent(), 3, true),
        ("POST", |endpoint| endpoint, 1, false),
        ("GET", |endpoint| endpoint, 1, false),
    ];
    for (method, with, wanted, good) in cases {
        let (router, calls) = flaky();
        let server = serve(router).await;
        let got = ask(with(Endpoint::new(method, server.url("/"))), &score(), rows! { id: [1] }).await;
        assert_eq!((got.is_ok(), calls.load(SeqCst)), (good, wanted), "{method}: {got:?}");
    }
}

#[tokio::test]
async fn a_breaker_stops_calls_that_keep_failing() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer = move || {
        counted.fetch_add(1, SeqCst);
        async { StatusCode::INTERNAL_SERVER_ERROR }
    };
    let server = serve(Router::new().fallback(any(answer))).await;
    let endpoint = Endpoint::new("POST", server.url("/")).breaker(2);
    let engine = engine(fields! { id: Int64 }, Remote::new(&outside(), endpoint).output(&score()));
    for _ in 0..5 {
        assert_eq!(engine.run(rows! { id: [1_i64] }).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(calls.load(SeqCst), 2);
}

#[tokio::test]
async fn a_dropped_run_closes_its_connections() {
    let (entered, mut enters) = mpsc::channel::<oneshot::Receiver<Infallible>>(1);
    let answer = move || {
        let entered = entered.clone();
        async move {
            // Its other end hears when the server drops what it was doing, which it does when the connection closes.
            let (held, gone) = oneshot::channel::<Infallible>();
            let _ = entered.send(gone).await;
            std::future::pending::<()>().await;
            drop(held);
        }
    };
    let server = serve(Router::new().fallback(any(answer))).await;
    let engine =
        engine(fields! { id: Int64 }, Remote::new(&outside(), Endpoint::new("POST", server.url("/"))));
    let mut run = Box::pin(engine.run(rows! { id: [1_i64] }));
    let gone = tokio::select! {
        gone = enters.recv() => gone.unwrap(),
        _ = &mut run => panic!("nobody answered"),
    };
    drop(run);
    assert!(gone.await.is_err());
}

#[tokio::test]
async fn one_failed_call_ends_the_others() {
    let (waiting, seen) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, see) = (Arc::clone(&waiting), Arc::clone(&seen));
    struct Gone(Arc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let answer = move |Path(id): Path<i64>| {
        let (waiting, seen) = (Arc::clone(&inside), Arc::clone(&see));
        async move {
            if id == 0 {
                let _gone = Gone(seen);
                waiting.notify_one();
                std::future::pending::<()>().await;
            }
            waiting.notified().await;
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let server = serve(Router::new().route("/{id}", get(answer))).await;
    let error =
        ask(Endpoint::new("GET", server.url("/{id}")), &score(), rows! { id: [0_i64, 1] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    seen.notified().await;
}

#[tokio::test]
async fn several_rows_go_in_one_call_and_come_back_in_one() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let answer = move |Json(rows): Json<Vec<Value>>| {
        seen.lock().unwrap().push(rows.len());
        async move {
            let score = |row: &Value| json!({ "score": row["id"].as_i64().unwrap_or(0) + 1, "more": [] });
            if rows.iter().any(|row| row["id"] == 5) {
                return StatusCode::UNPROCESSABLE_ENTITY.into_response();
            }
            Json(rows.iter().map(score).collect::<Vec<_>>()).into_response()
        }
    };
    let server = serve(Router::new().route("/", post(answer))).await;
    let endpoint = || Endpoint::new("POST", server.url("/"));
    let all = ask(endpoint().rows(usize::MAX), &score(), rows! { id: [1_i64, 2, 3] }).await.unwrap();
    assert_eq!(all, r#"[{"id":1,"score":2},{"id":2,"score":3},{"id":3,"score":4}]"#);
    let mut graph = Graph::new("test", fields! { id: Int64 });
    let remote = Remote::new(&outside(), endpoint().rows(2).in_flight(1)).output(&score());
    let asked = graph.step("asked", graph.input(), remote);
    let failed = graph.map("failed", asked.error(), fields! { id: Int64, score: Int64 }, |rows| {
        Ok(rows! { id: ids(rows), score: vec![-1_i64; rows.num_rows()] })
    });
    let merged = graph.merge("merged", [&asked, &failed]);
    graph.respond(&merged);
    let reply = engine_of(&graph).run(rows! { id: [1_i64, 2, 3, 5, 6] }).await.unwrap();
    // A call that is refused is refused for all of its rows.
    let wanted = rows! { id: [1_i64, 2, 3, 5, 6], score: [2_i64, 3, -1, -1, 7] };
    assert_eq!(json(reply.rows()), json(&wanted));
    assert_eq!(*bodies.lock().unwrap(), [3, 2, 2, 1]);
}

fn ids(rows: &RecordBatch) -> Vec<i64> {
    let ids = rows.column(0).as_any().downcast_ref::<arrow::array::Int64Array>();
    ids.expect("the first column is `id`").values().to_vec()
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_declared_is_refused() {
    let endless = || async {
        Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1024]))))
    };
    let router = Router::new()
        .route("/endless", any(endless))
        .route("/long", any(|| async { format!(r#"{{"score":1,"more":"{}"}}"#, "x".repeat(5000)) }))
        .route("/text", any(|| async { "<html>" }))
        .route("/array", any(|| async { r#"[{"score":1}]"# }))
        .route("/null", any(|| async { r#"{"score":null}"# }))
        .route("/missing", any(|| async { r#"{"scores":1}"# }))
        .route("/nothing", any(|| async { StatusCode::NO_CONTENT }))
        .route("/two", any(|| async { r#"[{"score":1},{"score":1}]"# }));
    let server = serve(router).await;
    let mut text = String::new();
    for path in ["endless", "long", "text", "array", "null", "missing", "nothing"] {
        let endpoint = Endpoint::new("POST", server.url(&format!("/{path}"))).max_answer(4096);
        let error = ask(endpoint, &score(), rows! { id: [1] }).await.unwrap_err();
        text += &format!("{path}: {} ({})\n", error, error.kind().name());
    }
    for path in ["two", "null"] {
        let endpoint = Endpoint::new("POST", server.url(&format!("/{path}"))).rows(10);
        let error = ask(endpoint, &score(), rows! { id: [1, 2, 3] }).await.unwrap_err();
        text += &format!("{path}: {} ({})\n", error, error.kind().name());
    }
    expect![[r#"
        endless: step `asked`: the answer has more than 4096 bytes (internal)
        long: step `asked`: the answer has more than 4096 bytes (internal)
        text: step `asked`: the answer cannot be read: expected value, at line 1 column 1 (internal)
        array: step `asked`: the answer cannot be read: an object is wanted, but it is an array (internal)
        null: step `asked`: the answer cannot be read: field `score`: must be a whole number, but is null (internal)
        missing: step `asked`: the answer cannot be read: field `score`: is missing (internal)
        nothing: step `asked`: the answer cannot be read: body is empty (internal)
        two: step `asked`: the answer cannot be read: it has 2 rows for 3 that were sent (internal)
        null: step `asked`: the answer cannot be read: field `score`: must be a whole number, but is null (internal)
    "#]].assert_eq(&text);
    let missing = Endpoint::new("POST", server.url("/missing"));
    let nullable = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
        "score",
        arrow::datatypes::DataType::Int64,
        true,
    )]));
    assert_eq!(ask(missing, &nullable, rows! { id: [1] }).await.unwrap(), r#"[{"id":1,"score":null}]"#);
}

#[tokio::test]
async fn an_answer_may_be_a_bare_value() {
    let router = Router::new()
        .route("/one", any(|| async { " [0.25, 0.5] " }))
        .route("/many", any(|| async { "[[0.25], [], null]" }))
        .route("/sly", any(|| async { r#"[1],"p":[2]"# }))
        .route("/more", any(|| async { r#"[1]}, {"p":[2]"# }));
    let server = serve(router).await;
    let asked = async |path: &str, rows: Option<usize>| {
        let endpoint = Endpoint::new("POST", server.url(path));
        let endpoint = match rows {
            Some(rows) => endpoint.rows(rows),
            None => endpoint,
        };
        let list = millstream_graph::spec::column("p", "list<float64>?").unwrap();
        let remote =
            Remote::new(&outside(), endpoint).output(&arrow::datatypes::Schema::new(vec![list])).bare();
        let rows = rows! { id: (0..rows.unwrap_or(1) as i64).collect::<Vec<_>>() };
        engine(rows.schema(), remote).run(rows).await.map(|reply| json(reply.rows()))
    };
    assert_eq!(asked("/one", None).await.unwrap(), r#"[{"id":0,"p":[0.25,0.5]}]"#);
    assert_eq!(
        asked("/many", Some(3)).await.unwrap(),
        r#"[{"id":0,"p":[0.25]},{"id":1,"p":[]},{"id":2,"p":null}]"#
    );
    for (path, rows) in
        [("/sly", None), ("/more", None), ("/sly", Some(1)), ("/one", Some(3)), ("/many", None)]
    {
        assert_eq!(asked(path, rows).await.unwrap_err().kind(), ErrorKind::Internal, "{path}");
    }
}

#[tokio::test]
async fn a_value_that_cannot_stand_in_a_call_fails_its_row_alone() {
    let server = serve(Router::new().fallback(any(echo))).await;
    let text = rows! { user: [1_i64, 2, 3, 4], name: ["a", "", "..", "b\nc"] };
    let endpoint = Endpoint::new("GET", server.url("/u/{name}")).header("x-test", "{name}");
    let mut graph = Graph::new("test", text.schema());
    let asked =
        graph.step("asked", graph.input(), Remote::new(&outside(), endpoint).output(&fields! { uri: Utf8 }));
    let failed = graph.map("failed", asked.error(), fields! { user: Int64, name: Utf8, uri: Utf8 }, |rows| {
        let errors = rows.column(2).as_any().downcast_ref::<arrow::array::StructArray>().expect("errors");
        let columns =
            vec![Arc::clone(rows.column(0)), Arc::clone(rows.column(1)), Arc::clone(errors.column(2))];
        Ok(RecordBatch::try_new(fields! { user: Int64, name: Utf8, uri: Utf8 }, columns)?)
    });
    let merged = graph.merge("merged", [&asked, &failed]);
    graph.respond(&merged);
    let reply = engine_of(&graph).run(text).await.unwrap();
    let uris = reply.rows().column(2).as_any().downcast_ref::<StringArray>().unwrap();
    let uris: Vec<&str> = uris.iter().flatten().collect();
    expect![[r#"
        /u/a
        column `name` is empty, which the path of a url cannot hold
        a value would make the path of the url lead elsewhere
        header `x-test` cannot hold a line break or a control character"#]]
    .assert_eq(&uris.join("\n"));
}

fn refused(endpoint: Endpoint, wanted: &Expect) {
    let mut graph = Graph::new("test", fields! { id: Int64, score: Int64 });
    let asked = graph.step(
        "asked",
        graph.input(),
        Remote::new(&outside(), endpoint).output(&fields! { score: Int64 }),
    );
    graph.respond(&asked);
    wanted.assert_eq(&graph.compile().map(|plan| plan.to_string()).expect_err("it is wrong").to_string());
}

#[test]
fn every_mistake_of_a_call_is_reported_at_once() {
    let wrong = Endpoint::new("PSOT", "http://{id}/a")
        .header("Host", "evil.example")
        .header("a b", "c")
        .header("x", "${NOT_SET_ANYWHERE} {idd}")
        .in_flight(0)
        .retries(99)
        .ca("../ca.pem");
    refused(
        wrong,
        &expect![[r#"
            step `asked`: column `score` is there already; rename it in front
            step `asked`: `in_flight` is 1 to 4096
            step `asked`: `retries` is at most 10
            step `asked`: no method `PSOT`; did you mean `POST`?
            step `asked`: `http://{id}/a`: a column may stand in the path and the query, not in the host or the port
            step `asked`: header `Host` follows from the url and the body
            step `asked`: `a b` cannot be a header's name
            step `asked`: `${NOT_SET_ANYWHERE} {idd}`: the environment has no text in `NOT_SET_ANYWHERE`
            step `asked`: `../ca.pem` leaves the project's folder"#]],
    );
    let once = Endpoint::new("POST", "http://h/").retries(1).columns(["idd"]);
    refused(
        once,
        &expect![[r#"
            step `asked`: column `score` is there already; rename it in front
            step `asked`: no column `idd`; did you mean `id`?
            step `asked`: a POST may not be made again; if it may, say `idempotent: true`, else leave out `retries`"#]],
    );
    let batch = Endpoint::new("PUT", "http://h/{id}").rows(2).body("id");
    refused(
        batch,
        &expect![[r#"
        step `asked`: column `score` is there already; rename it in front
        step `asked`: a call of several rows has no value of its own for `{column}` in its url or its headers
        step `asked`: the value of one column cannot be the body of a call of several rows"#]],
    );
    let bodiless = Endpoint::new("GET", "https://h/").columns(["id"]).ca("Cargo.toml");
    refused(
        bodiless,
        &expect![[r#"
        step `asked`: column `score` is there already; rename it in front
        step `asked`: a GET has no body that rows could stand in
        step `asked`: `ca`: no certificate is in it"#]],
    );
}

#[tokio::test]
async fn secrets_stay_out_of_what_people_read() {
    // Cargo sets it for every test.
    let secret = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let server =
        serve(Router::new().fallback(any(|headers: HeaderMap, RawQuery(query): RawQuery| async move {
            let sent = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let status = if query.is_some() { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
            (status, Json(json!({ "got": sent })))
        })))
        .await;
    let endpoint = |path: &str| {
        Endpoint::new("POST", server.url(path)).header("authorization", "Bearer ${CARGO_MANIFEST_DIR}")
    };
    let got = ask(endpoint("/"), &fields! { got: Utf8 }, rows! { id: [1] }).await.unwrap();
    assert!(got.contains(&format!("Bearer {secret}")), "{got}");
    let remote =
        Remote::new(&outside(), endpoint("/?key=${CARGO_PKG_VERSION}").header("x-key", "in-the-file"));
    let debug = format!("{remote:?}");
    let engine = engine(fields! { id: Int64 }, remote);
    let error = engine.run(rows! { id: [1_i64] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for text in [debug, engine.plan().to_string(), format!("{error} {error:?}")] {
        assert!(!text.contains(&secret) && !text.contains("in-the-file"), "{text}");
    }
}

#[tokio::test]
async fn a_project_file_says_the_same() {
    let router = Router::new().route(
        "/v1/users/{id}",
        get(|Path(id): Path<i64>, RawQuery(query): RawQuery| async move {
            match id {
                9 => StatusCode::NOT_FOUND.into_response(),
                _ => Json(json!({ "name": format!("{id} {}", query.unwrap_or_default()) })).into_response(),
            }
        }),
    );
    let server = serve(router).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"
name: test
graphs:
  test:
    input: {{ id: int64, country: string }}
    steps:
      user:
        remote:
          url: {}
          method: GET
          headers: {{ x-key: "${{CARGO_PKG_NAME}}" }}
          output: {{ name: string, age: "int32?" }}
          timeout: 5s
          retries: 1
          in_flight: 8
          breaker: 5
          max_answer: 64KiB
      unknown: {{ from: user.error, select: [id, country, "error['message'] AS name", CAST(NULL AS INT) AS age] }}
      answer: {{ from: [user, unknown], merge: }}
    respond: answer
"#,
        server.url("/v1/users/{id}?c={country}")
    );
    std::fs::write(folder.path().join("millstream.yaml"), text).unwrap();
    let project = Project::load(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let plan = project.plan("test").unwrap();
    assert!(plan.row_wise(), "a call that may be repeated may be shared");
    let engine = project.engine("test", millstream_runtime::Limits::default()).unwrap();
    let reply = engine.run(rows! { id: [7_i64, 9, 8], country: ["d&e", "fr", "it"] }).await.unwrap();
    let wanted = r#"[{"id":7,"country":"d&e","name":"7 c=d%26e","age":null},{"id":9,"country":"fr","name":"answered 404 Not Found","age":null},{"id":8,"country":"it","name":"8 c=it","age":null}]"#;
    assert_eq!(json(reply.rows()), wanted);
}

#[test]
fn a_run_waits_without_a_thread_of_its_own() {
    let endpoint = Endpoint::new("POST", "http://127.0.0.1:9/");
    let remote = Remote::new(&outside(), endpoint).output(&score());
    let signature = remote.signature(&[fields! { id: Int64 }]).unwrap();
    assert_eq!(signature.effect, millstream_graph::Effect::Once);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let cx = RunCx::new(RunId(1), Request::default(), 1, Instant::now);
    let input = Input::new(smallvec![Token::Rows(Rows::whole(rows! { id: [1_i64] }))]);
    let Work::Io(mut answer) = remote.call(input, &cx) else { panic!("a call waits") };
    assert!(poll_once(&mut answer).is_pending());
}
