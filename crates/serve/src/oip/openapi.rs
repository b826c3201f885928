//! The protocol and the dialects beside it, for the OpenAPI document.

use serde_json::{Map, Value, json};

use super::{find, models::VERSION, rows::only};
use crate::snapshot::Snapshot;

/// A route as the document has it.
struct Route {
    path: &'static str,
    id: &'static str,
    description: &'static str,
    body: Body,
}

/// What a route takes.
#[derive(Clone, Copy)]
enum Body {
    /// Nothing: it is read.
    None,
    /// An object, or nothing.
    Maybe(fn() -> Value),
    /// An object of this schema.
    Of(fn() -> Value),
    /// Tensors: JSON, with the bytes of tensors behind it or not.
    Tensors,
}

const fn read(path: &'static str, id: &'static str, description: &'static str) -> Route {
    Route { path, id, description, body: Body::None }
}

const fn post(path: &'static str, id: &'static str, description: &'static str, body: Body) -> Route {
    Route { path, id, description, body }
}

fn ready_only() -> Value {
    json!({ "type": "object", "properties": { "ready": { "type": "boolean" } } })
}

fn load() -> Value {
    json!({ "type": "object", "properties": { "parameters": {
        "type": "object",
        "description": "`config`: another configuration, as JSON in a text; `file:VERSION/model.onnx`: a model in base64.",
        "additionalProperties": { "type": "string" },
    } } })
}

/// The same, where the body names the model.
fn routed() -> Value {
    let mut schema = array("inputs");
    schema["properties"]["model"] =
        json!({ "type": "string", "description": "The model; without it, the only one." });
    schema
}

/// Clients send an object, which says nothing here.
fn anything() -> Value {
    json!({})
}

fn any_object() -> Value {
    json!({ "type": "object" })
}

/// An object with an array under `member`.
fn array(member: &str) -> Value {
    json!({ "type": "object", "required": [member], "properties": { member: { "type": "array" } } })
}

const ROUTES: [Route; 21] = [
    read("/", "alive", "The process is up."),
    read("/ping", "ping", "Requests are taken; 503 while stopping."),
    read("/v1/models", "listModelsV1", "The names of graphs, and of models by themselves."),
    read("/v1/models/{model}", "modelReadyV1", "The model takes requests."),
    post("/v1/models/{model}:predict", "predict", "One prediction per row.", Body::Of(|| array("instances"))),
    post(
        "/v1/models/{model}/versions/{version}:predict",
        "predictVersion",
        "One prediction per row.",
        Body::Of(|| array("instances")),
    ),
    read(
        "/v2",
        "serverMetadata",
        "The server's name, version and extensions of the Open Inference Protocol.",
    ),
    read("/v2/health/live", "serverLive", "The process is up."),
    read("/v2/health/ready", "serverReady", "Requests are taken; 503 while stopping."),
    read("/v2/health", "routerHealth", "The same, as MLRun's router has it."),
    read("/v2/models", "listModels", "The names of graphs, and of models by themselves."),
    read("/v2/models/stats", "allStatistics", "What every model has done so far."),
    post(
        "/v2/models/{model}/predict",
        "predictMlrun",
        "One output per row, as MLRun has it.",
        Body::Of(|| array("inputs")),
    ),
    post(
        "/v2/models/infer",
        "inferRouted",
        "What the model answers that the body names, as MLRun's router has it.",
        Body::Of(routed),
    ),
    post(
        "/v2/repository/index",
        "indexModels",
        "Every model with its version and state.",
        Body::Maybe(ready_only),
    ),
    post(
        "/v2/repository/models/{model}/load",
        "loadModel",
        "The model is loaded from the repository, in the place of what was served of it.",
        Body::Maybe(load),
    ),
    post(
        "/v2/repository/models/{model}/unload",
        "unloadModel",
        "The model of the repository is out of service.",
        Body::Maybe(anything),
    ),
    read("/v2/logging", "logSettings", "What is logged."),
    post("/v2/logging", "changeLogSettings", "What is logged now.", Body::Maybe(any_object)),
    read("/v2/trace/setting", "traceSettings", "What is traced."),
    post("/v2/trace/setting", "changeTraceSettings", "What is traced now.", Body::Maybe(any_object)),
];

/// The routes of models that are explained.
const EXPLAINED: [Route; 3] = [
    post(
        "/v1/models/{model}:explain",
        "explain",
        "One explanation per row.",
        Body::Of(|| array("instances")),
    ),
    post(
        "/v1/models/{model}/versions/{version}:explain",
        "explainVersion",
        "One explanation per row.",
        Body::Of(|| array("instances")),
    ),
    post(
        "/v2/models/{model}/explain",
        "explainMlrun",
        "One explanation per row, as MLRun has it.",
        Body::Of(|| array("inputs")),
    ),
];

/// The same of a model and of a version of it.
const OF_MODEL: [(&str, &str, &str, Body); 8] = [
    ("", "Metadata", "The model's inputs and outputs: names, datatypes and shapes.", Body::None),
    ("/ready", "Ready", "The model takes requests.", Body::None),
    ("/config", "Config", "The same as Triton's model configuration has it.", Body::None),
    ("/stats", "Statistics", "What the model has done so far.", Body::None),
    ("/infer", "Infer", "The outputs, as JSON or as JSON and the bytes of tensors.", Body::Tensors),
    (
        "/infer_stream",
        "InferStream",
        "The outputs part by part, as server-sent events.",
        Body::Of(|| array("inputs")),
    ),
    ("/generate", "Generate", "The outputs as members of an object, of one row.", Body::Of(any_object)),
    (
        "/generate_stream",
        "GenerateStream",
        "The same part by part, as server-sent events.",
        Body::Of(any_object),
    ),
];

/// Adds the routes to the document.
pub(crate) fn openapi(served: &Snapshot, paths: &mut Map<String, Value>) {
    let models = find::names(served);
    let mut add_of = |models: &[String], path: &str, id: &str, description: &str, body: Body| {
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[if matches!(body, Body::None) { "get" } else { "post" }] =
            operation(path, id, description, body, models);
    };
    let explained = served.models.iter().filter(|model| model.explainer().is_some());
    let explained: Vec<String> = explained.map(|model| model.name().to_owned()).collect();
    if !explained.is_empty() {
        for Route { path, id, description, body } in &EXPLAINED {
            add_of(&explained, path, id, description, *body);
        }
    }
    let mut add =
        |path: &str, id: &str, description: &str, body: Body| add_of(&models, path, id, description, body);
    for Route { path, id, description, body } in &ROUTES {
        add(path, id, description, *body);
    }
    for (place, of) in [("", ""), ("/versions/{version}", "Version")] {
        for (what, id, description, body) in OF_MODEL {
            add(&format!("/v2/models/{{model}}{place}{what}"), &format!("model{of}{id}"), description, body);
        }
    }
    // It names no model.
    if only(served).is_some() {
        let body = Body::Of(|| array("dataframe_records"));
        add("/invocations", "invoke", "One prediction per row.", body);
    }
}

fn operation(path: &str, id: &str, description: &str, body: Body, models: &[String]) -> Value {
    let parameter =
        |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    let mut parameters = Vec::new();
    if path.contains("{model}") {
        // What is in the repository, and what is not, is said when it is loaded; what is not there is unloaded already.
        let any = path.starts_with("/v2/repository");
        let schema = if any {
            json!({ "type": "string", "minLength": 1 })
        } else {
            json!({ "type": "string", "enum": models })
        };
        parameters.push(parameter("model", schema));
    }
    if path.contains("{version}") {
        parameters.push(parameter("version", json!({ "type": "string", "enum": [VERSION] })));
    }
    let error =
        json!({ "type": "object", "required": ["error"], "properties": { "error": { "type": "string" } } });
    let mut operation = json!({
        "operationId": id,
        "parameters": parameters,
        "responses": {
            "200": { "description": description },
            "default": {
                "description": "Why not, as the member `error`.",
                "content": { "application/json": { "schema": error } },
            },
        },
    });
    let json = |schema: Value| json!({ "application/json": { "schema": schema } });
    operation["requestBody"] = match body {
        Body::None => return operation,
        Body::Maybe(schema) => json!({ "content": json(schema()) }),
        Body::Of(schema) => json!({ "required": true, "content": json(schema()) }),
        Body::Tensors => json!({ "required": true, "content": {
            "application/json": { "schema": array("inputs") },
            "application/octet-stream": {},
        } }),
    };
    operation
}
