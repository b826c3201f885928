//! Steps that act on the world, as graphs over the past have them: they act no more.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_graph::{Input, OutPort, Output, RunCx, SchemaError, Signature, Step, Work, spec::StepKind};
use serde_json::Value;

/// `ingest` that passes rows on and writes nothing: what was written then is in the logs that are read.
pub(crate) fn passing() -> Vec<StepKind> {
    vec![StepKind::new("ingest", |_: Value| Ok(Arc::new(Still { passes: true }) as _))]
}

/// `sink` and `post` that do nothing.
pub(crate) fn silent() -> Vec<StepKind> {
    ["sink", "post"]
        .map(|name| StepKind::new(name, |_: Value| Ok(Arc::new(Still { passes: false }) as _)))
        .into()
}

#[derive(Debug)]
struct Still {
    passes: bool,
}

impl Step for Still {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        match inputs {
            [schema] if self.passes => Ok(Signature::row_wise(Arc::clone(schema))),
            [_] => Ok(Signature::ports(Vec::<OutPort>::new())),
            _ => Err(SchemaError::new(format!("it takes one input, not {}", inputs.len()))),
        }
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Done(if self.passes { input.rows(0).map(Output::one) } else { Ok(Output::none()) })
    }
}
