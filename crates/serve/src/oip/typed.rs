//! Values that come in fields by their type.

use super::{datatype::Datatype, grpc::InferTensorContents, inputs::one, request::malformed};
use crate::wire::{DecodeCode, DecodeError, json::Column};

/// Adds the values of the field that is there for a type.
pub(super) fn typed_values(
    datatype: Datatype,
    contents: &InferTensorContents,
    values: usize,
    column: &mut Column<'_, '_>,
) -> Result<(), DecodeError> {
    let InferTensorContents {
        bool_contents: bools,
        int_contents: ints,
        int64_contents: longs,
        uint_contents: uints,
        uint64_contents: ulongs,
        fp32_contents: floats,
        fp64_contents: doubles,
        bytes_contents: texts,
    } = contents;
    let count = |field: &str, count: usize| {
        if count == values {
            return Ok(());
        }
        Err(malformed(format!("has {count} values in `{field}` where its shape has {values}")))
    };
    // Numbers of a type become the bytes that a column takes whole.
    macro_rules! numbers {
        ($field:literal, $values:expr, $type:ty) => {{
            count($field, $values.len())?;
            let mut bytes = Vec::with_capacity(values.saturating_mul(size_of::<$type>()));
            for value in $values {
                match <$type>::try_from(*value) {
                    Ok(value) => bytes.extend_from_slice(&value.to_le_bytes()),
                    Err(_) => {
                        let message = format!("`{}` has {value}, which is out of range", $field);
                        return Err(DecodeError::new(DecodeCode::OutOfRange, message));
                    }
                }
            }
            column.raw(&bytes).map_err(|(code, told)| DecodeError::new(code, format!("`{}` {told}", $field)))
        }};
    }
    match datatype {
        Datatype::Bool => numbers!("bool_contents", bools, u8),
        Datatype::Int8 => numbers!("int_contents", ints, i8),
        Datatype::Int16 => numbers!("int_contents", ints, i16),
        Datatype::Int32 => numbers!("int_contents", ints, i32),
        Datatype::Int64 => numbers!("int64_contents", longs, i64),
        Datatype::Uint8 => numbers!("uint_contents", uints, u8),
        Datatype::Uint16 => numbers!("uint_contents", uints, u16),
        Datatype::Uint32 => numbers!("uint_contents", uints, u32),
        Datatype::Uint64 => numbers!("uint64_contents", ulongs, u64),
        Datatype::Fp16 => Err(malformed("FP16 comes in `raw_input_contents` only")),
        Datatype::Fp32 => numbers!("fp32_contents", floats, f32),
        Datatype::Fp64 => numbers!("fp64_contents", doubles, f64),
        Datatype::Bytes => {
            count("bytes_contents", texts.len())?;
            texts.iter().try_for_each(|text| one(column, |column| column.bytes(text)))
        }
    }
}
