//! Columns of times as microseconds since 1970 UTC.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::{NullBuffer, ScalarBuffer},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType},
};

use super::JoinError;

/// Times, and which of them are there.
#[derive(Clone, Debug)]
pub struct Times {
    micros: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
}

impl Times {
    /// Reads timestamps of any unit, dates, text that says a time, and integers, which are microseconds already. Parts of a
    /// microsecond are cut off.
    ///
    /// # Errors
    /// When the column's type is no time, or a value has no counterpart.
    pub fn of(column: &ArrayRef) -> Result<Self, JoinError> {
        let wrong = |problem: String| JoinError::Time { problem };
        let held = match column.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => Arc::clone(column),
            integer if integer.is_integer() => cast(column, &DataType::Int64).map_err(wrong)?,
            DataType::Timestamp(_, zone) => {
                cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).map_err(wrong)?
            }
            DataType::Date32 | DataType::Date64 => {
                cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(wrong)?
            }
            // Text without a zone is UTC.
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())))
                    .map_err(wrong)?
            }
            other => {
                return Err(wrong(format!("{other} is no time; a timestamp, a date or microseconds are")));
            }
        };
        let micros = match held.data_type() {
            DataType::Int64 => held.as_primitive::<Int64Type>().values().clone(),
            _ => held.as_primitive::<TimestampMicrosecondType>().values().clone(),
        };
        Ok(Self { micros, nulls: held.logical_nulls().filter(|nulls| nulls.null_count() > 0) })
    }

    /// How many there are, nulls included.
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// The time of row `row`; `None` when it is null or there is no such row.
    #[inline]
    pub fn get(&self, row: usize) -> Option<i64> {
        let here = self.nulls.as_ref().is_none_or(|nulls| row < nulls.len() && nulls.is_valid(row));
        self.micros.get(row).copied().filter(|_| here)
    }

    /// The same, `ahead` microseconds later.
    #[cfg(feature = "offline")]
    #[must_use]
    pub(super) fn later(self, ahead: i64) -> Self {
        if ahead == 0 {
            return self;
        }
        let micros = self.micros.iter().map(|at| at.saturating_add(ahead)).collect();
        Self { micros, nulls: self.nulls }
    }

    /// The earliest and the latest.
    #[cfg(feature = "offline")]
    pub(super) fn range(&self) -> Option<(i64, i64)> {
        let times = || (0..self.len()).filter_map(|row| self.get(row));
        Some((times().min()?, times().max()?))
    }

    /// The first row without a time.
    pub(super) fn first_null(&self) -> Option<usize> {
        let nulls = self.nulls.as_ref()?;
        (0..nulls.len()).find(|&row| nulls.is_null(row))
    }

    /// All of them, `none` where there is none.
    pub(super) fn filled(&self, none: i64) -> impl Iterator<Item = i64> + '_ {
        (0..self.len()).map(move |row| self.get(row).unwrap_or(none))
    }

    /// The times themselves; what stands under a null is of no meaning.
    pub(super) fn micros(&self) -> &[i64] {
        &self.micros
    }
}

fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &strict).map_err(|error| error.to_string())
}
