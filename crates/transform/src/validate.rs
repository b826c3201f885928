//! `validate`: rows that break a rule leave on the error port.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeStringArray, StringArray, StringViewArray},
    compute::{can_cast_types, cast},
    datatypes::{DataType, Float64Type, Schema, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Literal,
    codes::{Codes, Place, shown_value},
    columns::{ColumnType, cast_or_null, fraction_at},
    encode::one_per_row,
    prepared::{Failure, Kernel, Layout, Prepared, Slot, column_problem, find, without_failures},
};

/// What the values of a column must be. Null breaks no rule but `not_null`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Rule {
    /// There is a value.
    NotNull,
    /// A number from `min` to `max`, both included; either may be left out. NaN is in no range.
    Range {
        /// The smallest number.
        min: Option<f64>,
        /// The largest number.
        max: Option<f64>,
    },
    /// One of these values.
    Set(Vec<Literal>),
    /// Text that the pattern matches from beginning to end.
    Regex(String),
    /// So many characters of text, bytes, or items of a list; both bounds included, either may be left out.
    Length {
        /// The fewest.
        min: Option<u64>,
        /// The most.
        max: Option<u64>,
    },
    /// A value that this type can hold: '12' or 12.0 for `int8`, neither 'x' nor 12.5 nor 300.
    Type(ColumnType),
}

/// Lets the rows through that keep all rules; the others leave on the error port, each with all the rules it breaks.
///
/// Behind the step, a column with the rule `not_null` is never null.
///
/// ```
/// use millstream_transform::{Rule, Validate};
/// let step = Validate::new()
///     .rule("amount", Rule::Range { min: Some(0.0), max: None })
///     .rule("country", Rule::Regex("[A-Z]{2}".into()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Validate {
    columns: IndexMap<String, Vec<Rule>>,
    prepared: Prepared<ValidateKernel>,
}

/// Rules that rows must keep to go on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidateSettings {
    /// The rules of each column.
    columns: IndexMap<String, Vec<Rule>>,
}

impl Validate {
    /// No rules yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule for `column`.
    #[must_use]
    pub fn rule(mut self, column: impl Into<String>, rule: Rule) -> Self {
        self.columns.entry(column.into()).or_default().push(rule);
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<ValidateKernel, SchemaError> {
        let mut checks = Vec::new();
        let mut problems = Vec::new();
        if self.columns.values().all(Vec::is_empty) {
            problems.push(SchemaError::new("it has no rules"));
        }
        for (name, rules) in &self.columns {
            match checks_of(schema, name, rules) {
                Ok(made) => checks.extend(made),
                Err(error) => problems.push(error),
            }
        }
        SchemaError::collect(problems)?;
        let mut narrowed = false;
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let filled = |check: &ColumnCheck| check.at == at && matches!(check.check, Check::NotNull);
                if !field.is_nullable() || !checks.iter().any(filled) {
                    return (Arc::clone(field), Slot::Input(at));
                }
                narrowed = true;
                (Arc::new(field.as_ref().clone().with_nullable(false)), Slot::Input(at))
            })
            .collect();
        Ok(ValidateKernel { checks, layout: Layout::new(columns, schema)?, narrowed })
    }
}

impl From<ValidateSettings> for Validate {
    fn from(settings: ValidateSettings) -> Self {
        Self { columns: settings.columns, prepared: Prepared::default() }
    }
}

impl Step for Validate {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

fn checks_of(schema: &Schema, name: &str, rules: &[Rule]) -> Result<Vec<ColumnCheck>, SchemaError> {
    let at = find(schema, name)?;
    let mut problems = Vec::new();
    let mut checks = Vec::new();
    for rule in rules {
        match Check::new(rule, schema.field(at).data_type()) {
            Ok(check) => checks.push(ColumnCheck { at, name: name.into(), check }),
            Err(problem) => problems.push(column_problem(name, problem)),
        }
    }
    SchemaError::collect(problems)?;
    Ok(checks)
}

#[derive(Debug)]
struct ValidateKernel {
    checks: Vec<ColumnCheck>,
    layout: Layout,
    /// A column may be null before this step and not behind it.
    narrowed: bool,
}

#[derive(Debug)]
struct ColumnCheck {
    at: usize,
    name: Box<str>,
    check: Check,
}

#[derive(Debug)]
enum Check {
    NotNull,
    Range { min: f64, max: f64 },
    Set { codes: Codes, shown: String },
    Regex { whole: Regex, shown: String },
    Length { min: u64, max: u64 },
    Type(DataType),
}

impl Check {
    fn new(rule: &Rule, data_type: &DataType) -> Result<Self, String> {
        match rule {
            Rule::NotNull => Ok(Self::NotNull),
            Rule::Range { .. } if !data_type.is_numeric() => {
                Err(format!("a range needs numbers, not {data_type}"))
            }
            Rule::Range { min, max } => {
                let (min, max) = (min.unwrap_or(f64::NEG_INFINITY), max.unwrap_or(f64::INFINITY));
                if min <= max {
                    Ok(Self::Range { min, max })
                } else {
                    Err(format!("no number is in the range {min} to {max}"))
                }
            }
            Rule::Set(values) => {
                let shown: Vec<_> = values.iter().map(ToString::to_string).collect();
                let codes = Codes::new(values, data_type)?;
                Ok(Self::Set { codes, shown: crate::shorten(&shown.join(", "), 100) })
            }
            Rule::Regex(_) if !data_type.is_string() => Err(format!("a pattern needs text, not {data_type}")),
            Rule::Regex(pattern) => match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(whole) => Ok(Self::Regex { whole, shown: crate::shorten(pattern, 100) }),
                Err(error) => {
                    let text = error.to_string();
                    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    Err(format!("`{}` is not a pattern: {why}", crate::shorten(pattern, 100)))
                }
            },
            Rule::Length { min, max } => {
                if !has_length(data_type) {
                    return Err(format!("text, bytes and lists have a length, {data_type} has none"));
                }
                let (min, max) = (min.unwrap_or(0), max.unwrap_or(u64::MAX));
                if min <= max {
                    Ok(Self::Length { min, max })
                } else {
                    Err(format!("no length is in {min} to {max}"))
                }
            }
            Rule::Type(to) => {
                let to = to.data_type();
                if can_cast_types(data_type, &to) {
                    Ok(Self::Type(to))
                } else {
                    Err(format!("{data_type} never fits {to}"))
                }
            }
        }
    }

    /// Tells `broken` every row that breaks the rule, and how.
    fn each(&self, array: &ArrayRef, mut broken: impl FnMut(usize, String)) -> Result<(), StepError> {
        let value = |row: usize| shown_value(array, row);
        match self {
            Self::NotNull => {
                if array.null_count() > 0 {
                    (0..array.len())
                        .filter(|&row| array.is_null(row))
                        .for_each(|row| broken(row, "null".to_owned()));
                }
            }
            Self::Range { min, max } => each_number(array, |row, number| {
                if number.is_nan() {
                    broken(row, format!("{} is in no range", value(row)));
                } else if number < *min {
                    broken(row, format!("{} is below the minimum {min}", value(row)));
                } else if number > *max {
                    broken(row, format!("{} is above the maximum {max}", value(row)));
                }
            })?,
            Self::Set { codes, shown } => codes.each(array, |row, place| {
                if place == Place::Unlisted {
                    broken(row, format!("{} is none of {shown}", value(row)));
                }
            })?,
            Self::Regex { whole, shown } => each_text(array, |row, text| {
                if !whole.is_match(text) {
                    broken(row, format!("{} does not match `{shown}`", value(row)));
                }
            })?,
            Self::Length { min, max } => each_length(array, |row, length| {
                if length < *min {
                    broken(row, format!("{} has length {length}, less than {min}", value(row)));
                } else if length > *max {
                    broken(row, format!("{} has length {length}, more than {max}", value(row)));
                }
            })?,
            Self::Type(to) => {
                let made = cast_or_null(array, to)?;
                let whole = to.is_integer();
                for row in (0..array.len()).filter(|&row| array.is_valid(row)) {
                    if made.is_null(row) || (whole && fraction_at(array, row)) {
                        broken(row, format!("{} does not fit {to}", value(row)));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Kernel for ValidateKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.checks.iter().map(|column| column.at).collect()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let mut failures = Vec::new();
        for column in &self.checks {
            column.check.each(rows.batch().column(column.at), |row, problem| {
                failures.push(Failure {
                    row: row as u32,
                    message: format!("column `{}`: {problem}", column.name),
                });
            })?;
        }
        if failures.is_empty() && !self.narrowed {
            return Ok(Output::one(rows));
        }
        without_failures(&rows, one_per_row(failures), |rows| {
            if self.narrowed { self.layout.rows(rows, &[]) } else { Ok(rows.clone()) }
        })
    }
}

fn each_number(array: &ArrayRef, mut each: impl FnMut(usize, f64)) -> Result<(), StepError> {
    let made;
    let numbers = match array.as_primitive_opt::<Float64Type>() {
        Some(numbers) => numbers,
        None => {
            made = cast(array, &DataType::Float64)?;
            made.as_primitive_opt::<Float64Type>()
                .ok_or_else(|| StepError::internal(format!("numbers came in as {}", array.data_type())))?
        }
    };
    for (row, number) in numbers.iter().enumerate() {
        if let Some(number) = number {
            each(row, number);
        }
    }
    Ok(())
}

fn each_text(array: &ArrayRef, mut each: impl FnMut(usize, &str)) -> Result<(), StepError> {
    macro_rules! walk {
        ($array:expr) => {
            $array
                .iter()
                .enumerate()
                .for_each(|(row, text)| text.into_iter().for_each(|text| each(row, text)))
        };
    }
    let any = array.as_any();
    if let Some(array) = any.downcast_ref::<StringArray>() {
        walk!(array);
    } else if let Some(array) = any.downcast_ref::<LargeStringArray>() {
        walk!(array);
    } else if let Some(array) = any.downcast_ref::<StringViewArray>() {
        walk!(array);
    } else {
        return Err(StepError::internal(format!("text came in as {}", array.data_type())));
    }
    Ok(())
}

fn has_length(data_type: &DataType) -> bool {
    data_type.is_string()
        || matches!(
            data_type,
            DataType::Binary
                | DataType::LargeBinary
                | DataType::List(_)
                | DataType::LargeList(_)
                | DataType::FixedSizeList(_, _)
        )
}

fn each_length(array: &ArrayRef, mut each: impl FnMut(usize, u64)) -> Result<(), StepError> {
    if array.data_type().is_string() {
        return each_text(array, |row, text| each(row, text.chars().count() as u64));
    }
    let length = |row: usize| -> Option<usize> {
        if let Some(array) = array.as_list_opt::<i32>() {
            Some(array.value_length(row) as usize)
        } else if let Some(array) = array.as_list_opt::<i64>() {
            Some(array.value_length(row) as usize)
        } else if let Some(array) = array.as_fixed_size_list_opt() {
            Some(array.value_length() as usize)
        } else if let Some(array) = array.as_binary_opt::<i32>() {
            Some(array.value_length(row) as usize)
        } else {
            array.as_binary_opt::<i64>().map(|array| array.value_length(row) as usize)
        }
    };
    for row in (0..array.len()).filter(|&row| array.is_valid(row)) {
        match length(row) {
            Some(length) => each(row, length as u64),
            None => {
                return Err(StepError::internal(format!(
                    "a column without length came in: {}",
                    array.data_type()
                )));
            }
        }
    }
    Ok(())
}
