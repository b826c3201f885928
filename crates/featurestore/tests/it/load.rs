//! Files into feature sets.

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::DataType,
};
use expect_test::{Expect, expect};
use millstream_featurestore::{
    Enrich, FeatureSet, FeatureSetSpec, LoadOptions, MemoryStore, MemoryTable, OnlineTable, Policy, load,
};
use millstream_graph::rows;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{run, shown};

fn project(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn load_spec(dir: &Path, spec: Value) -> Result<MemoryTable, String> {
    let spec: FeatureSetSpec = serde_json::from_value(spec).unwrap();
    spec.load("cards", dir, &LoadOptions::default()).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })
}

/// The rows of a table for some keys, as text, beneath its columns.
fn show(table: MemoryTable, request: RecordBatch) -> String {
    let columns =
        table.set().features().iter().map(|feature| format!("{} {}", feature.name, feature.data_type));
    let header = format!("{} rows: {}", table.len(), columns.collect::<Vec<_>>().join(", "));
    let mut store = MemoryStore::new();
    let by: Vec<_> = request.schema().fields().iter().map(|field| field.name().clone()).collect();
    store.insert(table);
    let step = Enrich::new(Arc::new(store), "cards").by(by).prefix("_").missing(Policy::Null);
    format!("{header}\n{}", shown(&run(&step, request).unwrap()))
}

fn check(files: &[(&str, &str)], spec: Value, request: RecordBatch, expected: Expect) {
    let dir = project(files);
    let text = load_spec(dir.path(), spec).map_or_else(|error| error, |table| show(table, request));
    expected.assert_eq(&text);
}

#[test]
fn types_are_found_in_the_whole_file() {
    check(
        &[(
            "a.csv",
            "id,n,x,day,at,name,ok,zip\n1,1,1,2024-05-06,2024-05-06T07:08:09.5Z,ann,true,007\n2,-3,2.5,,,\"b,\"\"c\"\"\nd\",FALSE,42\n",
        )],
        json!({"keys": ["id"], "source": "a.csv", "types": {"at": "timestamp"}, "features":
               {"n": "int64", "x": "float64", "day": "date", "name": "string", "ok": "bool", "zip": "string"}}),
        rows! { id: [1_i64, 2, 3] },
        expect![[r#"
            2 rows: n Int64, x Float64, day Date32, name Utf8, ok Boolean, zip Utf8
            +----+----+-----+------------+-------+-------+------+
            | id | _n | _x  | _day       | _name | _ok   | _zip |
            +----+----+-----+------------+-------+-------+------+
            | 1  | 1  | 1.0 | 2024-05-06 | ann   | true  | 007  |
            | 2  | -3 | 2.5 |            | b,"c" | false | 42   |
            |    |    |     |            | d     |       |      |
            | 3  |    |     |            |       |       |      |
            +----+----+-----+------------+-------+-------+------+
        "#]],
    );
    check(
        &[(
            "a.jsonl",
            "{\"id\": \"a\", \"n\": 1, \"big\": 18446744073709551615}\n\n{\"n\": 2.5, \"id\": \"\\u00fc\", \"t\": true, \"d\": \"2024-05-06\"}\n",
        )],
        json!({"keys": ["id"], "source": "a.jsonl"}),
        rows! { id: ["a", "ü"] },
        expect![[r#"
            2 rows: n Float64, big UInt64, t Boolean, d Date32
            +----+-----+----------------------+------+------------+
            | id | _n  | _big                 | _t   | _d         |
            +----+-----+----------------------+------+------------+
            | a  | 1.0 | 18446744073709551615 |      |            |
            | ü  | 2.5 |                      | true | 2024-05-06 |
            +----+-----+----------------------+------+------------+
        "#]],
    );
}

#[test]
fn the_latest_row_counts_and_of_equally_late_ones_the_last() {
    let rows =
        "id,at,x\n1,2024-01-02,10\n1,2024-01-03,20\n1,2024-01-01,30\n2,2024-01-01,40\n2,2024-01-01,50\n";
    check(
        &[("a.csv", rows)],
        json!({"keys": ["id"], "source": "a.csv", "timestamp": "at"}),
        rows! { id: [1_i64, 2] },
        expect![[r#"
            2 rows: x Int64
            +----+----+
            | id | _x |
            +----+----+
            | 1  | 20 |
            | 2  | 50 |
            +----+----+
        "#]],
    );
    check(
        &[("a.csv", rows)],
        json!({"keys": ["id"], "source": "a.csv", "timestamp": "at", "features": {"at": "date"}}),
        rows! { id: [1_i64, 2] },
        expect![[r#"
            2 rows: at Date32
            +----+------------+
            | id | _at        |
            +----+------------+
            | 1  | 2024-01-03 |
            | 2  | 2024-01-01 |
            +----+------------+
        "#]],
    );
}

#[test]
fn a_row_of_nulls_and_a_row_of_zeros_are_rows() {
    check(
        &[("a.csv", "id,x,y\n1,,\n2,0,0\n")],
        json!({"keys": ["id"], "source": "a.csv", "features": {"x": "float32", "y": "int8"}}),
        rows! { id: [1_i64, 2] },
        expect![[r#"
            2 rows: x Float32, y Int8
            +----+-----+----+
            | id | _x  | _y |
            +----+-----+----+
            | 1  |     |    |
            | 2  | 0.0 | 0  |
            +----+-----+----+
        "#]],
    );
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    let csv = |text: &str, spec: Value, expected: Expect| {
        check(&[("a.csv", text)], spec, rows! { id: [1_i64] }, expected)
    };
    let typed = |data_type: &str| json!({"keys": ["id"], "source": "a.csv", "features": {"x": data_type}});
    csv("id,x\n1,2\n2,abc\n", typed("float32"), expect!["a.csv:3: column `x`: `abc` is no Float32"]);
    csv("id,x\r\n1,2\r\n2,300\r\n", typed("int8"), expect!["a.csv:3: column `x`: `300` is no Int8"]);
    csv(
        "id,x,note\n1,2,\"two\nlines\"\n2,1.5,\n",
        typed("int64"),
        expect!["a.csv:4: column `x`: `1.5` is no Int64"],
    );
    csv("\u{feff}id,x\n\n\n1,2\n\n2,a\n", typed("int8"), expect!["a.csv:6: column `x`: `a` is no Int8"]);
    csv("id,x\r\n1,2\r\n\r\n2\r\n", typed("int8"), expect!["a.csv:4: 1 fields where the header has 2"]);
    csv("id,x\n1,1e39\n", typed("float32"), expect!["a.csv:2: column `x`: `1e39` is no Float32"]);
    csv("id,x\n1,yes\n", typed("bool"), expect!["a.csv:2: column `x`: `yes` is no Boolean"]);
    csv("id,x\n1,2\n,3\n", typed("int64"), expect!["a.csv:3: key `id` is null"]);
    csv(
        "id,x\n1,2\n2,3\n1,4\n",
        typed("int64"),
        expect!["a.csv:4: a second row for id=1; name a `timestamp` column for the latest row to count"],
    );
    csv("id,x\n1,2\n2\n", typed("int64"), expect!["a.csv:3: 1 fields where the header has 2"]);
    csv("id,x,x\n1,2,3\n", typed("int64"), expect!["a.csv:1: column `x` is named twice"]);
    csv("id,y,z\n1,2,3\n", typed("int64"), expect!["`a.csv`: no column `x`; did you mean `y`?"]);
    csv(
        "id,x\n1,\n",
        json!({"keys": ["id"], "source": "a.csv"}),
        expect!["`a.csv`: column `x` has no value that tells its type; name it under `types`"],
    );
    csv(
        "id,x\n1,2\n",
        json!({"keys": ["di"], "source": "a.csv", "types": {"xx": "int8"}}),
        expect!["`a.csv`: no column `di`; did you mean `id`?; no column `xx`; did you mean `x`?"],
    );
    csv(
        "id,x\n1.5,2\n",
        json!({"keys": ["id"], "source": "a.csv"}),
        expect![
            "feature set `cards`: key `id` is Float64; a key is an integer, a string, a truth value, a date or a timestamp"
        ],
    );
    csv(
        "id,x,at\n1,2,\n",
        json!({"keys": ["id"], "source": "a.csv", "timestamp": "at", "types": {"at": "date"}}),
        expect!["a.csv:2: timestamp `at` is null"],
    );
    csv(
        "id\n1\n",
        json!({"keys": ["id"], "source": "a.csv"}),
        expect!["feature set `cards`: no feature; a set has at least one"],
    );
    csv("", json!({"keys": ["id"], "source": "a.csv"}), expect!["`a.csv`: no column `id`; there is none"]);

    let json = |text: &str, expected: Expect| {
        let spec = json!({"keys": ["id"], "source": "a.jsonl", "features": {"x": "int64"}});
        check(&[("a.jsonl", text)], spec, rows! { id: [1_i64] }, expected);
    };
    json(
        "{\"id\": 1, \"x\": 2}\n{\"id\": 2, \"x\": \"3\"}\n",
        expect![[r#"a.jsonl:2: column `x`: `"3"` is no Int64"#]],
    );
    json(
        "{\"id\": 1, \"x\": 2}\n{\"id\": 2, \"x\": [3]}\n",
        expect!["a.jsonl:2: column `x`: `[3]` is no Int64"],
    );
    json("{\"id\": 1, \"x\": 2}\n{\"id\": 2, \"x\": }\n", expect!["a.jsonl:2: expected value at column 16"]);
    json("[1, 2]\n", expect!["a.jsonl:1: invalid type: sequence, expected an object"]);
    json("{\"id\": 1, \"x\": 2, \"x\": 3}\n", expect!["a.jsonl:1: field `x` is there twice"]);
    json("{\"id\": 1, \"y\": 2}\n", expect!["`a.jsonl`: no column `x`; did you mean `y`?"]);
}

#[test]
fn what_does_not_fit_in_parquet_is_named_with_its_row() {
    let check = |batch: RecordBatch, spec: Value, expected: Expect| {
        let dir = project(&[]);
        write_parquet(&dir.path().join("a.parquet"), &batch);
        let text = load_spec(dir.path(), spec)
            .map_or_else(|error| error, |table| show(table, rows! { id: [1_i64] }));
        expected.assert_eq(&text);
    };
    let typed =
        |data_type: &str| json!({"keys": ["id"], "source": "a.parquet", "features": {"x": data_type}});
    check(
        rows! { id: [1_i64, 2], x: [1.0, 2.5] },
        typed("int64"),
        expect!["a.parquet: row 2: column `x`: `2.5` is no Int64"],
    );
    check(
        rows! { id: [1_i64, 2], x: [1.0, 1e300] },
        typed("float32"),
        expect!["a.parquet: row 2: column `x`: `1e300` is no Float32"],
    );
    check(
        rows! { id: [1_i64, 2], x: [-0.0, f64::NAN] },
        typed("int64"),
        expect!["a.parquet: row 2: column `x`: `NaN` is no Int64"],
    );
    check(
        rows! { id: [1_i64, 2], x: [f64::INFINITY, f64::NAN] },
        typed("float32"),
        expect![[r#"
        2 rows: x Float32
        +----+-----+
        | id | _x  |
        +----+-----+
        | 1  | inf |
        +----+-----+
    "#]],
    );
    check(
        rows! { id: [1_i64, 2], x: [7_i64, 300] },
        typed("int8"),
        expect!["a.parquet: row 2: column `x`: `300` is no Int8"],
    );
    check(
        rows! { id: [1_i64, 2], x: ["1", "b"] },
        typed("int8"),
        expect!["a.parquet: row 2: column `x`: `b` is no Int8"],
    );
    check(
        rows! { id: [1_i64, 2], x: [1, 2] },
        typed("string"),
        expect!["`a.parquet`: column `x` is Int32, not Utf8"],
    );
    check(
        rows! { id: [Some(1_i64), None], x: [1, 2] },
        typed("int32"),
        expect!["a.parquet: row 2: key `id` is null"],
    );
    check(
        rows! { id: [1_i64, 2], x: ["2024-01-01", "2024-05-06T01:02:03+01:00"] },
        typed("timestamp"),
        expect![[r#"
        2 rows: x Timestamp(µs, "UTC")
        +----+----------------------+
        | id | _x                   |
        +----+----------------------+
        | 1  | 2024-01-01T00:00:00Z |
        +----+----------------------+
    "#]],
    );
    check(
        rows! { id: [1_i64, 2], y: [1, 2] },
        typed("int32"),
        expect!["`a.parquet`: no column `x`; did you mean `y`?"],
    );
    let lists: ArrayRef =
        Arc::new(arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([Some(
            [Some(1)],
        )]));
    let ids: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
    check(
        RecordBatch::try_from_iter([("id", ids), ("parts", lists)]).unwrap(),
        json!({"keys": ["id"], "source": "a.parquet"}),
        expect![
            "feature set `cards`: feature `parts` is List(Int32); a feature is a number, a string, a truth value, a date or a timestamp"
        ],
    );
    let dir = project(&[("a.parquet", "this is no Parquet")]);
    expect!["`a.parquet`: Parquet error: Invalid Parquet file. Corrupt footer"]
        .assert_eq(&load_spec(dir.path(), typed("int8")).unwrap_err());
}

#[test]
fn all_formats_give_equal_sets() {
    let batch = rows! {
        id: [3_i64, 1, 2],
        x: [Some(0.1), None, Some(-2.5e300)],
        f: [Some(0.3_f32), Some(16_777_216.0), None],
        n: [Some(9_007_199_254_740_993_i64), Some(-1), None],
        s: [Some("a,\"b\""), Some("ü\n"), None],
        t: [true, false, true],
    };
    let dir = project(&[]);
    let path = |name: &str| dir.path().join(name);
    write_parquet(&path("a.parquet"), &batch);
    let mut csv = arrow::csv::Writer::new(fs::File::create(path("a.csv")).unwrap());
    csv.write(&batch).unwrap();
    drop(csv);
    let mut lines = arrow::json::LineDelimitedWriter::new(fs::File::create(path("a.jsonl")).unwrap());
    lines.write(&batch).unwrap();
    lines.finish().unwrap();
    drop(lines);
    let features = json!({"x": "float64", "f": "float32", "n": "int64", "s": "string", "t": "bool"});
    let texts = ["a.parquet", "a.csv", "a.jsonl"].map(|source| {
        let declared = json!({"keys": ["id"], "source": source, "features": features});
        let table = load_spec(dir.path(), declared).unwrap();
        let profiles: Vec<_> = (0..5).map(|feature| table.profile(feature).unwrap()).collect();
        format!("{}{profiles:?}", show(table, rows! { id: [1_i64, 2, 3, 4] }))
    });
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
    assert!(texts[0].contains("9007199254740993"), "{}", texts[0]);
}

#[test]
fn a_file_outside_the_project_is_refused() {
    let outside = project(&[("secret.csv", "id,x\n1,2\n")]);
    let dir = project(&[("a.txt", "")]);
    let secret = outside.path().join("secret.csv");
    std::os::unix::fs::symlink(&secret, dir.path().join("link.csv")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("folder")).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let relative = format!("../{}/secret.csv", outside.path().file_name().unwrap().to_str().unwrap());
    let pattern = relative.replace("secret", "*");
    for source in [
        secret.to_str().unwrap(),
        "link.csv",
        "folder/secret.csv",
        "folder",
        "folder/*.csv",
        &relative,
        &pattern,
    ] {
        let error = load_spec(dir.path(), json!({"keys": ["id"], "source": source})).unwrap_err();
        assert_eq!(error, format!("`{source}` lies outside the project's folder"));
    }
    let error = |source: &str| load_spec(dir.path(), json!({"keys": ["id"], "source": source})).unwrap_err();
    expect!["`a.txt` has none of the endings .parquet, .csv, .jsonl, .ndjson"].assert_eq(&error("a.txt"));
    expect!["`b.csv` cannot be read: No such file or directory (os error 2)"].assert_eq(&error("b.csv"));
    expect!["`sub` cannot be read: no .parquet, .csv or .jsonl there"].assert_eq(&error("sub"));
}

#[test]
fn the_files_of_a_folder_or_of_a_pattern_are_one_source() {
    let dir = project(&[("all.csv", "id,x\n1,10\n2,20\n3,30\n")]);
    for (name, text) in [
        ("log/hour=2026-12-01T05/0-1.csv", "id,x\n1,10\n2,20\n"),
        ("log/hour=2026-12-01T06/0-2.jsonl", "{\"id\": 3, \"x\": 30}\n"),
        ("log/_half.csv", "no rows"),
        ("flat/a-1.csv", "id,x\n1,10\n"),
        ("flat/a-2.csv", "id,x\n2,20\n3,30\n"),
        ("flat/b.csv", "id,y\n1,10\n"),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let load = |source: &str| load_spec(dir.path(), json!({"keys": ["id"], "source": source}));
    let shown = |source: &str| show(load(source).unwrap(), rows! { id: [1_i64, 2, 3, 4] });
    for source in ["log", "log/", "./log", "log/../log", "flat/a-*.csv"] {
        assert_eq!(shown(source), shown("all.csv"), "{source}");
    }
    // Types and columns are those of the last file, and every file has them.
    let error = load("flat").unwrap_err();
    assert!(error.starts_with("`flat/a-1.csv`: no column `y`"), "{error}");
    assert!(load("flat/c*.csv").unwrap_err().contains("no .parquet, .csv or .jsonl there"));
}

#[test]
fn more_than_the_memory_allowed_is_refused() {
    let text: String =
        std::iter::once("id,x\n".into()).chain((0..20_000).map(|i| format!("{i},1\n"))).collect();
    let dir = project(&[("a.csv", &text)]);
    let set = || {
        FeatureSet::builder("cards")
            .key("id", DataType::Int64)
            .feature("x", DataType::Float32)
            .build()
            .unwrap()
    };
    let bounded = |max_bytes| {
        load::file(set(), dir.path(), "a.csv", &LoadOptions { max_bytes, ..LoadOptions::default() })
    };
    let error = bounded(100_000).unwrap_err();
    expect!["`a.csv`: the rows take more than 100000 bytes"].assert_eq(&error.to_string());
    assert_eq!(bounded(10_000_000).unwrap().len(), 20_000);
}

#[test]
fn inference_looks_at_no_more_rows_than_allowed() {
    let dir = project(&[("a.csv", "id,x\n1,2\n2,2.5\n")]);
    let spec: FeatureSetSpec = serde_json::from_value(json!({"keys": ["id"], "source": "a.csv"})).unwrap();
    let error =
        spec.load("cards", dir.path(), &LoadOptions { infer_rows: 1, ..LoadOptions::default() }).unwrap_err();
    expect!["a.csv:3: column `x`: `2.5` is no Int64"].assert_eq(&error.to_string());
}

#[test]
fn the_files_of_a_delta_table_are_never_taken_for_its_rows() {
    let dir = project(&[]);
    fs::create_dir_all(dir.path().join("t/_delta_log")).unwrap();
    write_parquet(&dir.path().join("t/deleted.parquet"), &rows! { id: [1_i64], x: [1_i64] });
    let error = load_spec(dir.path(), json!({"keys": ["id"], "source": "t"})).unwrap_err();
    let expected = if cfg!(feature = "delta") { "" } else { "build it with the feature `delta`" };
    assert!(error.starts_with("`t` cannot be read: ") && error.contains(expected), "{error}");
    let files = load::files(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["t"]);
}
