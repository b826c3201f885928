use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use ahash::AHashMap;

use super::{
    Accumulator, DelayHistogram, JoinConfig, JoinCounts, JoinError, JoinState, Window,
    ages::Ages,
    join_state::{MAX_NAME, StoredLabel, StoredPrediction},
};

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

    /// All that a restart needs, for a file.
    pub fn state(&self) -> JoinState<A> {
        let prediction = |(_, id): &(i64, Arc<str>)| {
            let entry = self.predictions.get(id)?;
            Some(StoredPrediction {
                id: id.to_string(),
                at: entry.at,
                segment: entry.segment.to_string(),
                prediction: entry.prediction.clone(),
                label: entry.label,
            })
        };
        let mut waiting: Vec<_> = self.waiting.iter().collect();
        waiting.sort_unstable_by_key(|(id, _)| *id);
        let dated = waiting.into_iter().flat_map(|(id, labels)| labels.iter().map(move |label| (id, label)));
        let label = |(id, (at, label)): (&Arc<str>, (&i64, &A::Label))| StoredLabel {
            id: id.to_string(),
            at: *at,
            label: *label,
        };
        JoinState {
            config: self.config.clone(),
            empty: self.empty.clone(),
            now: self.now,
            predictions: self.by_time.iter().filter_map(prediction).collect(),
            waiting: dated.map(label).collect(),
            open: self.open.values().cloned().collect(),
            closed: self.closed.iter().cloned().collect(),
            counts: self.counts.clone(),
            delays: self.delays.clone(),
        }
    }

    /// The table whose [`state`](Self::state) this is. What is beyond the bounds makes room as it would have.
    pub fn restore(state: JoinState<A>) -> Result<Self, JoinError> {
        let mut join = Self::new(state.empty, state.config, state.now)?;
        join.counts = state.counts;
        join.delays = state.delays;
        join.open = state.open.into_iter().map(|window| (window.start(), window)).collect();
        join.closed = state.closed.into();
        for StoredPrediction { id, at, segment, prediction, label } in state.predictions {
            let entry = Entry { at, segment: segment.into(), prediction, label };
            join.hold(Arc::from(id), entry);
        }
        for StoredLabel { id, at, label } in state.waiting {
            join.hold_waiting(Arc::from(id), at, label);
        }
        join.advance(state.now);
        Ok(join)
    }

    fn try_predict(&mut self, id: &str, at: i64, segment: &str, prediction: A::Prediction) -> PredictReply {
        let lateness = self.config.lateness;
        if id.len() > MAX_NAME || segment.len() > MAX_NAME {
            return PredictReply::Refused;
        }
        if at.saturating_add(lateness) < self.now {
            return PredictReply::TooLate;
        }
        if at > self.now.saturating_add(lateness) {
            return PredictReply::TooEarly;
        }
        if self.predictions.contains_key(id) {
            return PredictReply::Repeated;
        }
        let (start, cap) = (self.config.window_of(at), self.config.segments);
        let window = self.open.entry(start).or_insert_with(|| Window::new(start, self.empty.clone()));
        window.predict(segment, cap, &self.empty);

        let id: Arc<str> = Arc::from(id);
        let label = self.take_waiting(&id, at);
        if let Some((dated, label)) = label {
            window_of(&mut self.open, start, |window| window.observe(segment, &prediction, label));
            self.delays.add(delay(at, dated));
        }
        let joined = label.is_some();
        self.hold(id, Entry { at, segment: segment.into(), prediction, label });
        if joined { PredictReply::Joined } else { PredictReply::Added }
    }

    fn try_label(&mut self, id: &str, at: i64, label: A::Label) -> LabelReply {
        let lateness = self.config.lateness;
        if at > self.now.saturating_add(lateness) {
            return LabelReply::TooEarly;
        }
        let Some(entry) = self.predictions.get_mut(id) else {
            return self.wait(id, at, label);
        };
        if at < entry.at.saturating_sub(lateness) {
            return LabelReply::TooEarly;
        }
        let start = self.config.window_of(entry.at);
        if at > entry.at.saturating_add(lateness) || is_closed(start, &self.config, self.now) {
            return LabelReply::TooLate;
        }
        let (segment, prediction) = (&entry.segment, &entry.prediction);
        let reply = match entry.label {
            None => {
                window_of(&mut self.open, start, |window| window.observe(segment, prediction, label));
                LabelReply::Joined
            }
            Some((dated, held)) => {
                let value = A::compare(label, held);
                if (at, value) <= (dated, Ordering::Equal) {
                    return LabelReply::Repeated;
                }
                self.delays.subtract(delay(entry.at, dated));
                if value.is_eq() {
                    LabelReply::Repeated
                } else {
                    let correct = |window: &mut Window<A>| window.correct(segment, prediction, held, label);
                    window_of(&mut self.open, start, correct);
                    LabelReply::Corrected
                }
            }
        };
        self.delays.add(delay(entry.at, at));
        entry.label = Some((at, label));
        reply
    }

    fn wait(&mut self, id: &str, at: i64, label: A::Label) -> LabelReply {
        if id.len() > MAX_NAME || at.saturating_add(self.config.lateness.saturating_mul(2)) < self.now {
            return LabelReply::Unknown;
        }
        if let Some(held) = self.waiting.get_mut(id).and_then(|labels| labels.get_mut(&at)) {
            if A::compare(label, *held).is_le() {
                return LabelReply::Repeated;
            }
            *held = label;
            // Of the two, the one that was there will never count.
            count(&mut self.counts.labels_repeated, true);
            return LabelReply::Waiting;
        }
        let id: Arc<str> = Arc::from(id);
        let full = self.waiting_by_time.len() >= self.config.waiting;
        if full && self.waiting_by_time.first().is_none_or(|(oldest, of)| (at, &id) < (*oldest, of)) {
            return LabelReply::Unknown;
        }
        self.hold_waiting(id, at, label);
        LabelReply::Waiting
    }

    /// Takes the waiting labels of a prediction; answers the one that counts.
    fn take_waiting(&mut self, id: &Arc<str>, at: i64) -> Option<(i64, A::Label)> {
        let labels = self.waiting.remove(id)?;
        let mut counting = None;
        for (dated, label) in labels {
            self.waiting_by_time.remove(&(dated, Arc::clone(id)));
            // Dates rise, so the last one that is in time counts.
            if dated > at.saturating_add(self.config.lateness) {
                count(&mut self.counts.labels_too_late, true);
            } else if dated < at.saturating_sub(self.config.lateness) {
                count(&mut self.counts.labels_too_early, true);
            } else if counting.replace((dated, label)).is_some() {
                count(&mut self.counts.labels_repeated, true);
            }
        }
        count(&mut self.counts.joined, counting.is_some());
        counting
    }

    /// Holds a prediction; the oldest one makes room.
    fn hold(&mut self, id: Arc<str>, entry: Entry<A>) {
        self.by_time.insert(entry.at, Arc::clone(&id));
        self.predictions.insert(id, entry);
        self.make_room();
    }

    /// Holds a label whose prediction has not come; the oldest one makes room.
    fn hold_waiting(&mut self, id: Arc<str>, at: i64, label: A::Label) {
        self.waiting_by_time.insert((at, Arc::clone(&id)));
        self.waiting.entry(id).or_default().insert(at, label);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.predictions.len() > self.config.capacity {
            let labelled = self.forget_oldest();
            let evicted = &mut self.counts;
            count(&mut evicted.evicted_labelled, labelled);
            count(&mut evicted.evicted, !labelled);
        }
        while self.waiting_by_time.len() > self.config.waiting {
            self.forget_oldest_waiting();
            count(&mut self.counts.waiting_evicted, true);
        }
    }

    /// Whether the oldest prediction, which is forgotten, had a label.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_time.pop_first().and_then(|(_, id)| self.predictions.remove(&id));
        oldest.is_some_and(|entry| entry.label.is_some())
    }

    fn forget_oldest_waiting(&mut self) {
        let Some((at, id)) = self.waiting_by_time.pop_first() else { return };
        if let Some(labels) = self.waiting.get_mut(&id) {
            labels.remove(&at);
            if labels.is_empty() {
                self.waiting.remove(&id);
            }
        }
    }
}

/// The window of a prediction that is held. It is open, or the label would have been too late.
fn window_of<A>(open: &mut BTreeMap<i64, Window<A>>, start: i64, change: impl FnOnce(&mut Window<A>)) {
    if let Some(window) = open.get_mut(&start) {
        change(window);
    }
}

fn is_closed(start: i64, config: &JoinConfig, now: i64) -> bool {
    start.saturating_add(config.window).saturating_add(config.lateness) < now
}

/// Counts what happened, if it did.
fn count(count: &mut u64, happened: bool) {
    *count = count.saturating_add(u64::from(happened));
}

fn delay(predicted: i64, labelled: i64) -> i64 {
    labelled.saturating_sub(predicted).max(0)
}
