//! A step whose every row does what a function says, for tests of steps around steps.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use futures_util::FutureExt;
use millstream_graph::{
    Effect, ErrorKind, FailedRows, Input, Output, Request, Rows, RunCx, RunId, SchemaError, Signature, Step,
    StepError, StepResult, Token, Work,
};
use smallvec::smallvec;

use crate::testing::batch_of;

/// What a row becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Does {
    Answers(f64),
    FailsRow,
    FailsCall,
}

/// How a step answers; all ways must be the same to who stands around it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Done,
    Waits,
    Computes,
    /// It has not answered when others have.
    Never,
}

/// A step that does to each row what a function of its key says.
pub(super) struct Planted {
    pub(super) does: Arc<dyn Fn(i64) -> Does + Send + Sync>,
    pub(super) way: Way,
    pub(super) effect: Effect,
    pub(super) column: &'static str,
    /// The type of that column.
    pub(super) kind: DataType,
    pub(super) calls: Arc<AtomicUsize>,
}

pub(super) fn planted(does: impl Fn(i64) -> Does + Send + Sync + 'static) -> Planted {
    Planted {
        does: Arc::new(does),
        way: Way::Done,
        effect: Effect::None,
        column: "score",
        kind: DataType::Float64,
        calls: Arc::default(),
    }
}

fn schema(input: &SchemaRef, column: &str, kind: &DataType) -> SchemaRef {
    let fields = input.fields().iter().cloned().chain([Arc::new(Field::new(column, kind.clone(), false))]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn answer(does: &dyn Fn(i64) -> Does, column: &str, kind: &DataType, rows: &Rows) -> StepResult {
    let keys = rows.batch().column(0).as_primitive::<Int64Type>();
    let done: Vec<Does> = keys.values().iter().map(|key| does(*key)).collect();
    if done.contains(&Does::FailsCall) {
        return Err(StepError::new(ErrorKind::Unavailable, "planted"));
    }
    let at = |wanted: fn(&Does) -> bool| -> Vec<u32> {
        (0..done.len()).filter(|row| wanted(&done[*row])).map(|row| row as u32).collect()
    };
    let good = rows.take(&at(|does| *does != Does::FailsRow))?;
    let bad = rows.take(&at(|does| *does == Does::FailsRow))?;
    let scores =
        done.iter().filter_map(|does| if let Does::Answers(score) = does { Some(*score) } else { None });
    let mut columns = good.batch().columns().to_vec();
    columns.push(cast(&Float64Array::from_iter_values(scores), kind)?);
    let made = RecordBatch::try_new(schema(rows.schema(), column, kind), columns)?;
    let keys = bad.batch().column(0).as_primitive::<Int64Type>();
    let messages = keys.values().iter().map(|key| format!("key {key}")).collect();
    Ok(Output::one(good.replace(made)?).with_failed(FailedRows { rows: bad, messages }))
}

impl Step for Planted {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(schema(&inputs[0], self.column, &self.kind)).with_effect(self.effect))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        self.calls.fetch_add(1, Relaxed);
        let (does, column, kind) = (Arc::clone(&self.does), self.column, self.kind.clone());
        let rows = input.rows(0).unwrap();
        let job = move || answer(&*does, column, &kind, &rows);
        match self.way {
            Way::Done => Work::Done(job()),
            Way::Waits => Work::Io(Box::pin(async move { job() })),
            Way::Computes => Work::Compute(Box::new(job)),
            Way::Never => Work::Io(Box::pin(std::future::pending())),
        }
    }
}

pub(super) fn keys(keys: impl IntoIterator<Item = i64>) -> RecordBatch {
    batch_of(vec![("key", Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef)])
}

/// Runs a typed step on rows.
pub(super) fn call(step: &dyn Step, rows: RecordBatch) -> StepResult {
    let cx = RunCx::new(RunId(0), Request::default(), rows.num_rows(), std::time::Instant::now);
    match step.call(Input::new(smallvec![Token::Rows(Rows::whole(rows))]), &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(answer) => answer.now_or_never().expect("planted steps wait for nothing"),
    }
}
