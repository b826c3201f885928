//! Rows as KServe's V1, MLRun's V2 and MLflow's scoring put them.

use serde_json::{Value, json};

use super::{super::client::Answer, Serving, error, inputs, serves};

fn post(serving: &Serving, path: &str, body: &Value) -> Answer {
    serving.client().send("POST", path, &[], body.to_string().as_bytes())
}

#[track_caller]
fn told(serving: &Serving, path: &str, body: &Value) -> Value {
    let answer = post(serving, path, body);
    assert_eq!(
        (answer.status, &answer.headers["content-type"][..]),
        (200, "application/json"),
        "{}",
        answer.text()
    );
    answer.json()
}

fn rows() -> [Value; 2] {
    [json!([{ "a": 1, "b": 0.5, "name": "x" }, { "a": 2, "b": 1 }]), json!([[1, 0.5, "x"], [2, 1, null]])]
}

fn predictions() -> Value {
    json!([{ "next": 2, "twice": 1.0, "name": "x" }, { "next": 3, "twice": 2.0, "name": null }])
}

#[test]
fn instances_are_answered_by_predictions() {
    serves(|serving| {
        for instances in rows() {
            for path in
                ["/v1/models/sum:predict", "/v1/models/sum/versions/1:predict", "/v1/models/%73um:predict"]
            {
                let told = told(serving, path, &json!({ "instances": instances, "signature_name": "s" }));
                assert_eq!(told, json!({ "predictions": predictions() }), "{path}");
            }
        }
        // One column in, one out: values by themselves. A row that the graph leaves out is not there.
        let one =
            |instances: Value| told(serving, "/v1/models/one:predict", &json!({ "instances": instances }));
        assert_eq!(one(json!([1, 2, 99])), json!({ "predictions": [2, 4] }));
        assert_eq!(one(json!([[1], [2]])), json!({ "predictions": [2, 4] }));
        assert_eq!(one(json!([])), json!({ "predictions": [] }));
        let mut client = serving.client();
        let models = json!({ "models": ["sum", "types", "slow", "one"] });
        assert_eq!(client.get("/v1/models").json(), models);
        assert_eq!(client.get("/v1/models/sum").json(), json!({ "name": "sum", "ready": true }));
        assert_eq!(client.get("/").json(), json!({ "status": "alive" }));
        assert_eq!(client.get("/ping").json(), json!({ "ready": true }));
    });
}

#[test]
fn requests_of_mlrun_are_answered_in_kind_on_the_paths_of_tensors() {
    serves(|serving| {
        for inputs in rows() {
            for path in ["/v2/models/sum/infer", "/v2/models/sum/versions/1/infer", "/v2/models/sum/predict"]
            {
                let mut told = told(serving, path, &json!({ "id": "7", "inputs": inputs }));
                let at = told.as_object_mut().unwrap().remove("timestamp").unwrap();
                let at = at.as_str().unwrap();
                assert!(at.len() == 32 && at.ends_with("+00:00"), "{at}");
                let outputs = predictions();
                let expected =
                    json!({ "id": "7", "model_name": "sum", "model_version": "1", "outputs": outputs });
                assert_eq!(told, expected, "{path}");
            }
        }
        let dict = json!({ "inputs": { "a": [1, 2], "b": [0.5, 1], "name": ["x", null] } });
        let told_of = told(serving, "/v2/models/sum/infer_dict", &dict);
        assert_eq!(told_of["outputs"], predictions());
        assert!(!told_of["id"].as_str().unwrap().is_empty(), "a request without a name gets that of its run");
        // What has a datatype is a tensor.
        let tensors = told(serving, "/v2/models/sum/infer", &json!({ "inputs": inputs(&[1], &[0.5]) }));
        assert_eq!(tensors["outputs"][0]["datatype"], "INT64");
    });
}

#[test]
fn data_frames_are_scored_by_the_only_graph() {
    let project = "\
name: scoring
graphs:
  only:
    input: { a: int64, b: float64 }
    steps: { out: { select: [\"a + b AS sum\"] } }
    respond: out
";
    super::serves_text(project, |serving| {
        let expected = json!({ "predictions": [1.5, 3.0] });
        for body in [
            json!({ "dataframe_split": { "columns": ["b", "a"], "index": [0, 1], "data": [[0.5, 1], [1, 2]] } }),
            json!({ "dataframe_records": [{ "a": 1, "b": 0.5 }, { "a": 2, "b": 1.0 }] }),
            json!({ "instances": [{ "a": 1, "b": 0.5 }, { "a": 2, "b": 1.0 }] }),
            json!({ "inputs": { "a": [1, 2], "b": [0.5, 1.0] }, "params": {} }),
        ] {
            assert_eq!(told(serving, "/invocations", &body), expected, "{body}");
        }
    });
    serves(|serving| {
        let answer = post(serving, "/invocations", &json!({ "instances": [] }));
        assert!(error(&answer, 404).contains("there is more than one graph or model"));
    });
}

#[test]
fn what_cannot_be_predicted_says_why() {
    serves(|serving| {
        for (path, body, status, part) in [
            ("/v1/models/sun:predict", json!({}), 404, "did you mean `sum`?"),
            ("/v1/models/sum/versions/2:predict", json!({}), 404, "no version `2`"),
            ("/v1/models/sum:explain", json!({}), 404, "model `sum` has no explainer"),
            ("/v1/models/sum:classify", json!({}), 404, "no such route"),
            ("/v1/models/sum:predict", json!({}), 400, "there is no `instances`"),
            (
                "/v1/models/sum:predict",
                json!({ "instances": [[1]] }),
                400,
                "a row has 1 values where there are 3 columns",
            ),
            (
                "/v1/models/sum:predict",
                json!({ "instances": [{ "a": "x", "b": 1 }] }),
                400,
                "row 0: field `a`",
            ),
            ("/v2/models/sum/infer", json!({ "inputs": [[1, 2]] }), 400, "a row has 2 values"),
            ("/v2/models/sum/predict", json!({ "inputs": [7] }), 400, "`inputs`: "),
        ] {
            let answer = post(serving, path, &body);
            let error = error(&answer, status);
            assert!(error.contains(part), "{path} {body}: {error}");
        }
        let mut client = serving.client();
        let answer = client.get("/v1/models/sum:predict");
        assert_eq!((answer.status, &answer.headers["allow"][..]), (405, "POST"));
    });
}
