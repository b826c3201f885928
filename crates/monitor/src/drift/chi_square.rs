//! Pearson's chi-square tests over counts.

use super::{
    error::{DriftError, Side, same_bins, total},
    special::chi_square_sf,
};

/// How far counts are from what was expected, and how often chance makes them as far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    /// Σ (observed - expected)² / expected.
    pub statistic: f64,
    /// P(statistic or more) without drift. The approximation is good from about five expected counts per bin on.
    pub p_value: f64,
    /// Bins that either side has, less one.
    pub degrees_of_freedom: u64,
}

/// Whether both sides have one distribution: the test of the 2×k table, equal to `scipy.stats.chi2_contingency`, with
/// Yates' correction where k is 2.
///
/// Bins that are empty on both sides say nothing and are left out, where scipy refuses them. Of one bin, p is 1.
///
/// ```
/// use millstream_monitor::drift::chi_square_contingency;
///
/// let test = chi_square_contingency(&[168, 77, 644], &[102, 46, 270])?;
/// assert!((test.statistic - 8.332684717891361).abs() < 1e-9);
/// assert_eq!(test.degrees_of_freedom, 2);
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
pub fn chi_square_contingency(reference: &[u64], live: &[u64]) -> Result<ChiSquare, DriftError> {
    let (cells, n, m) = cells(reference, live)?;
    let yates = cells.len() == 2;
    let statistic = cells
        .iter()
        .map(|&(r, l)| {
            let column = r + l;
            [(r, n), (l, m)].map(|(observed, row)| {
                let expected = column / (n + m) * row;
                let difference = (observed - expected).abs();
                let corrected = if yates { difference - difference.min(0.5) } else { difference };
                corrected * corrected / expected
            })
        })
        .map(|[of_reference, of_live]| of_reference + of_live)
        .sum();
    Ok(tested(statistic, cells.len()))
}

/// Whether the live counts have the reference's shares, taken as known exactly: the test of goodness of fit, equal to
/// `scipy.stats.chisquare(live, reference * (m / n))`. It ignores that the reference is a sample too and says drift too
/// often where it is small; [`chi_square_contingency`] does not.
///
/// A live value in a bin that the reference lacks is infinitely unlikely: the statistic is infinite, p is 0.
pub fn chi_square_fit(reference: &[u64], live: &[u64]) -> Result<ChiSquare, DriftError> {
    let (cells, n, m) = cells(reference, live)?;
    let statistic = cells
        .iter()
        .map(|&(r, l)| {
            let expected = r * (m / n);
            (l - expected) * (l - expected) / expected
        })
        .sum();
    Ok(tested(statistic, cells.len()))
}

type Cells = (Vec<(f64, f64)>, f64, f64);

/// The bins that are not empty on both sides, and the totals.
fn cells(reference: &[u64], live: &[u64]) -> Result<Cells, DriftError> {
    same_bins(reference.len(), live.len())?;
    let (n, m) = (total(reference, Side::Reference)?, total(live, Side::Live)?);
    let cells = reference
        .iter()
        .zip(live)
        .filter(|&(&r, &l)| r > 0 || l > 0)
        .map(|(&r, &l)| (r as f64, l as f64))
        .collect();
    Ok((cells, n, m))
}

fn tested(statistic: f64, bins: usize) -> ChiSquare {
    if bins < 2 {
        return ChiSquare { statistic: 0.0, p_value: 1.0, degrees_of_freedom: 0 };
    }
    let degrees_of_freedom = bins as u64 - 1;
    ChiSquare { statistic, p_value: chi_square_sf(statistic, degrees_of_freedom as f64), degrees_of_freedom }
}
