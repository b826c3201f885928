//! JSON bodies column by column: `{"card_id": [7, 8], "amount": [1.5, 2]}`.

use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::wire::{DecodeCode, DecodeError, DecodeLimits};

/// Columns as a body has them: names, and values that nobody has read yet.
pub(crate) type Columns<'a> = IndexMap<String, Vec<&'a RawValue>>;

/// The columns of a body that has this form.
pub(crate) fn columns(body: &[u8]) -> Option<Columns<'_>> {
    let columns: Columns<'_> = serde_json::from_slice(body).ok()?;
    (!columns.is_empty()).then_some(columns)
}

/// The same rows as an array of objects, which is what decoders read. `text` gives the text of a value, for its column's number.
///
/// # Errors
/// When the columns differ in length, or are more than `limits` allow.
pub(crate) fn rows<'v>(
    columns: &'v Columns<'_>,
    limits: &DecodeLimits,
    text: impl Fn(usize, &'v str) -> std::borrow::Cow<'v, str>,
) -> Result<Vec<u8>, DecodeError> {
    let count = columns.values().map(Vec::len).max().unwrap_or_default();
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != count) {
        let message = format!("it has {} values; another column has {count}", values.len());
        return Err(DecodeError::new(DecodeCode::Malformed, message).at_field(name));
    }
    if count > limits.rows {
        let message = format!("body has {count} rows; at most {} are allowed", limits.rows);
        return Err(DecodeError::new(DecodeCode::TooManyRows, message));
    }
    let names: Vec<String> =
        columns.keys().map(|name| serde_json::Value::from(name.as_str()).to_string()).collect();
    let mut body = vec![b'['];
    for row in 0..count {
        body.extend_from_slice(if row == 0 { b"{" } else { b",{" });
        for (at, (name, values)) in names.iter().zip(columns.values()).enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(name.as_bytes());
            body.push(b':');
            body.extend_from_slice(text(at, values[row].get()).as_bytes());
        }
        body.push(b'}');
        // Names stand once in columns and once per row in rows: a short body must not become an endless one.
        if body.len() > limits.body_bytes {
            let message = format!("as rows, the columns have more than {} bytes", limits.body_bytes);
            return Err(DecodeError::new(DecodeCode::TooLarge, message));
        }
    }
    body.push(b']');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows_within_the_limits() {
        let limits = DecodeLimits { rows: 3, body_bytes: 60, ..DecodeLimits::default() };
        let name = "n".repeat(30);
        for (body, expected) in [
            (
                r#"{"a":[1,null],"b\"":["x","y"]}"#.to_owned(),
                Ok(r#"[{"a":1,"b\"":"x"},{"a":null,"b\"":"y"}]"#),
            ),
            (r#"{"a":[]}"#.to_owned(), Ok("[]")),
            (r#"{"a":[1],"b":[1,2]}"#.to_owned(), Err("it has 1 values; another column has 2")),
            (r#"{"a":[1,2,3,4]}"#.to_owned(), Err("body has 4 rows; at most 3 are allowed")),
            (format!(r#"{{"{name}":[1,2]}}"#), Err("as rows, the columns have more than 60 bytes")),
        ] {
            let columns = columns(body.as_bytes()).unwrap();
            let rows = rows(&columns, &limits, |_, text| text.into());
            let rows = rows.map(|rows| String::from_utf8(rows).unwrap()).map_err(|error| error.message);
            assert_eq!(rows, expected.map(str::to_owned).map_err(str::to_owned), "{body}");
        }
        for no_columns in ["{}", "[]", r#"{"a":1}"#, r#"[{"a":[1]}]"#, "{"] {
            assert!(columns(no_columns.as_bytes()).is_none(), "{no_columns}");
        }
    }
}
