//! Events as rows of words, packed one after another.

use std::{ops::Range, sync::Arc};

use super::word::{signed_of, word_of_signed};
use crate::Version;

/// Where the words of an event stand in its row: the event time, then created time and sequence if anything asks for the
/// order of events, then a bit for each lane, then the cells.
///
/// Compared word by word, rows have the order of their versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether rows know created time and sequence.
    pub(super) versioned: bool,
    /// How many lanes there are.
    pub(super) lanes: usize,
    /// How many cells.
    pub(super) cells: usize,
    /// How many texts stand beside the words.
    pub(super) texts: usize,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) words: &'a [u64],
    pub(super) texts: &'a [Option<Arc<str>>],
}

impl Row<'_> {
    /// When it happened.
    pub(super) fn event(self) -> i64 {
        event_of(self.words)
    }
}

fn event_of(words: &[u64]) -> i64 {
    words.first().map_or(i64::MIN, |&word| signed_of(word))
}

impl Layout {
    /// Words of a row.
    pub(super) fn width(&self) -> usize {
        self.time() + self.body()
    }

    /// Words that come from the event's columns: bits of lanes, and cells.
    pub(super) fn body(&self) -> usize {
        self.lane_words() + self.cells
    }

    pub(super) fn lane_words(&self) -> usize {
        self.lanes.div_ceil(64)
    }

    /// Words of the version.
    pub(super) fn time(&self) -> usize {
        if self.versioned { 3 } else { 1 }
    }

    /// The version as words; the first [`Layout::time`] of them stand in a row.
    pub(super) fn version_words(version: Version) -> [u64; 3] {
        // Absent is the smallest word, which no created time has but the one 292 000 years before 1970.
        let created = version.created.map_or(0, word_of_signed);
        [word_of_signed(version.event), created, version.sequence]
    }

    /// The row's version, for layouts that know it.
    pub(super) fn version(&self, row: Row<'_>) -> [u64; 3] {
        match row.words {
            [event, created, sequence, ..] if self.versioned => [*event, *created, *sequence],
            [event, ..] => [*event, 0, 0],
            [] => [0; 3],
        }
    }

    /// Whether the row counts in `lane`.
    pub(super) fn counts(&self, row: Row<'_>, lane: usize) -> bool {
        row.words[self.time() + lane / 64] >> (lane % 64) & 1 == 1
    }

    pub(super) fn cell(&self, row: Row<'_>, cell: usize) -> u64 {
        row.words[self.time() + self.lane_words() + cell]
    }
}

/// Some events in order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    words: Vec<u64>,
    texts: Vec<Option<Arc<str>>>,
    /// So many of the first rows are gone; moving the rest forward each time would cost more than their bytes.
    gone: usize,
}

impl Rows {
    /// Rows that are there.
    pub(super) fn len(&self, layout: &Layout) -> usize {
        self.held(layout) - self.gone
    }

    /// Rows whose bytes are there.
    pub(super) fn held(&self, layout: &Layout) -> usize {
        self.words.len() / layout.width()
    }

    pub(super) fn row(&self, layout: &Layout, index: usize) -> Row<'_> {
        let index = self.gone + index;
        let (width, texts) = (layout.width(), layout.texts);
        Row {
            words: &self.words[index * width..(index + 1) * width],
            texts: &self.texts[index * texts..(index + 1) * texts],
        }
    }

    pub(super) fn iter<'a>(
        &'a self,
        layout: &'a Layout,
        rows: Range<usize>,
    ) -> impl Iterator<Item = Row<'a>> {
        rows.map(|row| self.row(layout, row))
    }

    /// The number of rows that happened before `event`.
    pub(super) fn before(&self, layout: &Layout, event: i64) -> usize {
        self.partition(layout, |at| at < event)
    }

    /// The number of rows that happened at or before `event`.
    pub(super) fn until(&self, layout: &Layout, event: i64) -> usize {
        self.partition(layout, |at| at <= event)
    }

    fn partition(&self, layout: &Layout, inside: impl Fn(i64) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len(layout));
        while low < high {
            let middle = low.midpoint(high);
            if inside(self.row(layout, middle).event()) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Puts a row before the row number `index`.
    pub(super) fn insert(&mut self, layout: &Layout, index: usize, row: Row<'_>) {
        let index = self.gone + index;
        if self.words.len() == self.words.capacity() {
            // Doubled, but to the row: a full leaf has no room left over.
            self.words.reserve_exact(self.words.len().max(layout.width()));
        }
        if index == self.held(layout) {
            self.words.extend_from_slice(row.words);
            self.texts.extend_from_slice(row.texts);
            return;
        }
        let (word, text) = (index * layout.width(), index * layout.texts);
        self.words.splice(word..word, row.words.iter().copied());
        self.texts.splice(text..text, row.texts.iter().cloned());
    }

    pub(super) fn drop_first(&mut self) {
        self.gone += 1;
    }

    /// Gives the bytes of rows that are gone back, if there are `least` of them.
    pub(super) fn compact(&mut self, layout: &Layout, least: usize) -> bool {
        let compacts = self.gone >= least;
        if compacts {
            self.words.drain(..self.gone * layout.width());
            self.texts.drain(..self.gone * layout.texts);
            self.gone = 0;
        }
        compacts
    }

    /// Takes the second half of the rows.
    pub(super) fn split(&mut self, layout: &Layout) -> Self {
        self.compact(layout, 0);
        let half = self.len(layout) / 2;
        let words = self.words.split_off(half * layout.width());
        let texts = self.texts.split_off(half * layout.texts);
        Self { words, texts, gone: 0 }
    }

    /// Bytes held outside the value itself.
    pub(super) fn heap(&self) -> usize {
        let texts: usize = self.texts.iter().flatten().map(|text| text.len()).sum();
        self.words.capacity() * 8 + self.texts.capacity() * size_of::<Option<Arc<str>>>() + texts
    }
}
