//! Tensors of a request into columns.

use std::borrow::Cow;

use millstream_graph::suggest;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use smallvec::{SmallVec, smallvec};

use super::{
    datatype::Datatype,
    grpc::InferTensorContents,
    request::{malformed, no_shared_memory, parsed, shown, twice},
    scan::Scan,
    tensor::Tensor,
    typed::typed_values,
};
use crate::wire::{
    DecodeCode, DecodeError,
    json::{Body, Column, Columns, Decoder},
};

type Read<T> = Result<T, DecodeError>;

/// More dimensions than any column has.
const MAX_RANK: usize = 64;
/// The most bytes of a parameter that is an input, over all rows.
const MOST_SAID: usize = 16 << 20;
/// Floats of 32 bits of which the upper half is sent.
const BF16: &str = "BF16";

/// What a request says of one tensor. Its values are looked at when it is known what they have to be.
pub(super) struct Head<'b> {
    pub(super) name: Cow<'b, str>,
    pub(super) datatype: Cow<'b, str>,
    pub(super) shape: SmallVec<[usize; 4]>,
    pub(super) values: Values<'b>,
}

/// Where a tensor's values are.
#[derive(Clone, Copy)]
pub(super) enum Values<'b> {
    Json(&'b str),
    /// As they lie in memory.
    Bytes(&'b [u8]),
    /// The same, in so many of the bytes that follow the JSON.
    Behind(usize),
    /// In fields by their type.
    Typed(&'b InferTensorContents),
    Nowhere,
    /// Where they could be found twice.
    Twice,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputParameters {
    binary_data_size: Option<usize>,
    shared_memory_region: Option<IgnoredAny>,
}

impl<'b> Head<'b> {
    /// Reads the tensor that is `at` in the list.
    pub(super) fn read(at: usize, scan: &mut Scan<'b>) -> Read<Self> {
        let (mut name, mut datatype, mut shape, mut parameters, mut data) = (None, None, None, None, None);
        scan.members(|key, scan| {
            let once = match key {
                "name" => name.replace(scan.string()?).is_none(),
                "datatype" => datatype.replace(scan.string()?).is_none(),
                "shape" => shape
                    .replace(read_shape(scan).map_err(|error| within(&format!("input {at}: "), &error))?)
                    .is_none(),
                "parameters" => {
                    let read: InputParameters = parsed(scan.extent()?, &format!("input {at}: "))?;
                    parameters.replace(read).is_none()
                }
                "data" => data.replace(scan.extent()?).is_none(),
                _ => scan.skip().map(|()| true)?,
            };
            if once { Ok(()) } else { Err(twice(key)) }
        })?;
        let lacks = |what| DecodeError::new(DecodeCode::MissingField, format!("input {at} has no `{what}`"));
        let parameters = parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(no_shared_memory(&format!("input {at}")));
        }
        Ok(Self {
            name: name.ok_or_else(|| lacks("name"))?,
            datatype: datatype.ok_or_else(|| lacks("datatype"))?,
            shape: shape.ok_or_else(|| lacks("shape"))?,
            values: match (parameters.binary_data_size, data) {
                (Some(bytes), None) => Values::Behind(bytes),
                (None, Some(data)) => Values::Json(data),
                (Some(_), Some(_)) => Values::Twice,
                (None, None) => Values::Nowhere,
            },
        })
    }
}

fn read_shape(scan: &mut Scan<'_>) -> Read<SmallVec<[usize; 4]>> {
    let mut shape = SmallVec::new();
    scan.items(|_, scan| {
        let size = scan.number()?;
        if shape.len() == MAX_RANK {
            return Err(malformed(format!("`shape` has more than {MAX_RANK} dimensions")));
        }
        match size.parse::<usize>() {
            Ok(size) => shape.push(size),
            Err(_) => return Err(malformed(format!("`shape` has {}, which is no size", shown(size)))),
        }
        Ok(())
    })?;
    Ok(shape)
}

/// The tensors of one request, while they become columns.
pub(super) struct Source<'r> {
    inputs: &'r [Tensor],
    columns: Columns<'r>,
    given: Vec<bool>,
    /// The input that comes next when they come in their own order.
    next: usize,
    /// The bytes behind the JSON that no tensor has taken.
    raw: &'r [u8],
    /// How many rows there are, and the tensor that said so.
    rows: Option<(usize, String)>,
}

impl<'r> Source<'r> {
    pub(super) fn new(inputs: &'r [Tensor], decoder: &'r Decoder, raw: &'r [u8]) -> Self {
        Self {
            inputs,
            columns: decoder.columns(),
            given: vec![false; inputs.len()],
            next: 0,
            raw,
            rows: None,
        }
    }

    /// Fills an input that no tensor was for with a parameter of the request, for each of its rows.
    pub(super) fn say(&mut self, name: &str, value: &Value) -> Read<()> {
        let at = self.inputs.iter().position(|input| input.name == name);
        let Some(at) = at.filter(|at| !self.given[*at]) else { return Ok(()) };
        let datatype = self.inputs[at].datatype.name();
        let rows = self.rows.as_ref().map_or(1, |(rows, _)| *rows);
        // Clients name sequences by numbers or by texts; a column is of one kind.
        let one = match value {
            Value::Number(number) if datatype == "BYTES" => Value::from(number.to_string()).to_string(),
            value => value.to_string(),
        };
        // What a request says once must not come to more than a body by being said for each of its rows.
        if one.len().saturating_mul(rows) > MOST_SAID {
            let problem = format!("parameter `{name}` comes to more than {MOST_SAID} bytes over {rows} rows");
            return Err(malformed(problem));
        }
        let values = format!("[{}]", vec![one; rows].join(","));
        self.add(&Head {
            name: Cow::Borrowed(name),
            datatype: Cow::Borrowed(datatype),
            shape: smallvec![rows],
            values: Values::Json(&values),
        })
    }

    /// Adds a tensor.
    pub(super) fn add(&mut self, head: &Head<'_>) -> Read<()> {
        let named = |input: &Tensor| input.name == head.name;
        let next = self.inputs.get(self.next).is_some_and(named).then_some(self.next);
        let Some(at) = next.or_else(|| self.inputs.iter().position(named)) else {
            let known = self.inputs.iter().map(|input| input.name.as_str());
            let message = suggest::unknown("input", &shown(&head.name), known);
            return Err(DecodeError::new(DecodeCode::UnknownField, message));
        };
        if std::mem::replace(&mut self.given[at], true) {
            return Err(DecodeError::new(
                DecodeCode::DuplicateField,
                format!("input `{}` is there twice", head.name),
            ));
        }
        self.next = at + 1;
        let inputs = self.inputs;
        let input = &inputs[at];
        self.fill(input, head).map_err(|error| within(&format!("input `{}`: ", input.name), &error))
    }

    fn fill(&mut self, input: &Tensor, head: &Head<'_>) -> Read<()> {
        // No column has floats of 16 bits of this kind, but each of them is a float of 32 bits.
        let bf16 = head.datatype == BF16 && input.datatype == Datatype::Fp32;
        if head.datatype != input.datatype.name() && !bf16 {
            let message = format!("datatype is {}, not {}", input.datatype.name(), shown(&head.datatype));
            return Err(DecodeError::new(DecodeCode::WrongType, message));
        }
        let shape = &head.shape;
        let values = fit(input, shape, self.columns.most_rows())?;
        let rows = shape[0];
        match &self.rows {
            Some((known, first)) if *known != rows => {
                let message = format!("has {rows} rows, but `{first}` has {known}");
                return Err(DecodeError::new(DecodeCode::WrongType, message));
            }
            Some(_) => {}
            None => self.rows = Some((rows, input.name.clone())),
        }
        let given = match head.values {
            Values::Behind(bytes) => Values::Bytes(self.take(bytes)?),
            given => given,
        };
        let mut column = self.columns.column(&input.path, input.levels);
        match given {
            Values::Bytes(raw) if bf16 => bf16_values(raw, values, &mut column)?,
            Values::Bytes(raw) => raw_values(input, raw, values, &mut column)?,
            Values::Json(_) | Values::Typed(_) if bf16 => {
                return Err(malformed("BF16 comes as binary data only"));
            }
            Values::Json(data) => json_values(data, shape, values, &mut column)?,
            Values::Typed(contents) => typed_values(input.datatype, contents, values, &mut column)?,
            Values::Twice => return Err(malformed("has both `data` and `binary_data_size`")),
            Values::Behind(_) | Values::Nowhere => {
                return Err(DecodeError::new(
                    DecodeCode::MissingField,
                    "has neither `data` nor `binary_data_size`",
                ));
            }
        }
        column.close(shape);
        Ok(())
    }

    /// The next bytes behind the JSON.
    fn take(&mut self, bytes: usize) -> Read<&'r [u8]> {
        match self.raw.split_at_checked(bytes) {
            Some((taken, rest)) => {
                self.raw = rest;
                Ok(taken)
            }
            None => Err(DecodeError::new(
                DecodeCode::Truncated,
                format!("`binary_data_size` is {bytes}, but only {} bytes follow", self.raw.len()),
            )),
        }
    }

    pub(super) fn finish(self) -> Read<Body> {
        if !self.raw.is_empty() {
            let message = format!("{} bytes follow the binary data of the inputs", self.raw.len());
            return Err(DecodeError::new(DecodeCode::Trailing, message));
        }
        match self.rows {
            Some((rows, _)) => self.columns.finish(rows),
            None => Err(DecodeError::new(
                DecodeCode::MissingField,
                "`inputs` is empty: nothing says how many rows there are",
            )),
        }
    }
}

/// The body of a request that is nothing but the values of the only input.
pub(super) fn raw(inputs: &[Tensor], decoder: &Decoder, body: &[u8]) -> Read<Body> {
    let mut needed = inputs.iter().filter(|input| !input.optional);
    let input = match (inputs, needed.next(), needed.next()) {
        ([only], ..) => only,
        (_, Some(only), None) => only,
        _ => return Err(malformed("binary data without JSON are for a model of one input")),
    };
    let row = input.dims.iter().try_fold(1_usize, |row, size| row.checked_mul((*size)?));
    if body.is_empty() {
        return Err(DecodeError::new(DecodeCode::Truncated, "the body is empty"));
    }
    let Some(row) = row.filter(|row| *row > 0) else {
        return Err(malformed(format!(
            "input `{}` has more than one dimension of any size; send its shape",
            input.name
        )));
    };
    let mut columns = decoder.columns();
    let mut column = columns.column(&input.path, input.levels);
    let filled = match input.datatype.width() {
        Some(width) => {
            let rows = body.len() / width.saturating_mul(row);
            raw_values(input, body, rows * row, &mut column).map(|()| rows)
        }
        // One text, which is all of the body.
        None if row == 1 => one(&mut column, |column| column.bytes(body)).map(|()| 1),
        None => Err(malformed("has more than one text; send its shape")),
    };
    let rows = filled.map_err(|error| within(&format!("input `{}`: ", input.name), &error))?;
    let shape: SmallVec<[usize; 4]> =
        [rows].into_iter().chain(input.dims.iter().flatten().copied()).collect();
    column.close(&shape);
    columns.finish(rows)
}

fn within(place: &str, error: &DecodeError) -> DecodeError {
    DecodeError::new(error.code, format!("{place}{error}"))
}

/// How many values a tensor of this shape has, which must be one of the input's.
fn fit(input: &Tensor, shape: &[usize], most_rows: usize) -> Read<usize> {
    let dims = &input.dims;
    let fits = match shape {
        // One value per row may be a row of one.
        [_, 1] if dims.is_empty() => true,
        [_, sizes @ ..] => {
            sizes.len() == dims.len()
                && sizes.iter().zip(dims).all(|(size, dim)| dim.is_none_or(|dim| dim == *size))
        }
        [] => false,
    };
    if !fits {
        let wanted = Tensor::metadata(&input.name, input.datatype, dims)["shape"].to_string();
        return Err(DecodeError::new(DecodeCode::WrongType, format!("shape is {wanted}, not {shape:?}")));
    }
    let values = shape.iter().try_fold(1_usize, |values, size| values.checked_mul(*size));
    let values = values.ok_or_else(|| malformed(format!("a shape of {shape:?} has too many values")))?;
    // Where there is no value, nothing but the shape says how many lists there are.
    let lists =
        shape.iter().take_while(|size| **size > 0).try_fold(1_usize, |lists, size| lists.checked_mul(*size));
    if values == 0 && lists.is_none_or(|lists| lists > most_rows) {
        return Err(malformed(format!("a shape of {shape:?} has too many lists without a value")));
    }
    Ok(values)
}

/// Values as they lie in memory.
fn raw_values(input: &Tensor, raw: &[u8], values: usize, column: &mut Column<'_, '_>) -> Read<()> {
    if let Some(width) = input.datatype.width() {
        check_size(raw, values, width)?;
        return column
            .raw(raw)
            .map_err(|(code, told)| DecodeError::new(code, format!("the binary data {told}")));
    }
    let mut rest = raw;
    for value in 0..values {
        let text = rest.split_first_chunk::<4>().and_then(|(size, after)| {
            after.split_at_checked(usize::try_from(u32::from_le_bytes(*size)).ok()?)
        });
        let Some((text, after)) = text else {
            let message = format!("the binary data end within value {value} of {values}");
            return Err(DecodeError::new(DecodeCode::Truncated, message));
        };
        one(column, |column| column.bytes(text))?;
        rest = after;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(malformed(format!("{} bytes follow its {values} values", rest.len())))
    }
}

fn bf16_values(raw: &[u8], values: usize, column: &mut Column<'_, '_>) -> Read<()> {
    check_size(raw, values, 2)?;
    column.raw_bf16(raw);
    Ok(())
}

pub(super) fn check_size(raw: &[u8], values: usize, width: usize) -> Read<()> {
    if values.checked_mul(width) == Some(raw.len()) {
        return Ok(());
    }
    let message = format!("has {} bytes of binary data, not {values} times {width}", raw.len());
    Err(malformed(message))
}

/// Values as JSON: flat, or in arrays as the shape has them.
fn json_values(data: &str, shape: &[usize], values: usize, column: &mut Column<'_, '_>) -> Read<()> {
    let mut scan = Scan::new(data);
    // Flat data of one dimension are nested data.
    let mut ahead = Scan::new(data);
    let nested = ahead.take(b'[') && ahead.peek() == Some(b'[');
    if nested {
        nested_values(&mut scan, shape, column)?;
    } else {
        let count =
            scan.items(|at, scan| if at < values { value(scan, column) } else { Err(too_many(values)) })?;
        check_count(count, values)?;
    }
    scan.end()
}

fn nested_values(scan: &mut Scan<'_>, shape: &[usize], column: &mut Column<'_, '_>) -> Read<()> {
    let Some((&size, inner)) = shape.split_first() else { return value(scan, column) };
    let count = scan.items(|at, scan| {
        if at == size {
            return Err(too_many(size));
        }
        nested_values(scan, inner, column)
    })?;
    check_count(count, size)
}

fn too_many(size: usize) -> DecodeError {
    malformed(format!("`data` has more than {size} values where its shape has {size}"))
}

fn check_count(count: usize, size: usize) -> Read<()> {
    if count == size {
        return Ok(());
    }
    Err(malformed(format!("`data` has {count} values where its shape has {size}")))
}

fn value(scan: &mut Scan<'_>, column: &mut Column<'_, '_>) -> Read<()> {
    match scan.peek() {
        Some(b'"') => {
            let text = scan.string()?;
            one(column, |column| column.bytes(text.as_bytes()))
        }
        Some(b'[') => one(column, |_| Err((DecodeCode::WrongType, "is an array".to_owned()))),
        Some(b'{') => one(column, |_| Err((DecodeCode::WrongType, "is an object".to_owned()))),
        Some(b't') if scan.word("true") => one(column, |column| column.bool(true)),
        Some(b'f') if scan.word("false") => one(column, |column| column.bool(false)),
        Some(b'n') if scan.word("null") => one(column, Column::null),
        _ => {
            let number = scan.number()?;
            one(column, |column| column.number(number))
        }
    }
}

/// Adds one value; what is wrong with it says which it is.
pub(super) fn one<'c, 'd>(
    column: &mut Column<'c, 'd>,
    add: impl FnOnce(&mut Column<'c, 'd>) -> Result<(), (DecodeCode, String)>,
) -> Read<()> {
    add(column).map_err(|(code, told)| DecodeError::new(code, format!("value {} {told}", column.len())))
}
