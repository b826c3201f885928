//! A body whose values come column by column, as tensors have them, rather than row by row.

use serde::de::DeserializeSeed;

use super::{
    decode::{Body, Decoder, explain},
    plan::{Float, Kind, Node, Record},
    slots::Reading,
    text::{self, Refused},
    value::{Half, ValueSeed},
};
use crate::wire::{DecodeCode, DecodeError};

impl Decoder {
    /// A body to be filled column by column.
    pub(crate) fn columns(&self) -> Columns<'_> {
        let given = vec![false; self.layouts.len()];
        Columns { decoder: self, cx: Reading::new(&self.layouts, &self.limits), given }
    }
}

/// The columns of one body, while they are filled.
pub(crate) struct Columns<'d> {
    decoder: &'d Decoder,
    cx: Reading<'d>,
    /// Of each slot, whether there are values for it.
    given: Vec<bool>,
}

impl<'d> Columns<'d> {
    /// The column, or the field of structs in it, that `path` leads to, to be filled once. Its values lie `levels` lists deep.
    pub(crate) fn column<'c>(&'c mut self, path: &[usize], levels: usize) -> Column<'c, 'd> {
        let decoder: &'d Decoder = self.decoder;
        let mut outer = &decoder.record.nodes[path[0]];
        self.given[outer.slot] = true;
        for &field in &path[1..] {
            let Kind::Struct(record) = &outer.kind else { break };
            outer = &record.nodes[field];
            self.given[outer.slot] = true;
        }
        let mut leaf = outer;
        for _ in 0..levels {
            let (Kind::List(item) | Kind::Tensor(item, _)) = &leaf.kind else { break };
            leaf = item;
        }
        Column { outer, leaf, cx: &mut self.cx }
    }

    /// The rows that a body may have.
    pub(crate) fn most_rows(&self) -> usize {
        self.cx.limits.rows
    }

    /// The body of so many rows. Columns that were not filled are null.
    pub(crate) fn finish(mut self, rows: usize) -> Result<Body, DecodeError> {
        let limit = self.cx.limits.rows;
        if rows > limit {
            let message = format!("the request has more than {limit} rows");
            return Err(DecodeError::new(DecodeCode::TooManyRows, message));
        }
        let mut lacking = Vec::new();
        let decoder = self.decoder;
        self.complete(&decoder.record, rows, "", &mut lacking)?;
        match lacking.len() {
            0 => Ok(Body { rows, slots: self.cx.slots }),
            1 => Err(missing(format!("input {} is missing", lacking[0]))),
            _ => Err(missing(format!("inputs {} are missing", lacking.join(", ")))),
        }
    }

    /// Fills what was not given with nulls, and notes what may not be null.
    fn complete(
        &mut self,
        record: &Record,
        rows: usize,
        place: &str,
        lacking: &mut Vec<String>,
    ) -> Result<(), DecodeError> {
        for (node, field) in record.nodes.iter().zip(&record.fields) {
            match &node.kind {
                Kind::Struct(inner) if self.given[node.slot] || !node.nullable => {
                    self.complete(inner, rows, &format!("{place}{}.", field.name()), lacking)?;
                }
                _ if self.given[node.slot] => {}
                _ if node.nullable => (0..rows).try_for_each(|_| self.cx.push_absent(node))?,
                _ => lacking.push(format!("`{place}{}`", field.name())),
            }
        }
        self.cx.slots[record.slot].len = rows;
        Ok(())
    }
}

fn missing(message: String) -> DecodeError {
    DecodeError::new(DecodeCode::MissingField, message)
}

/// One column, while it is filled. What it refuses it says as the end of a sentence about the value.
pub(crate) struct Column<'c, 'd> {
    /// The column itself.
    outer: &'d Node,
    /// What its values are, inside of its lists.
    leaf: &'d Node,
    cx: &'c mut Reading<'d>,
}

impl Column<'_, '_> {
    /// How many values there are so far.
    pub(crate) fn len(&self) -> usize {
        self.cx.slots[self.leaf.slot].len
    }

    /// A number as it is written, by JSON's grammar or as `NaN`, `Infinity` and `-Infinity`.
    pub(crate) fn number(&mut self, text: &str) -> Result<(), Refused> {
        let beyond = || (DecodeCode::OutOfRange, "lies outside of what it can hold".to_owned());
        match self.leaf.kind {
            Kind::Int(int) => {
                let signed = text.starts_with('-');
                let value = if signed {
                    text.parse::<i64>().map(|value| (value as u64, value >= int.min))
                } else {
                    text.parse::<u64>().map(|value| (value, value <= int.max))
                };
                match value {
                    Ok((value, true)) => self.low_bytes(value, int.width),
                    Ok(_) => return Err(beyond()),
                    Err(_) => {
                        let value = whole(text)?;
                        if value < int.min || u64::try_from(value).is_ok_and(|value| value > int.max) {
                            return Err(beyond());
                        }
                        self.low_bytes(value as u64, int.width);
                    }
                }
            }
            Kind::Timestamp(_) => {
                let value = text.parse::<i64>().or_else(|_| whole(text))?;
                self.push(value.to_ne_bytes());
            }
            Kind::Date => {
                let value = text.parse::<i64>().or_else(|_| whole(text))?;
                self.push(i32::try_from(value).map_err(|_| beyond())?.to_ne_bytes());
            }
            Kind::Float(float) => return self.float(float, text).ok_or_else(beyond),
            _ => return Err(wrong("is a number")),
        }
        Ok(())
    }

    /// None for a number that is finite as it is written, and is not as it would be kept.
    fn float(&mut self, float: Float, text: &str) -> Option<()> {
        let named = text.ends_with(['N', 'y']);
        match float {
            Float::F64 => {
                let value: f64 = text.parse().ok()?;
                (named || value.is_finite()).then(|| self.push(value.to_ne_bytes()))
            }
            Float::F32 => {
                let value: f32 = text.parse().ok()?;
                (named || value.is_finite()).then(|| self.push(value.to_ne_bytes()))
            }
            Float::F16 => {
                let value = Half::from_f64(text.parse().ok()?);
                (named || value.is_finite()).then(|| self.push(value.to_ne_bytes()))
            }
        }
    }

    pub(crate) fn bool(&mut self, value: bool) -> Result<(), Refused> {
        if !matches!(self.leaf.kind, Kind::Bool) {
            return Err(wrong("is true or false"));
        }
        self.push([u8::from(value)]);
        Ok(())
    }

    pub(crate) fn null(&mut self) -> Result<(), Refused> {
        if !self.leaf.nullable {
            return Err(wrong("is null"));
        }
        self.cx.push_absent(self.leaf).map_err(|error| (error.code, error.message))
    }

    /// A text, or the bytes of one.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let not_utf8 = |_| (DecodeCode::BadUtf8, "is not UTF-8".to_owned());
        match self.leaf.kind {
            Kind::Text => drop(std::str::from_utf8(bytes).map_err(not_utf8)?),
            Kind::Binary(None) => {}
            Kind::Binary(Some(size)) => {
                if bytes.len() != size as usize {
                    let message = format!("has {} bytes, not {size}", bytes.len());
                    return Err((DecodeCode::OutOfRange, message));
                }
                let slot = &mut self.cx.slots[self.leaf.slot];
                slot.values.extend_from_slice(bytes);
                slot.len += 1;
                return Ok(());
            }
            Kind::Bool | Kind::Int(_) | Kind::Float(_) | Kind::Timestamp(_) | Kind::Date => {
                return Err(wrong("is a string"));
            }
            _ => return self.json(std::str::from_utf8(bytes).map_err(not_utf8)?),
        }
        let slot = &mut self.cx.slots[self.leaf.slot];
        slot.values.extend_from_slice(bytes);
        slot.end_text();
        Ok(())
    }

    /// A value that has no place in a tensor, as the JSON text that a row would have of it.
    fn json(&mut self, text: &str) -> Result<(), Refused> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let read = ValueSeed { node: self.leaf, cx: self.cx }.deserialize(&mut parser);
        read.and_then(|()| parser.end()).map_err(|error| {
            let mut fault = self.cx.fault.take().unwrap_or_else(|| explain(&error, text));
            fault.field = self.cx.place();
            (fault.code, format!("is not the JSON text of one: {fault}"))
        })
    }

    /// As many values as there are, one after the other as they lie in memory, little end first.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let width = self.width();
        if matches!(self.leaf.kind, Kind::Bool)
            && let Some(at) = bytes.iter().position(|byte| *byte > 1)
        {
            return Err((DecodeCode::WrongType, format!("has {} at {at}, not 0 or 1", bytes[at])));
        }
        let slot = &mut self.cx.slots[self.leaf.slot];
        slot.len += bytes.len() / width;
        slot.values.extend_from_slice(bytes);
        Ok(())
    }

    /// Floats of 32 bits of which only the upper half is there.
    pub(crate) fn raw_bf16(&mut self, bytes: &[u8]) {
        let slot = &mut self.cx.slots[self.leaf.slot];
        for half in bytes.chunks_exact(2) {
            slot.push(f32::from_bits(u32::from(u16::from_le_bytes([half[0], half[1]])) << 16).to_ne_bytes());
        }
    }

    /// The bytes of one value, of values that all have as many.
    fn width(&self) -> usize {
        match self.leaf.kind {
            Kind::Int(int) => int.width,
            Kind::Float(Float::F16) => 2,
            Kind::Float(Float::F32) | Kind::Date => 4,
            Kind::Float(Float::F64) | Kind::Timestamp(_) => 8,
            _ => 1,
        }
    }

    /// Ends the lists that the values lie in: `shape` is that of all values, rows first.
    pub(crate) fn close(self, shape: &[usize]) {
        let mut node = self.outer;
        let mut entries = shape.first().copied().unwrap_or(0);
        let mut sizes = shape.iter().skip(1);
        while !std::ptr::eq(node, self.leaf) {
            let slot = &mut self.cx.slots[node.slot];
            node = match &node.kind {
                Kind::Tensor(item, size) => {
                    slot.len += entries;
                    entries *= size;
                    item
                }
                Kind::List(item) => {
                    let size = sizes.clone().next().copied().unwrap_or(0);
                    (1..=entries).for_each(|entry| slot.end_list(entry * size));
                    entries *= size;
                    item
                }
                _ => return,
            };
            sizes.next();
        }
    }

    fn low_bytes(&mut self, value: u64, width: usize) {
        match width {
            1 => self.push((value as u8).to_ne_bytes()),
            2 => self.push((value as u16).to_ne_bytes()),
            4 => self.push((value as u32).to_ne_bytes()),
            _ => self.push(value.to_ne_bytes()),
        }
    }

    fn push<const N: usize>(&mut self, value: [u8; N]) {
        self.cx.slots[self.leaf.slot].push(value);
    }
}

fn wrong(what: &str) -> Refused {
    (DecodeCode::WrongType, what.to_owned())
}

/// A whole number that is written with a point or an exponent.
fn whole(text: &str) -> Result<i64, Refused> {
    text.parse().ok().and_then(text::whole).ok_or_else(|| not_whole(text))
}

/// Why a number is no integer of 64 bits.
fn not_whole(text: &str) -> Refused {
    match text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        true => (DecodeCode::OutOfRange, "lies outside of what it can hold".to_owned()),
        false => wrong("is a number with a point or exponent"),
    }
}
