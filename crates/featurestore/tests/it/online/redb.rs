//! What the store in one file promises by itself.

use std::{fs, path::Path, time::Duration};

use arrow::datatypes::DataType;
use millstream_featurestore::{Changes, Clock, FeatureSet, Positions, RedbOptions, RedbTable};
use millstream_graph::rows;

use super::{NOW, Subject, count, counts, ids};

fn options(ttl: Option<Duration>) -> RedbOptions {
    RedbOptions { ttl, clock: Clock::new(|| NOW), cache_bytes: 1 << 20, ..RedbOptions::default() }
}

pub(super) fn subject(set: FeatureSet, ttl: Option<Duration>) -> Option<Subject> {
    let dir = tempfile::tempdir().unwrap();
    let table = open(&dir.path().join("set.redb"), set, ttl);
    Some(Subject::new(table, dir))
}

pub(super) fn open(path: &Path, set: FeatureSet, ttl: Option<Duration>) -> RedbTable {
    RedbTable::open(path, set, options(ttl)).unwrap()
}

#[test]
fn a_file_that_is_opened_again_has_its_rows_positions_and_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.redb");
    let open = || RedbTable::open(&path, counts().build().unwrap(), options(None));
    let write = || {
        count(&[(1, 1, 100), (2, 2, 100)])
            .at(Positions::new("s", 3, vec![7, 8]))
            .ids([None, Some("a".into())])
    };
    let store = Subject::new(open().unwrap(), ());
    assert_eq!(store.write(write()), "taken taken");
    let error = open().unwrap_err().to_string();
    assert!(
        error.ends_with("is in use, by a server that runs or another process; a store has one writer"),
        "{error}"
    );
    drop(store);
    let store = Subject::new(open().unwrap(), ());
    assert_eq!(store.read(&ids(&[1, 2, 3])), "1 | 2 | -");
    assert_eq!(store.get(store.table.mark("s", 3)).unwrap(), Some(8));
    assert_eq!(store.write(write()), "repeated repeated");
    assert_eq!(store.write(count(&[(5, 5, 1)]).ids([Some("a".into())])), "repeated");
    drop(store);
    let other = FeatureSet::builder("counts").key("id", DataType::Int64).feature("n", DataType::Float32);
    let error = RedbTable::open(&path, other.build().unwrap(), options(None)).unwrap_err().to_string();
    assert!(error.contains("it had feature `n` Int64 where there is feature `n` Float32 now"), "{error}");
}

#[test]
fn an_erased_row_is_gone_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.redb");
    let set = FeatureSet::builder("people").key("name", DataType::Utf8).feature("town", DataType::Utf8);
    let store = Subject::new(RedbTable::open(&path, set.build().unwrap(), options(None)).unwrap(), ());
    let row = |name: &str, town: &str, event| Changes::new(rows! { name: [name], town: [town] }, vec![event]);
    for n in 0..50 {
        store.write(row("somebody", &format!("Atlantis {n}"), n));
        store.write(row(&format!("other {n}"), "Paris", n));
    }
    let holds = |what: &str| {
        let bytes = fs::read(&path).unwrap();
        bytes.windows(what.len()).any(|window| window == what.as_bytes())
    };
    assert!(holds("somebody") && holds("Atlantis"));
    let receipt = store.get(store.table.erase(rows! { name: ["somebody"] })).unwrap();
    assert_eq!((receipt.removed, receipt.files_written), (1, vec!["set.redb".to_owned()]));
    assert!(!holds("somebody") && !holds("Atlantis") && holds("other 49"));
    // What is read and written is the new file.
    assert_eq!(store.read(&rows! { name: ["somebody", "other 49"] }), "- | Paris");
    assert_eq!(store.write(row("other 49", "Rome", 99)), "taken");
    assert!(holds("Rome"));
}
