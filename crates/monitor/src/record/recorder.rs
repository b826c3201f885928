//! What the serving path calls.

use std::{
    ops::AddAssign,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arrow::array::RecordBatch;
use millstream_graph::RunId;

use super::{
    error::Mistakes,
    hour::hour_of,
    layout::{Layout, Watched},
    open::{OpenRuns, Places, Seen, State, Swept},
    settings::{Checked, RecordSettings},
};

/// Takes what requests ask and what steps answer, for a [`Writer`](super::Writer) to write. Shared by all runs of a plan.
///
/// It never waits for the disk and holds no more than its settings say; what has no room is dropped and counted.
pub struct Recorder {
    pub(super) checked: Checked,
    pub(super) layout: Layout,
    pub(super) counters: Counters,
    open: OpenRuns,
    ended: Mutex<Vec<Ended>>,
    /// Rows of ended requests that are not on disk yet, those in the hands of a writer included.
    waiting: AtomicUsize,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished<'a> {
    /// The run.
    pub run: RunId,
    /// The caller's name for the request.
    pub request_id: Option<&'a str>,
    /// When the request came, in microseconds since 1970 UTC.
    pub at: i64,
    /// How long it took, in microseconds.
    pub took: i64,
    /// `ok`, or the kind of the error.
    pub outcome: &'a str,
    /// The steps that were replaced by something lesser.
    pub degraded: &'a [String],
    /// The version of the graph, then those that the setting `versions` names, in its order. Those that are missing are null.
    pub versions: Arc<[String]>,
}

/// An ended request whose rows wait to be written.
pub(super) struct Ended {
    pub(super) run: RunId,
    pub(super) request_id: Option<String>,
    pub(super) at: i64,
    pub(super) hour: i64,
    pub(super) took: i64,
    pub(super) outcome: String,
    pub(super) degraded: Vec<String>,
    pub(super) versions: Arc<[String]>,
    /// The rows of the request that are logged, ascending.
    pub(super) rows: Vec<u32>,
    pub(super) seen: Vec<Seen>,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        /// What a recorder and its writer have counted since they were made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, more: Self) {
                $(self.$name += more.$name;)*
            }
        }
    };
}

counters! {
    /// Observations that the table of running requests had no room for, and those that had been held of the same runs or came after
    /// their run was given up.
    observations_dropped,
    /// Requests that ended and are not logged because an observation had no room.
    runs_dropped,
    /// Runs that ended without any observed row that knows its place.
    runs_unseen,
    /// Runs that were abandoned.
    runs_abandoned,
    /// Runs that did not end in time.
    runs_evicted,
    /// Requests of which the sample has no row.
    runs_unsampled,
    /// Requests whose time is outside the years 1 to 9999.
    runs_untimed,
    /// Observed rows that no longer know which row of the request they are.
    rows_lost,
    /// Observed rows that came over an edge a second time for the same row of the request: the first is logged.
    rows_repeated,
    /// Observed rows of an edge that is not watched, or of another schema than their edge has.
    rows_mismatched,
    /// Rows of ended requests that were dropped because too many wait.
    rows_dropped,
    /// Rows of ended requests that could not be put together.
    rows_broken,
    /// Rows that are in files.
    rows_written,
    /// Files that could not be written.
    write_failures,
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl Recorder {
    /// A recorder of the graph called `graph`, whose plan has these edges. `env` reads the environment.
    ///
    /// # Errors
    /// When the settings are wrong or do not fit the edges: all that is wrong with them.
    pub fn new(
        graph: &str,
        settings: &RecordSettings,
        edges: &[Watched],
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let checked = settings.check(graph, &mut mistakes);
        let hmac = settings.secret(env, &mut mistakes);
        let layout = Layout::new(settings, edges, hmac, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let open_rows = checked.buffer_rows.saturating_mul(edges.len().max(1));
        Ok(Self {
            checked,
            layout,
            counters: Counters::default(),
            open: OpenRuns::new(open_rows),
            ended: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// The folder of the log: what a [`Reader`](super::Reader) opens.
    pub fn folder(&self) -> &Path {
        &self.checked.root
    }

    /// The columns of the log.
    pub fn schema(&self) -> &arrow::datatypes::SchemaRef {
        &self.layout.schema
    }

    /// Sees the rows that travel watched edge `edge`. `place` says which row of the request a row of the batch is.
    ///
    /// The batch is held by reference count until its run is finished, abandoned, or too old.
    pub fn observe(
        &self,
        run: RunId,
        edge: usize,
        batch: &RecordBatch,
        place: impl Fn(usize) -> Option<u32>,
    ) {
        self.observe_for(None, run, edge, batch, place);
    }

    /// The same for a request that has a name, which nobody has any more when its caller has gone: such a run is abandoned when the
    /// log is drained next.
    pub fn observe_for(
        &self,
        asker: Option<&Arc<str>>,
        run: RunId,
        edge: usize,
        batch: &RecordBatch,
        place: impl Fn(usize) -> Option<u32>,
    ) {
        if edge >= self.layout.edges.len() {
            return add(&self.counters.rows_mismatched, batch.num_rows());
        }
        let (places, lost) = Places::read(batch.num_rows(), place);
        if lost > 0 {
            add(&self.counters.rows_lost, lost);
        }
        let Some(places) = places.filter(|_| batch.num_rows() > 0) else { return };
        let seen = Seen { edge, batch: batch.clone(), places };
        let dropped = self.open.hold(run.0, asker, seen, self.layout.edges.len());
        if dropped > 0 {
            add(&self.counters.observations_dropped, dropped);
        }
    }

    /// Ends a run: its rows wait to be written from now on. Comes after the last of its observations.
    pub fn finish(&self, finished: Finished<'_>) {
        let counters = &self.counters;
        let seen = match self.open.take_run(finished.run.0) {
            None => return add(&counters.runs_unseen, 1),
            Some(State::GivenUp) => return add(&counters.runs_dropped, 1),
            // Counted when it was.
            Some(State::Evicted) => return,
            Some(State::Open(seen)) => seen,
        };
        let Some(hour) = hour_of(finished.at) else { return add(&counters.runs_untimed, 1) };
        let rows = self.sampled(&finished, &seen);
        if rows.is_empty() {
            return add(&counters.runs_unsampled, 1);
        }
        let ended = Ended {
            run: finished.run,
            request_id: finished.request_id.map(str::to_owned),
            at: finished.at,
            hour,
            took: finished.took,
            outcome: finished.outcome.to_owned(),
            degraded: finished.degraded.to_vec(),
            versions: finished.versions,
            rows,
            seen,
        };
        let count = ended.rows.len();
        let waiting = self.waiting.fetch_add(count, Ordering::Relaxed);
        if waiting.saturating_add(count) > self.checked.buffer_rows {
            self.written(count);
            return add(&counters.rows_dropped, count);
        }
        self.queue().push(ended);
    }

    /// Forgets a run that ends without a reply, such as one whose caller has gone.
    pub fn abandon(&self, run: RunId) {
        match self.open.take_run(run.0) {
            Some(State::Open(_) | State::GivenUp) => add(&self.counters.runs_abandoned, 1),
            Some(State::Evicted) | None => {}
        }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Rows of ended requests that wait to be written.
    pub fn waiting_rows(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Rows of running requests that are held, once per watched edge.
    pub fn open_rows(&self) -> usize {
        self.open.rows()
    }

    /// Gives up runs that are too old, and takes those that have ended.
    pub(super) fn take_ended(&self, now: i64) -> Vec<Ended> {
        let Swept { evicted, abandoned } = self.open.sweep(now, self.checked.open_for);
        add(&self.counters.runs_evicted, evicted);
        add(&self.counters.runs_abandoned, abandoned);
        std::mem::take(&mut *self.queue())
    }

    /// So many rows wait no longer.
    pub(super) fn written(&self, rows: usize) {
        self.waiting.fetch_sub(rows, Ordering::Relaxed);
    }

    /// The rows of a request that the sample has, ascending.
    fn sampled(&self, finished: &Finished<'_>, seen: &[Seen]) -> Vec<u32> {
        let Layout { sample, key, .. } = &self.layout;
        let run = finished.request_id.is_none().then(|| finished.run.to_string());
        let name = finished.request_id.or(run.as_deref()).unwrap_or_default().as_bytes();
        let by_name = sample.keeps(name);
        let Some((edge, column)) = key.filter(|_| !sample.all()) else {
            return if by_name { rows_of(seen) } else { Vec::new() };
        };
        let rows = rows_of(seen);
        let mut by_key = vec![None; rows.len()];
        for seen in seen.iter().filter(|seen| seen.edge == edge) {
            let keys = seen.batch.columns().get(column);
            let kept = keys.and_then(|keys| sample.keeps_keys(keys.as_ref()).ok()).unwrap_or_default();
            for (row, kept) in kept.into_iter().enumerate() {
                let at = seen.places.get(row).and_then(|place| rows.binary_search(&place).ok());
                if let Some(by_key) = at.map(|at| &mut by_key[at]).filter(|by_key| by_key.is_none()) {
                    *by_key = kept;
                }
            }
        }
        // A row without a key, or one that never came over the key's edge, is chosen by the request's name.
        let kept = rows.into_iter().zip(by_key).filter(|(_, by_key)| by_key.unwrap_or(by_name));
        kept.map(|(row, _)| row).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a request that were seen anywhere, ascending.
fn rows_of(seen: &[Seen]) -> Vec<u32> {
    let longest = seen.iter().map(|seen| seen.batch.num_rows()).max().unwrap_or(0);
    if seen.iter().all(|seen| seen.places == Places::Whole) {
        return (0..longest).map_while(|row| u32::try_from(row).ok()).collect();
    }
    let places =
        seen.iter().flat_map(|seen| (0..seen.batch.num_rows()).filter_map(|row| seen.places.get(row)));
    let mut rows: Vec<u32> = places.collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}
