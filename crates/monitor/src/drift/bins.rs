//! Bins of a sample, and how a sample is counted into them.

use super::{
    distance::Shares,
    error::{DriftError, Side, finite, total},
    moments::{deviation, mean, range, sum},
};

/// No histogram has more bins: each feature's counts stay small.
pub const MAX_BINS: usize = 65_536;

/// Equal-width bins that MLRun takes of the training data, before it pads them.
const MLRUN_BINS: usize = 20;

/// What the outermost bins hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// As `numpy.histogram` counts: bin i holds `edges[i] <= x < edges[i + 1]`, the last one its upper edge too. What lies
    /// beyond is in no bin.
    Closed,
    /// As `numpy.searchsorted(edges, x, side="right")` counts: the edges lie between bins, the first bin reaches down and the
    /// last one up without end, and an edge belongs to the bin above it.
    Open,
}

/// Edges that rise, and what the outermost bins hold. There is at least one bin and at most [`MAX_BINS`].
///
/// ```
/// use millstream_monitor::drift::Bins;
///
/// let bins = Bins::equal_width(&[0.0, 4.0, 10.0], 5)?;
/// assert_eq!(bins.edges(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
/// let counts = bins.count(&[2.0, 3.9, 10.0, 10.1, f64::NAN]);
/// assert_eq!(counts.bins, [0, 2, 0, 0, 1]);
/// assert_eq!((counts.above, counts.missing), (1, 1));
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    edges: Vec<f64>,
    ends: Ends,
}

impl Bins {
    /// Bins of given edges. Closed bins need at least two, open ones none.
    pub fn from_edges(edges: Vec<f64>, ends: Ends) -> Result<Self, DriftError> {
        let bins = match ends {
            Ends::Closed => edges.len().saturating_sub(1),
            Ends::Open => edges.len() + 1,
        };
        if bins == 0 || bins > MAX_BINS {
            return Err(DriftError::TooManyBins { bins });
        }
        if edges[0..edges.len().min(1)].iter().any(|edge| edge.is_nan()) {
            return Err(DriftError::EdgesNotRising { index: 0 });
        }
        match edges
            .windows(2)
            .position(|pair| pair[0].partial_cmp(&pair[1]) != Some(std::cmp::Ordering::Less))
        {
            Some(index) => Err(DriftError::EdgesNotRising { index: index + 1 }),
            None => Ok(Self { edges, ends }),
        }
    }

    /// Open bins that hold equal parts of the reference: inner edges at the quantiles 1/k to (k-1)/k, between two values by
    /// linear interpolation as in `numpy.quantile`. Equal edges are merged, so many equal values make fewer bins.
    pub fn quantiles(reference: &[f64], bins: usize) -> Result<Self, DriftError> {
        Self::quantiles_in(&mut reference.to_vec(), bins)
    }

    /// As [`Self::quantiles`], without a copy of the values: they are in another order afterwards, and no zero is negative.
    pub fn quantiles_in(reference: &mut [f64], bins: usize) -> Result<Self, DriftError> {
        finite(reference, Side::Reference)?;
        if bins == 0 || bins > MAX_BINS {
            return Err(DriftError::TooManyBins { bins });
        }
        // The order of `total_cmp` sets zeros of two signs apart, equality does not.
        reference.iter_mut().for_each(|value| *value += 0.0);
        let parts = (1..bins).map(|i| i as f64 / bins as f64);
        let around = parts.clone().map(|part| place(reference.len(), part).0);
        let mut ranks: Vec<usize> = around.flat_map(|(below, above)| [below, above]).collect();
        ranks.sort_unstable();
        ranks.dedup();
        select(reference, &ranks, 0);
        let mut edges: Vec<f64> = parts.map(|part| quantile(reference, part)).collect();
        edges.dedup();
        Self::from_edges(edges, Ends::Open)
    }

    /// Closed bins of equal width from the smallest to the largest value, as `numpy.histogram(x, k)` takes them. A constant
    /// sample lies in the middle of bins that span 1.
    pub fn equal_width(reference: &[f64], bins: usize) -> Result<Self, DriftError> {
        finite(reference, Side::Reference)?;
        Self::linear(range(reference), bins)
    }

    /// Closed bins of equal width by Sturges' rule, about log₂ n + 1, as `numpy.histogram_bin_edges(x, "sturges")`.
    pub fn sturges(reference: &[f64]) -> Result<Self, DriftError> {
        finite(reference, Side::Reference)?;
        let (low, high) = range(reference);
        Self::of_width(reference, (high - low) / ((reference.len() as f64).log2() + 1.0))
    }

    /// Closed bins of equal width by Doane's rule, which takes more of them for a skewed sample, as
    /// `numpy.histogram_bin_edges(x, "doane")`. Fewer than three values, and equal ones, lie in one bin.
    pub fn doane(reference: &[f64]) -> Result<Self, DriftError> {
        finite(reference, Side::Reference)?;
        Self::of_width(reference, doane_width(reference))
    }

    /// The edges: all of them for closed bins, those between bins for open ones.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// What the outermost bins hold.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// Number of bins.
    pub fn bins(&self) -> usize {
        match self.ends {
            Ends::Closed => self.edges.len() - 1,
            Ends::Open => self.edges.len() + 1,
        }
    }

    /// The bin that holds a value; none for NaN and for what lies beyond closed bins.
    pub fn bin(&self, value: f64) -> Option<usize> {
        if value.is_nan() {
            return None;
        }
        let below = self.edges.partition_point(|&edge| edge <= value);
        match self.ends {
            Ends::Open => Some(below),
            Ends::Closed if below == self.edges.len() => {
                (self.edges.last() == Some(&value)).then_some(self.edges.len() - 2)
            }
            Ends::Closed => below.checked_sub(1),
        }
    }

    /// Counts a sample.
    pub fn count(&self, values: &[f64]) -> Counts {
        let mut counts = Counts { bins: vec![0; self.bins()], below: 0, above: 0, missing: 0 };
        for &value in values {
            match self.bin(value) {
                Some(bin) => counts.bins[bin] += 1,
                None if value.is_nan() => counts.missing += 1,
                None if self.edges.first().is_some_and(|&edge| value < edge) => counts.below += 1,
                None => counts.above += 1,
            }
        }
        counts
    }

    /// As `numpy.histogram_bin_edges` uses the width that a rule proposes: it is made smaller until bins fit the range.
    fn of_width(reference: &[f64], width: f64) -> Result<Self, DriftError> {
        let (low, high) = outer(range(reference));
        let bins = if width > 0.0 { ((high - low) / width).ceil() } else { 1.0 };
        // The range of the largest numbers is infinite, and so is every width; the cast takes what is no number for none.
        Self::linear((low, high), bins as usize)
    }

    fn linear(range: (f64, f64), bins: usize) -> Result<Self, DriftError> {
        let (low, high) = outer(range);
        let delta = high - low;
        if bins == 0 || bins > MAX_BINS || !delta.is_finite() {
            return Err(DriftError::TooManyBins { bins });
        }
        let step = delta / bins as f64;
        let mut edges: Vec<f64> = (0..bins).map(|i| i as f64 * step + low).collect();
        edges.push(high);
        Self::from_edges(edges, Ends::Closed).map_err(|_| DriftError::TooManyBins { bins })
    }
}

/// How many values of a sample lie where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// By bin.
    pub bins: Vec<u64>,
    /// Below the first of closed bins.
    pub below: u64,
    /// Above the last of closed bins.
    pub above: u64,
    /// NaN.
    pub missing: u64,
}

/// Bins of a reference and the reference's own counts: all that has to be kept of it to tell how far a live sample is.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    bins: Bins,
    reference: Vec<u64>,
}

impl Frozen {
    /// Counts the reference into bins. Values in no bin are left out.
    pub fn new(bins: Bins, reference: &[f64]) -> Result<Self, DriftError> {
        let counts = bins.count(reference).bins;
        Self::from_counts(bins, counts)
    }

    /// Bins whose reference was counted elsewhere.
    pub fn from_counts(bins: Bins, reference: Vec<u64>) -> Result<Self, DriftError> {
        super::error::same_bins(reference.len(), bins.bins())?;
        total(&reference, Side::Reference)?;
        Ok(Self { bins, reference })
    }

    /// MLRun's 22 bins: 20 of equal width over the reference, and one on either side that reaches to the largest number. The
    /// outer two hold nothing of the reference; its largest value is counted below the edge that a live value equal to it is
    /// counted above.
    pub fn mlrun(reference: &[f64]) -> Result<Self, DriftError> {
        let inner = Bins::equal_width(reference, MLRUN_BINS)?;
        let mut counts = vec![0];
        counts.extend(inner.count(reference).bins);
        counts.push(0);
        let mut edges = vec![-f64::MAX];
        edges.extend_from_slice(inner.edges());
        edges.push(f64::MAX);
        Self::from_counts(Bins::from_edges(edges, Ends::Closed)?, counts)
    }

    /// The bins.
    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    /// The reference's counts.
    pub fn reference(&self) -> &[u64] {
        &self.reference
    }

    /// Shares of the reference and of live counts. Live values that lie in no bin are left out.
    pub fn shares(&self, live: &Counts) -> Result<Shares, DriftError> {
        Shares::new(&self.reference, &live.bins)
    }

    /// Shares with one bin more, for live values that lie in none; of the reference it is empty. Where every live value has
    /// a bin, it is left out.
    pub fn shares_with_leftover(&self, live: &Counts) -> Result<Shares, DriftError> {
        let leftover = live.below.saturating_add(live.above);
        if leftover == 0 {
            return self.shares(live);
        }
        let with = |counts: &[u64], last| counts.iter().copied().chain([last]).collect::<Vec<u64>>();
        Shares::new(&with(&self.reference, 0), &with(&live.bins, leftover))
    }
}

/// The range that bins span: one value is given a width of 1.
fn outer((low, high): (f64, f64)) -> (f64, f64) {
    if low == high { (low - 0.5, high + 0.5) } else { (low, high) }
}

/// Puts the values of these ranks, which rise, where they are when all are in order. It is less work than to put all there. `first` is
/// the rank of the least value.
fn select(values: &mut [f64], ranks: &[usize], first: usize) {
    let (lower, higher) = ranks.split_at(ranks.len() / 2);
    let Some((&middle, higher)) = higher.split_first() else { return };
    let (below, _, above) = values.select_nth_unstable_by(middle - first, f64::total_cmp);
    select(below, lower, first);
    select(above, higher, middle + 1);
}

/// The two ranks between which a part of so many values ends, and how far it is from the first to the second.
fn place(values: usize, part: f64) -> ((usize, usize), f64) {
    let place = (values - 1) as f64 * part;
    let below = (place.floor() as usize).min(values - 1);
    ((below, (below + 1).min(values - 1)), place - place.floor())
}

/// The value at a part of a sample by the formula of `numpy.quantile`, rounding included. Those of its two ranks are in their places.
fn quantile(values: &[f64], part: f64) -> f64 {
    let ((below, above), weight) = place(values.len(), part);
    let (low, high) = (values[below], values[above]);
    let between =
        if weight < 0.5 { low + (high - low) * weight } else { high - (high - low) * (1.0 - weight) };
    // The difference of the largest numbers is infinite.
    if between.is_finite() { between } else { low * (1.0 - weight) + high * weight }
}

/// (max - min) / (1 + log₂ n + log₂(1 + |g₁| / σ)), with the skewness g₁ and its spread σ among normal samples.
fn doane_width(reference: &[f64]) -> f64 {
    let n = reference.len() as f64;
    let (low, high) = range(reference);
    let (mean, deviation) = (mean(reference), deviation(reference));
    if n < 3.0 || deviation <= 0.0 {
        return 0.0;
    }
    let spread = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
    let skewness = sum(reference, |value| ((value - mean) / deviation).powi(3)) / n;
    (high - low) / (1.0 + n.log2() + (1.0 + skewness.abs() / spread).log2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::error::sorted, *};

    proptest! {
        #[test]
        fn quantiles_are_those_of_values_in_order(
            values in prop::collection::vec(prop_oneof![-1e9..1e9, Just(-0.0), (0..5i32).prop_map(f64::from)], 1..600),
            bins in 1usize..40,
        ) {
            let sorted = sorted(&values, Side::Reference).unwrap();
            let mut edges: Vec<f64> = (1..bins).map(|i| quantile(&sorted, i as f64 / bins as f64)).collect();
            edges.dedup();
            let bits = |edges: &[f64]| edges.iter().map(|edge| edge.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(Bins::quantiles(&values, bins).unwrap().edges()), bits(&edges));
        }
    }
}
