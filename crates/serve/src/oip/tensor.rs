//! Columns as tensors: which a schema has, under which names, of which shapes.

use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use millstream_graph::SchemaError;
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::datatype::Datatype;
use crate::wire::is_free_form;

/// A column as a tensor, or a field of its structs.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// The column's name; fields of structs follow it behind a dot.
    pub(super) name: String,
    pub(super) datatype: Datatype,
    /// The sizes of a row; `None` differs from request to request.
    pub(super) dims: Vec<Option<usize>>,
    /// The column, and the fields that lead into its structs.
    pub(super) path: SmallVec<[usize; 2]>,
    /// How many lists its values lie in.
    pub(super) levels: usize,
    /// The values inside of those lists.
    pub(super) item: FieldRef,
    /// Whether the tensor may be left out of a request.
    pub(super) optional: bool,
    /// Whether values of it may be null.
    pub(super) nullable: bool,
    /// Whether each value is the JSON text of what no tensor holds.
    pub(super) is_text: bool,
}

impl Tensor {
    /// The tensors of a schema's columns.
    ///
    /// # Errors
    /// When two have the same name.
    pub(super) fn all(schema: &Schema) -> Result<Vec<Self>, SchemaError> {
        let mut tensors = Vec::new();
        add(schema.fields(), "", &SmallVec::new(), false, &mut tensors);
        let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
        SchemaError::collect(twice.map(|pair| {
            SchemaError::new(format!("a column and a field of a struct are both the tensor `{}`", pair[0]))
        }))?;
        Ok(tensors)
    }

    /// What metadata say of it.
    pub(super) fn metadata(name: &str, datatype: Datatype, dims: &[Option<usize>]) -> Value {
        json!({ "name": name, "datatype": datatype.name(), "shape": shape(dims) })
    }

    /// What a model's configuration says of it.
    pub(super) fn config(name: &str, datatype: Datatype, dims: &[Option<usize>]) -> Value {
        json!({ "name": name, "data_type": datatype.config_name(), "dims": shape(dims) })
    }
}

/// A shape with its rows, in which -1 is any size.
pub(super) fn shape(dims: &[Option<usize>]) -> Vec<i64> {
    let size = |size: &Option<usize>| size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    [-1].into_iter().chain(dims.iter().map(size)).collect()
}

fn add(
    fields: &Fields,
    place: &str,
    path: &SmallVec<[usize; 2]>,
    outer_nullable: bool,
    tensors: &mut Vec<Tensor>,
) {
    for (at, field) in fields.iter().enumerate() {
        let mut path = path.clone();
        path.push(at);
        let name = format!("{place}{}", field.name());
        let optional = outer_nullable || field.is_nullable();
        match field.data_type() {
            DataType::Struct(inner) if !inner.is_empty() => {
                add(inner, &format!("{name}."), &path, optional, tensors);
            }
            _ => tensors.push(leaf(name, field, path, optional)),
        }
    }
}

fn leaf(name: String, field: &FieldRef, path: SmallVec<[usize; 2]>, optional: bool) -> Tensor {
    let (mut dims, mut item, mut nullable) = (Vec::new(), field, optional);
    loop {
        let (inner, size) = match item.data_type() {
            DataType::FixedSizeList(inner, size) => (inner, usize::try_from(*size).ok()),
            DataType::List(inner) | DataType::LargeList(inner) => (inner, None),
            _ => break,
        };
        dims.push(size);
        nullable |= inner.is_nullable();
        item = inner;
    }
    let (datatype, is_text) = match Datatype::of(item.data_type()) {
        Some(datatype) => (datatype, is_free_form(item)),
        None => (Datatype::Bytes, true),
    };
    // Lists of what is told as text are told as one text each, as a row would have them.
    if is_text {
        (dims, item) = (Vec::new(), field);
    }
    let levels = dims.len();
    Tensor { name, datatype, dims, path, levels, item: FieldRef::clone(item), optional, nullable, is_text }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use expect_test::{Expect, expect};
    use millstream_graph::spec::column;

    use super::*;

    fn check(columns: &[(&str, &str)], expected: &Expect) {
        let fields: Vec<Field> = columns.iter().map(|(name, text)| column(name, text).unwrap()).collect();
        let told = match Tensor::all(&Schema::new(fields)) {
            Err(error) => error.to_string(),
            Ok(tensors) => tensors.iter().fold(String::new(), |text, tensor| {
                let sign = |is: bool, sign: &'static str| if is { sign } else { "" };
                let signs = [
                    sign(tensor.optional, " optional"),
                    sign(tensor.nullable, " nullable"),
                    sign(tensor.is_text, " text"),
                ];
                let (name, datatype) = (&tensor.name, tensor.datatype.name());
                text + &format!("{name}: {datatype} {:?}{}\n", shape(&tensor.dims), signs.concat())
            }),
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn every_type_of_column_is_a_tensor() {
        check(
            &[
                ("flag", "bool"),
                ("id", "int64?"),
                ("half", "float16"),
                ("name", "string?"),
                ("free", "json"),
                ("raw", "binary"),
                ("day", "date"),
                ("at", "timestamp"),
                ("image", "tensor<float32, 2, 3>"),
                ("tags", "list<string?>"),
                ("place", "struct<lat: float64, in: struct<city: string>?>"),
                ("items", "list<struct<a: int32>>"),
            ],
            &expect![[r#"
                flag: BOOL [-1]
                id: INT64 [-1] optional nullable
                half: FP16 [-1]
                name: BYTES [-1] optional nullable
                free: BYTES [-1] text
                raw: BYTES [-1]
                day: INT32 [-1]
                at: INT64 [-1]
                image: FP32 [-1, 2, 3]
                tags: BYTES [-1, -1] nullable
                place.lat: FP64 [-1]
                place.in.city: BYTES [-1] optional nullable
                items: BYTES [-1] text
            "#]],
        );
        check(
            &[("a", "struct<b: int64>"), ("a.b", "int64")],
            &expect!["a column and a field of a struct are both the tensor `a.b`"],
        );
    }
}
