//! A store outside the process is asked for each key once, and every row is answered as by a local one.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use arrow::{array::RecordBatch, datatypes::DataType};
use millstream_featurestore::{
    Enrich, FeatureSet, MemoryStore, OnlineStore, OnlineTable, Policy, Profile, ProfileError, Read, Selection,
};
use millstream_graph::{FailedRows, Input, Request, Rows, RunCx, RunId, Step, Token, Work, rows};
use proptest::{collection::vec, option, prelude::*, sample::select};
use smallvec::smallvec;

use crate::store;

/// The tables of a local store, as if they were far away.
struct Remote {
    local: Arc<MemoryStore>,
    asked: Arc<AtomicUsize>,
}

impl OnlineStore for Remote {
    fn names(&self) -> Vec<String> {
        self.local.names()
    }
    fn table(&self, set: &str) -> Option<Arc<dyn OnlineTable>> {
        Some(Arc::new(RemoteTable { local: self.local.table(set)?, asked: Arc::clone(&self.asked) }))
    }
}

struct RemoteTable {
    local: Arc<dyn OnlineTable>,
    asked: Arc<AtomicUsize>,
}

impl OnlineTable for RemoteTable {
    fn set(&self) -> &Arc<FeatureSet> {
        self.local.set()
    }
    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        self.local.profile(feature)
    }
    fn is_local(&self) -> bool {
        false
    }
    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        assert_eq!(batch.num_columns(), self.set().keys().len(), "the key columns alone");
        let rows: HashSet<String> =
            (0..batch.num_rows()).map(|row| format!("{:?}", batch.slice(row, 1))).collect();
        assert_eq!(rows.len(), batch.num_rows(), "each key once");
        self.asked.fetch_add(batch.num_rows(), SeqCst);
        let batch = batch.clone();
        Read::Waits(Box::pin(async move {
            match self.local.read(&batch, selection) {
                Read::Ready(found) => found,
                Read::Waits(found) => found.await,
            }
        }))
    }
}

fn policies() -> impl Strategy<Value = [Policy; 4]> {
    let policy = || select(vec![Policy::Fail, Policy::Null, Policy::Mean, Policy::Default(7.into())]);
    [policy(), policy(), policy(), policy()]
}

/// What a step answers: its rows, the rows that failed, and why.
fn answer(step: &dyn Step, batch: &RecordBatch) -> (Option<Rows>, Option<Box<FailedRows>>) {
    step.signature(&[batch.schema()]).unwrap();
    let cx = RunCx::new(RunId(0), Request::default(), batch.num_rows(), std::time::Instant::now);
    let result = match step.call(Input::new(smallvec![Token::Rows(Rows::whole(batch.clone()))]), &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(future) => match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("nothing waits for anything"),
        },
    };
    let (ports, failed, _) = result.unwrap().into_parts();
    (ports.into_iter().next().map(|(_, rows)| rows), failed)
}

fn agree(
    step: impl Fn(Arc<dyn OnlineStore>) -> Enrich,
    local: Arc<MemoryStore>,
    batch: &RecordBatch,
) -> usize {
    let asked = Arc::new(AtomicUsize::new(0));
    let remote = Remote { local: Arc::clone(&local), asked: Arc::clone(&asked) };
    let (near, near_failed) = answer(&step(local), batch);
    let (far, far_failed) = answer(&step(Arc::new(remote)), batch);
    let told = |rows: &Option<Rows>| rows.as_ref().map(|rows| (rows.batch().clone(), rows.origin().clone()));
    assert_eq!(told(&near), told(&far));
    let failed =
        |failed: Option<Box<FailedRows>>| failed.map(|failed| (failed.rows.batch().clone(), failed.messages));
    assert_eq!(failed(near_failed), failed(far_failed));
    asked.load(SeqCst)
}

#[test]
fn each_key_is_asked_for_once_at_each_time() {
    let set = FeatureSet::builder("cards").key("card", DataType::UInt32).feature("n", DataType::Int64);
    let known = rows! { card: [0u32, 1], n: [Some(1i64), None] };
    let step = |store| Enrich::new(store, "cards").at("at").missing(Policy::Null);
    let asked = rows! {
        card: [0u32, 1, 0, 0, 1, 1],
        at: [Some(5i64), Some(5), Some(5), Some(6), None, None],
    };
    // The row without a time is asked for without a key.
    assert_eq!(agree(step, store(set, &[known]), &asked), 4);
}

proptest! {
    #[test]
    fn each_key_is_asked_for_once_and_every_row_is_answered(
        keys in vec(option::of(-1i64..6), 1..40), [missing, nulls, of_n, of_mean] in policies(),
    ) {
        let set = FeatureSet::builder("cards")
            .key("card", DataType::UInt32)
            .feature("mean", DataType::Float64)
            .feature("n", DataType::Int64);
        let known = rows! {
            card: [0u32, 1, 2, 3], mean: [Some(0.5f64), None, Some(-0.0), Some(2.5)], n: [Some(1i64), Some(2), None, Some(4)],
        };
        let step = |store| {
            Enrich::new(store, "cards")
                .missing(missing.clone())
                .nulls(nulls.clone())
                .missing_of("n", of_n.clone())
                .nulls_of("mean", of_mean.clone())
        };
        let distinct = keys.iter().collect::<HashSet<_>>().len();
        let rows = keys.len() as i64;
        let asked = agree(step, store(set, &[known]), &rows! { id: (0..rows).collect::<Vec<_>>(), card: keys });
        prop_assert_eq!(asked, distinct);
    }

    #[test]
    fn several_keys_are_one(
        keys in vec((0i64..3, option::of(select(vec!["", "a", "ab"]))), 1..30), missing in select(vec![Policy::Fail, Policy::Null]),
    ) {
        let set = FeatureSet::builder("pairs")
            .key("a", DataType::Int64)
            .key("b", DataType::Utf8)
            .feature("tier", DataType::Utf8)
            .feature("on", DataType::Boolean);
        let known = rows! {
            a: [0i64, 0, 1, 2], b: ["", "a", "ab", "a"], tier: [Some("x"), None, Some(""), Some("y")], on: [true, false, true, false],
        };
        // No row has a key of which a part is null, so that those are one.
        let distinct = keys.iter().map(|(a, b)| b.map(|b| (a, b))).collect::<HashSet<_>>().len();
        let batch = rows! {
            b: keys.iter().map(|key| key.1).collect::<Vec<_>>(), a: keys.iter().map(|key| key.0).collect::<Vec<_>>(),
        };
        let asked = agree(|store| Enrich::new(store, "pairs").missing(missing.clone()), store(set, &[known]), &batch);
        prop_assert_eq!(asked, distinct);
    }
}
