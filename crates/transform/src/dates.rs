//! `date_parts`: the hour, the day of the week and other parts of points in time.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array},
    buffer::{Buffer, NullBuffer, ScalarBuffer},
    compute::cast,
    datatypes::{DataType, Field, Int64Type, SchemaRef, TimeUnit},
};
use chrono::{DateTime, Datelike, Days, Timelike, Utc, Weekday};
use indexmap::IndexMap;
use millstream_graph::{Input, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    encode::one_per_row,
    prepared::{
        Failure, Kernel, Layout, LayoutBuilder, Prepared, column_problem, each_column, without_failures,
    },
};

/// A part of a point in time, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DatePart {
    /// The year.
    Year,
    /// The quarter, 1 to 4.
    Quarter,
    /// The month, 1 to 12.
    Month,
    /// The ISO 8601 week, 1 to 53; the first days of January may belong to the last week of the year before.
    Week,
    /// The day of the month, 1 to 31.
    Day,
    /// The day of the week, Monday 0 to Sunday 6.
    DayOfWeek,
    /// The day of the year, 1 to 366.
    DayOfYear,
    /// The hour, 0 to 23.
    Hour,
    /// The minute, 0 to 59.
    Minute,
    /// The second, 0 to 59.
    Second,
    /// Whether it is Saturday or Sunday.
    IsWeekend,
    /// Whether the year has 366 days.
    IsLeapYear,
    /// Whether it is the first day of a month.
    IsMonthStart,
    /// Whether it is the last day of a month.
    IsMonthEnd,
}

impl DatePart {
    fn name(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Quarter => "quarter",
            Self::Month => "month",
            Self::Week => "week",
            Self::Day => "day",
            Self::DayOfWeek => "day_of_week",
            Self::DayOfYear => "day_of_year",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::IsWeekend => "is_weekend",
            Self::IsLeapYear => "is_leap_year",
            Self::IsMonthStart => "is_month_start",
            Self::IsMonthEnd => "is_month_end",
        }
    }

    fn is_flag(self) -> bool {
        matches!(self, Self::IsWeekend | Self::IsLeapYear | Self::IsMonthStart | Self::IsMonthEnd)
    }

    /// The part as a number; a flag is 0 or 1.
    fn of(self, time: DateTime<Utc>) -> i64 {
        match self {
            Self::Year => time.year().into(),
            Self::Quarter => i64::from(time.month0() / 3 + 1),
            Self::Month => time.month().into(),
            Self::Week => time.iso_week().week().into(),
            Self::Day => time.day().into(),
            Self::DayOfWeek => time.weekday().num_days_from_monday().into(),
            Self::DayOfYear => time.ordinal().into(),
            Self::Hour => time.hour().into(),
            Self::Minute => time.minute().into(),
            Self::Second => time.second().into(),
            Self::IsWeekend => matches!(time.weekday(), Weekday::Sat | Weekday::Sun).into(),
            Self::IsLeapYear => time.date_naive().leap_year().into(),
            Self::IsMonthStart => (time.day() == 1).into(),
            Self::IsMonthEnd => time.checked_add_days(Days::new(1)).is_none_or(|next| next.day() == 1).into(),
        }
    }
}

/// What one step of a whole number that is a point in time means: so many of these have passed since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Epoch {
    /// Seconds.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

/// Adds a column `<column>_<part>` for each listed part of a point in time, read in UTC.
///
/// Columns of timestamps (with any time zone), dates, and whole numbers counted from 1970 have parts. Null has null
/// parts. A number that is no point in time of the calendar sends its row out on the error port.
///
/// ```
/// use millstream_transform::{DatePart, DateParts};
/// let step = DateParts::new().column("ts", [DatePart::Hour, DatePart::DayOfWeek]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DateParts {
    settings: DatePartsSettings,
    prepared: Prepared<DatePartsKernel>,
}

/// Parts of points in time as columns of their own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatePartsSettings {
    /// The parts of each column. Each becomes a column `<column>_<part>` at the end; the source stays.
    columns: IndexMap<String, Vec<DatePart>>,
    /// What columns of whole numbers count since 1970.
    #[serde(default)]
    epoch: Epoch,
}

impl DateParts {
    /// No columns yet; whole numbers count seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds parts of `column`.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>, parts: impl IntoIterator<Item = DatePart>) -> Self {
        self.settings.columns.insert(column.into(), parts.into_iter().collect());
        self
    }

    /// Says what whole numbers count since 1970.
    #[must_use]
    pub fn epoch(mut self, epoch: Epoch) -> Self {
        self.settings.epoch = epoch;
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<DatePartsKernel, SchemaError> {
        let columns = each_column(schema, &self.settings.columns, |at, name, parts| {
            let data_type = schema.field(at).data_type();
            let Some(unit) = unit_of(data_type, self.settings.epoch) else {
                return Err(column_problem(
                    name,
                    format!("timestamps, dates and whole numbers have date parts, not {data_type}"),
                ));
            };
            if parts.is_empty() {
                return Err(column_problem(name, "it lists no parts"));
            }
            Ok(TimeColumn { at, name: name.into(), unit, parts: parts.clone() })
        })?;
        let mut layout = LayoutBuilder::new(schema);
        for column in &columns {
            let source = schema.field(column.at);
            for part in &column.parts {
                let data_type = if part.is_flag() { DataType::Boolean } else { DataType::Int64 };
                let name = format!("{}_{}", source.name(), part.name());
                layout.append(Arc::new(Field::new(name, data_type, source.is_nullable())));
            }
        }
        Ok(DatePartsKernel { columns, layout: layout.finish()? })
    }
}

impl From<DatePartsSettings> for DateParts {
    fn from(settings: DatePartsSettings) -> Self {
        Self { settings, prepared: Prepared::default() }
    }
}

impl Step for DateParts {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct DatePartsKernel {
    columns: Vec<TimeColumn>,
    layout: Layout,
}

#[derive(Debug)]
struct TimeColumn {
    at: usize,
    name: Box<str>,
    unit: Unit,
    parts: Vec<DatePart>,
}

/// What the numbers of a column count since 1970.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Days,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

fn unit_of(data_type: &DataType, epoch: Epoch) -> Option<Unit> {
    Some(match data_type {
        DataType::Date32 => Unit::Days,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => Unit::Milliseconds,
        DataType::Timestamp(TimeUnit::Second, _) => Unit::Seconds,
        DataType::Timestamp(TimeUnit::Microsecond, _) => Unit::Microseconds,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Unit::Nanoseconds,
        other if other.is_integer() => match epoch {
            Epoch::Seconds => Unit::Seconds,
            Epoch::Milliseconds => Unit::Milliseconds,
            Epoch::Microseconds => Unit::Microseconds,
            Epoch::Nanoseconds => Unit::Nanoseconds,
        },
        _ => return None,
    })
}

impl Unit {
    fn time(self, value: i64) -> Option<DateTime<Utc>> {
        match self {
            Self::Days => DateTime::from_timestamp(value.checked_mul(86_400)?, 0),
            Self::Seconds => DateTime::from_timestamp(value, 0),
            Self::Milliseconds => DateTime::from_timestamp_millis(value),
            Self::Microseconds => DateTime::from_timestamp_micros(value),
            Self::Nanoseconds => Some(DateTime::from_timestamp_nanos(value)),
        }
    }
}

impl TimeColumn {
    /// The points in time, in their unit.
    fn values(&self, array: &ArrayRef) -> Result<Int64Array, StepError> {
        let cast = match array.data_type() {
            DataType::Int64 => Arc::clone(array),
            // Days are 32 bits wide.
            DataType::Date32 => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
            // What is beyond the 64 bits with a sign becomes null here, and was found as a failure before.
            _ => cast(array, &DataType::Int64)?,
        };
        match cast.as_primitive_opt::<Int64Type>() {
            Some(values) => Ok(values.clone()),
            None => Err(StepError::internal(format!("points in time came in as {}", array.data_type()))),
        }
    }

    fn check(&self, array: &ArrayRef, failures: &mut Vec<Failure>) -> Result<(), StepError> {
        let values = self.values(array)?;
        for row in (0..array.len()).filter(|&row| array.is_valid(row)) {
            if values.is_null(row) || self.unit.time(values.value(row)).is_none() {
                let shown = crate::codes::shown_value(array, row);
                let message = format!("column `{}`: {shown} is not a point in time", self.name);
                failures.push(Failure { row: row as u32, message });
            }
        }
        Ok(())
    }

    /// Makes the columns of the parts as slices of one buffer.
    fn parts(&self, array: &ArrayRef, new: &mut Vec<ArrayRef>) -> Result<(), StepError> {
        let values = self.values(array)?;
        let length = values.len();
        let nulls: Option<NullBuffer> = array.nulls().cloned();
        let mut cells = vec![0i64; length * self.parts.len()];
        for row in (0..length).filter(|&row| values.is_valid(row)) {
            if let Some(time) = self.unit.time(values.value(row)) {
                for (part, cells) in self.parts.iter().zip(cells.chunks_exact_mut(length)) {
                    cells[row] = part.of(time);
                }
            }
        }
        let buffer = Buffer::from_vec(cells);
        for (at, part) in self.parts.iter().enumerate() {
            let cells: ScalarBuffer<i64> = ScalarBuffer::new(buffer.clone(), at * length, length);
            new.push(if part.is_flag() {
                Arc::new(BooleanArray::new(cells.iter().map(|&cell| cell == 1).collect(), nulls.clone()))
            } else {
                Arc::new(Int64Array::new(cells, nulls.clone()))
            });
        }
        Ok(())
    }
}

impl Kernel for DatePartsKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.at).collect()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let mut failures = Vec::new();
        for column in &self.columns {
            column.check(rows.batch().column(column.at), &mut failures)?;
        }
        without_failures(&rows, one_per_row(failures), |rows| {
            let mut new = Vec::with_capacity(self.columns.iter().map(|column| column.parts.len()).sum());
            for column in &self.columns {
                column.parts(rows.batch().column(column.at), &mut new)?;
            }
            self.layout.rows(rows, &new)
        })
    }
}
