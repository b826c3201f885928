//! The Page-Hinkley test: a cumulative sum of deviations from the running mean, against its lowest or highest point.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mean::Mean;
use super::{Check, DetectorError, Signal};

/// Parameters of the Page-Hinkley test. `threshold` and `delta` are in units of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PageHinkleySettings {
    /// Values that are read before the first test; 30 by default.
    pub min_instances: u64,
    /// The change per value that is tolerated; 0.005 by default.
    pub delta: f64,
    /// How far the sum must be from its extreme; 50 by default.
    pub threshold: f64,
    /// The factor by which the sum forgets, per value; 0.9999 by default.
    pub alpha: f64,
    /// Which way the mean must move; both ways by default.
    pub mode: Mode,
}

/// Which way a mean must move to be a drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A rise.
    Up,
    /// A fall.
    Down,
    /// Either.
    #[default]
    Both,
}

impl Default for PageHinkleySettings {
    fn default() -> Self {
        Self { min_instances: 30, delta: 0.005, threshold: 50.0, alpha: 1.0 - 0.0001, mode: Mode::Both }
    }
}

/// With `d = x - mean`, after each value: `rise = alpha * rise + d - delta` and `fall = alpha * fall + d + delta`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageHinkley {
    pub(super) settings: PageHinkleySettings,
    mean: Mean,
    rise: f64,
    fall: f64,
    /// The lowest `rise` and the highest `fall`; none before the first value.
    extremes: Option<(f64, f64)>,
}

impl PageHinkley {
    pub(super) fn new(settings: PageHinkleySettings) -> Self {
        Self { settings, mean: Mean::default(), rise: 0.0, fall: 0.0, extremes: None }
    }

    pub(super) fn update(&mut self, value: f64) -> Signal {
        let PageHinkleySettings { min_instances, delta, threshold, alpha, mode } = self.settings;
        self.mean.update(value);
        let deviation = value - self.mean.value;
        self.rise = alpha * self.rise + deviation - delta;
        self.fall = alpha * self.fall + deviation + delta;
        let (lowest, highest) = self.extremes.unwrap_or((self.rise, self.fall));
        let (lowest, highest) = (lowest.min(self.rise), highest.max(self.fall));
        self.extremes = Some((lowest, highest));

        let rose = self.rise - lowest > threshold;
        let fell = highest - self.fall > threshold;
        let moved = match mode {
            Mode::Up => rose,
            Mode::Down => fell,
            Mode::Both => rose || fell,
        };
        if moved && self.mean.n >= min_instances { Signal::Drift } else { Signal::None }
    }

    pub(super) fn check(&self) -> Result<(), DetectorError> {
        let PageHinkleySettings { delta, threshold, alpha, .. } = self.settings;
        let check = Check("page_hinkley");
        let positive = |value: f64| value >= 0.0 && value.is_finite();
        check.range("delta", delta, positive(delta), "zero or more")?;
        check.range("threshold", threshold, positive(threshold), "zero or more")?;
        check.range("alpha", alpha, alpha > 0.0 && alpha <= 1.0, "above 0 and at most 1")?;
        let (lowest, highest) = self.extremes.unwrap_or_default();
        check.state(true, [self.mean.value, self.rise, self.fall, lowest, highest])
    }
}
