//! Connections: accepted, kept within limits, and ended without losing a request.

mod aside;
mod pace;
mod socket;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use crate::{body::BodyLimits, oip, refusals::Refusals, security::tls::Tls, service::may_stream};
use aside::Aside;
pub(crate) use pace::Busy;
use pace::{Overdue, Pace, Watchdog};
use socket::Socket;

/// After a failed accept, such as for want of file descriptors, the next is tried only then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait in a listener's backlog when it is closed.
const BACKLOG: usize = 1024;
/// Before the process ends, clients have so long without a request to come with one on a connection that they hold.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_STEP: Duration = Duration::from_millis(50);
/// Requests that a client has reset and that nobody has looked at yet; then the connection is ended.
const PENDING_RESETS: usize = 20;
/// Streams that were reset because their client broke the rules; then the connection is ended.
const ERROR_RESETS: usize = 256;

/// What clients may take of a server by how they connect. Bounds on bodies are in `body` and in [`DecodeLimits`](crate::DecodeLimits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections: usize,
    /// The time from a request's first byte, or from the beginning of the connection, to the end of its head.
    pub head: Duration,
    /// The bytes of a request's head: its first line and its headers. Over HTTP/1.1, trailers too.
    pub head_bytes: usize,
    /// The bytes of a request's path and query.
    pub uri_bytes: usize,
    /// The time that a connection is kept without a request. Longer than load balancers keep theirs, so that they close first and
    /// send no request into a connection that is being closed.
    pub idle: Duration,
    /// How fast a body must arrive.
    pub body: BodyLimits,
    /// Requests at once over one HTTP/2 connection.
    pub http2_streams: u32,
    /// An HTTP/2 client that sends nothing for so long is asked whether it is there.
    pub http2_ping: Duration,
    /// The time that it then has to answer.
    pub http2_pong: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            head: Duration::from_secs(10),
            head_bytes: 32 << 10,
            uri_bytes: 8 << 10,
            idle: Duration::from_secs(75),
            body: BodyLimits::default(),
            http2_streams: 256,
            http2_ping: Duration::from_secs(30),
            http2_pong: Duration::from_secs(10),
        }
    }
}

/// How far a server is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    Serving,
    /// Clients are told to go elsewhere next.
    Draining,
    /// A connection is closed as soon as nothing is under way on it.
    Closing,
}

/// The connections of one listener. Dropping them ends them.
pub(crate) struct Connections {
    common: Arc<Common>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
    stage: watch::Sender<Stage>,
}

struct Common {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    limits: ConnectionLimits,
    tls: Option<Arc<Tls>>,
    refusals: Refusals,
    /// While draining: connections with a request under way, and requests that have come.
    busy: AtomicUsize,
    came: AtomicUsize,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits, tls: Option<Arc<Tls>>, refusals: Refusals) -> Self {
        let mut http1 = http1::Builder::new();
        // The watchdog has the time of heads: hyper's own would also run between requests. Replies are not gathered for clients
        // that send requests ahead (`pipeline_flush`): nothing bounds what is gathered for one that does not read.
        http1
            .header_read_timeout(None)
            .max_header_size(limits.head_bytes)
            // The read buffer of one connection.
            .max_buf_size(limits.head_bytes.max(64 << 10));
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .keep_alive_interval(limits.http2_ping)
            .keep_alive_timeout(limits.http2_pong);
        let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let (busy, came) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            common: Arc::new(Common { http1, http2, limits, tls, refusals, busy, came }),
            slots,
            tasks: JoinSet::new(),
            stage: watch::Sender::new(Stage::Serving),
        }
    }

    /// Accepts connections until `until` is ready.
    pub(crate) async fn accept<S, F, B>(
        &mut self,
        listener: &TcpListener,
        service: &Arc<S>,
        until: impl Future<Output = ()>,
    ) where
        S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let mut until = pin!(until);
        loop {
            while self.tasks.try_join_next().is_some() {}
            let accept = async {
                let slot = Arc::clone(&self.slots).acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                biased;
                () = &mut until => break,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.serve((stream, from.ip()), slot.ok(), service),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts the connections that clients have made already: closing a listener resets those in its backlog.
    pub(crate) fn accept_waiting<S, F, B>(&mut self, listener: &TcpListener, service: &Arc<S>)
    where
        S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        for _ in 0..BACKLOG {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
            let Some(Ok((stream, from))) = listener.accept().now_or_never() else { return };
            self.serve((stream, from.ip()), Some(slot), service);
        }
    }

    fn serve<S, F, B>(
        &mut self,
        client: (TcpStream, IpAddr),
        slot: Option<OwnedSemaphorePermit>,
        service: &Arc<S>,
    ) where
        S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let (common, stage) = (Arc::clone(&self.common), self.stage.subscribe());
        let service = Arc::clone(service);
        self.tasks.spawn(async move {
            let _slot = slot;
            common.connection(client, &service, stage).await;
        });
    }

    /// Tells clients over HTTP/2 to go elsewhere with further requests. Over HTTP/1.1, answers have to say so.
    pub(crate) fn drain(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Answers what still comes on open connections until nothing has for a while, then closes them.
    pub(crate) async fn close(&mut self) {
        let mut quiet = Duration::ZERO;
        let mut came = self.common.came.load(SeqCst);
        while quiet < QUIET {
            while self.tasks.try_join_next().is_some() {}
            if self.tasks.is_empty() {
                return;
            }
            tokio::time::sleep(QUIET_STEP).await;
            let now = self.common.came.load(SeqCst);
            let moved = now != came || self.common.busy.load(SeqCst) > 0;
            quiet = if moved { Duration::ZERO } else { quiet + QUIET_STEP };
            came = now;
        }
        self.stage.send_replace(Stage::Closing);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Common {
    async fn connection<S, F, B>(
        &self,
        (stream, from): (TcpStream, IpAddr),
        service: &Arc<S>,
        mut stage: watch::Receiver<Stage>,
    ) where
        S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        // Replies are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let pace = Arc::new(Pace::new());
        let socket = tokio::select! {
            biased;
            begun = tokio::time::timeout(self.limits.head, self.begin(stream, &pace)) => match begun {
                Ok(Some(socket)) => socket,
                Ok(None) => return,
                Err(_) => return self.refusals.count("slow_head"),
            },
            () = closing(&mut stage) => return,
        };
        let http2 = socket.is_http2();
        let watched = Arc::clone(&pace);
        let service = Arc::clone(service);
        let service = service_fn(move |mut request: Request<Incoming>| {
            if (http2 && oip::is_call(request.headers())) || may_stream(&request) {
                request.extensions_mut().insert(Busy::new(&watched));
            }
            let (pace, service) = (Arc::clone(&watched), Arc::clone(&service));
            // The answer is made inside: a future that is handed to another is held by it twice, and all of that is moved.
            async move {
                let _open = pace.open();
                Ok::<_, Infallible>(service(request, from).await)
            }
        });
        let io = TokioIo::new(socket);
        if http2 {
            self.drive(self.http2.serve_connection(io, service), &pace, stage, Stage::Draining).await;
        } else {
            self.drive(self.http1.serve_connection(io, service), &pace, stage, Stage::Closing).await;
        }
    }

    /// Shakes hands and waits for the first bytes; none when the client goes, or speaks something else.
    async fn begin(&self, stream: TcpStream, pace: &Arc<Pace>) -> Option<Socket> {
        match Socket::begin(stream, self.tls.as_deref(), Arc::clone(pace)).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                if self.tls.is_some() && error.kind() == io::ErrorKind::InvalidData {
                    tracing::debug!(%error, "hands were not shaken");
                    self.refusals.count("tls");
                }
                None
            }
        }
    }

    /// Serves a connection to its end; from the stage `last` on it takes no more than what is under way.
    async fn drive<C>(&self, connection: C, pace: &Pace, mut stage: watch::Receiver<Stage>, last: Stage)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut connection = pin!(connection);
        let mut watchdog = Watchdog::new(self.limits.head, self.limits.idle);
        let mut drained = Drained { common: self, counted: false, moves: None };
        let mut told = false;
        let aside = Aside::new();
        let waker = Waker::from(Arc::clone(&aside));
        loop {
            let now = *stage.borrow_and_update();
            aside.look();
            if now >= last && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            let event = {
                let mut changed = pin!(stage.changed());
                poll_fn(|cx| {
                    let ended = connection.as_mut().poll(cx);
                    if now != Stage::Serving {
                        drained.look(pace);
                    }
                    if let Poll::Ready(ended) = ended {
                        return Poll::Ready(Event::Ended(ended));
                    }
                    if !aside.happened(cx) && !watchdog.has_news(pace) {
                        return Poll::Pending;
                    }
                    let cx = &mut Context::from_waker(&waker);
                    if let Poll::Ready(overdue) = watchdog.poll(pace, cx) {
                        return Poll::Ready(Event::Overdue(overdue));
                    }
                    changed.as_mut().poll(cx).map(|_| Event::Stage)
                })
                .await
            };
            match event {
                Event::Stage => {}
                Event::Ended(ended) => return self.ended(ended),
                // First politely; a client that does not read is still there the next time.
                Event::Overdue(Overdue::Idle) if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                Event::Overdue(overdue) => {
                    return self.refusals.count(match overdue {
                        Overdue::Head => "slow_head",
                        Overdue::Idle => "slow_client",
                    });
                }
            }
        }
    }

    fn ended(&self, ended: Result<(), hyper::Error>) {
        let Err(error) = ended else { return };
        tracing::debug!(%error, "a connection ended badly");
        if error.is_parse_too_large() {
            self.refusals.count("head_too_large");
        } else if error.is_parse() {
            self.refusals.count("malformed_head");
        }
    }
}

/// Ready when connections on which nothing is under way are closed.
async fn closing(stage: &mut watch::Receiver<Stage>) {
    let _ = stage.wait_for(|stage| *stage == Stage::Closing).await.map(drop);
}

enum Event {
    Ended(Result<(), hyper::Error>),
    Overdue(Overdue),
    Stage,
}

/// What one connection adds to what all of them do while draining.
struct Drained<'c> {
    common: &'c Common,
    counted: bool,
    moves: Option<u32>,
}

impl Drained<'_> {
    fn look(&mut self, pace: &Pace) {
        let (busy, moves) = (pace.is_busy(), pace.moves());
        if busy != self.counted {
            self.counted = busy;
            if busy {
                self.common.busy.fetch_add(1, SeqCst);
            } else {
                self.common.busy.fetch_sub(1, SeqCst);
            }
        }
        if self.moves.replace(moves).is_some_and(|before| before != moves) {
            self.common.came.fetch_add(1, SeqCst);
        }
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.common.busy.fetch_sub(1, SeqCst);
        }
    }
}
