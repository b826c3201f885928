//! Mail as a server takes it, and what is said where it does not.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::*;

/// Where `scripts/oracles.sh` puts the package.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/aiosmtpd");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp/server.py");
const PASSWORD: &str = "correct horse battery";
const USER: [&str; 3] = ["--user", "ml", PASSWORD];

/// A server that takes mail, which ends when it is dropped.
struct Server {
    server: Child,
    said: BufReader<ChildStdout>,
    port: Value,
}

impl Server {
    fn start(arguments: &[&str]) -> Option<Self> {
        if !Path::new(PACKAGES).join("aiosmtpd").exists() {
            eprintln!("skipped: scripts/oracles.sh did not bring the package aiosmtpd");
            return None;
        }
        let mut command = Command::new("python3");
        command.arg(SCRIPT).args(arguments).env("PYTHONPATH", PACKAGES);
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(server.stdout.take().unwrap());
        let mut server = Self { server, said, port: Value::Null };
        server.port = server.next();
        Some(server)
    }

    /// What it says next.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Mails by it with such a password, if any. The connection is plain where `tls` says `none`.
    async fn mail(&self, tls: &str, password: Option<&str>, to: &[&str]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = json!({
            "host": "localhost", "port": self.port, "from": "Millstream <alerts@example.org>", "tls": tls,
        });
        if let Some(password) = password {
            fs::write(folder.path().join("password"), format!("{password}\n")).unwrap();
            spec["user"] = json!("ml");
            spec["password"] = json!("file:password");
        }
        let mail = Mail::new(&serde_json::from_value(spec).unwrap()).unwrap();
        let to: Vec<String> = to.iter().map(|address| (*address).to_owned()).collect();
        let body =
            ("[HIGH] drift: Größe of pay drifts", "drift: 0.31 > 0.2\n", "<p>drift: 0.31 &gt; 0.2</p>\n");
        mail.send(folder.path(), &to, (body.0.to_owned(), body.1.to_owned(), body.2.to_owned())).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test]
async fn mail_comes_whole_to_all_who_get_it() {
    let Some(mut server) = Server::start(&USER) else { return };
    server.mail("none", Some(PASSWORD), &["ml@example.org", "ops@example.org"]).await.unwrap();
    let mail = server.next();
    assert_eq!(
        (&mail["sender"], &mail["to"], &mail["user"]),
        (&json!("alerts@example.org"), &json!(["ml@example.org", "ops@example.org"]), &json!("ml"))
    );
    let headers = &mail["headers"];
    for (header, value) in [
        ("from", "Millstream <alerts@example.org>"),
        ("to", "ml@example.org, ops@example.org"),
        ("subject", "[HIGH] drift: Größe of pay drifts"),
        ("auto-submitted", "auto-generated"),
    ] {
        assert_eq!(headers[header], value, "{mail}");
    }
    assert!(headers["date"].is_string() && headers["message-id"].is_string(), "{mail}");
    let text = |kind: &str| mail[kind].as_str().unwrap().trim_end().to_owned();
    assert_eq!(
        (text("plain"), text("html")),
        ("drift: 0.31 > 0.2".to_owned(), "<p>drift: 0.31 &gt; 0.2</p>".to_owned())
    );
}

#[tokio::test]
async fn who_is_refused_is_named_and_the_others_have_their_mail() {
    let Some(mut server) = Server::start(&[]) else { return };
    let refused = "gone@example.org: permanent error (550): 5.1.1 there is no such mailbox";
    assert_eq!(server.mail("none", None, &["gone@example.org"]).await, Err(refused.to_owned()));
    let to = ["ml@example.org", "gone@example.org", "ops@example.org"];
    assert_eq!(server.mail("none", None, &to).await, Err(refused.to_owned()));
    for address in ["ml@example.org", "ops@example.org"] {
        let mail = server.next();
        assert_eq!(
            (&mail["to"], &mail["headers"]["to"]),
            (&json!([address]), &json!("ml@example.org, gone@example.org, ops@example.org"))
        );
    }
}

#[tokio::test]
async fn what_a_server_does_not_take_is_said_without_the_password() {
    let Some(server) = Server::start(&USER) else { return };
    let wrong = "wrong horse battery";
    for (tls, password, problem) in [
        ("none", Some(wrong), "localhost: permanent error (535): "),
        ("none", None, "localhost: permanent error (530): "),
        ("starttls", Some(PASSWORD), "localhost: internal client error: STARTTLS is not supported"),
    ] {
        let said = server.mail(tls, password, &["ml@example.org", "ops@example.org"]).await.unwrap_err();
        assert!(said.starts_with(problem), "{said}");
        let encoded = BASE64_STANDARD.encode(format!("\0ml\0{wrong}"));
        for secret in [wrong, PASSWORD, encoded.as_str()] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}
