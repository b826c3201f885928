//! A message into columns.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde_json::Value;

use super::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use crate::{
    oip::{
        inputs::{Head, Source, Values},
        outputs::Output,
        request::{Asked, SEQUENCE, malformed, no_shared_memory, or_all, priority, shown, timeout, want},
        tensor::Tensor,
    },
    wire::{
        DecodeCode, DecodeError,
        json::{Body, Decoder},
    },
};

type Read<T> = Result<T, DecodeError>;
type Parameters = BTreeMap<String, InferParameter>;

/// What an input without contents has.
static NOTHING: InferTensorContents = InferTensorContents {
    bool_contents: Vec::new(),
    int_contents: Vec::new(),
    int64_contents: Vec::new(),
    uint_contents: Vec::new(),
    uint64_contents: Vec::new(),
    fp32_contents: Vec::new(),
    fp64_contents: Vec::new(),
    bytes_contents: Vec::new(),
};

/// Reads the inputs of a request, and what it asks beside them.
pub(super) fn read(
    inputs: &[Tensor],
    outputs: &[Output],
    decoder: &Decoder,
    message: &ModelInferRequest,
) -> Read<(Body, Asked)> {
    let raw = &message.raw_input_contents;
    if !raw.is_empty() && raw.len() != message.inputs.len() {
        let (raw, inputs) = (raw.len(), message.inputs.len());
        return Err(malformed(format!(
            "`raw_input_contents` has {raw} values where there are {inputs} inputs"
        )));
    }
    let mut source = Source::new(inputs, decoder, &[]);
    for (at, input) in message.inputs.iter().enumerate() {
        source.add(&head(input, raw.get(at))?)?;
    }
    for name in SEQUENCE {
        if let Some(value) = message.parameters.get(name).and_then(value) {
            source.say(name, &value)?;
        }
    }
    let mut wanted = Vec::new();
    for output in &message.outputs {
        check_memory(&output.parameters, || format!("output `{}`", shown(&output.name)))?;
        let classes = number(&output.parameters, "classification")?.unwrap_or(0);
        let classes = u32::try_from(classes).unwrap_or(u32::MAX);
        want(outputs, &mut wanted, &output.name, true, classes)?;
    }
    let parameters = &message.parameters;
    let asked = Asked {
        id: Some(message.id.clone()).filter(|id| !id.is_empty()),
        outputs: or_all(wanted, outputs, true),
        timeout: number(parameters, "timeout")?.and_then(timeout),
        priority: number(parameters, "priority")?.and_then(priority),
    };
    Ok((source.finish()?, asked))
}

fn head<'m>(input: &'m InferInputTensor, raw: Option<&'m Bytes>) -> Read<Head<'m>> {
    let named = || format!("input `{}`", shown(&input.name));
    check_memory(&input.parameters, named)?;
    let sizes = input.shape.iter().map(|&size| {
        usize::try_from(size)
            .map_err(|_| malformed(format!("{}: `shape` has {size}, which is no size", named())))
    });
    let contents = input.contents.as_ref().filter(|contents| **contents != NOTHING);
    Ok(Head {
        name: Cow::Borrowed(&input.name),
        datatype: Cow::Borrowed(&input.datatype),
        shape: sizes.collect::<Read<_>>()?,
        values: match (raw, contents) {
            (Some(raw), None) => Values::Bytes(raw),
            (None, contents) => Values::Typed(contents.unwrap_or(&NOTHING)),
            (Some(_), Some(_)) => {
                return Err(malformed(format!("{}: has both `contents` and `raw_input_contents`", named())));
            }
        },
    })
}

/// What a parameter says, if it says anything.
fn value(parameter: &InferParameter) -> Option<Value> {
    Some(match parameter.parameter_choice.as_ref()? {
        ParameterChoice::BoolParam(flag) => (*flag).into(),
        ParameterChoice::Int64Param(number) => (*number).into(),
        ParameterChoice::Uint64Param(number) => (*number).into(),
        ParameterChoice::DoubleParam(number) => (*number).into(),
        ParameterChoice::StringParam(text) => text.as_str().into(),
    })
}

fn check_memory(parameters: &Parameters, of: impl Fn() -> String) -> Read<()> {
    if parameters.contains_key("shared_memory_region") { Err(no_shared_memory(&of())) } else { Ok(()) }
}

/// A parameter that is a whole number, if it is there.
fn number(parameters: &Parameters, name: &str) -> Read<Option<u64>> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        _ => None,
    };
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(DecodeError::new(
            DecodeCode::WrongType,
            format!("parameter `{name}` must be a whole number, as `int64_param` or `uint64_param`"),
        )),
    }
}
