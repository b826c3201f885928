//! Monitoring of what a server serves: what is watched, what is made of it, and where it is shown.

mod binding;
#[cfg(test)]
mod detector_tests;
mod examples;
mod files;
mod gauges;
mod keeper;
#[cfg(test)]
mod keeper_tests;
mod kept;
mod mlrun;
#[cfg(test)]
mod once_tests;
mod openapi;
mod own;
#[cfg(test)]
mod own_tests;
mod past;
#[cfg(test)]
mod past_tests;
mod request_log;
mod routes;
mod samples;
mod send;
#[cfg(test)]
mod served;
mod shown;
pub(crate) mod statistics;
#[cfg(test)]
mod tests;
pub(crate) mod time;
mod together;
#[cfg(test)]
mod together_tests;
mod watched;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use millstream_graph::spec::{Document, SpecErrors};
use millstream_monitor::{
    Keep, MOST_PANES, MonitoringSpec, PaneTime,
    alert::{self, Alert, Notification},
    custom::Custom,
    report::Report,
};
use prometheus::Registry;
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use self::{
    gauges::Gauges,
    keeper::{Keeper, Turned},
    send::{Mail, Outgoing},
};
use crate::{reload::blocking, snapshot::Shared};

pub(crate) use openapi::openapi;
pub use own::MetricError;
pub(crate) use past::PastReferences;
pub(crate) use routes::routes;
pub(crate) use shown::of_window;
pub(crate) use watched::{GraphWatch, Went, files as watched_files, watch};

/// Messages of alerts that wait to be sent. When there are more, the newest is dropped and counted: nobody's alert may hold up
/// another's evaluation.
const OUTBOX: usize = 256;

/// How a project's graphs are watched, whichever they are.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Where counts are kept, if they are.
    folder: Option<PathBuf>,
    keep: Keep,
    /// The stretch of time that is compared, in microseconds.
    window: i64,
    pane: PaneTime,
    alerts: Vec<Alert>,
    mail: Option<Arc<Mail>>,
    /// The project's folder, in which files of secrets lie.
    root: Arc<Path>,
    /// How messages name who sends them.
    url: String,
}

impl Plan {
    /// What the file says under `monitoring`, if it does, for a project in the folder `root`.
    pub(crate) fn read(document: &Document, given: bool, root: &Path, errors: &mut SpecErrors) -> Self {
        let path = ["monitoring"];
        let spec: MonitoringSpec = match given.then(|| document.typed(&path)).transpose() {
            Ok(spec) => spec.unwrap_or_default(),
            Err(problems) => {
                errors.extend(problems);
                MonitoringSpec::default()
            }
        };
        let inside = |path: &PathBuf| millstream_featurestore::inside(root, &path.to_string_lossy());
        let folder = spec.path.as_ref().map(inside).transpose().unwrap_or_else(|problem| {
            errors.push(document.place(&["monitoring", "path"]), format!("monitoring: {problem}"));
            None
        });
        let alerts = alert::check(&spec.alerts).unwrap_or_else(|mistakes| {
            for mistake in &mistakes.0 {
                let path =
                    ["monitoring", "alerts"].into_iter().chain(mistake.path.iter().map(String::as_str));
                errors.push(document.place(&path.collect::<Vec<_>>()), mistake.to_string());
            }
            Vec::new()
        });
        let mail = spec.smtp.as_ref().map(Mail::new).transpose().unwrap_or_else(|problem| {
            errors.push(document.place(&["monitoring", "smtp"]), format!("monitoring: smtp: {problem}"));
            None
        });
        if mail.is_none() && alerts.iter().any(Alert::mails) {
            let place = document.place(&["monitoring", "alerts"]);
            errors.push(place, "monitoring: alerts that are mailed need `smtp`, the server that takes mail");
        }
        let (pane, window) = (spec.pane.0, spec.window());
        if window < pane || window > pane * MOST_PANES {
            let place = document.place(&["monitoring", "window"]);
            let text =
                format!("monitoring: the window is from one pane ({pane:?}) to {MOST_PANES} of them long");
            errors.push(place, text);
        }
        let window = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        Self {
            folder,
            keep: spec.keep(),
            window,
            pane: spec.pane,
            alerts,
            mail: mail.map(Arc::new),
            root: root.into(),
            url: spec.url,
        }
    }

    /// The stretch of time that is compared, in microseconds.
    pub(crate) fn window(&self) -> i64 {
        self.window
    }

    /// The file of a graph's counts, if they are kept.
    pub(crate) fn panes(&self, graph: &str) -> Option<PathBuf> {
        Some(kept::panes_file(self.folder.as_ref()?, graph))
    }
}

/// What is known of the graphs of a server, over all versions of its project.
pub(crate) struct Monitoring {
    /// Locked for as long as a pane takes, so nobody who serves requests waits for it.
    keeper: Mutex<Keeper>,
    /// What the next pane is turned by.
    plan: Mutex<Arc<Plan>>,
    latest: Mutex<Latest>,
    gauges: Gauges,
    /// Those who ask the keeper take turns, on threads where no request waits.
    asking: Semaphore,
    stopping: Mutex<bool>,
    stopped: Condvar,
}

/// What the last pane has led to.
#[derive(Default)]
struct Latest {
    reports: BTreeMap<String, Arc<Report>>,
    /// The alerts as `GET` has them, and as Prometheus shows its own.
    alerts: Arc<Value>,
    exposed: Arc<str>,
}

impl Monitoring {
    /// For a project, whose metrics are in `registry`.
    pub(crate) fn new(project: &str, plan: &Plan, registry: &Registry) -> Result<Self, prometheus::Error> {
        let plan = Arc::new(plan.clone());
        let mut keeper = Keeper::new(project, Arc::clone(&plan));
        let latest = Latest {
            alerts: Arc::new(routes::series(keeper.alerts())),
            exposed: gauges::exposed(keeper.alerts()).into(),
            ..Latest::default()
        };
        Ok(Self {
            keeper: Mutex::new(keeper),
            plan: Mutex::new(plan),
            latest: Mutex::new(latest),
            gauges: Gauges::new(registry)?,
            asking: Semaphore::new(1),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
        })
    }

    /// Asks for a metric of an edge of a graph after every pane, whichever version of the project is served.
    pub(crate) fn register(
        &self,
        place: (&str, &str),
        metric: Custom,
        watches: &[Arc<GraphWatch>],
    ) -> Result<(), MetricError> {
        locked(&self.keeper).register(place, metric, watches)
    }

    /// Goes on as the next version of the project says, from the next pane on.
    pub(crate) fn change(&self, plan: &Plan) {
        *locked(&self.plan) = Arc::new(plan.clone());
    }

    /// What is known of a graph, if anything has been counted.
    pub(crate) fn report(&self, graph: &str) -> Option<Arc<Report>> {
        locked(&self.latest).reports.get(graph).cloned()
    }

    /// The alerts as of the last pane.
    pub(crate) fn alerts(&self) -> Arc<Value> {
        Arc::clone(&locked(&self.latest).alerts)
    }

    /// The alerts as Prometheus shows its own.
    pub(crate) fn expose(&self, text: &mut String) {
        let exposed = Arc::clone(&locked(&self.latest).exposed);
        text.push_str(&exposed);
    }

    /// Takes what was counted up to `now`, and answers the messages that are to be sent.
    fn turn(&self, watches: &[Arc<GraphWatch>], now: i64) -> Vec<Outgoing> {
        let plan = Arc::clone(&locked(&self.plan));
        let mut keeper = locked(&self.keeper);
        let Turned { reports, notifications, recorded } = keeper.turn(&plan, watches, now);
        self.gauges.show(&reports, &recorded);
        self.publish(&mut keeper, Some(reports));
        let outgoing = |notification: &Notification| Outgoing {
            message: notification.message(&plan.url),
            mail: plan.mail.clone(),
            root: Arc::clone(&plan.root),
        };
        notifications.iter().map(outgoing).collect()
    }

    fn publish(&self, keeper: &mut Keeper, reports: Option<BTreeMap<String, Report>>) {
        let alerts = Arc::new(routes::series(keeper.alerts()));
        let exposed = gauges::exposed(keeper.alerts()).into();
        let mut latest = locked(&self.latest);
        (latest.alerts, latest.exposed) = (alerts, exposed);
        if let Some(reports) = reports {
            latest.reports = reports.into_iter().map(|(graph, report)| (graph, Arc::new(report))).collect();
        }
    }

    fn stop(&self) {
        *locked(&self.stopping) = true;
        self.stopped.notify_all();
    }

    /// Waits until the next pane begins, or until something waits to be written.
    fn wait(&self) -> Wake {
        let pane = i64::try_from(locked(&self.plan).pane.0.as_micros()).unwrap_or(i64::MAX).max(1);
        let left = pane - time::now().rem_euclid(pane);
        let waited = Duration::from_micros(left.min(DRAIN).unsigned_abs());
        let stopping = self.stopped.wait_timeout_while(locked(&self.stopping), waited, |stopping| !*stopping);
        match *stopping.unwrap_or_else(PoisonError::into_inner).0 {
            true => Wake::Stop,
            false if left <= DRAIN => Wake::Turn,
            false => Wake::Drain,
        }
    }
}

/// Asks the keeper, on a thread where no request waits, and shows what has changed.
pub(crate) async fn ask<T: Send + 'static>(
    shared: &Arc<Shared>,
    question: impl FnOnce(&mut Keeper) -> T + Send + 'static,
) -> Option<T> {
    let _turn = shared.monitoring.asking.acquire().await.ok()?;
    let asked = Arc::clone(shared);
    let answer = blocking(move || {
        let mut keeper = locked(&asked.monitoring.keeper);
        let answer = question(&mut keeper);
        asked.monitoring.publish(&mut keeper, None);
        answer
    });
    answer.await.ok()
}

/// Why the thread that turns panes wakes.
enum Wake {
    /// A pane has ended.
    Turn,
    /// Requests may wait to be written.
    Drain,
    /// The server ends.
    Stop,
}

/// Requests wait no longer than this until it is looked whether they are to be written, in microseconds.
const DRAIN: i64 = 1_000_000;
/// The time in which what was counted is written when the server ends, beside its grace.
const LAST: Duration = Duration::from_secs(5);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns panes while a server serves, on a thread of its own: files are written and columns compared there, and no request waits.
pub(crate) struct Turning {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
    sending: JoinSet<()>,
}

impl Turning {
    /// Begins.
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let mut sending = JoinSet::new();
        sending.spawn(send::send_all(messages));
        let turned = Arc::clone(shared);
        let turn = move || {
            // Counting begins.
            locked(&turned.monitoring.keeper).drain(&turned.watches(), time::now());
            let mut dropped = 0_u64;
            loop {
                match turned.monitoring.wait() {
                    Wake::Turn => {
                        for message in turned.monitoring.turn(&turned.watches(), time::now()) {
                            if outbox.try_send(message).is_err() {
                                dropped += 1;
                                tracing::error!(dropped, "a message of an alert was dropped: too many wait");
                            }
                        }
                    }
                    Wake::Drain => locked(&turned.monitoring.keeper).drain(&turned.watches(), time::now()),
                    Wake::Stop => break,
                }
            }
            locked(&turned.monitoring.keeper).end(&turned.watches(), time::now());
            // Nobody waits any more when the server was dropped.
            let _ = end.send(());
        };
        thread::Builder::new().name("millstream-monitor".to_owned()).spawn(turn)?;
        Ok(Self { shared: Arc::clone(shared), ended, sending })
    }

    /// Ends, when what was counted is kept and what was to be told is told, or took too long.
    pub(crate) async fn end(mut self) {
        self.shared.monitoring.stop();
        let ended = async {
            // An error says that the thread has ended already.
            let _ = (&mut self.ended).await;
            // It had the other end of the outbox.
            while self.sending.join_next().await.is_some() {}
        };
        if tokio::time::timeout(LAST, ended).await.is_err() {
            tracing::warn!("what was counted last is not kept, or not told: it took longer than {LAST:?}");
        }
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        self.shared.monitoring.stop();
    }
}
