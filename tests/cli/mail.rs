//! An alert that is mailed: over a connection that is secured, to a server that knows who mails.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{client::Client, path, project, serving::Serving};

/// Where `scripts/oracles.sh` puts the package.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/aiosmtpd");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/serve/tests/smtp/server.py");
const PASSWORD: &str = "correct horse battery";
/// How long is waited for what the mail server says. A pane takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

const PROJECT: &str = r#"
name: mailed
monitoring:
  pane: 1s
  smtp: { host: localhost, port: PORT, from: "alerts@example.org", user: ml, password: "env:MILLSTREAM_TEST_MAIL" }
  alerts:
    asked:
      when: { metric: requests, graph: pay, above: 0 }
      summary: "{{graph}} is asked"
      notify: [{ email: { to: [ml@example.org] } }]
graphs:
  pay:
    input: { amount: float64 }
    steps:
      taxed: { with: { total: amount * 1.5 } }
    respond: taxed
    monitor: { input: {} }
"#;

/// A server that takes mail, which ends when it is dropped.
struct Server {
    server: Child,
    said: BufReader<ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg(SCRIPT).args(arguments).env("PYTHONPATH", PACKAGES);
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(server.stdout.take().unwrap());
        Self { server, said }
    }

    /// What it says next. If that takes too long it is ended, and with it what it says.
    fn next(&mut self) -> Value {
        let Self { server, said } = self;
        let (waiting, over) = sync_channel::<()>(0);
        let line = thread::scope(|scope| {
            scope.spawn(move || {
                if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    // One that has ended already cannot be killed, which is well.
                    let _ = server.kill();
                }
            });
            let mut line = String::new();
            let read = said.read_line(&mut line);
            drop(waiting);
            read.map(|_| line)
        });
        let line = line.unwrap();
        assert!(!line.is_empty(), "the mail server ended, or said nothing within {PATIENCE:?}");
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_alert_is_mailed_over_a_secured_connection_by_a_user_that_the_server_knows() {
    if !Path::new(PACKAGES).join("aiosmtpd").exists() {
        eprintln!("skipped: scripts/oracles.sh did not bring the package aiosmtpd");
        return;
    }
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = project(PROJECT);
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|file| path(&folder, file));
    fs::write(&certificate, certified.cert.pem()).unwrap();
    fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let mut server = Server::start(&["--tls", &certificate, &key, "--user", "ml", PASSWORD]);
    let port = server.next();
    fs::write(path(&folder, "millstream.yaml"), PROJECT.replace("PORT", &port.to_string())).unwrap();

    let environment = [("SSL_CERT_FILE", certificate.as_str()), ("MILLSTREAM_TEST_MAIL", PASSWORD)];
    let serving = Serving::start_with_env(&folder, &["--drain-delay-s", "0"], &environment);
    let answer = Client::connect(serving.address).send("POST", "/v1/graphs/pay", &[], br#"{"amount": 2.0}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mail = server.next();
    assert_eq!(
        (&mail["tls"], &mail["user"], &mail["to"]),
        (&json!(true), &json!("ml"), &json!(["ml@example.org"]))
    );
    let subject = mail["headers"]["subject"].as_str().unwrap();
    assert!(subject.starts_with("[MEDIUM] asked: pay is asked"), "{mail}");
    assert!(mail["plain"].as_str().unwrap().contains("pay is asked"), "{mail}");
    assert!(!mail.to_string().contains(PASSWORD), "{mail}");
}
