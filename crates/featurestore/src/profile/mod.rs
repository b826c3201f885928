//! What the values of a feature look like: how many there are, where they lie, which are frequent.

mod numbers;
mod tally;

use serde_json::Value;

pub use self::numbers::{Histogram, Numbers};
pub(crate) use self::tally::Tally;
use crate::Column;

/// What the values of one feature look like in the rows that are there.
///
/// Made by [`OnlineTable::profile`](crate::OnlineTable::profile) in one pass over the rows. It depends on the values alone: not on
/// their order, nor on the store that holds them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// The feature.
    pub feature: Column,
    /// Rows that have a value.
    pub count: u64,
    /// Rows where the feature is null.
    pub nulls: u64,
    /// How many different values there are. Values that are not finite are none of them.
    pub distinct: Distinct,
    /// The most frequent values and how many rows have each, at most [`Profile::FREQUENT`], the most frequent first and of equally
    /// frequent ones the smallest. Numbers, truth values and text as in JSON; dates and times as text of ISO 8601. None are known if
    /// there are [more](Distinct::MoreThan) different ones than are counted.
    pub frequent: Vec<(Value, u64)>,
    /// What numbers have beside.
    pub numbers: Option<Numbers>,
}

impl Profile {
    /// How many of the most frequent values are told.
    pub const FREQUENT: usize = 10;
    /// How many different texts are counted at most, and bytes of them.
    pub const TEXTS: (usize, usize) = (65_536, 16 << 20);
    /// How many values are held at most while they are looked at, at eight bytes each. Truth values and text need no room.
    pub const VALUES: usize = 1 << 27;
    /// Where quantiles are told.
    pub const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];
    /// Bins of a histogram.
    pub const BINS: usize = 20;
}

/// How many different values a feature has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// So many.
    Exactly(u64),
    /// More than these, after which they were not counted any more.
    MoreThan(u64),
}

/// Why it cannot be told what the values of a feature look like.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The feature is a window.
    #[error("it is a window, which has a value at a time and none in the rows")]
    Window,
    /// The rows lie in another process, and are not all read for this.
    #[error(
        "its rows lie outside of this process, in a store that gives rows by key; give gaps a value with `{{default: VALUE}}`, and \
         ask for statistics where the rows come from"
    )]
    Elsewhere,
    /// There are more values than are held at once.
    #[error("it has more than {limit} values")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// The feature's number is none of the set's.
    #[error("feature number {number} of {features}")]
    Feature {
        /// The number.
        number: usize,
        /// How many features the set has.
        features: usize,
    },
    /// The rows cannot be read.
    #[error("its rows cannot be read")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
