//! Routers as projects write them, over HTTP: the recipes of the documentation, each with real models.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{client::Client, project, serving::Serving};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/models/tests/data");

/// One model is cheap and answers 0.75 or 0.25, by `at`; the other answers 24.
const PROJECT: &str = r#"
name: routers
models:
  cheap: { path: picky.onnx }
  dear: { path: rounds.onnx }
graphs:
  cascade:
    input: { id: int64, x: float32, at: int64 }
    steps:
      first: { model: { use: cheap, inputs: { at: at }, outputs: { score: found } } }
      ways: { when: { ports: { sure: "score > 0.5" }, otherwise: unsure } }
      second: { from: ways.unsure, model: { use: dear, inputs: { x: [x] }, outputs: { dear: y } } }
      told: { from: ways.sure, select: [id, score, "'cheap' AS who"] }
      asked: { from: second, select: [id, "dear AS score", "'dear' AS who"] }
      all: { from: [told, asked], merge: }
    respond: all
  shadowed:
    input: { id: int64, x: float32, at: int64 }
    steps:
      champion: { model: { use: cheap, inputs: { at: at }, outputs: { score: found } } }
      shadow:
        from: champion
        model: { use: dear, inputs: { x: [x] }, outputs: { shadow: y } }
        limit: 1
      compared: { select: [id, score, shadow, "abs(score - shadow) AS apart"] }
      record: { sink: { file: log/compared.jsonl } }
    respond: champion
  tested:
    input: { id: int64, x: float32, at: int64 }
    steps:
      arms: { split: { by: id, ports: { a: 50, b: 50 }, salt: s, as: arm } }
      a: { from: arms.a, model: { use: cheap, inputs: { at: at }, outputs: { score: found } } }
      b: { from: arms.b, model: { use: dear, inputs: { x: [x] }, outputs: { score: y } } }
      scored: { from: [a, b], merge: }
      assigned: { from: scored, select: [id, arm, score] }
      record: { sink: { file: log/assigned.jsonl } }
    respond: scored
  canaried:
    input: { id: int64, x: float32, at: int64 }
    steps:
      scored:
        model: { use: cheap, inputs: { at: at }, outputs: { score: found } }
        canary:
          step: { model: { use: dear, inputs: { x: [x] }, outputs: { score: y } } }
          percent: 50
          by: id
          as: arm
          rollback: { disagreement: 0.1 }
    respond: scored
  voted:
    input: { id: int64, x: float32, at: int64 }
    steps:
      asked:
        quorum:
          need: 1
          steps:
            cheap: { model: { use: cheap, inputs: { at: at }, outputs: { cheap: found } } }
            broken: { remote: { url: "http://127.0.0.1:9/", idempotent: true, output: { broken: float64 } } }
      score: { ensemble: { method: max, members: [cheap, broken], as: score, missing: renormalise } }
    respond: score
  decided:
    input: { id: int64, x: float32, at: int64 }
    steps:
      asked:
        quorum:
          vote: { silent: 1, large: 1, late: 1 }
          steps:
            silent: { remote: { url: "http://SILENT/", idempotent: true, output: { silent: int64 } } }
            large: { with: { large: "CASE WHEN x > 1 THEN 1 ELSE 0 END" } }
            late: { with: { late: "id" } }
      verdict:
        ensemble: { method: majority_vote, members: { silent: 1, large: 1, late: 1 }, as: verdict, missing: renormalise }
    respond: verdict
"#;

fn served(body: impl FnOnce(&mut Client, &TempDir)) {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = project(&PROJECT.replace("SILENT", &silent.local_addr().unwrap().to_string()));
    for model in ["picky.onnx", "rounds.onnx"] {
        fs::copy(format!("{MODELS}/{model}"), folder.path().join(model)).unwrap();
    }
    let serving = Serving::start_with(&folder, &["--drain-delay-s", "0"]);
    body(&mut Client::connect(serving.address), &folder);
}

fn ask(client: &mut Client, graph: &str, id: i64, at: i64) -> Value {
    let body = json!({ "id": id, "x": 3.0, "at": at }).to_string();
    let answer = client.send("POST", &format!("/v1/graphs/{graph}"), &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{graph}: {}", answer.text());
    answer.json()
}

/// The lines of the file that a sink has begun, once there are so many.
fn lines(folder: &Path, name: &str, count: usize) -> Vec<Value> {
    loop {
        let files = fs::read_dir(folder.join("log")).into_iter().flatten();
        let text: String = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        std::thread::yield_now();
    }
}

#[test]
fn the_dear_model_is_asked_where_the_cheap_one_is_not_sure() {
    served(|client, _| {
        for (at, score, who) in [(1, 0.75, "cheap"), (0, 24.0, "dear")] {
            assert_eq!(ask(client, "cascade", 1, at), json!({ "id": 1, "score": score, "who": who }));
        }
    });
}

#[test]
fn what_a_shadow_answers_is_compared_and_kept_and_nobody_waits_for_it() {
    served(|client, folder| {
        let told = ask(client, "shadowed", 7, 1);
        assert_eq!(told, json!({ "id": 7, "x": 3.0, "at": 1, "score": 0.75 }));
        let kept = &lines(folder.path(), "compared", 1)[0];
        assert_eq!(kept, &json!({ "id": 7, "score": 0.75, "shadow": 24.0, "apart": 23.25 }));
    });
}

#[test]
fn who_was_assigned_to_what_is_kept() {
    served(|client, folder| {
        let arms: BTreeMap<i64, Value> =
            (0..40).map(|id| (id, ask(client, "tested", id, 1)["arm"].clone())).collect();
        assert!(arms.values().any(|arm| arm == "a") && arms.values().any(|arm| arm == "b"), "{arms:?}");
        let kept = lines(folder.path(), "assigned", 40);
        for line in &kept {
            let score = if line["arm"] == "a" { 0.75 } else { 24.0 };
            assert_eq!((&line["arm"], &line["score"]), (&arms[&line["id"].as_i64().unwrap()], &json!(score)));
        }
    });
}

#[test]
fn a_canary_that_answers_otherwise_is_taken_back() {
    served(|client, _| {
        let mut arms = Vec::new();
        // A tenth of its calls is compared, and twenty must be.
        for id in 0..600 {
            let told = ask(client, "canaried", id, 1);
            assert_eq!(told["score"], if told["arm"] == "canary" { 24.0 } else { 0.75 });
            arms.push(told["arm"] == "canary");
        }
        assert!(arms[..100].contains(&true) && !arms[500..].contains(&true), "{arms:?}");
    });
}

#[test]
fn enough_members_are_an_ensemble_and_the_reply_says_who_is_missing() {
    served(|client, _| {
        let body = json!([{ "id": 1, "x": 3.0, "at": 1 }]).to_string();
        let answer = client.send("POST", "/v1/graphs/voted", &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        assert_eq!((&told[0]["score"], &told[0]["cheap"]), (&json!(0.75), &json!(0.75)), "{told}");
        assert!(told[0].get("broken").is_none_or(Value::is_null), "{told}");
    });
}

#[test]
fn a_vote_that_is_decided_does_not_wait_for_a_member_that_is_silent() {
    served(|client, _| {
        let told = ask(client, "decided", 1, 1);
        assert_eq!(
            (&told["verdict"], &told["large"], &told["late"]),
            (&json!(1), &json!(1), &json!(1)),
            "{told}"
        );
        assert!(told.get("silent").is_none_or(Value::is_null), "{told}");
    });
}
