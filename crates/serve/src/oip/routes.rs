//! The routes of the protocol.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{
    HeaderValue, Request, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW},
    request::Parts,
};
use http_body_util::{BodyExt, Limited};
use millstream_graph::suggest;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Asks,
    inference::Inference,
    models::{Model, VERSION},
    pack,
    rows::{self, Dialect, Rows},
};
use crate::{
    observe::Observer,
    refusals::Refused,
    service::{Answer, failed, json_answer},
    snapshot::{Shared, Snapshot},
};

/// Bytes of a request for the index.
const INDEX_BYTES: usize = 64 << 10;
/// What is spoken beyond the protocol itself.
pub(super) const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "classification", "schedule_policy", "model_configuration"];

pub(crate) fn routes() -> Router<Arc<Shared>> {
    let tensors = Router::new().route("/v2", any(answer)).route("/v2/", any(answer));
    tensors.route("/v2/{*place}", any(answer)).merge(rows::routes())
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    Server,
    Live,
    Ready,
    Models,
    Index,
    Model { name: Cow<'p, str>, version: Option<&'p str>, what: What },
}

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Metadata,
    Ready,
    Config,
    Infer,
    /// To infer, as MLRun puts it.
    Predict,
}

impl<'p> Place<'p> {
    fn of(path: &'p str) -> Option<Self> {
        let mut parts = path.strip_prefix("/v2")?.trim_end_matches('/').split('/');
        if !parts.next()?.is_empty() {
            return None;
        }
        let place = match (parts.next(), parts.next()) {
            (None, _) => Self::Server,
            (Some("health"), Some("live")) => Self::Live,
            (Some("health"), Some("ready")) => Self::Ready,
            (Some("models"), None) => Self::Models,
            (Some("repository"), Some("index")) => Self::Index,
            (Some("models"), Some(name)) => {
                let name = percent_decode_str(name).decode_utf8().ok()?;
                let (version, what) = match parts.next() {
                    Some("versions") => (Some(parts.next()?), parts.next()),
                    what => (None, what),
                };
                let what = match what {
                    None => What::Metadata,
                    Some("ready") => What::Ready,
                    Some("config") => What::Config,
                    Some("infer") => What::Infer,
                    Some("predict" | "infer_dict" | "predict_dict") => What::Predict,
                    Some(_) => return None,
                };
                Self::Model { name, version, what }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(place)
    }
}

/// The model that a path asks to infer, if there is one.
pub(crate) fn inferred<'s>(served: &'s Snapshot, path: &str) -> Option<(&'s Arc<Model>, Asks)> {
    match Place::of(path) {
        Some(Place::Model { name, version, what: What::Infer }) => {
            Some((find(served, &name, version).ok()?, Asks::Tensors))
        }
        Some(Place::Model { name, version, what: What::Predict }) => {
            Some((find(served, &name, version).ok()?, Asks::Rows(Dialect::MlRun)))
        }
        Some(_) => None,
        None => rows::inferred(served, path),
    }
}

/// Answers a request to infer.
pub(crate) async fn infer<B>(
    model: &Model,
    asks: Asks,
    observer: &Observer,
    head: &mut Parts,
    body: B,
) -> Answer
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let service = match model.service() {
        Ok(service) => service,
        Err(message) => return failed(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": message })),
    };
    let answer = match asks {
        Asks::Tensors => {
            let inference = Inference::new(model, &head.headers);
            let run = async |head: &Parts| service.answer_in(&inference, head, body).await;
            observer.tell(model.name(), head, run).await
        }
        Asks::Rows(dialect) => {
            let rows = Rows { model, dialect };
            let run = async |head: &Parts| service.answer_in(&rows, head, body).await;
            // Boxed, so that requests of tensors carry no room for it.
            Box::pin(observer.tell(model.name(), head, run)).await
        }
    };
    pack::packed(answer, head.headers.get(ACCEPT_ENCODING)).await
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let served = shared.live.load_full();
    let (mut head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let Some(place) = Place::of(&path) else {
        let message =
            "the Open Inference Protocol has no such route here; /openapi.json lists those that there are";
        return refused(StatusCode::NOT_FOUND, "unknown_route", message).into_response();
    };
    let posts = matches!(place, Place::Index | Place::Model { what: What::Infer | What::Predict, .. });
    let takes = if posts { "POST" } else { "GET, HEAD" };
    if !takes.split(", ").any(|method| head.method.as_str() == method) {
        let mut answer = refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            &format!("this route takes {takes}"),
        );
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(takes));
        return answer.into_response();
    }
    let answer = match place {
        Place::Server => json_answer(StatusCode::OK, &server()),
        Place::Live => json_answer(StatusCode::OK, &json!({ "live": true, "ready": !shared.is_stopping() })),
        Place::Ready => ready(&shared, json!({ "live": true })),
        Place::Models => {
            let names: Value = served.models.iter().map(|model| Value::from(model.name())).collect();
            json_answer(StatusCode::OK, &json!({ "models": names }))
        }
        Place::Index => index(&shared, &served, body).await,
        Place::Model { name, version, what } => match find(&served, &name, version) {
            Err((code, message)) => refused(StatusCode::NOT_FOUND, code, &message),
            Ok(model) => match what {
                What::Metadata => json_answer(StatusCode::OK, &model.metadata),
                What::Config => json_answer(StatusCode::OK, &model.config),
                What::Ready => ready(&shared, json!({ "name": model.name() })),
                What::Infer | What::Predict => {
                    let (model, observer) = (Arc::clone(model), Observer::default());
                    let asks = if what == What::Infer { Asks::Tensors } else { Asks::Rows(Dialect::MlRun) };
                    let answer = std::pin::pin!(infer(&model, asks, &observer, &mut head, body));
                    served.answer(answer).await
                }
            },
        },
    };
    answer.into_response()
}

fn server() -> Value {
    json!({ "name": "millstream", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS })
}

/// What else there is to say, and whether requests are taken.
pub(super) fn ready(shared: &Shared, mut message: Value) -> Answer {
    let ready = !shared.is_stopping();
    message["ready"] = ready.into();
    if ready {
        return json_answer(StatusCode::OK, &message);
    }
    message["error"] = "the server is stopping".into();
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &message)
}

/// Every model, and whether it takes requests. A body may ask for those alone that do, and may be left out.
async fn index(shared: &Shared, served: &Snapshot, body: Body) -> Answer {
    let Ok(body) = Limited::new(body, INDEX_BYTES).collect().await else {
        let message = format!("the body has more than {INDEX_BYTES} bytes, or did not arrive whole");
        return refused(StatusCode::BAD_REQUEST, "malformed", &message);
    };
    let body = body.to_bytes();
    let asked =
        if body.trim_ascii().is_empty() { Ok(Listed::default()) } else { serde_json::from_slice(&body) };
    let Ok(asked) = asked else {
        let message = "the body is no object such as {\"ready\": true}";
        return refused(StatusCode::BAD_REQUEST, "malformed", message);
    };
    let ready = !shared.is_stopping();
    let state = if ready { "READY" } else { "UNAVAILABLE" };
    let listed = served.models.iter().filter(|_| ready || !asked.ready);
    let models = listed
        .map(|model| json!({ "name": model.name(), "version": VERSION, "state": state, "reason": "" }))
        .collect();
    json_answer(StatusCode::OK, &models)
}

/// Which models an index is to have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    /// Only those that take requests.
    ready: bool,
}

/// The model of a name and version, or what there is not, as a code and a sentence; no version is the newest.
pub(super) fn find<'s>(
    served: &'s Snapshot,
    name: &str,
    version: Option<&str>,
) -> Result<&'s Arc<Model>, (&'static str, String)> {
    let Some(model) = served.models.iter().find(|model| model.name() == name) else {
        let known = served.models.iter().map(|model| model.name());
        return Err(("unknown_model", suggest::unknown("model", name, known)));
    };
    match version {
        None | Some(VERSION) => Ok(model),
        Some(version) => {
            let message = format!("model `{name}` has no version `{version}`; there is `{VERSION}`");
            Err(("unknown_version", message))
        }
    }
}

pub(super) fn refused(status: StatusCode, code: &'static str, message: &str) -> Answer {
    let mut answer = json_answer(status, &json!({ "error": message }));
    answer.extensions_mut().insert(Refused(code));
    answer
}

/// Adds the protocol to the OpenAPI document.
pub(crate) fn openapi(served: &Snapshot, paths: &mut Map<String, Value>) {
    let models: Value = served.models.iter().map(|model| Value::from(model.name())).collect();
    let parameter =
        |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    let (model, version) = (
        parameter("model", json!({ "type": "string", "enum": models })),
        parameter("version", json!({ "type": "string", "enum": [VERSION] })),
    );
    let ok = |description: &str| json!({ "200": { "description": description } });
    for (path, id, description) in [
        (
            "/v2",
            "serverMetadata",
            "The server's name, version and extensions of the Open Inference Protocol.",
        ),
        ("/v2/health/live", "serverLive", "The process is up."),
        ("/v2/health/ready", "serverReady", "Requests are taken; 503 while stopping."),
        ("/v2/models", "listModels", "The names of graphs, and of models by themselves."),
    ] {
        paths.insert(path.into(), json!({ "get": { "operationId": id, "responses": ok(description) } }));
    }
    let post = json!({
        "operationId": "indexModels",
        "requestBody": { "content": { "application/json": {
            "schema": { "type": "object", "properties": { "ready": { "type": "boolean" } } },
        } } },
        "responses": ok("Every model with its version and state."),
    });
    paths.insert("/v2/repository/index".into(), json!({ "post": post }));
    for (place, of, parameters) in
        [("", "", json!([model])), ("/versions/{version}", "Version", json!([model, version]))]
    {
        for (what, id, description) in [
            ("", "Metadata", "The model's inputs and outputs: names, datatypes and shapes."),
            ("/ready", "Ready", "The model takes requests."),
            ("/config", "Config", "The same as Triton's model configuration has it."),
        ] {
            let get = json!({ "operationId": format!("model{of}{id}"), "parameters": parameters, "responses": ok(description) });
            paths.insert(format!("/v2/models/{{model}}{place}{what}"), json!({ "get": get }));
        }
        let post = json!({
            "operationId": format!("model{of}Infer"),
            "parameters": parameters,
            "requestBody": { "required": true, "content": { "application/json": {}, "application/octet-stream": {} } },
            "responses": {
                "200": { "description": "The outputs, as JSON or as JSON and the bytes of tensors." },
                "default": { "description": "Why there are none, as the member `error` of an object." },
            },
        });
        paths.insert(format!("/v2/models/{{model}}{place}/infer"), json!({ "post": post }));
    }
    rows::openapi(served, paths);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_protocol_and_no_others() {
        let model =
            |name: &'static str, version, what| Some(Place::Model { name: name.into(), version, what });
        for (path, place) in [
            ("/v2", Some(Place::Server)),
            ("/v2/", Some(Place::Server)),
            ("/v2/health/live", Some(Place::Live)),
            ("/v2/health/ready", Some(Place::Ready)),
            ("/v2/models", Some(Place::Models)),
            ("/v2/models/m", model("m", None, What::Metadata)),
            ("/v2/models/m/infer", model("m", None, What::Infer)),
            ("/v2/models/a%20b/ready", model("a b", None, What::Ready)),
            ("/v2/models/m/versions/1", model("m", Some("1"), What::Metadata)),
            ("/v2/models/m/versions/x/config", model("m", Some("x"), What::Config)),
            ("/v2/models/m/versions", None),
            ("/v2/models/m/versions/1/infer/more", None),
            ("/v2/models/m/infer/more", None),
            ("/v2/models/m/stats", None),
            ("/v2/models/%ff/infer", None),
            ("/v2/health", None),
            ("/v2/health/live/more", None),
            ("/v2/repository/index", Some(Place::Index)),
            ("/v2/repository", None),
            ("/v2/repository/models/m/load", None),
            ("/v2/logging", None),
            ("/v22", None),
            ("/v1/models/m", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }
}
