//! What the tests of this crate share: batches from plain values, and a step driven without an engine.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch,
        StringArray, UInt64Array,
    },
    datatypes::{Field, Schema, SchemaRef},
    util::pretty::pretty_format_batches,
};
use millstream_graph::{
    Input, Output, Request, Rows, RunCx, RunId, SchemaError, Signature, Step, StepError, Token, Work,
};
use smallvec::smallvec;

/// A column of plain values.
pub(crate) trait Column {
    fn array(self) -> ArrayRef;
}

macro_rules! columns {
    ($($value:ty => $array:ty),* $(,)?) => {$(
        impl<const N: usize> Column for [$value; N] {
            fn array(self) -> ArrayRef { Arc::new(<$array>::from(self.to_vec())) }
        }
        impl<const N: usize> Column for [Option<$value>; N] {
            fn array(self) -> ArrayRef { Arc::new(<$array>::from(self.to_vec())) }
        }
    )*};
}

columns! {
    i8 => Int8Array, i32 => Int32Array, i64 => Int64Array, u64 => UInt64Array, f32 => Float32Array,
    f64 => Float64Array, bool => BooleanArray, &str => StringArray,
}

impl Column for ArrayRef {
    fn array(self) -> ArrayRef {
        self
    }
}

/// A batch of named columns; a column without nulls is not nullable.
pub(crate) fn batch_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, array): &(&str, ArrayRef)| {
        Field::new(*name, array.data_type().clone(), array.null_count() > 0)
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

/// `batch! { a: [1i64, 2], b: ["x", "y"] }`
macro_rules! batch {
    ($($name:ident : $values:expr),* $(,)?) => {
        $crate::testing::batch_of(vec![$((stringify!($name), $crate::testing::Column::array($values))),*])
    };
}
pub(crate) use batch;

/// Types a step for the batch's schema.
pub(crate) fn sign(step: &dyn Step, schema: SchemaRef) -> Result<Signature, SchemaError> {
    step.signature(&[schema])
}

/// Runs a typed step on one batch.
pub(crate) fn call(step: &dyn Step, rows: Rows) -> Result<Output, StepError> {
    let cx = RunCx::new(RunId(0), Request::default(), rows.len(), std::time::Instant::now);
    match step.call(Input::new(smallvec![Token::Rows(rows)]), &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(_) => panic!("a pure step waits for nothing"),
    }
}

/// Types and runs a step on one batch.
pub(crate) fn run(step: &dyn Step, batch: &RecordBatch) -> Result<Output, StepError> {
    sign(step, batch.schema()).unwrap_or_else(|error| panic!("{error}"));
    call(step, Rows::whole(batch.clone()))
}

/// The rows on port 0, when nothing failed.
pub(crate) fn out(step: &dyn Step, batch: &RecordBatch) -> RecordBatch {
    let (ports, failed, _) = run(step, batch).unwrap_or_else(|error| panic!("{error}")).into_parts();
    assert!(failed.is_none(), "rows failed: {failed:?}");
    let [(0, rows)] = <[_; 1]>::try_from(ports.into_vec()).unwrap() else { panic!("rows on another port") };
    let signature = step.signature(&[batch.schema()]).unwrap();
    assert_eq!(rows.batch().schema(), signature.outputs[0].schema, "the schema that was promised");
    rows.into_batch()
}

/// Everything a step does with a batch, as text: types and rows per port, failed rows with their messages, an error.
pub(crate) fn report(step: &dyn Step, batch: &RecordBatch) -> String {
    let signature = match sign(step, batch.schema()) {
        Ok(signature) => signature,
        Err(error) => return format!("refused: {}\n", error.problems().join("\n         ")),
    };
    let (ports, failed, _) = match call(step, Rows::whole(batch.clone())) {
        Ok(output) => output.into_parts(),
        Err(error) => return format!("{} error: {error}\n", error.kind().name()),
    };
    let mut text = String::new();
    for (port, rows) in ports {
        let port = &signature.outputs[port];
        assert_eq!(rows.schema(), &port.schema, "the schema that was promised");
        text += &format!("{}: {}\n{}\n", port.name, types(rows.batch()), pretty(rows.batch()));
    }
    if let Some(failed) = failed {
        assert_eq!(failed.rows.len(), failed.messages.len());
        assert_eq!(failed.rows.schema(), &batch.schema(), "failed rows stay as they came in");
        text += &format!("failed: {:?}\n", failed.rows.origin());
        for message in &failed.messages {
            text += &format!("  {message}\n");
        }
    }
    text
}

fn types(batch: &RecordBatch) -> String {
    let fields = batch.schema_ref().fields().iter();
    let typed = |field: &Arc<Field>| {
        format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" })
    };
    fields.map(typed).collect::<Vec<_>>().join(", ")
}

fn pretty(batch: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
}
