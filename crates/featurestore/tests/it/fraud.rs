//! The feature table of the fraud example.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Float32Type},
};
use millstream_featurestore::{Enrich, FeatureSetSpec, LoadOptions, MemoryStore, MemoryTable, OnlineTable};
use millstream_graph::rows;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::run;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/fraud");

fn load() -> MemoryTable {
    let spec: FeatureSetSpec =
        serde_json::from_value(json!({"keys": ["card_id"], "source": "data/cards.parquet"})).unwrap();
    spec.load("cards", Path::new(PROJECT), &LoadOptions::default()).unwrap()
}

/// The file, read without the store.
fn file() -> RecordBatch {
    let file = std::fs::File::open(Path::new(PROJECT).join("data/cards.parquet")).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = Arc::clone(builder.schema());
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

#[test]
fn every_value_of_the_table_comes_back_to_the_bit() {
    let (table, file) = (load(), file());
    assert_eq!((table.len(), table.set().features().len()), (5000, 12));
    assert!(table.set().features().iter().all(|feature| feature.data_type == DataType::Float32));
    let mut store = MemoryStore::new();
    store.insert(table);
    let ids: Vec<i64> = (0..5000).rev().collect();
    let (found, failed) = run(&Enrich::new(Arc::new(store), "cards"), rows! { card_id: ids }).unwrap();
    assert!(failed.is_none());
    let found = found.unwrap().into_batch();
    for field in &file.schema().fields()[1..] {
        let bits = |batch: &RecordBatch| -> Vec<u32> {
            let column = batch.column_by_name(field.name()).unwrap().as_primitive::<Float32Type>();
            column.values().iter().map(|value| value.to_bits()).collect()
        };
        let backwards: Vec<_> = bits(&found).into_iter().rev().collect();
        assert_eq!(backwards, bits(&file), "{}", field.name());
    }
}

#[test]
fn statistics_are_those_of_the_file() {
    let (table, file) = (load(), file());
    for (number, feature) in table.set().features().iter().enumerate() {
        let column = file.column_by_name(&feature.name).unwrap().as_primitive::<Float32Type>();
        let values: Vec<f64> = column.values().iter().map(|&value| f64::from(value)).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let found = table.profile(number).unwrap().numbers.unwrap().statistics;
        assert_eq!((found.count, found.nulls, found.not_finite), (5000, 0, 0));
        assert_eq!(found.min, values.iter().copied().reduce(f64::min));
        assert_eq!(found.max, values.iter().copied().reduce(f64::max));
        assert!((found.mean.unwrap() - mean).abs() <= mean.abs() * 1e-12, "{}", feature.name);
        assert!((found.std.unwrap() - std).abs() <= std * 1e-12, "{}", feature.name);
    }
}
