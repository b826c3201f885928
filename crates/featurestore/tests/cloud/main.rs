//! Files in S3, in Google Cloud Storage and in Azure, against servers that speak their APIs: fetched whole, found by prefix and by
//! pattern, each taken once.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod servers;

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use arrow::{array::RecordBatch, datatypes::DataType};
use millstream_featurestore::{
    Column, FeatureSet, FeatureSetSpec, LoadOptions, LocalOptions, LocalTable, OnlineTable, TimeColumns,
    WritableSet, load::files,
};
use millstream_graph::rows;

use servers::{AZURE, Cloud, GOOGLE, S3};

/// Where the child finds the files.
const CHILD: &str = "MILLSTREAM_TEST_CLOUD";

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
    check(&S3);
}

#[test]
fn files_in_google_cloud_storage_are_found_fetched_and_taken_once() {
    check(&GOOGLE);
}

#[test]
fn files_in_azure_are_found_fetched_and_taken_once() {
    check(&AZURE);
}

fn check(cloud: &Cloud) {
    let Some(server) = cloud.start() else { return };
    let parquet = parquet(&rows! { k: [1_i64, 4], v: [11_i64, 40], at: [2_i64, 2] });
    for (path, body) in [
        ("cards/day=1/a.csv", b"k,v,at\n1,10,1\n2,20,1\n".as_slice()),
        ("cards/day=1/b%20c.jsonl", b"{\"k\":3,\"v\":30,\"at\":1}\n"),
        ("cards/day=2/d.parquet", &parquet),
        ("cards/day=2/copy.csv", b"k,v,at\n1,10,1\n2,20,1\n"),
        ("cards/_log/x.csv", b"k\n"),
        ("cards/readme.txt", b"no rows"),
        ("table/_delta_log/00000000000000000000.json", b"{}"),
        ("table/d.parquet", &parquet),
    ] {
        (cloud.put)(&server, path, body);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child", "--ignored", "--nocapture"])
        .env(CHILD, format!("{}://features", cloud.scheme))
        .envs((cloud.variables)(&server))
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// What runs with the environment that the tests above give.
#[test]
#[ignore = "the child of the tests above"]
fn the_child() {
    let Ok(at) = std::env::var(CHILD) else { return };
    let check = |place: &str, expected: &[&str]| {
        let found: Vec<_> =
            files(&format!("{at}/{place}")).unwrap().into_iter().map(|file| file.name).collect();
        let expected: Vec<_> = expected.iter().map(|name| format!("{at}/cards/{name}")).collect();
        assert_eq!(found, expected, "{place}");
    };
    let all = ["day=1/a.csv", "day=1/b%20c.jsonl", "day=2/copy.csv", "day=2/d.parquet"];
    check("cards/", &all);
    check("cards/day=1/*.csv", &all[..1]);
    check("cards/day=2/d.parquet", &all[3..]);
    let set = writable();
    // A copy by another name has the same content, and each file is taken once.
    for expected in
        [[("older", 0), ("repeated", 2), ("taken", 5)], [("older", 0), ("repeated", 7), ("taken", 0)]]
    {
        let mut counts = BTreeMap::new();
        for file in files(&format!("{at}/cards/")).unwrap() {
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
    let spec: FeatureSetSpec = serde_json::from_value(
        serde_json::json!({"keys": ["k"], "source": format!("{at}/cards/day=1/a.csv")}),
    )
    .unwrap();
    assert_eq!(
        spec.load("cards", Path::new("."), &LoadOptions::default()).unwrap().set().features().len(),
        2
    );
    let cause = |error: millstream_featurestore::LoadError| {
        format!("{error}: {}", std::error::Error::source(&error).map_or(String::new(), ToString::to_string))
    };
    let missing = set.ingest(Path::new("."), &format!("{at}/cards/no.csv"), &mut |_, _| {}).unwrap_err();
    assert_eq!(
        cause(missing),
        format!("`{at}/cards/no.csv` cannot be read: no such file; a folder ends with `/`")
    );
    assert!(files(&format!("{at}/nothing/")).unwrap_err().to_string().contains("cannot be read"));
    for place in ["table/", "table/*.parquet"] {
        let table = cause(files(&format!("{at}/{place}")).unwrap_err());
        assert!(
            table.contains("it is a Delta table: such are read in folders of this machine only"),
            "{table}"
        );
    }
}
