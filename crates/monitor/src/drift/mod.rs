//! How far what is served lies from what a model was trained on.
//!
//! Two kinds of input, two kinds of kernel. Samples are slices of numbers: [`ks_two_sample`] and [`wasserstein`] compare
//! them as they are. Counts are slices of whole numbers over shared bins: [`Shares`] compares them by PSI, KL,
//! Jensen-Shannon, Hellinger, total variation and L-infinity, [`chi_square_contingency`] by a test. [`Bins`] turn the one
//! into the other, and [`Frozen`] bins keep the counts of the reference, so that only the live side is counted later.
//!
//! A distance is no verdict: of two samples from one distribution each distance is above zero, the more so the smaller
//! they are. [`Measure::limit`] says how much of it is noise, [`benjamini_hochberg`] how many of a thousand columns are, and
//! [`profile`] gives the numbers and verdicts of other tools.
//!
//! ```
//! use millstream_monitor::drift::{Bins, Frozen, Measure, Zeros};
//!
//! let reference: Vec<f64> = (0..1000).map(|i| f64::from(i % 100)).collect();
//! let live: Vec<f64> = (0..500).map(|i| f64::from(i % 100) + 20.0).collect();
//!
//! let frozen = Frozen::new(Bins::quantiles(&reference, 10)?, &reference)?;
//! let shares = frozen.shares(&frozen.bins().count(&live))?;
//! assert!(shares.psi(Zeros::default()) > Measure::Psi.limit(&shares, 0.05));
//! # Ok::<(), millstream_monitor::drift::DriftError>(())
//! ```

mod bins;
mod categories;
mod chi_square;
mod discovery;
mod distance;
mod error;
mod kolmogorov;
mod ks;
mod moments;
pub mod profile;
mod special;
mod threshold;
mod wasserstein;

pub use bins::{Bins, Counts, Ends, Frozen, MAX_BINS};
pub use categories::{Aligned, align};
pub use chi_square::{ChiSquare, chi_square_contingency, chi_square_fit};
pub use discovery::{benjamini_hochberg, bonferroni};
pub use distance::{Shares, Zeros};
pub use error::{DriftError, Side};
pub use ks::{EXACT_LIMIT, Ks, KsMethod, ks_binned, ks_two_sample};
pub use threshold::{
    Gate, Judgement, Measure, Minimum, Sizes, Verdict, psi_chi_square_limit, psi_normal_limit,
};
pub use wasserstein::{wasserstein, wasserstein_of_bins, wasserstein_of_centres, wasserstein_scaled};
