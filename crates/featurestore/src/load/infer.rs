//! What type a column of text has, judged by all of its values.

use arrow::datatypes::{DataType, TimeUnit};

use crate::cell::bits_of_text;

/// What the values seen so far allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Guess {
    /// No value yet.
    #[default]
    Nothing,
    Bool,
    Integer {
        negative: bool,
        beyond_i64: bool,
    },
    Float,
    Date,
    Timestamp,
    Text,
}

impl Guess {
    /// What one unquoted value is: the narrowest type it can be.
    pub(super) fn of(text: &str) -> Self {
        let is = |data_type| bits_of_text(text, &data_type).is_some();
        let first = text.bytes().find(|byte| !matches!(byte, b'-' | b'+')).unwrap_or(b' ');
        match first {
            b't' | b'T' | b'f' | b'F' if is(DataType::Boolean) => Self::Bool,
            b'N' | b'i' | b'I' if matches!(text, "NaN" | "inf" | "-inf" | "Infinity" | "-Infinity") => {
                Self::Float
            }
            b'0'..=b'9' | b'.' => Self::of_number(text),
            _ => Self::Text,
        }
    }

    fn of_number(text: &str) -> Self {
        let is = |data_type| bits_of_text(text, &data_type).is_some();
        let digits = text.trim_start_matches(['-', '+']).as_bytes();
        // `007` is a name made of digits: as a number it could not be written back.
        let padded = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
        let whole = digits.iter().all(u8::is_ascii_digit);
        if padded {
            // A year before 1000 aside, no date starts with a zero either.
            Self::Text
        } else if whole && is(DataType::Int64) {
            Self::Integer { negative: text.starts_with('-'), beyond_i64: false }
        } else if whole && is(DataType::UInt64) {
            Self::Integer { negative: false, beyond_i64: true }
        } else {
            Self::of_float_or_time(text)
        }
    }

    fn of_float_or_time(text: &str) -> Self {
        let is = |data_type| bits_of_text(text, &data_type).is_some();
        if is(DataType::Float64) { Self::Float } else { Self::of_string(text) }
    }

    /// What a value within quotes is: a time, or just text.
    pub(super) fn of_string(text: &str) -> Self {
        let is = |data_type| bits_of_text(text, &data_type).is_some();
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            Self::Text
        } else if is(DataType::Date32) {
            Self::Date
        } else if is(timestamp()) {
            Self::Timestamp
        } else {
            Self::Text
        }
    }

    /// What is both.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::Integer { negative: a, beyond_i64: b }, Self::Integer { negative: c, beyond_i64: d }) => {
                Self::Integer { negative: a || c, beyond_i64: b || d }
            }
            (Self::Integer { .. }, Self::Float) | (Self::Float, Self::Integer { .. }) => Self::Float,
            (Self::Date, Self::Timestamp) | (Self::Timestamp, Self::Date) => Self::Timestamp,
            (a, b) if a == b => a,
            _ => Self::Text,
        }
    }

    /// The type, `None` without any value.
    pub(super) fn data_type(self) -> Option<DataType> {
        match self {
            Self::Nothing => None,
            Self::Bool => Some(DataType::Boolean),
            Self::Integer { beyond_i64: false, .. } => Some(DataType::Int64),
            Self::Integer { negative: false, beyond_i64: true } => Some(DataType::UInt64),
            // No integer type holds them all, and a float would lose digits.
            Self::Integer { negative: true, beyond_i64: true } => Some(DataType::Utf8),
            Self::Float => Some(DataType::Float64),
            Self::Date => Some(DataType::Date32),
            Self::Timestamp => Some(timestamp()),
            Self::Text => Some(DataType::Utf8),
        }
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(values: &[&str], expected: Expect) {
        let guess = values.iter().fold(Guess::default(), |guess, text| guess.and(Guess::of(text)));
        expected.assert_eq(&guess.data_type().map_or("nothing".into(), |data_type| data_type.to_string()));
    }

    #[test]
    fn a_column_has_the_narrowest_type_that_all_values_have() {
        check(&[], expect!["nothing"]);
        check(&["1", "-2"], expect!["Int64"]);
        check(&["1", "2.5", "-1e9"], expect!["Float64"]);
        check(&["1", "NaN"], expect!["Float64"]);
        check(&["18446744073709551615", "1"], expect!["UInt64"]);
        check(&["18446744073709551615", "-1"], expect!["Utf8"]);
        check(&["18446744073709551616"], expect!["Float64"]);
        check(&["true", "FALSE"], expect!["Boolean"]);
        check(&["true", "1"], expect!["Utf8"]);
        check(&["007", "42"], expect!["Utf8"]);
        check(&["0", "0.5"], expect!["Float64"]);
        check(&["2024-05-06"], expect!["Date32"]);
        check(&["2024-05-06", "2024-05-06T07:08:09Z"], expect!["Timestamp(µs, \"UTC\")"]);
        check(&["2024-05-06", "soon"], expect!["Utf8"]);
        check(&["nancy", "info"], expect!["Utf8"]);
        check(&["-", "+", "."], expect!["Utf8"]);
    }
}
