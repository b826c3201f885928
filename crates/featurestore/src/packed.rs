//! Packed rows in one piece of memory, and the texts that they point to.

use arrow::array::{Array, ArrayRef};

use crate::{
    cell::{each_bits, texts},
    gather::PackedRow,
    index::ABSENT,
    layout::{Layout, Place, TextAt},
    profile::Tally,
};

/// Rows of one stride, and the texts they point to.
#[derive(Debug, Default)]
pub(crate) struct PackedRows {
    stride: usize,
    bytes: Vec<u8>,
    arena: String,
}

/// A text that has more bytes than a row can point to.
pub(crate) struct TextTooLong {
    pub(crate) row: usize,
    pub(crate) bytes: usize,
}

impl PackedRows {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { stride: layout.stride(), ..Self::default() }
    }

    #[inline]
    pub(crate) fn row(&self, row: u32) -> PackedRow<'_> {
        PackedRow::new(self.row_bytes(row), &self.arena)
    }

    #[inline]
    fn row_bytes(&self, row: u32) -> &[u8] {
        let start = row as usize * self.stride;
        &self.bytes[start..start + self.stride]
    }

    fn row_mut(&mut self, row: u32) -> &mut [u8] {
        let start = row as usize * self.stride;
        &mut self.bytes[start..start + self.stride]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.stride
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.arena.capacity()
    }

    /// Bytes of memory that rows and texts need.
    pub(crate) fn used(&self) -> usize {
        self.bytes.len() + self.arena.len()
    }

    /// Adds rows of zeros.
    pub(crate) fn grow(&mut self, rows: usize) {
        self.bytes.resize(self.bytes.len() + rows * self.stride, 0);
    }

    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.arena.shrink_to_fit();
    }

    /// Writes a column into the cells at `place` of the rows `slots`, one for each value; [`ABSENT`] stands for none.
    pub(crate) fn write(
        &mut self,
        place: Place,
        column: &ArrayRef,
        slots: &[u32],
    ) -> Result<(), TextTooLong> {
        if let Some(texts) = texts(column) {
            for (at, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != ABSENT) {
                let text = if texts.is_null(at) { "" } else { texts.value(at) };
                let cell = TextAt { offset: self.arena.len(), len: text.len() };
                let Some(bits) = cell.pack() else {
                    return Err(TextTooLong { row: at, bytes: text.len() });
                };
                self.arena.push_str(text);
                place.set(self.row_mut(slot), bits);
            }
        } else {
            each_bits(column, |at, bits| {
                if slots[at] != ABSENT {
                    // A null's cell is zero, whatever stood under it in the source: equal rows have equal bytes.
                    place.set(self.row_mut(slots[at]), if column.is_valid(at) { bits } else { 0 });
                }
            });
        }
        for (at, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != ABSENT) {
            place.set_null(self.row_mut(slot), column.is_null(at));
        }
        Ok(())
    }

    /// Counts a feature in these rows.
    pub(crate) fn tally(&self, rows: impl Iterator<Item = u32>, tally: &mut Tally) {
        rows.for_each(|row| tally.add(self.row_bytes(row), &self.arena));
    }
}
