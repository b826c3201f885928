//! Explanations of what models answer, as KServe's V1 and MLRun ask for them, and what else a project says of its models.

use std::{fs, path::Path};

use millstream_featurestore::Stores;
use millstream_serve::{ConnectionLimits, Project};
use serde_json::{Value, json};

use super::{
    super::{PATIENCE, Serving, client::Answer, replace, served_project},
    clients::{MODELS, has_clients, run},
    error, inputs, tensor,
};

const PROJECT: &str = "\
name: explained
feature_sets: { facts: { keys: [a], source: facts.csv } }
models:
  swap:
    path: rank3.onnx
    description: Turns what it gets on its side.
    labels: { team: risk, stage: champion }
    explain: turned
  plain: { path: rank3.onnx }
graphs:
  score:
    description: The sum of all that is known.
    input: { a: int64, b: float64 }
    explain: why
    steps:
      known: { enrich: { set: facts, by: a, features: [fact AS told] } }
      out: { select: [\"a + b + told AS sum\"] }
    respond: out
  why:
    input: { a: int64, b: float64 }
    steps: { parts: { select: [\"a * 10 AS of_a\", \"b * 2.0 AS of_b\"] } }
    respond: parts
  turned:
    input: { x: \"tensor<float32, 2, 3>\" }
    steps: { same: { select: [x] } }
    respond: same
  turns:
    input: { a: int64, x: \"tensor<float32, 2, 3>\" }
    steps:
      known: { enrich: { set: facts, by: a } }
      out: { model: { use: plain } }
    respond: out
";

fn write(folder: &Path) {
    fs::copy(Path::new(MODELS).join("rank3.onnx"), folder.join("rank3.onnx")).unwrap();
    fs::write(folder.join("facts.csv"), "a,fact,age\n1,2,3\n2,4,6\n").unwrap();
    replace(&folder.join("millstream.yaml"), PROJECT);
}

fn serves(body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, body);
}

fn post(serving: &Serving, path: &str, body: &Value) -> Answer {
    serving.client().send("POST", path, &[], body.to_string().as_bytes())
}

#[track_caller]
fn told(serving: &Serving, path: &str, body: &Value) -> Value {
    let answer = post(serving, path, body);
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
    answer.json()
}

fn why() -> Value {
    json!([{ "of_a": 10, "of_b": 1.0 }, { "of_a": 20, "of_b": 2.0 }])
}

#[test]
fn a_graph_explains_what_another_answers() {
    serves(|serving| {
        let rows = json!([{ "a": 1, "b": 0.5 }, { "a": 2, "b": 1.0 }]);
        for instances in [&rows, &json!([[1, 0.5], [2, 1.0]])] {
            for path in ["/v1/models/score:explain", "/v1/models/score/versions/1:explain"] {
                let told = told(serving, path, &json!({ "instances": instances }));
                assert_eq!(told, json!({ "explanations": why() }), "{path}");
            }
        }
        // MLRun asks by path or in the body, which counts more.
        let explained = json!({ "id": "7", "model_name": "score", "model_version": "1", "outputs": why() });
        for (path, operation, model) in [
            ("/v2/models/score/explain", None, None),
            ("/v2/models/score/versions/1/explain", None, None),
            ("/v2/models/score/infer", Some("explain"), None),
            ("/v2/models/score/predict", Some("explain"), None),
            ("/v2/models/explain", None, Some("score")),
            ("/v2/models/infer", Some("explain"), Some("score")),
        ] {
            let mut body = json!({ "id": "7", "inputs": [[1, 0.5], [2, 1.0]] });
            for (name, said) in [("operation", operation), ("model", model)] {
                if let Some(said) = said {
                    body[name] = json!(said);
                }
            }
            assert_eq!(told(serving, path, &body), explained, "{path} {body}");
        }
        let body = json!({ "inputs": [[1, 0.5]], "operation": "infer" });
        assert_eq!(told(serving, "/v2/models/score/explain", &body)["outputs"], json!([3.5]));
        // What is explained is inferred as ever, tensors too.
        let body = json!({ "inputs": inputs(&[1], &[0.5]) });
        let outputs = json!([{ "name": "sum", "datatype": "FP64", "shape": [1], "data": [3.5] }]);
        assert_eq!(told(serving, "/v2/models/score/infer", &body)["outputs"], outputs);
        let pair = json!([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
        let body = json!({ "instances": [pair] });
        assert_eq!(told(serving, "/v1/models/swap:explain", &body), json!({ "explanations": [pair] }));
        let stats = serving.client().get("/v2/models/why/stats").json();
        assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], json!(10));
        let paths = serving.client().get("/openapi.json").json()["paths"].clone();
        let named = &paths["/v1/models/{model}:explain"]["post"]["parameters"][0]["schema"]["enum"];
        assert_eq!(named, &json!(["score", "swap"]));
    });
}

#[test]
fn what_cannot_be_explained_says_why() {
    serves(|serving| {
        for (path, body, status, part) in [
            ("/v1/models/why:explain", json!({ "instances": [] }), 404, "model `why` has no explainer"),
            (
                "/v2/models/plain/explain",
                json!({ "inputs": [] }),
                404,
                "`explain`, in the model or the graph",
            ),
            (
                "/v2/models/why/infer",
                json!({ "inputs": [[1, 2]], "operation": "explain" }),
                400,
                "has no explainer",
            ),
            ("/v1/models/scope:explain", json!({}), 404, "did you mean `score`?"),
            ("/v1/models/score:explain", json!({}), 400, "there is no `instances`"),
            ("/v1/models/score:explain", json!({ "instances": [[1]] }), 400, "a row has 1 values"),
            (
                "/v2/models/score/infer",
                json!({ "inputs": [[1, 2]], "operation": "expalin" }),
                400,
                "did you mean `explain`?",
            ),
            ("/v2/models/score/infer", json!({ "inputs": [[1, 2]], "operation": 1 }), 400, "a string"),
        ] {
            let told = error(&post(serving, path, &body), status);
            assert!(told.contains(part), "{path} {body}: {told}");
        }
        let answer = serving.client().get("/v1/models/score:explain");
        assert_eq!((answer.status, &answer.headers["allow"][..]), (405, "POST"));
    });
}

#[test]
fn a_router_finds_the_model_that_the_body_names() {
    serves(|serving| {
        let (sum, row) = (json!([3.5]), json!([[1, 0.5]]));
        for body in [
            json!({ "model": "score", "inputs": row }),
            json!({ "model": "score", "version": "1", "inputs": row }),
            json!({ "model": "score", "version": 1, "operation": "predict", "inputs": row }),
        ] {
            for path in ["/v2/models/infer", "/v2/models/predict", "/v2/models/infer_dict"] {
                let told = told(serving, path, &body);
                assert_eq!((&told["model_name"], &told["outputs"]), (&json!("score"), &sum), "{path} {body}");
            }
        }
        let tensors = json!({ "model": "score", "inputs": inputs(&[1], &[0.5]) });
        assert_eq!(told(serving, "/v2/models/infer", &tensors)["outputs"][0]["datatype"], "FP64");
        for (body, status, part) in [
            (json!({ "inputs": row }), 404, "name one as `model` in the body"),
            (json!({ "model": "scope", "inputs": row }), 404, "did you mean `score`?"),
            (json!({ "model": "score", "version": 2, "inputs": row }), 404, "no version `2`"),
            (json!({ "model": null, "inputs": row }), 400, "`model` is not the text of a name"),
            (json!({ "model": "score", "version": [], "inputs": row }), 400, "`version` is not"),
            (json!({ "model": "score" }), 400, "`inputs` is missing"),
        ] {
            let told = error(&post(serving, "/v2/models/infer", &body), status);
            assert!(told.contains(part), "{body}: {told}");
        }
        let mut client = serving.client();
        let answer = client.get("/v2/models/infer");
        assert_eq!((answer.status, &answer.headers["allow"][..]), (405, "POST"));
        assert_eq!(client.get("/v2/models/").json()["models"].as_array().unwrap().len(), 6);
        let health = client.get("/v2/health").json();
        let expected =
            json!({ "name": "millstream", "version": "v2", "extensions": [], "live": true, "ready": true });
        assert_eq!(health, expected);
    });
}

#[test]
fn the_only_graph_is_meant_where_none_is_named_whatever_explains_it() {
    let project = "\
name: one
graphs:
  double: { input: { a: int64 }, explain: why, steps: { out: { select: [\"a * 2 AS b\"] } }, respond: out }
  why: { input: { a: int64 }, steps: { out: { select: [\"a * 3 AS c\"] } }, respond: out }
";
    super::serves_text(project, |serving| {
        let inputs = json!({ "inputs": [[2]] });
        assert_eq!(told(serving, "/v2/models/infer", &inputs)["outputs"], json!([4]));
        assert_eq!(told(serving, "/v2/models/explain", &inputs)["outputs"], json!([6]));
        let frame = json!({ "dataframe_records": [{ "a": 2 }] });
        assert_eq!(told(serving, "/invocations", &frame), json!({ "predictions": [4] }));
    });
}

#[test]
fn a_body_that_is_packed_is_explained_too() {
    use std::io::Write;
    serves(|serving| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(br#"{"operation":"explain","inputs":[[1,0.5]]}"#).unwrap();
        let headers = [("content-encoding", "gzip")];
        let body = packed.finish().unwrap();
        let answer = serving.client().send("POST", "/v2/models/score/infer", &headers, &body);
        assert_eq!(answer.json()["outputs"], json!([{ "of_a": 10, "of_b": 1.0 }]), "{}", answer.text());
    });
}

#[test]
fn clients_are_told_what_a_project_says_of_its_models() {
    serves(|serving| {
        let mut client = serving.client();
        let mut about = |model: &str| {
            let metadata = client.get(&format!("/v2/models/{model}")).json();
            let config = client.get(&format!("/v2/models/{model}/config")).json();
            let told = metadata.get("parameters").cloned();
            for (name, text) in told.iter().flat_map(|told| told.as_object().unwrap()) {
                assert_eq!(config["parameters"][name], json!({ "string_value": text }), "{model}");
            }
            assert_eq!(told.is_some(), config.get("parameters").is_some());
            told
        };
        let swap = json!({
            "description": "Turns what it gets on its side.", "team": "risk", "stage": "champion", "explain": "turned",
        });
        assert_eq!(about("swap"), Some(swap));
        assert_eq!(about("plain"), Some(json!({ "features": "facts.age, facts.fact" })));
        let score = json!({
            "description": "The sum of all that is known.", "explain": "why", "features": "facts.fact",
        });
        assert_eq!(about("score"), Some(score));
        assert_eq!(about("why"), None);
        // Tensors are as they were.
        let x = tensor("x", "FP32", json!([1, 2, 3]), json!([0, 1, 2, 3, 4, 5]));
        assert_eq!(post(serving, "/v2/models/swap/infer", &json!({ "inputs": [x] })).status, 200);
    });
}

#[test]
fn the_clients_of_kserve_and_triton_see_explanations_and_labels() {
    if !has_clients() {
        return;
    }
    serves(|serving| {
        // The two packages do not go together in one process where gRPC is spoken.
        for script in ["explain.py", "explain_grpc.py"] {
            run(script, &[&serving.address.to_string()]);
        }
    });
}

#[test]
fn a_project_names_every_mistake_of_its_explainers() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let project = "\
name: wrong
models:
  swap: { path: rank3.onnx, explain: score, labels: { features: all } }
  plain: { path: rank3.onnx, explain: turnde }
graphs:
  score: { input: { a: int64, b: float64 }, explain: other, steps: { out: { select: [a] } }, respond: out }
  other: { input: { b: float64, a: int64 }, explain: other, steps: { out: { select: [a] } }, respond: out }
  turned: { input: { x: \"tensor<float32, 2, 3>?\" }, steps: { out: { select: [x] } }, respond: out }
";
    let told = Project::from_text(project, folder.path(), &Stores::new()).map(drop).unwrap_err();
    let told: Vec<String> = told.errors().iter().map(ToString::to_string).collect();
    let wanted = [
        (
            "3:",
            "model `swap`: `explain`: graph `score` takes `a: int64, b: float64`, but what it is to explain takes `x: tensor<float32, 2, 3>`",
        ),
        ("3:", "model `swap`: label `features`: clients are told something else by this name"),
        ("4:", "model `plain`: `explain`: no graph `turnde`; did you mean `turned`?"),
        (
            "6:",
            "graph `score`: `explain`: graph `other` takes `b: float64, a: int64`, but what it is to explain takes `a: int64, b: float64`",
        ),
        ("7:", "graph `other`: `explain`: a graph does not explain itself"),
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, (line, part)) in told.iter().zip(wanted) {
        assert!(told.starts_with(line) && told.ends_with(part), "{told}");
    }
}
