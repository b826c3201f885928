//! The routes of the protocol.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW},
    request::Parts,
};
use millstream_runtime::Reserved;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Asks, control,
    find::{self, Missing},
    generate::Generate,
    inference::Inference,
    models::Model,
    named, pack,
    place::{Place, What},
    rows::{self, Rows},
    settings,
    statistics::Statistics,
    streamed,
};
use crate::{
    body::{self, Unread},
    observe::{Observer, log},
    refusals::Refused,
    service::{self, Answer, failed, json_answer},
    snapshot::{Shared, Snapshot},
    wire::DecodeError,
};

/// Bytes of a request that has no model in it.
const SMALL_BYTES: usize = 64 << 10;
/// What is spoken beyond the protocol itself.
pub(super) const EXTENSIONS: [&str; 9] = [
    "binary_tensor_data",
    "classification",
    "generate",
    "logging",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
    "trace",
];

pub(crate) fn routes() -> Router<Arc<Shared>> {
    let tensors = Router::new().route("/v2", any(answer)).route("/v2/", any(answer));
    tensors.route("/v2/{*place}", any(answer)).merge(rows::routes())
}

/// The model that a path asks to infer, if there is one that takes requests now.
pub(crate) fn inferred(served: &Snapshot, path: &str) -> Option<(Arc<Model>, Asks)> {
    match Place::of(path) {
        Some(Place::Model { name, version, what }) => {
            let asks = what.asks()?;
            let model = find::find(served, &name, version).ok()?;
            // Where the body may ask for explanations, it is read before the engine is known.
            model.explainer().is_none().then_some((model, asks))
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
    let explains = matches!(asks, Asks::Explanations(_));
    let service = if explains {
        match model.explainer() {
            Some(service) => service,
            None => return named::unexplained(model),
        }
    } else {
        match model.service() {
            Ok(service) => service,
            Err(message) => return failed(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": message })),
        }
    };
    let answer = match asks {
        Asks::Tensors => {
            let inference = Inference::new(model, &head.headers);
            let run = async |head: &Parts| service.answer_in(&inference, head, body).await;
            observer.tell(model.name(), head, run).await
        }
        Asks::Generated => {
            let generate = Generate::new(model);
            let run = async |head: &Parts| service.answer_in(&generate, head, body).await;
            Box::pin(observer.tell(model.name(), head, run)).await
        }
        Asks::Rows(dialect) | Asks::Explanations(dialect) => {
            let rows = Rows { model, dialect, explains };
            let run = async |head: &Parts| service.answer_in(&rows, head, body).await;
            let name = if explains { service.name() } else { model.name() };
            // Boxed, so that requests of tensors carry no room for it.
            Box::pin(observer.tell(name, head, run)).await
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
    let routed = place.routed();
    let takes = match &place {
        // A model may have the name of an operation, and tells of itself all the same.
        Place::Model { name, .. } if routed.is_some() => {
            if find::is_ready(&served, name, None).await.is_ok() { "GET, HEAD, POST" } else { "POST" }
        }
        place => place.takes(),
    };
    if !takes.split(", ").any(|method| head.method.as_str() == method) {
        let mut answer = refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            &format!("this route takes {takes}"),
        );
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(takes));
        return answer.into_response();
    }
    if let Some(asks) = routed.filter(|_| head.method == Method::POST) {
        return named::routed(&shared, &served, asks, &mut head, body).await.into_response();
    }
    let changes = match place {
        Place::Load(_) | Place::Unload(_) => true,
        Place::Log | Place::Traces(_) => head.method == Method::POST,
        _ => false,
    };
    // Before anything is read of a body that would change nothing.
    if changes && let Err(refusal) = control::may_change(&shared, head.extensions.get()) {
        return refusal.answer().into_response();
    }
    if let Place::Model { name, version, what: what @ (What::InferStream | What::GenerateStream) } = &place {
        return match find::want(&served, name, *version, &mut head.headers).await {
            Err(why) => missing(&why).into_response(),
            Ok(model) => Box::pin(streamed::answer(&shared, &served, &model, *what, head, body)).await,
        };
    }
    let answer = match place {
        Place::Server => json_answer(StatusCode::OK, &server()),
        Place::Live => json_answer(StatusCode::OK, &json!({ "live": true, "ready": !shared.is_stopping() })),
        Place::Ready => ready(&shared, true, json!({ "live": true })),
        Place::Router => ready(&shared, true, named::router()),
        Place::Models => {
            find::look(&served).await;
            json_answer(StatusCode::OK, &json!({ "models": find::names(&served) }))
        }
        Place::Index => index(&shared, &served, &head, body).await,
        Place::Load(name) => match read(&shared, &head, body, shared.terms.decode.body_bytes).await {
            Ok(body) => control::load(&served, &name, &body).await,
            Err(answer) => answer,
        },
        Place::Unload(name) => control::unload(&served, &name).await,
        Place::Statistics => statistics(&find::all(&served)),
        Place::Log if head.method == Method::POST => match read(&shared, &head, body, SMALL_BYTES).await {
            Ok(body) => control::change_log(&body),
            Err(answer) => answer,
        },
        Place::Log => json_answer(StatusCode::OK, &settings::log(log::settings())),
        Place::Traces(model) => {
            let unknown = match &model {
                Some(name) => find::is_ready(&served, name, None).await.err(),
                None => None,
            };
            if let Some(why) = unknown {
                missing(&why)
            } else if head.method == Method::POST {
                match read(&shared, &head, body, SMALL_BYTES).await {
                    Ok(body) => control::change_traces(&shared, &body),
                    Err(answer) => answer,
                }
            } else {
                json_answer(StatusCode::OK, &settings::traces(shared.observer()))
            }
        }
        Place::Model { name, version, what: What::Ready } => {
            match find::is_ready(&served, &name, version).await {
                Ok(is_ready) => ready(&shared, is_ready, json!({ "name": name })),
                Err(why) => missing(&why),
            }
        }
        // Whoever looks on loads nothing.
        Place::Model { name, version, what: What::Statistics } => {
            match find::seen(&served, &name, version).await {
                Ok(model) if version.is_some() => statistics(&[model]),
                Ok(_) => statistics(&find::named(&served, &name)),
                Err(why) => missing(&why),
            }
        }
        Place::Model { name, version, what } => {
            match find::want(&served, &name, version, &mut head.headers).await {
                Err(why) => missing(&why),
                Ok(model) => match what {
                    What::Config => json_answer(StatusCode::OK, &model.config),
                    _ => match what.asks() {
                        None => json_answer(StatusCode::OK, &model.metadata(&find::versions(&served, &name))),
                        Some(asks) => match named::asked(&shared, &model, asks, &mut head, body).await {
                            Ok((asks, body)) => {
                                let answer =
                                    std::pin::pin!(infer(&model, asks, shared.observer(), &mut head, body));
                                served.answer(answer).await
                            }
                            Err(answer) => answer,
                        },
                    },
                },
            }
        }
    };
    answer.into_response()
}

fn server() -> Value {
    json!({ "name": "millstream", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS })
}

/// What else there is to say, and whether requests are taken.
pub(super) fn ready(shared: &Shared, is_ready: bool, mut message: Value) -> Answer {
    let stopping = shared.is_stopping();
    message["ready"] = (is_ready && !stopping).into();
    if is_ready && !stopping {
        return json_answer(StatusCode::OK, &message);
    }
    message["error"] = if stopping { "the server is stopping" } else { "it is not loaded" }.into();
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &message)
}

/// The body of a request that is about models, not for them.
pub(super) async fn read(shared: &Shared, head: &Parts, body: Body, most: usize) -> Result<Bytes, Answer> {
    read_held(shared, head, body, most).await.map(|(body, _)| body)
}

/// A body, and the room that it takes until that is dropped.
pub(super) async fn read_held(
    shared: &Shared,
    head: &Parts,
    body: Body,
    most: usize,
) -> Result<(Bytes, Reserved), Answer> {
    let no_room = || {
        let message = json!({ "error": "as many bodies are under way as may be" });
        failed(StatusCode::TOO_MANY_REQUESTS, &message)
    };
    let terms = &shared.terms;
    let mut room = terms.feature_bytes.reserve(0).ok_or_else(no_room)?;
    let read = body::read(&head.headers, body, most, terms.body, &mut room).await;
    read.map(|body| (body, room)).map_err(|unread| match unread {
        Unread::Refused(error) => unread_answer(&error),
        Unread::NoRoom => no_room(),
    })
}

fn unread_answer(error: &DecodeError) -> Answer {
    service::unread(error, &json!({ "error": error.to_string() }))
}

fn statistics(models: &[Arc<Model>]) -> Answer {
    let all: Value = models.iter().map(|model| Statistics::of(model).json()).collect();
    json_answer(StatusCode::OK, &json!({ "model_stats": all }))
}

/// Every model, and whether it takes requests. A body may ask for those alone that do, and may be left out.
async fn index(shared: &Shared, served: &Snapshot, head: &Parts, body: Body) -> Answer {
    let body = match read(shared, head, body, SMALL_BYTES).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let asked =
        if body.trim_ascii().is_empty() { Ok(Listed::default()) } else { serde_json::from_slice(&body) };
    let Ok(asked) = asked else {
        let message = "the body is no object such as {\"ready\": true}";
        return refused(StatusCode::BAD_REQUEST, "malformed", message);
    };
    match control::index(shared, served, asked.ready).await {
        Ok(lines) => {
            let lines = lines.into_iter().map(|line| {
                let mut told = json!({ "name": line.name, "state": line.state, "reason": line.reason });
                if let Some(version) = line.version {
                    told["version"] = version.to_string().into();
                }
                told
            });
            json_answer(StatusCode::OK, &lines.collect())
        }
        Err(message) => json_answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": message })),
    }
}

/// Which models an index is to have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    /// Only those that take requests.
    ready: bool,
}

pub(super) fn missing(why: &Missing) -> Answer {
    let mut answer = failed(why.status(), &json!({ "error": why.message() }));
    answer.extensions_mut().insert(Refused(why.code()));
    answer
}

pub(super) fn refused(status: StatusCode, code: &'static str, message: &str) -> Answer {
    let mut answer = json_answer(status, &json!({ "error": message }));
    answer.extensions_mut().insert(Refused(code));
    answer
}
