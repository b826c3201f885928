//! What is kept of a numeric column.

use serde::{Deserialize, Serialize};

use super::{Merge, Spectrum};

/// Counts of a column's numbers: in the bins of a reference, by magnitude, and of what is no number.
///
/// Bins are cut by ascending edges: value `v` belongs to the bin behind the last edge `e <= v`, so that the first and the last bin are
/// open. Merging is addition, and does not depend on order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Says of which edges the counts are; those of others cannot be added to them.
    bins: u64,
    counts: Vec<u64>,
    spectrum: Spectrum,
    range: Option<(f64, f64)>,
    nulls: u64,
    nans: u64,
    infinities: u64,
}

impl Numbers {
    /// Nothing yet, in the bins that `edges` cut.
    pub fn new(edges: &[f64]) -> Self {
        Self { bins: named(edges), counts: vec![0; edges.len() + 1], ..Self::default() }
    }

    /// Adds a value. `edges` are those that it was made with.
    #[inline]
    pub fn add(&mut self, edges: &[f64], value: f64) {
        if !value.is_finite() {
            return self.add_strange(value);
        }
        // So that a least value of zero has one form.
        let value = value + 0.0;
        // Without branches: a column has few edges, and where a value lies among them cannot be foretold.
        let bin: usize = edges.iter().map(|edge| usize::from(*edge <= value)).sum();
        if let Some(count) = self.counts.get_mut(bin) {
            *count += 1;
        }
        let (least, most) = self.range.get_or_insert((value, value));
        *least = least.min(value);
        *most = most.max(value);
        self.spectrum.add(value);
    }

    #[cold]
    fn add_strange(&mut self, value: f64) {
        if value.is_nan() {
            self.nans += 1;
        } else {
            self.infinities += 1;
        }
    }

    /// Adds rows without a value.
    pub fn add_nulls(&mut self, nulls: u64) {
        self.nulls += nulls;
    }

    /// Finite values in each bin that `edges` cut: exact for those that it was made with, else by the buckets of the spectrum.
    pub fn counts_in(&self, edges: &[f64]) -> Vec<u64> {
        if self.bins == named(edges) && self.counts.len() == edges.len() + 1 {
            return self.counts.clone();
        }
        // Rounded at the edges, so that the whole stays whole.
        let mut below = 0.0;
        let mut counted = 0;
        let parts = self.spectrum.rebin(edges);
        let rounded = parts.iter().map(|part| {
            below += part;
            let upto = below.round() as u64;
            let count = upto.saturating_sub(counted);
            counted = upto;
            count
        });
        rounded.collect()
    }

    /// The values by magnitude.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// Finite values.
    pub fn values(&self) -> u64 {
        self.spectrum.count()
    }

    /// Rows, with or without a value.
    pub fn rows(&self) -> u64 {
        self.values() + self.nulls + self.nans + self.infinities
    }

    /// Rows without a value.
    pub fn nulls(&self) -> u64 {
        self.nulls
    }

    /// Values that are not a number.
    pub fn nans(&self) -> u64 {
        self.nans
    }

    /// Values that are infinite.
    pub fn infinities(&self) -> u64 {
        self.infinities
    }

    /// The least and the greatest finite value.
    pub fn range(&self) -> Option<(f64, f64)> {
        self.range
    }
}

impl Merge for Numbers {
    /// Counts of other bins than its own are gone afterwards, and [`Numbers::counts_in`] estimates them.
    fn merge(&mut self, other: &Self) {
        if self.bins == other.bins {
            self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        } else {
            self.bins = named(&[]);
            self.counts.clear();
        }
        self.spectrum.merge(&other.spectrum);
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
        self.nulls += other.nulls;
        self.nans += other.nans;
        self.infinities += other.infinities;
    }
}

/// The name of a set of edges.
fn named(edges: &[f64]) -> u64 {
    let bytes: Vec<u8> = edges.iter().flat_map(|edge| edge.to_bits().to_le_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(edges: &[f64], values: &[f64]) -> Numbers {
        let mut numbers = Numbers::new(edges);
        values.iter().for_each(|value| numbers.add(edges, *value));
        numbers
    }

    #[test]
    fn a_value_at_an_edge_belongs_above_it() {
        let edges = [0.0, 1.0];
        let cases: [(&[f64], [u64; 3]); 4] = [
            (&[-0.5, 0.0, 0.5, 1.0, 2.0], [1, 2, 2]),
            (&[-0.0], [0, 1, 0]),
            (&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY], [0, 0, 0]),
            (&[], [0, 0, 0]),
        ];
        for (values, counts) in cases {
            assert_eq!(of(&edges, values).counts_in(&edges), counts, "{values:?}");
        }
    }

    #[test]
    fn what_is_no_number_takes_nothing_from_the_rest() {
        let mut numbers = of(&[2.0], &[1.0, f64::NAN, 3.0, f64::INFINITY]);
        numbers.add_nulls(2);
        assert_eq!((numbers.rows(), numbers.values(), numbers.nulls()), (6, 2, 2));
        assert_eq!((numbers.nans(), numbers.infinities()), (1, 1));
        assert_eq!((numbers.counts_in(&[2.0]), numbers.range()), (vec![1, 1], Some((1.0, 3.0))));
    }

    #[test]
    fn counts_of_other_bins_are_estimated_and_stay_whole() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let mut numbers = of(&[500.0], &values);
        assert_eq!(numbers.counts_in(&[500.0]), [500, 500]);
        let estimated = numbers.counts_in(&[100.0, 900.0]);
        assert_eq!(estimated.iter().sum::<u64>(), 1000);
        assert!(estimated[0].abs_diff(100) <= 4 && estimated[2].abs_diff(100) <= 16, "{estimated:?}");
        numbers.merge(&of(&[250.0], &[1.0]));
        assert_eq!(numbers.counts_in(&[500.0]).iter().sum::<u64>(), 1001);
    }

    proptest! {
        #[test]
        fn parts_merged_are_the_whole_to_the_bit(
            values in prop::collection::vec(prop_oneof![any::<f64>(), -9.0..9.0], 0..100),
            at in any::<prop::sample::Index>(),
        ) {
            let edges = [-1.0, 0.0, 2.5];
            let (left, right) = values.split_at(at.index(values.len() + 1));
            let (mut merged, mut turned) = (of(&edges, left), of(&edges, right));
            merged.merge(&of(&edges, right));
            turned.merge(&of(&edges, left));
            prop_assert_eq!(&merged, &of(&edges, &values));
            prop_assert_eq!(&merged, &turned);
        }
    }
}
