//! The real clients of Triton and KServe, and models by themselves.

use std::{fs, path::Path, process::Command};

use millstream_serve::ConnectionLimits;
use serde_json::{Value, json};

use super::{
    super::{PATIENCE, Serving, replace, served_project},
    PROJECT, error, tensor,
};

/// Where `scripts/oracles.sh` puts the packages.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/oip");
/// And those that not every script needs.
const MORE_PACKAGES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/sse"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/onnxruntime"),
];
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oip");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/fraud");
pub(super) const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/data");

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// The fraud example, the graphs of these tests, and every model that the tests of models have.
fn write_all(folder: &Path) {
    for part in ["data", "models"] {
        copy(&Path::new(EXAMPLE).join(part), &folder.join(part));
    }
    copy(Path::new(MODELS), &folder.join("models"));
    fs::write(folder.join("facts.csv"), "a,fact\n1,2\n").unwrap();
    let example = fs::read_to_string(Path::new(EXAMPLE).join("millstream.yaml")).unwrap();
    let expected: Value =
        serde_json::from_slice(&fs::read(Path::new(MODELS).join("expected.json")).unwrap()).unwrap();
    let models: String = expected
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| !example.contains(&format!("  {name}: {{ path")))
        .map(|name| format!("  {name}: {{ path: models/{name}.onnx }}\n"))
        .collect();
    let (graphs, sets) = PROJECT.split_once("graphs:\n").unwrap().1.split_once("feature_sets: { ").unwrap();
    let facts = sets.trim_end().trim_end_matches('}').trim_end();
    let text = example.replacen("models:\n", &format!("models:\n{models}"), 1).replacen(
        "feature_sets:\n",
        &format!("feature_sets:\n  {facts}\n"),
        1,
    );
    replace(&folder.join("millstream.yaml"), &format!("{text}{graphs}"));
}

/// Whether the real clients are there to be run.
pub(super) fn has_clients() -> bool {
    let there = ["tritonclient", "kserve"].iter().all(|package| Path::new(PACKAGES).join(package).exists());
    if !there {
        eprintln!("skipped: scripts/oracles.sh did not bring the packages tritonclient and kserve");
    }
    there
}

/// Runs a script of the real clients, which ends by saying that all was the same.
pub(super) fn run(script: &str, arguments: &[&str]) {
    let ran = Command::new("python3")
        .arg(Path::new(SCRIPTS).join(script))
        .args(arguments)
        .env("PYTHONPATH", [&[PACKAGES], &MORE_PACKAGES[..]].concat().join(":"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(told.ends_with("the same\n"), "{told}{}", String::from_utf8_lossy(&ran.stderr));
}

/// Runs a script of the real clients against everything that is written here.
fn check(script: &str) {
    if !has_clients() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let serving = |serving: &mut Serving| {
        run(script, &[&serving.address.to_string(), EXAMPLE, MODELS]);
        let metrics = serving.client().get("/metrics").text();
        assert!(
            metrics.contains(r#"millstream_runs_total{graph="fraud",outcome="ok"}"#),
            "what comes this way counts as what comes to graphs"
        );
    };
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, serving);
}

#[test]
fn the_clients_of_triton_and_kserve_work_unchanged() {
    check("client.py");
}

#[test]
fn the_client_of_triton_works_unchanged_over_grpc() {
    check("grpc_client.py");
}

#[test]
fn the_client_of_kserve_works_unchanged_over_grpc() {
    check("kserve_grpc.py");
}

#[test]
fn a_model_goes_with_its_version_of_the_project() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let serving = |serving: &mut Serving| {
        let infer = |path: &str| {
            let body =
                json!({ "inputs": [tensor("x", "FP32", json!([2, 2]), json!([[1.0, 0.0], [1.0, 1.0]]))] });
            serving.client().send("POST", path, &[], body.to_string().as_bytes())
        };
        let told = infer("/v2/models/outside/infer").json();
        assert_eq!(
            told["outputs"],
            json!([{ "name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 4.0, 6.0] }])
        );
        let text = fs::read_to_string(serving.folder.join("millstream.yaml")).unwrap();
        replace(&serving.folder.join("millstream.yaml"), &text.replace("  outside: {", "  inside: {"));
        serving.reload();
        assert_eq!(infer("/v2/models/inside/infer").status, 200);
        assert!(error(&infer("/v2/models/outside/infer"), 404).contains("no model `outside`"));
    };
    served_project(folder.path(), ConnectionLimits::default(), PATIENCE, serving);
}
