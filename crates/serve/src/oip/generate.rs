//! Triton's generate extension: an object whose members are inputs and parameters, with one value each, and the same of outputs.
//!
//! A request is one row. A member that no input has the name of is a parameter, of which those are heard that mean something.

use std::{borrow::Cow, collections::BTreeMap, time::Instant};

use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Portion, RunError};
use serde_json::{Value, error::Category, json, value::RawValue};
use smallvec::SmallVec;

use super::{
    inference::{begin, hasten, text},
    inputs::{Head, Source, Values},
    models::Model,
    request::{Asked, SEQUENCE, malformed, or_all, priority, timeout},
    tensor::Tensor,
    values::Form,
};
use crate::{
    service::{self, Answer, Asked as Headers, Brought, GraphService, JSON, Protocol, json_answer, written},
    wire::{DecodeCode, DecodeError},
};

/// Requests to one model, and its replies.
pub(super) struct Generate<'m> {
    model: &'m Model,
    /// When the request came; its time begins then.
    since: Instant,
}

impl<'m> Generate<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self { model, since: tokio::time::Instant::now().into_std() }
    }

    fn read_body(
        &self,
        service: &GraphService,
        body: &[u8],
        request: &mut RunRequest,
    ) -> Result<(Brought, Asked), DecodeError> {
        let Model { inputs, outputs, .. } = self.model;
        let mut members = members(body, "the body must be an object with a member per input")?;
        // What stands among the parameters is the same as what stands beside them, which counts more.
        if let Some(parameters) = members.remove("parameters") {
            for (name, value) in self::members(parameters.get().as_bytes(), "`parameters` must be an object")?
            {
                members.entry(name).or_insert(value);
            }
        }
        let mut source = Source::new(inputs, service.decoder(), &[]);
        for input in inputs.iter().filter(|input| !SEQUENCE.contains(&input.name.as_str())) {
            if let Some(value) = members.get(&*input.name).filter(|value| value.get() != "null") {
                add(&mut source, input, value.get())?;
            }
        }
        for name in SEQUENCE {
            if let Some(value) = members.get(name).and_then(|value| serde_json::from_str(value.get()).ok()) {
                source.say(name, &value)?;
            }
        }
        // An input of the name of a parameter is the input.
        let parameter = |name: &str| {
            let is_input = inputs.iter().any(|input| input.name == name);
            members.get(name).filter(|_| !is_input).map(|value| value.get())
        };
        let number = |name: &str| serde_json::from_str::<u64>(parameter(name)?).ok();
        let asked = Asked {
            id: parameter("id").and_then(|id| serde_json::from_str(id).ok()),
            outputs: or_all(Vec::new(), outputs, false),
            timeout: number("timeout").and_then(timeout),
            priority: number("priority").and_then(priority),
        };
        hasten(request, &asked, self.since);
        Ok((Brought::Values(source.finish()?), asked))
    }

    /// A reply as an object: the value of an output that has one, and a list of those that have more.
    pub(super) fn reply(
        &self,
        reply: &Portion,
        asked: &Asked,
        parameters: Option<&Value>,
    ) -> Result<Bytes, DecodeError> {
        written(|body| {
            begin(self.model, asked, body);
            if let Some(parameters) = parameters {
                body.extend_from_slice(format!(",\"parameters\":{parameters}").as_bytes());
            }
            for wanted in &asked.outputs {
                let output = &self.model.outputs[wanted.output];
                let mut values = Vec::new();
                let told = output.tell(reply, 0, Form::Json, &mut values)?;
                body.push(b',');
                text(output.name(), body);
                body.push(b':');
                let one = told.shape.iter().product::<usize>() == 1;
                let alone = values.strip_prefix(b"[").and_then(|values| values.strip_suffix(b"]"));
                body.extend_from_slice(alone.filter(|_| one).unwrap_or(&values));
            }
            body.push(b'}');
            Ok(())
        })
    }
}

/// The members of an object, as they are written. A name that is there twice means the latter.
fn members<'b>(body: &'b [u8], wanted: &str) -> Result<BTreeMap<String, &'b RawValue>, DecodeError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = match error.classify() {
            Category::Eof => DecodeCode::Truncated,
            Category::Data => return DecodeError::new(DecodeCode::WrongType, wanted),
            _ => DecodeCode::Malformed,
        };
        DecodeError::new(code, format!("the body is no JSON: {error}"))
    })
}

/// Adds the value of an input, which is one row of it.
fn add(source: &mut Source<'_>, input: &Tensor, text: &str) -> Result<(), DecodeError> {
    let (name, datatype) = (Cow::Borrowed(&*input.name), Cow::Borrowed(input.datatype.name()));
    // What no tensor holds is told as the text of its JSON, and here may come as itself.
    let text = match input.is_text && !text.starts_with('"') {
        true => Cow::Owned(Value::from(text).to_string()),
        false => Cow::Borrowed(text),
    };
    let sizes = sizes(input, &text).ok_or_else(|| {
        malformed(format!(
            "input `{name}`: its value must be lists within lists, as many as its shape has sizes"
        ))
    })?;
    let is_list = text.starts_with('[');
    let is_flat = is_list && !text[1..].trim_start().starts_with('[');
    // A row in one list: one value, or many in the order in which they lie in memory.
    let data = if is_flat && sizes.len() != 1 { text } else { Cow::Owned(format!("[{text}]")) };
    let shape = [1].into_iter().chain(sizes).collect();
    source.add(&Head { name, datatype, shape, values: Values::Json(&data) })
}

/// The sizes of a row: the input's, where they are known, else those of the lists.
fn sizes(input: &Tensor, text: &str) -> Option<SmallVec<[usize; 4]>> {
    if let Some(known) = input.dims.iter().copied().collect::<Option<SmallVec<_>>>() {
        return Some(known);
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let (mut sizes, mut at) = (SmallVec::new(), &value);
    for dim in &input.dims {
        let items = at.as_array()?;
        sizes.push(dim.unwrap_or(items.len()));
        match items.first() {
            Some(first) => at = first,
            // Of no items nothing says how many they would have.
            None => {
                let rest = input.dims.iter().skip(sizes.len());
                sizes.extend(rest.map(|dim| dim.unwrap_or(0)).collect::<Vec<_>>());
                break;
            }
        }
    }
    Some(sizes)
}

impl Protocol for Generate<'_> {
    type Message = Bytes;
    type Body = Full<Bytes>;
    type Asked = Asked;

    fn read(
        &self,
        service: &GraphService,
        _: &Headers<'_>,
        body: Bytes,
        request: &mut RunRequest,
    ) -> Result<(Brought, Asked), DecodeError> {
        self.model.counts.reading(|| self.read_body(service, &body, request))
    }

    fn replied(&self, service: &GraphService, reply: &Portion, asked: Asked) -> Answer {
        match self.model.counts.writing(|| self.reply(reply, &asked, None)) {
            Ok(body) => {
                let mut answer = Answer::new(Full::new(body));
                answer.headers_mut().insert(CONTENT_TYPE, JSON);
                answer
            }
            Err(error) => {
                tracing::debug!(graph = service.name(), %error, "a reply cannot be written as asked");
                json_answer(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() }))
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
