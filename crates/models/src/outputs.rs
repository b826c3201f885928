//! A model's outputs into columns: planned once, then appended call by call.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, FixedSizeListArray, ListArray, PrimitiveArray, StringBuilder},
    buffer::OffsetBuffer,
    datatypes::{
        DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    error::ArrowError,
};
use half::f16;
use indexmap::IndexMap;
use millstream_graph::{SchemaError, suggest};
use smallvec::SmallVec;

use crate::{
    DType, Data, Keys, ModelError, ModelInfo, OutputInfo, OutputKind, Pick, Place, Tensor, Value,
    inputs::Dims, model::described,
};

/// How the outputs of one model become columns.
#[derive(Debug)]
pub(crate) struct OutputPlan {
    /// The outputs that are asked for, as indices into [`ModelInfo::outputs`].
    wanted: Vec<usize>,
    columns: Vec<ColumnPlan>,
}

/// How one column is made.
#[derive(Debug)]
struct ColumnPlan {
    name: String,
    output: String,
    /// Which of the wanted outputs it is a part of.
    slot: usize,
    dtype: DType,
    /// The positions along the first dimensions of each row.
    places: Dims,
    /// The sizes of what is left of each row; none is a single value.
    rest: Vec<Option<usize>>,
    /// Whether the single value that is left is a column of its own rather than of lists of one.
    scalar: bool,
}

/// Plans the columns: those that are `declared`, else one per output, under the output's name.
pub(crate) fn compile(
    model: &ModelInfo,
    declared: &IndexMap<String, Pick>,
) -> Result<OutputPlan, SchemaError> {
    let mut plan = OutputPlan { wanted: Vec::new(), columns: Vec::new() };
    let mut errors = Vec::new();
    let every = model.outputs.iter().map(|output| (output.name.clone(), Pick::all(&output.name)));
    let every: Vec<(String, Pick)> = match declared.is_empty() {
        true => every.collect(),
        false => declared.iter().map(|(name, pick)| (name.clone(), pick.clone())).collect(),
    };
    for (name, pick) in every {
        match plan.column(model, name, &pick) {
            Ok(column) => plan.columns.push(column),
            Err(error) => errors.push(error),
        }
    }
    SchemaError::collect(errors).map(|()| plan)
}

impl OutputPlan {
    fn column(&mut self, model: &ModelInfo, name: String, pick: &Pick) -> Result<ColumnPlan, SchemaError> {
        // A name may hold brackets itself: the whole text is tried first.
        let find = |name: &str| model.outputs.iter().position(|output| output.name == name);
        let (index, places) = match (find(pick.text()), find(pick.output())) {
            (Some(index), _) => (index, &[][..]),
            (None, Some(index)) => (index, pick.places()),
            (None, None) => {
                let known = model.outputs.iter().map(|output| output.name.as_str());
                let unknown = suggest::unknown("output", pick.output(), known);
                return Err(SchemaError::new(format!("model `{}`: {unknown}", model.name)));
            }
        };
        let output = &model.outputs[index];
        let wrong = |why: String| SchemaError::new(format!("`{pick}` of model `{}`: {why}", model.name));
        let (dtype, places, rest, scalar) = match &output.kind {
            OutputKind::Tensor { dtype, shape } => {
                let (places, rest) = tensor_places(shape, places).map_err(wrong)?;
                let scalar = rest.is_empty() || (places.is_empty() && rest == [Some(1)]);
                (*dtype, places, rest, scalar)
            }
            OutputKind::Maps { keys } => {
                let place = map_place(output, keys, places).map_err(wrong)?;
                let rest = if place.is_some() { Vec::new() } else { vec![Some(keys.len())] };
                let scalar = rest.is_empty();
                (DType::F32, place.into_iter().collect(), rest, scalar)
            }
        };
        if rest.contains(&Some(0)) {
            return Err(wrong("it has no values".to_owned()));
        }
        let slot = self.wanted.iter().position(|&wanted| wanted == index).unwrap_or_else(|| {
            self.wanted.push(index);
            self.wanted.len() - 1
        });
        Ok(ColumnPlan { name, output: output.name.clone(), slot, dtype, places, rest, scalar })
    }

    /// The outputs that are asked for.
    pub(crate) fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// The fields of the columns.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field> {
        self.columns.iter().map(|column| Field::new(&column.name, column.data_type(), false))
    }

    /// Empty columns with room for `rows`.
    pub(crate) fn start(&self, rows: usize) -> Columns<'_> {
        let start = |plan: &ColumnPlan| {
            let width: usize = plan.rest.iter().map(|size| size.unwrap_or(1)).product();
            Column { values: Collected::new(plan.dtype, rows * width), runs: SmallVec::new() }
        };
        Columns { plan: self, columns: self.columns.iter().map(start).collect() }
    }
}

/// The positions along each row of a tensor, and the sizes of what is left.
fn tensor_places(shape: &[Option<usize>], places: &[Place]) -> Result<(Dims, Vec<Option<usize>>), String> {
    let Some(mut rest) = shape.get(1..) else {
        return Err(
            "it has no first dimension for rows, or none that is known (`warm_up: true` shows it)".to_owned()
        );
    };
    let mut positions = Dims::new();
    for place in places {
        let Place::Index(index) = place else {
            return Err("it is a tensor: pick by position, as in `[0]`".to_owned());
        };
        let Some((size, inner)) = rest.split_first() else {
            return Err(match shape.len() - 1 {
                0 => "each row of it is one value already".to_owned(),
                rank => format!("a row of it has {rank} dimensions only"),
            });
        };
        match (usize::try_from(*index), size) {
            (Ok(index), Some(size)) if index >= *size => return Err(format!("it ends at [{}]", size - 1)),
            (Ok(index), _) => positions.push(index),
            (Err(_), _) => return Err("positions are counted from 0".to_owned()),
        }
        rest = inner;
    }
    Ok((positions, rest.to_vec()))
}

/// The position of the picked class.
fn map_place(output: &OutputInfo, keys: &Keys, places: &[Place]) -> Result<Option<usize>, String> {
    let place = match places {
        [] => return Ok(None),
        [place] => place,
        _ => return Err("a row of it is a map: pick one class".to_owned()),
    };
    let position = match (keys, place) {
        (Keys::Ints(keys), Place::Index(key)) => keys.iter().position(|known| known == key),
        (Keys::Strings(keys), Place::Key(key)) => match keys.iter().position(|known| known == key) {
            None => return Err(suggest::unknown("class", key, keys.iter().map(String::as_str))),
            found => found,
        },
        (Keys::Strings(_), Place::Index(_)) => {
            return Err(format!("its classes have names ({}): pick one, as in `['name']`", output.kind));
        }
        (Keys::Ints(_), Place::Key(_)) => {
            return Err(format!("its classes are numbers ({}): pick one, as in `[1]`", output.kind));
        }
    };
    position.map(Some).ok_or_else(|| format!("it has no class {place} ({})", output.kind))
}

impl ColumnPlan {
    fn data_type(&self) -> DataType {
        if self.scalar {
            return self.dtype.arrow();
        }
        self.rest.iter().rev().fold(self.dtype.arrow(), |item, size| {
            let item = Arc::new(Field::new_list_field(item, true));
            match size {
                Some(size) => DataType::FixedSizeList(item, i32::try_from(*size).unwrap_or(i32::MAX)),
                None => DataType::List(item),
            }
        })
    }

    fn wrong(&self, wanted: impl Into<String>, got: impl Into<String>) -> ModelError {
        ModelError::Answer { output: self.output.clone(), wanted: wanted.into(), got: got.into() }
    }
}

/// The columns of one batch, while they are being collected.
pub(crate) struct Columns<'p> {
    plan: &'p OutputPlan,
    columns: SmallVec<[Column; 4]>,
}

struct Column {
    values: Collected,
    /// How many rows came with which sizes; only kept for columns of lists.
    runs: SmallVec<[(usize, Dims); 1]>,
}

impl Columns<'_> {
    /// Appends the first `rows` rows of each value; `values` are the wanted outputs of one call over `called` rows.
    pub(crate) fn append(
        &mut self,
        values: &[Value<'_>],
        rows: usize,
        called: usize,
    ) -> Result<(), ModelError> {
        for (column, plan) in self.columns.iter_mut().zip(&self.plan.columns) {
            match values.get(plan.slot) {
                Some(Value::Tensor(tensor)) => column.append(plan, tensor, rows, called)?,
                Some(Value::Maps(maps)) => {
                    let width = maps.keys.len();
                    let shape = [maps.values.len().checked_div(width).unwrap_or(0), width];
                    column.append(
                        plan,
                        &Tensor { shape: &shape, data: Data::F32(&maps.values) },
                        rows,
                        called,
                    )?;
                }
                None => return Err(plan.wrong("an output", "absent")),
            }
        }
        Ok(())
    }

    /// The finished columns.
    pub(crate) fn finish(self) -> impl Iterator<Item = Result<ArrayRef, ArrowError>> {
        self.columns.into_iter().zip(&self.plan.columns).map(|(column, plan)| column.finish(plan))
    }
}

impl Column {
    fn append(
        &mut self,
        plan: &ColumnPlan,
        tensor: &Tensor<'_>,
        rows: usize,
        called: usize,
    ) -> Result<(), ModelError> {
        let inner = tensor.shape.get(1..).unwrap_or_default();
        let (picked, rest) = inner.split_at(plan.places.len().min(inner.len()));
        let fits = tensor.shape.first() == Some(&called)
            && rest.len() == plan.rest.len()
            && rest.iter().zip(&plan.rest).all(|(got, wanted)| wanted.is_none_or(|wanted| wanted == *got))
            && picked.len() == plan.places.len()
            && picked.iter().zip(&plan.places).all(|(size, place)| place < size);
        let stride: usize = inner.iter().product();
        if !fits || tensor.data.len() < rows * stride {
            let mut wanted = vec![Some(called)];
            wanted.extend(plan.places.iter().map(|_| None));
            wanted.extend(&plan.rest);
            return Err(
                plan.wrong(format!("{} {}", plan.dtype, crate::model::Shape(&wanted)), described(tensor))
            );
        }
        let width: usize = rest.iter().product();
        let start = picked.iter().zip(&plan.places).fold(0, |at, (size, place)| at * size + place) * width;
        if !self.values.append(&tensor.data, rows, stride, start..start + width) {
            return Err(plan.wrong(plan.dtype.to_string(), described(tensor)));
        }
        if !plan.scalar {
            self.runs.push((rows, rest.into()));
        }
        Ok(())
    }

    fn finish(self, plan: &ColumnPlan) -> Result<ArrayRef, ArrowError> {
        let mut array = self.values.finish();
        if plan.scalar {
            return Ok(array);
        }
        for (depth, size) in plan.rest.iter().enumerate().rev() {
            let item = Arc::new(Field::new_list_field(array.data_type().clone(), true));
            array = match size {
                Some(size) => {
                    let size =
                        i32::try_from(*size).map_err(|error| ArrowError::ComputeError(error.to_string()))?;
                    Arc::new(FixedSizeListArray::try_new(item, size, array, None)?)
                }
                None => {
                    let lengths = self.runs.iter().flat_map(|(rows, sizes)| {
                        let lists = rows * sizes[..depth].iter().product::<usize>();
                        std::iter::repeat_n(sizes[depth], lists)
                    });
                    Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), array, None)?)
                }
            };
        }
        Ok(array)
    }
}

/// Values collected for one column.
enum Collected {
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
    Str(StringBuilder),
}

impl Collected {
    fn new(dtype: DType, values: usize) -> Self {
        match dtype {
            DType::F16 => Self::F16(Vec::with_capacity(values)),
            DType::F32 => Self::F32(Vec::with_capacity(values)),
            DType::F64 => Self::F64(Vec::with_capacity(values)),
            DType::I8 => Self::I8(Vec::with_capacity(values)),
            DType::I16 => Self::I16(Vec::with_capacity(values)),
            DType::I32 => Self::I32(Vec::with_capacity(values)),
            DType::I64 => Self::I64(Vec::with_capacity(values)),
            DType::U8 => Self::U8(Vec::with_capacity(values)),
            DType::U16 => Self::U16(Vec::with_capacity(values)),
            DType::U32 => Self::U32(Vec::with_capacity(values)),
            DType::U64 => Self::U64(Vec::with_capacity(values)),
            DType::Bool => Self::Bool(Vec::with_capacity(values)),
            DType::Str => Self::Str(StringBuilder::with_capacity(values, values * 8)),
        }
    }

    /// Appends `part` of each of the first `rows` rows; false when the values are of another type.
    fn append(&mut self, data: &Data<'_>, rows: usize, stride: usize, part: std::ops::Range<usize>) -> bool {
        fn copy<T: Copy>(
            into: &mut Vec<T>,
            from: &[T],
            rows: usize,
            stride: usize,
            part: &std::ops::Range<usize>,
        ) {
            if part.len() == stride {
                into.extend_from_slice(&from[..rows * stride]);
            } else {
                (0..rows)
                    .for_each(|row| into.extend_from_slice(&from[row * stride + part.start..][..part.len()]));
            }
        }
        match (self, data) {
            (Self::F16(into), Data::F16(from)) => copy(into, from, rows, stride, &part),
            (Self::F32(into), Data::F32(from)) => copy(into, from, rows, stride, &part),
            (Self::F64(into), Data::F64(from)) => copy(into, from, rows, stride, &part),
            (Self::I8(into), Data::I8(from)) => copy(into, from, rows, stride, &part),
            (Self::I16(into), Data::I16(from)) => copy(into, from, rows, stride, &part),
            (Self::I32(into), Data::I32(from)) => copy(into, from, rows, stride, &part),
            (Self::I64(into), Data::I64(from)) => copy(into, from, rows, stride, &part),
            (Self::U8(into), Data::U8(from)) => copy(into, from, rows, stride, &part),
            (Self::U16(into), Data::U16(from)) => copy(into, from, rows, stride, &part),
            (Self::U32(into), Data::U32(from)) => copy(into, from, rows, stride, &part),
            (Self::U64(into), Data::U64(from)) => copy(into, from, rows, stride, &part),
            (Self::Bool(into), Data::Bool(from)) => copy(into, from, rows, stride, &part),
            (Self::Str(into), Data::Str(from)) => {
                for row in 0..rows {
                    from[row * stride + part.start..][..part.len()]
                        .iter()
                        .for_each(|text| into.append_value(text));
                }
            }
            _ => return false,
        }
        true
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::F16(values) => Arc::new(PrimitiveArray::<Float16Type>::new(values.into(), None)),
            Self::F32(values) => Arc::new(PrimitiveArray::<Float32Type>::new(values.into(), None)),
            Self::F64(values) => Arc::new(PrimitiveArray::<Float64Type>::new(values.into(), None)),
            Self::I8(values) => Arc::new(PrimitiveArray::<Int8Type>::new(values.into(), None)),
            Self::I16(values) => Arc::new(PrimitiveArray::<Int16Type>::new(values.into(), None)),
            Self::I32(values) => Arc::new(PrimitiveArray::<Int32Type>::new(values.into(), None)),
            Self::I64(values) => Arc::new(PrimitiveArray::<Int64Type>::new(values.into(), None)),
            Self::U8(values) => Arc::new(PrimitiveArray::<UInt8Type>::new(values.into(), None)),
            Self::U16(values) => Arc::new(PrimitiveArray::<UInt16Type>::new(values.into(), None)),
            Self::U32(values) => Arc::new(PrimitiveArray::<UInt32Type>::new(values.into(), None)),
            Self::U64(values) => Arc::new(PrimitiveArray::<UInt64Type>::new(values.into(), None)),
            Self::Bool(values) => Arc::new(BooleanArray::from(values)),
            Self::Str(mut texts) => Arc::new(texts.finish()),
        }
    }
}
