//! One graph over HTTP: a body in, a run, a body out.

mod events;
mod gather;
mod headers;
mod own;
mod parts;
mod protocol;
mod sse;

use std::{cell::Cell, convert::Infallible, future::Future, pin::Pin, sync::Arc, task, time::Instant};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use http_body_util::Full;
use millstream_graph::{ErrorKind, Request as RunRequest, SchemaError};
use millstream_runtime::{Door, Engine, Gather, Portion, Reply, Reserved, RunError};
use serde_json::json;

use self::{events::Events, gather::Mixed, own::OwnBodies};
use crate::{
    body::{self, BodyLimits, Unread},
    describe,
    monitoring::{GraphWatch, Went},
    observe::Observed,
    refusals::Refused,
    wire::{DecodeCode, DecodeError, DecodeLimits, ipc, json as json_wire},
};
pub(crate) use headers::{Asked, may_stream, wants_arrow, wants_events};
pub(crate) use parts::Streaming;
pub(crate) use protocol::{Brought, Protocol};
use protocol::{Halted, Ran};
pub(crate) use sse::{Telling, answer_in_events, data};

/// The media type of an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
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
    /// Who is told how requests went.
    watch: Option<Arc<GraphWatch>>,
}

struct Shared {
    door: Door<Mixed>,
    encoder: json_wire::Encoder,
    limits: DecodeLimits,
    ipc: ipc::Decoder,
    description: serde_json::Value,
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
        let door = Door::new(engine, Mixed { decoder });
        let shared = Arc::new(Shared { door, encoder, limits, ipc, description });
        Ok(Self { shared, body_limits: BodyLimits::default(), watch: None })
    }

    /// The same with other limits on how fast a body must arrive.
    #[must_use]
    pub fn body_limits(mut self, limits: BodyLimits) -> Self {
        self.body_limits = limits;
        self
    }

    /// The same, of whose requests `watch` is told.
    pub(crate) fn watched_by(mut self, watch: Option<Arc<GraphWatch>>) -> Self {
        self.watch = watch;
        self
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.shared.door.engine()
    }

    /// The graph's name.
    pub(crate) fn name(&self) -> &str {
        self.engine().plan().name()
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
        let answer = match head.method {
            Method::POST => return self.answer_in(&OwnBodies, head, body).await,
            Method::GET | Method::HEAD => json_answer(StatusCode::OK, &self.shared.description),
            _ => {
                let message = json!({ "error": "a graph takes GET and POST", "code": "method_not_allowed" });
                let mut answer = json_answer(StatusCode::METHOD_NOT_ALLOWED, &message);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
                answer.extensions_mut().insert(Refused("method_not_allowed"));
                answer
            }
        };
        named(answer, Asked::of(&head.headers).id)
    }

    /// Runs the graph on the body of a request, and answers it as the protocol writes.
    pub(crate) async fn answer_in<P, B>(&self, protocol: &P, head: &Parts, body: B) -> Answer
    where
        P: Protocol<Message = Bytes, Body = Full<Bytes>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let asked = Asked::of(&head.headers);
        if let Some(mode) = asked.event {
            let events = Events { inner: protocol, mode, headers: &head.headers };
            // Boxed, so that other requests carry no room for it.
            return Box::pin(self.answer_body(&events, head, &asked, body)).await;
        }
        self.answer_body(protocol, head, &asked, body).await
    }

    async fn answer_body<P, B>(&self, protocol: &P, head: &Parts, asked: &Asked<'_>, body: B) -> Answer
    where
        P: Protocol<Message = Bytes, Body = Full<Bytes>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let most = self.shared.limits.body_bytes;
        let ran = match self.let_in(asked) {
            Err(halted) => self.told(halted.into()),
            Ok((request, mut room)) => {
                match body::read(&head.headers, body, most, self.body_limits, &mut room).await {
                    Ok(body) => {
                        let bytes = body.len();
                        self.ran(protocol, head, asked, request, (body, bytes)).await
                    }
                    Err(Unread::Refused(error)) => self.told(Err(error)),
                    Err(Unread::NoRoom) => self.told(Ok(Ran::without_rows(self.engine().no_room()))),
                }
            }
        };
        self.answered(protocol, head, asked, ran)
    }

    /// The same for what has arrived already, in so many bytes.
    pub(crate) async fn answer_message<P: Protocol>(
        &self,
        protocol: &P,
        head: &Parts,
        message: P::Message,
        bytes: usize,
    ) -> Response<P::Body> {
        let asked = Asked::of(&head.headers);
        let ran = match self.let_in(&asked) {
            Err(halted) => self.told(halted.into()),
            Ok((request, mut room)) => {
                if room.grow(bytes) {
                    self.ran(protocol, head, &asked, request, (message, bytes)).await
                } else {
                    self.told(Ok(Ran::without_rows(self.engine().no_room())))
                }
            }
        };
        self.answered(protocol, head, &asked, ran)
    }

    /// Tells who watches of a request that did not come to its run.
    fn told<A>(&self, ran: Result<Ran<A>, DecodeError>) -> Result<Ran<A>, DecodeError> {
        if let Some(watch) = &self.watch {
            let start = Instant::now();
            watch.went(&match &ran {
                Err(_) => Went::undecoded(start),
                Ok(ran) => Went::of(start, None, ran.result.as_ref().map(|(reply, _)| reply)),
            });
        }
        ran
    }

    /// What a request asks of its run, and room for what it brings, which is taken until it is dropped.
    fn let_in(&self, asked: &Asked<'_>) -> Result<(RunRequest, Reserved), Halted> {
        let request = asked.run_request().map_err(Halted::Undecoded)?;
        // Under overload, refusing must cost little: nothing is read of a body whose run would be refused.
        let room = self.engine().check_room(request.priority).and_then(|()| self.engine().reserve(0));
        Ok((request, room.map_err(Halted::Refused)?))
    }

    async fn ran<P: Protocol>(
        &self,
        protocol: &P,
        head: &Parts,
        asked: &Asked<'_>,
        mut request: RunRequest,
        (message, bytes): (P::Message, usize),
    ) -> Result<Ran<P::Asked>, DecodeError> {
        if let Some(observed) = head.extensions.get::<Arc<Observed>>() {
            observed.watch(&mut request);
        }
        let watch = self.watch.as_deref().map(|watch| (watch, Instant::now()));
        let undecoded = |_: &DecodeError| {
            if let Some((watch, start)) = watch {
                watch.went(&Went::undecoded(start));
            }
        };
        let read = protocol.read(self, asked, message, &mut request).inspect_err(undecoded);
        let (brought, asked) = read?;
        let id = watch.and_then(|_| request.id.clone());
        let ran = self.run(request, brought, bytes).await.inspect_err(undecoded);
        let (rows, result) = ran?;
        if let Some((watch, start)) = watch {
            watch.went(&Went::of(start, id.as_deref(), result.as_ref()));
        }
        Ok(Ran { rows, result: result.map(|reply| (reply, asked)) })
    }

    fn answered<P: Protocol>(
        &self,
        protocol: &P,
        head: &Parts,
        asked: &Asked<'_>,
        ran: Result<Ran<P::Asked>, DecodeError>,
    ) -> Response<P::Body> {
        if let Some(observed) = head.extensions.get::<Arc<Observed>>() {
            match &ran {
                Err(error) => observed.refused(error),
                Ok(ran) => observed.ran(ran.rows, ran.result.as_ref().map(|(reply, _)| reply)),
            }
        }
        let answer = match ran {
            Err(error) => protocol.undecoded(&error),
            Ok(Ran { result: Ok((reply, asked)), .. }) => {
                with_degraded(protocol.replied(self, &reply, asked), reply.reply())
            }
            Ok(Ran { result: Err(error), .. }) => protocol.failed(self, &error),
        };
        named(answer, asked.id)
    }

    /// Runs the rows of a body of so many bytes. Answers how many they are, too.
    async fn run(
        &self,
        request: RunRequest,
        brought: Brought,
        bytes: usize,
    ) -> Result<(usize, Result<Portion, RunError>), DecodeError> {
        let door = &self.shared.door;
        let batch = match brought {
            Brought::Values(values) if bytes <= SHARED_BYTES => {
                let rows = self.decoder().rows(&values);
                return Ok((rows, door.run(request, Brought::Values(values)).await));
            }
            Brought::Values(values) => self.decoder().assembled(values)?,
            Brought::Rows(batch) => batch,
        };
        let rows = batch.num_rows();
        Ok((rows, self.engine().try_run(request, batch).await.map(Portion::from)))
    }

    /// What writes rows of replies.
    pub(crate) fn encoder(&self) -> &json_wire::Encoder {
        &self.shared.encoder
    }

    /// What reads values into rows of the graph.
    pub(crate) fn decoder(&self) -> &json_wire::Decoder {
        &self.shared.door.gather().decoder
    }
}

/// The same answer under the name that its caller gave the request.
fn named<T>(mut answer: Response<T>, id: Option<&HeaderValue>) -> Response<T> {
    if let Some(id) = id {
        answer.headers_mut().insert(REQUEST_ID, id.clone());
    }
    answer
}

/// The same answer, which says what is not as it should have been.
fn with_degraded<T>(mut answer: Response<T>, reply: &Reply) -> Response<T> {
    let steps: Vec<&str> = reply.degraded().iter().map(|degraded| &*degraded.step).collect();
    if !steps.is_empty()
        && let Ok(steps) = HeaderValue::from_str(&steps.join(", "))
    {
        answer.headers_mut().insert("x-millstream-degraded", steps);
    }
    answer
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
    unread(
        error,
        &json!({
            "error": error.to_string(),
            "code": error.code.name(),
            "field": error.field,
            "row": error.row,
        }),
    )
}

/// A message about a body that cannot be read, with the status and the headers that go with it.
pub(crate) fn unread(error: &DecodeError, message: &serde_json::Value) -> Answer {
    let mut answer = json_answer(unread_status(error), message);
    answer.extensions_mut().insert(Refused(error.code.name()));
    if error.code == DecodeCode::UnknownEncoding {
        answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(body::ENCODINGS));
    }
    answer
}

/// The status of an answer to what cannot be read.
pub(crate) fn unread_status(error: &DecodeError) -> StatusCode {
    match error.code {
        DecodeCode::TooLarge | DecodeCode::TooManyRows => StatusCode::PAYLOAD_TOO_LARGE,
        DecodeCode::TooSlow => StatusCode::REQUEST_TIMEOUT,
        DecodeCode::UnknownEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        DecodeCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The status of a failed run, and what its caller can act on. What went wrong inside is for the log, where this puts it.
pub(crate) fn failure(graph: &str, error: &RunError) -> (StatusCode, String) {
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
    (status, message)
}

/// A message about a failed run. One that may succeed later says when to ask again.
pub(crate) fn failed(status: StatusCode, message: &serde_json::Value) -> Answer {
    let mut answer = json_answer(status, message);
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
