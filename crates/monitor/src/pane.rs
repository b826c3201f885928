//! What was counted in a stretch of time.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ahash::RandomState;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt64Array},
    compute::take,
};
use serde::{Deserialize, Serialize};

use crate::{
    layout::{Layout, Segment},
    sketch::{Kept, Merge, Numbers, Sketch},
    values,
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
        Self { rows: 0, lost: 0, columns: BTreeMap::new(), segments: BTreeMap::new() }
    }
}

impl Merge for EdgePane {
    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.lost += other.lost;
        merge_maps(&mut self.columns, &other.columns);
        merge_maps(&mut self.segments, &other.segments);
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

/// What is being counted of an edge, by the places of its layout.
pub(crate) struct Counting {
    layout: Arc<Layout>,
    rows: u64,
    lost: u64,
    columns: Vec<Sketch>,
    segments: Vec<Kept<Vec<Sketch>>>,
    empty: bool,
}

impl Counting {
    pub(crate) fn new(layout: &Arc<Layout>) -> Self {
        let kept = |segment: &Segment| Kept::new(segment.known.iter().map(String::as_str), segment.most);
        Self {
            layout: Arc::clone(layout),
            rows: 0,
            lost: 0,
            columns: layout.sketches(),
            segments: layout.segments.iter().map(kept).collect(),
            empty: true,
        }
    }

    /// Counts the rows of a batch.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.empty = false;
        let layout = Arc::clone(&self.layout);
        let mut counted = true;
        for (column, sketch) in layout.columns.iter().zip(&mut self.columns) {
            counted &= batch
                .columns()
                .get(column.place)
                .is_some_and(|array| values::add(&column.kind, array, sketch));
        }
        for (segment, kept) in layout.segments.iter().zip(&mut self.segments) {
            counted &= add_segments(&layout, segment, kept, batch);
        }
        *(if counted { &mut self.rows } else { &mut self.lost }) += batch.num_rows() as u64;
    }

    /// What was counted, and nothing is afterwards.
    pub(crate) fn take(&mut self) -> Option<(String, EdgePane)> {
        if self.empty {
            return None;
        }
        let Self { layout, rows, lost, columns, segments, .. } =
            std::mem::replace(self, Self::new(&self.layout));
        let named = |sketches: Vec<Sketch>| -> Columns {
            layout.columns.iter().map(|column| column.name.to_string()).zip(sketches).collect()
        };
        let divided = layout.segments.iter().map(|segment| segment.name.to_string());
        let segments = divided.zip(segments.into_iter().map(|kept| kept.map(named))).collect();
        let pane = EdgePane { rows, lost, columns: named(columns), segments };
        Some((layout.edge.to_string(), pane))
    }
}

/// Counts the rows of a batch once more, each in the segment of its value; rows without one are in none.
fn add_segments(
    layout: &Layout,
    segment: &Segment,
    kept: &mut Kept<Vec<Sketch>>,
    batch: &RecordBatch,
) -> bool {
    let Some(dividing) = batch.columns().get(segment.place) else { return false };
    let mut counted = true;
    let mut add = |label: &str, rows: &Group| {
        kept.count(
            label,
            || layout.sketches(),
            |sketches| {
                for (column, sketch) in layout.columns.iter().zip(sketches) {
                    let array = batch.columns().get(column.place).and_then(|array| rows.of_column(array));
                    counted &= array.is_some_and(|array| values::add(&column.kind, &array, sketch));
                }
            },
        );
    };
    if batch.num_rows() == 1 {
        let mut add = |_, label: Option<&str>| label.into_iter().for_each(|label| add(label, &Group::Whole));
        return values::labels(dividing, &mut add) && counted;
    }
    // Columns are taken apart once for each segment that occurs, not for each row.
    let mut groups: HashMap<Box<str>, Vec<u64>, RandomState> = HashMap::default();
    let divided = values::labels(dividing, &mut |row, label| {
        let Some(label) = label else { return };
        match groups.get_mut(label) {
            Some(rows) => rows.push(row as u64),
            None => drop(groups.insert(label.into(), vec![row as u64])),
        }
    });
    for (label, rows) in groups {
        add(&label, &Group::of(rows, batch.num_rows()));
    }
    divided && counted
}

/// Rows of one segment.
enum Group {
    Whole,
    One(usize),
    Some(UInt64Array),
}

impl Group {
    fn of(rows: Vec<u64>, of: usize) -> Self {
        match rows[..] {
            _ if rows.len() == of => Self::Whole,
            [row] => Self::One(row as usize),
            _ => Self::Some(rows.into()),
        }
    }

    fn of_column(&self, column: &ArrayRef) -> Option<ArrayRef> {
        match self {
            Self::Whole => Some(Arc::clone(column)),
            Self::One(row) => Some(column.slice(*row, 1)),
            Self::Some(rows) => take(column, rows, None).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_graph::rows;

    use super::*;
    use crate::{
        layout::Watching,
        sketch::{Labels, Presence},
    };

    fn counted(batch: &RecordBatch) -> EdgePane {
        let segments = ["country".to_owned()];
        let watching = Watching { segments: &segments, most_segments: 9, ..Watching::default() };
        let layout = Arc::new(Layout::new("input", &batch.schema(), &watching).unwrap());
        let mut counting = Counting::new(&layout);
        counting.add(batch);
        counting.take().unwrap().1
    }

    #[test]
    fn a_segment_has_counted_what_its_rows_alone_count() {
        let batch = rows! {
            country: [Some("de"), Some("fr"), None, Some("de"), Some("it"), Some("de")],
            amount: [Some(1.0), None, Some(3.0), Some(4.0), Some(5.0), Some(f64::NAN)],
            name: ["a", "b", "c", "a", "b", "d"],
        };
        let whole = counted(&batch);
        assert_eq!((whole.rows, whole.lost), (6, 0));
        let segments = &whole.segments["country"];
        for (country, places) in [("de", vec![0, 3, 5]), ("fr", vec![1]), ("it", vec![4])] {
            let places: arrow::array::UInt32Array = places.into();
            let own = arrow::compute::take_record_batch(&batch, &places).unwrap();
            assert_eq!(segments.get(country), Some(&counted(&own).columns), "{country}");
        }
        assert_eq!((segments.iter().count(), segments.rest()), (3, None));
    }

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
