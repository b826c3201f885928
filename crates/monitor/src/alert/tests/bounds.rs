//! What is refused, and what things cost.

use serde_json::{Value, json};

use super::{SECOND, alerts, one, sample, told};
use crate::alert::{
    Counts,
    evidence::{MAX_ALL_EVIDENCE, keep},
};

#[test]
fn one_series_too_many_is_refused_and_counted() {
    let mut alerts = one(json!({"above": 0.5}), json!({"notify": []}));
    for id in 0..10_002 {
        alerts.observe(&sample("m", &[("id", &id.to_string())], 1, 1.0));
    }
    assert_eq!(alerts.series().count(), 10_000);
    let counts = alerts.counts();
    assert_eq!((counts.evaluated, counts.refused_series), (10_000, 2));
    // Those that are there go on.
    alerts.observe(&sample("m", &[("id", "7")], 2, 0.0));
    assert_eq!(alerts.counts().evaluated, 10_001);
}

#[test]
fn a_series_that_has_been_silent_for_a_week_makes_room() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    alerts.observe(&sample("m", &[("id", "silent")], 0, 0.0));
    alerts.observe(&sample("m", &[("id", "fires")], 0, 1.0));
    let week = 7 * 24 * 3600;
    assert_eq!(told(&alerts.tick((week - 1) * SECOND)), "fires firing 1");
    assert_eq!(alerts.series().count(), 2);
    alerts.tick(week * SECOND);
    let left: Vec<_> = alerts.series().map(|series| series.labels["id"].clone()).collect();
    assert_eq!(left, ["fires"]);
}

#[test]
fn a_replay_of_old_values_is_not_forgotten_at_the_next_tick() {
    let mut alerts = one(json!({"above": 0.5}), json!({"hold": {"of": 2}}));
    let year = 365 * 24 * 3600;
    alerts.tick(year * SECOND);
    alerts.observe(&sample("m", &[], 1, 1.0));
    alerts.tick((year + 1) * SECOND);
    alerts.observe(&sample("m", &[], 2, 1.0));
    assert_eq!(told(&alerts.tick((year + 2) * SECOND)), "firing 1");
}

#[test]
fn a_sample_of_a_wrong_clock_or_with_too_many_labels_is_refused() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    alerts.tick(0);
    alerts.observe(&sample("m", &[], 601, 1.0));
    let names: Vec<String> = (0..33).map(|name| name.to_string()).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    alerts.observe(&sample("m", &many, 1, 1.0));
    alerts.observe(&sample("m", &[("long", &"x".repeat(4093))], 1, 1.0));
    assert_eq!(told(&alerts.tick(SECOND)), "");
    let counts = alerts.counts();
    assert_eq!((counts.ahead, counts.refused_labels, counts.evaluated), (1, 2, 0));
    alerts.observe(&sample("m", &many[..32], 1, 1.0));
    alerts.observe(&sample("m", &[], 600, 1.0));
    assert_eq!(alerts.counts().evaluated, 2);
}

#[test]
fn times_at_the_ends_of_the_range_do_no_harm() {
    for condition in [json!({"above": 0.5}), json!({"absent": "10s"})] {
        let mut alerts = one(condition, json!({"cooldown": "1h", "criteria": {"count": 2, "period": "1h"}}));
        for at in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            for value in [1.0, 0.0, f64::INFINITY] {
                let sample = crate::alert::Sample {
                    metric: "m".to_owned(),
                    labels: super::labels(&[]),
                    value,
                    at,
                    evidence: None,
                };
                alerts.observe(&sample);
                alerts.tick(at);
                alerts.reset("a", None, at);
                for notification in alerts.tick(-at.max(-i64::MAX)) {
                    notification.message("");
                }
            }
        }
        assert!(alerts.counts().evaluated > 0);
    }
}

#[test]
fn evidence_goes_with_the_alert_unless_it_is_too_large() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let cases: [(Value, bool); 5] = [
        (json!({"bins": [1, 2]}), true),
        (json!("x".repeat((16 << 10) - 2)), true),
        (json!("x".repeat((16 << 10) - 1)), false),
        (json!(vec![json!({"a": "b"}); 10_000]), false),
        (deep, false),
    ];
    for (evidence, kept) in cases {
        let mut alerts = one(json!({"above": 0.5}), json!({}));
        let mut breach = sample("m", &[], 1, 1.0);
        breach.evidence = Some(evidence.clone());
        alerts.observe(&breach);
        let notifications = alerts.tick(SECOND);
        assert_eq!(notifications[0].events[0].evidence(), kept.then_some(&evidence));
        assert_eq!(alerts.counts().evidence_left_out, u64::from(!kept));
        // It is in the history too.
        alerts.observe(&sample("m", &[], 2, 0.0));
        let (_, activation) = alerts.history("a").next().unwrap();
        assert_eq!(activation.evidence.as_deref(), kept.then_some(&evidence));
    }
}

#[test]
fn all_evidence_together_has_a_bound() {
    let (evidence, mut counts) = (json!("123456"), Counts::default());
    for (room, kept) in [(8, true), (7, false), (0, false)] {
        let mut held = MAX_ALL_EVIDENCE - room;
        assert_eq!(keep(&evidence, &mut held, &mut counts).is_some(), kept, "with room for {room} bytes");
        assert_eq!(held, MAX_ALL_EVIDENCE - room + if kept { 8 } else { 0 });
    }
    assert_eq!(counts.evidence_left_out, 2);
}

#[test]
fn evidence_gives_its_room_back_when_the_history_forgets_it() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    for round in 1..=60 {
        for (at, value) in [(2 * round, 1.0), (2 * round + 1, 0.0)] {
            let mut sample = sample("m", &[], at, value);
            sample.evidence = Some(json!("123456"));
            alerts.observe(&sample);
        }
        assert_eq!(alerts.evidence_bytes, 8 * usize::try_from(round.min(50)).unwrap());
    }
}

#[test]
fn a_sample_looks_at_no_alert_that_names_another_label() {
    let specs: serde_json::Map<String, Value> = (0..10_000)
        .map(|id| {
            let when = json!({"metric": "drift", "column": id.to_string(), "graph": "*", "above": 0.5});
            (format!("a{id}"), json!({"when": when, "notify": ["log"]}))
        })
        .collect();
    let mut alerts = alerts(Value::Object(specs));
    for round in 0..3 {
        for id in 0..10_000 {
            let value = f64::from(u8::from(round == 1 && id % 1000 == 0));
            alerts.observe(&sample(
                "drift",
                &[("column", &id.to_string()), ("graph", "g")],
                round + 1,
                value,
            ));
        }
        let sent = alerts.tick((round + 1) * SECOND).len();
        assert_eq!(sent, [0, 10, 10][usize::try_from(round).unwrap()]);
    }
    let counts = alerts.counts();
    assert_eq!((counts.candidates, counts.evaluated), (30_000, 30_000));
}

#[test]
fn ten_thousand_series_that_fire_at_once_are_one_message_of_bounded_size() {
    let when = json!({"metric": "m", "id": "*", "above": 0.5});
    let mut alerts = alerts(json!({"a": {"when": when, "group_by": [], "notify": ["log"]}}));
    for id in 0..10_000 {
        alerts.observe(&sample("m", &[("id", &id.to_string())], 1, 1.0));
    }
    let sent = alerts.tick(SECOND);
    assert_eq!((sent.len(), sent[0].events.len(), sent[0].truncated), (1, 100, 9_900));
    assert!(alerts.tick(2 * SECOND).is_empty());
}
