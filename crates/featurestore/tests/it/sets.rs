//! Sets of a project file that take rows: what their definitions come to.

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    datatypes::{DataType, Float64Type},
};
use millstream_featurestore::{
    Condition, Conditions, FeatureSetSpec, LoadError, LoadOptions, Pick, Selection, Stores, WritableSet,
};
use millstream_featurestore::{Gap, Read};
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
    assert_eq!(columns(&set), ["card_id", "amount", "country", "at"]);
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
