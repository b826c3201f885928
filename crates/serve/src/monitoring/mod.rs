//! Monitoring of what a server serves: what is watched, what is made of it, and where it is shown.

mod gauges;
mod keeper;
mod mlrun;
mod openapi;
mod routes;
mod send;
#[cfg(test)]
mod tests;
pub(crate) mod time;
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
    Keep, MonitoringSpec, PaneTime,
    alert::{self, Alert, Notification},
    report::Report,
};
use prometheus::Registry;
use tokio::sync::{mpsc, oneshot};

use self::{
    gauges::Gauges,
    keeper::Keeper,
    send::{Mail, Outgoing},
};
use crate::snapshot::Shared;

pub(crate) use keeper::of_window;
pub(crate) use openapi::openapi;
pub(crate) use routes::routes;
pub(crate) use watched::{GraphWatch, Went, files, watch};

/// Messages of alerts that wait to be sent. When there are more, the newest is dropped and counted: nobody's alert may hold up
/// another's evaluation.
const OUTBOX: usize = 256;

/// How a project's graphs are watched, whichever they are.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    /// Where counts are kept, if they are.
    folder: Option<PathBuf>,
    keep: Keep,
    /// The stretch of time that is compared, in microseconds.
    window: i64,
    pane: PaneTime,
    alerts: Vec<Alert>,
    mail: Option<Arc<Mail>>,
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
                return Self::default();
            }
        };
        let inside = |path: &PathBuf| millstream_featurestore::inside(root, &path.to_string_lossy());
        let folder = spec.path.as_ref().map(inside).transpose().unwrap_or_else(|problem| {
            errors.push(document.place(&["monitoring", "path"]), format!("monitoring: {problem}"));
            None
        });
        let alerts = alert::check(&spec.alerts).unwrap_or_else(|mistakes| {
            for mistake in &mistakes.0 {
                let path = ["monitoring", "alerts"].into_iter().chain(mistake.path.iter().map(String::as_str));
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
        let window = i64::try_from(spec.window().as_micros()).unwrap_or(i64::MAX);
        Self {
            folder,
            keep: spec.keep(),
            window,
            pane: spec.pane,
            alerts,
            mail: mail.map(Arc::new),
            url: spec.url,
        }
    }

    /// The file of a graph's counts, if they are kept.
    pub(crate) fn panes(&self, graph: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{graph}.panes")))
    }
}

/// What is known of the graphs of a server, over all versions of its project.
pub(crate) struct Monitoring {
    keeper: Mutex<Keeper>,
    latest: Mutex<BTreeMap<String, Arc<Report>>>,
    gauges: Gauges,
    plan: Mutex<Plan>,
    stopping: Mutex<bool>,
    stopped: Condvar,
}

impl Monitoring {
    /// For a project, whose metrics are in `registry`.
    pub(crate) fn new(project: &str, plan: &Plan, registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            keeper: Mutex::new(Keeper::new(project, plan.clone())),
            latest: Mutex::default(),
            gauges: Gauges::new(registry)?,
            plan: Mutex::new(plan.clone()),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
        })
    }

    /// Goes on as the next version of the project says.
    pub(crate) fn change(&self, plan: &Plan) {
        locked(&self.keeper).change(plan.clone());
        *locked(&self.plan) = plan.clone();
    }

    /// What is known of a graph, if anything has been counted.
    pub(crate) fn report(&self, graph: &str) -> Option<Arc<Report>> {
        locked(&self.latest).get(graph).cloned()
    }

    /// Takes what was counted up to `now`, and answers the messages that are to be sent.
    pub(crate) fn turn(&self, watches: &[Arc<GraphWatch>], now: i64) -> Vec<Outgoing> {
        let (reports, notifications) = locked(&self.keeper).turn(watches, now);
        self.gauges.show(&reports);
        *locked(&self.latest) = reports.into_iter().map(|(graph, report)| (graph, Arc::new(report))).collect();
        let plan = locked(&self.plan);
        let outgoing = |notification: &Notification| Outgoing {
            message: notification.message(&plan.url),
            mail: plan.mail.clone(),
        };
        notifications.iter().map(outgoing).collect()
    }

    /// The alerts as Prometheus shows its own.
    pub(crate) fn expose(&self, text: &mut String) {
        gauges::expose(&locked(&self.keeper).alerts().exposed(), text);
    }

    fn stop(&self) {
        *locked(&self.stopping) = true;
        self.stopped.notify_all();
    }

    /// Waits until the next pane begins. Answers whether it was asked to stop.
    fn wait(&self) -> bool {
        let pane = i64::try_from(locked(&self.plan).pane.0.as_micros()).unwrap_or(i64::MAX).max(1);
        let now = time::now();
        let left = Duration::from_micros((pane - now.rem_euclid(pane)) as u64);
        let waited = self.stopped.wait_timeout_while(locked(&self.stopping), left, |stopping| !*stopping);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns panes while a server serves, on a thread of its own: files are written and columns compared there, and no request waits.
pub(crate) struct Turning {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
}

impl Turning {
    /// Begins. Messages of alerts are for `outbox`.
    pub(crate) fn start(shared: &Arc<Shared>, outbox: mpsc::Sender<Outgoing>) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let turned = Arc::clone(shared);
        let turn = move || {
            turned.begin_monitoring(time::now());
            let mut dropped = 0_u64;
            while !turned.monitoring.wait() {
                let watches = turned.watches();
                for message in turned.monitoring.turn(&watches, time::now()) {
                    if outbox.try_send(message).is_err() {
                        dropped += 1;
                        tracing::error!(dropped, "a message of an alert was dropped: too many wait");
                    }
                }
            }
            locked(&turned.monitoring.keeper).end(&turned.watches(), time::now());
            // Nobody waits any more when the server was dropped.
            let _ = end.send(());
        };
        #[expect(clippy::disallowed_methods, reason = "one thread, which ends with the server")]
        thread::Builder::new().name("millstream-monitor".to_owned()).spawn(turn)?;
        Ok(Self { shared: Arc::clone(shared), ended })
    }

    /// Ends, when what was counted is kept.
    pub(crate) async fn end(mut self) {
        self.shared.monitoring.stop();
        // An error says that the thread has ended already.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        self.shared.monitoring.stop();
    }
}

/// Messages of alerts, on their way out.
pub(crate) fn outbox() -> (mpsc::Sender<Outgoing>, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::channel(OUTBOX);
    (sender, send::send_all(receiver))
}
