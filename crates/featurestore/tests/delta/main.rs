//! Delta tables, written by the package `deltalake`: what counts is what it reads itself.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod hostile;
mod table;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arrow::datatypes::DataType;
use millstream_featurestore::{
    Column, FeatureSet, LocalOptions, LocalTable, TimeColumns, WritableSet, load::files,
};

use table::{Table, shown};

#[test]
fn the_rows_are_those_of_the_newest_version() {
    let Some(mut table) = Table::new() else { return };
    for code in [
        r#"write_deltalake(path, pa.table({"k": [1, 2, 3], "x": [0.5, None, -1.0], "s": ["a", "", None], "b": [True, None, False]}))"#,
        r#"write_deltalake(path, pa.table({"k": [4], "x": [4.0], "s": ["ü"], "b": [True]}), mode="append")"#,
        r#"DeltaTable(path).delete("k = 2")"#,
        r#"DeltaTable(path).update({"x": "x + 1.0"}, predicate="k <> 4")"#,
        r#"DeltaTable(path).optimize.compact()"#,
        r#"DeltaTable(path).create_checkpoint()"#,
        r#"write_deltalake(path, pa.table({"k": [5], "x": [5.0], "s": ["e"], "b": [True], "more": pa.array([7], pa.int32())}), mode="append", schema_mode="merge")"#,
        r#"write_deltalake(path, pa.table({"k": pa.array([], pa.int64()), "y": pa.array([], pa.int8())}), mode="overwrite", schema_mode="overwrite")"#,
        r#"write_deltalake(path, pa.table({"k": [9], "y": pa.array([-9], pa.int8())}), mode="append")"#,
        r#"DeltaTable(path).restore(1)"#,
        r#"DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False)"#,
    ] {
        table.check(code);
    }
}

#[test]
fn times_are_read_to_the_microsecond() {
    let Some(mut table) = Table::new() else { return };
    table.check(
        r#"write_deltalake(path, pa.table({"k": [1, 2, 3], "at": at([-1, 1_700_000_000_123_456, None]), "local": at([0, 1, -62_135_596_800_000_000], None), "day": pa.array([0, -1, 20_000], pa.date32())}))"#,
    );
}

#[test]
fn partition_values_are_columns_of_their_types() {
    let Some(mut table) = Table::new() else { return };
    for code in [
        r#"write_deltalake(path, pa.table({"k": [1, 2, 3, 4], "s": ["a b/c", "x=y%2F", None, "ü:?"], "day": pa.array([0, 1, None, 3], pa.date32()), "n": pa.array([1, -2, None, 4], pa.int16()), "b": [True, False, None, True], "at": at([0, 1_000_000, None, 5]), "local": at([0, 1_700_000_000_000_000, None, 5], None), "x": [1.0, 2.5, 3.0, 4.0]}), partition_by=["s", "day", "n", "b", "at", "local"])"#,
        r#"write_deltalake(path, pa.table({"k": [5, 6], "s": ["a b/c", ""], "day": pa.array([0, 1], pa.date32()), "n": pa.array([1, 1], pa.int16()), "b": [True, False], "at": at([0, 0]), "local": at([0, 0], None), "x": [1.0, 2.5]}), mode="append")"#,
        r#"DeltaTable(path).optimize.compact()"#,
        r#"DeltaTable(path).delete("n = 1")"#,
        r#"DeltaTable(path).create_checkpoint()"#,
    ] {
        table.check(code);
    }
    table.run(r#"shutil.rmtree(path); write_deltalake(path, pa.table({"k": [1, 2], "x": [1, 2]}), partition_by=["k"])"#);
    table.check(r#"write_deltalake(path, pa.table({"k": [3, 4], "x": [3, 4]}), mode="append")"#);
}

#[test]
fn columns_that_are_mapped_by_name_are_found_in_files_by_it() {
    let Some(mut table) = Table::new() else { return };
    // The package writes no such tables, so one is made of what it wrote.
    let code = r#"
write_deltalake(path, pa.table({"col-1": [1, 2], "col-2": ["a", "b"], "col-3": [7, 8]}), partition_by=["col-3"])
name = path + "/_delta_log/00000000000000000000.json"
lines = [json.loads(line) for line in open(name)]
for line in lines:
    if "protocol" in line:
        line["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
    if "metaData" in line:
        schema = json.loads(line["metaData"]["schemaString"])
        for number, (field, logical) in enumerate(zip(schema["fields"], ["k", "a name; with all", "col-2"])):
            field["metadata"] = {"delta.columnMapping.id": number + 1, "delta.columnMapping.physicalName": field["name"]}
            field["name"] = logical
        line["metaData"]["schemaString"] = json.dumps(schema)
        line["metaData"]["partitionColumns"] = ["col-2"]
        line["metaData"]["configuration"] = {"delta.columnMapping.mode": MODE, "delta.columnMapping.maxColumnId": "3"}
open(name, "w").writelines(json.dumps(line) + "\n" for line in lines)
# Not read again by the package, which may not know how.
def read():
    return pa.table({"k": [1, 2], "a name; with all": ["a", "b"], "col-2": [7, 8]})
"#;
    table.check(&code.replace("MODE", r#""name""#));
    let by_id =
        code.replace("MODE", r#""id""#).replace("write_deltalake(", "shutil.rmtree(path); write_deltalake(");
    table.run(&by_id);
    let error = table::load(table.project.path(), "t").unwrap_err();
    assert_eq!(
        error,
        "`t` cannot be read: tables whose columns are mapped by `id` are not read, only those by `name`"
    );
}

/// Deletes rows as others do that write tables: by a vector in the log or in a file, with the numbers listed, as bits or as runs.
const VECTORS: &str = r#"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
def z85(data):
    text = ""
    for at in range(0, len(data), 4):
        number, group = int.from_bytes(data[at:at + 4], "big"), ""
        for _ in range(5):
            number, digit = divmod(number, 85)
            group = DIGITS[digit] + group
        text += group
    return text
def container(lower, runs):
    if runs:
        known = set(lower)
        ends = [(n, next(m for m in range(n, 65537) if m + 1 not in known)) for n in lower if n - 1 not in known]
        return struct.pack("<H", len(ends)) + b"".join(struct.pack("<HH", n, m - n) for n, m in ends)
    if len(lower) <= 4096:
        return struct.pack(f"<{len(lower)}H", *lower)
    bits = bytearray(8192)
    for n in lower:
        bits[n // 8] |= 1 << n % 8
    return bytes(bits)
def bitmap(rows, runs):
    parts = {}
    for row in sorted(rows):
        parts.setdefault(row >> 16, []).append(row & 0xffff)
    heads = b"".join(struct.pack("<HH", middle, len(lower) - 1) for middle, lower in parts.items())
    bodies = [container(lower, runs) for lower in parts.values()]
    count = len(parts)
    if runs:
        head = struct.pack("<I", 12347 | count - 1 << 16) + ((1 << count) - 1).to_bytes((count + 7) // 8, "little") + heads
    else:
        head = struct.pack("<II", 12346, count) + heads
    if not runs or count >= 4:
        at = len(head) + 4 * count
        for body in bodies:
            head, at = head + struct.pack("<I", at), at + len(body)
    return struct.pack("<IQI", 1681511377, 1, 0) + head + b"".join(bodies)
def delete(rows, inline=False, runs=False):
    data, version, add = bitmap(rows, runs), DeltaTable(path).version(), None
    for name in sorted(os.listdir(path + "/_delta_log")):
        add = ([a["add"] for a in map(json.loads, open(path + "/_delta_log/" + name)) if "add" in a] or [add])[-1]
    vector = {"sizeInBytes": len(data), "cardinality": len(rows)}
    if inline:
        vector |= {"storageType": "i", "pathOrInlineDv": z85(data + bytes(-len(data) % 4))}
    else:
        name = uuid.uuid4()
        os.makedirs(path + "/ab", exist_ok=True)
        sums = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(data))
        open(f"{path}/ab/deletion_vector_{name}.bin", "wb").write(b"\1else" + sums[0] + data + sums[1])
        vector |= {"storageType": "u", "pathOrInlineDv": "ab" + z85(name.bytes), "offset": 5}
    needs = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    same = {"path": add["path"], "dataChange": True, "size": add["size"], "partitionValues": add["partitionValues"]}
    remove = {**same, "deletionTimestamp": 0, "extendedFileMetadata": True, "deletionVector": add.get("deletionVector")}
    actions = [{"protocol": needs}, {"remove": remove}, {"add": {**add, "deletionVector": vector}}]
    open(f"{path}/_delta_log/{version + 1:020}.json", "w").writelines(json.dumps(a) + "\n" for a in actions)
def read():
    found = QueryBuilder().register("t", DeltaTable(path)).execute("select * from t")
    return pa.table(found.read_all())
"#;

#[test]
fn rows_that_a_vector_deletes_are_none() {
    let Some(mut table) = Table::new() else { return };
    let write = |rows: u64| {
        format!(
            "{VECTORS}\nshutil.rmtree(path, ignore_errors=True); write_deltalake(path, pa.table({{'k': list(range({rows})), 'v': list(range({rows}))}}))"
        )
    };
    for (rows, code) in [
        (10, "delete([0, 9], inline=True)"),
        (10, "delete([4, 5, 6]); delete([0, 4, 5, 6])"),
        (10, "delete(range(10))"),
        (9_000, "delete(range(1, 8_999, 2), inline=True)"),
        (70_000, "delete([*range(0, 66_000, 7), 69_999])"),
        (70_000, "delete([*range(5, 1_000), 2_000, *range(65_000, 69_000)], runs=True)"),
    ] {
        table.check(&format!("{}; {code}", write(rows)));
    }
    table.run(&format!("{}; delete([1, 2])", write(5)));
    let name = table.project.path().join("t/ab").read_dir().unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&name).unwrap();
    for byte in [5, 12, 20, bytes.len() - 1] {
        let mut torn = bytes.clone();
        torn[byte] ^= 1;
        std::fs::write(&name, torn).unwrap();
        assert!(
            table::load(table.project.path(), "t").unwrap_err().contains("its deletion vector is damaged")
        );
    }
    std::fs::write(&name, &bytes[..bytes.len() - 9]).unwrap();
    assert!(table::load(table.project.path(), "t").is_err());
}

/// A set whose rows have a time.
fn writable() -> WritableSet {
    let set = FeatureSet::builder("cards").key("k", DataType::Int64).feature("v", DataType::Int64);
    let set = set.timestamp("at", DataType::Int64).build().unwrap();
    let event = Column { name: "at".into(), data_type: DataType::Int64 };
    let table = LocalTable::in_memory(set, LocalOptions::default());
    WritableSet::new(Arc::new(table), TimeColumns { event, created: None, valid_to: None })
}

/// What became of the rows of all files at a place, where there were any.
fn ingest(set: &WritableSet, place: &Path) -> Result<String, String> {
    let mut counts = BTreeMap::new();
    for file in files(place.to_str().unwrap()).map_err(|error| shown(&error))? {
        set.ingest(&file.folder, &file.name, &mut |written, at| {
            written.counts().into_iter().for_each(|(name, rows)| *counts.entry(name).or_insert(0) += rows);
            for (row, _) in written.refused() {
                *counts
                    .entry(if at(row).file.contains("/part-") { "in a part" } else { "?" })
                    .or_insert(0) += 1;
            }
        })
        .map_err(|error| shown(&error))?;
    }
    counts.retain(|_, rows| *rows > 0);
    Ok(counts.into_iter().map(|(name, rows)| format!("{rows} {name}")).collect::<Vec<_>>().join(", "))
}

#[test]
fn a_table_that_is_ingested_again_gives_what_is_new_in_it() {
    let Some(mut table) = Table::new() else { return };
    let (set, folder) = (writable(), table.project.path().to_owned());
    for (code, expected) in [
        // The same bytes twice, told apart by their partition.
        (
            r#"write_deltalake(path, pa.table({"k": [1, 1], "v": [1, 1], "at": [1, 1], "p": ["a", "b"]}), partition_by=["p"])"#,
            "2 taken",
        ),
        ("0", "2 repeated"),
        (
            r#"write_deltalake(path, pa.table({"k": [2, None], "v": [2, 3], "at": [2, 2], "p": ["a", "a"]}), mode="append")"#,
            "1 in a part, 1 refused, 2 repeated, 1 taken",
        ),
        // What is left of a file that is written anew is new, and of the version that is there.
        (r#"DeltaTable(path).delete("k is null")"#, "2 repeated, 1 taken"),
    ] {
        table.run(code);
        assert_eq!(ingest(&set, &folder), Ok(expected.to_owned()), "{code}");
    }
}

/// The same with a window, which shows what is counted twice.
fn windowed() -> WritableSet {
    let windows = serde_json::from_str(r#"{"functions": ["count"], "windows": ["1h"]}"#).unwrap();
    let set = FeatureSet::builder("cards").key("k", DataType::Int64).event_column("v", DataType::Int64);
    let set = set.timestamp("at", DataType::Int64).aggregates([windows], Duration::from_secs(60));
    let event = Column { name: "at".into(), data_type: DataType::Int64 };
    let table = LocalTable::in_memory(set.build().unwrap(), LocalOptions::default());
    WritableSet::new(Arc::new(table), TimeColumns { event, created: None, valid_to: None })
}

/// Appends a file with rows of these values.
fn append(values: &str) -> String {
    format!(
        r#"write_deltalake(path, pa.table({{"k": [1] * len({values}), "v": {values}, "at": {values}}}), mode="append")"#
    )
}

const OPTIMIZE: &str = "DeltaTable(path).optimize.compact()";
const VACUUM: &str = "DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False)";

#[test]
fn rows_that_were_only_put_into_other_files_are_not_taken_again() {
    let Some(mut table) = Table::new() else { return };
    let folder = table.project.path().to_owned();
    for set in [writable(), windowed()] {
        for (code, expected) in [
            (&*format!("shutil.rmtree(path, ignore_errors=True); {}", append("[1, 2]")), "2 taken"),
            (&append("[3]"), "2 repeated, 1 taken"),
            (OPTIMIZE, ""),
            // The file that took their place counts as taken, without those before it too.
            (VACUUM, "3 repeated"),
            // Some have been taken before they were put together with others, and are gone; the others are still there.
            (&append("[4, 5]"), "3 repeated, 2 taken"),
            (&format!("{}; {OPTIMIZE}", append("[6]")), "1 taken"),
            (OPTIMIZE, "6 repeated"),
            // Twice between two looks.
            (&format!("{}; {OPTIMIZE}; {}; {OPTIMIZE}", append("[7]"), append("[8, 9]")), "3 taken"),
            ("DeltaTable(path).create_checkpoint()", "9 repeated"),
        ] {
            table.run(code);
            assert_eq!(ingest(&set, &folder), Ok(expected.to_owned()), "{} {code}", set.set().name());
        }
        // A set that has nothing yet takes all of it.
        assert_eq!(ingest(&windowed(), &folder), Ok("9 taken".to_owned()));
    }
}

#[test]
fn windows_refuse_a_file_whose_rows_they_may_have_counted() {
    let Some(mut table) = Table::new() else { return };
    let folder = table.project.path().to_owned();
    table.run(&append("[1, 2, 3]"));
    let (plain, windows) = (writable(), windowed());
    for set in [&plain, &windows] {
        assert_eq!(ingest(set, &folder), Ok("3 taken".to_owned()));
    }
    table.run(r#"DeltaTable(path).delete("v = 2")"#);
    assert_eq!(ingest(&plain, &folder), Ok("1 older, 1 taken".to_owned()), "the latest is there again");
    let error = ingest(&windows, &folder).unwrap_err();
    assert!(
        error.contains("was written anew from files that have been taken, and not by `OPTIMIZE` alone"),
        "{error}"
    );
    assert_eq!(ingest(&windowed(), &folder), Ok("2 taken".to_owned()), "nothing of it has been taken");
    // What was put together with rows that have not been taken, and are gone, cannot be told apart.
    table.run(&format!("shutil.rmtree(path); {}", append("[1]")));
    let windows = windowed();
    assert_eq!(ingest(&windows, &folder), Ok("1 taken".to_owned()));
    table.run(&format!("{}; {OPTIMIZE}; {VACUUM}", append("[2]")));
    assert!(ingest(&windows, &folder).unwrap_err().contains("windows would count rows twice"));
}

#[test]
fn rows_keep_their_numbers_when_others_are_deleted() {
    let Some(mut table) = Table::new() else { return };
    let (set, folder) = (windowed(), table.project.path().to_owned());
    table.run(&format!("{VECTORS}\n{}; delete([0])", append("[1, 2, 3]")));
    assert_eq!(ingest(&set, &folder), Ok("2 taken".to_owned()));
    table.run("delete([0, 1], inline=True)");
    assert_eq!(ingest(&set, &folder), Ok("1 repeated".to_owned()));
}
