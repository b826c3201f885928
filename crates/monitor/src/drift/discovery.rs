//! Many columns are tested at once: at a level of 5 %, one in twenty that did not drift is said to have.

use super::error::DriftError;

/// P-values adjusted so that of the columns below a level at most that share is there by chance (Benjamini and Hochberg,
/// 1995): p·k/rank, made to rise with p. Equal to `scipy.stats.false_discovery_control`.
///
/// ```
/// use millstream_monitor::drift::benjamini_hochberg;
///
/// let adjusted = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.5])?;
/// assert!((adjusted[0] - 0.04).abs() < 1e-12 && (adjusted[1] - 0.16 / 3.0).abs() < 1e-12);
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
pub fn benjamini_hochberg(p_values: &[f64]) -> Result<Vec<f64>, DriftError> {
    probabilities(p_values)?;
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut smallest = 1.0_f64;
    for (rank, &index) in order.iter().enumerate().rev() {
        smallest = smallest.min(p_values[index] * (p_values.len() as f64 / (rank + 1) as f64));
        adjusted[index] = smallest;
    }
    Ok(adjusted)
}

/// P-values adjusted so that the chance of even one false alarm is at most the level: p·k, at most 1. Few alarms are false,
/// and many are missed.
pub fn bonferroni(p_values: &[f64]) -> Result<Vec<f64>, DriftError> {
    probabilities(p_values)?;
    Ok(p_values.iter().map(|p| (p * p_values.len() as f64).min(1.0)).collect())
}

fn probabilities(p_values: &[f64]) -> Result<(), DriftError> {
    match p_values.iter().position(|p| !(0.0..=1.0).contains(p)) {
        Some(index) => Err(DriftError::BadProbability { index, value: p_values[index] }),
        None => Ok(()),
    }
}
