//! `millstream features`, and sets that take rows while they are served.

use std::fs;

use serde_json::{Value, json};

use super::{
    check_mistakes, client::Client, complaint, millstream, path, printed, project, serving::Serving,
};

/// A set that takes rows, and a graph that reads it.
const TAKES_ROWS: &str = "\
name: takes
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { count: int64 }
    timestamp: at
    online: { local: { path: state/cards } }
graphs:
  score:
    input: { card_id: int64 }
    steps:
      known: { enrich: { set: cards, missing: { default: 0 } } }
    respond: known
";

#[test]
fn what_was_pushed_is_there_after_the_server_was_killed() {
    let folder = project(TAKES_ROWS);
    for round in 1..=3 {
        let mut serving = Serving::start(&folder);
        let mut client = Client::connect(serving.address);
        let mut score =
            || client.send("POST", "/v1/graphs/score", &[], br#"{"card_id":7}"#).json()["count"].clone();
        assert_eq!(score(), round - 1);
        let row = format!(r#"{{"card_id":7,"count":{round},"at":{round}}}"#);
        let answer = Client::connect(serving.address).send("POST", "/v1/features/cards", &[], row.as_bytes());
        assert_eq!(answer.json()["taken"], 1, "{}", answer.text());
        assert_eq!(score(), round);
        serving.server.kill().unwrap();
        serving.server.wait().unwrap();
    }
}

#[test]
fn feature_sets_are_listed_read_and_written_from_the_command_line() {
    let folder = project(TAKES_ROWS);
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());
    assert_eq!(told(&["list"]), "cards  local state/cards\n");
    assert!(told(&["show", "cards"]).contains("row       at: timestamp?"));
    fs::write(
        path(&folder, "rows.csv"),
        "card_id,count,at\n7,1,2026-01-01T00:00:00Z\n8,2,2026-01-01T00:00:00Z\n",
    )
    .unwrap();
    let file = path(&folder, "rows.csv");
    let counts = |arguments: &[&str]| serde_json::from_str::<Value>(&told(arguments)).unwrap();
    assert_eq!(counts(&["--json", "ingest", "cards", &file])["taken"], 2);
    assert_eq!(counts(&["--json", "ingest", "cards", &file])["repeated"], 2);
    // A folder: the file that was taken, under another name, and another one.
    fs::create_dir_all(path(&folder, "rows/day=1")).unwrap();
    fs::copy(&file, path(&folder, "rows/copy.csv")).unwrap();
    fs::write(
        path(&folder, "rows/day=1/more.jsonl"),
        "{\"card_id\":10,\"count\":3,\"at\":\"2026-01-02T00:00:00Z\"}\n",
    )
    .unwrap();
    let all = counts(&["--json", "ingest", "cards", &path(&folder, "rows")]);
    assert_eq!((&all["taken"], &all["repeated"]), (&json!(1), &json!(2)));
    let some = counts(&["--json", "ingest", "cards", &format!("file://{}", path(&folder, "rows/*.csv"))]);
    assert_eq!((&some["taken"], &some["repeated"]), (&json!(0), &json!(2)));
    assert_eq!(told(&["get", "cards", "card_id=7"]), "card_id  7\ncount  1\n");
    assert_eq!(counts(&["--json", "get", "cards", "card_id=9"]), json!({ "card_id": 9, "count": null }));
    assert!(told(&["erase", "cards", "card_id=7"]).starts_with("1 removed, 0 unknown\n"));
    assert_eq!(told(&["get", "cards", "card_id=7"]), "card_id  7\ncount  null\n");
    assert_eq!(counts(&["--json", "purge", "cards", "--yes"])["removed"], 2);
    for (arguments, sentence) in [
        (&["get", "card", "card_id=7"][..], "no feature set `card`"),
        (&["get", "cards", "id=7"], "no value for key `card_id`"),
        (&["get", "cards", "card_id=x"], "key `card_id`: `x` is no Int64"),
        (&["purge", "cards"], "say --yes"),
        (&["ingest", "cards", "nowhere.csv"], "`nowhere.csv` cannot be read"),
    ] {
        let complaint = complaint(&[&["features", "--project", root], arguments].concat());
        assert!(complaint.contains(sentence), "{complaint}");
    }
}

/// A set with windows, filled over HTTP, from files and by a graph, and read by another.
const WINDOWS: &str = "\
name: windows
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64, amount: float64, country: string }
    timestamp: at
    aggregates:
      - { column: amount, functions: [count, sum], windows: [3600d] }
      - { column: amount, functions: [sum], windows: [3600d], where: country <> 'US', name: abroad }
    lateness: 1h
    online: { local: { path: state/cards } }
graphs:
  score:
    input: { card_id: int64 }
    steps:
      known: { enrich: { set: cards, missing: { default: 0 } } }
    respond: known
  spend:
    input: { card_id: int64, amount: float64, country: string, at: timestamp }
    steps:
      kept: { ingest: { set: cards } }
      known: { enrich: { set: cards, features: [amount_sum_3600d AS spent] } }
    respond: known
";

#[test]
fn windows_are_filled_from_the_command_line_and_read_after_a_restart() {
    let folder = project(WINDOWS);
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());
    let shown = told(&["show", "cards"]);
    for line in ["features  abroad_sum_3600d: float64?", "row       country: string?"] {
        assert!(shown.contains(line), "{shown}");
    }
    // The fourth is two hours late, the fifth within the hour.
    let file = path(&folder, "events.csv");
    fs::write(
        &file,
        "card_id,amount,country,at\n7,10.5,US,2026-01-01T00:00:00Z\n7,2,FR,2026-01-01T02:00:00Z\n\
         8,1,,2026-01-01T00:00:00Z\n7,100,FR,2026-01-01T00:00:00Z\n7,4,DE,2026-01-01T01:00:00Z\n",
    )
    .unwrap();
    let json = |arguments: &[&str]| serde_json::from_str::<Value>(&told(arguments)).unwrap();
    let counts = json(&["--json", "ingest", "cards", &file]);
    assert_eq!((&counts["taken"], &counts["too_late"]), (&json!(4), &json!(1)), "{counts}");
    let card = json(&["--json", "get", "cards", "card_id=7"]);
    let windows = |count: u64, sum: f64, abroad: f64| json!({ "card_id": 7, "amount_count_3600d": count, "amount_sum_3600d": sum, "abroad_sum_3600d": abroad });
    assert_eq!(card, windows(3, 16.5, 6.0));

    let serving = Serving::start(&folder);
    let ask = |url: &str, body: &str| {
        let answer = Client::connect(serving.address).send("POST", url, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let pushed = r#"[{"card_id":7,"amount":3,"country":"FR","at":"2026-01-01T03:00:00Z"},{"card_id":7,"amount":9,"country":"FR","at":"2026-01-01T01:59:59Z"}]"#;
    let counts = ask("/v1/features/cards", pushed);
    assert_eq!((&counts["taken"], &counts["too_late"]), (&json!(1), &json!(1)), "{counts}");
    assert_eq!(ask("/v1/graphs/score", r#"{"card_id":7}"#), windows(4, 19.5, 9.0));
    let spent = r#"{"card_id":7,"amount":0.5,"country":"US","at":"2026-01-01T04:00:00Z"}"#;
    assert_eq!(ask("/v1/graphs/spend", spent)["spent"], 20.0);
    assert_eq!(ask("/v1/features/cards/read", r#"{"card_id":7}"#), windows(5, 20.0, 9.0));
}

#[test]
#[cfg(unix)]
fn rows_that_break_a_rule_are_told_counted_set_aside_and_erased() {
    let rules = "    lateness: 1h\n    rules: { positive: amount > 0, known: { that: country IS NOT NULL, otherwise: count } }\n    aside: { path: state/aside }\n";
    let folder = project(&WINDOWS.replace("    lateness: 1h\n", rules));
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());
    {
        let mut serving = Serving::start(&folder);
        let rows = r#"[{"card_id":7,"amount":-3,"country":"FR","at":"2026-01-01T03:00:00Z"},{"card_id":7,"amount":9,"at":"2026-01-01T03:00:00Z"}]"#;
        let mut client = Client::connect(serving.address);
        let answer = client.send("POST", "/v1/features/cards", &[], rows.as_bytes()).json();
        assert_eq!((&answer["taken"], &answer["rules"]), (&json!(1), &json!({ "positive": 1, "known": 1 })));
        let problem =
            json!([{ "row": 0, "field": "positive", "error": "rule `positive`: `amount > 0` is not true" }]);
        assert_eq!(answer["problems"], problem);
        let spend = br#"{"card_id":7,"amount":0,"country":"US","at":"2026-01-01T04:00:00Z"}"#;
        let refused = client.send("POST", "/v1/graphs/spend", &[], spend);
        let told = refused.text();
        assert!(told.contains("feature set `cards` refuses the row: rule `positive`"), "{told}");
        let metrics = client.send("GET", "/metrics", &[], b"").text();
        let metric = "millstream_feature_rule_failures_total{rule=\"positive\",set=\"cards\"} 2";
        assert!(metrics.contains(metric), "{metrics}");
        drop(client);
        serving.terminate();
        assert!(serving.server.wait().unwrap().success());
    }
    assert!(told(&["show", "cards"]).contains("set aside  3 rows"), "{}", told(&["show", "cards"]));
    let file = path(&folder, "events.csv");
    fs::write(&file, "card_id,amount,country,at\n7,0,US,2026-01-01T05:00:00Z\n").unwrap();
    let ingested = millstream(&["features", "--project", root, "ingest", "cards", &file]);
    let complaint = String::from_utf8_lossy(&ingested.stderr);
    assert!(
        !ingested.status.success()
            && complaint.contains("events.csv:2: rule `positive`: `amount > 0` is not true"),
        "{complaint}"
    );
    let receipt = told(&["erase", "cards", "card_id=7"]);
    assert!(receipt.starts_with("1 removed, 0 unknown, 4 of those set aside\n"), "{receipt}");
    assert!(told(&["show", "cards"]).contains("set aside  0 rows"));
}

#[test]
fn the_command_line_leaves_the_stores_of_a_running_server_alone() {
    let folder = project(TAKES_ROWS);
    let _serving = Serving::start(&folder);
    let root = folder.path().to_str().unwrap();
    let complaint = complaint(&["features", "--project", root, "get", "cards", "card_id=7"]);
    assert!(complaint.contains("is in use, by a server that runs"), "{complaint}");
    assert_eq!(printed(&["features", "--project", root, "list"]), "cards  local state/cards\n");
    printed(&["validate", root]);
}

#[test]
fn mistakes_of_feature_sets_that_take_rows_are_named() {
    check_mistakes(
        "\
name: broken
feature_sets:
  a: { keys: [k], online: memory }
  b: { keys: [k], types: { k: int64 }, features: { v: int64 }, timestamp: at, online: { local: { path: ../out } } }
  c: { keys: [k], types: { k: int64 }, features: { v: int64 }, online: memory }
  d: { keys: [k], types: { k: int64 }, features: { v: int64 }, ttl: 30d }
graphs: { g: { input: { k: int64 }, steps: { s: { select: [k] } }, respond: s } }
",
        &[
            "3:3: feature set `a`: column `k` has no type; name it under `types`; without a `source`, `features` names the features and their types",
            "4:3: feature set `b`: `online`: `../out` leaves the project's folder",
            "5:3: feature set `c`: a set with `online` names a `timestamp`: the latest row of a key counts",
            "6:3: feature set `d`: `ttl` is for sets with `online`",
        ],
    );
}

#[test]
fn mistakes_in_aggregates_are_named_all_at_once() {
    check_mistakes(
        "\
name: broken
feature_sets:
  a:
    keys: [k]
    types: { k: int64, amount: float64, country: string }
    timestamp: at
    aggregates:
      - { column: amuont, functions: [sum], windows: [1h] }
      - { column: country, functions: [sum], windows: [1h] }
      - { column: amount, functions: [sum], windows: [1h], where: contry = 'US' }
      - { column: amount, functions: [avg], windows: [1h], where: amount + 1 }
    online: memory
  b: { keys: [k], types: { k: int64 }, timestamp: at, aggregates: [{ functions: [count], windows: [1h] }] }
  c:
    keys: [k]
    types: { k: int64 }
    timestamp: at
    aggregates: [{ functions: [count], windows: [1h] }]
    online: { redb: { path: c.redb } }
  d: { keys: [k], types: { k: int64 }, features: { v: int64 }, timestamp: at, lateness: 1h, online: memory }
  e: { keys: [k], types: { k: int64 }, features: { _event: int64 }, timestamp: at, online: memory }
graphs: { g: { input: { k: int64 }, steps: { s: { select: [k] } }, respond: s } }
",
        &[
            "3:3: feature set `a`: aggregate `amuont`: no column `amuont`; did you mean `amount`?; aggregate `country`: `sum` of column `country`, which is Utf8; it is taken of a number; aggregate `amount`: `where: contry = 'US'`: no column `contry`; did you mean `country`?; aggregate `amount`: `where: amount + 1`: a condition must be true or false, but this is Float64",
            "13:3: feature set `b`: `aggregates` is for sets with `online`",
            "14:3: feature set `c`: `aggregates`: redb c.redb keeps no windows; use `online: {local: {path: …}}` or `online: memory`",
            "20:3: feature set `d`: `lateness` is for sets with `aggregates`",
            "21:3: feature set `e`: column `_event`: the name is taken by what logs keep of a row; name it otherwise",
        ],
    );
}

#[test]
fn feature_vectors_are_listed_shown_and_read_from_the_command_line() {
    let folder = project(&TAKES_ROWS.replace(
        "graphs:\n",
        "feature_vectors:\n  double: { features: [cards.count], input: { by: int64 }, with: { times: count * by }, description: twice }\ngraphs:\n",
    ));
    let root = folder.path().to_str().unwrap();
    fs::write(path(&folder, "rows.csv"), "card_id,count,at\n7,3,2026-01-01T00:00:00Z\n").unwrap();
    printed(&["features", "--project", root, "ingest", "cards", &path(&folder, "rows.csv")]);
    let told = |arguments: &[&str]| printed(&[&["vectors", "--project", root], arguments].concat());
    assert_eq!(told(&["list"]), "double  twice\n");
    assert!(
        told(&["show", "double"])
            .ends_with("input     by: int64?\n  features  count: int64?\n  features  times: int64?\n")
    );
    assert_eq!(told(&["get", "double", "card_id=7", "by=2"]), "card_id  7\nby  2\ncount  3\ntimes  6\n");
    let json: Value = serde_json::from_str(&told(&["--json", "get", "double", "card_id=8"])).unwrap();
    assert_eq!(json, json!({ "card_id": 8, "by": null, "count": null, "times": null }));
    for (arguments, sentence) in [
        (&["get", "dubble", "card_id=7"][..], "no feature vector `dubble`; did you mean `double`?"),
        (&["get", "double", "card=7"], "no column `card`"),
        (&["get", "double", "card_id=x"], "field `card_id`"),
    ] {
        let complaint = complaint(&[&["vectors", "--project", root], arguments].concat());
        assert!(complaint.contains(sentence), "{complaint}");
    }
}

#[test]
fn files_pass_the_graph_of_a_set_once() {
    let folder = project(
        "\
name: raw
feature_sets:
  cards:
    keys: [card_id]
    types: { card_id: int64 }
    features: { amount: float64 }
    timestamp: at
    through: raw
    online: { local: { path: state/cards } }
graphs:
  raw:
    input: { card: int64, cents: int64, at: timestamp }
    steps:
      events: { filter: cents > 0 }
      priced: { select: [card AS card_id, cents / 100.0 AS amount, at] }
    respond: priced
",
    );
    let root = folder.path().to_str().unwrap();
    let told =
        |arguments: &[&str]| printed(&[&["features", "--project", root, "--json"], arguments].concat());
    let file = path(&folder, "rows.csv");
    fs::write(&file, "card,cents,at\n7,250,2026-01-01T00:00:00Z\n8,0,2026-01-01T00:00:00Z\n").unwrap();
    let counts = |expected: Value| {
        let told: Value = serde_json::from_str(&told(&["ingest", "cards", &file])).unwrap();
        assert_eq!(json!([told["taken"], told["repeated"], told["filtered"]]), expected);
    };
    counts(json!([1, 0, 1]));
    counts(json!([0, 1, 1]));
    assert_eq!(told(&["get", "cards", "card_id=7"]), "{\"card_id\":7,\"amount\":2.5}\n");
    let show: Value = serde_json::from_str(&told(&["show", "cards"])).unwrap();
    assert_eq!((&show["through"], &show["row"]), (&json!("raw"), &Value::Null), "{show}");
}

/// Rows with numbers, text, and nulls of both.
const CARDS: &str = "card_id,count,tier,at\n7,1,gold,2026-01-01T00:00:00Z\n8,3,gold,2026-01-02T00:00:00Z\n9,,,2026-01-03T00:00:00Z\n";

#[test]
fn statistics_are_shown_from_the_command_line_and_over_http() {
    let yaml = TAKES_ROWS.replace("count: int64 }", "count: int64, tier: string }").replace(
        "missing: { default: 0 }",
        "missing: null, nulls: null, policies: { count: { nulls: median }, tier: { nulls: most_frequent } }",
    );
    let folder = project(&yaml);
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());
    let file = path(&folder, "rows.csv");
    fs::write(&file, CARDS).unwrap();
    // A graph whose gaps are filled from rows needs rows.
    let answer = told(&["ingest", "cards", &file, "--statistics"]);
    let table = concat!(
        "  feature  type     count  nulls  distinct  min  median  max  mean      std  values\n",
        "  count    int64?       2      1         2    1       2    3     2  1.41421  █                  █\n",
        "  tier     string?      2      1         1                                   \"gold\" 2\n",
    );
    assert_eq!(answer, format!("3 taken, 0 older, 0 repeated, 0 too_late, 0 refused, 0 filtered\n\n{table}"));
    assert!(told(&["show", "cards", "--statistics"]).ends_with(&format!("\n\n{table}")));
    assert!(!told(&["show", "cards"]).contains("median"));
    let json = |arguments: &[&str]| serde_json::from_str::<Value>(&told(arguments)).unwrap();
    let shown = json(&["--json", "show", "cards", "--statistics"])["statistics"].clone();
    assert_eq!(shown[0]["quantiles"]["0.25"], 1.5);
    assert_eq!(shown[1]["most_frequent"], json!([{ "value": "gold", "count": 2 }]));
    assert_eq!(json(&["--json", "ingest", "cards", &file, "--statistics"])["statistics"], shown);

    let serving = Serving::start(&folder);
    let mut client = Client::connect(serving.address);
    let answer = client.send("GET", "/v1/features/cards/statistics", &[], b"").json();
    assert_eq!((&answer["name"], &answer["features"]), (&json!("cards"), &shown));
    let score = client.send("POST", "/v1/graphs/score", &[], br#"{"card_id":9}"#).json();
    assert_eq!((&score["count"], &score["tier"]), (&json!(2), &json!("gold")));
    let refused = client.send("POST", "/v1/features/cards/statistics", &[], b"");
    assert_eq!(refused.status, 405, "{}", refused.text());
    let openapi = client.send("GET", "/openapi.json", &[], b"").json();
    assert!(openapi["paths"]["/v1/features/cards/statistics"]["get"].is_object());
}

#[test]
fn a_set_is_filled_from_its_log_and_another_store_from_the_folder() {
    let yaml =
        TAKES_ROWS.replace("state/cards } }", "state/cards } }\n    offline: { path: features/cards }");
    let folder = project(&yaml);
    let root = folder.path().to_str().unwrap();
    let told = |arguments: &[&str]| printed(&[&["features", "--project", root], arguments].concat());
    let file = path(&folder, "rows.csv");
    fs::write(&file, CARDS.replace(",gold", "").replace(",,,", ",,").replace(",tier", "")).unwrap();
    told(&["ingest", "cards", &file]);
    let get = |key: &str| told(&["get", "cards", &format!("card_id={key}")]);
    let before = ["7", "8", "9"].map(get);
    fs::remove_dir_all(path(&folder, "state")).unwrap();
    assert_eq!(get("7"), "card_id  7\ncount  null\n");
    assert_eq!(told(&["materialize", "cards", "--until", "2026-01-01"]), "1 rows of the log: 1 taken\n");
    assert_eq!(told(&["materialize", "cards"]), "3 rows of the log: 2 taken, 1 older\n");
    assert_eq!(["7", "8", "9"].map(get), before);
    let again = serde_json::from_str::<Value>(&told(&["--json", "materialize", "cards"])).unwrap();
    assert_eq!((&again["rows"], &again["outcomes"]["older"]), (&json!(3), &json!(3)));

    let moved = yaml.replace("local: { path: state/cards } }", "redb: { path: state/cards.redb } }");
    fs::write(
        folder.path().join("millstream.yaml"),
        moved.replace("    offline: { path: features/cards }\n", ""),
    )
    .unwrap();
    let complaint_of =
        |arguments: &[&str]| complaint(&[&["features", "--project", root], arguments].concat());
    assert!(
        complaint_of(&["materialize", "cards"])
            .contains("has no offline log; name the folder of one: --from FOLDER")
    );
    assert!(
        complaint_of(&["materialize", "cards", "--from", root])
            .contains("is no log: it has no folder `_log`")
    );
    let log = path(&folder, "features/cards");
    assert_eq!(told(&["materialize", "cards", "--from", &log]), "3 rows of the log: 3 taken\n");
    assert_eq!(["7", "8", "9"].map(get), before);
}
