//! Settings that name columns: one or several, and which ones a step passes on.

use std::fmt;

use arrow::datatypes::{Schema, SchemaRef};
use millstream_graph::SchemaError;
use schemars::{JsonSchema, Schema as JsonSchemaOf, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

/// The columns that make up one input of a model: one column, or several side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// One column of any shape: its rows are the rows of the input.
    One(String),
    /// Several columns, whose values stand side by side in each row of the input.
    Several(Vec<String>),
}

impl From<&str> for Columns {
    fn from(column: &str) -> Self {
        Self::One(column.to_owned())
    }
}

impl From<String> for Columns {
    fn from(column: String) -> Self {
        Self::One(column)
    }
}

impl<S: Into<String>> From<Vec<S>> for Columns {
    fn from(columns: Vec<S>) -> Self {
        Self::Several(columns.into_iter().map(Into::into).collect())
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Columns {
    fn from(columns: [S; N]) -> Self {
        Self::Several(columns.into_iter().map(Into::into).collect())
    }
}

/// Which of the columns that come in a step passes on beside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All of them.
    #[default]
    All,
    /// None of them.
    None,
    /// These.
    Columns(Vec<String>),
}

impl Keep {
    /// Of the kept columns, those that a list names; all others only pass through.
    pub(crate) fn named(&self, kept: &[usize]) -> Vec<usize> {
        if let Self::Columns(_) = self { kept.to_vec() } else { Vec::new() }
    }

    /// The indices of the kept columns, in the order of the schema or as listed.
    pub(crate) fn indices(&self, schema: &Schema) -> Result<Vec<usize>, SchemaError> {
        let names = match self {
            Self::All => return Ok((0..schema.fields().len()).collect()),
            Self::None => return Ok(Vec::new()),
            Self::Columns(names) => names,
        };
        let mut errors = Vec::new();
        let mut indices = Vec::with_capacity(names.len());
        for name in names {
            match schema.index_of(name) {
                Ok(index) if indices.contains(&index) => {
                    errors.push(SchemaError::new(format!("`keep` names column `{name}` twice")));
                }
                Ok(index) => indices.push(index),
                Err(_) => errors.push(unknown_column(name, schema)),
            }
        }
        SchemaError::collect(errors).map(|()| indices)
    }
}

pub(crate) fn unknown_column(name: &str, schema: &Schema) -> SchemaError {
    SchemaError::unknown_column(name, schema.fields().iter().map(|field| field.name().as_str()))
}

/// The only in-port's schema.
pub(crate) fn only(inputs: &[SchemaRef]) -> Result<&SchemaRef, SchemaError> {
    match inputs {
        [schema] => Ok(schema),
        _ => Err(SchemaError::new(format!("a model takes one input, not {}", inputs.len()))),
    }
}

/// A text or a list of texts; what each may be is said in errors.
struct TextOrList(&'static str);

enum Either {
    Text(String),
    List(Vec<String>),
}

impl<'de> Visitor<'de> for TextOrList {
    type Value = Either;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Either, E> {
        Ok(Either::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Either, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Either::List)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match deserializer.deserialize_any(TextOrList("a column or a list of columns"))? {
            Either::Text(column) => Self::One(column),
            Either::List(columns) => Self::Several(columns),
        })
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WANTED: &str = "`all`, `none` or a list of columns";
        match deserializer.deserialize_any(TextOrList(WANTED))? {
            Either::Text(text) if text == "all" => Ok(Self::All),
            Either::Text(text) if text == "none" => Ok(Self::None),
            Either::Text(text) => Err(D::Error::invalid_value(serde::de::Unexpected::Str(&text), &WANTED)),
            Either::List(columns) => Ok(Self::Columns(columns)),
        }
    }
}

impl JsonSchema for Columns {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Columns".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> JsonSchemaOf {
        json_schema!({
            "description": "One column, or several whose values stand side by side.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        })
    }
}

impl JsonSchema for Keep {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Keep".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> JsonSchemaOf {
        json_schema!({
            "description": "Which of the columns that come in are passed on.",
            "anyOf": [{ "enum": ["all", "none"] }, { "type": "array", "items": { "type": "string" } }],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_a_text_or_a_list() {
        let columns = |value| serde_json::from_value::<Columns>(value).map_err(|error| error.to_string());
        assert_eq!(columns(json!("a")), Ok(Columns::One("a".to_owned())));
        assert_eq!(columns(json!(["a", "b"])), Ok(Columns::from(["a", "b"])));
        assert_eq!(
            columns(json!(3)).unwrap_err(),
            "invalid type: integer `3`, expected a column or a list of columns"
        );
        let keep = |value| serde_json::from_value::<Keep>(value).map_err(|error| error.to_string());
        assert_eq!(keep(json!("all")), Ok(Keep::All));
        assert_eq!(keep(json!([])), Ok(Keep::Columns(Vec::new())));
        assert_eq!(
            keep(json!("some")).unwrap_err(),
            "invalid value: string \"some\", expected `all`, `none` or a list of columns"
        );
    }
}
