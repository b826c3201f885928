//! When a row may be used.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::row::Head;

/// What a store takes as now, where no time is given: microseconds since 1970 UTC.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The time that `now` says.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What it takes as now.
    pub fn now(&self) -> i64 {
        (self.0)()
    }
}

/// The system's clock.
impl Default for Clock {
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Until when rows of a set may be used.
#[derive(Clone, Debug)]
pub(crate) struct Expiry {
    /// Microseconds from the event; `i64::MAX` without bound.
    ttl: i64,
    pub(crate) clock: Clock,
}

impl Expiry {
    pub(crate) fn new(ttl: Option<Duration>, clock: Clock) -> Self {
        let ttl = ttl.map_or(i64::MAX, |ttl| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX));
        Self { ttl, clock }
    }

    /// The same clock, with the bound that [`Expiry::ttl`] told.
    pub(crate) fn with_ttl(&self, ttl: i64) -> Self {
        Self { ttl, clock: self.clock.clone() }
    }

    /// Microseconds from the event; `i64::MAX` without bound.
    pub(crate) fn ttl(&self) -> i64 {
        self.ttl
    }

    /// Whether rows without an end of their own are used for a bounded time.
    pub(crate) fn is_bounded(&self) -> bool {
        self.ttl != i64::MAX
    }

    /// Whether a row may be used at `at`; both ends belong to its time.
    #[inline]
    pub(crate) fn allows(&self, row: &Head, at: i64) -> bool {
        row.event <= at && !self.is_over(row, at)
    }

    /// Whether a row may not be used any more at `at`, nor later.
    pub(crate) fn is_over(&self, row: &Head, at: i64) -> bool {
        self.end(row) < at
    }

    /// The last moment at which a row may be used.
    pub(crate) fn end(&self, row: &Head) -> i64 {
        row.event.saturating_add(self.ttl).min(row.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_rows_time_belong_to_it() {
        let row = |event, ends| Head { event, ends, ..Head::default() };
        let micros = Duration::from_micros;
        for (ttl, row, at, allowed) in [
            (None, row(10, i64::MAX), 9, false),
            (None, row(10, i64::MAX), 10, true),
            (None, row(10, i64::MAX), i64::MAX, true),
            (None, row(10, 12), 12, true),
            (None, row(10, 12), 13, false),
            (Some(micros(5)), row(10, i64::MAX), 15, true),
            (Some(micros(5)), row(10, i64::MAX), 16, false),
            (Some(micros(5)), row(10, 100), 16, false),
            (Some(micros(5)), row(10, 12), 13, false),
            (Some(Duration::MAX), row(i64::MAX, i64::MAX), i64::MAX, true),
        ] {
            let expiry = Expiry::new(ttl, Clock::new(|| 0));
            assert_eq!(expiry.allows(&row, at), allowed, "{ttl:?} {row:?} at {at}");
        }
    }
}
