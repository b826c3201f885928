//! CloudEvents over HTTP: an event in, whose data is a body of any protocol, and an event out.
//!
//! In binary mode an event is a body as any other, with attributes in headers `ce-...`; in structured mode it is a JSON object that
//! holds both. A reply comes as its request did, with the source and the type that KServe's replies have. What fails is answered as
//! the protocol answers it: it is no event.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Portion, RunError};
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{Answer, Asked, Brought, GraphService, Protocol};
use crate::wire::{DecodeCode, DecodeError};

/// The only version of the specification that events are written by since 2019.
const SPEC: &str = "1.0";
const REPLY_TYPE: &str = "io.kserve.inference.response";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch";

/// How a request carries an event. Where headers say several, the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Attributes in headers, data in the body.
    Binary,
    /// All of it in the body.
    Structured,
    /// Several in one body, which no request to a graph is.
    Batch,
}

impl Mode {
    /// The mode that a header gives away.
    pub(super) fn told_by(name: &str, value: &HeaderValue) -> Option<Self> {
        let media = |media: &str| {
            let value = value.as_bytes().get(..media.len());
            value.is_some_and(|value| value.eq_ignore_ascii_case(media.as_bytes()))
        };
        match name {
            "ce-specversion" => Some(Self::Binary),
            "content-type" if media(BATCH) => Some(Self::Batch),
            "content-type" if media("application/cloudevents") => Some(Self::Structured),
            _ => None,
        }
    }
}

/// Requests of another protocol within events.
pub(super) struct Events<'p, P> {
    pub(super) inner: &'p P,
    pub(super) mode: Mode,
    pub(super) headers: &'p HeaderMap,
}

/// An event as JSON. What else it has is an extension, which is for others.
#[derive(Deserialize)]
struct Structured<'b> {
    #[serde(borrow)]
    specversion: Option<Cow<'b, str>>,
    #[serde(borrow)]
    id: Option<Cow<'b, str>>,
    #[serde(borrow)]
    source: Option<Cow<'b, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'b, str>>,
    #[serde(borrow)]
    data: Option<&'b RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'b, str>>,
}

impl<P> Events<'_, P> {
    /// The data of an event.
    fn data(&self, body: &Bytes) -> Result<Bytes, DecodeError> {
        match self.mode {
            Mode::Batch => {
                Err(malformed("an event of its own is asked for, not a batch of them; send one per request"))
            }
            Mode::Binary => {
                let header = |name: &str| {
                    let value = self.headers.get(name)?;
                    percent_decode(value.as_bytes()).decode_utf8().ok()
                };
                let [version, id, source, kind] =
                    ["ce-specversion", "ce-id", "ce-source", "ce-type"].map(header);
                check([
                    ("ce-specversion", version),
                    ("ce-id", id),
                    ("ce-source", source),
                    ("ce-type", kind),
                ])?;
                Ok(body.clone())
            }
            Mode::Structured => {
                let event: Structured<'_> = serde_json::from_slice(body)
                    .map_err(|error| malformed(format!("the body is not an event in JSON: {error}")))?;
                check([
                    ("specversion", event.specversion),
                    ("id", event.id),
                    ("source", event.source),
                    ("type", event.kind),
                ])?;
                match (event.data, event.data_base64) {
                    (Some(data), None) => Ok(body.slice_ref(data.get().as_bytes())),
                    (None, Some(text)) => match BASE64_STANDARD.decode(&*text) {
                        Ok(bytes) => Ok(bytes.into()),
                        Err(error) => Err(malformed(format!("member `data_base64` of the event: {error}"))),
                    },
                    (None, None) => Err(malformed("the event has no `data`")),
                    (Some(_), Some(_)) => Err(malformed("the event has both `data` and `data_base64`")),
                }
            }
        }
    }

    /// The event that an answer becomes.
    fn told(&self, graph: &str, run: &str, answer: Answer) -> Answer {
        let source = format!("io.kserve.inference.{graph}");
        let time = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let (mut head, body) = answer.into_parts();
        if self.mode != Mode::Structured {
            for (name, value) in [
                ("ce-specversion", SPEC),
                ("ce-id", run),
                ("ce-source", &source),
                ("ce-type", REPLY_TYPE),
                ("ce-time", &time),
            ] {
                // A graph may have a name that a header cannot carry as it is.
                let value =
                    percent_encoding::utf8_percent_encode(value, percent_encoding::CONTROLS).to_string();
                if let Ok(value) = HeaderValue::try_from(value) {
                    head.headers.insert(HeaderName::from_static(name), value);
                }
            }
            return Answer::from_parts(head, body);
        }
        // A body that is all there is collected at once.
        let collected = body.collect().now_or_never().and_then(Result::ok);
        let data = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let media = head.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let event = json!({
            "specversion": SPEC, "id": run, "source": source, "type": REPLY_TYPE, "time": time, "datacontenttype": media,
        });
        let mut text = event.to_string();
        text.pop();
        let mut text = text.into_bytes();
        if media == "application/json" {
            text.extend_from_slice(b",\"data\":");
            text.extend_from_slice(&data);
        } else {
            text.extend_from_slice(b",\"data_base64\":\"");
            text.extend_from_slice(BASE64_STANDARD.encode(&data).as_bytes());
            text.push(b'"');
        }
        text.push(b'}');
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
        Answer::from_parts(head, Full::new(text.into()))
    }
}

/// Refuses what is not an event, and names all that it lacks.
fn check(attributes: [(&str, Option<Cow<'_, str>>); 4]) -> Result<(), DecodeError> {
    let lacks = attributes.iter().filter(|(_, value)| value.as_deref().is_none_or(str::is_empty));
    let lacks: Vec<String> = lacks.map(|(name, _)| format!("`{name}`")).collect();
    if !lacks.is_empty() {
        return Err(malformed(format!("the event has no {}", lacks.join(", "))));
    }
    let [(name, version), ..] = attributes;
    match version.as_deref() {
        Some(SPEC) | None => Ok(()),
        Some(other) => Err(malformed(format!("`{name}` of the event is {SPEC}, not {other:?}"))),
    }
}

fn malformed(message: impl Into<String>) -> DecodeError {
    DecodeError::new(DecodeCode::Malformed, message.into())
}

impl<P: Protocol<Message = Bytes, Body = Full<Bytes>>> Protocol for Events<'_, P> {
    type Message = Bytes;
    type Asked = P::Asked;
    type Body = Full<Bytes>;

    fn read(
        &self,
        service: &GraphService,
        asked: &Asked<'_>,
        body: Bytes,
        request: &mut RunRequest,
    ) -> Result<(Brought, P::Asked), DecodeError> {
        self.inner.read(service, asked, self.data(&body)?, request)
    }

    fn replied(&self, service: &GraphService, reply: &Portion, asked: P::Asked) -> Answer {
        let answer = self.inner.replied(service, reply, asked);
        if !answer.status().is_success() {
            return answer;
        }
        self.told(service.name(), &reply.run().to_string(), answer)
    }

    fn undecoded(&self, error: &DecodeError) -> Answer {
        self.inner.undecoded(error)
    }

    fn failed(&self, service: &GraphService, error: &RunError) -> Answer {
        self.inner.failed(service, error)
    }
}
