//! Validation rules: what rows must keep to be taken.

use std::sync::Arc;

use arrow::{
    array::{Array, BooleanArray, RecordBatch},
    datatypes::SchemaRef,
};
use indexmap::IndexMap;

use super::{Otherwise, RuleSpec};
use crate::{Conditions, Predicate, RowProblem};

/// The rules of one set, typed.
#[derive(Clone, Default)]
pub(crate) struct Rules(Arc<[Rule]>);

struct Rule {
    name: Arc<str>,
    text: String,
    otherwise: Otherwise,
    predicate: Arc<dyn Predicate>,
}

/// A row that breaks a rule.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) row: usize,
    pub(crate) rule: Arc<str>,
    pub(crate) refuses: bool,
    pub(crate) problem: String,
}

impl Broken {
    pub(crate) fn problem(&self) -> RowProblem {
        RowProblem::Rule { rule: self.rule.to_string(), problem: self.problem.clone() }
    }
}

impl Rules {
    /// Rules over rows with these columns.
    ///
    /// # Errors
    /// With every rule that is no condition over them.
    pub(crate) fn new(
        specs: &IndexMap<String, RuleSpec>,
        columns: &SchemaRef,
        conditions: &Conditions,
    ) -> Result<Self, Vec<String>> {
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for (name, RuleSpec { that, otherwise }) in specs {
            match conditions.make(that, columns) {
                Ok(condition) => rules.push(Rule {
                    name: name.as_str().into(),
                    text: that.clone(),
                    otherwise: *otherwise,
                    predicate: condition.predicate,
                }),
                Err(problem) => problems.push(format!("rule `{name}`: `{that}`: {problem}")),
            }
        }
        if problems.is_empty() { Ok(Self(rules.into())) } else { Err(problems) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows that break rules, rule by rule. A rule that comes to null is not broken, as a `CHECK` of SQL is not.
    pub(crate) fn broken(&self, rows: &RecordBatch) -> Vec<Broken> {
        let mut broken = Vec::new();
        for rule in self.0.iter() {
            match rule.keep(rows) {
                Ok(kept) => broken.extend(
                    (0..rows.num_rows()).filter(|&row| breaks(&kept, row)).map(|row| rule.broken(row, None)),
                ),
                // One row's mistake must not be that of the others.
                Err(_) => {
                    broken.extend((0..rows.num_rows()).filter_map(
                        |row| match rule.keep(&rows.slice(row, 1)) {
                            Ok(kept) => breaks(&kept, 0).then(|| rule.broken(row, None)),
                            Err(problem) => Some(rule.broken(row, Some(&problem))),
                        },
                    ))
                }
            }
        }
        broken
    }
}

fn breaks(kept: &BooleanArray, row: usize) -> bool {
    kept.is_valid(row) && !kept.value(row)
}

impl Rule {
    fn keep(&self, rows: &RecordBatch) -> Result<BooleanArray, String> {
        let kept = self.predicate.keep(rows).map_err(|error| error.to_string())?;
        let (got, wanted) = (kept.len(), rows.num_rows());
        if got == wanted { Ok(kept) } else { Err(format!("it answers for {got} of {wanted} rows")) }
    }

    fn broken(&self, row: usize, problem: Option<&str>) -> Broken {
        let problem = match problem {
            None => format!("`{}` is not true", self.text),
            Some(problem) => format!("`{}` cannot be told: {problem}", self.text),
        };
        let refuses = self.otherwise == Otherwise::Refuse;
        Broken { row, rule: Arc::clone(&self.name), refuses, problem }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|rule| &rule.name)).finish()
    }
}
