//! A body into an array of objects.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Fields};
use serde_json::Value;

use super::Dialect;
use crate::{
    oip::{
        request::{malformed, twice},
        scan::Scan,
    },
    wire::{DecodeCode, DecodeError},
};

type Read<T> = Result<T, DecodeError>;

/// What a body says.
#[derive(Debug)]
pub(super) struct Asked<'b> {
    /// An array of objects.
    pub(super) rows: Cow<'b, [u8]>,
    pub(super) id: Option<Value>,
    /// What is to be done with them, where MLRun's clients say it.
    pub(super) operation: Option<String>,
}

/// The members that may hold the rows.
fn members(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::V1 => &["instances"],
        Dialect::MlRun => &["inputs"],
        Dialect::Scoring => &["dataframe_records", "dataframe_split", "instances", "inputs"],
    }
}

/// Reads a body for a model of these columns.
pub(super) fn read<'b>(dialect: Dialect, columns: &Fields, body: &'b [u8]) -> Read<Asked<'b>> {
    let body = std::str::from_utf8(body).map_err(|error| {
        DecodeError::new(
            DecodeCode::BadUtf8,
            format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    let (mut found, mut id, mut operation) = (None, None, None);
    let mut scan = Scan::new(body);
    if scan.peek().is_none() {
        return Err(DecodeError::new(DecodeCode::Truncated, "the body is empty"));
    }
    let known = members(dialect);
    scan.members(|name, scan| {
        if let Some(&member) = known.iter().find(|member| **member == name) {
            return match found.replace((member, scan.extent()?)) {
                None => Ok(()),
                Some((before, _)) if before == member => Err(twice(member)),
                Some((before, _)) => Err(malformed(format!("has both `{before}` and `{member}`"))),
            };
        }
        if name == "id" {
            let text = scan.extent()?;
            let value = serde_json::from_str(text).ok().filter(|id: &Value| id.is_string() || id.is_number());
            id = Some(value.ok_or_else(|| malformed("`id` is neither a string nor a number"))?);
            return Ok(());
        }
        if name == "operation" && dialect == Dialect::MlRun {
            operation = Some(scan.string()?.into_owned());
            return Ok(());
        }
        scan.skip()
    })?;
    scan.end()?;
    let Some((member, text)) = found else {
        let message = format!("there is no `{}`", known.join("`, `"));
        return Err(DecodeError::new(DecodeCode::MissingField, message));
    };
    let rows = match member {
        "dataframe_split" => split(text),
        _ => listed(columns, text),
    };
    let rows = rows.map_err(|error| DecodeError::new(error.code, format!("`{member}`: {error}")))?;
    Ok(Asked { rows, id, operation })
}

/// An array of rows, each an object, or its values in the order of the model's columns; or an object of columns' values.
fn listed<'b>(columns: &Fields, text: &'b str) -> Read<Cow<'b, [u8]>> {
    let mut ahead = Scan::new(text);
    if ahead.peek() == Some(b'{') {
        return columnar(text).map(Cow::Owned);
    }
    if ahead.take(b'[') && matches!(ahead.peek(), Some(b'{' | b']')) {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let mut rows = Rows::default();
    Scan::new(text).items(|_, scan| {
        let row = scan.extent()?;
        rows.begin();
        match &columns[..] {
            [column] if !(row.starts_with('[') && is_single(column.data_type())) => {
                rows.value(column.name(), row);
            }
            columns => {
                let count = Scan::new(row).items(|at, scan| {
                    let value = scan.extent()?;
                    match columns.get(at) {
                        Some(column) => rows.value(column.name(), value),
                        None => return Err(unequal("more", columns.len())),
                    }
                    Ok(())
                })?;
                if count < columns.len() {
                    return Err(unequal(&format!("{count}"), columns.len()));
                }
            }
        }
        rows.end();
        Ok(())
    })?;
    Ok(Cow::Owned(rows.finish()))
}

fn unequal(count: &str, columns: usize) -> DecodeError {
    let message =
        format!("a row has {count} values where there are {columns} columns; name them, in objects");
    DecodeError::new(DecodeCode::WrongType, message)
}

/// Whether a value is no array.
fn is_single(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// `{"columns": [...], "data": [[...], ...]}`, as pandas writes a frame; an `index` is passed over.
fn split(text: &str) -> Read<Cow<'_, [u8]>> {
    let (mut names, mut data) = (None, None);
    let mut scan = Scan::new(text);
    scan.members(|name, scan| match name {
        "columns" => {
            let mut read = Vec::new();
            scan.items(|_, scan| {
                read.push(scan.string()?.into_owned());
                Ok(())
            })?;
            if names.replace(read).is_none() { Ok(()) } else { Err(twice(name)) }
        }
        "data" => {
            let text = scan.extent()?;
            if data.replace(text).is_none() { Ok(()) } else { Err(twice(name)) }
        }
        _ => scan.skip(),
    })?;
    scan.end()?;
    let (Some(names), Some(data)) = (names, data) else {
        return Err(DecodeError::new(DecodeCode::MissingField, "needs `columns` and `data`"));
    };
    let mut rows = Rows::default();
    let mut scan = Scan::new(data);
    scan.items(|_, scan| {
        rows.begin();
        let count = scan.items(|at, scan| {
            let value = scan.extent()?;
            match names.get(at) {
                Some(name) => rows.value(name, value),
                None => return Err(unequal("more", names.len())),
            }
            Ok(())
        })?;
        rows.end();
        if count == names.len() { Ok(()) } else { Err(unequal(&format!("{count}"), names.len())) }
    })?;
    scan.end()?;
    Ok(Cow::Owned(rows.finish()))
}

/// `{"a": [1, 2], "b": [3, 4]}`.
fn columnar(text: &str) -> Read<Vec<u8>> {
    let mut columns: Vec<(String, Vec<&str>)> = Vec::new();
    let mut scan = Scan::new(text);
    scan.members(|name, scan| {
        let mut values = Vec::new();
        if scan.peek() == Some(b'[') {
            scan.items(|_, scan| {
                values.push(scan.extent()?);
                Ok(())
            })?;
        } else {
            values.push(scan.extent()?);
        }
        columns.push((name.to_owned(), values));
        Ok(())
    })?;
    scan.end()?;
    let Some(count) = columns.first().map(|(_, values)| values.len()) else {
        return Err(malformed("has no column"));
    };
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != count) {
        let (first, other) = (&columns[0].0, values.len());
        return Err(malformed(format!("`{first}` has {count} values, but `{name}` has {other}")));
    }
    let mut rows = Rows::default();
    for row in 0..count {
        rows.begin();
        columns.iter().for_each(|(name, values)| rows.value(name, values[row]));
        rows.end();
    }
    Ok(rows.finish())
}

/// An array of objects, while it is written.
#[derive(Default)]
struct Rows {
    text: Vec<u8>,
}

impl Rows {
    fn begin(&mut self) {
        self.text.push(if self.text.is_empty() { b'[' } else { b',' });
        self.text.push(b'{');
    }

    fn value(&mut self, name: &str, value: &str) {
        if self.text.last() != Some(&b'{') {
            self.text.push(b',');
        }
        // A string into memory does not fail.
        let _ = serde_json::to_writer(&mut self.text, name);
        self.text.push(b':');
        self.text.extend_from_slice(value.as_bytes());
    }

    fn end(&mut self) {
        self.text.push(b'}');
    }

    fn finish(mut self) -> Vec<u8> {
        if self.text.is_empty() {
            self.text.push(b'[');
        }
        self.text.push(b']');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use millstream_graph::spec::column;

    use super::*;

    fn fields(columns: &[(&str, &str)]) -> Fields {
        columns.iter().map(|(name, text)| column(name, text).unwrap()).collect::<Vec<Field>>().into()
    }

    #[track_caller]
    fn check(dialect: Dialect, columns: &[(&str, &str)], body: &str, expected: Result<&str, &str>) {
        match (read(dialect, &fields(columns), body.as_bytes()), expected) {
            (Ok(read), Ok(rows)) => assert_eq!(std::str::from_utf8(&read.rows).unwrap(), rows, "{body}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{body}: {error}"),
            (read, _) => panic!("{body}: {read:?}, not {expected:?}"),
        }
    }

    const TWO: &[(&str, &str)] = &[("a", "int64"), ("b", "string")];
    const ONE: &[(&str, &str)] = &[("a", "int64")];
    const TENSOR: &[(&str, &str)] = &[("x", "tensor<float32, 2>")];

    #[test]
    fn every_way_to_write_rows_is_an_array_of_objects() {
        use Dialect::{MlRun, Scoring, V1};
        for (dialect, columns, body, rows) in [
            (V1, TWO, r#"{"instances": [{"a":1}, {"a":2}]}"#, r#"[{"a":1}, {"a":2}]"#),
            (
                V1,
                TWO,
                r#"{"instances":[[1,"x"],[2 , "]"]],"signature_name":"s"}"#,
                r#"[{"a":1,"b":"x"},{"a":2,"b":"]"}]"#,
            ),
            (V1, TWO, r#"{"instances":[]}"#, "[]"),
            (V1, ONE, r#"{"instances":[1,2]}"#, r#"[{"a":1},{"a":2}]"#),
            (V1, ONE, r#"{"instances":[[1],[2]]}"#, r#"[{"a":1},{"a":2}]"#),
            (V1, TENSOR, r#"{"instances":[[1,2],[3,4]]}"#, r#"[{"x":[1,2]},{"x":[3,4]}]"#),
            (MlRun, TWO, r#"{"id":"7","inputs":[[1,"x"]]}"#, r#"[{"a":1,"b":"x"}]"#),
            (MlRun, TWO, r#"{"inputs":{"a":1,"b":"x"}}"#, r#"[{"a":1,"b":"x"}]"#),
            (Scoring, TWO, r#"{"inputs":{"a":[1,2],"b":["x","y"]}}"#, r#"[{"a":1,"b":"x"},{"a":2,"b":"y"}]"#),
            (Scoring, TWO, r#"{"dataframe_records":[{"a":1}]}"#, r#"[{"a":1}]"#),
            (
                Scoring,
                TWO,
                r#"{"dataframe_split":{"index":[0],"columns":["b","a"],"data":[["x",1],["y",2]]}}"#,
                r#"[{"b":"x","a":1},{"b":"y","a":2}]"#,
            ),
        ] {
            check(dialect, columns, body, Ok(rows));
        }
    }

    #[test]
    fn what_is_no_rows_says_why() {
        use Dialect::{MlRun, Scoring, V1};
        for (dialect, columns, body, part) in [
            (V1, TWO, "", "the body is empty"),
            (V1, TWO, "[1]", "`{` is missing"),
            (V1, TWO, r#"{"inputs":[1]}"#, "there is no `instances`"),
            (V1, TWO, r#"{"instances":[1],"instances":[1]}"#, "`instances` is there twice"),
            (V1, TWO, r#"{"instances":[1]}"#, "`instances`: "),
            (V1, TWO, r#"{"instances":[[1]]}"#, "a row has 1 values where there are 2 columns"),
            (V1, TWO, r#"{"instances":[[1,2,3]]}"#, "a row has more values"),
            (V1, TWO, r#"{"instances":[[1,2]"#, "it ends"),
            (MlRun, TWO, r#"{"id":[1],"inputs":[]}"#, "`id` is neither"),
            (MlRun, TWO, r#"{"operation":1,"inputs":[]}"#, "a string"),
            (Scoring, TWO, r#"{"instances":[],"inputs":[]}"#, "has both `instances` and `inputs`"),
            (Scoring, TWO, r#"{"inputs":{}}"#, "has no column"),
            (Scoring, TWO, r#"{"inputs":{"a":[1],"b":[]}}"#, "`a` has 1 values, but `b` has 0"),
            (Scoring, TWO, r#"{"dataframe_split":{"columns":["a"]}}"#, "needs `columns` and `data`"),
            (
                Scoring,
                TWO,
                r#"{"dataframe_split":{"columns":["a"],"data":[[1,2]]}}"#,
                "a row has more values",
            ),
        ] {
            check(dialect, columns, body, Err(part));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in r#"\{"(instances|inputs|dataframe_split)":[\[\]{}":,1ab]{0,16}\}?"#) {
            for dialect in [Dialect::V1, Dialect::MlRun, Dialect::Scoring] {
                let _ = read(dialect, &fields(TWO), body.as_bytes());
                let _ = read(dialect, &fields(ONE), body.as_bytes());
            }
        }
    }
}
