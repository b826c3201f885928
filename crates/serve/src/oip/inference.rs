//! One request to infer: a body of tensors in, a run, a body of tensors out.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Portion, RunError};
use serde_json::{Value, json};

use super::{
    models::Model,
    outputs::Told,
    request::{self, Asked, Wanted, malformed},
    rows::{Dialect, Rows},
    values::Form,
};
use crate::{
    service::{self, Answer, Asked as Headers, Brought, GraphService, JSON, Protocol, json_answer, written},
    wire::DecodeError,
};

/// How many bytes of a body are JSON, if tensors follow it.
pub(super) const HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Requests to one model, and its replies.
pub(super) struct Inference<'m> {
    model: &'m Model,
    /// How many bytes of the body are JSON, as the request says.
    header: Option<HeaderValue>,
    /// When the request came; its time begins then.
    since: Instant,
}

/// What a reply follows.
pub(super) enum Wants {
    Tensors(Asked),
    /// The name that a request of MLRun has.
    Rows(Option<Value>),
}

impl<'m> Inference<'m> {
    /// The same requests as MLRun puts them.
    fn rows(&self) -> Rows<'m> {
        Rows { model: self.model, dialect: Dialect::MlRun, explains: false }
    }

    pub(super) fn new(model: &'m Model, headers: &HeaderMap) -> Self {
        let since = tokio::time::Instant::now().into_std();
        Self { model, header: headers.get(HEADER).cloned(), since }
    }

    /// Replies of the model to requests whose bodies were read already.
    pub(super) fn plain(model: &'m Model) -> Self {
        Self { model, header: None, since: tokio::time::Instant::now().into_std() }
    }

    /// The bytes of a body that are JSON; none if it is nothing but the values of a tensor.
    fn json_bytes(&self, body: &[u8]) -> Result<Option<usize>, DecodeError> {
        let Some(header) = &self.header else { return Ok(Some(body.len())) };
        let bytes = header.to_str().ok().and_then(|text| text.trim().parse().ok());
        match bytes {
            Some(0) => Ok(None),
            Some(bytes) => Ok(Some(bytes)),
            None => Err(malformed(format!("header `{HEADER}` must be the number of bytes that are JSON"))),
        }
    }

    /// A reply's body, and how much of it is JSON, if bytes follow.
    pub(super) fn reply(
        &self,
        reply: &Portion,
        asked: &Asked,
        parameters: Option<&Value>,
    ) -> Result<(Bytes, Option<usize>), DecodeError> {
        let (mut raw, mut header) = (Vec::new(), None);
        let body = written(|body| {
            begin(self.model, asked, body);
            if let Some(parameters) = parameters {
                body.extend_from_slice(format!(",\"parameters\":{parameters}").as_bytes());
            }
            body.extend_from_slice(b",\"outputs\":[");
            for (at, wanted) in asked.outputs.iter().enumerate() {
                if at > 0 {
                    body.push(b',');
                }
                self.tensor(reply, *wanted, body, &mut raw)?;
            }
            body.extend_from_slice(b"]}");
            if asked.outputs.iter().any(|wanted| wanted.binary) {
                header = Some(body.len());
            }
            body.append(&mut raw);
            Ok::<(), DecodeError>(())
        })?;
        Ok((body, header))
    }

    /// One output: what it is, and its values here or among the bytes that follow.
    fn tensor(
        &self,
        reply: &Portion,
        wanted: Wanted,
        body: &mut Vec<u8>,
        raw: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let output = &self.model.outputs[wanted.output];
        let form = if wanted.binary { Form::Binary } else { Form::Json };
        let mut values = Vec::new();
        let Told { datatype, shape } = output.tell(reply, wanted.classes, form, &mut values)?;
        body.extend_from_slice(b"{\"name\":");
        text(output.name(), body);
        body.extend_from_slice(format!(",\"datatype\":\"{datatype}\",\"shape\":{}", json!(shape)).as_bytes());
        if wanted.binary {
            let size = format!(",\"parameters\":{{\"binary_data_size\":{}}}}}", values.len());
            body.extend_from_slice(size.as_bytes());
            raw.append(&mut values);
        } else {
            body.extend_from_slice(b",\"data\":");
            body.append(&mut values);
            body.push(b'}');
        }
        Ok(())
    }
}

/// What every reply begins with: the model, and the name of the request.
pub(super) fn begin(model: &Model, asked: &Asked, body: &mut Vec<u8>) {
    body.extend_from_slice(b"{\"model_name\":");
    text(model.name(), body);
    body.extend_from_slice(format!(",\"model_version\":\"{}\"", model.version()).as_bytes());
    if let Some(id) = &asked.id {
        body.extend_from_slice(b",\"id\":");
        text(id, body);
    }
}

pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    // A string into memory: neither of the two can fail.
    let _ = serde_json::to_writer(out, text);
}

/// Gives a run the time and the priority that its request asks for, which came at `since`.
pub(super) fn hasten(request: &mut RunRequest, asked: &Asked, since: Instant) {
    if let Some(until) = asked.timeout.and_then(|timeout| since.checked_add(timeout)) {
        request.deadline = Some(request.deadline.map_or(until, |deadline| deadline.min(until)));
    }
    if let Some(priority) = asked.priority {
        request.priority = priority;
    }
}

impl Protocol for Inference<'_> {
    type Message = Bytes;
    type Body = Full<Bytes>;
    type Asked = Wants;

    fn read(
        &self,
        service: &GraphService,
        _: &Headers<'_>,
        body: Bytes,
        request: &mut RunRequest,
    ) -> Result<(Brought, Wants), DecodeError> {
        let Model { inputs, outputs, counts, .. } = self.model;
        let read = counts.reading(|| match self.json_bytes(&body)? {
            Some(json) => request::read(inputs, outputs, service.decoder(), &body, json),
            None => request::read_raw(inputs, outputs, service.decoder(), &body).map(Some),
        })?;
        let Some((values, asked)) = read else {
            let (brought, id) = self.rows().read_rows(service, &body)?;
            return Ok((brought, Wants::Rows(id)));
        };
        hasten(request, &asked, self.since);
        Ok((Brought::Values(values), Wants::Tensors(asked)))
    }

    fn replied(&self, service: &GraphService, reply: &Portion, wants: Wants) -> Answer {
        let asked = match wants {
            Wants::Tensors(asked) => asked,
            Wants::Rows(id) => return self.rows().replied(service, reply, id),
        };
        let (body, header) = match self.model.counts.writing(|| self.reply(reply, &asked, None)) {
            Ok(written) => written,
            Err(error) => {
                tracing::debug!(graph = service.name(), %error, "a reply cannot be written as asked");
                return json_answer(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() }));
            }
        };
        let mut answer = Answer::new(Full::new(body));
        let headers = answer.headers_mut();
        match header {
            None => drop(headers.insert(CONTENT_TYPE, JSON)),
            Some(json) => {
                headers.insert(CONTENT_TYPE, BYTES);
                headers.insert(HEADER, json.into());
            }
        }
        answer
    }

    fn undecoded(&self, error: &DecodeError) -> Answer {
        service::unread(error, &json!({ "error": error.to_string() }))
    }

    fn failed(&self, service: &GraphService, error: &RunError) -> Answer {
        let (status, message) = service::failure(service.name(), error);
        service::failed(status, &json!({ "error": message }))
    }
}
