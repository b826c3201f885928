//! What the headers of a request ask of its run.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, header::ACCEPT};
use millstream_graph::{Priority, Request as RunRequest};

use super::{ARROW_STREAM, EVENT_STREAM, events::Mode};
use crate::{
    deadline,
    wire::{DecodeCode, DecodeError},
};

/// How much a request matters, when not everybody can be served.
const PRIORITY: &str = "x-request-priority";

/// What the headers of a request say, found in one pass: a look-up by name costs more than to go past all that a request has.
#[derive(Default)]
pub(crate) struct Asked<'h> {
    pub(super) id: Option<&'h HeaderValue>,
    trace: Option<&'h HeaderValue>,
    priority: Option<&'h HeaderValue>,
    pub(super) accept: Option<&'h HeaderValue>,
    /// How the request carries a CloudEvent, if it does.
    pub(super) event: Option<Mode>,
    /// The shortest that any header gives, or what a header must be that is not.
    deadline: Option<Result<Duration, String>>,
}

impl<'h> Asked<'h> {
    /// Of headers that may stand only once, the first counts.
    pub(super) fn of(headers: &'h HeaderMap) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers {
            let first = match name.as_str() {
                "x-request-id" => &mut asked.id,
                "traceparent" => &mut asked.trace,
                PRIORITY => &mut asked.priority,
                "accept" => &mut asked.accept,
                name @ ("content-type" | "ce-specversion") => {
                    asked.event = asked.event.max(Mode::told_by(name, value));
                    continue;
                }
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
    pub(super) fn run_request(&self) -> Result<RunRequest, DecodeError> {
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
}

/// Whether a request may be answered in parts, which takes as long as it takes.
pub(crate) fn may_stream<B>(request: &Request<B>) -> bool {
    request.method() == Method::POST
        && (is_stream(request.uri().path()) || wants_events(request.headers().get(ACCEPT)))
}

/// Whether a path is one of the Open Inference Protocol for replies in parts.
fn is_stream(path: &str) -> bool {
    path.starts_with("/v2/models/") && path.trim_end_matches('/').ends_with("_stream")
}

/// Whether a reply is to come in parts, as events: of what the header `Accept` names, they are liked best, or come first of those
/// that are liked as much.
pub(crate) fn wants_events(accept: Option<&HeaderValue>) -> bool {
    let Some(accept) = accept.and_then(|accept| accept.to_str().ok()) else { return false };
    let mut best: Option<(f32, bool)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let events = media.eq_ignore_ascii_case(EVENT_STREAM);
        if !events && ![ARROW_STREAM, "application/json"].iter().any(|own| media.eq_ignore_ascii_case(own)) {
            continue;
        }
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if weight > best.map_or(0.0, |(weight, _)| weight) {
            best = Some((weight, events));
        }
    }
    best.is_some_and(|(_, events)| events)
}

/// Whether a reply is an Arrow stream: as the header `Accept` says, else as the request was.
pub(crate) fn wants_arrow(accept: Option<&HeaderValue>, request_was_arrow: bool) -> bool {
    match accept.and_then(|accept| accept.to_str().ok()) {
        Some(accept) if accept.contains(ARROW_STREAM) => true,
        Some(accept) if accept.contains("application/json") => false,
        _ => request_was_arrow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_as_events_to_those_who_like_them_best() {
        for (accept, events) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("text/event-stream, application/json", true),
            ("application/json, text/event-stream", false),
            ("application/json;q=0.5, text/event-stream", true),
            ("text/event-stream;q=0.2, application/vnd.apache.arrow.stream;q=0.9", false),
            ("text/html, text/event-stream", true),
            ("text/event-stream;q=0", false),
            ("text/event-stream-not", false),
            ("*/*", false),
            ("text/*", false),
            ("", false),
        ] {
            assert_eq!(wants_events(Some(&HeaderValue::from_static(accept))), events, "{accept}");
        }
        assert!(!wants_events(None));
    }
}
