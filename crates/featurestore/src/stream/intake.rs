//! What moves the messages of a feed into a feature set.

use std::{collections::BTreeMap, convert::Infallible, fmt, sync::Arc};

use arrow::array::RecordBatch;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Decode, Decoded, Feed, FeedError, Message, Meter, Partition, Phase, Progress, Session, Span,
    backoff::Backoff,
};
use crate::{Positions, WritableSet, WriteError};

/// Moves the messages of a feed into a feature set, from where the set's store stands.
///
/// What has arrived while the last write was made safe is the next write: nothing waits for a batch to fill. At most `most`
/// messages are in hand, and the feed holds no more than it is asked for. A write that is not taken is tried again until it is;
/// no message is skipped but those that cannot be read, which are [put aside](PutAside) first.
///
/// Dropping the future of [`Intake::run`] at any moment loses nothing: the next one goes on where the store stands.
pub struct Intake<F> {
    feed: F,
    set: Arc<WritableSet>,
    decode: Arc<dyn Decode>,
    aside: Option<Arc<dyn PutAside>>,
    at_gap: AtGap,
    most: usize,
    progress: Arc<Progress>,
}

/// What happens when messages that were not read yet are gone from the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtGap {
    /// Nothing more is read, and the log says so.
    #[default]
    Fail,
    /// The log says so, and what is there is read.
    Continue,
}

/// Takes messages that cannot be read.
pub trait PutAside: Send + Sync {
    /// Keeps messages of a set. They come again if this fails, or if the process ends before the set has remembered that they
    /// were read.
    ///
    /// # Errors
    /// When they cannot be kept at present.
    fn put_aside(&self, set: &WritableSet, left: &[Left]) -> Result<(), String>;
}

/// A message that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The source.
    pub source: String,
    /// The partition.
    pub partition: u32,
    /// The message's place there.
    pub offset: u64,
    /// What it says.
    pub payload: Bytes,
    /// What is wrong with it.
    pub reason: String,
}

/// Why an intake does not go on as it is.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(
        "messages {} to {} of partition {partition} of {source_name} are gone; with `gap: continue` the stream goes on behind them",
        mark + 1, first - 1
    )]
    Gap { source_name: String, partition: u32, mark: u64, first: u64 },
    #[error(
        "the set has taken messages up to {mark} of partition {partition} of {source_name}, which ends before {end}: it is not the \
         stream that it was; name another `source`, or purge the set"
    )]
    Another { source_name: String, partition: u32, mark: u64, end: u64 },
    #[error("how far the stream was read cannot be told")]
    Mark(#[source] WriteError),
}

/// Messages in hand, by default.
const MOST: usize = 4096;

impl<F: Feed> Intake<F> {
    /// Messages of `feed`, decoded by `decode`, into `set`. The name is that of the stream in logs and metrics.
    pub fn new(name: &str, feed: F, set: Arc<WritableSet>, decode: Arc<dyn Decode>) -> Self {
        let progress = Arc::new(Progress::new(name, None));
        Self { feed, set, decode, aside: None, at_gap: AtGap::default(), most: MOST, progress }
    }

    /// What happens when messages are gone.
    #[must_use]
    pub fn at_gap(mut self, at_gap: AtGap) -> Self {
        self.at_gap = at_gap;
        self
    }

    /// Where messages go that cannot be read, if not to the place that the set has for them.
    #[must_use]
    pub fn aside(mut self, aside: Arc<dyn PutAside>) -> Self {
        self.aside = Some(aside);
        self
    }

    /// How many messages are written at once, at most; 4096 by default.
    #[must_use]
    pub fn most(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// Who hears how the stream does.
    #[must_use]
    pub fn meter(mut self, meter: Arc<dyn Meter>) -> Self {
        self.progress = Arc::new(Progress::new(self.progress.stream(), Some(meter)));
        self
    }

    /// How far it has come, to be read at any time.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Reads until it is dropped. Needs a tokio runtime with timers.
    pub async fn run(self) -> Infallible {
        let mut backoff = Backoff::default();
        loop {
            let Err(trouble) = self.read(&mut backoff).await;
            let (wait, text) = (backoff.next(), chain(&trouble));
            let stream = self.progress.stream();
            tracing::error!(stream, "a stream is not read: {text}; it is tried again in {wait:?}");
            self.progress.trouble(Phase::Connecting, text);
            tokio::time::sleep(wait).await;
        }
    }

    async fn read(&self, backoff: &mut Backoff) -> Result<Infallible, Trouble> {
        let mut session = self.feed.connect().await?;
        let spans = session.spans().await?;
        let (marks, from) = self.begin(spans).await?;
        let lags = session.seek(&from).await?;
        let partitions = from.iter().zip(marks).zip(lags);
        let partitions =
            partitions.map(|((&(partition, _), position), lag)| Partition { partition, position, lag });
        self.progress.begin(partitions.collect());
        self.progress.phase(Phase::Reading);
        loop {
            let messages = session.next(self.most).await?;
            backoff.reset();
            self.take(messages).await;
        }
    }

    /// The mark of each partition, and where it goes on.
    async fn begin(&self, spans: Vec<Span>) -> Result<(Vec<Option<u64>>, Vec<(u32, u64)>), Trouble> {
        let (mut marks, mut from) = (Vec::with_capacity(spans.len()), Vec::with_capacity(spans.len()));
        for Span { partition, first, end } in spans {
            let source_name = self.feed.source().to_owned();
            let mark = self.set.table().mark(&source_name, partition).get().await.map_err(Trouble::Mark)?;
            let next = match mark {
                None => first,
                Some(mark) if mark >= end => {
                    return Err(Trouble::Another { source_name, partition, mark, end });
                }
                Some(mark) if mark + 1 < first => {
                    let gap = Trouble::Gap { source_name, partition, mark, first };
                    if self.at_gap == AtGap::Fail {
                        return Err(gap);
                    }
                    let (stream, missing) = (self.progress.stream(), first - mark - 1);
                    tracing::error!(stream, missing, "a stream goes on behind a gap: {gap}");
                    first
                }
                Some(mark) => mark + 1,
            };
            from.push((partition, next));
            marks.push(mark);
        }
        Ok((marks, from))
    }

    /// Writes messages, partition by partition. Ends when the set has them.
    async fn take(&self, messages: Vec<Message>) {
        let mut partitions: BTreeMap<u32, Vec<Message>> = BTreeMap::new();
        for message in messages {
            partitions.entry(message.partition).or_default().push(message);
        }
        for messages in partitions.into_values() {
            // Parts that are still to be written, the next one last.
            let mut parts = vec![messages];
            let mut put_aside = None;
            while let Some(mut part) = parts.pop() {
                if let Err(too_large) = self.write(&part, &mut put_aside).await {
                    match part.len() {
                        1 => self.leave(&part[0], too_large).await,
                        len => {
                            parts.push(part.split_off(len / 2));
                            parts.push(part);
                        }
                    }
                }
            }
        }
    }

    /// Writes messages of one partition as one record. Of those that cannot be read, the ones up to `put_aside` are there already.
    ///
    /// # Errors
    /// When they have more than one write may have.
    async fn write(&self, messages: &[Message], put_aside: &mut Option<u64>) -> Result<(), String> {
        let payloads: Vec<Bytes> = messages.iter().map(|message| message.payload.clone()).collect();
        let Decoded { rows, messages: of, unread } = self.decode.decode(&payloads);
        let count = unread.len() as u64;
        let left = unread.into_iter().map(|(at, reason)| self.left(&messages[at], reason));
        let left: Vec<Left> = left.filter(|left| Some(left.offset) > *put_aside).collect();
        self.put_aside(&left).await;
        *put_aside = left.last().map(|left| left.offset).max(*put_aside);
        let offsets = of.iter().map(|&at| messages[at].offset).collect();
        self.insist(&rows, offsets, messages).await?;
        self.advance(messages, count);
        Ok(())
    }

    /// Passes over a message that cannot be written.
    async fn leave(&self, message: &Message, reason: String) {
        self.put_aside(&[self.left(message, reason)]).await;
        let none = RecordBatch::new_empty(Arc::clone(self.set.schema()));
        // A write of no rows has no more than a write may have.
        let _ = self.insist(&none, Vec::new(), std::slice::from_ref(message)).await;
        self.advance(std::slice::from_ref(message), 1);
    }

    /// Writes the rows of some messages until they are taken.
    async fn insist(
        &self,
        rows: &RecordBatch,
        offsets: Vec<u64>,
        messages: &[Message],
    ) -> Result<(), String> {
        let Some(last) = messages.last() else { return Ok(()) };
        let at = Positions::new(self.feed.source(), last.partition, offsets).reaching(last.offset);
        let mut backoff = Backoff::default();
        loop {
            let written = match self.set.changes(rows.clone()) {
                Ok(changes) => self.set.write(changes.at(at.clone())).get().await,
                Err(error) => Err(error),
            };
            match written {
                Ok(_) => {
                    self.progress.phase(Phase::Reading);
                    return Ok(());
                }
                Err(error @ WriteError::TooLarge { .. }) => return Err(error.to_string()),
                Err(error) => self.wait(&mut backoff, "the set takes no rows", chain(&error)).await,
            }
        }
    }

    async fn put_aside(&self, left: &[Left]) {
        let Some(first) = left.first() else { return };
        let Some(aside) = &self.aside else {
            let (stream, count, offset) = (self.progress.stream(), left.len(), first.offset);
            tracing::warn!(stream, count, offset, "messages cannot be read; the first: {}", first.reason);
            for Left { source, partition, offset, payload, reason } in left {
                let reason = format!("offset {offset} of partition {partition} of {source}: {reason}");
                self.set.set_aside(payload, &reason);
            }
            return;
        };
        let mut backoff = Backoff::default();
        while let Err(problem) = aside.put_aside(&self.set, left) {
            self.wait(&mut backoff, "messages that cannot be read cannot be put aside", problem).await;
        }
    }

    async fn wait(&self, backoff: &mut Backoff, what: &str, problem: String) {
        let (stream, wait) = (self.progress.stream(), backoff.next());
        tracing::error!(stream, "{what}: {problem}; the stream waits, and it is tried again in {wait:?}");
        self.progress.trouble(Phase::Waiting, problem);
        tokio::time::sleep(wait).await;
    }

    fn left(&self, message: &Message, reason: String) -> Left {
        let Message { partition, offset, ref payload, .. } = *message;
        Left { source: self.feed.source().to_owned(), partition, offset, payload: payload.clone(), reason }
    }

    fn advance(&self, messages: &[Message], unread: u64) {
        let to =
            messages.iter().map(|message| (message.partition, (message.offset, message.behind))).collect();
        self.progress.advance(messages.len() as u64 - unread, unread, &to);
    }
}

impl<F> Drop for Intake<F> {
    fn drop(&mut self) {
        self.progress.ended();
    }
}

impl<F: Feed> fmt::Debug for Intake<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("stream", &self.progress.stream()).finish_non_exhaustive()
    }
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}
