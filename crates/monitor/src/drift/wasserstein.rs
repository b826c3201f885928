//! The first Wasserstein distance: by how much values have moved, in the feature's own unit.

use super::{
    bins::{Bins, Ends},
    error::{DriftError, Side, finite, same_bins, sorted, total},
    moments::deviation,
};

/// Evidently's lower bound of the deviation that a distance is divided by: a constant reference divides by this.
const SMALLEST_DEVIATION: f64 = 1e-3;

/// The area between the two distribution functions, equal to `scipy.stats.wasserstein_distance`.
///
/// ```
/// use millstream_monitor::drift::wasserstein;
///
/// assert_eq!(wasserstein(&[0.0, 1.0, 3.0], &[5.0, 6.0, 8.0])?, 5.0);
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
pub fn wasserstein(reference: &[f64], live: &[f64]) -> Result<f64, DriftError> {
    finite(reference, Side::Reference)?;
    finite(live, Side::Live)?;
    Ok(of_sorted(&sorted(reference, Side::Reference)?, &sorted(live, Side::Live)?))
}

/// The distance in standard deviations of the reference (ddof 0, at least 1e-3), as Evidently has it.
pub fn wasserstein_scaled(reference: &[f64], live: &[f64]) -> Result<f64, DriftError> {
    Ok(wasserstein(reference, live)? / deviation(reference).max(SMALLEST_DEVIATION))
}

/// The distance of two histograms whose values all lie at the centres of their closed bins, as Hopsworks has it. It differs
/// from that of the samples by at most half a bin's width for each side.
pub fn wasserstein_of_centres(bins: &Bins, reference: &[u64], live: &[u64]) -> Result<f64, DriftError> {
    let differences = differences(bins, reference, live)?;
    let centres: Vec<f64> = bins.edges().windows(2).map(|edge| edge[0] / 2.0 + edge[1] / 2.0).collect();
    Ok(centres
        .windows(2)
        .zip(&differences[1..])
        .map(|(pair, difference)| (pair[1] - pair[0]) * difference.abs())
        .sum())
}

/// The distance of two histograms whose values are spread evenly over their closed bins: the area between distribution
/// functions that rise linearly from edge to edge.
pub fn wasserstein_of_bins(bins: &Bins, reference: &[u64], live: &[u64]) -> Result<f64, DriftError> {
    let differences = differences(bins, reference, live)?;
    let area = |edge: &[f64], difference: &[f64]| {
        let (left, right) = (difference[0].abs(), difference[1].abs());
        let height = if difference[0] * difference[1] < 0.0 {
            // The functions cross inside the bin: two triangles.
            (left * left + right * right) / (2.0 * (left + right))
        } else {
            (left + right) / 2.0
        };
        (edge[1] - edge[0]) * height
    };
    Ok(bins
        .edges()
        .windows(2)
        .zip(differences.windows(2))
        .map(|(edge, difference)| area(edge, difference))
        .sum())
}

/// By how much the distribution functions differ at each edge.
fn differences(bins: &Bins, reference: &[u64], live: &[u64]) -> Result<Vec<f64>, DriftError> {
    if bins.ends() == Ends::Open {
        // A bin without an end has neither centre nor width.
        return Err(DriftError::Infinite { side: Side::Reference, index: 0 });
    }
    same_bins(reference.len(), bins.bins())?;
    same_bins(reference.len(), live.len())?;
    let (n, m) = (total(reference, Side::Reference)?, total(live, Side::Live)?);
    let (mut below, mut live_below) = (0_u128, 0_u128);
    let mut differences = vec![0.0];
    for (&count, &live_count) in reference.iter().zip(live) {
        below += u128::from(count);
        live_below += u128::from(live_count);
        differences.push(below as f64 / n - live_below as f64 / m);
    }
    Ok(differences)
}

/// As [`wasserstein`], of sorted samples.
pub(super) fn of_sorted(reference: &[f64], live: &[f64]) -> f64 {
    let (n, m) = (reference.len(), live.len());
    let (mut i, mut j, mut area) = (0, 0, 0.0);
    let mut last = reference[0].min(live[0]);
    while i < n || j < m {
        let next = match (reference.get(i), live.get(j)) {
            (Some(&r), Some(&l)) => r.min(l),
            (Some(&value), None) | (None, Some(&value)) => value,
            (None, None) => break,
        };
        // No width, no area: the difference of the functions may be 0 where the width is infinite.
        let height = (i as f64 / n as f64 - j as f64 / m as f64).abs();
        if height > 0.0 {
            area += height * (next - last);
        }
        while i < n && reference[i] <= next {
            i += 1;
        }
        while j < m && live[j] <= next {
            j += 1;
        }
        last = next;
    }
    area
}
