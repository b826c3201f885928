//! Replies in parts of a model that keeps a state, by real clients.

use std::{fs, path::Path};

use millstream_serve::ConnectionLimits;

use super::{
    super::{PATIENCE, replace, served_project},
    clients::{MODELS, has_clients, run},
};

const PROJECT: &str = "\
name: parts
models: { decoder: { path: decoder.onnx } }
graphs:
  write:
    input: { token: int64, state: \"tensor<float32, 4>\" }
    steps:
      decoded: { model: { use: decoder, keep: none } }
      out: { select: [next, state_out, \"next = 0 AS done\"] }
    respond: out
    stream: { feed: { token: next, state: state_out }, until: done, most: 20 }
  plain:
    input: { a: int64 }
    steps: { out: { select: [\"a * 2 AS twice\"] } }
    respond: out
";

#[test]
fn parts_are_those_of_a_loop_around_the_model() {
    let target = Path::new(MODELS).join("../../../../target");
    if !has_clients() {
        return;
    }
    for (package, module) in [("sse", "httpx_sse"), ("onnxruntime", "onnxruntime")] {
        if !target.join(package).join(module).exists() {
            eprintln!("skipped: scripts/oracles.sh did not bring the package {module}");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("decoder.onnx");
    fs::copy(Path::new(MODELS).join("decoder.onnx"), &model).unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, |serving| {
        run("parts.py", &[&serving.address.to_string(), model.to_str().unwrap()]);
        let metrics = serving.client().get("/metrics").text();
        assert!(metrics.contains(r#"millstream_runs_total{graph="write",outcome="ok"}"#), "{metrics}");
    });
}
