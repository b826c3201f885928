//! Alerts, as tables of what is observed and what is then sent.

mod absence;
mod bounds;
mod messages;
mod persist;
mod sending;
mod specs;
mod states;

use serde_json::{Value, json};

use super::{Alerts, Labels, Notification, Sample, check};

const SECOND: i64 = 1_000_000;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn sample(metric: &str, pairs: &[(&str, &str)], at: i64, value: f64) -> Sample {
    Sample { metric: metric.to_owned(), labels: labels(pairs), value, at: at * SECOND, evidence: None }
}

/// Alerts of the project `bank`, by their names.
fn alerts(specs: Value) -> Alerts {
    let specs = serde_json::from_value(specs).expect("the settings can be read");
    Alerts::new("bank", check(&specs).expect("the settings are right"))
}

/// One alert `a` on the metric `m`; `settings` are put beside `when`, and sent to `log` unless they say otherwise.
fn one(condition: Value, settings: Value) -> Alerts {
    let mut alert = json!({"when": {"metric": "m"}, "notify": ["log"]});
    merge(&mut alert["when"], condition);
    merge(&mut alert, settings);
    alerts(json!({ "a": alert }))
}

fn merge(into: &mut Value, other: Value) {
    let Value::Object(other) = other else { panic!("settings are a map") };
    into.as_object_mut().expect("settings are a map").extend(other);
}

/// What is sent, in short: `firing 0.3` and `resolved 0.1`, with the labels of the series where it has any, and the
/// channel where it is not the first.
fn told(notifications: &[Notification]) -> String {
    let told = notifications.iter().map(|notification| {
        let channel =
            if notification.channel == 0 { String::new() } else { format!("#{} ", notification.channel) };
        let events = notification.events.iter().map(|event| {
            let labels: Vec<&str> = event.labels.values().map(String::as_str).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{} ", labels.join(".")) };
            format!("{labels}{} {}", event.status.word(), event.activation.last)
        });
        channel + &events.collect::<Vec<_>>().join(", ")
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Second by second: the values observed at that second, each followed by a tick, and what is then sent.
fn table(mut alerts: Alerts, rows: &[(i64, f64, &str)]) -> Alerts {
    for &(at, value, expected) in rows {
        alerts.observe(&sample("m", &[], at, value));
        assert_eq!(told(&alerts.tick(at * SECOND)), expected, "at {at} s, after {value}");
    }
    alerts
}
