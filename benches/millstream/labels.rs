//! Predictions that meet their labels, beside a hand-written join in a map that feeds the same metrics and forgets nothing.

use std::{collections::HashMap, time::Duration};

use criterion::{Criterion, Throughput};
use millstream::monitor::performance::{Accumulator, BinaryMetrics, BinaryPrediction, JoinConfig, LabelJoin};

const PAIRS: usize = 50_000;
const SECOND: i64 = 1_000_000;
/// Windows of a minute, and an hour for labels to come.
const WINDOW: i64 = 60 * SECOND;
const LATENESS: i64 = 60 * WINDOW;
/// Between two predictions.
const STEP: i64 = SECOND / 100;
/// The clock moves after so many, as it does when a queue of predictions is taken.
const AT_ONCE: usize = 1000;

/// A row, as it was answered and as it turned out.
struct Pair {
    id: String,
    at: i64,
    prediction: BinaryPrediction,
    label: bool,
}

/// Which of the two comes first.
#[derive(Clone, Copy)]
enum First {
    Predictions,
    Labels,
}

pub(crate) fn bench(c: &mut Criterion) {
    let pairs: Vec<Pair> = (0..PAIRS).map(pair).collect();
    let mut group = c.benchmark_group("labels");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(8))
        .throughput(Throughput::Elements(PAIRS as u64));
    for (name, first) in [("late", First::Predictions), ("early", First::Labels)] {
        // What is held is let go within the time, on both sides.
        group.bench_function(name, |b| b.iter(|| joined(&pairs, first)));
        group.bench_function(format!("{name}_by_hand"), |b| b.iter(|| joined_by_hand(&pairs, first)));
    }
    group.finish();
}

/// All pairs by [`LabelJoin`]; answers how many were joined.
fn joined(pairs: &[Pair], first: First) -> u64 {
    let config = JoinConfig { waiting: PAIRS, ..JoinConfig::new(WINDOW, LATENESS) };
    let mut join = LabelJoin::new(BinaryMetrics::default(), config, 0).unwrap();
    let predict = |join: &mut LabelJoin<BinaryMetrics>| {
        for pairs in pairs.chunks(AT_ONCE) {
            join.advance(pairs[0].at);
            for pair in pairs {
                join.predict(&pair.id, pair.at, "", pair.prediction);
            }
        }
    };
    let label = |join: &mut LabelJoin<BinaryMetrics>| {
        for pair in pairs {
            join.label(&pair.id, pair.at, pair.label);
        }
    };
    match first {
        First::Predictions => {
            predict(&mut join);
            label(&mut join);
        }
        First::Labels => {
            label(&mut join);
            predict(&mut join);
        }
    }
    let joined = join.counts().joined;
    assert_eq!(joined, PAIRS as u64);
    joined
}

/// The same in a map of whatever came first, and a map of the windows.
fn joined_by_hand(pairs: &[Pair], first: First) -> u64 {
    let mut windows: HashMap<i64, BinaryMetrics> = HashMap::new();
    let mut observe = |at: i64, prediction: &BinaryPrediction, label: bool| {
        windows.entry(at - at % WINDOW).or_default().observe(prediction, label);
    };
    let mut joined = 0;
    match first {
        First::Predictions => {
            let mut held: HashMap<String, (i64, BinaryPrediction, Option<bool>)> = HashMap::new();
            for pair in pairs {
                held.insert(pair.id.clone(), (pair.at, pair.prediction, None));
            }
            for pair in pairs {
                let Some((at, prediction, label)) = held.get_mut(&pair.id) else { continue };
                *label = Some(pair.label);
                observe(*at, prediction, pair.label);
                joined += 1;
            }
        }
        First::Labels => {
            let mut held: HashMap<String, bool> = HashMap::new();
            for pair in pairs {
                held.insert(pair.id.clone(), pair.label);
            }
            for pair in pairs {
                let Some(label) = held.remove(&pair.id) else { continue };
                observe(pair.at, &pair.prediction, label);
                joined += 1;
            }
        }
    }
    assert_eq!(joined, PAIRS as u64);
    joined
}

fn pair(at: usize) -> Pair {
    // A number that looks like chance, the same each time.
    let scattered = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let probability = (scattered % 1_000_003) as f64 / 1_000_003.0;
    let prediction = BinaryPrediction { positive: probability >= 0.5, probability };
    Pair {
        id: format!("7f3a{scattered:016x}{at:08x}"),
        at: at as i64 * STEP,
        prediction,
        label: scattered.is_multiple_of(3),
    }
}
