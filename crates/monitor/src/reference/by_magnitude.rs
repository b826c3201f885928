//! Bins of what was counted by magnitude alone.

use super::{
    BinRule,
    columns::{MLRUN_BINS, open_ended},
};
use crate::{
    drift::Bins,
    sketch::{Bucket, Numbers},
};

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

/// Edges between which counts by magnitude of both sides are exact: each that cuts a bucket with values is moved to where that begins, so
/// that a value at the edge stays above it, or behind the bucket if the edge before was moved there. None if a bin in which the reference
/// has values has none then: what is counted by magnitude is too coarse for it.
pub(crate) fn between_buckets(edges: &[f64], before: &Numbers, live: &Numbers) -> Option<Vec<f64>> {
    let mut buckets = before.spectrum().buckets();
    buckets.extend(live.spectrum().buckets());
    buckets.sort_unstable_by(|a, b| a.from.total_cmp(&b.from));
    let mut moved: Vec<f64> = Vec::with_capacity(edges.len());
    for &edge in edges {
        let below = buckets.partition_point(|bucket| begin(bucket) < edge);
        let cut = below.checked_sub(1).map(|last| &buckets[last]).filter(|bucket| edge < end(bucket));
        let Some(bucket) = cut else {
            moved.push(edge);
            continue;
        };
        let (begin, end) = (begin(bucket), end(bucket));
        let free = moved.last().is_none_or(|last| *last < begin);
        moved.push(if free { begin } else { end });
    }
    let mut counts = before.counts_in(edges).into_iter().zip(before.counts_in(&moved));
    counts.all(|(exact, moved)| exact == 0 || moved > 0).then_some(moved)
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
    fn edges_are_moved_between_buckets_unless_a_bin_is_lost() {
        let within = |edges: &[f64], values: &[f64]| {
            let mut numbers = Numbers::new(edges);
            values.iter().for_each(|value| numbers.add(edges, *value));
            numbers
        };
        let wide: Vec<f64> = (0..1000).map(|i| f64::from(i) * 0.37 - 150.0).collect();
        let tenths: Vec<f64> = (0..1000).map(|i| f64::from(i % 7) / 10.0).collect();
        let narrow: Vec<f64> = (0..1000).map(|i| 1e6 + f64::from(i) / 1e3).collect();
        // Values, edges, and whether they can be told apart by magnitude.
        let cases: [(&[f64], &[f64], bool); 7] = [
            (&wide, &[-120.0, -33.3, -1.1, 0.0, 0.4, 7.7, 111.1], true),
            (&tenths, &[0.1, 0.2, 0.3, 0.5], true),
            (&[7.1; 50], &[7.1, 7.1_f64.next_up()], true),
            (&[-7.1; 50], &[-7.1, (-7.1_f64).next_up()], true),
            (&narrow, &[1e6 + 0.25, 1e6 + 0.5, 1e6 + 0.75], false),
            (&narrow, &[1e6 + 0.5], false),
            (&[], &[1.0, 2.0], true),
        ];
        for (values, edges, expected) in cases {
            let (before, live) = (within(edges, values), of(values));
            let moved = between_buckets(edges, &before, &live);
            assert_eq!(moved.is_some(), expected, "{edges:?}");
            let Some(moved) = moved else { continue };
            assert!(moved.windows(2).all(|pair| pair[0] <= pair[1]), "{moved:?}");
            let mut exact = vec![0; edges.len() + 1];
            values.iter().for_each(|value| exact[moved.partition_point(|edge| edge <= value)] += 1);
            assert_eq!(
                (before.counts_in(&moved), live.counts_in(&moved)),
                (exact.clone(), exact),
                "{moved:?}"
            );
        }
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
