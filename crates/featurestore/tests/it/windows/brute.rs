//! Windows against a loop over all events, in arithmetic that is exact for the numbers used here.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Amounts are whole numbers of this, and small enough for 128-bit sums of squares.
const UNIT: f64 = 1.0 / 1024.0;

pub(crate) fn specs() -> Value {
    let every = json!([
        "count", "sum", "sqr", "min", "max", "avg", "stdvar", "stddev", "first", "last", "distinct", "p50",
        "p99.9"
    ]);
    json!([
        {"column": "amount", "functions": every, "windows": ["1m", "1h", "24h"]},
        {"column": "units", "functions": every, "windows": ["90s", "1h"]},
        {"column": "tier", "functions": ["count", "first", "last", "distinct"], "windows": ["1h", "2h"]},
        {"column": "amount", "functions": every, "windows": ["1h", "3h"], "name": "some", "where": "units > 0"},
        {"functions": ["count"], "windows": ["10m"], "where": "units > 0"},
        {"column": "amount", "functions": every, "windows": ["1h", "3h", "1d"], "fixed": true, "name": "fixed"},
        {"column": "units", "functions": ["sum", "first", "max"], "windows": ["1h", "2h"], "period": "10m", "name": "stepped"},
        {"column": "tier", "functions": ["last"], "windows": ["1h"], "period": "20m", "name": "stepped_tier"},
    ])
}

/// The first event time of a window.
fn start(spec: &Value, window: &str, at: i64) -> i64 {
    let micros = |text: &str| {
        let (number, unit) = text.split_at(text.len() - 1);
        let unit = match unit {
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            _ => 24 * HOUR,
        };
        number.parse::<i64>().expect("a number") * unit
    };
    let length = micros(window);
    if spec["fixed"] == true {
        at.div_euclid(length) * length
    } else if let Some(period) = spec["period"].as_str() {
        let period = micros(period);
        (at.div_euclid(period) - (length / period - 1)) * period
    } else {
        at - length
    }
}

/// Every feature of every spec, by its definition.
pub(crate) fn brute(specs: &Value, events: &[Event], at: i64) -> Vec<Feature> {
    let mut features = Vec::new();
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| event.version);
    for spec in specs.as_array().expect("a list") {
        for function in spec["functions"].as_array().expect("a list") {
            for window in spec["windows"].as_array().expect("a list") {
                let from = start(spec, window.as_str().expect("text"), at);
                let inside = sorted.iter().filter(|event| (from..=at).contains(&event.at()));
                let counts = |event: &&&Event| spec.get("where").is_none() || event.units > Some(0);
                let inside: Vec<&Event> = inside.filter(counts).copied().collect();
                let function = function.as_str().expect("text");
                features.push(match spec["column"].as_str() {
                    None => Feature::Whole(inside.len() as i64),
                    Some("tier") => {
                        texts(function, inside.iter().filter_map(|event| event.tier.clone()).collect())
                    }
                    Some("units") => {
                        let values: Vec<i128> =
                            inside.iter().filter_map(|event| event.units.map(i128::from)).collect();
                        numbers(function, &values, 1.0, true)
                    }
                    Some(_) => {
                        let values = inside
                            .iter()
                            .filter_map(|event| event.amount.map(|amount| (amount / UNIT) as i128));
                        numbers(function, &values.collect::<Vec<_>>(), UNIT, false)
                    }
                });
            }
        }
    }
    features
}

fn texts(function: &str, values: Vec<String>) -> Feature {
    let text = |value: Option<&String>| value.map_or(Feature::Null, |text| Feature::Text(text.clone()));
    match function {
        "count" => Feature::Whole(values.len() as i64),
        "first" => text(values.first()),
        "last" => text(values.last()),
        _ => Feature::Whole(values.iter().collect::<std::collections::HashSet<_>>().len() as i64),
    }
}

/// Functions of whole numbers of `unit`.
fn numbers(function: &str, values: &[i128], unit: f64, whole: bool) -> Feature {
    let n = values.len() as i128;
    let (sum, squares): (i128, i128) = (values.iter().sum(), values.iter().map(|value| value * value).sum());
    let one = |value: Option<&i128>| match value {
        None => Feature::Null,
        Some(value) if whole => Feature::Whole(*value as i64),
        Some(value) => Feature::Float(*value as f64 * unit),
    };
    let float = |value: f64| if n == 0 { Feature::Null } else { Feature::Float(value) };
    let variance = (n * squares - sum * sum) as f64 / (n * (n - 1)).max(1) as f64 * unit * unit;
    let spread = |value: f64| if n < 2 { Feature::Null } else { Feature::Float(value) };
    match function {
        "count" => Feature::Whole(n as i64),
        "sum" => one((n > 0).then_some(&sum)),
        "sqr" => float(squares as f64 * unit * unit),
        "avg" => float(sum as f64 * unit / n as f64),
        "stdvar" => spread(variance),
        "stddev" => spread(variance.sqrt()),
        "min" => one(values.iter().min()),
        "max" => one(values.iter().max()),
        "first" => one(values.first()),
        "last" => one(values.last()),
        "distinct" => Feature::Whole(values.iter().collect::<std::collections::HashSet<_>>().len() as i64),
        quantile => {
            let mut sorted = values.to_vec();
            sorted.sort_unstable();
            let share: f64 = quantile[1..].parse().expect("a percentage");
            let rank = (n as f64 * share / 100.0).ceil() as usize;
            sorted
                .get(rank.saturating_sub(1))
                .map_or(Feature::Null, |value| Feature::Float(eight_digits(*value as f64 * unit)))
        }
    }
}

/// The nearest number of eight binary digits, ties away from zero.
fn eight_digits(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let unit = 2_f64.powi(value.abs().log2().floor() as i32 - 7);
    (value / unit).round() * unit
}

/// Equal to the bit; variances, which the oracle rounds twice, to the last digits.
pub(crate) fn check(of: &Aggregates, found: &[Feature], expected: &[Feature]) {
    for (column, (found, expected)) in of.columns().iter().zip(found.iter().zip(expected)) {
        match (found, expected) {
            (Feature::Float(found), Feature::Float(expected)) if column.name.contains("_std") => {
                assert!(
                    (found - expected).abs() <= expected.abs() * 1e-15,
                    "{}: {found} {expected}",
                    column.name
                );
            }
            _ => assert_eq!(found, expected, "{}", column.name),
        }
    }
    assert_eq!(found.len(), expected.len());
}

/// Steps of time that hit edges of windows, repeat, and leave gaps.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => Just(0),
        6 => 1..5 * MINUTE,
        2 => prop_oneof![Just(30 * SECOND), Just(MINUTE), Just(HOUR), Just(HOUR + 1), Just(HOUR - 1)],
        1 => HOUR..30 * HOUR,
    ]
}

/// Events in order of time.
pub(crate) fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    use proptest::option::weighted;
    let amount =
        weighted(0.9, prop_oneof![-1_000_000_i64..1_000_000, Just(7)].prop_map(|units| units as f64 * UNIT));
    let units = weighted(0.9, -20_i64..20);
    let tier = weighted(0.9, "[abü]{0,2}");
    let created = weighted(0.8, 0_i64..3);
    let event = (step(), amount, units, tier, created);
    (proptest::collection::vec(event, 0..most), -3 * HOUR..3 * HOUR).prop_map(|(events, begin)| {
        let mut at = begin;
        let event = |(sequence, (step, amount, units, tier, created))| {
            at += step;
            Event { version: Version { event: at, created, sequence }, amount, units, tier }
        };
        (0..).zip(events).map(event).collect()
    })
}

/// The order of arrival: mostly as it happened, some of it late.
pub(crate) fn late(events: &[Event], delays: &[i64]) -> Vec<Event> {
    let mut order: Vec<(i64, usize)> =
        events.iter().enumerate().map(|(at, event)| (event.at() + delays[at % delays.len()], at)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| events[at].clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every read that is allowed after every event, in whatever order events come and however late.
    #[test]
    fn windows_equal_a_loop_over_all_events(
        events in events(45),
        delays in proptest::collection::vec(prop_oneof![2 => Just(0), 1 => 0..2 * HOUR], 1..20),
        lateness in prop_oneof![Just(0), Just(30 * MINUTE), Just(2 * HOUR), Just(48 * HOUR)],
        ahead in 0..26 * HOUR,
    ) {
        let specs = specs();
        let of = aggregates(&specs, lateness).unwrap();
        let mut ledger = Ledger::default();
        let (mut taken, mut newest): (Vec<Event>, Option<i64>) = (Vec::new(), None);
        for event in late(&events, &delays) {
            let expected = match newest {
                Some(newest) if event.at() < newest - lateness => Added::TooLate,
                _ => Added::Taken,
            };
            prop_assert_eq!(add(&of, &mut ledger, std::slice::from_ref(&event), 1), &[expected]);
            if expected == Added::Taken {
                newest = newest.max(Some(event.at()));
                taken.push(event.clone());
            }
            let newest = newest.unwrap_or(0);
            prop_assert_eq!(ledger.horizon(), newest - lateness);
            for at in [event.at(), newest - lateness, newest, newest + ahead, newest + HOUR, newest + 24 * HOUR] {
                if at >= newest - lateness {
                    check(&of, &read(&of, &ledger, at), &brute(&specs, &taken, at));
                }
            }
            prop_assert!(ledger.read(&of, newest - lateness - 1).is_err());
        }
    }
}

/// Enough events for a tree of three levels, in order, in reverse, and with a third of them late.
#[test]
fn many_events_in_any_order_equal_a_loop_over_them() {
    let specs = specs();
    let events: Vec<Event> = (0..9_000_u64)
        .map(|sequence| {
            let mixed = (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64;
            Event {
                version: Version { event: (sequence as i64) / 3 * 4 * SECOND, created: None, sequence },
                amount: Some((mixed % 400 * 257 - 50_000) as f64 * UNIT),
                units: (mixed % 11 > 0).then_some(mixed % 40 - 20),
                tier: Some(format!("{}", mixed % 7)),
            }
        })
        .collect();
    let end = events.last().unwrap().at();
    let lateness = 12_000 * SECOND;
    let of = aggregates(&specs, lateness).unwrap();
    let reversed: Vec<Event> = events.iter().rev().cloned().collect();
    let delayed = late(&events, &[0, 0, HOUR, 0, 0, 90 * MINUTE]);
    let mut bytes = Vec::new();
    for order in [&events, &reversed, &delayed] {
        let mut ledger = Ledger::default();
        let added = add(&of, &mut ledger, order, 512);
        assert!(added.iter().all(|added| *added == Added::Taken));
        for at in [end - lateness, end - HOUR, end - 1, end, end + 17 * MINUTE, end + 20 * HOUR] {
            check(&of, &read(&of, &ledger, at), &brute(&specs, &events, at));
        }
        bytes.push(ledger.encode(&of));
    }
    assert!(bytes.iter().all(|other| *other == bytes[0]));
}

/// Events leave a tree of three levels at its front while others come late into its middle.
#[test]
fn events_that_leave_and_events_that_come_late_equal_a_loop_over_all() {
    let specs = json!([
        {"column": "units", "functions": ["count", "sum", "min", "max", "first", "last"], "windows": ["10m", "2h"]},
        {"column": "units", "functions": ["sum", "max"], "windows": ["1h"], "fixed": true, "name": "fixed"},
        {"column": "units", "functions": ["sum", "min"], "windows": ["3h"], "period": "20m", "name": "stepped"},
    ]);
    let lateness = 5 * MINUTE;
    let mixed = |of: i64| (of as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let event = |number: i64| Event {
        version: Version { event: number * SECOND, created: None, sequence: number as u64 },
        units: Some((mixed(number) % 2_000) as i64 - 1_000),
        ..Event::default()
    };
    let events: Vec<Event> = (0..20_000).map(event).collect();
    let delays: Vec<i64> =
        (0..97).map(|number| if number % 3 == 0 { mixed(number) as i64 % lateness } else { 0 }).collect();
    let arrivals = late(&events, &delays);
    let of = aggregates(&specs, lateness).unwrap();
    let mut ledger = Ledger::default();
    for (chunk, upto) in arrivals.chunks(997).zip(1..) {
        let added = add(&of, &mut ledger, chunk, 997);
        assert!(added.iter().all(|added| *added == Added::Taken));
        let taken = &arrivals[..(upto * 997).min(arrivals.len())];
        let newest = taken.iter().map(Event::at).max().unwrap();
        for at in [newest - lateness, newest - 1, newest, newest + 7 * MINUTE] {
            check(&of, &read(&of, &ledger, at), &brute(&specs, taken, at));
        }
    }
}
