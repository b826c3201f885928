//! DDM: an error rate that rises above the lowest that it had.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mean::Mean;
use super::{Check, DetectorError, Signal};

/// Parameters of DDM.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DdmSettings {
    /// Values that are read before the first test; 30 by default.
    pub warm_start: u64,
    /// Standard deviations above the lowest error rate that warn; 2 by default.
    pub warning_threshold: f64,
    /// Standard deviations above the lowest error rate that are a drift; 3 by default.
    pub drift_threshold: f64,
}

impl Default for DdmSettings {
    fn default() -> Self {
        Self { warm_start: 30, warning_threshold: 2.0, drift_threshold: 3.0 }
    }
}

/// With the error rate `p` and its standard deviation `s = sqrt(p (1 - p) / n)`, the lowest `p + s` is kept as `p_min` and
/// `s_min`. A drift is `p + s > p_min + drift_threshold * s_min`. After a stream without errors `s_min` is zero, and the
/// first error is a drift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ddm {
    pub(super) settings: DdmSettings,
    rate: Mean,
    /// `p_min` and `s_min`; none before the warm start is over.
    lowest: Option<(f64, f64)>,
}

impl Ddm {
    pub(super) fn new(settings: DdmSettings) -> Self {
        Self { settings, rate: Mean::default(), lowest: None }
    }

    pub(super) fn update(&mut self, value: f64) -> Signal {
        let DdmSettings { warm_start, warning_threshold, drift_threshold } = self.settings;
        self.rate.update(value);
        if self.rate.n <= warm_start {
            return Signal::None;
        }
        let p = self.rate.value;
        // Rounding may bring the rate of a stream of ones above 1.
        let s = (p * (1.0 - p) / self.rate.count()).max(0.0).sqrt();
        let (p_min, s_min) = match self.lowest {
            Some((p_min, s_min)) if p + s > p_min + s_min => (p_min, s_min),
            _ => (p, s),
        };
        self.lowest = Some((p_min, s_min));
        if p + s > p_min + drift_threshold * s_min {
            Signal::Drift
        } else if p + s > p_min + warning_threshold * s_min {
            Signal::Warning
        } else {
            Signal::None
        }
    }

    pub(super) fn check(&self) -> Result<(), DetectorError> {
        let DdmSettings { warning_threshold: warning, drift_threshold: drift, .. } = self.settings;
        let check = Check("ddm");
        check.range("warning_threshold", warning, warning > 0.0, "above 0")?;
        let fits = drift >= warning && drift.is_finite();
        check.range("drift_threshold", drift, fits, "finite and at least `warning_threshold`")?;
        let (p_min, s_min) = self.lowest.unwrap_or_default();
        let fits = [self.rate.value, p_min, s_min].iter().all(|rate| (0.0..=1.0 + 1e-9).contains(rate));
        check.state(fits, [])
    }
}
