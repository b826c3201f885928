//! A step as it stands in a file: its kind and settings, the layers around it, and what happens when it fails.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Document, Kinds, SettingsError, SpecErrors, StepKind, graph_spec::GRAPH_KIND};
use crate::{OnError, Step, Substitute, policy::Policies, suggest};

/// The keys that every step may have beside its kind and its layers.
const COMMON: [&str; 5] = ["from", "on_error", "on_timeout", "on_overload", "description"];

/// A step as it stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// What the step is for.
    pub description: Option<String>,
    /// The ports it reads; `None` is the step above.
    pub from: Option<Vec<String>>,
    /// The kind of step.
    pub kind: String,
    /// The settings of the kind.
    pub settings: Value,
    /// The layers around it and their settings, innermost first.
    pub layers: Vec<(&'static str, Value)>,
    /// What happens when it fails.
    pub on_error: PolicySpec,
    /// What happens when it is late; `None` is as when it fails.
    pub on_timeout: Option<PolicySpec>,
    /// What happens when it refuses a call because a bound is reached; `None` is as when it fails.
    pub on_overload: Option<PolicySpec>,
}

/// The word or the map behind `on_error`, `on_timeout` and `on_overload`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicySpec {
    /// The graph's handler takes over, or the run fails.
    #[default]
    Fail,
    /// The rows are left out.
    Skip,
    /// The rows go on with these values, by column.
    Default(BTreeMap<String, Value>),
    /// Another step answers: its settings, by its kind.
    Step(BTreeMap<String, Value>),
}

impl PolicySpec {
    pub(super) fn of(policy: &OnError) -> Self {
        match policy {
            OnError::Fail => Self::Fail,
            OnError::Skip => Self::Skip,
            OnError::Default(values) => Self::Default(values.clone()),
            OnError::Step(substitute) => Self::Step(substitute.written.clone().unwrap_or_default()),
        }
    }

    fn policy(&self, kinds: &Kinds, document: &Document, path: &[&str]) -> Result<OnError, SpecErrors> {
        let settings = match self {
            Self::Fail => return Ok(OnError::Fail),
            Self::Skip => return Ok(OnError::Skip),
            Self::Default(values) => return Ok(OnError::Default(values.clone())),
            Self::Step(settings) => settings,
        };
        let path = [path, &["step"]].concat();
        let mut errors = SpecErrors::default();
        for key in settings.keys().filter(|key| kinds.get(key).is_none()) {
            let message = suggest::unknown("kind of step", key, kinds.iter().map(StepKind::name));
            errors.push(document.place(&[&path[..], &[key]].concat()), message);
        }
        if settings.len() != 1 {
            errors.push(document.place(&path), "a step that stands in is a map of its kind to its settings");
        }
        errors.check()?;
        let Some((key, value)) = settings.iter().next() else { return Ok(OnError::Fail) };
        let Some(kind) = kinds.get(key) else { return Ok(OnError::Fail) };
        let step = kind
            .build(without_null(value).as_ref().unwrap_or(value))
            .map_err(|error| refused(&error, document, &[&path[..], &[key]].concat(), ""))?;
        Ok(OnError::Step(Substitute { step, kind: kind.name(), written: Some(settings.clone()) }))
    }
}

/// A step made of settings, with its layers around it.
pub(super) struct Made {
    pub(super) kind: &'static str,
    pub(super) step: Arc<dyn Step>,
    pub(super) policies: Policies,
}

impl StepSpec {
    /// What the settings make; `None` where another graph stands in its place.
    pub(super) fn build(
        &self,
        kinds: &Kinds,
        document: &Document,
        path: &[&str],
    ) -> Result<Option<Made>, SpecErrors> {
        let Some(kind) = kinds.get(&self.kind) else { return Ok(None) };
        let start = format!("step `{}`: ", path.last().copied().unwrap_or_default());
        let mut errors = SpecErrors::default();
        let mut made = kind
            .build(&self.settings)
            .map_err(|error| {
                errors.extend(refused(&error, document, &[path, &[&self.kind]].concat(), &start))
            })
            .ok();
        for (name, settings) in &self.layers {
            let Some((layer, step)) = kinds.layer(name).zip(made.take()) else { continue };
            made = layer
                .build(settings, step)
                .map_err(|error| errors.extend(refused(&error, document, &[path, &[name]].concat(), &start)))
                .ok();
        }
        let mut policy = |key: &str, spec: &PolicySpec| {
            spec.policy(kinds, document, &[path, &[key]].concat()).unwrap_or_else(|problems| {
                errors.extend(problems.after(&start));
                OnError::Fail
            })
        };
        let policies = Policies {
            error: policy("on_error", &self.on_error),
            timeout: self.on_timeout.as_ref().map(|spec| policy("on_timeout", spec)),
            overload: self.on_overload.as_ref().map(|spec| policy("on_overload", spec)),
        };
        errors.check()?;
        Ok(made.map(|step| Made { kind: kind.name(), step, policies }))
    }

    pub(super) fn read(document: &Document, path: &[&str], kinds: &Kinds) -> Result<Self, SpecErrors> {
        let mut errors = SpecErrors::default();
        let name = path.last().copied().unwrap_or_default();
        let Some(Value::Object(map)) = document.get(path) else {
            errors
                .push(document.place(path), format!("step `{name}`: a step is a map with its kind as a key"));
            return Err(errors);
        };
        let kind = kind_of(document, path, map, kinds, &mut errors);
        let from = from_ports(document, path, map, &mut errors);
        let mut policy = |key: &str| {
            map.get(key)?;
            document.typed(&[path, &[key]].concat()).map_err(|problems| errors.extend(problems)).ok()
        };
        let (on_error, on_timeout, on_overload) =
            (policy("on_error").unwrap_or_default(), policy("on_timeout"), policy("on_overload"));
        let description = map.get("description").and_then(Value::as_str).map(str::to_owned);
        let layers =
            kinds.layers().iter().filter_map(|layer| Some((layer.name(), map.get(layer.name())?.clone())));
        let layers: Vec<_> = layers.collect();
        if kind == GRAPH_KIND {
            for key in undeclarable(map, &layers) {
                let message = format!("step `{name}`: a graph takes no `{key}`; give it to a step inside");
                errors.push(document.place(&[path, &[key]].concat()), message);
            }
        }
        errors.check()?;
        let settings = map.get(&kind).unwrap_or(&Value::Null);
        // `merge:` with nothing behind it is a kind without settings.
        let settings = without_null(settings).unwrap_or_else(|| settings.clone());
        Ok(Self { description, from, kind, settings, layers, on_error, on_timeout, on_overload })
    }
}

/// The keys of a step that say something about one call, which a graph in its place cannot promise.
fn undeclarable<'m>(
    map: &'m Map<String, Value>,
    layers: &'m [(&'static str, Value)],
) -> impl Iterator<Item = &'m str> {
    let policies = ["on_error", "on_timeout", "on_overload"].into_iter().filter(|key| map.contains_key(*key));
    policies.chain(layers.iter().map(|(name, _)| *name))
}

fn without_null(settings: &Value) -> Option<Value> {
    settings.is_null().then(|| Value::Object(Map::new()))
}

/// What a kind says against its settings, with places.
fn refused(error: &SettingsError, document: &Document, path: &[&str], start: &str) -> SpecErrors {
    let mut errors = SpecErrors::default();
    for problem in &error.problems {
        let (place, message) = document.explain(path, &error.path, problem);
        errors.push(place, format!("{start}{message}"));
    }
    errors
}

/// The one key that is a kind of step.
fn kind_of(
    document: &Document,
    path: &[&str],
    map: &Map<String, Value>,
    kinds: &Kinds,
    errors: &mut SpecErrors,
) -> String {
    let name = path.last().copied().unwrap_or_default();
    let known = || kinds.iter().map(StepKind::name).chain([GRAPH_KIND]);
    let others = || COMMON.into_iter().chain(kinds.layers().iter().map(super::LayerKind::name));
    let mut found: Vec<&String> = Vec::new();
    for key in map.keys().filter(|key| !others().any(|other| other == *key)) {
        if known().any(|kind| kind == key) {
            found.push(key);
        } else {
            let message = suggest::unknown("kind of step", key, known().chain(others()));
            errors.push(document.place(&[path, &[key]].concat()), format!("step `{name}`: {message}"));
        }
    }
    match found[..] {
        [one] => return one.clone(),
        [] if errors.errors().is_empty() => {
            errors.push(document.place(path), format!("step `{name}`: says no kind of step"));
        }
        [] => {}
        [first, second, ..] => errors.push(
            document.place(&[path, &[second]].concat()),
            format!("step `{name}`: is both `{first}` and `{second}`; make it two steps"),
        ),
    }
    String::new()
}

fn from_ports(
    document: &Document,
    path: &[&str],
    map: &Map<String, Value>,
    errors: &mut SpecErrors,
) -> Option<Vec<String>> {
    let texts: Vec<Option<String>> = match map.get("from")? {
        Value::String(one) => vec![Some(one.clone())],
        Value::Array(many) => many.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => vec![None],
    };
    let ports: Option<Vec<String>> = texts.into_iter().collect();
    if ports.is_none() {
        let place = document.place(&[path, &["from"]].concat());
        errors.push(place, "`from` is a step, a `step.port`, or a list of them");
    }
    ports
}

impl Serialize for StepSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::new();
        if let Some(description) = &self.description {
            map.insert("description".into(), description.clone().into());
        }
        match self.from.as_deref() {
            None => {}
            Some([one]) => drop(map.insert("from".into(), one.clone().into())),
            Some(many) => drop(map.insert("from".into(), many.to_vec().into())),
        }
        map.insert(self.kind.clone(), self.settings.clone());
        map.extend(self.layers.iter().map(|(name, settings)| ((*name).to_owned(), settings.clone())));
        let on_error = Some(&self.on_error).filter(|policy| **policy != PolicySpec::Fail);
        let policies = [
            ("on_error", on_error),
            ("on_timeout", self.on_timeout.as_ref()),
            ("on_overload", self.on_overload.as_ref()),
        ];
        for (key, policy) in policies {
            if let Some(policy) = policy {
                map.insert(key.into(), serde_json::to_value(policy).map_err(serde::ser::Error::custom)?);
            }
        }
        map.serialize(serializer)
    }
}
