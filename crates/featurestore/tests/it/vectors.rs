//! Vectors read online: across sets, at one time, with what is known of each feature.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, TimeUnit},
    util::pretty::pretty_format_batches,
};
use expect_test::{Expect, expect};
use millstream_featurestore::{
    FeatureSet, FeatureSets, MemoryTable, OnlineVector, Policy, StoredSet, Vector, VectorRows,
};
use millstream_graph::rows;

const SECOND: i64 = 1_000_000;

/// Cards, each of a shop; shops, each of a city; cities without a time.
fn sets() -> FeatureSets {
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    let cards = FeatureSet::builder("cards")
        .key("card", DataType::Int64)
        .feature("spent", DataType::Float64)
        .feature("shop", DataType::Utf8)
        .timestamp("at", DataType::Int64);
    let shops = FeatureSet::builder("shops")
        .key("shop", DataType::Utf8)
        .feature("city", DataType::Int32)
        .timestamp("since", seconds.clone());
    let cities =
        FeatureSet::builder("cities").key("city", DataType::Int32).feature("people", DataType::Int64);
    let since = |values: Vec<i64>| arrow::array::TimestampSecondArray::from(values);
    let rows_of_shops = RecordBatch::try_from_iter([
        ("shop", Arc::new(arrow::array::StringArray::from(vec!["a", "b"])) as Arc<dyn Array>),
        ("city", Arc::new(arrow::array::Int32Array::from(vec![Some(1), None]))),
        ("since", Arc::new(since(vec![100, 50]))),
    ]);
    let mut sets = FeatureSets::new();
    for (builder, rows) in [
        (
            cards,
            rows! { card: [1_i64, 2, 3], spent: [Some(1.5), Some(2.5), None], shop: ["a", "b", "z"], at: [100 * SECOND, 10 * SECOND, 100 * SECOND] },
        ),
        (shops, rows_of_shops.unwrap()),
        (cities, rows! { city: [1_i32], people: [7_i64] }),
    ] {
        let table = MemoryTable::from_batches(builder.build().unwrap(), &[rows]).unwrap();
        sets.insert(StoredSet::Loaded(Arc::new(table)));
    }
    sets
}

fn shown(rows: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(rows)).unwrap().to_string()
}

fn read(vector: &OnlineVector, rows: &RecordBatch, at: i64) -> Result<VectorRows, String> {
    millstream_featurestore::wait(vector.read(rows, at)).map_err(|error| error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
fn check(vector: Vector, rows: RecordBatch, expected: Expect) {
    let vector = OnlineVector::new(Arc::new(vector), &sets()).unwrap();
    expected
        .assert_eq(&read(&vector, &rows, 100 * SECOND).map_or_else(|error| error, |rows| shown(rows.rows())));
}

fn across() -> Vector {
    Vector::new("v")
        .features(["cities.people AS neighbours", "cards.spent"])
        .by("shops", ["cards.shop"])
        .by("cities", ["shops.city"])
}

#[test]
fn keys_are_features_of_sets_that_are_read_before() {
    check(
        across(),
        rows! { card: [Some(1_i64), Some(2), Some(3), Some(4), None, Some(1)] },
        expect![[r#"
        +------+------------+-------+
        | card | neighbours | spent |
        +------+------------+-------+
        | 1    | 7          | 1.5   |
        | 2    |            | 2.5   |
        | 3    |            |       |
        | 4    |            |       |
        |      |            |       |
        | 1    | 7          | 1.5   |
        +------+------------+-------+"#]],
    );
    check(
        across().label("shops.city", Duration::ZERO),
        rows! { card: [1_i64; 0] },
        expect![[r#"
        +------+------------+-------+
        | card | neighbours | spent |
        +------+------------+-------+
        +------+------------+-------+"#]],
    );
}

#[test]
fn rows_that_lack_what_they_must_have_are_all_named() {
    let asked = || rows! { card: [1_i64, 3, 4, 2] };
    check(
        across().missing(Policy::Fail),
        asked(),
        expect![
            "row 1: no row for city=null in feature set `cities`; row 2: no row for card=4 in feature set `cards`; row 3: no row for city=null in feature set `cities`"
        ],
    );
    check(
        across().nulls_of("spent", Policy::Fail).missing_of("spent", Policy::Default(0.into())),
        asked(),
        expect!["row 1: feature `spent` is null for card=3 in feature set `cards`"],
    );
}

#[test]
fn a_row_that_is_too_old_is_stale_and_tells_when_it_was() {
    let vector = Vector::new("v").features(["cards.spent", "shops.city"]).by("shops", ["cards.shop"]);
    let vector = vector.max_staleness(Duration::from_secs(50));
    let vector = OnlineVector::new(Arc::new(vector), &sets()).unwrap();
    let told = |at: i64| {
        let rows = read(&vector, &rows! { card: [1_i64, 2, 3, 4] }, at * SECOND).unwrap();
        let told = (1..3).map(|column| {
            let statuses = (0..4).map(|row| format!("{:?}", rows.status(row, column)));
            let events = rows.events(column).unwrap().iter().map(|event| event.map(|micros| micros / SECOND));
            format!("{} {:?}", statuses.collect::<Vec<_>>().join(" "), events.collect::<Vec<_>>())
        });
        told.collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        Present Present Null Missing [Some(100), Some(10), Some(100), None]
        Present Null Missing Missing [Some(100), Some(50), None, None]"#]]
    .assert_eq(&told(60));
    expect![[r#"
        Present Stale Null Missing [Some(100), Some(10), Some(100), None]
        Present Missing Missing Missing [Some(100), None, None, None]"#]]
    .assert_eq(&told(150));
    expect![[r#"
        Stale Stale Stale Missing [Some(100), Some(10), Some(100), None]
        Missing Missing Missing Missing [None, None, None, None]"#]]
    .assert_eq(&told(151));
}

#[test]
fn a_vector_stands_beside_the_columns_that_come_in() {
    let rows = rows! { id: ["x"], card: [1_i32] };
    let vector = OnlineVector::beside(Arc::new(across()), &sets(), &rows.schema()).unwrap();
    expect![[r#"
        +----+------+------------+-------+
        | id | card | neighbours | spent |
        +----+------+------------+-------+
        | x  | 1    | 7          | 1.5   |
        +----+------+------------+-------+"#]]
    .assert_eq(&shown(read(&vector, &rows, 0).unwrap().rows()));
    let rows = rows! { spent: [1], cart: [1_i32] };
    let problems = OnlineVector::beside(Arc::new(across()), &sets(), &rows.schema()).unwrap_err();
    expect![[r#"
        key `card` of feature set `cards`: no column `card`; did you mean `cart`?
        a column `spent` is there already; name the feature otherwise: `cards.spent AS cards_spent`"#]]
    .assert_eq(&problems.iter().map(|one| one.text.as_str()).collect::<Vec<_>>().join("\n"));
}
