//! The frames of an Arrow IPC stream.

use arrow::{
    buffer::Buffer,
    ipc::{Message, root_as_message},
};

use super::malformed;
use crate::wire::{DecodeCode, DecodeError};

/// What a frame of the current format begins with.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// One message with what belongs to it.
pub(super) struct Frame<'a> {
    pub(super) message: Message<'a>,
    pub(super) body: Buffer,
}

/// Walks a body frame by frame; nothing is allocated by what a frame claims.
pub(super) struct Frames<'a> {
    body: &'a Buffer,
    at: usize,
    ended: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(body: &'a Buffer) -> Self {
        Self { body, at: 0, ended: false }
    }

    /// The next frame; nothing at the end of the stream, be it marked or only the end of the body.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'a>>, DecodeError> {
        if self.ended || self.at == self.body.len() {
            return Ok(None);
        }
        if *self.take(4)? != CONTINUATION {
            return Err(malformed("body is not an Arrow IPC stream"));
        }
        let length = self.take(4)?.try_into().map(u32::from_le_bytes).unwrap_or(0);
        if length == 0 {
            self.ended = true;
            return self.check_end();
        }
        let metadata = self.take(length as usize)?;
        let message =
            root_as_message(metadata).map_err(|error| malformed(format!("bad metadata: {error}")))?;
        let length =
            usize::try_from(message.bodyLength()).map_err(|_| malformed("a body has a negative length"))?;
        let start = self.at;
        self.take(length)?;
        Ok(Some(Frame { message, body: self.body.slice_with_length(start, length) }))
    }

    fn check_end(&self) -> Result<Option<Frame<'a>>, DecodeError> {
        if self.at == self.body.len() {
            return Ok(None);
        }
        Err(DecodeError::new(
            DecodeCode::Trailing,
            format!("something follows the end of the stream at byte {}", self.at),
        ))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.body.len());
        let Some(end) = end else {
            return Err(DecodeError::new(DecodeCode::Truncated, "body ends in the middle of a message"));
        };
        let taken = &self.body.as_slice()[self.at..end];
        self.at = end;
        Ok(taken)
    }
}
