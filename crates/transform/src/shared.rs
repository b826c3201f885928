//! Parts that several expressions of a step have in common, computed once over columns.
//!
//! A part is shared when at least one of the expressions is sure to compute it for every row, so that computing it first fails
//! for no row that would not have failed. When it does fail, the expressions are computed as they were written: what a failure
//! says comes from one place.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Field, FieldRef, Schema, SchemaRef},
};
use datafusion_common::{Result, internal_err};
use datafusion_expr::Operator;
use datafusion_physical_expr::{
    PhysicalExpr, ScalarFunctionExpr,
    expressions::{BinaryExpr, CaseExpr, Column, Literal},
};

use crate::CompiledExpr;

type Node = Arc<dyn PhysicalExpr>;

/// Expressions over the same columns, with what they have in common taken out.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The columns that are read, of those that come in.
    reads: Vec<usize>,
    /// The parts in common; each sees the columns that are read and the parts before it.
    parts: Vec<Node>,
    /// What part `i` sees, and behind all parts what the expressions see.
    schemas: Vec<SchemaRef>,
    exprs: Vec<CompiledExpr>,
}

impl Shared {
    /// `None` when the expressions have nothing in common, or nothing that is worth it.
    pub(crate) fn new<'e>(
        exprs: impl Iterator<Item = &'e CompiledExpr> + Clone,
        schema: &Schema,
    ) -> Option<Self> {
        let mut counts = HashMap::new();
        exprs.clone().for_each(|expr| count(expr.physical(), true, &mut counts));
        if !counts.values().any(Count::shared) {
            return None;
        }
        let mut reads: Vec<usize> = exprs.clone().flat_map(CompiledExpr::columns).collect();
        reads.sort_unstable();
        reads.dedup();
        let fields =
            reads.iter().map(|&at| schema.fields().get(at).map(Arc::clone)).collect::<Option<Vec<_>>>()?;
        let mut taken = Taken { counts, schema, reads, parts: Vec::new(), places: HashMap::new(), fields };
        let exprs = exprs
            .map(|expr| Some(expr.over_columns(taken.without(expr.physical()).ok()?)))
            .collect::<Option<Vec<_>>>()?;
        let Taken { reads, parts, fields, .. } = taken;
        let schemas =
            (reads.len()..=fields.len()).map(|width| Arc::new(Schema::new(fields[..width].to_vec())));
        Some(Self { schemas: schemas.collect(), reads, parts, exprs })
    }

    /// The values of every expression; `None` when a value may be at fault.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Option<Vec<ArrayRef>> {
        let rows = batch.num_rows();
        let columns = self.reads.iter().map(|&at| batch.columns().get(at).map(Arc::clone));
        let mut columns = columns.collect::<Option<Vec<ArrayRef>>>()?;
        let seen = |columns: &[ArrayRef], schema: &SchemaRef| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            RecordBatch::try_new_with_options(Arc::clone(schema), columns.to_vec(), &options).ok()
        };
        for (part, schema) in self.parts.iter().zip(&self.schemas) {
            let value = part.evaluate(&seen(&columns, schema)?).ok()?;
            columns.push(value.into_array(rows).ok()?);
        }
        let batch = seen(&columns, self.schemas.last()?)?;
        self.exprs.iter().map(|expr| expr.evaluate_columns(&batch).ok()).collect()
    }
}

/// How often a part is written, parts of a part that was met before not counted again.
#[derive(Default)]
struct Count {
    written: usize,
    /// Whether it is computed for every row, whatever the values.
    sure: bool,
}

impl Count {
    fn shared(&self) -> bool {
        self.written > 1 && self.sure
    }
}

fn count(node: &Node, sure: bool, counts: &mut HashMap<Node, Count>) {
    if node.downcast_ref::<Column>().is_some() || node.downcast_ref::<Literal>().is_some() {
        return;
    }
    let known = counts.entry(Arc::clone(node)).or_default();
    known.written += 1;
    known.sure |= sure;
    if known.written == 1 {
        for (child, always) in children(node) {
            count(child, sure && always, counts);
        }
    }
}

/// The operands of a node, and whether each is computed for every row for which the node is.
fn children(node: &Node) -> Vec<(&Node, bool)> {
    if let Some(case) = node.downcast_ref::<CaseExpr>() {
        let first = case.expr().or_else(|| case.when_then_expr().first().map(|(when, _)| when));
        let is_first = |child: &Node| first.is_some_and(|first| Arc::ptr_eq(first, child));
        return node.children().into_iter().map(|child| (child, is_first(child))).collect();
    }
    let binary = node.downcast_ref::<BinaryExpr>();
    let either = binary.is_some_and(|binary| matches!(binary.op(), Operator::And | Operator::Or));
    let call = node.downcast_ref::<ScalarFunctionExpr>();
    let lazy = either || call.is_some_and(|call| call.fun().short_circuits());
    let children = node.children().into_iter().enumerate();
    children.map(|(at, child)| (child, !lazy || (either && at == 0))).collect()
}

/// What was taken out of expressions so far.
struct Taken<'s> {
    counts: HashMap<Node, Count>,
    schema: &'s Schema,
    reads: Vec<usize>,
    parts: Vec<Node>,
    places: HashMap<Node, usize>,
    /// The columns that are read, and one for each part.
    fields: Vec<FieldRef>,
}

impl Taken<'_> {
    /// A node with columns in the places of the parts that were taken out of it.
    fn without(&mut self, node: &Node) -> Result<Node> {
        if let Some(column) = node.downcast_ref::<Column>() {
            return match self.reads.binary_search(&column.index()) {
                Ok(place) => Ok(Arc::new(Column::new(column.name(), place))),
                Err(_) => internal_err!("column {} is not read", column.index()),
            };
        }
        let shared = self.counts.get(node).is_some_and(Count::shared);
        if let (true, Some(&place)) = (shared, self.places.get(node)) {
            return Ok(Arc::new(Column::new("", place)));
        }
        let children: Vec<Node> =
            node.children().into_iter().map(|child| self.without(child)).collect::<Result<_>>()?;
        let moved = if children.is_empty() {
            Arc::clone(node)
        } else {
            Arc::clone(node).with_new_children(children)?
        };
        if !shared {
            return Ok(moved);
        }
        let place = self.fields.len();
        self.fields.push(Arc::new(Field::new("", node.data_type(self.schema)?, true)));
        self.parts.push(moved);
        self.places.insert(Arc::clone(node), place);
        Ok(Arc::new(Column::new("", place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expr, testing::batch};

    /// The parts that expressions have in common.
    fn parts(texts: &[&str]) -> Vec<String> {
        let schema = batch! { a: [1.0f64], b: [2.0f64], n: [1i64], m: [2i64], t: ["x"] }.schema();
        let exprs: Vec<_> =
            texts.iter().map(|text| Expr::parse(text).unwrap().compile(&schema).unwrap()).collect();
        let shared = Shared::new(exprs.iter(), &schema);
        shared.map_or_else(Vec::new, |shared| shared.parts.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_part_is_shared_when_it_is_written_twice_and_surely_computed() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["a / b", "a * b"], &[]),
            (&["a", "a + 1.0"], &[]),
            (&["log1p(a / b)", "log1p(a / b) * 2.0"], &["log1p(a@0 / b@1)"]),
            (&["(a / b) * (a / b)"], &["a@0 / b@1"]),
            (&["log1p(a / b)", "log1p(a / b) * a", "a / b"], &["a@0 / b@1", "log1p(@2)"]),
            (&["n / m", "CASE WHEN m <> 0 THEN n / m ELSE 0 END"], &["n@0 / m@1"]),
            (&["CASE WHEN m > 0 THEN n / m ELSE -(n / m) END"], &[]),
            (&["CASE WHEN n / m > 0 THEN n / m ELSE 0 END"], &["n@0 / m@1"]),
            (&["m > 0 AND n / m > 1", "m < 0 AND n / m > 1"], &[]),
            (&["n / m > 1 AND m > 0", "m < 0 OR n / m > 1"], &["n@0 / m@1 > 1"]),
            (&["coalesce(a / b, n / m)", "coalesce(b, n / m)"], &[]),
        ];
        for (texts, shared) in cases {
            assert_eq!(parts(texts), *shared, "{texts:?}");
        }
    }
}
