//! What is kept of a numeric column.

use serde::{Deserialize, Serialize};

use super::{Merge, Spectrum};

/// Values that are looked at together: as many as the nearest cache holds beside the counts.
const CHUNK: usize = 256;

/// Counts of a column's numbers: in the bins of a reference, outside of bounds, by magnitude, and of what is no number.
///
/// Bins are cut by ascending edges: value `v` belongs to the bin behind the last edge `e <= v`, so that the first and the last bin are
/// open. Merging is addition, and does not depend on order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// None where what was added up was counted in several sets of bins.
    bins: Option<Binned>,
    /// None where nothing was to be counted so, or within several bounds.
    outside: Option<Outside>,
    spectrum: Spectrum,
    range: Option<(f64, f64)>,
    nulls: u64,
    nans: u64,
    infinities: u64,
}

/// The values that are expected of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// None is below this.
    pub min: Option<f64>,
    /// None is above this.
    pub max: Option<f64>,
}

/// Counts in bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Binned {
    /// Says of which edges the counts are; those of others cannot be added to them.
    edges: u64,
    counts: Vec<u64>,
}

/// Finite values outside of bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Outside {
    bounds: Bounds,
    below: u64,
    above: u64,
}

impl Bounds {
    fn hold(self, least: f64, most: f64) -> bool {
        self.min.is_none_or(|min| least >= min) && self.max.is_none_or(|max| most <= max)
    }

    fn bits(self) -> [Option<u64>; 2] {
        [self.min, self.max].map(|bound| bound.map(f64::to_bits))
    }
}

impl Numbers {
    /// Nothing yet, in the bins that `edges` cut.
    pub fn new(edges: &[f64]) -> Self {
        Self::within(edges, Bounds::default())
    }

    /// Nothing yet, in the bins that `edges` cut; what lies outside of the bounds is counted, too.
    pub fn within(edges: &[f64], bounds: Bounds) -> Self {
        let bins = Some(Binned { edges: named(edges), counts: vec![0; edges.len() + 1] });
        let outside = (bounds != Bounds::default()).then_some(Outside { bounds, below: 0, above: 0 });
        Self { bins, outside, ..Self::default() }
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
        if let Some(count) = self.bins.as_mut().and_then(|bins| bins.counts.get_mut(bin)) {
            *count += 1;
        }
        if let Some(Outside { bounds, below, above }) = &mut self.outside {
            *below += u64::from(bounds.min.is_some_and(|min| value < min));
            *above += u64::from(bounds.max.is_some_and(|max| value > max));
        }
        let (least, most) = self.range.get_or_insert((value, value));
        *least = least.min(value);
        *most = most.max(value);
        self.spectrum.add(value);
    }

    /// Adds many values, which is less work for each than one by one. `edges` are those that it was made with.
    pub fn add_all(&mut self, edges: &[f64], values: &[f64]) {
        for values in values.chunks(CHUNK) {
            if values.iter().fold(true, |all, value| all & value.is_finite()) {
                self.add_finite(edges, values);
            } else {
                values.iter().for_each(|value| self.add(edges, *value));
            }
        }
    }

    fn add_finite(&mut self, edges: &[f64], values: &[f64]) {
        if let Some(bins) = &mut self.bins {
            // How many values lie from each edge on. One edge after the other, because the processor compares several values at a time.
            let mut from_here_on = values.len() as u64;
            for (count, edge) in bins.counts.iter_mut().zip(edges) {
                let behind = values.iter().map(|value| u64::from(*value >= *edge)).sum();
                *count += from_here_on - behind;
                from_here_on = behind;
            }
            if let Some(last) = bins.counts.get_mut(edges.len()) {
                *last += from_here_on;
            }
        }
        if let Some(Outside { bounds, below, above }) = &mut self.outside {
            let outside = |is: &dyn Fn(f64) -> bool| values.iter().filter(|value| is(**value)).count() as u64;
            *below += bounds.min.map_or(0, |min| outside(&|value| value < min));
            *above += bounds.max.map_or(0, |max| outside(&|value| value > max));
        }
        let (least, most) = extremes(values);
        let range = self.range.get_or_insert((least, most));
        *range = (range.0.min(least), range.1.max(most));
        self.spectrum.add_all(values);
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
        if let Some(counts) = self.exactly_in(edges) {
            return counts.to_vec();
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

    /// The same, as far as they are exact: none where values were counted in other bins.
    pub fn exactly_in(&self, edges: &[f64]) -> Option<&[u64]> {
        let bins = self.bins.as_ref().filter(|bins| bins.edges == named(edges))?;
        (bins.counts.len() == edges.len() + 1).then_some(&*bins.counts)
    }

    /// Finite values outside of these bounds, exactly; none where that is not known, because others were counted.
    pub fn outside(&self, bounds: Bounds) -> Option<u64> {
        // The range is known in any case.
        if self.range.is_none_or(|(least, most)| bounds.hold(least, most)) {
            return Some(0);
        }
        let counted = self.outside.as_ref().filter(|outside| outside.bounds == bounds);
        counted.map(|outside| outside.below + outside.above)
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
    /// Counts of two sets of bins are gone afterwards, and [`Numbers::counts_in`] estimates them; so are those of two bounds. The bins
    /// and bounds of what has no finite value do not matter.
    fn merge(&mut self, other: &Self) {
        match (self.range, other.range) {
            (Some(_), None) => {}
            (None, Some(_)) => {
                self.bins.clone_from(&other.bins);
                self.outside.clone_from(&other.outside);
            }
            (Some(_), Some(_)) => self.add_counts(other),
            // Either would do, so that it only has to be the same whichever comes first.
            (None, None) => {
                let edges = |numbers: &Self| numbers.bins.as_ref().map(|bins| bins.edges);
                if edges(other) > edges(self) {
                    self.bins.clone_from(&other.bins);
                }
                let bounds = |numbers: &Self| numbers.outside.as_ref().map(|outside| outside.bounds.bits());
                if bounds(other) > bounds(self) {
                    self.outside.clone_from(&other.outside);
                }
            }
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

impl Numbers {
    fn add_counts(&mut self, other: &Self) {
        match (&mut self.bins, &other.bins) {
            (Some(mine), Some(theirs)) if mine.edges == theirs.edges => {
                mine.counts.iter_mut().zip(&theirs.counts).for_each(|(count, more)| *count += more);
            }
            (mine, _) => *mine = None,
        }
        match (&mut self.outside, &other.outside) {
            (Some(mine), Some(theirs)) if mine.bounds == theirs.bounds => {
                mine.below += theirs.below;
                mine.above += theirs.above;
            }
            (mine, _) => *mine = None,
        }
    }
}

/// The least and the greatest of finite values, of which there is at least one. Zero has one form, the positive one.
fn extremes(values: &[f64]) -> (f64, f64) {
    // Four at a time: one would wait for the one before it.
    let mut least = [f64::INFINITY; 4];
    let mut most = [f64::NEG_INFINITY; 4];
    let mut take = |values: &[f64]| {
        for ((value, least), most) in values.iter().zip(&mut least).zip(&mut most) {
            *least = if *value < *least { *value } else { *least };
            *most = if *value > *most { *value } else { *most };
        }
    };
    let fours = values.chunks_exact(4);
    take(fours.remainder());
    fours.for_each(take);
    (
        least.into_iter().fold(f64::INFINITY, f64::min) + 0.0,
        most.into_iter().fold(f64::NEG_INFINITY, f64::max) + 0.0,
    )
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
        let mut together = Numbers::new(edges);
        together.add_all(edges, values);
        assert_eq!(together, numbers);
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

    #[test]
    fn what_is_outside_of_bounds_is_counted_exactly_or_not_at_all() {
        let bounds = |min: Option<f64>, max: Option<f64>| Bounds { min, max };
        let both = bounds(Some(10.0), Some(10.5));
        let of = |bounds: Bounds, values: &[f64]| {
            let mut numbers = Numbers::within(&[], bounds);
            numbers.add_all(&[], values);
            numbers
        };
        let values = [9.999_999, 10.0, 10.25, 10.5, 10.500_001, 300.0, f64::INFINITY];
        assert_eq!(of(both, &values).outside(both), Some(3));
        let low = bounds(Some(10.0), None);
        assert_eq!((of(low, &values).outside(low), of(low, &values).outside(both)), (Some(1), None));
        assert_eq!(of(low, &values).outside(bounds(Some(0.0), Some(300.0))), Some(0));
        assert_eq!(of(low, &[]).outside(both), Some(0));
        let cases = [
            (both, &values[..], Some(6)),
            (low, &values[..], None),
            (low, &[], Some(3)),
            (Bounds::default(), &[10.0], None),
        ];
        for (bounds, more, expected) in cases {
            for turned in [false, true] {
                let (mut left, mut right) = (of(both, &values), of(bounds, more));
                if turned {
                    std::mem::swap(&mut left, &mut right);
                }
                left.merge(&right);
                assert_eq!(left.outside(both), expected, "{bounds:?} {turned}");
            }
        }
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

        #[test]
        fn counts_of_several_sets_of_bins_add_up_to_the_same_in_any_order(
            parts in prop::collection::vec((0usize..4, prop::collection::vec(-9.0..9.0, 0..4)), 1..5),
            turn in any::<prop::sample::Index>(),
        ) {
            let edges: [&[f64]; 3] = [&[], &[0.0], &[-1.0, 0.0, 2.5]];
            let bounds = [None, Some(-1.0), Some(1.0)];
            let part = |(set, values): &(usize, Vec<f64>)| {
                let Some(edges) = edges.get(*set) else { return Numbers::default() };
                let mut numbers = Numbers::within(edges, Bounds { min: bounds[*set], max: None });
                values.iter().for_each(|value| numbers.add(edges, *value));
                numbers
            };
            let parts: Vec<Numbers> = parts.iter().map(part).collect();
            let merged = |parts: &mut dyn Iterator<Item = &Numbers>| {
                let mut merged = parts.next().unwrap().clone();
                parts.for_each(|part| merged.merge(part));
                merged
            };
            let whole = merged(&mut parts.iter());
            prop_assert_eq!(&whole, &merged(&mut parts.iter().rev()));
            let mut turned = parts.clone();
            turned.rotate_left(turn.index(parts.len()));
            prop_assert_eq!(&whole, &merged(&mut turned.iter()));
            let mut begun = Numbers::default();
            parts.iter().for_each(|part| begun.merge(part));
            prop_assert_eq!(&whole, &begun);
        }
    }
}
