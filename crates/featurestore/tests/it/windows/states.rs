//! Ledgers written down, read again, joined and given up.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use millstream_featurestore::DecodeError;

fn specs() -> Value {
    let every = json!(["sum", "stddev", "min", "first", "last", "distinct", "p50"]);
    json!([
        {"column": "amount", "functions": every, "windows": ["1h"]},
        {"column": "tier", "functions": ["last"], "windows": ["2h"], "where": "units > 0"},
        {"column": "amount", "functions": every, "windows": ["1h", "1d"], "fixed": true, "name": "fixed"},
        {"column": "tier", "functions": ["first", "distinct"], "windows": ["1h"], "period": "10m", "name": "stepped"},
    ])
}

/// Events with floats of every kind, and texts.
fn events() -> impl Strategy<Value = Vec<Event>> {
    use proptest::option::weighted;
    let float = prop_oneof![
        4 => any::<f64>(),
        4 => -1e3..1e3,
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX), Just(5e-324)],
    ];
    let event = (0..6 * HOUR, weighted(0.9, float), weighted(0.9, -2_i64..3), weighted(0.9, "[ab]{0,2}"));
    proptest::collection::vec(event, 0..90).prop_map(|events| {
        let made = |(sequence, (at, amount, units, tier))| {
            // To the minute, so that some are equally late.
            let version = Version { event: at / MINUTE * MINUTE, created: None, sequence };
            Event { version, amount, units, tier }
        };
        (0..).zip(events).map(made).collect()
    })
}

fn taken(of: &Aggregates, events: &[Event], size: usize) -> Ledger {
    let mut ledger = Ledger::default();
    let added = add(of, &mut ledger, events, size);
    assert!(added.iter().all(|added| *added == Added::Taken));
    ledger
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn order_batches_restarts_and_joins_change_no_bit(
        events in events(),
        order in any::<u64>(),
        cut in 0_usize..90,
        size in 1_usize..20,
        last in 0..12 * HOUR,
    ) {
        let of = aggregates(&specs(), 6 * HOUR).unwrap();
        let whole = taken(&of, &events, 1000);
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|event| (event.version.sequence ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (left, right) = shuffled.split_at(cut.min(events.len()));

        let mut restarted = Ledger::decode(&of, &taken(&of, left, size).encode(&of)).unwrap();
        add(&of, &mut restarted, right, size);
        let mut joined = taken(&of, left, size);
        joined.merge(&of, &taken(&of, right, size));
        let newest = events.iter().map(Event::at).max().unwrap_or(0);
        for mut other in [restarted, joined] {
            prop_assert_eq!(other.encode(&of), whole.encode(&of));
            for at in [newest - 6 * HOUR, newest, newest + last] {
                prop_assert_eq!(bits(&read(&of, &other, at)), bits(&read(&of, &whole, at)));
            }
            // What has been forgotten is closed into periods, and still the same whatever the way there.
            let mut whole = whole.clone();
            other.forget_before(&of, newest);
            whole.forget_before(&of, newest);
            prop_assert_eq!(other.encode(&of), whole.encode(&of));
            let again = Ledger::decode(&of, &whole.encode(&of)).unwrap();
            prop_assert_eq!(again.encode(&of), whole.encode(&of));
            prop_assert_eq!(bits(&read(&of, &again, newest + last)), bits(&read(&of, &whole, newest + last)));
        }
    }

    /// A ledger whose events have been closed joins with one that has newer or older ones.
    #[test]
    fn joining_after_closing_equals_all_together(events in events(), cut in 0..6 * HOUR) {
        let of = aggregates(&specs(), 0).unwrap();
        let mut sorted = events;
        sorted.sort_by_key(|event| event.version);
        let whole = taken(&of, &sorted, 7);
        let (left, right): (Vec<Event>, Vec<Event>) = sorted.into_iter().partition(|event| event.at() < cut);
        let (left, right) = (taken(&of, &left, 7), taken(&of, &right, 7));
        for (into, from) in [(&left, &right), (&right, &left)] {
            let mut joined = into.clone();
            joined.merge(&of, from);
            prop_assert_eq!(joined.encode(&of), whole.encode(&of));
        }
    }

    /// Any bytes: no panic, and what is read is written as it was.
    #[test]
    fn damaged_bytes_are_refused_or_mean_what_they_say(
        events in events(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        keep in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
        at in 0..20 * HOUR,
    ) {
        let of = aggregates(&specs(), HOUR).unwrap();
        let mut ledger = Ledger::default();
        add(&of, &mut ledger, &events, 50);
        let mut bytes = ledger.encode(&of);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if truncate {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Ok(mut read) = Ledger::decode(&of, &bytes) {
            prop_assert_eq!(&read.encode(&of), &bytes);
            _ = read.read(&of, at);
            read.merge(&of, &ledger);
            add(&of, &mut read, &events, 50);
            read.forget_before(&of, at);
        }
    }
}

#[test]
fn bytes_of_other_aggregates_or_formats_are_told_apart() {
    let of = aggregates(&specs(), HOUR).unwrap();
    let bytes = Ledger::default().encode(&of);
    let others = [
        json!([{"column": "amount", "functions": ["sum"], "windows": ["1h"]}]),
        json!([{"column": "amount", "functions": ["sum"], "windows": ["2h"]}]),
        json!([{"column": "amount", "functions": ["sum"], "windows": ["2h"], "where": "units > 1"}]),
        json!([{"column": "units", "functions": ["sum"], "windows": ["2h"]}]),
        json!([{"column": "units", "functions": ["sum"], "windows": ["2h"], "fixed": true}]),
        json!([{"column": "units", "functions": ["sum"], "windows": ["2h"], "period": "1h"}]),
    ];
    let mut all: Vec<(Aggregates, Vec<u8>)> = others
        .iter()
        .map(|specs| {
            let of = aggregates(specs, HOUR).unwrap();
            let bytes = Ledger::default().encode(&of);
            (of, bytes)
        })
        .collect();
    all.push((of, bytes));
    for (place, (of, _)) in all.iter().enumerate() {
        for (other, (_, bytes)) in all.iter().enumerate() {
            let expected = if place == other { None } else { Some(DecodeError::OtherAggregates) };
            assert_eq!(Ledger::decode(of, bytes).err(), expected, "{place} {other}");
        }
    }
    let (of, bytes) = &all[0];
    let with = |first: u8| [&[first], &bytes[1..]].concat();
    assert_eq!(Ledger::decode(of, &with(9)).err(), Some(DecodeError::Format(9)));
    assert_eq!(Ledger::decode(of, &[]).err(), Some(DecodeError::Damaged { at: 0 }));
    assert_eq!(
        Ledger::decode(of, &[&bytes[..], &[0]].concat()).err(),
        Some(DecodeError::Damaged { at: bytes.len() })
    );
}

#[test]
fn a_change_of_names_or_lateness_keeps_what_is_stored() {
    let mean = |name: &str, window: &str, lateness: i64| {
        let spec = json!({"column": "amount", "functions": ["avg"], "windows": [window], "name": name});
        aggregates(&json!([spec]), lateness).unwrap()
    };
    let (before, after) = (mean("amount", "60m", HOUR), mean("paid", "1h", 2 * HOUR));
    let ledger = taken(&before, &[Event { amount: Some(3.0), ..Event::default() }], 1);
    let ledger = Ledger::decode(&after, &ledger.encode(&before)).unwrap();
    assert_eq!(read(&after, &ledger, HOUR), [Feature::Float(3.0)]);
}

/// Memory: sliding windows keep what their edge may still pass, aligned ones a few accumulators.
#[test]
fn what_no_window_can_cut_is_given_up() {
    let minutes: Vec<Event> = (0..10_000)
        .map(|minute| Event {
            version: Version { event: minute * MINUTE, created: None, sequence: minute as u64 },
            amount: Some(1.5),
            ..Event::default()
        })
        .collect();
    let after = |spec: Value, count: usize| {
        let of = aggregates(&json!([spec]), 0).unwrap();
        let mut ledger = Ledger::default();
        add(&of, &mut ledger, &minutes[..count], 1000);
        (ledger.bytes(), ledger.events())
    };
    let sliding = json!({"column": "amount", "functions": ["sum"], "windows": ["1h"]});
    let (few, many) = (after(sliding.clone(), 200), after(sliding, 10_000));
    assert_eq!((few.1, many.1), (61, 61));
    assert!(many.0 <= few.0 * 2);
    for aligned in [
        json!({"column": "amount", "functions": ["sum", "stddev"], "windows": ["30d"], "fixed": true}),
        json!({"column": "amount", "functions": ["sum", "stddev"], "windows": ["6h"], "period": "1h"}),
    ] {
        let (bytes, events) = after(aligned.clone(), 10_000);
        assert_eq!(events, 1);
        assert!(bytes < 5_000, "{aligned}: {bytes}");
    }
    // A key that nothing comes for is forgotten as time goes on.
    let of =
        aggregates(&json!([{"column": "amount", "functions": ["sum"], "windows": ["1h"]}]), HOUR).unwrap();
    let mut ledger = taken(&of, &minutes[..200], 100);
    ledger.forget_before(&of, 199 * MINUTE + HOUR);
    assert!(!ledger.is_empty());
    ledger.forget_before(&of, 199 * MINUTE + HOUR + 1);
    assert!(ledger.is_empty());
    assert_eq!(read(&of, &ledger, 199 * MINUTE + HOUR + 1), [Feature::Null]);
    assert_eq!(ledger.bytes(), Ledger::default().bytes());
}
