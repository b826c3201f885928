//! Frames: what the store's files are made of. A frame is whole or it is not there.
//!
//! `MSF1`, the payload's length, a checksum (CRC-32C) of all that follows it, the frame's number, how much of the file was safe
//! when it was written, the payload. Numbers count through all segments, so that a frame that is missing is missed.

use std::io::{self, Read};

use crate::online::bytes::Cursor;

const MAGIC: [u8; 4] = *b"MSF1";

/// Bytes before the payload.
const HEADER: usize = 28;

/// Bytes of the largest payload. More is damage, and never allocated.
const LARGEST: u32 = 256 << 20;

/// Adds a frame to `out`, with the payload that `payload` adds.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    number: u64,
    durable: u64,
    payload: impl FnOnce(&mut Vec<u8>),
) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    payload(out);
    let frame = &mut out[start..];
    let len = u32::try_from(frame.len() - HEADER).ok().filter(|&len| len <= LARGEST);
    let len = len.ok_or_else(|| io::Error::other(format!("a frame of {} bytes", frame.len())))?;
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    frame[12..20].copy_from_slice(&number.to_le_bytes());
    frame[20..28].copy_from_slice(&durable.to_le_bytes());
    let sum = checksum(len, &frame[12..]);
    frame[8..12].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

fn checksum(len: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), rest)
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    /// How many bytes of its file were safe when it was written.
    durable: u64,
    pub(crate) payload: Vec<u8>,
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Frame),
    End,
    /// No whole frame.
    Bad,
}

/// The frames of a file, one after another.
pub(crate) struct Frames<R> {
    from: R,
    left: u64,
    /// Where the next frame begins.
    pub(crate) at: u64,
    /// What was read of a frame that is not whole.
    rejected: Vec<u8>,
}

impl<R: Read> Frames<R> {
    /// The frames of a file of `len` bytes.
    pub(crate) fn new(from: R, len: u64) -> Self {
        Self { from, left: len, at: 0, rejected: Vec::new() }
    }

    /// The next frame. After a bad one nothing follows but [`Frames::search`].
    pub(crate) fn next(&mut self) -> io::Result<Next> {
        if self.left == 0 {
            return Ok(Next::End);
        }
        let mut bytes = self.take(HEADER as u64)?;
        let len = payload_len(&bytes).filter(|&len| u64::from(len) <= self.left);
        if let Some(len) = len {
            bytes.append(&mut self.take(u64::from(len))?);
        }
        match whole(&bytes) {
            Some((frame, len)) => {
                self.at += len as u64;
                Ok(Next::Frame(frame))
            }
            None => {
                self.rejected = bytes;
                Ok(Next::Bad)
            }
        }
    }

    /// Whether a whole frame lies behind a bad one, and says that the bad one had been safe. Then the bad one is damage; else it
    /// may have been under way when the machine stopped.
    pub(crate) fn search(mut self) -> io::Result<bool> {
        let mut bytes = std::mem::take(&mut self.rejected);
        bytes.append(&mut self.take(self.left)?);
        let starts = (1..bytes.len()).filter(|&start| bytes[start..].starts_with(&MAGIC));
        let mut frames = starts.filter_map(|start| Some(whole(&bytes[start..])?.0));
        Ok(frames.any(|frame| frame.durable > self.at))
    }

    fn take(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut taken = Vec::new();
        let bytes = bytes.min(self.left);
        taken.try_reserve_exact(bytes as usize)?;
        (&mut self.from).take(bytes).read_to_end(&mut taken)?;
        self.left -= bytes;
        Ok(taken)
    }
}

/// The payload's length, if these bytes begin a frame.
fn payload_len(bytes: &[u8]) -> Option<u32> {
    let mut from = Cursor(bytes.strip_prefix(&MAGIC)?);
    from.u32().filter(|&len| len <= LARGEST)
}

/// The frame that these bytes begin with, and its length.
fn whole(bytes: &[u8]) -> Option<(Frame, usize)> {
    let len = payload_len(bytes)?;
    let end = HEADER + len as usize;
    let bytes = bytes.get(..end)?;
    let mut from = Cursor(&bytes[8..]);
    let sum = from.u32()?;
    if sum != checksum(len, from.0) {
        return None;
    }
    let (number, durable) = (from.u64()?, from.u64()?);
    Some((Frame { number, durable, payload: from.0.to_vec() }, end))
}
