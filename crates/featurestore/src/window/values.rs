//! Features from what windows have kept, and their columns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::DataType,
};

use super::{
    accumulator::{Accumulator, What},
    aggregates::Aggregates,
    ledger::{Ledger, TooEarly},
    spec::Function,
    word::cell_bits,
};
use crate::{
    cell::{Bits, Cell, CellValue, column_of_bits},
    set::Column,
};

/// How a feature follows from accumulators, which are given by the numbers of their parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Formula {
    Count(usize),
    Distinct(usize),
    Quantile {
        values: usize,
        thousandths: u16,
    },
    /// The least, greatest, first or last value.
    One(usize),
    WholeSum {
        count: usize,
        sum: usize,
    },
    Sum {
        count: usize,
        sum: usize,
    },
    Mean {
        count: usize,
        sum: usize,
    },
    Variance {
        count: usize,
        sum: usize,
        squares: usize,
        root: bool,
    },
}

impl Formula {
    /// The formula of a function over values of `held`; `part` says where what it needs is kept.
    pub(super) fn of(function: Function, held: &DataType, mut part: impl FnMut(What) -> usize) -> Self {
        match function {
            Function::Count => Self::Count(part(What::Count)),
            Function::Distinct => Self::Distinct(part(What::Distinct)),
            Function::Quantile(thousandths) => Self::Quantile { values: part(What::Quantiles), thousandths },
            Function::Min => Self::One(part(What::Min)),
            Function::Max => Self::One(part(What::Max)),
            Function::First => Self::One(part(What::First)),
            Function::Last => Self::One(part(What::Last)),
            Function::Sum if held.is_integer() => {
                Self::WholeSum { count: part(What::Count), sum: part(What::Sum) }
            }
            Function::Sum => Self::Sum { count: part(What::Count), sum: part(What::Sum) },
            Function::Squares => Self::Sum { count: part(What::Count), sum: part(What::Squares) },
            Function::Mean => Self::Mean { count: part(What::Count), sum: part(What::Sum) },
            Function::Variance | Function::Deviation => Self::Variance {
                count: part(What::Count),
                sum: part(What::Sum),
                squares: part(What::Squares),
                root: function == Function::Deviation,
            },
        }
    }

    /// The feature's type, of values of `held`.
    pub(super) fn data_type(self, held: &DataType) -> DataType {
        match self {
            Self::Count(_) | Self::Distinct(_) | Self::WholeSum { .. } => DataType::Int64,
            Self::Quantile { .. } | Self::Sum { .. } | Self::Mean { .. } | Self::Variance { .. } => {
                DataType::Float64
            }
            Self::One(_) => held.clone(),
        }
    }

    /// The feature. A window without values has none, but counts are zero.
    fn value(self, kept: &[Accumulator], data_type: &DataType) -> Value {
        let count = |part: usize| kept[part].count();
        match self {
            Self::Count(part) => whole(i64::try_from(count(part)).ok()),
            Self::Distinct(part) => match &kept[part] {
                Accumulator::Distinct(distinct) => whole(i64::try_from(distinct.count()).ok()),
                _ => Value::Null,
            },
            Self::Quantile { values, thousandths } => match &kept[values] {
                Accumulator::Quantiles(quantiles) => quantiles.at(thousandths).map_or(Value::Null, float),
                _ => Value::Null,
            },
            Self::One(part) => one(&kept[part], data_type),
            Self::WholeSum { count: of, sum } => match &kept[sum] {
                Accumulator::Sum(total) if count(of) > 0 => whole(total.exact.to_i64()),
                _ => Value::Null,
            },
            Self::Sum { count: of, sum } => match &kept[sum] {
                Accumulator::Sum(total) | Accumulator::Squares(total) if count(of) > 0 => {
                    float(total.quotient(&[]))
                }
                _ => Value::Null,
            },
            Self::Mean { count: of, sum } => match &kept[sum] {
                Accumulator::Sum(total) if count(of) > 0 => float(total.quotient(&[count(of)])),
                _ => Value::Null,
            },
            Self::Variance { count: of, sum, squares, root } => match (&kept[sum], &kept[squares]) {
                (Accumulator::Sum(sum), Accumulator::Squares(squares)) if count(of) > 1 => {
                    let variance = sum.variance(count(of), squares);
                    float(if root { variance.sqrt() } else { variance })
                }
                _ => Value::Null,
            },
        }
    }
}

enum Value {
    Null,
    /// A whole number that does not fit its type.
    Overflow,
    Cell(CellValue),
}

fn whole(value: Option<i64>) -> Value {
    value.map_or(Value::Overflow, |value| Value::Cell(CellValue::Bits(value.to_cell())))
}

fn float(value: f64) -> Value {
    Value::Cell(CellValue::Bits(value.to_cell()))
}

fn one(kept: &Accumulator, data_type: &DataType) -> Value {
    let bits = |word: u64| CellValue::Bits(cell_bits(word, data_type));
    let cell = match kept {
        Accumulator::Min(word) | Accumulator::Max(word) => word.map(bits),
        Accumulator::First(end) | Accumulator::Last(end) => end.as_ref().map(|end| match &end.text {
            Some(text) => CellValue::Text(Arc::clone(text)),
            None => bits(end.word),
        }),
        _ => None,
    };
    cell.map_or(Value::Null, Value::Cell)
}

/// One key's features at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// A cell for each of [`Aggregates::columns`]; none where the feature is null.
    pub cells: Vec<Option<Cell>>,
    /// How many features are null because a sum of whole numbers is beyond 64 bits.
    pub overflows: usize,
}

impl Values {
    pub(super) fn nulls(aggregates: &Aggregates) -> Self {
        Self { cells: vec![None; aggregates.outputs.len()], overflows: 0 }
    }

    /// Sets the features of the window number `window` from what its parts have kept.
    pub(super) fn fill(&mut self, aggregates: &Aggregates, window: usize, kept: &[Accumulator]) {
        let outputs = aggregates.outputs.iter().zip(aggregates.columns()).zip(&mut self.cells);
        for ((output, column), cell) in outputs.filter(|((output, _), _)| output.window == window) {
            match output.formula.value(kept, &column.data_type) {
                Value::Cell(value) => *cell = Some(Cell(value)),
                Value::Null => {}
                Value::Overflow => self.overflows += 1,
            }
        }
    }
}

/// Many keys' features, as columns.
#[derive(Clone, Debug)]
pub struct Readings {
    /// An array for each of [`Aggregates::columns`].
    pub arrays: Vec<ArrayRef>,
    /// How many values are null because a sum of whole numbers is beyond 64 bits.
    pub overflows: usize,
}

impl Aggregates {
    /// Reads each ledger at its time, a row for each.
    ///
    /// # Errors
    /// When one of them is read at a time for which it no longer has the events; see [`Ledger::read`].
    pub fn read<'a>(
        &self,
        ledgers: impl IntoIterator<Item = (&'a Ledger, i64)>,
    ) -> Result<Readings, TooEarly> {
        let rows = ledgers.into_iter().map(|(ledger, at)| ledger.read(self, at));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let overflows = rows.iter().map(|row| row.overflows).sum();
        let column =
            |(at, column): (usize, &Column)| array(column, rows.iter().map(|row| row.cells[at].as_ref()));
        Ok(Readings { arrays: self.columns().iter().enumerate().map(column).collect(), overflows })
    }
}

/// A feature's values as a column.
pub(crate) fn array<'a>(column: &Column, cells: impl Iterator<Item = Option<&'a Cell>>) -> ArrayRef {
    let cells = cells.map(|cell| cell.map(|cell| &cell.0));
    if column.data_type == DataType::Utf8 {
        let text = |cell: Option<&'a CellValue>| match cell {
            Some(CellValue::Text(text)) => Some(&**text),
            _ => None,
        };
        return Arc::new(cells.map(text).collect::<StringArray>());
    }
    let bits = |cell| match cell {
        Some(&CellValue::Bits(bits)) => Some(bits),
        _ => None,
    };
    let bits: Vec<Option<u64>> = cells.map(bits).collect();
    column_of_bits(&bits, &column.data_type)
        .unwrap_or_else(|| arrow::array::new_null_array(&column.data_type, bits.len()))
}
