//! From packed rows to columns: the answer of a lookup, with gaps filled as asked.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, BooleanBufferBuilder, Int64Array, PrimitiveArray, RecordBatch,
        StringBuilder,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer},
    datatypes::DataType,
};
use smallvec::SmallVec;

use crate::{
    FeatureSet,
    cell::{Cell, CellValue, Width, with_primitive},
    layout::{Layout, Place, TextAt, at},
    set::Column,
    store::LookupError,
};

/// What stands in the place of a value that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Nothing: the row is at fault.
    Fail,
    /// Null.
    Null,
    /// A value.
    Fill(Cell),
}

/// One feature of a [`Selection`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The feature's number in its set.
    pub feature: usize,
    /// What stands for it where the key has no row.
    pub missing: Gap,
    /// What stands for it where the row has null.
    pub null: Gap,
}

/// What a lookup reads: the columns that carry the keys, the features, and what fills gaps. Made once, used for every
/// batch of the same schema.
#[derive(Clone, Debug)]
pub struct Selection {
    keys: SmallVec<[usize; 2]>,
    picks: Box<[Placed]>,
    /// Numbers of picks by width, so that cells of one width are moved by one loop into one buffer.
    by_width: [Box<[u32]>; 5],
    /// Which bits of a row's null bitmap matter, by eight bytes.
    nulls: SmallVec<[(usize, u64); 1]>,
    /// Stands in for the row of a key that has none, so that moving cells need not ask.
    zeros: Box<[u8]>,
    stale: bool,
    events: bool,
    /// Microseconds.
    max_age: Option<i64>,
    /// Of sets with windows: what is read of the rows, and what of the windows.
    halves: Option<Box<Halves>>,
}

/// A selection of a set with windows, taken apart: own features lie in rows, and windows are put together when they are read.
#[derive(Clone, Debug)]
pub(crate) struct Halves {
    pub(crate) own: Selection,
    pub(crate) windows: Selection,
    /// For each pick, in order, whether it is a window.
    is_window: Box<[bool]>,
}

/// A pick, and where its cell lies in a row and its column in the buffer of its width.
#[derive(Clone, Debug)]
struct Placed {
    pick: Pick,
    place: Place,
    data_type: DataType,
    /// The number of the buffer, as in [`WIDTHS`].
    width: usize,
    slot: usize,
}

const WIDTHS: [Width; 5] = [Width::W8, Width::W4, Width::W2, Width::W1, Width::Bit];

impl Selection {
    /// Reads `picks` of `set`, in that order; column `keys[i]` of a batch carries key `i`. Gaps that are filled must be
    /// filled with cells of the feature's type.
    ///
    /// # Errors
    /// When there are not as many key columns as keys, or a feature's number is out of range.
    pub fn new(set: &FeatureSet, keys: &[usize], picks: Vec<Pick>) -> Result<Self, LookupError> {
        let wanted = set.keys().len();
        if keys.len() != wanted {
            return Err(LookupError::KeyCount { wanted, got: keys.len() });
        }
        let features = set.features();
        if let Some(pick) = picks.iter().find(|pick| pick.feature >= features.len()) {
            return Err(LookupError::Feature { number: pick.feature, features: features.len() });
        }
        let halves = set.windows().map(|_| Box::new(Halves::new(set, keys, &picks)));
        Ok(Self { halves, ..Self::over(features, keys, picks) })
    }

    /// Reads `picks` of rows with the cells of `features`, which has all of them.
    pub(crate) fn over(features: &[Column], keys: &[usize], picks: Vec<Pick>) -> Self {
        let layout = Layout::of(features);
        let mut slots = [0; 5];
        let mut placed = Vec::with_capacity(picks.len());
        for pick in picks {
            let feature = &features[pick.feature];
            let place = layout.place(pick.feature);
            // Texts have no buffer of their width; their number is never used.
            let width = WIDTHS.iter().position(|&width| width == place.width).unwrap_or_default();
            let slot = slots[width];
            slots[width] += usize::from(place.width != Width::Text);
            placed.push(Placed { pick, place, data_type: feature.data_type.clone(), width, slot });
        }
        let of = |width: Width| {
            let picks = placed.iter().enumerate().filter(|(_, placed)| placed.place.width == width);
            picks.map(|(pick, _)| pick as u32).collect::<Box<[u32]>>()
        };
        let mut nulls: SmallVec<[(usize, u64); 1]> = SmallVec::new();
        for Placed { place, .. } in &placed {
            let (word, bit) = (place.null / 64 * 8, 1 << (place.null % 64));
            match nulls.iter_mut().find(|(at, _)| *at == word) {
                Some((_, bits)) => *bits |= bit,
                None => nulls.push((word, bit)),
            }
        }
        Self {
            keys: keys.into(),
            by_width: WIDTHS.map(of),
            nulls,
            zeros: vec![0; layout.stride()].into(),
            picks: placed.into(),
            stale: false,
            events: false,
            max_age: None,
            halves: None,
        }
    }

    /// Gives the values of rows that may not be used at the time of the lookup too, instead of what fills gaps; their
    /// [`Status`] tells them apart.
    #[must_use]
    pub fn with_stale(mut self) -> Self {
        self.stale = true;
        if let Some(halves) = &mut self.halves {
            halves.own.stale = true;
        }
        self
    }

    /// Tells when the row of each key happened, too: [`Found::events`].
    #[must_use]
    pub fn with_events(mut self) -> Self {
        self.events = true;
        if let Some(halves) = &mut self.halves {
            halves.own.events = true;
        }
        self
    }

    /// Takes rows that happened more than `age` before the time of the lookup for stale, whatever their set allows. Windows are as
    /// of the time of the lookup and have no age.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        self.max_age = Some(age);
        if let Some(halves) = &mut self.halves {
            halves.own.max_age = Some(age);
        }
        self
    }

    pub(crate) fn tells_events(&self) -> bool {
        self.events
    }

    /// Whether rows may be too old for this selection.
    #[inline]
    pub(crate) fn bounds_age(&self) -> bool {
        self.max_age.is_some()
    }

    /// Whether a row of `event` is too old at `at`.
    #[inline]
    pub(crate) fn is_too_old(&self, event: i64, at: i64) -> bool {
        self.max_age.is_some_and(|age| at.saturating_sub(event) > age)
    }

    /// Of a set with windows, what is read of the rows and what of the windows.
    pub(crate) fn halves(&self) -> Option<&Halves> {
        self.halves.as_deref()
    }

    /// The number of features that are read.
    pub(crate) fn len(&self) -> usize {
        self.picks.len()
    }

    #[inline]
    pub(crate) fn takes_stale(&self) -> bool {
        self.stale
    }

    /// Where a batch has its key columns.
    pub(crate) fn key_places(&self) -> &[usize] {
        &self.keys
    }

    /// The key columns of a batch, in the order of the set's keys.
    pub(crate) fn key_columns<'a>(
        &self,
        batch: &'a RecordBatch,
    ) -> Result<SmallVec<[&'a ArrayRef; 2]>, LookupError> {
        let columns: SmallVec<_> = self.keys.iter().filter_map(|&key| batch.columns().get(key)).collect();
        if columns.len() == self.keys.len() {
            Ok(columns)
        } else {
            Err(LookupError::KeyCount { wanted: self.keys.len(), got: columns.len() })
        }
    }

    #[inline]
    fn has_null(&self, row: &[u8]) -> bool {
        self.nulls.iter().any(|&(word, bits)| u64::from_le_bytes(at(row, word)) & bits != 0)
    }
}

impl Halves {
    fn new(set: &FeatureSet, keys: &[usize], picks: &[Pick]) -> Self {
        let (own, windows) = set.features().split_at(set.own_features().len());
        let is_window: Box<[bool]> = picks.iter().map(|pick| pick.feature >= own.len()).collect();
        let (mut of_windows, mut of_own) = (Vec::new(), Vec::new());
        for pick in picks {
            match pick.feature.checked_sub(own.len()) {
                Some(feature) => of_windows.push(Pick { feature, ..pick.clone() }),
                None => of_own.push(pick.clone()),
            }
        }
        let (own, windows) = (Selection::over(own, keys, of_own), Selection::over(windows, keys, of_windows));
        Self { own, windows, is_window }
    }

    /// One answer of both: a row is missing if both miss it, and stale if one is.
    pub(crate) fn join(&self, own: Found, windows: Found) -> Found {
        let (own_missing, windows_missing) = (own.missing, windows.missing);
        let events = own.events;
        let missing = match (self.own.len(), self.windows.len()) {
            (0, _) => windows_missing,
            (_, 0) => own_missing,
            _ => own_missing.into_iter().filter(|row| windows_missing.binary_search(row).is_ok()).collect(),
        };
        let own_stale = own.stale.into_iter().filter(|_| self.own.len() > 0);
        let mut stale: SmallVec<[u32; 4]> = own_stale.chain(windows.stale).collect();
        stale.sort_unstable();
        stale.dedup();
        let places = |window: bool| {
            let picks = self.is_window.iter().enumerate().filter(move |(_, is)| **is == window);
            picks.map(|(pick, _)| pick).collect::<Vec<_>>()
        };
        let mut faults: SmallVec<[Fault; 1]> = SmallVec::new();
        for (found, places) in [(own.faults, places(false)), (windows.faults, places(true))] {
            let placed = |fault: Fault| Fault { null: fault.null.map(|pick| places[pick]), ..fault };
            faults.extend(found.into_iter().map(placed));
        }
        // Of a row's faults, that it is missing comes first, then the first pick.
        faults.sort_by_key(|fault| (fault.row, fault.null));
        faults.dedup_by_key(|fault| fault.row);
        let (mut own, mut windows) = (own.columns.into_iter(), windows.columns.into_iter());
        let columns = self.is_window.iter().filter_map(|is| if *is { windows.next() } else { own.next() });
        Found { columns: columns.collect(), missing, stale, faults, events }
    }
}

/// A packed row, and the arena its texts lie in.
#[derive(Clone, Copy)]
pub(crate) struct PackedRow<'a> {
    bytes: &'a [u8],
    arena: &'a str,
}

impl<'a> PackedRow<'a> {
    pub(crate) fn new(bytes: &'a [u8], arena: &'a str) -> Self {
        Self { bytes, arena }
    }
}

/// What a lookup found: one column per pick, as long as the batch that asked.
#[derive(Debug)]
pub struct Found {
    /// The features, in the order of the selection.
    pub columns: Vec<ArrayRef>,
    /// Rows of the batch that asked which have no row in the set that may be used, in ascending order.
    pub missing: SmallVec<[u32; 8]>,
    /// Rows whose keys have a row, but not one that may be used at the time of the lookup, in ascending order. They are
    /// missing too, unless the selection [takes stale rows](Selection::with_stale) or has windows that are known then.
    pub stale: SmallVec<[u32; 4]>,
    /// Rows at fault, in ascending order: each once, with the first pick whose gap said [`Gap::Fail`].
    pub faults: SmallVec<[Fault; 1]>,
    /// When each key's row happened, in microseconds since 1970 UTC, whether it may be used or not; null where there is none. For
    /// selections that [ask for it](Selection::with_events), of sets with an event timestamp.
    pub events: Option<Int64Array>,
}

/// A row that lacks a value it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The row of the batch that asked.
    pub row: u32,
    /// The pick that is null; `None` when the key has no row.
    pub null: Option<usize>,
}

/// What is known of one feature for one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// There is a value.
    Present,
    /// There is a row, and the feature is null in it.
    Null,
    /// The key has no row.
    Missing,
    /// The key has a row that may not be used at the time of the lookup: it is too old, has ended, or is yet to happen.
    Stale,
}

impl Found {
    /// What is known of pick `pick` for row `row`. A null that the selection has filled is present.
    pub fn status(&self, row: usize, pick: usize) -> Status {
        let is_in = |rows: &[u32]| u32::try_from(row).is_ok_and(|row| rows.binary_search(&row).is_ok());
        if is_in(&self.stale) {
            Status::Stale
        } else if is_in(&self.missing) {
            Status::Missing
        } else if self.columns.get(pick).is_none_or(|column| row >= column.len() || column.is_null(row)) {
            Status::Null
        } else {
            Status::Present
        }
    }
}

/// Moves the cells of `rows` into columns: one buffer per width, cut into its columns.
#[inline]
pub(crate) fn gather<'a>(
    selection: &'a Selection,
    rows: impl ExactSizeIterator<Item = Option<PackedRow<'a>>>,
) -> Found {
    let mut found = Found {
        columns: Vec::with_capacity(selection.picks.len()),
        missing: SmallVec::new(),
        stale: SmallVec::new(),
        faults: SmallVec::new(),
        events: None,
    };
    let mut packed: SmallVec<[PackedRow<'a>; 32]> = SmallVec::with_capacity(rows.len());
    let mut with_null: SmallVec<[u32; 8]> = SmallVec::new();
    for (number, row) in rows.enumerate() {
        match &row {
            Some(row) if selection.has_null(row.bytes) => with_null.push(number as u32),
            Some(_) => {}
            None => found.missing.push(number as u32),
        }
        packed.push(row.unwrap_or(PackedRow { bytes: &selection.zeros, arena: "" }));
    }
    let mut cells = Cells::read(selection, &packed);
    let mut validity = Validity { rows: packed.len(), columns: Vec::new() };
    if !found.missing.is_empty() || !with_null.is_empty() {
        fill_gaps(selection, &packed, &with_null, &mut found, &mut cells, &mut validity);
    }
    let buffers = cells.freeze();
    for (number, placed) in selection.picks.iter().enumerate() {
        let column = match placed.place.width {
            Width::Text => text_column(placed, &packed, &found.missing),
            _ => placed.column(&buffers, packed.len(), validity.finish(number)),
        };
        found.columns.push(column);
    }
    found
}

/// Puts right what the moving of cells left zero: cells of missing rows and null cells.
#[cold]
fn fill_gaps(
    selection: &Selection,
    rows: &[PackedRow<'_>],
    with_null: &[u32],
    found: &mut Found,
    cells: &mut Cells,
    validity: &mut Validity,
) {
    for (number, placed) in selection.picks.iter().enumerate() {
        let mut fill = |row: u32, gap: &Gap, null: Option<usize>| match gap {
            Gap::Fail => found.faults.push(Fault { row, null }),
            _ if placed.place.width == Width::Text => {}
            Gap::Fill(Cell(CellValue::Bits(bits))) => cells.set(placed, row as usize, *bits),
            Gap::Null | Gap::Fill(_) => validity.clear(number, row as usize),
        };
        found.missing.iter().for_each(|&row| fill(row, &placed.pick.missing, None));
        for &row in with_null {
            if placed.place.is_null(rows[row as usize].bytes) {
                fill(row, &placed.pick.null, Some(number));
            }
        }
    }
    // Stable: of a row's faults the first pick's comes first.
    found.faults.sort_by_key(|fault| fault.row);
    found.faults.dedup_by_key(|fault| fault.row);
}

/// Cells by width, column after column.
struct Cells {
    rows: usize,
    w8: Vec<u64>,
    w4: Vec<u32>,
    w2: Vec<u16>,
    w1: Vec<u8>,
    bits: Vec<u8>,
}

impl Cells {
    #[inline]
    fn read(selection: &Selection, rows: &[PackedRow<'_>]) -> Self {
        /// Row by row, so that each row is touched once while it is near.
        #[inline]
        fn cells<T: Copy + Default, const N: usize>(
            selection: &Selection,
            picks: &[u32],
            rows: &[PackedRow<'_>],
            cell: fn([u8; N]) -> T,
        ) -> Vec<T> {
            let mut out = vec![T::default(); picks.len() * rows.len()];
            for (row, packed) in rows.iter().enumerate() {
                for (slot, &pick) in picks.iter().enumerate() {
                    let offset = selection.picks[pick as usize].place.offset;
                    out[slot * rows.len() + row] = cell(at(packed.bytes, offset));
                }
            }
            out
        }
        let [w8, w4, w2, w1, bits] = &selection.by_width;
        let stride = rows.len().div_ceil(8);
        let mut truths = vec![0; bits.len() * stride];
        for (slot, &pick) in bits.iter().enumerate() {
            let offset = selection.picks[pick as usize].place.offset;
            for (row, packed) in rows.iter().enumerate() {
                truths[slot * stride + row / 8] |= packed.bytes[offset] << (row % 8);
            }
        }
        Self {
            rows: rows.len(),
            w8: cells(selection, w8, rows, u64::from_le_bytes),
            w4: cells(selection, w4, rows, u32::from_le_bytes),
            w2: cells(selection, w2, rows, u16::from_le_bytes),
            w1: cells(selection, w1, rows, u8::from_le_bytes),
            bits: truths,
        }
    }

    fn set(&mut self, placed: &Placed, row: usize, bits: u64) {
        let at = placed.slot * self.rows + row;
        match placed.place.width {
            Width::W8 => self.w8[at] = bits,
            Width::W4 => self.w4[at] = bits as u32,
            Width::W2 => self.w2[at] = bits as u16,
            Width::W1 => self.w1[at] = bits as u8,
            Width::Bit => {
                self.bits[placed.slot * self.rows.div_ceil(8) + row / 8] |= (bits as u8) << (row % 8)
            }
            Width::Text => {}
        }
    }

    /// One buffer per width that occurs.
    fn freeze(self) -> [Option<Buffer>; 5] {
        fn buffer<T: arrow::datatypes::ArrowNativeType>(cells: Vec<T>) -> Option<Buffer> {
            (!cells.is_empty()).then(|| Buffer::from_vec(cells))
        }
        [buffer(self.w8), buffer(self.w4), buffer(self.w2), buffer(self.w1), buffer(self.bits)]
    }
}

impl Placed {
    /// This pick's part of the buffer of its width, as a column.
    #[inline]
    fn column(&self, buffers: &[Option<Buffer>; 5], rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
        // Only a lookup of no rows has no buffer.
        let part = |start: usize, bytes: usize| {
            buffers[self.width]
                .as_ref()
                .map_or_else(Buffer::default, |all| all.slice_with_length(start, bytes))
        };
        if self.data_type == DataType::Boolean {
            let bytes = rows.div_ceil(8);
            let bits = BooleanBuffer::new(part(self.slot * bytes, bytes), 0, rows);
            return Arc::new(BooleanArray::new(bits, nulls));
        }
        with_primitive!(&self.data_type, T => {
            let bytes = rows * self.place.width.bytes();
            let values = ScalarBuffer::<<T as ArrowPrimitiveType>::Native>::from(part(self.slot * bytes, bytes));
            let array = PrimitiveArray::<T>::new(values, nulls);
            match &self.data_type {
                zoned @ DataType::Timestamp(_, Some(_)) => Arc::new(array.with_data_type(zoned.clone())),
                _ => Arc::new(array),
            }
        }, _ => arrow::array::new_null_array(&self.data_type, rows))
    }
}

/// A text column, gaps included: texts have no cells that could be put right afterwards.
fn text_column(placed: &Placed, rows: &[PackedRow<'_>], missing: &[u32]) -> ArrayRef {
    let texts = || rows.iter().map(|row| TextAt::unpack(placed.place.get(row.bytes)));
    let mut column = StringBuilder::with_capacity(rows.len(), texts().map(|text| text.len).sum());
    let mut missing = missing.iter().copied().peekable();
    for (number, (row, text)) in rows.iter().zip(texts()).enumerate() {
        let gap = if missing.next_if_eq(&(number as u32)).is_some() {
            &placed.pick.missing
        } else if placed.place.is_null(row.bytes) {
            &placed.pick.null
        } else {
            column.append_value(text.of(row.arena));
            continue;
        };
        match gap {
            Gap::Fill(Cell(CellValue::Text(text))) => column.append_value(text),
            Gap::Null => column.append_null(),
            // A faulty row is cut out by whoever asked; until then its column must be what its schema says.
            Gap::Fail | Gap::Fill(_) => column.append_value(""),
        }
    }
    Arc::new(column.finish())
}

/// Which rows of which columns are null; empty as long as none is.
struct Validity {
    rows: usize,
    columns: Vec<Option<BooleanBufferBuilder>>,
}

impl Validity {
    fn clear(&mut self, column: usize, row: usize) {
        if self.columns.len() <= column {
            self.columns.resize_with(column + 1, || None);
        }
        let rows = self.rows;
        let valid = self.columns[column].get_or_insert_with(|| {
            let mut valid = BooleanBufferBuilder::new(rows);
            valid.append_n(rows, true);
            valid
        });
        valid.set_bit(row, false);
    }

    #[inline]
    fn finish(&mut self, column: usize) -> Option<NullBuffer> {
        let valid = self.columns.get_mut(column)?.as_mut()?;
        Some(NullBuffer::new(valid.finish()))
    }
}
