//! The two-sample Kolmogorov-Smirnov test.

use super::{
    error::{DriftError, Side, same_bins, sorted, total},
    kolmogorov::kolmogorov_sf,
};

/// Up to this many values in the larger sample the p-value is exact, as in `scipy.stats.ks_2samp(method="auto")`.
pub const EXACT_LIMIT: usize = 10_000;

/// 2.17 exp(-x) is less than half of the smallest number from here on.
const NOTHING: f64 = 746.5;

/// The largest difference of two distribution functions, and how often chance makes one as large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ks {
    /// D, between 0 and 1.
    pub statistic: f64,
    /// P(D or more) if both samples come from one continuous distribution. Ties make the test say less, not more.
    pub p_value: f64,
    /// How the p-value was computed.
    pub method: KsMethod,
}

/// How a p-value of D is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KsMethod {
    /// By counting the paths of a lattice, up to [`EXACT_LIMIT`]; larger samples are asked asymptotically. Takes up to n·m
    /// steps, fewer for a small D.
    #[default]
    Exact,
    /// By the one-sample distribution for nm/(n+m) values, rounded to even.
    Asymptotic,
}

/// The test of two samples, equal to `scipy.stats.ks_2samp`. Infinities count as the smallest and largest values.
///
/// ```
/// use millstream_monitor::drift::{KsMethod, ks_two_sample};
///
/// let test = ks_two_sample(&[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 5.0, 6.0], KsMethod::Exact)?;
/// assert_eq!(test.statistic, 0.5);
/// assert!((test.p_value - 0.7714285714285715).abs() < 1e-12);
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
pub fn ks_two_sample(reference: &[f64], live: &[f64], method: KsMethod) -> Result<Ks, DriftError> {
    let reference = sorted(reference, Side::Reference)?;
    let live = sorted(live, Side::Live)?;
    Ok(of_sorted(&reference, &live, method))
}

/// The test of two histograms over the same bins, in the order of the bins. D is at most that of the samples, so the
/// asymptotic p-value is at least as large: bins hide drift, they do not make it.
pub fn ks_binned(reference: &[u64], live: &[u64]) -> Result<Ks, DriftError> {
    same_bins(reference.len(), live.len())?;
    let (n, m) = (total(reference, Side::Reference)?, total(live, Side::Live)?);
    let (mut below, mut live_below, mut statistic) = (0_u128, 0_u128, 0.0_f64);
    for (&count, &live_count) in reference.iter().zip(live) {
        below += u128::from(count);
        live_below += u128::from(live_count);
        statistic = statistic.max((below as f64 / n - live_below as f64 / m).abs());
    }
    Ok(Ks { statistic, p_value: asymptotic(n, m, statistic), method: KsMethod::Asymptotic })
}

/// As [`ks_two_sample`], of samples that are sorted and not empty.
pub(super) fn of_sorted(reference: &[f64], live: &[f64], method: KsMethod) -> Ks {
    let (n, m) = (reference.len(), live.len());
    let steps = largest_difference(reference, live);
    let statistic = steps as f64 / (n as u128 * m as u128) as f64;
    if method == KsMethod::Exact && n.max(m) <= EXACT_LIMIT {
        // P is at most 2.17 exp(-2 D² nm/(n+m)) (Wei and Dudley, 2012): below the smallest number, nothing is counted.
        let exponent = 2.0 * statistic * statistic * effective(n as f64, m as f64);
        let p_value = if exponent > NOTHING { 0.0 } else { exact(n as u64, m as u64, steps as u64) };
        Ks { statistic, p_value, method }
    } else {
        Ks { statistic, p_value: asymptotic(n as f64, m as f64, statistic), method: KsMethod::Asymptotic }
    }
}

/// The largest |i·m - j·n|, where i and j values of the samples of n and m are no larger than some value: D times n·m, but
/// whole, so that equal differences are equal.
fn largest_difference(reference: &[f64], live: &[f64]) -> u128 {
    let (n, m) = (reference.len(), live.len());
    let (mut i, mut j, mut largest) = (0, 0, 0);
    while i < n && j < m {
        let value = reference[i].min(live[j]);
        while i < n && reference[i] <= value {
            i += 1;
        }
        while j < m && live[j] <= value {
            j += 1;
        }
        largest = largest.max((i as u128 * m as u128).abs_diff(j as u128 * n as u128));
    }
    largest
}

fn asymptotic(n: f64, m: f64, statistic: f64) -> f64 {
    kolmogorov_sf(effective(n, m).round_ties_even(), statistic)
}

/// The size of one sample that says as much as two.
fn effective(n: f64, m: f64) -> f64 {
    n * m / (n + m)
}

/// P(|i/n - j/m| reaches `steps`/nm somewhere) over all orders of n and m values, all as likely.
fn exact(n: u64, m: u64, steps: u64) -> f64 {
    if steps == 0 {
        1.0
    } else if n == m {
        exact_of_equal_sizes(n, steps / n)
    } else {
        exact_by_lattice(n.max(m), n.min(m), steps)
    }
}

/// By reflection: 2 Σ (-1)^(k-1) C(2n, n-kh) / C(2n, n) over k from 1, for samples of n that differ by h/n.
fn exact_of_equal_sizes(n: u64, h: u64) -> f64 {
    let (mut sum, mut term, mut sign) = (0.0, 1.0, 1.0);
    for k in 0..n / h {
        for j in k * h..(k + 1) * h {
            term *= (n - j) as f64 / (n + j + 1) as f64;
        }
        sum += sign * term;
        sign = -sign;
        if term == 0.0 {
            break;
        }
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

/// By Hodges' recursion (1958). Of all paths to the point (i, j) the share that has been outside is the mean of the shares
/// at the two points before, weighted by how many paths come from each: i to j. All terms are positive, so the smallest
/// p-value has as many digits as the largest.
fn exact_by_lattice(n: u64, m: u64, steps: u64) -> f64 {
    // The points of column i that are inside: |i·m - j·n| < steps.
    let inside = |i: u64| {
        let low = if i * m < steps { 0 } else { (i * m - steps) / n + 1 };
        let high = ((i * m + steps - 1) / n).min(m);
        (low, high)
    };
    // The share outside of each point of the last column. Rows above the band are outside, and so is what lies below it.
    let mut shares = vec![1.0_f64; m as usize + 1];
    for i in 0..=n {
        let (low, high) = inside(i);
        if low > high {
            return 1.0;
        }
        let mut before = 1.0;
        for j in low..=high {
            let cell = &mut shares[j as usize];
            *cell = if i + j == 0 { 0.0 } else { (*cell * i as f64 + before * j as f64) / (i + j) as f64 };
            before = *cell;
        }
    }
    shares[m as usize].clamp(0.0, 1.0)
}
