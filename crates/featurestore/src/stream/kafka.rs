//! Topics of Kafka.
//!
//! All partitions are assigned here, each from where the store stands: no group is joined, and no offset is committed.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, Statistics, TopicPartitionList,
    consumer::{Consumer, ConsumerContext, StreamConsumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use tokio::sync::oneshot;

use super::{
    Feed, FeedError, KafkaSpec, Message, Session, Span,
    variables::{filled, secret},
};

/// A topic of Kafka, whose partitions and offsets are the topic's.
pub struct KafkaFeed {
    source: String,
    servers: String,
    topic: String,
    login: Option<(String, String)>,
}

/// How long an answer is waited for that is not a message.
const WAIT: Duration = Duration::from_secs(10);

/// How often is looked whether the topic has more partitions.
const LOOK: Duration = Duration::from_secs(60);

impl KafkaFeed {
    /// What the settings name, known to stores as `source`.
    ///
    /// # Errors
    /// What is wrong with the settings, one sentence each.
    pub fn new(spec: &KafkaSpec, source: String) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut sound =
            |result: Result<String, String>| result.map_err(|problem| problems.push(problem)).ok();
        let servers = sound(filled(&spec.servers)).unwrap_or_default();
        let user = spec.user.as_deref().and_then(|text| sound(filled(text)));
        let password = spec.password.as_deref().and_then(|text| sound(secret("password", text)));
        if spec.topic.is_empty() {
            problems.push("`topic` is empty".to_owned());
        }
        if spec.user.is_some() != spec.password.is_some() {
            problems.push("a login is `user` and `password`".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { source, servers, topic: spec.topic.clone(), login: user.zip(password) })
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "millstream")
            // A consumer has a group, whether it joins it or not.
            .set("group.id", "millstream")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that is not there is said, and not replaced by another.
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("queued.min.messages", "1024")
            .set("queued.max.messages.kbytes", "16384")
            .set("statistics.interval.ms", "1000");
        if let Some((user, password)) = &self.login {
            config
                .set("security.protocol", "sasl_plaintext")
                .set("sasl.mechanism", "PLAIN")
                .set("sasl.username", user)
                .set("sasl.password", password);
        }
        config
    }
}

impl fmt::Debug for KafkaFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaFeed")
            .field("servers", &self.servers)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Hears where partitions end.
#[derive(Default)]
struct Ends(Mutex<BTreeMap<u32, u64>>);

impl Ends {
    fn raise(&self, partition: u32, end: u64) -> u64 {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends.entry(partition).or_insert(end);
        *known = (*known).max(end);
        *known
    }
}

struct Context(Arc<Ends>);

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        for partition in statistics.topics.values().flat_map(|topic| topic.partitions.values()) {
            if let (Ok(number), Ok(end)) =
                (u32::try_from(partition.partition), u64::try_from(partition.hi_offset))
            {
                self.0.raise(number, end);
            }
        }
    }
}

impl ConsumerContext for Context {}

/// A connection to a topic.
pub struct KafkaSession {
    consumer: Arc<StreamConsumer<Context>>,
    servers: String,
    topic: String,
    ends: Arc<Ends>,
    partitions: Vec<i32>,
    looked: Instant,
}

impl Feed for KafkaFeed {
    type Session = KafkaSession;

    fn source(&self) -> &str {
        &self.source
    }

    async fn connect(&self) -> Result<KafkaSession, FeedError> {
        let ends = Arc::new(Ends::default());
        let consumer: Result<StreamConsumer<Context>, _> =
            self.config().create_with_context(Context(Arc::clone(&ends)));
        let consumer = Arc::new(consumer.map_err(|error| unreachable(&self.servers, error))?);
        let (servers, topic) = (self.servers.clone(), self.topic.clone());
        let mut session =
            KafkaSession { consumer, servers, topic, ends, partitions: Vec::new(), looked: Instant::now() };
        session.partitions = session.look().await?;
        Ok(session)
    }
}

impl KafkaSession {
    /// The partitions that the topic has now.
    async fn look(&self) -> Result<Vec<i32>, FeedError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
        let partitions = blocking(move || {
            let metadata = consumer.fetch_metadata(Some(&topic), WAIT)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let partitions = found.into_iter().flat_map(|topic| topic.partitions());
            Ok::<Vec<i32>, KafkaError>(partitions.map(|partition| partition.id()).collect())
        });
        let mut partitions = partitions.await?.map_err(|error| unreachable(&self.servers, error))?;
        if partitions.is_empty() {
            let what = format!("topic `{}`", self.topic);
            return Err(FeedError::Unknown { server: self.servers.clone(), what });
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn message(&self, message: &BorrowedMessage<'_>) -> Option<Message> {
        let (partition, offset) =
            (u32::try_from(message.partition()).ok()?, u64::try_from(message.offset()).ok()?);
        let behind = self.ends.raise(partition, offset + 1) - offset - 1;
        let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        Some(Message { partition, offset, payload, behind })
    }
}

impl Session for KafkaSession {
    async fn spans(&mut self) -> Result<Vec<Span>, FeedError> {
        let (consumer, topic, partitions) =
            (Arc::clone(&self.consumer), self.topic.clone(), self.partitions.clone());
        let watermarks = blocking(move || {
            let span = |partition: i32| {
                let (first, end) = consumer.fetch_watermarks(&topic, partition, WAIT)?;
                Ok((partition, first, end))
            };
            partitions.into_iter().map(span).collect::<Result<Vec<_>, KafkaError>>()
        });
        let watermarks = watermarks.await?.map_err(|error| unreachable(&self.servers, error))?;
        let span = |(partition, first, end): (i32, i64, i64)| {
            let (partition, first, end) =
                (u32::try_from(partition).ok()?, u64::try_from(first).ok()?, u64::try_from(end).ok()?);
            self.ends.raise(partition, end);
            Some(Span { partition, first, end })
        };
        Ok(watermarks.into_iter().filter_map(span).collect())
    }

    async fn seek(&mut self, from: &[(u32, u64)]) -> Result<Vec<u64>, FeedError> {
        let mut assigned = TopicPartitionList::new();
        for &(partition, offset) in from {
            let (Ok(partition), Ok(offset)) = (i32::try_from(partition), i64::try_from(offset)) else {
                continue;
            };
            let added = assigned.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
            added.map_err(|error| unreachable(&self.servers, error))?;
        }
        self.consumer.assign(&assigned).map_err(|error| unreachable(&self.servers, error))?;
        Ok(from.iter().map(|&(partition, offset)| self.ends.raise(partition, offset) - offset).collect())
    }

    async fn next(&mut self, most: usize) -> Result<Vec<Message>, FeedError> {
        if self.looked.elapsed() > LOOK {
            self.looked = Instant::now();
            if self.look().await? != self.partitions {
                return Err(FeedError::Ended);
            }
        }
        let first = loop {
            if let Ok(first) = tokio::time::timeout(LOOK, self.consumer.recv()).await {
                break first;
            }
            // An idle topic is looked at too.
            if self.look().await? != self.partitions {
                return Err(FeedError::Ended);
            }
        };
        let mut messages = Vec::new();
        messages.extend(self.message(&first.map_err(|error| unreachable(&self.servers, error))?));
        while messages.len() < most
            && let Some(more) = self.consumer.recv().now_or_never()
        {
            match more {
                Ok(more) => messages.extend(self.message(&more)),
                // What has arrived is taken first; the connection is made anew after it.
                Err(_) if !messages.is_empty() => break,
                Err(error) => return Err(unreachable(&self.servers, error)),
            }
        }
        Ok(messages)
    }
}

fn unreachable(servers: &str, error: KafkaError) -> FeedError {
    FeedError::Unreachable { server: format!("kafka://{servers}"), source: Box::new(error) }
}

/// Runs what blocks on a thread that ends with it, after [`WAIT`] at the latest.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, FeedError>> {
    let (done, answer) = oneshot::channel();
    // The caller may have gone, and a thread that cannot be had drops the sender.
    let work = move || drop(done.send(work()));
    let thread = thread::Builder::new().name("millstream-kafka".to_owned()).spawn(work);
    async move {
        thread.map_err(|_| FeedError::Ended)?;
        answer.await.map_err(|_| FeedError::Ended)
    }
}
