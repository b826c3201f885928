//! Streams into sets: every event once, whatever breaks.

mod backfill;
mod intake;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::DataType};
use bytes::Bytes;
use millstream_featurestore::{
    Column, Durability, FeatureSet, Gap, LocalOptions, LocalTable, Pick, Read, Selection, TimeColumns,
    WritableSet, WritableTable,
    stream::{Decode, Decoded, Feed, Intake, Left, Meter, PutAside},
};
use millstream_graph::rows;
use serde_json::Value;
use tokio::sync::watch;

/// The event time of all events: which of a key's events counts is which was taken last.
const AT: i64 = 7;

/// A set that counts and sums its events.
fn events() -> FeatureSet {
    let aggregates = [
        r#"{"functions": ["count"], "windows": ["1h"]}"#,
        r#"{"column": "n", "functions": ["sum"], "windows": ["1h"]}"#,
    ];
    FeatureSet::builder("events")
        .key("id", DataType::Int64)
        .feature("n", DataType::Int64)
        .timestamp("at", DataType::Int64)
        .aggregates(aggregates.map(|text| serde_json::from_str(text).unwrap()), Duration::from_secs(3600))
        .build()
        .unwrap()
}

fn over(table: impl WritableTable) -> Arc<WritableSet> {
    let event = Column { name: "at".into(), data_type: DataType::Int64 };
    Arc::new(WritableSet::new(Arc::new(table), TimeColumns { event, created: None, valid_to: None }))
}

fn in_memory() -> Arc<WritableSet> {
    over(LocalTable::in_memory(events(), LocalOptions::default()))
}

fn in_folder(dir: &Path) -> Arc<WritableSet> {
    let options = LocalOptions { durability: Durability::System, ..LocalOptions::default() };
    over(LocalTable::open(dir, events(), options).unwrap())
}

/// What is known of a key: its last event, how many there were, and their sum.
fn known(set: &WritableSet, id: i64) -> String {
    let of = set.set();
    let picks = (0..of.features().len()).map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null });
    let selection = Selection::new(of, &[0], picks.collect()).unwrap();
    let Read::Ready(found) = set.table().read_at(&rows! { id: [id] }, &selection, AT) else { unreachable!() };
    let found = found.unwrap();
    let value =
        |column: &arrow::array::ArrayRef| arrow::util::display::array_value_to_string(column, 0).unwrap();
    found.columns.iter().map(value).collect::<Vec<_>>().join(" ")
}

/// What is known of a key after events with these values, each once.
fn sums(values: impl IntoIterator<Item = i64>) -> String {
    let values: Vec<i64> = values.into_iter().collect();
    match values.last() {
        Some(last) => format!("{last} {} {}", values.len(), values.iter().sum::<i64>()),
        None => "  ".to_owned(),
    }
}

fn mark(set: &WritableSet, source: &str, partition: u32) -> Option<u64> {
    millstream_featurestore::wait(set.table().mark(source, partition).get()).unwrap()
}

fn event(id: i64, n: i64) -> Bytes {
    format!("{{\"id\":{id},\"n\":{n}}}").into()
}

/// Objects or arrays of objects with `id` and `n`.
struct Json;

impl Decode for Json {
    fn decode(&self, messages: &[Bytes]) -> Decoded {
        let (mut ids, mut values, mut of, mut unread) = (vec![], vec![], vec![], vec![]);
        for (at, message) in messages.iter().enumerate() {
            let rows: Result<Vec<(i64, i64)>, String> = serde_json::from_slice::<Value>(message)
                .map_err(|error| error.to_string())
                .and_then(|value| if let Value::Array(rows) = value { Ok(rows) } else { Ok(vec![value]) })
                .and_then(|rows| {
                    rows.iter()
                        .map(|row| Some((row["id"].as_i64()?, row["n"].as_i64()?)))
                        .collect::<Option<_>>()
                        .ok_or("no row".into())
                });
            match rows {
                Err(reason) => unread.push((at, reason)),
                Ok(rows) => rows.into_iter().for_each(|(id, n)| {
                    ids.push(id);
                    values.push(n);
                    of.push(at);
                }),
            }
        }
        let times = vec![AT; ids.len()];
        let rows: RecordBatch = rows! { id: ids, n: values, at: times };
        Decoded { rows, messages: of, unread }
    }
}

/// Waits for streams to come to something.
struct Watch {
    lag: watch::Sender<u64>,
    dealt: watch::Sender<u64>,
}

impl Watch {
    fn new() -> Arc<Self> {
        Arc::new(Self { lag: watch::Sender::new(u64::MAX), dealt: watch::Sender::new(0) })
    }

    /// All messages there are have been dealt with.
    async fn caught_up(&self) {
        self.lag.subscribe().wait_for(|lag| *lag == 0).await.unwrap();
    }

    /// So many messages have been dealt with since the stream was started.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    async fn dealt(&self, count: u64) {
        self.dealt.subscribe().wait_for(|dealt| *dealt >= count).await.unwrap();
    }
}

impl Meter for Watch {
    fn messages(&self, _: &str, _: &'static str, count: u64) {
        self.dealt.send_modify(|dealt| *dealt += count);
    }

    fn lag(&self, _: &str, messages: u64) {
        self.lag.send_replace(messages);
    }

    fn ended(&self, _: &str) {}
}

/// Keeps what was put aside.
#[derive(Default)]
struct Kept(Mutex<Vec<(u64, String)>>);

impl PutAside for Kept {
    fn put_aside(&self, _: &WritableSet, left: &[Left]) -> Result<(), String> {
        let mut kept = self.0.lock().unwrap();
        kept.extend(
            left.iter().map(|left| (left.offset, String::from_utf8_lossy(&left.payload).into_owned())),
        );
        Ok(())
    }
}

/// Runs an intake until it has dealt with all there is.
async fn catch_up<F: Feed>(intake: Intake<F>) {
    let watch = Watch::new();
    let intake = intake.meter(Arc::clone(&watch) as _);
    tokio::select! {
        never = intake.run() => match never {},
        () = watch.caught_up() => {}
    }
}
