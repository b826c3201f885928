//! Concept drift: has a stream of numbers changed its level since it began?
//!
//! The stream is what a model is judged by, one value per labelled prediction: an error (1) or none (0), a loss, a score.
//! A [`Detector`] reads the values one at a time, in their order, and answers with a [`Signal`]. It keeps no values, so that
//! its memory does not grow with the stream; ADWIN's grows with the logarithm of its window.
//!
//! | settings | detects | stream | memory | warns |
//! |---|---|---|---|---|
//! | `adwin` | a change of the mean in either direction | any | O(log W) | no |
//! | `page_hinkley` | a mean that moves up, down or either way | any | O(1) | no |
//! | `ddm` | an error rate that rises | 0 to 1 | O(1) | yes |
//! | `eddm` | errors that follow each other more closely | 1 is an error | O(1) | yes |
//! | `hddm_a` | a mean that rises, or with `two_sided_test` one that moves | 0 to 1 | O(1) | yes |
//! | `hddm_w` | the same, with recent values weighing more | 0 to 1 | O(1) | yes |
//!
//! Parameters, defaults and the places where a detector fires are those of river 0.26.1. Its KSWIN is not here: it compares
//! a random sample, so that the same stream gives other answers on another day.
//!
//! ```
//! use millstream_monitor::concept::{Detector, DetectorSettings, Signal};
//!
//! let settings: DetectorSettings = serde_json::from_str(r#"{"adwin": {"delta": 0.01}}"#).unwrap();
//! let mut detector = Detector::new(settings).unwrap();
//! let losses = (0..2000).map(|i| if i < 1000 { 0.2 } else { 0.9 });
//! let fired: Vec<usize> = losses
//!     .enumerate()
//!     .filter(|&(_, loss)| detector.update(loss) == Signal::Drift)
//!     .map(|(i, _)| i)
//!     .collect();
//! assert_eq!(fired, [1023]);
//! ```

mod adwin;
mod ddm;
mod eddm;
mod hddm;
mod mean;
mod page_hinkley;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use adwin::AdwinSettings;
pub use ddm::DdmSettings;
pub use eddm::EddmSettings;
pub use hddm::{HddmASettings, HddmWSettings};
pub use page_hinkley::{Mode, PageHinkleySettings};

/// What a detector says after a value. Ordered: a drift is more than a warning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The stream looks as it did.
    #[default]
    None,
    /// The stream may be changing: the weaker of the detector's two levels is passed.
    Warning,
    /// The stream has changed. The next value starts a new stream.
    Drift,
}

/// Which detector, with which parameters: `adwin: {delta: 0.002}`, or `adwin: {}` for its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DetectorSettings {
    /// Adaptive windowing (Bifet and Gavalda 2007).
    Adwin(AdwinSettings),
    /// The Page-Hinkley test (Page 1954).
    PageHinkley(PageHinkleySettings),
    /// The drift detection method (Gama and others 2004).
    Ddm(DdmSettings),
    /// The early drift detection method (Baena-Garcia and others 2006).
    Eddm(EddmSettings),
    /// Hoeffding's bound on averages (Frias-Blanco and others 2015).
    HddmA(HddmASettings),
    /// McDiarmid's bound on weighted averages (Frias-Blanco and others 2015).
    HddmW(HddmWSettings),
}

impl DetectorSettings {
    /// The detector, as files call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Adwin(_) => "adwin",
            Self::PageHinkley(_) => "page_hinkley",
            Self::Ddm(_) => "ddm",
            Self::Eddm(_) => "eddm",
            Self::HddmA(_) => "hddm_a",
            Self::HddmW(_) => "hddm_w",
        }
    }

    /// Whether its stream may be of any numbers, and not of 0 to 1 only.
    pub fn reads_any_number(&self) -> bool {
        matches!(self, Self::Adwin(_) | Self::PageHinkley(_))
    }

    /// Whether it warns before it fires.
    pub fn warns(&self) -> bool {
        !self.reads_any_number()
    }
}

/// Why a detector cannot be made or taken up again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DetectorError {
    /// A parameter for which the test has no meaning.
    #[error("`{detector}.{field}` is {value}, but must be {allowed}")]
    OutOfRange {
        /// The detector, as in its settings.
        detector: &'static str,
        /// The parameter.
        field: &'static str,
        /// What it was.
        value: f64,
        /// What it may be, in words.
        allowed: &'static str,
    },
    /// A saved state that no stream leads to.
    #[error("the saved state of `{detector}` is damaged: start a new detector from its settings")]
    DamagedState {
        /// The detector, as in its settings.
        detector: &'static str,
    },
}

/// The latest values of a stream that look alike. Evidence for an alert: about how long ago the change was, and to what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorWindow {
    /// How many values there are.
    pub values: u64,
    /// Their mean.
    pub mean: f64,
}

/// A drift detector and all that it knows of its stream. Made by [`Detector::new`]; its settings have been checked.
///
/// It can be saved and read again with serde at any place in the stream: the answers that follow are the same. The format
/// must give back every `f64` exactly (for `serde_json` that is its feature `float_roundtrip`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct Detector {
    algorithm: Algorithm,
    drifted: bool,
    seen: u64,
    ignored: u64,
}

impl Detector {
    /// A detector at the start of a stream.
    ///
    /// # Errors
    /// A parameter is out of its range.
    pub fn new(settings: DetectorSettings) -> Result<Self, DetectorError> {
        let algorithm = match settings {
            DetectorSettings::Adwin(settings) => Algorithm::Adwin(adwin::Adwin::new(settings)),
            DetectorSettings::PageHinkley(s) => Algorithm::PageHinkley(page_hinkley::PageHinkley::new(s)),
            DetectorSettings::Ddm(settings) => Algorithm::Ddm(ddm::Ddm::new(settings)),
            DetectorSettings::Eddm(settings) => Algorithm::Eddm(eddm::Eddm::new(settings)),
            DetectorSettings::HddmA(settings) => Algorithm::HddmA(hddm::HddmA::new(settings)),
            DetectorSettings::HddmW(settings) => Algorithm::HddmW(hddm::HddmW::new(settings)),
        };
        algorithm.check()?;
        Ok(Self { algorithm, drifted: false, seen: 0, ignored: 0 })
    }

    /// Reads the next value of the stream.
    ///
    /// After a drift the detector forgets what it knew, when it reads the next value. A value that the test has no meaning
    /// for is counted in [`Detector::ignored`], changes nothing, and answers [`Signal::None`]: one that is not finite, one
    /// beyond ±1e100, whose square sums could overflow, and for `ddm` one outside 0 to 1.
    pub fn update(&mut self, value: f64) -> Signal {
        if !self.algorithm.accepts(value) {
            self.ignored = self.ignored.saturating_add(1);
            return Signal::None;
        }
        if self.drifted {
            self.algorithm.reset();
        }
        self.seen = self.seen.saturating_add(1);
        let signal = self.algorithm.update(value);
        self.drifted = signal == Signal::Drift;
        signal
    }

    /// Forgets the stream, and the counts of its values.
    pub fn reset(&mut self) {
        self.algorithm.reset();
        (self.drifted, self.seen, self.ignored) = (false, 0, 0);
    }

    /// How many values were read, since the detector was made or reset. Ignored values are not among them.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// How many values were ignored, since the detector was made or reset.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// What the window of `adwin` holds. After a drift these are the latest values: the oldest are gone, as far as they
    /// differ for certain. None before the first value, and for the detectors that have no window.
    pub fn window(&self) -> Option<DetectorWindow> {
        match &self.algorithm {
            Algorithm::Adwin(adwin) if adwin.width > 0 => {
                Some(DetectorWindow { values: adwin.width, mean: adwin.total / adwin.width as f64 })
            }
            _ => None,
        }
    }

    /// The settings it was made with. A restart compares them with those of the configuration before it uses a saved state.
    pub fn settings(&self) -> DetectorSettings {
        match &self.algorithm {
            Algorithm::Adwin(adwin) => DetectorSettings::Adwin(adwin.settings),
            Algorithm::PageHinkley(page_hinkley) => DetectorSettings::PageHinkley(page_hinkley.settings),
            Algorithm::Ddm(ddm) => DetectorSettings::Ddm(ddm.settings),
            Algorithm::Eddm(eddm) => DetectorSettings::Eddm(eddm.settings),
            Algorithm::HddmA(hddm) => DetectorSettings::HddmA(hddm.settings),
            Algorithm::HddmW(hddm) => DetectorSettings::HddmW(hddm.settings),
        }
    }
}

impl TryFrom<Saved> for Detector {
    type Error = DetectorError;

    fn try_from(saved: Saved) -> Result<Self, DetectorError> {
        let Saved { algorithm, drifted, seen, ignored } = saved;
        algorithm.check()?;
        Ok(Self { algorithm, drifted, seen, ignored })
    }
}

/// What a [`Detector`] is read from, before its settings and its state are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    algorithm: Algorithm,
    drifted: bool,
    seen: u64,
    ignored: u64,
}

/// Beyond this, sums of squares could overflow and stay infinite.
const LARGEST: f64 = 1e100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    Adwin(adwin::Adwin),
    PageHinkley(page_hinkley::PageHinkley),
    Ddm(ddm::Ddm),
    Eddm(eddm::Eddm),
    HddmA(hddm::HddmA),
    HddmW(hddm::HddmW),
}

impl Algorithm {
    fn accepts(&self, value: f64) -> bool {
        match self {
            Self::Ddm(_) => (0.0..=1.0).contains(&value),
            _ => value.abs() <= LARGEST,
        }
    }

    fn update(&mut self, value: f64) -> Signal {
        match self {
            Self::Adwin(adwin) => adwin.update(value),
            Self::PageHinkley(page_hinkley) => page_hinkley.update(value),
            Self::Ddm(ddm) => ddm.update(value),
            Self::Eddm(eddm) => eddm.update(value),
            Self::HddmA(hddm) => hddm.update(value),
            Self::HddmW(hddm) => hddm.update(value),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Adwin(adwin) => *adwin = adwin::Adwin::new(adwin.settings),
            Self::PageHinkley(page) => *page = page_hinkley::PageHinkley::new(page.settings),
            Self::Ddm(ddm) => *ddm = ddm::Ddm::new(ddm.settings),
            Self::Eddm(eddm) => *eddm = eddm::Eddm::new(eddm.settings),
            Self::HddmA(hddm) => *hddm = hddm::HddmA::new(hddm.settings),
            Self::HddmW(hddm) => *hddm = hddm::HddmW::new(hddm.settings),
        }
    }

    fn check(&self) -> Result<(), DetectorError> {
        match self {
            Self::Adwin(adwin) => adwin.check(),
            Self::PageHinkley(page_hinkley) => page_hinkley.check(),
            Self::Ddm(ddm) => ddm.check(),
            Self::Eddm(eddm) => eddm.check(),
            Self::HddmA(hddm) => hddm.check(),
            Self::HddmW(hddm) => hddm.check(),
        }
    }
}

/// Checks parameters and saved states of one detector.
struct Check(&'static str);

impl Check {
    fn range(
        &self,
        field: &'static str,
        value: f64,
        fits: bool,
        allowed: &'static str,
    ) -> Result<(), DetectorError> {
        let error = DetectorError::OutOfRange { detector: self.0, field, value, allowed };
        if fits { Ok(()) } else { Err(error) }
    }

    /// `fits` says whether the counts of a saved state agree with each other; its numbers must be finite.
    fn state(&self, fits: bool, numbers: impl IntoIterator<Item = f64>) -> Result<(), DetectorError> {
        if fits && numbers.into_iter().all(f64::is_finite) {
            return Ok(());
        }
        Err(DetectorError::DamagedState { detector: self.0 })
    }
}
