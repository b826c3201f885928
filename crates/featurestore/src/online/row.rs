//! One row as stores keep it: a head with its version, the packed cells, its texts.

use smallvec::SmallVec;

use super::{
    bytes::{Cursor, put_bytes},
    expiry::Expiry,
};
use crate::{
    FeatureSet, Found, Selection, Version,
    gather::{PackedRow, gather},
    layout::at,
};

/// What stands before the cells of a stored row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) event: i64,
    /// [`Head::NEVER_CREATED`] where nobody said.
    pub(crate) created: i64,
    pub(crate) sequence: u64,
    /// Until when the row may be used; `i64::MAX` without end.
    pub(crate) ends: i64,
    /// The sequence of the last row that its key has seen, whether it was taken or older. A row up to it changes nothing, so
    /// that rows may be applied again to a state that has some of them already.
    pub(crate) seen: u64,
}

impl Head {
    pub(crate) const BYTES: usize = 40;

    /// Less than any time that is taken, as absent is less than any time.
    pub(crate) const NEVER_CREATED: i64 = i64::MIN;

    #[inline]
    pub(crate) fn read(fixed: &[u8]) -> Self {
        let signed = |offset| i64::from_le_bytes(at(fixed, offset));
        let unsigned = |offset| u64::from_le_bytes(at(fixed, offset));
        Self {
            event: signed(0),
            created: signed(8),
            sequence: unsigned(16),
            ends: signed(24),
            seen: unsigned(32),
        }
    }

    pub(crate) fn write(self, fixed: &mut [u8]) {
        let words = [
            self.event.to_le_bytes(),
            self.created.to_le_bytes(),
            self.sequence.to_le_bytes(),
            self.ends.to_le_bytes(),
            self.seen.to_le_bytes(),
        ];
        fixed[..Self::BYTES].copy_from_slice(words.as_flattened());
    }

    pub(crate) fn version(&self) -> Version {
        let created = (self.created != Self::NEVER_CREATED).then_some(self.created);
        Version { event: self.event, created, sequence: self.sequence }
    }
}

/// A key and its row. `fixed` is the head and the cells, as long for every row of a set; cells of texts point into `text`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) fixed: &'a [u8],
    pub(crate) text: &'a str,
}

impl<'a> Row<'a> {
    pub(crate) fn head(&self) -> Head {
        Head::read(self.fixed)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.key);
        put_bytes(out, self.text.as_bytes());
        out.extend_from_slice(self.fixed);
    }

    /// Reads a row of which the fixed part has `fixed` bytes.
    pub(crate) fn decode(from: &mut Cursor<'a>, fixed: usize) -> Option<Self> {
        let key = from.bytes()?;
        let text = from.text()?;
        Some(Self { key, text, fixed: from.take(fixed)? })
    }

    /// The row without its key, for stores that keep bytes by key.
    #[cfg(any(feature = "redb", feature = "redis"))]
    pub(crate) fn blob(&self) -> Vec<u8> {
        [self.fixed, self.text.as_bytes()].concat()
    }
}

/// Copies of the rows that a batch asked for, so that no lock is held while they become columns.
pub(crate) struct Copied {
    bytes: SmallVec<[u8; 256]>,
    texts: String,
    rows: SmallVec<[Option<Span>; 8]>,
    fixed: usize,
    /// Whether any of them has an end of its own.
    ends: bool,
}

/// Where one copy lies.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    text: (usize, usize),
}

impl Copied {
    /// Room for `rows` rows, of which the fixed part has `fixed` bytes.
    pub(crate) fn new(fixed: usize, rows: usize) -> Self {
        Self {
            bytes: SmallVec::with_capacity(fixed * rows),
            texts: String::new(),
            rows: SmallVec::with_capacity(rows),
            fixed,
            ends: false,
        }
    }

    pub(crate) fn missing(&mut self) {
        self.rows.push(None);
    }

    #[inline]
    pub(crate) fn push(&mut self, fixed: &[u8], text: &str) {
        let (start, from) = (self.bytes.len(), self.texts.len());
        self.bytes.extend_from_slice(fixed);
        self.ends |= Head::read(fixed).ends != i64::MAX;
        self.texts.push_str(text);
        self.rows.push(Some(Span { start, text: (from, self.texts.len()) }));
    }

    /// Adds a row from bytes that came from outside; whether they are one.
    #[cfg(any(feature = "redb", feature = "redis"))]
    pub(crate) fn push_blob(&mut self, blob: &[u8]) -> bool {
        let parts = blob.split_at_checked(self.fixed);
        match parts.and_then(|(fixed, text)| Some((fixed, std::str::from_utf8(text).ok()?))) {
            Some((fixed, text)) => self.push(fixed, text),
            None => return false,
        }
        true
    }

    /// The rows as columns. `at` is the time they are wanted for; without one, rows that have an end are wanted for now.
    #[inline]
    pub(crate) fn found(&self, selection: &Selection, expiry: &Expiry, at: Option<i64>) -> Found {
        let bounded = self.ends || expiry.is_bounded() || selection.bounds_age();
        let at = at.or_else(|| bounded.then(|| expiry.clock.now()));
        let mut stale = SmallVec::new();
        let rows = self.rows.iter().enumerate().map(|(number, span)| {
            let span = (*span)?;
            let fixed = &self.bytes[span.start..span.start + self.fixed];
            let usable = |head: Head, at| expiry.allows(&head, at) && !selection.is_too_old(head.event, at);
            if at.is_some_and(|at| !usable(Head::read(fixed), at)) {
                stale.push(number as u32);
                if !selection.takes_stale() {
                    return None;
                }
            }
            Some(PackedRow::new(&fixed[Head::BYTES..], &self.texts[span.text.0..span.text.1]))
        });
        let mut found = gather(selection, rows);
        found.stale = stale;
        if selection.tells_events() {
            let event = |span: &Option<Span>| Some(Head::read(&self.bytes[(*span)?.start..]).event);
            found.events = Some(self.rows.iter().map(event).collect());
        }
        found
    }
}

/// What a definition says of how rows are packed. Files that say otherwise are another set's, or another version's.
pub(crate) fn definition(set: &FeatureSet) -> String {
    let column = |kind: &'static str| {
        move |column: &crate::Column| format!("{kind} `{}` {}\n", column.name, column.data_type)
    };
    let mut text = format!("set `{}`\n", set.name());
    text.extend(set.keys().iter().map(column("key")));
    text.extend(set.own_features().iter().map(column("feature")));
    text.extend(set.windows().map(|windows| format!("windows over aggregates {:016x}\n", windows.stamp())));
    text
}

/// What a definition says of the columns that events carry for windows alone.
pub(crate) fn raw_definition(set: &FeatureSet) -> String {
    let columns = set.raw_columns().iter();
    columns.map(|column| format!("event column `{}` {}\n", column.name, column.data_type)).collect()
}

/// How two definitions differ, in words; `None` when they do not.
pub(crate) fn difference(wrote: &str, now: &str) -> Option<String> {
    if wrote == now {
        return None;
    }
    let only = |of: &str, other: &str| {
        let lines: Vec<_> = of.lines().filter(|line| !other.lines().any(|known| known == *line)).collect();
        lines.join(", ")
    };
    Some(match (only(wrote, now), only(now, wrote)) {
        (was, is) if was.is_empty() && is.is_empty() => "its columns stood in another order".to_owned(),
        (was, is) if is.is_empty() => format!("it had {was}, which is gone"),
        (was, is) if was.is_empty() => format!("it lacked {is}"),
        (was, is) => format!("it had {was} where there is {is} now"),
    })
}
