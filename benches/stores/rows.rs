//! Reads by key, writes, recovery and memory of the store in this process.

use std::{
    collections::HashMap,
    fs::File,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use millstream::{
    arrow::{
        array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch},
        datatypes::{Float64Type, Int64Type, Schema},
    },
    features::{
        Changes, Durability, FeatureSet, Gap, LocalOptions, LocalTable, OnlineTable, Pick, Read, Selection,
        WritableTable, wait,
    },
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// Microseconds since 1970: all rows happened then.
const THEN: i64 = 1_700_000_000_000_000;

/// `entities.parquet`: a key and 50 numbers each.
fn entities(folder: &Path) -> (FeatureSet, Vec<RecordBatch>) {
    let file = File::open(folder.join("entities.parquet")).unwrap();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(8192).build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    (set(&batches[0].schema()), batches)
}

fn set(schema: &Schema) -> FeatureSet {
    let mut set = FeatureSet::builder("entities").key("id", schema.field(0).data_type().clone());
    for field in &schema.fields()[1..] {
        set = set.feature(field.name(), field.data_type().clone());
    }
    set.build().unwrap()
}

fn write(table: &LocalTable, batches: &[RecordBatch]) -> usize {
    let write = |batch: &RecordBatch| {
        let event = Int64Array::from(vec![THEN; batch.num_rows()]);
        wait(table.write(Changes::new(batch.clone(), event)).get()).unwrap().rows.len()
    };
    batches.iter().map(write).sum()
}

fn keys(ids: impl Iterator<Item = i64>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

/// Microseconds to read 1 and 100 keys with all 50 features, and the sum of what the first thousand keys have.
pub(crate) fn reads(folder: &Path) -> Value {
    let (set, batches) = entities(folder);
    let table = LocalTable::in_memory(set.clone(), LocalOptions::default());
    let rows = write(&table, &batches) as i64;
    let picks =
        (0..set.features().len()).map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null });
    let selection = Selection::new(&set, &[0], picks.collect()).unwrap();
    let read = |keys: &RecordBatch| match table.read(keys, &selection) {
        Read::Ready(found) => found.unwrap(),
        Read::Waits(_) => unreachable!("the store is in this process"),
    };
    let by_hand = by_hand(&batches);
    let measure = |count: i64, read: &dyn Fn(&RecordBatch) -> Vec<ArrayRef>| {
        let lookups: Vec<_> =
            (0..2000).map(|i| keys((0..count).map(|j| (i * 7919 + j * 104_729) % rows))).collect();
        let mut nanoseconds = Vec::new();
        for round in 0..6 {
            for keys in &lookups {
                let start = Instant::now();
                black_box(read(keys));
                if round > 0 {
                    nanoseconds.push(start.elapsed().as_nanos() as u64);
                }
            }
        }
        super::percentiles(nanoseconds)
    };
    let read = |keys: &RecordBatch| read(keys).columns;
    let found = read(&keys(0..1000));
    let sum: f64 = found.iter().flat_map(|column| column.as_primitive::<Float64Type>().values()).sum();
    assert_eq!(found, by_hand(&keys(0..1000)));
    json!({
        "1": measure(1, &read), "100": measure(100, &read), "sum": sum,
        "by hand": { "1": measure(1, &by_hand), "100": measure(100, &by_hand) },
    })
}

/// The floor: rows in a map, copied into the columns that a lookup answers.
fn by_hand(batches: &[RecordBatch]) -> impl Fn(&RecordBatch) -> Vec<ArrayRef> + use<> {
    let mut rows: HashMap<i64, Box<[f64]>> = HashMap::new();
    for batch in batches {
        let features: Vec<_> =
            batch.columns()[1..].iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        for (row, id) in batch.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            rows.insert(*id, features.iter().map(|feature| feature.value(row)).collect());
        }
    }
    move |keys| {
        let ids = keys.column(0).as_primitive::<Int64Type>().values();
        let found: Vec<_> = ids.iter().map(|id| &rows[id]).collect();
        let column =
            |at| Arc::new(Float64Array::from_iter_values(found.iter().map(|row| row[at]))) as ArrayRef;
        (0..found[0].len()).map(column).collect()
    }
}

/// Rows a second by durability, in parts of 8192 and one by one; seconds to open the folder again; bytes of memory a row.
pub(crate) fn writes(folder: &Path) -> Value {
    let (set, batches) = entities(folder);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut measured = json!({ "rows": rows });
    let single: Vec<_> = (0..200).map(|row| batches[0].slice(row, 1)).collect();
    let durabilities = [
        ("always", Durability::Always),
        ("every 5 ms", Durability::Every(Duration::from_millis(5))),
        ("system", Durability::System),
    ];
    for (name, durability) in durabilities {
        let dir = tempfile::tempdir_in(folder).unwrap();
        let options = || LocalOptions { durability, ..LocalOptions::default() };
        let table = LocalTable::open(dir.path(), set.clone(), options()).unwrap();
        let start = Instant::now();
        write(&table, &single);
        let alone = single.len() as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        write(&table, &batches);
        let together = rows as f64 / start.elapsed().as_secs_f64();
        let bytes = table.bytes() as f64 / rows as f64;
        drop(table);
        let start = Instant::now();
        let table = LocalTable::open(dir.path(), set.clone(), options()).unwrap();
        let recovery = start.elapsed().as_secs_f64();
        assert_eq!(table.len(), rows);
        measured[name] = json!({ "batched": together, "single": alone, "recovery_seconds": recovery, "bytes_per_row": bytes });
    }
    measured
}
