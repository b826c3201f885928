//! What the values of a feature look like: NumPy and pandas say it, whatever the store.

use std::{io::Write, process::Stdio, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, TimeUnit},
};
use millstream_featurestore::{
    Changes, Distinct, FeatureSet, LocalOptions, LocalTable, MemoryTable, OnlineTable, Profile, ProfileError,
    WritableTable, wait,
};
use millstream_graph::rows;
use proptest::{collection::vec, option::weighted, prelude::*};
use serde_json::{Value, json};

fn set() -> FeatureSet {
    FeatureSet::builder("all")
        .key("id", DataType::Int64)
        .feature("float", DataType::Float64)
        .feature("single", DataType::Float32)
        .feature("whole", DataType::Int64)
        .feature("truth", DataType::Boolean)
        .feature("text", DataType::Utf8)
        .feature("time", DataType::Timestamp(TimeUnit::Microsecond, None))
        .build()
        .unwrap()
}

#[derive(Clone, Debug, Default)]
struct Row {
    float: Option<f64>,
    single: Option<f32>,
    whole: Option<i64>,
    truth: Option<bool>,
    text: Option<String>,
    time: Option<i64>,
}

fn row() -> impl Strategy<Value = Row> {
    let float = prop_oneof![
        -9.0..9.0_f64,
        (-9_i64..9).prop_map(|tenths| tenths as f64 / 10.0),
        Just(-0.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
    ];
    // As far as a float counts by one.
    let whole = prop_oneof![-5_i64..5, -(1_i64 << 53)..1 << 53];
    (
        weighted(0.9, float),
        weighted(0.9, -3.0..3.0_f32),
        weighted(0.9, whole),
        weighted(0.9, any::<bool>()),
        weighted(0.9, "[a-cü\"]{0,2}"),
        weighted(0.9, 0_i64..5),
    )
        .prop_map(|(float, single, whole, truth, text, time)| Row {
            float,
            single,
            whole,
            truth,
            text,
            time,
        })
}

fn batch(rows: &[Row]) -> RecordBatch {
    let ids: Int64Array = (0..rows.len() as i64).map(Some).collect();
    let columns: [(&str, ArrayRef); 7] = [
        ("id", Arc::new(ids)),
        ("float", Arc::new(rows.iter().map(|row| row.float).collect::<Float64Array>())),
        ("single", Arc::new(rows.iter().map(|row| row.single).collect::<Float32Array>())),
        ("whole", Arc::new(rows.iter().map(|row| row.whole).collect::<Int64Array>())),
        ("truth", Arc::new(rows.iter().map(|row| row.truth).collect::<BooleanArray>())),
        ("text", Arc::new(rows.iter().map(|row| row.text.clone()).collect::<StringArray>())),
        ("time", Arc::new(rows.iter().map(|row| row.time).collect::<TimestampMicrosecondArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn of(table: &dyn OnlineTable) -> Vec<Profile> {
    (0..table.set().features().len()).map(|feature| table.profile(feature).unwrap()).collect()
}

fn loaded(rows: &[Row]) -> Vec<Profile> {
    of(&MemoryTable::from_batches(set(), &[batch(rows)]).unwrap())
}

/// Rows backwards, each written after one that it takes the place of.
fn written(table: &dyn WritableTable, rows: &[Row]) -> Vec<Profile> {
    let indices: arrow::array::UInt32Array = (0..rows.len() as u32).rev().collect();
    let backwards = arrow::compute::take_record_batch(&batch(rows), &indices).unwrap();
    for (event, rows) in [(1, batch(&vec![Row::default(); rows.len()])), (2, backwards)] {
        let events = vec![event; rows.num_rows()];
        wait(table.write(Changes::new(rows, events)).get()).unwrap();
    }
    of(table)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_store_says_the_same_of_the_same_rows(rows in vec(row(), 0..40)) {
        let loaded = loaded(&rows);
        let dir = tempfile::tempdir().unwrap();
        let local = LocalTable::in_memory(set(), LocalOptions::default());
        prop_assert_eq!(&written(&local, &rows), &loaded);
        #[cfg(feature = "redb")]
        {
            use millstream_featurestore::{RedbOptions, RedbTable};
            let redb = RedbTable::open(&dir.path().join("set"), set(), RedbOptions::default()).unwrap();
            prop_assert_eq!(&written(&redb, &rows), &loaded);
        }
        drop(dir);
        for profile in &loaded {
            prop_assert_eq!(profile.count + profile.nulls, rows.len() as u64);
            let not_finite = profile.numbers.as_ref().map_or(0, |numbers| numbers.statistics.not_finite);
            let told: u64 = profile.frequent.iter().map(|(_, count)| count).sum();
            prop_assert!(told <= profile.count - not_finite);
            prop_assert!(profile.frequent.is_sorted_by(|a, b| a.1 >= b.1));
            let Distinct::Exactly(distinct) = profile.distinct else { panic!("few are counted") };
            prop_assert_eq!(profile.frequent.len() as u64, distinct.min(Profile::FREQUENT as u64));
            if distinct <= Profile::FREQUENT as u64 {
                prop_assert_eq!(told, profile.count - not_finite);
            }
        }
    }
}

/// Reads lists of numbers, and says what NumPy makes of them; lists of texts, and pandas.
const SCRIPT: &str = r"
import json, sys
import numpy, pandas
found = []
for case in json.load(sys.stdin):
    numbers = numpy.array(case['numbers'], dtype='float64')
    counts, edges = numpy.histogram(numbers, bins=20)
    texts = pandas.Series(case['texts'], dtype='object').value_counts()
    found.append({
        'quantiles': list(numpy.quantile(numbers, case['levels'])), 'counts': counts.tolist(), 'edges': list(edges),
        'mean': numbers.mean(), 'std': pandas.Series(numbers).std() if len(numbers) > 1 else None, 'frequent': sorted(texts.items(), key=lambda x: (-x[1], x[0]))[:10],
    })
json.dump(found, sys.stdout, default=int)
";

fn python(input: &Value) -> Option<Value> {
    let python = std::env::var("MILLSTREAM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = |modules: &str| std::process::Command::new(&python).args(["-c", modules]).output();
    if !has("import numpy, pandas").is_ok_and(|ran| ran.status.success()) {
        println!("skipped: {python} has no NumPy or no pandas");
        return None;
    }
    let piped = std::process::Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = piped.unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn quantiles_histograms_and_frequent_values_are_those_of_numpy_and_pandas() {
    use proptest::{
        strategy::{Strategy as _, ValueTree},
        test_runner::TestRunner,
    };
    let numbers = prop_oneof![
        vec(-9.0..9.0_f64, 1..200),
        vec((-9_i64..9).prop_map(|tenths| tenths as f64 / 10.0), 1..200),
        vec(any::<i32>().prop_map(|value| f64::from(value) * 1e9), 1..30),
        vec(1e15..1.000_1e15_f64, 1..30),
    ];
    let case = (numbers, vec("[a-e]{1,2}", 1..200));
    let mut runner = TestRunner::deterministic();
    let cases: Vec<_> = (0..60).map(|_| case.new_tree(&mut runner).unwrap().current()).collect();
    let asked = cases
        .iter()
        .map(|(numbers, texts)| json!({ "numbers": numbers, "texts": texts, "levels": Profile::QUANTILES }));
    let Some(expected) = python(&asked.collect()) else { return };
    for ((numbers, texts), expected) in cases.iter().zip(expected.as_array().unwrap()) {
        let length = numbers.len().max(texts.len());
        let row = |at: usize| Row {
            float: numbers.get(at).copied(),
            text: texts.get(at).cloned(),
            ..Row::default()
        };
        let found = loaded(&(0..length).map(row).collect::<Vec<_>>());
        let of = found[0].numbers.as_ref().unwrap();
        let quantiles: Vec<f64> = of.quantiles.iter().map(|(_, value)| *value).collect();
        assert_eq!(json!(quantiles), expected["quantiles"], "{numbers:?}");
        assert_eq!(json!(of.histogram.edges), expected["edges"], "{numbers:?}");
        assert_eq!(json!(of.histogram.counts), expected["counts"], "{numbers:?}");
        let near = |found: Option<f64>, expected: &Value| match (found, expected.as_f64()) {
            (Some(found), Some(expected)) => (found - expected).abs() <= expected.abs() * 1e-9 + 1e-12,
            (None, None) => true,
            _ => false,
        };
        assert!(near(of.statistics.mean, &expected["mean"]), "{numbers:?}");
        assert!(numbers.len() == 1 || near(of.statistics.std, &expected["std"]), "{numbers:?}");
        assert_eq!(json!(found[4].frequent), expected["frequent"], "{texts:?}");
    }
}

#[test]
fn values_are_shown_as_they_are_read() {
    let rows = [
        Row {
            whole: Some(i64::MAX),
            truth: Some(true),
            time: Some(1),
            single: Some(0.1),
            float: Some(-0.0),
            ..Row::default()
        },
        Row { whole: Some(9_007_199_254_740_993), time: Some(1), float: Some(0.0), ..Row::default() },
        Row { whole: Some(9_007_199_254_740_993), ..Row::default() },
    ];
    let shown: Vec<_> = loaded(&rows).iter().map(|profile| json!(profile.frequent)).collect();
    let expected = json!([
        [[0.0, 2]],
        [[0.1, 1]],
        [[9_007_199_254_740_993_i64, 2], [i64::MAX, 1]],
        [[true, 1]],
        [],
        [["1970-01-01T00:00:00.000001", 2]],
    ]);
    assert_eq!(json!(shown), expected);
}

#[test]
fn beyond_a_bound_texts_are_not_counted_any_more() {
    let set = || {
        FeatureSet::builder("names")
            .key("id", DataType::Int64)
            .feature("name", DataType::Utf8)
            .build()
            .unwrap()
    };
    let (most, most_bytes) = Profile::TEXTS;
    let found = |names: Vec<String>| {
        let rows = rows! { id: (0..names.len() as i64).collect::<Vec<_>>(), name: names };
        let profile = MemoryTable::from_batches(set(), &[rows]).unwrap().profile(0).unwrap();
        (profile.distinct, profile.frequent.len())
    };
    let names = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(found([names(most), names(most)].concat()), (Distinct::Exactly(most as u64), 10));
    assert_eq!(found(names(most + 1)), (Distinct::MoreThan(most as u64), 0));
    let long = |first: char| first.to_string() + &"x".repeat(most_bytes / 2);
    assert_eq!(found(vec![long('a'), long('b')]), (Distinct::MoreThan(1), 0));
}

#[test]
fn there_is_no_profile_of_a_feature_that_is_none() {
    let table = MemoryTable::from_batches(set(), &[batch(&[])]).unwrap();
    assert!(matches!(table.profile(6), Err(ProfileError::Feature { number: 6, features: 6 })));
    let empty = table.profile(0).unwrap();
    assert_eq!((empty.count, empty.frequent.len(), empty.numbers.unwrap().quantiles.len()), (0, 0, 0));
}
