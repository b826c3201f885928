//! Takes what taps have counted, pane by pane: keeps it, compares it, and raises alerts.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use millstream_graph::suggest;
use millstream_monitor::{
    alert::{Alerts, Notification},
    custom::Custom,
    predictions::{Outcome, OutcomeCounts},
    record::Counts,
    report::Report,
};

use super::{
    Plan, examples, files,
    kept::Kept,
    own::{MetricError, Registered},
    samples,
    shown::alerts_of,
    watched::GraphWatch,
};

/// What is watched of all graphs, over the versions of a project.
pub(crate) struct Keeper {
    project: String,
    plan: Arc<Plan>,
    alerts: Alerts,
    turns: u64,
    graphs: BTreeMap<String, Kept>,
    /// Metrics that are of no file, and stay whichever version is served.
    registered: Vec<Registered>,
}

/// What a pane has led to.
#[derive(Default)]
pub(crate) struct Turned {
    /// What is known of each graph that is counted.
    pub(crate) reports: BTreeMap<String, Report>,
    /// Whom to tell what.
    pub(crate) notifications: Vec<Notification>,
    /// What the request log of each graph that has one has counted.
    pub(crate) recorded: BTreeMap<String, Counts>,
}

/// Predictions that wait for labels are written down every so many panes: they are many, and a crash loses those since.
const SAVED_EVERY: u64 = 10;
/// The file of the alerts' state.
const ALERTS: &str = "alerts.state";

impl Keeper {
    /// Opens what was kept before.
    pub(crate) fn new(project: &str, plan: Arc<Plan>) -> Self {
        let mut alerts = Alerts::new(project, plan.alerts.clone());
        if let Some(folder) = &plan.folder {
            files::take_up(&folder.join(ALERTS), |saved| alerts.restore(saved).map(drop));
        }
        Self {
            project: project.to_owned(),
            plan,
            alerts,
            turns: 0,
            graphs: BTreeMap::new(),
            registered: Vec::new(),
        }
    }

    /// Takes what was counted up to `now`, as `plan` says.
    pub(crate) fn turn(&mut self, plan: &Arc<Plan>, watches: &[Arc<GraphWatch>], now: i64) -> Turned {
        self.change(plan);
        self.follow(watches, now);
        // The clock first: after a pause, what is observed would be of its future.
        let mut turned = Turned { notifications: self.alerts.tick(now), ..Turned::default() };
        let mut over: Vec<String> = Vec::new();
        for (graph, kept) in &mut self.graphs {
            let served = watches.iter().any(|watch| watch.graph == *graph);
            // Looked at first: whoever counts or logs after this is still to come.
            let ends = !served && !kept.in_use();
            if ends {
                kept.flush(now);
            } else {
                kept.drain(now);
            }
            turned.recorded.extend(kept.recorded().map(|counts| (graph.clone(), counts)));
            let pane = kept.take_pane(now);
            if ends && !kept.has_waiting() {
                over.push(graph.clone());
            }
            if !kept.counts() {
                continue;
            }
            if !served {
                // What its last requests counted is kept, and nobody is told.
                kept.store(&pane);
                continue;
            }
            if let Some(report) = kept.add(&pane, self.plan.window, &self.registered) {
                let report = Report { project: self.project.clone(), ..report };
                samples::observe(&mut self.alerts, &report, now);
                turned.reports.insert(graph.clone(), report);
            }
        }
        self.graphs.retain(|graph, _| !over.contains(graph));
        turned.notifications.extend(self.alerts.tick(now));
        let times = now.saturating_sub(self.plan.window)..now.saturating_add(1);
        examples::show(&mut turned.notifications, &mut self.graphs, &times);
        for (graph, report) in &mut turned.reports {
            report.alerts = alerts_of(&self.alerts, graph);
        }
        self.turns += 1;
        self.save(self.turns.is_multiple_of(SAVED_EVERY));
        turned
    }

    /// Asks for a metric of an edge of a graph after every pane.
    ///
    /// # Errors
    /// When there is no such edge, or the metric's name is taken.
    pub(crate) fn register(
        &mut self,
        place: (&str, &str),
        metric: Custom,
        watches: &[Arc<GraphWatch>],
    ) -> Result<(), MetricError> {
        let registered = Registered::new(place, metric, watches, &self.registered)?;
        self.registered.push(registered);
        Ok(())
    }

    /// What need not wait for the pane: requests go to their log, predictions to their judges.
    pub(crate) fn drain(&mut self, watches: &[Arc<GraphWatch>], now: i64) {
        self.follow(watches, now);
        for kept in self.graphs.values_mut() {
            kept.drain(now);
            kept.take_predictions(now);
        }
    }

    /// Keeps what was counted, when nothing is any more. A pane that was cut short raises no alert.
    pub(crate) fn end(&mut self, watches: &[Arc<GraphWatch>], now: i64) {
        self.follow(watches, now);
        for kept in self.graphs.values_mut() {
            let pane = kept.take_pane(now);
            if kept.counts() {
                kept.store(&pane);
            }
            kept.flush(now);
        }
        self.save(true);
    }

    /// The alerts.
    pub(crate) fn alerts(&mut self) -> &mut Alerts {
        &mut self.alerts
    }

    /// Takes what is told of a graph's predictions. Without `edge`, of the only one that has predictions.
    ///
    /// # Errors
    /// When it is not clear whose they are, or they cannot be true.
    pub(crate) fn label(
        &mut self,
        watch: &Arc<GraphWatch>,
        edge: Option<&str>,
        told: &[Outcome],
        now: i64,
    ) -> Result<OutcomeCounts, String> {
        let predicted =
            watch.edges.iter().filter(|edge| edge.predictions.is_some()).map(|edge| edge.edge.as_str());
        let names: Vec<&str> = predicted.collect();
        let edge = match (edge, &names[..]) {
            (Some(edge), names) if names.contains(&edge) => edge,
            (None, [only]) => only,
            (_, []) => {
                return Err(
                    "no edge of the graph has predictions; `performance` of its `monitor` says which do"
                        .to_owned(),
                );
            }
            (Some(edge), names) => {
                return Err(suggest::unknown("edge with predictions", edge, names.iter().copied()));
            }
            (None, names) => return Err(format!("name the `edge`: {}", names.join(", "))),
        };
        let of_edge = watch.edges.iter().find(|known| known.edge == edge);
        if let Some(predictions) = of_edge.and_then(|edge| edge.predictions.as_ref()) {
            for (at, outcome) in told.iter().enumerate() {
                predictions.check(outcome).map_err(|text| format!("label {at}: {text}"))?;
            }
        }
        self.follow(std::slice::from_ref(watch), now);
        let counts = self.graphs.get_mut(&watch.graph).and_then(|kept| kept.label(edge, told, now));
        counts.ok_or_else(|| "predictions are not judged; the log says why".to_owned())
    }

    fn change(&mut self, plan: &Arc<Plan>) {
        if Arc::ptr_eq(&self.plan, plan) {
            return;
        }
        let saved = self.alerts.save();
        self.alerts = Alerts::new(&self.project, plan.alerts.clone());
        match self.alerts.restore(&saved) {
            Ok(restored) if restored.changed.is_empty() && restored.dropped.is_empty() => {}
            Ok(restored) => {
                tracing::info!(changed = ?restored.changed, dropped = ?restored.dropped, "alerts that begin anew, or end");
            }
            Err(error) => tracing::error!(%error, "alerts begin anew"),
        }
        if plan.folder != self.plan.folder {
            self.save(true);
            for (graph, kept) in std::mem::take(&mut self.graphs) {
                let moved = kept.moved(plan.folder.as_deref(), &graph, plan.keep);
                self.graphs.insert(graph, moved);
            }
        }
        self.graphs.values_mut().for_each(|kept| kept.keep(plan.keep));
        self.plan = Arc::clone(plan);
    }

    fn follow(&mut self, watches: &[Arc<GraphWatch>], now: i64) {
        let folder: Option<PathBuf> = self.plan.folder.clone();
        for watch in watches {
            let keep = watch.keep(self.plan.keep);
            let open = || Kept::open(folder.as_deref(), &watch.graph, keep, now);
            let kept = self.graphs.entry(watch.graph.clone()).or_insert_with(open);
            kept.keep(keep);
            kept.follow(watch, folder.as_deref());
        }
    }

    fn save(&self, judges: bool) {
        let Some(folder) = &self.plan.folder else { return };
        if let Err(error) = files::replace(&folder.join(ALERTS), &self.alerts.save()) {
            tracing::error!(%error, "the state of alerts could not be written");
        }
        if judges {
            self.graphs.values().for_each(|kept| kept.save_judges(folder));
        }
    }
}
