//! What a store takes goes into its offline log, exactly once.

use std::{fs, path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType, UInt64Type},
};
use expect_test::expect;
use millstream_featurestore::{
    Archive, Changes, Column, Durability, FeatureSet, FeatureSetSpec, LoadOptions, LocalOptions, LocalTable,
    Outcome, Positions, Receipt, StoredSet, Stores, TimeColumns, WritableSet, WritableTable,
    offline::{AsOf, Log, LogSchema},
    wait,
};
use millstream_graph::rows;
use proptest::{collection::vec, option::weighted, prelude::*};
use serde_json::json;
use tempfile::tempdir;

use super::{
    block, causes,
    windows::{
        Act, Event, HOUR, MINUTE, START, acts, arrived, assert_same, batch, changes, events_set, offline,
        online, plain_event,
    },
};

/// Small files, so that there are many.
pub(crate) fn options(ttl: Option<Duration>) -> LocalOptions {
    LocalOptions {
        ttl,
        durability: Durability::System,
        segment_bytes: 900,
        snapshot_after: 4_000,
        ..LocalOptions::default()
    }
}

/// A log that is written when it is asked to be, and when its table is closed.
pub(crate) fn archive(folder: &Path, set: &FeatureSet) -> Archive {
    let log = wait(Log::local(folder.join("log"), LogSchema::of(set).unwrap())).unwrap();
    Archive { every: Duration::from_secs(3600), compact_after: 6, ..Archive::new(Arc::new(log)) }
}

pub(crate) fn open(folder: &Path, set: &FeatureSet, ttl: Option<Duration>) -> Arc<LocalTable> {
    let archive = archive(folder, set);
    Arc::new(LocalTable::open_archived(&folder.join("store"), set.clone(), options(ttl), archive).unwrap())
}

pub(crate) fn up_to_date(table: &dyn WritableTable) -> u64 {
    wait(table.archive().get()).unwrap().unwrap().next
}

/// `number key event` of every row of a log, by number.
pub(crate) fn logged(log: &Log) -> Vec<(u64, i64, i64)> {
    let mut rows = Vec::new();
    for batch in wait(log.read()).unwrap() {
        let numbers = batch.column_by_name("_sequence").unwrap().as_primitive::<UInt64Type>().clone();
        let keys = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().clone();
        let events =
            batch.column_by_name("_event").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
        rows.extend(
            (0..batch.num_rows()).map(|row| (numbers.value(row), keys.value(row), events.value(row))),
        );
    }
    rows.sort_unstable();
    rows
}

/// The events of the windows' tests, of which the latest amount alone is kept.
pub(crate) fn plain_set() -> FeatureSet {
    let set = FeatureSet::builder("events").key("id", DataType::Int64).key("part", DataType::Utf8);
    set.feature("amount", DataType::Float64).feature("tier", DataType::Utf8).build().unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    Archive,
    Snapshot,
    Reopen,
}

/// A set over a table, whose rows have their times in columns.
pub(crate) fn writable(table: &Arc<LocalTable>) -> WritableSet {
    let time = |name: &str| Column { name: name.into(), data_type: DataType::Int64 };
    let times = TimeColumns { event: time("at"), created: Some(time("known")), valid_to: None };
    WritableSet::new(Arc::clone(table) as _, times)
}

/// Events with their times as columns.
fn with_times(events: &[Event]) -> RecordBatch {
    let columns = batch(events);
    let schema = columns.schema();
    let named =
        schema.fields().iter().map(|field| field.name().as_str()).zip(columns.columns().iter().cloned());
    let times: [(&str, ArrayRef); 2] = [
        ("at", Arc::new(events.iter().map(|event| event.at).collect::<Int64Array>())),
        ("known", Arc::new(events.iter().map(|event| event.created).collect::<Int64Array>())),
    ];
    RecordBatch::try_from_iter_with_nullable(named.chain(times).map(|(name, column)| (name, column, true)))
        .unwrap()
}

/// Late and tied events, repeated writes, restarts, snapshots and compactions in between: what was served is what training gets.
fn no_skew(set: &FeatureSet, ttl: Option<Duration>, acts: &[(i64, Act)], then: &[Then], cut: (usize, usize)) {
    let folder = tempdir().unwrap();
    let mut table = open(folder.path(), set, ttl);
    let (mut now, mut offset, mut then) = (START, 0, then.iter().cycle());
    let (mut asked, mut served, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for (passed, act) in acts {
        now += passed;
        match act {
            Act::Read(key) => {
                asked.push((*key, now));
                served.push(online(&*table, *key, now));
            }
            Act::Write(events) => {
                let events = arrived(events, now);
                let at = Positions::new("s", 0, (offset..).take(events.len()).collect());
                offset += events.len() as u64;
                let set = writable(&table);
                let changes = || set.changes(with_times(&events)).unwrap().at(at.clone());
                let written = wait(set.write(changes()).get()).unwrap();
                let again = wait(set.write(changes()).get()).unwrap();
                assert!(again.rows.iter().all(|outcome| *outcome == Outcome::Repeated));
                let kept = |outcome: &Outcome| matches!(outcome, Outcome::Taken | Outcome::Older);
                let kept = events.iter().zip(&written.rows).filter(|(_, outcome)| kept(outcome));
                taken.extend(kept.map(|(event, _)| (event.key, event.at)));
            }
        }
        match then.next().copied().unwrap_or(Then::Nothing) {
            Then::Nothing => {}
            Then::Archive => drop(up_to_date(&*table)),
            Then::Snapshot => wait(table.snapshot().get()).unwrap(),
            Then::Reopen => {
                drop(table);
                table = open(folder.path(), set, ttl);
            }
        }
    }
    assert_eq!(up_to_date(&*table), if taken.is_empty() { 0 } else { taken.len() as u64 + 1 });
    let log = table.log().unwrap();
    let rows: Vec<_> = logged(log).into_iter().map(|(_, key, event)| (key, event)).collect();
    assert_eq!(rows, taken, "each row once, in the order in which it was taken");
    if !asked.is_empty() {
        let history = writable(&table).history().unwrap().unwrap().as_of(AsOf { ttl, ..AsOf::default() });
        let found = block(offline(&history, &asked, cut.0, cut.1));
        assert_same(set, &asked, &found, &served);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn there_is_no_skew_between_what_was_served_and_a_training_set(
        acts in acts(60),
        then in vec(prop_oneof![
            4 => Just(Then::Nothing), 1 => Just(Then::Archive), 1 => Just(Then::Snapshot), 1 => Just(Then::Reopen),
        ], 1..20),
        lateness in weighted(0.7, prop_oneof![Just(0), Just(30 * MINUTE), Just(48 * HOUR)]),
        ttl in weighted(0.4, prop_oneof![Just(HOUR), Just(26 * HOUR)]),
        cut in (1_usize..5, 1_usize..20),
    ) {
        let set = lateness.map_or_else(plain_set, events_set);
        no_skew(&set, ttl.map(|ttl| Duration::from_micros(ttl as u64)), &acts, &then, cut);
    }
}

pub(crate) fn counts() -> FeatureSet {
    FeatureSet::builder("counts").key("id", DataType::Int64).feature("n", DataType::Int64).build().unwrap()
}

/// One row per key, all at `event`.
pub(crate) fn count(keys: &[i64], event: i64) -> Changes {
    Changes::new(rows! { id: keys.to_vec(), n: vec![event; keys.len()] }, vec![event; keys.len()])
}

pub(crate) fn outcomes(table: &LocalTable, changes: Changes) -> Vec<Outcome> {
    wait(table.write(changes).get()).unwrap().rows
}

#[test]
fn older_rows_are_history_and_those_that_were_not_taken_are_none() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    assert_eq!(outcomes(&table, count(&[1], 20)), [Outcome::Taken]);
    assert_eq!(outcomes(&table, count(&[1], 10)), [Outcome::Older]);
    let at = || Positions::new("s", 0, vec![1]);
    assert_eq!(outcomes(&table, count(&[2], 5).at(at())), [Outcome::Taken]);
    assert_eq!(outcomes(&table, count(&[2], 6).at(at())), [Outcome::Repeated]);
    let nobody = Changes::new(rows! { id: [None::<i64>], n: [1_i64] }, vec![1]);
    assert!(matches!(outcomes(&table, nobody)[..], [Outcome::Refused(_)]));
    // No reader of Parquet could name its year.
    assert!(matches!(outcomes(&table, count(&[3], 1 << 60))[..], [Outcome::Refused(_)]));
    assert_eq!(up_to_date(&*table), 4);
    assert_eq!(logged(table.log().unwrap()), [(1, 1, 20), (2, 1, 10), (3, 2, 5)]);
}

#[test]
fn events_that_are_too_late_are_not_in_the_log_and_their_ids_are_known() {
    let folder = tempdir().unwrap();
    let set = events_set(HOUR);
    let event = plain_event;
    let table = open(folder.path(), &set, None);
    let ids = |ids: &[&str]| ids.iter().map(|id| Some((*id).to_owned())).collect::<Vec<_>>();
    let events = [event(START), event(START - 2 * HOUR), event(START - HOUR)];
    let write = || changes(&events).ids(ids(&["a", "b", "c"]));
    assert_eq!(outcomes(&table, write()), [Outcome::Taken, Outcome::TooLate, Outcome::Taken]);
    assert_eq!(outcomes(&table, write()), vec![Outcome::Repeated; 3]);
    drop(table);
    let table = open(folder.path(), &set, None);
    assert_eq!(outcomes(&table, write()), vec![Outcome::Repeated; 3]);
    let late = changes(&[event(START - 3 * HOUR)]).ids(ids(&["d"]));
    assert_eq!(outcomes(&table, late.clone()), [Outcome::TooLate]);
    assert_eq!(outcomes(&table, late), [Outcome::Repeated]);
    up_to_date(&*table);
    assert_eq!(logged(table.log().unwrap()), [(1, 0, START), (2, 0, START - HOUR)]);
}

#[test]
fn rows_from_before_there_was_a_log_are_not_in_it() {
    let folder = tempdir().unwrap();
    let table = LocalTable::open(&folder.path().join("store"), counts(), options(None)).unwrap();
    outcomes(&table, count(&[1, 2], 10));
    drop(table);
    let table = open(folder.path(), &counts(), None);
    outcomes(&table, count(&[1], 11));
    up_to_date(&*table);
    assert_eq!(logged(table.log().unwrap()), [(3, 1, 11)]);
}

/// Numbers that the log has are not given again: it would take the new rows for those.
#[test]
fn a_store_that_has_lost_its_folder_goes_on_behind_its_log() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    outcomes(&table, count(&[1, 2], 10));
    drop(table);
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    let table = open(folder.path(), &counts(), None);
    outcomes(&table, count(&[3], 11));
    up_to_date(&*table);
    assert_eq!(logged(table.log().unwrap()), [(1, 1, 10), (2, 2, 10), (3, 3, 11)]);
}

fn segments(folder: &Path) -> usize {
    let names = fs::read_dir(folder.join("store")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("wal-")).count()
}

#[test]
fn segments_stay_until_the_log_has_them() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    // The pass at the start is over before anything is written.
    up_to_date(&*table);
    for n in 0..200 {
        outcomes(&table, count(&[n % 7, 8], n));
        if n % 50 == 0 {
            wait(table.snapshot().get()).unwrap();
        }
    }
    let before = segments(folder.path());
    assert!(before > 10, "{before} segments");
    assert_eq!(up_to_date(&*table), 401);
    wait(table.snapshot().get()).unwrap();
    up_to_date(&*table);
    assert!(segments(folder.path()) <= 2, "{} segments", segments(folder.path()));
    let numbers: Vec<_> = logged(table.log().unwrap()).into_iter().map(|(number, ..)| number).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
}

#[test]
fn many_small_files_of_the_log_are_put_together() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    for n in 0..30 {
        outcomes(&table, count(&[1], n));
        up_to_date(&*table);
    }
    let day = folder.path().join("log/date=1970-01-01");
    let files = fs::read_dir(day).unwrap().count();
    assert!(files < 15, "{files} files");
    assert_eq!(logged(table.log().unwrap()).len(), 30);
}

pub(crate) fn erase(table: &LocalTable, key: i64) -> Receipt {
    wait(table.erase(rows! { id: [key] }).get()).unwrap()
}

/// The log of the store is read again after a restart, and with it that a key was erased.
#[test]
fn what_is_erased_is_gone_from_the_log_and_what_comes_after_stays() {
    let folder = tempdir().unwrap();
    let table = open(folder.path(), &counts(), None);
    outcomes(&table, count(&[1, 2], 10));
    up_to_date(&*table);
    outcomes(&table, count(&[1, 2], 11));
    let receipt = erase(&table, 1);
    assert_eq!((receipt.removed, receipt.log_rows), (1, Some(2)));
    assert!(
        receipt.files_deleted.iter().any(|file| file.starts_with("offline/date=1970-01-01/")),
        "{receipt:?}"
    );
    assert!(receipt.beyond.is_empty(), "{receipt:?}");
    outcomes(&table, count(&[1], 12));
    drop(table);
    for _ in 0..2 {
        let table = open(folder.path(), &counts(), None);
        up_to_date(&*table);
        assert_eq!(logged(table.log().unwrap()), [(2, 2, 10), (4, 2, 11), (5, 1, 12)]);
    }
    let table = open(folder.path(), &counts(), None);
    let receipt = wait(table.purge().get()).unwrap();
    assert_eq!((receipt.removed, receipt.log_rows), (2, Some(3)));
    outcomes(&table, count(&[2], 13));
    assert_eq!(up_to_date(&*table), 7);
    assert_eq!(logged(table.log().unwrap()), [(6, 2, 13)]);
    // No file has what was removed.
    drop(table);
    let store: Vec<_> = fs::read_dir(folder.path().join("store")).unwrap().collect();
    assert!(store.len() <= 4, "{store:?}");
}

/// A folder in whose place lies a file cannot be written, whoever tries.
#[test]
fn rows_are_taken_while_the_log_cannot_be_written_up_to_a_bound() {
    let folder = tempdir().unwrap();
    let (log, aside) = (folder.path().join("log"), folder.path().join("aside"));
    let archive = Archive { max_behind: 3_000, ..archive(folder.path(), &counts()) };
    let store = folder.path().join("store");
    let table = LocalTable::open_archived(&store, counts(), options(None), archive).unwrap();
    outcomes(&table, count(&[1], 0));
    up_to_date(&table);
    fs::rename(&log, &aside).unwrap();
    fs::write(&log, "in the way").unwrap();
    let mut taken = 1;
    let error = loop {
        match wait(table.write(count(&[taken % 3], taken)).get()) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        if taken == 5 {
            let error = wait(table.archive().get()).unwrap_err();
            assert!(causes(&error).contains("the offline log cannot be written"), "{}", causes(&error));
        }
    };
    assert!(taken > 10, "{taken} rows were taken");
    let problem = error.to_string();
    assert!(problem.starts_with("the offline log is behind by more than 3000 bytes"), "{problem}");
    assert!(problem.contains("cannot be written"), "{problem}");
    assert!(table.counts().archive_failures > 0);
    assert!(wait(table.problem().get()).unwrap().unwrap().contains("the offline log is behind"));
    assert_eq!(table.len(), 3, "reads go on");
    let receipt = erase(&table, 0);
    assert_eq!(receipt.log_rows, None);
    assert!(receipt.beyond[0].starts_with("the offline log"), "{receipt:?}");
    fs::remove_file(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    up_to_date(&table);
    assert_eq!(wait(table.problem().get()).unwrap(), None);
    outcomes(&table, count(&[1], taken));
    assert_eq!(up_to_date(&table), taken as u64 + 2);
    let rows = logged(table.log().unwrap());
    let expected = (0..=taken).map(|n| (n as u64 + 1, if n == 0 || n == taken { 1 } else { n % 3 }, n));
    assert_eq!(rows, expected.filter(|(_, key, _)| *key != 0).collect::<Vec<_>>());
}

fn spec(value: serde_json::Value) -> FeatureSetSpec {
    serde_json::from_value(value).unwrap()
}

fn open_spec(
    root: &Path,
    stores: &Stores,
    name: &str,
    spec: &FeatureSetSpec,
) -> Result<Arc<WritableSet>, String> {
    match spec.open(name, root, stores, &LoadOptions::default()) {
        Ok(StoredSet::Writable(set)) => Ok(set),
        Ok(StoredSet::Loaded(_)) => Err("takes no rows".into()),
        Err(error) => Err(causes(&error)),
    }
}

#[test]
fn a_set_of_a_project_names_its_log() {
    let folder = tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("cards.csv"), "id,at,n\n1,10,5\n2,20,6\n").unwrap();
    let cards = |online: serde_json::Value| {
        spec(json!({
            "keys": ["id"], "source": "cards.csv", "timestamp": "at", "types": {"at": "int64"}, "online": online,
            "offline": {"path": "features/cards"},
        }))
    };
    let stores = Stores::new();
    let set = open_spec(root, &stores, "cards", &cards(json!({"local": {"path": "state/cards"}}))).unwrap();
    assert_eq!(wait(set.archive().get()).unwrap().unwrap().next, 3);
    let other = open_spec(root, &stores, "other", &cards(json!({"local": {"path": "state/other"}})));
    assert!(
        other.unwrap_err().contains("`offline`: feature set `cards` has the same log; name another path")
    );
    drop(set);
    let log = wait(Log::local(root.join("features/cards"), LogSchema::of(&counts()).unwrap())).unwrap();
    assert_eq!(log.rows(), 2);

    let refused = |spec: &FeatureSetSpec| open_spec(root, &Stores::new(), "cards", spec).unwrap_err();
    expect!["feature set `cards`: `offline` needs `online: {local: …}`, whose log holds each row until it is kept; memory has none to read"]
        .assert_eq(&refused(&cards(json!("memory"))));
    expect!["feature set `cards`: `offline` needs `online: {local: …}`, whose log holds each row until it is kept; redb state/cards.redb has none to read"]
        .assert_eq(&refused(&cards(json!({"redb": {"path": "state/cards.redb"}}))));
    let loaded = spec(json!({"keys": ["id"], "source": "cards.csv", "offline": {"path": "features/cards"}}));
    expect!["feature set `cards`: `offline` keeps what a set takes, and this one takes nothing; give it `online: {local: …}`"]
        .assert_eq(&refused(&loaded));
    let outside = spec(json!({
        "keys": ["id"], "source": "cards.csv", "timestamp": "at", "online": {"local": {"path": "state/c"}},
        "offline": {"path": "../cards"},
    }));
    assert!(refused(&outside).contains("`offline`: "), "{}", refused(&outside));
}

#[test]
fn a_log_of_another_set_is_refused() {
    let folder = tempdir().unwrap();
    let archive = archive(folder.path(), &plain_set());
    let error = LocalTable::open_archived(&folder.path().join("store"), counts(), options(None), archive)
        .unwrap_err();
    assert_eq!(error.to_string(), "the offline log of feature set `counts` has other columns than the set");
}

/// Keys of every kind and values of every type come back from the store's log as they were.
#[test]
fn rows_of_every_type_are_in_the_log_as_they_were_written() {
    let folder = tempdir().unwrap();
    let stamp = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("UTC".into()));
    let set = FeatureSet::builder("types")
        .key("small", DataType::Int8)
        .key("name", DataType::Utf8)
        .key("wide", DataType::UInt64)
        .key("yes", DataType::Boolean)
        .key("day", DataType::Date32)
        .key("stamp", stamp.clone())
        .feature("f", DataType::Float32)
        .feature("t", DataType::Utf8)
        .feature("b", DataType::Boolean)
        .feature("s", stamp.clone())
        .build()
        .unwrap();
    let cast = |array: ArrayRef, to: &DataType| arrow::compute::cast(&array, to).unwrap();
    let ints = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let columns = [
        ("small", cast(ints(&[-128, 7]), &DataType::Int8)),
        ("name", Arc::new(arrow::array::StringArray::from(vec!["", "zwölf"])) as ArrayRef),
        ("wide", Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX, 0]))),
        ("yes", Arc::new(arrow::array::BooleanArray::from(vec![true, false]))),
        ("day", Arc::new(arrow::array::Date32Array::from(vec![-1, 20_000]))),
        ("stamp", cast(ints(&[-5, 1_764_000_000_000]), &stamp)),
        ("f", Arc::new(arrow::array::Float32Array::from(vec![Some(-0.0), None]))),
        ("t", Arc::new(arrow::array::StringArray::from(vec![None, Some("long enough not to be short")]))),
        ("b", Arc::new(arrow::array::BooleanArray::from(vec![None, Some(true)]))),
        ("s", cast(Arc::new(Int64Array::from(vec![Some(-7), None])), &stamp)),
    ];
    let rows =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let archive = archive(folder.path(), &set);
    let table = LocalTable::open_archived(&folder.path().join("store"), set, options(None), archive).unwrap();
    let write = Changes::new(rows.clone(), vec![1, 2]).created(Int64Array::from(vec![None, Some(5)]));
    let write = write.valid_to(Int64Array::from(vec![Some(9), None]));
    assert_eq!(outcomes(&table, write), [Outcome::Taken, Outcome::Taken]);
    up_to_date(&table);
    let batches = wait(table.log().unwrap().read()).unwrap();
    let found = concat_batches(&batches[0].schema(), &batches).unwrap();
    for (number, column) in rows.columns().iter().enumerate() {
        assert!(found.column(number).as_ref() == column.as_ref(), "{:?}", found.column(number));
    }
    let times = |name: &str| {
        let column = found.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>();
        column.iter().collect::<Vec<_>>()
    };
    assert_eq!(times("_event"), [Some(1), Some(2)]);
    assert_eq!(times("_created"), [None, Some(5)]);
    assert_eq!(times("_valid_to"), [Some(9), None]);
}
