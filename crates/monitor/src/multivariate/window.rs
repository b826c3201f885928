//! Reconstruction errors of one window of rows.

use serde::{Deserialize, Serialize};

use super::{Reconstruction, RowError};

/// The mean reconstruction error of the rows of one window. Takes one row at a time and keeps none.
///
/// Windows of the same [`Reconstruction`] merge: the result is the window of all their rows, up to rounding.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconstructionWindow {
    rows: u64,
    skipped: u64,
    mean: f64,
    /// The sum of squared deviations from the mean.
    squares: f64,
    /// Room for one row, so that adding a row allocates nothing but the first time.
    #[serde(skip)]
    scratch: Vec<f64>,
}

impl ReconstructionWindow {
    /// A window without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row and answers with its reconstruction error.
    ///
    /// Values that are not finite, or beyond ±1e100, count as missing. Where the error itself overflows, the row is counted
    /// in [`ReconstructionWindow::skipped`] only.
    ///
    /// # Errors
    /// The row has not as many values as the reference has columns. Nothing is counted then.
    pub fn add(&mut self, reconstruction: &Reconstruction, row: &[f64]) -> Result<f64, RowError> {
        let error = reconstruction.error(row, &mut self.scratch)?;
        if error.is_finite() && error < LARGEST {
            self.rows = self.rows.saturating_add(1);
            let before = error - self.mean;
            self.mean += before / self.rows as f64;
            self.squares += before * (error - self.mean);
        } else {
            self.skipped = self.skipped.saturating_add(1);
        }
        Ok(error)
    }

    /// Adds the rows of another window.
    pub fn merge(&mut self, other: &Self) {
        self.skipped = self.skipped.saturating_add(other.skipped);
        let rows = self.rows.saturating_add(other.rows);
        if other.rows == 0 || rows == 0 {
            return;
        }
        let (a, b, n) = (self.rows as f64, other.rows as f64, rows as f64);
        let distance = other.mean - self.mean;
        self.mean += distance * (b / n);
        self.squares += other.squares + distance * distance * a * (b / n);
        self.rows = rows;
    }

    /// Empties the window for the next one.
    pub fn clear(&mut self) {
        (self.rows, self.skipped, self.mean, self.squares) = (0, 0, 0.0, 0.0);
    }

    /// Rows in the mean.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows whose error overflows.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The mean of the rows' reconstruction errors, in standard deviations of the reference; none without rows.
    pub fn mean(&self) -> Option<f64> {
        (self.rows > 0).then_some(self.mean)
    }

    /// The standard error of the mean, `s / sqrt(rows)`; none below two rows. NannyML draws its band at three of them.
    pub fn sampling_error(&self) -> Option<f64> {
        let rows = self.rows as f64;
        (self.rows > 1).then(|| (self.squares.max(0.0) / (rows - 1.0)).sqrt() / rows.sqrt())
    }
}

/// Squares of larger errors could overflow in a sum.
const LARGEST: f64 = 1e100;
