//! Windows that were read, as the columns of an answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    Aggregates, Counts, Found, Ledger, Selection, Values,
    cell::CellValue,
    gather::{PackedRow, gather},
    layout::{Layout, TextAt},
};

/// What is counted while a table is open.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) too_late: AtomicU64,
    pub(crate) not_a_number: AtomicU64,
    overflows: AtomicU64,
}

impl Counters {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            too_late: self.too_late.load(Relaxed),
            not_a_number: self.not_a_number.load(Relaxed),
            overflows: self.overflows.load(Relaxed),
            ..Counts::default()
        }
    }
}

/// The windows of the keys of a batch at one time.
pub(crate) struct Reading<'a> {
    of: &'a Aggregates,
    at: i64,
    rows: Vec<Option<Values>>,
    /// Rows whose keys are known, but not as they were at that time.
    stale: Vec<u32>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(of: &'a Aggregates, at: i64, rows: usize) -> Self {
        Self { of, at, rows: Vec::with_capacity(rows), stale: Vec::new() }
    }

    /// Windows that have been read already.
    #[cfg(feature = "offline")]
    pub(crate) fn of_values(of: &'a Aggregates, rows: Vec<Option<Values>>) -> Self {
        Self { of, at: 0, rows, stale: Vec::new() }
    }

    /// Reads the next row's windows.
    pub(crate) fn push(&mut self, ledger: Option<&Ledger>) {
        let values = ledger.map(|ledger| ledger.read(self.of, self.at));
        if let Some(Err(_)) = &values {
            self.stale.push(self.rows.len() as u32);
        }
        self.rows.push(values.and_then(Result::ok));
    }

    /// The columns that `selection` reads of the windows.
    pub(crate) fn found(self, selection: &Selection, counters: &Counters) -> Found {
        let layout = Layout::of(self.of.columns());
        let stride = layout.stride();
        let (mut bytes, mut texts) = (vec![0; self.rows.len() * stride], String::new());
        for (values, row) in self.rows.iter().zip(bytes.chunks_exact_mut(stride)) {
            for (cell, place) in values.iter().flat_map(|values| &values.cells).zip(layout.places()) {
                let bits = match cell.as_ref().map(|cell| &cell.0) {
                    Some(CellValue::Bits(bits)) => Some(*bits),
                    Some(CellValue::Text(text)) => {
                        let at = TextAt { offset: texts.len(), len: text.len() };
                        texts.push_str(text);
                        // A text that came in fits a cell.
                        at.pack()
                    }
                    None => None,
                };
                match bits {
                    Some(bits) => place.set(row, bits),
                    None => place.set_null(row, true),
                }
            }
        }
        let overflows: usize = self.rows.iter().flatten().map(|values| values.overflows).sum();
        counters.overflows.fetch_add(overflows as u64, Relaxed);
        let rows = self.rows.iter().zip(bytes.chunks_exact(stride));
        let rows = rows.map(|(values, row)| values.as_ref().map(|_| PackedRow::new(row, &texts)));
        let mut found = gather(selection, rows);
        found.stale = self.stale.into();
        found
    }
}
