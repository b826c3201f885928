//! Reading, by time and by request, while files come and go.

use arrow::array::{Int32Array, Int64Array};
use serde_json::json;

use super::*;
use crate::record::ReadError;

/// The names of the rows between two times.
fn between(log: &Log, from: i64, to: i64) -> Vec<String> {
    let rows = log.reader().rows(from, to).unwrap();
    rows.flat_map(|batch| names(&batch.unwrap())).map(|(id, _)| id).collect()
}

#[test]
fn rows_are_found_by_their_time_to_the_microsecond() {
    let log = Log::new(json!({}));
    for (id, at) in [("b", START), ("a", START - 1), ("d", START + HOUR), ("c", START + HOUR - 1)] {
        log.request(id, at, 1);
    }
    log.writer().flush(START).unwrap();
    let cases: [(i64, i64, &[&str]); 7] = [
        (i64::MIN, i64::MAX, &["a", "b", "c", "d"]),
        (START, START + HOUR, &["b", "c"]),
        (START - 1, START, &["a"]),
        (START, START + 1, &["b"]),
        (START + 1, START + HOUR - 1, &[]),
        (START, START, &[]),
        (i64::MAX, i64::MIN, &[]),
    ];
    for (from, to, want) in cases {
        assert_eq!(between(&log, from, to), want, "{from}..{to}");
    }
}

#[test]
fn a_request_is_found_wherever_it_is() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    for i in 0..300 {
        log.request(&format!("r{i}"), START + i * 60 * SECOND, 2);
        if i % 30 == 0 {
            writer.flush(START + i * 60 * SECOND).unwrap();
        }
    }
    writer.flush(START + 6 * HOUR).unwrap();
    // The caller asks again with the same id, hours later.
    log.request("r7", START + 5 * HOUR, 1);
    writer.flush(START + 6 * HOUR).unwrap();
    for i in (0..300).filter(|i| *i != 7) {
        let id = format!("r{i}");
        let found = log.reader().request(&id).unwrap().unwrap();
        assert_eq!(names(&found), [(id.clone(), 0), (id.clone(), 1)]);
        assert_eq!(floats(&found, "score__probability"), floats(&score(&id, 2), "probability"));
    }
    assert_eq!(
        names(&log.reader().request("r7").unwrap().unwrap()),
        [("r7".into(), 0), ("r7".into(), 1), ("r7".into(), 0)]
    );
    for id in ["r300", "", "r", "zzz", "ä"] {
        assert!(log.reader().request(id).unwrap().is_none(), "{id}");
    }
}

#[test]
fn a_file_without_the_request_is_not_decoded() {
    let log = Log::new(json!({}));
    for i in 0..1000 {
        log.request(&format!("r{}", i * 2), START, 1);
    }
    log.writer().flush(START).unwrap();
    // A byte of a data page is flipped: whoever decodes it fails, whoever reads the footer and the filter does not.
    let path = log.files().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40..400].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    assert!(log.reader().request("r2").is_err());
    let skipped =
        (0..1000).filter(|i| matches!(log.reader().request(&format!("r{}", i * 2 + 1)), Ok(None))).count();
    // The filter is wrong for one id in a hundred.
    assert!(skipped > 970, "{skipped} of 1000");
}

#[test]
fn what_is_being_read_stays_while_it_is_compacted_and_deleted() {
    let log = Log::new(json!({"max_age": "2h"}));
    let mut writer = log.writer();
    for i in 0..5 {
        log.request(&format!("r{i}"), START + i, 1);
        writer.flush(START + i).unwrap();
    }
    let mut compacted = log.reader().rows(i64::MIN, i64::MAX).unwrap();
    let mut deleted = log.reader().rows(i64::MIN, i64::MAX).unwrap();
    let mut seen: [Vec<String>; 2] = [Vec::new(), Vec::new()];
    let mut read = |which: usize, rows: &mut dyn Iterator<Item = Result<RecordBatch, ReadError>>| {
        seen[which].extend(rows.flat_map(|batch| names(&batch.unwrap())).map(|(id, _)| id));
        seen[which].clone()
    };
    assert_eq!(read(0, &mut compacted.by_ref().take(2)), ["r0", "r1"]);
    assert_eq!(read(1, &mut deleted.by_ref().take(1)), ["r0"]);
    assert_eq!(writer.drain(START + 2 * HOUR).unwrap().compacted, 5);
    assert_eq!(read(0, &mut compacted), ["r0", "r1", "r2", "r3", "r4"]);
    assert!(writer.drain(START + 4 * HOUR).unwrap().deleted > 0);
    assert_eq!(read(1, &mut deleted), ["r0", "r1", "r2", "r3", "r4"]);
    assert_eq!(log.logged(), BTreeMap::new());
}

/// A log in one folder by plans whose edge `e` has other columns each time, one hour after another.
fn evolved(columns: Vec<Vec<(&str, ArrayRef)>>) -> (tempfile::TempDir, Reader) {
    let folder = tempfile::tempdir().unwrap();
    let settings: RecordSettings = serde_json::from_value(json!({"path": folder.path()})).unwrap();
    let mut reader = None;
    for (hour, columns) in columns.into_iter().enumerate() {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let edges = [Watched { name: "e".to_owned(), schema: batch.schema() }];
        let recorder = Arc::new(Recorder::new("g", &settings, &edges, |_| None).unwrap());
        recorder.observe(RunId(1), 0, &batch, |row| Some(row as u32));
        recorder.finish(finished(RunId(1), Some("same"), START + hour as i64 * HOUR));
        Writer::open(Arc::clone(&recorder)).unwrap().flush(START).unwrap();
        reader = Some(Reader::open(recorder.folder()).unwrap());
    }
    (folder, reader.unwrap())
}

#[test]
fn columns_that_a_file_does_not_have_are_null() {
    let one = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let (_folder, reader) =
        evolved(vec![vec![("a", one(1))], vec![("a", one(2)), ("b", one(3))], vec![("b", one(4))]]);
    let rows = reader.rows(i64::MIN, i64::MAX).unwrap();
    let schema = Arc::clone(rows.schema());
    let batches: Vec<RecordBatch> = rows.map(Result::unwrap).collect();
    assert!(batches.iter().all(|batch| batch.schema() == schema));
    let all = arrow::compute::concat_batches(&schema, &batches).unwrap();
    let numbers = |name: &str| {
        column(&all, name).as_primitive::<arrow::datatypes::Int64Type>().iter().collect::<Vec<_>>()
    };
    assert_eq!(
        (numbers("e__a"), numbers("e__b")),
        (vec![Some(1), Some(2), None], vec![None, Some(3), Some(4)])
    );
    assert_eq!(reader.request("same").unwrap().unwrap(), all);
}

#[test]
fn a_column_of_another_type_is_read_as_the_newest_where_its_values_fit() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let number = |value: i32| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
    let (_folder, reader) = evolved(vec![vec![("a", text("7"))], vec![("a", number(8))]]);
    let found = reader.request("same").unwrap().unwrap();
    assert_eq!(column(&found, "e__a").as_primitive::<arrow::datatypes::Int32Type>().values(), &[7, 8]);
    let (_folder, reader) = evolved(vec![vec![("a", text("seven"))], vec![("a", number(8))]]);
    let mut rows = reader.rows(i64::MIN, i64::MAX).unwrap();
    let error = rows.next().unwrap().unwrap_err();
    assert!(matches!(error, ReadError::TypeChanged { .. }), "{error}");
    assert_eq!(rows.next().unwrap().unwrap().num_rows(), 1, "the other file is read all the same");
    assert!(rows.next().is_none());
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_an_empty_one_has_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(&folder.path().join("none")), Err(ReadError::NoFolder(_))));
    std::fs::create_dir(folder.path().join("hour=2026-12-01T05")).unwrap();
    std::fs::write(folder.path().join("hour=2026-12-01T05/notes.parquet"), "not ours").unwrap();
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.hours().unwrap(), []);
    assert!(reader.rows(i64::MIN, i64::MAX).unwrap().next().is_none());
    assert!(reader.request("a").unwrap().is_none());
}
