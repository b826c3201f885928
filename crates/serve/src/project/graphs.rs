//! The graphs of a project file: put into each other, compiled, and bound to the sets whose rows pass them.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use millstream_featurestore::{FeatureSets, Passage};
use millstream_graph::{
    Graph, Plan,
    spec::{self, Document, GraphSpec, Kinds, SpecErrors},
    suggest,
};
use serde_json::Value;

use crate::through::Through;

/// Graphs of one file, some of which may stand as steps in others.
pub(super) struct Graphs<'a> {
    pub(super) specs: &'a IndexMap<String, GraphSpec>,
    pub(super) kinds: &'a Kinds,
    pub(super) document: &'a Document,
}

impl Graphs<'_> {
    pub(super) fn make_all(&self) -> Result<Vec<Graph>, SpecErrors> {
        let mut errors = SpecErrors::default();
        let mut graphs = Vec::new();
        for name in self.specs.keys() {
            match self.make(name, &mut Vec::new()) {
                Ok(graph) => {
                    if let Err(problems) = graph.compile() {
                        errors.extend(GraphSpec::place_errors(&problems, self.document, &["graphs", name]));
                    }
                    graphs.push(graph);
                }
                Err(problems) => errors.extend(problems),
            }
        }
        errors.check()?;
        Ok(graphs)
    }

    /// One graph, and what it is compiled to.
    pub(super) fn compiled(&self, name: &str) -> Result<(Graph, Plan), SpecErrors> {
        let graph = self.make(name, &mut Vec::new())?;
        match graph.compile() {
            Ok(plan) => Ok((graph, plan)),
            Err(problems) => Err(GraphSpec::place_errors(&problems, self.document, &["graphs", name])),
        }
    }

    /// The graphs that rows of sets pass, each bound to its set.
    pub(super) fn passages(&self, sets: &FeatureSets) -> Result<Vec<Arc<Through>>, SpecErrors> {
        let mut passages =
            Passages { graphs: self, sets, bound: IndexMap::new(), errors: SpecErrors::default() };
        for set in sets.iter() {
            passages.bind(set.set().name(), &mut Vec::new());
        }
        passages.errors.check()?;
        Ok(passages.bound.into_values().flatten().collect())
    }

    /// Makes a graph; `inside` are the graphs that it is being put into, none of which it may hold itself.
    fn make(&self, name: &str, inside: &mut Vec<String>) -> Result<Graph, SpecErrors> {
        let mut errors = SpecErrors::default();
        inside.push(name.to_owned());
        let mut others: BTreeMap<String, Graph> = BTreeMap::new();
        for (step, used) in self.specs.get(name).into_iter().flat_map(used_graphs) {
            let place = self.document.place(&["graphs", name, "steps", step]);
            if inside.contains(&used) {
                errors.push(place, format!("step `{step}`: graph `{used}` would hold itself"));
            } else if self.specs.contains_key(&used) {
                others.insert(used.clone(), self.make(&used, inside)?);
            } else {
                let known = self.specs.keys().map(String::as_str);
                let message = suggest::unknown("graph", &used, known);
                errors.push(place, format!("step `{step}`: {message}"));
            }
        }
        inside.pop();
        errors.check()?;
        let path = ["graphs", name];
        let find = |other: &str| others.get(other).cloned();
        self.specs[name].graph(name, self.kinds, &find, self.document, &path)
    }
}

/// The steps of a graph for which other graphs stand, and which.
fn used_graphs(spec: &GraphSpec) -> Vec<(&str, String)> {
    let graph_of = |step: &spec::StepSpec| match step.settings.get("use") {
        Some(Value::String(graph)) if step.kind == "graph" => Some(graph.clone()),
        _ => None,
    };
    spec.steps.iter().filter_map(|(name, step)| Some((name.as_str(), graph_of(step)?))).collect()
}

/// Sets are bound one after another: a graph that writes into a set whose rows pass another graph is typed by that.
struct Passages<'a> {
    graphs: &'a Graphs<'a>,
    sets: &'a FeatureSets,
    /// By set; `None` where it cannot be.
    bound: IndexMap<String, Option<Arc<Through>>>,
    errors: SpecErrors,
}

impl Passages<'_> {
    /// Binds a set, after those that its graph writes into. `before` are the sets that are being bound, none of which it may write into.
    fn bind(&mut self, set: &str, before: &mut Vec<String>) {
        let Some(writable) = self.sets.get(set).and_then(|set| set.writable()) else { return };
        let Some(graph) = writable.passes() else { return };
        if self.bound.contains_key(set) {
            return;
        }
        if !self.graphs.specs.contains_key(graph) {
            let known = self.graphs.specs.keys().map(String::as_str);
            let problem = suggest::unknown("graph", graph, known);
            self.wrong(set, &problem);
            return;
        }
        before.push(set.to_owned());
        for (step, target) in self.written(graph) {
            if before.contains(&target) {
                let problem = format!(
                    "step `{step}` of graph `{graph}` writes into feature set `{target}`, whose rows would pass the graph again"
                );
                self.wrong(set, &problem);
            } else {
                self.bind(&target, before);
            }
        }
        before.pop();
        if self.bound.contains_key(set) {
            return;
        }
        let through = match self.graphs.compiled(graph) {
            Ok((graph, plan)) => Through::new(graph, plan),
            Err(problems) => {
                self.errors.extend(problems);
                self.bound.insert(set.to_owned(), None);
                return;
            }
        };
        let through = through.map(Arc::new).map_err(|problem| vec![problem]);
        let passage = |through: &Arc<Through>| Arc::clone(through) as Arc<dyn Passage>;
        match through.and_then(|through| writable.bind(&passage(&through)).map(|()| through)) {
            Ok(through) => drop(self.bound.insert(set.to_owned(), Some(through))),
            Err(problems) => problems.iter().for_each(|problem| self.wrong(set, problem)),
        }
    }

    fn wrong(&mut self, set: &str, problem: &str) {
        let place = self.graphs.document.place(&["feature_sets", set, "through"]);
        self.errors.push(place, format!("feature set `{set}`: `through`: {problem}"));
        self.bound.insert(set.to_owned(), None);
    }

    /// The sets that a graph writes into, by itself or by graphs that stand as its steps, and the steps that do.
    fn written(&self, graph: &str) -> Vec<(String, String)> {
        let (mut found, mut seen, mut left) = (Vec::new(), Vec::new(), vec![graph.to_owned()]);
        while let Some(name) = left.pop().filter(|name| !seen.contains(name)) {
            let Some(spec) = self.graphs.specs.get(&name) else { continue };
            let target = |step: &spec::StepSpec| match step.settings.get("set") {
                Some(Value::String(set)) if step.kind == "ingest" => Some(set.clone()),
                _ => None,
            };
            found.extend(spec.steps.iter().filter_map(|(step, spec)| Some((step.clone(), target(spec)?))));
            left.extend(used_graphs(spec).into_iter().map(|(_, graph)| graph));
            seen.push(name);
        }
        found
    }
}
