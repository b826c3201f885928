//! The rows in memory: a hash index into packed rows, in shards of one lock each.
//!
//! A lock is held while rows are found and copied, or while one row is put in place; never while anything waits.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ahash::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use smallvec::SmallVec;

use super::key_windows::{Event, KeyWindows};
use crate::{
    Aggregates, Ledger,
    online::{
        expiry::Expiry,
        row::{Copied, Head, Row},
    },
};

/// Many, so that what is done with a whole shard is done soon.
const SHARDS: usize = 128;

/// Rows of one allocation: growing moves no rows.
const CHUNK: usize = 16;

/// When windows that kept a row from going are looked at again: microseconds.
const AGAIN: i64 = 1_000_000;

/// Integer keys and short texts lie in the index itself.
type Key = SmallVec<[u8; 16]>;

/// All rows of a set.
#[derive(Debug)]
pub(crate) struct Shards {
    hasher: RandomState,
    fixed: usize,
    windows: Option<Arc<Aggregates>>,
    shards: Box<[RwLock<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Keys and the numbers of their rows.
    index: HashTable<(Key, u32)>,
    chunks: Vec<Box<[u8]>>,
    /// The texts of each row; empty for sets without.
    texts: Vec<Box<str>>,
    /// The windows of each row; empty for sets without.
    windows: Vec<Option<Box<KeyWindows>>>,
    free: Vec<u32>,
    rows: u32,
}

/// What became of a row that was put to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there now, or in the windows of its key; this many bytes more are taken, or fewer.
    Taken(isize),
    Older,
    TooLate,
}

impl Shards {
    pub(crate) fn new(fixed: usize, windows: Option<Arc<Aggregates>>) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher: RandomState::new(), fixed, windows, shards }
    }

    /// What the windows are, for sets with windows.
    pub(crate) fn windows(&self) -> Option<&Aggregates> {
        self.windows.as_deref()
    }

    /// Bytes of a row's fixed part.
    pub(crate) fn fixed(&self) -> usize {
        self.fixed
    }

    /// Copies the row of a key to `out`.
    #[inline]
    pub(crate) fn copy(&self, key: &[u8], out: &mut Copied) {
        self.copy_with(key, out, |_| ());
    }

    /// Copies the row of a key to `out`, and lets its windows be read as they are with that row.
    #[inline]
    pub(crate) fn copy_with(&self, key: &[u8], out: &mut Copied, windows: impl FnOnce(Option<&Ledger>)) {
        let (hash, shard) = self.place(key);
        let shard = read(shard);
        match shard.find(hash, key) {
            Some(slot) => {
                out.push(shard.fixed(slot, self.fixed), shard.text(slot));
                windows(shard.windows(slot).map(|windows| &windows.ledger));
            }
            None => {
                out.missing();
                windows(None);
            }
        }
    }

    /// Before which time events of a key are too late; `None` for one without windows.
    pub(crate) fn horizon(&self, key: &[u8]) -> Option<i64> {
        let (hash, shard) = self.place(key);
        let shard = read(shard);
        shard.windows(shard.find(hash, key)?).map(|windows| windows.ledger.horizon())
    }

    /// Bytes that the row of a key takes, without windows; `None` without row.
    pub(crate) fn cost(&self, key: &[u8]) -> Option<usize> {
        let (hash, shard) = self.place(key);
        let shard = read(shard);
        let slot = shard.find(hash, key)?;
        Some(cost(key.len(), self.fixed, shard.text(slot).len()))
    }

    /// Bytes that a row takes, without windows.
    pub(crate) fn cost_of(&self, row: &Row<'_>) -> usize {
        cost(row.key.len(), self.fixed, row.text.len())
    }

    /// Puts a row to its key: a function of what is there and of the row, so that putting the same rows again, in the same
    /// order, leads to the same state. In a set with windows it is an `event` too, which counts once, by its sequence; without them
    /// the greatest version counts, and rows that come back from a log may be older than those that their key has seen.
    pub(crate) fn put(&self, row: &Row<'_>, event: Option<Event<'_>>) -> Put {
        let (hash, shard) = self.place(row.key);
        let shard = &mut *write(shard);
        let (new, event) = (row.head(), self.windows().zip(event));
        let Some(slot) = shard.find(hash, row.key) else {
            let windows = event.map(|(of, event)| KeyWindows::of(of, event, new.version()));
            let Some(windows) = windows.map_or(Some(None), |windows| windows.map(Some)) else {
                return Put::TooLate;
            };
            return Put::Taken(self.add(shard, hash, row, windows) as isize);
        };
        let known = Head::read(shard.fixed(slot, self.fixed));
        let seen = new.seen.max(known.seen);
        if new.seen <= known.seen && (event.is_some() || new.version() <= known.version()) {
            return Put::Older;
        }
        let added = match (event, shard.windows_mut(slot)) {
            (Some((of, event)), Some(windows)) => Some(windows.add(of, event, new.version())),
            _ => None,
        };
        if added == Some(None) || new.version() < known.version() {
            Head { seen, ..known }.write(shard.fixed_mut(slot, self.fixed));
            return match added {
                None => Put::Older,
                Some(None) => Put::TooLate,
                Some(Some(grown)) => Put::Taken(grown),
            };
        }
        let before = cost(row.key.len(), self.fixed, shard.text(slot).len());
        shard.fixed_mut(slot, self.fixed).copy_from_slice(row.fixed);
        Head { seen, ..new }.write(shard.fixed_mut(slot, self.fixed));
        shard.set_text(slot, row.text);
        Put::Taken(self.cost_of(row) as isize - before as isize + added.flatten().unwrap_or(0))
    }

    /// Puts a row of a snapshot to its key, which has none.
    pub(crate) fn restore(&self, row: &Row<'_>, ledger: Option<Ledger>) {
        let (hash, shard) = self.place(row.key);
        let shard = &mut *write(shard);
        if shard.find(hash, row.key).is_none() {
            self.add(shard, hash, row, ledger.map(KeyWindows::new));
        }
    }

    /// Adds a key; the bytes it takes.
    fn add(&self, shard: &mut Shard, hash: u64, row: &Row<'_>, windows: Option<KeyWindows>) -> usize {
        let bytes = self.cost_of(row) + windows.as_ref().map_or(0, |windows| windows.bytes);
        let slot = shard.add(hash, &self.hasher, row, self.fixed);
        if let Some(windows) = windows {
            let slot = slot as usize;
            shard.windows.resize_with(shard.windows.len().max(slot + 1), || None);
            shard.windows[slot] = Some(Box::new(windows));
        }
        bytes
    }

    /// Removes a key; the bytes that its row took, `None` without row.
    pub(crate) fn remove(&self, key: &[u8]) -> Option<usize> {
        let (hash, shard) = self.place(key);
        let mut shard = write(shard);
        let Entry::Occupied(entry) =
            shard.index.entry(hash, |known| known.0[..] == *key, |known| self.hasher.hash_one(&known.0[..]))
        else {
            return None;
        };
        let ((_, slot), _) = entry.remove();
        Some(shard.release(slot, key.len(), self.fixed))
    }

    /// Removes the rows whose time is over at `at`, and of whose windows nothing is left: the bytes they took, and when the next
    /// one's will be.
    pub(crate) fn evict(&self, expiry: &Expiry, at: i64) -> (usize, i64) {
        let (mut bytes, mut next) = (0_isize, i64::MAX);
        for shard in &self.shards {
            let shard = &mut *write(shard);
            let (Shard { index, chunks, windows, .. }, fixed) = (&mut *shard, self.fixed);
            let over = index.extract_if(|(_, slot)| {
                let head = Head::read(slice(chunks, *slot, fixed));
                if !expiry.is_over(&head, at) {
                    next = next.min(expiry.end(&head));
                    return false;
                }
                let windows = windows.get_mut(*slot as usize).and_then(Option::as_mut);
                let Some((of, windows)) = self.windows.as_deref().zip(windows) else { return true };
                bytes -= windows.forget_before(of, of.horizon(at));
                let over = windows.ledger.is_empty();
                if !over {
                    next = next.min(at.saturating_add(AGAIN));
                }
                over
            });
            let over: Vec<_> = over.collect();
            for (key, slot) in over {
                bytes += shard.release(slot, key.len(), fixed) as isize;
            }
        }
        (bytes.max(0) as usize, next)
    }

    /// Removes everything; how many rows there were.
    pub(crate) fn clear(&self) -> u64 {
        let taken = self.shards.iter().map(|shard| std::mem::take(&mut *write(shard)));
        taken.map(|shard| shard.index.len() as u64).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).index.len()).sum()
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).bytes(self.fixed)).sum()
    }

    /// Every row, shard by shard, each shard at one moment. `each` must not wait.
    pub(crate) fn each_shard(&self) -> impl Iterator<Item = ShardRows<'_>> {
        self.shards.iter().map(|shard| ShardRows { shard: read(shard), fixed: self.fixed })
    }

    #[inline]
    fn place(&self, key: &[u8]) -> (u64, &RwLock<Shard>) {
        let hash = self.hasher.hash_one(key);
        // The index within a shard uses the lowest and the highest bits.
        (hash, &self.shards[(hash >> 40) as usize % SHARDS])
    }
}

/// The rows of one shard, which is locked for as long.
pub(crate) struct ShardRows<'a> {
    shard: RwLockReadGuard<'a, Shard>,
    fixed: usize,
}

impl ShardRows<'_> {
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.entries().map(|(row, _)| row)
    }

    /// Rows and their windows.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Row<'_>, Option<&KeyWindows>)> {
        self.shard.index.iter().map(|(key, slot)| {
            let fixed = self.shard.fixed(*slot, self.fixed);
            (Row { key, fixed, text: self.shard.text(*slot) }, self.shard.windows(*slot))
        })
    }
}

impl Shard {
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(hash, |known| known.0[..] == *key).map(|known| known.1)
    }

    #[inline]
    fn fixed(&self, slot: u32, fixed: usize) -> &[u8] {
        slice(&self.chunks, slot, fixed)
    }

    fn fixed_mut(&mut self, slot: u32, fixed: usize) -> &mut [u8] {
        let start = slot as usize % CHUNK * fixed;
        &mut self.chunks[slot as usize / CHUNK][start..start + fixed]
    }

    #[inline]
    fn text(&self, slot: u32) -> &str {
        self.texts.get(slot as usize).map_or("", |text| text)
    }

    #[inline]
    fn windows(&self, slot: u32) -> Option<&KeyWindows> {
        self.windows.get(slot as usize)?.as_deref()
    }

    fn windows_mut(&mut self, slot: u32) -> Option<&mut KeyWindows> {
        self.windows.get_mut(slot as usize)?.as_deref_mut()
    }

    fn set_text(&mut self, slot: u32, text: &str) {
        match self.texts.get_mut(slot as usize) {
            Some(known) => *known = text.into(),
            None if text.is_empty() => {}
            None => {
                self.texts.resize_with(slot as usize, Box::default);
                self.texts.push(text.into());
            }
        }
    }

    fn add(&mut self, hash: u64, hasher: &RandomState, row: &Row<'_>, fixed: usize) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rows += 1;
            if self.rows as usize > self.chunks.len() * CHUNK {
                self.chunks.push(vec![0; CHUNK * fixed].into());
            }
            self.rows - 1
        });
        self.fixed_mut(slot, fixed).copy_from_slice(row.fixed);
        self.set_text(slot, row.text);
        self.index.insert_unique(hash, (row.key.into(), slot), |known| hasher.hash_one(&known.0[..]));
        slot
    }

    /// Gives a slot back; what lay there is overwritten, because it may have been removed so that nobody finds it.
    fn release(&mut self, slot: u32, key: usize, fixed: usize) -> usize {
        let windows = self.windows.get_mut(slot as usize).and_then(Option::take);
        let bytes = cost(key, fixed, self.text(slot).len()) + windows.map_or(0, |windows| windows.bytes);
        self.fixed_mut(slot, fixed).fill(0);
        self.set_text(slot, "");
        self.free.push(slot);
        bytes
    }

    fn bytes(&self, fixed: usize) -> usize {
        let keys = self.index.iter().filter(|(key, _)| key.spilled()).map(|(key, _)| key.len());
        self.index.allocation_size()
            + keys.sum::<usize>()
            + self.chunks.len() * CHUNK * fixed
            + self.texts.capacity() * size_of::<Box<str>>()
            + self.texts.iter().map(|text| text.len()).sum::<usize>()
            + self.windows.capacity() * size_of::<Option<Box<KeyWindows>>>()
            + self.windows.iter().flatten().map(|windows| windows.bytes).sum::<usize>()
    }
}

#[inline]
fn slice(chunks: &[Box<[u8]>], slot: u32, fixed: usize) -> &[u8] {
    let start = slot as usize % CHUNK * fixed;
    &chunks[slot as usize / CHUNK][start..start + fixed]
}

/// Bytes that a row takes: its fixed part, its texts, its key, and its share of an index that is three quarters full.
fn cost(key: usize, fixed: usize, text: usize) -> usize {
    const INDEX: usize = size_of::<(Key, u32)>() * 4 / 3;
    let key = if key > 16 { key } else { 0 };
    let text = if text > 0 { text + size_of::<Box<str>>() } else { 0 };
    INDEX + key + fixed + text
}

/// Nothing that panics runs under these locks, so what a poisoned one guards is whole.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
