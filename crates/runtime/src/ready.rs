//! Sets of steps as bits over topological order.

use millstream_graph::StepId;

/// A set of steps from which the first in topological order is taken next.
///
/// Taking the first makes a run of inline steps follow the order of the plan, exactly as the serial interpreter does.
#[derive(Clone, Default)]
pub(crate) struct StepSet {
    words: Vec<u64>,
    /// No step stands in a word before this one.
    first: usize,
}

impl StepSet {
    pub(crate) fn reset(&mut self, steps: usize) {
        self.words.clear();
        self.words.resize(steps.div_ceil(64), 0);
        self.first = 0;
    }

    pub(crate) fn insert(&mut self, step: StepId) {
        let word = step.index() / 64;
        self.words[word] |= 1 << (step.index() % 64);
        self.first = self.first.min(word);
    }

    pub(crate) fn remove(&mut self, step: StepId) {
        self.words[step.index() / 64] &= !(1 << (step.index() % 64));
    }

    pub(crate) fn contains(&self, step: StepId) -> bool {
        self.words[step.index() / 64] & (1 << (step.index() % 64)) != 0
    }

    /// Whether no step stands before this one.
    #[inline]
    pub(crate) fn none_before(&self, step: StepId) -> bool {
        let last = step.index() / 64;
        let before = |at: usize| if at == last { (1 << (step.index() % 64)) - 1 } else { !0u64 };
        (self.first..=last).all(|at| self.words[at] & before(at) == 0)
    }

    /// Whether any step stands at `start` or after it.
    pub(crate) fn any_from(&self, start: usize) -> bool {
        let word = |at: usize| if at == start / 64 { !0 << (start % 64) } else { !0u64 };
        (start / 64..self.words.len()).any(|at| self.words[at] & word(at) != 0)
    }

    /// Takes the first step, if it stands before `end`.
    pub(crate) fn pop_before(&mut self, end: usize) -> Option<StepId> {
        while let Some(&word) = self.words.get(self.first) {
            if word == 0 {
                self.first += 1;
                continue;
            }
            let step = self.first * 64 + word.trailing_zeros() as usize;
            if step >= end {
                return None;
            }
            self.words[self.first] = word & (word - 1);
            return Some(StepId(step as u32));
        }
        None
    }
}
