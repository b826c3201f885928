//! Aggregates, checked and typed: what every key's events are reduced to.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use arrow::{
    array::{BooleanArray, RecordBatch},
    datatypes::{DataType, Schema},
};
use millstream_graph::suggest;

use super::{
    accumulator::{Accumulator, Part, What},
    distinct::hash_text,
    layout::Layout,
    spec::{AggregateSpec, Function, WindowLength},
    values::Formula,
    word::Kind,
};
use crate::{
    cell::{Width, held_as},
    set::Column,
};

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
    columns: Vec<Column>,
    pub(super) outputs: Vec<Output>,
    pub(super) windows: Vec<Window>,
    pub(super) grids: Vec<Grid>,
    parts: Vec<Part>,
    all: Vec<bool>,
    pub(super) sources: Vec<Source>,
    pub(super) lanes: Vec<Lane>,
    pub(super) predicates: Vec<(String, Arc<dyn Predicate>)>,
    layout: Layout,
    /// In microseconds.
    lateness: i64,
    /// The longest sliding window, in microseconds.
    reach: i64,
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
        let mut draft = Draft { events, compile, problems: Vec::new(), made: Self::nothing(lateness) };
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

    /// The earliest event time that is still taken after an event at `event`.
    pub(super) fn horizon(&self, event: i64) -> i64 {
        event.saturating_sub(self.lateness)
    }

    /// The earliest event that has to be kept by itself when nothing before `horizon` is read or taken.
    pub(super) fn cut(&self, horizon: i64) -> i64 {
        horizon.saturating_sub(self.reach)
    }

    /// What tells states of these aggregates from those of others.
    pub(super) fn stamp(&self) -> u64 {
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

/// Periods in a window, at most: a key keeps accumulators for each.
const MOST_PERIODS: i64 = 10_000;

/// Aggregates in the making.
struct Draft<'a> {
    events: &'a Schema,
    compile: &'a Compile<'a>,
    problems: Vec<String>,
    made: Aggregates,
}

impl Draft<'_> {
    fn spec(&mut self, spec: &AggregateSpec) {
        let label = spec.name.as_deref().or(spec.column.as_deref()).unwrap_or("count");
        let mut problems = Vec::new();
        for (what, none) in [("functions", spec.functions.is_empty()), ("windows", spec.windows.is_empty())] {
            if none {
                problems.push(format!("no {what}; name at least one"));
            }
        }
        let spans: Vec<_> = spec.windows.iter().map(|length| span(spec, length)).collect();
        problems.extend(spans.iter().filter_map(|span| span.as_ref().err().cloned()));
        let source = spec.column.as_deref().map(|column| self.source(column)).transpose();
        let predicate = spec.filter.as_deref().map(|text| self.predicate(text)).transpose();
        problems.extend(source.as_ref().err().cloned());
        problems.extend(predicate.as_ref().err().cloned());
        if let Ok(source) = source {
            let refused = |function| self.refusal(source, function);
            problems.extend(spec.functions.iter().filter_map(|function| refused(*function)));
            if let (Ok(predicate), true) = (predicate, problems.is_empty()) {
                let lane = position(&mut self.made.lanes, Lane { source, predicate });
                let windows: Vec<_> = spans.into_iter().flatten().zip(&spec.windows).collect();
                for &function in &spec.functions {
                    for (span, length) in &windows {
                        self.output(spec, function, lane, *span, length);
                    }
                }
            }
        }
        self.problems.extend(problems.into_iter().map(|problem| format!("aggregate `{label}`: {problem}")));
    }

    /// The place of a column among those that are read.
    fn source(&mut self, name: &str) -> Result<usize, String> {
        if let Some(known) = self.made.sources.iter().position(|source| source.name == name) {
            return Ok(known);
        }
        let names = self.events.fields().iter().map(|field| field.name().as_str());
        let field = self.events.field_with_name(name).map_err(|_| suggest::unknown("column", name, names))?;
        let data_type = held_as(field.data_type());
        if Width::of(&data_type).is_none() {
            return Err(format!(
                "column `{name}` is {data_type}; numbers, strings, truth values, dates and timestamps are aggregated"
            ));
        }
        let kind = Kind::of(&data_type);
        self.made.sources.push(Source { name: name.to_owned(), data_type, kind, text: None });
        Ok(self.made.sources.len() - 1)
    }

    fn predicate(&mut self, text: &str) -> Result<usize, String> {
        let known = self.made.predicates.iter().position(|(known, _)| known == text);
        known.map_or_else(
            || {
                let compiled =
                    (self.compile)(text).map_err(|problem| format!("`where: {text}`: {problem}"))?;
                self.made.predicates.push((text.to_owned(), compiled));
                Ok(self.made.predicates.len() - 1)
            },
            Ok,
        )
    }

    /// Why a function cannot be had of a column.
    fn refusal(&self, source: Option<usize>, function: Function) -> Option<String> {
        let Some(source) = source else {
            let problem =
                format!("`{function}` of no column; name one under `column`, or count events with `count`");
            return (function != Function::Count).then_some(problem);
        };
        let Source { name, data_type, .. } = &self.made.sources[source];
        let wanted = match function {
            Function::Count | Function::First | Function::Last | Function::Distinct => return None,
            Function::Min | Function::Max if data_type.is_temporal() => return None,
            Function::Min | Function::Max => "a number, a date or a timestamp",
            _ => "a number",
        };
        (!data_type.is_numeric()).then(|| {
            format!("`{function}` of column `{name}`, which is {data_type}; it is taken of {wanted}")
        })
    }

    fn output(
        &mut self,
        spec: &AggregateSpec,
        function: Function,
        lane: usize,
        span: Span,
        length: &WindowLength,
    ) {
        let name = spec.name.as_deref().or(spec.column.as_deref());
        let name = match name {
            Some(name) => format!("{name}_{function}_{length}"),
            None => format!("{function}_{length}"),
        };
        let source = self.made.lanes[lane].source;
        let held = source.map_or(DataType::Int64, |source| self.made.sources[source].data_type.clone());
        let mut parts = Vec::new();
        let formula = Formula::of(function, &held, |what| {
            let part = self.part(what, lane);
            parts.push(part);
            part
        });
        let window = self.window(span);
        let grid = self.made.windows[window].grid;
        let needed = &mut self.made.windows[window].parts;
        parts.iter().for_each(|&part| _ = position(needed, part));
        if let Some(grid) = grid {
            parts.iter().for_each(|&part| _ = position(&mut self.made.grids[grid].parts, part));
        }
        self.made.columns.push(Column { name, data_type: formula.data_type(&held) });
        self.made.outputs.push(Output { window, formula });
    }

    fn part(&mut self, what: What, lane: usize) -> usize {
        let made = &mut self.made;
        let source = made.lanes[lane].source;
        let ordered = matches!(what, What::First | What::Last);
        made.layout.versioned |= ordered;
        let mut text = None;
        if let Some(source) = source.filter(|&source| ordered && made.sources[source].kind == Kind::Text) {
            let texts = &mut made.layout.texts;
            text = Some(*made.sources[source].text.get_or_insert_with(|| {
                *texts += 1;
                *texts - 1
            }));
        }
        let cell = source.map(|source| (source, made.sources[source].kind));
        position(&mut made.parts, Part { what, lane, cell, text })
    }

    fn window(&mut self, span: Span) -> usize {
        let made = &mut self.made;
        if let Some(known) = made.windows.iter().position(|window| window.span == span) {
            return known;
        }
        let grid = match span {
            Span::Sliding(length) => {
                made.reach = made.reach.max(length);
                None
            }
            Span::Aligned { period, periods } => {
                let known = made.grids.iter().position(|grid| grid.period == period);
                let grid = known.unwrap_or_else(|| {
                    made.grids.push(Grid { period, periods, parts: Vec::new() });
                    made.grids.len() - 1
                });
                made.grids[grid].periods = made.grids[grid].periods.max(periods);
                Some(grid)
            }
        };
        made.windows.push(Window { span, parts: Vec::new(), grid });
        made.windows.len() - 1
    }
}

/// The place of `item`, which is added if it is not there.
fn position<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

fn span(spec: &AggregateSpec, length: &WindowLength) -> Result<Span, String> {
    match &spec.period {
        None if spec.fixed => Ok(Span::Aligned { period: length.micros(), periods: 1 }),
        None => Ok(Span::Sliding(length.micros())),
        Some(_) if spec.fixed => Err("`fixed` and `period` exclude each other".to_owned()),
        Some(period) => {
            let (periods, rest) = (length.micros() / period.micros(), length.micros() % period.micros());
            if rest != 0 {
                return Err(format!("window {length} is no multiple of the period {period}"));
            }
            if periods > MOST_PERIODS {
                return Err(format!(
                    "window {length} has {periods} periods of {period}; {MOST_PERIODS} is the most"
                ));
            }
            Ok(Span::Aligned { period: period.micros(), periods })
        }
    }
}
