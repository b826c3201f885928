//! NannyML's univariate drift (0.13): distances of a chunk to the reference, and a threshold from the reference's own
//! chunks.
//!
//! Everything is fitted to the reference once. Values are without NaN; NannyML drops them.

use std::{collections::BTreeMap, ops::Range};

use crate::drift::{
    Bins, ChiSquare, Counts, DriftError, Ends, Frozen, KsMethod, Shares, align, chi_square_contingency,
    error::{Side, finite, sorted},
    ks, moments, wasserstein,
};

/// From this many reference values on, Kolmogorov-Smirnov and Wasserstein are estimated over so many bins.
const LARGE: usize = 10_000;
/// Deviations above the mean of the reference's chunks from which on a distance is drift.
const DEVIATIONS: f64 = 3.0;
/// Chunks that the reference is cut into, and one more for what is left.
const CHUNKS: usize = 10;
/// P-values of the chi-square test below it are drift.
pub const P_VALUE: f64 = 0.05;

/// A numeric feature's reference.
#[derive(Clone, Debug)]
pub struct Continuous {
    doane: Frozen,
    sample: Sample,
}

#[derive(Clone, Debug)]
enum Sample {
    Exact(Vec<f64>),
    /// Counts of each bin of equal width, as parts of the reference added up.
    Binned {
        edges: Vec<f64>,
        cumulated: Vec<f64>,
    },
}

impl Continuous {
    /// Keeps what is needed of a reference.
    pub fn fit(reference: &[f64]) -> Result<Self, DriftError> {
        let doane = Frozen::new(Bins::doane(reference)?, reference)?;
        let sample = if reference.len() < LARGE {
            Sample::Exact(sorted(reference, Side::Reference)?)
        } else {
            let bins = Bins::equal_width(reference, LARGE)?;
            let counts = bins.count(reference);
            Sample::Binned {
                edges: bins.edges().to_vec(),
                cumulated: cumulated(&counts.bins, reference.len()),
            }
        };
        Ok(Self { doane, sample })
    }

    /// Jensen-Shannon distance to base 2, over Doane's bins and one for what lies beyond them.
    pub fn jensen_shannon(&self, live: &[f64]) -> Result<f64, DriftError> {
        Ok(self.shares(live)?.js_distance_base2())
    }

    /// Hellinger distance over the same bins.
    pub fn hellinger(&self, live: &[f64]) -> Result<f64, DriftError> {
        Ok(self.shares(live)?.hellinger())
    }

    /// The Kolmogorov-Smirnov statistic D.
    pub fn kolmogorov_smirnov(&self, live: &[f64]) -> Result<f64, DriftError> {
        finite(live, Side::Live)?;
        match &self.sample {
            Sample::Exact(reference) => {
                let live = sorted(live, Side::Live)?;
                Ok(ks::of_sorted(reference, &live, KsMethod::Asymptotic).statistic)
            }
            Sample::Binned { edges, cumulated: reference } => {
                let counts = Bins::from_edges(edges.clone(), Ends::Closed)?.count(live);
                let below = counts.below as f64 / live.len() as f64;
                let live = cumulated(&counts.bins, live.len());
                Ok(reference.iter().zip(&live).map(|(r, l)| (r - (below + l)).abs()).fold(0.0, f64::max))
            }
        }
    }

    /// The first Wasserstein distance, in the feature's unit.
    pub fn wasserstein(&self, live: &[f64]) -> Result<f64, DriftError> {
        finite(live, Side::Live)?;
        match &self.sample {
            Sample::Exact(reference) => Ok(wasserstein::of_sorted(reference, &sorted(live, Side::Live)?)),
            Sample::Binned { edges, cumulated } => binned_wasserstein(edges, cumulated, live),
        }
    }

    fn shares(&self, live: &[f64]) -> Result<Shares, DriftError> {
        finite(live, Side::Live)?;
        self.doane.shares_with_leftover(&self.doane.bins().count(live))
    }
}

/// A categorical feature's reference.
#[derive(Clone, Debug)]
pub struct Categorical<K> {
    reference: BTreeMap<K, u64>,
}

impl<K: Ord> Categorical<K> {
    /// Keeps the counts of a reference.
    pub fn fit(reference: BTreeMap<K, u64>) -> Self {
        Self { reference }
    }

    /// Jensen-Shannon distance to base 2, over the reference's categories and one for all others.
    pub fn jensen_shannon(&self, live: &BTreeMap<K, u64>) -> Result<f64, DriftError> {
        Ok(self.shares(live)?.js_distance_base2())
    }

    /// Hellinger distance over the same bins.
    pub fn hellinger(&self, live: &BTreeMap<K, u64>) -> Result<f64, DriftError> {
        Ok(self.shares(live)?.hellinger())
    }

    /// The largest change of a category's share, each new category by itself.
    pub fn l_infinity(&self, live: &BTreeMap<K, u64>) -> Result<f64, DriftError> {
        let (reference, live) = self.aligned(live);
        Ok(Shares::new(&reference, &live)?.l_infinity())
    }

    /// The chi-square test of the two samples. Drift is a p-value below [`P_VALUE`], whatever the chunks say.
    pub fn chi_square(&self, live: &BTreeMap<K, u64>) -> Result<ChiSquare, DriftError> {
        let (reference, live) = self.aligned(live);
        chi_square_contingency(&reference, &live)
    }

    fn aligned(&self, live: &BTreeMap<K, u64>) -> (Vec<u64>, Vec<u64>) {
        let counts = |of: &BTreeMap<K, u64>| of.values().copied().collect::<Vec<_>>();
        if self.reference.keys().eq(live.keys()) {
            return (counts(&self.reference), counts(live));
        }
        let borrow = |(key, &count)| (key, count);
        let aligned = align(self.reference.iter().map(borrow), live.iter().map(borrow));
        (aligned.reference, aligned.live)
    }

    fn shares(&self, live: &BTreeMap<K, u64>) -> Result<Shares, DriftError> {
        let mut others = 0_u64;
        for (_, &count) in live.iter().filter(|(key, _)| !self.reference.contains_key(key)) {
            others = others.saturating_add(count);
        }
        let known = self.reference.keys().map(|key| live.get(key).copied().unwrap_or(0)).chain([others]);
        let reference: Vec<u64> = self.reference.values().copied().chain([0]).collect();
        Shares::new(&reference, &known.collect::<Vec<_>>())
    }
}

/// Where the reference is cut for the threshold: ten chunks of equal size, and a smaller one of what is left.
pub fn chunks(values: usize) -> impl Iterator<Item = Range<usize>> {
    let size = (values / CHUNKS).max(1);
    (0..values).step_by(size).map(move |start| start..values.min(start + size))
}

/// The threshold that the distances of the reference's chunks give: their mean and three standard deviations (ddof 0),
/// above which a distance is drift. NaN are left out; of nothing there is no threshold.
///
/// ```
/// use millstream_monitor::drift::profile::nannyml::upper_threshold;
///
/// assert_eq!(upper_threshold(&[0.1, 0.3]), Some(0.2 + 3.0 * 0.1));
/// ```
pub fn upper_threshold(distances: &[f64]) -> Option<f64> {
    let kept: Vec<f64> = distances.iter().copied().filter(|distance| !distance.is_nan()).collect();
    if kept.is_empty() {
        return None;
    }
    Some(moments::mean(&kept) + DEVIATIONS * moments::deviation(&kept))
}

fn cumulated(counts: &[u64], values: usize) -> Vec<f64> {
    let mut below = 0.0;
    counts
        .iter()
        .map(|&count| {
            below += count as f64 / values as f64;
            below
        })
        .collect()
}

/// NannyML's estimate over bins. What lies beyond them is added by its own distribution function, in which the outermost
/// edge counts as one value more.
fn binned_wasserstein(edges: &[f64], reference: &[f64], live: &[f64]) -> Result<f64, DriftError> {
    let all = live.len() as f64;
    let (first, last) = (edges[0], edges[edges.len() - 1]);
    let mut smaller: Vec<f64> = live.iter().copied().filter(|value| *value < first).collect();
    let mut larger: Vec<f64> = live.iter().copied().filter(|value| *value > last).collect();
    let part = |beyond: &[f64]| if beyond.is_empty() { 0.0 } else { (beyond.len() + 1) as f64 / all };
    let (part_smaller, part_larger) = (part(&smaller), part(&larger));
    smaller.push(first);
    larger.push(last);
    let below = part_smaller * area(&mut smaller, |share| share);
    let above = part_larger * area(&mut larger, |share| 1.0 - share);

    let counts: Counts = Bins::from_edges(edges.to_vec(), Ends::Closed)?.count(live);
    let width = edges[1] - edges[0];
    let live = cumulated(&counts.bins, live.len());
    let within: f64 = reference.iter().zip(&live).map(|(r, l)| (r - (l + part_smaller)).abs() * width).sum();
    Ok(within + below + above)
}

/// The area under a height that depends on the share of values up to here.
fn area(values: &mut [f64], height: impl Fn(f64) -> f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let share = |index: usize| (index + 1) as f64 / values.len() as f64;
    values.windows(2).enumerate().map(|(index, pair)| height(share(index)) * (pair[1] - pair[0])).sum()
}
