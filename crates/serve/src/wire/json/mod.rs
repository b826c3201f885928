//! JSON bodies: straight from bytes into columns, and from columns into bytes.

mod assemble;
mod columns;
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

pub(crate) use columns::{Column, Columns};
pub use decode::{Body, Decoded, Decoder};
pub use encode::{EncodeError, Encoder};
pub(crate) use write::ValueWriter;
