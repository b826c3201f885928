//! Saving, restoring, and going on.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{SECOND, alerts, merge, one, sample, table, told};
use crate::alert::{Alerts, Matchers, NewSilence, RestoreError, State};

fn restored(saved: &[u8], mut into: Alerts) -> Alerts {
    into.restore(saved).expect("the state is whole");
    into
}

#[test]
fn an_alert_goes_on_where_it_was() {
    let fresh =
        || one(json!({"above": 0.5}), json!({"criteria": {"count": 3, "period": "1m"}, "cooldown": "1m"}));
    let mut alerts = fresh();
    let rows = [
        (1, 1.0, ""),
        (2, 1.0, ""),
        (3, 1.0, "firing 1"),
        (4, 1.0, ""),
        (5, f64::NEG_INFINITY, "resolved -inf"),
        (6, 1.0, ""),
        (7, 1.0, ""),
        (8, f64::INFINITY, ""),
        (62, 1.0, ""),
        (63, 1.0, "firing 1"),
    ];
    for row in rows {
        alerts = table(restored(&alerts.save(), fresh()), &[row]);
    }
    assert_eq!(alerts.series().next().unwrap().activation.unwrap().peak, f64::INFINITY);
    assert_eq!(alerts.history("a").count(), 1);
}

#[test]
fn a_changed_alert_starts_again_and_an_unknown_one_is_dropped() {
    let spec = |settings: Value| {
        let mut spec = json!({"when": {"metric": "m", "above": 0.5}, "notify": ["log"]});
        merge(&mut spec, settings);
        spec
    };
    let mut before = alerts(json!({"a": spec(json!({})), "b": spec(json!({}))}));
    before.observe(&sample("m", &[], 1, 1.0));
    assert_eq!(told(&before.tick(SECOND)), "firing 1; firing 1");
    let changes = [
        (json!({"when": {"metric": "m", "above": 0.6}}), true),
        (json!({"when": {"metric": "n", "above": 0.5}}), true),
        (json!({"when": {"metric": "m", "graph": "*", "above": 0.5}}), true),
        (json!({"clear": 0.4}), true),
        (json!({"hold": {"of": 2, "at_least": 1}}), true),
        (json!({"criteria": {"count": 2, "period": "1s"}}), true),
        (json!({"reset": "manual"}), true),
        (json!({"group_by": []}), true),
        (json!({"notify": ["log", "log"]}), true),
        (json!({"summary": "other", "description": "other", "severity": "low", "cooldown": "1h"}), false),
    ];
    for (change, resets) in changes {
        let mut after = alerts(json!({"a": spec(change.clone()), "c": spec(json!({}))}));
        let restored = after.restore(&before.save()).unwrap();
        assert_eq!(restored.dropped, ["b"]);
        let (kept, changed) = if resets { (vec![], vec!["a"]) } else { (vec!["a"], vec![]) };
        assert_eq!((restored.kept, restored.changed), (strings(kept), strings(changed)), "{change}");
        let active = after.series().filter(|series| series.state == State::Active).count();
        assert_eq!(active, usize::from(!resets), "{change}");
    }
}

fn strings(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

#[test]
fn what_is_no_whole_state_is_refused_and_changes_nothing() {
    let mut alerts = table(one(json!({"above": 0.5}), json!({})), &[(1, 1.0, "firing 1")]);
    let saved = alerts.save();
    let damaged = |at: usize| {
        let mut damaged = saved.clone();
        damaged[at] ^= 1;
        damaged
    };
    let kind = |error: RestoreError| match error {
        RestoreError::Foreign => "foreign",
        RestoreError::Version { .. } => "version",
        RestoreError::Length { .. } => "length",
        RestoreError::Damaged => "damaged",
        RestoreError::Body(_) => "body",
    };
    let longer = [&saved[..], b" "].concat();
    let mut nonsense = saved[..12].to_vec();
    nonsense.extend_from_slice(&2_u64.to_le_bytes());
    nonsense.extend_from_slice(&crc32c::crc32c(b"[]").to_le_bytes());
    nonsense.extend_from_slice(b"[]");
    let cases = [
        (Vec::new(), "foreign"),
        (b"msalerts".to_vec(), "foreign"),
        (saved[..20].to_vec(), "foreign"),
        (damaged(0), "foreign"),
        (damaged(8), "version"),
        (damaged(12), "length"),
        (damaged(20), "damaged"),
        (damaged(24), "damaged"),
        (damaged(saved.len() - 1), "damaged"),
        (saved[..saved.len() - 1].to_vec(), "length"),
        (longer, "length"),
        (nonsense, "body"),
    ];
    for (place, (bytes, expected)) in cases.into_iter().enumerate() {
        assert_eq!(kind(alerts.restore(&bytes).unwrap_err()), expected, "case {place}");
    }
    assert_eq!(alerts.save(), saved);
}

#[derive(Clone, Debug)]
enum Act {
    Observe { metric: usize, graph: usize, back: i64, value: i32, evidence: bool },
    Wait(i64),
    Reset(usize),
    Silence { metric: usize, time: i64 },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let observe = (0..3_usize, 0..3_usize, 0..12_i64, 0..10_i32, any::<bool>()).prop_map(
        |(metric, graph, back, value, evidence)| Act::Observe { metric, graph, back, value, evidence },
    );
    prop_oneof![
        10 => observe,
        5 => (0..8_i64).prop_map(Act::Wait),
        1 => (800_000..900_000_i64).prop_map(Act::Wait),
        1 => (0..5_usize).prop_map(Act::Reset),
        1 => (0..3_usize, 1..20_i64).prop_map(|(metric, time)| Act::Silence { metric, time }),
        4 => Just(Act::Restart),
    ]
}

const METRICS: [&str; 3] = ["psi", "latency", "rows"];

fn fresh() -> Alerts {
    let hook = json!({"webhook": {"url": "env:HOOK", "cooldown": "3s"}});
    alerts(json!({
        "absent_any": {"when": {"metric": "rows", "graph": "*", "absent": "5s"}, "notify": ["log"],
            "criteria": {"count": 2, "period": "1m"}},
        "absent_one": {"when": {"metric": "rows", "graph": "g0", "absent": "7s"}, "notify": ["log"],
            "reset": "manual"},
        "drifts": {"when": {"metric": "psi", "graph": "*", "above": 6.0}, "clear": 4.0, "notify": ["log", hook],
            "hold": {"of": 5, "at_least": 2}, "cooldown": "10s", "group_by": [], "severity": "low"},
        "slow": {"when": {"metric": "latency", "graph": "*", "outside": [2.0, 7.0]}, "severity": "high",
            "criteria": {"count": 2, "period": "10s"}, "inhibit": ["graph"], "notify": [hook], "reset": "manual"},
        "slower": {"when": {"metric": "latency", "above": 7.0}, "notify": ["log", hook]},
    }))
}

const NAMES: [&str; 5] = ["absent_any", "absent_one", "drifts", "slow", "slower"];

/// Does it; answers all that is sent, in full.
fn run(acts: &[Act], restarts: bool) -> (Vec<String>, Vec<u8>) {
    let (mut alerts, mut now, mut sent) = (fresh(), 1_000_000, Vec::new());
    for act in acts {
        match *act {
            Act::Observe { metric, graph, back, value, evidence } => {
                let graph = format!("g{graph}");
                let mut sample = sample(METRICS[metric], &[("graph", &graph)], now - back, f64::from(value));
                sample.evidence = evidence.then(|| json!({"value": 0.1 * f64::from(value)}));
                alerts.observe(&sample);
            }
            Act::Wait(time) => {
                now += time;
                sent.extend(alerts.tick(now * SECOND).iter().map(|notification| {
                    format!("{notification:?} {:?}", notification.message("https://ms.test/"))
                }));
            }
            Act::Reset(name) => {
                alerts.reset(NAMES[name], None, now * SECOND);
            }
            Act::Silence { metric, time } => {
                let matchers = Matchers::new([("metric", METRICS[metric])]);
                let (from, to) = (now * SECOND, (now + time) * SECOND);
                let (author, comment) = (String::new(), String::new());
                alerts.silence(NewSilence { matchers, from, to, author, comment }).unwrap();
            }
            Act::Restart if restarts => alerts = restored(&alerts.save(), fresh()),
            Act::Restart => {}
        }
    }
    (sent, alerts.save())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn restoring_and_going_on_equals_never_having_stopped(acts in prop::collection::vec(act(), 1..80)) {
        let ((sent, state), (sent_again, state_again)) = (run(&acts, false), run(&acts, true));
        prop_assert_eq!(sent, sent_again);
        prop_assert_eq!(String::from_utf8_lossy(&state), String::from_utf8_lossy(&state_again));
    }

    #[test]
    fn bytes_of_anybodys_making_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), mark in any::<bool>()) {
        let bytes = if mark { [&b"msalerts\x01\0\0\0"[..], &bytes].concat() } else { bytes };
        prop_assert!(fresh().restore(&bytes).is_err());
    }
}

#[test]
fn the_acts_of_the_property_send_something_of_every_kind() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let acts = prop::collection::vec(act(), 2000).new_tree(&mut runner).unwrap().current();
    let (sent, _) = run(&acts, false);
    for name in NAMES {
        for status in ["Firing", "Resolved"] {
            let found = |line: &&String| line.contains(&format!("name: \"{name}\"")) && line.contains(status);
            assert!(sent.iter().any(|line| found(&line)), "{name} {status}");
        }
    }
}
