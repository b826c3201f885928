//! The routes of feature vectors.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{Method, Request, StatusCode, header::ACCEPT};
use millstream_graph::suggest;
use serde_json::json;

use super::{VectorService, feast};
use crate::{
    features::{body, wrong_method},
    http::refused,
    service::{Answer, json_answer, wants_arrow},
    snapshot::Shared,
};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/vectors", get(list))
        .route("/v1/vectors/{vector}", any(vector))
        .merge(feast::routes())
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let served = shared.live.load_full();
    let vector = |vector: &Arc<VectorService>| json!({ "name": vector.name(), "url": format!("/v1/vectors/{}", vector.name()) });
    let vectors: Vec<_> = served.vectors.iter().map(vector).collect();
    json_answer(StatusCode::OK, &json!({ "feature_vectors": vectors })).into_response()
}

async fn vector(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let served = shared.live.load_full();
    let Some(vector) = served.vectors.iter().find(|vector| vector.name() == name) else {
        let message =
            suggest::unknown("feature vector", &name, served.vectors.iter().map(|known| known.name()));
        return refused(StatusCode::NOT_FOUND, "unknown_feature_vector", &message).into_response();
    };
    let answer = match *request.method() {
        Method::GET | Method::HEAD => Ok(json_answer(StatusCode::OK, &vector.description())),
        Method::POST => read(&shared, vector, request).await,
        _ => Err(wrong_method("a feature vector takes GET and POST", "GET, HEAD, POST")),
    };
    answer.unwrap_or_else(|refused| refused).into_response()
}

async fn read(shared: &Shared, vector: &VectorService, request: Request<Body>) -> Result<Answer, Answer> {
    let statuses = statuses(request.uri().query().unwrap_or_default())
        .map_err(|problem| refused(StatusCode::BAD_REQUEST, "malformed", &problem))?;
    let accept = request.headers().get(ACCEPT).cloned();
    let body = body(shared, request).await?;
    vector.read(body, statuses, |was_arrow| wants_arrow(accept.as_ref(), was_arrow)).await
}

/// `statuses` of a query.
fn statuses(query: &str) -> Result<bool, String> {
    let mut statuses = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "true")) {
            ("statuses", "true") => statuses = true,
            ("statuses", "false") => statuses = false,
            ("statuses", other) => return Err(format!("`statuses` is `true` or `false`, not `{other}`")),
            (unknown, _) => return Err(suggest::unknown("parameter", unknown, ["statuses"])),
        }
    }
    Ok(statuses)
}
