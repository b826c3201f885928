//! The offline side from outside: logs on disk, training sets, SQL, and the join against DuckDB and pandas.

#![cfg(feature = "offline")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]
#![allow(clippy::needless_pass_by_value, reason = "reads better in the tables")]

mod archive;
mod history;
mod killed;
mod log;
mod materialize;
mod oracle;
mod past;
mod random;
mod sql;
mod windows;

use std::{future::Future, num::NonZero};

use arrow::{
    array::RecordBatch, compute::concat_batches, datatypes::DataType, util::pretty::pretty_format_batches,
};
use millstream_featurestore::{
    FeatureSet, FeatureSetBuilder,
    offline::{AsOf, HistoryError, Log, LogSchema, OfflineLimits, OfflineSet, OfflineStore, Spine, Vector},
};
use tempfile::TempDir;

fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A set of cards: `avg` and `tier` by `card`.
fn cards() -> FeatureSetBuilder {
    FeatureSet::builder("cards")
        .key("card", DataType::Int64)
        .feature("avg", DataType::Float64)
        .feature("tier", DataType::Utf8)
}

/// A log in a folder of its own.
async fn log(folder: &TempDir, set: FeatureSetBuilder) -> Log {
    let set = set.build().unwrap();
    let schema = LogSchema::of(&set).unwrap();
    Log::local(folder.path().join(set.name()), schema).await.unwrap()
}

/// The set of a log that holds these rows.
async fn set_of(folder: &TempDir, set: FeatureSetBuilder, rows: RecordBatch) -> OfflineSet {
    let name = set.clone().build().unwrap().name().to_owned();
    let log = log(folder, set).await;
    log.append(0, &rows).await.unwrap();
    OfflineSet::of_log(name, log.table()).as_of(AsOf::default())
}

fn store(partitions: usize, sets: Vec<OfflineSet>) -> OfflineStore {
    let limits = OfflineLimits { partitions: NonZero::new(partitions).unwrap(), ..OfflineLimits::default() };
    let mut store = OfflineStore::new(&limits).unwrap();
    for set in sets {
        store.insert(set);
    }
    store
}

/// All rows of a training set.
async fn training(store: &OfflineStore, vector: &Vector, spine: &Spine) -> Result<RecordBatch, HistoryError> {
    let mut set = store.history(vector, spine).await?;
    let mut batches = Vec::new();
    while let Some(batch) = set.next().await? {
        batches.push(batch);
    }
    Ok(concat_batches(&set.schema(), &batches).unwrap())
}

fn spine(rows: RecordBatch) -> Spine {
    Spine::batches(rows.schema(), vec![rows], "at")
}

fn shown(batch: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
}

/// Every cause of an error, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
