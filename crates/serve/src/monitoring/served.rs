//! A project that is served in a test: its engine, the keeper of its panes, and what is shown of them.

use std::{path::Path, sync::Arc};

use millstream_runtime::{Engine, Limits};
use prometheus::{Registry, proto::MetricFamily};

use super::{
    Plan,
    gauges::Gauges,
    keeper::{Keeper, Turned},
};
use crate::Project;

pub(super) struct Served {
    pub(super) project: Project,
    pub(super) engine: Engine,
    pub(super) keeper: Keeper,
    plan: Arc<Plan>,
}

impl Served {
    /// The project of a folder, of which this graph is asked.
    pub(super) fn load(folder: &Path, graph: &str, now: i64) -> Self {
        Self::new(Project::load(folder).unwrap_or_else(|error| panic!("{error}")), graph, now)
    }

    pub(super) fn new(project: Project, graph: &str, now: i64) -> Self {
        let engine = project.engine(graph, Limits::default()).unwrap();
        let plan = Arc::new(project.monitoring().clone());
        let mut keeper = Keeper::new("p", Arc::clone(&plan));
        keeper.drain(project.watches(), now);
        Self { project, engine, keeper, plan }
    }

    /// Ends a pane.
    pub(super) fn turn(&mut self, now: i64) -> Turned {
        self.keeper.turn(&self.plan, self.project.watches(), now)
    }
}

/// The names of the alerts that are told of.
pub(super) fn told(turned: &Turned) -> Vec<&str> {
    turned.notifications.iter().map(|told| told.alert.name()).collect()
}

/// The gauges of this name, as they are scraped after a pane.
pub(super) fn gauges(turned: &Turned, name: &str) -> MetricFamily {
    let registry = Registry::new();
    Gauges::new(&registry).unwrap().show(&turned.reports, &turned.recorded);
    let found = registry.gather().into_iter().find(|family| family.name() == name);
    found.unwrap_or_else(|| panic!("no gauge `{name}`"))
}
