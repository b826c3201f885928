//! Files in S3, against a server that speaks its API: fetched whole, found by prefix and by pattern, each taken once.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::DataType};
use millstream_featurestore::{
    Column, FeatureSet, FeatureSetSpec, LoadOptions, LocalOptions, LocalTable, OnlineTable, TimeColumns,
    WritableSet, load::files,
};
use millstream_graph::rows;

/// What the child may reach.
const CHILD: &str = "MILLSTREAM_TEST_CLOUD";

/// A server of S3's API, which ends when its standard input does: with this value, or with this process.
struct Server {
    port: u16,
    _shell: Child,
}

impl Server {
    /// `None`, said loudly, where there is none.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn start() -> Option<Self> {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/moto");
        if !packages.join("moto").is_dir() {
            println!("SKIPPED: there is no moto in {}; scripts/oracles.sh fetches it", packages.display());
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut shell = Command::new("sh")
            .args(["-c", r#""$@" 2>&1 & pid=$!; cat >/dev/null; kill $pid; wait $pid"#, "sh"])
            .args(["python3", "-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env("PYTHONPATH", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(shell.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(log.any(|line| line.contains("Running on")), "moto did not start");
        let rest = std::thread::Builder::new().spawn(move || log.for_each(drop));
        drop(rest.unwrap());
        Some(Self { port, _shell: shell })
    }

    fn put(&self, path: &str, body: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn writable() -> WritableSet {
    let set = FeatureSet::builder("cards").key("k", DataType::Int64).feature("v", DataType::Int64);
    let set = set.timestamp("at", DataType::Int64).build().unwrap();
    let event = Column { name: "at".into(), data_type: DataType::Int64 };
    let table = LocalTable::in_memory(set, LocalOptions::default());
    WritableSet::new(Arc::new(table), TimeColumns { event, created: None, valid_to: None })
}

#[test]
fn files_in_s3_are_found_fetched_and_taken_once() {
    let Some(server) = Server::start() else { return };
    server.put("features", b"");
    server.put("features/cards/day=1/a.csv", b"k,v,at\n1,10,1\n2,20,1\n");
    server.put("features/cards/day=1/b%20c.jsonl", b"{\"k\":3,\"v\":30,\"at\":1}\n");
    server.put(
        "features/cards/day=2/d.parquet",
        &parquet(&rows! { k: [1_i64, 4], v: [11_i64, 40], at: [2_i64, 2] }),
    );
    server.put("features/cards/day=2/copy.csv", b"k,v,at\n1,10,1\n2,20,1\n");
    server.put("features/cards/_log/x.csv", b"k\n");
    server.put("features/cards/readme.txt", b"no rows");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", server.port))
        .envs([("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "us-east-1")])
        .envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")])
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// What runs with the environment that the test above gives.
#[test]
#[ignore = "the child of the test above"]
fn the_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let check = |place: &str, expected: &[&str]| {
        let found: Vec<_> = files(place).unwrap().into_iter().map(|file| file.name).collect();
        let expected: Vec<_> = expected.iter().map(|name| format!("s3://features/cards/{name}")).collect();
        assert_eq!(found, expected, "{place}");
    };
    let all = ["day=1/a.csv", "day=1/b%20c.jsonl", "day=2/copy.csv", "day=2/d.parquet"];
    check("s3://features/cards/", &all);
    check("s3://features/cards/day=1/*.csv", &all[..1]);
    check("s3://features/cards/day=2/d.parquet", &all[3..]);
    let set = writable();
    // A copy by another name has the same content, and each file is taken once.
    for expected in
        [[("older", 0), ("repeated", 2), ("taken", 5)], [("older", 0), ("repeated", 7), ("taken", 0)]]
    {
        let mut counts = BTreeMap::new();
        for file in files("s3://features/cards/").unwrap() {
            set.ingest(&file.folder, &file.name, &mut |written, _| {
                written
                    .counts()
                    .into_iter()
                    .for_each(|(name, rows)| *counts.entry(name).or_insert(0) += rows);
            })
            .unwrap();
        }
        counts.retain(|name, _| expected.iter().any(|(wanted, _)| wanted == name));
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
    }
    let spec: FeatureSetSpec =
        serde_json::from_str(r#"{"keys": ["k"], "source": "s3://features/cards/day=1/a.csv"}"#).unwrap();
    assert_eq!(
        spec.load("cards", Path::new("."), &LoadOptions::default()).unwrap().set().features().len(),
        2
    );
    let refused = |url: &str| {
        let error = set.ingest(Path::new("."), url, &mut |_, _| {}).unwrap_err();
        format!("{error}: {}", std::error::Error::source(&error).map_or(String::new(), ToString::to_string))
    };
    let missing = refused("s3://features/cards/no.csv");
    assert_eq!(missing, "`s3://features/cards/no.csv` cannot be read: no such file; a folder ends with `/`");
    assert!(files("s3://features/nothing/").unwrap_err().to_string().contains("cannot be read"));
}
