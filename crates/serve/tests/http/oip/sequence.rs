//! Models that keep a state, by the parameters that clients send.

use std::{fs, path::Path};

use millstream_serve::ConnectionLimits;
use serde_json::json;

use super::{
    super::{PATIENCE, replace, served_project},
    clients::{MODELS, has_clients, run},
    tensor,
};

const PROJECT: &str = "\
name: sequences
models: { sums: { path: sums.onnx } }
graphs:
  totals:
    input: { sequence_id: string, sequence_start: bool, sequence_end: bool, x: \"tensor<float32, 2>\" }
    steps:
      kept:
        sequence:
          use: sums
          id: sequence_id
          start: sequence_start
          end: sequence_end
          states: { total: next }
          constants: { by: 10 }
          outputs: { sum: \"y[0]\" }
    respond: kept
";

#[test]
fn what_a_request_says_of_its_sequence_are_inputs() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(Path::new(MODELS).join("sums.onnx"), folder.path().join("sums.onnx")).unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, |serving| {
        let x = tensor("x", "FP32", json!([2, 2]), json!([1.0, 1.0, 2.0, 2.0]));
        let parameters = json!({ "sequence_id": 7, "sequence_start": false, "sequence_end": false });
        let started = tensor("sequence_start", "BOOL", json!([2]), json!([true, false]));
        let body = json!({ "inputs": [x, started], "parameters": parameters });
        let answer =
            serving.client().send("POST", "/v2/models/totals/infer", &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let outputs = answer.json()["outputs"].clone();
        let sum = outputs.as_array().unwrap().iter().find(|output| output["name"] == "sum").unwrap().clone();
        assert_eq!(
            sum["data"],
            json!([10.0, 30.0]),
            "an input that is there counts, and the others are filled in"
        );
        let rows = 100_000;
        let (x, name) = (tensor("x", "FP32", json!([rows, 2]), json!(vec![1.0; 2 * rows])), "x".repeat(1000));
        let body = json!({ "inputs": [x], "parameters": { "sequence_id": name } });
        let answer =
            serving.client().send("POST", "/v2/models/totals/infer", &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("parameter `sequence_id` comes to more than"), "{}", answer.text());
        let body = json!({ "inputs": [tensor("x", "FP32", json!([1, 2]), json!([1.0, 1.0]))], "parameters": {
            "sequence_id": name, "sequence_start": true, "sequence_end": false,
        } });
        let answer =
            serving.client().send("POST", "/v2/models/totals/infer", &[], body.to_string().as_bytes());
        assert!(answer.status == 400 && answer.text().contains("more than 256 bytes"), "{}", answer.text());
        if has_clients() {
            run("sequence.py", &[&serving.address.to_string()]);
        }
    });
}
