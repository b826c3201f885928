//! Models from files, steps without an engine, and what Python's ONNX Runtime answered.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, LazyLock},
    time::Instant,
};

use arrow::array::RecordBatch;
use half::f16;
use millstream_graph::{Input, Output, Request, Rows, RunCx, RunId, Step, StepResult, Token, Work};
use millstream_models::{Data, LoadOptions, OnnxModel, Tensor};
use serde_json::Value as Json;
use smallvec::SmallVec;

pub(crate) const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// The fixture `name`, in two instances. Fails with the mending command when there is no runtime.
pub(crate) fn model(name: &str) -> OnnxModel {
    let folder = match name {
        "lgbm" | "lr" | "mlp" => concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/fraud/models"),
        _ => DATA,
    };
    load(folder, name, 2).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn load(
    folder: &str,
    name: &str,
    instances: usize,
) -> Result<OnnxModel, millstream_models::LoadError> {
    let options = LoadOptions { instances: NonZeroUsize::new(instances), ..LoadOptions::default() };
    OnnxModel::load(name, Path::new(folder), Path::new(&format!("{name}.onnx")), &options)
}

/// Types `step` for rows like `batch`.
pub(crate) fn typed<S: Step>(step: S, batch: &RecordBatch) -> S {
    step.signature(&[batch.schema()]).unwrap_or_else(|error| panic!("{error}"));
    step
}

/// What is wrong with `step` for rows like `batch`, one problem per line.
#[expect(clippy::needless_pass_by_value, reason = "a step is built where it is used")]
pub(crate) fn problems(step: impl Step, batch: &RecordBatch) -> String {
    step.signature(&[batch.schema()]).expect_err("the step is typed").problems().join("\n")
}

pub(crate) fn run(step: &impl Step, batch: &RecordBatch) -> StepResult {
    let cx = RunCx::new(RunId(0), Request::default(), batch.num_rows(), Instant::now);
    let input = Input::new(SmallVec::from_buf([Token::Rows(Rows::whole(batch.clone()))]));
    match step.call(input, &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(_) => panic!("a model does not wait"),
    }
}

/// The rows that come out, the rows that failed, and why those did.
pub(crate) fn parts(output: Output) -> (Option<RecordBatch>, Vec<String>) {
    let (mut ports, failed, _) = output.into_parts();
    (ports.pop().map(|(_, rows)| rows.into_batch()), failed.map(|failed| failed.messages).unwrap_or_default())
}

/// Runs a step that is good for every row.
pub(crate) fn answer(step: impl Step, batch: &RecordBatch) -> RecordBatch {
    let step = typed(step, batch);
    let (rows, failed) = parts(run(&step, batch).unwrap_or_else(|error| panic!("{error}")));
    assert_eq!(failed, [""; 0]);
    rows.expect("rows come out")
}

/// What Python's ONNX Runtime was given and answered, per model.
pub(crate) static EXPECTED: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(&std::fs::read_to_string(format!("{DATA}/expected.json")).unwrap()).unwrap()
});

/// A tensor that owns its values.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) shape: Vec<usize>,
    values: Values,
}

macro_rules! values {
    ($($variant:ident: $t:ty = $name:literal, $from:expr;)*) => {
        #[derive(Debug)]
        enum Values { $($variant(Vec<$t>),)* Str(Vec<&'static str>) }

        impl Owned {
            /// Reads what `make_models.py` wrote.
            pub(crate) fn of(json: &'static Json) -> Self {
                let list = json["values"].as_array().unwrap();
                let shape = json["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize);
                let values = match json["dtype"].as_str().unwrap() {
                    $($name => Values::$variant(list.iter().map($from).collect()),)*
                    _ => Values::Str(list.iter().map(|text| text.as_str().unwrap()).collect()),
                };
                Self { shape: shape.collect(), values }
            }

            pub(crate) fn tensor(&self) -> Tensor<'_> {
                let data = match &self.values {
                    $(Values::$variant(values) => Data::$variant(values),)*
                    Values::Str(values) => Data::Str(values),
                };
                Tensor { shape: &self.shape, data }
            }

            /// Row `row` alone.
            pub(crate) fn row(&self, row: usize) -> Owned {
                let width: usize = self.shape[1..].iter().product();
                let range = row * width..(row + 1) * width;
                let values = match &self.values {
                    $(Values::$variant(values) => Values::$variant(values[range].to_vec()),)*
                    Values::Str(values) => Values::Str(values[range].to_vec()),
                };
                let mut shape = self.shape.clone();
                shape[0] = 1;
                Owned { shape, values }
            }
        }
    };
}

values! {
    F16: f16 = "float16", |v: &Json| f16::from_f64(v.as_f64().unwrap());
    F32: f32 = "float32", |v: &Json| v.as_f64().unwrap() as f32;
    F64: f64 = "float64", |v: &Json| v.as_f64().unwrap();
    I8: i8 = "int8", |v: &Json| v.as_i64().unwrap() as i8;
    I16: i16 = "int16", |v: &Json| v.as_i64().unwrap() as i16;
    I32: i32 = "int32", |v: &Json| v.as_i64().unwrap() as i32;
    I64: i64 = "int64", |v: &Json| v.as_i64().unwrap();
    U8: u8 = "uint8", |v: &Json| v.as_u64().unwrap() as u8;
    U16: u16 = "uint16", |v: &Json| v.as_u64().unwrap() as u16;
    U32: u32 = "uint32", |v: &Json| v.as_u64().unwrap() as u32;
    U64: u64 = "uint64", |v: &Json| v.as_u64().unwrap();
    Bool: bool = "bool", |v: &Json| v.as_bool().unwrap();
}

/// Fails unless both hold the same values; floats may differ in the last digits, as batches of another size may.
pub(crate) fn assert_close(got: &Tensor<'_>, wanted: &Tensor<'_>, what: &str) {
    assert_eq!(got.shape, wanted.shape, "{what}");
    match (got.data, wanted.data) {
        (Data::F32(got), Data::F32(wanted)) => {
            for (got, wanted) in got.iter().zip(wanted) {
                assert!(
                    (got - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
                    "{what}: {got} is not {wanted}"
                );
            }
        }
        (got, wanted) => assert_eq!(got, wanted, "{what}"),
    }
}

pub(crate) fn share<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
