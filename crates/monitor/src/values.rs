//! Columns of a batch into sketches.

use arrow::{
    array::{
        Array, ArrayRef, ArrowNumericType, ArrowPrimitiveType, AsArray, PrimitiveArray, StringArrayType,
    },
    compute::{max, min},
    datatypes::{
        DataType, Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use crate::{
    layout::Kind,
    sketch::{Numbers, Sketch, Times},
};

/// Adds the values of a column. Answers whether they were of the kind that is counted.
pub(crate) fn add(kind: &Kind, array: &ArrayRef, sketch: &mut Sketch) -> bool {
    match sketch {
        Sketch::Numbers(sketch) => add_numbers(array, kind.edges(), sketch),
        Sketch::Labels(sketch) => labels(array, &mut |_, label| match label {
            Some(label) => sketch.add(label),
            None => sketch.add_nulls(1),
        }),
        Sketch::Presence(presence) => {
            let nulls = array.logical_null_count() as u64;
            presence.nulls += nulls;
            presence.values += array.len() as u64 - nulls;
            true
        }
        Sketch::Times(times) => add_times(array, times),
    }
}

fn add_numbers(array: &ArrayRef, edges: &[f64], sketch: &mut Numbers) -> bool {
    let (mut some, mut filled) = ([0.0; 64], 0);
    let nulls = numbers(array, &mut |_, value| {
        some[filled] = value;
        filled += 1;
        if filled == some.len() {
            sketch.add_all(edges, &some);
            filled = 0;
        }
    });
    sketch.add_all(edges, &some[..filled]);
    nulls.map(|nulls| sketch.add_nulls(nulls)).is_some()
}

/// Tells of each row its number, if it has one. Answers how many have none, or nothing if the array is not of numbers.
pub(crate) fn numbers(array: &ArrayRef, each: &mut impl FnMut(usize, f64)) -> Option<u64> {
    numbers_of(array.data_type(), array, each)
}

/// The same of an array whose type is known.
#[inline(always)]
fn numbers_of(data_type: &DataType, array: &ArrayRef, each: &mut impl FnMut(usize, f64)) -> Option<u64> {
    macro_rules! of {
        ($($data_type:ident => $primitive:ty, $value:expr;)*) => {
            match data_type {
                $(DataType::$data_type => Some(primitive(array.as_primitive_opt::<$primitive>()?, each, $value)),)*
                DataType::Dictionary(..) => {
                    let array = arrow::compute::cast(array, &DataType::Float64).ok()?;
                    Some(primitive(array.as_primitive::<Float64Type>(), each, |value| value))
                }
                _ => None,
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
}

/// Puts the numbers of an array down, so many places apart. Answers how many rows have none, whose places stay as they are, or nothing if
/// the array is not of numbers.
pub(crate) type Put = fn(&ArrayRef, &mut [f64], usize) -> Option<u64>;

/// How numbers of a type are put down.
pub(crate) fn putting(data_type: &DataType) -> Put {
    macro_rules! of {
        ($($data_type:ident)*) => {
            match data_type {
                $(DataType::$data_type => |array, places, apart| put(&DataType::$data_type, array, places, apart),)*
                _ => |array, places, apart| put(array.data_type(), array, places, apart),
            }
        };
    }
    of!(Float64 Float32 Float16 Int64 Int32 Int16 Int8 UInt64 UInt32 UInt16 UInt8)
}

// Inline, so that what is done for one type is all that is left of it.
#[inline(always)]
fn put(data_type: &DataType, array: &ArrayRef, places: &mut [f64], apart: usize) -> Option<u64> {
    numbers_of(data_type, array, &mut |row, value| {
        if let Some(place) = places.get_mut(row * apart) {
            *place = if value.is_nan() { f64::NAN } else { value };
        }
    })
}

#[inline]
fn primitive<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    each: &mut impl FnMut(usize, f64),
    value: impl Fn(T::Native) -> f64,
) -> u64 {
    if array.null_count() == 0 {
        array.values().iter().enumerate().for_each(|(row, native)| each(row, value(*native)));
    } else {
        let some = array.iter().enumerate().filter_map(|(row, native)| Some((row, native?)));
        some.for_each(|(row, native)| each(row, value(native)));
    }
    array.null_count() as u64
}

/// Adds times, which are of UTC where they have no zone.
fn add_times(array: &ArrayRef, sketch: &mut Times) -> bool {
    let range = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            range::<TimestampSecondType>(array, |time| time.saturating_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            range::<TimestampMillisecondType>(array, |time| time.saturating_mul(1000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            range::<TimestampMicrosecondType>(array, |time| time)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            range::<TimestampNanosecondType>(array, |time| time.div_euclid(1000))
        }
        DataType::Date32 => range::<Date32Type>(array, |day| i64::from(day).saturating_mul(DAY)),
        DataType::Date64 => range::<Date64Type>(array, |time| time.saturating_mul(1000)),
        DataType::Dictionary(_, values) => {
            return arrow::compute::cast(array, values).is_ok_and(|array| add_times(&array, sketch));
        }
        _ => return false,
    };
    let nulls = array.null_count() as u64;
    if let Some(range) = range {
        sketch.add(array.len() as u64 - nulls, range);
    }
    sketch.add_nulls(nulls);
    true
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// The earliest and the latest of times, in microseconds.
fn range<T: ArrowNumericType>(array: &ArrayRef, micros: impl Fn(T::Native) -> i64) -> Option<(i64, i64)> {
    let array = array.as_primitive::<T>();
    min(array).map(&micros).zip(max(array).map(&micros))
}

/// Tells of each row its category, if it has one. Answers whether the array has any.
pub(crate) fn labels(array: &ArrayRef, each: &mut impl FnMut(usize, Option<&str>)) -> bool {
    labels_of(array.data_type(), array, each)
}

/// The same of an array whose type is known.
#[inline]
pub(crate) fn labels_of(
    data_type: &DataType,
    array: &ArrayRef,
    each: &mut impl FnMut(usize, Option<&str>),
) -> bool {
    match data_type {
        DataType::Utf8 => array.as_string_opt::<i32>().map(|array| texts(array, each)).is_some(),
        DataType::LargeUtf8 => array.as_string_opt::<i64>().map(|array| texts(array, each)).is_some(),
        DataType::Utf8View => array.as_string_view_opt().map(|array| texts(array, each)).is_some(),
        DataType::Boolean => {
            let named = |value: bool| if value { "true" } else { "false" };
            let each = |(row, value): (usize, Option<bool>)| each(row, value.map(named));
            array.as_boolean_opt().map(|array| array.iter().enumerate().for_each(each)).is_some()
        }
        other if other.is_integer() || matches!(other, DataType::Dictionary(..)) => {
            arrow::compute::cast(array, &DataType::Utf8).is_ok_and(|array| labels(&array, each))
        }
        _ => false,
    }
}

#[inline]
#[expect(clippy::needless_pass_by_value, reason = "what has this trait is a reference")]
fn texts<'a>(array: impl StringArrayType<'a>, each: &mut impl FnMut(usize, Option<&str>)) {
    if array.null_count() == 0 {
        // An iterator would ask for nulls first.
        (0..array.len()).for_each(|row| each(row, Some(array.value(row))));
    } else {
        array.iter().enumerate().for_each(|(row, label)| each(row, label));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Date64Array, DictionaryArray, Int8Array, StringArray, TimestampMicrosecondArray,
        TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
    };

    use super::*;
    use crate::layout;

    #[test]
    fn times_are_counted_in_microseconds_whatever_their_unit() {
        let some = || vec![Some(2), None, Some(5)];
        let values = Arc::new(TimestampMicrosecondArray::from(vec![2, 5]));
        let dictionary = DictionaryArray::new(Int8Array::from(vec![Some(0), None, Some(1)]), values);
        let cases: [(ArrayRef, i64); 7] = [
            (Arc::new(TimestampSecondArray::from(some())), 1_000_000),
            (Arc::new(TimestampMillisecondArray::from(some()).with_timezone("UTC")), 1000),
            (Arc::new(TimestampMicrosecondArray::from(some())), 1),
            (Arc::new(TimestampNanosecondArray::from(vec![Some(2000), None, Some(5999)])), 1),
            (Arc::new(Date32Array::from(vec![Some(2), None, Some(5)])), DAY),
            (Arc::new(Date64Array::from(some())), 1000),
            (Arc::new(dictionary), 1),
        ];
        for (array, unit) in cases {
            let kind = layout::kind(array.data_type(), false, None);
            let mut sketch = kind.sketch();
            assert!(add(&kind, &array, &mut sketch), "{:?}", array.data_type());
            let Sketch::Times(times) = &sketch else { panic!("{:?}", array.data_type()) };
            let counted = (times.values(), times.nulls(), times.range());
            assert_eq!(counted, (2, 1, Some((2 * unit, 5 * unit))), "{:?}", array.data_type());
            let text = Arc::new(StringArray::from(vec!["2"])) as ArrayRef;
            assert!(!add(&kind, &text, &mut sketch));
        }
    }
}
