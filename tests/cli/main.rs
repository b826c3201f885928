//! The command line as a shell sees it: arguments and files in, text and an exit status out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../client/mod.rs"]
mod client;
#[cfg(all(unix, feature = "ballista"))]
mod cluster;
mod features;
mod log_source;
mod magika;
mod mail;
mod models;
mod monitoring;
mod past;
mod replay;
mod routers;
mod serving;
mod voice;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A run of the binary in the folder of this checkout, where the examples are.
fn millstream(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap()
}

/// What a run that must succeed prints.
fn printed(arguments: &[&str]) -> String {
    let output = millstream(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same with variables of its environment.
fn printed_with(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a run that must fail complains of; it prints nothing else.
fn complaint(arguments: &[&str]) -> String {
    let output = millstream(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A project in a folder of its own.
fn project(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("millstream.yaml"), text).unwrap();
    folder
}

fn path(folder: &TempDir, file: &str) -> String {
    folder.path().join(file).to_str().unwrap().to_owned()
}

/// The binary of an example. `cargo test` builds the examples before it runs any test; a test that is asked for alone builds its own.
fn example(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_millstream")).with_file_name("examples").join(name);
    if !built.exists() {
        let build =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--example", name]).status().unwrap();
        assert!(build.success());
    }
    built
}

/// `validate` of `text` names exactly these mistakes, in this order, each at its place in the file.
#[track_caller]
fn check_mistakes(text: &str, mistakes: &[&str]) {
    let folder = project(text);
    let complaint = complaint(&["validate", folder.path().to_str().unwrap()]);
    let file = format!("{}:", path(&folder, "millstream.yaml"));
    let lines: Vec<_> = complaint.trim_start_matches("error: ").lines().collect();
    let found: Vec<_> = lines.iter().map(|line| line.strip_prefix(&file).unwrap_or(line)).collect();
    assert_eq!(found, mistakes, "{complaint}");
}

#[test]
fn both_examples_are_valid() {
    let fraud = printed(&["validate", "examples/fraud"]);
    assert!(fraud.starts_with("project `fraud` is valid\n  feature set cards: 5000 rows\n"), "{fraud}");
    let loan = printed(&["validate", "examples/loan"]);
    assert!(loan.contains("probabilities {0|1: Float32}") && loan.contains("graph loan: 23 steps"), "{loan}");
    let listing: Value =
        serde_json::from_str(&printed(&["validate", "examples/fraud", "--output", "json"])).unwrap();
    assert_eq!(listing["feature_sets"][0]["rows"], 5000);
    assert_eq!(listing["models"].as_array().unwrap().len(), 3);
}

#[test]
fn mistakes_of_the_file_are_named_all_at_once() {
    check_mistakes(
        "\
name: broken
models:
  stolen: { path: ../x.onnx }
  lost: { path: lost.onnx }
graphs:
  pay:
    input:
      amount: float64
      at: timestmp
    steps:
      doubled:
        wiht:
          twice: amount * 2
      both:
        with: { twice: amount * 2 }
        filter: twice > 2
    respond: doubled
",
        &[
            "3:3: model `stolen`: `../x.onnx` leaves the project's folder",
            "4:3: model `lost`: cannot read `lost.onnx`: entity not found: No such file or directory (os error 2)",
            "9:7: column `at`: no type `timestmp`; did you mean `timestamp`?",
            "12:9: step `doubled`: no kind of step `wiht`; did you mean `with`?",
            "16:9: step `both`: is both `with` and `filter`; make it two steps",
        ],
    );
}

#[test]
fn mistakes_of_settings_are_named_all_at_once() {
    check_mistakes(
        "\
name: broken
graphs:
  pay:
    input:
      amount: float64
    steps:
      checked:
        validate:
          colums:
            amount: [{ range: { min: 0 } }]
      smaller:
        cast:
          columns: { amount: int46 }
    respond: smaller
",
        &[
            "9:11: step `checked`: no key `colums`; did you mean `columns`?",
            "13:22: step `smaller`: no choice `int46`; did you mean `int16`?",
        ],
    );
}

#[test]
fn mistakes_of_a_graph_are_named_all_at_once() {
    check_mistakes(
        "\
name: broken
graphs:
  pay:
    input:
      amount: float64
      country: string
    steps:
      doubled:
        with:
          twice: amuont * 2
          abroad: coutnry <> 'US'
      big:
        from: doublet
        filter: twice > 2
      kept:
        from: input
        select: [amount, contry]
    respond: kepd
",
        &[
            "8:7: step `doubled`: in `amuont * 2`: no column `amuont`; did you mean `amount`?",
            "8:7: step `doubled`: in `coutnry <> 'US'`: no column `coutnry`; did you mean `country`?",
            "12:7: step `big`: no step named `doublet`; did you mean `doubled`?",
            "15:7: step `kept`: in `contry`: no column `contry`; did you mean `country`?",
            "18:5: step `respond`: no step named `kepd`; did you mean `kept`?",
        ],
    );
}

#[test]
fn files_and_graphs_that_are_not_there_are_named() {
    let nowhere = complaint(&["validate", "nowhere"]);
    assert_eq!(nowhere, "error: nowhere: cannot be read: No such file or directory (os error 2)\n");
    let misspelt = complaint(&["explain", "laon", "--project", "examples/loan"]);
    assert_eq!(misspelt, "error: no graph `laon`; did you mean `loan`?\n");
    let unknown = millstream(&["vaildate"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("validate"));
}

#[test]
fn a_graph_is_explained_in_four_forms() {
    let of = |form: &[&str]| printed(&[&["explain", "loan", "--project", "examples/loan"], form].concat());
    let text = of(&[]);
    assert!(text.contains("specialist  merge <- large, standard"), "{text}");
    let mermaid = of(&["--mermaid"]);
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("specialist"), "{mermaid}");
    let svg = of(&["--svg"]);
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    let json: Value = serde_json::from_str(&of(&["--output", "json"])).unwrap();
    assert_eq!(json["input"][2], serde_json::json!({ "name": "salary_range", "type": "string?" }));
    assert_eq!(json["explain"].as_str().unwrap().trim_end(), text.trim_end());
    assert_eq!(
        millstream(&["explain", "--project", "examples/loan", "--svg", "--mermaid"]).status.code(),
        Some(2)
    );
}

/// A graph that answers what it is asked, in most of the types that all file formats have.
const SAME: &str = "\
name: flat
graphs:
  same:
    input: { id: int64, name: string?, amount: float64?, small: float32?, ok: bool?, at: timestamp?, day: date? }
    steps:
      all:
        select: ['*']
    respond: all
";

#[test]
fn rows_go_through_every_format_unchanged() {
    let folder = project(SAME);
    let rows = r#"{"id":1,"name":"a, \"b\"\nc","amount":0.1,"small":0.1,"ok":true,"at":"2026-01-02T03:04:05.678901Z","day":"2026-01-02"}
{"id":9007199254740993,"name":"Zürich €","amount":-1.5e+300,"small":-1.5e-7,"ok":false,"at":null,"day":null}
{"id":-3,"name":null,"amount":null,"small":null,"ok":null,"at":null,"day":"0001-01-01"}
"#;
    fs::write(path(&folder, "1.jsonl"), rows).unwrap();
    for (from, to) in
        [("1.jsonl", "2.json"), ("2.json", "3.csv"), ("3.csv", "4.parquet"), ("4.parquet", "5.jsonl")]
    {
        let (from, to) = (path(&folder, from), path(&folder, to));
        // Two rows per run: three rows are two runs, and the files are still one each.
        printed(&[
            "batch",
            "--project",
            folder.path().to_str().unwrap(),
            "--input",
            &from,
            "--output",
            &to,
            "--batch",
            "2",
        ]);
    }
    assert_eq!(fs::read_to_string(path(&folder, "5.jsonl")).unwrap(), rows);
    let array: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(path(&folder, "2.json")).unwrap()).unwrap();
    assert_eq!(array.len(), 3);
    assert!(
        fs::read_to_string(path(&folder, "3.csv")).unwrap().starts_with("id,name,amount,small,ok,at,day\n")
    );
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().ends_with(".partial")), "{left:?}");
}

#[test]
fn an_example_runs_over_a_file() {
    let requests = "examples/fraud/data/requests.jsonl";
    let lines =
        printed(&["batch", "fraud", "--project", "examples/fraud", "--input", requests, "--output", "-"]);
    let expected =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fraud/data/expected.jsonl"));
    let expected = expected.unwrap();
    assert_eq!(lines.lines().count(), 1000);
    for (line, expected) in lines.lines().zip(expected.lines()) {
        let [line, expected] = [line, expected].map(|line| serde_json::from_str::<Value>(line).unwrap());
        let apart = line["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap();
        assert!(apart.abs() <= 1e-5, "{line} instead of {expected}");
        assert_eq!(line["decision"], expected["decision"]);
    }
}

#[test]
fn a_run_says_what_is_wrong_with_its_files() {
    let folder = project(SAME);
    fs::write(path(&folder, "bad.jsonl"), "{\"id\":1}\n{\"id\":2}\n{\"id\":\"x\"}\n").unwrap();
    fs::write(path(&folder, "bad.csv"), "id,nmae\n1,x\n").unwrap();
    fs::write(path(&folder, "bad.json"), "[{\"id\":1},").unwrap();
    let project = folder.path().to_str().unwrap();
    for (input, output, sentence) in [
        ("bad.jsonl", "out.jsonl", "row 2: field `id`: must be a whole number"),
        ("bad.csv", "out.jsonl", "no column `name`; did you mean `nmae`?"),
        ("bad.json", "out.jsonl", "ends in the middle"),
        ("none.jsonl", "out.jsonl", "No such file"),
        ("bad.txt", "out.jsonl", "rows come from .json, .jsonl, .csv or .parquet"),
        ("bad.jsonl", "out.txt", "rows go to .json, .jsonl, .csv, .parquet or .arrow"),
    ] {
        let (input, output) = (path(&folder, input), path(&folder, output));
        let complaint = complaint(&[
            "batch",
            "--project",
            project,
            "--input",
            &input,
            "--output",
            &output,
            "--batch",
            "2",
        ]);
        assert!(complaint.contains(sentence), "{complaint}");
        assert!(!Path::new(&output).exists(), "{output} is there, though the run failed");
    }
    let nested =
        ["batch", "--project", "examples/loan", "--input", "examples/loan/data/requests.jsonl", "--output"];
    let out = path(&folder, "out.csv");
    let complaint = complaint(&[&nested[..], &[&out]].concat());
    assert!(complaint.contains("column `members` is nested, which CSV cannot hold"), "{complaint}");
}

#[test]
fn the_schema_in_the_documentation_is_the_one_of_this_build() {
    let schema: Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/project.schema.json");
    let written: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert!(schema == written, "`make schema` writes docs/project.schema.json anew");
}

#[test]
fn completions_know_the_commands() {
    let completions = printed(&["completions", "bash"]);
    for command in ["serve", "validate", "explain", "batch", "schema", "completions"] {
        assert!(completions.contains(command), "{command}");
    }
}

#[test]
fn the_embedded_graph_answers_one_request() {
    let output = Command::new(example("embed")).arg("--once").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let reply: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let ratio: f64 = 120.0 / 41.0;
    let score = 1.0 / (1.0 + (-1.5 * (ratio + 0.01).ln()).exp());
    assert!((reply["score"].as_f64().unwrap() - score).abs() < 1e-12, "{reply}");
    assert_eq!(reply["decision"], "review");
}
