//! The graph's own protocol: JSON objects and Arrow streams.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use millstream_graph::{ErrorKind, Request as RunRequest};
use millstream_runtime::{Portion, RunError};
use serde_json::json;

use super::{
    ARROW_START, ARROW_STREAM, Answer, Asked, Brought, GraphService, JSON, Protocol, failed, failure,
    json_answer, undecoded, wants_arrow, written,
};
use crate::wire::{DecodeError, Form, ipc};

/// JSON objects and Arrow streams, which say themselves which of the two they are.
pub(super) struct OwnBodies;

impl Protocol for OwnBodies {
    type Message = Bytes;
    type Body = Full<Bytes>;
    type Asked = Shape;

    fn read(
        &self,
        service: &GraphService,
        asked: &Asked<'_>,
        body: Bytes,
        _: &mut RunRequest,
    ) -> Result<(Brought, Shape), DecodeError> {
        let is_arrow = body.starts_with(&ARROW_START);
        let (brought, form) = if is_arrow {
            (Brought::Rows(service.shared.ipc.decode(body)?), Form::Array)
        } else {
            let (values, form) = service.decoder().read(&body)?;
            (Brought::Values(values), form)
        };
        Ok((brought, Shape { form, arrow: wants_arrow(asked.accept, is_arrow) }))
    }

    fn replied(&self, service: &GraphService, reply: &Portion, Shape { form, arrow }: Shape) -> Answer {
        // A graph that makes several rows of one has more to say than one object can.
        let form = if reply.range().len() > 1 { Form::Array } else { form };
        let encoded = if arrow {
            ipc::encode(&reply.rows()).map(Bytes::from).map_err(|error| error.to_string())
        } else {
            let (encoder, rows) = (&service.shared.encoder, reply.reply().rows());
            let encoded = written(|body| encoder.encode_rows(rows, reply.range(), form, body));
            encoded.map_err(|error| error.to_string())
        };
        let body = match encoded {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(graph = service.name(), %error, "a reply cannot be written");
                let message =
                    json!({ "error": "the reply cannot be written", "code": ErrorKind::Internal.name() });
                return json_answer(StatusCode::INTERNAL_SERVER_ERROR, &message);
            }
        };
        let mut answer = Response::new(Full::new(body));
        let media = if arrow { HeaderValue::from_static(ARROW_STREAM) } else { JSON };
        answer.headers_mut().insert(CONTENT_TYPE, media);
        answer
    }

    fn undecoded(&self, error: &DecodeError) -> Answer {
        undecoded(error)
    }

    fn failed(&self, service: &GraphService, error: &RunError) -> Answer {
        let (status, message) = failure(service.name(), error);
        failed(status, &json!({ "error": message, "code": error.kind().name(), "step": error.step() }))
    }
}

/// The form of a reply in the graph's own protocol.
pub(super) struct Shape {
    form: Form,
    arrow: bool,
}
