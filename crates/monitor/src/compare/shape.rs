//! How the values of a column are distributed, for people.

use crate::{
    report::Shape,
    sketch::{Labels, Numbers},
};

/// A bin in words.
pub(super) fn interval(edges: &[f64], bin: usize) -> String {
    let edge = |at: usize| edges.get(at).copied().map(number).unwrap_or_default();
    match (bin.checked_sub(1), bin < edges.len()) {
        (None, true) => format!("below {}", edge(bin)),
        (Some(below), true) => format!("{} to {}", edge(below), edge(bin)),
        (Some(below), false) => format!("{} and more", edge(below)),
        (None, false) => "all values".to_owned(),
    }
}

/// The borders of a bin of numbers that a report names like this. It has the lower one, and not the upper one.
pub fn bin_borders(name: &str) -> Option<(f64, f64)> {
    let number = |text: &str| text.parse::<f64>().ok();
    if name == "all values" {
        return Some((f64::NEG_INFINITY, f64::INFINITY));
    }
    if let Some(border) = name.strip_prefix("below ") {
        return Some((f64::NEG_INFINITY, number(border)?));
    }
    if let Some(border) = name.strip_suffix(" and more") {
        return Some((number(border)?, f64::INFINITY));
    }
    let (from, to) = name.split_once(" to ")?;
    Some((number(from)?, number(to)?))
}

/// The shortest text that is this number and no other.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e15).contains(&magnitude) { value.to_string() } else { format!("{value:e}") }
}

/// Bins for people: 30 of equal width over what lies between the first and the last hundredth of both sides.
pub(super) fn borders(live: &Numbers, before: Option<&Numbers>) -> Vec<f64> {
    const BINS: usize = 30;
    let ends = |numbers: &Numbers| numbers.spectrum().quantile(0.01).zip(numbers.spectrum().quantile(0.99));
    let all = [Some(live), before].into_iter().flatten().filter_map(ends);
    let Some((low, high)) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Vec::new() };
    let width = (high - low) / BINS as f64;
    if !width.is_finite() || width <= 0.0 {
        return vec![low, low.next_up()];
    }
    let mut borders: Vec<f64> = (0..=BINS).map(|at| low + width * at as f64).collect();
    borders.dedup();
    borders
}

/// How numbers are distributed among these bins.
pub(super) fn histogram(numbers: &Numbers, borders: &[f64]) -> Shape {
    let mut counts = numbers.counts_in(borders);
    let (above, below) = (counts.pop().unwrap_or(0), if counts.is_empty() { 0 } else { counts.remove(0) });
    Shape::Numeric { edges: borders.to_vec(), counts, below, above }
}

/// How often the most frequent categories are.
pub(super) fn frequencies(labels: &Labels) -> Shape {
    const NAMED: usize = 20;
    let counts = labels.counts();
    let other = counts.iter().skip(NAMED).map(|(_, count)| count).sum::<u64>() + labels.rest();
    let named = counts.into_iter().take(NAMED).filter(|(_, count)| *count > 0);
    Shape::Categorical { counts: named.map(|(name, count)| (name.to_owned(), count)).collect(), other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_is_named_by_its_exact_edges() {
        let edges = [-2.5e-9, 0.0, 0.1 + 0.2, 1234.0, 1e15];
        let names: Vec<String> = (0..=edges.len()).map(|bin| interval(&edges, bin)).collect();
        assert_eq!(
            names,
            [
                "below -2.5e-9",
                "-2.5e-9 to 0",
                "0 to 0.30000000000000004",
                "0.30000000000000004 to 1234",
                "1234 to 1e15",
                "1e15 and more",
            ]
        );
        assert_eq!(interval(&[], 0), "all values");
        let borders: Vec<f64> = [&[f64::NEG_INFINITY][..], &edges, &[f64::INFINITY]].concat();
        for (name, borders) in names.iter().zip(borders.windows(2)) {
            assert_eq!(bin_borders(name), Some((borders[0], borders[1])), "{name}");
        }
        assert_eq!(bin_borders("all values"), Some((f64::NEG_INFINITY, f64::INFINITY)));
        for name in ["", "others", "below", "below us", "1", "1 to 2 to 3", "x and more"] {
            assert_eq!(bin_borders(name), None, "{name}");
        }
    }
}
