//! Graphs described for people and programs: `GET` of a graph, and the OpenAPI document.

use millstream_graph::{Phase, Plan, spec::type_text};
use serde_json::{Map, Value, json};

use crate::{
    service::{ARROW_STREAM, GraphService},
    wire::{UnknownFields, schema},
};

/// A graph's schemas, steps, explain text and diagram.
pub(crate) fn graph(plan: &Plan) -> Value {
    let columns = |schema: &arrow::datatypes::Schema| -> Value {
        schema
            .fields()
            .iter()
            .map(|field| json!({ "name": field.name(), "type": type_text(field) }))
            .collect()
    };
    let steps = plan.steps().iter().map(|step| {
        let phase = match step.phase() {
            Phase::Main => "main",
            Phase::Handler => "on_error",
            Phase::Tail => "tail",
        };
        json!({ "name": &**step.name(), "kind": step.kind(), "phase": phase })
    });
    json!({
        "name": plan.name(),
        "input": columns(plan.input_schema()),
        "reply": columns(plan.reply_schema()),
        "steps": steps.collect::<Vec<_>>(),
        "explain": plan.to_string(),
        "mermaid": plan.mermaid(),
    })
}

/// The OpenAPI document of a server, made from the graphs' own schemas.
pub(crate) fn openapi(name: &str, graphs: &[(String, GraphService)]) -> Value {
    let mut paths = Map::new();
    let text = |description: &str| json!({ "200": { "description": description } });
    for (path, id, description) in [
        ("/livez", "live", "The process is up."),
        ("/readyz", "ready", "Requests are taken; 503 while stopping."),
        ("/metrics", "metrics", "Prometheus metrics."),
        ("/v1/graphs", "listGraphs", "The graphs that are served."),
    ] {
        paths.insert(path.into(), json!({ "get": { "operationId": id, "responses": text(description) } }));
    }
    let mut schemas = Map::new();
    schemas.insert("Error".into(), error_schema());
    for (graph, service) in graphs {
        let plan = service.engine().plan();
        schemas
            .insert(format!("{graph}.Request"), schema::request(plan.input_schema(), UnknownFields::Refuse));
        schemas.insert(format!("{graph}.Reply"), schema::reply(plan.reply_schema()));
        paths.insert(format!("/v1/graphs/{graph}"), graph_path(graph));
        for (what, media, description) in [
            ("stats", "application/json", "How the graph did in the last ten seconds."),
            ("live", "text/event-stream", "The same once a second, as server-sent events."),
        ] {
            let answer = json!({ "200": { "description": description, "content": { media: {} } } });
            let get = json!({ "get": { "operationId": format!("{what}_{graph}"), "responses": answer } });
            paths.insert(format!("/v1/graphs/{graph}/{what}"), get);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": name, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn graph_path(graph: &str) -> Value {
    let content = |kind: &str| {
        let one = json!({ "$ref": format!("#/components/schemas/{graph}.{kind}") });
        let rows = if kind == "Reply" {
            // A row that the graph filtered out leaves no object.
            json!({ "anyOf": [one, { "type": "array", "items": one }, { "type": "null" }] })
        } else {
            json!({ "anyOf": [one, { "type": "array", "items": one }] })
        };
        json!({ "application/json": { "schema": rows }, ARROW_STREAM: {} })
    };
    let error = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        json!({ "description": description, "content": { "application/json": { "schema": schema } } })
    };
    let header = |name: &str, schema: Value, description: &str| json!({ "name": name, "in": "header", "schema": schema, "description": description });
    json!({
        "get": {
            "operationId": format!("describe_{graph}"),
            "responses": { "200": { "description": "The graph's schemas, steps, explain text and diagram." } },
        },
        "post": {
            "operationId": format!("run_{graph}"),
            "parameters": [
                header("x-request-timeout-ms", json!({ "type": "integer", "minimum": 0 }), "The time the caller waits."),
                header("grpc-timeout", json!({ "type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$" }), "The same as gRPC writes it; the shorter counts."),
                header("x-request-id", json!({ "type": "string", "maxLength": 256 }), "The caller's name for the request."),
            ],
            "requestBody": { "required": true, "content": content("Request") },
            "responses": {
                "200": { "description": "The reply, in the form of the request.", "content": content("Reply") },
                "400": error("The body or its rows are at fault."),
                "408": error("The body arrives too slowly."),
                "413": error("The body is too large."),
                "415": error("The body is packed in a way that is not unpacked."),
                "429": error("Too many runs are under way."),
                "500": error("A step failed."),
                "503": error("The server is stopping, or something it depends on is not there."),
                "504": error("The deadline passed."),
            },
        },
    })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error", "code"],
        "properties": {
            "error": { "type": "string", "description": "What is wrong, for people." },
            "code": { "type": "string", "description": "What is wrong, for programs." },
            "field": { "type": ["string", "null"], "description": "The field of the body at fault." },
            "row": { "type": ["integer", "null"], "description": "The row of the body at fault, from zero." },
            "step": { "type": ["string", "null"], "description": "The step that failed." },
        },
    })
}
