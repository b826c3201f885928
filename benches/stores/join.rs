//! Training sets from files: the point-in-time join from two Parquet files to rows in memory.

use std::{num::NonZero, path::Path, sync::Arc, time::Instant};

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use millstream::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{DataType, Float64Type},
    },
    features::{
        FeatureSet,
        offline::{OfflineLimits, OfflineSet, OfflineStore, Spine, Vector},
    },
};
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
