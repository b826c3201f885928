//! Columns brought into the type that a set declares, when every value fits.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array},
    compute::{CastOptions, cast_with_options, kernels::cmp::distinct},
    datatypes::{DataType, Float64Type},
};

use crate::{
    RowProblem,
    cell::{bits_of_text, column_of_bits, held_as, texts},
    key::shortened,
    set::Column,
};

/// Why a column does not fit.
pub(crate) enum Unfit {
    /// No value of its type could.
    Column(String),
    /// One value does not.
    Value {
        /// The value's row.
        row: usize,
        /// What is wrong with it.
        problem: RowProblem,
    },
}

/// `found` in the type of `column`. A float may be rounded to a narrower float; nothing else may be lost.
pub(crate) fn fit(column: &Column, found: &ArrayRef) -> Result<ArrayRef, Unfit> {
    let (fitted, unfit) = fit_rows(column, found).map_err(Unfit::Column)?;
    match unfit.into_iter().next() {
        None => Ok(fitted),
        Some((row, problem)) => Err(Unfit::Value { row, problem }),
    }
}

/// `found` in the type of `column`, as [`fit`], and the rows whose value does not fit, in order. What stands for those is of no
/// meaning.
pub(crate) fn fit_rows(
    column: &Column,
    found: &ArrayRef,
) -> Result<(ArrayRef, Vec<(usize, RowProblem)>), String> {
    let Column { name, data_type } = column;
    let from = found.data_type();
    if from == data_type {
        return Ok((Arc::clone(found), Vec::new()));
    }
    let mismatch = || format!("column `{name}` is {from}, not {data_type}");
    if !converts(from, data_type) {
        return Err(mismatch());
    }
    let fitted = convert(found, data_type).ok_or_else(mismatch)?;
    let lost = Lost::of(found, &fitted).ok_or_else(mismatch)?;
    let unfit = (0..found.len()).filter(|&row| found.is_valid(row) && (fitted.is_null(row) || lost.at(row)));
    let unfit = unfit.map(|row| {
        let value = shortened(arrow::util::display::array_value_to_string(found, row).unwrap_or_default());
        (row, RowProblem::Value { column: name.clone(), value, data_type: data_type.clone() })
    });
    let unfit = unfit.collect();
    Ok((fitted, unfit))
}

/// Whether values of one type may become another's: numbers become numbers, anything becomes what its text says.
fn converts(from: &DataType, to: &DataType) -> bool {
    let text = |data_type: &DataType| held_as(data_type) == DataType::Utf8;
    match (from, to) {
        (DataType::Dictionary(_, values), to) => converts(values, to) || held_as(values) == *to,
        (from, to) if text(from) => {
            text(to) || to.is_numeric() || to.is_temporal() || *to == DataType::Boolean
        }
        (from, to) if from.is_temporal() => to.is_temporal() || *to == DataType::Int64,
        (from, to) => (from.is_numeric() || *from == DataType::Boolean) && to.is_numeric(),
    }
}

/// Null where a value has no counterpart.
fn convert(found: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    if held_as(found.data_type()) != DataType::Utf8 {
        return cast(found, to);
    }
    let held = cast(found, &DataType::Utf8)?;
    if *to == DataType::Utf8 {
        return Some(held);
    }
    let bits: Vec<_> = texts(&held)?.iter().map(|text| bits_of_text(text?, to)).collect();
    column_of_bits(&bits, to)
}

fn cast(array: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() }).ok()
}

/// What casting loses without a word: fractions, and floats that become infinite.
enum Lost {
    Nothing,
    Fraction { differs: BooleanArray, found: Float64Array },
    Overflow { fitted: Float64Array, found: Float64Array },
}

impl Lost {
    fn of(found: &ArrayRef, fitted: &ArrayRef) -> Option<Self> {
        let (from, to) = (found.data_type(), fitted.data_type());
        let floats = |array: &ArrayRef| {
            Some(cast(array, &DataType::Float64)?.as_primitive_opt::<Float64Type>()?.clone())
        };
        if !from.is_numeric() {
            Some(Self::Nothing)
        } else if to.is_integer() && !from.is_integer() {
            let differs = distinct(&cast(fitted, from)?, found).ok()?;
            Some(Self::Fraction { differs, found: floats(found)? })
        } else if to.is_floating() {
            Some(Self::Overflow { fitted: floats(fitted)?, found: floats(found)? })
        } else {
            Some(Self::Nothing)
        }
    }

    fn at(&self, row: usize) -> bool {
        match self {
            Self::Nothing => false,
            // A zero below zero differs from zero, but nothing is lost with its sign.
            Self::Fraction { differs, found } => differs.value(row) && found.value(row) != 0.0,
            Self::Overflow { fitted, found } => {
                !fitted.value(row).is_finite() && found.value(row).is_finite()
            }
        }
    }
}
