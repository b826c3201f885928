//! Load for a served graph: requests at a fixed rate, whether or not the server keeps up.
//!
//! Each request has a moment at which it should be sent. Its latency counts from that moment, also when every connection was
//! still waiting for an earlier answer: a server that stalls is seen to delay all that should have been sent meanwhile
//! (coordinated omission), as callers who do not know of each other would see it.

mod plot;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{
    Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{timeout, timeout_at},
};

/// Latencies are kept with three digits up to so many microseconds.
const LONGEST_US: u64 = 600_000_000;
/// The percentiles that are reported.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

/// What to send, how often, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where requests go: `http://host:port/path`.
    pub url: Uri,
    /// The bodies to post, in turn; without any, requests are GET.
    pub bodies: Vec<Bytes>,
    /// Requests per second.
    pub rate: f64,
    /// How long requests are sent.
    pub duration: Duration,
    /// Connections; each carries one request at a time.
    pub connections: usize,
    /// What a request may take, from the moment at which it should be sent.
    pub timeout: Duration,
}

/// Why load could not be put on a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The URL is not one that can be asked.
    #[error("`{url}` is not an address such as http://127.0.0.1:8080/v1/graphs/fraud")]
    Url {
        /// The URL.
        url: Uri,
    },
    /// The server does not answer.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What came back.
#[derive(Debug)]
pub struct Report {
    /// Requests per second that were asked for.
    pub rate: f64,
    /// How long requests were sent.
    pub duration: Duration,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer: connections that broke, and timeouts.
    pub failed: u64,
    /// Latencies of answers below 400, in microseconds.
    pub accepted: Histogram<u64>,
    /// Latencies of all other answers, in microseconds.
    pub refused: Histogram<u64>,
}

impl Load {
    /// Sends the load, and waits for what is still to be answered.
    ///
    /// # Errors
    /// When the URL is not one of a server, or nobody answers there.
    pub async fn run(&self, mut sent: impl FnMut(u64)) -> Result<Report, LoadError> {
        let wrong = || LoadError::Url { url: self.url.clone() };
        let host = self.url.host().filter(|_| self.url.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let place = format!("{host}:{}", self.url.port_u16().unwrap_or(80));
        let unreachable = |source| LoadError::Unreachable { address: place.clone(), source };
        let mut addresses = tokio::net::lookup_host(&place).await.map_err(unreachable)?;
        let address = addresses.next().ok_or_else(wrong)?;
        drop(TcpStream::connect(address).await.map_err(unreachable)?);

        let total = (self.rate * self.duration.as_secs_f64()).round() as u64;
        let due = Arc::new(Due { slots: Semaphore::new(0), next: AtomicU64::new(0), total });
        // Connections are there before the first request is due; one that could not be made is tried again then.
        let mut wires = Vec::new();
        for _ in 0..self.connections.max(1) {
            wires.push(Wire::connect(address).await.unwrap_or_default());
        }
        let start = Instant::now();
        let mut connections = JoinSet::new();
        for wire in wires {
            let worker = Worker { load: self.clone(), address, start, due: Arc::clone(&due) };
            connections.spawn(worker.run(wire));
        }
        let pacer = Pacer::start(self.clone(), start, Arc::clone(&due)).map_err(unreachable)?;
        self.wait(start, &due, &mut sent).await;
        drop(pacer);
        due.slots.close();
        let mut report = Report {
            rate: self.rate,
            duration: self.duration,
            statuses: BTreeMap::new(),
            failed: 0,
            accepted: histogram(),
            refused: histogram(),
        };
        while let Some(part) = connections.join_next().await {
            // A worker does not panic; were it to, its requests would count as failed below.
            if let Ok(part) = part {
                report.add(&part);
            }
        }
        report.failed = total - report.statuses.values().sum::<u64>().min(total);
        Ok(report)
    }

    /// Waits until everything that was due has been sent, telling how much that is so far.
    async fn wait(&self, start: Instant, due: &Due, sent: &mut impl FnMut(u64)) {
        // What is not sent by then would be too late to count.
        let end = start + self.duration + self.timeout;
        let all = async {
            while due.next.load(Relaxed) < due.total {
                sent(due.next.load(Relaxed));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = timeout_at(end.into(), all).await;
    }

    /// When request `number` should be sent, counted from the start.
    fn moment(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    fn request(&self, number: u64) -> Option<Request<Full<Bytes>>> {
        let host = self.url.authority()?.as_str();
        let path = self.url.path_and_query()?.as_str();
        let request = Request::builder().uri(path).header(HOST, host);
        let count = self.bodies.len() as u64;
        match number.checked_rem(count) {
            Some(at) => {
                let body = self.bodies[at as usize].clone();
                request.method("POST").header(CONTENT_TYPE, "application/json").body(Full::new(body)).ok()
            }
            None => request.body(Full::default()).ok(),
        }
    }
}

/// Releases requests when they are due, on a thread of its own: the runtime's timers are no finer than a millisecond.
struct Pacer {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    fn start(load: Load, start: Instant, due: Arc<Due>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let pace = move || {
            let mut released = 0;
            while released < due.total && !stopped.load(Relaxed) {
                let by_now = ((start.elapsed().as_secs_f64() * load.rate) as u64 + 1).min(due.total);
                due.slots.add_permits((by_now - released) as usize);
                released = by_now;
                std::thread::park_timeout(
                    (start + load.moment(released)).saturating_duration_since(Instant::now()),
                );
            }
        };
        let thread = std::thread::Builder::new().name("pace".to_owned()).spawn(pace)?;
        Ok(Self { thread: Some(thread), stop })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The requests that are due.
struct Due {
    slots: Semaphore,
    next: AtomicU64,
    total: u64,
}

/// One connection, made again when it breaks.
struct Worker {
    load: Load,
    address: SocketAddr,
    start: Instant,
    due: Arc<Due>,
}

impl Worker {
    async fn run(self, mut wire: Wire) -> Report {
        let mut report = Report {
            rate: 0.0,
            duration: Duration::ZERO,
            statuses: BTreeMap::new(),
            failed: 0,
            accepted: histogram(),
            refused: histogram(),
        };
        while let Ok(slot) = self.due.slots.acquire().await {
            slot.forget();
            let number = self.due.next.fetch_add(1, Relaxed);
            let moment = self.start + self.load.moment(number);
            let answer = timeout(
                (moment + self.load.timeout).saturating_duration_since(Instant::now()),
                self.ask(&mut wire, number),
            );
            match answer.await {
                Ok(Some(status)) => report.note(status, moment.elapsed()),
                _ => wire = Wire::default(),
            }
        }
        report
    }

    async fn ask(&self, wire: &mut Wire, number: u64) -> Option<StatusCode> {
        if !wire.sender.as_ref().is_some_and(SendRequest::is_ready) {
            *wire = Wire::connect(self.address).await?;
        }
        let sender = wire.sender.as_mut()?;
        let answer = sender.send_request(self.load.request(number)?).await.ok()?;
        let status = answer.status();
        answer.into_body().collect().await.ok()?;
        sender.ready().await.ok();
        Some(status)
    }
}

/// A connection, and the task that drives it.
#[derive(Default)]
struct Wire {
    sender: Option<SendRequest<Full<Bytes>>>,
    /// Dropped, and so ended, with the connection.
    _driver: JoinSet<()>,
}

impl Wire {
    async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ends is seen by whoever sends.
            let _ = connection.await;
        });
        Some(Self { sender: Some(sender), _driver: driver })
    }
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram takes.
    Histogram::new_with_bounds(1, LONGEST_US, 3).unwrap_or_else(|_| unreachable!("the bounds are right"))
}

impl Report {
    fn note(&mut self, status: StatusCode, latency: Duration) {
        *self.statuses.entry(status.as_u16()).or_default() += 1;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        let of = if status.as_u16() < 400 { &mut self.accepted } else { &mut self.refused };
        of.saturating_record(micros.max(1));
    }

    fn add(&mut self, part: &Report) {
        for (status, count) in &part.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        // Both have the same bounds.
        let _ = self.accepted.add(&part.accepted);
        let _ = self.refused.add(&part.refused);
    }

    /// Accepted answers per second.
    pub fn goodput(&self) -> f64 {
        self.accepted.len() as f64 / self.duration.as_secs_f64()
    }

    /// The report as JSON; latencies are microseconds.
    pub fn json(&self) -> Value {
        let latencies = |of: &Histogram<u64>| {
            let at = PERCENTILES.map(|p| (format!("p{p}"), json!(of.value_at_percentile(p))));
            json!({ "count": of.len(), "us": at.into_iter().collect::<serde_json::Map<_, _>>() })
        };
        json!({
            "rate": self.rate,
            "seconds": self.duration.as_secs_f64(),
            "goodput": self.goodput(),
            "statuses": self.statuses.iter().map(|(s, n)| (s.to_string(), json!(n))).collect::<serde_json::Map<_, _>>(),
            "failed": self.failed,
            "accepted": latencies(&self.accepted),
            "refused": latencies(&self.refused),
        })
    }

    /// The latencies by percentile, as a picture.
    pub fn svg(&self) -> String {
        plot::by_percentile(&[("accepted", &self.accepted), ("refused", &self.refused)])
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:.0} requests/s asked for, {:.0}/s accepted", self.rate, self.goodput())?;
        for (status, count) in &self.statuses {
            writeln!(f, "  {status}: {count}")?;
        }
        if self.failed > 0 {
            writeln!(f, "  no answer: {}", self.failed)?;
        }
        write!(f, "latency       p50       p90       p99     p99.9       max")?;
        for (name, of) in [("accepted", &self.accepted), ("refused", &self.refused)] {
            if of.is_empty() {
                continue;
            }
            write!(f, "\n{name:8}")?;
            for percentile in PERCENTILES {
                write!(f, "{:>10}", shown(of.value_at_percentile(percentile)))?;
            }
        }
        Ok(())
    }
}

/// Microseconds as people read them.
fn shown(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
