//! Who is told, and when: groups, cooldowns, silences, inhibition.

use serde_json::{Value, json};

use super::{SECOND, alerts, one, sample, table, told};
use crate::alert::{Alerts, Matchers, NewSilence, SilenceError};

fn grouped(group_by: Value) -> Alerts {
    let when = json!({"metric": "m", "graph": "*", "column": "*", "above": 0.5});
    let mut alert = json!({"when": when, "notify": ["log"]});
    if !group_by.is_null() {
        alert["group_by"] = group_by;
    }
    alerts(json!({ "a": alert }))
}

#[test]
fn series_of_a_group_share_a_message_per_tick() {
    let cases = [
        (json!(null), "a.x firing 1; a.y firing 1; b.x firing 1"),
        (json!(["graph"]), "a.x firing 1, b.x firing 1; a.y firing 1"),
        (json!([]), "a.x firing 1, a.y firing 1, b.x firing 1"),
    ];
    for (group_by, expected) in cases {
        let mut alerts = grouped(group_by.clone());
        for (graph, column) in [("y", "a"), ("x", "b"), ("x", "a")] {
            alerts.observe(&sample("m", &[("graph", graph), ("column", column)], 1, 1.0));
        }
        assert_eq!(told(&alerts.tick(2 * SECOND)), expected, "grouped by {group_by}");
        assert_eq!(told(&alerts.tick(3 * SECOND)), "");
    }
}

#[test]
fn a_message_has_what_ended_before_what_fires() {
    let mut alerts = grouped(json!(["graph"]));
    alerts.observe(&sample("m", &[("graph", "x"), ("column", "b")], 1, 1.0));
    alerts.tick(2 * SECOND);
    alerts.observe(&sample("m", &[("graph", "x"), ("column", "a")], 3, 2.0));
    alerts.observe(&sample("m", &[("graph", "x"), ("column", "b")], 3, 0.0));
    assert_eq!(told(&alerts.tick(4 * SECOND)), "b.x resolved 0, a.x firing 2");
}

#[test]
fn a_cooldown_holds_back_until_it_is_over() {
    table(
        one(json!({"above": 0.5}), json!({"cooldown": "10s"})),
        &[
            (1, 1.0, "firing 1"),
            // The end of what was told is told at once.
            (2, 0.0, "resolved 0"),
            (3, 2.0, ""),
            (4, 0.0, ""),
            (5, 3.0, ""),
            (10, 4.0, ""),
            (11, 5.0, "firing 5"),
            (12, 5.0, ""),
            (13, 0.0, "resolved 0"),
        ],
    );
}

#[test]
fn each_channel_has_its_own_cooldown() {
    let notify = json!(["log", {"webhook": {"url": "https://hook.test/", "cooldown": "2s"}}]);
    table(
        one(json!({"above": 0.5}), json!({"cooldown": "10s", "notify": notify})),
        &[
            (1, 1.0, "firing 1; #1 firing 1"),
            (2, 0.0, "resolved 0; #1 resolved 0"),
            (3, 1.0, "#1 firing 1"),
            (4, 0.0, "#1 resolved 0"),
            (5, 1.0, "#1 firing 1"),
            (11, 1.0, "firing 1"),
        ],
    );
}

#[test]
fn each_group_has_its_own_cooldown() {
    let mut alerts = alerts(json!({"a": {
        "when": {"metric": "m", "graph": "*", "column": "*", "above": 0.5},
        "group_by": ["graph"], "cooldown": "10s", "notify": ["log"],
    }}));
    let rows = [
        (1, "x", "a", "a.x firing 1"),
        (2, "x", "b", ""),
        (3, "y", "a", "a.y firing 1"),
        (4, "x", "c", ""),
        // Everything that the cooldown held back comes together.
        (11, "x", "a", "b.x firing 1, c.x firing 1"),
    ];
    for (at, graph, column, expected) in rows {
        alerts.observe(&sample("m", &[("graph", graph), ("column", column)], at, 1.0));
        assert_eq!(told(&alerts.tick(at * SECOND)), expected, "at {at} s");
    }
}

#[test]
fn a_clock_that_goes_back_ends_a_cooldown_rather_than_prolong_it() {
    let mut alerts = one(json!({"above": 0.5}), json!({"cooldown": "10s"}));
    alerts.tick(1000 * SECOND);
    alerts.observe(&sample("m", &[], 1, 1.0));
    assert_eq!(told(&alerts.tick(1000 * SECOND)), "firing 1");
    assert_eq!(told(&alerts.tick(2 * SECOND)), "");
    table(alerts, &[(2, 0.0, "resolved 0"), (3, 1.0, "firing 1")]);
}

fn silence(matchers: &[(&str, &str)], from: i64, to: i64) -> NewSilence {
    NewSilence {
        matchers: Matchers::new(matchers.iter().copied()),
        from: from * SECOND,
        to: to * SECOND,
        author: "ann".to_owned(),
        comment: "we know".to_owned(),
    }
}

#[test]
fn a_silence_holds_back_what_fires_until_it_is_over() {
    let mut alerts = one(json!({"above": 0.5}), json!({"severity": "high"}));
    alerts.silence(silence(&[("alertname", "a"), ("severity", "*")], 5, 10)).unwrap();
    let alerts = table(
        alerts,
        &[
            (1, 1.0, "firing 1"),
            // The end is told in spite of the silence.
            (5, 0.0, "resolved 0"),
            (6, 1.0, ""),
            (7, 0.0, ""),
            (8, 1.0, ""),
            (9, 2.0, ""),
            (10, 3.0, "firing 3"),
        ],
    );
    assert_eq!(alerts.silences().count(), 0, "what is over is gone");
    assert_eq!(alerts.history("a").count(), 2, "what is silenced still happens");
}

#[test]
fn a_silence_of_other_labels_does_nothing_and_can_be_taken_back() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    alerts.silence(silence(&[("alertname", "b")], 0, 100)).unwrap();
    alerts.silence(silence(&[("alertname", "a"), ("graph", "*")], 0, 100)).unwrap();
    let id = alerts.silence(silence(&[("metric", "m")], 0, 100)).unwrap();
    let mut alerts = table(alerts, &[(1, 1.0, "")]);
    assert!(alerts.unsilence(id));
    assert!(!alerts.unsilence(id));
    assert_eq!(told(&alerts.tick(2 * SECOND)), "firing 1");
    assert_eq!(alerts.silences().map(|silence| silence.id).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_silence_has_bounds() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    assert_eq!(alerts.silence(silence(&[("a", "b")], 5, 5)), Err(SilenceError::Empty));
    assert_eq!(alerts.silence(silence(&[], 0, 5)), Err(SilenceError::Matchers));
    assert_eq!(alerts.silence(silence(&[("a", &"b".repeat(1025))], 0, 5)), Err(SilenceError::TooLong));
    for _ in 0..1000 {
        alerts.silence(silence(&[("a", "b")], 0, 5)).unwrap();
    }
    assert_eq!(alerts.silence(silence(&[("a", "b")], 0, 5)), Err(SilenceError::Full));
    alerts.tick(5 * SECOND);
    assert_eq!(alerts.silence(silence(&[("a", "b")], 0, 5)), Ok(1000));
}

#[test]
fn an_active_alert_inhibits_lower_ones_with_its_labels() {
    let alert = |metric: &str, severity: &str, inhibit: Value| {
        let mut alert = json!({
            "when": {"metric": metric, "graph": "*", "above": 0.5}, "severity": severity, "notify": ["log"],
        });
        super::merge(&mut alert, inhibit);
        alert
    };
    let mut alerts = alerts(json!({
        "down": alert("down", "high", json!({"inhibit": ["graph"]})),
        "drifts": alert("drift", "medium", json!({})),
        "other": alert("other", "high", json!({})),
    }));
    let rows = [
        // In one tick, the order of the values does not matter.
        (1, vec![("drift", "x", 1.0), ("down", "x", 1.0)], "x firing 1"),
        (2, vec![("drift", "y", 2.0)], "y firing 2"),
        (3, vec![("other", "x", 3.0)], "x firing 3"),
        // What inhibits has ended, and the rest still fires.
        (4, vec![("down", "x", 0.0)], "x resolved 0; x firing 1"),
        (5, vec![("down", "x", 4.0)], "x firing 4"),
        // What was told before it was inhibited is told to end.
        (6, vec![("drift", "x", 0.0)], "x resolved 0"),
        (7, vec![("drift", "x", 5.0)], ""),
        (8, vec![("drift", "x", 0.0)], ""),
    ];
    for (at, values, expected) in rows {
        for (metric, graph, value) in values {
            alerts.observe(&sample(metric, &[("graph", graph)], at, value));
        }
        assert_eq!(told(&alerts.tick(at * SECOND)), expected, "at {at} s");
    }
}

#[test]
fn an_alert_without_channels_has_states_and_sends_nothing() {
    let alerts = table(one(json!({"above": 0.5}), json!({"notify": []})), &[(1, 1.0, ""), (2, 0.0, "")]);
    assert_eq!(alerts.history("a").count(), 1);
}
