//! Aggregates, checked and typed: what every key's events are reduced to.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use arrow::{
    array::{BooleanArray, RecordBatch},
    datatypes::{DataType, Schema},
};

use super::{
    accumulator::{Accumulator, Part},
    distinct::hash_text,
    draft::Draft,
    layout::Layout,
    spec::AggregateSpec,
    values::Formula,
    word::Kind,
};
use crate::set::Column;

/// Which events count, as whoever knows the expressions of a project has compiled it.
pub trait Predicate: Send + Sync {
    /// Says for each event whether it counts; null counts as no.
    ///
    /// # Errors
    /// When that cannot be said.
    fn keep(&self, events: &RecordBatch) -> Result<BooleanArray, Box<dyn std::error::Error + Send + Sync>>;
}

impl<F> Predicate for F
where
    F: Fn(&RecordBatch) -> Result<BooleanArray, Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
{
    fn keep(&self, events: &RecordBatch) -> Result<BooleanArray, Box<dyn std::error::Error + Send + Sync>> {
        self(events)
    }
}

/// Makes a [`Predicate`] of what stands under `where`, or says what is wrong with it.
pub type Compile<'a> = dyn Fn(&str) -> Result<Arc<dyn Predicate>, String> + 'a;

/// The aggregates of a feature set, checked and typed.
///
/// Always sound: made by [`Aggregates::new`]. A [`Ledger`](crate::Ledger) holds the events of one key for it.
pub struct Aggregates {
    pub(super) columns: Vec<Column>,
    pub(super) outputs: Vec<Output>,
    pub(super) windows: Vec<Window>,
    pub(super) grids: Vec<Grid>,
    pub(super) parts: Vec<Part>,
    all: Vec<bool>,
    pub(super) sources: Vec<Source>,
    pub(super) lanes: Vec<Lane>,
    pub(super) predicates: Vec<(String, Arc<dyn Predicate>)>,
    pub(super) layout: Layout,
    /// In microseconds.
    lateness: i64,
    /// The longest sliding window, in microseconds.
    pub(super) reach: i64,
    fingerprint: u64,
}

/// One feature: a formula over what a window's parts have kept.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) window: usize,
    pub(super) formula: Formula,
}

/// Events up to a time, from a start that follows from it.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) span: Span,
    /// The parts whose accumulators the window's features need.
    pub(super) parts: Vec<usize>,
    /// Where events that need not be kept one by one go.
    pub(super) grid: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// As many microseconds back.
    Sliding(i64),
    /// The period that holds the time, and as many before it as make `periods`.
    Aligned { period: i64, periods: i64 },
}

impl Span {
    /// The first event time of a window that ends at `at`.
    pub(super) fn start(self, at: i64) -> i64 {
        match self {
            Self::Sliding(length) => at.saturating_sub(length),
            Self::Aligned { period, periods } => {
                floor(at, period).saturating_sub(period.saturating_mul(periods - 1))
            }
        }
    }
}

/// The last multiple of `period` that is not after `at`.
pub(super) fn floor(at: i64, period: i64) -> i64 {
    at.saturating_sub(at.rem_euclid(period))
}

/// Stretches of time of one length; what happened in each is kept as accumulators alone, once no window can cut it.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub(super) period: i64,
    /// The most that a window needs at once.
    pub(super) periods: i64,
    pub(super) parts: Vec<usize>,
}

/// A column of the events.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) kind: Kind,
    /// Which of a row's texts it is.
    pub(super) text: Option<usize>,
}

/// The events that count: those that a predicate keeps, with a value in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) source: Option<usize>,
    pub(super) predicate: Option<usize>,
}

/// Everything that is wrong with the aggregates of a feature set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct AggregateError {
    /// The problems, one sentence each.
    pub problems: Vec<String>,
}

impl Aggregates {
    /// Checks `specs` over events with the columns of `events`. `compile` makes a predicate of what stands under `where`.
    ///
    /// Events up to `lateness` older than the newest one of their key are taken as if they had come in order.
    ///
    /// # Errors
    /// With every problem at once: unknown columns, functions that a column's type does not have, lengths that do not fit
    /// together, names given twice, and what `compile` says.
    pub fn new(
        specs: &[AggregateSpec],
        events: &Schema,
        lateness: Duration,
        compile: &Compile<'_>,
    ) -> Result<Self, AggregateError> {
        let mut draft = Draft::new(events, compile, Self::nothing(lateness));
        let mut names = HashSet::new();
        for spec in specs {
            draft.spec(spec);
        }
        for column in &draft.made.columns {
            if !names.insert(&column.name) {
                draft
                    .problems
                    .push(format!("two aggregates make `{}`; give one another `name`", column.name));
            }
        }
        if !draft.problems.is_empty() {
            return Err(AggregateError { problems: draft.problems });
        }
        let mut made = draft.made;
        made.layout.lanes = made.lanes.len();
        made.layout.cells = made.sources.len();
        made.all = vec![true; made.parts.len()];
        made.fingerprint = made.fingerprint();
        Ok(made)
    }

    /// The features, in the order in which the specs name them.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn nothing(lateness: Duration) -> Self {
        Self {
            columns: Vec::new(),
            outputs: Vec::new(),
            windows: Vec::new(),
            grids: Vec::new(),
            parts: Vec::new(),
            all: Vec::new(),
            sources: Vec::new(),
            lanes: Vec::new(),
            predicates: Vec::new(),
            layout: Layout::default(),
            lateness: i64::try_from(lateness.as_micros()).unwrap_or(i64::MAX),
            reach: 0,
            fingerprint: 0,
        }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All parts, for [`Timeline::range`](super::timeline::Timeline::range).
    pub(super) fn all(&self) -> &[bool] {
        &self.all
    }

    /// What all parts keep of no event.
    pub(super) fn empty(&self) -> Box<[Accumulator]> {
        self.parts.iter().map(Part::empty).collect()
    }

    /// Bytes that an event takes in a ledger, but for its texts.
    pub(crate) fn event_bytes(&self) -> usize {
        self.layout.width() * 8 + self.layout.texts * size_of::<Option<Arc<str>>>()
    }

    /// The earliest event time that is still taken after an event at `event`.
    pub(crate) fn horizon(&self, event: i64) -> i64 {
        event.saturating_sub(self.lateness)
    }

    /// The earliest event that has to be kept by itself when nothing before `horizon` is read or taken.
    pub(super) fn cut(&self, horizon: i64) -> i64 {
        horizon.saturating_sub(self.reach)
    }

    /// The earliest event that any window needs that ends at `at` or later.
    #[cfg(feature = "offline")]
    pub(crate) fn oldest(&self, at: i64) -> i64 {
        self.windows.iter().map(|window| window.span.start(at)).min().unwrap_or(i64::MAX)
    }

    /// What tells states of these aggregates from those of others.
    pub(crate) fn stamp(&self) -> u64 {
        self.fingerprint
    }

    fn fingerprint(&self) -> u64 {
        let mut text = format!("{} {}", self.layout.versioned, self.reach);
        for Source { name, data_type, text: held, .. } in &self.sources {
            text += &format!("\nsource {name:?} {data_type} {}", held.is_some());
        }
        for lane in &self.lanes {
            let predicate = lane.predicate.map(|predicate| self.predicates[predicate].0.as_str());
            text += &format!("\nlane {:?} {predicate:?}", lane.source);
        }
        for part in &self.parts {
            text += &format!("\npart {} {}", part.what as u8, part.lane);
        }
        for Grid { period, periods, parts } in &self.grids {
            text += &format!("\ngrid {period} {periods} {parts:?}");
        }
        hash_text(&text)
    }
}

impl fmt::Debug for Aggregates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregates").field("columns", &self.columns).finish_non_exhaustive()
    }
}
