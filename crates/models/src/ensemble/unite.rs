//! Brings the rows of parallel branches back side by side.
//!
//! Columns of the same name on several branches are one column that was carried along; rows line up by where they
//! stood in the request. A branch that was skipped, or that lost a row on the way, leaves nulls.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array},
    compute::{interleave, take},
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_graph::{Origin, Rows, SchemaError, StepError, Token};

/// How several schemas become one.
#[derive(Debug)]
pub(super) struct Union {
    pub(super) schema: SchemaRef,
    columns: Vec<United>,
    ports: usize,
}

/// Where one column comes from: the in-ports that carry it, with its place there.
#[derive(Debug)]
struct United {
    name: String,
    sources: Vec<(usize, usize)>,
}

/// Plans the union of `inputs`.
pub(super) fn plan(inputs: &[SchemaRef]) -> Result<Union, SchemaError> {
    let mut columns: Vec<(United, Field)> = Vec::new();
    let mut errors = Vec::new();
    for (port, schema) in inputs.iter().enumerate() {
        for (column, field) in schema.fields().iter().enumerate() {
            let Some((united, known)) = columns.iter_mut().find(|(united, _)| united.name == *field.name())
            else {
                let united = United { name: field.name().clone(), sources: vec![(port, column)] };
                columns.push((united, field.as_ref().clone()));
                continue;
            };
            if known.data_type() != field.data_type() {
                errors.push(SchemaError::new(format!(
                    "column `{}` is {} on input {} but {} on input {port}",
                    field.name(),
                    known.data_type(),
                    united.sources[0].0,
                    field.data_type()
                )));
            }
            united.sources.push((port, column));
            known.set_nullable(known.is_nullable() || field.is_nullable());
        }
    }
    SchemaError::collect(errors)?;
    let ports = inputs.len();
    let fields: Vec<Field> = columns
        .iter()
        .map(|(united, field)| {
            field.clone().with_nullable(field.is_nullable() || united.sources.len() < ports)
        })
        .collect();
    let columns = columns.into_iter().map(|(united, _)| united).collect();
    Ok(Union { schema: Arc::new(Schema::new(fields)), columns, ports })
}

/// The rows of all in-ports side by side.
pub(super) fn unite(union: &Union, tokens: &[Token]) -> Result<Rows, StepError> {
    let rows = |port: usize| match tokens.get(port) {
        Some(Token::Rows(rows)) => Some(rows),
        _ => None,
    };
    let present: Vec<(usize, &Rows)> =
        (0..union.ports).filter_map(|port| Some((port, rows(port)?))).collect();
    let Some(&(_, first)) = present.first() else {
        return Err(StepError::internal("no in-port carries rows in this run"));
    };
    if present.len() > 1 && present.iter().any(|(_, rows)| *rows.origin() == Origin::Lost) {
        return Err(StepError::internal("a branch's rows no longer know which rows of the request they are"));
    }
    let same = |rows: &Rows| rows.len() == first.len() && same_origin(rows.origin(), first.origin());
    // Rows leave in the order of the request, also when every branch has turned them round in the same way.
    let aligned = in_order(first.origin()) && present.iter().all(|(_, rows)| same(rows));
    let lines = if aligned { Lines::Same(first.len()) } else { Lines::of(&present) };
    let columns =
        union.columns.iter().map(|column| column.unite(union, &present, &lines)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(lines.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&union.schema), columns, &options)?;
    match lines {
        Lines::Same(_) => first.replace(batch),
        Lines::Mixed { at, .. } => Ok(Rows::with_origin(batch, Origin::Picked(at.into()))),
    }
}

fn in_order(origin: &Origin) -> bool {
    match origin {
        Origin::Picked(at) => at.is_sorted(),
        Origin::Whole | Origin::Lost => true,
    }
}

fn same_origin(a: &Origin, b: &Origin) -> bool {
    match (a, b) {
        (Origin::Picked(a), Origin::Picked(b)) => Arc::ptr_eq(a, b) || a == b,
        (a, b) => a == b,
    }
}

/// Which rows of the in-ports make up each row of the union.
enum Lines {
    /// Row `i` of every in-port.
    Same(usize),
    /// Rows that are matched one by one.
    Mixed {
        /// Where each row of the union stood in the request.
        at: Vec<u32>,
        /// What each of the present in-ports has to it.
        ports: Vec<Matched>,
    },
}

/// The rows of one in-port among the rows of the union.
struct Matched {
    /// For each row of the union, the row of the in-port.
    rows: Vec<Option<usize>>,
    /// The rows of the union that the in-port has, and its own rows, in the same order.
    pairs: (UInt32Array, UInt32Array),
}

impl Matched {
    fn new(origin: &[u32], at: &[u32]) -> Self {
        let mut sorted: Vec<(u32, usize)> = origin.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        let row = |at: &u32| sorted.binary_search_by_key(at, |(at, _)| *at).ok().map(|found| sorted[found].1);
        let rows: Vec<Option<usize>> = at.iter().map(row).collect();
        let pairs = rows.iter().zip(0_u32..).filter_map(|(row, line)| Some((line, (*row)? as u32)));
        let (lines, own): (Vec<u32>, Vec<u32>) = pairs.unzip();
        Self { rows, pairs: (lines.into(), own.into()) }
    }
}

impl Lines {
    fn of(present: &[(usize, &Rows)]) -> Self {
        let origins: Vec<Vec<u32>> = present
            .iter()
            .map(|(_, rows)| match rows.origin() {
                Origin::Picked(at) => at.to_vec(),
                Origin::Whole | Origin::Lost => (0..rows.len() as u32).collect(),
            })
            .collect();
        let mut at: Vec<u32> = origins.iter().flatten().copied().collect();
        at.sort_unstable();
        at.dedup();
        let ports = origins.iter().map(|origin| Matched::new(origin, &at)).collect();
        Self::Mixed { at, ports }
    }

    fn len(&self) -> usize {
        match self {
            Self::Same(rows) => *rows,
            Self::Mixed { at, .. } => at.len(),
        }
    }
}

impl United {
    fn unite(&self, union: &Union, present: &[(usize, &Rows)], lines: &Lines) -> Result<ArrayRef, StepError> {
        // The place among the present in-ports, and the column there.
        let carriers: Vec<(usize, &ArrayRef)> = self
            .sources
            .iter()
            .filter_map(|&(port, column)| {
                let place = present.iter().position(|(known, _)| *known == port)?;
                Some((place, present[place].1.batch().column(column)))
            })
            .collect();
        let Some(&(_, first)) = carriers.first() else {
            let field = union.schema.field_with_name(&self.name)?;
            return Ok(new_null_array(field.data_type(), lines.len()));
        };
        let Lines::Mixed { at, ports } = lines else {
            return match carriers.iter().all(|(_, column)| same(first, column)) {
                true => Ok(Arc::clone(first)),
                false => Err(self.differs()),
            };
        };
        let nothing = new_null_array(first.data_type(), 1);
        let mut arrays: Vec<&dyn Array> = carriers.iter().map(|(_, column)| &***column).collect();
        arrays.push(&*nothing);
        let pick = |line: usize| {
            let mut found = carriers.iter().enumerate();
            found
                .find_map(|(i, (place, _))| Some((i, ports[*place].rows[line]?)))
                .unwrap_or((carriers.len(), 0))
        };
        let picks: Vec<(usize, usize)> = (0..at.len()).map(pick).collect();
        let united = interleave(&arrays, &picks)?;
        for (place, column) in carriers.iter().skip(1) {
            let (lines, own) = &ports[*place].pairs;
            if take(&united, lines, None)? != take(column, own, None)? {
                return Err(self.differs());
            }
        }
        Ok(united)
    }

    fn differs(&self) -> StepError {
        StepError::internal(format!(
            "column `{}` comes from several branches with different values; rename it in all but one",
            self.name
        ))
    }
}

/// Whether two columns are the same one; a column that was only carried along is not even looked at.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
