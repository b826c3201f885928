//! JSON bodies: straight from bytes into columns, and from columns into bytes.

mod assemble;
mod decode;
mod encode;
mod plan;
mod raw;
mod record;
mod slots;
mod text;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use decode::{Body, Decoded, Decoder};
pub use encode::{EncodeError, Encoder};
