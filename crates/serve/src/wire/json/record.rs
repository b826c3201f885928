//! Reads bodies and their objects, guided by `serde_json`'s parser: no tree in between.

use millstream_graph::suggest;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{
    plan::Record,
    slots::{Reading, Segment},
    value::{RawSeed, ValueSeed},
};
use crate::wire::{DecodeCode, DecodeError, Form, UnknownFields};

/// A whole body: one object or an array of them.
pub(super) struct BodySeed<'a, 'l> {
    pub(super) record: &'a Record,
    pub(super) cx: &'a mut Reading<'l>,
    /// Where the row being read is noted, for errors.
    pub(super) row: &'a mut Option<usize>,
}

impl<'de> DeserializeSeed<'de> for BodySeed<'_, '_> {
    type Value = Form;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Form, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_, '_> {
    type Value = Form;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Form, A::Error> {
        check_rows(0, self.cx)?;
        read_record(self.record, self.cx, map)?;
        Ok(Form::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Form, A::Error> {
        let mut count = 0;
        loop {
            *self.row = Some(count);
            if rows.next_element_seed(RowSeed { record: self.record, cx: self.cx })?.is_none() {
                *self.row = None;
                return Ok(Form::Array);
            }
            count += 1;
        }
    }
}

fn check_rows<E: Error>(before: usize, cx: &mut Reading<'_>) -> Result<(), E> {
    if before < cx.limits.rows {
        return Ok(());
    }
    let message = format!("body has more than {} rows", cx.limits.rows);
    Err(fault(cx, DecodeCode::TooManyRows, message))
}

/// One row of an array.
struct RowSeed<'a, 'l> {
    record: &'a Record,
    cx: &'a mut Reading<'l>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        check_rows(self.cx.slots[self.record.slot].len, self.cx)?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        read_record(self.record, self.cx, map)
    }
}

/// Reads the fields of one object, in any order, each once.
pub(super) fn read_record<'de, A: MapAccess<'de>>(
    record: &Record,
    cx: &mut Reading<'_>,
    mut map: A,
) -> Result<(), A::Error> {
    let row = cx.slots[record.slot].len;
    let (mut expected, mut found) = (0, 0);
    while let Some(key) = map.next_key_seed(KeySeed { record, expected, cx })? {
        let Some(position) = key else {
            map.next_value_seed(RawSeed { cx })?;
            continue;
        };
        let node = &record.nodes[position];
        // A field that has a value for this row already is one row ahead of the record.
        let read = if cx.slots[node.slot].len > row {
            Err(fault(cx, DecodeCode::DuplicateField, "is there twice"))
        } else {
            map.next_value_seed(ValueSeed { node, cx })
        };
        if let Err(error) = read {
            cx.within(Segment::Field(record.fields[position].name().clone()));
            return Err(error);
        }
        expected = position + 1;
        found += 1;
    }
    if found < record.nodes.len() {
        fill_absent(record, row, cx)?;
    }
    cx.slots[record.slot].len = row + 1;
    Ok(())
}

/// Gives the fields that were not there a null, or refuses when they must be there.
fn fill_absent<E: Error>(record: &Record, row: usize, cx: &mut Reading<'_>) -> Result<(), E> {
    for (position, node) in record.nodes.iter().enumerate() {
        if cx.slots[node.slot].len > row {
            continue;
        }
        let absent = if node.nullable {
            cx.push_absent(node)
        } else {
            Err(DecodeError::new(DecodeCode::MissingField, "is missing"))
        };
        if let Err(error) = absent {
            cx.within(Segment::Field(record.fields[position].name().clone()));
            return Err(fault(cx, error.code, error.message));
        }
    }
    Ok(())
}

/// A key: the position of its field, or nothing when it is unknown and may be ignored.
struct KeySeed<'a, 'l> {
    record: &'a Record,
    expected: usize,
    cx: &'a mut Reading<'l>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let position = self.record.position(key, self.expected);
        if position.is_some() || self.cx.limits.unknown_fields == UnknownFields::Ignore {
            return Ok(position);
        }
        // The key may be as long as the body; the error says as much of it as a name can be.
        let shown: String = key.chars().take(100).collect();
        self.cx.within(Segment::Field(shown.clone()));
        Err(fault(self.cx, DecodeCode::UnknownField, suggest::unknown("field", &shown, self.record.names())))
    }
}

/// Keeps the fault and answers the error that carries it out of the parser.
pub(super) fn fault<E: Error>(cx: &mut Reading<'_>, code: DecodeCode, message: impl Into<String>) -> E {
    cx.fault = Some(DecodeError::new(code, message));
    E::custom("refused")
}
