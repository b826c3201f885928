//! The routes of feature sets.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderValue, Method, Request, StatusCode, header::ALLOW};
use millstream_graph::suggest;
use serde_json::json;

use super::{FeatureService, service::From};
use crate::{
    body::{self, Unread},
    http::refused,
    service::{Answer, json_answer, undecoded},
    snapshot::Shared,
    wire::{DecodeCode, DecodeError},
};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/features", get(list))
        .route("/v1/features/{set}", any(set))
        .route("/v1/features/{set}/read", any(read))
        .route("/v1/features/{set}/statistics", any(statistics))
}

/// Erasing, for the admin listener.
pub(crate) fn admin_routes() -> Router<Arc<Shared>> {
    Router::new().route("/v1/features/{set}", any(erase))
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let served = shared.live.load_full();
    let sets: Vec<_> = served
        .features
        .iter()
        .map(|set| json!({ "name": set.name(), "url": format!("/v1/features/{}", set.name()), "takes_rows": set.row_schema().is_some() }))
        .collect();
    json_answer(StatusCode::OK, &json!({ "feature_sets": sets })).into_response()
}

async fn set(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    answer(&shared, &name, async |set: &FeatureService| match *request.method() {
        Method::GET | Method::HEAD => Ok(json_answer(StatusCode::OK, &set.description())),
        Method::POST => {
            let from = from(request.uri().query().unwrap_or_default()).map_err(|error| undecoded(&error))?;
            set.write(body(&shared, request).await?, from).await
        }
        _ if set.row_schema().is_none() => Err(wrong_method("this feature set takes GET", "GET, HEAD")),
        _ => Err(wrong_method("a feature set takes GET and POST", "GET, HEAD, POST")),
    })
    .await
}

async fn read(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    answer(&shared, &name, async |set: &FeatureService| match *request.method() {
        Method::POST => set.read(body(&shared, request).await?).await,
        _ => Err(wrong_method("reading features takes POST", "POST")),
    })
    .await
}

async fn statistics(State(shared): State<Arc<Shared>>, Path(name): Path<String>, method: Method) -> Response {
    answer(&shared, &name, async |set: &FeatureService| match method {
        Method::GET | Method::HEAD => set.statistics().await,
        _ => Err(wrong_method("statistics of features take GET", "GET, HEAD")),
    })
    .await
}

async fn erase(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    answer(&shared, &name, async |set: &FeatureService| match *request.method() {
        Method::DELETE => set.erase(body(&shared, request).await?).await,
        _ => Err(wrong_method("the admin listener takes DELETE of a feature set", "DELETE")),
    })
    .await
}

async fn answer(
    shared: &Shared,
    name: &str,
    answer: impl AsyncFnOnce(&FeatureService) -> Result<Answer, Answer>,
) -> Response {
    let served = shared.live.load_full();
    match served.features.iter().find(|set| set.name() == name) {
        Some(set) => answer(set).await.unwrap_or_else(|refused| refused).into_response(),
        None => {
            let known = served.features.iter().map(|set| set.name());
            let message = suggest::unknown("feature set", name, known);
            refused(StatusCode::NOT_FOUND, "unknown_feature_set", &message).into_response()
        }
    }
}

pub(crate) fn wrong_method(message: &str, allowed: &'static str) -> Answer {
    let mut answer = refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// The whole body, within the bounds of bodies of graphs.
pub(crate) async fn body(shared: &Shared, request: Request<Body>) -> Result<bytes::Bytes, Answer> {
    let no_room = || {
        let message = "the bodies of other requests have taken all the room there is";
        refused(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
    };
    let terms = &shared.terms;
    let mut room = terms.feature_bytes.reserve(0).ok_or_else(no_room)?;
    let (head, body) = request.into_parts();
    match body::read(&head.headers, body, terms.decode.body_bytes, terms.body, &mut room).await {
        Ok(body) => Ok(body),
        Err(Unread::Refused(error)) => Err(undecoded(&error)),
        Err(Unread::NoRoom) => Err(no_room()),
    }
}

/// `source`, `partition` and `offset` of a query.
fn from(query: &str) -> Result<Option<From>, DecodeError> {
    let (mut source, mut partition, mut offset) = (None, None, None);
    let mut problems = Vec::new();
    for (name, value) in query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        let number =
            || value.parse::<u64>().map_err(|_| format!("`{name}` is a whole number, not `{value}`"));
        match name {
            "source" => match percent_encoding::percent_decode_str(value).decode_utf8() {
                Ok(name) if !name.is_empty() => source = Some(name.into_owned()),
                _ => problems.push("`source` is a name".to_owned()),
            },
            "partition" => match number().map(u32::try_from) {
                Ok(Ok(number)) => partition = Some(number),
                _ => problems.push(format!("`partition` is a whole number below 2^32, not `{value}`")),
            },
            "offset" => match number() {
                Ok(number) => offset = Some(number),
                Err(problem) => problems.push(problem),
            },
            unknown => {
                problems.push(suggest::unknown("parameter", unknown, ["source", "partition", "offset"]))
            }
        }
    }
    let from = match (source, partition, offset) {
        (Some(source), partition, Some(offset)) => {
            Some(From { source, partition: partition.unwrap_or(0), offset })
        }
        (None, None, None) => None,
        _ => {
            problems.push("`source` and `offset` come together, `partition` with them".to_owned());
            None
        }
    };
    if problems.is_empty() {
        return Ok(from);
    }
    Err(DecodeError::new(DecodeCode::Malformed, problems.join("; ")))
}
