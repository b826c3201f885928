//! Tables written and read by the package `deltalake`, and the same read by this crate.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::cast,
    datatypes::DataType,
    util::display::array_value_to_string,
};
use millstream_featurestore::{
    FeatureSetSpec, Gap, LoadOptions, MemoryTable, OnlineTable, Pick, Read, Selection,
};
use tempfile::TempDir;

/// Runs what it reads, line by line, and answers each with the rows that the table has then: as text, times as numbers.
const PYTHON: &str = r#"
import json, os, shutil, struct, sys, uuid, zlib
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
path = sys.argv[1]
def at(micros, zone="UTC"):
    return pa.array(micros, pa.timestamp("us", zone))
def text(column):
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    elif pa.types.is_floating(column.type):
        return ["null" if value is None else repr(value) for value in column.to_pylist()]
    return ["null" if value is None else value for value in column.cast(pa.string()).to_pylist()]
def read():
    return DeltaTable(path).to_pyarrow_table()
for line in sys.stdin:
    exec(json.loads(line))
    rows = read()
    rows = rows.select(sorted(rows.column_names))
    print(json.dumps([list(row) for row in zip(*map(text, rows.columns))]), flush=True)
"#;

/// A table in a project, and who writes it.
pub(crate) struct Table {
    pub(crate) project: TempDir,
    python: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Table {
    /// `None`, said loudly, where the package is missing.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    pub(crate) fn new() -> Option<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let packages = ["deltalake", "oracles"].map(|name| target.join(name));
        if packages.iter().any(|packages| !packages.is_dir()) {
            println!("SKIPPED: there is no {}; scripts/oracles.sh all fetches it", packages[0].display());
            return None;
        }
        let project = tempfile::tempdir().unwrap();
        let mut python = Command::new("python3")
            .args(["-c", PYTHON])
            .arg(project.path().join("t"))
            .env("PYTHONPATH", std::env::join_paths(&packages).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (python.stdin.take().unwrap(), BufReader::new(python.stdout.take().unwrap()));
        Some(Self { project, python, input, output })
    }

    /// Runs Python, and gives the rows that the table has then, in no order.
    pub(crate) fn run(&mut self, code: &str) -> Vec<Vec<String>> {
        writeln!(self.input, "{}", serde_json::to_string(code).unwrap()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut rows: Vec<Vec<String>> =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("Python ended at {code}"));
        rows.sort();
        rows
    }

    /// Runs Python; then this crate must read the rows that the package reads.
    pub(crate) fn check(&mut self, code: &str) {
        let expected = self.run(code);
        assert_eq!(self.rows(&expected), Ok(expected), "{code}");
    }

    /// The rows of the table, of which these keys are asked for. Keys stand in the column `k`, each once.
    fn rows(&self, expected: &[Vec<String>]) -> Result<Vec<Vec<String>>, String> {
        let table = load(self.project.path(), "t")?;
        let mut columns = vec!["k"];
        columns.extend(table.set().features().iter().map(|feature| feature.name.as_str()));
        columns.sort_unstable();
        let place = columns.iter().position(|column| *column == "k").unwrap();
        let keys: Vec<i64> = expected.iter().map(|row| row[place].parse().unwrap()).collect();
        if table.len() != keys.len() {
            return Err(format!("{} rows of {}", table.len(), keys.len()));
        }
        let keys = millstream_graph::rows! { k: keys };
        let found = read(&table, &keys);
        let column = |name: &&str| match table.set().features().iter().position(|of| of.name == *name) {
            Some(feature) => as_text(&found[feature]),
            None => as_text(keys.column(0)),
        };
        let columns: Vec<Vec<String>> = columns.iter().map(column).collect();
        let row = |row: usize| columns.iter().map(|column| column[row].clone()).collect();
        let mut rows: Vec<Vec<String>> = (0..keys.num_rows()).map(row).collect();
        rows.sort();
        Ok(rows)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

/// The table as a set with the key `k`, whose features are the other columns.
pub(crate) fn load(project: &Path, source: &str) -> Result<MemoryTable, String> {
    let spec = serde_json::json!({ "keys": ["k"], "source": source });
    let spec: FeatureSetSpec = serde_json::from_value(spec).unwrap();
    spec.load("cards", project, &LoadOptions::default()).map_err(|error| shown(&error))
}

/// An error with its causes.
pub(crate) fn shown(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn read(table: &MemoryTable, keys: &RecordBatch) -> Vec<ArrayRef> {
    let picks = 0..table.set().features().len();
    let picks = picks.map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null }).collect();
    match table.read(keys, &Selection::new(table.set(), &[0], picks).unwrap()) {
        Read::Ready(found) => found.unwrap().columns,
        Read::Waits(_) => panic!("a table in memory does not wait"),
    }
}

fn as_text(column: &ArrayRef) -> Vec<String> {
    let column = match column.data_type() {
        DataType::Timestamp(..) => cast(column, &DataType::Int64).unwrap(),
        DataType::Date32 => cast(column, &DataType::Int32).unwrap(),
        _ => Arc::clone(column),
    };
    let value = |row| match column.is_null(row) {
        true => "null".to_owned(),
        false => array_value_to_string(&column, row).unwrap(),
    };
    (0..column.len()).map(value).collect()
}
