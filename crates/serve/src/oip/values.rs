//! Values of tensors as JSON and as bytes.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef, AsArray, PrimitiveArray},
    buffer::NullBuffer,
    datatypes::{
        ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, ToByteSlice, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An array of JSON.
    Json,
    /// As they lie in memory, little end first; before each text, its length in 32 bits.
    Binary,
}

impl Form {
    /// Appends values, one after the other.
    pub(super) fn list<T, E>(
        self,
        out: &mut Vec<u8>,
        values: impl Iterator<Item = T>,
        mut write: impl FnMut(T, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self == Self::Binary {
            return values.into_iter().try_for_each(|value| write(value, out));
        }
        out.push(b'[');
        let start = out.len();
        for value in values {
            if out.len() > start {
                out.push(b',');
            }
            write(value, out)?;
        }
        out.push(b']');
        Ok(())
    }

    /// Appends a text; none if it is none, and would have to be.
    pub(super) fn text(self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Json => {
                // A string into memory does not fail.
                serde_json::to_writer(out, std::str::from_utf8(text).ok()?).ok()
            }
            Self::Binary => {
                out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
                out.extend_from_slice(text);
                Some(())
            }
        }
    }

    pub(super) fn bools(self, values: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
        let write = |value: bool, out: &mut Vec<u8>| {
            match self {
                Self::Json => out.extend_from_slice(if value { b"true" } else { b"false" }),
                Self::Binary => out.push(u8::from(value)),
            }
            Ok::<(), std::convert::Infallible>(())
        };
        // It cannot fail, as its type says.
        let Ok(()) = self.list(out, values, write);
    }
}

/// Does something with an array of numbers under its own type.
macro_rules! with_numbers {
    (@ $type:ty, $array:expr, $numbers:ident => $body:expr) => {{
        let $numbers = $array.as_primitive_opt::<$type>()?;
        $body
    }};
    ($array:expr, $numbers:ident => $body:expr, $other:expr) => {
        match $array.data_type() {
            DataType::Int8 => with_numbers!(@ Int8Type, $array, $numbers => $body),
            DataType::Int16 => with_numbers!(@ Int16Type, $array, $numbers => $body),
            DataType::Int32 => with_numbers!(@ Int32Type, $array, $numbers => $body),
            DataType::Int64 => with_numbers!(@ Int64Type, $array, $numbers => $body),
            DataType::UInt8 => with_numbers!(@ UInt8Type, $array, $numbers => $body),
            DataType::UInt16 => with_numbers!(@ UInt16Type, $array, $numbers => $body),
            DataType::UInt32 => with_numbers!(@ UInt32Type, $array, $numbers => $body),
            DataType::UInt64 => with_numbers!(@ UInt64Type, $array, $numbers => $body),
            DataType::Float16 => with_numbers!(@ Float16Type, $array, $numbers => $body),
            DataType::Float32 => with_numbers!(@ Float32Type, $array, $numbers => $body),
            DataType::Float64 => with_numbers!(@ Float64Type, $array, $numbers => $body),
            _ => $other,
        }
    };
}

/// Appends the values of an array. Null is NaN where there is one, else zero, `false`, or nothing.
pub(super) fn write(
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    form: Form,
    out: &mut Vec<u8>,
) -> Option<()> {
    let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
    if let Some(array) = array.as_boolean_opt() {
        form.bools((0..array.len()).map(|row| valid(row) && array.value(row)), out);
        return Some(());
    }
    with_numbers!(array, numbers => {
        numbers_of(numbers, nulls, form, out);
        Some(())
    }, {
        let texts = |row: usize| if valid(row) { bytes_of(array, row) } else { Some(&[][..]) };
        form.list(out, 0..array.len(), |row, out| texts(row).and_then(|text| form.text(text, out)).ok_or(())).ok()
    })
}

fn numbers_of<T: Number>(
    numbers: &PrimitiveArray<T>,
    nulls: Option<&NullBuffer>,
    form: Form,
    out: &mut Vec<u8>,
) {
    if let (Form::Binary, None) = (form, nulls) {
        out.extend_from_slice(numbers.values().inner().as_slice());
        return;
    }
    let write = |row: usize, out: &mut Vec<u8>| {
        let valid = nulls.is_none_or(|nulls| nulls.is_valid(row));
        let value = if valid { numbers.value(row) } else { T::NULL };
        match form {
            Form::Json => T::write(value, out),
            Form::Binary => out.extend_from_slice(value.to_byte_slice()),
        }
        Ok::<(), std::convert::Infallible>(())
    };
    // It cannot fail, as its type says.
    let Ok(()) = form.list(out, 0..numbers.len(), write);
}

/// The bytes of a text.
fn bytes_of(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string_opt::<i32>()?.value(row).as_bytes(),
        DataType::LargeUtf8 => array.as_string_opt::<i64>()?.value(row).as_bytes(),
        DataType::Utf8View => array.as_string_view_opt()?.value(row).as_bytes(),
        DataType::Binary => array.as_binary_opt::<i32>()?.value(row),
        DataType::LargeBinary => array.as_binary_opt::<i64>()?.value(row),
        DataType::BinaryView => array.as_binary_view_opt()?.value(row),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary_opt()?.value(row),
        _ => return None,
    })
}

/// Of each row the `most` greatest values, as `value:place` or `value:place:label`.
pub(super) fn classes(
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    rows: usize,
    most: usize,
    labels: &[String],
) -> Option<Vec<String>> {
    with_numbers!(array, numbers => Some(classes_of(numbers, nulls, rows, most, labels)), None)
}

fn classes_of<T: Number>(
    numbers: &PrimitiveArray<T>,
    nulls: Option<&NullBuffer>,
    rows: usize,
    most: usize,
    labels: &[String],
) -> Vec<String> {
    let width = numbers.len().checked_div(rows).unwrap_or(0);
    let mut classes = Vec::with_capacity(rows * width.min(most));
    let mut places: Vec<usize> = Vec::new();
    for row in 0..rows {
        let value = |place: usize| {
            let at = row * width + place;
            if nulls.is_none_or(|nulls| nulls.is_valid(at)) { numbers.value(at) } else { T::NULL }
        };
        places.clear();
        places.extend(0..width);
        // Of equal values the first comes first.
        places.sort_by(|a, b| T::order(value(*b), value(*a)));
        for &place in places.iter().take(most) {
            let label = labels.get(place).map_or(String::new(), |label| format!(":{label}"));
            classes.push(format!("{}:{place}{label}", T::in_classes(value(place))));
        }
    }
    classes
}

/// A number, as replies have it.
trait Number: ArrowPrimitiveType {
    /// What stands for null.
    const NULL: Self::Native;

    /// Appends it as JSON, or as one of the words that stand for what JSON lacks.
    fn write(value: Self::Native, out: &mut Vec<u8>);

    /// NaN is the least.
    fn order(a: Self::Native, b: Self::Native) -> Ordering;

    /// As C's `printf` writes it.
    fn in_classes(value: Self::Native) -> String;
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Number for $type {
            const NULL: Self::Native = 0;

            fn write(value: Self::Native, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            }

            fn order(a: Self::Native, b: Self::Native) -> Ordering {
                a.cmp(&b)
            }

            fn in_classes(value: Self::Native) -> String {
                value.to_string()
            }
        })*
    };
}

integers!(Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type);

macro_rules! floats {
    ($($type:ty, $nan:expr, $wide:expr;)*) => {
        $(impl Number for $type {
            const NULL: Self::Native = $nan;

            fn write(value: Self::Native, out: &mut Vec<u8>) {
                let value = $wide(value);
                if value.is_finite() {
                    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
                    return;
                }
                let word = if value.is_nan() { "NaN" } else if value > 0.0 { "Infinity" } else { "-Infinity" };
                out.extend_from_slice(word.as_bytes());
            }

            fn order(a: Self::Native, b: Self::Native) -> Ordering {
                b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(&b).unwrap_or(Ordering::Equal))
            }

            fn in_classes(value: Self::Native) -> String {
                format!("{:.6}", $wide(value)).to_ascii_lowercase()
            }
        })*
    };
}

type Half = <Float16Type as ArrowPrimitiveType>::Native;

floats! {
    Float16Type, Half::NAN, Half::to_f32;
    Float32Type, f32::NAN, std::convert::identity::<f32>;
    Float64Type, f64::NAN, std::convert::identity::<f64>;
}
