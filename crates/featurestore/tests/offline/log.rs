//! Logs on disk: what is appended is there, once; compaction changes no row; what is erased is gone from the bytes.

use std::{fs, path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType, UInt64Type},
};
use millstream_featurestore::{
    Column,
    offline::{AsOf, Erased, Log, LogError, LogSchema, OfflineSet, Vector},
};
use millstream_graph::rows;
use object_store::{ObjectStoreExt, memory::InMemory, path::Path as ObjectPath};
use tempfile::{TempDir, tempdir};

use super::{block, cards, log, spine, store, training};

const DAY: i64 = 86_400_000_000;

fn rows_of(first: i64, count: i64) -> RecordBatch {
    let ids: Vec<i64> = (first..first + count).collect();
    let avg: Vec<f64> = ids.iter().map(|&id| id as f64).collect();
    let tier: Vec<String> = ids.iter().map(|id| format!("tier-{id}")).collect();
    let event: Vec<i64> = ids.iter().map(|&id| id % 3 * DAY - id).collect();
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    RecordBatch::try_from_iter([
        ("card", column(ids.iter().map(|id| id % 5).collect())),
        ("avg", Arc::new(arrow::array::Float64Array::from(avg)) as ArrayRef),
        ("tier", Arc::new(StringArray::from(tier)) as ArrayRef),
        ("_event", column(event)),
    ])
    .unwrap()
}

/// Sequence numbers and tiers of all rows, by sequence.
async fn content(log: &Log) -> Vec<(u64, String)> {
    let rows = concat_batches(log.schema().arrow(), &log.read().await.unwrap()).unwrap();
    let sequence = rows.column_by_name("_sequence").unwrap().as_primitive::<UInt64Type>().clone();
    let tier = rows.column_by_name("tier").unwrap().as_string::<i32>().clone();
    let mut all: Vec<_> =
        (0..rows.num_rows()).map(|row| (sequence.value(row), tier.value(row).to_owned())).collect();
    all.sort();
    all
}

fn expected(rows: impl Iterator<Item = i64>) -> Vec<(u64, String)> {
    rows.map(|row| (row as u64, format!("tier-{row}"))).collect()
}

/// The Parquet files below a folder.
fn parts(folder: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            parts.extend(self::parts(&entry));
        } else if entry.extension().is_some_and(|ending| ending == "parquet") {
            parts.push(entry.display().to_string());
        }
    }
    parts
}

async fn filled() -> (TempDir, Log) {
    let folder = tempdir().unwrap();
    let log = log(&folder, cards()).await;
    for first in [0, 10, 20] {
        log.append(first as u64, &rows_of(first, 10)).await.unwrap();
    }
    (folder, log)
}

#[test]
fn rows_are_numbered_filed_by_day_and_sorted_by_time() {
    block(async {
        let (folder, log) = filled().await;
        assert_eq!(content(&log).await, expected(0..30));
        assert_eq!((log.next(), log.rows()), (30, 30));
        let days = fs::read_dir(folder.path().join("cards")).unwrap();
        let mut days: Vec<_> = days.map(|day| day.unwrap().file_name().into_string().unwrap()).collect();
        days.sort();
        assert_eq!(days, ["_log", "date=1969-12-31", "date=1970-01-01", "date=1970-01-02"]);
        for batch in log.read().await.unwrap() {
            let events = batch.column_by_name("_event").unwrap().as_primitive::<TimestampMicrosecondType>();
            assert!(events.values().is_sorted());
        }
    });
}

#[test]
fn the_same_rows_again_change_nothing() {
    block(async {
        let (folder, log) = filled().await;
        let files = parts(folder.path());
        let again = log.append(20, &rows_of(20, 10)).await.unwrap();
        assert_eq!((again.rows, again.next), (0, 30));
        assert_eq!(parts(folder.path()).len(), files.len());
        // A sender that does not know how far it came sends from further back.
        let overlapping = log.append(25, &rows_of(25, 10)).await.unwrap();
        assert_eq!((overlapping.rows, overlapping.next), (5, 35));
        assert_eq!(content(&log).await, expected(0..35));
    });
}

#[test]
fn a_log_that_is_opened_again_goes_on_where_it_was() {
    block(async {
        let (folder, before) = filled().await;
        let after = log(&folder, cards()).await;
        assert_eq!(after.next(), 30);
        after.append(30, &rows_of(30, 1)).await.unwrap();
        assert_eq!(content(&after).await, expected(0..31));
        assert!(
            matches!(before.append(30, &rows_of(30, 1)).await, Err(LogError::Conflict)),
            "a second writer"
        );
        assert_eq!(content(&before).await, expected(0..30), "what is read is what was there");
        before.refresh().await.unwrap();
        assert_eq!(content(&before).await, expected(0..31));
    });
}

#[test]
fn compaction_makes_one_file_a_day_of_the_same_rows() {
    block(async {
        let (folder, log) = filled().await;
        let before = parts(folder.path()).len();
        let done = log.compact(1_000_000).await.unwrap();
        assert_eq!((done.merged as usize, done.written, done.deleted), (before, 3, 0));
        assert_eq!(content(&log).await, expected(0..30));
        assert_eq!(parts(folder.path()).len(), before + 3, "readers have until the next compaction");
        let done = log.compact(1_000_000).await.unwrap();
        assert_eq!((done.merged, done.deleted as usize), (0, before));
        assert_eq!(parts(folder.path()).len(), 3);
        assert_eq!(content(&super::log(&folder, cards()).await).await, expected(0..30));
    });
}

#[test]
fn compaction_keeps_files_below_the_bound() {
    block(async {
        let (_folder, log) = filled().await;
        log.compact(7).await.unwrap();
        assert!(log.read().await.unwrap().iter().all(|rows| rows.num_rows() <= 7));
        assert_eq!(content(&log).await, expected(0..30));
    });
}

/// A change that ended before its commit has left files that are no part of the log.
#[test]
fn files_that_no_commit_lists_do_not_count_and_are_cleared_away() {
    block(async {
        let (folder, log) = filled().await;
        let part = parts(folder.path()).swap_remove(0);
        let stray = Path::new(&part).with_file_name("part-stray.parquet");
        fs::copy(&part, &stray).unwrap();
        assert_eq!(content(&super::log(&folder, cards()).await).await, expected(0..30));
        assert_eq!(log.compact(1).await.unwrap().deleted, 1);
        assert!(!stray.exists());
        assert_eq!(content(&log).await, expected(0..30));
    });
}

#[test]
fn what_is_erased_is_gone_from_every_byte() {
    block(async {
        let (folder, log) = filled().await;
        log.compact(1_000_000).await.unwrap();
        let part = parts(folder.path()).swap_remove(0);
        fs::copy(&part, Path::new(&part).with_file_name("part-stray.parquet")).unwrap();
        let Erased { rows, deleted, version } = log.erase(&rows! { card: [3_i32, 99] }).await.unwrap();
        assert_eq!(rows, 6);
        assert!(!deleted.is_empty());
        assert_eq!(version, 5, "three batches, a compaction, and this");
        assert_eq!(content(&log).await, expected((0..30).filter(|row| row % 5 != 3)));
        let table = super::log(&folder, cards()).await;
        assert_eq!(content(&table).await, expected((0..30).filter(|row| row % 5 != 3)));
        for part in parts(folder.path()) {
            let file = fs::File::open(&part).unwrap();
            let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1024).unwrap();
            for batch in reader {
                let batch = batch.unwrap();
                let cards = batch.column_by_name("card").unwrap().as_primitive::<Int64Type>();
                assert!(!cards.values().contains(&3), "{part}");
            }
        }
        let again = log.erase(&rows! { card: [3_i32] }).await.unwrap();
        assert_eq!(again, Erased { rows: 0, deleted: vec![], version: 5 });
        assert_eq!(log.next(), 30, "numbers are not given out again");
    });
}

#[test]
fn a_day_without_rows_has_no_file() {
    block(async {
        let folder = tempdir().unwrap();
        let log = log(&folder, cards()).await;
        log.append(0, &rows_of(1, 1)).await.unwrap();
        assert_eq!(log.erase(&rows! { card: [1_i64] }).await.unwrap().rows, 1);
        assert_eq!((parts(folder.path()).len(), log.rows()), (0, 0));
        assert_eq!(content(&log).await, expected(0..0));
    });
}

#[test]
fn rows_that_do_not_fit_are_named_and_nothing_is_written() {
    block(async {
        let folder = tempdir().unwrap();
        let log = log(&folder, cards()).await;
        let refused = async |rows: RecordBatch| log.append(0, &rows).await.unwrap_err().to_string();
        let cases = [
            (rows! { card: [1_i64], avg: [1.0], _event: [1_i64] }, "no column `tier`"),
            (
                rows! { crad: [1_i64], avg: [1.0], tier: ["a"], _event: [1_i64] },
                "no column `card`; did you mean `crad`?",
            ),
            (
                rows! { card: [Some(1_i64), None], avg: [1.0, 1.0], tier: ["a", "b"], _event: [1_i64, 1] },
                "row 1: key `card` is null",
            ),
            (
                rows! { card: [1_i64, 1], avg: [1.0, 1.0], tier: ["a", "b"], _event: [Some(1_i64), None] },
                "row 1: `_event` is null",
            ),
            (
                rows! { card: [1_i64], avg: [1.0], tier: ["a"], _event: [i64::MAX] },
                "row 0: `_event` lies outside the years 1 to 9999",
            ),
            (
                rows! { card: [1_i64], avg: ["much"], tier: ["a"], _event: [1_i64] },
                "row 0: column `avg`: `much` is no Float64",
            ),
        ];
        for (rows, message) in cases {
            assert!(refused(rows).await.starts_with(message), "{message}");
        }
        let last = log.append(u64::MAX, &rows_of(0, 2)).await.unwrap_err().to_string();
        assert_eq!(last, format!("row 0: sequence number {} leaves no room for 2 rows", u64::MAX));
        assert_eq!(parts(folder.path()), Vec::<String>::new());
    });
}

#[test]
fn names_of_features_do_not_clash_with_the_bookkeeping() {
    let column = |name: &str| Column { name: name.to_owned(), data_type: DataType::Int64 };
    let error =
        LogSchema::new("cards", vec![column("card")], vec![column("_event")]).unwrap_err().to_string();
    assert_eq!(error, "feature set `cards`: the log keeps its own column `_event`; name yours otherwise");
}

#[test]
fn a_feature_that_came_later_is_null_in_older_rows() {
    block(async {
        let (folder, _) = filled().await;
        let log = log(&folder, cards().feature("age", DataType::Int32)).await;
        assert_eq!(content(&log).await, expected(0..30));
        let rows = log.read().await.unwrap();
        assert!(rows.iter().all(|rows| rows.column_by_name("age").unwrap().null_count() == rows.num_rows()));
    });
}

/// The file of a day that cannot matter to a spine is not even opened.
#[test]
fn days_that_cannot_matter_are_not_read() {
    block(async {
        let (folder, log) = filled().await;
        let set = |ttl: i64| {
            let ttl = Some(Duration::from_micros(ttl as u64));
            OfflineSet::of_log("cards", log.table()).as_of(AsOf { ttl, ..AsOf::default() })
        };
        let vector = Vector::new("v").features(["cards.tier"]);
        let asked = || spine(rows! { card: [1_i64], at: [2 * DAY - 1] });
        fs::remove_dir_all(folder.path().join("cards/date=1969-12-31")).unwrap();
        let answer = training(&store(2, vec![set(DAY)]), &vector, &asked()).await.unwrap();
        assert_eq!(answer.column(2).as_string::<i32>().value(0), "tier-11");
        assert!(
            training(&store(2, vec![set(3 * DAY)]), &vector, &asked()).await.is_err(),
            "older rows may matter"
        );
    });
}

#[test]
fn a_log_lies_in_any_object_store() {
    block(async {
        let store = Arc::new(InMemory::new());
        let schema = LogSchema::of(&cards().build().unwrap()).unwrap();
        let place = ObjectPath::from("logs/cards");
        let log = Log::open(Arc::<InMemory>::clone(&store), place, schema).await.unwrap();
        log.append(0, &rows_of(0, 10)).await.unwrap();
        log.compact(100).await.unwrap();
        assert_eq!(content(&log).await, expected(0..10));
        assert!(store.head(&ObjectPath::from("logs/cards/_log/00000000000000000001.json")).await.is_ok());
    });
}
