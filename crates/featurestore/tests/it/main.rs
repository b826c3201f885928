//! The crate from outside: lookups against an oracle, files, the `enrich` step, and the table of the fraud example.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]
#![allow(clippy::needless_pass_by_value, reason = "reads better in the tables")]
#![allow(clippy::print_stdout, reason = "says on what a test fails, and what is skipped")]

mod distinct;
mod enrich;
mod fraud;
mod load;
mod online;
mod oracle;
mod profiles;
mod sets;
mod stream;
mod through;
mod vectors;
mod windows;

use std::{fmt::Write as _, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef, util::pretty::pretty_format_batches};
use millstream_featurestore::{FeatureSetBuilder, MemoryStore, MemoryTable};
use millstream_graph::{FailedRows, Input, Request, Rows, RunCx, RunId, Step, StepError, Token, Work};
use smallvec::smallvec;

/// What a step answered: its rows, and the rows that failed.
type Answer = (Option<Rows>, Option<Box<FailedRows>>);

/// Types a step and runs it once.
fn run(step: &dyn Step, batch: RecordBatch) -> Result<Answer, StepError> {
    step.signature(&[batch.schema()]).expect("typed");
    call(step, batch)
}

/// Runs a typed step once.
fn call(step: &dyn Step, batch: RecordBatch) -> Result<Answer, StepError> {
    call_for(step, batch, Request::default())
}

/// Runs a typed step once, for a request.
fn call_for(step: &dyn Step, batch: RecordBatch, request: Request) -> Result<Answer, StepError> {
    let cx = RunCx::new(RunId(0), request, batch.num_rows(), std::time::Instant::now);
    let result = match step.call(Input::new(smallvec![Token::Rows(Rows::whole(batch))]), &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(_) => panic!("a local store does not wait"),
    };
    let (ports, failed, _) = result?.into_parts();
    Ok((ports.into_iter().next().map(|(_, rows)| rows), failed))
}

/// The answer as text: the table, then a line per failed row.
fn shown(answer: &Answer) -> String {
    let mut text = String::new();
    if let Some(rows) = &answer.0 {
        writeln!(text, "{}", pretty_format_batches(&[rows.batch().clone()]).unwrap()).unwrap();
    }
    for message in answer.1.iter().flat_map(|failed| &failed.messages) {
        writeln!(text, "failed: {message}").unwrap();
    }
    text
}

/// A schema as text: `id Int64, avg Float32?`.
fn columns(schema: &SchemaRef) -> String {
    let field = |field: &Arc<arrow::datatypes::Field>| {
        format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" })
    };
    schema.fields().iter().map(field).collect::<Vec<_>>().join(", ")
}

/// A store of one set.
fn store(set: FeatureSetBuilder, batches: &[RecordBatch]) -> Arc<MemoryStore> {
    let mut store = MemoryStore::new();
    store.insert(MemoryTable::from_batches(set.build().unwrap(), batches).unwrap());
    Arc::new(store)
}
