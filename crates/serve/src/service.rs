//! One graph over HTTP: a body in, a run, a body out.

use std::{cell::Cell, convert::Infallible, future::Future, pin::Pin, sync::Arc, task, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use http_body_util::Full;
use millstream_graph::{ErrorKind, Priority, Request as RunRequest, SchemaError};
use millstream_runtime::{Door, Engine, Gather, Portion, RunError};
use serde_json::json;

use crate::{
    body::{self, BodyLimits, Unread},
    deadline, describe,
    observe::Observed,
    refusals::Refused,
    wire::{DecodeCode, DecodeError, DecodeLimits, Form, ipc, json as json_wire},
};

/// The media type of an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
/// How much a request matters, when not everybody can be served.
const PRIORITY: &str = "x-request-priority";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// How an Arrow IPC stream begins, and no JSON text can.
pub(crate) const ARROW_START: [u8; 4] = [0xff; 4];
/// A body of more bytes has its run to itself: what it costs would hold up those that share it.
const SHARED_BYTES: usize = 16 << 10;

/// A graph, ready to be served: a `tower::Service`, or a router by [`GraphService::router`].
///
/// `POST` runs the graph on one JSON object, an array of objects or an Arrow IPC stream, and answers in the same form,
/// or in the one that `Accept` names. `GET` describes the graph. Cheap to clone.
#[derive(Clone)]
pub struct GraphService {
    shared: Arc<Shared>,
    body_limits: BodyLimits,
}

struct Shared {
    door: Door<json_wire::Decoder>,
    encoder: json_wire::Encoder,
    limits: DecodeLimits,
    ipc: ipc::Decoder,
    description: serde_json::Value,
}

/// What became of a run, and the form of its reply.
struct Ran {
    /// Rows of the request.
    rows: usize,
    result: Result<Portion, RunError>,
    form: Form,
    /// Whether the body was an Arrow stream.
    arrow: bool,
}

impl Ran {
    /// What did not come to its body.
    fn without_rows(error: RunError) -> Self {
        Self { rows: 0, result: Err(error), form: Form::Array, arrow: false }
    }
}

/// What a request is answered with.
pub type Answer = Response<Full<Bytes>>;

impl GraphService {
    /// Serves an engine.
    ///
    /// # Errors
    /// When the graph's input or reply has a column that JSON cannot carry.
    pub fn new(engine: Engine, limits: DecodeLimits) -> Result<Self, SchemaError> {
        let plan = engine.plan();
        let decoder = json_wire::Decoder::new(Arc::clone(plan.input_schema()), limits)?;
        let decoder = decoder.carrying(plan.carried_schema());
        let encoder = json_wire::Encoder::new(Arc::clone(plan.reply_schema()))?;
        let ipc = ipc::Decoder::new(Arc::clone(plan.input_schema()), limits)?;
        let description = describe::graph(plan);
        let door = Door::new(engine, decoder);
        let shared = Arc::new(Shared { door, encoder, limits, ipc, description });
        Ok(Self { shared, body_limits: BodyLimits::default() })
    }

    /// The same with other limits on how fast a body must arrive.
    #[must_use]
    pub fn body_limits(mut self, limits: BodyLimits) -> Self {
        self.body_limits = limits;
        self
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.shared.door.engine()
    }

    /// Requests that wait for the run that they share to start, now.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.shared.door.waiting_requests()
    }

    /// A router that serves the graph at `/`, to nest into an application's own.
    pub fn router(&self) -> axum::Router {
        axum::Router::new().route_service("/", self.clone())
    }

    /// What `GET` answers: schemas, explain and diagram.
    pub fn description(&self) -> &serde_json::Value {
        &self.shared.description
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let (head, body) = request.into_parts();
        self.answer_parts(&head, body).await
    }

    /// Answers one request, which was taken apart.
    pub(crate) async fn answer_parts<B>(&self, head: &Parts, body: B) -> Answer
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let asked = Asked::of(&head.headers);
        let mut answer = self.answer_to(head, &asked, body).await;
        if let Some(id) = asked.id {
            answer.headers_mut().insert(REQUEST_ID, id.clone());
        }
        answer
    }

    async fn answer_to<B>(&self, head: &Parts, asked: &Asked<'_>, body: B) -> Answer
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        match head.method {
            Method::POST => {}
            Method::GET | Method::HEAD => return json_answer(StatusCode::OK, &self.shared.description),
            _ => {
                let message = json!({ "error": "a graph takes GET and POST", "code": "method_not_allowed" });
                let mut answer = json_answer(StatusCode::METHOD_NOT_ALLOWED, &message);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
                answer.extensions_mut().insert(Refused("method_not_allowed"));
                return answer;
            }
        }
        let ran = self.ran(head, asked, body).await;
        if let Some(observed) = head.extensions.get::<Arc<Observed>>() {
            match &ran {
                Err(error) => observed.refused(error),
                Ok(ran) => observed.ran(ran.rows, &ran.result),
            }
        }
        match ran {
            Err(error) => undecoded(&error),
            Ok(Ran { result: Ok(reply), form, arrow, .. }) => {
                self.replied(&reply, form, asked.wants_arrow(arrow))
            }
            Ok(Ran { result: Err(error), .. }) => failed(self.engine().plan().name(), &error),
        }
    }

    async fn ran<B>(&self, head: &Parts, asked: &Asked<'_>, body: B) -> Result<Ran, DecodeError>
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let mut request = asked.run_request()?;
        // Under overload, refusing must cost little: nothing is read of a body whose run would be refused.
        let room = self.engine().check_room(request.priority).and_then(|()| self.engine().reserve(0));
        let mut room = match room {
            Ok(room) => room,
            Err(error) => return Ok(Ran::without_rows(error)),
        };
        let most = self.shared.limits.body_bytes;
        // The room is taken until the run has ended.
        let body = match body::read(&head.headers, body, most, self.body_limits, &mut room).await {
            Ok(body) => body,
            Err(Unread::Refused(error)) => return Err(error),
            Err(Unread::NoRoom) => return Ok(Ran::without_rows(self.engine().no_room())),
        };
        if let Some(observed) = head.extensions.get::<Arc<Observed>>() {
            observed.watch(&mut request);
        }
        if body.starts_with(&ARROW_START) {
            return self.run_arrow(request, body).await;
        }
        self.run_json(request, &body).await
    }

    async fn run_arrow(&self, request: RunRequest, body: Bytes) -> Result<Ran, DecodeError> {
        let batch = self.shared.ipc.decode(body)?;
        let rows = batch.num_rows();
        let result = self.engine().try_run(request, batch).await.map(Portion::from);
        Ok(Ran { rows, result, form: Form::Array, arrow: true })
    }

    async fn run_json(&self, request: RunRequest, body: &[u8]) -> Result<Ran, DecodeError> {
        let door = &self.shared.door;
        if body.len() > SHARED_BYTES {
            let decoded = door.gather().decode(body)?;
            let rows = decoded.batch.num_rows();
            let result = self.engine().try_run(request, decoded.batch).await.map(Portion::from);
            return Ok(Ran { rows, result, form: decoded.form, arrow: false });
        }
        let (body, form) = door.gather().read(body)?;
        let rows = door.gather().rows(&body);
        Ok(Ran { rows, result: door.run(request, body).await, form, arrow: false })
    }

    fn replied(&self, reply: &Portion, form: Form, arrow: bool) -> Answer {
        let degraded = reply.reply().degraded();
        // A graph that makes several rows of one has more to say than one object can.
        let form = if reply.range().len() > 1 { Form::Array } else { form };
        let encoded = if arrow {
            ipc::encode(&reply.rows()).map(Bytes::from).map_err(|error| error.to_string())
        } else {
            let (encoder, rows) = (&self.shared.encoder, reply.reply().rows());
            let encoded = written(|body| encoder.encode_rows(rows, reply.range(), form, body));
            encoded.map_err(|error| error.to_string())
        };
        let body = match encoded {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(graph = self.engine().plan().name(), %error, "a reply cannot be written");
                let message =
                    json!({ "error": "the reply cannot be written", "code": ErrorKind::Internal.name() });
                return json_answer(StatusCode::INTERNAL_SERVER_ERROR, &message);
            }
        };
        let mut answer = Response::new(Full::new(body));
        let media = if arrow { HeaderValue::from_static(ARROW_STREAM) } else { JSON };
        answer.headers_mut().insert(CONTENT_TYPE, media);
        if !degraded.is_empty() {
            let steps: Vec<&str> = degraded.iter().map(|degraded| &*degraded.step).collect();
            if let Ok(steps) = HeaderValue::from_str(&steps.join(", ")) {
                answer.headers_mut().insert("x-millstream-degraded", steps);
            }
        }
        answer
    }
}

/// What the headers of a request say, found in one pass: a look-up by name costs more than to go past all that a request has.
#[derive(Default)]
struct Asked<'h> {
    id: Option<&'h HeaderValue>,
    trace: Option<&'h HeaderValue>,
    priority: Option<&'h HeaderValue>,
    accept: Option<&'h HeaderValue>,
    /// The shortest that any header gives, or what a header must be that is not.
    deadline: Option<Result<Duration, String>>,
}

impl<'h> Asked<'h> {
    /// Of headers that may stand only once, the first counts.
    fn of(headers: &'h HeaderMap) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers {
            let first = match name.as_str() {
                "x-request-id" => &mut asked.id,
                "traceparent" => &mut asked.trace,
                PRIORITY => &mut asked.priority,
                "accept" => &mut asked.accept,
                name => {
                    if let Some(given) = deadline::given(name, value) {
                        asked.deadline = Some(deadline::shorter(asked.deadline.take(), given));
                    }
                    continue;
                }
            };
            first.get_or_insert(value);
        }
        asked
    }

    /// The run's name, deadline, priority and trace.
    fn run_request(&self) -> Result<RunRequest, DecodeError> {
        let malformed = |message| DecodeError::new(DecodeCode::Malformed, message);
        let text = |value: Option<&HeaderValue>| {
            let text = value.and_then(|value| value.to_str().ok());
            text.filter(|text| text.len() <= 256).map(Arc::from)
        };
        let mut request = RunRequest { id: text(self.id), trace: text(self.trace), ..RunRequest::default() };
        if let Some(name) = self.priority {
            let named = name.to_str().ok().and_then(|name| Priority::named(name.trim()));
            request.priority = named.ok_or_else(|| {
                let names = Priority::ALL.map(Priority::name).join(", ");
                malformed(format!("header `{PRIORITY}` is one of {names}"))
            })?;
        }
        if let Some(limit) = &self.deadline {
            let limit = limit.as_ref().map_err(|message| malformed(message.clone()))?;
            request.deadline = tokio::time::Instant::now().into_std().checked_add(*limit);
        }
        Ok(request)
    }

    fn wants_arrow(&self, request_was_arrow: bool) -> bool {
        wants_arrow(self.accept, request_was_arrow)
    }
}

/// Whether a reply is an Arrow stream: as the header `Accept` says, else as the request was.
pub(crate) fn wants_arrow(accept: Option<&HeaderValue>, request_was_arrow: bool) -> bool {
    match accept.and_then(|accept| accept.to_str().ok()) {
        Some(accept) if accept.contains(ARROW_STREAM) => true,
        Some(accept) if accept.contains("application/json") => false,
        _ => request_was_arrow,
    }
}

/// A longer reply keeps the buffer that it was written into, which spares it a copy.
const COPIED: usize = 16 << 10;

/// What `write` writes. The buffer is the thread's, so that a reply costs one allocation, of its size.
pub(crate) fn written<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Bytes, E> {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    buffer.clear();
    write(&mut buffer)?;
    if buffer.len() > COPIED {
        return Ok(Bytes::from(buffer));
    }
    let reply = Bytes::copy_from_slice(&buffer);
    BUFFER.set(buffer);
    Ok(reply)
}

/// What a body that cannot be read is answered with.
pub(crate) fn undecoded(error: &DecodeError) -> Answer {
    let status = match error.code {
        DecodeCode::TooLarge | DecodeCode::TooManyRows => StatusCode::PAYLOAD_TOO_LARGE,
        DecodeCode::TooSlow => StatusCode::REQUEST_TIMEOUT,
        DecodeCode::UnknownEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        DecodeCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let message = json!({
        "error": error.to_string(),
        "code": error.code.name(),
        "field": error.field,
        "row": error.row,
    });
    let mut answer = json_answer(status, &message);
    answer.extensions_mut().insert(Refused(error.code.name()));
    if error.code == DecodeCode::UnknownEncoding {
        answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(body::ENCODINGS));
    }
    answer
}

/// What a failed run is answered with. What went wrong inside is for the log; the caller learns what it can act on.
fn failed(graph: &str, error: &RunError) -> Answer {
    let (status, ours) = match error.kind() {
        ErrorKind::Rows => (StatusCode::BAD_REQUEST, false),
        ErrorKind::Overloaded => (StatusCode::TOO_MANY_REQUESTS, false),
        ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, false),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, true),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, true),
    };
    if ours {
        tracing::error!(graph, %error, "a run failed");
    }
    let message = match (error, ours) {
        (RunError::Failed { run, step, .. }, true) => format!("step `{step}` failed in run {run}"),
        _ => error.to_string(),
    };
    let message = json!({ "error": message, "code": error.kind().name(), "step": error.step() });
    let mut answer = json_answer(status, &message);
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// An answer of one JSON value.
pub(crate) fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

impl<B> tower::Service<Request<B>> for GraphService
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_what_was_written_for_it_and_nothing_of_those_before() {
        let say = |text: &'static str, times: usize| {
            move |body: &mut Vec<u8>| {
                body.extend_from_slice(text.repeat(times).as_bytes());
                if text == "bad" { Err(()) } else { Ok(()) }
            }
        };
        for (text, times) in [("abc", 2), ("x", COPIED + 1), ("bad", 3), ("d", 1), ("y", COPIED), ("", 0)] {
            let expected = if text == "bad" { Err(()) } else { Ok(Bytes::from(text.repeat(times))) };
            assert_eq!(written(say(text, times)), expected, "{text}");
        }
    }
}
