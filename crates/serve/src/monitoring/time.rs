//! Times, as counts have them and as people write them.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat};

/// The time, in microseconds since 1970 UTC.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A time as people write it: `2026-12-01T05:00:00Z`, or so long before `now`: `24h`.
pub(crate) fn read(text: &str, now: i64) -> Result<i64, String> {
    if let Ok(before) = humantime::parse_duration(text) {
        return Ok(now.saturating_sub(i64::try_from(before.as_micros()).unwrap_or(i64::MAX)));
    }
    let time = DateTime::parse_from_rfc3339(text);
    let wrong = |_| format!("`{text}` is no time; write it like 2026-12-01T05:00:00Z, or 24h for a day ago");
    time.map(|time| time.timestamp_micros()).map_err(wrong)
}

/// A time as people write it.
pub(crate) fn text(at: i64) -> String {
    let time = DateTime::from_timestamp_micros(at);
    time.map_or_else(|| at.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_a_date_or_as_a_stretch_before_now() {
        let cases = [
            ("1970-01-01T00:00:01Z", Ok(1_000_000)),
            ("1970-01-01T02:00:01+02:00", Ok(1_000_000)),
            ("10s", Ok(90_000_000)),
            ("1h", Ok(100_000_000 - 3_600_000_000)),
            (
                "soon",
                Err("`soon` is no time; write it like 2026-12-01T05:00:00Z, or 24h for a day ago".to_owned()),
            ),
        ];
        for (text, time) in cases {
            assert_eq!(read(text, 100_000_000), time, "{text}");
        }
    }
}
