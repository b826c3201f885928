//! A model whose states are held for it: to others, it has neither the inputs nor the outputs that are states.

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use indexmap::IndexMap;
use millstream_graph::{SchemaError, suggest};

use crate::{
    DType, Data, Model, ModelError, ModelInfo, OutputKind, Tensor,
    model::{Read, Value},
    tensor::Values,
};

/// A tensor of one's own.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    shape: Vec<usize>,
    values: Values<'static>,
}

/// The states of one sequence, in the order of [`Held::new`]'s.
pub(super) type States = Vec<Owned>;

thread_local! {
    /// The states that the run on this thread begins with, and then those that it ends with.
    static STATES: RefCell<States> = const { RefCell::new(Vec::new()) };
}

/// A model with its states and constants taken care of.
pub(super) struct Held {
    model: Arc<dyn Model>,
    info: ModelInfo,
    inputs: Vec<From>,
    /// Where outputs that others see, and those that are states, stand among the model's.
    seen: Vec<usize>,
    states: Vec<usize>,
    first: States,
    constants: Vec<Owned>,
}

/// What an input of the model is made of.
enum From {
    Seen(usize),
    State(usize),
    Constant(usize),
}

impl Held {
    /// `states` has the input and the output of each, `constants` the values of inputs that are always the same.
    pub(super) fn new(
        model: Arc<dyn Model>,
        states: &IndexMap<String, String>,
        constants: &IndexMap<String, Vec<f64>>,
    ) -> Result<Self, SchemaError> {
        let mut problems = Vec::new();
        let info = model.info();
        let unknown = |what: &str, name: &str, known: &[&str]| {
            SchemaError::new(suggest::unknown(what, name, known.iter().copied()))
        };
        let input_names: Vec<&str> = info.inputs.iter().map(|input| input.name.as_str()).collect();
        let output_names: Vec<&str> = info.outputs.iter().map(|output| output.name.as_str()).collect();
        for name in states.keys().chain(constants.keys()).filter(|name| !input_names.contains(&name.as_str()))
        {
            problems.push(unknown("input", name, &input_names));
        }
        for name in states.values().filter(|name| !output_names.contains(&name.as_str())) {
            problems.push(unknown("output", name, &output_names));
        }
        if states.is_empty() {
            problems.push(SchemaError::new("`states` names no state; a model without any is a `model` step"));
        }
        let (mut inputs, mut seen_inputs, mut first, mut kept) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut states_at = Vec::new();
        for input in &info.inputs {
            // A state is that of one row; so is a constant.
            let shape: Vec<usize> = input.shape.iter().map(|size| size.unwrap_or(1)).collect();
            let count =
                shape.iter().try_fold(1_usize, |all, size| all.checked_mul(*size)).unwrap_or(usize::MAX);
            if let Some(output) = states.get(&input.name) {
                inputs.push(From::State(first.len()));
                first.push(Owned { shape, values: Values::zeros(input.dtype, count) });
                let at = info.outputs.iter().position(|known| known.name == *output);
                let Some(at) = at else { continue };
                match &info.outputs[at].kind {
                    OutputKind::Tensor { dtype, .. } if *dtype == input.dtype => states_at.push(at),
                    other => problems.push(SchemaError::new(format!(
                        "state `{}` is {}, and its output `{output}` {other}",
                        input.name, input.dtype
                    ))),
                }
            } else if let Some(values) = constants.get(&input.name) {
                inputs.push(From::Constant(kept.len()));
                match constant(input.dtype, values).filter(|_| values.len() == count) {
                    Some(values) => kept.push(Owned { shape, values }),
                    None => problems.push(SchemaError::new(format!(
                        "input `{}` takes {count} values of type {}, not {values:?}",
                        input.name, input.dtype
                    ))),
                }
            } else {
                inputs.push(From::Seen(seen_inputs.len()));
                seen_inputs.push(input.clone());
            }
        }
        SchemaError::collect(problems)?;
        let seen: Vec<usize> = (0..info.outputs.len()).filter(|at| !states_at.contains(at)).collect();
        let outputs = seen.iter().map(|at| info.outputs[*at].clone()).collect();
        let info = ModelInfo { name: info.name.clone(), inputs: seen_inputs, outputs };
        Ok(Self { info, inputs, seen, states: states_at, first, constants: kept, model })
    }

    /// The states that a sequence begins with: zeros.
    pub(super) fn first(&self) -> States {
        self.first.clone()
    }

    /// Runs `work`, whose run of the model begins with `states`. Answers what it does, and the states that the run ended with.
    pub(super) fn during<T>(states: States, work: impl FnOnce() -> T) -> (T, States) {
        STATES.set(states);
        (work(), STATES.take())
    }
}

/// Numbers as a tensor's values; none where they do not fit.
fn constant(dtype: DType, values: &[f64]) -> Option<Values<'static>> {
    macro_rules! whole {
        ($kind:ident, $number:ty) => {{
            let fits = |value: &f64| {
                let number = *value as $number;
                (number as f64 == *value).then_some(number)
            };
            Some(Values::$kind(Cow::Owned(values.iter().map(fits).collect::<Option<Vec<$number>>>()?)))
        }};
    }
    match dtype {
        DType::F32 => Some(Values::F32(values.iter().map(|value| *value as f32).collect())),
        DType::F64 => Some(Values::F64(values.to_vec().into())),
        DType::F16 => Some(Values::F16(values.iter().map(|value| half::f16::from_f64(*value)).collect())),
        DType::I8 => whole!(I8, i8),
        DType::I16 => whole!(I16, i16),
        DType::I32 => whole!(I32, i32),
        DType::I64 => whole!(I64, i64),
        DType::U8 => whole!(U8, u8),
        DType::U16 => whole!(U16, u16),
        DType::U32 => whole!(U32, u32),
        DType::U64 => whole!(U64, u64),
        DType::Bool => Some(Values::Bool(values.iter().map(|value| *value != 0.0).collect())),
        DType::Str => None,
    }
}

impl Owned {
    fn of(tensor: &Tensor<'_>) -> Option<Self> {
        let values = match tensor.data {
            Data::F16(values) => Values::F16(values.to_vec().into()),
            Data::F32(values) => Values::F32(values.to_vec().into()),
            Data::F64(values) => Values::F64(values.to_vec().into()),
            Data::I8(values) => Values::I8(values.to_vec().into()),
            Data::I16(values) => Values::I16(values.to_vec().into()),
            Data::I32(values) => Values::I32(values.to_vec().into()),
            Data::I64(values) => Values::I64(values.to_vec().into()),
            Data::U8(values) => Values::U8(values.to_vec().into()),
            Data::U16(values) => Values::U16(values.to_vec().into()),
            Data::U32(values) => Values::U32(values.to_vec().into()),
            Data::U64(values) => Values::U64(values.to_vec().into()),
            Data::Bool(values) => Values::Bool(values.to_vec().into()),
            Data::Str(_) => return None,
        };
        Some(Self { shape: tensor.shape.to_vec(), values })
    }

    fn tensor(&self) -> Tensor<'_> {
        Tensor { shape: &self.shape, data: self.values.data() }
    }
}

impl Model for Held {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, inputs: &[Tensor<'_>], wanted: &[usize], read: &mut Read<'_>) -> Result<(), ModelError> {
        let before = STATES.take();
        let tensor = |from: &From| match from {
            From::Seen(at) => inputs.get(*at).copied(),
            From::State(at) => before.get(*at).map(Owned::tensor),
            From::Constant(at) => self.constants.get(*at).map(Owned::tensor),
        };
        let missing = || ModelError::Runtime("an input or a state is missing".to_owned());
        let all = self.inputs.iter().map(tensor).collect::<Option<Vec<_>>>().ok_or_else(missing)?;
        let outputs: Vec<usize> =
            wanted.iter().map(|at| self.seen[*at]).chain(self.states.iter().copied()).collect();
        let mut after = Vec::new();
        self.model.run(&all, &outputs, &mut |values| {
            let (seen, states) = values.split_at(wanted.len());
            let owned = states.iter().map(|value| match value {
                Value::Tensor(tensor) => Owned::of(tensor),
                Value::Maps(_) => None,
            });
            after = owned.collect::<Option<_>>().ok_or_else(missing)?;
            read(seen)
        })?;
        STATES.set(after);
        Ok(())
    }
}
