//! A store that is killed at any moment: what it has acknowledged is in its offline log once, and so is everything else that is.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type, UInt64Type},
};
use millstream_featurestore::{
    Archive, Changes, Durability, FeatureSet, LocalOptions, LocalTable, Positions, WritableTable,
    offline::{Log, LogSchema},
    wait,
};
use millstream_graph::rows;

const DIR: &str = "MILLSTREAM_TEST_ARCHIVE_KILLED";

/// Rows of a write, all with the number of the write.
const KEYS: i64 = 4;

/// A column of the windows alone, so that it is in the log of the store too.
fn set() -> FeatureSet {
    let spec = r#"{"column": "n", "functions": ["count"], "windows": ["1h"]}"#;
    FeatureSet::builder("counts")
        .key("id", DataType::Int64)
        .event_column("n", DataType::Int64)
        .aggregates([serde_json::from_str(spec).unwrap()], Duration::ZERO)
        .build()
        .unwrap()
}

fn open(dir: &Path, round: u64) -> LocalTable {
    let options = LocalOptions {
        durability: if round.is_multiple_of(2) { Durability::System } else { Durability::Always },
        segment_bytes: 3_000,
        snapshot_after: 7_000,
        ..LocalOptions::default()
    };
    let log = wait(Log::local(dir.join("log"), LogSchema::of(&set()).unwrap())).unwrap();
    // As often as it can, so that a kill meets it at work.
    let archive = Archive {
        every: Duration::from_micros(200),
        after_bytes: 500,
        compact_after: 5,
        ..Archive::new(Arc::new(log))
    };
    LocalTable::open_archived(&dir.join("store"), set(), options, archive).unwrap()
}

fn write(n: u64) -> Changes {
    let keys: Vec<i64> = (0..KEYS).collect();
    let changes = Changes::new(rows! { id: keys, n: vec![n as i64; KEYS as usize] }, vec![7; KEYS as usize]);
    changes.at(Positions::new("s", 0, vec![n; KEYS as usize]))
}

#[test]
#[ignore = "the child of the test below, which kills it"]
fn archives_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let round: u64 = std::env::var("ROUND").unwrap().parse().unwrap();
    let table = open(Path::new(&dir), round);
    let mark = wait(table.mark("s", 0).get()).unwrap();
    let mut out = std::io::stderr();
    for n in mark.map_or(0, |mark| mark + 1).. {
        wait(table.write(write(n)).get()).unwrap();
        writeln!(out, "ack {n}").unwrap();
    }
}

#[test]
fn what_was_acknowledged_is_in_the_log_exactly_once() {
    let rounds = std::env::var("MILLSTREAM_KILLS").map_or(30, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (mut random, mut last) = (0x2545_f491_4f6c_dd1d_u64, None);
    for round in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let acked = kill_after(dir.path(), round, random % 40, random >> 32 & 0x3ff);
        last = last.max(acked);
        let table = open(dir.path(), round);
        let mark = wait(table.mark("s", 0).get()).unwrap();
        assert!(mark >= last, "round {round}: acknowledged {last:?}, there is {mark:?}");
        let next = wait(table.archive().get()).unwrap().unwrap().next;
        let rows = mark.map_or(0, |mark| (mark + 1) * KEYS as u64);
        assert_eq!(next, if rows == 0 { next } else { rows + 1 }, "round {round}");
        let mut found = Vec::new();
        for batch in wait(table.log().unwrap().read()).unwrap() {
            let number = batch.column_by_name("_sequence").unwrap().as_primitive::<UInt64Type>().clone();
            let [id, n] = ["id", "n"]
                .map(|name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone());
            found.extend((0..batch.num_rows()).map(|row| (number.value(row), id.value(row), n.value(row))));
        }
        found.sort_unstable();
        let expected = (0..rows as i64).map(|row| (row as u64 + 1, row % KEYS, row / KEYS));
        assert!(found.iter().copied().eq(expected), "round {round}: {} rows of {rows}", found.len());
        last = mark;
    }
    assert!(last > Some(rounds), "the children have written");
}

/// Runs the child until it has acknowledged some writes, and a little longer; the last that it acknowledged.
fn kill_after(dir: &Path, round: u64, acks: u64, spins: u64) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::archives_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env("ROUND", round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut last, mut seen, mut other) = (None, 0, String::new());
    for line in lines {
        let line = line.unwrap();
        match line.strip_prefix("ack ").and_then(|n| n.parse().ok()) {
            Some(n) => last = Some(n),
            None => other.push_str(&line),
        }
        seen += 1;
        if seen == acks + 1 {
            // Not at the moment of an acknowledgement, but at any.
            (0..spins * 200).for_each(|_| std::hint::spin_loop());
            child.kill().unwrap();
        }
    }
    let ended = child.wait().unwrap();
    assert!(!ended.success() && !other.contains("panicked"), "round {round}: {other}");
    last
}
