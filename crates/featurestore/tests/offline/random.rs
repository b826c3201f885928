//! Random logs and spines: the answer does not depend on how they are cut, filed, compacted or split.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Int64Type},
};
use millstream_featurestore::{
    FeatureSet, FeatureSetBuilder,
    offline::{AsOf, Knowledge, Log, OfflineSet, Spine, Vector},
};
use proptest::prelude::*;
use tempfile::tempdir;

use super::{block, log, store, training};

/// One case: rows of a log, rows of a spine, and what counts.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) log: Vec<Row>,
    pub(crate) spine: Vec<(Option<i64>, Option<i64>)>,
    pub(crate) as_of: AsOf,
}

/// A row of a log: key, event, created, end.
pub(crate) type Row = (i64, i64, Option<i64>, Option<i64>);

/// Times of cases are hours, so that they fall on many days.
pub(crate) const HOUR: i64 = 3_600_000_000;

pub(crate) fn any_case() -> impl Strategy<Value = Case> {
    use proptest::{collection::vec, option::weighted};
    let hour = || (0_i64..96).prop_map(|hour| hour * HOUR);
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let row = (0_i64..6, hour(), weighted(0.7, hour()), weighted(0.2, hour()));
    let lag = prop_oneof![Just(None), (0_u64..8).prop_map(Some)];
    let as_of = (any::<bool>(), weighted(0.5, 0_u64..48), lag).prop_map(move |(exclusive, ttl, lag)| AsOf {
        exclusive,
        ttl: ttl.map(hours),
        knowledge: lag.map_or(Knowledge::Hindsight, |lag| Knowledge::AsKnown { lag: hours(lag) }),
    });
    let spine = vec((weighted(0.9, 0_i64..7), weighted(0.9, hour())), 0..60);
    (vec(row, 0..150), spine, as_of, any::<bool>()).prop_map(|(mut log, spine, as_of, ends)| {
        if !ends {
            log.iter_mut().for_each(|row| row.3 = None);
        }
        Case { log, spine, as_of }
    })
}

pub(crate) fn set() -> FeatureSetBuilder {
    FeatureSet::builder("set")
        .key("a", DataType::Int64)
        .key("b", DataType::Utf8)
        .feature("id", DataType::Int64)
}

fn ints(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn texts(keys: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(keys.map(|key| key.map(|key| format!("k{key}"))).collect::<StringArray>())
}

/// Rows `range` of a case's log; `id` numbers them.
pub(crate) fn log_batch(case: &Case, range: std::ops::Range<usize>) -> RecordBatch {
    let rows = || case.log[range.clone()].iter();
    RecordBatch::try_from_iter_with_nullable([
        ("a", ints(rows().map(|row| Some(row.0))), true),
        ("b", texts(rows().map(|row| Some(row.0))), true),
        ("id", ints(range.clone().map(|row| Some(row as i64))), true),
        ("_event", ints(rows().map(|row| Some(row.1))), true),
        ("_created", ints(rows().map(|row| row.2)), true),
        ("_valid_to", ints(rows().map(|row| row.3)), true),
    ])
    .unwrap()
}

pub(crate) fn spine_batch(case: &Case) -> RecordBatch {
    let rows = || case.spine.iter();
    RecordBatch::try_from_iter_with_nullable([
        ("a", ints(rows().map(|row| row.0)), true),
        ("b", texts(rows().map(|row| row.0)), true),
        ("at", ints(rows().map(|row| row.1)), true),
    ])
    .unwrap()
}

/// Appends a case's log in batches of `batch` rows.
pub(crate) async fn fill(log: &Log, case: &Case, batch: usize) {
    let mut first = 0;
    while first < case.log.len() {
        let last = (first + batch).min(case.log.len());
        log.append(first as u64, &log_batch(case, first..last)).await.unwrap();
        first = last;
    }
}

/// The `id` for each spine row.
pub(crate) async fn answers(log: &Log, case: &Case, partitions: usize, batch: usize) -> Vec<Option<i64>> {
    let set = OfflineSet::of_log("set", log.table()).as_of(case.as_of);
    let rows = spine_batch(case);
    let starts = (0..rows.num_rows()).step_by(batch);
    let batches = starts.map(|start| rows.slice(start, batch.min(rows.num_rows() - start))).collect();
    let spine = Spine::batches(rows.schema(), batches, "at");
    let rows = training(&store(partitions, vec![set]), &Vector::new("v").features(["set.id"]), &spine).await;
    rows.unwrap().column_by_name("id").unwrap().as_primitive::<Int64Type>().iter().collect()
}

/// The definition, row by row.
fn expected(case: &Case) -> Vec<Option<i64>> {
    let micros = |duration: Duration| duration.as_micros() as i64;
    let answer = |&(key, at): &(Option<i64>, Option<i64>)| {
        let (key, at) = (key?, at?);
        let counts = |row: &&(usize, &Row)| {
            let (_, (of, event, created, _)) = row;
            let known = match case.as_of.knowledge {
                Knowledge::AsKnown { lag } => created.is_none_or(|created| created + micros(lag) <= at),
                Knowledge::Hindsight => true,
            };
            *of == key && known && if case.as_of.exclusive { *event < at } else { *event <= at }
        };
        let rows: Vec<_> = case.log.iter().enumerate().collect();
        let winner =
            rows.iter().filter(counts).max_by_key(|(id, row)| (row.1, row.2.unwrap_or(i64::MIN), *id));
        let (id, (_, event, _, end)) = winner?;
        let fresh = case.as_of.ttl.is_none_or(|ttl| at - event <= micros(ttl));
        (fresh && end.is_none_or(|end| at <= end)).then_some(*id as i64)
    };
    case.spine.iter().map(answer).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_training_set_does_not_depend_on_batches_parts_or_compaction(
        case in any_case(),
        batches in (1_usize..80, 1_usize..40),
        partitions in 1_usize..6,
    ) {
        block(async {
            let folder = tempdir().unwrap();
            let log = log(&folder, set()).await;
            fill(&log, &case, batches.0).await;
            let expected = expected(&case);
            assert_eq!(answers(&log, &case, partitions, batches.1).await, expected);
            log.compact(50).await.unwrap();
            assert_eq!(answers(&log, &case, 7 - partitions, batches.1).await, expected, "compacted");
        });
    }
}
