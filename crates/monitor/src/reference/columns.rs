//! How the columns of a reference are counted, as the reference's own values suggest.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    drift::Bins,
    sketch::{KEPT, Labels},
};

/// How a column of a reference is counted, and live values with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceColumn {
    /// In bins that these ascending edges cut; an edge belongs to the bin above it.
    Numeric {
        /// The edges.
        edges: Vec<f64>,
    },
    /// By category.
    Categorical {
        /// The most frequent ones, the most frequent first.
        known: Vec<String>,
    },
}

impl ReferenceColumn {
    /// Of what was counted of a column's categories.
    pub(super) fn of(labels: &Labels) -> Self {
        let counts = labels.counts();
        let known = counts.into_iter().filter(|(_, count)| *count > 0).take(KEPT);
        Self::Categorical { known: known.map(|(name, _)| name.to_owned()).collect() }
    }

    /// The most frequent categories.
    pub(crate) fn frequent(&self, most: usize) -> &[String] {
        match self {
            Self::Categorical { known } => &known[..known.len().min(most)],
            Self::Numeric { .. } => &[],
        }
    }
}

/// Which bins numeric columns are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinRule {
    /// So many of equal parts of the reference.
    Quantiles(usize),
    /// As MLRun does: 20 of equal width, and one on either side for what lies beyond.
    Mlrun,
    /// As NannyML does: Doane's rule, and what lies beyond.
    Doane,
}

impl Default for BinRule {
    fn default() -> Self {
        Self::Quantiles(10)
    }
}

impl fmt::Display for BinRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantiles(bins) => write!(out, "{bins} bins of equal parts"),
            Self::Mlrun => out.write_str("MLRun's bins"),
            Self::Doane => out.write_str("NannyML's bins"),
        }
    }
}

/// MLRun's bins of equal width.
pub(super) const MLRUN_BINS: usize = 20;

/// Closed bins hold their greatest edge: behind it begins what lies beyond.
pub(super) fn open_ended(bins: &Bins) -> Vec<f64> {
    let mut edges = bins.edges().to_vec();
    if let Some(last) = edges.last_mut() {
        *last = last.next_up();
    }
    edges
}
