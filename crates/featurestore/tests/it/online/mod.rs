//! Stores that take writes: one table of behaviours over all backends, and what each promises by itself.

mod conformance;
mod killed;
mod model;
mod readers;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "redis")]
mod redis;
mod windows;

use std::{any::Any, fmt::Write as _, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    util::display::array_value_to_string,
};
use millstream_featurestore::{
    Answer, Changes, Clock, FeatureSet, FeatureSetBuilder, Found, Gap, LocalOptions, LocalTable, Outcome,
    Pick, Read, Selection, Status, WritableTable, WriteError,
};

/// Microseconds of now, where a lookup gives no time.
const NOW: i64 = 1_000;

/// A backend under test.
struct Backend {
    name: &'static str,
    /// `None` where this machine lacks what it takes.
    make: fn(FeatureSet, Option<Duration>) -> Option<Subject>,
}

/// A table, and what must live as long as it.
struct Subject {
    table: Arc<dyn WritableTable>,
    runtime: tokio::runtime::Runtime,
    _keep: Box<dyn Any>,
}

const BACKENDS: &[Backend] = &[
    Backend { name: "memory", make: |set, ttl| Some(memory(set, ttl)) },
    Backend { name: "folder", make: folder },
    #[cfg(feature = "redb")]
    Backend { name: "redb", make: redb::subject },
    #[cfg(feature = "redis")]
    Backend { name: "redis", make: redis::single },
    #[cfg(feature = "redis")]
    Backend { name: "redis cluster", make: redis::cluster },
];

fn options(ttl: Option<Duration>) -> LocalOptions {
    LocalOptions { ttl, clock: Clock::new(|| NOW), ..LocalOptions::default() }
}

fn memory(set: FeatureSet, ttl: Option<Duration>) -> Subject {
    Subject::new(LocalTable::in_memory(set, options(ttl)), ())
}

fn folder(set: FeatureSet, ttl: Option<Duration>) -> Option<Subject> {
    let dir = tempfile::tempdir().unwrap();
    Some(Subject::new(LocalTable::open(dir.path(), set, options(ttl)).unwrap(), dir))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Subject {
    fn new(table: impl WritableTable, keep: impl Any) -> Self {
        Self::over(Arc::new(table), keep)
    }

    fn over(table: Arc<dyn WritableTable>, keep: impl Any) -> Self {
        Self { table, runtime: runtime(), _keep: Box::new(keep) }
    }

    fn get<T>(&self, answer: Answer<'_, T>) -> Result<T, WriteError> {
        self.runtime.block_on(answer.get())
    }

    /// Writes, and says what became of each row: `taken older repeated refused: ...`.
    fn write(&self, changes: Changes) -> String {
        match self.get(self.table.write(changes)) {
            Ok(written) => written.rows.iter().map(outcome).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    fn found(&self, keys: &RecordBatch, at: Option<i64>, change: fn(Selection) -> Selection) -> Found {
        let set = self.table.set();
        let picks = 0..set.features().len();
        let picks = picks.map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null }).collect();
        let columns: Vec<_> = (0..set.keys().len()).collect();
        let selection = change(Selection::new(set, &columns, picks).unwrap());
        let read = match at {
            Some(at) => self.table.read_at(keys, &selection, at),
            None => self.table.read(keys, &selection),
        };
        match read {
            Read::Ready(found) => found.unwrap(),
            Read::Waits(found) => self.runtime.block_on(found).unwrap(),
        }
    }

    /// The rows of some keys, at a time or at none: `1 a | - | null 2`, where `-` is missing and `~` is stale.
    fn read_at(&self, keys: &RecordBatch, at: Option<i64>) -> String {
        shown(&self.found(keys, at, |selection| selection), keys.num_rows())
    }

    fn read(&self, keys: &RecordBatch) -> String {
        self.read_at(keys, None)
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Taken => "taken".into(),
        Outcome::Older => "older".into(),
        Outcome::TooLate => "too late".into(),
        Outcome::Repeated => "repeated".into(),
        Outcome::Refused(problem) => format!("refused({problem})"),
        other => format!("{other:?}"),
    }
}

fn shown(found: &Found, rows: usize) -> String {
    let row = |row: usize| {
        let mut text = String::new();
        match found.status(row, 0) {
            Status::Missing => text.push('-'),
            Status::Stale => text.push('~'),
            _ => {}
        }
        if !found.missing.contains(&(row as u32)) {
            let values = found.columns.iter().map(|column| value(column, row)).collect::<Vec<_>>();
            write!(text, "{}", values.join(" ")).unwrap();
        }
        text
    };
    (0..rows).map(row).collect::<Vec<_>>().join(" | ")
}

fn value(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) { "null".into() } else { array_value_to_string(column, row).unwrap() }
}

/// Runs a test over every backend; its failure names the backend.
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
fn on_each(set: &FeatureSetBuilder, ttl: Option<Duration>, test: impl Fn(&Subject)) {
    for backend in BACKENDS {
        println!("on {}", backend.name);
        if let Some(subject) = (backend.make)(set.clone().build().unwrap(), ttl) {
            test(&subject);
        }
    }
}

/// A set of one number by one integer key.
fn counts() -> FeatureSetBuilder {
    FeatureSet::builder("counts")
        .key("id", arrow::datatypes::DataType::Int64)
        .feature("n", arrow::datatypes::DataType::Int64)
}

/// Rows of [`counts`].
fn count(rows: &[(i64, i64, i64)]) -> Changes {
    let column = |of: fn(&(i64, i64, i64)) -> i64| rows.iter().map(of).collect::<Vec<_>>();
    let batch = millstream_graph::rows! { id: column(|row| row.0), n: column(|row| row.1) };
    Changes::new(batch, column(|row| row.2))
}

fn ids(ids: &[i64]) -> RecordBatch {
    millstream_graph::rows! { id: ids.to_vec() }
}
