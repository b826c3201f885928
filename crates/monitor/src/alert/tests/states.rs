//! When an alert is active, and when it clears.

use serde_json::json;

use super::{SECOND, alerts, one, sample, table, told};
use crate::alert::{Ending, State};

const NO: &str = "";

#[test]
fn a_value_past_the_threshold_fires_once_and_clears_once() {
    let cases = [
        (json!({"above": 0.2}), [0.2, 0.3, 0.4, 0.2, 0.1]),
        (json!({"below": 0.2}), [0.2, 0.1, 0.0, 0.2, 0.3]),
        (json!({"outside": [0.1, 0.2]}), [0.15, 0.3, 0.05, 0.1, 0.2]),
    ];
    for (condition, values) in cases {
        let [fine, fires, more, clears, clear] = values;
        let (firing, resolved) = (format!("firing {fires}"), format!("resolved {clears}"));
        table(
            one(condition, json!({})),
            &[(1, fine, NO), (2, fires, &firing), (3, more, NO), (4, clears, &resolved), (5, clear, NO)],
        );
    }
}

#[test]
fn a_value_between_threshold_and_clear_keeps_the_state() {
    table(
        one(json!({"above": 0.2}), json!({"clear": 0.15})),
        &[
            (1, 0.18, NO),
            (2, 0.21, "firing 0.21"),
            (3, 0.18, NO),
            (4, 0.25, NO),
            (5, 0.16, NO),
            (6, 0.15, "resolved 0.15"),
            (7, 0.18, NO),
        ],
    );
    table(
        one(json!({"outside": [0.0, 1.0]}), json!({"clear": [0.4, 0.6]})),
        &[(1, 2.0, "firing 2"), (2, 0.7, NO), (3, -1.0, NO), (4, 0.3, NO), (5, 0.5, "resolved 0.5")],
    );
    table(
        one(json!({"below": 0.2}), json!({"clear": 0.3})),
        &[(1, 0.1, "firing 0.1"), (2, 0.25, NO), (3, 0.3, "resolved 0.3")],
    );
}

#[test]
fn three_of_the_last_five_evaluations_fire_and_fewer_clear() {
    table(
        one(json!({"above": 0.5}), json!({"hold": {"of": 5, "at_least": 3}})),
        &[
            (1, 1.0, NO),
            (2, 0.0, NO),
            (3, 1.0, NO),
            (4, 0.0, NO),
            (5, 1.0, "firing 1"),
            (6, 0.0, "resolved 0"),
            (7, 1.0, "firing 1"),
            (8, 1.0, NO),
            (9, 0.0, NO),
            (10, 0.0, "resolved 0"),
            (11, 0.0, NO),
        ],
    );
}

#[test]
fn a_held_window_needs_all_of_its_evaluations_by_default() {
    table(
        one(json!({"above": 0.5}), json!({"hold": {"of": 3}})),
        &[(1, 1.0, NO), (2, 1.0, NO), (3, 1.0, "firing 1"), (4, 0.0, "resolved 0"), (5, 1.0, NO)],
    );
}

#[test]
fn firings_count_within_the_period_by_event_time() {
    table(
        one(json!({"above": 0.5}), json!({"criteria": {"count": 3, "period": "10s"}})),
        &[
            (1, 1.0, NO),
            (2, 0.0, NO),
            (3, 1.0, NO),
            // The firing at 1 s is just out of the ten seconds.
            (11, 1.0, NO),
            (12, 1.0, "firing 1"),
            (13, 1.0, NO),
            (14, 1.0, NO),
            (15, 0.0, "resolved 0"),
            // What led to an activation that is over counts no more.
            (16, 1.0, NO),
            (17, 1.0, NO),
            (18, 1.0, "firing 1"),
        ],
    );
}

#[test]
fn firings_are_counted_while_an_alert_is_active() {
    let alerts =
        one(json!({"above": 0.5}), json!({"criteria": {"count": 2, "period": "1m"}, "reset": "manual"}));
    let alerts = table(
        alerts,
        &[(1, 1.0, NO), (2, 2.0, "firing 2"), (3, 5.0, NO), (4, 0.0, NO), (5, 3.0, NO), (6, 4.0, NO)],
    );
    let series = alerts.series().next().unwrap();
    let activation = series.activation.unwrap();
    assert_eq!((activation.firings, activation.peak, activation.last), (5, 5.0, 4.0));
    assert_eq!((activation.started, activation.value), (2 * SECOND, 2.0));
}

#[test]
fn a_manual_alert_waits_for_its_reset() {
    let mut alerts = table(
        one(json!({"above": 0.5}), json!({"reset": "manual"})),
        &[(1, 1.0, "firing 1"), (2, 0.0, NO), (3, 2.0, NO), (4, 0.0, NO)],
    );
    assert_eq!(alerts.series().next().unwrap().state, State::Waiting);
    assert_eq!(alerts.reset("b", None, 5 * SECOND), 0);
    assert_eq!(alerts.reset("a", None, 5 * SECOND), 1);
    assert_eq!(alerts.reset("a", None, 5 * SECOND), 0);
    assert_eq!(told(&alerts.tick(5 * SECOND)), "resolved 0");
    let (_, activation) = alerts.history("a").next().unwrap();
    assert_eq!(activation.ended, Some((5 * SECOND, Ending::Reset)));
    // The same observations again are over and done with, a new one is not.
    table(alerts, &[(3, 2.0, NO), (4, 2.0, NO), (6, 2.0, "firing 2")]);
}

#[test]
fn a_reset_alert_that_still_breaches_fires_at_its_next_value() {
    let mut alerts = table(one(json!({"above": 0.5}), json!({})), &[(1, 1.0, "firing 1")]);
    assert_eq!(alerts.reset("a", Some(&super::labels(&[("x", "y")])), 2 * SECOND), 0);
    assert_eq!(alerts.reset("a", Some(&super::labels(&[])), 2 * SECOND), 1);
    table(alerts, &[(3, 2.0, "resolved 1, firing 2")]);
}

#[test]
fn states_follow_each_other() {
    let mut alerts = one(json!({"above": 0.5}), json!({"hold": {"of": 2}, "reset": "manual"}));
    let rows = [
        (1, 0.0, State::Inactive, 1),
        (2, 1.0, State::Pending, 2),
        (3, 0.0, State::Pending, 2),
        (4, 0.0, State::Inactive, 4),
        (5, 1.0, State::Pending, 5),
        (6, 1.0, State::Active, 6),
        (7, 0.0, State::Waiting, 7),
        (8, 1.0, State::Waiting, 7),
        (9, 1.0, State::Active, 9),
    ];
    for (at, value, state, since) in rows {
        alerts.observe(&sample("m", &[], at, value));
        let series = alerts.series().next().unwrap();
        // The first evaluation finds the series inactive since just before it.
        let since = if at == 1 { SECOND - 1 } else { since * SECOND };
        assert_eq!((series.state, series.since), (state, since), "at {at} s");
    }
}

#[test]
fn late_and_repeated_observations_count_by_their_own_time() {
    let settings = json!({"hold": {"of": 3, "at_least": 2}});
    let alerts = table(
        one(json!({"above": 0.5}), settings),
        &[
            (10, 1.0, NO),
            // Once more is not twice.
            (10, 1.0, NO),
            (10, 7.0, NO),
            (30, 0.0, NO),
            // It comes last but belongs between the others: two of three.
            (20, 2.0, "firing 2"),
            // Older than all three.
            (5, 0.0, NO),
            (40, 0.0, "resolved 0"),
        ],
    );
    let counts = alerts.counts();
    assert_eq!((counts.evaluated, counts.repeated, counts.late), (4, 2, 1));
}

#[test]
fn an_older_value_changes_nothing_when_only_the_last_counts() {
    let alerts =
        table(one(json!({"above": 0.5}), json!({})), &[(10, 0.0, NO), (9, 1.0, NO), (11, 1.0, "firing 1")]);
    assert_eq!(alerts.counts().late, 1);
    let alerts = table(alerts, &[(10, 0.0, NO)]);
    assert_eq!(alerts.counts().late, 2);
}

#[test]
fn what_came_and_went_between_two_ticks_is_told_once() {
    let mut alerts = one(json!({"above": 0.5}), json!({"cooldown": "1m"}));
    assert!(alerts.tick(0).is_empty());
    alerts.observe(&sample("m", &[], 1, 1.0));
    alerts.observe(&sample("m", &[], 2, 0.0));
    assert_eq!(told(&alerts.tick(3 * SECOND)), "resolved 0");
    assert_eq!(told(&alerts.tick(4 * SECOND)), "");
    // It was news, so it started the cooldown.
    table(alerts, &[(5, 1.0, NO), (6, 0.0, NO)]);
}

#[test]
fn infinities_are_values_and_nan_is_none() {
    let alerts = table(
        one(json!({"above": 0.5}), json!({})),
        &[
            (1, f64::NAN, NO),
            (2, f64::INFINITY, "firing inf"),
            (3, f64::NAN, NO),
            (4, f64::NEG_INFINITY, "resolved -inf"),
        ],
    );
    assert_eq!((alerts.counts().no_number, alerts.counts().evaluated), (2, 2));
}

#[test]
fn labels_choose_the_samples_and_tell_the_series_apart() {
    let when = json!({"metric": "drift", "graph": "loan", "column": "*", "above": 0.2});
    let mut alerts = alerts(json!({"a": {"when": when, "notify": ["log"]}}));
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: [Row<'_>; 7] = [
        ("drift", &[("graph", "loan"), ("column", "age")], "age.loan firing 1"),
        ("drift", &[("graph", "loan"), ("column", "income")], "income.loan firing 1"),
        ("drift", &[("graph", "loan")], NO),
        ("drift", &[("graph", "fraud"), ("column", "age")], NO),
        ("drift", &[("column", "age")], NO),
        ("psi", &[("graph", "loan"), ("column", "age")], NO),
        ("drift", &[("graph", "loan"), ("column", "age"), ("edge", "in")], "age.in.loan firing 1"),
    ];
    for (at, (metric, labels, expected)) in (1..).zip(rows) {
        alerts.observe(&sample(metric, labels, at, 1.0));
        assert_eq!(told(&alerts.tick(at * SECOND)), expected, "{metric} {labels:?}");
    }
}

#[test]
fn the_history_has_the_last_fifty_activations() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    for round in 0..60 {
        let at = 10 * round;
        alerts.observe(&sample("m", &[], at, 1.0));
        alerts.observe(&sample("m", &[], at + 1, 2.0));
        alerts.observe(&sample("m", &[], at + 2, 0.0));
    }
    let history: Vec<_> = alerts.history("a").collect();
    assert_eq!(history.len(), 50);
    let (_, oldest) = history[0];
    assert_eq!((oldest.started, oldest.value, oldest.peak, oldest.last), (100 * SECOND, 1.0, 2.0, 0.0));
    assert_eq!(oldest.ended, Some((102 * SECOND, Ending::Cleared)));
}
