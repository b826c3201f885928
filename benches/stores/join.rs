//! The point-in-time join: training sets from two Parquet files to rows in memory, and of rows that are in memory.

use std::{fs::File, num::NonZero, path::Path, sync::Arc, time::Instant};

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use millstream::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch},
        compute::{concat_batches, take},
        datatypes::{DataType, Float64Type},
    },
    features::{
        FeatureSet,
        offline::{
            AsOf, LogBatch, LogRows, OfflineLimits, OfflineSet, OfflineStore, Spine, Times, Vector, merge,
        },
    },
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// Seconds for `spine.parquet` with the features of `log.parquet`, on one core and on all, and the sum of the first feature.
pub(crate) fn history(folder: &Path) -> Value {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let one = runtime.block_on(joined(folder, NonZero::<usize>::MIN));
    let all = runtime.block_on(joined(folder, OfflineLimits::default().partitions));
    assert_eq!(one["sum"], all["sum"]);
    json!({ "one": one["seconds"], "all": all["seconds"], "sum": one["sum"], "rows": one["rows"] })
}

async fn joined(folder: &Path, partitions: NonZero<usize>) -> Value {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let session = SessionContext::new_with_config(config);
    let log = folder.join("log.parquet");
    let log =
        session.read_parquet(log.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap().into_view();
    let set = FeatureSet::builder("log")
        .key("id", DataType::Int64)
        .feature("a", DataType::Float64)
        .feature("b", DataType::Float64)
        .feature("c", DataType::Float64)
        .timestamp("event", DataType::Int64)
        .build()
        .unwrap();
    let mut store = OfflineStore::new(&OfflineLimits { partitions, ..OfflineLimits::default() }).unwrap();
    store.insert(OfflineSet::of_table(&set, Arc::clone(&log)).unwrap());
    let vector = Vector::new("all").features(["log.*"]);
    let spine = Spine::file(folder.join("spine.parquet"), "at");
    let mut seconds = Vec::new();
    let (mut rows, mut sum) = (0, 0.0);
    for _ in 0..3 {
        let start = Instant::now();
        let mut set = store.history(&vector, &spine).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = set.next().await.unwrap() {
            batches.push(batch);
        }
        seconds.push(start.elapsed().as_secs_f64());
        rows = batches.iter().map(RecordBatch::num_rows).sum();
        let feature = |batch: &RecordBatch| {
            let column = batch.column_by_name("a").unwrap().as_primitive::<Float64Type>();
            column.iter().flatten().sum::<f64>()
        };
        sum = batches.iter().map(feature).sum();
    }
    seconds.sort_by(f64::total_cmp);
    json!({ "seconds": seconds[1], "rows": rows, "sum": sum })
}

/// Seconds for the same on one core, when log and spine are in memory already; and the sum of the first feature.
pub(crate) fn in_memory(folder: &Path) -> Value {
    let (log, spine) = (held(&folder.join("log.parquet")), held(&folder.join("spine.parquet")));
    let column = |name: &str| log.column_by_name(name).unwrap();
    let mut seconds = Vec::new();
    let mut sum = 0.0;
    for _ in 0..3 {
        let start = Instant::now();
        let mut rows = LogRows::new(&[DataType::Int64]).unwrap();
        let keys = [Arc::clone(column("id"))];
        let (created, sequence, valid_to) = (None, None, None);
        rows.push(&LogBatch { keys: &keys, event: column("event"), created, sequence, valid_to }).unwrap();
        let (id, at) = (spine.column_by_name("id").unwrap(), spine.column_by_name("at").unwrap());
        let times = Times::of(at).unwrap();
        let found = merge(&rows, &[(&[id], &times)], AsOf::default()).unwrap();
        let features: Vec<ArrayRef> =
            ["a", "b", "c"].iter().map(|name| take(column(name), &found, None).unwrap()).collect();
        seconds.push(start.elapsed().as_secs_f64());
        sum = features[0].as_primitive::<Float64Type>().iter().flatten().sum();
    }
    seconds.sort_by(f64::total_cmp);
    json!({ "one": seconds[1], "rows": spine.num_rows(), "sum": sum })
}

fn held(file: &Path) -> RecordBatch {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}
