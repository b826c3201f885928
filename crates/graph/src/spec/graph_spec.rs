//! A graph as it stands in a file: read, made into a [`Graph`], and written again.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Document, Kinds, PolicySpec, SpecErrors, StepSpec, StreamSpec, column, type_text};
use crate::{
    CompileError, CompileErrors, Graph, INPUT, PortRef, Ports,
    graph::Node,
    steps::{Join, JoinHow, JoinOn, Merge},
};

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
    /// How replies come in parts, to those who ask for a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamSpec>,
    /// What is watched of the rows that leave ports, by `step` or `step.port`. Whoever watches knows what it means.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub monitor: IndexMap<String, Value>,
    /// What is kept of requests. Whoever keeps it knows what it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Value>,
    /// The graph of the file that explains what this one answers. Whoever serves both knows what it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
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
            stream: Option<StreamSpec>,
            #[serde(default)]
            monitor: IndexMap<String, Value>,
            record: Option<Value>,
            explain: Option<String>,
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
        let Keys { description, input, respond, stream, monitor, record, explain, .. } = keys;
        Ok(Self { description, input, steps, respond, stream, monitor, record, explain })
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
                            node.policies = made.policies;
                            node.layers.clone_from(&step.layers);
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
        if let Some(stream) = &self.stream {
            graph.stream(stream.into());
        }
        Ok(graph)
    }

    /// The port of `graph`, which was made of this, that a file names by `step` or `step.port`.
    pub fn port(&self, graph: &Graph, text: &str) -> PortRef {
        match self.steps.get(text) {
            // The step stands for another graph, whose reply is what it answers.
            Some(step) if step.kind == GRAPH_KIND => {
                graph.reply_of(text).unwrap_or_else(|| PortRef::of(text))
            }
            _ => port(text, &BTreeMap::new()),
        }
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
                None if matches!(error, CompileError::Stream { .. }) => {
                    document.place(&[path, &["stream"]].concat())
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
            stream: graph.stream.as_ref().map(StreamSpec::from),
            monitor: IndexMap::new(),
            record: None,
            explain: None,
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
        layers: node.layers.clone(),
        on_error: PolicySpec::of(&node.policies.error),
        on_timeout: node.policies.timeout.as_ref().map(PolicySpec::of),
        on_overload: node.policies.overload.as_ref().map(PolicySpec::of),
    }
}
