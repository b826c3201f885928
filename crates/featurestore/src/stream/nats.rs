//! Streams of NATS JetStream.
//!
//! Offsets are the stream's own sequence numbers. A session has a consumer of its own on the server, without a name and without
//! acknowledgements, that begins where the store stands; it is gone when the session is.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, Event, ServerAddr,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, pull},
        context::GetStreamErrorKind,
        stream::{Info, RetentionPolicy},
    },
};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::{
    Feed, FeedError, Message, NatsSpec, Session, Span,
    variables::{filled, secret},
};

/// A stream of NATS JetStream: one partition, whose offsets are the stream's sequence numbers.
pub struct NatsFeed {
    source: String,
    servers: Vec<ServerAddr>,
    stream: String,
    subject: Option<String>,
    login: Login,
    ca: Option<PathBuf>,
}

enum Login {
    None,
    Password(String, String),
    Token(String),
    Creds(String),
}

/// Messages and bytes that are asked for at once. Half of them are left when more are asked for.
const MOST_MESSAGES: usize = 1024;
const MOST_BYTES: usize = 16 << 20;

/// How often an idle server says that it is there. A connection on which it does not for twice as long is given up.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the server keeps a consumer that nobody asks. One that is gone is made anew.
const FORGOTTEN: Duration = Duration::from_secs(120);

impl NatsFeed {
    /// What the settings name, known to stores as `source`; `root` is the project's folder.
    ///
    /// # Errors
    /// What is wrong with the settings, one sentence each.
    pub fn new(spec: &NatsSpec, root: &Path, source: String) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut sound =
            |result: Result<String, String>| result.map_err(|problem| problems.push(problem)).ok();
        let url = sound(filled(&spec.url));
        let user = spec.user.as_deref().and_then(|text| sound(filled(text)));
        let mut hidden =
            |name, text: &Option<String>| text.as_deref().and_then(|text| sound(secret(name, text)));
        let (password, token) = (hidden("password", &spec.password), hidden("token", &spec.token));
        let creds = hidden("creds", &spec.creds);
        let ca = spec.ca.as_deref().and_then(|ca| match crate::inside(root, ca) {
            Ok(path) if path.is_file() => Some(path),
            Ok(_) => sound(Err(format!("`{ca}` is no file"))).map(PathBuf::from),
            Err(problem) => sound(Err(problem)).map(PathBuf::from),
        });
        let servers = servers(url.as_deref().unwrap_or_default(), &mut problems);
        if spec.stream.is_empty() || spec.stream.contains(['.', '*', '>', '/', '\\', ' ', '\t']) {
            problems.push(format!("`{}` is no name of a stream", spec.stream));
        }
        let logins = [spec.user.is_some(), spec.token.is_some(), spec.creds.is_some()];
        if logins.iter().filter(|given| **given).count() > 1 || spec.user.is_some() != spec.password.is_some()
        {
            problems.push("a login is `user` and `password`, or `token`, or `creds`".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let login = match (user, password, token, creds) {
            (Some(user), Some(password), ..) => Login::Password(user, password),
            (.., Some(token), _) => Login::Token(token),
            (.., Some(creds)) => Login::Creds(creds),
            _ => Login::None,
        };
        Ok(Self { source, servers, stream: spec.stream.clone(), subject: spec.subject.clone(), login, ca })
    }

    fn options(&self) -> Result<ConnectOptions, FeedError> {
        // One attempt: who connects again, and when, is the intake's to say.
        let mut options = ConnectOptions::new().name("millstream").max_reconnects(1);
        options = match &self.login {
            Login::None => options,
            Login::Password(user, password) => options.user_and_password(user.clone(), password.clone()),
            Login::Token(token) => options.token(token.clone()),
            // What is wrong with credentials is not repeated: it may be part of them.
            Login::Creds(creds) => {
                options.credentials(creds).map_err(|_| self.unfit("`creds` are no credentials"))?
            }
        };
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        Ok(options)
    }

    fn unfit(&self, problem: &str) -> FeedError {
        FeedError::Unfit { problem: format!("{self}: {problem}") }
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FeedError {
        FeedError::Unreachable { server: self.to_string(), source: source.into() }
    }
}

fn servers(urls: &str, problems: &mut Vec<String>) -> Vec<ServerAddr> {
    let mut servers = Vec::new();
    for url in urls.split(',').map(str::trim) {
        match url.parse::<ServerAddr>() {
            // The text may be a secret that somebody wrote into it.
            Err(_) => problems.push("`url` is `nats://host:port` or `tls://host:port`".to_owned()),
            Ok(server) if server.username().is_some() || server.password().is_some() => {
                problems.push("`url` has a login in it; name `user` and `password`, or `token`".to_owned());
            }
            Ok(server) if !matches!(server.scheme(), "nats" | "tls") => {
                problems
                    .push(format!("`url` begins with `nats://` or `tls://`, not `{}://`", server.scheme()));
            }
            Ok(server) => servers.push(server),
        }
    }
    servers
}

/// Where it is, without what is secret.
impl fmt::Display for NatsFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server =
            |server: &ServerAddr| format!("{}://{}:{}", server.scheme(), server.host(), server.port());
        f.write_str(&self.servers.iter().map(server).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for NatsFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsFeed")
            .field("at", &self.to_string())
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// A connection, and the consumer once it reads.
pub struct NatsSession {
    client: Client,
    stream: jetstream::stream::Stream,
    subject: Option<String>,
    ended: watch::Receiver<bool>,
    reading: Option<Reading>,
}

struct Reading {
    messages: pull::Stream,
    /// The consumer's number and the stream's of the next message, if none is left out.
    next: (u64, u64),
    /// What has arrived, behind messages that may be missing.
    held: Vec<Message>,
}

impl Feed for NatsFeed {
    type Session = NatsSession;

    fn source(&self) -> &str {
        &self.source
    }

    async fn connect(&self) -> Result<NatsSession, FeedError> {
        let (ends, ended) = watch::channel(false);
        let options = self.options()?.event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                ends.send_replace(true);
            }
            std::future::ready(())
        });
        let client =
            options.connect(self.servers.as_slice()).await.map_err(|error| self.unreachable(error))?;
        let context = jetstream::new(client.clone());
        let stream = context.get_stream(&self.stream).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(problem) if problem.code() == 404 => {
                FeedError::Unknown { server: self.to_string(), what: format!("stream `{}`", self.stream) }
            }
            _ => self.unreachable(error),
        })?;
        if stream.cached_info().config.retention != RetentionPolicy::Limits {
            let problem = format!(
                "stream `{}` deletes messages once they are acknowledged; its retention must be `limits`",
                self.stream
            );
            return Err(self.unfit(&problem));
        }
        Ok(NatsSession { client, stream, subject: self.subject.clone(), ended, reading: None })
    }
}

impl NatsSession {
    async fn info(&self) -> Result<Info, FeedError> {
        self.stream.get_info().await.map_err(broken)
    }
}

fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FeedError {
    FeedError::Unreachable { server: "the stream".to_owned(), source: source.into() }
}

impl Session for NatsSession {
    async fn spans(&mut self) -> Result<Vec<Span>, FeedError> {
        let state = self.info().await?.state;
        let end = state.last_sequence + 1;
        let first = if state.messages == 0 { end } else { state.first_sequence };
        Ok(vec![Span { partition: 0, first, end }])
    }

    async fn seek(&mut self, from: &[(u32, u64)]) -> Result<Vec<u64>, FeedError> {
        let Some(&(_, from)) = from.first() else { return Ok(Vec::new()) };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::None,
            filter_subject: self.subject.clone().unwrap_or_default(),
            inactive_threshold: FORGOTTEN,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(broken)?;
        // A message that is larger than what is asked for would never come.
        let bytes = MOST_BYTES.max(2 * self.client.server_info().max_payload);
        let messages = consumer.stream().max_messages_per_batch(MOST_MESSAGES).max_bytes_per_batch(bytes);
        let messages = messages.heartbeat(HEARTBEAT).messages().await.map_err(broken)?;
        self.reading = Some(Reading { messages, next: (1, from), held: Vec::new() });
        Ok(vec![consumer.cached_info().num_pending])
    }

    async fn next(&mut self, most: usize) -> Result<Vec<Message>, FeedError> {
        let Some(reading) = &mut self.reading else { return Err(FeedError::Ended) };
        let expected = reading.next.1;
        let mut arrived = std::mem::take(&mut reading.held);
        if arrived.is_empty() {
            let first = tokio::select! {
                first = reading.messages.next() => first,
                _ = self.ended.wait_for(|ended| *ended) => None,
            };
            arrived.push(reading.number(first)?);
        }
        while arrived.len() < most
            && let Some(more) = reading.messages.next().now_or_never()
        {
            arrived.push(reading.number(more)?);
        }
        let Some(gap) = gap(expected, &arrived) else { return Ok(arrived) };
        // Numbers may be missing because messages of other subjects, or deleted ones, had them. Messages are deleted from the
        // beginning on: if the oldest that is there now stands before the gap, no gap of those that have arrived is of those.
        let (expected, offset) = (gap.0, arrived[gap.1].offset);
        if self.info().await?.state.first_sequence <= expected {
            return Ok(arrived);
        }
        if gap.1 == 0 {
            return Err(FeedError::Missed { expected, offset });
        }
        // The next call finds it at the beginning.
        let Some(reading) = &mut self.reading else { return Err(FeedError::Ended) };
        reading.held = arrived.split_off(gap.1);
        reading.next.1 = expected;
        Ok(arrived)
    }
}

/// The first offset that is missing, and which message stands behind it.
fn gap(mut expected: u64, messages: &[Message]) -> Option<(u64, usize)> {
    for (at, message) in messages.iter().enumerate() {
        if message.offset != expected {
            return Some((expected, at));
        }
        expected = message.offset + 1;
    }
    None
}

impl Reading {
    /// What the server sent, if it is the next that it sent.
    fn number(
        &mut self,
        sent: Option<Result<jetstream::Message, pull::MessagesError>>,
    ) -> Result<Message, FeedError> {
        let message = sent.ok_or(FeedError::Ended)?.map_err(broken)?;
        let info = message.info().map_err(broken)?;
        let (offset, behind) = (info.stream_sequence, info.pending);
        if info.consumer_sequence != self.next.0 || offset < self.next.1 {
            return Err(FeedError::Missed { expected: self.next.1, offset });
        }
        self.next = (info.consumer_sequence + 1, offset + 1);
        Ok(Message { partition: 0, offset, payload: message.message.payload, behind })
    }
}
