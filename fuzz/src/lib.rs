//! What is fuzzed: each function takes any bytes and must end, without a panic, having used little memory.
//!
//! `tests/fuzz.rs` of the root package runs the same functions over the corpus, and over changes of it, in `cargo test`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Instant,
};

use millstream::{
    DecodeLimits, Graph, Input, Output, Project, Request, Rows, RunCx, RunId, Step, StepError, Token, Work,
    arrow::{
        array::{Array, RecordBatch},
        compute::concat_batches,
        datatypes::{Schema, SchemaRef},
    },
    features::Stores,
    spec::{GraphSpec, column},
    transform::{Filter, Select},
    wire::{Form, ipc, json as text},
};

/// A longer input says nothing that a shorter one could not.
const MAX_BYTES: usize = 64 << 10;

/// The types of columns that bodies are read into.
const TYPES: [(&str, &str); 16] = [
    ("flag", "bool?"),
    ("small", "int8"),
    ("id", "int64?"),
    ("big", "uint64?"),
    ("half", "float16?"),
    ("amount", "float32?"),
    ("ratio", "float64?"),
    ("name", "string?"),
    ("free", "json?"),
    ("bytes", "binary?"),
    ("day", "date?"),
    ("at", "timestamp?"),
    ("nano", "timestamp_ns?"),
    ("items", "list<struct<a: int32, b: list<string?>?>>?"),
    ("image", "tensor<float32, 2, 2>?"),
    ("place", "struct<lat: float64, lon: float64?>?"),
];

fn schema(types: &[(&str, &str)]) -> SchemaRef {
    let fields = types.iter().map(|(name, text)| column(name, text).expect("a type"));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn limits() -> DecodeLimits {
    DecodeLimits { body_bytes: MAX_BYTES, rows: 1 << 10, absent_bytes: 1 << 20, ..DecodeLimits::default() }
}

/// A JSON body. What can be read is read the same from what is written of it.
pub fn json(data: &[u8]) {
    static CODEC: LazyLock<(text::Decoder, text::Encoder)> = LazyLock::new(|| {
        let schema = schema(&TYPES);
        let decoder = text::Decoder::new(Arc::clone(&schema), limits()).expect("columns that JSON can carry");
        (decoder, text::Encoder::new(schema).expect("columns that JSON can carry"))
    });
    let (decoder, encoder) = &*CODEC;
    let Ok(decoded) = decoder.decode(data) else { return };
    check(&decoded.batch);
    let mut body = Vec::new();
    encoder.encode(&decoded.batch, decoded.form, &mut body).expect("rows of this schema");
    if body.len() > MAX_BYTES {
        return;
    }
    let again = decoder.decode(&body).unwrap_or_else(|error| panic!("{error} in what was written: {body:?}"));
    let mut twice = Vec::new();
    encoder.encode(&again.batch, again.form, &mut twice).expect("rows of this schema");
    assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&twice));
}

/// An Arrow IPC stream. What can be read is whole, and is read the same from what is written of it.
pub fn arrow(data: &[u8]) {
    static DECODER: LazyLock<ipc::Decoder> = LazyLock::new(|| {
        ipc::Decoder::new(schema(&TYPES), limits()).expect("columns that a stream can carry")
    });
    let Ok(batch) = DECODER.decode(data.to_vec()) else { return };
    check(&batch);
    let body = ipc::encode(&batch).expect("columns that a stream can carry");
    if body.len() <= MAX_BYTES {
        let again = DECODER.decode(body).expect("what was written can be read");
        assert_eq!(batch.num_rows(), again.num_rows());
    }
}

fn check(batch: &RecordBatch) {
    for column in batch.columns() {
        column.to_data().validate_full().expect("columns are whole");
    }
}

/// The columns that expressions see, and some rows of them.
const COLUMNS: [(&str, &str); 8] = [
    ("amount", "float64"),
    ("qty", "int64"),
    ("small", "int8?"),
    ("name", "string?"),
    ("at", "timestamp?"),
    ("day", "date?"),
    ("items", "list<float64>?"),
    ("place", "struct<lat: float64, lon: float64?>"),
];
const ROWS: &[u8] = br#"[
    {"amount": 3.5, "qty": 0, "small": 7, "name": "a-B 9", "at": "2024-02-29T23:59:59Z", "day": "1969-12-31",
     "items": [1, 2.5], "place": {"lat": 1.5, "lon": -2}},
    {"amount": -0.0, "qty": -9223372036854775808, "small": -128, "name": "", "items": [], "place": {"lat": 0}},
    {"amount": 1e300, "qty": 9223372036854775807, "name": "\u0000\u00e9\ud83d\ude00", "at": -62135596800000000, "day": 2932896,
     "place": {"lat": -1e-300, "lon": 1e300}}
]"#;
/// So often the rows are repeated, so that there are too many to be evaluated value by value.
const REPEATED: usize = 8;

/// An expression, as a column and as a condition. A row is answered the same alone and among many.
pub fn expression(data: &[u8]) {
    static SAMPLE: LazyLock<RecordBatch> = LazyLock::new(|| {
        let decoder = text::Decoder::new(schema(&COLUMNS), DecodeLimits::default()).expect("columns");
        decoder.decode(ROWS).expect("rows").batch
    });
    let Ok(said) = std::str::from_utf8(data) else { return };
    let sample = &*SAMPLE;
    evaluate(&Select::new([format!("{said} AS answer")]), sample);
    evaluate(&Filter::new(said), sample);
}

fn evaluate(step: &impl Step, sample: &RecordBatch) {
    let Ok(signature) = step.signature(&[sample.schema()]) else { return };
    let all = concat_batches(&sample.schema(), std::iter::repeat_n(sample, REPEATED)).expect("one schema");
    let many = answer(step, all);
    let Ok(encoder) = text::Encoder::new(Arc::clone(&signature.outputs[0].schema)) else { return };
    let written = |output: Output| {
        let mut body = Vec::new();
        let (ports, failed, _) = output.into_parts();
        for (_, rows) in &ports {
            encoder.encode(rows.batch(), Form::Array, &mut body).expect("rows of this schema");
        }
        (body, failed.map_or(0, |failed| failed.rows.len()))
    };
    let alone: Vec<_> = (0..sample.num_rows()).map(|row| answer(step, sample.slice(row, 1))).collect();
    let Ok(many) = many else {
        // A batch of which every row fails, or too many, is an error as a whole.
        assert!(
            alone.iter().any(|alone| !matches!(alone, Ok(output) if is_whole(output))),
            "only many rows fail"
        );
        return;
    };
    let (many, failed) = written(many);
    let mut one = Vec::new();
    let mut failed_alone = 0;
    for alone in alone {
        match alone {
            Ok(output) => {
                let (body, failed) = written(output);
                failed_alone += failed;
                one.extend_from_slice(body.get(1..body.len().saturating_sub(1)).unwrap_or_default());
                if !body.is_empty() {
                    one.push(b',');
                }
            }
            Err(_) => failed_alone += 1,
        }
    }
    assert_eq!(failed, failed_alone * REPEATED, "as many rows fail alone as among many");
    let one = one.repeat(REPEATED);
    let one = String::from_utf8_lossy(&one);
    let many = String::from_utf8_lossy(&many);
    assert_eq!(one.trim_end_matches(','), many.trim_matches(['[', ']']).trim_end_matches(','));
}

fn is_whole(output: &Output) -> bool {
    format!("{output:?}").contains("failed: None")
}

fn answer(step: &impl Step, rows: RecordBatch) -> Result<Output, StepError> {
    let cx = RunCx::new(RunId(1), Request::default(), rows.num_rows(), Instant::now);
    match step.call(Input::new([Token::Rows(Rows::whole(rows))].into_iter().collect()), &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(_) => unreachable!("an expression waits for nothing"),
    }
}

/// The folder that project files are read for: it has one table of features.
fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("folder");
    if folder.is_dir() { folder } else { here.join("fuzz/folder") }
}

/// A project file. One that is good can be explained, drawn and written, and what is written means the same. No store is opened: the
/// text must not make files.
pub fn project(data: &[u8]) {
    let Ok(said) = std::str::from_utf8(&data[..data.len().min(MAX_BYTES)]) else { return };
    let Ok(project) = Project::from_text(said, folder(), &Stores::aside()) else { return };
    let names: Vec<&str> = project.graph_names().collect();
    for name in &names {
        let plan = project.plan(name).expect("it was compiled before");
        drop((plan.to_string(), plan.mermaid(), plan.svg()));
    }
    let Some(first) = written(&project) else { return };
    let again = Project::from_text(&first, folder(), &Stores::aside())
        .unwrap_or_else(|errors| panic!("{errors}\nin\n{first}"));
    assert_eq!(written(&again), Some(first));
}

/// The graphs of a project as a file, where they need nothing else of it.
fn written(project: &Project) -> Option<String> {
    if project.features().iter().next().is_some() {
        return None;
    }
    let specs = project.graph_names().map(|name| {
        let graph: Graph = project.graph(name).ok()?;
        let spec = GraphSpec::try_from(&graph).ok()?;
        Some((name, serde_json::to_value(spec).ok()?))
    });
    let graphs: serde_json::Map<_, _> =
        specs.map(|spec| spec.map(|(name, spec)| (name.to_owned(), spec))).collect::<Option<_>>()?;
    // JSON is YAML.
    serde_json::to_string(&serde_json::json!({ "name": "again", "graphs": graphs })).ok()
}
