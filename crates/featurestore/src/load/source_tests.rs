//! Files that come and go while they are read.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type},
};

use super::{LoadError, LoadOptions, Source, again};
use crate::set::Column;

/// Files, each of which has its number as its only row.
const FILES: [(&str, i64); 4] = [
    ("log/hour=1/a-1.csv", 1),
    ("log/hour=1/a-2.csv", 2),
    ("log/hour=2/a-3.csv", 3),
    ("log/hour=2/b-4.csv", 4),
];

fn write(root: &Path, file: &str, row: i64) {
    let path: PathBuf = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("id\n{row}\n")).unwrap();
}

fn ids(source: &Source) -> Result<Vec<i64>, String> {
    let wanted = [Column { name: "id".to_owned(), data_type: DataType::Int64 }];
    let mut ids = Vec::new();
    let read = source.read(&wanted, &mut |batch, _| {
        ids.extend(batch.column(0).as_primitive::<Int64Type>().values().iter());
        Ok(())
    });
    read.map(|()| ids).map_err(|error| error.to_string())
}

#[test]
fn a_file_that_is_deleted_before_its_turn_is_left_out_unless_others_came_in_its_place() {
    let replaced = |place: &str| {
        Err(format!("`{place}`: its files were replaced by others while they were read; read it again"))
    };
    type Case<'c> = (&'c str, &'c [&'c str], Option<&'c str>, Result<Vec<i64>, String>);
    // What is read, what is deleted once its files are known, what comes then, and what is found.
    let cases: [Case<'_>; 8] = [
        ("log", &[], None, Ok(vec![1, 2, 3, 4])),
        ("log", &["log/hour=1/a-1.csv", "log/hour=1/a-2.csv", "log/hour=1"], None, Ok(vec![3, 4])),
        ("log", &["log/hour=1/a-1.csv"], None, Ok(vec![2, 3, 4])),
        ("log", &["log/hour=1/a-1.csv"], Some("log/hour=3/a-9.csv"), Ok(vec![2, 3, 4])),
        ("log", &["log/hour=1/a-1.csv"], Some("log/hour=1/a-9.csv"), replaced("log")),
        ("log", &[], Some("log/hour=1/a-9.csv"), Ok(vec![1, 2, 3, 4])),
        ("log/hour=2/a-*.csv", &["log/hour=2/a-3.csv"], Some("log/hour=2/b-9.csv"), Ok(vec![])),
        (
            "log/hour=2/a-*.csv",
            &["log/hour=2/a-3.csv"],
            Some("log/hour=2/a-9.csv"),
            replaced("log/hour=2/a-*.csv"),
        ),
    ];
    for (place, deleted, came, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        FILES.iter().for_each(|(file, row)| write(dir.path(), file, *row));
        let source = Source::open(dir.path(), place).unwrap();
        for path in deleted.iter().map(|path| dir.path().join(path)) {
            if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.unwrap();
        }
        came.into_iter().for_each(|file| write(dir.path(), file, 9));
        assert_eq!(ids(&source), expected, "{place} without {deleted:?}, with {came:?}");
    }
}

#[test]
fn the_columns_are_those_of_the_last_file_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    FILES.iter().for_each(|(file, row)| write(dir.path(), file, *row));
    let source = Source::open(dir.path(), "log").unwrap();
    let columns = || source.columns(&LoadOptions::default());
    for (file, _) in FILES.iter().rev() {
        assert_eq!(columns().unwrap(), [("id".to_owned(), Some(DataType::Int64))]);
        fs::remove_file(dir.path().join(file)).unwrap();
    }
    assert!(matches!(columns(), Err(LoadError::Replaced { .. })));
}

#[test]
fn what_was_replaced_is_read_again_a_few_times() {
    for (replaced, expected) in [(0, Some(1)), (3, Some(4)), (4, None)] {
        let tries = Cell::new(0);
        let read = again(|| {
            tries.set(tries.get() + 1);
            if tries.get() > replaced {
                Ok(tries.get())
            } else {
                Err(LoadError::Replaced { file: "log".into() })
            }
        });
        assert_eq!(read.ok(), expected, "{replaced}");
    }
}
