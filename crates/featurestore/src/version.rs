//! Which of several rows with the same keys counts.

/// Where a row stands among the rows of its keys: the greatest version wins, online and offline alike.
///
/// ```
/// use millstream_featurestore::Version;
///
/// let first = Version { event: 10, created: None, sequence: 7 };
/// let correction = Version { event: 10, created: Some(12), sequence: 3 };
/// assert!(correction > first, "what became known later corrects what was known");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Event time: when it happened, in microseconds since 1970 UTC.
    pub event: i64,
    /// Created time: when it became known, in microseconds since 1970 UTC. Absent is less than any time.
    pub created: Option<i64>,
    /// Sequence: the order in which a store took rows.
    pub sequence: u64,
}
