//! Replies in parts over the protocol: MLServer's `infer_stream` of tensors, and Triton's `generate_stream` of an object.
//!
//! Each part is what `infer` or `generate` would answer, as the data of an event. An error is the object `{"error": ..}`, as data
//! too; the end is the end of the body.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use http_body_util::Full;
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Part, Portion, RunError};
use serde_json::{Value, json};

use super::{
    generate::Generate,
    inference::{Inference, Wants},
    models::Model,
    place::What,
    request::{Asked, malformed},
};
use crate::{
    service::{
        Answer, Asked as Headers, Brought, GraphService, Protocol, Streaming, Telling, answer_in_events,
        data, failed,
    },
    snapshot::{Shared, Snapshot},
    wire::DecodeError,
};

/// Says of a part which rows of the request it answers, once rows are done.
pub(super) const ROWS: &str = "rows";
/// Says of a part which steps have not answered as they should have.
pub(super) const DEGRADED: &str = "degraded";

/// Answers a request to infer part by part.
pub(super) async fn answer(
    shared: &Shared,
    served: &Arc<Snapshot>,
    model: &Arc<Model>,
    what: What,
    mut head: Parts,
    body: Body,
) -> Response {
    let service = match model.service() {
        Ok(service) => service,
        Err(message) => {
            return failed(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": message })).into_response();
        }
    };
    let generates = what == What::GenerateStream;
    let run = async |head: &Parts| {
        let begun = if generates {
            service.stream_body(&Generate::new(model), head, body).await
        } else {
            let tensors = Tensors { inner: Inference::new(model, &head.headers) };
            service.stream_body(&tensors, head, body).await
        };
        match begun {
            Ok(begun) => {
                let telling = Events { model: Arc::clone(model), generates };
                answer_in_events(telling, begun, served, head)
            }
            Err(answer) => answer.map(Body::new),
        }
    };
    let answer = Box::pin(shared.observer().tell(model.name(), &mut head, run));
    served.answer(std::pin::pin!(answer)).await
}

/// What of a part is said beside its outputs, as texts by name.
pub(super) fn parameters(streaming: &Streaming<Asked>, part: &Part) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    if let Some(places) = streaming.places(part) {
        let places: Vec<String> = places.iter().map(u32::to_string).collect();
        said.push((ROWS, places.join(",")));
    }
    let steps: Vec<&str> = part.portion().reply().degraded().iter().map(|degraded| &*degraded.step).collect();
    if !steps.is_empty() {
        said.push((DEGRADED, steps.join(", ")));
    }
    said
}

/// Requests of tensors alone, of whose replies none has bytes behind the JSON: events are text.
struct Tensors<'m> {
    inner: Inference<'m>,
}

impl Protocol for Tensors<'_> {
    type Message = Bytes;
    type Body = Full<Bytes>;
    type Asked = Asked;

    fn read(
        &self,
        service: &GraphService,
        headers: &Headers<'_>,
        body: Bytes,
        request: &mut RunRequest,
    ) -> Result<(Brought, Asked), DecodeError> {
        match self.inner.read(service, headers, body, request)? {
            (brought, Wants::Tensors(mut asked)) => {
                asked.outputs.iter_mut().for_each(|wanted| wanted.binary = false);
                Ok((brought, asked))
            }
            (_, Wants::Rows(_)) => {
                Err(malformed("`infer_stream` takes tensors: inputs with a datatype and a shape"))
            }
        }
    }

    fn replied(&self, service: &GraphService, reply: &Portion, asked: Asked) -> Answer {
        self.inner.replied(service, reply, Wants::Tensors(asked))
    }

    fn undecoded(&self, error: &DecodeError) -> Answer {
        self.inner.undecoded(error)
    }

    fn failed(&self, service: &GraphService, error: &RunError) -> Answer {
        self.inner.failed(service, error)
    }
}

/// Parts of a reply as events.
struct Events {
    model: Arc<Model>,
    generates: bool,
}

impl Telling for Events {
    type Asked = Asked;

    fn part(
        &mut self,
        streaming: &Streaming<Asked>,
        part: &Part,
        out: &mut Vec<u8>,
    ) -> Result<(), (StatusCode, Value)> {
        let (model, asked, portion) = (&*self.model, &streaming.asked, part.portion());
        let said = parameters(streaming, part);
        let said: Option<Value> = (!said.is_empty()).then(|| said.into_iter().collect());
        let written = model.counts.writing(|| {
            if self.generates {
                Generate::new(model).reply(portion, asked, said.as_ref())
            } else {
                Inference::plain(model).reply(portion, asked, said.as_ref()).map(|(body, _)| body)
            }
        });
        match written {
            Ok(json) => data(None, &json, out),
            Err(error) => {
                tracing::debug!(model = model.name(), %error, "a part cannot be written as asked");
                return Err((StatusCode::BAD_REQUEST, json!({ "error": error.to_string() })));
            }
        }
        Ok(())
    }

    fn message(&self, text: &str, _: &str, _: Option<&str>) -> Value {
        json!({ "error": text })
    }

    fn failed(&self, message: &Value, out: &mut Vec<u8>) {
        data(None, message.to_string().as_bytes(), out);
    }

    fn end(&self, _: usize, _: &mut Vec<u8>) {}
}
