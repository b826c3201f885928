//! Streams of events into feature sets, each event once.
//!
//! Where a stream goes on is what the store says: [`WritableTable::mark`](crate::WritableTable::mark) lies in the same record of
//! its log as the rows. So nothing is lost or taken twice, whenever this process or the stream's server ends, and nothing is
//! acknowledged to anybody.
//!
//! A [`Feed`] is what messages come from, [`Decode`] makes rows of them, an [`Intake`] moves them into a set, and [`Streams`] are
//! the intakes of a project.

mod backoff;
mod feed;
mod intake;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod progress;
mod spec;
mod streams;
#[cfg(any(feature = "kafka", feature = "nats"))]
mod variables;

#[cfg(feature = "kafka")]
pub use self::kafka::KafkaFeed;
#[cfg(feature = "nats")]
pub use self::nats::NatsFeed;
pub use self::{
    feed::{Decode, Decoded, Feed, FeedError, Message, Session, Span},
    intake::{AtGap, Intake, Left, PutAside},
    progress::{Meter, Partition, Phase, Progress, Standing},
    spec::{KafkaSpec, NatsSpec, StreamSpec},
    streams::{Stream, Streams},
};
