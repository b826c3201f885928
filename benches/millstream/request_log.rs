//! The request log: what a request pays, beside a list of the same batches; and how fast rows go to files, beside a plain Parquet
//! writer of the same rows.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use millstream::{
    RunId,
    arrow::array::RecordBatch,
    monitor::record::{Finished, Reader, Recorder, Watched, Writer},
    rows,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

/// Requests of one row between two writings.
const REQUESTS: usize = 20_000;
/// Those that differ.
const DISTINCT: usize = 1000;
/// The beginning of an hour, in microseconds since 1970, and a time in it.
const BEGIN: i64 = 1_796_101_200_000_000;
const NOW: i64 = BEGIN + 60_000_000;

/// A request's name, and what travels each edge of it.
struct Asked {
    id: String,
    edges: Vec<RecordBatch>,
}

const EDGES: [&str; 5] = ["input", "lgbm", "lr", "mlp", "reply"];

pub(crate) fn bench(c: &mut Criterion) {
    let asked: Vec<Asked> = (0..DISTINCT).map(asked).collect();
    let mut group = c.benchmark_group("request_log");
    requests(&mut group, &asked);
    group.sample_size(10).throughput(Throughput::Elements(REQUESTS as u64));
    files(&mut group, &asked);
    group.finish();
}

/// On the path of a request: five batches of one row are seen, and it ends.
fn requests(group: &mut BenchmarkGroup<'_, WallTime>, asked: &[Asked]) {
    let folder = tempfile::tempdir().unwrap();
    group.bench_function("request", |b| {
        b.iter_custom(|times| {
            timed(times, |times| {
                let recorder = recorder(folder.path(), asked);
                let begin = Instant::now();
                fill(&recorder, asked, times);
                let took = begin.elapsed();
                assert_eq!(recorder.waiting_rows(), times);
                took
            })
        });
    });
    group.bench_function("request_by_hand", |b| {
        b.iter_custom(|times| {
            timed(times, |times| {
                let held: Mutex<Vec<(String, Vec<RecordBatch>)>> = Mutex::default();
                let begin = Instant::now();
                for asked in asked.iter().cycle().take(times) {
                    held.lock().unwrap().push((asked.id.clone(), asked.edges.clone()));
                }
                begin.elapsed()
            })
        });
    });
}

/// The time of so many requests, of which only some are held at once.
fn timed(times: u64, some: impl Fn(usize) -> Duration) -> Duration {
    let (whole, rest) = (times / REQUESTS as u64, (times % REQUESTS as u64) as usize);
    (0..whole).map(|_| REQUESTS).chain((rest > 0).then_some(rest)).map(some).sum()
}

/// In the background: rows of requests that have ended become a file.
fn files(group: &mut BenchmarkGroup<'_, WallTime>, asked: &[Asked]) {
    let filled = || {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Arc::new(recorder(folder.path(), asked));
        fill(&recorder, asked, REQUESTS);
        let writer = Writer::open(Arc::clone(&recorder)).unwrap();
        (folder, recorder, writer)
    };
    group.bench_function("files", |b| {
        b.iter_batched(
            filled,
            |(folder, recorder, mut writer)| {
                assert_eq!(writer.flush(NOW).unwrap().rows, REQUESTS);
                (folder, recorder, writer)
            },
            BatchSize::PerIteration,
        );
    });
    let (folder, recorder, mut writer) = filled();
    writer.flush(NOW).unwrap();
    let log = Reader::open(recorder.folder()).unwrap();
    let written: Vec<RecordBatch> = log.rows(BEGIN, NOW).unwrap().map(Result::unwrap).collect();
    assert_eq!(written.iter().map(RecordBatch::num_rows).sum::<usize>(), REQUESTS);
    let zstd = Compression::ZSTD(ZstdLevel::default());
    group.bench_function("files_by_hand", |b| {
        b.iter(|| {
            let file = File::create(folder.path().join("by_hand.parquet")).unwrap();
            let properties = WriterProperties::builder().set_compression(zstd).build();
            let to = file.try_clone().unwrap();
            let mut writer = ArrowWriter::try_new(to, written[0].schema(), Some(properties)).unwrap();
            written.iter().for_each(|batch| writer.write(batch).unwrap());
            writer.close().unwrap();
            file.sync_all().unwrap();
        });
    });
}

fn recorder(folder: &Path, asked: &[Asked]) -> Recorder {
    let settings = serde_json::from_value(serde_json::json!({ "path": folder })).unwrap();
    let watched = EDGES.iter().zip(&asked[0].edges);
    let watched = watched.map(|(name, batch)| Watched { name: (*name).to_owned(), schema: batch.schema() });
    Recorder::new("fraud", &settings, &watched.collect::<Vec<_>>(), |_| None).unwrap()
}

/// Requests that have ended.
fn fill(recorder: &Recorder, asked: &[Asked], requests: usize) {
    let versions: Arc<[String]> = Arc::from(["57b0cf019517192b".to_owned()]);
    for (at, asked) in asked.iter().cycle().take(requests).enumerate() {
        let run = RunId(at as u64);
        for (edge, batch) in asked.edges.iter().enumerate() {
            recorder.observe(run, edge, batch, |row| u32::try_from(row).ok());
        }
        recorder.finish(Finished {
            run,
            request_id: Some(&asked.id),
            at: BEGIN + at as i64 * 100,
            took: 850,
            outcome: "ok",
            degraded: &[],
            versions: Arc::clone(&versions),
        });
    }
}

/// A request of the fraud graph: what comes in, what its models say, and what goes out.
fn asked(at: usize) -> Asked {
    // A number that looks like chance, the same each time.
    let scattered = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let one_of = |texts: [&'static str; 4], by: u64| [texts[(scattered / by % 4) as usize]];
    let score = (scattered % 1_000_003) as f64 / 1_000_003.0;
    let input = rows! {
        txn_id: [format!("t-{scattered:08}")],
        card_id: [(scattered % 4000) as i64],
        amount: [(scattered % 100_000) as f64 / 100.0],
        category: one_of(["grocery", "fuel", "travel", "gaming"], 3),
        country: one_of(["US", "DE", "FR", "BR"], 5),
        ts: [1_796_101_200 + at as i64],
        merchant_id: [format!("m-{:04}", scattered % 700)],
        channel: one_of(["web", "pos", "app", "phone"], 7),
        currency: one_of(["USD", "EUR", "EUR", "BRL"], 5),
        device: one_of(["ios", "android", "desktop", "none"], 11),
    };
    let models = [
        rows! { lgbm: [score as f32] },
        rows! { lr: [score as f32 / 2.0] },
        rows! { mlp: [score as f32 / 3.0] },
    ];
    let reply = rows! { score: [score], decision: one_of(["approve", "approve", "review", "decline"], 13) };
    let edges = std::iter::once(input).chain(models).chain([reply]).collect();
    Asked { id: format!("7f3a{scattered:028x}"), edges }
}
