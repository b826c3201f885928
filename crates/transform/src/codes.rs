//! Which of the listed values a row has.

use ahash::AHashMap;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, LargeStringArray, PrimitiveArray, StringArray,
        StringViewArray,
    },
    datatypes::{
        ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
};
use millstream_graph::StepError;

use crate::Literal;

/// The place of each listed value, by the type of the column.
#[derive(Debug)]
pub(crate) enum Codes {
    Text(AHashMap<Box<str>, u32>),
    Int(AHashMap<i128, u32>),
    Bool([Option<u32>; 2]),
}

impl Codes {
    /// Lists values for a column of type `data_type`; equal values are refused.
    pub(crate) fn new<'a>(
        values: impl IntoIterator<Item = &'a Literal>,
        data_type: &DataType,
    ) -> Result<Self, String> {
        let mut codes = match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text(AHashMap::new()),
            DataType::Boolean => Self::Bool([None, None]),
            other if other.is_integer() => Self::Int(AHashMap::new()),
            other => {
                return Err(format!("listed values need text, whole numbers or true and false, not {other}"));
            }
        };
        for (code, value) in values.into_iter().enumerate() {
            let before = match (&mut codes, value) {
                (Self::Text(codes), Literal::Text(value)) => codes.insert(value.as_str().into(), code as u32),
                (Self::Int(codes), Literal::Int(value)) => codes.insert(*value, code as u32),
                (Self::Bool(codes), Literal::Bool(value)) => codes[usize::from(*value)].replace(code as u32),
                (_, other) => return Err(format!("{other} is not a value of type {data_type}")),
            };
            if before.is_some() {
                return Err(format!("{value} is listed twice"));
            }
        }
        Ok(codes)
    }

    /// Tells `each` the place of every row's value: `Ok(Some(place))`, `Ok(None)` for null, `Err(row)` when it is not
    /// listed.
    pub(crate) fn each(&self, array: &ArrayRef, each: impl FnMut(usize, Place)) -> Result<(), StepError> {
        match self {
            Self::Text(codes) => text(codes, array, each),
            Self::Int(codes) => ints(codes, array, each),
            Self::Bool(codes) => match array.as_boolean_opt() {
                Some(array) => {
                    bools(codes, array, each);
                    Ok(())
                }
                None => Err(unexpected(array)),
            },
        }
    }
}

/// Where a row's value stands in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(u32),
    Null,
    Unlisted,
}

impl From<Option<&u32>> for Place {
    fn from(code: Option<&u32>) -> Self {
        code.map_or(Self::Unlisted, |&code| Self::At(code))
    }
}

fn text(
    codes: &AHashMap<Box<str>, u32>,
    array: &ArrayRef,
    mut each: impl FnMut(usize, Place),
) -> Result<(), StepError> {
    macro_rules! walk {
        ($array:expr) => {
            for (row, value) in $array.iter().enumerate() {
                each(row, value.map_or(Place::Null, |value| codes.get(value).into()));
            }
        };
    }
    let any = array.as_any();
    if let Some(array) = any.downcast_ref::<StringArray>() {
        walk!(array);
    } else if let Some(array) = any.downcast_ref::<LargeStringArray>() {
        walk!(array);
    } else if let Some(array) = any.downcast_ref::<StringViewArray>() {
        walk!(array);
    } else {
        return Err(unexpected(array));
    }
    Ok(())
}

fn ints(
    codes: &AHashMap<i128, u32>,
    array: &ArrayRef,
    each: impl FnMut(usize, Place),
) -> Result<(), StepError> {
    fn walk<T>(codes: &AHashMap<i128, u32>, array: &PrimitiveArray<T>, mut each: impl FnMut(usize, Place))
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i128>,
    {
        for (row, value) in array.iter().enumerate() {
            each(row, value.map_or(Place::Null, |value| codes.get(&value.into()).into()));
        }
    }
    match array.data_type() {
        DataType::Int8 => walk(codes, array.as_primitive::<Int8Type>(), each),
        DataType::Int16 => walk(codes, array.as_primitive::<Int16Type>(), each),
        DataType::Int32 => walk(codes, array.as_primitive::<Int32Type>(), each),
        DataType::Int64 => walk(codes, array.as_primitive::<Int64Type>(), each),
        DataType::UInt8 => walk(codes, array.as_primitive::<UInt8Type>(), each),
        DataType::UInt16 => walk(codes, array.as_primitive::<UInt16Type>(), each),
        DataType::UInt32 => walk(codes, array.as_primitive::<UInt32Type>(), each),
        DataType::UInt64 => walk(codes, array.as_primitive::<UInt64Type>(), each),
        _ => return Err(unexpected(array)),
    }
    Ok(())
}

fn bools(codes: &[Option<u32>; 2], array: &BooleanArray, mut each: impl FnMut(usize, Place)) {
    for (row, value) in array.iter().enumerate() {
        each(row, value.map_or(Place::Null, |value| codes[usize::from(value)].as_ref().into()));
    }
}

fn unexpected(array: &ArrayRef) -> StepError {
    StepError::internal(format!(
        "a column of type {} came in, which is not the type it had",
        array.data_type()
    ))
}

/// One value of a column, as it is shown in a message: bounded, text in quotes.
pub(crate) fn shown_value(array: &ArrayRef, row: usize) -> String {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    if array.is_null(row) {
        return "null".to_owned();
    }
    let text = match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => formatter.value(row).try_to_string().unwrap_or_default(),
        Err(_) => String::new(),
    };
    let text = crate::shorten(&text, 60);
    if array.data_type().is_string() { format!("'{text}'") } else { text }
}
