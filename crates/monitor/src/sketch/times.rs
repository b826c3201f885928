//! What is kept of a column of times.

use serde::{Deserialize, Serialize};

use super::Merge;

/// How many rows have a time, and from when to when. Times are in microseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    values: u64,
    nulls: u64,
    range: Option<(i64, i64)>,
}

impl Times {
    /// Adds rows with a time, from the earliest to the latest of them.
    pub fn add(&mut self, rows: u64, (earliest, latest): (i64, i64)) {
        self.merge(&Self { values: rows, nulls: 0, range: Some((earliest, latest)) });
    }

    /// Adds rows without one.
    pub fn add_nulls(&mut self, nulls: u64) {
        self.nulls += nulls;
    }

    /// Rows with a time.
    pub fn values(&self) -> u64 {
        self.values
    }

    /// Rows without one.
    pub fn nulls(&self) -> u64 {
        self.nulls
    }

    /// The earliest and the latest time.
    pub fn range(&self) -> Option<(i64, i64)> {
        self.range
    }
}

impl Merge for Times {
    fn merge(&mut self, other: &Self) {
        self.values += other.values;
        self.nulls += other.nulls;
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, other) => mine.or(other),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_parts_are_those_of_the_whole_in_any_order() {
        let part = |rows: u64, range: Option<(i64, i64)>, nulls: u64| {
            let mut times = Times::default();
            range.into_iter().for_each(|range| times.add(rows, range));
            times.add_nulls(nulls);
            times
        };
        let parts = [part(2, Some((5, 9)), 0), part(0, None, 3), part(4, Some((-7, 6)), 1)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut whole = Times::default();
            order.iter().for_each(|at| whole.merge(&parts[*at]));
            assert_eq!((whole.values(), whole.nulls(), whole.range()), (6, 4, Some((-7, 9))));
        }
    }
}
