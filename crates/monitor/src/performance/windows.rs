use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Accumulator;

/// The metrics of the predictions of one span of time, per segment.
///
/// Made by a `LabelJoin`. Of more segments than the cap, those whose names sort first are kept and all others counted
/// together as [`other`](Self::other): which are kept then depends on the names alone and not on who came first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window<A> {
    start: i64,
    version: u64,
    segments: BTreeMap<String, Segment<A>>,
    other: Segment<A>,
}

/// The predictions of one segment in one window, and the metrics of those whose labels are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment<A> {
    /// Predictions made.
    pub predictions: u64,
    /// Predictions whose label is known.
    pub labelled: u64,
    /// Metrics of the predictions whose label is known.
    pub metrics: A,
}

/// Upper edges, in microseconds, of the buckets of a [`DelayHistogram`]: 1 and 10 seconds, 1 and 10 minutes, 1 and
/// 6 hours, 1, 7 and 30 days. An edge belongs to the bucket below it; one more bucket holds what is longer.
pub const DELAY_EDGES: [i64; 9] = {
    let second = 1_000_000;
    let (minute, hour, day) = (60 * second, 3600 * second, 86_400 * second);
    [second, 10 * second, minute, 10 * minute, hour, 6 * hour, day, 7 * day, 30 * day]
};

/// How long labels took, from a prediction's time to its label's. A label dated before its prediction took no time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayHistogram {
    counts: [u64; DELAY_EDGES.len() + 1],
}

impl<A: Accumulator> Window<A> {
    pub(super) fn new(start: i64, empty: A) -> Self {
        Self { start, version: 0, segments: BTreeMap::new(), other: Segment::new(empty) }
    }

    /// When the window begins, in microseconds since 1970.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// How many corrections of labels have changed this window since it was made. Not part of what the window
    /// counts: it depends on which of two labels was there first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Kept segments by name.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (&str, &Segment<A>)> {
        self.segments.iter().map(|(name, segment)| (name.as_str(), segment))
    }

    /// One kept segment.
    pub fn segment(&self, name: &str) -> Option<&Segment<A>> {
        self.segments.get(name)
    }

    /// All segments beyond the cap.
    pub fn other(&self) -> &Segment<A> {
        &self.other
    }

    /// All segments together.
    pub fn total(&self) -> Segment<A> {
        let mut total = self.other.clone();
        for segment in self.segments.values() {
            total.merge(segment);
        }
        total
    }

    /// Adds the window of another replica, with at most `cap` segments kept. Windows of other times are added too,
    /// so ask for equal [`start`](Self::start)s first. `empty` is an accumulator without pairs.
    pub fn merge(&mut self, other: &Self, cap: usize, empty: &A) {
        self.version = self.version.wrapping_add(other.version);
        self.other.merge(&other.other);
        for (name, more) in &other.segments {
            self.segment_mut(name, cap, empty).merge(more);
        }
    }

    /// Counts a prediction.
    pub(super) fn predict(&mut self, segment: &str, cap: usize, empty: &A) {
        let segment = self.segment_mut(segment, cap, empty);
        segment.predictions = segment.predictions.wrapping_add(1);
    }

    /// Counts the first label of a prediction that was counted.
    pub(super) fn observe(&mut self, segment: &str, prediction: &A::Prediction, label: A::Label) {
        let segment = self.counted(segment);
        segment.labelled = segment.labelled.wrapping_add(1);
        segment.metrics.observe(prediction, label);
    }

    /// Replaces a label that was counted.
    pub(super) fn correct(
        &mut self,
        segment: &str,
        prediction: &A::Prediction,
        before: A::Label,
        after: A::Label,
    ) {
        let segment = self.counted(segment);
        segment.metrics.forget(prediction, before);
        segment.metrics.observe(prediction, after);
        self.version = self.version.wrapping_add(1);
    }

    /// Where the predictions of a segment are counted now.
    fn counted(&mut self, name: &str) -> &mut Segment<A> {
        self.segments.get_mut(name).unwrap_or(&mut self.other)
    }

    /// Where a new prediction of a segment is counted. A segment once folded into `other` never comes back, because
    /// names before it have taken its place.
    fn segment_mut(&mut self, name: &str, cap: usize, empty: &A) -> &mut Segment<A> {
        if !self.segments.contains_key(name) {
            if self.segments.len() >= cap {
                if self.segments.last_key_value().is_none_or(|(last, _)| name > last.as_str()) {
                    return &mut self.other;
                }
                if let Some((_, last)) = self.segments.pop_last() {
                    self.other.merge(&last);
                }
            }
            self.segments.insert(name.to_owned(), Segment::new(empty.clone()));
        }
        self.counted(name)
    }
}

impl<A: Accumulator> Segment<A> {
    fn new(empty: A) -> Self {
        Self { predictions: 0, labelled: 0, metrics: empty }
    }

    /// Adds the predictions of another segment.
    pub fn merge(&mut self, other: &Self) {
        self.predictions = self.predictions.wrapping_add(other.predictions);
        self.labelled = self.labelled.wrapping_add(other.labelled);
        self.metrics.merge(&other.metrics);
    }
}

impl DelayHistogram {
    /// Counts per bucket, in the order of [`DELAY_EDGES`], and then what is longer than all of them.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.wrapping_add(*more);
        }
    }

    pub(super) fn add(&mut self, delay: i64) {
        let count = &mut self.counts[bucket(delay)];
        *count = count.wrapping_add(1);
    }

    pub(super) fn subtract(&mut self, delay: i64) {
        let count = &mut self.counts[bucket(delay)];
        *count = count.wrapping_sub(1);
    }
}

fn bucket(delay: i64) -> usize {
    DELAY_EDGES.partition_point(|&edge| edge < delay)
}
