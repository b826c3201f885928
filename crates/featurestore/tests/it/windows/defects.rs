//! Where other engines are known to give wrong answers: the same events, and what is right.

use serde_json::{Value, json};

use super::*;

/// `21:40` or `02:51:43`, on a day since 1970.
fn clock(text: &str) -> i64 {
    const DAY: i64 = 18_464 * 24 * HOUR;
    let (day, time) = text.strip_prefix("+1 ").map_or((DAY, text), |time| (DAY + 24 * HOUR, time));
    let parts = time.split(':').map(|part| part.parse::<i64>().expect("a number"));
    day + parts.zip([HOUR, MINUTE, SECOND]).map(|(part, unit)| part * unit).sum::<i64>()
}

/// Adds the events one after another, each with its value, and reads the features at the time of each.
fn check(spec: Value, events: &[(&str, f64)], expected: &[&[Feature]]) {
    let of = aggregates(&json!([spec]), 24 * HOUR).unwrap();
    let mut ledger = Ledger::default();
    for (sequence, ((time, amount), expected)) in events.iter().zip(expected).enumerate() {
        let version = Version { event: clock(time), created: None, sequence: sequence as u64 };
        let event = Event { version, amount: Some(*amount), ..Event::default() };
        assert_eq!(add(&of, &mut ledger, &[event], 1), [Added::Taken]);
        assert_eq!(read(&of, &ledger, clock(time)), *expected, "at {time}, event {sequence}");
    }
    assert_eq!(events.len(), expected.len());
}

/// The same, without an event: the features at `time` after all events.
fn check_at(spec: Value, events: &[(&str, f64)], reads: &[(&str, &[Feature])]) {
    let of = aggregates(&json!([spec]), 24 * HOUR).unwrap();
    let mut ledger = Ledger::default();
    for (sequence, (time, amount)) in events.iter().enumerate() {
        let version = Version { event: clock(time), created: None, sequence: sequence as u64 };
        add(&of, &mut ledger, &[Event { version, amount: Some(*amount), ..Event::default() }], 1)
            .iter()
            .for_each(|added| assert_eq!(*added, Added::Taken));
    }
    for (time, expected) in reads {
        assert_eq!(read(&of, &ledger, clock(time)), *expected, "at {time}");
    }
}

use Feature::{Float as F, Null, Whole as W};

fn sliding(functions: Value) -> Value {
    json!({"column": "amount", "functions": functions, "windows": ["1h"]})
}

#[test]
fn fixed_windows_count_right_beside_min_and_max() {
    let spec = json!({"column": "amount", "functions": ["count", "max"], "windows": ["1h", "3h", "24h"], "fixed": true});
    check_at(
        spec,
        &[("00:20", 9.0), ("02:51:43", 5.0), ("02:51:44", 4.0), ("03:01:45", 1.0)],
        &[
            ("02:51:44", &[W(2), W(3), W(3), F(5.0), F(9.0), F(9.0)]),
            ("03:01:45", &[W(1), W(1), W(4), F(1.0), F(1.0), F(9.0)]),
        ],
    );
}

#[test]
fn a_late_event_counts_in_its_own_window_and_in_later_ones() {
    let events = [("21:40", 1.0), ("22:10", 2.0), ("21:50", 100.0), ("22:11", 3.0)];
    check(sliding(json!(["sum"])), &events, &[&[F(1.0)], &[F(3.0)], &[F(101.0)], &[F(106.0)]]);
}

#[test]
fn an_event_before_the_first_one_of_its_key_counts() {
    let events = [("22:10", 1.0), ("21:40", 2.0), ("22:11", 4.0)];
    check(sliding(json!(["sum"])), &events, &[&[F(1.0)], &[F(2.0)], &[F(7.0)]]);
}

#[test]
fn first_is_the_earliest_event_that_is_still_inside() {
    let events = [("21:40", 1.0), ("22:00", 2.0), ("22:20", 3.0), ("22:55", 4.0), ("23:15", 5.0)];
    check(sliding(json!(["first"])), &events, &[&[F(1.0)], &[F(1.0)], &[F(1.0)], &[F(2.0)], &[F(3.0)]]);
    check(
        sliding(json!(["first"])),
        &[("21:45", 10.0), ("21:41", 1.0), ("21:46", 2.0)],
        &[&[F(10.0)], &[F(1.0)], &[F(1.0)]],
    );
}

#[test]
fn last_is_the_greatest_version_of_a_tie() {
    let events = [("21:45", 1.0), ("21:45", 2.0), ("21:45", 3.0)];
    check(
        sliding(json!(["first", "last"])),
        &events,
        &[&[F(1.0), F(1.0)], &[F(1.0), F(2.0)], &[F(1.0), F(3.0)]],
    );
}

#[test]
fn a_large_value_that_leaves_takes_nothing_with_it() {
    let events = [("21:40", 1e16), ("22:10", 0.1), ("22:45", 0.1)];
    check(sliding(json!(["sum"])), &events, &[&[F(1e16)], &[F(1e16)], &[F(0.2)]]);
}

#[test]
fn a_small_spread_around_a_large_mean_is_kept() {
    check(
        sliding(json!(["stdvar"])),
        &[("21:40", 1e9 + 0.1), ("21:41", 1e9 + 0.1), ("21:42", 1e9 + 0.1)],
        &[&[Null], &[F(0.0)], &[F(0.0)]],
    );
    check_at(
        sliding(json!(["stdvar"])),
        &[("21:40", 1e8 + 4.0), ("21:41", 1e8 + 7.0), ("21:42", 1e8 + 13.0), ("21:43", 1e8 + 16.0)],
        &[("21:43", &[F(30.0)])],
    );
}

#[test]
fn nan_is_no_value_and_infinity_leaves_with_its_event() {
    let events =
        [("21:40", f64::NAN), ("21:41", 2.0), ("21:42", f64::INFINITY), ("21:43", f64::NEG_INFINITY)];
    let reads: [(&str, &[Feature]); 4] = [
        ("21:41", &[W(1), F(2.0), F(2.0), Null, F(2.0), F(4.0)]),
        (
            "21:42",
            &[W(2), F(f64::INFINITY), F(f64::INFINITY), F(f64::NAN), F(f64::INFINITY), F(f64::INFINITY)],
        ),
        (
            "22:42:30",
            &[W(1), F(f64::NEG_INFINITY), F(f64::NEG_INFINITY), Null, F(f64::NEG_INFINITY), F(f64::INFINITY)],
        ),
        ("22:44", &[W(0), Null, Null, Null, Null, Null]),
    ];
    let of = aggregates(&json!([sliding(json!(["count", "sum", "avg", "stdvar", "max", "sqr"]))]), 24 * HOUR)
        .unwrap();
    let mut ledger = Ledger::default();
    for (time, amount) in events {
        let event = Event {
            version: Version { event: clock(time), ..Version::default() },
            amount: Some(amount),
            ..Event::default()
        };
        assert_eq!(add(&of, &mut ledger, &[event], 1), [Added::Taken]);
    }
    for (time, expected) in reads {
        assert_eq!(bits(&read(&of, &ledger, clock(time))), bits(expected), "at {time}");
    }
    let nans = batch(&[Event { amount: Some(f64::NAN), ..Event::default() }, Event::default()]);
    assert_eq!(of.prepare(&nans).unwrap().not_a_number(), 1);
    assert_eq!(
        read(&of, &ledger, clock("21:43"))[1..3]
            .iter()
            .filter(|sum| matches!(sum, F(sum) if sum.is_nan()))
            .count(),
        2
    );
}

/// The sum of what is left must not be what was taken away.
#[test]
fn a_late_event_leaves_no_debt_behind() {
    let spec = sliding(json!(["sum", "count"]));
    check_at(
        spec.clone(),
        &[("00:01", 1.0), ("00:09", 10.0), ("00:05", 100.0)],
        &[
            ("00:09", &[F(111.0), W(3)]),
            ("01:05", &[F(110.0), W(2)]),
            ("01:05:01", &[F(10.0), W(1)]),
            ("01:15", &[Null, W(0)]),
        ],
    );
    // Windows that slide in steps of ten minutes forget all three at once.
    let stepped =
        json!({"column": "amount", "functions": ["sum", "count"], "windows": ["1h"], "period": "10m"});
    check_at(
        stepped,
        &[("00:01", 1.0), ("00:09", 10.0), ("00:05", 100.0)],
        &[
            ("00:09", &[F(111.0), W(3)]),
            ("00:59:59", &[F(111.0), W(3)]),
            ("01:02", &[Null, W(0)]),
            ("01:15", &[Null, W(0)]),
        ],
    );
}

#[test]
fn the_order_of_arrival_inside_a_step_changes_nothing() {
    let stepped =
        json!({"column": "amount", "functions": ["sum", "count"], "windows": ["1h"], "period": "10m"});
    let events = [("00:01", 1.0), ("00:05", 100.0), ("00:09", 10.0), ("00:15", 3.0)];
    for order in [[0, 1, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let events = order.map(|at| events[at]);
        check_at(stepped.clone(), &events, &[("00:09", &[F(111.0), W(3)]), ("00:15", &[F(114.0), W(4)])]);
    }
}

/// Published expectations for round hours, which hold for counts.
#[test]
fn fixed_windows_begin_at_round_times() {
    let spec = json!({"column": "amount", "functions": ["count"], "windows": ["1h", "2h", "3h", "24h"], "fixed": true});
    let times = [
        "21:40", "22:05", "22:30", "22:55", "23:20", "23:45", "+1 00:10", "+1 00:35", "+1 01:00", "+1 01:25",
    ];
    let events = times.map(|time| (time, 1.0));
    let counts = [
        [1, 1, 1, 1],
        [1, 1, 2, 2],
        [2, 2, 3, 3],
        [3, 3, 4, 4],
        [1, 4, 5, 5],
        [2, 5, 6, 6],
        [1, 1, 1, 1],
        [2, 2, 2, 2],
        [1, 3, 3, 3],
        [2, 4, 4, 4],
    ];
    let counts = counts.map(|counts| counts.map(W));
    check(spec, &events, &counts.each_ref().map(|counts| &counts[..]));
}
