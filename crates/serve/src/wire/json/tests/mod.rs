//! Tests of reading and writing JSON bodies.

mod accepted;
mod properties;
mod refused;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{Decoded, Decoder, Encoder};
use crate::wire::{DecodeError, DecodeLimits, FREE_FORM, Form, UnknownFields};

fn schema(fields: impl IntoIterator<Item = Field>) -> SchemaRef {
    Arc::new(Schema::new(fields.into_iter().collect::<Vec<_>>()))
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn optional(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn free_form(field: Field) -> Field {
    field.with_metadata(HashMap::from([(FREE_FORM.to_owned(), "true".to_owned())]))
}

fn list(item: Field) -> DataType {
    DataType::List(Arc::new(item))
}

fn decode(schema: &SchemaRef, body: impl AsRef<[u8]>) -> Result<Decoded, DecodeError> {
    decode_within(schema, DecodeLimits::default(), body)
}

fn decode_within(
    schema: &SchemaRef,
    limits: DecodeLimits,
    body: impl AsRef<[u8]>,
) -> Result<Decoded, DecodeError> {
    Decoder::new(Arc::clone(schema), limits).unwrap().decode(body.as_ref())
}

fn encode(batch: &RecordBatch, form: Form) -> String {
    let mut out = Vec::new();
    Encoder::new(batch.schema()).unwrap().encode(batch, form, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What becomes of a body that is read and written again.
fn echo(schema: &SchemaRef, body: &str) -> String {
    match decode(schema, body) {
        Ok(Decoded { batch, form }) => encode(&batch, form),
        Err(error) => panic!("{body}: {error:?}"),
    }
}

const IGNORE: DecodeLimits = DecodeLimits {
    body_bytes: 1 << 20,
    rows: 1000,
    depth: 64,
    absent_bytes: 1 << 20,
    unknown_fields: UnknownFields::Ignore,
};
