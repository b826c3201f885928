//! Column types as text: `int64`, `string?`, `list<float32>`, `tensor<float32, 3, 224>`, `struct<a: int64, b: string?>`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::suggest;

/// Metadata key of a text column that holds any JSON value as its text.
pub const JSON_COLUMN: &str = "millstream.json";

const SIMPLE: [(&str, DataType); 16] = [
    ("bool", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float16", DataType::Float16),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("string", DataType::Utf8),
    ("binary", DataType::Binary),
    ("date", DataType::Date32),
    ("json", DataType::Utf8),
];
/// Points in time are in UTC.
const UNITS: [(&str, TimeUnit); 4] = [
    ("timestamp", TimeUnit::Microsecond),
    ("timestamp_s", TimeUnit::Second),
    ("timestamp_ms", TimeUnit::Millisecond),
    ("timestamp_ns", TimeUnit::Nanosecond),
];
const MAX_DEPTH: usize = 16;

/// The column `name` of the type that `text` says; a trailing `?` lets it be null.
///
/// ```
/// use millstream_graph::spec::{column, type_text};
/// let field = column("pixels", "tensor<float32, 2, 3>?").unwrap();
/// assert!(field.is_nullable());
/// assert_eq!(type_text(&field), "tensor<float32, 2, 3>?");
/// assert_eq!(column("a", "flaot64").unwrap_err(), "no type `flaot64`; did you mean `float64`?");
/// ```
///
/// # Errors
/// When the text is no type, naming the closest one.
pub fn column(name: &str, text: &str) -> Result<Field, String> {
    parse(name, text.trim(), 0)
}

fn parse(name: &str, text: &str, depth: usize) -> Result<Field, String> {
    if depth > MAX_DEPTH {
        return Err(format!("a type nests at most {MAX_DEPTH} levels"));
    }
    let (text, nullable) = match text.strip_suffix('?') {
        Some(text) => (text.trim_end(), true),
        None => (text, false),
    };
    let field = |data_type| Field::new(name, data_type, nullable);
    if let Some(inner) = argument(text, "list") {
        return Ok(field(DataType::List(Arc::new(parse("item", inner, depth + 1)?))));
    }
    if let Some(inner) = argument(text, "tensor") {
        let mut parts = split(inner).into_iter();
        let mut data_type = parse("item", parts.next().unwrap_or_default(), depth + 1)?.data_type().clone();
        let sizes = parts.map(|size| size.parse::<i32>().ok().filter(|size| *size > 0));
        let sizes: Vec<i32> =
            sizes.collect::<Option<_>>().ok_or_else(|| format!("`{text}`: a size is a positive number"))?;
        if sizes.is_empty() || sizes.len() > MAX_DEPTH {
            return Err(format!("`{text}`: a tensor has one to {MAX_DEPTH} sizes"));
        }
        for size in sizes.into_iter().rev() {
            data_type = DataType::FixedSizeList(Arc::new(Field::new("item", data_type, false)), size);
        }
        return Ok(field(data_type));
    }
    if let Some(inner) = argument(text, "struct") {
        let fields = split(inner).into_iter().map(|part| {
            let (name, text) =
                part.split_once(':').ok_or_else(|| format!("`{part}`: a field is `name: type`"))?;
            parse(name.trim(), text.trim(), depth + 1)
        });
        return Ok(field(DataType::Struct(fields.collect::<Result<Vec<_>, String>>()?.into())));
    }
    if let Some((_, unit)) = UNITS.iter().find(|(known, _)| *known == text) {
        return Ok(field(DataType::Timestamp(*unit, Some("UTC".into()))));
    }
    match SIMPLE.iter().find(|(known, _)| *known == text) {
        Some(("json", data_type)) => {
            Ok(field(data_type.clone()).with_metadata([(JSON_COLUMN.to_owned(), "true".to_owned())].into()))
        }
        Some((_, data_type)) => Ok(field(data_type.clone())),
        None => {
            let known = SIMPLE.iter().map(|(name, _)| *name).chain(["timestamp", "list", "tensor", "struct"]);
            Err(suggest::unknown("type", text, known))
        }
    }
}

/// What stands between `name<` and `>`.
fn argument<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    Some(text.strip_prefix(name)?.strip_prefix('<')?.strip_suffix('>')?.trim())
}

/// The parts between commas that stand inside no brackets.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// The text that [`column()`] reads as this column's type.
pub fn type_text(field: &Field) -> String {
    let text = match field.data_type() {
        DataType::Utf8 if field.metadata().contains_key(JSON_COLUMN) => "json".to_owned(),
        DataType::List(item) => format!("list<{}>", type_text(item)),
        DataType::FixedSizeList(..) => {
            let (mut sizes, mut item) = (Vec::new(), field.data_type());
            while let DataType::FixedSizeList(inner, size) = item {
                sizes.push(size.to_string());
                item = inner.data_type();
            }
            let item = type_text(&Field::new("item", item.clone(), false));
            format!("tensor<{item}, {}>", sizes.join(", "))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{}: {}", field.name(), type_text(field)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Timestamp(unit, _) => {
            UNITS.iter().find(|(_, known)| known == unit).map_or("timestamp", |(name, _)| name).to_owned()
        }
        other => SIMPLE
            .iter()
            .find(|(_, known)| known == other)
            .map_or_else(|| other.to_string(), |(name, _)| (*name).to_owned()),
    };
    if field.is_nullable() { text + "?" } else { text }
}
