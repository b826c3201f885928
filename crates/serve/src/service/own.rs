//! The graph's own protocol: JSON objects and Arrow streams.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use millstream_graph::{ErrorKind, Request as RunRequest};
use millstream_runtime::{Part, Portion, RunError};
use serde_json::{Value, json};

use super::{
    ARROW_START, ARROW_STREAM, Answer, Asked, Brought, GraphService, JSON, Protocol, Streaming, Telling,
    data, failed, failure, json_answer, undecoded, wants_arrow, written,
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
                return json_answer(StatusCode::INTERNAL_SERVER_ERROR, &unwritten(service, &error));
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
        failed(status, &message_of(&message, error.kind().name(), error.step()))
    }
}

fn message_of(text: &str, code: &str, step: Option<&str>) -> Value {
    json!({ "error": text, "code": code, "step": step })
}

/// What is said of a reply that cannot be written; why is for the log.
fn unwritten(service: &GraphService, error: &str) -> Value {
    tracing::error!(graph = service.name(), error, "a reply cannot be written");
    json!({ "error": "the reply cannot be written", "code": ErrorKind::Internal.name() })
}

/// The form of a reply in the graph's own protocol.
pub(super) struct Shape {
    form: Form,
    arrow: bool,
}

/// Parts of a reply as the graph's own protocol has replies.
pub(super) struct OwnEvents {
    /// Which rows of the request the parts answer, as was said last.
    told: Vec<u32>,
}

impl OwnEvents {
    pub(super) fn of(streaming: &Streaming<Shape>) -> Self {
        Self { told: (0..streaming.rows() as u32).collect() }
    }
}

impl Telling for OwnEvents {
    type Asked = Shape;

    fn part(
        &mut self,
        streaming: &Streaming<Shape>,
        part: &Part,
        out: &mut Vec<u8>,
    ) -> Result<(), (StatusCode, Value)> {
        let (service, portion) = (streaming.service(), part.portion());
        let (rows, range) = (portion.reply().rows(), portion.range());
        let steps: Vec<&str> = portion.reply().degraded().iter().map(|degraded| &*degraded.step).collect();
        if !steps.is_empty() {
            data(Some("degraded"), json!(steps).to_string().as_bytes(), out);
        }
        let places: Option<Vec<u32>> = (0..range.len()).map(|row| part.place(row)).collect();
        if let Some(places) = places.filter(|places| streaming.rows() > 1 && *places != self.told) {
            data(Some("rows"), json!(places).to_string().as_bytes(), out);
            self.told = places;
        }
        let form = if range.len() > 1 { Form::Array } else { streaming.asked.form };
        let encoded = written(|body| service.shared.encoder.encode_rows(rows, range, form, body));
        match encoded {
            Ok(json) => data(None, &json, out),
            Err(error) => {
                return Err((StatusCode::INTERNAL_SERVER_ERROR, unwritten(service, &error.to_string())));
            }
        }
        Ok(())
    }

    fn message(&self, text: &str, code: &str, step: Option<&str>) -> Value {
        message_of(text, code, step)
    }

    fn failed(&self, message: &Value, out: &mut Vec<u8>) {
        data(Some("error"), message.to_string().as_bytes(), out);
    }

    fn end(&self, parts: usize, out: &mut Vec<u8>) {
        data(Some("end"), json!({ "parts": parts }).to_string().as_bytes(), out);
    }
}
