//! What the body of a request says of where it goes: MLRun's clients may name the model, its version and the operation there.

use std::sync::Arc;

use axum::body::Body;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    request::Parts,
};
use millstream_runtime::Reserved;
use serde_json::{Value, json};

use super::{
    Asks,
    find::{self, Missing},
    inference::HEADER,
    models::Model,
    routes::{infer, missing, read_held, refused},
    rows::{Dialect, only},
    scan::Scan,
};
use crate::{
    service::Answer,
    snapshot::{Shared, Snapshot},
};

/// The operations of MLRun's model servers.
pub(super) const OPERATIONS: [&str; 5] = ["infer", "predict", "infer_dict", "predict_dict", "explain"];

/// Members of a body.
#[derive(Debug, Default, PartialEq)]
struct Named {
    model: Option<Value>,
    version: Option<Value>,
    operation: Option<Value>,
}

impl Named {
    fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let json = match headers.get(HEADER) {
            None => body,
            Some(length) => {
                let length = length.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
                length.and_then(|length| body.get(..length)).unwrap_or_default()
            }
        };
        let mut json = std::str::from_utf8(json).unwrap_or_default();
        if is_event(headers) {
            // What an event carries is asked, not what it is.
            let mut data = "";
            let _ = Scan::new(json).members(|name, scan| {
                let text = scan.extent()?;
                if name == "data" {
                    data = text;
                }
                Ok(())
            });
            json = data;
        }
        let mut named = Self::default();
        // What cannot be read is told by whoever reads all of it.
        let _ = Scan::new(json).members(|name, scan| {
            let text = scan.extent()?;
            // What is neither a text nor a number names nothing, and may be large. A number that cannot be read names nothing either.
            let value = || match text.as_bytes().first() {
                Some(b'[' | b'{') => Some(Value::Null),
                _ => Some(serde_json::from_str(text).unwrap_or_default()),
            };
            match name {
                "model" => named.model = value(),
                "version" => named.version = value(),
                "operation" => named.operation = value(),
                _ => {}
            }
            Ok(())
        });
        named
    }

    /// What is asked, on a path that asks for `asks`: the body counts more.
    fn asks(&self, asks: Asks) -> Asks {
        match (self.operation.as_ref().and_then(Value::as_str), asks) {
            (Some("explain"), _) => Asks::Explanations(Dialect::MlRun),
            (Some(operation), Asks::Explanations(_)) if OPERATIONS.contains(&operation) => {
                Asks::Rows(Dialect::MlRun)
            }
            _ => asks,
        }
    }

    /// The model that is meant; without a name, the only one there is.
    async fn find(&self, served: &Snapshot, headers: &mut HeaderMap) -> Result<Arc<Model>, Answer> {
        let wrong = |what: &str| {
            refused(StatusCode::BAD_REQUEST, "malformed", &format!("`{what}` is not the text of a name"))
        };
        let version = match &self.version {
            None => None,
            Some(Value::String(version)) => Some(version.clone()),
            Some(Value::Number(version)) => Some(version.to_string()),
            Some(_) => return Err(wrong("version")),
        };
        match &self.model {
            Some(Value::String(name)) => {
                find::want(served, name, version.as_deref(), headers).await.map_err(|why| missing(&why))
            }
            Some(_) => Err(wrong("model")),
            None => only(served).ok_or_else(|| {
                let why = "there is more than one graph or model; name one as `model` in the body, or in the path: \
                           /v2/models/{model}/infer";
                missing(&Missing::Model(why.to_owned()))
            }),
        }
    }
}

/// Whether the body is a CloudEvent that has its data in it.
fn is_event(headers: &HeaderMap) -> bool {
    const EVENT: &[u8] = b"application/cloudevents";
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENT.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT))
}

/// What is asked of a model on a path that asks for `asks`, and the body, which is read first where it may ask for explanations.
pub(super) async fn asked(
    shared: &Shared,
    model: &Model,
    asks: Asks,
    head: &mut Parts,
    body: Body,
) -> Result<(Asks, Body), Answer> {
    if model.explainer().is_none() || asks == Asks::Generated {
        return Ok((asks, body));
    }
    let (named, body, _) = opened(shared, head, body).await?;
    Ok((named.asks(asks), body))
}

/// Answers a request to the router, as MLRun has one above its models: the body says which of them is meant.
pub(super) async fn routed(
    shared: &Shared,
    served: &Snapshot,
    asks: Asks,
    head: &mut Parts,
    body: Body,
) -> Answer {
    let (named, body, room) = match opened(shared, head, body).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    // The body takes its room as long as a model is loaded for it; its run has room of its own.
    let found = named.find(served, &mut head.headers).await;
    drop(room);
    let model = match found {
        Ok(model) => model,
        Err(answer) => return answer,
    };
    let mut answer = Box::pin(infer(&model, named.asks(asks), shared.observer(), head, body));
    served.answer(answer.as_mut()).await
}

/// What a body says, and the body again, unpacked, with the room that it takes.
async fn opened(shared: &Shared, head: &mut Parts, body: Body) -> Result<(Named, Body, Reserved), Answer> {
    let (body, room) = read_held(shared, head, body, shared.terms.decode.body_bytes).await?;
    head.headers.remove(CONTENT_ENCODING);
    Ok((Named::of(&head.headers, &body), Body::from(body), room))
}

/// What a model without an explainer answers.
pub(super) fn unexplained(model: &Model) -> Answer {
    refused(StatusCode::NOT_FOUND, "no_explainer", &no_explainer(model))
}

pub(super) fn no_explainer(model: &Model) -> String {
    format!(
        "model `{}` has no explainer: `explain`, in the model or the graph of this name in the project file, names a graph that \
         explains it",
        model.name()
    )
}

/// What the router of MLRun's models says of itself.
pub(super) fn router() -> Value {
    json!({ "name": "millstream", "version": "v2", "extensions": [], "live": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_name_what_they_go_to() {
        let (tensors, rows) = (Asks::Tensors, Asks::Rows(Dialect::MlRun));
        let explains = Asks::Explanations(Dialect::MlRun);
        for (body, header, model, on_infer, on_explain) in [
            (r#"{"inputs":[[1]],"model":"m"}"#, None, Some("m"), tensors, explains),
            (r#"{"operation":"explain","inputs":{"operation":"infer"}}"#, None, None, explains, explains),
            (r#"{"operation":"predict"}"#, None, None, tensors, rows),
            (r#"{"operation":"op_other"}"#, None, None, tensors, explains),
            (r#"{"operation":7,"model":"m""#, None, Some("m"), tensors, explains),
            (r#"{"model":"m"}{"operation":"explain"}"#, Some("13"), Some("m"), tensors, explains),
            (r#"{"model":"m"}"#, Some("0"), None, tensors, explains),
            (r#"{"model":"m"}"#, Some("many"), None, tensors, explains),
            ("", None, None, tensors, explains),
            ("[1]", None, None, tensors, explains),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(length) = header {
                headers.insert(HEADER, length.parse().unwrap());
            }
            let named = Named::of(&headers, body.as_bytes());
            assert_eq!(named.model.as_ref().and_then(Value::as_str), model, "{body}");
            assert_eq!((named.asks(tensors), named.asks(explains)), (on_infer, on_explain), "{body}");
        }
    }
}
