use std::{fs::File, path::Path};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use millstream_graph::rows;
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use proptest::prelude::*;

use super::*;
use crate::{
    compare::{Criterion, compare},
    report::Report,
};

fn sample() -> RecordBatch {
    let amounts: Vec<f64> = (0..1000).map(f64::from).collect();
    let countries: Vec<&str> = (0..1000).map(|i| if i % 4 == 0 { "fr" } else { "de" }).collect();
    let classes: Vec<i64> = (0..1000).map(|i| i % 3).collect();
    rows! { amount: amounts, country: countries, class: classes }
}

/// Writes a Parquet file of groups of so many rows.
fn write(file: &Path, batch: &RecordBatch, group: usize) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let file = File::create(file).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_reference_is_the_same_from_memory_and_from_every_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let batch = sample();
    let path = |name: &str| folder.path().join(name);
    write(&path("train.parquet"), &batch, 1000);
    arrow::csv::Writer::new(File::create(path("train.csv")).unwrap()).write(&batch).unwrap();
    let (categorical, segments) = (["class".to_owned()], ["country".to_owned()]);
    let options = ReferenceOptions {
        categorical: &categorical,
        segments: &segments,
        most_segments: 9,
        ..Default::default()
    };
    let memory = Reference::of(&[batch.slice(0, 300), batch.slice(300, 700)], &options).unwrap();
    std::fs::write(path("train.json"), memory.to_json().unwrap()).unwrap();
    for name in ["train.parquet", "train.csv", "train.json"] {
        let read = Reference::read(&path(name), &options).unwrap();
        assert_eq!((&read.bins, &read.pane), (&memory.bins, &memory.pane), "{name}");
    }
    let Some(ReferenceColumn::Numeric { edges }) = memory.column("amount") else { panic!("numeric") };
    assert_eq!(edges[..2], [99.9, 199.8]);
    let Some(ReferenceColumn::Categorical { known }) = memory.column("class") else { panic!("categorical") };
    assert_eq!(known.len(), 3);
    let Sketch::Numbers(amounts) = &memory.pane.columns["amount"] else { panic!("numbers") };
    assert_eq!(amounts.counts_in(edges), [100; 10]);
    assert_eq!(memory.pane.segments["country"].get("fr").unwrap()["amount"].rows(), 250);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("gone.parquet", None, "gone.parquet: cannot be read"),
        ("bad.parquet", Some("no"), "bad.parquet: is no Parquet file"),
        ("bad.json", Some("{}"), "bad.json: is no statistics file"),
        ("train.xlsx", Some(""), "train.xlsx: a reference is a .parquet, .csv or .json file"),
    ];
    for (name, content, wanted) in cases {
        let file = folder.path().join(name);
        content.into_iter().for_each(|content| std::fs::write(&file, content).unwrap());
        let error = Reference::read(&file, &ReferenceOptions::default()).unwrap_err().to_string();
        assert!(error.ends_with(wanted), "{error}");
    }
}

#[test]
fn statistics_that_were_made_in_another_way_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.json");
    let (class, country) = (["class".to_owned()], ["country".to_owned()]);
    let options = |bins, categorical, segments| ReferenceOptions {
        bins,
        categorical,
        segments,
        most_segments: 9,
        threads: None,
    };
    let made = Reference::of(&[sample()], &options(BinRule::Mlrun, &class, &country)).unwrap();
    std::fs::write(&file, made.to_json().unwrap()).unwrap();
    let (amount, gone) = (["amount".to_owned()], ["gone".to_owned()]);
    type Names<'n> = &'n [String];
    let cases: [(BinRule, Names<'_>, Names<'_>, &[&str]); 6] = [
        (BinRule::Mlrun, &class, &country, &[]),
        (BinRule::Mlrun, &country, &[], &[]),
        (BinRule::default(), &[], &[], &["has MLRun's bins, and 10 bins of equal parts are asked for"]),
        (BinRule::Doane, &[], &class, &["NannyML's bins are asked for", "has no segments by column `class`"]),
        (BinRule::Mlrun, &amount, &[], &["has no categories of column `amount`"]),
        (
            BinRule::Mlrun,
            &gone,
            &gone,
            &["has no categories of column `gone`", "has no segments by column `gone`"],
        ),
    ];
    for (bins, categorical, segments, wanted) in cases {
        match Reference::read(&file, &options(bins, categorical, segments)) {
            Ok(_) => assert!(wanted.is_empty(), "{wanted:?}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!wanted.is_empty() && wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
            }
        }
    }
}

#[test]
fn a_column_of_nothing_or_of_one_value_has_bins_all_the_same() {
    let batch = rows! { none: [None::<f64>, None], same: [7.0, 7.0], nan: [f64::NAN, f64::NAN] };
    for rule in [BinRule::Quantiles(10), BinRule::Mlrun, BinRule::Doane] {
        let options = ReferenceOptions { bins: rule, ..ReferenceOptions::default() };
        let reference = Reference::of(std::slice::from_ref(&batch), &options).unwrap();
        assert_eq!(reference.rows(), 2);
    }
}

type Row = (Option<f64>, Option<i64>, Option<u16>, bool);

fn row() -> impl Strategy<Value = Row> {
    let number = prop_oneof![
        8 => -9.0..9.0,
        2 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(-0.0)
    ];
    (
        prop::option::weighted(0.9, number),
        prop::option::weighted(0.9, -5i64..5),
        // More than are kept by name.
        prop::option::weighted(0.9, 0u16..700),
        any::<bool>(),
    )
}

/// So many rows, these again and again, with columns of every kind.
fn table(rows: &[Row], count: usize) -> RecordBatch {
    let rows: Vec<&Row> = rows.iter().cycle().take(count).collect();
    let name = |row: &&Row| row.2.map(|name| format!("name{name}"));
    let time = |row: &&Row| row.1.map(|number| number * 1_000_000);
    let columns: [(&str, ArrayRef); 7] = [
        ("amount", Arc::new(rows.iter().map(|row| row.0).collect::<Float64Array>())),
        ("count", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
        ("class", Arc::new(rows.iter().map(|row| row.1.map(i64::abs)).collect::<Int64Array>())),
        ("name", Arc::new(rows.iter().map(name).collect::<StringArray>())),
        ("flag", Arc::new(rows.iter().map(|row| Some(row.3)).collect::<BooleanArray>())),
        ("time", Arc::new(rows.iter().map(time).collect::<TimestampMicrosecondArray>())),
        ("bytes", Arc::new(rows.iter().map(|row| row.3.then_some(b"x")).collect::<BinaryArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_file_counts_the_same_on_any_number_of_threads_and_as_its_rows_one_after_the_other(
        (rows, live) in (prop::collection::vec(row(), 1..300), prop::collection::vec(row(), 1..300)),
        (size, group) in (0usize..2000, 1usize..700),
        rule in prop_oneof![Just(BinRule::default()), Just(BinRule::Mlrun), Just(BinRule::Quantiles(100))],
        is_divided in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let [train, now] = ["train.parquet", "live.parquet"].map(|name| folder.path().join(name));
        // Bins of equal width are refused where their edges cannot be told apart.
        let is_bounded = |row: &Row| row.0.is_none_or(|number| !number.is_finite() || number.abs() < 9.0);
        let rows: Vec<Row> = rows.into_iter().filter(is_bounded).collect();
        write(&train, &table(&rows, size), group);
        write(&now, &table(&live, 500), group);
        let (class, name) = (["class".to_owned()], ["name".to_owned()]);
        let segments: &[String] = if is_divided { &name } else { &[] };
        let mut first: Option<(Reference, EdgePane, String)> = None;
        for threads in [1, 2, 7] {
            let options = ReferenceOptions {
                bins: rule,
                categorical: &class,
                segments,
                most_segments: 5,
                threads: NonZeroUsize::new(threads),
            };
            let reference = Reference::read(&train, &options).unwrap();
            let counted = reference.count(&now, &options).unwrap();
            for (edge, file, pane) in [("reference", &train, &reference.pane), ("live", &now, &counted)] {
                let file = Rows::of_file(file).unwrap();
                let layout = reference.layout(edge, &file.schema(), &options).unwrap();
                let whole = count(&layout, file.read(None, 0..file.parts()).unwrap()).unwrap();
                prop_assert_eq!(pane, &whole);
            }
            let edges = compare(&[("rows", &counted, Some(&reference), Criterion::default())]);
            let report = Report { edges, ..Report::default() }.to_json().unwrap();
            match &first {
                None => first = Some((reference, counted, report)),
                Some(first) => prop_assert_eq!(first, &(reference, counted, report)),
            }
        }
    }
}
