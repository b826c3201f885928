//! `millstream serve` and the commands that talk to a server.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SAME, client::Client, complaint, millstream, path, printed, project};

/// A server of a project on a free port, and what it says.
pub(crate) struct Serving {
    pub(crate) server: Child,
    log: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
}

impl Serving {
    pub(crate) fn start(folder: &TempDir) -> Self {
        Self::start_with(folder, &["--drain-delay-s", "0"])
    }

    pub(crate) fn start_with(folder: &TempDir, arguments: &[&str]) -> Self {
        Self::start_with_env(folder, arguments, &[])
    }

    pub(crate) fn start_with_env(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["serve", folder.path().to_str().unwrap(), "--bind", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap());
        // What else it has to say at its start comes before.
        let mut said = String::new();
        while !said.contains("http://") && log.read_line(&mut said).unwrap() > 0 {}
        let Some((_, address)) = said.split_once("http://") else {
            let _ = server.kill();
            panic!("{said}");
        };
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
    pub(crate) fn terminate(&self) {
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
