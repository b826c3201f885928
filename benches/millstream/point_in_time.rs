//! The point-in-time join in memory, on one core: spine rows per second, with the log indexed before, and in one pass over both.

use std::sync::Arc;

use criterion::{Criterion, Throughput};
use millstream::{
    arrow::{
        array::{ArrayRef, Int64Array, UInt64Array},
        datatypes::DataType,
    },
    features::offline::{AsOf, LogBatch, LogRows, PointInTime, Times, merge},
};

const LOG: i64 = 1_000_000;
const KEYS: i64 = 20_000;
const SPINE: i64 = 200_000;

/// A number that looks like chance, the same each time.
fn scattered(row: i64) -> i64 {
    ((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as i64
}

fn ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// A log in the order of time, each row known soon after it happened.
fn log() -> LogRows {
    let mut log = LogRows::new(&[DataType::Int64]).unwrap();
    let keys = [ints((0..LOG).map(|row| scattered(row) % KEYS))];
    let event = ints((0..LOG).map(|row| row * 1000));
    let created = ints((0..LOG).map(|row| row * 1000 + scattered(row) % 60_000));
    let sequence: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..LOG as u64));
    let batch = LogBatch {
        keys: &keys,
        event: &event,
        created: Some(&created),
        sequence: Some(&sequence),
        valid_to: None,
    };
    log.push(&batch).unwrap();
    log
}

pub(crate) fn bench(c: &mut Criterion) {
    let keys = ints((0..SPINE).map(|row| scattered(row + LOG) % KEYS));
    let times = Times::of(&ints((0..SPINE).map(|row| scattered(row + 2 * LOG) % (LOG * 1000)))).unwrap();
    let mut group = c.benchmark_group("point_in_time");
    group.sample_size(10).throughput(Throughput::Elements(SPINE as u64));
    let join = PointInTime::new(log(), AsOf::default()).unwrap();
    group.bench_function("indexed", |b| b.iter(|| join.find(&[&keys], &times).unwrap()));
    let log = log();
    let spine: [(&[&ArrayRef], &Times); 1] = [(&[&keys], &times)];
    group.bench_function("merged, log and all", |b| b.iter(|| merge(&log, &spine, AsOf::default()).unwrap()));
    group.finish();
}
