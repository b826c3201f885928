//! Which of several rows with the same keys wins.

/// The place of a row among all rows with the same keys: the greatest version wins, online and offline alike.
///
/// Versions are compared field by field, in the order in which they stand here. A row without a created time comes before
/// every row of the same event time that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// When it happened: microseconds since 1970, UTC.
    pub event: i64,
    /// When it became known: microseconds since 1970, UTC.
    pub created: Option<i64>,
    /// The order in which the store took rows.
    pub sequence: u64,
}
