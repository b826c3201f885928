//! What a project says of models and graphs beside how they run: their labels, and which graph explains them.

use arrow::datatypes::{Field, Fields};
use indexmap::IndexMap;
use millstream_graph::{
    Graph,
    spec::{Document, GraphSpec, SpecErrors, type_text},
    suggest,
};
use millstream_models::ModelSet;

use crate::oip;

/// Adds what is wrong with it. `graphs` are those of `specs`, in their order, or none where they could not be made.
pub(super) fn check(
    document: &Document,
    models: &ModelSet,
    specs: &IndexMap<String, GraphSpec>,
    graphs: &[Graph],
    errors: &mut SpecErrors,
) {
    let known = Known { specs, graphs };
    for (name, model) in models.iter() {
        let Some(spec) = models.spec(name) else { continue };
        for label in spec.labels.keys().filter(|label| oip::OWN_NAMES.contains(&label.as_str())) {
            let place = document.place(&["models", name, "labels", label]);
            errors.push(
                place,
                format!("model `{name}`: label `{label}`: clients are told something else by this name"),
            );
        }
        let Some(explainer) = &spec.explain else { continue };
        let problem = match oip::columns(model.info()) {
            Some(columns) => known.problem(explainer, &columns),
            None => Some(
                "the model is not served by itself, since an input has no dimension for rows; a graph that runs it can have an \
                 explainer"
                    .to_owned(),
            ),
        };
        if let Some(problem) = problem {
            let place = document.place(&["models", name, "explain"]);
            errors.push(place, format!("model `{name}`: `explain`: {problem}"));
        }
    }
    for (at, (name, spec)) in specs.iter().enumerate() {
        let Some(explainer) = &spec.explain else { continue };
        let problem = if explainer == name {
            Some("a graph does not explain itself".to_owned())
        } else {
            known.input(at).and_then(|columns| known.problem(explainer, &columns))
        };
        if let Some(problem) = problem {
            let place = document.place(&["graphs", name, "explain"]);
            errors.push(place, format!("graph `{name}`: `explain`: {problem}"));
        }
    }
}

/// The graphs of a project.
struct Known<'p> {
    specs: &'p IndexMap<String, GraphSpec>,
    graphs: &'p [Graph],
}

impl Known<'_> {
    /// What a graph takes, if it could be made.
    fn input(&self, at: usize) -> Option<Fields> {
        let plan = self.graphs.get(at)?.compile().ok()?;
        Some(plan.input_schema().fields().clone())
    }

    /// Why a graph cannot explain what takes these columns. Where rows come without names, their order counts too.
    fn problem(&self, explainer: &str, columns: &Fields) -> Option<String> {
        let Some(at) = self.specs.get_index_of(explainer) else {
            return Some(suggest::unknown("graph", explainer, self.specs.keys().map(String::as_str)));
        };
        let takes = self.input(at)?;
        let fits = takes.len() == columns.len()
            && takes.iter().zip(columns).all(|(takes, column)| is_taken(takes, column));
        (!fits).then(|| {
            let (takes, columns) = (listed(&takes), listed(columns));
            format!("graph `{explainer}` takes `{takes}`, but what it is to explain takes `{columns}`")
        })
    }
}

/// Whether whatever comes in a column may come in the other.
fn is_taken(takes: &Field, column: &Field) -> bool {
    let text = |field: &Field| type_text(&field.clone().with_nullable(false));
    takes.name() == column.name()
        && text(takes) == text(column)
        && (takes.is_nullable() || !column.is_nullable())
}

fn listed(fields: &Fields) -> String {
    let fields = fields.iter().map(|field| format!("{}: {}", field.name(), type_text(field)));
    fields.collect::<Vec<_>>().join(", ")
}
