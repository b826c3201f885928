//! The seven expressions of the fraud graph over 1, 32 and 1024 rows, beside plain Rust over slices.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use millstream::{Graph, arrow::array::RecordBatch, fields, rows, transform::With};

use crate::{inline_engine, now};

pub(crate) fn bench(c: &mut Criterion) {
    let schema = fields! {
        amount: Float64, avg: Float32, std: Float32, n_1h: Float32, n_24h: Float32, limit: Float32, ts: Int64, country: Utf8
    };
    let mut graph = Graph::new("expressions", schema);
    let input = graph.input();
    let with = With::new()
        .column("log_amount", "log1p(amount)")
        .column("amount_to_usual", "amount / (avg + 1.0)")
        .column("deviation", "(amount - avg) / (std + 1.0)")
        .column("hour_share", "n_1h / (n_24h + 1.0)")
        .column("amount_to_limit", "amount / (\"limit\" + 1.0)")
        .column("hour", "(ts / 3600 % 24) / 24.0")
        .column("abroad", "CASE WHEN country = 'US' THEN 0.0 ELSE 1.0 END");
    let derived = graph.step("derived", &input, with);
    graph.respond(&derived);
    let engine = inline_engine(&graph);

    let mut group = c.benchmark_group("expressions");
    for count in [1, 32, 1024] {
        let batch = rows_of(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("engine/{count}"), |b| {
            b.iter(|| black_box(now(engine.run(batch.clone())).unwrap()));
        });
        let plain = plain_rows(count);
        group.bench_function(format!("plain_rust/{count}"), |b| {
            b.iter(|| black_box(plain.iter().map(derive).collect::<Vec<_>>()));
        });
    }
    group.finish();
}

struct Plain {
    amount: f64,
    stored: [f64; 5],
    ts: i64,
    country: &'static str,
}

fn plain_rows(count: usize) -> Vec<Plain> {
    let row = |at: usize| Plain {
        amount: at as f64 + 0.5,
        stored: [50.0, 12.0, 1.0, 7.0, 4000.0],
        ts: 1_760_000_000 + at as i64,
        country: if at.is_multiple_of(3) { "US" } else { "DE" },
    };
    (0..count).map(row).collect()
}

fn derive(row: &Plain) -> [f64; 7] {
    let (a, [avg, std, n_1h, n_24h, limit]) = (row.amount, row.stored);
    [
        a.ln_1p(),
        a / (avg + 1.0),
        (a - avg) / (std + 1.0),
        n_1h / (n_24h + 1.0),
        a / (limit + 1.0),
        (row.ts / 3600 % 24) as f64 / 24.0,
        if row.country == "US" { 0.0 } else { 1.0 },
    ]
}

fn rows_of(count: usize) -> RecordBatch {
    let plain = plain_rows(count);
    let stored = |at: usize| plain.iter().map(|row| row.stored[at] as f32).collect::<Vec<f32>>();
    rows! {
        amount: plain.iter().map(|row| row.amount).collect::<Vec<_>>(),
        avg: stored(0), std: stored(1), n_1h: stored(2), n_24h: stored(3), limit: stored(4),
        ts: plain.iter().map(|row| row.ts).collect::<Vec<_>>(),
        country: plain.iter().map(|row| row.country).collect::<Vec<_>>(),
    }
}
