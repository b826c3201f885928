//! Cells: one value of one feature, as the bits a row holds or as text, and the Arrow types that have such cells.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray},
    compute::kernels::cast_utils::string_to_datetime,
    datatypes::{DataType, TimeUnit},
    util::display::array_value_to_string,
};
use chrono::Utc;
use half::f16;
use serde_json::Value;

/// Runs `$body` with `$T` as the Arrow primitive type of `$data_type`, or `$other` when cells have no such type.
macro_rules! with_primitive {
    ($data_type:expr, $T:ident => $body:expr, _ => $other:expr) => {{
        use arrow::datatypes::{DataType as D, TimeUnit as U, *};
        match $data_type {
            D::Int8 => {
                type $T = Int8Type;
                $body
            }
            D::Int16 => {
                type $T = Int16Type;
                $body
            }
            D::Int32 => {
                type $T = Int32Type;
                $body
            }
            D::Int64 => {
                type $T = Int64Type;
                $body
            }
            D::UInt8 => {
                type $T = UInt8Type;
                $body
            }
            D::UInt16 => {
                type $T = UInt16Type;
                $body
            }
            D::UInt32 => {
                type $T = UInt32Type;
                $body
            }
            D::UInt64 => {
                type $T = UInt64Type;
                $body
            }
            D::Float16 => {
                type $T = Float16Type;
                $body
            }
            D::Float32 => {
                type $T = Float32Type;
                $body
            }
            D::Float64 => {
                type $T = Float64Type;
                $body
            }
            D::Date32 => {
                type $T = Date32Type;
                $body
            }
            D::Timestamp(U::Second, _) => {
                type $T = TimestampSecondType;
                $body
            }
            D::Timestamp(U::Millisecond, _) => {
                type $T = TimestampMillisecondType;
                $body
            }
            D::Timestamp(U::Microsecond, _) => {
                type $T = TimestampMicrosecondType;
                $body
            }
            D::Timestamp(U::Nanosecond, _) => {
                type $T = TimestampNanosecondType;
                $body
            }
            _ => $other,
        }
    }};
}
pub(crate) use with_primitive;

/// How wide a feature's cell is in a packed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Width {
    /// Eight bytes.
    W8,
    /// Where the text lies in the side arena; eight bytes.
    Text,
    /// Four bytes.
    W4,
    /// Two bytes.
    W2,
    /// One byte.
    W1,
    /// A truth value; one byte in a row, one bit in a column.
    Bit,
}

impl Width {
    /// The width of a type's cells; `None` for types the store does not hold.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Bit),
            DataType::Utf8 => Some(Self::Text),
            other => with_primitive!(other, T => match size_of::<<T as ArrowPrimitiveType>::Native>() {
                8 => Some(Self::W8),
                4 => Some(Self::W4),
                2 => Some(Self::W2),
                _ => Some(Self::W1),
            }, _ => None),
        }
    }

    /// Bytes of a cell in a row.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::W8 | Self::Text => 8,
            Self::W4 => 4,
            Self::W2 => 2,
            Self::W1 | Self::Bit => 1,
        }
    }
}

/// A native value as bits, so that cells of all types are moved by the same code.
pub(crate) trait Bits: Copy {
    fn to_cell(self) -> u64;
    fn from_cell(bits: u64) -> Self;
    /// The value as a number, for statistics.
    fn as_f64(self) -> f64;
    /// The order of values; of floats the total one.
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! int_bits {
    ($($native:ty as $unsigned:ty),*) => {$(
        impl Bits for $native {
            fn to_cell(self) -> u64 { u64::from(self as $unsigned) }
            fn from_cell(bits: u64) -> Self { bits as $unsigned as $native }
            fn as_f64(self) -> f64 { self as f64 }
            fn order(&self, other: &Self) -> Ordering { self.cmp(other) }
        }
    )*};
}
int_bits!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, u8 as u8, u16 as u16, u32 as u32, u64 as u64);

impl Bits for f32 {
    fn to_cell(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn from_cell(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
    fn order(&self, other: &Self) -> Ordering {
        self.total_cmp(other)
    }
}

impl Bits for f64 {
    fn to_cell(self) -> u64 {
        self.to_bits()
    }
    fn from_cell(bits: u64) -> Self {
        Self::from_bits(bits)
    }
    fn as_f64(self) -> f64 {
        self
    }
    fn order(&self, other: &Self) -> Ordering {
        self.total_cmp(other)
    }
}

impl Bits for f16 {
    fn to_cell(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn from_cell(bits: u64) -> Self {
        Self::from_bits(bits as u16)
    }
    fn as_f64(self) -> f64 {
        self.to_f64()
    }
    fn order(&self, other: &Self) -> Ordering {
        self.total_cmp(other)
    }
}

/// One value of one feature. Its type is the feature's; nobody mixes them up because a cell is only made for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell(pub(crate) CellValue);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CellValue {
    Bits(u64),
    Text(Arc<str>),
}

impl Cell {
    /// Reads a JSON value as a cell of `data_type`; `None` when it does not fit without loss (a float may be rounded to
    /// the nearest one the type has). Dates and timestamps are strings.
    pub fn from_json(value: &Value, data_type: &DataType) -> Option<Self> {
        let bits = |text: &str| bits_of_text(text, data_type).map(|bits| Self(CellValue::Bits(bits)));
        match (value, data_type) {
            (Value::String(text), DataType::Utf8) => Some(Self(CellValue::Text(text.as_str().into()))),
            (Value::String(text), DataType::Date32 | DataType::Timestamp(..)) => bits(text),
            (Value::Bool(value), DataType::Boolean) => Some(Self(CellValue::Bits(u64::from(*value)))),
            (Value::Number(number), _) if data_type.is_numeric() => bits(&number.to_string()),
            _ => None,
        }
    }

    /// A number as a cell of a numeric type: rounded to the nearest integer for integer types.
    pub(crate) fn from_f64(value: f64, data_type: &DataType) -> Option<Self> {
        let bits = match data_type {
            DataType::Float16 => f16::from_f64(value).to_cell(),
            DataType::Float32 => (value as f32).to_cell(),
            DataType::Float64 => value.to_cell(),
            integer if integer.is_integer() => bits_of_text(&format!("{:.0}", value.round()), integer)?,
            _ => return None,
        };
        Some(Self(CellValue::Bits(bits)))
    }
}

/// Reads text as the bits of a cell of a fixed-width type. Integers may be written as floats without a fraction
/// (`3.0`), because some writers have only floats.
pub(crate) fn bits_of_text(text: &str, data_type: &DataType) -> Option<u64> {
    let text = text.trim();
    match data_type {
        DataType::Boolean => match text {
            "true" | "True" | "TRUE" => Some(1),
            "false" | "False" | "FALSE" => Some(0),
            _ => None,
        },
        DataType::Date32 => {
            let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            let days = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
            i32::try_from(days).ok().map(Bits::to_cell)
        }
        DataType::Timestamp(unit, _) => {
            let time = string_to_datetime(&Utc, text).ok()?;
            let ticks = match unit {
                TimeUnit::Second => time.timestamp(),
                TimeUnit::Millisecond => time.timestamp_millis(),
                TimeUnit::Microsecond => time.timestamp_micros(),
                TimeUnit::Nanosecond => time.timestamp_nanos_opt()?,
            };
            Some(ticks.to_cell())
        }
        DataType::Float16 => float(text, |f: f32| (f.is_finite(), f16::from_f32(f).to_cell())),
        DataType::Float32 => float(text, |f: f32| (f.is_finite(), f.to_cell())),
        DataType::Float64 => float(text, |f: f64| (f.is_finite(), f.to_cell())),
        DataType::Int8 => integer::<i8>(text),
        DataType::Int16 => integer::<i16>(text),
        DataType::Int32 => integer::<i32>(text),
        DataType::Int64 => integer::<i64>(text),
        DataType::UInt8 => integer::<u8>(text),
        DataType::UInt16 => integer::<u16>(text),
        DataType::UInt32 => integer::<u32>(text),
        DataType::UInt64 => integer::<u64>(text),
        _ => None,
    }
}

fn integer<N: Bits + std::str::FromStr + TryFrom<i64>>(text: &str) -> Option<u64> {
    if let Ok(value) = text.parse::<N>() {
        return Some(value.to_cell());
    }
    // Beyond 2^53 a float may already have lost the integer that was meant.
    let float =
        text.parse::<f64>().ok().filter(|f| f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0)?;
    N::try_from(float as i64).ok().map(Bits::to_cell)
}

/// Digits that overflow to infinity do not fit; an infinity that is written out does.
fn float<F: std::str::FromStr>(text: &str, cell: impl Fn(F) -> (bool, u64)) -> Option<u64> {
    let (finite, bits) = cell(text.parse().ok()?);
    (finite || !text.bytes().any(|byte| byte.is_ascii_digit())).then_some(bits)
}

impl Cell {
    /// The cell as a column of one row, of the type that it was made for.
    #[cfg(feature = "offline")]
    pub(crate) fn column(&self, data_type: &DataType) -> ArrayRef {
        match &self.0 {
            CellValue::Bits(bits) => column_of_bits(&[Some(*bits)], data_type)
                .unwrap_or_else(|| arrow::array::new_null_array(data_type, 1)),
            CellValue::Text(text) => Arc::new(arrow::array::StringArray::from(vec![text.as_ref()])),
        }
    }
}

/// A column of a fixed-width type from the bits of its cells, or of text from its texts.
pub(crate) fn column_of_bits(bits: &[Option<u64>], data_type: &DataType) -> Option<ArrayRef> {
    if *data_type == DataType::Boolean {
        return Some(Arc::new(bits.iter().map(|bit| bit.map(|bit| bit != 0)).collect::<BooleanArray>()));
    }
    with_primitive!(data_type, T => {
        let values = bits.iter().map(|bits| bits.map(<T as ArrowPrimitiveType>::Native::from_cell));
        let array: PrimitiveArray<T> = values.collect();
        Some(Arc::new(array.with_data_type(data_type.clone())))
    }, _ => None)
}

/// The bits of every value of a fixed-width column; what stands under a null is of no meaning.
pub(crate) fn each_bits(column: &dyn Array, mut sink: impl FnMut(usize, u64)) {
    if let Some(column) = column.as_boolean_opt() {
        column.values().iter().enumerate().for_each(|(row, bit)| sink(row, u64::from(bit)));
        return;
    }
    with_primitive!(column.data_type(), T => {
        let values = column.as_primitive::<T>().values();
        values.iter().enumerate().for_each(|(row, value)| sink(row, value.to_cell()));
    }, _ => ());
}

/// The number that `bits` are, for statistics; `None` for types that are no numbers.
pub(crate) fn number(bits: u64, data_type: &DataType) -> Option<f64> {
    if !data_type.is_numeric() {
        return None;
    }
    with_primitive!(data_type, T => Some(<T as ArrowPrimitiveType>::Native::from_cell(bits).as_f64()), _ => None)
}

/// Puts the bits of cells of a fixed-width type into the order of their values.
pub(crate) fn sort_bits(bits: &mut [u64], data_type: &DataType) {
    with_primitive!(data_type, T => {
        type Native = <T as ArrowPrimitiveType>::Native;
        bits.sort_unstable_by(|a, b| Native::from_cell(*a).order(&Native::from_cell(*b)));
    }, _ => bits.sort_unstable());
}

/// A cell of a fixed-width type as JSON: what [`Cell::from_json`] reads as the same cell, if it is finite.
pub(crate) fn json_of_bits(bits: u64, data_type: &DataType) -> Value {
    let column = column_of_bits(&[Some(bits)], data_type);
    let Some(text) = column.and_then(|column| array_value_to_string(&column, 0).ok()) else {
        return Value::Null;
    };
    match data_type {
        DataType::Boolean => Value::Bool(bits != 0),
        numeric if numeric.is_numeric() => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        _ => Value::String(text),
    }
}

/// The type in which the store holds a column of `data_type`: every kind of string becomes `Utf8`.
pub(crate) fn held_as(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => held_as(values),
        other => other.clone(),
    }
}

/// A text column, whichever way Arrow lays it out.
pub(crate) fn texts(column: &ArrayRef) -> Option<&StringArray> {
    column.as_string_opt::<i32>()
}
