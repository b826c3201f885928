use serde::{Deserialize, Serialize};

use super::{Accumulator, DelayHistogram, LabelReply, PredictReply, Window};

/// Ids and names of segments are held, so they have a bound, in bytes.
pub(super) const MAX_NAME: usize = 256;

/// More open windows than this are a mistake in the units of `window` and `lateness`.
const MAX_OPEN_WINDOWS: i64 = 10_000;

/// Bounds of a `LabelJoin`. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinConfig {
    /// The length of a window. Windows begin at multiples of it.
    pub window: i64,
    /// How long after a prediction its label still counts.
    pub lateness: i64,
    /// How long a prediction is remembered, so that its label is known to be too late rather than unknown. At least
    /// `window + lateness`.
    pub memory: i64,
    /// Predictions held at most; the oldest makes room.
    pub capacity: usize,
    /// Labels held at most that came before their prediction; the oldest makes room.
    pub waiting: usize,
    /// Segments kept per window; all others are counted together.
    pub segments: usize,
    /// Closed windows held at most until somebody takes them; the oldest is dropped.
    pub closed_windows: usize,
}

/// What became of all predictions and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCounts {
    /// Predictions taken.
    pub predictions: u64,
    /// Predictions dated too long before now.
    pub predictions_too_late: u64,
    /// Predictions dated too long after now.
    pub predictions_too_early: u64,
    /// Predictions whose id was there already.
    pub predictions_repeated: u64,
    /// Predictions whose id or segment was too long.
    pub predictions_refused: u64,
    /// Predictions that got a label.
    pub joined: u64,
    /// Labels that replaced another one that counted.
    pub corrected: u64,
    /// Labels that changed nothing, because one that counts more was there.
    pub labels_repeated: u64,
    /// Labels whose window was closed, or that were dated too long after their prediction.
    pub labels_too_late: u64,
    /// Labels dated too long before their prediction, or too long after now.
    pub labels_too_early: u64,
    /// Labels whose prediction never came.
    pub unknown: u64,
    /// Waiting labels that made room for younger ones.
    pub waiting_evicted: u64,
    /// Predictions without a label that made room for younger ones.
    pub evicted: u64,
    /// Predictions with a label that made room: they count, but can no longer be corrected.
    pub evicted_labelled: u64,
    /// Predictions that were forgotten in due time without a label.
    pub unlabelled: u64,
    /// Closed windows that nobody took.
    pub windows_dropped: u64,
}

/// Why a `LabelJoin` cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A length of time that must be positive is not.
    #[error("`{field}` is {micros} us: give a length of time above 0")]
    NotPositive {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        micros: i64,
    },
    /// A prediction would be forgotten while its window is open.
    #[error("`memory` is {memory} us: give at least `window + lateness`, {least} us")]
    MemoryTooShort {
        /// The value given.
        memory: i64,
        /// The least value that works.
        least: i64,
    },
    /// Too many windows would be open at once.
    #[error("`lateness` of {lateness} us spans more than 10000 windows of {window} us: give longer windows")]
    TooManyWindows {
        /// The value given.
        lateness: i64,
        /// The length of a window.
        window: i64,
    },
}

/// All that a `LabelJoin` holds, for a file. Read it back with `LabelJoin::restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "A: Serialize, A::Prediction: Serialize, A::Label: Serialize",
    deserialize = "A: Deserialize<'de>, A::Prediction: Deserialize<'de>, A::Label: Deserialize<'de>"
))]
pub struct JoinState<A: Accumulator> {
    pub(super) config: JoinConfig,
    pub(super) empty: A,
    pub(super) now: i64,
    pub(super) predictions: Vec<StoredPrediction<A::Prediction, A::Label>>,
    pub(super) waiting: Vec<StoredLabel<A::Label>>,
    pub(super) open: Vec<Window<A>>,
    pub(super) closed: Vec<Window<A>>,
    pub(super) counts: JoinCounts,
    pub(super) delays: DelayHistogram,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredPrediction<P, L> {
    pub(super) id: String,
    pub(super) at: i64,
    pub(super) segment: String,
    pub(super) prediction: P,
    pub(super) label: Option<(i64, L)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredLabel<L> {
    pub(super) id: String,
    pub(super) at: i64,
    pub(super) label: L,
}

impl<A: Accumulator> JoinState<A> {
    /// The bounds of the table that it is of.
    pub fn config(&self) -> &JoinConfig {
        &self.config
    }

    /// The same table with other bounds.
    #[must_use]
    pub fn with_config(self, config: JoinConfig) -> Self {
        Self { config, ..self }
    }
}

impl JoinConfig {
    /// Windows and lateness as given; memory of twice `window + lateness`, 100 000 predictions, 10 000 waiting
    /// labels, 32 segments and 1 000 closed windows.
    pub fn new(window: i64, lateness: i64) -> Self {
        let memory = window.saturating_add(lateness).saturating_mul(2);
        Self {
            window,
            lateness,
            memory,
            capacity: 100_000,
            waiting: 10_000,
            segments: 32,
            closed_windows: 1_000,
        }
    }

    pub(super) fn check(&self) -> Result<(), JoinError> {
        let Self { window, lateness, memory, .. } = *self;
        for (field, micros) in [("window", window), ("lateness", lateness)] {
            if micros <= 0 {
                return Err(JoinError::NotPositive { field, micros });
            }
        }
        let least = window.saturating_add(lateness);
        if memory < least {
            return Err(JoinError::MemoryTooShort { memory, least });
        }
        if lateness / window > MAX_OPEN_WINDOWS {
            return Err(JoinError::TooManyWindows { lateness, window });
        }
        Ok(())
    }

    /// The start of the window that a time belongs to.
    pub(crate) fn window_of(&self, at: i64) -> i64 {
        at.saturating_sub(at.rem_euclid(self.window))
    }
}

impl JoinCounts {
    pub(super) fn predicted(&mut self, reply: PredictReply) {
        let count = match reply {
            // Joining is counted where the label is taken from the waiting room.
            PredictReply::Added | PredictReply::Joined => &mut self.predictions,
            PredictReply::TooLate => &mut self.predictions_too_late,
            PredictReply::TooEarly => &mut self.predictions_too_early,
            PredictReply::Repeated => &mut self.predictions_repeated,
            PredictReply::Refused => &mut self.predictions_refused,
        };
        *count = count.saturating_add(1);
    }

    pub(super) fn labelled(&mut self, reply: LabelReply) {
        let count = match reply {
            LabelReply::Joined => &mut self.joined,
            LabelReply::Corrected => &mut self.corrected,
            // Counted when it is known what became of it.
            LabelReply::Waiting => return,
            LabelReply::TooLate => &mut self.labels_too_late,
            LabelReply::TooEarly => &mut self.labels_too_early,
            LabelReply::Unknown => &mut self.unknown,
            LabelReply::Repeated => &mut self.labels_repeated,
        };
        *count = count.saturating_add(1);
    }
}
