//! Lookups against a plain map of rows.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, Int64Array, RecordBatch,
        StringArray,
    },
    datatypes::DataType,
};
use millstream_featurestore::{
    Cell, FeatureSet, Found, Gap, MemoryTable, OnlineTable, Pick, Read, Selection, Status,
};
use proptest::prelude::*;

/// The features of one row; null where `None`.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    single: Option<f32>,
    double: Option<f64>,
    whole: Option<i64>,
    tiny: Option<i8>,
    truth: Option<bool>,
    text: Option<String>,
}

/// A key of two parts, either of which may be null in a request.
type Key = (Option<i64>, Option<String>);

fn row() -> impl Strategy<Value = Row> {
    use proptest::option::of;
    let float = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), any::<f64>()];
    (of(any::<f32>()), of(float), of(any::<i64>()), of(any::<i8>()), of(any::<bool>()), of("[a-zü]{0,3}"))
        .prop_map(|(single, double, whole, tiny, truth, text)| Row {
            single,
            double,
            whole,
            tiny,
            truth,
            text,
        })
}

/// Few different values, so that keys repeat.
fn known_key() -> impl Strategy<Value = (i64, String)> {
    (prop_oneof![-3_i64..3, Just(i64::MAX), Just(i64::MIN)], "[ab]{0,2}")
}

fn asked_key() -> impl Strategy<Value = Key> {
    known_key().prop_flat_map(|(a, b)| {
        (proptest::option::weighted(0.9, Just(a)), proptest::option::weighted(0.9, Just(b)))
    })
}

fn set(keys: &[usize]) -> FeatureSet {
    let key = [("a", DataType::Int64), ("b", DataType::Utf8)];
    let set = keys.iter().fold(FeatureSet::builder("set"), |set, &at| set.key(key[at].0, key[at].1.clone()));
    set.timestamp("at", DataType::Int64)
        .feature("tiny", DataType::Int8)
        .feature("single", DataType::Float32)
        .feature("text", DataType::Utf8)
        .feature("double", DataType::Float64)
        .feature("truth", DataType::Boolean)
        .feature("whole", DataType::Int64)
        .build()
        .unwrap()
}

fn batch(rows: &[((i64, String), i64, Row)]) -> RecordBatch {
    fn column<A: Array + FromIterator<T> + 'static, T>(values: impl Iterator<Item = T>) -> ArrayRef {
        Arc::new(values.collect::<A>())
    }
    let feature = || rows.iter().map(|(_, _, row)| row);
    RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0.0))) as ArrayRef),
        ("b", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0.1))) as ArrayRef),
        ("at", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))) as ArrayRef),
        ("single", column::<Float32Array, _>(feature().map(|row| row.single))),
        ("double", column::<Float64Array, _>(feature().map(|row| row.double))),
        ("whole", column::<Int64Array, _>(feature().map(|row| row.whole))),
        ("tiny", column::<Int8Array, _>(feature().map(|row| row.tiny))),
        ("truth", column::<BooleanArray, _>(feature().map(|row| row.truth))),
        ("text", column::<StringArray, _>(feature().map(|row| row.text.clone()))),
    ])
    .unwrap()
}

fn asked(keys: &[Key]) -> RecordBatch {
    let a: Int64Array = keys.iter().map(|key| key.0).collect();
    let b: StringArray = keys.iter().map(|key| key.1.clone()).collect();
    RecordBatch::try_from_iter([("a", Arc::new(a) as ArrayRef), ("b", Arc::new(b) as ArrayRef)]).unwrap()
}

fn found(table: &MemoryTable, request: &RecordBatch, selection: &Selection) -> Found {
    match table.read(request, selection) {
        Read::Ready(found) => found.unwrap(),
        Read::Waits(_) => panic!("memory does not wait"),
    }
}

/// The columns the oracle expects, each value as its bits in text; `None` is null.
fn expected(rows: &[Option<&Row>], feature: &str) -> Vec<Option<String>> {
    let value = |row: &Row| match feature {
        "single" => row.single.map(|value| value.to_bits().to_string()),
        "double" => row.double.map(|value| value.to_bits().to_string()),
        "whole" => row.whole.map(|value| value.to_string()),
        "tiny" => row.tiny.map(|value| value.to_string()),
        "truth" => row.truth.map(|value| value.to_string()),
        _ => row.text.clone(),
    };
    rows.iter().map(|row| row.and_then(value)).collect()
}

fn got(column: &ArrayRef) -> Vec<Option<String>> {
    use arrow::{array::AsArray, datatypes::*};
    fn texts<T>(values: impl Iterator<Item = Option<T>>, text: impl Fn(T) -> String) -> Vec<Option<String>> {
        values.map(|value| value.map(&text)).collect()
    }
    match column.data_type() {
        DataType::Float32 => {
            texts(column.as_primitive::<Float32Type>().iter(), |value| value.to_bits().to_string())
        }
        DataType::Float64 => {
            texts(column.as_primitive::<Float64Type>().iter(), |value| value.to_bits().to_string())
        }
        DataType::Int64 => texts(column.as_primitive::<Int64Type>().iter(), |value| value.to_string()),
        DataType::Int8 => texts(column.as_primitive::<Int8Type>().iter(), |value| value.to_string()),
        DataType::Boolean => texts(column.as_boolean().iter(), |value| value.to_string()),
        _ => texts(column.as_string::<i32>().iter(), str::to_owned),
    }
}

proptest! {
    #[test]
    fn a_store_reads_like_a_map(
        rows in proptest::collection::vec((known_key(), 0_i64..4, row()), 0..80),
        keys in proptest::collection::vec(asked_key(), 1..80),
        by in prop_oneof![Just(vec![0]), Just(vec![1]), Just(vec![0, 1]), Just(vec![1, 0])],
        picks in proptest::sample::subsequence((0..6_usize).collect::<Vec<_>>(), 1..=6).prop_shuffle(),
        split in 0_usize..80,
    ) {
        let part = |key: &Key| -> Option<Vec<String>> {
            by.iter().map(|&at| if at == 0 { key.0.map(|a| a.to_string()) } else { key.1.clone() }).collect()
        };
        let mut oracle: HashMap<Vec<String>, (i64, &Row)> = HashMap::new();
        for (key, time, row) in &rows {
            let key = part(&(Some(key.0), Some(key.1.clone()))).unwrap();
            let known = oracle.entry(key).or_insert((*time, row));
            if *time >= known.0 {
                *known = (*time, row);
            }
        }
        let set = set(&by);
        let names: Vec<_> = picks.iter().map(|&pick| set.features()[pick].name.clone()).collect();
        let (first, second) = rows.split_at(split.min(rows.len()));
        let table = MemoryTable::from_batches(set.clone(), &[batch(first), batch(second)]).unwrap();
        prop_assert_eq!(table.len(), oracle.len());

        // Without policies: every value, every null and every missing key is told apart.
        let plain = |feature| Pick { feature, missing: Gap::Null, null: Gap::Null };
        let selection = Selection::new(&set, &by, picks.iter().copied().map(plain).collect()).unwrap();
        let request = asked(&keys);
        let answer = found(&table, &request, &selection);
        let wanted: Vec<Option<&Row>> =
            keys.iter().map(|key| part(key).and_then(|key| oracle.get(&key).map(|known| known.1))).collect();
        for (pick, name) in names.iter().enumerate() {
            let expected = expected(&wanted, name);
            prop_assert_eq!(got(&answer.columns[pick]), expected.clone(), "{}", name);
            for (row, value) in expected.iter().enumerate() {
                let status = match (wanted[row], value) {
                    (None, _) => Status::Missing,
                    (_, None) => Status::Null,
                    _ => Status::Present,
                };
                prop_assert_eq!(answer.status(row, pick), status);
            }
        }

        // One row at a time is the same as all at once.
        let last = request.slice(keys.len() - 1, 1);
        let one = found(&table, &last, &selection);
        for (one, all) in one.columns.iter().zip(&answer.columns) {
            prop_assert_eq!(got(one), got(&all.slice(keys.len() - 1, 1)));
        }

        // With fills, the gaps and nothing else change; with `Fail`, the gaps are the faults.
        let cell = |feature: usize| {
            let value = match &*set.features()[feature].name {
                "truth" => true.into(),
                "text" => "gap".into(),
                _ => serde_json::Value::from(7),
            };
            Gap::Fill(Cell::from_json(&value, &set.features()[feature].data_type).unwrap())
        };
        let filling = |feature| Pick { feature, missing: cell(feature), null: cell(feature) };
        let filled = Selection::new(&set, &by, picks.iter().copied().map(filling).collect()).unwrap();
        let filled = found(&table, &request, &filled);
        let failing = |feature| Pick { feature, missing: Gap::Fail, null: Gap::Fail };
        let failed = Selection::new(&set, &by, picks.iter().copied().map(failing).collect()).unwrap();
        let failed = found(&table, &request, &failed);
        let mut faults = Vec::new();
        for (row, wanted) in wanted.iter().enumerate() {
            let nulls = names.iter().map(|name| expected(&[*wanted], name)[0].is_none());
            match (wanted, nulls.clone().position(|null| null)) {
                (None, _) => faults.push((row as u32, None)),
                (_, Some(pick)) => faults.push((row as u32, Some(pick))),
                _ => {}
            }
        }
        prop_assert_eq!(failed.faults.iter().map(|fault| (fault.row, fault.null)).collect::<Vec<_>>(), faults);
        for (pick, name) in names.iter().enumerate() {
            let gap = match name.as_str() {
                "single" => 7.0_f32.to_bits().to_string(),
                "double" => 7.0_f64.to_bits().to_string(),
                "truth" => "true".into(),
                "text" => "gap".into(),
                _ => "7".into(),
            };
            let expected: Vec<_> = expected(&wanted, name).into_iter().map(|value| Some(value.unwrap_or(gap.clone()))).collect();
            prop_assert_eq!(got(&filled.columns[pick]), expected, "{}", name);
            prop_assert_eq!(failed.columns[pick].null_count(), 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A key means its number: every width of integer finds it, and none finds another.
    #[test]
    fn integers_of_every_width_find_the_same_rows(keys in proptest::collection::hash_set(-200_i64..200, 1..50), unsigned: bool) {
        let keys: Vec<i64> = keys.into_iter().filter(|key| !unsigned || *key >= 0).collect();
        let key_type = if unsigned { DataType::UInt16 } else { DataType::Int16 };
        let set = FeatureSet::builder("set").key("k", key_type).feature("same", DataType::Int64).build().unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let rows = RecordBatch::try_from_iter([("k", Arc::clone(&column)), ("same", column)]).unwrap();
        let table = MemoryTable::from_batches(set.clone(), &[rows]).unwrap();
        let pick = Pick { feature: 0, missing: Gap::Null, null: Gap::Null };
        let selection = Selection::new(&set, &[0], vec![pick]).unwrap();
        let all = Int64Array::from_iter_values(-300..300);
        for width in [
            DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64,
            DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64,
        ] {
            let asked = arrow::compute::cast(&all, &width).unwrap();
            let request = RecordBatch::try_from_iter_with_nullable([("k", asked, true)]).unwrap();
            let answer = found(&table, &request, &selection);
            for (row, value) in (-300..300_i64).enumerate() {
                let there = request.column(0).is_valid(row) && keys.contains(&value);
                let expected = if there { Some(value.to_string()) } else { None };
                prop_assert_eq!(&got(&answer.columns[0])[row], &expected, "{} as {}", value, width);
            }
        }
    }
}

#[test]
fn keys_of_several_parts_do_not_run_into_each_other() {
    let set = FeatureSet::builder("set")
        .key("a", DataType::Utf8)
        .key("b", DataType::Utf8)
        .feature("n", DataType::Int64)
        .build()
        .unwrap();
    let column = |texts: [&str; 3]| Arc::new(StringArray::from_iter_values(texts)) as ArrayRef;
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let rows = RecordBatch::try_from_iter([
        ("a", column(["x", "xy", ""])),
        ("b", column(["yz", "z", "xyz"])),
        ("n", n),
    ])
    .unwrap();
    let table = MemoryTable::from_batches(set.clone(), std::slice::from_ref(&rows)).unwrap();
    let selection =
        Selection::new(&set, &[0, 1], vec![Pick { feature: 0, missing: Gap::Fail, null: Gap::Fail }])
            .unwrap();
    assert_eq!(found(&table, &rows, &selection).columns[0].as_ref(), rows.column(2).as_ref());
}
