//! What changes a server over the protocol: models that are loaded and unloaded, what is traced and logged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::StatusCode;
use millstream_models::{Given, Indexed, RepositoryError};
use serde_json::{Map, Value, json};

use super::{
    find,
    repository::{self, Parameter, Repository},
    routes::refused,
    settings,
};
use crate::{
    observe::log,
    security::Session,
    service::{Answer, failed, json_answer},
    snapshot::{Shared, Snapshot},
};

const OFF: &str =
    "the server's models and settings are not changed by its clients; --model-control explicit allows it";

/// Why something was not done.
pub(super) enum Refusal {
    /// Clients may not.
    Off,
    /// There is no such thing.
    Unknown(String),
    /// The request is wrong.
    Wrong(String),
    /// It was tried.
    Failed(String),
}

impl Refusal {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Off => OFF,
            Self::Unknown(text) | Self::Wrong(text) | Self::Failed(text) => text,
        }
    }

    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Off => refused(StatusCode::FORBIDDEN, "model_control", OFF),
            Self::Unknown(text) => refused(StatusCode::NOT_FOUND, "unknown_model", text),
            Self::Wrong(text) => refused(StatusCode::BAD_REQUEST, "malformed", text),
            // The request was fine, and may be again when the files are.
            Self::Failed(text) => failed(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": text })),
        }
    }
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Unknown(text) => Self::Unknown(text),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Every version of every model, those of the repository that are not loaded among them; or those alone that take requests.
pub(super) async fn index(shared: &Shared, served: &Snapshot, ready: bool) -> Result<Vec<Indexed>, String> {
    find::look(served).await;
    let serving = !shared.is_stopping();
    let own = served.models.iter().map(|model| Indexed {
        name: model.name().to_owned(),
        version: model.version().parse().ok(),
        state: "READY",
        reason: String::new(),
    });
    let mut lines: Vec<_> = own.collect();
    if let Some(repository) = &served.repository {
        lines.extend(repository.index().map_err(|error| error.to_string())?);
    }
    if !serving {
        lines.iter_mut().for_each(|line| line.state = "UNAVAILABLE");
    }
    lines.retain(|line| !ready || line.state == "READY");
    Ok(lines)
}

/// Whether whoever asks may change anything: all may, or those who are known to.
pub(super) fn may_change(shared: &Shared, session: Option<&Session>) -> Result<(), Refusal> {
    if shared.model_control() || session.is_some_and(Session::may_change) {
        Ok(())
    } else {
        Err(Refusal::Off)
    }
}

fn repository<'s>(served: &'s Snapshot, name: &str) -> Result<&'s Repository, Refusal> {
    if served.models.iter().any(|model| model.name() == name) {
        let text = format!("model `{name}` is the project's own, and comes and goes with the project");
        return Err(Refusal::Wrong(text));
    }
    served.repository.as_deref().ok_or_else(|| {
        Refusal::Unknown(format!("there is no model `{name}`: the project has no `repository`"))
    })
}

/// Loads a model, in the place of what is served of it.
pub(super) async fn load_model(
    served: &Snapshot,
    name: &str,
    given: Result<Given, String>,
) -> Result<(), Refusal> {
    let repository = repository(served, name)?;
    Ok(repository.load(name, given.map_err(Refusal::Wrong)?).await?)
}

/// Takes a model out of service; one that is not there is not either.
pub(super) async fn unload_model(served: &Snapshot, name: &str) -> Result<(), Refusal> {
    Ok(repository(served, name)?.unload(name).await?)
}

pub(super) async fn load(served: &Snapshot, name: &str, body: &Bytes) -> Answer {
    let given = object(body).and_then(|body| parameters(&body));
    done(load_model(served, name, given).await)
}

pub(super) async fn unload(served: &Snapshot, name: &str) -> Answer {
    done(unload_model(served, name).await)
}

fn done(done: Result<(), Refusal>) -> Answer {
    match done {
        Ok(()) => json_answer(StatusCode::OK, &json!({})),
        Err(refusal) => refusal.answer(),
    }
}

/// An object; nothing is one without members.
fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|error| format!("the body is no object: {error}"))
}

fn parameters(body: &Map<String, Value>) -> Result<Given, String> {
    let none = Map::new();
    let parameters = match body.get("parameters") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err("parameters is an object".into()),
    };
    let parameter = |(key, value): (&str, &Value)| -> Result<Parameter, String> {
        let text = value.as_str().ok_or_else(|| format!("parameter `{key}` is no text"))?;
        if key.starts_with("file:") {
            let bytes = STANDARD.decode(text).map_err(|_| format!("parameter `{key}` is not base64"))?;
            return Ok(Parameter::Bytes(bytes));
        }
        Ok(Parameter::Text(text.to_owned()))
    };
    let each = parameters.iter().map(|(key, value)| Ok((key.as_str(), parameter((key, value))?)));
    let each: Vec<_> = each.collect::<Result<_, String>>()?;
    repository::given(each.into_iter())
}

/// Changes what is traced.
pub(super) fn change_trace_settings(shared: &Shared, changes: &Map<String, Value>) -> Result<(), Refusal> {
    settings::change_traces(shared.observer(), changes).map_err(Refusal::Wrong)
}

/// Changes what is logged.
pub(super) fn change_log_settings(changes: &Map<String, Value>) -> Result<(), Refusal> {
    settings::changed_log(log::settings(), changes).and_then(log::set).map_err(Refusal::Wrong)
}

pub(super) fn change_traces(shared: &Shared, body: &Bytes) -> Answer {
    let changes = object(body).map_err(Refusal::Wrong);
    match changes.and_then(|changes| change_trace_settings(shared, &changes)) {
        Ok(()) => json_answer(StatusCode::OK, &settings::traces(shared.observer())),
        Err(refusal) => refusal.answer(),
    }
}

pub(super) fn change_log(body: &Bytes) -> Answer {
    let changes = object(body).map_err(Refusal::Wrong);
    match changes.and_then(|changes| change_log_settings(&changes)) {
        Ok(()) => json_answer(StatusCode::OK, &settings::log(log::settings())),
        Err(refusal) => refusal.answer(),
    }
}
