//! Voice activity, window by window: a model that ships in a Python package and keeps a state, as in Python.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::{client::Client, project, serving::Serving};

/// Where `scripts/oracles.sh` puts the packages.
const SILERO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/silero/silero_vad/data/silero_vad.onnx");
const RUNTIME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/onnxruntime");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/voice/expected.py");

const PROJECT: &str = "\
name: voice
models: { silero: { path: silero.onnx, warm_up: false } }
graphs:
  voice:
    input: { session: int64, input: \"tensor<float32, 576>\", first: bool }
    steps:
      heard:
        sequence:
          use: silero
          id: session
          start: first
          states: { state: stateN }
          constants: { sr: 16000 }
          outputs: { speech: output }
          keep: [session]
      talks: { with: { talks: speech > 0.5 } }
    respond: talks
";

#[test]
fn speech_is_heard_as_in_python_in_every_recording_at_once() {
    if !Path::new(SILERO).exists() || !Path::new(RUNTIME).exists() {
        eprintln!("skipped: scripts/oracles.sh did not bring the packages silero-vad and onnxruntime");
        return;
    }
    let told = Command::new("python3").args([SCRIPT, SILERO]).env("PYTHONPATH", RUNTIME).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let windows: Vec<Value> = String::from_utf8(told.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let folder = project(PROJECT);
    fs::copy(SILERO, folder.path().join("silero.onnx")).unwrap();
    let serving = Serving::start_with(&folder, &["--drain-delay-s", "0"]);
    let mut client = Client::connect(serving.address);
    let mut ask = |window: &Value, first: bool| {
        let body =
            json!({ "session": window["session"], "input": window["input"], "first": first }).to_string();
        let answer = client.send("POST", "/v1/graphs/voice", &[], body.as_bytes());
        (answer.status, answer.json())
    };
    let (one, two) = windows.split_at(windows.len() / 2);
    let (mut loud, mut quiet) = (0, 0);
    // Two recordings take turns, and neither hears the other.
    for (at, pair) in one.iter().zip(two).enumerate() {
        for window in [pair.0, pair.1] {
            let (status, told) = ask(window, at == 0);
            assert_eq!(status, 200, "{told}");
            let (speech, wanted) = (told["speech"].as_f64().unwrap(), window["speech"].as_f64().unwrap());
            assert!((speech - wanted).abs() < 1e-5, "window {at}: {speech}, not {wanted}");
            assert_eq!(told["talks"], speech > 0.5);
            if speech > 0.5 { loud += 1 } else { quiet += 1 }
        }
    }
    assert!(loud > 0 && quiet > 0, "{loud} windows of speech, {quiet} of none");
    // A recording that is heard from its middle on, or again from its start, is another.
    let again = ask(&one[0], true).1["speech"].as_f64().unwrap();
    assert!((again - one[0]["speech"].as_f64().unwrap()).abs() < 1e-5);
    let (status, told) = ask(&json!({ "session": 9, "input": one[0]["input"] }), false);
    assert_eq!(status, 400, "{told}");
    assert!(told["error"].as_str().unwrap().contains("sequence `9` has not begun"), "{told}");
}
