//! The rows of all times as an online table: what it finds at a time is what the store that serves found then.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayData, Int64Array, RecordBatch},
    datatypes::DataType,
};
use datafusion::datasource::MemTable;
use millstream_featurestore::{
    AggregateSpec, Changes, FeatureSet, Found, Gap, LocalOptions, LocalTable, OnlineTable, Outcome, Pick,
    Read, Selection, WritableTable,
    offline::{AsOf, Log, LogSchema, OfflineLimits, OfflineSet, OfflineStore, PastTable},
};
use millstream_graph::rows;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;
use tempfile::tempdir;

use super::{block, cards, set_of, store, windows::SECOND};

/// A row that arrives, so long after the one before it and after its own event.
#[derive(Clone, Debug)]
struct Arrival {
    card: i64,
    later: i64,
    late: i64,
    avg: Option<f64>,
    tier: Option<&'static str>,
    lives: Option<i64>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let avg = option::of(select(vec![0.0, -0.0, f64::NAN, 1.5, -7.25]));
    let tier = option::of(select(vec!["", "gold", "b"]));
    let one = (0..3_i64, 0..3_i64, 0..9_i64, avg, tier, option::of(0..12_i64));
    let arrival = |(card, later, late, avg, tier, lives): (_, i64, i64, _, _, Option<i64>)| {
        let lives = lives.map(|lives| lives * SECOND);
        Arrival { card, later: later * SECOND, late: late * SECOND, avg, tier, lives }
    };
    vec(one.prop_map(arrival), 1..60)
}

/// The rows with their times in microseconds, as a store and a log take them.
fn rows_of(arrivals: &[Arrival], now: &[i64]) -> RecordBatch {
    let event: Vec<i64> = arrivals.iter().zip(now).map(|(row, now)| now - row.late).collect();
    let end = arrivals.iter().zip(&event).map(|(row, event)| row.lives.map(|lives| event + lives));
    let end: Vec<_> = end.collect();
    rows! {
        card: arrivals.iter().map(|row| row.card).collect::<Vec<_>>(),
        avg: arrivals.iter().map(|row| row.avg).collect::<Vec<_>>(),
        tier: arrivals.iter().map(|row| row.tier).collect::<Vec<_>>(),
        _event: event,
        _created: now.to_vec(),
        _valid_to: end,
    }
}

fn ints(rows: &RecordBatch, name: &str) -> Int64Array {
    rows.column_by_name(name).unwrap().as_any().downcast_ref::<Int64Array>().unwrap().clone()
}

fn selection(set: &FeatureSet) -> Selection {
    let pick = |feature| Pick { feature, missing: Gap::Null, null: Gap::Null };
    Selection::new(set, &[0], (0..set.features().len()).map(pick).collect()).unwrap()
}

fn found(read: Read<'_>) -> Found {
    match read {
        Read::Ready(found) => found.unwrap(),
        Read::Waits(_) => panic!("a table in memory does not wait"),
    }
}

fn bits(found: &Found, row: usize) -> Vec<ArrayData> {
    found.columns.iter().map(|column| column.slice(row, 1).to_data()).collect()
}

async fn past(set: OfflineSet) -> PastTable {
    store(1, vec![set]).past("cards").await.unwrap().unwrap()
}

/// Cards, maybe with windows over their events.
fn set(windows: bool) -> FeatureSet {
    let set = cards().timestamp("at", DataType::Int64);
    let specs = json!([
        {"column": "avg", "functions": ["count", "sum", "avg", "stddev", "max", "last"], "windows": ["3s", "1h"]},
        {"column": "tier", "functions": ["count", "first"], "windows": ["4s"], "fixed": true},
    ]);
    let specs: Vec<AggregateSpec> = serde_json::from_value(specs).unwrap();
    let lateness = Duration::from_micros(5 * SECOND as u64);
    if windows { set.aggregates(specs, lateness).build().unwrap() } else { set.build().unwrap() }
}

/// What the store answered at the end of every moment, key by key, and the rows that it took.
struct Served {
    answers: Vec<Found>,
    cards: Vec<i64>,
    times: Vec<i64>,
    taken: Vec<usize>,
}

async fn serve(set: &FeatureSet, ttl: Option<Duration>, arrivals: &[Arrival], now: &[i64]) -> Served {
    let selection = selection(set);
    let online = LocalTable::in_memory(set.clone(), LocalOptions { ttl, ..LocalOptions::default() });
    let mut served = Served { answers: Vec::new(), cards: Vec::new(), times: Vec::new(), taken: Vec::new() };
    for (at, row) in arrivals.iter().enumerate() {
        let rows = rows_of(std::slice::from_ref(row), &now[at..=at]);
        let changes = Changes::new(rows.clone(), ints(&rows, "_event"));
        let changes = changes.created(ints(&rows, "_created")).valid_to(ints(&rows, "_valid_to"));
        let written = online.write(changes).get().await.unwrap();
        served.taken.extend(matches!(written.rows[0], Outcome::Taken | Outcome::Older).then_some(at));
        // Requests of this moment come after all that is known in it.
        if now.get(at + 1) != Some(&now[at]) {
            for card in 0..4_i64 {
                served.answers.push(found(online.read_at(&rows! { card: [card] }, &selection, now[at])));
                served.cards.push(card);
                served.times.push(now[at]);
            }
        }
    }
    served
}

proptest! {
    #[test]
    fn the_past_finds_what_the_store_found_then(
        arrivals in arrivals(), ttl in option::of(0..8_u64), size in 1..9_usize, windows: bool,
    ) {
        let mut clock = 1000 * SECOND;
        let now: Vec<i64> = arrivals.iter().map(|row| { clock += row.later; clock }).collect();
        let ttl = ttl.map(|seconds| Duration::from_micros(seconds * SECOND as u64));
        let set = set(windows);
        let selection = selection(&set);
        block(async {
            let served = serve(&set, ttl, &arrivals, &now).await;
            let folder = tempdir().unwrap();
            let log = Log::local(folder.path(), LogSchema::of(&set).unwrap()).await.unwrap();
            for (part, taken) in served.taken.chunks(size).enumerate() {
                let rows: Vec<_> = taken.iter().map(|&at| arrivals[at].clone()).collect();
                let now: Vec<_> = taken.iter().map(|&at| now[at]).collect();
                log.append((part * size) as u64, &rows_of(&rows, &now)).await.unwrap();
            }
            let offline = OfflineSet::of(&set, log.table()).unwrap();
            let past = past(offline.as_of(AsOf { ttl, ..AsOf::default() })).await;
            let asked = rows! { card: served.cards };
            let times = Int64Array::from(served.times);
            let all = found(past.read_each(&asked, &selection, &times));
            for (row, then) in served.answers.iter().enumerate() {
                let alone = found(past.read_at(&asked.slice(row, 1), &selection, times.value(row)));
                assert_eq!(bits(&alone, 0), bits(then, 0), "row {row} at {}", times.value(row));
                assert_eq!(alone.missing, then.missing, "row {row}");
                assert_eq!(bits(&all, row), bits(then, 0), "row {row} among all");
            }
        });
    }
}

#[test]
fn a_row_without_a_time_and_a_lookup_without_one_find_nothing() {
    block(async {
        let folder = tempdir().unwrap();
        let rows = rows! { card: [7_i64], avg: [1.5], tier: ["a"], _event: [100_i64] };
        let past = past(set_of(&folder, cards(), rows).await).await;
        let selection = selection(past.set());
        let asked = rows! { card: [Some(7_i64), Some(7), None, Some(8)] };
        let times = Int64Array::from(vec![Some(100), None, Some(100), Some(100)]);
        assert_eq!(found(past.read_each(&asked, &selection, &times)).missing.as_slice(), [1, 2, 3]);
        let Read::Ready(Err(error)) = past.read(&asked, &selection) else { panic!("there is no present") };
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "features of the past are read for a time; name the column that has it");
        assert!(store(1, vec![]).past("cards").await.unwrap().is_none());
    });
}

#[test]
fn means_are_of_the_rows_that_count_now() {
    block(async {
        let folder = tempdir().unwrap();
        let rows = rows! {
            card: [7_i64, 7, 8], avg: [Some(100.0), Some(1.0), Some(3.0)], tier: ["a", "b", "c"],
            _event: [1_i64, 2, 1],
        };
        let past = past(set_of(&folder, cards(), rows).await).await;
        assert_eq!(past.profile(0).unwrap().numbers.unwrap().statistics.mean, Some(2.0));
    });
}

#[test]
fn rows_that_take_more_memory_than_there_is_are_refused() {
    let rows =
        rows! { card: (0..10_000_i64).collect::<Vec<_>>(), avg: vec![1.0; 10_000], tier: vec!["a"; 10_000] };
    let set = cards().build().unwrap();
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    let limits = OfflineLimits { memory: 100_000, ..OfflineLimits::default() };
    let mut store = OfflineStore::new(&limits).unwrap();
    store.insert(OfflineSet::of_table(&set, Arc::new(table)).unwrap());
    let error = block(store.past("cards")).unwrap_err().to_string();
    assert!(error.contains("rows of feature set `cards`"), "{error}");
}
