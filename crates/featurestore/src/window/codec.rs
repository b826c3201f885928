//! Ledgers as bytes.
//!
//! ```text
//! format u8, stamp of the aggregates u64, horizon i64
//! number of events, then for each, in order: its words, then for each of its texts the length and one more, or zero for none,
//!     and the bytes
//! for each grid: number of periods, then for each, in order: its beginning i64, then what its parts keep
//! ```
//! Fixed-width numbers are little-endian, all others are variable-length (seven bits a byte, the least first).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    accumulator::{Accumulator, End, Part, Total, What},
    aggregates::{Aggregates, floor},
    distinct::{Distinct, FEW, HIGHEST, REGISTERS},
    exact::Exact,
    layout::Row,
    ledger::Ledger,
    prepared::Prepared,
    quantiles::Quantiles,
    word::{Kind, float_of},
};
use crate::Version;

const FORMAT: u8 = 1;

/// Why bytes are no ledger of these aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They were written by a version that writes ledgers in another way.
    #[error("windows in format {0}, which this version does not read; build them anew from the log")]
    Format(u8),
    /// They were written for other aggregates.
    #[error("windows of other aggregates than the set has now; build them anew from the log")]
    OtherAggregates,
    /// They are not what [`Ledger::encode`] writes.
    #[error("damaged windows, at byte {at}")]
    Damaged {
        /// How many bytes were read.
        at: usize,
    },
}

impl Ledger {
    /// The ledger as bytes. Ledgers of the same events and horizon have the same bytes.
    pub fn encode(&self, of: &Aggregates) -> Vec<u8> {
        let mut rows: Vec<Row<'_>> = Vec::new();
        self.timeline.each(of.layout(), &mut |row| rows.push(row));
        // Events are in order of time; of equally late ones any order is as good, so one is chosen.
        rows.sort_by(|left, right| left.words.cmp(right.words));
        let mut out = vec![FORMAT];
        out.extend(of.stamp().to_le_bytes());
        out.extend(self.horizon.to_le_bytes());
        put_length(&mut out, rows.len() as u64);
        for row in rows {
            row.words.iter().for_each(|word| out.extend(word.to_le_bytes()));
            row.texts.iter().for_each(|text| put_text(&mut out, text.as_deref()));
        }
        for grid in 0..of.grids.len() {
            let nothing = BTreeMap::new();
            let closed = self.closed.get(grid).unwrap_or(&nothing);
            put_length(&mut out, closed.len() as u64);
            for (start, kept) in closed {
                out.extend(start.to_le_bytes());
                kept.iter().for_each(|kept| put_kept(&mut out, kept));
            }
        }
        out
    }

    /// A ledger from what [`Ledger::encode`] wrote for the same aggregates. Takes time and memory in proportion to the bytes.
    ///
    /// # Errors
    /// When the bytes are of another format, of other aggregates, or damaged. What can be read is written again as the same bytes.
    pub fn decode(of: &Aggregates, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { bytes, at: 0 };
        let damaged = |reader: &Reader<'_>| DecodeError::Damaged { at: reader.at };
        match reader.byte() {
            Some(FORMAT) => {}
            Some(other) => return Err(DecodeError::Format(other)),
            None => return Err(damaged(&reader)),
        }
        if reader.word().ok_or_else(|| damaged(&reader))? != of.stamp() {
            return Err(DecodeError::OtherAggregates);
        }
        match reader.ledger(of) {
            Some(ledger) if reader.at == bytes.len() => Ok(ledger),
            _ => Err(damaged(&reader)),
        }
    }
}

impl Prepared {
    /// Writes the event in row `row`: its words without the version, and its texts. It says what was found of the event, so that
    /// who reads it again evaluates nothing.
    pub(crate) fn encode(&self, of: &Aggregates, row: usize, out: &mut Vec<u8>) {
        self.with_row(of.layout(), row, Version::default(), |row| {
            row.words[of.layout().time()..].iter().for_each(|word| out.extend(word.to_le_bytes()));
            row.texts.iter().for_each(|text| put_text(out, text.as_deref()));
        });
    }

    /// Adds an event that [`Prepared::encode`] wrote for the same aggregates; `None` if it did not.
    pub(crate) fn decode(&mut self, of: &Aggregates, bytes: &[u8]) -> Option<()> {
        let (layout, mut reader) = (of.layout(), Reader { bytes, at: 0 });
        let mut words = vec![0; layout.time()];
        for _ in 0..layout.body() {
            words.push(reader.word()?);
        }
        let texts = (0..layout.texts).map(|_| reader.text()).collect::<Option<Vec<_>>>()?;
        if reader.at != bytes.len() || !sound(of, Row { words: &words, texts: &texts }) {
            return None;
        }
        self.push(&words[layout.time()..], &texts);
        Some(())
    }
}

fn put_length(out: &mut Vec<u8>, mut length: u64) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    put_length(out, text.map_or(0, |text| text.len() as u64 + 1));
    out.extend(text.unwrap_or_default().as_bytes());
}

fn put_word(out: &mut Vec<u8>, word: Option<u64>) {
    out.push(u8::from(word.is_some()));
    word.iter().for_each(|word| out.extend(word.to_le_bytes()));
}

fn put_kept(out: &mut Vec<u8>, kept: &Accumulator) {
    match kept {
        Accumulator::Count(count) => put_length(out, *count),
        Accumulator::Sum(Total { exact, infinite }) | Accumulator::Squares(Total { exact, infinite }) => {
            infinite.iter().for_each(|count| put_length(out, *count));
            let (low, words) = exact.trimmed();
            out.push(low as i8 as u8);
            put_length(out, words.len() as u64);
            words.iter().for_each(|word| out.extend(word.to_le_bytes()));
        }
        Accumulator::Min(word) | Accumulator::Max(word) => put_word(out, *word),
        Accumulator::First(end) | Accumulator::Last(end) => {
            put_word(out, end.as_ref().map(|end| end.word));
            for End { version, text, .. } in end.iter().map(|end| &**end) {
                version.iter().for_each(|word| out.extend(word.to_le_bytes()));
                put_text(out, text.as_deref());
            }
        }
        Accumulator::Distinct(Distinct::Few(hashes)) => {
            put_length(out, hashes.len() as u64);
            hashes.iter().for_each(|hash| out.extend(hash.to_le_bytes()));
        }
        Accumulator::Distinct(Distinct::Many(registers)) => {
            put_length(out, FEW as u64 + 1);
            out.extend(registers.iter());
        }
        Accumulator::Quantiles(quantiles) => {
            put_length(out, quantiles.counts().len() as u64);
            for (step, count) in quantiles.counts() {
                out.extend(step.to_le_bytes());
                put_length(out, *count);
            }
        }
    }
}

/// Reads what was put; `None` for what never is.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn ledger(&mut self, of: &Aggregates) -> Option<Ledger> {
        let mut ledger = Ledger { horizon: self.word()? as i64, ..Ledger::default() };
        self.rows(of, &mut ledger)?;
        for grid in &of.grids {
            let mut closed = BTreeMap::new();
            for _ in 0..self.length()? {
                let start = self.word()? as i64;
                let follows = closed.last_key_value().is_none_or(|(last, _)| *last < start);
                let needed = (grid.oldest(ledger.horizon)..of.cut(ledger.horizon)).contains(&start);
                if !follows || !needed || floor(start, grid.period) != start {
                    return None;
                }
                let kept = grid.parts.iter().map(|&part| self.kept(&of.parts()[part]));
                closed.insert(start, kept.collect::<Option<Box<[_]>>>()?);
            }
            ledger.closed.push(closed);
        }
        Some(ledger)
    }

    fn rows(&mut self, of: &Aggregates, ledger: &mut Ledger) -> Option<()> {
        let layout = of.layout();
        let (mut words, mut texts) = (vec![0; layout.width()], vec![None; layout.texts]);
        let mut last: Vec<u64> = Vec::new();
        for _ in 0..self.length()? {
            for word in &mut words {
                *word = self.word()?;
            }
            for text in &mut texts {
                *text = self.text()?;
            }
            let row = Row { words: &words, texts: &texts };
            if last > words || row.event() < of.cut(ledger.horizon) || !sound(of, row) {
                return None;
            }
            ledger.insert(of, row);
            last.clone_from(&words);
        }
        Some(())
    }

    fn kept(&mut self, part: &Part) -> Option<Accumulator> {
        Some(match part.what {
            What::Count => Accumulator::Count(self.length()?),
            What::Sum => Accumulator::Sum(self.total()?),
            What::Squares => Accumulator::Squares(self.total()?),
            What::Min => Accumulator::Min(self.value(part)?),
            What::Max => Accumulator::Max(self.value(part)?),
            What::First => Accumulator::First(self.end(part)?),
            What::Last => Accumulator::Last(self.end(part)?),
            What::Distinct => Accumulator::Distinct(self.distinct()?),
            What::Quantiles => Accumulator::Quantiles(self.quantiles()?),
        })
    }

    fn total(&mut self) -> Option<Total> {
        let infinite = [self.length()?, self.length()?];
        let low = i32::from(self.byte()? as i8);
        let words = self.words()?;
        Some(Total { exact: Exact::from_trimmed(low, &words)?, infinite })
    }

    fn end(&mut self, part: &Part) -> Option<Option<Box<End>>> {
        let Some(word) = self.value(part)? else { return Some(None) };
        let version = [self.word()?, self.word()?, self.word()?];
        let text = self.text()?;
        (text.is_some() == part.text.is_some()).then(|| Some(Box::new(End { version, word, text })))
    }

    fn distinct(&mut self) -> Option<Distinct> {
        let length = self.length()?;
        if length == FEW as u64 + 1 {
            let registers: Box<[u8; REGISTERS]> = self.take(REGISTERS)?.to_vec().try_into().ok()?;
            let known = registers.iter().all(|register| *register <= HIGHEST);
            return known.then_some(Distinct::Many(registers));
        }
        let hashes = (0..length).map(|_| self.word()).collect::<Option<Vec<_>>>()?;
        let ascending = hashes.windows(2).all(|pair| pair[0] < pair[1]);
        (hashes.len() <= FEW && ascending).then_some(Distinct::Few(hashes))
    }

    fn quantiles(&mut self) -> Option<Quantiles> {
        let counts = (0..self.length()?).map(|_| {
            let step = i32::from_le_bytes(self.take(4)?.try_into().ok()?);
            Some((step, self.length()?))
        });
        Quantiles::from_counts(counts.collect::<Option<_>>()?)
    }

    /// A value that a part keeps.
    fn value(&mut self, part: &Part) -> Option<Option<u64>> {
        match self.byte()? {
            0 => Some(None),
            1 => {
                let word = self.word()?;
                possible(part.cell.map_or(Kind::Unsigned, |(_, kind)| kind), word).then_some(Some(word))
            }
            _ => None,
        }
    }

    fn words(&mut self) -> Option<Vec<u64>> {
        (0..self.length()?).map(|_| self.word()).collect()
    }

    fn text(&mut self) -> Option<Option<Arc<str>>> {
        match self.length()? {
            0 => Some(None),
            length => {
                let bytes = self.take(usize::try_from(length - 1).ok()?)?;
                Some(Some(std::str::from_utf8(bytes).ok()?.into()))
            }
        }
    }

    fn length(&mut self) -> Option<u64> {
        let mut length = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            length |= bits << shift;
            if byte & 0x80 == 0 {
                // Neither bits that are lost nor zeros that could be left out.
                let plain = bits << shift >> shift == bits && (byte != 0 || shift == 0);
                return plain.then_some(length);
            }
        }
        None
    }

    fn word(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(taken)
    }
}

/// Whether a row is one that [`Aggregates::prepare`] makes.
fn sound(of: &Aggregates, row: Row<'_>) -> bool {
    let layout = of.layout();
    let known = (layout.lanes..64 * layout.lane_words()).all(|lane| !layout.counts(row, lane));
    let cells = of.sources.iter().enumerate().all(|(cell, source)| {
        let word = layout.cell(row, cell);
        let mut lanes = of.lanes.iter().zip(0..).filter(|(lane, _)| lane.source == Some(cell));
        let counts = lanes.any(|(_, lane)| layout.counts(row, lane));
        let text = source.text.and_then(|text| row.texts.get(text)).map(Option::is_some);
        // A value that counts is one, and a text that counts is there.
        !counts || (possible(source.kind, word) && text != Some(false))
    });
    known && cells
}

fn possible(kind: Kind, word: u64) -> bool {
    match kind {
        Kind::Float => !float_of(word).is_nan(),
        Kind::Truth => word <= 1,
        Kind::Signed | Kind::Unsigned | Kind::Text => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_way_to_be_written() {
        for length in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_length(&mut out, length);
            assert_eq!(Reader { bytes: &out, at: 0 }.length(), Some(length));
        }
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff; 9],
            &[0xff; 11],
            &[0x80],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(Reader { bytes, at: 0 }.length(), None, "{bytes:?}");
        }
    }
}
