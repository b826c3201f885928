//! Feature vectors over HTTP: keys in, the features of several sets out.

use std::{fs, path::Path};

use arrow::{array::RecordBatch, ipc::reader::StreamReader, ipc::writer::StreamWriter};
use expect_test::{Expect, expect};
use millstream_featurestore::Stores;
use millstream_graph::rows;
use millstream_serve::{ARROW_STREAM, ConnectionLimits, Project};
use serde_json::{Value, json};

use super::{Answer, PATIENCE, Serving, replace};

const PROJECT: &str = "\
name: cards
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { spent: float64, shop: string, visits: int64 }
    timestamp: at
    online: memory
  shops: { keys: [name], source: shops.csv, types: { name: string }, features: { city: string, risk: float32 } }
  cities: { keys: [city], source: cities.csv, types: { city: string }, features: { people: int64 } }
feature_vectors:
  fraud:
    description: what decides
    features: [cards.spent, \"shops.*\", cities.people AS neighbours]
    by: { shops: [cards.shop], cities: shops.city }
    input: { amount: float64 }
    policies: { risk: { missing: { default: 0.5 } } }
    with: { ratio: amount / spent, high: ratio > 2 }
  must: { features: [cards.spent], missing: fail }
  young: { features: [cards.visits], max_staleness: 30d }
  share: { features: [cards.visits], input: { amount: int64 }, with: { share: amount / visits } }
graphs:
  none: { input: { a: int64 }, steps: { same: { select: [a] } }, respond: same }
";

fn serves(body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    super::served_project(folder.path(), ConnectionLimits::default(), PATIENCE, |serving| {
        let rows = json!([
            { "card_id": 7, "spent": 10.0, "shop": "corner", "visits": 2, "at": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true) },
            { "card_id": 8, "spent": 2.5, "shop": "gone", "visits": 0, "at": "2020-01-01T00:00:00Z" },
            { "card_id": 9, "at": "2020-01-01T00:00:00.5Z" },
        ]);
        let written = post(serving, "/v1/features/cards", &rows.to_string());
        assert_eq!(written.json()["taken"], 3, "{}", written.text());
        body(serving);
    });
}

fn files(folder: &Path) {
    fs::write(folder.join("shops.csv"), "name,city,risk\ncorner,Bonn,0.25\n").unwrap();
    fs::write(folder.join("cities.csv"), "city,people\nBonn,330000\n").unwrap();
}

fn post(serving: &Serving, path: &str, body: &str) -> Answer {
    serving.client().send("POST", path, &[], body.as_bytes())
}

#[track_caller]
fn check(serving: &Serving, path: &str, body: &Value, expected: &Value) {
    let answer = post(serving, path, &body.to_string());
    assert_eq!((answer.status, &answer.json()), (200, expected), "{}", answer.text());
}

#[test]
fn a_vector_is_read_across_sets_for_one_row_or_many() {
    serves(|serving| {
        let seven = json!({ "card_id": 7, "amount": 30.0, "spent": 10.0, "city": "Bonn", "risk": 0.25, "neighbours": 330_000, "ratio": 3.0, "high": true });
        let eight = json!({ "card_id": 8, "amount": null, "spent": 2.5, "city": null, "risk": 0.5, "neighbours": null, "ratio": null, "high": null });
        let none = json!({ "card_id": 6, "amount": 1.0, "spent": null, "city": null, "risk": 0.5, "neighbours": null, "ratio": null, "high": null });
        let path = "/v1/vectors/fraud";
        check(serving, path, &json!({ "card_id": 7, "amount": 30 }), &seven);
        let rows = json!([{ "card_id": 7, "amount": 30.0 }, { "card_id": 8 }, { "card_id": 6, "amount": 1 }]);
        check(serving, path, &rows, &json!([seven, eight, none]));
        let columns = json!({ "card_id": [7, 8, 6], "amount": [30.0, null, 1] });
        check(serving, path, &columns, &json!([seven, eight, none]));
        check(serving, path, &json!([]), &json!([]));
    });
}

#[test]
fn a_vector_comes_as_an_arrow_stream_as_accept_says_else_as_the_keys_came() {
    serves(|serving| {
        let keys = rows! { card_id: [Some(7_i64), None], amount: [Some(30.0), None] };
        let mut body = Vec::new();
        let mut writer = StreamWriter::try_new(&mut body, &keys.schema()).unwrap();
        writer.write(&keys).unwrap();
        writer.finish().unwrap();
        let ask = |headers: &[(&str, &str)], body: &[u8]| {
            let answer = serving.client().send("POST", "/v1/vectors/fraud", headers, body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer
        };
        let arrow = ask(&[], &body);
        assert_eq!(arrow.headers["content-type"], ARROW_STREAM);
        let batches: Vec<RecordBatch> =
            StreamReader::try_new(arrow.body.as_slice(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!((batches[0].num_rows(), batches[0].num_columns()), (2, 8));
        let json = ask(&[("accept", "application/json")], &body).json();
        assert_eq!((&json[0]["ratio"], &json[1]["spent"]), (&json!(3.0), &Value::Null));
        let again = ask(&[("accept", ARROW_STREAM)], br#"{"card_id":7}"#);
        assert_eq!(again.headers["content-type"], ARROW_STREAM);
    });
}

#[test]
fn statuses_tell_what_is_known_of_each_feature() {
    serves(|serving| {
        let ask = |body: Value| post(serving, "/v1/vectors/young?statuses=true", &body.to_string()).json();
        let told = ask(json!({ "card_id": [7, 8, 9, 6] }));
        let column =
            |name: &str| told.as_array().unwrap().iter().map(|row| row[name].clone()).collect::<Vec<_>>();
        assert_eq!(column("visits.status"), ["present", "stale", "stale", "missing"]);
        assert_eq!(column("visits"), [json!(2), Value::Null, Value::Null, Value::Null]);
        assert_eq!(
            column("visits.event")[1..],
            [json!("2020-01-01T00:00:00.000000Z"), json!("2020-01-01T00:00:00.500000Z"), Value::Null]
        );
        let told = post(serving, "/v1/vectors/fraud?statuses", r#"{"card_id":9}"#).json();
        assert_eq!((&told["spent.status"], &told["city.status"]), (&json!("null"), &json!("missing")));
        assert_eq!(
            (&told["risk"], &told["risk.status"], &told["risk.event"]),
            (&json!(0.5), &json!("missing"), &Value::Null)
        );
    });
}

#[test]
fn a_vector_that_cannot_be_read_says_why() {
    serves(|serving| {
        for (method, path, body, status, code, sentence) in [
            (
                "POST",
                "fruad",
                "{}",
                404,
                "unknown_feature_vector",
                "no feature vector `fruad`; did you mean `fraud`?",
            ),
            ("PUT", "fraud", "{}", 405, "method_not_allowed", "takes GET and POST"),
            ("POST", "fraud?status=true", "{}", 400, "malformed", "did you mean `statuses`?"),
            ("POST", "fraud?statuses=yes", "{}", 400, "malformed", "`true` or `false`, not `yes`"),
            ("POST", "fraud", r#"{"card":7}"#, 400, "unknown_field", "there is `card_id`, `amount`"),
            ("POST", "fraud", r#"{"card":[7]}"#, 400, "unknown_field", "there is `card_id`, `amount`"),
            ("POST", "fraud", r#"{"card_id":[7],"amount":[]}"#, 400, "malformed", "another column has 1"),
            ("POST", "fraud", r#"{"card_id":"7"}"#, 400, "wrong_type", "field `card_id`"),
            (
                "POST",
                "must",
                r#"{"card_id":[7,6,9,5]}"#,
                400,
                "rows",
                "2 rows cannot be answered; the first: no row for card_id=6 in feature set `cards`",
            ),
            (
                "POST",
                "share",
                r#"{"card_id":[7,8],"amount":[4,4]}"#,
                400,
                "rows",
                "1 rows cannot be answered",
            ),
        ] {
            let answer = serving.client().send(method, &format!("/v1/vectors/{path}"), &[], body.as_bytes());
            let told = answer.json();
            assert_eq!((answer.status, told["code"].as_str()), (status, Some(code)), "{path} {body}: {told}");
            assert!(told["error"].as_str().unwrap().contains(sentence), "{path} {body}: {told}");
        }
        let told = post(serving, "/v1/vectors/share", r#"{"card_id":[7,8],"amount":[4,4]}"#).json();
        assert_eq!(told["problems"][0]["row"], 1, "{told}");
        check(
            serving,
            "/v1/vectors/share",
            &json!({ "card_id": [7], "amount": [5] }),
            &json!([{ "card_id": 7, "amount": 5, "visits": 2, "share": 2 }]),
        );
    });
}

#[test]
fn vectors_are_listed_and_described() {
    serves(|serving| {
        let list = serving.client().get("/v1/vectors").json();
        assert_eq!(list["feature_vectors"][0], json!({ "name": "fraud", "url": "/v1/vectors/fraud" }));
        let told = serving.client().get("/v1/vectors/young").json();
        let expected = json!({
            "name": "young",
            "description": null,
            "tags": [],
            "input": [{ "name": "card_id", "type": "int64?" }],
            "features": [{ "name": "visits", "type": "int64?", "set": "cards" }],
        });
        assert_eq!(told, expected);
        let openapi = serving.client().get("/openapi.json").json();
        assert!(openapi["paths"]["/v1/vectors/fraud"]["post"].is_object());
    });
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
fn check_mistakes(vectors: &str, expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    let (sets, graphs) = (PROJECT.find("feature_vectors").unwrap(), PROJECT.find("graphs").unwrap());
    let text = format!("{}feature_vectors:\n{vectors}\n{}", &PROJECT[..sets], &PROJECT[graphs..]);
    let told = match Project::from_text(&text, folder.path(), &Stores::new()) {
        Ok(project) => {
            project.vectors().map(|vector| vector.name().to_owned()).collect::<Vec<_>>().join(", ")
        }
        Err(errors) => errors.errors().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&told);
}

#[test]
fn a_project_names_every_mistake_of_its_vectors_with_its_place() {
    check_mistakes(
        "  fraud:
    features: [crads.spent, cards.spnet, cards.spent AS city, \"shops.*\", \"nothing\"]
    by: { shops: [card.shop], cards: [a, b], citys: x }
    policies: { risk: { missing: { default: high } }, unknown: { nulls: mean } }
    max_staleness: 1h
    label: { feature: cities.peopel, after: 1d }",
        expect![[r#"
            13:16: feature vector `fraud`: no feature set `crads`; did you mean `cards`?
            13:29: feature vector `fraud`: feature set `cards` has no feature `spnet`; did you mean `spent`?
            13:63: feature vector `fraud`: a column `city` is there already; name the feature otherwise: `shops.city AS shops_city`
            13:74: feature vector `fraud`: `nothing` is no feature; write `set.feature`, `set.feature AS name`, or `set.*` for all
            14:11: feature vector `fraud`: key `name` of feature set `shops`: no feature set `card`; did you mean `cards`?
            14:31: feature vector `fraud`: `by` names 2 columns for the keys of feature set `cards`: `card_id`
            14:46: feature vector `fraud`: `by` names no feature set `citys`; did you mean `cities`?
            15:17: feature vector `fraud`: default "high" for feature `risk` is no Float32
            15:55: feature vector `fraud`: a policy names no column `unknown`; there is `city`, `city`, `risk`
            16:5: feature vector `fraud`: feature set `shops` has no event timestamp that could be stale
            17:14: feature vector `fraud`: feature set `cities` has no feature `peopel`; did you mean `people`?"#]],
    );
    check_mistakes(
        "  circle: { features: [cards.spent], by: { cards: cities.people, cities: shops.city, shops: cards.shop } }
  cards: { features: [cities.people] }
  the fraud: { features: [cities.people], with: { city: 1, x: peopel + 1, y: x + 1, z: people || } }
  fine: { features: [cities.people], with: { x: people + 1, y: x + 1 } }",
        expect![[r#"
            12:38: feature vector `circle`: feature sets `cards`, `cities`, `shops` take their keys from each other
            13:3: feature vector `cards`: a feature set is named `cards` already
            14:3: feature vector `the fraud`: a vector's name is letters, digits, `_` and `-`
            14:51: invalid type: integer `1`, expected a string"#]],
    );
    check_mistakes(
        "  v: { features: [cities.people], with: { x: peopel + 1, y: x + 1, z: people || } }",
        expect![[r#"
            12:35: feature vector `v`: in `peopel + 1`: no column `peopel`; did you mean `people`?
            12:35: feature vector `v`: in `people ||`: expected: an expression, found: EOF"#]],
    );
    check_mistakes(
        "  v: { features: cities.people }\n  w: { feature: [] }",
        expect![[r#"
        12:8: invalid type: string "cities.people", expected a sequence
        13:8: no key `feature`; did you mean `features`?"#]],
    );
    check_mistakes(
        "  v: { features: [cities.people], label: { feature: cards.visits, after: 1d } }",
        expect![["v"]],
    );
}
