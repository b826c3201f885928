//! The methods of the protocol.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use futures_util::{Stream, StreamExt, future, stream};
use http::{HeaderMap, Method, request::Parts};
use millstream_models::Indexed;
use prost::Message;
use serde_json::{Map, Value};
use tonic::{Extensions, Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    call::{Call, told},
    describe,
    proto::{
        InferParameter, LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse,
        ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
        ModelReadyRequest, ModelReadyResponse, ModelRepositoryParameter, ModelStatisticsRequest,
        ModelStatisticsResponse, ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse,
        RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
        RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
        ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, TraceSettingRequest,
        TraceSettingResponse,
        grpc_inference_service_server::GrpcInferenceService,
        infer_parameter::ParameterChoice,
        log_settings_request,
        log_settings_response::{SettingValue as LogValue, setting_value::ParameterChoice as LogChoice},
        model_repository_parameter::ParameterChoice as Choice,
        repository_index_response::ModelIndex,
        trace_setting_response::SettingValue as TraceValue,
    },
    streamed::Replies,
};
use crate::{
    connections::Busy,
    observe::{Observer, log},
    oip::{
        control::{self, Refusal},
        find::{self, Missing},
        models::Model,
        repository::{self, Parameter},
        routes::EXTENSIONS,
        settings,
    },
    refusals::Refused,
    security::Session,
    snapshot::{self, Shared, Snapshot},
};

/// Asks that errors end a stream as they end calls, and are not told in replies.
pub(super) const STREAM_ENDS: &str = "triton_grpc_error";
/// Says of a reply of a stream whether no other follows to its request.
pub(super) const FINAL: &str = "triton_final_response";
const STOPPING: &str = "the server is stopping";

/// What answers calls.
#[derive(Clone)]
pub(super) struct Inference {
    pub(super) shared: Arc<Shared>,
    pub(super) observer: Arc<Observer>,
}

impl Inference {
    pub(super) fn new(shared: Arc<Shared>, observer: Arc<Observer>) -> Self {
        Self { shared, observer }
    }

    fn is_ready(&self) -> bool {
        !self.shared.is_stopping()
    }

    pub(super) async fn want(
        &self,
        served: &Snapshot,
        (name, version): (&str, &str),
        headers: &mut HeaderMap,
    ) -> Result<Arc<Model>, Status> {
        find::want(served, name, given(version), headers).await.map_err(|why| self.missing(&why))
    }

    fn missing(&self, why: &Missing) -> Status {
        if let Missing::Late(text) = why {
            return Status::deadline_exceeded(text);
        }
        self.shared.refusals.count(why.code());
        match why {
            Missing::Failed(text) => Status::unavailable(text),
            _ => Status::not_found(why.message()),
        }
    }

    /// A change of what is served, or why there was none.
    fn refused(&self, refusal: &Refusal) -> Status {
        match refusal {
            Refusal::Off => {
                self.shared.refusals.count("model_control");
                Status::permission_denied(refusal.message())
            }
            Refusal::Unknown(text) => Status::not_found(text),
            Refusal::Wrong(text) => Status::invalid_argument(text),
            Refusal::Failed(text) => Status::internal(text),
        }
    }

    fn may_change(&self, extensions: &Extensions) -> Result<(), Status> {
        control::may_change(&self.shared, extensions.get()).map_err(|refusal| self.refused(&refusal))
    }

    async fn infer(
        &self,
        mut headers: HeaderMap,
        message: ModelInferRequest,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let served = self.shared.live.load_full();
        let named = (&*message.model_name, &*message.model_version);
        let model = self.want(&served, named, &mut headers).await?;
        let service = model.service().map_err(Status::unavailable)?;
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.headers) = (Method::POST, headers);
        let (call, bytes) = (Call::new(&model), message.encoded_len());
        let run = async |head: &Parts| service.answer_message(&call, head, message, bytes).await;
        let answer = pin!(self.observer.tell(model.name(), &mut head, run));
        let mut answer = served.kept(answer).await.ok_or_else(|| Status::unavailable(snapshot::CUT_OFF))?;
        self.count_refusal(&answer);
        answer.headers_mut().insert(snapshot::VERSION, served.mark.clone());
        told(answer)
    }

    /// Counts an answer that says of itself that it is a refusal.
    pub(super) fn count_refusal<T>(&self, answer: &http::Response<T>) {
        if answer.status().is_client_error()
            && let Some(Refused(reason)) = answer.extensions().get()
        {
            self.shared.refusals.count(reason);
        }
    }

    /// The reply of a stream to one request, or its end.
    pub(super) async fn stream_reply(
        self,
        headers: HeaderMap,
        session: Option<Session>,
        message: Result<ModelInferRequest, Status>,
    ) -> Result<ModelStreamInferResponse, Status> {
        let message = message?;
        let ends = headers.get(STREAM_ENDS).is_some_and(|value| value == "true");
        let id = message.id.clone();
        // A stream is no way around what a key may ask, nor around its end.
        let answer = match self.again(session.as_ref()) {
            Ok(()) => self.infer(headers, message).await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(answer) => {
                let mut reply = answer.into_inner();
                let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                reply.parameters.insert(FINAL.to_owned(), last);
                Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(reply) })
            }
            Err(status) => not_replied(status, ends, id),
        }
    }

    /// Whether whoever asked for a stream may ask within it.
    pub(super) fn again(&self, session: Option<&Session>) -> Result<(), Status> {
        session.map_or(Ok(()), Session::again).map_err(|denied| {
            self.shared.refusals.count(denied.code());
            super::refusal(&denied)
        })
    }
}

/// What is told in a stream of a request that failed, or the end of the stream.
pub(super) fn not_replied(
    status: Status,
    ends: bool,
    id: String,
) -> Result<ModelStreamInferResponse, Status> {
    if ends {
        return Err(status);
    }
    Ok(ModelStreamInferResponse {
        error_message: status.message().to_owned(),
        infer_response: Some(ModelInferResponse { id, ..ModelInferResponse::default() }),
    })
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
        let served = self.shared.live.load_full();
        let ready = find::is_ready(&served, &name, given(&version)).await;
        let ready = ready.map_err(|why| self.missing(&why))?;
        Ok(Response::new(ModelReadyResponse { ready: ready && self.is_ready() }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answered<ModelMetadataResponse> {
        let (metadata, _, ModelMetadataRequest { name, version }) = request.into_parts();
        let served = self.shared.live.load_full();
        let model = self.want(&served, (&name, &version), &mut metadata.into_headers()).await?;
        Ok(Response::new(describe::metadata(&model, find::versions(&served, &name))))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let (metadata, _, ModelConfigRequest { name, version }) = request.into_parts();
        let served = self.shared.live.load_full();
        let model = self.want(&served, (&name, &version), &mut metadata.into_headers()).await?;
        Ok(Response::new(ModelConfigResponse { config: Some(describe::config(&model)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answered<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let served = self.shared.live.load_full();
        // Whoever looks on loads nothing.
        let models = if name.is_empty() {
            find::all(&served)
        } else {
            let found = find::seen(&served, &name, given(&version)).await;
            let found = found.map_err(|why| self.missing(&why))?;
            if version.is_empty() { find::named(&served, &name) } else { vec![found] }
        };
        let model_stats = models.iter().map(|model| describe::statistics(model)).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
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
        let session = extensions.get::<Session>().cloned();
        let mut stop = self.shared.watched.stopping();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await.map(drop);
        };
        let replies =
            Replies::new(inference, headers, session, Box::pin(messages.take_until(Box::pin(stopped))));
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
        let served = self.shared.live.load_full();
        let lines = control::index(&self.shared, &served, request.get_ref().ready).await;
        let index = |line: Indexed| ModelIndex {
            name: line.name,
            version: line.version.map(|version| version.to_string()).unwrap_or_default(),
            state: line.state.to_owned(),
            reason: line.reason,
        };
        let models = lines.map_err(Status::internal)?.into_iter().map(index).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answered<RepositoryModelLoadResponse> {
        self.may_change(request.extensions())?;
        let (_, extensions, message) = request.into_parts();
        let RepositoryModelLoadRequest { repository_name, model_name, parameters } = message;
        let name = named(repository_name, model_name);
        noted(&extensions, &name);
        let parameter = |parameter: &ModelRepositoryParameter| match &parameter.parameter_choice {
            Some(Choice::StringParam(text)) => Parameter::Text(text.clone()),
            Some(Choice::BytesParam(bytes)) => Parameter::Bytes(bytes.to_vec()),
            _ => Parameter::Other,
        };
        let given = repository::given(parameters.iter().map(|(key, value)| (key.as_str(), parameter(value))));
        let served = self.shared.live.load_full();
        let done = control::load_model(&served, &name, given).await;
        done.map_err(|refusal| self.refused(&refusal))?;
        Ok(Response::new(RepositoryModelLoadResponse { model_name: name, is_loaded: true }))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answered<RepositoryModelUnloadResponse> {
        self.may_change(request.extensions())?;
        let (_, extensions, message) = request.into_parts();
        let RepositoryModelUnloadRequest { repository_name, model_name, .. } = message;
        let name = named(repository_name, model_name);
        noted(&extensions, &name);
        let served = self.shared.live.load_full();
        let done = control::unload_model(&served, &name).await;
        done.map_err(|refusal| self.refused(&refusal))?;
        Ok(Response::new(RepositoryModelUnloadResponse { model_name: name, is_unloaded: true }))
    }

    async fn trace_setting(&self, request: Request<TraceSettingRequest>) -> Answered<TraceSettingResponse> {
        let may = self.may_change(request.extensions());
        let (_, extensions, message) = request.into_parts();
        let TraceSettingRequest { settings: asked, model_name } = message;
        if !model_name.is_empty() {
            noted(&extensions, &model_name);
            let served = self.shared.live.load_full();
            find::is_ready(&served, &model_name, None).await.map_err(|why| self.missing(&why))?;
        }
        let changes = asked.into_iter().map(|(key, setting)| {
            (key, if setting.value.is_empty() { Value::Null } else { setting.value.into() })
        });
        let changes: Map<String, Value> = changes.collect();
        if !changes.is_empty() {
            may?;
            let done = control::change_trace_settings(&self.shared, &changes);
            done.map_err(|refusal| self.refused(&refusal))?;
        }
        let texts = |value: &Value| match value {
            Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            other => other.as_str().map(str::to_owned).into_iter().collect(),
        };
        let now = settings::traces(self.shared.observer());
        let now = now.as_object().into_iter().flatten();
        let settings = now.map(|(key, value)| (key.clone(), TraceValue { value: texts(value) })).collect();
        Ok(Response::new(TraceSettingResponse { settings }))
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answered<LogSettingsResponse> {
        let may = self.may_change(request.extensions());
        let asked = request.into_inner().settings.into_iter();
        let changes = asked.filter_map(|(key, setting)| {
            let value = match setting.parameter_choice? {
                log_settings_request::setting_value::ParameterChoice::BoolParam(flag) => flag.into(),
                log_settings_request::setting_value::ParameterChoice::Uint32Param(number) => number.into(),
                log_settings_request::setting_value::ParameterChoice::StringParam(text) => text.into(),
            };
            Some((key, value))
        });
        let changes: Map<String, Value> = changes.collect();
        if !changes.is_empty() {
            may?;
            let done = control::change_log_settings(&changes);
            done.map_err(|refusal| self.refused(&refusal))?;
        }
        let now = settings::log(log::settings());
        let told = |value: &Value| match value {
            Value::Bool(flag) => LogChoice::BoolParam(*flag),
            Value::Number(number) => {
                LogChoice::Uint32Param(number.as_u64().and_then(|n| n.try_into().ok()).unwrap_or(0))
            }
            other => LogChoice::StringParam(other.as_str().unwrap_or_default().to_owned()),
        };
        let value = |value: &Value| LogValue { parameter_choice: Some(told(value)) };
        let now = now.as_object().into_iter().flatten();
        let settings = now.map(|(key, setting)| (key.clone(), value(setting))).collect();
        Ok(Response::new(LogSettingsResponse { settings }))
    }
}

/// A version, where one is named.
pub(super) fn given(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

/// Tells who writes down what callers change which model this is.
fn noted(extensions: &Extensions, model: &str) {
    if let Some(session) = extensions.get::<Session>() {
        session.changes(model);
    }
}

/// The model that is meant: clients of KServe put its name where those of Triton put the repository's.
fn named(repository: String, model: String) -> String {
    if model.is_empty() { repository } else { model }
}

/// What the headers of a stream say of each of its requests. Its time is that of the whole stream, which its client keeps.
fn shared_headers(metadata: MetadataMap) -> HeaderMap {
    let mut headers = metadata.into_headers();
    headers.remove("grpc-timeout");
    headers
}
