//! Plain values in settings.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array},
    compute::{CastOptions, cast_with_options},
    datatypes::DataType,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A plain value in a step's settings: text, a number, true or false.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Literal {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
}

impl Literal {
    /// What the value is, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "text",
        }
    }

    /// The value as an array of one row, if the type can hold it exactly as written.
    pub(crate) fn to_array(&self, data_type: &DataType) -> Result<ArrayRef, String> {
        let refused = || format!("{data_type} cannot hold {self}");
        let array: ArrayRef = match self {
            Self::Bool(value) if *data_type == DataType::Boolean => {
                Arc::new(BooleanArray::from(vec![*value]))
            }
            Self::Text(value) if text_like(data_type) => Arc::new(StringArray::from(vec![value.as_str()])),
            Self::Int(value) if data_type.is_numeric() => {
                match (i64::try_from(*value), u64::try_from(*value)) {
                    (Ok(value), _) => Arc::new(Int64Array::from(vec![value])),
                    (_, Ok(value)) => Arc::new(UInt64Array::from(vec![value])),
                    _ => return Err(refused()),
                }
            }
            Self::Float(value) if data_type.is_floating() => Arc::new(Float64Array::from(vec![*value])),
            _ => return Err(refused()),
        };
        cast_with_options(&array, data_type, &CastOptions { safe: false, ..CastOptions::default() })
            .map_err(|_| refused())
    }
}

fn text_like(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_temporal()
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "'{}'", crate::shorten(value, 60)),
        }
    }
}

impl From<bool> for Literal {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Literal {
    fn from(value: i64) -> Self {
        Self::Int(value.into())
    }
}

impl From<i32> for Literal {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<f64> for Literal {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Literal {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Literal {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Literal;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, a number, true or false")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Literal, E> {
                Ok(Literal::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Literal, E> {
                Ok(Literal::Int(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Literal, E> {
                Ok(Literal::Int(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Literal, E> {
                Ok(Literal::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Literal, E> {
                Ok(Literal::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Literal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Literal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A plain value: text, a number, true or false.",
            "type": ["string", "number", "boolean"],
        })
    }
}

/// The one type that can hold all values, as a column of its own.
pub(crate) fn common_type<'a>(values: impl IntoIterator<Item = &'a Literal>) -> Result<DataType, String> {
    let mut common: Option<(DataType, &Literal)> = None;
    for value in values {
        let own = match value {
            Literal::Bool(_) => DataType::Boolean,
            Literal::Int(_) => DataType::Int64,
            Literal::Float(_) => DataType::Float64,
            Literal::Text(_) => DataType::Utf8,
        };
        common = Some(match common {
            None => (own, value),
            Some((known, first)) if known == own => (known, first),
            Some((DataType::Int64, first)) if own == DataType::Float64 => (own, first),
            Some((DataType::Float64, first)) if own == DataType::Int64 => (DataType::Float64, first),
            Some((_, first)) => {
                return Err(format!(
                    "its values must be of one type, but {first} is {} and {value} is {}",
                    first.kind(),
                    value.kind()
                ));
            }
        });
    }
    common.map(|(data_type, _)| data_type).ok_or_else(|| "it has no values".to_owned())
}
