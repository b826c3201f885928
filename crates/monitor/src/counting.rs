//! Counting of the rows that travel one edge.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt64Array},
    compute::take,
};

use crate::{
    layout::{Kind, Layout, Segment},
    multivariate::Rebuilding,
    pane::{Columns, EdgePane},
    sketch::{Kept, Recent, Sketch},
    values,
};

/// Rows from which a batch is counted at once, column by column. Those of smaller ones are put aside until there are so many.
const AT_ONCE: usize = 128;

/// Rows of a larger batch that are put side by side.
const REBUILT_AT_ONCE: usize = 1024;

/// Stands for a number that a row does not have. It is one of the many forms of what is no number, and none that arithmetic makes.
const NONE: f64 = f64::from_bits(0x7ff8_6d69_6c6c_7374);

/// What is being counted of an edge, by the places of its layout.
///
/// A row by itself would touch the counts of every column, which the nearest cache does not hold. So its numbers are put down side by
/// side, and enter the counts of a column many at a time.
pub(crate) struct Counting {
    layout: Arc<Layout>,
    rows: u64,
    lost: u64,
    columns: Vec<Sketch>,
    segments: Vec<Kept<Vec<Sketch>>>,
    numeric: Vec<Lane>,
    /// Numbers that are not in their columns yet, row by row, in the order of `numeric`.
    aside: Vec<f64>,
    /// The columns that have categories, and those that are not in them yet.
    categorical: Vec<(Lane, Recent)>,
    others: Vec<Lane>,
    /// The numeric columns together, if that is asked.
    rebuilding: Option<Rebuilding>,
    empty: bool,
}

/// Where a column is.
#[derive(Clone, Copy)]
struct Lane {
    /// Its place in the rows.
    place: usize,
    /// Its place in the layout.
    column: usize,
}

impl Counting {
    pub(crate) fn new(layout: &Arc<Layout>) -> Self {
        let rebuilding = layout.reconstruction.as_ref().map(|of| Rebuilding::new(of, &layout.numeric()));
        Self::with(layout, rebuilding)
    }

    fn with(layout: &Arc<Layout>, rebuilding: Option<Rebuilding>) -> Self {
        let kept = |segment: &Segment| Kept::new(segment.known.iter().map(String::as_str), segment.most);
        let (mut numeric, mut categorical, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (at, column) in layout.columns.iter().enumerate() {
            let lane = Lane { place: column.place, column: at };
            match &column.kind {
                Kind::Numeric { .. } => numeric.push(lane),
                Kind::Categorical(_) => categorical.push((lane, Recent::default())),
                Kind::Time | Kind::Presence => others.push(lane),
            }
        }
        Self {
            layout: Arc::clone(layout),
            rows: 0,
            lost: 0,
            columns: layout.sketches(),
            segments: layout.segments.iter().map(kept).collect(),
            numeric,
            aside: Vec::new(),
            categorical,
            others,
            rebuilding,
            empty: true,
        }
    }

    /// Counts the rows of a batch.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.empty = false;
        if batch.num_rows() == 0 {
            return;
        }
        let arrays = batch.columns();
        let mut counted = if batch.num_rows() < AT_ONCE {
            self.put_aside(batch)
        } else {
            self.rebuild(batch);
            add_whole(&self.layout, &self.numeric, &mut self.columns, arrays)
        };
        counted &= self.add_others(arrays);
        for (segment, kept) in self.layout.segments.iter().zip(&mut self.segments) {
            counted &= add_segments(&self.layout, segment, kept, batch);
        }
        *(if counted { &mut self.rows } else { &mut self.lost }) += batch.num_rows() as u64;
    }

    /// Answers whether all arrays were of numbers, as the following do.
    fn put_aside(&mut self, batch: &RecordBatch) -> bool {
        let Self { numeric, aside, columns, .. } = self;
        let (begin, width) = (aside.len(), numeric.len());
        aside.resize(begin + batch.num_rows() * width, NONE);
        let mut counted = true;
        for (at, lane) in numeric.iter().enumerate() {
            let places = &mut aside[begin + at..];
            let mut put = |row: usize, value: f64| {
                places[row * width] = if value.is_nan() { f64::NAN } else { value };
            };
            match batch.columns().get(lane.place).and_then(|array| values::numbers(array, &mut put)) {
                Some(0) => {}
                Some(nulls) => {
                    if let Sketch::Numbers(numbers) = &mut columns[lane.column] {
                        numbers.add_nulls(nulls);
                    }
                }
                None => counted = false,
            }
        }
        if self.aside.len() >= AT_ONCE * width {
            self.gather();
        }
        counted
    }

    /// Counts the numbers that were put aside.
    fn gather(&mut self) {
        let Self { layout, numeric, aside, columns, rebuilding, .. } = self;
        let width = numeric.len().max(1);
        if let Some(rebuilding) = rebuilding {
            rebuilding.add(aside, width);
        }
        let mut values = Vec::with_capacity(aside.len() / width);
        for (at, lane) in numeric.iter().enumerate() {
            values.clear();
            values.extend(aside.chunks_exact(width).map(|row| row[at]));
            let is_one = |value: &f64| value.to_bits() != NONE.to_bits();
            if !values.iter().fold(true, |all, value| all & is_one(value)) {
                values.retain(is_one);
            }
            if let Sketch::Numbers(numbers) = &mut columns[lane.column] {
                numbers.add_all(layout.columns[lane.column].kind.edges(), &values);
            }
        }
        self.aside.clear();
    }

    /// Puts the rows of a large batch side by side, some at a time, where they are looked at together.
    fn rebuild(&mut self, batch: &RecordBatch) {
        let Self { numeric, rebuilding: Some(rebuilding), .. } = self else { return };
        let (width, mut rows) = (numeric.len(), Vec::new());
        for from in (0..batch.num_rows()).step_by(REBUILT_AT_ONCE) {
            let part = batch.slice(from, REBUILT_AT_ONCE.min(batch.num_rows() - from));
            rows.clear();
            rows.resize(part.num_rows() * width, NONE);
            for (at, lane) in numeric.iter().enumerate() {
                let mut put = |row: usize, value: f64| rows[row * width + at] = value;
                // Arrays that are not of numbers are told of by those who count them.
                let _ = part.columns().get(lane.place).map(|array| values::numbers(array, &mut put));
            }
            rebuilding.add(&rows, width);
        }
    }

    fn add_others(&mut self, arrays: &[ArrayRef]) -> bool {
        let Self { layout, categorical, others, columns, .. } = self;
        let present = add_whole(layout, others, columns, arrays);
        let counted = all(categorical, |(lane, recent)| {
            let Sketch::Labels(labels) = &mut columns[lane.column] else { return false };
            let each = &mut |_, label: Option<&str>| match label {
                Some(label) => recent.add(label, labels),
                None => labels.add_nulls(1),
            };
            arrays.get(lane.place).is_some_and(|array| values::labels(array, each))
        });
        present && counted
    }

    /// What was counted, and nothing is afterwards.
    pub(crate) fn take(&mut self) -> Option<(String, EdgePane)> {
        if self.empty {
            return None;
        }
        self.gather();
        for (lane, recent) in &mut self.categorical {
            if let Sketch::Labels(labels) = &mut self.columns[lane.column] {
                recent.gather(labels);
            }
        }
        // What rows are rebuilt by stays: its digest takes longer than all else here.
        let mut rebuilding = self.rebuilding.take();
        let rebuilt = rebuilding.as_mut().map(Rebuilding::take).unwrap_or_default();
        let new = Self::with(&self.layout, rebuilding);
        let Self { layout, rows, lost, columns, segments, .. } = std::mem::replace(self, new);
        let named = |sketches: Vec<Sketch>| -> Columns {
            layout.columns.iter().map(|column| column.name.to_string()).zip(sketches).collect()
        };
        let divided = layout.segments.iter().map(|segment| segment.name.to_string());
        let segments = divided.zip(segments.into_iter().map(|kept| kept.map(named))).collect();
        let pane = EdgePane { rows, lost, columns: named(columns), segments, rebuilt };
        Some((layout.edge.to_string(), pane))
    }
}

/// Counts whole arrays. Answers whether all were of the kind that is counted.
fn add_whole(layout: &Layout, lanes: &[Lane], columns: &mut [Sketch], arrays: &[ArrayRef]) -> bool {
    all(lanes, |lane| {
        let (kind, sketch) = (&layout.columns[lane.column].kind, &mut columns[lane.column]);
        arrays.get(lane.place).is_some_and(|array| values::add(kind, array, sketch))
    })
}

/// Whether it is so for all of them, each of which is asked: `Iterator::all` would leave out the rest after the first that is not.
fn all<T>(of: impl IntoIterator<Item = T>, mut is: impl FnMut(T) -> bool) -> bool {
    let mut every = true;
    for one in of {
        every &= is(one);
    }
    every
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
    use proptest::prelude::*;

    use super::*;
    use crate::layout::Watching;

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

    proptest! {
        #[test]
        fn rows_in_parts_of_any_size_are_counted_as_all_at_once(
            rows in prop::collection::vec((
                prop::option::weighted(0.9, prop_oneof![any::<f64>(), -9.0..9.0, Just(NONE), Just(f64::NAN)]),
                prop::option::weighted(0.9, any::<i32>()),
                prop::option::weighted(0.9, "[a-c]{0,3}|[a-z]{0,40}|é{1,9}"),
                any::<bool>(),
            ), 1..400),
            sizes in prop::collection::vec(0usize..200, 1..9),
        ) {
            let batch = rows! {
                amount: rows.iter().map(|row| row.0).collect::<Vec<_>>(),
                count: rows.iter().map(|row| row.1.map(f64::from)).collect::<Vec<_>>(),
                name: rows.iter().map(|row| row.2.as_deref()).collect::<Vec<_>>(),
                flag: rows.iter().map(|row| row.3).collect::<Vec<_>>(),
            };
            let layout = Layout::new("input", &batch.schema(), &Watching::default()).unwrap();
            let layout = Arc::new(layout);
            let mut parts = Counting::new(&layout);
            // One that is not empty among them, so that it ends.
            let (mut from, mut sizes) = (0, sizes.iter().chain([&7]).cycle());
            while from < batch.num_rows() {
                let size = (*sizes.next().unwrap()).min(batch.num_rows() - from);
                parts.add(&batch.slice(from, size));
                from += size;
            }
            let mut whole = layout.sketches();
            for (column, sketch) in layout.columns.iter().zip(&mut whole) {
                prop_assert!(values::add(&column.kind, batch.column(column.place), sketch));
            }
            let (_, pane) = parts.take().unwrap();
            prop_assert_eq!(pane.rows, rows.len() as u64);
            for (column, sketch) in layout.columns.iter().zip(&whole) {
                prop_assert_eq!(&pane.columns[&*column.name], sketch);
            }
            prop_assert!(parts.take().is_none());
        }
    }
}
