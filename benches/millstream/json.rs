//! Request bodies into columns and replies into bodies, beside the same bytes into and out of structs by `serde_json` and by
//! `sonic-rs`. The structs borrow their texts and check no limits.

use std::{hint::black_box, path::Path, sync::Arc};

use criterion::{Criterion, Throughput};
use millstream::{
    DecodeLimits, Project,
    arrow::{array::RecordBatch, datatypes::Schema},
    wire::{
        Form,
        json::{Decoder, Encoder},
    },
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Transaction<'a> {
    txn_id: &'a str,
    card_id: i64,
    amount: f64,
    category: &'a str,
    country: &'a str,
    ts: i64,
    merchant_id: &'a str,
    channel: &'a str,
    currency: &'a str,
    device: &'a str,
}

pub(crate) fn bench(c: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fraud");
    let text = std::fs::read_to_string(folder.join("data/requests.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().take(1000).collect();
    let plan = Project::load(&folder).unwrap().plan("fraud").unwrap();
    let schema = plan.input_schema();
    let decoder = Decoder::new(Arc::clone(schema), DecodeLimits::default()).unwrap();
    for (name, body) in [("1", lines[0].to_owned()), ("1000", format!("[{}]", lines.join(",")))] {
        decode(c, name, body.as_bytes(), &decoder);
        encode(c, name, &decoder.decode(body.as_bytes()).unwrap().batch);
    }
}

fn decode(c: &mut Criterion, rows: &str, body: &[u8], decoder: &Decoder) {
    let mut group = c.benchmark_group("json/decode");
    group.throughput(Throughput::Bytes(body.len() as u64));
    // What a request costs before it meets others, and what it costs alone.
    group.bench_function(format!("{rows}/read"), |b| b.iter(|| black_box(decoder.read(body).unwrap())));
    group.bench_function(format!("{rows}/columns"), |b| b.iter(|| black_box(decoder.decode(body).unwrap())));
    if body[0] == b'[' {
        group.bench_function(format!("{rows}/serde_json"), |b| {
            b.iter(|| black_box(serde_json::from_slice::<Vec<Transaction<'_>>>(body).unwrap().len()));
        });
        group.bench_function(format!("{rows}/sonic_rs"), |b| {
            b.iter(|| black_box(sonic_rs::from_slice::<Vec<Transaction<'_>>>(body).unwrap().len()));
        });
    } else {
        group.bench_function(format!("{rows}/serde_json"), |b| {
            b.iter(|| black_box(serde_json::from_slice::<Transaction<'_>>(body).unwrap().ts));
        });
        group.bench_function(format!("{rows}/sonic_rs"), |b| {
            b.iter(|| black_box(sonic_rs::from_slice::<Transaction<'_>>(body).unwrap().ts));
        });
    }
}

fn encode(c: &mut Criterion, rows: &str, batch: &RecordBatch) {
    let encoder = Encoder::new(Arc::new(Schema::new(batch.schema().fields().clone()))).unwrap();
    let mut body = Vec::new();
    encoder.encode(batch, Form::Array, &mut body).unwrap();
    let structs: Vec<Transaction<'_>> = serde_json::from_slice(&body).unwrap();
    let mut group = c.benchmark_group("json/encode");
    group.throughput(Throughput::Bytes(body.len() as u64));
    let mut out = Vec::with_capacity(body.len());
    group.bench_function(format!("{rows}/columns"), |b| {
        b.iter(|| {
            out.clear();
            encoder.encode(batch, Form::Array, &mut out).unwrap();
            black_box(out.len())
        });
    });
    group.bench_function(format!("{rows}/serde_json"), |b| {
        b.iter(|| {
            out.clear();
            serde_json::to_writer(&mut out, &structs).unwrap();
            black_box(out.len())
        });
    });
    group.bench_function(format!("{rows}/sonic_rs"), |b| {
        b.iter(|| {
            out.clear();
            sonic_rs::to_writer(&mut out, &structs).unwrap();
            black_box(out.len())
        });
    });
}
