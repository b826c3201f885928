//! Plans how columns become the inputs of a model, and says everything that does not fit.

use arrow::datatypes::{DataType, Field, Schema};
use indexmap::IndexMap;
use millstream_graph::{SchemaError, suggest};
use serde_json::Value;
use smallvec::SmallVec;

use super::{Dims, InputPlan, Leaf, Level, Nulls, Part, RowShape, TensorPlan};
use crate::{Columns, DType, InputInfo, ModelInfo, columns::unknown_column, model::Shape};

/// Plans the inputs of `model` from the columns of `schema`: those that `declared` names, else the one named like
/// the input.
pub(crate) fn compile(
    model: &ModelInfo,
    declared: &IndexMap<String, Columns>,
    nulls: Nulls,
    schema: &Schema,
) -> Result<InputPlan, SchemaError> {
    let mut errors = Vec::new();
    for name in declared.keys() {
        if !model.inputs.iter().any(|input| input.name == *name) {
            let unknown =
                suggest::unknown("input", name, model.inputs.iter().map(|input| input.name.as_str()));
            errors.push(SchemaError::new(format!("model `{}`: {unknown}", model.name)));
        }
    }
    let mut unpack = Vec::new();
    let mut tensors = Vec::new();
    for input in &model.inputs {
        match tensor(model, input, declared.get(&input.name), nulls, schema, &mut unpack) {
            Ok(tensor) => tensors.push(tensor),
            Err(error) => errors.push(error),
        }
    }
    let rows_per_call = rows_per_call(model).map_err(|error| errors.push(error)).unwrap_or_default();
    SchemaError::collect(errors)?;
    unpack.dedup();
    Ok(InputPlan { tensors, rows_per_call, unpack, nulls })
}

/// The number of rows of a call, when the model fixes it.
fn rows_per_call(model: &ModelInfo) -> Result<Option<usize>, SchemaError> {
    let mut fixed = None;
    for input in &model.inputs {
        let Some(&rows) = input.shape.first() else {
            return Err(SchemaError::new(format!(
                "input `{}` of model `{}` has no first dimension for rows",
                input.name, model.name
            )));
        };
        match (fixed, rows) {
            (_, Some(0)) => {
                return Err(SchemaError::new(format!(
                    "input `{}` of model `{}` takes no rows",
                    input.name, model.name
                )));
            }
            (None, Some(rows)) => fixed = Some(rows),
            (Some(known), Some(rows)) if known != rows => {
                return Err(SchemaError::new(format!(
                    "the inputs of model `{}` take different numbers of rows: {known} and {rows}",
                    model.name
                )));
            }
            _ => {}
        }
    }
    Ok(fixed)
}

fn tensor(
    model: &ModelInfo,
    input: &InputInfo,
    declared: Option<&Columns>,
    nulls: Nulls,
    schema: &Schema,
    unpack: &mut Vec<(usize, DataType)>,
) -> Result<TensorPlan, SchemaError> {
    let names = match declared {
        Some(Columns::One(name)) => std::slice::from_ref(name),
        Some(Columns::Several(names)) if names.is_empty() => {
            return Err(SchemaError::new(format!("`inputs` names no column for {}", of(model, input))));
        }
        Some(Columns::Several(names)) => names.as_slice(),
        None if schema.index_of(&input.name).is_ok() => std::slice::from_ref(&input.name),
        None => return Err(undeclared(model, input, schema)),
    };
    if nulls == Nulls::Nan && !input.dtype.is_float() {
        return Err(SchemaError::new(format!(
            "`nulls: nan` does not suit {}: only floats have a NaN",
            of(model, input)
        )));
    }
    let mut errors = Vec::new();
    let mut parts = Vec::new();
    let mut shapes = Vec::new();
    for name in names {
        match part(model, input, name, schema, unpack) {
            Ok((part, shape)) => {
                parts.push(part);
                shapes.push(shape);
            }
            Err(error) => errors.push(error),
        }
    }
    SchemaError::collect(errors)?;
    let side_by_side = matches!(declared, Some(Columns::Several(_)));
    let row = row_shape(model, input, &parts, &shapes, side_by_side)?;
    Ok(TensorPlan { input: input.name.clone(), dtype: input.dtype, parts, row })
}

fn of(model: &ModelInfo, input: &InputInfo) -> String {
    format!("input `{}` ({} {}) of model `{}`", input.name, input.dtype, Shape(&input.shape), model.name)
}

fn undeclared(model: &ModelInfo, input: &InputInfo, schema: &Schema) -> SchemaError {
    let names: Vec<_> = schema.fields().iter().take(2).map(|field| field.name().as_str()).collect();
    let example = if names.is_empty() { "..".to_owned() } else { format!("{}, ..", names.join(", ")) };
    let columns = schema.fields().iter().map(|field| field.name().as_str());
    // Between names as short as `X` everything is close.
    let closest = match suggest::closest(&input.name, columns) {
        Some(column) if input.name.len() > 2 => format!(" (there is `{column}`)"),
        _ => String::new(),
    };
    SchemaError::new(format!(
        "no column is named like {}{closest}; say which columns it takes, as in `inputs: {{{}: [{example}]}}`",
        of(model, input),
        input.name
    ))
}

/// One column, and the shape of its rows; `None` in it is the length of a list.
fn part(
    model: &ModelInfo,
    input: &InputInfo,
    name: &str,
    schema: &Schema,
    unpack: &mut Vec<(usize, DataType)>,
) -> Result<(Part, Vec<Option<usize>>), SchemaError> {
    let column = schema.index_of(name).map_err(|_| unknown_column(name, schema))?;
    let field = schema.field(column);
    let mut levels = SmallVec::new();
    let mut data_type = field.data_type();
    loop {
        data_type = match data_type {
            DataType::FixedSizeList(item, size) => {
                levels.push(Level::Fixed(usize::try_from(*size).unwrap_or(0)));
                item.data_type()
            }
            DataType::List(item) => {
                levels.push(Level::List);
                item.data_type()
            }
            DataType::LargeList(item) => {
                levels.push(Level::LargeList);
                item.data_type()
            }
            _ => break,
        };
    }
    let unpacked = match data_type {
        DataType::Dictionary(_, value) if levels.is_empty() => Some((**value).clone()),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
            if levels.is_empty() =>
        {
            Some(DataType::Float64)
        }
        _ => None,
    };
    let refused = |why: &str| {
        let text = format!("column `{name}` is {}, but {} takes {why}", field.data_type(), of(model, input));
        SchemaError::new(text)
    };
    let leaf =
        leaf(unpacked.as_ref().unwrap_or(data_type)).ok_or_else(|| refused("numbers, booleans or texts"))?;
    let text = matches!(leaf, Leaf::Utf8 | Leaf::LargeUtf8 | Leaf::Utf8View);
    if text != (input.dtype == DType::Str) {
        return Err(refused(if text { "numbers: encode it first" } else { "texts: cast it first" }));
    }
    if let Some(to) = unpacked {
        unpack.push((column, to));
    }
    let shape: Vec<Option<usize>> = match tensor_shape(field, &levels)? {
        Some(shape) => shape.into_iter().map(Some).collect(),
        None => levels
            .iter()
            .map(|level| if let Level::Fixed(size) = level { Some(*size) } else { None })
            .collect(),
    };
    if shape.contains(&Some(0)) {
        return Err(refused("at least one value per row"));
    }
    let width = shape.iter().map(|size| size.unwrap_or(1)).product();
    Ok((Part { column, name: name.to_owned(), levels, leaf, width }, shape))
}

fn leaf(data_type: &DataType) -> Option<Leaf> {
    Some(match data_type {
        DataType::Float16 => Leaf::F16,
        DataType::Float32 => Leaf::F32,
        DataType::Float64 => Leaf::F64,
        DataType::Int8 => Leaf::I8,
        DataType::Int16 => Leaf::I16,
        DataType::Int32 => Leaf::I32,
        DataType::Int64 => Leaf::I64,
        DataType::UInt8 => Leaf::U8,
        DataType::UInt16 => Leaf::U16,
        DataType::UInt32 => Leaf::U32,
        DataType::UInt64 => Leaf::U64,
        DataType::Boolean => Leaf::Bool,
        DataType::Utf8 => Leaf::Utf8,
        DataType::LargeUtf8 => Leaf::LargeUtf8,
        DataType::Utf8View => Leaf::Utf8View,
        _ => return None,
    })
}

/// The shape that an `arrow.fixed_shape_tensor` column declares for its flat rows.
fn tensor_shape(field: &Field, levels: &[Level]) -> Result<Option<Vec<usize>>, SchemaError> {
    if field.metadata().get("ARROW:extension:name").map(String::as_str) != Some("arrow.fixed_shape_tensor") {
        return Ok(None);
    }
    let wrong = |why: &str| {
        SchemaError::new(format!("column `{}` is a tensor column with metadata that {why}", field.name()))
    };
    let text = field.metadata().get("ARROW:extension:metadata").map_or("", String::as_str);
    let metadata: Value = serde_json::from_str(text).map_err(|_| wrong("is not JSON"))?;
    let numbers = |key: &str| -> Option<Vec<usize>> {
        metadata.get(key)?.as_array()?.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
    };
    let shape = numbers("shape").ok_or_else(|| wrong("has no shape"))?;
    let in_order = metadata.get("permutation").is_none_or(Value::is_null)
        || numbers("permutation").is_some_and(|order| order.iter().copied().eq(0..shape.len()));
    if !in_order {
        return Err(wrong("permutes its dimensions, which is not supported"));
    }
    let values = shape.iter().try_fold(1_usize, |values, size| values.checked_mul(*size));
    match levels {
        [Level::Fixed(size)] if values == Some(*size) => Ok(Some(shape)),
        _ => Err(wrong("does not fit its values")),
    }
}

/// The shape of a row of the input, made of the columns' rows.
fn row_shape(
    model: &ModelInfo,
    input: &InputInfo,
    parts: &[Part],
    shapes: &[Vec<Option<usize>>],
    side_by_side: bool,
) -> Result<RowShape, SchemaError> {
    let wanted = input.shape.get(1..).unwrap_or_default();
    let fixed: Option<Vec<Vec<usize>>> = shapes.iter().map(|shape| shape.iter().copied().collect()).collect();
    let (Some(fixed), names) =
        (fixed, parts.iter().map(|part| format!("`{}`", part.name)).collect::<Vec<_>>())
    else {
        let suits = |shape: &[Option<usize>]| {
            shape.len() == wanted.len() && shape.iter().zip(wanted).all(|(got, want)| fits(*got, *want))
        };
        return match shapes {
            [shape] if suits(shape) => Ok(RowShape::Open(wanted.to_vec())),
            [shape] => Err(mismatch(
                model,
                input,
                &format!("column `{}` has rows of shape {}", parts[0].name, row(shape)),
            )),
            _ => Err(mismatch(
                model,
                input,
                "lists of any length cannot stand side by side with other columns",
            )),
        };
    };
    let got: Vec<usize> = match fixed.as_slice() {
        [shape] if !side_by_side => shape.clone(),
        _ => vec![parts.iter().map(|part| part.width).sum()],
    };
    if let Some(dims) = resolve(&got, wanted) {
        return Ok(RowShape::Fixed(dims));
    }
    let rows: Vec<_> = got.iter().copied().map(Some).collect();
    let what = match names.as_slice() {
        [name] => format!("column {name} has rows of shape {}", row(&rows)),
        names => format!("the {} columns give rows of shape {}", names.len(), row(&rows)),
    };
    Err(mismatch(model, input, &what))
}

fn mismatch(model: &ModelInfo, input: &InputInfo, what: &str) -> SchemaError {
    SchemaError::new(format!("{what}, which does not fit {}", of(model, input)))
}

fn row(shape: &[Option<usize>]) -> String {
    let sizes: Vec<_> =
        shape.iter().map(|size| size.map_or_else(|| "?".to_owned(), |size| size.to_string())).collect();
    format!("[{}]", sizes.join(", "))
}

fn fits(got: Option<usize>, wanted: Option<usize>) -> bool {
    match (got, wanted) {
        (Some(got), Some(wanted)) => got == wanted,
        _ => true,
    }
}

/// The sizes of a row of the input, given rows of `got`; the same number of values may be folded another way when
/// the model leaves no doubt how.
fn resolve(got: &[usize], wanted: &[Option<usize>]) -> Option<Dims> {
    let values: usize = got.iter().product();
    if got.len() == wanted.len() && got.iter().zip(wanted).all(|(&got, want)| fits(Some(got), *want)) {
        return Some(got.into());
    }
    if got.len() == wanted.len() {
        return None;
    }
    let known: usize = wanted.iter().flatten().product();
    match wanted.iter().filter(|size| size.is_none()).count() {
        0 if known == values => Some(wanted.iter().flatten().copied().collect()),
        1 if known == 1 => Some(wanted.iter().map(|size| size.unwrap_or(values)).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fold_into_the_wanted_shape_only_without_doubt() {
        let check = |got: &[usize], wanted: &[Option<usize>], folded: Option<&[usize]>| {
            assert_eq!(resolve(got, wanted).as_deref(), folded, "{got:?} into {wanted:?}");
        };
        check(&[28], &[Some(28)], Some(&[28]));
        check(&[28], &[None], Some(&[28]));
        check(&[27], &[Some(28)], None);
        check(&[], &[], Some(&[]));
        check(&[1], &[], Some(&[]));
        check(&[], &[Some(1)], Some(&[1]));
        check(&[], &[None], Some(&[1]));
        check(&[28], &[Some(4), Some(7)], Some(&[4, 7]));
        check(&[28], &[Some(1), None], Some(&[1, 28]));
        check(&[28], &[None, Some(7)], None);
        check(&[2, 3], &[None, None], Some(&[2, 3]));
        check(&[2, 3], &[Some(3), Some(2)], None);
        check(&[2, 3], &[], None);
    }
}
