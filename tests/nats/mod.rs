//! A real NATS server for tests, which can be killed and started again.
#![allow(dead_code, reason = "each test that includes it uses a part")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use async_nats::jetstream::{self, stream};

/// A server with its files in a folder, which ends when its standard input does: with this value, or with this process.
pub(crate) struct Server {
    pub(crate) port: u16,
    files: PathBuf,
    more: Vec<String>,
    shell: Option<Child>,
}

impl Server {
    /// `None`, said loudly, where there is no `nats-server`.
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Option<Self> {
        if Command::new("nats-server").arg("--version").output().is_err() {
            println!("SKIPPED: there is no `nats-server` here; apt-get install nats-server");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { port, files: dir.join("nats"), more, shell: None };
        server.begin();
        Some(server)
    }

    pub(crate) fn begin(&mut self) {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                r#""$@" 2>&1 & pid=$!; cat >/dev/null; kill -9 $pid; wait $pid"#,
                "sh",
                "nats-server",
            ])
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream", "--store_dir"])
            .arg(&self.files)
            .args(&self.more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(shell.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(log.any(|line| line.contains("Server is ready")), "nats-server did not start");
        // Whatever it says further must not fill the pipe.
        let rest = std::thread::Builder::new().spawn(move || log.for_each(drop));
        drop(rest.unwrap());
        self.shell = Some(shell);
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut shell = self.shell.take().unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(
            async_nats::ConnectOptions::new().retry_on_initial_connect().connect(self.url()).await.unwrap(),
        )
    }

    /// A stream of all subjects `tx.>`, kept as `config` says.
    pub(crate) async fn stream(&self, config: stream::Config) -> jetstream::Context {
        let context = self.jetstream().await;
        let config = stream::Config { name: "TX".into(), subjects: vec!["tx.>".into()], ..config };
        context.create_stream(config).await.unwrap();
        context
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.shell.is_some() {
            self.kill();
        }
    }
}

/// Sends messages, and waits until the server has them all.
pub(crate) async fn publish(
    context: &jetstream::Context,
    subject: &'static str,
    messages: impl IntoIterator<Item = impl Into<bytes::Bytes>>,
) {
    let mut sent = Vec::new();
    for message in messages {
        sent.push(context.publish(subject, message.into()).await.unwrap());
    }
    for ack in sent {
        ack.await.unwrap();
    }
}
