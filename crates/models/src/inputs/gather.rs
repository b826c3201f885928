//! The copying itself: values of any number type, nested or not, into one row-major buffer.

use std::{borrow::Cow, fmt::Debug, ops::Range};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::NullBuffer,
    datatypes::{
        ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::{Dims, Faults, Leaf, Made, Nulls, Part, RowShape, TensorPlan};
use crate::{DType, convert::Element, tensor::Values};

/// Where the values of one column go for one call.
struct Place<'p> {
    rows: &'p Range<usize>,
    /// Where the first row's values start among the column's values, and how many each row has.
    start: usize,
    width: usize,
    /// Where they start in each row of the input, and how many values such a row has.
    at: usize,
    stride: usize,
}

impl TensorPlan {
    pub(super) fn make<'a>(
        &self,
        columns: &'a [ArrayRef],
        rows: &Range<usize>,
        total: usize,
        nulls: Nulls,
        faults: &mut Faults,
    ) -> Made<'a> {
        let mut shape = Dims::from_slice(&[total]);
        match &self.row {
            RowShape::Fixed(sizes) => shape.extend_from_slice(sizes),
            RowShape::Open(_) => {
                let located =
                    self.parts.first().and_then(|part| part.locate(&columns[part.column], rows.start));
                shape.extend(located.map(|(_, sizes)| sizes).unwrap_or_default());
            }
        }
        let stride = shape[1..].iter().product();
        let gather = Gather { tensor: self, columns, rows, total, stride, nulls };
        let values = match self.dtype {
            DType::F16 => Values::F16(gather.numbers(faults)),
            DType::F32 => Values::F32(gather.numbers(faults)),
            DType::F64 => Values::F64(gather.numbers(faults)),
            DType::I8 => Values::I8(gather.numbers(faults)),
            DType::I16 => Values::I16(gather.numbers(faults)),
            DType::I32 => Values::I32(gather.numbers(faults)),
            DType::I64 => Values::I64(gather.numbers(faults)),
            DType::U8 => Values::U8(gather.numbers(faults)),
            DType::U16 => Values::U16(gather.numbers(faults)),
            DType::U32 => Values::U32(gather.numbers(faults)),
            DType::U64 => Values::U64(gather.numbers(faults)),
            DType::Bool => Values::Bool(gather.numbers(faults)),
            DType::Str => Values::Str(gather.texts(faults)),
        };
        Made { shape, values }
    }
}

struct Gather<'a, 'p> {
    tensor: &'p TensorPlan,
    columns: &'a [ArrayRef],
    rows: &'p Range<usize>,
    total: usize,
    stride: usize,
    nulls: Nulls,
}

impl<'a> Gather<'a, '_> {
    fn place(&self, part: &Part, at: usize) -> Place<'_> {
        let (start, width) = match &self.tensor.row {
            RowShape::Fixed(_) => (self.rows.start * part.width, part.width),
            RowShape::Open(_) => {
                let located = part.locate(&self.columns[part.column], self.rows.start);
                (located.map_or(0, |(start, _)| start), self.stride)
            }
        };
        Place { rows: self.rows, start, width, at, stride: self.stride }
    }

    fn numbers<T: Element>(&self, faults: &mut Faults) -> Cow<'a, [T]> {
        if let Some(values) = self.borrowed() {
            return Cow::Borrowed(values);
        }
        let mut out = vec![T::default(); self.total * self.stride];
        let mut at = 0;
        for part in &self.tensor.parts {
            let place = self.place(part, at);
            self.copy(part, &place, &mut out, faults);
            at += place.width;
        }
        self.repeat_last(&mut out);
        Cow::Owned(out)
    }

    /// The values where they are: one column of the right type, without nulls.
    fn borrowed<T: Element>(&self) -> Option<&'a [T]> {
        let [part] = self.tensor.parts.as_slice() else { return None };
        if self.total != self.rows.len() {
            return None;
        }
        let mut array = &self.columns[part.column];
        for level in &part.levels {
            if array.null_count() > 0 || !matches!(level, super::Level::Fixed(_)) {
                return None;
            }
            array = array.as_fixed_size_list().values();
        }
        if array.null_count() > 0 {
            return None;
        }
        T::borrow(array)?.get(self.rows.start * self.stride..self.rows.end * self.stride)
    }

    fn repeat_last<T: Copy>(&self, out: &mut [T]) {
        let filled = self.rows.len();
        for row in filled..self.total {
            out.copy_within((filled - 1) * self.stride..filled * self.stride, row * self.stride);
        }
    }

    fn copy<T: Element>(&self, part: &Part, place: &Place<'_>, out: &mut [T], faults: &mut Faults) {
        let column = &self.columns[part.column];
        let array = &**part.leaf(column);
        let signed = |value: i64| T::of_i64(value);
        let unsigned = |value: u64| T::of_u64(value);
        let mut transfer = Transfer { gather: self, part, place, column, out, faults };
        match part.leaf {
            Leaf::F64 => transfer.of::<Float64Type>(array, T::of_f64),
            Leaf::F32 => transfer.of::<Float32Type>(array, |value| T::of_f64(value.into())),
            Leaf::F16 => transfer.of::<Float16Type>(array, |value| T::of_f64(value.into())),
            Leaf::I64 => transfer.of::<Int64Type>(array, signed),
            Leaf::I32 => transfer.of::<Int32Type>(array, |value| signed(value.into())),
            Leaf::I16 => transfer.of::<Int16Type>(array, |value| signed(value.into())),
            Leaf::I8 => transfer.of::<Int8Type>(array, |value| signed(value.into())),
            Leaf::U64 => transfer.of::<UInt64Type>(array, unsigned),
            Leaf::U32 => transfer.of::<UInt32Type>(array, |value| unsigned(value.into())),
            Leaf::U16 => transfer.of::<UInt16Type>(array, |value| unsigned(value.into())),
            Leaf::U8 => transfer.of::<UInt8Type>(array, |value| unsigned(value.into())),
            Leaf::Bool => {
                let values = array.as_boolean();
                transfer.each(values.nulls(), |at| values.value(at), |value| unsigned(value.into()));
            }
            // A plan never asks for numbers of texts.
            Leaf::Utf8 | Leaf::LargeUtf8 | Leaf::Utf8View => {}
        }
    }

    fn texts(&self, faults: &mut Faults) -> Vec<&'a str> {
        let mut out = vec![""; self.total * self.stride];
        let mut at = 0;
        for part in &self.tensor.parts {
            let place = self.place(part, at);
            let column = &self.columns[part.column];
            let leaf = part.leaf(column);
            let whole = |text: &'a str| (!text.contains('\0')).then_some(text);
            let mut transfer = Transfer { gather: self, part, place: &place, column, out: &mut out, faults };
            match part.leaf {
                Leaf::Utf8 => {
                    let texts = leaf.as_string::<i32>();
                    transfer.each(texts.nulls(), |at| texts.value(at), whole);
                }
                Leaf::LargeUtf8 => {
                    let texts = leaf.as_string::<i64>();
                    transfer.each(texts.nulls(), |at| texts.value(at), whole);
                }
                Leaf::Utf8View => {
                    let texts = leaf.as_string_view();
                    transfer.each(texts.nulls(), |at| texts.value(at), whole);
                }
                // A plan never asks for texts of numbers.
                _ => {}
            }
            at += place.width;
        }
        self.repeat_last(&mut out);
        out
    }
}

struct Transfer<'a, 'p, O> {
    gather: &'p Gather<'a, 'p>,
    part: &'p Part,
    place: &'p Place<'p>,
    column: &'a ArrayRef,
    out: &'p mut [O],
    faults: &'p mut Faults,
}

/// What stands for a missing value in a buffer of `O`.
trait Missing: Sized {
    fn nan() -> Option<Self>;
}

impl<T: Element> Missing for T {
    fn nan() -> Option<Self> {
        T::missing()
    }
}

impl Missing for &str {
    fn nan() -> Option<Self> {
        None
    }
}

impl<O: Missing + Copy> Transfer<'_, '_, O> {
    fn of<S: ArrowPrimitiveType>(&mut self, array: &dyn Array, convert: impl Fn(S::Native) -> Option<O>) {
        let values = array.as_primitive::<S>();
        let slice = &values.values()[..];
        self.each(values.nulls(), |at| slice[at], convert);
    }

    fn each<V: Debug + Copy>(
        &mut self,
        nulls: Option<&NullBuffer>,
        value: impl Fn(usize) -> V,
        convert: impl Fn(V) -> Option<O>,
    ) {
        let Place { rows, start, width, at, stride } = *self.place;
        let clean =
            nulls.is_none_or(|nulls| nulls.null_count() == 0) && self.part.no_list_is_null(self.column);
        for row in 0..rows.len() {
            let missing = !clean && self.part.lists_null(self.column, rows.start + row);
            for k in 0..width {
                let from = start + row * width + k;
                let null = missing || (!clean && nulls.is_some_and(|nulls| nulls.is_null(from)));
                let converted = if null { self.missing() } else { convert(value(from)) };
                match converted {
                    Some(converted) => self.out[row * stride + at + k] = converted,
                    None => self.fault(rows.start + row, if null { None } else { Some(value(from)) }),
                }
            }
        }
    }

    fn missing(&self) -> Option<O> {
        match self.gather.nulls {
            Nulls::Nan => O::nan(),
            Nulls::Error => None,
        }
    }

    #[cold]
    fn fault<V: Debug>(&mut self, row: usize, value: Option<V>) {
        let (part, tensor) = (self.part, self.gather.tensor);
        self.faults.push(row, || match value {
            None => part.is_null(&tensor.input),
            Some(_) if tensor.dtype == DType::Str => {
                format!("column `{}` holds a NUL, which input `{}` does not take", part.name, tensor.input)
            }
            Some(value) => format!(
                "column `{}` is {value:?}, which input `{}` cannot take as {}",
                part.name, tensor.input, tensor.dtype
            ),
        });
    }
}
