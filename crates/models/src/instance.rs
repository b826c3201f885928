//! One session of a model, with the tensors it keeps for single rows.

use std::sync::Arc;

use half::f16;
use millstream_graph::when_nobody_waits;
use ort::{
    memory::Allocator,
    session::{
        HasSelectedOutputs, IoBinding, OutputSelector, RunOptions, Session, SessionInputValue, SessionOutputs,
    },
    value::{
        DynTensor, DynValue, IntoTensorElementType, MapValueType, PrimitiveTensorElementType, Shape,
        TensorElementType, TensorRef, ValueType,
    },
};
use smallvec::SmallVec;

use crate::{
    DType, Data, InputInfo, Keys, Maps, ModelError, ModelInfo, OutputKind, Tensor, Value, model::Read,
    session::said, tensor::Values,
};

type Dims = SmallVec<[usize; 4]>;

/// A session, which serves one run at a time.
pub(crate) struct Instance {
    session: Session,
    /// One tensor per input, shaped for one row: single rows are copied into these instead of making new ones.
    kept: Vec<DynTensor>,
    selections: Vec<Selection>,
    /// By which another thread can end a run; `None` when the runtime has no memory for it.
    ending: Option<Arc<RunOptions>>,
}

/// Which outputs a run asks for. What nobody asks for is not even made into a value.
struct Selection {
    wanted: SmallVec<[usize; 4]>,
    any_rows: RunOptions<HasSelectedOutputs>,
    /// The kept inputs and outputs of known shape, bound once: a run over one row then makes no tensor and looks no
    /// name up, which is a third of the cost of a small model.
    one_row: Option<IoBinding>,
}

/// Steps of different graphs ask for different outputs; more selections than this are not kept.
const MAX_SELECTIONS: usize = 16;

impl Instance {
    pub(crate) fn new(session: Session) -> Self {
        let ending = RunOptions::new().ok().map(Arc::new);
        Self { session, kept: Vec::new(), selections: Vec::new(), ending }
    }

    /// Makes the tensors for single rows, when every other dimension of every input is known.
    pub(crate) fn keep_tensors(&mut self, info: &ModelInfo) {
        let made = info.inputs.iter().map(|input| {
            let shape = one_row(&input.shape)?;
            let ty = element(input.dtype).filter(|_| input.dtype != DType::Str)?;
            DynTensor::new(&Allocator::default(), ty, shape).ok()
        });
        self.kept = made.collect::<Option<Vec<_>>>().unwrap_or_default();
        self.selections.clear();
    }

    /// Runs once over so many rows of zeros, where the model takes any number. Answers the shape of each output that is a tensor.
    pub(crate) fn run_on_zeros(
        &mut self,
        info: &ModelInfo,
        rows: usize,
    ) -> Result<Vec<Option<Vec<usize>>>, ModelError> {
        let sizes = |input: &InputInfo| -> Vec<usize> {
            let any = |at: usize| if at == 0 { rows } else { 1 };
            input.shape.iter().enumerate().map(|(at, size)| size.unwrap_or_else(|| any(at))).collect()
        };
        let shapes: Vec<Vec<usize>> = info.inputs.iter().map(sizes).collect();
        let values: Vec<Values<'_>> = info
            .inputs
            .iter()
            .zip(&shapes)
            .map(|(input, shape)| Values::zeros(input.dtype, shape.iter().product()))
            .collect();
        let inputs: Vec<Tensor<'_>> =
            shapes.iter().zip(&values).map(|(shape, values)| Tensor { shape, data: values.data() }).collect();
        let wanted: Vec<usize> = (0..info.outputs.len()).collect();
        let mut seen = Vec::new();
        self.run(info, &inputs, &wanted, &mut |values| {
            seen = values
                .iter()
                .map(|value| match value {
                    Value::Tensor(tensor) => Some(tensor.shape.to_vec()),
                    Value::Maps(_) => None,
                })
                .collect();
            Ok(())
        })?;
        Ok(seen)
    }

    /// [`Model::run`](crate::Model::run) on this session.
    pub(crate) fn run(
        &mut self,
        info: &ModelInfo,
        inputs: &[Tensor<'_>],
        wanted: &[usize],
        read: &mut Read<'_>,
    ) -> Result<(), ModelError> {
        if inputs.len() != info.inputs.len() {
            let (wanted, got) =
                (format!("{} tensors", info.inputs.len()), format!("{} tensors", inputs.len()));
            return Err(ModelError::Argument { input: info.name.clone(), wanted, got });
        }
        if wanted.is_empty() {
            return read(&[]);
        }
        let Some(ending) = self.ending.clone() else {
            return self.run_to_end(info, inputs, wanted, read, None);
        };
        let end = Arc::clone(&ending);
        // A run that cannot be ended goes on to its end, unread.
        let Some(stop) = when_nobody_waits(move || drop(end.terminate())) else {
            return self.run_to_end(info, inputs, wanted, read, None);
        };
        let answer = self.run_to_end(info, inputs, wanted, read, Some(&ending));
        if stop.was_called() {
            ending.unterminate().map_err(runtime)?;
        }
        answer
    }

    fn run_to_end(
        &mut self,
        info: &ModelInfo,
        inputs: &[Tensor<'_>],
        wanted: &[usize],
        read: &mut Read<'_>,
        ending: Option<&RunOptions>,
    ) -> Result<(), ModelError> {
        let at = self.selection(info, wanted)?;
        let selection = &self.selections[at];
        let selected: SmallVec<[usize; 4]> = (0..wanted.len()).collect();
        // The binding shares the kept tensors' memory, so it sees what is filled in.
        if let Some(binding) = &selection.one_row
            && fill(&mut self.kept, inputs)
            // A model may put out another shape than it showed before; the run below then says what it is.
            && let Ok(outputs) = match ending {
                None => self.session.run_binding(binding),
                Some(ending) => self.session.run_binding_with_options(binding, ending),
            }
        {
            return hand_over(info, &outputs, wanted, &selected, read);
        }
        let values =
            inputs.iter().map(tensor_value).collect::<Result<SmallVec<[SessionInputValue<'_>; 4]>, _>>()?;
        // Options that select outputs cannot be shared with the thread that ends the run; those that can be answer all of them.
        let (outputs, places) = match ending {
            None => (self.session.run_with_options(&values[..], &selection.any_rows), &selected[..]),
            Some(ending) => (self.session.run_with_options(&values[..], ending), wanted),
        };
        hand_over(info, &outputs.map_err(runtime)?, wanted, places, read)
    }

    fn selection(&mut self, info: &ModelInfo, wanted: &[usize]) -> Result<usize, ModelError> {
        if let Some(at) = self.selections.iter().position(|selection| selection.wanted[..] == *wanted) {
            return Ok(at);
        }
        if self.selections.len() >= MAX_SELECTIONS {
            self.selections.clear();
        }
        let mut selector = OutputSelector::no_default();
        for &output in wanted {
            let output = info.outputs.get(output).ok_or_else(|| ModelError::Answer {
                output: output.to_string(),
                wanted: format!("one of {} outputs", info.outputs.len()),
                got: "out of range".to_owned(),
            })?;
            selector = selector.with(&output.name);
        }
        let any_rows = RunOptions::new().map_err(runtime)?.with_outputs(selector);
        self.selections.push(Selection { wanted: wanted.into(), any_rows, one_row: self.bind(info, wanted) });
        Ok(self.selections.len() - 1)
    }

    /// Binds the kept inputs, and outputs made in advance; `None` when a shape is not known.
    fn bind(&self, info: &ModelInfo, wanted: &[usize]) -> Option<IoBinding> {
        let twice = (1..wanted.len()).any(|at| wanted[..at].contains(&wanted[at]));
        if self.kept.is_empty() || twice {
            return None;
        }
        let mut binding = self.session.create_binding().ok()?;
        for (input, tensor) in info.inputs.iter().zip(&self.kept) {
            binding.bind_input(&input.name, tensor).ok()?;
        }
        for &output in wanted {
            let output = info.outputs.get(output)?;
            binding.bind_output(&output.name, made_output(&output.kind)?).ok()?;
        }
        Some(binding)
    }
}

fn runtime(error: ort::Error) -> ModelError {
    ModelError::Runtime(said(error))
}

/// The shape for one row, when everything else is known.
fn one_row(shape: &[Option<usize>]) -> Option<Vec<usize>> {
    let (rows, rest) = shape.split_first()?;
    if !matches!(rows, None | Some(1)) {
        return None;
    }
    std::iter::once(Some(1)).chain(rest.iter().copied()).collect()
}

fn made_output(kind: &OutputKind) -> Option<DynTensor> {
    let OutputKind::Tensor { dtype, shape } = kind else { return None };
    let ty = element(*dtype).filter(|_| *dtype != DType::Str)?;
    DynTensor::new(&Allocator::default(), ty, one_row(shape)?).ok()
}

/// Copies single rows into the kept tensors; false when the inputs have other shapes.
fn fill(kept: &mut [DynTensor], inputs: &[Tensor<'_>]) -> bool {
    kept.len() == inputs.len()
        && kept.iter_mut().zip(inputs).all(|(kept, input)| match input.data {
            Data::F16(values) => fill_one(kept, input.shape, values),
            Data::F32(values) => fill_one(kept, input.shape, values),
            Data::F64(values) => fill_one(kept, input.shape, values),
            Data::I8(values) => fill_one(kept, input.shape, values),
            Data::I16(values) => fill_one(kept, input.shape, values),
            Data::I32(values) => fill_one(kept, input.shape, values),
            Data::I64(values) => fill_one(kept, input.shape, values),
            Data::U8(values) => fill_one(kept, input.shape, values),
            Data::U16(values) => fill_one(kept, input.shape, values),
            Data::U32(values) => fill_one(kept, input.shape, values),
            Data::U64(values) => fill_one(kept, input.shape, values),
            Data::Bool(values) => fill_one(kept, input.shape, values),
            Data::Str(_) => false,
        })
}

fn fill_one<T: PrimitiveTensorElementType + Copy>(
    kept: &mut DynTensor,
    shape: &[usize],
    values: &[T],
) -> bool {
    let same = kept.shape().iter().map(|&size| size as usize).eq(shape.iter().copied());
    match kept.try_extract_tensor_mut::<T>() {
        Ok((_, place)) if same && place.len() == values.len() => {
            place.copy_from_slice(values);
            true
        }
        _ => false,
    }
}

/// A value that looks at the tensor where it is.
fn tensor_value<'a>(tensor: &Tensor<'a>) -> Result<SessionInputValue<'a>, ModelError> {
    fn view<'a, T>(shape: &[usize], values: &'a [T]) -> Result<SessionInputValue<'a>, ModelError>
    where
        T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
    {
        Ok(TensorRef::from_array_view((Shape::from(shape), values)).map_err(runtime)?.into())
    }
    match tensor.data {
        Data::F16(values) => view(tensor.shape, values),
        Data::F32(values) => view(tensor.shape, values),
        Data::F64(values) => view(tensor.shape, values),
        Data::I8(values) => view(tensor.shape, values),
        Data::I16(values) => view(tensor.shape, values),
        Data::I32(values) => view(tensor.shape, values),
        Data::I64(values) => view(tensor.shape, values),
        Data::U8(values) => view(tensor.shape, values),
        Data::U16(values) => view(tensor.shape, values),
        Data::U32(values) => view(tensor.shape, values),
        Data::U64(values) => view(tensor.shape, values),
        Data::Bool(values) => view(tensor.shape, values),
        Data::Str(values) => {
            let texts: Vec<String> = values.iter().map(|&text| text.to_owned()).collect();
            let tensor = ort::value::Tensor::from_string_array((Shape::from(tensor.shape), &texts[..]));
            Ok(tensor.map_err(runtime)?.into())
        }
    }
}

/// An output that is held while it is read.
enum Held<'o> {
    Tensor(Dims, Data<'o>),
    Strings(Dims, Vec<String>),
    Maps(Maps),
}

fn hand_over(
    info: &ModelInfo,
    outputs: &SessionOutputs<'_>,
    wanted: &[usize],
    places: &[usize],
    read: &mut Read<'_>,
) -> Result<(), ModelError> {
    let mut held: SmallVec<[Held<'_>; 2]> = SmallVec::new();
    for (&place, &output) in places.iter().zip(wanted) {
        held.push(hold(&outputs[place], &info.outputs[output].name)?);
    }
    let texts: Vec<Vec<&str>> = held
        .iter()
        .filter_map(|held| match held {
            Held::Strings(_, texts) => Some(texts.iter().map(String::as_str).collect()),
            _ => None,
        })
        .collect();
    let mut texts = texts.iter();
    let values: SmallVec<[Value<'_>; 2]> = held
        .iter()
        .map(|held| match held {
            Held::Tensor(shape, data) => Value::Tensor(Tensor { shape, data: *data }),
            Held::Strings(shape, _) => {
                let texts = texts.next().map_or(&[][..], Vec::as_slice);
                Value::Tensor(Tensor { shape, data: Data::Str(texts) })
            }
            Held::Maps(maps) => Value::Maps(maps),
        })
        .collect();
    read(&values)
}

fn hold<'o>(value: &'o DynValue, output: &str) -> Result<Held<'o>, ModelError> {
    fn of<T: PrimitiveTensorElementType>(value: &DynValue) -> Result<&[T], ModelError> {
        value.try_extract_tensor::<T>().map(|(_, values)| values).map_err(runtime)
    }
    let (ty, shape) = match value.dtype() {
        ValueType::Tensor { ty, shape, .. } => (*ty, shape),
        ValueType::Sequence(_) => return maps(value, output).map(Held::Maps),
        other => return Err(unexpected(output, other)),
    };
    let dims = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    let data = match ty {
        TensorElementType::Float16 => Data::F16(of::<f16>(value)?),
        TensorElementType::Float32 => Data::F32(of(value)?),
        TensorElementType::Float64 => Data::F64(of(value)?),
        TensorElementType::Int8 => Data::I8(of(value)?),
        TensorElementType::Int16 => Data::I16(of(value)?),
        TensorElementType::Int32 => Data::I32(of(value)?),
        TensorElementType::Int64 => Data::I64(of(value)?),
        TensorElementType::Uint8 => Data::U8(of(value)?),
        TensorElementType::Uint16 => Data::U16(of(value)?),
        TensorElementType::Uint32 => Data::U32(of(value)?),
        TensorElementType::Uint64 => Data::U64(of(value)?),
        TensorElementType::Bool => Data::Bool(of(value)?),
        TensorElementType::String => {
            let (_, texts) = value.try_extract_strings().map_err(runtime)?;
            return Ok(Held::Strings(dims, texts));
        }
        _ => return Err(unexpected(output, value.dtype())),
    };
    Ok(Held::Tensor(dims, data))
}

fn unexpected(output: &str, got: &ValueType) -> ModelError {
    ModelError::Answer {
        output: output.to_owned(),
        wanted: "a tensor or a sequence of maps".to_owned(),
        got: got.to_string(),
    }
}

/// Reads a sequence of maps, one per row.
fn maps(value: &DynValue, output: &str) -> Result<Maps, ModelError> {
    fn rows<K>(value: &DynValue, output: &str) -> Result<(Vec<K>, Vec<f32>), ModelError>
    where
        K: IntoTensorElementType + std::fmt::Debug + Clone + std::hash::Hash + Eq + 'static,
    {
        let maps = value.try_extract_sequence::<MapValueType<K, f32>>().map_err(runtime)?;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (row, map) in maps.iter().enumerate() {
            let entries = map.try_extract_key_values::<K, f32>().map_err(runtime)?;
            if row == 0 {
                keys = entries.iter().map(|(key, _)| key.clone()).collect();
            } else if !entries.iter().map(|(key, _)| key).eq(&keys) {
                return Err(ModelError::Answer {
                    output: output.to_owned(),
                    wanted: "maps with the same keys in every row".to_owned(),
                    got: format!("other keys in row {row}"),
                });
            }
            values.extend(entries.iter().map(|(_, value)| *value));
        }
        Ok((keys, values))
    }
    match value.dtype() {
        ValueType::Sequence(element) => match &**element {
            ValueType::Map { key: TensorElementType::Int64, .. } => {
                rows::<i64>(value, output).map(|(keys, values)| Maps { keys: Keys::Ints(keys), values })
            }
            ValueType::Map { key: TensorElementType::String, .. } => {
                rows::<String>(value, output).map(|(keys, values)| Maps { keys: Keys::Strings(keys), values })
            }
            other => Err(unexpected(output, other)),
        },
        other => Err(unexpected(output, other)),
    }
}

fn element(dtype: DType) -> Option<TensorElementType> {
    Some(match dtype {
        DType::F16 => TensorElementType::Float16,
        DType::F32 => TensorElementType::Float32,
        DType::F64 => TensorElementType::Float64,
        DType::I8 => TensorElementType::Int8,
        DType::I16 => TensorElementType::Int16,
        DType::I32 => TensorElementType::Int32,
        DType::I64 => TensorElementType::Int64,
        DType::U8 => TensorElementType::Uint8,
        DType::U16 => TensorElementType::Uint16,
        DType::U32 => TensorElementType::Uint32,
        DType::U64 => TensorElementType::Uint64,
        DType::Bool => TensorElementType::Bool,
        DType::Str => TensorElementType::String,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{CheckedModel, Limits, session};

    /// The fixture `name`, warmed up, with its tensors for single rows.
    fn instance(name: &str) -> (ModelInfo, Instance) {
        let file = format!("{name}.onnx");
        let model =
            CheckedModel::read(Path::new("tests/data"), Path::new(&file), &Limits::default()).unwrap();
        let session = session::session(&model).unwrap_or_else(|error| panic!("{error}"));
        let (inputs, outputs) =
            (session::inputs(&session).unwrap(), session::outputs(&session, &model).unwrap());
        let info = ModelInfo { name: name.to_owned(), inputs, outputs };
        let mut instance = Instance::new(session);
        instance.run_on_zeros(&info, 1).unwrap();
        instance.keep_tensors(&info);
        (info, instance)
    }

    /// Results would be right without it, only slower: so it is looked at here.
    #[test]
    fn single_rows_of_known_shape_run_on_bound_tensors() {
        let check = |name: &str, wanted: &[usize], bound: bool| {
            let (info, mut instance) = instance(name);
            let at = instance.selection(&info, wanted).unwrap();
            let binding = instance.selections[at].one_row.as_ref();
            assert_eq!(binding.is_some(), bound, "{name} {wanted:?}");
            if let Some(binding) = binding {
                assert!(instance.session.run_binding(binding).is_ok(), "{name} {wanted:?}");
            }
            assert_eq!(instance.selection(&info, wanted).unwrap(), at, "the selection is kept");
        };
        check("several", &[0, 1, 2], true);
        check("several", &[2], true);
        check("image", &[1], true);
        check("fixed1", &[0], true);
        check("zip_ints", &[0], true);
        check("several", &[1, 1], false);
        check("zip_ints", &[0, 1], false);
        check("fixed3", &[0], false);
        check("sequence", &[1], false);
        check("labels", &[0], false);
    }

    #[test]
    fn selections_do_not_pile_up() {
        let (info, mut instance) = instance("several");
        for turn in 0..100 {
            let wanted: Vec<usize> = (0..turn % 40 + 1).map(|at| at % 3).collect();
            instance.selection(&info, &wanted).unwrap();
            assert!(instance.selections.len() <= MAX_SELECTIONS);
        }
    }
}
