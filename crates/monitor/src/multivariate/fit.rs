//! How a reference is fitted, and why one cannot be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, MAX_COLUMNS, NOISE, Reconstruction, ReconstructionWindow, eigen, present, standard};

/// How a [`Reconstruction`] is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReconstructionSettings {
    /// How many components are kept; by default as many as hold more than 0.65 of the variance.
    pub keep: Keep,
    /// Rows in each window of the reference from which the limits are computed; a tenth of its rows by default. What is
    /// left at the end is a window too.
    pub window_rows: Option<usize>,
    /// How many standard deviations the limits are from the mean; 3 by default.
    pub deviations: f64,
}

/// How many components are kept: `{variance: 0.65}` or `{components: 3}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The fewest whose share of the variance is above this one, between 0 and 1.
    Variance(f64),
    /// This many.
    Components(usize),
}

impl Default for ReconstructionSettings {
    fn default() -> Self {
        Self { keep: Keep::Variance(0.65), window_rows: None, deviations: 3.0 }
    }
}

/// Why a reference cannot be fitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The matrix is no matrix.
    #[error("{values} values are no whole rows of {columns} columns")]
    Shape {
        /// Values that were given.
        values: usize,
        /// Columns that were named.
        columns: usize,
    },
    /// There are more columns than a fit takes.
    #[error("{columns} columns are too many: leave out all but the {most} that matter most")]
    TooManyColumns {
        /// Columns that were named.
        columns: usize,
        /// What is allowed.
        most: usize,
    },
    /// Limits need two windows.
    #[error(
        "{rows} reference rows in windows of {window_rows} are fewer than two windows: give more rows or smaller windows"
    )]
    TooFewRows {
        /// Rows of the reference.
        rows: usize,
        /// Rows in a window.
        window_rows: usize,
    },
    /// A column without any value.
    #[error("column `{column}` has no value in the reference: leave it out")]
    NothingPresent {
        /// The column.
        column: String,
    },
    /// A column of too many categories.
    #[error("column `{column}` has more than {most} categories: leave it out, or group them")]
    TooManyCategories {
        /// The column.
        column: String,
        /// What is allowed.
        most: usize,
    },
    /// Columns that never vary have no components.
    #[error("each column of the reference has one value only: there is nothing to reconstruct")]
    NothingVaries,
    /// As many components as columns give every row back as it was.
    #[error(
        "{components} components of {columns} columns lose nothing, so that no error shows: keep fewer, or give more columns"
    )]
    NothingLost {
        /// Components that the settings keep.
        components: usize,
        /// Columns of the reference.
        columns: usize,
    },
    /// A setting for which the method has no meaning.
    #[error("`{field}` is {value}, but must be {allowed}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// What it was.
        value: f64,
        /// What it may be, in words.
        allowed: &'static str,
    },
}

impl Reconstruction {
    /// Fits the rows of a reference, which lie one after the other in `rows`. NaN is a missing value; so is a value that is
    /// infinite or beyond ±1e100.
    ///
    /// # Errors
    /// The rows have no components or no limits, or a setting is out of its range.
    pub fn fit(
        columns: &[String],
        rows: &[f64],
        settings: &ReconstructionSettings,
    ) -> Result<Self, FitError> {
        let width = columns.len();
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(FitError::Shape { values: rows.len(), columns: width });
        }
        if width > MAX_COLUMNS {
            return Err(FitError::TooManyColumns { columns: width, most: MAX_COLUMNS });
        }
        let count = rows.len() / width;
        let window_rows = settings.window_rows.unwrap_or(count / 10).max(1);
        if count <= window_rows {
            return Err(FitError::TooFewRows { rows: count, window_rows });
        }
        check(settings, width.min(count))?;

        let (means, scales) = standardise(columns, rows)?;
        let (values, vectors) = eigen::symmetric(covariance(rows, &means, &scales), width);
        let total: f64 = values.iter().sum();
        // A column that varies adds about 1, one that does not adds rounding.
        if total < 0.5 {
            return Err(FitError::NothingVaries);
        }
        let shares: Vec<f64> =
            values.iter().scan(0.0, |sum, value| Some(accumulate(sum, value / total))).collect();
        let kept = match settings.keep {
            Keep::Variance(share) => (shares.partition_point(|&sum| sum <= share) + 1).min(width),
            Keep::Components(kept) => kept,
        };
        if kept == width {
            return Err(FitError::NothingLost { components: kept, columns: width });
        }
        let components = vectors[..kept * width].to_vec();
        let limits = Limits { lower: None, upper: f64::MAX };
        let columns = columns.to_vec();
        let explained = shares[kept - 1];
        let mut fitted =
            Self { columns, means, scales, components, explained, limits, window_rows: window_rows as u64 };
        fitted.limits = fitted.limits_of(rows, window_rows, settings.deviations);
        Ok(fitted)
    }

    fn limits_of(&self, rows: &[f64], window_rows: usize, deviations: f64) -> Limits {
        let mut window = ReconstructionWindow::new();
        let mut means = Vec::new();
        for rows in rows.chunks(window_rows.saturating_mul(self.columns.len())) {
            window.clear();
            for row in rows.chunks_exact(self.columns.len()) {
                // Rows of the reference have its number of columns.
                let _ = window.add(self, row);
            }
            means.extend(window.mean());
        }
        let n = means.len() as f64;
        let mean = means.iter().sum::<f64>() / n;
        let squares: f64 = means.iter().map(|value| (value - mean) * (value - mean)).sum();
        let reach = deviations * (squares / n).sqrt();
        Limits { lower: Some(mean - reach).filter(|&lower| lower > NOISE), upper: (mean + reach).max(NOISE) }
    }
}

fn accumulate(sum: &mut f64, value: f64) -> f64 {
    *sum += value;
    *sum
}

fn check(settings: &ReconstructionSettings, most: usize) -> Result<(), FitError> {
    let range = |field, value, fits, allowed| {
        if fits { Ok(()) } else { Err(FitError::OutOfRange { field, value, allowed }) }
    };
    match settings.keep {
        Keep::Variance(share) => {
            range("keep.variance", share, share > 0.0 && share < 1.0, "between 0 and 1")?;
        }
        Keep::Components(kept) => {
            let allowed = "at least 1 and at most the number of columns and of rows";
            range("keep.components", kept as f64, (1..=most).contains(&kept), allowed)?;
        }
    }
    let deviations = settings.deviations;
    range("deviations", deviations, deviations >= 0.0 && deviations.is_finite(), "zero or more")
}

/// The mean and the standard deviation of each column, as they are after missing values became the mean. A column that does
/// not vary has the scale 1.
fn standardise(columns: &[String], rows: &[f64]) -> Result<(Vec<f64>, Vec<f64>), FitError> {
    let width = columns.len();
    let count = (rows.len() / width) as f64;
    let (mut means, mut scales) = (Vec::with_capacity(width), Vec::with_capacity(width));
    for (i, column) in columns.iter().enumerate() {
        let values = || rows.iter().skip(i).step_by(width).copied().filter(|&value| present(value));
        let seen = values().count() as f64;
        if seen == 0.0 {
            return Err(FitError::NothingPresent { column: column.clone() });
        }
        let rough = values().sum::<f64>() / seen;
        // The second pass removes the rounding of the first, which grows with the number of rows.
        let mean = rough + values().map(|value| value - rough).sum::<f64>() / seen;
        let variance = values().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        // What rounding alone can make of a column of one value.
        let rounding = count * f64::EPSILON * variance + (count * mean * f64::EPSILON).powi(2);
        means.push(mean);
        scales.push(if variance <= rounding { 1.0 } else { variance.sqrt() });
    }
    Ok((means, scales))
}

fn covariance(rows: &[f64], means: &[f64], scales: &[f64]) -> Vec<f64> {
    let width = means.len();
    let mut sums = vec![0.0; width * width];
    let mut z = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        for (i, &value) in row.iter().enumerate() {
            z[i] = standard(value, means[i], scales[i]);
        }
        for (i, sums) in sums.chunks_exact_mut(width).enumerate() {
            let factor = z[i];
            sums[i..].iter_mut().zip(&z[i..]).for_each(|(sum, other)| *sum += factor * other);
        }
    }
    let freedom = (rows.len() / width).saturating_sub(1).max(1) as f64;
    for i in 0..width {
        for j in i..width {
            sums[i * width + j] /= freedom;
            sums[j * width + i] = sums[i * width + j];
        }
    }
    sums
}
