//! Training sets: every row of the spine once, in its order, with what was known of it.

use std::{fs, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int64Array, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef},
};
use datafusion::datasource::MemTable;
use expect_test::{Expect, expect};
use millstream_featurestore::{
    Expressions, FeatureSet, Policy,
    offline::{AsOf, OfflineLimits, OfflineSet, OfflineStore, Spine, Vector},
};
use millstream_graph::{Input, Output, RunCx, SchemaError, Signature, Step, Work, rows};
use tempfile::tempdir;

use super::{block, cards, causes, set_of, shown, spine, store, training};

/// A vector over one set of cards, whose rows are these.
fn check(rows: RecordBatch, vector: Vector, asked: RecordBatch, expected: Expect) {
    block(async {
        let folder = tempdir().unwrap();
        let sets = vec![set_of(&folder, cards(), rows).await];
        expected.assert_eq(&answer(sets, &vector, asked).await);
    });
}

/// The training set as text, the same in however many parts it is made.
async fn answer(sets: Vec<OfflineSet>, vector: &Vector, asked: RecordBatch) -> String {
    let mut answers = Vec::new();
    for partitions in [1, 2, 5] {
        let answer = training(&store(partitions, sets.clone()), vector, &spine(asked.clone())).await;
        answers.push(answer.map_or_else(|error| error.to_string(), |rows| shown(&rows)));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    answers.swap_remove(0)
}

fn history() -> RecordBatch {
    rows! {
        card: [7_i64, 7, 8, 7],
        avg: [Some(1.0), Some(2.0), None, Some(3.0)],
        tier: ["a", "b", "c", "d"],
        _event: [100_i64, 200, 150, 300],
        _created: [Some(100_i64), Some(250), None, Some(301)],
    }
}

/// MLRun sorts the caller's rows and answers in the order of time; duplicates are dropped by Feast's Dask store.
#[test]
fn every_row_of_the_spine_is_answered_once_in_its_order() {
    check(
        history(),
        Vector::new("v").features(["cards.*"]),
        rows! {
            id: ["late", "early", "same", "same", "other", "unknown"],
            card: [Some(7_i64), Some(7), Some(7), Some(7), Some(8), None],
            at: [400_i64, 99, 260, 260, 150, 400],
        },
        expect![[r#"
            +---------+------+-----+-----+------+
            | id      | card | at  | avg | tier |
            +---------+------+-----+-----+------+
            | late    | 7    | 400 | 3.0 | d    |
            | early   | 7    | 99  |     |      |
            | same    | 7    | 260 | 2.0 | b    |
            | same    | 7    | 260 | 2.0 | b    |
            | other   | 8    | 150 |     | c    |
            | unknown |      | 400 |     |      |
            +---------+------+-----+-----+------+"#]],
    );
}

#[test]
fn a_row_that_was_not_known_yet_does_not_count() {
    check(
        history(),
        Vector::new("v").features(["cards.tier"]),
        rows! { card: [7_i64, 7, 7, 7], at: [249_i64, 250, 300, 301] },
        expect![[r#"
            +------+-----+------+
            | card | at  | tier |
            +------+-----+------+
            | 7    | 249 | a    |
            | 7    | 250 | b    |
            | 7    | 300 | b    |
            | 7    | 301 | d    |
            +------+-----+------+"#]],
    );
}

#[test]
fn gaps_are_filled_as_the_policies_say() {
    check(
        history(),
        Vector::new("v")
            .features(["cards.avg AS usual", "cards.tier", "cards.avg"])
            .missing_of("usual", Policy::Default((-1).into()))
            .nulls_of("usual", Policy::Default(0.5.into()))
            .missing_of("tier", Policy::Default("none".into())),
        rows! { card: [7_i64, 8, 9], at: [150_i64, 150, 150] },
        expect![[r#"
            +------+-----+-------+------+-----+
            | card | at  | usual | tier | avg |
            +------+-----+-------+------+-----+
            | 7    | 150 | 1.0   | a    | 1.0 |
            | 8    | 150 | 0.5   | c    |     |
            | 9    | 150 | -1.0  | none |     |
            +------+-----+-------+------+-----+"#]],
    );
}

#[test]
fn a_value_that_must_be_there_and_is_not_ends_the_run_with_its_row() {
    let asked = || rows! { card: [7_i64, 8, 9], at: [150_i64, 150, 150] };
    check(
        history(),
        Vector::new("v").features(["cards.tier"]).missing(Policy::Fail),
        asked(),
        expect!["spine row 2: no row for card=9 in feature set `cards`"],
    );
    check(
        history(),
        Vector::new("v").features(["cards.avg"]).nulls(Policy::Fail),
        asked(),
        expect!["spine row 1: feature `avg` is null for card=8 in feature set `cards`"],
    );
}

#[test]
fn a_value_older_than_the_vector_allows_is_missing() {
    check(
        history(),
        Vector::new("v").features(["cards.tier"]).max_staleness(Duration::from_micros(20)),
        rows! { card: [7_i64, 7], at: [120_i64, 121] },
        expect![[r#"
            +------+-----+------+
            | card | at  | tier |
            +------+-----+------+
            | 7    | 120 | a    |
            | 7    | 121 |      |
            +------+-----+------+"#]],
    );
}

#[test]
fn mistakes_are_named_all_at_once() {
    check(
        history(),
        Vector::new("v")
            .features(["cards.tire", "crads.avg", "avg", "cards.avg AS id"])
            .by("cards", ["crad"])
            .nulls_of("usual", Policy::Null)
            .missing_of("id", Policy::Default("many".into())),
        rows! { id: [1_i64], card: [7_i64], at: [1_i64] },
        expect![[
            r#"feature set `cards` has no feature `tire`; did you mean `tier`?; no feature set `crads`; did you mean `cards`?; `avg` is no feature; write `set.feature`, `set.feature AS name`, or `set.*` for all; default "many" for feature `avg` is no Float64; a policy names no column `usual`; there is `id`; key `card` of feature set `cards`: no column `crad`; did you mean `card`?; a column `id` is there already; name the feature otherwise: `cards.avg AS cards_avg`"#
        ]],
    );
    check(
        history(),
        Vector::new("v").features(["cards.avg"]).by("cards", ["card", "id"]).missing(Policy::Mean),
        rows! { id: [1_i64], card: [7.5], at: [1_i64] },
        expect!["`by` names 2 columns for the keys of feature set `cards`: `card`"],
    );
    check(
        history(),
        Vector::new("v").features(["cards.avg"]),
        rows! { card: ["seven"], at: [1_i64] },
        expect!["key `card` of feature set `cards` is Int64, but column `card` is Utf8"],
    );
    check(
        history(),
        Vector::new("v"),
        rows! { card: [7_i64], at: [1_i64] },
        expect!["no features; name some as `set.feature` or `set.*`"],
    );
    check(
        history(),
        Vector::new("v").features(["cards.avg"]),
        rows! { card: [7_i64], time: [1_i64] },
        expect!["the times of the spine: no column `at`; there is `card`, `time`"],
    );
    check(
        history(),
        Vector::new("v").features(["cards.avg"]),
        rows! { card: [7_i64], at: ["soon"] },
        expect![
            "column `at` of the spine: Parser error: Error parsing timestamp from 'soon': timestamp must contain at least 10 characters"
        ],
    );
}

#[test]
fn keys_are_compared_by_value_whatever_their_type() {
    block(async {
        let folder = tempdir().unwrap();
        let set = set_of(&folder, cards(), history()).await;
        let store = store(3, vec![set]);
        let vector = Vector::new("v").features(["cards.tier"]);
        for card in [
            Arc::new(arrow::array::UInt64Array::from(vec![7, u64::MAX])) as ArrayRef,
            Arc::new(arrow::array::Int8Array::from(vec![7, -1])) as ArrayRef,
        ] {
            let at = Arc::new(Int64Array::from(vec![100, 100])) as ArrayRef;
            let asked = RecordBatch::try_from_iter([("card", card), ("at", at)]).unwrap();
            let rows = training(&store, &vector, &spine(asked)).await.unwrap();
            let tiers: Vec<_> = rows.column(2).as_string::<i32>().iter().collect();
            assert_eq!(tiers, [Some("a"), None]);
        }
    });
}

/// Employees, departments and managers: each set is reached by a feature of the one before.
async fn company(folder: &tempfile::TempDir) -> Vec<OfflineSet> {
    let employees = FeatureSet::builder("employees")
        .key("id", DataType::Int64)
        .feature("name", DataType::Utf8)
        .feature("department", DataType::Int64);
    let departments = FeatureSet::builder("departments")
        .key("id", DataType::Int64)
        .feature("name", DataType::Utf8)
        .feature("manager", DataType::Int64);
    let managers = FeatureSet::builder("managers").key("id", DataType::Int32).feature("name", DataType::Utf8);
    vec![
        set_of(
            folder,
            managers,
            rows! { id: [10_i64, 20], name: ["manager10", "manager20"], _event: [0_i64, 0] },
        )
        .await,
        set_of(
            folder,
            departments,
            rows! { id: [1_i64, 1, 2], name: ["dept1", "dept1", "dept2"], manager: [10_i64, 20, 20], _event: [0_i64, 50, 0] },
        )
        .await,
        set_of(
            folder,
            employees,
            rows! { id: [100_i64, 100, 200], name: ["employee100", "employee100", "employee200"],
                    department: [Some(1_i64), Some(2), None], _event: [0_i64, 90, 0] },
        )
        .await,
    ]
}

#[test]
fn sets_are_reached_through_each_other_as_they_were_at_the_time() {
    block(async {
        let folder = tempdir().unwrap();
        let sets = company(&folder).await;
        let vector = Vector::new("v")
            .features(["managers.name AS manager", "employees.name"])
            .by("managers", ["departments.manager"])
            .by("departments", ["employees.department"]);
        let asked = rows! { id: [100_i64, 200, 100, 100, 300], at: [0_i64, 99, 60, 99, 99] };
        let shown = answer(sets.clone(), &vector, asked.clone()).await;
        expect![[r#"
            +-----+----+-----------+-------------+
            | id  | at | manager   | name        |
            +-----+----+-----------+-------------+
            | 100 | 0  | manager10 | employee100 |
            | 200 | 99 |           | employee200 |
            | 100 | 60 | manager20 | employee100 |
            | 100 | 99 | manager20 | employee100 |
            | 300 | 99 |           |             |
            +-----+----+-----------+-------------+"#]]
        .assert_eq(&shown);
        let circle = Vector::new("v")
            .features(["employees.name"])
            .by("employees", ["departments.manager"])
            .by("departments", ["employees.department"]);
        expect!["feature sets `employees`, `departments` take their keys from each other"]
            .assert_eq(&answer(sets, &circle, asked).await);
    });
}

#[test]
fn a_label_is_taken_from_after_the_row_and_stands_last() {
    check(
        history(),
        Vector::new("v").features(["cards.avg"]).label("cards.tier AS label", Duration::from_micros(150)),
        rows! { card: [7_i64, 7], at: [100_i64, 160] },
        expect![[r#"
            +------+-----+-----+-------+
            | card | at  | avg | label |
            +------+-----+-----+-------+
            | 7    | 100 | 1.0 | b     |
            | 7    | 160 | 1.0 | d     |
            +------+-----+-----+-------+"#]],
    );
}

/// Adds each column as the double of another, which the expression names.
struct Doubles(Vec<(String, String)>);

impl Step for Doubles {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let mut fields = inputs[0].fields().to_vec();
        for (name, text) in &self.0 {
            if fields.iter().all(|field| field.name() != text) {
                return Err(SchemaError::unknown_column(
                    text,
                    fields.iter().map(|field| field.name().as_str()),
                ));
            }
            fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
        }
        Ok(Signature::row_wise(Arc::new(Schema::new(fields))))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let rows = input.rows(0).unwrap();
        let mut batch = rows.batch().clone();
        for (name, text) in &self.0 {
            let doubled: Float64Array =
                batch[text.as_str()].as_primitive::<Float64Type>().unary(|value| value * 2.0);
            let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
            fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
            columns.push(Arc::new(doubled));
            batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        }
        Work::Done(rows.replace(batch).map(Output::one))
    }
}

#[test]
fn columns_by_expression_stand_behind_features_and_do_not_see_the_label() {
    let vector = || {
        Vector::new("v")
            .features(["cards.avg"])
            .label("cards.tier AS label", Duration::from_micros(150))
            .with("double", "avg")
            .with("more", "double")
            .expressions(Expressions::new(|named| Arc::new(Doubles(named.to_vec()))))
    };
    let asked = || rows! { card: [7_i64, 9], at: [100_i64, 160] };
    check(
        history(),
        vector(),
        asked(),
        expect![[r#"
            +------+-----+-----+--------+------+-------+
            | card | at  | avg | double | more | label |
            +------+-----+-----+--------+------+-------+
            | 7    | 100 | 1.0 | 2.0    | 4.0  | b     |
            | 9    | 160 |     |        |      |       |
            +------+-----+-----+--------+------+-------+"#]],
    );
    check(
        history(),
        vector().with("leak", "label"),
        asked(),
        expect!["no column `label`; there is `card`, `at`, `avg`, `double`, `more`"],
    );
}

/// Between two timestamped sets, MLRun's `inner` keeps rows without a match. Here there is one join, and it never drops a row.
#[test]
fn no_row_is_dropped_for_what_it_lacks() {
    check(
        history(),
        Vector::new("v").features(["cards.tier"]),
        rows! { card: [1_i64, 2, 3], at: [Some(1_i64), None, Some(999)] },
        expect![[r#"
            +------+-----+------+
            | card | at  | tier |
            +------+-----+------+
            | 1    | 1   |      |
            | 2    |     |      |
            | 3    | 999 |      |
            +------+-----+------+"#]],
    );
}

#[test]
fn a_table_of_any_kind_is_a_set() {
    block(async {
        let rows =
            rows! { card: [7_i64, 7, 8], avg: [1_i64, 2, 3], tier: ["a", "b", "c"], day: [10_i64, 20, 10] };
        let table = |rows: &RecordBatch| {
            Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap())
        };
        let timed = cards().timestamp("day", DataType::Int64).build().unwrap();
        let timed = OfflineSet::of_table(&timed, table(&rows)).unwrap();
        let timeless = OfflineSet::of_table(&cards().build().unwrap(), table(&rows)).unwrap();
        let vector = Vector::new("v").features(["cards.avg", "cards.tier"]);
        let asked = || spine(rows! { card: [7_i64, 8, 7], at: [15_i64, 5, 30] });
        let answer = training(&store(2, vec![timed]), &vector, &asked()).await.unwrap();
        expect![[r#"
            +------+----+-----+------+
            | card | at | avg | tier |
            +------+----+-----+------+
            | 7    | 15 | 1.0 | a    |
            | 8    | 5  |     |      |
            | 7    | 30 | 2.0 | b    |
            +------+----+-----+------+"#]]
        .assert_eq(&shown(&answer));
        let answer = training(&store(2, vec![timeless]), &vector, &asked()).await.unwrap();
        expect![[r#"
            +------+----+-----+------+
            | card | at | avg | tier |
            +------+----+-----+------+
            | 7    | 15 | 2.0 | b    |
            | 8    | 5  | 3.0 | c    |
            | 7    | 30 | 2.0 | b    |
            +------+----+-----+------+"#]]
        .assert_eq(&shown(&answer));
        let unknown = FeatureSet::builder("c").key("crad", DataType::Int64).feature("avg", DataType::Int64);
        let error = OfflineSet::of_table(&unknown.build().unwrap(), table(&rows)).unwrap_err();
        assert_eq!(error.to_string(), "feature set `c`: no column `crad`; did you mean `card`?");
    });
}

#[test]
fn a_spine_is_a_file_of_any_kind_or_a_query() {
    block(async {
        let folder = tempdir().unwrap();
        let store = store(2, vec![set_of(&folder, cards(), history()).await]);
        let vector = Vector::new("v").features(["cards.tier"]);
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let csv =
            write("spine.csv", "card,at\n7,1970-01-01T00:00:00.000270Z\n8,1970-01-01T00:00:00.000150Z\n");
        let lines = write("spine.JSONL", "{\"card\": 7, \"at\": 270}\n{\"card\": 8, \"at\": 150}\n");
        let parquet = folder.path().join("spine.parquet");
        let query = "SELECT CAST(7 AS BIGINT) AS card, 270 AS at UNION ALL SELECT 8, 150";
        let written = store.history(&vector, &Spine::sql(query, "at")).await.unwrap();
        written.write(&parquet, &mut |_| ()).await.unwrap();
        // The file has a column `tier` already, so the feature needs another name there.
        let renamed = Vector::new("v").features(["cards.tier AS second"]);
        for (spine, vector, column) in [
            (Spine::file(csv, "at"), &vector, 2),
            (Spine::file(lines, "at"), &vector, 2),
            (Spine::sql(query, "at"), &vector, 2),
            (Spine::file(parquet, "at"), &renamed, 3),
        ] {
            let rows = training(&store, vector, &spine).await.unwrap();
            let tiers: Vec<_> = rows.column(column).as_string::<i32>().iter().flatten().collect();
            assert_eq!(tiers, ["b", "c"], "{spine:?}");
        }
        let error = async |spine: Spine| training(&store, &vector, &spine).await.unwrap_err().to_string();
        assert!(
            error(Spine::file(folder.path().join("none.csv"), "at"))
                .await
                .ends_with("cannot be read or written")
        );
        let text = write("spine.txt", "");
        assert!(
            error(Spine::file(text, "at"))
                .await
                .ends_with("none of the endings .parquet, .csv, .jsonl, .ndjson")
        );
        assert!(error(Spine::sql("DROP TABLE cards", "at")).await.contains("DDL not supported"));
    });
}

/// The parts of a query run beside each other, and which is done first is a matter of luck.
#[test]
fn the_rows_of_a_query_come_in_the_same_order_each_time() {
    block(async {
        let folder = tempdir().unwrap();
        let store = store(2, vec![set_of(&folder, cards(), history()).await]);
        let query: Vec<_> =
            (0..20).map(|row| format!("SELECT CAST({row} AS BIGINT) AS card, {row} AS at")).collect();
        let spine = Spine::sql(query.join(" UNION ALL "), "at");
        for _ in 0..10 {
            let rows = training(&store, &Vector::new("v").features(["cards.tier"]), &spine).await.unwrap();
            assert!(rows.column(0).as_primitive::<Int64Type>().values().iter().copied().eq(0..20));
        }
    });
}

#[test]
fn a_training_set_is_written_whole_with_its_progress() {
    block(async {
        let folder = tempdir().unwrap();
        let store = store(2, vec![set_of(&folder, cards(), history()).await]);
        let vector = Vector::new("v").features(["cards.tier"]);
        let asked = spine(rows! { card: [7_i64, 9, 8], at: [260_i64, 1, 150] });
        let rows = training(&store, &vector, &asked).await.unwrap();
        for ending in ["parquet", "csv", "arrow"] {
            let path = folder.path().join(format!("out.{ending}"));
            let mut heard = Vec::new();
            let written = store.history(&vector, &asked).await.unwrap();
            assert_eq!(written.write(&path, &mut |rows| heard.push(rows)).await.unwrap(), 3);
            assert_eq!(heard.last(), Some(&3));
            match ending {
                "csv" => {
                    assert_eq!(fs::read_to_string(&path).unwrap(), "card,at,tier\n7,260,b\n9,1,\n8,150,c\n")
                }
                "arrow" => {
                    let file = fs::File::open(&path).unwrap();
                    let reader = arrow::ipc::reader::FileReader::try_new(file, None).unwrap();
                    let batches: Vec<_> = reader.map(Result::unwrap).collect();
                    assert_eq!(concat_batches(&rows.schema(), &batches).unwrap(), rows);
                }
                _ => {
                    let again = Spine::file(&path, "at");
                    let renamed = Vector::new("v").features(["cards.avg"]);
                    let read = training(&store, &renamed, &again).await.unwrap();
                    assert_eq!(read.columns()[..3], rows.columns()[..]);
                }
            }
        }
        // A run that fails leaves neither the file nor what was written beside it.
        let path = folder.path().join("never.csv");
        let failing = store.history(&vector.clone().missing(Policy::Fail), &asked).await.unwrap();
        assert!(failing.write(&path, &mut |_| ()).await.is_err());
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("never")), "{left:?}");
    });
}

#[test]
fn texts_in_dictionaries_are_keys_too() {
    block(async {
        let folder = tempdir().unwrap();
        let set = FeatureSet::builder("shops").key("shop", DataType::Utf8).feature("size", DataType::Int64);
        let rows = rows! { shop: ["a", "b"], size: [1_i64, 2], _event: [0_i64, 0] };
        let store = store(2, vec![set_of(&folder, set, rows).await]);
        let shops: DictionaryArray<Int32Type> = ["b", "a", "c"].into_iter().collect();
        let at = Arc::new(Int64Array::from(vec![1, 1, 1])) as ArrayRef;
        let asked = RecordBatch::try_from_iter([("shop", Arc::new(shops) as ArrayRef), ("at", at)]).unwrap();
        let rows = training(&store, &Vector::new("v").features(["shops.size"]), &spine(asked)).await.unwrap();
        let sizes: Vec<_> = rows.column(2).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(sizes, [Some(2), Some(1), None]);
    });
}

#[test]
fn a_log_that_takes_more_memory_than_allowed_is_refused() {
    block(async {
        let folder = tempdir().unwrap();
        let set = set_of(&folder, cards(), history()).await;
        let mut store = OfflineStore::new(&OfflineLimits { memory: 64, ..OfflineLimits::default() }).unwrap();
        store.insert(set.as_of(AsOf::default()));
        let asked = spine(rows! { card: [7_i64], at: [1_i64] });
        let error = training(&store, &Vector::new("v").features(["cards.tier"]), &asked).await.unwrap_err();
        assert!(causes(&error).contains("Resources exhausted"), "{}", causes(&error));
    });
}

#[test]
fn an_empty_spine_and_an_empty_log_have_answers() {
    block(async {
        let folder = tempdir().unwrap();
        let empty = super::log(&folder, cards()).await;
        let store = store(2, vec![OfflineSet::of_log("cards", empty.table())]);
        let vector = Vector::new("v").features(["cards.tier"]);
        let rows = training(&store, &vector, &spine(rows! { card: [7_i64], at: [1_i64] })).await.unwrap();
        assert_eq!((rows.num_rows(), rows.column(2).null_count()), (1, 1));
        let nobody = rows! { card: [7_i64], at: [1_i64] }.slice(0, 0);
        assert_eq!(training(&store, &vector, &spine(nobody)).await.unwrap().num_rows(), 0);
    });
}
