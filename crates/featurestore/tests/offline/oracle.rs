//! The join against DuckDB and pandas, where Python has both: `pip install duckdb pandas pyarrow`.
//!
//! `MILLSTREAM_ORACLE_PYTHON` names the Python to ask; without it, `python3`. Where that has not both, the test says so and passes.

use std::{env, fs::File, path::Path, process::Command};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use millstream_featurestore::offline::Knowledge;
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReader};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tempfile::tempdir;

use super::{
    block, log,
    random::{Case, answers, any_case, fill, log_batch, set, spine_batch},
};

const CASES: usize = 40;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/offline/oracle.py");

fn python() -> Option<String> {
    let python = env::var("MILLSTREAM_ORACLE_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_both = Command::new(&python).args(["-c", "import duckdb, pandas, pyarrow"]).output();
    has_both.is_ok_and(|output| output.status.success()).then_some(python)
}

fn write(path: &Path, rows: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// What the script reads beside the rows, as columns of one row.
fn rules(case: &Case) -> RecordBatch {
    let micros = |duration: std::time::Duration| duration.as_micros() as i64;
    let lag = match case.as_of.knowledge {
        Knowledge::AsKnown { lag } => Some(micros(lag)),
        Knowledge::Hindsight => None,
    };
    millstream_graph::rows! { exclusive: [case.as_of.exclusive], ttl: [case.as_of.ttl.map(micros)], lag: [lag] }
}

fn read(path: &Path, column: &str) -> Option<Vec<Option<i64>>> {
    let mut found = Vec::new();
    for batch in ParquetRecordBatchReader::try_new(File::open(path).unwrap(), 1024).unwrap() {
        let batch = batch.unwrap();
        let column = batch.column_by_name(column)?;
        found.extend(column.as_primitive::<Int64Type>().iter());
    }
    Some(found)
}

/// Ties, duplicates, nulls, late and corrected rows, lifetimes: DuckDB's window functions define every answer. Its ASOF join and
/// pandas answer the cases that they can express, which the script picks.
#[test]
fn the_join_equals_duckdb_and_pandas() {
    let Some(python) = python() else {
        eprintln!("no Python with duckdb, pandas and pyarrow; nothing compared");
        return;
    };
    let folder = tempdir().unwrap();
    let mut runner = TestRunner::deterministic();
    let cases: Vec<Case> = (0..CASES).map(|_| any_case().new_tree(&mut runner).unwrap().current()).collect();
    for (number, case) in cases.iter().enumerate() {
        let path = |what: &str| folder.path().join(format!("{number}.{what}.parquet"));
        write(&path("log"), &log_batch(case, 0..case.log.len()));
        write(&path("spine"), &spine_batch(case));
        write(&path("rules"), &rules(case));
    }
    let output = Command::new(python).arg(SCRIPT).arg(folder.path()).arg(CASES.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (mut asof, mut pandas) = (0, 0);
    for (number, case) in cases.iter().enumerate() {
        let folder = &folder;
        let ours = block(async {
            let place = tempdir().unwrap();
            let log = log(&place, set()).await;
            fill(&log, case, 37).await;
            answers(&log, case, 3, 16).await
        });
        let path = folder.path().join(format!("{number}.answers.parquet"));
        assert_eq!(read(&path, "sql"), Some(ours.clone()), "case {number}: {case:?}");
        // Where rows are tied these two pick one or another; the script answers the event then.
        let events: Vec<_> = ours.iter().map(|id| id.map(|id| case.log[id as usize].1)).collect();
        for (column, compared) in [("asof", &mut asof), ("pandas", &mut pandas)] {
            if let Some(found) = read(&path, column) {
                assert_eq!(found, events, "{column}, case {number}: {case:?}");
                *compared += 1;
            }
        }
    }
    assert!(asof > 2 && pandas > 2, "compared with ASOF {asof} times, with pandas {pandas} times");
}
