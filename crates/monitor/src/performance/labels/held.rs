//! What is held until its other half comes, and makes room for more.

use std::sync::Arc;

use super::{Entry, LabelJoin, count};
use crate::performance::Accumulator;

impl<A: Accumulator> LabelJoin<A> {
    /// Takes the waiting labels of a prediction; answers the one that counts.
    pub(super) fn take_waiting(&mut self, id: &Arc<str>, at: i64) -> Option<(i64, A::Label)> {
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
    pub(super) fn hold(&mut self, id: Arc<str>, entry: Entry<A>) {
        self.by_time.insert(entry.at, Arc::clone(&id));
        self.predictions.insert(id, entry);
        self.make_room();
    }

    /// Holds a label whose prediction has not come; the oldest one makes room.
    pub(super) fn hold_waiting(&mut self, id: Arc<str>, at: i64, label: A::Label) {
        self.waiting_by_time.insert((at, Arc::clone(&id)));
        self.waiting.entry(id).or_default().insert(at, label);
        self.make_room();
    }

    pub(super) fn make_room(&mut self) {
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
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_time.pop_first().and_then(|(_, id)| self.predictions.remove(&id));
        oldest.is_some_and(|entry| entry.label.is_some())
    }

    pub(super) fn forget_oldest_waiting(&mut self) {
        let Some((at, id)) = self.waiting_by_time.pop_first() else { return };
        if let Some(labels) = self.waiting.get_mut(&id) {
            labels.remove(&at);
            if labels.is_empty() {
                self.waiting.remove(&id);
            }
        }
    }
}
