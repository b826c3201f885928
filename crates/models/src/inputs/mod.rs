//! Columns into tensors: planned once against a schema, then done per batch without looking anything up.

mod gather;
mod plan;

use std::{borrow::Cow, ops::Range};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::DataType,
    error::ArrowError,
};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use crate::{DType, tensor::Values};

pub(crate) use plan::compile;

pub(crate) type Dims = SmallVec<[usize; 4]>;

/// What happens to a row in which a column that a model takes is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// The row fails and leaves on the error port.
    #[default]
    Error,
    /// The model sees a NaN. Only inputs of floats have one.
    Nan,
}

/// How the columns of one schema become the inputs of one model.
#[derive(Debug)]
pub(crate) struct InputPlan {
    tensors: Vec<TensorPlan>,
    /// Rows per call, when the model takes no other number.
    rows_per_call: Option<usize>,
    /// Columns that are cast first: dictionaries and decimals.
    unpack: Vec<(usize, DataType)>,
    nulls: Nulls,
}

/// How one input is made.
#[derive(Debug)]
struct TensorPlan {
    input: String,
    dtype: DType,
    parts: Vec<Part>,
    row: RowShape,
}

/// The shape of one row of an input.
#[derive(Debug)]
enum RowShape {
    /// The same in every batch.
    Fixed(Dims),
    /// As long as the lists of the rows; the model declares these sizes.
    Open(Vec<Option<usize>>),
}

/// One column of an input.
#[derive(Debug)]
struct Part {
    column: usize,
    name: String,
    levels: SmallVec<[Level; 2]>,
    leaf: Leaf,
    /// Values per row; not used for lists.
    width: usize,
}

/// One level of lists around the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Fixed(usize),
    List,
    LargeList,
}

/// The values inside the lists of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    Utf8,
    LargeUtf8,
    Utf8View,
}

/// Rows that cannot be turned into tensors, with the reason.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rows: Vec<(usize, String)>,
}

impl Faults {
    fn push(&mut self, row: usize, reason: impl FnOnce() -> String) {
        // Reasons come column by column; within one column a row keeps its first.
        if self.rows.last().is_none_or(|(last, _)| *last != row) {
            self.rows.push((row, reason()));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows at fault in order, each with its first reason.
    pub(crate) fn into_rows(mut self) -> Vec<(usize, String)> {
        self.rows.sort_by_key(|(row, _)| *row);
        self.rows.dedup_by_key(|(row, _)| *row);
        self.rows
    }
}

/// One input for one call: its shape and its values.
pub(crate) struct Made<'a> {
    pub(crate) shape: Dims,
    pub(crate) values: Values<'a>,
}

impl InputPlan {
    /// The columns that it takes, by index.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> {
        self.tensors.iter().flat_map(|tensor| &tensor.parts).map(|part| part.column)
    }

    /// The columns of a batch as the plan reads them.
    pub(crate) fn columns<'b>(&self, columns: &'b [ArrayRef]) -> Result<Cow<'b, [ArrayRef]>, ArrowError> {
        if self.unpack.is_empty() {
            return Ok(Cow::Borrowed(columns));
        }
        let mut columns = columns.to_vec();
        for (column, to) in &self.unpack {
            columns[*column] = cast(&columns[*column], to)?;
        }
        Ok(Cow::Owned(columns))
    }

    /// The ranges of rows that the model takes in one call each, in order.
    pub(crate) fn calls(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        faults: &mut Faults,
    ) -> SmallVec<[Range<usize>; 1]> {
        let most = self.rows_per_call.unwrap_or(rows).max(1);
        if !self.tensors.iter().any(TensorPlan::is_open) {
            return (0..rows).step_by(most).map(|start| start..(start + most).min(rows)).collect();
        }
        // Lists of different lengths make no tensor: rows go together as long as their shapes are the same.
        let mut calls = SmallVec::new();
        let mut start = 0;
        let mut shapes: Vec<Option<Dims>> = vec![None; self.tensors.len()];
        for row in 0..rows {
            let mut fits = row - start < most;
            for (last, tensor) in shapes.iter_mut().zip(&self.tensors).filter(|(_, tensor)| tensor.is_open())
            {
                let Some(shape) = tensor.shape_of(columns, row, faults) else { continue };
                if last.as_ref() != Some(&shape) {
                    fits &= last.is_none();
                    *last = Some(shape);
                }
            }
            if !fits {
                calls.push(start..row);
                start = row;
            }
        }
        calls.push(start..rows);
        calls
    }

    /// The inputs for one call over `rows`, as many of them as the model takes: the last row is repeated if it must.
    pub(crate) fn make<'a>(
        &self,
        columns: &'a [ArrayRef],
        rows: &Range<usize>,
        faults: &mut Faults,
    ) -> SmallVec<[Made<'a>; 2]> {
        let total = self.rows_per_call.unwrap_or(rows.len());
        self.tensors.iter().map(|tensor| tensor.make(columns, rows, total, self.nulls, faults)).collect()
    }
}

impl TensorPlan {
    fn is_open(&self) -> bool {
        matches!(self.row, RowShape::Open(_))
    }

    /// The shape of one row of lists.
    fn shape_of(&self, columns: &[ArrayRef], row: usize, faults: &mut Faults) -> Option<Dims> {
        let (RowShape::Open(declared), [part]) = (&self.row, self.parts.as_slice()) else { return None };
        let column = &columns[part.column];
        if part.lists_null(column, row) {
            faults.push(row, || part.is_null(&self.input));
            return None;
        }
        let Some((_, shape)) = part.locate(column, row) else {
            faults.push(row, || format!("column `{}` holds lists of different lengths", part.name));
            return None;
        };
        let fits =
            shape.iter().zip(declared).all(|(size, declared)| declared.is_none_or(|wanted| wanted == *size));
        if !fits || shape.contains(&0) {
            faults.push(row, || {
                let wanted: Vec<_> = std::iter::once(None).chain(declared.iter().copied()).collect();
                let wanted = crate::model::Shape(&wanted);
                format!(
                    "column `{}` has shape {shape:?}, but input `{}` takes {wanted}",
                    part.name, self.input
                )
            });
            return None;
        }
        Some(shape)
    }
}

impl Part {
    fn is_null(&self, input: &str) -> String {
        format!("column `{}` is null, which input `{input}` does not take", self.name)
    }

    /// Where the values of `row` start, and the shape they have; `None` when inner lists differ in length.
    fn locate(&self, column: &ArrayRef, row: usize) -> Option<(usize, Dims)> {
        let (mut start, mut len) = (row, 1);
        let mut array = column;
        let mut shape = Dims::new();
        for level in &self.levels {
            let size = match level {
                Level::Fixed(size) => {
                    array = array.as_fixed_size_list().values();
                    (start, len) = (start * size, len * size);
                    *size
                }
                Level::List => {
                    let list = array.as_list::<i32>();
                    let offsets: Dims =
                        list.offsets()[start..=start + len].iter().map(|&at| at as usize).collect();
                    array = list.values();
                    even(&offsets, &mut start, &mut len)?
                }
                Level::LargeList => {
                    let list = array.as_list::<i64>();
                    let offsets: Dims =
                        list.offsets()[start..=start + len].iter().map(|&at| at as usize).collect();
                    array = list.values();
                    even(&offsets, &mut start, &mut len)?
                }
            };
            shape.push(size);
        }
        Some((start, shape))
    }

    /// Whether a list around the values of `row` is null.
    fn lists_null(&self, column: &ArrayRef, row: usize) -> bool {
        let (mut start, mut len) = (row, 1);
        let mut array = column;
        for level in &self.levels {
            if array.nulls().is_some_and(|nulls| nulls.slice(start, len).null_count() > 0) {
                return true;
            }
            let range = |offsets: &[usize]| (offsets[0], offsets[1] - offsets[0]);
            match level {
                Level::Fixed(size) => {
                    array = array.as_fixed_size_list().values();
                    (start, len) = (start * size, len * size);
                }
                Level::List => {
                    let list = array.as_list::<i32>();
                    let offsets = list.offsets();
                    (start, len) = range(&[offsets[start] as usize, offsets[start + len] as usize]);
                    array = list.values();
                }
                Level::LargeList => {
                    let list = array.as_list::<i64>();
                    let offsets = list.offsets();
                    (start, len) = range(&[offsets[start] as usize, offsets[start + len] as usize]);
                    array = list.values();
                }
            }
        }
        false
    }

    /// Whether no list of the whole column is null.
    fn no_list_is_null(&self, column: &ArrayRef) -> bool {
        let mut array = column;
        self.levels.iter().all(|level| {
            let whole = array.null_count() == 0;
            array = inner(array, *level);
            whole
        })
    }

    /// The values inside all lists.
    fn leaf<'a>(&self, column: &'a ArrayRef) -> &'a ArrayRef {
        self.levels.iter().fold(column, |array, level| inner(array, *level))
    }
}

fn inner(array: &ArrayRef, level: Level) -> &ArrayRef {
    match level {
        Level::Fixed(_) => array.as_fixed_size_list().values(),
        Level::List => array.as_list::<i32>().values(),
        Level::LargeList => array.as_list::<i64>().values(),
    }
}

/// The common length of the lists between these offsets; moves `start` and `len` to the values inside them.
fn even(offsets: &[usize], start: &mut usize, len: &mut usize) -> Option<usize> {
    let size = offsets.get(1).map_or(0, |second| second - offsets[0]);
    (*start, *len) = (offsets[0], offsets[offsets.len() - 1] - offsets[0]);
    offsets.windows(2).all(|pair| pair[1] - pair[0] == size).then_some(size)
}
