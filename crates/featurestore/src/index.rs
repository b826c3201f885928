//! The hash index of an in-memory table: keys to row numbers.

use ahash::RandomState;
use arrow::array::{Array, ArrayRef};
use hashbrown::HashTable;

use crate::{
    key::{Given, KeyKind, each_int, encode},
    store::LookupError,
};

/// The row number of a key that no row has. Tables stay below this many rows.
pub(crate) const ABSENT: u32 = u32::MAX;

/// Row numbers by key. A single integer-like key lies in the hash table itself: one probe, one cache line; every other
/// key is bytes in an arena beside it.
#[derive(Debug)]
pub(crate) struct Index {
    kinds: Box<[KeyKind]>,
    hasher: RandomState,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    Ints(HashTable<(u64, u32)>),
    Bytes { spans: HashTable<Span>, arena: Vec<u8> },
}

/// Where a key's bytes lie in the arena, and the row it stands for.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    len: u32,
    row: u32,
}

impl Span {
    fn bytes(self, arena: &[u8]) -> &[u8] {
        let start = self.start as usize;
        arena.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// What became of one row's key on insertion.
pub(crate) enum Inserted {
    /// The key is null, or no key at all.
    Null,
    /// The key is new and stands for this row now.
    New(u32),
    /// The key was there and stands for this row.
    Known(u32),
}

impl Index {
    pub(crate) fn new(kinds: Box<[KeyKind]>) -> Self {
        let entries = match *kinds {
            [KeyKind::Signed | KeyKind::Unsigned | KeyKind::Exact] => Entries::Ints(HashTable::new()),
            _ => Entries::Bytes { spans: HashTable::new(), arena: Vec::new() },
        };
        Self { kinds, hasher: RandomState::new(), entries }
    }

    /// The row of every key, [`ABSENT`] where there is none.
    #[inline]
    pub(crate) fn find(&self, columns: &[&ArrayRef], mut sink: impl FnMut(u32)) -> Result<(), LookupError> {
        match (&self.entries, columns) {
            (Entries::Ints(table), [column]) => each_int(*column, self.kinds[0], |_, given| {
                let row = match given {
                    Given::Key(key) => table.find(self.hasher.hash_one(key), |entry| entry.0 == key),
                    Given::Null | Given::Never => None,
                };
                sink(row.map_or(ABSENT, |entry| entry.1));
            }),
            (Entries::Bytes { spans, arena }, columns) => encode(columns, &self.kinds, |_, given| {
                let row = match given {
                    Given::Key(key) => spans
                        .find(self.hasher.hash_one(key), |span| span.bytes(arena) == key)
                        .map(|span| span.row),
                    Given::Null | Given::Never => None,
                };
                sink(row.unwrap_or(ABSENT));
            }),
            (Entries::Ints(_), _) => Err(LookupError::KeyCount { wanted: 1, got: columns.len() }),
        }
    }

    /// Gives every key that is not there yet the next row number, and says what became of each.
    pub(crate) fn insert(
        &mut self,
        columns: &[&ArrayRef],
        mut next: u32,
        mut sink: impl FnMut(usize, Inserted),
    ) -> Result<(), LookupError> {
        let hasher = &self.hasher;
        match (&mut self.entries, columns) {
            (Entries::Ints(table), [column]) => {
                table.reserve(column.len(), |entry| hasher.hash_one(entry.0));
                each_int(*column, self.kinds[0], |at, given| {
                    let Given::Key(key) = given else { return sink(at, Inserted::Null) };
                    let hash = hasher.hash_one(key);
                    match table.find(hash, |entry| entry.0 == key) {
                        Some(entry) => sink(at, Inserted::Known(entry.1)),
                        None => {
                            table.insert_unique(hash, (key, next), |entry| hasher.hash_one(entry.0));
                            sink(at, Inserted::New(next));
                            next += 1;
                        }
                    }
                })
            }
            (Entries::Bytes { spans, arena }, columns) => encode(columns, &self.kinds, |at, given| {
                let Given::Key(key) = given else { return sink(at, Inserted::Null) };
                let hash = hasher.hash_one(key);
                match spans.find(hash, |span| span.bytes(arena) == key) {
                    Some(span) => sink(at, Inserted::Known(span.row)),
                    None => {
                        let span = Span { start: arena.len() as u64, len: key.len() as u32, row: next };
                        arena.extend_from_slice(key);
                        spans.insert_unique(hash, span, |span| hasher.hash_one(span.bytes(arena)));
                        sink(at, Inserted::New(next));
                        next += 1;
                    }
                }
            }),
            (Entries::Ints(_), _) => Err(LookupError::KeyCount { wanted: 1, got: columns.len() }),
        }
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        match &self.entries {
            Entries::Ints(table) => table.allocation_size(),
            Entries::Bytes { spans, arena } => spans.allocation_size() + arena.capacity(),
        }
    }

    pub(crate) fn shrink(&mut self) {
        if let Entries::Bytes { arena, .. } = &mut self.entries {
            arena.shrink_to_fit();
        }
    }
}
