//! The packed row: a null bitmap, then one fixed-width cell per feature, the widest first.
//!
//! All features of a row lie next to each other, so reading many features of one key touches one or two cache lines
//! where columns would touch one per feature. A text's cell says where the text lies in an arena beside the rows.

use crate::{Column, cell::Width};

/// Where each feature's cell lies in a row. A function of the definition alone, so that rows written by one process are
/// read by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    cells: Box<[Place]>,
    stride: usize,
}

/// Where one feature's cell lies in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) width: Width,
    /// Byte offset in the row.
    pub(crate) offset: usize,
    /// Number of the feature's bit in the null bitmap; set means null.
    pub(crate) null: usize,
}

impl Layout {
    pub(crate) fn of(features: &[Column]) -> Self {
        let mut cells: Vec<Place> = features
            .iter()
            .enumerate()
            // A definition has only types with a width.
            .map(|(null, feature)| Place {
                width: Width::of(&feature.data_type).unwrap_or(Width::W8),
                offset: 0,
                null,
            })
            .collect();
        let mut offset = features.len().div_ceil(64) * 8;
        for bytes in [8, 4, 2, 1] {
            for place in cells.iter_mut().filter(|place| place.width.bytes() == bytes) {
                place.offset = offset;
                offset += bytes;
            }
        }
        Self { cells: cells.into(), stride: offset.next_multiple_of(8) }
    }

    /// Bytes of a row; a multiple of eight.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where feature `feature` lies.
    pub(crate) fn place(&self, feature: usize) -> Place {
        self.cells[feature]
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.cells
    }
}

impl Place {
    /// Whether the cell is null in `row`.
    #[inline]
    pub(crate) fn is_null(self, row: &[u8]) -> bool {
        row[self.null / 8] >> (self.null % 8) & 1 == 1
    }

    /// Marks the cell null, or not null any more.
    pub(crate) fn set_null(self, row: &mut [u8], null: bool) {
        let bit = 1 << (self.null % 8);
        if null { row[self.null / 8] |= bit } else { row[self.null / 8] &= !bit }
    }

    /// The cell's bits.
    #[inline]
    pub(crate) fn get(self, row: &[u8]) -> u64 {
        match self.width.bytes() {
            8 => u64::from_le_bytes(at(row, self.offset)),
            4 => u64::from(u32::from_le_bytes(at(row, self.offset))),
            2 => u64::from(u16::from_le_bytes(at(row, self.offset))),
            _ => u64::from(row[self.offset]),
        }
    }

    /// Writes the cell's bits.
    #[inline]
    pub(crate) fn set(self, row: &mut [u8], bits: u64) {
        let bytes = self.width.bytes();
        row[self.offset..self.offset + bytes].copy_from_slice(&bits.to_le_bytes()[..bytes]);
    }
}

/// The `N` bytes at `offset`.
#[inline]
pub(crate) fn at<const N: usize>(row: &[u8], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&row[offset..offset + N]);
    bytes
}

/// Where a text lies in the arena: 40 bits of offset, 24 bits of length, in one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextAt {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl TextAt {
    /// The longest text a cell can point to: 16 MiB less one byte.
    pub(crate) const LONGEST: usize = (1 << 24) - 1;
    const FARTHEST: usize = (1 << 40) - 1;

    pub(crate) fn pack(self) -> Option<u64> {
        let fits = self.len <= Self::LONGEST && self.offset <= Self::FARTHEST;
        fits.then_some((self.offset as u64) << 24 | self.len as u64)
    }

    pub(crate) fn unpack(bits: u64) -> Self {
        Self { offset: (bits >> 24) as usize, len: (bits & Self::LONGEST as u64) as usize }
    }

    /// The text; empty where the arena has none, which a sound row never says.
    #[inline]
    pub(crate) fn of(self, arena: &str) -> &str {
        arena.get(self.offset..self.offset + self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::FeatureSet;

    #[test]
    fn cells_do_not_overlap_and_keep_their_bits() {
        let types = [
            DataType::Boolean,
            DataType::Float32,
            DataType::Int64,
            DataType::UInt8,
            DataType::Utf8,
            DataType::Int16,
        ];
        let builder = (0..130).fold(FeatureSet::builder("wide").key("id", DataType::Int64), |builder, i| {
            builder.feature(format!("f{i}"), types[i % types.len()].clone())
        });
        let layout = Layout::of(builder.build().unwrap().features());
        let mut row = vec![0_u8; layout.stride()];
        let bits = |i: usize, place: &Place| {
            (i as u64 * 0x0101_0101_0101_0101) & (u64::MAX >> (64 - 8 * place.width.bytes()))
        };
        for (i, place) in layout.places().iter().enumerate() {
            place.set(&mut row, bits(i, place));
            place.set_null(&mut row, i % 3 == 0);
        }
        for (i, place) in layout.places().iter().enumerate() {
            assert_eq!(place.get(&row), bits(i, place), "cell {i}");
            assert_eq!(place.is_null(&row), i % 3 == 0, "null {i}");
            assert_eq!(place.offset % place.width.bytes(), 0, "alignment {i}");
        }
    }

    #[test]
    fn where_a_text_lies_fits_one_cell_up_to_the_bounds() {
        for text in [TextAt { offset: 0, len: 0 }, TextAt { offset: (1 << 40) - 1, len: TextAt::LONGEST }] {
            assert_eq!(text.pack().map(TextAt::unpack), Some(text));
        }
        assert_eq!(TextAt { offset: 0, len: TextAt::LONGEST + 1 }.pack(), None);
        assert_eq!(TextAt { offset: 1 << 40, len: 0 }.pack(), None);
    }
}
