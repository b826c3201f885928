//! CloudEvents: attributes in headers or beside the data, around bodies of every protocol.

use serde_json::{Value, json};

use super::{
    super::client::Answer,
    Serving,
    clients::{has_clients, run},
    inputs, serves,
};

const OF: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/tests"), ("ce-type", "ask")];

fn post(serving: &Serving, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    serving.client().send("POST", path, headers, body.to_string().as_bytes())
}

/// A path, a body for it, and the answer to the body by itself.
fn asked() -> [(&'static str, Value, Value); 4] {
    [
        ("/v1/graphs/one", json!({ "a": 1 }), json!({ "twice": 2 })),
        ("/v1/models/one:predict", json!({ "instances": [1, 2] }), json!({ "predictions": [2, 4] })),
        (
            "/v2/models/one/infer",
            json!({ "inputs": [{ "name": "a", "datatype": "INT64", "shape": [1], "data": [4] }] }),
            json!({ "model_name": "one", "model_version": "1", "outputs": [
                { "name": "twice", "datatype": "INT64", "shape": [1], "data": [8] },
            ] }),
        ),
        ("/v1/models/one/versions/1:predict", json!({ "instances": [] }), json!({ "predictions": [] })),
    ]
}

#[track_caller]
fn is_reply(attribute: impl Fn(&str) -> Option<String>) {
    assert_eq!(attribute("specversion").as_deref(), Some("1.0"));
    assert_eq!(attribute("source").as_deref(), Some("io.kserve.inference.one"));
    assert_eq!(attribute("type").as_deref(), Some("io.kserve.inference.response"));
    assert!(attribute("id").is_some_and(|id| !id.is_empty() && id != "7"), "an event of its own");
    assert!(attribute("time").is_some_and(|time| time.len() == 27 && time.ends_with('Z')));
}

#[test]
fn an_event_whose_attributes_are_headers_is_answered_by_one() {
    serves(|serving| {
        for (path, body, expected) in asked() {
            let answer = post(serving, path, &OF, &body);
            assert_eq!(
                (answer.status, &answer.headers["content-type"][..]),
                (200, "application/json"),
                "{path}"
            );
            assert_eq!(answer.json(), expected, "{path}");
            is_reply(|name| answer.headers.get(&format!("ce-{name}")).cloned());
            let plain = post(serving, path, &[], &body);
            assert!(!plain.headers.contains_key("ce-id"), "what is no event is answered by none");
        }
    });
}

#[test]
fn an_event_in_one_body_is_answered_by_one() {
    serves(|serving| {
        for (path, data, expected) in asked() {
            for media in ["application/cloudevents+json", "application/CloudEvents+json; charset=utf-8"] {
                let event = json!({
                    "data": data, "specversion": "1.0", "id": "7", "source": "/tests", "type": "ask", "mine": 1,
                });
                let answer = post(serving, path, &[("content-type", media)], &event);
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.headers["content-type"], "application/cloudevents+json");
                let told = answer.json();
                assert_eq!(
                    (&told["data"], &told["datacontenttype"]),
                    (&expected, &json!("application/json"))
                );
                is_reply(|name| told[name].as_str().map(str::to_owned));
            }
        }
        // Bytes go as text.
        let event = json!({
            "specversion": "1.0", "id": "7", "source": "/tests", "type": "ask", "data_base64": "eyJhIjogM30=",
        });
        let headers = [
            ("content-type", "application/cloudevents+json"),
            ("accept", "application/vnd.apache.arrow.stream"),
        ];
        let told = post(serving, "/v1/graphs/one", &headers, &event).json();
        assert_eq!(told["datacontenttype"], "application/vnd.apache.arrow.stream");
        assert!(told["data_base64"].as_str().unwrap().starts_with("/////"), "{told}");
    });
}

#[test]
fn what_is_no_event_says_why() {
    let event = |change: &[(&str, Value)]| {
        let mut event =
            json!({ "specversion": "1.0", "id": "7", "source": "s", "type": "t", "data": { "a": 1 } });
        for (name, value) in change {
            event[*name] = value.clone();
        }
        event
    };
    let structured = [("content-type", "application/cloudevents+json")];
    serves(|serving| {
        for (headers, body, part) in [
            (&structured[..], json!([]), "not an event in JSON"),
            (&structured, json!({ "data": {} }), "no `specversion`, `id`, `source`, `type`"),
            (&structured, event(&[("id", json!(""))]), "no `id`"),
            (
                &structured,
                event(&[("specversion", json!("0.3"))]),
                "`specversion` of the event is 1.0, not \"0.3\"",
            ),
            (&structured, event(&[("data_base64", json!("AA=="))]), "both `data` and `data_base64`"),
            (&structured, event(&[("data", json!({ "b": 1 }))]), "a"),
            (
                &[("content-type", "application/cloudevents-batch+json")],
                json!([event(&[])]),
                "one per request",
            ),
            (&OF[..2], json!({ "a": 1 }), "no `ce-source`, `ce-type`"),
        ] {
            let answer = post(serving, "/v1/graphs/one", headers, &body);
            let told = answer.json();
            let error = told["error"].as_str().unwrap_or_default();
            assert!(answer.status == 400 && error.contains(part), "{headers:?} {body}: {told}");
            assert!(!answer.headers.contains_key("ce-id"), "a refusal is no event");
        }
        // What cannot be inferred is answered as the protocol has it.
        let answer = post(serving, "/v2/models/sum/infer", &OF, &json!({ "inputs": inputs(&[1], &[]) }));
        assert_eq!((answer.status, answer.headers.contains_key("ce-id")), (400, false), "{}", answer.text());
    });
}

#[test]
fn events_of_the_python_package_are_understood_both_ways() {
    if !has_clients() {
        return;
    }
    serves(|serving| run("events.py", &[&serving.address.to_string()]));
}
