//! Windows over a stream of events, event by event.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use millstream::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch},
        compute::cast,
        datatypes::{DataType, Float64Type, Int64Type},
    },
    features::{AggregateSpec, Aggregates, Ledger, Version},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// As many events as the peer takes in a bearable time.
const PEER: u64 = 60_000;

/// Events a second that enter count and sum over an hour and a day, in the order of the file; and count and sum of key 7 after
/// as many as the peer takes.
pub(crate) fn events(folder: &Path) -> Value {
    let file = File::open(folder.join("events.parquet")).unwrap();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1024).build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let spec: AggregateSpec = serde_json::from_str(
        r#"{"column": "amount", "functions": ["count", "sum"], "windows": ["1h", "24h"]}"#,
    )
    .unwrap();
    let none = |text: &str| Err(text.to_owned());
    let of = Aggregates::new(&[spec], &batches[0].schema(), Duration::from_secs(600), &none).unwrap();
    let mut ledgers: HashMap<i64, Ledger> = HashMap::new();
    let (mut rows, mut newest, mut early) = (0, HashMap::new(), None);
    let start = Instant::now();
    for batch in &batches {
        let prepared = of.prepare(batch).unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values();
        for (row, (&key, &event)) in column("id").iter().zip(column("at")).enumerate() {
            let version = Version { event, created: None, sequence: rows };
            _ = ledgers.entry(key).or_default().add(&of, &prepared, row, version);
            newest.insert(key, event);
            rows += 1;
            if rows == PEER {
                early = Some((ledgers[&7].clone(), newest[&7]));
            }
        }
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    let (first, at) = early.unwrap();
    let read = of.read([(&first, at)]).unwrap();
    let value =
        |array: &ArrayRef| cast(array, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(0);
    let names = of.columns().iter().map(|column| column.name.clone());
    let key_7: BTreeMap<_, _> = names.zip(read.arrays.iter().map(value)).collect();
    json!({ "events_per_second": rate, "key_7": key_7 })
}
