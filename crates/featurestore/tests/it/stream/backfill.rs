//! Files of a stream's past, and then the stream: each event once, wherever the files end.

use std::{fmt::Write as _, fs, path::Path, sync::Arc};

use millstream_featurestore::WritableSet;
use proptest::prelude::*;

use super::{
    AT, catch_up, event, in_folder, in_memory,
    intake::{Shelf, intake, run},
    known, mark, sums,
};

/// Events of a file: partition, offset and value. The key is the partition.
type Rows<'a> = &'a [(u32, u64, i64)];

fn csv(rows: Rows<'_>) -> String {
    let mut text = "_offset,id,n,at,_partition,_source,more\n".to_owned();
    for (partition, offset, n) in rows {
        writeln!(text, "{offset},{partition},{n},{AT},{partition},shelf,x").unwrap();
    }
    text
}

/// What became of the rows of a file: taken and repeated, or why it is not read.
fn ingest(set: &WritableSet, folder: &Path, name: &str, text: &str) -> Result<(u64, u64), String> {
    fs::write(folder.join(name), text).unwrap();
    let (mut taken, mut repeated) = (0, 0);
    let ingested = set.ingest(folder, name, &mut |written, _| {
        let counts = written.counts();
        let count = |name| counts.iter().find(|(known, _)| *known == name).unwrap().1;
        taken += count("taken") + count("older");
        repeated += count("repeated");
    });
    ingested.map(|()| (taken, repeated)).map_err(|error| error.to_string())
}

fn shelf(lengths: &[usize]) -> Shelf {
    Shelf::of((0_u32..).zip(lengths).map(|(partition, &length)| {
        (partition, 0, (0..length as i64).map(|n| event(partition.into(), n)).collect())
    }))
}

#[test]
fn a_stream_goes_on_behind_the_last_offset_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let set = in_folder(&folder.path().join("set"));
    let rows: Vec<_> = (0..40).map(|offset| ((offset % 2) as u32, offset / 2, (offset / 2) as i64)).collect();
    assert_eq!(ingest(&set, folder.path(), "a.csv", &csv(&rows)), Ok((40, 0)));
    assert_eq!((mark(&set, "shelf", 0), mark(&set, "shelf", 1)), (Some(19), Some(19)));
    run(catch_up(intake(&shelf(&[30, 25]), &set)));
    assert_eq!((known(&set, 0), known(&set, 1)), (sums(0..30), sums(0..25)));
    // The other way round: the stream is there already, and the file comes late.
    assert_eq!(ingest(&set, folder.path(), "b.csv", &csv(&rows)), Ok((0, 40)));
    assert_eq!((known(&set, 0), known(&set, 1)), (sums(0..30), sums(0..25)));
}

#[test]
fn rows_of_one_event_are_taken_together_though_a_batch_ends_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let set = in_memory();
    // Batches have 8192 rows: events of three rows, and one of more rows than a batch.
    let rows: Vec<_> =
        (0..9_000_u64).map(|row| (0, row / 3, 1)).chain((0..10_000).map(|_| (0, 3_000, 1))).collect();
    assert_eq!(ingest(&set, folder.path(), "a.csv", &csv(&rows)), Ok((19_000, 0)));
    assert_eq!(known(&set, 0), "1 19000 19000");
    assert_eq!(mark(&set, "shelf", 0), Some(3_000));
}

#[test]
fn a_file_that_cannot_be_told_from_a_gap_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = in_memory();
    for (text, sentence) in [
        (
            csv(&[(0, 5, 1), (0, 4, 1)]),
            "a.csv:3: offset 4 of partition 0 of shelf stands behind 5; sort the file by `_offset`",
        ),
        ("id,n,at,_offset\n1,1,1,1\n".to_owned(), "`_source` and `_offset` come together"),
        (
            "id,n,at,_offset,_source\n1,1,1,,a\n".to_owned(),
            "a.csv:2: `_source`, `_partition` or `_offset` is null",
        ),
    ] {
        let error = ingest(&set, folder.path(), "a.csv", &text).unwrap_err();
        assert!(error.contains(sentence), "{error}");
    }
    // Partitions are in their own order, and one is 0 if nothing says so.
    assert_eq!(ingest(&set, folder.path(), "b.csv", &csv(&[(0, 5, 1), (1, 4, 1), (0, 6, 1)])), Ok((3, 0)));
    let json = "{\"id\":3,\"n\":1,\"at\":7,\"_source\":\"s\",\"_offset\":9}\n";
    assert_eq!(ingest(&set, folder.path(), "c.jsonl", json), Ok((1, 0)));
    assert_eq!(
        (mark(&set, "shelf", 0), mark(&set, "shelf", 1), mark(&set, "s", 0)),
        (Some(6), Some(4), Some(9))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn files_and_streams_that_overlap_in_any_way_count_each_event_once(
        lengths in prop::collection::vec(0_usize..80, 1..4),
        // Each step: the stream as far as it goes until its session breaks, or a file of each partition up to some offset.
        steps in prop::collection::vec(prop_oneof![
            (0_usize..50).prop_map(|messages| (true, vec![messages])),
            prop::collection::vec(0_usize..90, 3).prop_map(|ends| (false, ends)),
        ], 0..6),
        parts in prop::collection::vec(1_usize..20, 0..10),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let set: Arc<WritableSet> = in_memory();
        for (number, (streams, counts)) in steps.into_iter().enumerate() {
            if streams {
                let shelf = shelf(&lengths).breaking([counts[0]], parts.clone());
                let one = intake(&shelf, &set).most(7);
                // One session, and the beginning of the wait behind it.
                run(async {
                    let broken = tokio::time::sleep(std::time::Duration::from_millis(10));
                    tokio::select! { never = one.run() => match never {}, () = broken => {} }
                });
            } else {
                let ends = lengths.iter().zip(&counts).map(|(length, end)| *length.min(end)).collect::<Vec<_>>();
                let longest = ends.iter().copied().max().unwrap_or(0);
                let rows = (0..longest).flat_map(|offset| {
                    let there = ends.iter().enumerate().filter(move |(_, end)| offset < **end);
                    there.map(move |(partition, _)| (partition as u32, offset as u64, offset as i64))
                });
                let rows: Vec<_> = rows.collect();
                ingest(&set, folder.path(), &format!("{number}.csv"), &csv(&rows)).unwrap();
            }
        }
        run(catch_up(intake(&shelf(&lengths), &set)));
        for (partition, &length) in lengths.iter().enumerate() {
            prop_assert_eq!(known(&set, partition as i64), sums(0..length as i64));
        }
    }
}
