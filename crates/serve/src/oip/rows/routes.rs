//! Where rows are sent to.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header::ALLOW};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::Dialect;
use crate::{
    oip::{
        Asks,
        find::{self, Missing},
        models::Model,
        routes::{infer, missing, ready, refused},
    },
    service::json_answer,
    snapshot::{Shared, Snapshot},
};

const V1: &str = "/v1/models";

pub(in crate::oip) fn routes() -> Router<Arc<Shared>> {
    let paths = ["/", V1, "/v1/models/", "/v1/models/{*place}", "/ping", "/invocations"];
    paths.into_iter().fold(Router::new(), |router, path| router.route(path, any(answer)))
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    /// Whether anybody is there: KServe asks so.
    Alive,
    /// The same by SageMaker and MLflow.
    Ping,
    Models,
    Ready {
        name: Cow<'p, str>,
        version: Option<&'p str>,
    },
    Predict {
        name: Cow<'p, str>,
        version: Option<&'p str>,
    },
    Explain {
        name: Cow<'p, str>,
        version: Option<&'p str>,
    },
    /// To predict by the only graph, or the only model, that there is.
    Invoke,
}

impl<'p> Place<'p> {
    fn of(path: &'p str) -> Option<Self> {
        let rest = match path {
            "/" => return Some(Self::Alive),
            "/ping" => return Some(Self::Ping),
            "/invocations" => return Some(Self::Invoke),
            path => path.strip_prefix(V1)?,
        };
        if rest.trim_end_matches('/').is_empty() {
            return Some(Self::Models);
        }
        let rest = rest.strip_prefix('/')?;
        let (place, verb) = rest.rsplit_once(':').map_or((rest, None), |(place, verb)| (place, Some(verb)));
        let (name, version) = match place.split_once("/versions/") {
            Some((name, version)) => (name, Some(version)),
            None => (place, None),
        };
        if name.contains('/') || version.is_some_and(|version| version.contains('/')) {
            return None;
        }
        let name = percent_decode_str(name).decode_utf8().ok()?;
        match verb {
            None => Some(Self::Ready { name, version }),
            Some("predict") => Some(Self::Predict { name, version }),
            Some("explain") => Some(Self::Explain { name, version }),
            Some(_) => None,
        }
    }

    fn takes(&self) -> &'static str {
        if matches!(self, Self::Predict { .. } | Self::Explain { .. } | Self::Invoke) {
            "POST"
        } else {
            "GET, HEAD"
        }
    }
}

/// What a path asks to predict, if there is such a model.
pub(in crate::oip) fn inferred(served: &Snapshot, path: &str) -> Option<(Arc<Model>, Asks)> {
    match Place::of(path)? {
        Place::Predict { name, version } => {
            Some((find::find(served, &name, version).ok()?, Asks::Rows(Dialect::V1)))
        }
        Place::Explain { name, version } => {
            Some((find::find(served, &name, version).ok()?, Asks::Explanations(Dialect::V1)))
        }
        Place::Invoke => Some((only(served)?, Asks::Rows(Dialect::Scoring))),
        _ => None,
    }
}

/// The only graph; without any, the only model. Graphs that explain others do not count.
pub(in crate::oip) fn only(served: &Snapshot) -> Option<Arc<Model>> {
    let explains = |name: &str| {
        let mut explainers = served.models.iter().filter_map(|model| model.explainer());
        explainers.any(|graph| graph.name() == name)
    };
    let mut graphs = served.graphs.iter().filter(|(graph, _)| !explains(graph));
    match (graphs.next(), graphs.next()) {
        (Some((graph, _)), None) => served.models.iter().find(|model| model.name() == graph).map(Arc::clone),
        (None, _) => {
            let models = find::all(served).into_iter().filter(|model| !explains(model.name()));
            <[_; 1]>::try_from(models.collect::<Vec<_>>()).ok().map(|[only]| only)
        }
        _ => None,
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let served = shared.live.load_full();
    let (mut head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let Some(place) = Place::of(&path) else {
        let message = "there is no such route; /openapi.json lists those that there are";
        return refused(StatusCode::NOT_FOUND, "unknown_route", message).into_response();
    };
    let takes = place.takes();
    if !takes.split(", ").any(|method| head.method.as_str() == method) {
        let message = format!("this route takes {takes}");
        let mut answer = refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(takes));
        return answer.into_response();
    }
    let answer = match &place {
        Place::Alive => json_answer(StatusCode::OK, &json!({ "status": "alive" })),
        Place::Ping => ready(&shared, true, json!({})),
        Place::Models => {
            find::look(&served).await;
            json_answer(StatusCode::OK, &json!({ "models": find::names(&served) }))
        }
        Place::Ready { name, version } => match find::is_ready(&served, name, *version).await {
            Ok(is_ready) => ready(&shared, is_ready, json!({ "name": name })),
            Err(why) => missing(&why),
        },
        Place::Predict { .. } | Place::Explain { .. } | Place::Invoke => {
            match asked(&served, &place, &mut head.headers).await {
                Ok((model, asks)) => {
                    let answer = std::pin::pin!(infer(&model, asks, shared.observer(), &mut head, body));
                    served.answer(answer).await
                }
                Err(why) => missing(&why),
            }
        }
    };
    answer.into_response()
}

/// The model that is meant, loaded if it comes when it is asked for, and what is asked of it.
async fn asked(
    served: &Snapshot,
    place: &Place<'_>,
    headers: &mut HeaderMap,
) -> Result<(Arc<Model>, Asks), Missing> {
    match place {
        Place::Predict { name, version } => {
            let model = find::want(served, name, *version, headers).await?;
            return Ok((model, Asks::Rows(Dialect::V1)));
        }
        Place::Explain { name, version } => {
            let model = find::want(served, name, *version, headers).await?;
            return Ok((model, Asks::Explanations(Dialect::V1)));
        }
        _ => {}
    }
    let only = only(served).map(|model| (model, Asks::Rows(Dialect::Scoring)));
    only.ok_or_else(|| {
        Missing::Model(
            "there is more than one graph or model; name one, in /v1/models/{model}:predict".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_dialects_and_no_others() {
        let predict = |name: &'static str, version| Some(Place::Predict { name: name.into(), version });
        for (path, place) in [
            ("/", Some(Place::Alive)),
            ("/ping", Some(Place::Ping)),
            ("/invocations", Some(Place::Invoke)),
            ("/v1/models", Some(Place::Models)),
            ("/v1/models/", Some(Place::Models)),
            ("/v1/models/m", Some(Place::Ready { name: "m".into(), version: None })),
            ("/v1/models/m:predict", predict("m", None)),
            ("/v1/models/a%20b:predict", predict("a b", None)),
            ("/v1/models/a:b:predict", predict("a:b", None)),
            ("/v1/models/m/versions/1:predict", predict("m", Some("1"))),
            ("/v1/models/m:explain", Some(Place::Explain { name: "m".into(), version: None })),
            ("/v1/models/m:classify", None),
            ("/v1/models/m/more", None),
            ("/v1/models/m/versions/1/more:predict", None),
            ("/v1/modelsm", None),
            ("/v1/models/%ff:predict", None),
            ("/pong", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }
}
