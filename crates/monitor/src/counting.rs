//! Counting of the rows that travel one edge.

use std::{collections::HashMap, sync::Arc};

use ahash::RandomState;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt64Array},
    compute::take,
    datatypes::{DataType, SchemaRef},
};

use crate::{
    layout::{Kind, Layout, Segment},
    multivariate::Rebuilding,
    pane::{Columns, EdgePane},
    sketch::{Kept, Recent, Sketch},
    values::{self, Put},
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
    places: Places,
    rows: u64,
    lost: u64,
    columns: Vec<Sketch>,
    segments: Vec<Kept<Vec<Sketch>>>,
    /// The places in the layout of columns of numbers.
    numeric: Vec<usize>,
    /// Numbers that are not in their columns yet, row by row, in the order of `numeric`.
    aside: Vec<f64>,
    /// Whether one of them is missing.
    gaps: bool,
    /// The columns that have categories, and those that are not in them yet.
    categorical: Vec<(usize, Recent)>,
    others: Vec<usize>,
    /// The numeric columns together, if that is asked.
    rebuilding: Option<Rebuilding>,
    empty: bool,
}

/// Where a layout's columns are in rows. Not all rows have all columns of their port: what nothing reads does not travel.
#[derive(Clone, Default)]
struct Places {
    /// Of these rows.
    schema: Option<SchemaRef>,
    columns: Vec<Option<(usize, DataType)>>,
    /// Those of columns of numbers, and how they are put down: of a single row, to ask an array for its type would be a good part of the
    /// work.
    numbers: Vec<Option<(usize, Put)>>,
    segments: Vec<Option<usize>>,
}

impl Places {
    /// Looks them up, unless the rows are like the last ones.
    #[inline]
    fn follow(&mut self, layout: &Layout, schema: &SchemaRef) {
        if !self.schema.as_ref().is_some_and(|known| Arc::ptr_eq(known, schema)) {
            *self = Self::of(layout, schema);
        }
    }

    #[cold]
    fn of(layout: &Layout, schema: &SchemaRef) -> Self {
        let place = |name: &Arc<str>| schema.index_of(name).ok();
        let typed = |at: usize| (at, schema.field(at).data_type().clone());
        let numeric = layout.columns.iter().filter(|column| matches!(column.kind, Kind::Numeric { .. }));
        let put = |at: usize| (at, values::putting(schema.field(at).data_type()));
        Self {
            columns: layout.columns.iter().map(|column| place(&column.name).map(typed)).collect(),
            numbers: numeric.map(|column| place(&column.name).map(put)).collect(),
            segments: layout.segments.iter().map(|segment| place(&segment.name)).collect(),
            schema: Some(Arc::clone(schema)),
        }
    }

    /// The values of the column at this place of the layout, and what they are.
    #[inline]
    fn array<'a>(&'a self, column: usize, arrays: &'a [ArrayRef]) -> Option<(&'a DataType, &'a ArrayRef)> {
        let (at, data_type) = self.columns.get(column)?.as_ref()?;
        Some((data_type, arrays.get(*at)?))
    }
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
            match &column.kind {
                Kind::Numeric { .. } => numeric.push(at),
                Kind::Categorical(_) => categorical.push((at, Recent::default())),
                Kind::Time | Kind::Presence => others.push(at),
            }
        }
        Self {
            layout: Arc::clone(layout),
            places: Places::default(),
            rows: 0,
            lost: 0,
            columns: layout.sketches(),
            segments: layout.segments.iter().map(kept).collect(),
            numeric,
            aside: Vec::new(),
            gaps: false,
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
        self.places.follow(&self.layout, batch.schema_ref());
        let arrays = batch.columns();
        let mut counted = if batch.num_rows() < AT_ONCE {
            self.put_aside(batch)
        } else {
            self.rebuild(batch);
            add_whole(&self.layout, &self.places, &self.numeric, &mut self.columns, arrays)
        };
        counted &= self.add_others(arrays);
        for (segment, kept) in self.segments.iter_mut().enumerate() {
            counted &= add_segments(&self.layout, &self.places, segment, kept, batch);
        }
        *(if counted { &mut self.rows } else { &mut self.lost }) += batch.num_rows() as u64;
    }

    /// Answers whether all arrays were of numbers, as the following do.
    fn put_aside(&mut self, batch: &RecordBatch) -> bool {
        let Self { numeric, aside, gaps, columns, places, .. } = self;
        let (begin, width) = (aside.len(), numeric.len());
        aside.resize(begin + batch.num_rows() * width, NONE);
        let mut counted = true;
        for (at, (column, place)) in numeric.iter().zip(&places.numbers).enumerate() {
            let put = |(from, put): (usize, Put)| {
                put(batch.columns().get(from)?, aside.get_mut(begin + at..)?, width)
            };
            match place.and_then(put) {
                Some(0) => continue,
                Some(nulls) => {
                    if let Sketch::Numbers(numbers) = &mut columns[*column] {
                        numbers.add_nulls(nulls);
                    }
                }
                None => counted = false,
            }
            *gaps = true;
        }
        if self.aside.len() >= AT_ONCE * width.max(1) {
            self.gather();
        }
        counted
    }

    /// Counts the numbers that were put aside.
    fn gather(&mut self) {
        let Self { layout, numeric, aside, gaps, columns, rebuilding, .. } = self;
        let width = numeric.len().max(1);
        if let Some(rebuilding) = rebuilding {
            rebuilding.add(aside, width);
        }
        let mut values = Vec::with_capacity(aside.len() / width);
        for (at, column) in numeric.iter().enumerate() {
            values.clear();
            values.extend(aside.chunks_exact(width).map(|row| row[at]));
            if *gaps {
                values.retain(|value: &f64| value.to_bits() != NONE.to_bits());
            }
            if let Sketch::Numbers(numbers) = &mut columns[*column] {
                numbers.add_all(layout.columns[*column].kind.edges(), &values);
            }
        }
        aside.clear();
        *gaps = false;
    }

    /// Puts the rows of a large batch side by side, some at a time, where they are looked at together.
    fn rebuild(&mut self, batch: &RecordBatch) {
        let Self { numeric, places, rebuilding: Some(rebuilding), .. } = self else { return };
        let (width, mut rows) = (numeric.len(), Vec::new());
        for from in (0..batch.num_rows()).step_by(REBUILT_AT_ONCE) {
            let part = batch.slice(from, REBUILT_AT_ONCE.min(batch.num_rows() - from));
            rows.clear();
            rows.resize(part.num_rows() * width, NONE);
            for (at, column) in numeric.iter().enumerate() {
                let mut put = |row: usize, value: f64| rows[row * width + at] = value;
                // Arrays that are not of numbers are told of by those who count them.
                let _ =
                    places.array(*column, part.columns()).map(|(_, array)| values::numbers(array, &mut put));
            }
            rebuilding.add(&rows, width);
        }
    }

    fn add_others(&mut self, arrays: &[ArrayRef]) -> bool {
        let Self { layout, places, categorical, others, columns, .. } = self;
        let present = add_whole(layout, places, others, columns, arrays);
        let counted = all(categorical, |(column, recent)| {
            let Sketch::Labels(labels) = &mut columns[*column] else { return false };
            let each = &mut |_, label: Option<&str>| match label {
                Some(label) => recent.add(label, labels),
                None => labels.add_nulls(1),
            };
            let array = places.array(*column, arrays);
            array.is_some_and(|(data_type, array)| values::labels_of(data_type, array, each))
        });
        present && counted
    }

    /// What was counted, and nothing is afterwards.
    pub(crate) fn take(&mut self) -> Option<(String, EdgePane)> {
        if self.empty {
            return None;
        }
        self.gather();
        for (column, recent) in &mut self.categorical {
            if let Sketch::Labels(labels) = &mut self.columns[*column] {
                recent.gather(labels);
            }
        }
        // What rows are rebuilt by stays: its digest takes longer than all else here.
        let mut rebuilding = self.rebuilding.take();
        let rebuilt = rebuilding.as_mut().map(Rebuilding::take).unwrap_or_default();
        let mut new = Self::with(&self.layout, rebuilding);
        new.places = std::mem::take(&mut self.places);
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
fn add_whole(
    layout: &Layout,
    places: &Places,
    of: &[usize],
    columns: &mut [Sketch],
    arrays: &[ArrayRef],
) -> bool {
    all(of, |&column| {
        let (kind, sketch) = (&layout.columns[column].kind, &mut columns[column]);
        places.array(column, arrays).is_some_and(|(_, array)| values::add(kind, array, sketch))
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
    places: &Places,
    segment: usize,
    kept: &mut Kept<Vec<Sketch>>,
    batch: &RecordBatch,
) -> bool {
    let dividing = places.segments.get(segment).copied().flatten().and_then(|at| batch.columns().get(at));
    let Some(dividing) = dividing else { return false };
    let mut counted = true;
    let mut add = |label: &str, rows: &Group| {
        kept.count(
            label,
            || layout.sketches(),
            |sketches| {
                for (at, (column, sketch)) in layout.columns.iter().zip(sketches).enumerate() {
                    let array = places.array(at, batch.columns());
                    let array = array.and_then(|(_, array)| rows.of_column(array));
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
                prop_assert!(values::add(&column.kind, &batch[&*column.name], sketch));
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
