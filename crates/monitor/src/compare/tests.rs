use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_graph::rows;

use super::*;
use crate::{
    BinRule, Layout, ReferenceOptions, Watching, counting::Counting, report::Measure, sketch::Merge,
};

/// Numbers that look drawn and are the same each time.
fn drawn(seed: u64, rows: usize) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 20
    })
    .take(rows)
}

fn named_by(seed: u64, rows: usize, categories: u64) -> RecordBatch {
    let names: Vec<String> = drawn(seed, rows).map(|number| format!("c{}", number % categories)).collect();
    rows! { name: names }
}

fn reference_of(batch: &RecordBatch, segments: &[String]) -> Reference {
    let options = ReferenceOptions { segments, most_segments: 9, ..ReferenceOptions::default() };
    Reference::of(std::slice::from_ref(batch), &options).unwrap()
}

fn live_of(batch: &RecordBatch, reference: &Reference, segments: &[String]) -> EdgePane {
    let watching = Watching { segments, most_segments: 9, reference: Some(reference), ..Watching::default() };
    let layout = Arc::new(Layout::new("input", &batch.schema(), &watching).unwrap());
    let mut counting = Counting::new(&layout);
    counting.add(batch);
    counting.take().unwrap().1
}

fn compared(live: &EdgePane, reference: &Reference, criterion: Criterion) -> Vec<ColumnReport> {
    compare(&[("input", live, Some(reference), criterion)]).remove(0).columns
}

#[test]
fn columns_of_very_many_categories_have_not_drifted_when_they_have_not() {
    for (categories, rows) in [(2000, 400), (2000, 5000), (300, 400), (40, 2000)] {
        let reference = reference_of(&named_by(1, 100_000, categories), &[]);
        let live = live_of(&named_by(2, rows, categories), &reference, &[]);
        let report = compared(&live, &reference, Criterion::default()).remove(0);
        assert_eq!(report.drifted, Some(false), "{categories} {:?}", report.measures);
        // Of a reference that did not keep all of its categories, nothing outside is known to be new.
        assert_eq!(report.unseen, 0);
        let unseen = reference.unseen("name", &live.columns["name"]);
        assert_eq!((unseen.is_some(), report.note.is_none()), (categories <= 256, categories <= 256));
    }
}

#[test]
fn columns_of_very_many_categories_have_drifted_when_they_have() {
    let reference = reference_of(&named_by(1, 100_000, 2000), &[]);
    let live = live_of(&named_by(2, 5000, 200), &reference, &[]);
    assert_eq!(compared(&live, &reference, Criterion::default())[0].drifted, Some(true));
}

#[test]
fn new_categories_are_named_where_the_reference_has_kept_all_of_its_own() {
    let reference = reference_of(&named_by(1, 10_000, 10), &[]);
    let mut names: Vec<String> = drawn(2, 900).map(|number| format!("c{}", number % 10)).collect();
    names.extend(std::iter::repeat_n("late".to_owned(), 400));
    names.extend((0..300).map(|number| format!("rare{number}")));
    let live = live_of(&rows! { name: names }, &reference, &[]);
    let report = compared(&live, &reference, Criterion::default()).remove(0);
    assert_eq!((report.unseen, report.drifted, report.note), (700, Some(true), None));
    let shifted: Vec<(&str, f64)> =
        report.shifted.iter().map(|bin| (bin.bin.as_str(), bin.reference)).collect();
    assert_eq!(shifted[..2], [("late", 0.0), ("others", 0.0)]);
    let share: f64 = report.shifted[..2].iter().map(|bin| bin.live).sum();
    assert!((0.4..=700.0 / 1600.0).contains(&share), "{share}");
}

#[test]
fn a_segment_is_set_beside_the_same_segment_of_the_reference() {
    let segments = ["country".to_owned()];
    let rows = |shift: f64| {
        let countries: Vec<&str> = (0..2000).map(|at| if at % 2 == 0 { "de" } else { "fr" }).collect();
        let values = drawn(3, 2000).zip(0..).map(|(number, at)| {
            let base = (number % 1000) as f64;
            if at % 2 == 0 { base } else { base * 9.0 + shift }
        });
        rows! { country: countries, amount: values.collect::<Vec<f64>>() }
    };
    let reference = reference_of(&rows(0.0), &segments);
    let live = live_of(&rows(5000.0), &reference, &segments);
    let columns = compared(&live, &reference, Criterion::default());
    let amount = columns.iter().find(|column| column.column == "amount").unwrap();
    let drifted: Vec<(&str, Option<bool>)> =
        amount.segments.iter().map(|segment| (segment.segment.as_str(), segment.drifted)).collect();
    assert_eq!(drifted, [("country = de", Some(false)), ("country = fr", Some(true))]);
    assert_eq!(
        leading("amount", &live.columns["amount"], &reference, &Criterion::default()),
        Some(amount.measures[0].value)
    );
}

#[test]
fn columns_that_are_not_tested_take_nothing_from_those_that_are() {
    let judged = |untested: usize| {
        let column = |p_value| ColumnReport {
            measures: vec![Measure { value: 1.0, p_value, ..Measure::default() }],
            ..ColumnReport::default()
        };
        let columns =
            [Some(0.04), Some(0.01)].into_iter().chain(std::iter::repeat_n(None, untested)).map(column);
        let columns = columns.rev().collect();
        let mut reports = [EdgeReport { edge: "input".to_owned(), columns, ..EdgeReport::default() }];
        judge(&mut reports, &[("input", Criterion::default())].into_iter().collect());
        let mut drifted: Vec<Option<bool>> = reports[0].columns.iter().map(|column| column.drifted).collect();
        drifted.split_off(untested)
    };
    for untested in [0, 1, 100] {
        assert_eq!(judged(untested), [Some(true), Some(true)], "{untested}");
    }
}

#[test]
fn what_was_counted_without_a_reference_is_compared_with_a_past_pane_by_magnitude_and_by_name() {
    let counted = |seed: u64, scale: f64, categories: u64| {
        let amounts: Vec<f64> = drawn(seed, 5000).map(|number| (number % 1000) as f64 * scale).collect();
        let names: Vec<String> =
            drawn(seed, 5000).map(|number| format!("c{}", number / 1000 % categories)).collect();
        let batch = rows! { amount: amounts, name: names };
        let layout = Arc::new(Layout::new("input", &batch.schema(), &Watching::default()).unwrap());
        let mut counting = Counting::new(&layout);
        counting.add(&batch);
        counting.take().unwrap().1
    };
    // With more categories than are kept, the two sides keep different ones.
    let cases = [
        (counted(1, 1.0, 40), counted(2, 1.0, 40), [false, false]),
        (counted(1, 1.0, 40), counted(2, 1.5, 40), [true, false]),
        (counted(1, 1.0, 40), counted(2, 1.0, 20), [false, true]),
        (counted(1, 1.0, 250), counted(2, 1.0, 250), [false, false]),
        (counted(1, 1.0, 1500), counted(2, 1.0, 1500), [false, false]),
    ];
    for (at, (before, live, expected)) in cases.into_iter().enumerate() {
        let reference = Reference::of_pane("before", before, BinRule::default());
        let columns = compared(&live, &reference, Criterion::default());
        let drifted: Vec<Option<bool>> = columns.iter().map(|column| column.drifted).collect();
        assert_eq!(drifted, expected.map(Some), "case {at}");
    }
}

/// What was counted before and after a reference came, in one window.
fn before_and_after(batches: [&RecordBatch; 2], reference: &Reference, segments: &[String]) -> EdgePane {
    let watching = Watching { segments, most_segments: 9, ..Watching::default() };
    let layout = Arc::new(Layout::new("input", &batches[0].schema(), &watching).unwrap());
    let mut counting = Counting::new(&layout);
    counting.add(batches[0]);
    let mut whole = counting.take().unwrap().1;
    whole.merge(&live_of(batches[1], reference, segments));
    whole
}

#[test]
fn what_was_counted_before_the_reference_came_is_no_drift_by_itself() {
    let tenths = |seed: u64| -> RecordBatch {
        rows! { x: drawn(seed, 3000).map(|number| (number % 7) as f64 / 10.0).collect::<Vec<f64>>() }
    };
    let spread = |seed: u64, by: f64| -> RecordBatch {
        rows! { x: drawn(seed, 3000).map(|number| (number % 9973) as f64 * by).collect::<Vec<f64>>() }
    };
    let near = |seed: u64| -> RecordBatch {
        rows! { x: drawn(seed, 3000).map(|number| 1e6 + (number % 997) as f64 / 1e3).collect::<Vec<f64>>() }
    };
    let pairs = |seed: u64| -> RecordBatch {
        rows! { x: drawn(seed, 3000).map(|number| (number % 2) as f64 / 5.0 + 0.1).collect::<Vec<f64>>() }
    };
    let many = |seed: u64| named_by(seed, 3000, 400);
    let all = || named_by(1, 100_000, 400);
    // The reference, what came before it and after it, and whether that has drifted, if anything can be said.
    let cases = [
        ([tenths(1), tenths(2), tenths(3)], Some(false)),
        ([pairs(1), pairs(2), pairs(3)], Some(false)),
        ([spread(1, 0.1), spread(2, 0.1), spread(3, 0.1)], Some(false)),
        ([spread(1, 0.1), spread(2, 0.1), spread(3, 0.05)], Some(true)),
        ([near(1), near(2), near(3)], None),
        ([all(), many(2), many(3)], Some(false)),
        ([all(), many(2), named_by(3, 3000, 80)], Some(true)),
        ([named_by(1, 3000, 20), named_by(2, 3000, 20), named_by(3, 3000, 20)], Some(false)),
    ];
    for (at, ([of, before, after], expected)) in cases.iter().enumerate() {
        let reference = reference_of(of, &[]);
        let live = before_and_after([before, after], &reference, &[]);
        let report = compared(&live, &reference, Criterion::default()).remove(0);
        assert_eq!((report.drifted, report.rows), (*expected, 6000), "{at}: {:?}", report.measures);
        assert_eq!(
            report.drifted.is_none(),
            report.note.is_some_and(|note| note.contains("left the window"))
        );
        // Behind the window there is nothing in the way.
        let alone = live_of(after, &reference, &[]);
        assert!(compared(&alone, &reference, Criterion::default())[0].drifted.is_some(), "{at}");
    }
}

#[test]
fn segments_that_were_among_others_before_the_reference_came_are_no_drift_of_these() {
    let segments = ["name".to_owned()];
    let batch = |seed: u64| -> RecordBatch {
        let numbers: Vec<u64> = drawn(seed, 20_000).map(|number| number % 60).collect();
        let names: Vec<String> = numbers.iter().map(|number| format!("c{number}")).collect();
        // Each has amounts of its own.
        let amounts: Vec<f64> =
            drawn(seed + 100, 20_000).zip(&numbers).map(|(a, of)| (a % 100 + of * 50) as f64).collect();
        rows! { name: names, amount: amounts }
    };
    let reference = reference_of(&batch(1), &segments);
    let live = before_and_after([&batch(2), &batch(3)], &reference, &segments);
    for column in compared(&live, &reference, Criterion::default()) {
        assert_ne!(column.drifted, Some(true), "{}", column.column);
        for segment in column.segments {
            assert_ne!(segment.drifted, Some(true), "{} {}", column.column, segment.segment);
        }
    }
}
