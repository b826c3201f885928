//! Sets of a project file that take rows: what their definitions come to.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch},
    datatypes::{DataType, Float64Type},
};
use millstream_featurestore::{
    Condition, Conditions, FeatureSetSpec, Gap, LoadError, LoadOptions, Outcome, Pick, Read, Selection,
    Stores, WritableSet, Written, wait,
};
use millstream_graph::rows;
use serde_json::{Value, json};

/// Conditions `COLUMN > NUMBER` over floats, which cannot tell of NaN, and `COLUMN <> TEXT`.
fn conditions() -> Conditions {
    Conditions::new(|text, columns| {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        let [column, sign, value] = &words[..] else { return Err("no condition".to_owned()) };
        let at = columns.index_of(column).map_err(|_| format!("no column `{column}`"))?;
        let (value, above) = (value.clone(), sign == ">");
        let keep = move |rows: &RecordBatch| {
            let column = rows.column(at);
            if !above {
                let texts = column.as_string::<i32>().iter();
                return Ok(texts.map(|text| text.map(|text| text != value)).collect::<BooleanArray>());
            }
            let (column, bound): (_, f64) = (column.as_primitive::<Float64Type>(), value.parse()?);
            if column.iter().flatten().any(f64::is_nan) {
                return Err("NaN is neither".into());
            }
            Ok(column.iter().map(|value| value.map(|value| value > bound)).collect::<BooleanArray>())
        };
        Ok(Condition { reads: vec![at], predicate: Arc::new(keep) })
    })
}

fn open_among(stores: &Stores, dir: &Path, spec: &Value) -> Result<Arc<WritableSet>, LoadError> {
    let spec: FeatureSetSpec = serde_json::from_value(spec.clone()).unwrap();
    let options = LoadOptions { conditions: conditions(), ..LoadOptions::default() };
    spec.open("cards", dir, stores, &options).map(|set| Arc::clone(set.writable().unwrap()))
}

fn columns(set: &WritableSet) -> Vec<&str> {
    set.schema().fields().iter().map(|field| field.name().as_str()).collect()
}

/// The features of card 7, long after.
fn features(set: &WritableSet) -> Vec<Option<f64>> {
    let picks =
        (0..set.set().features().len()).map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null });
    let selection = Selection::new(set.set(), &[0], picks.collect()).unwrap();
    let Read::Ready(found) = set.table().read(&rows! { card_id: [7_i64] }, &selection) else {
        panic!("not local")
    };
    let value = |column: &arrow::array::ArrayRef| {
        let column = arrow::compute::cast(column, &DataType::Float64).unwrap();
        column.is_valid(0).then(|| column.as_primitive::<Float64Type>().value(0))
    };
    found.unwrap().columns.iter().map(value).collect()
}

#[test]
fn events_have_the_columns_that_aggregates_read_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let events =
        "card_id,amount,country,shop,at\n7,2.5,FR,x,2026-01-01T00:00:00Z\n7,4,US,y,2026-01-01T00:00:01Z\n";
    fs::write(dir.path().join("events.csv"), events).unwrap();
    let of_file = json!({
        "keys": ["card_id"], "source": "events.csv", "timestamp": "at", "online": "memory",
        "aggregates": [
            { "column": "amount", "functions": ["sum"], "windows": ["3600d"], "where": "country <> US", "name": "abroad" },
            { "column": "at", "functions": ["count"], "windows": ["3600d"] },
        ],
    });
    let set = open_among(&Stores::new(), dir.path(), &of_file).unwrap();
    assert_eq!(columns(&set), ["card_id", "amount", "at", "country"]);
    assert_eq!(features(&set), [Some(2.5), Some(2.0)]);

    let mut pushed = of_file;
    pushed["source"] = Value::Null;
    pushed["types"] =
        json!({ "card_id": "int64", "amount": "float64", "country": "string", "shop": "string" });
    pushed["features"] = json!({ "country": "string" });
    let set = open_among(&Stores::new(), dir.path(), &pushed).unwrap();
    assert_eq!(columns(&set), ["card_id", "country", "amount", "shop", "at"]);
    let features: Vec<_> = set.set().features().iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(features, ["country", "abroad_sum_3600d", "at_count_3600d"]);
}

#[test]
fn an_open_store_keeps_its_windows() {
    let (dir, stores) = (tempfile::tempdir().unwrap(), Stores::new());
    let with = |condition: &str, lateness: &str| {
        json!({
            "keys": ["card_id"], "types": { "card_id": "int64", "amount": "float64" }, "timestamp": "at",
            "aggregates": [{ "column": "amount", "functions": ["sum"], "windows": ["1h"], "where": condition }],
            "lateness": lateness, "online": { "local": { "path": "cards" } },
        })
    };
    let _open = open_among(&stores, dir.path(), &with("amount > 0", "1h")).unwrap();
    open_among(&stores, dir.path(), &with("amount > 0", "60m")).unwrap();
    for other in [with("amount > 1", "1h"), with("amount > 0", "2h")] {
        let error = open_among(&stores, dir.path(), &other).unwrap_err().to_string();
        assert!(error.contains("its store is open, and goes on as it was opened"), "{error}");
    }
}

/// A set with rules, whose other rows go to the file `aside`.
fn ruled() -> Value {
    json!({
        "keys": ["card_id"], "timestamp": "at", "online": "memory",
        "types": { "card_id": "int64", "amount": "float64", "country": "string" },
        "aggregates": [{ "column": "amount", "functions": ["sum"], "windows": ["3600d"] }],
        "rules": { "positive": "amount > 0", "abroad": { "that": "country <> US", "otherwise": "count" } },
        "aside": { "path": "state/aside" },
    })
}

const DAY: i64 = 86_400_000_000;

fn events(amounts: &[f64], countries: &[&str], days: &[i64]) -> RecordBatch {
    let rows =
        rows! { card_id: vec![7_i64; amounts.len()], amount: amounts.to_vec(), country: countries.to_vec() };
    let at = Arc::new(Int64Array::from(days.iter().map(|day| (20_000 + day) * DAY).collect::<Vec<_>>()));
    let mut columns: Vec<(String, arrow::array::ArrayRef)> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(rows.columns().iter().cloned())
        .collect();
    columns.push(("at".to_owned(), at));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn write(set: &WritableSet, rows: RecordBatch) -> Written {
    wait(set.write(set.changes(rows).unwrap()).get()).unwrap()
}

/// What was set aside: outcome, reason and amount of each.
fn aside(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("state/aside")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| json!([line["outcome"], line["reason"], line["row"]["amount"]]))
        .collect()
}

#[test]
fn rows_that_break_a_rule_are_refused_or_counted_and_set_aside() {
    let (dir, counts) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(BTreeMap::new())));
    let set = open_among(&Stores::new(), dir.path(), &ruled()).unwrap();
    let counted = Arc::clone(&counts);
    set.count_into(move |what, rows| {
        *counted.lock().unwrap().entry(format!("{what:?}")).or_insert(0) += rows
    });
    let days = &[100, 101, 102, 103, 50];
    let amounts = [1.0, -2.0, 4.0, f64::NAN, 8.0];
    let written = write(&set, events(&amounts, &["FR", "US", "US", "FR", "FR"], days));
    let outcomes: Vec<_> = written.rows.iter().map(Outcome::name).collect();
    assert_eq!(outcomes, ["taken", "refused", "taken", "refused", "too_late"]);
    let broken: Vec<_> = written.broken.iter().map(|(rule, rows)| (&**rule, *rows)).collect();
    assert_eq!(broken, [("positive", 2), ("abroad", 2)]);
    assert_eq!(features(&set), [Some(5.0)]);
    set.set_aside(b"{\"card", "it ends in the middle");
    drop(set);
    assert_eq!(
        aside(dir.path()),
        [
            json!([
                "refused",
                "rule `positive`: `amount > 0` is not true; rule `abroad`: `country <> US` is not true",
                -2.0
            ]),
            json!(["taken", "rule `abroad`: `country <> US` is not true", 4.0]),
            json!(["refused", "rule `positive`: `amount > 0` cannot be told: NaN is neither", "NaN"]),
            json!(["too_late", "older than the newest event of its key by more than 0ns", 8.0]),
            json!(["undecoded", "it ends in the middle", null]),
        ]
    );
    let counts = counts.lock().unwrap();
    for (what, rows) in [("Rule(\"positive\")", 2), ("Rows(\"refused\")", 2), ("Aside(\"kept\")", 5)] {
        assert_eq!(counts[what], rows, "{counts:?}");
    }
}

#[test]
fn erasing_a_key_reaches_what_was_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let set = open_among(&Stores::new(), dir.path(), &ruled()).unwrap();
    write(&set, events(&[-1.0, 2.0], &["FR", "FR"], &[100, 100]));
    set.set_aside(b"?", "no row");
    let receipt = wait(set.erase(rows! { card_id: [7_i64] })).unwrap();
    assert_eq!((receipt.removed, receipt.set_aside), (1, 1));
    assert!(receipt.beyond[0].starts_with("1 events that could not be read"), "{receipt:?}");
    assert_eq!(wait(set.purge()).unwrap().set_aside, 1);
    write(&set, events(&[-3.0], &["FR"], &[100]));
    drop(set);
    assert_eq!(aside(dir.path()), [json!(["refused", "rule `positive`: `amount > 0` is not true", -3.0])]);
}

#[test]
fn rules_may_change_while_the_store_is_open() {
    let (dir, stores) = (tempfile::tempdir().unwrap(), Stores::new());
    let _open = open_among(&stores, dir.path(), &ruled()).unwrap();
    let mut other = ruled();
    other["rules"] = json!({ "much": "amount > 100" });
    let set = open_among(&stores, dir.path(), &other).unwrap();
    let written = write(&set, events(&[5.0], &["US"], &[100]));
    assert_eq!(written.refused().map(|(_, problem)| problem.column()).collect::<Vec<_>>(), ["much"]);
    other["rules"] = json!({ "a": "amuont > 1", "b": "x", "c": { "that": "at > 1" } });
    let error = open_among(&stores, dir.path(), &other).unwrap_err().to_string();
    assert!(
        error.contains("rule `a`: `amuont > 1`: no column `amuont`; rule `b`: `x`: no condition"),
        "{error}"
    );
    other["rules"] = json!({});
    other["aside"]["max_bytes"] = json!("1KiB");
    let error = open_among(&stores, dir.path(), &other).unwrap_err().to_string();
    assert!(error.contains("`aside`: the file is in use with another `max_bytes`"), "{error}");
}

#[test]
fn the_version_is_of_what_rows_are_and_not_of_where_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let version = |changed: &dyn Fn(&mut Value)| {
        let mut spec = ruled();
        changed(&mut spec);
        let spec: FeatureSetSpec = serde_json::from_value(spec).unwrap();
        let options = LoadOptions { conditions: conditions(), ..LoadOptions::default() };
        spec.open("cards", dir.path(), &Stores::aside(), &options).unwrap().version()
    };
    let first = version(&|_| {});
    assert_eq!(first.len(), 16);
    assert_eq!(version(&|spec| spec["description"] = json!("d")), first);
    assert_eq!(version(&|spec| spec["online"] = json!({ "local": { "path": "x" } })), first);
    assert_eq!(version(&|spec| spec["aside"] = Value::Null), first);
    for other in [
        &(|spec: &mut Value| spec["lateness"] = json!("1h")) as &dyn Fn(&mut Value),
        &|spec| spec["ttl"] = json!("1h"),
        &|spec| spec["rules"]["positive"] = json!("amount > 1"),
        &|spec| spec["types"]["card_id"] = json!("int32"),
        &|spec| spec["aggregates"][0]["functions"] = json!(["avg"]),
    ] {
        assert_ne!(version(other), first);
    }
}
