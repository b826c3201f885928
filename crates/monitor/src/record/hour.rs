//! Hours of the log, and the folders that are named by them.

use chrono::{DateTime, NaiveDateTime};

/// Microseconds.
pub(super) const HOUR: i64 = 3_600_000_000;

/// The years 1 to 9999, whose hours have names of one length.
const FIRST: i64 = -62_135_596_800 / 3600;
const LAST: i64 = 253_402_300_799 / 3600;

/// The hour of a time in microseconds since 1970; none outside the years 1 to 9999.
pub(super) fn hour_of(at: i64) -> Option<i64> {
    let hour = at.div_euclid(HOUR);
    (FIRST..=LAST).contains(&hour).then_some(hour)
}

/// The name of an hour's folder: `hour=2026-12-01T05`.
pub(super) fn folder(hour: i64) -> String {
    let start = DateTime::from_timestamp(hour.saturating_mul(3600), 0).unwrap_or_default();
    start.format("hour=%Y-%m-%dT%H").to_string()
}

/// The hour whose folder has this name.
pub(super) fn parse(name: &str) -> Option<i64> {
    let text = format!("{}:00:00", name.strip_prefix("hour=")?);
    let start = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S").ok()?;
    let hour = start.and_utc().timestamp().div_euclid(3600);
    (folder(hour) == name).then_some(hour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_its_hour_and_read_back() {
        let named = |at: i64| hour_of(at).map(folder);
        assert_eq!(named(0).as_deref(), Some("hour=1970-01-01T00"));
        assert_eq!(named(1_796_101_200_000_000).as_deref(), Some("hour=2026-12-01T05"));
        assert_eq!(named(-1).as_deref(), Some("hour=1969-12-31T23"));
        assert_eq!(hour_of(i64::MIN), None);
        assert_eq!(hour_of(i64::MAX), None);
        for hour in [FIRST, -1, 0, 498_917, LAST] {
            assert_eq!(parse(&folder(hour)), Some(hour), "{}", folder(hour));
        }
        for name in ["hour=2026-12-01", "hour=2026-13-01T05", "hour=2026-12-01T24", "2026-12-01T05", "hour="]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
