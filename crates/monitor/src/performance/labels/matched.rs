//! What becomes of one prediction, and of one label.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{Entry, LabelJoin, LabelReply, PredictReply, count, is_closed};
use crate::performance::{Accumulator, Window, join_state::MAX_NAME};

impl<A: Accumulator> LabelJoin<A> {
    pub(super) fn try_predict(
        &mut self,
        id: &str,
        at: i64,
        segment: &str,
        prediction: A::Prediction,
    ) -> PredictReply {
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

    pub(super) fn try_label(&mut self, id: &str, at: i64, label: A::Label) -> LabelReply {
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
}

/// The window of a prediction that is held. It is open, or the label would have been too late.
fn window_of<A>(open: &mut BTreeMap<i64, Window<A>>, start: i64, change: impl FnOnce(&mut Window<A>)) {
    if let Some(window) = open.get_mut(&start) {
        change(window);
    }
}

fn delay(predicted: i64, labelled: i64) -> i64 {
    labelled.saturating_sub(predicted).max(0)
}
