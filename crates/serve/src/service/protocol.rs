//! How the graph's own protocol and others differ, and what is the same in all.

use arrow::array::RecordBatch;
use http::Response;
use millstream_graph::Request as RunRequest;
use millstream_runtime::{Portion, RunError};

use super::{Asked, GraphService};
use crate::wire::{DecodeError, json as json_wire};

/// How requests to a graph and its replies are written. What a protocol does not say is the same in all: who is let in, what may
/// be read, how rows come to their run, what is told of it.
pub(crate) trait Protocol: Sync {
    /// What arrives: the bytes of a body, or what was made of them already.
    type Message: Send;
    /// What of a request its reply follows.
    type Asked: Send;
    /// What an answer has beside its status and headers.
    type Body;

    /// The rows of a message. What it says beside them of its run goes into `request`.
    fn read(
        &self,
        service: &GraphService,
        asked: &Asked<'_>,
        message: Self::Message,
        request: &mut RunRequest,
    ) -> Result<(Brought, Self::Asked), DecodeError>;

    /// The answer to a run that replied.
    fn replied(&self, service: &GraphService, reply: &Portion, asked: Self::Asked) -> Response<Self::Body>;

    /// The answer to a message that cannot be read.
    fn undecoded(&self, error: &DecodeError) -> Response<Self::Body>;

    /// The answer to a run that failed.
    fn failed(&self, service: &GraphService, error: &RunError) -> Response<Self::Body>;
}

/// The rows of a body, as they are brought to their run.
pub(crate) enum Brought {
    Rows(RecordBatch),
    /// Values that may become rows together with those of other bodies.
    Values(json_wire::Body),
}

/// What became of a run.
pub(super) struct Ran<A> {
    /// Rows of the request.
    pub(super) rows: usize,
    pub(super) result: Result<(Portion, A), RunError>,
}

impl<A> Ran<A> {
    /// What did not come to its body.
    pub(super) fn without_rows(error: RunError) -> Self {
        Self { rows: 0, result: Err(error) }
    }
}

/// Why nothing is read of a request.
pub(super) enum Halted {
    Undecoded(DecodeError),
    Refused(RunError),
}

impl<A> From<Halted> for Result<Ran<A>, DecodeError> {
    fn from(halted: Halted) -> Self {
        match halted {
            Halted::Undecoded(error) => Err(error),
            Halted::Refused(error) => Ok(Ran::without_rows(error)),
        }
    }
}
