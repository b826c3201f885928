//! Feast's API, spoken by the real `feast` package.

use std::{fs, path::Path, process::Command};

use millstream_serve::ConnectionLimits;
use serde_json::{Value, json};

use super::{PATIENCE, Serving, replace};

const PROJECT: &str = "\
name: cards
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64, at: timestamp, created: timestamp }
    features: { whole: int64, small: int32, wide: float64, narrow: float32, yes: bool, text: string, when: timestamp }
    timestamp: at
    created: created
    online: memory
  visits:
    keys: [card_id, shop_id]
    types: { card_id: int64, shop_id: string, at: int64 }
    features: { count: int64 }
    timestamp: at
    online: memory
  fixed: { keys: [k], source: fixed.csv }
feature_vectors:
  risk: { features: [cards.wide, cards.small], max_staleness: 30d, with: { twice: wide * 2 } }
graphs:
  none: { input: { a: int64 }, steps: { same: { select: [a] } }, respond: same }
";

fn serves(body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("fixed.csv"), "k,v\n1,2\n").unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    super::served_project(folder.path(), ConnectionLimits::default(), PATIENCE, body);
}

/// Where `scripts/oracles.sh` puts the package.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/feast");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/feast/client.py");

#[test]
fn the_client_of_feast_reads_what_it_wrote() {
    if !Path::new(PACKAGES).join("feast").exists() {
        println!("skipped: scripts/oracles.sh did not bring the package feast");
        return;
    }
    serves(|serving| {
        let folder = tempfile::tempdir().unwrap();
        let ran = Command::new("python3")
            .args([SCRIPT, &format!("http://{}", serving.address)])
            .arg(folder.path())
            .env("PYTHONPATH", PACKAGES)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(told.ends_with("the same\n"), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    });
}

/// An error is a JSON text in a JSON text.
#[track_caller]
fn check_error(serving: &Serving, path: &str, body: &Value, status: u16, class: &str, sentence: &str) {
    let answer = serving.client().send("POST", path, &[], body.to_string().as_bytes());
    assert_eq!(answer.status, status, "{}", answer.text());
    let detail: Value = serde_json::from_str(answer.json().as_str().unwrap()).unwrap();
    assert_eq!((&detail["module"], &detail["class"]), (&json!("feast.errors"), &json!(class)), "{detail}");
    assert!(detail["message"].as_str().unwrap().contains(sentence), "{detail}");
}

#[test]
fn what_is_asked_wrongly_is_told_as_feast_does() {
    serves(|serving| {
        let one = json!({ "card_id": [1] });
        for (body, status, class, sentence) in [
            (
                json!({ "entities": one, "features": ["crads:wide"] }),
                404,
                "FeatureViewNotFoundException",
                "did you mean `cards`?",
            ),
            (
                json!({ "entities": one, "features": ["cards:wied"] }),
                422,
                "FeastError",
                "did you mean `wide`?",
            ),
            (json!({ "entities": one, "features": ["cards"] }), 422, "FeastError", "write `view:feature`"),
            (json!({ "entities": one, "features": [] }), 422, "FeastError", "no features"),
            (
                json!({ "entities": one, "features": ["cards:wide", "cards:wide"] }),
                400,
                "FeatureNameCollisionError",
                "`wide`",
            ),
            (
                json!({ "entities": one, "feature_service": "rsik" }),
                404,
                "FeatureServiceNotFoundException",
                "did you mean `risk`?",
            ),
            (
                json!({ "entities": { "card": [1] }, "feature_service": "risk" }),
                404,
                "EntityNotFoundException",
                "there is `card_id`",
            ),
            (
                json!({ "entities": {}, "feature_service": "risk" }),
                422,
                "FeastError",
                "the entities lack `card_id`",
            ),
            (
                json!({ "entities": { "card_id": ["x"] }, "feature_service": "risk" }),
                422,
                "FeastError",
                "card_id",
            ),
            (json!({ "features": ["cards:wide"] }), 422, "FeastError", "missing field `entities`"),
        ] {
            check_error(serving, "/get-online-features", &body, status, class, sentence);
        }
        let frame = json!({ "card_id": [1, null], "shop_id": ["a", "b"], "count": [1, 2], "event_timestamp": ["2026-01-01", "2026-01-01"] });
        for (path, body, status, class, sentence) in [
            (
                "/push",
                json!({ "push_source_name": "vists", "df": frame }),
                422,
                "PushSourceNotFoundException",
                "did you mean `visits`?",
            ),
            (
                "/push",
                json!({ "push_source_name": "visits", "df": frame, "to": "offline" }),
                422,
                "FeastError",
                "push them `online`",
            ),
            (
                "/push",
                json!({ "push_source_name": "visits", "df": frame, "to": "onlin" }),
                422,
                "FeastError",
                "did you mean `online`?",
            ),
            (
                "/write-to-online-store",
                json!({ "feature_view_name": "vists", "df": frame }),
                404,
                "FeatureViewNotFoundException",
                "did you mean `visits`?",
            ),
            (
                "/write-to-online-store",
                json!({ "feature_view_name": "fixed", "df": frame }),
                422,
                "FeastError",
                "give it `online`",
            ),
            (
                "/write-to-online-store",
                json!({ "feature_view_name": "visits", "df": { "card_id": [1, 2], "count": [1] } }),
                422,
                "FeastError",
                "another column has 2",
            ),
        ] {
            check_error(serving, path, &body, status, class, sentence);
        }
        let mut frame = frame;
        frame["event_timestamp"] = json!(["2026-01-01 00:00:00", "2026-01-01T00:00:00.5+01:00"]);
        let body = json!({ "feature_view_name": "visits", "df": frame });
        let sentence = "1 of 2 rows were refused, the others were taken: row 1: key `card_id` is null";
        check_error(serving, "/write-to-online-store", &body, 422, "FeastError", sentence);
    });
}
