//! What the log says: records, several to a frame. A record is a whole write, or a whole removal.
//!
//! A record holds what was decided, not what was asked: rows that were repeated or refused are not in it. So reading the log
//! again leads to the same state, whatever the limits are then.

use crate::{
    Aggregates, Prepared,
    online::{
        bytes::{Cursor, put_bytes},
        incoming::Incoming,
        repeats::{put_mark, take_mark},
        row::Row,
    },
};

const ROWS: u8 = 1;
const EVICT: u8 = 2;
const ERASE: u8 = 3;
const PURGE: u8 = 4;
/// As [`ROWS`], each with its raw columns.
const HISTORY: u8 = 5;
/// As [`ERASE`] and [`PURGE`], with the sequence of the first row that is not meant.
const ERASE_BEFORE: u8 = 6;
const PURGE_BEFORE: u8 = 7;

/// One record, as it is read.
#[cfg_attr(not(feature = "offline"), allow(dead_code, reason = "some of it is for an offline log alone"))]
#[derive(Debug)]
pub(crate) enum Record<'a> {
    /// Rows in the order in which they were taken; each has its sequence. In a set with windows each is an event too.
    Rows {
        mark: Option<(&'a str, u32, u64)>,
        ids: Vec<&'a [u8]>,
        rows: Vec<Row<'a>>,
        events: Option<Prepared>,
        /// What an offline log needs beside: the cells and texts of the raw columns. There if the set had such a log.
        raw: Option<Vec<(&'a [u8], &'a str)>>,
    },
    /// Rows whose time was over at `at`, with the bound that held then.
    Evict { at: i64, ttl: i64 },
    /// The rows of these keys, before a sequence.
    Erase { keys: Vec<&'a [u8]>, before: u64 },
    /// All rows before a sequence.
    Purge { before: u64 },
}

/// Adds the rows `rows` of a write; with their raw columns for a `history`.
pub(crate) fn put_rows(
    out: &mut Vec<u8>,
    mark: Option<(&str, u32, u64)>,
    ids: &[&str],
    (incoming, rows): (&Incoming, &[usize]),
    (windows, history): (Option<&Aggregates>, bool),
) {
    out.push(if history { HISTORY } else { ROWS });
    out.push(u8::from(mark.is_some()));
    if let Some((source, partition, offset)) = mark {
        put_mark(out, source, partition, offset);
    }
    put_count(out, ids.len());
    ids.iter().for_each(|id| put_bytes(out, id.as_bytes()));
    put_count(out, rows.len());
    let mut event = Vec::new();
    for &row in rows {
        incoming.row(row).encode(out);
        if let (Some(windows), Some(events)) = (windows, &incoming.events) {
            event.clear();
            events.encode(windows, row, &mut event);
            put_bytes(out, &event);
        }
        if history {
            let (raw, text) = incoming.raw(row);
            put_bytes(out, raw);
            put_bytes(out, text.as_bytes());
        }
    }
}

pub(crate) fn put_evict(out: &mut Vec<u8>, at: i64, ttl: i64) {
    out.push(EVICT);
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&ttl.to_le_bytes());
}

pub(crate) fn put_erase(out: &mut Vec<u8>, keys: &[Vec<u8>], before: u64) {
    out.push(ERASE_BEFORE);
    out.extend_from_slice(&before.to_le_bytes());
    put_count(out, keys.len());
    keys.iter().for_each(|key| put_bytes(out, key));
}

pub(crate) fn put_purge(out: &mut Vec<u8>, before: u64) {
    out.push(PURGE_BEFORE);
    out.extend_from_slice(&before.to_le_bytes());
}

/// Counts are of things in memory, of which a write has a bounded number.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u32).to_le_bytes());
}

impl<'a> Record<'a> {
    /// Reads a record of rows of which the fixed part has `fixed` bytes, and which are events if there are `windows`; `None` if
    /// it is none.
    pub(crate) fn decode(from: &mut Cursor<'a>, fixed: usize, windows: Option<&Aggregates>) -> Option<Self> {
        Some(match from.u8()? {
            kind @ (ROWS | HISTORY) => {
                let mark = if from.u8()? == 1 { Some(take_mark(from)?) } else { None };
                let ids = counted(from, Cursor::bytes)?;
                let mut events = windows.map(|_| Prepared::default());
                let mut raw = (kind == HISTORY).then(Vec::new);
                let rows = counted(from, |from| {
                    let row = Row::decode(from, fixed)?;
                    if let (Some(windows), Some(events)) = (windows, &mut events) {
                        events.decode(windows, from.bytes()?)?;
                    }
                    if let Some(raw) = &mut raw {
                        raw.push((from.bytes()?, from.text()?));
                    }
                    Some(row)
                });
                Self::Rows { mark, ids, rows: rows?, events, raw }
            }
            EVICT => Self::Evict { at: from.i64()?, ttl: from.i64()? },
            ERASE => Self::Erase { before: u64::MAX, keys: counted(from, Cursor::bytes)? },
            PURGE => Self::Purge { before: u64::MAX },
            ERASE_BEFORE => Self::Erase { before: from.u64()?, keys: counted(from, Cursor::bytes)? },
            PURGE_BEFORE => Self::Purge { before: from.u64()? },
            _ => return None,
        })
    }
}

/// As many as their count says. Nothing is allocated for a count that the bytes do not bear out.
fn counted<'a, T>(
    from: &mut Cursor<'a>,
    mut one: impl FnMut(&mut Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = from.u32()?;
    (0..count).map(|_| one(from)).collect()
}
