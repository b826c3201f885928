//! Short ways to write schemas and batches.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray, UInt8Array,
        UInt32Array, UInt64Array,
    },
    datatypes::DataType,
};

/// A schema of columns that are never null: `fields! { id: Int64, name: Utf8 }`; a type with `?` may be null.
///
/// ```
/// use millstream_graph::fields;
/// let schema = fields! { id: Int64, name: Utf8? };
/// assert!(schema.field(1).is_nullable());
/// ```
#[macro_export]
macro_rules! fields {
    (@one $name:ident $type:ident $null:literal) => {
        $crate::arrow::datatypes::Field::new(stringify!($name), $crate::arrow::datatypes::DataType::$type, $null)
    };
    (@all [$($done:expr,)*]) => { ::std::vec![$($done,)*] as ::std::vec::Vec<$crate::arrow::datatypes::Field> };
    (@all [$($done:expr,)*] $name:ident : $type:ident ? $(, $($rest:tt)*)?) => {
        $crate::fields!(@all [$($done,)* $crate::fields!(@one $name $type true),] $($($rest)*)?)
    };
    (@all [$($done:expr,)*] $name:ident : $type:ident $(, $($rest:tt)*)?) => {
        $crate::fields!(@all [$($done,)* $crate::fields!(@one $name $type false),] $($($rest)*)?)
    };
    ($($all:tt)*) => {
        ::std::sync::Arc::new($crate::arrow::datatypes::Schema::new($crate::fields!(@all [] $($all)*)))
    };
}

/// A batch from columns: `rows! { id: [1, 2], name: ["a", "b"] }`; columns of `Option` may be null.
///
/// ```
/// use millstream_graph::rows;
/// let batch = rows! { id: [1, 2], score: [Some(0.5), None] };
/// assert_eq!(batch.num_rows(), 2);
/// ```
///
/// # Panics
/// When the columns differ in length.
#[macro_export]
macro_rules! rows {
    ($($name:ident : $values:expr),* $(,)?) => {{
        let columns = [$((stringify!($name), $crate::IntoColumn::into_column($values))),*];
        $crate::batch_of(&columns)
    }};
}

/// The batch of named columns; those that may be null are those of `Option`.
///
/// # Panics
/// When the columns differ in length.
#[doc(hidden)]
pub fn batch_of(columns: &[(&str, (ArrayRef, bool))]) -> arrow::array::RecordBatch {
    let fields = columns.iter().map(|(name, (array, nullable))| {
        arrow::datatypes::Field::new(*name, array.data_type().clone(), *nullable)
    });
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.iter().map(|(_, (array, _))| Arc::clone(array)).collect();
    match arrow::array::RecordBatch::try_new(schema, arrays) {
        Ok(batch) => batch,
        Err(error) => panic!("rows!: {error}"),
    }
}

/// Values that make a column of a batch, for [`rows!`].
pub trait IntoColumn {
    /// The column, and whether it may hold nulls.
    fn into_column(self) -> (ArrayRef, bool);
}

macro_rules! columns {
    ($($type:ty => $array:ident),* $(,)?) => {$(
        impl<const N: usize> IntoColumn for [$type; N] {
            fn into_column(self) -> (ArrayRef, bool) {
                self.to_vec().into_column()
            }
        }
        impl<const N: usize> IntoColumn for [Option<$type>; N] {
            fn into_column(self) -> (ArrayRef, bool) {
                self.to_vec().into_column()
            }
        }
        impl IntoColumn for Vec<$type> {
            fn into_column(self) -> (ArrayRef, bool) {
                (Arc::new($array::from(self)), false)
            }
        }
        impl IntoColumn for Vec<Option<$type>> {
            fn into_column(self) -> (ArrayRef, bool) {
                (Arc::new($array::from(self)), true)
            }
        }
    )*};
}

columns! {
    bool => BooleanArray, u8 => UInt8Array, u32 => UInt32Array, u64 => UInt64Array, i32 => Int32Array,
    i64 => Int64Array, f32 => Float32Array, f64 => Float64Array, &str => StringArray, String => StringArray,
}

impl IntoColumn for ArrayRef {
    fn into_column(self) -> (ArrayRef, bool) {
        let nullable = self.null_count() > 0 || *self.data_type() == DataType::Null;
        (self, nullable)
    }
}
