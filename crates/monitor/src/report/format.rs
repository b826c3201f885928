//! Numbers, times and names for people.

use std::fmt::{self, Display};

/// Characters of a name that are shown.
pub(super) const NAME: usize = 120;
/// Characters of a longer text that are shown.
pub(super) const TEXT: usize = 600;

/// Stands for a number that is not there.
pub(super) const NOTHING: &str = "–";

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Whole numbers in full, others to three significant digits: `52,341`, `12.3`, `0.000412`, `1.23e-7`.
pub(super) fn number(value: f64) -> String {
    significant(value, 3)
}

pub(super) fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), number)
}

/// Ascending numbers of one scale: all with the same decimals, as many as tell neighbours apart.
///
/// Where the scale spans many powers of ten, each number has digits of its own.
pub(super) fn scale(values: &[f64]) -> Vec<String> {
    let steps = values.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0.0);
    let step = steps.fold(f64::MAX, f64::min);
    let size = values.iter().fold(0.0, |size: f64, value| size.max(value.abs()));
    if !((1e-9..1e12).contains(&step) && size < step * 1e5 && size < 1e12) {
        return values.iter().map(|value| significant(*value, 3)).collect();
    }
    let decimals = (1.0 - step.log10().floor()).max(0.0) as usize;
    let mut shown: Vec<_> = values.iter().map(|value| format!("{:.decimals$}", value.abs())).collect();
    for _ in 0..decimals {
        if shown.iter().all(|shown| shown.ends_with('0')) {
            shown.iter_mut().for_each(|shown| shown.truncate(shown.len() - 1));
        }
    }
    // On a scale of powers of ten, the small ones would be shown as zero.
    let zero = |(value, shown): (&f64, &String)| {
        value.abs() > step * 1e-9 && !shown.contains(|c| matches!(c, '1'..='9'))
    };
    if values.iter().zip(&shown).any(zero) {
        return values.iter().map(|value| significant(*value, 3)).collect();
    }
    let signs = values.iter().map(|value| if *value < 0.0 { "−" } else { "" });
    let signed = signs.zip(&shown).map(|(sign, shown)| {
        let (whole, fraction) = shown.split_once('.').unwrap_or((shown, ""));
        format!("{sign}{}{}{fraction}", grouped(whole), if fraction.is_empty() { "" } else { "." })
    });
    signed.collect()
}

fn significant(value: f64, digits: i32) -> String {
    let size = value.abs();
    if value.is_nan() {
        return NOTHING.to_owned();
    }
    let sign = if value < 0.0 { "−" } else { "" };
    if value.is_infinite() {
        return format!("{sign}∞");
    }
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e12).contains(&size) {
        let shown = format!("{size:.*e}", (digits - 1).max(0) as usize);
        let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        return format!("{sign}{}e{}", trimmed(digits), exponent.replace('-', "−"));
    }
    // Rounding may add a digit: 9.996 has three significant ones as `10.0`.
    let rounded = format!("{size:.*e}", (digits - 1).max(0) as usize);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let decimals = if size.fract() == 0.0 { 0 } else { (digits - 1 - exponent).max(0) as usize };
    let shown = format!("{size:.decimals$}");
    let (whole, fraction) = shown.split_once('.').unwrap_or((&shown, ""));
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}", grouped(whole))
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// A count with thousands separators: `1,204,331`.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with its noun: `1 column`, `12 columns`.
pub(super) fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// The range that values are expected in, if there is one: `expected: 0.75 or more`.
pub(super) fn expected(low: Option<f64>, high: Option<f64>) -> Option<String> {
    Some(match (low, high) {
        (Some(low), Some(high)) => format!("expected: {} to {}", number(low), number(high)),
        (Some(low), None) => format!("expected: {} or more", number(low)),
        (None, Some(high)) => format!("expected: {} or less", number(high)),
        (None, None) => return None,
    })
}

/// A share as percent: `1.23 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        size if !size.is_finite() => NOTHING.to_owned(),
        0.0 => "0 %".to_owned(),
        size if size < 0.001 => if percent < 0.0 { "> −0.001 %" } else { "< 0.001 %" }.to_owned(),
        size if size < 10.0 => format!("{} %", significant(percent, 2)),
        _ => format!("{} %", significant(percent, 3)),
    }
}

/// A difference of two shares in percentage points: `+8.5 pp`.
pub(super) fn change(share: f64) -> String {
    let tenths = (share * 1_000.0).round();
    match tenths {
        tenths if !tenths.is_finite() => NOTHING.to_owned(),
        0.0 => "0.0 pp".to_owned(),
        tenths => format!("{}{:.1} pp", if tenths < 0.0 { "−" } else { "+" }, tenths.abs() / 10.0),
    }
}

/// `part` of `all` as percent; nothing of nothing is nothing.
pub(super) fn share(part: u64, all: u64) -> String {
    if all == 0 { NOTHING.to_owned() } else { percent(part as f64 / all as f64) }
}

/// A duration of microseconds in the unit that fits it: `12.3 ms`.
pub(super) fn latency(micros: f64) -> String {
    match micros.abs() {
        size if size.is_nan() => NOTHING.to_owned(),
        0.0 => "0".to_owned(),
        size if size < 999.5 => format!("{} µs", number(micros)),
        size if size < 999.5e3 => format!("{} ms", number(micros / 1e3)),
        _ => format!("{} s", number(micros / 1e6)),
    }
}

/// The length of a stretch of time, to two units: `7 days`, `6 h 30 min`.
pub(super) fn duration(micros: i64) -> String {
    let micros = micros.max(0);
    let (days, hours) = (micros / DAY, micros % DAY / HOUR);
    let (minutes, seconds) = (micros % HOUR / MINUTE, micros % MINUTE / SECOND);
    let two = |first: String, second: i64, unit: &str| match second {
        0 => first,
        _ => format!("{first} {second} {unit}"),
    };
    match () {
        () if days > 0 => two(counted(days as u64, "day"), hours, "h"),
        () if hours > 0 => two(format!("{hours} h"), minutes, "min"),
        () if minutes > 0 => two(format!("{minutes} min"), seconds, "s"),
        () => format!("{} s", number(micros as f64 / SECOND as f64)),
    }
}

/// A time as ISO 8601 in UTC, to the second; seconds that are zero are left out.
pub(super) fn time(at: i64) -> String {
    let (hour, minute, second) = clock(at);
    match second {
        0 => format!("{}T{hour:02}:{minute:02}Z", date(at)),
        _ => format!("{}T{hour:02}:{minute:02}:{second:02}Z", date(at)),
    }
}

/// The date of a time: `2026-11-24`.
pub(super) fn date(at: i64) -> String {
    let (year, month, day) = civil(at.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Hour, minute and second of a time.
pub(super) fn clock(at: i64) -> (i64, i64, i64) {
    let of_day = at.rem_euclid(DAY);
    (of_day / HOUR, of_day % HOUR / MINUTE, of_day % MINUTE / SECOND)
}

/// Year, month and day of a count of days since 1970, in the Gregorian calendar.
///
/// Years are taken to begin in March: the leap day is then the last of its year, and 400 years have 146,097 days.
fn civil(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468; // Days from 0000-03-01 to 1970-01-01.
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // From March on, months of 31 and 30 days alternate in a pattern of 153 days for five of them.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// Shows at most `most` characters of a text.
pub(super) fn clipped(text: &str, most: usize) -> Clipped<'_> {
    let end = text.char_indices().nth(most).map_or(text.len(), |(at, _)| at);
    Clipped { text: &text[..end], cut: end < text.len() }
}

pub(super) struct Clipped<'a> {
    text: &'a str,
    cut: bool,
}

impl Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)?;
        f.write_str(if self.cut { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (value, shown) in [
            (0.0, "0"),
            (-0.0, "0"),
            (5.0, "5"),
            (0.284_4, "0.284"),
            (0.1, "0.100"),
            (12.345, "12.3"),
            (999.96, "1,000"),
            (9.996, "10.0"),
            (1_234.56, "1,235"),
            (52_341.0, "52,341"),
            (-1_234_567.0, "−1,234,567"),
            (0.000_123_4, "0.000123"),
            (0.000_012_34, "1.23e−5"),
            (6.02e23, "6.02e23"),
            (f64::MAX, "1.8e308"),
            (5e-324, "4.94e−324"),
            (f64::NAN, "–"),
            (f64::INFINITY, "∞"),
            (f64::NEG_INFINITY, "−∞"),
        ] {
            assert_eq!(number(value), shown, "{value}");
        }
        for (value, shown) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (u64::MAX, "18,446,744,073,709,551,615")]
        {
            assert_eq!(count(value), shown);
        }
        for (share, shown) in [
            (0.0, "0 %"),
            (1.0, "100 %"),
            (0.123_4, "12.3 %"),
            (0.000_259, "0.026 %"),
            (1e-9, "< 0.001 %"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(percent(share), shown, "{share}");
        }
        for (micros, shown) in [
            (0.0, "0"),
            (12.0, "12 µs"),
            (999.9, "1.00 ms"),
            (1_500.0, "1.50 ms"),
            (52_341.0, "52.3 ms"),
            (2.5e6, "2.50 s"),
        ] {
            assert_eq!(latency(micros), shown, "{micros}");
        }
        for (by, shown) in [(0.085, "+8.5 pp"), (-0.06, "−6.0 pp"), (0.000_1, "0.0 pp"), (f64::NAN, "–")]
        {
            assert_eq!(change(by), shown, "{by}");
        }
    }

    #[test]
    fn numbers_of_one_scale_have_the_decimals_that_tell_them_apart() {
        for (values, shown) in [
            (&[0.0, 0.05, 0.1][..], "0.00 0.05 0.10"),
            (&[0.0, 0.1, 0.2], "0.0 0.1 0.2"),
            (&[1_000.1, 1_000.2], "1,000.1 1,000.2"),
            (&[-5.0, 0.0, 5.0], "−5 0 5"),
            (&[3.0, 19.25, 35.5], "3 19 36"),
            (&[0.001, 1.0, 1_000.0], "0.00100 1 1,000"),
            (&[7.0], "7"),
            (&[0.0, 1e300], "0 1e300"),
            (&[f64::NAN, 1.0], "– 1"),
            (&[], ""),
        ] {
            assert_eq!(scale(values).join(" "), shown, "{values:?}");
        }
    }

    #[test]
    fn times_are_iso_in_utc() {
        for (at, shown) in [
            (0, "1970-01-01T00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400_000_000, "2000-02-29T00:00Z"),
            (1_795_478_400_000_000, "2026-11-24T00:00Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00Z"),
            (i64::MAX, "294247-01-10T04:00:54Z"),
            (i64::MIN, "-290308-12-21T19:59:05Z"),
        ] {
            assert_eq!(time(at), shown, "{at}");
        }
        for (micros, shown) in [
            (-5, "0 s"),
            (1_500_000, "1.50 s"),
            (90_000_000, "1 min 30 s"),
            (6 * HOUR + HOUR / 2, "6 h 30 min"),
            (24 * HOUR, "1 day"),
            (7 * 24 * HOUR + HOUR, "7 days 1 h"),
        ] {
            assert_eq!(duration(micros), shown, "{micros}");
        }
    }

    #[test]
    fn dates_follow_one_another() {
        // Days counted by hand, over 400 years on both sides of 1970.
        let long = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let first: i64 = (1_570..1_970).map(|year| if long(year) { 366 } else { 365 }).sum();
        let mut at = -first * 24 * HOUR;
        for year in 1_570..2_370 {
            for (month, days) in [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
                for day in 1..=days + i64::from(month == 1 && long(year)) {
                    assert_eq!(date(at), format!("{year:04}-{:02}-{day:02}", month + 1));
                    at += 24 * HOUR;
                }
            }
        }
    }
}
