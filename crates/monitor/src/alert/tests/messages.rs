//! What goes over the wire.

use serde_json::{Value, json};

use super::{SECOND, alerts, labels, one, sample};
use crate::alert::{
    Alerts, Labels, Level, Message, Notification, Secret,
    text::{cut, number, rfc3339},
};

const START: i64 = 1_700_000_000;
const NASTY: &str = "a\"b\\c<d>&e'f\r\nBcc: x@y\u{2028}{{value}}*";

/// An alert about `graph` and `column`, sent to one channel.
fn to(channel: Value) -> Alerts {
    alerts(json!({"income_drifts": {
        "when": {"metric": "drift", "graph": "*", "column": "*", "above": 0.2},
        "description": "Loans & income",
        "severity": "high",
        "group_by": ["graph"],
        "summary": "{{column}} of {{graph}} drifts: {{value}} > {{threshold}}",
        "notify": vec![channel],
    }}))
}

/// Both columns fire in the first notification; in the second one has ended.
fn both(mut alerts: Alerts) -> [Notification; 2] {
    for (column, value) in [("age", 0.5), ("income", 0.25)] {
        let mut sample = sample("drift", &[("graph", "loan"), ("column", column)], START, value);
        sample.evidence = (column == "age").then(|| json!({"bins": ["<18"]}));
        alerts.observe(&sample);
    }
    let mut first = alerts.tick((START + 1) * SECOND);
    alerts.observe(&sample("drift", &[("graph", "loan"), ("column", "age")], START + 60, 0.125));
    let mut second = alerts.tick((START + 61) * SECOND);
    assert_eq!((first.len(), second.len()), (1, 1));
    [first.remove(0), second.remove(0)]
}

/// One event whose label would like to be something else.
fn nasty(channel: Value) -> Notification {
    let mut alerts = to(channel);
    alerts.observe(&sample("drift", &[("graph", "g"), ("column", NASTY)], START, f64::INFINITY));
    alerts.tick(START * SECOND).remove(0)
}

fn body(message: Message) -> Value {
    let Message::Http { body, .. } = message else { panic!("{message:?} is no POST") };
    body
}

#[test]
fn a_webhook_gets_what_alertmanager_sends() {
    let [first, second] = both(to(json!({"webhook": {"url": "env:HOOK", "headers": {"X": "file:y"}}})));
    let Message::Http { url, headers, body, secrets } = first.message("https://ms.test/") else {
        panic!("a POST")
    };
    assert_eq!((url, secrets), (Secret::new("env:HOOK"), vec![]));
    assert_eq!(headers["X"], Secret::new("file:y"));
    let annotations = |column: &str, value: &str| {
        json!({
            "description": "Loans & income", "firings": "1", "peak": value,
            "summary": format!("{column} of loan drifts: {value} > 0.2"), "threshold": "0.2", "value": value,
        })
    };
    let own = |column: &str| {
        json!({
            "alertname": "income_drifts", "column": column, "graph": "loan", "metric": "drift", "severity": "high",
        })
    };
    let fingerprint = |place: usize| body["alerts"][place]["fingerprint"].clone();
    assert_ne!(fingerprint(0), fingerprint(1));
    let alert = |place: usize, column: &str, value: &str| {
        json!({
            "status": "firing", "fingerprint": fingerprint(place), "labels": own(column),
            "annotations": annotations(column, value), "startsAt": "2023-11-14T22:13:20Z",
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "",
        })
    };
    let mut age = alert(0, "age", "0.5");
    age["evidence"] = json!({"bins": ["<18"]});
    let expected = json!({
        "version": "4",
        "groupKey": "{}:{alertname=\"income_drifts\", graph=\"loan\"}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "income_drifts/0",
        "groupLabels": {"alertname": "income_drifts", "graph": "loan"},
        "commonLabels": {"alertname": "income_drifts", "graph": "loan", "metric": "drift", "severity": "high"},
        "commonAnnotations": {"description": "Loans & income", "firings": "1", "threshold": "0.2"},
        "externalURL": "https://ms.test/",
        "alerts": [age, alert(1, "income", "0.25")],
    });
    assert_eq!(body, expected);

    let ended = second.webhook_body("");
    assert_eq!(
        (&ended["status"], &ended["alerts"][0]["endsAt"]),
        (&json!("resolved"), &json!("2023-11-14T22:14:20Z"))
    );
    assert_eq!(ended["alerts"][0]["annotations"]["value"], "0.125");
    assert_eq!(ended["alerts"][0]["annotations"]["peak"], "0.5");
    assert_eq!(ended["alerts"][0]["fingerprint"], fingerprint(0), "the same series has the same fingerprint");
    assert_ne!(first.id(), second.id());
}

#[test]
fn slack_gets_blocks_and_a_fallback() {
    let [first, second] = both(to(json!({"slack": {"url": "env:SLACK", "channel": "#ml"}})));
    let expected = json!({
        "text": "[HIGH] income_drifts: 2 firing, 0 resolved (graph=loan)",
        "blocks": [
            {"type": "header", "text": {
                "type": "plain_text", "text": "[HIGH] income_drifts: 2 firing, 0 resolved (graph=loan)", "emoji": false,
            }},
            {"type": "section", "text": {"type": "mrkdwn", "text":
                "firing: income of loan drifts: 0.25 &gt; 0.2\ncolumn=income, graph=loan\nsince 2023-11-14T22:13:20Z"}},
            {"type": "section", "text": {"type": "mrkdwn", "text":
                "firing: age of loan drifts: 0.5 &gt; 0.2\ncolumn=age, graph=loan\nsince 2023-11-14T22:13:20Z"}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "Loans &amp; income"}]},
        ],
        "channel": "#ml",
    });
    assert_eq!(body(first.message("")), expected);
    let ended = body(second.message(""));
    assert_eq!(ended["text"], "[RESOLVED] income_drifts: age of loan drifts: 0.125 &gt; 0.2");
    assert!(ended["blocks"][1]["text"]["text"].as_str().unwrap().ends_with("cleared 2023-11-14T22:14:20Z"));
}

#[test]
fn slack_is_neither_paged_nor_overrun() {
    let text = nasty(json!({"slack": {"url": "env:SLACK"}})).message("");
    let text = body(text)["text"].as_str().unwrap().to_owned();
    assert!(text.contains("&lt;d&gt;&amp;e") && !text.contains(['<', '>', '\n']), "{text}");

    let mut alerts = to(json!({"slack": {"url": "env:SLACK"}}));
    for id in 0..150 {
        let column = format!("{id}{}", "<".repeat(3000));
        alerts.observe(&sample("drift", &[("graph", "g"), ("column", &column)], START, 1.0));
    }
    let sent = alerts.tick(START * SECOND);
    let body = body(sent[0].message(""));
    let blocks = body["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 22, "a header, twenty events, and the rest as a number");
    for block in &blocks[1..21] {
        let text = block["text"]["text"].as_str().unwrap();
        assert!(text.len() < 3000 && text.ends_with("&lt;…"), "{}", &text[text.len() - 20..]);
    }
    assert_eq!(blocks[21]["elements"][0]["text"], "and 130 more\nLoans &amp; income");
}

#[test]
fn an_email_has_a_subject_and_two_bodies() {
    let [first, second] = both(to(json!({"email": {"to": ["team@example.com"]}})));
    let Message::Email { to, subject, text, html } = first.message("https://ms.test/?a&b") else {
        panic!("an email")
    };
    assert_eq!(to, ["team@example.com"]);
    assert_eq!(subject, "[HIGH] income_drifts: 2 firing, 0 resolved (graph=loan)");
    let expected = "\
[HIGH] income_drifts: 2 firing, 0 resolved (graph=loan)

firing: income of loan drifts: 0.25 > 0.2
  column=income, graph=loan
  since 2023-11-14T22:13:20Z

firing: age of loan drifts: 0.5 > 0.2
  column=age, graph=loan
  since 2023-11-14T22:13:20Z
  evidence: {\"bins\":[\"<18\"]}

Loans & income

https://ms.test/?a&b
";
    assert_eq!(text, expected);
    assert!(html.contains("<a href=\"https://ms.test/?a&amp;b\">https://ms.test/?a&amp;b</a>"), "{html}");
    assert!(html.contains("&lt;18") && html.contains("Loans &amp; income"), "{html}");
    let Message::Email { subject, .. } = second.message("") else { panic!("an email") };
    assert_eq!(subject, "[RESOLVED] income_drifts: age of loan drifts: 0.125 > 0.2");
}

#[test]
fn an_email_carries_no_header_and_no_markup_of_a_label() {
    let message = nasty(json!({"email": {"to": ["team@example.com"]}})).message("javascript:alert(1)");
    let Message::Email { subject, text, html, .. } = message else { panic!("an email") };
    assert!(!subject.contains(|c: char| c.is_control() || c == '\u{2028}'), "{subject:?}");
    assert!(subject.contains("Bcc: x@y"), "it is text of the subject and nothing else: {subject:?}");
    assert!(!text.contains("\nBcc") && text.contains("drifts: +Inf"), "{text:?}");
    assert!(html.contains("a&quot;b\\c&lt;d&gt;&amp;e&#39;f") && !html.contains("<d>"), "{html}");
    assert!(!html.contains("href"), "{html}");
}

#[test]
fn a_line_of_the_log_is_one_line() {
    let [first, second] = both(to(json!("log")));
    let Message::Log { level, line } = first.message("") else { panic!("a line") };
    assert_eq!(level, Level::Error);
    assert_eq!(
        line,
        "alert=income_drifts project=bank status=firing severity=high group=\"graph=loan\" events=2 \
         summary=\"income of loan drifts: 0.25 > 0.2\""
    );
    let Message::Log { level, line } = second.message("") else { panic!("a line") };
    assert_eq!(level, Level::Info);
    assert_eq!(
        line,
        "alert=income_drifts project=bank status=resolved severity=high entity=\"column=age, graph=loan\" \
         summary=\"age of loan drifts: 0.125 > 0.2\""
    );
    let Message::Log { line, .. } = nasty(json!("log")).message("") else { panic!("a line") };
    assert!(line.contains(r#"column=a\"b\\c<d>&e'f  Bcc: x@y {{value}}*"#), "{line}");
    assert!(!line.contains(|c: char| c.is_control()), "{line}");
}

#[test]
fn a_post_has_the_body_of_the_settings() {
    let template = json!({
        "text": "{{severity}}: {{summary}}", "value": "{{value}}", "threshold": "{{threshold}}", "count": "{{count}}",
        "labels": "{{labels}}", "group": "{{group}}", "evidence": "{{evidence}}", "status": "{{status}}",
        "when": ["{{started}}", "{{ended}}"], "all": "{{name}}/{{metric}}/{{project}}/{{entity}}/{{peak}}",
        "fixed": [1, true, null, "plain"], "{{value}}": "a key is no template",
        "key~/": {"routing": "env:PAGER"},
    });
    let [first, _] = both(to(json!({"post": {"url": "https://p.test/", "body": template}})));
    let Message::Http { body, secrets, .. } = first.message("") else { panic!("a POST") };
    let expected = json!({
        "text": "high: income of loan drifts: 0.25 > 0.2", "value": 0.25, "threshold": 0.2, "count": 1,
        "labels": {"column": "income", "graph": "loan"}, "group": {"graph": "loan"}, "evidence": null,
        "status": "firing", "when": ["2023-11-14T22:13:20Z", ""],
        "all": "income_drifts/drift/bank/column=income, graph=loan/0.25", "fixed": [1, true, null, "plain"],
        "{{value}}": "a key is no template", "key~/": {"routing": "env:PAGER"},
    });
    assert_eq!(body, expected);
    assert_eq!(secrets, [("/key~0~1/routing".to_owned(), Secret::new("env:PAGER"))]);
    assert_eq!(body.pointer(&secrets[0].0), Some(&json!("env:PAGER")));
}

#[test]
fn a_label_can_change_no_post() {
    let channel = json!({"post": {"url": "https://p.test/", "body": {"a": "{{column}}", "b": "x {{column}}", "v": "{{value}}"}}});
    let expected = json!({"a": NASTY, "b": format!("x {NASTY}"), "v": "+Inf"});
    assert_eq!(body(nasty(channel.clone()).message("")), expected);

    let mut alerts = to(channel);
    alerts.observe(&sample("drift", &[("graph", "g"), ("column", "env:AWS_SECRET_ACCESS_KEY")], START, 1.0));
    let Message::Http { secrets, .. } = alerts.tick(START * SECOND)[0].message("") else { panic!("a POST") };
    assert_eq!(secrets, [], "what a label says fetches nothing");
}

#[test]
fn a_message_with_many_labels_stays_small() {
    let summary = "{{x}}".repeat(400);
    let mut alerts = alerts(
        json!({"a": {"when": {"metric": "m", "x": "*", "above": 0}, "summary": summary, "notify": ["log"]}}),
    );
    alerts.observe(&sample("m", &[("x", &"é".repeat(2000))], 1, 1.0));
    let sent = alerts.tick(SECOND);
    let summary = sent[0].summary(&sent[0].events[0]);
    assert!(summary.len() <= 4096 && summary.ends_with("é…"), "{}", summary.len());
}

#[test]
fn names_of_the_alert_win_over_labels_of_a_sample() {
    let mut alerts = one(json!({"above": 0.5}), json!({}));
    let pairs = [("alertname", "x"), ("metric", "y"), ("severity", "z"), ("pod", "p")];
    alerts.observe(&sample("m", &pairs, 1, 1.0));
    let body = alerts.tick(SECOND)[0].webhook_body("");
    let expected = json!({
        "alertname": "a", "exported_alertname": "x", "exported_metric": "y", "exported_severity": "z", "metric": "m",
        "pod": "p", "severity": "medium",
    });
    assert_eq!(body["alerts"][0]["labels"], expected);
}

#[test]
fn prometheus_sees_what_is_pending_and_what_fires() {
    let mut alerts = one(json!({"above": 0.5}), json!({"hold": {"of": 2}, "reset": "manual"}));
    let rows: [(i64, &str, f64); 7] = [
        (1, "p", 1.0),
        (1, "f", 1.0),
        (2, "f", 1.0),
        (1, "w", 1.0),
        (2, "w", 1.0),
        (3, "w", 0.0),
        (1, "i", 0.0),
    ];
    for (at, pod, value) in rows {
        alerts.observe(&sample("m", &[("pod-name", pod), ("alertstate", "x"), ("0", "y")], at, value));
    }
    let exposed: Vec<(&str, Labels, f64)> =
        alerts.exposed().into_iter().map(|one| (one.name, one.labels, one.value)).collect();
    let full = |pod: &str, state: Option<&str>| {
        let mut all = labels(&[
            ("alertname", "a"),
            ("exported_alertstate", "x"),
            ("label_0", "y"),
            ("metric", "m"),
            ("pod_name", pod),
            ("severity", "medium"),
        ]);
        all.extend(state.map(|state| ("alertstate".to_owned(), state.to_owned())));
        all
    };
    let expected = [
        ("ALERTS", full("f", Some("firing")), 1.0),
        ("ALERTS", full("w", Some("firing")), 1.0),
        ("ALERTS", full("p", Some("pending")), 1.0),
        ("ALERTS_FOR_STATE", full("f", None), 2.0),
        ("ALERTS_FOR_STATE", full("p", None), 1.0),
        ("ALERTS_FOR_STATE", full("w", None), 2.0),
    ];
    assert_eq!(exposed, expected);
}

#[test]
fn numbers_are_short() {
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.3"),
        (1.0 / 3.0, "0.333333"),
        (1234.5678, "1234.57"),
        (1_000_000.0, "1000000"),
        (-0.001_234_567, "-0.00123457"),
        (1.5e-9, "1.5e-9"),
        (1e300, "1e300"),
        (0.999_999_9, "1"),
        (123_456_789.0, "123456789"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
        (f64::MIN_POSITIVE, "2.22507e-308"),
    ];
    for (value, expected) in cases {
        assert_eq!(number(value), expected, "{value:e}");
    }
}

#[test]
fn times_are_rfc_3339() {
    let cases = [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_399_000_000, "2000-02-28T23:59:59Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00Z"),
        (951_868_800_500_000, "2000-03-01T00:00:00.5Z"),
        (1_782_907_200_000_000, "2026-07-01T12:00:00Z"),
        (i64::MAX, "9999-12-31T23:59:59.999999Z"),
        (i64::MIN, "0000-01-01T00:00:00Z"),
    ];
    for (micros, expected) in cases {
        assert_eq!(rfc3339(micros), expected, "{micros}");
    }
}

#[test]
fn a_cut_never_splits_a_character() {
    for (most, expected) in [(6, "éééé"), (8, "éééé"), (7, "éé…"), (3, "…"), (0, "…")] {
        let text = if most == 6 { "ééé" } else { "éééé" };
        let expected = if most == 6 { "ééé" } else { expected };
        assert_eq!(cut(text, most), expected, "{most}");
    }
}
