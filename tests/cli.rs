//! The command line as a shell sees it: arguments and files in, text and an exit status out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use client::Client;
use serde_json::{Value, json};
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
            "run",
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
        printed(&["run", "fraud", "--project", "examples/fraud", "--input", requests, "--output", "-"]);
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
        ("bad.jsonl", "out.txt", "replies go to .json, .jsonl, .csv or .parquet"),
    ] {
        let (input, output) = (path(&folder, input), path(&folder, output));
        let complaint =
            complaint(&["run", "--project", project, "--input", &input, "--output", &output, "--batch", "2"]);
        assert!(complaint.contains(sentence), "{complaint}");
        assert!(!Path::new(&output).exists(), "{output} is there, though the run failed");
    }
    let nested =
        ["run", "--project", "examples/loan", "--input", "examples/loan/data/requests.jsonl", "--output"];
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
    for command in ["serve", "validate", "explain", "run", "schema", "completions"] {
        assert!(completions.contains(command), "{command}");
    }
}

/// A server of a project on a free port, and what it says.
struct Serving {
    server: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Serving {
    fn start(folder: &TempDir) -> Self {
        Self::start_with(folder, &["--drain-delay-s", "0"])
    }

    fn start_with(folder: &TempDir, arguments: &[&str]) -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["serve", folder.path().to_str().unwrap(), "--bind", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let address = line.split_once("http://").unwrap_or_else(|| panic!("{line}")).1;
        let address: String =
            address.chars().take_while(|char| !char.is_whitespace() && *char != '"').collect();
        let address = address.parse().unwrap();
        Self { server, log, address }
    }
}

impl Serving {
    /// Reads the log up to a line that has `words`.
    fn await_line(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the log ends without `{words}`");
        }
        line
    }

    #[cfg(unix)]
    fn terminate(&self) {
        let id = self.server.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
#[cfg(unix)]
fn a_server_ends_well_when_it_is_asked_to() {
    let mut serving = Serving::start(&project(SAME));
    let mut client = Client::connect(serving.address);
    assert_eq!(client.get("/livez").text(), "ok");
    let answer = client.send("POST", "/v1/graphs/same", &[], br#"{"id":7}"#);
    assert_eq!((answer.status, &answer.json()["id"]), (200, &Value::from(7)));
    assert_eq!(answer.headers["content-type"], "application/json");

    serving.terminate();
    let status = serving.server.wait().unwrap();
    let mut rest = String::new();
    serving.log.read_to_string(&mut rest).unwrap();
    assert!(status.success(), "{status}: {rest}");
    assert!(client.is_closed());
    assert!(rest.contains("stopping"), "{rest}");
}

#[test]
#[cfg(unix)]
fn a_server_under_load_loses_no_request_when_it_is_asked_to_end() {
    let folder = project(SAME);
    let mut serving = Serving::start_with(&folder, &["--drain-delay-s", "2", "--grace-s", "20"]);
    let address = serving.address;
    let answered = AtomicUsize::new(0);
    let (ready, status) = std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                // After the signal every answer ends its connection; then this one connects anew a few times.
                let mut closed = 0;
                for id in 0.. {
                    let answer =
                        client.send("POST", "/v1/graphs/same", &[], format!("{{\"id\":{id}}}").as_bytes());
                    assert_eq!((answer.status, answer.json()["id"].as_i64()), (200, Some(id)));
                    answered.fetch_add(1, SeqCst);
                    if answer.headers.get("connection").is_some_and(|connection| connection == "close") {
                        closed += 1;
                        if closed == 5 {
                            break;
                        }
                        client = Client::connect(address);
                    }
                }
            });
        }
        while answered.load(SeqCst) < 1000 {
            std::thread::yield_now();
        }
        let start = std::time::Instant::now();
        serving.terminate();
        let ready = loop {
            let ready = Client::connect(address).get("/readyz");
            if ready.status != 200 {
                break ready;
            }
            assert!(start.elapsed().as_secs() < 1, "still ready");
        };
        (ready, serving.server.wait().unwrap())
    });
    assert_eq!((ready.status, &*ready.text()), (503, "stopping"));
    assert!(status.success(), "{status}");
    assert!(!serving.await_line("stopping").contains("cut off"));
    assert!(TcpStream::connect(address).is_err());
}

/// How many files a process here may have open.
#[cfg(target_os = "linux")]
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_idle_connections_cost_little_and_others_are_served() {
    let serving = Serving::start_with(&project(SAME), &["--idle-s", "600", "--drain-delay-s", "0"]);
    let resident = || {
        let pages = fs::read_to_string(format!("/proc/{}/statm", serving.server.id())).unwrap();
        pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let mut client = Client::connect(serving.address);
    assert_eq!(client.get("/livez").status, 200);
    // Fewer where fewer files may be open.
    let count = 10_000.min(open_files().saturating_sub(200));
    let before = resident();
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(serving.address).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        idle.push(stream);
    }
    for stream in &mut idle {
        assert_ne!(stream.read(&mut [0; 512]).unwrap(), 0);
    }
    let each = resident().saturating_sub(before) / count;
    println!("{count} idle connections, {each} bytes each");
    assert!(each < 48 << 10, "{each} bytes for each connection");
    for id in 0..100 {
        let answer = client.send("POST", "/v1/graphs/same", &[], format!("{{\"id\":{id}}}").as_bytes());
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn a_project_is_reloaded_when_its_files_change_and_when_it_is_asked_for() {
    let folder = project(SAME);
    let token = "0123456789abcdef0123456789abcdef";
    fs::write(path(&folder, "token"), format!("{token}\n")).unwrap();
    let flags = ["--watch", "--admin", "127.0.0.1:0", "--admin-token-file"];
    let refused = millstream(&[&["serve", folder.path().to_str().unwrap()], &flags[..3]].concat());
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("--admin needs a token: set --admin-token-file or MILLSTREAM_ADMIN_TOKEN"));

    let token_file = path(&folder, "token");
    let mut serving = Serving::start_with(&folder, &[&flags[..], &[&token_file]].concat());
    // The first line was of the admin routes.
    let admin = serving.address;
    let line = serving.await_line("serving on http://");
    let address = line.split_once("http://").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    let mut client = Client::connect(address);
    let first =
        client.send("POST", "/v1/graphs/same", &[], br#"{"id":7}"#).headers["x-millstream-version"].clone();

    fs::write(path(&folder, "next"), SAME.replace("same:", "other:")).unwrap();
    fs::rename(path(&folder, "next"), path(&folder, "millstream.yaml")).unwrap();
    serving.await_line("a new version of the project is served");
    assert_eq!(client.send("POST", "/v1/graphs/same", &[], br#"{"id":7}"#).status, 404);
    let second =
        client.send("POST", "/v1/graphs/other", &[], br#"{"id":7}"#).headers["x-millstream-version"].clone();
    assert_ne!(first, second);

    let authorization = format!("Bearer {token}");
    let mut admin = Client::connect(admin);
    let answer = admin.send("POST", "/admin/reload", &[("authorization", &authorization)], b"");
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &"unchanged".into()));
    let status = admin.send("GET", "/admin/status", &[("authorization", &authorization)], b"").json();
    assert_eq!((&status["version"], &status["reloads"]["swapped"]), (&second.into(), &1.into()));
    assert_eq!(admin.get("/admin/status").status, 401);
}

#[test]
fn a_bench_sends_what_it_was_asked_to_and_draws_the_latencies() {
    let folder = project(SAME);
    let serving = Serving::start(&folder);
    fs::write(path(&folder, "bodies.jsonl"), "{\"id\":1}\n\n{\"di\":2}\n").unwrap();
    let (url, svg) = (format!("http://{}/v1/graphs/same", serving.address), path(&folder, "latency.svg"));
    let bodies = path(&folder, "bodies.jsonl");
    let asked = ["bench", &url, "--rate", "400", "--seconds", "0.25", "--connections", "8"];
    let report = printed(&[&asked[..], &["--bodies", &bodies, "--svg", &svg, "--output", "json"]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["statuses"], serde_json::json!({ "200": 50, "400": 50 }));
    assert_eq!((&report["accepted"]["count"], &report["failed"]), (&Value::from(50), &Value::from(0)));
    let drawn = fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("refused: 50 answers"), "{drawn}");

    let text = printed(&asked);
    assert!(text.contains("  200: 100") && text.contains("accepted"), "GET, and as text: {text}");
    drop(serving);
    let complaint = complaint(&["bench", &url, "--rate", "1"]);
    assert!(complaint.contains("cannot be reached"), "{complaint}");
    let complaint = self::complaint(&["bench", "https://example.org/", "--rate", "1"]);
    assert!(complaint.contains("is not an address such as http://"), "{complaint}");
}

#[test]
fn top_prints_one_frame_of_a_server() {
    let serving = Serving::start(&project(SAME));
    let mut client = Client::connect(serving.address);
    for body in [r#"{"id":7}"#, r#"{"id":8}"#] {
        assert_eq!(client.send("POST", "/v1/graphs/same", &[], body.as_bytes()).status, 200);
    }
    let url = format!("http://{}", serving.address);
    let frame = printed(&["top", &url, "--once"]);
    let lines: Vec<Vec<_>> = frame.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["millstream", "top", &*format!("{url}/")]);
    assert_eq!((lines[2][0], lines[3][..2].to_vec()), ("graph", vec![">", "same"]), "{frame}");
    assert!(lines.iter().any(|line| line.starts_with(&["all", "select"])), "{frame}");
    assert!(!frame.contains('\u{1b}'), "{frame}");
    // Standard output is no terminal here, so one frame is what there is.
    assert!(printed(&["top", &url, "--graph", "same"]).contains("select"));
    let misspelt = complaint(&["top", &url, "--once", "--graph", "smae"]);
    assert_eq!(misspelt, "error: no graph `smae`; did you mean `same`?\n");
    drop(serving);
    let gone = complaint(&["top", &url, "--once"]);
    assert!(gone.contains("cannot be reached"), "{gone}");
}

/// What the log says of a request with an id that tries to forge a line, and of one that is refused.
fn access_lines(flags: &[&str]) -> Vec<String> {
    let mut serving = Serving::start_with(&project(SAME), flags);
    let mut client = Client::connect(serving.address);
    let headers = [
        ("x-request-id", "a\" status=500"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
        ("authorization", "Bearer secret"),
    ];
    assert_eq!(client.send("POST", "/v1/graphs/same", &headers, br#"[{"id":7},{"id":8}]"#).status, 200);
    assert_eq!(client.send("POST", "/v1/graphs/same", &[], br#"{"di":"secret"}"#).status, 400);
    serving.server.kill().unwrap();
    let mut rest = String::new();
    serving.log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("secret"), "{rest}");
    rest.lines().map(str::to_owned).collect()
}

#[test]
fn an_access_log_has_one_line_per_request_and_nothing_of_its_body() {
    assert_eq!(access_lines(&[]), [""; 0]);
    let lines = access_lines(&["--access-log", "--log-format", "json"]);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [good, refused] = &lines[..] else { panic!("{lines:?}") };
    let fields = ["graph", "status", "rows", "request_id", "trace_id"].map(|key| good[key].clone());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let wanted = [json!("same"), json!(200), json!(2), json!("a\" status=500"), json!(trace)];
    assert_eq!(fields, wanted, "{good}");
    assert!(good["ms"].as_f64().unwrap() > 0.0 && good["run"].is_string(), "{good}");
    assert_eq!((&refused["status"], &refused["code"]), (&json!(400), &json!("unknown_field")), "{refused}");
    assert_eq!(refused.get("request_id"), None, "{refused}");

    let text = access_lines(&["--access-log"]);
    assert!(text[0].contains(r#"request_id="a\" status=500""#), "a value stays one value: {}", text[0]);
}

#[test]
fn the_embedded_graph_answers_one_request() {
    // `cargo test` builds the examples before it runs any test; a test that is asked for alone builds this one itself.
    let built = Path::new(env!("CARGO_BIN_EXE_millstream")).with_file_name("examples").join("embed");
    if !built.exists() {
        let build =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "embed"]).status().unwrap();
        assert!(build.success());
    }
    let output = Command::new(built).arg("--once").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let reply: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let ratio: f64 = 120.0 / 41.0;
    let score = 1.0 / (1.0 + (-1.5 * (ratio + 0.01).ln()).exp());
    assert!((reply["score"].as_f64().unwrap() - score).abs() < 1e-12, "{reply}");
    assert_eq!(reply["decision"], "review");
}

/// A set that takes rows, and a graph that reads it.
const TAKES_ROWS: &str = "\
name: takes
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { count: int64 }
    timestamp: at
    online: { local: { path: state/cards } }
graphs:
  score:
    input: { card_id: int64 }
    steps:
      known: { enrich: { set: cards, missing: { default: 0 } } }
    respond: known
";

#[test]
fn what_was_pushed_is_there_after_the_server_was_killed() {
    let folder = project(TAKES_ROWS);
    for round in 1..=3 {
        let mut serving = Serving::start(&folder);
        let mut client = Client::connect(serving.address);
        let mut score =
            || client.send("POST", "/v1/graphs/score", &[], br#"{"card_id":7}"#).json()["count"].clone();
        assert_eq!(score(), round - 1);
        let row = format!(r#"{{"card_id":7,"count":{round},"at":{round}}}"#);
        let answer = Client::connect(serving.address).send("POST", "/v1/features/cards", &[], row.as_bytes());
        assert_eq!(answer.json()["taken"], 1, "{}", answer.text());
        assert_eq!(score(), round);
        serving.server.kill().unwrap();
        serving.server.wait().unwrap();
    }
}

#[test]
fn feature_sets_are_listed_read_and_written_from_the_command_line() {
    let folder = project(TAKES_ROWS);
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());
    assert_eq!(told(&["list"]), "cards  local state/cards\n");
    assert!(told(&["show", "cards"]).contains("row       at: timestamp?"));
    fs::write(
        path(&folder, "rows.csv"),
        "card_id,count,at\n7,1,2026-01-01T00:00:00Z\n8,2,2026-01-01T00:00:00Z\n",
    )
    .unwrap();
    let file = path(&folder, "rows.csv");
    let counts = |arguments: &[&str]| serde_json::from_str::<Value>(&told(arguments)).unwrap();
    assert_eq!(counts(&["--json", "ingest", "cards", &file])["taken"], 2);
    assert_eq!(counts(&["--json", "ingest", "cards", &file])["repeated"], 2);
    assert_eq!(told(&["get", "cards", "card_id=7"]), "card_id  7\ncount  1\n");
    assert_eq!(counts(&["--json", "get", "cards", "card_id=9"]), json!({ "card_id": 9, "count": null }));
    assert!(told(&["erase", "cards", "card_id=7"]).starts_with("1 removed, 0 unknown\n"));
    assert_eq!(told(&["get", "cards", "card_id=7"]), "card_id  7\ncount  null\n");
    assert_eq!(counts(&["--json", "purge", "cards", "--yes"])["removed"], 1);
    for (arguments, sentence) in [
        (&["get", "card", "card_id=7"][..], "no feature set `card`"),
        (&["get", "cards", "id=7"], "no value for key `card_id`"),
        (&["get", "cards", "card_id=x"], "key `card_id`: `x` is no Int64"),
        (&["purge", "cards"], "say --yes"),
        (&["ingest", "cards", "nowhere.csv"], "`nowhere.csv` cannot be read"),
    ] {
        let complaint = complaint(&[&["features", "--project", root], arguments].concat());
        assert!(complaint.contains(sentence), "{complaint}");
    }
}

#[test]
fn the_command_line_leaves_the_stores_of_a_running_server_alone() {
    let folder = project(TAKES_ROWS);
    let _serving = Serving::start(&folder);
    let root = folder.path().to_str().unwrap();
    let complaint = complaint(&["features", "--project", root, "get", "cards", "card_id=7"]);
    assert!(complaint.contains("is in use, by a server that runs"), "{complaint}");
    assert_eq!(printed(&["features", "--project", root, "list"]), "cards  local state/cards\n");
    printed(&["validate", root]);
}

#[test]
fn mistakes_of_feature_sets_that_take_rows_are_named() {
    check_mistakes(
        "\
name: broken
feature_sets:
  a: { keys: [k], online: memory }
  b: { keys: [k], types: { k: int64 }, features: { v: int64 }, timestamp: at, online: { local: { path: ../out } } }
  c: { keys: [k], types: { k: int64 }, features: { v: int64 }, online: memory }
  d: { keys: [k], types: { k: int64 }, features: { v: int64 }, ttl: 30d }
graphs: { g: { input: { k: int64 }, steps: { s: { select: [k] } }, respond: s } }
",
        &[
            "3:3: feature set `a`: column `k` has no type; name it under `types`; without a `source`, `features` names the features and their types",
            "4:3: feature set `b`: `online`: `../out` leaves the project's folder",
            "5:3: feature set `c`: a set with `online` names a `timestamp`: the latest row of a key counts",
            "6:3: feature set `d`: `ttl` is for sets with `online`",
        ],
    );
}
