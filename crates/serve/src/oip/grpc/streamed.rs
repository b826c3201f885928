//! Replies of a stream: one to most requests, in their order, and as many as there are to those whose replies come in parts.

use std::{
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesOrdered, SelectAll, unfold},
};
use http::{HeaderMap, Method, Response, request::Parts as Head};
use millstream_runtime::Part;
use prost::Message;
use tonic::Status;

use super::{
    call::{Call, Outcome, told},
    proto::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice,
    },
    service::{FINAL, Inference, STREAM_ENDS, given, not_replied},
};
use crate::{
    oip::{find, models::Model, request::Asked, streamed::parameters},
    security::Session,
    service::{Streaming, failure},
    snapshot::{CUT_OFF, Snapshot},
};

/// Requests of one stream that are under way at once.
const REQUESTS: usize = 32;
/// Asks for a reply without outputs behind the last part, which says that it was the last.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

type Reply = Result<ModelStreamInferResponse, Status>;
type Messages = BoxStream<'static, Result<ModelInferRequest, Status>>;

/// What a stream answers. Replies that are one each keep the order of their requests; parts come between them as they are made.
pub(super) struct Replies {
    inference: Inference,
    headers: HeaderMap,
    session: Option<Session>,
    messages: Messages,
    /// Whether all messages have come.
    done: bool,
    single: FuturesOrdered<BoxFuture<'static, Reply>>,
    parts: SelectAll<BoxStream<'static, Reply>>,
    /// Whether parts are looked at first, which takes turns.
    turn: bool,
}

impl Replies {
    pub(super) fn new(
        inference: Inference,
        headers: HeaderMap,
        session: Option<Session>,
        messages: Messages,
    ) -> Self {
        Self {
            inference,
            headers,
            session,
            messages,
            done: false,
            single: FuturesOrdered::new(),
            parts: SelectAll::new(),
            turn: false,
        }
    }

    fn under_way(&self) -> usize {
        self.single.len() + self.parts.len()
    }

    fn take(&mut self, message: Result<ModelInferRequest, Status>) {
        let (inference, headers, session) =
            (self.inference.clone(), self.headers.clone(), self.session.clone());
        match message {
            Ok(message) if streams(&inference, &message) => {
                self.parts.push(Parts::begin(inference, headers, session, message).replies().boxed());
            }
            message => self.single.push_back(inference.stream_reply(headers, session, message).boxed()),
        }
    }

    /// Takes messages while there is room; whether more may come at any time.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.done && self.under_way() < REQUESTS {
            match self.messages.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => self.take(message),
                Poll::Ready(None) => self.done = true,
                Poll::Pending => return true,
            }
        }
        false
    }
}

impl Stream for Replies {
    type Item = Reply;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        let this = self.get_mut();
        loop {
            let waits = this.fill(cx);
            this.turn = !this.turn;
            for parts in [this.turn, !this.turn] {
                let reply =
                    if parts { this.parts.poll_next_unpin(cx) } else { this.single.poll_next_unpin(cx) };
                if let Poll::Ready(Some(reply)) = reply {
                    return Poll::Ready(Some(reply));
                }
            }
            match this.under_way() {
                0 if this.done => return Poll::Ready(None),
                // A request whose last part had been told has made room: nobody has looked for a message since.
                under_way if under_way < REQUESTS && !this.done && !waits => {}
                _ => return Poll::Pending,
            }
        }
    }
}

/// Whether replies to a request come in parts.
fn streams(inference: &Inference, message: &ModelInferRequest) -> bool {
    let served = inference.shared.live.load();
    let model = find::find(&served, &message.model_name, given(&message.model_version));
    model.is_ok_and(|model| model.streams)
}

/// One request whose reply comes in parts.
struct Parts {
    inference: Inference,
    /// Whether an error ends the stream.
    ends: bool,
    id: String,
    empty_final: bool,
    stage: Stage,
}

enum Stage {
    Begins(Box<(HeaderMap, Option<Session>, ModelInferRequest)>),
    Runs(Box<Running>),
    /// What is left to be told says that nothing is.
    Last(ModelInferResponse),
    Ended,
}

/// A request under way, with the version of everything that it began with.
struct Running {
    model: Arc<Model>,
    served: Arc<Snapshot>,
    streaming: Streaming<Asked>,
}

impl Parts {
    fn begin(
        inference: Inference,
        headers: HeaderMap,
        session: Option<Session>,
        message: ModelInferRequest,
    ) -> Self {
        let choice = message.parameters.get(EMPTY_FINAL).and_then(|asked| asked.parameter_choice.as_ref());
        Self {
            inference,
            ends: headers.get(STREAM_ENDS).is_some_and(|value| value == "true"),
            id: message.id.clone(),
            empty_final: matches!(choice, Some(ParameterChoice::BoolParam(true))),
            stage: Stage::Begins(Box::new((headers, session, message))),
        }
    }

    fn replies(self) -> impl Stream<Item = Reply> {
        unfold(self, |mut parts| async move {
            let reply = parts.next().await?;
            Some((reply, parts))
        })
    }

    /// The next reply. Behind an error there is none.
    async fn next(&mut self) -> Option<Reply> {
        let reply = match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Begins(asked) => match self.first(*asked).await {
                Ok((running, part)) => self.told(running, &part),
                Err(status) => Err(status),
            },
            Stage::Runs(mut running) => match running.next().await {
                Some(Ok(part)) => self.told(running, &part),
                Some(Err(status)) => Err(status),
                None => return None,
            },
            Stage::Last(reply) => Ok(reply),
            Stage::Ended => return None,
        };
        Some(match reply {
            Ok(reply) => {
                Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(reply) })
            }
            Err(status) => not_replied(status, self.ends, mem::take(&mut self.id)),
        })
    }

    async fn first(
        &self,
        (mut headers, session, message): (HeaderMap, Option<Session>, ModelInferRequest),
    ) -> Result<(Box<Running>, Part), Status> {
        let inference = &self.inference;
        inference.again(session.as_ref())?;
        let served = inference.shared.live.load_full();
        let named = (&*message.model_name, &*message.model_version);
        let model = inference.want(&served, named, &mut headers).await?;
        let service = model.service().map_err(Status::unavailable)?;
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.headers) = (Method::POST, headers);
        let (call, bytes) = (Call::new(&model), message.encoded_len());
        let mut begun = None;
        let run = async |head: &Head| match service.stream_message(&call, head, message, bytes).await {
            Ok(started) => {
                begun = Some(started);
                Response::<Outcome>::new(Ok(ModelInferResponse::default()))
            }
            Err(answer) => answer,
        };
        let answer = {
            let answer = pin!(inference.observer.tell(model.name(), &mut head, run));
            served.kept(answer).await.ok_or_else(|| Status::unavailable(CUT_OFF))?
        };
        inference.count_refusal(&answer);
        told(answer)?;
        let (streaming, part) = begun.ok_or_else(|| Status::internal("the request came to no part"))?;
        Ok((Box::new(Running { model, served, streaming }), part))
    }

    /// A part as a reply, behind which the next one may run.
    fn told(&mut self, running: Box<Running>, part: &Part) -> Result<ModelInferResponse, Status> {
        let model = &*running.model;
        let asked = running.streaming.asked.clone();
        let written = model.counts.writing(|| Call::new(model).reply(part.portion(), asked));
        let mut reply = written.map_err(|error| Status::invalid_argument(error.to_string()))?;
        for (name, text) in parameters(&running.streaming, part) {
            reply.parameters.insert(name.to_owned(), parameter(ParameterChoice::StringParam(text)));
        }
        let is_final = part.is_last() && !self.empty_final;
        reply.parameters.insert(FINAL.to_owned(), parameter(ParameterChoice::BoolParam(is_final)));
        if !part.is_last() {
            self.stage = Stage::Runs(running);
        } else if self.empty_final {
            let last = parameter(ParameterChoice::BoolParam(true));
            self.stage = Stage::Last(ModelInferResponse {
                model_name: reply.model_name.clone(),
                model_version: reply.model_version.clone(),
                id: reply.id.clone(),
                parameters: [(FINAL.to_owned(), last)].into_iter().collect(),
                ..ModelInferResponse::default()
            });
        }
        Ok(reply)
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

impl Running {
    async fn next(&mut self) -> Option<Result<Part, Status>> {
        let next = {
            let next = pin!(self.streaming.next());
            self.served.kept(next).await
        };
        match next {
            None => Some(Err(Status::unavailable(CUT_OFF))),
            Some(None) => None,
            Some(Some(Ok(part))) => Some(Ok(part)),
            Some(Some(Err(error))) => {
                let (status, message) = failure(self.streaming.service().name(), &error);
                Some(Err(Status::new(super::call::code(status), message)))
            }
        }
    }
}
