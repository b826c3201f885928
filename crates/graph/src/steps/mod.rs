//! The steps that need nothing but Arrow: closures, routing, merging and joining.

mod choose;
mod for_failed;
mod join;
mod map;
mod map_rows;
mod merge;
mod pass;

pub(crate) use choose::{Choose, Filter};
pub(crate) use for_failed::ForFailed;
pub(crate) use join::Join;
pub use join::{JoinHow, JoinOn};
pub(crate) use map::Map;
pub(crate) use map_rows::MapRows;
pub(crate) use merge::Merge;
pub(crate) use pass::{Entry, Respond};

use arrow::datatypes::SchemaRef;

use crate::SchemaError;

/// The one schema of a step with one in-port.
pub(crate) fn single(inputs: &[SchemaRef]) -> Result<&SchemaRef, SchemaError> {
    match inputs {
        [one] => Ok(one),
        _ => Err(SchemaError::new(format!("takes one input, not {}", inputs.len()))),
    }
}
