//! Tensors as models take and answer them: borrowed values in row-major order, with a shape.

use std::{borrow::Cow, fmt};

use arrow::datatypes::DataType;
use half::f16;

/// The type of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DType {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    Str,
}

impl DType {
    /// The Arrow type of a column of such values.
    pub fn arrow(self) -> DataType {
        match self {
            Self::F16 => DataType::Float16,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::I8 => DataType::Int8,
            Self::I16 => DataType::Int16,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::Bool => DataType::Boolean,
            Self::Str => DataType::Utf8,
        }
    }

    /// Whether it is a floating-point type, which has a NaN.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.arrow())
    }
}

/// Values in row-major order, and their shape.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// The size of each dimension; the first one counts rows.
    pub shape: &'a [usize],
    /// As many values as the shape has places.
    pub data: Data<'a>,
}

/// The values of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Data<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    Bool(&'a [bool]),
    Str(&'a [&'a str]),
}

impl Data<'_> {
    /// The type of the values.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F16(_) => DType::F16,
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::I8(_) => DType::I8,
            Self::I16(_) => DType::I16,
            Self::I32(_) => DType::I32,
            Self::I64(_) => DType::I64,
            Self::U8(_) => DType::U8,
            Self::U16(_) => DType::U16,
            Self::U32(_) => DType::U32,
            Self::U64(_) => DType::U64,
            Self::Bool(_) => DType::Bool,
            Self::Str(_) => DType::Str,
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F16(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Str(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values that a tensor is made of: borrowed from a column where its layout allows, else gathered.
#[derive(Clone, Debug)]
pub(crate) enum Values<'a> {
    F16(Cow<'a, [f16]>),
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    I8(Cow<'a, [i8]>),
    I16(Cow<'a, [i16]>),
    I32(Cow<'a, [i32]>),
    I64(Cow<'a, [i64]>),
    U8(Cow<'a, [u8]>),
    U16(Cow<'a, [u16]>),
    U32(Cow<'a, [u32]>),
    U64(Cow<'a, [u64]>),
    Bool(Cow<'a, [bool]>),
    Str(Vec<&'a str>),
}

impl Values<'_> {
    /// `len` zeros, or empty strings.
    pub(crate) fn zeros(dtype: DType, len: usize) -> Values<'static> {
        match dtype {
            DType::F16 => Values::F16(vec![f16::ZERO; len].into()),
            DType::F32 => Values::F32(vec![0.0; len].into()),
            DType::F64 => Values::F64(vec![0.0; len].into()),
            DType::I8 => Values::I8(vec![0; len].into()),
            DType::I16 => Values::I16(vec![0; len].into()),
            DType::I32 => Values::I32(vec![0; len].into()),
            DType::I64 => Values::I64(vec![0; len].into()),
            DType::U8 => Values::U8(vec![0; len].into()),
            DType::U16 => Values::U16(vec![0; len].into()),
            DType::U32 => Values::U32(vec![0; len].into()),
            DType::U64 => Values::U64(vec![0; len].into()),
            DType::Bool => Values::Bool(vec![false; len].into()),
            DType::Str => Values::Str(vec![""; len]),
        }
    }

    /// The values, to hand to a model.
    pub(crate) fn data(&self) -> Data<'_> {
        match self {
            Self::F16(values) => Data::F16(values),
            Self::F32(values) => Data::F32(values),
            Self::F64(values) => Data::F64(values),
            Self::I8(values) => Data::I8(values),
            Self::I16(values) => Data::I16(values),
            Self::I32(values) => Data::I32(values),
            Self::I64(values) => Data::I64(values),
            Self::U8(values) => Data::U8(values),
            Self::U16(values) => Data::U16(values),
            Self::U32(values) => Data::U32(values),
            Self::U64(values) => Data::U64(values),
            Self::Bool(values) => Data::Bool(values),
            Self::Str(values) => Data::Str(values),
        }
    }
}
