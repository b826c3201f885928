//! One evaluation of an alert of many series, beside a map of the same series whose values are compared.

use std::{collections::HashMap, hint::black_box};

use criterion::{Criterion, Throughput};
use millstream::monitor::alert::{Alerts, Labels, Sample, check};

const SERIES: usize = 10_000;
/// A minute, in microseconds.
const PANE: i64 = 60_000_000;
const THRESHOLD: f64 = 0.2;

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("alerts");
    group.sample_size(20).throughput(Throughput::Elements(SERIES as u64));
    for (name, changing) in [("calm", None), ("tenth_changes", Some(10))] {
        let mut alerts = drift_alerts();
        let (mut samples, mut turns) = (samples(), 0);
        samples.iter().for_each(|sample| alerts.observe(sample));
        assert_eq!(alerts.series().count(), SERIES);
        group.bench_function(format!("10000_series/{name}"), |b| {
            b.iter(|| {
                turns += 1;
                pass(&mut samples, turns, changing);
                samples.iter().for_each(|sample| alerts.observe(sample));
                black_box(alerts.tick(turns * PANE))
            });
        });
    }
    let (mut samples, mut turns) = (samples(), 0);
    let mut last: HashMap<Labels, f64> = samples.iter().map(|sample| (sample.labels.clone(), 0.0)).collect();
    group.bench_function("10000_series/by_hand", |b| {
        b.iter(|| {
            turns += 1;
            pass(&mut samples, turns, Some(10));
            let changed = |sample: &&Sample| {
                let last = last.get_mut(&sample.labels).unwrap();
                let before = std::mem::replace(last, sample.value);
                (before > THRESHOLD) != (sample.value > THRESHOLD)
            };
            black_box(samples.iter().filter(changed).count())
        });
    });
    group.finish();
}

fn drift_alerts() -> Alerts {
    let specs = serde_json::json!({ "drifts": {
        "when": {"metric": "drift", "graph": "loan", "edge": "input", "column": "*", "above": THRESHOLD},
        "group_by": ["graph"],
        "notify": ["log"],
    }});
    Alerts::new("bench", check(&serde_json::from_value(specs).unwrap()).unwrap())
}

fn samples() -> Vec<Sample> {
    let sample = |at: usize| {
        let column = format!("column_{at:05}");
        let labels = [("graph", "loan"), ("edge", "input"), ("column", column.as_str())];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Sample { metric: "drift".to_owned(), labels, value: 0.0, at: 0, evidence: None }
    };
    (0..SERIES).map(sample).collect()
}

/// Sets the values of a turn. One of so many series as `changing` says is above the threshold in every other turn.
fn pass(samples: &mut [Sample], turn: i64, changing: Option<usize>) {
    for (at, sample) in samples.iter_mut().enumerate() {
        let above = turn % 2 == 0 && changing.is_some_and(|changing| at.is_multiple_of(changing));
        (sample.at, sample.value) = (turn * PANE, if above { 0.31 } else { 0.05 });
    }
}
