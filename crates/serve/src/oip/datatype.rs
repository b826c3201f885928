//! The types of tensors.

use arrow::datatypes::DataType;

macro_rules! datatypes {
    ($($variant:ident = $name:literal, $config:literal, $width:expr;)*) => {
        /// The type of a tensor's values, as the protocol names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Datatype {
            $($variant,)*
        }

        impl Datatype {
            /// The name in requests, replies and metadata.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The name in a model's configuration.
            pub(super) fn config_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $config,)*
                }
            }

            /// The bytes of a value, of types whose values all have as many.
            pub(super) fn width(self) -> Option<usize> {
                match self {
                    $(Self::$variant => $width,)*
                }
            }
        }
    };
}

datatypes! {
    Bool = "BOOL", "TYPE_BOOL", Some(1);
    Uint8 = "UINT8", "TYPE_UINT8", Some(1);
    Uint16 = "UINT16", "TYPE_UINT16", Some(2);
    Uint32 = "UINT32", "TYPE_UINT32", Some(4);
    Uint64 = "UINT64", "TYPE_UINT64", Some(8);
    Int8 = "INT8", "TYPE_INT8", Some(1);
    Int16 = "INT16", "TYPE_INT16", Some(2);
    Int32 = "INT32", "TYPE_INT32", Some(4);
    Int64 = "INT64", "TYPE_INT64", Some(8);
    Fp16 = "FP16", "TYPE_FP16", Some(2);
    Fp32 = "FP32", "TYPE_FP32", Some(4);
    Fp64 = "FP64", "TYPE_FP64", Some(8);
    Bytes = "BYTES", "TYPE_STRING", None;
}

impl Datatype {
    /// The type of a column's values; none for values that are only told as JSON text.
    pub(super) fn of(values: &DataType) -> Option<Self> {
        Some(match values {
            DataType::Boolean => Self::Bool,
            DataType::UInt8 => Self::Uint8,
            DataType::UInt16 => Self::Uint16,
            DataType::UInt32 => Self::Uint32,
            DataType::UInt64 => Self::Uint64,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 | DataType::Date32 => Self::Int32,
            DataType::Int64 | DataType::Timestamp(..) => Self::Int64,
            DataType::Float16 => Self::Fp16,
            DataType::Float32 => Self::Fp32,
            DataType::Float64 => Self::Fp64,
            DataType::Dictionary(_, values) if **values == DataType::Utf8 => Self::Bytes,
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Self::Bytes,
            _ => return None,
        })
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Fp16 | Self::Fp32 | Self::Fp64)
    }
}
