//! Reads values into the columns where the schema says they belong.

use arrow::datatypes::{ArrowPrimitiveType, Float16Type};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    plan::{Float, Kind, Node},
    raw,
    record::{fault, read_record},
    slots::{Reading, Segment},
    text,
};
use crate::wire::DecodeCode;

pub(super) type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// A value that is read over.
pub(super) struct RawSeed<'a, 'l> {
    pub(super) cx: &'a mut Reading<'l>,
}

impl<'de> DeserializeSeed<'de> for RawSeed<'_, '_> {
    type Value = &'de str;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<&'de str, D::Error> {
        let text = <&RawValue>::deserialize(from)?.get();
        match raw::check(text, self.cx.limits.depth) {
            Ok(()) => Ok(text),
            Err((code, message)) => Err(fault(self.cx, code, message)),
        }
    }
}

/// A value of a known type.
pub(super) struct ValueSeed<'a, 'l> {
    pub(super) node: &'a Node,
    pub(super) cx: &'a mut Reading<'l>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.node.kind {
            // Only asked this way does the parser round to 32 bits at once, rather than to 64 first.
            Kind::Float(Float::F32) => from.deserialize_option(self),
            Kind::FreeForm => self.free_form(from),
            Kind::Decimal { precision, scale } => self.decimal(from, precision, scale),
            _ => from.deserialize_any(self),
        }
    }
}

impl ValueSeed<'_, '_> {
    fn free_form<'de, D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        let text = RawSeed { cx: self.cx }.deserialize(from)?;
        if text == "null" && self.node.nullable {
            return self.null();
        }
        self.push_text(text);
        Ok(())
    }

    fn decimal<'de, D: Deserializer<'de>>(self, from: D, precision: u8, scale: i8) -> Result<(), D::Error> {
        let text = RawSeed { cx: self.cx }.deserialize(from)?;
        let number = match text.as_bytes() {
            b"null" => return self.null(),
            [b'"', .., b'"'] => &text[1..text.len() - 1],
            [b'-' | b'0'..=b'9', ..] => text,
            _ => return Err(self.wrong("another value")),
        };
        match text::parse_decimal(number, precision, scale) {
            Ok(value) => self.push(value.to_ne_bytes()),
            Err((code, message)) => return Err(fault(self.cx, code, message)),
        }
        Ok(())
    }

    fn push<const N: usize>(self, value: [u8; N]) {
        self.cx.slots[self.node.slot].push(value);
    }

    fn push_text(self, text: &str) {
        let slot = &mut self.cx.slots[self.node.slot];
        slot.values.extend_from_slice(text.as_bytes());
        slot.end_text();
    }

    fn null<E: Error>(self) -> Result<(), E> {
        if !self.node.nullable {
            return Err(self.wrong("null"));
        }
        self.cx.push_absent(self.node).map_err(|error| fault(self.cx, error.code, error.message))
    }

    fn wrong<E: Error>(self, got: &str) -> E {
        let message = format!("must be {}, but is {got}", wanted(self.node));
        fault(self.cx, DecodeCode::WrongType, message)
    }

    fn out_of_range<E: Error>(self) -> E {
        let message = format!("lies outside of what {} can hold", self.node.data_type);
        fault(self.cx, DecodeCode::OutOfRange, message)
    }

    /// Takes the low bytes of an integer that is known to fit.
    fn push_int(self, value: u64, width: usize) {
        match width {
            1 => self.push((value as u8).to_ne_bytes()),
            2 => self.push((value as u16).to_ne_bytes()),
            4 => self.push((value as u32).to_ne_bytes()),
            _ => self.push(value.to_ne_bytes()),
        }
    }

    fn float<E: Error>(self, float: Float, value: f64) -> Result<(), E> {
        match float {
            Float::F64 => self.push(value.to_ne_bytes()),
            Float::F32 if (value as f32).is_finite() => self.push((value as f32).to_ne_bytes()),
            Float::F16 if Half::from_f64(value).is_finite() => self.push(Half::from_f64(value).to_ne_bytes()),
            _ => return Err(self.out_of_range()),
        }
        Ok(())
    }

    fn binary<E: Error>(self, text: &str, size: Option<i32>) -> Result<(), E> {
        let slot = &mut self.cx.slots[self.node.slot];
        let before = slot.values.len();
        if STANDARD.decode_vec(text, &mut slot.values).is_err() {
            return Err(self.wrong("other text"));
        }
        match size {
            None => slot.end_text(),
            Some(size) if slot.values.len() - before == size as usize => slot.len += 1,
            Some(size) => {
                let message = format!("must be {size} bytes, but is {}", slot.values.len() - before);
                return Err(fault(self.cx, DecodeCode::OutOfRange, message));
            }
        }
        Ok(())
    }
}

/// What a node takes, for errors.
fn wanted(node: &Node) -> String {
    match &node.kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Int(_) => "a whole number".to_owned(),
        Kind::Float(_) | Kind::Decimal { .. } => "a number".to_owned(),
        Kind::Text => "a string".to_owned(),
        Kind::FreeForm => "a JSON value".to_owned(),
        Kind::Binary(_) => "a string in base64".to_owned(),
        Kind::Timestamp(_) => "an RFC 3339 time or a whole number".to_owned(),
        Kind::Date => "a date such as 2026-01-31".to_owned(),
        Kind::List(_) => "an array".to_owned(),
        Kind::Tensor(_, size) => format!("an array of {size}"),
        Kind::Struct(_) => "an object".to_owned(),
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&wanted(self.node))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if !matches!(self.node.kind, Kind::Bool) {
            return Err(self.wrong("true or false"));
        }
        self.push([u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.node.kind {
            Kind::Int(int) if value <= int.max => self.push_int(value, int.width),
            // From the integer itself: by way of 64 bits it would be rounded twice.
            Kind::Float(Float::F32) => self.push((value as f32).to_ne_bytes()),
            Kind::Float(float) => return self.float(float, value as f64),
            Kind::Timestamp(_) | Kind::Date => return self.visit_i64_of(i64::try_from(value).ok()),
            Kind::Int(_) => return Err(self.out_of_range()),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.node.kind {
            Kind::Int(int) if value < 0 && value >= int.min => self.push_int(value as u64, int.width),
            Kind::Int(_) if value < 0 => return Err(self.out_of_range()),
            Kind::Float(Float::F32) => self.push((value as f32).to_ne_bytes()),
            Kind::Float(float) => return self.float(float, value as f64),
            Kind::Timestamp(_) | Kind::Date => return self.visit_i64_of(Some(value)),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if let Kind::Float(float) = self.node.kind {
            return self.float(float, value);
        }
        match (&self.node.kind, text::whole(value)) {
            (Kind::Int(_) | Kind::Timestamp(_) | Kind::Date, Some(whole)) => match u64::try_from(whole) {
                Ok(whole) => self.visit_u64(whole),
                Err(_) => self.visit_i64(whole),
            },
            // An integer too long for 64 bits comes as a float.
            (Kind::Int(_) | Kind::Timestamp(_) | Kind::Date, None) if value.abs() >= 9.2e18 => {
                Err(self.out_of_range())
            }
            (Kind::Int(_) | Kind::Timestamp(_) | Kind::Date, None) => {
                Err(self.wrong("a number with a point or exponent"))
            }
            _ => Err(self.wrong("a number")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let parsed = match self.node.kind {
            Kind::Text => {
                self.push_text(value);
                return Ok(());
            }
            Kind::Binary(size) => return self.binary(value, size),
            Kind::Timestamp(unit) => text::parse_instant(value, unit).map(|value| (value as u64, 8)),
            Kind::Date => text::parse_date(value).map(|value| (value as u64, 4)),
            _ => return Err(self.wrong("a string")),
        };
        match parsed {
            Ok((value, width)) => self.push_int(value, width),
            Err((code, message)) => return Err(fault(self.cx, code, message)),
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.null()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.null()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_f32(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (item, size) = match &self.node.kind {
            Kind::List(item) => (item, None),
            Kind::Tensor(item, size) => (item, Some(*size)),
            _ => return Err(self.wrong("an array")),
        };
        let mut count = 0;
        loop {
            let next = items.next_element_seed(ItemSeed { item, full: size == Some(count), cx: self.cx });
            match next {
                Ok(Some(())) => count += 1,
                Ok(None) => break,
                Err(error) => {
                    self.cx.within(Segment::Item(count));
                    return Err(error);
                }
            }
        }
        let end = self.cx.slots[item.slot].len;
        let slot = &mut self.cx.slots[self.node.slot];
        match size {
            None => slot.end_list(end),
            Some(size) if count == size => slot.len += 1,
            Some(_) => return Err(self.wrong(&format!("an array of {count}"))),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match &self.node.kind {
            Kind::Struct(record) => read_record(record, self.cx, map),
            _ => Err(self.wrong("an object")),
        }
    }
}

impl ValueSeed<'_, '_> {
    /// An instant or a date as its integer; nothing when it is beyond 64 bits.
    fn visit_i64_of<E: Error>(self, value: Option<i64>) -> Result<(), E> {
        match (value, &self.node.kind) {
            (Some(value), Kind::Timestamp(_)) => self.push(value.to_ne_bytes()),
            (Some(value), Kind::Date) if i32::try_from(value).is_ok() => {
                self.push((value as i32).to_ne_bytes())
            }
            _ => return Err(self.out_of_range()),
        }
        Ok(())
    }
}

/// An item of a list.
struct ItemSeed<'a, 'l> {
    item: &'a Node,
    /// Whether the list has all items that it may have.
    full: bool,
    cx: &'a mut Reading<'l>,
}

impl<'de> DeserializeSeed<'de> for ItemSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if self.full {
            return Err(fault(self.cx, DecodeCode::WrongType, "is one item more than the array may have"));
        }
        ValueSeed { node: self.item, cx: self.cx }.deserialize(from)
    }
}
