//! Logs that are torn or made to do harm: refused with the reason, without a panic, and without a look outside the project.

use std::{fs, path::Path};

use crate::table::{Table, load, shown};

/// A table of two commits; each case damages a copy of it.
const CODE: &str = r#"
write_deltalake(path, pa.table({"k": [1, 2], "p": ["a", "b"]}), partition_by=["p"])
write_deltalake(path, pa.table({"k": [3], "p": ["a"]}), mode="append")
"#;

fn commit(table: &Path, version: u64) -> std::path::PathBuf {
    table.join(format!("_delta_log/{version:020}.json"))
}

/// Changes the text of a commit.
fn edit(table: &Path, version: u64, change: impl Fn(String) -> String) {
    let path = commit(table, version);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "a damage that does none");
    fs::write(path, changed).unwrap();
}

/// Replaces the value of a key of the last commit's `add`, up to the next comma.
fn set(table: &Path, key: &str, value: &str) {
    edit(table, 1, |text| {
        let start = text.find(&format!("\"{key}\":")).unwrap() + key.len() + 3;
        let end = start + text[start..].find(',').unwrap();
        format!("{}{value}{}", &text[..start], &text[end..])
    });
}

/// What a copy of the table is after some damage: how many rows it has, or why it is not read.
fn after(table: &Table, damage: &dyn Fn(&Path)) -> Result<usize, String> {
    let project = tempfile::tempdir().unwrap();
    let copy = project.path().join("project/t");
    copy_folder(&table.project.path().join("t"), &copy);
    fs::write(project.path().join("secret.parquet"), "secret").unwrap();
    damage(&copy);
    load(&project.path().join("project"), "t").map(|table| table.len())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Damages, and a part of the answer.
type Cases<'a> = &'a [(&'a str, &'a dyn Fn(&Path), &'a str)];

fn check(cases: Cases<'_>) {
    let Some(mut table) = Table::new() else { return };
    table.run(CODE);
    assert_eq!(after(&table, &|_| {}), Ok(3));
    for (name, damage, sentence) in cases {
        let error = after(&table, *damage).expect_err(name);
        assert!(error.contains(sentence), "{name}: {error}");
        assert!(!error.contains("panicked"), "{name}: {error}");
    }
}

#[test]
fn files_outside_the_folder_of_the_project_are_not_read() {
    check(&[
        ("a parent", &|t| set(t, "path", r#""../../secret.parquet""#), "lies outside the project's folder"),
        (
            "written as a URL is",
            &|t| set(t, "path", r#""%2e%2e/%2e%2e/secret.parquet""#),
            "lies outside the project's folder",
        ),
        ("an absolute path", &|t| set(t, "path", r#""/etc/passwd""#), "lies outside the project's folder"),
        ("a URL", &|t| set(t, "path", r#""file:///etc/passwd""#), "cannot be read: No such file"),
        (
            "a URL of a cloud",
            &|t| set(t, "path", r#""s3://bucket/a.parquet""#),
            "cannot be read: No such file",
        ),
        ("no name", &|t| set(t, "path", r#""""#), "`t"),
        #[cfg(unix)]
        (
            "a link",
            &|t| {
                std::os::unix::fs::symlink(t.join("../../secret.parquet"), t.join("a.parquet")).unwrap();
                set(t, "path", r#""a.parquet""#);
            },
            "lies outside the project's folder",
        ),
        #[cfg(unix)]
        (
            "a log that is a link",
            &|t| {
                fs::rename(t.join("_delta_log"), t.join("../../log")).unwrap();
                std::os::unix::fs::symlink(t.join("../../log"), t.join("_delta_log")).unwrap();
            },
            "`_delta_log` lies outside the project's folder",
        ),
        #[cfg(unix)]
        (
            "a commit that is a link",
            &|t| {
                fs::rename(commit(t, 1), t.join("../../1.json")).unwrap();
                std::os::unix::fs::symlink(t.join("../../1.json"), commit(t, 1)).unwrap();
            },
            "`_delta_log/00000000000000000001.json` is a link",
        ),
    ]);
}

#[test]
fn a_torn_log_is_a_mistake_that_says_what_is_wrong() {
    let json = |text: &'static str| move |t: &Path| fs::write(commit(t, 1), text).unwrap();
    check(&[
        (
            "no commits",
            &|t| {
                fs::read_dir(t.join("_delta_log"))
                    .unwrap()
                    .for_each(|f| fs::remove_file(f.unwrap().path()).unwrap())
            },
            "`t` cannot be read",
        ),
        ("the first commit is missing", &|t| fs::remove_file(commit(t, 0)).unwrap(), "`t` cannot be read"),
        ("a version is missing", &|t| fs::rename(commit(t, 1), commit(t, 2)).unwrap(), "`t` cannot be read"),
        (
            "a commit is cut off",
            &|t| edit(t, 1, |text| text[..text.len() - 30].to_owned()),
            "`t` cannot be read",
        ),
        ("a commit is no JSON", &json("\u{0}\u{1}"), "`t` cannot be read"),
        ("brackets without an end", &json("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["), "`t` cannot be read"),
        ("an action is a list", &json(r#"{"add": []}"#), "`t` cannot be read"),
        (
            "a schema that is none",
            &|t| edit(t, 0, |text| text.replace(r#"\"type\":\"long\""#, r#"\"type\":\"no\""#)),
            "`t` cannot be read",
        ),
        (
            "a partition column that is none",
            &|t| {
                edit(t, 0, |text| text.replace(r#""partitionColumns":["p"]"#, r#""partitionColumns":["q"]"#))
            },
            "`t",
        ),
        (
            "a partition without its value",
            &|t| edit(t, 1, |text| text.replace(r#""p":"a""#, r#""q":"a""#)),
            "`t",
        ),
        (
            "a reader of the future",
            &|t| edit(t, 0, |text| text.replace(r#""minReaderVersion":1"#, r#""minReaderVersion":9"#)),
            "`t` cannot be read",
        ),
        (
            "a data file is missing",
            &|t| fs::remove_dir_all(t.join("p=b")).unwrap(),
            "cannot be read: No such file",
        ),
        (
            "a data file is empty",
            &|t| fs::read_dir(t.join("p=b")).unwrap().for_each(|f| fs::write(f.unwrap().path(), "").unwrap()),
            "`t/p=b/part-",
        ),
    ]);
}

#[test]
fn what_would_take_too_much_memory_is_refused_before_it_is_read() {
    let grow =
        |t: &Path| fs::File::options().write(true).open(commit(t, 1)).unwrap().set_len(2 << 30).unwrap();
    check(&[(
        "a commit without an end",
        &grow,
        "the commits in `_delta_log` have more than 1073741824 bytes",
    )]);
}

#[test]
fn what_only_readers_know_that_have_a_feature_is_refused_by_its_name() {
    let needs = |feature: &'static str| {
        move |t: &Path| {
            edit(t, 0, |text| {
                let start = text.find(r#"{"protocol""#).unwrap();
                let end = start + text[start..].find('\n').unwrap();
                let protocol = format!(
                    r#"{{"protocol":{{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["{feature}"],"writerFeatures":["{feature}"]}}}}"#
                );
                format!("{}{protocol}{}", &text[..start], &text[end..])
            });
        }
    };
    let deleted = |vector: &'static str| {
        move |t: &Path| {
            needs("deletionVectors")(t);
            let vector = format!(r#""dataChange":true,"deletionVector":{vector}"#);
            edit(t, 1, |text| text.replace(r#""dataChange":true"#, &vector));
        }
    };
    check(&[
        (
            "checkpoints in parts that lie anywhere",
            &needs("v2Checkpoint"),
            "tables with the feature `v2Checkpoint` are not read",
        ),
        (
            "types that have changed",
            &needs("typeWidening"),
            "tables with the feature `typeWidening` are not read",
        ),
        ("a feature of the future", &needs("fromTheFuture"), "`t` cannot be read"),
    ]);
    check(&[
        (
            "a vector anywhere",
            &deleted(
                r#"{"storageType":"p","pathOrInlineDv":"file:///etc/passwd","offset":1,"sizeInBytes":40,"cardinality":1}"#,
            ),
            "its deletion vector lies outside the table",
        ),
        (
            "a vector in a parent",
            &deleted(
                r#"{"storageType":"u","pathOrInlineDv":"../../ab^-aqEH.-t@S}K{vb[*k^","offset":4,"sizeInBytes":40,"cardinality":1}"#,
            ),
            "its deletion vector has no name that is one",
        ),
        (
            "a vector that is not there",
            &deleted(
                r#"{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":4,"sizeInBytes":40,"cardinality":1}"#,
            ),
            "No such file",
        ),
        (
            "a vector of more than there is memory",
            &deleted(
                r#"{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":4,"sizeInBytes":2147483647,"cardinality":1}"#,
            ),
            "its deletion vector is too large",
        ),
        (
            "a vector of nothing",
            &deleted(r#"{"storageType":"i","pathOrInlineDv":"","sizeInBytes":40,"cardinality":1}"#),
            "its deletion vector is damaged",
        ),
    ]);
}

#[test]
fn a_checkpoint_that_is_none_is_a_mistake_or_is_done_without() {
    let Some(mut table) = Table::new() else { return };
    table.run(CODE);
    table.run("DeltaTable(path).create_checkpoint()");
    let checkpoint = |t: &Path| t.join(format!("_delta_log/{:020}.checkpoint.parquet", 1));
    let torn = |t: &Path| fs::write(checkpoint(t), "PAR1").unwrap();
    let gone = |t: &Path| fs::remove_file(checkpoint(t)).unwrap();
    let hint =
        |t: &Path| fs::write(t.join("_delta_log/_last_checkpoint"), r#"{"version":-9,"size":1e99}"#).unwrap();
    let sum = |t: &Path| {
        fs::write(t.join(format!("_delta_log/{:020}.crc", 1)), "{\"tableSizeBytes\":\"no\"}").unwrap()
    };
    for (name, damage, sound) in [
        ("nothing", &(|_: &Path| ()) as &dyn Fn(&Path), true),
        ("torn", &torn, false),
        ("gone", &gone, false),
        ("a hint that is none", &hint, true),
        ("a sum that is none", &sum, true),
    ] {
        match after(&table, damage) {
            Ok(rows) => assert_eq!((rows, sound), (3, true), "{name}"),
            Err(error) => assert!(!sound && error.contains("`t` cannot be read"), "{name}: {error}"),
        }
    }
}

#[test]
fn files_of_a_table_are_not_found_by_a_pattern() {
    let Some(mut table) = Table::new() else { return };
    table.run(CODE);
    let place = table.project.path().join("t/*.parquet");
    let error = millstream_featurestore::load::files(place.to_str().unwrap()).unwrap_err();
    assert!(shown(&error).contains("only its log says which of its files count; name the folder"));
}
