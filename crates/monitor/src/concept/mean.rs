//! The mean of the values so far.

use serde::{Deserialize, Serialize};

/// A running mean: `mean += (x - mean) / n`. Zero before the first value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mean {
    pub(super) n: u64,
    pub(super) value: f64,
}

impl Mean {
    pub(super) fn update(&mut self, value: f64) {
        self.n = self.n.saturating_add(1);
        // The reciprocal first: a last bit decides at times whether a bound is passed, and river rounds this way.
        self.value += (1.0 / self.count()) * (value - self.value);
    }

    pub(super) fn count(&self) -> f64 {
        self.n as f64
    }
}
