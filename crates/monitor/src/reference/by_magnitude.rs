//! Bins of what was counted by magnitude alone.

use super::{BinRule, open_ended};
use crate::{
    drift::Bins,
    sketch::{Bucket, Numbers},
};

/// MLRun's bins of equal width.
const MLRUN_BINS: usize = 20;
/// Doane's rule asks for no more of any number of values that can be counted; this is against rounding.
const MOST_BINS: f64 = 1000.0;

/// The edges that counts by magnitude suggest. Those that cut equal parts are borders of buckets: counts by magnitude of any other values
/// are exact between them.
pub(super) fn edges(numbers: &Numbers, rule: BinRule) -> Vec<f64> {
    let equal_width = |bins: usize| {
        let Some((least, most)) = numbers.range() else { return Vec::new() };
        Bins::equal_width(&[least, most], bins).map_or_else(|_| Vec::new(), |bins| open_ended(&bins))
    };
    match rule {
        BinRule::Quantiles(bins) => equal_parts(&numbers.spectrum().buckets(), bins),
        BinRule::Mlrun => equal_width(MLRUN_BINS),
        BinRule::Doane => equal_width(doane(numbers)),
    }
}

fn equal_parts(buckets: &[Bucket], bins: usize) -> Vec<f64> {
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let mut edges = Vec::new();
    let (mut below, mut buckets) = (0, buckets.iter().peekable());
    for part in 1..bins {
        let rank = total as f64 * part as f64 / bins as f64;
        while let Some(passed) = buckets.next_if(|bucket| ((below + bucket.count) as f64) < rank) {
            below += passed.count;
        }
        let Some(bucket) = buckets.peek() else { break };
        // The border that is nearer.
        let first_half = (rank - below as f64) * 2.0 < bucket.count as f64;
        edges.push(if first_half { begin(bucket) } else { end(bucket) });
    }
    edges.dedup();
    edges
}

/// The least value of a bucket: an edge belongs to the bin above it. Buckets of negative values have their upper border, not their lower.
fn begin(bucket: &Bucket) -> f64 {
    if bucket.from < 0.0 { bucket.from.next_up() } else { bucket.from }
}

/// The least value behind a bucket. That of zero has no width.
fn end(bucket: &Bucket) -> f64 {
    if bucket.to > 0.0 { bucket.to } else { bucket.to.next_up() }
}

/// As many bins as Doane's rule makes of values in the middles of their buckets.
fn doane(numbers: &Numbers) -> usize {
    let spectrum = numbers.spectrum();
    let n = numbers.values() as f64;
    let (Some(mean), Some(std)) = (spectrum.mean(), spectrum.std()) else { return 1 };
    if n < 3.0 || std <= 0.0 {
        return 1;
    }
    let spread = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
    let cubed = |bucket: &Bucket| {
        let middle = f64::midpoint(bucket.from, bucket.to);
        bucket.count as f64 * ((middle - mean) / std).powi(3)
    };
    let skewness = spectrum.buckets().iter().map(cubed).sum::<f64>() / n;
    let bins = (1.0 + n.log2() + (1.0 + skewness.abs() / spread).log2()).ceil();
    // What is no number becomes one bin.
    bins.clamp(1.0, MOST_BINS).max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Numbers {
        let mut numbers = Numbers::new(&[]);
        values.iter().for_each(|value| numbers.add(&[], *value));
        numbers
    }

    #[test]
    fn between_edges_of_equal_parts_other_values_are_counted_exactly() {
        let values: Vec<f64> = (0..5000).map(|i| f64::from(i % 977) - 200.0).collect();
        let edges = edges(&of(&values), BinRule::default());
        assert_eq!(edges.len(), 9);
        let live: Vec<f64> = (0..3000).map(|i| f64::from(i % 613) * 0.7 - 90.5).collect();
        let counted = of(&live).counts_in(&edges);
        let mut exact = vec![0; edges.len() + 1];
        live.iter().for_each(|value| exact[edges.partition_point(|edge| edge <= value)] += 1);
        assert_eq!(counted, exact);
        let reference = of(&values).counts_in(&edges);
        assert!(reference.iter().all(|count| (400..=600).contains(count)), "{reference:?}");
    }

    #[test]
    fn what_has_few_values_has_few_bins_and_another_value_is_in_another() {
        let zeros_mostly: Vec<f64> = (0..100).map(|i| if i < 70 { 0.0 } else { 5.0 }).collect();
        let cases: [(&[f64], f64); 4] =
            [(&[7.0; 50], 9.0), (&[7.0; 50], 6.0), (&[-3.0; 50], -2.0), (&zeros_mostly, 2.0)];
        for (values, other) in cases {
            let (before, live) = (of(values), of(&[other; 50]));
            let edges = edges(&before, BinRule::default());
            let (before, live) = (before.counts_in(&edges), live.counts_in(&edges));
            let shared: u64 = before.iter().zip(&live).map(|(before, live)| before.min(live)).sum();
            assert_eq!((shared, live.iter().sum::<u64>()), (0, 50), "{edges:?}");
        }
        assert_eq!(edges(&of(&[]), BinRule::default()), [0.0; 0]);
    }

    #[test]
    fn bins_of_equal_width_are_those_of_the_values_themselves() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * i)).collect();
        let mlrun = edges(&of(&values), BinRule::Mlrun);
        assert_eq!(mlrun, open_ended(&Bins::equal_width(&values, MLRUN_BINS).unwrap()));
        let doane = edges(&of(&values), BinRule::Doane);
        assert_eq!(doane, open_ended(&Bins::doane(&values).unwrap()));
        for rule in [BinRule::Mlrun, BinRule::Doane] {
            assert!(edges(&of(&[]), rule).is_empty());
            assert!(edges(&of(&[4.0; 9]), rule).len() > 1);
        }
    }
}
