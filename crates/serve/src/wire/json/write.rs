//! How the values of each type are written, resolved once per schema into functions.

use std::ops::Range;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, GenericByteViewArray, GenericListArray, GenericStringArray,
        OffsetSizeTrait, PrimitiveArray,
    },
    datatypes::{
        ArrowDictionaryKeyType, ArrowNativeType, ArrowPrimitiveType, ArrowTimestampType, BinaryViewType,
        DataType, Date32Type, Decimal128Type, Field, Fields, Float16Type, Float32Type, Float64Type, Int8Type,
        Int16Type, Int32Type, Int64Type, StringViewType, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use millstream_graph::SchemaError;
use serde::de::IgnoredAny;

use super::text as form;
use crate::wire::is_free_form;

/// Writes one value that is not null.
type WriteValue = fn(&dyn Array, usize, &mut Vec<u8>);

/// The items of a row of a list.
type Items = for<'a> fn(&'a dyn Array, usize) -> Option<(&'a ArrayRef, Range<usize>)>;

/// The values of a dictionary, and which of them a row has.
type Entry = for<'a> fn(&'a dyn Array, usize) -> Option<(&'a ArrayRef, usize)>;

/// How a column is written.
#[derive(Debug)]
enum Writer {
    Value(WriteValue),
    List(Items, Box<Writer>),
    Dictionary(Entry, Box<Writer>),
    Struct(Record),
    Map(Box<Writer>),
}

/// How an object is written.
#[derive(Debug)]
pub(super) struct Record {
    members: Vec<Member>,
}

/// A field of an object: what stands before its value, and how its value is written.
#[derive(Debug)]
struct Member {
    lead: Box<[u8]>,
    writer: Writer,
}

impl Record {
    /// Writes one row as an object.
    pub(super) fn write(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) {
        if self.members.is_empty() {
            out.push(b'{');
        }
        for (member, column) in self.members.iter().zip(columns) {
            out.extend_from_slice(&member.lead);
            member.writer.write(column.as_ref(), row, out);
        }
        out.push(b'}');
    }
}

impl Writer {
    fn write(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) {
        if array.is_null(row) {
            return null(out);
        }
        match self {
            Self::Value(write) => write(array, row, out),
            Self::List(items, writer) => {
                let Some((values, range)) = items(array, row) else { return null(out) };
                out.push(b'[');
                for (at, item) in range.enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    writer.write(values.as_ref(), item, out);
                }
                out.push(b']');
            }
            Self::Dictionary(entry, writer) => match entry(array, row) {
                Some((values, at)) => writer.write(values.as_ref(), at, out),
                None => null(out),
            },
            Self::Struct(record) => match array.as_struct_opt() {
                Some(array) => record.write(array.columns(), row, out),
                None => null(out),
            },
            Self::Map(writer) => write_map(writer, array, row, out),
        }
    }
}

fn write_map(writer: &Writer, array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    let Some((map, keys)) =
        array.as_map_opt().and_then(|map| map.keys().as_string_opt::<i32>().map(|keys| (map, keys)))
    else {
        return null(out);
    };
    let offsets = map.value_offsets();
    out.push(b'{');
    for (at, entry) in (offsets[row].as_usize()..offsets[row + 1].as_usize()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        string(keys.value(entry), out);
        out.push(b':');
        writer.write(map.values().as_ref(), entry, out);
    }
    out.push(b'}');
}

/// Writes single values of one column as JSON.
#[derive(Debug)]
pub(crate) struct ValueWriter(Writer);

impl ValueWriter {
    /// A writer of the values of a column.
    ///
    /// # Errors
    /// When its type cannot be written as JSON.
    pub(crate) fn new(field: &Field) -> Result<Self, SchemaError> {
        let mut resolver = Resolver::default();
        let writer = resolver.writer(field, field.name());
        resolver.finish().map(|_| Self(writer))
    }

    /// Appends the value of a row.
    pub(crate) fn write(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) {
        self.0.write(array, row, out);
    }
}

/// Resolves a schema into writers, keeping every problem.
#[derive(Default)]
pub(super) struct Resolver {
    problems: Vec<SchemaError>,
    free_form: bool,
}

impl Resolver {
    pub(super) fn record(&mut self, fields: &Fields, path: &str) -> Record {
        let mut members = Vec::with_capacity(fields.len());
        for (position, field) in fields.iter().enumerate() {
            let mut lead = vec![if position == 0 { b'{' } else { b',' }];
            string(field.name(), &mut lead);
            lead.push(b':');
            let path =
                if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) };
            members.push(Member { lead: lead.into(), writer: self.writer(field, &path) });
        }
        Record { members }
    }

    /// Every problem met, or whether a column is free-form.
    pub(super) fn finish(self) -> Result<bool, SchemaError> {
        SchemaError::collect(self.problems)?;
        Ok(self.free_form)
    }

    fn writer(&mut self, field: &Field, path: &str) -> Writer {
        if is_free_form(field) {
            self.free_form = true;
            match field.data_type() {
                DataType::Utf8 => return Writer::Value(|a, row, out| raw(utf8::<i32>(a, row), out)),
                DataType::LargeUtf8 => return Writer::Value(|a, row, out| raw(utf8::<i64>(a, row), out)),
                DataType::Utf8View => return Writer::Value(|a, row, out| raw(utf8_view(a, row), out)),
                _ => {}
            }
        }
        self.typed(field.data_type(), path)
    }

    fn typed(&mut self, data_type: &DataType, path: &str) -> Writer {
        if let Some(write) = leaf(data_type) {
            return Writer::Value(write);
        }
        match data_type {
            DataType::List(item) => Writer::List(items::<i32>, Box::new(self.writer(item, path))),
            DataType::LargeList(item) => Writer::List(items::<i64>, Box::new(self.writer(item, path))),
            DataType::FixedSizeList(item, _) => Writer::List(fixed_items, Box::new(self.writer(item, path))),
            DataType::Struct(fields) => Writer::Struct(self.record(fields, path)),
            DataType::Dictionary(key, value) => self.dictionary(key, value, path),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 => {
                    Writer::Map(Box::new(self.writer(&pair[1], path)))
                }
                _ => self.refuse(data_type, path),
            },
            other => self.refuse(other, path),
        }
    }

    fn dictionary(&mut self, key: &DataType, value: &DataType, path: &str) -> Writer {
        let entry: Entry = match key {
            DataType::Int8 => entry::<Int8Type>,
            DataType::Int16 => entry::<Int16Type>,
            DataType::Int32 => entry::<Int32Type>,
            DataType::Int64 => entry::<Int64Type>,
            DataType::UInt8 => entry::<UInt8Type>,
            DataType::UInt16 => entry::<UInt16Type>,
            DataType::UInt32 => entry::<UInt32Type>,
            _ => entry::<UInt64Type>,
        };
        Writer::Dictionary(entry, Box::new(self.typed(value, path)))
    }

    fn refuse(&mut self, data_type: &DataType, path: &str) -> Writer {
        self.problems
            .push(SchemaError::new(format!("field `{path}`: type {data_type} cannot be written as JSON")));
        Writer::Value(|_, _, out| null(out))
    }
}

/// The writer of a type that holds no other columns.
fn leaf(data_type: &DataType) -> Option<WriteValue> {
    Some(match data_type {
        DataType::Null => |_, _, out| null(out),
        DataType::Boolean => |a, row, out| match a.as_boolean_opt().map(|a| a.value(row)) {
            Some(true) => out.extend_from_slice(b"true"),
            Some(false) => out.extend_from_slice(b"false"),
            None => null(out),
        },
        DataType::Int8 => int::<Int8Type>,
        DataType::Int16 => int::<Int16Type>,
        DataType::Int32 => int::<Int32Type>,
        DataType::Int64 => int::<Int64Type>,
        DataType::UInt8 => int::<UInt8Type>,
        DataType::UInt16 => int::<UInt16Type>,
        DataType::UInt32 => int::<UInt32Type>,
        DataType::UInt64 => int::<UInt64Type>,
        DataType::Float16 => {
            |a, row, out| float(value::<Float16Type>(a, row).map(|value| value.to_f32()), out)
        }
        DataType::Float32 => |a, row, out| float(value::<Float32Type>(a, row), out),
        DataType::Float64 => |a, row, out| float(value::<Float64Type>(a, row), out),
        DataType::Utf8 => |a, row, out| text(utf8::<i32>(a, row), out),
        DataType::LargeUtf8 => |a, row, out| text(utf8::<i64>(a, row), out),
        DataType::Utf8View => |a, row, out| text(utf8_view(a, row), out),
        DataType::Binary => |a, row, out| base64(a.as_binary_opt::<i32>().map(|a| a.value(row)), out),
        DataType::LargeBinary => |a, row, out| base64(a.as_binary_opt::<i64>().map(|a| a.value(row)), out),
        DataType::BinaryView => |a, row, out| {
            base64(
                a.as_any().downcast_ref::<GenericByteViewArray<BinaryViewType>>().map(|a| a.value(row)),
                out,
            );
        },
        DataType::FixedSizeBinary(_) => {
            |a, row, out| base64(a.as_fixed_size_binary_opt().map(|a| a.value(row)), out)
        }
        DataType::Timestamp(TimeUnit::Second, _) => instant::<TimestampSecondType>,
        DataType::Timestamp(TimeUnit::Millisecond, _) => instant::<TimestampMillisecondType>,
        DataType::Timestamp(TimeUnit::Microsecond, _) => instant::<TimestampMicrosecondType>,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => instant::<TimestampNanosecondType>,
        DataType::Date32 => |a, row, out| match value::<Date32Type>(a, row) {
            Some(days) => form::write_date(days, out),
            None => null(out),
        },
        DataType::Decimal128(_, _) => |a, row, out| match a.as_primitive_opt::<Decimal128Type>() {
            Some(a) => form::write_decimal(a.value(row), a.scale(), out),
            None => null(out),
        },
        DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_) => |a, row, out| text(displayed(a, row).as_deref(), out),
        DataType::Decimal32(_, _) | DataType::Decimal64(_, _) | DataType::Decimal256(_, _) => {
            |a, row, out| out.extend_from_slice(displayed(a, row).as_deref().unwrap_or("null").as_bytes())
        }
        _ => return None,
    })
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn value<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Option<T::Native> {
    array.as_any().downcast_ref::<PrimitiveArray<T>>().map(|array| array.value(row))
}

fn utf8<O: OffsetSizeTrait>(array: &dyn Array, row: usize) -> Option<&str> {
    array.as_any().downcast_ref::<GenericStringArray<O>>().map(|array| array.value(row))
}

fn utf8_view(array: &dyn Array, row: usize) -> Option<&str> {
    array.as_any().downcast_ref::<GenericByteViewArray<StringViewType>>().map(|array| array.value(row))
}

fn int<T: ArrowPrimitiveType<Native: itoa::Integer>>(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match value::<T>(array, row) {
        Some(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        None => null(out),
    }
}

/// JSON has no word for NaN and the infinities.
fn float<F: zmij::Float + Into<f64> + Copy>(value: Option<F>, out: &mut Vec<u8>) {
    match value {
        Some(value) if value.into().is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        }
        _ => null(out),
    }
}

fn text(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => string(text, out),
        None => null(out),
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    // A string into memory: neither of the two can fail.
    let _ = serde_json::to_writer(out, text);
}

/// Free-form text as it is; were it no JSON, the whole body would be none.
fn raw(raw: Option<&str>, out: &mut Vec<u8>) {
    match raw {
        Some(json) if serde_json::from_str::<IgnoredAny>(json).is_ok() => {
            out.extend_from_slice(json.as_bytes())
        }
        other => text(other, out),
    }
}

fn base64(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return null(out) };
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

fn instant<T: ArrowTimestampType>(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match value::<T>(array, row) {
        Some(value) => form::write_instant(value, T::UNIT, out),
        None => null(out),
    }
}

/// A value as Arrow shows it, for types that are rare in replies.
fn displayed(array: &dyn Array, row: usize) -> Option<String> {
    let formatter = ArrayFormatter::try_new(array, &FormatOptions::default()).ok()?;
    formatter.value(row).try_to_string().ok()
}

fn items<O: OffsetSizeTrait>(array: &dyn Array, row: usize) -> Option<(&ArrayRef, Range<usize>)> {
    let array = array.as_any().downcast_ref::<GenericListArray<O>>()?;
    let offsets = array.value_offsets();
    Some((array.values(), offsets[row].as_usize()..offsets[row + 1].as_usize()))
}

fn fixed_items(array: &dyn Array, row: usize) -> Option<(&ArrayRef, Range<usize>)> {
    let array = array.as_fixed_size_list_opt()?;
    let start = row * array.value_length() as usize;
    Some((array.values(), start..start + array.value_length() as usize))
}

fn entry<K: ArrowDictionaryKeyType>(array: &dyn Array, row: usize) -> Option<(&ArrayRef, usize)> {
    let array = array.as_dictionary_opt::<K>()?;
    Some((array.values(), array.key(row)?))
}
