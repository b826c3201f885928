//! Models that come and go while requests do, and what is told of them.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use millstream_serve::{ConnectionLimits, Outcome};
use serde_json::{Value, json};

use super::{
    super::{PATIENCE, Serving, replace, served_as},
    clients::{MODELS, has_clients, run},
    error, tensor,
};

/// A graph, and a repository beside it.
fn project(settings: &str) -> String {
    format!(
        "name: many
repository: {{ path: repository{settings} }}
graphs:
  echo:
    input: {{ a: int64 }}
    steps: {{ same: {{ select: [a] }} }}
    respond: same
"
    )
}

/// Puts a fixture of the models' tests, or a text, into the repository.
fn put(folder: &Path, place: &str, content: &str) {
    let file = folder.join("repository").join(place);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    if content.ends_with(".onnx") {
        fs::copy(Path::new(MODELS).join(content), file).unwrap();
    } else {
        fs::write(file, content).unwrap();
    }
}

fn serves(settings: &str, control: bool, body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("millstream.yaml"), &project(settings));
    // Adds weights to two columns; sums lists; names countries.
    put(folder.path(), "outside/1/model.onnx", "outside.onnx");
    put(folder.path(), "outside/1/weights.bin", "");
    fs::copy(Path::new(MODELS).join("weights.bin"), folder.path().join("repository/outside/1/weights.bin"))
        .unwrap();
    put(folder.path(), "several/1/model.onnx", "rank3.onnx");
    put(folder.path(), "several/3/model.onnx", "rank3.onnx");
    put(folder.path(), "several/config.pbtxt", "version_policy { all {} } max_batch_size: 4");
    put(folder.path(), "zip/1/model.onnx", "zip_ints.onnx");
    let limits = ConnectionLimits::default();
    served_as(folder.path(), limits, PATIENCE, |server| server.model_control(control), body);
}

fn x(rows: usize) -> Value {
    let values: Vec<f32> = (0..rows * 6).map(|value| value as f32).collect();
    json!({ "inputs": [tensor("x", "FP32", json!([rows, 2, 3]), json!(values))] })
}

fn index(serving: &Serving) -> Vec<String> {
    let lines = serving.client().send("POST", "/v2/repository/index", &[], b"").json();
    let line = |line: &Value| {
        let version = line["version"].as_str().map_or(String::new(), |version| format!("/{version}"));
        format!(
            "{}{version} {} {}",
            line["name"].as_str().unwrap(),
            line["state"].as_str().unwrap(),
            line["reason"].as_str().unwrap()
        )
        .trim_end()
        .to_owned()
    };
    lines.as_array().unwrap().iter().map(line).collect()
}

fn post(serving: &Serving, path: &str, body: &Value) -> super::Answer {
    serving.client().send("POST", path, &[], body.to_string().as_bytes())
}

#[test]
fn versions_and_labels_are_asked_for_by_path() {
    serves(", labels: { several: { champion: 1 } }", false, |serving| {
        assert_eq!(
            index(serving),
            ["echo/1 READY", "outside/1 READY", "several/1 READY", "several/3 READY", "zip/1 READY"]
        );
        let mut client = serving.client();
        assert_eq!(client.get("/v2/models/several").json()["versions"], json!(["1", "3"]));
        assert_eq!(client.get("/v2/models/several/config").json()["max_batch_size"], json!(4));
        for (version, answers) in
            [("", "3"), ("/versions/3", "3"), ("/versions/1", "1"), ("/versions/champion", "1")]
        {
            let answer = post(serving, &format!("/v2/models/several{version}/infer"), &x(1));
            assert_eq!(answer.json()["model_version"], answers, "{}", answer.text());
            assert_eq!(client.get(&format!("/v2/models/several{version}/ready")).status, 200);
        }
        let answer = post(serving, "/v2/models/several/versions/2/infer", &x(1));
        assert!(error(&answer, 404).contains("has no version `2`; there is `1`, `3`"));
        assert_eq!(post(serving, "/v2/models/several/infer", &x(4)).status, 200);
        assert_eq!(post(serving, "/v2/models/several/infer", &x(5)).status, 413);
        // In the other dialects too.
        let rows = json!({ "instances": [[[0, 1, 2], [3, 4, 5]]] });
        assert_eq!(post(serving, "/v1/models/several:predict", &rows).status, 200);
        assert_eq!(
            post(serving, "/v2/models/several/predict", &json!({ "inputs": [[[0, 1, 2], [3, 4, 5]]] }))
                .status,
            200
        );
    });
}

#[test]
fn what_clients_may_not_change_they_are_refused() {
    serves("", false, |serving| {
        for (path, body) in [
            ("/v2/repository/models/several/load", json!({})),
            ("/v2/repository/models/several/unload", json!({})),
            ("/v2/logging", json!({ "log_verbose_level": 1 })),
            ("/v2/trace/setting", json!({ "trace_level": ["TIMESTAMPS"] })),
        ] {
            let answer = post(serving, path, &body);
            assert!(error(&answer, 403).contains("--model-control explicit"), "{path}");
        }
        let mut client = serving.client();
        assert_eq!(client.get("/v2/trace/setting").json()["trace_level"], json!(["OFF"]));
        assert!(client.get("/v2/logging").json()["log_error"].is_boolean());
        assert_eq!(client.get("/v2/models/several/trace/setting").status, 200);
        assert_eq!(client.get("/v2/models/none/trace/setting").status, 404);
        assert_eq!(client.get("/v2/repository/models/several/load").status, 405);
    });
}

#[test]
fn models_are_loaded_and_unloaded_by_calls() {
    serves(", load: asked", true, |serving| {
        assert_eq!(
            index(serving)[1..],
            [
                "outside UNAVAILABLE not loaded",
                "several UNAVAILABLE not loaded",
                "zip UNAVAILABLE not loaded"
            ]
        );
        let infer = |rows| post(serving, "/v2/models/several/infer", &x(rows));
        assert!(error(&infer(1), 404).contains("has no available versions"));
        assert_eq!(serving.client().get("/v2/models/several/ready").status, 503);
        let load =
            |name: &str, body: Value| post(serving, &format!("/v2/repository/models/{name}/load"), &body);
        assert_eq!(load("several", json!({})).json(), json!({}));
        assert_eq!(infer(1).status, 200);
        // Another configuration than the file's, and a model that is sent along.
        let config = json!({ "parameters": { "config": "{\"version_policy\": {\"latest\": {}}, \"max_batch_size\": 2}" } });
        assert_eq!(load("several", config).status, 200);
        assert_eq!(serving.client().get("/v2/models/several").json()["versions"], json!(["3"]));
        assert_eq!((infer(2).status, infer(3).status), (200, 413));
        let model = fs::read(Path::new(MODELS).join("rank3.onnx")).unwrap();
        let model = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, model);
        let sent = json!({ "parameters": { "config": "{}", "file:9/model.onnx": model } });
        assert_eq!(load("zip", sent).json(), json!({}));
        let answer = post(serving, "/v2/models/zip/versions/9/infer", &x(1));
        assert_eq!(answer.status, 200, "{}", answer.text());
        for (name, body, status, problem) in [
            ("nothing", json!({}), 404, "no model `nothing`"),
            ("..", json!({}), 404, "no model `..`"),
            ("echo", json!({}), 400, "is the project's own"),
            ("zip", json!({ "parameters": { "file:9/model.onnx": "%" } }), 400, "is not base64"),
            ("zip", json!({ "parameters": { "file:9/model.onnx": "AAAA" } }), 500, "is not an ONNX model"),
            ("zip", json!({ "parameters": { "config": 1 } }), 400, "parameter `config` is no text"),
            ("zip", json!({ "parameters": { "colour": "red" } }), 400, "parameter `colour` is none of"),
            ("zip", json!({ "parameters": 1 }), 400, "parameters is an object"),
            ("zip", json!([]), 400, "the body is no object"),
        ] {
            assert!(error(&load(name, body), status).contains(problem), "{problem}");
        }
        // What failed left what was there.
        assert_eq!(post(serving, "/v2/models/zip/infer", &x(1)).status, 200);
        let unload = |name: &str| {
            post(serving, &format!("/v2/repository/main/models/{name}/unload"), &json!({})).status
        };
        assert_eq!((unload("several"), unload("nothing")), (200, 200));
        assert!(error(&infer(1), 404).contains("has no available versions"));
        assert_eq!(index(serving)[2], "several UNAVAILABLE unloaded");
        let metrics = serving.client().get("/metrics").text();
        assert!(metrics.contains("millstream_models_loaded 1"), "{metrics}");
        assert!(metrics.contains(r#"millstream_model_loads_total{outcome="failed"} 1"#), "{metrics}");
    });
}

#[test]
fn lazy_models_come_when_they_are_asked_for_and_go_when_others_need_the_room() {
    let size = fs::metadata(Path::new(MODELS).join("rank3.onnx")).unwrap().len();
    let instances = thread::available_parallelism().unwrap().get() as u64;
    let both = size * instances * 2;
    serves(&format!(", load: lazy, memory: {both}B"), false, |serving| {
        assert!(index(serving).iter().skip(1).all(|line| line.ends_with("UNAVAILABLE not loaded")));
        let mut client = serving.client();
        assert_eq!(client.get("/v2/models/several/ready").status, 200);
        assert_eq!(client.get("/v2/models/several/versions/3").json()["versions"], json!(["1", "3"]));
        assert_eq!(index(serving)[2..4], ["several/1 READY", "several/3 READY"]);
        // One that is larger than all the room there is.
        put(&serving.folder, "large/1/model.onnx", "image.onnx");
        put(&serving.folder, "large/config.pbtxt", "instance_group { count: 1000 }");
        assert!(
            error(&post(serving, "/v2/models/large/infer", &x(1)), 503)
                .contains("cannot be loaded at present")
        );
        assert_eq!(index(serving)[3..], ["several/1 READY", "several/3 READY", "zip UNAVAILABLE not loaded"]);
        put(&serving.folder, "other/1/model.onnx", "rank3.onnx");
        put(&serving.folder, "other/config.pbtxt", "instance_group { count: 1 }");
        assert_eq!(post(serving, "/v2/models/other/infer", &x(1)).status, 200);
        let there = index(serving);
        assert!(
            there.contains(&"other/1 READY".to_owned())
                && there.contains(&"several UNAVAILABLE not loaded".to_owned()),
            "{there:?}"
        );
        assert!(serving.client().get("/metrics").text().contains("millstream_model_evictions_total 1"));
    });
}

#[test]
fn who_waits_too_long_for_a_lazy_model_is_told_so_and_the_load_goes_on() {
    serves(", load: lazy", false, |serving| {
        // So many sessions take longer than no time at all.
        put(&serving.folder, "slow/1/model.onnx", "rank3.onnx");
        put(&serving.folder, "slow/config.pbtxt", "instance_group { count: 300 }");
        let headers = [("x-request-timeout-ms", "0")];
        let rows = json!({ "instances": [[[0, 1, 2], [3, 4, 5]]] });
        let late = |path: &str, body: Value| {
            let answer = serving.client().send("POST", path, &headers, body.to_string().as_bytes());
            error(&answer, 504)
        };
        let told = late("/v2/models/slow/infer", x(1));
        assert_eq!(told, "the deadline passed while model `slow` was being loaded");
        late("/v1/models/slow:predict", rows);
        late("/v2/models/infer", json!({ "model": "slow", "inputs": x(1)["inputs"] }));
        let answer = post(serving, "/v2/models/slow/infer", &x(1));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let metrics = serving.client().get("/metrics").text();
        assert!(metrics.contains(r#"millstream_model_loads_total{outcome="loaded"} 1"#), "{metrics}");
    });
}

#[test]
fn no_request_is_lost_while_a_model_is_loaded_again_and_again() {
    serves("", true, |serving| {
        let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (mut client, body) = (serving.client(), x(1).to_string());
                    while !stop.load(SeqCst) {
                        let answer = client.send("POST", "/v2/models/several/infer", &[], body.as_bytes());
                        if answer.status != 200 {
                            stop.store(true, SeqCst);
                            panic!("{}", answer.text());
                        }
                        asked.fetch_add(1, SeqCst);
                    }
                });
            }
            for load in 0..30 {
                let before = asked.load(SeqCst);
                let answer = post(serving, "/v2/repository/models/several/load", &json!({}));
                assert_eq!(answer.status, 200, "{}", answer.text());
                while asked.load(SeqCst) < before + 3 && !stop.load(SeqCst) {
                    thread::yield_now();
                }
                assert!(!stop.load(SeqCst), "a request was lost at load {load}");
            }
            stop.store(true, SeqCst);
        });
    });
}

#[test]
fn a_reload_of_the_project_leaves_its_repository_alone_until_its_settings_change() {
    serves(", load: asked", true, |serving| {
        assert_eq!(post(serving, "/v2/repository/models/several/load", &json!({})).status, 200);
        let file = serving.folder.join("millstream.yaml");
        replace(&file, &project(", load: asked").replace("name: many", "name: more"));
        serving.reload();
        assert_eq!(index(serving)[2], "several/1 READY");
        let graphs =
            "graphs:\n  more: { input: { a: int64 }, steps: { same: { select: [a] } }, respond: same }\n";
        replace(&file, &project(", load: asked").replace("graphs:\n", graphs));
        serving.reload();
        assert_eq!(post(serving, "/v1/graphs/more", &json!({ "a": 1 })).status, 200);
        assert!(index(serving).contains(&"several/1 READY".to_owned()), "{:?}", index(serving));
        replace(&file, &project(", load: lazy"));
        serving.reload();
        assert_eq!(index(serving)[2], "several UNAVAILABLE not loaded");
        put(&serving.folder, "echo/1/model.onnx", "rank3.onnx");
        replace(&file, &project(""));
        let reload = serving.reload();
        let Outcome::Failed(mistakes) = &reload.outcome else { panic!("{reload:?}") };
        assert!(
            mistakes
                .iter()
                .any(|mistake| mistake.contains("a graph or a model of the project has that name")),
            "{mistakes:?}"
        );
    });
}

#[test]
fn statistics_count_what_was_done() {
    serves("", false, |serving| {
        let of = |path: &str| serving.client().get(path).json()["model_stats"].as_array().unwrap().clone();
        assert_eq!(of("/v2/models/stats").len(), 5);
        assert_eq!(of("/v2/models/several/versions/3/stats")[0]["inference_stats"]["success"]["count"], 0);
        for rows in [1, 2, 3] {
            assert_eq!(post(serving, "/v2/models/several/infer", &x(rows)).status, 200);
        }
        assert_eq!(post(serving, "/v2/models/several/infer", &json!({ "inputs": [] })).status, 400);
        let told = of("/v2/models/several/stats");
        assert_eq!(told.len(), 2);
        let several = told.iter().find(|version| version["version"] == "3").unwrap();
        assert_eq!((&several["inference_count"], &several["execution_count"]), (&json!(6), &json!(3)));
        let stats = &several["inference_stats"];
        assert_eq!((&stats["success"]["count"], &stats["compute_input"]["count"]), (&json!(3), &json!(4)));
        let ns = |key: &str| stats[key]["ns"].as_u64().unwrap();
        assert!(ns("compute_infer") > 0 && ns("compute_input") > 0 && ns("compute_output") > 0, "{stats}");
        assert!(ns("success") >= ns("compute_infer") + ns("queue") + ns("compute_output"), "{stats}");
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let last = several["last_inference"].as_u64().unwrap();
        assert!(now - last < 600_000, "{last}");
    });
}

#[test]
fn the_real_clients_load_unload_and_ask() {
    if !has_clients() {
        return;
    }
    serves(", load: asked", true, |serving| {
        let address = serving.address.to_string();
        run("repository.py", &[&address, MODELS]);
        run("kserve_repository.py", &[&address]);
    });
}
