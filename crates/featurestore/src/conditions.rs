//! The seam to whoever knows the expressions of a project.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;

use crate::Predicate;

/// Makes conditions of the SQL expressions in definitions: those under `where` in aggregates.
///
/// By default it knows none.
#[derive(Clone)]
pub struct Conditions(Arc<Make>);

type Make = dyn Fn(&str, &SchemaRef) -> Result<Condition, String> + Send + Sync;

/// A condition over rows, typed.
#[derive(Clone)]
pub struct Condition {
    /// The columns that it reads, by their places in the schema that it was typed for.
    pub reads: Vec<usize>,
    /// Says for which rows it holds.
    pub predicate: Arc<dyn Predicate>,
}

impl Conditions {
    /// What `make` knows: it is given an expression and the columns of the rows, and answers the condition, or what is wrong.
    pub fn new(make: impl Fn(&str, &SchemaRef) -> Result<Condition, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(crate) fn make(&self, text: &str, columns: &SchemaRef) -> Result<Condition, String> {
        (self.0)(text, columns)
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::new(|_, _| Err("nothing here reads expressions".to_owned()))
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conditions").finish_non_exhaustive()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("reads", &self.reads).finish_non_exhaustive()
    }
}
