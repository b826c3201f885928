//! The arithmetic of ensembles, row by row.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Float32Type, Float64Type, Int64Type},
};
use millstream_graph::{SchemaError, StepError};
use smallvec::SmallVec;

use super::{Missing, Rule};

/// Combines the members of one schema.
pub(super) struct Combiner {
    rule: Rule,
    names: Vec<String>,
    members: Vec<usize>,
    weights: Vec<f64>,
    missing: Missing,
    kind: Kind,
}

/// What the members hold, with what replaces one that is missing.
#[derive(Debug)]
enum Kind {
    Numbers(Option<f64>),
    Ints(Option<i64>),
    Texts(Option<String>),
}

/// One combined column. Rows that failed hold anything in it.
pub(super) struct Combined {
    pub(super) column: ArrayRef,
    pub(super) failed: Vec<(u32, String)>,
    pub(super) degraded: Option<String>,
}

impl Combiner {
    pub(super) fn new(
        rule: &Rule,
        names: Vec<String>,
        members: Vec<usize>,
        types: &[&DataType],
        weights: Vec<f64>,
        missing: &Missing,
    ) -> Result<Self, SchemaError> {
        let vote = matches!(rule, Rule::MajorityVote);
        let suits: fn(&DataType) -> bool = match vote {
            true if types.first().is_some_and(|first| is_text(first)) => is_text,
            true => |data_type| is_class(data_type) || *data_type == DataType::Boolean,
            false => DataType::is_numeric,
        };
        let wanted = match (vote, types.first()) {
            (true, Some(first)) if is_text(first) => "texts, like the first member",
            (true, _) => "whole numbers up to 63 bits, or texts",
            (false, _) => "numbers",
        };
        let unsuited = names.iter().zip(types).filter(|(_, data_type)| !suits(data_type));
        SchemaError::collect(unsuited.map(|(name, data_type)| {
            SchemaError::new(format!("member `{name}` is {data_type}, but the ensemble takes {wanted}"))
        }))?;
        let replacement = match missing {
            Missing::Replace(value) => Some(value),
            Missing::Fail | Missing::Renormalise => None,
        };
        let unfit = |what: &str| {
            let value = replacement.map(ToString::to_string).unwrap_or_default();
            SchemaError::new(format!("`missing` replaces a member by {value}, which is not {what}"))
        };
        let kind = if !vote {
            let number =
                replacement.map(|value| value.as_f64().ok_or_else(|| unfit("a number"))).transpose()?;
            Kind::Numbers(number)
        } else if types.first().is_some_and(|first| is_text(first)) {
            let text =
                replacement.map(|value| value.as_str().map(str::to_owned).ok_or_else(|| unfit("a text")));
            Kind::Texts(text.transpose()?)
        } else {
            Kind::Ints(
                replacement.map(|value| value.as_i64().ok_or_else(|| unfit("a whole number"))).transpose()?,
            )
        };
        Ok(Self { rule: rule.clone(), names, members, weights, missing: missing.clone(), kind })
    }

    /// The type of the combined column.
    pub(super) fn data_type(&self) -> DataType {
        match self.kind {
            Kind::Numbers(_) => DataType::Float64,
            Kind::Ints(_) => DataType::Int64,
            Kind::Texts(_) => DataType::Utf8,
        }
    }

    pub(super) fn combine(&self, batch: &RecordBatch) -> Result<Combined, StepError> {
        let columns = self.members.iter().map(|&column| batch.column(column));
        let rows = batch.num_rows();
        match &self.kind {
            Kind::Numbers(replacement) => {
                let columns = columns.map(Numbers::new).collect::<Result<SmallVec<[_; 8]>, _>>()?;
                let mut values = Vec::with_capacity(rows);
                let value = |member: usize, row| columns[member].get(row);
                let noted = self.each_row(rows, *replacement, value, |line, whole| {
                    let value = self.number(line, whole);
                    values.push(*value.as_ref().unwrap_or(&f64::NAN));
                    value.map(|_| ())
                });
                Ok(noted.of(Arc::new(Float64Array::from(values))))
            }
            Kind::Ints(replacement) => {
                let columns = cast_all(columns, &DataType::Int64)?;
                let columns: SmallVec<[&Int64Array; 8]> =
                    columns.iter().map(|c| c.as_primitive::<Int64Type>()).collect();
                let mut values = Vec::with_capacity(rows);
                let value =
                    |member: usize, row| columns[member].is_valid(row).then(|| columns[member].value(row));
                let noted = self.each_row(rows, *replacement, value, |line, _| {
                    let class = self.vote(line);
                    values.push(*class.as_ref().unwrap_or(&0));
                    class.map(|_| ())
                });
                Ok(noted.of(Arc::new(Int64Array::from(values))))
            }
            Kind::Texts(replacement) => {
                let columns = cast_all(columns, &DataType::Utf8)?;
                let columns: SmallVec<[&StringArray; 8]> =
                    columns.iter().map(|c| c.as_string::<i32>()).collect();
                let mut values = Vec::with_capacity(rows);
                let value =
                    |member: usize, row| columns[member].is_valid(row).then(|| columns[member].value(row));
                let noted = self.each_row(rows, replacement.as_deref(), value, |line, _| {
                    let class = self.vote(line);
                    values.push(*class.as_ref().unwrap_or(&""));
                    class.map(|_| ())
                });
                Ok(noted.of(Arc::new(StringArray::from(values))))
            }
        }
    }

    /// Goes through the rows: puts each row's values together, deals with missing ones, and calls `combine` with
    /// them and with whether they are complete.
    fn each_row<T: Copy>(
        &self,
        rows: usize,
        replacement: Option<T>,
        value: impl Fn(usize, usize) -> Option<T>,
        mut combine: impl FnMut(&[Option<T>], bool) -> Result<(), String>,
    ) -> Noted {
        let mut failed = Vec::new();
        let mut gone: SmallVec<[usize; 8]> = SmallVec::from_elem(0, self.names.len());
        let mut line: SmallVec<[Option<T>; 8]> = SmallVec::new();
        for row in 0..rows {
            line.clear();
            let mut lost = None;
            for (member, gone) in gone.iter_mut().enumerate() {
                let mut value = value(member, row);
                if value.is_none() {
                    *gone += 1;
                    value = replacement;
                    lost = lost.or((value.is_none()).then_some(member));
                }
                line.push(value);
            }
            let combined = match lost {
                Some(member) if self.missing == Missing::Fail => {
                    Err(format!("member `{}` is missing", self.names[member]))
                }
                Some(_) if line.iter().all(Option::is_none) => Err("every member is missing".to_owned()),
                _ => Ok(()),
            };
            // A failed row still takes its place in the column.
            let done = combine(&line, lost.is_none());
            if let Err(reason) = combined.and(done) {
                failed.push((row as u32, reason));
            }
        }
        Noted { failed, degraded: self.degraded(&gone, rows) }
    }

    fn degraded(&self, gone: &[usize], rows: usize) -> Option<String> {
        let notes = self.names.iter().zip(gone).filter(|(_, gone)| **gone > 0).map(|(name, &gone)| {
            let what = match &self.missing {
                Missing::Replace(value) => format!("member `{name}` replaced by {value}"),
                Missing::Fail | Missing::Renormalise => format!("member `{name}` left out"),
            };
            if gone == rows { what } else { format!("{what} for {gone} of {rows} rows") }
        });
        let notes: Vec<_> = notes.collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn number(&self, line: &[Option<f64>], whole: bool) -> Result<f64, String> {
        let present =
            || line.iter().zip(&self.weights).filter_map(|(value, weight)| Some(((*value)?, *weight)));
        match &self.rule {
            Rule::Custom(combine) => Ok(combine(line)),
            Rule::Max => Ok(present().map(|(value, _)| value).fold(f64::NEG_INFINITY, largest)),
            Rule::WeightedMean | Rule::MajorityVote => {
                // In the order of the members: the same sum on every machine, in every batch.
                let sum = present().map(|(value, weight)| weight * value).reduce(|sum, part| sum + part);
                let sum = sum.unwrap_or(f64::NAN);
                if whole {
                    return Ok(sum);
                }
                let weights: f64 = present().map(|(_, weight)| weight).sum();
                if weights > 0.0 { Ok(sum / weights) } else { Err(WEIGHTLESS.to_owned()) }
            }
        }
    }

    fn vote<T: Copy + Ord>(&self, line: &[Option<T>]) -> Result<T, String> {
        let mut totals: SmallVec<[(T, f64); 8]> = SmallVec::new();
        for (class, weight) in
            line.iter().zip(&self.weights).filter_map(|(class, weight)| Some(((*class)?, *weight)))
        {
            match totals.iter_mut().find(|(known, _)| *known == class) {
                Some((_, total)) => *total += weight,
                None => totals.push((class, weight)),
            }
        }
        let most = totals.iter().map(|(_, total)| *total).fold(0.0, f64::max);
        if most <= 0.0 {
            return Err(WEIGHTLESS.to_owned());
        }
        // 0.1 + 0.2 draws level with 0.3, although their sums differ in the last bit.
        let winners = totals.iter().filter(|(_, total)| *total >= most - 1e-12).map(|(class, _)| *class);
        winners.min().ok_or_else(|| WEIGHTLESS.to_owned())
    }
}

const WEIGHTLESS: &str = "the members that are left have no weight";

fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// What was noticed while combining.
struct Noted {
    failed: Vec<(u32, String)>,
    degraded: Option<String>,
}

impl Noted {
    fn of(self, column: ArrayRef) -> Combined {
        Combined { column, failed: self.failed, degraded: self.degraded }
    }
}

/// A member's column as 64-bit floats.
enum Numbers<'a> {
    F64(&'a Float64Array),
    F32(&'a Float32Array),
    Cast(Float64Array),
}

impl<'a> Numbers<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self, StepError> {
        if let Some(values) = column.as_primitive_opt::<Float64Type>() {
            return Ok(Self::F64(values));
        }
        if let Some(values) = column.as_primitive_opt::<Float32Type>() {
            return Ok(Self::F32(values));
        }
        Ok(Self::Cast(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone()))
    }

    fn get(&self, row: usize) -> Option<f64> {
        match self {
            Self::F64(values) => values.is_valid(row).then(|| values.value(row)),
            Self::F32(values) => values.is_valid(row).then(|| values.value(row).into()),
            Self::Cast(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

fn cast_all<'a>(
    columns: impl Iterator<Item = &'a ArrayRef>,
    to: &DataType,
) -> Result<SmallVec<[ArrayRef; 8]>, StepError> {
    columns
        .map(|column| if column.data_type() == to { Ok(Arc::clone(column)) } else { Ok(cast(column, to)?) })
        .collect()
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// Whether every value is a whole number that fits in 64 signed bits.
fn is_class(data_type: &DataType) -> bool {
    data_type.is_integer() && *data_type != DataType::UInt64
}
