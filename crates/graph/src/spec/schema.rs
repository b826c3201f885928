//! The JSON Schema of a graph in a file, by which editors complete and check it.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{
    Kinds, StreamSpec,
    graph_spec::{GRAPH_KIND, GraphSettings},
};

/// The definition that policies refer to.
const SUBSTITUTE: &str = "Substitute";

/// The JSON Schema of a graph whose steps are of these kinds.
pub fn graph_schema(kinds: &Kinds, generator: &mut SchemaGenerator) -> Schema {
    let mut properties = Map::new();
    for kind in kinds.iter() {
        properties.insert(kind.name().to_owned(), optional(&kind.schema(generator).to_value()));
    }
    let substitute = json!({
        "type": "object",
        "description": "The step that answers instead: its kind and settings.",
        "properties": properties,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false,
    });
    generator.definitions_mut().insert(SUBSTITUTE.to_owned(), substitute);
    properties.insert(GRAPH_KIND.to_owned(), generator.subschema_for::<GraphSettings>().to_value());
    let one_kind: Vec<Value> = properties.keys().map(|kind| json!({ "required": [kind] })).collect();
    properties.insert(
        "description".to_owned(),
        json!({ "type": "string", "description": "What the step is for." }),
    );
    let from = json!({
        "description": "The step or `step.port` that is read, or a list of them; without it, the step above.",
        "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }],
    });
    properties.insert("from".to_owned(), from);
    for (key, what) in [
        ("on_error", "What happens when the step fails and nobody reads its error port."),
        ("on_timeout", "What happens when the step does not answer in time; without it, `on_error`."),
        (
            "on_overload",
            "What happens when the step refuses a call because a bound is reached; without it, `on_error`.",
        ),
    ] {
        properties.insert(key.to_owned(), policy(what));
    }
    for layer in kinds.layers() {
        properties.insert(layer.name().to_owned(), layer.schema(generator).to_value());
    }
    let stream = generator.subschema_for::<StreamSpec>().to_value();
    json_schema!({
        "type": "object",
        "required": ["input", "steps", "respond"],
        "additionalProperties": false,
        "properties": {
            "description": { "type": "string", "description": "What the graph is for." },
            "input": {
                "type": "object",
                "description": "The columns of a request and their types, such as `int64`, `string?` or `tensor<float32, 28>`.",
                "additionalProperties": { "type": "string" },
            },
            "steps": {
                "type": "object",
                "description": "The steps, by name.",
                "additionalProperties": {
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                    "oneOf": one_kind,
                },
            },
            "respond": { "type": "string", "description": "The step or `step.port` whose rows are the reply." },
            "stream": stream,
            "monitor": {
                "type": "object",
                "description": "What is watched of the rows that leave a `step` or `step.port`, or come as `input`.",
                "additionalProperties": { "type": "object" },
            },
            "record": { "type": "object", "description": "What is kept of requests." },
            "explain": {
                "type": "string",
                "description": "The graph of the project that explains what this one answers: it takes what this one takes, and its reply is the explanation.",
            },
        },
    })
}

fn policy(what: &str) -> Value {
    json!({
        "description": what,
        "oneOf": [
            { "enum": ["fail", "skip"] },
            {
                "type": "object",
                "properties": { "default": { "type": "object", "description": "Values by output column." } },
                "required": ["default"],
                "additionalProperties": false,
            },
            {
                "type": "object",
                "properties": { "step": { "$ref": format!("#/$defs/{SUBSTITUTE}") } },
                "required": ["step"],
                "additionalProperties": false,
            },
        ],
    })
}

/// A kind may stand there with nothing behind it, when it needs no settings.
fn optional(settings: &Value) -> Value {
    json!({ "anyOf": [settings, { "type": "null" }] })
}
