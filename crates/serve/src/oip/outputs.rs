//! Columns of a reply into tensors.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    buffer::{BooleanBuffer, NullBuffer},
    compute::cast,
    datatypes::{DataType, Schema},
};
use millstream_graph::SchemaError;
use millstream_runtime::Portion;
use serde_json::Value;

use super::{
    datatype::Datatype,
    tensor::Tensor,
    values::{self, Form},
};
use crate::wire::{DecodeCode, DecodeError, json::ValueWriter};

/// What the tensor is called that says where another has nulls.
const IS_NULL: &str = ".is_null";

/// A tensor of replies.
pub(super) struct Output {
    name: String,
    datatype: Datatype,
    dims: Vec<Option<usize>>,
    column: Tensor,
    part: Part,
    /// What the places along its dimensions are called, as far as that is known.
    labels: Vec<String>,
}

/// What of a column an output tells.
enum Part {
    Values,
    /// Which values are null.
    Nulls,
    /// The JSON text of each value.
    Texts(ValueWriter),
}

/// The values of one output in one reply.
pub(super) struct Found {
    /// All values, row by row.
    values: ArrayRef,
    nulls: Option<NullBuffer>,
    pub(super) shape: Vec<usize>,
}

/// What was told of one output in one reply.
pub(super) struct Told {
    pub(super) datatype: &'static str,
    pub(super) shape: Vec<usize>,
}

impl Output {
    /// The outputs of replies of a schema. Where a value may be null and its type has no NaN, another output says which are.
    ///
    /// # Errors
    /// When two have the same name, or a type cannot be written.
    pub(super) fn all(schema: &Schema) -> Result<Vec<Self>, SchemaError> {
        let mut outputs: Vec<Self> = Vec::new();
        for column in Tensor::all(schema)? {
            let nulls = (column.nullable && !column.datatype.is_float() && !column.is_text).then(|| {
                Self::new(format!("{}{IS_NULL}", column.name), Datatype::Bool, Part::Nulls, column.clone())
            });
            let part =
                if column.is_text { Part::Texts(ValueWriter::new(&column.item)?) } else { Part::Values };
            outputs.push(Self::new(column.name.clone(), column.datatype, part, column));
            outputs.extend(nulls);
        }
        if let Some(twice) = outputs
            .iter()
            .enumerate()
            .find(|(at, output)| outputs[..*at].iter().any(|known| known.name == output.name))
        {
            return Err(SchemaError::new(format!("two outputs are named `{}`", twice.1.name)));
        }
        Ok(outputs)
    }

    fn new(name: String, datatype: Datatype, part: Part, column: Tensor) -> Self {
        Self { name, datatype, dims: column.dims.clone(), column, part, labels: Vec::new() }
    }

    /// The same, of rows of these sizes, of which the column may lack the last if it is 1, with names for its places.
    #[must_use]
    pub(super) fn declared(mut self, dims: Vec<Option<usize>>, labels: Vec<String>) -> Self {
        (self.dims, self.labels) = (dims, labels);
        self
    }

    /// The same, with these names for its places.
    #[must_use]
    pub(super) fn labelled(mut self, labels: Vec<String>) -> Self {
        self.labels = labels;
        self
    }

    /// Whether it says where another output has nulls.
    pub(super) fn tells_nulls(&self) -> bool {
        matches!(self.part, Part::Nulls)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub(super) fn dims(&self) -> &[Option<usize>] {
        &self.dims
    }

    pub(super) fn metadata(&self) -> Value {
        Tensor::metadata(&self.name, self.datatype, &self.dims)
    }

    pub(super) fn config(&self) -> Value {
        Tensor::config(&self.name, self.datatype, &self.dims)
    }

    /// Refuses to tell classes of what has no greatest value.
    pub(super) fn check_classes(&self) -> Result<(), DecodeError> {
        if !matches!(self.datatype, Datatype::Bool | Datatype::Bytes) {
            return Ok(());
        }
        let message = format!("output `{}` is {}, which has no classes", self.name, self.datatype.name());
        Err(DecodeError::new(DecodeCode::WrongType, message))
    }

    /// Appends its values in a reply, or so many of their classes.
    ///
    /// # Errors
    /// As [`Output::find`] and [`Output::write`].
    pub(super) fn tell(
        &self,
        reply: &Portion,
        classes: usize,
        form: Form,
        out: &mut Vec<u8>,
    ) -> Result<Told, DecodeError> {
        let found = self.find(reply.reply().rows(), reply.range())?;
        if classes > 0 {
            let shape = self.classes(&found, classes, form, out)?;
            return Ok(Told { datatype: Datatype::Bytes.name(), shape: shape.to_vec() });
        }
        self.write(&found, form, out)?;
        Ok(Told { datatype: self.datatype.name(), shape: found.shape })
    }

    /// Its values in some rows of a reply.
    ///
    /// # Errors
    /// When they are no tensor: lists of different lengths.
    pub(super) fn find(&self, batch: &RecordBatch, rows: Range<usize>) -> Result<Found, DecodeError> {
        let found = self.values_of(batch, rows)?;
        let mut shape = found.shape.clone();
        if shape.len() == self.dims.len() {
            shape.push(1);
        }
        Ok(Found { shape, ..found })
    }

    fn values_of(&self, batch: &RecordBatch, rows: Range<usize>) -> Result<Found, DecodeError> {
        let unfit = || self.unfit("the reply has other columns than the graph said");
        let column = self.column.path.first().and_then(|&at| batch.columns().get(at)).ok_or_else(unfit)?;
        let mut values = column.slice(rows.start, rows.len());
        let mut nulls = values.logical_nulls();
        let mut shape = vec![rows.len()];
        for &field in &self.column.path[1..] {
            let inner = values.as_struct_opt().and_then(|of| of.columns().get(field)).map(ArrayRef::clone);
            values = inner.ok_or_else(unfit)?;
            nulls = NullBuffer::union(nulls.as_ref(), values.logical_nulls().as_ref());
        }
        for level in 0..self.column.levels {
            let lists = values.len();
            let (inner, size) = self.items(&values, level)?;
            nulls = nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| repeat(&nulls, size));
            if inner.len() != lists * size {
                return Err(unfit());
            }
            values = inner;
            nulls = NullBuffer::union(nulls.as_ref(), values.logical_nulls().as_ref());
            shape.push(size);
        }
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        Ok(Found { values, nulls, shape })
    }

    /// The items of lists that are all of the same length, and that length.
    fn items(&self, lists: &ArrayRef, level: usize) -> Result<(ArrayRef, usize), DecodeError> {
        if let Some(lists) = lists.as_fixed_size_list_opt() {
            let size = lists.value_length() as usize;
            return Ok((lists.values().slice(lists.value_offset(0) as usize, lists.len() * size), size));
        }
        let (ends, items): (Vec<usize>, &ArrayRef) =
            match (lists.as_list_opt::<i32>(), lists.as_list_opt::<i64>()) {
                (Some(lists), _) => {
                    (lists.value_offsets().iter().map(|&end| end as usize).collect(), lists.values())
                }
                (_, Some(lists)) => {
                    (lists.value_offsets().iter().map(|&end| end as usize).collect(), lists.values())
                }
                _ => return Err(self.unfit("the reply has other columns than the graph said")),
            };
        let (start, end) = (ends.first().copied().unwrap_or(0), ends.last().copied().unwrap_or(0));
        let size = match ends.len() {
            0 | 1 => self.column.dims.get(level).copied().flatten().unwrap_or(0),
            _ => ends[1] - ends[0],
        };
        if ends.windows(2).any(|ends| ends[1] - ends[0] != size) {
            return Err(self.unfit("its lists have different lengths, which no tensor holds"));
        }
        Ok((items.slice(start, end - start), size))
    }

    fn unfit(&self, why: &str) -> DecodeError {
        DecodeError::new(DecodeCode::WrongType, format!("output `{}`: {why}", self.name))
    }

    /// Appends the values.
    ///
    /// # Errors
    /// When they cannot be written in this form: bytes that are no text, as JSON.
    pub(super) fn write(&self, found: &Found, form: Form, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match &self.part {
            Part::Nulls => {
                let values = found.values.len();
                let nulls = match &found.nulls {
                    Some(nulls) => !nulls.inner(),
                    None => BooleanBuffer::new_unset(values),
                };
                form.bools(nulls.iter(), out);
            }
            Part::Texts(writer) => {
                let mut text = Vec::new();
                form.list(out, 0..found.values.len(), |row, out| {
                    text.clear();
                    match &found.nulls {
                        Some(nulls) if nulls.is_null(row) => text.extend_from_slice(b"null"),
                        _ => writer.write(found.values.as_ref(), row, &mut text),
                    }
                    form.text(&text, out).ok_or(())
                })
                .map_err(|()| self.unfit("it is not UTF-8"))?;
            }
            Part::Values => {
                let values = canonical(&found.values).map_err(|error| self.unfit(&error.to_string()))?;
                values::write(&values, found.nulls.as_ref(), form, out).ok_or_else(|| {
                    self.unfit("some of its values are not UTF-8; ask for it with `binary_data`")
                })?;
            }
        }
        Ok(())
    }

    /// Appends, for each row, the `most` greatest values with their places, and the shape of that.
    pub(super) fn classes(
        &self,
        found: &Found,
        most: usize,
        form: Form,
        out: &mut Vec<u8>,
    ) -> Result<[usize; 2], DecodeError> {
        let rows = found.shape.first().copied().unwrap_or(0);
        let row = found.values.len().checked_div(rows).unwrap_or(0);
        let values = canonical(&found.values).map_err(|error| self.unfit(&error.to_string()))?;
        let classes = values::classes(&values, found.nulls.as_ref(), rows, most, &self.labels);
        let classes = classes.ok_or_else(|| self.unfit("it has no classes"))?;
        // Texts of numbers and names are UTF-8.
        let written = form.list(out, classes.iter(), |text, out| form.text(text.as_bytes(), out).ok_or(()));
        written.map_err(|()| self.unfit("it is not UTF-8"))?;
        Ok([rows, row.min(most)])
    }
}

/// Whether items are null because their lists are: each of them as often as it has items.
fn repeat(nulls: &NullBuffer, size: usize) -> NullBuffer {
    let bits: BooleanBuffer = nulls.iter().flat_map(|valid| std::iter::repeat_n(valid, size)).collect();
    NullBuffer::new(bits)
}

/// The same values in a type that tensors have.
fn canonical(values: &ArrayRef) -> Result<ArrayRef, arrow::error::ArrowError> {
    match values.data_type() {
        DataType::Timestamp(..) => cast(values, &DataType::Int64),
        DataType::Date32 => cast(values, &DataType::Int32),
        DataType::Dictionary(..) => cast(values, &DataType::Utf8),
        _ => Ok(ArrayRef::clone(values)),
    }
}
