//! Values of many rows, packed as stores keep them.

use arrow::array::{Array, ArrayRef, StringArray};

use super::incoming::{refuse, too_long};
use crate::{
    RowProblem,
    cell::{each_bits, texts},
    layout::{Layout, TextAt},
    set::Column,
};

/// Cells, row after row, and the texts that they point to.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Bytes of a row.
    fixed: usize,
    bytes: Vec<u8>,
    texts: String,
    text_ends: Vec<usize>,
}

impl Packed {
    pub(super) fn new(rows: usize, fixed: usize) -> Self {
        let (bytes, text_ends) = (vec![0; rows * fixed], Vec::with_capacity(rows));
        Self { fixed, bytes, texts: String::new(), text_ends }
    }

    pub(super) fn row(&self, row: usize) -> (&[u8], &str) {
        let text = &self.texts[start(&self.text_ends, row)..self.text_ends[row]];
        (&self.bytes[row * self.fixed..(row + 1) * self.fixed], text)
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.bytes[row * self.fixed..(row + 1) * self.fixed]
    }

    /// The bytes of every row.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(self.fixed)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.texts.len()
    }

    /// Writes the values of `columns`, behind the first `head` bytes of each row.
    pub(super) fn fill(
        &mut self,
        (layout, head): (&Layout, usize),
        columns: (&[Column], &[ArrayRef]),
        refused: &mut [Option<RowProblem>],
    ) {
        self.fill_cells((layout, head), columns.1);
        self.fill_texts((layout, head), columns, refused);
    }

    /// Cells of fixed width, column by column. A null's cell is zero, whatever stood under it: equal rows have equal bytes.
    fn fill_cells(&mut self, (layout, head): (&Layout, usize), columns: &[ArrayRef]) {
        for (column, place) in columns.iter().zip(layout.places()) {
            each_bits(column, |row, bits| {
                if column.is_valid(row) {
                    place.set(&mut self.row_mut(row)[head..], bits);
                }
            });
            for row in (0..column.len()).filter(|&row| column.is_null(row)) {
                place.set_null(&mut self.row_mut(row)[head..], true);
            }
        }
    }

    /// Texts row by row, because the texts of a row lie together.
    fn fill_texts(
        &mut self,
        (layout, head): (&Layout, usize),
        (names, columns): (&[Column], &[ArrayRef]),
        refused: &mut [Option<RowProblem>],
    ) {
        let columns: Vec<(usize, &StringArray)> =
            columns.iter().enumerate().filter_map(|(column, array)| Some((column, texts(array)?))).collect();
        for row in 0..refused.len() {
            let start = self.texts.len();
            for &(column, texts) in columns.iter().filter(|(_, texts)| texts.is_valid(row)) {
                let text = texts.value(row);
                let at = TextAt { offset: self.texts.len() - start, len: text.len() };
                match at.pack() {
                    Some(bits) if refused[row].is_none() => {
                        self.texts.push_str(text);
                        layout.place(column).set(&mut self.row_mut(row)[head..], bits);
                    }
                    Some(_) => {}
                    None => {
                        let name = &names[column].name;
                        refuse(refused, row, || too_long(name, text.len(), TextAt::LONGEST));
                    }
                }
            }
            self.text_ends.push(self.texts.len());
        }
    }
}

/// Where the part of row `row` starts, when parts end at `ends`.
pub(super) fn start(ends: &[usize], row: usize) -> usize {
    row.checked_sub(1).map_or(0, |before| ends[before])
}
