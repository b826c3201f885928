//! One request to infer over gRPC: a message of tensors in, a run, a message of tensors out.

use std::time::Instant;

use http::{Response, StatusCode};
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Portion, RunError};
use tonic::{Code, Status, metadata::MetadataMap};

use super::{
    proto::{ModelInferRequest, ModelInferResponse, model_infer_response::InferOutputTensor},
    request,
};
use crate::{
    oip::{inference::hasten, models::Model, request::Asked, values::Form},
    refusals::Refused,
    service::{self, Asked as Headers, Brought, GraphService, Protocol},
    wire::DecodeError,
};

/// What a call is answered with, or why it is not.
pub(super) type Outcome = Result<ModelInferResponse, String>;

/// Requests to one model, and its replies.
pub(super) struct Call<'m> {
    model: &'m Model,
    /// When the request came; its time begins then.
    since: Instant,
}

impl<'m> Call<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self { model, since: tokio::time::Instant::now().into_std() }
    }

    pub(super) fn reply(&self, reply: &Portion, asked: Asked) -> Result<ModelInferResponse, DecodeError> {
        let mut message = ModelInferResponse {
            model_name: self.model.name().to_owned(),
            model_version: self.model.version().to_owned(),
            id: asked.id.unwrap_or_default(),
            ..ModelInferResponse::default()
        };
        for wanted in asked.outputs {
            let output = &self.model.outputs[wanted.output];
            let mut values = Vec::new();
            let told = output.tell(reply, wanted.classes, Form::Binary, &mut values)?;
            message.outputs.push(InferOutputTensor {
                name: output.name().to_owned(),
                datatype: told.datatype.to_owned(),
                shape: told.shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
                ..InferOutputTensor::default()
            });
            message.raw_output_contents.push(values.into());
        }
        Ok(message)
    }
}

impl Protocol for Call<'_> {
    type Message = ModelInferRequest;
    type Asked = Asked;
    type Body = Outcome;

    fn read(
        &self,
        service: &GraphService,
        _: &Headers<'_>,
        message: ModelInferRequest,
        request: &mut RunRequest,
    ) -> Result<(Brought, Asked), DecodeError> {
        let Model { inputs, outputs, counts, .. } = self.model;
        let read = || request::read(inputs, outputs, service.decoder(), &message);
        let (values, asked) = counts.reading(read)?;
        hasten(request, &asked, self.since);
        Ok((Brought::Values(values), asked))
    }

    fn replied(&self, service: &GraphService, reply: &Portion, asked: Asked) -> Response<Outcome> {
        match self.model.counts.writing(|| self.reply(reply, asked)) {
            Ok(message) => Response::new(Ok(message)),
            Err(error) => {
                tracing::debug!(graph = service.name(), %error, "a reply cannot be written as asked");
                refused(StatusCode::BAD_REQUEST, error.to_string())
            }
        }
    }

    fn undecoded(&self, error: &DecodeError) -> Response<Outcome> {
        let mut answer = refused(service::unread_status(error), error.to_string());
        answer.extensions_mut().insert(Refused(error.code.name()));
        answer
    }

    fn failed(&self, service: &GraphService, error: &RunError) -> Response<Outcome> {
        let (status, message) = service::failure(service.name(), error);
        refused(status, message)
    }
}

fn refused(status: StatusCode, message: String) -> Response<Outcome> {
    let mut answer = Response::new(Err(message));
    *answer.status_mut() = status;
    answer
}

/// The same answer as gRPC has it.
pub(super) fn told(answer: Response<Outcome>) -> Result<tonic::Response<ModelInferResponse>, Status> {
    let (head, outcome) = answer.into_parts();
    let metadata = MetadataMap::from_headers(head.headers);
    match outcome {
        Ok(message) => Ok(tonic::Response::from_parts(metadata, message, tonic::Extensions::default())),
        Err(message) => Err(Status::with_metadata(code(head.status), message, metadata)),
    }
}

/// The code of a status of HTTP.
pub(super) fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        // Clients ask again what is unavailable, at once and several times: that is no answer to too many requests.
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::Unimplemented,
        status if status.is_server_error() => Code::Internal,
        _ => Code::InvalidArgument,
    }
}
