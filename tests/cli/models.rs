//! Models as the command line shows them, and servers that others can reach.

use std::{fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{client::Client, complaint, millstream, path, printed, project, serving::Serving};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/models/tests/data");

/// A project with one model of its own and a repository.
fn with_repository() -> TempDir {
    let folder = project(
        "name: many\nmodels: { own: { path: own.onnx } }\nrepository: { path: repository, load: asked }\n",
    );
    let put = |place: &str, model: &str| {
        let file = folder.path().join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(format!("{MODELS}/{model}"), file).unwrap();
    };
    put("own.onnx", "labels.onnx");
    put("repository/several/1/model.onnx", "rank3.onnx");
    put("repository/several/3/model.onnx", "rank3.onnx");
    fs::write(
        folder.path().join("repository/several/config.pbtxt"),
        "version_policy { all {} } max_batch_size: 4",
    )
    .unwrap();
    folder
}

#[test]
fn models_are_listed_and_shown_with_their_versions() {
    let folder = with_repository();
    let at = folder.path().to_str().unwrap();
    assert_eq!(
        printed(&["models", "list", "--project", at]),
        "own: country Utf8 [N] -> code Int64 [N], name Utf8 [N]\nseveral  versions 1, 3\n"
    );
    let listed: Value =
        serde_json::from_str(&printed(&["models", "list", "--project", at, "--json"])).unwrap();
    assert_eq!(listed[1], json!({ "name": "several", "versions": ["1", "3"] }));
    let shown = printed(&["models", "show", "several", "--project", at]);
    let signature = "several: x Float32 [N, 2, 3] -> swapped Float32 [N, 3, 2], mean Float32 [N, 3]";
    assert_eq!(
        shown,
        format!("version 1 (at most 4 rows)  {signature}\nversion 3 (at most 4 rows)  {signature}\n")
    );
    assert!(complaint(&["models", "show", "severl", "--project", at]).contains("did you mean `several`?"));
    fs::write(folder.path().join("repository/several/config.pbtxt"), "backend: \"python\"").unwrap();
    assert!(printed(&["models", "list", "--project", at]).contains("backend `python` is not served"));
}

#[test]
fn a_model_from_a_url_is_shown_with_where_it_came_from() {
    // The digest of the file, which is in the cache already: nobody is asked.
    let sha256 = "b63f2fde3733cb8d9ec03709eb18f39c8f7591d9fc8e52200d8cc777a14f86b8";
    let url = "https://models.invalid/rank3.onnx";
    let folder = project(&format!(
        "name: far\nmodels: {{ far: {{ url: \"{url}?sig=hunter2\", sha256: \"{sha256}\", instances: 1 }} }}\n"
    ));
    let kept = folder.path().join(".millstream/models").join(sha256);
    fs::create_dir_all(&kept).unwrap();
    fs::copy(format!("{MODELS}/rank3.onnx"), kept.join("model.onnx")).unwrap();
    let at = folder.path().to_str().unwrap();
    let listed = printed(&["models", "list", "--project", at]);
    assert!(listed.ends_with(&format!("  from {url}\n")), "{listed}");
    let listed: Value =
        serde_json::from_str(&printed(&["models", "list", "--project", at, "--json"])).unwrap();
    assert_eq!((&listed[0]["url"], &listed[0]["sha256"]), (&json!(url), &json!(sha256)));
    let shown = printed(&["models", "show", "far", "--project", at]);
    assert!(shown.ends_with(&format!("\n  from {url}, sha256 {sha256}\n")), "{shown}");
    let complaint = complaint(&["models", "check", "ftp://h/hunter2?sig=hunter2", "--project", at]);
    assert!(complaint.contains("a url begins with https://"), "{complaint}");
}

#[test]
fn a_model_file_is_taken_apart_and_timed_or_refused() {
    let (good, cut) = (format!("{MODELS}/several.onnx"), with_repository());
    let text = printed(&["models", "check", &good]);
    for line in [
        "  input       a: float [N, 3]\n",
        "  input       b: float [N, 1]\n",
        "  output      best: int64 [N]\n",
        "  opset       ai.onnx 15\n",
        "  operators   Add x 1, ArgMax x 1, MatMul x 1, ReduceMax x 1\n",
        "  parameters  9\n",
        " us for one row, ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let told: Value = serde_json::from_str(&printed(&["models", "check", &good, "--json"])).unwrap();
    assert_eq!((&told[0]["operators"]["Add"], &told[0]["opsets"]["ai.onnx"]), (&json!(1), &json!(15)));
    assert!(told[0]["cost_us"]["rows_32"].as_f64().unwrap() > 0.0);
    let whole = fs::read(&good).unwrap();
    fs::write(cut.path().join("cut.onnx"), &whole[..whole.len() - 9]).unwrap();
    let output = millstream(&["models", "check", &good, &path(&cut, "cut.onnx")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("parameters  9"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not an ONNX model"));
}

#[test]
fn a_servers_models_are_loaded_and_unloaded_where_it_allows_that() {
    let folder = with_repository();
    let told = |serving: &Serving, what: &str, model: &str| {
        millstream(&["models", what, model, "--url", &format!("http://{}", serving.address)])
    };
    let closed = Serving::start(&folder);
    let refused = told(&closed, "load", "several");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--model-control explicit"));
    drop(closed);
    let open = Serving::start_with(&folder, &["--model-control", "explicit"]);
    let status = || Client::connect(open.address).get("/v2/models/several/ready").status;
    assert_eq!(status(), 503);
    assert!(told(&open, "load", "several").status.success());
    assert_eq!(status(), 200);
    assert!(told(&open, "unload", "several").status.success());
    assert_eq!(status(), 503);
    assert!(
        String::from_utf8_lossy(&told(&open, "load", "severl").stderr).contains("did you mean `several`?")
    );
    // What is logged, too: the log is this process's own.
    let mut client = Client::connect(open.address);
    let settings = |client: &mut Client, body: &str| client.send("POST", "/v2/logging", &[], body.as_bytes());
    assert_eq!(client.get("/v2/logging").json()["log_verbose_level"], 0);
    assert_eq!(settings(&mut client, r#"{"log_verbose_level": 1}"#).json()["log_verbose_level"], 1);
    let answer = settings(&mut client, r#"{"log_warning": false}"#);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("log_warning cannot be off while"), "{}", answer.text());
    assert_eq!(
        settings(&mut client, r#"{"log_verbose_level": 0, "log_info": false}"#).json()["log_info"],
        false
    );
    assert_eq!(client.get("/v2/logging").json()["log_info"], false);
}

#[test]
fn a_server_that_others_can_reach_asks_who_they_are_or_says_that_it_does_not() {
    let folder = with_repository();
    let at = folder.path().to_str().unwrap();
    let refused = complaint(&["serve", at, "--bind", "0.0.0.0:0"]);
    assert!(refused.contains("nobody is asked who they are") && refused.contains("--no-auth"), "{refused}");
    let key = printed(&["keys", "new"]);
    let word = |name: &str| {
        let line = key.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{key}"));
        line.trim().to_owned()
    };
    let (key, digest) = (word("key"), word("sha256"));
    fs::write(
        folder.path().join("access.yaml"),
        format!("keys: {{ me: {{ sha256: {digest}, role: viewer }} }}"),
    )
    .unwrap();
    let access = path(&folder, "access.yaml");
    let serving = Serving::start_with(&folder, &["--access", &access, "--drain-delay-s", "0"]);
    let mut client = Client::connect(serving.address);
    assert_eq!(client.get("/v2/models").status, 401);
    assert_eq!(client.send("GET", "/v2/models", &[("x-api-key", &key)], b"").status, 200);
    let load = |key: Option<&str>| {
        let mut load = std::process::Command::new(env!("CARGO_BIN_EXE_millstream"));
        load.args(["models", "load", "several", "--url", &format!("http://{}", serving.address)]);
        key.map(|key| load.env("MILLSTREAM_KEY", key));
        let told = load.output().unwrap();
        String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned()
    };
    assert!(load(None).contains("send a key"), "{}", load(None));
    assert!(load(Some(&key)).contains("this takes the role `operator`"), "{}", load(Some(&key)));
    assert!(load(Some("a\nb")).contains("MILLSTREAM_KEY is not a key"));
    fs::write(&access, "keys: { me: { sha256: '1', role: viewer } }").unwrap();
    let refused = complaint(&["serve", at, "--access", &access]);
    assert!(refused.contains("access.yaml:1") && refused.contains("64 hexadecimal digits"), "{refused}");
}

#[test]
fn what_a_model_does_to_its_process_is_an_error_of_one_request() {
    let folder = project(
        "name: strange
models: { crashes: { path: crashes.onnx, isolated: true } }
repository: { path: repository, isolated: true }
graphs:
  ask:
    input: { x: \"list<int64>\", calm: bool }
    steps:
      ways: { when: { ports: { calm: calm }, otherwise: wild } }
      ran: { from: ways.wild, model: { use: crashes, outputs: { y: y } } }
      rest: { from: ways.calm, with: { y: \"7\" } }
      all: { from: [ran, rest], merge: }
    respond: all
",
    );
    let put = |place: &str, model: &str| {
        let file = folder.path().join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(format!("{MODELS}/{model}"), file).unwrap();
    };
    put("crashes.onnx", "crashes.onnx");
    put("repository/zip/1/model.onnx", "zip_strings.onnx");
    let serving = Serving::start_with(&folder, &["--drain-delay-s", "0"]);
    let mut client = Client::connect(serving.address);
    let mut ask = |x: i64, calm: bool| {
        let body = json!({ "x": [x], "calm": calm }).to_string();
        let answer = client.send("POST", "/v1/graphs/ask", &[], body.as_bytes());
        (answer.status, answer.json())
    };
    for _ in 0..3 {
        assert_eq!(ask(7, false), (200, json!({ "x": [7], "calm": false, "y": -7 })));
        let (status, told) = ask(i64::MIN, false);
        assert_eq!(status, 500, "{told}");
        assert_eq!(ask(i64::MIN, true).0, 200, "others notice nothing");
    }
    assert_eq!(client.get("/v2/models/zip").json()["inputs"][0]["name"], "features");
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_to_every_process_of_a_service_leaves_models_to_their_server() {
    let folder =
        project("name: one\nmodels: { swaps: { path: rank3.onnx, isolated: true, instances: 1 } }\n");
    fs::copy(format!("{MODELS}/rank3.onnx"), folder.path().join("rank3.onnx")).unwrap();
    let serving = Serving::start_with(&folder, &["--drain-delay-s", "0"]);
    // The name of a program is in parentheses, and may have some itself; its parent is the second word behind it.
    let parent = |status: &str| status.rsplit(')').next()?.split_whitespace().nth(1).map(str::to_owned);
    let children = || -> Vec<String> {
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let status = |id: &String| fs::read_to_string(format!("/proc/{id}/stat")).ok();
        let ours = Some(serving.server.id().to_string());
        processes.filter(|id| status(id).is_some_and(|status| parent(&status) == ours)).collect()
    };
    let before = children();
    assert_eq!(before.len(), 1, "{before:?}");
    let mut client = Client::connect(serving.address);
    let body = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2, 3], "data": [0, 1, 2, 3, 4, 5] }] });
    for signal in ["-TERM", "-INT", "-HUP"] {
        assert!(Command::new("kill").args([signal, &before[0]]).status().unwrap().success());
        let answer = client.send("POST", "/v2/models/swaps/infer", &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{signal}");
    }
    assert_eq!(children(), before, "it is the same process");
}

#[test]
fn models_in_processes_of_their_own_answer_as_others_do() {
    let told: Value = serde_json::from_slice(&fs::read(format!("{MODELS}/expected.json")).unwrap()).unwrap();
    let there = |name: &&String| std::path::Path::new(&format!("{MODELS}/{name}.onnx")).exists();
    let names: Vec<&String> = told.as_object().unwrap().keys().filter(there).collect();
    let serving = |isolated: bool| {
        let models: String = names
            .iter()
            .map(|name| format!("  {name}: {{ path: {name}.onnx, isolated: {isolated}, instances: 1 }}\n"))
            .collect();
        let folder = project(&format!("name: both\nmodels:\n{models}"));
        for name in &names {
            fs::copy(format!("{MODELS}/{name}.onnx"), folder.path().join(format!("{name}.onnx"))).unwrap();
        }
        fs::copy(format!("{MODELS}/weights.bin"), folder.path().join("weights.bin")).unwrap();
        let serving = Serving::start_with(&folder, &["--drain-delay-s", "0"]);
        (serving, folder)
    };
    let servers = [serving(false), serving(true)];
    let mut answered = 0;
    for name in &names {
        let tensor = |(input, of): (&String, &Value)| {
            let datatype = match of["dtype"].as_str().unwrap() {
                "string" => "BYTES".to_owned(),
                "bool" => "BOOL".to_owned(),
                dtype => dtype.to_uppercase().replace("FLOAT", "FP"),
            };
            json!({ "name": input, "datatype": datatype, "shape": of["shape"], "data": of["values"] })
        };
        let inputs: Vec<Value> = told[*name]["inputs"].as_object().unwrap().iter().map(tensor).collect();
        let body = json!({ "inputs": inputs }).to_string();
        let answers = servers.each_ref().map(|(serving, _)| {
            let mut client = Client::connect(serving.address);
            let metadata = client.get(&format!("/v2/models/{name}")).json();
            let answer = client.send("POST", &format!("/v2/models/{name}/infer"), &[], body.as_bytes());
            answered += usize::from(answer.status == 200);
            (metadata, answer.status, answer.json())
        });
        assert_eq!(answers[0], answers[1], "{name}");
    }
    assert!(answered >= 2 * (names.len() - 2), "{answered} of {}", 2 * names.len());
}
