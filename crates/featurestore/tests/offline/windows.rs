//! Sets with windows: a training set has the bits that the online store answered, and those of the definition.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array,
    },
    compute::{concat, concat_batches, kernels::cmp::gt, take},
    datatypes::{DataType, Int64Type},
};
use datafusion::datasource::MemTable;
use expect_test::expect;
use millstream_featurestore::{
    AggregateSpec, Changes, FeatureSet, FeatureSetBuilder, Gap, Ledger, LocalOptions, LocalTable,
    OnlineTable, Outcome, Pick, Policy, Predicate, Read, Selection, Version, WritableTable,
    offline::{AsOf, Knowledge, Log, LogSchema, OfflineLimits, OfflineSet, OfflineStore, Spine, Vector},
    wait,
};
use millstream_graph::rows;
use proptest::{collection::vec, option::weighted, prelude::*};
use serde_json::json;
use tempfile::tempdir;

use super::{block, cards, causes, set_of, shown, spine, store, training};

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;

pub(crate) const KEYS: i64 = 3;

/// Sliding, fixed and stepped windows, with and without `where`, over numbers and texts.
fn specs() -> Vec<AggregateSpec> {
    let every = json!(["count", "sum", "min", "max", "avg", "stddev", "first", "last", "distinct", "p50"]);
    let specs = json!([
        {"column": "amount", "functions": every, "windows": ["10m", "1h", "1d"]},
        {"column": "units", "functions": every, "windows": ["1h"], "where": "units > 1", "name": "some"},
        {"column": "tier", "functions": ["count", "first", "last", "distinct"], "windows": ["2h"]},
        {"column": "amount", "functions": every, "windows": ["1h", "1d"], "fixed": true, "name": "fixed"},
        {"column": "units", "functions": ["sum", "last"], "windows": ["3h"], "period": "30m", "name": "stepped"},
        {"functions": ["count"], "windows": ["10m"], "where": "units > 0"},
    ]);
    serde_json::from_value(specs).unwrap()
}

/// Knows the expressions `units > N`; of 13 units it cannot say whether they are more.
pub(crate) fn compile(text: &str) -> Result<Arc<dyn Predicate>, String> {
    let bound: i64 =
        text.strip_prefix("units > ").and_then(|bound| bound.parse().ok()).ok_or("no such expression")?;
    let keep = move |events: &RecordBatch| -> Result<BooleanArray, Box<dyn std::error::Error + Send + Sync>> {
        let units = events.column_by_name("units").ok_or("no `units`")?.as_primitive::<Int64Type>();
        if units.iter().any(|units| units == Some(13)) {
            return Err("13 units".into());
        }
        Ok(gt(units, &Int64Array::new_scalar(bound))?)
    };
    Ok(Arc::new(keep))
}

/// Events of cards: `amount` is a feature too, `units` and `tier` are of the windows alone.
pub(crate) fn events_set(lateness: i64) -> FeatureSet {
    let set = FeatureSet::builder("events")
        .key("id", DataType::Int64)
        .key("part", DataType::Utf8)
        .feature("amount", DataType::Float64)
        .event_column("units", DataType::Int64)
        .event_column("tier", DataType::Utf8);
    windowed(set, lateness)
}

fn windowed(set: FeatureSetBuilder, lateness: i64) -> FeatureSet {
    set.aggregates(specs(), Duration::from_micros(lateness as u64)).build_with(&compile).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) key: i64,
    pub(crate) at: i64,
    pub(crate) created: Option<i64>,
    pub(crate) amount: Option<f64>,
    pub(crate) units: Option<i64>,
    pub(crate) tier: Option<&'static str>,
}

fn column<T: FromIterator<V>, V>(events: &[Event], value: impl Fn(&Event) -> V) -> T {
    events.iter().map(value).collect()
}

/// Keys and columns of events.
pub(crate) fn batch(events: &[Event]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(column::<Int64Array, _>(events, |event| Some(event.key)))),
        ("part", Arc::new(column::<StringArray, _>(events, |event| Some(format!("k{}", event.key))))),
        ("amount", Arc::new(column::<Float64Array, _>(events, |event| event.amount))),
        ("units", Arc::new(column::<Int64Array, _>(events, |event| event.units))),
        ("tier", Arc::new(column::<StringArray, _>(events, |event| event.tier))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// The same with times, as a log takes them.
fn logged(events: &[Event]) -> RecordBatch {
    let columns = batch(events);
    let schema = columns.schema();
    let named =
        schema.fields().iter().map(|field| field.name().as_str()).zip(columns.columns().iter().cloned());
    let times: [(&str, ArrayRef); 2] = [
        ("_event", Arc::new(column::<Int64Array, _>(events, |event| Some(event.at)))),
        ("_created", Arc::new(column::<Int64Array, _>(events, |event| event.created))),
    ];
    let all = named.chain(times).map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(all).unwrap()
}

pub(crate) fn changes(events: &[Event]) -> Changes {
    let at: Int64Array = column(events, |event| Some(event.at));
    Changes::new(batch(events), at).created(column::<Int64Array, _>(events, |event| event.created))
}

/// Values whose sums are rounded unless they are exact, and ties.
pub(crate) fn any_event(at: impl Strategy<Value = i64>) -> impl Strategy<Value = Event> {
    let amount = weighted(
        0.9,
        prop_oneof![(-9_i64..9).prop_map(|tenths| tenths as f64 / 10.0), Just(1e17), Just(f64::NAN),],
    );
    let tier = weighted(0.8, prop_oneof![Just("gold"), Just("base"), Just("")]);
    (0..KEYS, at, amount, weighted(0.9, -2_i64..5), tier).prop_map(|(key, at, amount, units, tier)| Event {
        key,
        at,
        created: None,
        amount,
        units,
        tier,
    })
}

/// An event of key 0 that counts in every window.
pub(crate) fn plain_event(at: i64) -> Event {
    Event { key: 0, at, created: None, amount: Some(1.5), units: Some(3), tier: Some("gold") }
}

/// All features of a key at a time, as the online store reads them.
pub(crate) fn online(table: &dyn OnlineTable, key: i64, at: i64) -> Vec<ArrayRef> {
    let set = table.set();
    let picks = 0..set.features().len();
    let picks = picks.map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null }).collect();
    let selection = Selection::new(set, &[0, 1], picks).unwrap();
    let asked = rows! { id: [key], part: [format!("k{key}")] };
    match table.read_at(&asked, &selection, at) {
        Read::Ready(found) => found.unwrap().columns,
        Read::Waits(found) => wait(found).unwrap().columns,
    }
}

/// The training set of these keys and times, its features alone.
pub(crate) async fn offline(
    set: &OfflineSet,
    asked: &[(i64, i64)],
    partitions: usize,
    batch: usize,
) -> Vec<ArrayRef> {
    let keys: Vec<i64> = asked.iter().map(|(key, _)| *key).collect();
    let parts: Vec<String> = keys.iter().map(|key| format!("k{key}")).collect();
    let times: Vec<i64> = asked.iter().map(|(_, at)| *at).collect();
    let rows = rows! { id: keys, part: parts, asked_at: times };
    let starts = (0..rows.num_rows()).step_by(batch);
    let batches = starts.map(|start| rows.slice(start, batch.min(rows.num_rows() - start))).collect();
    let spine = Spine::batches(rows.schema(), batches, "asked_at");
    let vector = Vector::new("v").features([format!("{}.*", set.name())]);
    let rows = training(&store(partitions, vec![set.clone()]), &vector, &spine).await.unwrap();
    assert_eq!(rows.num_rows(), asked.len());
    rows.columns()[3..].to_vec()
}

/// Columns bit for bit, in the order in which they were asked for.
pub(crate) fn assert_same(
    set: &FeatureSet,
    asked: &[(i64, i64)],
    found: &[ArrayRef],
    expected: &[Vec<ArrayRef>],
) {
    for (number, feature) in set.features().iter().enumerate() {
        let parts: Vec<&dyn arrow::array::Array> =
            expected.iter().map(|columns| columns[number].as_ref()).collect();
        let expected = concat(&parts).unwrap();
        for (row, asked) in asked.iter().enumerate() {
            let (found, expected) = (found[number].slice(row, 1), expected.slice(row, 1));
            assert!(
                found.as_ref() == expected.as_ref(),
                "`{}` of (key, time) {asked:?}: {found:?} and not {expected:?}",
                feature.name
            );
        }
    }
}

/// What happens to a store: time passes, then events of some time before come, or a key is read.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Write(Vec<Event>),
    Read(i64),
}

/// Acts, each later than the one before by as much.
pub(crate) fn acts(most: usize) -> impl Strategy<Value = Vec<(i64, Act)>> {
    let delay = prop_oneof![3 => Just(0), 2 => 0..20 * MINUTE, 1 => 0..3 * HOUR];
    let act = prop_oneof![
        3 => vec(any_event(delay), 1..4).prop_map(Act::Write),
        2 => (0..KEYS + 1).prop_map(Act::Read),
    ];
    vec((prop_oneof![Just(1), 1..MINUTE, 1..2 * HOUR, Just(30 * HOUR)], act), 1..most)
}

/// Events that come at `now`: their times are delays in [`acts`].
pub(crate) fn arrived(events: &[Event], now: i64) -> Vec<Event> {
    events.iter().map(|event| Event { at: now - event.at, created: Some(now), ..event.clone() }).collect()
}

pub(crate) const START: i64 = 1_764_000_000 * SECOND;

/// Whatever else is asked in between, in whatever order.
fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&at| (at as u64 + 1).wrapping_mul(seed | 1) % 1009);
    order.into_iter().map(|at| items[at].clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn training_sets_have_the_bits_that_were_served(
        acts in acts(60),
        lateness in prop_oneof![Just(0), Just(30 * MINUTE), Just(48 * HOUR)],
        ttl in weighted(0.5, prop_oneof![Just(HOUR), Just(26 * HOUR)]),
        partitions in 1_usize..5,
        batches in (1_usize..30, 1_usize..20),
        seed in any::<u64>(),
    ) {
        let set = events_set(lateness);
        let ttl = ttl.map(|ttl| Duration::from_micros(ttl as u64));
        let table = LocalTable::in_memory(set.clone(), LocalOptions { ttl, ..LocalOptions::default() });
        let (mut now, mut taken, mut reads) = (START, Vec::new(), Vec::new());
        for (passed, act) in &acts {
            now += passed;
            match act {
                Act::Read(key) => reads.push(((*key, now), online(&table, *key, now))),
                Act::Write(events) => {
                    let events = arrived(events, now);
                    let written = wait(table.write(changes(&events)).get()).unwrap();
                    let kept = events.into_iter().zip(&written.rows);
                    taken.extend(kept.filter(|(_, outcome)| **outcome == Outcome::Taken).map(|(event, _)| event));
                }
            }
        }
        let reads = shuffled(&reads, seed);
        let (asked, served): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
        prop_assume!(!asked.is_empty());
        block(async {
            let folder = tempdir().unwrap();
            let log = Log::local(folder.path(), LogSchema::of(&set).unwrap()).await.unwrap();
            for (number, part) in taken.chunks(batches.0).enumerate() {
                log.append((number * batches.0) as u64, &logged(part)).await.unwrap();
            }
            let as_of = AsOf { ttl, ..AsOf::default() };
            let history = OfflineSet::of(&set, log.table()).unwrap().as_of(as_of);
            assert_same(&set, &asked, &offline(&history, &asked, partitions, batches.1).await, &served);
            log.compact(40).await.unwrap();
            let history = OfflineSet::of(&set, log.table()).unwrap().as_of(as_of);
            assert_same(&set, &asked, &offline(&history, &asked, 5 - partitions, batches.1).await, &served);
        });
    }
}

/// The definition: the events that count, put into a ledger of their own in the order of time.
fn defined(set: &FeatureSet, events: &[Event], as_of: AsOf, (key, at): (i64, i64)) -> Vec<ArrayRef> {
    let of = set.windows().unwrap();
    let counts = |(_, event): &(usize, &Event)| {
        let known = match as_of.knowledge {
            Knowledge::Hindsight => true,
            Knowledge::AsKnown { lag } => {
                event.created.is_none_or(|created| created + lag.as_micros() as i64 <= at)
            }
        };
        event.key == key && known && if as_of.exclusive { event.at < at } else { event.at <= at }
    };
    let mut counted: Vec<_> = events.iter().enumerate().filter(counts).collect();
    counted.sort_by_key(|(sequence, event)| (event.at, event.created, *sequence));
    let nulls = |columns: &[millstream_featurestore::Column]| {
        columns.iter().map(|column| arrow::array::new_null_array(&column.data_type, 1)).collect::<Vec<_>>()
    };
    let Some((_, newest)) = counted.last() else { return nulls(set.features()) };
    let mut ledger = Ledger::default();
    for (sequence, event) in &counted {
        let prepared = of.prepare(&batch(std::slice::from_ref(event))).unwrap();
        let version = Version { event: event.at, created: event.created, sequence: *sequence as u64 };
        assert_eq!(ledger.add(of, &prepared, 0, version), millstream_featurestore::Added::Taken);
    }
    let fresh = as_of.ttl.is_none_or(|ttl| at - newest.at <= ttl.as_micros() as i64);
    let own: ArrayRef = Arc::new(Float64Array::from(vec![newest.amount.filter(|_| fresh)]));
    std::iter::once(own).chain(of.read([(&ledger, at)]).unwrap().arrays).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn windows_hold_the_events_that_had_happened_and_were_known(
        mut events in vec(any_event((0..400_i64).prop_map(|step| START + step * 6 * MINUTE)), 1..120),
        created in vec(weighted(0.8, -10..200_i64), 120),
        asked in vec((0..KEYS + 1, 0..500_i64), 1..60),
        exclusive in any::<bool>(),
        ttl in weighted(0.3, 0..20_u64),
        lag in prop_oneof![Just(None), (0_u64..8).prop_map(Some)],
        partitions in 1_usize..5,
        batches in (1_usize..50, 1_usize..20),
    ) {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (event, created) in events.iter_mut().zip(created) {
            event.created = created.map(|steps| event.at + steps * 6 * MINUTE);
        }
        let asked: Vec<_> = asked.into_iter().map(|(key, step)| (key, START + step * 6 * MINUTE)).collect();
        let knowledge = lag.map_or(Knowledge::Hindsight, |lag| Knowledge::AsKnown { lag: hours(lag) });
        let as_of = AsOf { exclusive, ttl: ttl.map(hours), knowledge };
        // What was too late for a store is not in its log; of a log all counts, whatever the lateness.
        let set = events_set(0);
        let expected: Vec<_> = asked.iter().map(|asked| defined(&set, &events, as_of, *asked)).collect();
        block(async {
            let folder = tempdir().unwrap();
            let log = Log::local(folder.path(), LogSchema::of(&set).unwrap()).await.unwrap();
            for (number, part) in events.chunks(batches.0).enumerate() {
                log.append((number * batches.0) as u64, &logged(part)).await.unwrap();
            }
            let history = OfflineSet::of(&set, log.table()).unwrap().as_of(as_of);
            assert_same(&set, &asked, &offline(&history, &asked, partitions, batches.1).await, &expected);
        });
    }
}

fn spends() -> FeatureSetBuilder {
    let spec = r#"{"column": "amount", "functions": ["sum", "count", "avg"], "windows": ["1h"]}"#;
    FeatureSet::builder("spends")
        .key("card", DataType::Int64)
        .feature("country", DataType::Utf8)
        .event_column("amount", DataType::Float64)
        .timestamp("at", DataType::Int64)
        .aggregates([serde_json::from_str(spec).unwrap()], Duration::from_secs(60))
}

fn spend_rows() -> RecordBatch {
    rows! {
        card: [7_i64, 7, 8, 7],
        country: ["FR", "US", "DE", "FR"],
        amount: [1.0, 2.0, 4.0, 8.0],
        at: [0, 30 * MINUTE, 10 * MINUTE, 80 * MINUTE],
    }
}

fn table_of(rows: &RecordBatch) -> Arc<MemTable> {
    Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap())
}

/// Windows of one set, plain rows of another, a label that is a window, and policies, in one training set.
#[test]
fn windows_stand_beside_plain_features_and_may_be_the_label() {
    block(async {
        let folder = tempdir().unwrap();
        let rows = rows! { card: [7_i64], avg: [0.5], tier: ["a"], _event: [10 * MINUTE] };
        let plain = set_of(&folder, cards(), rows).await;
        let spends = OfflineSet::of_table(&spends().build().unwrap(), table_of(&spend_rows())).unwrap();
        let vector = Vector::new("v")
            .features([
                "spends.amount_sum_1h AS spent",
                "cards.tier",
                "spends.country",
                "spends.amount_count_1h",
            ])
            .features(["spends.amount_avg_1h AS mean"])
            .label("spends.amount_count_1h", Duration::from_secs(3600));
        // The label has the name of a feature, which takes another below.
        let asked = spine(rows! {
            card: [7_i64, 7, 7, 9, 8],
            at: [5 * MINUTE, 40 * MINUTE, 10 * HOUR, 0, 10 * MINUTE],
        });
        let error =
            training(&store(2, vec![plain.clone(), spends.clone()]), &vector, &asked).await.unwrap_err();
        assert!(error.to_string().contains("a column `amount_count_1h` is there already"), "{error}");
        let vector = Vector::new("v")
            .features(["spends.amount_sum_1h AS spent", "cards.tier", "spends.country"])
            .features(["spends.amount_avg_1h AS mean", "spends.amount_count_1h AS n"])
            .nulls_of("mean", Policy::Default(0.into()))
            .missing_of("n", Policy::Default((-1).into()))
            .max_staleness(Duration::from_secs(3600))
            .label("spends.amount_count_1h", Duration::from_secs(3600));
        for partitions in [1, 3] {
            let store = store(partitions, vec![plain.clone(), spends.clone()]);
            let rows = training(&store, &vector, &asked).await.unwrap();
            expect![[r#"
                +------+-------------+-------+------+---------+------+----+-----------------+
                | card | at          | spent | tier | country | mean | n  | amount_count_1h |
                +------+-------------+-------+------+---------+------+----+-----------------+
                | 7    | 300000000   | 1.0   |      | FR      | 1.0  | 1  | 1               |
                | 7    | 2400000000  | 3.0   | a    | US      | 1.5  | 2  | 1               |
                | 7    | 36000000000 |       |      |         | 0.0  | 0  | 0               |
                | 9    | 0           |       |      |         |      | -1 |                 |
                | 8    | 600000000   | 4.0   |      | DE      | 4.0  | 1  | 1               |
                +------+-------------+-------+------+---------+------+----+-----------------+"#]]
            .assert_eq(&shown(&rows));
        }
    });
}

/// Online the event is refused, so no window and no row is of it.
#[test]
fn an_event_of_which_a_filter_cannot_say_whether_it_counts_is_none() {
    block(async {
        let set = events_set(0);
        let event = |at, units| Event {
            key: 1,
            at,
            created: None,
            amount: Some(at as f64),
            units: Some(units),
            tier: None,
        };
        let folder = tempdir().unwrap();
        let log = Log::local(folder.path(), LogSchema::of(&set).unwrap()).await.unwrap();
        log.append(0, &logged(&[event(1, 2), event(2, 13), event(3, 2)])).await.unwrap();
        let history = OfflineSet::of(&set, log.table()).unwrap();
        let found = offline(&history, &[(1, 2), (1, 3)], 2, 1).await;
        let expected: Vec<_> =
            [2, 3].map(|at| defined(&set, &[event(1, 2), event(3, 2)], AsOf::default(), (1, at))).into();
        assert_same(&set, &[(1, 2), (1, 3)], &found, &expected);
    });
}

#[test]
fn the_events_of_a_set_with_windows_are_a_table_to_sql_and_its_windows_are_not() {
    block(async {
        let set = spends().build().unwrap();
        let mut store = OfflineStore::new(&OfflineLimits::default()).unwrap();
        store.insert(OfflineSet::of_table(&set, table_of(&spend_rows())).unwrap());
        let query = "SELECT card, sum(amount) AS spent FROM spends GROUP BY card ORDER BY card";
        let rows =
            datafusion::physical_plan::common::collect(store.query(query).await.unwrap()).await.unwrap();
        let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
        expect![[r#"
            +------+-------+
            | card | spent |
            +------+-------+
            | 7    | 11.0  |
            | 8    | 4.0   |
            +------+-------+"#]]
        .assert_eq(&shown(&rows));
        store.insert_vector(Vector::new("countries").features(["spends.country"])).unwrap();
        let error = store.insert_vector(Vector::new("v").features(["spends.*"])).unwrap_err();
        assert!(
            error.to_string().starts_with("feature `amount_sum_1h` of set `spends` is a window"),
            "{error}"
        );
    });
}

#[test]
fn a_set_with_windows_says_what_its_rows_lack() {
    let rows = rows! { card: [7_i64], country: ["FR"], amuont: [1.0], at: [0_i64] };
    let error = OfflineSet::of_table(&spends().build().unwrap(), table_of(&rows)).unwrap_err();
    assert_eq!(error.to_string(), "feature set `spends`: no column `amount`; did you mean `amuont`?");
    let spec = r#"{"functions": ["count"], "windows": ["1h"]}"#;
    let timeless = FeatureSet::builder("t").key("card", DataType::Int64);
    let timeless =
        timeless.aggregates([serde_json::from_str(spec).unwrap()], Duration::ZERO).build().unwrap();
    let error = OfflineSet::of_table(&timeless, table_of(&rows)).unwrap_err();
    assert!(error.to_string().contains("has windows, and no event timestamp"), "{error}");
}

#[test]
fn events_that_take_more_memory_than_allowed_are_refused() {
    block(async {
        let set = OfflineSet::of_table(&spends().build().unwrap(), table_of(&spend_rows())).unwrap();
        let mut store =
            OfflineStore::new(&OfflineLimits { memory: 200, ..OfflineLimits::default() }).unwrap();
        store.insert(set);
        let asked = spine(rows! { card: [7_i64], at: [1_i64] });
        let error = training(&store, &Vector::new("v").features(["spends.*"]), &asked).await.unwrap_err();
        assert!(causes(&error).contains("Resources exhausted"), "{}", causes(&error));
    });
}

/// As many questions as events of one key: quadratic work would not end.
#[test]
fn a_hot_key_takes_no_quadratic_work() {
    block(async {
        let many = 200_000_i64;
        let at: Vec<i64> = (0..many).map(|row| row * SECOND).collect();
        let rows = rows! {
            card: vec![7_i64; many as usize],
            country: vec!["FR"; many as usize],
            amount: vec![1.0; many as usize],
            at: at.clone(),
        };
        let set = OfflineSet::of_table(&spends().build().unwrap(), table_of(&rows)).unwrap();
        let backwards: Vec<i64> = at.iter().rev().copied().collect();
        let asked = spine(rows! { card: vec![7_i64; many as usize], at: backwards });
        let vector = Vector::new("v").features(["spends.amount_count_1h"]);
        let rows = training(&store(2, vec![set]), &vector, &asked).await.unwrap();
        let counts = rows.column(2).as_primitive::<Int64Type>();
        assert!((0..many).all(|row| counts.value((many - 1 - row) as usize) == (row + 1).min(3601)));
    });
}

/// Of what a store took, which events are in windows must not depend on the order in which keys come.
#[test]
fn keys_do_not_see_each_other() {
    block(async {
        let set = events_set(HOUR);
        let event = |key: i64, at: i64| Event {
            key,
            at: START + at,
            created: None,
            amount: Some(1.0),
            units: Some(at),
            tier: Some("gold"),
        };
        let events: Vec<_> = (0..60).map(|n| event(n % KEYS, (n * 7 % 50) * MINUTE)).collect();
        let folder = tempdir().unwrap();
        let log = Log::local(folder.path(), LogSchema::of(&set).unwrap()).await.unwrap();
        log.append(0, &logged(&events)).await.unwrap();
        let history = OfflineSet::of(&set, log.table()).unwrap();
        let asked: Vec<_> = (0..100).map(|n| (n % (KEYS + 1), START + n * MINUTE)).collect();
        let all = offline(&history, &asked, 3, 9).await;
        let mut by_key: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, (key, _)) in asked.iter().enumerate() {
            by_key.entry(*key).or_default().push(row as u32);
        }
        for places in by_key.into_values() {
            let alone: Vec<_> = places.iter().map(|&row| asked[row as usize]).collect();
            let places = UInt32Array::from(places);
            let expected: Vec<_> = all.iter().map(|column| take(column, &places, None).unwrap()).collect();
            assert_eq!(offline(&history, &alone, 1, 100).await, expected);
        }
    });
}
