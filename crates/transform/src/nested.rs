//! Steps within steps, as files write them: a map of a kind to its settings, with layers beside it.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use arrow::datatypes::SchemaRef;
use futures_util::FutureExt;
use millstream_graph::{
    ErrorKind, Input, Rows, RunCx, SchemaError, Step, StepError, Token, Work,
    spec::{Kinds, LayerKind, SettingsError, StepKind},
    suggest,
};
use serde_json::{Map, Value};
use smallvec::smallvec;

use crate::prepared::in_use;

/// What a step around others knows once it is typed.
pub(crate) struct Typed<P> {
    made: OnceLock<(SchemaRef, Arc<P>)>,
}

impl<P> Default for Typed<P> {
    fn default() -> Self {
        Self { made: OnceLock::new() }
    }
}

impl<P> Typed<P> {
    /// Keeps the plan for the one schema that comes in.
    pub(crate) fn keep(&self, input: &SchemaRef, plan: P) -> Result<(), SchemaError> {
        let (known, _) = self.made.get_or_init(|| (Arc::clone(input), Arc::new(plan)));
        if known == input { Ok(()) } else { Err(in_use()) }
    }

    /// The rows that come in, and the plan for them.
    pub(crate) fn rows(&self, mut input: Input) -> Result<(Rows, &Arc<P>), StepError> {
        let untyped = || StepError::internal("the step runs before it was typed");
        let (_, plan) = self.made.get().ok_or_else(untyped)?;
        Ok((input.rows(0)?, plan))
    }
}

/// Calls a step within a step. A panic is an error of the inner one alone, as it is of a step in a graph.
pub(crate) fn call<'a>(step: &'a dyn Step, rows: Rows, cx: &'a RunCx) -> Work<'a> {
    let panicked = || StepError::new(ErrorKind::Panicked, "it panicked");
    let input = Input::new(smallvec![Token::Rows(rows)]);
    match catch_unwind(AssertUnwindSafe(|| step.call(input, cx))) {
        Err(_) => Work::Done(Err(panicked())),
        Ok(Work::Io(answer)) => Work::Io(Box::pin(async move {
            AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
        })),
        Ok(Work::Compute(job)) => Work::Compute(Box::new(move || {
            catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| Err(panicked()))
        })),
        Ok(done) => done,
    }
}

/// The step that is written at `place` of the outer one's settings, with its layers around it.
pub(crate) fn step(
    kinds: &Kinds,
    written: &BTreeMap<String, Value>,
    place: &str,
) -> Result<Arc<dyn Step>, SchemaError> {
    let layers = || kinds.layers().iter().map(LayerKind::name);
    let (around, named): (Vec<_>, Vec<_>) =
        written.keys().partition(|key| layers().any(|layer| layer == *key));
    let [name] = named[..] else {
        return Err(SchemaError::new(format!("`{place}` is a map of a step's kind to its settings")));
    };
    let kind = kinds.get(name).ok_or_else(|| {
        let known = kinds.iter().map(StepKind::name).chain(layers());
        SchemaError::new(format!("`{place}`: {}", suggest::unknown("kind of step", name, known)))
    })?;
    let nothing = Value::Object(Map::new());
    let settings = |name: &str| written.get(name).filter(|value| !value.is_null()).unwrap_or(&nothing);
    let mut made = kind.build(settings(name)).map_err(|error| within(place, name, &error))?;
    // In the order of the layers, not of the file.
    for layer in kinds.layers().iter().filter(|layer| around.iter().any(|name| *name == layer.name())) {
        made =
            layer.build(settings(layer.name()), made).map_err(|error| within(place, layer.name(), &error))?;
    }
    Ok(made)
}

fn within(place: &str, key: &str, error: &SettingsError) -> SchemaError {
    let place = [&[place.to_owned(), key.to_owned()], &error.path[..]].concat().join(".");
    let problems = error.problems.iter().map(|problem| SchemaError::new(format!("`{place}`: {problem}")));
    SchemaError::collect(problems)
        .err()
        .unwrap_or_else(|| SchemaError::new(format!("`{place}` cannot be made")))
}
