//! EDDM: errors that follow each other more closely than they did.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mean::Mean;
use super::{Check, DetectorError, Signal};

/// Parameters of EDDM.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EddmSettings {
    /// Errors that are read before the first test; 30 by default.
    pub warm_start: u64,
    /// The share of the longest distance below which it warns; 0.95 by default.
    pub alpha: f64,
    /// The share of the longest distance below which it is a drift; 0.9 by default.
    pub beta: f64,
}

impl Default for EddmSettings {
    fn default() -> Self {
        Self { warm_start: 30, alpha: 0.95, beta: 0.9 }
    }
}

/// With the mean `p` and the standard deviation `s` of the number of values from one error to the next, the highest
/// `p + 2 s` is kept. A drift is a present `p + 2 s` below `beta` times that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Eddm {
    pub(super) settings: EddmSettings,
    values: u64,
    last_error: u64,
    distance: Mean,
    /// The sum of squared deviations from the mean distance.
    squares: f64,
    highest: f64,
    /// Holds from one error to the next.
    warned: bool,
}

impl Eddm {
    pub(super) fn new(settings: EddmSettings) -> Self {
        let distance = Mean::default();
        Self { settings, values: 0, last_error: 0, distance, squares: 0.0, highest: 0.0, warned: false }
    }

    pub(super) fn update(&mut self, value: f64) -> Signal {
        self.values = self.values.saturating_add(1);
        let drifted = value == 1.0 && self.error();
        match (drifted, self.warned) {
            (true, _) => Signal::Drift,
            (false, true) => Signal::Warning,
            (false, false) => Signal::None,
        }
    }

    /// Reads an error; true if it is a drift.
    fn error(&mut self) -> bool {
        let EddmSettings { warm_start, alpha, beta } = self.settings;
        let distance = self.values.saturating_sub(self.last_error) as f64;
        self.last_error = self.values;
        let before = distance - self.distance.value;
        self.distance.update(distance);
        self.squares += before * (distance - self.distance.value);
        if self.values <= warm_start {
            return false;
        }
        let errors = self.distance.count();
        let variance = if self.distance.n > 1 { self.squares / (errors - 1.0) } else { 0.0 };
        let reach = self.distance.value + 2.0 * variance.sqrt();
        if reach > self.highest {
            self.highest = reach;
        } else if self.distance.n > warm_start {
            let level = reach / self.highest;
            if level < beta {
                return true;
            }
            self.warned = level < alpha;
        }
        false
    }

    pub(super) fn check(&self) -> Result<(), DetectorError> {
        let EddmSettings { alpha, beta, .. } = self.settings;
        let check = Check("eddm");
        check.range("alpha", alpha, alpha > 0.0 && alpha <= 1.0, "above 0 and at most 1")?;
        check.range("beta", beta, beta > 0.0 && beta <= alpha, "above 0 and at most `alpha`")?;
        let fits = self.last_error <= self.values && self.distance.n <= self.values && self.squares >= 0.0;
        check.state(fits, [self.distance.value, self.squares, self.highest])
    }
}
