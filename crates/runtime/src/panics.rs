//! Panics as errors.

use std::any::Any;

use millstream_graph::{ErrorKind, StepError};

/// What a panic said, as an error of a step.
pub(crate) fn error(panic: &(dyn Any + Send)) -> StepError {
    let said =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    StepError::new(ErrorKind::Panicked, format!("panicked: {}", said.unwrap_or("without a message")))
}
