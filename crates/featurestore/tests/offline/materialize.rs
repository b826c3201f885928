//! Online stores that are filled from a log.

use std::{fs, path::Path, sync::Arc, time::Duration};

use arrow::{array::ArrayRef, datatypes::DataType};
use expect_test::expect;
use millstream_featurestore::{
    Changes, Column, Durability, FeatureSet, Gap, LocalOptions, LocalTable, OnlineTable, Outcome, Pick, Read,
    Selection, TimeColumns, WritableSet, WritableTable,
    offline::{AsOf, Log, LogSchema, MaterializeError, OfflineSet, Spine, Vector},
    wait,
};
use millstream_graph::rows;
use proptest::{option::weighted, prelude::*};
use tempfile::tempdir;

use super::{
    archive::{
        archive, count, counts, erase, logged, open, options, outcomes, plain_set, up_to_date, writable,
    },
    block, causes, spine, store, training,
    windows::{
        Act, Event, HOUR, KEYS, MINUTE, START, acts, arrived, changes, events_set, online, plain_event,
    },
};

/// How many rows came to each outcome that any came to: `3 taken, 1 older`.
fn filled(set: &WritableSet, log: &Log, until: Option<i64>) -> Result<String, MaterializeError> {
    block(async {
        let (mut filled, mut counts) = (set.materialize(log, until).await?, Vec::<(&str, u64)>::new());
        while let Some(written) = filled.next().await? {
            for (outcome, rows) in written.counts().into_iter().filter(|(_, rows)| *rows > 0) {
                match counts.iter_mut().find(|(known, _)| *known == outcome) {
                    Some((_, known)) => *known += rows,
                    None => counts.push((outcome, rows)),
                }
            }
        }
        Ok(counts.iter().map(|(outcome, rows)| format!("{rows} {outcome}")).collect::<Vec<_>>().join(", "))
    })
}

fn from_its_own(table: &Arc<LocalTable>) -> Result<String, MaterializeError> {
    filled(&writable(table), table.log().unwrap(), None)
}

/// All features of every key, before and after `now`.
fn answers(table: &dyn OnlineTable, now: i64) -> Vec<Vec<ArrayRef>> {
    let times = [now - HOUR, now, now + 30 * MINUTE, now + 50 * HOUR];
    let asked = (0..KEYS + 1).flat_map(|key| times.map(|at| (key, at)));
    asked.map(|(key, at)| online(table, key, at)).collect()
}

fn lose(folder: &Path) {
    fs::remove_dir_all(folder.join("store")).unwrap();
}

/// Late and tied events in, the folder lost, the set filled from its log, more events in, and lost once more.
fn filled_again(set: &FeatureSet, ttl: Option<Duration>, acts: &[(i64, Act)]) {
    let folder = tempdir().unwrap();
    let mut table = open(folder.path(), set, ttl);
    let mut now = START;
    let mut taken = Vec::new();
    let mut push = |table: &LocalTable, events: &[Event]| {
        let kept = |outcome: &Outcome| matches!(outcome, Outcome::Taken | Outcome::Older);
        let written = outcomes(table, changes(events));
        let kept = events.iter().zip(&written).filter(|(_, outcome)| kept(outcome));
        taken.extend(kept.map(|(event, _)| (event.key, event.at)));
    };
    for round in acts.chunks(acts.len().div_ceil(2)) {
        for (passed, act) in round {
            now += passed;
            if let Act::Write(events) = act {
                push(&table, &arrived(events, now));
            }
        }
        let before = answers(&*table, now);
        up_to_date(&*table);
        let rows = logged(table.log().unwrap());
        drop(table);
        lose(folder.path());
        table = open(folder.path(), set, ttl);
        assert!(table.is_empty());
        let outcomes = from_its_own(&table).unwrap();
        assert!(!outcomes.contains("too_late") && !outcomes.contains("refused"), "{outcomes}");
        assert!(answers(&*table, now) == before, "after {outcomes}");
        // Again, and after a restart.
        from_its_own(&table).unwrap();
        assert!(answers(&*table, now) == before);
        up_to_date(&*table);
        drop(table);
        table = open(folder.path(), set, ttl);
        assert!(answers(&*table, now) == before);
        assert_eq!(logged(table.log().unwrap()), rows, "nothing that was in the log is put there again");
    }
    up_to_date(&*table);
    let rows = logged(table.log().unwrap()).into_iter().map(|(_, key, event)| (key, event));
    assert!(rows.eq(taken), "each event once, in the order in which it was taken");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_set_that_was_lost_answers_from_its_log_as_before(
        acts in acts(40),
        lateness in weighted(0.7, prop_oneof![Just(0), Just(30 * MINUTE), Just(48 * HOUR)]),
        ttl in weighted(0.4, prop_oneof![Just(HOUR), Just(26 * HOUR)]),
    ) {
        let set = lateness.map_or_else(plain_set, events_set);
        filled_again(&set, ttl.map(|ttl| Duration::from_micros(ttl as u64)), &acts);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a killed process leaves: the files as they are, the last of them torn.
fn killed(folder: &Path, torn: u64) -> tempfile::TempDir {
    let left = tempdir().unwrap();
    copy(&folder.join("store"), &left.path().join("store"));
    let log = left.path().join("log");
    for part in fs::read_dir(folder.join("log")).unwrap() {
        let part = part.unwrap();
        copy(&part.path(), &log.join(part.file_name()));
    }
    let names = fs::read_dir(left.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
    let last =
        names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("wal-")).max().unwrap();
    let file = fs::OpenOptions::new().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len().saturating_sub(torn)).unwrap();
    left
}

/// A store that leaves its files alone while they are copied.
fn open_still(folder: &Path, set: &FeatureSet) -> Arc<LocalTable> {
    let options = LocalOptions { durability: Durability::System, ..LocalOptions::default() };
    let archive = archive(folder, set);
    Arc::new(LocalTable::open_archived(&folder.join("store"), set.clone(), options, archive).unwrap())
}

#[test]
fn a_set_that_was_filled_half_way_is_filled_the_rest_of_the_way() {
    for set in [plain_set(), events_set(HOUR)] {
        let folder = tempdir().unwrap();
        let table = open_still(folder.path(), &set);
        for part in 0..25_i64 {
            let event = |number: i64| Event {
                key: number % KEYS,
                amount: Some((part * 1000 + number) as f64),
                ..plain_event(START + part * MINUTE + number)
            };
            outcomes(&table, changes(&(0..1000).map(event).collect::<Vec<_>>()));
        }
        let now = START + 2 * HOUR;
        let before = answers(&*table, now);
        up_to_date(&*table);
        drop(table);
        lose(folder.path());
        let table = open_still(folder.path(), &set);
        let set_again = writable(&table);
        let log = table.log().unwrap();
        let left: Vec<_> = block(async {
            let mut filled = set_again.materialize(log, None).await.unwrap();
            let mut left = vec![(killed(folder.path(), 0), 0)];
            for torn in [0, 1, 5_000] {
                filled.next().await.unwrap().unwrap();
                left.push((killed(folder.path(), torn), torn));
            }
            left
        });
        for (left, torn) in &left {
            let table = open_still(left.path(), &set);
            assert!(answers(&*table, now) != before, "{torn} bytes torn");
            from_its_own(&table).unwrap();
            assert!(answers(&*table, now) == before);
            up_to_date(&*table);
            assert_eq!(logged(table.log().unwrap()).len(), 25_000);
        }
    }
}

/// What came after the loss stays, and what is in the log counts by its version.
#[test]
fn rows_that_came_after_the_loss_and_those_of_the_log_are_one_history() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    outcomes(&table, count(&[1, 2], 20));
    outcomes(&table, count(&[3], 5));
    drop(table);
    lose(folder.path());
    let table = open(folder.path(), &counts(), None);
    // Older than what the log has, and newer.
    outcomes(&table, count(&[1], 10));
    outcomes(&table, count(&[2], 30));
    up_to_date(&*table);
    assert_eq!(from_its_own(&table).unwrap(), "2 taken, 3 older");
    let read = |table: &LocalTable| n_of(table, &[1, 2, 3, 4]);
    let expected = vec![Some(20), Some(30), Some(5), None];
    assert_eq!(read(&table), expected);
    assert_eq!(from_its_own(&table).unwrap(), "5 older");
    wait(table.snapshot().get()).unwrap();
    drop(table);
    let table = open(folder.path(), &counts(), None);
    assert_eq!(read(&table), expected);
    outcomes(&table, count(&[3], 6));
    up_to_date(&*table);
    let rows = [(1, 1, 20), (2, 2, 20), (3, 3, 5), (4, 1, 10), (5, 2, 30), (6, 3, 6)];
    assert_eq!(logged(table.log().unwrap()), rows);
}

fn n_of(table: &dyn OnlineTable, ids: &[i64]) -> Vec<Option<i64>> {
    use arrow::array::AsArray;
    let pick = Pick { feature: 0, missing: Gap::Null, null: Gap::Null };
    let selection = Selection::new(table.set(), &[0], vec![pick]).unwrap();
    let found = match table.read(&rows! { id: ids.to_vec() }, &selection) {
        Read::Ready(found) => found.unwrap(),
        Read::Waits(found) => wait(found).unwrap(),
    };
    found.columns[0].as_primitive::<arrow::datatypes::Int64Type>().iter().collect()
}

#[test]
fn what_was_erased_does_not_come_back_and_what_is_later_than_asked_is_left_out() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    outcomes(&table, count(&[1, 2, 3], 10));
    outcomes(&table, count(&[1, 2], 20));
    erase(&table, 2);
    drop(table);
    lose(folder.path());
    let table = open(folder.path(), &counts(), None);
    assert_eq!(filled(&writable(&table), table.log().unwrap(), Some(10)).unwrap(), "2 taken");
    assert_eq!(n_of(&*table, &[1, 2, 3]), [Some(10), None, Some(10)]);
    assert_eq!(from_its_own(&table).unwrap(), "1 taken, 2 older");
    assert_eq!(n_of(&*table, &[1, 2, 3]), [Some(20), None, Some(10)]);
}

#[test]
fn a_set_with_windows_is_filled_while_it_has_nothing_but_its_log() {
    let refused = "the set has rows that are not from this log, and windows are put together from events in their order; \
                   give it an empty store, then fill it";
    let folder = tempdir().unwrap();
    let set = events_set(HOUR);
    let event = |at: i64| changes(&[plain_event(START + at)]);
    let table = open(folder.path(), &set, None);
    outcomes(&table, event(0));
    outcomes(&table, event(1));
    up_to_date(&*table);
    assert_eq!(from_its_own(&table).unwrap_err().to_string(), refused, "it has its rows");
    drop(table);
    lose(folder.path());
    let table = open(folder.path(), &set, None);
    assert_eq!(from_its_own(&table).unwrap(), "2 taken");
    assert_eq!(from_its_own(&table).unwrap(), "2 repeated");
    assert_eq!(
        filled(&writable(&table), table.log().unwrap(), Some(START)).unwrap_err().to_string(),
        refused
    );
    outcomes(&table, event(2));
    assert_eq!(from_its_own(&table).unwrap_err().to_string(), refused);
    drop(table);
    let table = open(folder.path(), &set, None);
    assert_eq!(from_its_own(&table).unwrap_err().to_string(), refused, "after a restart too");
    drop(table);
    lose(folder.path());
    let table = open(folder.path(), &set, None);
    outcomes(&table, event(3));
    assert_eq!(from_its_own(&table).unwrap_err().to_string(), refused);
}

/// A log in a folder, for sets that have none of their own.
fn other_log(folder: &Path) -> Log {
    let log = wait(Log::local(folder, LogSchema::of(&counts()).unwrap())).unwrap();
    let rows = rows! {
        id: [1_i64, 2, 1, 2], n: [1_i64, 2, 3, 4], _event: [20_i64, 10, 20, 5], _created: [Some(1_i64), None, Some(2), None],
        _valid_to: [None::<i64>, None, Some(90), None],
    };
    assert_eq!(block(log.append(0, &rows)).unwrap().rows, 4);
    log
}

#[test]
fn a_store_of_any_kind_is_filled_from_the_log_in_a_folder() {
    let folder = tempdir().unwrap();
    let log = other_log(&folder.path().join("log"));
    let local = LocalTable::open(&folder.path().join("local"), counts(), LocalOptions::default()).unwrap();
    let memory = LocalTable::in_memory(counts(), LocalOptions::default());
    let mut tables: Vec<Arc<dyn WritableTable>> = vec![Arc::new(local), Arc::new(memory)];
    #[cfg(feature = "redb")]
    {
        use millstream_featurestore::{RedbOptions, RedbTable};
        let redb = RedbTable::open(&folder.path().join("redb"), counts(), RedbOptions::default()).unwrap();
        tables.push(Arc::new(redb));
    }
    for table in tables {
        let time = Column { name: "at".into(), data_type: DataType::Int64 };
        let times = TimeColumns { event: time, created: None, valid_to: None };
        let set = WritableSet::new(Arc::clone(&table), times);
        assert_eq!(filled(&set, &log, None).unwrap(), "3 taken, 1 older");
        assert_eq!(filled(&set, &log, None).unwrap(), "4 older");
        let pick = || vec![Pick { feature: 0, missing: Gap::Null, null: Gap::Null }];
        let selection = Selection::new(table.set(), &[0], pick()).unwrap();
        let at = |at: i64| match table.read_at(&rows! { id: [1_i64, 2] }, &selection, at) {
            Read::Ready(found) => format!("{:?}", found.unwrap().missing),
            Read::Waits(_) => panic!("it is local"),
        };
        assert_eq!((at(90), at(91)), ("[]".to_owned(), "[0]".to_owned()), "rows end when they did");
        // What comes then is behind what came back.
        let written =
            wait(table.write(Changes::new(rows! { id: [2_i64], n: [9_i64] }, vec![10])).get()).unwrap();
        assert_eq!(written.rows, [Outcome::Taken]);
        assert_eq!(filled(&set, &log, None).unwrap(), "4 older");
        assert_eq!(n_of(&*table, &[2]), [Some(9)]);
    }
}

#[test]
fn a_log_that_cannot_fill_the_set_is_refused_with_the_reason() {
    let folder = tempdir().unwrap();
    let log = other_log(&folder.path().join("other"));
    let table = open(folder.path(), &counts(), None);
    let error = filled(&writable(&table), &log, None).unwrap_err().to_string();
    let error = error.replace(folder.path().canonicalize().unwrap().to_str().unwrap(), "…");
    expect!["feature set `counts` has its own log at `…/log`, which would lack rows of `…/other`; copy the files of that log there, and fill the set from its own"]
        .assert_eq(&error);
    // The same log, opened twice.
    let same = wait(Log::local(folder.path().join("log"), LogSchema::of(&counts()).unwrap())).unwrap();
    assert_eq!(filled(&writable(&table), &same, None).unwrap(), "");

    let keyed =
        FeatureSet::builder("keyed").key("name", DataType::Utf8).feature("n", DataType::Int64).build();
    let other = LocalTable::open(&folder.path().join("keyed"), keyed.unwrap(), options(None)).unwrap();
    let other = writable(&Arc::new(other));
    let error = filled(&other, &log, None).unwrap_err();
    expect!["no column `name`; there is `id`, `n`, `_event`, `_created`, `_valid_to`, `_sequence`"]
        .assert_eq(&causes(&error));
}

/// What fills gaps in a training set is what the rows that count now have.
#[test]
fn statistics_of_a_log_fill_gaps_of_training_sets() {
    let folder = tempdir().unwrap();
    let log = other_log(folder.path());
    block(async {
        let set = || OfflineSet::of(&counts(), log.table()).unwrap().as_of(AsOf::default());
        let asked = || spine(rows! { id: [7_i64], at: [50_i64] });
        let mut found = Vec::new();
        for policy in ["mean", "median", "min", "max", "most_frequent"] {
            let policy = serde_json::from_value(policy.into()).unwrap();
            let vector = Vector::new("v").features(["counts.n"]).missing(policy);
            let mut store = store(1, vec![set()]);
            store.insert_vector(vector.clone()).unwrap();
            let asked: Spine = asked();
            let rows = training(&store, &vector, &asked).await.unwrap();
            found.push(arrow::util::display::array_value_to_string(rows.column(2), 0).unwrap());
        }
        // Of key 1 the row that became known later counts, of key 2 the later one: 3 and 2.
        assert_eq!(found, ["3", "3", "2", "3", "2"]);
    });
}
