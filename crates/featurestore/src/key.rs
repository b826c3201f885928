//! Keys: how the values of key columns become what the index compares.
//!
//! An integer key is its mathematical value, whatever the width of the column it comes from, so a request that carries
//! `Int32` finds rows loaded as `Int64`. Several keys become one string of bytes in which no key runs into the next.

use std::sync::Arc;

#[cfg(feature = "offline")]
use arrow::array::StringArray;
use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};
use smallvec::SmallVec;

#[cfg(feature = "offline")]
use crate::{Column, cell::column_of_bits, online::bytes::Cursor};
use crate::{cell::with_primitive, store::LookupError};

/// What a key column holds, as far as looking it up is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// Any integer; held as `i64`.
    Signed,
    /// Any integer; held as `u64`.
    Unsigned,
    /// A truth value, a date or a timestamp; held as the integer underneath.
    Exact,
    /// Text.
    Text,
}

impl KeyKind {
    /// The kind of a key type; `None` for types that are no keys (floats: two that print alike may differ).
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Some(Self::Unsigned),
            signed if signed.is_integer() => Some(Self::Signed),
            DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) => Some(Self::Exact),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            _ => None,
        }
    }

    /// Whether a column of type `have` can look up keys of type `key`.
    pub(crate) fn accepts(key: &DataType, have: &DataType) -> bool {
        match Self::of(key) {
            Some(Self::Signed | Self::Unsigned) => have.is_integer(),
            Some(Self::Text) => Self::of(have) == Some(Self::Text),
            Some(Self::Exact) => key == have,
            None => false,
        }
    }
}

/// A value of a key column that is an integer underneath.
trait Int: Copy {
    fn canonical(self, kind: KeyKind) -> Option<u64>;
}

macro_rules! int_keys {
    ($($native:ty),*) => {$(
        impl Int for $native {
            #[inline]
            fn canonical(self, kind: KeyKind) -> Option<u64> {
                match kind {
                    KeyKind::Unsigned => u64::try_from(self).ok(),
                    _ => i64::try_from(self).ok().map(|value| value as u64),
                }
            }
        }
    )*};
}
int_keys!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! not_keys {
    ($($native:ty),*) => {$(
        impl Int for $native {
            fn canonical(self, _: KeyKind) -> Option<u64> { None }
        }
    )*};
}
not_keys!(half::f16, f32, f64);

/// Whether a key was there: null in a request is a key that no row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Given<K> {
    /// The column is null here.
    Null,
    /// A value that no key of the set's type can be, such as a negative one for an unsigned key.
    Never,
    Key(K),
}

/// Reads an integer-like key column, row by row.
#[inline]
pub(crate) fn each_int(
    column: &dyn Array,
    kind: KeyKind,
    mut sink: impl FnMut(usize, Given<u64>),
) -> Result<(), LookupError> {
    if let Some(column) = column.as_boolean_opt() {
        for row in 0..column.len() {
            let given =
                if column.is_null(row) { Given::Null } else { Given::Key(u64::from(column.value(row))) };
            sink(row, given);
        }
        return Ok(());
    }
    with_primitive!(column.data_type(), T => {
        let column = column.as_primitive::<T>();
        for (row, value) in column.values().iter().enumerate() {
            let given = if column.is_null(row) {
                Given::Null
            } else {
                value.canonical(kind).map_or(Given::Never, Given::Key)
            };
            sink(row, given);
        }
        Ok(())
    }, _ => Err(LookupError::Key { have: column.data_type().clone() }))
}

/// Reads a text key column, row by row.
#[inline]
pub(crate) fn each_text(
    column: &dyn Array,
    mut sink: impl FnMut(usize, Given<&[u8]>),
) -> Result<(), LookupError> {
    macro_rules! each {
        ($texts:expr) => {{
            for (row, text) in $texts.iter().enumerate() {
                sink(row, text.map_or(Given::Null, |text| Given::Key(text.as_bytes())));
            }
            Ok(())
        }};
    }
    match column.data_type() {
        DataType::Utf8 => each!(column.as_string::<i32>()),
        DataType::LargeUtf8 => each!(column.as_string::<i64>()),
        DataType::Utf8View => each!(column.as_string_view()),
        other => Err(LookupError::Key { have: other.clone() }),
    }
}

/// The bytes of one row's keys; most fit without an allocation.
pub(crate) type KeyBytes = SmallVec<[u8; 40]>;

/// The keys of every row as bytes: the text itself for one text key, else every key in turn, texts after their length.
pub(crate) fn encode(
    columns: &[&ArrayRef],
    kinds: &[KeyKind],
    mut sink: impl FnMut(usize, Given<&[u8]>),
) -> Result<(), LookupError> {
    match (columns, kinds) {
        ([column], [KeyKind::Text]) => return each_text(column, sink),
        ([column], [kind]) => {
            return each_int(column, *kind, |row, given| match given {
                Given::Key(key) => sink(row, Given::Key(&key.to_le_bytes())),
                Given::Null => sink(row, Given::Null),
                Given::Never => sink(row, Given::Never),
            });
        }
        _ => {}
    }
    let rows = columns.first().map_or(0, |column| column.len());
    let mut keys: SmallVec<[Given<KeyBytes>; 4]> = SmallVec::with_capacity(rows);
    keys.extend((0..rows).map(|_| Given::Key(KeyBytes::new())));
    for (column, &kind) in columns.iter().zip(kinds) {
        let mut push = |row: usize, given: Given<&[u8]>, length: Option<u32>| {
            let key = &mut keys[row];
            match (given, &mut *key) {
                (Given::Key(bytes), Given::Key(key)) => {
                    length.into_iter().for_each(|length| key.extend_from_slice(&length.to_le_bytes()));
                    key.extend_from_slice(bytes);
                }
                // Null wins over a value that can never match: both miss, but null is what a loader must name.
                (Given::Null, _) => *key = Given::Null,
                (Given::Never, Given::Key(_)) => *key = Given::Never,
                _ => {}
            }
        };
        match kind {
            KeyKind::Text => each_text(column, |row, given| {
                let length = if let Given::Key(text) = given { Some(text.len() as u32) } else { None };
                push(row, given, length);
            })?,
            kind => each_int(column, kind, |row, given| match given {
                Given::Key(key) => push(row, Given::Key(&key.to_le_bytes()), None),
                Given::Null => push(row, Given::Null, None),
                Given::Never => push(row, Given::Never, None),
            })?,
        }
    }
    for (row, key) in keys.iter().enumerate() {
        match key {
            Given::Key(bytes) => sink(row, Given::Key(bytes)),
            Given::Null => sink(row, Given::Null),
            Given::Never => sink(row, Given::Never),
        }
    }
    Ok(())
}

/// The key columns that [`encode`] has made `keys` of; `None` if it has not.
#[cfg(feature = "offline")]
pub(crate) fn decode(keys: &[&[u8]], columns: &[Column], kinds: &[KeyKind]) -> Option<Vec<ArrayRef>> {
    let mut rest: Vec<Cursor<'_>> = keys.iter().map(|key| Cursor(key)).collect();
    let decoded = columns.iter().zip(kinds).map(|(column, kind)| -> Option<ArrayRef> {
        if *kind != KeyKind::Text {
            let bits = rest.iter_mut().map(|rest| rest.u64().map(Some)).collect::<Option<Vec<_>>>()?;
            return column_of_bits(&bits, &column.data_type);
        }
        let text = |rest: &mut Cursor<'_>| {
            let bytes = if kinds.len() == 1 { rest.take(rest.0.len()) } else { rest.bytes() };
            Some(std::str::from_utf8(bytes?).ok()?.to_owned())
        };
        let texts: Vec<String> = rest.iter_mut().map(text).collect::<Option<_>>()?;
        arrow::compute::cast(&StringArray::from(texts), &column.data_type).ok()
    });
    let decoded = decoded.collect::<Option<_>>()?;
    rest.iter().all(|rest| rest.0.is_empty()).then_some(decoded)
}

/// The keys of row `row` for people: `card_id=42, country=US`.
pub(crate) fn display<'a>(
    names: impl IntoIterator<Item = &'a str>,
    columns: &[&ArrayRef],
    row: usize,
) -> String {
    let parts = names.into_iter().zip(columns).map(|(name, column)| {
        let value = if column.is_null(row) { "null".to_owned() } else { value_text(column, row) };
        format!("{name}={}", shortened(value))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// A value for people, cut where it is longer than anybody reads.
pub(crate) fn shortened(mut value: String) -> String {
    const LONGEST: usize = 64;
    if let Some((at, _)) = value.char_indices().nth(LONGEST) {
        value.truncate(at);
        value.push('…');
    }
    value
}

/// One value as text. Timestamps with a zone are shown as their integer when no zone table is compiled in.
fn value_text(column: &ArrayRef, row: usize) -> String {
    arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|_| {
        let integer = arrow::compute::cast(&column.slice(row, 1), &DataType::Int64);
        integer.map_or_else(
            |_| "?".into(),
            |array: Arc<dyn Array>| {
                array
                    .as_primitive_opt::<arrow::datatypes::Int64Type>()
                    .map_or_else(|| "?".into(), |a| a.value(0).to_string())
            },
        )
    })
}
