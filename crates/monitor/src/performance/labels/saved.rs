//! A table of predictions and labels over a restart.

use std::sync::Arc;

use super::{Entry, LabelJoin};
use crate::performance::{
    Accumulator, JoinError, JoinState,
    join_state::{StoredLabel, StoredPrediction},
};

impl<A: Accumulator> LabelJoin<A> {
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
}
