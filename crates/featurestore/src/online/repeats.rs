//! Which events a store has taken already: high-water marks of partitions, and a bounded number of event ids.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use super::bytes::{Cursor, put_bytes};

/// Marks and remembered ids.
#[derive(Debug)]
pub(crate) struct Repeats {
    marks: BTreeMap<(Arc<str>, u32), u64>,
    ids: HashSet<Arc<[u8]>>,
    /// The ids in the order in which they came; the oldest is forgotten first.
    order: VecDeque<Arc<[u8]>>,
    max_ids: usize,
}

/// Bytes of the longest event id and of the longest name of a source.
pub(crate) const LONGEST_NAME: usize = 256;

/// Partitions that are told apart, over all sources of a set.
pub(crate) const MAX_PARTITIONS: usize = 65_536;

impl Repeats {
    pub(crate) fn new(max_ids: usize) -> Self {
        Self { marks: BTreeMap::new(), ids: HashSet::new(), order: VecDeque::new(), max_ids }
    }

    pub(crate) fn mark(&self, source: &str, partition: u32) -> Option<u64> {
        self.marks.get(&(Arc::from(source), partition)).copied()
    }

    /// Whether one more partition may be remembered, or this one is.
    pub(crate) fn has_room_for(&self, source: &str, partition: u32) -> bool {
        self.marks.len() < MAX_PARTITIONS || self.mark(source, partition).is_some()
    }

    pub(crate) fn raise(&mut self, source: &str, partition: u32, offset: u64) {
        let mark = self.marks.entry((Arc::from(source), partition)).or_insert(offset);
        *mark = (*mark).max(offset);
    }

    pub(crate) fn knows(&self, id: &[u8]) -> bool {
        self.ids.contains(id)
    }

    pub(crate) fn remember(&mut self, id: &[u8]) {
        let id: Arc<[u8]> = id.into();
        if self.max_ids > 0 && self.ids.insert(Arc::clone(&id)) {
            self.order.push_back(id);
        }
        while self.order.len() > self.max_ids {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_ids);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.marks.len() as u32).to_le_bytes());
        for ((source, partition), offset) in &self.marks {
            put_mark(out, source, *partition, *offset);
        }
        out.extend_from_slice(&(self.order.len() as u32).to_le_bytes());
        self.order.iter().for_each(|id| put_bytes(out, id));
    }

    /// Takes over what was encoded; `None` if it was not.
    pub(crate) fn decode(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        for _ in 0..from.u32()? {
            let (source, partition, offset) = take_mark(from)?;
            self.raise(source, partition, offset);
        }
        for _ in 0..from.u32()? {
            self.remember(from.bytes()?);
        }
        Some(())
    }
}

pub(crate) fn put_mark(out: &mut Vec<u8>, source: &str, partition: u32, offset: u64) {
    put_bytes(out, source.as_bytes());
    out.extend_from_slice(&partition.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
}

pub(crate) fn take_mark<'a>(from: &mut Cursor<'a>) -> Option<(&'a str, u32, u64)> {
    Some((from.text()?, from.u32()?, from.u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ids_are_forgotten_first_and_marks_only_rise() {
        let mut repeats = Repeats::new(2);
        ["a", "b", "b", "c"].iter().for_each(|id| repeats.remember(id.as_bytes()));
        repeats.raise("s", 1, 9);
        repeats.raise("s", 1, 4);
        let mut bytes = Vec::new();
        repeats.encode(&mut bytes);
        let mut read = Repeats::new(2);
        read.decode(&mut Cursor(&bytes)).unwrap();
        for repeats in [repeats, read] {
            let known = ["a", "b", "c"].map(|id| repeats.knows(id.as_bytes()));
            assert_eq!(known, [false, true, true]);
            assert_eq!((repeats.mark("s", 1), repeats.mark("s", 0)), (Some(9), None));
        }
        for cut in 0..bytes.len() {
            assert!(Repeats::new(2).decode(&mut Cursor(&bytes[..cut])).is_none(), "cut at {cut}");
        }
    }
}
