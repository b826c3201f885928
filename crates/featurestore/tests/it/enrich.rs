//! The `enrich` step: what comes out, what fails, and what is refused before anything runs.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Float32Type},
};
use expect_test::{Expect, expect};
use millstream_featurestore::{
    Changes, Enrich, FeatureSet, FeatureSets, LocalOptions, LocalTable, MemoryStore, Policy, StoredSet,
    TimeColumns, WritableSet, WritableTable, kinds, wait,
};
use millstream_graph::{Origin, Request, Step, Work, fields, rows, spec::Kinds};
use serde_json::json;

use crate::{call, call_for, columns, run, shown, store};

/// Three cards: one ordinary, one of zeros, one whose average is null.
fn cards() -> Arc<MemoryStore> {
    let set = FeatureSet::builder("cards")
        .key("card_id", DataType::Int64)
        .feature("avg", DataType::Float32)
        .feature("n", DataType::Int32)
        .feature("tier", DataType::Utf8)
        .feature("vip", DataType::Boolean);
    let rows = rows! {
        card_id: [1_i64, 2, 3],
        avg: [Some(1.5_f32), Some(0.0), None],
        n: [4, 0, 9],
        tier: [Some("gold"), Some(""), None],
        vip: [true, false, true],
    };
    store(set, &[rows])
}

fn step(settings: serde_json::Value) -> Result<Arc<dyn Step>, String> {
    let kinds = Kinds::default().with(kinds(cards()));
    kinds
        .get("enrich")
        .unwrap()
        .build(&settings)
        .map_err(|error| format!("{}: {}", error.path.join("."), error.problems.join("; ")))
}

fn request() -> RecordBatch {
    rows! { card_id: [2_i64, 7, 3, 2], amount: [10.0, 20.0, 30.0, 40.0] }
}

fn check(settings: serde_json::Value, batch: RecordBatch, expected: Expect) {
    let text = match step(settings) {
        Err(problem) => problem,
        Ok(step) => match step.signature(&[batch.schema()]) {
            Err(error) => error.to_string(),
            Ok(signature) => {
                let answer = call(step.as_ref(), batch).unwrap();
                if let Some(rows) = &answer.0 {
                    assert_eq!(rows.schema(), &signature.outputs[0].schema);
                }
                format!("{}\n{}", columns(&signature.outputs[0].schema), shown(&answer))
            }
        },
    };
    expected.assert_eq(&text);
}

#[test]
fn by_default_all_features_come_and_a_key_without_row_fails() {
    check(
        json!({"set": "cards"}),
        request(),
        expect![[r#"
        card_id Int64, amount Float64, avg Float32?, n Int32?, tier Utf8?, vip Boolean?
        +---------+--------+-----+---+------+-------+
        | card_id | amount | avg | n | tier | vip   |
        +---------+--------+-----+---+------+-------+
        | 2       | 10.0   | 0.0 | 0 |      | false |
        | 3       | 30.0   |     | 9 |      | true  |
        | 2       | 40.0   | 0.0 | 0 |      | false |
        +---------+--------+-----+---+------+-------+
        failed: no row for card_id=7 in feature set `cards`
    "#]],
    );
}

#[test]
fn gaps_are_null_a_default_or_what_other_rows_have() {
    check(
        json!({"set": "cards", "by": "card_id", "missing": null, "features": ["avg", "tier", "vip"]}),
        request(),
        expect![[r#"
        card_id Int64, amount Float64, avg Float32?, tier Utf8?, vip Boolean?
        +---------+--------+-----+------+-------+
        | card_id | amount | avg | tier | vip   |
        +---------+--------+-----+------+-------+
        | 2       | 10.0   | 0.0 |      | false |
        | 7       | 20.0   |     |      |       |
        | 3       | 30.0   |     |      | true  |
        | 2       | 40.0   | 0.0 |      | false |
        +---------+--------+-----+------+-------+
    "#]],
    );
    check(
        json!({"set": "cards", "features": ["avg", "n"], "missing": "mean", "nulls": {"default": -1}}),
        request(),
        expect![[r#"
            card_id Int64, amount Float64, avg Float32, n Int32
            +---------+--------+------+---+
            | card_id | amount | avg  | n |
            +---------+--------+------+---+
            | 2       | 10.0   | 0.0  | 0 |
            | 7       | 20.0   | 0.75 | 4 |
            | 3       | 30.0   | -1.0 | 9 |
            | 2       | 40.0   | 0.0  | 0 |
            +---------+--------+------+---+
        "#]],
    );
    check(
        json!({"set": "cards", "missing": "most_frequent", "nulls": "max", "policies": {
            "n": {"missing": "median"}, "avg": {"missing": "min"}, "tier": {"nulls": "most_frequent"},
            "vip": {"nulls": null}}}),
        request(),
        expect![[r#"
            card_id Int64, amount Float64, avg Float32, n Int32, tier Utf8, vip Boolean?
            +---------+--------+-----+---+------+-------+
            | card_id | amount | avg | n | tier | vip   |
            +---------+--------+-----+---+------+-------+
            | 2       | 10.0   | 0.0 | 0 |      | false |
            | 7       | 20.0   | 0.0 | 4 |      | true  |
            | 3       | 30.0   | 1.5 | 9 |      | true  |
            | 2       | 40.0   | 0.0 | 0 |      | false |
            +---------+--------+-----+---+------+-------+
        "#]],
    );
    check(
        json!({"set": "cards", "missing": {"default": 0}, "nulls": "fail", "policies": {
            "tier": {"missing": {"default": "none"}, "nulls": null}, "vip": {"missing": {"default": true}}}}),
        request(),
        expect![[r#"
            card_id Int64, amount Float64, avg Float32, n Int32, tier Utf8?, vip Boolean
            +---------+--------+-----+---+------+-------+
            | card_id | amount | avg | n | tier | vip   |
            +---------+--------+-----+---+------+-------+
            | 2       | 10.0   | 0.0 | 0 |      | false |
            | 7       | 20.0   | 0.0 | 0 | none | true  |
            | 2       | 40.0   | 0.0 | 0 |      | false |
            +---------+--------+-----+---+------+-------+
            failed: feature `avg` is null for card_id=3 in feature set `cards`
        "#]],
    );
}

#[test]
fn features_are_chosen_and_named() {
    check(
        json!({"set": "cards", "by": ["card"], "features": ["avg AS usual", "n"], "prefix": "card_", "missing": {"default": 0}}),
        rows! { card: [1_i32], n: [0] },
        expect![[r#"
            card Int32, n Int32, usual Float32?, card_n Int32?
            +------+---+-------+--------+
            | card | n | usual | card_n |
            +------+---+-------+--------+
            | 1    | 0 | 1.5   | 4      |
            +------+---+-------+--------+
        "#]],
    );
    check(
        json!({"set": "cards", "by": {"card_id": "card"}, "features": ["*", "avg AS again"], "missing": "null"}),
        rows! { card: [1_u64] },
        expect![[r#"
            card UInt64, avg Float32?, n Int32?, tier Utf8?, vip Boolean?, again Float32?
            +------+-----+---+------+------+-------+
            | card | avg | n | tier | vip  | again |
            +------+-----+---+------+------+-------+
            | 1    | 1.5 | 4 | gold | true | 1.5   |
            +------+-----+---+------+------+-------+
        "#]],
    );
}

#[test]
fn a_null_key_is_a_key_without_row() {
    check(
        json!({"set": "cards", "features": "n"}),
        rows! { card_id: [Some(1_i64), None] },
        expect![[r#"
        card_id Int64?, n Int32?
        +---------+---+
        | card_id | n |
        +---------+---+
        | 1       | 4 |
        +---------+---+
        failed: no row for card_id=null in feature set `cards`
    "#]],
    );
}

#[test]
fn when_every_row_fails_nothing_comes_out() {
    check(
        json!({"set": "cards", "features": "n"}),
        rows! { card_id: [8_i64, 9] },
        expect![[r#"
        card_id Int64, n Int32?
        failed: no row for card_id=8 in feature set `cards`
        failed: no row for card_id=9 in feature set `cards`
    "#]],
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    check(json!({"set": "crads"}), request(), expect!["no feature set `crads`; did you mean `cards`?"]);
    check(
        json!({"set": "cards", "by": "crad_id", "features": ["agv", "n AS amount", "tier", "tier", "a b"], "missing": "mean",
               "nulls": {"default": "x"}, "policies": {"vpi": {"nulls": "fail"}, "avg": {"nulls": "fail"}}}),
        request(),
        expect![[
            r#"no column `crad_id`; did you mean `card_id`?; feature set `cards` has no feature `agv`; did you mean `avg`?; `a b` is no feature; write `feature`, `feature AS name`, or `*` for all; feature set `cards` has no feature `vpi`; did you mean `vip`?; `policies` names feature `avg`, which is not read; a column `amount` comes in already; name the feature otherwise: `n AS cards_n`; two features are named `tier`; default "x" for feature `n` is no Int32; feature `tier` is Utf8 and has no mean; give it a policy of its own"#
        ]],
    );
    check(
        json!({"set": "cards", "by": ["card_id", "amount"]}),
        request(),
        expect!["`by` names 2 columns for the keys of feature set `cards`: `card_id`"],
    );
    check(
        json!({"set": "cards", "by": {"card": "card_id"}}),
        request(),
        expect!["no key `card`; there is `card_id`; `by` names no column for key `card_id`"],
    );
    check(
        json!({"set": "cards"}),
        rows! { card_id: ["1"] },
        expect!["key `card_id` of feature set `cards` is Int64, but column `card_id` is Utf8"],
    );
    check(
        json!({"set": "cards", "features": "n", "missing": {"default": 1.5}}),
        request(),
        expect!["default 1.5 for feature `n` is no Int32"],
    );
}

#[test]
fn settings_that_have_no_meaning_are_refused() {
    check(
        json!({"set": "cards", "featurs": "n"}),
        request(),
        expect![
            "featurs: unknown field `featurs`, expected one of `set`, `by`, `at`, `features`, `prefix`, `missing`, `nulls`, `policies`"
        ],
    );
    check(
        json!({"set": "cards", "missing": "fial"}),
        request(),
        expect!["missing: no policy `fial`; did you mean `fail`?"],
    );
    check(
        json!({"set": "cards", "missing": "default"}),
        request(),
        expect!["missing: a default needs its value: `{default: VALUE}`"],
    );
    check(
        json!({"set": "cards", "missing": 0}),
        request(),
        expect![
            "missing: invalid type: integer `0`, expected `fail`, `null`, `mean`, `median`, `min`, `max`, `most_frequent`, or `{default: VALUE}`"
        ],
    );
    check(
        json!({"set": "cards", "policies": {"n": {"nulls": {"default": 0, "mean": 1}}}}),
        request(),
        expect!["policies.n.nulls: `mean` has no meaning beside `default`"],
    );
    check(
        json!({"set": "cards", "by": 7}),
        request(),
        expect![
            "by: invalid type: integer `7`, expected a column, a list of columns, or a column for each key"
        ],
    );
    check(
        json!({"set": "cards", "features": []}),
        request(),
        expect!["features: no feature is named; leave `features` out to add all"],
    );
    check(
        json!({"set": "cards", "policies": {"n": {"null": "fail"}}}),
        request(),
        expect!["policies.n.null: unknown field `null`, expected `missing` or `nulls`"],
    );
}

#[test]
fn rows_keep_their_place_when_others_fail() {
    let (good, failed) = run(&Enrich::new(cards(), "cards").features(["n"]), request()).unwrap();
    assert_eq!(good.unwrap().origin(), &Origin::Picked([0, 2, 3].into()));
    let failed = failed.unwrap();
    assert_eq!(failed.rows.origin(), &Origin::Picked([1].into()));
    assert_eq!(failed.rows.batch(), &request().slice(1, 1));
}

#[test]
fn one_buffer_holds_all_columns_of_one_width() {
    let set = (0..12).fold(FeatureSet::builder("wide").key("id", DataType::Int64), |set, i| {
        set.feature(format!("f{i}"), DataType::Float32)
    });
    let columns =
        (0..12).map(|i| (format!("f{i}"), Arc::new(arrow::array::Float32Array::from(vec![i as f32])) as _));
    let id = Arc::new(Int64Array::from(vec![1])) as arrow::array::ArrayRef;
    let batch = RecordBatch::try_from_iter([("id".to_owned(), id)].into_iter().chain(columns)).unwrap();
    let (out, _) = run(&Enrich::new(store(set, &[batch]), "wide"), rows! { id: [1_i64] }).unwrap();
    let out = out.unwrap().into_batch();
    let first = out.column(1).as_primitive::<Float32Type>().values().inner().as_ptr();
    for i in 0..12 {
        let column = out.column(i + 1).as_primitive::<Float32Type>();
        assert_eq!(column.values().inner().as_ptr(), first.wrapping_add(4 * i));
        assert_eq!((column.value(0), column.nulls()), (i as f32, None));
    }
}

#[test]
fn many_rows_are_a_job_and_few_are_answered_at_once() {
    let step = Enrich::new(cards(), "cards").missing(Policy::Null);
    let batch = |rows: usize| rows! { card_id: (0..rows as i64).map(|i| i % 5).collect::<Vec<_>>() };
    step.signature(&[batch(1).schema()]).unwrap();
    let cx = |n| {
        millstream_graph::RunCx::new(
            millstream_graph::RunId(0),
            Default::default(),
            n,
            std::time::Instant::now,
        )
    };
    for (rows, at_once) in [(1, true), (1024, true), (1025, false)] {
        let input = millstream_graph::Input::new(smallvec::smallvec![millstream_graph::Token::Rows(
            millstream_graph::Rows::whole(batch(rows))
        )]);
        assert_eq!(matches!(step.call(input, &cx(rows)), Work::Done(_)), at_once, "{rows} rows");
    }
    // The job answers as the single rows do.
    let (many, _) = call(&step, batch(2000)).unwrap();
    for row in [0, 1, 1999] {
        let (one, _) = call(&step, batch(2000).slice(row, 1)).unwrap();
        assert_eq!(one.unwrap().batch(), &many.as_ref().unwrap().batch().slice(row, 1));
    }
}

/// Visits of card 1 at 100 and of card 2 at 105, which may be used for ten microseconds.
fn visits() -> Arc<FeatureSets> {
    let set = FeatureSet::builder("visits")
        .key("card", DataType::Int64)
        .feature("n", DataType::Int64)
        .timestamp("seen", DataType::Int64)
        .build()
        .unwrap();
    let event = set.timestamp().cloned().unwrap();
    let ttl = Some(std::time::Duration::from_micros(10));
    let table = LocalTable::in_memory(set, LocalOptions { ttl, ..LocalOptions::default() });
    wait(table.write(Changes::new(rows! { card: [1_i64, 2], n: [10_i64, 20] }, vec![100, 105])).get())
        .unwrap();
    let set = WritableSet::new(Arc::new(table), TimeColumns { event, created: None, valid_to: None });
    let mut sets = FeatureSets::new();
    sets.insert(StoredSet::Writable(Arc::new(set)));
    Arc::new(sets)
}

#[test]
fn features_are_read_for_the_time_of_each_row() {
    let step = || Enrich::new(visits(), "visits").missing(Policy::Null);
    let expected = expect![[r#"
        +------+------+----+
        | card | when | n  |
        +------+------+----+
        | 1    | 99   |    |
        | 2    | 105  | 20 |
        | 1    | 110  | 10 |
        | 1    | 111  |    |
        | 2    |      |    |
        | 2    | 110  | 20 |
        | 3    | 110  |    |
        +------+------+----+
    "#]];
    let when = [Some(99_i64), Some(105), Some(110), Some(111), None, Some(110), Some(110)];
    let asked = rows! { card: [1_i64, 2, 1, 1, 2, 2, 3], when: when };
    expected.assert_eq(&shown(&run(&step().at("when"), asked.clone()).unwrap()));
    // The times of the request do the same, and those of the row come before them.
    let times = Some(Int64Array::from(when.to_vec()));
    let plain = step();
    plain.signature(&[asked.schema()]).unwrap();
    let request = Request { times, ..Request::default() };
    expected.assert_eq(&shown(&call_for(&plain, asked.clone(), request).unwrap()));
    let own = step().at("when");
    own.signature(&[asked.schema()]).unwrap();
    let request = Request { times: Some(Int64Array::from(vec![0; 7])), ..Request::default() };
    expected.assert_eq(&shown(&call_for(&own, asked, request).unwrap()));
}

#[test]
fn a_row_that_fails_for_its_time_is_the_one_that_is_named() {
    let step = Enrich::new(visits(), "visits").at("when");
    let asked = rows! { id: ["a", "b", "c"], card: [1_i64, 2, 1], when: [200_i64, 105, 105] };
    expect![[r#"
        +----+------+------+----+
        | id | card | when | n  |
        +----+------+------+----+
        | b  | 2    | 105  | 20 |
        | c  | 1    | 105  | 10 |
        +----+------+------+----+
        failed: no row for card=1 in feature set `visits`
    "#]]
    .assert_eq(&shown(&run(&step, asked).unwrap()));
}

#[test]
fn the_column_of_times_is_there_and_is_a_time() {
    check(
        json!({"set": "cards", "at": "amuont"}),
        request(),
        expect!["no column `amuont`; did you mean `amount`?"],
    );
    check(
        json!({"set": "cards", "at": "amount"}),
        request(),
        expect![
            "`at`: column `amount` is Float64; a time is a timestamp, a date or a whole number of microseconds"
        ],
    );
}

#[test]
fn a_step_is_typed_for_one_schema() {
    let step = Enrich::new(cards(), "cards");
    assert!(step.signature(&[fields! { card_id: Int64 }]).is_ok());
    assert!(step.signature(&[fields! { card_id: Int64 }]).is_ok());
    assert!(step.signature(&[fields! { card_id: Int32 }]).is_err());
    assert!(step.signature(&[]).is_err());
}

#[test]
fn several_keys_are_given_in_order_or_by_name() {
    let set = FeatureSet::builder("limits")
        .key("country", DataType::Utf8)
        .key("tier", DataType::Int8)
        .feature("limit", DataType::Float64);
    let limits = rows! { country: ["US", "US", "DE"], tier: [1, 2, 1], limit: [100.0, 200.0, 300.0] };
    let store = store(set, &[limits]);
    let request = || rows! { t: [2_i64, 1, 300], c: ["US", "DE", "US"] };
    let show = |step: Enrich| shown(&run(&step, request()).unwrap());
    let in_order = show(Enrich::new(Arc::clone(&store) as _, "limits").by(["c", "t"]));
    let by_name = show(Enrich::new(store, "limits").by_key([("tier", "t"), ("country", "c")]));
    assert_eq!(in_order, by_name);
    expect![[r#"
        +---+----+-------+
        | t | c  | limit |
        +---+----+-------+
        | 2 | US | 200.0 |
        | 1 | DE | 300.0 |
        +---+----+-------+
        failed: no row for country=US, tier=300 in feature set `limits`
    "#]]
    .assert_eq(&in_order);
}

#[test]
fn the_settings_have_a_schema() {
    let kinds = kinds(cards());
    let mut generator = schemars::SchemaGenerator::default();
    kinds[0].schema(&mut generator);
    let definitions = serde_json::to_value(generator.definitions()).unwrap();
    let properties = definitions["EnrichSettings"]["properties"].as_object().unwrap();
    assert_eq!(
        properties.keys().collect::<Vec<_>>(),
        ["set", "by", "at", "features", "prefix", "missing", "nulls", "policies"]
    );
    assert!(properties.values().all(|property| property["description"].is_string()));
}
