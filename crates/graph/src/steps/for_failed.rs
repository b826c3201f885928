//! A step that answers for the rows that another has failed on.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::SchemaRef,
};

use crate::{
    ErrorKind, Input, Output, RowFlow, RunCx, SchemaError, Signature, Step, StepError, Token, Work,
    graph::schema_of, policy::Failure,
};

/// Reads an error port, and gives the wrapped step its rows as the failed step had them: without the column `error`.
///
/// Rows that failed for another reason than those that it answers for are left to others.
pub(crate) struct ForFailed {
    step: Arc<dyn Step>,
    failures: Vec<Failure>,
}

impl ForFailed {
    pub(crate) fn new(step: Arc<dyn Step>, failures: Vec<Failure>) -> Self {
        Self { step, failures }
    }

    /// Whether rows with this column `error` are its own. Rows that fail together fail for the same reason.
    fn answers_for(&self, failed: &RecordBatch) -> bool {
        let kinds =
            failed.columns().last().and_then(|error| error.as_struct_opt()?.column(1).as_string_opt::<i32>());
        let kind = kinds.filter(|kinds| !kinds.is_empty()).and_then(|kinds| ErrorKind::named(kinds.value(0)));
        kind.is_some_and(|kind| self.failures.contains(&Failure::of(kind)))
    }
}

impl Step for ForFailed {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let failed = super::single(inputs)?;
        let columns = failed.fields().len().saturating_sub(1);
        let mut signature =
            self.step.signature(&[schema_of(failed.fields().iter().take(columns).cloned())])?;
        match &mut signature.outputs[..] {
            [output] if output.flow != RowFlow::Free => output.flow = RowFlow::Subset,
            _ => {
                return Err(SchemaError::new(
                    "a step that stands in has one out-port, and rows that keep their place in the request",
                ));
            }
        }
        Ok(signature)
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let rows = match input.rows(0) {
            Ok(rows) if self.answers_for(rows.batch()) => rows,
            Ok(_) => return Work::Done(Ok(Output::none())),
            Err(error) => return Work::Done(Err(error)),
        };
        let columns: Vec<usize> = (0..rows.batch().num_columns().saturating_sub(1)).collect();
        let plain =
            rows.batch().project(&columns).map_err(StepError::from).and_then(|batch| rows.replace(batch));
        match plain {
            Ok(rows) => self.step.call(Input::new([Token::Rows(rows)].into()), cx),
            Err(error) => Work::Done(Err(error)),
        }
    }
}
