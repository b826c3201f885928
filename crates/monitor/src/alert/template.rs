//! Text with `{{name}}` in it, and JSON whose strings are such text.

use millstream_graph::suggest;
use serde_json::{Map, Number, Value};

use super::{
    Secret, Source,
    text::{self, number},
};

/// What a rendered text is cut to, in bytes.
const MAX_RENDERED: usize = 4096;

/// Text with `{{name}}` placeholders, all of them known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Placeholder(String),
}

/// What a placeholder stands for.
#[derive(Clone, Debug)]
pub(super) enum Placed {
    Text(String),
    Number(f64),
    Json(Value),
}

impl Template {
    /// Reads a template whose placeholders are all in `known`; answers every mistake.
    pub(super) fn read(text: &str, known: &[&str]) -> Result<Self, Vec<String>> {
        let (mut parts, mut mistakes, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("{{") {
            let Some((name, behind)) = behind.split_once("}}") else {
                mistakes.push("`{{` has no `}}` behind it".to_owned());
                return Err(mistakes);
            };
            let name = name.trim();
            if !known.contains(&name) {
                mistakes.push(suggest::unknown("placeholder", name, known.iter().copied()));
            }
            parts.extend([Part::Text(before.to_owned()), Part::Placeholder(name.to_owned())]);
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        if mistakes.is_empty() { Ok(Self(parts)) } else { Err(mistakes) }
    }

    /// The text, with what `placed` answers in the places, cut to 4096 bytes.
    pub(super) fn text(&self, placed: &impl Fn(&str) -> Placed) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Placeholder(name) => text.push_str(&placed(name).text()),
            }
            // A long label in many places must not make a text of megabytes.
            if text.len() > MAX_RENDERED {
                break;
            }
        }
        text::cut(&text, MAX_RENDERED)
    }

    /// A JSON string, or the value itself where the template is one placeholder.
    fn json(&self, placed: &impl Fn(&str) -> Placed) -> Value {
        match &self.0[..] {
            [Part::Placeholder(name)] => placed(name).json(),
            _ => Value::String(self.text(placed)),
        }
    }
}

impl Placed {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(value) => number(value),
            Self::Json(value) => value.to_string(),
        }
    }

    fn json(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text),
            // JSON has no infinity; its text is better than nothing.
            Self::Number(value) => {
                Number::from_f64(value).map_or_else(|| Value::String(number(value)), Value::Number)
            }
            Self::Json(value) => value,
        }
    }
}

/// JSON whose strings are templates. It is rendered as a value, so nothing that is placed in it can change its shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsonTemplate {
    Fixed(Value),
    Text(Template),
    /// A reference to a secret, which whoever sends the body puts in.
    Secret(Secret),
    List(Vec<JsonTemplate>),
    Map(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    /// Reads a body; adds each mistake with the keys that lead to it.
    pub(super) fn read(
        body: &Value,
        known: &[&str],
        path: &mut Vec<String>,
        mistakes: &mut Vec<(Vec<String>, String)>,
    ) -> Self {
        let mut inner = |key: String, value: &Value| {
            path.push(key);
            let read = Self::read(value, known, path, mistakes);
            path.pop();
            read
        };
        match body {
            Value::String(text) if !matches!(Secret::new(text.as_str()).source(), Source::Plain(_)) => {
                return Self::Secret(Secret::new(text.as_str()));
            }
            Value::String(text) => match Template::read(text, known) {
                Ok(template) => return Self::Text(template),
                Err(found) => mistakes.extend(found.into_iter().map(|mistake| (path.clone(), mistake))),
            },
            Value::Array(items) => {
                let items = items.iter().enumerate();
                return Self::List(items.map(|(index, value)| inner(index.to_string(), value)).collect());
            }
            Value::Object(map) => {
                return Self::Map(
                    map.iter().map(|(key, value)| (key.clone(), inner(key.clone(), value))).collect(),
                );
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Self::Fixed(body.clone())
    }

    /// The body, with what `placed` answers in the places.
    pub(super) fn render(&self, placed: &impl Fn(&str) -> Placed) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(template) => template.json(placed),
            Self::Secret(secret) => Value::String(secret.written().to_owned()),
            Self::List(items) => items.iter().map(|item| item.render(placed)).collect(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), value.render(placed)));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// Where the body has references to secrets, as JSON pointers. They are found in the settings, not in the rendered
    /// body: a label that reads `env:NAME` must not fetch anything.
    pub(super) fn secrets(&self) -> Vec<(String, Secret)> {
        let below = |key: &str, inner: &Self| {
            let key = key.replace('~', "~0").replace('/', "~1");
            inner
                .secrets()
                .into_iter()
                .map(move |(at, secret)| (format!("/{key}{at}"), secret))
                .collect::<Vec<_>>()
        };
        match self {
            Self::Secret(secret) => vec![(String::new(), secret.clone())],
            Self::List(items) => {
                items.iter().enumerate().flat_map(|(index, item)| below(&index.to_string(), item)).collect()
            }
            Self::Map(entries) => entries.iter().flat_map(|(key, value)| below(key, value)).collect(),
            Self::Fixed(_) | Self::Text(_) => Vec::new(),
        }
    }
}
