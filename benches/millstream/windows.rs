//! Count and sum of the last hour and the last day for 1000 keys, beside running totals that take away what leaves.
//!
//! The floor does less: it is right only in order, drifts, and cannot be read at another time than that of the newest event.

use std::{collections::VecDeque, hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use millstream::{
    arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch},
    arrow::datatypes::Float64Type,
    features::{AggregateSpec, Aggregates, Ledger, Version},
};

const KEYS: usize = 1000;
const EVENTS: usize = 1000;
const SECOND: i64 = 1_000_000;
/// Between two events: so that a key has some 40 an hour, 1000 a day.
const STEP: i64 = 86_400 * SECOND / (KEYS as i64 * 1000);
const WINDOWS: [i64; 2] = [3_600 * SECOND, 86_400 * SECOND];

pub(crate) fn bench(c: &mut Criterion) {
    let amounts = Float64Array::from_iter_values((0..EVENTS).map(|at| (at * 7919 % 100_003) as f64 / 100.0));
    let events = RecordBatch::try_from_iter([("amount", Arc::new(amounts) as ArrayRef)]).unwrap();
    let spec: AggregateSpec = serde_json::from_str(
        r#"{"column": "amount", "functions": ["count", "sum"], "windows": ["1h", "24h"]}"#,
    )
    .unwrap();
    let none = |text: &str| Err(text.to_owned());
    let of = Aggregates::new(&[spec], &events.schema(), Duration::from_secs(600), &none).unwrap();

    let mut group = c.benchmark_group("windows");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let mut ledgers = vec![Ledger::default(); KEYS];
    let mut clock = 0;
    let mut add = || {
        let prepared = of.prepare(&events).unwrap();
        for row in 0..EVENTS {
            clock += STEP;
            let version = Version { event: clock, created: None, sequence: 0 };
            _ = black_box(ledgers[row * 31 % KEYS].add(&of, &prepared, row, version));
        }
    };
    // A day, so that as much leaves as comes.
    (0..1000).for_each(|_| add());
    group.bench_function("add", |b| b.iter(&mut add));
    group.bench_function("read", |b| {
        b.iter(|| black_box(of.read(ledgers.iter().map(|ledger| (ledger, clock))).unwrap()))
    });

    let mut totals: Vec<Totals> = (0..KEYS).map(|_| Totals::default()).collect();
    let mut clock = 0;
    let mut add = || {
        let amounts = events.column(0).as_primitive::<Float64Type>();
        for (row, amount) in amounts.values().iter().enumerate() {
            clock += STEP;
            totals[row * 31 % KEYS].add(clock, *amount);
        }
    };
    (0..1000).for_each(|_| add());
    group.bench_function("running_totals", |b| b.iter(&mut add));
    group.finish();
}

/// The events of each window in order, with their count and sum.
#[derive(Default)]
struct Totals([(VecDeque<(i64, f64)>, f64); 2]);

impl Totals {
    fn add(&mut self, at: i64, amount: f64) {
        for ((events, sum), window) in self.0.iter_mut().zip(WINDOWS) {
            events.push_back((at, amount));
            *sum += amount;
            while let Some((_, gone)) = events.pop_front_if(|(event, _)| *event < at - window) {
                *sum -= gone;
            }
        }
        black_box(&self.0);
    }
}
