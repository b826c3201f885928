//! Requests whose inputs are rows in JSON: KServe's V1, MLRun's V2 and MLflow's scoring, which SageMaker's containers speak too.
//!
//! They differ in the names of things. What they call inputs becomes an array of objects, as the graph's own protocol has it, and
//! what they call predictions is one value per row: that of the only output, or an object.

mod request;
mod routes;

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use millstream_graph::{Request as RunRequest, suggest};
use millstream_runtime::{Portion, RunError};
use serde_json::{Value, json};

use super::{
    models::Model,
    named::{self, OPERATIONS},
    request::malformed,
};
use crate::{
    service::{self, Answer, Asked as Headers, Brought, GraphService, JSON, Protocol, json_answer, written},
    wire::{DecodeError, Form, json::ValueWriter},
};
pub(super) use routes::{inferred, only, routes};

/// How a client puts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `instances` in, `predictions` or `explanations` out.
    V1,
    /// `inputs` in, `outputs` out, with names around them.
    MlRun,
    /// Data frames, `instances` or `inputs` in, `predictions` out.
    Scoring,
}

/// Requests to one model, and its replies.
pub(super) struct Rows<'m> {
    pub(super) model: &'m Model,
    pub(super) dialect: Dialect,
    /// Whether the rows come to the model's explainer.
    pub(super) explains: bool,
}

impl Rows<'_> {
    /// The rows of a body, and the name that it has in it.
    pub(super) fn read_rows(
        &self,
        service: &GraphService,
        body: &[u8],
    ) -> Result<(Brought, Option<Value>), DecodeError> {
        let columns = service.engine().plan().input_schema().fields();
        let read = request::read(self.dialect, columns, body)?;
        read.operation.map_or(Ok(()), |operation| self.check(&operation))?;
        let (values, _) = service.decoder().read(&read.rows)?;
        Ok((Brought::Values(values), read.id))
    }

    /// Whether this is what a body asks for that says what is to be done.
    fn check(&self, operation: &str) -> Result<(), DecodeError> {
        let explain = operation == "explain";
        if !OPERATIONS.contains(&operation) {
            let known = suggest::unknown("operation", operation, OPERATIONS);
            Err(malformed(format!("`operation`: {known}")))
        } else if explain == self.explains {
            Ok(())
        } else if explain && self.model.explainer().is_none() {
            Err(malformed(format!("`operation`: {}", named::no_explainer(self.model))))
        } else {
            Err(malformed(format!("`operation`: the path asks for something else than `{operation}`")))
        }
    }

    fn reply(&self, service: &GraphService, reply: &Portion, id: Option<&Value>) -> Result<Bytes, String> {
        written(|body| {
            if self.dialect == Dialect::MlRun {
                let id = id.cloned().unwrap_or_else(|| reply.run().to_string().into());
                let (name, version) = (self.model.name(), self.model.version());
                let mut head = json!({ "id": id, "model_name": name, "model_version": version });
                if !self.explains {
                    let at = chrono::Utc::now().format("%Y-%m-%d %H:%M:%S%.6f%:z").to_string();
                    head["timestamp"] = at.into();
                }
                body.extend_from_slice(head.to_string().trim_end_matches('}').as_bytes());
                body.extend_from_slice(b",\"outputs\":");
            } else if self.explains {
                body.extend_from_slice(b"{\"explanations\":");
            } else {
                body.extend_from_slice(b"{\"predictions\":");
            }
            predictions(service, reply, body)?;
            body.push(b'}');
            Ok(())
        })
    }
}

/// One value per row: that of the only column, or an object.
fn predictions(service: &GraphService, reply: &Portion, body: &mut Vec<u8>) -> Result<(), String> {
    let rows = reply.reply().rows();
    let schema = rows.schema();
    let [field] = &schema.fields()[..] else {
        let encoder = service.encoder();
        return encoder
            .encode_rows(rows, reply.range(), Form::Array, body)
            .map_err(|error| error.to_string());
    };
    let writer = ValueWriter::new(field).map_err(|error| error.to_string())?;
    body.push(b'[');
    for row in reply.range() {
        if row > reply.range().start {
            body.push(b',');
        }
        writer.write(rows.column(0).as_ref(), row, body);
    }
    body.push(b']');
    Ok(())
}

impl Protocol for Rows<'_> {
    type Message = Bytes;
    /// The name that the request has in its body.
    type Asked = Option<Value>;
    type Body = Full<Bytes>;

    fn read(
        &self,
        service: &GraphService,
        _: &Headers<'_>,
        body: Bytes,
        _: &mut RunRequest,
    ) -> Result<(Brought, Option<Value>), DecodeError> {
        // What its explainer is asked is no request to the model.
        if self.explains {
            return self.read_rows(service, &body);
        }
        self.model.counts.reading(|| self.read_rows(service, &body))
    }

    fn replied(&self, service: &GraphService, reply: &Portion, id: Option<Value>) -> Answer {
        let write = || self.reply(service, reply, id.as_ref());
        let written = if self.explains { write() } else { self.model.counts.writing(write) };
        match written {
            Ok(body) => {
                let mut answer = Response::new(Full::new(body));
                answer.headers_mut().insert(CONTENT_TYPE, JSON);
                answer
            }
            Err(error) => {
                tracing::error!(graph = service.name(), error, "a reply cannot be written");
                let message = json!({ "error": "the reply cannot be written" });
                json_answer(StatusCode::INTERNAL_SERVER_ERROR, &message)
            }
        }
    }

    fn undecoded(&self, error: &DecodeError) -> Answer {
        service::unread(error, &json!({ "error": error.to_string() }))
    }

    fn failed(&self, service: &GraphService, error: &RunError) -> Answer {
        let (status, message) = service::failure(service.name(), error);
        service::failed(status, &json!({ "error": message }))
    }
}
