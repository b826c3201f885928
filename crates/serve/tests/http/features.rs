//! Feature sets that take rows: written over HTTP and by graphs, read by graphs, kept through reloads and kills.

use std::{fs, path::Path, sync::Arc};

use arrow::{array::RecordBatch, datatypes::Schema, ipc::writer::StreamWriter};
use millstream_graph::rows;
use millstream_serve::{ConnectionLimits, Outcome};
use serde_json::{Value, json};

use super::{Answer, PATIENCE, Serving, replace};

const PROJECT: &str = "\
name: cards
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { count: int64, tier: string }
    timestamp: at
    created: known
    online: { local: { path: state/cards } }
  fixed: { keys: [k], source: fixed.csv }
graphs:
  score:
    input: { card_id: int64 }
    steps:
      known: { enrich: { set: cards, missing: { default: 0 }, features: [count] } }
    respond: known
  note:
    input: { id: int64, count: int64, tier: string?, when: timestamp? }
    steps:
      kept: { ingest: { set: cards, columns: { card_id: id }, event: when } }
      found: { enrich: { set: cards, by: id, features: [count AS stored], missing: fail } }
    respond: found
";

/// Serves the project while `body` runs, in a folder that outlives it.
fn serves(folder: &Path, body: impl FnOnce(&mut Serving)) {
    fs::write(folder.join("fixed.csv"), "k,v\n1,2\n").unwrap();
    replace(&folder.join("millstream.yaml"), PROJECT);
    served_in(folder, body);
}

fn served_in(folder: &Path, body: impl FnOnce(&mut Serving)) {
    super::served_project(folder, ConnectionLimits::default(), PATIENCE, body);
}

fn post(serving: &Serving, path: &str, body: &str) -> Answer {
    serving.client().send("POST", path, &[], body.as_bytes())
}

/// What became of the rows of a body: taken, older, repeated, refused.
#[track_caller]
fn check_written(serving: &Serving, path: &str, body: &str, expected: [u64; 4]) -> Value {
    let answer = post(serving, path, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let counts = ["taken", "older", "repeated", "refused"].map(|name| told[name].as_u64().unwrap());
    assert_eq!(counts, expected, "{told}");
    told["problems"].clone()
}

#[track_caller]
fn check_count(serving: &Serving, card: i64, count: i64) {
    let answer = post(serving, "/v1/graphs/score", &format!("{{\"card_id\":{card}}}"));
    assert_eq!((answer.status, &answer.json()["count"]), (200, &json!(count)), "{}", answer.text());
}

const CARDS: &str = "/v1/features/cards";

#[test]
fn rows_that_were_pushed_are_what_graphs_read() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        check_count(serving, 1, 0);
        let one = r#"{"card_id":1,"count":5,"tier":"gold","at":"2026-01-01T00:00:00Z"}"#;
        check_written(serving, CARDS, one, [1, 0, 0, 0]);
        check_count(serving, 1, 5);
        let older = r#"[{"card_id":1,"count":4,"at":"2025-12-31T23:59:59Z"},{"card_id":2,"count":2,"at":1}]"#;
        check_written(serving, CARDS, older, [1, 1, 0, 0]);
        check_count(serving, 1, 5);
        // A correction of the same event became known later.
        let known = r#"{"card_id":1,"count":6,"at":"2026-01-01T00:00:00Z","known":"2026-01-02T00:00:00Z"}"#;
        check_written(serving, CARDS, known, [1, 0, 0, 0]);
        check_count(serving, 1, 6);
        let read = post(serving, "/v1/features/cards/read", r#"[{"card_id":2},{"card_id":9}]"#);
        let expected = json!([
            { "card_id": 2, "count": 2, "tier": null },
            { "card_id": 9, "count": null, "tier": null },
        ]);
        assert_eq!(read.json(), expected);
        let metric =
            |outcome| format!("millstream_feature_rows_total{{outcome=\"{outcome}\",set=\"cards\"}}");
        assert_eq!(serving.metric(&metric("taken")), 3);
        assert_eq!(serving.metric(&metric("older")), 1);
    });
}

#[test]
fn the_same_events_are_taken_once_by_their_place_or_id() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        let two = r#"[{"card_id":1,"count":1,"at":1},{"card_id":2,"count":1,"at":1}]"#;
        let at = |query: &str| format!("{CARDS}?{query}");
        check_written(serving, &at("source=tx&offset=10"), two, [2, 0, 0, 0]);
        check_written(serving, &at("source=tx&offset=10"), two, [0, 0, 2, 0]);
        check_written(serving, &at("source=tx&offset=11"), two, [1, 0, 1, 0]);
        check_written(serving, &at("source=tx&partition=1&offset=0"), two, [2, 0, 0, 0]);
        let named = r#"[{"event_id":"a","card_id":3,"count":1,"at":1},{"event_id":"b","card_id":3,"count":2,"at":2}]"#;
        check_written(serving, CARDS, named, [2, 0, 0, 0]);
        check_written(serving, CARDS, named, [0, 0, 2, 0]);
    });
}

#[test]
fn a_row_that_cannot_be_taken_is_told_and_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        let rows = r#"[{"count":1,"at":1},{"card_id":2,"count":7,"at":1},{"card_id":3,"count":1}]"#;
        let problems = check_written(serving, CARDS, rows, [1, 0, 0, 2]);
        let expected = json!([
            { "row": 0, "field": "card_id", "error": "key `card_id` is null" },
            { "row": 2, "field": "at", "error": "timestamp `at` is null" },
        ]);
        assert_eq!(problems, expected);
        check_count(serving, 2, 7);
    });
}

#[test]
fn a_body_that_is_no_rows_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        for (path, body, status, code, sentence) in [
            (
                CARDS,
                r#"{"card_id":1,"cuont":1}"#,
                400,
                "unknown_field",
                "no field `cuont`; did you mean `count`?",
            ),
            (CARDS, r#"{"card_id":"1","at":1}"#, 400, "wrong_type", "field `card_id`"),
            (CARDS, "", 400, "truncated", "empty"),
            ("/v1/features/cards?source=a", "{}", 400, "malformed", "`source` and `offset` come together"),
            ("/v1/features/cards?offste=1", "{}", 400, "malformed", "did you mean `offset`?"),
            ("/v1/features/card", "{}", 404, "unknown_feature_set", "did you mean `cards`?"),
            ("/v1/features/fixed", "{}", 405, "method_not_allowed", "give it `online`"),
            ("/v1/features/cards/read", r#"{"card":1}"#, 400, "unknown_field", "there is `card_id`"),
        ] {
            let answer = post(serving, path, body);
            let told = answer.json();
            assert_eq!((answer.status, told["code"].as_str()), (status, Some(code)), "{path} {body}: {told}");
            assert!(told["error"].as_str().unwrap().contains(sentence), "{path} {body}: {told}");
        }
        let erase = serving.client().send("DELETE", CARDS, &[], b"{}");
        assert_eq!((erase.status, &*erase.headers["allow"]), (405, "GET, HEAD, POST"));
    });
}

#[test]
fn an_arrow_stream_is_taken_as_json_is() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        let batch = rows! { card_id: [1_i64, 2], count: [3_i64, 4], tier: ["a", "b"] };
        let at = arrow::array::TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC");
        let mut fields = batch.schema().fields().to_vec();
        fields.push(Arc::new(arrow::datatypes::Field::new(
            "at",
            arrow::array::Array::data_type(&at).clone(),
            true,
        )));
        let columns = batch.columns().iter().cloned().chain([Arc::new(at) as _]).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let mut body = Vec::new();
        let mut writer = StreamWriter::try_new(&mut body, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let answer = serving.client().send("POST", CARDS, &[], &body);
        assert_eq!((answer.status, &answer.json()["taken"]), (200, &json!(2)), "{}", answer.text());
        check_count(serving, 2, 4);
    });
}

#[test]
fn a_graph_writes_rows_and_reads_them_in_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        let answer = post(serving, "/v1/graphs/note", r#"{"id":1,"count":9,"when":5}"#);
        assert_eq!((answer.status, &answer.json()["stored"]), (200, &json!(9)), "{}", answer.text());
        check_count(serving, 1, 9);
        let late = post(serving, "/v1/graphs/note", r#"{"id":1,"count":8,"when":4}"#);
        assert_eq!(late.json()["stored"], 9, "an older row changes nothing");
        let refused = post(serving, "/v1/graphs/note", r#"{"id":1,"count":8}"#);
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(
            refused.status == 400 && error.contains("refuses the row: timestamp `at` is null"),
            "{error}"
        );
    });
}

#[test]
fn a_reload_goes_on_with_the_store_that_is_open() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        check_written(serving, CARDS, r#"{"card_id":1,"count":5,"at":1}"#, [1, 0, 0, 0]);
        replace(&folder.path().join("millstream.yaml"), &PROJECT.replace("  score:", "  scored:"));
        assert_eq!(serving.reload().outcome, Outcome::Swapped);
        let answer = post(serving, "/v1/graphs/scored", r#"{"card_id":1}"#);
        assert_eq!(answer.json()["count"], 5);
        check_written(serving, CARDS, r#"{"card_id":1,"count":6,"at":2}"#, [1, 0, 0, 0]);
        // What an open store cannot change is said, and nothing is replaced.
        replace(
            &folder.path().join("millstream.yaml"),
            &PROJECT.replace("count: int64, tier: string }", "count: int64 }"),
        );
        let Outcome::Failed(mistakes) = &serving.reload().outcome else { panic!("it was reloaded") };
        assert!(mistakes[0].contains("feature set `cards`: its store is open"), "{mistakes:?}");
    });
}

#[test]
fn what_was_taken_is_there_when_the_server_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        check_written(serving, CARDS, r#"{"card_id":1,"count":5,"at":1}"#, [1, 0, 0, 0]);
    });
    serves(folder.path(), |serving| check_count(serving, 1, 5));
}

#[test]
fn keys_are_erased_on_the_admin_listener_with_a_receipt() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        check_written(serving, CARDS, r#"{"card_id":1,"count":5,"at":1}"#, [1, 0, 0, 0]);
        let receipt = serving.admin_with("DELETE", CARDS, br#"[{"card_id":1},{"card_id":2}]"#).json();
        assert_eq!((&receipt["removed"], &receipt["unknown"]), (&json!(1), &json!(1)), "{receipt}");
        assert!(!receipt["files_deleted"].as_array().unwrap().is_empty(), "{receipt}");
        check_count(serving, 1, 0);
        let stranger = super::Client::connect(serving.admin).send("DELETE", CARDS, &[], b"{}");
        assert_eq!(stranger.status, 401);
    });
}

#[test]
fn sets_describe_themselves() {
    let folder = tempfile::tempdir().unwrap();
    serves(folder.path(), |serving| {
        let list = serving.client().get("/v1/features").json();
        assert_eq!(
            list["feature_sets"][1],
            json!({ "name": "fixed", "url": "/v1/features/fixed", "takes_rows": false })
        );
        let set = serving.client().get(CARDS).json();
        assert_eq!(set["row"][3], json!({ "name": "at", "type": "timestamp?" }));
        let openapi = serving.client().get("/openapi.json").json();
        assert!(
            openapi["paths"][CARDS]["post"].is_object()
                && openapi["paths"]["/v1/features/fixed"]["post"].is_null()
        );
        assert!(openapi["components"]["schemas"]["features.cards.Row"]["properties"]["event_id"].is_object());
    });
}

#[test]
fn a_file_fills_the_set_once() {
    let folder = tempfile::tempdir().unwrap();
    let project = PROJECT
        .replace("    timestamp: at\n", "    source: cards.csv\n    timestamp: at\n")
        .replace("    created: known\n", "");
    fs::write(folder.path().join("fixed.csv"), "k,v\n1,2\n").unwrap();
    fs::write(folder.path().join("cards.csv"), "card_id,count,tier,at\n1,3,gold,2026-01-01T00:00:00Z\n")
        .unwrap();
    fs::write(folder.path().join("millstream.yaml"), project).unwrap();
    let newer = r#"{"card_id":1,"count":4,"at":"2026-01-02T00:00:00Z"}"#;
    served_in(folder.path(), |serving| {
        check_count(serving, 1, 3);
        check_written(serving, CARDS, newer, [1, 0, 0, 0]);
        serving.admin_with("DELETE", CARDS, br#"{"card_id":1}"#);
    });
    served_in(folder.path(), |serving| check_count(serving, 1, 0));
    fs::write(folder.path().join("cards.csv"), "card_id,count,tier,at\n1,7,,2026-01-01T00:00:00Z\n").unwrap();
    served_in(folder.path(), |serving| check_count(serving, 1, 7));
}
