//! What a project says of its models beside their tensors, and what clients are told of it.

use std::collections::{BTreeMap, BTreeSet};

use millstream_graph::spec::{GraphSpec, StepSpec};
use serde_json::Value;

use crate::{monitoring::statistics, project::Project};

/// The names of what clients are told beside a model's labels, which no label has.
pub(crate) const OWN_NAMES: [&str; 4] = ["description", "explain", "features", STATISTICS];
const STATISTICS: &str = "statistics";

/// Texts by name, as Triton's configuration has parameters.
pub(super) type About = BTreeMap<String, String>;

/// What is said of a graph, and the features that it reads.
pub(super) fn of_graph(project: &Project, name: &str) -> About {
    let Ok(spec) = project.graph_spec(name) else { return About::new() };
    let mut features = BTreeSet::new();
    spec.steps.values().for_each(|step| features.extend(read(project, step)));
    told(About::new(), spec.description.as_deref(), spec.explain.as_deref(), &features)
}

/// What is said of a model, and the features that reach it in the project's graphs.
pub(super) fn of_model(project: &Project, name: &str) -> About {
    let Some(spec) = project.models().spec(name) else { return About::new() };
    let mut features = BTreeSet::new();
    for graph in project.graph_names().filter_map(|graph| project.graph_spec(graph).ok()) {
        for step in before(graph, |step| runs(&step.kind, &step.settings, name)) {
            features.extend(read(project, step));
        }
    }
    let mut about =
        told(spec.labels.clone(), spec.description.as_deref(), spec.explain.as_deref(), &features);
    let file = statistics::of_model(project.root(), spec);
    about.extend(file.map(|file| (STATISTICS.to_owned(), file.display().to_string())));
    about
}

fn told(
    mut about: About,
    description: Option<&str>,
    explain: Option<&str>,
    features: &BTreeSet<String>,
) -> About {
    let listed = features.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let features = (!listed.is_empty()).then_some(listed.as_str());
    for (name, value) in OWN_NAMES.into_iter().zip([description, explain, features]) {
        if let Some(value) = value {
            about.insert(name.to_owned(), value.to_owned());
        }
    }
    about
}

/// The steps whose rows come to those that are `wanted`, and these.
fn before(graph: &GraphSpec, wanted: impl Fn(&StepSpec) -> bool) -> Vec<&StepSpec> {
    let steps = &graph.steps;
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut left: Vec<usize> = (0..steps.len()).filter(|at| wanted(&steps[*at])).collect();
    while let Some(at) = left.pop() {
        let Some((_, step)) = steps.get_index(at).filter(|_| seen.insert(at)) else { continue };
        found.push(step);
        match &step.from {
            None => left.extend(at.checked_sub(1)),
            Some(ports) => {
                let step = |port: &String| steps.get_index_of(port.split('.').next().unwrap_or(port));
                left.extend(ports.iter().filter_map(step));
            }
        }
    }
    found
}

/// Whether a step runs a model: by itself, or as one of a quorum.
fn runs(kind: &str, settings: &Value, model: &str) -> bool {
    match kind {
        "model" | "sequence" => settings.get("use").and_then(Value::as_str) == Some(model),
        "quorum" => {
            let steps = settings.get("steps").and_then(Value::as_object);
            let mut kinds = steps.into_iter().flat_map(|steps| steps.values()).filter_map(Value::as_object);
            kinds.any(|step| step.iter().any(|(kind, settings)| runs(kind, settings, model)))
        }
        _ => false,
    }
}

/// The features that a step adds, as `set.feature`.
fn read(project: &Project, step: &StepSpec) -> Vec<String> {
    let set = step.settings.get("set").and_then(Value::as_str).filter(|_| step.kind == "enrich");
    let Some(set) = set else { return Vec::new() };
    let named: Vec<&str> = match step.settings.get("features") {
        Some(Value::String(feature)) => vec![feature],
        Some(Value::Array(features)) => features.iter().filter_map(Value::as_str).collect(),
        _ => vec!["*"],
    };
    let mut read = Vec::new();
    for text in named {
        // A feature may be given another name: `avg AS usual`.
        let feature = text.split_whitespace().next().unwrap_or("*");
        match project.features().get(set) {
            Some(stored) if feature == "*" => {
                read.extend(stored.set().features().iter().map(|feature| format!("{set}.{}", feature.name)));
            }
            _ => read.push(format!("{set}.{feature}")),
        }
    }
    read
}
