//! What is kept of a categorical column.

use serde::{Deserialize, Serialize};

use super::{Kept, Merge};

/// Categories that a column keeps by name beside those of its reference.
pub const KEPT: usize = 256;

/// Counts of a column's categories: exact for those of the reference and [`KEPT`] others, of which [`Kept`] says which they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    counts: Kept<u64>,
    nulls: u64,
}

impl Labels {
    /// Nothing yet; `known` are the categories of the reference.
    pub fn new<'k>(known: impl IntoIterator<Item = &'k str>) -> Self {
        Self { counts: Kept::new(known, KEPT), nulls: 0 }
    }

    /// Adds a row of this category.
    #[inline]
    pub fn add(&mut self, label: &str) {
        self.add_many(label, 1);
    }

    /// Adds rows of this category.
    #[inline]
    pub fn add_many(&mut self, label: &str, rows: u64) {
        self.counts.count(label, || 0, |count| *count += rows);
    }

    /// Adds a row of this category if it is seen at once that it is none of those that are kept.
    #[inline]
    pub(crate) fn add_rest(&mut self, label: &str) -> bool {
        self.counts.count_rest(label, || 0, |count| *count += 1)
    }

    /// Adds rows without a category.
    pub fn add_nulls(&mut self, nulls: u64) {
        self.nulls += nulls;
    }

    /// The categories that are kept and their rows, most frequent first; those of the reference also when they have none.
    pub fn counts(&self) -> Vec<(&str, u64)> {
        let occurred = self.counts.iter().map(|(label, count, _)| (label, *count));
        let mut counts: Vec<_> = occurred.chain(self.counts.absent().map(|label| (label, 0))).collect();
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        counts
    }

    /// Rows of a category that is kept.
    pub fn count_of(&self, label: &str) -> u64 {
        self.counts.get(label).copied().unwrap_or(0)
    }

    /// Whether it is known how many rows a category has.
    pub fn tells(&self, label: &str) -> bool {
        self.counts.tells(label)
    }

    /// Rows of categories that are not kept.
    pub fn rest(&self) -> u64 {
        self.counts.rest().copied().unwrap_or(0)
    }

    /// Rows of categories that the reference does not have.
    pub fn unseen(&self) -> u64 {
        let others = self.counts.iter().filter(|(_, _, known)| !known);
        others.map(|(_, count, _)| *count).sum::<u64>() + self.rest()
    }

    /// Rows of categories other than these, whichever the reference has.
    pub fn beyond(&self, categories: &[String]) -> u64 {
        let within: u64 = categories.iter().map(|label| self.count_of(label)).sum();
        self.values().saturating_sub(within)
    }

    /// Rows with a category.
    pub fn values(&self) -> u64 {
        self.counts.iter().map(|(_, count, _)| *count).sum::<u64>() + self.rest()
    }

    /// Rows without one.
    pub fn nulls(&self) -> u64 {
        self.nulls
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.values() + self.nulls
    }

    /// How many categories occurred: exact up to [`KEPT`] beside those of the reference, then estimated, off by about 6 %.
    pub fn distinct(&self) -> u64 {
        let occurred = |known: bool| {
            self.counts.iter().filter(move |(_, count, of)| *of == known && **count > 0).count()
        };
        occurred(true) as u64 + self.counts.distinct_others(occurred(false))
    }
}

impl Merge for Labels {
    fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.nulls += other.nulls;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sketch::NAME_BYTES;

    fn of<'a>(known: &[&str], labels: impl IntoIterator<Item = &'a str>) -> Labels {
        let mut made = Labels::new(known.iter().copied());
        labels.into_iter().for_each(|label| made.add(label));
        made
    }

    #[test]
    fn categories_are_counted_beside_those_of_the_reference() {
        let mut labels = of(&["a", "b"], ["b", "c", "b", "c", "d"]);
        labels.add_nulls(3);
        assert_eq!(labels.counts(), [("b", 2), ("c", 2), ("d", 1), ("a", 0)]);
        assert_eq!((labels.unseen(), labels.values(), labels.rows(), labels.distinct()), (3, 5, 8, 3));
        let categories = ["a", "b", "d"].map(str::to_owned);
        assert_eq!((labels.beyond(&categories), labels.beyond(&[])), (2, 5));
    }

    #[test]
    fn what_is_not_kept_is_counted_together_and_the_number_of_categories_is_estimated() {
        let names: Vec<String> = (0..20_000).map(|i| format!("name{i}")).collect();
        let labels = of(&["name7"], names.iter().map(String::as_str));
        assert_eq!((labels.rows(), labels.count_of("name7")), (20_000, 1));
        assert_eq!(labels.counts().len(), KEPT + 1);
        assert!(labels.distinct().abs_diff(20_000) < 3_000, "{}", labels.distinct());
    }

    #[test]
    fn a_long_name_is_kept_by_its_beginning_and_a_digest() {
        let (long, other) = ("é".repeat(500), format!("{}x", "é".repeat(500)));
        let labels = of(&[], [&*long, &*other, &*long]);
        let counts = labels.counts();
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
        assert!(counts.iter().all(|(name, _)| name.len() <= NAME_BYTES && name.starts_with('é')));
    }

    proptest! {
        #[test]
        fn parts_merged_in_any_order_are_the_whole(
            rows in prop::collection::vec(0u32..900, 0..1500),
            at in any::<prop::sample::Index>(),
        ) {
            let names: Vec<String> = rows.iter().map(|row| row.to_string()).collect();
            let (left, right) = names.split_at(at.index(names.len() + 1));
            let part = |names: &[String]| of(&["3", "4"], names.iter().map(String::as_str));
            let (mut merged, mut turned) = (part(left), part(right));
            merged.merge(&part(right));
            turned.merge(&part(left));
            prop_assert_eq!(&merged, &part(&names));
            prop_assert_eq!(&merged, &turned);
            let bytes = serde_json::to_vec(&merged).unwrap();
            let read: Labels = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&read, &merged);
        }
    }
}
