//! What a graph declares about a step that fails, and how a step that stands in for another becomes part of the graph.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    ErrorKind, Graph, PortRef, Step,
    graph::{ERROR_PORT, Node, Tapped},
    steps::{ForFailed, Merge},
};

/// What happens to a run when one of its steps fails and its error port is not read.
#[derive(Clone, Default)]
pub enum OnError {
    /// The graph's error handler takes over or, without one, the run fails.
    #[default]
    Fail,
    /// The step's out-ports are skipped; the reply says that it was degraded.
    Skip,
    /// The step's input goes on with these values in the columns that the step would have written, by name; null where
    /// no value is given and the column allows it. The reply says that it was degraded.
    Default(BTreeMap<String, Value>),
    /// Another step answers for the rows that failed: it reads what the failed step read and answers the same columns. The
    /// reply says that it was degraded.
    Step(Substitute),
}

/// A step that answers when another has failed; see [`OnError::Step`].
#[derive(Clone)]
pub struct Substitute {
    pub(crate) step: Arc<dyn Step>,
    pub(crate) kind: &'static str,
    /// The settings that a file would hold, by kind.
    pub(crate) written: Option<BTreeMap<String, Value>>,
}

impl Substitute {
    /// A substitute made in Rust.
    pub fn new(step: impl Step) -> Self {
        Self { step: Arc::new(step), kind: "step", written: None }
    }
}

impl std::fmt::Debug for OnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fail => f.write_str("Fail"),
            Self::Skip => f.write_str("Skip"),
            Self::Default(values) => f.debug_tuple("Default").field(values).finish(),
            Self::Step(substitute) => f.debug_tuple("Step").field(&substitute.kind).finish(),
        }
    }
}

/// What a step declares for each kind of failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) error: OnError,
    /// `None`: as for every other error.
    pub(crate) timeout: Option<OnError>,
    /// `None`: as for every other error.
    pub(crate) overload: Option<OnError>,
}

/// The kinds of failure that a policy can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Error,
    Timeout,
    Overload,
}

impl Failure {
    pub(crate) const ALL: [Self; 3] = [Self::Error, Self::Timeout, Self::Overload];

    pub(crate) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::DeadlineExceeded => Self::Timeout,
            ErrorKind::Overloaded => Self::Overload,
            ErrorKind::Rows | ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::Panicked => {
                Self::Error
            }
        }
    }

    /// What the name of a substitute's step ends in.
    fn suffix(self) -> &'static str {
        match self {
            Self::Error => "on_error",
            Self::Timeout => "on_timeout",
            Self::Overload => "on_overload",
        }
    }
}

impl Policies {
    pub(crate) fn of(&self, failure: Failure) -> &OnError {
        match failure {
            Failure::Error => &self.error,
            Failure::Timeout => self.timeout.as_ref().unwrap_or(&self.error),
            Failure::Overload => self.overload.as_ref().unwrap_or(&self.error),
        }
    }

    /// Whether a failure leads anywhere but to the graph's handler or the caller.
    pub(crate) fn declared(&self) -> bool {
        Failure::ALL.iter().any(|failure| !matches!(self.of(*failure), OnError::Fail))
    }

    /// The substitutes, each with the failures that it answers for.
    fn substitutes(&self) -> Vec<(&Substitute, Vec<Failure>)> {
        let mut found: Vec<(&Substitute, Vec<Failure>)> = Vec::new();
        for failure in Failure::ALL {
            let OnError::Step(substitute) = self.of(failure) else { continue };
            match found.iter_mut().find(|(other, _)| Arc::ptr_eq(&other.step, &substitute.step)) {
                Some((_, failures)) => failures.push(failure),
                None => found.push((substitute, vec![failure])),
            }
        }
        found
    }
}

/// The graph with every substitute as a step of its own: it reads the error port of the step that it answers for, and a merge
/// of both takes that step's place.
pub(crate) fn with_substitutes(graph: &Graph) -> Cow<'_, Graph> {
    let replaced = |node: &Node| !node.policies.substitutes().is_empty();
    if !graph.nodes.iter().any(replaced) {
        return Cow::Borrowed(graph);
    }
    let names: Vec<&str> =
        graph.nodes.iter().filter(|node| replaced(node)).map(|node| node.name.as_str()).collect();
    let reader = |port: &PortRef| match (&*port.step, port.port.as_deref()) {
        (step, None) if names.contains(&step) => PortRef::of(&format!("{step}/answer")),
        _ => port.clone(),
    };
    let mut expanded = graph.clone();
    expanded.nodes.clear();
    for node in &graph.nodes {
        let inputs = node.inputs.iter().map(reader).collect();
        expanded.nodes.push(Node { inputs, ..node.clone() });
        if replaced(node) {
            expanded.nodes.extend(substitute_nodes(node));
        }
    }
    expanded.taps =
        graph.taps.iter().map(|tapped| Tapped { port: reader(&tapped.port), ..tapped.clone() }).collect();
    Cow::Owned(expanded)
}

fn substitute_nodes(node: &Node) -> Vec<Node> {
    let made = |name: String, kind, inputs, step| Node {
        name,
        kind,
        inputs,
        step,
        policies: Policies::default(),
        respond: false,
        written: None,
        description: None,
        embedded: true,
        substitutes: true,
        layers: Vec::new(),
    };
    let failed = PortRef::of(&node.name);
    let mut nodes = Vec::new();
    let mut answers = vec![failed.clone()];
    for (substitute, failures) in node.policies.substitutes() {
        let name = format!("{}/{}", node.name, failures[0].suffix());
        answers.push(PortRef::of(&name));
        let step = ForFailed::new(Arc::clone(&substitute.step), failures);
        nodes.push(made(
            name,
            substitute.kind,
            vec![failed.port(ERROR_PORT)],
            Arc::new(step) as Arc<dyn Step>,
        ));
    }
    nodes.push(made(format!("{}/answer", node.name), "merge", answers, Arc::new(Merge::default())));
    nodes
}
