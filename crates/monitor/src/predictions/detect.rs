//! Detectors that are told the errors of predictions, and say when a model goes wrong more often, or less.

use serde::{Deserialize, Serialize};

use super::Task;
use crate::{
    concept::{Detector, DetectorSettings, Signal},
    report::{DetectorReport, DetectorState},
};

/// A detector that a file asks for, and the name that it is shown under.
pub(super) type Named = (String, DetectorSettings);

/// The detectors of an edge, and the errors that they have not been told yet.
///
/// Labels come in any order and by several threads. So errors wait for the end of the pane, and are told in the order in which their
/// predictions were made: the same labels lead to the same answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Detectors {
    each: Vec<Told>,
    /// When the prediction was made, what it is called, and its error.
    waiting: Vec<(i64, String, f64)>,
}

/// One detector, and what it has said.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    name: String,
    detector: Detector,
    drifts: u64,
    /// How often it began to warn.
    warnings: u64,
    last_drift: Option<i64>,
    /// What it said last.
    signal: Signal,
    /// Whether it has fired in the pane that is counted now, and in the one before.
    fires: bool,
    fired: bool,
}

/// Detectors of an edge.
const MOST: usize = 16;
/// Errors that wait. Where a pane has more, they are told in parts.
const MOST_WAITING: usize = 65_536;

/// Names what a file asks for, and notes what is wrong with it.
pub(super) fn named(settings: &[DetectorSettings], task: Task, mistakes: &mut Vec<String>) -> Vec<Named> {
    if settings.len() > MOST {
        mistakes.push(format!("there are at most {MOST} `detectors`, not {}", settings.len()));
        return Vec::new();
    }
    let mut named = Vec::new();
    for (at, one) in settings.iter().enumerate() {
        let (kind, before) = (one.name(), &settings[..at]);
        if let Err(error) = Detector::new(*one) {
            mistakes.push(format!("detectors: {error}"));
        }
        if task == Task::Regression && !one.reads_any_number() {
            mistakes.push(format!(
                "detectors: `{kind}` reads errors of 0 and 1, and those of regression are others; use `adwin` or `page_hinkley`"
            ));
        }
        if before.contains(one) {
            mistakes.push(format!("detectors: `{kind}` is there twice with the same parameters"));
        }
        let name = match before.iter().filter(|other| other.name() == kind).count() {
            0 => kind.to_owned(),
            before => format!("{kind}_{}", before + 1),
        };
        named.push((name, *one));
    }
    named
}

impl Detectors {
    pub(super) fn new(named: &[Named]) -> Self {
        let mut new = Self::default();
        new.follow(named);
        new
    }

    /// These are told from here on. One that was there with the same parameters goes on.
    pub(super) fn follow(&mut self, named: &[Named]) {
        let mut before = std::mem::take(&mut self.each);
        for (name, settings) in named {
            let known = before.iter().position(|told| told.detector.settings() == *settings);
            let told = match known {
                Some(at) => Some(Told { name: name.clone(), ..before.swap_remove(at) }),
                None => Told::new(name, *settings),
            };
            self.each.extend(told);
        }
        if self.each.is_empty() {
            self.waiting = Vec::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Takes the error of a prediction that was made at `at`. `now` says what time it is.
    pub(super) fn add(&mut self, name: &str, at: i64, error: f64, now: i64) {
        if self.is_empty() {
            return;
        }
        self.waiting.push((at, name.to_owned(), error));
        if self.waiting.len() >= MOST_WAITING {
            self.tell(now);
        }
    }

    /// Ends a pane.
    pub(super) fn turn(&mut self, now: i64) {
        self.tell(now);
        for told in &mut self.each {
            told.fired = std::mem::take(&mut told.fires);
        }
    }

    fn tell(&mut self, now: i64) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable_by(|(at, name, error), (other_at, other_name, other_error)| {
            (at, name).cmp(&(other_at, other_name)).then_with(|| error.total_cmp(other_error))
        });
        for (_, _, error) in waiting {
            self.each.iter_mut().for_each(|told| told.update(error, now));
        }
    }

    /// What they have said, of whichever edge they are.
    pub(super) fn reports(&self) -> Vec<DetectorReport> {
        self.each.iter().map(Told::report).collect()
    }

    /// For a file.
    pub(super) fn save(&self, behind: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(self, behind)
    }

    /// Takes up what was saved of those that are told now. What cannot be read begins anew: it is less than the predictions that it was
    /// saved with, and those are kept.
    pub(super) fn restore(&mut self, bytes: &[u8]) {
        let Ok(mut saved) = postcard::from_bytes::<Self>(bytes) else { return };
        let named = self.each.iter().map(|told| (told.name.clone(), told.detector.settings()));
        let named: Vec<Named> = named.collect();
        saved.follow(&named);
        *self = saved;
    }
}

impl Told {
    /// None if it cannot be, which [`named`] has ruled out.
    fn new(name: &str, settings: DetectorSettings) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            detector: Detector::new(settings).ok()?,
            drifts: 0,
            warnings: 0,
            last_drift: None,
            signal: Signal::None,
            fires: false,
            fired: false,
        })
    }

    fn update(&mut self, error: f64, now: i64) {
        let before = std::mem::replace(&mut self.signal, self.detector.update(error));
        match self.signal {
            Signal::Drift => {
                self.drifts = self.drifts.saturating_add(1);
                (self.last_drift, self.fires) = (Some(now), true);
            }
            Signal::Warning if before != Signal::Warning => {
                self.warnings = self.warnings.saturating_add(1);
            }
            Signal::Warning | Signal::None => {}
        }
    }

    fn report(&self) -> DetectorReport {
        let window = self.detector.window();
        DetectorReport {
            edge: String::new(),
            detector: self.name.clone(),
            state: match self.signal {
                _ if self.fired => DetectorState::Drift,
                Signal::Warning => DetectorState::Warning,
                Signal::Drift | Signal::None => DetectorState::Stable,
            },
            warns: self.detector.settings().warns(),
            errors: self.detector.seen(),
            ignored: self.detector.ignored(),
            drifts: self.drifts,
            warnings: self.warnings,
            last_drift: self.last_drift,
            recent: window.map(|window| window.values),
            recent_mean: window.map(|window| window.mean),
        }
    }
}
