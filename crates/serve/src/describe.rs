//! Graphs described for people and programs: `GET` of a graph, and the OpenAPI document.

use millstream_graph::{Feed, Phase, Plan, spec::type_text};
use serde_json::{Map, Value, json};

use crate::{
    features::FeatureService,
    monitoring, oip,
    service::{ARROW_STREAM, EVENT_STREAM},
    snapshot::Snapshot,
    vectors::VectorService,
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
    let mut description = json!({
        "name": plan.name(),
        "input": columns(plan.input_schema()),
        "reply": columns(plan.reply_schema()),
        "steps": steps.collect::<Vec<_>>(),
        "explain": plan.to_string(),
        "mermaid": plan.mermaid(),
    });
    if let Some(stream) = plan.stream() {
        let (input, reply) = (plan.input_schema(), plan.reply_schema());
        let fed = |feed: &Feed| {
            (input.field(feed.input()).name().clone(), Value::from(reply.field(feed.reply()).name().as_str()))
        };
        description["stream"] = json!({
            "feed": stream.feed().iter().map(fed).collect::<Map<_, _>>(),
            "until": reply.field(stream.until()).name(),
            "most": stream.most(),
        });
    }
    description
}

/// The OpenAPI document of a server, made from the graphs' own schemas.
pub(crate) fn openapi(served: &Snapshot) -> Value {
    let mut paths = Map::new();
    let text = |description: &str| json!({ "200": { "description": description } });
    for (path, id, description) in [
        ("/livez", "live", "The process is up."),
        ("/readyz", "ready", "Requests are taken; 503 while stopping."),
        ("/metrics", "metrics", "Prometheus metrics."),
        ("/v1/graphs", "listGraphs", "The graphs that are served."),
        ("/v1/features", "listFeatureSets", "The feature sets, and which of them take rows."),
        (
            "/v1/streams",
            "listStreams",
            "The streams that are read into feature sets, and how far each has come.",
        ),
        ("/v1/vectors", "listFeatureVectors", "The feature vectors."),
    ] {
        paths.insert(path.into(), json!({ "get": { "operationId": id, "responses": text(description) } }));
    }
    let mut schemas = Map::new();
    schemas.insert("Error".into(), error_schema());
    for (graph, service) in &served.graphs {
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
    for set in &served.features {
        feature_paths(set, &mut paths, &mut schemas);
    }
    for vector in &served.vectors {
        vector_path(vector, &mut paths, &mut schemas);
    }
    oip::openapi(served, &mut paths);
    monitoring::openapi(served, &mut paths);
    json!({
        "openapi": "3.1.0",
        "info": { "title": served.project, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// What a feature set takes and gives.
fn feature_paths(set: &FeatureService, paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    let name = set.name();
    let body = |kind: &str| {
        let one = json!({ "$ref": format!("#/components/schemas/features.{name}.{kind}") });
        json!({ "application/json": { "schema": { "anyOf": [one, { "type": "array", "items": one }] } } })
    };
    let error = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        json!({ "description": description, "content": { "application/json": { "schema": schema } } })
    };
    let get = json!({
        "operationId": format!("describe_features_{name}"),
        "responses": { "200": { "description": "The set's keys and features, and the columns of a row." } },
    });
    let mut path = json!({ "get": get });
    if let Some(rows) = set.row_schema() {
        schemas.insert(format!("features.{name}.Row"), schema::request(rows, UnknownFields::Refuse));
        let mut content = body("Row");
        content[ARROW_STREAM] = json!({});
        let query = |name: &str, schema: Value, description: &str| json!({ "name": name, "in": "query", "schema": schema, "description": description });
        path["post"] = json!({
            "operationId": format!("write_features_{name}"),
            "parameters": [
                query("source", json!({ "type": "string" }), "Where the rows come from."),
                query("partition", json!({ "type": "integer", "minimum": 0 }), "Which part of the source; 0 by default."),
                query("offset", json!({ "type": "integer", "minimum": 0 }), "Where the first row stands in it; the others follow."),
            ],
            "requestBody": { "required": true, "content": content },
            "responses": {
                "200": { "description": "How many rows were taken, older, repeated and refused, and why." },
                "400": error("The body is no rows of the set; nothing was taken."),
                "413": error("The body is too large."),
                "429": error("Too many bodies are under way."),
                "503": error("The set's store does not answer."),
                "507": error("The set has no room."),
            },
        });
    }
    paths.insert(format!("/v1/features/{name}"), path);
    schemas.insert(format!("features.{name}.Key"), schema::request(set.key_schema(), UnknownFields::Refuse));
    schemas.insert(format!("features.{name}.Features"), schema::reply(set.reply_schema()));
    let post = json!({
        "operationId": format!("read_features_{name}"),
        "requestBody": { "required": true, "content": body("Key") },
        "responses": {
            "200": { "description": "Each key with its features, null where there are none.", "content": body("Features") },
            "400": error("The body is no keys of the set."),
            "503": error("The set's store does not answer."),
        },
    });
    paths.insert(format!("/v1/features/{name}/read"), json!({ "post": post }));
    let get = json!({
        "operationId": format!("statistics_features_{name}"),
        "responses": {
            "200": { "description": "What the features look like in the rows that are there now, windows left out." },
            "501": error("The set's store does not read its rows for this."),
            "503": error("The set's store does not answer."),
        },
    });
    paths.insert(format!("/v1/features/{name}/statistics"), json!({ "get": get }));
}

/// What a feature vector asks for and gives.
fn vector_path(vector: &VectorService, paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    let name = vector.name();
    let input = schema::request(vector.input(), UnknownFields::Refuse);
    schemas.insert(format!("vectors.{name}.Columns"), columns(&input));
    schemas.insert(format!("vectors.{name}.Input"), input);
    let mut features = schema::reply(vector.reply());
    // What a caller may ask for beside features.
    features["patternProperties"] = json!({
        "\\.status$": { "type": "string" },
        "\\.event$": { "type": ["string", "null"] },
    });
    schemas.insert(format!("vectors.{name}.Features"), features);
    let content = |kind: &str| {
        let one = json!({ "$ref": format!("#/components/schemas/vectors.{name}.{kind}") });
        let mut forms = vec![one.clone(), json!({ "type": "array", "items": one })];
        if kind == "Input" {
            forms.push(json!({ "$ref": format!("#/components/schemas/vectors.{name}.Columns") }));
        }
        json!({ "application/json": { "schema": { "anyOf": forms } }, ARROW_STREAM: {} })
    };
    let error = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        json!({ "description": description, "content": { "application/json": { "schema": schema } } })
    };
    let path = json!({
        "get": {
            "operationId": format!("describe_vector_{name}"),
            "responses": { "200": { "description": "What the vector asks for, and its features." } },
        },
        "post": {
            "operationId": format!("read_vector_{name}"),
            "parameters": [{
                "name": "statuses", "in": "query", "schema": { "type": "boolean" },
                "description": "Whether each feature has its status and the time of its event beside it.",
            }],
            "requestBody": { "required": true, "content": content("Input") },
            "responses": {
                "200": { "description": "Each row with its features.", "content": content("Features") },
                "400": error("The body is not what the vector asks for, or rows of it cannot be answered."),
                "413": error("The body is too large."),
                "429": error("Too many bodies are under way."),
                "503": error("The store of a set does not answer."),
            },
        },
    });
    paths.insert(format!("/v1/vectors/{name}"), path);
}

/// The schema of an object with the columns of rows, from that of a row.
fn columns(row: &Value) -> Value {
    let mut columns = row.clone();
    for property in columns["properties"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        *property = json!({ "type": "array", "items": property.take() });
    }
    columns
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
        let mut content = json!({ "application/json": { "schema": rows }, ARROW_STREAM: {} });
        if kind == "Reply" {
            // Part by part, as server-sent events.
            content[EVENT_STREAM] = json!({});
        }
        content
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
                header("x-request-id", json!({ "type": "string" }), "The caller's name for the request; one of more than 256 characters is none."),
            ],
            "requestBody": { "required": true, "content": content("Request") },
            "responses": {
                "200": { "description": "The reply, in the form of the request.", "content": content("Reply") },
                "400": error("The body or its rows are at fault."),
                "406": error("An event is answered by an event, and not part by part."),
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
