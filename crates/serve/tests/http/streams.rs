//! Streams of a project: read while it is served, kept or changed by reloads, ended with the server.

use std::{fs, path::Path};

use async_nats::jetstream::stream;
use millstream_featurestore::Stores;
use millstream_serve::{Outcome, Project};
use serde_json::{Value, json};

use super::{
    ConnectionLimits, PATIENCE, Serving,
    nats::{Server, publish},
    replace, served_project,
};

const PROJECT: &str = "\
name: cards
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { count: int64, tier: string }
    timestamp: at
    online: { local: { path: state/cards } }
    aside: { path: state/aside.jsonl }
  other: { keys: [k], types: { k: int64, at: int64 }, features: { v: int64 }, timestamp: at, online: memory }
  fixed: { keys: [k], source: fixed.csv }
streams:
  counts: { nats: { url: URL, stream: TX, subject: tx.cards }, into: cards }
graphs:
  score:
    input: { card_id: int64 }
    steps:
      known: { enrich: { set: cards, missing: { default: 0 }, features: [count] } }
    respond: known
";

fn project(folder: &Path, text: &str) {
    fs::write(folder.join("fixed.csv"), "k,v\n1,2\n").unwrap();
    replace(&folder.join("millstream.yaml"), text);
}

/// Waits until the streams have written so many messages, since the server was started, and lag behind by none.
fn await_written(serving: &Serving, stream: &str, outcome: &str, count: u64) {
    let start = std::time::Instant::now();
    let sample = format!("millstream_stream_messages_total{{outcome=\"{outcome}\",stream=\"{stream}\"}}");
    let lag = format!("millstream_stream_lag{{stream=\"{stream}\"}}");
    while serving.metric(&sample) < count || serving.metric(&lag) > 0 {
        assert!(start.elapsed() < PATIENCE, "{sample}: {}", serving.client().get("/metrics").text());
    }
    assert_eq!(serving.metric(&sample), count);
}

fn count_of(serving: &Serving, card: i64) -> i64 {
    let answer =
        serving.client().send("POST", "/v1/graphs/score", &[], format!("{{\"card_id\":{card}}}").as_bytes());
    answer.json()["count"].as_i64().unwrap()
}

#[test]
fn a_stream_is_read_while_a_project_is_served_and_goes_on_when_it_is_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(nats) = Server::start(folder.path(), &[]) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let context = runtime.block_on(nats.stream(stream::Config::default()));
    let send = |messages: &[&str]| {
        let messages = messages.iter().map(|message| (*message).to_owned()).collect::<Vec<_>>();
        runtime.block_on(publish(&context, "tx.cards", messages));
    };
    let text = PROJECT.replace("URL", &nats.url());
    project(folder.path(), &text);
    let serves = |body: &dyn Fn(&Serving)| {
        served_project(folder.path(), ConnectionLimits::default(), PATIENCE, |serving| body(serving));
    };
    send(&[
        r#"{"card_id":1,"count":5,"at":1,"of":"no interest","deep":{"x":[1]}}"#,
        r#"[{"card_id":2,"count":6,"at":1},{"card_id":1,"count":7,"at":2}]"#,
    ]);
    serves(&|serving| {
        await_written(serving, "counts", "written", 2);
        assert_eq!((count_of(serving, 1), count_of(serving, 2)), (7, 6));
        send(&["{\"card_id\":1,\"count\":\"8\",\"at\":3}", "nothing"]);
        await_written(serving, "counts", "unread", 2);
        let told = serving.client().get("/v1/streams").json();
        let expected = json!({ "streams": [{
            "name": "counts", "into": "cards", "phase": "reading", "written": 2, "unread": 2, "lag": 0,
            "partitions": [{ "partition": 0, "position": 4, "lag": 0 }],
        }] });
        assert_eq!(told, expected);
    });
    let aside = fs::read_to_string(folder.path().join("state/aside.jsonl")).unwrap();
    let reasons: Vec<_> =
        aside.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["reason"].clone()).collect();
    let reason = |offset| format!("offset {offset} of partition 0 of nats:TX: ");
    assert!(reasons.len() == 2 && reasons[0].as_str().unwrap().starts_with(&reason(3)), "{aside}");
    assert!(reasons[1].as_str().unwrap().starts_with(&reason(4)) && aside.contains("nothing"), "{aside}");
    send(&[r#"{"card_id":1,"count":9,"at":4}"#]);
    serves(&|serving| {
        await_written(serving, "counts", "written", 1);
        assert_eq!(
            (
                count_of(serving, 1),
                serving.metric("millstream_feature_rows_total{outcome=\"taken\",set=\"cards\"}")
            ),
            (9, 1)
        );
        // A reload that changes nothing of the stream lets it be; one without it ends it.
        replace(&folder.path().join("millstream.yaml"), &text.replace("  score:", "  scored:"));
        assert_eq!(serving.reload().outcome, Outcome::Swapped);
        send(&[r#"{"card_id":1,"count":10,"at":5}"#]);
        await_written(serving, "counts", "written", 2);
        let (before, behind) = (text.find("streams:").unwrap(), text.find("graphs:").unwrap());
        replace(&folder.path().join("millstream.yaml"), &format!("{}{}", &text[..before], &text[behind..]));
        assert_eq!(serving.reload().outcome, Outcome::Swapped);
        assert_eq!(serving.client().get("/v1/streams").json(), json!({ "streams": [] }));
        send(&[r#"{"card_id":1,"count":11,"at":6}"#]);
        assert_eq!(count_of(serving, 1), 10);
        // And one that has it again begins where the set stands.
        replace(&folder.path().join("millstream.yaml"), &text);
        assert_eq!(serving.reload().outcome, Outcome::Swapped);
        await_written(serving, "counts", "written", 3);
        assert_eq!(count_of(serving, 1), 11);
    });
}

#[test]
fn mistakes_in_streams_are_told_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path(), "");
    let check = |streams: &str, expected: &[&str]| {
        let (before, behind) = PROJECT.split_at(PROJECT.find("streams:").unwrap());
        let text = format!("{before}streams:\n{streams}\n{}", &behind[behind.find("graphs:").unwrap()..]);
        let errors = Project::from_text(&text, folder.path(), &Stores::aside()).err().unwrap();
        let told: Vec<String> = errors.errors().iter().map(ToString::to_string).collect();
        assert_eq!(told, expected);
    };
    check(
        "  a: { nats: { url: 'nats://h', stream: TX }, into: card }",
        &["12:3: stream `a`: no feature set `card`; did you mean `cards`?"],
    );
    check(
        "  a: { into: fixed }",
        &[
            "12:3: stream `a`: name what is read: `nats` or `kafka`",
            "12:3: stream `a`: feature set `fixed` is its file and takes no rows; give it `online`",
        ],
    );
    check(
        "  a: { nats: { url: 'nats://h', stream: TX }, into: cards }\n  b: { nats: { url: 'nats://i', stream: TX }, into: cards, gap: continue }\n  c: { nats: { url: 'nats://i', stream: TX }, into: other }",
        &["13:3: stream `b`: stream `a` reads the same into the same set"],
    );
    check(
        "  a: { nats: { url: 'nats://h', stream: TX, password: hunter2, user: me }, into: cards, rows: 10 }",
        &[
            "12:3: stream `a`: `password` stands in the environment: write `${NAME}` here, and its value there",
        ],
    );
}
