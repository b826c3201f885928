//! Deletion vectors: which rows of a data file are none any more.
//!
//! The format is that of the Delta protocol: a Roaring bitmap of 64-bit row numbers, in a file beside the data or in the log itself.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path},
};

use deltalake_core::kernel::{DeletionVectorDescriptor, StorageType};

/// A deletion vector, as the log names it.
#[derive(Clone, Debug)]
pub(super) struct Deleted {
    stored: Stored,
    /// Bytes of the bitmap.
    bytes: usize,
    /// Rows that are deleted.
    rows: usize,
}

#[derive(Clone, Debug)]
enum Stored {
    Log(String),
    /// In a file in the folder of the table, from this byte.
    File(String, u64),
}

/// The most bytes of a bitmap, and the most rows that it deletes.
const MOST: usize = 1 << 26;
/// What a bitmap begins with.
const MAGIC: u32 = 1_681_511_377;
/// What the bitmap of 32-bit numbers begins with: without and with containers of runs.
const NO_RUNS: u32 = 12_346;
const RUNS: u32 = 12_347;
/// Numbers of a container that are listed; of more there are bits.
const MOST_LISTED: usize = 4_096;

impl Deleted {
    /// What the log says, if it can be read.
    pub(super) fn new(descriptor: &DeletionVectorDescriptor) -> io::Result<Self> {
        let count = |count: i64| usize::try_from(count).ok().filter(|count| *count <= MOST);
        let (bytes, rows) = (count(descriptor.size_in_bytes.into()), count(descriptor.cardinality));
        let (Some(bytes), Some(rows)) = (bytes, rows) else { return Err(wrong("is too large")) };
        let text = &descriptor.path_or_inline_dv;
        let stored = match descriptor.storage_type {
            StorageType::Inline => Stored::Log(text.clone()),
            StorageType::UuidRelativePath => {
                let offset = descriptor.offset.map_or(Some(0), |offset| offset.try_into().ok());
                let name = name(text).zip(offset).ok_or_else(|| wrong("has no name that is one"))?;
                Stored::File(name.0, name.1)
            }
            StorageType::AbsolutePath => return Err(wrong("lies outside the table")),
        };
        Ok(Self { stored, bytes, rows })
    }

    /// The rows, in order; none is twice, and all are below `end`.
    pub(super) fn read(&self, root: &Path, table: &Path, end: u64) -> io::Result<Vec<u64>> {
        let bytes = match &self.stored {
            Stored::Log(text) => decode(text).ok_or_else(|| wrong("is no text of bytes"))?,
            Stored::File(name, offset) => self.fetch(root, &table.join(name), *offset)?,
        };
        let mut cursor = Cursor(&bytes);
        let mut rows = Vec::new();
        let whole =
            cursor.u32() == Some(MAGIC) && read_rows(&mut cursor, &mut rows, self.rows, end).is_some();
        if whole && rows.len() == self.rows { Ok(rows) } else { Err(wrong("is damaged")) }
    }

    fn fetch(&self, root: &Path, path: &Path, offset: u64) -> io::Result<Vec<u8>> {
        let path = path.canonicalize()?;
        if !path.starts_with(root) {
            return Err(wrong("lies outside the project's folder"));
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        // Its length, the bitmap, and a sum of it.
        let mut bytes = vec![0; self.bytes + 8];
        file.read_exact(&mut bytes)?;
        let sum = bytes.split_off(self.bytes + 4);
        let bitmap = bytes.split_off(4);
        if bytes != (self.bytes as u32).to_be_bytes() || sum != crc32(&bitmap).to_be_bytes() {
            return Err(wrong("is damaged"));
        }
        Ok(bitmap)
    }
}

fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its deletion vector {problem}"))
}

/// The name of the file of a vector: a folder, if there is one, and then the 20 characters of its id.
fn name(text: &str) -> Option<String> {
    let at = text.len().checked_sub(20)?;
    let (folder, id) = (text.get(..at)?, text.get(at..)?);
    let plain = Path::new(folder).components().all(|part| matches!(part, Component::Normal(_)));
    let id = decode(id)?;
    let digits = super::super::source::hexadecimal(&id);
    let parts =
        [digits.get(..8)?, digits.get(8..12)?, digits.get(12..16)?, digits.get(16..20)?, digits.get(20..32)?];
    let file = format!("deletion_vector_{}.bin", parts.join("-"));
    plain.then(|| if folder.is_empty() { file } else { format!("{folder}/{file}") })
}

/// Z85: five characters for four bytes.
fn decode(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 85] =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let digit = |of: &u8| DIGITS.iter().position(|digit| digit == of).map(|digit| digit as u64);
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4);
    for group in text.as_bytes().chunks(5) {
        let number = group.iter().try_fold(0, |number, of| Some(number * 85 + digit(of)?))?;
        bytes.extend(u32::try_from(number).ok().filter(|_| group.len() == 5)?.to_be_bytes());
    }
    Some(bytes)
}

/// Reads a map from the upper halves of row numbers to bitmaps of the lower ones. `None` if it is none, or has more than `most` rows.
fn read_rows(from: &mut Cursor<'_>, rows: &mut Vec<u64>, most: usize, end: u64) -> Option<()> {
    for _ in 0..from.u64()? {
        let upper = u64::from(from.u32()?) << 32;
        let cookie = from.u32()?;
        let (containers, runs) = match cookie {
            NO_RUNS => (from.u32()?, None),
            cookie if cookie & 0xffff == RUNS => {
                let containers = (cookie >> 16) + 1;
                (containers, Some(from.take(containers.div_ceil(8) as usize)?))
            }
            _ => return None,
        };
        if containers > 1 << 16 {
            return None;
        }
        let heads: Vec<(u16, usize)> = (0..containers)
            .map(|_| Some((from.u16()?, usize::from(from.u16()?) + 1)))
            .collect::<Option<_>>()?;
        // Where each container begins: they follow each other.
        if runs.is_none() || containers >= 4 {
            from.take(4 * containers as usize)?;
        }
        for (number, (middle, count)) in heads.into_iter().enumerate() {
            let base = upper | u64::from(middle) << 16;
            let mut add = |lower: u64| {
                let row = base | lower;
                let follows = rows.last().is_none_or(|last| *last < row) && row < end && rows.len() < most;
                follows.then(|| rows.push(row))
            };
            if runs.is_some_and(|runs| runs[number / 8] >> (number % 8) & 1 == 1) {
                for _ in 0..from.u16()? {
                    let (first, more) = (u64::from(from.u16()?), u64::from(from.u16()?));
                    (first..=(first + more).min(0xffff)).try_for_each(&mut add)?;
                }
            } else if count <= MOST_LISTED {
                (0..count).try_for_each(|_| add(from.u16()?.into()))?;
            } else {
                for word in 0..1024 {
                    let bits = from.u64()?;
                    (0..64).filter(|bit| bits >> bit & 1 == 1).try_for_each(|bit| add(word * 64 + bit))?;
                }
            }
        }
    }
    Some(())
}

/// Little-endian numbers, one after the other.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// The sum of ISO 3309, as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum: u32, byte| (0..8).fold(sum ^ u32::from(*byte), bit))
}
