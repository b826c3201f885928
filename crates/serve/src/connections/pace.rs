//! What a connection is doing, as its socket and its service see it, and how long it may.

use std::{
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// What a connection is doing. Everything of a connection happens in its task, so nothing here is contended, and a request sets
/// no timer and reads no clock.
#[derive(Default)]
pub(crate) struct Pace {
    /// Requests under way.
    open: AtomicU32,
    /// Part of a request's head has arrived, and nothing is under way.
    reading_head: AtomicBool,
    /// Grows with every request and every part of a reply, and over HTTP/1.1 with everything that is written.
    moves: AtomicU32,
}

/// A request under way, until it is dropped.
pub(crate) struct Open<P: Deref<Target = Pace>>(P);

impl Pace {
    /// A connection of which nothing has arrived. It owes a head.
    pub(crate) fn new() -> Self {
        Self { reading_head: AtomicBool::new(true), ..Self::default() }
    }

    pub(crate) fn open(&self) -> Open<&Self> {
        self.opened();
        Open(self)
    }

    fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
        self.reading_head.store(false, Relaxed);
        self.moves.fetch_add(1, Relaxed);
    }

    /// Bytes have arrived, which between requests are the beginning of a head.
    pub(crate) fn arrived(&self) {
        if !self.is_busy() {
            self.reading_head.store(true, Relaxed);
        }
    }

    /// Bytes were taken by the client.
    pub(crate) fn wrote(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    pub(crate) fn moves(&self) -> u32 {
        self.moves.load(Relaxed)
    }
}

/// A request that goes on behind its answer's head keeps its connection from being idle.
#[derive(Clone)]
pub(crate) struct Busy(Arc<Pace>);

impl Busy {
    pub(crate) fn new(pace: &Arc<Pace>) -> Self {
        Self(Arc::clone(pace))
    }

    pub(crate) fn open(&self) -> Open<Arc<Pace>> {
        self.0.opened();
        Open(Arc::clone(&self.0))
    }
}

impl<P: Deref<Target = Pace>> Drop for Open<P> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Ends connections that keep a head or themselves for too long.
///
/// Its timer is set when a head is incomplete after everything that has arrived was read, and else looked at only when it is over:
/// a connection on which something moved meanwhile starts anew. So an idle one is closed after `idle`, at the latest after twice as long.
pub(crate) struct Watchdog {
    head: Duration,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    /// The moves so far when the timer was set, and whether it was for a head.
    set_at: (u32, bool),
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    Head,
    Idle,
}

impl Watchdog {
    pub(crate) fn new(head: Duration, idle: Duration) -> Self {
        Self { head, idle, timer: Box::pin(tokio::time::sleep(head)), set_at: (0, true) }
    }

    /// Whether a head has begun to arrive for which the timer is not set yet, so that a poll is due before the timer is.
    pub(crate) fn has_news(&self, pace: &Pace) -> bool {
        pace.reading_head.load(Relaxed) && self.set_at != (pace.moves(), true)
    }

    /// Looks at the connection after it has done all it can; ready when it is overdue.
    pub(crate) fn poll(&mut self, pace: &Pace, cx: &mut Context<'_>) -> Poll<Overdue> {
        let moves = pace.moves();
        let head = pace.reading_head.load(Relaxed);
        if self.has_news(pace) {
            self.set(moves, true);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let before = self.set_at;
            self.set(moves, head);
            if before == self.set_at && !pace.is_busy() {
                return Poll::Ready(if head { Overdue::Head } else { Overdue::Idle });
            }
        }
        Poll::Pending
    }

    fn set(&mut self, moves: u32, head: bool) {
        self.set_at = (moves, head);
        let time = if head { self.head } else { self.idle };
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    /// When, in seconds from now, the connection is overdue, and for what.
    async fn overdue(dog: &mut Watchdog, pace: &Pace) -> (u64, Overdue) {
        let start = Instant::now();
        let why = poll_fn(|cx| dog.poll(pace, cx)).await;
        (start.elapsed().as_secs(), why)
    }

    async fn passes(dog: &mut Watchdog, pace: &Pace, seconds: u64) {
        let looked = tokio::time::timeout(Duration::from_secs(seconds), overdue(dog, pace)).await;
        assert!(looked.is_err(), "overdue too early: {looked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_and_no_byte_earns_more() {
        let pace = Pace::new();
        let mut dog = Watchdog::new(HEAD, IDLE);
        passes(&mut dog, &pace, 9).await;
        pace.arrived();
        assert_eq!(overdue(&mut dog, &pace).await, (1, Overdue::Head), "the first head, from the start on");

        let pace = Pace::new();
        let mut dog = Watchdog::new(HEAD, IDLE);
        for _ in 0..3 {
            drop(pace.open());
            passes(&mut dog, &pace, 8).await;
            pace.arrived();
            passes(&mut dog, &pace, 8).await;
            pace.arrived();
        }
        assert_eq!(overdue(&mut dog, &pace).await, (2, Overdue::Head), "the head behind the third request");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_its_time_and_one_with_a_request_any() {
        let pace = Pace::new();
        let mut dog = Watchdog::new(HEAD, IDLE);
        let open = pace.open();
        passes(&mut dog, &pace, 1000).await;
        drop(open);
        let (seconds, why) = overdue(&mut dog, &pace).await;
        assert!(why == Overdue::Idle && seconds <= IDLE.as_secs(), "{seconds}");
        drop(pace.open());
        let (seconds, why) = overdue(&mut dog, &pace).await;
        assert!(why == Overdue::Idle && (75..=150).contains(&seconds), "{seconds}");
        // A client that takes its reply is not idle.
        for _ in 0..5 {
            pace.wrote();
            passes(&mut dog, &pace, 70).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_under_way_has_any_time_and_a_client_that_takes_none_has_its_own() {
        let pace = Arc::new(Pace::new());
        let busy = Busy::new(&pace);
        let mut dog = Watchdog::new(HEAD, IDLE);
        drop(pace.open());
        let part = busy.open();
        passes(&mut dog, &pace, 1000).await;
        drop(part);
        for _ in 0..5 {
            drop(busy.open());
            passes(&mut dog, &pace, 70).await;
        }
        let (seconds, why) = overdue(&mut dog, &pace).await;
        assert!(why == Overdue::Idle && seconds <= 150, "{seconds}");
    }
}
