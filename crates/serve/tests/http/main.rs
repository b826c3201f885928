//! A server as its clients meet it, over sockets: what it does with those who mean no good, and while its project is replaced.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../../tests/client/mod.rs"]
mod client;
mod encodings;
mod feast;
mod features;
mod floods;
mod http2;
mod keep_alive;
#[path = "../../../../tests/nats/mod.rs"]
mod nats;
mod oip;
mod openapi;
mod parts;
mod reload;
mod security;
mod slow;
mod streams;
mod through;
mod vectors;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use client::{Answer, Client};
use millstream_runtime::Limits;
use millstream_serve::{
    AdminToken, ConnectionLimits, DecodeLimits, Ending, Project, Reload, Reloader, Server, admin_router,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};

/// Far more than anything here takes; what hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "the token of these tests";

fn token() -> String {
    TOKEN.replace(' ', "-")
}

/// Writes a version of the project: a constant in its file and a feature in another, both `value`.
fn write(folder: &Path, value: i64) {
    write_graphs(folder, value, &["ask"]);
}

fn write_graphs(folder: &Path, value: i64, names: &[&str]) {
    let mut text =
        "name: swap\nfeature_sets: { facts: { keys: [k], source: data/facts.csv } }\ngraphs:\n".to_owned();
    for name in names {
        text += &format!(
            "  {name}:
    input: {{ k: int64 }}
    steps:
      known: {{ enrich: {{ set: facts, by: k, missing: fail }} }}
      told: {{ select: [k, fact, \"{value} AS constant\"] }}
    respond: told
"
        );
    }
    fs::create_dir_all(folder.join("data")).unwrap();
    let rows: String = (0..10).map(|k| format!("{k},{value}\n")).collect();
    replace(&folder.join("data/facts.csv"), &format!("k,fact\n{rows}"));
    replace(&folder.join("millstream.yaml"), &text);
}

/// Replaces a file as editors do: another takes its name.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, file).unwrap();
}

/// A server under test.
struct Serving {
    address: SocketAddr,
    admin: SocketAddr,
    reloader: Reloader,
    folder: PathBuf,
    runtime: Arc<Runtime>,
    stop: Option<oneshot::Sender<Ending>>,
}

impl Serving {
    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    fn reload(&self) -> Arc<Reload> {
        self.runtime.block_on(self.reloader.reload())
    }

    /// One call of the admin routes, with the token.
    fn admin(&self, method: &str, path: &str) -> Answer {
        self.admin_with(method, path, b"")
    }

    fn admin_with(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let authorization = format!("Bearer {}", token());
        Client::connect(self.admin).send(method, path, &[("authorization", &authorization)], body)
    }

    /// A sample of the metrics, 0 where there is none.
    fn metric(&self, sample: &str) -> u64 {
        let text = self.client().get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("millstream_http_refused_total{{reason=\"{reason}\"}}"))
    }

    /// Asks until the metric is as expected: what it counts happens on the other side of a socket.
    fn await_refused(&self, reason: &str, count: u64) {
        let start = std::time::Instant::now();
        while self.refused(reason) != count {
            assert!(start.elapsed() < PATIENCE, "{reason}: {} instead of {count}", self.refused(reason));
        }
    }
}

/// Serves version 1 of the project while `body` runs, then stops the server and waits for its end.
fn served(limits: ConnectionLimits, grace: Duration, body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1);
    served_project(folder.path(), limits, grace, body);
}

/// Serves the project in `folder` while `body` runs, then stops the server and waits for its end.
fn served_project(folder: &Path, limits: ConnectionLimits, grace: Duration, body: impl FnOnce(&mut Serving)) {
    served_as(folder, limits, grace, |server| server, body);
}

/// The same of a server that `set` sets otherwise.
fn served_as(
    folder: &Path,
    limits: ConnectionLimits,
    grace: Duration,
    set: impl FnOnce(Server) -> Server,
    body: impl FnOnce(&mut Serving),
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let runtime = Arc::new(runtime);
    let project = Project::load(folder).unwrap_or_else(|error| panic!("{error}"));
    let server =
        Server::with_connections(&project, &Limits::default(), DecodeLimits::default(), limits).unwrap();
    drop(project);
    let reloader = Reloader::new(&server, folder, grace).unwrap();
    let listen = || runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let (listener, admin) = (listen(), listen());
    let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
    let router = admin_router(reloader.clone(), AdminToken::new(&token()).unwrap());
    let server = set(server.admin(admin, router));
    let (stop, stopped) = oneshot::channel();
    let mut serving = Serving {
        address,
        admin: admin_address,
        reloader,
        folder: folder.to_owned(),
        runtime: Arc::clone(&runtime),
        stop: Some(stop),
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            let ending = async { stopped.await.unwrap_or(Ending { grace: PATIENCE, ..Ending::default() }) };
            runtime.block_on(server.serve_until(listener, ending)).unwrap();
        });
        body(&mut serving);
        drop(serving);
        running.join().unwrap();
    });
}

/// As by default, but with a time in which tests end.
fn short() -> ConnectionLimits {
    let time = Duration::from_millis(150);
    let mut limits = ConnectionLimits {
        head: time,
        idle: time,
        http2_ping: time,
        http2_pong: time,
        ..ConnectionLimits::default()
    };
    limits.body.patience = time;
    limits
}

/// The head of a request that runs the graph, with these headers in it.
fn ask(headers: &str) -> String {
    format!("POST /v1/graphs/ask HTTP/1.1\r\nhost: test\r\n{headers}\r\n")
}
