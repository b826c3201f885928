//! Both methods against a plain loop, and fixed cases for each rule.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, Int64Array, StringArray, UInt64Array},
    datatypes::DataType,
};
use proptest::prelude::*;

use super::*;
use crate::offline::Knowledge;

/// A row of a log: key, event, created, sequence, end.
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    key: Option<i64>,
    event: i64,
    created: Option<i64>,
    sequence: u64,
    end: Option<i64>,
}

/// A row of a spine: key, time.
type Asked = (Option<i64>, Option<i64>);

fn happened(key: i64, event: i64) -> Event {
    Event { key: Some(key), event, ..Event::default() }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn ttl(ttl: u64) -> AsOf {
    AsOf { ttl: Some(micros(ttl)), ..AsOf::default() }
}

/// What the kernel must answer, by the definition alone.
fn expected(log: &[Event], spine: &[Asked], as_of: AsOf) -> Vec<Option<u32>> {
    let answer = |&(key, at): &Asked| {
        let (key, at) = (key?, at?);
        let counts = |row: &&(usize, &Event)| {
            let (_, Event { key: known, event, created, .. }) = row;
            let happened = if as_of.exclusive { *event < at } else { *event <= at };
            let was_known = match as_of.knowledge {
                Knowledge::Hindsight => true,
                Knowledge::AsKnown { lag } => created
                    .is_none_or(|created| i128::from(created) + lag.as_micros() as i128 <= i128::from(at)),
            };
            *known == Some(key) && happened && was_known
        };
        let rows: Vec<_> = log.iter().enumerate().collect();
        let winner = rows.iter().filter(counts).max_by_key(|(row, event)| {
            (event.event, event.created.unwrap_or(i64::MIN), event.sequence, *row)
        });
        let (row, event) = winner?;
        let age = i128::from(at) - i128::from(event.event);
        let fresh = as_of.ttl.is_none_or(|ttl| age <= ttl.as_micros() as i128);
        (fresh && event.end.is_none_or(|end| at <= end)).then_some(*row as u32)
    };
    spine.iter().map(answer).collect()
}

fn ints(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

/// The key column: one integer, or text beside it.
fn keys(values: impl Iterator<Item = Option<i64>> + Clone, two: bool) -> Vec<ArrayRef> {
    let text: ArrayRef =
        Arc::new(values.clone().map(|key| key.map(|key| format!("k{key}"))).collect::<StringArray>());
    if two { vec![ints(values), text] } else { vec![ints(values)] }
}

fn log_rows(log: &[Event], batch: usize, two: bool) -> LogRows {
    let types = [DataType::Int64, DataType::Utf8];
    let mut rows = LogRows::new(&types[..if two { 2 } else { 1 }]).unwrap();
    for part in log.chunks(batch) {
        let keys = keys(part.iter().map(|row| row.key), two);
        let event = ints(part.iter().map(|row| Some(row.event)));
        let created = ints(part.iter().map(|row| row.created));
        let sequence: ArrayRef = Arc::new(UInt64Array::from_iter_values(part.iter().map(|row| row.sequence)));
        let end = ints(part.iter().map(|row| row.end));
        // Columns without a value are left out, as those of logs that have none.
        let some = |column: &ArrayRef| column.null_count() < column.len();
        let batch = LogBatch {
            keys: &keys,
            event: &event,
            created: Some(&created).filter(|column| some(column)),
            sequence: Some(&sequence),
            valid_to: Some(&end).filter(|column| some(column)),
        };
        rows.push(&batch).unwrap();
    }
    rows
}

/// A spine in batches, as the kernel takes it.
fn spine_batches(spine: &[Asked], batch: usize, two: bool) -> Vec<(Vec<ArrayRef>, Times)> {
    let part = |part: &[Asked]| {
        let times = Times::of(&ints(part.iter().map(|row| row.1))).unwrap();
        (keys(part.iter().map(|row| row.0), two), times)
    };
    spine.chunks(batch).map(part).collect()
}

fn indexed(log: LogRows, spine: &[(Vec<ArrayRef>, Times)], as_of: AsOf) -> Vec<Option<u32>> {
    let join = PointInTime::new(log, as_of).unwrap();
    let find = |(keys, times): &(Vec<ArrayRef>, Times)| {
        join.find(&keys.iter().collect::<Vec<_>>(), times).unwrap().iter().collect::<Vec<_>>()
    };
    spine.iter().flat_map(find).collect()
}

fn merged(log: &LogRows, spine: &[(Vec<ArrayRef>, Times)], as_of: AsOf) -> Vec<Option<u32>> {
    let keys: Vec<Vec<&ArrayRef>> = spine.iter().map(|(keys, _)| keys.iter().collect()).collect();
    let parts: Vec<_> = keys.iter().map(Vec::as_slice).zip(spine.iter().map(|(_, times)| times)).collect();
    merge(log, &parts, as_of).unwrap().iter().collect()
}

/// Both methods answer `rows`, whatever the batches.
#[track_caller]
fn check(log: &[Event], spine: &[Asked], as_of: AsOf, rows: &[Option<u32>]) {
    assert_eq!(expected(log, spine, as_of), rows, "the plain loop");
    for batch in [1, 2, 100] {
        let spine = spine_batches(spine, batch, false);
        assert_eq!(indexed(log_rows(log, batch, false), &spine, as_of), rows, "indexed, batches of {batch}");
        let log = log_rows(log, batch, false);
        if log.is_in_time_order() {
            assert_eq!(merged(&log, &spine, as_of), rows, "merged, batches of {batch}");
        }
    }
}

fn at(key: i64, at: i64) -> Asked {
    (Some(key), Some(at))
}

#[test]
fn the_newest_row_up_to_and_including_the_time_wins() {
    let log = [happened(1, 10), happened(2, 15), happened(1, 20)];
    let spine = [at(1, 9), at(1, 10), at(1, 19), at(1, 20), at(1, 21), at(2, 14), at(2, 15), at(3, 99)];
    check(&log, &spine, AsOf::default(), &[None, Some(0), Some(0), Some(2), Some(2), None, Some(1), None]);
}

#[test]
fn an_exclusive_set_does_not_see_the_event_that_is_the_spine_row() {
    let log = [happened(1, 10), happened(1, 20)];
    let exclusive = AsOf { exclusive: true, ..AsOf::default() };
    check(
        &log,
        &[at(1, 10), at(1, 11), at(1, 20), at(1, i64::MIN)],
        exclusive,
        &[None, Some(0), Some(0), None],
    );
}

#[test]
fn time_to_live_is_inclusive_at_both_ends() {
    check(
        &[happened(1, 10)],
        &[at(1, 9), at(1, 10), at(1, 15), at(1, 16)],
        ttl(5),
        &[None, Some(0), Some(0), None],
    );
    check(&[happened(1, 10)], &[at(1, 10), at(1, 11)], ttl(0), &[Some(0), None]);
}

#[test]
fn rows_tied_by_event_are_decided_by_creation_then_sequence_then_place() {
    let tied = |created, sequence| Event { created, sequence, ..happened(1, 10) };
    let later = AsOf { knowledge: Knowledge::Hindsight, ..AsOf::default() };
    check(&[tied(Some(3), 0), tied(Some(5), 0), tied(Some(4), 9)], &[at(1, 10)], later, &[Some(1)]);
    check(&[tied(Some(5), 8), tied(Some(5), 7)], &[at(1, 10)], later, &[Some(0)]);
    check(&[tied(None, 9), tied(Some(i64::MIN + 1), 1)], &[at(1, 10)], later, &[Some(1)]);
    check(&[tied(None, 1), tied(None, 1)], &[at(1, 10)], later, &[Some(1)]);
}

#[test]
fn a_correction_counts_only_once_it_was_known() {
    let log = [
        Event { created: Some(11), ..happened(1, 10) },
        Event { created: Some(100), ..happened(1, 20) },
        Event { created: Some(31), ..happened(1, 30) },
    ];
    let spine = [at(1, 10), at(1, 11), at(1, 25), at(1, 31), at(1, 99), at(1, 100)];
    check(&log, &spine, AsOf::default(), &[None, Some(0), Some(0), Some(2), Some(2), Some(2)]);
    let hindsight = AsOf { knowledge: Knowledge::Hindsight, ..AsOf::default() };
    check(&log, &spine, hindsight, &[Some(0), Some(0), Some(1), Some(2), Some(2), Some(2)]);
    let lag = AsOf { knowledge: Knowledge::AsKnown { lag: micros(2) }, ..AsOf::default() };
    check(&log, &[at(1, 12), at(1, 13)], lag, &[None, Some(0)]);
}

#[test]
fn a_row_without_creation_was_always_known() {
    let log = [happened(1, 10), Event { created: Some(50), ..happened(1, 20) }];
    check(&log, &[at(1, 10), at(1, 30), at(1, 50)], AsOf::default(), &[Some(0), Some(0), Some(1)]);
}

#[test]
fn a_row_that_has_ended_does_not_bring_back_the_one_before_it() {
    let log = [happened(1, 10), Event { end: Some(25), ..happened(1, 20) }];
    check(&log, &[at(1, 19), at(1, 25), at(1, 26)], AsOf::default(), &[Some(0), Some(1), None]);
}

#[test]
fn null_keys_and_null_times_match_nothing() {
    let log = [happened(1, 10), Event { key: None, ..happened(0, 10) }];
    check(&log, &[(None, Some(10)), (Some(1), None), (None, None), at(0, 10)], AsOf::default(), &[None; 4]);
}

/// Feast's Dask store drops rows of the spine that have the same key and time (#6787).
#[test]
fn equal_spine_rows_are_all_answered() {
    check(&[happened(1, 10)], &[at(1, 12), at(1, 12), at(1, 12)], AsOf::default(), &[Some(0); 3]);
}

/// MLRun sorts by an unstable order (ties are decided anew each time) and answers in the order of time.
#[test]
fn answers_stand_in_the_order_of_the_spine_and_ties_are_decided_once() {
    let log: Vec<_> = (0..64).map(|sequence| Event { sequence: sequence % 8, ..happened(1, 10) }).collect();
    check(
        &log,
        &[at(1, 30), at(2, 5), at(1, 10), at(1, 9)],
        AsOf::default(),
        &[Some(63), None, Some(63), None],
    );
}

/// Feast's incremental materialisation misses rows that arrive after it ran (#4133).
#[test]
fn a_row_that_arrives_late_stands_where_it_happened() {
    let log = [happened(1, 10), happened(1, 30), Event { sequence: 9, ..happened(1, 20) }];
    check(&log, &[at(1, 20), at(1, 29), at(1, 30)], AsOf::default(), &[Some(2), Some(2), Some(1)]);
}

#[test]
fn times_at_the_ends_of_time_do_not_overflow() {
    let log = [happened(1, i64::MIN), Event { created: Some(i64::MAX), ..happened(1, i64::MAX) }];
    let lag = AsOf { knowledge: Knowledge::AsKnown { lag: Duration::MAX }, ..ttl(u64::MAX) };
    check(
        &log,
        &[at(1, i64::MAX), at(1, i64::MIN), at(1, 0)],
        lag,
        &[None, Some(0), None].map(|row| row.or(Some(0))),
    );
    check(&log, &[at(1, i64::MAX), at(1, 0)], ttl(0), &[Some(1), None]);
}

#[test]
fn a_log_refuses_what_it_cannot_order() {
    let (keys, none) = ([ints([Some(1)].into_iter())], ints([None].into_iter()));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["soon"]));
    let event = ints([Some(1)].into_iter());
    let push = |event: &ArrayRef, sequence: Option<&ArrayRef>, keys: &[ArrayRef]| {
        let mut log = LogRows::new(&[DataType::Int64]).unwrap();
        let batch = LogBatch { keys, event, created: None, sequence, valid_to: None };
        log.push(&batch).unwrap_err().to_string()
    };
    assert_eq!(push(&none, None, &keys), "row 0 of the log has no event time");
    assert!(push(&text, None, &keys).contains("soon"));
    assert_eq!(push(&event, Some(&event), &keys), "a sequence is UInt64, not Int64");
    assert_eq!(push(&event, None, &[]), "0 key columns for 1 keys");
    assert!(LogRows::new(&[DataType::Float64]).is_err());
    let unordered = log_rows(&[happened(1, 2), happened(1, 1)], 9, false);
    assert!(matches!(merge(&unordered, &[], AsOf::default()), Err(JoinError::Order)));
}

#[test]
fn merging_is_chosen_for_small_spines_on_logs_in_order() {
    let ordered = log_rows(&[happened(1, 1), happened(1, 2)], 9, false);
    let unordered = log_rows(&[happened(1, 2), happened(1, 1)], 9, false);
    let cases =
        [(&ordered, 2, Method::Merged), (&ordered, 3, Method::Indexed), (&unordered, 1, Method::Indexed)];
    for (log, rows, method) in cases {
        assert_eq!(Method::choose(log, rows), method, "{rows}");
    }
}

/// A backfill that nobody knows yet lies above every answer; to pass over it row by row would take minutes.
#[test]
fn a_backfill_that_is_not_known_yet_is_passed_over_at_once() {
    let backfill = (0..200_000).map(|event| Event { created: Some(i64::MAX), ..happened(1, event) });
    let log: Vec<_> = std::iter::once(happened(1, 0)).chain(backfill).collect();
    let spine: Vec<_> = (0..100_000).map(|row| at(1, 100_000 + row)).collect();
    let found = indexed(log_rows(&log, 8192, false), &spine_batches(&spine, 8192, false), AsOf::default());
    assert!(found.iter().all(|row| *row == Some(0)));
}

fn any_event() -> impl Strategy<Value = Event> {
    let narrow = || 0_i64..24;
    (
        proptest::option::weighted(0.95, 0_i64..4),
        narrow(),
        proptest::option::of(0_i64..32),
        0_u64..3,
        proptest::option::weighted(0.3, narrow()),
    )
        .prop_map(|(key, event, created, sequence, end)| Event { key, event, created, sequence, end })
}

fn any_as_of() -> impl Strategy<Value = AsOf> {
    let lag = prop_oneof![Just(None), Just(Some(0)), (0_u64..6).prop_map(Some)];
    (any::<bool>(), proptest::option::of(0_u64..12), lag).prop_map(|(exclusive, ttl, lag)| AsOf {
        exclusive,
        ttl: ttl.map(micros),
        knowledge: lag.map_or(Knowledge::Hindsight, |lag| Knowledge::AsKnown { lag: micros(lag) }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn both_methods_answer_as_a_plain_loop(
        mut log in proptest::collection::vec(any_event(), 0..120),
        spine in proptest::collection::vec(
            (proptest::option::weighted(0.9, 0_i64..5), proptest::option::weighted(0.9, 0_i64..40)), 0..40),
        as_of in any_as_of(),
        two in any::<bool>(),
        batches in (1_usize..40, 1_usize..40),
        // Keys beside each other, below nothing, and too far apart to be counted from the first.
        spread in prop_oneof![Just(1_i64), Just(-1), Just(i64::MAX / 4)],
        // Rows whose place alone decides.
        bare in any::<bool>(),
    ) {
        let spine: Vec<Asked> = spine.into_iter().map(|(key, at)| (key.map(|key| key * spread), at)).collect();
        for row in &mut log {
            row.key = row.key.map(|key| key * spread);
            if bare {
                (row.created, row.sequence) = (None, 0);
            }
        }
        let parts = spine_batches(&spine, batches.1, two);
        prop_assert_eq!(
            indexed(log_rows(&log, batches.0, two), &parts, as_of), expected(&log, &spine, as_of), "indexed");
        log.sort_by_key(|row| row.event);
        prop_assert_eq!(
            merged(&log_rows(&log, batches.0, two), &parts, as_of), expected(&log, &spine, as_of), "merged");
    }
}
