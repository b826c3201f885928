//! Other readers of Parquet see the same rows.

use std::process::Command;

use serde_json::json;

use super::*;

/// What Python prints, when it has the module; else why there is nothing to compare.
fn python(module: &str, script: &str, argument: &Path) -> Option<String> {
    let has = Command::new("python3").args(["-c", &format!("import {module}")]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 cannot import {module}, so its reading of the log is not compared");
        return None;
    }
    let output = Command::new("python3").args(["-c", script]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn compacted() -> Log {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    for (i, id) in ["b", "a", "c"].into_iter().enumerate() {
        log.request(id, START - i as i64, 2);
        writer.flush(START).unwrap();
    }
    writer.drain(START + 3 * HOUR).unwrap();
    log
}

const WANT: &str = "a 1 2026-12-01T04:59:59.999999 ok 1.0\nb 1 2026-12-01T05:00:00.000000 ok 1.0\nc 1 2026-12-01T04:59:59.999998 ok 1.0\n";

#[test]
fn pyarrow_reads_the_log() {
    let script = "
import sys, pathlib, pyarrow.parquet as pq
rows = [r for p in pathlib.Path(sys.argv[1]).glob('hour=*/*.parquet') for r in pq.ParquetFile(p).read().to_pylist()]
for r in sorted((r for r in rows if r['row'] == 1), key=lambda r: r['request_id']):
    assert r['degraded'] == [] and r['input__seen'] and r['took_us'] == 250 and r['at'].tzinfo is not None, r
    print(r['request_id'], r['row'], r['at'].strftime('%Y-%m-%dT%H:%M:%S.%f'), r['outcome'], r['input__amount'])
";
    let log = compacted();
    if let Some(said) = python("pyarrow.parquet", script, log.recorder.folder()) {
        assert_eq!(said, WANT);
    }
}

#[test]
fn duckdb_reads_the_log() {
    let script = "
import sys, duckdb
duckdb.sql(\"SET TimeZone = 'UTC'\")
query = '''
select request_id, row, strftime(\"at\" at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%f'), outcome, input__amount
from read_parquet($files) where row = 1 order by 1
'''
for r in duckdb.execute(query, {'files': sys.argv[1] + '/*/*.parquet'}).fetchall():
    print(*r)
";
    let log = compacted();
    if let Some(said) = python("duckdb", script, log.recorder.folder()) {
        assert_eq!(said, WANT);
    }
}
