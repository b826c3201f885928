//! What the features of a set look like, for programs and for people.

use arrow::datatypes::Field;
use millstream_featurestore::{Distinct, Profile, ProfileError, StoredSet};
use millstream_graph::spec::type_text;
use serde_json::{Map, Value, json};

/// Every feature of a set that has values in rows: all but its windows.
pub(crate) fn profiles(set: &StoredSet) -> Result<Vec<Profile>, ProfileError> {
    let table = set.table();
    (0..set.set().own_features().len()).map(|feature| table.profile(feature)).collect()
}

/// Each feature in full.
pub(crate) fn told(profiles: &[Profile]) -> Value {
    profiles.iter().map(one).collect()
}

fn one(profile: &Profile) -> Value {
    let (distinct, exact) = match profile.distinct {
        Distinct::Exactly(count) => (count, true),
        Distinct::MoreThan(count) => (count, false),
    };
    let frequent = profile.frequent.iter().map(|(value, count)| json!({ "value": value, "count": count }));
    let mut told = json!({
        "name": profile.feature.name,
        "type": type_of(profile),
        "count": profile.count,
        "nulls": profile.nulls,
        "distinct": distinct,
        "distinct_is_exact": exact,
        "most_frequent": frequent.collect::<Vec<_>>(),
    });
    if let Some(numbers) = &profile.numbers {
        let statistics = &numbers.statistics;
        told["not_finite"] = statistics.not_finite.into();
        for (name, value) in [
            ("min", statistics.min),
            ("max", statistics.max),
            ("mean", statistics.mean),
            ("std", statistics.std),
        ] {
            told[name] = value.into();
        }
        let quantiles = numbers.quantiles.iter().map(|(at, value)| (at.to_string(), Value::from(*value)));
        told["quantiles"] = quantiles.collect::<Map<_, _>>().into();
        told["histogram"] = json!({ "edges": numbers.histogram.edges, "counts": numbers.histogram.counts });
    }
    told
}

fn type_of(profile: &Profile) -> String {
    type_text(&Field::new(&profile.feature.name, profile.feature.data_type.clone(), true))
}

/// The columns of the table, and whether each is of numbers.
const COLUMNS: [(&str, bool); 11] = [
    ("feature", false),
    ("type", false),
    ("count", true),
    ("nulls", true),
    ("distinct", true),
    ("min", true),
    ("median", true),
    ("max", true),
    ("mean", true),
    ("std", true),
    ("values", false),
];
/// The most frequent values that a line has, and letters of each.
const SHOWN: usize = 3;
const LETTERS: usize = 24;

/// A line for each feature: of numbers with a histogram, of others with the most frequent values.
pub(crate) fn table(profiles: &[Profile]) -> String {
    if profiles.is_empty() {
        return "  no feature but windows, which have a value at a time".to_owned();
    }
    let head = COLUMNS.map(|(name, _)| name.to_owned());
    let lines: Vec<_> = std::iter::once(head).chain(profiles.iter().map(line)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let padded = |line: &[String; COLUMNS.len()]| {
        let cells = line.iter().zip(COLUMNS).zip(&widths).map(|((cell, (_, number)), &width)| match number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(padded).collect::<Vec<_>>().join("\n")
}

fn line(profile: &Profile) -> [String; COLUMNS.len()] {
    let numbers = profile.numbers.as_ref();
    let number = |value: Option<f64>| value.map_or_else(String::new, short);
    let statistics = |value: fn(&millstream_featurestore::Statistics) -> Option<f64>| {
        number(numbers.and_then(|numbers| value(&numbers.statistics)))
    };
    [
        profile.feature.name.clone(),
        type_of(profile),
        profile.count.to_string(),
        profile.nulls.to_string(),
        match profile.distinct {
            Distinct::Exactly(count) => count.to_string(),
            Distinct::MoreThan(count) => format!(">{count}"),
        },
        statistics(|of| of.min),
        number(numbers.and_then(|numbers| numbers.median())),
        statistics(|of| of.max),
        statistics(|of| of.mean),
        statistics(|of| of.std),
        match numbers {
            Some(numbers) => bars(&numbers.histogram.counts),
            None => frequent(profile),
        },
    ]
}

fn frequent(profile: &Profile) -> String {
    let value = |(value, count): &(Value, u64)| {
        let text = value.to_string();
        let cut: String = text.chars().take(LETTERS).collect();
        let more = if cut.len() < text.len() { "…" } else { "" };
        format!("{cut}{more} {count}")
    };
    profile.frequent.iter().take(SHOWN).map(value).collect::<Vec<_>>().join(", ")
}

/// One letter for each bin, as high as it has values; none for an empty one.
fn bars(counts: &[u64]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    counts.iter().map(|&count| BARS[(count as f64 / most * 8.0).ceil().min(8.0) as usize]).collect()
}

/// A number in six digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e9).contains(&size) {
        return format!("{value:.3e}");
    }
    let before = if size < 1.0 { 0.0 } else { size.log10().floor() };
    let text = format!("{value:.*}", (5.0 - before).max(0.0) as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use expect_test::expect;
    use millstream_featurestore::{FeatureSet, MemoryTable};
    use millstream_graph::rows;
    use std::sync::Arc;

    use super::*;

    fn found() -> Vec<Profile> {
        let set = FeatureSet::builder("cards")
            .key("id", DataType::Int64)
            .feature("amount", DataType::Float64)
            .feature("tier", DataType::Utf8)
            .feature("known", DataType::Boolean)
            .feature("units", DataType::Int64)
            .build()
            .unwrap();
        let rows = rows! {
            id: [1_i64, 2, 3, 4, 5],
            amount: [Some(0.5), Some(1.5), Some(1e12), None, Some(f64::NAN)],
            tier: [Some("gold"), Some("a\nname that goes on and on"), Some("gold"), None, None],
            known: [true, false, true, true, true],
            units: [None::<i64>, None, None, None, None],
        };
        profiles(&StoredSet::Loaded(Arc::new(MemoryTable::from_batches(set, &[rows]).unwrap()))).unwrap()
    }

    #[test]
    fn people_see_a_line_for_each_feature() {
        expect![[r#"
            cards
              feature  type      count  nulls  distinct  min  median       max      mean       std  values
              amount   float64?      4      1         3  0.5     1.5  1.000e12  3.333e11  5.774e11  █                  ▄
              tier     string?       3      2         2                                             "gold" 2, "a\nname that goes on an… 1
              known    bool?         5      0         2                                             true 4, false 1
              units    int64?        0      5         0"#]]
        .assert_eq(&format!("cards\n{}", table(&found())));
        assert_eq!(table(&[]), "  no feature but windows, which have a value at a time");
    }

    #[test]
    fn programs_see_all_there_is() {
        let told = told(&found());
        assert_eq!(told[0]["quantiles"]["0.5"], 1.5);
        assert_eq!(told[0]["not_finite"], 1);
        assert_eq!(told[0]["histogram"]["counts"][0], 2);
        assert_eq!(told[1]["most_frequent"][0], json!({ "value": "gold", "count": 2 }));
        assert_eq!((&told[1]["distinct"], &told[1]["distinct_is_exact"]), (&json!(2), &json!(true)));
        assert_eq!(told[2]["most_frequent"][1], json!({ "value": false, "count": 1 }));
        assert_eq!((&told[3]["mean"], &told[3]["quantiles"]), (&Value::Null, &json!({})));
    }

    #[test]
    fn numbers_have_six_digits() {
        let cases = [
            (0.0, "0"),
            (-1.5, "-1.5"),
            (1.0 / 3.0, "0.33333"),
            (123_456.789, "123457"),
            (1e9, "1.000e9"),
            (-2e-7, "-2.000e-7"),
            (100.0, "100"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
    }
}
