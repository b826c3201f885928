//! The methods of the protocol.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use futures_util::{Stream, StreamExt, future, stream};
use http::{HeaderMap, Method, request::Parts};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    call::{Call, told},
    describe,
    proto::{
        InferParameter, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
        ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
        ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveRequest,
        ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
        ServerReadyResponse, grpc_inference_service_server::GrpcInferenceService,
        infer_parameter::ParameterChoice, repository_index_response::ModelIndex,
    },
};
use crate::{
    connections::Busy,
    observe::Observer,
    oip::{
        models::{Model, VERSION},
        routes::{EXTENSIONS, find},
    },
    refusals::Refused,
    snapshot::{self, Shared, Snapshot},
};

/// Requests of one stream that are under way at once.
const STREAM_REQUESTS: usize = 32;
/// Asks that errors end a stream as they end calls, and are not told in replies.
const STREAM_ENDS: &str = "triton_grpc_error";
/// Says of a reply of a stream that no other follows to its request.
const FINAL: &str = "triton_final_response";
const STOPPING: &str = "the server is stopping";

/// What answers calls.
#[derive(Clone)]
pub(super) struct Inference {
    shared: Arc<Shared>,
    observer: Arc<Observer>,
}

impl Inference {
    pub(super) fn new(shared: Arc<Shared>, observer: Arc<Observer>) -> Self {
        Self { shared, observer }
    }

    fn is_ready(&self) -> bool {
        !self.shared.is_stopping()
    }

    /// What `tell` says of a model.
    fn of_model<T>(
        &self,
        name: &str,
        version: &str,
        tell: impl FnOnce(&Model) -> T,
    ) -> Result<Response<T>, Status> {
        let served = self.shared.live.load();
        self.find(&served, name, version).map(|model| Response::new(tell(model)))
    }

    fn find<'s>(&self, served: &'s Snapshot, name: &str, version: &str) -> Result<&'s Arc<Model>, Status> {
        find(served, name, Some(version).filter(|version| !version.is_empty())).map_err(|(code, message)| {
            self.shared.refusals.count(code);
            Status::not_found(message)
        })
    }

    async fn infer(
        &self,
        headers: HeaderMap,
        message: ModelInferRequest,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let served = self.shared.live.load_full();
        let model = self.find(&served, &message.model_name, &message.model_version)?;
        let service = model.service().map_err(Status::unavailable)?;
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.headers) = (Method::POST, headers);
        let (call, bytes) = (Call::new(model), message.encoded_len());
        let run = async |head: &Parts| service.answer_message(&call, head, message, bytes).await;
        let answer = pin!(self.observer.tell(model.name(), &mut head, run));
        let mut answer = served.kept(answer).await.ok_or_else(|| Status::unavailable(snapshot::CUT_OFF))?;
        if answer.status().is_client_error()
            && let Some(Refused(reason)) = answer.extensions().get()
        {
            self.shared.refusals.count(reason);
        }
        answer.headers_mut().insert(snapshot::VERSION, served.mark.clone());
        told(answer)
    }

    /// The reply of a stream to one request, or its end.
    async fn stream_reply(
        self,
        headers: HeaderMap,
        message: Result<ModelInferRequest, Status>,
    ) -> Result<ModelStreamInferResponse, Status> {
        let message = message?;
        let ends = headers.get(STREAM_ENDS).is_some_and(|value| value == "true");
        let id = message.id.clone();
        match self.infer(headers, message).await {
            Ok(answer) => {
                let mut reply = answer.into_inner();
                let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                reply.parameters.insert(FINAL.to_owned(), last);
                Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(reply) })
            }
            Err(status) if ends => Err(status),
            Err(status) => Ok(ModelStreamInferResponse {
                error_message: status.message().to_owned(),
                infer_response: Some(ModelInferResponse { id, ..ModelInferResponse::default() }),
            }),
        }
    }
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answered<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answered<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.is_ready() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answered<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: "millstream".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answered<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.is_ready();
        self.of_model(&name, &version, |_| ModelReadyResponse { ready })
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answered<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        self.of_model(&name, &version, describe::metadata)
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let config = |model: &Model| ModelConfigResponse { config: Some(describe::config(model)) };
        self.of_model(&name, &version, config)
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answered<ModelInferResponse> {
        let (metadata, _, message) = request.into_parts();
        self.infer(metadata.into_headers(), message).await
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        let (metadata, extensions, messages) = request.into_parts();
        let (headers, inference) = (shared_headers(metadata), self.clone());
        // A stream may rest for as long as it likes: its connection is not idle.
        let busy = extensions.get::<Busy>().map(Busy::open);
        let mut stop = self.shared.watched.stopping();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await.map(drop);
        };
        let replies = messages
            .take_until(Box::pin(stopped))
            .map(move |message| inference.clone().stream_reply(headers.clone(), message))
            .buffered(STREAM_REQUESTS);
        let shared = Arc::clone(&self.shared);
        // One that the server ends says so; one that its client ends needs no word.
        let end = stream::once(async move { shared.is_stopping() })
            .filter_map(|stopping| future::ready(stopping.then(|| Err(Status::unavailable(STOPPING)))));
        let replies = replies.chain(end).map(move |reply| {
            let _ = &busy;
            reply
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answered<RepositoryIndexResponse> {
        let (served, ready) = (self.shared.live.load(), self.is_ready());
        let state = if ready { "READY" } else { "UNAVAILABLE" };
        let listed = served.models.iter().filter(|_| ready || !request.get_ref().ready);
        let index = |model: &Arc<Model>| ModelIndex {
            name: model.name().to_owned(),
            version: VERSION.to_owned(),
            state: state.to_owned(),
            reason: String::new(),
        };
        Ok(Response::new(RepositoryIndexResponse { models: listed.map(index).collect() }))
    }
}

/// What the headers of a stream say of each of its requests. Its time is that of the whole stream, which its client keeps.
fn shared_headers(metadata: MetadataMap) -> HeaderMap {
    let mut headers = metadata.into_headers();
    headers.remove("grpc-timeout");
    headers
}
