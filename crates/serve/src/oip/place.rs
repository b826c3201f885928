//! What the paths of the protocol ask for.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Asks, rows::Dialect};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'p> {
    Server,
    Live,
    Ready,
    /// Whether the router is there that MLRun has above its models.
    Router,
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
pub(super) enum What {
    Metadata,
    Ready,
    Config,
    Statistics,
    Infer,
    /// To infer, of which the reply comes in parts.
    InferStream,
    /// To infer, as Triton puts it for scalars.
    Generate,
    GenerateStream,
    /// To infer, as MLRun puts it.
    Predict,
    /// To explain what would be inferred, as MLRun puts it.
    Explain,
}

impl What {
    /// What is asked so of the engines.
    pub(super) fn asks(self) -> Option<Asks> {
        match self {
            Self::Infer => Some(Asks::Tensors),
            Self::Generate => Some(Asks::Generated),
            Self::Predict => Some(Asks::Rows(Dialect::MlRun)),
            Self::Explain => Some(Asks::Explanations(Dialect::MlRun)),
            Self::InferStream | Self::GenerateStream => None,
            Self::Metadata | Self::Ready | Self::Config | Self::Statistics => None,
        }
    }
}

impl<'p> Place<'p> {
    pub(super) fn of(path: &'p str) -> Option<Self> {
        let mut parts = path.strip_prefix("/v2")?.trim_end_matches('/').split('/');
        if !parts.next()?.is_empty() {
            return None;
        }
        let named = |name: &'p str| percent_decode_str(name).decode_utf8().ok();
        let place = match (parts.next(), parts.next()) {
            (None, _) => Self::Server,
            (Some("health"), Some("live")) => Self::Live,
            (Some("health"), Some("ready")) => Self::Ready,
            (Some("health"), None) => Self::Router,
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
                    Some("infer_stream") => What::InferStream,
                    Some("generate") => What::Generate,
                    Some("generate_stream") => What::GenerateStream,
                    Some("predict" | "infer_dict" | "predict_dict") => What::Predict,
                    Some("explain") => What::Explain,
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
    pub(super) fn takes(&self) -> &'static str {
        match self {
            Self::Index | Self::Load(_) | Self::Unload(_) => "POST",
            Self::Model { what: What::Infer | What::Predict | What::Explain, .. } => "POST",
            Self::Model { what: What::InferStream | What::Generate | What::GenerateStream, .. } => "POST",
            Self::Log | Self::Traces(_) => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }

    /// What is asked of whichever model the body names, where the path has an operation in a model's place.
    pub(super) fn routed(&self) -> Option<Asks> {
        match self {
            Self::Model { name, version: None, what: What::Metadata } => match &**name {
                "infer" => Some(Asks::Tensors),
                "explain" => Some(Asks::Explanations(Dialect::MlRun)),
                "predict" | "infer_dict" | "predict_dict" => Some(Asks::Rows(Dialect::MlRun)),
                _ => None,
            },
            _ => None,
        }
    }
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
            ("/v2/models/m/infer_stream", model("m", None, What::InferStream)),
            ("/v2/models/m/generate", model("m", None, What::Generate)),
            ("/v2/models/m/versions/2/generate_stream", model("m", Some("2"), What::GenerateStream)),
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
            ("/v2/health", Some(Place::Router)),
            ("/v2/models/m/explain", model("m", None, What::Explain)),
            ("/v2/models/m/versions/1/explain", model("m", Some("1"), What::Explain)),
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
