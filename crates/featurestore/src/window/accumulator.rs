//! What is kept of many events: sums, extremes, ends and sketches that merge in any order to the same bits.

use std::sync::Arc;

use super::{
    distinct::{Distinct, hash_word},
    exact::Exact,
    layout::{Layout, Row},
    quantiles::Quantiles,
    word::{Kind, Number},
};

/// One thing that is kept of the events of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) what: What,
    /// Which events count: those that have this lane's bit.
    pub(super) lane: usize,
    /// The cell with the value, and what it is; none where events are counted.
    pub(super) cell: Option<(usize, Kind)>,
    /// Which of the row's texts is the value.
    pub(super) text: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Count,
    Sum,
    Squares,
    Min,
    Max,
    First,
    Last,
    Distinct,
    Quantiles,
}

/// What a [`Part`] keeps.
#[derive(Clone, Debug)]
pub(super) enum Accumulator {
    Count(u64),
    Sum(Total),
    Squares(Total),
    Min(Option<u64>),
    Max(Option<u64>),
    First(Option<Box<End>>),
    Last(Option<Box<End>>),
    Distinct(Distinct),
    Quantiles(Quantiles),
}

/// A sum of numbers, infinite ones counted apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    pub(super) exact: Exact,
    /// How many infinities, positive and negative.
    pub(super) infinite: [u64; 2],
}

/// The value of the first or the last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Event, created and sequence as words: they have the order of versions.
    pub(super) version: [u64; 3],
    pub(super) word: u64,
    pub(super) text: Option<Arc<str>>,
}

impl Part {
    /// What is kept of no event.
    pub(super) fn empty(&self) -> Accumulator {
        match self.what {
            What::Count => Accumulator::Count(0),
            What::Sum => Accumulator::Sum(Total::default()),
            What::Squares => Accumulator::Squares(Total::default()),
            What::Min => Accumulator::Min(None),
            What::Max => Accumulator::Max(None),
            What::First => Accumulator::First(None),
            What::Last => Accumulator::Last(None),
            What::Distinct => Accumulator::Distinct(Distinct::default()),
            What::Quantiles => Accumulator::Quantiles(Quantiles::default()),
        }
    }

    /// Adds an event if it counts.
    pub(super) fn add(&self, layout: &Layout, into: &mut Accumulator, row: Row<'_>) {
        if !layout.counts(row, self.lane) {
            return;
        }
        let (word, kind) = match self.cell {
            Some((cell, kind)) => (layout.cell(row, cell), kind),
            None => (0, Kind::Unsigned),
        };
        match into {
            Accumulator::Count(count) => *count += 1,
            Accumulator::Sum(total) => total.add(kind.number(word)),
            Accumulator::Squares(total) => total.add_square(kind.number(word)),
            Accumulator::Min(least) => *least = Some(least.map_or(word, |least| least.min(word))),
            Accumulator::Max(most) => *most = (*most).max(Some(word)),
            Accumulator::First(first) => self.end(layout, row, word, first, |new, old| new < old),
            Accumulator::Last(last) => self.end(layout, row, word, last, |new, old| new > old),
            Accumulator::Distinct(distinct) => {
                // A text's word is its hash.
                distinct.add(if kind == Kind::Text { word } else { hash_word(kind.identity(word)) });
            }
            Accumulator::Quantiles(quantiles) => quantiles.add(kind.float(word)),
        }
    }

    fn end(
        &self,
        layout: &Layout,
        row: Row<'_>,
        word: u64,
        end: &mut Option<Box<End>>,
        better: impl Fn(([u64; 3], u64), ([u64; 3], u64)) -> bool,
    ) {
        let version = layout.version(row);
        if end.as_ref().is_none_or(|end| better((version, word), (end.version, end.word))) {
            let text = self.text.and_then(|text| row.texts.get(text).cloned().flatten());
            *end = Some(Box::new(End { version, word, text }));
        }
    }
}

impl Accumulator {
    /// Adds what another accumulator of the same part kept of other events.
    pub(super) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(count), Self::Count(other)) => *count = count.saturating_add(*other),
            (Self::Sum(total), Self::Sum(other)) | (Self::Squares(total), Self::Squares(other)) => {
                total.merge(other);
            }
            (Self::Min(least), Self::Min(other)) => {
                *least = [*least, *other].into_iter().flatten().min();
            }
            (Self::Max(most), Self::Max(other)) => *most = (*most).max(*other),
            (Self::First(first), Self::First(Some(other)))
                if first.as_ref().is_none_or(|first| other.rank() < first.rank()) =>
            {
                *first = Some(other.clone());
            }
            (Self::Last(last), Self::Last(Some(other)))
                if last.as_ref().is_none_or(|last| other.rank() > last.rank()) =>
            {
                *last = Some(other.clone());
            }
            (Self::Distinct(distinct), Self::Distinct(other)) => distinct.merge(other),
            (Self::Quantiles(quantiles), Self::Quantiles(other)) => quantiles.merge(other),
            // An end that is no better. Accumulators of different parts never meet: both lists are made from the same parts.
            _ => {}
        }
    }

    /// How many events were counted, for an accumulator that counts.
    pub(super) fn count(&self) -> u64 {
        if let Self::Count(count) = self { *count } else { 0 }
    }

    /// Bytes held outside the value itself.
    pub(super) fn heap(&self) -> usize {
        match self {
            Self::Count(_) | Self::Min(_) | Self::Max(_) => 0,
            Self::Sum(total) | Self::Squares(total) => total.exact.heap(),
            Self::First(end) | Self::Last(end) => end
                .as_ref()
                .map_or(0, |end| size_of::<End>() + end.text.as_ref().map_or(0, |text| text.len())),
            Self::Distinct(distinct) => distinct.heap(),
            Self::Quantiles(quantiles) => quantiles.heap(),
        }
    }
}

impl End {
    fn rank(&self) -> ([u64; 3], u64) {
        (self.version, self.word)
    }
}

impl Total {
    fn add(&mut self, number: Number) {
        match number {
            Number::Whole { magnitude, negative } => self.exact.add_whole(u128::from(magnitude), negative),
            Number::Float(value) if value.is_finite() => self.exact.add_float(value),
            Number::Float(value) => self.infinite[usize::from(value < 0.0)] += 1,
        }
    }

    fn add_square(&mut self, number: Number) {
        match number {
            Number::Whole { magnitude, .. } => self.exact.add_whole(u128::from(magnitude).pow(2), false),
            Number::Float(value) if value.is_finite() => self.exact.add_square(value),
            Number::Float(_) => self.infinite[0] += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.exact.merge(&other.exact);
        for (count, other) in self.infinite.iter_mut().zip(other.infinite) {
            *count = count.saturating_add(other);
        }
    }

    /// The sum divided by every one of `divisors`: with infinities what IEEE arithmetic makes of them.
    pub(super) fn quotient(&self, divisors: &[u64]) -> f64 {
        match self.infinite {
            [0, 0] => self.exact.quotient(divisors),
            [_, 0] => f64::INFINITY,
            [0, _] => f64::NEG_INFINITY,
            [_, _] => f64::NAN,
        }
    }

    /// The sample variance of `count` values, two at least, with this sum and those squares; NaN if one of them is infinite.
    pub(super) fn variance(&self, count: u64, squares: &Self) -> f64 {
        if self.infinite != [0, 0] {
            return f64::NAN;
        }
        squares.exact.spread(count, &self.exact).quotient(&[count, count - 1])
    }
}
