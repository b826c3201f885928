//! A request to infer: JSON, and the bytes of tensors behind it.

use std::{borrow::Cow, time::Duration};

use millstream_graph::{Priority, suggest};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    inputs::{self, Head, Source},
    outputs::Output,
    scan::Scan,
    tensor::Tensor,
};
use crate::wire::{
    DecodeCode, DecodeError,
    json::{Body, Decoder},
};

type Read<T> = Result<T, DecodeError>;

/// What a request asks beside its inputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(super) id: Option<String>,
    pub(super) outputs: Vec<Wanted>,
    /// The time that the caller waits.
    pub(super) timeout: Option<Duration>,
    pub(super) priority: Option<Priority>,
}

/// An output that a reply is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which of the model's outputs.
    pub(super) output: usize,
    /// Whether its values follow the JSON as bytes.
    pub(super) binary: bool,
    /// Of how many classes with the greatest values the names are told instead of the values; none if zero.
    pub(super) classes: usize,
}

/// Reads a whole body, of which the first `json` bytes are JSON. None if its inputs are no tensors: MLRun has rows there.
pub(super) fn read(
    inputs: &[Tensor],
    outputs: &[Output],
    decoder: &Decoder,
    body: &[u8],
    json: usize,
) -> Read<Option<(Body, Asked)>> {
    let Some((json, raw)) = body.split_at_checked(json) else {
        let message = format!(
            "header `inference-header-content-length` says {json}, but the body has {} bytes",
            body.len()
        );
        return Err(malformed(message));
    };
    let json = std::str::from_utf8(json).map_err(|error| {
        DecodeError::new(
            DecodeCode::BadUtf8,
            format!("the JSON is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    let top = Top::read(json)?;
    let parameters: Parameters = top.parameters.map_or(Ok(Parameters::default()), |text| parsed(text, ""))?;
    let mut source = Source::new(inputs, decoder, raw);
    let Some(tensors) = top.inputs else {
        return Err(DecodeError::new(DecodeCode::MissingField, "`inputs` is missing"));
    };
    if raw.is_empty() && are_rows(tensors) {
        return Ok(None);
    }
    let mut scan = Scan::new(tensors);
    scan.items(|at, scan| source.add(&Head::read(at, scan)?))?;
    let Parameters { sequence_id, sequence_start, sequence_end, .. } = &parameters;
    let sequence = [sequence_id.clone(), sequence_start.map(Value::from), sequence_end.map(Value::from)];
    for (name, value) in SEQUENCE.iter().zip(sequence) {
        value.map_or(Ok(()), |value| source.say(name, &value))?;
    }
    let wanted = match top.outputs {
        Some(text) => wanted(text, outputs, parameters.binary_data_output)?,
        None => Vec::new(),
    };
    let asked = Asked {
        id: top.id.map(Cow::into_owned),
        outputs: or_all(wanted, outputs, parameters.binary_data_output),
        timeout: parameters.timeout.and_then(timeout),
        priority: parameters.priority.and_then(priority),
    };
    Ok(Some((source.finish()?, asked)))
}

/// Whether inputs are rows: lists, values, or objects that have neither a datatype nor a shape.
fn are_rows(inputs: &str) -> bool {
    let mut scan = Scan::new(inputs);
    match scan.peek() {
        Some(b'[') => {}
        first => return first == Some(b'{'),
    }
    scan.take(b'[');
    match scan.peek() {
        Some(b'{') => {
            let mut is_tensor = false;
            let read = scan.members(|name, scan| {
                is_tensor = matches!(name, "datatype" | "shape");
                // Known: the values of a tensor need not be passed.
                if is_tensor { Err(malformed(String::new())) } else { scan.extent().map(drop) }
            });
            read.is_ok() && !is_tensor
        }
        // What is cut off here is told as tensors are.
        first => first.is_some_and(|first| first != b']'),
    }
}

/// Reads a body that is nothing but the bytes of the only input. The reply is to have nothing but bytes, too.
pub(super) fn read_raw(
    inputs: &[Tensor],
    outputs: &[Output],
    decoder: &Decoder,
    body: &[u8],
) -> Read<(Body, Asked)> {
    let values = inputs::raw(inputs, decoder, body)?;
    Ok((values, Asked { outputs: or_all(Vec::new(), outputs, true), ..Asked::default() }))
}

/// What a request wants; no outputs are all of them.
pub(super) fn or_all(wanted: Vec<Wanted>, outputs: &[Output], binary: bool) -> Vec<Wanted> {
    if !wanted.is_empty() {
        return wanted;
    }
    (0..outputs.len()).map(|output| Wanted { output, binary, classes: 0 }).collect()
}

/// The parts of a request, as far as they are there.
#[derive(Default)]
struct Top<'b> {
    id: Option<Cow<'b, str>>,
    parameters: Option<&'b str>,
    inputs: Option<&'b str>,
    outputs: Option<&'b str>,
}

impl<'b> Top<'b> {
    fn read(json: &'b str) -> Read<Self> {
        let mut top = Self::default();
        let mut scan = Scan::new(json);
        if scan.peek().is_none() {
            return Err(DecodeError::new(DecodeCode::Truncated, "the request is empty"));
        }
        scan.members(|name, scan| {
            let once = match name {
                "id" => set(&mut top.id, scan.string()?),
                "parameters" => set(&mut top.parameters, scan.extent()?),
                "inputs" => set(&mut top.inputs, scan.extent()?),
                "outputs" => set(&mut top.outputs, scan.extent()?),
                _ => scan.skip().map(|()| true)?,
            };
            if once { Ok(()) } else { Err(twice(name)) }
        })?;
        scan.end()?;
        Ok(top)
    }
}

/// Puts a value where there is none yet.
fn set<T>(place: &mut Option<T>, value: T) -> bool {
    place.replace(value).is_none()
}

pub(super) fn twice(name: &str) -> DecodeError {
    DecodeError::new(DecodeCode::DuplicateField, format!("`{name}` is there twice"))
}

pub(super) fn malformed(message: impl Into<String>) -> DecodeError {
    DecodeError::new(DecodeCode::Malformed, message)
}

/// The parameters of a request that mean something here; all others are passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_output: bool,
    /// In microseconds; 0 is none.
    timeout: Option<u64>,
    priority: Option<u64>,
    sequence_id: Option<Value>,
    sequence_start: Option<bool>,
    sequence_end: Option<bool>,
}

/// The parameters by which clients of Triton say where a request stands in a sequence. A model that has inputs of these names takes
/// them from there.
pub(super) const SEQUENCE: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];

/// The time that a number of microseconds stands for; 0 is none at all.
pub(super) fn timeout(micros: u64) -> Option<Duration> {
    Some(Duration::from_micros(micros)).filter(|time| !time.is_zero())
}

/// The priority that a number stands for: 1 is the highest, 0 is none at all.
pub(super) fn priority(number: u64) -> Option<Priority> {
    let at = usize::try_from(number.checked_sub(1)?).unwrap_or(usize::MAX);
    Some(Priority::ALL.get(at).copied().unwrap_or(Priority::Batch))
}

/// Parameters of what `of` names.
pub(super) fn parsed<'b, T: Deserialize<'b>>(text: &'b str, of: &str) -> Read<T> {
    serde_json::from_str(text).map_err(|error| {
        // The text of an error may tell a value, which may be as long as the body.
        let told: String = error.to_string().chars().take(200).collect();
        DecodeError::new(DecodeCode::WrongType, format!("{of}`parameters`: {told}"))
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: u32,
    shared_memory_region: Option<IgnoredAny>,
}

/// The outputs that a request lists.
fn wanted(text: &str, outputs: &[Output], binary: bool) -> Read<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut scan = Scan::new(text);
    scan.items(|at, scan| {
        let (mut name, mut parameters) = (None, None);
        scan.members(|key, scan| {
            let once = match key {
                "name" => set(&mut name, scan.string()?.into_owned()),
                "parameters" => set(
                    &mut parameters,
                    parsed::<OutputParameters>(scan.extent()?, &format!("output {at}: "))?,
                ),
                _ => scan.skip().map(|()| true)?,
            };
            if once { Ok(()) } else { Err(twice(key)) }
        })?;
        let Some(name) = name else {
            return Err(DecodeError::new(DecodeCode::MissingField, format!("output {at} has no `name`")));
        };
        let parameters = parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(no_shared_memory(&format!("output `{}`", shown(&name))));
        }
        let binary = parameters.binary_data.unwrap_or(binary);
        want(outputs, &mut wanted, &name, binary, parameters.classification)
    })?;
    Ok(wanted)
}

/// Adds an output to those that a reply is to have: its values, or so many of its classes.
pub(super) fn want(
    outputs: &[Output],
    wanted: &mut Vec<Wanted>,
    name: &str,
    binary: bool,
    classes: u32,
) -> Read<()> {
    let Some(output) = outputs.iter().position(|output| output.name() == name) else {
        let message = suggest::unknown("output", &shown(name), outputs.iter().map(Output::name));
        return Err(DecodeError::new(DecodeCode::UnknownField, message));
    };
    if wanted.iter().any(|wanted| wanted.output == output) {
        let message = format!("output `{name}` is there twice");
        return Err(DecodeError::new(DecodeCode::DuplicateField, message));
    }
    if classes > 0 {
        outputs[output].check_classes()?;
    }
    wanted.push(Wanted { output, binary, classes: classes as usize });
    Ok(())
}

pub(super) fn no_shared_memory(of: &str) -> DecodeError {
    malformed(format!("{of}: tensors in shared memory are not read or written; send them in the body"))
}

/// As much of a name as an error tells; it may be as long as the body.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::Array,
        datatypes::{Field, Schema},
    };
    use millstream_graph::spec::column;
    use proptest::prelude::*;

    use super::*;
    use crate::{oip::values::Form, wire::DecodeLimits};

    const COLUMNS: [(&str, &str); 8] = [
        ("a", "int64?"),
        ("half", "float16?"),
        ("flag", "bool?"),
        ("text", "string?"),
        ("image", "tensor<float32, 2, 2>?"),
        ("tags", "list<list<string>>?"),
        ("place", "struct<lat: float64?, in: struct<n: int8>?>?"),
        ("items", "list<struct<a: int32>>?"),
    ];

    /// What requests are made of, right and wrong.
    const PIECES: [&str; 36] = [
        r#"{"inputs":[{"name":"a","datatype":"INT64","shape":[2],"data":[1,2]}]}"#,
        r#"{"inputs":["#,
        r#"{"name":"a","datatype":"INT64","shape":[2],"#,
        r#"{"name":"half","datatype":"FP16","shape":[2],"#,
        r#"{"name":"flag","datatype":"BOOL","shape":[2,1],"#,
        r#"{"name":"text","datatype":"BYTES","shape":[2],"#,
        r#"{"name":"image","datatype":"FP32","shape":[2,2,2],"#,
        r#"{"name":"image","datatype":"BF16","shape":[1,2,2],"#,
        r#"{"name":"tags","datatype":"BYTES","shape":[2,1,2],"#,
        r#"{"name":"tags","datatype":"BYTES","shape":[2,0,9],"#,
        r#"{"name":"place.lat","datatype":"FP64","shape":[2],"#,
        r#"{"name":"place.in.n","datatype":"INT8","shape":[2],"#,
        r#"{"name":"items","datatype":"BYTES","shape":[2],"#,
        r#""data":[1,2]},"#,
        r#""data":[1,2]}]}"#,
        r#""data":[true,null]}]}"#,
        r#""data":["x","[{\"a\":1}]"]}]}"#,
        r#""data":[["[]"],["null"]]}]}"#,
        r#""data":[[[1,2],[3,4]],[[5,6],[7,NaN]]]}]}"#,
        r#""data":[[["",""]],[["",""]]]}]}"#,
        r#""data":[[],[]]}]}"#,
        r#""parameters":{"binary_data_size":2}},"#,
        r#""parameters":{"binary_data_size":8}}]}"#,
        r#""parameters":{"binary_data_size":16}}]}"#,
        r#"],"outputs":[{"name":"a","parameters":{"binary_data":true}}],"id":"7","parameters":{"timeout":5}}"#,
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\\",
        "1e999",
        "null",
        "\u{e9}",
    ];

    proptest! {
        #[test]
        fn whatever_can_be_read_is_whole(
            pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..6),
            raw in prop::collection::vec(any::<u8>(), 0..20),
            beyond in 0..3_usize,
        ) {
            let fields: Vec<Field> = COLUMNS.iter().map(|(name, text)| column(name, text).unwrap()).collect();
            let schema = Arc::new(Schema::new(fields));
            let (inputs, outputs) = (Tensor::all(&schema).unwrap(), Output::all(&schema).unwrap());
            let decoder = Decoder::new(schema, DecodeLimits::default()).unwrap();
            let json = pieces.concat();
            let body = [json.as_bytes(), &raw].concat();
            for read in [
                read(&inputs, &outputs, &decoder, &body, json.len() + beyond.saturating_sub(1)),
                read_raw(&inputs, &outputs, &decoder, &body).map(Some),
            ] {
                let Ok(Some((body, asked))) = read else { continue };
                let batch = decoder.assembled(body).unwrap();
                batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
                prop_assert!(asked.outputs.iter().all(|wanted| wanted.output < outputs.len()));
                for output in &outputs {
                    // Lists may have any length, which no tensor has.
                    let Ok(found) = output.find(&batch, 0..batch.num_rows()) else { continue };
                    for form in [Form::Json, Form::Binary] {
                        output.write(&found, form, &mut Vec::new()).unwrap();
                    }
                }
            }
        }
    }
}
