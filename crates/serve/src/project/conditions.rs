//! The conditions in feature sets, as SQL expressions.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_featurestore::{Condition, Conditions};
use millstream_graph::SchemaError;
use millstream_transform::condition;

/// Conditions in the expressions of the steps `filter` and `with`.
pub(crate) fn conditions() -> Conditions {
    Conditions::new(|text, columns| {
        let compiled = condition(text, columns).map_err(|error| problems(text, &error))?;
        let reads = compiled.columns();
        let predicate = move |rows: &RecordBatch| Ok(compiled.holds(rows)?);
        Ok(Condition { reads, predicate: Arc::new(predicate) })
    })
}

/// What is wrong, without the expression: whoever asked names it.
fn problems(text: &str, error: &SchemaError) -> String {
    let place = format!("in `{text}`: ");
    let problems = error.problems().iter().map(|problem| problem.strip_prefix(&place).unwrap_or(problem));
    problems.collect::<Vec<_>>().join("; ")
}
