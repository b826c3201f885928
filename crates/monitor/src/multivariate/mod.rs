//! Multivariate drift: do the columns still hang together as they did?
//!
//! A change of how columns move together can leave each of them, seen alone, as it was. The reconstruction error finds it:
//! rows are compressed to the principal components of the reference and expanded again, and the distance between a row and
//! what comes back is small for rows that are built as those of the reference are.
//!
//! For a row `x`, with the reference's means `m`, its standard deviations `s` (of the population) and its components `V`:
//!
//! ```text
//! z = (x - m) / s        missing: z = 0
//! error = || z - V' V z ||
//! ```
//!
//! The value of a window is the mean error of its rows. Its limits are three standard deviations around the mean of windows
//! of the reference. NannyML 0.13.1 calls this `DataReconstructionDriftCalculator`; defaults and values are the same.
//!
//! ```
//! use millstream_monitor::multivariate::{Reconstruction, ReconstructionSettings, ReconstructionWindow};
//!
//! // Two columns that move together, and noise.
//! let row = |i: u32| [f64::from(i % 10), f64::from(i % 10) + f64::from(i % 7) / 10.0];
//! let reference: Vec<f64> = (0..700).flat_map(row).collect();
//! let columns = ["income".to_owned(), "limit".to_owned()];
//! let fitted = Reconstruction::fit(&columns, &reference, &ReconstructionSettings::default()).unwrap();
//!
//! let mut window = ReconstructionWindow::new();
//! for i in 0..70 {
//!     let [income, limit] = row(i);
//!     window.add(&fitted, &[income, 10.0 - limit]).unwrap();
//! }
//! assert!(fitted.limits().breached_by(window.mean().unwrap()));
//! ```
//!
//! Columns of categories become numbers by a [`FrequencyEncoding`] first.

mod category;
mod eigen;
mod file;
mod live;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
mod window;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use category::{FrequencyEncoding, MAX_CATEGORIES};
pub use file::{FileError, MultivariateSettings, MultivariateSpec};
pub(crate) use live::Rebuilding;
pub use live::{Rebuilt, RebuiltBy};
pub use window::ReconstructionWindow;

/// Columns that are fitted. The fit takes a time of their third power; a reference with more is refused.
pub const MAX_COLUMNS: usize = 512;

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

/// A row that does not fit the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the row has {got} values, but the reference has {wanted} columns")]
pub struct RowError {
    /// Columns of the reference.
    pub wanted: usize,
    /// Values of the row.
    pub got: usize,
}

/// Between which values the mean error of a window lies while nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The lower limit; none where it would be below 1e-9, as it is for errors around zero.
    pub lower: Option<f64>,
    /// The upper limit; at least 1e-9. Smaller errors are rounding, as where one column is the sum of others.
    pub upper: f64,
}

impl Limits {
    /// Whether a window's mean error is on a limit or beyond it.
    pub fn breached_by(&self, mean: f64) -> bool {
        mean >= self.upper || self.lower.is_some_and(|lower| mean <= lower)
    }
}

/// What is known of the reference: enough to find the reconstruction error of any row. Made by [`Reconstruction::fit`], saved
/// beside the model with serde, and read by any number of windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct Reconstruction {
    columns: Vec<String>,
    means: Vec<f64>,
    scales: Vec<f64>,
    /// One component after the other, each of as many numbers as there are columns.
    components: Vec<f64>,
    explained: f64,
    limits: Limits,
    /// Rows in each window that the limits are made of.
    window_rows: u64,
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

    /// The columns of the reference, in the order that rows must have.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many components are kept.
    pub fn components(&self) -> usize {
        self.components.len() / self.columns.len()
    }

    /// The share of the reference's variance that the components hold, from 0 to 1.
    pub fn explained_variance(&self) -> f64 {
        self.explained
    }

    /// The limits of a window's mean error.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Removes from the standardised row its part along each component; what remains is what is not reconstructed.
    pub(crate) fn error(&self, row: &[f64], scratch: &mut Vec<f64>) -> Result<f64, RowError> {
        let width = self.columns.len();
        if row.len() != width {
            return Err(RowError { wanted: width, got: row.len() });
        }
        let parameters = self.means.iter().zip(&self.scales);
        scratch.clear();
        scratch
            .extend(row.iter().zip(parameters).map(|(&value, (mean, scale))| standard(value, *mean, *scale)));
        // The components are orthogonal, so that one after the other removes what all together would.
        for component in self.components.chunks_exact(width) {
            let along: f64 = scratch.iter().zip(component).map(|(z, c)| z * c).sum();
            scratch.iter_mut().zip(component).for_each(|(z, c)| *z -= along * c);
        }
        Ok(scratch.iter().map(|z| z * z).sum::<f64>().sqrt())
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

impl TryFrom<Saved> for Reconstruction {
    type Error = &'static str;

    fn try_from(saved: Saved) -> Result<Self, Self::Error> {
        let Saved { columns, means, scales, components, explained, limits, window_rows } = saved;
        let width = columns.len();
        let shaped = (1..=MAX_COLUMNS).contains(&width)
            && means.len() == width
            && scales.len() == width
            && (width..=width * width).contains(&components.len())
            && components.len().is_multiple_of(width);
        let numbers = means.iter().chain(&components).chain([&explained, &limits.upper]);
        let finite = numbers.copied().all(f64::is_finite) && limits.lower.is_none_or(f64::is_finite);
        if shaped && finite && scales.iter().all(|scale| *scale > 0.0 && scale.is_finite()) {
            return Ok(Self { columns, means, scales, components, explained, limits, window_rows });
        }
        Err("the saved reconstruction is damaged: fit its reference again")
    }
}

/// What a [`Reconstruction`] is read from, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    columns: Vec<String>,
    means: Vec<f64>,
    scales: Vec<f64>,
    components: Vec<f64>,
    explained: f64,
    limits: Limits,
    #[serde(default)]
    window_rows: u64,
}

/// Beyond this a value counts as missing: squares of larger ones could overflow in a sum.
const LARGEST: f64 = 1e100;

/// Errors below this are rounding.
const NOISE: f64 = 1e-9;

fn present(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// A missing value becomes the mean.
fn standard(value: f64, mean: f64, scale: f64) -> f64 {
    if present(value) { (value - mean) / scale } else { 0.0 }
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
