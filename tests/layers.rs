//! The layout as a test: which crate may know which, read from the manifests.
//!
//! Arrows only go down, as ARCHITECTURE.md draws them. A new crate needs a row in [`LAYERS`], and a new arrow needs a
//! reason that outlives the change which wanted it.

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};

/// Per crate, the crates of this workspace that it may depend on, for tests too.
const LAYERS: [(&str, &[&str]); 7] = [
    ("graph", &[]),
    ("runtime", &["graph"]),
    ("transform", &["graph"]),
    ("featurestore", &["graph"]),
    ("models", &["graph"]),
    ("monitor", &["graph"]),
    ("serve", &["graph", "runtime", "transform", "featurestore", "models", "monitor"]),
];

/// What nobody but `serve` knows.
const HTTP: [&str; 10] = [
    "axum",
    "h2",
    "http",
    "http-body",
    "http-body-util",
    "hyper",
    "hyper-rustls",
    "hyper-util",
    "reqwest",
    "tonic",
];

/// Names under which anything can be put, and so everything will.
const NAMES_THAT_SAY_NOTHING: [&str; 9] =
    ["base", "common", "core", "helpers", "misc", "shared", "types", "util", "utils"];

/// Libraries of which two versions would not understand each other.
const ONE_VERSION: [&str; 7] =
    ["arrow", "arrow-array", "arrow-schema", "datafusion-common", "ort", "parquet", "tokio"];

/// What is wrong with the manifest of `crates/{folder}`.
fn problems(folder: &str, manifest: &Table, workspace: &Table) -> Vec<String> {
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == folder) else {
        return vec![format!("crate `{folder}` has no row in LAYERS of tests/layers.rs")];
    };
    let mut problems = Vec::new();
    if NAMES_THAT_SAY_NOTHING.contains(&folder) {
        problems.push(format!("crate `{folder}`: name it by what it is for"));
    }
    if manifest["package"]["name"].as_str() != Some(&format!("millstream-{folder}")) {
        problems.push(format!("crate `{folder}`: its package is not named `millstream-{folder}`"));
    }
    if manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) != Some(true) {
        problems.push(format!("crate `{folder}`: the workspace's lints do not apply to it"));
    }
    for (key, dependency) in dependencies(manifest) {
        if dependency.get("workspace").and_then(Value::as_bool) != Some(true) {
            problems.push(format!("crate `{folder}`: the version of `{key}` belongs into the root manifest"));
        }
        let name = package(key, dependency, workspace);
        let own = name.strip_prefix("millstream-").or_else(|| (name == "millstream").then_some("the facade"));
        if let Some(other) = own.filter(|other| *other != folder && !below.contains(other)) {
            problems.push(format!("crate `{folder}` must not know `{other}`"));
        }
        if folder != "serve" && HTTP.contains(&name) {
            problems.push(format!("crate `{folder}` must not know HTTP, but depends on `{name}`"));
        }
        if folder == "graph" && name == "tokio" {
            problems.push("crate `graph` must not know an async runtime, but depends on `tokio`".to_owned());
        }
    }
    problems
}

/// Every dependency of a manifest: for the library, its tests and its build, on any platform.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&str, &Value)> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = platforms.filter_map(Value::as_table).chain([manifest]);
    tables
        .flat_map(|table| {
            ["dependencies", "dev-dependencies", "build-dependencies"].map(|kind| table.get(kind))
        })
        .filter_map(|dependencies| dependencies?.as_table())
        .flatten()
        .map(|(key, dependency)| (key.as_str(), dependency))
}

/// The package behind a dependency's key, which may be another name for it.
fn package<'a>(key: &'a str, dependency: &'a Value, workspace: &'a Table) -> &'a str {
    let shared = || workspace["workspace"]["dependencies"].get(key)?.get("package")?.as_str();
    dependency.get("package").and_then(Value::as_str).or_else(shared).unwrap_or(key)
}

fn read(path: impl AsRef<Path>) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn crates_know_only_what_lies_below_them() {
    let workspace = read("Cargo.toml");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut found: Vec<_> = fs::read_dir(crates)
        .expect("the workspace has crates")
        .map(|entry| entry.expect("a folder can be listed"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("folders have plain names"))
        .collect();
    found.sort();
    let problems: Vec<_> = found
        .iter()
        .flat_map(|folder| problems(folder, &read(format!("crates/{folder}/Cargo.toml")), &workspace))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let mut listed: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(found, listed, "LAYERS of tests/layers.rs lists a crate that is gone");
}

#[test]
fn the_facade_knows_http_in_examples_and_tests_only() {
    let workspace = read("Cargo.toml");
    let library = workspace["dependencies"].as_table().expect("the facade has dependencies");
    let http: Vec<_> = library
        .iter()
        .map(|(key, dependency)| package(key, dependency, &workspace))
        .filter(|name| HTTP.contains(name))
        .collect();
    assert_eq!(http, [""; 0]);
}

#[test]
fn the_data_plane_is_one_type_universe() {
    let lock = read("Cargo.lock");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("the lock file lists packages") {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        versions.entry(text("name")).or_default().push(text("version"));
    }
    for name in ONE_VERSION {
        let found = versions.get(name).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(found.len(), 1, "`{name}` is locked in versions {found:?}");
    }
}

#[test]
fn a_manifest_that_breaks_the_layering_is_told_so() {
    let workspace: Table = r#"
        [workspace.dependencies]
        millstream-graph = { path = "crates/graph" }
        millstream-runtime = { path = "crates/runtime" }
        web = { version = "1", package = "hyper" }
        tokio = "1"
    "#
    .parse()
    .expect("it is TOML");
    let broken = |folder: &str, text: &str| {
        let text = format!("[package]\nname = \"millstream-{folder}\"\n[lints]\nworkspace = true\n{text}");
        problems(folder, &text.parse().expect("it is TOML"), &workspace).join("\n")
    };
    let cases = [
        ("models", "[dependencies]\nmillstream-graph.workspace = true", ""),
        (
            "models",
            "[dev-dependencies]\nmillstream-runtime.workspace = true",
            "crate `models` must not know `runtime`",
        ),
        ("graph", "[dependencies]\nmillstream-graph.workspace = true", ""),
        (
            "graph",
            "[target.'cfg(unix)'.dependencies]\ntokio.workspace = true",
            "crate `graph` must not know an async runtime, but depends on `tokio`",
        ),
        (
            "transform",
            "[build-dependencies]\nweb.workspace = true",
            "crate `transform` must not know HTTP, but depends on `hyper`",
        ),
        ("serve", "[dependencies]\nweb.workspace = true", ""),
        (
            "runtime",
            "[dependencies]\ntokio = \"1\"",
            "crate `runtime`: the version of `tokio` belongs into the root manifest",
        ),
        ("utils", "", "crate `utils` has no row in LAYERS of tests/layers.rs"),
    ];
    for (folder, text, wanted) in cases {
        assert_eq!(broken(folder, text), wanted, "{folder}: {text}");
    }
}
