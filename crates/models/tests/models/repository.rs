//! Folders of models: what is loaded of them, when, and what is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use expect_test::{Expect, expect};
use millstream_models::{
    CONFIG_FILE, Given, LoadedVersion, ModelConfig, Repository, RepositoryError, RepositorySpec, Served,
    VersionPolicy,
};
use serde_json::json;
use sha2::Digest;
use tempfile::TempDir;

use crate::harness::DATA;

/// A model of it is what it was loaded as: its name, its version, the input that it takes.
type Loaded = (String, u64, String);

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (place, model) in files {
        put(folder.path(), place, model);
    }
    folder
}

/// Puts a fixture, or a text, where `place` says below the repository.
fn put(root: &Path, place: &str, content: &str) {
    let file = root.join("models").join(place);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    if content.ends_with(".onnx") {
        fs::copy(Path::new(DATA).join(content), file).unwrap();
    } else {
        fs::write(file, content).unwrap();
    }
}

fn spec(mut settings: serde_json::Value) -> RepositorySpec {
    settings.as_object_mut().unwrap().entry("path").or_insert("models".into());
    serde_json::from_value(settings).unwrap()
}

fn open(root: &Path, settings: serde_json::Value) -> Result<Repository<Loaded>, Vec<RepositoryError>> {
    let taken = BTreeSet::from(["taken".to_owned()]);
    Repository::open(root, spec(settings), taken, |version: LoadedVersion| {
        Ok((version.name, version.version, version.model.info().inputs[0].name.clone()))
    })
}

fn numbers(served: &Served<Loaded>) -> Vec<u64> {
    served.numbers().collect()
}

fn index(repository: &Repository<Loaded>) -> Vec<String> {
    repository.look();
    let lines = repository.index().unwrap();
    let line = |line: &millstream_models::Indexed| {
        let version = line.version.map_or(String::new(), |version| format!("/{version}"));
        format!("{}{version} {} {}", line.name, line.state, line.reason).trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

#[test]
fn versions_are_served_as_the_policy_says() {
    let folder = folder(&[
        ("some/1/model.onnx", "rank3.onnx"),
        ("some/2/model.onnx", "labels.onnx"),
        ("some/10/model.onnx", "rank3.onnx"),
        // No versions: a sign, a zero in front, a word, a file.
        ("some/+3/model.onnx", "rank3.onnx"),
        ("some/04/model.onnx", "rank3.onnx"),
        ("some/next/model.onnx", "rank3.onnx"),
        ("some/5", "a file"),
    ]);
    for (policy, served) in [
        ("", vec![10]),
        ("version_policy { latest { num_versions: 2 } }", vec![2, 10]),
        ("version_policy { latest {} }", vec![10]),
        ("version_policy { all {} }", vec![1, 2, 10]),
        ("version_policy { specific { versions: [2, 1] } }", vec![1, 2]),
    ] {
        put(folder.path(), "some/config.pbtxt", policy);
        let repository = open(folder.path(), json!({ "labels": { "some": { "best": 2 } } })).unwrap();
        let some = repository.get("some").unwrap();
        assert_eq!(numbers(&some), served, "{policy}");
        assert_eq!(some.version(None).unwrap().1, *served.last().unwrap());
        let best = some.version(Some("best")).map(|model| (model.1, &*model.2));
        assert_eq!(best, served.contains(&2).then_some((2, "country")), "{policy}");
        assert!(some.version(Some("3")).is_none() && some.version(Some("+1")).is_none());
    }
}

#[test]
fn models_come_when_they_should() {
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx"), ("b/1/model.onnx", "labels.onnx")]);
    let all = open(folder.path(), json!({})).unwrap();
    assert_eq!(index(&all), ["a/1 READY", "b/1 READY"]);

    let lazy = open(folder.path(), json!({ "load": "lazy" })).unwrap();
    assert_eq!(index(&lazy), ["a UNAVAILABLE not loaded", "b UNAVAILABLE not loaded"]);
    assert!(lazy.get("a").is_none() && lazy.comes_when_asked("a") && !lazy.comes_when_asked("c"));
    assert_eq!(numbers(&lazy.want("a").unwrap()), [1]);
    assert_eq!(index(&lazy), ["a/1 READY", "b UNAVAILABLE not loaded"]);

    let asked = open(folder.path(), json!({ "load": "asked" })).unwrap();
    assert!(asked.want("a").is_err_and(|error| error.to_string().contains("it is not loaded")));
    asked.load("a", &Given::default()).unwrap();
    assert_eq!(numbers(&asked.want("a").unwrap()), [1]);
    asked.unload("a");
    asked.unload("nothing");
    assert_eq!(index(&asked), ["a UNAVAILABLE unloaded", "b UNAVAILABLE not loaded"]);
    // One that was put there later is found, and one that was taken away is served on.
    put(folder.path(), "c/7/model.onnx", "labels.onnx");
    asked.load("c", &Given::default()).unwrap();
    fs::remove_dir_all(folder.path().join("models/c")).unwrap();
    assert_eq!(index(&asked), ["a UNAVAILABLE unloaded", "b UNAVAILABLE not loaded", "c/7 READY"]);
    asked.unload("c");
    assert!(asked.get("c").is_none() && asked.bytes() == 0);
    // Whoever only asks whether there is a model reads nothing.
    put(folder.path(), "d/1/model.onnx", "labels.onnx");
    assert!(!lazy.is_there("d") && !lazy.comes_when_asked("d"));
    lazy.look();
    assert!(lazy.is_there("d") && lazy.comes_when_asked("d"));
}

#[test]
fn names_are_given_to_others_unless_a_model_has_them() {
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx"), ("b/1/model.onnx", "labels.onnx")]);
    let names =
        |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let asked = open(folder.path(), json!({ "load": "asked" })).unwrap();
    asked.load("a", &Given::default()).unwrap();
    asked.take(names(&["b", "c"])).unwrap();
    assert!(
        asked.load("b", &Given::default()).is_err_and(|error| error.to_string().contains("has that name"))
    );
    assert_eq!(asked.take(names(&["a"])).unwrap_err().len(), 1);
    assert!(asked.load("a", &Given::default()).is_ok(), "what was refused has changed nothing");
    asked.take(names(&[])).unwrap();
    assert!(asked.load("b", &Given::default()).is_ok());
    let lazy = open(folder.path(), json!({ "load": "lazy" })).unwrap();
    assert_eq!(lazy.take(names(&["a", "b", "c"])).unwrap_err().len(), 2);
}

#[test]
fn a_model_that_needs_more_than_there_can_be_moves_nobody() {
    let one = fs::metadata(Path::new(DATA).join("rank3.onnx")).unwrap().len();
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx"), ("large/1/model.onnx", "rank3.onnx")]);
    put(folder.path(), "a/config.pbtxt", "instance_group { count: 1 }");
    put(folder.path(), "large/config.pbtxt", "instance_group { count: 3 }");
    let repository =
        open(folder.path(), json!({ "load": "lazy", "memory": format!("{}B", 2 * one) })).unwrap();
    repository.want("a").unwrap();
    let error = repository.want("large").err().unwrap().to_string();
    assert!(error.contains(&format!("it needs {} bytes", 3 * one)), "{error}");
    assert_eq!(index(&repository)[0], "a/1 READY");
    assert_eq!((repository.bytes(), repository.outcomes().evicted), (one, 0));
}

#[test]
fn models_that_are_asked_for_at_the_same_time_wait_for_each_other_s_room() {
    let one = fs::metadata(Path::new(DATA).join("rank3.onnx")).unwrap().len();
    let names = ["a", "b", "c", "d"];
    let places: Vec<_> = names.iter().map(|name| format!("{name}/1/model.onnx")).collect();
    let folder = folder(&places.iter().map(|place| (place.as_str(), "rank3.onnx")).collect::<Vec<_>>());
    for name in names {
        put(folder.path(), &format!("{name}/config.pbtxt"), "instance_group { count: 1 }");
    }
    let repository = open(folder.path(), json!({ "load": "lazy", "memory": format!("{one}B") })).unwrap();
    for _ in 0..5 {
        thread::scope(|scope| {
            let asks = names.map(|name| {
                scope.spawn(|| repository.want(name).map(|_| ()).map_err(|error| error.to_string()))
            });
            for ask in asks {
                assert_eq!(ask.join().unwrap(), Ok(()));
            }
        });
        assert_eq!((repository.loaded().len(), repository.bytes()), (1, one));
    }
}

#[test]
fn every_file_that_is_pinned_is_looked_at() {
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx")]);
    let digest = |place: &str| {
        let bytes = fs::read(folder.path().join("models/a").join(place)).unwrap();
        sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    put(folder.path(), "a/1/more.txt", "more");
    let pinned = |file: &str, digest: &str| {
        let agents = format!(
            "model_repository_agents {{ agents {{ name: \"checksum\" parameters {{ key: \"SHA256:{file}\" value: \"{digest}\" }} }} }}"
        );
        put(folder.path(), "a/config.pbtxt", &agents);
        open(folder.path(), json!({})).err().map(|errors| errors[0].to_string())
    };
    let (model, more) = (digest("1/model.onnx"), digest("1/more.txt"));
    assert_eq!((pinned("1/model.onnx", &model), pinned("1/more.txt", &more)), (None, None));
    for (file, digest, problem) in [
        ("1/model.onnx", &more, "the sha256 of `1/model.onnx` is"),
        ("1/more.txt", &model, "the sha256 of `1/more.txt` is"),
        ("1/modle.onnx", &model, "cannot read"),
        ("./1/model.onnx", &model, "is no file below the model's folder"),
        ("../a/1/model.onnx", &model, "is no file below the model's folder"),
    ] {
        let told = pinned(file, digest).unwrap_or_default();
        assert!(told.contains(problem), "{file}: {told}");
    }
}

#[test]
fn whoever_holds_a_model_keeps_it_and_a_failed_load_changes_nothing() {
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx")]);
    let repository = open(folder.path(), json!({})).unwrap();
    let held = repository.get("a").unwrap();
    put(folder.path(), "a/2/model.onnx", "labels.onnx");
    repository.load("a", &Given::default()).unwrap();
    assert_eq!((numbers(&held), numbers(&repository.get("a").unwrap())), (vec![1], vec![2]));
    let bytes = repository.bytes();
    put(folder.path(), "a/3/model.onnx", "not a model");
    let error = repository.load("a", &Given::default()).unwrap_err().to_string();
    assert!(
        error.starts_with("model `a` cannot be loaded: version 3: the file is not an ONNX model"),
        "{error}"
    );
    assert_eq!((numbers(&repository.get("a").unwrap()), repository.bytes()), (vec![2], bytes));
    assert_eq!(index(&repository), ["a/2 READY"]);
}

#[test]
fn a_lazy_model_is_loaded_once_for_all_who_ask_at_the_same_time() {
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx")]);
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let make = move |_: LoadedVersion| Ok(counted.fetch_add(1, SeqCst));
    let repository =
        Repository::open(folder.path(), spec(json!({ "load": "lazy" })), BTreeSet::new(), make).unwrap();
    thread::scope(|scope| {
        let asks: Vec<_> = (0..8).map(|_| scope.spawn(|| repository.want("a").is_ok())).collect();
        assert!(asks.into_iter().all(|ask| ask.join().unwrap()));
    });
    assert_eq!(made.load(SeqCst), 1);
}

#[test]
fn the_models_that_were_used_the_longest_time_ago_make_room() {
    let one = fs::metadata(Path::new(DATA).join("rank3.onnx")).unwrap().len();
    let names = ["a", "b", "c", "d"];
    let places: Vec<_> = names.iter().map(|name| format!("{name}/1/model.onnx")).collect();
    let folder = folder(&places.iter().map(|place| (place.as_str(), "rank3.onnx")).collect::<Vec<_>>());
    for name in names {
        put(folder.path(), &format!("{name}/config.pbtxt"), "instance_group { count: 2 }");
    }
    let memory = format!("{}B", 2 * 2 * one + 1);
    let repository = open(folder.path(), json!({ "load": "lazy", "memory": memory })).unwrap();
    let loaded = |repository: &Repository<Loaded>| repository.loaded().keys().cloned().collect::<String>();
    let mut served = Vec::new();
    for (name, then) in [("a", "a"), ("b", "ab"), ("a", "ab"), ("c", "ac"), ("a", "ac"), ("d", "ad")] {
        // The clock of the order has milliseconds.
        let before = std::time::Instant::now();
        while before.elapsed().as_millis() < 3 {
            thread::yield_now();
        }
        served.push(repository.want(name).unwrap());
        assert_eq!(loaded(&repository), then, "after {name}");
    }
    assert_eq!((repository.outcomes().evicted, repository.bytes()), (2, 4 * one));
    // What made room is still there for those who have it.
    assert_eq!(served[1].version(None).unwrap().0, "b");
    let asked = open(folder.path(), json!({ "load": "asked", "memory": memory })).unwrap();
    asked.load("a", &Given::default()).unwrap();
    asked.load("b", &Given::default()).unwrap();
    let error = asked.load("c", &Given::default()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("it needs {} bytes, and of {} there are 1 left", 2 * one, 4 * one + 1)),
        "{error}"
    );
    assert_eq!(loaded(&asked), "ab");
}

#[test]
fn a_model_may_be_given_along() {
    let folder = folder(&[("a/1/model.onnx", "rank3.onnx")]);
    let repository = open(folder.path(), json!({})).unwrap();
    let model = fs::read(Path::new(DATA).join("labels.onnx")).unwrap();
    let files = |place: &str| BTreeMap::from([(PathBuf::from(place), model.clone())]);
    let given = Given { config: None, files: files("4/model.onnx") };
    repository.load("a", &given).unwrap();
    let a = repository.get("a").unwrap();
    assert_eq!(a.version(None).map(|model| (model.1, &*model.2)), Some((4, "country")));
    for (place, config, problem) in [
        ("../x", None, "file `../x` is not taken along; `VERSION/model.onnx` is"),
        ("0/model.onnx", None, "file `0/model.onnx` is not taken along"),
        ("1/other.onnx", None, "file `1/other.onnx` is not taken along"),
        ("1/model.onnx", Some("{"), "config.pbtxt: EOF"),
        ("1/model.onnx", Some(r#"{"max_batch_sise": 1}"#), "max_batch_sise"),
        ("1/model.onnx", Some(r#"{"backend": "tensorrt"}"#), "backend `tensorrt` is not served"),
    ] {
        let given = Given { config: config.map(str::to_owned), files: files(place) };
        let error = repository.load("a", &given).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let config = r#"{"version_policy": {"all": {}}, "instance_group": [{"count": 3, "kind": "KIND_CPU"}]}"#;
    repository.load("a", &Given { config: Some(config.to_owned()), ..Given::default() }).unwrap();
    assert_eq!(numbers(&repository.get("a").unwrap()), [1]);
}

#[track_caller]
fn refused(files: &[(&str, &str)], settings: serde_json::Value, wanted: &Expect) {
    let folder = folder(files);
    let errors = open(folder.path(), settings).err().unwrap();
    wanted.assert_eq(&errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

#[test]
fn all_that_is_wrong_with_a_repository_is_said() {
    let digest = "SHA256:1/model.onnx";
    let agents = format!(
        "model_repository_agents {{ agents {{ name: \"checksum\" parameters {{ key: \"{digest}\" value: \"00\" }} }} }}"
    );
    refused(
        &[
            ("empty/config.pbtxt", "name: \"empty\""),
            ("taken/1/model.onnx", "rank3.onnx"),
            ("pinned/1/model.onnx", "rank3.onnx"),
            ("pinned/config.pbtxt", &agents),
            ("gone/1/model.onnx", "rank3.onnx"),
            ("gone/config.pbtxt", "version_policy { specific { versions: 2 } }"),
            ("named/1/model.onnx", "rank3.onnx"),
            ("named/config.pbtxt", "default_model_filename: \"other.onnx\""),
            ("unnamed/1/model.onnx", "zip_ints.onnx"),
            (
                "unnamed/config.pbtxt",
                "output { name: \"output_label\" data_type: TYPE_INT64 dims: -1 label_filename: \"l.txt\" }",
            ),
        ],
        json!({ "labels": { "emty": { "best": 1 } } }),
        &expect![[r#"
            no model `emty`; did you mean `empty`?
            model `empty` cannot be loaded: its folder has no version, such as `1/model.onnx`
            model `gone` cannot be loaded: there is no version 2, which version_policy names
            model `named` cannot be loaded: version 1: cannot read `named/1/other.onnx`: entity not found
            model `pinned` cannot be loaded: version 1: the sha256 of `1/model.onnx` is b63f2fde3733cb8d9ec03709eb18f39c8f7591d9fc8e52200d8cc777a14f86b8, not 00
            model `taken` cannot be loaded: a graph or a model of the project has that name
            model `unnamed` cannot be loaded: there is no `l.txt`"#]],
    );
    let folder = tempfile::tempdir().unwrap();
    for path in ["models", "../models", "/tmp"] {
        let errors =
            Repository::<Loaded>::open(folder.path(), spec(json!({ "path": path })), BTreeSet::new(), |_| {
                unreachable!("nothing is there")
            });
        assert!(matches!(errors.err().unwrap()[..], [RepositoryError::Folder(_)]), "{path}");
    }
}

#[test]
fn a_configuration_is_followed_or_refused() {
    let shape = "max_batch_size: 4 input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 2, 3 ] } ]";
    let good = ModelConfig::from_text("m", shape).unwrap();
    assert_eq!((good.max_rows.map(usize::from), good.versions), (Some(4), VersionPolicy::Latest(1)));
    // What other servers do with these has no meaning here, or is done anyway.
    let ignored = r#"
        name: "m"
        platform: "onnxruntime_onnx"
        backend: "onnxruntime"
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
        optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }
        instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_AUTO } ]
        model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 3 zero_data: true } } }
        parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        response_cache { enable: true } # a comment
    "#;
    assert_eq!(ModelConfig::from_text("m", ignored).unwrap().instances.map(usize::from), Some(3));
    let deep = "dynamic_batching {".repeat(65);
    let long = " ".repeat((1 << 20) + 1);
    let wrong = [
        "name: \"other\" max_batch_size: -1",
        "platform: \"tensorflow_savedmodel\" ensemble_scheduling { step { model_name: \"a\" } }",
        "instance_group { kind: KIND_GPU } version_policy { specific {} }",
        "instance_group { count: 2000 }",
        "default_model_filename: \"../m.onnx\" output { name: \"y\" label_filename: \"/etc/passwd\" }",
        "sequence_batching {} model_transaction_policy { decoupled: true } model_operations { op_library_filename: \"x.so\" }",
        "input { name: \"x\" reshape { shape: [ 1 ] } }",
        "model_repository_agents { agents { name: \"checksum\" parameters { key: \"MD5:1/model.onnx\" value: \"0\" } } agents { name: \"other\" } }",
        "max_batch_sise: 1",
        "max_batch_size: \"one\"",
        "max_batch_size: 1 }",
        &deep,
        &long,
    ];
    let said = wrong.map(|text| ModelConfig::from_text("m", text).unwrap_err().to_string());
    expect![[r#"
        config.pbtxt: name is `other`, and the folder's is `m`; max_batch_size is -1; it counts rows, or is 0
        config.pbtxt: platform `tensorflow_savedmodel` is not served; `onnxruntime_onnx` is; ensemble_scheduling: put the models into a graph of the project
        config.pbtxt: instance_group: models run on the processor; kind must be KIND_CPU or KIND_AUTO; version_policy: specific names versions by numbers from 1 on
        config.pbtxt: instance_group: 2000 instances, and 1024 are the most
        config.pbtxt: default_model_filename: `../m.onnx` is not the name of a file; label_filename: `/etc/passwd` is not the name of a file
        config.pbtxt: sequence_batching: models that keep a state between requests are not served from a repository; model_transaction_policy: an ONNX model answers each request once; decoupled must be false; model_operations: libraries of operators are not loaded
        config.pbtxt: `x`: reshape is not done; declare the shape that the model has
        config.pbtxt: model_repository_agents: `MD5:1/model.onnx` must be `SHA256:` and a file; MD5 proves nothing; model_repository_agents: there is no agent `other`; `checksum` is there
        config.pbtxt: field 'max_batch_sise' not found for message 'millstream.repository.ModelConfig'
        config.pbtxt: expected an integer, but found '"one"'
        config.pbtxt: expected a field name, but found '}'
        config.pbtxt: it goes deeper than 64 levels
        config.pbtxt: it has more than 1048576 bytes"#]].assert_eq(&said.join("\n"));
}

#[test]
fn a_model_that_is_not_what_its_configuration_says_is_refused() {
    let checks = [
        ("input { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 2, 3 ] }", None),
        (
            "max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [ 2, 3 ] } output { name: \"mean\" data_type: TYPE_FP32 dims: 3 }",
            None,
        ),
        (
            "input { name: \"x\" data_type: TYPE_FP64 dims: [ -1, 2, 4 ] } output { name: \"men\" }",
            Some(expect![
                "model `m` cannot be loaded: version 1: config.pbtxt: input `x` is declared TYPE_FP64, and the model's is Float32; input `x` is declared [-1, 2, 4], and the model's is [-1, 2, 3]; no output `men`; did you mean `mean`?"
            ]),
        ),
        (
            "max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 2, 3 ] }",
            Some(expect![
                "model `m` cannot be loaded: version 1: config.pbtxt: input `x` is declared [-1, 2, 3], and the model's is [2, 3] after its rows"
            ]),
        ),
    ];
    for (config, wanted) in checks {
        let folder = folder(&[("m/1/model.onnx", "rank3.onnx"), ("m/config.pbtxt", config)]);
        match (open(folder.path(), json!({})), wanted) {
            (Ok(_), None) => {}
            (Err(errors), Some(wanted)) => wanted.assert_eq(&errors[0].to_string()),
            (got, _) => panic!("{config}: {:?}", got.err()),
        }
    }
    let folder = folder(&[
        ("m/1/model.onnx", "fixed3.onnx"),
        ("m/config.pbtxt", "max_batch_size: 3 input { name: \"x\" data_type: TYPE_FP32 dims: 2 }"),
    ]);
    let errors = open(folder.path(), json!({})).err().unwrap();
    assert!(errors[0].to_string().contains("max_batch_size must be 0: input `x` is [3, 2]"), "{errors:?}");
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_the_repository() {
    use std::os::unix::fs::symlink;
    let outside = folder(&[("m/1/model.onnx", "rank3.onnx")]);
    let root = folder(&[("a/1/model.onnx", "rank3.onnx"), ("b/1/model.onnx", "rank3.onnx"), ("c/1/x", "")]);
    let (out, models) = (outside.path().join("models/m"), root.path().join("models"));
    symlink(&out, models.join("linked")).unwrap();
    fs::remove_dir_all(models.join("b/1")).unwrap();
    symlink(out.join("1"), models.join("b/1")).unwrap();
    symlink(out.join("1/model.onnx"), models.join("c/1/model.onnx")).unwrap();
    fs::write(outside.path().join("config.pbtxt"), "").unwrap();
    symlink(outside.path().join("config.pbtxt"), models.join("a").join(CONFIG_FILE)).unwrap();
    let errors = open(root.path(), json!({})).err().unwrap();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(
        errors.iter().all(|error| error.to_string().contains("leaves the project's folder")),
        "{errors:?}"
    );
    let asked = open(root.path(), json!({ "load": "asked" })).unwrap();
    for name in ["..", ".", "", "a/1", "/etc", "../models/a", ".hidden"] {
        let error = asked.load(name, &Given::default()).unwrap_err();
        assert!(matches!(error, RepositoryError::Unknown(_)), "{name}: {error}");
    }
}
