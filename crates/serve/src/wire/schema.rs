//! The JSON Schema of requests and replies, for the OpenAPI document.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use serde_json::{Map, Value, json};

use super::{UnknownFields, is_free_form};

/// What one request object may be, as JSON Schema 2020-12: what [`Decoder`](super::json::Decoder) takes.
///
/// ```
/// use arrow::datatypes::{DataType, Field, Schema};
/// use millstream_serve::wire::{UnknownFields, schema};
///
/// let fields = Schema::new(vec![Field::new("age", DataType::UInt8, false)]);
/// let request = schema::request(&fields, UnknownFields::Refuse);
/// assert_eq!(request["properties"]["age"]["maximum"], 255);
/// assert_eq!(request["required"][0], "age");
/// ```
pub fn request(schema: &Schema, unknown_fields: UnknownFields) -> Value {
    Value::Object(object(schema.fields(), Side::Request(unknown_fields)))
}

/// What one reply object is, as JSON Schema 2020-12: what [`Encoder`](super::json::Encoder) writes.
pub fn reply(schema: &Schema) -> Value {
    Value::Object(object(schema.fields(), Side::Reply))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request(UnknownFields),
    Reply,
}

fn object(fields: &Fields, side: Side) -> Map<String, Value> {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name().clone(), property(field, side))).collect();
    // A reply names every field, be it null.
    let required = fields.iter().filter(|field| side == Side::Reply || !field.is_nullable());
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("properties".to_owned(), Value::Object(properties));
    object.insert("required".to_owned(), required.map(|field| json!(field.name())).collect());
    if side != Side::Request(UnknownFields::Ignore) {
        object.insert("additionalProperties".to_owned(), json!(false));
    }
    object
}

fn property(field: &Field, side: Side) -> Value {
    if is_free_form(field) {
        return json!({"description": "any JSON value"});
    }
    let mut property = of_type(field.data_type(), side);
    // NaN and the infinities are written as null.
    let nullable = field.is_nullable() || (side == Side::Reply && field.data_type().is_floating());
    if nullable {
        allow_null(&mut property);
    }
    property
}

fn allow_null(property: &mut Value) {
    match property.get_mut("type") {
        Some(Value::Array(types)) => types.push(json!("null")),
        Some(one) => *one = json!([one.take(), "null"]),
        None => {}
    }
}

fn of_type(data_type: &DataType, side: Side) -> Value {
    match data_type {
        DataType::Null => json!({"type": "null"}),
        DataType::Boolean => json!({"type": "boolean"}),
        DataType::Int8 => integer("int8", i8::MIN, i8::MAX),
        DataType::Int16 => integer("int16", i16::MIN, i16::MAX),
        DataType::Int32 => integer("int32", i32::MIN, i32::MAX),
        DataType::Int64 => integer("int64", i64::MIN, i64::MAX),
        DataType::UInt8 => integer("uint8", 0_u64, u8::MAX),
        DataType::UInt16 => integer("uint16", 0_u64, u16::MAX),
        DataType::UInt32 => integer("uint32", 0_u64, u32::MAX),
        DataType::UInt64 => integer("uint64", 0_u64, u64::MAX),
        DataType::Float16 => json!({"type": "number"}),
        DataType::Float32 => json!({"type": "number", "format": "float"}),
        DataType::Float64 => json!({"type": "number", "format": "double"}),
        DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => decimal(side),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            json!({"type": "string", "contentEncoding": "base64"})
        }
        DataType::FixedSizeBinary(size) => {
            let length = (*size as usize).div_ceil(3) * 4;
            json!({"type": "string", "contentEncoding": "base64", "minLength": length, "maxLength": length})
        }
        DataType::Timestamp(_, _) => time("date-time", side),
        DataType::Date32 => time("date", side),
        DataType::List(item) | DataType::LargeList(item) => {
            json!({"type": "array", "items": property(item, side)})
        }
        DataType::FixedSizeList(item, size) => {
            json!({"type": "array", "items": property(item, side), "minItems": size, "maxItems": size})
        }
        DataType::Struct(fields) => Value::Object(object(fields, side)),
        DataType::Dictionary(_, value) => of_type(value, side),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                json!({"type": "object", "additionalProperties": property(&pair[1], side)})
            }
            _ => json!({"type": "object"}),
        },
        // Text, and the kinds of time that are written as text.
        _ => json!({"type": "string"}),
    }
}

fn integer(format: &str, minimum: impl Into<Value>, maximum: impl Into<Value>) -> Value {
    json!({"type": "integer", "format": format, "minimum": minimum.into(), "maximum": maximum.into()})
}

/// A decimal may be sent as a string too, so that clients whose numbers are floats lose nothing.
fn decimal(side: Side) -> Value {
    match side {
        Side::Request(_) => json!({"type": ["number", "string"]}),
        Side::Reply => json!({"type": "number"}),
    }
}

/// A time is text; requests may also count from 1970, as replies do for years that the text cannot say.
fn time(format: &str, side: Side) -> Value {
    let description = match side {
        Side::Request(_) => "or a whole number, counted from 1970 in the column's unit",
        Side::Reply => {
            "a whole number, counted from 1970 in the column's unit, outside of the years 0 to 9999"
        }
    };
    json!({"type": ["string", "integer"], "format": format, "description": description})
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use arrow::datatypes::TimeUnit;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::wire::FREE_FORM;

    fn check(schema: &Value, expected: &Expect) {
        expected.assert_eq(&serde_json::to_string_pretty(schema).unwrap());
    }

    fn fields() -> Schema {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let nested =
            vec![Field::new("x", DataType::Float64, true), Field::new("y", DataType::Boolean, false)];
        Schema::new(vec![
            Field::new("id", DataType::Int8, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("pixels", DataType::FixedSizeList(item, 4), false),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            Field::new("point", DataType::Struct(nested.into()), false),
            Field::new("extra", DataType::Utf8, true)
                .with_metadata(HashMap::from([(FREE_FORM.to_owned(), "true".to_owned())])),
        ])
    }

    #[test]
    fn a_request_requires_what_may_not_be_null() {
        check(
            &request(&fields(), UnknownFields::Refuse),
            &expect![[r#"
            {
              "type": "object",
              "properties": {
                "id": {
                  "type": "integer",
                  "format": "int8",
                  "minimum": -128,
                  "maximum": 127
                },
                "name": {
                  "type": [
                    "string",
                    "null"
                  ]
                },
                "pixels": {
                  "type": "array",
                  "items": {
                    "type": "number",
                    "format": "float"
                  },
                  "minItems": 4,
                  "maxItems": 4
                },
                "at": {
                  "type": [
                    "string",
                    "integer",
                    "null"
                  ],
                  "format": "date-time",
                  "description": "or a whole number, counted from 1970 in the column's unit"
                },
                "point": {
                  "type": "object",
                  "properties": {
                    "x": {
                      "type": [
                        "number",
                        "null"
                      ],
                      "format": "double"
                    },
                    "y": {
                      "type": "boolean"
                    }
                  },
                  "required": [
                    "y"
                  ],
                  "additionalProperties": false
                },
                "extra": {
                  "description": "any JSON value"
                }
              },
              "required": [
                "id",
                "pixels",
                "point"
              ],
              "additionalProperties": false
            }"#]],
        );
    }

    #[test]
    fn a_reply_names_every_field_and_floats_may_be_null() {
        check(
            &reply(&fields()),
            &expect![[r#"
            {
              "type": "object",
              "properties": {
                "id": {
                  "type": "integer",
                  "format": "int8",
                  "minimum": -128,
                  "maximum": 127
                },
                "name": {
                  "type": [
                    "string",
                    "null"
                  ]
                },
                "pixels": {
                  "type": "array",
                  "items": {
                    "type": [
                      "number",
                      "null"
                    ],
                    "format": "float"
                  },
                  "minItems": 4,
                  "maxItems": 4
                },
                "at": {
                  "type": [
                    "string",
                    "integer",
                    "null"
                  ],
                  "format": "date-time",
                  "description": "a whole number, counted from 1970 in the column's unit, outside of the years 0 to 9999"
                },
                "point": {
                  "type": "object",
                  "properties": {
                    "x": {
                      "type": [
                        "number",
                        "null"
                      ],
                      "format": "double"
                    },
                    "y": {
                      "type": "boolean"
                    }
                  },
                  "required": [
                    "x",
                    "y"
                  ],
                  "additionalProperties": false
                },
                "extra": {
                  "description": "any JSON value"
                }
              },
              "required": [
                "id",
                "name",
                "pixels",
                "at",
                "point",
                "extra"
              ],
              "additionalProperties": false
            }"#]],
        );
    }

    #[test]
    fn ignored_fields_may_be_sent() {
        let schema = request(&fields(), UnknownFields::Ignore);
        assert_eq!(schema.get("additionalProperties"), None);
        // Only the body's own fields: nested ones follow the same rule.
        assert_eq!(schema["properties"]["point"].get("additionalProperties"), None);
    }
}
