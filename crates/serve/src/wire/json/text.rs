//! Instants, dates and decimals as text, both ways, without loss.

use arrow::datatypes::TimeUnit;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use crate::wire::DecodeCode;

/// A refused text: the code and the sentence.
pub(super) type Refused = (DecodeCode, String);

/// Below it, floats count every whole number.
const FLOATS_COUNT: f64 = 9_007_199_254_740_992.0;
/// Days from 1 January of year 1, where chrono begins to count, to 1 January 1970.
const EPOCH_FROM_CE: i32 = 719_163;

/// How many units of a timestamp make a second.
pub(super) fn units_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The whole number that was written with a point or an exponent, such as `1.0` or `1e3`, and came as a float. Not from 2^53 on: there
/// a float stands for several whole numbers.
pub(super) fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < FLOATS_COUNT).then_some(value as i64)
}

/// Reads an RFC 3339 instant into a unit; an instant that the unit cannot hold is refused, never rounded.
/// Without an offset it is taken as UTC.
pub(super) fn parse_instant(text: &str, unit: TimeUnit) -> Result<i64, Refused> {
    let instant = DateTime::parse_from_rfc3339(text)
        .map(|instant| instant.naive_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
        .map_err(|_| {
            (DecodeCode::WrongType, "must be an RFC 3339 time such as 2026-01-31T08:30:00Z".to_owned())
        })?;
    let per_second = units_per_second(unit);
    let nanos_per_unit = 1_000_000_000 / per_second;
    let nanos = i64::from(instant.nanosecond());
    if nanos >= 1_000_000_000 {
        return Err((DecodeCode::OutOfRange, "leap seconds cannot be kept".to_owned()));
    }
    if nanos % nanos_per_unit != 0 {
        let message = format!("has more digits than {} can hold", unit_name(unit));
        return Err((DecodeCode::OutOfRange, message));
    }
    // Before 1970 the seconds are negative but the fraction still counts upwards; adding it first would overflow
    // at the very first instants that a unit can hold, so the sum is made in 128 bits.
    let units = i128::from(instant.and_utc().timestamp()) * i128::from(per_second)
        + i128::from(nanos / nanos_per_unit);
    i64::try_from(units)
        .map_err(|_| (DecodeCode::OutOfRange, format!("lies outside of what {} can hold", unit_name(unit))))
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// Reads `YYYY-MM-DD` into days since 1970.
pub(super) fn parse_date(text: &str) -> Result<i32, Refused> {
    let date = match text.as_bytes() {
        &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] => {
            number(&[y1, y2, y3, y4]).zip(number(&[m1, m2])).zip(number(&[d1, d2]))
        }
        _ => None,
    };
    date.and_then(|((year, month), day)| NaiveDate::from_ymd_opt(year as i32, month, day))
        .map(|date| date.num_days_from_ce() - EPOCH_FROM_CE)
        .ok_or_else(|| (DecodeCode::WrongType, "must be a date such as 2026-01-31".to_owned()))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

/// Reads a decimal of any notation that JSON has, such as `-12.50` or `1.25e2`, into its unscaled integer.
/// Digits that the scale would cut off are refused unless they are zeros.
pub(super) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Refused> {
    let not_decimal = || (DecodeCode::WrongType, "must be a decimal number".to_owned());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| not_decimal())?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(not_decimal());
    }
    // The value is all the digits times ten to this power, once the scale is applied.
    let shift = i64::from(exponent) + i64::from(scale) - fraction.len() as i64;
    let unscaled = unscale(whole.bytes().chain(fraction.bytes()), whole.len() + fraction.len(), shift)
        .filter(|unscaled| *unscaled < 10_i128.pow(u32::from(precision)))
        .ok_or_else(|| {
            (
                DecodeCode::OutOfRange,
                format!("does not fit {precision} digits of which {scale} follow the point"),
            )
        })?;
    Ok(if negative { -unscaled } else { unscaled })
}

/// `digits * 10^shift`, or nothing when that is no integer of 38 digits.
fn unscale(digits: impl Iterator<Item = u8>, count: usize, shift: i64) -> Option<i128> {
    let kept = count as i64 + shift.min(0);
    let mut unscaled = 0_i128;
    for (at, digit) in digits.enumerate() {
        let digit = i128::from(digit - b'0');
        if (at as i64) < kept {
            unscaled = unscaled.checked_mul(10)?.checked_add(digit)?;
        } else if digit != 0 {
            return None;
        }
    }
    if unscaled == 0 || shift <= 0 {
        return Some(unscaled);
    }
    unscaled.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)
}

/// Writes an instant as RFC 3339 in UTC, with the digits of its unit; an instant outside of the years 0 to 9999,
/// which RFC 3339 cannot say, as its integer. Both are read back as they were.
pub(super) fn write_instant(value: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    let per_second = units_per_second(unit);
    let (seconds, units) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let days = i32::try_from(seconds.div_euclid(86_400)).ok();
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds.rem_euclid(86_400) as u32, 0);
    let (Some(date), Some(time)) = (days.and_then(writable_date), time) else {
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        return;
    };
    out.push(b'"');
    write_ymd(date, out);
    for (mark, number) in [(b'T', time.hour()), (b':', time.minute()), (b':', time.second())] {
        out.push(mark);
        write_padded(number, 2, out);
    }
    if per_second > 1 {
        out.push(b'.');
        write_padded(units as u32, per_second.ilog10() as usize, out);
    }
    out.extend_from_slice(b"Z\"");
}

/// Writes days since 1970 as `YYYY-MM-DD`, or as their number outside of the years 0 to 9999.
pub(super) fn write_date(days: i32, out: &mut Vec<u8>) {
    match writable_date(days) {
        Some(date) => {
            out.push(b'"');
            write_ymd(date, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(itoa::Buffer::new().format(days).as_bytes()),
    }
}

fn writable_date(days: i32) -> Option<NaiveDate> {
    let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_FROM_CE)?)?;
    (0..=9999).contains(&date.year()).then_some(date)
}

fn write_ymd(date: NaiveDate, out: &mut Vec<u8>) {
    write_padded(date.year() as u32, 4, out);
    out.push(b'-');
    write_padded(date.month(), 2, out);
    out.push(b'-');
    write_padded(date.day(), 2, out);
}

/// Writes a number in at least `width` digits.
fn write_padded(number: u32, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number).as_bytes();
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits);
}

/// Writes an unscaled integer as the decimal number it stands for.
pub(super) fn write_decimal(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(unscaled.unsigned_abs()).as_bytes();
    if unscaled < 0 {
        out.push(b'-');
    }
    let Ok(places @ 1..) = usize::try_from(scale) else {
        out.extend_from_slice(digits);
        if unscaled != 0 {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    };
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    out.push(b'.');
    out.resize(out.len() + places - fraction.len(), b'0');
    out.extend_from_slice(fraction);
}
