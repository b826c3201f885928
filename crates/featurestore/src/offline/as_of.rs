//! When a row of a log may be used.

use std::time::Duration;

/// Which rows of a set's log may answer for a time `t`, and until when.
///
/// The answer is the row of greatest version `(event, created, sequence)` among those that had happened and were known at
/// `t`. Its age and its own end are asked last, of that row alone: a row that has ended does not bring back the one before it,
/// just as the online store has only the newest.
///
/// ```
/// use std::time::Duration;
/// use millstream_featurestore::offline::{AsOf, Knowledge};
///
/// let as_of = AsOf { ttl: Some(Duration::from_secs(3600)), ..AsOf::default() };
/// assert_eq!(as_of.knowledge, Knowledge::AsKnown { lag: Duration::ZERO });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsOf {
    /// A row counts from after its event on, not from the event itself: for logs whose events are the very things predicted.
    pub exclusive: bool,
    /// For how long after its event a row may be used, inclusive. Without it, for ever.
    pub ttl: Option<Duration>,
    /// Whether a row counts before it was known.
    pub knowledge: Knowledge,
}

/// Whether rows count from when they were known, or from when they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// A row counts `lag` after it was created, as it did online. One without a created time was always known.
    AsKnown {
        /// How long after its creation a row could be served.
        lag: Duration,
    },
    /// Corrections and late rows count from their event on, though nobody knew them then.
    Hindsight,
}

impl Default for Knowledge {
    fn default() -> Self {
        Self::AsKnown { lag: Duration::ZERO }
    }
}

/// The same in microseconds, with what is asked of the newest row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    exclusive: bool,
    pub(super) ttl: i64,
    /// `None`: creation does not matter.
    pub(super) lag: Option<i64>,
}

impl From<AsOf> for Bounds {
    fn from(as_of: AsOf) -> Self {
        let lag = match as_of.knowledge {
            Knowledge::AsKnown { lag } => Some(micros(lag)),
            Knowledge::Hindsight => None,
        };
        Self { exclusive: as_of.exclusive, ttl: as_of.ttl.map_or(i64::MAX, micros), lag }
    }
}

impl Bounds {
    /// The newest event that counts at `at`; `None` when time has not begun.
    #[inline]
    pub(super) fn newest(self, at: i64) -> Option<i64> {
        if self.exclusive { at.checked_sub(1) } else { Some(at) }
    }

    /// The latest creation that counts at `at`; the latest there is when creation does not matter.
    #[inline]
    pub(super) fn known(self, at: i64) -> i64 {
        self.lag.map_or(i64::MAX, |lag| at.saturating_sub(lag))
    }

    /// From when on a row counts, until for ever; `None` if it never does.
    #[cfg(feature = "offline")]
    pub(super) fn since(self, event: i64, created: Option<i64>) -> Option<i64> {
        let happened = if self.exclusive { event.checked_add(1)? } else { event };
        match self.lag.zip(created) {
            Some((lag, created)) => Some(happened.max(created.checked_add(lag)?)),
            None => Some(happened),
        }
    }

    /// Whether a row of this event, which ends at `end`, may still be used at `at`. The event is asked for only where age matters.
    #[inline]
    pub(super) fn holds(self, at: i64, event: impl FnOnce() -> i64, end: i64) -> bool {
        at <= end && (self.ttl == i64::MAX || at.saturating_sub(event()) <= self.ttl)
    }
}

/// Whole microseconds; a time that does not fit is as good as for ever.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
