//! What monitoring costs: the fraud graph with every edge counted, beside the same without; and a value by itself, beside a sum
//! or the count of a label.

use std::{collections::HashMap, hint::black_box, path::Path, sync::Arc, time::Instant};

use criterion::{Criterion, Throughput};
use millstream::{
    EdgeId, Limits, Project, Request, Rows, RunCx, RunId, Seen, Tap,
    arrow::{
        array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray},
        datatypes::Float64Type,
    },
    monitor::{Layout, Monitor, Reference, ReferenceOptions, Watching},
};

use crate::one_row::Served;

pub(crate) fn bench(c: &mut Criterion) {
    whole(c);
    values(c);
}

/// Bytes to bytes, one row.
fn whole(c: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fraud");
    let text = std::fs::read_to_string(folder.join("data/requests.jsonl")).unwrap();
    let bodies: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
    let watched = every_edge_watched(&folder);
    let mut group = c.benchmark_group("taps");
    for (name, project) in [("none", folder.as_path()), ("every_edge", watched.path())] {
        let project = Project::load(project).unwrap();
        let engine = project.engine("fraud", Limits { compute_threads: 0, ..Limits::default() }).unwrap();
        let served = Served::new(&engine);
        let mut requests = bodies.iter().cycle();
        group.bench_function(format!("one_row/{name}"), |b| {
            b.iter(|| black_box(served.score(requests.next().unwrap())));
        });
    }
    group.finish();
}

/// The project with every port of the graph under `monitor`.
fn every_edge_watched(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["data", "models"] {
        std::fs::create_dir(copy.path().join(part)).unwrap();
        for file in std::fs::read_dir(folder.join(part)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).unwrap();
        }
    }
    let mut text = std::fs::read_to_string(folder.join("millstream.yaml")).unwrap();
    let project = Project::load(folder).unwrap();
    let plan = project.plan("fraud").unwrap();
    let read = |name: &str| {
        plan.edges().iter().enumerate().any(|(edge, _)| plan.edge_name(EdgeId(edge as u32)).starts_with(name))
    };
    let steps = plan
        .steps()
        .iter()
        .map(|step| step.name().as_ref())
        .filter(|name| *name != "respond" && read(&format!("{name}.out")));
    text += "    monitor:\n      input: {}\n";
    steps.for_each(|step| text += &format!("      {step}: {{}}\n"));
    std::fs::write(copy.path().join("millstream.yaml"), text).unwrap();
    copy
}

/// Columns in the bins of a reference: of many rows at once, and a row at a time, as requests bring them.
fn values(c: &mut Criterion) {
    const ROWS: usize = 1000;
    let value = |row: usize, column: usize| ((row * 7919 + column * 104_729) % 10_007) as f64 * 0.01 - 40.0;
    let numbers = |column| {
        Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| value(row, column)))) as ArrayRef
    };
    let labels = |column| {
        let label = |row: usize| ["de", "fr", "it", "es", "pl"][(row * 31 + column) % 5];
        Arc::new(StringArray::from_iter_values((0..ROWS).map(label))) as ArrayRef
    };
    let mut group = c.benchmark_group("taps");
    for (name, column) in [("numbers", &numbers as &dyn Fn(usize) -> ArrayRef), ("categories", &labels)] {
        let columns = (0..COLUMNS).map(|at| (format!("c{at}"), column(at)));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let reference = Reference::of(std::slice::from_ref(&batch), &ReferenceOptions::default()).unwrap();
        let watching = Watching { reference: Some(&reference), ..Watching::default() };
        let monitor = Monitor::new(vec![Layout::new("input", &batch.schema(), &watching).unwrap()]);
        let tap: Arc<dyn Tap> = Arc::clone(&monitor).tap(0);
        // Of the rows by themselves so few that the nearest caches hold them, as they hold those of a request.
        for (what, rows, parts) in [("values", ROWS, 1), ("values_of_one_row", 1, 64)] {
            let parts: Vec<Rows> = (0..parts).map(|at| Rows::whole(batch.slice(at * rows, rows))).collect();
            let cx = RunCx::new(RunId(0), Request::default(), rows, Instant::now);
            group.throughput(Throughput::Elements((rows * COLUMNS) as u64));
            let mut seen = parts.iter().cycle();
            group.bench_function(format!("{what}/{name}"), |b| {
                b.iter(|| tap.observe(&Seen::new(seen.next().unwrap(), EdgeId(0), &cx)));
            });
            black_box(monitor.turn(1));
            let (mut seen, mut by_hand) = (parts.iter().cycle(), ByHand::default());
            group.bench_function(format!("{what}/{name}_by_hand"), |b| {
                b.iter(|| by_hand.add(seen.next().unwrap().batch()));
            });
            black_box(by_hand);
        }
    }
    group.finish();
}

const COLUMNS: usize = 20;

/// The least that can be known of columns: a sum of each, or a count of each label.
#[derive(Default)]
struct ByHand {
    sums: [f64; COLUMNS],
    counts: [HashMap<String, u64>; COLUMNS],
}

impl ByHand {
    fn add(&mut self, batch: &RecordBatch) {
        for (at, column) in batch.columns().iter().enumerate() {
            match column.as_primitive_opt::<Float64Type>() {
                Some(column) => self.sums[at] += column.values().iter().sum::<f64>(),
                None => column.as_string::<i32>().iter().flatten().for_each(|label| self.count(at, label)),
            }
        }
    }

    fn count(&mut self, at: usize, label: &str) {
        match self.counts[at].get_mut(label) {
            Some(count) => *count += 1,
            None => drop(self.counts[at].insert(label.to_owned(), 1)),
        }
    }
}
