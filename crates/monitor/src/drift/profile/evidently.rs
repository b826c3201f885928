//! Evidently's defaults (0.7): which test a column gets, over which bins, and from when on it has drifted.
//!
//! Its bins span both samples, so they move with the live one and counts cannot be kept; use it to compare numbers.

use crate::drift::{
    Bins, DriftError, KsMethod, Shares, Side, align, chi_square_fit, error::total, ks_two_sample,
    special::normal_sf, wasserstein_scaled,
};

/// Up to this many reference values a column gets a test with a p-value, above a distance.
const LARGE_REFERENCE: usize = 1000;
/// A numeric column of at most so many distinct values is treated like categories.
const FEW_VALUES: usize = 5;
/// A numeric column is binned by value, unless the reference has more distinct ones than this.
const BY_VALUE: usize = 20;
/// P-values below it are drift.
const P_VALUE: f64 = 0.05;
/// Distances from here on are drift, those of PSI and KL too.
pub const DISTANCE: f64 = 0.1;
/// A dataset has drifted when at least this share of its columns has.
pub const DRIFT_SHARE: f64 = 0.5;

/// What a column is tested by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// P-value of the two-sample Kolmogorov-Smirnov test.
    KolmogorovSmirnov,
    /// P-value of the chi-square test of fit.
    ChiSquare,
    /// P-value of the test of two proportions.
    ZTest,
    /// Wasserstein distance in standard deviations of the reference.
    Wasserstein,
    /// Jensen-Shannon distance, root of nats.
    JensenShannon,
}

/// The verdict of one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// What it was tested by.
    pub test: Test,
    /// A p-value or a distance.
    pub score: f64,
    /// Below which a p-value, from which on a distance is drift.
    pub threshold: f64,
    /// Whether it is.
    pub drifted: bool,
}

/// A numeric column by Evidently's default test. NaN and infinities are dropped first, as Evidently does.
///
/// ```
/// use millstream_monitor::drift::profile::evidently::{Test, numeric};
///
/// let reference: Vec<f64> = (0..100).map(f64::from).collect();
/// let live: Vec<f64> = (40..140).map(f64::from).collect();
/// let column = numeric(&reference, &live)?;
/// assert!(column.test == Test::KolmogorovSmirnov && column.drifted);
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
pub fn numeric(reference: &[f64], live: &[f64]) -> Result<Column, DriftError> {
    let (reference, live) = (kept(reference, Side::Reference)?, kept(live, Side::Live)?);
    if distinct(reference.iter().chain(&live)) <= FEW_VALUES {
        let (reference, live) = by_value(&reference, &live);
        return categorical(&reference, &live);
    }
    Ok(if reference.len() <= LARGE_REFERENCE {
        let score = ks_two_sample(&reference, &live, KsMethod::Exact)?.p_value;
        Column { test: Test::KolmogorovSmirnov, score, threshold: P_VALUE, drifted: score <= P_VALUE }
    } else {
        distance(Test::Wasserstein, wasserstein_scaled(&reference, &live)?)
    })
}

/// A column of categories by Evidently's default test, of counts for the same categories (see [`align`]).
pub fn categorical(reference: &[u64], live: &[u64]) -> Result<Column, DriftError> {
    if total(reference, Side::Reference)? > LARGE_REFERENCE as f64 {
        return Ok(distance(Test::JensenShannon, Shares::new(reference, live)?.js_distance()));
    }
    let test = chi_square_fit(reference, live)?;
    let (test, score) = if test.degrees_of_freedom > 1 {
        (Test::ChiSquare, test.p_value)
    } else {
        (Test::ZTest, z_test(reference, live))
    };
    Ok(Column { test, score, threshold: P_VALUE, drifted: score < P_VALUE })
}

/// Shares of a numeric column over Evidently's bins, for its PSI ([`Shares::psi`] with [`Zeros::Evidently`]), KL and
/// Jensen-Shannon distance: Sturges' bins over both samples together, or one bin per value where the reference has at most
/// 20 of them.
///
/// [`Zeros::Evidently`]: crate::drift::Zeros::Evidently
pub fn shares(reference: &[f64], live: &[f64]) -> Result<Shares, DriftError> {
    let (reference, live) = (kept(reference, Side::Reference)?, kept(live, Side::Live)?);
    if distinct(&reference) > BY_VALUE {
        let bins = Bins::sturges(&[reference.as_slice(), live.as_slice()].concat())?;
        Shares::new(&bins.count(&reference).bins, &bins.count(&live).bins)
    } else {
        let (reference, live) = by_value(&reference, &live);
        Shares::new(&reference, &live)
    }
}

/// Evidently's Hellinger distance of a numeric column: Sturges' bins over the distinct values of both samples.
pub fn hellinger(reference: &[f64], live: &[f64]) -> Result<f64, DriftError> {
    let (reference, live) = (kept(reference, Side::Reference)?, kept(live, Side::Live)?);
    let mut values = [reference.as_slice(), live.as_slice()].concat();
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    let bins = Bins::sturges(&values)?;
    let shares = Shares::new(&bins.count(&reference).bins, &bins.count(&live).bins)?;
    Ok((1.0 - shares.affinity().clamp(0.0, 1.0)).sqrt())
}

/// Whether a dataset has drifted: at least [`DRIFT_SHARE`] of its columns has. No columns have not.
pub fn dataset_drifted(columns: &[Column]) -> bool {
    let drifted = columns.iter().filter(|column| column.drifted).count();
    !columns.is_empty() && drifted as f64 / columns.len() as f64 >= DRIFT_SHARE
}

fn distance(test: Test, score: f64) -> Column {
    Column { test, score, threshold: DISTANCE, drifted: score >= DISTANCE }
}

fn kept(values: &[f64], side: Side) -> Result<Vec<f64>, DriftError> {
    // Adding zero makes a negative zero a positive one: they are one value.
    let kept: Vec<f64> =
        values.iter().copied().filter(|value| value.is_finite()).map(|value| value + 0.0).collect();
    if kept.is_empty() { Err(DriftError::Empty { side }) } else { Ok(kept) }
}

fn distinct<'a>(values: impl IntoIterator<Item = &'a f64>) -> usize {
    values.into_iter().map(|value| value.to_bits()).collect::<std::collections::BTreeSet<u64>>().len()
}

fn by_value(reference: &[f64], live: &[f64]) -> (Vec<u64>, Vec<u64>) {
    let count = |values: &[f64]| values.iter().map(|value| (value.to_bits(), 1)).collect::<Vec<_>>();
    let aligned = align(count(reference), count(live));
    (aligned.reference, aligned.live)
}

/// P-value of the difference of two proportions, pooled, two-sided. Of the one category that both have, it is 1.
fn z_test(reference: &[u64], live: &[u64]) -> f64 {
    let sum = |counts: &[u64]| counts.iter().map(|&count| count as f64).sum::<f64>();
    let (n, m) = (sum(reference), sum(live));
    let Some(first) = reference.iter().zip(live).position(|(&r, &l)| r > 0 || l > 0) else { return 1.0 };
    let (p, q) = (reference[first] as f64 / n, live[first] as f64 / m);
    let pooled = (p * n + q * m) / (n + m);
    if pooled <= 0.0 || pooled >= 1.0 {
        return 1.0;
    }
    let z = (p - q) / (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    (2.0 * normal_sf(z.abs())).min(1.0)
}
