//! What taps feed: counts of the present, in as many places as there are threads that count.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use millstream_graph::{Seen, Tap};

use crate::{
    counting::Counting,
    layout::Layout,
    pane::{Pane, Requests},
    sketch::{Merge, Numbers},
};

/// What is watched of one graph, and what was counted since the last [`turn`](Self::turn).
///
/// Counting takes a lock that nobody waits for: a thread whose place is taken goes to the next one, and if all are taken the rows are
/// counted as lost.
///
/// ```
/// use std::sync::Arc;
/// use millstream_graph::{Graph, fields};
/// use millstream_monitor::{Layout, Monitor, Watching};
///
/// let mut graph = Graph::new("echo", fields! { amount: Float64 });
/// let input = graph.input();
/// graph.respond(&input);
/// let layout = Layout::new("input", graph.compile()?.input_schema(), &Watching::default()).unwrap();
/// let monitor = Monitor::new(vec![layout]);
/// graph.tap_columns(&input, ["amount".to_owned()], Arc::clone(&monitor).tap(0));
/// let pane = monitor.turn(60_000_000);
/// assert_eq!((pane.to, pane.is_empty()), (60_000_000, true));
/// # Ok::<(), millstream_graph::CompileErrors>(())
/// ```
pub struct Monitor {
    layouts: Vec<Arc<Layout>>,
    shards: Box<[Shard]>,
    /// Rows of each edge for which every place was taken.
    lost: Box<[AtomicU64]>,
    /// Requests for which every place was taken.
    lost_requests: AtomicU64,
    /// When the pane that is counted now began, if anybody has said.
    turned: Mutex<Option<i64>>,
}

/// One place to count in. On cache lines of its own, because its lock is taken for each batch.
#[repr(align(128))]
struct Shard(Mutex<Counts>);

struct Counts {
    edges: Vec<Counting>,
    requests: Requests,
    /// How long requests took that are not counted yet, in seconds.
    took: Vec<f64>,
}

/// Requests whose times are counted at once.
const AT_ONCE: usize = 128;

/// How one request went.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// `ok`, or the kind of error. There are few of them.
    pub outcome: &'a str,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether the answer was degraded.
    pub degraded: bool,
}

/// The lengths of time that are told apart exactly, in seconds: Prometheus' default buckets, and shorter ones.
pub(crate) const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

impl Monitor {
    /// Watches these edges.
    pub fn new(layouts: Vec<Layout>) -> Arc<Self> {
        let places = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        Self::with_places(layouts, places)
    }

    fn with_places(layouts: Vec<Layout>, places: usize) -> Arc<Self> {
        let layouts: Vec<Arc<Layout>> = layouts.into_iter().map(Arc::new).collect();
        let shard = || {
            let edges = layouts.iter().map(Counting::new).collect();
            Shard(Mutex::new(Counts { edges, requests: requests(), took: Vec::new() }))
        };
        Arc::new(Self {
            shards: std::iter::repeat_with(shard).take(places).collect(),
            lost: layouts.iter().map(|_| AtomicU64::new(0)).collect(),
            lost_requests: AtomicU64::new(0),
            turned: Mutex::new(None),
            layouts,
        })
    }

    /// What is watched.
    pub fn layouts(&self) -> &[Arc<Layout>] {
        &self.layouts
    }

    /// The tap for the edge of layout `at`. It counts what it sees: of a port that several steps read, it is to see one edge, as
    /// [`Graph::tap_columns`](millstream_graph::Graph::tap_columns) lets it.
    pub fn tap(self: Arc<Self>, at: usize) -> Arc<dyn Tap> {
        Arc::new(EdgeTap { monitor: self, at })
    }

    /// Counts how a request went.
    pub fn answered(&self, answered: Answered<'_>) {
        let Some(mut counts) = self.place() else {
            self.lost_requests.fetch_add(1, Relaxed);
            return;
        };
        let Counts { requests, took, .. } = &mut *counts;
        match requests.outcomes.get_mut(answered.outcome) {
            Some(count) => *count += 1,
            None => drop(requests.outcomes.insert(answered.outcome.to_owned(), 1)),
        }
        requests.degraded += u64::from(answered.degraded);
        took.push(answered.seconds);
        if took.len() >= AT_ONCE {
            counts.count_times();
        }
    }

    /// Takes what was counted since it was last asked, or since [`begin`](Self::begin), up to `now`, in microseconds since 1970 UTC. If
    /// neither was, the pane spans no time.
    pub fn turn(&self, now: i64) -> Pane {
        let mut turned = locked(&self.turned);
        let mut pane = Pane { from: turned.replace(now).unwrap_or(now), to: now, ..Pane::default() };
        pane.requests = requests();
        for Shard(shard) in &self.shards {
            let mut counts = locked(shard);
            counts.count_times();
            let edges = counts.edges.iter_mut().filter_map(Counting::take).collect();
            let requests = std::mem::replace(&mut counts.requests, requests());
            drop(counts);
            pane.merge(&Pane { edges, requests, ..Pane::default() });
        }
        for (layout, lost) in self.layouts.iter().zip(&self.lost) {
            let lost = lost.swap(0, Relaxed);
            if lost > 0 {
                pane.edges.entry(layout.edge.to_string()).or_default().lost += lost;
            }
        }
        pane.requests.lost += self.lost_requests.swap(0, Relaxed);
        pane
    }

    /// Says when counting begins, in microseconds since 1970 UTC, unless it has begun.
    pub fn begin(&self, now: i64) {
        locked(&self.turned).get_or_insert(now);
    }

    /// A place to count in, if one is free.
    #[inline]
    fn place(&self) -> Option<MutexGuard<'_, Counts>> {
        let own = this_thread();
        // There are few places, and a division takes as long as the lock.
        let own = if own < self.shards.len() { own } else { own % self.shards.len() };
        self.shards[own].0.try_lock().ok().or_else(|| self.another(own))
    }

    /// A place other than the thread's own, which is its own from now on: threads that meet in one part, because what is counted there
    /// would go from one processor's cache to the other's.
    #[cold]
    fn another(&self, own: usize) -> Option<MutexGuard<'_, Counts>> {
        let places = (own + 1..self.shards.len()).chain(0..=own);
        places.into_iter().find_map(|at| match self.shards[at].0.try_lock() {
            Ok(counts) => {
                NUMBER.set(at);
                Some(counts)
            }
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }
}

impl Counts {
    fn count_times(&mut self) {
        self.requests.seconds.add_all(&SECONDS, &self.took);
        self.took.clear();
    }
}

fn requests() -> Requests {
    Requests { seconds: Numbers::new(&SECONDS), ..Requests::default() }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static NEXT: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed));
}

/// A number for the thread, so that threads begin at different places.
#[inline]
pub(crate) fn this_thread() -> usize {
    NUMBER.get()
}

/// Counts what travels one edge.
struct EdgeTap {
    monitor: Arc<Monitor>,
    at: usize,
}

impl Tap for EdgeTap {
    fn observe(&self, seen: &Seen<'_>) {
        match self.monitor.place() {
            Some(mut counts) => counts.edges[self.at].add(seen.rows().batch()),
            None => drop(self.monitor.lost[self.at].fetch_add(seen.rows().len() as u64, Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arrow::array::RecordBatch;
    use millstream_graph::{EdgeId, Request, Rows, RunCx, RunId, rows};

    use super::*;
    use crate::{layout::Watching, sketch::Sketch};

    fn seen(tap: &Arc<dyn Tap>, edge: u32, batch: RecordBatch) {
        let (count, rows) = (batch.num_rows(), Rows::whole(batch));
        let cx = RunCx::new(RunId(1), Request::default(), count, Instant::now);
        tap.observe(&Seen::new(&rows, EdgeId(edge), &cx));
    }

    fn watched(batch: &RecordBatch, segments: &[&str]) -> Layout {
        let segments: Vec<String> = segments.iter().map(|name| (*name).to_owned()).collect();
        let watching = Watching { segments: &segments, most_segments: 2, ..Watching::default() };
        Layout::new("score", &batch.schema(), &watching).unwrap()
    }

    #[test]
    fn rows_are_counted_once_more_in_their_segment_and_those_beyond_the_bound_together() {
        let batch = rows! { country: ["de", "fr", "de", "it", "es"], amount: [1.0, 2.0, 3.0, 4.0, 5.0] };
        let monitor = Monitor::new(vec![watched(&batch, &["country"])]);
        seen(&Arc::clone(&monitor).tap(0), 0, batch);
        let pane = monitor.turn(1);
        let segments = &pane.edges["score"].segments["country"];
        let rows = |columns: &crate::pane::Columns| columns["amount"].rows();
        let kept: u64 = segments.iter().map(|(_, columns, _)| rows(columns)).sum();
        assert_eq!((segments.iter().count(), kept + segments.rest().map_or(0, rows)), (2, 5));
    }

    #[test]
    fn rows_for_which_no_place_is_free_are_lost_and_counted() {
        let batch = rows! { amount: [1.0, 2.0, 3.0] };
        let monitor = Monitor::with_places(vec![watched(&batch, &[])], 2);
        let tap = Arc::clone(&monitor).tap(0);
        {
            let _all: Vec<_> = monitor.shards.iter().map(|shard| locked(&shard.0)).collect();
            seen(&tap, 0, batch.clone());
            monitor.answered(Answered { outcome: "ok", seconds: 0.1, degraded: false });
        }
        seen(&tap, 0, batch);
        let pane = monitor.turn(1);
        assert_eq!((pane.edges["score"].rows, pane.edges["score"].lost), (3, 3));
        assert_eq!((pane.requests.lost, pane.answered(), pane.failed()), (1, 0, 0));
        assert_eq!(monitor.turn(2).requests.lost, 0);
    }

    #[test]
    fn a_thread_that_finds_its_place_taken_keeps_to_the_next() {
        let monitor = Monitor::with_places(Vec::new(), 3);
        let ok = Answered { outcome: "ok", seconds: 0.1, degraded: false };
        let own = this_thread() % 3;
        {
            let _taken = locked(&monitor.shards[own].0);
            monitor.answered(ok);
        }
        monitor.answered(ok);
        let counted = |at: usize| locked(&monitor.shards[at % 3].0).took.len();
        assert_eq!([counted(own), counted(own + 1), counted(own + 2)], [0, 2, 0]);
        assert_eq!(monitor.turn(1).answered(), 2);
    }

    #[test]
    fn a_pane_begins_where_the_last_one_ended_and_spans_no_time_before_that_is_known() {
        let monitor = Monitor::new(Vec::new());
        let span = |now: i64| {
            let pane = monitor.turn(now);
            (pane.from, pane.to)
        };
        assert_eq!((span(70), span(90)), ((70, 70), (70, 90)));
        monitor.begin(91);
        assert_eq!(span(100), (90, 100));
        let begun = Monitor::new(Vec::new());
        begun.begin(5);
        begun.begin(6);
        assert_eq!((begun.turn(9).from, begun.turn(12).from), (5, 9));
    }

    #[test]
    fn threads_that_count_together_count_what_one_would() {
        let batches: Vec<_> =
            (0..400).map(|i| rows! { amount: [f64::from(i) * 0.1, -f64::from(i)] }).collect();
        let count = |threads: usize| {
            let monitor = Monitor::with_places(vec![watched(&batches[0], &[])], threads + 1);
            let tap = Arc::clone(&monitor).tap(0);
            std::thread::scope(|scope| {
                for part in batches.chunks(batches.len() / threads) {
                    let tap = &tap;
                    scope.spawn(move || part.iter().for_each(|batch| seen(tap, 0, batch.clone())));
                }
            });
            monitor.turn(1)
        };
        let (one, four) = (count(1), count(4));
        assert_eq!(four, one);
        let Sketch::Numbers(numbers) = &one.edges["score"].columns["amount"] else { panic!("numbers") };
        assert_eq!(numbers.rows(), 800);
    }
}
