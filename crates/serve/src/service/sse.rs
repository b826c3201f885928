//! Parts of a reply as server-sent events, over any protocol that has text for them.

use std::{convert::Infallible, pin::pin, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use millstream_graph::ErrorKind;
use millstream_runtime::{Part, RunError};
use serde_json::Value;

use super::{
    Asked, EVENT_STREAM, GraphService, Streaming, failure, json_answer, named,
    own::{OwnBodies, OwnEvents},
    parts::Begun,
    with_degraded,
};
use crate::{
    connections::Busy,
    http::refused,
    observe::Observer,
    snapshot::{CUT_OFF, Snapshot},
};

/// Asks proxies such as nginx to hand on each part at once, and not to gather them.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How the parts of a reply are told in events.
pub(crate) trait Telling: Send + 'static {
    /// What of a request its parts follow.
    type Asked: Send + 'static;

    /// Appends the events of a part.
    ///
    /// # Errors
    /// With the status and the message of an answer, when the part cannot be written.
    fn part(
        &mut self,
        streaming: &Streaming<Self::Asked>,
        part: &Part,
        out: &mut Vec<u8>,
    ) -> Result<(), (StatusCode, Value)>;

    /// What is said of a failure: its text, its code, and the step that failed.
    fn message(&self, text: &str, code: &str, step: Option<&str>) -> Value;

    /// Appends the event of a failure, behind which nothing comes.
    fn failed(&self, message: &Value, out: &mut Vec<u8>);

    /// Appends what follows the last part, of so many.
    fn end(&self, parts: usize, out: &mut Vec<u8>);
}

/// Appends an event, of this name if it has one.
pub(crate) fn data(name: Option<&str>, json: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    // Between the values of JSON, which free-form columns have as it came, a line feed says no more than a space; within them it
    // is written as two characters.
    out.extend(json.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}

/// The answer that tells a reply part by part, under the version of the project that it began with.
pub(crate) fn answer_in_events<T: Telling>(
    telling: T,
    (streaming, first): Begun<T::Asked>,
    served: &Arc<Snapshot>,
    head: &Parts,
) -> Response<Body> {
    let (busy, id) = (head.extensions.get::<Busy>().cloned(), Asked::of(&head.headers).id);
    let mut told = Told { telling, streaming, served: Arc::clone(served), first: None, ended: false, busy };
    let mut out = Vec::new();
    // Before anything is said, what fails is an ordinary answer.
    if let Err((status, message)) = told.tell(&first, &mut out) {
        return named(json_answer(status, &message), id).map(Body::new);
    }
    told.first = Some(out.into());
    let events = unfold(told, |mut told| async move {
        let events = told.next().await?;
        Some((Ok::<_, Infallible>(events), told))
    });
    let mut answer = Response::new(Body::from_stream(events));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    named(with_degraded(answer, first.portion().reply()), id)
}

/// An answer under way. The next part runs when the connection has room for it, and not before.
struct Told<T: Telling> {
    telling: T,
    streaming: Streaming<T::Asked>,
    served: Arc<Snapshot>,
    /// What was written before the answer began.
    first: Option<Bytes>,
    ended: bool,
    /// The connection is busy while a part runs. A client that takes none is let go as any other.
    busy: Option<Busy>,
}

impl<T: Telling> Told<T> {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.ended {
            return None;
        }
        let next = {
            let _open = self.busy.as_ref().map(Busy::open);
            let next = pin!(self.streaming.next());
            self.served.kept(next).await
        };
        let mut out = Vec::new();
        let failed = match next {
            Some(None) => return None,
            Some(Some(Ok(part))) => self.tell(&part, &mut out).err().map(|(_, message)| message),
            Some(Some(Err(error))) => Some(self.failure(&error)),
            None => Some(self.telling.message(CUT_OFF, ErrorKind::Unavailable.name(), None)),
        };
        if let Some(message) = failed {
            self.ended = true;
            self.telling.failed(&message, &mut out);
        }
        Some(out.into())
    }

    fn tell(&mut self, part: &Part, out: &mut Vec<u8>) -> Result<(), (StatusCode, Value)> {
        let written = out.len();
        if let Err(problem) = self.telling.part(&self.streaming, part, out) {
            out.truncate(written);
            return Err(problem);
        }
        if part.is_last() {
            self.ended = true;
            self.telling.end(part.number() + 1, out);
        }
        Ok(())
    }

    fn failure(&self, error: &RunError) -> Value {
        let (_, message) = failure(self.streaming.service().name(), error);
        self.telling.message(&message, error.kind().name(), error.step())
    }
}

impl GraphService {
    /// Answers a request part by part, in the graph's own protocol.
    pub(crate) async fn answer_events(
        &self,
        served: &Arc<Snapshot>,
        observer: &Observer,
        request: Request<Body>,
    ) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let answer = async |head: &Parts| {
            if Asked::of(&head.headers).event.is_some() {
                let message = "an event is answered by an event; leave text/event-stream out of `Accept`";
                return refused(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message).map(Body::new);
            }
            match self.stream_body(&OwnBodies, head, body).await {
                Ok(begun) => answer_in_events(OwnEvents::of(&begun.0), begun, served, head),
                Err(answer) => answer.map(Body::new),
            }
        };
        observer.tell(self.name(), &mut head, answer).await
    }
}
