//! Logs in folders of their own, and what is in them.

mod bounds;
mod examples;
mod interleavings;
mod logging;
mod planted;
mod python;
mod reading;
mod validation;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, UInt32Type},
};
use millstream_graph::RunId;

use super::{
    Drained, Finished, Mistakes, Reader, RecordSettings, Recorder, Watched, Writer,
    files::{Files, parse_temporary},
    hour::HOUR,
};

/// 2026-12-01T05:00 UTC.
const START: i64 = 1_796_101_200_000_000;
const SECOND: i64 = 1_000_000;
const INPUT: usize = 0;
const SCORE: usize = 1;

/// A log below a folder that goes with it.
struct Log {
    folder: tempfile::TempDir,
    recorder: Arc<Recorder>,
}

impl Log {
    /// A log with these settings besides `path`, written in JSON.
    fn new(settings: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path(), settings).unwrap();
        Self { folder, recorder }
    }

    fn writer(&self) -> Writer {
        Writer::open(Arc::clone(&self.recorder)).unwrap()
    }

    fn writer_on(&self, files: Files) -> Result<Writer, super::RecordError> {
        Writer::open_on(Arc::clone(&self.recorder), files)
    }

    fn reader(&self) -> Reader {
        Reader::open(self.recorder.folder()).unwrap()
    }

    /// All rows, in one batch.
    fn rows(&self) -> RecordBatch {
        let rows = self.reader().rows(i64::MIN, i64::MAX).unwrap();
        let schema = Arc::clone(rows.schema());
        let batches: Vec<RecordBatch> = rows.map(Result::unwrap).collect();
        arrow::compute::concat_batches(&schema, &batches).unwrap()
    }

    /// How often each row of each request is in the log.
    fn logged(&self) -> BTreeMap<(String, u32), usize> {
        let mut logged = BTreeMap::new();
        let rows = self.rows();
        for name in names(&rows) {
            *logged.entry(name).or_default() += 1;
        }
        logged
    }

    /// The files below the folder, temporary ones included.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for hour in std::fs::read_dir(self.recorder.folder()).unwrap().map(|entry| entry.unwrap().path()) {
            if hour.is_dir() {
                files.extend(std::fs::read_dir(hour).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        files.sort();
        files
    }

    fn bytes(&self) -> u64 {
        self.files().iter().map(|path| path.metadata().unwrap().len()).sum()
    }

    fn has_temporary_files(&self) -> bool {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.files().iter().any(|path| parse_temporary(&name(path)).is_some())
    }

    /// A request of so many rows that goes over both edges.
    fn request(&self, id: &str, at: i64, rows: usize) {
        request(&self.recorder, id, at, rows);
    }
}

fn recorder(folder: &Path, mut settings: serde_json::Value) -> Result<Arc<Recorder>, Mistakes> {
    settings["path"] = folder.join("log").to_str().unwrap().into();
    let settings: RecordSettings = serde_json::from_value(settings).unwrap();
    let env = |name: &str| (name == "SECRET").then(|| "0123456789abcdef".to_owned());
    Recorder::new("fraud", &settings, &edges(), env).map(Arc::new)
}

fn request(recorder: &Recorder, id: &str, at: i64, rows: usize) {
    let run = run_of(id);
    recorder.observe(run, INPUT, &input(id, rows), |row| Some(row as u32));
    recorder.observe(run, SCORE, &score(id, rows), |row| Some(row as u32));
    recorder.finish(finished(run, Some(id), at));
}

/// Differs for ids that differ.
fn run_of(id: &str) -> RunId {
    RunId(id.bytes().fold(7, |run, byte| run * 131 + u64::from(byte)))
}

fn finished(run: RunId, id: Option<&str>, at: i64) -> Finished<'_> {
    let versions = Arc::from(["v1".to_owned()]);
    Finished { run, request_id: id, at, took: 250, outcome: "ok", degraded: &[], versions }
}

fn edges() -> Vec<Watched> {
    let edge = |name: &str, schema| Watched { name: name.to_owned(), schema };
    vec![edge("input", input("", 0).schema()), edge("score", score("", 0).schema())]
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// `customer` is `{id}-{row}`, `amount` is the row.
fn input(id: &str, rows: usize) -> RecordBatch {
    let customers = StringArray::from_iter_values((0..rows).map(|row| format!("{id}-{row}")));
    let amounts = Float64Array::from_iter_values((0..rows).map(|row| row as f64));
    let schema = schema(&[("customer", DataType::Utf8), ("amount", DataType::Float64)]);
    RecordBatch::try_new(schema, vec![Arc::new(customers), Arc::new(amounts)]).unwrap()
}

/// `probability` follows from the id and the row.
fn score(id: &str, rows: usize) -> RecordBatch {
    let probability = |row: usize| (run_of(id).0 % 1000) as f64 / 1000.0 + row as f64;
    let probabilities = Float64Array::from_iter_values((0..rows).map(probability));
    RecordBatch::try_new(schema(&[("probability", DataType::Float64)]), vec![Arc::new(probabilities)])
        .unwrap()
}

/// The request and its row, for each row of the log. An empty log has no columns.
fn names(rows: &RecordBatch) -> Vec<(String, u32)> {
    if rows.num_rows() == 0 {
        return Vec::new();
    }
    let ids = column(rows, "request_id").as_string::<i32>().clone();
    let numbers = column(rows, "row").as_primitive::<UInt32Type>().clone();
    (0..rows.num_rows()).map(|row| (ids.value(row).to_owned(), numbers.value(row))).collect()
}

fn column(rows: &RecordBatch, name: &str) -> ArrayRef {
    Arc::clone(rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}")))
}

fn floats(rows: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    column(rows, name).as_primitive::<Float64Type>().iter().collect()
}

fn texts(rows: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let texts = arrow::compute::cast(&column(rows, name), &DataType::Utf8).unwrap();
    texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn booleans(rows: &RecordBatch, name: &str) -> Vec<bool> {
    column(rows, name).as_boolean().iter().map(|value| value.unwrap()).collect()
}

fn once(names: impl IntoIterator<Item = (&'static str, u32)>) -> BTreeMap<(String, u32), usize> {
    names.into_iter().map(|(id, row)| ((id.to_owned(), row), 1)).collect()
}
