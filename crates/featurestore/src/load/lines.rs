//! JSON Lines: one object per line. A field that is not there is null; empty lines are passed over.

use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read},
};

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{
    At, LoadError, Sink,
    infer::Guess,
    source::{Columns, Source},
    text::TextRows,
};
use crate::set::Column;
use arrow::datatypes::DataType;

/// The longest line that is read: a row of features is never near it, a file without line ends would fill the memory.
const LONGEST_LINE: u64 = 64 << 20;

pub(super) fn columns(source: &Source, rows: u64) -> Result<Columns, LoadError> {
    let mut guesses: IndexMap<String, Guess> = IndexMap::new();
    let mut read = 0;
    each(source, &mut |object, _| {
        for (name, raw) in object.0 {
            let guess = match raw.get().as_bytes().first() {
                Some(b'n') => Guess::Nothing,
                Some(b'"') => Guess::of_string(&text(raw)),
                // What is inside, the store does not hold: text is what the error at loading will say.
                Some(b'{' | b'[') => Guess::Text,
                _ => Guess::of(raw.get()),
            };
            match guesses.get_mut(name.as_ref()) {
                Some(known) => *known = known.and(guess),
                None => drop(guesses.insert(name.into_owned(), guess)),
            }
        }
        read += 1;
        Ok(read < rows)
    })?;
    Ok(guesses.into_iter().map(|(name, guess)| (name, guess.data_type())).collect())
}

pub(super) fn read(source: &Source, wanted: &[Column], sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let mut rows = TextRows::new(source, wanted, |_, line| At::Line(line));
    let by_name: IndexMap<&str, usize, ahash::RandomState> =
        wanted.iter().enumerate().map(|(at, column)| (column.name.as_str(), at)).collect();
    let mut seen = vec![false; wanted.len()];
    let mut names = IndexMap::<String, ()>::new();
    each(source, &mut |object, line| {
        let mut fields: Vec<Option<&RawValue>> = vec![None; wanted.len()];
        for (name, raw) in object.0 {
            match by_name.get(name.as_ref()) {
                Some(&at) => {
                    if fields[at].replace(raw).is_some() {
                        return Err(
                            source.malformed(At::Line(line), format!("field `{name}` is there twice"))
                        );
                    }
                    seen[at] = true;
                }
                // Names are kept for the suggestion in case a wanted column never appears.
                None if names.len() < 256 && !names.contains_key(name.as_ref()) => {
                    names.insert(name.into_owned(), ());
                }
                None => {}
            }
        }
        for (at, raw) in fields.into_iter().enumerate() {
            push(&mut rows, wanted, at, raw, line)?;
        }
        rows.end_row(line, sink)?;
        Ok(true)
    })?;
    rows.flush(sink)?;
    if seen.contains(&false) {
        let there =
            wanted.iter().zip(&seen).filter(|(_, seen)| **seen).map(|(column, _)| column.name.clone());
        let names: Vec<String> = there.chain(names.into_keys()).collect();
        source.locate(wanted, &names)?;
    }
    Ok(())
}

/// Adds one field; its JSON type must be the column's: `"7"` is no number.
fn push(
    rows: &mut TextRows<'_>,
    wanted: &[Column],
    at: usize,
    raw: Option<&RawValue>,
    line: u64,
) -> Result<(), LoadError> {
    let Some(raw) = raw.map(RawValue::get) else { return rows.push(at, None, line) };
    let data_type = &wanted[at].data_type;
    match raw.as_bytes().first() {
        Some(b'n') => rows.push(at, None, line),
        Some(b'"') if *data_type == DataType::Utf8 || data_type.is_temporal() => {
            let text: Cow<'_, str> =
                serde_json::from_str::<Text<'_>>(raw).map(|text| text.0).unwrap_or_default();
            rows.push(at, Some(&text), line)
        }
        Some(b't' | b'f') if *data_type == DataType::Boolean => rows.push(at, Some(raw), line),
        Some(b'-' | b'0'..=b'9') if data_type.is_numeric() => rows.push(at, Some(raw), line),
        _ => Err(rows.unfit(at, raw, line)),
    }
}

fn text(raw: &RawValue) -> Cow<'_, str> {
    serde_json::from_str::<Text<'_>>(raw.get()).map(|text| text.0).unwrap_or_default()
}

/// Reads line by line until `sink` says no.
fn each(
    source: &Source,
    sink: &mut dyn FnMut(Object<'_>, u64) -> Result<bool, LoadError>,
) -> Result<(), LoadError> {
    let mut reader: BufReader<File> = BufReader::new(source.file()?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        match read.map_err(|error| source.malformed(At::Line(line), error))? {
            0 => break,
            read if read as u64 == LONGEST_LINE => {
                return Err(
                    source.malformed(At::Line(line), format!("a line of more than {LONGEST_LINE} bytes"))
                );
            }
            _ => {}
        }
        let start =
            if line == 1 { bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes) } else { &bytes };
        if start.trim_ascii().is_empty() {
            continue;
        }
        let object =
            serde_json::from_slice(start).map_err(|error| source.malformed(At::Line(line), json(&error)))?;
        if !sink(object, line)? {
            break;
        }
    }
    Ok(())
}

/// What is wrong with a line of JSON: the error's own text, with the column but without its line, which is always 1.
fn json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    match error.column() {
        0 => problem.to_owned(),
        column => format!("{problem} at column {column}"),
    }
}

/// The fields of an object, in order, not decoded: numbers keep every digit until the column's type is known.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> de::Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A string that is borrowed when it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
