//! Labels find their predictions, whenever they come.

mod held;
mod matched;
mod saved;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use ahash::AHashMap;

use super::{Accumulator, DelayHistogram, JoinConfig, JoinCounts, JoinError, Window, ages::Ages};

/// Pairs predictions with labels that come later, earlier, twice or never, and keeps the metrics of windows of time.
///
/// A prediction belongs to the window of its own time, whenever its label comes. All times are microseconds since
/// 1970, and the clock is the caller's: it moves by [`advance`](Self::advance) only.
///
/// - A prediction is in time until `lateness` after its date. A label is in time until its window closes, which is
///   `lateness` after the window's end, and counts if its date is at most `lateness` from its prediction's. A further
///   label with a later date, or with the same date and a greater value, corrects the one before: the old contribution is
///   taken back, the new one added, and the window's version grows.
/// - Any order of the same predictions and labels, each in time, gives windows that are equal to the bit, as long as no
///   table is full. Only versions and counts of repeats depend on the order.
/// - Tables are bounded: the oldest prediction, or the oldest waiting label, makes room. [`JoinCounts`] says how many did.
///
/// ```
/// use millstream_monitor::performance::{
///     BinaryMetrics, BinaryPrediction, JoinConfig, LabelJoin, LabelReply,
/// };
///
/// let minute = 60_000_000;
/// let config = JoinConfig::new(minute, 10 * minute);
/// let mut join = LabelJoin::new(BinaryMetrics::default(), config, 0)?;
/// join.predict("a", 5, "large", BinaryPrediction { positive: true, probability: 0.8 });
/// assert_eq!(join.label("a", minute, true), LabelReply::Joined);
/// assert_eq!(join.label("b", minute, true), LabelReply::Waiting);
/// assert_eq!(join.label("a", 2 * minute, false), LabelReply::Corrected);
///
/// let window = join.open_windows().next().unwrap();
/// assert_eq!(window.version(), 1);
/// assert_eq!(window.segment("large").unwrap().metrics.confusion().false_positives, 1);
/// # Ok::<(), millstream_monitor::performance::JoinError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LabelJoin<A: Accumulator> {
    config: JoinConfig,
    /// What a new segment starts from.
    empty: A,
    now: i64,
    predictions: AHashMap<Arc<str>, Entry<A>>,
    /// Says which prediction is the oldest, and in which order they are written down.
    by_time: Ages,
    /// Labels without a prediction so far, by their dates. Of two with one id and one date, the greater one.
    waiting: AHashMap<Arc<str>, BTreeMap<i64, A::Label>>,
    /// The same by date: there is one for each of them.
    waiting_by_time: BTreeSet<(i64, Arc<str>)>,
    open: BTreeMap<i64, Window<A>>,
    closed: VecDeque<Window<A>>,
    counts: JoinCounts,
    delays: DelayHistogram,
}

/// What became of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictReply {
    /// It waits for its label.
    Added,
    /// Its label was there already.
    Joined,
    /// It is dated more than `lateness` before now.
    TooLate,
    /// It is dated more than `lateness` after now.
    TooEarly,
    /// A prediction with this id is there; the first one stands.
    Repeated,
    /// Its id or segment is longer than 256 bytes.
    Refused,
}

/// What became of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelReply {
    /// It is the first one of its prediction, and counts.
    Joined,
    /// It counts in place of one with an earlier date or a lesser value.
    Corrected,
    /// Its prediction may still come.
    Waiting,
    /// Its window is closed, or it is dated more than `lateness` after its prediction.
    TooLate,
    /// It is dated more than `lateness` before its prediction, or after now.
    TooEarly,
    /// No prediction has this id, and none may come, or the waiting room has no place for it.
    Unknown,
    /// Its value counts already, or a label with a later date does.
    Repeated,
}

#[derive(Debug, Clone)]
struct Entry<A: Accumulator> {
    at: i64,
    segment: Box<str>,
    prediction: A::Prediction,
    label: Option<(i64, A::Label)>,
}

impl<A: Accumulator> LabelJoin<A> {
    /// An empty table at time `now`; `empty` is an accumulator without pairs.
    pub fn new(empty: A, config: JoinConfig, now: i64) -> Result<Self, JoinError> {
        config.check()?;
        Ok(Self {
            config,
            empty,
            now,
            predictions: AHashMap::new(),
            by_time: Ages::default(),
            waiting: AHashMap::new(),
            waiting_by_time: BTreeSet::new(),
            open: BTreeMap::new(),
            closed: VecDeque::new(),
            counts: JoinCounts::default(),
            delays: DelayHistogram::default(),
        })
    }

    /// Takes a prediction that was made at `at`. Ids are unique: one per prediction.
    pub fn predict(&mut self, id: &str, at: i64, segment: &str, prediction: A::Prediction) -> PredictReply {
        let reply = self.try_predict(id, at, segment, prediction);
        self.counts.predicted(reply);
        reply
    }

    /// Takes a label that became true at `at`.
    pub fn label(&mut self, id: &str, at: i64, label: A::Label) -> LabelReply {
        let reply = self.try_label(id, at, label);
        self.counts.labelled(reply);
        reply
    }

    /// Moves the clock, never back: closes windows, forgets predictions and gives up on waiting labels.
    pub fn advance(&mut self, now: i64) {
        self.now = self.now.max(now);
        while let Some(entry) = self.open.first_entry() {
            if !is_closed(*entry.key(), &self.config, self.now) {
                break;
            }
            self.closed.push_back(entry.remove());
        }
        while self.closed.len() > self.config.closed_windows {
            self.closed.pop_front();
            count(&mut self.counts.windows_dropped, true);
        }
        while self.by_time.first().is_some_and(|(at, _)| at.saturating_add(self.config.memory) < self.now) {
            let labelled = self.forget_oldest();
            count(&mut self.counts.unlabelled, !labelled);
        }
        let patience = self.config.lateness.saturating_mul(2);
        while self.waiting_by_time.first().is_some_and(|(at, _)| at.saturating_add(patience) < self.now) {
            self.forget_oldest_waiting();
            count(&mut self.counts.unknown, true);
        }
    }

    /// Holds at most so many predictions and waiting labels from now on; the oldest make room.
    pub fn bound(&mut self, capacity: usize, waiting: usize) {
        (self.config.capacity, self.config.waiting) = (capacity, waiting);
        self.make_room();
    }

    /// The present, as far as [`advance`](Self::advance) has moved it.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The bounds.
    pub fn config(&self) -> &JoinConfig {
        &self.config
    }

    /// Windows that labels still change, by time.
    pub fn open_windows(&self) -> impl ExactSizeIterator<Item = &Window<A>> {
        self.open.values()
    }

    /// Takes the windows that are final, by time. Those that nobody takes are dropped, the oldest first, when there
    /// are more than `closed_windows`.
    pub fn take_closed(&mut self) -> Vec<Window<A>> {
        self.closed.drain(..).collect()
    }

    /// What became of predictions and labels so far.
    pub fn counts(&self) -> &JoinCounts {
        &self.counts
    }

    /// How long labels took that count, or counted when their prediction was forgotten.
    pub fn delays(&self) -> &DelayHistogram {
        &self.delays
    }

    /// Predictions held, with and without a label.
    pub fn held_predictions(&self) -> usize {
        self.predictions.len()
    }

    /// When a prediction that is held was made, what it was, and the label that counts; none as long as that is not known.
    pub fn labelled(&self, id: &str) -> Option<(i64, &A::Prediction, A::Label)> {
        let entry = self.predictions.get(id)?;
        let (_, label) = entry.label?;
        Some((entry.at, &entry.prediction, label))
    }

    /// Labels held whose prediction has not come.
    pub fn waiting_labels(&self) -> usize {
        self.waiting_by_time.len()
    }
}

fn is_closed(start: i64, config: &JoinConfig, now: i64) -> bool {
    start.saturating_add(config.window).saturating_add(config.lateness) < now
}

/// Counts what happened, if it did.
fn count(count: &mut u64, happened: bool) {
    *count = count.saturating_add(u64::from(happened));
}
