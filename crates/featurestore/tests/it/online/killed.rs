//! A process that is killed at any moment has lost nothing that it acknowledged, and has taken nothing twice.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use millstream_featurestore::{
    Changes, Durability, LocalOptions, LocalTable, OnlineTable, Positions, WritableTable,
};
use millstream_graph::rows;

use super::{Subject, count, counts, ids};

const DIR: &str = "MILLSTREAM_TEST_KILLED";

/// Rows of a write: each key's value is the number of the write, so a write that is there in part is seen.
const KEYS: i64 = 5;

/// A store that is killed again and again.
struct Victim {
    name: &'static str,
    open: fn(&Path, u64) -> Arc<dyn WritableTable>,
    /// Whether it has windows that count the writes, so that one that is lost or taken twice is counted.
    windows: bool,
    /// Whether another key is written and erased now and then, for which its files are written anew.
    erases: bool,
    /// How often it is killed, unless `MILLSTREAM_KILLS` says so.
    rounds: u64,
}

const VICTIMS: &[Victim] = &[
    Victim {
        name: "folder",
        open: |dir, round| Arc::new(open(dir, round, false)),
        windows: false,
        erases: false,
        rounds: 100,
    },
    Victim {
        name: "windows",
        open: |dir, round| Arc::new(open(dir, round, true)),
        windows: true,
        erases: false,
        rounds: 100,
    },
    #[cfg(feature = "redb")]
    Victim {
        name: "redb",
        open: |dir, _| Arc::new(super::redb::open(&dir.join("set.redb"), counts().build().unwrap(), None)),
        windows: false,
        erases: true,
        rounds: 20,
    },
];

fn options(round: u64) -> LocalOptions {
    LocalOptions {
        // The process is killed, not the machine: what was written is there, whichever it is.
        durability: if round.is_multiple_of(2) { Durability::System } else { Durability::Always },
        segment_bytes: 4_000,
        snapshot_after: 9_000,
        ..LocalOptions::default()
    }
}

/// How many writes there were, beside the last one's number.
const WINDOWS: &str = r#"{"functions": ["count"], "windows": ["1h"]}"#;

fn open(dir: &Path, round: u64, windows: bool) -> LocalTable {
    let specs = windows.then(|| serde_json::from_str(WINDOWS).unwrap());
    let set = counts().aggregates(specs, Duration::ZERO).build().unwrap();
    LocalTable::open(dir, set, options(round)).unwrap()
}

fn write(n: u64) -> Changes {
    let keys: Vec<i64> = (0..KEYS).collect();
    let values = vec![n as i64; keys.len()];
    // All at the same event time: the last that was taken counts, so that one taken twice would be seen.
    Changes::new(rows! { id: keys, n: values }, vec![7; KEYS as usize]).at(Positions::new(
        "s",
        0,
        vec![n; KEYS as usize],
    ))
}

/// What the child does: goes on where the files end, and says of each write that it was acknowledged.
#[test]
#[ignore = "the child of the tests below, which kill it"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let round: u64 = std::env::var("ROUND").unwrap().parse().unwrap();
    let victim = std::env::var("VICTIM").unwrap();
    let victim = VICTIMS.iter().find(|known| known.name == victim).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let table = (victim.open)(Path::new(&dir), round);
    let mark = runtime.block_on(table.mark("s", 0).get()).unwrap();
    let mut out = std::io::stderr();
    for n in mark.map_or(0, |mark| mark + 1).. {
        runtime.block_on(table.write(write(n)).get()).unwrap();
        writeln!(out, "ack {n}").unwrap();
        if victim.erases && n % 8 == 7 {
            runtime.block_on(table.write(count(&[(KEYS, 0, 7)])).get()).unwrap();
            runtime.block_on(table.erase(ids(&[KEYS])).get()).unwrap();
        }
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_and_nothing_is_taken_twice() {
    kills("folder");
}

#[test]
fn windows_lose_nothing_that_was_acknowledged_and_count_nothing_twice() {
    kills("windows");
}

#[cfg(feature = "redb")]
#[test]
fn one_file_loses_nothing_that_was_acknowledged_and_takes_nothing_twice() {
    kills("redb");
}

fn kills(victim: &str) {
    let victim = VICTIMS.iter().find(|known| known.name == victim).unwrap();
    let rounds = std::env::var("MILLSTREAM_KILLS").map_or(victim.rounds, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = seed;
    let mut last = None;
    for round in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let acked = kill_after(dir.path(), (round, victim), random % 60, random >> 32 & 0x3ff);
        last = last.max(acked);
        let store = Subject::over((victim.open)(dir.path(), round), ());
        let mark = store.get(store.table.mark("s", 0)).unwrap();
        assert!(mark >= last, "round {round}: acknowledged {last:?}, there is {mark:?}");
        let row = mark.map_or("-".to_owned(), |mark| match victim.windows {
            true => format!("{mark} {}", mark + 1),
            false => mark.to_string(),
        });
        let all = vec![row; KEYS as usize].join(" | ");
        assert_eq!(store.read_at(&ids(&(0..KEYS).collect::<Vec<_>>()), Some(7)), all, "round {round}");
        if let Some(mark) = mark {
            let again = store.write(write(mark));
            assert_eq!(again, ["repeated"; KEYS as usize].join(" "), "round {round}");
        }
        last = mark;
    }
    assert!(last > Some(rounds), "the children have written");
}

/// Runs the child until it has acknowledged some writes, and a little longer; the last that it acknowledged.
fn kill_after(dir: &Path, (round, victim): (u64, &Victim), acks: u64, spins: u64) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "online::killed::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env("ROUND", round.to_string())
        .env("VICTIM", victim.name)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if acks == 0 {
        // While it reads the files, if not before.
        (0..spins * 20_000).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
    }
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

#[test]
fn a_folder_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(dir.path(), 0, false);
    let error = LocalTable::open(dir.path(), counts().build().unwrap(), options(0)).unwrap_err();
    assert!(error.to_string().contains("is in use, by a server that runs or another process"), "{error}");
    assert_eq!(table.set().name(), "counts");
    drop(table);
    open(dir.path(), 0, false);
}
