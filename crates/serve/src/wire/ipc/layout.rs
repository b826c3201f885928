//! Whether a stream's fields, nodes and buffers are what a schema asks for.

use std::sync::Arc;

use arrow::{
    buffer::Buffer,
    datatypes::{DataType, Field, Schema, TimeUnit},
    ipc::{self, DateUnit, FieldNode, Precision, RecordBatch, Type},
};

/// Whether columns of a type can be read at all.
pub(super) fn is_readable(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => is_readable(item.data_type()),
        DataType::FixedSizeList(item, size) => *size > 0 && is_readable(item.data_type()),
        DataType::Struct(fields) => {
            !fields.is_empty() && fields.iter().all(|field| is_readable(field.data_type()))
        }
        DataType::Dictionary(_, value) => **value == DataType::Utf8,
        DataType::FixedSizeBinary(size) => *size > 0,
        DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Date32
        | DataType::Timestamp(_, _)
        | DataType::Decimal128(_, _) => true,
        other => {
            other.is_numeric()
                && !matches!(
                    other,
                    DataType::Decimal32(_, _) | DataType::Decimal64(_, _) | DataType::Decimal256(_, _)
                )
        }
    }
}

/// About how many bytes a null takes.
pub(super) fn bytes_per_row(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeList(item, size) => bytes_per_row(item.data_type()).saturating_mul(*size as usize),
        DataType::Struct(fields) => {
            fields.iter().fold(0, |sum: usize, field| sum.saturating_add(bytes_per_row(field.data_type())))
        }
        DataType::FixedSizeBinary(size) => *size as usize,
        other => other.primitive_width().unwrap_or(8),
    }
}

/// The type in which a field of a stream comes, when it is one that can stand for the type that is wanted.
pub(super) fn sent_type(sent: ipc::Field<'_>, wanted: &DataType) -> Result<DataType, String> {
    if sent.dictionary().is_some() {
        return Err("must be plain, but is encoded by a dictionary".to_owned());
    }
    let text = match sent.type_type() {
        Type::Utf8 => Some(DataType::Utf8),
        Type::LargeUtf8 => Some(DataType::LargeUtf8),
        Type::Utf8View => Some(DataType::Utf8View),
        _ => None,
    };
    let binary = match sent.type_type() {
        Type::Binary => Some(DataType::Binary),
        Type::LargeBinary => Some(DataType::LargeBinary),
        Type::BinaryView => Some(DataType::BinaryView),
        _ => None,
    };
    let fits = match wanted {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => binary,
        _ => is_same(sent, wanted)?.then(|| wanted.clone()),
    };
    fits.ok_or_else(|| {
        let got = sent.type_type().variant_name().unwrap_or("of an unknown type");
        format!("must be {wanted}, but is {}", got.trim_end_matches('_'))
    })
}

/// Whether a field of a stream has exactly this type, apart from the names of list items and which nested fields
/// may be null: nulls where none may be are refused when the column is built.
fn is_same(sent: ipc::Field<'_>, wanted: &DataType) -> Result<bool, String> {
    let children: Vec<ipc::Field<'_>> = sent.children().into_iter().flatten().take(MOST_CHILDREN).collect();
    Ok(match wanted {
        DataType::Boolean => sent.type_type() == Type::Bool,
        DataType::Float16 => is_float(sent, Precision::HALF),
        DataType::Float32 => is_float(sent, Precision::SINGLE),
        DataType::Float64 => is_float(sent, Precision::DOUBLE),
        DataType::Date32 => sent.type_as_date().is_some_and(|date| date.unit() == DateUnit::DAY),
        DataType::Timestamp(unit, zone) => sent.type_as_timestamp().is_some_and(|sent| {
            sent.unit() == sent_unit(*unit) && sent.timezone().is_some() == zone.is_some()
        }),
        &DataType::Decimal128(precision, scale) => sent.type_as_decimal().is_some_and(|decimal| {
            (decimal.bitWidth(), decimal.precision(), decimal.scale())
                == (128, i32::from(precision), i32::from(scale))
        }),
        DataType::FixedSizeBinary(size) => {
            sent.type_as_fixed_size_binary().is_some_and(|binary| binary.byteWidth() == *size)
        }
        DataType::List(item) => sent.type_type() == Type::List && all_same(&children, &[item])?,
        DataType::LargeList(item) => sent.type_type() == Type::LargeList && all_same(&children, &[item])?,
        DataType::FixedSizeList(item, size) => {
            sent.type_as_fixed_size_list().is_some_and(|list| list.listSize() == *size)
                && all_same(&children, &[item])?
        }
        DataType::Struct(fields) => {
            let named = fields.iter().zip(&children).all(|(field, child)| child.name() == Some(field.name()));
            sent.type_type() == Type::Struct_
                && named
                && all_same(&children, &fields.iter().collect::<Vec<_>>())?
        }
        integer => sent.type_as_int().is_some_and(|int| {
            integer.is_integer()
                && integer.primitive_width().is_some_and(|width| int.bitWidth() as usize == 8 * width)
                && int.is_signed() == integer.is_signed_integer()
        }),
    })
}

/// More children than any schema has; a stream may claim millions.
const MOST_CHILDREN: usize = 1 << 16;

fn all_same(sent: &[ipc::Field<'_>], wanted: &[&Arc<Field>]) -> Result<bool, String> {
    if sent.len() != wanted.len() {
        return Ok(false);
    }
    for (sent, wanted) in sent.iter().zip(wanted) {
        // Nested columns are not converted one by one: they come as they are wanted.
        if sent_type(*sent, wanted.data_type())? != *wanted.data_type() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_float(sent: ipc::Field<'_>, precision: Precision) -> bool {
    sent.type_as_floating_point().is_some_and(|float| float.precision() == precision)
}

fn sent_unit(unit: TimeUnit) -> ipc::TimeUnit {
    match unit {
        TimeUnit::Second => ipc::TimeUnit::SECOND,
        TimeUnit::Millisecond => ipc::TimeUnit::MILLISECOND,
        TimeUnit::Microsecond => ipc::TimeUnit::MICROSECOND,
        TimeUnit::Nanosecond => ipc::TimeUnit::NANOSECOND,
    }
}

/// Checks that a record batch has a node and buffers for every column, and that all of them lie within its body.
pub(super) fn check(batch: &RecordBatch<'_>, body: &Buffer, schema: &Schema) -> Result<(), String> {
    if batch.compression().is_some() {
        return Err("compressed bodies cannot be read: send them uncompressed".to_owned());
    }
    let (Some(nodes), Some(buffers)) = (batch.nodes(), batch.buffers()) else {
        return Err("a record batch has no columns".to_owned());
    };
    let mut walk = Walk {
        nodes: nodes.iter(),
        buffers: buffers.iter(),
        views: batch.variadicBufferCounts().into_iter().flatten(),
        body: body.len(),
    };
    for field in schema.fields() {
        let length = walk
            .column(field.data_type())
            .map_err(|problem| format!("field `{}`: {problem}", field.name()))?;
        if i64::try_from(length) != Ok(batch.length()) {
            return Err(format!("field `{}`: has {length} rows of {}", field.name(), batch.length()));
        }
    }
    if batch.length() < 0 || walk.views.next().is_some() {
        return Err("a record batch has more or less than its columns".to_owned());
    }
    Ok(())
}

struct Walk<N, B, V> {
    nodes: N,
    buffers: B,
    views: V,
    /// The length of the batch's body, in bytes.
    body: usize,
}

impl<'a, N, B, V> Walk<N, B, V>
where
    N: Iterator<Item = &'a FieldNode>,
    B: Iterator<Item = &'a ipc::Buffer>,
    V: Iterator<Item = i64>,
{
    /// Passes a column and answers its number of rows.
    fn column(&mut self, data_type: &DataType) -> Result<usize, String> {
        let node = self.nodes.next().ok_or("has no node")?;
        // No column that can be read takes less than a bit per row.
        let length = usize::try_from(node.length()).ok().filter(|length| length.div_ceil(8) <= self.body);
        let length = length.ok_or("has more rows than its bytes can hold")?;
        if !(0..=node.length()).contains(&node.null_count()) {
            return Err("has more nulls than rows".to_owned());
        }
        let validity = self.buffer()?;
        if node.null_count() > 0 && validity < length.div_ceil(8) {
            return Err("has too few validity bits".to_owned());
        }
        match data_type {
            DataType::Struct(fields) => {
                for field in fields {
                    self.child(field.data_type(), length)?;
                }
            }
            DataType::FixedSizeList(item, size) => self.child(item.data_type(), length * *size as usize)?,
            DataType::List(item) => {
                self.buffer_of(4)?;
                self.column(item.data_type())?;
            }
            DataType::LargeList(item) => {
                self.buffer_of(8)?;
                self.column(item.data_type())?;
            }
            DataType::Utf8View | DataType::BinaryView => {
                self.buffer_of(16)?;
                let buffers = self.views.next().ok_or("has no buffer count")?;
                if !(0..=i64::from(u16::MAX)).contains(&buffers) {
                    return Err("has too many buffers".to_owned());
                }
                for _ in 0..buffers {
                    self.buffer()?;
                }
            }
            DataType::Utf8 | DataType::Binary => {
                self.buffer_of(4)?;
                self.buffer()?;
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                self.buffer_of(8)?;
                self.buffer()?;
            }
            _ => {
                self.buffer()?;
            }
        }
        Ok(length)
    }

    fn child(&mut self, data_type: &DataType, wanted: usize) -> Result<(), String> {
        let length = self.column(data_type)?;
        if length == wanted { Ok(()) } else { Err(format!("has {length} nested values, not {wanted}")) }
    }

    /// Passes a buffer of offsets or views, each of so many bytes.
    fn buffer_of(&mut self, width: usize) -> Result<(), String> {
        if self.buffer()?.is_multiple_of(width) { Ok(()) } else { Err("has a cut buffer".to_owned()) }
    }

    /// Passes a buffer and answers its length.
    fn buffer(&mut self) -> Result<usize, String> {
        let buffer = self.buffers.next().ok_or("has no buffer")?;
        let (start, length) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        match (start, length) {
            (Ok(start), Ok(length)) if start.checked_add(length).is_some_and(|end| end <= self.body) => {
                Ok(length)
            }
            _ => Err("has a buffer outside of the body".to_owned()),
        }
    }
}
