//! Sets with windows: events in, windows out, as a ledger by itself and a loop over all events have them.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    task::{Context, Waker},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch},
    datatypes::DataType,
};
use expect_test::expect;
use millstream_featurestore::{
    Added, Answer, Changes, Clock, Durability, FeatureSet, FeatureSetBuilder, Ledger, LocalOptions,
    LocalTable, Positions, Predicate, ProfileError, RedbOptions, RedbTable, WhenFull,
};
use millstream_graph::rows;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{Subject, ids};
use crate::windows::{
    Event, Feature, HOUR, MINUTE, add, aggregates, batch, bits, brute, compile, feature, read,
};

const KEYS: i64 = 3;

/// The events of the windows' own tests, by a key.
fn set(specs: &Value, lateness: i64) -> FeatureSet {
    let specs: Vec<_> = serde_json::from_value(specs.clone()).unwrap();
    let set = FeatureSet::builder("events").key("id", DataType::Int64).feature("amount", DataType::Float64);
    let set = set.event_column("units", DataType::Int64).event_column("tier", DataType::Utf8);
    set.aggregates(specs, Duration::from_micros(lateness as u64)).build_with(&compile).unwrap()
}

fn changes(events: &[(i64, Event)], offset: u64) -> Changes {
    let keys: ArrayRef = Arc::new(events.iter().map(|(key, _)| *key).collect::<Int64Array>());
    let rows: Vec<Event> = events.iter().map(|(_, event)| event.clone()).collect();
    let columns = batch(&rows);
    let named = columns.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let named = named.into_iter().zip(columns.columns().iter().cloned());
    let rows = RecordBatch::try_from_iter(std::iter::once(("id".to_owned(), keys)).chain(named)).unwrap();
    let event: Int64Array = events.iter().map(|(_, event)| event.at()).collect();
    let created: Int64Array = events.iter().map(|(_, event)| event.version.created).collect();
    let offsets = (offset..).take(events.len()).collect();
    Changes::new(rows, event).created(created).at(Positions::new("s", 0, offsets))
}

/// What a set with windows must hold of each key: the events that were taken, by their definition.
#[derive(Default)]
struct Log {
    taken: BTreeMap<i64, Vec<Event>>,
    sequence: u64,
}

impl Log {
    /// Takes an event; what must become of it.
    fn write(&mut self, key: i64, event: &Event, lateness: i64) -> &'static str {
        self.sequence += 1;
        let known = self.taken.entry(key).or_default();
        if known.iter().any(|known| event.at() < known.at() - lateness) {
            return "too late";
        }
        let mut event = event.clone();
        event.version.sequence = self.sequence;
        known.push(event);
        "taken"
    }

    /// All features of a key at a time, from a fresh replay in order of time: the latest amount, then the windows.
    fn read(&self, specs: &Value, lateness: i64, key: i64, at: i64) -> Vec<Feature> {
        let of = aggregates(specs, lateness).unwrap();
        let nulls = vec![Feature::Null; of.columns().len() + 1];
        let Some(events) = self.taken.get(&key) else { return nulls };
        let mut events = events.clone();
        events.sort_by_key(|event| event.version);
        let Some(last) = events.last() else { return nulls };
        let own = last.amount.filter(|_| last.at() <= at).map_or(Feature::Null, Feature::Float);
        if at < last.at() - lateness {
            return std::iter::once(own).chain(nulls.into_iter().skip(1)).collect();
        }
        let mut ledger = Ledger::default();
        assert!(add(&of, &mut ledger, &events, 7).iter().all(|added| *added == Added::Taken));
        let windows = read(&of, &ledger, at);
        brute::check(&of, &windows, &brute::brute(specs, &events, at));
        std::iter::once(own).chain(windows).collect()
    }
}

fn compare(store: &Subject, log: &Log, specs: &Value, lateness: i64, at: i64) {
    let keys: Vec<i64> = (0..KEYS).collect();
    let found = store.found(&ids(&keys), Some(at), |selection| selection);
    for key in keys {
        let row = found.columns.iter().map(|column| feature(column.slice(key as usize, 1).as_ref()));
        let expected = log.read(specs, lateness, key, at);
        assert_eq!(bits(&row.collect::<Vec<_>>()), bits(&expected), "key {key} at {at}");
    }
}

#[derive(Clone, Debug)]
enum Then {
    Nothing,
    Again,
    Snapshot,
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn there_is_no_skew_between_windows_that_are_served_and_a_fresh_replay_of_the_log(
        events in brute::events(60),
        delays in vec(prop_oneof![2 => Just(0), 1 => 0..2 * HOUR], 1..20),
        lateness in prop_oneof![Just(0), Just(30 * MINUTE), Just(2 * HOUR), Just(48 * HOUR)],
        keys in vec(0..KEYS, 60),
        parts in vec((1..9_usize, prop_oneof![
            4 => Just(Then::Nothing), 1 => Just(Then::Again), 2 => Just(Then::Snapshot), 1 => Just(Then::Reopen),
        ]), 60),
        ahead in vec(-3 * HOUR..26 * HOUR, 8),
    ) {
        let (specs, dir) = (brute::specs(), tempfile::tempdir().unwrap());
        let open = || {
            let options = LocalOptions { segment_bytes: 900, durability: Durability::System, ..LocalOptions::default() };
            Arc::new(LocalTable::open(dir.path(), set(&specs, lateness), options).unwrap())
        };
        let (mut table, mut log, mut offset) = (open(), Log::default(), 0);
        let arrivals: Vec<_> = keys.into_iter().zip(brute::late(&events, &delays)).collect();
        let (mut rest, mut ahead) = (&arrivals[..], ahead.iter().cycle());
        for (size, then) in parts {
            let (part, more) = rest.split_at(size.min(rest.len()));
            let store = Subject::over(Arc::clone(&table) as _, ());
            let expected: Vec<_> = part.iter().map(|(key, event)| log.write(*key, event, lateness)).collect();
            prop_assert_eq!(store.write(changes(part, offset)), expected.join(" "));
            match then {
                Then::Again => {
                    let again = store.write(changes(part, offset));
                    prop_assert_eq!(again, vec!["repeated"; part.len()].join(" "));
                }
                Then::Snapshot => {
                    // It is written while others write.
                    let Answer::Waits(mut begun) = table.snapshot() else { panic!("it is kept") };
                    let _ = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
                Then::Reopen => {
                    drop((store, table));
                    table = open();
                }
                Then::Nothing => {}
            }
            (rest, offset) = (more, offset + part.len() as u64);
            let newest = part.iter().map(|(_, event)| event.at()).max().unwrap_or(0);
            let store = Subject::over(Arc::clone(&table) as _, ());
            compare(&store, &log, &specs, lateness, newest + ahead.next().unwrap());
            if rest.is_empty() {
                break;
            }
        }
        let newest = events.last().map_or(0, Event::at);
        drop(table);
        let store = Subject::over(open(), ());
        for at in [newest - lateness, newest, newest + HOUR, newest + 24 * HOUR] {
            compare(&store, &log, &specs, lateness, at);
        }
    }
}

/// Sums and counts of numbers over two seconds, a second late at most.
fn sums() -> FeatureSetBuilder {
    let spec = json!({"column": "n", "functions": ["sum", "count"], "windows": ["2s"]});
    let set = FeatureSet::builder("sums").key("id", DataType::Int64).feature("tag", DataType::Utf8);
    let specs: Vec<_> = vec![serde_json::from_value(spec).unwrap()];
    set.event_column("n", DataType::Int64).aggregates(specs, Duration::from_secs(1))
}

const SECOND: i64 = 1_000_000;

/// An event of [`sums`]: key, number, second.
fn sum(events: &[(i64, i64, i64)]) -> Changes {
    let column = |of: fn(&(i64, i64, i64)) -> i64| events.iter().map(of).collect::<Vec<_>>();
    let tags: Vec<_> = events.iter().map(|event| format!("tag {}", event.1)).collect();
    Changes::new(
        rows! { id: column(|event| event.0), n: column(|event| event.1), tag: tags },
        column(|event| event.2 * SECOND),
    )
}

fn memory(set: FeatureSet, options: LocalOptions) -> (Subject, Arc<LocalTable>) {
    let table = Arc::new(LocalTable::in_memory(set, options));
    (Subject::over(Arc::clone(&table) as _, ()), table)
}

#[test]
fn what_is_written_are_events_and_what_is_read_are_the_latest_row_and_the_windows_at_a_time() {
    let options = LocalOptions { clock: Clock::new(|| 11 * SECOND), ..LocalOptions::default() };
    let (store, table) = memory(sums().build().unwrap(), options);
    let names: Vec<_> = store.table.set().features().iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["tag", "n_sum_2s", "n_count_2s"]);
    assert_eq!(
        store.write(sum(&[(1, 1, 10), (1, 2, 11), (1, 4, 10), (1, 8, 9)])),
        "taken taken taken too late"
    );
    assert_eq!(store.read_at(&ids(&[1, 2]), Some(11 * SECOND)), "tag 2 7 3 | -");
    assert_eq!(store.read(&ids(&[1])), "tag 2 7 3");
    assert_eq!(store.read_at(&ids(&[1]), Some(13 * SECOND)), "tag 2 2 1");
    assert_eq!(store.read_at(&ids(&[1]), Some(99 * SECOND)), "tag 2 null 0");
    // The row is yet to happen, and the windows are known; before the horizon they are not.
    assert_eq!(store.read_at(&ids(&[1]), Some(10 * SECOND)), "~null 5 2");
    assert_eq!(store.read_at(&ids(&[1]), Some(9 * SECOND)), "~");
    assert_eq!(store.write(sum(&[(1, i64::MAX, 11)])), "taken");
    assert_eq!(store.read(&ids(&[1])), format!("tag {} null 4", i64::MAX));
    let counts = table.counts();
    assert_eq!((counts.too_late, counts.not_a_number, counts.overflows), (1, 0, 1));
    assert!(matches!(store.table.profile(1), Err(ProfileError::Window)));
}

#[test]
fn an_event_of_which_it_cannot_be_said_whether_it_counts_is_refused_and_no_other() {
    let even = |_: &str| -> Result<Arc<dyn Predicate>, String> {
        let keep = |events: &RecordBatch| -> Result<BooleanArray, Box<dyn std::error::Error + Send + Sync>> {
            let units = events["units"].as_any().downcast_ref::<Int64Array>().ok_or("no units")?;
            let odd = units.values().contains(&13);
            if odd { Err("13 is odd".into()) } else { Ok(vec![true; units.len()].into()) }
        };
        Ok(Arc::new(keep))
    };
    let spec = serde_json::from_value(json!({"functions": ["count"], "windows": ["1s"], "where": "even"}));
    let set = FeatureSet::builder("s").key("id", DataType::Int64).event_column("units", DataType::Int64);
    let set = set.aggregates([spec.unwrap()], Duration::ZERO);
    expect!["feature set `s`: aggregate `count`: `where: even`: nothing here reads expressions"]
        .assert_eq(&set.clone().build().unwrap_err().to_string());
    let (store, _) = memory(set.build_with(&even).unwrap(), LocalOptions::default());
    let changes = Changes::new(rows! { id: [1_i64, 1, 1], units: [1_i64, 13, 2] }, vec![5, 5, 5]);
    expect!["taken refused(`where: even`: 13 is odd) taken"].assert_eq(&store.write(changes));
    assert_eq!(store.read_at(&ids(&[1]), Some(5)), "2");
}

#[test]
fn a_definition_with_windows_names_every_problem_at_once() {
    let set = sums()
        .feature("n", DataType::Int64)
        .event_column("n_sum_2s", DataType::new_list(DataType::Int8, true));
    expect![[
        r"feature set `sums`: event column `n_sum_2s` is List(Int8); a feature is a number, a string, a truth value, a date or a timestamp; column `n` is named twice among keys and features; column `n_sum_2s` is named twice among keys and features"
    ]]
    .assert_eq(&set.build().unwrap_err().to_string());
}

#[test]
fn other_aggregates_are_refused_when_a_folder_is_opened_and_another_lateness_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        |set: FeatureSetBuilder| LocalTable::open(dir.path(), set.build().unwrap(), LocalOptions::default());
    let store = Subject::new(open(sums()).unwrap(), ());
    store.write(sum(&[(1, 1, 10)]));
    drop(store);
    let more =
        serde_json::from_value(json!({"column": "n", "functions": ["max"], "windows": ["2s"]})).unwrap();
    let error = open(sums().aggregates([more], Duration::ZERO)).unwrap_err().to_string();
    assert!(error.contains("another definition of the set: it had windows over aggregates "), "{error}");
    let store = Subject::new(open(sums().aggregates([], Duration::from_secs(5))).unwrap(), ());
    assert_eq!(store.write(sum(&[(1, 2, 8)])), "taken");
}

#[test]
fn of_an_erased_keys_events_no_file_holds_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let spec = json!({"column": "town", "functions": ["last"], "windows": ["1h"]});
    let set = FeatureSet::builder("s").key("id", DataType::Int64).event_column("town", DataType::Utf8);
    let set = || set.clone().aggregates([serde_json::from_value(spec.clone()).unwrap()], Duration::ZERO);
    let open = || LocalTable::open(dir.path(), set().build().unwrap(), LocalOptions::default()).unwrap();
    let table = open();
    let store = Subject::over(Arc::new(table), ());
    let write = |id: i64, town: &str| store.write(Changes::new(rows! { id: [id], town: [town] }, vec![5]));
    assert_eq!((write(1, "Atlantis"), write(2, "Paris")), ("taken".into(), "taken".into()));
    let holds = |what: &str| {
        let files = fs::read_dir(dir.path()).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(what.len()).any(|window| window == what.as_bytes()))
    };
    assert!(holds("Atlantis"));
    assert_eq!(store.get(store.table.erase(ids(&[1]))).unwrap().removed, 1);
    assert!(!holds("Atlantis") && holds("Paris"));
    assert_eq!(store.read_at(&ids(&[1, 2]), Some(5)), "- | Paris");
    drop(store);
    let store = Subject::new(open(), ());
    assert_eq!(store.read_at(&ids(&[1, 2]), Some(5)), "- | Paris");
    store.get(store.table.purge()).unwrap();
    assert!(!holds("Paris"));
}

#[test]
fn memory_is_bounded_with_the_events_and_a_key_goes_when_nothing_is_left_of_it() {
    let now = Arc::new(AtomicI64::new(0));
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let clock = Arc::clone(&now);
        let options = LocalOptions {
            ttl: Some(Duration::from_secs(5)),
            clock: Clock::new(move || clock.load(SeqCst)),
            max_bytes: Some(200_000),
            when_full: WhenFull::EvictExpired,
            durability: Durability::System,
            ..LocalOptions::default()
        };
        Arc::new(LocalTable::open(dir.path(), sums().build().unwrap(), options).unwrap())
    };
    let mut table = open();
    let store = Subject::over(Arc::clone(&table) as _, ());
    let full = (0..100_000).find(|_| store.write(sum(&[(1, 1, 10)])) != "taken").unwrap();
    // An event is two words, and a leaf may be half full.
    assert!((2_000..12_000).contains(&full), "{full}");
    assert!(table.bytes() < 260_000, "{}", table.bytes());
    assert_eq!(store.read_at(&ids(&[1]), Some(10 * SECOND)), format!("tag 1 {full} {full}"));
    drop(store);
    for (at, taken) in [(12, false), (20, true)] {
        now.store(at * SECOND, SeqCst);
        let store = Subject::over(Arc::clone(&table) as _, ());
        assert_eq!(store.write(sum(&[(2, 1, 20)])) == "taken", taken, "at {at}");
        drop((store, table));
        table = open();
        assert_eq!(table.len(), 1);
    }
    // What was known of the key before is gone, so windows there would lack events.
    let store = Subject::over(table, ());
    assert_eq!(store.write(sum(&[(1, 1, 18), (1, 1, 19)])), "too late taken");
    assert_eq!(store.read_at(&ids(&[1, 2]), Some(20 * SECOND)), "tag 1 1 1 | tag 1 1 1");
}

#[test]
fn a_key_with_more_events_than_a_frame_holds_comes_back_from_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let options = LocalOptions { durability: Durability::System, ..LocalOptions::default() };
        LocalTable::open(dir.path(), sums().build().unwrap(), options).unwrap()
    };
    let table = Arc::new(open());
    let store = Subject::over(Arc::clone(&table) as _, ());
    let events = vec![(1, 3, 10); 100_000];
    for _ in 0..4 {
        store.write(sum(&events));
    }
    store.write(sum(&[(2, 5, 10)]));
    store.get(table.snapshot()).unwrap();
    drop((store, table));
    let table = open();
    assert_eq!((table.recovery().snapshot_rows, table.recovery().log_rows), (2, 0));
    let store = Subject::new(table, ());
    assert_eq!(store.read_at(&ids(&[1, 2]), Some(11 * SECOND)), "tag 3 1200000 400000 | tag 5 5 1");
}

#[test]
fn stores_that_keep_no_windows_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.redb");
    let error = RedbTable::open(&path, sums().build().unwrap(), RedbOptions::default()).unwrap_err();
    expect!["feature set `sums` has windows, which this store does not keep; use the in-process store"]
        .assert_eq(&error.to_string());
    assert!(!path.exists());
}
