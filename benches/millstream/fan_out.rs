//! One row of 20 columns out to 8 steps and joined again, beside the same copies and the same join by hand.

use std::{hint::black_box, sync::Arc};

use criterion::Criterion;
use millstream::{
    Graph, JoinOn, PortRef,
    arrow::{
        array::{ArrayRef, Float64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    },
};

use crate::{NoOp, inline_engine, now};

const COLUMNS: usize = 20;
const BRANCHES: usize = 8;

pub(crate) fn bench(c: &mut Criterion) {
    let fields: Vec<_> =
        (0..COLUMNS).map(|at| Field::new(format!("c{at}"), DataType::Float64, false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = (0..COLUMNS).map(|at| Arc::new(Float64Array::from(vec![at as f64])) as ArrayRef).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();

    let mut graph = Graph::new("fan_out", schema);
    let input = graph.input();
    let branches: Vec<PortRef> =
        (0..BRANCHES).map(|at| graph.step(&format!("b{at}"), &input, NoOp)).collect();
    let joined = graph.join("joined", branches, JoinOn::Rows);
    graph.respond(&joined);
    let engine = inline_engine(&graph);

    let mut group = c.benchmark_group("fan_out");
    group.bench_function("engine", |b| b.iter(|| black_box(now(engine.run(batch.clone())).unwrap())));
    group.bench_function("by_hand", |b| {
        b.iter(|| {
            let copies: Vec<RecordBatch> = (0..BRANCHES).map(|_| batch.clone()).collect();
            let same = |other: &RecordBatch| {
                copies[0].columns().iter().zip(other.columns()).all(|(a, b)| Arc::ptr_eq(a, b))
            };
            assert!(copies[1..].iter().all(same));
            let columns = copies[0].columns().to_vec();
            black_box(RecordBatch::try_new(Arc::clone(batch.schema_ref()), columns).unwrap())
        });
    });
    group.finish();
}
