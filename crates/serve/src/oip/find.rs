//! Which model a request means.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use millstream_graph::suggest;
use millstream_models::RepositoryError;

use super::models::{Model, VERSION};
use crate::{deadline, snapshot::Snapshot};

/// Why there is no model for a request; each with what its caller may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Model(String),
    Version(String),
    /// It is in the repository, and not loaded.
    NotLoaded(String),
    /// It could not be loaded.
    Failed(String),
    /// It was not loaded before the deadline passed.
    Late(String),
}

impl Missing {
    /// As refusals are counted.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Model(_) => "unknown_model",
            Self::Version(_) => "unknown_version",
            Self::NotLoaded(_) | Self::Failed(_) | Self::Late(_) => "model_not_ready",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Model(_) | Self::Version(_) | Self::NotLoaded(_) => StatusCode::NOT_FOUND,
            Self::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Self::Model(text)
            | Self::Version(text)
            | Self::NotLoaded(text)
            | Self::Failed(text)
            | Self::Late(text) => text,
        }
    }
}

/// A version of a model that takes requests now; without a number or a label, the newest. Nothing is read for it: what has come
/// into the repository since is for [`seen`].
pub(super) fn find(served: &Snapshot, name: &str, version: Option<&str>) -> Result<Arc<Model>, Missing> {
    if let Some(model) = served.models.iter().find(|model| model.name() == name) {
        return match version {
            None | Some(VERSION) => Ok(Arc::clone(model)),
            Some(version) => Err(no_version(name, version, &[VERSION.to_owned()])),
        };
    }
    if let Some(repository) = &served.repository {
        if let Some(versions) = repository.get(name) {
            let found = versions.version(version).map(Arc::clone);
            return found
                .ok_or_else(|| no_version(name, version.unwrap_or_default(), &listed(versions.numbers())));
        }
        if repository.has(name) {
            let text = format!("model `{name}` is not loaded and has no available versions");
            return Err(Missing::NotLoaded(text));
        }
    }
    let names = names(served);
    Err(Missing::Model(suggest::unknown("model", name, names.iter().map(String::as_str))))
}

/// The same, of what the repository has now.
pub(super) async fn seen(
    served: &Snapshot,
    name: &str,
    version: Option<&str>,
) -> Result<Arc<Model>, Missing> {
    look_for(served, name).await;
    find(served, name, version)
}

/// The same; a model that comes when it is asked for comes first, before the deadline of a request with these headers. What remains
/// of its time then is what they give to its run.
pub(super) async fn want(
    served: &Snapshot,
    name: &str,
    version: Option<&str>,
    headers: &mut HeaderMap,
) -> Result<Arc<Model>, Missing> {
    let missing = match seen(served, name, version).await {
        Err(missing @ Missing::NotLoaded(_)) => missing,
        found => return found,
    };
    let Some(repository) = served.repository.as_ref().filter(|repository| repository.comes_when_asked(name))
    else {
        return Err(missing);
    };
    let late = || Missing::Late(format!("the deadline passed while model `{name}` was being loaded"));
    let time = deadline::of(headers).or(repository.patience());
    let loaded = match time.and_then(|time| tokio::time::Instant::now().checked_add(time)) {
        None => repository.want(name).await,
        Some(until) => {
            // The load itself goes on, for others.
            let loaded = tokio::time::timeout_at(until, repository.want(name)).await.map_err(|_| late())?;
            deadline::shorten(headers, until.saturating_duration_since(tokio::time::Instant::now()));
            loaded
        }
    };
    match loaded {
        Ok(versions) => {
            let found = versions.version(version).map(Arc::clone);
            found.ok_or_else(|| no_version(name, version.unwrap_or_default(), &listed(versions.numbers())))
        }
        Err(RepositoryError::Unknown(text)) => Err(Missing::Model(text)),
        Err(error) => {
            tracing::error!(model = name, %error, "a model cannot be loaded");
            Err(Missing::Failed(format!("model `{name}` cannot be loaded at present; the log says why")))
        }
    }
}

/// Whether a model takes requests: now, or when it is asked for.
pub(super) async fn is_ready(served: &Snapshot, name: &str, version: Option<&str>) -> Result<bool, Missing> {
    match seen(served, name, version).await {
        Ok(_) => Ok(true),
        Err(Missing::NotLoaded(_)) => {
            Ok(served.repository.as_ref().is_some_and(|repository| repository.comes_when_asked(name)))
        }
        Err(missing) => Err(missing),
    }
}

/// Sees what the repository has now.
pub(crate) async fn look(served: &Snapshot) {
    if let Some(repository) = &served.repository {
        repository.look().await;
    }
}

/// The same, unless the model takes requests already.
async fn look_for(served: &Snapshot, name: &str) {
    let is_served = served.models.iter().any(|model| model.name() == name);
    if let Some(repository) = served.repository.as_ref().filter(|_| !is_served)
        && !repository.loaded().contains_key(name)
    {
        repository.look().await;
    }
}

/// The versions of a model that take requests now.
pub(super) fn versions(served: &Snapshot, name: &str) -> Vec<String> {
    if served.models.iter().any(|model| model.name() == name) {
        return vec![VERSION.to_owned()];
    }
    let versions = served.repository.as_ref().and_then(|repository| repository.get(name));
    versions.map_or_else(Vec::new, |versions| listed(versions.numbers()))
}

/// Every version of every model that takes requests now.
pub(super) fn all(served: &Snapshot) -> Vec<Arc<Model>> {
    let mut all = served.models.clone();
    if let Some(repository) = &served.repository {
        let loaded = repository.loaded();
        all.extend(loaded.values().flat_map(|versions| versions.iter().map(|(_, model)| Arc::clone(model))));
    }
    all
}

/// Every version of one of them.
pub(super) fn named(served: &Snapshot, name: &str) -> Vec<Arc<Model>> {
    all(served).into_iter().filter(|model| model.name() == name).collect()
}

/// The names of models that take requests now, or when they are asked for, as far as [`look`] has seen.
pub(super) fn names(served: &Snapshot) -> Vec<String> {
    let mut names: Vec<String> = served.models.iter().map(|model| model.name().to_owned()).collect();
    if let Some(repository) = &served.repository {
        names.extend(repository.names());
    }
    names
}

fn no_version(name: &str, version: &str, there: &[String]) -> Missing {
    let there = there.iter().map(|version| format!("`{version}`")).collect::<Vec<_>>().join(", ");
    Missing::Version(format!("model `{name}` has no version `{version}`; there is {there}"))
}

fn listed(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}
