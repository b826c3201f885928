//! What a model in a process of its own is told and tells: frames of a head in JSON and the bytes of tensors behind it.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
};

use half::f16;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    DType, Data, InputInfo, Keys, Maps, ModelInfo, OutputInfo, OutputKind, Tensor, model::Value,
    tensor::Values,
};

/// The most bytes of a frame. Neither side takes the other's word for how much there is.
const MOST_BYTES: u64 = 4 << 30;

/// What the process is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// To load the model whose file is behind the head.
    Load { name: String, folder: String, warm_up: bool },
    /// To run it on the tensors behind the head.
    Run { inputs: Vec<Sent>, wanted: Vec<usize> },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Loaded(Info),
    /// The outputs, whose values are behind the head.
    Ran(Vec<SentValue>),
    Failed(String),
}

/// A tensor whose values are behind the head.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    dtype: usize,
    shape: Vec<usize>,
    bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SentValue {
    Tensor(Sent),
    /// Maps with these keys, and their values row by row.
    Maps {
        ints: Vec<i64>,
        texts: Vec<String>,
        sent: Sent,
    },
}

/// A [`ModelInfo`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Info {
    inputs: Vec<(String, usize, Vec<Option<usize>>)>,
    outputs: Vec<(String, SentKind)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum SentKind {
    Tensor { dtype: usize, shape: Vec<Option<usize>> },
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

const DTYPES: [DType; 13] = [
    DType::F16,
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
    DType::Str,
];

fn code(dtype: DType) -> usize {
    DTYPES.iter().position(|known| *known == dtype).unwrap_or(DTYPES.len())
}

fn dtype(code: usize) -> io::Result<DType> {
    DTYPES.get(code).copied().ok_or_else(|| wrong("there is no such type"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub(super) fn send<W: Write>(to: &mut W, head: &impl Serialize, behind: &[&[u8]]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let bytes = head.len() + behind.iter().map(|part| part.len()).sum::<usize>();
    to.write_all(&(bytes as u64).to_le_bytes())?;
    to.write_all(&(head.len() as u64).to_le_bytes())?;
    to.write_all(&head)?;
    for part in behind {
        to.write_all(part)?;
    }
    to.flush()
}

/// A head and what is behind it.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let mut number = || {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    };
    let (bytes, head) = (number()?, number()?);
    if bytes > MOST_BYTES || head > bytes {
        return Err(wrong("a frame is larger than it may be"));
    }
    // Grown by what comes, not by what was said would come.
    let mut frame = Vec::new();
    from.take(bytes).read_to_end(&mut frame)?;
    if frame.len() as u64 != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let behind = frame.split_off(usize::try_from(head).map_err(|_| wrong("a head is too large"))?);
    Ok((serde_json::from_slice(&frame)?, behind))
}

/// Adds the values of a tensor to `bytes`.
pub(super) fn put(tensor: &Tensor<'_>, bytes: &mut Vec<u8>) -> Sent {
    let before = bytes.len();
    macro_rules! numbers {
        ($values:expr) => {
            bytes.extend($values.iter().flat_map(|value| value.to_le_bytes()))
        };
    }
    match tensor.data {
        Data::F16(values) => numbers!(values),
        Data::F32(values) => numbers!(values),
        Data::F64(values) => numbers!(values),
        Data::I8(values) => numbers!(values),
        Data::I16(values) => numbers!(values),
        Data::I32(values) => numbers!(values),
        Data::I64(values) => numbers!(values),
        Data::U8(values) => bytes.extend_from_slice(values),
        Data::U16(values) => numbers!(values),
        Data::U32(values) => numbers!(values),
        Data::U64(values) => numbers!(values),
        Data::Bool(values) => bytes.extend(values.iter().map(|value| u8::from(*value))),
        Data::Str(values) => {
            for text in values {
                bytes.extend((text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    Sent { dtype: code(tensor.data.dtype()), shape: tensor.shape.to_vec(), bytes: bytes.len() - before }
}

pub(super) fn put_value(value: &Value<'_>, bytes: &mut Vec<u8>) -> SentValue {
    match value {
        Value::Tensor(tensor) => SentValue::Tensor(put(tensor, bytes)),
        Value::Maps(maps) => {
            let shape = [maps.values.len()];
            let sent = put(&Tensor { shape: &shape, data: Data::F32(&maps.values) }, bytes);
            let (ints, texts) = match &maps.keys {
                Keys::Ints(keys) => (keys.clone(), Vec::new()),
                Keys::Strings(keys) => (Vec::new(), keys.clone()),
            };
            SentValue::Maps { ints, texts, sent }
        }
    }
}

/// Tensors that were sent, read out of what is behind their head.
pub(super) struct Got<'b> {
    pub(super) shape: Vec<usize>,
    pub(super) values: Values<'b>,
}

impl Got<'_> {
    pub(super) fn tensor(&self) -> Tensor<'_> {
        Tensor { shape: &self.shape, data: self.values.data() }
    }
}

/// Takes a tensor's values from the front of `bytes`. They are as many as its shape says.
pub(super) fn take<'b>(sent: Sent, bytes: &mut &'b [u8]) -> io::Result<Got<'b>> {
    let Sent { dtype: code, shape, bytes: length } = sent;
    let (mine, rest) = bytes.split_at_checked(length).ok_or_else(|| wrong("values are missing"))?;
    *bytes = rest;
    let count = shape.iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
    let count = count.ok_or_else(|| wrong("a shape is impossible"))?;
    macro_rules! numbers {
        ($kind:ident, $number:ty) => {{
            let (chunks, rest) = mine.as_chunks::<{ size_of::<$number>() }>();
            if !rest.is_empty() || chunks.len() != count {
                return Err(wrong("there are not as many values as the shape says"));
            }
            Values::$kind(Cow::Owned(chunks.iter().map(|bytes| <$number>::from_le_bytes(*bytes)).collect()))
        }};
    }
    let values = match dtype(code)? {
        DType::F16 => numbers!(F16, f16),
        DType::F32 => numbers!(F32, f32),
        DType::F64 => numbers!(F64, f64),
        DType::I8 => numbers!(I8, i8),
        DType::I16 => numbers!(I16, i16),
        DType::I32 => numbers!(I32, i32),
        DType::I64 => numbers!(I64, i64),
        DType::U8 => numbers!(U8, u8),
        DType::U16 => numbers!(U16, u16),
        DType::U32 => numbers!(U32, u32),
        DType::U64 => numbers!(U64, u64),
        DType::Bool => {
            if mine.len() != count {
                return Err(wrong("there are not as many values as the shape says"));
            }
            Values::Bool(Cow::Owned(mine.iter().map(|value| *value != 0).collect()))
        }
        DType::Str => Values::Str(texts(mine, count)?),
    };
    Ok(Got { shape, values })
}

fn texts(mut bytes: &[u8], count: usize) -> io::Result<Vec<&str>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| wrong("a text is too long"))?;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(|| wrong("a text is cut short"))?;
        texts.push(std::str::from_utf8(text).map_err(|_| wrong("a text is not UTF-8"))?);
        bytes = rest;
    }
    if !bytes.is_empty() || texts.len() != count {
        return Err(wrong("there are not as many texts as the shape says"));
    }
    Ok(texts)
}

/// An output that was sent.
pub(super) enum GotValue<'b> {
    Tensor(Got<'b>),
    Maps(Maps),
}

pub(super) fn take_value<'b>(sent: SentValue, bytes: &mut &'b [u8]) -> io::Result<GotValue<'b>> {
    let (ints, texts, sent) = match sent {
        SentValue::Tensor(sent) => return take(sent, bytes).map(GotValue::Tensor),
        SentValue::Maps { ints, texts, sent } => (ints, texts, sent),
    };
    let Values::F32(values) = take(sent, bytes)?.values else { return Err(wrong("maps are of floats")) };
    let keys = if texts.is_empty() { Keys::Ints(ints) } else { Keys::Strings(texts) };
    if keys.is_empty() || values.len() % keys.len() != 0 {
        return Err(wrong("there are not as many values as keys"));
    }
    Ok(GotValue::Maps(Maps { keys, values: values.into_owned() }))
}

impl Info {
    pub(super) fn of(info: &ModelInfo) -> Self {
        let inputs = info.inputs.iter();
        let kind = |output: &OutputInfo| match &output.kind {
            OutputKind::Tensor { dtype, shape } => {
                SentKind::Tensor { dtype: code(*dtype), shape: shape.clone() }
            }
            OutputKind::Maps { keys: Keys::Ints(keys) } => SentKind::Ints(keys.clone()),
            OutputKind::Maps { keys: Keys::Strings(keys) } => SentKind::Texts(keys.clone()),
        };
        Self {
            inputs: inputs
                .map(|input| (input.name.clone(), code(input.dtype), input.shape.clone()))
                .collect(),
            outputs: info.outputs.iter().map(|output| (output.name.clone(), kind(output))).collect(),
        }
    }

    pub(super) fn info(self, name: &str) -> io::Result<ModelInfo> {
        let inputs = self
            .inputs
            .into_iter()
            .map(|(name, code, shape)| Ok(InputInfo { name, dtype: dtype(code)?, shape }));
        let outputs = self.outputs.into_iter().map(|(name, kind)| {
            let kind = match kind {
                SentKind::Tensor { dtype: code, shape } => OutputKind::Tensor { dtype: dtype(code)?, shape },
                SentKind::Ints(keys) => OutputKind::Maps { keys: Keys::Ints(keys) },
                SentKind::Texts(keys) => OutputKind::Maps { keys: Keys::Strings(keys) },
            };
            Ok(OutputInfo { name, kind })
        });
        let (inputs, outputs) = (inputs.collect::<io::Result<_>>()?, outputs.collect::<io::Result<_>>()?);
        Ok(ModelInfo { name: name.to_owned(), inputs, outputs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(data: Data<'_>, shape: &[usize]) {
        let mut bytes = Vec::new();
        let sent = [put(&Tensor { shape, data }, &mut bytes), put(&Tensor { shape, data }, &mut bytes)];
        let mut frame = Vec::new();
        send(&mut frame, &sent, &[&bytes]).unwrap();
        let (sent, behind): (Vec<Sent>, Vec<u8>) = receive(&mut &frame[..]).unwrap();
        let mut rest = &behind[..];
        for sent in sent {
            let got = take(sent, &mut rest).unwrap();
            assert_eq!((got.tensor().shape, got.tensor().data), (shape, data));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn tensors_arrive_as_they_were_sent() {
        there_and_back(Data::F16(&[f16::ONE, f16::MAX]), &[2, 1]);
        there_and_back(Data::F32(&[1.5, -0.0, f32::INFINITY, f32::MIN_POSITIVE]), &[2, 2]);
        there_and_back(Data::F64(&[0.1]), &[1]);
        there_and_back(Data::I8(&[-1]), &[1]);
        there_and_back(Data::I16(&[i16::MIN]), &[1, 1]);
        there_and_back(Data::I32(&[]), &[0, 5]);
        there_and_back(Data::I64(&[i64::MIN, i64::MAX]), &[2]);
        there_and_back(Data::U8(&[255, 0]), &[2]);
        there_and_back(Data::U16(&[1]), &[1]);
        there_and_back(Data::U32(&[u32::MAX]), &[1]);
        there_and_back(Data::U64(&[u64::MAX]), &[]);
        there_and_back(Data::Bool(&[true, false]), &[2]);
        there_and_back(Data::Str(&["", "größe", "a\0b"]), &[3]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..64), sizes in prop::collection::vec(any::<usize>(), 0..3)) {
            let _ = receive::<Vec<SentValue>>(&mut &frame[..]);
            for code in 0..14 {
                let sent = Sent { dtype: code, shape: sizes.clone(), bytes: frame.len() };
                let _ = take(sent, &mut &frame[..]);
            }
        }
    }
}
