//! The routes of the protocol.

use std::{borrow::Cow, sync::Arc};

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
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Asks, control,
    find::{self, Missing},
    inference::Inference,
    models::Model,
    pack,
    rows::{self, Dialect, Rows},
    settings,
    statistics::Statistics,
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
pub(super) const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
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

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    Server,
    Live,
    Ready,
    Models,
    Index,
    Load(Cow<'p, str>),
    Unload(Cow<'p, str>),
    /// The statistics of every model.
    Statistics,
    Log,
    /// What is traced, of all models or of one.
    Traces(Option<Cow<'p, str>>),
    Model {
        name: Cow<'p, str>,
        version: Option<&'p str>,
        what: What,
    },
}

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Metadata,
    Ready,
    Config,
    Statistics,
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
        let named = |name: &'p str| percent_decode_str(name).decode_utf8().ok();
        let place = match (parts.next(), parts.next()) {
            (None, _) => Self::Server,
            (Some("health"), Some("live")) => Self::Live,
            (Some("health"), Some("ready")) => Self::Ready,
            (Some("logging"), None) => Self::Log,
            (Some("trace"), Some("setting")) => Self::Traces(None),
            (Some("repository"), Some("index")) => Self::Index,
            (Some("repository"), Some(repository)) => {
                // There is one repository, whatever a client calls it.
                let models = if repository == "models" { Some(repository) } else { parts.next() };
                match (models, parts.next(), parts.next()) {
                    (Some("models"), Some(name), Some("load")) => Self::Load(named(name)?),
                    (Some("models"), Some(name), Some("unload")) => Self::Unload(named(name)?),
                    _ => return None,
                }
            }
            (Some("models"), None) => Self::Models,
            (Some("models"), Some("stats")) => Self::Statistics,
            (Some("models"), Some(name)) => {
                let name = named(name)?;
                let (version, what) = match parts.next() {
                    Some("versions") => (Some(parts.next()?), parts.next()),
                    what => (None, what),
                };
                let what = match what {
                    None => What::Metadata,
                    Some("ready") => What::Ready,
                    Some("config") => What::Config,
                    Some("stats") => What::Statistics,
                    Some("infer") => What::Infer,
                    Some("predict" | "infer_dict" | "predict_dict") => What::Predict,
                    Some("trace") if version.is_none() && parts.next() == Some("setting") => {
                        return parts.next().is_none().then_some(Self::Traces(Some(name)));
                    }
                    Some(_) => return None,
                };
                Self::Model { name, version, what }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(place)
    }

    /// The methods that it takes.
    fn takes(&self) -> &'static str {
        match self {
            Self::Index | Self::Load(_) | Self::Unload(_) => "POST",
            Self::Model { what: What::Infer | What::Predict, .. } => "POST",
            Self::Log | Self::Traces(_) => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }
}

/// The model that a path asks to infer, if there is one that takes requests now.
pub(crate) fn inferred(served: &Snapshot, path: &str) -> Option<(Arc<Model>, Asks)> {
    match Place::of(path) {
        Some(Place::Model { name, version, what: What::Infer }) => {
            Some((find::find(served, &name, version).ok()?, Asks::Tensors))
        }
        Some(Place::Model { name, version, what: What::Predict }) => {
            Some((find::find(served, &name, version).ok()?, Asks::Rows(Dialect::MlRun)))
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
    let takes = place.takes();
    if !takes.split(", ").any(|method| head.method.as_str() == method) {
        let mut answer = refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            &format!("this route takes {takes}"),
        );
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(takes));
        return answer.into_response();
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
    let answer = match place {
        Place::Server => json_answer(StatusCode::OK, &server()),
        Place::Live => json_answer(StatusCode::OK, &json!({ "live": true, "ready": !shared.is_stopping() })),
        Place::Ready => ready(&shared, true, json!({ "live": true })),
        Place::Models => json_answer(StatusCode::OK, &json!({ "models": find::names(&served) })),
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
            if let Some(why) = model.and_then(|name| find::is_ready(&served, &name, None).err()) {
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
        Place::Model { name, version, what: What::Ready } => match find::is_ready(&served, &name, version) {
            Ok(is_ready) => ready(&shared, is_ready, json!({ "name": name })),
            Err(why) => missing(&why),
        },
        // Whoever looks on loads nothing.
        Place::Model { name, version, what: What::Statistics } => match find::find(&served, &name, version) {
            Ok(model) if version.is_some() => statistics(&[model]),
            Ok(_) => statistics(&find::named(&served, &name)),
            Err(why) => missing(&why),
        },
        Place::Model { name, version, what } => match find::want(&served, &name, version).await {
            Err(why) => missing(&why),
            Ok(model) => match what {
                What::Config => json_answer(StatusCode::OK, &model.config),
                What::Metadata | What::Ready | What::Statistics => {
                    json_answer(StatusCode::OK, &model.metadata(&find::versions(&served, &name)))
                }
                What::Infer | What::Predict => {
                    let asks = if what == What::Infer { Asks::Tensors } else { Asks::Rows(Dialect::MlRun) };
                    let answer = std::pin::pin!(infer(&model, asks, shared.observer(), &mut head, body));
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
async fn read(shared: &Shared, head: &Parts, body: Body, most: usize) -> Result<Bytes, Answer> {
    let no_room = || {
        let message = json!({ "error": "as many bodies are under way as may be" });
        failed(StatusCode::TOO_MANY_REQUESTS, &message)
    };
    let terms = &shared.terms;
    let mut room = terms.feature_bytes.reserve(0).ok_or_else(no_room)?;
    body::read(&head.headers, body, most, terms.body, &mut room).await.map_err(|unread| match unread {
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
    match control::index(shared, served, asked.ready) {
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
            ("/v2/models/m/stats", model("m", None, What::Statistics)),
            ("/v2/models/m/versions/2/stats", model("m", Some("2"), What::Statistics)),
            ("/v2/models/stats", Some(Place::Statistics)),
            ("/v2/models/m/trace/setting", Some(Place::Traces(Some("m".into())))),
            ("/v2/models/m/trace", None),
            ("/v2/models/m/trace/setting/more", None),
            ("/v2/trace/setting", Some(Place::Traces(None))),
            ("/v2/trace", None),
            ("/v2/models/%ff/infer", None),
            ("/v2/health", None),
            ("/v2/health/live/more", None),
            ("/v2/repository/index", Some(Place::Index)),
            ("/v2/repository", None),
            ("/v2/repository/models/m/load", Some(Place::Load("m".into()))),
            ("/v2/repository/main/models/m/unload", Some(Place::Unload("m".into()))),
            ("/v2/repository/models/m", None),
            ("/v2/repository/models/m/load/more", None),
            ("/v2/logging", Some(Place::Log)),
            ("/v2/logging/more", None),
            ("/v22", None),
            ("/v1/models/m", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }
}
