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
mod fit;
mod live;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
mod window;

use serde::{Deserialize, Serialize};

pub use category::{FrequencyEncoding, MAX_CATEGORIES};
pub use file::{FileError, MultivariateSettings, MultivariateSpec};
pub use fit::{FitError, Keep, ReconstructionSettings};
pub(crate) use live::Rebuilding;
pub use live::{Rebuilt, RebuiltBy};
pub use window::ReconstructionWindow;

/// Columns that are fitted. The fit takes a time of their third power; a reference with more is refused.
pub const MAX_COLUMNS: usize = 512;

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
