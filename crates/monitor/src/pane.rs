//! What was counted in a stretch of time.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    multivariate::RebuiltBy,
    sketch::{Kept, Merge, Numbers, Sketch},
};

/// What was counted of a graph in a stretch of time. Panes of one graph add up: those of one replica after the other, and those of
/// several replicas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pane {
    /// From this time on, in microseconds since 1970 UTC.
    pub from: i64,
    /// Before this time.
    pub to: i64,
    /// The edges, by name.
    pub edges: BTreeMap<String, EdgePane>,
    /// What became of requests.
    pub requests: Requests,
}

/// What was counted of an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgePane {
    /// Rows that were counted.
    pub rows: u64,
    /// Rows that were not.
    pub lost: u64,
    /// Its columns, by name.
    pub columns: Columns,
    /// The columns once more for each value of a segment's column.
    pub segments: BTreeMap<String, Kept<Columns>>,
    /// How badly the reference rebuilds its rows, where that is asked. A history keeps it behind the pane.
    #[serde(skip)]
    pub rebuilt: RebuiltBy,
}

/// What was counted of columns, by name.
pub type Columns = BTreeMap<String, Sketch>;

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// How many were answered, by outcome: `ok`, or the kind of error.
    pub outcomes: BTreeMap<String, u64>,
    /// How many were answered and not counted.
    pub lost: u64,
    /// How many answers were degraded.
    pub degraded: u64,
    /// How long they took, in seconds.
    pub seconds: Numbers,
}

impl Pane {
    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.requests.outcomes.values().sum()
    }

    /// How many requests failed.
    pub fn failed(&self) -> u64 {
        self.answered() - self.requests.outcomes.get("ok").copied().unwrap_or(0)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.answered() == 0
            && self.requests.lost == 0
            && self.edges.values().all(|edge| edge.rows == 0 && edge.lost == 0)
    }

    /// Whether it belongs to the time from `from` on and before `to`: more than half of its own time lies there, or its later half. One
    /// that spans no time belongs where it is.
    pub fn is_within(&self, from: i64, to: i64) -> bool {
        belongs((self.from, self.to), (from, to))
    }

    /// Whether it counts a column as another kind than a newer pane.
    fn differs_from(&self, newer: &Self) -> bool {
        self.edges.iter().filter_map(|(name, edge)| Some((edge, newer.edges.get(name)?))).any(
            |(edge, newer)| {
                let other = |(column, sketch): (&String, &Sketch)| {
                    newer.columns.get(column).is_some_and(|newer| newer.kind() != sketch.kind())
                };
                edge.columns.iter().any(other)
            },
        )
    }

    /// Lets go of columns that a newer pane counts as another kind.
    fn give_way(&mut self, newer: &Self) {
        for (name, edge) in &mut self.edges {
            let Some(newer) = newer.edges.get(name) else { continue };
            let changed = |column: &String, sketch: &mut Sketch| {
                newer.columns.get(column).is_some_and(|newer| newer.kind() != sketch.kind())
            };
            edge.columns.retain(|column, sketch| !changed(column, sketch));
            for segments in edge.segments.values_mut() {
                segments.change_all(|columns| columns.retain(|column, sketch| !changed(column, sketch)));
            }
        }
    }
}

/// Whether most of a stretch of time lies in another, which has its start and not its end.
pub(crate) fn belongs((from, to): (i64, i64), (start, end): (i64, i64)) -> bool {
    if to <= from {
        return (start..end).contains(&from);
    }
    let twice = 2 * (i128::from(to.min(end)) - i128::from(from.max(start)));
    let length = i128::from(to) - i128::from(from);
    // Of two equal halves the later one counts, so that it belongs to one of two times that follow each other.
    twice > length || (twice == length && from < start)
}

impl Merge for Pane {
    /// The stretch is then the one that spans both; one that spans no time adds none, and of two such the later stays. Of a column that
    /// they count as different kinds, what the pane with the later end has counted stays alone, and if they end together, what
    /// [`Sketch`] says.
    fn merge(&mut self, other: &Self) {
        let older;
        let other = match self.to.cmp(&other.to) {
            Ordering::Less => {
                self.give_way(other);
                other
            }
            Ordering::Greater if other.differs_from(self) => {
                let mut other = other.clone();
                other.give_way(self);
                older = other;
                &older
            }
            Ordering::Greater | Ordering::Equal => other,
        };
        (self.from, self.to) = match (self.to > self.from, other.to > other.from) {
            (true, true) => (self.from.min(other.from), self.to.max(other.to)),
            (true, false) => (self.from, self.to),
            (false, true) => (other.from, other.to),
            (false, false) => (self.from.max(other.from), self.to.max(other.to)),
        };
        merge_maps(&mut self.edges, &other.edges);
        merge_maps(&mut self.requests.outcomes, &other.requests.outcomes);
        self.requests.lost += other.requests.lost;
        self.requests.degraded += other.requests.degraded;
        self.requests.seconds.merge(&other.requests.seconds);
    }
}

impl EdgePane {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            rows: 0,
            lost: 0,
            columns: BTreeMap::new(),
            segments: BTreeMap::new(),
            rebuilt: RebuiltBy::new(),
        }
    }
}

impl Merge for EdgePane {
    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.lost += other.lost;
        merge_maps(&mut self.columns, &other.columns);
        merge_maps(&mut self.segments, &other.segments);
        for (of, rebuilt) in &other.rebuilt {
            self.rebuilt.entry(*of).or_default().merge(rebuilt);
        }
    }
}

impl Merge for Columns {
    fn merge(&mut self, other: &Self) {
        merge_maps(self, other);
    }
}

/// Columns of one layout, in its order.
impl Merge for Vec<Sketch> {
    fn merge(&mut self, other: &Self) {
        self.iter_mut().zip(other).for_each(|(mine, other)| mine.merge(other));
    }
}

fn merge_maps<V: Merge + Clone>(mine: &mut BTreeMap<String, V>, other: &BTreeMap<String, V>) {
    for (name, theirs) in other {
        match mine.get_mut(name) {
            Some(mine) => mine.merge(theirs),
            None => drop(mine.insert(name.clone(), theirs.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::{Labels, Presence};

    fn pane(from: i64, to: i64, sketch: Option<Sketch>) -> Pane {
        let mut pane = Pane { from, to, ..Pane::default() };
        let mut edge = EdgePane { rows: 1, ..EdgePane::new() };
        if let Some(sketch) = sketch {
            let columns: Columns = [("amount".to_owned(), sketch.clone())].into_iter().collect();
            let mut kept = Kept::new([], 9);
            kept.count(&to.to_string(), Columns::new, |kept| kept.clone_from(&columns));
            edge.segments.insert("country".to_owned(), kept);
            edge.columns = columns;
        }
        pane.edges.insert("input".to_owned(), edge);
        pane
    }

    #[test]
    fn of_two_kinds_that_of_the_later_pane_stays_whichever_is_merged_into_the_other() {
        let numbers = || Some(Sketch::Numbers(Numbers::new(&[])));
        let labels = || Some(Sketch::Labels(Labels::new([])));
        let presence = || Some(Sketch::Presence(Presence { values: 1, nulls: 0 }));
        let cases = [
            (pane(0, 1, numbers()), pane(1, 2, labels()), 1),
            (pane(0, 1, labels()), pane(1, 2, numbers()), 0),
            (pane(0, 1, presence()), pane(1, 2, numbers()), 0),
            (pane(0, 1, None), pane(1, 2, numbers()), 0),
            (pane(0, 1, labels()), pane(1, 2, None), 1),
            (pane(1, 2, labels()), pane(1, 2, numbers()), 1),
        ];
        for (older, newer, kind) in cases {
            let (mut merged, mut turned) = (older.clone(), newer.clone());
            merged.merge(&newer);
            turned.merge(&older);
            assert_eq!(merged, turned);
            let edge = &merged.edges["input"];
            assert_eq!((edge.rows, edge.columns["amount"].kind()), (2, kind));
            let segments = edge.segments["country"].iter();
            let kinds: Vec<u8> =
                segments.flat_map(|(_, columns, _)| columns.values().map(Sketch::kind)).collect();
            assert!(!kinds.is_empty() && kinds.iter().all(|segment| *segment == kind), "{kinds:?}");
        }
    }

    #[test]
    fn a_pane_that_spans_no_time_adds_none() {
        let cases = [((5, 9), (12, 12), (5, 9)), ((12, 12), (0, 0), (12, 12)), ((0, 4), (6, 9), (0, 9))];
        for (left, right, expected) in cases {
            for (left, right) in [(left, right), (right, left)] {
                let mut merged = pane(left.0, left.1, None);
                merged.merge(&pane(right.0, right.1, None));
                assert_eq!((merged.from, merged.to), expected);
            }
        }
    }

    #[test]
    fn requests_that_were_not_counted_have_no_outcome() {
        let lost = |lost| Pane { requests: Requests { lost, ..Requests::default() }, ..Pane::default() };
        let mut pane = lost(2);
        pane.merge(&lost(3));
        assert_eq!((pane.requests.lost, pane.answered(), pane.failed(), pane.is_empty()), (5, 0, 0, false));
    }

    #[test]
    fn a_pane_belongs_where_most_of_it_lies() {
        let cases = [
            ((0, 10), (0, 10), true),
            ((-4, 6), (0, 100), true),
            ((-6, 4), (0, 100), false),
            ((-5, 5), (0, 100), true),
            ((95, 105), (0, 100), false),
            ((94, 104), (0, 100), true),
            ((0, 1000), (400, 500), false),
            ((0, 10), (i64::MIN, i64::MAX), true),
            ((i64::MIN, i64::MAX), (0, i64::MAX), false),
            ((7, 7), (7, 8), true),
            ((7, 7), (6, 7), false),
        ];
        for ((from, to), (start, end), expected) in cases {
            let pane = Pane { from, to, ..Pane::default() };
            assert_eq!(pane.is_within(start, end), expected, "{from}..{to} in {start}..{end}");
        }
    }
}
