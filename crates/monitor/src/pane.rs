//! What was counted in a stretch of time.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
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
        self.answered() == 0 && self.edges.values().all(|edge| edge.rows == 0 && edge.lost == 0)
    }
}

impl Merge for Pane {
    /// The stretch is then the one that spans both.
    fn merge(&mut self, other: &Self) {
        if self.to == self.from {
            (self.from, self.to) = (other.from, other.to);
        } else if other.to > other.from {
            (self.from, self.to) = (self.from.min(other.from), self.to.max(other.to));
        }
        merge_maps(&mut self.edges, &other.edges);
        merge_maps(&mut self.requests.outcomes, &other.requests.outcomes);
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
        let kept = |segment: &Segment| {
            Kept::new(segment.known.iter().map(String::as_str), segment.most, || layout.sketches())
        };
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
            counted &= batch.columns().get(column.place).is_some_and(|array| {
                values::add(&column.kind, array, sketch)
            });
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
        let Self { layout, rows, lost, columns, segments, .. } = std::mem::replace(self, Self::new(&self.layout));
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
fn add_segments(layout: &Layout, segment: &Segment, kept: &mut Kept<Vec<Sketch>>, batch: &RecordBatch) -> bool {
    let Some(dividing) = batch.columns().get(segment.place) else { return false };
    let mut counted = true;
    let mut add = |row: usize, label: &str| {
        kept.count(label, || layout.sketches(), |sketches| {
            for (column, sketch) in layout.columns.iter().zip(sketches) {
                let Some(array) = batch.columns().get(column.place) else { continue };
                let one = (batch.num_rows() > 1).then(|| array.slice(row, 1));
                counted &= values::add(&column.kind, one.as_ref().unwrap_or(array), sketch);
            }
        });
    };
    values::labels(dividing, &mut |row, label| label.into_iter().for_each(|label| add(row, label))) && counted
}
