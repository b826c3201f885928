//! Quantiles and histograms, as NumPy has them.

use super::Profile;
use crate::{Statistics, statistics};

/// What the values of a numeric feature look like, as 64-bit floats. Values that are not finite are left out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Numbers {
    /// Counts, extremes, mean and spread.
    pub statistics: Statistics,
    /// The values at [`Profile::QUANTILES`], between two values by linear interpolation; empty without values.
    pub quantiles: Vec<(f64, f64)>,
    /// How values are spread.
    pub histogram: Histogram,
}

/// How many values lie in each of [`Profile::BINS`] bins of equal width between the smallest and the largest value. A bin has its
/// lower edge, and the last one its upper edge too.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// The edges of the bins, one more than there are bins; empty without values.
    pub edges: Vec<f64>,
    /// The values in each bin.
    pub counts: Vec<u64>,
}

impl Numbers {
    /// Of finite values in ascending order.
    pub(super) fn of(sorted: &[f64], nulls: u64, not_finite: u64) -> Self {
        let statistics = statistics::of(sorted.iter().map(|&value| Some(value)));
        let quantile = |at: f64| Some((at, quantile(sorted, at)?));
        Self {
            statistics: Statistics { nulls, not_finite, ..statistics },
            quantiles: Profile::QUANTILES.into_iter().filter_map(quantile).collect(),
            histogram: histogram(sorted),
        }
    }

    /// The value in the middle; `None` without values.
    pub fn median(&self) -> Option<f64> {
        self.quantiles.iter().find(|(at, _)| *at == 0.5).map(|(_, value)| *value)
    }
}

/// `numpy.quantile`, method `linear`.
fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? as f64 * at;
    let below = place.floor();
    let (low, high) = (*sorted.get(below as usize)?, sorted.get(below as usize + 1));
    let (high, part) = (*high.unwrap_or(&low), place - below);
    let apart = high - low;
    let found = match apart.is_finite() {
        // From the nearer end, so that neither end is passed by rounding.
        true if part < 0.5 => low + apart * part,
        true => high - apart * (1.0 - part),
        false => low * (1.0 - part) + high * part,
    };
    Some(found.clamp(low, high))
}

/// `numpy.histogram`, over the range of the values.
fn histogram(sorted: &[f64]) -> Histogram {
    let (Some(&first), Some(&last)) = (sorted.first(), sorted.last()) else { return Histogram::default() };
    // One value alone lies in the middle.
    let (first, last) = if first == last { (first - 0.5, last + 0.5) } else { (first, last) };
    let bins = Profile::BINS as f64;
    let apart = last - first;
    let edge = |bin: usize| match bin as f64 {
        bin if apart.is_finite() => bin * (apart / bins) + first,
        bin => first * (1.0 - bin / bins) + last * (bin / bins),
    };
    let mut edges: Vec<f64> = (0..Profile::BINS).map(edge).collect();
    edges.push(last);
    let before = |edge: &f64| sorted.partition_point(|value| value < edge);
    let mut ends: Vec<usize> = edges.iter().map(before).collect();
    if let Some(end) = ends.last_mut() {
        *end = sorted.len();
    }
    let counts = ends.windows(2).map(|bin| bin[1].saturating_sub(bin[0]) as u64).collect();
    Histogram { edges, counts }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Numbers {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Numbers::of(&sorted, 0, 0)
    }

    #[test]
    fn without_values_there_are_no_quantiles_and_no_bins_and_one_lies_in_the_middle() {
        let none = of(&[]);
        assert_eq!((none.median(), none.histogram), (None, Histogram::default()));
        let one = of(&[7.0]);
        assert_eq!(one.median(), Some(7.0));
        assert_eq!((one.histogram.edges[0], one.histogram.edges[20]), (6.5, 7.5));
        assert_eq!(one.histogram.counts[10], 1);
    }

    #[test]
    fn values_that_are_as_far_apart_as_can_be_have_quantiles_and_bins() {
        let found = of(&[f64::MIN, f64::MAX]);
        assert_eq!(found.median(), Some(0.0));
        assert_eq!(found.histogram.counts.iter().sum::<u64>(), 2);
        assert!(
            found.histogram.edges.is_sorted() && found.histogram.edges.iter().all(|edge| edge.is_finite())
        );
    }

    proptest! {
        #[test]
        fn every_value_lies_in_one_bin_and_quantiles_ascend(
            values in proptest::collection::vec(prop_oneof![-9.0..9.0_f64, any::<f64>().prop_filter("finite", |x| x.is_finite())], 1..60),
        ) {
            let found = of(&values);
            let Histogram { edges, counts } = &found.histogram;
            prop_assert_eq!((edges.len(), counts.len()), (Profile::BINS + 1, Profile::BINS));
            prop_assert_eq!(counts.iter().sum::<u64>(), values.len() as u64);
            prop_assert!(edges.is_sorted());
            let quantiles: Vec<f64> = found.quantiles.iter().map(|(_, value)| *value).collect();
            prop_assert!(quantiles.is_sorted());
            prop_assert!(found.statistics.min <= quantiles.first().copied());
            prop_assert!(found.statistics.max >= quantiles.last().copied());
        }
    }
}
