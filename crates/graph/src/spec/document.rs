//! YAML text as values that know their place in it.

use std::collections::HashMap;

use saphyr::{LoadableYamlNode, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::suggest;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// A YAML file, read: its value, and where each part of it stands.
pub struct Document {
    value: Value,
    places: HashMap<Vec<String>, Place>,
}

/// A place in a file, both counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// One mistake in a file: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpecError {
    /// Where.
    pub place: Place,
    /// What, in a sentence that names the fix where there is one.
    pub message: String,
}

impl std::fmt::Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.place.line, self.place.column, self.message)
    }
}

/// Every mistake in a file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecErrors {
    errors: Vec<SpecError>,
}

impl SpecErrors {
    /// The mistakes.
    pub fn errors(&self) -> &[SpecError] {
        &self.errors
    }

    /// Adds a mistake.
    pub fn push(&mut self, place: Place, message: impl Into<String>) {
        self.errors.push(SpecError { place, message: message.into() });
    }

    /// Adds the mistakes of another check.
    pub fn extend(&mut self, others: SpecErrors) {
        self.errors.extend(others.errors);
    }

    /// The same mistakes, each with `start` before its message.
    pub(super) fn after(mut self, start: &str) -> Self {
        self.errors.iter_mut().for_each(|error| error.message.insert_str(0, start));
        self
    }

    /// The mistakes in the order of the file, or `Ok` when there are none.
    ///
    /// # Errors
    /// When there is at least one mistake.
    pub fn check(mut self) -> Result<(), SpecErrors> {
        self.errors.sort();
        self.errors.dedup();
        if self.errors.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for SpecErrors {}

impl Document {
    /// Reads one YAML document.
    ///
    /// # Errors
    /// When the text is too large, is no YAML, nests too deeply, or holds what JSON cannot: keys that are no text, numbers
    /// that are not finite, tags.
    pub fn read(text: &str) -> Result<Self, SpecErrors> {
        let mut errors = SpecErrors::default();
        if text.len() > MAX_BYTES {
            errors.push(Place { line: 1, column: 1 }, format!("a file has at most {MAX_BYTES} bytes"));
            return Err(errors);
        }
        let mut documents = MarkedYamlOwned::load_from_str(text).map_err(|error| {
            let mark = error.marker();
            let mut errors = SpecErrors::default();
            errors.push(Place { line: mark.line(), column: mark.col() + 1 }, error.info());
            errors
        })?;
        let mut document = Self { value: Value::Null, places: HashMap::new() };
        if documents.len() > 1 {
            errors.push(place_of(&documents[1]), "a file holds one document");
        }
        if let Some(root) = documents.drain(..).next() {
            document.value = document.convert(&root, &mut Vec::new(), &mut errors);
        }
        errors.check()?;
        Ok(document)
    }

    /// The value at `path`, if there is one.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.value, |value, key| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        })
    }

    /// The place of the value at `path`, or of the closest part of the file around it.
    pub fn place<S: AsRef<str>>(&self, path: &[S]) -> Place {
        let path: Vec<String> = path.iter().map(|key| key.as_ref().to_owned()).collect();
        (0..=path.len())
            .rev()
            .find_map(|len| self.places.get(&path[..len]))
            .copied()
            .unwrap_or(Place { line: 1, column: 1 })
    }

    /// Reads the value at `path` as a type that refuses unknown keys.
    ///
    /// # Errors
    /// When a key is unknown or missing, or a value has the wrong type: with the place of it.
    pub fn typed<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, SpecErrors> {
        let value = self.get(path).unwrap_or(&Value::Null);
        serde_path_to_error::deserialize(value).map_err(|error| {
            let inner: Vec<String> = error.path().iter().map(ToString::to_string).collect();
            let mut errors = SpecErrors::default();
            let (place, message) = self.explain(path, &inner, &error.into_inner().to_string());
            errors.push(place, message);
            errors
        })
    }

    /// The place and the wording of what serde said about the value at `path`, `inner` below it.
    pub(super) fn explain(&self, path: &[&str], inner: &[String], said: &str) -> (Place, String) {
        let mut at: Vec<String> = path.iter().map(ToString::to_string).collect();
        at.extend(inner.iter().filter(|key| *key != "?").cloned());
        let quoted: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
        let message = match quoted.split_first() {
            Some((key, known)) if said.starts_with("unknown field") => {
                if at.last().map(String::as_str) != Some(*key) {
                    at.push((*key).to_owned());
                }
                suggest::unknown("key", key, known.iter().copied())
            }
            Some((value, known)) if said.starts_with("unknown variant") => {
                suggest::unknown("choice", value, known.iter().copied())
            }
            Some((key, _)) if said.starts_with("missing field") => format!("key `{key}` is missing"),
            _ => said.to_owned(),
        };
        (self.place(&at), message)
    }

    fn convert(&mut self, node: &MarkedYamlOwned, path: &mut Vec<String>, errors: &mut SpecErrors) -> Value {
        let place = place_of(node);
        self.places.entry(path.clone()).or_insert(place);
        if path.len() > MAX_DEPTH {
            errors.push(place, format!("nests deeper than {MAX_DEPTH} levels"));
            return Value::Null;
        }
        match &node.data {
            YamlDataOwned::Value(scalar) => scalar_value(scalar).unwrap_or_else(|| {
                errors.push(place, "a number must be finite");
                Value::Null
            }),
            YamlDataOwned::Sequence(items) => {
                let items = items.iter().enumerate().map(|(at, item)| {
                    path.push(at.to_string());
                    let value = self.convert(item, path, errors);
                    path.pop();
                    value
                });
                Value::Array(items.collect())
            }
            YamlDataOwned::Mapping(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    let Some(name) = key_text(key) else {
                        errors.push(place_of(key), "a key must be text");
                        continue;
                    };
                    path.push(name.clone());
                    self.places.insert(path.clone(), place_of(key));
                    let value = self.convert(value, path, errors);
                    path.pop();
                    map.insert(name, value);
                }
                Value::Object(map)
            }
            _ => {
                errors.push(place, "tags and references cannot be read here");
                Value::Null
            }
        }
    }
}

fn place_of(node: &MarkedYamlOwned) -> Place {
    Place { line: node.span.start.line(), column: node.span.start.col() + 1 }
}

fn scalar_value(scalar: &ScalarOwned) -> Option<Value> {
    Some(match scalar {
        ScalarOwned::Null => Value::Null,
        ScalarOwned::Boolean(value) => Value::Bool(*value),
        ScalarOwned::Integer(value) => Value::from(*value),
        ScalarOwned::FloatingPoint(value) => Value::Number(serde_json::Number::from_f64(value.into_inner())?),
        ScalarOwned::String(value) => Value::String(value.clone()),
    })
}

fn key_text(key: &MarkedYamlOwned) -> Option<String> {
    match &key.data {
        YamlDataOwned::Value(ScalarOwned::String(text)) => Some(text.clone()),
        // `1: one` and `true: yes` are keys that a user means as text, for instance categories.
        YamlDataOwned::Value(ScalarOwned::Integer(number)) => Some(number.to_string()),
        YamlDataOwned::Value(ScalarOwned::Boolean(value)) => Some(value.to_string()),
        _ => None,
    }
}
