//! What travels in bodies: requests into record batches, record batches into replies.
//!
//! Everything here is built once per graph from an Arrow schema and shared by `Arc`; reading a request or writing
//! a reply then resolves no type and builds no tree in between.
//!
//! - [`json`]: one object, an array of objects, or JSON Lines;
//! - [`ipc`]: an Arrow IPC stream;
//! - [`schema`]: the JSON Schema of either direction, for the OpenAPI document.

mod error;
pub mod ipc;
pub mod json;
pub mod schema;

use arrow::datatypes::Field;

pub use error::{DecodeCode, DecodeError};

/// The metadata key that marks a text column as free-form JSON, when its value is `true`.
pub const FREE_FORM: &str = millstream_graph::spec::JSON_COLUMN;

/// Whether a column holds free-form JSON: any value, kept as its own text.
pub fn is_free_form(field: &Field) -> bool {
    field.metadata().get(FREE_FORM).is_some_and(|value| value == "true")
}

/// The form of a JSON body; the reply takes the form of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// One JSON object: one row.
    Object,
    /// An array of JSON objects: as many rows as it has.
    Array,
}

/// What happens to a field that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownFields {
    /// The body is refused, and the error names the closest known field.
    #[default]
    Refuse,
    /// The field is read over, however deep within the bound.
    Ignore,
}

/// How much one body may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The length of a body, in bytes. At most 2 GiB, because Arrow text columns count in 32 bits.
    pub body_bytes: usize,
    /// The rows of a body.
    pub rows: usize,
    /// How deep free-form and ignored values may nest, counting from the body itself.
    pub depth: usize,
    /// Bytes of columns that may stand for absent values. Absence is short to write: without this bound, a few
    /// bytes per row could ask for a whole tensor each.
    pub absent_bytes: usize,
    /// What happens to fields that the schema does not know.
    pub unknown_fields: UnknownFields,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 20,
            rows: 1 << 20,
            depth: 64,
            absent_bytes: 512 << 20,
            unknown_fields: UnknownFields::Refuse,
        }
    }
}

impl DecodeLimits {
    /// Refuses a body that is longer than allowed, before anything of it is read.
    fn check_length(&self, body: &[u8]) -> Result<(), DecodeError> {
        let limit = self.body_bytes.min(i32::MAX as usize);
        if body.len() <= limit {
            return Ok(());
        }
        let message = format!("body has {} bytes; at most {limit} are allowed", body.len());
        Err(DecodeError::new(DecodeCode::TooLarge, message))
    }
}
