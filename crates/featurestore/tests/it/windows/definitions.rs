//! What may be declared, what it makes, and everything that may be wrong with it.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn check(specs: Value, expected: Expect) {
    let text = match aggregates(&specs, 0) {
        Ok(of) => {
            let column =
                |column: &millstream_featurestore::Column| format!("{} {}", column.name, column.data_type);
            of.columns().iter().map(column).collect::<Vec<_>>().join("\n")
        }
        Err(error) => error.problems.join("\n"),
    };
    expected.assert_eq(&text);
}

#[test]
fn features_are_named_by_column_function_and_window_and_typed() {
    check(
        json!([
            {"column": "amount", "functions": ["count", "sum", "max", "p99.9"], "windows": ["1h", "24h"]},
            {"column": "units", "functions": ["sum", "avg", "last", "stddev"], "windows": ["7d"], "name": "u"},
            {"column": "tier", "functions": ["first", "distinct"], "windows": ["1d"], "fixed": true},
            {"functions": ["count"], "windows": ["10m"]},
            {"functions": ["count"], "windows": ["10m"], "where": "units > 0", "name": "many"},
        ]),
        expect![[r#"
            amount_count_1h Int64
            amount_count_24h Int64
            amount_sum_1h Float64
            amount_sum_24h Float64
            amount_max_1h Float64
            amount_max_24h Float64
            amount_p99.9_1h Float64
            amount_p99.9_24h Float64
            u_sum_7d Int64
            u_avg_7d Float64
            u_last_7d Int64
            u_stddev_7d Float64
            tier_first_1d Utf8
            tier_distinct_1d Int64
            count_10m Int64
            many_count_10m Int64"#]],
    );
    check(json!([]), expect![""]);
}

#[test]
fn every_mistake_is_named_at_once() {
    check(
        json!([
            {"column": "amuont", "functions": ["sum"], "windows": ["1h"]},
            {"column": "tier", "functions": ["sum", "max", "last", "p50"], "windows": ["1h"]},
            {"functions": ["sum"], "windows": ["1h"]},
            {"column": "amount", "functions": [], "windows": []},
            {"column": "amount", "functions": ["sum"], "windows": ["1h"], "fixed": true, "period": "10m"},
            {"column": "amount", "functions": ["sum"], "windows": ["1h"], "period": "25m"},
            {"column": "amount", "functions": ["sum"], "windows": ["1h"], "period": "2h"},
            {"column": "amount", "functions": ["sum"], "windows": ["30d"], "period": "1s"},
            {"column": "amount", "functions": ["sum"], "windows": ["1h"], "where": "units < 0"},
            {"column": "units", "functions": ["sum", "avg", "sum"], "windows": ["1h"]},
            {"column": "units", "functions": ["avg"], "windows": ["1h"]},
        ]),
        expect![[r#"
            aggregate `amuont`: no column `amuont`; did you mean `amount`?
            aggregate `tier`: `sum` of column `tier`, which is Utf8; it is taken of a number
            aggregate `tier`: `max` of column `tier`, which is Utf8; it is taken of a number, a date or a timestamp
            aggregate `tier`: `p50` of column `tier`, which is Utf8; it is taken of a number
            aggregate `count`: `sum` of no column; name one under `column`, or count events with `count`
            aggregate `amount`: no functions; name at least one
            aggregate `amount`: no windows; name at least one
            aggregate `amount`: `fixed` and `period` exclude each other
            aggregate `amount`: window 1h is no multiple of the period 25m
            aggregate `amount`: window 1h is no multiple of the period 2h
            aggregate `amount`: window 30d has 2592000 periods of 1s; 10000 is the most
            aggregate `amount`: `where: units < 0`: no such expression
            two aggregates make `units_sum_1h`; give one another `name`
            two aggregates make `units_avg_1h`; give one another `name`"#]],
    );
}

#[test]
fn a_batch_that_is_not_as_declared_is_refused() {
    let of = aggregates(
        &json!([{"column": "amount", "functions": ["sum"], "windows": ["1h"], "where": "units > 0"}]),
        0,
    )
    .unwrap();
    let whole = batch(&[Event::default()]);
    let refused = |columns: &[usize], expected: Expect| {
        let error = of.prepare(&whole.project(columns).unwrap()).unwrap_err();
        let source = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
        expected.assert_eq(&format!("{error}{source}"));
    };
    refused(&[1], expect!["no column `amount`; there is `units`"]);
    refused(&[0], expect!["`where: units > 0`: no `units`"]);
    let (amount, units) = (whole.column(2), whole.column(1));
    let renamed =
        RecordBatch::try_from_iter([("amount", Arc::clone(amount)), ("units", Arc::clone(units))]).unwrap();
    expect!["column `amount` is Utf8; the aggregates read Float64"]
        .assert_eq(&of.prepare(&renamed).unwrap_err().to_string());
}

#[test]
fn columns_may_come_in_any_layout_of_text_and_any_order() {
    use arrow::{compute::cast, datatypes::DataType};
    let of =
        aggregates(&json!([{"column": "tier", "functions": ["last", "distinct"], "windows": ["1h"]}]), 0)
            .unwrap();
    let events = [Event { tier: Some("gold".into()), ..Event::default() }];
    let plain = batch(&events);
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for layout in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
        let tier = cast(plain.column(2), &layout).unwrap();
        let laid = RecordBatch::try_from_iter([("x", Arc::clone(plain.column(0))), ("tier", tier)]).unwrap();
        let mut ledger = Ledger::default();
        assert_eq!(ledger.add(&of, &of.prepare(&laid).unwrap(), 0, Version::default()), Added::Taken);
        assert_eq!(read(&of, &ledger, 0), [Feature::Text("gold".into()), Feature::Whole(1)], "{layout}");
    }
}

#[test]
fn a_sum_of_whole_numbers_that_does_not_fit_is_null_and_counted() {
    let of = aggregates(
        &json!([{"column": "units", "functions": ["sum", "avg", "sqr"], "windows": ["1m", "1h"]}]),
        0,
    )
    .unwrap();
    let mut ledger = Ledger::default();
    let at = |event: i64, units| Event {
        version: Version { event, ..Version::default() },
        units: Some(units),
        ..Event::default()
    };
    add(&of, &mut ledger, &[at(0, i64::MAX), at(2 * MINUTE, 1), at(3 * MINUTE, 2)], 3);
    let values = ledger.read(&of, 3 * MINUTE).unwrap();
    assert_eq!(values.overflows, 1);
    let (most, square) = (i64::MAX as f64, (i64::MAX as f64).powi(2));
    assert_eq!(
        read(&of, &ledger, 3 * MINUTE),
        [
            Feature::Whole(3),
            Feature::Null,
            Feature::Float(1.5),
            Feature::Float(most / 3.0),
            Feature::Float(5.0),
            Feature::Float(square)
        ]
    );
    // The sum is a number again when it fits.
    add(&of, &mut ledger, &[at(4 * MINUTE, -3)], 1);
    assert_eq!(ledger.read(&of, 4 * MINUTE).unwrap().overflows, 0);
    assert_eq!(read(&of, &ledger, 4 * MINUTE)[1], Feature::Whole(i64::MAX));
    assert_eq!(of.read([(&ledger, 4 * MINUTE), (&Ledger::default(), 0)]).unwrap().arrays[1].null_count(), 1);
}

#[test]
fn windows_have_both_edges_inside() {
    let of = aggregates(&json!([{"functions": ["count"], "windows": ["1h"]}]), 2 * HOUR).unwrap();
    let mut ledger = Ledger::default();
    let at = |event: i64| Event { version: Version { event, ..Version::default() }, ..Event::default() };
    add(&of, &mut ledger, &[at(HOUR), at(2 * HOUR), at(2 * HOUR + 1)], 3);
    for (time, count) in [
        (HOUR - 1, 0),
        (HOUR, 1),
        (2 * HOUR - 1, 1),
        (2 * HOUR, 2),
        (2 * HOUR + 1, 2),
        (3 * HOUR, 2),
        (3 * HOUR + 1, 1),
        (3 * HOUR + 2, 0),
    ] {
        assert_eq!(read(&of, &ledger, time), [Feature::Whole(count)], "{time}");
    }
}

/// Times at the ends of what 64 bits hold.
#[test]
fn no_time_is_too_far() {
    let specs = json!([
        {"column": "amount", "functions": ["sum"], "windows": ["1h"]},
        {"column": "amount", "functions": ["sum"], "windows": ["1d"], "fixed": true, "name": "fixed"},
        {"column": "amount", "functions": ["sum"], "windows": ["2h"], "period": "1h", "name": "stepped"},
    ]);
    let of = aggregates(&specs, HOUR).unwrap();
    for times in [
        [i64::MIN, i64::MIN + 1, i64::MIN + HOUR],
        [i64::MAX - HOUR, i64::MAX - 1, i64::MAX],
        [i64::MIN, 0, i64::MAX],
    ] {
        let mut ledger = Ledger::default();
        for (sequence, event) in (1..).zip(times) {
            let version = Version { event, created: Some(event), sequence };
            assert_eq!(
                add(&of, &mut ledger, &[Event { version, amount: Some(1.0), ..Event::default() }], 1),
                [Added::Taken]
            );
            assert!(!read(&of, &ledger, event).is_empty());
            assert_eq!(Ledger::decode(&of, &ledger.encode(&of)).unwrap().encode(&of), ledger.encode(&of));
        }
    }
}

#[test]
fn columns_of_every_type_keep_it() {
    use arrow::{compute::cast, util::display::array_value_to_string};
    let hundreds = Int64Array::from(vec![Some(100), None, Some(-7), Some(50)]);
    let cases = [
        (DataType::Int8, "-7 100 100 50 143 47.666666666666664"),
        (DataType::Int16, "-7 100 100 50 143 47.666666666666664"),
        (DataType::Int32, "-7 100 100 50 143 47.666666666666664"),
        (DataType::UInt8, "50 100 100 50 150 75.0"),
        (DataType::UInt64, "50 100 100 50 150 75.0"),
        (DataType::Float16, "-7 100 100 50 143.0 47.666666666666664"),
        (DataType::Float32, "-7.0 100.0 100.0 50.0 143.0 47.666666666666664"),
        (DataType::Date32, "1969-12-25 1970-04-11 1970-04-11 1970-02-20"),
        (
            DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None),
            "1969-12-31T23:59:53 1970-01-01T00:01:40 1970-01-01T00:01:40 1970-01-01T00:00:50",
        ),
        (DataType::Boolean, "true true"),
    ];
    for (data_type, expected) in cases {
        let functions = match &data_type {
            DataType::Boolean => json!(["first", "last"]),
            temporal if temporal.is_temporal() => json!(["min", "max", "first", "last"]),
            _ => json!(["min", "max", "first", "last", "sum", "avg"]),
        };
        let column = cast(&hundreds, &data_type).unwrap();
        let events = RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap();
        let specs = serde_json::from_value(json!({"column": "x", "functions": functions, "windows": ["1h"]}))
            .unwrap();
        let of = Aggregates::new(&[specs], &events.schema(), Duration::ZERO, &compile).unwrap();
        let prepared = of.prepare(&events).unwrap();
        let mut ledger = Ledger::default();
        for sequence in 0..4 {
            let version = Version { event: 0, created: None, sequence };
            assert_eq!(ledger.add(&of, &prepared, sequence as usize, version), Added::Taken);
        }
        let arrays = of.read([(&ledger, 0)]).unwrap().arrays;
        arrays
            .iter()
            .take(if data_type == DataType::Boolean { 2 } else { 4 })
            .for_each(|array| assert_eq!(*array.data_type(), data_type));
        let text: Vec<String> = arrays.iter().map(|array| array_value_to_string(array, 0).unwrap()).collect();
        assert_eq!(text.join(" "), expected, "{data_type}");
    }
}
