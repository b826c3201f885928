//! Aggregates in the making.

use arrow::datatypes::{DataType, Schema};
use millstream_graph::suggest;

use super::{
    accumulator::{Part, What},
    aggregates::{Aggregates, Compile, Grid, Lane, Output, Source, Span, Window},
    spec::{AggregateSpec, Function, WindowLength},
    values::Formula,
    word::Kind,
};
use crate::{
    cell::{Width, held_as},
    set::Column,
};

/// Periods in a window, at most: a key keeps accumulators for each.
const MOST_PERIODS: i64 = 10_000;

/// Aggregates of the specs seen so far, and what is wrong with them.
pub(super) struct Draft<'a> {
    events: &'a Schema,
    compile: &'a Compile<'a>,
    pub(super) problems: Vec<String>,
    pub(super) made: Aggregates,
}

impl<'a> Draft<'a> {
    pub(super) fn new(events: &'a Schema, compile: &'a Compile<'a>, made: Aggregates) -> Self {
        Self { events, compile, problems: Vec::new(), made }
    }

    pub(super) fn spec(&mut self, spec: &AggregateSpec) {
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
