//! What every store that takes writes must do.

use std::time::Duration;

use arrow::{
    array::{ArrayRef, Float64Array, Int8Array, RecordBatch, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, TimeUnit},
};
use expect_test::expect;
use millstream_featurestore::{Changes, FeatureSet, Positions, Receipt};
use millstream_graph::rows;

use super::{NOW, count, counts, ids, on_each};

#[test]
fn of_a_keys_rows_the_latest_event_counts_in_whichever_order_they_come() {
    on_each(&counts(), None, |store| {
        assert_eq!(store.write(count(&[(1, 10, 100), (2, 20, 100)])), "taken taken");
        assert_eq!(store.write(count(&[(1, 11, 99), (2, 21, 101), (3, 0, -5)])), "older taken taken");
        assert_eq!(store.read(&ids(&[1, 2, 3, 4])), "10 | 21 | 0 | -");
        assert_eq!(store.write(count(&[(5, 1, 7), (5, 2, 6), (5, 3, 8)])), "taken older taken");
        assert_eq!(store.read(&ids(&[5])), "3");
    });
}

#[test]
fn of_rows_of_the_same_event_time_the_one_that_became_known_last_counts() {
    let row = |n: i64, created: Option<i64>| {
        count(&[(1, n, 100)]).created(arrow::array::Int64Array::from(vec![created]))
    };
    on_each(&counts(), None, |store| {
        for (n, created, outcome, read) in [
            (1, None, "taken", "1"),
            (2, Some(-9), "taken", "2"),
            (3, None, "older", "2"),
            (4, Some(5), "taken", "4"),
            (5, Some(4), "older", "4"),
            (6, Some(5), "taken", "6"),
        ] {
            assert_eq!(store.write(row(n, created)), outcome, "{n}");
            assert_eq!(store.read(&ids(&[1])), read, "{n}");
        }
    });
}

#[test]
fn of_equal_versions_the_last_taken_counts() {
    on_each(&counts(), None, |store| {
        assert_eq!(store.write(count(&[(1, 1, 100), (1, 2, 100)])), "taken taken");
        assert_eq!(store.read(&ids(&[1])), "2");
        assert_eq!(store.write(count(&[(1, 3, 100)])), "taken");
        assert_eq!(store.read(&ids(&[1, 1])), "3 | 3");
    });
}

#[test]
fn values_of_all_types_come_back_as_they_were() {
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Utf8,
    ];
    let set = types.iter().enumerate().fold(
        FeatureSet::builder("all").key("a", DataType::Utf8).key("b", DataType::UInt32),
        |set, (i, data_type)| set.feature(format!("f{i}"), data_type.clone()),
    );
    let columns: Vec<ArrayRef> = vec![
        std::sync::Arc::new(StringArray::from(vec!["", "ab", "a"])),
        std::sync::Arc::new(arrow::array::UInt32Array::from(vec![0, u32::MAX, 7])),
        std::sync::Arc::new(arrow::array::BooleanArray::from(vec![Some(false), Some(true), None])),
        std::sync::Arc::new(Int8Array::from(vec![Some(0), Some(-128), None])),
        std::sync::Arc::new(arrow::array::UInt64Array::from(vec![Some(0), Some(u64::MAX), None])),
        std::sync::Arc::new(arrow::array::Float32Array::from(vec![Some(0.0), Some(f32::MIN_POSITIVE), None])),
        std::sync::Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), None])),
        std::sync::Arc::new(StringArray::from(vec![Some(""), Some("größer\0"), None])),
        std::sync::Arc::new(arrow::array::Date32Array::from(vec![Some(0), Some(-1), None])),
        std::sync::Arc::new(TimestampMillisecondArray::from(vec![Some(0), Some(i64::MIN), None])),
        std::sync::Arc::new(StringArray::from(vec![Some("x"), None, Some("after")])),
    ];
    let names = ["a", "b"].map(String::from).into_iter().chain((0..types.len()).map(|i| format!("f{i}")));
    let batch = RecordBatch::try_from_iter(names.zip(columns)).unwrap();
    on_each(&set, None, |store| {
        assert_eq!(store.write(Changes::new(batch.clone(), vec![1, 2, 3])), "taken taken taken");
        let keys = batch.project(&[0, 1]).unwrap();
        let found = store.found(&keys, None, |selection| selection);
        for (number, (found, wrote)) in found.columns.iter().zip(&batch.columns()[2..]).enumerate() {
            // NaN is not equal to itself; its bits are.
            assert_eq!(found.to_data().buffers(), wrote.to_data().buffers(), "column {number}");
            assert_eq!(found.nulls(), wrote.nulls(), "column {number}");
        }
        let others = rows! { a: ["b", "a"], b: [0_u32, 8] };
        assert_eq!(store.read(&others), "- | -");
    });
}

#[test]
fn a_row_of_zeros_or_nulls_is_a_row_and_texts_may_grow_and_shrink() {
    let set = FeatureSet::builder("texts").key("id", DataType::Utf8).feature("t", DataType::Utf8);
    on_each(&set, None, |store| {
        let key = rows! { id: ["k"] };
        for (event, text) in
            [None, Some(""), Some("a"), Some("a longer text than before"), Some("b"), None].iter().enumerate()
        {
            let changes = Changes::new(rows! { id: ["k"], t: [*text] }, vec![event as i64]);
            assert_eq!(store.write(changes), "taken");
            assert_eq!(store.read(&key), text.unwrap_or("null"));
        }
    });
}

#[test]
fn keys_of_other_widths_find_their_rows_and_null_finds_none() {
    on_each(&counts(), None, |store| {
        store.write(count(&[(-1, 1, 0), (300, 2, 0)]));
        assert_eq!(store.read(&rows! { id: [Some(300), None, Some(i32::MAX)] }), "2 | - | -");
        assert_eq!(store.read(&rows! { id: [Some(-1), Some(0)] }), "1 | -");
    });
}

#[test]
fn a_row_at_fault_is_refused_and_the_others_are_taken() {
    let far = i64::MAX;
    on_each(&counts(), None, |store| {
        let batch =
            rows! { id: [Some(1_i64), None, Some(3), Some(4), Some(5)], n: ["1", "2", "many", "4", "5"] };
        let event = arrow::array::Int64Array::from(vec![Some(1), Some(1), Some(1), None, Some(far)]);
        expect![[
            r"taken refused(key `id` is null) refused(column `n`: `many` is no Int64) refused(timestamp `event time` is null) refused(column `event time`: `9223372036854775807` is no Timestamp(µs))"
        ]]
        .assert_eq(&store.write(Changes::new(batch, event)));
        assert_eq!(store.read(&ids(&[1, 3, 4, 5])), "1 | - | - | -");
    });
}

#[test]
fn a_write_that_lacks_columns_names_all_of_them_and_changes_nothing() {
    on_each(&counts(), None, |store| {
        expect!["no column `id`; did you mean `ids`?; no column `n`; did you mean `m`?"]
            .assert_eq(&store.write(Changes::new(rows! { ids: [1_i64], m: [2_i64] }, vec![1])));
        let uneven = count(&[(1, 1, 1)]).ids([]).created(vec![1, 2]).at(Positions::new("s", 0, vec![]));
        expect!["2 created times for 1 rows; 0 offsets for 1 rows; 0 event ids for 1 rows"]
            .assert_eq(&store.write(uneven));
        assert_eq!(store.write(count(&[])), "");
        assert_eq!(store.read(&ids(&[1])), "-");
    });
}

#[test]
fn the_same_positions_are_taken_once_in_whichever_parts_they_come() {
    let at = |partition, offsets: &[u64]| Positions::new("topic", partition, offsets.to_vec());
    on_each(&counts(), None, |store| {
        let mark = |partition| store.get(store.table.mark("topic", partition)).unwrap();
        assert_eq!(mark(0), None);
        assert_eq!(store.write(count(&[(1, 1, 1), (2, 1, 1)]).at(at(0, &[0, 1]))), "taken taken");
        assert_eq!(mark(0), Some(1));
        // The same again, and overlapping: the values say whether a row was taken twice.
        assert_eq!(store.write(count(&[(1, 9, 1), (2, 9, 1)]).at(at(0, &[0, 1]))), "repeated repeated");
        assert_eq!(store.write(count(&[(2, 9, 1), (3, 1, 1)]).at(at(0, &[1, 5]))), "repeated taken");
        assert_eq!((mark(0), mark(1)), (Some(5), None));
        assert_eq!(store.write(count(&[(1, 2, 1), (4, 2, 1)]).at(at(1, &[0, 0]))), "taken taken");
        assert_eq!((mark(0), mark(1)), (Some(5), Some(0)));
        assert_eq!(store.read(&ids(&[1, 2, 3, 4])), "2 | 1 | 1 | 2");
        // A refused row is behind its source all the same.
        let refused = Changes::new(rows! { id: [None::<i64>], n: [1_i64] }, vec![1]).at(at(1, &[7]));
        assert_eq!(store.write(refused), "refused(key `id` is null)");
        assert_eq!(mark(1), Some(7));
        // So is an event that has no rows.
        assert_eq!(store.write(count(&[(5, 3, 1)]).at(at(1, &[8]).reaching(9))), "taken");
        assert_eq!(store.write(count(&[]).at(at(1, &[]).reaching(11))), "");
        assert_eq!(mark(1), Some(11));
        assert_eq!(store.write(count(&[(5, 4, 1)]).at(at(1, &[11]).reaching(3))), "repeated");
        assert_eq!((store.read(&ids(&[5])), mark(1)), ("3".to_owned(), Some(11)));
    });
}

#[test]
fn an_event_id_is_taken_once_within_a_write_and_after_it() {
    let write = |rows: &[(i64, i64, i64)], ids: &[Option<&str>]| {
        count(rows).ids(ids.iter().map(|id| id.map(String::from)).collect::<Vec<_>>())
    };
    on_each(&counts(), None, |store| {
        let first = write(&[(1, 1, 1), (1, 2, 1), (1, 3, 1)], &[Some("a"), Some("a"), Some("b")]);
        assert_eq!(store.write(first), "taken repeated taken");
        assert_eq!(store.read(&ids(&[1])), "3");
        let second = write(&[(1, 4, 1), (1, 5, 1), (1, 6, 0)], &[Some("b"), None, Some("c")]);
        assert_eq!(store.write(second), "repeated taken older");
        assert_eq!(store.read(&ids(&[1])), "5");
        // An older row was taken note of; an id of a refused row was not.
        assert_eq!(store.write(write(&[(1, 6, 2)], &[Some("c")])), "repeated");
        let long = "x".repeat(257);
        assert_eq!(
            store.write(write(&[(1, 7, 3)], &[Some(&long)])),
            "refused(`event id` has 257 bytes; 256 are allowed)"
        );
    });
}

#[test]
fn a_row_may_be_used_from_its_event_to_the_end_of_its_time_both_included() {
    on_each(&counts(), Some(Duration::from_micros(50)), |store| {
        let changes = count(&[(1, 1, 100), (2, 2, 100)]);
        let ends = arrow::array::Int64Array::from(vec![None, Some(120)]);
        assert_eq!(store.write(changes.valid_to(ends)), "taken taken");
        for (at, read) in [
            (99, "~ | ~ | -"),
            (100, "1 | 2 | -"),
            (120, "1 | 2 | -"),
            (121, "1 | ~ | -"),
            (150, "1 | ~ | -"),
            (151, "~ | ~ | -"),
        ] {
            assert_eq!(store.read_at(&ids(&[1, 2, 3]), Some(at)), read, "at {at}");
        }
        let stale = store.found(&ids(&[1, 3]), Some(151), |selection| selection.with_stale());
        assert_eq!(super::shown(&stale, 2), "~1 | -");
    });
}

#[test]
fn a_lookup_that_gives_no_time_asks_the_clock_where_rows_can_be_stale() {
    let last = arrow::array::Int64Array::from(vec![NOW, NOW - 1]);
    on_each(&counts(), Some(Duration::from_micros(5)), |store| {
        store.write(count(&[(1, 1, NOW - 5), (2, 2, NOW - 6), (3, 3, NOW + 1)]));
        assert_eq!(store.read(&ids(&[1, 2, 3])), "1 | ~ | ~");
    });
    on_each(&counts(), None, |store| {
        store.write(count(&[(3, 3, NOW + 1)]));
        assert_eq!(store.read(&ids(&[3])), "3");
        store.write(count(&[(1, 1, 0), (2, 2, 0)]).valid_to(last.clone()));
        assert_eq!(store.read(&ids(&[1, 2])), "1 | ~");
    });
}

#[test]
fn an_erased_key_is_as_if_it_had_never_been() {
    on_each(&counts(), None, |store| {
        store.write(count(&[(1, 1, 100), (2, 2, 100), (3, 3, 100)]));
        let receipt = store.get(store.table.erase(ids(&[1, 3, 9, 3]))).unwrap();
        assert_eq!((receipt.removed, receipt.unknown), (2, 1));
        assert_eq!(store.read(&ids(&[1, 2, 3])), "- | 2 | -");
        assert_eq!(store.write(count(&[(1, 7, 50), (2, 8, 50)])), "taken older");
        assert_eq!(store.read(&ids(&[1, 2, 3])), "7 | 2 | -");
        let problem = store.get(store.table.erase(rows! { key: [1_i64] })).unwrap_err();
        assert_eq!(problem.to_string(), "no column `id`; there is `key`");
    });
}

#[test]
fn a_purged_set_has_no_rows_positions_or_ids() {
    let write = || {
        count(&[(1, 1, 100), (2, 2, 100)])
            .at(Positions::new("s", 0, vec![1, 2]))
            .ids([Some("a".to_owned()), None])
    };
    on_each(&counts(), None, |store| {
        assert_eq!(store.write(write()), "taken taken");
        assert_eq!(store.write(write()), "repeated repeated");
        let Receipt { removed, unknown, .. } = store.get(store.table.purge()).unwrap();
        assert_eq!((removed, unknown), (2, 0));
        assert_eq!(store.read(&ids(&[1, 2])), "- | -");
        assert_eq!(store.get(store.table.mark("s", 0)).unwrap(), None);
        assert_eq!(store.write(write()), "taken taken");
        assert_eq!(store.read(&ids(&[1, 2])), "1 | 2");
    });
}
