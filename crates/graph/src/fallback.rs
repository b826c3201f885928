//! What stands in for a failed step's answer, typed when the graph is compiled.

use std::{collections::BTreeMap, io::Cursor, sync::Arc};

use arrow::{
    array::{ArrayRef, new_null_array},
    datatypes::{DataType, Field, FieldRef, SchemaRef},
    json::ReaderBuilder,
};
use serde_json::Value;

use crate::{
    Fallback, Fallbacks, RowFlow, SchemaError, Signature,
    graph::schema_of,
    plan::{Fill, FillColumn},
    policy::{Failure, OnError, Policies},
    suggest,
};

/// What stands in for the answer of a step, by kind of failure. A reader of its error port takes every failure.
pub(crate) fn fallbacks(
    policies: &Policies,
    error_read: bool,
    signature: &Signature,
    inputs: &[SchemaRef],
) -> Result<Fallbacks, SchemaError> {
    if error_read {
        return Ok(Fallbacks::all(|| Fallback::Port));
    }
    let typed = |failure| match policies.of(failure) {
        OnError::Fail => Ok(Fallback::None),
        OnError::Skip => Ok(Fallback::Skip),
        OnError::Default(values) => Ok(Fallback::Fill(fill(values, signature, inputs)?)),
        OnError::Step(_) => match &signature.outputs[..] {
            [output] if output.flow != RowFlow::Free && inputs.len() == 1 => Ok(Fallback::Step),
            _ => Err(SchemaError::new(
                "another step can stand in for one with one in-port and one out-port whose rows keep their place in the \
                 request",
            )),
        },
    };
    Ok(Fallbacks {
        error: typed(Failure::Error)?,
        timeout: typed(Failure::Timeout)?,
        overload: typed(Failure::Overload)?,
    })
}

fn fill(
    values: &BTreeMap<String, Value>,
    signature: &Signature,
    inputs: &[SchemaRef],
) -> Result<Fill, SchemaError> {
    let ([output], Some(input)) = (&signature.outputs[..], inputs.first()) else {
        return Err(SchemaError::new("default values need a step with one out-port"));
    };
    if output.flow != RowFlow::Same {
        return Err(SchemaError::new("default values need a step that keeps its rows"));
    }
    let names = || output.schema.fields().iter().map(|field| field.name().as_str());
    let unknown = values.keys().filter(|name| output.schema.column_with_name(name).is_none());
    let mut errors: Vec<_> =
        unknown.map(|name| SchemaError::new(suggest::unknown("output column", name, names()))).collect();
    let mut columns = Vec::with_capacity(output.schema.fields().len());
    for field in output.schema.fields() {
        let fits =
            |f: &Field| f.data_type() == field.data_type() && (field.is_nullable() || !f.is_nullable());
        let in_input = input.column_with_name(field.name()).filter(|(_, f)| fits(f));
        match (values.get(field.name()), in_input) {
            (Some(value), _) => match constant(field, value) {
                Ok(array) => columns.push(FillColumn::Constant(array)),
                Err(error) => errors.push(error),
            },
            (None, Some((at, _))) => columns.push(FillColumn::FromInput(at)),
            (None, None) if field.is_nullable() => {
                columns.push(FillColumn::Constant(new_null_array(field.data_type(), 1)));
            }
            (None, None) => {
                errors.push(SchemaError::new(format!("column `{}` has no default value", field.name())));
            }
        }
    }
    SchemaError::collect(errors)?;
    Ok(Fill { schema: Arc::clone(&output.schema), columns })
}

/// One JSON value as a column of one row.
fn constant(field: &FieldRef, value: &Value) -> Result<ArrayRef, SchemaError> {
    let refused = || {
        let wanted = field.data_type();
        SchemaError::new(format!("default of column `{}` is {value}, which is no {wanted}", field.name()))
    };
    // The JSON reader takes text for numbers, and fractions for integers; a default must have the column's own type.
    let text_for_number =
        value.is_string() && (field.data_type().is_numeric() || *field.data_type() == DataType::Boolean);
    let fraction = value.is_f64() && field.data_type().is_integer();
    if (value.is_null() && !field.is_nullable()) || text_for_number || fraction {
        return Err(refused());
    }
    let nullable = Field::new(field.name(), field.data_type().clone(), true);
    let row = serde_json::json!({ field.name(): value }).to_string();
    let mut reader =
        ReaderBuilder::new(schema_of([Arc::new(nullable)])).build(Cursor::new(row)).map_err(|_| refused())?;
    let batch = reader.next().and_then(Result::ok).ok_or_else(refused)?;
    Ok(Arc::clone(batch.column(0)))
}
