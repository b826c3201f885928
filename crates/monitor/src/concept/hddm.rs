//! HDDM: the mean of the whole stream against its mean at the best cut so far, with a distribution-free bound.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mean::Mean;
use super::{Check, DetectorError, Signal};

/// Parameters of HDDM_A, which compares plain means by Hoeffding's inequality.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HddmASettings {
    /// The chance of a false drift that is accepted; 0.001 by default.
    pub drift_confidence: f64,
    /// The chance of a false warning that is accepted; 0.005 by default.
    pub warning_confidence: f64,
    /// Whether a mean that falls counts too; false by default.
    pub two_sided_test: bool,
}

impl Default for HddmASettings {
    fn default() -> Self {
        Self { drift_confidence: 0.001, warning_confidence: 0.005, two_sided_test: false }
    }
}

/// Parameters of HDDM_W, which compares exponentially weighted means by McDiarmid's inequality.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HddmWSettings {
    /// The chance of a false drift that is accepted; 0.001 by default.
    pub drift_confidence: f64,
    /// The chance of a false warning that is accepted; 0.005 by default.
    pub warning_confidence: f64,
    /// The weight of a new value; 0.05 by default. A smaller one forgets more slowly.
    pub lambda: f64,
    /// Whether a mean that falls counts too; false by default.
    pub two_sided_test: bool,
}

impl Default for HddmWSettings {
    fn default() -> Self {
        Self { drift_confidence: 0.001, warning_confidence: 0.005, lambda: 0.05, two_sided_test: false }
    }
}

/// Keeps the mean at two cuts: where its upper bound was lowest, and where its lower bound was highest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HddmA {
    pub(super) settings: HddmASettings,
    total: Mean,
    low: Mean,
    high: Mean,
}

impl HddmA {
    pub(super) fn new(settings: HddmASettings) -> Self {
        let none = Mean::default();
        Self { settings, total: none, low: none, high: none }
    }

    pub(super) fn update(&mut self, value: f64) -> Signal {
        let HddmASettings { drift_confidence, warning_confidence, two_sided_test } = self.settings;
        self.total.update(value);
        let bound = |mean: &Mean| (1.0 / (2.0 * mean.count()) * (1.0 / drift_confidence).ln()).sqrt();
        let width = bound(&self.total);
        if self.low.n == 0 || self.low.value + bound(&self.low) >= self.total.value + width {
            self.low = self.total;
        }
        if self.high.n == 0 || self.high.value - bound(&self.high) <= self.total.value - width {
            self.high = self.total;
        }
        let rise = self.total.value - self.low.value;
        let up = level(drift_confidence, warning_confidence, |confidence| {
            self.exceeds(rise, self.low, confidence)
        });
        if !two_sided_test {
            return up;
        }
        let fall = self.high.value - self.total.value;
        up.max(level(drift_confidence, warning_confidence, |confidence| {
            self.exceeds(fall, self.high, confidence)
        }))
    }

    /// Whether a change of the mean since a cut is more than chance: `change >= sqrt(m / 2 ln(2 / confidence))`, with
    /// `m = 1 / n_cut - 1 / n`.
    fn exceeds(&self, change: f64, cut: Mean, confidence: f64) -> bool {
        if cut.n == self.total.n {
            return false;
        }
        let (n, n_cut) = (self.total.count(), cut.count());
        let m = (n - n_cut) / n_cut * (1.0 / n);
        change >= (m / 2.0 * (2.0 / confidence).ln()).sqrt()
    }

    pub(super) fn check(&self) -> Result<(), DetectorError> {
        let check = Check("hddm_a");
        confidences(&check, self.settings.drift_confidence, self.settings.warning_confidence)?;
        let started = self.total.n > 0;
        let fits = [self.low, self.high].iter().all(|cut| cut.n <= self.total.n && (cut.n > 0) == started);
        check.state(fits, [self.total.value, self.low.value, self.high.value])
    }
}

/// Keeps, for each direction, the weighted mean up to the best cut and the weighted mean after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HddmW {
    pub(super) settings: HddmWSettings,
    total: Weighted,
    low: Cut,
    high: Cut,
}

impl HddmW {
    pub(super) fn new(settings: HddmWSettings) -> Self {
        Self { settings, total: Weighted::default(), low: Cut::default(), high: Cut::default() }
    }

    pub(super) fn update(&mut self, value: f64) -> Signal {
        let HddmWSettings { drift_confidence, warning_confidence, lambda, two_sided_test } = self.settings;
        self.total.update(value, lambda);
        let Some(mean) = self.total.mean else { return Signal::None };
        let width = mcdiarmid(self.total.squared_weights, drift_confidence);

        let best = self.low.bound.is_none_or(|lowest| mean + width < lowest);
        self.low.update(best.then_some(mean + width), value, self.total, lambda);
        let up = level(drift_confidence, warning_confidence, |confidence| {
            exceeds(self.low.before, self.low.after, confidence)
        });
        if !two_sided_test {
            return up;
        }
        let best = self.high.bound.is_none_or(|highest| mean - width > highest);
        self.high.update(best.then_some(mean - width), value, self.total, lambda);
        up.max(level(drift_confidence, warning_confidence, |confidence| {
            exceeds(self.high.after, self.high.before, confidence)
        }))
    }

    pub(super) fn check(&self) -> Result<(), DetectorError> {
        let HddmWSettings { drift_confidence, warning_confidence, lambda, .. } = self.settings;
        let check = Check("hddm_w");
        confidences(&check, drift_confidence, warning_confidence)?;
        check.range("lambda", lambda, lambda > 0.0 && lambda < 1.0, "between 0 and 1")?;
        let samples = [self.total, self.low.before, self.low.after, self.high.before, self.high.after];
        let fits = samples.iter().all(|sample| (0.0..=1.0).contains(&sample.squared_weights));
        let bounds = [self.low.bound, self.high.bound];
        let means = samples.map(|sample| sample.mean);
        check.state(fits, bounds.into_iter().chain(means).flatten())
    }
}

/// An exponentially weighted mean, and the sum of the squares of its weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    mean: Option<f64>,
    squared_weights: f64,
}

impl Default for Weighted {
    fn default() -> Self {
        Self { mean: None, squared_weights: 1.0 }
    }
}

impl Weighted {
    fn update(&mut self, value: f64, lambda: f64) {
        let keep = 1.0 - lambda;
        self.mean = Some(self.mean.map_or(value, |mean| lambda * value + keep * mean));
        self.squared_weights = lambda * lambda + keep * keep * self.squared_weights;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cut {
    /// The bound of the mean at the cut; none before the first value.
    bound: Option<f64>,
    before: Weighted,
    after: Weighted,
}

impl Cut {
    /// Moves the cut to this value where its bound is the best so far, or else counts the value as one after the cut.
    fn update(&mut self, best: Option<f64>, value: f64, total: Weighted, lambda: f64) {
        match best {
            Some(_) => *self = Self { bound: best, before: total, after: Weighted::default() },
            None => self.after.update(value, lambda),
        }
    }
}

/// Whether the mean of `second` is above that of `first` by more than chance.
fn exceeds(first: Weighted, second: Weighted, confidence: f64) -> bool {
    let (Some(mean1), Some(mean2)) = (first.mean, second.mean) else { return false };
    mean2 - mean1 > mcdiarmid(first.squared_weights + second.squared_weights, confidence)
}

fn mcdiarmid(squared_weights: f64, confidence: f64) -> f64 {
    (squared_weights * (1.0 / confidence).ln() / 2.0).sqrt()
}

fn level(drift_confidence: f64, warning_confidence: f64, exceeds: impl Fn(f64) -> bool) -> Signal {
    if exceeds(drift_confidence) {
        Signal::Drift
    } else if exceeds(warning_confidence) {
        Signal::Warning
    } else {
        Signal::None
    }
}

fn confidences(check: &Check, drift: f64, warning: f64) -> Result<(), DetectorError> {
    check.range("drift_confidence", drift, drift > 0.0 && drift < 1.0, "between 0 and 1")?;
    let fits = warning >= drift && warning < 1.0;
    check.range("warning_confidence", warning, fits, "at least `drift_confidence` and below 1")
}
