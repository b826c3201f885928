//! A request whose reply comes in parts: read and let in once, run again and again.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body_util::Full;
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Part, ReplyStream, Reserved, RunError};

use super::{
    Asked, Brought, GraphService, Protocol,
    protocol::{Halted, Ran},
};
use crate::{
    body::{self, Unread},
    monitoring::Went,
    observe::Observed,
    wire::DecodeError,
};

/// A request that is answered in parts. When it is dropped, what is under way for it is cancelled.
pub(crate) struct Streaming<A> {
    service: GraphService,
    replies: ReplyStream,
    /// What of the request its parts follow.
    pub(crate) asked: A,
    /// The caller's name for it.
    id: Option<Arc<str>>,
    rows: usize,
    /// What its body takes, to the last part.
    _room: Reserved,
}

impl<A> Streaming<A> {
    /// The next part; none behind the last one and behind an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Part, RunError>> {
        // Parts that are done at once would keep the thread for as long as the connection takes them.
        tokio::task::coop::consume_budget().await;
        let start = Instant::now();
        let ran = self.replies.next_at(&self.service.shared.door).await?;
        if let Some(watch) = &self.service.watch {
            watch.went(&Went::of(start, self.id.as_deref(), ran.as_ref().map(Part::portion)));
        }
        Some(ran)
    }

    pub(crate) fn service(&self) -> &GraphService {
        &self.service
    }

    /// Rows of the request.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Which rows of the request the rows of a part answer, where a request of several has not one reply row for each in its order.
    pub(crate) fn places(&self, part: &Part) -> Option<Vec<u32>> {
        if self.rows < 2 || part.is_whole(self.rows) {
            return None;
        }
        (0..part.portion().range().len()).map(|row| part.place(row)).collect()
    }
}

/// A request with the first part of its reply.
pub(crate) type Begun<A> = (Streaming<A>, Part);
/// What became of one that has none.
type NotBegun<A> = Result<Ran<A>, DecodeError>;

impl GraphService {
    /// Runs the graph on the body of a request whose reply comes in parts, up to the first of them.
    ///
    /// # Errors
    /// The answer to one that comes to no part.
    pub(crate) async fn stream_body<P, B>(
        &self,
        protocol: &P,
        head: &Parts,
        body: B,
    ) -> Result<Begun<P::Asked>, Response<P::Body>>
    where
        P: Protocol<Message = Bytes, Body = Full<Bytes>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let asked = Asked::of(&head.headers);
        let most = self.shared.limits.body_bytes;
        let begun = match self.let_in(&asked) {
            Err(halted) => self.not_let_in(halted),
            Ok((request, mut room)) => {
                match body::read(&head.headers, body, most, self.body_limits, &mut room).await {
                    Ok(body) => self.begin(protocol, head, &asked, request, (body, room)).await,
                    Err(Unread::Refused(error)) => Err(self.told(Err(error))),
                    Err(Unread::NoRoom) => self.not_let_in(Halted::Refused(self.engine().no_room())),
                }
            }
        };
        begun.map_err(|ran| self.answered(protocol, head, &asked, ran))
    }

    /// The same for what has arrived already, in so many bytes.
    pub(crate) async fn stream_message<P: Protocol>(
        &self,
        protocol: &P,
        head: &Parts,
        message: P::Message,
        bytes: usize,
    ) -> Result<Begun<P::Asked>, Response<P::Body>> {
        let asked = Asked::of(&head.headers);
        let begun = match self.let_in(&asked) {
            Err(halted) => self.not_let_in(halted),
            Ok((request, mut room)) => {
                if room.grow(bytes) {
                    self.begin(protocol, head, &asked, request, (message, room)).await
                } else {
                    self.not_let_in(Halted::Refused(self.engine().no_room()))
                }
            }
        };
        begun.map_err(|ran| self.answered(protocol, head, &asked, ran))
    }

    fn not_let_in<A>(&self, halted: Halted) -> Result<Begun<A>, NotBegun<A>> {
        Err(self.told(halted.into()))
    }

    async fn begin<P: Protocol>(
        &self,
        protocol: &P,
        head: &Parts,
        asked: &Asked<'_>,
        mut request: RunRequest,
        (message, room): (P::Message, Reserved),
    ) -> Result<Begun<P::Asked>, NotBegun<P::Asked>> {
        let observed = head.extensions.get::<Arc<Observed>>();
        if let Some(observed) = observed {
            observed.watch(&mut request);
        }
        let read = protocol.read(self, asked, message, &mut request).and_then(|(brought, asked)| {
            let rows = match brought {
                Brought::Values(values) => self.decoder().assembled(values)?,
                Brought::Rows(rows) => self.engine().plan().carry(rows),
            };
            Ok((rows, asked))
        });
        let (batch, asked) = read.map_err(|error| self.told(Err(error)))?;
        let (rows, id) = (batch.num_rows(), request.id.clone());
        let failed = |error| Ran { rows, result: Err(error) };
        let replies = self.engine().stream(request, batch).map_err(|error| self.told(Ok(failed(error))))?;
        let mut streaming = Streaming { service: self.clone(), replies, asked, id, rows, _room: room };
        match streaming.next().await {
            Some(Ok(part)) => {
                if let Some(observed) = observed {
                    observed.ran(rows, Ok(part.portion()));
                }
                Ok((streaming, part))
            }
            Some(Err(error)) => Err(Ok(failed(error))),
            // There is always a first part.
            None => Err(Ok(failed(RunError::Closed))),
        }
    }
}
