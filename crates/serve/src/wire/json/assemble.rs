//! Puts a body's columns together: all of them share one allocation.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, LargeBinaryArray,
        LargeListArray, LargeStringArray, ListArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
        StringArray, StructArray,
    },
    buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float16Type, Float32Type,
        Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    error::ArrowError,
};

use super::{
    plan::{Fate, Kind, Layout, Node, Record},
    slots::Slot,
};

/// The record batch of the values in the slots.
pub(super) fn batch(
    schema: &SchemaRef,
    record: &Record,
    fates: &[Fate],
    layouts: &[Layout],
    slots: &mut [Slot],
) -> Result<RecordBatch, ArrowError> {
    let (arena, spans) = (gather(slots, layouts), &*slots);
    let arena = Arena { buffer: arena, slots: spans };
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (node, fate) in record.nodes.iter().zip(fates) {
        match fate {
            Fate::Carried => columns.push(arena.array(node)?),
            Fate::Made => drop(arena.array(node)?),
            Fate::Left => {}
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(arena.slots[record.slot].len));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Copies every slot into one buffer, each at an address that suits its type, and notes where.
fn gather(slots: &mut [Slot], layouts: &[Layout]) -> Buffer {
    let kept = slots.iter().zip(layouts).filter(|(_, layout)| **layout != Layout::Nowhere);
    let room = kept.map(|(slot, _)| slot.room()).sum();
    // Arrow's own alignment of a whole buffer asks for more than the allocator gives for nothing; a small body is
    // not worth that.
    let mut arena = if room <= SMALL {
        MutableBuffer::from(Vec::<i128>::with_capacity(room / size_of::<i128>() + 1))
    } else {
        MutableBuffer::with_capacity(room)
    };
    for (slot, layout) in slots.iter_mut().zip(layouts) {
        if *layout == Layout::Nowhere {
            continue;
        }
        if !slot.nulls.is_empty() {
            slot.nulls_at = align(&mut arena, slot.len / 8);
            arena.resize(slot.nulls_at + slot.len.div_ceil(8), 0xFF);
            let bits = &mut arena.as_slice_mut()[slot.nulls_at..];
            slot.nulls.iter().for_each(|&row| bits[row / 8] &= !(1 << (row % 8)));
        }
        match layout {
            Layout::Nowhere => {}
            Layout::Plain if slot.values.is_empty() => {}
            Layout::Plain => {
                slot.values_at = align(&mut arena, slot.values.len());
                arena.extend_from_slice(&slot.values);
            }
            Layout::Bits => {
                slot.values_at = align(&mut arena, slot.len / 8);
                arena.resize(slot.values_at + slot.len.div_ceil(8), 0);
                let bits = &mut arena.as_slice_mut()[slot.values_at..];
                slot.values.iter().enumerate().for_each(|(row, value)| bits[row / 8] |= value << (row % 8));
            }
            Layout::Offsets32 => {
                slot.ends_at = align(&mut arena, slot.ends.len() * 4);
                arena.push(0_i32);
                arena.extend_from_slice(&slot.ends);
                slot.values_at = arena.len();
                arena.extend_from_slice(&slot.values);
            }
            Layout::Offsets64 => {
                slot.ends_at = align(&mut arena, slot.ends.len() * 8);
                arena.push(0_i64);
                slot.ends.iter().for_each(|&end| arena.push(i64::from(end)));
                slot.values_at = arena.len();
                arena.extend_from_slice(&slot.values);
            }
        }
    }
    arena.into()
}

/// The next address for `bytes` of values: a cache line's start for what fills one, else what any type needs.
fn align(arena: &mut MutableBuffer, bytes: usize) -> usize {
    let at = arena.len().next_multiple_of(if bytes < LINE { WIDEST } else { LINE });
    arena.extend_from_slice(&[0_u8; LINE][..at - arena.len()]);
    at
}

/// The alignment of the widest type, and that of vectorised code.
const WIDEST: usize = size_of::<i128>();
const LINE: usize = 64;

/// Up to here, in bytes, a body is small.
const SMALL: usize = 4096;

impl Slot {
    /// An upper bound of the bytes that this slot takes in the arena.
    fn room(&self) -> usize {
        let offsets = if self.ends.is_empty() { 0 } else { 8 * (self.ends.len() + 1) };
        let nulls = if self.nulls.is_empty() { 0 } else { self.len / 8 + WIDEST };
        let bytes = self.values.len() + offsets + nulls;
        bytes + if bytes < LINE { 2 * WIDEST } else { 3 * LINE }
    }
}

struct Arena<'a> {
    buffer: Buffer,
    slots: &'a [Slot],
}

impl Arena<'_> {
    fn columns(&self, record: &Record) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut columns = Vec::with_capacity(record.nodes.len());
        for node in &record.nodes {
            columns.push(self.array(node)?);
        }
        Ok(columns)
    }

    fn array(&self, node: &Node) -> Result<ArrayRef, ArrowError> {
        let slot = &self.slots[node.slot];
        let nulls = self.nulls(slot);
        Ok(match (&node.kind, &node.data_type) {
            (Kind::List(item), DataType::LargeList(field)) => Arc::new(LargeListArray::try_new(
                Arc::clone(field),
                self.offsets(slot),
                self.array(item)?,
                nulls,
            )?),
            (Kind::List(item), DataType::List(field)) => {
                Arc::new(ListArray::try_new(Arc::clone(field), self.offsets(slot), self.array(item)?, nulls)?)
            }
            (Kind::Tensor(item, _), DataType::FixedSizeList(field, size)) => {
                Arc::new(FixedSizeListArray::try_new(Arc::clone(field), *size, self.array(item)?, nulls)?)
            }
            (Kind::Struct(record), _) => {
                Arc::new(StructArray::try_new(record.fields.clone(), self.columns(record)?, nulls)?)
            }
            (Kind::Text | Kind::FreeForm, data_type) => self.text(slot, nulls, data_type)?,
            (Kind::Binary(_), data_type) => self.binary(slot, nulls, data_type)?,
            (Kind::Bool, _) => {
                let bits = BooleanBuffer::new(self.buffer.clone(), slot.values_at * 8, slot.len);
                Arc::new(BooleanArray::new(bits, nulls))
            }
            (_, data_type) => self.primitive(slot, nulls, data_type)?,
        })
    }

    fn text(
        &self,
        slot: &Slot,
        nulls: Option<NullBuffer>,
        wanted: &DataType,
    ) -> Result<ArrayRef, ArrowError> {
        if matches!(wanted, DataType::LargeUtf8) {
            return Ok(Arc::new(LargeStringArray::try_new(self.offsets(slot), self.values(slot), nulls)?));
        }
        let text: ArrayRef = Arc::new(StringArray::try_new(self.offsets(slot), self.values(slot), nulls)?);
        if matches!(wanted, DataType::Utf8) { Ok(text) } else { arrow::compute::cast(&text, wanted) }
    }

    fn binary(
        &self,
        slot: &Slot,
        nulls: Option<NullBuffer>,
        wanted: &DataType,
    ) -> Result<ArrayRef, ArrowError> {
        let bytes: ArrayRef = match wanted {
            DataType::LargeBinary => {
                return Ok(Arc::new(LargeBinaryArray::try_new(
                    self.offsets(slot),
                    self.values(slot),
                    nulls,
                )?));
            }
            DataType::FixedSizeBinary(size) => {
                return Ok(Arc::new(FixedSizeBinaryArray::try_new(*size, self.values(slot), nulls)?));
            }
            _ => Arc::new(BinaryArray::try_new(self.offsets(slot), self.values(slot), nulls)?),
        };
        if matches!(wanted, DataType::Binary) { Ok(bytes) } else { arrow::compute::cast(&bytes, wanted) }
    }

    fn primitive(
        &self,
        slot: &Slot,
        nulls: Option<NullBuffer>,
        wanted: &DataType,
    ) -> Result<ArrayRef, ArrowError> {
        macro_rules! array {
            ($type:ty) => {
                Arc::new(self.numbers::<$type>(slot, nulls)?)
            };
        }
        macro_rules! instants {
            ($type:ty, $zone:expr) => {
                Arc::new(self.numbers::<$type>(slot, nulls)?.with_timezone_opt($zone.clone()))
            };
        }
        Ok(match wanted {
            DataType::Int8 => array!(Int8Type),
            DataType::Int16 => array!(Int16Type),
            DataType::Int32 => array!(Int32Type),
            DataType::Int64 => array!(Int64Type),
            DataType::UInt8 => array!(UInt8Type),
            DataType::UInt16 => array!(UInt16Type),
            DataType::UInt32 => array!(UInt32Type),
            DataType::UInt64 => array!(UInt64Type),
            DataType::Float16 => array!(Float16Type),
            DataType::Float32 => array!(Float32Type),
            DataType::Float64 => array!(Float64Type),
            DataType::Date32 => array!(Date32Type),
            DataType::Timestamp(TimeUnit::Second, zone) => instants!(TimestampSecondType, zone),
            DataType::Timestamp(TimeUnit::Millisecond, zone) => instants!(TimestampMillisecondType, zone),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => instants!(TimestampMicrosecondType, zone),
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => instants!(TimestampNanosecondType, zone),
            &DataType::Decimal128(precision, scale) => Arc::new(
                self.numbers::<Decimal128Type>(slot, nulls)?.with_precision_and_scale(precision, scale)?,
            ),
            other => return Err(ArrowError::NotYetImplemented(format!("columns of {other}"))),
        })
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        slot: &Slot,
        nulls: Option<NullBuffer>,
    ) -> Result<PrimitiveArray<T>, ArrowError> {
        PrimitiveArray::try_new(self.scalars(slot.values_at, slot.len), nulls)
    }

    fn values(&self, slot: &Slot) -> Buffer {
        self.buffer.slice_with_length(slot.values_at, slot.values.len())
    }

    fn offsets<T: ArrowNativeType>(&self, slot: &Slot) -> OffsetBuffer<T> {
        OffsetBuffer::new(self.scalars(slot.ends_at, slot.ends.len() + 1))
    }

    fn scalars<T: ArrowNativeType>(&self, at: usize, len: usize) -> ScalarBuffer<T> {
        self.buffer.slice_with_length(at, len * size_of::<T>()).into()
    }

    fn nulls(&self, slot: &Slot) -> Option<NullBuffer> {
        let bits = || BooleanBuffer::new(self.buffer.clone(), slot.nulls_at * 8, slot.len);
        (!slot.nulls.is_empty()).then(|| NullBuffer::new(bits()))
    }
}
