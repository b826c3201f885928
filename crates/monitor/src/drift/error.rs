//! What drift cannot be computed of.

use std::fmt;

/// Why there is no distance.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DriftError {
    /// Nothing can be said of no values.
    #[error("the {side} sample has no values; wait until there are some")]
    Empty {
        /// Which of the two samples.
        side: Side,
    },
    /// Order and distance mean nothing for such a value.
    #[error("value {index} of the {side} sample is not a number; drop missing values first")]
    NotANumber {
        /// Which of the two samples.
        side: Side,
        /// Where in it.
        index: usize,
    },
    /// Bins of equal width and distances in the feature's unit need finite values.
    #[error("value {index} of the {side} sample is infinite; drop it, or count into quantile bins")]
    Infinite {
        /// Which of the two samples.
        side: Side,
        /// Where in it.
        index: usize,
    },
    /// Both sides are counted into the same bins.
    #[error(
        "there are {reference} bins of the reference but {live} live ones; count both into the same bins"
    )]
    BinsDiffer {
        /// Number of the reference's bins.
        reference: usize,
        /// Number of the live bins.
        live: usize,
    },
    /// Bins lie side by side.
    #[error("bin edge {index} does not lie above the edge before it; sort the edges and drop equal ones")]
    EdgesNotRising {
        /// Of the edge that does not rise.
        index: usize,
    },
    /// The number of bins is bounded, and floating point tells only so many values of a range apart.
    #[error("{bins} bins cannot be made of this range; ask for fewer, at least one and at most {max}", max = super::MAX_BINS)]
    TooManyBins {
        /// How many were to be made.
        bins: usize,
    },
    /// A share is a part of one.
    #[error("share {index} of the {side} is {value}; shares are finite and not below zero")]
    BadShare {
        /// Which of the two.
        side: Side,
        /// Where in it.
        index: usize,
        /// What it is.
        value: f64,
    },
    /// A probability lies between zero and one.
    #[error("p-value {index} is {value}; p-values lie between 0 and 1")]
    BadProbability {
        /// Where among the p-values.
        index: usize,
        /// What it is.
        value: f64,
    },
    /// Thresholds of two stages rise.
    #[error("thresholds {potential} and {detected} must satisfy 0 < potential < detected < 1")]
    BadThresholds {
        /// From where drift is suspected.
        potential: f64,
        /// From where drift is certain.
        detected: f64,
    },
}

/// One of the two samples that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the model was trained on.
    Reference,
    /// What is served.
    Live,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Live => "live",
        })
    }
}

/// A sample in ascending order, of at least one value and without NaN. Infinities have a place in an order.
pub(super) fn sorted(values: &[f64], side: Side) -> Result<Vec<f64>, DriftError> {
    if values.is_empty() {
        return Err(DriftError::Empty { side });
    }
    if let Some(index) = values.iter().position(|value| value.is_nan()) {
        return Err(DriftError::NotANumber { side, index });
    }
    let mut sorted = values.to_vec();
    // Adding zero makes a negative zero a positive one: the order of `total_cmp` sets them apart, equality does not.
    sorted.iter_mut().for_each(|value| *value += 0.0);
    sorted.sort_unstable_by(f64::total_cmp);
    Ok(sorted)
}

/// As [`sorted`] asks for, and all of it finite.
pub(super) fn finite(values: &[f64], side: Side) -> Result<(), DriftError> {
    if values.is_empty() {
        return Err(DriftError::Empty { side });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) if values[index].is_nan() => Err(DriftError::NotANumber { side, index }),
        Some(index) => Err(DriftError::Infinite { side, index }),
        None => Ok(()),
    }
}

/// Refuses two sides of different length.
pub(super) fn same_bins(reference: usize, live: usize) -> Result<(), DriftError> {
    if reference == live { Ok(()) } else { Err(DriftError::BinsDiffer { reference, live }) }
}

/// The sum of counts, above zero. Its width keeps any number of any counts from overflowing.
pub(super) fn total(counts: &[u64], side: Side) -> Result<f64, DriftError> {
    let total: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    if total == 0 { Err(DriftError::Empty { side }) } else { Ok(total as f64) }
}
