//! What the OpenAPI document says of monitoring.

use serde_json::{Map, Value, json};

use crate::snapshot::Snapshot;

/// The routes of watched graphs, and of alerts.
pub(crate) fn openapi(served: &Snapshot, paths: &mut Map<String, Value>) {
    for watch in &served.watches {
        let graph = &watch.graph;
        for (what, media, description) in [
            (
                "monitor",
                "application/json",
                "What is known of the columns, the performance and the alerts of the graph.",
            ),
            ("monitor/report", "text/html", "The same as a page."),
            ("monitor/mlrun", "application/json", "The drift under the names of MLRun."),
        ] {
            let content = json!({ "description": description, "content": { media: {} } });
            let responses = json!({ "200": content, "404": error("No pane has ended yet.") });
            let id = format!("{}_{graph}", what.replace('/', "_"));
            paths.insert(
                format!("/v1/graphs/{graph}/{what}"),
                json!({ "get": { "operationId": id, "responses": responses } }),
            );
        }
        paths.insert(format!("/v1/graphs/{graph}/labels"), labels(graph));
    }
    let get = |id: &str, description: &str| json!({ "operationId": id, "responses": { "200": { "description": description, "content": { "application/json": {} } } } });
    paths.insert(
        "/v1/alerts".to_owned(),
        json!({ "get": get("listAlerts", "Every series that an alert looks at.") }),
    );
    paths.insert(
        "/v1/alerts/silences".to_owned(),
        json!({ "get": get("listSilences", "What is silenced."), "post": silence() }),
    );
    let id = json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "integer", "minimum": 0 } }]);
    let end = json!({ "operationId": "endSilence", "parameters": id, "responses": {
        "200": { "description": "It has ended.", "content": { "application/json": {} } },
        "400": { "description": "That is no number of a silence." },
        "404": error("There is no such silence."),
    } });
    paths.insert("/v1/alerts/silences/{id}".to_owned(), json!({ "delete": end }));
    let alert = json!([{ "name": "alert", "in": "path", "required": true, "schema": { "type": "string" } }]);
    let reset = json!({ "operationId": "resetAlert", "parameters": alert, "responses": {
        "200": { "description": "How many of its series were reset.", "content": { "application/json": {} } },
        "404": error("There is no such alert."),
    } });
    paths.insert("/v1/alerts/{alert}/reset".to_owned(), json!({ "post": reset }));
}

fn error(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn labels(graph: &str) -> Value {
    let label = json!({
        "type": "object",
        "properties": {
            "id": { "type": ["string", "integer"], "description": "What the prediction is called." },
            "label": { "type": ["number", "boolean", "string", "null"], "description": "What turned out to be true: of several classes, its name." },
            "measures": { "type": "object", "additionalProperties": { "type": "number" }, "description": "What it led to, by the names of `outcomes`." },
            "at": { "type": ["string", "integer", "null"], "description": "When: RFC 3339, or microseconds since 1970 UTC." },
        },
        "required": ["id"],
        "additionalProperties": false,
    });
    let body = json!({
        "type": "object",
        "properties": {
            "edge": { "type": ["string", "null"], "description": "The edge that has the predictions, where there are several." },
            "labels": { "type": "array", "items": label, "maxItems": 100_000 },
        },
        "required": ["labels"],
        "additionalProperties": false,
    });
    json!({ "post": {
        "operationId": format!("label_{graph}"),
        "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
        "responses": {
            "200": { "description": "What became of the labels.", "content": { "application/json": {} } },
            "400": error("The body is no labels, or the graph has no predictions."),
            "413": { "description": "The body is too large." },
        },
    } })
}

fn silence() -> Value {
    let body = json!({
        "type": "object",
        "properties": {
            "matchers": { "type": "object", "additionalProperties": { "type": "string" }, "description": "Labels that alerts have." },
            "from": { "type": ["integer", "null"], "description": "Microseconds since 1970 UTC; now by default." },
            "to": { "type": "integer" },
            "author": { "type": "string" },
            "comment": { "type": "string" },
        },
        "required": ["matchers", "to", "author", "comment"],
        "additionalProperties": false,
    });
    json!({
        "operationId": "silence",
        "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
        "responses": {
            "200": { "description": "The number of the silence.", "content": { "application/json": {} } },
            "400": error("That is no silence."),
            "413": { "description": "The body is too large." },
        },
    })
}
