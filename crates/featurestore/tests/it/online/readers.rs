//! Readers beside a writer: rows are old or new, never a mixture.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use millstream_featurestore::{
    Changes, FeatureSet, FeatureSetBuilder, Gap, LocalOptions, LocalTable, OnlineTable, Pick, Read,
    Selection, WritableTable,
};
use millstream_graph::rows;

const KEYS: i64 = 8;

fn wide() -> FeatureSetBuilder {
    let set = (0..24).fold(FeatureSet::builder("wide").key("id", DataType::Int64), |set, i| {
        set.feature(format!("f{i}"), DataType::Int64)
    });
    set.feature("text", DataType::Utf8)
}

/// Rows of which every value is `n`.
fn all(n: i64) -> Changes {
    let mut columns: Vec<(String, arrow::array::ArrayRef)> =
        vec![("id".into(), std::sync::Arc::new(arrow::array::Int64Array::from_iter_values(0..KEYS)))];
    for i in 0..24 {
        columns.push((
            format!("f{i}"),
            std::sync::Arc::new(arrow::array::Int64Array::from_value(n, KEYS as usize)),
        ));
    }
    let texts = arrow::array::StringArray::from_iter_values(
        (0..KEYS).map(|_| "x".repeat(n as usize % 50) + &n.to_string()),
    );
    columns.push(("text".into(), std::sync::Arc::new(texts)));
    Changes::new(RecordBatch::try_from_iter(columns).unwrap(), vec![n; KEYS as usize])
}

fn check_whole(table: &LocalTable) -> i64 {
    let picks = (0..25).map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null }).collect();
    let selection = Selection::new(table.set(), &[0], picks).unwrap();
    let keys = rows! { id: (0..KEYS).collect::<Vec<i64>>() };
    let Read::Ready(found) = table.read(&keys, &selection) else { panic!("it is local") };
    let found = found.unwrap();
    let mut newest = 0;
    for row in 0..KEYS as usize {
        let values: Vec<_> =
            found.columns[..24].iter().map(|column| column.as_primitive::<Int64Type>().value(row)).collect();
        let n = values[0];
        assert!(values.iter().all(|&value| value == n), "{values:?}");
        assert_eq!(
            found.columns[24].as_string::<i32>().value(row),
            "x".repeat(n as usize % 50) + &n.to_string()
        );
        newest = newest.max(n);
    }
    newest
}

#[test]
fn readers_see_whole_rows_while_they_are_written_and_snapshots_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        durability: millstream_featurestore::Durability::Every(Duration::from_millis(5)),
        segment_bytes: 20_000,
        snapshot_after: 100_000,
        ..LocalOptions::default()
    };
    let table = LocalTable::open(dir.path(), wide().build().unwrap(), options.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(table.write(all(1)).get()).unwrap();
    let (done, start) = (AtomicBool::new(false), Barrier::new(4));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut newest = 0;
                    while !done.load(SeqCst) {
                        let seen = check_whole(&table);
                        assert!(seen >= newest, "rows went back from {newest} to {seen}");
                        newest = seen;
                    }
                })
            })
            .collect();
        start.wait();
        for n in 2..400 {
            runtime.block_on(table.write(all(n)).get()).unwrap();
        }
        done.store(true, SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    runtime.block_on(table.snapshot().get()).unwrap();
    drop(table);
    let table = LocalTable::open(dir.path(), wide().build().unwrap(), options).unwrap();
    assert_eq!((check_whole(&table), table.recovery().snapshot_rows), (399, KEYS as u64));
}
