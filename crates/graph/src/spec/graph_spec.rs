//! A graph as it stands in a file: read, made into a [`Graph`], and written again.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Document, Kinds, SpecErrors, column, type_text};
use crate::{
    CompileErrors, Graph, INPUT, OnError, PortRef, Ports, Step,
    graph::Node,
    steps::{Join, JoinHow, JoinOn, Merge},
    suggest,
};

/// The keys that every step may have beside its kind.
const COMMON: [&str; 3] = ["from", "on_error", "description"];
/// The kind that puts another graph of the file in a step's place.
pub(super) const GRAPH_KIND: &str = "graph";

/// A graph as it stands in a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GraphSpec {
    /// What the graph is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The columns of a request, and their types.
    pub input: IndexMap<String, String>,
    /// The steps, by name.
    pub steps: IndexMap<String, StepSpec>,
    /// The port whose rows are the reply.
    pub respond: String,
}

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
    /// What happens when it fails.
    pub on_error: OnError,
}

/// The word or the map after `on_error:`.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnErrorSpec {
    Fail,
    Skip,
    Default(BTreeMap<String, Value>),
}

/// Puts the columns of several inputs side by side.
#[derive(Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinSettings {
    /// The columns whose values rows must share. Without them, rows meet that stood at the same place in the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) on: Vec<String>,
    /// What happens to rows of the first input that meet none: `left` keeps them with nulls, `inner` leaves them out.
    #[serde(default)]
    pub(super) how: How,
}

/// What happens to rows of the first input that meet none.
#[derive(Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// They are kept, with nulls.
    #[default]
    Left,
    /// They are left out.
    Inner,
}

/// Brings the rows of several inputs of one schema back together, in the order of the request.
#[derive(Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MergeSettings {}

/// Puts another graph of the file in this step's place.
#[derive(Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GraphSettings {
    /// The graph's name.
    #[serde(rename = "use")]
    pub(super) graph: String,
}

/// The kinds of step that need nothing but Arrow: `merge` and `join`.
pub fn kinds() -> Vec<super::StepKind> {
    vec![
        super::StepKind::new("merge", |_: MergeSettings| Ok(Arc::new(Merge::default()) as _)),
        super::StepKind::new("join", |settings: JoinSettings| {
            let on = if settings.on.is_empty() { JoinOn::Rows } else { JoinOn::Keys(settings.on) };
            let how = match settings.how {
                How::Left => JoinHow::Left,
                How::Inner => JoinHow::Inner,
            };
            Ok(Arc::new(Join::new(on).how(how)) as _)
        }),
    ]
}

impl GraphSpec {
    /// Reads the graph at `path` of a file.
    ///
    /// # Errors
    /// Every key that is unknown, missing or of the wrong type, with its place.
    pub fn read(document: &Document, path: &[&str], kinds: &Kinds) -> Result<Self, SpecErrors> {
        /// The keys of a graph; steps are read one by one, so that each can say what is wrong with it.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a map of `input`, `steps` and `respond`")]
        struct Keys {
            description: Option<String>,
            input: IndexMap<String, String>,
            steps: IndexMap<String, Value>,
            respond: String,
        }
        let mut errors = SpecErrors::default();
        let keys: Keys = document.typed(path)?;
        for (name, text) in &keys.input {
            if let Err(problem) = column(name, text) {
                errors.push(
                    document.place(&[path, &["input", name]].concat()),
                    format!("column `{name}`: {problem}"),
                );
            }
        }
        let mut steps = IndexMap::new();
        for name in keys.steps.keys() {
            let path = [path, &["steps", name]].concat();
            // Settings are read here too, so that their mistakes come with those of the other steps.
            match StepSpec::read(document, &path, kinds).and_then(|step| {
                step.build(kinds, document, &path)?;
                Ok(step)
            }) {
                Ok(step) => drop(steps.insert(name.clone(), step)),
                Err(problems) => errors.extend(problems),
            }
        }
        errors.check()?;
        Ok(Self { description: keys.description, input: keys.input, steps, respond: keys.respond })
    }

    /// Makes the graph. `others` are the graphs that a step may put in its place.
    ///
    /// # Errors
    /// Settings that their kind refuses, and graphs that are not there; places are those of `document` at `path`.
    pub fn graph(
        &self,
        name: &str,
        kinds: &Kinds,
        others: &dyn Fn(&str) -> Option<Graph>,
        document: &Document,
        path: &[&str],
    ) -> Result<Graph, SpecErrors> {
        let mut errors = SpecErrors::default();
        let fields = self.input.iter().filter_map(|(name, text)| column(name, text).ok());
        let mut graph = Graph::new(name, Arc::new(Schema::new(fields.collect::<Vec<Field>>())));
        let mut above = INPUT.to_owned();
        // A step that another graph stands in for is read under its own name, which means that graph's reply.
        let mut replies: BTreeMap<String, PortRef> = BTreeMap::new();
        for (step_name, step) in &self.steps {
            let path = [path, &["steps", step_name]].concat();
            let from = step.from.clone().unwrap_or_else(|| vec![above.clone()]);
            let inputs: Vec<_> = from.iter().map(|text| port(text, &replies)).collect();
            if step.kind == GRAPH_KIND {
                match embedded(step, others) {
                    Ok(inner) => {
                        let input = inputs.first().cloned().unwrap_or_else(|| PortRef::of(INPUT));
                        let first = graph.nodes.len();
                        replies.insert(step_name.clone(), graph.embed(step_name, &input, &inner));
                        let settings = [(GRAPH_KIND.to_owned(), step.settings.clone())].into_iter().collect();
                        graph.nodes[first].written = Some(Value::Object(settings));
                        graph.nodes[first].description.clone_from(&step.description);
                        graph.nodes[first + 1..].iter_mut().for_each(|node| node.embedded = true);
                    }
                    Err(message) => {
                        errors.push(document.place(&path), format!("step `{step_name}`: {message}"))
                    }
                }
            } else {
                match step.build(kinds, document, &path) {
                    Ok(Some(made)) => {
                        let written = [(step.kind.clone(), step.settings.clone())].into_iter().collect();
                        graph.add(step_name, made.kind, Ports::from(inputs), made.step);
                        if let Some(node) = graph.nodes.last_mut() {
                            node.written = Some(Value::Object(written));
                            node.description.clone_from(&step.description);
                            node.on_error = step.on_error.clone();
                        }
                    }
                    Ok(None) => {}
                    Err(problems) => errors.extend(problems),
                }
            }
            above.clone_from(step_name);
        }
        errors.check()?;
        graph.respond(&port(&self.respond, &replies));
        Ok(graph)
    }

    /// The mistakes that compile found in this graph, with their places.
    pub fn place_errors(errors: &CompileErrors, document: &Document, path: &[&str]) -> SpecErrors {
        let mut placed = SpecErrors::default();
        for error in errors.errors() {
            let place = match error.step() {
                // Steps of an embedded graph stand under the step that names it.
                Some("respond") => document.place(&[path, &["respond"]].concat()),
                Some(step) => {
                    let step = step.split('/').next().unwrap_or(step);
                    document.place(&[path, &["steps", step]].concat())
                }
                None => document.place(path),
            };
            placed.push(place, error.to_string());
        }
        placed
    }
}

fn embedded(step: &StepSpec, others: &dyn Fn(&str) -> Option<Graph>) -> Result<Graph, String> {
    let settings: GraphSettings =
        serde_json::from_value(step.settings.clone()).map_err(|error| error.to_string())?;
    others(&settings.graph).ok_or_else(|| format!("no graph `{}` that could stand here", settings.graph))
}

/// The port that `step` or `step.port` names.
fn port(text: &str, replies: &BTreeMap<String, PortRef>) -> PortRef {
    match text.split_once('.') {
        Some((step, port)) => PortRef::of(step).port(port),
        None => replies.get(text).cloned().unwrap_or_else(|| PortRef::of(text)),
    }
}

/// A step made of settings, and its kind's name.
struct Made {
    kind: &'static str,
    step: Arc<dyn Step>,
}

impl StepSpec {
    /// What the settings make; `None` where another graph stands in its place.
    fn build(&self, kinds: &Kinds, document: &Document, path: &[&str]) -> Result<Option<Made>, SpecErrors> {
        let Some(kind) = kinds.get(&self.kind) else { return Ok(None) };
        let made = kind.build(&self.settings).map_err(|error| {
            let name = path.last().copied().unwrap_or_default();
            let path = [path, &[self.kind.as_str()]].concat();
            let mut errors = SpecErrors::default();
            for problem in &error.problems {
                let (place, message) = document.explain(&path, &error.path, problem);
                errors.push(place, format!("step `{name}`: {message}"));
            }
            errors
        })?;
        Ok(Some(Made { kind: kind.name(), step: made }))
    }

    fn read(document: &Document, path: &[&str], kinds: &Kinds) -> Result<Self, SpecErrors> {
        let mut errors = SpecErrors::default();
        let name = path.last().copied().unwrap_or_default();
        let Some(Value::Object(map)) = document.get(path) else {
            errors
                .push(document.place(path), format!("step `{name}`: a step is a map with its kind as a key"));
            return Err(errors);
        };
        let known = || kinds.iter().map(super::StepKind::name).chain([GRAPH_KIND]);
        let mut found: Vec<&String> = Vec::new();
        for key in map.keys().filter(|key| !COMMON.contains(&key.as_str())) {
            if known().any(|kind| kind == key) {
                found.push(key);
            } else {
                let message = suggest::unknown("kind of step", key, known().chain(COMMON));
                errors.push(document.place(&[path, &[key]].concat()), format!("step `{name}`: {message}"));
            }
        }
        match found[..] {
            [_] => {}
            [] if errors.errors().is_empty() => {
                errors.push(document.place(path), format!("step `{name}`: says no kind of step"));
            }
            [] => {}
            [first, second, ..] => errors.push(
                document.place(&[path, &[second]].concat()),
                format!("step `{name}`: is both `{first}` and `{second}`; make it two steps"),
            ),
        }
        let from = from_ports(document, path, map, &mut errors);
        let on_error = match map.get("on_error") {
            None => OnError::Fail,
            Some(_) => match document.typed(&[path, &["on_error"]].concat()) {
                Ok(OnErrorSpec::Fail) => OnError::Fail,
                Ok(OnErrorSpec::Skip) => OnError::Skip,
                Ok(OnErrorSpec::Default(values)) => OnError::Default(values),
                Err(problems) => {
                    errors.extend(problems);
                    OnError::Fail
                }
            },
        };
        let description = map.get("description").and_then(Value::as_str).map(str::to_owned);
        errors.check()?;
        let kind = found[0].clone();
        let settings = match &map[&kind] {
            // `merge:` with nothing behind it is a kind without settings.
            Value::Null => Value::Object(Map::new()),
            settings => settings.clone(),
        };
        Ok(Self { description, from, kind, settings, on_error })
    }
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
        match &self.on_error {
            OnError::Fail => {}
            OnError::Skip => drop(map.insert("on_error".into(), "skip".into())),
            OnError::Default(values) => {
                let values: Map<String, Value> = values.clone().into_iter().collect();
                map.insert("on_error".into(), serde_json::json!({ "default": values }));
            }
        }
        map.serialize(serializer)
    }
}

/// Why a graph cannot be written to a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step `{step}` was made in Rust and has no settings that a file could hold")]
pub struct NotWritable {
    /// The step.
    pub step: String,
}

impl TryFrom<&Graph> for GraphSpec {
    type Error = NotWritable;

    fn try_from(graph: &Graph) -> Result<Self, NotWritable> {
        let input = graph.input.fields().iter().map(|field| (field.name().clone(), type_text(field)));
        let mut spec = Self {
            description: None,
            input: input.collect(),
            steps: IndexMap::new(),
            respond: String::new(),
        };
        // An embedded graph is written as the one step that it stands for.
        let outer = |port: &PortRef| match port.step.split_once('/') {
            Some((step, _)) => step.to_owned(),
            None => port.to_string(),
        };
        for node in graph.nodes.iter().filter(|node| !node.embedded) {
            if node.respond {
                spec.respond = node.inputs.first().map(outer).unwrap_or_default();
                continue;
            }
            let Some(Value::Object(written)) = &node.written else {
                return Err(NotWritable { step: node.name.clone() });
            };
            let Some((kind, settings)) = written.iter().next() else { continue };
            let name = node.name.split('/').next().unwrap_or(&node.name).to_owned();
            spec.steps.insert(name, step_spec(node, kind, settings, &outer));
        }
        Ok(spec)
    }
}

fn step_spec(node: &Node, kind: &str, settings: &Value, outer: &dyn Fn(&PortRef) -> String) -> StepSpec {
    StepSpec {
        description: node.description.clone(),
        from: Some(node.inputs.iter().map(outer).collect()),
        kind: kind.to_owned(),
        settings: settings.clone(),
        on_error: node.on_error.clone(),
    }
}
