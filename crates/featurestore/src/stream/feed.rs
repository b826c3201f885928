//! What messages come from, and what makes rows of them.

use std::future::Future;

use arrow::array::RecordBatch;
use bytes::Bytes;

/// A source of messages: partitions, in each of which messages have rising offsets.
pub trait Feed: Send + Sync + 'static {
    /// A connection to the source.
    type Session: Session;

    /// The name by which stores remember how far the source has been read.
    fn source(&self) -> &str;

    /// Connects.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, FeedError>> + Send;
}

/// One connection to a [`Feed`]. After an error it is dropped, and the next one goes on where the store stands.
pub trait Session: Send {
    /// The partitions, and what of each is there.
    fn spans(&mut self) -> impl Future<Output = Result<Vec<Span>, FeedError>> + Send;

    /// Begins to read these partitions, each at the offset given. Answers how many messages each has from there on.
    fn seek(&mut self, from: &[(u32, u64)]) -> impl Future<Output = Result<Vec<u64>, FeedError>> + Send;

    /// The next messages: those that have arrived, at least one and at most `most`. A partition's are in order, and none is left
    /// out.
    fn next(&mut self, most: usize) -> impl Future<Output = Result<Vec<Message>, FeedError>> + Send;
}

/// What is there of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: u32,
    /// The offset of the oldest message that is there; `end` when there is none.
    pub first: u64,
    /// The offset that the next message will have.
    pub end: u64,
}

/// A message of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The partition.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// What it says.
    pub payload: Bytes,
    /// How many messages of the partition came after it, when it was sent here.
    pub behind: u64,
}

/// Why a feed gives no messages. All of it may pass, so a feed is connected again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The server does not answer, or refuses.
    #[error("{server} cannot be read")]
    Unreachable {
        /// The server, without what is secret.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server has no such stream or topic.
    #[error("{server} has no {what}")]
    Unknown {
        /// The server, without what is secret.
        server: String,
        /// What it lacks.
        what: String,
    },
    /// The stream is not kept as it must be to be read so.
    #[error("{problem}")]
    Unfit {
        /// What is to be changed.
        problem: String,
    },
    /// Messages were lost on their way, or deleted before they were read.
    #[error("messages from offset {expected} on did not arrive; the next was {offset}")]
    Missed {
        /// The offset of the first that is missing.
        expected: u64,
        /// The offset of the one that came.
        offset: u64,
    },
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
}

/// Makes rows of messages.
pub trait Decode: Send + Sync {
    /// The rows of some messages, in order. One message may have several rows, or none.
    fn decode(&self, messages: &[Bytes]) -> Decoded;
}

/// What became of messages.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows, with the columns of the set.
    pub rows: RecordBatch,
    /// For each row, which message it is of, counted from zero.
    pub messages: Vec<usize>,
    /// The messages that cannot be read, and why.
    pub unread: Vec<(usize, String)>,
}
