//! The OpenAPI document, held against what the server does.

use std::{fs, path::Path, process::Command};

use millstream_serve::ConnectionLimits;

use super::{PATIENCE, replace, served_as};

/// Where `scripts/oracles.sh` puts the package.
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/schemathesis");

/// One of everything that has routes.
const PROJECT: &str = "\
name: everything
repository: { path: repository }
feature_sets:
  facts: { keys: [a], source: facts.csv }
  taken: { keys: [k], types: { k: int64 }, features: { x: float64 }, timestamp: at, online: { local: { path: state/taken } } }
feature_vectors:
  known: { features: [facts.fact] }
graphs:
  sum:
    input: { a: int64, b: float64?, tags: list<string>?, place: \"struct<lat: float64>?\" }
    explain: why
    steps: { out: { with: { twice: a / 2 } } }
    respond: out
    monitor: { input: {}, out: { performance: { prediction: twice, task: regression } } }
  why:
    input: { a: int64, b: float64?, tags: list<string>?, place: \"struct<lat: float64>?\" }
    steps: { out: { select: [a] } }
    respond: out
";

/// `503` is how a model says that it is not loaded. `504` is what a caller hears who gives a run no time, which a document cannot tell
/// from other times.
const CONFIG: &str = "\
[checks]
not_a_server_error.expected-statuses = ['2xx', '3xx', '4xx', '503', '504']
";

#[test]
fn the_server_does_what_the_document_says() {
    if !Path::new(PACKAGE).join("schemathesis").exists() {
        eprintln!("skipped: scripts/oracles.sh did not bring the package schemathesis");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("facts.csv"), "a,fact\n1,2\n").unwrap();
    let model = folder.path().join("repository/several/1");
    fs::create_dir_all(&model).unwrap();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/data");
    fs::copy(Path::new(models).join("rank3.onnx"), model.join("model.onnx")).unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    let apart = tempfile::tempdir().unwrap();
    let config = apart.path().join("schemathesis.toml");
    fs::write(&config, CONFIG).unwrap();
    let control = |server: millstream_serve::Server| server.model_control(true);
    served_as(folder.path(), ConnectionLimits::default(), PATIENCE, control, |serving| {
        let ran = Command::new("python3")
            .args(["-m", "schemathesis.cli", "--config-file"])
            .arg(&config)
            .arg("run")
            .arg(format!("http://{}/openapi.json", serving.address))
            // What never ends is not asked, and what is asked is the same each time.
            .args(["--exclude-path-regex", "/live$", "--seed", "7", "--generation-deterministic"])
            .args(["--max-examples", "15", "--phases", "coverage,fuzzing", "--no-color"])
            // What a schema cannot say, such as which facts there are, is refused all the same.
            .args(["--exclude-checks", "positive_data_acceptance"])
            .current_dir(apart.path())
            .env("PYTHONPATH", PACKAGE)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
        assert!(told.contains("Tested: "), "{told}");
    });
}
