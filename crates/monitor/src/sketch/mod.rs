//! What is kept of columns instead of their values: counts, whose merging is addition.

mod kept;
mod labels;
mod numbers;
mod recent;
mod spectrum;
mod times;

use serde::{Deserialize, Serialize};

pub use kept::{Kept, Merge, NAME_BYTES};
pub use labels::{KEPT, Labels};
pub use numbers::{Bounds, Numbers};
pub(crate) use recent::Recent;
pub use spectrum::{Bucket, Spectrum};
pub use times::Times;

/// What is kept of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sketch {
    /// Of numbers.
    Numbers(Numbers),
    /// Of categories.
    Labels(Labels),
    /// Of anything else.
    Presence(Presence),
    /// Of times.
    Times(Times),
}

/// How many rows of a column have a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Rows with a value.
    pub values: u64,
    /// Rows without one.
    pub nulls: u64,
}

impl Merge for Sketch {
    /// Of two kinds, which a column has only under two schemas, the later in [`Sketch`] stays alone: whichever comes first, the outcome
    /// is the same. [`Pane`](crate::Pane)s know which of theirs is the newer.
    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Numbers(mine), Self::Numbers(other)) => mine.merge(other),
            (Self::Labels(mine), Self::Labels(other)) => mine.merge(other),
            (Self::Presence(mine), Self::Presence(other)) => {
                mine.values += other.values;
                mine.nulls += other.nulls;
            }
            (Self::Times(mine), Self::Times(other)) => mine.merge(other),
            (mine, other) if other.kind() > mine.kind() => *mine = other.clone(),
            _ => {}
        }
    }
}

impl Sketch {
    /// The place of its kind among all kinds.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Numbers(_) => 0,
            Self::Labels(_) => 1,
            Self::Presence(_) => 2,
            Self::Times(_) => 3,
        }
    }

    /// Rows, with or without a value.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Numbers(numbers) => numbers.rows(),
            Self::Labels(labels) => labels.rows(),
            Self::Presence(presence) => presence.values + presence.nulls,
            Self::Times(times) => times.values() + times.nulls(),
        }
    }

    /// Rows without a value.
    pub fn nulls(&self) -> u64 {
        match self {
            Self::Numbers(numbers) => numbers.nulls(),
            Self::Labels(labels) => labels.nulls(),
            Self::Presence(presence) => presence.nulls,
            Self::Times(times) => times.nulls(),
        }
    }
}
