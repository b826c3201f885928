//! What is set aside as a line of JSON.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{
        DataType, Date32Type, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
        UInt64Type,
    },
    util::display::array_value_to_string,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// Bytes of the longest message that is kept whole.
const LONGEST_MESSAGE: usize = 1 << 20;

/// A row, in the form in which it can be pushed again. A value that does not fit the set's type stands as it came. `keys` are those of
/// what it became, where it has not the set's own.
pub(crate) fn row(
    (set, outcome, reason): (&str, &str, String),
    at: i64,
    (fitted, came): (&RecordBatch, &RecordBatch),
    keys: Option<Vec<Value>>,
    row: usize,
) -> String {
    let schema = fitted.schema_ref();
    let mut fields = Map::new();
    for (field, column) in schema.fields().iter().zip(fitted.columns()) {
        let as_it_came = came.column_by_name(field.name()).filter(|_| column.is_null(row));
        fields.insert(field.name().clone(), self::json(as_it_came.unwrap_or(column), row));
    }
    let mut line = json!({ "set": set, "outcome": outcome, "reason": reason, "at": time(at), "row": fields });
    if let Some(keys) = keys {
        line["keys"] = keys.into();
    }
    line.to_string()
}

/// A message that is no row: text, or what else it is in base 64.
pub(crate) fn message(set: &str, reason: &str, at: i64, message: &[u8]) -> String {
    let kept = &message[..message.len().min(LONGEST_MESSAGE)];
    let mut line = json!({ "set": set, "outcome": "undecoded", "reason": reason, "at": time(at), "bytes": message.len() });
    match std::str::from_utf8(kept) {
        Ok(text) => line["message"] = text.into(),
        Err(_) => line["message_base64"] = BASE64_STANDARD.encode(kept).into(),
    }
    line.to_string()
}

/// One value as bodies of pushes have it.
pub(crate) fn json(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let one = column.slice(row, 1);
    let text = || array_value_to_string(&one, 0).unwrap_or_default();
    let found = match column.data_type() {
        DataType::Boolean => Some(Value::Bool(one.as_boolean().value(0))),
        DataType::UInt64 => Some(one.as_primitive::<UInt64Type>().value(0).into()),
        integer if integer.is_integer() => {
            cast(&one, &DataType::Int64).ok().map(|one| one.as_primitive::<Int64Type>().value(0).into())
        }
        // The shortest digits that are this float.
        DataType::Float32 => {
            serde_json::from_str(&one.as_primitive::<Float32Type>().value(0).to_string()).ok()
        }
        DataType::Float16 | DataType::Float64 => {
            let wide = cast(&one, &DataType::Float64).ok();
            wide.and_then(|one| serde_json::Number::from_f64(one.as_primitive::<Float64Type>().value(0)))
                .map(Value::Number)
        }
        DataType::Date32 => Date32Type::to_naive_date_opt(one.as_primitive::<Date32Type>().value(0))
            .map(|date| date.to_string().into()),
        DataType::Timestamp(..) => {
            let micros = cast(&one, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok();
            micros
                .filter(|one| one.is_valid(0))
                .map(|one| time(one.as_primitive::<TimestampMicrosecondType>().value(0)))
        }
        _ => None,
    };
    found.unwrap_or_else(|| text().into())
}

/// A time, or its microseconds where no calendar reaches.
fn time(micros: i64) -> Value {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into(),
        None => micros.into(),
    }
}
