//! What a project file names, loaded: feature sets, vectors, models.

use std::{path::Path, sync::Arc};

use indexmap::IndexMap;
use millstream_featurestore::{Expressions, FeatureSetSpec, FeatureSets, LoadOptions, Stores, VectorSpec};
use millstream_graph::spec::{Document, SpecErrors};
use millstream_models::{ModelSet, ModelSpec};
use millstream_transform::With;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{
    chain, conditions,
    read::{ProjectKeys, Reading, is_plain},
};
use crate::{
    fetch::{self, AllFetched, FetchError},
    through::Through,
};

pub(super) fn sets<'n>(
    document: &Document,
    names: impl Iterator<Item = &'n String>,
    root: &Path,
    stores: &Stores,
    errors: &mut SpecErrors,
) -> FeatureSets {
    let mut store = FeatureSets::new();
    let options = LoadOptions { conditions: conditions::conditions(), ..LoadOptions::default() };
    for name in names {
        let path = ["feature_sets", name];
        match document.typed::<FeatureSetSpec>(&path) {
            Ok(set) => match set.open(name, root, stores, &options) {
                Ok(set) => {
                    if let Some(writable) = set.writable()
                        && let Some(graph) = writable.passes()
                    {
                        writable.graph_is(definition(document, graph));
                    }
                    store.insert(set);
                }
                Err(error) => {
                    // A definition's own mistakes name the set already.
                    let (text, named) = (chain(&error), format!("feature set `{name}`: "));
                    let text = text.strip_prefix(&named).unwrap_or(&text);
                    errors.push(document.place(&path), format!("{named}{text}"));
                }
            },
            Err(problems) => errors.extend(problems),
        }
    }
    store
}

/// Adds vectors to the sets that they are of.
pub(super) fn vectors<'n>(
    document: &Document,
    names: impl Iterator<Item = &'n String>,
    sets: &mut FeatureSets,
    errors: &mut SpecErrors,
) {
    // Sets that could not be loaded are no mistake of the vectors that name them.
    let complete = errors.errors().is_empty();
    let expressions = expressions();
    for name in names {
        let path = ["feature_vectors", name];
        let mut wrong = |place: &[String], text: &str| {
            let place: Vec<&str> = path.into_iter().chain(place.iter().map(String::as_str)).collect();
            errors.push(document.place(&place), format!("feature vector `{name}`: {text}"));
        };
        if !is_plain(name) {
            wrong(&[], "a vector's name is letters, digits, `_` and `-`");
        }
        match document.typed::<VectorSpec>(&path) {
            Ok(vector) if complete => {
                let vector = vector.vector(name).expressions(expressions.clone());
                for problem in sets.insert_vector(vector).err().into_iter().flatten() {
                    wrong(&problem.place, &problem.text);
                }
            }
            Ok(_) => {}
            Err(problems) => errors.extend(problems),
        }
    }
}

/// A graph as its file has it, and those that stand as steps in it.
fn definition(document: &Document, graph: &str) -> String {
    let (mut text, mut seen, mut left) = (String::new(), Vec::new(), vec![graph]);
    while let Some(name) = left.pop() {
        let Some(found) = document.get(&["graphs", name]).filter(|_| !seen.contains(&name)) else { continue };
        text += &format!("graph {name:?} {found}\n");
        let steps =
            found.get("steps").and_then(Value::as_object).into_iter().flat_map(|steps| steps.values());
        left.extend(steps.filter_map(|step| step.get("graph")?.get("use")?.as_str()));
        seen.push(name);
    }
    text
}

/// Takes the rows of files that pass a graph first.
///
/// On a runtime of its own: who loads a project need not have one, and must not be waited for on its own.
pub(super) fn rows_through(
    Reading { root, document, .. }: &Reading,
    sets: &FeatureSets,
    passages: &[Arc<Through>],
) -> Result<(), SpecErrors> {
    let mut errors = SpecErrors::default();
    let mut runtime = None;
    for set in sets.iter().filter_map(|set| set.writable()).filter(|set| set.passes().is_some()) {
        let name = set.set().name();
        let Some(source) = document.typed::<FeatureSetSpec>(&["feature_sets", name])?.source else {
            continue;
        };
        let mut wrong = |problem: String| {
            let place = document.place(&["feature_sets", name, "source"]);
            errors.push(place, format!("feature set `{name}`: {problem}"));
        };
        if runtime.is_none() {
            runtime = match Runtime::new() {
                Ok(made) => Some(made),
                Err(error) => {
                    wrong(error.to_string());
                    break;
                }
            };
        }
        let _entered = runtime.as_ref().map(Runtime::enter);
        if let Err(error) = set.fill(root, &source) {
            wrong(chain(&error));
        }
    }
    if let Some(runtime) = runtime {
        passages.iter().for_each(|through| through.rest());
        runtime.shutdown_background();
    }
    errors.check()
}

/// How vectors read the expressions of their columns.
pub(super) fn expressions() -> Expressions {
    Expressions::new(|named| {
        let columns = named.iter().fold(With::new(), |with, (name, text)| with.column(name, text));
        Arc::new(columns)
    })
}

/// The models of a project; the files of those that have a URL are fetched first, and answered too.
pub(super) fn models(reading: &Reading, errors: &mut SpecErrors) -> (ModelSet, AllFetched) {
    let Reading { document, keys, root } = reading;
    let mut wrong = |name: &str, problem: String| {
        errors.push(document.place(&["models", name]), format!("model `{name}`: {problem}"));
    };
    let (mut specs, mut problems) = (IndexMap::new(), Vec::new());
    for name in keys.models.keys() {
        match document.typed::<ModelSpec>(&["models", name]) {
            Ok(model) => drop(specs.insert(name.clone(), model)),
            Err(problem) => problems.push(problem),
        }
    }
    let (fetched, failed) = fetch_models(keys, root, &specs);
    for (name, error) in failed {
        let place = specs
            .shift_remove(&name)
            .and_then(|spec| spec.url)
            .map_or(String::new(), |url| format!("{url}: "));
        wrong(&name, format!("{place}{}", chain(&error)));
    }
    let files = fetched.iter().map(|(name, fetched)| (name.clone(), fetched.model())).collect();
    let models = ModelSet::load_fetched(root, &specs, &files).unwrap_or_else(|problems| {
        for problem in problems {
            let from =
                fetched.get(&problem.name).map_or(String::new(), |fetched| format!("{}: ", fetched.from));
            wrong(&problem.name, format!("{from}{}", chain(&problem.reason)));
        }
        ModelSet::default()
    });
    problems.into_iter().for_each(|problem| errors.extend(problem));
    (models, fetched)
}

/// What the URLs of a project's models answer now; nothing if any cannot be had.
pub(super) fn fetched_now(reading: &Reading) -> Option<AllFetched> {
    let Reading { document, keys, root } = reading;
    let mut specs = IndexMap::new();
    for name in keys.models.keys() {
        specs.insert(name.clone(), document.typed::<ModelSpec>(&["models", name]).ok()?);
    }
    let (fetched, failed) = fetch_models(keys, root, &specs);
    failed.is_empty().then_some(fetched)
}

fn fetch_models(
    keys: &ProjectKeys,
    root: &Path,
    specs: &IndexMap<String, ModelSpec>,
) -> (AllFetched, Vec<(String, FetchError)>) {
    let cache = keys.model_cache.clone().unwrap_or_default();
    fetch::fetch_all(root, &cache, specs.iter().map(|(name, spec)| (name.as_str(), spec)))
}
