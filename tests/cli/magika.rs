//! Kinds of files as Python's `magika` tells them apart: by the example that puts a step of its own before a project's graph.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{client::Client, example};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
/// How far a score may be from Python's.
const TOLERANCE: f64 = 1e-6;

/// A copy of the example with the model that `scripts/oracles.sh` brought, and what Python says of files in a folder.
fn as_in_python(corpus: &TempDir) -> Option<(TempDir, Vec<Value>)> {
    let [package, runtime] = ["target/magika", "target/onnxruntime"].map(|part| Path::new(HERE).join(part));
    if !package.join("magika").exists() || !runtime.exists() {
        eprintln!("skipped: scripts/oracles.sh did not bring the packages magika and onnxruntime");
        return None;
    }
    let project = tempfile::tempdir().unwrap();
    let here = Path::new(HERE).join("examples/magika");
    fs::copy(here.join("millstream.yaml"), project.path().join("millstream.yaml")).unwrap();
    let python = |arguments: &[&Path]| {
        let path = env::join_paths([&package, &runtime]).unwrap();
        let output = Command::new("python3").args(arguments).env("PYTHONPATH", path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let fetch = here.join("fetch.py");
    python(&[&fetch, Path::new("--package"), &package, Path::new("--into"), project.path()]);
    let said = python(&[&Path::new(HERE).join("tests/magika/expected.py"), Path::new(HERE), corpus.path()]);
    let files = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Some((project, files))
}

/// The example as a server on a free port.
struct Serving(Child);

impl Serving {
    fn start(project: &TempDir) -> (Self, Client) {
        let mut server = Command::new(example("magika"))
            .arg(project.path())
            .args(["--serve", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let serving = Self(server);
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split_once(": "));
        let address = address.unwrap_or_else(|| panic!("{line}")).0;
        (serving, Client::connect(address.parse().unwrap()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same label, guess and reason, and a score within the tolerance; then what becomes of the file.
#[track_caller]
fn assert_same<'t>(told: &'t Value, file: &Value) -> &'t str {
    let (answer, path) = (&file["answer"], &file["path"]);
    for column in ["label", "guess", "reason", "mime", "text"] {
        assert_eq!(told[column], answer[column], "{column} of {path}: {told}");
    }
    let (score, wanted) = (told["score"].as_f64().unwrap(), answer["score"].as_f64().unwrap());
    assert!((score - wanted).abs() <= TOLERANCE, "{path}: {score}, not {wanted}");
    let action = match (answer["reason"].as_str(), answer["text"].as_bool()) {
        (Some("low_confidence"), _) => "review",
        (_, Some(true)) => "index",
        _ => "store",
    };
    assert_eq!(told["action"], action, "{path}");
    told["action"].as_str().unwrap()
}

#[test]
fn files_are_told_apart_as_in_python() {
    let corpus = tempfile::tempdir().unwrap();
    let Some((project, files)) = as_in_python(&corpus) else { return };

    // All of them in one run, read from the disk.
    let paths = files.iter().map(|file| file["path"].as_str().unwrap());
    let output = Command::new(example("magika")).arg(project.path()).args(paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), files.len());
    let mut actions = BTreeMap::new();
    for (told, file) in told.iter().zip(&files) {
        assert_eq!(told["name"], file["path"]);
        *actions.entry(assert_same(told, file)).or_insert(0) += 1;
    }
    assert_eq!(actions.keys().collect::<Vec<_>>(), [&"index", &"review", &"store"], "{actions:?}");
    for reason in ["none", "low_confidence", "overwrite_map"] {
        assert!(files.iter().any(|file| file["answer"]["reason"] == reason), "no file for {reason}");
    }

    // In base64, some together and one of them by itself.
    let (_serving, mut client) = Serving::start(&project);
    let mut ask = |body: &Value| {
        let answer = client.send("POST", "/magika", &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    for part in files.chunks(20) {
        let bodies: Vec<_> = part.iter().map(|file| json!({ "content": file["content"] })).collect();
        assert_same(&ask(&bodies[0]), &part[0]);
        let told = ask(&json!(bodies));
        assert_eq!(told.as_array().unwrap().len(), part.len());
        for (told, file) in told.as_array().unwrap().iter().zip(part) {
            assert_same(told, file);
        }
    }
}
