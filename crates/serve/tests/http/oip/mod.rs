//! The Open Inference Protocol: raw requests and their answers.

mod clients;
mod compat;
mod events;
mod explain;
mod refused;
mod repository;
mod rows;
mod sequence;
mod streamed;

use std::{fs, path::Path};

use millstream_serve::ConnectionLimits;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    PATIENCE, Serving,
    client::{Answer, Client},
    replace,
};

const HEADER: &str = "inference-header-content-length";
const INFER: &str = "/v2/models/sum/infer";

/// Graphs that say back what they were sent.
const PROJECT: &str = "\
name: tensors
graphs:
  sum:
    input: { a: int64, b: float64, name: string? }
    steps:
      kept: { filter: a <> 99 }
      out: { from: kept, select: [\"a + 1 AS next\", \"b * 2.0 AS twice\", name] }
    respond: out
  types:
    input:
      flag: bool
      i8: int8
      i16: int16
      i32: int32
      i64: int64?
      u8: uint8
      u16: uint16
      u32: uint32
      u64: uint64
      f16: float16
      f32: float32?
      f64: float64
      text: string
      raw: binary
      day: date
      at: timestamp
      image: tensor<float32, 2, 2>
      tags: list<string>
      place: \"struct<lat: float64, city: string?>?\"
      free: json
    steps:
      same: { select: [flag, i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64, text, raw, day, at, image, tags, place, free] }
    respond: same
  slow:
    input: { a: int64 }
    steps: { fed: { enrich: { set: facts, by: a, missing: fail } } }
    respond: fed
  one:
    input: { a: int64 }
    steps:
      kept: { filter: a <> 99 }
      out: { from: kept, select: [\"a * 2 AS twice\"] }
    respond: out
feature_sets: { facts: { keys: [a], source: facts.csv } }
";

fn write(folder: &Path) {
    fs::write(folder.join("facts.csv"), "a,fact\n1,2\n").unwrap();
    replace(&folder.join("millstream.yaml"), PROJECT);
}

fn serves(body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    super::served_project(folder.path(), ConnectionLimits::default(), PATIENCE, body);
}

fn serves_text(project: &str, body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("millstream.yaml"), project);
    super::served_project(folder.path(), ConnectionLimits::default(), PATIENCE, body);
}

fn tensor(name: &str, datatype: &str, shape: impl Into<Value>, data: impl Into<Value>) -> Value {
    let (shape, data): (Value, Value) = (shape.into(), data.into());
    json!({ "name": name, "datatype": datatype, "shape": shape, "data": data })
}

fn inputs(a: &[i64], b: &[f64]) -> Value {
    json!([tensor("a", "INT64", json!([a.len()]), json!(a)), tensor("b", "FP64", json!([b.len()]), json!(b))])
}

/// The error of an answer, which has nothing else in it.
#[track_caller]
fn error(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap().to_owned()
}

#[test]
fn servers_and_models_tell_of_themselves() {
    serves(|serving| {
        let mut client = serving.client();
        let server = client.get("/v2").json();
        assert_eq!(
            (&server["name"], &server["extensions"]),
            (
                &json!("millstream"),
                &json!([
                    "binary_tensor_data",
                    "classification",
                    "generate",
                    "logging",
                    "model_configuration",
                    "model_repository",
                    "schedule_policy",
                    "statistics",
                    "trace"
                ])
            )
        );
        for path in ["/v2/health/live", "/v2/health/ready"] {
            assert_eq!(client.get(path).json(), json!({ "live": true, "ready": true }), "{path}");
        }
        assert_eq!(client.get("/v2/models").json(), json!({ "models": ["sum", "types", "slow", "one"] }));
        let sum = json!({
            "name": "sum",
            "versions": ["1"],
            "platform": "millstream_graph",
            "inputs": [
                { "name": "a", "datatype": "INT64", "shape": [-1] },
                { "name": "b", "datatype": "FP64", "shape": [-1] },
                { "name": "name", "datatype": "BYTES", "shape": [-1] },
            ],
            "outputs": [
                { "name": "next", "datatype": "INT64", "shape": [-1] },
                { "name": "twice", "datatype": "FP64", "shape": [-1] },
                { "name": "name", "datatype": "BYTES", "shape": [-1] },
                { "name": "name.is_null", "datatype": "BOOL", "shape": [-1] },
            ],
        });
        for path in ["/v2/models/sum", "/v2/models/sum/versions/1", "/v2/models/%73um"] {
            assert_eq!(client.get(path).json(), sum, "{path}");
        }
        assert_eq!(
            client.get("/v2/models/sum/versions/1/ready").json(),
            json!({ "name": "sum", "ready": true })
        );
        let config = client.get("/v2/models/sum/config").json();
        assert_eq!(
            (&config["max_batch_size"], &config["input"][2]["data_type"]),
            (&json!(0), &json!("TYPE_STRING"))
        );
        let openapi = client.get("/openapi.json").json();
        assert_eq!(openapi["paths"]["/v2/models/{model}/infer"]["post"]["operationId"], "modelInfer");
    });
}

#[test]
fn rows_go_in_and_out_as_tensors() {
    serves(|serving| {
        let mut client = serving.client();
        let mut infer = |request: Value| {
            let answer = client.send("POST", INFER, &[], request.to_string().as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.headers["content-type"], "application/json");
            answer.json()
        };
        let told = infer(
            json!({ "id": "é 1", "inputs": inputs(&[1, 2], &[0.5, -0.0]), "unknown": [1, { "a": null }] }),
        );
        assert_eq!(
            told,
            json!({
                "model_name": "sum", "model_version": "1", "id": "é 1",
                "outputs": [
                    { "name": "next", "datatype": "INT64", "shape": [2], "data": [2, 3] },
                    { "name": "twice", "datatype": "FP64", "shape": [2], "data": [1.0, -0.0] },
                    { "name": "name", "datatype": "BYTES", "shape": [2], "data": ["", ""] },
                    { "name": "name.is_null", "datatype": "BOOL", "shape": [2], "data": [true, true] },
                ],
            })
        );
        // A row that the graph leaves out, a null among values, an array per row, and outputs in the order asked for.
        let names = tensor("name", "BYTES", json!([3, 1]), json!([["x"], [null], ["a\"\n"]]));
        let mut all = inputs(&[1, 99, 3], &[0.0; 3]);
        all.as_array_mut().unwrap().insert(0, names);
        let outputs = json!([{ "name": "name" }, { "name": "next" }]);
        let told = infer(json!({ "outputs": outputs, "inputs": all }));
        assert_eq!(
            told["outputs"],
            json!([
                { "name": "name", "datatype": "BYTES", "shape": [2], "data": ["x", "a\"\n"] },
                { "name": "next", "datatype": "INT64", "shape": [2], "data": [2, 4] },
            ])
        );
        let told = infer(
            json!({ "inputs": inputs(&[99], &[0.0]), "parameters": { "custom": 1, "sequence_id": 7 } }),
        );
        assert_eq!(
            told["outputs"][0],
            json!({ "name": "next", "datatype": "INT64", "shape": [0], "data": [] })
        );
        let told = infer(json!({ "inputs": inputs(&[], &[]) }));
        assert_eq!(told["outputs"][1]["shape"], json!([0]));
    });
}

#[test]
fn every_type_comes_back_as_it_went() {
    let sent = json!([
        tensor("flag", "BOOL", json!([2]), json!([true, false])),
        tensor("i8", "INT8", json!([2]), json!([-128, 127])),
        tensor("i16", "INT16", json!([2]), json!([-32768, 32767])),
        tensor("i32", "INT32", json!([2]), json!([i32::MIN, i32::MAX])),
        tensor("i64", "INT64", json!([2]), json!([i64::MIN, i64::MAX])),
        tensor("u8", "UINT8", json!([2]), json!([0, 255])),
        tensor("u16", "UINT16", json!([2]), json!([0, 65535])),
        tensor("u32", "UINT32", json!([2]), json!([0, u32::MAX])),
        tensor("u64", "UINT64", json!([2]), json!([0, u64::MAX])),
        tensor("f16", "FP16", json!([2]), json!([0.5, 65504.0])),
        tensor("f32", "FP32", json!([2]), json!([0.1, 3.4e38])),
        tensor("f64", "FP64", json!([2]), json!([0.1, 5e-324])),
        tensor("text", "BYTES", json!([2]), json!(["grün", ""])),
        tensor("raw", "BYTES", json!([2]), json!(["abc", "\u{0}"])),
        tensor("day", "INT32", json!([2]), json!([-1, 20000])),
        tensor("at", "INT64", json!([2]), json!([-1, 1_760_770_293_000_001_i64])),
        tensor("image", "FP32", json!([2, 2, 2]), json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5])),
        tensor("tags", "BYTES", json!([2, 3]), json!(["a", "b", "c", "d", "e", ""])),
        tensor("place.lat", "FP64", json!([2]), json!([1.5, -2.5])),
        tensor("place.city", "BYTES", json!([2]), json!(["x", "y"])),
        tensor("free", "BYTES", json!([2]), json!(["{\"a\":[1]}", "null"])),
    ]);
    serves(|serving| {
        let mut client = serving.client();
        let path = "/v2/models/types/infer";
        let mut infer = |request: &Value| {
            let answer = client.send("POST", path, &[], request.to_string().as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer
        };
        let told = infer(&json!({ "inputs": sent })).json();
        for input in sent.as_array().unwrap() {
            let outputs = told["outputs"].as_array().unwrap();
            let found = outputs.iter().find(|output| output["name"] == input["name"]);
            assert_eq!(found, Some(input), "{told}");
        }
        // Left out, a struct is null, and so is what is in it.
        let but_place =
            |input: &&Value| !input["name"].as_str().unwrap().starts_with("place") && input["name"] != "f32";
        let rest: Vec<&Value> = sent.as_array().unwrap().iter().filter(but_place).collect();
        let wanted = json!([{ "name": "place.lat" }, { "name": "place.city" }, { "name": "place.city.is_null" }, { "name": "f32" }]);
        let told = infer(&json!({ "inputs": rest, "outputs": wanted })).text();
        assert!(
            told.ends_with(
                "[{\"name\":\"place.lat\",\"datatype\":\"FP64\",\"shape\":[2],\"data\":[NaN,NaN]},\
                 {\"name\":\"place.city\",\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"\",\"\"]},\
                 {\"name\":\"place.city.is_null\",\"datatype\":\"BOOL\",\"shape\":[2],\"data\":[true,true]},\
                 {\"name\":\"f32\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[NaN,NaN]}]}"
            ),
            "{told}"
        );
        // What is missing is told at once.
        let answer =
            client.send("POST", path, &[], json!({ "inputs": [sent[0], sent[4]] }).to_string().as_bytes());
        let told = error(&answer, 400);
        assert!(
            told.starts_with("inputs `i8`, `i16`, `i32`, `u8`,")
                && told.ends_with("`tags`, `free` are missing"),
            "{told}"
        );
    });
}

#[test]
fn numbers_that_json_lacks_are_words() {
    serves(|serving| {
        let request = r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[3],"data":[1,2,3]},
            {"name":"b","datatype":"FP64","shape":[3],"data":[NaN, Infinity,-Infinity]}],"outputs":[{"name":"twice"}]}"#;
        let answer = serving.client().send("POST", INFER, &[], request.as_bytes());
        assert!(answer.text().ends_with("\"data\":[NaN,Infinity,-Infinity]}]}"), "{}", answer.text());
    });
}

/// A request whose tensors follow its JSON.
fn binary(tensors: &[(&str, &str, Value, Vec<u8>)], rest: &Value) -> (usize, Vec<u8>) {
    let head = |(name, datatype, shape, raw): &(&str, &str, Value, Vec<u8>)| json!({ "name": name, "datatype": datatype, "shape": shape, "parameters": { "binary_data_size": raw.len() } });
    let mut request = rest.clone();
    request["inputs"] = tensors.iter().map(head).collect();
    let mut body = request.to_string().into_bytes();
    let header = body.len();
    tensors.iter().for_each(|(.., raw)| body.extend(raw));
    (header, body)
}

fn le<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes(*value)).collect()
}

fn texts(texts: &[&[u8]]) -> Vec<u8> {
    texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes(), *text].concat()).collect()
}

/// The JSON of an answer, and the bytes of each of its outputs.
fn parts(answer: &Answer) -> (Value, Vec<Vec<u8>>) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    let (json, mut rest) = answer.body.split_at(answer.headers[HEADER].parse().unwrap());
    let json: Value = serde_json::from_slice(json).unwrap();
    let mut tensors = Vec::new();
    for output in json["outputs"].as_array().unwrap() {
        let Some(size) = output["parameters"]["binary_data_size"].as_u64() else { continue };
        assert_eq!(output.get("data"), None);
        let (tensor, after) = rest.split_at(size as usize);
        (rest, _) = (after, tensors.push(tensor.to_vec()));
    }
    assert_eq!(rest, b"");
    (json, tensors)
}

#[test]
fn tensors_come_and_go_as_bytes() {
    serves(|serving| {
        let mut client = serving.client();
        let a = ("a", "INT64", json!([2]), le(&[1, i64::MAX - 1], i64::to_le_bytes));
        let b = ("b", "FP64", json!([2, 1]), le(&[f64::NAN, -0.0], f64::to_le_bytes));
        let name = ("name", "BYTES", json!([2]), texts(&[b"", "gr\u{fc}n".as_bytes()]));
        let all = json!({ "parameters": { "binary_data_output": true } });
        let (header, body) = binary(&[a.clone(), b.clone(), name], &all);
        let answer = client.send("POST", INFER, &[(HEADER, &header.to_string())], &body);
        let (told, tensors) = parts(&answer);
        assert_eq!(told["outputs"][1]["datatype"], "FP64");
        let expected = [
            le(&[2, i64::MAX], i64::to_le_bytes),
            le(&[f64::NAN * 2.0, -0.0], f64::to_le_bytes),
            texts(&[b"", "gr\u{fc}n".as_bytes()]),
            vec![0, 0],
        ];
        assert_eq!(tensors, expected);
        // Each output says for itself; what it says counts more.
        let outputs =
            json!([{ "name": "twice", "parameters": { "binary_data": false } }, { "name": "next" }]);
        let (header, body) =
            binary(&[a, b], &json!({ "outputs": outputs, "parameters": { "binary_data_output": true } }));
        let answer = client.send("POST", INFER, &[(HEADER, &header.to_string())], &body);
        let head = &answer.body[..answer.headers[HEADER].parse().unwrap()];
        assert!(
            String::from_utf8_lossy(head).contains(r#""shape":[2],"data":[NaN,-0.0]"#),
            "{}",
            answer.text()
        );
    });
}

#[test]
fn bytes_that_are_no_text_go_as_bytes_only() {
    serves(|serving| {
        let mut client = serving.client();
        let tensors = types_as_bytes();
        let ask = |output: Value| {
            let (header, body) = binary(&tensors, &json!({ "outputs": [output] }));
            (header.to_string(), body)
        };
        let (header, body) = ask(json!({ "name": "raw", "parameters": { "binary_data": true } }));
        let path = "/v2/models/types/infer";
        let (_, told) = parts(&client.send("POST", path, &[(HEADER, &header)], &body));
        assert_eq!(told, [texts(&[&[0xff, 0xfe]])]);
        let (header, body) = ask(json!({ "name": "raw" }));
        let told = error(&client.send("POST", path, &[(HEADER, &header)], &body), 400);
        assert!(told.contains("output `raw`: some of its values are not UTF-8"), "{told}");
        // Half of the bits of a float of 32 bits are a float, too.
        let (header, body) = ask(json!({ "name": "f32" }));
        let told = client.send("POST", path, &[(HEADER, &header)], &body).json();
        assert_eq!(told["outputs"][0]["data"], json!([-1.5]));
    });
}

/// One row of every type.
fn types_as_bytes() -> Vec<(&'static str, &'static str, Value, Vec<u8>)> {
    let one = || json!([1]);
    vec![
        ("flag", "BOOL", one(), vec![1]),
        ("i8", "INT8", one(), vec![0xff]),
        ("i16", "INT16", one(), le(&[-2], i16::to_le_bytes)),
        ("i32", "INT32", one(), le(&[-3], i32::to_le_bytes)),
        ("u8", "UINT8", one(), vec![200]),
        ("u16", "UINT16", one(), le(&[60000], u16::to_le_bytes)),
        ("u32", "UINT32", one(), le(&[4_000_000_000], u32::to_le_bytes)),
        ("u64", "UINT64", one(), le(&[u64::MAX], u64::to_le_bytes)),
        ("f16", "FP16", one(), vec![0x00, 0x3c]),
        ("f32", "BF16", one(), vec![0xc0, 0xbf]),
        ("f64", "FP64", one(), le(&[0.1], f64::to_le_bytes)),
        ("text", "BYTES", one(), texts(&[b"t"])),
        ("raw", "BYTES", one(), texts(&[&[0xff, 0xfe]])),
        ("day", "INT32", one(), le(&[1], i32::to_le_bytes)),
        ("at", "INT64", one(), le(&[1], i64::to_le_bytes)),
        ("image", "FP32", json!([1, 2, 2]), le(&[1.0, 2.0, 3.0, 4.0], f32::to_le_bytes)),
        ("tags", "BYTES", json!([1, 0]), vec![]),
        ("free", "BYTES", one(), texts(&[b"[]"])),
    ]
}

#[test]
fn a_body_may_be_the_bytes_of_the_only_input() {
    serves(|serving| {
        let mut client = serving.client();
        let path = "/v2/models/slow/infer";
        let mut raw = |body: &[u8]| client.send("POST", path, &[(HEADER, "0")], body);
        let (told, tensors) = parts(&raw(&1_i64.to_le_bytes()));
        assert_eq!((&told["outputs"][0]["shape"], &tensors[0]), (&json!([1]), &1_i64.to_le_bytes().to_vec()));
        assert!(error(&raw(&[0; 9]), 400).contains("has 9 bytes of binary data, not 1 times 8"));
        assert!(error(&raw(b""), 400).contains("the body is empty"));
        let told = error(&client.send("POST", INFER, &[(HEADER, "0")], &[0; 8]), 400);
        assert!(told.contains("a model of one input"), "{told}");
    });
}

#[test]
fn the_greatest_values_are_told_as_classes() {
    serves(|serving| {
        let mut client = serving.client();
        let mut tensors = types_as_bytes();
        tensors[15].3 = le(&[0.25, f32::NAN, 7.0, 7.0], f32::to_le_bytes);
        let outputs = json!([
            { "name": "image", "parameters": { "classification": 3 } },
            { "name": "i16", "parameters": { "classification": 9, "binary_data": true } },
        ]);
        let (header, body) = binary(&tensors, &json!({ "outputs": outputs }));
        let (told, tensors) =
            parts(&client.send("POST", "/v2/models/types/infer", &[(HEADER, &header.to_string())], &body));
        assert_eq!(
            told["outputs"][0],
            json!({ "name": "image", "datatype": "BYTES", "shape": [1, 3], "data": ["7.000000:2", "7.000000:3", "0.250000:0"] })
        );
        assert_eq!((&told["outputs"][1]["shape"], &tensors[0]), (&json!([1, 1]), &texts(&[b"-2:0"])));
    });
}

#[test]
fn replies_are_packed_as_callers_ask() {
    serves(|serving| {
        let mut client = serving.client();
        let many = vec![1; 1000];
        let request =
            json!({ "inputs": inputs(&many, &vec![0.5; 1000]), "outputs": [{ "name": "next" }] }).to_string();
        let plain = client.send("POST", INFER, &[], request.as_bytes());
        for (accept, coding) in [
            ("gzip", Some("gzip")),
            ("deflate", Some("deflate")),
            ("gzip, deflate, br", Some("gzip")),
            ("br", None),
        ] {
            let answer = client.send("POST", INFER, &[("accept-encoding", accept)], request.as_bytes());
            assert_eq!(answer.headers.get("content-encoding").map(String::as_str), coding, "{accept}");
            let mut body = Vec::new();
            let read = match coding {
                Some("gzip") => {
                    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&answer.body[..]), &mut body)
                }
                Some(_) => std::io::Read::read_to_end(
                    &mut flate2::read::ZlibDecoder::new(&answer.body[..]),
                    &mut body,
                ),
                None => std::io::Read::read_to_end(&mut &answer.body[..], &mut body),
            };
            read.unwrap();
            assert_eq!(body, plain.body, "{accept}");
        }
    });
}

/// Numbers of 64 bits that JSON has.
fn finite() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("JSON has it", |value| value.is_finite())
}

#[test]
fn answers_have_the_bits_that_the_graph_has_elsewhere() {
    serves(|serving| {
        let mut client = serving.client();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
        let rows = prop::collection::vec((-1000..1000_i64, finite(), "[a-z\"\\\\é\u{0}\n]{0,4}"), 0..40);
        let client = std::cell::RefCell::new(&mut client);
        let property = |rows: Vec<(i64, f64, String)>| {
            let client: &mut Client = &mut client.borrow_mut();
            let objects: Value =
                rows.iter().map(|(a, b, name)| json!({ "a": a, "b": b, "name": name })).collect();
            let own = client.send("POST", "/v1/graphs/sum", &[], objects.to_string().as_bytes()).json();
            let column =
                |name: &str| own.as_array().unwrap().iter().map(|row| row[name].clone()).collect::<Vec<_>>();
            let (a, b): (Vec<i64>, Vec<f64>) = rows.iter().map(|(a, b, _)| (*a, *b)).unzip();
            let names: Vec<&str> = rows.iter().map(|(.., name)| name.as_str()).collect();

            let mut tensors = inputs(&a, &b);
            tensors.as_array_mut().unwrap().push(tensor("name", "BYTES", json!([names.len()]), json!(names)));
            let told = client.send("POST", INFER, &[], json!({ "inputs": tensors }).to_string().as_bytes());
            // What is infinite twice over has no word of JSON.
            let text = told.text().replace("-Infinity", "null").replace("Infinity", "null");
            let told: Value = serde_json::from_str(&text).unwrap();
            for (output, name) in ["next", "twice", "name"].iter().enumerate() {
                prop_assert_eq!(&told["outputs"][output]["data"], &Value::Array(column(name)));
            }

            let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            let (header, body) = binary(
                &[
                    ("a", "INT64", json!([a.len()]), le(&a, i64::to_le_bytes)),
                    ("b", "FP64", json!([b.len()]), le(&b, f64::to_le_bytes)),
                    ("name", "BYTES", json!([names.len()]), texts(&bytes)),
                ],
                &json!({ "parameters": { "binary_data_output": true } }),
            );
            let (_, told) = parts(&client.send("POST", INFER, &[(HEADER, &header.to_string())], &body));
            let numbers: Vec<i64> =
                told[0].chunks(8).map(|value| i64::from_le_bytes(value.try_into().unwrap())).collect();
            prop_assert_eq!(json!(numbers), Value::Array(column("next")));
            let floats = told[1].chunks(8).map(|value| f64::from_le_bytes(value.try_into().unwrap()));
            for (float, own) in floats.zip(column("twice")) {
                let own = own.as_f64().map_or(float.is_infinite(), |own| own.to_bits() == float.to_bits());
                prop_assert!(own, "{}", float);
            }
            Ok(())
        };
        runner.run(&rows, property).unwrap();
    });
}

#[test]
fn requests_that_come_together_share_runs_with_those_of_the_graph() {
    serves(|serving| {
        let address = serving.address;
        std::thread::scope(|scope| {
            for thread in 1..9_i64 {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for at in 0..100 {
                        let a = thread * 1000 + at;
                        if thread % 2 == 0 {
                            let body = json!({ "a": a, "b": 0.5 }).to_string();
                            let told = client.send("POST", "/v1/graphs/sum", &[], body.as_bytes()).json();
                            assert_eq!(told, json!({ "next": a + 1, "twice": 1.0, "name": null }));
                        } else {
                            let body = json!({ "inputs": inputs(&[a, 99, a], &[0.5; 3]) }).to_string();
                            let told = client.send("POST", INFER, &[], body.as_bytes()).json();
                            assert_eq!(told["outputs"][0]["data"], json!([a + 1, a + 1]));
                        }
                    }
                });
            }
        });
        let metrics = serving.client().get("/metrics").text();
        assert!(metrics.contains(r#"millstream_runs_total{graph="sum",outcome="ok"} 800"#), "{metrics}");
    });
}
