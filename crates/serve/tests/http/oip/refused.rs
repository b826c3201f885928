//! What is refused, and what a hostile client may send.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::Request;
use millstream_runtime::Limits;
use millstream_serve::{DecodeLimits, Ending, Project, Server};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{super::PATIENCE, HEADER, INFER, binary, error, inputs, serves, tensor, texts, write};

#[test]
fn what_is_not_there_is_told_with_the_closest_name() {
    serves(|serving| {
        let mut client = serving.client();
        for (method, path, status, sentence) in [
            ("GET", "/v2/models/smu", 404, "did you mean `sum`?"),
            ("GET", "/v2/models/smu/ready", 404, "did you mean `sum`?"),
            ("POST", "/v2/models/smu/infer", 404, "did you mean `sum`?"),
            ("GET", "/v2/models/sum/versions/2", 404, "no version `2`; there is `1`"),
            ("POST", "/v2/models/sum/versions/one/infer", 404, "no version `one`"),
            ("GET", "/v2/models/sum/statistics", 404, "no such route"),
            ("POST", "/v2/repository/models/sum/load", 403, "--model-control explicit"),
            ("GET", "/v2/repository/index", 405, "this route takes POST"),
            ("GET", "/v2/nothing", 404, "no such route"),
            ("GET", INFER, 405, "this route takes POST"),
            ("DELETE", INFER, 405, "this route takes POST"),
            ("POST", "/v2/models/sum", 405, "this route takes GET, HEAD"),
            ("POST", "/v2", 405, "this route takes GET, HEAD"),
        ] {
            let told = error(&client.send(method, path, &[], b"{}"), status);
            assert!(told.contains(sentence), "{method} {path}: {told}");
        }
        assert_eq!(serving.refused("unknown_model"), 3);
    });
}

#[test]
fn a_request_that_cannot_be_read_is_told_why() {
    let a = |shape: Value, data: Value| {
        json!({ "inputs": [tensor("a", "INT64", shape, data), tensor("b", "FP64", json!([1]), json!([1.0]))] }).to_string()
    };
    let flat = |datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"a","datatype":"{datatype}","shape":[1],"data":{data}}}]}}"#)
    };
    let big = 1_u64 << 62;
    let cases: Vec<(String, u16, &str)> = vec![
        (String::new(), 400, "the request is empty"),
        ("  ".into(), 400, "the request is empty"),
        ("[]".into(), 400, "`{` is missing at byte 0"),
        ("{".into(), 400, "it ends where a string is missing"),
        (r#"{"inputs""#.into(), 400, "it ends where `:` is missing"),
        (r#"{"inputs":[]}x"#.into(), 400, "something follows the end"),
        ("\u{feff}{}".into(), 400, "`{` is missing"),
        ("{}".into(), 400, "`inputs` is missing"),
        (r#"{"inputs":{}}"#.into(), 400, "`inputs`: has no column"),
        (r#"{"inputs":[]}"#.into(), 400, "`inputs` is empty"),
        (r#"{"inputs":[],"inputs":[]}"#.into(), 400, "`inputs` is there twice"),
        // What is no tensor is a row.
        (r#"{"inputs":[1]}"#.into(), 400, "`inputs`: `[` is missing"),
        (r#"{"inputs":[{}]}"#.into(), 400, "row 0: field `a`"),
        (r#"{"inputs":[{"name":"a"}]}"#.into(), 400, "row 0: field `a`"),
        (r#"{"inputs":[{"shape":[1]}]}"#.into(), 400, "input 0 has no `name`"),
        (r#"{"inputs":[{"name":"a","name":"a","shape":[1]}]}"#.into(), 400, "`name` is there twice"),
        (r#"{"inputs":[{"name":"a","shape":[1]}]}"#.into(), 400, "input 0 has no `datatype`"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64"}]}"#.into(), 400, "input 0 has no `shape`"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1]}]}"#.into(), 400, "input `a`: has neither `data` nor"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1],"data":[1],"parameters":{"binary_data_size":8}}]}"#.into(), 400, "has both"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}]}"#.into(), 400, "`binary_data_size` is 8, but only 0 bytes follow"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":-8}}]}"#.into(), 400, "input 0: `parameters`: invalid value"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1],"parameters":{"shared_memory_region":"r"}}]}"#.into(), 400, "shared memory are not read"),
        (r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1],"data":[1]},{"name":"a","datatype":"INT64","shape":[1],"data":[1]}]}"#.into(), 400, "input `a` is there twice"),
        (r#"{"inputs":[{"name":"aa","datatype":"INT64","shape":[1],"data":[1]}]}"#.into(), 400, "no input `aa`"),
        (json!({ "inputs": inputs(&[1, 2], &[1.0]) }).to_string(), 400, "input `b`: has 1 rows, but `a` has 2"),
        (flat("INT32", "[1]"), 400, "datatype is INT64, not INT32"),
        (flat("INT64", "[1]"), 400, "input `b` is missing"),
        (flat("INT64", "[1,2]"), 400, "`data` has more than 1 values where its shape has 1"),
        (flat("INT64", "[]"), 400, "`data` has 0 values where its shape has 1"),
        (flat("INT64", "1"), 400, "`[` is missing"),
        (flat("INT64", "[1.5]"), 400, "input `a`: value 0 is a number with a point or exponent"),
        (flat("INT64", "[9223372036854775808]"), 400, "value 0 lies outside of what it can hold"),
        (flat("INT64", "[\"1\"]"), 400, "value 0 is a string"),
        (flat("INT64", "[true]"), 400, "value 0 is true or false"),
        (flat("INT64", "[null]"), 400, "value 0 is null"),
        (flat("INT64", "[{}]"), 400, "value 0 is an object"),
        (flat("INT64", "[NaN]"), 400, "value 0 is a number with a point or exponent"),
        (flat("INT64", "[nan]"), 400, "a value is missing"),
        (flat("INT64", "[1"), 400, "it ends where"),
        (flat("INT64", "[01]"), 400, "a value is missing"),
        (flat("INT64", "[1,]"), 400, "`data` has more than 1 values"),
        (a(json!([-1]), json!([1])), 400, "`shape` has -1, which is no size"),
        (a(json!([1.5]), json!([1])), 400, "`shape` has 1.5"),
        (a(json!([]), json!([1])), 400, "shape is [-1], not []"),
        (a(json!([1, 5]), json!([1])), 400, "shape is [-1], not [1, 5]"),
        (a(json!([big]), json!([1])), 400, "`data` has 1 values where its shape has 4611686018427387904"),
        (a(json!([big, big]), json!([1])), 400, "shape is [-1]"),
        (a(json!(vec![1; 65]), json!([1])), 400, "more than 64 dimensions"),
        (a(json!([1]), json!([[1]])), 400, "value 0 is an array"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "id": 7 }).to_string(), 400, "a string is missing"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "outputs": [{ "name": "nxt" }] }).to_string(), 400, "did you mean `next`?"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "outputs": [{}] }).to_string(), 400, "output 0 has no `name`"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "outputs": [{ "name": "next" }, { "name": "next" }] }).to_string(), 400, "output `next` is there twice"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "outputs": [{ "name": "name", "parameters": { "classification": 1 } }] }).to_string(), 400, "has no classes"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "outputs": [{ "name": "next", "parameters": { "shared_memory_region": "r" } }] }).to_string(), 400, "shared memory"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "parameters": { "timeout": "soon" } }).to_string(), 400, "`parameters`: invalid type"),
        (json!({ "inputs": inputs(&[1], &[1.0]), "parameters": { "timeout": 1 } }).to_string(), 504, "deadline"),
        (format!(r#"{{"x":{}"#, "[".repeat(100_000)), 400, "it ends where"),
        (format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), 400, "`inputs` is missing"),
        (flat("INT64", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), 400, "value 0 is an array"),
    ];
    serves(|serving| {
        let mut client = serving.client();
        let mut others = Vec::new();
        for (body, status, sentence) in &cases {
            let told = error(&client.send("POST", INFER, &[], body.as_bytes()), *status);
            if !told.contains(sentence) {
                others.push(format!("{}: {told}", body.chars().take(200).collect::<String>()));
            }
        }
        assert!(others.is_empty(), "{}", others.join("\n"));
        let good = json!({ "inputs": inputs(&[1], &[1.0]) }).to_string();
        for (headers, body, status, sentence) in [
            ((HEADER, "x"), good.as_bytes(), 400, "must be the number of bytes"),
            ((HEADER, "-1"), good.as_bytes(), 400, "must be the number of bytes"),
            ((HEADER, "1000000"), good.as_bytes(), 400, "says 1000000, but the body has"),
            ((HEADER, "18446744073709551616"), good.as_bytes(), 400, "must be the number of bytes"),
            ((HEADER, "3"), good.as_bytes(), 400, "it ends where"),
            (("content-encoding", "br"), good.as_bytes(), 415, "content-encoding"),
            (("content-encoding", "gzip"), good.as_bytes(), 400, "not packed"),
            (("x-request-timeout-ms", "soon"), good.as_bytes(), 400, "x-request-timeout-ms"),
            (("x-request-timeout-ms", "0"), good.as_bytes(), 504, "deadline"),
            (("a", "b"), b"\xff{}", 400, "not UTF-8"),
        ] {
            let told = error(&client.send("POST", INFER, &[headers], body), status);
            assert!(told.contains(sentence), "{headers:?}: {told}");
        }
    });
}

#[test]
fn hostile_shapes_take_no_room() {
    let path = "/v2/models/types/infer";
    serves(|serving| {
        let mut client = serving.client();
        for (shape, data, sentence) in [
            (json!([1, 1_u64 << 40, 0]), json!([]), "shape is [-1,-1]"),
            (json!([1_u64 << 40, 0]), json!([]), "too many lists without a value"),
            (json!([1_u64 << 63, 2]), json!([]), "too many values"),
            (json!([0, u64::MAX]), json!([1]), "`data` has more than 0 values"),
            (json!([2, 2]), json!([["a"], ["b", "c"]]), "`data` has 1 values where its shape has 2"),
            (json!([2, 1]), json!([["a"], ["b"], ["c"]]), "`data` has more than 2 values"),
            (json!([2, 2]), json!([["a", "b"], "c"]), "`[` is missing"),
        ] {
            let request = json!({ "inputs": [tensor("tags", "BYTES", shape.clone(), data)] });
            let told = error(&client.send("POST", path, &[], request.to_string().as_bytes()), 400);
            assert!(told.contains(sentence), "{shape}: {told}");
        }
        for (datatype, raw, sentence) in [
            ("BYTES", texts(&[b"a"])[..4].to_vec(), "end within value 0 of 1"),
            ("BYTES", vec![0xff, 0xff, 0xff, 0xff], "end within value 0 of 1"),
            ("BYTES", [texts(&[b"a"]), vec![1]].concat(), "1 bytes follow its 1 values"),
            ("BYTES", texts(&[&[0xff]]), "value 0 is not UTF-8"),
        ] {
            let (header, body) = binary(&[("text", datatype, json!([1]), raw)], &json!({}));
            let told = error(&client.send("POST", path, &[(HEADER, &header.to_string())], &body), 400);
            assert!(told.contains(sentence), "{told}");
        }
        for (name, datatype, raw, sentence) in [
            ("flag", "BOOL", vec![2], "the binary data has 2 at 0, not 0 or 1"),
            ("flag", "BOOL", vec![1, 1], "has 2 bytes of binary data, not 1 times 1"),
            ("f32", "BF16", vec![0; 4], "has 4 bytes of binary data, not 1 times 2"),
            ("free", "BYTES", texts(&[b"{"]), "is not the JSON text of one"),
        ] {
            let (header, body) = binary(&[(name, datatype, json!([1]), raw)], &json!({}));
            let told = error(&client.send("POST", path, &[(HEADER, &header.to_string())], &body), 400);
            assert!(told.contains(sentence), "{told}");
        }
        // Bytes that no tensor takes.
        let (header, mut body) = binary(&[("a", "INT64", json!([1]), vec![0; 8])], &json!({}));
        body.push(0);
        let told = error(
            &client.send("POST", "/v2/models/slow/infer", &[(HEADER, &header.to_string())], &body),
            400,
        );
        assert!(told.contains("1 bytes follow the binary data of the inputs"), "{told}");
    });
}

/// Answers one request of a server that is no more than its routes.
fn routed(limits: &Limits, decode: DecodeLimits, headers: &[(&str, &str)], body: String) -> (u16, Value) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let project = Project::load(folder.path()).unwrap();
    let server = Server::new(&project, limits, decode).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = Request::post(INFER);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = server.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    })
}

#[test]
fn what_is_too_much_is_refused_as_it_is_elsewhere() {
    let request = json!({ "inputs": inputs(&[1, 2], &[0.0, 1.0]) }).to_string();
    let (limits, decode) = (Limits::default, DecodeLimits::default);
    let told = |limits: Limits, decode, sentence: &str| {
        let (status, body) = routed(&limits, decode, &[], request.clone());
        assert!(
            body["error"].as_str().unwrap().contains(sentence) && body.as_object().unwrap().len() == 1,
            "{body}"
        );
        status
    };
    assert_eq!(told(limits(), DecodeLimits { rows: 1, ..decode() }, "more than 1 rows"), 413);
    assert_eq!(told(limits(), DecodeLimits { body_bytes: 20, ..decode() }, "more than 20 bytes"), 413);
    assert_eq!(told(limits(), DecodeLimits { absent_bytes: 8, ..decode() }, "absent values need more"), 413);
    assert_eq!(told(Limits { bytes: 20, ..limits() }, decode(), "too many runs"), 429);
    assert_eq!(told(Limits { deadline: Some(Duration::ZERO), ..limits() }, decode(), "deadline"), 504);
    assert_eq!(routed(&limits(), decode(), &[], request).0, 200);
}

#[test]
fn a_run_has_the_shortest_time_and_the_priority_that_were_asked_for() {
    let request =
        |parameters: Value| json!({ "inputs": inputs(&[1], &[0.0]), "parameters": parameters }).to_string();
    let none = Limits { deadline: None, ..Limits::default() };
    for (headers, parameters, status) in [
        (&[][..], json!({ "timeout": 0 }), 200),
        (&[], json!({ "timeout": 60_000_000 }), 200),
        (&[], json!({ "timeout": u64::MAX }), 200),
        (&[("x-request-timeout-ms", "0")], json!({ "timeout": 60_000_000 }), 504),
        (&[("x-request-timeout-ms", "60000")], json!({ "timeout": 1 }), 504),
        (&[], json!({ "priority": 0 }), 200),
        (&[("x-request-priority", "batch")], json!({ "priority": 1 }), 200),
        (&[], json!({ "priority": u64::MAX }), 200),
    ] {
        let (told, body) = routed(&none, DecodeLimits::default(), headers, request(parameters.clone()));
        assert_eq!(told, status, "{headers:?} {parameters}: {body}");
    }
}

#[test]
fn a_server_that_stops_is_live_and_not_ready() {
    serves(|serving| {
        let mut clients: Vec<_> = (0..3).map(|_| serving.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/v2/health/ready").status, 200);
        }
        let ending = Ending { drain_delay: Duration::from_secs(2), grace: PATIENCE };
        serving.stop.take().unwrap().send(ending).unwrap();
        let start = std::time::Instant::now();
        while serving.client().get("/readyz").status == 200 {
            assert!(start.elapsed() < Duration::from_secs(1), "still ready");
        }
        for (client, (path, status, body)) in clients.iter_mut().zip([
            ("/v2/health/live", 200, json!({ "live": true, "ready": false })),
            (
                "/v2/health/ready",
                503,
                json!({ "live": true, "ready": false, "error": "the server is stopping" }),
            ),
            (
                "/v2/models/sum/ready",
                503,
                json!({ "name": "sum", "ready": false, "error": "the server is stopping" }),
            ),
        ]) {
            let answer = client.get(path);
            assert_eq!((answer.status, answer.json()), (status, body), "{path}");
        }
    });
}
