//! Numbers for the keys of one side of a join.

use arrow::array::ArrayRef;

use super::{JoinError, NONE};
use crate::{
    index::{Index, Inserted},
    key::{Given, KeyKind, each_int},
    store::LookupError,
};

/// Numbers below [`Numbered::count`] for keys.
#[derive(Debug)]
pub(super) enum Keys {
    /// One integer key whose values lie closer together than there are rows: its number is its distance from the first. There is
    /// nothing to look up, where a table of all keys would be larger than the caches.
    Near { kind: KeyKind, first: u64, count: u32 },
    /// Any keys, numbered as they come.
    Listed(Index),
}

/// Every key of one side, and what stands for it.
pub(super) struct Numbered {
    pub(super) keys: Keys,
    /// The number of each row's key, [`NONE`] where no row can match.
    pub(super) ids: Vec<u32>,
    /// All numbers are below it.
    pub(super) count: u32,
}

/// Rows given to an index at a time. It makes room for as many new keys, and most keys repeat: a table with room for every row
/// would be far larger than one with room for every key, and every look-up slower.
pub(super) const AT_A_TIME: usize = 8192;

impl Keys {
    /// Numbers the keys of `batches`, which together have fewer rows than [`NONE`].
    pub(super) fn number(kinds: &[KeyKind], batches: &[Vec<&ArrayRef>]) -> Result<Numbered, JoinError> {
        let rows = batches.iter().map(|batch| batch.first().map_or(0, |column| column.len())).sum();
        let mut ids = Vec::with_capacity(rows);
        if let Some((keys, count)) = Self::near(kinds, batches, rows)? {
            batches.iter().try_for_each(|batch| keys.find(batch, |id| ids.push(id)))?;
            return Ok(Numbered { keys, ids, count });
        }
        let (mut index, mut count) = (Index::new(kinds.into()), 0);
        for batch in batches {
            let rows = batch.first().map_or(0, |column| column.len());
            for start in (0..rows).step_by(AT_A_TIME) {
                let part: Vec<_> =
                    batch.iter().map(|column| column.slice(start, AT_A_TIME.min(rows - start))).collect();
                index.insert(&part.iter().collect::<Vec<_>>(), count, |_, inserted| {
                    ids.push(match inserted {
                        Inserted::New(id) => {
                            count = id + 1;
                            id
                        }
                        Inserted::Known(id) => id,
                        Inserted::Null => NONE,
                    });
                })?;
            }
        }
        Ok(Numbered { keys: Self::Listed(index), ids, count })
    }

    /// The number of every key, [`NONE`] where there is none.
    #[inline]
    pub(super) fn find(&self, columns: &[&ArrayRef], mut sink: impl FnMut(u32)) -> Result<(), LookupError> {
        match (self, columns) {
            (Self::Listed(index), _) => index.find(columns, sink),
            (&Self::Near { kind, first, count }, [column]) => each_int(*column, kind, |_, given| {
                let distance = if let Given::Key(key) = given { key.wrapping_sub(first) } else { u64::MAX };
                sink(if distance < u64::from(count) { distance as u32 } else { NONE });
            }),
            (Self::Near { .. }, _) => Err(LookupError::KeyCount { wanted: 1, got: columns.len() }),
        }
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Near { .. } => 0,
            Self::Listed(index) => index.bytes(),
        }
    }

    /// The keys as distances from the first, if they are integers that lie close enough.
    fn near(
        kinds: &[KeyKind],
        batches: &[Vec<&ArrayRef>],
        rows: usize,
    ) -> Result<Option<(Self, u32)>, JoinError> {
        let &[kind @ (KeyKind::Signed | KeyKind::Unsigned | KeyKind::Exact)] = kinds else { return Ok(None) };
        // Negative numbers come before the others, as unsigned ones do when their highest bit is turned over.
        let sign = if kind == KeyKind::Unsigned { 0 } else { 1 << 63 };
        let (mut least, mut most) = (u64::MAX, 0);
        for batch in batches {
            let [column] = batch[..] else { return Ok(None) };
            each_int(column, kind, |_, given| {
                if let Given::Key(key) = given {
                    least = least.min(key ^ sign);
                    most = most.max(key ^ sign);
                }
            })?;
        }
        let span = most.checked_sub(least).filter(|&span| span < rows as u64);
        Ok(span.map(|span| {
            let count = span as u32 + 1;
            (Self::Near { kind, first: least ^ sign, count }, count)
        }))
    }
}
