//! Columns of a batch into sketches.

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    datatypes::{
        DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use crate::{
    layout::Kind,
    sketch::{Numbers, Sketch},
};

/// Adds the values of a column. Answers whether they were of the kind that is counted.
pub(crate) fn add(kind: &Kind, array: &ArrayRef, sketch: &mut Sketch) -> bool {
    match (kind, sketch) {
        (Kind::Numeric { edges, .. }, Sketch::Numbers(numbers)) => add_numbers(array, edges, numbers),
        (Kind::Categorical(_), Sketch::Labels(sketch)) => labels(array, &mut |_, label| match label {
            Some(label) => sketch.add(label),
            None => sketch.add_nulls(1),
        }),
        (Kind::Presence, Sketch::Presence(presence)) => {
            let nulls = array.logical_null_count() as u64;
            presence.nulls += nulls;
            presence.values += array.len() as u64 - nulls;
            true
        }
        _ => false,
    }
}

fn add_numbers(array: &ArrayRef, edges: &[f64], numbers: &mut Numbers) -> bool {
    macro_rules! of {
        ($($data_type:ident => $primitive:ty, $value:expr;)*) => {
            match array.data_type() {
                $(DataType::$data_type => primitive(array.as_primitive::<$primitive>(), edges, numbers, $value),)*
                DataType::Dictionary(..) => match arrow::compute::cast(array, &DataType::Float64) {
                    Ok(array) => primitive(array.as_primitive::<Float64Type>(), edges, numbers, |value| value),
                    Err(_) => return false,
                },
                _ => return false,
            }
        };
    }
    of! {
        Float64 => Float64Type, |value| value;
        Float32 => Float32Type, f64::from;
        Float16 => Float16Type, f64::from;
        Int64 => Int64Type, |value| value as f64;
        Int32 => Int32Type, f64::from;
        Int16 => Int16Type, f64::from;
        Int8 => Int8Type, f64::from;
        UInt64 => UInt64Type, |value| value as f64;
        UInt32 => UInt32Type, f64::from;
        UInt16 => UInt16Type, f64::from;
        UInt8 => UInt8Type, f64::from;
    }
    true
}

#[inline]
fn primitive<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    edges: &[f64],
    numbers: &mut Numbers,
    value: impl Fn(T::Native) -> f64,
) {
    if array.null_count() == 0 {
        array.values().iter().for_each(|native| numbers.add(edges, value(*native)));
    } else {
        array.iter().flatten().for_each(|native| numbers.add(edges, value(native)));
        numbers.add_nulls(array.null_count() as u64);
    }
}

/// Tells of each row its category, if it has one. Answers whether the array has any.
pub(crate) fn labels(array: &ArrayRef, each: &mut dyn FnMut(usize, Option<&str>)) -> bool {
    match array.data_type() {
        DataType::Utf8 => {
            array.as_string::<i32>().iter().enumerate().for_each(|(row, label)| each(row, label))
        }
        DataType::LargeUtf8 => {
            array.as_string::<i64>().iter().enumerate().for_each(|(row, label)| each(row, label))
        }
        DataType::Utf8View => {
            array.as_string_view().iter().enumerate().for_each(|(row, label)| each(row, label))
        }
        DataType::Boolean => array.as_boolean().iter().enumerate().for_each(|(row, value)| {
            each(row, value.map(|value| if value { "true" } else { "false" }));
        }),
        other if other.is_integer() || matches!(other, DataType::Dictionary(..)) => {
            match arrow::compute::cast(array, &DataType::Utf8) {
                Ok(array) => return labels(&array, each),
                Err(_) => return false,
            }
        }
        _ => return false,
    }
    true
}
