//! Settings, and the mistakes in them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{alerts, merge};
use crate::alert::{AlertSpec, Condition, Secret, Severity, Source, check};

/// The mistakes of an alert `a`, one to a line.
fn mistakes(settings: Value) -> String {
    let mut spec = json!({"when": {"metric": "m", "graph": "*"}});
    let mut settings = settings;
    let when = settings.as_object_mut().unwrap().remove("when").unwrap_or(json!({"above": 0.5}));
    merge(&mut spec["when"], when);
    merge(&mut spec, settings);
    let specs = serde_json::from_value(json!({ "a": spec })).expect("the settings can be read");
    check(&specs).map(|_| String::new()).unwrap_or_else(|mistakes| mistakes.to_string())
}

#[test]
fn every_setting_can_be_written() {
    let alerts = alerts(json!({
        "income_drifts": {
            "description": "Loans are priced by income.",
            "when": {"metric": "drift", "graph": "loan", "edge": "score", "column": "income", "above": 0.2},
            "hold": {"of": 5, "at_least": 3},
            "criteria": {"count": 1, "period": "1h"},
            "clear": 0.15,
            "severity": "high",
            "reset": "manual",
            "cooldown": "1h",
            "group_by": ["graph"],
            "inhibit": ["graph"],
            "summary": "{{column}} of {{ graph }} drifts: {{value}}",
            "notify": [
                {"webhook": {"url": "env:HOOK", "headers": {"X-Team": "ml"}, "cooldown": "10m"}},
                {"slack": {"url": "file:/run/secrets/slack", "channel": "#ml"}},
                {"email": {"to": ["team@example.com"]}},
                "log",
                {"post": {
                    "url": "https://events.test/v2", "headers": {"Authorization": "env:TOKEN"},
                    "body": {"text": "{{summary}}", "value": "{{value}}", "all": ["{{alerts}}"], "fixed": 1},
                }},
            ],
        },
    }));
    let alert = alerts.alerts().next().unwrap();
    assert_eq!((alert.name(), alert.metric(), alert.severity()), ("income_drifts", "drift", Severity::High));
    assert_eq!(alert.condition(), Condition::Above(0.2));
}

#[test]
fn each_mistake_names_its_place_and_the_fix() {
    let one_of = "alert `a`: when: give one of `above`, `below`, `outside` and `absent`";
    let cases = [
        (json!({}), ""),
        (json!({"when": {}}), one_of),
        (json!({"when": {"above": 1, "below": 0}}), one_of),
        (
            json!({"when": {"abov": 0.2, "below": 0.1}}),
            "alert `a`: when.abov: the value of a label is a text or `*`; put it in quotes; did you mean `above`?",
        ),
        (
            json!({"when": {"severity": "high", "above": 1}}),
            "alert `a`: when.severity: every alert has this label; match on another",
        ),
        (
            json!({"when": {"metric": "", "above": 1}}),
            "alert `a`: when.metric: a metric has a name of 1 to 128 bytes",
        ),
        (
            json!({"when": {"outside": [2, 1]}}),
            "alert `a`: when.outside: the first number is above the second",
        ),
        (
            json!({"clear": 0.6}),
            "alert `a`: clear: beyond the threshold; it clears on the good side of it, or on it",
        ),
        (json!({"clear": [0.1, 0.2]}), "alert `a`: clear: `above` and `below` clear at one number"),
        (
            json!({"when": {"below": 0.5}, "clear": 0.4}),
            "alert `a`: clear: beyond the threshold; it clears on the good side of it, or on it",
        ),
        (
            json!({"when": {"outside": [0, 1]}, "clear": [0.5, 2]}),
            "alert `a`: clear: a range inside that of `outside`",
        ),
        (
            json!({"when": {"outside": [0, 1]}, "clear": 0.5}),
            "alert `a`: clear: `outside` clears in a range: `[lo, hi]`",
        ),
        (
            json!({"when": {"absent": "1m"}, "clear": 0.5, "hold": {"of": 2}}),
            "alert `a`: clear: an absence clears when a value comes\n\
             alert `a`: hold: an absence has no evaluations to count; make `absent` longer",
        ),
        (
            json!({"hold": {"of": 0}}),
            "alert `a`: hold.at_least: 1 to 0, which is `of`\nalert `a`: hold.of: 1 to 100 evaluations",
        ),
        (json!({"hold": {"of": 101}}), "alert `a`: hold.of: 1 to 100 evaluations"),
        (json!({"hold": {"of": 2, "at_least": 3}}), "alert `a`: hold.at_least: 1 to 2, which is `of`"),
        (
            json!({"criteria": {"count": 2}}),
            "alert `a`: criteria: several firings need a `period`, such as `period: 1h`",
        ),
        (json!({"criteria": {"count": 0}}), "alert `a`: criteria.count: 1 to 100 firings"),
        (
            json!({"group_by": ["grahp"], "inhibit": ["graph"]}),
            "alert `a`: group_by: no label `grahp`; did you mean `graph`?; name it in `when`, as `grahp: \"*\"`",
        ),
        (
            json!({"summary": "{{vlaue}}"}),
            "alert `a`: summary: no placeholder `vlaue`; did you mean `value`?",
        ),
        (json!({"summary": "{{graph"}), "alert `a`: summary: `{{` has no `}}` behind it"),
        (json!({"summary": "x".repeat(2049)}), "alert `a`: summary: at most 2048 bytes"),
        (
            json!({"notify": [{"slack": {"url": "https://hooks.test/T0/secret"}}]}),
            "alert `a`: notify.0.slack.url: whoever knows this URL can write there; put it into `env:NAME` or `file:PATH`",
        ),
        (
            json!({"notify": ["log", {"webhook": {"url": "https://user:secret@hooks.test/"}}]}),
            "alert `a`: notify.1.webhook.url: user and password are secrets; put the URL into `env:NAME` or `file:PATH`",
        ),
        (
            json!({"notify": [{"webhook": {"url": "hooks.test"}}]}),
            "alert `a`: notify.0.webhook.url: write an `http` or `https` URL, or `env:NAME`",
        ),
        (
            json!({"notify": [{"webhook": {"url": "https://hooks.test/\r\nHost: x"}}]}),
            "alert `a`: notify.0.webhook.url: a URL has no spaces in it",
        ),
        (
            json!({"notify": [{"webhook": {"url": "env:"}}]}),
            "alert `a`: notify.0.webhook.url: the reference names nothing; write `env:NAME` or `file:PATH`",
        ),
        (
            json!({"notify": [{"webhook": {"url": "env:A", "headers": {"X-Api-Key": "secret", "X Y": "b", "Z": "\n"}}}]}),
            "alert `a`: notify.0.webhook.headers.X Y: no name of a header\n\
             alert `a`: notify.0.webhook.headers.X-Api-Key: this is a secret; put it into `env:NAME` or `file:PATH`\n\
             alert `a`: notify.0.webhook.headers.Z: the value of a header is plain ASCII in one line",
        ),
        (json!({"notify": [{"email": {"to": []}}]}), "alert `a`: notify.0.email.to: 1 to 100 addresses"),
        (
            json!({"notify": [{"post": {"url": "env:A", "body": {"b": ["{{sumary}}", "env:KEY"], "c": "{{alerts}}"}}}]}),
            "alert `a`: notify.0.post.body.b.0: no placeholder `sumary`; did you mean `summary`?",
        ),
        (json!({"notify": vec!["log"; 17]}), "alert `a`: notify: at most 16 channels"),
    ];
    for (settings, expected) in cases {
        assert_eq!(mistakes(settings.clone()), expected, "{settings}");
    }
}

#[test]
fn an_address_can_begin_no_header() {
    for address in ["a", "@b", "a@", "a@b@c", "a b@c", "a@b\r\nBcc: x@y", "<a@b>", "a@b, c@d", "ä@b", "a@b\n"]
    {
        let found = mistakes(json!({"notify": [{"email": {"to": ["team@example.com", address]}}]}));
        assert!(found.starts_with("alert `a`: notify.0.email.to.1: "), "{address:?}: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}

#[test]
fn the_mistakes_of_all_alerts_come_at_once() {
    let alert = json!({"when": {"metric": "m"}, "clear": [1, 2], "criteria": {"count": 1000}});
    let specs = serde_json::from_value(json!({"b": alert, "a": alert, "no spaces": alert})).unwrap();
    let found = check(&specs).unwrap_err();
    let paths: Vec<String> = found.0.iter().map(|mistake| mistake.path.join(".")).collect();
    let expected = [
        "a.clear",
        "a.criteria",
        "a.criteria.count",
        "a.when",
        "b.clear",
        "b.criteria",
        "b.criteria.count",
        "b.when",
        "no spaces",
        "no spaces.clear",
        "no spaces.criteria",
        "no spaces.criteria.count",
        "no spaces.when",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn there_are_at_most_ten_thousand_alerts() {
    let spec: AlertSpec = serde_json::from_value(json!({"when": {"metric": "m", "above": 1}})).unwrap();
    let mut specs: BTreeMap<String, AlertSpec> =
        (0..10_000).map(|id| (id.to_string(), spec.clone())).collect();
    assert_eq!(check(&specs).unwrap().len(), 10_000);
    specs.insert("x".to_owned(), spec);
    assert_eq!(
        check(&specs).unwrap_err().to_string(),
        "a project has at most 10000 alerts, this one has 10001"
    );
}

#[test]
fn an_unknown_key_is_refused() {
    let cases = [
        json!({"wen": {}}),
        json!({"when": {"metric": "m", "above": 1}, "severity": "huge"}),
        json!({"when": {"metric": "m", "above": 1}, "hold": {"off": 1}}),
        json!({"when": {"metric": "m", "above": 1}, "notify": ["sms"]}),
        json!({"when": {"metric": "m", "above": 1}, "notify": [{"email": {"to": [], "cc": []}}]}),
        json!({"when": {"metric": "m", "above": "much"}}),
        json!({"when": {"metric": "m", "absent": "0s"}}),
    ];
    for case in cases {
        assert!(serde_json::from_value::<AlertSpec>(case.clone()).is_err(), "{case}");
    }
}

#[test]
fn secrets_never_show() {
    assert_eq!(format!("{:?}", Secret::new("https://hooks.test/hidden")), "Secret(..)");
    assert_eq!(format!("{:?}", Secret::new("https://hooks.test/hidden").source()), "Plain(..)");
    assert_eq!(
        format!("{:?} {:?}", Secret::new("env:A"), Secret::new("file:/b")),
        "Secret(env:A) Secret(file:/b)"
    );
    assert_eq!(Secret::new("file:/b").source(), Source::File("/b"));
    let hidden = json!({"url": "https://hooks.test/hidden", "headers": {"X": "hidden"}});
    let mut post = hidden.clone();
    post["body"] = json!({});
    let spec = json!({"a": {
        "when": {"metric": "m", "above": 1}, "notify": [{"webhook": hidden}, {"post": post}],
    }});
    let specs: BTreeMap<String, AlertSpec> = serde_json::from_value(spec.clone()).unwrap();
    let mut alerts = alerts(spec);
    alerts.observe(&super::sample("m", &[], 1, 2.0));
    let sent = alerts.tick(super::SECOND);
    let messages: Vec<_> = sent.iter().map(|notification| notification.message("")).collect();
    assert_eq!(messages.len(), 2);
    let shown = format!("{specs:?} {alerts:?} {sent:?} {messages:?}");
    assert!(shown.contains("Secret(..)") && !shown.contains("hidden"), "{shown}");
}

#[test]
fn the_settings_have_a_schema_in_which_other_keys_of_when_are_labels() {
    let schema = serde_json::to_value(schemars::schema_for!(AlertSpec)).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], json!(["when"]));
    let when = &schema["$defs"]["WhenSpec"];
    assert_eq!(when["additionalProperties"], json!({"type": "string"}));
    assert!(when["properties"]["above"].is_object());
}
