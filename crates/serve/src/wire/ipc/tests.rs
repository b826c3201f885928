//! Tests of reading and writing Arrow IPC streams.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, DictionaryArray, Float32Array, Int64Array,
        LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray, StructArray,
    },
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt8Type},
    ipc::writer::{IpcWriteOptions, StreamWriter},
};
use proptest::prelude::*;

use super::{Decoder, encode};
use crate::wire::{DecodeCode, DecodeError, DecodeLimits};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| {
        let nullable = column.null_count() > 0;
        (name, column, nullable)
    }))
    .unwrap()
}

fn ids(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn decode(schema: &SchemaRef, body: Vec<u8>) -> Result<RecordBatch, DecodeError> {
    decode_within(schema, DecodeLimits::default(), body)
}

fn decode_within(
    schema: &SchemaRef,
    limits: DecodeLimits,
    body: Vec<u8>,
) -> Result<RecordBatch, DecodeError> {
    Decoder::new(Arc::clone(schema), limits).unwrap().decode(body)
}

#[track_caller]
fn check_refused(schema: &SchemaRef, body: Vec<u8>, code: &str, field: Option<&str>) -> String {
    let error = decode(schema, body).unwrap_err();
    assert_eq!((error.code.name(), error.field.as_deref()), (code, field), "{error:?}");
    error.message
}

/// A batch of every kind of column that can be read.
fn varied() -> RecordBatch {
    let list =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let nested = StructArray::from(vec![
        (
            Arc::new(Field::new("b", DataType::Boolean, false)),
            Arc::new(BooleanArray::from(vec![true, false, true])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("f", DataType::Float32, true)),
            Arc::new(Float32Array::from(vec![Some(0.1), None, Some(-0.0)])),
        ),
    ]);
    batch(vec![
        ("id", ids(&[1, i64::MAX, i64::MIN])),
        ("name", texts(&["", "ä", "long enough to lie outside of a view"])),
        ("list", Arc::new(list)),
        ("nested", Arc::new(nested)),
        ("maybe", Arc::new(StringArray::from(vec![None, Some("x"), None]))),
        (
            "view",
            Arc::new(BinaryViewArray::from(vec![b"a".as_slice(), b"bytes that do not fit into a view", b""])),
        ),
    ])
}

#[test]
fn what_is_written_is_what_was_read() {
    let batch = varied();
    assert_eq!(decode(&batch.schema(), encode(&batch).unwrap()).unwrap(), batch);
}

#[test]
fn fields_may_come_in_any_order() {
    let batch = varied();
    let turned = batch.project(&[5, 3, 1, 0, 2, 4]).unwrap();
    assert_eq!(decode(&batch.schema(), encode(&turned).unwrap()).unwrap(), batch);
}

#[test]
fn several_batches_become_one() {
    let schema = batch(vec![("id", ids(&[]))]).schema();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    for values in [vec![1, 2], vec![], vec![3]] {
        writer.write(&batch(vec![("id", ids(&values))])).unwrap();
    }
    let body = writer.into_inner().unwrap();
    assert_eq!(decode(&schema, body.clone()).unwrap(), batch(vec![("id", ids(&[1, 2, 3]))]));
    // The end may be marked or not.
    assert_eq!(decode(&schema, body[..body.len() - 8].to_vec()).unwrap().num_rows(), 3);
    let limits = DecodeLimits { rows: 2, ..DecodeLimits::default() };
    assert_eq!(decode_within(&schema, limits, body).unwrap_err().code, DecodeCode::TooManyRows);
}

#[test]
fn a_stream_without_batches_has_no_rows() {
    let schema = varied().schema();
    let body = StreamWriter::try_new(Vec::new(), &schema).unwrap().into_inner().unwrap();
    assert_eq!(decode(&schema, body).unwrap(), RecordBatch::new_empty(schema));
}

#[test]
fn text_may_come_in_any_layout() {
    let wanted = batch(vec![("t", texts(&["a", "text that is longer than a view"]))]);
    let values = vec!["a", "text that is longer than a view"];
    let sent: [ArrayRef; 2] =
        [Arc::new(LargeStringArray::from(values.clone())), Arc::new(StringViewArray::from(values))];
    for column in sent {
        let body = encode(&batch(vec![("t", column)])).unwrap();
        assert_eq!(decode(&wanted.schema(), body).unwrap(), wanted);
    }
}

#[test]
fn views_that_share_their_bytes_are_not_multiplied() {
    let text = "x".repeat(1000);
    let one = StringViewArray::from(vec![text.as_str()]);
    let rows = arrow::compute::take(&one, &arrow::array::UInt32Array::from(vec![0; 1000]), None).unwrap();
    let body = encode(&batch(vec![("t", rows)])).unwrap();
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, false)]));
    decode(&schema, body.clone()).unwrap();
    let limits = DecodeLimits { body_bytes: 100_000, ..DecodeLimits::default() };
    assert_eq!(decode_within(&schema, limits, body).unwrap_err().code, DecodeCode::TooLarge);
}

#[test]
fn fields_that_may_be_null_may_be_left_out() {
    let schema = varied().schema();
    let body = encode(&varied().project(&[0, 1, 3, 5]).unwrap()).unwrap();
    let decoded = decode(&schema, body).unwrap();
    assert_eq!((decoded.column(2).null_count(), decoded.column(4).null_count()), (3, 3));
    let limits = DecodeLimits { absent_bytes: 10, ..DecodeLimits::default() };
    let body = encode(&varied().project(&[0, 1, 3, 5]).unwrap()).unwrap();
    assert_eq!(decode_within(&schema, limits, body).unwrap_err().code, DecodeCode::TooLarge);
}

#[test]
fn fields_that_are_not_those_of_the_schema() {
    let schema = batch(vec![("amount", ids(&[])), ("name", texts(&[]))]).schema();
    let body = |columns| encode(&batch(columns)).unwrap();
    let (amount, name) = (|| ("amount", ids(&[1])), || ("name", texts(&["a"])));
    let message =
        check_refused(&schema, body(vec![amount(), ("nmae", texts(&["a"]))]), "unknown_field", Some("nmae"));
    assert_eq!(message, "no field `nmae`; did you mean `name`?");
    check_refused(&schema, body(vec![amount()]), "missing_field", Some("name"));
    check_refused(&schema, body(vec![amount(), name(), amount()]), "duplicate_field", Some("amount"));
    let message =
        check_refused(&schema, body(vec![("amount", texts(&["1"])), name()]), "wrong_type", Some("amount"));
    assert_eq!(message, "must be Int64, but is Utf8");
    check_refused(&schema, body(vec![amount(), ("name", ids(&[1]))]), "wrong_type", Some("name"));
    let dictionary: DictionaryArray<UInt8Type> = ["a", "a"].into_iter().collect();
    let message = check_refused(
        &schema,
        body(vec![("amount", ids(&[1, 2])), ("name", Arc::new(dictionary))]),
        "wrong_type",
        Some("name"),
    );
    assert_eq!(message, "must be plain, but is encoded by a dictionary");
}

#[test]
fn nulls_where_none_may_be() {
    let schema = batch(vec![("id", ids(&[]))]).schema();
    let body = encode(&batch(vec![("id", Arc::new(Int64Array::from(vec![Some(1), None])))])).unwrap();
    let error = decode(&schema, body).unwrap_err();
    assert_eq!((error.code.name(), error.field.as_deref(), error.row), ("wrong_type", Some("id"), Some(1)));
}

#[test]
fn bodies_that_are_no_stream() {
    let batch = varied();
    let (schema, body) = (batch.schema(), encode(&batch).unwrap());
    check_refused(&schema, Vec::new(), "truncated", None);
    check_refused(&schema, br#"{"id":1}"#.to_vec(), "malformed", None);
    check_refused(&schema, [body.as_slice(), b"x"].concat(), "trailing", None);
    check_refused(&schema, [body.as_slice(), &body].concat(), "trailing", None);
    // A claim of any length is not believed.
    check_refused(&schema, [[0xFF; 4], [0xFF, 0xFF, 0xFF, 0x7F]].concat(), "truncated", None);
    let limits = DecodeLimits { body_bytes: body.len() - 1, ..DecodeLimits::default() };
    assert_eq!(decode_within(&schema, limits, body).unwrap_err().code, DecodeCode::TooLarge);
}

#[test]
fn types_that_cannot_be_read() {
    let union = DataType::Union(arrow::datatypes::UnionFields::empty(), arrow::datatypes::UnionMode::Sparse);
    let fields = [union, DataType::Null, DataType::FixedSizeBinary(0), DataType::Int8];
    let fields: Vec<Field> = fields.into_iter().map(|data_type| Field::new("x", data_type, true)).collect();
    let problems = Decoder::new(Arc::new(Schema::new(fields)), DecodeLimits::default()).unwrap_err();
    assert_eq!(problems.problems().len(), 3, "{problems}");
}

#[test]
fn every_damaged_bit_is_refused_or_read() {
    let batch = varied();
    let (schema, body) = (batch.schema(), encode(&batch).unwrap());
    for bit in 0..body.len() * 8 {
        let mut body = body.clone();
        body[bit / 8] ^= 1 << (bit % 8);
        if let Ok(decoded) = decode(&schema, body) {
            check_usable(&decoded);
        }
    }
}

#[test]
fn a_stream_cut_anywhere_is_refused_or_ends_between_batches() {
    let batch = varied();
    let (schema, body) = (batch.schema(), encode(&batch).unwrap());
    for cut in 0..body.len() {
        match decode(&schema, body[..cut].to_vec()) {
            Ok(decoded) => assert!(decoded.num_rows() == 0 || decoded == batch, "{cut}"),
            Err(error) => assert_eq!(error.code, DecodeCode::Truncated, "{cut}: {error:?}"),
        }
    }
}

/// What was accepted must be sound, to the last offset.
fn check_usable(decoded: &RecordBatch) {
    for column in decoded.columns() {
        column.to_data().validate_full().unwrap();
        if let Some(text) = column.as_string_opt::<i32>() {
            text.iter().flatten().for_each(|text| assert!(text.len() < 1 << 20));
        }
    }
}

#[test]
fn older_alignment_is_read_too() {
    let batch = varied();
    let options = IpcWriteOptions::try_new(8, false, arrow::ipc::MetadataVersion::V5).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    assert_eq!(decode(&batch.schema(), writer.into_inner().unwrap()).unwrap(), batch);
}

proptest! {
    #[test]
    fn damaged_streams_are_refused_or_read(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let batch = varied();
        let mut body = encode(&batch).unwrap();
        for (at, byte, how) in damage {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
        }
        if let Ok(decoded) = decode(&batch.schema(), body) {
            check_usable(&decoded);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let framed = [&[0xFF; 4][..], &u32::try_from(bytes.len()).unwrap().to_le_bytes(), &bytes].concat();
        let schema = varied().schema();
        prop_assert!(decode(&schema, bytes).is_err());
        prop_assert!(decode(&schema, framed).is_err());
    }
}
