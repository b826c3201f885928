//! What is known of one key.

use std::collections::BTreeMap;

use super::{
    accumulator::Accumulator,
    aggregates::{Aggregates, Grid, Span, Window, floor},
    layout::Row,
    prepared::Prepared,
    timeline::Timeline,
    values::Values,
};
use crate::Version;

/// The events of one key, as far as any window may still need them.
///
/// A ledger belongs to the [`Aggregates`] it was first used with; others do not understand it. Which events it has taken decides
/// everything: not their order, nor the batches, ledgers or restarts between them.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// No event before it is taken, and no time before it is read.
    pub(super) horizon: i64,
    /// Events that a window's edge may still pass.
    pub(super) timeline: Timeline,
    /// For each grid, by the beginning of their period, the events that left the timeline.
    pub(super) closed: Vec<BTreeMap<i64, Box<[Accumulator]>>>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an event that was too late must be counted and set aside"]
pub enum Added {
    /// It is part of the windows.
    Taken,
    /// It is older than the newest event of its key by more than the allowed lateness, and nothing has changed.
    TooLate,
}

/// A ledger was read at a time for which it no longer has the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "windows at {at} were asked for, but events are kept for windows from {horizon} on (microseconds since 1970)"
)]
pub struct TooEarly {
    /// The time that was asked for.
    pub at: i64,
    /// The earliest time that can be read.
    pub horizon: i64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { horizon: i64::MIN, timeline: Timeline::default(), closed: Vec::new() }
    }
}

impl Ledger {
    /// Adds the event in row `row` of `events`, which `of` has prepared and which is not in the ledger yet.
    ///
    /// # Panics
    /// When `events` has no such row.
    pub fn add(&mut self, of: &Aggregates, events: &Prepared, row: usize, version: Version) -> Added {
        if version.event < self.horizon {
            return Added::TooLate;
        }
        events.with_row(of.layout(), row, version, |row| self.insert(of, row));
        self.forget_before(of, of.horizon(version.event));
        Added::Taken
    }

    /// Adds an event that was taken once, in row `row` of `events`: however late it comes now, windows from the horizon on have it.
    #[cfg(feature = "offline")]
    pub(crate) fn replay(&mut self, of: &Aggregates, events: &Prepared, row: usize, version: Version) {
        events.with_row(of.layout(), row, version, |row| self.insert(of, row));
        let (horizon, cut) = (self.horizon, of.cut(self.horizon));
        if version.event < cut {
            let closed = &mut self.closed;
            self.timeline.pop_before(of, cut, &mut |row| close(of, closed, horizon, row));
        }
    }

    /// The features at `at`: of windows that end there, `at` included. Events after `at` do not count.
    ///
    /// # Errors
    /// When `at` is before the [`Ledger::horizon`].
    pub fn read(&self, of: &Aggregates, at: i64) -> Result<Values, TooEarly> {
        if at < self.horizon {
            return Err(TooEarly { at, horizon: self.horizon });
        }
        let mut windows: Vec<(i64, usize)> =
            of.windows.iter().map(|window| window.span.start(at)).zip(0..).collect();
        // The shortest first: each takes what the one before has found and goes on from where that one began.
        windows.sort_unstable_by_key(|&(start, _)| std::cmp::Reverse(start));
        let mut farthest = vec![i64::MAX; of.parts().len()];
        for &(start, window) in &windows {
            of.windows[window].parts.iter().for_each(|&part| farthest[part] = start);
        }
        let mut values = Values::nulls(of);
        let mut running = of.empty();
        let mut begun = None;
        for (start, window) in windows {
            if begun != Some(start) {
                let end = begun.map_or(at, |begun: i64| begun.saturating_sub(1));
                let wanted: Vec<bool> = farthest.iter().map(|&farthest| farthest <= start).collect();
                self.timeline.range(of, start, end, &wanted, &mut running);
                begun = Some(start);
            }
            match self.with_closed(of, &of.windows[window], start, &running) {
                Some(kept) => values.fill(of, window, &kept),
                None => values.fill(of, window, &running),
            }
        }
        Ok(values)
    }

    /// The earliest time that can be read, and the earliest event that is taken, in microseconds since 1970: the time of the
    /// newest event less the allowed lateness, or what [`Ledger::forget_before`] was told if that is later. Before any event it
    /// is the beginning of time.
    pub fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Gives up what only reads and events before `at` would need.
    ///
    /// A store that knows the time does so for keys that no event comes for, and drops those of which nothing is left; it must
    /// then itself refuse events before `at`.
    pub fn forget_before(&mut self, of: &Aggregates, at: i64) {
        if at <= self.horizon {
            return;
        }
        self.horizon = at;
        self.closed.resize(of.grids.len(), BTreeMap::new());
        let closed = &mut self.closed;
        self.timeline.pop_before(of, of.cut(at), &mut |row| close(of, closed, at, row));
        for (closed, grid) in closed.iter_mut().zip(&of.grids) {
            while let Some(first) = closed.first_entry().filter(|first| *first.key() < grid.oldest(at)) {
                first.remove();
            }
        }
    }

    /// Whether no window at any time that can be read has an event.
    pub fn is_empty(&self) -> bool {
        self.timeline.len() == 0 && self.closed.iter().all(BTreeMap::is_empty)
    }

    /// Adds the events of another ledger of the same key and aggregates; no event is in both.
    ///
    /// The same as one ledger that has taken all of them, as long as none was too late for it. A store that has built one ledger
    /// from its log and another from its stream joins them so.
    pub fn merge(&mut self, of: &Aggregates, other: &Self) {
        other.timeline.each(of.layout(), &mut |row| self.insert(of, row));
        self.closed.resize(of.grids.len(), BTreeMap::new());
        for (grid, (into, from)) in of.grids.iter().zip(self.closed.iter_mut().zip(&other.closed)) {
            for (start, kept) in from.range(grid.oldest(self.horizon)..) {
                let into = into.entry(*start).or_insert_with(|| grid.empty(of));
                into.iter_mut().zip(kept).for_each(|(into, kept)| into.merge(kept));
            }
        }
        let horizon = std::mem::replace(&mut self.horizon, i64::MIN).max(other.horizon);
        self.forget_before(of, horizon);
    }

    /// Events that are kept by themselves: those from the longest sliding window before the horizon on. What bounds the memory of a
    /// key bounds this.
    pub fn events(&self) -> usize {
        self.timeline.len()
    }

    /// Bytes that the ledger takes, itself included. Walks through it.
    pub fn bytes(&self) -> usize {
        let closed = self.closed.iter().flat_map(BTreeMap::values).map(|kept| {
            let heap: usize = kept.iter().map(Accumulator::heap).sum();
            size_of::<(i64, Box<[Accumulator]>)>() + size_of_val(&**kept) + heap
        });
        let grids = self.closed.capacity() * size_of::<BTreeMap<i64, Box<[Accumulator]>>>();
        size_of::<Self>() + self.timeline.heap() + grids + closed.sum::<usize>()
    }

    pub(super) fn insert(&mut self, of: &Aggregates, row: Row<'_>) {
        self.timeline.insert(of, row);
    }

    /// What the timeline has given for a window from `start` on, and what left the timeline for the window's periods.
    fn with_closed(
        &self,
        of: &Aggregates,
        window: &Window,
        start: i64,
        kept: &[Accumulator],
    ) -> Option<Box<[Accumulator]>> {
        let (grid, closed) = window.grid.and_then(|grid| of.grids.get(grid).zip(self.closed.get(grid)))?;
        let mut kept: Box<[Accumulator]> = kept.into();
        // What was closed lies before the horizon, so before any time that is read.
        for (_, from) in closed.range(start..) {
            grid.parts.iter().zip(from).for_each(|(&part, from)| kept[part].merge(from));
        }
        Some(kept)
    }
}

/// Adds an event that no window's edge passes any more to its periods, as far as windows at or after `horizon` need them.
fn close(of: &Aggregates, closed: &mut [BTreeMap<i64, Box<[Accumulator]>>], horizon: i64, row: Row<'_>) {
    for (grid, closed) in of.grids.iter().zip(closed) {
        let start = floor(row.event(), grid.period);
        if start < grid.oldest(horizon) {
            continue;
        }
        let kept = closed.entry(start).or_insert_with(|| grid.empty(of));
        for (&part, kept) in grid.parts.iter().zip(kept) {
            of.parts()[part].add(of.layout(), kept, row);
        }
    }
}

impl Grid {
    /// The beginning of the first period that a window at or after `horizon` needs.
    pub(super) fn oldest(&self, horizon: i64) -> i64 {
        Span::Aligned { period: self.period, periods: self.periods }.start(horizon)
    }

    pub(super) fn empty(&self, of: &Aggregates) -> Box<[Accumulator]> {
        self.parts.iter().map(|&part| of.parts()[part].empty()).collect()
    }
}
