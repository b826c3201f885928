//! The encoder: a record batch in, a body out.

use std::{ops::Range, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use millstream_graph::SchemaError;

use super::write::{Record, Resolver};
use crate::wire::Form;

/// Writes record batches of one schema as JSON. Built once per graph and shared by `Arc`.
///
/// Numbers keep every digit that tells them from their neighbours, floats in the shortest form of their own width;
/// those that JSON has no word for (NaN and the infinities) are `null`. Instants are RFC 3339 in UTC, dates
/// ISO 8601, binary is base64, decimals are numbers, structs and maps are objects, lists are arrays. Text marked as
/// `millstream.json` goes out as it is, unless it is no JSON: then as a string. Nulls are written, not left out.
///
/// ```
/// use std::{ops::Range, sync::Arc};
/// use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray};
/// use millstream_serve::wire::{Form, json::Encoder};
///
/// let score: ArrayRef = Arc::new(Float32Array::from(vec![0.1, f32::NAN]));
/// let decision: ArrayRef = Arc::new(StringArray::from(vec!["approve", "review"]));
/// let batch = RecordBatch::try_from_iter([("score", score), ("decision", decision)]).unwrap();
/// let encoder = Encoder::new(batch.schema())?;
///
/// let mut body = Vec::new();
/// encoder.encode(&batch, Form::Array, &mut body).unwrap();
/// assert_eq!(body, br#"[{"score":0.1,"decision":"approve"},{"score":null,"decision":"review"}]"#);
/// # Ok::<(), millstream_graph::SchemaError>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    schema: SchemaRef,
    record: Record,
    free_form: bool,
}

/// A batch that is not of the encoder's schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rows of {got} cannot be written as {wanted}")]
pub struct EncodeError {
    /// The fields of the encoder.
    pub wanted: String,
    /// The fields of the batch.
    pub got: String,
}

impl Encoder {
    /// An encoder for the rows of a schema.
    ///
    /// # Errors
    /// When a type cannot be written as JSON; all such columns at once.
    pub fn new(schema: SchemaRef) -> Result<Self, SchemaError> {
        let mut resolver = Resolver::default();
        let record = resolver.record(schema.fields(), "");
        let free_form = resolver.finish()?;
        Ok(Self { schema, record, free_form })
    }

    /// The schema of the batches that this encoder writes.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends a batch to `out`.
    ///
    /// As an object, no row is `null`; a graph that made several rows of one is answered with an array.
    ///
    /// # Errors
    /// When the batch is not of the encoder's schema; then nothing is written.
    pub fn encode(&self, batch: &RecordBatch, form: Form, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_rows(batch, 0..batch.num_rows(), form, out)
    }

    /// Appends some rows of a batch to `out`, as [`Encoder::encode`] does for all of them.
    ///
    /// # Errors
    /// When the batch is not of the encoder's schema; then nothing is written.
    pub fn encode_rows(
        &self,
        batch: &RecordBatch,
        rows: Range<usize>,
        form: Form,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.check(batch)?;
        let rows = rows.start.min(batch.num_rows())..rows.end.min(batch.num_rows());
        match (form, rows.len()) {
            (Form::Object, 0) => out.extend_from_slice(b"null"),
            (Form::Object, 1) => self.record.write(batch.columns(), rows.start, out),
            _ => {
                out.push(b'[');
                for row in rows.clone() {
                    if row > rows.start {
                        out.push(b',');
                    }
                    self.record.write(batch.columns(), row, out);
                }
                out.push(b']');
            }
        }
        Ok(())
    }

    /// Appends a batch to `out` as JSON Lines: one object per row, each ended by a line feed.
    ///
    /// # Errors
    /// When the batch is not of the encoder's schema; then nothing is written.
    pub fn encode_lines(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check(batch)?;
        for row in 0..batch.num_rows() {
            let start = out.len();
            self.record.write(batch.columns(), row, out);
            if self.free_form {
                // Only free-form text can hold line breaks, and in JSON those are never part of a value.
                out[start..]
                    .iter_mut()
                    .filter(|byte| matches!(byte, b'\n' | b'\r'))
                    .for_each(|byte| *byte = b' ');
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn check(&self, batch: &RecordBatch) -> Result<(), EncodeError> {
        let got = batch.schema_ref();
        let same = Arc::ptr_eq(got, &self.schema)
            || (got.fields().len() == self.schema.fields().len()
                && got.fields().iter().zip(self.schema.fields()).all(|(got, wanted)| {
                    got.name() == wanted.name() && got.data_type() == wanted.data_type()
                }));
        if same {
            return Ok(());
        }
        let list = |schema: &SchemaRef| {
            let fields =
                schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
            format!("({})", fields.collect::<Vec<_>>().join(", "))
        };
        Err(EncodeError { wanted: list(&self.schema), got: list(got) })
    }
}
