//! Where values wait, column by column, until the body has been read to its end.

use std::cell::Cell;

use super::plan::{Kind, Layout, Node};
use crate::wire::{DecodeCode, DecodeError, DecodeLimits};

/// A thread keeps its slots for the next body unless they grew beyond this many bytes.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    /// The slots know no schema, so that all decoders of a thread share them.
    static SPARE: Cell<Option<Vec<Slot>>> = const { Cell::new(None) };
}

/// The values of one column so far.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Values in native byte order, one byte for each bool, or all texts in a row.
    pub(super) values: Vec<u8>,
    /// Where each text or list ends.
    pub(super) ends: Vec<i32>,
    /// Which rows are null.
    pub(super) nulls: Vec<usize>,
    /// The number of rows, null or not.
    pub(super) len: usize,
    /// Where values, offsets and nulls lie once they are gathered, in bytes.
    pub(super) values_at: usize,
    pub(super) ends_at: usize,
    pub(super) nulls_at: usize,
}

impl Slot {
    fn clear(&mut self) {
        self.values.clear();
        self.ends.clear();
        self.nulls.clear();
        self.len = 0;
        // An empty column points at the start of the buffer, wherever an earlier body's column lay.
        (self.values_at, self.ends_at, self.nulls_at) = (0, 0, 0);
    }

    /// Appends the rows of another body's slot of the same column.
    pub(super) fn append(&mut self, more: &Slot) {
        let end = self.ends.last().copied().unwrap_or(0);
        self.ends.extend(more.ends.iter().map(|&more| end + more));
        self.nulls.extend(more.nulls.iter().map(|&row| self.len + row));
        self.values.extend_from_slice(&more.values);
        self.len += more.len;
    }

    fn kept_bytes(&self) -> usize {
        self.values.capacity() + 4 * self.ends.capacity() + 8 * self.nulls.capacity()
    }

    pub(super) fn push<const N: usize>(&mut self, value: [u8; N]) {
        self.values.extend_from_slice(&value);
        self.len += 1;
    }

    /// Ends the text whose bytes were just appended to `values`.
    pub(super) fn end_text(&mut self) {
        self.end_list(self.values.len());
    }

    /// Ends a list: its items are those up to `end`.
    pub(super) fn end_list(&mut self, end: usize) {
        // Every item took at least one byte of a body of less than 2 GiB.
        self.ends.push(end as i32);
        self.len += 1;
    }
}

/// The slots of one body, which go back to their thread when they are dropped.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// How many of them are in use.
    used: usize,
}

impl Slots {
    fn new(layouts: &[Layout]) -> Self {
        let mut slots = SPARE.take().unwrap_or_default();
        if slots.len() < layouts.len() {
            slots.resize_with(layouts.len(), Slot::default);
        }
        slots[..layouts.len()].iter_mut().for_each(Slot::clear);
        Self { slots, used: layouts.len() }
    }
}

impl std::ops::Deref for Slots {
    type Target = [Slot];

    fn deref(&self) -> &[Slot] {
        &self.slots[..self.used]
    }
}

impl std::ops::DerefMut for Slots {
    fn deref_mut(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.used]
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // Only the slots in use can have grown; those of other decoders were measured when they were.
        let kept: usize = self.iter().map(Slot::kept_bytes).sum();
        if self.used > 0 && kept <= KEPT_BYTES {
            SPARE.set(Some(std::mem::take(&mut self.slots)));
        }
    }
}

/// What reading one body needs: the slots, the bounds, and the fault once there is one.
pub(super) struct Reading<'l> {
    pub(super) slots: Slots,
    pub(super) limits: &'l DecodeLimits,
    pub(super) fault: Option<DecodeError>,
    /// Where the fault is, innermost first.
    path: Vec<Segment>,
    absent_bytes: usize,
}

pub(super) enum Segment {
    Field(String),
    Item(usize),
}

impl<'l> Reading<'l> {
    pub(super) fn new(layouts: &[Layout], limits: &'l DecodeLimits) -> Self {
        Self { slots: Slots::new(layouts), limits, fault: None, path: Vec::new(), absent_bytes: 0 }
    }

    /// Puts a null where a value is absent, and something to lie under it.
    pub(super) fn push_absent(&mut self, node: &Node) -> Result<(), DecodeError> {
        self.absent_bytes = self.absent_bytes.saturating_add(node.absent_bytes);
        if self.absent_bytes > self.limits.absent_bytes {
            let message = format!("absent values need more than {} bytes", self.limits.absent_bytes);
            return Err(DecodeError::new(DecodeCode::TooLarge, message));
        }
        self.pad(node);
        Ok(())
    }

    /// One row that means nothing: null where it may be.
    fn pad(&mut self, node: &Node) {
        let slot = &mut self.slots[node.slot];
        if node.nullable {
            slot.nulls.push(slot.len);
        }
        slot.len += 1;
        match &node.kind {
            Kind::Bool => slot.values.push(0),
            Kind::Text | Kind::FreeForm | Kind::Binary(None) | Kind::List(_) => {
                slot.ends.push(slot.ends.last().copied().unwrap_or(0));
            }
            Kind::Int(_)
            | Kind::Float(_)
            | Kind::Timestamp(_)
            | Kind::Date
            | Kind::Decimal { .. }
            | Kind::Binary(Some(_)) => {
                slot.values.resize(slot.values.len() + node.absent_bytes, 0);
            }
            Kind::Tensor(item, size) => (0..*size).for_each(|_| self.pad(item)),
            Kind::Struct(record) => record.nodes.iter().for_each(|node| self.pad(node)),
        }
    }

    /// Notes, on the way out of a fault, where it was.
    pub(super) fn within(&mut self, segment: Segment) {
        self.path.push(segment);
    }

    /// The place of the fault within its row, as `items[3].price`.
    pub(super) fn place(&self) -> Option<String> {
        let mut place = String::new();
        for segment in self.path.iter().rev() {
            match segment {
                Segment::Field(name) if place.is_empty() => place.push_str(name),
                Segment::Field(name) => place.extend([".", name]),
                Segment::Item(index) => place += &format!("[{index}]"),
            }
        }
        Some(place).filter(|place| !place.is_empty())
    }
}
