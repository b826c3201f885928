//! Steps that send rows one way or another: filter and choose.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch},
    datatypes::SchemaRef,
};

use super::single;
use crate::{Input, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step, StepError, Work};

type Condition = dyn Fn(&RecordBatch) -> Result<BooleanArray, StepError> + Send + Sync;
type Route = dyn Fn(&RecordBatch) -> Result<Vec<usize>, StepError> + Send + Sync;

/// Hands on the rows for which a condition is true.
pub(crate) struct Filter {
    keep: Box<Condition>,
}

impl Filter {
    pub(crate) fn new<F>(keep: F) -> Self
    where
        F: Fn(&RecordBatch) -> Result<BooleanArray, StepError> + Send + Sync + 'static,
    {
        Self { keep: Box::new(keep) }
    }
}

impl Step for Filter {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::subset(Arc::clone(single(inputs)?)))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| Ok(Output::one(rows.filter(&(self.keep)(rows.batch())?)?))))
    }
}

/// Sends each row out of one port.
pub(crate) struct Choose {
    ports: Vec<String>,
    route: Box<Route>,
}

impl Choose {
    pub(crate) fn new<F>(ports: &[&str], route: F) -> Self
    where
        F: Fn(&RecordBatch) -> Result<Vec<usize>, StepError> + Send + Sync + 'static,
    {
        Self { ports: ports.iter().map(ToString::to_string).collect(), route: Box::new(route) }
    }

    fn run(&self, rows: Rows) -> Result<Output, StepError> {
        let ways = (self.route)(rows.batch())?;
        if ways.len() != rows.len() {
            return Err(StepError::internal(format!("{} ports chosen for {} rows", ways.len(), rows.len())));
        }
        if let Some(bad) = ways.iter().find(|way| **way >= self.ports.len()) {
            return Err(StepError::internal(format!("port {bad} chosen of {}", self.ports.len())));
        }
        Output::routed(rows, self.ports.len(), &ways)
    }
}

impl Step for Choose {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let schema = single(inputs)?;
        let port = |name: &String| OutPort::new(name, Arc::clone(schema), RowFlow::Subset);
        Ok(Signature::ports(self.ports.iter().map(port).collect()))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| self.run(rows)))
    }
}
