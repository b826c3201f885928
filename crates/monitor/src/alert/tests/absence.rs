//! Metrics that stop.

use serde_json::json;

use super::{SECOND, alerts, one, sample, told};
use crate::alert::{Alerts, State};

/// Second by second: whether a value comes, and what the tick then sends.
fn table(mut alerts: Alerts, rows: &[(i64, bool, &str)]) -> Alerts {
    for &(at, comes, expected) in rows {
        if comes {
            alerts.observe(&sample("m", &[], at, 1.0));
        }
        assert_eq!(told(&alerts.tick(at * SECOND)), expected, "at {at} s");
    }
    alerts
}

#[test]
fn a_metric_that_stops_fires_and_its_next_value_clears() {
    table(
        one(json!({"absent": "10s"}), json!({})),
        &[
            (0, true, ""),
            (9, false, ""),
            (9, true, ""),
            (18, false, ""),
            (19, false, "firing 10"),
            (60, false, ""),
            (61, true, "resolved 52"),
            (70, false, ""),
            (71, false, "firing 10"),
        ],
    );
}

#[test]
fn a_metric_that_never_came_fires() {
    table(
        one(json!({"absent": "10s"}), json!({})),
        &[(5, false, ""), (14, false, ""), (15, false, "firing 10")],
    );
}

#[test]
fn absence_is_of_the_labels_that_the_alert_names() {
    let when = json!({"metric": "m", "graph": "*", "absent": "10s"});
    let mut alerts = alerts(json!({"a": {"when": when, "notify": ["log"]}}));
    alerts.tick(0);
    alerts.observe(&sample("m", &[("graph", "loan"), ("pod", "1")], 1, 0.0));
    alerts.observe(&sample("m", &[("graph", "loan"), ("pod", "2")], 8, 0.0));
    assert_eq!(told(&alerts.tick(17 * SECOND)), "");
    assert_eq!(told(&alerts.tick(18 * SECOND)), "loan firing 10");
}

#[test]
fn a_value_that_is_itself_too_old_ends_no_absence() {
    let mut alerts =
        table(one(json!({"absent": "10s"}), json!({})), &[(0, true, ""), (60, false, "firing 60")]);
    alerts.observe(&sample("m", &[], 40, 1.0));
    assert_eq!(told(&alerts.tick(61 * SECOND)), "");
    alerts.observe(&sample("m", &[], 55, 1.0));
    assert_eq!(told(&alerts.tick(62 * SECOND)), "resolved 15");
    assert_eq!(told(&alerts.tick(65 * SECOND)), "firing 10");
}

#[test]
fn absences_count_within_a_period() {
    let alerts = one(json!({"absent": "10s"}), json!({"criteria": {"count": 2, "period": "1m"}}));
    let alerts = table(alerts, &[(0, true, ""), (20, false, ""), (21, true, "")]);
    assert_eq!(alerts.series().next().unwrap().state, State::Pending);
    table(alerts, &[(40, false, "firing 19"), (41, true, "resolved 20")]);
}

#[test]
fn a_manual_absence_waits_and_its_reset_waits_for_the_metric_again() {
    let alerts = one(json!({"absent": "10s"}), json!({"reset": "manual"}));
    let mut alerts =
        table(alerts, &[(0, true, ""), (20, false, "firing 20"), (21, true, ""), (40, false, "")]);
    assert_eq!(alerts.reset("a", None, 41 * SECOND), 1);
    table(alerts, &[(41, false, "resolved 21"), (50, false, ""), (51, false, "firing 10")]);
}

#[test]
fn what_may_have_gone_for_good_is_forgotten_after_its_reset() {
    let when = json!({"metric": "m", "graph": "*", "absent": "10s"});
    let mut alerts = alerts(json!({"a": {"when": when, "notify": ["log"]}}));
    alerts.observe(&sample("m", &[("graph", "old")], 0, 0.0));
    let week = 7 * 24 * 3600;
    let rows = [(10, "old firing 10"), (2 * week, ""), (4 * week, "")];
    for (at, expected) in rows {
        assert_eq!(told(&alerts.tick(at * SECOND)), expected, "at {at} s");
    }
    assert_eq!(alerts.series().count(), 1, "what fires is not forgotten");
    alerts.reset("a", None, (4 * week + 1) * SECOND);
    assert_eq!(told(&alerts.tick((4 * week + 1) * SECOND)), "old resolved 10");
    assert_eq!(told(&alerts.tick((5 * week - 1) * SECOND)), "");
    assert_eq!(alerts.series().count(), 1);
    assert_eq!(told(&alerts.tick(5 * week * SECOND)), "");
    assert_eq!(alerts.series().count(), 0);
}
